//! ALTER ... OWNER TO and ALTER ... SET SCHEMA.

use std::sync::Arc;

use pg_query::protobuf::{AlterObjectSchemaStmt, AlterOwnerStmt, ObjectType, RoleSpec};
use strandline_storage::{CatalogObject, Oid};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::ddl::{self, Ddl, rename, view};
use crate::statement::tree;

/// The object with another owner.
fn with_owner(object: &CatalogObject, owner: &str) -> CatalogObject {
    let mut object = object.clone();
    match &mut object {
        CatalogObject::Schema(o) => o.owner = owner.into(),
        CatalogObject::Table(o) => Arc::make_mut(o).owner = owner.into(),
        CatalogObject::Sequence(o) => o.owner = owner.into(),
        CatalogObject::Type(o) => o.owner = owner.into(),
        CatalogObject::View(o) => o.owner = owner.into(),
    }
    object
}

/// The object in another schema, or under another name.
pub fn with_schema(object: &CatalogObject, schema: Oid) -> CatalogObject {
    let mut object = object.clone();
    match &mut object {
        CatalogObject::Schema(_) => {}
        CatalogObject::Table(o) => Arc::make_mut(o).schema_oid = schema,
        CatalogObject::Sequence(o) => o.schema_oid = schema,
        CatalogObject::Type(o) => o.schema_oid = schema,
        CatalogObject::View(o) => o.schema_oid = schema,
    }
    object
}

/// Puts a changed object into the edit.
pub fn put(ddl: &Ddl, object: CatalogObject) -> Result<()> {
    ddl.core.with_edit("ALTER", |edit| match object {
        CatalogObject::Table(table) => ddl::put_table(edit, (*table).clone()),
        other => Ok(edit.put_object(other)?),
    })
}

pub fn change_owner(ddl: &Ddl, object: &Arc<CatalogObject>, role: &RoleSpec) -> Result<()> {
    let name = tree::role_name(role, ddl.user(), ddl.core.session_user())?;
    if ddl.core.engine.role(&name)?.is_none() {
        return Err(SqlError::new(ErrorCode::UndefinedObject, format!("role \"{name}\" does not exist")));
    }
    put(ddl, with_owner(object, &name))?;
    // Sequences of a table's columns go with it.
    if let CatalogObject::Table(table) = &**object {
        let catalog = ddl.core.statement_context(Vec::new())?.root.catalog().clone();
        for other in catalog.objects.values() {
            if let CatalogObject::Sequence(s) = &**other
                && s.owned_by.is_some_and(|(t, _)| t == table.oid)
            {
                put(ddl, with_owner(other, &name))?;
            }
        }
    }
    Ok(())
}

/// ALTER TABLE's owner comes through `alter_table`; this is for schemas, types and the rest.
pub fn set_owner(ddl: &Ddl, alter: &AlterOwnerStmt) -> Result<&'static str> {
    let role = alter.newowner.as_ref().ok_or_else(tree::malformed)?;
    let kind = alter.object_type();
    if kind == ObjectType::ObjectDatabase {
        return Err(SqlError::unsupported("ALTER DATABASE ... OWNER TO"));
    }
    let object = find(ddl, kind, alter.object.as_deref(), alter.relation.as_ref())?;
    change_owner(ddl, &object, role)?;
    Ok(alter_tag(kind))
}

pub fn alter_tag(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectSchema => "ALTER SCHEMA",
        ObjectType::ObjectType => "ALTER TYPE",
        ObjectType::ObjectDomain => "ALTER DOMAIN",
        ObjectType::ObjectSequence => "ALTER SEQUENCE",
        ObjectType::ObjectView => "ALTER VIEW",
        ObjectType::ObjectIndex => "ALTER INDEX",
        ObjectType::ObjectRole => "ALTER ROLE",
        ObjectType::ObjectDatabase => "ALTER DATABASE",
        _ => "ALTER TABLE",
    }
}

