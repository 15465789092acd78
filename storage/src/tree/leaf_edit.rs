//! Changing a leaf in place where there is room, and laying it out anew where there is none.

use std::sync::{Arc, OnceLock};

use crate::tree::cache::NodeCache;
use crate::tree::layout::{LEAF_SIZE_TARGET, Layout, fixed_width};
use crate::tree::leaf::{HEADER_SIZE, KEYS_VARY, LEAF_FORMAT, Leaf, arrays_end, grown};
use crate::tree::node::Source;
use crate::value::Value;

impl Leaf {
    /// A leaf without rows, with room for some; `heaps` says how large its heaps are to be, if that is known.
    pub(crate) fn empty(source: &Source, target: u32, key_width: u32, capacity: usize, heaps: Option<Vec<usize>>) -> Leaf {
        let heaps = heaps.unwrap_or_else(|| vec![0; 1 + source.layout.variable_count()]);
        Leaf::laid_out(&source.layout, source.cache(), target, key_width, capacity, &heaps)
    }

    /// What the heaps take of a leaf with so many rows like those of this one, and a little more. That of the keys is not needed as long as they have one width.
    pub(crate) fn heaps_for(&self, rows: usize) -> Vec<usize> {
        // One large value is no reason to expect more of them.
        let scaled = |used: usize| (used * rows / self.rows.max(1) * 17 / 16).min(4 * LEAF_SIZE_TARGET);
        let values = (0..self.column_count()).filter(|column| fixed_width(self.layout.columns[*column]).is_none());
        std::iter::once(0).chain(values.map(|column| scaled(self.heap_used(column)))).collect()
    }

    fn laid_out(
        layout: &Arc<Layout>,
        cache: Option<&Arc<NodeCache>>,
        target: u32,
        key_width: u32,
        capacity: usize,
        heaps: &[usize],
    ) -> Leaf {
        let mut at = arrays_end(layout, key_width, capacity);
        let mut buffer = vec![0; at + heaps.iter().sum::<usize>()];
        buffer[1] = LEAF_FORMAT;
        buffer[2..4].copy_from_slice(&(layout.columns.len() as u16).to_le_bytes());
        buffer[16..20].copy_from_slice(&target.to_le_bytes());
        for (i, &column) in layout.columns.iter().enumerate() {
            buffer[HEADER_SIZE + i] = column as u8;
        }
        let directory = HEADER_SIZE + layout.columns.len();
        for (i, &size) in heaps.iter().enumerate() {
            put_u32(&mut buffer, directory + 8 * i, at);
            put_u32(&mut buffer, directory + 8 * i + 4, size);
            at += size;
        }
        let charge = Leaf::charge(cache, &buffer);
        Leaf { layout: layout.clone(), address: OnceLock::new(), rows: 0, capacity, key_width, buffer, charge }
    }

    pub(crate) fn target(&self) -> u32 {
        self.u32_at(16) as u32
    }

    /// Inserts a row whose shape has been checked.
    pub(crate) fn insert(&mut self, at: usize, key: &[u8], row: &[Value]) {
        self.address = OnceLock::new();
        if !self.has_room(key, row) {
            self.make_room(key, row);
        }
        let tail = self.rows - at;
        if self.key_width == KEYS_VARY {
            self.insert_bytes(self.keys_at(), 0, at, key);
        } else {
            let width = self.key_width as usize;
            let start = self.keys_at() + width * at;
            self.buffer.copy_within(start..start + width * tail, start + width);
            self.buffer[start..start + width].copy_from_slice(key);
        }
        for (column, value) in row.iter().enumerate() {
            let bitmap = self.column_at(column);
            let size = self.capacity.div_ceil(8);
            insert_bit(&mut self.buffer[bitmap..bitmap + size], at, self.rows, !value.is_null());
            let data = bitmap + size;
            match fixed_width(self.layout.columns[column]) {
                Some(width) => {
                    let start = data + width * at;
                    if tail > 0 {
                        self.buffer.copy_within(start..start + width * tail, start + width);
                    }
                    write_fixed(&mut self.buffer[start..start + width], value);
                }
                None => {
                    let bytes = if let Value::Bytes(bytes) = value { &**bytes } else { &[] };
                    self.insert_bytes(data, self.heap_of(column), at, bytes);
                }
            }
        }
        self.rows += 1;
    }

