//! Messages from clients, decoded from untrusted bytes.
//!
//! pgwire has decoders too, but they panic on a message that is shorter than its own counts say and replace bytes that are
//! not UTF-8; these refuse both. Every length is checked before anything is taken, and before authentication nothing
//! longer than [`STARTUP_BYTES_MAX`] is even waited for.

use bytes::{Buf, Bytes, BytesMut};

/// The longest message before the client has proved who it is, PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The longest message of a session: PostgreSQL's PQ_LARGE_MESSAGE_LIMIT.
pub const MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;

/// The longest of the messages that have no reason to be long, PostgreSQL's PQ_SMALL_MESSAGE_LIMIT.
const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What a connection may begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: Bytes },
    Startup { major: u16, minor: u16, parameters: Vec<(String, String)> },
}

/// A message of a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Frontend {
    /// Password, SASLInitialResponse or SASLResponse: which, the state of the authentication tells.
    Password(Bytes),
    Query(String),
    Parse {
        name: String,
        query: String,
        types: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        formats: Vec<i16>,
        parameters: Vec<Option<Bytes>>,
        result_formats: Vec<i16>,
    },
    Describe {
        portal: bool,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: i32,
    },
    Close {
        portal: bool,
        name: String,
    },
    Flush,
    Sync,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    Terminate,
    /// FunctionCall: refused.
    FunctionCall,
}

/// Bytes that are no message. After `fatal` ones the boundaries of messages are lost.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("invalid length of startup packet")]
    StartupLength,
    #[error("invalid startup packet layout: expected terminator as last byte")]
    StartupLayout,
    #[error("invalid frontend message type {0}")]
    Type(u8),
    #[error("invalid message length")]
    Length,
    #[error("insufficient data left in message")]
    Short,
    #[error("invalid message format")]
    Format,
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    Encoding,
}

impl Malformed {
    /// The stream cannot be followed any more.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Malformed::Short | Malformed::Format | Malformed::Encoding)
    }
}

/// Takes the first message of a connection; `None`: more bytes are needed.
pub fn decode_opening(buffer: &mut BytesMut) -> Result<Option<Opening>, Malformed> {
    let Some(length) = peek_u32(buffer, 0) else { return Ok(None) };
    let length = length as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(Malformed::StartupLength);
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = Reader(buffer.split_to(length).freeze());
    body.u32()?;
    let code = body.u32()?;
    match code {
        SSL_REQUEST => Ok(Some(Opening::Ssl)),
        GSS_REQUEST => Ok(Some(Opening::Gss)),
        CANCEL_REQUEST => {
            let pid = body.u32()? as i32;
            Ok(Some(Opening::Cancel { pid, secret: body.0 }))
        }
        version => {
            let mut parameters = Vec::new();
            loop {
                let name = body.string().map_err(startup_layout)?;
                if name.is_empty() {
                    break;
                }
                let value = body.string().map_err(startup_layout)?;
                parameters.push((name, value));
            }
            if !body.0.is_empty() {
                return Err(Malformed::StartupLayout);
            }
            Ok(Some(Opening::Startup { major: (version >> 16) as u16, minor: version as u16, parameters }))
        }
    }
}

fn startup_layout(error: Malformed) -> Malformed {
    if error == Malformed::Short { Malformed::StartupLayout } else { error }
}

