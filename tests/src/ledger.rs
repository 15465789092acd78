//! A load whose every transaction leaves its xid in a table, and the proof that each arrived exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::db::explain;
use crate::mixed::{self, Definitions, Failure, Mixed};
use crate::sample::Picture;
use crate::subscriptions::wait_for_tables;
use crate::{Db, Primary, Replica, replica, wait_until};

/// When there are so many moments, every second is forgotten, and the next are noted half as often.
const MOMENT_COUNT_MAX: usize = 32;

/// So many moments are compared each time while the load runs.
const COMPARED_MAX: usize = 4;

/// How many bytes of its log the primary may be ahead before the writer waits, until they are a quarter of that: it is killed less than the replica, and would be
/// gigabytes ahead in the end.
const LAG_MAX: u64 = 16 << 20;

/// After how many steps the writer looks whether it is too far ahead.
const LAG_INTERVAL: u64 = 16;

/// How long the writer waits for a primary that does not answer, or a replica that is behind, before it asks again.
const WRITER_PAUSE: Duration = Duration::from_millis(5);

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
    /// How many of each kind, with those that the subscriber is not to have.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Tables that left the publication, as they were then.
    left: BTreeMap<String, Picture>,
}

/// So many transactions have all kinds among them; a short run may lack the rarest.
const COUNT_OF_ALL_KINDS: u64 = 10_000;

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
    shared: Arc<Shared>,
    thread: JoinHandle<Written>,
}

struct Shared {
    stop: AtomicBool,
    written: AtomicU64,
    noted: Mutex<Noted>,
}

/// The moments that were noted, and after how many transactions the next one is.
struct Noted {
    moments: Vec<Moment>,
    interval_min: u64,
    interval: u64,
}

impl Shared {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("the moments' lock")
    }
}

impl Noted {
    fn add(&mut self, moment: Moment) {
        self.moments.push(moment);
        if self.moments.len() > MOMENT_COUNT_MAX {
            let mut number = 0;
            self.moments.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.interval *= 2;
        }
    }

    fn take(&mut self) -> Vec<Moment> {
        self.interval = self.interval_min.max(self.interval / 2);
        std::mem::take(&mut self.moments)
    }
}

