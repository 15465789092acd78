//! Mutated bytes: what was written by the store, with bits flipped, bytes set, cut, doubled and mixed.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::chunk::ChunkWriter;
use crate::encoding::{put_row, put_varint};
use crate::journal::FrameKind;
use crate::store::tests::history;
use crate::value::Row;
use crate::value::key::encode_key;

/// Counts what a thread has allocated.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(size: isize) {
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + size);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: AllocLayout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: AllocLayout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: AllocLayout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that decoding takes at once.
fn peak_of(decoder: Decoder, bytes: &[u8]) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    decode(decoder, bytes);
    (PEAK.get() - before) as usize
}

/// Memory that a decoder may take whatever the input: an empty leaf, an error's text.
const MEMORY_ALWAYS: usize = 64 << 10;
/// Memory that a decoder may take for each byte of input: lz4 makes at most 255 bytes of one, and a value of one byte is 24 bytes in memory.
const MEMORY_PER_BYTE: usize = 300;

/// Memory for the text of a numeric, which may have 131,072 digits before the point whatever the size of its bytes.
const MEMORY_OF_NUMERIC: usize = 4 << 20;

/// Takes chunks as samples.
struct Taken(Vec<Vec<u8>>);

impl ChunkWriter for Taken {
    fn put(&mut self, _address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        self.0.push(bytes.to_vec());
        Ok(())
    }
}

fn sample_row(n: i64) -> Row {
    if n % 7 == 0 {
        return vec![Value::Null; 8];
    }
    vec![
        Value::Bool(n % 2 == 0),
        Value::Int2(n as i16),
        Value::Int4(n as i32),
        Value::Int8(n << 20),
        Value::Float4(n as f32),
        Value::Float8(n as f64 / 3.0),
        Value::Uuid([n as u8; 16]),
        Value::bytes(vec![b'x'; (n % 40) as usize]),
    ]
}

/// Texts of values of each type, by the numbers of [`data_type`].
const TEXTS: [&str; 24] = [
    "true",
    "-7",
    "123456",
    "-12345678901",
    "42",
    "1.5",
    "-2.5e10",
    "-12345.6700",
    "$1,234.50",
    "text\u{e4}",
    "char",
    "\\x00ff00",
    "2026-11-21",
    "12:34:56.789",
    "12:34:56+02",
    "2026-11-21 12:34:56",
    "2026-11-21 12:34:56+01",
    "1 year 2 mons 3 days 04:05:06.7",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "{\"a\": [1, 2]}",
    "{\"a\": [1, {\"b\": null}]}",
    "16/B374D848",
    "{1,2,NULL}",
    "label",
];

