//! DROP of tables, views, sequences, indexes, schemas, types; RESTRICT and CASCADE over what depends on them.

use std::collections::BTreeSet;
use std::sync::Arc;

use pg_query::protobuf::{DropBehavior, DropStmt, ObjectType};
use strandline_storage::schema::{Column, Constraint, ConstraintKind};
use strandline_storage::{Catalog, CatalogObject, Edit, Oid, TableSchema};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::{Notice, NoticeCode};
use crate::statement::ddl::{self, Ddl, alter_table, rename};
use crate::statement::tree;

/// The command's tag.
pub fn tag(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectTable => "DROP TABLE",
        ObjectType::ObjectView => "DROP VIEW",
        ObjectType::ObjectSequence => "DROP SEQUENCE",
        ObjectType::ObjectIndex => "DROP INDEX",
        ObjectType::ObjectSchema => "DROP SCHEMA",
        ObjectType::ObjectType => "DROP TYPE",
        ObjectType::ObjectDomain => "DROP DOMAIN",
        _ => "DROP",
    }
}

/// One thing to drop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Object(Oid),
    /// An index of a table by name.
    Index(Oid, String),
    /// A foreign key of another table that refers to something dropped.
    Constraint(Oid, String),
    /// A column's default that uses a dropped sequence.
    Default(Oid, i16),
    /// A column of a table, by number.
    Column(Oid, i16),
}

pub fn drop(ddl: &Ddl, drop: &DropStmt) -> Result<&'static str> {
    let kind = drop.remove_type();
    if !matches!(
        kind,
        ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectSequence
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSchema
            | ObjectType::ObjectType
            | ObjectType::ObjectDomain
    ) {
        return drop_of_what_never_exists(ddl, drop);
    }
    let mut targets = Vec::new();
    for object in &drop.objects {
        let (schema, name) = tree::object_name(object)?;
        match find(ddl, kind, schema.as_deref(), &name)? {
            Some(target) => targets.push(target),
            None if drop.missing_ok => {
                let word = word(kind);
                ddl.notice(NoticeCode::Success, format!("{word} \"{name}\" does not exist, skipping"));
            }
            None => {
                let shown = match &schema {
                    Some(schema) if kind != ObjectType::ObjectSchema => format!("{schema}.{name}"),
                    _ => name.clone(),
                };
                let (code, quoted) = match kind {
                    ObjectType::ObjectSchema => (ErrorCode::InvalidSchemaName, format!("\"{shown}\"")),
                    ObjectType::ObjectType | ObjectType::ObjectDomain | ObjectType::ObjectIndex => {
                        (ErrorCode::UndefinedObject, format!("\"{shown}\""))
                    }
                    _ => (ErrorCode::UndefinedTable, format!("\"{shown}\"")),
                };
                return Err(SqlError::new(code, format!("{} {quoted} does not exist", word(kind))));
            }
        }
    }
    drop_all(ddl, tag(kind), targets, drop.behavior() == DropBehavior::DropCascade)?;
    Ok(tag(kind))
}

/// Kinds of objects that cannot be made here: with IF EXISTS there is nothing to drop, without it they do not exist.
fn drop_of_what_never_exists(ddl: &Ddl, drop: &DropStmt) -> Result<&'static str> {
    let word = ddl::object_word(drop.remove_type());
    if !drop.missing_ok || word == "OBJECT" {
        return Err(SqlError::unsupported(format_args!("DROP {word}")));
    }
    for object in &drop.objects {
        let name = tree::object_name(object).map(|(_, name)| name).unwrap_or_default();
        ddl.notice(NoticeCode::Success, format!("{} \"{name}\" does not exist, skipping", word.to_lowercase()));
    }
    Ok("DROP")
}

fn word(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectTable => "table",
        ObjectType::ObjectView => "view",
        ObjectType::ObjectSequence => "sequence",
        ObjectType::ObjectIndex => "index",
        ObjectType::ObjectSchema => "schema",
        _ => "type",
    }
}

