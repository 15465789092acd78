//! What PostgreSQL's own tests of streamed and prepared transactions and of messages demand of a subscriber, with Strandline as the subscriber: the same
//! situations and outcomes, in our words. The numbers are those of its test scripts.

use strandline_tests::subscriptions::{create, make, subscriber, wait_for_subscription};
use strandline_tests::{Db, Primary, wait_until};

/// A primary that sends what is larger than this while it runs.
const STREAMS: &str = "logical_decoding_work_mem = '64kB'";

/// How many transactions the slot has sent before their end; the primary tells it a little late.
fn streamed_count(source: &Db, slot: &str) -> u32 {
    source.value(&format!("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = '{slot}'")).parse().unwrap()
}

fn wait_streamed(source: &Db, slot: &str, count: u32) {
    wait_until(|| streamed_count(source, slot) >= count, || format!("{count} streamed transactions, not {}", streamed_count(source, slot)));
}

/// 015 to 019: large transactions that are sent while they run, in text and in binary, with savepoints, changed tables and rollbacks in them.
#[test]
fn transactions_arrive_as_if_they_were_not_streamed() {
    let primary = Primary::start(&[STREAMS]);
    let (source, other) = (primary.db(), primary.db());
    source.execute(
        "CREATE TABLE plain (a int PRIMARY KEY, b varchar); INSERT INTO plain VALUES (1, 'foo'), (2, 'bar'); CREATE TABLE nested (LIKE plain INCLUDING ALL);
         CREATE TABLE changed (LIKE plain INCLUDING ALL); CREATE TABLE aborted (LIKE plain INCLUDING ALL); CREATE TABLE changed_aborted (LIKE plain INCLUDING ALL);
         INSERT INTO nested TABLE plain; INSERT INTO changed TABLE plain; INSERT INTO aborted TABLE plain; INSERT INTO changed_aborted TABLE plain;
         CREATE PUBLICATION tap_pub FOR ALL TABLES",
    );
    let replica = subscriber();
    let db = replica.db();
    make(
        &db,
        "CREATE TABLE plain (a int PRIMARY KEY, b text, c timestamptz DEFAULT '2020-01-01', d bigint DEFAULT 999);
         CREATE TABLE nested (a int PRIMARY KEY, b text, c timestamptz DEFAULT '2020-01-01', d bigint DEFAULT 999);
         CREATE TABLE changed (a int PRIMARY KEY, b text, c int, d int, e int, f int); CREATE TABLE aborted (a int PRIMARY KEY, b text, c int);
         CREATE TABLE changed_aborted (a int PRIMARY KEY, b text, c int, d int, e int)",
    );
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub WITH (streaming = on)");
    let caught_up = || wait_for_subscription(&replica, &primary, &source, "tap_sub");
    let same = |table: &str| {
        let sums = format!("SELECT count(*), sum(a), min(b), max(b), count(DISTINCT b) FROM {table}");
        assert_eq!(db.lines(&sums), source.lines(&sums), "{table}");
    };
    caught_up();

    // 015: two of them at the same time, of which one ends first; our own columns keep their defaults and values.
    let own = "SELECT count(*), count(c), count(CASE WHEN d = 999 THEN 1 END) FROM plain";
    assert_eq!(db.lines(own), ["2|2|2"]);
    other.execute("BEGIN; INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(3, 5000) i; UPDATE plain SET b = md5(b) WHERE a % 2 = 0; DELETE FROM plain WHERE a % 3 = 0");
    source.execute(
        "BEGIN; INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(5001, 9999) i; DELETE FROM plain WHERE a > 5000; COMMIT",
    );
    caught_up();
    assert_eq!(db.value("SELECT count(*) FROM plain"), "2", "one is gone, the other runs");
    other.execute("COMMIT");
    caught_up();
    assert_eq!(db.lines(own), ["3334|3334|3334"]);
    same("plain");
    wait_streamed(&source, "tap_sub", 2);
    db.execute("ALTER SUBSCRIPTION tap_sub SET (binary = on)");
    source.execute("BEGIN; INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(5001, 10000) i; UPDATE plain SET b = md5(b) WHERE a % 2 = 0; DELETE FROM plain WHERE a % 3 = 0; COMMIT");
    caught_up();
    assert_eq!(db.lines(own), ["6667|6667|6667"]);
    same("plain");
    db.execute("ALTER SUBSCRIPTION tap_sub SET (binary = off)");
    make(&db, "UPDATE plain SET c = 'epoch'::timestamptz + 987654321 * interval '1s'");
    source.execute("UPDATE plain SET b = md5(a::text)");
    caught_up();
    assert_eq!(db.value("SELECT count(*) FROM plain WHERE extract(epoch FROM c) = 987654321 AND d = 999"), "6667");
    same("plain");

    // 016: savepoints in it.
    let mut nested = "BEGIN;".to_owned();
    for (round, (from, to)) in [(3, 500), (501, 1000), (1001, 1500), (1501, 2000), (2001, 2500)].into_iter().enumerate() {
        let insert = format!("INSERT INTO nested SELECT i, md5(i::text) FROM generate_series({from}, {to}) i");
        nested.push_str(&format!(
            "{insert}; UPDATE nested SET b = md5(b) WHERE a % 2 = 0; DELETE FROM nested WHERE a % 3 = 0; SAVEPOINT s{round};"
        ));
    }
    source.execute(&format!("{nested} COMMIT"));
    caught_up();
    assert_eq!(db.lines("SELECT count(*), count(c), count(CASE WHEN d = 999 THEN 1 END) FROM nested"), ["1667|1667|1667"]);
    same("nested");

    // 017: the table is changed within it, and between it and what is not streamed.
    source.execute(
        "BEGIN; INSERT INTO changed VALUES (3, md5('3')); ALTER TABLE changed ADD c int; SAVEPOINT s1; INSERT INTO changed VALUES (4, md5('4'), -4); COMMIT",
    );
    source.execute(
        "BEGIN; INSERT INTO changed SELECT i, md5(i::text), -i FROM generate_series(5, 1000) i; ALTER TABLE changed ADD d int; SAVEPOINT s1;
         INSERT INTO changed SELECT i, md5(i::text), -i, 2 * i FROM generate_series(1001, 2000) i; COMMIT",
    );
    source.execute(
        "BEGIN; INSERT INTO changed VALUES (2001, md5('2001'), -2001, 4002); ALTER TABLE changed ADD e int; SAVEPOINT s1;
         INSERT INTO changed VALUES (2002, md5('2002'), -2002, 4004, -6006); COMMIT",
    );
    caught_up();
    assert_eq!(db.lines("SELECT count(*), count(c), count(d), count(e) FROM changed"), ["2002|1999|1002|1"]);
    source.execute("BEGIN; INSERT INTO changed SELECT i, md5(i::text), -i, 2 * i, -3 * i FROM generate_series(2003, 5000) i; ALTER TABLE changed ADD f int; COMMIT");
    source.execute("INSERT INTO changed SELECT i, md5(i::text), -i, 2 * i, -3 * i, 4 * i FROM generate_series(5001, 5005) i");
    caught_up();
    assert_eq!(db.lines("SELECT count(*), count(c), count(d), count(e), count(f) FROM changed"), ["5005|5002|4005|3004|5"]);
    let sums = "SELECT sum(c), sum(d), sum(e), sum(f) FROM changed";
    assert_eq!(db.lines(sums), source.lines(sums));

    // 018: savepoints rolled back in order, out of order, and with the whole. The rows are many, as this version has no setting that streams few.
    let fill = |from: i32, to: i32| format!("INSERT INTO aborted SELECT i, md5(i::text) FROM generate_series({from}, {to}) i;");
    let transaction = |parts: &[&str]| {
        let part = |part: &&str| match part.split_once('-') {
            Some((from, to)) => fill(from.parse().unwrap(), to.parse().unwrap()),
            None => format!("{part};"),
        };
        source.execute(&parts.iter().map(part).collect::<String>());
        caught_up();
        same("aborted");
        db.lines("SELECT count(*), count(c) FROM aborted").remove(0)
    };
    let before = streamed_count(&source, "tap_sub");
    assert_eq!(
        transaction(&[
            "BEGIN",
            "3-500",
            "SAVEPOINT s1",
            "501-1000",
            "SAVEPOINT s2",
            "1001-1500",
            "SAVEPOINT s3",
            "1501-2000",
            "ROLLBACK TO s2",
            "2001-2500",
            "ROLLBACK TO s1",
            "2501-3000",
            "SAVEPOINT s4",
            "3001-3500",
            "SAVEPOINT s5",
            "3501-4000",
            "COMMIT",
        ]),
        "2000|0"
    );
    assert_eq!(
        transaction(&[
            "BEGIN",
            "4001-4500",
            "SAVEPOINT s1",
            "5001-5500",
            "SAVEPOINT s2",
            "6001-6500",
            "SAVEPOINT s3",
            "7001-7500",
            "RELEASE s2",
            "8001-8500",
            "ROLLBACK TO s1",
            "COMMIT",
        ]),
        "2500|0"
    );
    assert_eq!(transaction(&["BEGIN", "8501-9000", "SAVEPOINT s1", "9001-9500", "SAVEPOINT s2", "9501-10000", "ROLLBACK"]), "2500|0");
    // From version 18 on, what is known to be rolled back when it is decoded is not sent at all.
    wait_streamed(&source, "tap_sub", before + if primary.major_version() >= 18 { 2 } else { 3 });

    // 019: changes of the table that are rolled back, too.
    source.execute(
        "BEGIN; INSERT INTO changed_aborted SELECT i, md5(i::text) FROM generate_series(3, 500) i; ALTER TABLE changed_aborted ADD c int; SAVEPOINT s1;
         INSERT INTO changed_aborted SELECT i, md5(i::text), -i FROM generate_series(501, 1000) i; ALTER TABLE changed_aborted ADD d int; SAVEPOINT s2;
         INSERT INTO changed_aborted SELECT i, md5(i::text), -i, 2 * i FROM generate_series(1001, 1500) i; ALTER TABLE changed_aborted ADD e int; SAVEPOINT s3;
         INSERT INTO changed_aborted SELECT i, md5(i::text), -i, 2 * i, -3 * i FROM generate_series(1501, 2000) i; ALTER TABLE changed_aborted DROP c; ROLLBACK TO s1;
         INSERT INTO changed_aborted SELECT i, md5(i::text), i FROM generate_series(501, 1000) i; COMMIT",
    );
    caught_up();
    assert_eq!(db.lines("SELECT count(*), count(c), sum(c), count(d), count(e) FROM changed_aborted"), ["1000|500|375250|0|0"]);
    same("changed_aborted");

    // Each of them is one commit, and the copies are.
    assert_eq!(db.value("SELECT count(*) FROM dolt_log WHERE message LIKE 'replicated transaction%'"), "13");
    let spools = std::fs::read_dir(replica.data_dir().join("spool")).into_iter().flatten().flatten();
    assert_eq!(spools.map(|folder| std::fs::read_dir(folder.path()).map_or(0, Iterator::count)).sum::<usize>(), 0, "no file is left");
    assert_eq!(replica.complaints(), [""; 0]);
}

