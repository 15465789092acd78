//! How long a commit takes to become durable while checkpoints and the sealing of segments run in the background.
//!
//! pgbench's transactions come at a steady rate, whether or not the ones before are done (open loop), so a pause counts for every
//! transaction that came in it. A transaction's latency is from when it was due to when it is durable. `STRANDLINE_BENCH_ACCOUNTS`
//! (1,000,000), `STRANDLINE_BENCH_RATE` (10,000 a second) and `STRANDLINE_BENCH_SECONDS` (10 for each line) set the size. Prints the
//! median, the 99th percentile and the maximum without checkpoints, and with one after the other.

mod pgbench;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Branch, JournalPosition, Store, StoreOptions};

use pgbench::{Outcome, Primary, load, setting};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions that are not known to be durable: the position and when each was due; and the latencies of the others.
#[derive(Default)]
struct Waiting {
    due: Vec<(JournalPosition, Instant)>,
    latencies: Vec<f64>,
}

/// Commits at this rate for so long.
fn run(primary: &mut Primary, branch: &Arc<Branch>, waiting: &Mutex<Waiting>, first: u64, (rate, seconds): (u64, u64)) -> Outcome<()> {
    let started = Instant::now();
    for i in 0..rate * seconds {
        let due = started + Duration::from_nanos(1_000_000_000 / rate * i);
        // The clock of the system is too coarse to be asked for less.
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if left > Duration::from_micros(200) { std::thread::sleep(left) } else { std::hint::spin_loop() }
        }
        let position = primary.transact(branch, first + i, None)?;
        waiting.lock().expect("BUG: poisoned").due.push((position, due));
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 1_000_000) as i32;
    let pace = (setting("STRANDLINE_BENCH_RATE", 10_000), setting("STRANDLINE_BENCH_SECONDS", 10));
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions { group_commit_ms_max: 5, ..StoreOptions::default() })?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let waiting: &'static Mutex<Waiting> = Box::leak(Box::default());
    store.on_durable(Box::new(|durable| {
        let (Ok(durable), now) = (durable, Instant::now()) else { return };
        let mut waiting = waiting.lock().expect("BUG: poisoned");
        let Waiting { due, latencies } = &mut *waiting;
        due.retain(|(position, due)| {
            let is_waiting = *position > durable;
            if !is_waiting {
                latencies.push(now.duration_since(*due).as_secs_f64() * 1000.0);
            }
            is_waiting
        });
    }));
    println!("{:<42} {:>12} {:>9} {:>9} {:>9}", "ms until durable, open loop", "commits/s", "p50", "p99", "max");
    let (mut primary, mut first) = (Primary::new(accounts), 1);
    for checkpoints in [false, true, false, true] {
        let done = AtomicBool::new(false);
        let started = Instant::now();
        let count = std::thread::scope(|scope| -> Outcome<usize> {
            let checkpoints = scope.spawn(|| {
                let mut count = 0;
                while checkpoints && !done.load(Ordering::Relaxed) {
                    // Enough for it to have something to do.
                    std::thread::sleep(Duration::from_millis(100));
                    store.checkpoint().expect("a checkpoint failed");
                    count += 1;
                }
                count
            });
            let ran = run(&mut primary, &branch, waiting, first, pace);
            done.store(true, Ordering::Relaxed);
            ran?;
            checkpoints.join().map_err(|_| "a checkpoint failed".into())
        })?;
        store.sync()?;
        let seconds = started.elapsed().as_secs_f64();
        first += pace.0 * pace.1;
        let mut latencies = std::mem::take(&mut waiting.lock().expect("BUG: poisoned").latencies);
        latencies.sort_by(f64::total_cmp);
        let at = |part: f64| latencies[(part * (latencies.len() - 1) as f64) as usize];
        let what = if checkpoints { format!("{count} checkpoints one after the other") } else { "without a checkpoint".into() };
        println!("{what:<42} {:>12.0} {:>9.2} {:>9.2} {:>9.2}", latencies.len() as f64 / seconds, at(0.5), at(0.99), at(1.0));
    }
    store.close()?;
    Ok(())
}
