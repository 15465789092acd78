//! When a checkpoint is due.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::disk::SimulatedDisk;
use crate::journal::{Access, JournalOptions};
use crate::tree::Charge;

const CACHE_SIZE: usize = 64 << 20;
const ROW_COUNT_MAX: u64 = 100;

struct Rule {
    journal: Arc<Journal>,
    cache: Arc<NodeCache>,
    pace: CheckpointPace,
    seed: u64,
}

impl Rule {
    fn new() -> Rule {
        let options = JournalOptions { group_commit: Duration::ZERO, segment_size: 1 << 30, index_thread: false };
        let journal = Journal::open(Arc::new(SimulatedDisk::default()), Path::new("/j"), options, Access::Create).unwrap();
        let (journal, cache) = (Arc::new(journal), NodeCache::new(CACHE_SIZE));
        Rule { pace: CheckpointPace::new(ROW_COUNT_MAX, journal.clone(), cache.clone()), journal, cache, seed: 0 }
    }

    /// Bytes that do not compress.
    fn bytes(&mut self, size: u64) -> Vec<u8> {
        self.seed += 1;
        let mut bytes = vec![0; size as usize];
        blake3::Hasher::new().update(&self.seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Writes records of so many bytes.
    fn log(&mut self, size: u64) {
        let record = self.bytes(size);
        self.journal.append(&record).unwrap();
        self.journal.sync().unwrap();
    }

    /// Makes a checkpoint that writes so many bytes, with `between` called while it is made.
    fn checkpoint(&mut self, size: u64, between: impl FnOnce(&mut Rule)) {
        let begun = self.pace.begin();
        let chunk = self.bytes(size);
        self.journal.put_chunk(ChunkAddress::of(&chunk), &chunk).unwrap();
        self.journal.sync().unwrap();
        between(self);
        self.pace.written(begun);
        self.pace.end();
    }

    /// Whether a checkpoint is asked for after so many rows; the wish is taken.
    fn is_due_after(&self, rows: u64) -> bool {
        self.pace.count(rows);
        let is_due = *self.pace.wanted.lock() == Wish::Checkpoint;
        if is_due {
            assert_eq!(self.pace.wait(), Wish::Checkpoint);
        }
        is_due
    }
}

#[test]
fn a_checkpoint_is_due_after_so_many_rows_counted_from_where_the_last_began() {
    let mut rule = Rule::new();
    assert!(!rule.is_due_after(60) && !rule.is_due_after(39));
    assert!(rule.is_due_after(1));
    // Asked for once.
    assert!(!rule.is_due_after(50));
    rule.checkpoint(10, |rule| assert!(!rule.is_due_after(70)));
    assert!(!rule.is_due_after(29));
    assert!(rule.is_due_after(1));
}

#[test]
fn a_checkpoint_is_due_when_the_records_are_as_long_as_the_last_one_was() {
    let mut rule = Rule::new();
    rule.log(LOG_SIZE_MIN - 1000);
    assert!(!rule.is_due_after(1));
    rule.log(1000);
    assert!(rule.is_due_after(1));
    assert!(!rule.is_due_after(1));
    // What is written while a checkpoint is made counts for the next, and asks for none meanwhile.
    rule.checkpoint(2 * LOG_SIZE_MIN, |rule| {
        rule.log(LOG_SIZE_MIN);
        assert!(!rule.is_due_after(1));
    });
    assert!(!rule.is_due_after(1));
    rule.log(LOG_SIZE_MIN - 1000);
    assert!(!rule.is_due_after(1));
    rule.log(1000);
    assert!(rule.is_due_after(1));
    // One that wrote little is no reason for the next to come soon.
    rule.checkpoint(1000, |_| ());
    rule.log(LOG_SIZE_MIN - 1000);
    assert!(!rule.is_due_after(1));
    rule.log(1000);
    assert!(rule.is_due_after(1));
}

#[test]
fn a_checkpoint_is_due_when_nodes_that_are_not_written_take_too_much_memory() {
    let mut rule = Rule::new();
    let held = Charge::new(Some(&rule.cache), CACHE_SIZE / 4);
    assert!(!rule.is_due_after(1));
    let more = Charge::new(Some(&rule.cache), 1);
    assert!(rule.is_due_after(1));
    assert!(!rule.is_due_after(1));
    drop((held, more));
    rule.checkpoint(10, |_| ());
    assert!(!rule.is_due_after(1));
    let _held = Charge::new(Some(&rule.cache), CACHE_SIZE / 4 + 1);
    assert!(rule.is_due_after(1));
}
