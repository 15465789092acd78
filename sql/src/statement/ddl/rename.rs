//! ALTER ... RENAME.

use std::sync::Arc;

use pg_query::protobuf::{ObjectType, RenameStmt};
use strandline_storage::CatalogObject;

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::ddl::{self, Ddl, constraints, owner};
use crate::statement::tree;
use crate::system::identifier::quote_identifier;

pub fn rename(ddl: &Ddl, rename: &RenameStmt) -> Result<&'static str> {
    let kind = rename.rename_type();
    match kind {
        ObjectType::ObjectColumn | ObjectType::ObjectAttribute => column(ddl, rename),
        ObjectType::ObjectTabconstraint => constraint(ddl, rename),
        ObjectType::ObjectIndex => index(ddl, rename),
        ObjectType::ObjectTable
        | ObjectType::ObjectView
        | ObjectType::ObjectSequence
        | ObjectType::ObjectSchema
        | ObjectType::ObjectType
        | ObjectType::ObjectDomain => object(ddl, rename, kind),
        other => Err(SqlError::unsupported(format_args!("ALTER {} ... RENAME", ddl::object_word(other)))),
    }
}

/// A missing relation with IF EXISTS: a notice.
fn skip(ddl: &Ddl, rename: &RenameStmt, error: SqlError) -> Result<&'static str> {
    if rename.missing_ok && error.code == ErrorCode::UndefinedTable {
        ddl.notice(NoticeCode::Success, format!("{}, skipping", error.message));
        return Ok("ALTER TABLE");
    }
    Err(error)
}

/// What stored expressions call a renamed column is text: a default, check or generated column that names it would no longer bind.
fn column(ddl: &Ddl, rename: &RenameStmt) -> Result<&'static str> {
    let (schema, name) = tree::range_name(tree::range(&rename.relation)?);
    let table = match ddl::find_table(&ddl.context, schema.as_deref(), &name) {
        Ok(table) => table,
        Err(error) => return skip(ddl, rename, error),
    };
    let at = table
        .column_index(&rename.subname)
        .ok_or_else(|| SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{}\" does not exist", rename.subname)))?;
    if table.column_index(&rename.newname).is_some() {
        return Err(SqlError::new(
            ErrorCode::DuplicateColumn,
            format!("column \"{}\" of relation \"{}\" already exists", rename.newname, table.name),
        ));
    }
    let mut changed = (*table).clone();
    changed.columns[at].name = rename.newname.clone();
    let renamed = |text: &str| rename_in_expression(text, &rename.subname, &rename.newname);
    for column in &mut changed.columns {
        if let Some(generated) = &mut column.generated {
            *generated = renamed(generated)?;
        }
    }
    for constraint in &mut changed.constraints {
        if let strandline_storage::schema::ConstraintKind::Check { expression } = &mut constraint.kind {
            *expression = renamed(expression)?;
            constraint.definition = format!("CHECK (({expression}))");
        } else if constraint.columns.contains(&at) {
            let old = quote_identifier(&rename.subname);
            let new = quote_identifier(&rename.newname);
            constraint.definition = rename_in_key_list(&constraint.definition, &old, &new);
        }
    }
    for index in &mut changed.indexes {
        if let Some(predicate) = &mut index.predicate {
            *predicate = renamed(predicate)?;
        }
        for column in &mut index.columns {
            if let strandline_storage::schema::IndexKey::Expression(text) = &mut column.key {
                *text = renamed(text)?;
            }
        }
    }
    let attnum = table.columns[at].attnum;
    if let Some(view) = super::view::using_column(&ddl.context, table.oid, attnum).first() {
        return Err(SqlError::unsupported(format_args!("renaming column \"{}\", which view \"{}\" uses", rename.subname, view.name)));
    }
    ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed))?;
    Ok("ALTER TABLE")
}

/// Renames a column in a stored expression of its table, through the parse tree.
pub fn rename_in_expression(text: &str, old: &str, new: &str) -> Result<String> {
    let (_, mut node) = crate::parse::parse_expression(text)?;
    walk_column_refs(&mut node, &mut |fields| {
        if let [field] = fields
            && let Some(pg_query::NodeEnum::String(s)) = &mut field.node
            && s.sval == old
        {
            s.sval = new.to_owned();
        }
    });
    tree::expression_text(&node)
}