/// Takes the next message; `None`: more bytes are needed. Before authentication only passwords are messages.
pub fn decode(buffer: &mut BytesMut, authenticated: bool) -> Result<Option<Frontend>, Malformed> {
    let Some(kind) = buffer.first().copied() else { return Ok(None) };
    let bytes_max = match kind {
        _ if !authenticated && kind != b'p' => return Err(Malformed::Type(kind)),
        b'p' => STARTUP_BYTES_MAX,
        b'Q' | b'P' | b'B' | b'F' | b'd' => MESSAGE_BYTES_MAX,
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => SMALL_MESSAGE_BYTES_MAX,
        _ => return Err(Malformed::Type(kind)),
    };
    let Some(length) = peek_u32(buffer, 1) else { return Ok(None) };
    let length = length as usize;
    if length < 4 || length > bytes_max {
        return Err(Malformed::Length);
    }
    if buffer.len() < length + 1 {
        buffer.reserve((length + 1 - buffer.len()).min(1 << 16));
        return Ok(None);
    }
    let mut body = Reader(buffer.split_to(length + 1).freeze());
    body.0.advance(5);
    let message = match kind {
        b'p' => Frontend::Password(std::mem::take(&mut body.0)),
        b'Q' => Frontend::Query(body.string()?),
        b'P' => {
            let (name, query) = (body.string()?, body.string()?);
            let count = body.u16()?;
            Frontend::Parse { name, query, types: (0..count).map(|_| body.u32()).collect::<Result<_, _>>()? }
        }
        b'B' => {
            let (portal, statement) = (body.string()?, body.string()?);
            let count = body.u16()?;
            let formats = (0..count).map(|_| body.u16().map(|f| f as i16)).collect::<Result<_, _>>()?;
            let count = body.u16()?;
            let parameters = (0..count)
                .map(|_| match body.u32()? as i32 {
                    -1 => Ok(None),
                    length if length >= 0 => body.bytes(length as usize).map(Some),
                    _ => Err(Malformed::Format),
                })
                .collect::<Result<_, _>>()?;
            let count = body.u16()?;
            let result_formats = (0..count).map(|_| body.u16().map(|f| f as i16)).collect::<Result<_, _>>()?;
            Frontend::Bind { portal, statement, formats, parameters, result_formats }
        }
        b'D' | b'C' => {
            let portal = match body.u8()? {
                b'S' => false,
                b'P' => true,
                _ => return Err(Malformed::Format),
            };
            let name = body.string()?;
            if kind == b'D' { Frontend::Describe { portal, name } } else { Frontend::Close { portal, name } }
        }
        b'E' => Frontend::Execute { portal: body.string()?, max_rows: body.u32()? as i32 },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'd' => Frontend::CopyData(std::mem::take(&mut body.0)),
        b'c' => Frontend::CopyDone,
        b'f' => Frontend::CopyFail(body.string()?),
        _ => {
            body.0.clear();
            Frontend::FunctionCall
        }
    };
    if body.0.is_empty() { Ok(Some(message)) } else { Err(Malformed::Format) }
}

fn peek_u32(buffer: &BytesMut, at: usize) -> Option<u32> {
    buffer.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

struct Reader(Bytes);

impl Reader {
    fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < count { Err(Malformed::Short) } else { Ok(self.0.split_to(count)) }
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A string that ends with a zero byte.
    fn string(&mut self) -> Result<String, Malformed> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Malformed::Short)?;
        let bytes = self.bytes(end + 1)?;
        std::str::from_utf8(&bytes[..end]).map(str::to_owned).map_err(|_| Malformed::Encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut b = BytesMut::new();
        b.extend_from_slice(&[kind]);
        b.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        b.extend_from_slice(body);
        b
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_a_bind_is_refused_or_understood_without_panic() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\0";
        let whole = framed(b'B', body);
        assert!(matches!(decode(&mut whole.clone(), true), Ok(Some(Frontend::Bind { .. }))));
        for cut in 0..body.len() {
            let mut b = framed(b'B', &body[..cut]);
            assert!(decode(&mut b, true).is_err());
        }
        for at in 5..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut b = whole.clone();
                b[at] = byte;
                let _ = decode(&mut b, true);
            }
        }
    }

    #[test]
    fn before_authentication_only_short_passwords_are_waited_for() {
        assert_eq!(decode(&mut framed(b'Q', b"x\0"), false), Err(Malformed::Type(b'Q')));
        let mut long = BytesMut::from(&b"p\x7f\xff\xff\xff"[..]);
        assert_eq!(decode(&mut long, false), Err(Malformed::Length));
        let mut long = BytesMut::from(&b"\x7f\xff\xff\xff\0\x03\0\0"[..]);
        assert_eq!(decode_opening(&mut long), Err(Malformed::StartupLength));
    }
}
