use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::change_set::{CatalogChange, ChangeSet, RowChange, RowChangeKind, RowsChange, TableChange};
use crate::chunk::MemoryChunks;
use crate::commit::{self, CommitMeta, Identity, Source};
use crate::encoding::put_bytes;
use crate::id::{ChunkAddress, Lsn, Timestamp};
use crate::key_bytes::KeyBytes;
use crate::record::{CommitMode, Record, StoredChangeSet, begin_commit};
use crate::schema::{Catalog, Oid};
use crate::table::row_hash;
use crate::value::{Row, Value};

/// A frame's body under construction.
#[derive(Default)]
struct Frame {
    body: Vec<u8>,
    commits: Vec<FrameCommit>,
    count: u16,
    head: Option<CommitId>,
}

impl Frame {
    fn push(&mut self, record: &[u8]) {
        put_bytes(&mut self.body, record);
        self.count += 1;
    }

    /// A commit on the one before.
    fn commit(&mut self, n: u64, meta: &CommitMeta, changes: &ChangeSet) {
        let mut record = Vec::new();
        begin_commit(&mut record, 2, CommitMode::Follow);
        let start = record.len();
        let parents: Vec<_> = self.head.into_iter().collect();
        commit::encode(&mut record, &parents, n, meta, changes, &mut &MemoryChunks::default()).unwrap();
        let id = CommitId::of(&record[start..]);
        self.head = Some(id);
        self.commits.push((u32::from(self.count), id));
        self.push(&record);
    }

    /// Packs, unpacks, compares; returns the stored size.
    fn check(&self) -> usize {
        let packed = pack(&self.body, self.count, &self.commits).expect("the frame is not packed");
        assert_eq!(unpack(&packed, self.count, self.body.len()).as_ref(), Ok(&self.body));
        self.check_without_ids(&packed);
        lz4_flex::block::compress(&packed).len()
    }
}

impl Frame {
    /// Reads without ids, all records or each by itself, and puts the ids in.
    fn check_without_ids(&self, packed: &[u8]) {
        let (body, holes) = unpack_without_ids(packed, self.count, self.body.len()).unwrap();
        let (mut whole, mut without) = (ByteReader::new(&self.body), ByteReader::new(&body));
        for (index, hole) in (0..self.count).zip(holes) {
            let before = self.commits.iter().rev().find(|(n, _)| *n < u32::from(index)).map(|(_, id)| *id);
            let fill = |mut record: Vec<u8>, hole: u32| {
                if hole > 0 {
                    record[hole as usize..][..32].copy_from_slice(&before.unwrap().0);
                }
                record
            };
            let record = whole.bytes().unwrap();
            assert_eq!(fill(without.bytes().unwrap().to_vec(), hole), record, "{index}");
            let (alone, its_hole) = unpack_record(packed, self.count, self.body.len(), index).unwrap();
            assert_eq!((fill(alone, its_hole), its_hole), (record.to_vec(), hole), "{index}");
        }
        assert!(unpack_record(packed, self.count, self.body.len(), self.count).is_err());
    }
}

fn meta(n: u64) -> CommitMeta {
    let author = Identity { name: "postgres".into(), email: "postgres@primary".into() };
    let (xid, commit_lsn) = (n as u32 + 700, Lsn(0xFFFF_FE00 + n * 536));
    let source = Source {
        end_lsn: Lsn(commit_lsn.0 + 48),
        commit_lsn,
        xid,
        commit_time: Timestamp(1_000_000 + n as i64 * 37),
        origin: None,
        context: (n % 50 == 7).then(|| format!("{{\"user\": {n}}}")),
        // A second subscription into the same branch.
        subscription: if n % 10 == 3 { 16_500 } else { 0 },
    };
    CommitMeta {
        committer: author.clone(),
        author,
        author_time: source.commit_time,
        commit_time: Timestamp(2_000_000 + n as i64 * 41),
        message: format!("replicated transaction {xid} at {commit_lsn}"),
        source: Some(source),
    }
}

fn int_key(n: i32) -> KeyBytes {
    [&[1][..], &(n ^ i32::MIN).to_be_bytes()].concat().into()
}

fn keyless(row: Row) -> RowChange {
    let key = [&row_hash(&row)[..], &3u32.to_be_bytes()].concat().into();
    RowChange { key, kind: RowChangeKind::Inserted { new: row } }
}

fn rows(table: Oid, rows: Vec<RowChange>) -> TableChange {
    TableChange { table, rows: RowsChange::Rows(rows) }
}

/// What pgbench does: three balances change, a row is added.
fn transaction(random: &mut StdRng, tellers: &mut [i32; 10]) -> ChangeSet {
    let (aid, tid, delta) = (random.random_range(0..1_000_000), random.random_range(0..10), random.random_range(-5000..5000));
    let balance = |id: i32, old: i32| RowChange {
        key: int_key(id),
        kind: RowChangeKind::Updated { columns: vec![(2, Value::Int4(old), Value::Int4(old + delta))] },
    };
    let old = tellers[tid as usize];
    tellers[tid as usize] += delta;
    let history = vec![Value::Int4(tid), Value::Int4(1), Value::Int4(aid), Value::Int4(delta), Value::Int8(random.random()), Value::Null];
    let tables = vec![
        rows(16400, vec![balance(aid, random.random_range(-5000..5000))]),
        rows(16410, vec![balance(tid, old)]),
        rows(16430, vec![keyless(history)]),
    ];
    ChangeSet { catalog: vec![], tables }
}

