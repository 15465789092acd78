//! `pg_wal_location`: the user's window on where replication is, and the way to say where it shall begin.
//!
//! We rewrite it as the durable position moves. The store remembers what we wrote; a content that is not ours is the user's word. A content
//! becomes ours in the store, durably, before it is written, so that no crash can make our own hand look like the user's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use strandline_storage::Lsn;
use strandline_storage::store::Store;

use crate::error::{Error, Result};
use crate::source_record::SourceRecords;

const FILE_NAME: &str = "pg_wal_location";

/// The longest content that is read: an LSN has at most 17 characters.
const CONTENT_SIZE_MAX: u64 = 4096;

/// How much of a content that is no LSN is shown.
const CONTENT_SHOWN_MAX: usize = 40;

/// The file and what we last wrote into it.
pub(crate) struct WalLocation {
    path: PathBuf,
    written: Option<Lsn>,
}

impl WalLocation {
    pub(crate) fn new(cfg_dir: &Path) -> Self {
        WalLocation { path: cfg_dir.join(FILE_NAME), written: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the user wrote, if the content is not our own.
    /// # Errors
    /// `Setup` for a content that is no LSN.
    pub(crate) fn users_word(&mut self, records: &SourceRecords) -> Result<Option<Lsn>> {
        match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.failed("read")(e)),
            Ok(metadata) if metadata.len() > CONTENT_SIZE_MAX => return Err(self.malformed("too long")),
            Ok(_) => {}
        }
        let content = fs::read(&self.path).map_err(self.failed("read"))?;
        let text = String::from_utf8_lossy(&content);
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let lsn: Lsn = text.parse().map_err(|_| self.malformed(text))?;
        if records.locations()?.contains(&lsn) {
            self.written = Some(lsn);
            return Ok(None);
        }
        Ok(Some(lsn))
    }

    /// Makes `lsn`, which must be durable, the file's content. Does nothing if it is already. Waits for the disk.
    pub(crate) fn write(&mut self, lsn: Lsn, records: &SourceRecords, store: &Store) -> Result<()> {
        if self.written == Some(lsn) {
            return Ok(());
        }
        let ours: Vec<Lsn> = [Some(lsn), self.written].into_iter().flatten().collect();
        let position = records.set_locations(&ours)?;
        store.wait_durable(position)?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(self.failed("write"))?;
            let temporary = self.path.with_extension("tmp");
            let mut file = File::create(&temporary).map_err(self.failed("write"))?;
            file.write_all(format!("{lsn}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(self.failed("write"))?;
            fs::rename(&temporary, &self.path).map_err(self.failed("write"))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(self.failed("write"))?;
        }
        self.written = Some(lsn);
        Ok(())
    }

    fn malformed(&self, content: &str) -> Error {
        // What is no text shall not spoil the log, nor the table that shows this.
        let content: String = content.chars().take(CONTENT_SHOWN_MAX).flat_map(char::escape_default).collect();
        Error::Setup(format!(
            "file \"{}\" does not hold an LSN (\"{content}\"); write one like 0/16B3748, or remove the file",
            self.path.display()
        ))
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.path.display().to_string();
        move |source| Error::File { action, path: path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_is_no_text_is_shown_as_text() {
        let error = WalLocation::new(Path::new("f")).malformed("\u{fffd}\0\n").to_string();
        assert!(error.contains(r"\u{fffd}\u{0}\n") && !error.contains('\0'), "{error}");
    }
}
