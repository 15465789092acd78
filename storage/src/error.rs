//! What can go wrong in the store, one variant per consequence for the caller.

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the store, named after what the caller may do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A row with this key exists already. `key` is the key's text, `(a, b)=(1, x)`.
    #[error("duplicate key value violates unique constraint \"{index}\"")]
    DuplicateKey { table: String, index: String, key: String },
    /// A row that had to exist does not.
    #[error("row to change was not found in table \"{table}\"")]
    RowMissing { table: String, key: String },
    /// Somebody else changed the same rows, ref or working set first; the caller may try again.
    #[error("could not serialize access due to concurrent update")]
    Conflict { what: String },
    /// A value that its type does not accept. `type_name` is PostgreSQL's name of the type.
    #[error("invalid input syntax for type {type_name}: \"{input}\"")]
    InvalidText { type_name: String, input: String },
    /// A value outside its type's range; the text is PostgreSQL's.
    #[error("{message}")]
    OutOfRange { message: String },
    /// A value that cannot be read, converted or computed for any other reason that SQL tells apart.
    #[error("{}", .0.message)]
    Value(Box<ValueError>),
    /// A name (branch, tag, commit, table) that does not resolve.
    #[error("{what} \"{name}\" does not exist")]
    NotFound { what: &'static str, name: String },
    /// A name that is taken.
    #[error("{what} \"{name}\" already exists")]
    AlreadyExists { what: &'static str, name: String },
    /// A short commit hash that several commits share.
    #[error("commit hash prefix \"{0}\" is ambiguous")]
    AmbiguousRef(String),
    /// The request cannot be carried out as stated; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A limit was exceeded; the name is that of the constant.
    #[error("{what} exceeds the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
    /// Stored bytes do not hold what they must: damage. Never served, never repaired silently.
    #[error("damaged data in {place}: {what}")]
    Damaged { place: String, what: String },
    /// The data directory belongs to another process.
    #[error("data directory {} is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// The data directory has a format that this version does not read.
    #[error("data directory {} has format version {found}, this version reads up to {supported}", path.display())]
    Format { path: PathBuf, found: u32, supported: u32 },
    /// A write or sync failed earlier: nothing is written until the store is opened again.
    #[error("the store does not write any more until it is opened again: {why}")]
    Stopped { why: std::sync::Arc<str> },
    /// The operating system refused.
    #[error("could not {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

/// An error of a value with PostgreSQL's texts. `code` is what decides the SQLSTATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    pub code: ValueErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Conditions of SQL that values can run into, named as in PostgreSQL's appendix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValueErrorCode {
    /// 22P02
    InvalidTextRepresentation,
    /// 22P03
    InvalidBinaryRepresentation,
    /// 22003
    NumericValueOutOfRange,
    /// 22007
    InvalidDatetimeFormat,
    /// 22008
    DatetimeFieldOverflow,
    /// 22015
    IntervalFieldOverflow,
    /// 22009
    InvalidTimeZoneDisplacement,
    /// 22001
    StringDataRightTruncation,
    /// 22026
    StringDataLengthMismatch,
    /// 22012
    DivisionByZero,
    /// 2201E
    InvalidArgumentForLog,
    /// 2201F
    InvalidArgumentForPower,
    /// 2201G
    InvalidArgumentForWidthBucket,
    /// 22023
    InvalidParameterValue,
    /// 22021
    CharacterNotInRepertoire,
    /// 22P05
    UntranslatableCharacter,
    /// 22000
    DataException,
    /// 2202E
    ArraySubscriptError,
    /// 42601
    SyntaxError,
    /// 54000
    ProgramLimitExceeded,
    /// 0A000
    FeatureNotSupported,
}

impl Error {
    /// A value's error with PostgreSQL's primary message.
    pub fn value(code: ValueErrorCode, message: impl Into<String>) -> Self {
        Error::Value(Box::new(ValueError { code, message: message.into(), detail: None, hint: None }))
    }

    /// Adds a DETAIL to a value's error; other errors stay as they are.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        if let Error::Value(e) = &mut self {
            e.detail = Some(detail.into());
        }
        self
    }

    /// Adds a HINT to a value's error; other errors stay as they are.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Error::Value(e) = &mut self {
            e.hint = Some(hint.into());
        }
        self
    }

    pub(crate) fn invalid_text(type_name: &str, input: &str) -> Self {
        Error::InvalidText { type_name: type_name.into(), input: input.into() }
    }

    pub(crate) fn out_of_range(message: impl Into<String>) -> Self {
        Error::OutOfRange { message: message.into() }
    }
}
