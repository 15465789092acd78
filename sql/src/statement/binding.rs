//! The way from a statement's parse tree to the binder and back: types, stored expressions, row-wise evaluation.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, TypeName};
use strandline_storage::{DataType, TableSchema, Value};

use crate::bind::{Binder, ScalarUse, Settled};
use crate::bound::{Column, Expr};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::{Evaluator, Execution};
use crate::functions::casts;
use crate::parse::{self, Source};
use crate::session::ContextNames;
use crate::types::{SqlType, oid};

/// The type that a name in a statement stands for.
pub fn data_type(context: &Arc<StatementContext>, source: &Arc<Source>, name: &TypeName) -> Result<DataType> {
    let names = ContextNames::new(context, true);
    let ty = Binder::new(&names, source.clone(), &[]).bind_type(name)?;
    let made = casts::data_type(context, ty)?;
    if matches!(ty.oid, oid::RECORD | oid::VOID | oid::UNKNOWN) || is_pseudo(ty.oid) {
        return Err(SqlError::new(ErrorCode::InvalidTableDefinition, format!("column has pseudo-type {}", made.sql_name())));
    }
    Ok(made)
}

fn is_pseudo(oid: u32) -> bool {
    matches!(oid, 2249 | 2275..=2284 | 2287 | 2776 | 3500 | 3831)
}

pub fn sql_type(data_type: &DataType) -> SqlType {
    SqlType { oid: data_type.oid, typmod: data_type.typmod }
}

/// A table's columns for an expression over its rows: the id is the position + 1.
fn table_columns(table: &TableSchema) -> Vec<Column> {
    table
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| Column {
            id: i as u32 + 1,
            name: column.name.clone(),
            ty: sql_type(&column.data_type),
            origin: Some((table.oid, column.attnum)),
        })
        .collect()
}

/// What an expression over a table's row is to give.
#[derive(Clone)]
pub enum Wanted {
    Boolean,
    /// A value assigned to this type.
    Assigned(DataType),
}

/// Expressions over rows of a table, compiled.
#[derive(Debug)]
pub struct RowExpressions {
    evaluators: Vec<Evaluator>,
}

impl RowExpressions {
    /// Expressions that the catalog keeps as text.
    pub fn stored(context: &Arc<StatementContext>, table: &TableSchema, texts: &[(&str, Wanted)]) -> Result<Self> {
        let mut evaluators = Vec::with_capacity(texts.len());
        for (text, wanted) in texts {
            let (source, node) = parse::parse_expression(text)?;
            let expr = bind(context, &source, &node, Some(table), wanted)?;
            evaluators.push(compile(context, &expr)?);
        }
        Ok(RowExpressions { evaluators })
    }

    pub fn of(context: &Arc<StatementContext>, exprs: &[Expr]) -> Result<Self> {
        Ok(RowExpressions { evaluators: exprs.iter().map(|e| compile(context, e)).collect::<Result<_>>()? })
    }

    pub fn value(&self, at: usize, row: &[Value]) -> Result<Value> {
        match self.evaluators.get(at) {
            Some(evaluator) => evaluator.value(row),
            None => Ok(Value::Null),
        }
    }
}

/// Compiles an expression over a table's row, whose column ids are positions + 1.
fn compile(context: &Arc<StatementContext>, expr: &Expr) -> Result<Evaluator> {
    Evaluator::new(expr, &Execution::new(context.clone()), &|id| Some(id as usize - 1))
}

fn bind(context: &Arc<StatementContext>, source: &Arc<Source>, node: &Node, table: Option<&TableSchema>, wanted: &Wanted) -> Result<Expr> {
    let names = ContextNames::new(context, true);
    let mut binder = Binder::new(&names, source.clone(), &[]);
    let columns = table.map(table_columns).unwrap_or_default();
    let name = table.map_or("", |t| t.name.as_str());
    match wanted {
        Wanted::Boolean => binder.bind_scalar(node, &columns, name, ScalarUse::Check, None),
        Wanted::Assigned(data_type) => {
            let use_ = if table.is_some() { ScalarUse::Generated } else { ScalarUse::Default };
            binder.bind_scalar(node, &columns, name, use_, Some(sql_type(data_type)))
        }
    }
}