    pub(crate) fn push(&mut self, key: &[u8], row: &[Value]) {
        self.insert(self.rows, key, row);
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.address = OnceLock::new();
        let tail = self.rows - at - 1;
        if self.key_width == KEYS_VARY {
            self.remove_bytes(self.keys_at(), 0, at);
        } else {
            let width = self.key_width as usize;
            let start = self.keys_at() + width * at;
            self.buffer.copy_within(start + width..start + width * (tail + 1), start);
        }
        for column in 0..self.column_count() {
            let bitmap = self.column_at(column);
            let size = self.capacity.div_ceil(8);
            remove_bit(&mut self.buffer[bitmap..bitmap + size], at, self.rows);
            let data = bitmap + size;
            match fixed_width(self.layout.columns[column]) {
                Some(width) => {
                    let start = data + width * at;
                    self.buffer.copy_within(start + width..start + width * (tail + 1), start);
                }
                None => self.remove_bytes(data, self.heap_of(column), at),
            }
        }
        self.rows -= 1;
    }

    /// Sets one value whose shape has been checked.
    pub(crate) fn set(&mut self, row: usize, column: usize, value: &Value) {
        self.address = OnceLock::new();
        let data = self.data_at(column);
        match fixed_width(self.layout.columns[column]) {
            Some(width) => write_fixed(&mut self.buffer[data + width * row..data + width * (row + 1)], value),
            None => {
                let bytes = if let Value::Bytes(bytes) = value { &**bytes } else { &[] };
                self.set_bytes(row, column, bytes);
            }
        }
        let bitmap = self.column_at(column);
        let byte = &mut self.buffer[bitmap + row / 8];
        if value.is_null() {
            *byte &= !(1 << (row % 8));
        } else {
            *byte |= 1 << (row % 8);
        }
    }

    fn set_bytes(&mut self, row: usize, column: usize, bytes: &[u8]) {
        let heap = self.heap_of(column);
        let old = self.bytes(row, column).len();
        let used = self.heap_used(column);
        if used - old + bytes.len() > self.heap(heap).1 {
            self.relayout(
                self.capacity,
                self.key_width,
                |h, used| if h == heap { (used - old + bytes.len()) * 5 / 4 } else { used + used / 8 },
            );
        }
        let data = self.data_at(column);
        let start = self.heap(heap).0;
        let (from, to) = (self.u32_at(data + 4 * row), self.u32_at(data + 4 * row + 4));
        if bytes.len() != old {
            self.buffer.copy_within(start + to..start + used, start + from + bytes.len());
            self.shift_offsets(data + 4 * (row + 1), self.rows - row, (bytes.len() as u32).wrapping_sub(old as u32));
        }
        self.buffer[start + from..start + from + bytes.len()].copy_from_slice(bytes);
    }

