//! Errors as PostgreSQL reports them; the server turns [`ErrorCode`] into a SQLSTATE.

pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Names of PostgreSQL's error conditions (appendix A), without their five characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    SyntaxError,
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedObject,
    UndefinedParameter,
    UndefinedSchema,
    UndefinedDatabase,
    DuplicateTable,
    DuplicateColumn,
    DuplicateObject,
    DuplicateSchema,
    DuplicateDatabase,
    DuplicateAlias,
    DuplicateFunction,
    DuplicatePreparedStatement,
    DuplicateCursor,
    AmbiguousColumn,
    AmbiguousFunction,
    AmbiguousAlias,
    DatatypeMismatch,
    IndeterminateDatatype,
    CannotCoerce,
    GroupingError,
    WindowingError,
    InvalidRecursion,
    InvalidColumnReference,
    InvalidName,
    InvalidForeignKey,
    InvalidTableDefinition,
    InvalidColumnDefinition,
    InvalidObjectDefinition,
    InvalidParameterValue,
    InvalidTextRepresentation,
    InvalidBinaryRepresentation,
    InvalidDatetimeFormat,
    DatetimeFieldOverflow,
    IntervalFieldOverflow,
    InvalidTimeZone,
    InvalidEscapeSequence,
    InvalidRegularExpression,
    InvalidRowCountInLimit,
    InvalidRowCountInOffset,
    InvalidArgumentForLog,
    InvalidArgumentForPower,
    InvalidArgumentForNtile,
    InvalidArgumentForNthValue,
    InvalidFrameOffset,
    InvalidArgumentForWidthBucket,
    InvalidJsonText,
    InvalidCatalogName,
    InvalidSchemaName,
    InvalidPreparedStatement,
    InvalidCursorName,
    InvalidSavepoint,
    InvalidTransactionState,
    InvalidPassword,
    InvalidAuthorization,
    InvalidFileFormat,
    ArraySubscriptError,
    DivisionByZero,
    NumericValueOutOfRange,
    StringDataRightTruncation,
    StringDataLengthMismatch,
    CharacterNotInRepertoire,
    SubstringError,
    NullValueNotAllowed,
    CardinalityViolation,
    NotNullViolation,
    UniqueViolation,
    CheckViolation,
    ForeignKeyViolation,
    GeneratedAlways,
    SequenceLimitExceeded,
    DependentObjectsStillExist,
    WrongObjectType,
    ObjectNotInPrerequisiteState,
    ObjectInUse,
    CantChangeRuntimeParam,
    ReservedName,
    FeatureNotSupported,
    InsufficientPrivilege,
    ReadOnlyTransaction,
    NoActiveTransaction,
    ActiveTransaction,
    InFailedTransaction,
    SerializationFailure,
    QueryCanceled,
    AdminShutdown,
    IdleInTransactionSessionTimeout,
    IdleSessionTimeout,
    OutOfMemory,
    DiskFull,
    TooManyConnections,
    ProgramLimitExceeded,
    StatementTooComplex,
    ConnectionFailure,
    NameTooLong,
    ProtocolViolation,
    BadCopyFileFormat,
    DataCorrupted,
    IoError,
    RaiseException,
    InternalError,
}

/// An error for the client. Texts follow PostgreSQL's.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    pub code: ErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character position in the statement's text.
    pub position: Option<usize>,
    /// COPY's and functions' `CONTEXT`.
    pub context: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub column: Option<String>,
    pub constraint: Option<String>,
    pub data_type: Option<String>,
}

impl SqlError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        SqlError {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
            data_type: None,
        }
    }

    /// `0A000`, naming the feature.
    pub fn unsupported(feature: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::FeatureNotSupported, format!("{feature} is not supported"))
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `position` is 1-based; 0 or less means unknown. A position that is already there stays.
    pub fn at(mut self, position: i32) -> Self {
        if self.position.is_none() && position > 0 {
            self.position = Some(position as usize);
        }
        self
    }
}

