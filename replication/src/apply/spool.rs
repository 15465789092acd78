//! Messages of transactions that have not ended yet, kept until they do.
//!
//! A transaction that the primary sends while it runs may be rolled back, and others commit before it: its messages wait here, in the order in which
//! they came. All that wait share one limit of memory; when it is reached, the transaction that takes most goes to a file of its own, and what comes
//! later of it, too. A subtransaction that was rolled back leaves its messages where they are, and they are left out when the rest is read.
//!
//! The files are of use to this process only: they are removed when the transaction ends, when the connection does (the primary then sends it all again),
//! and at the next start. They are not synced.
//!
//! | size | field of a record |
//! |---|---|
//! | 4 | size of the message, little-endian as all numbers here |
//! | 4 | transaction or subtransaction id; 0: the transaction itself |
//! | 8 | the message's LSN |
//! | size | the message as it would be outside of a block |

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use strandline_storage::Lsn;

use crate::capture::is_of_subtransaction;
use crate::client::{StreamMessage, StreamMessages};
use crate::error::{Error, Result};
use crate::pgoutput::{DecodeError, Message};

const RECORD_HEADER_SIZE: usize = 4 + 4 + 8;

/// What comes of a transaction that has a file is written in pieces of about this size.
pub(super) const WRITE_SIZE: usize = 1 << 20;

/// How much of a file is read at once.
pub(super) const READ_SIZE: usize = 1 << 20;

/// All transactions that wait, by the ids of their top-level transactions.
#[derive(Debug)]
pub(super) struct Spools {
    folder: PathBuf,
    /// Bytes.
    memory_max: usize,
    memory: usize,
    waiting: HashMap<u32, Spool>,
    file_count: u64,
}

/// The messages of one transaction.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// What came after what the file holds.
    memory: Vec<u8>,
    file: Option<SpoolFile>,
    /// Subtransactions that were rolled back.
    aborted: HashSet<u32>,
}

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct SpoolFile {
    pub(super) path: PathBuf,
    file: File,
    pub(super) size: u64,
}

impl Spools {
    /// Removes what an earlier process has left in `folder`, which need not exist.
    /// # Errors
    /// `File`.
    pub(super) fn new(folder: PathBuf, memory_max: usize) -> Result<Self> {
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &folder)(e)),
            _ => {}
        }
        Ok(Spools { folder, memory_max, memory: 0, waiting: HashMap::new(), file_count: 0 })
    }

    pub(super) fn contains(&self, xid: u32) -> bool {
        self.waiting.contains_key(&xid)
    }

    /// Begins to keep a transaction.
    pub(super) fn begin(&mut self, xid: u32) {
        self.waiting.insert(xid, Spool::default());
    }

    /// Adds the messages of a block; `frames` are as they lie in a batch.
    /// # Errors
    /// `Decode` for a message that is damaged, `File` where there is no room.
    pub(super) fn append_streamed(&mut self, xid: u32, frames: &[u8]) -> Result<()> {
        self.append(xid, frames, |payload| {
            let (xid, tag, body) = Message::split_streamed(payload)?;
            Ok((xid.unwrap_or(0), tag, body))
        })
    }

    /// As [`Spools::append_streamed`], for messages that do not lie in a block.
    pub(super) fn append_whole(&mut self, xid: u32, frames: &[u8]) -> Result<()> {
        self.append(xid, frames, |payload| {
            let (&tag, body) = payload.split_first().ok_or(DecodeError::Empty)?;
            Ok((0, tag, body))
        })
    }

    fn append(&mut self, xid: u32, frames: &[u8], split: impl Fn(&[u8]) -> Result<(u32, u8, &[u8]), DecodeError>) -> Result<()> {
        let Some(spool) = self.waiting.get_mut(&xid) else { return Ok(()) };
        let before = spool.memory.len();
        spool.append(frames, split)?;
        self.memory += spool.memory.len() - before;
        if spool.file.is_some() && spool.memory.len() >= WRITE_SIZE {
            self.memory -= spool.memory.len();
            spool.write_out()?;
        }
        while self.memory > self.memory_max {
            let Some((xid, spool)) = self.waiting.iter_mut().max_by_key(|(_, spool)| spool.memory.len()) else { break };
            self.memory -= spool.memory.len();
            if spool.file.is_none() {
                let path = self.folder.join(self.file_count.to_string());
                self.file_count += 1;
                tracing::debug!(xid, path = %path.display(), "a transaction that is under way on the primary goes to a file");
                spool.file = Some(SpoolFile::create(path)?);
            }
            spool.write_out()?;
        }
        Ok(())
    }

    /// Leaves out what a subtransaction did.
    pub(super) fn abort_subtransaction(&mut self, xid: u32, subxid: u32) {
        if let Some(spool) = self.waiting.get_mut(&xid) {
            spool.aborted.insert(subxid);
        }
    }

    /// Takes a transaction that has ended out.
    pub(super) fn take(&mut self, xid: u32) -> Option<Spool> {
        let spool = self.waiting.remove(&xid)?;
        self.memory -= spool.memory.len();
        Some(spool)
    }
}

