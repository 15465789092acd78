//! Questions about the past against the number of commits: their times are to stay flat.
//!
//! Stores of 10^3, 10^4, 10^5 and 10^6 of pgbench's transactions (`STRANDLINE_BENCH_COMMITS` sets the largest) are asked in turn, so
//! that each finds the processor's caches as the others left them. A hundred rows changed ten times each, evenly over the commits; every
//! question is about a random one of them, or about a random commit (`STRANDLINE_BENCH_SAMPLES` of each, 500). Prints medians in
//! microseconds, and the largest of a line divided by the first. Afterwards each store is opened again, as after a kill
//! and as after a clean stop, and the first questions are timed.

#[path = "pgbench/asked.rs"]
mod asked;
mod pgbench;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use strandline_storage::{Catalog, CommitId, Store, StoreOptions, Value};

use asked::{CHANGE_COUNT, ROW_COUNT, SIZES, make};
use pgbench::{ACCOUNTS, Outcome, Random, meta, setting};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Asked {
    store: Arc<Store>,
    size: u64,
    head: CommitId,
}

impl Asked {
    fn new(store: Arc<Store>, size: u64) -> Outcome<Asked> {
        let head = store.branch("postgres", "main")?.state().head;
        Ok(Asked { store, size, head })
    }

    fn key(&self, random: u64) -> Outcome<Vec<u8>> {
        let root = self.store.branch("postgres", "main")?.state().head_root;
        Ok(root.table(ACCOUNTS).ok_or("no table")?.key_prefix(None, &[Value::Int4(((random >> 33) % ROW_COUNT) as i32)])?)
    }

    /// A random commit and the number of its transaction.
    fn commit(&self, random: u64) -> Outcome<(u64, CommitId)> {
        let n = 1 + (random >> 33) % self.size;
        Ok((n, self.store.ancestor(self.head, self.size - n)?.ok_or("no such commit")?))
    }
}

/// A question: what it needs is found first, then it is asked; says whether the answer is right.
type Question = (&'static str, fn(&Asked, u64) -> Outcome<(f64, bool)>);

fn timed<T>(ask: impl FnOnce() -> Outcome<T>, is_right: impl FnOnce(T) -> bool) -> Outcome<(f64, bool)> {
    let started = Instant::now();
    let answer = ask()?;
    Ok((started.elapsed().as_secs_f64() * 1e6, is_right(answer)))
}

fn accounts_of(catalog: &Catalog) -> Option<u32> {
    catalog.relation("public", "accounts").map(|table| table.oid())
}

const QUESTIONS: [Question; 11] = [
    ("log, 20 from the head", |asked, _| timed(|| Ok(asked.store.log(&[asked.head], &[])?.take(20).count()), |count| count == 20)),
    ("log, 20 from any commit", |asked, random| {
        let (n, id) = asked.commit(random)?;
        timed(|| Ok(asked.store.log(&[id], &[])?.take(20).count() as u64), |count| count >= 20.min(n))
    }),
    ("ten changes of a row", |asked, random| {
        let key = asked.key(random)?;
        // And the load, which gave the row its first version.
        let changes = || Ok(asked.store.table_history(asked.head, ACCOUNTS, Some(vec![key]))?.collect::<Result<Vec<_>, _>>()?.len() as u64);
        timed(changes, |count| count == CHANGE_COUNT + 1)
    }),
    ("blame of a row", |asked, random| {
        let key = asked.key(random)?;
        let last = || Ok(asked.store.table_history(asked.head, ACCOUNTS, Some(vec![key]))?.next().ok_or("no change")??);
        timed(last, |version| version.to.is_some())
    }),
    ("a row AS OF any commit", |asked, random| {
        let key = asked.key(random)?;
        let id = asked.commit(random.rotate_left(20))?.1;
        let row = || {
            Ok(match asked.store.table_at(id, &accounts_of)? {
                Some(table) => table.get(&key)?,
                None => asked.store.root(id)?.table(ACCOUNTS).ok_or("no table")?.get(&key)?,
            })
        };
        timed(row, |row| row.is_some())
    }),
    ("diff of neighbours", |asked, random| {
        let id = asked.commit(random)?.1;
        let parent = asked.store.ancestor(id, 1)?.ok_or("no parent")?;
        timed(|| Ok(asked.store.near_diff(parent, id, ACCOUNTS)?), |diff| diff.is_some_and(|diff| diff.rows.len() <= 1))
    }),
    ("the changes of one commit", |asked, random| {
        let id = asked.commit(random)?.1;
        timed(|| Ok(asked.store.commit(id)?.changes()?.row_count()), |count| (2..=4).contains(&count))
    }),
    ("commit at an LSN", |asked, random| {
        let (n, id) = asked.commit(random)?;
        let source = meta(n).source.ok_or("no source")?;
        timed(|| Ok(asked.store.commit_at_lsn(asked.head, source.commit_lsn)?), |found| found == Some(id))
    }),
    ("commit of an xid", |asked, random| {
        let (n, id) = asked.commit(random)?;
        let source = meta(n).source.ok_or("no source")?;
        timed(|| Ok(asked.store.commit_of_xid(asked.head, source.xid)?), |found| found == Some(id))
    }),
    ("commit at a time", |asked, random| {
        let (n, id) = asked.commit(random)?;
        timed(|| Ok(asked.store.commit_at_time(asked.head, meta(n).time())?), |found| found == Some(id))
    }),
    ("commit of an id", |asked, random| {
        let id = asked.commit(random)?.1;
        timed(|| Ok(asked.store.commit(id)?), |commit| commit.id == id)
    }),
];

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn print_line(what: &str, times: &[f64]) {
    print!("{what:<32}");
    times.iter().for_each(|time| print!(" {time:>10.1}"));
    let largest = times.iter().copied().fold(0.0, f64::max);
    println!(" {:>10.2}", largest / times.first().copied().unwrap_or_default());
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000).max(1000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let samples = setting("STRANDLINE_BENCH_SAMPLES", 500);
    let folder = tempfile::tempdir()?;
    let sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= commits).collect();
    let path = |size: u64| folder.path().join(size.to_string());
    let mut all = Vec::new();
    for size in &sizes {
        all.push(Asked::new(make(&path(*size), *size, accounts)?, *size)?);
    }
    print!("{:<32}", "median us, by commits");
    sizes.iter().for_each(|size| print!(" {size:>10}"));
    println!(" {:>10}", "max/first");
    ask(&all, samples)?;
    for (what, with_commits) in [("the whole log, ns a commit", true), ("the same from the index alone", false)] {
        let mut times = Vec::new();
        for asked in &all {
            let started = Instant::now();
            let count = asked.store.log_entries(&[asked.head], &[], with_commits)?.try_fold(0, |count, entry| entry.map(|_| count + 1))?;
            times.push(started.elapsed().as_secs_f64() * 1e9 / f64::from(count));
        }
        print_line(what, &times);
    }
    for (what, clean) in [("after a kill", false), ("after a clean stop", true)] {
        let mut lines = vec![Vec::new(); 4];
        for asked in std::mem::take(&mut all) {
            if clean {
                asked.store.close()?;
            }
            let path = path(asked.size);
            let (opened, times) = open_again(asked, &path)?;
            all.push(opened);
            lines.iter_mut().zip(times).for_each(|(line, time)| line.push(time));
        }
        for (name, times) in ["open", "first changes of a row", "first row AS OF", "first commit of an xid"].iter().zip(&lines) {
            print_line(&format!("{what}: {name}"), times);
        }
    }
    ask(&all, samples)?;
    all.iter().try_for_each(|asked| asked.store.close())?;
    Ok(())
}

