//! The index of rows to commits: our sorted runs against the same entries in sled, on pgbench's transactions.
//!
//! `STRANDLINE_BENCH_COMMITS` transactions (1,000,000; sled gets a fifth of them, as it is slower the more it holds) on
//! `STRANDLINE_BENCH_ACCOUNTS` accounts (100,000). Ours is measured where it runs: the CPU of the store's threads that write runs and
//! merge them, and the files they leave. sled gets the entries in batches of 1,000 commits and is flushed at the end; its CPU is that of the whole
//! process.

mod pgbench;

use std::path::Path;

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Store, StoreOptions};

use pgbench::{Outcome, Random, load, setting, transact};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The four rows of a transaction and its xid.
const ENTRY_COUNT: u64 = 5;
const BATCH_COMMIT_COUNT: u64 = 1000;

/// CPU seconds in a line of `/proc/.../stat`, which has hundredths.
fn cpu_of(stat: &str) -> f64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn process_cpu() -> Outcome<f64> {
    Ok(cpu_of(&std::fs::read_to_string("/proc/self/stat")?))
}

fn thread_cpu(name: &str) -> Outcome<f64> {
    let mut seconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            seconds += cpu_of(&std::fs::read_to_string(task.join("stat"))?);
        }
    }
    Ok(seconds)
}

fn size_of(folder: &Path) -> Outcome<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

fn print_line(what: &str, commits: u64, seconds: f64, size: u64) {
    let entries = (commits * ENTRY_COUNT) as f64;
    println!(
        "{what:<12} {:>10.3} us and {:>6.1} bytes an entry, {:>7.2} us and {:>6.0} bytes a transaction",
        seconds * 1e6 / entries,
        size as f64 / entries,
        seconds * 1e6 / commits as f64,
        size as f64 / commits as f64
    );
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions::default())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut random = Random::new();
    for n in 1..=commits {
        let random = random.next();
        transact(&branch, n, ((random >> 33) % accounts as u64) as i32, random)?;
    }
    // The thread saves what is in memory once more.
    store.checkpoint()?;
    let mut cpu = (-1.0, thread_cpu("row index")?);
    while cpu.0 < cpu.1 {
        std::thread::park_timeout(std::time::Duration::from_millis(500));
        cpu = (cpu.1, thread_cpu("row index")?);
    }
    print_line("sorted runs", commits, cpu.1, size_of(&folder.path().join(".strandline/row-index"))?);
    store.close()?;
    drop((branch, store));

    let commits = commits / 5;
    let folder = tempfile::tempdir()?;
    let before = process_cpu()?;
    let database = sled::open(folder.path())?;
    let mut random = Random::new();
    for from in (0..commits).step_by(BATCH_COMMIT_COUNT as usize) {
        let mut batch = sled::Batch::default();
        for n in from..(from + BATCH_COMMIT_COUNT).min(commits) {
            let random = random.next();
            let row = |table: u32, key: u64| crc32c::crc32c_append(table, &key.to_be_bytes());
            let account = row(1, (random >> 33) % accounts as u64);
            for hash in [account, row(2, (random >> 40) % 10), row(3, 0), row(4, random), row(5, n)] {
                batch.insert(&[hash.to_be_bytes(), (n as u32).to_be_bytes()].concat()[..], &[]);
            }
        }
        database.apply_batch(batch)?;
    }
    database.flush()?;
    drop(database);
    print_line("sled", commits, process_cpu()? - before, size_of(folder.path())?);
    Ok(())
}
