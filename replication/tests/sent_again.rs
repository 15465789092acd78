//! Transactions that are here already and are sent again.
//!
//! PostgreSQL begins where it is asked to begin, so it sends nothing twice to whom it listens. Here it does not hear where we want to begin, and its slot is as old as
//! one that was kept by other means: it sends everything behind what that slot has confirmed.

mod support;

use strandline_replication::{Config, State};
use strandline_tests::proxy::Proxy;
use strandline_tests::{Db, Primary, wait_until};
use support::{Replica, SLOT, utc};

const SETTINGS: [&str; 2] = ["logical_decoding_work_mem = '64kB'", "max_prepared_transactions = 10"];

/// So many transactions are sent again, at least.
const AGAIN: u32 = 3;

/// Rows of a few times what the primary keeps in memory.
const MANY: &str = "generate_series(1, 1500) g";

/// The LSN in START_REPLICATION becomes 0/0, for which the primary takes what the slot has confirmed.
fn forget_the_start(sent: &mut [u8]) {
    const BEFORE: &[u8] = b" LOGICAL ";
    if !sent.windows(17).any(|window| window == b"START_REPLICATION") {
        return;
    }
    let at = sent.windows(BEFORE.len()).position(|window| window == BEFORE).expect("a logical slot") + BEFORE.len();
    for byte in sent[at..].iter_mut().take_while(|byte| **byte != b' ').filter(|byte| **byte != b'/') {
        *byte = b'0';
    }
}

fn on(config: &mut Config) {
    config.two_phase = true;
    config.stream_memory_max = 100_000;
}

fn tables(db: &Db) {
    // What is inserted twice is an error in the first and goes unseen in the others.
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE k (v text); ALTER TABLE k REPLICA IDENTITY FULL");
    db.execute("CREATE TABLE u (id int PRIMARY KEY, n int); INSERT INTO u VALUES (1, 0); CREATE TABLE w (v text, n int)");
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
}

/// Has everything sent again that was written by `write`, and compares what is here then.
fn sent_again(write: impl Fn(&Db)) {
    let primary = Primary::start(&SETTINGS);
    let db = utc(&primary);
    tables(&db);
    let proxy = Proxy::start(primary.port(), 0);
    let mut replica = Replica::new(&primary, on);
    replica.port = proxy.port();
    replica.start();
    replica.wait_for(State::Streaming);
    replica.wait_caught_up(&db);
    db.execute(&format!("SELECT pg_copy_logical_replication_slot('{SLOT}', 'before')"));
    write(&db);
    replica.wait_caught_up(&db);
    let tables = ["t", "k", "u", "w"];
    replica.assert_equal(&db, &tables);
    let commits: Vec<_> = replica.replicated().iter().map(|commit| commit.id).collect();
    replica.stop();
    wait_until(|| db.try_execute(&format!("SELECT pg_drop_replication_slot('{SLOT}')")).is_ok(), || "the walsender to end".into());
    db.execute(&format!("SELECT pg_copy_logical_replication_slot('before', '{SLOT}')"));
    proxy.alter(forget_the_start);
    replica.restart();
    // What was said of the tables in what is here already counts, as it is not said again.
    db.execute("BEGIN; INSERT INTO t VALUES (-1, 'after'); INSERT INTO k VALUES ('after'); UPDATE u SET n = n + 1; INSERT INTO w VALUES ('after', 1); COMMIT");
    replica.wait_caught_up(&db);
    let sent = format!("SELECT total_txns FROM pg_stat_replication_slots WHERE slot_name = '{SLOT}'");
    wait_until(|| db.value(&sent).parse::<u32>().is_ok_and(|sent| sent > AGAIN), || format!("more transactions than {}", db.value(&sent)));
    replica.assert_equal(&db, &tables);
    let ours: Vec<_> = replica.replicated().iter().map(|commit| commit.id).collect();
    assert_eq!(ours[..commits.len()], commits);
    assert_eq!(ours.len(), commits.len() + 1);
}

#[test]
fn a_whole_transaction_is_not_applied_twice() {
    sent_again(|db| {
        db.execute("BEGIN; INSERT INTO k VALUES ('a'), ('a'); COMMIT");
        db.execute("BEGIN; INSERT INTO w VALUES ('w', 1); UPDATE u SET n = n + 1; COMMIT");
        db.execute("BEGIN; INSERT INTO t VALUES (1, 'a'); DELETE FROM k WHERE ctid = '(0,1)'; COMMIT");
    });
}

#[test]
fn a_streamed_transaction_is_not_applied_twice() {
    sent_again(|db| {
        db.execute(&format!("BEGIN; INSERT INTO k SELECT repeat('k', 50) FROM {MANY}; UPDATE u SET n = n + 1; COMMIT"));
        db.execute(&format!("BEGIN; INSERT INTO w SELECT repeat('w', 50), 1 FROM {MANY}; SAVEPOINT s; INSERT INTO w SELECT 'gone', g FROM {MANY}; ROLLBACK TO s; COMMIT"));
        db.execute(&format!("BEGIN; INSERT INTO t SELECT g, repeat('t', 50) FROM {MANY}; COMMIT"));
        let streamed = format!("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = '{SLOT}'");
        wait_until(|| db.value(&streamed).parse::<u32>().is_ok_and(|count| count >= 3), || "three streamed transactions".into());
    });
}

#[test]
fn a_prepared_transaction_is_not_applied_twice() {
    sent_again(|db| {
        db.execute("BEGIN; INSERT INTO k VALUES ('a'), ('a'); UPDATE u SET n = n + 1; PREPARE TRANSACTION 'small'");
        db.execute(&format!("BEGIN; INSERT INTO w SELECT repeat('w', 50), 1 FROM {MANY}; PREPARE TRANSACTION 'streamed'"));
        db.execute("BEGIN; INSERT INTO t VALUES (7, 'never'); PREPARE TRANSACTION 'rolled back'");
        db.execute("COMMIT PREPARED 'streamed'");
        db.execute("ROLLBACK PREPARED 'rolled back'");
        db.execute("COMMIT PREPARED 'small'");
        db.execute("INSERT INTO t VALUES (1, 'a')");
    });
}
