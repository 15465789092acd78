//! Running bound queries: [`run`] gives a stream of record batches, [`eval_const`] and [`Evaluator`] values, [`explain`] a plan.
//!
//! A query is lowered (`lower`) to a DataFusion plan and driven on a thread of its own runtime, away from the sockets;
//! batches come over a bounded channel, so a slow client holds the query back and a departed one ends it.

mod apply;
mod cte;
pub mod datum;
mod evaluate;
pub mod evaluator;
mod fast_path;
mod limits;
mod node;
mod project_set;
mod runtime;
pub mod scan;
mod set_ops;
mod small_batches;
pub mod subplan;
mod values;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use parking_lot::{Mutex, RwLock};
use strandline_storage::{DataType, Value};

use crate::bound::{Column, ColumnId, Expr, Query};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::functions::casts;

pub(crate) use apply::Apply;
pub(crate) use cte::{CteScan, CteState, Recursive};
pub use evaluator::Evaluator;
pub(crate) use limits::bound as limit_bound;
pub(crate) use limits::{DistinctRows, LimitRows};
pub(crate) use node::{Append, KeepOrder, OwnNode, add_guards, internal};
pub(crate) use project_set::{FunctionScan, ProjectSet, SetCall};
pub(crate) use runtime::{block_on, session_state};
pub use runtime::{configure_memory, error_of};
pub(crate) use scan::{Source as ScanSource, TableScan, scan_source, virtual_source};
pub(crate) use set_ops::SetOperation;
pub(crate) use values::ValuesRows;
pub(crate) use window::{WindowRows, WindowSpec};

/// How many batches may wait for the client.
const CHANNEL_BATCHES: usize = 4;

/// One run of one statement: what its plans share.
pub struct Execution {
    pub context: Arc<StatementContext>,
    /// Values of outer columns for the subplans being run, by column id (ids are unique in a statement).
    slots: RwLock<HashMap<ColumnId, Value>>,
    ctes: Mutex<HashMap<u32, Arc<CteState>>>,
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").finish_non_exhaustive()
    }
}

impl Execution {
    pub fn new(context: Arc<StatementContext>) -> Arc<Self> {
        Arc::new(Execution { context, slots: RwLock::default(), ctes: Mutex::default() })
    }

    pub(crate) fn slot(&self, id: ColumnId) -> Value {
        self.slots.read().get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn set_slots(&self, values: impl IntoIterator<Item = (ColumnId, Value)>) {
        self.slots.write().extend(values);
    }

    pub(crate) fn put_cte(&self, number: u32, state: Arc<CteState>) {
        self.ctes.lock().insert(number, state);
    }

    pub(crate) fn cte(&self, number: u32) -> Result<Arc<CteState>> {
        self.ctes
            .lock()
            .get(&number)
            .cloned()
            .ok_or_else(|| SqlError::new(ErrorCode::InternalError, format!("WITH query {number} is not in scope")))
    }
}

/// A running query's output. Dropping it ends the query.
pub struct RowBatches {
    pub columns: Vec<Column>,
    /// The columns' types, for encoding.
    pub types: Vec<DataType>,
    receiver: tokio::sync::mpsc::Receiver<Result<RecordBatch>>,
    until_end: Option<UntilEnd>,
}

/// Abandons its statement when it is dropped before the last row: operators that are far from sending one notice, too.
struct UntilEnd(Option<Arc<StatementContext>>);

impl Drop for UntilEnd {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for RowBatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowBatches").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl RowBatches {
    /// The next batch; its columns are those of `columns` by position.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.receiver.recv().await;
        if batch.is_none()
            && let Some(until_end) = &mut self.until_end
        {
            // The statement may go on with its context.
            until_end.0 = None;
        }
        batch
    }

    /// These are the rows that the statement is about: when nobody wants them any more, all that it runs ends.
    pub fn of_statement(mut self, context: &Arc<StatementContext>) -> Self {
        self.until_end = Some(UntilEnd(Some(Arc::clone(context))));
        self
    }

