//! The version tables and functions: `dolt_log`, `dolt_diff_t`, `dolt_history_t` and their kin.
//!
//! Names, column order and types are a contract with clients; a test holds them against the written one. Columns that only
//! we have (where a commit came from) stand last. Everything is read lazily: from the commit log, from the row history's index,
//! or as a diff of two roots.

mod blame;
mod branches;
mod changes;
mod commits;
mod diff;
mod history;
pub(crate) mod mapping;
mod status;
mod summary;
mod workspace;

use std::fmt;
use std::sync::Arc;

use strandline_storage::{Catalog, CatalogObject, Commit, CommitId, Kind, TableSchema, Value};

use crate::bind::names::TableFunctionArgument;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::builder::{Shape, optional_text, text};
use crate::types::{Oid, SqlType, oid};
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn, VirtualTable};

/// Where the oids of the database-wide version tables begin: outside PostgreSQL's assigned range, below users' objects.
const VERSION_TABLE_OID: Oid = 15500;

type ScanFunction = dyn Fn(&Shape, &Arc<StatementContext>, &ScanRequest) -> Result<BatchIterator> + Send + Sync;

/// A computed table: its columns, and the function that reads it.
pub struct VersionTable {
    name: String,
    oid: Oid,
    shape: Shape,
    scan: Box<ScanFunction>,
}

impl fmt::Debug for VersionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl VirtualTable for VersionTable {
    fn columns(&self) -> &[VirtualColumn] {
        &self.shape.columns
    }

    fn scan(&self, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
        (self.scan)(&self.shape, context, request)
    }

    fn oid(&self) -> u32 {
        self.oid
    }
}

impl VersionTable {
    fn new(
        name: impl Into<String>,
        shape: Shape,
        scan: impl Fn(&Shape, &Arc<StatementContext>, &ScanRequest) -> Result<BatchIterator> + Send + Sync + 'static,
    ) -> VersionTable {
        VersionTable { name: name.into(), oid: 0, shape, scan: Box::new(scan) }
    }

    fn shared(self) -> Arc<dyn VirtualTable> {
        Arc::new(self)
    }
}

/// The columns of what only a replicated commit has; they come last.
pub(crate) const SOURCE_COLUMNS: [(&str, Oid); 5] = [
    ("source_lsn", oid::PG_LSN),
    ("source_xid", oid::INT8),
    ("source_commit_time", oid::TIMESTAMPTZ),
    ("source_origin", oid::TEXT),
    ("source_context", oid::JSONB),
];

const TEXT: Oid = oid::TEXT;
const BOOL: Oid = oid::BOOL;
const INT8: Oid = oid::INT8;
const NUMERIC: Oid = oid::NUMERIC;
const TIMESTAMP: Oid = oid::TIMESTAMP;

/// The database-wide tables without their `dolt_` prefix, and their columns.
const DATABASE_WIDE: &[(&str, &[(&str, Oid)])] = &[
    ("log", commits::LOG_COLUMNS),
    ("commits", commits::COMMITS_COLUMNS),
    ("commit_ancestors", commits::ANCESTORS_COLUMNS),
    ("diff", changes::DIFF_COLUMNS),
    ("column_diff", changes::COLUMN_DIFF_COLUMNS),
    ("status", status::STATUS_COLUMNS),
    ("status_ignored", status::STATUS_IGNORED_COLUMNS),
    ("branches", branches::BRANCHES_COLUMNS),
    ("remote_branches", branches::REMOTE_BRANCHES_COLUMNS),
    ("tags", branches::TAGS_COLUMNS),
    ("remotes", &[("name", TEXT), ("url", TEXT), ("fetch_specs", oid::JSON), ("params", oid::JSON)]),
    ("backups", &[("name", TEXT), ("url", TEXT), ("params", oid::JSON)]),
    ("stashes", &[("name", TEXT), ("stash_id", TEXT), ("branch", TEXT), ("hash", TEXT), ("commit_message", TEXT)]),
    ("merge_status", &[("is_merging", BOOL), ("source", TEXT), ("source_commit", TEXT), ("target", TEXT), ("unmerged_tables", TEXT)]),
    ("conflicts", &[("table", TEXT), ("num_conflicts", NUMERIC)]),
    ("constraint_violations", &[("table", TEXT), ("num_violations", NUMERIC)]),
    (
        "schema_conflicts",
        &[("table_name", TEXT), ("base_schema", TEXT), ("our_schema", TEXT), ("their_schema", TEXT), ("description", TEXT)],
    ),
    ("schemas", &[("type", oid::VARCHAR), ("name", oid::VARCHAR), ("fragment", TEXT), ("extra", oid::JSON), ("sql_mode", oid::VARCHAR)]),
    ("docs", &[("doc_name", TEXT), ("doc_text", TEXT)]),
    ("ignore", &[("pattern", TEXT), ("ignored", BOOL)]),
];

