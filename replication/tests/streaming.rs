//! Transactions that the primary sends while they still run: with 64 kB of memory for decoding, almost every one here is.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandline_replication::State;
use strandline_replication::client::{
    CONNECT_TIMEOUT_DEFAULT, Connection, ConnectionConfig, Place, Places, StreamMessage, StreamOptions, Streaming, TlsOptions,
};
use strandline_replication::pgoutput::{Message, StreamAbort};
use strandline_storage::{Lsn, Timestamp};
use strandline_tests::primary::PASSWORD;
use strandline_tests::{Db, Primary, wait_until};
use support::{Replica, SLOT, utc};

/// With this, a few hundred rows make a transaction that is streamed.
const SMALL_WORK_MEMORY: &str = "logical_decoding_work_mem = '64kB'";

/// How many rows are a few times what the primary keeps in memory.
const MANY: u32 = 1500;

/// What is kept here goes to files soon.
const SMALL_MEMORY: usize = 100_000;

fn tables(db: &Db) {
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, n int)");
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
}

fn insert(from: u32, count: u32, what: &str) -> String {
    format!("INSERT INTO t SELECT g, repeat('{what}', 50) || g FROM generate_series({from}, {from} + {count} - 1) g")
}

fn xid(db: &Db) -> String {
    db.value("SELECT pg_current_xact_id()::xid")
}

/// The xids of what was replicated after the base commit, oldest first.
fn xids(replica: &Replica) -> Vec<String> {
    replica.replicated().iter().skip(1).map(|c| c.meta.source.as_ref().unwrap().xid.to_string()).collect()
}

fn file_count(replica: &Replica) -> usize {
    std::fs::read_dir(replica.spool_folder()).map_or(0, Iterator::count)
}

/// Waits until the primary has sent everything that it has decoded by now, committed or not.
fn wait_sent(replica: &Replica, db: &Db) {
    let lsn: strandline_storage::Lsn = db.value("SELECT pg_current_wal_insert_lsn()").parse().unwrap();
    db.execute("SELECT pg_logical_emit_message(false, 'test', 'mark')");
    wait_until(|| replica.status().received >= lsn, || format!("{lsn}: {:?}", replica.status()));
}

/// How many transactions and blocks the primary has streamed.
fn assert_streamed(db: &Db, at_least: u32) {
    let sql = format!("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = '{SLOT}'");
    wait_until(|| db.value(&sql).parse::<u32>().unwrap() >= at_least, || format!("{at_least} streamed transactions: {}", db.value(&sql)));
}

#[test]
fn blocks_of_two_transactions_alternate_and_each_becomes_one_commit_in_order_of_commits() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY, "track_commit_timestamp = on"]);
    let (db, a, b) = (utc(&primary), utc(&primary), utc(&primary));
    tables(&db);
    let replica = Replica::started(&primary, |config| config.stream_memory_max = SMALL_MEMORY);
    replica.wait_for(State::Streaming);
    a.execute("BEGIN");
    b.execute("BEGIN");
    for round in 0..4 {
        a.execute(&insert(10_000 + round * MANY, MANY, "a"));
        b.execute(&insert(50_000 + round * MANY, MANY, "b"));
        // A small one in between, which is whole and comes first.
        db.execute(&format!("INSERT INTO u VALUES ({round}, 0)"));
    }
    let (xid_a, xid_b) = (xid(&a), xid(&b));
    replica.wait_caught_up(&db);
    assert_eq!(replica.picture("u").len(), 4);
    assert_eq!(replica.picture("t").len(), 0, "nothing is seen before its commit");
    assert!(file_count(&replica) > 0, "what is kept is more than may stay in memory");
    b.execute("COMMIT");
    replica.wait_caught_up(&db);
    assert_eq!(replica.picture("t").len() as u32, 4 * MANY);
    a.execute("DELETE FROM t WHERE id % 3 = 0; UPDATE t SET v = 'late' WHERE id % 5 = 0 AND id < 50000");
    a.execute("COMMIT");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(xids(&replica)[4..], [xid_b, xid_a]);
    assert_eq!(file_count(&replica), 0);
    assert_streamed(&db, 2);
    let ends: Vec<_> = replica.replicated().iter().map(|c| c.meta.source.as_ref().unwrap().end_lsn).collect();
    assert!(ends.is_sorted());
    // The commit tells the primary's time, and the place of the commit record.
    let commits = replica.replicated();
    let source = commits.last().unwrap().meta.source.as_ref().unwrap();
    let since_2000 = "(extract(epoch FROM pg_xact_commit_timestamp('XID'::xid)) * 1000000)::bigint - 946684800000000";
    assert_eq!(db.value(&format!("SELECT {}", since_2000.replace("XID", &source.xid.to_string()))), source.commit_time.0.to_string());
    assert!(source.commit_lsn < source.end_lsn);
}