    /// As [`RowBatches::next`], from a thread that may block.
    pub fn blocking_next(&mut self) -> Option<Result<RecordBatch>> {
        // Also right on a runtime's own worker, where `blocking_recv` would panic.
        block_on(self.next())
    }

    /// All rows as values.
    ///
    /// # Errors
    /// Whatever the query raises.
    pub fn collect_rows(mut self) -> Result<Vec<Vec<Value>>> {
        let mut rows = Vec::new();
        while let Some(batch) = self.blocking_next() {
            append_rows(&batch?, &mut rows)?;
        }
        Ok(rows)
    }

    /// Rows that are known already, as a stream.
    pub fn from_batches(columns: Vec<Column>, types: Vec<DataType>, batches: Vec<RecordBatch>) -> Self {
        let (sender, receiver) = tokio::sync::mpsc::channel(batches.len().max(1));
        for batch in batches {
            // The channel was made large enough.
            let _ = sender.try_send(Ok(batch));
        }
        RowBatches { columns, types, receiver, until_end: None }
    }
}

/// Appends a batch's rows as values.
///
/// # Errors
/// `InternalError` for a shape that is none of ours.
pub fn append_rows(batch: &RecordBatch, rows: &mut Vec<Vec<Value>>) -> Result<()> {
    let columns = datum::column_refs(batch.columns())?;
    rows.reserve(batch.num_rows());
    for row in 0..batch.num_rows() {
        rows.push(columns.iter().map(|c| c.get(row).into_value()).collect());
    }
    Ok(())
}

/// Starts a query.
///
/// # Errors
/// What planning raises; errors of execution come through the stream.
pub fn run(query: &Query, context: Arc<StatementContext>) -> Result<RowBatches> {
    run_in(query, &Execution::new(context))
}

/// As [`run`], for a query that shares CTEs with others of its statement.
///
/// # Errors
/// As [`run`].
pub fn run_in(query: &Query, execution: &Arc<Execution>) -> Result<RowBatches> {
    let context = Arc::clone(&execution.context);
    let types = query.columns.iter().map(|c| casts::data_type(&context, c.ty)).collect::<Result<Vec<_>>>()?;
    if let Some(batches) = fast_path::run(query, execution, &types)? {
        return Ok(RowBatches::from_batches(query.columns.clone(), types, batches));
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(CHANNEL_BATCHES);
    let runtime = runtime::handle();
    let plan = {
        let _guard = runtime.enter();
        crate::lower::plan(query, execution)?
    };
    runtime.spawn_blocking(move || runtime::drive(&plan, &context, &sender));
    Ok(RowBatches { columns: query.columns.clone(), types, receiver, until_end: None })
}

/// Runs a query to its end.
///
/// # Errors
/// Whatever the query raises.
pub fn run_to_end(query: &Query, context: Arc<StatementContext>) -> Result<Vec<Vec<Value>>> {
    run(query, context)?.collect_rows()
}

/// The value of an expression without columns.
///
/// # Errors
/// Whatever the expression raises.
pub fn eval_const(expr: &Expr, context: &Arc<StatementContext>) -> Result<Value> {
    if let Expr::Const { value, ty } = expr {
        return Ok(datum::shaped(value, casts::data_type(context, *ty)?.kind));
    }
    let execution = Execution::new(Arc::clone(context));
    let _guard = runtime::handle().enter();
    Evaluator::new(expr, &execution, &|_| None)?.value(&evaluator::NoRow)
}

/// The plan as lines of text.
///
/// # Errors
/// What planning raises.
pub fn explain(query: &Query, context: Arc<StatementContext>) -> Result<Vec<String>> {
    let execution = Execution::new(context);
    let _guard = runtime::handle().enter();
    let plan = crate::lower::plan(query, &execution)?;
    let text = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    Ok(text.lines().map(str::to_owned).collect())
}
