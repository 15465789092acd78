//! Whole tables of the past: differences between far commits, and scans of old ones.
//!
//! 1. A table of `STRANDLINE_BENCH_ROWS` rows of 100 bytes (10,000,000) is built from sorted input; then 1, 1,000 and 100,000 of its rows
//!    change, in a hundred commits each time, with a checkpoint behind. The differences between those commits are read from their
//!    trees: once with both in memory, and once each in a store that was just opened.
//! 2. pgbench's tables with `STRANDLINE_BENCH_ACCOUNTS` accounts (1,000,000) and `STRANDLINE_BENCH_COMMITS` transactions (1,000,000): the
//!    accounts are scanned at random commits, each of whose root value has to be made first, and at the head.
//!
//! `STRANDLINE_BENCH_CACHE_MIB` limits the bytes of nodes in memory (2048). Times are of the asking thread's CPU, so that they
//! can be compared on a machine that has other work; what is read comes from the operating system's cache.

mod pgbench;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use strandline_storage::commit::CommitMeta;
use strandline_storage::diff::diff_tables;
use strandline_storage::tree::ColumnView;
use strandline_storage::{Branch, CommitId, Oid, Root, Store, StoreOptions, Value};

use pgbench::{ACCOUNTS, Outcome, Random, load, meta, setting, transact};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The differing rows, and how many commits make them.
const DIFFERENCES: [u64; 3] = [1, 1_000, 100_000];
const COMMIT_COUNT: u64 = 100;
const SCAN_COUNT: usize = 20;

fn open(path: &Path) -> Outcome<Arc<Store>> {
    let cache_size_max = setting("STRANDLINE_BENCH_CACHE_MIB", 2048) << 20;
    Ok(Store::open(path, StoreOptions { cache_size_max, ..StoreOptions::default() })?)
}

/// CPU time of this thread, of which nothing is spent while it waits.
struct Started(f64);

impl Started {
    fn now() -> Started {
        Started(Self::cpu_ms())
    }

    fn cpu_ms() -> f64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes to the structure that it is given, and to nothing else.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0;
        assert!(!failed, "no clock of a thread's CPU time");
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    }

    fn ms(&self) -> f64 {
        Self::cpu_ms() - self.0
    }
}

/// CPU seconds of all threads so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths on Linux.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() -> Outcome<()> {
    differences()?;
    scans()
}

fn differences() -> Outcome<()> {
    let rows = setting("STRANDLINE_BENCH_ROWS", 10_000_000);
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    let (started, cpu) = (Started::now(), cpu_seconds());
    build(&branch, rows)?;
    let own = started.ms() / 1e3;
    store.sync()?;
    println!(
        "bulk build from {rows} sorted rows of 100 bytes, rows/s of one core: {:.0} by the building thread, {:.0} by all until it is durable",
        rows as f64 / own,
        rows as f64 / (cpu_seconds() - cpu)
    );
    store.checkpoint()?;
    let mut commits = vec![branch.state().head];
    let mut random = Random::new();
    for count in DIFFERENCES.map(|count| count.min(rows)) {
        let ids: Vec<i32> = (0..count).map(|i| ((i * rows / count + (random.next() >> 33) % (rows / count)) % rows) as i32).collect();
        // In another order than that of the keys.
        for part in 0..COMMIT_COUNT.min(count) {
            let mut apply = branch.begin_apply(false)?;
            for id in ids.iter().skip(part as usize).step_by(COMMIT_COUNT as usize) {
                let key = apply.root().table(BIG).ok_or("no table")?.key_prefix(None, &[Value::Int4(*id)])?;
                apply.update_columns(BIG, &key, &[(2, Value::Int4(1_000_000 + count as i32))])?;
            }
            apply.commit(CommitMeta::default())?;
        }
        store.checkpoint()?;
        commits.push(branch.state().head);
    }
    println!("{:<40} {:>10} {:>10} {:>10}", "ms to find so many rows of all", "1", "1,000", "100,000");
    let mut lines = [[0.0; 3]; 3];
    for (i, count) in DIFFERENCES.into_iter().enumerate() {
        let (from, to) = (store.root(commits[i])?, store.root(commits[i + 1])?);
        difference(&from, &to, count.min(rows))?;
        lines[0][i] = difference(&from, &to, count.min(rows))?;
    }
    store.close()?;
    drop((branch, store));
    for (i, count) in DIFFERENCES.into_iter().enumerate() {
        let store = open(folder.path())?;
        let started = Started::now();
        let (from, to) = (store.root(commits[i])?, store.root(commits[i + 1])?);
        lines[1][i] = started.ms();
        lines[2][i] = difference(&from, &to, count.min(rows))?;
        drop((from, to));
        store.close()?;
    }
    for (what, line) in ["both in memory", "just opened: the root values", "just opened: the difference"].iter().zip(lines) {
        println!("{what:<40} {:>10.2} {:>10.2} {:>10.2}", line[0], line[1], line[2]);
    }
    Ok(())
}

