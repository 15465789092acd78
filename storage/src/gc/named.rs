//! What the journal's records name, checkpoints apart: trees of tables that changes replaced as a whole, root values that were staged or
//! working, and the chunks of large change sets.
//!
//! All of it stays, as the records do: so every commit can be replayed from the first one on, and a journal that is damaged
//! somewhere can be read again from its beginning (`strandline fsck --repair`).

use std::collections::HashSet;

use bytes::Bytes;

use crate::change_set;
use crate::commit::Header;
use crate::encoding::Malformed;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::journal::Journal;
use crate::record::{self, Record, RootSpec, StoredChangeSet};

/// What records name, as far as they have been read. Kept while the store is open, so that each is read once.
#[derive(Debug, Default)]
pub(crate) struct Named {
    next_sequence: u64,
    /// Root values and topmost nodes of trees.
    pub heads: HashSet<ChunkAddress>,
    /// Chunks that refer to no other.
    pub pieces: HashSet<ChunkAddress>,
}

impl Named {
    /// Reads the records that have been written since the last time.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn follow(&mut self, journal: &Journal) -> Result<()> {
        let start = self.next_sequence;
        for frame in journal.log_frames_from(start) {
            let frame = frame?;
            for (sequence, record) in frame.iter().filter(|(sequence, _)| *sequence >= start) {
                self.read(journal, &record).map_err(|error| match error {
                    Error::Damaged { place, what } => {
                        Error::Damaged { place: journal.place_of(sequence), what: format!("{place}: {what}") }
                    }
                    error => error,
                })?;
                self.next_sequence = sequence + 1;
            }
        }
        Ok(())
    }

    fn read(&mut self, journal: &Journal, record: &Bytes) -> Result<()> {
        let malformed = |e: Malformed| e.at("record");
        match record.first() {
            Some(&record::COMMIT) => {
                let Some(commit) = record::commit_bytes(record).map_err(malformed)? else { return Ok(()) };
                let header = Header::decode(&commit).map_err(malformed)?;
                match header.pieces {
                    Some((_, pieces)) => self.read_pieces(journal, &pieces),
                    None => self.read_changes(&commit[header.inline_at..]),
                }
            }
            Some(&record::WORKING | &record::ROOTS) => match Record::decode(record).map_err(malformed)? {
                Record::Working { changes: StoredChangeSet::Inline(changes), .. } => self.read_changes(&changes),
                Record::Working { changes: StoredChangeSet::Chunks(pieces), .. } => self.read_pieces(journal, &pieces),
                Record::Roots { staged, working, .. } => {
                    let written = |spec| if let RootSpec::Written(address) = spec { Some(address) } else { None };
                    self.heads.extend([staged, working].into_iter().filter_map(written));
                    Ok(())
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn read_changes(&mut self, changes: &[u8]) -> Result<()> {
        self.heads.extend(change_set::replaced_trees(changes).map_err(|e| e.at("change set"))?);
        Ok(())
    }

    fn read_pieces(&mut self, journal: &Journal, pieces: &[ChunkAddress]) -> Result<()> {
        let mut changes = Vec::new();
        for piece in pieces {
            changes.extend_from_slice(&journal.read_chunk(piece)?);
        }
        self.pieces.extend(pieces);
        self.read_changes(&changes)
    }
}
