//! The command half of a replication connection: start, frames, simple queries.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::authentication;
use super::places::{Place, Places, Search, SessionAttributes};
use super::socket::Socket;
use super::tls::TlsOptions;
use crate::error::{Error, Result};

/// How long connecting to one server may take where `connect_timeout` says nothing.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The largest message outside of the stream: errors and one-row answers.
const MESSAGE_SIZE_MAX: usize = 16 << 20;

/// How long a silent peer is probed for before the kernel gives the connection up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// What a session's settings must be so that the text of values means one thing, whatever the role's or database's defaults are.
pub const PINNED_SETTINGS: [(&str, &str); 11] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("search_path", ""),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Where the primary is and who we are there.
#[derive(Clone)]
pub struct ConnectionConfig {
    pub places: Places,
    pub user: String,
    pub database: String,
    pub application_name: String,
    pub tls: TlsOptions,
    /// Settings of the session as the server's command line has them (`-c name=value`); what we pin wins.
    pub options: Option<String>,
    /// For each server.
    pub connect_timeout: Duration,
}

/// A connection in command mode.
pub struct Connection {
    pub(super) socket: Socket,
    pub(super) received: BytesMut,
    parameters: HashMap<String, String>,
}

/// One message of the server: its type and its body.
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

impl Connection {
    /// Connects to the first server that will do, authenticates and waits until it is ready.
    /// # Errors
    /// `Connection`, `Primary`, `Protocol`; `Setup` when a password is needed and none is known.
    pub async fn connect(config: &ConnectionConfig) -> Result<Connection> {
        Connection::open(config, config.places.search(), true).await
    }

    /// As [`Connection::connect`], for plain SQL beside the stream, on the same server: takes a connection of the primary's and no walsender.
    pub(crate) async fn connect_for_sql(config: &ConnectionConfig) -> Result<Connection> {
        Connection::open(config, config.places.search_again(), false).await
    }

    async fn open(config: &ConnectionConfig, mut search: Search<'_>, replication: bool) -> Result<Connection> {
        while let Some(place) = search.next() {
            let connecting = Connection::connect_to(place, config, search.wanted(), replication);
            match timeout(config.connect_timeout, connecting).await.unwrap_or_else(|_| Err(timed_out())) {
                Ok(connection) => {
                    search.take();
                    return Ok(connection);
                }
                Err(error) => search.fail(error)?,
            }
        }
        Err(search.into_error())
    }

