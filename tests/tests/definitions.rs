//! Tables that change on the primary while they are followed: followed here, or a stop that says what to do
//! (`stopped_tables` has more of that); never rows that silently differ.

use strandline_tests::replica::Options;
use strandline_tests::subscriptions::{create, make, subscriber, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, wait_until};

fn started(schema: &str) -> (Primary, Db, Replica) {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(schema);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    (primary, source, replica)
}

fn lines(db: &Db, table: &str) -> Vec<String> {
    let mut lines = db.lines(&format!("SELECT * FROM {table}"));
    lines.sort();
    lines
}

#[test]
fn columns_added_renamed_and_dropped_on_the_primary_are_so_here_with_the_values_of_old_rows() {
    let (primary, source, mut replica) = started(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int);
         INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2);
         CREATE TABLE wide (id int PRIMARY KEY, v varchar(3), n numeric(4,1));
         INSERT INTO wide VALUES (1, 'abc', 1.5)",
    );
    let steps = [
        "ALTER TABLE t ADD COLUMN x int DEFAULT 7, ADD COLUMN y text; INSERT INTO t VALUES (3, 'c', 3, 33)",
        "ALTER TABLE t RENAME COLUMN v TO w; INSERT INTO t VALUES (4, 'd')",
        "ALTER TABLE t RENAME COLUMN w TO z; ALTER TABLE t RENAME COLUMN y TO w; ALTER TABLE t RENAME COLUMN z TO y; INSERT INTO t VALUES (5, 'y', 5, 5, 'w')",
        "ALTER TABLE t DROP COLUMN n; UPDATE t SET y = 'dropped' WHERE id = 1",
        "ALTER TABLE t ADD COLUMN n text DEFAULT 'again'; UPDATE t SET n = 'other' WHERE id = 2",
        "ALTER TABLE t RENAME COLUMN id TO key; DELETE FROM t WHERE key = 3",
        "BEGIN; INSERT INTO t VALUES (6, 'six'); ALTER TABLE t ADD COLUMN late int DEFAULT 1; INSERT INTO t VALUES (7, 'seven');
         ALTER TABLE t RENAME COLUMN late TO later; UPDATE t SET later = 2 WHERE key = 7; COMMIT",
        "ALTER TABLE t RENAME TO moved; CREATE SCHEMA other; ALTER TABLE moved SET SCHEMA other; ALTER TABLE other.moved RENAME TO t; UPDATE other.t SET x = 1 WHERE key = 1",
        "ALTER TABLE other.t SET SCHEMA public; INSERT INTO t VALUES (8, 'back')",
        "ALTER TABLE wide ALTER v TYPE varchar(30), ALTER n TYPE numeric(9,1); INSERT INTO wide VALUES (2, 'abcdefgh', 12345678.9)",
    ];
    source.execute(
        "BEGIN; CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1); ALTER TABLE late ADD COLUMN v text DEFAULT 'v';
         INSERT INTO late VALUES (2, 'w'); ALTER TABLE late RENAME TO later; INSERT INTO later VALUES (3); COMMIT",
    );
    replica.catch_up(&primary, &source);
    assert_eq!(lines(&replica.db(), "later"), lines(&source, "later"));
    for step in steps {
        source.execute(step);
        replica.catch_up(&primary, &source);
        let table = if step.contains("UPDATE other.t") { "other.t" } else { "t" };
        for table in [table, "wide"] {
            assert_eq!(lines(&replica.db(), table), lines(&source, table), "{table} after {step}");
        }
    }
    // What happens while the replica is away arrives in order when the primary's catalog is far ahead.
    replica.stop();
    source.execute("ALTER TABLE t ADD COLUMN p int DEFAULT 1; INSERT INTO t (key) VALUES (20)");
    source.execute("ALTER TABLE t RENAME COLUMN y TO yy; INSERT INTO t (key, yy) VALUES (21, 'yy')");
    source.execute("ALTER TABLE t RENAME COLUMN p TO q; INSERT INTO t (key, q) VALUES (22, 2)");
    replica.start_again();
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(lines(&db, "t"), lines(&source, "t"));
    let columns =
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 't' ORDER BY 1";
    assert_eq!(db.lines(columns), source.lines(columns));
    // Older commits have the table as it was.
    let base = db.value("SELECT commit_hash FROM dolt_log WHERE message LIKE 'initial copy%'");
    assert_eq!(db.lines(&format!("SELECT id, v, n FROM t AS OF '{base}' ORDER BY id")), ["1|a|1", "2|b|2"]);
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// Who has errors disable the subscription, so that everything waits, can do here by hand what was done there.
#[test]
fn what_the_stream_cannot_tell_goes_on_after_the_same_was_done_here_where_everything_waits_for_it() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2); CREATE PUBLICATION p FOR ALL TABLES");
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "s", "PUBLICATION p WITH (disable_on_error = true)");
    wait_for_subscription(&replica, &primary, &source, "s");
    let again = |what: &[&str], sql: &str| {
        wait_until(|| db.value("SELECT subenabled FROM pg_subscription") == "f", || "the subscription to be disabled".into());
        let error = db.value("SELECT last_error FROM pg_stat_subscription");
        assert!(what.iter().all(|part| error.contains(part)), "{error}");
        make(&db, sql);
        db.execute("ALTER SUBSCRIPTION s ENABLE");
        wait_for_subscription(&replica, &primary, &source, "s");
        assert_eq!(lines(&db, "t"), lines(&source, "t"));
    };
    // The primary rewrote the table, perhaps with other values.
    source.execute("ALTER TABLE t ALTER n TYPE bigint USING n * 10; INSERT INTO t VALUES (3, 30000000000)");
    again(&["\"n\"", "bigint", "integer", "ALTER TABLE"], "ALTER TABLE t ALTER n TYPE bigint USING n * 10");
    // Each row has another value.
    source.execute("ALTER TABLE t ADD COLUMN s serial; INSERT INTO t VALUES (4, 4)");
    again(&["\"s\"", "default"], "ALTER TABLE t ADD COLUMN s int; UPDATE t SET s = id");
    // Another table of the same name.
    source.execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int, s int); INSERT INTO t VALUES (9, 9, 9)");
    again(&["public.t", "another table"], "TRUNCATE t");
}

