//! Records: what the journal's log frames hold. Replaying them in order gives the state of the store.
//!
//! Branches are named by number here, so that renaming one is one record and a commit's record stays short.

mod kept;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::change_set::ChangeSet;
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::encoding::{ByteReader, Decoded, Malformed, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId, Lsn, Timestamp};
use crate::schema::Oid;

pub(crate) use kept::{KeptRoot, KeptRoots};

/// A change set outside of a commit that is longer than this goes into chunks.
const INLINE_SIZE_MAX: usize = 1 << 20;
const PIECE_SIZE: usize = 1 << 18;

/// What a commit does to the working set of its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitMode {
    /// The working set follows: it takes the changed rows that it had as HEAD had them.
    Follow = 0,
    /// The commit is what was staged: staged becomes HEAD's root value, working stays.
    Staged = 1,
}

/// A root value of a branch, as a record gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootSpec {
    /// As it was.
    Unchanged,
    /// HEAD's.
    Head,
    /// The staged one (for the working one).
    Staged,
    /// The one written at this address.
    Written(ChunkAddress),
}

/// A branch in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BranchCheckpoint {
    pub branch: u32,
    pub database: u32,
    pub name: String,
    pub head: Option<CommitId>,
    pub head_root: ChunkAddress,
    /// Never `Unchanged`.
    pub staged: RootSpec,
    pub working: RootSpec,
    pub conflicts: Vec<(Oid, String, CommitId)>,
    /// See `BranchState::applied_to_working`.
    pub applied: Lsn,
    /// Records of the branch before this sequence number are in the roots.
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagRecord {
    pub database: u32,
    pub name: String,
    pub commit: CommitId,
    pub tagger_name: String,
    pub tagger_email: String,
    pub time: Timestamp,
    pub message: String,
}

/// Everything that opening needs besides the commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Records before this sequence number are in what is not a branch, and replay starts here.
    pub sequence: u64,
    pub next_number: u32,
    pub oid_limit: Oid,
    pub databases: Vec<(u32, String)>,
    pub branches: Vec<BranchCheckpoint>,
    pub tags: Vec<TagRecord>,
    pub state: Vec<(String, Vec<u8>)>,
    /// What replaying the store from its beginning would cost, in row changes (and commits); 0 where it is not known.
    pub cost: u64,
    pub kept: KeptRoots,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    DatabaseCreated {
        database: u32,
        name: String,
    },
    DatabaseDropped {
        database: u32,
    },
    /// Without a head: an empty root value, to which the first commit follows.
    BranchCreated {
        database: u32,
        branch: u32,
        name: String,
        head: Option<CommitId>,
    },
    BranchRenamed {
        branch: u32,
        name: String,
    },
    BranchDeleted {
        branch: u32,
    },
    /// A commit and the move of the branch's head to it, in one.
    Commit {
        branch: u32,
        mode: CommitMode,
        commit: Bytes,
    },
    /// The head moved without a commit; `hard`: staged and working, too.
    HeadMoved {
        branch: u32,
        head: CommitId,
        hard: bool,
    },
    /// Changes of the working set.
    Working {
        branch: u32,
        /// The end of the source transaction that the changes are; 0 for local ones.
        applied: Lsn,
        changes: StoredChangeSet,
    },
    Roots {
        branch: u32,
        staged: RootSpec,
        working: RootSpec,
    },
    TagPut(TagRecord),
    TagDeleted {
        database: u32,
        name: String,
    },
    State {
        key: String,
        value: Option<Vec<u8>>,
    },
    /// Oids below this one may have been given out.
    Oids {
        limit: Oid,
    },
    Checkpoint(Box<Checkpoint>),
}

/// An encoded change set, or the chunks that hold it in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredChangeSet {
    Inline(Bytes),
    Chunks(Vec<ChunkAddress>),
}

impl StoredChangeSet {
    pub fn store(changes: &ChangeSet, writer: &mut dyn ChunkWriter) -> Result<Self> {
        let mut bytes = Vec::new();
        changes.encode(&mut bytes);
        if bytes.len() <= INLINE_SIZE_MAX {
            return Ok(StoredChangeSet::Inline(bytes.into()));
        }
        Ok(StoredChangeSet::Chunks(bytes.chunks(PIECE_SIZE).map(|p| writer.put_bytes(p)).collect::<Result<_>>()?))
    }

