//! CREATE, ALTER and DROP ROLE. Roles are outside transactions' snapshots: a change is durable when the statement ends.

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterRoleStmt, CreateRoleStmt, DropRoleStmt, Node, RoleStmtType};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::{Notice, NoticeCode, Outcome, Role, Session};
use crate::statement::tree;

fn check_may_manage(session: &Session) -> Result<()> {
    let user = session.core.user();
    if user.superuser || user.create_role {
        return Ok(());
    }
    Err(SqlError::new(ErrorCode::InsufficientPrivilege, "permission denied to create role"))
}

fn apply(session: &Session, role: &mut Role, options: &[Node]) -> Result<()> {
    for option in tree::def_elems(options) {
        match option.defname.as_str() {
            "password" => {
                role.password = match tree::def_text(option) {
                    None => None,
                    Some(text) if text.starts_with("SCRAM-SHA-256$") => Some(text),
                    Some(text) if text.starts_with("md5") && text.len() == 35 => {
                        return Err(SqlError::unsupported("an MD5 password"));
                    }
                    Some(text) => Some((session.core.engine.options.hash_password)(&text)),
                }
            }
            "superuser" => {
                if !session.core.user().superuser {
                    return Err(SqlError::new(ErrorCode::InsufficientPrivilege, "must be superuser to create superusers"));
                }
                role.superuser = tree::def_bool(option)?;
            }
            "inherit" => role.inherit = tree::def_bool(option)?,
            "createrole" => role.create_role = tree::def_bool(option)?,
            "createdb" => role.create_database = tree::def_bool(option)?,
            "canlogin" => role.login = tree::def_bool(option)?,
            "isreplication" => role.replication = tree::def_bool(option)?,
            "bypassrls" => role.bypass_rls = tree::def_bool(option)?,
            "connectionlimit" => {
                if tree::def_int(option)? != -1 {
                    return Err(SqlError::unsupported("a role's CONNECTION LIMIT"));
                }
            }
            "validUntil" => return Err(SqlError::unsupported("a role's VALID UNTIL")),
            _ => return Err(SqlError::unsupported("membership in roles")),
        }
    }
    Ok(())
}

pub fn create(session: &mut Session, create: &CreateRoleStmt) -> Result<Outcome> {
    session.core.check_writable("CREATE ROLE")?;
    check_may_manage(session)?;
    let engine = session.core.engine.clone();
    let _guard = engine.role_changes();
    if engine.role(&create.role)?.is_some() {
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("role \"{}\" already exists", create.role)));
    }
    if create.role.starts_with("pg_") {
        return Err(SqlError::new(ErrorCode::ReservedName, format!("role name \"{}\" is reserved", create.role))
            .detail("Role names starting with \"pg_\" are reserved."));
    }
    let mut role = Role::new(&create.role, engine.store.next_oid()?);
    role.login = create.stmt_type() == RoleStmtType::RolestmtUser;
    apply(session, &mut role, &create.options)?;
    engine.store.wait_durable(engine.put_role(&role)?)?;
    Ok(Outcome::done("CREATE ROLE"))
}

pub fn alter(session: &mut Session, alter: &AlterRoleStmt) -> Result<Outcome> {
    session.core.check_writable("ALTER ROLE")?;
    let spec = alter.role.as_ref().ok_or_else(tree::malformed)?;
    let user = session.core.user();
    let name = tree::role_name(spec, &user.name, session.core.session_user())?;
    let only_password = tree::def_elems(&alter.options).all(|o| o.defname == "password");
    if !(name == user.name && only_password) {
        check_may_manage(session)?;
    }
    let engine = session.core.engine.clone();
    let _guard = engine.role_changes();
    let mut role =
        engine.role(&name)?.ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, format!("role \"{name}\" does not exist")))?;
    if role.superuser && !user.superuser {
        return Err(SqlError::new(
            ErrorCode::InsufficientPrivilege,
            "must be superuser to alter superuser roles or change superuser attribute",
        ));
    }
    apply(session, &mut role, &alter.options)?;
    engine.store.wait_durable(engine.put_role(&role)?)?;
    Ok(Outcome::done("ALTER ROLE"))
}

pub fn drop_roles(session: &mut Session, drop: &DropRoleStmt) -> Result<Outcome> {
    session.core.check_writable("DROP ROLE")?;
    check_may_manage(session)?;
    let engine = session.core.engine.clone();
    let _guard = engine.role_changes();
    for node in &drop.roles {
        let Some(NodeEnum::RoleSpec(spec)) = &node.node else { return Err(tree::malformed()) };
        let user = session.core.user();
        let name = tree::role_name(spec, &user.name, session.core.session_user())?;
        if name == user.name {
            return Err(SqlError::new(ErrorCode::ObjectInUse, "current user cannot be dropped"));
        }
        if engine.role(&name)?.is_none() {
            if drop.missing_ok {
                session.core.notice(Notice::new(NoticeCode::Success, format!("role \"{name}\" does not exist, skipping")));
                continue;
            }
            return Err(SqlError::new(ErrorCode::UndefinedObject, format!("role \"{name}\" does not exist")));
        }
        let context = session.core.statement_context(Vec::new())?;
        let owns = context.root.catalog().objects.values().any(|o| {
            use strandline_storage::CatalogObject as C;
            let owner = match &**o {
                C::Schema(o) => &o.owner,
                C::Table(o) => &o.owner,
                C::Sequence(o) => &o.owner,
                C::Type(o) => &o.owner,
                C::View(o) => &o.owner,
            };
            *owner == name
        });
        if owns {
            return Err(SqlError::new(
                ErrorCode::DependentObjectsStillExist,
                format!("role \"{name}\" cannot be dropped because some objects depend on it"),
            ));
        }
        engine.store.wait_durable(engine.remove_role(&name)?)?;
    }
    Ok(Outcome::done("DROP ROLE"))
}
