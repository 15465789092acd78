//! A commit: parents, who, when, why, where it came from, and what it changed.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::change_set::{self, ChangeSet, RowChange};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::encoding::{ByteReader, Decoded, Malformed, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::id::{ChunkAddress, CommitId, Lsn, Timestamp};

/// A change set whose encoding is longer than this lies in chunks of its own, so that a commit's record stays small.
const INLINE_CHANGES_SIZE_MAX: usize = 1 << 20;
/// The size of the chunks of such a change set.
const CHANGES_PIECE_SIZE: usize = 1 << 18;
/// A commit has a few parents; more is damage.
const PARENT_COUNT_MAX: usize = 64;

pub(crate) const VERSION: u8 = 1;
pub(crate) const SAME_IDENTITY: u8 = 1;
pub(crate) const SAME_TIME: u8 = 2;
pub(crate) const HAS_SOURCE: u8 = 4;
pub(crate) const SOURCE_SAME_TIME: u8 = 8;
pub(crate) const HAS_ORIGIN: u8 = 16;
pub(crate) const HAS_CONTEXT: u8 = 32;
pub(crate) const CHANGES_IN_CHUNKS: u8 = 64;
pub(crate) const HAS_SUBSCRIPTION: u8 = 128;

/// Who made a commit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    pub name: String,
    pub email: String,
}

/// The coordinates of the primary's transaction that a commit carries.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Source {
    /// The end of the transaction's commit record: replication continues here.
    pub end_lsn: Lsn,
    /// The LSN of the commit record itself (`source_lsn`).
    pub commit_lsn: Lsn,
    pub xid: u32,
    pub commit_time: Timestamp,
    pub origin: Option<String>,
    /// JSON sent by the application.
    pub context: Option<String>,
    /// The oid of the subscription that brought it, so that each of several on a branch finds its own position; 0: the server's
    /// configured one.
    pub subscription: u32,
}

/// What describes a commit besides its changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommitMeta {
    pub author: Identity,
    pub author_time: Timestamp,
    pub committer: Identity,
    pub commit_time: Timestamp,
    pub message: String,
    pub source: Option<Source>,
}

/// One commit as stored. Its change set is decoded (and, when it is a big one, read) on the first call of [`Commit::changes`].
#[derive(Debug)]
pub struct Commit {
    pub id: CommitId,
    pub parents: Vec<CommitId>,
    /// 1 + the highest height of the parents; the first commit has 1.
    pub height: u64,
    pub meta: CommitMeta,
    stored: StoredChanges,
    changes: OnceLock<ChangeSet>,
}

#[derive(Clone, Debug)]
enum StoredChanges {
    Inline(Bytes),
    /// The encoding's size and the chunks that hold it in pieces.
    Chunks {
        size: u64,
        pieces: Vec<ChunkAddress>,
        reader: Arc<dyn ChunkReader>,
    },
}

impl Commit {
    /// What the commit changed, relative to its first parent.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn changes(&self) -> Result<&ChangeSet> {
        if let Some(changes) = self.changes.get() {
            return Ok(changes);
        }
        let place = || format!("commit {:.12}", self.id);
        let decoded = match &self.stored {
            StoredChanges::Inline(bytes) => ChangeSet::decode(bytes),
            StoredChanges::Chunks { size, pieces, reader } => ChangeSet::decode(&read_pieces(*size, pieces, reader, place)?),
        };
        let changes = decoded.map_err(|e| e.at(place()))?;
        Ok(self.changes.get_or_init(|| changes))
    }

    /// What the commit changed, to keep.
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn take_changes(self) -> Result<ChangeSet> {
        self.changes()?;
        Ok(self.changes.into_inner().expect("BUG: changes were just decoded"))
    }

    /// The commit's time as its history tells it: the source's commit time, if it has one.
    pub fn time(&self) -> Timestamp {
        self.meta.time()
    }

    /// Says whether the commit may touch this table or object; `false` is certain.
    pub(crate) fn may_touch(mask: u32, table: crate::schema::Oid) -> bool {
        mask & change_set::table_bit(table) != 0
    }

    /// What the commit with these bytes did to the rows of one table; `None` where it changed the table as a whole. Other tables'
    /// changes are passed over.
    /// # Errors
    /// `Damaged`, `Io`.
    pub(crate) fn table_changes(bytes: &Bytes, table: crate::schema::Oid, reader: &Arc<dyn ChunkReader>) -> Result<Option<Vec<RowChange>>> {
        let place = || format!("commit {:.12}", CommitId::of(bytes));
        let header = Header::decode(bytes).map_err(|e| e.at(place()))?;
        let Some((size, pieces)) = header.pieces else {
            return ChangeSet::decode_rows_of(&bytes[header.inline_at..], table).map_err(|e| e.at(place()));
        };
        let encoded = read_pieces(size, &pieces, reader, place)?;
        ChangeSet::decode_rows_of(&encoded, table).map_err(|e| e.at(place()))
    }

    pub(crate) fn decode(bytes: &Bytes, reader: &Arc<dyn ChunkReader>) -> Result<Commit> {
        Self::decode_known(CommitId::of(bytes), bytes, reader)
    }

    /// As [`Commit::decode`], of bytes that are known to hash to this id.
    pub(crate) fn decode_known(id: CommitId, bytes: &Bytes, reader: &Arc<dyn ChunkReader>) -> Result<Commit> {
        let decoded = Header::decode(bytes).map_err(|e| e.at(format!("commit {id:.12}")))?;
        let stored = match decoded.pieces {
            Some((size, pieces)) => StoredChanges::Chunks { size, pieces, reader: reader.clone() },
            None => StoredChanges::Inline(bytes.slice(decoded.inline_at..)),
        };
        Ok(Commit { id, parents: decoded.parents, height: decoded.height, meta: decoded.meta, stored, changes: OnceLock::new() })
    }
}

