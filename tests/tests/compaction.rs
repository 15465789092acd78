//! `dolt_gc()` while replication applies: nothing is lost, whoever reads or is killed, and space comes back.
//!
//! A few kills by default; with STRANDLINE_TEST_SCALE=full a hundred, or as many as it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use strandline_tests::ledger::{self, Writer};
use strandline_tests::mixed::{self, Definitions};
use strandline_tests::{Primary, Replica, replica::Options, sample};

/// The sizes of the journal's segments.
fn segments(replica: &Replica) -> BTreeMap<String, u64> {
    let files = std::fs::read_dir(replica.data_dir().join(".strandline/journal")).expect("the journal");
    let files = files.map(|file| file.expect("a file")).filter(|file| file.path().extension().is_some_and(|ending| ending == "seg"));
    files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.metadata().expect("its size").len())).collect()
}

#[test]
fn space_is_given_back_under_replication_and_kills_lose_nothing() {
    let primary = Arc::new(Primary::start(&mixed::SETTINGS));
    mixed::create_tables(&primary.db());
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &primary.db());
    let writer = Writer::start(&primary, 1313, Definitions::Additions, 100);

    // What one round writes is garbage in the next, and can be given back in the one after that.
    let reader = replica.db();
    let table = sample::TABLES[0];
    let mut shrunk = false;
    for _ in 0..3 {
        // An old snapshot is as it was, however often.
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let seen = sample::picture(&reader, table);
        for _ in 0..2 {
            writer.wait_for_more(40);
            let before = segments(&replica);
            assert_eq!(replica.db().lines("SELECT dolt_gc('--full')"), ["0"]);
            let after = segments(&replica);
            assert!(after.len() > before.len(), "no segment was sealed");
            shrunk |= before.iter().any(|(name, size)| after[name] < *size);
            assert_eq!(sample::picture(&reader, table), seen);
        }
        reader.execute("COMMIT");
    }
    assert!(shrunk, "no segment became smaller: {:?}", segments(&replica));

    for kill in 0..ledger::campaign_count(4, 100) {
        // Killed while it looks, decides, rewrites, or after.
        let collector = replica.db();
        let collector = std::thread::spawn(move || while collector.try_execute("SELECT dolt_gc('--full')").is_ok() {});
        writer.wait_for_more(20 + (kill as u64 * 13) % 37);
        replica.kill();
        collector.join().expect("the collector ends with its connection");
        replica.start_again();
    }
    let written = writer.finish();
    assert!(written.moments.len() > 1, "{} moments are too few to say something", written.moments.len());
    ledger::assert_exactly_once(&primary, &replica, &written);
    replica.db().execute("SELECT dolt_gc()");
    ledger::assert_exactly_once(&primary, &replica, &written);
    replica.kill();
    replica.start_again();
    ledger::assert_exactly_once(&primary, &replica, &written);
    ledger::assert_whole(replica);
}