    /// Appends rows `start..end` of a leaf of the same layout.
    pub(crate) fn append_from(&mut self, other: &Leaf, start: usize, end: usize) {
        self.address = OnceLock::new();
        let added = end - start;
        if added == 0 {
            return;
        }
        let mixed = self.key_width != other.key_width && self.rows > 0 || other.key_width == KEYS_VARY;
        let key_width = if mixed { KEYS_VARY } else { other.key_width };
        let fits = self.rows + added <= self.capacity
            && key_width == self.key_width
            && (key_width != KEYS_VARY || self.key_heap_used() + other.key_bytes(start, end) <= self.heap(0).1)
            && (0..self.column_count()).all(|c| {
                fixed_width(self.layout.columns[c]).is_some()
                    || self.heap_used(c) + other.value_bytes(c, start, end) <= self.heap(self.heap_of(c)).1
            });
        if !fits {
            let mut more = vec![0; 1 + self.layout.variable_count()];
            more[0] = other.key_bytes(start, end);
            for c in 0..self.column_count() {
                if fixed_width(self.layout.columns[c]).is_none() {
                    more[self.heap_of(c)] = other.value_bytes(c, start, end);
                }
            }
            let capacity = self.capacity.max((self.rows + added).next_multiple_of(8));
            self.relayout(capacity, key_width, |h, used| (used + more[h]) * 9 / 8);
        }
        let rows = self.rows;
        if self.key_width == KEYS_VARY {
            let (at, heap) = (self.keys_at(), self.heap(0).0);
            let mut end_of_heap = self.key_heap_used();
            for row in start..end {
                let key = other.key(row);
                self.buffer[heap + end_of_heap..heap + end_of_heap + key.len()].copy_from_slice(key);
                end_of_heap += key.len();
                put_u32(&mut self.buffer, at + 4 * (rows + row - start + 1), end_of_heap);
            }
        } else {
            let width = self.key_width as usize;
            let (to, from) = (self.keys_at() + width * rows, other.keys_at());
            self.buffer[to..to + width * added].copy_from_slice(&other.buffer[from + width * start..from + width * end]);
        }
        for column in 0..self.column_count() {
            let (bitmap, other_bitmap) = (self.column_at(column), other.column_at(column));
            for row in start..end {
                if other.buffer[other_bitmap + row / 8] & (1 << (row % 8)) != 0 {
                    let to = rows + row - start;
                    self.buffer[bitmap + to / 8] |= 1 << (to % 8);
                }
            }
            let (to, from) = (self.data_at(column), other.data_at(column));
            match fixed_width(self.layout.columns[column]) {
                Some(width) => self.buffer[to + width * rows..to + width * (rows + added)]
                    .copy_from_slice(&other.buffer[from + width * start..from + width * end]),
                None => {
                    let used = self.heap_used(column);
                    let (heap, other_heap) = (self.heap(self.heap_of(column)).0, other.heap(other.heap_of(column)).0);
                    let (first, last) = (other.u32_at(from + 4 * start), other.u32_at(from + 4 * end));
                    self.buffer[heap + used..heap + used + last - first]
                        .copy_from_slice(&other.buffer[other_heap + first..other_heap + last]);
                    for row in start..end {
                        let offset = other.u32_at(from + 4 * row + 4) - first + used;
                        put_u32(&mut self.buffer, to + 4 * (rows + row - start + 1), offset);
                    }
                }
            }
        }
        self.rows += added;
    }