#[test]
fn commits_like_their_predecessors_take_a_fraction_of_their_bytes() {
    let (mut random, mut tellers, mut frame) = (StdRng::seed_from_u64(1), [0; 10], Frame::default());
    for n in 0..200 {
        frame.commit(n + 1, &meta(n), &transaction(&mut random, &mut tellers));
    }
    let size = frame.check();
    assert!(size * 5 < frame.body.len(), "{size} of {}", frame.body.len());
}

#[test]
fn records_of_every_kind_come_back_among_commits() {
    let mut frame = Frame::default();
    let catalog = Catalog::initial("postgres");
    let object = catalog.objects.first_key_value().unwrap().1.clone();
    let definition = ChangeSet {
        catalog: vec![CatalogChange { oid: object.oid(), object: Some(object) }, CatalogChange { oid: 20_000, object: None }],
        tables: vec![
            TableChange { table: 1, rows: RowsChange::Replaced { rows: Some(ChunkAddress([9; 32])) } },
            TableChange { table: 2, rows: RowsChange::Replaced { rows: None } },
            TableChange { table: 3, rows: RowsChange::Dropped },
        ],
    };
    let local = CommitMeta { message: "\u{1}\u{2} and 700".into(), source: None, ..meta(0) };
    let many = (0..20_000).map(|n| RowChange { key: int_key(n), kind: RowChangeKind::Deleted { old: vec![Value::bytes([b'x'; 100])] } });
    let mut inline = Vec::new();
    transaction(&mut StdRng::seed_from_u64(1), &mut [0; 10]).encode(&mut inline);
    frame.push(&Record::DatabaseDropped { database: 7 }.encode());
    frame.commit(1, &meta(1), &definition);
    frame.commit(2, &local, &ChangeSet::default());
    frame.push(&Record::Working { branch: 1, applied: Lsn(5), changes: StoredChangeSet::Inline(inline.into()) }.encode());
    // Its change set is in chunks.
    frame.commit(3, &meta(3), &ChangeSet { catalog: vec![], tables: vec![rows(4, many.collect())] });
    frame.push(&[]);
    // Not on the commit before.
    frame.head = Some(CommitId([3; 32]));
    frame.commit(9, &meta(4), &ChangeSet::default());
    frame.commit(10, &CommitMeta { committer: Identity::default(), message: String::new(), ..meta(5) }, &ChangeSet::default());
    frame.check();
    // Where ids are not known, parents are stored.
    frame.commits.clear();
    frame.check();
}

fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => Value::Bool(random.random()),
        2 => Value::Int2(random.random()),
        3 => Value::Int4(random.random()),
        4 => Value::Int4(random.random_range(0..3)),
        5 => Value::Int8(random.random()),
        6 => Value::Float4(random.random()),
        7 => Value::Float8(random.random()),
        8 => Value::Uuid(random.random()),
        9 => Value::bytes(vec![b'z'; random.random_range(0..400)]),
        10 => Value::Int8([i64::MIN, i64::MAX, -1][random.random_range(0..3)]),
        _ => Value::bytes(random.random_range(0..1000u32).to_string()),
    }
}

fn change(random: &mut StdRng) -> RowChange {
    let row = |random: &mut StdRng| (0..random.random_range(0..5)).map(|_| value(random)).collect::<Row>();
    let key = match random.random_range(0..4) {
        0 => int_key(random.random_range(0..5)),
        1 => [&[1][..], &random.random::<i64>().to_be_bytes()].concat().into(),
        2 => vec![7; random.random_range(0..30)].into(),
        _ => return keyless(row(random)),
    };
    let kind = match random.random_range(0..3) {
        0 => RowChangeKind::Inserted { new: row(random) },
        1 => RowChangeKind::Deleted { old: row(random) },
        _ => RowChangeKind::Updated { columns: (0..random.random_range(0..4)).map(|n| (n * 3, value(random), value(random))).collect() },
    };
    RowChange { key, kind }
}

#[test]
fn any_change_sets_come_back() {
    for seed in 0..60 {
        let (mut random, mut frame) = (StdRng::seed_from_u64(seed), Frame::default());
        for n in 0..random.random_range(1..30) {
            let tables =
                (0..random.random_range(0..3)).map(|t| rows(t, (0..random.random_range(0..4)).map(|_| change(&mut random)).collect()));
            let changes = ChangeSet { catalog: vec![], tables: tables.collect() };
            frame.commit(random.random(), &meta(n), &changes);
            if random.random_range(0..10) == 0 {
                frame.commits.pop();
            }
        }
        frame.check();
    }
}

#[test]
fn numbers_longer_than_need_be_are_not_packed() {
    let mut frame = Frame::default();
    frame.commit(1, &meta(1), &ChangeSet::default());
    let mut record = ByteReader::new(&frame.body).bytes().unwrap().to_vec();
    // The branch's number, 2, in two bytes.
    record.splice(1..2, [0x82, 0]);
    let mut other = Frame::default();
    other.push(&record);
    assert!(pack(&other.body, 1, &[]).is_none());
}

#[test]
fn packed_records_cut_short_or_of_another_size_are_malformed() {
    let (mut random, mut tellers, mut frame) = (StdRng::seed_from_u64(1), [0; 10], Frame::default());
    for n in 0..3 {
        frame.commit(n + 1, &meta(n), &transaction(&mut random, &mut tellers));
    }
    let packed = pack(&frame.body, frame.count, &frame.commits).unwrap();
    for size in 0..packed.len() {
        assert!(unpack(&packed[..size], frame.count, frame.body.len()).is_err(), "{size}");
    }
    for size in [0, frame.body.len() - 1, frame.body.len() + 1, usize::MAX] {
        assert!(unpack(&packed, frame.count, size).is_err());
    }
    assert!(unpack(&packed, frame.count + 1, frame.body.len()).is_err());
    assert!(unpack(&packed, frame.count - 1, frame.body.len()).is_err());
}