/// Names a column in the error about its default's type.
fn name_column(mut error: SqlError, column: &str) -> SqlError {
    if let Some(rest) = error.message.strip_prefix("column is of type") {
        error.message = format!("column \"{column}\" is of type{rest}");
    }
    error
}

/// Checks a default as written.
pub fn check_default(context: &Arc<StatementContext>, source: &Arc<Source>, node: &Node, data_type: &DataType, column: &str) -> Result<()> {
    let wanted = Wanted::Assigned(data_type.clone());
    let expr = bind(context, source, node, None, &wanted).map_err(|e| name_column(e, column))?;
    compile(context, &expr).map(|_| ())
}

/// Checks a default that the catalog has against another type.
pub fn check_stored_default(context: &Arc<StatementContext>, text: &str, data_type: &DataType, column: &str) -> Result<()> {
    let (source, node) = parse::parse_expression(text)?;
    check_default(context, &source, &node, data_type, column).map_err(|error| {
        let message = format!("default for column \"{column}\" cannot be cast automatically to type {}", data_type.sql_name());
        if error.code == ErrorCode::DatatypeMismatch { SqlError::new(ErrorCode::DatatypeMismatch, message) } else { error }
    })
}

/// A default's expression, bound: without columns.
pub fn stored_default(context: &Arc<StatementContext>, text: &str, data_type: &DataType) -> Result<Expr> {
    let (source, node) = parse::parse_expression(text)?;
    bind(context, &source, &node, None, &Wanted::Assigned(data_type.clone()))
}

/// Checks a condition over a table's row; returns the positions of the columns it uses.
pub fn check_condition(context: &Arc<StatementContext>, source: &Arc<Source>, node: &Node, table: &TableSchema) -> Result<Vec<usize>> {
    let expr = bind(context, source, node, Some(table), &Wanted::Boolean)?;
    compile(context, &expr)?;
    Ok(columns_used(node, table))
}

/// Checks an index's expression.
pub fn check_expression(context: &Arc<StatementContext>, source: &Arc<Source>, node: &Node, table: &TableSchema) -> Result<()> {
    let names = ContextNames::new(context, true);
    let mut binder = Binder::new(&names, source.clone(), &[]);
    let expr = binder.bind_scalar(node, &table_columns(table), &table.name, ScalarUse::Index, None)?;
    compile(context, &expr).map(|_| ())
}

/// Positions of a table's columns that an expression names.
fn columns_used(node: &Node, table: &TableSchema) -> Vec<usize> {
    let mut used: Vec<usize> = Vec::new();
    let Some(inner) = &node.node else { return used };
    let mut note = |reference: &pg_query::protobuf::ColumnRef| {
        if let Some(at) = reference.fields.last().and_then(super::tree::string).and_then(|name| table.column_index(name))
            && !used.contains(&at)
        {
            used.push(at);
        }
    };
    if let NodeEnum::ColumnRef(reference) = inner {
        note(reference);
    }
    for (node, _, _, _) in inner.nodes() {
        if let pg_query::NodeRef::ColumnRef(reference) = node {
            note(reference);
        }
    }
    used.sort_unstable();
    used
}

/// Checks the expressions of a table's generated columns.
pub fn check_generated(context: &Arc<StatementContext>, table: &TableSchema) -> Result<()> {
    for column in &table.columns {
        let Some(text) = &column.generated else { continue };
        let (_, node) = parse::parse_expression(text)?;
        for at in columns_used(&node, table) {
            if table.columns[at].generated.is_some() {
                return Err(SqlError::new(
                    ErrorCode::InvalidObjectDefinition,
                    format!("cannot use generated column \"{}\" in column generation expression", table.columns[at].name),
                )
                .detail("A generated column cannot reference another generated column."));
            }
        }
        RowExpressions::stored(context, table, &[(text.as_str(), Wanted::Assigned(column.data_type.clone()))])
            .map_err(|e| name_column(e, &column.name))?;
    }
    Ok(())
}

/// ALTER COLUMN TYPE's conversion of a row's value: USING, or the assignment cast.
pub fn conversion(
    context: &Arc<StatementContext>,
    source: &Arc<Source>,
    using: Option<&Node>,
    table: &TableSchema,
    at: usize,
    target: &DataType,
) -> Result<RowExpressions> {
    RowExpressions::of(context, &[bound_conversion(context, source, using, table, at, target)?])
}

