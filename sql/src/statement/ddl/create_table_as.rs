//! CREATE TABLE AS and SELECT INTO.

use pg_query::NodeEnum;
use pg_query::protobuf::{CreateTableAsStmt, IntoClause, ObjectType, SelectStmt};
use strandline_storage::schema::Column;
use strandline_storage::{DataType, Value};

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Statement;
use crate::session::{NoticeCode, Outcome, Session};
use crate::statement::ddl::create_table::Builder;
use crate::statement::ddl::{self, Ddl};
use crate::statement::{query, tree};

pub fn create(session: &mut Session, statement: &Statement, create: &CreateTableAsStmt, params: Vec<Value>) -> Result<Outcome> {
    if create.objtype() == ObjectType::ObjectMatview {
        return Err(SqlError::unsupported("a materialized view"));
    }
    let into = create.into.as_deref().ok_or_else(tree::malformed)?;
    let node = tree::inner(&create.query)?;
    if !matches!(node, NodeEnum::SelectStmt(_)) {
        return Err(SqlError::unsupported("CREATE TABLE AS EXECUTE"));
    }
    make(session, statement, into, node, params, create.if_not_exists)
}

pub fn select_into(session: &mut Session, statement: &Statement, select: &SelectStmt, params: Vec<Value>) -> Result<Outcome> {
    let mut plain = select.clone();
    let into = plain.into_clause.take().ok_or_else(tree::malformed)?;
    make(session, statement, &into, &NodeEnum::SelectStmt(Box::new(plain)), params, false)
}

fn make(
    session: &mut Session,
    statement: &Statement,
    into: &IntoClause,
    node: &NodeEnum,
    params: Vec<Value>,
    if_not_exists: bool,
) -> Result<Outcome> {
    session.core.check_writable("CREATE TABLE AS")?;
    let range = tree::range(&into.rel)?;
    if matches!(range.relpersistence.as_str(), "t" | "u") {
        return Err(SqlError::unsupported("a temporary or unlogged table"));
    }
    let ddl = Ddl::new(session, statement)?;
    let (schema, name) = tree::range_name(range);
    let (schema_oid, schema_name) = ddl::creation_schema(&ddl.context, schema.as_deref())?;
    ddl::check_not_reserved(&name)?;
    if ddl::relation_name_taken(ddl.catalog(), schema_oid, &name) {
        if if_not_exists {
            ddl.notice(NoticeCode::DuplicateTable, format!("relation \"{name}\" already exists, skipping"));
            return Ok(Outcome::done("CREATE TABLE AS"));
        }
        return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    let types = session.parameter_types.clone();
    let (_, batches) = query::run(session, statement, node, params, &types)?;
    let names = tree::strings(&into.col_names);
    if names.len() > batches.columns.len() {
        return Err(SqlError::new(ErrorCode::SyntaxError, "too many column names were specified"));
    }
    let mut builder = Builder::new(&ddl, schema_oid, &schema_name, &name)?;
    for (i, (column, data_type)) in batches.columns.iter().zip(&batches.types).enumerate() {
        let data_type = match data_type.oid {
            705 => DataType::builtin(crate::types::oid::TEXT, -1).ok_or_else(tree::malformed)?,
            2249 | 2278 => {
                return Err(SqlError::new(
                    ErrorCode::InvalidTableDefinition,
                    format!("column \"{}\" has pseudo-type {}", column.name, data_type.sql_name()),
                ));
            }
            _ => data_type.clone(),
        };
        let attnum = builder.table.next_attnum;
        builder.push_column(Column {
            name: names.get(i).cloned().unwrap_or_else(|| column.name.clone()),
            attnum,
            data_type,
            not_null: false,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            comment: None,
        })?;
    }
    let oid = builder.table.oid;
    let rows = if into.skip_data { Vec::new() } else { batches.collect_rows()? };
    builder.finish()?;
    let count = rows.len();
    let skipped = into.skip_data;
    ddl.core.with_edit("CREATE TABLE AS", |edit| Ok(edit.replace_rows(oid, &mut rows.into_iter().map(Ok))?))?;
    Ok(Outcome::done(if skipped { "CREATE TABLE AS".to_owned() } else { format!("SELECT {count}") }))
}