/// Bytes that the store has written, for each decoder.
fn samples() -> Vec<(Decoder, Vec<u8>)> {
    let mut samples = Vec::new();
    let (disk, _) = history(1 << 12, 40);
    let mut next = 0;
    for name in (1..).map(|n| format!("journal/{n:08}.seg")) {
        let Some(segment) = disk.file(&name) else { break };
        if next == 0 {
            samples.push((Decoder::Segment, segment.clone()));
        }
        scan(&segment, &mut next, |offset, header, payload| {
            samples.push((Decoder::Frame, segment[offset as usize..offset as usize + header.frame_size()].to_vec()));
            let body = header.body(payload).unwrap();
            match header.kind {
                FrameKind::Log => {
                    if header.packed {
                        let head = [&header.record_count.to_le_bytes()[..], &header.raw_size.to_le_bytes()].concat();
                        samples.push((Decoder::PackedRecords, [head, header.packed_body(payload).unwrap()].concat()));
                    }
                    let frame = LogFrame::decode(header.sequence, header.record_count, body.clone()).unwrap();
                    samples.push((Decoder::LogFrame, [&header.record_count.to_le_bytes()[..], &body].concat()));
                    for (_, record) in frame.iter() {
                        samples.push((Decoder::Record, record.to_vec()));
                        if let Some(commit) = commit_bytes(&record).unwrap() {
                            samples.push((Decoder::ChangeSet, commit[Header::decode(&commit).unwrap().inline_at..].to_vec()));
                            samples.push((Decoder::Commit, commit.to_vec()));
                        }
                    }
                }
                FrameKind::Chunk if body[0] == b'{' => samples.push((Decoder::CatalogObject, body)),
                FrameKind::Chunk if body[0] == 0x52 => samples.push((Decoder::Root, body)),
                _ => {}
            }
            Ok::<(), Error>(())
        })
        .unwrap();
    }
    let mut tree = Tree::new(leaf_layout(), None);
    for n in 0..3000i64 {
        assert!(tree.insert(format!("key {n:05}").as_bytes(), &sample_row(n)).unwrap());
    }
    samples.push((Decoder::SealedCommits, crate::commit_index::sample_rows()));
    let mut taken = Taken(Vec::new());
    tree.write(&mut taken).unwrap();
    let nodes = taken.0.into_iter().map(|bytes| (if bytes[0] == 0 { Decoder::Leaf } else { Decoder::InnerNode }, bytes));
    samples.extend(nodes);
    for n in 1..10 {
        let mut bytes = Vec::new();
        put_row(&mut bytes, &sample_row(n));
        samples.push((Decoder::Row, bytes));
    }
    for (number, text) in (0u8..).zip(TEXTS) {
        let data_type = data_type(number);
        let value = data_type.parse(text, &TextSettings::default()).unwrap();
        for flags in [0, 64, 128] {
            let mut key = vec![number | flags];
            encode_key(&mut key, &value, &data_type, flags & 64 != 0, flags & 128 != 0);
            samples.push((Decoder::Key, key));
        }
        if let Value::Bytes(bytes) = &value {
            samples.push((Decoder::Value, [&[number][..], bytes].concat()));
        }
    }
    let mut block = 120u16.to_le_bytes().to_vec();
    for n in 0..120u64 {
        put_varint(&mut block, n % 3 * 1000);
        put_varint(&mut block, n);
    }
    samples.push((Decoder::RowIndexBlock, block));
    samples
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len().max(1));
        match random.random_range(0..8) {
            _ if bytes.is_empty() => bytes.push(random.random()),
            0 | 1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.random()),
            5 => {
                // A number of four bytes that is too large, or just so.
                let number = [u32::MAX, i32::MAX as u32, 1 << 26, bytes.len() as u32][random.random_range(0..4)].to_le_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            6 => {
                let end = random.random_range(at..bytes.len().min(at + 64) + 1);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let from = random.random_range(0..other.len() + 1);
                let to = random.random_range(from..other.len().min(from + 64) + 1);
                let end = bytes.len().min(at + to - from);
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}

/// Writes samples for the fuzz targets to begin with, in folders of the targets' names.
fn write_samples(folder: &Path, samples: &[(Decoder, Vec<u8>)]) {
    for (n, (decoder, bytes)) in samples.iter().enumerate() {
        let mut target = String::new();
        for c in format!("{decoder:?}").chars() {
            if c.is_uppercase() && !target.is_empty() {
                target.push('_');
            }
            target.extend(c.to_lowercase());
        }
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("sample-{n}")), bytes).unwrap();
    }
}

#[test]
fn mutated_bytes_of_every_kind_neither_panic_nor_take_memory() {
    let executions: u64 = match std::env::var("STRANDLINE_TEST_SCALE") {
        Ok(scale) if scale == "full" => 10_000_000,
        Ok(scale) => scale.parse().unwrap_or(2000),
        Err(_) => 2000,
    };
    let seed = std::env::var("STRANDLINE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let samples = samples();
    if let Ok(folder) = std::env::var("STRANDLINE_FUZZ_SAMPLES") {
        write_samples(Path::new(&folder), &samples);
    }
    for decoder in DECODERS {
        let own: Vec<&Vec<u8>> = samples.iter().filter(|(d, _)| *d == decoder).map(|(_, bytes)| bytes).collect();
        assert!(!own.is_empty(), "{decoder:?}");
        // Catalog objects and the nodes below are in other chunks.
        let alone = !matches!(decoder, Decoder::Root | Decoder::InnerNode | Decoder::Segment);
        assert!(!alone || own.iter().all(|bytes| decode(decoder, bytes)), "{decoder:?}");
        let (mut random, mut accepted) = (StdRng::seed_from_u64(seed), 0u64);
        for n in 0..executions {
            let mut bytes = own[random.random_range(0..own.len())].clone();
            let other = own[random.random_range(0..own.len())];
            mutate(&mut bytes, other, &mut random);
            let has_numeric = matches!(decoder, Decoder::Key | Decoder::Value);
            let allowed = MEMORY_ALWAYS + MEMORY_PER_BYTE * bytes.len() + if has_numeric { MEMORY_OF_NUMERIC } else { 0 };
            let peak = std::panic::catch_unwind(|| peak_of(decoder, &bytes));
            let peak = peak.unwrap_or_else(|_| panic!("{decoder:?} panics, seed {seed}, execution {n}: {bytes:02x?}"));
            assert!(peak <= allowed, "{decoder:?} takes {peak} bytes for {}, seed {seed}, execution {n}: {bytes:02x?}", bytes.len());
            accepted += u64::from(n % 16 == 0 && decode(decoder, &bytes));
        }
        println!("{decoder:?}: {executions} executions on {} samples, {accepted} of {} accepted", own.len(), executions.div_ceil(16));
    }
}
