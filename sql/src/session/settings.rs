//! Run-time settings: which there are, what they accept, how SET, SET LOCAL, RESET and ROLLBACK treat them.
//!
//! A setting either has an effect here, or every value it accepts is true of us already (`jit`, planner switches are
//! advice), or it accepts only the value that is true. Names with a dot are the user's own, as in PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use strandline_storage::value::{TextSettings, text::DateOrder, text::DateStyle, text::IntervalStyle};

use crate::error::{ErrorCode, Result, SqlError};

/// What a setting accepts.
#[derive(Clone, Copy, Debug)]
enum Accepts {
    Bool,
    /// Inclusive range; the unit that a bare number has (`""`, `ms`, `kB`).
    Int(i64, i64, &'static str),
    Float,
    Enum(&'static [&'static str]),
    Text,
    /// Cannot be changed by SET.
    Fixed,
}

struct Definition {
    name: &'static str,
    accepts: Accepts,
    default: &'static str,
}

const fn def(name: &'static str, accepts: Accepts, default: &'static str) -> Definition {
    Definition { name, accepts, default }
}

/// The version of PostgreSQL whose answers we give.
pub const SERVER_VERSION_NUM: &str = "150014";

const MS_MAX: i64 = i32::MAX as i64;

/// Settings by the names that PostgreSQL gives them.
static DEFINITIONS: &[Definition] = &[
    def("application_name", Accepts::Text, ""),
    def("array_nulls", Accepts::Enum(&["on"]), "on"),
    def("backslash_quote", Accepts::Enum(&["safe_encoding"]), "safe_encoding"),
    def("block_size", Accepts::Fixed, "8192"),
    def("bytea_output", Accepts::Enum(&["hex", "escape"]), "hex"),
    def("check_function_bodies", Accepts::Bool, "on"),
    def("client_encoding", Accepts::Text, "UTF8"),
    def(
        "client_min_messages",
        Accepts::Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]),
        "notice",
    ),
    def("constraint_exclusion", Accepts::Enum(&["partition", "on", "off"]), "partition"),
    def("cpu_index_tuple_cost", Accepts::Float, "0.005"),
    def("cpu_operator_cost", Accepts::Float, "0.0025"),
    def("cpu_tuple_cost", Accepts::Float, "0.01"),
    def("cursor_tuple_fraction", Accepts::Float, "0.1"),
    def("data_checksums", Accepts::Fixed, "on"),
    def("datestyle", Accepts::Text, "ISO, MDY"),
    def("deadlock_timeout", Accepts::Int(1, MS_MAX, "ms"), "1s"),
    def("debug_assertions", Accepts::Fixed, "off"),
    def("default_statistics_target", Accepts::Int(1, 10000, ""), "100"),
    def("default_table_access_method", Accepts::Enum(&["heap"]), "heap"),
    def("default_tablespace", Accepts::Enum(&[""]), ""),
    def("default_text_search_config", Accepts::Text, "pg_catalog.english"),
    def("default_toast_compression", Accepts::Enum(&["pglz", "lz4"]), "pglz"),
    def("default_transaction_deferrable", Accepts::Bool, "off"),
    def(
        "default_transaction_isolation",
        Accepts::Enum(&["read committed", "repeatable read", "read uncommitted", "serializable"]),
        "read committed",
    ),
    def("default_transaction_read_only", Accepts::Bool, "off"),
    def("dolt_allow_commit_conflicts", Accepts::Enum(&["off"]), "off"),
    def("dolt_author_date", Accepts::Text, ""),
    def("dolt_author_email", Accepts::Text, ""),
    def("dolt_author_name", Accepts::Text, ""),
    def("dolt_committer_date", Accepts::Text, ""),
    def("dolt_committer_email", Accepts::Text, ""),
    def("dolt_committer_name", Accepts::Text, ""),
    def("dolt_force_transaction_commit", Accepts::Enum(&["off"]), "off"),
    def("dolt_show_branch_databases", Accepts::Bool, "off"),
    def("dolt_show_system_tables", Accepts::Bool, "off"),
    def("dolt_transaction_commit", Accepts::Bool, "off"),
    def("dolt_transaction_commit_message", Accepts::Text, ""),
    def("effective_cache_size", Accepts::Text, "4GB"),
    def("effective_io_concurrency", Accepts::Int(0, 1000, ""), "1"),
    def("enable_async_append", Accepts::Bool, "on"),
    def("enable_bitmapscan", Accepts::Bool, "on"),
    def("enable_gathermerge", Accepts::Bool, "on"),
    def("enable_hashagg", Accepts::Bool, "on"),
    def("enable_hashjoin", Accepts::Bool, "on"),
    def("enable_incremental_sort", Accepts::Bool, "on"),
    def("enable_indexonlyscan", Accepts::Bool, "on"),
    def("enable_indexscan", Accepts::Bool, "on"),
    def("enable_material", Accepts::Bool, "on"),
    def("enable_memoize", Accepts::Bool, "on"),
    def("enable_mergejoin", Accepts::Bool, "on"),
    def("enable_nestloop", Accepts::Bool, "on"),
    def("enable_parallel_append", Accepts::Bool, "on"),
    def("enable_parallel_hash", Accepts::Bool, "on"),
    def("enable_partition_pruning", Accepts::Bool, "on"),
    def("enable_partitionwise_aggregate", Accepts::Bool, "off"),
    def("enable_partitionwise_join", Accepts::Bool, "off"),
    def("enable_seqscan", Accepts::Bool, "on"),
    def("enable_sort", Accepts::Bool, "on"),
    def("enable_tidscan", Accepts::Bool, "on"),
    def("escape_string_warning", Accepts::Bool, "on"),
    def("extra_float_digits", Accepts::Int(-15, 3, ""), "1"),
    def("from_collapse_limit", Accepts::Int(1, MS_MAX, ""), "8"),
    def("geqo", Accepts::Bool, "on"),
    def("geqo_threshold", Accepts::Int(2, MS_MAX, ""), "12"),
    def("gin_fuzzy_search_limit", Accepts::Int(0, MS_MAX, ""), "0"),
    def("hot_standby_feedback", Accepts::Fixed, "off"),
    def("idle_in_transaction_session_timeout", Accepts::Int(0, MS_MAX, "ms"), "0"),
    def("idle_session_timeout", Accepts::Int(0, MS_MAX, "ms"), "0"),
    def("in_hot_standby", Accepts::Fixed, "off"),
    def("integer_datetimes", Accepts::Fixed, "on"),
    def("intervalstyle", Accepts::Enum(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]), "postgres"),
    def("jit", Accepts::Bool, "off"),
    def("jit_above_cost", Accepts::Float, "100000"),
    def("join_collapse_limit", Accepts::Int(1, MS_MAX, ""), "8"),
    def("lc_collate", Accepts::Fixed, "C"),
    def("lc_ctype", Accepts::Fixed, "C.UTF-8"),
    def("lc_messages", Accepts::Text, "C.UTF-8"),
    def("lc_monetary", Accepts::Text, "C.UTF-8"),
    def("lc_numeric", Accepts::Text, "C.UTF-8"),
    def("lc_time", Accepts::Text, "C.UTF-8"),
    def("lo_compat_privileges", Accepts::Bool, "off"),
    def("lock_timeout", Accepts::Int(0, MS_MAX, "ms"), "0"),
    def("maintenance_work_mem", Accepts::Int(1024, MS_MAX, "kB"), "64MB"),
    def("max_connections", Accepts::Fixed, "100"),
    def("max_function_args", Accepts::Fixed, "100"),
    def("max_identifier_length", Accepts::Fixed, "63"),
    def("max_index_keys", Accepts::Fixed, "32"),
    def("max_parallel_workers", Accepts::Int(0, 1024, ""), "8"),
    def("max_parallel_workers_per_gather", Accepts::Int(0, 1024, ""), "2"),
    def("max_prepared_transactions", Accepts::Fixed, "0"),
    def("parallel_leader_participation", Accepts::Bool, "on"),
    def("parallel_setup_cost", Accepts::Float, "1000"),
    def("parallel_tuple_cost", Accepts::Float, "0.1"),
    def("password_encryption", Accepts::Enum(&["scram-sha-256"]), "scram-sha-256"),
    def("plan_cache_mode", Accepts::Enum(&["auto", "force_generic_plan", "force_custom_plan"]), "auto"),
    def("quote_all_identifiers", Accepts::Enum(&["off"]), "off"),
    def("random_page_cost", Accepts::Float, "4"),
    def("role", Accepts::Text, "none"),
    def("row_security", Accepts::Bool, "on"),
    def("search_path", Accepts::Text, "\"$user\", public"),
    def("segment_size", Accepts::Fixed, "131072"),
    def("seq_page_cost", Accepts::Float, "1"),
    def("server_encoding", Accepts::Fixed, "UTF8"),
    def("server_version", Accepts::Fixed, ""),
    def("server_version_num", Accepts::Fixed, SERVER_VERSION_NUM),
    def("session_authorization", Accepts::Text, ""),
    def("session_replication_role", Accepts::Enum(&["origin", "replica", "local"]), "origin"),
    def("is_superuser", Accepts::Fixed, "on"),
    def("ssl", Accepts::Fixed, "off"),
    def("standard_conforming_strings", Accepts::Enum(&["on"]), "on"),
    def("statement_timeout", Accepts::Int(0, MS_MAX, "ms"), "0"),
    def("synchronize_seqscans", Accepts::Bool, "on"),
    def("synchronous_commit", Accepts::Enum(&["on", "off", "local", "remote_write", "remote_apply"]), "on"),
    def("tcp_keepalives_count", Accepts::Int(0, MS_MAX, ""), "0"),
    def("tcp_keepalives_idle", Accepts::Int(0, MS_MAX, ""), "0"),
    def("tcp_keepalives_interval", Accepts::Int(0, MS_MAX, ""), "0"),
    def("temp_buffers", Accepts::Text, "8MB"),
    def("temp_tablespaces", Accepts::Enum(&[""]), ""),
    def("timezone", Accepts::Text, "UTC"),
    def("transaction_deferrable", Accepts::Bool, "off"),
    def(
        "transaction_isolation",
        Accepts::Enum(&["read committed", "repeatable read", "read uncommitted", "serializable"]),
        "read committed",
    ),
    def("transaction_read_only", Accepts::Bool, "off"),
    // Dumps of version 17 and later switch it off; what would end a transaction is not there.
    def("transaction_timeout", Accepts::Int(0, 0, "ms"), "0"),
    def("transform_null_equals", Accepts::Enum(&["off"]), "off"),
    def("vacuum_cost_delay", Accepts::Float, "0"),
    def("wal_block_size", Accepts::Fixed, "8192"),
    def("wal_level", Accepts::Fixed, "logical"),
    def("work_mem", Accepts::Int(64, MS_MAX, "kB"), "4MB"),
    def("xmlbinary", Accepts::Enum(&["base64", "hex"]), "base64"),
    def("xmloption", Accepts::Enum(&["content", "document"]), "content"),
];

