//! A load whose every transaction leaves its xid in a table, and the proof that each arrived exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::sample::{self, Load, Picture, TABLES};
use crate::{Db, Primary, Replica, replica, wait_until};

/// After how many transactions the writer notes what the primary has.
const MOMENT_INTERVAL: u64 = 200;

/// What the primary's tables were at an LSN.
pub struct Moment {
    pub lsn: String,
    pictures: Vec<Picture>,
}

/// How often a campaign is to do what it does: `few` by default, `many` where STRANDLINE_TEST_SCALE is `full`, or the number that it holds.
pub fn campaign_count(few: usize, many: usize) -> usize {
    match std::env::var("STRANDLINE_TEST_SCALE") {
        Err(_) => few,
        Ok(scale) if scale == "full" => many,
        Ok(scale) => scale.parse().expect("STRANDLINE_TEST_SCALE is \"full\" or a number"),
    }
}

/// Makes the tables of the load and their publication.
pub fn create_tables(source: &Db) {
    source.execute(sample::SCHEMA);
    source.execute("CREATE TABLE ledger (xid bigint PRIMARY KEY)");
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
}

/// Writes in the background until told to stop; goes on after every crash of the primary.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Moment>>,
}

impl Writer {
    pub fn start(primary: &Arc<Primary>, seed: u64) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (primary, stop, written) = (Arc::clone(primary), Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || write_load(&primary, seed, &stop, &written))
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
        wait_until(|| self.written() >= goal, || "the load to go on".into());
    }

    /// Ends the load and gives what was seen on the way, with the number of confirmed transactions.
    pub fn finish(self) -> (Vec<Moment>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let moments = self.thread.join().expect("the writer ends");
        (moments, self.written.load(Ordering::Relaxed))
    }
}

fn write_load(primary: &Primary, seed: u64, stop: &AtomicBool, written: &AtomicU64) -> Vec<Moment> {
    let mut load = Load::new(seed);
    let mut source: Option<Db> = None;
    let mut moments = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(db) = &source else {
            source = Db::connect(&primary.conninfo()).ok();
            continue;
        };
        let transaction = load.transaction();
        let sql = format!("BEGIN; {}; INSERT INTO ledger VALUES (txid_current()); COMMIT", transaction.sql);
        match db.try_execute(&sql) {
            Ok(()) => {
                // Nobody else writes: what is seen now is what was there at this LSN. A crash in between only costs a moment.
                if written.fetch_add(1, Ordering::Relaxed).is_multiple_of(MOMENT_INTERVAL) {
                    moments.extend(look_at(db));
                }
            }
            // The model of the load may now be off (an insert that it believes in is lost), which only makes updates hit nothing.
            Err(error) if error.code().is_some() && !error.is_closed() => {
                let _ = db.try_execute("ROLLBACK");
            }
            Err(_) => source = None,
        }
    }
    moments
}

fn look_at(db: &Db) -> Option<Moment> {
    let lsn = db.try_rows("SELECT pg_current_wal_insert_lsn()").ok()?.pop()?.pop()??;
    let pictures = TABLES.iter().map(|table| sample::try_picture(db, table).ok()).collect::<Option<Vec<_>>>()?;
    Some(Moment { lsn, pictures })
}

/// Compares everything: tables now and at every moment, and one commit for every transaction.
///
/// # Panics
/// Where the replica differs.
pub fn assert_exactly_once(primary: &Primary, replica: &Replica, moments: &[Moment], written: u64) {
    let source = primary.db();
    replica.catch_up(primary, &source);
    let db = replica.db();
    for table in TABLES.iter().chain(&["ledger"]) {
        assert_eq!(sample::picture(&db, table), sample::picture(&source, table), "{table} differs");
    }
    for moment in moments {
        for (table, picture) in TABLES.iter().zip(&moment.pictures) {
            let then = sample::picture(&db, &format!("{table} AS OF LSN '{}'", moment.lsn));
            assert_eq!(&then, picture, "{table} at {}", moment.lsn);
        }
    }
    let ledger: BTreeSet<String> = source.lines("SELECT xid FROM ledger").into_iter().collect();
    let commits = db.lines("SELECT source_xid FROM dolt_log WHERE source_xid IS NOT NULL");
    assert_eq!(commits.len(), commits.iter().collect::<BTreeSet<_>>().len(), "a transaction became two commits");
    let commits: BTreeSet<String> = commits.into_iter().collect();
    // The base commit carries no xid; every other commit is a transaction of the load.
    assert_eq!(commits, ledger);
    assert!(ledger.len() as u64 >= written, "a confirmed transaction is missing on the primary itself");
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
