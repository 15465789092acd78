//! Data definition: changes of the catalog in the transaction's edit.
//!
//! Each statement reads the catalog of its snapshot, builds the changed objects and puts them into the edit, which keeps
//! rows and indexes in step. An error in the middle undoes the statement's part (`SessionCore::with_edit`).

mod alter_table;
mod columns;
mod constraints;
mod create_table;
pub mod create_table_as;
mod database;
mod drop;
mod index;
mod object;
mod owner;
mod rename;
mod role;
mod sequence;
mod subscription;
mod types;
mod view;

pub(super) use rename::{names_column, rename_in_expression};

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::ObjectType;
use strandline_storage::schema::{Sequence, UserType};
use strandline_storage::{Catalog, CatalogObject, Edit, Oid, TableSchema, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::{Source, Statement};
use crate::session::{Notice, NoticeCode, Outcome, Session, SessionCore};

/// PostgreSQL's NAMEDATALEN - 1.
const NAME_BYTES_MAX: usize = 63;

/// What a DDL statement works with.
pub(super) struct Ddl {
    pub core: Arc<SessionCore>,
    pub context: Arc<StatementContext>,
    pub source: Arc<Source>,
}

impl Ddl {
    pub fn new(session: &Session, statement: &Statement) -> Result<Self> {
        let context = session.core.statement_context(Vec::new())?;
        Ok(Ddl { core: session.core.clone(), context, source: statement.source.clone() })
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        self.context.root.catalog()
    }

    /// An oid for a new object.
    pub fn oid(&self) -> Result<Oid> {
        Ok(self.core.store().next_oid()?)
    }

    pub fn user(&self) -> &str {
        &self.context.user
    }

    pub fn notice(&self, code: NoticeCode, message: impl Into<String>) {
        self.core.notice(Notice::new(code, message));
    }
}

/// Everything that is not a query, DML, transaction or setting.
pub fn execute(session: &mut Session, statement: &Statement, node: &NodeEnum, params: Vec<Value>) -> Result<Outcome> {
    use NodeEnum as N;
    // Roles, databases and subscriptions are not in a branch's catalog: no snapshot of one is needed.
    match node {
        N::CreateRoleStmt(create) => return role::create(session, create),
        N::AlterRoleStmt(alter) => return role::alter(session, alter),
        N::DropRoleStmt(drop) => return role::drop_roles(session, drop),
        N::AlterRoleSetStmt(_) => return Err(SqlError::unsupported("ALTER ROLE ... SET")),
        N::CreatedbStmt(create) => return database::create(session, create),
        N::DropdbStmt(drop) => return database::drop_database(session, drop),
        N::CreateSubscriptionStmt(create) => return subscription::create(session, create),
        N::AlterSubscriptionStmt(alter) => return subscription::alter(session, alter),
        N::DropSubscriptionStmt(drop) => return subscription::drop(session, drop),
        N::RenameStmt(rename) if rename.rename_type() == ObjectType::ObjectSubscription => return subscription::rename(session, rename),
        N::AlterOwnerStmt(alter) if alter.object_type() == ObjectType::ObjectSubscription => {
            return subscription::set_owner(session, alter);
        }
        N::CommentStmt(comment) if comment.objtype() == ObjectType::ObjectSubscription => return subscription::comment(session, comment),
        N::CreateTableAsStmt(create) => return create_table_as::create(session, statement, create, params),
        _ => {}
    }
    let tag = command_tag(node);
    let ddl = Ddl::new(session, statement)?;
    let core = ddl.core.clone();
    if let Some(tag) = tag {
        core.check_writable(tag)?;
    }
    match node {
        N::CreateStmt(create) => create_table::create(&ddl, create)?,
        N::AlterTableStmt(alter) => return alter_table::alter(&ddl, alter).map(Outcome::done),
        N::IndexStmt(create) => index::create(&ddl, create)?,
        N::DropStmt(drop) => return drop::drop(&ddl, drop).map(Outcome::done),
        N::RenameStmt(rename) => return rename::rename(&ddl, rename).map(Outcome::done),
        N::AlterObjectSchemaStmt(alter) => return owner::set_schema(&ddl, alter).map(Outcome::done),
        N::AlterOwnerStmt(alter) => return owner::set_owner(&ddl, alter).map(Outcome::done),
        N::CreateSchemaStmt(create) => object::create_schema(session, statement, &ddl, create)?,
        N::CommentStmt(comment) => object::comment(&ddl, comment)?,
        N::GrantStmt(grant) => return object::grant(&ddl, grant).map(Outcome::done),
        N::CreateSeqStmt(create) => sequence::create(&ddl, create)?,
        N::AlterSeqStmt(alter) => sequence::alter(&ddl, alter)?,
        N::ViewStmt(create) => view::create(&ddl, create)?,
        N::CreateEnumStmt(create) => types::create_enum(&ddl, create)?,
        N::AlterEnumStmt(alter) => types::alter_enum(&ddl, alter)?,
        N::CreateDomainStmt(create) => types::create_domain(&ddl, create)?,
        N::CompositeTypeStmt(create) => types::create_composite(&ddl, create)?,
        N::CallStmt(call) => {
            let last = call.funccall.as_ref().and_then(|f| f.funcname.last()).and_then(|n| n.node.as_ref());
            let name = if let Some(N::String(name)) = last { name.sval.as_str() } else { "the function" };
            return Err(crate::system::procedures::call_hint(name));
        }
        other => return Err(SqlError::unsupported(feature_name(other))),
    }
    Ok(Outcome::done(tag.unwrap_or("OK")))
}

fn command_tag(node: &NodeEnum) -> Option<&'static str> {
    use NodeEnum as N;
    Some(match node {
        N::CreateStmt(_) => "CREATE TABLE",
        N::AlterTableStmt(_) => "ALTER TABLE",
        N::IndexStmt(_) => "CREATE INDEX",
        N::DropStmt(drop) => drop::tag(drop.remove_type()),
        N::RenameStmt(_) | N::AlterObjectSchemaStmt(_) | N::AlterOwnerStmt(_) => "ALTER",
        N::CreateSchemaStmt(_) => "CREATE SCHEMA",
        N::CommentStmt(_) => "COMMENT",
        N::GrantStmt(_) => "GRANT",
        N::CreateSeqStmt(_) => "CREATE SEQUENCE",
        N::AlterSeqStmt(_) => "ALTER SEQUENCE",
        N::ViewStmt(_) => "CREATE VIEW",
        N::CreateEnumStmt(_) | N::CompositeTypeStmt(_) => "CREATE TYPE",
        N::AlterEnumStmt(_) => "ALTER TYPE",
        N::CreateDomainStmt(_) => "CREATE DOMAIN",
        _ => return None,
    })
}