/// Settings whose changes are told to the client, with the names that PostgreSQL uses on the wire.
pub const REPORTED: &[(&str, &str)] = &[
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("default_transaction_read_only", "default_transaction_read_only"),
    ("in_hot_standby", "in_hot_standby"),
    ("integer_datetimes", "integer_datetimes"),
    ("intervalstyle", "IntervalStyle"),
    ("is_superuser", "is_superuser"),
    ("server_encoding", "server_encoding"),
    ("server_version", "server_version"),
    ("session_authorization", "session_authorization"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

/// What pg_settings says of a setting's type: the value in its unit, the unit, the type, who may change it.
pub fn described<'a>(name: &str, value: &'a str) -> (std::borrow::Cow<'a, str>, Option<&'static str>, &'static str, &'static str) {
    let Some(d) = definition(name) else { return (value.into(), None, "string", "user") };
    let (value, unit, kind) = match d.accepts {
        Accepts::Bool => (value.into(), None, "bool"),
        Accepts::Int(_, _, "") => (value.into(), None, "integer"),
        Accepts::Int(_, _, unit) => (parse_int(value, unit).map_or(value.into(), |v| v.to_string().into()), Some(unit), "integer"),
        Accepts::Float => (value.into(), None, "real"),
        Accepts::Enum(_) => (value.into(), None, "enum"),
        Accepts::Text => (value.into(), None, "string"),
        Accepts::Fixed if matches!(value, "on" | "off") => (value.into(), None, "bool"),
        Accepts::Fixed if value.parse::<i64>().is_ok() => (value.into(), None, "integer"),
        Accepts::Fixed => (value.into(), None, "string"),
    };
    let context = match d.accepts {
        Accepts::Fixed if matches!(name, "max_connections" | "max_prepared_transactions" | "wal_level") => "postmaster",
        Accepts::Fixed => "internal",
        _ => "user",
    };
    (value, unit, kind, context)
}

/// The name as SHOW ALL prints it.
pub fn display_name(name: &str) -> &str {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
}

fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.name == name)
}

