//! Tables that are computed: pg_catalog, information_schema, the version tables and version functions; refs; procedures.
//!
//! [`lookup`] and [`table_function`] are the doors: the session's name resolution comes here for every name that is not
//! a stored table, view or sequence.

pub mod builder;
mod check_text;
pub mod definitions;
pub mod identifier;
pub mod information_schema;
pub mod pg_catalog;
pub mod pretty;
pub mod procedures;
pub mod refs;
pub mod scalars;
pub mod versions;

use std::sync::Arc;

use strandline_storage::Value;

use crate::bind::names::TableFunctionArgument;
use crate::context::StatementContext;
use crate::error::Result;
use crate::virtual_table::VirtualTable;

pub use procedures::{ProcedureSession, call_procedure, is_procedure};
pub use scalars::call_scalar;
pub use versions::is_table_function;

/// The computed table that a name stands for, without a schema through the search path. Names come folded; version
/// tables are found whatever the case.
pub fn lookup(schema: Option<&str>, name: &str, context: &StatementContext) -> Option<Arc<dyn VirtualTable>> {
    match schema {
        Some("pg_catalog") => pg_catalog::lookup(name),
        Some("information_schema") => information_schema::lookup(name),
        Some(schema) if schema.eq_ignore_ascii_case("dolt") => versions::lookup_database_wide(name),
        Some(schema) => versions::lookup_of_table(schema, name, context),
        None => {
            let path = &context.search_path;
            let catalog = || pg_catalog::lookup(name);
            let explicit = path.iter().any(|s| s == "pg_catalog");
            if !explicit && let Some(found) = catalog() {
                return Some(found);
            }
            for schema in path {
                let schema = if schema == "$user" { context.user.as_str() } else { schema };
                let found = match schema {
                    "pg_catalog" => catalog(),
                    "information_schema" => information_schema::lookup(name),
                    _ => versions::lookup_of_table(schema, name, context),
                };
                if found.is_some() {
                    return found;
                }
            }
            let prefix = name.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("dolt_"));
            if prefix { versions::lookup_database_wide(&name[5..]) } else { versions::lookup_own(name) }
        }
    }
}

/// The table that a version function gives. `None`: no such function.
/// # Errors
/// For arguments that it does not take.
pub fn table_function(
    schema: Option<&str>,
    name: &str,
    arguments: &[TableFunctionArgument],
    context: &Arc<StatementContext>,
) -> Result<Option<Arc<dyn VirtualTable>>> {
    if !is_table_function(schema, name) {
        return Ok(None);
    }
    versions::table_function(&name.to_ascii_lowercase(), arguments, context).map(Some)
}

/// The bytes of a value as text.
fn value_text(value: &Value) -> Option<&str> {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
