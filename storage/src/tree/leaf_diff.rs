//! Which rows of two leaves differ, found in their bytes: what is equal is neither decoded nor looked at row by row.
//!
//! Most leaves that a diff compares have the same keys, and a few changed values in one column. So first as many keys as are the same are
//! found, and then each column of these rows is compared as one stretch of bytes; where two bytes differ, their row is noted.

use crate::tree::layout::fixed_width;
use crate::tree::leaf::{KEYS_VARY, Leaf};

/// Bytes that are compared at once before the one that differs is looked for.
const BLOCK_SIZE: usize = 64;

/// Rows that differ, counted from the first one compared.
#[derive(Debug, Default)]
pub(super) struct ChangedRows {
    words: Vec<u64>,
}

impl ChangedRows {
    /// Empty, with room for so many rows.
    fn reset(&mut self, count: usize) {
        self.words.clear();
        self.words.resize(count.div_ceil(64), 0);
    }

    fn insert(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// The first of them that is not before `from`.
    pub fn next(&self, from: usize) -> Option<usize> {
        let (first, rest) = self.words.get(from / 64..)?.split_first()?;
        let masked = first >> (from % 64);
        if masked != 0 {
            return Some(from + masked.trailing_zeros() as usize);
        }
        let skipped = rest.iter().position(|word| *word != 0)?;
        Some((from / 64 + 1 + skipped) * 64 + rest[skipped].trailing_zeros() as usize)
    }
}

impl Leaf {
    /// How many rows from `row` on have the keys of the other leaf's rows from `other_row` on.
    pub(super) fn count_same_keys(&self, row: usize, other: &Leaf, other_row: usize) -> usize {
        let count = (self.rows - row).min(other.rows - other_row);
        match (self.key_width, other.key_width) {
            (KEYS_VARY, KEYS_VARY) => {
                let (keys, others) = (self.variable(self.keys_at(), 0, row), other.variable(other.keys_at(), 0, other_row));
                VariableColumns::new(keys, others, count).next_difference(0).unwrap_or(count)
            }
            (width, other_width) if width == other_width && width > 0 => {
                let width = width as usize;
                let (at, other_at) = (self.keys_at() + width * row, other.keys_at() + width * other_row);
                let (keys, others) = (&self.buffer[at..at + width * count], &other.buffer[other_at..other_at + width * count]);
                first_difference(keys, others).map_or(count, |at| at / width)
            }
            _ => (0..count).find(|i| self.key(row + i) != other.key(other_row + i)).unwrap_or(count),
        }
    }

    /// Finds the rows that differ among `count` rows of two leaves of one layout.
    pub(super) fn find_changed(&self, row: usize, other: &Leaf, other_row: usize, count: usize, changed: &mut ChangedRows) {
        changed.reset(count);
        for column in 0..self.column_count() {
            let (bitmap, other_bitmap) = (self.bitmap(column), other.bitmap(column));
            for (i, word) in changed.words.iter_mut().enumerate() {
                let mask = if count - i * 64 < 64 { (1 << (count - i * 64)) - 1 } else { u64::MAX };
                *word |= (bits_at(bitmap, row + i * 64) ^ bits_at(other_bitmap, other_row + i * 64)) & mask;
            }
            let (data, other_data) = (self.data_at(column), other.data_at(column));
            match fixed_width(self.layout.columns[column]) {
                Some(width) => {
                    let (at, other_at) = (data + width * row, other_data + width * other_row);
                    let (values, others) = (&self.buffer[at..at + width * count], &other.buffer[other_at..other_at + width * count]);
                    let mut next = 0;
                    while let Some(found) = first_difference(&values[width * next..], &others[width * next..]) {
                        next += found / width;
                        changed.insert(next);
                        next += 1;
                    }
                }
                None => {
                    let (values, others) =
                        (self.variable(data, self.heap_of(column), row), other.variable(other_data, other.heap_of(column), other_row));
                    let mut columns = VariableColumns::new(values, others, count);
                    let mut next = 0;
                    while let Some(found) = columns.next_difference(next) {
                        changed.insert(found);
                        next = found + 1;
                    }
                }
            }
        }
    }

    fn bitmap(&self, column: usize) -> &[u8] {
        let at = self.column_at(column);
        &self.buffer[at..at + self.rows.div_ceil(8)]
    }

    /// A variable column (or the keys) from a row on: offsets, one more than rows, and the heap that they lead into.
    fn variable(&self, offsets_at: usize, heap: usize, row: usize) -> (&[[u8; 4]], &[u8]) {
        let offsets = self.buffer[offsets_at + 4 * row..offsets_at + 4 * (self.rows + 1)].as_chunks::<4>().0;
        let (start, size) = self.heap(heap);
        (offsets, &self.buffer[start..start + size])
    }
}

/// Two stretches of a variable column.
struct VariableColumns<'a> {
    offsets: [&'a [[u8; 4]]; 2],
    heaps: [&'a [u8]; 2],
    count: usize,
    /// Rows from the last difference up to this one have the same lengths on both sides.
    same_lengths_end: usize,
}

impl<'a> VariableColumns<'a> {
    fn new(this: (&'a [[u8; 4]], &'a [u8]), other: (&'a [[u8; 4]], &'a [u8]), count: usize) -> Self {
        let offsets = [&this.0[..=count], &other.0[..=count]];
        let same_lengths_end = if offsets[0] == offsets[1] { count } else { 0 };
        VariableColumns { offsets, heaps: [this.1, other.1], count, same_lengths_end }
    }

    fn offset(&self, side: usize, row: usize) -> usize {
        u32::from_le_bytes(self.offsets[side][row]) as usize
    }

    /// The first row from `from` on that differs.
    fn next_difference(&mut self, from: usize) -> Option<usize> {
        if from >= self.count {
            return None;
        }
        if self.same_lengths_end <= from {
            let length = |side, row| self.offset(side, row + 1) - self.offset(side, row);
            self.same_lengths_end = (from..self.count).find(|&row| length(0, row) != length(1, row)).unwrap_or(self.count);
        }
        let end = self.same_lengths_end;
        let bytes = |side| &self.heaps[side][self.offset(side, from)..self.offset(side, end)];
        if let Some(at) = first_difference(bytes(0), bytes(1)) {
            let at = self.offset(0, from) + at;
            // The last row that begins at or before the byte: rows before it may be empty.
            return Some(from + self.offsets[0][from..=end].partition_point(|offset| u32::from_le_bytes(*offset) as usize <= at) - 1);
        }
        // Where the lengths differ.
        (end < self.count).then_some(end)
    }
}

/// The first byte that differs of two slices of the same length.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    debug_assert_eq!(a.len(), b.len());
    let (blocks, _) = a.as_chunks::<BLOCK_SIZE>();
    let (others, _) = b.as_chunks::<BLOCK_SIZE>();
    let start = blocks.iter().zip(others).take_while(|(a, b)| a == b).count() * BLOCK_SIZE;
    a[start..].iter().zip(&b[start..]).position(|(a, b)| a != b).map(|at| start + at)
}

/// 64 bits of a bitmap from a bit on; those after its end are 0.
fn bits_at(bitmap: &[u8], bit: usize) -> u64 {
    let mut bytes = [0; 16];
    let there = bitmap.get(bit / 8..).unwrap_or_default();
    let there = &there[..there.len().min(9)];
    bytes[..there.len()].copy_from_slice(there);
    (u128::from_le_bytes(bytes) >> (bit % 8)) as u64
}