    pub fn load(&self, reader: &dyn ChunkReader) -> Result<ChangeSet> {
        let gathered;
        let bytes: &[u8] = match self {
            StoredChangeSet::Inline(bytes) => bytes,
            StoredChangeSet::Chunks(pieces) => {
                let mut bytes = Vec::new();
                for piece in pieces {
                    bytes.extend_from_slice(&reader.read(piece)?);
                }
                gathered = bytes;
                &gathered
            }
        };
        ChangeSet::decode(bytes).map_err(|e| e.at("change set of a working set"))
    }
}

const DATABASE_CREATED: u8 = 1;
const DATABASE_DROPPED: u8 = 2;
const BRANCH_CREATED: u8 = 3;
const BRANCH_RENAMED: u8 = 4;
const BRANCH_DELETED: u8 = 5;
pub(crate) const COMMIT: u8 = 6;
const HEAD_MOVED: u8 = 7;
pub(crate) const WORKING: u8 = 8;
pub(crate) const ROOTS: u8 = 9;
const TAG_PUT: u8 = 10;
const TAG_DELETED: u8 = 11;
const STATE: u8 = 12;
const OIDS: u8 = 13;
const CHECKPOINT: u8 = 14;

fn number(out: &mut Vec<u8>, number: u32) {
    put_varint(out, u64::from(number));
}

fn text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// The beginning of a commit's record; the commit's bytes follow to the end.
pub(crate) fn begin_commit(out: &mut Vec<u8>, branch: u32, mode: CommitMode) {
    out.push(COMMIT);
    number(out, branch);
    out.push(mode as u8);
}

/// The commit in a record, when it is one.
pub(crate) fn commit_bytes(record: &Bytes) -> Decoded<Option<Bytes>> {
    if record.first() != Some(&COMMIT) {
        return Ok(None);
    }
    let mut reader = ByteReader::new(&record[1..]);
    reader.varint_u32()?;
    reader.u8()?;
    Ok(Some(record.slice(record.len() - reader.rest().len()..)))
}

/// Says whether a record is a checkpoint, without decoding it.
pub(crate) fn is_checkpoint(record: &[u8]) -> bool {
    record.first() == Some(&CHECKPOINT)
}

impl RootSpec {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            RootSpec::Unchanged => out.push(0),
            RootSpec::Head => out.push(1),
            RootSpec::Staged => out.push(2),
            RootSpec::Written(address) => {
                out.push(3);
                out.extend_from_slice(&address.0);
            }
        }
    }

    fn decode(reader: &mut ByteReader<'_>) -> Decoded<RootSpec> {
        Ok(match reader.u8()? {
            0 => RootSpec::Unchanged,
            1 => RootSpec::Head,
            2 => RootSpec::Staged,
            3 => RootSpec::Written(ChunkAddress(reader.array()?)),
            _ => return Err(Malformed("unknown kind of root value")),
        })
    }
}

fn put_head(out: &mut Vec<u8>, head: &Option<CommitId>) {
    match head {
        None => out.push(0),
        Some(id) => {
            out.push(1);
            out.extend_from_slice(&id.0);
        }
    }
}

fn head(reader: &mut ByteReader<'_>) -> Decoded<Option<CommitId>> {
    Ok(if reader.bool()? { Some(CommitId(reader.array()?)) } else { None })
}

impl TagRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        number(out, self.database);
        text(out, &self.name);
        out.extend_from_slice(&self.commit.0);
        text(out, &self.tagger_name);
        text(out, &self.tagger_email);
        out.extend_from_slice(&self.time.0.to_le_bytes());
        text(out, &self.message);
    }

    fn decode(reader: &mut ByteReader<'_>) -> Decoded<TagRecord> {
        Ok(TagRecord {
            database: reader.varint_u32()?,
            name: reader.string()?,
            commit: CommitId(reader.array()?),
            tagger_name: reader.string()?,
            tagger_email: reader.string()?,
            time: Timestamp(i64::from_le_bytes(reader.array()?)),
            message: reader.string()?,
        })
    }
}

