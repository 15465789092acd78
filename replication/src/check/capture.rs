//! DDL capture: whether it is there, and putting it there.

use super::{Findings, Primary};
use crate::capture::{self, MAJOR_VERSION_MIN, State};
use crate::catalog::CatalogClient;
use crate::config::Config;
use crate::error::{Error, Result};

pub(super) async fn capture(findings: &mut Findings, primary: &Primary<'_>) {
    match capture::read_state(primary.client).await {
        Ok(State::Installed) => findings.ok("DDL capture is installed: changes of definitions are followed exactly"),
        Ok(State::Absent) if primary.major_version < MAJOR_VERSION_MIN => {}
        Ok(State::Absent) => findings.note(
            "DDL capture is not installed: definitions are followed as far as the stream and the catalog tell (strandline check --install-ddl-capture)",
        ),
        Ok(State::Partial) => findings.warning(
            "DDL capture is installed in part, or an event trigger of it is disabled",
            "run strandline check --install-ddl-capture again, or --remove-ddl-capture",
        ),
        Ok(State::Unreadable) => findings.warning(
            "DDL capture is installed, but its key cannot be read, so what it says is not believed",
            capture::grant_sql(&primary.config.connection.user).trim_end().replace('\n', " "),
        ),
        Err(error) => findings.unanswered("whether DDL capture is installed", error),
    }
}

/// The SQL that installs DDL capture on the primary, and lets the role that replication connects as read its key.
/// # Errors
/// The primary cannot be reached, or is too old: logical messages are in the stream from PostgreSQL 14 on.
pub async fn ddl_capture_sql(config: &Config) -> Result<String> {
    script(config, CatalogClient::connect(&config.connection()).await?.major_version)
}

fn script(config: &Config, version: u32) -> Result<String> {
    if version < MAJOR_VERSION_MIN {
        return Err(Error::Setup(format!("DDL capture needs PostgreSQL {MAJOR_VERSION_MIN} or later; the primary has {version}")));
    }
    Ok(format!("BEGIN;\n{}{}COMMIT;\n", capture::install_sql(version), capture::grant_sql(&config.connection.user)))
}

/// Installs DDL capture on the primary, or brings it up to date. Returns the primary's major version.
/// # Errors
/// As [`ddl_capture_sql`]; and when the role is no superuser.
pub async fn install_ddl_capture(config: &Config) -> Result<u32> {
    let catalog = CatalogClient::connect(&config.connection()).await?;
    let version = catalog.major_version;
    let sql = script(config, version)?;
    catalog.client.batch_execute(&sql).await.map_err(|e| Error::from_sql("install DDL capture", e))?;
    Ok(version)
}

/// Removes DDL capture from the primary, if it is there.
/// # Errors
/// The primary cannot be reached, or refuses.
pub async fn remove_ddl_capture(config: &Config) -> Result<()> {
    let catalog = CatalogClient::connect(&config.connection()).await?;
    let sql = format!("BEGIN; {} COMMIT;", capture::remove_sql());
    catalog.client.batch_execute(&sql).await.map_err(|e| Error::from_sql("remove DDL capture", e))
}
