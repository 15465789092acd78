//! Tables that cannot follow the primary any more: each stops alone, says why and what brings it back, and comes back as it is there, whatever happens meanwhile.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandline_tests::ledger::campaign_count;
use strandline_tests::proxy::Proxy;
use strandline_tests::replica::Options;
use strandline_tests::sample::picture;
use strandline_tests::subscriptions::{create, make, subscriber, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, wait_until};

/// The state of a table by PostgreSQL's letters; `x`, which is ours: it is stopped.
fn state(db: &Db, table: &str) -> String {
    let sql = format!("SELECT tables ->> 'public.{table}' FROM strand_replication_status WHERE tables ->> 'public.{table}' IS NOT NULL");
    db.lines(&sql).concat()
}

/// What is told of a stopped table: `since`, `reason` or `fix`.
fn told(db: &Db, table: &str, what: &str) -> String {
    let of_table = format!("stopped_tables -> 'public.{table}' ->> '{what}'");
    db.lines(&format!("SELECT {of_table} FROM strand_replication_status WHERE {of_table} IS NOT NULL")).concat()
}

fn wait_for_state(replica: &Replica, db: &Db, table: &str, wanted: &str) {
    wait_until(|| state(db, table) == wanted, || format!("{table} to be {wanted}, not {}: {}", state(db, table), replica.log()));
}

/// The stream has passed all that the primary has written, whatever tables are being copied.
fn wait_for_stream(primary: &Primary, source: &Db, slot: &str) {
    let lsn = primary.lsn(source);
    primary.wait_confirmed(source, slot, &lsn);
}

fn assert_same(ours: &Db, theirs: &Db, tables: &[&str]) {
    for table in tables {
        assert_eq!(picture(ours, table), picture(theirs, table), "{table}");
        let columns = format!(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 \
             AND NOT attisdropped ORDER BY attname"
        );
        assert_eq!(ours.lines(&columns), theirs.lines(&columns), "{table}");
        let indexes = format!("SELECT indexrelid::regclass FROM pg_index WHERE indrelid = '{table}'::regclass ORDER BY 1");
        assert_eq!(ours.lines(&indexes), theirs.lines(&indexes), "{table}");
    }
}

/// Statements that end in more than a transaction's worth of messages that is kept in memory.
fn many(table: &str, first: u32) -> String {
    format!("INSERT INTO {table} SELECT g, repeat('x', 4000) FROM generate_series({first}, {first} + 1499) g")
}

