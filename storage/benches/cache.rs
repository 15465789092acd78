//! A table several times as large as the memory that nodes may take: loading it, reading it, changing it, and what it needs.
//!
//! `STRANDLINE_BENCH_ROWS` (2,000,000 rows of about 100 bytes), `STRANDLINE_BENCH_CACHE_MIB` (64) and
//! `STRANDLINE_BENCH_OPERATIONS` (100,000) set the size; the design note's figures are of 20,000,000 rows and 512 MiB. Prints
//! for each step its speed, the largest number of bytes that nodes took, and the largest resident set of the process (the journal's
//! index and what the load holds at a time are in that, too).

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strandline_storage::commit::CommitMeta;
use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID, TableSchema};
use strandline_storage::tree::ColumnView;
use strandline_storage::value::{DataType, Kind};
use strandline_storage::{Oid, Store, StoreOptions, Value};

/// The server's: what a resident set is depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TABLE: Oid = 16400;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn schema() -> TableSchema {
    let column = |attnum: i16, name: &str, kind: Kind, oid: Oid, type_name: &str| Column {
        name: name.into(),
        attnum,
        data_type: DataType { oid, typmod: -1, name: type_name.into(), kind, element: None },
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    };
    let primary_key = Index {
        oid: TABLE + 1,
        name: "accounts_pkey".into(),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false }],
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    };
    TableSchema {
        oid: TABLE,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: "accounts".into(),
        owner: "postgres".into(),
        columns: vec![
            column(1, "aid", Kind::Int4, 23, "int4"),
            column(2, "bid", Kind::Int4, 23, "int4"),
            column(3, "abalance", Kind::Int4, 23, "int4"),
            column(4, "filler", Kind::Bpchar, 1042, "bpchar"),
        ],
        next_attnum: 5,
        primary_key: Some(primary_key),
        indexes: vec![],
        constraints: vec![],
        merged_columns: vec![],
        comment: None,
    }
}

