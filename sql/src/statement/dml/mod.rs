//! INSERT, UPDATE, DELETE: rows and keys are selected from the statement's snapshot first, then the edit is changed.
//!
//! ```text
//! parse tree --binder--> query of new rows, or of keys with old and new values --executor--> values
//!   --defaults, generated columns, checks--> edits of the transaction --foreign keys--> RETURNING
//! ```
//! Nothing is changed before the query has ended, so a statement never sees its own rows.

mod change;
pub mod foreign_keys;
mod insert;
mod rows;
pub mod truncate;

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{RangeVar, ReturningClause};
use strandline_storage::{Row, TableSchema, Value};

use crate::bind::{Binder, InsertTarget};
use crate::bound::{Column, ColumnId, Expr};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::{Evaluator, Execution};
use crate::parse::{Source, Statement};
use crate::session::{Outcome, OutputColumn, RowsTag, Session};
use crate::statement::binding::{sql_type, stored_default};
use crate::statement::{ddl, query, tree};
use crate::system::identifier::quote_qualified;
use crate::types::Oid;

pub use rows::{Checks, Filler, identity_sequence};

/// Says whether a query has INSERT, UPDATE or DELETE in its WITH clause.
pub fn modifying_ctes(node: &NodeEnum) -> bool {
    let with = match node {
        NodeEnum::SelectStmt(select) => &select.with_clause,
        NodeEnum::InsertStmt(insert) => &insert.with_clause,
        NodeEnum::UpdateStmt(update) => &update.with_clause,
        NodeEnum::DeleteStmt(delete) => &delete.with_clause,
        _ => return false,
    };
    with.as_ref().is_some_and(|with| {
        with.ctes.iter().any(|cte| match &cte.node {
            Some(NodeEnum::CommonTableExpr(cte)) => cte.ctequery.as_deref().is_some_and(|q| {
                matches!(q.node, Some(NodeEnum::InsertStmt(_) | NodeEnum::UpdateStmt(_) | NodeEnum::DeleteStmt(_) | NodeEnum::MergeStmt(_)))
            }),
            _ => false,
        })
    })
}

fn refuse_modifying_ctes(node: &NodeEnum) -> Result<()> {
    if modifying_ctes(node) {
        return Err(SqlError::unsupported("a data-modifying statement in WITH"));
    }
    Ok(())
}

pub fn execute(session: &mut Session, statement: &Statement, params: Vec<Value>) -> Result<Outcome> {
    refuse_modifying_ctes(&statement.node)?;
    let what = match &statement.node {
        NodeEnum::InsertStmt(_) => "INSERT",
        NodeEnum::UpdateStmt(_) => "UPDATE",
        _ => "DELETE",
    };
    let core = session.core.clone();
    core.check_writable(what)?;
    let context = core.statement_context(params)?;
    let types = session.parameter_types.clone();
    let done = match &statement.node {
        NodeEnum::InsertStmt(insert) => {
            let bound = insert::bind(&context, &statement.source, insert, &types)?;
            check_parameters(&bound.parameters, &context)?;
            insert::run(&core, &context, bound)?
        }
        node => {
            let bound = change::bind(&context, &statement.source, node, &types)?;
            check_parameters(&bound.parameters, &context)?;
            change::run(&core, &context, bound)?
        }
    };
    let tag = if what == "INSERT" { format!("INSERT 0 {}", done.count) } else { format!("{what} {}", done.count) };
    match done.returned {
        None => Ok(Outcome::done(tag)),
        Some((columns, rows)) => query::rows_outcome(context, columns, rows, RowsTag::Fixed(tag)),
    }
}

pub fn describe(session: &mut Session, statement: &Statement, types: &[Oid]) -> Result<(Vec<Oid>, Option<Vec<OutputColumn>>)> {
    refuse_modifying_ctes(&statement.node)?;
    let context = session.core.statement_context(Vec::new())?;
    let (parameters, returning) = match &statement.node {
        NodeEnum::InsertStmt(insert) => {
            let bound = insert::bind(&context, &statement.source, insert, types)?;
            (bound.parameters, bound.returning)
        }
        node => {
            let bound = change::bind(&context, &statement.source, node, types)?;
            (bound.parameters, bound.returning)
        }
    };
    let columns = match returning {
        None => None,
        Some(list) => {
            let columns: Vec<Column> = list.into_iter().map(|(column, _)| column).collect();
            Some(query::output_columns(&context, &columns)?)
        }
    };
    Ok((parameters, columns))
}

