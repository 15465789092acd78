//! The version functions that give one value: `active_branch()`, `dolt_hashof('HEAD~1')`, `has_ancestor(a, b)`.

use strandline_storage::{Root, Value};

use super::builder::text;
use super::refs::Resolver;
use super::versions::mapping::table_named;
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};

/// How commits and trees are stored, for `dolt_storage_format()`.
const STORAGE_FORMAT: &str = "STRANDLINE 1";

/// Calls a version function by name. `None`: there is none of this name. NULL arguments give NULL.
/// # Errors
/// Refs and tables that do not exist.
pub fn call_scalar(name: &str, arguments: &[Option<String>], context: &StatementContext) -> Option<Result<Value>> {
    let known = [
        "active_branch",
        "dolt_version",
        "dolt_storage_format",
        "dolt_hashof",
        "hashof",
        "dolt_hashof_table",
        "dolt_hashof_db",
        "dolt_merge_base",
        "has_ancestor",
    ];
    let name = known.iter().find(|n| n.eq_ignore_ascii_case(name))?;
    let arguments: Option<Vec<&str>> = arguments.iter().map(Option::as_deref).collect();
    match arguments {
        Some(arguments) => Some(call(name, &arguments, context)),
        None => Some(Ok(Value::Null)),
    }
}

fn call(name: &str, arguments: &[&str], context: &StatementContext) -> Result<Value> {
    let resolver = Resolver::new(context);
    Ok(match (name, arguments) {
        ("active_branch", []) => match &context.revision {
            Revision::Branch(branch) => text(branch),
            Revision::Commit(_) => Value::Null,
        },
        ("dolt_version", []) => text(env!("CARGO_PKG_VERSION")),
        ("dolt_storage_format", []) => text(STORAGE_FORMAT),
        ("dolt_hashof" | "hashof", [reference]) => text(resolver.commit(reference)?.to_string()),
        ("dolt_hashof_db", []) => text(content_hash(&context.root)?),
        ("dolt_hashof_db", [reference]) => text(content_hash(&resolver.root(resolver.resolve(reference)?)?)?),
        ("dolt_hashof_table", [table]) => {
            let table = table_named(context, context.root.catalog(), table)?;
            text(table_hash(&context.root, table.oid)?)
        }
        ("dolt_merge_base", [a, b]) => match context.store.merge_base(resolver.commit(a)?, resolver.commit(b)?)? {
            Some(base) => text(base.to_string()),
            None => Value::Null,
        },
        ("has_ancestor", [target, ancestor]) => {
            let (target, ancestor) = (resolver.commit(target)?, resolver.commit(ancestor)?);
            Value::Bool(target == ancestor || context.store.is_ancestor(ancestor, target)?)
        }
        _ => {
            let message = format!("function {name}() does not take {} arguments", arguments.len());
            return Err(SqlError::new(ErrorCode::UndefinedFunction, message));
        }
    })
}

/// Absorbs a table's definition and rows, so that equal tables have equal hashes whatever their history.
fn absorb_table(hasher: &mut blake3::Hasher, root: &Root, table: u32) -> Result<()> {
    let Some(data) = root.table(table) else { return Ok(()) };
    let schema = data.schema();
    let mut absorb = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    absorb(super::definitions::create_table_text(root.catalog(), schema).as_bytes());
    let settings = strandline_storage::value::TextSettings::default();
    let mut cursor = data.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    let mut shown = Vec::new();
    while let Some((_, row)) = cursor.next_row()? {
        for (value, column) in row.iter().zip(&schema.columns) {
            shown.clear();
            column.data_type.format(value, &settings, &mut shown);
            absorb(if value.is_null() { b"\0null" } else { &shown });
        }
    }
    Ok(())
}

fn table_hash(root: &Root, table: u32) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    absorb_table(&mut hasher, root, table)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn content_hash(root: &Root) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for object in root.catalog().objects.values() {
        hasher.update(super::definitions::create_text(root.catalog(), object).as_bytes());
        absorb_table(&mut hasher, root, object.oid())?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
