//! A load whose every transaction leaves its xid in a table, and the proof that each arrived exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::db::explain;
use crate::mixed::{self, Definitions, Failure, Mixed};
use crate::sample::Picture;
use crate::subscriptions::wait_for_tables;
use crate::{Db, Primary, Replica, replica, wait_until};

/// When there are so many moments, every second is forgotten, and the next are noted half as often.
const MOMENT_COUNT_MAX: usize = 32;

/// How long the writer waits for a primary that does not answer.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// What the primary's tables were at an LSN.
pub struct Moment {
    pub lsn: String,
    pictures: Vec<(String, Picture)>,
}

/// What a load has seen and done.
pub struct Written {
    pub moments: Vec<Moment>,
    /// Transactions that the primary has confirmed and the subscriber is to have.
    pub count: u64,
    /// Tables that left the publication, as they were then.
    left: BTreeMap<String, Picture>,
}

/// How often a campaign is to do what it does: `few` by default, `many` where STRANDLINE_TEST_SCALE is `full`, or the number that it holds.
pub fn campaign_count(few: usize, many: usize) -> usize {
    match std::env::var("STRANDLINE_TEST_SCALE") {
        Err(_) => few,
        Ok(scale) if scale == "full" => many,
        Ok(scale) => scale.parse().expect("STRANDLINE_TEST_SCALE is \"full\" or a number"),
    }
}

/// Writes in the background until told to stop; goes on after every crash of the primary.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Written>,
}

impl Writer {
    /// `interval`: after how many transactions it first notes what the primary has.
    pub fn start(primary: &Arc<Primary>, seed: u64, definitions: Definitions, interval: u64) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (primary, stop, written) = (Arc::clone(primary), Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || write_load(&primary, Mixed::new(seed, definitions), interval, &stop, &written))
        };
        Writer { stop, written, thread }
    }

    /// How many transactions were confirmed.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more transactions are confirmed.
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.written() + count;
        wait_until(
            || {
                assert!(!self.thread.is_finished(), "the load has ended");
                self.written() >= goal
            },
            || "the load to go on".into(),
        );
    }

    /// Ends the load and gives what was seen on the way.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

fn write_load(primary: &Primary, mut load: Mixed, mut interval: u64, stop: &AtomicBool, written: &AtomicU64) -> Written {
    let conninfo = primary.conninfo();
    let mut moments = Vec::new();
    loop {
        let is_over = stop.load(Ordering::Relaxed);
        let done = load.connect(&conninfo).and_then(|()| if is_over { load.end().map(|()| false) } else { load.step() });
        match done {
            Ok(_) if is_over => break,
            Ok(false) => {}
            // Only a look that a crash interrupts is lost.
            Ok(true) => {
                if written.fetch_add(1, Ordering::Relaxed).is_multiple_of(interval) {
                    moments.extend(load.look().ok().map(|(lsn, pictures)| Moment { lsn, pictures }));
                }
                if moments.len() > MOMENT_COUNT_MAX {
                    let mut number = 0;
                    moments.retain(|_| {
                        number += 1;
                        number % 2 == 0
                    });
                    interval *= 2;
                }
            }
            Err(Failure::Gone) => {
                load.disconnect();
                std::thread::sleep(CONNECT_PAUSE);
            }
            Err(Failure::Refused(error)) => panic!("the load is wrong: {}", explain(&error)),
        }
    }
    Written { moments, count: written.load(Ordering::Relaxed), left: load.left().clone() }
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

/// The same, or the first lines that differ.
fn assert_same(ours: &Picture, theirs: &Picture, what: &str) {
    if ours == theirs {
        return;
    }
    let only = |a: &Picture, b: &Picture| {
        let b: BTreeSet<&String> = b.iter().collect();
        a.iter().filter(|line| !b.contains(line)).take(5).map(|line| line.chars().take(200).collect::<String>()).collect::<Vec<_>>()
    };
    panic!(
        "{what} differs: {} rows here, {} there; only here {:#?}, only there {:#?}",
        ours.len(),
        theirs.len(),
        only(ours, theirs),
        only(theirs, ours)
    );
}

/// Compares everything: tables now and at every moment, and one commit for every transaction, with its context and origin.
///
/// # Panics
/// Where the replica differs.
pub fn assert_exactly_once(primary: &Primary, replica: &Replica, written: &Written) {
    let source = primary.db();
    replica.catch_up(primary, &source);
    let db = replica.db();
    // Tables that have joined are copied beside the stream.
    wait_for_tables(replica, &db);
    replica.catch_up(primary, &source);
    let picture =
        |db: &Db, table: &str, of: &str| mixed::try_picture(db, table, of).unwrap_or_else(|error| panic!("{}: {of}", explain(&error)));
    let published = source.lines("SELECT quote_ident(tablename) FROM pg_publication_tables WHERE pubname = 'strandline'");
    for table in &published {
        let (ours, theirs) = (picture(&db, table, table), picture(&source, table, table));
        if ours != theirs {
            let log = replica.log();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("public.{table}"))).take(20).collect();
            eprintln!("the log on {table} begins:\n{}", lines.join("\n"));
        }
        assert_same(&ours, &theirs, table);
    }
    for (table, then) in &written.left {
        // It may have left before its rows could be copied.
        if db.value(&format!("SELECT count(*) FROM dolt_log WHERE message LIKE 'copy of table public.{table} at%'")) == "0" {
            continue;
        }
        assert_same(&picture(&db, table, table), then, &format!("{table}, which left the publication,"));
    }
    // Tables that joined are what they were from there on.
    let joined: BTreeMap<String, u64> = db
        .rows("SELECT srrelid::regclass, srsublsn FROM pg_subscription_rel WHERE srsublsn IS NOT NULL")
        .into_iter()
        .filter_map(|row| Some((row[0].clone()?, lsn(row[1].as_deref()?))))
        .collect();
    for moment in &written.moments {
        for (table, then) in &moment.pictures {
            if mixed::joins_later(table) && joined.get(table).is_none_or(|joined| lsn(&moment.lsn) < *joined) {
                continue;
            }
            let ours = picture(&db, table, &format!("{table} AS OF LSN '{}'", moment.lsn));
            assert_same(&ours, then, &format!("{table} at {}", moment.lsn));
        }
    }
    let commits = db.lines("SELECT source_xid, source_context, source_origin FROM dolt_log WHERE source_xid IS NOT NULL ORDER BY 1");
    let ledger = source.lines("SELECT xid, context, origin FROM ledger ORDER BY 1");
    assert_eq!(commits.len(), commits.iter().collect::<BTreeSet<_>>().len(), "a transaction became two commits");
    // The base commit carries no xid; every other commit is a transaction of the load.
    assert_same(&Arc::new(commits), &Arc::new(ledger.clone()), "the list of commits");
    assert!(ledger.len() as u64 >= written.count, "a confirmed transaction is missing on the primary itself");
}

/// Stops the replica and lets fsck find nothing.
///
/// # Panics
/// With fsck's findings.
pub fn assert_whole(mut replica: Replica) {
    replica.stop();
    let fsck = std::process::Command::new(replica::binary()).arg("fsck").arg("--data-dir").arg(replica.data_dir()).output().expect("fsck");
    assert!(fsck.status.success(), "{}{}", String::from_utf8_lossy(&fsck.stdout), String::from_utf8_lossy(&fsck.stderr));
}