impl Writer {
    /// `interval`: after how many transactions it first notes what the primary has.
    pub fn start(primary: &Arc<Primary>, seed: u64, definitions: Definitions, interval: u64) -> Writer {
        let noted = Mutex::new(Noted { moments: Vec::new(), interval_min: interval, interval });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), written: AtomicU64::new(0), noted });
        let thread = {
            let (primary, shared) = (Arc::clone(primary), Arc::clone(&shared));
            std::thread::spawn(move || write_load(&primary, Mixed::new(seed, definitions), &shared))
        };
        Writer { shared, thread }
    }

    /// How many transactions were confirmed.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
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

    /// Ends the load and gives what was seen on the way and is not taken yet.
    pub fn finish(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

fn write_load(primary: &Primary, mut load: Mixed, shared: &Shared) -> Written {
    let conninfo = primary.conninfo();
    let (mut step_count, mut is_ahead) = (0u64, false);
    loop {
        let is_over = shared.stop.load(Ordering::Relaxed);
        let done = load.connect(&conninfo).and_then(|()| {
            if is_over {
                return load.end().map(|()| false);
            }
            step_count += 1;
            if is_ahead || step_count.is_multiple_of(LAG_INTERVAL) {
                is_ahead = load.lag()? > if is_ahead { LAG_MAX / 4 } else { LAG_MAX };
            }
            if is_ahead { Ok(false) } else { load.step() }
        });
        match done {
            Ok(_) if is_over => break,
            Ok(false) if is_ahead => std::thread::sleep(WRITER_PAUSE),
            Ok(false) => {}
            // Only a look that a crash interrupts is lost.
            Ok(true) => {
                let interval = shared.noted().interval;
                if shared.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(interval)
                    && let Ok((lsn, pictures)) = load.look()
                {
                    shared.noted().add(Moment { lsn, pictures });
                }
            }
            Err(Failure::Gone) => {
                load.disconnect();
                std::thread::sleep(WRITER_PAUSE);
            }
            Err(Failure::Refused(error)) => panic!("the load is wrong: {}", explain(&error)),
        }
    }
    Written {
        moments: shared.noted().take(),
        count: shared.written.load(Ordering::Relaxed),
        kinds: load.kinds().clone(),
        left: load.left().clone(),
    }
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

/// Compares a replica with what a load has seen, again and again while both go on.
#[derive(Default)]
pub struct Comparison {
    /// Moments that were the same, of which some are compared once more at the end.
    kept: Vec<Moment>,
    moment_count: usize,
    picture_count: usize,
}

impl Comparison {
    /// Waits until the replica has what is written by now, and compares some of the moments since the last time, and the commits up to there.
    ///
    /// # Panics
    /// Where the replica differs, or does not get on.
    pub fn so_far(&mut self, primary: &Primary, replica: &Replica, writer: &Writer) {
        wait_until(|| Db::connect(&primary.conninfo()).is_ok(), || "the primary to be up".into());
        let moments = writer.shared.noted().take();
        replica.catch_up(primary, &primary.db());
        let db = replica.db();
        // The last one is among them.
        let step = moments.len().div_ceil(COMPARED_MAX).max(1);
        let chosen: Vec<Moment> = moments.into_iter().rev().step_by(step).collect();
        self.compare(&db, &chosen);
        let Some(last) = chosen.into_iter().next() else { return };
        let commits = db.lines("SELECT source_xid FROM dolt_log WHERE source_xid IS NOT NULL");
        let known: BTreeSet<&str> = commits.iter().map(String::as_str).collect();
        assert_eq!(known.len(), commits.len(), "a transaction became two commits");
        let (_, ledger) = last.pictures.iter().find(|(table, _)| table == "ledger").expect("the ledger");
        let missing: Vec<&String> = ledger.iter().filter(|line| !line.split('|').next().is_some_and(|xid| known.contains(xid))).collect();
        assert!(
            missing.is_empty(),
            "at {} {} transactions are no commits: {:?}",
            last.lsn,
            missing.len(),
            &missing[..missing.len().min(5)]
        );
        self.kept.push(last);
        if self.kept.len() > MOMENT_COUNT_MAX {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
    }

    /// Compares the tables as they were at each of the moments.
    fn compare(&mut self, db: &Db, moments: &[Moment]) {
        // Tables that joined are what they were from there on.
        let joined: BTreeMap<String, u64> = db
            .rows("SELECT srrelid::regclass, srsublsn FROM pg_subscription_rel WHERE srsublsn IS NOT NULL")
            .into_iter()
            .filter_map(|row| Some((row[0].clone()?, lsn(row[1].as_deref()?))))
            .collect();
        for moment in moments {
            for (table, then) in &moment.pictures {
                if mixed::joins_later(table) && joined.get(table).is_none_or(|joined| lsn(&moment.lsn) < *joined) {
                    continue;
                }
                let ours = picture(db, table, &format!("{table} AS OF LSN '{}'", moment.lsn));
                assert_same(&ours, then, &format!("{table} at {}", moment.lsn));
                self.picture_count += 1;
            }
            self.moment_count += 1;
        }
    }

    /// Compares everything after the load: tables now, at what is left of the moments, and at some that were compared before, and one commit for every transaction, in
    /// their order and with their contexts and origins.
    ///
    /// # Panics
    /// Where the replica differs.
    pub fn finish(mut self, primary: &Primary, replica: &Replica, written: &Written) {
        assert_exactly_once(primary, replica, written);
        let db = replica.db();
        let kept = std::mem::take(&mut self.kept);
        self.compare(&db, &kept);
        let (moments, pictures) = (self.moment_count + written.moments.len(), self.picture_count);
        assert!(moments > 10, "{moments} moments are too few to say something");
        if written.count > COUNT_OF_ALL_KINDS {
            for kind in [
                "definitions",
                "joined rows",
                "long, committed",
                "of an origin",
                "prepared and committed",
                "tables that joined",
                "truncated",
            ] {
                assert!(written.kinds.get(kind).is_some_and(|count| *count > 0), "none of {kind}: {:?}", written.kinds);
            }
        }
        eprintln!(
            "{} transactions; {moments} moments compared, {pictures} tables before the last of them; {:?}",
            written.count, written.kinds
        );
    }
}

fn picture(db: &Db, table: &str, of: &str) -> Picture {
    mixed::try_picture(db, table, of).unwrap_or_else(|error| panic!("{}: {of}", explain(&error)))
}

/// Compares everything: tables now and at every moment, and one commit for every transaction, in their order and with their contexts and origins.
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
    Comparison::default().compare(&db, &written.moments);
    let commits = db.lines("SELECT source_xid, source_context, source_origin FROM dolt_log WHERE source_xid IS NOT NULL ORDER BY 1");
    let ledger = source.lines("SELECT xid, context, origin FROM ledger ORDER BY 1");
    assert_eq!(commits.len(), commits.iter().collect::<BTreeSet<_>>().len(), "a transaction became two commits");
    // The base commit carries no xid; every other commit is a transaction of the load.
    assert_same(&Arc::new(commits), &Arc::new(ledger.clone()), "the list of commits");
    assert!(ledger.len() as u64 >= written.count, "a confirmed transaction is missing on the primary itself");
    let places: Vec<u64> = db.lines("SELECT source_lsn FROM dolt_log WHERE source_xid IS NOT NULL").iter().map(|text| lsn(text)).collect();
    assert!(places.is_sorted_by(|later, earlier| later > earlier), "commits are not in the order of the primary's");
    assert!(!replica.log().contains("panicked"), "the server has panicked: {:?}", replica.complaints());
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