/// A session's settings: the values now, and those that RESET returns to.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Arc<BTreeMap<String, String>>,
    session_defaults: Arc<BTreeMap<String, String>>,
    text: TextSettings,
}

impl Settings {
    /// Settings of a new session; `overrides` come from the server's configuration and are defaults for RESET, too.
    pub fn new(overrides: &[(&str, String)]) -> Self {
        let mut values: BTreeMap<String, String> = DEFINITIONS.iter().map(|d| (d.name.to_owned(), d.default.to_owned())).collect();
        for (name, value) in overrides {
            values.insert((*name).to_owned(), value.clone());
        }
        let values = Arc::new(values);
        Settings { session_defaults: values.clone(), values, text: TextSettings::default() }
    }

    pub fn values(&self) -> &Arc<BTreeMap<String, String>> {
        &self.values
    }

    pub fn text(&self) -> &TextSettings {
        &self.text
    }

    /// The value by name in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&fold(name)).map(String::as_str)
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("on")
    }

    /// A time setting in milliseconds.
    pub fn milliseconds(&self, name: &str) -> u64 {
        self.get(name).and_then(|v| parse_int(v, "ms")).unwrap_or(0).max(0) as u64
    }

    /// Sets a value; returns the canonical form. `startup`: from the startup packet, so RESET returns to it.
    /// # Errors
    /// `UndefinedObject` for an unknown name, `InvalidParameterValue` for a value it does not accept.
    pub fn set(&mut self, name: &str, value: &str, startup: bool) -> Result<String> {
        let name = fold(name);
        let canonical = canonical(&name, value)?;
        self.apply_text(&name, &canonical)?;
        Arc::make_mut(&mut self.values).insert(name.clone(), canonical.clone());
        if startup {
            Arc::make_mut(&mut self.session_defaults).insert(name, canonical.clone());
        }
        Ok(canonical)
    }

    /// A value that the session itself decides (is_superuser, session_authorization); not checked.
    pub fn force(&mut self, name: &str, value: &str) {
        Arc::make_mut(&mut self.values).insert(name.to_owned(), value.to_owned());
        Arc::make_mut(&mut self.session_defaults).insert(name.to_owned(), value.to_owned());
    }

    /// # Errors
    /// `UndefinedObject` for an unknown name.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        let name = fold(name);
        if let Some(d) = definition(&name) {
            if matches!(d.accepts, Accepts::Fixed) {
                return Err(fixed(&name));
            }
            let default = self.session_defaults.get(&name).cloned().unwrap_or_else(|| d.default.to_owned());
            self.apply_text(&name, &default)?;
            Arc::make_mut(&mut self.values).insert(name, default);
            return Ok(());
        }
        if !name.contains('.') {
            return Err(unknown(&name));
        }
        match self.session_defaults.get(&name) {
            Some(default) => Arc::make_mut(&mut self.values).insert(name, default.clone()),
            None => Arc::make_mut(&mut self.values).insert(name, String::new()),
        };
        Ok(())
    }

    /// RESET ALL.
    pub fn reset_all(&mut self) -> Result<()> {
        let keep: Vec<(String, String)> = ["role", "session_authorization", "transaction_isolation", "transaction_read_only"]
            .iter()
            .filter_map(|n| self.values.get(*n).map(|v| ((*n).to_owned(), v.clone())))
            .collect();
        self.values = self.session_defaults.clone();
        for (name, value) in keep {
            Arc::make_mut(&mut self.values).insert(name, value);
        }
        self.text = TextSettings::default();
        for name in ["datestyle", "intervalstyle", "timezone", "extra_float_digits", "bytea_output"] {
            let value = self.get(name).unwrap_or_default().to_owned();
            self.apply_text(name, &value)?;
        }
        Ok(())
    }

    /// SHOW. # Errors: `UndefinedObject`.
    pub fn show(&self, name: &str) -> Result<String> {
        let name = fold(name);
        self.values.get(&name).cloned().ok_or_else(|| unknown(&name))
    }

    /// The schemas to search for plain names, in order; `$user` replaced.
    pub fn search_path(&self, user: &str) -> Vec<String> {
        let text = self.get("search_path").unwrap_or_default();
        split_identifiers(text)
            .unwrap_or_default()
            .into_iter()
            .map(|name| if name == "$user" { user.to_owned() } else { name })
            .filter(|name| !name.is_empty())
            .collect()
    }

    fn apply_text(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "timezone" => self.text.time_zone = value.to_owned(),
            "extra_float_digits" => self.text.extra_float_digits = value.parse().unwrap_or(1),
            "bytea_output" => self.text.bytea_escape = value == "escape",
            "intervalstyle" => {
                self.text.interval_style = match value {
                    "postgres_verbose" => IntervalStyle::PostgresVerbose,
                    "sql_standard" => IntervalStyle::SqlStandard,
                    "iso_8601" => IntervalStyle::Iso8601,
                    _ => IntervalStyle::Postgres,
                }
            }
            "datestyle" => {
                let (style, order) = parse_date_style(value, DateStyle::Iso, DateOrder::Mdy)?;
                self.text.date_style = style;
                self.text.date_order = order;
            }
            _ => {}
        }
        Ok(())
    }
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
}