/// Tables whose rows carry the source's coordinates.
const WITH_SOURCE: &[&str] = &["log", "commits", "diff"];

/// A database-wide table by its name without prefix, whatever the case.
pub fn lookup_database_wide(name: &str) -> Option<Arc<dyn VirtualTable>> {
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_prefix("dolt_").unwrap_or(&lower);
    let position = DATABASE_WIDE.iter().position(|(n, _)| *n == lower)?;
    let (name, columns) = DATABASE_WIDE[position];
    let mut columns = columns.to_vec();
    if WITH_SOURCE.contains(&name) {
        columns.extend(SOURCE_COLUMNS);
    }
    let shape = Shape::of(&columns);
    let mut table = match name {
        "log" => VersionTable::new("dolt_log", shape, commits::scan_log),
        "commits" => VersionTable::new("dolt_commits", shape, commits::scan_commits),
        "commit_ancestors" => VersionTable::new("dolt_commit_ancestors", shape, commits::scan_ancestors),
        "diff" => VersionTable::new("dolt_diff", shape, changes::scan_diff),
        "column_diff" => VersionTable::new("dolt_column_diff", shape, changes::scan_column_diff),
        "status" | "status_ignored" => VersionTable::new(format!("dolt_{name}"), shape, status::scan_status),
        "branches" => VersionTable::new("dolt_branches", shape, branches::scan_branches),
        "tags" => VersionTable::new("dolt_tags", shape, branches::scan_tags),
        "merge_status" => VersionTable::new("dolt_merge_status", shape, status::scan_merge_status),
        "conflicts" => VersionTable::new("dolt_conflicts", shape, status::scan_conflicts),
        "schemas" => VersionTable::new("dolt_schemas", shape, status::scan_schemas),
        // No remotes, stashes, merges under way or documents can be made here, so these are truly empty.
        _ => VersionTable::new(format!("dolt_{name}"), shape, |shape, _, request| Ok(shape.batches(request, Box::new(std::iter::empty())))),
    };
    table.oid = VERSION_TABLE_OID + position as Oid;
    Some(table.shared())
}

/// Tables of ours that Dolt does not have, by their whole name.
pub fn lookup_own(name: &str) -> Option<Arc<dyn VirtualTable>> {
    let (mut table, position) = match name.to_ascii_lowercase().as_str() {
        "strand_conflicts" => {
            let shape = Shape::of(status::LOCAL_CONFLICTS_COLUMNS);
            (VersionTable::new("strand_conflicts", shape, status::scan_local_conflicts), 0)
        }
        "strand_replication_conflicts" => {
            let shape = Shape::of(status::REPLICATION_CONFLICTS_COLUMNS);
            (VersionTable::new("strand_replication_conflicts", shape, status::scan_replication_conflicts), 1)
        }
        "strand_replication_status" => {
            let shape = Shape::of(status::REPLICATION_STATUS_COLUMNS);
            (VersionTable::new("strand_replication_status", shape, status::scan_replication_status), 2)
        }
        _ => return None,
    };
    table.oid = VERSION_TABLE_OID + (DATABASE_WIDE.len() + position) as Oid;
    Some(table.shared())
}

/// Prefixes of per-table tables, the longer first where one begins another.
const PER_TABLE: &[&str] = &[
    "dolt_diff_",
    "dolt_commit_diff_",
    "dolt_history_",
    "dolt_blame_",
    "dolt_workspace_",
    "dolt_conflicts_",
    "dolt_constraint_violations_",
];

/// A per-table table (`dolt_diff_orders`) in the schema of its table.
pub fn lookup_of_table(schema: &str, name: &str, context: &StatementContext) -> Option<Arc<dyn VirtualTable>> {
    let (prefix, table_name) =
        PER_TABLE.iter().find_map(|p| name.get(..p.len()).filter(|n| n.eq_ignore_ascii_case(p)).map(|_| (*p, &name[p.len()..])))?;
    let table = find_table(context, schema, table_name)?;
    of_table(prefix, &table)
}