/// A statement's kind in words, from its node's name: `CreateTrigStmt` is `CREATE TRIG`.
fn feature_name(node: &NodeEnum) -> String {
    let known = match node {
        NodeEnum::CreateFunctionStmt(f) => return if f.is_procedure { "CREATE PROCEDURE".into() } else { "CREATE FUNCTION".into() },
        NodeEnum::CreateTrigStmt(_) => "CREATE TRIGGER",
        NodeEnum::CreateExtensionStmt(_) => "CREATE EXTENSION",
        NodeEnum::DoStmt(_) => "DO",
        NodeEnum::ListenStmt(_) => "LISTEN",
        NodeEnum::NotifyStmt(_) => "NOTIFY",
        NodeEnum::RuleStmt(_) => "CREATE RULE",
        NodeEnum::RefreshMatViewStmt(_) => "REFRESH MATERIALIZED VIEW",
        NodeEnum::CreatePublicationStmt(_) => "CREATE PUBLICATION",
        NodeEnum::AlterDefaultPrivilegesStmt(_) => "ALTER DEFAULT PRIVILEGES",
        NodeEnum::GrantRoleStmt(_) => "GRANT of a role",
        NodeEnum::DefineStmt(_) => "CREATE AGGREGATE, OPERATOR or TYPE of this form",
        NodeEnum::CreatePolicyStmt(_) => "CREATE POLICY",
        NodeEnum::CreateStatsStmt(_) => "CREATE STATISTICS",
        NodeEnum::CreateTableSpaceStmt(_) => "CREATE TABLESPACE",
        NodeEnum::CreateCastStmt(_) => "CREATE CAST",
        NodeEnum::AlterDatabaseSetStmt(_) => "ALTER DATABASE ... SET",
        NodeEnum::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        NodeEnum::DropOwnedStmt(_) => "DROP OWNED",
        NodeEnum::ReindexStmt(_) => "REINDEX",
        NodeEnum::ClusterStmt(_) => "CLUSTER",
        _ => "",
    };
    if !known.is_empty() {
        return known.into();
    }
    let debug = format!("{node:?}");
    let name = debug.split('(').next().unwrap_or("this statement").trim_end_matches("Stmt");
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_uppercase());
    }
    words
}

