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
//! Protocol version 1 only. The messages of later versions (streamed blocks, two-phase commits) are refused by name.
//!
//! Source: PostgreSQL's documentation, "Logical Replication Message Formats".

mod fields;
mod message;
mod tuple;

pub use message::{
    Begin, Commit, Delete, Insert, LogicalMessage, Message, MessageKind, OldTuple, Origin, Relation, RelationColumn, ReplicaIdentity,
    Truncate, Type, Update,
};
pub use tuple::{Tuple, TupleValue, TupleValues};

/// The most columns that a table can publish: PostgreSQL's limit for a table is 1600, for a tuple 1664.
pub const COLUMN_COUNT_MAX: usize = 1664;

/// The longest name in bytes: PostgreSQL's is 63; builds with a larger NAMEDATALEN exist.
pub const NAME_SIZE_MAX: usize = 1023;

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
    /// A message of a later protocol version, or one that nobody knows.
    #[error("message type \"{}\"{} is not supported", (*tag as char).escape_default(), known_name(*tag))]
    Unsupported { tag: u8 },
    /// No byte at all.
    #[error("the message is empty")]
    Empty,
}

/// The names of messages that exist in later versions of the protocol, for the error text.
fn known_name(tag: u8) -> &'static str {
    match tag {
        b'S' => " (Stream Start)",
        b'E' => " (Stream Stop)",
        b'c' => " (Stream Commit)",
        b'A' => " (Stream Abort)",
        b'b' => " (Begin Prepare)",
        b'P' => " (Prepare)",
        b'K' => " (Commit Prepared)",
        b'r' => " (Rollback Prepared)",
        b'p' => " (Stream Prepare)",
        _ => "",
    }
}
