//! How far a copy has come: counted by the workers, shown in `pg_stat_progress_copy` and in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strandline_storage::Oid;

/// How much time lies between two lines of the log about a copy under way.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The counters of one table.
#[derive(Debug, Default)]
pub(crate) struct TableProgress {
    /// Ours.
    pub(crate) table: Oid,
    /// Bytes on the primary; 0 where it is not known.
    size: u64,
    rows: AtomicU64,
    /// As they were sent.
    bytes: AtomicU64,
    /// The size of the parts that are complete.
    done: AtomicU64,
    has_begun: AtomicBool,
    has_ended: AtomicBool,
}

impl TableProgress {
    pub(crate) fn new(table: Oid, size: u64) -> Arc<Self> {
        Arc::new(TableProgress { table, size, ..TableProgress::default() })
    }

    /// The first to call it is told so.
    pub(crate) fn begin(&self) -> bool {
        !self.has_begun.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn end_part(&self, size: u64) {
        self.done.fetch_add(size, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed) && !self.has_ended.load(Ordering::Relaxed)
    }

    /// How much of the table's size is through: all of the parts that are, and of the others what has come.
    fn through(&self) -> u64 {
        if self.has_ended.load(Ordering::Relaxed) {
            return self.size;
        }
        self.done.load(Ordering::Relaxed).max(self.bytes()).min(self.size)
    }
}

/// All tables of a copy.
#[derive(Clone, Debug)]
pub(crate) struct CopyProgress {
    tables: Vec<Arc<TableProgress>>,
    begun: Instant,
}

/// A moment's view of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyMoment {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the tables' size on the primary: what is through, and all.
    pub(crate) through: u64,
    pub(crate) size: u64,
    pub(crate) elapsed: Duration,
}

impl CopyProgress {
    pub(crate) fn new(tables: Vec<Arc<TableProgress>>) -> Self {
        CopyProgress { tables, begun: Instant::now() }
    }

    pub(crate) fn tables(&self) -> &[Arc<TableProgress>] {
        &self.tables
    }

    pub(crate) fn now(&self) -> CopyMoment {
        let sum = |of: fn(&TableProgress) -> u64| self.tables.iter().map(|table| of(table)).sum();
        CopyMoment {
            rows: sum(TableProgress::rows),
            bytes: sum(TableProgress::bytes),
            through: sum(TableProgress::through),
            size: sum(|table| table.size),
            elapsed: self.begun.elapsed(),
        }
    }
}

impl CopyMoment {
    /// Seconds until the end if it goes on as it did; `None` before that can be said.
    pub(crate) fn seconds_left(&self) -> Option<u64> {
        if self.through == 0 || self.elapsed < Duration::from_secs(1) {
            return None;
        }
        let left = self.size.saturating_sub(self.through) as f64 / self.through as f64;
        Some((self.elapsed.as_secs_f64() * left).round() as u64)
    }
}

/// Says when the log is to hear of a copy again.
pub(crate) struct LogPace(Instant);

impl LogPace {
    pub(crate) fn new() -> Self {
        LogPace(Instant::now())
    }

    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.0.elapsed() >= LOG_INTERVAL;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_is_through() {
        let moment = |through, size, seconds| CopyMoment { rows: 0, bytes: 0, through, size, elapsed: Duration::from_secs(seconds) };
        assert_eq!(moment(25, 100, 10).seconds_left(), Some(30));
        assert_eq!(moment(100, 100, 10).seconds_left(), Some(0));
        assert_eq!(moment(0, 100, 10).seconds_left(), None);
        assert_eq!(moment(10, 100, 0).seconds_left(), None);
    }

    #[test]
    fn a_table_is_never_more_than_whole() {
        let table = TableProgress::new(1, 100);
        assert!(!table.is_under_way());
        assert!(table.begin() && !table.begin());
        assert!(table.is_under_way());
        table.add(1, 70);
        table.end_part(30);
        assert_eq!(CopyProgress::new(vec![Arc::clone(&table)]).now().through, 70);
        table.add(1, 70);
        assert_eq!(CopyProgress::new(vec![Arc::clone(&table)]).now().through, 100);
        table.end();
        assert!(!table.is_under_way());
    }
}
