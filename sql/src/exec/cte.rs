//! WITH: definitions run once and kept, read by any number of scans; recursion by iteration over a working table.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use parking_lot::Mutex;
use strandline_storage::{DataType, Value};

use crate::bound::{ColumnId, Query};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnRef, column_refs};
use crate::exec::node::{Operator, stream_of_iter};
use crate::exec::subplan::Subplan;
use crate::exec::{Execution, casts};
use crate::functions::compare;
use crate::lower::walk;

/// A recursion that makes more rounds than this runs away.
const ROUNDS_MAX: usize = 10_000_000;

/// One WITH query's rows, made at first use. A definition that depends on outer values is remade when they change.
#[derive(Debug)]
pub struct CteState {
    definition: Definition,
    outer: Vec<ColumnId>,
    kept: Mutex<Option<(Vec<Value>, Arc<Vec<RecordBatch>>)>>,
}

#[derive(Debug)]
enum Definition {
    Query(Subplan),
    Recursive(Recursive),
    /// The working table of a recursion.
    Working,
}

impl CteState {
    pub fn query(query: &Query, execution: &Arc<Execution>) -> Self {
        CteState {
            outer: walk::outer_columns(query),
            definition: Definition::Query(Subplan::new(query.clone(), execution)),
            kept: Mutex::new(None),
        }
    }

    pub fn recursive(recursive: Recursive) -> Self {
        CteState { outer: recursive.outer.clone(), definition: Definition::Recursive(recursive), kept: Mutex::new(None) }
    }

    /// Batches that are known already: rows produced by a data-modifying WITH query.
    pub fn materialised(batches: Vec<RecordBatch>) -> Self {
        CteState { outer: Vec::new(), definition: Definition::Working, kept: Mutex::new(Some((Vec::new(), Arc::new(batches)))) }
    }

    fn working() -> Self {
        Self::materialised(Vec::new())
    }

    fn set(&self, batches: Vec<RecordBatch>) {
        *self.kept.lock() = Some((Vec::new(), Arc::new(batches)));
    }

    fn batches(&self, execution: &Execution) -> Result<Arc<Vec<RecordBatch>>> {
        let outer: Vec<Value> = self.outer.iter().map(|id| execution.slot(*id)).collect();
        let mut kept = self.kept.lock();
        if let Some((values, batches)) = &*kept
            && *values == outer
        {
            return Ok(Arc::clone(batches));
        }
        let batches = Arc::new(match &self.definition {
            Definition::Query(plan) => plan.batches(Vec::new())?,
            Definition::Recursive(recursive) => recursive.run()?,
            Definition::Working => Vec::new(),
        });
        *kept = Some((outer, Arc::clone(&batches)));
        Ok(batches)
    }
}

/// A scan of a WITH query; columns by position.
#[derive(Debug)]
pub struct CteScan {
    pub execution: Arc<Execution>,
    pub state: Arc<CteState>,
}

impl Operator for CteScan {
    fn name(&self) -> &'static str {
        "CteScan"
    }

    fn execute(&self, _: Vec<SendableRecordBatchStream>, schema: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let out = Arc::clone(&schema);
        if matches!(&self.state.definition, Definition::Recursive(recursive) if recursive.outer.is_empty()) {
            let state = Arc::clone(&self.state);
            let batches = (0..).map_while(move |index| match &state.definition {
                Definition::Recursive(recursive) => recursive.batch(index).transpose(),
                _ => None,
            });
            return Ok(stream_of_iter(schema, batches.map(move |batch| rename(&batch?, &out))));
        }
        let batches = self.state.batches(&self.execution)?;
        let renamed = (0..batches.len()).map(move |i| rename(&batches[i], &out));
        Ok(stream_of_iter(schema, renamed))
    }
}

/// A batch under other column names.
pub(super) fn rename(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
}

/// WITH RECURSIVE: the base, then the recursive part over the rows of the round before until it gives none.
#[derive(Debug)]
pub struct Recursive {
    execution: Arc<Execution>,
    base: Subplan,
    recursive: Subplan,
    working: Arc<CteState>,
    outer: Vec<ColumnId>,
    all: bool,
    types: Vec<DataType>,
    /// Where the one run is when nothing depends on outer values.
    progress: Mutex<Progress>,
}

