//! The changes of a table that is being copied, kept until its copy can join the stream.
//!
//! Whole transactions in the order of their commits; what an attempt has added that came to nothing is cut off before the next. The file is of use to this process
//! only: after a crash the table is copied anew. Records are those of a `spool`; a transaction's first is its Begin:
//!
//! | size | field |
//! |---|---|
//! | 1 | `B` |
//! | 8 | LSN of the commit record, little-endian as all numbers here |
//! | 8 | time of the commit, in microseconds |
//! | 4 | transaction id |

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use strandline_storage::{Lsn, Timestamp};

use super::relation::SourceRelation;
use super::spool::{READ_SIZE, SpoolFile, WRITE_SIZE, failed, put_record, read_records};
use crate::error::{Error, Result};
use crate::pgoutput::Begin;

const BEGIN: u8 = b'B';

#[derive(Debug)]
pub(super) struct Gathered {
    path: PathBuf,
    /// What came after what the file holds.
    memory: Vec<u8>,
    file: Option<SpoolFile>,
    /// Bytes of whole transactions.
    whole: u64,
    /// The transaction under way has its Begin.
    has_begun: bool,
    /// The last transaction's, whole or not.
    last_commit: Lsn,
    /// What the table was last said to be.
    announced: Option<Arc<SourceRelation>>,
}

impl Gathered {
    pub(super) fn new(path: PathBuf) -> Self {
        Gathered { path, memory: Vec::new(), file: None, whole: 0, has_begun: false, last_commit: Lsn(0), announced: None }
    }

    /// The LSN of the last commit record of which something was kept.
    pub(super) fn last_commit(&self) -> Lsn {
        self.last_commit
    }

    fn size(&self) -> u64 {
        self.memory.len() as u64 + self.file.as_ref().map_or(0, |file| file.size)
    }

    /// Forgets what was added since the last whole transaction.
    /// # Errors
    /// `File`.
    pub(super) fn begin_transaction(&mut self) -> Result<()> {
        if self.size() == self.whole {
            return Ok(());
        }
        self.has_begun = false;
        self.announced = None;
        match &mut self.file {
            Some(file) if file.size > self.whole => {
                file.cut(self.whole)?;
                self.memory.clear();
            }
            file => self.memory.truncate((self.whole - file.as_ref().map_or(0, |file| file.size)) as usize),
        }
        Ok(())
    }

    pub(super) fn end_transaction(&mut self) {
        self.whole = self.size();
        self.has_begun = false;
    }

    /// Says whether the table was last said to be something else.
    pub(super) fn is_new(&self, source: &Arc<SourceRelation>) -> bool {
        self.announced.as_ref().is_none_or(|announced| !Arc::ptr_eq(announced, source) && announced != source)
    }

    pub(super) fn announce(&mut self, source: &Arc<SourceRelation>) {
        self.announced = Some(Arc::clone(source));
    }

    /// # Errors
    /// `File` where there is no room.
    pub(super) fn put(&mut self, begin: &Begin, lsn: Lsn, message: &[u8]) -> Result<()> {
        if !self.has_begun {
            self.has_begun = true;
            self.last_commit = begin.commit_lsn;
            let mut record = vec![BEGIN];
            record.extend_from_slice(&begin.commit_lsn.0.to_le_bytes());
            record.extend_from_slice(&begin.commit_time.0.to_le_bytes());
            record.extend_from_slice(&begin.xid.to_le_bytes());
            put_record(&mut self.memory, lsn, 0, &record)?;
        }
        put_record(&mut self.memory, lsn, 0, message)?;
        if self.memory.len() >= WRITE_SIZE {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(SpoolFile::create(self.path.clone())?),
            };
            file.append(&mut self.memory)?;
        }
        Ok(())
    }

    /// Calls `take` with every message in order until it fails; with each transaction's Begin first, decoded.
    /// # Errors
    /// `File`, or what `take` gives.
    pub(super) fn read(&self, mut take: impl FnMut(Lsn, GatheredMessage<'_>) -> Result<()>) -> Result<()> {
        let mut take = |lsn, message: &[u8]| match begin_of(message) {
            Some(begin) => take(lsn, GatheredMessage::Begin(begin)),
            None => take(lsn, GatheredMessage::Payload(message)),
        };
        let none = HashSet::new();
        if let Some(file) = &self.file {
            let read = failed("read", &file.path);
            let opened = File::open(&file.path).map_err(&read)?;
            read_records(BufReader::with_capacity(READ_SIZE, opened), &none, &read, &mut take)?;
        }
        let read = |source| Error::Connection { action: "read kept messages", source };
        read_records(self.memory.as_slice(), &none, &read, &mut take)
    }
}

pub(super) enum GatheredMessage<'a> {
    Begin(Begin),
    /// As the stream brought it.
    Payload(&'a [u8]),
}

fn begin_of(message: &[u8]) -> Option<Begin> {
    let (&BEGIN, rest) = message.split_first()? else { return None };
    let (lsn, rest) = rest.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let xid = rest.try_into().ok()?;
    Some(Begin {
        commit_lsn: Lsn(u64::from_le_bytes(*lsn)),
        commit_time: Timestamp(i64::from_le_bytes(*time)),
        xid: u32::from_le_bytes(xid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(gathered: &Gathered) -> Vec<String> {
        let mut texts = Vec::new();
        gathered
            .read(|_, message| {
                texts.push(match message {
                    GatheredMessage::Begin(begin) => format!("{} {} {}", begin.commit_lsn.0, begin.commit_time.0, begin.xid),
                    GatheredMessage::Payload(payload) => String::from_utf8_lossy(&payload[..1]).into_owned(),
                });
                Ok(())
            })
            .unwrap();
        texts
    }

    fn begin(n: u32) -> Begin {
        Begin { commit_lsn: Lsn(u64::from(n) * 100), commit_time: Timestamp(-5), xid: n }
    }

    #[test]
    fn what_came_to_nothing_is_cut_off_in_memory_and_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for size in [10, WRITE_SIZE / 2 + 1, WRITE_SIZE] {
            let mut gathered = Gathered::new(folder.path().join("s/1"));
            let message = |tag: u8| vec![tag; size];
            gathered.begin_transaction().unwrap();
            gathered.put(&begin(1), Lsn(1), &message(b'a')).unwrap();
            gathered.put(&begin(1), Lsn(2), &message(b'b')).unwrap();
            gathered.end_transaction();
            for _ in 0..2 {
                gathered.begin_transaction().unwrap();
                gathered.put(&begin(2), Lsn(3), &message(b'c')).unwrap();
                gathered.put(&begin(2), Lsn(3), &message(b'd')).unwrap();
                gathered.put(&begin(2), Lsn(3), &message(b'e')).unwrap();
            }
            gathered.begin_transaction().unwrap();
            assert_eq!(texts(&gathered), ["100 -5 1", "a", "b"], "{size}");
            gathered.put(&begin(3), Lsn(3), &message(b'f')).unwrap();
            gathered.end_transaction();
            gathered.begin_transaction().unwrap();
            gathered.end_transaction();
            assert_eq!(texts(&gathered), ["100 -5 1", "a", "b", "300 -5 3", "f"], "{size}");
            drop(gathered);
            assert!(!folder.path().join("s/1").exists());
        }
    }
}
