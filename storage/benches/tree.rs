//! What the tree's operations cost: nanoseconds of CPU time each, on a table like pgbench's accounts.
//!
//! `STRANDLINE_BENCH_ROWS` sets the number of rows (a million by default); `cargo bench -p strandline-storage --bench tree`.

use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use strandline_storage::chunk::MemoryChunks;
use strandline_storage::schema::{Catalog, Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID};
use strandline_storage::tree::{ColumnView, Tree};
use strandline_storage::{ChunkReader, DataType, Edit, Kind, Root, Row, TableData, TableSchema, Value};

const ACCOUNTS: u32 = 20_000;
const HISTORY: u32 = 20_001;

fn main() {
    let rows: u32 = std::env::var("STRANDLINE_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let operations = rows.clamp(1_000, 300_000);
    println!("{rows} rows, {operations} operations each");
    let mut random = Random(42);

    let mut edit = Edit::new(Root::new(Catalog::initial("bench")));
    edit.put_table(accounts(ACCOUNTS)).unwrap();
    edit.put_table(history(HISTORY)).unwrap();
    report("build from sorted rows", rows, || {
        edit.replace_rows(ACCOUNTS, &mut (0..rows).map(|n| Ok(account(2 * n)))).unwrap();
    });
    let root = edit.root_and_changes().0;
    let table = |root: &Root| -> TableData { TableData::clone(root.table(ACCOUNTS).unwrap()) };
    let keys = |random: &mut Random, count: u32| -> Vec<Vec<u8>> {
        let data = table(&root);
        (0..count).map(|_| data.row_key(&account(2 * random.below(rows)))).collect()
    };

    let some = keys(&mut random, operations);
    let data = table(&root);
    report("look up one row", operations, || some.iter().for_each(|key| drop(black_box(data.get(key).unwrap()))));
    report("look up one value", operations, || some.iter().for_each(|key| drop(black_box(data.rows().get_value(key, 2).unwrap()))));
    report("scan one column", rows, || {
        black_box(sum(data.rows(), 2));
    });
    drop(data);

    let mut tree = Some(take_rows(&root));
    let mut root = Some(root);
    root.take();
    let tree = tree.as_mut().expect("BUG: just made");
    let mut changed = Vec::new();
    report("update a column", operations, || {
        for (n, key) in some.iter().enumerate() {
            changed.clear();
            tree.update(key, &[(2, Value::Int4(n as i32))], &[], &mut changed).unwrap();
        }
    });
    report("update a column, a snapshot after each", operations, || {
        let mut snapshot = tree.clone();
        for (n, key) in some.iter().enumerate() {
            changed.clear();
            tree.update(key, &[(2, Value::Int4(!n as i32))], &[], &mut changed).unwrap();
            snapshot = tree.clone();
        }
        drop(snapshot);
    });
    report("append a row", operations, || {
        for n in 0..operations {
            tree.insert(&key_bytes(2 * rows + n), &account(n)).unwrap();
        }
    });
    report("insert a row at a random key", operations, || {
        for _ in 0..operations {
            tree.insert(&key_bytes(2 * random.below(rows) + 1), &account(1)).unwrap();
        }
    });
    report("delete a random row", operations, || {
        for _ in 0..operations {
            tree.delete(&key_bytes(2 * random.below(rows))).unwrap();
        }
    });
    let chunks = Arc::new(MemoryChunks::default());
    report("normalise, hash and write a row", rows, || {
        tree.write(&mut &*chunks).unwrap();
    });
    let before = tree.clone();
    for key in &some[..1000.min(some.len())] {
        tree.update(key, &[(2, Value::Int4(-5))], &[], &mut changed).unwrap();
    }
    report("find one of 1,000 differences", 1000, || {
        black_box(before.diff(tree).count());
    });
    drop(before);

    let mut edit = Edit::new(Root::new(Catalog::initial("bench")));
    edit.put_table(accounts(ACCOUNTS)).unwrap();
    edit.put_table(history(HISTORY)).unwrap();
    edit.replace_rows(ACCOUNTS, &mut (0..rows).map(|n| Ok(account(2 * n)))).unwrap();
    let mut root = Some(edit.root_and_changes().0);
    report("transaction of three updates and an insert, with its change set", operations, || {
        for n in 0..operations as usize {
            let mut edit = Edit::new(root.take().expect("BUG: always put back"));
            for i in 0..3 {
                let value = Value::Int4((n * 3 + i) as i32);
                edit.update_columns(ACCOUNTS, &some[(n + i * 7) % some.len()], &[(2, value)]).unwrap();
            }
            edit.insert(HISTORY, vec![Value::Int4(n as i32), Value::Int4(1), Value::Int8(n as i64), Value::Null]).unwrap();
            let (next, changes) = edit.root_and_changes();
            black_box(changes);
            root = Some(next);
        }
    });
    let root = root.expect("BUG: always put back");
    let mut snapshot = root.clone();
    let address = snapshot.write(&mut &*chunks).unwrap();
    let reader: Arc<dyn ChunkReader> = chunks;
    report("open a written root value and scan it cold, a row", rows, || {
        let root = Root::open(&address, reader.clone()).unwrap();
        black_box(sum(root.table(ACCOUNTS).unwrap().rows(), 2));
    });
}

/// The rows' tree as its only owner would have it.
fn take_rows(root: &Root) -> Tree {
    root.table(ACCOUNTS).unwrap().rows().clone()
}

fn sum(tree: &Tree, column: usize) -> i64 {
    let mut cursor = tree.scan((Bound::Unbounded, Bound::Unbounded), false);
    let mut sum = 0;
    while let Some(rows) = cursor.next_leaf().unwrap() {
        if let ColumnView::Fixed { data, .. } = rows.leaf.column(column) {
            sum += data.as_chunks::<4>().0[rows.start..rows.end].iter().map(|v| i64::from(i32::from_le_bytes(*v))).sum::<i64>();
        }
    }
    sum
}

fn report(what: &str, count: u32, run: impl FnOnce()) {
    let start = cpu_time_ns();
    run();
    println!("{:>8} ns  {what}", (cpu_time_ns() - start) / u64::from(count.max(1)));
}

/// CPU time of this process: a busy machine disturbs it less than the clock on the wall.
fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "no clock of CPU time");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(limit)) as u32
    }
}

