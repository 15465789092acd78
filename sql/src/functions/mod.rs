//! The implementations of functions, operators, casts, aggregates and set-returning functions.
//!
//! The catalog (`catalog_data`) says what exists; this folder says what it does. An implementation is found by `pg_proc`'s
//! `prosrc`, or by the function's name where that is empty (SQL functions, our own), so that one entry serves every oid and
//! alias. To add a function, add a line `("prosrc", run)` to its family's `FUNCTIONS`: `run` gets the arguments of one row,
//! none of them NULL when the catalog calls the function strict, and gives the result. Comparison operators need no entry:
//! [`compare`] serves them all. Aggregates and set-returning functions have tables of their own.

pub mod aggregates;
pub mod arrays;
pub mod casts;
pub mod compare;
pub mod datetime;
pub mod digest;
pub mod json;
pub mod number_template;
pub mod numbers;
pub mod sets;
pub mod system;
pub mod template;
pub mod text;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use strandline_storage::{DataType, Value};

use crate::catalog_data::{ProcRow, catalog};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::types::Oid;

/// One place in a query where a function is called: what its implementation may know besides the arguments.
pub struct Call {
    pub context: Arc<StatementContext>,
    pub proc: &'static ProcRow,
    /// The arguments' types as bound (polymorphic ones resolved).
    pub args: Vec<DataType>,
    pub result: DataType,
    /// The last argument was written VARIADIC.
    pub variadic: bool,
    cache: Mutex<Option<(Box<[u8]>, Arc<dyn Any + Send + Sync>)>>,
}

impl Call {
    pub fn new(context: Arc<StatementContext>, proc: &'static ProcRow, args: Vec<DataType>, result: DataType, variadic: bool) -> Self {
        Call { context, proc, args, result, variadic, cache: Mutex::new(None) }
    }

    /// What `make` gave for the same key last time: compiled patterns and the like.
    pub fn cached<T: Send + Sync + 'static>(&self, key: &[u8], make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some((k, made)) = &*self.cache.lock()
            && **k == *key
            && let Ok(made) = Arc::clone(made).downcast::<T>()
        {
            return Ok(made);
        }
        let made = Arc::new(make()?);
        *self.cache.lock() = Some((key.into(), Arc::clone(&made) as Arc<dyn Any + Send + Sync>));
        Ok(made)
    }

    /// The text of an argument as PostgreSQL's output function gives it.
    pub fn text_of(&self, index: usize, datum: &Datum<'_>) -> Result<String> {
        casts::output(&self.context, &self.args[index], datum)
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("proc", &self.proc.name).finish_non_exhaustive()
    }
}

/// An implementation: one row's arguments to its result.
pub type Run = fn(&Call, &[Datum<'_>]) -> Result<Value>;
/// One line of a family's table.
pub type Entry = (&'static str, Run);

static SCALARS: LazyLock<HashMap<&'static str, Run>> = LazyLock::new(|| {
    [arrays::FUNCTIONS, casts::FUNCTIONS, datetime::FUNCTIONS, json::FUNCTIONS, numbers::FUNCTIONS, system::FUNCTIONS, text::FUNCTIONS]
        .iter()
        .flat_map(|family| family.iter().copied())
        .collect()
});

/// The function with this oid.
///
/// # Errors
/// `UndefinedFunction`.
pub fn proc(oid: Oid) -> Result<&'static ProcRow> {
    catalog().proc_by_oid(oid).ok_or_else(|| SqlError::new(ErrorCode::UndefinedFunction, format!("function with OID {oid} does not exist")))
}

/// The key of a function's implementation.
pub fn source(proc: &ProcRow) -> &'static str {
    if proc.source.is_empty() { proc.name } else { proc.source }
}

/// How a scalar function is run.
#[derive(Clone, Copy)]
pub enum Scalar {
    Run(Run),
    Compare(compare::Comparison),
}

/// # Errors
/// `FeatureNotSupported` when nothing implements the function.
pub fn scalar(proc: &'static ProcRow) -> Result<Scalar> {
    // An entry of its own comes first: some types compare by rules of their own.
    if let Some(&run) = SCALARS.get(source(proc)) {
        return Ok(Scalar::Run(run));
    }
    // One answer serves the many forms of each (by name or oid of role and object).
    if proc.name.starts_with("has_") && proc.name.ends_with("_privilege") {
        return Ok(Scalar::Run(system::has_privilege));
    }
    if let Some(comparison) = compare::of_proc(proc.oid) {
        return Ok(Scalar::Compare(comparison));
    }
    Err(unsupported(proc))
}

/// `function name(types) is not supported`.
pub fn unsupported(proc: &ProcRow) -> SqlError {
    let types: Vec<&str> = proc.arg_types.iter().map(|&oid| catalog().type_by_oid(oid).map_or("?", |t| t.name)).collect();
    SqlError::unsupported(format!("function {}({})", proc.name, types.join(", ")))
}

// Helpers for the families.

pub(crate) fn text_value(text: impl AsRef<str>) -> Value {
    Value::bytes(text.as_ref().as_bytes())
}

pub(crate) fn out_of_range(what: &str) -> SqlError {
    SqlError::new(ErrorCode::NumericValueOutOfRange, format!("{what} out of range"))
}

pub(crate) fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameterValue, message)
}
