//! Large transactions that the primary sends while they run, and what applications say about theirs, with the server as a process.

use strandline_tests::replica::Options;
use strandline_tests::{Db, Primary, Replica, wait_until};

const ROWS: &str = "INSERT INTO t SELECT g, 'value number ' || g, g * 2 FROM generate_series(";

/// What the server may take while it applies a transaction of a million rows.
const MEMORY_MAX: u64 = 512 << 20;

fn publish(source: &Db) {
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n bigint); CREATE TABLE u (id int PRIMARY KEY)");
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
}

fn sums(db: &Db) -> String {
    db.lines("SELECT count(*), sum(id), sum(n), min(v), max(v) FROM t").remove(0)
}

fn spool_count(replica: &Replica) -> usize {
    std::fs::read_dir(replica.data_dir().join("spool/strandline")).map_or(0, Iterator::count)
}

#[test]
fn a_kill_in_the_middle_of_a_stream_loses_and_repeats_nothing() {
    let primary = Primary::start(&["logical_decoding_work_mem = '64kB'"]);
    let (source, other) = (primary.db(), primary.db());
    publish(&source);
    let options = Options { replication: vec!["stream_memory: 100kB".into()], ..Options::default() };
    let mut replica = Replica::start(Some(&primary), &options);
    replica.catch_up(&primary, &source);
    other.execute("BEGIN");
    for round in 0..6 {
        other.execute(&format!("{ROWS}{}, {}) g", round * 5000 + 1, round * 5000 + 5000));
        if round == 3 {
            other.execute("SAVEPOINT s; UPDATE t SET v = 'gone'; ROLLBACK TO s; DELETE FROM t WHERE id % 3 = 0");
        }
        source.execute(&format!("INSERT INTO u VALUES ({round})"));
        replica.catch_up(&primary, &source);
        wait_until(|| spool_count(&replica) == 1, || format!("a file of kept messages:\n{}", replica.log()));
        replica.kill();
        replica.start_again();
    }
    // And while the end of it arrives.
    other.execute("COMMIT");
    replica.kill();
    replica.start_again();
    replica.catch_up(&primary, &source);
    assert_eq!(spool_count(&replica), 0);
    let db = replica.db();
    assert_eq!(sums(&db), sums(&source));
    assert_eq!(db.value("SELECT count(*) FROM u"), "6");
    // Each transaction is one commit, and the base commit is one.
    assert_eq!(db.value("SELECT count(*) FROM dolt_log WHERE source_lsn IS NOT NULL"), "8");
    drop(db);
    replica.stop();
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

#[test]
fn a_transaction_of_a_million_rows_takes_a_bounded_memory() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    publish(&source);
    let replica = Replica::start(Some(&primary), &Options { config: "storage:\n  cache_size: 64MiB".into(), ..Options::default() });
    replica.catch_up(&primary, &source);
    source.execute(&format!("{ROWS}1, 1000000) g"));
    replica.catch_up(&primary, &source);
    assert_eq!(source.value("SELECT stream_txns FROM pg_stat_replication_slots"), "1");
    let peak = replica.peak_memory();
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
    assert_eq!(sums(&replica.db()), sums(&source));
}

#[test]
fn what_an_application_says_is_a_column_of_the_log_and_of_the_rows_history() {
    let primary = Primary::start(&["max_prepared_transactions = 5"]);
    let source = primary.db();
    publish(&source);
    let options = Options { replication: vec!["two_phase: on".into()], ..Options::default() };
    let mut replica = Replica::start(Some(&primary), &options);
    replica.catch_up(&primary, &source);
    let say = |user: &str| format!("SELECT pg_logical_emit_message(true, 'strandline', '{{\"user\": \"{user}\", \"request\": 7}}')");
    source.execute(&format!("BEGIN; {}; INSERT INTO t VALUES (1, 'a', 1); COMMIT", say("ann")));
    source.execute(&format!("BEGIN; UPDATE t SET v = 'b'; {}; PREPARE TRANSACTION 'later'", say("bob")));
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(db.lines("SELECT source_context->>'user' FROM dolt_log WHERE source_context IS NOT NULL"), ["ann"]);
    assert_eq!(db.lines("SELECT substream, subtwophasestate FROM pg_subscription"), ["t|e"]);
    drop(db);
    replica.kill();
    replica.start_again();
    source.execute("COMMIT PREPARED 'later'");
    source.execute("UPDATE t SET v = 'c'");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    let users = "SELECT source_context->>'user', to_v FROM dolt_diff_t WHERE to_id = 1 ORDER BY to_v";
    assert_eq!(db.lines(users), ["ann|a", "bob|b", "|c"]);
    assert_eq!(db.value("SELECT v FROM t"), "c");
}
