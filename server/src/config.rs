//! `config.yaml`: Doltgres's keys with Doltgres's meaning, and a few of our own.
//!
//! Every key is optional and every unknown key is refused with its line, so that a misspelt setting never
//! goes unnoticed. Passwords may come from the environment, which wins over the file; nothing here prints them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use strandline_replication::client::{ChannelBinding, SslMode, Streaming};
use strandline_replication::{COPY_WORKERS_MAX, STREAM_MEMORY_MAX_DEFAULT, WatchConfig, copy_workers_default};

use crate::byte_size::ByteSize;

/// The environment variable that overrides `user.password`.
pub const USER_PASSWORD_ENV: &str = "STRANDLINE_USER_PASSWORD";
/// The environment variable that overrides `postgres_replication.postgres_password`.
pub const SOURCE_PASSWORD_ENV: &str = "STRANDLINE_POSTGRES_PASSWORD";

/// With less, a store would do little but write nodes out and read them again.
const CACHE_SIZE_MIN: u64 = 16 << 20;

/// A secret that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[serde(alias = "warn")]
    Warning,
    Error,
    /// Doltgres's two highest levels; we log errors there, as nothing is above them here.
    #[serde(alias = "panic")]
    Fatal,
}

impl LogLevel {
    /// The directive for the log filter: our crates at this level, libraries at warnings at most.
    pub fn directive(self) -> String {
        let level = match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warn",
            LogLevel::Error | LogLevel::Fatal => "error",
        };
        let libraries = if matches!(self, LogLevel::Error | LogLevel::Fatal) { "error" } else { "warn" };
        format!(
            "{libraries},strandline={level},strandline_server={level},strandline_sql={level},strandline_replication={level},strandline_storage={level}"
        )
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub log_level: LogLevel,
    /// Where the store lives; the working directory by default.
    pub data_dir: PathBuf,
    /// Where `pg_wal_location` lives; `.doltcfg` inside `data_dir` by default.
    pub cfg_dir: Option<PathBuf>,
    pub user: User,
    pub listener: Listener,
    pub behavior: Behavior,
    pub storage: Storage,
    pub subscriptions: SubscriptionDefaults,
    pub postgres_replication: Option<PostgresReplication>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            log_level: LogLevel::Info,
            data_dir: PathBuf::from("."),
            cfg_dir: None,
            user: User::default(),
            listener: Listener::default(),
            behavior: Behavior::default(),
            storage: Storage::default(),
            subscriptions: SubscriptionDefaults::default(),
            postgres_replication: None,
        }
    }
}

/// The superuser made at the first start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct User {
    pub name: String,
    pub password: Secret,
}