/// Says whether a stored expression of a table names one of its columns.
pub fn names_column(text: &str, column: &str) -> bool {
    let mut found = false;
    if let Ok((_, mut node)) = crate::parse::parse_expression(text) {
        walk_column_refs(&mut node, &mut |fields| found |= matches!(fields, [field] if tree::string(field) == Some(column)));
    }
    found
}

/// Calls back with the fields of every column reference that the expression has.
fn walk_column_refs(node: &mut pg_query::protobuf::Node, change: &mut dyn FnMut(&mut [pg_query::protobuf::Node])) {
    use pg_query::NodeEnum as N;
    let Some(inner) = &mut node.node else { return };
    let mut each = |nodes: &mut [pg_query::protobuf::Node]| nodes.iter_mut().for_each(|n| walk_column_refs(n, change));
    match inner {
        N::ColumnRef(reference) => change(&mut reference.fields),
        N::AExpr(e) => {
            e.lexpr.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
            e.rexpr.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
        }
        N::BoolExpr(e) => each(&mut e.args),
        N::FuncCall(e) => each(&mut e.args),
        N::TypeCast(e) => e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n))),
        N::NullTest(e) => e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n))),
        N::BooleanTest(e) => e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n))),
        N::CoalesceExpr(e) => each(&mut e.args),
        N::MinMaxExpr(e) => each(&mut e.args),
        N::AArrayExpr(e) => each(&mut e.elements),
        N::RowExpr(e) => each(&mut e.args),
        N::List(e) => each(&mut e.items),
        N::CollateClause(e) => e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n))),
        N::AIndirection(e) => {
            e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
            each(&mut e.indirection);
        }
        N::AIndices(e) => {
            e.lidx.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
            e.uidx.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
        }
        N::NamedArgExpr(e) => e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n))),
        N::CaseExpr(e) => {
            e.arg.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
            each(&mut e.args);
            e.defresult.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
        }
        N::CaseWhen(e) => {
            e.expr.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
            e.result.iter_mut().for_each(|n| each(std::slice::from_mut(n)));
        }
        _ => {}
    }
}

/// The first parenthesised list of a FOREIGN KEY's text holds the own columns.
fn rename_in_key_list(definition: &str, old: &str, new: &str) -> String {
    let (Some(open), Some(close)) = (definition.find('('), definition.find(')')) else { return definition.to_owned() };
    let list = definition[open + 1..close].split(", ").map(|c| if c == old { new } else { c }).collect::<Vec<_>>().join(", ");
    format!("{}({list}){}", &definition[..open], &definition[close + 1..])
}

fn constraint(ddl: &Ddl, rename: &RenameStmt) -> Result<&'static str> {
    let (schema, name) = tree::range_name(tree::range(&rename.relation)?);
    let table = match ddl::find_table(&ddl.context, schema.as_deref(), &name) {
        Ok(table) => table,
        Err(error) => return skip(ddl, rename, error),
    };
    if !constraints::constraint_exists(&table, &rename.subname) {
        return Err(SqlError::new(
            ErrorCode::UndefinedObject,
            format!("constraint \"{}\" for table \"{}\" does not exist", rename.subname, table.name),
        ));
    }
    if constraints::constraint_exists(&table, &rename.newname) {
        return Err(SqlError::new(
            ErrorCode::DuplicateObject,
            format!("constraint \"{}\" for relation \"{}\" already exists", rename.newname, table.name),
        ));
    }
    let mut changed = (*table).clone();
    for constraint in changed.constraints.iter_mut().filter(|c| c.name == rename.subname) {
        constraint.name = rename.newname.clone();
    }
    for index in changed.primary_key.iter_mut().chain(&mut changed.indexes).filter(|i| i.name == rename.subname) {
        index.name = rename.newname.clone();
    }
    ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed))?;
    Ok("ALTER TABLE")
}

fn index(ddl: &Ddl, rename: &RenameStmt) -> Result<&'static str> {
    let (schema, name) = tree::range_name(tree::range(&rename.relation)?);
    let catalog = ddl.catalog();
    let schemas: Vec<_> = match &schema {
        Some(schema) => catalog.schema(schema).map(|s| s.oid).into_iter().collect(),
        None => ddl.context.search_path.iter().filter_map(|s| catalog.schema(s)).map(|s| s.oid).collect(),
    };
    let Some((table, _)) = schemas.into_iter().find_map(|s| ddl::find_index(catalog, s, &name)) else {
        return skip(ddl, rename, ddl::no_relation(schema.as_deref(), &name)).map(|_| "ALTER INDEX");
    };
    ddl::check_relation_name(catalog, table.schema_oid, &rename.newname)?;
    let mut changed = (*table).clone();
    for index in changed.primary_key.iter_mut().chain(&mut changed.indexes).filter(|i| i.name == name) {
        index.name = rename.newname.clone();
    }
    ddl.core.with_edit("ALTER INDEX", |edit| ddl::put_table(edit, changed))?;
    Ok("ALTER INDEX")
}