fn ask(all: &[Asked], samples: u64) -> Outcome<()> {
    // Files that were never read since they were opened are another matter: reads each page of the indexes, and most of the journal.
    for asked in all {
        let ids = asked.store.log_ids(&[asked.head], &[])?.collect::<Result<Vec<_>, _>>()?;
        ids.iter().step_by(16).try_for_each(|id| asked.store.commit(*id).map(drop))?;
    }
    let mut times = vec![vec![Vec::new(); all.len()]; QUESTIONS.len()];
    let mut random = Random::new();
    for _ in 0..samples {
        for ((name, question), times) in QUESTIONS.iter().zip(&mut times) {
            for (asked, times) in all.iter().zip(times) {
                let (time, is_right) = question(asked, random.next())?;
                if !is_right {
                    return Err(format!("{name}: a wrong answer at {} commits", asked.size).into());
                }
                times.push(time);
            }
        }
    }
    for ((name, _), times) in QUESTIONS.iter().zip(&mut times) {
        print_line(name, &times.iter_mut().map(|times| median(times)).collect::<Vec<_>>());
    }
    Ok(())
}

/// Ends the store and opens it again: the times of opening and of the first questions.
fn open_again(asked: Asked, path: &Path) -> Outcome<(Asked, [f64; 4])> {
    let size = asked.size;
    let (key, (n, id)) = (asked.key(1 << 40)?, asked.commit(3 << 40)?);
    // A store that is dropped makes no checkpoint, as a killed one does not.
    drop(asked);
    let started = Instant::now();
    let store = Store::open(path, StoreOptions::default())?;
    let open = started.elapsed().as_secs_f64() * 1e6;
    let opened = Asked::new(store, size)?;
    let changes = || Ok(opened.store.table_history(opened.head, ACCOUNTS, Some(vec![key.clone()]))?.count() as u64);
    let (changes, is_right) = timed(changes, |count| count == CHANGE_COUNT + 1)?;
    let row = || {
        Ok(match opened.store.table_at(id, &accounts_of)? {
            Some(table) => table.get(&key)?,
            None => opened.store.root(id)?.table(ACCOUNTS).ok_or("no table")?.get(&key)?,
        })
    };
    let (as_of, is_there) = timed(row, |row| row.is_some())?;
    let xid = meta(n).source.ok_or("no source")?.xid;
    let (xid, is_found) = timed(|| Ok(opened.store.commit_of_xid(opened.head, xid)?), |found| found == Some(id))?;
    if !(is_right && is_there && is_found) {
        return Err("a wrong answer after opening".into());
    }
    Ok((opened, [open, changes, as_of, xid]))
}
