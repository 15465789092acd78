//! Subqueries in expressions: the inner plan is made once and run per distinct set of outer values.
//!
//! Outer values travel in the execution's slots. Results are remembered by the outer values, an uncorrelated subquery
//! being the case of none; a set of keys then answers IN without comparing row by row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt as _;
use parking_lot::{Mutex, ReentrantMutex};
use strandline_storage::{DataType, Value};

use crate::bound::{ColumnId, Query};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::exec::evaluate::Quantifier;
use crate::exec::evaluator::Binary;
use crate::exec::runtime::{block_on, error_of, session_state};
use crate::exec::{Execution, append_rows};
use crate::functions::{arrays, compare};
use crate::lower::walk;

/// So many results of a correlated subquery are remembered.
const MEMO_ENTRIES_MAX: usize = 1024;
/// Results of more rows than this are not remembered for a correlated subquery.
const MEMO_ROWS_MAX: usize = 256;

/// A subquery's plan and what is known of its results.
pub struct Subplan {
    query: Query,
    execution: Arc<Execution>,
    outer: Vec<ColumnId>,
    volatile: bool,
    state: ReentrantMutex<std::cell::RefCell<State>>,
}

#[derive(Default)]
struct State {
    plan: Option<Arc<dyn ExecutionPlan>>,
    memo: HashMap<Vec<u8>, Arc<Rows>>,
}

/// A result: rows as values, and the keys of the first column once somebody asked.
pub struct Rows {
    rows: Vec<Vec<Value>>,
    keys: Mutex<Option<Arc<Keys>>>,
}

struct Keys {
    set: HashSet<Vec<u8>>,
    has_null: bool,
}

impl std::fmt::Debug for Subplan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subplan").field("outer", &self.outer).finish_non_exhaustive()
    }
}

/// `row op ANY/ALL (subquery)`.
#[derive(Debug)]
pub struct Test {
    operators: Vec<Binary>,
    all: bool,
}

impl Test {
    pub fn new(operators: Vec<Binary>, all: bool) -> Self {
        Test { operators, all }
    }
}

impl Subplan {
    pub fn new(query: Query, execution: &Arc<Execution>) -> Self {
        let outer = walk::outer_columns(&query);
        let volatile = walk::is_volatile(&query);
        Subplan { query, execution: Arc::clone(execution), outer, volatile, state: ReentrantMutex::default() }
    }

    /// The outer columns that the subquery reads, at any depth.
    pub fn outer(&self) -> &[ColumnId] {
        &self.outer
    }

    /// Makes the plan now rather than at first use.
    pub fn prepare(&self) -> Result<()> {
        let guard = self.state.lock();
        if guard.borrow().plan.is_none() {
            let plan = crate::lower::plan(&self.query, &self.execution)?;
            guard.borrow_mut().plan = Some(plan);
        }
        Ok(())
    }

    /// Runs the plan with these outer values (others are in the slots already), at most `limit` rows.
    fn execute(&self, params: Vec<(ColumnId, Value)>, limit: usize) -> Result<Vec<Vec<Value>>> {
        let guard = self.state.lock();
        self.execution.set_slots(params);
        let plan = {
            let mut state = guard.borrow_mut();
            match state.plan.take() {
                Some(plan) => reset_plan_states(plan).map_err(error_of)?,
                None => crate::lower::plan(&self.query, &self.execution)?,
            }
        };
        let mut rows = Vec::new();
        let result = (|| {
            let mut stream = execute_stream(Arc::clone(&plan), session_state().task_ctx()).map_err(error_of)?;
            block_on(async {
                while rows.len() < limit
                    && let Some(batch) = stream.next().await
                {
                    self.execution.context.check_cancel()?;
                    append_rows(&batch.map_err(error_of)?, &mut rows)?;
                }
                Ok(())
            })
        })();
        guard.borrow_mut().plan = Some(plan);
        result.map(|()| rows)
    }

    /// All rows for these outer values, remembered.
    fn rows(&self, params: Vec<(ColumnId, Value)>, limit: usize) -> Result<Arc<Rows>> {
        let given: HashMap<ColumnId, &Value> = params.iter().map(|(id, v)| (*id, v)).collect();
        let mut key = Vec::new();
        for id in &self.outer {
            let value = given.get(id).map_or_else(|| self.execution.slot(*id), |v| (*v).clone());
            push_memo_key(&value, &mut key);
        }
        key.extend(limit.to_le_bytes());
        {
            let guard = self.state.lock();
            let state = guard.borrow();
            if let Some(rows) = state.memo.get(&key) {
                return Ok(Arc::clone(rows));
            }
        }
        let rows = Arc::new(Rows { rows: self.execute(params, limit)?, keys: Mutex::new(None) });
        let remember = if self.outer.is_empty() { true } else { !self.volatile && rows.rows.len() <= MEMO_ROWS_MAX };
        if remember {
            let guard = self.state.lock();
            let mut state = guard.borrow_mut();
            if state.memo.len() >= MEMO_ENTRIES_MAX {
                state.memo.clear();
            }
            state.memo.insert(key, Arc::clone(&rows));
        }
        Ok(rows)
    }

