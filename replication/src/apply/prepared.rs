//! Transactions that the primary has prepared (PREPARE TRANSACTION) and not ended yet.
//!
//! Once we have confirmed a Prepare, the primary never sends the transaction's changes again, only how it ended. So each has a file of its own, synced before
//! anything behind its Prepare is confirmed, and removed when what became of it is durable. On the way to its end a
//! transaction may pass restarts and connections, while the primary announces its tables once per connection: the file begins with the Relation and Type messages that its
//! changes need.
//!
//! | size | field; numbers are little-endian |
//! |---|---|
//! | 8 | `strandpt` |
//! | 4 | version: 1 |
//! | 4 | transaction id |
//! | 8 | LSN of the record that prepares it |
//! | 4 + n | size and text of the name that the user gave it |
//! | n × | records as in `spool` |
//! | 4 | CRC-32C of all bytes before |

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use strandline_storage::Lsn;

use super::spool::{self, Spool, put_record};
use crate::error::{Error, Result};
use crate::pgoutput::{NAME_SIZE_MAX, Prepare};

const MAGIC: &[u8; 8] = b"strandpt";
const VERSION: u32 = 1;
const CRC_SIZE: u64 = 4;

/// How much of a file is read or written at once.
const BUFFER_SIZE: usize = 1 << 20;

/// All of one replicator.
#[derive(Debug)]
pub(super) struct PreparedTransactions {
    folder: PathBuf,
    /// By transaction id and the user's name.
    waiting: HashMap<(u32, String), PreparedFile>,
}

/// One transaction's file, which lasts.
#[derive(Clone, Debug)]
pub(super) struct PreparedFile {
    path: PathBuf,
    pub(super) xid: u32,
    pub(super) prepare_lsn: Lsn,
    /// Where the records are.
    start: u64,
    end: u64,
}

