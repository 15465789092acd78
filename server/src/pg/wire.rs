//! A client's socket with its two buffers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use strandline_sql::error::{ErrorCode, SqlError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::pg::frontend::{self, Frontend, Malformed, Opening};

/// Output is sent once it reaches this size, and whenever the client is to see it.
pub const OUT_BYTES: usize = 64 * 1024;

/// What is read of the following messages while a statement runs.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;
/// A statement whose client has gone may run for so long: some send it, close and rely on its being carried out.
const GONE_MS: u64 = 2_000;
/// How long a client that does not read may delay the end of a server that stops.
const LAST_WRITE_MS_MAX: u64 = 200;

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The client is gone; nothing can be told.
    Closed,
    /// The client is told and the connection closed.
    Fatal(Box<SqlError>),
}

impl End {
    pub fn fatal(error: SqlError) -> Self {
        End::Fatal(Box::new(error))
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        End::Closed
    }
}

/// See the module.
pub struct Wire {
    stream: TcpStream,
    pub peer: Option<SocketAddr>,
    input: BytesMut,
    pub out: BytesMut,
    /// Becomes true when the server stops.
    stop: watch::Receiver<bool>,
}

impl Wire {
    pub fn new(stream: TcpStream, stop: watch::Receiver<bool>) -> Self {
        let peer = stream.peer_addr().ok();
        Wire { stream, peer, input: BytesMut::with_capacity(8192), out: BytesMut::with_capacity(8192), stop }
    }

    /// Completes a while after the client has gone; what it sent before stays to be read. Cancel-safe. Not seen is the
    /// going of a client that has sent more than [`READ_AHEAD_BYTES_MAX`] beforehand.
    pub async fn gone(&mut self) {
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            if let Err(End::Closed) = self.fill().await {
                tokio::time::sleep(Duration::from_millis(GONE_MS)).await;
                return;
            }
        }
        std::future::pending().await
    }

    /// The next message before a session. Cancel-safe.
    pub async fn opening(&mut self) -> Result<Opening, End> {
        loop {
            if let Some(opening) = frontend::decode_opening(&mut self.input).map_err(|e| fatal(&e))? {
                return Ok(opening);
            }
            self.fill().await?;
        }
    }

    /// The next message. Cancel-safe: what was read stays in the buffer.
    /// # Errors
    /// `End::Fatal` for bytes that are no message, where the following ones could not be found either; others come as `Ok(Err)`
    /// from [`Self::try_message`].
    pub async fn message(&mut self, authenticated: bool) -> Result<Frontend, End> {
        self.try_message(authenticated).await?.map_err(|e| fatal(&e))
    }

    /// The next message, or what is wrong with it.
    pub async fn try_message(&mut self, authenticated: bool) -> Result<Result<Frontend, Malformed>, End> {
        loop {
            match frontend::decode(&mut self.input, authenticated) {
                Ok(Some(message)) => return Ok(Ok(message)),
                Ok(None) => self.fill().await?,
                Err(error) if error.is_fatal() => return Err(fatal(&error)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), End> {
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(End::Closed),
            Ok(_) => Ok(()),
        }
    }

    /// Sends what has gathered. Waits for a client that is slow to read, but not when the server stops.
    pub async fn flush(&mut self) -> Result<(), End> {
        if !self.out.is_empty() {
            let sent = self.stream.try_write(&self.out).unwrap_or(0);
            if sent < self.out.len() {
                tokio::select! {
                    biased;
                    written = self.stream.write_all(&self.out[sent..]) => written?,
                    () = out_of_time(&mut self.stop) => return Err(End::Closed),
                }
            }
            self.out.clear();
            if self.out.capacity() > 4 * OUT_BYTES {
                self.out = BytesMut::with_capacity(8192);
            }
        }
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        self.out.len() >= OUT_BYTES
    }

    /// Sends when enough has gathered.
    pub async fn flush_if_full(&mut self) -> Result<(), End> {
        if self.is_full() { self.flush().await } else { Ok(()) }
    }

    pub async fn shutdown(&mut self) {
        let _ = self.flush().await;
        let _ = self.stream.shutdown().await;
    }
}

/// Completes a little after the server began to stop.
async fn out_of_time(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(Duration::from_millis(LAST_WRITE_MS_MAX)).await;
}

fn fatal(error: &Malformed) -> End {
    End::fatal(malformed_error(error))
}

/// The error that a malformed message is reported as.
pub fn malformed_error(error: &Malformed) -> SqlError {
    let code = match error {
        Malformed::Encoding => ErrorCode::CharacterNotInRepertoire,
        _ => ErrorCode::ProtocolViolation,
    };
    SqlError::new(code, error.to_string())
}
