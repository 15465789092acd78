//! The socket under a connection: TCP in plain text or in TLS, or a Unix-domain socket.

use std::io;

use bytes::BytesMut;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{SslMode, TlsOptions, handshake_error, server_name};
use crate::error::{Error, Result};

/// The request for TLS: its size and a version number that no protocol has.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// An open socket.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    /// Of this machine, where nobody listens in.
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Asks for TLS as the options say, and shakes hands.
    /// # Errors
    /// `Setup` where the server has no TLS and it must be, or for certificates that do not hold.
    pub(super) async fn secure(mut tcp: TcpStream, host: &str, options: &TlsOptions) -> Result<Socket> {
        let Some(config) = options.client_config()? else { return Ok(Socket::Plain(tcp)) };
        tcp.write_all(&SSL_REQUEST).await.map_err(Error::connection("send to the primary"))?;
        let mut answer = [0];
        tcp.read_exact(&mut answer).await.map_err(Error::connection("receive from the primary"))?;
        match answer[0] {
            b'S' => {}
            b'N' if options.mode == SslMode::Prefer => return Ok(Socket::Plain(tcp)),
            b'N' => return Err(Error::Setup(format!("the primary has no TLS, and sslmode is {}", options.mode))),
            // An error message in plain text could be anybody's, so it is not shown.
            b'E' => {
                let source = io::Error::other("the primary answers the request for TLS with an error");
                return Err(Error::Connection { action: "agree on TLS with the primary", source });
            }
            other => return Err(Error::Protocol(format!("{:?} in answer to the request for TLS", char::from(other)))),
        }
        // What came behind the answer was not encrypted; the handshake fails on it, since it is no handshake.
        let stream = TlsConnector::from(config).connect(server_name(host)?, tcp).await.map_err(handshake_error)?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }

    /// The certificate that the server has shown.
    pub(super) fn server_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Socket::Plain(_) | Socket::Unix(_) => None,
            Socket::Tls(stream) => stream.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// The socket itself, for its options; a Unix-domain socket has no low-water mark that waiting would heed.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Socket::Plain(tcp) => Some(tcp),
            Socket::Unix(_) => None,
            Socket::Tls(stream) => Some(stream.get_ref().0),
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Plain(tcp) => tcp.write_all(bytes).await,
            Socket::Unix(unix) => unix.write_all(bytes).await,
            Socket::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Reads what there is, at least one byte; 0 at the end. May be dropped while it waits: nothing is lost.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Socket::Plain(tcp) => tcp.read_buf(into).await,
            Socket::Unix(unix) => unix.read_buf(into).await,
            Socket::Tls(stream) => stream.read_buf(into).await,
        }
    }
}
