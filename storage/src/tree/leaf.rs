//! A leaf: rows in key order, columns kept together, all in one buffer.
//!
//! The buffer has room to spare while the leaf is being edited, so that updates of fixed width, updates of equal length and
//! appended rows move nothing else. Without that room it is exactly the stored chunk:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | 0: a leaf |
//! | 1 | 1 | format of the leaf, 1 |
//! | 2 | 2 | number of columns c |
//! | 4 | 4 | number of rows n |
//! | 8 | 4 | rows that there is room for (stored: n) |
//! | 12 | 4 | width of the keys, or 2^32-1: they differ |
//! | 16 | 4 | number of rows that leaves of this tree are aimed at |
//! | 20 | 4 | length of the chunk |
//! | 24 | c | physical shape of each column |
//! | | 8 (1 + v) | for the keys and each of the v variable columns: start and size of its heap |
//! | | | keys: n times the width, or n + 1 offsets into the heap |
//! | | | per column: validity bitmap (a byte per 8 rows, bit set: not null), then n values or n + 1 offsets |
//! | | | the heaps |
//!
//! Integers are little-endian. A null's slot is zero or empty.

use std::sync::{Arc, OnceLock};

use crate::id::ChunkAddress;
use crate::tree::cache::{Charge, NodeCache};
use crate::tree::layout::{Layout, fixed_width};
use crate::tree::search::{find_fixed, search};
use crate::value::{Physical, Row, Value};

pub(crate) const HEADER_SIZE: usize = 24;
pub(crate) const LEAF_FORMAT: u8 = 1;
/// In place of a width: the keys have different lengths.
pub(crate) const KEYS_VARY: u32 = u32::MAX;
/// Room for rows that a new leaf has.
const CAPACITY_MIN: usize = 8;

/// What a leaf takes in memory beside its buffer: the structure, its reference counts, what the allocator keeps.
const LEAF_OVERHEAD: usize = size_of::<Leaf>() + 48;

/// A leaf: columns kept together.
#[derive(Debug)]
pub struct Leaf {
    pub(crate) layout: Arc<Layout>,
    /// Set once written or when read; empty again after an edit.
    pub(crate) address: OnceLock<ChunkAddress>,
    pub(crate) rows: usize,
    pub(crate) capacity: usize,
    pub(crate) key_width: u32,
    pub(crate) buffer: Vec<u8>,
    pub(crate) charge: Charge,
}

/// A copy is about to be edited, so it has no address.
impl Clone for Leaf {
    fn clone(&self) -> Self {
        let cache = self.charge.cache();
        let buffer = cache.map_or_else(|| self.buffer.clone(), |cache| cache.copy(&self.buffer));
        let charge = Leaf::charge(cache, &buffer);
        let (rows, capacity, key_width) = (self.rows, self.capacity, self.key_width);
        Leaf { layout: self.layout.clone(), address: OnceLock::new(), rows, capacity, key_width, buffer, charge }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Some(cache) = self.charge.cache() {
            cache.give_back(std::mem::take(&mut self.buffer));
        }
    }
}

/// A leaf found in a tree: borrowed from the tree, or shared where the tree may let go of it meanwhile.
#[derive(Clone, Debug)]
pub enum LeafRef<'a> {
    Borrowed(&'a Arc<Leaf>),
    Shared(Arc<Leaf>),
}

impl LeafRef<'_> {
    /// The leaf to keep.
    pub fn into_arc(self) -> Arc<Leaf> {
        match self {
            LeafRef::Borrowed(leaf) => leaf.clone(),
            LeafRef::Shared(leaf) => leaf,
        }
    }
}

impl std::ops::Deref for LeafRef<'_> {
    type Target = Leaf;

    #[inline]
    fn deref(&self) -> &Leaf {
        match self {
            LeafRef::Borrowed(leaf) => leaf,
            LeafRef::Shared(leaf) => leaf,
        }
    }
}

