//! Prepared transactions: nothing is seen before COMMIT PREPARED, and nothing is lost on the way there.

mod support;

use strandline_replication::{Config, State};
use strandline_tests::{Db, Primary, wait_until};
use support::{Replica, SLOT, utc};

const SETTINGS: [&str; 2] = ["max_prepared_transactions = 10", "logical_decoding_work_mem = '64kB'"];

fn on(config: &mut Config) {
    config.two_phase = true;
    config.stream_memory_max = 100_000;
}

fn tables(db: &Db) {
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')");
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, m mood); INSERT INTO t VALUES (0, 'old')");
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
}

/// The xids of what was replicated after the base commit, oldest first.
fn xids(replica: &Replica) -> Vec<String> {
    replica.replicated().iter().skip(1).map(|c| c.meta.source.as_ref().unwrap().xid.to_string()).collect()
}

fn file_count(replica: &Replica) -> usize {
    std::fs::read_dir(replica.folder.path().join("prepared")).map_or(0, Iterator::count)
}

/// Prepares a transaction of these statements and returns its id.
fn prepare(db: &Db, gid: &str, sql: &str) -> String {
    db.execute(&format!("BEGIN; {sql}"));
    let xid = db.value("SELECT pg_current_xact_id()::xid");
    db.execute(&format!("PREPARE TRANSACTION '{gid}'"));
    xid
}

const LARGE: &str = "INSERT INTO t SELECT g, repeat('x', 50) || g FROM generate_series(1001, 4000) g";

#[test]
fn a_prepared_transaction_is_seen_after_its_commit_and_not_before() {
    for two_phase in [true, false] {
        let primary = Primary::start(&SETTINGS);
        let db = utc(&primary);
        tables(&db);
        let replica = Replica::started(&primary, if two_phase { on } else { |_| {} });
        replica.wait_for(State::Streaming);
        let small =
            prepare(&db, "it''s \"small\"", "INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'ok'); DELETE FROM t WHERE id = 0");
        let streamed = prepare(&db, "streamed", &format!("SAVEPOINT s; {LARGE}; ROLLBACK TO s; {LARGE}"));
        prepare(&db, "never", "INSERT INTO t VALUES (7, 'never')");
        db.execute("INSERT INTO u VALUES (2, 'sad')");
        replica.wait_caught_up(&db);
        assert_eq!(*replica.picture("t"), ["0|old"]);
        assert_eq!(*replica.picture("u"), ["2|sad"]);
        assert_eq!(file_count(&replica), if two_phase { 3 } else { 0 });
        db.execute("ROLLBACK PREPARED 'never'");
        db.execute("COMMIT PREPARED 'streamed'");
        replica.wait_caught_up(&db);
        assert_eq!(replica.picture("t").len(), 3001);
        db.execute("COMMIT PREPARED 'it''s \"small\"'");
        let end: strandline_storage::Lsn = db.value("SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        replica.wait_caught_up(&db);
        replica.assert_equal(&db, &["t", "u"]);
        assert_eq!(xids(&replica)[1..], [streamed, small]);
        let commits = replica.replicated();
        let ends: Vec<_> = commits.iter().map(|c| c.meta.source.as_ref().unwrap().end_lsn).collect();
        assert!(ends.is_sorted() && *ends.last().unwrap() <= end, "{ends:?}");
        assert_eq!(file_count(&replica), 0);
    }
}

#[test]
fn what_is_prepared_outlives_restarts_and_lost_connections() {
    let primary = Primary::start(&SETTINGS);
    let mut db = utc(&primary);
    tables(&db);
    let mut replica = Replica::started(&primary, on);
    replica.wait_for(State::Streaming);
    // Both tables are announced on this connection before, so that their announcement is not within the prepared transaction.
    db.execute("INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'ok')");
    let mut expected = vec![xid_of_last(&db)];
    let small = prepare(
        &db,
        "small",
        "UPDATE t SET v = 'b' WHERE id = 1; INSERT INTO u VALUES (2, 'sad'); TRUNCATE u; INSERT INTO u VALUES (3, 'sad')",
    );
    let streamed = prepare(&db, "streamed", LARGE);
    prepare(&db, "gone", "INSERT INTO t VALUES (5, 'gone')");
    replica.wait_caught_up(&db);
    replica.restart();
    replica.wait_caught_up(&db);
    assert_eq!(file_count(&replica), 3);
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    db.execute("COMMIT PREPARED 'small'");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    drop(db);
    primary.restart("immediate");
    db = utc(&primary);
    db.execute("ROLLBACK PREPARED 'gone'");
    // It is committed while we are away.
    replica.stop();
    db.execute("COMMIT PREPARED 'streamed'");
    replica.restart();
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    expected.extend([small, streamed]);
    assert_eq!(xids(&replica), expected);
    assert_eq!(file_count(&replica), 0);
}

fn xid_of_last(db: &Db) -> String {
    db.value("SELECT xmin FROM u")
}

#[test]
fn a_prepared_change_of_a_table_is_followed_at_its_commit() {
    let primary = Primary::start(&SETTINGS);
    let db = utc(&primary);
    tables(&db);
    let mut replica = Replica::started(&primary, on);
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t VALUES (1, 'a')");
    prepare(&db, "wider", "INSERT INTO t VALUES (2, 'b'); ALTER TABLE t ADD COLUMN w int DEFAULT 4; INSERT INTO t VALUES (3, 'c', 5)");
    db.execute("INSERT INTO u VALUES (1, 'ok')");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["0|old", "1|a"]);
    replica.restart();
    db.execute("COMMIT PREPARED 'wider'");
    db.execute("INSERT INTO t VALUES (4, 'd', 6)");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(*replica.picture("t"), ["0|old|4", "1|a|4", "2|b|4", "3|c|5", "4|d|6"]);
}

