//! CREATE DATABASE and DROP DATABASE.

use pg_query::protobuf::{CreatedbStmt, DropdbStmt};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::{Notice, NoticeCode, Outcome, Session};
use crate::statement::tree;

fn check_allowed(session: &Session, what: &str) -> Result<()> {
    if session.core.in_explicit() {
        return Err(SqlError::new(ErrorCode::ActiveTransaction, format!("{what} cannot run inside a transaction block")));
    }
    if session.core.engine.options.read_only {
        session.core.check_writable(what)?;
    }
    Ok(())
}

pub fn create(session: &mut Session, create: &CreatedbStmt) -> Result<Outcome> {
    check_allowed(session, "CREATE DATABASE")?;
    let user = session.core.user();
    if !user.superuser && !user.create_database {
        return Err(SqlError::new(ErrorCode::InsufficientPrivilege, "permission denied to create database"));
    }
    for option in tree::def_elems(&create.options) {
        let value = tree::def_text(option).unwrap_or_default();
        let true_of_us = match option.defname.as_str() {
            "encoding" => value.eq_ignore_ascii_case("utf8") || value.eq_ignore_ascii_case("utf-8") || value == "6",
            "template" => matches!(value.as_str(), "template0" | "template1"),
            "lc_collate" | "lc_ctype" | "locale" => matches!(value.as_str(), "C" | "POSIX" | "C.UTF-8" | "C.utf8"),
            "locale_provider" => value == "libc",
            "owner" => session.core.engine.role(&value)?.is_some(),
            "connection_limit" => value == "-1",
            "tablespace" => value == "pg_default",
            _ => false,
        };
        if !true_of_us {
            return Err(SqlError::unsupported(format_args!("CREATE DATABASE with {} \"{value}\"", option.defname)));
        }
    }
    let name = &create.dbname;
    if name.is_empty() || name.contains('/') {
        return Err(SqlError::new(ErrorCode::InvalidName, format!("invalid database name: \"{name}\"")));
    }
    let store = session.core.store();
    if store.databases().iter().any(|d| d == name) {
        return Err(SqlError::new(ErrorCode::DuplicateDatabase, format!("database \"{name}\" already exists")));
    }
    store.create_database(name, session.core.commit_meta("CREATE DATABASE"))?;
    store.sync()?;
    Ok(Outcome::done("CREATE DATABASE"))
}

pub fn drop_database(session: &mut Session, drop: &DropdbStmt) -> Result<Outcome> {
    check_allowed(session, "DROP DATABASE")?;
    if !session.core.user().superuser {
        return Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("must be owner of database {}", drop.dbname)));
    }
    let name = &drop.dbname;
    let store = session.core.store().clone();
    if !store.databases().iter().any(|d| d == name) {
        if drop.missing_ok {
            session.core.notice(Notice::new(NoticeCode::Success, format!("database \"{name}\" does not exist, skipping")));
            return Ok(Outcome::done("DROP DATABASE"));
        }
        return Err(SqlError::new(ErrorCode::InvalidCatalogName, format!("database \"{name}\" does not exist")));
    }
    if session.core.database() == *name {
        return Err(SqlError::new(ErrorCode::ObjectInUse, "cannot drop the currently open database"));
    }
    if let Some(count) = session.core.engine.session_counts().get(name) {
        return Err(SqlError::new(ErrorCode::ObjectInUse, format!("database \"{name}\" is being accessed by other users"))
            .detail(format!("There are {count} other sessions using the database.")));
    }
    let subscription_count = store.subscriptions_into(name, None).len();
    if subscription_count > 0 {
        let detail = if subscription_count == 1 {
            "There is 1 subscription.".to_owned()
        } else {
            format!("There are {subscription_count} subscriptions.")
        };
        let message = format!("database \"{name}\" is being used by logical replication subscription");
        return Err(SqlError::new(ErrorCode::ObjectInUse, message).detail(detail));
    }
    store.drop_database(name)?;
    store.sync()?;
    Ok(Outcome::done("DROP DATABASE"))
}