/// One column of a leaf, for copying straight into an Arrow array.
pub enum ColumnView<'a> {
    /// Little-endian values of fixed width (Bool: one byte each), null slots zero.
    Fixed { width: usize, data: &'a [u8], nulls: Nulls<'a> },
    /// `offsets` has rows + 1 entries, little-endian u32 each, into `data`.
    Variable { offsets: &'a [u8], data: &'a [u8], nulls: Nulls<'a> },
}

/// Which rows are null: `None` when none is; bit i of the little-endian bitmap set means row i is NOT null (Arrow's validity).
pub struct Nulls<'a>(pub Option<&'a [u8]>);

impl Leaf {
    /// What a leaf with this buffer takes in memory.
    pub(crate) fn charge(cache: Option<&Arc<NodeCache>>, buffer: &Vec<u8>) -> Charge {
        Charge::new(cache, LEAF_OVERHEAD + buffer.capacity())
    }

    pub fn row_count(&self) -> usize {
        self.rows
    }

    pub fn key(&self, row: usize) -> &[u8] {
        debug_assert!(row < self.rows);
        let at = self.keys_at();
        if self.key_width == KEYS_VARY {
            let heap = self.heap(0).0;
            let (start, end) = (self.u32_at(at + 4 * row), self.u32_at(at + 4 * row + 4));
            &self.buffer[heap + start..heap + end]
        } else {
            let width = self.key_width as usize;
            &self.buffer[at + width * row..at + width * (row + 1)]
        }
    }