fn find(ddl: &Ddl, kind: ObjectType, schema: Option<&str>, name: &str) -> Result<Option<Target>> {
    let catalog = ddl.catalog();
    match kind {
        ObjectType::ObjectSchema => Ok(catalog.schema(name).map(|s| Target::Object(s.oid))),
        ObjectType::ObjectType | ObjectType::ObjectDomain => Ok(ddl::user_type(&ddl.context, schema, name).map(|t| Target::Object(t.oid))),
        ObjectType::ObjectIndex => {
            let schemas: Vec<Oid> = match schema {
                Some(schema) => catalog.schema(schema).map(|s| s.oid).into_iter().collect(),
                None => ddl.context.search_path.iter().filter_map(|s| catalog.schema(s)).map(|s| s.oid).collect(),
            };
            let Some((table, at)) = schemas.into_iter().find_map(|s| ddl::find_index(catalog, s, name)) else {
                return Ok(None);
            };
            let owns = match at {
                None => true,
                Some(at) => table.indexes[at].constraint,
            };
            if owns {
                return Err(SqlError::new(
                    ErrorCode::DependentObjectsStillExist,
                    format!("cannot drop index {name} because constraint {name} on table {} requires it", table.name),
                )
                .hint(format!("You can drop constraint {name} on table {} instead.", table.name)));
            }
            Ok(Some(Target::Index(table.oid, name.to_owned())))
        }
        _ => {
            let Some(object) = ddl::relation(&ddl.context, schema, name) else { return Ok(None) };
            let matches = match kind {
                ObjectType::ObjectTable => matches!(**object, CatalogObject::Table(_)),
                ObjectType::ObjectView => matches!(**object, CatalogObject::View(_)),
                _ => matches!(**object, CatalogObject::Sequence(_)),
            };
            if !matches {
                return Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{name}\" is not a {}", word(kind))).hint(format!(
                    "Use DROP {} to remove a {}.",
                    ddl::kind_word(object).to_uppercase(),
                    ddl::kind_word(object)
                )));
            }
            Ok(Some(Target::Object(object.oid())))
        }
    }
}

/// ALTER TABLE ... DROP COLUMN.
pub fn drop_column(ddl: &Ddl, table: Oid, attnum: i16, cascade: bool) -> Result<()> {
    drop_all(ddl, "ALTER TABLE", vec![Target::Column(table, attnum)], cascade)
}