fn check_parameters(found: &[Oid], context: &StatementContext) -> Result<()> {
    if found.len() > context.params.len() {
        return Err(SqlError::new(ErrorCode::UndefinedParameter, format!("there is no parameter ${}", context.params.len() + 1)));
    }
    Ok(())
}

/// What a statement did.
struct Done {
    count: u64,
    returned: Option<(Vec<OutputColumn>, Vec<Row>)>,
}

/// The table that a statement changes.
fn target_table(context: &Arc<StatementContext>, source: &Source, range: &RangeVar) -> Result<Arc<TableSchema>> {
    let (schema, name) = tree::range_name(range);
    if source.as_of(&name).is_some() {
        return Err(SqlError::unsupported("changing a table AS OF a moment"));
    }
    let database = context.database.split('/').next().unwrap_or_default();
    if !range.catalogname.is_empty() && range.catalogname != context.database && range.catalogname != database {
        return Err(SqlError::new(
            ErrorCode::FeatureNotSupported,
            format!("cross-database references are not implemented: \"{}.{}.{name}\"", range.catalogname, schema.unwrap_or_default()),
        ));
    }
    ddl::find_table(context, schema.as_deref(), &name).map_err(|e| match e.code {
        ErrorCode::UndefinedTable => e.at(source.position(range.location)),
        ErrorCode::WrongObjectType => SqlError::new(ErrorCode::WrongObjectType, format!("cannot change \"{name}\": it is not a table")),
        _ => e,
    })
}

/// A table's columns as targets of assignments, each with what DEFAULT means.
fn targets(context: &Arc<StatementContext>, table: &TableSchema) -> Result<Vec<InsertTarget>> {
    let catalog = context.root.catalog();
    table
        .columns
        .iter()
        .map(|column| {
            let ty = sql_type(&column.data_type);
            let identity = column.identity.and_then(|_| identity_sequence(catalog, table.oid, column.attnum));
            let text = match identity {
                Some(sequence) => {
                    let schema = catalog.schema_name(sequence.schema_oid).unwrap_or("public");
                    let name = quote_qualified(schema, &sequence.name).replace('\'', "''");
                    Some(format!("nextval('{name}'::regclass)"))
                }
                None if column.generated.is_some() => None,
                None => column.default.clone().or_else(|| rows::domain_default(context, &column.data_type)),
            };
            let default = match text {
                Some(text) => stored_default(context, &text, &column.data_type)?,
                None => Expr::Const { value: Value::Null, ty },
            };
            Ok(InsertTarget { name: column.name.clone(), ty, default })
        })
        .collect()
}

/// New column ids for a table's columns, for a scope of RETURNING or ON CONFLICT.
fn scope_columns(binder: &mut Binder<'_>, table: &TableSchema) -> Vec<Column> {
    table
        .columns
        .iter()
        .map(|column| {
            let mut made = binder.new_column(column.name.clone(), sql_type(&column.data_type));
            made.origin = Some((table.oid, column.attnum));
            made
        })
        .collect()
}

fn returning_list(returning: &Option<ReturningClause>) -> Result<Option<&[pg_query::protobuf::Node]>> {
    match returning {
        None => Ok(None),
        Some(clause) if !clause.options.is_empty() => Err(SqlError::unsupported("RETURNING WITH (OLD, NEW)")),
        Some(clause) => Ok(Some(&clause.exprs)),
    }
}

/// RETURNING, compiled over rows whose columns have these ids.
struct Returning {
    columns: Vec<OutputColumn>,
    evaluators: Vec<Evaluator>,
    rows: Vec<Row>,
}

impl Returning {
    fn new(context: &Arc<StatementContext>, list: Option<Vec<(Column, Expr)>>, ids: &[ColumnId]) -> Result<Option<Self>> {
        let Some(list) = list else { return Ok(None) };
        let columns: Vec<Column> = list.iter().map(|(column, _)| column.clone()).collect();
        let execution = Execution::new(context.clone());
        let evaluators = list
            .iter()
            .map(|(_, expr)| Evaluator::new(expr, &execution, &|id| ids.iter().position(|i| *i == id)))
            .collect::<Result<_>>()?;
        Ok(Some(Returning { columns: query::output_columns(context, &columns)?, evaluators, rows: Vec::new() }))
    }

    fn push(&mut self, row: &[Value]) -> Result<()> {
        let made = self.evaluators.iter().map(|e| e.value(row)).collect::<Result<_>>()?;
        self.rows.push(made);
        Ok(())
    }
}

fn done(count: u64, returning: Option<Returning>) -> Done {
    Done { count, returned: returning.map(|r| (r.columns, r.rows)) }
}