    pub fn exists(&self, params: Vec<(ColumnId, Value)>) -> Result<bool> {
        Ok(!self.rows(params, 1)?.rows.is_empty())
    }

    pub fn scalar(&self, params: Vec<(ColumnId, Value)>) -> Result<Value> {
        let rows = self.rows(params, 2)?;
        match rows.rows.as_slice() {
            [] => Ok(Value::Null),
            [row] => Ok(row.first().cloned().unwrap_or_default()),
            _ => Err(SqlError::new(ErrorCode::CardinalityViolation, "more than one row returned by a subquery used as an expression")),
        }
    }

    pub fn array(&self, params: Vec<(ColumnId, Value)>, element: &DataType) -> Result<Value> {
        let rows = self.rows(params, usize::MAX)?;
        let values: Vec<Datum<'_>> = rows.rows.iter().map(|r| r.first().map_or(Datum::Null, Datum::from)).collect();
        if element.kind == strandline_storage::Kind::Array {
            return arrays::nest(&values);
        }
        arrays::build(&self.execution.context, element, &values)
    }

    pub fn compare(&self, params: Vec<(ColumnId, Value)>, left: &[Datum<'_>], test: &Test) -> Result<Option<bool>> {
        let rows = self.rows(params, usize::MAX)?;
        if let ([operator], [left], false) = (test.operators.as_slice(), left, test.all)
            && operator.is_hashable_equality()
        {
            if rows.rows.is_empty() {
                return Ok(Some(false));
            }
            if left.is_null() {
                return Ok(None);
            }
            let keys = self.keys(&rows, operator.right_type())?;
            let mut key = Vec::new();
            compare::sort_key(&self.execution.context, operator.left_type(), left, &mut key)?;
            return Ok(if keys.set.contains(&key) {
                Some(true)
            } else if keys.has_null {
                None
            } else {
                Some(false)
            });
        }
        let mut quantifier = Quantifier::new(test.all);
        for row in &rows.rows {
            // Row-wise equality: false as soon as one column differs, unknown when one is.
            let mut all = Some(true);
            for ((operator, left), right) in test.operators.iter().zip(left).zip(row) {
                match operator.run(left, &Datum::from(right))? {
                    Datum::Bool(true) => {}
                    Datum::Bool(false) => {
                        all = Some(false);
                        break;
                    }
                    _ => all = None,
                }
            }
            if let Some(answer) = quantifier.add(&all.map_or(Datum::Null, Datum::Bool)) {
                return Ok(Some(answer));
            }
        }
        Ok(quantifier.end())
    }

    fn keys(&self, rows: &Rows, data_type: &DataType) -> Result<Arc<Keys>> {
        let mut slot = rows.keys.lock();
        if let Some(keys) = &*slot {
            return Ok(Arc::clone(keys));
        }
        let mut keys = Keys { set: HashSet::with_capacity(rows.rows.len()), has_null: false };
        for value in rows.rows.iter().filter_map(|r| r.first()) {
            if value.is_null() {
                keys.has_null = true;
                continue;
            }
            let mut key = Vec::new();
            compare::sort_key(&self.execution.context, data_type, &Datum::from(value), &mut key)?;
            keys.set.insert(key);
        }
        let keys = Arc::new(keys);
        *slot = Some(Arc::clone(&keys));
        Ok(keys)
    }

    /// The batches for these outer values, not remembered: for Apply.
    pub fn batches(&self, params: Vec<(ColumnId, Value)>) -> Result<Vec<RecordBatch>> {
        let guard = self.state.lock();
        self.execution.set_slots(params);
        let plan = {
            let mut state = guard.borrow_mut();
            match state.plan.take() {
                Some(plan) => reset_plan_states(plan).map_err(error_of)?,
                None => crate::lower::plan(&self.query, &self.execution)?,
            }
        };
        let mut batches = Vec::new();
        let result = (|| {
            let mut stream = execute_stream(Arc::clone(&plan), session_state().task_ctx()).map_err(error_of)?;
            block_on(async {
                while let Some(batch) = stream.next().await {
                    self.execution.context.check_cancel()?;
                    batches.push(batch.map_err(error_of)?);
                }
                Ok(())
            })
        })();
        guard.borrow_mut().plan = Some(plan);
        result.map(|()| batches)
    }
}

fn push_memo_key(value: &Value, key: &mut Vec<u8>) {
    key.push(u8::from(!value.is_null()));
    match value {
        Value::Null => {}
        Value::Bool(v) => key.push(u8::from(*v)),
        Value::Int2(v) => key.extend(v.to_le_bytes()),
        Value::Int4(v) => key.extend(v.to_le_bytes()),
        Value::Int8(v) => key.extend(v.to_le_bytes()),
        Value::Float4(v) => key.extend(v.to_le_bytes()),
        Value::Float8(v) => key.extend(v.to_le_bytes()),
        Value::Uuid(v) => key.extend(v),
        Value::Bytes(v) => {
            key.extend((v.len() as u64).to_le_bytes());
            key.extend(v.iter());
        }
    }
}
