//! The stream half of a replication connection: batches of messages in, status updates out.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use strandline_storage::{Lsn, Timestamp};
use tokio::time::timeout;

use super::connection::{decode_error, frame_size};
use super::low_water::{BEHIND_SIZE, BEHIND_WAIT, LowWater};
use super::socket::Socket;
use crate::error::{Error, Result};

/// How much room the receive buffer has at least before each read.
const READ_SIZE: usize = 256 << 10;

/// The largest message: a value is at most 1 GiB on the primary, and so is the text of a row.
const MESSAGE_SIZE_MAX: usize = (1 << 30) + (1 << 20);

/// How long the primary may refuse to take a status update. It reads them even while it waits for us.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// The bytes before the payload of a WAL data message: header, kind, start, end, time.
const DATA_HEADER_SIZE: usize = 5 + 1 + 8 + 8 + 8;

/// A stream of changes. Dropping it closes the connection.
pub struct ReplicationStream {
    socket: Socket,
    received: BytesMut,
    low_water: LowWater,
}

/// Whole messages as they lie in the receive buffer, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// CopyData messages, headers included; every one is WAL data or a keepalive.
    pub bytes: Bytes,
    /// The highest LSN that the primary mentioned.
    pub received: Lsn,
    /// A keepalive asks for a status update at once.
    pub reply_requested: bool,
}

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMessage<'a> {
    /// A message of the output plugin.
    Data { lsn: Lsn, payload: &'a [u8] },
    /// The primary has sent everything that it decoded up to here.
    Keepalive { sent: Lsn },
}

/// Walks the messages of a batch and says where each begins.
#[derive(Clone, Debug)]
pub struct StreamMessages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl ReplicationStream {
    pub(super) fn new(socket: Socket, received: BytesMut) -> Self {
        ReplicationStream { socket, received, low_water: LowWater::default() }
    }

    /// A stream whose other end is in the test's hands.
    #[cfg(test)]
    pub(crate) fn over(socket: tokio::net::UnixStream) -> Self {
        ReplicationStream::new(Socket::Unix(socket), BytesMut::new())
    }