    async fn connect_to(place: &Place, config: &ConnectionConfig, wanted: SessionAttributes, replication: bool) -> Result<Connection> {
        let socket = match place.socket() {
            Some(path) => Socket::Unix(UnixStream::connect(path).await.map_err(Error::connection("connect to the primary"))?),
            None => {
                let socket = TcpStream::connect(place.tcp()).await.map_err(Error::connection("connect to the primary"))?;
                socket.set_nodelay(true).map_err(Error::connection("set up the connection"))?;
                SockRef::from(&socket)
                    .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE))
                    .map_err(Error::connection("set up the connection"))?;
                Socket::secure(socket, &place.host, &config.tls).await?
            }
        };
        let mut connection = Connection { socket, received: BytesMut::new(), parameters: HashMap::new() };
        connection.start(place, config, replication).await?;
        if wanted != SessionAttributes::Any {
            let rows = connection.query(SessionAttributes::QUERY).await?;
            let is = |column: usize, value: &str| rows.first().and_then(|row| row.get(column)?.as_deref()) == Some(value);
            wanted.check(is(0, "true"), is(1, "on"))?;
        }
        Ok(connection)
    }

    async fn start(&mut self, place: &Place, config: &ConnectionConfig, replication: bool) -> Result<()> {
        let mut out = BytesMut::new();
        let fixed = [
            ("user", config.user.as_str()),
            ("database", config.database.as_str()),
            ("application_name", config.application_name.as_str()),
        ];
        let kind = replication.then_some(("replication", "database"));
        let options = config.options.as_deref().map(|options| ("options", options));
        frontend::startup_message(fixed.into_iter().chain(kind).chain(options).chain(PINNED_SETTINGS), &mut out)
            .map_err(|e| Error::Setup(format!("the user or database name for the primary is invalid: {e}")))?;
        self.send(&out).await?;
        authentication::authenticate(self, place, config).await?;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'K' => {}
                b'Z' => return Ok(()),
                _ => return Err(unexpected(&frame, "starting")),
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).await.map_err(Error::connection("send to the primary"))
    }

    /// The next message that is an answer; notices and parameters are consumed here, errors become `Err`.
    pub(super) async fn frame(&mut self) -> Result<Frame> {
        loop {
            let frame = self.any_frame().await?;
            match frame.tag {
                b'E' => return Err(decode_error(&frame.body)),
                b'N' => tracing::debug!(notice = %decode_error(&frame.body), "notice from the primary"),
                b'S' => {
                    let mut body = frame.body;
                    if let (Some(name), Some(value)) = (take_text(&mut body), take_text(&mut body)) {
                        self.parameters.insert(name, value);
                    }
                }
                _ => return Ok(frame),
            }
        }
    }

    async fn any_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(size) = frame_size(&self.received, MESSAGE_SIZE_MAX)?
                && self.received.len() >= size
            {
                let tag = self.received[0];
                let mut body = self.received.split_to(size).freeze();
                body.advance(5);
                return Ok(Frame { tag, body });
            }
            let count = self.socket.read(&mut self.received).await.map_err(Error::connection("receive from the primary"))?;
            if count == 0 {
                return Err(Error::Connection {
                    action: "receive from the primary",
                    source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the primary closed the connection"),
                });
            }
        }
    }

    /// Runs one command in the simple protocol and returns its rows as text.
    /// # Errors
    /// `Primary` with the connection still usable; others without.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Error::Setup(format!("a name for the primary is invalid: {e}")))?;
        self.send(&out).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.frame().await {
                Ok(Frame { tag: b'D', body }) => rows.push(decode_row(body)?),
                Ok(Frame { tag: b'T' | b'C' | b'I', .. }) => {}
                Ok(Frame { tag: b'Z', .. }) => return failure.map_or(Ok(rows), Err),
                Ok(frame) => return Err(unexpected(&frame, "running a command")),
                Err(error @ Error::Primary { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// A parameter that the server reported: `server_version` and the like.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's major version; 0 when it did not say.
    pub fn server_major_version(&self) -> u32 {
        self.parameter("server_version").map_or(0, major_version)
    }
}

/// The major version in what a server says of itself: `18.4 (Debian 18.4-1)`, `19devel`; 0 where there is none.
pub(crate) fn major_version(text: &str) -> u32 {
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// In libpq's words.
pub(crate) fn timed_out() -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "timeout expired");
    Error::Connection { action: "connect to the primary", source }
}

/// The size of the message at the front of `bytes`, header included; `None` when the header is not all there.
/// # Errors
/// `Protocol` for a length that no message has.
pub(super) fn frame_size(bytes: &[u8], size_max: usize) -> Result<Option<usize>> {
    let Some((_, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length >= 4 && length < size_max => Ok(Some(length + 1)),
        _ => Err(Error::Protocol(format!("a message of type {:?} with length {length}", char::from(bytes[0])))),
    }
}

pub(super) fn unexpected(frame: &Frame, during: &str) -> Error {
    Error::Protocol(format!("type {:?} while {during}", char::from(frame.tag)))
}

/// Takes a text that ends with a zero byte; bytes that are not UTF-8 are replaced.
pub(super) fn take_text(body: &mut Bytes) -> Option<String> {
    let size = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&body[..size]).into_owned();
    body.advance(size + 1);
    Some(text)
}

/// An ErrorResponse's or NoticeResponse's fields: a letter and a text each.
pub(super) fn decode_error(body: &Bytes) -> Error {
    let mut body = body.clone();
    let (mut code, mut message, mut detail, mut hint) = (String::new(), String::new(), None, None);
    while let Some(&field) = body.first() {
        body.advance(1);
        if field == 0 {
            break;
        }
        let Some(text) = take_text(&mut body) else { break };
        match field {
            b'C' => code = text,
            b'M' => message = text,
            b'D' => detail = Some(text),
            b'H' => hint = Some(text),
            _ => {}
        }
    }
    Error::Primary { code, message, detail, hint }
}

fn decode_row(mut body: Bytes) -> Result<Vec<Option<String>>> {
    let short = || Error::Protocol("a row that ends early".into());
    if body.len() < 2 {
        return Err(short());
    }
    let count = body.get_u16();
    let mut row = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        if body.len() < 4 {
            return Err(short());
        }
        match usize::try_from(body.get_i32()) {
            Err(_) => row.push(None),
            Ok(size) if size <= body.len() => row.push(Some(String::from_utf8_lossy(&body.split_to(size)).into_owned())),
            Ok(_) => return Err(short()),
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_keeps_code_message_detail_and_hint() {
        let body = Bytes::from_static(b"SFATAL\0C28P01\0Mno\0Dbecause\0Htry\0Fauth.c\0\0");
        match decode_error(&body) {
            Error::Primary { code, message, detail, hint } => {
                assert_eq!((code.as_str(), message.as_str()), ("28P01", "no"));
                assert_eq!((detail.as_deref(), hint.as_deref()), (Some("because"), Some("try")));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn damaged_answers_are_errors() {
        assert!(frame_size(b"E\0\0\0\x03", 100).is_err());
        assert!(frame_size(b"E\xff\xff\xff\xff", 100).is_err());
        assert!(frame_size(b"E\0\0\x03\0", 100).is_err());
        assert!(matches!(frame_size(b"E\0\0", 100), Ok(None)));
        assert!(decode_row(Bytes::from_static(b"\0")).is_err());
        assert!(decode_row(Bytes::from_static(b"\0\x01\0\0\0\x05ab")).is_err());
        assert_eq!(decode_row(Bytes::from_static(b"\0\x02\xff\xff\xff\xff\0\0\0\x01a")).unwrap(), [None, Some("a".to_string())]);
        decode_error(&Bytes::from_static(b"M"));
        decode_error(&Bytes::from_static(b""));
    }
}