fn fixed(name: &str) -> SqlError {
    SqlError::new(ErrorCode::CantChangeRuntimeParam, format!("parameter \"{name}\" cannot be changed"))
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameterValue, format!("invalid value for parameter \"{}\": \"{value}\"", display_name(name)))
}

/// The value as it is kept and shown.
fn canonical(name: &str, value: &str) -> Result<String> {
    let Some(d) = definition(name) else {
        let valid = name.split('.').count() >= 2
            && name.split('.').all(|part| {
                let mut bytes = part.bytes();
                bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b >= 0x80)
                    && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80)
            });
        return if valid { Ok(value.to_owned()) } else { Err(unknown(name)) };
    };
    match d.accepts {
        Accepts::Fixed => Err(fixed(name)),
        Accepts::Bool => match parse_bool(value) {
            Some(true) => Ok("on".into()),
            Some(false) => Ok("off".into()),
            None => Err(SqlError::new(
                ErrorCode::InvalidParameterValue,
                format!("parameter \"{}\" requires a Boolean value", display_name(name)),
            )),
        },
        Accepts::Int(min, max, unit) => {
            let number = parse_int(value, unit).ok_or_else(|| invalid(name, value))?;
            if number < min || number > max {
                let suffix = if unit.is_empty() { String::new() } else { format!(" {unit}") };
                return Err(SqlError::new(
                    ErrorCode::InvalidParameterValue,
                    format!("{number}{suffix} is outside the valid range for parameter \"{name}\" ({min} .. {max})"),
                ));
            }
            Ok(show_int(number, unit))
        }
        Accepts::Float => value.trim().parse::<f64>().map(|f| f.to_string()).map_err(|_| invalid(name, value)),
        Accepts::Enum(options) => {
            let lower = value.to_ascii_lowercase();
            if options.contains(&lower.as_str()) {
                return Ok(lower);
            }
            // On and off have their synonyms where they are among the options.
            let synonym = match parse_bool(value) {
                Some(true) => "on",
                Some(false) => "off",
                None => "",
            };
            if !synonym.is_empty() && options.contains(&synonym) {
                return Ok(synonym.into());
            }
            if options.len() == 1 {
                return Err(SqlError::unsupported(format_args!("value \"{value}\" of parameter \"{name}\"")));
            }
            Err(invalid(name, value).hint(format!("Available values: {}.", options.join(", "))))
        }
        Accepts::Text => match name {
            // Only letters and digits count in an encoding's name: drivers send 'utf-8' with its quotes.
            "client_encoding" => {
                match value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase().as_str() {
                    "utf8" | "unicode" => Ok("UTF8".into()),
                    "sqlascii" => Ok("SQL_ASCII".into()),
                    other if is_other_encoding(other) => Err(SqlError::unsupported(format_args!("client encoding \"{value}\""))),
                    _ => Err(invalid(name, value)),
                }
            }
            "timezone" => canonical_time_zone(value),
            "datestyle" => {
                let (style, order) = parse_date_style(value, DateStyle::Iso, DateOrder::Mdy)?;
                let style = match style {
                    DateStyle::Iso => "ISO",
                    DateStyle::Sql => "SQL",
                    DateStyle::Postgres => "Postgres",
                    DateStyle::German => "German",
                };
                let order = match order {
                    DateOrder::Mdy => "MDY",
                    DateOrder::Dmy => "DMY",
                    DateOrder::Ymd => "YMD",
                };
                Ok(format!("{style}, {order}"))
            }
            "search_path" => {
                split_identifiers(value).ok_or_else(|| invalid(name, value))?;
                Ok(value.to_owned())
            }
            "application_name" => Ok(value.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).take(63).collect()),
            _ => Ok(value.to_owned()),
        },
    }
}