// Names.

/// The schema in which an unqualified new object is made: the first of the search path that exists.
pub(super) fn creation_schema(context: &StatementContext, schema: Option<&str>) -> Result<(Oid, String)> {
    let catalog = context.root.catalog();
    if let Some(name) = schema {
        if matches!(name, "pg_catalog" | "information_schema") {
            return Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("permission denied for schema {name}")));
        }
        return match catalog.schema(name) {
            Some(found) => Ok((found.oid, found.name.clone())),
            None => Err(SqlError::new(ErrorCode::InvalidSchemaName, format!("schema \"{name}\" does not exist"))),
        };
    }
    context
        .search_path
        .iter()
        .find_map(|name| catalog.schema(name))
        .map(|found| (found.oid, found.name.clone()))
        .ok_or_else(|| SqlError::new(ErrorCode::InvalidSchemaName, "no schema has been selected to create in"))
}

/// A relation (table, view, sequence) by name, through the search path where it has no schema.
pub(super) fn relation<'a>(context: &'a StatementContext, schema: Option<&str>, name: &str) -> Option<&'a Arc<CatalogObject>> {
    let catalog = context.root.catalog();
    match schema {
        Some(schema) => catalog.relation(schema, name),
        None => context.search_path.iter().find_map(|schema| catalog.relation(schema, name)),
    }
}

pub(super) fn no_relation(schema: Option<&str>, name: &str) -> SqlError {
    let full = match schema {
        Some(schema) => format!("{schema}.{name}"),
        None => name.to_owned(),
    };
    SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{full}\" does not exist"))
}

/// # Errors
/// `UndefinedTable`, `InvalidSchemaName`.
pub(super) fn find_relation<'a>(context: &'a StatementContext, schema: Option<&str>, name: &str) -> Result<&'a Arc<CatalogObject>> {
    relation(context, schema, name).ok_or_else(|| no_relation(schema, name))
}

/// # Errors
/// `UndefinedTable`; `WrongObjectType` for another kind of relation.
pub(super) fn find_table(context: &StatementContext, schema: Option<&str>, name: &str) -> Result<Arc<TableSchema>> {
    if let Some(object) = relation(context, schema, name) {
        return match &**object {
            CatalogObject::Table(table) => Ok(table.clone()),
            _ => Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{name}\" is not a table"))),
        };
    }
    if crate::system::lookup(schema, name, context).is_some() {
        return Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("permission denied: \"{name}\" is a system table")));
    }
    Err(no_relation(schema, name))
}

pub(super) fn find_sequence(context: &StatementContext, schema: Option<&str>, name: &str) -> Result<Sequence> {
    match &**find_relation(context, schema, name)? {
        CatalogObject::Sequence(sequence) => Ok(sequence.clone()),
        _ => Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{name}\" is not a sequence"))),
    }
}

pub(super) fn user_type<'a>(context: &'a StatementContext, schema: Option<&str>, name: &str) -> Option<&'a UserType> {
    let catalog = context.root.catalog();
    let in_schema = |schema: &str| {
        let oid = catalog.schema(schema)?.oid;
        catalog.objects.values().find_map(|o| match &**o {
            CatalogObject::Type(t) if t.schema_oid == oid && t.name == name => Some(t),
            _ => None,
        })
    };
    match schema {
        Some(schema) => in_schema(schema),
        None => context.search_path.iter().find_map(|s| in_schema(s)),
    }
}

/// The table and index position of an index by name.
pub(super) fn find_index(catalog: &Catalog, schema_oid: Oid, name: &str) -> Option<(Arc<TableSchema>, Option<usize>)> {
    catalog.tables().filter(|t| t.schema_oid == schema_oid).find_map(|t| {
        if t.primary_key.as_ref().is_some_and(|k| k.name == name) {
            return Some((t.clone(), None));
        }
        t.indexes.iter().position(|i| i.name == name).map(|at| (t.clone(), Some(at)))
    })
}

/// Something in the name space of relations has this name: tables, views, sequences, indexes.
pub(super) fn relation_name_taken(catalog: &Catalog, schema_oid: Oid, name: &str) -> bool {
    catalog.objects.values().any(|o| {
        !matches!(**o, CatalogObject::Type(_) | CatalogObject::Schema(_)) && o.schema_oid() == Some(schema_oid) && o.name() == name
    }) || find_index(catalog, schema_oid, name).is_some()
}

