//! Constraints: primary keys, UNIQUE, CHECK, FOREIGN KEY.

use pg_query::protobuf::{ConstrType, Constraint, Node};
use strandline_storage::schema::{self, ConstraintKind, Index, IndexColumn, IndexKey};
use strandline_storage::{Catalog, TableSchema};

use crate::error::{ErrorCode, Result, SqlError};
use crate::statement::ddl::{self, Ddl, choose_name, joined_columns};
use crate::statement::{binding, tree};
use crate::system::identifier::quote_identifier;

/// Adds a constraint to a table's schema. `column`: it was written at this column. `own_name`: how a foreign key to
/// the table itself finds it, which need not be in the catalog yet.
pub fn add(ddl: &Ddl, catalog: &Catalog, table: &mut TableSchema, constraint: &Constraint, column: Option<&str>) -> Result<()> {
    if constraint.deferrable || constraint.initdeferred {
        return Err(SqlError::unsupported("a deferrable constraint"));
    }
    match constraint.contype() {
        ConstrType::ConstrPrimary => primary_key(ddl, catalog, table, constraint, column),
        ConstrType::ConstrUnique => unique(ddl, catalog, table, constraint, column),
        ConstrType::ConstrCheck => check(ddl, table, constraint, column),
        ConstrType::ConstrForeign => foreign_key(ddl, catalog, table, constraint, column),
        ConstrType::ConstrExclusion => Err(SqlError::unsupported("an exclusion constraint")),
        ConstrType::ConstrNotnull => {
            let names = key_names(&constraint.keys, column);
            for position in positions(table, &names)? {
                table.columns[position].not_null = true;
            }
            Ok(())
        }
        ConstrType::ConstrAttrDeferrable | ConstrType::ConstrAttrDeferred => Err(SqlError::unsupported("a deferrable constraint")),
        other => Err(SqlError::unsupported(format_args!("constraint {other:?}"))),
    }
}

fn key_names(keys: &[Node], column: Option<&str>) -> Vec<String> {
    match column {
        Some(column) if keys.is_empty() => vec![column.to_owned()],
        _ => tree::strings(keys),
    }
}

fn positions(table: &TableSchema, names: &[String]) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for name in names {
        let at = table
            .column_index(name)
            .ok_or_else(|| SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{name}\" named in key does not exist")))?;
        if found.contains(&at) {
            return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column \"{name}\" appears twice in constraint")));
        }
        found.push(at);
    }
    Ok(found)
}

/// Some index or constraint of the table, or another relation, has this name.
fn name_taken(catalog: &Catalog, table: &TableSchema, name: &str) -> bool {
    ddl::relation_name_taken(catalog, table.schema_oid, name)
        || table.name == name
        || table.primary_key.iter().chain(&table.indexes).any(|i| i.name == name)
        || table.constraints.iter().any(|c| c.name == name)
}

/// Whether a constraint or index of the table has this name.
pub fn constraint_exists(table: &TableSchema, name: &str) -> bool {
    table.constraints.iter().any(|c| c.name == name)
        || table.primary_key.as_ref().is_some_and(|k| k.name == name)
        || table.indexes.iter().any(|i| i.constraint && i.name == name)
}

