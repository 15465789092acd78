//! The messages and how each is decoded. What only later protocol versions have is in `streamed.rs` and `prepared.rs`.

use strandline_storage::{Lsn, Timestamp};

use super::fields::Fields;
use super::prepared::{CommitPrepared, Prepare, RollbackPrepared};
use super::streamed::{StreamAbort, StreamCommit, StreamStart};
use super::tuple::Tuple;
use super::{COLUMN_COUNT_MAX, DecodeError, MESSAGE_PREFIX_SIZE_MAX, TRUNCATE_COUNT_MAX};

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin(Begin),
    Commit(Commit),
    Origin(Origin<'a>),
    Relation(Relation<'a>),
    Type(Type<'a>),
    Insert(Insert<'a>),
    Update(Update<'a>),
    Delete(Delete<'a>),
    Truncate(Truncate),
    Logical(LogicalMessage<'a>),
    StreamStart(StreamStart),
    StreamStop,
    StreamCommit(StreamCommit),
    StreamAbort(StreamAbort),
    BeginPrepare(Prepare<'a>),
    Prepare(Prepare<'a>),
    /// As `Prepare`, for a transaction that was streamed.
    StreamPrepare(Prepare<'a>),
    CommitPrepared(CommitPrepared<'a>),
    RollbackPrepared(RollbackPrepared<'a>),
}

/// A transaction begins; all its changes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of the transaction's commit record.
    pub commit_lsn: Lsn,
    pub commit_time: Timestamp,
    pub xid: u32,
}

/// The transaction of the last `Begin` is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub commit_lsn: Lsn,
    /// The end of the commit record: replication continues here.
    pub end_lsn: Lsn,
    pub commit_time: Timestamp,
}

/// The transaction was itself replicated from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub lsn: Lsn,
    pub name: &'a str,
}

/// A table as it is from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub oid: u32,
    /// The schema's name; `pg_catalog` is sent as an empty text and given here by its name.
    pub schema: &'a str,
    pub name: &'a str,
    pub identity: ReplicaIdentity,
    pub columns: Vec<RelationColumn<'a>>,
}

/// One published column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity (with `Full`, every column is).
    pub key: bool,
    pub name: &'a str,
    pub type_oid: u32,
    pub typmod: i32,
}

/// What an update or a deletion tells about the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletions cannot be published.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// A type that is not built in, named before the relation that uses it. A domain carries its base type's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    pub oid: u32,
    /// As for [`Relation::schema`].
    pub schema: &'a str,
    pub name: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    pub relation: u32,
    pub new: Tuple<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    pub relation: u32,
    /// Absent when the replica identity's columns did not change.
    pub old: Option<OldTuple<'a>>,
    pub new: Tuple<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    pub relation: u32,
    pub old: OldTuple<'a>,
}

/// What is known of the row before the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The replica identity's columns; the others are null markers that mean nothing.
    Key(Tuple<'a>),
    /// The whole row.
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    pub fn tuple(&self) -> Tuple<'a> {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => *tuple,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    pub cascade: bool,
    pub restart_identity: bool,
    pub relations: Vec<u32>,
}

/// What an application wrote with `pg_logical_emit_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Belongs to the transaction under way; otherwise it stands alone.
    pub transactional: bool,
    pub lsn: Lsn,
    pub prefix: &'a str,
    pub content: &'a [u8],
}

/// The kind of a message by its first byte, for passes that need not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Begin,
    Commit,
    /// Relation or Type: describes what follows, changes nothing.
    Description,
    /// Insert, Update, Delete or Truncate.
    Row,
    /// A block of a running transaction begins, ends, or such a transaction does.
    Streaming,
    /// A two-phase transaction begins or reaches one of its ends.
    TwoPhase,
    Other,
}

impl MessageKind {
    /// Looks at the first byte only.
    #[inline]
    pub fn of(bytes: &[u8]) -> MessageKind {
        match bytes.first() {
            Some(b'B') => MessageKind::Begin,
            Some(b'C') => MessageKind::Commit,
            Some(b'R' | b'Y') => MessageKind::Description,
            Some(b'I' | b'U' | b'D' | b'T') => MessageKind::Row,
            Some(b'S' | b'E' | b'c' | b'A' | b'p') => MessageKind::Streaming,
            Some(b'b' | b'P' | b'K' | b'r') => MessageKind::TwoPhase,
            _ => MessageKind::Other,
        }
    }
}

impl<'a> Message<'a> {
    /// Decodes one whole message that is not inside a block of a streamed transaction.
    /// # Errors
    /// Whatever is not exactly one message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (&tag, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        Self::decode_body(tag, Fields::new(body))
    }

    /// Decodes one whole message inside a block of a streamed transaction, where changes and descriptions carry the id of the transaction or
    /// subtransaction that they belong to.
    /// # Errors
    /// Whatever is not exactly one message.
    pub fn decode_streamed(bytes: &'a [u8]) -> Result<(Option<u32>, Self), DecodeError> {
        let (xid, tag, body) = Self::split_streamed(bytes)?;
        Ok((xid, Self::decode_body(tag, Fields::new(body))?))
    }

    /// The id of the transaction or subtransaction that a message inside a block belongs to, and its bytes without it but for the first: with that in
    /// front they are the message as it would be outside of a block. No id for messages that carry none.
    /// # Errors
    /// A message that ends early, or an id of 0.
    pub fn split_streamed(bytes: &'a [u8]) -> Result<(Option<u32>, u8, &'a [u8]), DecodeError> {
        let (&tag, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        let mut fields = Fields::new(body);
        let xid = match tag {
            b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => Some(fields.xid("a streamed message's transaction id")?),
            _ => None,
        };
        Ok((xid, tag, fields.rest()))
    }

    fn decode_body(tag: u8, mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let f = &mut fields;
        let message = match tag {
            b'B' => Message::Begin(Begin {
                commit_lsn: Lsn(f.u64("Begin's LSN")?),
                commit_time: Timestamp(f.i64("Begin's time")?),
                xid: f.u32("Begin's transaction id")?,
            }),
            b'C' => Message::Commit(decode_commit(f)?),
            b'O' => Message::Origin(Origin { lsn: Lsn(f.u64("Origin's LSN")?), name: f.name("Origin's name")? }),
            b'R' => Message::Relation(decode_relation(f)?),
            b'Y' => Message::Type(Type {
                oid: f.u32("Type's OID")?,
                schema: schema_name(f.name("Type's schema")?),
                name: f.name("Type's name")?,
            }),
            b'I' => {
                let relation = f.u32("Insert's relation")?;
                expect_tag(f, b'N', "Insert's tuple kind")?;
                Message::Insert(Insert { relation, new: Tuple::decode(f)? })
            }
            b'U' => Message::Update(decode_update(f)?),
            b'D' => {
                let relation = f.u32("Delete's relation")?;
                let old = match f.u8("Delete's tuple kind")? {
                    b'K' => OldTuple::Key(Tuple::decode(f)?),
                    b'O' => OldTuple::Full(Tuple::decode(f)?),
                    other => return Err(DecodeError::InvalidField { field: "Delete's tuple kind", value: i64::from(other) }),
                };
                Message::Delete(Delete { relation, old })
            }
            b'T' => Message::Truncate(decode_truncate(f)?),
            b'M' => {
                let flags = f.u8("Message's flags")?;
                if flags > 1 {
                    return Err(DecodeError::InvalidField { field: "Message's flags", value: i64::from(flags) });
                }
                let lsn = Lsn(f.u64("Message's LSN")?);
                let prefix = f.text("Message's prefix", MESSAGE_PREFIX_SIZE_MAX)?;
                let size = f.size("Message's size")?;
                Message::Logical(LogicalMessage { transactional: flags == 1, lsn, prefix, content: f.bytes(size, "Message's content")? })
            }
            b'S' => Message::StreamStart(StreamStart::decode(f)?),
            b'E' => Message::StreamStop,
            b'c' => Message::StreamCommit(StreamCommit::decode(f)?),
            b'A' => Message::StreamAbort(StreamAbort::decode(f)?),
            b'b' => Message::BeginPrepare(Prepare::decode(f)?),
            b'P' => {
                f.no_flags("Prepare's flags")?;
                Message::Prepare(Prepare::decode(f)?)
            }
            b'p' => {
                f.no_flags("Stream Prepare's flags")?;
                Message::StreamPrepare(Prepare::decode(f)?)
            }
            b'K' => Message::CommitPrepared(CommitPrepared::decode(f)?),
            b'r' => Message::RollbackPrepared(RollbackPrepared::decode(f)?),
            _ => return Err(DecodeError::Unknown { tag }),
        };
        fields.end()?;
        Ok(message)
    }
}

/// The part that Commit and Stream Commit have in common.
pub(super) fn decode_commit(f: &mut Fields<'_>) -> Result<Commit, DecodeError> {
    f.no_flags("Commit's flags")?;
    Ok(Commit {
        commit_lsn: Lsn(f.u64("Commit's LSN")?),
        end_lsn: Lsn(f.u64("Commit's end LSN")?),
        commit_time: Timestamp(f.i64("Commit's time")?),
    })
}

fn schema_name(name: &str) -> &str {
    if name.is_empty() { "pg_catalog" } else { name }
}

fn expect_tag(fields: &mut Fields<'_>, expected: u8, field: &'static str) -> Result<(), DecodeError> {
    match fields.u8(field)? {
        tag if tag == expected => Ok(()),
        other => Err(DecodeError::InvalidField { field, value: i64::from(other) }),
    }
}

fn decode_relation<'a>(f: &mut Fields<'a>) -> Result<Relation<'a>, DecodeError> {
    let oid = f.u32("Relation's OID")?;
    let schema = schema_name(f.name("Relation's schema")?);
    let name = f.name("Relation's name")?;
    let identity = match f.u8("Relation's replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        other => return Err(DecodeError::InvalidField { field: "Relation's replica identity", value: i64::from(other) }),
    };
    let column_count = usize::from(f.u16("Relation's column count")?);
    if column_count > COLUMN_COUNT_MAX {
        return Err(DecodeError::Limit { field: "Relation's column count", limit: COLUMN_COUNT_MAX });
    }
    let mut columns = Vec::with_capacity(column_count);
    for _ in 0..column_count {
        let flags = f.u8("a column's flags")?;
        if flags > 1 {
            return Err(DecodeError::InvalidField { field: "a column's flags", value: i64::from(flags) });
        }
        columns.push(RelationColumn {
            key: flags == 1,
            name: f.name("a column's name")?,
            type_oid: f.u32("a column's type")?,
            typmod: f.i32("a column's type modifier")?,
        });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

fn decode_update<'a>(f: &mut Fields<'a>) -> Result<Update<'a>, DecodeError> {
    let relation = f.u32("Update's relation")?;
    let old = match f.u8("Update's tuple kind")? {
        b'N' => return Ok(Update { relation, old: None, new: Tuple::decode(f)? }),
        b'K' => OldTuple::Key(Tuple::decode(f)?),
        b'O' => OldTuple::Full(Tuple::decode(f)?),
        other => return Err(DecodeError::InvalidField { field: "Update's tuple kind", value: i64::from(other) }),
    };
    expect_tag(f, b'N', "Update's new tuple kind")?;
    Ok(Update { relation, old: Some(old), new: Tuple::decode(f)? })
}

fn decode_truncate(f: &mut Fields<'_>) -> Result<Truncate, DecodeError> {
    let count = f.size("Truncate's relation count")?;
    if count > TRUNCATE_COUNT_MAX {
        return Err(DecodeError::Limit { field: "Truncate's relation count", limit: TRUNCATE_COUNT_MAX });
    }
    let flags = f.u8("Truncate's flags")?;
    if flags > 3 {
        return Err(DecodeError::InvalidField { field: "Truncate's flags", value: i64::from(flags) });
    }
    // The count is the peer's word: room is made only for what the message can hold.
    let mut relations = Vec::with_capacity(count.min(f.rest().len() / 4));
    for _ in 0..count {
        relations.push(f.u32("a truncated relation")?);
    }
    Ok(Truncate { cascade: flags & 1 != 0, restart_identity: flags & 2 != 0, relations })
}
