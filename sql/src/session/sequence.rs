//! Sequences' positions: outside transactions and versions, as PostgreSQL's are outside rollback.
//!
//! A position is written ahead: the store holds the value up to which numbers may have been given out, memory the
//! last one given. A crash loses at most [`AHEAD`] numbers and never gives one twice. A sequence has one position for
//! all branches, so that rows made on two branches do not collide when these are merged.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use strandline_storage::schema::Sequence;
use strandline_storage::{Oid, Store};

use crate::error::{ErrorCode, Result, SqlError};

/// How many numbers are reserved with one write, PostgreSQL's SEQ_LOG_VALS.
const AHEAD: i64 = 32;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceState {
    pub last_value: i64,
    /// `last_value` has been given out.
    pub is_called: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: SequenceState,
    /// What the store holds.
    written: SequenceState,
}

/// The positions of all sequences of a store.
pub struct Sequences {
    store: Arc<Store>,
    entries: Mutex<HashMap<Oid, Entry>>,
}

impl Sequences {
    pub fn new(store: Arc<Store>) -> Self {
        Sequences { store, entries: Mutex::new(HashMap::new()) }
    }

    /// Where the sequence stands now.
    pub fn state(&self, sequence: &Sequence) -> SequenceState {
        let mut entries = self.entries.lock();
        self.entry(&mut entries, sequence).state
    }

    /// # Errors
    /// `SequenceLimitExceeded` at the end of a sequence that does not cycle.
    pub fn next(&self, sequence: &Sequence) -> Result<i64> {
        let mut entries = self.entries.lock();
        let mut entry = self.entry(&mut entries, sequence);
        let next = if entry.state.is_called { advance(sequence, entry.state.last_value)? } else { entry.state.last_value };
        entry.state = SequenceState { last_value: next, is_called: true };
        // Still below what is written ahead?
        let covered = entry.written.is_called
            && if sequence.increment > 0 {
                next <= entry.written.last_value && entry.written.last_value - next < AHEAD * sequence.increment
            } else {
                next >= entry.written.last_value && next - entry.written.last_value < AHEAD * -sequence.increment
            };
        if !covered {
            let ahead = next.saturating_add(sequence.increment.saturating_mul(AHEAD - 1)).clamp(sequence.min, sequence.max);
            entry.written = SequenceState { last_value: ahead, is_called: true };
            self.write(sequence.oid, entry.written)?;
        }
        entries.insert(sequence.oid, entry);
        Ok(next)
    }

    /// Puts a sequence at a position. # Errors: `NumericValueOutOfRange` outside its bounds.
    pub fn set(&self, sequence: &Sequence, state: SequenceState) -> Result<()> {
        if state.last_value < sequence.min || state.last_value > sequence.max {
            return Err(SqlError::new(
                ErrorCode::NumericValueOutOfRange,
                format!(
                    "setval: value {} is out of bounds for sequence \"{}\" ({}..{})",
                    state.last_value, sequence.name, sequence.min, sequence.max
                ),
            ));
        }
        let mut entries = self.entries.lock();
        self.write(sequence.oid, state)?;
        entries.insert(sequence.oid, Entry { state, written: state });
        Ok(())
    }

    fn entry(&self, entries: &mut HashMap<Oid, Entry>, sequence: &Sequence) -> Entry {
        *entries.entry(sequence.oid).or_insert_with(|| {
            let state = self
                .store
                .get_state(&key(sequence.oid))
                .and_then(|bytes| decode(&bytes))
                .unwrap_or(SequenceState { last_value: sequence.start, is_called: false });
            Entry { state, written: state }
        })
    }

    fn write(&self, oid: Oid, state: SequenceState) -> Result<()> {
        self.store.put_state(&key(oid), Some(format!("{} {}", state.last_value, state.is_called).as_bytes()))?;
        Ok(())
    }
}

fn key(oid: Oid) -> String {
    format!("sequence/{oid}")
}

fn decode(bytes: &[u8]) -> Option<SequenceState> {
    let (value, called) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some(SequenceState { last_value: value.parse().ok()?, is_called: called.parse().ok()? })
}

fn advance(sequence: &Sequence, last: i64) -> Result<i64> {
    let limit = |bound: &str, value: i64| {
        SqlError::new(
            ErrorCode::SequenceLimitExceeded,
            format!("nextval: reached {bound} value of sequence \"{}\" ({value})", sequence.name),
        )
    };
    let next = last.checked_add(sequence.increment);
    if sequence.increment > 0 {
        match next {
            Some(n) if n <= sequence.max => Ok(n.max(sequence.min)),
            _ if sequence.cycle => Ok(sequence.min),
            _ => Err(limit("maximum", sequence.max)),
        }
    } else {
        match next {
            Some(n) if n >= sequence.min => Ok(n.min(sequence.max)),
            _ if sequence.cycle => Ok(sequence.max),
            _ => Err(limit("minimum", sequence.min)),
        }
    }
}