#[test]
fn a_table_that_cannot_follow_stops_alone_and_comes_back_as_it_is_on_the_primary() {
    let primary = Primary::start(&["logical_decoding_work_mem = 64kB"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v text); INSERT INTO t VALUES (1, 1, 'one'), (2, 2, 'two');
         CREATE TABLE u (id int PRIMARY KEY, v text);
         CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w VALUES (1, 1), (2, 2);
         CREATE TABLE child (id int PRIMARY KEY, t int CONSTRAINT up REFERENCES t (id)); INSERT INTO child VALUES (1, 1);
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let proxy = Proxy::start(primary.port(), 0);
    let mut replica = Replica::start(Some(&primary), &Options { primary_port: Some(proxy.port()), ..Options::default() });
    replica.catch_up(&primary, &source);
    let db = replica.db();
    // With something of ours in it, a table waits for the user before it is replaced.
    make(&db, "CREATE INDEX ours ON t (n); CREATE INDEX ours_too ON w (n)");
    let before = primary.lsn(&source);
    let (old_t, old_w) = (picture(&db, "t"), picture(&db, "w"));

    // The others go on in the very same transaction; of the table nothing of it is here, not even what came before its change.
    source.execute(
        "BEGIN; INSERT INTO u VALUES (1, 'with t'); INSERT INTO t VALUES (10, 10, 'left out'); ALTER TABLE t ADD COLUMN s serial;
         INSERT INTO t (id) VALUES (11); INSERT INTO u VALUES (2, 'with t'); COMMIT",
    );
    replica.catch_up(&primary, &source);
    assert_eq!((picture(&db, "t"), picture(&db, "u")), (old_t.clone(), picture(&source, "u")));
    assert_eq!(db.value("SELECT count(*) FROM dolt_diff_u WHERE to_commit = (SELECT commit_hash FROM dolt_log LIMIT 1)"), "2");
    let check_t = |db: &Db| {
        assert_eq!((state(db, "t"), state(db, "u")), ("x".into(), "r".into()));
        assert_eq!(db.value("SELECT srsubstate FROM pg_subscription_rel WHERE srrelid = 't'::regclass"), "x");
        let reason = told(db, "t", "reason");
        assert!(reason.contains("\"s\"") && reason.contains("default"), "{reason}");
        assert_eq!(told(db, "t", "fix"), "ALTER SUBSCRIPTION \"strandline\" REFRESH PUBLICATION");
        assert_eq!(db.value("SELECT state FROM strand_replication_status"), "streaming");
    };
    check_t(&db);
    let since = told(&db, "t", "since");
    assert_eq!(db.value(&format!("SELECT '{since}'::pg_lsn > '{before}'::pg_lsn")), "t");
    let error = db.value("SELECT last_error FROM pg_stat_subscription");
    assert!(error.contains("public.t") && error.contains("\"s\"") && error.contains("REFRESH PUBLICATION"), "{error}");
    let complaints = replica.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("public.t") && complaints[0].contains("REFRESH PUBLICATION"), "{complaints:?}");

    // It stays so, whatever becomes of us.
    replica.kill();
    source.execute("INSERT INTO t VALUES (12, 12, 'later'); INSERT INTO u VALUES (3, 'later'); DELETE FROM t WHERE id = 2");
    replica.start_again();
    replica.catch_up(&primary, &source);
    let db = replica.db();
    check_t(&db);
    assert_eq!((picture(&db, "t"), told(&db, "t", "since")), (old_t.clone(), since));
    assert_eq!(picture(&db, "u"), picture(&source, "u"));

    // In the middle of a large transaction that is streamed, and killed right after.
    source.execute(&format!(
        "BEGIN; {}; INSERT INTO w VALUES (100, 1); ALTER TABLE w ALTER n TYPE bigint USING n * 10; INSERT INTO w VALUES (101, 30000000000); {}; COMMIT",
        many("u", 1000),
        many("u", 5000)
    ));
    wait_for_state(&replica, &db, "w", "x");
    replica.kill();
    replica.start_again();
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!((picture(&db, "w"), picture(&db, "u")), (old_w.clone(), picture(&source, "u")));
    let reason = told(&db, "w", "reason");
    assert!(reason.contains("\"n\"") && reason.contains("bigint") && reason.contains("integer"), "{reason}");
    check_t(&db);

    // All that may happen to them meanwhile.
    source.execute(
        "ALTER TABLE t RENAME COLUMN v TO label; UPDATE t SET label = 'renamed' WHERE id = 1; ALTER TABLE t DROP COLUMN n; CREATE INDEX by_label ON t (label);
         INSERT INTO t (id) VALUES (13); ALTER TABLE w RENAME TO moved; INSERT INTO moved VALUES (102, 1); INSERT INTO u VALUES (4, 'and')",
    );
    replica.catch_up(&primary, &source);
    assert_eq!((picture(&db, "t"), picture(&db, "w"), picture(&db, "u")), (old_t.clone(), old_w.clone(), picture(&source, "u")));
    assert_eq!(state(&db, "w"), "x");

    // The way back, with changes during the copy, a crash in its middle, and one more.
    let copying = "FROM ONLY \"public\".\"t\") TO STDOUT";
    proxy.hold(copying);
    db.execute(&told(&db, "t", "fix"));
    wait_until(|| proxy.holds(copying), || format!("the copy: {}", replica.log()));
    source.execute(
        "INSERT INTO t (id, label) VALUES (20, 'during'); UPDATE t SET label = 'changed' WHERE id = 12; INSERT INTO u VALUES (5, 'during')",
    );
    wait_for_stream(&primary, &source, "strandline");
    assert_eq!((picture(&db, "t"), picture(&db, "u")), (old_t.clone(), picture(&source, "u")));
    replica.kill();
    proxy.release(copying);
    source.execute("DELETE FROM t WHERE id = 13");
    replica.start_again();
    let db = replica.db();
    source.execute("INSERT INTO t (id, label) VALUES (21, 'after')");
    for table in ["t", "moved"] {
        wait_for_state(&replica, &db, table, "r");
    }
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, &["t", "moved", "u", "child"]);
    assert_eq!(db.sqlstate("SELECT * FROM w"), "42P01");
    assert_eq!(told(&db, "t", "reason"), "");
    assert_eq!(db.value("SELECT count(*) FROM pg_constraint WHERE conname = 'up' AND confrelid = 't'::regclass"), "1");
    // Its history is whole: what it was before it was stopped, until the one commit that brought it up to date.
    assert_eq!(picture(&db, &format!("t AS OF LSN '{before}'")), old_t);
    assert_eq!(picture(&db, &format!("w AS OF LSN '{before}'")), old_w);
    let copies = db.lines("SELECT commit_hash FROM dolt_log WHERE message LIKE 'copy of table public.t at %'");
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(picture(&db, &format!("t AS OF '{}~1'", copies[0])), old_t);
    let joined = db.value("SELECT srsublsn FROM pg_subscription_rel WHERE srrelid = 't'::regclass");
    assert_eq!(db.value(&format!("SELECT count(*) FROM t AS OF LSN '{joined}' WHERE label = 'changed'")), "1");

    // It follows again, stops again, and comes back again; the last time after it was dropped here.
    source.execute(
        "UPDATE t SET label = 'followed' WHERE id = 1; ALTER TABLE t ADD COLUMN more int DEFAULT 3; INSERT INTO t (id) VALUES (30)",
    );
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, &["t"]);
    make(&db, "CREATE INDEX ours ON t (label)");
    for (column, is_dropped) in [("r float8 DEFAULT random()", false), ("at timestamptz DEFAULT clock_timestamp()", true)] {
        source.execute(&format!(
            "ALTER TABLE t ADD COLUMN {column}; UPDATE t SET label = 'again' WHERE id = 1; INSERT INTO u VALUES ({}, 'again')",
            100 + column.len()
        ));
        replica.catch_up(&primary, &source);
        assert_eq!((state(&db, "t"), picture(&db, "u")), ("x".into(), picture(&source, "u")), "{column}");
        if is_dropped {
            make(&db, "DROP TABLE t CASCADE");
        }
        db.execute("ALTER SUBSCRIPTION strandline REFRESH PUBLICATION");
        wait_for_state(&replica, &db, "t", "r");
        source.execute("UPDATE t SET label = 'and on' WHERE id = 12");
        replica.catch_up(&primary, &source);
        assert_same(&db, &source, &["t"]);
        make(&db, "CREATE INDEX ours ON t (label)");
    }
    // Where it is as it was made, its new copy begins by itself; not for ever.
    for number in 1..=4 {
        let change = format!("ALTER TABLE child ADD COLUMN s{number} serial; INSERT INTO child (id) VALUES ({number}0)");
        source.execute(&format!("BEGIN; INSERT INTO u VALUES (20{number}, 'with child'); {change}; COMMIT"));
        replica.catch_up(&primary, &source);
        assert_eq!(picture(&db, "u"), picture(&source, "u"));
        if number < 4 {
            wait_for_state(&replica, &db, "child", "r");
            assert_same(&db, &source, &["child"]);
        } else {
            assert_eq!(state(&db, "child"), "x");
        }
        if number == 2 {
            let complaints = replica.complaints();
            assert!(complaints.iter().any(|line| line.contains("public.child") && line.contains("is copied anew")), "{complaints:?}");
        }
    }
    assert_eq!(
        db.value("SELECT count(*) - count(DISTINCT source_xid) FROM dolt_log WHERE source_xid > 0"),
        "0",
        "no transaction is here twice"
    );
    assert_eq!(source.lines("SELECT slot_name FROM pg_replication_slots"), ["strandline"]);
}

