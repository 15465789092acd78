//! Transactions as pgbench's (three updates, one insert), one commit each, through `begin_apply` and `commit` on a real disk.
//!
//! `STRANDLINE_BENCH_ACCOUNTS` (100,000) and `STRANDLINE_BENCH_TRANSACTIONS` (100,000) set the size. Prints transactions per
//! second, CPU of the whole process per transaction (writer and checkpoint threads included), and journal bytes per transaction.

mod pgbench;

use std::time::Instant;

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Store, StoreOptions};

use pgbench::{Outcome, Random, load, setting, transact};

/// User and system time of this process so far, in microseconds.
fn cpu_us() -> u64 {
    // SAFETY: getrusage fills the structure that it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000) as i32;
    let transactions = setting("STRANDLINE_BENCH_TRANSACTIONS", 100_000);
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions { group_commit_ms_max: 5, ..StoreOptions::default() })?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;

    let started = Instant::now();
    load(&store, &branch, accounts)?;
    println!("load of {accounts} accounts: {:.2} s", started.elapsed().as_secs_f64());

    let (written, cpu, started) = (store.written_size(), cpu_us(), Instant::now());
    let mut random = Random::new();
    for n in 1..=transactions {
        let random = random.next();
        transact(&branch, n, (random >> 33) as i32 % accounts, random)?;
    }
    store.sync()?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_us() - cpu);
    let bytes = store.written_size() - written;
    let count = transactions as f64;
    println!(
        "{transactions} transactions: {:.0}/s, {:.2} us of CPU and {:.0} bytes of journal each, checkpoints included",
        count / seconds,
        cpu as f64 / count,
        bytes as f64 / count
    );

    drop(branch);
    drop(store);
    let started = Instant::now();
    let store = Store::open(folder.path(), StoreOptions::default())?;
    println!("opening without a close before: {:.3} s", started.elapsed().as_secs_f64());
    store.close()?;
    Ok(())
}
