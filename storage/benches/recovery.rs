//! Opening a store of pgbench's tables after a kill, by the transactions since its last checkpoint.
//!
//! `STRANDLINE_BENCH_ACCOUNTS` (1,000,000) accounts; `STRANDLINE_BENCH_TAILS` (20000,30000,60000,240000) are the transactions, with
//! commas between. Each store is opened twice, by a process that is killed in between: after a long tail the first one makes a
//! checkpoint, and the second has nothing to replay. With `STRANDLINE_BENCH_FOLDER` the stores are made there unless they are there already,
//! and stay, and copies of them are opened: two versions of the code can be asked about the same ones.

#[allow(dead_code, reason = "threads are not told apart")]
mod pgbench;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Store, StoreOptions};

use pgbench::{Outcome, Primary, load, setting};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn make(path: &Path, accounts: i32, count: u64) -> Outcome<()> {
    let store = Store::open(path, StoreOptions::default())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut primary = Primary::new(accounts);
    for n in 1..=count {
        primary.transact(&branch, n, None)?;
    }
    store.sync()?;
    Ok(())
}

/// Seconds of CPU of all threads of this process.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the structure that it is given, and to nothing else.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
    assert!(!failed, "a clock is missing");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn open(path: &Path) -> Outcome<()> {
    let (started, before) = (Instant::now(), cpu());
    let store = Store::open(path, StoreOptions::default())?;
    println!(
        "  opened in {:.3} s, {:.3} s of CPU: {} changes replayed, {:.1} MiB written",
        started.elapsed().as_secs_f64(),
        cpu() - before,
        store.replayed_change_count(),
        store.written_size() as f64 / (1 << 20) as f64
    );
    // As a kill does: no destructor runs.
    std::process::exit(0)
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &target)? } else { std::fs::copy(entry.path(), target).map(drop)? }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--open") {
        return open(Path::new(&arguments[at + 1]));
    }
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 1_000_000) as i32;
    let tails = std::env::var("STRANDLINE_BENCH_TAILS").unwrap_or_else(|_| "20000,30000,60000,240000".into());
    for count in tails.split(',').filter_map(|text| text.parse::<u64>().ok()) {
        let folder = tempfile::tempdir()?;
        let (store, copied) = match std::env::var_os("STRANDLINE_BENCH_FOLDER") {
            Some(parent) => (PathBuf::from(parent).join(format!("recovery-{accounts}-{count}")), folder.path().join("copy")),
            None => (folder.path().to_owned(), folder.path().to_owned()),
        };
        if !store.join("made").exists() {
            make(&store, accounts, count)?;
            std::fs::write(store.join("made"), "")?;
        }
        if store != copied {
            copy(&store, &copied)?;
        }
        println!("{count} transactions since the last checkpoint, {accounts} accounts:");
        for _ in 0..2 {
            if !Command::new(std::env::current_exe()?).arg("--open").arg(&copied).status()?.success() {
                return Err("could not open".into());
            }
        }
    }
    Ok(())
}
