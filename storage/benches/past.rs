//! Whole tables of the past: differences between far commits, and scans of old ones.
//!
//! 1. A table of `STRANDLINE_BENCH_ROWS` rows of 100 bytes (10,000,000) is built from sorted input; then 1, 1,000 and 100,000 of its rows
//!    change, in a hundred commits each time, with a checkpoint behind. The differences between those commits are read from their
//!    trees: once with both in memory, and once each in a store that was just opened.
//! 2. pgbench's tables with `STRANDLINE_BENCH_ACCOUNTS` accounts (1,000,000) and `STRANDLINE_BENCH_COMMITS` transactions (1,000,000): the
//!    accounts are scanned at the head and at random commits, where the table has to be made first, each in a store just opened.
//! 3. The same commits, where the whole root value is made before the accounts are scanned.
//!
//! `-- differences`, `-- scans` or `-- roots` asks for one of the three. With `STRANDLINE_BENCH_FOLDER` the stores are made there unless they
//! are there already, and stay: two versions of the code can be asked about the same ones.
//!
//! `STRANDLINE_BENCH_CACHE_MIB` limits the bytes of nodes in memory (2048). CPU times can be compared on a machine that has other work,
//! elapsed ones on one that has none (of which a virtual machine's host is to be asked, too); what is read comes from the operating system's cache.

#[path = "pgbench/cpu.rs"]
mod cpu;
mod pgbench;

use std::ops::Bound;
use std::path::{Path, PathBuf};
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

/// Milliseconds: passed, of this thread's CPU, of all threads' CPU.
#[derive(Clone, Copy, Default)]
struct Times([f64; 3]);

impl Times {
    fn now() -> Times {
        let clock = |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the call writes to the structure that it is given, and to nothing else.
            let failed = unsafe { libc::clock_gettime(clock, &mut time) } != 0;
            assert!(!failed, "a clock is missing");
            time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
        };
        Times([libc::CLOCK_MONOTONIC, libc::CLOCK_THREAD_CPUTIME_ID, libc::CLOCK_PROCESS_CPUTIME_ID].map(clock))
    }

    fn since(self) -> Times {
        let now = Times::now();
        Times([0, 1, 2].map(|i| now.0[i] - self.0[i]))
    }
}

/// A folder for a store that is removed afterwards, or one that stays; says whether the store is there.
fn folder(name: &str) -> Outcome<(PathBuf, Option<tempfile::TempDir>, bool)> {
    match std::env::var_os("STRANDLINE_BENCH_FOLDER") {
        Some(parent) => {
            let path = Path::new(&parent).join(name);
            let is_made = path.join("made").exists();
            if !is_made && path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            std::fs::create_dir_all(&path)?;
            Ok((path, None, is_made))
        }
        None => {
            let folder = tempfile::tempdir()?;
            Ok((folder.path().into(), Some(folder), false))
        }
    }
}

fn main() -> Outcome<()> {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if part.as_deref().is_none_or(|part| part == "differences") {
        differences()?;
    }
    if part.as_deref().is_none_or(|part| part == "scans") {
        scans(false)?;
    }
    if part.as_deref().is_none_or(|part| part == "roots") {
        scans(true)?;
    }
    Ok(())
}

/// Builds the table and changes its rows.
fn make_changes(path: &Path, rows: u64) -> Outcome<()> {
    let store = open(path)?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    let started = Times::now();
    build(&branch, rows)?;
    let own = started.since().0[1] / 1e3;
    store.sync()?;
    println!(
        "bulk build from {rows} sorted rows of 100 bytes, rows/s of one core: {:.0} by the building thread, {:.0} by all until it is durable",
        rows as f64 / own,
        rows as f64 / (started.since().0[2] / 1e3)
    );
    store.checkpoint()?;
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
    }
    store.close()?;
    Ok(std::fs::write(path.join("made"), "")?)
}