/// 020: messages of the primary's applications, in transactions or not, kept or rolled back.
#[test]
fn messages_are_read_and_disturb_nothing() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE tab_test (a int PRIMARY KEY); CREATE PUBLICATION tap_pub FOR TABLE tab_test");
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    // What the slot holds while nobody reads it: the message within its transaction where messages are asked for, as we do.
    db.execute("ALTER SUBSCRIPTION tap_sub DISABLE");
    wait_until(|| source.value("SELECT active FROM pg_replication_slots") == "f", || "the slot to rest".into());
    source.execute("SELECT pg_logical_emit_message(true, 'strandline', '{\"alone\": true}')");
    let peek = |options: &str| {
        let changes = format!(
            "pg_logical_slot_peek_binary_changes('tap_sub', NULL, NULL, 'proto_version', '2', 'publication_names', 'tap_pub'{options})"
        );
        source.lines(&format!("SELECT chr(get_byte(data, 0)) FROM {changes}")).concat()
    };
    assert_eq!(peek(", 'messages', 'true'"), "BMC");
    source.execute("INSERT INTO tab_test VALUES (1); SELECT pg_logical_emit_message(false, 'strandline', '{\"transactional\": false}'); INSERT INTO tab_test VALUES (2)");
    source.execute(
        "BEGIN; SELECT pg_logical_emit_message(false, 'strandline', '{\"kept\": 1}'); INSERT INTO tab_test VALUES (3);
         SELECT pg_logical_emit_message(true, 'strandline', '{\"aborted\": true}'); SELECT pg_logical_emit_message(false, 'pgoutput', 'kept, and no JSON'); ROLLBACK; SELECT pg_switch_wal()",
    );
    source.execute("BEGIN; SELECT pg_logical_emit_message(true, 'strandline', '{\"user\": \"ann\"}'); INSERT INTO tab_test VALUES (4); SELECT pg_logical_emit_message(true, 'pgoutput', 'not for us'); COMMIT");
    assert!(peek(", 'messages', 'true'").matches('M').count() >= 6);
    db.execute("ALTER SUBSCRIPTION tap_sub ENABLE");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT a FROM tab_test ORDER BY a"), ["1", "2", "4"]);
    // Only a message of a transaction that is a commit here says something about that commit.
    let contexts = "SELECT source_context FROM dolt_log WHERE message LIKE 'replicated transaction%' ORDER BY source_lsn";
    assert_eq!(db.lines(contexts), ["", "{\"user\": \"ann\"}"]);
    assert_eq!(replica.complaints(), [""; 0]);
}