#[test]
fn stopped_tables_of_subscriptions_come_back_by_refresh_and_errors_of_a_subscription_stay_its_own() {
    let primary = Primary::start(&["max_prepared_transactions = 5"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, '1'), (2, '2');
         CREATE TABLE b (id int PRIMARY KEY, v text);
         CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (1, 'one');
         CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (1);
         CREATE PUBLICATION p FOR TABLE a, b, c, d;
         CREATE TABLE e (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY); INSERT INTO e VALUES (1); CREATE PUBLICATION two FOR TABLE e, f;
         CREATE TABLE g (id int PRIMARY KEY, n int); INSERT INTO g VALUES (1, 1); CREATE PUBLICATION three FOR TABLE g",
    );
    let replica = subscriber();
    let db = replica.db();
    // A table here that holds what is there only for now.
    make(&db, "CREATE TABLE a (id int PRIMARY KEY, v int, ours text DEFAULT 'o')");
    create(&db, &primary, "s", "PUBLICATION p WITH (streaming = off)");
    create(&db, &primary, "two", "PUBLICATION two WITH (two_phase = true)");
    create(&db, &primary, "three", "PUBLICATION three WITH (disable_on_error = true)");
    for slot in ["s", "two", "three"] {
        wait_for_subscription(&replica, &primary, &source, slot);
    }
    assert_eq!(db.lines("SELECT * FROM a ORDER BY id"), ["1|1|o", "2|2|o"]);

    make(&db, "CREATE INDEX ours_c ON c (v); INSERT INTO d VALUES (50); CREATE INDEX ours_e ON e (id)");
    // A row that does not fit.
    source.execute("BEGIN; INSERT INTO b VALUES (1, 'b'); INSERT INTO a VALUES (3, '3'), (4, 'four'); COMMIT");
    wait_for_stream(&primary, &source, "s");
    assert_eq!((state(&db, "a"), db.lines("SELECT * FROM b")), ("x".into(), vec!["1|b".to_owned()]));
    assert_eq!(db.value("SELECT count(*) FROM a"), "2");
    assert!(told(&db, "a", "reason").contains("column \"v\""), "{}", told(&db, "a", "reason"));
    // In the middle of a large transaction that is not streamed: the primary sends it again.
    source.execute(&format!(
        "BEGIN; {}; INSERT INTO c VALUES (2, 'two'); ALTER TABLE c ADD COLUMN s serial; INSERT INTO c VALUES (3, 'three'); {}; COMMIT",
        many("b", 1000),
        many("b", 5000)
    ));
    source.execute("ALTER TABLE d ADD COLUMN s serial; INSERT INTO d VALUES (2); INSERT INTO b VALUES (2, 'last')");
    wait_for_stream(&primary, &source, "s");
    assert_eq!((state(&db, "c"), state(&db, "d"), state(&db, "b")), ("x".into(), "x".into(), "r".into()));
    assert_eq!(picture(&db, "b"), picture(&source, "b"));
    assert_eq!(
        (db.lines("SELECT * FROM c"), db.lines("SELECT * FROM d ORDER BY id")),
        (vec!["1|one".to_owned()], vec!["1".to_owned(), "50".into()])
    );
    assert_eq!(db.value("SELECT count(*) - count(DISTINCT source_xid) FROM dolt_log WHERE source_xid > 0"), "0");
    // One is made again on the primary, and one goes.
    source.execute("DROP TABLE c, d; CREATE TABLE c (id int PRIMARY KEY, other text); INSERT INTO c VALUES (7, 'seven'); ALTER PUBLICATION p ADD TABLE c");
    source.execute("INSERT INTO c VALUES (8, 'eight'); INSERT INTO b VALUES (3, 'more')");
    wait_for_stream(&primary, &source, "s");
    assert_eq!((state(&db, "c"), db.lines("SELECT * FROM c")), ("x".into(), vec!["1|one".to_owned()]));
    // Without copying, nothing comes back: what is here would differ for ever.
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION WITH (copy_data = false)");
    source.execute("INSERT INTO b VALUES (4, 'more')");
    wait_for_stream(&primary, &source, "s");
    assert_eq!((state(&db, "a"), state(&db, "c"), state(&db, "d")), ("x".into(), "x".into(), String::new()));
    db.execute(&told(&db, "a", "fix"));
    wait_for_state(&replica, &db, "a", "r");
    wait_for_state(&replica, &db, "c", "r");
    source.execute("UPDATE a SET v = 'six' WHERE id = 1; UPDATE c SET other = 'nine' WHERE id = 8; INSERT INTO b VALUES (5, 'more')");
    wait_for_stream(&primary, &source, "s");
    assert_same(&db, &source, &["a", "b", "c"]);
    // Followed under its new oid from now on.
    source.execute("ALTER TABLE c RENAME COLUMN other TO another; INSERT INTO c VALUES (9, 'n'); ALTER TABLE c RENAME TO cc; INSERT INTO cc VALUES (10, 't')");
    wait_for_stream(&primary, &source, "s");
    assert_same(&db, &source, &["cc"]);

    // In a transaction that is prepared first.
    source.execute("BEGIN; INSERT INTO f VALUES (1); ALTER TABLE e ADD COLUMN s serial; INSERT INTO e VALUES (2); PREPARE TRANSACTION 'x'");
    wait_for_stream(&primary, &source, "two");
    source.execute("INSERT INTO f VALUES (2)");
    source.execute("COMMIT PREPARED 'x'");
    source.execute("INSERT INTO e VALUES (3)");
    wait_for_stream(&primary, &source, "two");
    assert_eq!((state(&db, "e"), db.lines("SELECT id FROM f ORDER BY id")), ("x".into(), vec!["1".to_owned(), "2".into()]));
    assert_eq!(db.value("SELECT subtwophasestate FROM pg_subscription WHERE subname = 'two'"), "e");
    source.execute("BEGIN; INSERT INTO e VALUES (4); INSERT INTO f VALUES (3); PREPARE TRANSACTION 'y'");
    wait_for_stream(&primary, &source, "two");
    // The copy's snapshot waits for what is prepared, as every slot does.
    db.execute(&told(&db, "e", "fix"));
    source.execute("COMMIT PREPARED 'y'");
    wait_for_state(&replica, &db, "e", "r");
    source.execute("BEGIN; INSERT INTO e VALUES (5); INSERT INTO f VALUES (4); PREPARE TRANSACTION 'z'");
    source.execute("COMMIT PREPARED 'z'");
    wait_for_stream(&primary, &source, "two");
    assert_same(&db, &source, &["e", "f"]);
    // With nothing stopped it is refused, as in PostgreSQL.
    assert_eq!(db.sqlstate("ALTER SUBSCRIPTION two REFRESH PUBLICATION"), "42601");

    // Who wants errors to disable the subscription has them do so, and loses no table.
    source.execute("ALTER TABLE g ALTER n TYPE bigint USING n * 10; INSERT INTO g VALUES (2, 30000000000)");
    let enabled = "SELECT subenabled FROM pg_subscription WHERE subname = 'three'";
    wait_until(|| db.value(enabled) == "f", || format!("it to be disabled: {}", replica.log()));
    let error = db.value("SELECT last_error FROM pg_stat_subscription WHERE subname = 'three'");
    assert!(error.contains("\"n\"") && error.contains("ALTER TABLE"), "{error}");
    assert_eq!(state(&db, "g"), "r");
    make(&db, "ALTER TABLE g ALTER n TYPE bigint USING n * 10");
    db.execute("ALTER SUBSCRIPTION three ENABLE");
    wait_for_stream(&primary, &source, "three");
    assert_same(&db, &source, &["g"]);
}

