//! What is known of the records before, from which numbers are guessed. Packing and unpacking go through the same states.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::schema::Oid;

/// Numbers of the record under way that a later one may repeat.
const RECENT_COUNT: usize = 16;
/// Places for numbers by their position in a record; more positions than that share.
const SLOT_COUNT: usize = 512;
const ROW_SLOT_COUNT_MAX: usize = 1 << 11;

/// A number's position.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Height,
    CommitTime,
    AuthorTime,
    SourceTime,
    Lsn,
    LsnDistance,
    Xid,
    Applied,
    Key(Oid),
    Column(Oid, u64),
}

impl Slot {
    fn place(self) -> usize {
        let hash = |table: Oid, column: u64| {
            let mixed = u64::from(table).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ column.wrapping_add(1).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
            8 + (mixed >> 32) as usize % (SLOT_COUNT - 8)
        };
        match self {
            Slot::Height => 0,
            Slot::CommitTime => 1,
            Slot::AuthorTime => 2,
            Slot::SourceTime => 3,
            Slot::Lsn => 4,
            Slot::LsnDistance => 5,
            Slot::Xid => 6,
            Slot::Applied => 7,
            Slot::Key(table) => hash(table, u64::MAX - 1),
            Slot::Column(table, column) => hash(table, column),
        }
    }
}

/// The last number at a position, and its distance from the one before where that was a step of one.
#[derive(Clone, Copy, Default)]
struct Last {
    number: i64,
    step: i64,
}

/// Oids spread by a multiplication: every key that is unpacked comes here.
#[derive(Default)]
pub(super) struct OidHasher(u64);

impl Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }
    fn write_u32(&mut self, number: u32) {
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

type OidHash = BuildHasherDefault<OidHasher>;

pub(super) struct Memory {
    slots: Vec<Last>,
    /// The last value of a column of a row, with a check of which row it is.
    rows: Vec<(u32, i64)>,
    /// The last key of each table, where it is a string.
    keys: HashMap<Oid, Vec<u8>, OidHash>,
    recent: [i64; RECENT_COUNT],
    recent_end: usize,
    recent_count: usize,
    /// By how much the last updated number of this record changed.
    pub change: i64,
}

impl Memory {
    /// For a frame of so many records.
    pub fn new(record_count: u16) -> Memory {
        let rows = (usize::from(record_count) * 8).next_power_of_two().clamp(64, ROW_SLOT_COUNT_MAX);
        Memory {
            slots: vec![Last::default(); SLOT_COUNT],
            rows: vec![(0, 0); rows],
            keys: HashMap::default(),
            recent: [0; RECENT_COUNT],
            recent_end: 0,
            recent_count: 0,
            change: 0,
        }
    }

    pub fn begin_record(&mut self) {
        self.recent_count = 0;
        self.change = 0;
    }

    pub fn guess(&self, slot: Slot) -> i64 {
        let last = &self.slots[slot.place()];
        last.number.wrapping_add(last.step)
    }

    pub fn note(&mut self, slot: Slot, number: i64) {
        let last = &mut self.slots[slot.place()];
        let step = number.wrapping_sub(last.number);
        *last = Last { number, step: if (-1..=1).contains(&step) { step } else { 0 } };
    }

    /// The value that the row's column had last, if that is known.
    pub fn row_guess(&self, row: u32, column: u64) -> Option<i64> {
        let (place, check) = self.row_place(row, column);
        let (found, value) = self.rows[place];
        (found == check).then_some(value)
    }

    pub fn note_row(&mut self, row: u32, column: u64, value: i64) {
        let (place, check) = self.row_place(row, column);
        self.rows[place] = (check, value);
    }

    /// The place and the check, which is not 0, of a column of a row that is named by a hash.
    fn row_place(&self, row: u32, column: u64) -> (usize, u32) {
        let mixed = (u64::from(row) << 16 ^ column).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed >> 40) as usize % self.rows.len(), mixed as u32 | 1)
    }

    /// The last key of a table.
    pub fn key(&mut self, table: Oid) -> &mut Vec<u8> {
        self.keys.entry(table).or_default()
    }

    pub fn note_recent(&mut self, number: i64) {
        self.recent[self.recent_end % RECENT_COUNT] = number;
        self.recent_end = self.recent_end.wrapping_add(1);
        self.recent_count = (self.recent_count + 1).min(RECENT_COUNT);
    }

    /// The number that was noted `back` numbers ago in this record; 1 is the last.
    pub fn recent(&self, back: usize) -> Option<i64> {
        (1..=self.recent_count).contains(&back).then(|| self.recent[self.recent_end.wrapping_sub(back) % RECENT_COUNT])
    }

    /// How far back a number was noted in this record.
    pub fn find_recent(&self, number: i64) -> Option<usize> {
        (1..=self.recent_count).find(|back| self.recent(*back) == Some(number))
    }
}