impl Spool {
    /// How many bytes there are, with those of subtransactions that were rolled back.
    pub(super) fn size(&self) -> u64 {
        self.memory.len() as u64 + self.file.as_ref().map_or(0, |file| file.size)
    }

    fn append(&mut self, frames: &[u8], split: impl Fn(&[u8]) -> Result<(u32, u8, &[u8]), DecodeError>) -> Result<()> {
        for message in StreamMessages::new(frames) {
            let StreamMessage::Data { lsn, payload } = message else { continue };
            let (xid, tag, body) = split(payload).map_err(|source| Error::Decode { lsn, source })?;
            put_header(&mut self.memory, lsn, xid, body.len() + 1)?;
            self.memory.push(tag);
            self.memory.extend_from_slice(body);
        }
        Ok(())
    }

    /// Moves what is in memory to the file, if there is one.
    fn write_out(&mut self) -> Result<()> {
        match &mut self.file {
            Some(file) => file.append(&mut self.memory),
            None => Ok(()),
        }
    }

    /// Calls `take` with every message that counts, in order, until it fails.
    /// # Errors
    /// `File`, or what `take` gives.
    pub(super) fn read<E: From<Error>>(&self, mut take: impl FnMut(Lsn, &[u8]) -> Result<(), E>) -> Result<(), E> {
        if let Some(file) = &self.file {
            let read = failed("read", &file.path);
            let opened = File::open(&file.path).map_err(&read)?;
            read_records(BufReader::with_capacity(READ_SIZE, opened), &self.aborted, &read, &mut take)?;
        }
        let read = |source| Error::Connection { action: "read kept messages", source };
        read_records(self.memory.as_slice(), &self.aborted, &read, &mut take)
    }
}

/// Adds a record of a whole message.
pub(super) fn put_record(out: &mut Vec<u8>, lsn: Lsn, xid: u32, message: &[u8]) -> Result<()> {
    put_header(out, lsn, xid, message.len())?;
    out.extend_from_slice(message);
    Ok(())
}

fn put_header(out: &mut Vec<u8>, lsn: Lsn, xid: u32, size: usize) -> Result<()> {
    // The stream takes no message that is larger.
    let size = u32::try_from(size).map_err(|_| Error::Protocol("a message of more than 4 GiB".into()))?;
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&xid.to_le_bytes());
    out.extend_from_slice(&lsn.0.to_le_bytes());
    Ok(())
}

/// Calls `take` with the message of every record up to the end, but those of `aborted`, until it fails.
pub(super) fn read_records<E: From<Error>>(
    mut from: impl Read,
    aborted: &HashSet<u32>,
    failed: &impl Fn(io::Error) -> Error,
    take: &mut impl FnMut(Lsn, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut message = Vec::new();
    loop {
        let mut header = [0; RECORD_HEADER_SIZE];
        match from.read(&mut header[..1]).map_err(failed)? {
            0 => return Ok(()),
            _ => from.read_exact(&mut header[1..]).map_err(failed)?,
        }
        let [size @ .., _, _, _, _, _, _, _, _, _, _, _, _] = header;
        let [_, _, _, _, xid @ .., _, _, _, _, _, _, _, _] = header;
        let [_, _, _, _, _, _, _, _, lsn @ ..] = header;
        let size = u32::from_le_bytes(size) as usize;
        message.clear();
        // What the file says is believed no further than it has bytes.
        let count = from.by_ref().take(size as u64).read_to_end(&mut message).map_err(failed)?;
        if count < size {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()).into());
        }
        // All messages of the application bear the transaction's own id.
        if !aborted.contains(&u32::from_le_bytes(xid)) && !is_of_subtransaction(&message, aborted) {
            take(Lsn(u64::from_le_bytes(lsn)), &message)?;
        }
    }
}