fn key_bytes(n: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(8);
    let int4 = data_type(23, "int4", Kind::Int4);
    strandline_storage::value::key::encode_key(&mut key, &Value::Int4(n as i32), &int4, false, false);
    key
}

fn account(n: u32) -> Row {
    vec![Value::Int4(n as i32), Value::Int4(n as i32 / 100_000), Value::Int4(0), Value::bytes([b' '; 84])]
}

fn data_type(oid: u32, name: &str, kind: Kind) -> DataType {
    DataType { oid, typmod: -1, name: name.into(), kind, element: None }
}

fn column(attnum: i16, name: &str, data_type: DataType) -> Column {
    let name = name.to_string();
    Column { name, attnum, data_type, not_null: false, default: None, identity: None, generated: None, collation: None, comment: None }
}

fn accounts(oid: u32) -> TableSchema {
    let int4 = || data_type(23, "int4", Kind::Int4);
    let key = IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false };
    let primary_key = Index {
        oid: oid + 100,
        name: "accounts_pkey".into(),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![key],
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    };
    let filler = data_type(1042, "bpchar", Kind::Bpchar);
    let columns = vec![column(1, "aid", int4()), column(2, "bid", int4()), column(3, "abalance", int4()), column(4, "filler", filler)];
    TableSchema { primary_key: Some(primary_key), ..table(oid, "accounts", columns) }
}

fn history(oid: u32) -> TableSchema {
    let int4 = || data_type(23, "int4", Kind::Int4);
    let time = data_type(1114, "timestamp", Kind::Timestamp);
    let filler = data_type(1042, "bpchar", Kind::Bpchar);
    table(oid, "history", vec![column(1, "tid", int4()), column(2, "delta", int4()), column(3, "mtime", time), column(4, "filler", filler)])
}

fn table(oid: u32, name: &str, columns: Vec<Column>) -> TableSchema {
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "bench".into(),
        next_attnum: columns.len() as i16 + 1,
        columns,
        primary_key: None,
        indexes: vec![],
        constraints: vec![],
        merged_columns: Vec::new(),
        comment: None,
    }
}