/// A recursion under way.
#[derive(Debug, Default)]
struct Progress {
    /// All rows so far.
    batches: Vec<RecordBatch>,
    /// The last round's place in `batches`; the next round reads it.
    last: std::ops::Range<usize>,
    seen: HashSet<Vec<u8>>,
    rounds: usize,
    ended: bool,
}

impl Recursive {
    /// Also makes the working table known as CTE `number`, which the recursive part scans.
    pub fn new(number: u32, base: &Query, recursive: &Query, all: bool, execution: &Arc<Execution>) -> Result<Self> {
        let working = Arc::new(CteState::working());
        execution.put_cte(number, Arc::clone(&working));
        let mut outer = walk::outer_columns(base);
        outer.extend(walk::outer_columns(recursive));
        Ok(Recursive {
            execution: Arc::clone(execution),
            base: Subplan::new(base.clone(), execution),
            recursive: Subplan::new(recursive.clone(), execution),
            working,
            outer,
            all,
            types: base.columns.iter().map(|c| casts::data_type(&execution.context, c.ty)).collect::<Result<_>>()?,
            progress: Mutex::default(),
        })
    }

    /// Plans the recursive part while the working table is what its number means.
    pub fn prepare(&self) -> Result<()> {
        self.recursive.prepare()
    }

    fn run(&self) -> Result<Vec<RecordBatch>> {
        let mut progress = Progress::default();
        while !progress.ended {
            self.advance(&mut progress)?;
        }
        Ok(progress.batches)
    }

    /// The batch of this number, made when it is asked for: a reader that stops early ends a recursion without an end.
    fn batch(&self, index: usize) -> Result<Option<RecordBatch>> {
        let mut progress = self.progress.lock();
        while progress.batches.len() <= index && !progress.ended {
            self.advance(&mut progress)?;
        }
        Ok(progress.batches.get(index).cloned())
    }

    /// One round more.
    fn advance(&self, progress: &mut Progress) -> Result<()> {
        self.execution.context.check_cancel()?;
        if progress.rounds == ROUNDS_MAX {
            return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, format!("recursive query exceeded {ROUNDS_MAX} iterations")));
        }
        let made = if progress.rounds == 0 {
            self.base.batches(Vec::new())?
        } else {
            self.working.set(progress.batches[progress.last.clone()].to_vec());
            let schema = progress.batches[0].schema();
            self.recursive.batches(Vec::new())?.iter().map(|b| rename(b, &schema)).collect::<Result<Vec<_>>>()?
        };
        progress.rounds += 1;
        let from = progress.batches.len();
        let fresh = self.fresh(made, &mut progress.seen)?;
        progress.batches.extend(fresh.into_iter().filter(|b| b.num_rows() > 0));
        progress.last = from..progress.batches.len();
        progress.ended = progress.last.is_empty();
        Ok(())
    }

    /// UNION: only rows not seen before.
    fn fresh(&self, batches: Vec<RecordBatch>, seen: &mut HashSet<Vec<u8>>) -> Result<Vec<RecordBatch>> {
        if self.all {
            return Ok(batches);
        }
        let mut out = Vec::with_capacity(batches.len());
        for batch in batches {
            let columns = column_refs(batch.columns())?;
            let mut keep = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                keep.push(seen.insert(row_key(&self.execution, &columns, &self.types, row)?));
            }
            out.push(filter(&batch, keep)?);
        }
        Ok(out)
    }
}

/// The rows of a batch for which `keep` is true.
pub(super) fn filter(batch: &RecordBatch, keep: Vec<bool>) -> Result<RecordBatch> {
    datafusion::arrow::compute::filter_record_batch(batch, &keep.into()).map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
}

/// A row's key: equal rows (NULLs equal, numerics by value) have equal keys.
pub(super) fn row_key(execution: &Execution, columns: &[ColumnRef<'_>], types: &[DataType], row: usize) -> Result<Vec<u8>> {
    let mut key = Vec::with_capacity(16 * columns.len());
    for (column, data_type) in columns.iter().zip(types) {
        compare::row_key(&execution.context, data_type, &column.get(row), &mut key)?;
    }
    Ok(key)
}