/// The object that an ALTER names.
pub fn find(
    ddl: &Ddl,
    kind: ObjectType,
    object: Option<&pg_query::protobuf::Node>,
    relation: Option<&pg_query::protobuf::RangeVar>,
) -> Result<Arc<CatalogObject>> {
    let (schema, name) = match (object, relation) {
        (_, Some(range)) => tree::range_name(range),
        (Some(node), None) => tree::object_name(node)?,
        (None, None) => return Err(tree::malformed()),
    };
    let schema = schema.as_deref();
    match kind {
        ObjectType::ObjectSchema => {
            let found = ddl.catalog().schema(&name).map(|s| s.oid).and_then(|oid| ddl.catalog().get(oid));
            found.cloned().ok_or_else(|| SqlError::new(ErrorCode::InvalidSchemaName, format!("schema \"{name}\" does not exist")))
        }
        ObjectType::ObjectType | ObjectType::ObjectDomain => {
            let found = ddl::user_type(&ddl.context, schema, &name).map(|t| t.oid).and_then(|oid| ddl.catalog().get(oid));
            found.cloned().ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, format!("type \"{name}\" does not exist")))
        }
        ObjectType::ObjectTable | ObjectType::ObjectView | ObjectType::ObjectSequence => {
            let found = ddl::find_relation(&ddl.context, schema, &name)?;
            let fits = match kind {
                ObjectType::ObjectView => matches!(**found, CatalogObject::View(_)),
                ObjectType::ObjectSequence => matches!(**found, CatalogObject::Sequence(_)),
                // ALTER TABLE is allowed on any relation.
                _ => true,
            };
            if !fits {
                return Err(SqlError::new(
                    ErrorCode::WrongObjectType,
                    format!("\"{name}\" is not a {}", ddl::object_word(kind).to_lowercase()),
                ));
            }
            Ok(found.clone())
        }
        other => Err(SqlError::unsupported(format_args!("ALTER {}", ddl::object_word(other)))),
    }
}

pub fn set_schema(ddl: &Ddl, alter: &AlterObjectSchemaStmt) -> Result<&'static str> {
    let kind = alter.object_type();
    let tag = alter_tag(kind);
    let object = match find(ddl, kind, alter.object.as_deref(), alter.relation.as_ref()) {
        Err(error) if alter.missing_ok && error.code == ErrorCode::UndefinedTable => {
            ddl.notice(NoticeCode::Success, format!("{}, skipping", error.message));
            return Ok(tag);
        }
        found => found?,
    };
    let (target, _) = ddl::creation_schema(&ddl.context, Some(&alter.newschema))?;
    if object.schema_oid() == Some(target) {
        return Ok(tag);
    }
    if !matches!(*object, CatalogObject::Type(_)) {
        ddl::check_relation_name(ddl.catalog(), target, object.name())?;
    }
    put(ddl, with_schema(&object, target))?;
    let mut moved = Vec::new();
    if let CatalogObject::Table(table) = &*object {
        for other in ddl.catalog().objects.values() {
            if let CatalogObject::Sequence(s) = &**other
                && s.owned_by.is_some_and(|(t, _)| t == table.oid)
            {
                put(ddl, with_schema(other, target))?;
                moved.push(s.name.as_str());
            }
        }
    }
    let old = object.schema_oid().and_then(|s| ddl.catalog().schema_name(s)).unwrap_or_default();
    if let CatalogObject::Sequence(s) = &*object {
        moved.push(s.name.as_str());
    }
    for sequence in moved {
        rename::rename_in_defaults(ddl, (old, sequence), (&alter.newschema, sequence))?;
    }
    if matches!(*object, CatalogObject::Table(_) | CatalogObject::View(_)) {
        view::follow(ddl, &[((old, object.name()), (&alter.newschema, object.name()))])?;
    }
    Ok(tag)
}