    /// The position of a key, or where it would go.
    pub fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let at = self.keys_at();
        if self.key_width == KEYS_VARY {
            let offsets = self.buffer[at..at + 4 * (self.rows + 1)].as_chunks::<4>().0;
            let heap = &self.buffer[self.heap(0).0..];
            return search(self.rows, |row| {
                heap[u32::from_le_bytes(offsets[row]) as usize..u32::from_le_bytes(offsets[row + 1]) as usize].cmp(key)
            });
        }
        let width = self.key_width as usize;
        let keys = &self.buffer[at..at + width * self.rows];
        if width != key.len() || width == 0 {
            return search(self.rows, |row| keys[width * row..width * (row + 1)].cmp(key));
        }
        find_fixed(keys, key)
    }

    pub fn column_count(&self) -> usize {
        self.layout.columns.len()
    }

    pub fn column(&self, column: usize) -> ColumnView<'_> {
        let nulls = self.nulls(column);
        let data = self.data_at(column);
        match fixed_width(self.layout.columns[column]) {
            Some(width) => ColumnView::Fixed { width, data: &self.buffer[data..data + width * self.rows], nulls },
            None => {
                let heap = self.heap(self.heap_of(column)).0;
                let end = self.u32_at(data + 4 * self.rows);
                ColumnView::Variable {
                    offsets: &self.buffer[data..data + 4 * (self.rows + 1)],
                    data: &self.buffer[heap..heap + end],
                    nulls,
                }
            }
        }
    }

    pub fn is_null(&self, row: usize, column: usize) -> bool {
        self.buffer[self.column_at(column) + row / 8] & (1 << (row % 8)) == 0
    }

    pub fn value(&self, row: usize, column: usize) -> Value {
        assert!(row < self.rows, "BUG: row {row} of a leaf with {}", self.rows);
        if self.is_null(row, column) {
            return Value::Null;
        }
        let data = self.data_at(column);
        let physical = self.layout.columns[column];
        macro_rules! fixed {
            ($shape:ident, $number:ty, $width:expr) => {
                Value::$shape(<$number>::from_le_bytes(*self.array::<$width>(data + $width * row)))
            };
        }
        match physical {
            Physical::Bool => Value::Bool(self.buffer[data + row] != 0),
            Physical::Int2 => fixed!(Int2, i16, 2),
            Physical::Int4 => fixed!(Int4, i32, 4),
            Physical::Int8 => fixed!(Int8, i64, 8),
            Physical::Float4 => fixed!(Float4, f32, 4),
            Physical::Float8 => fixed!(Float8, f64, 8),
            Physical::Uuid => Value::Uuid(*self.array(data + 16 * row)),
            Physical::Bytes => Value::Bytes(self.bytes(row, column).into()),
        }
    }

    /// The bytes of a value of the bytes shape; empty for NULL.
    pub fn bytes(&self, row: usize, column: usize) -> &[u8] {
        let data = self.data_at(column);
        let heap = self.heap(self.heap_of(column)).0;
        &self.buffer[heap + self.u32_at(data + 4 * row)..heap + self.u32_at(data + 4 * row + 4)]
    }

    pub fn row(&self, row: usize) -> Row {
        (0..self.column_count()).map(|column| self.value(row, column)).collect()
    }

    /// Says whether a stored value is this one, without copying it.
    pub(crate) fn value_is(&self, row: usize, column: usize, value: &Value) -> bool {
        match value {
            Value::Null => self.is_null(row, column),
            Value::Bytes(bytes) => !self.is_null(row, column) && self.bytes(row, column) == &**bytes,
            other => self.value(row, column) == *other,
        }
    }

    fn nulls(&self, column: usize) -> Nulls<'_> {
        let at = self.column_at(column);
        let bitmap = &self.buffer[at..at + self.rows.div_ceil(8)];
        let (whole, rest) = (self.rows / 8, self.rows % 8);
        let none_null = bitmap[..whole].iter().all(|&b| b == 0xff) && (rest == 0 || bitmap[whole] & ((1 << rest) - 1) == (1 << rest) - 1);
        Nulls(if none_null { None } else { Some(bitmap) })
    }

    // Where things are.

    pub(crate) fn u32_at(&self, at: usize) -> usize {
        u32::from_le_bytes(*self.array::<4>(at)) as usize
    }

    fn array<const N: usize>(&self, at: usize) -> &[u8; N] {
        self.buffer[at..].first_chunk().expect("BUG: a leaf's buffer is shorter than its layout")
    }

    pub(crate) fn keys_at(&self) -> usize {
        base_size(&self.layout)
    }

    /// The column's bitmap; its values follow.
    pub(crate) fn column_at(&self, column: usize) -> usize {
        self.keys_at()
            + keys_size(self.key_width, self.capacity)
            + column * self.capacity.div_ceil(8)
            + self.capacity * self.layout.widths_before[column]
            + 4 * self.layout.variable_before[column]
    }

    pub(crate) fn data_at(&self, column: usize) -> usize {
        self.column_at(column) + self.capacity.div_ceil(8)
    }

    /// The number of the heap of a variable column; 0 is that of the keys.
    pub(crate) fn heap_of(&self, column: usize) -> usize {
        1 + self.layout.variable_before[column]
    }

    /// Start and size of a heap.
    pub(crate) fn heap(&self, heap: usize) -> (usize, usize) {
        let at = HEADER_SIZE + self.column_count() + 8 * heap;
        (self.u32_at(at), self.u32_at(at + 4))
    }

    /// How much of a heap is in use.
    pub(crate) fn heap_used(&self, column: usize) -> usize {
        self.u32_at(self.data_at(column) + 4 * self.rows)
    }

    pub(crate) fn key_heap_used(&self) -> usize {
        if self.key_width == KEYS_VARY { self.u32_at(self.keys_at() + 4 * self.rows) } else { 0 }
    }
}

pub(crate) fn base_size(layout: &Layout) -> usize {
    HEADER_SIZE + layout.columns.len() + 8 * (1 + layout.variable_count())
}

pub(crate) fn keys_size(key_width: u32, capacity: usize) -> usize {
    if key_width == KEYS_VARY { 4 * (capacity + 1) } else { key_width as usize * capacity }
}

/// Everything before the heaps.
pub(crate) fn arrays_end(layout: &Layout, key_width: u32, capacity: usize) -> usize {
    let columns = layout.columns.len();
    base_size(layout)
        + keys_size(key_width, capacity)
        + columns * capacity.div_ceil(8)
        + capacity * layout.widths_before[columns]
        + 4 * layout.variable_count()
}

/// The room that a leaf which grows by appending is given next.
pub(crate) fn grown(capacity: usize, target: usize) -> usize {
    let next = if capacity < target { (capacity * 2).min(target + target / 4) } else { capacity + capacity / 4 };
    next.max(CAPACITY_MIN).next_multiple_of(8)
}