    /// A new leaf of rows `start..end`, with room to grow.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Leaf {
        let heaps = vec![0; 1 + self.layout.variable_count()];
        let (target, capacity) = (self.target(), grown(end - start, self.target() as usize));
        let mut leaf = Leaf::laid_out(&self.layout, self.charge.cache(), target, self.key_width, capacity, &heaps);
        leaf.append_from(self, start, end);
        leaf
    }

    /// Bytes that the keys of some rows have together.
    fn key_bytes(&self, start: usize, end: usize) -> usize {
        if self.key_width == KEYS_VARY {
            self.u32_at(self.keys_at() + 4 * end) - self.u32_at(self.keys_at() + 4 * start)
        } else {
            self.key_width as usize * (end - start)
        }
    }

    fn value_bytes(&self, column: usize, start: usize, end: usize) -> usize {
        let data = self.data_at(column);
        self.u32_at(data + 4 * end) - self.u32_at(data + 4 * start)
    }

    fn has_room(&self, key: &[u8], row: &[Value]) -> bool {
        if self.rows == self.capacity {
            return false;
        }
        if self.key_width == KEYS_VARY {
            if self.key_heap_used() + key.len() > self.heap(0).1 {
                return false;
            }
        } else if key.len() != self.key_width as usize {
            return false;
        }
        self.layout.variable_count() == 0
            || row.iter().enumerate().all(|(column, value)| match value {
                Value::Bytes(bytes) => self.heap_used(column) + bytes.len() <= self.heap(self.heap_of(column)).1,
                _ => true,
            })
    }

    #[cold]
    fn make_room(&mut self, key: &[u8], row: &[Value]) {
        let target = self.target() as usize;
        let capacity = if self.rows == self.capacity { grown(self.capacity, target) } else { self.capacity };
        let key_width = match self.rows {
            0 => u32::try_from(key.len()).unwrap_or(KEYS_VARY),
            _ if self.key_width == key.len() as u32 => self.key_width,
            _ => KEYS_VARY,
        };
        let mut more = vec![0; 1 + self.layout.variable_count()];
        more[0] = key.len();
        for (column, value) in row.iter().enumerate() {
            if let Value::Bytes(bytes) = value {
                more[self.heap_of(column)] = bytes.len();
            }
        }
        let rows = self.rows;
        // Heaps get room for as many more rows of the mean size as the arrays have, within reason.
        self.relayout(capacity, key_width, |h, used| {
            let need = used + more[h];
            need + (need * (capacity - rows) / (rows + 1)).min(need.max(64))
        });
    }

    /// Lays the leaf out anew. `heap_size(heap, used)` says how large each heap is to be.
    pub(crate) fn relayout(&mut self, capacity: usize, key_width: u32, heap_size: impl Fn(usize, usize) -> usize) {
        *self = self.laid_out_anew(capacity, key_width, heap_size);
    }

    /// The same rows in another layout.
    pub(crate) fn laid_out_anew(&self, capacity: usize, key_width: u32, heap_size: impl Fn(usize, usize) -> usize) -> Leaf {
        let mut heaps = Vec::with_capacity(1 + self.layout.variable_count());
        let key_bytes = if self.rows == 0 { 0 } else { self.key_bytes(0, self.rows) };
        heaps.push(if key_width == KEYS_VARY { heap_size(0, key_bytes) } else { 0 });
        for column in 0..self.column_count() {
            if fixed_width(self.layout.columns[column]).is_none() {
                heaps.push(heap_size(heaps.len(), self.heap_used(column)));
            }
        }
        let mut leaf = Leaf::laid_out(&self.layout, self.charge.cache(), self.target(), key_width, capacity, &heaps);
        let rows = self.rows;
        if key_width == KEYS_VARY {
            let (at, heap) = (leaf.keys_at(), leaf.heap(0).0);
            let mut used = 0;
            for row in 0..rows {
                let key = self.key(row);
                leaf.buffer[heap + used..heap + used + key.len()].copy_from_slice(key);
                used += key.len();
                put_u32(&mut leaf.buffer, at + 4 * (row + 1), used);
            }
        } else if rows > 0 {
            let (width, to) = (key_width as usize, leaf.keys_at());
            if self.key_width == key_width {
                let from = self.keys_at();
                leaf.buffer[to..to + width * rows].copy_from_slice(&self.buffer[from..from + width * rows]);
            } else {
                for row in 0..rows {
                    leaf.buffer[to + width * row..to + width * (row + 1)].copy_from_slice(self.key(row));
                }
            }
        }
        for column in 0..self.column_count() {
            let (from, to, size) = (self.column_at(column), leaf.column_at(column), rows.div_ceil(8));
            leaf.buffer[to..to + size].copy_from_slice(&self.buffer[from..from + size]);
            if !rows.is_multiple_of(8) {
                leaf.buffer[to + size - 1] &= (1 << (rows % 8)) - 1;
            }
            let (from, to) = (self.data_at(column), leaf.data_at(column));
            match fixed_width(self.layout.columns[column]) {
                Some(width) => leaf.buffer[to..to + width * rows].copy_from_slice(&self.buffer[from..from + width * rows]),
                None => {
                    let size = 4 * (rows + 1);
                    leaf.buffer[to..to + size].copy_from_slice(&self.buffer[from..from + size]);
                    let used = self.heap_used(column);
                    let (from, to) = (self.heap(self.heap_of(column)).0, leaf.heap(leaf.heap_of(column)).0);
                    leaf.buffer[to..to + used].copy_from_slice(&self.buffer[from..from + used]);
                }
            }
        }
        leaf.rows = rows;
        leaf
    }

    /// Inserts bytes as entry `at` of an array of offsets and its heap.
    fn insert_bytes(&mut self, offsets: usize, heap: usize, at: usize, bytes: &[u8]) {
        let start = self.heap(heap).0;
        let used = self.u32_at(offsets + 4 * self.rows);
        let from = self.u32_at(offsets + 4 * at);
        if at < self.rows {
            self.buffer.copy_within(start + from..start + used, start + from + bytes.len());
            // Entry `at` begins where it did; the offsets after it move up by one place and by the length.
            let first = offsets + 4 * at;
            self.buffer.copy_within(first..offsets + 4 * (self.rows + 1), first + 4);
            self.shift_offsets(first + 4, self.rows + 1 - at, bytes.len() as u32);
        }
        put_u32(&mut self.buffer, offsets + 4 * at + 4, from + bytes.len());
        self.buffer[start + from..start + from + bytes.len()].copy_from_slice(bytes);
    }

    fn remove_bytes(&mut self, offsets: usize, heap: usize, at: usize) {
        let start = self.heap(heap).0;
        let used = self.u32_at(offsets + 4 * self.rows);
        let (from, to) = (self.u32_at(offsets + 4 * at), self.u32_at(offsets + 4 * at + 4));
        self.buffer.copy_within(start + to..start + used, start + from);
        let first = offsets + 4 * (at + 1);
        self.buffer.copy_within(first + 4..offsets + 4 * (self.rows + 1), first);
        self.shift_offsets(first, self.rows - at - 1, ((to - from) as u32).wrapping_neg());
    }

    /// Adds to `count` offsets (wrapping, so that it can subtract).
    fn shift_offsets(&mut self, first: usize, count: usize, by: u32) {
        if by == 0 {
            return;
        }
        for offset in self.buffer[first..first + 4 * count].as_chunks_mut::<4>().0 {
            *offset = u32::from_le_bytes(*offset).wrapping_add(by).to_le_bytes();
        }
    }
}