#[test]
fn a_table_that_was_filled_before_it_was_published_is_copied_first() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source
        .execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u SELECT generate_series(1, 1000)");
    source.execute("CREATE TABLE v (id int PRIMARY KEY); INSERT INTO v VALUES (1); CREATE PUBLICATION strandline FOR TABLE t");
    source.execute("CREATE TABLE w (id int PRIMARY KEY, n int); INSERT INTO w VALUES (1, 1), (2, 1)");
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    source.execute("ALTER PUBLICATION strandline ADD TABLE u");
    source.execute("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1001); DELETE FROM u WHERE id <= 10");
    source.execute("INSERT INTO u VALUES (1002); INSERT INTO t VALUES (2)");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    // It joins beside the stream.
    wait_until(|| db.value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == "2", || replica.log());
    assert_eq!(db.lines("SELECT count(*), min(id), max(id) FROM u"), ["992|11|1002"]);
    assert_eq!(lines(&db, "t"), ["1", "2"]);
    assert_eq!(db.lines("SELECT srrelid::regclass, srsubstate FROM pg_subscription_rel ORDER BY 1"), ["t|r", "u|r"]);
    // Of one whose rows the first transaction has all written anew, only the kind of change tells.
    source.execute("ALTER PUBLICATION strandline ADD TABLE w; UPDATE w SET n = 2");
    wait_until(|| db.value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == "3", || replica.log());
    source.execute("INSERT INTO w VALUES (3, 3)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT id, n FROM w ORDER BY id"), ["1|2", "2|2", "3|3"]);
    // One to which nothing happens comes by REFRESH.
    source.execute("ALTER PUBLICATION strandline ADD TABLE v");
    replica.catch_up(&primary, &source);
    assert_eq!(db.sqlstate("SELECT * FROM v"), "42P01");
    db.execute("ALTER SUBSCRIPTION strandline REFRESH PUBLICATION");
    wait_until(|| db.value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'") == "4", || replica.log());
    assert_eq!(lines(&db, "v"), ["1"]);
    // The position is the stream's, not that of a copy: nothing is lost or repeated after a kill.
    source.execute("INSERT INTO t VALUES (3); INSERT INTO v VALUES (2)");
    replica.catch_up(&primary, &source);
    replica.kill();
    replica.start_again();
    source.execute("INSERT INTO u VALUES (1003)");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!((lines(&db, "t"), lines(&db, "v")), (vec!["1".to_owned(), "2".into(), "3".into()], vec!["1".to_owned(), "2".into()]));
    assert_eq!(db.value("SELECT count(*) FROM u"), "993");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "1");
    assert_eq!(replica.complaints(), [""; 0]);
}

/// A walsender sends a commit before other sessions see it: the definition has to be read after they do.
#[test]
fn a_definition_is_read_when_the_transaction_is_visible() {
    let (primary, source, replica) = started("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')");
    // A standby that never comes keeps every commit, sent already, from becoming visible.
    source.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    source.execute("SELECT pg_reload_conf()");
    let writer = primary.db();
    wait_until(|| writer.value("SHOW synchronous_standby_names") == "nobody", || "the setting".into());
    // Commits wait once the checkpointer has seen it, too: before it takes up the second request.
    writer.execute("CHECKPOINT");
    writer.execute("CHECKPOINT");
    let writing = std::thread::spawn(move || writer.execute("ALTER TABLE t RENAME COLUMN id TO key; INSERT INTO t VALUES (2, 'b')"));
    let asks = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'strandline' AND query LIKE '%pg_current_snapshot%'";
    wait_until(|| source.value(asks) == "t", || "the replica to wait for the transaction".into());
    source.execute("ALTER SYSTEM RESET synchronous_standby_names");
    source.execute("SELECT pg_reload_conf()");
    writing.join().expect("the writer");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(db.lines("SELECT key, v FROM t ORDER BY key"), ["1|a", "2|b"]);
    assert_eq!(replica.complaints(), Vec::<String>::new());
}