    /// Waits for messages and takes all whole ones that have arrived. May be dropped while it waits: nothing is lost.
    /// # Errors
    /// `Connection` when the stream ended, `Primary` when the primary says why, `Protocol`.
    pub async fn receive(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.take_batch()? {
                return Ok(batch);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.received.reserve(READ_SIZE);
        let reading = self.socket.read(&mut self.received);
        let read = if self.low_water.is_behind() {
            match timeout(BEHIND_WAIT, reading).await {
                Ok(read) => read,
                Err(_) => return self.set_behind(false),
            }
        } else {
            reading.await
        };
        match read.map_err(Error::connection("receive from the primary"))? {
            0 => {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the primary closed the connection");
                Err(Error::Connection { action: "receive from the primary", source })
            }
            // A TLS record is smaller than the mark, so there the socket itself says how much waits.
            count if count >= BEHIND_SIZE || (self.socket.is_tls() && self.has_waiting()) => self.set_behind(true),
            _ => Ok(()),
        }
    }

    fn has_waiting(&self) -> bool {
        self.socket.tcp().is_some_and(|tcp| self.low_water.has_waiting(tcp))
    }

    fn set_behind(&mut self, behind: bool) -> Result<()> {
        let Some(tcp) = self.socket.tcp() else { return Ok(()) };
        self.low_water.set_behind(tcp, behind).map_err(Error::connection("set up the connection"))
    }

    /// Splits the whole messages off the front of the buffer.
    fn take_batch(&mut self) -> Result<Option<Batch>> {
        let mut received = Lsn(0);
        let mut reply_requested = false;
        let mut end = 0;
        loop {
            let rest = &self.received[end..];
            let Some(size) = frame_size(rest, MESSAGE_SIZE_MAX)? else { break };
            if rest.len() < size {
                break;
            }
            if rest[0] != b'd' {
                if end > 0 {
                    break;
                }
                self.take_other(size)?;
                continue;
            }
            let frame = &rest[..size];
            match decode_frame(frame)? {
                Decoded::Data { lsn, .. } => received = received.max(lsn),
                Decoded::Keepalive { sent, reply } => {
                    received = received.max(sent);
                    reply_requested |= reply;
                }
            }
            end += size;
        }
        if end == 0 {
            return Ok(None);
        }
        Ok(Some(Batch { bytes: self.received.split_to(end).freeze(), received, reply_requested }))
    }

    /// Consumes a message at the front of the buffer that is not CopyData.
    fn take_other(&mut self, size: usize) -> Result<()> {
        let frame = self.received.split_to(size).freeze();
        let ended =
            |what| Error::Connection { action: "receive from the primary", source: io::Error::new(io::ErrorKind::UnexpectedEof, what) };
        match frame[0] {
            b'E' => Err(decode_error(&frame.slice(5..))),
            b'N' | b'S' => Ok(()),
            b'c' | b'C' | b'Z' => Err(ended("the primary ended the stream")),
            other => Err(Error::Protocol(format!("type {:?} within the stream", char::from(other)))),
        }
    }

    /// Tells the primary how far we are.
    pub async fn send_status(&mut self, received: Lsn, durable: Lsn, request_reply: bool) -> Result<()> {
        let mut out = [0; 39];
        out[0] = b'd';
        out[1..5].copy_from_slice(&38u32.to_be_bytes());
        out[5] = b'r';
        out[6..14].copy_from_slice(&received.0.to_be_bytes());
        out[14..22].copy_from_slice(&durable.0.to_be_bytes());
        out[22..30].copy_from_slice(&durable.0.to_be_bytes());
        out[30..38].copy_from_slice(&Timestamp::now().0.to_be_bytes());
        out[38] = u8::from(request_reply);
        self.write(&out).await
    }

    /// Ends the stream in an orderly way. What the primary still sends is not awaited.
    pub async fn finish(&mut self) -> Result<()> {
        self.write(&[b'c', 0, 0, 0, 4, b'X', 0, 0, 0, 4]).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(SEND_TIMEOUT, self.socket.write_all(bytes))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the primary takes no status updates")))
            .map_err(Error::connection("send to the primary"))
    }
}

enum Decoded<'a> {
    Data { lsn: Lsn, payload: &'a [u8] },
    Keepalive { sent: Lsn, reply: bool },
}

/// Decodes one whole CopyData message.
#[inline]
fn decode_frame(frame: &[u8]) -> Result<Decoded<'_>> {
    let lsn_at = |at: usize| frame.get(at..at + 8).and_then(|b| b.try_into().ok()).map(|b| Lsn(u64::from_be_bytes(b)));
    match frame.get(5) {
        Some(b'w') if frame.len() >= DATA_HEADER_SIZE => {
            let lsn = lsn_at(6).unwrap_or_default();
            Ok(Decoded::Data { lsn, payload: &frame[DATA_HEADER_SIZE..] })
        }
        Some(b'k') if frame.len() == 5 + 1 + 8 + 8 + 1 => {
            Ok(Decoded::Keepalive { sent: lsn_at(6).unwrap_or_default(), reply: frame[frame.len() - 1] != 0 })
        }
        _ => Err(Error::Protocol(format!("stream data of {} bytes that is neither WAL data nor a keepalive", frame.len()))),
    }
}

impl Batch {
    pub fn messages(&self) -> StreamMessages<'_> {
        StreamMessages::new(&self.bytes)
    }
}

impl<'a> StreamMessages<'a> {
    /// `bytes` are a batch's, or a part of them that begins and ends between messages.
    pub fn new(bytes: &'a [u8]) -> Self {
        StreamMessages { bytes, at: 0 }
    }

    /// Where the next message begins.
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for StreamMessages<'a> {
    type Item = StreamMessage<'a>;