pub(crate) fn put_u32(buffer: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("BUG: a leaf above 4 GiB");
    buffer[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn write_fixed(slot: &mut [u8], value: &Value) {
    match value {
        Value::Null => slot.fill(0),
        Value::Bool(v) => slot[0] = u8::from(*v),
        Value::Int2(v) => slot.copy_from_slice(&v.to_le_bytes()),
        Value::Int4(v) => slot.copy_from_slice(&v.to_le_bytes()),
        Value::Int8(v) => slot.copy_from_slice(&v.to_le_bytes()),
        Value::Float4(v) => slot.copy_from_slice(&v.to_le_bytes()),
        Value::Float8(v) => slot.copy_from_slice(&v.to_le_bytes()),
        Value::Uuid(v) => slot.copy_from_slice(v),
        Value::Bytes(_) => panic!("BUG: bytes in a column of fixed width"),
    }
}

/// Makes room for a bit at `at` among `count` and sets it.
fn insert_bit(bitmap: &mut [u8], at: usize, count: usize, bit: bool) {
    let byte = at / 8;
    for i in (byte + 1..=count / 8).rev() {
        bitmap[i] = bitmap[i] << 1 | bitmap[i - 1] >> 7;
    }
    let low = (1u8 << (at % 8)) - 1;
    let old = bitmap[byte];
    bitmap[byte] = old & low | u8::from(bit) << (at % 8) | (old & !low) << 1;
}

/// Takes the bit at `at` out of `count`; the last one becomes 0.
fn remove_bit(bitmap: &mut [u8], at: usize, count: usize) {
    let (byte, last) = (at / 8, (count - 1) / 8);
    let low = (1u8 << (at % 8)) - 1;
    let old = bitmap[byte];
    bitmap[byte] = old & low | (old >> 1) & !low;
    for i in byte + 1..=last {
        bitmap[i - 1] |= bitmap[i] << 7;
        bitmap[i] >>= 1;
    }
}