/// Drops the targets and, with `cascade`, what depends on them.
fn drop_all(ddl: &Ddl, tag: &str, targets: Vec<Target>, cascade: bool) -> Result<()> {
    let catalog = ddl.catalog().clone();
    let asked: BTreeSet<Target> = targets.iter().cloned().collect();
    let mut all: BTreeSet<Target> = BTreeSet::new();
    // In PostgreSQL's order: what depends on a thing comes right behind it.
    let mut stack: Vec<(Target, Option<Target>)> = targets.into_iter().rev().map(|target| (target, None)).collect();
    let mut dependents = Vec::new();
    while let Some((target, cause)) = stack.pop() {
        if !all.insert(target.clone()) {
            continue;
        }
        if let Some(cause) = cause {
            dependents.push((target.clone(), cause));
        }
        for (dependent, automatic) in dependents_of(&ddl.context, &target).into_iter().rev() {
            if !asked.contains(&dependent) {
                stack.push((dependent, (!automatic).then(|| target.clone())));
            }
        }
    }
    // What goes anyway with something else that is dropped is no reason to refuse.
    dependents.retain(|(d, _)| !owner_goes(&catalog, d, &asked));
    if !dependents.is_empty() {
        if !cascade {
            let lines: Vec<String> =
                dependents.iter().map(|(d, on)| format!("{} depends on {}", describe(&catalog, d), describe(&catalog, on))).collect();
            let what = asked.iter().next().map(|t| describe(&catalog, t)).unwrap_or_default();
            return Err(SqlError::new(
                ErrorCode::DependentObjectsStillExist,
                format!("cannot drop {what} because other objects depend on it"),
            )
            .detail(lines.join("\n"))
            .hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        notice_cascade(ddl, &dependents.iter().map(|(d, _)| describe(&catalog, d)).collect::<Vec<_>>());
    }
    ddl.core.with_edit(tag, |edit| carry_out(edit, &all))
}

/// Says what else goes.
pub fn notice_cascade(ddl: &Ddl, described: &[String]) {
    let message = match described {
        [one] => format!("drop cascades to {one}"),
        many => format!("drop cascades to {} other objects", many.len()),
    };
    let mut notice = Notice::new(NoticeCode::Success, message);
    if described.len() > 1 {
        notice.detail = Some(described.iter().map(|d| format!("drop cascades to {d}")).collect::<Vec<_>>().join("\n"));
    }
    ddl.core.notice(notice);
}

fn owner_goes(catalog: &Catalog, target: &Target, asked: &BTreeSet<Target>) -> bool {
    match target {
        Target::Constraint(table, _) | Target::Default(table, _) | Target::Column(table, _) | Target::Index(table, _) => {
            asked.contains(&Target::Object(*table))
        }
        Target::Object(oid) => match catalog.get(*oid).map(|o| &**o) {
            Some(CatalogObject::Sequence(s)) => s.owned_by.is_some_and(|(table, _)| asked.contains(&Target::Object(table))),
            _ => false,
        },
    }
}

/// What depends on a target; automatic dependents (an owned sequence) go without being asked for.
fn dependents_of(context: &Arc<StatementContext>, target: &Target) -> Vec<(Target, bool)> {
    let catalog = context.root.catalog();
    let mut found = Vec::new();
    if let Target::Column(table, attnum) = target {
        return column_dependents(context, *table, *attnum);
    }
    let Target::Object(oid) = target else { return found };
    let Some(object) = catalog.get(*oid) else { return found };
    match &**object {
        CatalogObject::Schema(schema) => {
            found.extend(catalog.objects.values().filter(|o| o.schema_oid() == Some(schema.oid)).map(|o| (Target::Object(o.oid()), false)));
        }
        CatalogObject::Table(table) => {
            for other in catalog.objects.values() {
                match &**other {
                    CatalogObject::Sequence(s) if s.owned_by.is_some_and(|(t, _)| t == table.oid) => {
                        found.push((Target::Object(s.oid), true));
                    }
                    CatalogObject::Table(t) if t.oid != table.oid => {
                        for constraint in &t.constraints {
                            if matches!(&constraint.kind, ConstraintKind::ForeignKey { table: target, .. } if *target == table.oid) {
                                found.push((Target::Constraint(t.oid, constraint.name.clone()), false));
                            }
                        }
                    }
                    _ => {}
                }
            }
            found.extend(views_on(catalog, object));
        }
        CatalogObject::View(_) => found.extend(views_on(catalog, object)),
        CatalogObject::Sequence(sequence) => {
            let schema = catalog.schema_name(sequence.schema_oid).unwrap_or_default();
            for table in catalog.tables() {
                for column in &table.columns {
                    if column.default.as_deref().is_some_and(|d| default_uses(d, schema, &sequence.name)) {
                        found.push((Target::Default(table.oid, column.attnum), false));
                    }
                }
            }
        }
        CatalogObject::Type(dropped) => {
            for table in catalog.tables() {
                let uses = |d: &strandline_storage::DataType| {
                    d.oid == dropped.oid || d.oid == dropped.array_oid || d.element.as_ref().is_some_and(|e| e.oid == dropped.oid)
                };
                found.extend(table.columns.iter().filter(|c| uses(&c.data_type)).map(|c| (Target::Column(table.oid, c.attnum), false)));
            }
        }
    }
    found
}

/// Columns generated from a column, foreign keys of other tables to it, views that use it. Its own indexes, checks and keys go with it.
fn column_dependents(context: &Arc<StatementContext>, oid: Oid, attnum: i16) -> Vec<(Target, bool)> {
    let catalog = context.root.catalog();
    let Some(table) = catalog.table(oid) else { return Vec::new() };
    let Some(at) = table.columns.iter().position(|c| c.attnum == attnum) else { return Vec::new() };
    let generated = generated_from(table, &table.columns[at].name).map(|c| (Target::Column(oid, c.attnum), false));
    let referring = catalog.tables().flat_map(|other| {
        let refers = |c: &&Constraint| {
            matches!(&c.kind, ConstraintKind::ForeignKey { table, columns } if *table == oid && columns.contains(&at))
                && (other.oid != oid || !c.columns.contains(&at))
        };
        other.constraints.iter().filter(refers).map(|c| (Target::Constraint(other.oid, c.name.clone()), false))
    });
    let views = super::view::using_column(context, oid, attnum).into_iter().map(|view| (Target::Object(view.oid), false));
    generated.chain(referring).chain(views).collect()
}

/// The columns that are generated from a column.
pub fn generated_from<'a>(table: &'a TableSchema, column: &'a str) -> impl Iterator<Item = &'a Column> {
    table.columns.iter().filter(move |c| c.generated.as_deref().is_some_and(|g| rename::names_column(g, column)))
}

/// Says whether a default calls nextval on the sequence.
fn default_uses(default: &str, schema: &str, sequence: &str) -> bool {
    let Some(start) = default.find("nextval('") else { return false };
    let rest = &default[start + 9..];
    let name = rest.split("'::").next().unwrap_or_default().split("')").next().unwrap_or_default().replace('"', "");
    name == sequence || name == format!("{schema}.{sequence}")
}

/// Views whose text names the relation.
fn views_on(catalog: &Catalog, object: &Arc<CatalogObject>) -> Vec<(Target, bool)> {
    let schema = object.schema_oid().and_then(|s| catalog.schema_name(s)).unwrap_or_default();
    catalog
        .objects
        .values()
        .filter_map(|o| match &**o {
            CatalogObject::View(view) if view.oid != object.oid() => {
                let relations = super::view::relations_of(&view.query);
                let own_schema = catalog.schema_name(view.schema_oid).unwrap_or_default();
                relations
                    .iter()
                    .any(|(s, n)| n == object.name() && s.as_deref().unwrap_or(own_schema) == schema)
                    .then_some((Target::Object(view.oid), false))
            }
            _ => None,
        })
        .collect()
}

fn describe(catalog: &Catalog, target: &Target) -> String {
    let table_name = |oid: &Oid| catalog.table(*oid).map_or("?", |t| t.name.as_str()).to_owned();
    let column_name = |oid: &Oid, attnum: i16| {
        catalog.table(*oid).and_then(|t| t.columns.iter().find(|c| c.attnum == attnum)).map_or("?", |c| &c.name).to_owned()
    };
    match target {
        Target::Object(oid) => match catalog.get(*oid) {
            Some(object) => format!("{} {}", ddl::kind_word(object), object.name()),
            None => format!("object {oid}"),
        },
        Target::Index(_, name) => format!("index {name}"),
        Target::Constraint(table, name) => format!("constraint {name} on table {}", table_name(table)),
        Target::Default(table, attnum) => {
            format!("default value for column {} of table {}", column_name(table, *attnum), table_name(table))
        }
        Target::Column(table, attnum) => format!("column {} of table {}", column_name(table, *attnum), table_name(table)),
    }
}

fn carry_out(edit: &mut Edit, all: &BTreeSet<Target>) -> Result<()> {
    let gone = |oid: &Oid| all.contains(&Target::Object(*oid));
    for target in all {
        let table: Option<TableSchema> = match target {
            Target::Index(oid, _) | Target::Constraint(oid, _) | Target::Default(oid, _) if !gone(oid) => {
                edit.table_schema(*oid).map(|t| (**t).clone())
            }
            _ => None,
        };
        match (target, table) {
            (Target::Object(_) | Target::Column(..), _) | (_, None) => {}
            (Target::Index(_, name), Some(mut table)) => {
                table.indexes.retain(|i| i.name != *name);
                edit.put_table(table)?;
            }
            (Target::Constraint(_, name), Some(mut table)) => {
                table.constraints.retain(|c| c.name != *name);
                edit.put_table(table)?;
            }
            (Target::Default(_, attnum), Some(mut table)) => {
                for column in &mut table.columns {
                    if column.attnum == *attnum {
                        column.default = None;
                    }
                }
                edit.put_table(table)?;
            }
        }
    }
    for target in all {
        if let Target::Column(table, attnum) = target
            && !gone(table)
        {
            alter_table::remove_column(edit, *table, *attnum)?;
        }
    }
    // Schemas last: their objects are in the set, too.
    let catalog = edit.root().catalog().clone();
    let is_schema = |oid: &Oid| matches!(catalog.get(*oid).map(|o| &**o), Some(CatalogObject::Schema(_)));
    for schemas in [false, true] {
        for target in all {
            if let Target::Object(oid) = target
                && is_schema(oid) == schemas
            {
                edit.drop_object(*oid)?;
            }
        }
    }
    Ok(())
}
