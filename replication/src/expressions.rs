//! SQL expressions that a table's definition holds: defaults, generated columns, conditions.
//!
//! Replication knows no SQL, and the SQL engine knows nothing of replication: who runs both (the server) implements this on the engine. Without it, what depends
//! on an expression is left to the primary: generated columns are not made, and only constant defaults are filled in.

use std::fmt;
use std::sync::Arc;

use strandline_storage::schema::TableSchema;
use strandline_storage::value::Row;
use strandline_storage::{DataType, Root, Timestamp};

/// Why an expression cannot be used, in words for the log. It holds no values of rows.
pub type Unusable = String;

/// What is asked of the SQL engine. `root` is where names of types, functions and sequences are looked up; its rows are not read, and nothing of it is kept but
/// definitions. None of the methods asks the branch for its state, so a transaction may be under way in the calling thread.
pub trait Expressions: Send + Sync + fmt::Debug {
    /// Compiles a table's generated columns, and the defaults of the columns at these positions.
    fn compile(&self, root: &Root, table: &TableSchema, defaults: &[usize]) -> Result<Arc<dyn RowValues>, Unusable>;

    /// Checks that a condition can be evaluated on the table's rows.
    fn check_condition(&self, root: &Root, table: &TableSchema, text: &str) -> Result<(), Unusable>;

    /// Checks that an expression gives this type: on the rows of a table (a generated column), or on none (a default).
    fn check_value(&self, root: &Root, table: Option<&TableSchema>, text: &str, data_type: &DataType) -> Result<(), Unusable>;

    /// An expression that names one of its table's columns, after the column was renamed.
    fn rename_column(&self, text: &str, old: &str, new: &str) -> Result<String, Unusable>;

    /// Whether an expression names a column of its table.
    fn names_column(&self, text: &str, column: &str) -> bool;

    /// What ALTER COLUMN TYPE makes of the value in the column at a position, for every row: the USING clause that `statement` has for it, or else the
    /// assignment cast. Only where that is the same at any time and in any session.
    fn conversion(
        &self,
        root: &Root,
        table: &TableSchema,
        position: usize,
        target: &DataType,
        statement: &str,
    ) -> Result<Arc<dyn RowValues>, Unusable>;
}

/// Compiled expressions for the rows of one table.
pub trait RowValues: Send + Sync + fmt::Debug {
    /// Puts the defaults in; `now` is the time that `now()` gives.
    fn fill_defaults(&self, row: &mut Row, now: Timestamp) -> Result<(), Unusable>;

    /// Computes the generated columns (or the converted one) from the others.
    fn compute(&self, row: &mut Row) -> Result<(), Unusable>;
}