#[test]
fn rolled_back_subtransactions_take_exactly_their_changes_with_them() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let db = utc(&primary);
    tables(&db);
    let replica = Replica::started(&primary, |config| config.stream_memory_max = SMALL_MEMORY);
    replica.wait_for(State::Streaming);
    db.execute("BEGIN");
    db.execute(&insert(1, MANY, "a"));
    db.execute("SAVEPOINT one");
    db.execute("UPDATE t SET v = 'one' WHERE id % 2 = 0");
    db.execute(&insert(10_001, MANY, "gone"));
    db.execute("SAVEPOINT two");
    db.execute(&insert(20_001, MANY, "gone"));
    db.execute("RELEASE two");
    db.execute("ROLLBACK TO one");
    db.execute(&insert(30_001, MANY, "kept"));
    db.execute("SAVEPOINT three");
    db.execute("DELETE FROM t WHERE id % 3 = 0");
    db.execute("SAVEPOINT four");
    db.execute("UPDATE t SET v = 'four' WHERE id % 7 = 0");
    db.execute(&insert(40_001, MANY, "gone"));
    db.execute("ROLLBACK TO four");
    db.execute("RELEASE three");
    // The first message about this table is inside a subtransaction that is rolled back.
    db.execute("SAVEPOINT five; INSERT INTO u SELECT g, g FROM generate_series(1, 3000) g; ROLLBACK TO five; INSERT INTO u VALUES (7, 7)");
    db.execute(&insert(50_001, 10, "last"));
    db.execute("COMMIT");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(replica.replicated().len(), 2);
    assert_streamed(&db, 1);
}

