//! Transactions as pgbench's (three updates, one insert), one commit each, through `begin_apply` and `commit` on a real disk.
//!
//! `STRANDLINE_BENCH_ACCOUNTS` (100,000) and `STRANDLINE_BENCH_TRANSACTIONS` (100,000) set the size; with `STRANDLINE_BENCH_SNAPSHOTS` (0) readers
//! take that many snapshots a second, each held until the next. Prints transactions per second, CPU of the whole process per transaction
//! (writer and checkpoint threads included) and by thread, what making the transactions costs alone (it is part of thread "main"), how much
//! of the machine's time its host gave to others, bytes by kind per transaction, the time to open again after a kill, and how much longer a
//! scan takes of old commits, cold, than of the head: of `STRANDLINE_BENCH_SCANS` (20) of them, at even distances.

#[path = "pgbench/cpu.rs"]
mod cpu;
mod pgbench;
#[path = "pgbench/report.rs"]
mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strandline_storage::commit::CommitMeta;
use strandline_storage::{CommitId, Root, Store, StoreOptions, sizes};

use pgbench::{ACCOUNTS, Outcome, Primary, load, setting};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// Seconds to scan the accounts of a root value, and seconds of CPU: of this thread, and of all.
fn scan(root: impl FnOnce() -> Outcome<Root>) -> Outcome<[f64; 3]> {
    let (started, cpu, all) = (Instant::now(), cpu::by_thread(), cpu_us());
    let root = root()?;
    let mut cursor = root.table(ACCOUNTS).ok_or("no table")?.rows().scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    let mut count = 0;
    while let Some(rows) = cursor.next_leaf()? {
        count += rows.end - rows.start;
    }
    assert!(count > 0, "no rows");
    let computed = cpu::by_thread()["main"] - cpu["main"];
    Ok([started.elapsed().as_secs_f64(), computed / 1e6, (cpu_us() - all) as f64 / 1e6])
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000) as i32;
    let transactions = setting("STRANDLINE_BENCH_TRANSACTIONS", 100_000);
    let snapshots = setting("STRANDLINE_BENCH_SNAPSHOTS", 0);
    let folder = tempfile::tempdir()?;
    let options = || StoreOptions { group_commit_ms_max: 5, ..StoreOptions::default() };
    let store = Store::open(folder.path(), options())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;

    let started = Instant::now();
    load(&store, &branch, accounts)?;
    println!("load of {accounts} accounts: {:.2} s", started.elapsed().as_secs_f64());

    let making = {
        let before = cpu::by_thread()["main"];
        let mut primary = Primary::new(accounts);
        for n in 1..=transactions {
            std::hint::black_box(primary.input(n, None));
        }
        (cpu::by_thread()["main"] - before) / transactions as f64
    };

    let stolen = cpu::stolen_ms();
    let (before, cpu, threads, started) = (sizes(folder.path())?, cpu_us(), cpu::by_thread(), Instant::now());
    let (done, shared) = (&AtomicBool::new(false), &branch);
    std::thread::scope(|scope| -> Outcome<()> {
        if snapshots > 0 {
            let pause = Duration::from_secs(1) / snapshots as u32;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let _snapshot = shared.state();
                    std::thread::sleep(pause);
                }
            });
        }
        let mut primary = Primary::new(accounts);
        for n in 1..=transactions {
            primary.transact(shared, n, None)?;
        }
        done.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    store.sync()?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_us() - cpu);
    let count = transactions as f64;
    println!(
        "{transactions} transactions{}: {:.0}/s, {:.2} us of CPU each, checkpoints included",
        if snapshots > 0 { format!(" beside {snapshots} snapshots a second") } else { String::new() },
        count / seconds,
        cpu as f64 / count
    );
    println!("us of CPU a transaction by thread: {}; making it is {making:.2} of main", cpu::since(&threads, count));
    println!("time that the host gave to others: {:.0} ms of {:.0}", cpu::stolen_ms() - stolen, seconds * 1e3);
    report::print_sizes(&sizes(folder.path())?, &before, transactions);

    let head = branch.state().head;
    drop(branch);
    drop(store);
    let (started, opening) = (Instant::now(), cpu::by_thread());
    let store = Store::open(folder.path(), options())?;
    println!(
        "opening without a close before: {:.3} s ({:.3} s of CPU)",
        started.elapsed().as_secs_f64(),
        (cpu::by_thread()["main"] - opening["main"]) / 1e6
    );
    let scan_count = setting("STRANDLINE_BENCH_SCANS", 20);
    let commits: Vec<CommitId> = (1..=scan_count)
        .map(|i| store.ancestor(head, transactions * i / (scan_count + 1)).map(|id| id.expect("BUG: a commit is missing")))
        .collect::<Result<_, _>>()?;
    store.close()?;
    drop(store);
    // Each on a store just opened, so that no root value is at hand.
    let mut times = Vec::new();
    for id in std::iter::once(head).chain(commits) {
        let store = Store::open(folder.path(), options())?;
        times.push(scan(|| Ok(store.root(id)?))?);
    }
    let text = |time: &[f64; 3]| format!("{:.3} s ({:.3} s of CPU, {:.3} by all threads)", time[0], time[1], time[2]);
    println!("cold scan of the accounts at the head: {}", text(&times[0]));
    let old = &mut times[1..];
    old.sort_by(|a, b| a[0].total_cmp(&b[0]));
    if let (Some(median), Some(slowest)) = (old.get(old.len() / 2), old.last()) {
        println!("at {scan_count} old commits: median {}, slowest {}", text(median), text(slowest));
    }
    Ok(())
}
