//! Leaves as chunks: the canonical bytes of a leaf, and the checks on bytes that are to become one.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::tree::cache::NodeCache;
use crate::tree::layout::{Layout, fixed_width, physical_from_byte};
use crate::tree::leaf::{HEADER_SIZE, KEYS_VARY, LEAF_FORMAT, Leaf, arrays_end};
use crate::tree::leaf_edit::put_u32;
use crate::value::Physical;

impl Leaf {
    /// The leaf's chunk: the same rows give the same bytes, whatever room the leaf has in memory.
    pub(crate) fn encode(&self) -> Cow<'_, [u8]> {
        let key_width = self.common_key_width();
        let heaps: usize = (0..1 + self.layout.variable_count()).map(|h| self.heap(h).1).sum();
        let used = if key_width == KEYS_VARY { self.key_heap_used() } else { 0 }
            + (0..self.column_count()).filter(|&c| fixed_width(self.layout.columns[c]).is_none()).map(|c| self.heap_used(c)).sum::<usize>();
        if self.capacity == self.rows && self.key_width == key_width && heaps == used && self.u32_at(4) == self.rows {
            return Cow::Borrowed(&self.buffer);
        }
        let mut tight = self.laid_out_anew(self.rows, key_width, |_, used| used);
        let length = tight.buffer.len();
        put_u32(&mut tight.buffer, 4, self.rows);
        put_u32(&mut tight.buffer, 8, self.rows);
        put_u32(&mut tight.buffer, 12, key_width as usize);
        put_u32(&mut tight.buffer, 20, length);
        Cow::Owned(std::mem::take(&mut tight.buffer))
    }

    /// The width that all keys have, or [`KEYS_VARY`].
    fn common_key_width(&self) -> u32 {
        if self.key_width != KEYS_VARY {
            return self.key_width;
        }
        let first = if self.rows == 0 { 0 } else { self.key(0).len() };
        if (1..self.rows).all(|row| self.key(row).len() == first) { first as u32 } else { KEYS_VARY }
    }

    /// Checks a chunk and makes it a leaf without copying it.
    /// # Errors
    /// `Damaged`.
    pub(crate) fn decode(bytes: Vec<u8>, layout: &Arc<Layout>, cache: Option<&Arc<NodeCache>>, address: &ChunkAddress) -> Result<Leaf> {
        let damaged = |what: &str| Error::Damaged { place: format!("chunk {address:.12}"), what: what.into() };
        if bytes.len() < HEADER_SIZE || bytes[0] != 0 {
            return Err(damaged("not a leaf"));
        }
        if bytes[1] != LEAF_FORMAT {
            return Err(damaged("unknown format of a leaf"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("BUG: four bytes")) as usize;
        let columns = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let (rows, capacity, key_width, length) = (u32_at(4), u32_at(8), u32_at(12) as u32, u32_at(20));
        if length != bytes.len() || capacity != rows || rows == 0 || rows > bytes.len() {
            return Err(damaged("sizes in the header of a leaf do not agree"));
        }
        let shapes = bytes.get(HEADER_SIZE..HEADER_SIZE + columns).ok_or_else(|| damaged("leaf is cut short"))?;
        if columns != layout.columns.len() || shapes.iter().zip(&layout.columns).any(|(&b, &p)| physical_from_byte(b) != Some(p)) {
            return Err(damaged("leaf has other columns than its table"));
        }
        let widths = layout.widths_before[columns] as u128 + u128::from(if key_width == KEYS_VARY { 4 } else { key_width });
        if rows as u128 * widths > bytes.len() as u128 {
            return Err(damaged("leaf is cut short"));
        }
        let mut at = arrays_end(layout, key_width, rows);
        if at > bytes.len() {
            return Err(damaged("leaf is cut short"));
        }
        let charge = Leaf::charge(cache, &bytes);
        let address = OnceLock::from(*address);
        let leaf = Leaf { layout: layout.clone(), address, rows, capacity, key_width, buffer: bytes, charge };
        for heap in 0..1 + layout.variable_count() {
            let (start, size) = leaf.heap(heap);
            if start != at || size > leaf.buffer.len() - at {
                return Err(damaged("heaps of a leaf are out of place"));
            }
            at += size;
        }
        if at != leaf.buffer.len() {
            return Err(damaged("leaf has bytes after its end"));
        }
        match key_width {
            KEYS_VARY => leaf.check_offsets(leaf.keys_at(), 0).ok_or_else(|| damaged("offsets of keys are out of order"))?,
            _ if leaf.heap(0).1 != 0 => return Err(damaged("heaps of a leaf are out of place")),
            _ => (),
        }
        for column in 0..columns {
            let bitmap = leaf.column_at(column);
            if rows % 8 != 0 && leaf.buffer[bitmap + rows / 8] >> (rows % 8) != 0 {
                return Err(damaged("bitmap of a leaf has bits after its end"));
            }
            let data = leaf.data_at(column);
            match layout.columns[column] {
                Physical::Bytes => {
                    leaf.check_offsets(data, leaf.heap_of(column)).ok_or_else(|| damaged("offsets of values are out of order"))?;
                }
                Physical::Bool if leaf.buffer[data..data + rows].iter().any(|&b| b > 1) => return Err(damaged("boolean above 1")),
                _ => (),
            }
        }
        if (1..rows).any(|row| leaf.key(row - 1) >= leaf.key(row)) {
            return Err(damaged("keys of a leaf are out of order"));
        }
        Ok(leaf)
    }

    /// Offsets must begin at 0, never fall, and end at the end of their heap.
    fn check_offsets(&self, offsets: usize, heap: usize) -> Option<()> {
        let mut last = self.u32_at(offsets);
        if last != 0 {
            return None;
        }
        for i in 1..=self.rows {
            let offset = self.u32_at(offsets + 4 * i);
            if offset < last {
                return None;
            }
            last = offset;
        }
        (last == self.heap(heap).1).then_some(())
    }

    /// Checks what `decode` leaves out because nothing depends on it: nulls' slots are empty.
    pub(crate) fn verify(&self) -> Option<&'static str> {
        for column in 0..self.column_count() {
            let data = self.data_at(column);
            for row in (0..self.rows).filter(|&row| self.is_null(row, column)) {
                let empty = match fixed_width(self.layout.columns[column]) {
                    Some(width) => self.buffer[data + width * row..data + width * (row + 1)].iter().all(|&b| b == 0),
                    None => self.bytes(row, column).is_empty(),
                };
                if !empty {
                    return Some("null with a value");
                }
            }
        }
        None
    }
}