/// Killed at any moment between the stop and the end of the new copy, again and again.
#[test]
fn a_table_that_is_copied_anew_is_whole_whenever_the_server_is_killed() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, c int); INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 500) g; CREATE TABLE u (id int PRIMARY KEY);
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    let mut random = StdRng::seed_from_u64(11);
    let rounds = campaign_count(4, 200);
    for round in 1..=rounds {
        let moment = primary.lsn(&source);
        let before = picture(&source, "t");
        // A column of the same name is another one, and one is renamed: what was known of the table before must not be taken for what it is.
        source.execute(&format!(
            "BEGIN; INSERT INTO u VALUES ({round}); ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN c serial; ALTER TABLE t ADD COLUMN r{round} float8 DEFAULT random(); UPDATE t SET v = 'round {round}' WHERE id % 7 = 1; COMMIT"
        ));
        // Up to about twice what the whole takes.
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        replica.kill();
        source.execute(&format!(
            "ALTER TABLE t ADD COLUMN d{round} int DEFAULT {round}; ALTER TABLE t RENAME COLUMN d{round} TO e{round}; INSERT INTO t (id, v) VALUES ({}, 'while away')",
            1000 + round
        ));
        replica.start_again();
        source.execute(&format!(
            "DELETE FROM t WHERE id = {round}; ALTER TABLE t DROP COLUMN e{round}, DROP COLUMN r{round}; UPDATE t SET v = 'last' WHERE id = 500"
        ));
        let db = replica.db();
        replica.catch_up(&primary, &source);
        wait_for_state(&replica, &db, "t", "r");
        assert_same(&db, &source, &["t", "u"]);
        assert_eq!(picture(&db, &format!("t AS OF LSN '{moment}'")), before, "round {round}");
    }
}