/// An encoded change set that lies in chunks.
fn read_pieces(size: u64, pieces: &[ChunkAddress], reader: &Arc<dyn ChunkReader>, place: impl Fn() -> String) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(&reader.read(piece)?);
    }
    if bytes.len() as u64 != size {
        return Err(Error::Damaged { place: place(), what: "change set has another size".into() });
    }
    Ok(bytes)
}

impl CommitMeta {
    pub fn time(&self) -> Timestamp {
        self.source.as_ref().map_or(self.commit_time, |s| s.commit_time)
    }
}

/// An encoded commit without its change set.
pub(crate) struct Header {
    pub parents: Vec<CommitId>,
    pub height: u64,
    pub meta: CommitMeta,
    /// Where the change set's chunks are, with its size; otherwise it begins at `inline_at`.
    pub pieces: Option<(u64, Vec<ChunkAddress>)>,
    pub inline_at: usize,
}

impl Header {
    pub fn decode(bytes: &[u8]) -> Decoded<Header> {
        let mut reader = ByteReader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of commit"));
        }
        let flags = reader.u8()?;
        let parent_count = reader.count()?;
        if parent_count > PARENT_COUNT_MAX {
            return Err(Malformed("too many parents"));
        }
        let mut parents = Vec::with_capacity(parent_count);
        for _ in 0..parent_count {
            parents.push(CommitId(reader.array()?));
        }
        let height = reader.varint()?;
        let author = Identity { name: reader.string()?, email: reader.string()? };
        let committer = match flags & SAME_IDENTITY != 0 {
            true => author.clone(),
            false => Identity { name: reader.string()?, email: reader.string()? },
        };
        let commit_time = Timestamp(i64::from_le_bytes(reader.array()?));
        let author_time = match flags & SAME_TIME != 0 {
            true => commit_time,
            false => Timestamp(i64::from_le_bytes(reader.array()?)),
        };
        let message = reader.string()?;
        let source = match flags & HAS_SOURCE != 0 {
            false => None,
            true => {
                let commit_lsn = reader.varint()?;
                let end_lsn = Lsn(commit_lsn.checked_add_signed(reader.zigzag()?).ok_or(Malformed("LSN out of range"))?);
                let xid = reader.varint_u32()?;
                let commit_time = match flags & SOURCE_SAME_TIME != 0 {
                    true => commit_time,
                    false => Timestamp(i64::from_le_bytes(reader.array()?)),
                };
                let origin = if flags & HAS_ORIGIN != 0 { Some(reader.string()?) } else { None };
                let context = if flags & HAS_CONTEXT != 0 { Some(reader.string()?) } else { None };
                let subscription = if flags & HAS_SUBSCRIPTION != 0 { reader.varint_u32()? } else { 0 };
                Some(Source { end_lsn, commit_lsn: Lsn(commit_lsn), xid, commit_time, origin, context, subscription })
            }
        };
        let mut pieces = None;
        if flags & CHANGES_IN_CHUNKS != 0 {
            let size = reader.varint()?;
            let mut addresses = Vec::new();
            for _ in 0..reader.count()? {
                addresses.push(ChunkAddress(reader.array()?));
            }
            reader.finish()?;
            pieces = Some((size, addresses));
        }
        let inline_at = bytes.len() - reader.rest().len();
        let meta = CommitMeta { author, author_time, committer, commit_time, message, source };
        Ok(Header { parents, height, meta, pieces, inline_at })
    }

    /// Which tables and objects the commit touches; everything where its change set is not inline.
    pub fn touched_mask(&self, bytes: &[u8]) -> Decoded<u32> {
        if self.pieces.is_some() { Ok(u32::MAX) } else { change_set::touched_mask(&bytes[self.inline_at..]) }
    }
}