fn given_name(catalog: &Catalog, table: &TableSchema, constraint: &Constraint, is_index: bool) -> Result<Option<String>> {
    let name = &constraint.conname;
    if name.is_empty() {
        return Ok(None);
    }
    if constraint_exists(table, name) {
        return Err(SqlError::new(
            ErrorCode::DuplicateObject,
            format!("constraint \"{name}\" for relation \"{}\" already exists", table.name),
        ));
    }
    if is_index && name_taken(catalog, table, name) {
        return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    Ok(Some(name.clone()))
}

fn index_of(ddl: &Ddl, name: String, columns: &[usize], constraint: &Constraint, table: &TableSchema) -> Result<Index> {
    if !constraint.indexname.is_empty() {
        return Err(SqlError::unsupported("a constraint USING INDEX"));
    }
    Ok(Index {
        oid: ddl.oid()?,
        name,
        unique: true,
        nulls_not_distinct: constraint.nulls_not_distinct,
        columns: columns.iter().map(|c| IndexColumn { key: IndexKey::Column(*c), descending: false, nulls_first: false }).collect(),
        include: positions(table, &tree::strings(&constraint.including))?,
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    })
}

fn primary_key(ddl: &Ddl, catalog: &Catalog, table: &mut TableSchema, constraint: &Constraint, column: Option<&str>) -> Result<()> {
    if table.primary_key.is_some() {
        return Err(SqlError::new(
            ErrorCode::InvalidTableDefinition,
            format!("multiple primary keys for table \"{}\" are not allowed", table.name),
        ));
    }
    let columns = positions(table, &key_names(&constraint.keys, column))?;
    let name = match given_name(catalog, table, constraint, true)? {
        Some(name) => name,
        None => choose_name(&table.name, "", "pkey", |n| name_taken(catalog, table, n)),
    };
    for column in &columns {
        table.columns[*column].not_null = true;
    }
    table.primary_key = Some(index_of(ddl, name, &columns, constraint, table)?);
    Ok(())
}

fn unique(ddl: &Ddl, catalog: &Catalog, table: &mut TableSchema, constraint: &Constraint, column: Option<&str>) -> Result<()> {
    let names = key_names(&constraint.keys, column);
    let columns = positions(table, &names)?;
    let name = match given_name(catalog, table, constraint, true)? {
        Some(name) => name,
        None => {
            let joined = joined_columns(&names.iter().map(String::as_str).collect::<Vec<_>>());
            choose_name(&table.name, &joined, "key", |n| name_taken(catalog, table, n))
        }
    };
    let index = index_of(ddl, name, &columns, constraint, table)?;
    table.indexes.push(index);
    Ok(())
}

fn check(ddl: &Ddl, table: &mut TableSchema, constraint: &Constraint, column: Option<&str>) -> Result<()> {
    let expression = constraint.raw_expr.as_deref().ok_or_else(tree::malformed)?;
    let used = binding::check_condition(&ddl.context, &ddl.source, expression, table)?;
    let text = tree::expression_text(expression)?;
    let name = if constraint.conname.is_empty() {
        // A check of one column is named after it, wherever it was written.
        let after = match (column, used.as_slice()) {
            (Some(column), _) => column.to_owned(),
            (None, [one]) => table.columns[*one].name.clone(),
            _ => String::new(),
        };
        choose_name(&table.name, &after, "check", |n| table.constraints.iter().any(|c| c.name == n))
    } else {
        if constraint_exists(table, &constraint.conname) {
            return Err(SqlError::new(ErrorCode::DuplicateObject, format!("check constraint \"{}\" already exists", constraint.conname)));
        }
        constraint.conname.clone()
    };
    table.constraints.push(schema::Constraint {
        oid: ddl.oid()?,
        name,
        definition: format!("CHECK (({text}))"),
        kind: ConstraintKind::Check { expression: text },
        columns: used,
    });
    Ok(())
}

fn foreign_key(ddl: &Ddl, catalog: &Catalog, table: &mut TableSchema, constraint: &Constraint, column: Option<&str>) -> Result<()> {
    let range = tree::range(&constraint.pktable)?;
    let (schema, name) = tree::range_name(range);
    let names = key_names(&constraint.fk_attrs, column);
    let columns: Vec<usize> = names
        .iter()
        .map(|name| {
            table.column_index(name).ok_or_else(|| {
                SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{name}\" referenced in foreign key constraint does not exist"))
            })
        })
        .collect::<Result<_>>()?;
    let own_schema = catalog.schema_name(table.schema_oid).unwrap_or_default();
    let is_self = name == table.name && schema.as_deref().is_none_or(|s| s == own_schema);
    let target = if is_self { std::sync::Arc::new(table.clone()) } else { find_in(ddl, catalog, schema.as_deref(), &name)? };
    let target_columns: Vec<usize> = if constraint.pk_attrs.is_empty() {
        let key = target.key_columns();
        if key.is_empty() {
            return Err(SqlError::new(
                ErrorCode::UndefinedObject,
                format!("there is no primary key for referenced table \"{}\"", target.name),
            ));
        }
        key
    } else {
        tree::strings(&constraint.pk_attrs)
            .iter()
            .map(|name| {
                target.column_index(name).ok_or_else(|| {
                    SqlError::new(
                        ErrorCode::UndefinedColumn,
                        format!("column \"{name}\" referenced in foreign key constraint does not exist"),
                    )
                })
            })
            .collect::<Result<_>>()?
    };
    if target_columns.len() != columns.len() {
        return Err(SqlError::new(ErrorCode::InvalidForeignKey, "number of referencing and referenced columns for foreign key disagree"));
    }
    if !has_unique_key(&target, &target_columns) {
        return Err(SqlError::new(
            ErrorCode::InvalidForeignKey,
            format!("there is no unique constraint matching given keys for referenced table \"{}\"", target.name),
        ));
    }
    if constraint.fk_matchtype == "f" || constraint.fk_matchtype == "p" {
        return Err(SqlError::unsupported("MATCH FULL"));
    }
    let name = match given_name(catalog, table, constraint, false)? {
        Some(name) => name,
        None => {
            let joined = joined_columns(&names.iter().map(String::as_str).collect::<Vec<_>>());
            choose_name(&table.name, &joined, "fkey", |n| constraint_exists(table, n))
        }
    };
    for (mine, theirs) in columns.iter().zip(&target_columns) {
        let (a, b) = (&table.columns[*mine].data_type, &target.columns[*theirs].data_type);
        if a.kind != b.kind && !(is_integer(a.oid) && is_integer(b.oid)) && !(is_text(a.oid) && is_text(b.oid)) {
            return Err(SqlError::new(ErrorCode::DatatypeMismatch, format!("foreign key constraint \"{name}\" cannot be implemented"))
                .detail(format!(
                    "Key columns \"{}\" and \"{}\" are of incompatible types: {} and {}.",
                    table.columns[*mine].name,
                    target.columns[*theirs].name,
                    a.sql_name(),
                    b.sql_name()
                )));
        }
    }
    let list =
        |columns: &[usize], of: &TableSchema| columns.iter().map(|c| quote_identifier(&of.columns[*c].name)).collect::<Vec<_>>().join(", ");
    let target_name = match catalog.schema_name(target.schema_oid) {
        Some(schema) if !ddl.context.search_path.iter().any(|s| s == schema) => {
            format!("{}.{}", quote_identifier(schema), quote_identifier(&target.name))
        }
        _ => quote_identifier(&target.name).into_owned(),
    };
    let definition = format!(
        "FOREIGN KEY ({}) REFERENCES {target_name}({}){}{}",
        list(&columns, table),
        list(&target_columns, &target),
        action_text("UPDATE", &constraint.fk_upd_action)?,
        action_text("DELETE", &constraint.fk_del_action)?,
    );
    table.constraints.push(schema::Constraint {
        oid: ddl.oid()?,
        name,
        definition,
        kind: ConstraintKind::ForeignKey { table: target.oid, columns: target_columns },
        columns,
    });
    Ok(())
}

