//! The messages of PostgreSQL's `pgoutput` plugin, decoded in place.
//!
//! A logical replication stream is a sequence of small binary messages: `B`egin, then for each change an
//! `I`nsert, `U`pdate, `D`elete or `T`runcate, then `C`ommit. Before the first change of a table on a connection, and again
//! after its definition changed, comes a `R`elation (the table's name, replica identity and columns), preceded by a t`Y`pe
//! for every column type that is not built in. Transactions arrive whole and in the order of their commits.
//!
//! This module is bytes in, messages out: it does no I/O and allocates only for a relation's column list. Names and values are slices of
//! the caller's buffer. Everything is checked: whatever the bytes, the answer is a message or an error, never a panic.
//!
//! Protocol versions 1 to 4. From version 2 on a running transaction may be sent in blocks (`streamed.rs`), inside of which every message carries
//! one more field: [`Message::decode_streamed`] is for those. From version 3 on prepared transactions have messages of their own (`prepared.rs`).
//!
//! Source: PostgreSQL's documentation, "Logical Replication Message Formats".

mod fields;
mod message;
mod prepared;
mod streamed;
mod tuple;

pub use message::{
    Begin, Commit, Delete, Insert, LogicalMessage, Message, MessageKind, OldTuple, Origin, Relation, RelationColumn, ReplicaIdentity,
    Truncate, Type, Update,
};
pub use prepared::{CommitPrepared, Prepare, RollbackPrepared};
pub use streamed::{StreamAbort, StreamCommit, StreamStart};
pub use tuple::{Tuple, TupleValue, TupleValues};

/// The most columns that a table can publish: PostgreSQL's limit for a table is 1600, for a tuple 1664.
pub const COLUMN_COUNT_MAX: usize = 1664;

/// The longest name in bytes: PostgreSQL's is 63; builds with a larger NAMEDATALEN exist.
pub const NAME_SIZE_MAX: usize = 1023;

/// The longest prefix of a logical message in bytes. PostgreSQL has no limit; a prefix is a name.
pub const MESSAGE_PREFIX_SIZE_MAX: usize = 1 << 20;

/// The most tables in one TRUNCATE.
pub const TRUNCATE_COUNT_MAX: usize = 1 << 20;

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before the field does.
    #[error("the message ends within {field}")]
    Truncated { field: &'static str },
    /// Bytes are left over after the last field.
    #[error("{count} bytes follow the end of the message")]
    Trailing { count: usize },
    /// A field holds what the protocol does not allow.
    #[error("{field} has the invalid value {value}")]
    InvalidField { field: &'static str, value: i64 },
    /// A name or text is not UTF-8, which the connection asked for.
    #[error("{field} is not valid UTF-8")]
    NotUtf8 { field: &'static str },
    /// A limit was exceeded.
    #[error("{field} exceeds the limit of {limit}")]
    Limit { field: &'static str, limit: usize },
    /// A message that no known protocol version has.
    #[error("message type \"{}\" is not known", (*tag as char).escape_default())]
    Unknown { tag: u8 },
    /// No byte at all.
    #[error("the message is empty")]
    Empty,
}
