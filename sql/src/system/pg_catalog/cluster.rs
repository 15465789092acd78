//! What is not of one database: databases, roles, tablespaces, settings.

use std::collections::BTreeMap;

use strandline_storage::value::TextSettings;
use strandline_storage::{Row, Value};

use super::classes::BOOTSTRAP_ROLE;
use super::relations::{RowMaker, relations};
use crate::context::StatementContext;
use crate::session::settings;
use crate::system::builder::{letter, oid, text};
use crate::system::definitions::owner_of;
use crate::types::Oid;

/// Derived oids of databases and of roles that the store does not number: a range for each, then 28 bits of the name's hash.
const DATABASE_OID_BITS: Oid = 0x2000_0000;
const ROLE_OID_BITS: Oid = 0x1000_0000;
/// The tablespaces' oids.
const PG_DEFAULT: Oid = 1663;
const PG_GLOBAL: Oid = 1664;
/// UTF8 in pg_encoding_to_char.
const UTF8: i32 = 6;

fn name_hash(name: &str) -> Oid {
    let hash = blake3::hash(name.as_bytes());
    let bytes = hash.as_bytes();
    Oid::from_be_bytes([bytes[0] & 0x0f, bytes[1], bytes[2], bytes[3]])
}

/// A database's oid: the same for its name everywhere.
pub fn database_oid(name: &str) -> Oid {
    if name == "postgres" { 5 } else { DATABASE_OID_BITS | name_hash(name) }
}

/// A role as the session layer stores it.
struct Role {
    name: String,
    oid: Oid,
    superuser: bool,
    inherit: bool,
    create_role: bool,
    create_database: bool,
    login: bool,
    replication: bool,
    bypass_rls: bool,
    connection_limit: i32,
    password: bool,
}

/// The predefined role that owns schema `public`; nobody logs in as it.
const DATABASE_OWNER: (&str, Oid) = ("pg_database_owner", 6171);

fn derived_role_oid(name: &str) -> Oid {
    match name {
        "postgres" => BOOTSTRAP_ROLE,
        name if name == DATABASE_OWNER.0 => DATABASE_OWNER.1,
        name => ROLE_OID_BITS | name_hash(name),
    }
}

/// Stored roles, then owners and the user of this session where no role of their name is stored.
fn all_roles(context: &StatementContext) -> Vec<Role> {
    let mut roles: BTreeMap<String, Role> = BTreeMap::new();
    for (key, bytes) in context.store.list_state("role/") {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        let name = json["name"].as_str().map_or_else(|| key.trim_start_matches("role/").to_string(), str::to_string);
        let flag = |field: &str| json[field].as_bool().unwrap_or(false);
        let role = Role {
            oid: json["oid"].as_u64().map_or_else(|| derived_role_oid(&name), |v| v as Oid),
            superuser: flag("superuser"),
            inherit: json["inherit"].as_bool().unwrap_or(true),
            create_role: flag("create_role"),
            create_database: flag("create_database"),
            login: flag("login"),
            replication: flag("replication"),
            bypass_rls: flag("bypass_rls"),
            connection_limit: json["connection_limit"].as_i64().and_then(|v| i32::try_from(v).ok()).unwrap_or(-1),
            password: !json["password"].is_null(),
            name: name.clone(),
        };
        roles.insert(name, role);
    }
    let owners = context.root.catalog().objects.values().map(|o| owner_of(o).to_string());
    for name in owners.chain([context.user.clone(), DATABASE_OWNER.0.to_string()]) {
        let powerless = name == DATABASE_OWNER.0 || (!roles.is_empty() && name != context.user);
        roles.entry(name.clone()).or_insert_with(|| Role {
            oid: derived_role_oid(&name),
            name,
            superuser: !powerless,
            inherit: true,
            create_role: !powerless,
            create_database: !powerless,
            login: !powerless,
            replication: !powerless,
            bypass_rls: !powerless,
            connection_limit: -1,
            password: false,
        });
    }
    roles.into_values().collect()
}

/// The oid of a role by name: the stored one, else one derived from the name.
pub fn role_oid(context: &StatementContext, name: &str) -> Oid {
    context
        .store
        .get_state(&format!("role/{name}"))
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|json| json["oid"].as_u64())
        .map_or_else(|| derived_role_oid(name), |v| v as Oid)
}

/// `pg_get_userbyid`.
pub fn role_name(context: &StatementContext, role: Oid) -> Option<String> {
    all_roles(context).into_iter().find(|r| r.oid == role).map(|r| r.name)
}

/// The names of all databases in order.
pub fn database_names(context: &StatementContext) -> Vec<String> {
    let mut names = context.store.databases();
    let show_branches = context.settings.get("dolt_show_branch_databases").is_some_and(|v| matches!(v.as_str(), "on" | "1" | "true"));
    if show_branches {
        let plain = names.clone();
        for name in plain {
            for (branch, _) in context.store.branches(&name).unwrap_or_default() {
                names.push(format!("{name}/{branch}"));
            }
        }
    }
    if !names.contains(&context.database) {
        names.push(context.database.clone());
    }
    names.sort();
    names
}

pub fn databases(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_database");
    database_names(context)
        .iter()
        .map(|name| {
            relation
                .row()
                .set("oid", oid(database_oid(name)))
                .set("datname", text(name))
                .set("datdba", oid(BOOTSTRAP_ROLE))
                .set("encoding", Value::Int4(UTF8))
                .set("datlocprovider", letter(b'c'))
                .set("datallowconn", Value::Bool(true))
                .set("datconnlimit", Value::Int4(-1))
                .set("dattablespace", oid(PG_DEFAULT))
                .set("datcollate", text("C"))
                .set("datctype", text("C"))
                .done()
        })
        .collect()
}

