//! Tables that join a running subscription while the primary writes into them and our server is killed.

use std::sync::atomic::{AtomicBool, Ordering};

use strandline_tests::ledger::campaign_count;
use strandline_tests::replica::Options;
use strandline_tests::subscriptions::wait_for_subscription;
use strandline_tests::{Db, Primary, Replica, wait_until};

/// When the server is killed, seen from the table that joins.
const MOMENTS: [&str; 5] = ["", "srsubstate = 'i'", "srsubstate = 'd'", "srsubstate IN ('s', 'r')", "srsubstate = 'r'"];

/// Writes into all tables, in each transaction into some that follow and some that do not yet, until told to stop. Returns the number of transactions.
fn write(primary: &Primary, table_count: usize, stop: &AtomicBool) -> u64 {
    let db = primary.db();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let table = number % table_count as u64;
        db.execute(&format!(
            "BEGIN; INSERT INTO base VALUES ({number}); INSERT INTO t{table} VALUES (1000000 + {number}, 'new');
             UPDATE t{table} SET v = 'updated {number}' WHERE id = {}; DELETE FROM t{table} WHERE id = {}; COMMIT",
            number % 4000,
            4000 + number % 1000
        ));
    }
    number
}

fn assert_equal(ours: &Db, theirs: &Db, table: &str) {
    let sql = format!("SELECT * FROM {table} ORDER BY 1");
    let (ours, theirs) = (ours.lines(&sql), theirs.lines(&sql));
    assert_eq!(ours.len(), theirs.len(), "{table}");
    let differing = ours.iter().zip(&theirs).find(|(a, b)| a != b);
    assert!(differing.is_none(), "{table}: {differing:?}");
}

#[test]
fn a_table_joins_exactly_once_however_often_the_server_is_killed_meanwhile() {
    let table_count = campaign_count(5, 40);
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE base (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE base");
    for table in 0..table_count {
        source.execute(&format!(
            "CREATE TABLE t{table} (id int PRIMARY KEY, v text); INSERT INTO t{table} SELECT n, repeat('x', 200) || n FROM generate_series(1, 5000) n"
        ));
    }
    let mut replica = Replica::start(None, &Options { config: "subscriptions: {retry_interval_ms: 200}".into(), ..Options::default() });
    let conninfo = primary.conninfo().replace('\'', "''");
    replica.db().execute(&format!("CREATE SUBSCRIPTION s CONNECTION '{conninfo}' PUBLICATION p"));
    // From here on every transaction is one to apply, not a part of the first copy.
    wait_for_subscription(&replica, &primary, &source, "s");
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&primary, table_count, &stop));
        for table in 0..table_count {
            source.execute(&format!("ALTER PUBLICATION p ADD TABLE t{table}"));
            let db = replica.db();
            db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
            let moment = MOMENTS[table % MOMENTS.len()];
            if !moment.is_empty() {
                // A state that is passed quickly may not be seen; then it is killed later.
                let sql = format!(
                    "SELECT count(*) FROM pg_subscription_rel WHERE ({moment} OR srsubstate = 'r') AND srrelid::regclass::text IN ('t{table}', '-', '0')"
                );
                wait_until(
                    || db.value(&sql) != "0",
                    || format!("t{table} at {moment}: {:?}", db.lines("SELECT * FROM pg_subscription_rel")),
                );
            }
            replica.kill();
            replica.start_again();
            if table % 2 == 0 {
                wait_for_subscription(&replica, &primary, &source, "s");
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    wait_for_subscription(&replica, &primary, &source, "s");
    let db = replica.db();
    assert_equal(&db, &source, "base");
    for table in 0..table_count {
        assert_equal(&db, &source, &format!("t{table}"));
    }
    let commits = "SELECT count(*), count(DISTINCT source_xid) FROM dolt_log WHERE message LIKE 'replicated transaction%'";
    assert_eq!(db.lines(commits), [format!("{written}|{written}")]);
    let copies = "SELECT count(*) FROM dolt_log WHERE message LIKE 'copy of table public.t%'";
    assert_eq!(db.value(copies), table_count.to_string(), "each table is copied once");
    assert_eq!(source.lines("SELECT slot_name FROM pg_replication_slots"), ["s"]);
    replica.stop();
}