fn differences() -> Outcome<()> {
    let rows = setting("STRANDLINE_BENCH_ROWS", 10_000_000);
    let (path, _folder, is_made) = folder("differences")?;
    if !is_made {
        make_changes(&path, rows)?;
    }
    let counts = DIFFERENCES.map(|count| count.min(rows));
    let store = open(&path)?;
    // Before the first changes, and after each of the three kinds.
    let mut commits = vec![store.branch("postgres", "main")?.state().head];
    for count in counts.into_iter().rev() {
        let before = store.ancestor(commits[0], COMMIT_COUNT.min(count))?.ok_or("no such commit")?;
        commits.insert(0, before);
    }
    println!("ms to find so many rows of all: passed, asking thread, all threads");
    println!("{:<40} {:>24} {:>24} {:>24}", "", "1", "1,000", "100,000");
    let mut lines = [[Times::default(); 3]; 3];
    for (i, count) in counts.into_iter().enumerate() {
        let (from, to) = (store.root(commits[i])?, store.root(commits[i + 1])?);
        difference(&from, &to, count)?;
        lines[0][i] = difference(&from, &to, count)?;
    }
    store.close()?;
    drop(store);
    for (i, count) in counts.into_iter().enumerate() {
        let store = open(&path)?;
        let started = Times::now();
        let (from, to) = (store.root(commits[i])?, store.root(commits[i + 1])?);
        lines[1][i] = started.since();
        lines[2][i] = difference(&from, &to, count)?;
        drop((from, to));
        store.close()?;
    }
    for (what, line) in ["both in memory", "just opened: the root values", "just opened: the difference"].iter().zip(lines) {
        let cells = line.map(|Times([passed, own, all])| format!("{passed:.2} {own:.2} {all:.2}"));
        println!("{what:<40} {:>24} {:>24} {:>24}", cells[0], cells[1], cells[2]);
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

fn difference(from: &Root, to: &Root, expected: u64) -> Outcome<Times> {
    let started = Times::now();
    let mut count = 0;
    for row in diff_tables(from.table(BIG).map(|table| &**table), to.table(BIG).map(|table| &**table)) {
        row?;
        count += 1;
    }
    let time = started.since();
    if count != expected {
        return Err(format!("{count} differences instead of {expected}").into());
    }
    Ok(time)
}

fn make_history(path: &Path, accounts: i32, commits: u64) -> Outcome<()> {
    let store = open(path)?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut random = Random::new();
    for n in 1..=commits {
        let random = random.next();
        transact(&branch, n, ((random >> 33) % accounts as u64) as i32, random)?;
    }
    store.close()?;
    Ok(std::fs::write(path.join("made"), "")?)
}

/// `roots`: of whole root values.
fn scans(roots: bool) -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 1_000_000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let (path, _folder, is_made) = folder("scans")?;
    if !is_made {
        make_history(&path, accounts, commits)?;
    }
    let mut store = open(&path)?;
    let head = store.branch("postgres", "main")?.state().head;
    let (_, head_cold) = scan(&store, head, roots)?;
    let (_, head_warm) = scan(&store, head, roots)?;
    let (mut times, mut random) = (Vec::new(), Random::new());
    let (stolen, started) = (cpu::stolen_ms(), Times::now());
    for _ in 0..SCAN_COUNT {
        let n = 1 + (random.next() >> 33) % commits;
        let id = store.ancestor(head, commits - n)?.ok_or("no such commit")?;
        let expected = store.commit_at_lsn(head, meta(n).source.ok_or("no source")?.commit_lsn)?;
        if expected != Some(id) {
            return Err("another commit than expected".into());
        }
        // Nothing is at hand of what the commit before needed.
        drop(store);
        store = open(&path)?;
        times.push(scan(&store, id, roots)?);
    }
    let (stolen, Times([passed, ..])) = (cpu::stolen_ms() - stolen, started.since());
    let what = if roots { "whole root values, " } else { "" };
    println!("{what}{accounts} accounts at {SCAN_COUNT} of {commits} commits, ms: passed, asking thread, all threads");
    println!("{:<30} {:>24} {:>24}", "", "median", "largest");
    let mut line = |what: &str, time: &dyn Fn(&(Times, Times)) -> Times| {
        let all = [0, 1, 2].map(|i| {
            times.sort_by(|a, b| time(a).0[i].total_cmp(&time(b).0[i]));
            (time(&times[times.len() / 2]).0[i], times.last().map_or(0.0, |last| time(last).0[i]))
        });
        let [(a, x), (b, y), (c, z)] = all;
        println!("{what:<30} {:>24} {:>24}", format!("{a:.0} {b:.0} {c:.0}"), format!("{x:.0} {y:.0} {z:.0}"));
    };
    line("making the table", &|times| times.0);
    line("making it and scanning", &|times| times.1);
    for (what, Times([passed, own, all])) in [("scanning the head, just opened", head_cold), ("scanning the head", head_warm)] {
        println!("{what:<30} {:>24}", format!("{passed:.0} {own:.0} {all:.0}"));
    }
    println!("time that the host gave to others: {stolen:.0} ms of {passed:.0}");
    store.close()?;
    Ok(())
}

/// Times of making the root value, and of that and reading all of a column.
fn scan(store: &Store, id: CommitId, root: bool) -> Outcome<(Times, Times)> {
    let started = Times::now();
    // As a query finds a table AS OF a commit.
    let find = || store.table_at(id, &|catalog| catalog.relation("public", "accounts").map(|table| table.oid()));
    let table = match if root { None } else { find()? } {
        Some(table) => Arc::clone(table.rows()?),
        None => Arc::clone(store.root(id)?.table(ACCOUNTS).ok_or("no table")?),
    };
    let made = started.since();
    let mut cursor = table.scan((Bound::Unbounded, Bound::Unbounded), false);
    let mut sum = 0i64;
    while let Some(rows) = cursor.next_leaf()? {
        let ColumnView::Fixed { data, .. } = rows.leaf.column(2) else { return Err("not a number".into()) };
        sum += data.as_chunks::<4>().0.iter().map(|value| i64::from(i32::from_le_bytes(*value))).sum::<i64>();
    }
    std::hint::black_box(sum);
    Ok((made, started.since()))
}