/// Names that begin with `dolt_` are those of the version tables, in whatever case: a table of the user would hide one.
/// # Errors
/// `ReservedName`.
pub(super) fn check_not_reserved(name: &str) -> Result<()> {
    if name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("dolt_")) {
        return Err(SqlError::new(ErrorCode::ReservedName, format!("unacceptable relation name \"{name}\""))
            .detail("The prefix \"dolt_\" is reserved for version tables."));
    }
    Ok(())
}

/// # Errors
/// `DuplicateTable`, `ReservedName`.
pub(super) fn check_relation_name(catalog: &Catalog, schema_oid: Oid, name: &str) -> Result<()> {
    check_not_reserved(name)?;
    if relation_name_taken(catalog, schema_oid, name) {
        return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    Ok(())
}

/// `name1_name2_label`, shortened to fit as PostgreSQL's makeObjectName does: the longer part loses first.
pub(super) fn object_name(name1: &str, name2: &str, label: &str) -> String {
    let overhead = if name2.is_empty() { 0 } else { 1 } + if label.is_empty() { 0 } else { label.len() + 1 };
    let available = NAME_BYTES_MAX.saturating_sub(overhead);
    let (mut len1, mut len2) = (name1.len(), name2.len());
    while len1 + len2 > available {
        if len1 > len2 { len1 -= 1 } else { len2 -= 1 }
    }
    let clip = |name: &str, mut len: usize| {
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        name[..len].to_owned()
    };
    let mut made = clip(name1, len1);
    if !name2.is_empty() {
        made.push('_');
        made.push_str(&clip(name2, len2));
    }
    if !label.is_empty() {
        made.push('_');
        made.push_str(label);
    }
    made
}

/// As [`object_name`], with a number behind the label where the name is taken.
pub(super) fn choose_name(name1: &str, name2: &str, label: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut number = 0u32;
    loop {
        let name = if number == 0 { object_name(name1, name2, label) } else { object_name(name1, name2, &format!("{label}{number}")) };
        if !taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// Columns' names joined as index and constraint names have them.
pub(super) fn joined_columns(names: &[&str]) -> String {
    let mut joined = String::new();
    for name in names {
        if !joined.is_empty() {
            joined.push('_');
        }
        joined.push_str(name);
        if joined.len() >= NAME_BYTES_MAX {
            break;
        }
    }
    joined
}

/// Puts a changed table whose rows keep their shape.
pub(super) fn put_table(edit: &mut Edit, table: TableSchema) -> Result<()> {
    Ok(edit.put_table(table)?)
}

/// The word for an object's kind as messages have it.
pub(super) fn kind_word(object: &CatalogObject) -> &'static str {
    match object {
        CatalogObject::Schema(_) => "schema",
        CatalogObject::Table(_) => "table",
        CatalogObject::Sequence(_) => "sequence",
        CatalogObject::Type(_) => "type",
        CatalogObject::View(_) => "view",
    }
}

/// What an ALTER of an object is called in its tag and in refusals.
pub(super) fn object_word(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::ObjectTable => "TABLE",
        ObjectType::ObjectView => "VIEW",
        ObjectType::ObjectMatview => "MATERIALIZED VIEW",
        ObjectType::ObjectSequence => "SEQUENCE",
        ObjectType::ObjectIndex => "INDEX",
        ObjectType::ObjectSchema => "SCHEMA",
        ObjectType::ObjectType => "TYPE",
        ObjectType::ObjectDomain => "DOMAIN",
        ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => "TABLE",
        ObjectType::ObjectDatabase => "DATABASE",
        ObjectType::ObjectRole => "ROLE",
        ObjectType::ObjectFunction => "FUNCTION",
        ObjectType::ObjectProcedure => "PROCEDURE",
        ObjectType::ObjectAggregate => "AGGREGATE",
        ObjectType::ObjectExtension => "EXTENSION",
        ObjectType::ObjectTrigger => "TRIGGER",
        ObjectType::ObjectForeignTable => "FOREIGN TABLE",
        ObjectType::ObjectLanguage => "LANGUAGE",
        ObjectType::ObjectPublication => "PUBLICATION",
        ObjectType::ObjectSubscription => "SUBSCRIPTION",
        _ => "OBJECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened_like_postgresql_does() {
        assert_eq!(object_name("t", "", "pkey"), "t_pkey");
        let long = "a".repeat(60);
        let made = object_name(&long, "column", "key");
        assert_eq!(made.len(), 63);
        assert!(made.ends_with("_column_key"));
        assert_eq!(choose_name("t", "a", "key", |n| n == "t_a_key"), "t_a_key1");
    }
}