/// 021, 023, and what of 022 is no cascade: prepared transactions, small and streamed, committed and rolled back, over crashes of either side.
#[test]
fn prepared_transactions_are_seen_when_they_are_committed() {
    let primary = Primary::start(&[STREAMS, "max_prepared_transactions = 10"]);
    let mut source = primary.db();
    // A prepared transaction before the subscription is a committed one for it.
    source.execute(
        "CREATE TABLE tab_full (a int PRIMARY KEY); CREATE TABLE test_tab (a int PRIMARY KEY, b varchar); INSERT INTO test_tab VALUES (1, 'foo'), (2, 'bar');
         CREATE PUBLICATION tap_pub FOR TABLE tab_full, test_tab; CREATE TABLE tab_copy (a int PRIMARY KEY); INSERT INTO tab_copy SELECT generate_series(1, 5);
         CREATE PUBLICATION tap_pub_copy FOR TABLE tab_copy",
    );
    source.execute("BEGIN; INSERT INTO tab_full SELECT generate_series(1, 10); PREPARE TRANSACTION 'some_initial_data'");
    source.execute("COMMIT PREPARED 'some_initial_data'");
    let mut replica = subscriber();
    let mut db = replica.db();
    make(
        &db,
        "CREATE TABLE tab_full (a int PRIMARY KEY); CREATE TABLE test_tab (a int PRIMARY KEY, b text, c timestamptz DEFAULT '2020-01-01', d bigint DEFAULT 999);
         CREATE TABLE tab_copy (a int PRIMARY KEY); INSERT INTO tab_copy VALUES (88)",
    );
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub WITH (two_phase = on)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    wait_until(|| db.value("SELECT subtwophasestate FROM pg_subscription") == "e", || "two-phase to be enabled".into());
    assert_eq!(db.value("SELECT count(*) FROM tab_full"), "10");

    // Kept here from PREPARE on, and seen by nobody.
    let prepared_folder = replica.data_dir().join("prepared");
    let prepared_count = || -> usize {
        let folders = std::fs::read_dir(&prepared_folder).into_iter().flatten().flatten();
        folders.map(|folder| std::fs::read_dir(folder.path()).map_or(0, Iterator::count)).sum()
    };
    let rows = |db: &Db, keys: &str| db.lines(&format!("SELECT a FROM tab_full WHERE a IN ({keys}) ORDER BY a")).join(",");
    for (end, expected) in [("COMMIT", "11"), ("ROLLBACK", "")] {
        let key = if end == "COMMIT" { 11 } else { 12 };
        source.execute(&format!("BEGIN; INSERT INTO tab_full VALUES ({key}); PREPARE TRANSACTION 'test_prepared_tab_full'"));
        wait_for_subscription(&replica, &primary, &source, "tap_sub");
        assert_eq!((prepared_count(), rows(&db, &key.to_string())), (1, String::new()), "{end}");
        source.execute(&format!("{end} PREPARED 'test_prepared_tab_full'"));
        wait_for_subscription(&replica, &primary, &source, "tap_sub");
        assert_eq!((prepared_count(), rows(&db, &key.to_string()).as_str()), (0, expected), "{end}");
    }

    // Crashes between PREPARE and its end.
    for (keys, end, crash_replica, crash_primary) in [
        ((12, 13), "ROLLBACK", true, true),
        ((12, 13), "COMMIT", true, true),
        ((14, 15), "COMMIT", true, false),
        ((16, 17), "COMMIT", false, true),
    ] {
        let (one, two) = keys;
        source.execute(&format!(
            "BEGIN; INSERT INTO tab_full VALUES ({one}); INSERT INTO tab_full VALUES ({two}); PREPARE TRANSACTION 'test_prepared_tab'"
        ));
        if crash_replica {
            replica.kill();
        }
        if crash_primary {
            drop(source);
            primary.restart("immediate");
            source = primary.db();
        }
        if crash_replica {
            replica.start_again();
            db = replica.db();
        }
        source.execute(&format!("{end} PREPARED 'test_prepared_tab'"));
        wait_for_subscription(&replica, &primary, &source, "tap_sub");
        let expected = if end == "COMMIT" { format!("{one},{two}") } else { String::new() };
        assert_eq!(
            rows(&db, &format!("{one}, {two}")),
            expected,
            "{end}, crash of the replica {crash_replica}, of the primary {crash_primary}"
        );
    }

    // A savepoint in it, and an empty name.
    source.execute("BEGIN; INSERT INTO tab_full VALUES (21); SAVEPOINT sp_inner; INSERT INTO tab_full VALUES (22); ROLLBACK TO sp_inner; PREPARE TRANSACTION 'outer'");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(prepared_count(), 1);
    source.execute("COMMIT PREPARED 'outer'");
    source.execute("BEGIN; INSERT INTO tab_full VALUES (51); PREPARE TRANSACTION ''");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!((prepared_count(), rows(&db, "21, 22, 51").as_str()), (1, "21"));
    source.execute("ROLLBACK PREPARED ''");
    source.execute("INSERT INTO tab_full VALUES (31)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!((prepared_count(), rows(&db, "31, 51").as_str()), (0, "31"));

    // Two subscriptions, of which one takes rows that are here for the primary's; one prepared transaction is for one of them.
    create(&db, &primary, "tap_sub_copy", "PUBLICATION tap_pub_copy WITH (two_phase = on, copy_data = false)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_copy");
    source.execute("BEGIN; INSERT INTO tab_copy VALUES (99); PREPARE TRANSACTION 'mygid'");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_copy");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT a FROM tab_copy"), ["88"]);
    source.execute("COMMIT PREPARED 'mygid'");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_copy");
    assert_eq!(db.lines("SELECT a FROM tab_copy ORDER BY a"), ["88", "99"]);
    db.execute("DROP SUBSCRIPTION tap_sub_copy");

    // 023: streamed before they are prepared.
    db.execute("ALTER SUBSCRIPTION tap_sub SET (streaming = on)");
    let large = "INSERT INTO test_tab SELECT i, md5(i::text) FROM generate_series(3, 5000) i; UPDATE test_tab SET b = md5(b) WHERE a % 2 = 0; DELETE FROM test_tab WHERE a % 3 = 0";
    let own = "SELECT count(*), count(c), count(CASE WHEN d = 999 THEN 1 END) FROM test_tab";
    let mut streamed = streamed_count(&source, "tap_sub");
    for (end, between, crash, expected) in [
        ("COMMIT", "", false, "3334"),
        ("ROLLBACK", "", false, "2"),
        ("COMMIT", "", true, "3334"),
        ("ROLLBACK", "INSERT INTO test_tab VALUES (99999, 'foobar')", false, "3"),
        ("COMMIT", "INSERT INTO test_tab VALUES (99999, 'foobar')", false, "3335"),
    ] {
        let what = format!("{end}, with \"{between}\", after a crash: {crash}");
        source.execute("DELETE FROM test_tab WHERE a > 2");
        source.execute(&format!("BEGIN; {large}; PREPARE TRANSACTION 'test_prepared_tab'"));
        if crash {
            replica.kill();
            drop(source);
            primary.restart("immediate");
            source = primary.db();
            replica.start_again();
            db = replica.db();
        } else {
            wait_for_subscription(&replica, &primary, &source, "tap_sub");
            assert_eq!((prepared_count(), db.value("SELECT count(*) FROM test_tab").as_str()), (1, "2"), "{what}");
            streamed += 1;
            wait_streamed(&source, "tap_sub", streamed);
        }
        if !between.is_empty() {
            source.execute(between);
            wait_for_subscription(&replica, &primary, &source, "tap_sub");
            assert_eq!(db.value("SELECT count(*) FROM test_tab"), "3", "{what}");
        }
        source.execute(&format!("{end} PREPARED 'test_prepared_tab'"));
        wait_for_subscription(&replica, &primary, &source, "tap_sub");
        assert_eq!(db.lines(own), [format!("{expected}|{expected}|{expected}")], "{what}");
        assert_eq!(prepared_count(), 0, "{what}");
        streamed = streamed_count(&source, "tap_sub");
    }
    // 022: what was streamed after a savepoint and rolled back to it.
    source.execute("DELETE FROM test_tab WHERE a > 2");
    source.execute(&format!("BEGIN; INSERT INTO test_tab VALUES (9999, 'foobar'); SAVEPOINT sp_inner; {large}; ROLLBACK TO sp_inner; PREPARE TRANSACTION 'outer'"));
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!((prepared_count(), db.value("SELECT count(*) FROM test_tab").as_str()), (1, "2"));
    source.execute("COMMIT PREPARED 'outer'");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT a FROM test_tab ORDER BY a"), ["1", "2", "9999"]);
    assert_eq!(db.lines("SELECT a, b FROM test_tab ORDER BY a"), source.lines("SELECT a, b FROM test_tab ORDER BY a"));

    db.execute("DROP SUBSCRIPTION tap_sub");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
    for gone in ["pg_subscription", "pg_subscription_rel", "pg_replication_origin"] {
        assert_eq!(db.value(&format!("SELECT count(*) FROM {gone}")), "0", "{gone}");
    }
    assert!(!prepared_folder.join("subscription_16384").exists() && prepared_count() == 0);
}
