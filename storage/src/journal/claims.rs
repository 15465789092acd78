//! Chunks that were put again: found in a segment that may be rewritten, so that whoever put them counts on their staying.
//!
//! `put_chunk` writes nothing when the chunk is there already. Nothing else says that it is needed, until a root value that refers to
//! it is written. So it is noted here, with the epoch (see `crate::gc::epochs`) in which it was found; notes count as long as an
//! epoch lives that began no later. What lies in a segment written since the current epoch began needs no note.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::AddressHash;
use crate::id::ChunkAddress;

/// A period in the life of an open journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// From 1; of a journal that was just opened 0.
    pub number: u64,
    /// The segments before this one hold nothing that was put in this epoch or later.
    pub first_segment: u32,
}

/// The chunks found again, by the last epoch in which they were.
#[derive(Default)]
pub(super) struct Claims(Mutex<State>);

#[derive(Default)]
struct State {
    epoch: Epoch,
    chunks: HashMap<ChunkAddress, u64, AddressHash>,
}

impl Claims {
    /// Begins the next epoch; `segment`: the one that is being written.
    pub fn begin(&self, segment: u32) -> Epoch {
        let mut state = self.0.lock();
        state.epoch = Epoch { number: state.epoch.number + 1, first_segment: segment };
        state.epoch
    }

    /// Notes a chunk that was found in a segment, if a note is needed.
    pub fn note(&self, address: &ChunkAddress, segment: u32) -> bool {
        let mut state = self.0.lock();
        let number = state.epoch.number;
        let needed = segment < state.epoch.first_segment;
        if needed {
            state.chunks.insert(*address, number);
        }
        needed
    }

    pub fn contains(&self, address: &ChunkAddress) -> bool {
        self.0.lock().chunks.contains_key(address)
    }

    /// Says whether none of these chunks is noted.
    pub fn contains_none<'a>(&self, addresses: impl IntoIterator<Item = &'a ChunkAddress>) -> bool {
        let state = self.0.lock();
        state.chunks.is_empty() || !addresses.into_iter().any(|address| state.chunks.contains_key(address))
    }

    /// Forgets what was noted before this epoch: nobody lives who counts on it.
    pub fn forget_before(&self, epoch: u64) {
        self.0.lock().chunks.retain(|_, noted| *noted >= epoch);
    }
}