impl SpoolFile {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        let file = File::create_new(&path).map_err(failed("create", &path))?;
        Ok(SpoolFile { path, file, size: 0 })
    }

    /// Moves what is in memory to the file.
    pub(super) fn append(&mut self, memory: &mut Vec<u8>) -> Result<()> {
        if let Err(source) = self.file.write_all(memory) {
            // Who tries again begins where the last whole message ends.
            let _ = self.cut(self.size);
            return Err(failed("write", &self.path)(source));
        }
        self.size += memory.len() as u64;
        *memory = Vec::new();
        Ok(())
    }

    /// Forgets what lies behind this size.
    pub(super) fn cut(&mut self, size: u64) -> Result<()> {
        let cut = self.file.set_len(size).and_then(|()| self.file.seek(SeekFrom::Start(size)));
        cut.map_err(failed("cut", &self.path))?;
        self.size = size;
        Ok(())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove a file of kept messages; the next start does");
        }
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { action, path: path.clone(), source }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A block's messages: deletions of relation 1 that carry `xid`, with `text` as their key.
    pub(crate) fn deletions(messages: &[(u32, &str)]) -> Vec<u8> {
        let mut frames = Vec::new();
        for (i, (xid, text)) in messages.iter().enumerate() {
            let mut payload = vec![b'D'];
            payload.extend(xid.to_be_bytes());
            payload.extend(b"\0\0\0\x01K\0\x01t");
            payload.extend((text.len() as u32).to_be_bytes());
            payload.extend(text.as_bytes());
            frames.push(b'd');
            frames.extend((payload.len() as u32 + 29).to_be_bytes());
            frames.push(b'w');
            frames.extend((100 + i as u64).to_be_bytes());
            frames.extend([0; 16]);
            frames.extend(payload);
        }
        frames
    }

    fn texts(spool: &Spool) -> Vec<String> {
        let mut texts = Vec::new();
        spool
            .read(|lsn, message| {
                assert!(lsn >= Lsn(100));
                let Ok(Message::Delete(delete)) = Message::decode(message) else { panic!("{message:?}") };
                let Some(crate::pgoutput::TupleValue::Text(text)) = delete.old.tuple().values().next() else { panic!() };
                texts.push(String::from_utf8(text.to_vec()).unwrap());
                Ok::<_, Error>(())
            })
            .unwrap();
        texts
    }

    fn file_count(folder: &Path) -> usize {
        fs::read_dir(folder).map_or(0, Iterator::count)
    }

    #[test]
    fn transactions_take_turns_and_lose_only_what_was_rolled_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut spools = Spools::new(folder.path().join("s"), 1 << 20).unwrap();
        spools.begin(7);
        spools.append_streamed(7, &deletions(&[(7, "a"), (8, "b"), (9, "c")])).unwrap();
        spools.begin(20);
        spools.append_streamed(20, &deletions(&[(20, "z")])).unwrap();
        spools.append_streamed(7, &deletions(&[(8, "d"), (7, "e"), (9, "f")])).unwrap();
        spools.abort_subtransaction(7, 8);
        spools.abort_subtransaction(20, 9);
        assert_eq!(texts(&spools.take(7).unwrap()), ["a", "c", "e", "f"]);
        assert_eq!(texts(&spools.take(20).unwrap()), ["z"]);
        assert!(spools.take(7).is_none() && spools.memory == 0);
        assert_eq!(file_count(&spools.folder), 0);
    }

    #[test]
    fn beyond_the_limit_the_largest_goes_to_a_file_and_files_go_with_their_transactions() {
        let folder = tempfile::tempdir().unwrap();
        let mut spools = Spools::new(folder.path().join("s"), 10_000).unwrap();
        let long = "x".repeat(1000);
        spools.begin(1);
        spools.begin(2);
        spools.append_streamed(2, &deletions(&[(2, "small")])).unwrap();
        for i in 0..5000 {
            spools.append_streamed(1, &deletions(&[(1 + i % 3, &format!("{i}{long}"))])).unwrap();
            assert!(spools.memory <= 10_000, "{}", spools.memory);
        }
        assert_eq!(file_count(&spools.folder), 1);
        spools.abort_subtransaction(1, 3);
        let spool = spools.take(1).unwrap();
        assert!(spool.size() > 5_000_000);
        let expected: Vec<String> = (0..5000).filter(|i| i % 3 != 2).map(|i| format!("{i}{long}")).collect();
        assert_eq!(texts(&spool), expected);
        // Twice, since a transaction may have to be tried again.
        assert_eq!(texts(&spool), expected);
        drop(spool);
        assert_eq!(file_count(&spools.folder), 0);
        assert_eq!(texts(&spools.take(2).unwrap()), ["small"]);
    }

    #[test]
    fn what_an_earlier_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0"), b"old").unwrap();
        let mut spools = Spools::new(folder.path().to_owned(), 0).unwrap();
        assert_eq!(file_count(folder.path()), 0);
        spools.begin(1);
        spools.append_streamed(1, &deletions(&[(1, "new")])).unwrap();
        assert_eq!(file_count(folder.path()), 1);
        assert_eq!(texts(&spools.take(1).unwrap()), ["new"]);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut spools = Spools::new(folder.path().to_owned(), 0).unwrap();
        spools.begin(1);
        spools.append_streamed(1, &deletions(&[(1, "some text")])).unwrap();
        let spool = spools.take(1).unwrap();
        let size = spool.size();
        for cut in 1..size {
            spool.file.as_ref().unwrap().file.set_len(size - cut).unwrap();
            let read = spool.read(|_, _| Ok::<_, Error>(()));
            assert!(matches!(read, Err(Error::File { .. })), "{cut}");
        }
    }
}
