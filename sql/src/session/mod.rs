//! Sessions: what a client's connection is to SQL. The public face of the crate.
//!
//! ```text
//! Engine ---connect---> Session --parse/bind/execute--> Outcome { Done, Rows, CopyIn, CopyOut, Empty }
//!   |                      |
//!   store, roles,          SessionCore: settings, database and revision, the transaction under way; shared with the
//!   sequences, executor    query threads, because functions (nextval, set_config, dolt_commit) act on their session
//! ```
//! A [`Session`] is plain state, owned by its connection. Its methods block (they read the store and wait for durable
//! commits): an asynchronous caller runs them on a blocking thread. Only rows stream asynchronously. A client's cancel
//! request goes through [`CancelHandle`], which acts on the flag that all loops check and wakes whoever waits for rows.
//!
//! A transaction is explicit (BEGIN) or implicit: the statements of one simple query, or of one stretch between two
//! Syncs. The caller says where an implicit one ends: [`Session::finish`], or [`Session::fail`] after an error.

mod access;
mod core;
mod engine;
mod names;
mod portal;
pub mod role;
mod sequence;
mod sequence_table;
pub mod settings;
pub mod subscription;
mod transaction;

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use strandline_storage::DataType;

use crate::error::Result;
use crate::types::{Oid, SqlType};

pub use self::core::{SessionCore, SetScope};
pub use engine::{CancelHandle, ConnectRequest, Engine, EngineOptions, RowsFor, SessionInfo};
pub(crate) use names::ContextNames;
pub(crate) use portal::PortalState;
pub use portal::{ParameterValue, Portal, Prepared, Session};
pub use role::Role;
pub use sequence::SequenceState;
pub use transaction::TransactionStatus;

pub use crate::statement::{StoredExpressions, StoredValues};

/// A message beside the results: NOTICE, WARNING, INFO.
#[derive(Clone, Debug)]
pub struct Notice {
    pub severity: &'static str,
    /// The SQLSTATE class is decided by the server from this.
    pub code: NoticeCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Conditions that notices carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeCode {
    /// 00000
    Success,
    /// 01000
    Warning,
    /// 42P07
    DuplicateTable,
    /// 42P06
    DuplicateSchema,
    /// 42710
    DuplicateObject,
    /// 42701
    DuplicateColumn,
    /// 25001
    ActiveTransaction,
    /// 25P01
    NoActiveTransaction,
    /// 42622
    NameTooLong,
    /// 42704
    UndefinedObject,
}

impl Notice {
    pub fn new(code: NoticeCode, message: impl Into<String>) -> Self {
        Notice { severity: "NOTICE", code, message: message.into(), detail: None, hint: None }
    }

    pub fn warning(code: NoticeCode, message: impl Into<String>) -> Self {
        Notice { severity: "WARNING", code, message: message.into(), detail: None, hint: None }
    }
}

/// A column of a result, as RowDescription tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: SqlType,
    pub data_type: DataType,
    /// (table oid, attnum) of a table's own column.
    pub origin: Option<(Oid, i16)>,
    /// `pg_type.typlen`.
    pub type_len: i16,
}

/// How the command tag of a result with rows is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowsTag {
    /// The words, a space and the number of rows sent.
    Counted(&'static str),
    /// Known already (`INSERT 0 5`, `SHOW`).
    Fixed(String),
}

/// Rows under way. Dropping them ends the query.
pub struct Rows {
    pub columns: Arc<[OutputColumn]>,
    pub tag: RowsTag,
    pub batches: BoxStream<'static, Result<RecordBatch>>,
    /// A batch that was sent in part: the rows from this one on come first.
    pub pending: Option<(RecordBatch, usize)>,
    /// What the statement saw: names of objects for regclass and the like.
    pub context: Arc<crate::context::StatementContext>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("columns", &self.columns).field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// COPY FROM STDIN: the client's bytes go to `load`, which blocks until the input ends.
pub struct CopyIn {
    pub binary: bool,
    pub column_count: usize,
    /// Reads chunks until the channel ends and returns the command tag. An `Err` item is the client's CopyFail.
    pub load: Box<dyn FnOnce(tokio::sync::mpsc::Receiver<Result<bytes::Bytes>>) -> Result<String> + Send>,
}

impl std::fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyIn").field("binary", &self.binary).field("column_count", &self.column_count).finish_non_exhaustive()
    }
}

/// COPY TO STDOUT: pieces of output, each one CopyData message (a row, or the header or trailer).
pub struct CopyOut {
    pub binary: bool,
    pub column_count: usize,
    /// Each item: the messages of a batch and how many rows they hold.
    pub chunks: BoxStream<'static, Result<(Vec<bytes::Bytes>, u64)>>,
}

impl std::fmt::Debug for CopyOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOut").field("binary", &self.binary).field("column_count", &self.column_count).finish_non_exhaustive()
    }
}

/// What executing a statement gives.
#[derive(Debug)]
pub enum Outcome {
    /// An empty statement.
    Empty,
    Done {
        tag: String,
    },
    Rows(Rows),
    CopyIn(CopyIn),
    CopyOut(CopyOut),
}

impl Outcome {
    pub fn done(tag: impl Into<String>) -> Self {
        Outcome::Done { tag: tag.into() }
    }
}

/// `pg_type.typlen` of a type: its size in bytes, -1 for variable length.
pub fn type_len(data_type: &DataType) -> i16 {
    use strandline_storage::Kind;
    match data_type.oid {
        16 | 18 => 1,
        19 => 64,
        21 => 2,
        24 | 26 | 28 | 29 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => 4,
        27 => 6,
        705 | 2275 => -2,
        600 => 16,
        601 | 603 => 32,
        628 | 718 => 24,
        774 => 8,
        829 => 6,
        2278 => 4,
        5069 => 8,
        _ => match data_type.kind {
            Kind::Bool => 1,
            Kind::Int2 => 2,
            Kind::Int4 | Kind::Date | Kind::Float4 | Kind::Oid | Kind::Enum => 4,
            Kind::Int8 | Kind::Float8 | Kind::Money | Kind::Time | Kind::Timestamp | Kind::Timestamptz | Kind::Lsn => 8,
            Kind::Timetz => 12,
            Kind::Interval | Kind::Uuid => 16,
            _ => -1,
        },
    }
}
