//! SET, SHOW, RESET.

use pg_query::protobuf::{Node, VariableSetKind, VariableSetStmt};
use strandline_storage::Value;

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::settings::display_name;
use crate::session::{Notice, NoticeCode, Outcome, OutputColumn, Session, SetScope};
use crate::statement::{query, tree};
use crate::system::ProcedureSession;
use crate::system::identifier::quote_identifier;

pub fn set(session: &mut Session, set: &VariableSetStmt) -> Result<Outcome> {
    let core = session.core.clone();
    if let Some(database) = crate::parse::used_database(set) {
        if core.in_explicit() {
            return Err(SqlError::new(ErrorCode::ActiveTransaction, "USE cannot run inside a transaction block"));
        }
        // What statements before it in one batch have changed belongs to the old place.
        ProcedureSession::flush(&*core)?;
        core.switch_database(database)?;
        return Ok(Outcome::done("USE"));
    }
    let scope = if set.is_local { SetScope::Local } else { SetScope::Session };
    if set.is_local && !core.in_explicit() {
        core.notice(Notice::warning(NoticeCode::NoActiveTransaction, "SET LOCAL can only be used in transaction blocks"));
    }
    match set.kind() {
        VariableSetKind::VarSetValue => {
            let value = value_text(&set.name, &set.args)?;
            core.set_setting(&set.name, &value, scope)?;
            Ok(Outcome::done("SET"))
        }
        VariableSetKind::VarSetDefault => {
            core.reset_setting(&set.name)?;
            Ok(Outcome::done("SET"))
        }
        VariableSetKind::VarSetCurrent => {
            let value = core.setting(&set.name).ok_or_else(|| unknown(&set.name))?;
            core.set_setting(&set.name, &value, scope)?;
            Ok(Outcome::done("SET"))
        }
        VariableSetKind::VarSetMulti => {
            for option in tree::def_elems(&set.args) {
                let value = tree::def_text(option).unwrap_or_default();
                match (set.name.as_str(), option.defname.as_str()) {
                    ("TRANSACTION", "transaction_read_only") => core.set_read_only(tree::def_bool(option)?)?,
                    ("TRANSACTION", "transaction_isolation") => {
                        core.set_setting("transaction_isolation", &value, SetScope::Local)?;
                    }
                    ("TRANSACTION", "transaction_deferrable") => {}
                    ("SESSION CHARACTERISTICS", name) => {
                        core.set_setting(&format!("default_{name}"), &value, SetScope::Session)?;
                    }
                    (kind, _) => return Err(SqlError::unsupported(format_args!("SET {kind}"))),
                }
            }
            if set.name == "TRANSACTION" && !core.in_explicit() {
                core.notice(Notice::warning(NoticeCode::NoActiveTransaction, "SET TRANSACTION can only be used in transaction blocks"));
            }
            Ok(Outcome::done("SET"))
        }
        VariableSetKind::VarReset => {
            core.reset_setting(&set.name)?;
            Ok(Outcome::done("RESET"))
        }
        VariableSetKind::VarResetAll => {
            core.reset_all_settings()?;
            Ok(Outcome::done("RESET"))
        }
        VariableSetKind::Undefined => Err(tree::malformed()),
    }
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
}

/// The value as one text: a list is joined, each item quoted where the setting is a list of names.
fn value_text(name: &str, args: &[Node]) -> Result<String> {
    let is_list = matches!(name.to_ascii_lowercase().as_str(), "search_path" | "datestyle" | "temp_tablespaces");
    let mut parts = Vec::new();
    for arg in args {
        let text = tree::node_text(arg).ok_or_else(|| SqlError::unsupported("this form of SET's argument"))?;
        parts.push(if is_list && name.eq_ignore_ascii_case("search_path") { quote_identifier(&text).into_owned() } else { text });
    }
    if parts.len() > 1 && !is_list {
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("SET {name} takes only one argument")));
    }
    Ok(parts.join(", "))
}

/// The columns of SHOW's result.
pub fn show_columns(session: &Session, name: &str) -> Result<Vec<OutputColumn>> {
    if name.eq_ignore_ascii_case("all") {
        ["name", "setting", "description"].iter().map(|n| query::text_column(session, n)).collect()
    } else {
        if session.core.setting(name).is_none() {
            return Err(unknown(name));
        }
        Ok(vec![query::text_column(session, display_name(&name.to_ascii_lowercase()))?])
    }
}

pub fn show(session: &mut Session, name: &str) -> Result<Outcome> {
    let columns = show_columns(session, name)?;
    let rows = if name.eq_ignore_ascii_case("all") {
        let values = session.core.state.lock().settings.values().clone();
        values.iter().map(|(name, value)| vec![Value::bytes(display_name(name)), Value::bytes(value), Value::bytes("")]).collect()
    } else {
        vec![vec![Value::bytes(session.core.setting(name).unwrap_or_default())]]
    };
    let context = session.core.statement_context(Vec::new())?;
    query::rows_outcome(context, columns, rows, crate::session::RowsTag::Fixed("SHOW".into()))
}
