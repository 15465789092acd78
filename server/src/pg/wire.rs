//! A client's socket with its two buffers.

use std::net::SocketAddr;

use bytes::BytesMut;
use strandline_sql::error::{ErrorCode, SqlError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pg::frontend::{self, Frontend, Malformed, Opening};

/// Output is sent once it reaches this size, and whenever the client is to see it.
pub const OUT_BYTES: usize = 64 * 1024;

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
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        let peer = stream.peer_addr().ok();
        Wire { stream, peer, input: BytesMut::with_capacity(8192), out: BytesMut::with_capacity(8192) }
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

    pub async fn flush(&mut self) -> Result<(), End> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
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
