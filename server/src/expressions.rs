//! The SQL engine as replication asks for it: where the two, which do not know each other, meet.

use std::sync::Arc;

use strandline_replication::{Expressions, RowValues, Unusable};
use strandline_sql::error::{Result, SqlError};
use strandline_sql::session::{Engine, StoredExpressions, StoredValues};
use strandline_storage::{DataType, Root, Row, TableSchema, Timestamp};

/// Expressions of one database's tables.
#[derive(Debug)]
struct Evaluated(Arc<StoredExpressions>);

#[derive(Debug)]
struct Values(StoredValues);

/// # Errors
/// There is no such database.
pub fn expressions(engine: &Arc<Engine>, database: &str) -> Result<Arc<dyn Expressions>> {
    Ok(Arc::new(Evaluated(StoredExpressions::open(engine, database)?)))
}

/// The primary message alone: details show rows.
fn why(error: SqlError) -> Unusable {
    error.message
}

fn values(made: Result<StoredValues>) -> std::result::Result<Arc<dyn RowValues>, Unusable> {
    made.map(|values| Arc::new(Values(values)) as Arc<dyn RowValues>).map_err(why)
}

impl Expressions for Evaluated {
    fn compile(&self, root: &Root, table: &TableSchema, defaults: &[usize]) -> std::result::Result<Arc<dyn RowValues>, Unusable> {
        values(self.0.compile(root, table, defaults))
    }

    fn check_condition(&self, root: &Root, table: &TableSchema, text: &str) -> std::result::Result<(), Unusable> {
        self.0.check_condition(root, table, text).map_err(why)
    }

    fn check_value(&self, root: &Root, table: Option<&TableSchema>, text: &str, data_type: &DataType) -> std::result::Result<(), Unusable> {
        self.0.check_value(root, table, text, data_type).map_err(why)
    }

    fn rename_column(&self, text: &str, old: &str, new: &str) -> std::result::Result<String, Unusable> {
        self.0.rename_column(text, old, new).map_err(why)
    }

    fn names_column(&self, text: &str, column: &str) -> bool {
        self.0.names_column(text, column)
    }

    fn conversion(
        &self,
        root: &Root,
        table: &TableSchema,
        position: usize,
        target: &DataType,
        statement: &str,
    ) -> std::result::Result<Arc<dyn RowValues>, Unusable> {
        values(self.0.conversion(root, table, position, target, statement))
    }
}

impl RowValues for Values {
    fn fill_defaults(&self, row: &mut Row, now: Timestamp) -> std::result::Result<(), Unusable> {
        self.0.fill_defaults(row, now).map_err(unusable)
    }

    fn compute(&self, row: &mut Row) -> std::result::Result<(), Unusable> {
        self.0.compute(row).map_err(unusable)
    }
}

/// Messages of evaluation may quote a value, and logs must not hold values.
fn unusable(error: SqlError) -> Unusable {
    format!("an expression could not be evaluated ({:?})", error.code)
}
