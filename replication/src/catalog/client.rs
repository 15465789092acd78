//! An ordinary connection to the primary, for catalog queries and COPY.

use tokio_postgres::config::{ChannelBinding as PostgresBinding, SslMode as PostgresMode};
use tokio_postgres::{Client, NoTls};

use super::tls::Connector;
use crate::client::{ChannelBinding, ConnectionConfig, PINNED_SETTINGS, SslMode, server_name};
use crate::error::{Error, Result};

/// A connection whose background task ends with it.
pub(crate) struct CatalogClient {
    pub(crate) client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl CatalogClient {
    pub(crate) async fn connect(config: &ConnectionConfig) -> Result<Self> {
        let mut options = tokio_postgres::Config::new();
        options
            .host(&config.host)
            .port(config.port)
            .user(&config.user)
            .dbname(&config.database)
            .application_name(&config.application_name)
            .connect_timeout(std::time::Duration::from_secs(10));
        if let Some(password) = &config.password {
            options.password(password);
        }
        options.channel_binding(match config.tls.channel_binding {
            ChannelBinding::Disable => PostgresBinding::Disable,
            ChannelBinding::Prefer => PostgresBinding::Prefer,
            ChannelBinding::Require => PostgresBinding::Require,
        });
        let failed = |e| Error::from_sql("connect to the primary", e);
        // The task's error is seen by whoever waits for an answer.
        let (client, task) = match config.tls.client_config()? {
            None => {
                let (client, connection) = options.ssl_mode(PostgresMode::Disable).connect(NoTls).await.map_err(failed)?;
                (client, tokio::spawn(async move { drop(connection.await) }))
            }
            Some(tls) => {
                // What the certificate must be is the connector's affair.
                let mode = if config.tls.mode == SslMode::Prefer { PostgresMode::Prefer } else { PostgresMode::Require };
                let connector = Connector { config: tls, server_name: server_name(&config.host)? };
                let (client, connection) = options.ssl_mode(mode).connect(connector).await.map_err(failed)?;
                (client, tokio::spawn(async move { drop(connection.await) }))
            }
        };
        let this = CatalogClient { client, task };
        // Row security would silently leave rows out.
        let mut settings = String::from("SET row_security = off;");
        for (name, value) in PINNED_SETTINGS.iter().filter(|(name, _)| *name != "client_encoding") {
            settings.push_str(&format!("SELECT pg_catalog.set_config('{name}', '{value}', false);"));
        }
        this.client.batch_execute(&settings).await.map_err(|e| Error::from_sql("set up a connection to the primary", e))?;
        Ok(this)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for CatalogClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}
