//! The preflight of a primary: everything that replication needs of it, asked before it is missed, with what puts it right.
//!
//! Reads only: no slot is made, nothing is changed on the primary, and the replica's store is not opened, so that a check can run beside a
//! running server.

mod capture;
mod server;
mod slot;
mod tables;

pub use capture::{ddl_capture_sql, install_ddl_capture, remove_ddl_capture};

use std::fmt;
use std::time::Instant;

use tokio_postgres::Client;

use crate::catalog::CatalogClient;
use crate::client::{Connection, Place, quote_identifier};
use crate::config::Config;
use crate::error::Error;

/// How grave a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing to do.
    Note,
    /// Works now, and something will be missing or stop later.
    Warning,
    /// Replication does not start, or does not go on.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` keeps the width that the caller asks for.
        f.pad(match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    /// What puts it right: SQL for the primary where it starts with a statement, else what to do there.
    pub fix: Option<String>,
}

/// The findings, in the order in which replication would meet them.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, what: impl Into<String>, fix: Option<String>) {
        self.0.push(Finding { severity, what: what.into(), fix });
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.add(Severity::Ok, what, None);
    }

    fn note(&mut self, what: impl Into<String>) {
        self.add(Severity::Note, what, None);
    }

    fn warning(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, what, Some(fix.into()));
    }

    fn error(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, what, Some(fix.into()));
    }

    /// A question that the primary did not answer is a finding, too, and does not keep the others from being asked.
    fn unanswered(&mut self, what: &str, error: tokio_postgres::Error) {
        let error = Error::from_sql("ask the primary", error);
        self.add(Severity::Warning, format!("could not find out {what}: {error}"), None);
    }
}

/// What every part of the check needs.
struct Primary<'a> {
    config: &'a Config,
    client: &'a Client,
    major_version: u32,
    /// The role that we connect as, quoted.
    role: String,
}

/// Looks the primary over.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    let begun = Instant::now();
    let connection = config.connection();
    let catalog = match CatalogClient::connect(&connection).await {
        Ok(catalog) => catalog,
        Err(error) => {
            let fix = connection_fix(config, &error);
            findings.add(Severity::Error, connection_text(config, &error), fix);
            return findings.0;
        }
    };
    let connected = begun.elapsed();
    let client = &catalog.client;
    let Some(major_version) = server::version(&mut findings, client, config, connected).await else { return findings.0 };
    let primary = Primary { config, client, major_version, role: quote_identifier(&config.connection.user) };
    server::settings(&mut findings, &primary).await;
    server::encryption(&mut findings, &primary).await;
    let may_replicate = server::role(&mut findings, &primary).await;
    if may_replicate {
        replication_connection(&mut findings, config).await;
    }
    slot::slot(&mut findings, &primary).await;
    tables::publications(&mut findings, &primary).await;
    capture::capture(&mut findings, &primary).await;
    findings.0
}

/// pg_hba.conf, poolers and wal senders may refuse what an ordinary connection is granted.
async fn replication_connection(findings: &mut Findings, config: &Config) {
    let mut connection = match Connection::connect(&config.connection()).await {
        Ok(connection) => connection,
        Err(error) => {
            let fix = match &error {
                Error::Primary { code, .. } if code == "53300" => Some(
                    "ALTER SYSTEM SET max_wal_senders = 20; and restart the primary, or end a connection of pg_stat_replication".to_owned(),
                ),
                _ => connection_fix(config, &error).or_else(|| {
                    Some("connect to the server itself: a connection pooler in between does not know the replication protocol".to_owned())
                }),
            };
            findings.add(Severity::Error, format!("an ordinary connection is accepted, and a replication connection is not: {error}"), fix);
            return;
        }
    };
    match connection.identify_system().await {
        Ok(identity) => findings.ok(format!(
            "replication connection: system {}, timeline {}, log flushed up to {}",
            identity.system_id, identity.timeline, identity.flushed
        )),
        Err(error) => findings.add(Severity::Error, format!("IDENTIFY_SYSTEM failed: {error}"), None),
    }
}

fn connection_text(config: &Config, error: &Error) -> String {
    let connection = &config.connection;
    let places: Vec<String> = connection.places.all().iter().map(place_text).collect();
    format!("could not connect to {} as \"{}\", database \"{}\": {error}", places.join(" or "), connection.user, connection.database)
}

/// A server as one writes it.
fn place_text(place: &Place) -> String {
    match place.socket_folder() {
        Some(_) => place.to_string(),
        None => format!("{}:{}", place.host, place.port),
    }
}

/// What makes the primary accept us, where its answer tells.
fn connection_fix(config: &Config, error: &Error) -> Option<String> {
    let user = quote_identifier(&config.connection.user);
    match error {
        Error::Primary { code, .. } => match code.as_str() {
            "28P01" => {
                Some(format!("set postgres_password (or its environment variable), or on the primary: ALTER ROLE {user} PASSWORD '...'"))
            }
            "28000" => Some(format!(
                "CREATE ROLE {user} LOGIN REPLICATION PASSWORD '...' if it is missing; and a line in pg_hba.conf: host {} {} ADDRESS/32 scram-sha-256, then SELECT pg_reload_conf()",
                quote_identifier(&config.connection.database),
                user
            )),
            "3D000" => Some("set postgres_database to a database of the primary".to_owned()),
            "53300" => Some("end connections that nobody needs, or raise max_connections and restart the primary".to_owned()),
            "57P03" => Some("wait until the primary has started".to_owned()),
            _ => None,
        },
        Error::Connection { .. } => Some(format!(
            "see that the primary runs, that its listen_addresses covers this network, and that nothing blocks port {}",
            config.connection.places.current().port
        )),
        Error::Setup(_) => Some("set postgres_password, or its environment variable".to_owned()),
        _ => None,
    }
}

/// Bytes as people read them.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 10_240.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}

/// "1 table", "2 tables".
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_pg_size_pretty_writes_them() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(10_239), "10239 bytes");
        assert_eq!(size(10_240), "10 kB");
        assert_eq!(size(2_147_483_648), "2048 MB");
        assert_eq!(size(20 << 30), "20 GB");
    }

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Ok < Severity::Note && Severity::Note < Severity::Warning && Severity::Warning < Severity::Error);
    }
}