impl Checkpoint {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.sequence);
        number(out, self.next_number);
        number(out, self.oid_limit);
        put_varint(out, self.databases.len() as u64);
        for (database, name) in &self.databases {
            number(out, *database);
            text(out, name);
        }
        put_varint(out, self.branches.len() as u64);
        for branch in &self.branches {
            number(out, branch.branch);
            number(out, branch.database);
            text(out, &branch.name);
            put_head(out, &branch.head);
            out.extend_from_slice(&branch.head_root.0);
            branch.staged.encode(out);
            branch.working.encode(out);
            put_varint(out, branch.conflicts.len() as u64);
            for (table, key, commit) in &branch.conflicts {
                number(out, *table);
                text(out, key);
                out.extend_from_slice(&commit.0);
            }
            put_varint(out, branch.applied.0);
            put_varint(out, branch.sequence);
        }
        put_varint(out, self.tags.len() as u64);
        for tag in &self.tags {
            tag.encode(out);
        }
        put_varint(out, self.state.len() as u64);
        for (key, value) in &self.state {
            text(out, key);
            put_bytes(out, value);
        }
        put_varint(out, self.cost);
        self.kept.encode(out);
    }

    fn decode(reader: &mut ByteReader<'_>) -> Decoded<Checkpoint> {
        let mut checkpoint = Checkpoint {
            sequence: reader.varint()?,
            next_number: reader.varint_u32()?,
            oid_limit: reader.varint_u32()?,
            ..Checkpoint::default()
        };
        for _ in 0..reader.count()? {
            checkpoint.databases.push((reader.varint_u32()?, reader.string()?));
        }
        for _ in 0..reader.count()? {
            let mut branch = BranchCheckpoint {
                branch: reader.varint_u32()?,
                database: reader.varint_u32()?,
                name: reader.string()?,
                head: head(reader)?,
                head_root: ChunkAddress(reader.array()?),
                staged: RootSpec::decode(reader)?,
                working: RootSpec::decode(reader)?,
                conflicts: Vec::new(),
                applied: Lsn(0),
                sequence: 0,
            };
            for _ in 0..reader.count()? {
                branch.conflicts.push((reader.varint_u32()?, reader.string()?, CommitId(reader.array()?)));
            }
            branch.applied = Lsn(reader.varint()?);
            branch.sequence = reader.varint()?;
            checkpoint.branches.push(branch);
        }
        for _ in 0..reader.count()? {
            checkpoint.tags.push(TagRecord::decode(reader)?);
        }
        for _ in 0..reader.count()? {
            checkpoint.state.push((reader.string()?, reader.bytes()?.to_vec()));
        }
        // Earlier versions end here, and have removed nothing.
        if !reader.rest().is_empty() {
            checkpoint.cost = reader.varint()?;
            checkpoint.kept = KeptRoots::decode(reader)?;
        }
        Ok(checkpoint)
    }
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        let out = &mut bytes;
        match self {
            Record::DatabaseCreated { database, name } => {
                out.push(DATABASE_CREATED);
                number(out, *database);
                text(out, name);
            }
            Record::DatabaseDropped { database } => {
                out.push(DATABASE_DROPPED);
                number(out, *database);
            }
            Record::BranchCreated { database, branch, name, head } => {
                out.push(BRANCH_CREATED);
                number(out, *database);
                number(out, *branch);
                text(out, name);
                put_head(out, head);
            }
            Record::BranchRenamed { branch, name } => {
                out.push(BRANCH_RENAMED);
                number(out, *branch);
                text(out, name);
            }
            Record::BranchDeleted { branch } => {
                out.push(BRANCH_DELETED);
                number(out, *branch);
            }
            Record::Commit { branch, mode, commit } => {
                begin_commit(out, *branch, *mode);
                out.extend_from_slice(commit);
            }
            Record::HeadMoved { branch, head, hard } => {
                out.push(HEAD_MOVED);
                number(out, *branch);
                out.extend_from_slice(&head.0);
                out.push(u8::from(*hard));
            }
            Record::Working { branch, applied, changes } => {
                out.push(WORKING);
                number(out, *branch);
                put_varint(out, applied.0);
                match changes {
                    StoredChangeSet::Inline(bytes) => {
                        out.push(0);
                        out.extend_from_slice(bytes);
                    }
                    StoredChangeSet::Chunks(pieces) => {
                        out.push(1);
                        for piece in pieces {
                            out.extend_from_slice(&piece.0);
                        }
                    }
                }
            }
            Record::Roots { branch, staged, working } => {
                out.push(ROOTS);
                number(out, *branch);
                staged.encode(out);
                working.encode(out);
            }
            Record::TagPut(tag) => {
                out.push(TAG_PUT);
                tag.encode(out);
            }
            Record::TagDeleted { database, name } => {
                out.push(TAG_DELETED);
                number(out, *database);
                text(out, name);
            }
            Record::State { key, value } => {
                out.push(STATE);
                text(out, key);
                out.push(u8::from(value.is_some()));
                out.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            Record::Oids { limit } => {
                out.push(OIDS);
                number(out, *limit);
            }
            Record::Checkpoint(checkpoint) => {
                out.push(CHECKPOINT);
                checkpoint.encode(out);
            }
        }
        bytes
    }

    pub fn decode(record: &Bytes) -> Decoded<Record> {
        let mut reader = ByteReader::new(record);
        let rest = |reader: &mut ByteReader<'_>| {
            let size = reader.rest().len();
            let _ = reader.take(size);
            record.slice(record.len() - size..)
        };
        let kind = reader.u8()?;
        let decoded = match kind {
            DATABASE_CREATED => Record::DatabaseCreated { database: reader.varint_u32()?, name: reader.string()? },
            DATABASE_DROPPED => Record::DatabaseDropped { database: reader.varint_u32()? },
            BRANCH_CREATED => Record::BranchCreated {
                database: reader.varint_u32()?,
                branch: reader.varint_u32()?,
                name: reader.string()?,
                head: head(&mut reader)?,
            },
            BRANCH_RENAMED => Record::BranchRenamed { branch: reader.varint_u32()?, name: reader.string()? },
            BRANCH_DELETED => Record::BranchDeleted { branch: reader.varint_u32()? },
            COMMIT => {
                let branch = reader.varint_u32()?;
                let mode = match reader.u8()? {
                    0 => CommitMode::Follow,
                    1 => CommitMode::Staged,
                    _ => return Err(Malformed("unknown mode of commit")),
                };
                Record::Commit { branch, mode, commit: rest(&mut reader) }
            }
            HEAD_MOVED => Record::HeadMoved { branch: reader.varint_u32()?, head: CommitId(reader.array()?), hard: reader.bool()? },
            WORKING => {
                let branch = reader.varint_u32()?;
                let applied = Lsn(reader.varint()?);
                let changes = if reader.bool()? {
                    let mut pieces = Vec::new();
                    while !reader.is_empty() {
                        pieces.push(ChunkAddress(reader.array()?));
                    }
                    StoredChangeSet::Chunks(pieces)
                } else {
                    StoredChangeSet::Inline(rest(&mut reader))
                };
                Record::Working { branch, applied, changes }
            }
            ROOTS => Record::Roots {
                branch: reader.varint_u32()?,
                staged: RootSpec::decode(&mut reader)?,
                working: RootSpec::decode(&mut reader)?,
            },
            TAG_PUT => Record::TagPut(TagRecord::decode(&mut reader)?),
            TAG_DELETED => Record::TagDeleted { database: reader.varint_u32()?, name: reader.string()? },
            STATE => {
                let key = reader.string()?;
                let value = if reader.bool()? { Some(rest(&mut reader).to_vec()) } else { None };
                Record::State { key, value }
            }
            OIDS => Record::Oids { limit: reader.varint_u32()? },
            CHECKPOINT => Record::Checkpoint(Box::new(Checkpoint::decode(&mut reader)?)),
            _ => return Err(Malformed("unknown kind of record")),
        };
        reader.finish()?;
        Ok(decoded)
    }

    /// As [`Record::decode`], with an error that names the place.
    pub fn decode_at(record: &Bytes, place: impl FnOnce() -> String) -> Result<Record, Error> {
        Record::decode(record).map_err(|e| e.at(place()))
    }
}