/// A filler that lz4 does not make disappear.
fn row(id: i32) -> Vec<Value> {
    let mut random = Random(id as u64 + 1);
    let filler: Vec<u8> = (0..84).map(|_| b'a' + (random.next() % 26) as u8).collect();
    vec![Value::Int4(id), Value::Int4(id / 100_000), Value::Int4(id % 1000), Value::bytes(filler)]
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// A line of `/proc/self/status`, in MiB.
fn status_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Looks at the bytes of nodes every millisecond while steps run.
struct Watch {
    largest: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start(store: Arc<Store>) -> Watch {
        let (largest, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (largest, ended) = (largest.clone(), ended.clone());
            move || {
                while !ended.load(Ordering::Relaxed) {
                    largest.fetch_max(store.cache_size(), Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        Watch { largest, ended, thread: Some(thread) }
    }

    fn step<T>(
        &self,
        what: &str,
        count: u64,
        run: impl FnOnce() -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, Box<dyn std::error::Error>> {
        self.largest.store(0, Ordering::Relaxed);
        // The kernel begins anew with the largest resident set.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let started = Instant::now();
        let result = run()?;
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{what:<32} {:>10.0}/s {seconds:>8.2} s   nodes {:>5} MiB   resident set {:>5} MiB",
            count as f64 / seconds,
            self.largest.load(Ordering::Relaxed) >> 20,
            status_mib("VmHWM")
        );
        Ok(result)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = setting("STRANDLINE_BENCH_ROWS", 2_000_000);
    let limit_mib = setting("STRANDLINE_BENCH_CACHE_MIB", 64);
    let operations = setting("STRANDLINE_BENCH_OPERATIONS", 100_000).min(rows);
    println!("{rows} rows, {limit_mib} MiB for nodes, {operations} operations");
    let folder = tempfile::tempdir()?;
    let options = StoreOptions { cache_size_max: limit_mib << 20, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options.clone())?;
    store.create_database("postgres", CommitMeta::default())?;
    run(&store, rows, operations)?;
    store.close()?;
    drop(store);
    reopen(folder.path(), options, rows, operations)
}

fn run(store: &Arc<Store>, rows: u64, operations: u64) -> Result<(), Box<dyn std::error::Error>> {
    let watch = Watch::start(store.clone());
    let branch = store.branch("postgres", "main")?;
    watch.step("load", rows, || {
        let mut load = branch.begin_apply(true)?;
        load.put_table(schema())?;
        load.replace_rows(TABLE, &mut (0..rows as i32).map(|id| Ok(row(id))))?;
        load.commit(CommitMeta::default())?;
        Ok(store.sync()?)
    })?;
    let sum = watch.step("scan", rows, || scan(store))?;
    let expected: i64 = (0..rows as i64).map(|id| id % 1000).sum();
    assert_eq!(sum, expected, "the scan's sum");
    reads(store, &watch, rows, operations)?;
    let mut latencies = Vec::with_capacity(operations as usize);
    watch.step("random updates, a commit each", operations, || {
        let mut random = Random(7);
        for n in 0..operations {
            let started = Instant::now();
            let mut apply = branch.begin_apply(false)?;
            let key = apply.root().table(TABLE).ok_or("no table")?.key_prefix(None, &[Value::Int4((random.next() % rows) as i32)])?;
            apply.update_columns(TABLE, &key, &[(2, Value::Int4(1_000_000 + n as i32))])?;
            apply.commit(CommitMeta::default())?;
            latencies.push(started.elapsed());
        }
        Ok(store.sync()?)
    })?;
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 1000).copied().unwrap_or_default();
    let longest = latencies.last().copied().unwrap_or_default();
    println!("  from its begin to its commit: p50 {:.0?}, p99 {:.0?}, p99.9 {:.0?}, longest {longest:.0?}", at(500), at(990), at(999));
    watch.step("checkpoint", 1, || Ok(store.checkpoint()?))?;
    watch.step("scan while updating", rows, || {
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| scan(store).map_err(|e| e.to_string()));
            let mut random = Random(8);
            while !reader.is_finished() {
                let mut apply = branch.begin_apply(false)?;
                let key = apply.root().table(TABLE).ok_or("no table")?.key_prefix(None, &[Value::Int4((random.next() % rows) as i32)])?;
                apply.update_columns(TABLE, &key, &[(2, Value::Int4(random.next() as i32))])?;
                apply.commit(CommitMeta::default())?;
            }
            reader.join().map_err(|_| "the reader panicked")??;
            Ok(())
        })
    })
}

fn scan(store: &Store) -> Result<i64, Box<dyn std::error::Error>> {
    let root = store.branch("postgres", "main")?.state().head_root;
    let mut cursor = root.table(TABLE).ok_or("no table")?.scan((Bound::Unbounded, Bound::Unbounded), false);
    let mut sum = 0;
    while let Some(rows) = cursor.next_leaf()? {
        let ColumnView::Fixed { data, .. } = rows.leaf.column(2) else { return Err("not a number".into()) };
        sum += data.as_chunks::<4>().0.iter().map(|value| i64::from(i32::from_le_bytes(*value))).sum::<i64>();
    }
    Ok(sum)
}

fn reads(store: &Store, watch: &Watch, rows: u64, operations: u64) -> Result<(), Box<dyn std::error::Error>> {
    watch.step("random point reads", operations, || {
        let root = store.branch("postgres", "main")?.state().head_root;
        let table = root.table(TABLE).ok_or("no table")?;
        let mut random = Random(3);
        for _ in 0..operations {
            let id = (random.next() % rows) as i32;
            let found = table.get(&table.key_prefix(None, &[Value::Int4(id)])?)?.ok_or("a row is missing")?;
            assert_eq!(found[0], Value::Int4(id));
        }
        Ok(())
    })
}

fn reopen(path: &Path, options: StoreOptions, rows: u64, operations: u64) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let store = Store::open(path, options)?;
    println!("open                             {:>20.2} s", started.elapsed().as_secs_f64());
    let watch = Watch::start(store.clone());
    reads(&store, &watch, rows, operations)?;
    watch.step("scan", rows, || scan(&store))?;
    drop(watch);
    store.close()?;
    Ok(())
}
