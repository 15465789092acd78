//! An ordinary connection to the primary, for catalog queries and COPY.

use tokio_postgres::config::{ChannelBinding as PostgresBinding, SslMode as PostgresMode};
use tokio_postgres::{Client, NoTls};

use super::tls::Connector;
use crate::client::{
    ChannelBinding, ConnectionConfig, PINNED_SETTINGS, Place, SessionAttributes, SslMode, major_version, server_name, timed_out,
};
use crate::error::{Error, Result};

/// A connection whose background task ends with it.
pub(crate) struct CatalogClient {
    pub(crate) client: Client,
    /// The server's.
    pub(crate) major_version: u32,
    task: tokio::task::JoinHandle<()>,
}

impl CatalogClient {
    /// Connects to the server that the stream comes from, or to the first that will do where there is none yet.
    pub(crate) async fn connect(config: &ConnectionConfig) -> Result<Self> {
        let mut search = config.places.search_again();
        while let Some(place) = search.next() {
            let connecting = tokio::time::timeout(config.connect_timeout, CatalogClient::connect_to(place, config, search.wanted()));
            match connecting.await.unwrap_or_else(|_| Err(timed_out())) {
                Ok(client) => {
                    search.take();
                    return Ok(client);
                }
                Err(error) => search.fail(error)?,
            }
        }
        Err(search.into_error())
    }

    async fn connect_to(place: &Place, config: &ConnectionConfig, wanted: SessionAttributes) -> Result<Self> {
        let mut options = tokio_postgres::Config::new();
        match place.socket_folder() {
            Some(folder) => options.host_path(folder),
            None => options.host(&place.host),
        };
        if let Some(address) = place.address {
            options.hostaddr(address);
        }
        options.port(place.port).user(&config.user).dbname(&config.database).application_name(&config.application_name);
        if let Some(password) = &place.password {
            options.password(password);
        }
        if let Some(settings) = &config.options {
            options.options(settings);
        }
        options.channel_binding(match config.tls.channel_binding {
            ChannelBinding::Disable => PostgresBinding::Disable,
            ChannelBinding::Prefer => PostgresBinding::Prefer,
            ChannelBinding::Require => PostgresBinding::Require,
        });
        let failed = |e| Error::from_sql("connect to the primary", e);
        // The task's error is seen by whoever waits for an answer.
        let tls = if place.socket_folder().is_some() { None } else { config.tls.client_config()? };
        let version = |text: Option<&str>| text.map_or(0, major_version);
        let (client, major_version, task) = match tls {
            None => {
                let (client, connection) = options.ssl_mode(PostgresMode::Disable).connect(NoTls).await.map_err(failed)?;
                (client, version(connection.parameter("server_version")), tokio::spawn(async move { drop(connection.await) }))
            }
            Some(tls) => {
                // What the certificate must be is the connector's affair.
                let mode = if config.tls.mode == SslMode::Prefer { PostgresMode::Prefer } else { PostgresMode::Require };
                let connector = Connector { config: tls, server_name: server_name(&place.host)? };
                let (client, connection) = options.ssl_mode(mode).connect(connector).await.map_err(failed)?;
                (client, version(connection.parameter("server_version")), tokio::spawn(async move { drop(connection.await) }))
            }
        };
        let this = CatalogClient { client, major_version, task };
        if wanted != SessionAttributes::Any {
            let failed = |e| Error::from_sql("ask the primary what it is", e);
            let row = this.client.query_one(SessionAttributes::QUERY, &[]).await.map_err(failed)?;
            let (in_recovery, read_only): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            wanted.check(in_recovery == "true", read_only == "on")?;
        }
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
