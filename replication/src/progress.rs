//! How far the stream is received, applied and durable here.
//!
//! The applier says after each transaction where in the journal it lies; the store says how far the journal is durable.
//! From both follows the one LSN that the primary may be told: everything before it is durable here.
//! *Invariant:* `durable <= applied`, and neither goes back while a replicator lives.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use strandline_storage::store::JournalPosition;
use strandline_storage::{Lsn, Timestamp};
use tokio::sync::Notify;

/// Positions of one replicator, shared by its reader, its applier and the store's callback.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    received: AtomicU64,
    applied: AtomicU64,
    durable: AtomicU64,
    /// When the last transaction that is applied was committed on the primary, by its clock; 0: none was.
    committed: AtomicI64,
    /// Applied and not yet durable, oldest first.
    pending: Mutex<VecDeque<(JournalPosition, Lsn)>>,
    /// The durable LSN moved, or writing failed.
    pub(crate) moved: Notify,
    failed: Mutex<Option<String>>,
}

impl Progress {
    /// Starts from a position that is durable already.
    pub(crate) fn start_at(&self, lsn: Lsn) {
        self.pending().clear();
        self.received.store(lsn.0, Ordering::Release);
        self.applied.store(lsn.0, Ordering::Release);
        self.durable.store(lsn.0, Ordering::Release);
    }

    pub(crate) fn received(&self) -> Lsn {
        Lsn(self.received.load(Ordering::Acquire))
    }

    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn note_received(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// A transaction that was committed on the primary at `time` is applied.
    pub(crate) fn note_commit_time(&self, time: Timestamp) {
        self.committed.store(time.0, Ordering::Release);
    }

    pub(crate) fn commit_time(&self) -> Option<Timestamp> {
        Some(Timestamp(self.committed.load(Ordering::Acquire))).filter(|time| time.0 != 0)
    }

    /// Everything before `lsn` lies in the journal before `position`; `reached` is how far the journal is durable now.
    pub(crate) fn note_applied(&self, lsn: Lsn, position: JournalPosition, reached: JournalPosition) {
        self.applied.fetch_max(lsn.0, Ordering::AcqRel);
        self.pending().push_back((position, lsn));
        if reached >= position {
            self.note_durable(reached);
        }
    }

    /// The journal is durable up to `reached`.
    pub(crate) fn note_durable(&self, reached: JournalPosition) {
        let mut pending = self.pending();
        let mut durable = None;
        while let Some((position, lsn)) = pending.front().copied()
            && position <= reached
        {
            durable = Some(lsn);
            pending.pop_front();
        }
        if let Some(lsn) = durable {
            self.durable.fetch_max(lsn.0, Ordering::AcqRel);
            drop(pending);
            self.moved.notify_one();
        }
    }

    pub(crate) fn note_failed(&self, what: String) {
        *self.failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(what);
        self.moved.notify_one();
    }

    /// Why the store stopped writing, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, VecDeque<(JournalPosition, Lsn)>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_durable_lsn_follows_the_journal_and_never_passes_it() {
        let progress = Progress::default();
        progress.start_at(Lsn(10));
        progress.note_applied(Lsn(20), JournalPosition(5), JournalPosition(0));
        progress.note_applied(Lsn(30), JournalPosition(9), JournalPosition(0));
        assert_eq!((progress.applied(), progress.durable()), (Lsn(30), Lsn(10)));
        progress.note_durable(JournalPosition(8));
        assert_eq!(progress.durable(), Lsn(20));
        progress.note_durable(JournalPosition(9));
        assert_eq!(progress.durable(), Lsn(30));
        progress.note_applied(Lsn(40), JournalPosition(9), JournalPosition(12));
        assert_eq!(progress.durable(), Lsn(40));
    }
}