fn object(ddl: &Ddl, rename: &RenameStmt, kind: ObjectType) -> Result<&'static str> {
    let tag = owner::alter_tag(kind);
    let found = if kind == ObjectType::ObjectSchema {
        let schema = ddl.catalog().schema(&rename.subname).map(|s| s.oid).and_then(|oid| ddl.catalog().get(oid)).cloned();
        schema.ok_or_else(|| SqlError::new(ErrorCode::InvalidSchemaName, format!("schema \"{}\" does not exist", rename.subname)))
    } else {
        owner::find(ddl, kind, rename.object.as_deref(), rename.relation.as_ref())
    };
    let object = match found {
        Ok(object) => object,
        Err(error) => return skip(ddl, rename, error).map(|_| tag),
    };
    let new = rename.newname.clone();
    let mut changed = (*object).clone();
    // Relations with the names that views know and those they get.
    let mut moved = Vec::new();
    match &mut changed {
        CatalogObject::Schema(o) => {
            if ddl.catalog().schema(&new).is_some() {
                return Err(SqlError::new(ErrorCode::DuplicateSchema, format!("schema \"{new}\" already exists")));
            }
            o.name.clone_from(&new);
            let old = &rename.subname;
            let inside: Vec<&CatalogObject> =
                ddl.catalog().objects.values().map(|i| &**i).filter(|i| i.schema_oid() == Some(object.oid())).collect();
            for name in inside.iter().filter(|i| matches!(i, CatalogObject::Sequence(_))).map(|i| i.name()) {
                rename_in_defaults(ddl, (old, name), (&new, name))?;
            }
            moved = inside.iter().map(|i| ((old.as_str(), i.name()), (rename.newname.as_str(), i.name()))).collect();
        }
        CatalogObject::Type(o) => {
            if ddl::types::type_name_taken(ddl.catalog(), o.schema_oid, &new) {
                return Err(SqlError::new(ErrorCode::DuplicateObject, format!("type \"{new}\" already exists")));
            }
            o.name = new;
        }
        relation => {
            ddl::check_relation_name(ddl.catalog(), relation.schema_oid().unwrap_or_default(), &new)?;
            let schema = object.schema_oid().and_then(|s| ddl.catalog().schema_name(s)).unwrap_or_default();
            moved = vec![((schema, object.name()), (schema, rename.newname.as_str()))];
            match relation {
                CatalogObject::Table(o) => Arc::make_mut(o).name = new,
                CatalogObject::Sequence(o) => {
                    let (schema, old) = (ddl.catalog().schema_name(o.schema_oid).unwrap_or_default().to_owned(), o.name.clone());
                    o.name = new.clone();
                    rename_in_defaults(ddl, (&schema, &old), (&schema, &new))?;
                }
                CatalogObject::View(o) => o.name = new,
                _ => {}
            }
        }
    }
    owner::put(ddl, changed)?;
    super::view::follow(ddl, &moved)?;
    Ok(tag)
}

/// Defaults that call nextval on a sequence follow it to another name or schema.
pub(super) fn rename_in_defaults(ddl: &Ddl, old: (&str, &str), new: (&str, &str)) -> Result<()> {
    let old_text = ddl::columns::nextval_text(old.0, old.1);
    let new_text = ddl::columns::nextval_text(new.0, new.1);
    // Several sequences may be renamed one after the other: what the edit has by now counts.
    let catalog = ddl.core.statement_context(Vec::new())?.root.catalog().clone();
    for table in catalog.tables() {
        if table.columns.iter().any(|c| c.default.as_deref() == Some(old_text.as_str())) {
            let mut changed = (**table).clone();
            for column in &mut changed.columns {
                if column.default.as_deref() == Some(old_text.as_str()) {
                    column.default = Some(new_text.clone());
                }
            }
            ddl.core.with_edit("ALTER SEQUENCE", |edit| ddl::put_table(edit, changed))?;
        }
    }
    Ok(())
}
