//! Tables that are computed when they are read: catalogs, version tables, table functions.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use strandline_storage::Value;

use crate::context::StatementContext;
use crate::error::Result;
use crate::types::SqlType;

#[derive(Clone, Debug)]
pub struct VirtualColumn {
    pub name: String,
    pub ty: SqlType,
}

/// What a scan may leave out. All of it is advice but `projection`: rows that do not match may be given.
#[derive(Clone, Debug, Default)]
pub struct ScanRequest {
    /// Positions of the columns wanted, in this order.
    pub projection: Vec<usize>,
    /// (column position, value): the query keeps only rows whose column equals the value.
    pub equal: Vec<(usize, Value)>,
    pub limit: Option<usize>,
    /// Values of the arguments of a table function.
    pub args: Vec<Value>,
}

pub type BatchIterator = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A computed table. Column positions are those of `columns()`.
pub trait VirtualTable: Send + Sync + Debug {
    fn columns(&self) -> &[VirtualColumn];

    /// The rows, in batches of the projected columns in Arrow's shapes (`types::arrow_type`). Runs on a query thread and may block.
    fn scan(&self, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator>;

    /// The oid that RowDescription and regclass give for it (pg_class has its own), 0 for none.
    fn oid(&self) -> u32 {
        0
    }
}