#[test]
fn what_an_application_says_stays_with_its_commit() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let db = utc(&primary);
    tables(&db);
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    let emit = |what: &str| format!("SELECT pg_logical_emit_message({what})");
    // In a small transaction, before and after the changes; the last word counts.
    db.execute("BEGIN");
    db.execute(&emit("true, 'strandline', '{\"user\":\"ann\"}'"));
    db.execute("INSERT INTO u VALUES (1, 1)");
    db.execute(&emit("true, '_bemi', '{\"user\": \"bob\", \"request\":[7]}'"));
    db.execute(&emit("true, 'other', '{\"user\": \"eve\"}'"));
    db.execute(&emit("false, 'strandline', '{\"user\": \"eve\"}'"));
    // A subtransaction takes its words back.
    db.execute("SAVEPOINT s");
    db.execute(&emit("true, 'strandline', '{\"user\": \"eve\"}'"));
    db.execute("ROLLBACK TO s");
    db.execute("COMMIT");
    // In a streamed one the primary does not say which subtransaction a message belongs to.
    db.execute("BEGIN");
    db.execute(&insert(1, MANY, "a"));
    db.execute(&emit("true, 'strandline', '{\"job\": 1}'"));
    db.execute(&insert(10_001, MANY, "a"));
    db.execute("SAVEPOINT s");
    db.execute(&emit("true, 'strandline', '{\"job\": 2}'"));
    db.execute(&insert(20_001, MANY, "a"));
    db.execute("RELEASE s");
    db.execute(&insert(30_001, MANY, "a"));
    db.execute("COMMIT");
    // Alone: no change, no commit.
    db.execute(&emit("true, 'strandline', '{\"nothing\": true}'"));
    // Nothing of the one before it stays.
    db.execute("INSERT INTO u VALUES (2, 2)");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    let contexts: Vec<Option<String>> = replica.replicated().iter().map(|c| c.meta.source.as_ref().unwrap().context.clone()).collect();
    let expected = [None, Some(r#"{"user": "bob", "request": [7]}"#), Some(r#"{"job": 2}"#), None];
    assert_eq!(contexts, expected.map(|context| context.map(str::to_owned)));
    assert_streamed(&db, 1);
    // What the primary has from elsewhere, and what it has not.
    db.execute("SELECT pg_replication_origin_create('elsewhere'), pg_replication_origin_session_setup('elsewhere')");
    db.execute("BEGIN; SELECT pg_replication_origin_xact_setup('0/10', now()); INSERT INTO u VALUES (3, 3); COMMIT");
    db.execute("SELECT pg_replication_origin_session_reset()");
    db.execute("INSERT INTO u VALUES (4, 4)");
    replica.wait_caught_up(&db);
    let origins: Vec<Option<String>> = replica.replicated().iter().map(|c| c.meta.source.as_ref().unwrap().origin.clone()).collect();
    assert_eq!(origins[contexts.len()..], [Some("elsewhere".to_owned()), None]);
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_nothing() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let (db, other) = (utc(&primary), utc(&primary));
    tables(&db);
    let replica = Replica::started(&primary, |config| config.stream_memory_max = SMALL_MEMORY);
    replica.wait_for(State::Streaming);
    other.execute("BEGIN");
    other.execute(&insert(1, 4 * MANY, "gone"));
    wait_sent(&replica, &db);
    wait_until(|| file_count(&replica) == 1, || "a file".into());
    other.execute("ROLLBACK");
    db.execute("INSERT INTO u VALUES (1, 1)");
    replica.wait_caught_up(&db);
    assert_eq!(file_count(&replica), 0);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(replica.replicated().len(), 2);
    assert_streamed(&db, 1);
}

#[test]
fn tables_change_inside_streamed_transactions() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let (db, other) = (utc(&primary), utc(&primary));
    tables(&db);
    db.execute(&insert(1, 5, "old"));
    let replica = Replica::started(&primary, |config| config.stream_memory_max = SMALL_MEMORY);
    replica.wait_for(State::Streaming);
    db.execute("BEGIN");
    db.execute(&insert(101, MANY, "a"));
    db.execute("ALTER TABLE t ADD COLUMN w int DEFAULT 5");
    db.execute(&format!("INSERT INTO t SELECT g, 'with w', g FROM generate_series(10001, 10000 + {MANY}) g"));
    db.execute("SAVEPOINT s; ALTER TABLE t DROP COLUMN v");
    db.execute(&format!("INSERT INTO t SELECT g, g FROM generate_series(20001, 20000 + {MANY}) g"));
    db.execute("ROLLBACK TO s");
    db.execute("ALTER TABLE t RENAME COLUMN v TO words");
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE made (id int PRIMARY KEY, m mood)");
    db.execute(&format!("INSERT INTO made SELECT g, 'ok' FROM generate_series(1, {MANY}) g"));
    db.execute("UPDATE t SET words = 'changed' WHERE id % 2 = 1");
    // Another transaction uses another table meanwhile, and is not confused by what it cannot see yet.
    other.execute("BEGIN");
    other.execute(&format!("INSERT INTO u SELECT g, g FROM generate_series(1, {MANY}) g"));
    other.execute("COMMIT");
    replica.wait_caught_up(&other);
    assert_eq!(replica.picture("t").len(), 5);
    db.execute("COMMIT");
    db.execute("INSERT INTO t VALUES (99, 'after', 9); INSERT INTO made VALUES (-1, 'sad')");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u", "made"]);
    assert_streamed(&db, 2);
}

#[test]
fn what_is_cut_off_in_mid_stream_is_sent_again_and_nothing_else_is_lost() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let (db, other) = (utc(&primary), utc(&primary));
    tables(&db);
    let mut replica = Replica::started(&primary, |config| config.stream_memory_max = SMALL_MEMORY);
    replica.wait_for(State::Streaming);
    other.execute("BEGIN");
    for round in 0..4 {
        other.execute(&insert(1 + round * MANY, MANY, "x"));
        db.execute(&format!("INSERT INTO u VALUES ({round}, 0)"));
        replica.wait_caught_up(&db);
        assert!(file_count(&replica) > 0);
        match round {
            0 | 2 => {
                let pid = "SELECT pid FROM pg_stat_replication";
                let before = db.value(pid);
                db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
                wait_until(|| db.lines(pid).first().is_some_and(|pid| *pid != before), || "a new walsender".into());
            }
            1 => replica.restart(),
            _ => {}
        }
        // The position is that of the last commit: the transaction under way holds nothing back and is not passed over.
        replica.wait_caught_up(&db);
    }
    let expected = xid(&other);
    other.execute("COMMIT");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    let xids = xids(&replica);
    assert_eq!(xids.len(), 5);
    assert_eq!(xids[4], expected);
    // What is here already is not applied again when it is sent again, and what it said of its tables is not lost.
    db.execute(&format!("BEGIN; {}; COMMIT", insert(100_000, MANY, "y")));
    replica.wait_caught_up(&db);
    replica.restart();
    db.execute("UPDATE t SET v = 'z' WHERE id < 10");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(replica.replicated().len(), 8);
}

