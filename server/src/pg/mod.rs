//! The PostgreSQL side of the server: sockets, authentication, the protocol's messages.
//!
//! ```text
//! serve -> accept -> startup (SSL refused, SCRAM-SHA-256, session) -> connection (a loop over messages)
//!                         frontend: decodes   reply: encodes   sqlstate: conditions to SQLSTATEs
//! ```
//! A cancel request comes on a connection of its own and acts on `Shared`'s list, whatever the session is doing.

mod connection;
mod frontend;
mod reply;
mod scram;
mod sqlstate;
mod startup;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use strandline_sql::error::{ErrorCode, SqlError};
use strandline_sql::session::{CancelHandle, Engine};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{Instrument, debug, info, warn};

use crate::pg::connection::Connection;
use crate::pg::reply::Severity;
use crate::pg::startup::Start;
use crate::pg::wire::{End, Wire};

/// How long connections may take to end after a shutdown began.
const SHUTDOWN_MS_MAX: u64 = 5_000;
/// What runs then is canceled each time so long has passed: a statement may follow the one that was canceled.
const SHUTDOWN_CANCEL_MS: u64 = 100;
/// Sockets that are open for each connection that may be: the others have not said yet what they want.
const SOCKETS_PER_CONNECTION_MAX: usize = 20;

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

/// What all connections share.
pub(crate) struct Shared {
    pub engine: Arc<Engine>,
    /// Makes the salts shown for roles that do not exist.
    pub mock_seed: [u8; 32],
    cancels: Mutex<HashMap<i32, (bytes::Bytes, CancelHandle)>>,
    connection_count: AtomicUsize,
    stop: watch::Receiver<bool>,
}

/// A connection's place among the `connections_max`, given back when it is dropped.
pub(crate) struct Slot(Arc<Shared>);

impl Slot {
    /// `None`: all are taken.
    fn take(shared: &Arc<Shared>, connections_max: usize) -> Option<Slot> {
        let slot = Slot(Arc::clone(shared));
        (shared.connection_count.fetch_add(1, Ordering::Relaxed) < connections_max).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connection_count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Carries out a cancel request; silent when the secret is wrong.
    pub fn cancel(&self, pid: i32, secret: &[u8]) {
        if let Some((expected, handle)) = self.cancels.lock().get(&pid)
            && *expected == *secret
        {
            handle.cancel();
        }
    }

    /// Completes when the server stops.
    pub async fn shutdown(&self) {
        let mut stop = self.stop.clone();
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// Accepts connections until `shutdown` completes, then ends all of them (57P01) and returns.
/// # Errors
/// Only when the listener itself fails for good.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    options: ServerOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let (stop_sender, stop) = watch::channel(false);
    let shared = Arc::new(Shared {
        engine,
        mock_seed: rand::random(),
        cancels: Mutex::new(HashMap::new()),
        connection_count: AtomicUsize::new(0),
        stop,
    });
    let mut connections = tokio::task::JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let span = tracing::info_span!("connection", %peer);
                let full = connections.len() >= options.connections_max * SOCKETS_PER_CONNECTION_MAX;
                connections.spawn(serve_connection(stream, shared.clone(), options.clone(), full).instrument(span));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others may end meanwhile.
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let _ = stop_sender.send(true);
    info!(connection_count = connections.len(), "ending connections");
    let all = async {
        loop {
            for (_, handle) in shared.cancels.lock().values() {
                handle.cancel();
            }
            let all = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(Duration::from_millis(SHUTDOWN_CANCEL_MS), all).await.is_ok() {
                break;
            }
        }
    };
    if tokio::time::timeout(Duration::from_millis(SHUTDOWN_MS_MAX), all).await.is_err() {
        warn!("some connections did not end in time");
        connections.abort_all();
    }
    Ok(())
}

/// `full`: there are too many sockets already.
async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, options: ServerOptions, full: bool) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "could not set TCP_NODELAY");
    }
    let mut wire = Wire::new(stream, shared.stop.clone());
    let start = async {
        if full {
            return Err(startup::too_many());
        }
        tokio::select! {
            started = startup::start(&mut wire, &shared, options.connections_max) => started,
            () = shared.shutdown() => Err(connection::shut_down()),
            () = tokio::time::sleep(Duration::from_millis(options.authentication_ms_max)) => {
                Err(End::fatal(SqlError::new(ErrorCode::QueryCanceled, "canceling authentication due to timeout")))
            }
        }
    };
    match start.await {
        Ok(Start::Session(session, secret, _slot)) => {
            let pid = session.pid();
            debug!(pid, "session opened");
            shared.cancels.lock().insert(pid, (secret, session.cancel_handle()));
            Connection::new(wire, session, shared.clone()).run().await;
            shared.cancels.lock().remove(&pid);
            debug!(pid, "session closed");
        }
        Ok(Start::Canceled) | Err(End::Closed) => {}
        Err(End::Fatal(error)) => {
            info!(%error, "connection refused");
            reply::error(&mut wire.out, Severity::Fatal, &error);
            wire.shutdown().await;
        }
    }
}