const BIG: Oid = 16500;

/// A filler that lz4 does not make disappear.
fn build(branch: &Arc<Branch>, rows: u64) -> Outcome<()> {
    let mut load = branch.begin_apply(true)?;
    load.put_table(pgbench::accounts_table(BIG, "big"))?;
    let row = |id: u64| {
        let mut random = (id + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let filler: [u8; 84] = std::array::from_fn(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'a' + ((random >> 40) % 26) as u8
        });
        Ok(vec![Value::Int4(id as i32), Value::Int4(id as i32 / 100_000), Value::Int4(0), Value::bytes(filler)])
    };
    load.replace_rows(BIG, &mut (0..rows).map(row))?;
    load.commit(CommitMeta::default())?;
    Ok(())
}

fn difference(from: &Root, to: &Root, expected: u64) -> Outcome<f64> {
    let started = Started::now();
    let mut count = 0;
    for row in diff_tables(from.table(BIG).map(|table| &**table), to.table(BIG).map(|table| &**table)) {
        row?;
        count += 1;
    }
    let time = started.ms();
    if count != expected {
        return Err(format!("{count} differences instead of {expected}").into());
    }
    Ok(time)
}

fn scans() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 1_000_000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let folder = tempfile::tempdir()?;
    let store = open(folder.path())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut random = Random::new();
    for n in 1..=commits {
        let random = random.next();
        transact(&branch, n, ((random >> 33) % accounts as u64) as i32, random)?;
    }
    let head = branch.state().head;
    store.close()?;
    drop((branch, store));
    let store = open(folder.path())?;
    let (_, head_cold) = scan(&store, head)?;
    let (_, head_warm) = scan(&store, head)?;
    let mut times = Vec::new();
    for _ in 0..SCAN_COUNT {
        let n = 1 + (random.next() >> 33) % commits;
        let id = store.ancestor(head, commits - n)?.ok_or("no such commit")?;
        let expected = store.commit_at_lsn(head, meta(n).source.ok_or("no source")?.commit_lsn)?;
        if expected != Some(id) {
            return Err("another commit than expected".into());
        }
        times.push(scan(&store, id)?);
    }
    let mut line = |what: &str, time: &dyn Fn(&(f64, f64)) -> f64| {
        times.sort_by(|a, b| time(a).total_cmp(&time(b)));
        let all: Vec<f64> = times.iter().map(time).collect();
        println!("{what:<60} {:>8.0} {:>8.0}", all[all.len() / 2], all.last().copied().unwrap_or_default());
    };
    println!("{accounts} accounts at {SCAN_COUNT} of {commits} commits, ms{:>26} {:>8}", "median", "largest");
    line("making the root value", &|times| times.0);
    line("making it and scanning", &|times| times.1);
    println!("{:<60} {head_cold:>8.0}", "scanning the head, just opened");
    println!("{:<60} {head_warm:>8.0}", "scanning the head");
    store.close()?;
    Ok(())
}

/// Times of making the root value, and of that and reading all of a column, in ms.
fn scan(store: &Store, id: CommitId) -> Outcome<(f64, f64)> {
    let started = Started::now();
    let root = store.root(id)?;
    let made = started.ms();
    let mut cursor = root.table(ACCOUNTS).ok_or("no table")?.scan((Bound::Unbounded, Bound::Unbounded), false);
    let mut sum = 0i64;
    while let Some(rows) = cursor.next_leaf()? {
        let ColumnView::Fixed { data, .. } = rows.leaf.column(2) else { return Err("not a number".into()) };
        sum += data.as_chunks::<4>().0.iter().map(|value| i64::from(i32::from_le_bytes(*value))).sum::<i64>();
    }
    std::hint::black_box(sum);
    Ok((made, started.ms()))
}
