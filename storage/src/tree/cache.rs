//! How much memory nodes may take, and which leaves go when there is too much.
//!
//! All trees of a store share one [`NodeCache`]. Every node says, while it lives, how large it is ([`Charge`]), so `resident`
//! is what nodes take in memory whoever holds them. A leaf that was written can be read again: trees hold it through a
//! [`Stored`] slot, the cache knows that slot, and empties it when more than the limit is resident. Readers hold leaves by
//! reference count, so what they are looking at stays valid and is freed when they are done.
//!
//! ```text
//!   resident ─┬─ evictable    leaves in Stored slots                     freed by the cache, the longest unused first
//!             └─ the rest     leaves not yet written, inner nodes,       made evictable by a checkpoint, or by
//!                             what snapshots alone still hold            the edit or bulk load that made them
//! ```
//!
//! Which leaf goes is decided by a clock: slots stand in a queue, a slot at its head that was used since it was last there goes
//! to the end, any other one is emptied. A leaf that was read once, as by a scan, is not yet a used one, so scans do not drive
//! out what is looked up again and again.
//!
//! Inner nodes are about a hundredth of a tree. They count, and stay with their tree.
//!
//! Nothing here waits for anything but short critical sections, and as long as the limit is not near, nodes do not even enter
//! the queue: a tree in memory costs a few counters per copied node.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::tree::leaf::Leaf;
use crate::tree::node::Stored;

/// Slots that died with their tree are swept out of the queue when it has at least so many entries, and again whenever it has
/// doubled.
const SWEEP_COUNT_MIN: usize = 1024;

/// The memory of a store's nodes; see the module.
pub struct NodeCache {
    limit: usize,
    resident: AtomicUsize,
    evictable: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    slots: VecDeque<Weak<Stored>>,
    sweep_at: usize,
}

impl fmt::Debug for NodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resident, evictable) = (self.resident(), self.evictable.load(Ordering::Relaxed));
        f.debug_struct("NodeCache").field("limit", &self.limit).field("resident", &resident).field("evictable", &evictable).finish()
    }
}

impl NodeCache {
    /// `limit`: bytes of nodes that are to be in memory at most.
    pub(crate) fn new(limit: usize) -> Arc<NodeCache> {
        Arc::new(NodeCache { limit, resident: AtomicUsize::new(0), evictable: AtomicUsize::new(0), queue: Mutex::default() })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of nodes in memory.
    pub(crate) fn resident(&self) -> usize {
        self.resident.load(Ordering::Relaxed)
    }

    /// Bytes of nodes that the cache cannot free.
    pub(crate) fn held(&self) -> usize {
        self.resident().saturating_sub(self.evictable.load(Ordering::Relaxed))
    }

    /// So many held bytes are a reason to write nodes out. A quarter of the limit: as much again may be copied while a
    /// checkpoint writes, and the rest is for what is read.
    pub(crate) fn held_max(&self) -> usize {
        self.limit / 4
    }

    /// Eviction begins a little below the limit, because a leaf is read before room is made for it.
    fn resident_max(&self) -> usize {
        self.limit - self.limit / 16
    }

    /// Takes a slot that has a leaf into the queue.
    pub(super) fn enter(&self, stored: &Arc<Stored>) {
        let mut queue = self.queue.lock();
        if queue.slots.len() >= queue.sweep_at {
            queue.slots.retain(|slot| slot.strong_count() > 0);
            queue.sweep_at = SWEEP_COUNT_MIN.max(2 * queue.slots.len());
        }
        queue.slots.push_back(Arc::downgrade(stored));
    }

    /// Frees leaves until no more than the limit is resident, or none can be freed.
    pub(crate) fn make_room(&self) {
        self.make_room_for(0);
    }

    /// As [`NodeCache::make_room`], with so many bytes to spare: writing held nodes may first cut them anew, beside the old ones.
    pub(crate) fn make_room_for(&self, size: usize) {
        let resident_max = self.resident_max().saturating_sub(size);
        if self.resident() <= resident_max {
            return;
        }
        let mut queue = self.queue.lock();
        // Twice round: the first time may find every slot used.
        for _ in 0..2 * queue.slots.len() {
            if self.resident() <= resident_max {
                return;
            }
            let Some(slot) = queue.slots.pop_front() else { return };
            if let Some(stored) = slot.upgrade()
                && !stored.evict()
            {
                queue.slots.push_back(slot);
            }
        }
    }
}

/// What a node takes in memory, as long as it lives.
#[derive(Debug)]
pub(crate) struct Charge {
    cache: Option<Arc<NodeCache>>,
    size: usize,
}

impl Charge {
    pub fn new(cache: Option<&Arc<NodeCache>>, size: usize) -> Charge {
        if let Some(cache) = cache {
            cache.resident.fetch_add(size, Ordering::Relaxed);
        }
        Charge { cache: cache.cloned(), size }
    }

    pub fn cache(&self) -> Option<&Arc<NodeCache>> {
        self.cache.as_ref()
    }

    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            cache.resident.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

/// A leaf in a slot that can be emptied.
#[derive(Debug)]
pub(super) struct Evictable {
    pub leaf: Arc<Leaf>,
    cache: Option<Arc<NodeCache>>,
}

impl Evictable {
    pub fn new(leaf: Arc<Leaf>, cache: Option<&Arc<NodeCache>>) -> Evictable {
        if let Some(cache) = cache {
            cache.evictable.fetch_add(leaf.charge.size(), Ordering::Relaxed);
        }
        Evictable { leaf, cache: cache.cloned() }
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        if let Some(cache) = &self.cache {
            cache.evictable.fetch_sub(self.leaf.charge.size(), Ordering::Relaxed);
        }
    }
}

/// When to write out nodes that are held: when there are many, and again only when there are many more than writing left.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpillPace {
    /// Bytes held when writing ended last.
    left: usize,
}

impl SpillPace {
    /// How many held bytes are a reason to write.
    pub fn due_at(&self, cache: &NodeCache) -> usize {
        cache.held_max().max(self.left + cache.limit / 8)
    }

    /// Whether it is time to write; makes room for that.
    pub fn begin(&self, cache: &NodeCache) -> bool {
        let held = cache.held();
        let due = held > self.due_at(cache);
        if due {
            cache.make_room_for(held);
        }
        due
    }

    /// To be called when what could be written is.
    pub fn done(&mut self, cache: &NodeCache) {
        cache.make_room();
        self.left = cache.held();
    }
}
