//! How long commits take to be durable while segments fill and are sealed and checkpoints are made.
//!
//! `STRANDLINE_BENCH_RATE` (500) commits a second, of 8 KiB each that do not compress, for `STRANDLINE_BENCH_SECONDS` (60): a segment
//! fills every 16 s. Each commit is waited for. Prints percentiles of all, and of those within half a second after a segment began.

mod pgbench;

use std::time::{Duration, Instant};

use strandline_storage::commit::CommitMeta;
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

fn main() -> Outcome<()> {
    let rate = setting("STRANDLINE_BENCH_RATE", 500);
    let seconds = setting("STRANDLINE_BENCH_SECONDS", 60);
    let accounts = 10_000;
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions { group_commit_ms_max: 5, ..StoreOptions::default() })?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let journal = folder.path().join(".strandline/journal");
    let segment_count =
        || std::fs::read_dir(&journal).map(|files| files.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "seg")).count());
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
            (last_count, sealed_at) = (count, [sealed_at, vec![begun]].concat());
        }
    }
    let is_near = |at: &Instant| sealed_at.iter().any(|sealed| *at >= *sealed && *at - *sealed < NEAR);
    println!("{} segments sealed, {} ms between commits", sealed_at.len(), 1000 / rate);
    print("all", times.iter().map(|(_, time)| *time).collect());
    print("after a segment was sealed", times.iter().filter(|(at, _)| is_near(at)).map(|(_, time)| *time).collect());
    store.close()?;
    Ok(())
}