#[test]
fn a_synchronous_standby_confirms_what_is_prepared() {
    let primary = Primary::start(&SETTINGS);
    let db = utc(&primary);
    tables(&db);
    let replica = Replica::started(&primary, on);
    replica.wait_for(State::Streaming);
    db.execute("ALTER SYSTEM SET synchronous_standby_names = 'strandline'");
    db.execute("SELECT pg_reload_conf()");
    wait_until(|| db.value("SELECT sync_state FROM pg_stat_replication") == "sync", || "a synchronous standby".into());
    // What `sync_state` tells is this session's setting. Commits wait once the checkpointer has seen it, too: before it takes up the second request.
    db.execute("CHECKPOINT");
    db.execute("CHECKPOINT");
    // Each of these waits for us.
    prepare(&db, "waits", "INSERT INTO t VALUES (1, 'a')");
    db.execute("INSERT INTO u VALUES (1, 'ok')");
    assert_eq!(*replica.picture("t"), ["0|old"]);
    db.execute("COMMIT PREPARED 'waits'");
    replica.assert_equal(&db, &["t", "u"]);
}

/// Before version 18 the primary sends the end of a transaction that it has not sent, as there was nothing in it; PostgreSQL's own subscriber stops at that.
#[test]
fn prepared_transactions_without_changes_keep_nobody_up() {
    let primary = Primary::start(&SETTINGS);
    let db = utc(&primary);
    tables(&db);
    let mut replica = Replica::started(&primary, on);
    replica.wait_for(State::Streaming);
    let locks = "SELECT * FROM t FOR UPDATE";
    for (gid, end) in [("committed", "COMMIT"), ("rolled back", "ROLLBACK")] {
        prepare(&db, gid, locks);
        db.execute(&format!("{end} PREPARED '{gid}'"));
    }
    db.execute("INSERT INTO t VALUES (1, 'a')");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["0|old", "1|a"]);
    // Across a restart of ours, and where nothing else follows it.
    prepare(&db, "later", locks);
    prepare(&db, "with changes", "INSERT INTO t VALUES (2, 'b')");
    replica.wait_caught_up(&db);
    replica.restart();
    db.execute("COMMIT PREPARED 'with changes'");
    db.execute("COMMIT PREPARED 'later'");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["0|old", "1|a", "2|b"]);
    assert_eq!(xids(&replica).len(), 2);
    assert_eq!(file_count(&replica), 0);
    // What was prepared before this slot was followed so may have had changes.
    let unknown = prepare(&db, "unknown", "INSERT INTO u VALUES (1, 'ok')");
    replica.wait_caught_up(&db);
    replica.stop();
    let store = replica.store();
    store
        .put_state("replication/postgres/main/two_phase", Some(format!("{SLOT} {}", unknown.parse::<u32>().unwrap() + 1).as_bytes()))
        .unwrap();
    store.put_state(&format!("replication/postgres/main/prepared/{unknown}"), None).unwrap();
    std::fs::remove_dir_all(replica.folder.path().join("prepared")).unwrap();
    replica.restart();
    db.execute("COMMIT PREPARED 'unknown'");
    let error = replica.wait_failed();
    assert!(error.contains("\"unknown\"") && error.contains("prepared"), "{error}");
}

#[test]
fn a_lost_file_stops_replication_and_says_so() {
    let primary = Primary::start(&SETTINGS);
    let db = utc(&primary);
    tables(&db);
    let mut replica = Replica::started(&primary, on);
    replica.wait_for(State::Streaming);
    prepare(&db, "lost", "INSERT INTO t VALUES (1, 'a')");
    replica.wait_caught_up(&db);
    replica.stop();
    std::fs::remove_dir_all(replica.folder.path().join("prepared")).unwrap();
    replica.restart();
    db.execute("COMMIT PREPARED 'lost'");
    let error = replica.wait_failed();
    assert!(error.contains("\"lost\"") && error.contains("prepared"), "{error}");
}
