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

/// Buffers of leaves are kept for the next copy when they have from one to this many times [`SPARE_STEP`] bytes.
const SPARE_CLASS_COUNT: usize = 32;
const SPARE_STEP: usize = 1 << 10;
/// Bytes that spare buffers may take.
const SPARE_SIZE_MAX: usize = 4 << 20;

/// The memory of a store's nodes; see the module.
pub struct NodeCache {
    limit: usize,
    resident: AtomicUsize,
    evictable: AtomicUsize,
    queue: Mutex<Queue>,
    spare: Mutex<Spare>,
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
        let (resident, evictable) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(NodeCache { limit, resident, evictable, queue: Mutex::default(), spare: Mutex::default() })
    }

    /// A copy of a leaf's buffer, in one that another leaf has left where there is one: while readers take snapshots nearly every transaction
    /// copies leaves and frees the copies before, and new memory costs more than the copying.
    pub(super) fn copy(&self, buffer: &[u8]) -> Vec<u8> {
        match self.spare.lock().take(buffer.len()) {
            Some(mut spare) => {
                spare.clear();
                spare.extend_from_slice(buffer);
                spare
            }
            None => buffer.to_vec(),
        }
    }

    /// Takes the buffer of a leaf that nobody looks at any more.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let refused = self.spare.lock().put(buffer, SPARE_SIZE_MAX.min(self.limit / 64));
        // Freed without the lock.
        drop(refused);
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

/// Buffers without a leaf, by the whole steps of their capacity.
#[derive(Default)]
struct Spare {
    by_class: [Vec<Vec<u8>>; SPARE_CLASS_COUNT],
    size: usize,
}

impl Spare {
    fn class(capacity: usize) -> Option<usize> {
        (1..=SPARE_CLASS_COUNT).contains(&(capacity / SPARE_STEP)).then(|| capacity / SPARE_STEP - 1)
    }

    /// A buffer of at least so many bytes, and not of many more.
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        // Those of a class may be anything within its step, so the class of the size itself may hold ones that are too small.
        let class = Spare::class(size)?;
        let near = self.by_class.iter_mut().skip(class).take(3);
        let found = near.filter_map(|buffers| buffers.pop_if(|buffer| buffer.capacity() >= size)).next()?;
        self.size -= found.capacity();
        Some(found)
    }

    /// Keeps a buffer, or gives it back.
    fn put(&mut self, buffer: Vec<u8>, size_max: usize) -> Option<Vec<u8>> {
        let Some(class) = Spare::class(buffer.capacity()).filter(|_| self.size + buffer.capacity() <= size_max) else {
            return Some(buffer);
        };
        self.size += buffer.capacity();
        self.by_class[class].push(buffer);
        None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_a_buffer_that_is_large_enough_and_not_much_larger() {
        let cache = NodeCache::new(1 << 30);
        for capacity in [500, 3 * SPARE_STEP, 3 * SPARE_STEP + 1000, 9 * SPARE_STEP, 100 * SPARE_STEP] {
            cache.give_back(Vec::with_capacity(capacity));
        }
        // Neither what is below a step nor what is above the largest class was kept.
        let kept: usize = [3 * SPARE_STEP, 3 * SPARE_STEP + 1000, 9 * SPARE_STEP].iter().sum();
        assert_eq!(cache.spare.lock().size, kept);
        let copy = |size: usize| {
            let bytes: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let copied = cache.copy(&bytes);
            assert_eq!(copied, bytes);
            copied.capacity()
        };
        assert_eq!(copy(3 * SPARE_STEP + 1), 3 * SPARE_STEP + 1000);
        // The one that is left of this class is too small by a byte.
        assert_eq!(copy(3 * SPARE_STEP + 1), 3 * SPARE_STEP + 1);
        assert_eq!(copy(2 * SPARE_STEP), 3 * SPARE_STEP);
        // Much too large for this one.
        assert_eq!(copy(4 * SPARE_STEP), 4 * SPARE_STEP);
        assert_eq!(copy(9 * SPARE_STEP), 9 * SPARE_STEP);
        assert_eq!(cache.spare.lock().size, 0);
    }

    #[test]
    fn spare_buffers_have_a_limit() {
        let cache = NodeCache::new(64 << 20);
        for _ in 0..200 {
            cache.give_back(Vec::with_capacity(10 << 10));
        }
        assert_eq!(cache.spare.lock().size, (1 << 20) / (10 << 10) * (10 << 10));
    }
}
