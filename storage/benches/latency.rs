//! How long commits take to be durable while segments fill and are sealed, checkpoints are made and space is given back.
//!
//! `STRANDLINE_BENCH_RATE` (500) commits a second, of 8 KiB each that do not compress, for `STRANDLINE_BENCH_SECONDS` (60): a segment
//! fills every 16 s. Each commit is waited for. In the second half of the time garbage is looked for and segments are rewritten, again
//! and again. Prints percentiles of all, of those within half a second after a segment began, and of those before and during that work.

mod pgbench;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strandline_storage::commit::CommitMeta;
use strandline_storage::store::GcMode;
use strandline_storage::{Store, StoreOptions, Value};

use pgbench::{ACCOUNTS, Outcome, Random, load, meta, setting};

const TEXT_SIZE: usize = 8 << 10;
const NEAR: Duration = Duration::from_millis(500);

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times.get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or_default();
    println!(
        "{what}: {} commits, p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, longest {:.2?}",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// Gives space back as long as commits go on, after a while; returns when it did, and how many bytes became how many.
fn collect(store: &Store, after: Duration, done: &AtomicBool) -> Outcome<(Vec<(Instant, Instant)>, u64, u64)> {
    let started = Instant::now();
    let (mut turns, mut before, mut left) = (Vec::new(), 0, 0);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(500).max(after.saturating_sub(started.elapsed())));
        let begun = Instant::now();
        let report = store.gc(GcMode::Normal)?;
        turns.push((begun, Instant::now()));
        before += report.size_before;
        left += report.size_after;
    }
    Ok((turns, before, left))
}

/// When each commit began and how long it took, and when segments began.
type Times = (Vec<(Instant, Duration)>, Vec<Instant>);

fn commit(store: &Store, journal: &Path, accounts: i32, rate: u64, seconds: u64) -> Outcome<Times> {
    let branch = store.branch("postgres", "main")?;
    let segment_count =
        || std::fs::read_dir(journal).map(|files| files.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "seg")).count());
    let (mut random, mut times) = (Random::new(), Vec::new());
    let (mut sealed_at, mut last_count) = (Vec::new(), segment_count()?);
    let started = Instant::now();
    for n in 1..=rate * seconds {
        let due = started + Duration::from_micros(n * 1_000_000 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let text: Vec<u8> = (0..TEXT_SIZE).map(|_| b' ' + (random.next() >> 33) as u8 % 95).collect();
        let begun = Instant::now();
        let mut apply = branch.begin_apply(false)?;
        let table = apply.root().table(ACCOUNTS).ok_or("no table")?;
        let key = table.key_prefix(None, &[Value::Int4((random.next() >> 33) as i32 % accounts)])?;
        apply.update_columns(ACCOUNTS, &key, &[(3, Value::bytes(text))])?;
        let (_, position) = apply.commit(meta(n))?;
        store.wait_durable(position)?;
        times.push((begun, begun.elapsed()));
        let count = segment_count()?;
        if count > last_count {
            last_count = count;
            sealed_at.push(begun);
        }
    }
    Ok((times, sealed_at))
}

fn main() -> Outcome<()> {
    let rate = setting("STRANDLINE_BENCH_RATE", 500);
    let seconds = setting("STRANDLINE_BENCH_SECONDS", 60);
    let accounts = 10_000;
    let folder = tempfile::tempdir()?;
    let options = StoreOptions { group_commit_ms_max: 5, auto_compaction: false, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options)?;
    store.create_database("postgres", CommitMeta::default())?;
    load(&store, &store.branch("postgres", "main")?, accounts)?;
    let journal = folder.path().join(".strandline/journal");
    let done = AtomicBool::new(false);
    let (committed, collected) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect(&store, Duration::from_secs(seconds / 2), &done).map_err(|error| error.to_string()));
        let committed = commit(&store, &journal, accounts, rate, seconds);
        done.store(true, Ordering::Relaxed);
        (committed, collector.join().map_err(|_| "the collector has panicked".to_owned()).flatten())
    });
    let (times, sealed_at) = committed?;
    let (turns, before, left) = collected?;
    let is_near = |at: &Instant| sealed_at.iter().any(|sealed| *at >= *sealed && *at - *sealed < NEAR);
    let is_during = |at: &Instant| turns.iter().any(|(begun, ended)| at >= begun && at <= ended);
    let is_before = |at: &Instant| turns.first().is_none_or(|(begun, _)| at < begun);
    let of = |is_meant: &dyn Fn(&Instant) -> bool| times.iter().filter(|(at, _)| is_meant(at)).map(|(_, time)| *time).collect();
    println!("{} segments began, {} ms between commits", sealed_at.len(), 1000 / rate);
    println!("space was given back {} times: {} MiB became {} MiB", turns.len(), before >> 20, left >> 20);
    print("all", of(&|_| true));
    print("after a segment began", of(&is_near));
    print("before space was given back", of(&is_before));
    print("while space was given back", of(&is_during));
    store.close()?;
    Ok(())
}
