//! `strand_replication_status`: where replication is, what our slot costs the primary, and that looking at it costs nothing else.

use strandline_tests::replica::Options;
use strandline_tests::{Primary, Replica, wait_until};

#[test]
fn lag_kept_log_errors_and_retries_are_shown() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let config = "subscriptions:\n  slot_check_interval_ms: 50\n  slot_wal_warning: 2MB\n".to_owned();
    let replica = Replica::start(Some(&primary), &Options { config, ..Options::default() });
    replica.catch_up(&primary, &source);
    let db = replica.db();
    let is = |condition: &str| {
        wait_until(
            || db.value(&format!("SELECT coalesce(bool_and({condition}), false) FROM strand_replication_status")) == "t",
            || format!("{condition}: {:?}\n{}", db.lines("SELECT * FROM strand_replication_status"), replica.log()),
        );
    };
    source.execute("INSERT INTO t VALUES (2, 'b')");
    replica.catch_up(&primary, &source);
    // A look from before the transaction knows less.
    is("transactions = 1 AND primary_lsn >= durable_lsn AND lag_bytes = 0 AND lag_seconds = 0");
    assert_eq!(
        db.lines("SELECT subscription, database, branch, state, slot_name, slot_wal_status, tables, errors, last_error, next_retry FROM strand_replication_status"),
        ["strandline|postgres|main|streaming|strandline|reserved|{\"public.t\": \"r\"}|0||"]
    );
    is("applied_lsn = durable_lsn AND received_lsn >= durable_lsn AND slot_wal_bytes < 2000000 AND slot_safe_wal_size IS NULL");
    is("last_commit_time BETWEEN now() - interval '1 minute' AND now() AND primary_time BETWEEN now() - interval '1 minute' AND now()");
    assert!(replica.complaints().is_empty(), "{:?}", replica.complaints());

    // A smart shutdown waits for every client: one that stays would hold it up for ever.
    drop(source);
    primary.stop("smart");
    is("state = 'waiting' AND next_retry > last_error_time AND errors > 0");
    primary.start_again();
    let source = primary.db();
    replica.catch_up(&primary, &source);
    is("state = 'streaming' AND next_retry IS NULL AND errors > 0 AND last_error IS NOT NULL");

    // Replication that has given up makes the primary keep its log.
    db.execute("INSERT INTO t VALUES (3, 'ours')");
    db.execute("SELECT dolt_commit('-Am', 'ours')");
    source.execute("INSERT INTO t VALUES (3, 'theirs')");
    is("state = 'failed' AND next_retry IS NULL AND last_error LIKE '%duplicate key%'");
    source.execute("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(10, 5000) g");
    is("slot_wal_bytes > 4000000 AND lag_bytes > 4000000 AND lag_seconds > 0");
    wait_until(
        || {
            replica
                .complaints()
                .iter()
                .any(|line| line.contains("keep more of its log than subscriptions.slot_wal_warning") && line.contains("limit=2097152"))
        },
        || format!("a warning: {:?}", replica.complaints()),
    );
}
