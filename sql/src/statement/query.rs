//! SELECT, VALUES and TABLE; EXPLAIN; results made here.

use std::sync::Arc;

use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use futures::StreamExt;
use pg_query::NodeEnum;
use pg_query::protobuf::ExplainStmt;
use strandline_storage::{DataType, Value};

use crate::bind::Binder;
use crate::bound::{Column, Query};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnBuilder, Datum};
use crate::exec::{self, RowBatches};
use crate::functions::casts;
use crate::parse::{Source, Statement};
use crate::session::{ContextNames, Outcome, OutputColumn, Rows, RowsTag, Session, type_len};
use crate::statement::{dml, tree};
use crate::types::{Oid, SqlType, arrow_type, oid};

/// A query's columns as the client is told them.
pub fn output_columns(context: &StatementContext, columns: &[Column]) -> Result<Vec<OutputColumn>> {
    columns
        .iter()
        .map(|column| {
            let mut data_type = casts::data_type(context, column.ty)?;
            let mut ty = column.ty;
            // A domain's values are told as those of its base type.
            let plain = super::plain_type(context, &data_type);
            if plain.oid != data_type.oid {
                ty = SqlType { oid: plain.oid, typmod: plain.typmod };
                data_type = plain;
            }
            let type_len = type_len(&data_type);
            Ok(OutputColumn { name: column.name.clone(), ty, data_type, origin: column.origin, type_len })
        })
        .collect()
}

/// Binds a query whose parameters have these types.
pub fn bind(context: &Arc<StatementContext>, source: &Arc<Source>, node: &NodeEnum, types: &[Oid]) -> Result<(Query, Vec<Oid>)> {
    let NodeEnum::SelectStmt(select) = node else { return Err(tree::malformed()) };
    let names = ContextNames::new(context, !context.params.is_empty());
    let mut binder = Binder::new(&names, source.clone(), types);
    let query = binder.bind_query(select)?;
    let params = binder.param_types()?;
    Ok((query, params))
}

pub fn describe(
    session: &mut Session,
    statement: &Statement,
    node: &NodeEnum,
    types: &[Oid],
) -> Result<(Vec<Oid>, Option<Vec<OutputColumn>>)> {
    let context = session.core.statement_context(Vec::new())?;
    if dml::modifying_ctes(node) {
        return Err(SqlError::unsupported("a data-modifying statement in WITH"));
    }
    let (query, params) = bind(&context, &statement.source, node, types)?;
    let columns = output_columns(&context, &query.columns)?;
    Ok((params, Some(columns)))
}

/// A running query as an outcome.
pub fn rows_of(context: &Arc<StatementContext>, batches: RowBatches, tag: RowsTag) -> Result<Rows> {
    let columns = output_columns(context, &batches.columns)?;
    // A portal may be asked for more after its last row.
    let stream = futures::stream::unfold(batches, |mut batches| async move { batches.next().await.map(|batch| (batch, batches)) });
    Ok(Rows { columns: columns.into(), tag, batches: stream.fuse().boxed(), pending: None, context: context.clone() })
}

/// Starts a query with its parameters.
pub fn run(
    session: &mut Session,
    statement: &Statement,
    node: &NodeEnum,
    params: Vec<Value>,
    types: &[Oid],
) -> Result<(Arc<StatementContext>, RowBatches)> {
    if dml::modifying_ctes(node) {
        return Err(SqlError::unsupported("a data-modifying statement in WITH"));
    }
    let context = session.core.statement_context(params)?;
    let (query, found) = bind(&context, &statement.source, node, types)?;
    if found.len() > context.params.len() {
        return Err(SqlError::new(ErrorCode::UndefinedParameter, format!("there is no parameter ${}", context.params.len() + 1)));
    }
    let batches = exec::run(&query, context.clone())?.of_statement(&context);
    Ok((context, batches))
}

pub fn select(session: &mut Session, statement: &Statement, params: Vec<Value>) -> Result<Outcome> {
    let types = session.parameter_types.clone();
    let (context, batches) = run(session, statement, &statement.node, params, &types)?;
    Ok(Outcome::Rows(rows_of(&context, batches, RowsTag::Counted("SELECT"))?))
}

pub fn explain(session: &mut Session, statement: &Statement, explain: &ExplainStmt, params: Vec<Value>) -> Result<Outcome> {
    for option in tree::def_elems(&explain.options) {
        let on = tree::def_bool(option).unwrap_or(true);
        match option.defname.as_str() {
            "costs" | "verbose" | "summary" | "settings" | "timing" => {}
            "format" if tree::def_text(option).is_some_and(|f| f.eq_ignore_ascii_case("text")) => {}
            _ if !on => {}
            other => return Err(SqlError::unsupported(format_args!("EXPLAIN option {}", other.to_uppercase()))),
        }
    }
    let inner = tree::inner(&explain.query)?;
    let lines = match inner {
        NodeEnum::SelectStmt(_) => {
            let types = session.parameter_types.clone();
            let context = session.core.statement_context(params)?;
            let (query, _) = bind(&context, &statement.source, inner, &types)?;
            exec::explain(&query, context)?
        }
        _ => return Err(SqlError::unsupported("EXPLAIN of this statement")),
    };
    let columns = vec![text_column(session, "QUERY PLAN")?];
    let rows = lines.into_iter().map(|line| vec![Value::bytes(line)]).collect();
    let context = session.core.statement_context(Vec::new())?;
    rows_outcome(context, columns, rows, RowsTag::Fixed("EXPLAIN".into()))
}

/// A text column of a result made here.
pub fn text_column(_session: &Session, name: &str) -> Result<OutputColumn> {
    let data_type = DataType::builtin(oid::TEXT, -1).ok_or_else(tree::malformed)?;
    Ok(OutputColumn { name: name.into(), ty: SqlType::new(oid::TEXT), data_type, origin: None, type_len: -1 })
}

/// Rows that are known, as an outcome.
pub fn rows_outcome(context: Arc<StatementContext>, columns: Vec<OutputColumn>, rows: Vec<Vec<Value>>, tag: RowsTag) -> Result<Outcome> {
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type.clone()).collect();
    let batch = batch_of(&types, rows)?;
    Ok(Outcome::Rows(Rows { columns: columns.into(), tag, batches: futures::stream::iter([Ok(batch)]).boxed(), pending: None, context }))
}

/// Rows as a record batch in Arrow's shapes.
pub fn batch_of(types: &[DataType], rows: Vec<Vec<Value>>) -> Result<RecordBatch> {
    let count = rows.len();
    let mut builders: Vec<ColumnBuilder> = types.iter().map(|t| ColumnBuilder::new(&arrow_type(t.kind), count)).collect();
    for row in &rows {
        for (builder, value) in builders.iter_mut().zip(row) {
            builder.push(&Datum::from(value))?;
        }
    }
    let fields: Vec<datafusion::arrow::datatypes::Field> = types
        .iter()
        .enumerate()
        .map(|(i, t)| datafusion::arrow::datatypes::Field::new(format!("c{i}"), arrow_type(t.kind), true))
        .collect();
    let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(fields));
    RecordBatch::try_new_with_options(schema, arrays, &RecordBatchOptions::new().with_row_count(Some(count)))
        .map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))
}