/// Says whether PostgreSQL has an encoding of this name (letters and digits only) that is not supported here.
pub(crate) fn is_other_encoding(name: &str) -> bool {
    const OTHERS: &[&str] = &[
        "abc",
        "alt",
        "big5",
        "euccn",
        "eucjis2004",
        "eucjp",
        "euckr",
        "euctw",
        "gb18030",
        "gbk",
        "johab",
        "koi8",
        "koi8r",
        "koi8u",
        "mskanji",
        "muleinternal",
        "shiftjis",
        "shiftjis2004",
        "sjis",
        "tcvn",
        "tcvn5712",
        "uhc",
        "vscii",
        "win",
    ];
    let numbered = ["iso8859", "latin", "win", "windows"]
        .iter()
        .any(|family| name.strip_prefix(family).is_some_and(|n| !n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit())));
    numbered || OTHERS.contains(&name)
}

fn parse_bool(value: &str) -> Option<bool> {
    let lower = value.trim().to_ascii_lowercase();
    match lower.as_str() {
        "" | "o" => None,
        "1" => Some(true),
        "0" => Some(false),
        "on" => Some(true),
        s if "true".starts_with(s) || "yes".starts_with(s) => Some(true),
        s if "false".starts_with(s) || "no".starts_with(s) || "off".starts_with(s) => Some(false),
        _ => None,
    }
}

