//! `COPY ... TO STDOUT`: the rows as they come, in large pieces.
//!
//! As with the stream, whole messages are split off the receive buffer without copying, as many as there are, and their bodies are slices.

use std::io;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::connection::{Connection, decode_error, frame_size, unexpected};
use crate::error::{Error, Result};

/// How much room the receive buffer has at least before each read.
const READ_SIZE: usize = 256 << 10;

/// The largest message: a value is at most 1 GiB on the primary, and so is a row.
const MESSAGE_SIZE_MAX: usize = (1 << 30) + (1 << 20);

/// The bytes before the body of a message.
const HEADER_SIZE: usize = 5;

impl Connection {
    /// Begins a `COPY` to us. [`Connection::copied`] then gives its rows.
    /// # Errors
    /// `Primary`, `Connection`, `Protocol`.
    pub(crate) async fn begin_copy_out(&mut self, sql: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Error::Setup(format!("a name for the primary is invalid: {e}")))?;
        self.send(&out).await?;
        match self.frame().await? {
            frame if frame.tag == b'H' => Ok(()),
            frame => Err(unexpected(&frame, "starting a copy")),
        }
    }

    /// Waits for rows and takes all whole messages that have arrived, to be read with [`CopyMessages`]; `None` when the copy is complete and the connection ready for
    /// the next command.
    /// # Errors
    /// `Primary` when the copy failed there, `Connection`, `Protocol`. The connection is of no use then.
    pub(crate) async fn copied(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(messages) = self.take_messages()? {
                return Ok(Some(messages));
            }
            if let Some(size) = self.whole_frame()? {
                let frame = self.received.split_to(size).freeze();
                match frame[0] {
                    // The end of the rows, and of the command.
                    b'c' | b'C' => {}
                    b'Z' => return Ok(None),
                    b'N' | b'S' => {}
                    b'E' => return Err(decode_error(&frame.slice(HEADER_SIZE..))),
                    other => return Err(Error::Protocol(format!("type {:?} within a copy", char::from(other)))),
                }
                continue;
            }
            self.received.reserve(READ_SIZE);
            let count = self.socket.read(&mut self.received).await.map_err(Error::connection("receive from the primary"))?;
            if count == 0 {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the primary closed the connection");
                return Err(Error::Connection { action: "copy from the primary", source });
            }
        }
    }

    /// The size of the first message, if it is there as a whole.
    fn whole_frame(&self) -> Result<Option<usize>> {
        Ok(frame_size(&self.received, MESSAGE_SIZE_MAX)?.filter(|size| self.received.len() >= *size))
    }

    /// Splits the whole CopyData messages off the front of the buffer.
    fn take_messages(&mut self) -> Result<Option<Bytes>> {
        let mut end = 0;
        loop {
            let rest = &self.received[end..];
            if rest.first() != Some(&b'd') {
                break;
            }
            match frame_size(rest, MESSAGE_SIZE_MAX)? {
                Some(size) if size <= rest.len() => end += size,
                _ => break,
            }
        }
        Ok((end > 0).then(|| self.received.split_to(end).freeze()))
    }
}

/// The bodies of messages that [`Connection::copied`] returned.
pub(crate) struct CopyMessages<'a> {
    rest: &'a [u8],
}

impl<'a> CopyMessages<'a> {
    pub(crate) fn new(messages: &'a [u8]) -> Self {
        CopyMessages { rest: messages }
    }
}

impl<'a> Iterator for CopyMessages<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // The connection checked every message before it handed them out.
        let size = frame_size(self.rest, MESSAGE_SIZE_MAX).ok().flatten()?;
        let (message, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        message.get(HEADER_SIZE..)
    }
}
