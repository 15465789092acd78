//! Errors as PostgreSQL reports them; the server turns [`ErrorCode`] into a SQLSTATE.

pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Names of PostgreSQL's error conditions (appendix A), without their five characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    InvalidTimeZone,
    InvalidEscapeSequence,
    InvalidRegularExpression,
    InvalidRowCountInLimit,
    InvalidRowCountInOffset,
    InvalidArgumentForLog,
    InvalidArgumentForPower,
    InvalidArgumentForNtile,
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
    OutOfMemory,
    DiskFull,
    TooManyConnections,
    ProgramLimitExceeded,
    StatementTooComplex,
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