/// The per-table table of this kind; `None` where a table cannot have one.
fn of_table(prefix: &str, table: &Arc<TableSchema>) -> Option<Arc<dyn VirtualTable>> {
    Some(match prefix {
        "dolt_diff_" => diff::diff_table(table).shared(),
        "dolt_commit_diff_" => diff::commit_diff_table(table).shared(),
        "dolt_history_" => history::history_table(table).shared(),
        "dolt_blame_" => blame::blame_table(table)?.shared(),
        "dolt_workspace_" => workspace::workspace_table(table).shared(),
        "dolt_conflicts_" => workspace::conflicts_table(table).shared(),
        _ => workspace::constraint_violations_table(table).shared(),
    })
}

/// The table of this name in the statement's root; else in HEAD, so that a table that was just dropped still shows its history.
fn find_table(context: &StatementContext, schema: &str, name: &str) -> Option<Arc<TableSchema>> {
    let by_name = |catalog: &Catalog| {
        let exact = catalog.table_by_name(schema, name).cloned();
        exact.or_else(|| {
            let schema_oid = catalog.schema(schema)?.oid;
            catalog.tables().find(|t| t.schema_oid == schema_oid && t.name.eq_ignore_ascii_case(name)).cloned()
        })
    };
    by_name(context.root.catalog()).or_else(|| by_name(context.branch.as_ref()?.head_root.catalog()))
}

/// The table functions, `dolt_` prefix included.
const TABLE_FUNCTIONS: &[&str] = &[
    "dolt_log",
    "dolt_diff",
    "dolt_diff_stat",
    "dolt_diff_summary",
    "dolt_schema_diff",
    "dolt_branch_status",
    "dolt_patch",
    "dolt_reflog",
    "dolt_preview_merge_conflicts_summary",
    "dolt_preview_merge_conflicts",
    "dolt_query_diff",
];

/// Says whether a name is a table function, whatever the arguments.
pub fn is_table_function(schema: Option<&str>, name: &str) -> bool {
    let schema_fits = schema.is_none_or(|s| s.eq_ignore_ascii_case("dolt") || s == "pg_catalog" || s == "public");
    schema_fits && TABLE_FUNCTIONS.iter().any(|f| f.eq_ignore_ascii_case(name))
}

/// The arguments of a table function as texts.
pub(crate) struct Arguments {
    function: &'static str,
    /// The outer `None`: not known yet.
    values: Vec<Option<Option<String>>>,
}

