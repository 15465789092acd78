//! A sequence read as a table: `SELECT last_value, log_cnt, is_called FROM s`.

use std::fmt;
use std::sync::Arc;

use strandline_storage::Value;
use strandline_storage::schema::Sequence;

use crate::context::StatementContext;
use crate::error::Result;
use crate::types::{SqlType, oid};
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn, VirtualTable};

/// See the module.
pub struct SequenceTable {
    sequence: Sequence,
    columns: Vec<VirtualColumn>,
}

impl fmt::Debug for SequenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequenceTable").field("name", &self.sequence.name).finish_non_exhaustive()
    }
}

impl SequenceTable {
    pub fn new(sequence: Sequence, _context: &StatementContext) -> Self {
        let column = |name: &str, ty: u32| VirtualColumn { name: name.into(), ty: SqlType::new(ty) };
        SequenceTable {
            sequence,
            columns: vec![column("last_value", oid::INT8), column("log_cnt", oid::INT8), column("is_called", oid::BOOL)],
        }
    }
}

impl VirtualTable for SequenceTable {
    fn columns(&self) -> &[VirtualColumn] {
        &self.columns
    }

    fn scan(&self, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
        let state = context.session.sequence_state(&self.sequence);
        let row = [Value::Int8(state.last_value), Value::Int8(0), Value::Bool(state.is_called)];
        let projected: Vec<Value> = request.projection.iter().map(|p| row[*p].clone()).collect();
        let kinds: Vec<SqlType> = request.projection.iter().map(|p| self.columns[*p].ty).collect();
        let types = kinds.iter().map(|ty| crate::functions::casts::data_type(context, *ty)).collect::<Result<Vec<_>>>()?;
        let batch = crate::statement::rows_batch(&types, vec![projected])?;
        Ok(Box::new(std::iter::once(Ok(batch))))
    }

    fn oid(&self) -> u32 {
        self.sequence.oid
    }
}
