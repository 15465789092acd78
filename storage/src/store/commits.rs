//! Commits and questions about their graph.

use std::sync::Arc;

use bytes::Bytes;

use super::Store;
use super::shared::Shared;
use crate::commit::Commit;
use crate::commit_index::{CommitIndex, CommitNumber, LogWalk};
use crate::encoding::Malformed;
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::record;
use crate::row_index::Candidates;

/// Two are enough to know that a prefix is ambiguous.
const PREFIX_MATCHES_MAX: usize = 2;

impl Shared {
    pub fn number_of(&self, commit: CommitId) -> Result<CommitNumber> {
        let found = self.index.read().find(&commit)?;
        found.ok_or_else(|| Error::NotFound { what: "commit", name: commit.to_string() })
    }

    /// Reads a commit.
    pub fn commit_numbered(&self, number: CommitNumber) -> Result<Arc<Commit>> {
        let (id, sequence, before) = {
            let index = self.index.read();
            let entry = index.entry(number)?;
            (entry.id, entry.sequence, number.checked_sub(1).map(|before| index.id(before)).transpose()?)
        };
        let place = || self.journal.place_of(sequence);
        let decode = |record: &Bytes| -> Result<Commit> {
            let bytes = record::commit_bytes(record).map_err(|e| e.at(place()))?.ok_or_else(|| Malformed("not a commit").at(place()))?;
            Commit::decode(&bytes, &self.chunks())
        };
        let record = self.journal.read_commit_record(sequence, before)?;
        let mut commit = decode(&record.bytes)?;
        if commit.id != id && record.has_given_id {
            // The record before it in the journal may be of a commit that was entered long before.
            commit = decode(&self.journal.read_record(sequence)?)?;
        }
        if commit.id != id {
            return Err(Malformed("commit does not hash to its id").at(place()));
        }
        Ok(Arc::new(commit))
    }

    fn ask(
        &self,
        head: CommitId,
        question: impl FnOnce(&CommitIndex, CommitNumber) -> Result<Option<CommitNumber>>,
    ) -> Result<Option<CommitId>> {
        let head = self.number_of(head)?;
        let index = self.index.read();
        question(&index, head)?.map(|number| Ok(index.entry(number)?.id)).transpose()
    }
}

/// Whether a commit is that of a source's transaction, as far as xid and commit LSN are given.
fn is_of(index: &CommitIndex, number: CommitNumber, xid: Option<u32>, lsn: Option<Lsn>) -> Result<bool> {
    let entry = index.entry(number)?;
    Ok(entry.has_source() && xid.is_none_or(|xid| entry.xid == xid) && lsn.is_none_or(|lsn| entry.lsn == lsn))
}

/// Whether a commit is another one or can be reached from it.
fn reaches(index: &CommitIndex, from: CommitNumber, ancestor: CommitNumber) -> Result<bool> {
    // Most histories are lines, on which nothing need be walked.
    Ok(index.line_distance(from, ancestor)?.is_some() || index.is_ancestor(ancestor, from)?)
}

impl Store {
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn commit(&self, id: CommitId) -> Result<Arc<Commit>> {
        self.shared.commit_numbered(self.shared.number_of(id)?)
    }

    /// Commits whose id begins with these hex digits, two at most.
    pub fn commits_by_prefix(&self, hex: &str) -> Result<Vec<CommitId>> {
        self.shared.index.read().by_prefix(hex, PREFIX_MATCHES_MAX)
    }

    /// The commits reachable from `heads` that came from a transaction with this xid or commit LSN of a source (both where
    /// both are given), newest first. Looks through the index alone.
    /// # Errors
    /// `NotFound`.
    pub fn commits_of_source(&self, heads: &[CommitId], xid: Option<u32>, lsn: Option<Lsn>) -> Result<Vec<CommitId>> {
        let heads: Vec<CommitNumber> = heads.iter().map(|id| self.shared.number_of(*id)).collect::<Result<_>>()?;
        let candidates = match (xid, lsn) {
            (None, Some(_)) => None,
            (None, None) => Some(Candidates::all()),
            (Some(xid), _) => Some(self.shared.row_index.find_xid(xid)),
        };
        let index = self.shared.index.read();
        let candidates: Vec<CommitNumber> = match (candidates, lsn) {
            (Some(candidates), _) => candidates.iter(index.len()).rev().collect(),
            (None, lsn) => index.of_lsn(lsn.unwrap_or_default())?,
        };
        let mut found = Vec::new();
        for number in candidates {
            if !is_of(&index, number, xid, lsn)? {
                continue;
            }
            for head in &heads {
                if reaches(&index, *head, number)? {
                    found.push(index.entry(number)?.id);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// A best common ancestor; `None` when there is none.
    /// # Errors
    /// `NotFound`.
    pub fn merge_base(&self, a: CommitId, b: CommitId) -> Result<Option<CommitId>> {
        let other = self.shared.number_of(b)?;
        self.shared.ask(a, |index, a| index.merge_base(a, other))
    }

    /// Whether `ancestor` is `of` or can be reached from it.
    /// # Errors
    /// `NotFound`.
    pub fn is_ancestor(&self, ancestor: CommitId, of: CommitId) -> Result<bool> {
        let (ancestor, of) = (self.shared.number_of(ancestor)?, self.shared.number_of(of)?);
        reaches(&self.shared.index.read(), of, ancestor)
    }

    /// The commit that lies `distance` back on the first-parent line (`HEAD~n`); `None` beyond the first commit.
    /// # Errors
    /// `NotFound`.
    pub fn ancestor(&self, head: CommitId, distance: u64) -> Result<Option<CommitId>> {
        self.shared.ask(head, |index, head| index.ancestor(head, distance))
    }

    /// The number of commits that can be reached from `head`, itself included.
    /// # Errors
    /// `NotFound`.
    pub fn commit_count(&self, head: CommitId) -> Result<u64> {
        let head = self.shared.number_of(head)?;
        let index = self.shared.index.read();
        let mut walk = LogWalk::new(&index, &[head], &[])?;
        let mut count = 0;
        while walk.next(&index)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The last commit on the first-parent line of `head` whose source commit LSN is at most `lsn`.
    /// # Errors
    /// `NotFound`.
    pub fn commit_at_lsn(&self, head: CommitId, lsn: Lsn) -> Result<Option<CommitId>> {
        self.shared.ask(head, |index, head| index.at_lsn(head, lsn))
    }

    /// The last commit on the first-parent line of `head` that came from this transaction of the source.
    /// # Errors
    /// `NotFound`.
    pub fn commit_of_xid(&self, head: CommitId, xid: u32) -> Result<Option<CommitId>> {
        let candidates = self.shared.row_index.find_xid(xid);
        self.shared.ask(head, |index, head| {
            for number in candidates.iter(head + 1).rev() {
                if is_of(index, number, Some(xid), None)? && index.line_distance(head, number)?.is_some() {
                    return Ok(Some(number));
                }
            }
            Ok(None)
        })
    }

    /// The last commit on the first-parent line of `head` whose commit time (the source's, if it has one) is at most `time`.
    /// # Errors
    /// `NotFound`.
    pub fn commit_at_time(&self, head: CommitId, time: Timestamp) -> Result<Option<CommitId>> {
        self.shared.ask(head, |index, head| index.at_time(head, time))
    }

    /// The root value of any commit: a head's, one in memory, otherwise made from the nearest checkpoint.
    /// # Errors
    /// `NotFound`, `Damaged`.
    pub fn root(&self, id: CommitId) -> Result<crate::root::Root> {
        self.shared.root(id)
    }
}