/// Reads a number with an optional unit of time.
fn parse_int(value: &str, unit: &str) -> Option<i64> {
    let value = value.trim();
    let split = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let number: f64 = value[..split].trim().parse().ok()?;
    let factor = match (unit, &value[split..]) {
        (_, "") => 1.0,
        ("ms", "us") => 0.001,
        ("ms", "ms") => 1.0,
        ("ms", "s") => 1000.0,
        ("ms", "min") => 60_000.0,
        ("ms", "h") => 3_600_000.0,
        ("ms", "d") => 86_400_000.0,
        ("kB", "B") => 1.0 / 1024.0,
        ("kB", "kB") => 1.0,
        ("kB", "MB") => 1024.0,
        ("kB", "GB") => 1024.0 * 1024.0,
        ("kB", "TB") => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let result = (number * factor).round();
    (result.abs() < 9e15).then_some(result as i64)
}

fn show_int(number: i64, unit: &str) -> String {
    let larger: &[(i64, &str)] = match unit {
        "ms" => &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")],
        "kB" => &[(1 << 30, "TB"), (1 << 20, "GB"), (1 << 10, "MB")],
        _ => &[],
    };
    if larger.is_empty() || number <= 0 {
        return number.to_string();
    }
    match larger.iter().find(|(size, _)| number % size == 0) {
        Some((size, name)) => format!("{}{name}", number / size),
        None => format!("{number}{unit}"),
    }
}

fn parse_date_style(value: &str, mut style: DateStyle, mut order: DateOrder) -> Result<(DateStyle, DateOrder)> {
    for word in value.split(',').map(|w| w.trim().to_ascii_lowercase()) {
        match word.as_str() {
            "iso" => style = DateStyle::Iso,
            "sql" => style = DateStyle::Sql,
            "german" => {
                style = DateStyle::German;
                order = DateOrder::Dmy;
            }
            w if w.starts_with("postgres") => style = DateStyle::Postgres,
            "ymd" => order = DateOrder::Ymd,
            w if w == "dmy" || w.starts_with("euro") => order = DateOrder::Dmy,
            w if w == "mdy" || w == "us" || w.starts_with("noneuro") => order = DateOrder::Mdy,
            "default" => {
                style = DateStyle::Iso;
                order = DateOrder::Mdy;
            }
            _ => return Err(invalid("datestyle", value).detail(format!("Unrecognized key word: \"{word}\"."))),
        }
    }
    Ok((style, order))
}

fn canonical_time_zone(value: &str) -> Result<String> {
    let value = value.trim();
    let invalid = || invalid("timezone", value);
    match value.to_ascii_lowercase().as_str() {
        "default" | "local" => return Ok("UTC".into()),
        "utc" => return Ok("UTC".into()),
        "gmt" => return Ok("GMT".into()),
        _ => {}
    }
    // A number of hours east of Greenwich (SET TIME ZONE -7) is shown in POSIX notation, whose sign is the other one.
    if let Ok(hours) = value.parse::<f64>() {
        if !(-168.0..=168.0).contains(&hours) {
            return Err(invalid());
        }
        let seconds = (hours * 3600.0).round() as i64;
        let (sign, abs) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
        let posix = if seconds < 0 { '+' } else { '-' };
        let digits = match (abs / 3600, abs / 60 % 60) {
            (h, 0) => format!("{h:02}"),
            (h, m) => format!("{h:02}:{m:02}"),
        };
        return Ok(format!("<{sign}{digits}>{posix}{digits}"));
    }
    if let Ok(zone) = jiff::tz::TimeZone::get(value) {
        return Ok(zone.iana_name().unwrap_or(value).to_owned());
    }
    if jiff::tz::TimeZone::posix(value).is_ok() {
        return Ok(value.to_owned());
    }
    Err(invalid())
}

/// Splits a list of identifiers as search_path has it: folded unless quoted.
fn split_identifiers(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (i, '"') if quoted[i + 1..].starts_with('"') => {
                        name.push('"');
                        chars.next();
                    }
                    (i, '"') => break i + 1,
                    (_, c) => name.push(c),
                }
            };
            names.push(name);
            rest = quoted[end..].trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let name = rest[..end].trim();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return None;
            }
            names.push(name.to_lowercase());
            rest = &rest[end..];
        }
        if rest.is_empty() {
            return Some(names);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_canonicalises_and_refuses_what_a_setting_does_not_accept() {
        let mut s = Settings::new(&[]);
        assert_eq!(s.set("Statement_Timeout", "1500ms", false).unwrap(), "1500ms");
        assert_eq!(s.set("statement_timeout", "60000", false).unwrap(), "1min");
        assert_eq!(s.milliseconds("statement_timeout"), 60_000);
        assert_eq!(s.set("jit", "t", false).unwrap(), "on");
        assert!(s.set("standard_conforming_strings", "off", false).is_err());
        assert_eq!(s.set("nosuch", "1", false).unwrap_err().code, ErrorCode::UndefinedObject);
        assert_eq!(s.set("my.own", "1", false).unwrap(), "1");
        assert_eq!(s.set("datestyle", "german", false).unwrap(), "German, DMY");
        s.reset("datestyle").unwrap();
        assert_eq!(s.show("DateStyle").unwrap(), "ISO, MDY");
    }

    #[test]
    fn search_path_folds_and_unquotes() {
        let mut s = Settings::new(&[]);
        assert_eq!(s.search_path("me"), ["me", "public"]);
        s.set("search_path", "A, \"B\"\"c\" , d", false).unwrap();
        assert_eq!(s.search_path("me"), ["a", "B\"c", "d"]);
        s.set("search_path", "", false).unwrap();
        assert!(s.search_path("me").is_empty());
    }
}