impl Arguments {
    /// # Errors
    /// `UndefinedFunction` for an argument that is no text.
    fn read(function: &'static str, arguments: &[TableFunctionArgument]) -> Result<Arguments> {
        let values = arguments
            .iter()
            .map(|argument| match &argument.value {
                None => Ok(None),
                Some(Value::Null) => Ok(Some(None)),
                Some(value) => match crate::system::value_text(value) {
                    Some(text) => Ok(Some(Some(text.to_string()))),
                    None => Err(SqlError::new(ErrorCode::UndefinedFunction, format!("{function}() takes arguments of type text"))),
                },
            })
            .collect::<Result<_>>()?;
        Ok(Arguments { function, values })
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    /// All arguments are known.
    fn known(&self) -> bool {
        self.values.iter().all(Option::is_some)
    }

    /// An argument that must be there and not NULL; `None` while it is not known.
    fn text(&self, position: usize) -> Result<Option<&str>> {
        match self.values.get(position) {
            Some(Some(Some(text))) => Ok(Some(text)),
            Some(Some(None)) => {
                Err(SqlError::new(ErrorCode::NullValueNotAllowed, format!("arguments of {}() cannot be NULL", self.function)))
            }
            Some(None) => Ok(None),
            None => Err(self.wrong_count()),
        }
    }

    /// All arguments as texts.
    fn texts(&self) -> Result<Vec<&str>> {
        (0..self.len()).map(|i| self.text(i)?.ok_or_else(|| self.unknown())).collect()
    }

    fn wrong_count(&self) -> SqlError {
        SqlError::new(ErrorCode::UndefinedFunction, format!("function {}() does not take {} arguments", self.function, self.len()))
    }

    fn unknown(&self) -> SqlError {
        SqlError::new(ErrorCode::IndeterminateDatatype, format!("the arguments of {}() have no values yet", self.function))
    }
}

/// The table that a function gives; `name` is one of `TABLE_FUNCTIONS` in lower case.
pub fn table_function(name: &str, arguments: &[TableFunctionArgument], context: &Arc<StatementContext>) -> Result<Arc<dyn VirtualTable>> {
    let function = TABLE_FUNCTIONS.iter().find(|f| **f == name).copied().expect("BUG: the caller asked whether it is one");
    let arguments = Arguments::read(function, arguments)?;
    Ok(match function {
        "dolt_log" => commits::log_function(arguments)?.shared(),
        "dolt_diff" => diff::diff_function(arguments, context)?.shared(),
        "dolt_diff_stat" => summary::stat_function(arguments)?.shared(),
        "dolt_diff_summary" => summary::summary_function(arguments)?.shared(),
        "dolt_schema_diff" => summary::schema_diff_function(arguments)?.shared(),
        "dolt_branch_status" => branches::branch_status_function(arguments)?.shared(),
        other => return Err(SqlError::unsupported(format!("function {other}()"))),
    })
}

/// An object's name as results show it: `public.t`, a schema by its plain name.
pub fn qualified_object_name(catalog: &Catalog, object: &CatalogObject) -> String {
    match object.schema_oid() {
        None => object.name().to_string(),
        Some(schema) => format!("{}.{}", catalog.schema_name(schema).unwrap_or("?"), object.name()),
    }
}

/// The object that an argument names (`t`, `public.t`, a schema), unqualified through the search path.
pub fn named_object(context: &StatementContext, catalog: &Catalog, name: &str) -> Option<Arc<CatalogObject>> {
    let verbatim: Vec<String> = name.split('.').map(str::to_string).collect();
    let folded = crate::system::identifier::parse_qualified(name);
    for parts in [Some(verbatim), folded].into_iter().flatten() {
        let found = match parts.as_slice() {
            [plain] => context
                .search_path
                .iter()
                .find_map(|schema| catalog.relation(if schema == "$user" { &context.user } else { schema }, plain))
                .or_else(|| catalog.schema(plain).and_then(|s| catalog.get(s.oid))),
            [schema, table] => catalog.relation(schema, table),
            _ => None,
        };
        if let Some(found) = found {
            return Some(Arc::clone(found));
        }
    }
    None
}

/// A commit's id as text.
fn hash(id: CommitId) -> Value {
    text(id.to_string())
}

fn timestamp(time: strandline_storage::Timestamp) -> Value {
    Value::Int8(time.0)
}

/// A whole number as numeric.
fn numeric(number: u64) -> Value {
    strandline_storage::DataType::builtin(NUMERIC, -1)
        .and_then(|ty| ty.parse(&number.to_string(), &strandline_storage::value::TextSettings::default()).ok())
        .unwrap_or(Value::Null)
}

/// The values of [`SOURCE_COLUMNS`].
fn source_values(commit: Option<&Commit>) -> [Value; 5] {
    let Some(source) = commit.and_then(|c| c.meta.source.as_ref()) else {
        return [Value::Null, Value::Null, Value::Null, Value::Null, Value::Null];
    };
    let context = source.context.as_deref().and_then(|json| {
        let jsonb = strandline_storage::DataType::builtin(oid::JSONB, -1)?;
        jsonb.parse(json, &strandline_storage::value::TextSettings::default()).ok()
    });
    [
        Value::Int8(source.commit_lsn.0 as i64),
        // The base commit of an initial copy has a position but is no transaction of the primary.
        if source.xid == 0 { Value::Null } else { Value::Int8(i64::from(source.xid)) },
        timestamp(source.commit_time),
        optional_text(source.origin.as_ref()),
        context.unwrap_or(Value::Null),
    ]
}

/// The columns of a table with a prefix before each name.
fn table_columns(schema: &TableSchema, prefix: &str) -> Vec<(String, SqlType, Kind)> {
    schema
        .columns
        .iter()
        .map(|c| {
            let ty = SqlType { oid: c.data_type.oid, typmod: c.data_type.typmod };
            (format!("{prefix}{}", c.name), ty, c.data_type.kind)
        })
        .collect()
}

/// Columns of built-in types in the form of [`table_columns`].
fn plain_columns(columns: &[(&str, Oid)]) -> Vec<(String, SqlType, Kind)> {
    columns.iter().map(|(name, ty)| ((*name).to_string(), SqlType::new(*ty), crate::system::builder::kind_of(*ty))).collect()
}

#[cfg(test)]
mod contract;
