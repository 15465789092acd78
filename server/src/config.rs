//! `config.yaml`: Doltgres's keys with Doltgres's meaning, and a few of our own.
//!
//! Every key is optional and every unknown key is refused with its line, so that a misspelt setting never
//! goes unnoticed. Passwords may come from the environment, which wins over the file; nothing here prints them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The environment variable that overrides `user.password`.
pub const USER_PASSWORD_ENV: &str = "STRANDLINE_USER_PASSWORD";
/// The environment variable that overrides `postgres_replication.postgres_password`.
pub const SOURCE_PASSWORD_ENV: &str = "STRANDLINE_POSTGRES_PASSWORD";

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

/// Replica mode: the primary to follow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresReplication {
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
}

impl Default for PostgresReplication {
    fn default() -> Self {
        PostgresReplication {
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
        }
    }
}

impl PostgresReplication {
    pub fn publications(&self) -> Vec<String> {
        match &self.publication_names {
            None => vec![self.slot_name.clone()],
            Some(OneOrMany::One(name)) => vec![name.clone()],
            Some(OneOrMany::Many(names)) => names.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoNever {
    Auto,
    Never,
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
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError(format!("could not read configuration file \"{shown}\": {e}")))?;
        let mut config = Config::parse(&text, &shown.to_string())?;
        if let Ok(password) = std::env::var(USER_PASSWORD_ENV) {
            config.user.password = Secret(password);
        }
        if let (Ok(password), Some(source)) = (std::env::var(SOURCE_PASSWORD_ENV), &mut config.postgres_replication) {
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
        config.validate(file)?;
        Ok(config)
    }

    fn validate(&self, file: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, why: &str| Err(ConfigError(format!("{file}: setting \"{key}\" {why}")));
        if self.user.name.is_empty() {
            return refuse("user.name", "must not be empty");
        }
        if self.listener.host.is_empty() {
            return refuse("listener.host", "must not be empty");
        }
        if let Some(source) = &self.postgres_replication {
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
    let place = match error.location() {
        Some(location) => format!("{file}:{}", location.line()),
        None => file.to_owned(),
    };
    let mut message = full.split(" at line ").next().unwrap_or("malformed").to_owned();
    if let (Some(start), Some(end)) = (message.find("invalid type: "), message.find(", expected")) {
        message.replace_range(start..end, "invalid value");
    }
    if let (Some(start), Some(end)) = (message.find("unknown variant `"), message.find(", expected")) {
        message.replace_range(start..end, "invalid value");
    }
    let key = error
        .location()
        .and_then(|l| text.lines().nth(l.line().saturating_sub(1)))
        .and_then(|line| line.split_once(':'))
        .map(|(k, _)| k.trim());
    let message = message.replace("unknown field", "unknown setting");
    match key {
        Some(key) if !key.is_empty() && !message.contains(key) => ConfigError(format!("{place}: setting \"{key}\": {message}")),
        _ => ConfigError(format!("{place}: {message}")),
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
        assert_eq!(config.postgres_replication.unwrap().slot_name, "strandline");
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
    fn passwords_are_not_shown_by_debug() {
        let config = Config::parse("user: {name: a, password: hunter2}\n", "f").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
