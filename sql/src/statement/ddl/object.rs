//! CREATE SCHEMA, COMMENT ON, GRANT.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CommentStmt, CreateSchemaStmt, GrantStmt, ObjectType};
use strandline_storage::CatalogObject;
use strandline_storage::schema::Schema;

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Statement;
use crate::session::{NoticeCode, Session};
use crate::statement::ddl::{self, Ddl, owner};
use crate::statement::tree;

pub fn create_schema(session: &mut Session, statement: &Statement, ddl: &Ddl, create: &CreateSchemaStmt) -> Result<()> {
    let owner = match &create.authrole {
        Some(role) => tree::role_name(role, ddl.user(), ddl.core.session_user())?,
        None => ddl.user().to_owned(),
    };
    if ddl.core.engine.role(&owner)?.is_none() {
        return Err(SqlError::new(ErrorCode::UndefinedObject, format!("role \"{owner}\" does not exist")));
    }
    let name = if create.schemaname.is_empty() { owner.clone() } else { create.schemaname.clone() };
    if name.starts_with("pg_") {
        return Err(SqlError::new(ErrorCode::ReservedName, format!("unacceptable schema name \"{name}\""))
            .detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    if ddl.catalog().schema(&name).is_some() || name == "information_schema" {
        if create.if_not_exists {
            ddl.notice(NoticeCode::DuplicateSchema, format!("schema \"{name}\" already exists, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(ErrorCode::DuplicateSchema, format!("schema \"{name}\" already exists")));
    }
    let schema = Schema { oid: ddl.oid()?, name: name.clone(), owner, comment: None };
    ddl.core.with_edit("CREATE SCHEMA", |edit| Ok(edit.put_object(CatalogObject::Schema(schema))?))?;
    // Elements are made in the new schema.
    for element in &create.schema_elts {
        let mut node = element.node.clone().ok_or_else(tree::malformed)?;
        match &mut node {
            NodeEnum::CreateStmt(table) => set_schema(&mut table.relation, &name),
            NodeEnum::ViewStmt(view) => set_schema(&mut view.view, &name),
            NodeEnum::CreateSeqStmt(sequence) => set_schema(&mut sequence.sequence, &name),
            NodeEnum::IndexStmt(index) => set_schema(&mut index.relation, &name),
            _ => return Err(SqlError::unsupported("this element of CREATE SCHEMA")),
        }
        ddl::execute(session, statement, &node, Vec::new())?;
    }
    Ok(())
}

fn set_schema(range: &mut Option<pg_query::protobuf::RangeVar>, schema: &str) {
    if let Some(range) = range
        && range.schemaname.is_empty()
    {
        range.schemaname = schema.to_owned();
    }
}

pub fn comment(ddl: &Ddl, comment: &CommentStmt) -> Result<()> {
    let text = (!comment.comment.is_empty()).then(|| comment.comment.clone());
    let node = comment.object.as_deref().ok_or_else(tree::malformed)?;
    let put_table = |table: strandline_storage::TableSchema| ddl.core.with_edit("COMMENT", |edit| ddl::put_table(edit, table));
    match comment.objtype() {
        ObjectType::ObjectTable => {
            let (schema, name) = tree::object_name(node)?;
            let mut table = (*ddl::find_table(&ddl.context, schema.as_deref(), &name)?).clone();
            table.comment = text;
            put_table(table)
        }
        ObjectType::ObjectColumn => {
            let Some(NodeEnum::List(list)) = &node.node else { return Err(tree::malformed()) };
            let mut parts = tree::strings(&list.items);
            let column = parts.pop().ok_or_else(tree::malformed)?;
            let (schema, name) = tree::split_name(parts)?;
            let mut table = (*ddl::find_table(&ddl.context, schema.as_deref(), &name)?).clone();
            let at = table.column_index(&column).ok_or_else(|| {
                SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{column}\" of relation \"{name}\" does not exist"))
            })?;
            table.columns[at].comment = text;
            put_table(table)
        }
        ObjectType::ObjectSchema => {
            let (_, name) = tree::object_name(node)?;
            let mut schema = ddl
                .catalog()
                .schema(&name)
                .cloned()
                .ok_or_else(|| SqlError::new(ErrorCode::InvalidSchemaName, format!("schema \"{name}\" does not exist")))?;
            schema.comment = text;
            ddl.core.with_edit("COMMENT", |edit| Ok(edit.put_object(CatalogObject::Schema(schema))?))
        }
        ObjectType::ObjectIndex => {
            let (schema, name) = tree::object_name(node)?;
            let catalog = ddl.catalog();
            let schemas: Vec<_> = match &schema {
                Some(schema) => catalog.schema(schema).map(|s| s.oid).into_iter().collect(),
                None => ddl.context.search_path.iter().filter_map(|s| catalog.schema(s)).map(|s| s.oid).collect(),
            };
            let (table, _) = schemas
                .into_iter()
                .find_map(|s| ddl::find_index(catalog, s, &name))
                .ok_or_else(|| ddl::no_relation(schema.as_deref(), &name))?;
            let mut table = (*table).clone();
            for index in table.primary_key.iter_mut().chain(&mut table.indexes).filter(|i| i.name == name) {
                index.comment.clone_from(&text);
            }
            put_table(table)
        }
        other => Err(SqlError::unsupported(format_args!("COMMENT ON {}", ddl::object_word(other)))),
    }
}

/// GRANT and REVOKE. There are no rights beside ownership and superuser yet, so what the owner has can be granted to the owner
/// and nothing more; anything else is refused rather than accepted without effect.
pub fn grant(ddl: &Ddl, grant: &GrantStmt) -> Result<&'static str> {
    let tag = if grant.is_grant { "GRANT" } else { "REVOKE" };
    let mut owners = Vec::new();
    for object in &grant.objects {
        let found: Arc<CatalogObject> = match grant.objtype() {
            ObjectType::ObjectTable | ObjectType::ObjectSequence => owner::find(ddl, ObjectType::ObjectTable, Some(object), None)?,
            ObjectType::ObjectSchema => owner::find(ddl, ObjectType::ObjectSchema, Some(object), None)?,
            other => return Err(SqlError::unsupported(format_args!("{tag} on {}", ddl::object_word(other)))),
        };
        owners.push(match &*found {
            CatalogObject::Schema(o) => o.owner.clone(),
            CatalogObject::Table(o) => o.owner.clone(),
            CatalogObject::Sequence(o) => o.owner.clone(),
            CatalogObject::Type(o) => o.owner.clone(),
            CatalogObject::View(o) => o.owner.clone(),
        });
    }
    for grantee in &grant.grantees {
        let Some(NodeEnum::RoleSpec(role)) = &grantee.node else { return Err(tree::malformed()) };
        let name = tree::role_name(role, ddl.user(), ddl.core.session_user())?;
        let is_superuser = ddl.core.engine.role(&name)?.is_some_and(|r| r.superuser);
        let holds_already = is_superuser || owners.iter().all(|o| *o == name);
        // Granting what is held already changes nothing, nor does revoking what nobody but the owner has.
        if grant.is_grant != holds_already {
            return Err(SqlError::unsupported(format_args!("{tag} of rights {} \"{name}\"", if grant.is_grant { "to" } else { "from" })));
        }
    }
    Ok(tag)
}