#[test]
fn without_streaming_a_large_transaction_comes_whole() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let db = utc(&primary);
    tables(&db);
    let replica = Replica::started(&primary, |config| config.streaming = Streaming::Off);
    replica.wait_for(State::Streaming);
    db.execute(&insert(1, 4 * MANY, "x"));
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
    assert_eq!(db.value("SELECT sum(stream_txns) FROM pg_stat_replication_slots"), "0");
}

/// What a primary says of rollbacks in a transaction that it streams, until another one is committed. `received` tells how far it has come.
async fn streamed_aborts(primary: &Primary, streaming: Streaming, received: &AtomicU64) -> Vec<StreamAbort> {
    let connection = ConnectionConfig {
        places: Places::one(Place::new("127.0.0.1", primary.port(), Some(PASSWORD.into()))),
        user: "postgres".into(),
        database: "postgres".into(),
        application_name: "wire".into(),
        tls: TlsOptions::default(),
        options: None,
        connect_timeout: CONNECT_TIMEOUT_DEFAULT,
    };
    let options = StreamOptions { publications: vec![SLOT.into()], streaming, two_phase: false, only_local: false, binary: false };
    let connection = Connection::connect(&connection).await.unwrap();
    let mut stream = connection.start_replication("wire", Lsn(0), &options).await.unwrap();
    let mut aborts = Vec::new();
    loop {
        let batch = stream.receive().await.unwrap();
        for message in batch.messages() {
            let StreamMessage::Data { payload, .. } = message else { continue };
            match payload[0] {
                b'A' => match Message::decode(payload).unwrap() {
                    Message::StreamAbort(abort) => aborts.push(abort),
                    other => panic!("{other:?}"),
                },
                b'C' => {
                    let Message::Commit(commit) = Message::decode(payload).unwrap() else { panic!() };
                    // So that the next stream begins behind it.
                    stream.send_status(commit.end_lsn, commit.end_lsn, false).await.unwrap();
                    stream.finish().await.unwrap();
                    return aborts;
                }
                _ => {}
            }
        }
        received.store(batch.received.0, Ordering::Relaxed);
        if batch.reply_requested {
            stream.send_status(batch.received, Lsn(0), false).await.unwrap();
        }
    }
}

#[test]
fn parallel_streaming_tells_where_and_when_a_transaction_was_rolled_back() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let (db, other) = (utc(&primary), utc(&primary));
    tables(&db);
    db.execute("SELECT pg_create_logical_replication_slot('wire', 'pgoutput')");
    let lsn = || other.value("SELECT pg_current_wal_insert_lsn()").parse::<Lsn>().unwrap();
    let told = primary.major_version() >= 16;
    for (id, streaming, told) in [(1, Streaming::On, false), (2, Streaming::Parallel, told)] {
        let received = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(streamed_aborts(&primary, streaming, &received))
            });
            // It is sent while it runs: what is known to be rolled back is not sent at all.
            let wait_sent = || {
                let lsn = lsn();
                other.execute("SELECT pg_logical_emit_message(false, 'test', 'mark')");
                wait_until(|| received.load(Ordering::Relaxed) >= lsn.0 || follower.is_finished(), || format!("{lsn} to be sent"));
            };
            db.execute(&format!("BEGIN; {}; SAVEPOINT s; {}", insert(1, MANY, "a"), insert(10_001, MANY, "b")));
            wait_sent();
            let subtransaction = lsn();
            db.execute(&format!("ROLLBACK TO s; {}", insert(20_001, MANY, "c")));
            wait_sent();
            let transaction = lsn();
            db.execute("ROLLBACK");
            let end = lsn();
            db.execute(&format!("INSERT INTO u VALUES ({id}, 1)"));
            let aborts = follower.join().unwrap();
            // Behind the savepoint that was rolled back to, another subtransaction begins.
            let [part, .., whole] = aborts[..] else { panic!("{aborts:?}") };
            assert!(aborts.iter().all(|abort| abort.xid == whole.subxid) && part.subxid > whole.subxid, "{aborts:?}");
            assert!(aborts.iter().all(|abort| abort.abort.is_some() == told), "{streaming:?}: {aborts:?}");
            if let (Some((first, _)), Some((second, time))) = (part.abort, whole.abort) {
                assert!(first >= subtransaction && first < transaction && second >= transaction && second <= end, "{aborts:?}");
                assert!((Timestamp::now().0 - time.0).abs() < 600_000_000, "{time:?}");
            }
        });
        wait_until(|| db.value("SELECT bool_or(active) FROM pg_replication_slots") == "f", || "the slot to be free".into());
    }
}

