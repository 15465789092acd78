//! Epochs: who may still refer to chunks that no written root value names any more.
//!
//! Trees in memory refer to chunks by address, and nobody knows all trees: snapshots of queries, transactions under way, root values of
//! old commits. What is known is the door ([`StoreChunks`]) through which each of them reads. With every checkpoint a new door is
//! made, its *epoch* begins, and the trees of branches go over to it; whoever has a snapshot keeps the door of its time alive.
//!
//! ```text
//!   epoch 4 ──────────────●  its last snapshot is gone
//!         epoch 5 ─────────────────────── a query still runs
//!                  epoch 6 ────────────── branches, new queries
//!                  ▲
//!                  a checkpoint
//! ```
//!
//! A tree that reads through the door of an epoch refers to
//!
//! - what root values and trees that were opened through that door refer to: it notes their addresses (*pins*);
//! - chunks that were put since the epoch began, or were found to be there when they were put again, which the journal notes.
//!
//! So what the oldest epoch alive may refer to is: what the pins of all epochs alive reach, everything in the segments that were written
//! since it began, and what the journal has noted since. The rest is for [`super::run`] to decide by reachability from what is
//! written. As with PostgreSQL's VACUUM, an old snapshot holds space back; a tree that stays in memory, or is written later, never names a
//! chunk that is gone.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::journal::{BulkWriter, Epoch, Journal};
use crate::tree::NodeCache;

/// A store's chunks as the trees of one epoch see them: in the journal, with a limit on what is in memory.
#[derive(Debug)]
pub(crate) struct StoreChunks {
    journal: Arc<Journal>,
    cache: Arc<NodeCache>,
    pub epoch: Epoch,
    pins: Mutex<HashSet<ChunkAddress>>,
    /// Doors that trees of this epoch had before, where what they refer to could not be pinned.
    former: Mutex<Vec<Arc<dyn ChunkReader>>>,
}

impl StoreChunks {
    /// The addresses of what was opened through this door.
    pub fn pins(&self) -> Vec<ChunkAddress> {
        self.pins.lock().iter().copied().collect()
    }

    /// Keeps other doors alive as long as this one.
    pub fn keep(&self, former: Vec<Arc<dyn ChunkReader>>) {
        self.former.lock().extend(former);
    }
}

impl ChunkReader for StoreChunks {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        self.journal.read_chunk(address)
    }

    fn pin(&self, address: &ChunkAddress) {
        self.pins.lock().insert(*address);
    }

    fn epoch(&self) -> u64 {
        self.epoch.number
    }

    fn cache(&self) -> Option<&Arc<NodeCache>> {
        Some(&self.cache)
    }

    fn writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        Some(Box::new(&*self.journal))
    }

    fn bulk_writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        Some(Box::new(BulkWriter(&self.journal)))
    }
}

/// All epochs of a store that is open.
#[derive(Debug)]
pub(crate) struct Epochs {
    current: RwLock<Arc<StoreChunks>>,
    /// In the order in which they began; those that are over are swept out when another one begins.
    begun: Mutex<Vec<Weak<StoreChunks>>>,
}

impl Epochs {
    pub fn new(journal: Arc<Journal>, cache: Arc<NodeCache>) -> Epochs {
        let epoch = journal.begin_epoch();
        let first = Arc::new(StoreChunks { journal, cache, epoch, pins: Mutex::default(), former: Mutex::default() });
        Epochs { begun: Mutex::new(vec![Arc::downgrade(&first)]), current: RwLock::new(first) }
    }

    /// The door of the current epoch.
    pub fn current(&self) -> Arc<StoreChunks> {
        self.current.read().clone()
    }

    /// Begins the next epoch.
    pub fn begin(&self) -> Arc<StoreChunks> {
        let mut begun = self.begun.lock();
        let mut current = self.current.write();
        let (journal, cache) = (current.journal.clone(), current.cache.clone());
        let epoch = journal.begin_epoch();
        let next = Arc::new(StoreChunks { journal, cache, epoch, pins: Mutex::default(), former: Mutex::default() });
        let before = std::mem::replace(&mut *current, next.clone());
        drop(current);
        begun.push(Arc::downgrade(&next));
        // Perhaps the last who had it.
        drop(before);
        begun.retain(|epoch| epoch.strong_count() > 0);
        next
    }

    /// The epochs that somebody may still read in, oldest first. Who gets them keeps them alive.
    pub fn alive(&self) -> Vec<Arc<StoreChunks>> {
        self.begun.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