impl Default for User {
    fn default() -> Self {
        User { name: "postgres".into(), password: Secret("password".into()) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    pub host: String,
    pub port: u16,
}

impl Default for Listener {
    fn default() -> Self {
        Listener { host: "127.0.0.1".into(), port: 5432 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behavior {
    pub read_only: bool,
    /// Absent: replicated transactions are commits, local ones change the working set. `true`: both are commits.
    /// `false`: neither.
    pub dolt_transaction_commit: Option<bool>,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// What parts of tables and indexes may take in memory; a quarter of the machine's memory when absent.
    pub cache_size: Option<ByteSize>,
    /// Space is given back in the background.
    pub auto_compaction: Switch,
}

impl Default for Storage {
    fn default() -> Self {
        Storage { cache_size: None, auto_compaction: Switch(true) }
    }
}

/// What holds for every subscription made by SQL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionDefaults {
    /// How long one waits after an error before it tries again, as PostgreSQL's `wal_retrieve_retry_interval` says it.
    pub retry_interval_ms: u64,
    /// As of [`PostgresReplication`].
    pub copy_workers: usize,
    /// How often one looks at the primary for how much log its slot keeps; 0: never. The configured one, too.
    pub slot_check_interval_ms: u64,
    /// From where on that is warned of. The configured one, too.
    pub slot_wal_warning: ByteSize,
}

impl Default for SubscriptionDefaults {
    fn default() -> Self {
        SubscriptionDefaults {
            retry_interval_ms: 5000,
            copy_workers: copy_workers_default(),
            slot_check_interval_ms: 10_000,
            slot_wal_warning: ByteSize(1 << 30),
        }
    }
}

impl SubscriptionDefaults {
    pub fn watch(&self) -> WatchConfig {
        let interval = Some(Duration::from_millis(self.slot_check_interval_ms)).filter(|interval| !interval.is_zero());
        WatchConfig { interval, retained_max: self.slot_wal_warning.0 }
    }
}

/// Replica mode: the primary to follow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresReplication {
    /// libpq's connection string, in place of address, port, user, database and TLS settings.
    pub connection: Option<Secret>,
    pub postgres_server_address: String,
    pub postgres_user: String,
    pub postgres_password: Secret,
    pub postgres_database: String,
    pub postgres_port: u16,
    pub slot_name: String,
    /// The slot's name when absent, as in Doltgres.
    pub publication_names: Option<OneOrMany>,
    pub replica_database: String,
    pub branch: String,
    pub initial_copy: AutoNever,
    pub create_tables: AutoNever,
    /// So many connections copy tables at a time.
    pub copy_workers: usize,
    pub conflicts: Conflicts,
    /// Large transactions are sent while they still run.
    pub streaming: StreamingSwitch,
    /// What transactions that are not committed yet may take in memory.
    pub stream_memory: ByteSize,
    /// Prepared transactions are sent when they are prepared.
    pub two_phase: Switch,
    /// As libpq's settings of these names, whose variables in the environment count where these are absent.
    pub sslmode: Option<String>,
    pub sslrootcert: Option<PathBuf>,
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
    pub channel_binding: Option<String>,
    pub passfile: Option<PathBuf>,
}

/// What to do about changes that do not fit the rows here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conflicts {
    pub insert_exists: InsertExists,
    pub update_exists: UpdateExists,
    pub update_missing: UpdateMissing,
    pub delete_missing: DeleteMissing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InsertExists {
    Error,
    Apply,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateExists {
    Error,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateMissing {
    Skip,
    Apply,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeleteMissing {
    Skip,
    Error,
}

impl Default for Conflicts {
    fn default() -> Self {
        Conflicts {
            insert_exists: InsertExists::Error,
            update_exists: UpdateExists::Error,
            update_missing: UpdateMissing::Skip,
            delete_missing: DeleteMissing::Skip,
        }
    }
}

impl Default for PostgresReplication {
    fn default() -> Self {
        PostgresReplication {
            connection: None,
            postgres_server_address: "127.0.0.1".into(),
            postgres_user: "postgres".into(),
            postgres_password: Secret(String::new()),
            postgres_database: "postgres".into(),
            postgres_port: 5432,
            slot_name: String::new(),
            publication_names: None,
            replica_database: "postgres".into(),
            branch: "main".into(),
            initial_copy: AutoNever::Auto,
            create_tables: AutoNever::Auto,
            copy_workers: copy_workers_default(),
            conflicts: Conflicts::default(),
            streaming: StreamingSwitch(Streaming::On),
            stream_memory: ByteSize(STREAM_MEMORY_MAX_DEFAULT as u64),
            two_phase: Switch(false),
            sslmode: None,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            channel_binding: None,
            passfile: None,
        }
    }
}

impl PostgresReplication {
    /// A key that says where the primary is and has another value than when it is absent.
    fn place_key(&self) -> Option<&'static str> {
        let absent = PostgresReplication::default();
        let differs = [
            ("postgres_server_address", self.postgres_server_address != absent.postgres_server_address),
            ("postgres_user", self.postgres_user != absent.postgres_user),
            ("postgres_database", self.postgres_database != absent.postgres_database),
            ("postgres_port", self.postgres_port != absent.postgres_port),
            ("sslmode", self.sslmode.is_some()),
            ("sslrootcert", self.sslrootcert.is_some()),
            ("sslcert", self.sslcert.is_some()),
            ("sslkey", self.sslkey.is_some()),
            ("channel_binding", self.channel_binding.is_some()),
            ("passfile", self.passfile.is_some()),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
    }

    pub fn publications(&self) -> Vec<String> {
        match &self.publication_names {
            None => vec![self.slot_name.clone()],
            Some(OneOrMany::One(name)) => vec![name.clone()],
            Some(OneOrMany::Many(names)) => names.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// By hand, so that a mistake is reported where it is.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMany::Many(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoNever {
    Auto,
    Never,
}

/// `on` or `off` as PostgreSQL's settings have it, or YAML's own `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

/// By hand, so that a mistake is reported where it is.
impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnOff;
        impl Visitor<'_> for OnOff {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on or off")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(Switch(on))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "on" => Ok(Switch(true)),
                    "off" => Ok(Switch(false)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(OnOff)
    }
}

/// As [`Switch`], or `parallel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamingSwitch(pub Streaming);

/// By hand, so that a mistake is reported where it is.
impl<'de> Deserialize<'de> for StreamingSwitch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = StreamingSwitch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on, off or parallel")
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<StreamingSwitch, E> {
                Ok(StreamingSwitch(if on { Streaming::On } else { Streaming::Off }))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StreamingSwitch, E> {
                match text {
                    "on" => self.visit_bool(true),
                    "off" => self.visit_bool(false),
                    "parallel" => Ok(StreamingSwitch(Streaming::Parallel)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// A setting that cannot be used: one line that names the file, the line and the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a file and the environment.
    ///
    /// # Errors
    /// The file cannot be read, is not YAML, has an unknown key or a value that its key does not take.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|e| ConfigError(format!("could not read configuration file \"{shown}\": {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError(format!("{shown}:{line}: {}the file is not UTF-8 text", key_shown(&String::from_utf8_lossy(e.as_bytes()), line)))
        })?;
        let mut config = Config::parse(&text, &shown.to_string())?;
        if let Some(password) = environment(USER_PASSWORD_ENV)? {
            config.user.password = Secret(password);
        }
        if let (Some(password), Some(source)) = (environment(SOURCE_PASSWORD_ENV)?, &mut config.postgres_replication) {
            source.postgres_password = Secret(password);
        }
        Ok(config)
    }

    /// Parses the text of a configuration file; `file` names it in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
        // A file of nothing but comments is an empty configuration.
        let value: Option<Config> = serde_yaml::from_str(text).map_err(|e| describe(&e, file, text))?;
        let config = value.unwrap_or_default();
        config.validate(file, text)?;
        Ok(config)
    }

    fn validate(&self, file: &str, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, why: &str| {
            let place = line_of(text, key).map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
            Err(ConfigError(format!("{place}: setting \"{key}\" {why}")))
        };
        if self.data_dir.as_os_str().is_empty() {
            return refuse("data_dir", "must not be empty");
        }
        if self.cfg_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return refuse("cfg_dir", "must not be empty");
        }
        if self.user.name.is_empty() {
            return refuse("user.name", "must not be empty");
        }
        if self.listener.host.is_empty() {
            return refuse("listener.host", "must not be empty");
        }
        if self.storage.cache_size.is_some_and(|size| size.0 < CACHE_SIZE_MIN) {
            return refuse("storage.cache_size", "must be at least 16MiB");
        }
        let replication = self.postgres_replication.as_ref();
        let copy_workers = [
            ("subscriptions.copy_workers", Some(self.subscriptions.copy_workers)),
            ("postgres_replication.copy_workers", replication.map(|source| source.copy_workers)),
        ];
        for (name, count) in copy_workers {
            if count.is_some_and(|count| !(1..=COPY_WORKERS_MAX).contains(&count)) {
                return refuse(name, &format!("must be 1 to {COPY_WORKERS_MAX}"));
            }
        }
        if self.subscriptions.retry_interval_ms == 0 {
            return refuse("subscriptions.retry_interval_ms", "must not be 0");
        }
        if let Some(source) = &self.postgres_replication {
            if source.connection.is_some()
                && let Some(key) = source.place_key()
            {
                return refuse(&format!("postgres_replication.{key}"), "is part of \"connection\" and cannot be given beside it");
            }
            let slot = &source.slot_name;
            if slot.is_empty() {
                return refuse("postgres_replication.slot_name", "is required");
            }
            if slot.len() > 63 || !slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                return refuse(
                    "postgres_replication.slot_name",
                    "may only contain lower case letters, numbers, and the underscore character (63 at most)",
                );
            }
            if source.postgres_port == 0 {
                return refuse("postgres_replication.postgres_port", "must not be 0");
            }
            for (key, value) in [
                ("postgres_replication.postgres_server_address", &source.postgres_server_address),
                ("postgres_replication.postgres_user", &source.postgres_user),
                ("postgres_replication.postgres_database", &source.postgres_database),
                ("postgres_replication.replica_database", &source.replica_database),
                ("postgres_replication.branch", &source.branch),
            ] {
                if value.is_empty() {
                    return refuse(key, "must not be empty");
                }
                if value.contains('\0') {
                    return refuse(key, "must not contain a NUL character");
                }
            }
            if source.sslmode.as_ref().is_some_and(|mode| mode.parse::<SslMode>().is_err()) {
                return refuse("postgres_replication.sslmode", "must be disable, prefer, require, verify-ca or verify-full");
            }
            if source.channel_binding.as_ref().is_some_and(|wish| wish.parse::<ChannelBinding>().is_err()) {
                return refuse("postgres_replication.channel_binding", "must be disable, prefer or require");
            }
            if source.publications().iter().any(String::is_empty) || source.publications().is_empty() {
                return refuse("postgres_replication.publication_names", "must name at least one publication");
            }
        }
        Ok(())
    }

    /// `cfg_dir`, resolved.
    pub fn cfg_dir(&self) -> PathBuf {
        self.cfg_dir.clone().unwrap_or_else(|| self.data_dir.join(".doltcfg"))
    }
}

/// Turns a YAML error into `FILE:LINE: what`, with the dotted key where the parser knows it. The parser's own text may
/// quote a scalar of the file, which could be a password: values are never repeated.
fn describe(error: &serde_yaml::Error, file: &str, text: &str) -> ConfigError {
    let full = error.to_string();
    let mut message = full.split(" at line ").next().unwrap_or("malformed").to_owned();
    // The parser places a repeated key where its mapping begins.
    let repeated = message.rsplit_once("duplicate field `").and_then(|(_, rest)| rest.split('`').next());
    let line = match repeated.and_then(|key| repeated_line(text, key, error.location().map_or(1, |l| l.line()))) {
        Some(line) => Some(line),
        None => error.location().map(|location| location.line()),
    };
    let place = line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
    for cause in ["invalid type: ", "invalid value: ", "unknown variant `"] {
        if let (Some(start), Some(end)) = (message.find(cause), message.find(", expected")) {
            message.replace_range(start..end, "invalid value");
        }
    }
    let words = [
        ("unknown field", "unknown setting"),
        ("duplicate field", "duplicate setting"),
        ("expected u16", "expected a number from 0 to 65535"),
        ("deserializing from YAML containing more than one document is not supported", "more than one YAML document"),
    ];
    for (theirs, ours) in words {
        message = message.replace(theirs, ours);
    }
    if let Some(at) = message.find("expected struct ") {
        message.truncate(at);
        message.push_str("expected a mapping of settings");
    }
    let key = line.map_or_else(String::new, |line| key_shown(text, line));
    let is_named = key.split('"').nth(1).is_some_and(|key| message.contains(key));
    ConfigError(if is_named { format!("{place}: {message}") } else { format!("{place}: {key}{message}") })
}

/// `setting "KEY": ` for the key on a line, nothing where it has none.
fn key_shown(text: &str, line: usize) -> String {
    let key = text.lines().nth(line.saturating_sub(1)).and_then(|line| line.split_once(':')).map(|(key, _)| key.trim());
    match key {
        Some(key) if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => format!("setting \"{key}\": "),
        _ => String::new(),
    }
}

/// The line of a dotted key, or of the mapping that lacks it. For block style, which is what people write.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut parts = key.split('.');
    let mut part = parts.next()?;
    let mut found = None;
    for (index, line) in text.lines().enumerate() {
        let is_nested = line.starts_with([' ', '\t']);
        if is_nested == found.is_some() && is_key(line, part) {
            found = Some(index + 1);
            match parts.next() {
                Some(next) => part = next,
                None => break,
            }
        } else if found.is_some() && !is_nested && !line.is_empty() && !line.starts_with('#') {
            break;
        }
    }
    found
}

/// The line of the second `key` of the mapping that begins on or before line `from`.
fn repeated_line(text: &str, key: &str, from: usize) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut places = text.lines().enumerate().skip(from.saturating_sub(1)).filter(|(_, line)| is_key(line, key));
    let (_, first) = places.next()?;
    let (second, _) = places.find(|(_, line)| indent(line) == indent(first))?;
    Some(second + 1)
}

fn is_key(line: &str, key: &str) -> bool {
    line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// A password from the environment.
fn environment(name: &str) -> Result<Option<String>, ConfigError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ConfigError(format!("environment variable {name} is not UTF-8 text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, "config.yaml").expect_err("must be refused").to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = Config::parse("# nothing\n", "f").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.user.name, "postgres");
        assert_eq!(config.user.password.0, "password");
        assert_eq!((config.listener.host.as_str(), config.listener.port), ("127.0.0.1", 5432));
        assert_eq!(config.cfg_dir(), PathBuf::from("./.doltcfg"));
    }

    #[test]
    fn the_stanza_of_the_doltgres_guide_is_read() {
        let text = "postgres_replication:\n  postgres_server_address: 127.0.0.1\n  postgres_user: postgres\n  postgres_password: secret\n  \
                    postgres_database: postgres\n  postgres_port: 5433\n  slot_name: doltgres_slot\n";
        let source = Config::parse(text, "f").unwrap().postgres_replication.unwrap();
        assert_eq!(source.postgres_port, 5433);
        assert_eq!(source.publications(), ["doltgres_slot"]);
        assert_eq!(source.replica_database, "postgres");
        assert_eq!(source.initial_copy, AutoNever::Auto);
    }

    #[test]
    fn the_example_file_is_accepted_and_shows_the_defaults() {
        let text = include_str!("../../config.yaml.example");
        let config = Config::parse(text, "config.yaml.example").unwrap();
        assert_eq!(config.log_level, LogLevel::Info);
        assert_eq!(config.listener, Listener::default());
        assert_eq!(config.user, User::default());
        assert_eq!(config.storage, Storage::default());
        assert_eq!(config.subscriptions, SubscriptionDefaults::default());
        assert!(error("subscriptions:\n  retry_interval_ms: 0\n").contains("subscriptions.retry_interval_ms"));
        assert!(error("subscriptions:\n  copy_workers: 0\n").contains("subscriptions.copy_workers"));
        assert!(error("postgres_replication: {slot_name: a, copy_workers: 65}\n").contains("postgres_replication.copy_workers"));
        let both = error("postgres_replication:\n  slot_name: s\n  connection: host=a\n  postgres_port: 1\n");
        assert!(both.contains("config.yaml:4") && both.contains("postgres_port"), "{both}");
        let source = config.postgres_replication.unwrap();
        let defaults = PostgresReplication::default();
        assert_eq!(source.slot_name, "strandline");
        assert_eq!((source.streaming, source.stream_memory), (defaults.streaming, defaults.stream_memory));
        assert_eq!(source.two_phase, defaults.two_phase);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = error("log_level: info\nlistener:\n  hots: x\n");
        assert!(text.starts_with("config.yaml:3: ") && text.contains("hots") && text.contains("unknown setting"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_line_and_not_repeated() {
        let text = error("listener:\n  port: s3cret\n");
        assert!(text.starts_with("config.yaml:2: ") && text.contains("port") && !text.contains("s3cret"), "{text}");
        let text = error("log_level: s3cret\n");
        assert!(text.contains("config.yaml:1") && text.contains("log_level") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn malformed_yaml_is_named_with_its_line() {
        let text = error("log_level: [info\nuser:\n");
        assert!(text.starts_with("config.yaml:"), "{text}");
    }

    #[test]
    fn a_replica_needs_a_valid_slot_name() {
        assert!(error("postgres_replication: {postgres_port: 1}\n").contains("postgres_replication.slot_name"));
        assert!(error("postgres_replication: {slot_name: Bad-Slot}\n").contains("lower case"));
    }

    #[test]
    fn a_setting_given_twice_is_named_with_its_second_line() {
        let text = error("log_level: info\nuser:\n  name: a\nlog_level: debug\n");
        assert!(text.starts_with("config.yaml:4: ") && text.contains("duplicate setting `log_level`"), "{text}");
        let text = error("user:\n  name: a\n  password: b\n  name: c\n");
        assert!(text.starts_with("config.yaml:4: ") && text.contains("name"), "{text}");
    }

    #[test]
    fn what_is_required_or_empty_is_named_with_its_line() {
        let text = error("listener:\n  port: 1\npostgres_replication:\n  postgres_port: 5432\n");
        assert!(text.starts_with("config.yaml:3: ") && text.contains("postgres_replication.slot_name"), "{text}");
        let text = error("postgres_replication:\n  # comment\n  slot_name: a\n  branch: ''\n");
        assert!(text.starts_with("config.yaml:4: ") && text.contains("postgres_replication.branch"), "{text}");
        let text = error("data_dir: ''\n");
        assert!(text.starts_with("config.yaml:1: ") && text.contains("data_dir"), "{text}");
    }

    #[test]
    fn texts_are_for_users_not_for_programmers() {
        for (file, wanted) in [
            ("user: x\n", "user: invalid value, expected a mapping of settings"),
            ("listener:\n  port: 99999\n", "listener.port: invalid value, expected a number from 0 to 65535"),
            ("storage:\n  cache_size: much\n", "config.yaml:2: storage.cache_size: invalid value, expected a size like 512MiB or 4GB"),
            ("storage: {auto_compaction: 2}\n", "storage.auto_compaction: invalid value, expected on or off"),
            ("storage: {cache_size: 1MiB}\n", "config.yaml:1: setting \"storage.cache_size\" must be at least 16MiB"),
            (
                "postgres_replication:\n  slot_name: a\n  sslmode: maybe\n",
                "config.yaml:3: setting \"postgres_replication.sslmode\" must be disable, prefer, require, verify-ca or verify-full",
            ),
            ("postgres_replication:\n  slot_name: a\n  streaming: serial\n", "streaming: invalid value, expected on, off or parallel"),
            (
                "postgres_replication:\n  slot_name: a\n  publication_names: {a: b}\n",
                "publication_names: invalid value, expected a name or a list of names",
            ),
        ] {
            let text = error(file);
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown_by_debug() {
        let config = Config::parse("user: {name: a, password: hunter2}\n", "f").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