/// As [`conversion`], not compiled.
pub fn bound_conversion(
    context: &Arc<StatementContext>,
    source: &Arc<Source>,
    using: Option<&Node>,
    table: &TableSchema,
    at: usize,
    target: &DataType,
) -> Result<Expr> {
    let column = &table.columns[at];
    let own;
    let node = match using {
        Some(node) => node,
        None => {
            let field = Node { node: Some(NodeEnum::String(pg_query::protobuf::String { sval: column.name.clone() })) };
            own = Node { node: Some(NodeEnum::ColumnRef(pg_query::protobuf::ColumnRef { fields: vec![field], location: -1 })) };
            &own
        }
    };
    bind(context, source, node, Some(table), &Wanted::Assigned(target.clone())).map_err(|error| {
        if error.code != ErrorCode::DatatypeMismatch {
            return error;
        }
        let (what, hint) = match using {
            Some(_) => (
                format!("result of USING clause for column \"{}\" cannot be cast automatically to type {}", column.name, target.sql_name()),
                "You might need to add an explicit cast.".to_owned(),
            ),
            None => (
                format!("column \"{}\" cannot be cast automatically to type {}", column.name, target.sql_name()),
                format!(
                    "You might need to specify \"USING {}::{}\".",
                    crate::system::identifier::quote_identifier(&column.name),
                    target.sql_name()
                ),
            ),
        };
        SqlError::new(ErrorCode::DatatypeMismatch, what).hint(hint)
    })
}

/// A view's query as it is kept: its text with every relation's schema, and with columns in the place of stars and NATURAL.
/// # Errors
/// `FeatureNotSupported` for the few queries whose meaning text cannot hold.
pub fn settled_query(context: &Arc<StatementContext>, source: &Arc<Source>, node: &NodeEnum) -> Result<String> {
    let (source, mut node) = parse::parse_stored(&source.text_of(node)?)?;
    Settled::number_joins(&mut node);
    let NodeEnum::SelectStmt(select) = &node else { return Err(super::tree::malformed()) };
    let names = ContextNames::new(context, true);
    let mut binder = Binder::new(&names, source.clone(), &[]);
    binder.settle();
    let before = binder.bind_query(select)?;
    let settled = binder.settled().unwrap_or_default();
    settled.apply(&mut node);
    let text = source.text_of(&node)?;
    let (source, node) = parse::parse_stored(&text)?;
    let NodeEnum::SelectStmt(select) = &node else { return Err(super::tree::malformed()) };
    let same = Binder::new(&names, source, &[]).bind_query(select).is_ok_and(|after| {
        after.columns.len() == before.columns.len()
            && after.columns.iter().zip(&before.columns).all(|(a, b)| a.name == b.name && a.ty == b.ty && a.origin == b.origin)
    });
    if same { Ok(text) } else { Err(SqlError::unsupported("a view on relations whose columns cannot be told apart by name")) }
}

/// The output columns of a query in the catalog's terms.
pub fn query_columns(context: &Arc<StatementContext>, source: &Arc<Source>, node: &NodeEnum) -> Result<Vec<(String, DataType)>> {
    let NodeEnum::SelectStmt(select) = node else { return Err(super::tree::malformed()) };
    let names = ContextNames::new(context, true);
    let mut binder = Binder::new(&names, source.clone(), &[]);
    let query = binder.bind_query(select)?;
    if !binder.param_types()?.is_empty() {
        return Err(SqlError::new(ErrorCode::UndefinedParameter, "there is no parameter $1"));
    }
    query.columns.iter().map(|c| Ok((c.name.clone(), casts::data_type(context, c.ty)?))).collect()
}

/// The stored columns (table, number) that a view's own text uses; none where the view is broken already.
pub fn view_columns_used(context: &Arc<StatementContext>, view: &str) -> std::collections::BTreeSet<(crate::types::Oid, i16)> {
    let names = ContextNames::new(context, true);
    let Ok((source, NodeEnum::SelectStmt(select))) = parse::parse_stored(view) else { return Default::default() };
    let mut binder = Binder::new(&names, source, &[]);
    binder.settle();
    let _ = binder.bind_query(&select);
    binder.settled().unwrap_or_default().used
}
