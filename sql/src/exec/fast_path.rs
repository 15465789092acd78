//! `SELECT columns FROM t WHERE key = constants`, answered from the tree without a plan.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use strandline_storage::{DataType, Kind, TableAt, Value};

use crate::bound::{Column, ColumnId, Expr, Query, Rel};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::datum::{ColumnBuilder, Datum};
use crate::exec::evaluator::{Evaluator, NoRow};
use crate::functions::compare::{self, Comparison};
use crate::lower::walk;
use crate::types::arrow_type;

/// The rows, when the query has that form; `None` when it has not.
pub fn run(query: &Query, execution: &Arc<Execution>, types: &[DataType]) -> Result<Option<Vec<RecordBatch>>> {
    let (projection, filter) = match &query.rel {
        Rel::Project { input, exprs } => (Some(exprs), &**input),
        other => (None, other),
    };
    let Rel::Filter { input, predicate } = filter else { return Ok(None) };
    let Rel::Scan { table, columns, key_column } = &**input else { return Ok(None) };
    let Some(key) = key_of(table, columns, predicate, execution)? else { return Ok(None) };
    if projection.is_some_and(|list| list.iter().any(|(_, e)| walk::has_subquery(e) || matches!(e, Expr::Grouping(_)))) {
        return Ok(None);
    }
    let row = match &key {
        Some(key) => table.get(key)?,
        None => None,
    };
    let mut out: Vec<ColumnBuilder> = types.iter().map(|t| ColumnBuilder::new(&arrow_type(t.kind), 1)).collect();
    let rows = usize::from(row.is_some());
    if let Some(row) = row {
        let value = |id: ColumnId| -> Option<Value> {
            if key_column.as_ref().is_some_and(|c| c.id == id) {
                return key.as_ref().map(Value::bytes);
            }
            columns.iter().find(|(_, c)| c.id == id).and_then(|(at, _)| row.get(*at).cloned())
        };
        let missing = |id: ColumnId| SqlError::new(ErrorCode::InternalError, format!("column {id} is not among the relation's"));
        for (column, builder) in query.columns.iter().zip(&mut out) {
            let value = match projection {
                None => value(column.id).ok_or_else(|| missing(column.id))?,
                Some(list) => {
                    let (_, expr) = list.iter().find(|(c, _)| c.id == column.id).ok_or_else(|| missing(column.id))?;
                    match expr {
                        Expr::Column { id, .. } => value(*id).ok_or_else(|| missing(*id))?,
                        other => {
                            let ids = walk::columns_of(other);
                            let inputs = ids.iter().map(|id| value(*id).ok_or_else(|| missing(*id))).collect::<Result<Vec<_>>>()?;
                            Evaluator::new(other, execution, &|id| ids.iter().position(|i| *i == id))?.value(&inputs)?
                        }
                    }
                }
            };
            builder.push(&Datum::from(&value))?;
        }
    }
    let fields: Vec<Field> = types.iter().enumerate().map(|(i, t)| Field::new(format!("o{i}"), arrow_type(t.kind), true)).collect();
    let arrays = out.iter_mut().map(ColumnBuilder::finish).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))?;
    Ok(Some(if rows == 0 { Vec::new() } else { vec![batch] }))
}

/// The key that a predicate of equalities names; the inner `None`: it can match no row.
fn key_of(table: &TableAt, columns: &[(usize, Column)], predicate: &Expr, execution: &Arc<Execution>) -> Result<Option<Option<Vec<u8>>>> {
    let schema = table.schema();
    let keys = schema.key_columns();
    if keys.is_empty() {
        return Ok(None);
    }
    let single = [predicate.clone()];
    let parts: &[Expr] = if let Expr::And(list) = predicate { list } else { &single };
    if parts.len() != keys.len() {
        return Ok(None);
    }
    let mut values: Vec<Option<Value>> = vec![None; keys.len()];
    for part in parts {
        let Expr::Function(call) = part else { return Ok(None) };
        if compare::of_proc(call.proc) != Some(Comparison::Eq) {
            return Ok(None);
        }
        let (column, constant) = match call.args.as_slice() {
            [Expr::Column { id, .. }, other] | [other, Expr::Column { id, .. }]
                if walk::columns_of(other).is_empty() && !walk::has_subquery(other) && !walk::is_volatile_expr(other) =>
            {
                (*id, other)
            }
            _ => return Ok(None),
        };
        let Some(at) = columns.iter().find(|(_, c)| c.id == column).map(|(at, _)| *at) else { return Ok(None) };
        let Some(slot) = keys.iter().position(|k| *k == at) else { return Ok(None) };
        let Some(data_type) = schema.columns.get(at).map(|c| &c.data_type) else { return Ok(None) };
        let evaluator = Evaluator::new(constant, execution, &|_| None)?;
        let kind = evaluator.data_type().kind;
        let value = evaluator.value(&NoRow)?;
        if value.is_null() {
            return Ok(Some(None));
        }
        let Some(value) = as_kind(&value, kind, data_type.kind) else { return Ok(None) };
        values[slot] = Some(value);
    }
    let Some(values) = values.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    Ok(Some(Some(table.definition().key_prefix(None, &values)?)))
}

/// A constant in the key column's shape; `None` when that is not sure to keep equality.
fn as_kind(value: &Value, from: Kind, to: Kind) -> Option<Value> {
    let int = |k: Kind| matches!(k, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid);
    if int(from) && int(to) {
        let v = Datum::from(value).int();
        return match to {
            Kind::Int2 => i16::try_from(v).ok().map(Value::Int2),
            Kind::Int4 => i32::try_from(v).ok().map(Value::Int4),
            _ => Some(Value::Int8(v)),
        };
    }
    let plain = matches!(
        to,
        Kind::Text
            | Kind::Uuid
            | Kind::Bool
            | Kind::Date
            | Kind::Timestamp
            | Kind::Timestamptz
            | Kind::Numeric
            | Kind::Bytea
            | Kind::Lsn
            | Kind::Enum
    );
    (from == to && plain).then(|| value.clone())
}