fn find_in(ddl: &Ddl, catalog: &Catalog, schema: Option<&str>, name: &str) -> Result<std::sync::Arc<TableSchema>> {
    let found = match schema {
        Some(schema) => catalog.table_by_name(schema, name),
        None => ddl.context.search_path.iter().find_map(|s| catalog.table_by_name(s, name)),
    };
    found.cloned().ok_or_else(|| ddl::no_relation(schema, name))
}

fn is_integer(oid: u32) -> bool {
    matches!(oid, 20 | 21 | 23)
}

fn is_text(oid: u32) -> bool {
    matches!(oid, 19 | 25 | 1042 | 1043)
}

fn has_unique_key(table: &TableSchema, columns: &[usize]) -> bool {
    table.primary_key.iter().chain(table.indexes.iter().filter(|i| i.unique && i.is_stored())).any(|index| {
        let mut key: Vec<usize> = index
            .columns
            .iter()
            .filter_map(|c| match c.key {
                IndexKey::Column(at) => Some(at),
                IndexKey::Expression(_) => None,
            })
            .collect();
        let mut wanted = columns.to_vec();
        key.sort_unstable();
        wanted.sort_unstable();
        key == wanted
    })
}

fn action_text(event: &str, action: &str) -> Result<String> {
    Ok(match action {
        "" | "a" => String::new(),
        "r" => format!(" ON {event} RESTRICT"),
        "c" => format!(" ON {event} CASCADE"),
        "n" => format!(" ON {event} SET NULL"),
        "d" => format!(" ON {event} SET DEFAULT"),
        other => return Err(SqlError::unsupported(format_args!("referential action \"{other}\""))),
    })
}