pub fn authids(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_authid");
    all_roles(context)
        .iter()
        .map(|role| {
            relation
                .row()
                .set("oid", oid(role.oid))
                .set("rolname", text(&role.name))
                .set("rolsuper", Value::Bool(role.superuser))
                .set("rolinherit", Value::Bool(role.inherit))
                .set("rolcreaterole", Value::Bool(role.create_role))
                .set("rolcreatedb", Value::Bool(role.create_database))
                .set("rolcanlogin", Value::Bool(role.login))
                .set("rolreplication", Value::Bool(role.replication))
                .set("rolbypassrls", Value::Bool(role.bypass_rls))
                .set("rolconnlimit", Value::Int4(role.connection_limit))
                .done()
        })
        .collect()
}

pub fn roles(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_roles");
    all_roles(context)
        .iter()
        .map(|role| {
            relation
                .row()
                .set("oid", oid(role.oid))
                .set("rolname", text(&role.name))
                .set("rolsuper", Value::Bool(role.superuser))
                .set("rolinherit", Value::Bool(role.inherit))
                .set("rolcreaterole", Value::Bool(role.create_role))
                .set("rolcreatedb", Value::Bool(role.create_database))
                .set("rolcanlogin", Value::Bool(role.login))
                .set("rolreplication", Value::Bool(role.replication))
                .set("rolbypassrls", Value::Bool(role.bypass_rls))
                .set("rolconnlimit", Value::Int4(role.connection_limit))
                .set("rolpassword", text("********"))
                .done()
        })
        .collect()
}

fn user_columns(row: RowMaker<'static>, role: &Role) -> RowMaker<'static> {
    row.set("usename", text(&role.name))
        .set("usesysid", oid(role.oid))
        .set("usecreatedb", Value::Bool(role.create_database))
        .set("usesuper", Value::Bool(role.superuser))
        .set("userepl", Value::Bool(role.replication))
        .set("usebypassrls", Value::Bool(role.bypass_rls))
}

pub fn users(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_user");
    let login = all_roles(context).into_iter().filter(|r| r.login);
    login.map(|role| user_columns(relation.row(), &role).set("passwd", text("********")).done()).collect()
}

/// As pg_user, without a password's verifier: it is never shown.
pub fn shadows(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_shadow");
    let login = all_roles(context).into_iter().filter(|r| r.login);
    login
        .map(|role| user_columns(relation.row(), &role).set("passwd", if role.password { text("********") } else { Value::Null }).done())
        .collect()
}

/// Roles that cannot log in are groups.
pub fn groups(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_group");
    let groups = all_roles(context).into_iter().filter(|r| !r.login);
    groups
        .map(|role| relation.row().set("groname", text(&role.name)).set("grosysid", oid(role.oid)).set("grolist", text("{}")).done())
        .collect()
}

pub fn tablespaces(_context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_tablespace");
    [(PG_DEFAULT, "pg_default"), (PG_GLOBAL, "pg_global")]
        .into_iter()
        .map(|(id, name)| relation.row().set("oid", oid(id)).set("spcname", text(name)).set("spcowner", oid(BOOTSTRAP_ROLE)).done())
        .collect()
}

pub fn settings(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_settings");
    context
        .settings
        .iter()
        .map(|(name, value)| {
            let (value, unit, kind, access) = settings::described(name, value);
            let category = if name.starts_with("dolt_") { "Version Control" } else { "Client Connection Defaults" };
            relation
                .row()
                .set("name", text(settings::display_name(name)))
                .set("setting", text(&value))
                .set("unit", unit.map_or(Value::Null, text))
                .set("category", text(category))
                .set("context", text(access))
                .set("vartype", text(kind))
                .set("source", text("session"))
                .set("reset_val", text(&value))
                .set("pending_restart", Value::Bool(false))
                .done()
        })
        .collect()
}

pub fn time_zones(_context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_timezone_names");
    let now = jiff::Timestamp::now();
    let interval = strandline_storage::DataType::builtin(crate::types::oid::INTERVAL, -1);
    jiff::tz::db()
        .available()
        .filter_map(|name| {
            let zone = jiff::tz::TimeZone::get(name.as_str()).ok()?;
            let info = zone.to_offset_info(now);
            let seconds = info.offset().seconds();
            let sign = if seconds < 0 { "-" } else { "" };
            let offset = format!("{sign}{:02}:{:02}:{:02}", seconds.abs() / 3600, seconds.abs() / 60 % 60, seconds.abs() % 60);
            let offset = interval.as_ref()?.parse(&offset, &TextSettings::default()).ok()?;
            Some(
                relation
                    .row()
                    .set("name", text(name.as_str()))
                    .set("abbrev", text(info.abbreviation()))
                    .set("utc_offset", offset)
                    .set("is_dst", Value::Bool(info.dst().is_dst()))
                    .done(),
            )
        })
        .collect()
}

pub fn database_statistics(context: &StatementContext) -> Vec<Row> {
    let relation = relations().catalog("pg_stat_database");
    database_names(context)
        .iter()
        .map(|name| relation.row().set("datid", oid(database_oid(name))).set("datname", text(name)).done())
        .collect()
}