impl From<strandline_storage::Error> for SqlError {
    fn from(error: strandline_storage::Error) -> Self {
        use strandline_storage::Error as E;
        let message = error.to_string();
        let code = match &error {
            E::DuplicateKey { table, index, key } => {
                let mut violation = SqlError::new(ErrorCode::UniqueViolation, message).detail(format!("Key {key} already exists."));
                violation.table = Some(table.clone());
                violation.constraint = Some(index.clone());
                return violation;
            }
            E::Value(value) => {
                let mut wrong = SqlError::new(value_error_code(value.code), message);
                wrong.detail.clone_from(&value.detail);
                wrong.hint.clone_from(&value.hint);
                return wrong;
            }
            E::Conflict { .. } => ErrorCode::SerializationFailure,
            E::InvalidText { type_name, .. } => match type_name.as_str() {
                "date" | "interval" => ErrorCode::InvalidDatetimeFormat,
                name if name.starts_with("time") => ErrorCode::InvalidDatetimeFormat,
                _ => ErrorCode::InvalidTextRepresentation,
            },
            E::OutOfRange { message } if message.starts_with("value too long for type") => ErrorCode::StringDataRightTruncation,
            E::OutOfRange { message } if message.starts_with("bit string") => ErrorCode::StringDataLengthMismatch,
            E::OutOfRange { message } if message.starts_with("time zone ") => ErrorCode::InvalidParameterValue,
            E::OutOfRange { message } if message.starts_with("date") || message.starts_with("time") || message.starts_with("interval") => {
                ErrorCode::DatetimeFieldOverflow
            }
            E::OutOfRange { .. } => ErrorCode::NumericValueOutOfRange,
            E::NotFound { what: "database", .. } => ErrorCode::InvalidCatalogName,
            E::NotFound { what: "table", .. } => ErrorCode::UndefinedTable,
            E::NotFound { .. } => ErrorCode::UndefinedObject,
            E::AlreadyExists { what: "database", .. } => ErrorCode::DuplicateDatabase,
            E::AlreadyExists { .. } => ErrorCode::DuplicateObject,
            E::AmbiguousRef(_) | E::Invalid(_) => ErrorCode::InvalidParameterValue,
            E::Limit { .. } => ErrorCode::ProgramLimitExceeded,
            E::Damaged { .. } => {
                return SqlError::new(ErrorCode::DataCorrupted, message)
                    .hint("Stop the server and run `strandline fsck` to see what is damaged.");
            }
            E::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorCode::DiskFull,
            E::Stopped { .. } => return SqlError::new(ErrorCode::IoError, message).hint("Mend the disk and restart the server."),
            E::Io { .. } => ErrorCode::IoError,
            _ => ErrorCode::InternalError,
        };
        SqlError::new(code, message)
    }
}

/// The condition that a value's error is.
fn value_error_code(code: strandline_storage::error::ValueErrorCode) -> ErrorCode {
    use strandline_storage::error::ValueErrorCode as V;
    match code {
        V::InvalidTextRepresentation => ErrorCode::InvalidTextRepresentation,
        V::InvalidBinaryRepresentation => ErrorCode::InvalidBinaryRepresentation,
        V::NumericValueOutOfRange => ErrorCode::NumericValueOutOfRange,
        V::InvalidDatetimeFormat => ErrorCode::InvalidDatetimeFormat,
        V::DatetimeFieldOverflow => ErrorCode::DatetimeFieldOverflow,
        V::IntervalFieldOverflow => ErrorCode::IntervalFieldOverflow,
        V::InvalidTimeZoneDisplacement => ErrorCode::InvalidTimeZone,
        V::StringDataRightTruncation => ErrorCode::StringDataRightTruncation,
        V::StringDataLengthMismatch => ErrorCode::StringDataLengthMismatch,
        V::DivisionByZero => ErrorCode::DivisionByZero,
        V::InvalidArgumentForLog => ErrorCode::InvalidArgumentForLog,
        V::InvalidArgumentForPower => ErrorCode::InvalidArgumentForPower,
        V::ArraySubscriptError => ErrorCode::ArraySubscriptError,
        V::SyntaxError => ErrorCode::SyntaxError,
        V::ProgramLimitExceeded => ErrorCode::ProgramLimitExceeded,
        V::FeatureNotSupported => ErrorCode::FeatureNotSupported,
        V::InvalidArgumentForWidthBucket => ErrorCode::InvalidArgumentForWidthBucket,
        V::InvalidParameterValue => ErrorCode::InvalidParameterValue,
        _ => ErrorCode::InvalidTextRepresentation,
    }
}