    #[inline]
    fn next(&mut self) -> Option<StreamMessage<'a>> {
        let rest = self.bytes.get(self.at..)?;
        // The stream checked every message before it handed the batch out.
        let size = frame_size(rest, MESSAGE_SIZE_MAX).ok().flatten()?;
        let frame = rest.get(..size)?;
        self.at += size;
        match decode_frame(frame).ok()? {
            Decoded::Data { lsn, payload } => Some(StreamMessage::Data { lsn, payload }),
            Decoded::Keepalive { sent, .. } => Some(StreamMessage::Keepalive { sent }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn data(lsn: u64, payload: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend(lsn.to_be_bytes());
        body.extend(lsn.to_be_bytes());
        body.extend(0u64.to_be_bytes());
        body.extend(payload);
        frame(b'd', &body)
    }

    fn keepalive(sent: u64, reply: bool) -> Vec<u8> {
        let mut body = vec![b'k'];
        body.extend(sent.to_be_bytes());
        body.extend(0u64.to_be_bytes());
        body.push(u8::from(reply));
        frame(b'd', &body)
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend((body.len() as u32 + 4).to_be_bytes());
        out.extend(body);
        out
    }

    async fn pair() -> (ReplicationStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        (ReplicationStream::new(Socket::Plain(ours), BytesMut::new()), theirs)
    }

    #[tokio::test]
    async fn messages_cut_anywhere_arrive_whole() {
        let (mut stream, mut server) = pair().await;
        let mut bytes = Vec::new();
        for i in 0..50u64 {
            bytes.extend(data(100 + i, &vec![b'x'; i as usize * 7]));
            bytes.extend(keepalive(500 + i, i == 49));
        }
        let expected = StreamMessages::new(&bytes).count();
        let sender = tokio::spawn(async move {
            for piece in bytes.chunks(13) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        });
        let (mut count, mut reply, mut received) = (0, false, Lsn(0));
        while count < expected {
            let batch = stream.receive().await.unwrap();
            count += batch.messages().count();
            reply |= batch.reply_requested;
            received = received.max(batch.received);
        }
        assert!(reply);
        assert_eq!((count, received), (100, Lsn(549)));
        drop(sender.await.unwrap());
        assert!(matches!(stream.receive().await, Err(Error::Connection { .. })));
    }

    #[tokio::test]
    async fn an_error_comes_after_the_messages_before_it() {
        let (mut stream, mut server) = pair().await;
        let mut bytes = data(7, b"x");
        bytes.extend(frame(b'N', b"\0"));
        bytes.extend(data(8, b"y"));
        bytes.extend(frame(b'E', b"C57P01\0Mgoing\0\0"));
        server.write_all(&bytes).await.unwrap();
        let mut lsns = Vec::new();
        let error = loop {
            match stream.receive().await {
                Ok(batch) => lsns.push(batch.received.0),
                Err(error) => break error,
            }
        };
        assert_eq!(lsns, [7, 8]);
        assert!(error.is_passing() && error.to_string().contains("going"), "{error}");
    }

    #[tokio::test]
    async fn a_large_backlog_is_read_in_large_pieces_and_its_end_is_not_withheld() {
        let (mut stream, mut server) = pair().await;
        let sender = tokio::spawn(async move {
            let block: Vec<u8> = (0..1000).flat_map(|i| data(i, &[0; 300])).collect();
            for _ in 0..20 {
                server.write_all(&block).await.unwrap();
            }
            server
        });
        let mut count = 0;
        while count < 20_000 {
            count += stream.receive().await.unwrap().messages().count();
        }
        assert_eq!(count, 20_000);
        drop(sender);
    }

    #[tokio::test]
    async fn bytes_that_are_no_stream_are_refused() {
        for bytes in [
            frame(b'd', b""),
            frame(b'd', b"w123"),
            frame(b'd', b"?"),
            frame(b'Q', b"x"),
            vec![b'd', 0xff, 0, 0, 0],
            vec![b'd', 0, 0, 0, 1],
        ] {
            let (mut stream, mut server) = pair().await;
            server.write_all(&bytes).await.unwrap();
            assert!(matches!(stream.receive().await, Err(Error::Protocol(_))), "{bytes:?}");
        }
    }
}
