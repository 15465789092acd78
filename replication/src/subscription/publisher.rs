//! The primary while a subscription is made, changed or dropped.

use strandline_storage::Lsn;
use tokio::runtime::Runtime;

use crate::catalog::{self, CatalogClient};
use crate::client::{Connection, ConnectionConfig, quote_literal};
use crate::error::{Error, Result};
use crate::replicator::MAJOR_VERSION_MIN;

/// A connection with a runtime of its own. Its methods block.
pub struct Publisher {
    connection: Connection,
    config: ConnectionConfig,
    runtime: Runtime,
}

/// A table of the primary that publications publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedName {
    /// The primary's.
    pub oid: u32,
    pub schema: String,
    pub name: String,
}

impl Publisher {
    /// # Errors
    /// As of `Connection::connect`; `Setup` for a server that is too old.
    pub fn connect(config: &ConnectionConfig) -> Result<Self> {
        let failed = |source| Error::File { action: "start a runtime for", path: "subscription".into(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let connection = runtime.block_on(Connection::connect(config))?;
        let version = connection.server_major_version();
        if version < MAJOR_VERSION_MIN {
            return Err(Error::Setup(format!("the publisher has PostgreSQL {version}; version {MAJOR_VERSION_MIN} or later is needed")));
        }
        Ok(Publisher { connection, config: config.clone(), runtime })
    }

    /// Those of these publications that do not exist.
    /// # Errors
    /// What the primary reports.
    pub fn missing_publications(&mut self, names: &[String]) -> Result<Vec<String>> {
        let list: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
        let sql = format!("SELECT pubname FROM pg_catalog.pg_publication WHERE pubname IN ({})", list.join(", "));
        let rows = self.runtime.block_on(self.connection.query(&sql))?;
        let found: Vec<String> = rows.into_iter().flatten().flatten().collect();
        Ok(names.iter().filter(|name| !found.contains(name)).cloned().collect())
    }

    /// All tables of these publications.
    /// # Errors
    /// What the primary reports; `Setup` where publications disagree about a table's columns.
    pub fn tables(&mut self, publications: &[String]) -> Result<Vec<PublishedName>> {
        let version = self.connection.server_major_version();
        let tables = self.runtime.block_on(async {
            let client = CatalogClient::connect(&self.config).await?;
            catalog::read_published(&client.client, version, publications).await
        })?;
        Ok(tables.into_iter().map(|table| PublishedName { oid: table.oid, schema: table.schema, name: table.name }).collect())
    }

    /// # Errors
    /// What the primary reports.
    pub fn create_slot(&mut self, name: &str) -> Result<()> {
        self.runtime.block_on(self.connection.create_slot(name)).map(drop)
    }

    /// Waits while somebody uses it.
    /// # Errors
    /// What the primary reports.
    pub fn drop_slot(&mut self, name: &str) -> Result<()> {
        self.runtime.block_on(self.connection.drop_slot(name))
    }

    /// The system identifier and the end of the primary's log; `None` where a slot of this name exists.
    /// # Errors
    /// What the primary reports.
    pub fn position_before_slot(&mut self, name: &str) -> Result<Option<(String, Lsn)>> {
        self.runtime.block_on(async {
            let identity = self.connection.identify_system().await?;
            let slot = self.connection.slot(name).await?;
            Ok(slot.is_none().then_some((identity.system_id, identity.flushed)))
        })
    }
}
