//! Questions about the past against the number of commits: their times are to stay flat.
//!
//! One store grows by pgbench's transactions to 10^3, 10^4, 10^5 and 10^6 commits (`STRANDLINE_BENCH_COMMITS` sets the last), and
//! is asked at each. Each row changed ten times, evenly over the commits so far. Prints the median of 21 times each, in
//! microseconds, each at another moment, so that no answer is at hand.

mod pgbench;

use std::time::Instant;

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Catalog, CommitId, Store, StoreOptions, Value};

use pgbench::{ACCOUNTS, Outcome, Random, load, meta, setting, transact};

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const CHANGE_COUNT: u64 = 10;
const TIME_COUNT: u64 = 21;

/// The account that transaction `n` changes: in turn those whose changes are spread over a size, otherwise any other.
fn account(n: u64, accounts: i32, random: u64) -> i32 {
    let spread = |size: u64, i: usize| n <= size && n % (size / CHANGE_COUNT) == 1 + i as u64;
    match (0..SIZES.len()).find(|i| spread(SIZES[*i], *i)) {
        Some(i) => i as i32,
        None => SIZES.len() as i32 + (random >> 33) as i32 % (accounts - SIZES.len() as i32),
    }
}

/// The median time in microseconds of a question about different moments, given as fractions of the history.
fn median(mut ask: impl FnMut(f64) -> Outcome<u64>, expected: u64) -> Outcome<f64> {
    let mut times = Vec::new();
    for i in 0..TIME_COUNT {
        let started = Instant::now();
        let answer = ask((i as f64 + 0.5) / TIME_COUNT as f64)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        if answer != expected {
            return Err(format!("answer {answer} instead of {expected}").into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), StoreOptions { group_commit_ms_max: 5, ..StoreOptions::default() })?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut random = Random::new();
    let mut n = 0;
    println!("median time in us of");
    println!(
        "{:>9} {:>12} {:>14} {:>14} {:>14} {:>12} {:>12} {:>12}",
        "commits", "log of 20", "row's changes", "row AS OF", "neighbours", "LSN", "xid", "time"
    );
    for (i, size) in SIZES.into_iter().enumerate().filter(|(_, size)| *size <= commits) {
        while n < size {
            n += 1;
            let random = random.next();
            transact(&branch, n, account(n, accounts, random), random)?;
        }
        store.sync()?;
        let state = branch.state();
        let head = state.head;
        let at = |part: f64| -> Outcome<(u64, CommitId)> {
            let n = 1 + (part * (size - 1) as f64) as u64;
            Ok((n, store.ancestor(head, size - n)?.ok_or("no such commit")?))
        };
        let key = state.head_root.table(ACCOUNTS).ok_or("no table")?.key_prefix(None, &[Value::Int4(i as i32)])?;
        let log = median(|part| Ok(store.log(&[at(part)?.1], &[])?.take(20).count().min(2) as u64), 2)?;
        // From the load on: it gave the row its first version.
        let changes = |_| {
            let versions = store.table_history(head, ACCOUNTS, Some(vec![key.clone()]))?.collect::<Result<Vec<_>, _>>()?;
            Ok(versions.len() as u64)
        };
        let changes = median(changes, 1 + CHANGE_COUNT)?;
        let find = |catalog: &Catalog| catalog.relation("public", "accounts").map(|table| table.oid());
        let as_of = |part| {
            let id = at(part)?.1;
            let row = match store.table_at(id, &find)? {
                Some(table) => table.get(&key)?,
                None => store.root(id)?.table(ACCOUNTS).ok_or("no table")?.get(&key)?,
            };
            Ok(u64::from(row.is_some()))
        };
        let as_of = median(as_of, 1)?;
        let neighbours = median(|part| Ok(store.commit(at(part)?.1)?.changes()?.row_count()), 4)?;
        let (lsn, xid, time) = (
            median(
                |part| {
                    let (n, id) = at(part)?;
                    let source = meta(n).source.ok_or("no source")?;
                    Ok(u64::from(store.commit_at_lsn(head, source.commit_lsn)? == Some(id)))
                },
                1,
            )?,
            median(
                |part| {
                    let (n, id) = at(part)?;
                    let source = meta(n).source.ok_or("no source")?;
                    Ok(u64::from(store.commit_of_xid(head, source.xid)? == Some(id)))
                },
                1,
            )?,
            median(
                |part| {
                    let (n, id) = at(part)?;
                    Ok(u64::from(store.commit_at_time(head, meta(n).commit_time)? == Some(id)))
                },
                1,
            )?,
        );
        println!("{size:>9} {log:>12.1} {changes:>14.1} {as_of:>14.1} {neighbours:>14.1} {lsn:>12.1} {xid:>12.1} {time:>12.1}");
    }
    store.close()?;
    Ok(())
}
