//! CREATE INDEX.

use pg_query::NodeEnum;
use pg_query::protobuf::{IndexElem, IndexStmt, SortByDir, SortByNulls};
use strandline_storage::TableSchema;
use strandline_storage::schema::{Index, IndexColumn, IndexKey};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::ddl::{self, Ddl, choose_name, joined_columns};
use crate::statement::{binding, tree};

const METHODS: &[&str] = &["btree", "hash", "gin", "gist", "brin", "spgist"];

/// Columns of an index; PostgreSQL's INDEX_MAX_KEYS.
const INDEX_COLUMNS_MAX: usize = 32;

pub fn create(ddl: &Ddl, create: &IndexStmt) -> Result<()> {
    if create.concurrent && ddl.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::ActiveTransaction, "CREATE INDEX CONCURRENTLY cannot run inside a transaction block"));
    }
    let (schema, name) = tree::range_name(tree::range(&create.relation)?);
    let table = ddl::find_table(&ddl.context, schema.as_deref(), &name)?;
    let method = if create.access_method.is_empty() { "btree" } else { &create.access_method };
    if !METHODS.contains(&method) {
        return Err(SqlError::new(ErrorCode::UndefinedObject, format!("access method \"{method}\" does not exist")));
    }
    if create.unique && method != "btree" {
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, format!("access method \"{method}\" does not support unique indexes")));
    }
    if !create.table_space.is_empty() && create.table_space != "pg_default" {
        return Err(SqlError::unsupported("a tablespace"));
    }
    ddl::create_table::check_storage_hints(&create.options)?;
    if create.index_params.len() > INDEX_COLUMNS_MAX {
        return Err(SqlError::new(
            ErrorCode::ProgramLimitExceeded,
            format!("cannot use more than {INDEX_COLUMNS_MAX} columns in an index"),
        ));
    }
    let mut columns = Vec::new();
    let mut names = Vec::new();
    for param in &create.index_params {
        let Some(NodeEnum::IndexElem(element)) = &param.node else { return Err(tree::malformed()) };
        let (column, name) = index_column(ddl, &table, element)?;
        columns.push(column);
        names.push(name);
    }
    let mut include = Vec::new();
    for param in &create.index_including_params {
        let Some(NodeEnum::IndexElem(element)) = &param.node else { return Err(tree::malformed()) };
        include.push(column_position(&table, &element.name)?);
        names.push(element.name.clone());
    }
    let predicate = match create.where_clause.as_deref() {
        Some(condition) => {
            binding::check_condition(&ddl.context, &ddl.source, condition, &table)?;
            Some(tree::expression_text(condition)?)
        }
        None => None,
    };
    let catalog = ddl.catalog().clone();
    let index_name = if create.idxname.is_empty() {
        let joined = joined_columns(&names.iter().map(String::as_str).collect::<Vec<_>>());
        choose_name(&table.name, &joined, "idx", |n| ddl::relation_name_taken(&catalog, table.schema_oid, n))
    } else {
        create.idxname.clone()
    };
    if ddl::relation_name_taken(&catalog, table.schema_oid, &index_name) {
        if create.if_not_exists {
            ddl.notice(NoticeCode::DuplicateTable, format!("relation \"{index_name}\" already exists, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{index_name}\" already exists")));
    }
    let index = Index {
        oid: ddl.oid()?,
        name: index_name,
        unique: create.unique,
        nulls_not_distinct: create.nulls_not_distinct,
        columns,
        include,
        predicate,
        method: method.into(),
        constraint: false,
        comment: None,
    };
    if index.unique && !index.is_stored() {
        return Err(SqlError::unsupported("a unique index on expressions or with a predicate"));
    }
    let mut changed = (*table).clone();
    changed.indexes.push(index);
    ddl.core.with_edit("CREATE INDEX", |edit| ddl::put_table(edit, changed).map_err(could_not_create))
}

/// A duplicate found while an index is built is worded differently from one found by a row.
pub fn could_not_create(mut error: SqlError) -> SqlError {
    if error.code == ErrorCode::UniqueViolation {
        error.message = format!("could not create unique index \"{}\"", error.constraint.as_deref().unwrap_or_default());
        error.detail = error.detail.map(|d| d.replace("already exists.", "is duplicated."));
    }
    error
}

fn column_position(table: &TableSchema, name: &str) -> Result<usize> {
    table.column_index(name).ok_or_else(|| SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{name}\" does not exist")))
}

fn index_column(ddl: &Ddl, table: &TableSchema, element: &IndexElem) -> Result<(IndexColumn, String)> {
    let descending = element.ordering() == SortByDir::SortbyDesc;
    let nulls_first = match element.nulls_ordering() {
        SortByNulls::SortbyNullsFirst => true,
        SortByNulls::SortbyNullsLast => false,
        _ => descending,
    };
    let (key, name) = match element.expr.as_deref() {
        None => (IndexKey::Column(column_position(table, &element.name)?), element.name.clone()),
        Some(expression) => {
            binding::check_expression(&ddl.context, &ddl.source, expression, table)?;
            let name = match &expression.node {
                Some(NodeEnum::FuncCall(call)) => tree::strings(&call.funcname).pop().unwrap_or_else(|| "expr".into()),
                _ => "expr".into(),
            };
            (IndexKey::Expression(tree::expression_text(expression)?), name)
        }
    };
    Ok((IndexColumn { key, descending, nulls_first }, name))
}
