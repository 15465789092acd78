//! Copies under way: what is seen of them, and what becomes of those that are cut off: `kill -9` of our server and crashes of the primary while tables are copied. Afterwards everything is here once, and the primary has one slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strandline_tests::ledger::campaign_count;
use strandline_tests::replica::Options;
use strandline_tests::sample::picture;
use strandline_tests::subscriptions::wait_for_subscription;
use strandline_tests::{Db, Primary, Replica, wait_until};

const TABLES: [&str; 3] = ["large", "keyless", "small"];

fn fill(source: &Db) {
    // The first is copied in parts.
    source.execute(
        "CREATE TABLE large (id int PRIMARY KEY, filler char(100) DEFAULT ''); INSERT INTO large SELECT g FROM generate_series(1, 160000) g;
         CREATE TABLE keyless (a int, b text); INSERT INTO keyless SELECT g % 100, md5(g::text) FROM generate_series(1, 20000) g;
         CREATE TABLE small (id int PRIMARY KEY, v text); INSERT INTO small VALUES (1, 'one')",
    );
}

fn slots(source: &Db) -> Vec<String> {
    source.lines("SELECT slot_name FROM pg_replication_slots ORDER BY 1")
}

/// Waits a part of a millisecond to some, spinning, so that kills hit different moments of the copy.
fn let_pass(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn assert_equal(ours: &Db, theirs: &Db) {
    for table in TABLES {
        assert!(picture(ours, table) == picture(theirs, table), "{table} differs");
    }
}

#[test]
fn an_initial_copy_that_is_cut_off_is_made_again_and_leaves_nothing() {
    let primary = Arc::new(Primary::start(&[]));
    let source = primary.db();
    fill(&source);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    // Which moments a copy has, and about how long they take.
    let mut replica = Replica::start(Some(&primary), &Options::default());
    let begun = Instant::now();
    wait_until(|| replica.log().contains("initial copy complete"), || format!("the copy to end:\n{}", replica.log()));
    replica.catch_up(&primary, &source);
    let whole = begun.elapsed();
    replica.stop();
    wait_until(|| source.value("SELECT bool_or(active) FROM pg_replication_slots") == "f", || "the slot to be free".into());
    source.execute("SELECT pg_drop_replication_slot('strandline')");

    let count = campaign_count(6, 100) as u32;
    // Before version 12 the slot is there while the tables are copied.
    let slot_is_last = primary.major_version() >= 12;
    let mut copied_tables = 0;
    let count_copied = |replica: &Replica| replica.log().matches("copying table=").count();
    let mut replica = Replica::prepare(Some(&primary), &Options::default());
    replica.start_again();
    for cut in 0..count {
        let source = primary.db();
        if !slot_is_last {
            // What is cut off while the slot is made is for the user to settle.
            wait_until(
                || count_copied(&replica) > copied_tables || replica.log().contains("initial copy complete"),
                || format!("the copy to begin:\n{}", replica.log()),
            );
        }
        let_pass(whole * (cut % 6) / 6);
        copied_tables = count_copied(&replica);
        if cut % 2 == 0 {
            replica.kill();
            if slot_is_last && slots(&source) == ["strandline"] {
                break;
            }
            replica.start_again();
        } else {
            drop(source);
            primary.restart("immediate");
        }
        // Nobody sees a part of a table.
        let ours = replica.db();
        let rows = ours.rows("SELECT relname FROM pg_class WHERE relname = 'large' AND relkind = 'r'");
        if !rows.is_empty() {
            let seen = ours.value("SELECT count(*) FROM large");
            assert!(seen == "160000", "{seen} rows of a table that is not whole");
        }
    }
    if !replica.is_running() {
        replica.start_again();
    }
    let source = primary.db();
    wait_until(|| slots(&source) == ["strandline"], || format!("one slot: {:?}\n{}", slots(&source), replica.log()));
    source.execute(
        "INSERT INTO small VALUES (2, 'later'); UPDATE large SET filler = 'changed' WHERE id % 10000 = 0; INSERT INTO keyless VALUES (5, 'later')",
    );
    replica.catch_up(&primary, &source);
    assert_equal(&replica.db(), &source);
    assert_eq!(slots(&source), ["strandline"]);
    assert_eq!(replica.log().contains("dropping the slot of an initial copy that was cut off"), !slot_is_last);
    replica.stop();
}

#[test]
fn a_subscription_whose_making_and_copy_are_cut_off_is_completed_with_one_slot() {
    let primary = Arc::new(Primary::start(&[]));
    let source = primary.db();
    fill(&source);
    source.execute("CREATE PUBLICATION p FOR ALL TABLES");
    let options = Options { config: "subscriptions: {retry_interval_ms: 200, copy_workers: 3}".into(), ..Options::default() };
    let mut replica = Replica::start(None, &options);
    let create = format!("CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p", primary.conninfo().replace('\'', "''"));

    // A slot is complete when the transactions under way have ended. Its maker dies meanwhile, and the primary completes it all the same.
    let writer = primary.db();
    writer.execute("BEGIN; INSERT INTO small VALUES (3, 'three')");
    let db = replica.db();
    std::thread::scope(|scope| {
        let making = scope.spawn(|| db.try_execute(&create));
        wait_until(|| slots(&source) == ["s"], || "the slot to be begun".into());
        replica.kill();
        assert!(making.join().unwrap().is_err());
    });
    replica.start_again();
    writer.execute("COMMIT");
    assert_eq!(replica.db().lines("SELECT subname, subenabled FROM pg_subscription"), ["s|t"], "the making was written down before");
    for cut in 0..campaign_count(6, 100) as u32 {
        let source = primary.db();
        let_pass(Duration::from_millis(u64::from(cut % 6) * 60));
        if cut % 3 == 2 {
            drop(source);
            primary.restart("immediate");
        } else {
            replica.kill();
            replica.start_again();
        }
        let ours = replica.db();
        if ours.rows("SELECT relname FROM pg_class WHERE relname = 'large' AND relkind = 'r'").len() == 1 {
            let seen = ours.value("SELECT count(*) FROM large");
            assert!(seen == "0" || seen == "160000", "{seen} rows of a table that is not whole");
        }
    }
    let source = primary.db();
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_equal(&replica.db(), &source);
    assert_eq!(slots(&source), ["s"]);
    let copies = "SELECT count(*), count(DISTINCT message) FROM dolt_log WHERE message LIKE 'copy of table%'";
    assert_eq!(
        replica.db().value("SELECT count(DISTINCT split_part(message, ' ', 4)) FROM dolt_log WHERE message LIKE 'copy of table%'"),
        "3"
    );
    assert_eq!(replica.db().lines(copies), ["3|3"], "each table is copied once");

    // A slot of the same name that somebody else has made stays as it is.
    source.execute("SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    let other = create.replace("SUBSCRIPTION s ", "SUBSCRIPTION other ");
    assert_eq!(replica.db().sqlstate(&other), "08P01");
    replica.kill();
    replica.start_again();
    assert_eq!(replica.db().lines("SELECT subname FROM pg_subscription"), ["s"]);
    assert_eq!(slots(&source), ["other", "s"]);
    replica.stop();
}

/// Sends a signal to a backend of the primary.
fn signal(name: &str, pid: &str) {
    let status = std::process::Command::new("kill").args([name, pid]).status().expect("kill");
    assert!(status.success(), "kill {name} {pid}");
}

#[test]
fn a_copy_under_way_is_shown_with_postgresqls_columns() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE large (id int PRIMARY KEY, filler char(100) DEFAULT ''); INSERT INTO large SELECT g FROM generate_series(1, 400000) g;
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let replica = Replica::start(Some(&primary), &Options { replication: vec!["copy_workers: 1".into()], ..Options::default() });
    let db = replica.db();
    let sql = "SELECT * FROM pg_stat_progress_copy";
    let mut columns = source.describe(sql);
    columns.retain(|(name, _)| name != "tuples_skipped"); // of version 17
    assert_eq!(db.describe(sql), columns);
    // The primary falters in the middle.
    let copying = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND state = 'active'";
    let mut pid = Vec::new();
    wait_until(
        || {
            pid = source.lines(copying);
            !pid.is_empty()
        },
        || format!("the copy to begin:\n{}", replica.log()),
    );
    signal("-STOP", &pid[0]);
    let shown = "SELECT datname, command, type, bytes_total, tuples_excluded, bytes_processed >= tuples_processed * 100, tuples_processed < 400000, relid >= 16384 \
                 FROM pg_stat_progress_copy";
    wait_until(
        || db.lines(shown) == ["postgres|COPY FROM|CALLBACK|0|0|t|t|t"],
        || format!("the copy to be shown: {:?} {:?}", db.lines(shown), db.lines(sql)),
    );
    signal("-CONT", &pid[0]);
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM large"), "400000");
    assert!(db.lines(sql).is_empty());
    assert!(replica.log().contains("copied table=public.large rows=400000 bytes="), "{}", replica.log());
}