/// Appends a commit's bytes, whose hash is its id; see `docs/file-format.md`. A big change set goes to `writer` first.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    parents: &[CommitId],
    height: u64,
    meta: &CommitMeta,
    changes: &ChangeSet,
    writer: &mut dyn ChunkWriter,
) -> Result<()> {
    if parents.len() > PARENT_COUNT_MAX {
        return Err(Error::Limit { what: "number of parents", limit: PARENT_COUNT_MAX as u64 });
    }
    let flags_at = out.len() + 1;
    out.extend_from_slice(&[VERSION, 0]);
    let mut flags = 0;
    put_varint(out, parents.len() as u64);
    for parent in parents {
        out.extend_from_slice(&parent.0);
    }
    put_varint(out, height);
    put_bytes(out, meta.author.name.as_bytes());
    put_bytes(out, meta.author.email.as_bytes());
    if meta.committer == meta.author {
        flags |= SAME_IDENTITY;
    } else {
        put_bytes(out, meta.committer.name.as_bytes());
        put_bytes(out, meta.committer.email.as_bytes());
    }
    out.extend_from_slice(&meta.commit_time.0.to_le_bytes());
    if meta.author_time == meta.commit_time {
        flags |= SAME_TIME;
    } else {
        out.extend_from_slice(&meta.author_time.0.to_le_bytes());
    }
    put_bytes(out, meta.message.as_bytes());
    if let Some(source) = &meta.source {
        flags |= HAS_SOURCE;
        put_varint(out, source.commit_lsn.0);
        crate::encoding::put_zigzag(out, source.end_lsn.0.wrapping_sub(source.commit_lsn.0) as i64);
        put_varint(out, u64::from(source.xid));
        if source.commit_time == meta.commit_time {
            flags |= SOURCE_SAME_TIME;
        } else {
            out.extend_from_slice(&source.commit_time.0.to_le_bytes());
        }
        if let Some(origin) = &source.origin {
            flags |= HAS_ORIGIN;
            put_bytes(out, origin.as_bytes());
        }
        if let Some(context) = &source.context {
            flags |= HAS_CONTEXT;
            put_bytes(out, context.as_bytes());
        }
        if source.subscription != 0 {
            flags |= HAS_SUBSCRIPTION;
            put_varint(out, u64::from(source.subscription));
        }
    }
    let changes_at = out.len();
    changes.encode(out);
    if out.len() - changes_at > INLINE_CHANGES_SIZE_MAX {
        flags |= CHANGES_IN_CHUNKS;
        let encoded = out.split_off(changes_at);
        put_varint(out, encoded.len() as u64);
        put_varint(out, encoded.chunks(CHANGES_PIECE_SIZE).len() as u64);
        for piece in encoded.chunks(CHANGES_PIECE_SIZE) {
            let address = writer.put_bytes(piece)?;
            out.extend_from_slice(&address.0);
        }
    }
    out[flags_at] = flags;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change_set::{RowChange, RowChangeKind, RowsChange, TableChange};
    use crate::chunk::MemoryChunks;
    use crate::value::Value;

    fn changes(row_count: usize) -> ChangeSet {
        let row = |i: usize| RowChange {
            key: (i as u64).to_be_bytes().as_slice().into(),
            kind: RowChangeKind::Inserted { new: vec![Value::Int8(i as i64), Value::bytes([b'x'; 100])] },
        };
        let rows = RowsChange::Rows((0..row_count).map(row).collect());
        ChangeSet { catalog: vec![], tables: vec![TableChange { table: 16384, rows }] }
    }

    fn meta(source: bool) -> CommitMeta {
        let author = Identity { name: "a".into(), email: "a@b".into() };
        let source = source.then(|| Source {
            end_lsn: Lsn(0x16B3780),
            commit_lsn: Lsn(0x16B3748),
            xid: 735,
            commit_time: Timestamp(77),
            origin: Some("o".into()),
            context: Some("{\"user\": 1}".into()),
            subscription: 16400,
        });
        CommitMeta {
            committer: Identity { name: "c".into(), email: String::new() },
            author,
            author_time: Timestamp(5),
            commit_time: Timestamp(-6),
            message: "m".into(),
            source,
        }
    }

    #[test]
    fn a_commit_comes_back_as_it_was_with_and_without_a_source() {
        for (source, row_count) in [(true, 3), (false, 0), (true, 20_000)] {
            let chunks = Arc::new(MemoryChunks::default());
            let mut out = Vec::new();
            let parents = [CommitId([1; 32]), CommitId([2; 32])];
            encode(&mut out, &parents, 9, &meta(source), &changes(row_count), &mut &*chunks).unwrap();
            assert_eq!(chunks.is_empty(), row_count < 20_000);
            let reader: Arc<dyn ChunkReader> = chunks;
            let commit = Commit::decode(&Bytes::from(out.clone()), &reader).unwrap();
            assert_eq!(commit.id, CommitId::of(&out));
            assert_eq!((commit.parents.as_slice(), commit.height, &commit.meta), (parents.as_slice(), 9, &meta(source)));
            assert_eq!(commit.changes().unwrap(), &changes(row_count));
        }
    }

    #[test]
    fn a_commit_cut_short_is_refused_at_every_length() {
        let chunks = Arc::new(MemoryChunks::default());
        let mut out = Vec::new();
        encode(&mut out, &[CommitId([1; 32])], 9, &meta(true), &changes(2), &mut &*chunks).unwrap();
        let reader: Arc<dyn ChunkReader> = chunks;
        for size in 0..out.len() {
            let commit = Commit::decode(&Bytes::copy_from_slice(&out[..size]), &reader);
            assert!(commit.is_err() || commit.unwrap().changes().is_err(), "{size}");
        }
    }
}