impl PreparedTransactions {
    /// Takes up what an earlier process has left in `folder`, which need not exist.
    /// # Errors
    /// `File`, or `Setup` for a file that is damaged: without it, replication cannot go on.
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        let mut waiting = HashMap::new();
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(PreparedTransactions { folder, waiting }),
            entries => entries.map_err(failed("read", &folder))?,
        };
        for entry in entries {
            let path = entry.map_err(failed("read", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                // Its Prepare was not confirmed, so it is sent again.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                continue;
            }
            let (file, gid) = PreparedFile::open(&path)?;
            waiting.insert((file.xid, gid), file);
        }
        Ok(PreparedTransactions { folder, waiting })
    }

    /// Keeps a transaction, durably. `preamble` are messages that its changes need before them.
    pub(super) fn put(&mut self, prepare: &Prepare<'_>, preamble: &[Vec<u8>], spool: &Spool) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        let path = self.folder.join(format!("{:08x}-{:016x}", prepare.xid, prepare.prepare_lsn.0));
        let temporary = path.with_extension("tmp");
        let write = failed("write", &temporary);
        let mut out = Checked { out: BufWriter::with_capacity(BUFFER_SIZE, File::create(&temporary).map_err(&write)?), crc: 0, size: 0 };
        let mut header = Vec::with_capacity(64);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&prepare.xid.to_le_bytes());
        header.extend_from_slice(&prepare.prepare_lsn.0.to_le_bytes());
        header.extend_from_slice(&(prepare.gid.len() as u32).to_le_bytes());
        header.extend_from_slice(prepare.gid.as_bytes());
        out.put(&header).map_err(&write)?;
        let start = out.size;
        let mut record = Vec::new();
        for message in preamble {
            record.clear();
            put_record(&mut record, prepare.prepare_lsn, 0, message)?;
            out.put(&record).map_err(&write)?;
        }
        spool.read(|lsn, message| {
            record.clear();
            put_record(&mut record, lsn, 0, message)?;
            out.put(&record).map_err(&write)
        })?;
        let end = out.size;
        let crc = out.crc;
        out.put(&crc.to_le_bytes()).map_err(&write)?;
        let file = out.out.into_inner().map_err(|e| write(e.into_error()))?;
        file.sync_all().map_err(&write)?;
        fs::rename(&temporary, &path).map_err(&write)?;
        // The folder's own entry was made with it, perhaps a moment ago.
        for folder in [Some(self.folder.as_path()), self.folder.parent()].into_iter().flatten() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))?;
        }
        let kept = PreparedFile { path, xid: prepare.xid, prepare_lsn: prepare.prepare_lsn, start, end };
        self.waiting.insert((prepare.xid, prepare.gid.to_owned()), kept);
        Ok(())
    }

    pub(super) fn get(&self, xid: u32, gid: &str) -> Option<&PreparedFile> {
        self.waiting.get(&(xid, gid.to_owned()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &PreparedFile)> {
        self.waiting.iter().map(|((_, gid), file)| (gid.as_str(), file))
    }

    /// Forgets a transaction that has ended. Does nothing where there is none.
    pub(super) fn remove(&mut self, xid: u32, gid: &str) -> Result<()> {
        match self.waiting.remove(&(xid, gid.to_owned())) {
            Some(file) => fs::remove_file(&file.path).map_err(failed("remove", &file.path)),
            None => Ok(()),
        }
    }
}

impl PreparedFile {
    /// How many bytes its messages take.
    pub(super) fn size(&self) -> u64 {
        self.end - self.start
    }

    /// Calls `take` with every message, in order, until it fails.
    /// # Errors
    /// `File`, or what `take` gives.
    pub(super) fn read<E: From<Error>>(&self, mut take: impl FnMut(Lsn, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let read = failed("read", &self.path);
        let mut file = BufReader::with_capacity(BUFFER_SIZE, File::open(&self.path).map_err(&read)?);
        io::copy(&mut file.by_ref().take(self.start), &mut io::sink()).map_err(&read)?;
        spool::read_records(file.take(self.size()), &HashSet::new(), &read, &mut take)
    }

    /// Reads the header and checks all of the file. Returns the user's name with it.
    fn open(path: &Path) -> Result<(Self, String)> {
        let read = failed("read", path);
        let damaged = |what: &str| {
            Error::Setup(format!(
                "file \"{}\" is damaged ({what}), and the transaction that was prepared on the primary is nowhere else; restore it, or make a new replica",
                path.display()
            ))
        };
        let file = File::open(path).map_err(&read)?;
        let size = file.metadata().map_err(&read)?.len();
        let end = size.checked_sub(CRC_SIZE).ok_or_else(|| damaged("it is too short"))?;
        let mut from = BufReader::with_capacity(BUFFER_SIZE, file);
        let mut crc = 0;
        let mut left = end;
        let mut header = Vec::new();
        while left > 0 {
            let mut piece = Vec::new();
            from.by_ref().take(left.min(BUFFER_SIZE as u64)).read_to_end(&mut piece).map_err(&read)?;
            if piece.is_empty() {
                return Err(damaged("it ends early"));
            }
            crc = crc32c::crc32c_append(crc, &piece);
            left -= piece.len() as u64;
            if header.is_empty() {
                header = piece;
            }
        }
        let mut stored = [0; CRC_SIZE as usize];
        from.read_exact(&mut stored).map_err(&read)?;
        if crc != u32::from_le_bytes(stored) {
            return Err(damaged("its checksum is wrong"));
        }
        let mut rest = header.strip_prefix(MAGIC).ok_or_else(|| damaged("it is another kind of file"))?;
        let mut next = |count: usize| rest.split_off(..count);
        let number =
            |bytes: Option<&[u8]>| bytes.and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(|| damaged("its header"));
        let version = number(next(4))?;
        if version != VERSION {
            return Err(Error::Setup(format!("file \"{}\" has version {version}, and this program reads {VERSION}", path.display())));
        }
        let xid = number(next(4))?;
        let lsn = next(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or_else(|| damaged("its header"))?;
        let gid_size = number(next(4))? as usize;
        let gid = next(gid_size).filter(|_| gid_size <= NAME_SIZE_MAX).and_then(|b| std::str::from_utf8(b).ok());
        let gid = gid.ok_or_else(|| damaged("its header"))?.to_owned();
        let start = (header.len() - rest.len()) as u64;
        Ok((PreparedFile { path: path.to_owned(), xid, prepare_lsn: Lsn(lsn), start, end }, gid))
    }
}

/// Writes and sums up.
struct Checked {
    out: BufWriter<File>,
    crc: u32,
    size: u64,
}

impl Checked {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| Error::File { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use strandline_storage::Timestamp;

    use super::super::spool::{Spools, tests::deletions};
    use super::*;

    fn prepare(xid: u32, gid: &str) -> Prepare<'_> {
        Prepare { prepare_lsn: Lsn(0x1_0000_0005), end_lsn: Lsn(0x1_0000_0009), prepare_time: Timestamp(1), xid, gid }
    }

    fn kept(folder: &Path, count: u32) -> PreparedTransactions {
        let mut prepared = PreparedTransactions::open(folder.join("prepared")).unwrap();
        let mut spools = Spools::new(folder.join("spool"), 100).unwrap();
        for xid in 1..=count {
            spools.begin(xid);
            spools.append_streamed(xid, &deletions(&[(xid, "one"), (xid + 100, "gone"), (xid, "two")])).unwrap();
            spools.abort_subtransaction(xid, xid + 100);
            prepared.put(&prepare(xid, &format!("it's {xid}")), &[b"R-first".to_vec()], &spools.take(xid).unwrap()).unwrap();
        }
        prepared
    }

    fn messages(file: &PreparedFile) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        file.read(|_, message| {
            messages.push(message.to_vec());
            Ok::<_, Error>(())
        })
        .unwrap();
        messages
    }

    #[test]
    fn what_was_prepared_outlives_the_process_and_goes_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let before = messages(kept(folder.path(), 3).get(2, "it's 2").unwrap());
        assert_eq!(before.len(), 3);
        assert_eq!(before[0], b"R-first");
        assert!(before[1].ends_with(b"one") && before[2].ends_with(b"two"));
        fs::write(folder.path().join("prepared/x.tmp"), b"unfinished").unwrap();
        let mut prepared = PreparedTransactions::open(folder.path().join("prepared")).unwrap();
        assert_eq!(prepared.iter().count(), 3);
        let file = prepared.get(2, "it's 2").unwrap();
        assert_eq!((file.xid, file.prepare_lsn, messages(file)), (2, Lsn(0x1_0000_0005), before));
        assert!(prepared.get(2, "it's 1").is_none() && prepared.get(1, "it's 2").is_none());
        prepared.remove(2, "it's 2").unwrap();
        prepared.remove(2, "it's 2").unwrap();
        assert_eq!(fs::read_dir(folder.path().join("prepared")).unwrap().count(), 2);
    }

    #[test]
    fn no_damage_goes_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = kept(folder.path(), 1).get(1, "it's 1").unwrap().path.clone();
        let whole = fs::read(&path).unwrap();
        let open = || PreparedTransactions::open(folder.path().join("prepared"));
        for size in 0..whole.len() {
            fs::write(&path, &whole[..size]).unwrap();
            assert!(matches!(open(), Err(Error::Setup(_))), "{size} of {} bytes", whole.len());
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 0x10;
            fs::write(&path, &other).unwrap();
            assert!(matches!(open(), Err(Error::Setup(_))), "byte {at}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(open().is_ok());
    }
}
