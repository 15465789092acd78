//! Exactly once, whoever dies: `kill -9` of our server and crashes of the primary during a load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strandline_tests::sample::{self, Load, Picture, TABLES};
use strandline_tests::{Db, Primary, Replica, replica::Options, wait_until};

/// How often our server is killed and the primary crashes.
const KILLS: usize = 100;
const CRASHES: usize = 20;

/// After how many transactions the writer notes what the primary has.
const MOMENT_INTERVAL: u64 = 200;

/// What the primary's tables were at an LSN.
struct Moment {
    lsn: String,
    pictures: Vec<Picture>,
}

/// Writes until told to stop; goes on after every crash of the primary. Each transaction leaves its xid in `ledger`.
fn write_load(primary: &Primary, stop: &AtomicBool, written: &AtomicU64) -> Vec<Moment> {
    let mut load = Load::new(99);
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

#[test]
fn a_hundred_kills_of_the_replica_and_twenty_crashes_of_the_primary_lose_and_repeat_nothing() {
    // With fsync off a crash of the postmaster (not of the machine) still loses nothing that was committed.
    let primary = Arc::new(Primary::start(&["synchronous_commit = on", "wal_sender_timeout = 10s"]));
    let source = primary.db();
    source.execute(sample::SCHEMA);
    source.execute("CREATE TABLE ledger (xid bigint PRIMARY KEY)");
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    drop(source);

    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let (primary, stop, written) = (primary.clone(), stop.clone(), written.clone());
        std::thread::spawn(move || write_load(&primary, &stop, &written))
    };
    let mut crashes = 0;
    for kill in 0..KILLS {
        // Some work between two kills, of different lengths, so that they hit different moments.
        let goal = written.load(Ordering::Relaxed) + (kill as u64 * 7) % 23;
        wait_until(|| written.load(Ordering::Relaxed) >= goal, || "the load to go on".into());
        if kill % (KILLS / CRASHES) == 2 {
            primary.restart("immediate");
            crashes += 1;
        }
        replica.kill();
        replica.start_again();
    }
    assert_eq!(crashes, CRASHES);
    stop.store(true, Ordering::Relaxed);
    let moments = writer.join().expect("the writer ends");
    assert!(moments.len() > 10, "{} moments are too few to say something", moments.len());

    let source = primary.db();
    replica.catch_up(&primary, &source);
    let db = replica.db();
    for table in TABLES.iter().chain(&["ledger"]) {
        assert_eq!(sample::picture(&db, table), sample::picture(&source, table), "{table} differs");
    }
    for moment in &moments {
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
    assert!(ledger.len() as u64 >= written.load(Ordering::Relaxed), "a confirmed transaction is missing on the primary itself");

    replica.stop();
    let fsck = std::process::Command::new(strandline_tests::replica::binary())
        .arg("fsck")
        .arg("--data-dir")
        .arg(replica.data_dir())
        .output()
        .unwrap();
    assert!(fsck.status.success(), "{}{}", String::from_utf8_lossy(&fsck.stdout), String::from_utf8_lossy(&fsck.stderr));
}