/// One of several sessions that write at the same time, each its own rows.
struct Session {
    db: Db,
    first_id: u32,
    next_id: u32,
    /// Savepoints that are open; `None` outside of a transaction.
    depth: Option<u32>,
}

impl Session {
    fn step(&mut self, random: &mut StdRng) -> Option<String> {
        let Some(depth) = self.depth else {
            self.db.execute("BEGIN");
            self.depth = Some(0);
            return None;
        };
        let from = self.first_id + random.random_range(0..(self.next_id - self.first_id).max(1));
        match random.random_range(0..16) {
            0..6 => {
                let count = random.random_range(1..900);
                self.db.execute(&insert(self.next_id, count, "r"));
                self.next_id += count;
            }
            6 | 7 => self.db.execute(&format!(
                "UPDATE t SET v = v || '+' WHERE id BETWEEN {from} AND {from} + 300 AND id < {}",
                self.first_id + 1_000_000
            )),
            8 => self.db.execute(&format!("DELETE FROM t WHERE id BETWEEN {from} AND {from} + 100 AND id < {}", self.first_id + 1_000_000)),
            9 | 10 => {
                self.db.execute(&format!("SAVEPOINT s{depth}"));
                self.depth = Some(depth + 1);
            }
            11 | 12 if depth > 0 => {
                let to = random.random_range(0..depth);
                self.db.execute(&format!("ROLLBACK TO s{to}"));
                self.depth = Some(to + 1);
            }
            13 if depth > 0 => {
                self.db.execute(&format!("RELEASE s{}", depth - 1));
                self.depth = Some(depth - 1);
            }
            14 => {
                self.db.execute("ROLLBACK");
                self.depth = None;
            }
            _ => {
                self.db.execute("INSERT INTO u VALUES (nextval('numbers'), 0)");
                let xid = xid(&self.db);
                self.db.execute("COMMIT");
                self.depth = None;
                return Some(xid);
            }
        }
        None
    }
}

#[test]
fn random_sessions_arrive_commit_by_commit_whatever_is_killed() {
    let primary = Primary::start(&[SMALL_WORK_MEMORY]);
    let db = utc(&primary);
    tables(&db);
    db.execute("CREATE SEQUENCE numbers");
    let mut replica = Replica::started(&primary, |config| {
        config.stream_memory_max = SMALL_MEMORY;
        config.streaming = Streaming::Parallel;
    });
    replica.wait_for(State::Streaming);
    let mut random = StdRng::seed_from_u64(11);
    let mut sessions: Vec<Session> =
        (1..=4).map(|i| Session { db: utc(&primary), first_id: i * 1_000_000, next_id: i * 1_000_000, depth: None }).collect();
    let mut expected = Vec::new();
    let mut pictures = BTreeMap::new();
    for step in 0..500 {
        let session = random.random_range(0..sessions.len());
        if let Some(xid) = sessions[session].step(&mut random) {
            expected.push(xid);
            if expected.len() % 5 == 0 {
                pictures
                    .insert(expected.len(), db.value("SELECT count(*) || ' ' || coalesce(sum(hashtextextended(id || v, 0)), 0) FROM t"));
            }
        }
        match step % 60 {
            20 => db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication"),
            50 => replica.restart(),
            _ => {}
        }
    }
    for session in &sessions {
        session.db.execute("ROLLBACK");
    }
    assert!(expected.len() > 20, "{} commits are too few", expected.len());
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "u"]);
    assert_eq!(xids(&replica), expected);
    // The tables as they were at some of the commits, by loading the pictures back into the primary.
    let commits = replica.replicated();
    db.execute("CREATE TEMP TABLE past (id int, v text)");
    for (number, picture) in pictures {
        let commit = &commits[number];
        let root = replica.store().root(commit.id).unwrap();
        let lines = support::picture_of(&root, "t");
        db.execute("TRUNCATE past");
        for chunk in lines.chunks(2000) {
            let values: Vec<String> = chunk
                .iter()
                .map(|line| format!("({},'{}')", &line[..line.find('|').unwrap()], &line[line.find('|').unwrap() + 1..]))
                .collect();
            db.execute(&format!("INSERT INTO past VALUES {}", values.join(",")));
        }
        assert_eq!(
            db.value("SELECT count(*) || ' ' || coalesce(sum(hashtextextended(id || v, 0)), 0) FROM past"),
            picture,
            "after {number} commits"
        );
    }
}
