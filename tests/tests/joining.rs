//! Tables that join a subscription whose other tables go on being followed meanwhile, as beside PostgreSQL's table synchronization workers. A copy is held up on its
//! way to the primary, so that what happens meanwhile happens while it is under way.

use strandline_tests::proxy::Proxy;
use strandline_tests::replica::Options;
use strandline_tests::sample::picture;
use strandline_tests::subscriptions::{make, quoted, subscriber, wait_for_subscription, wait_for_tables};
use strandline_tests::{Db, Primary, Replica, wait_until};

/// What asks for a table's rows has this in it.
fn copy_of(table: &str) -> String {
    format!("FROM ONLY \"public\".\"{table}\") TO STDOUT")
}

fn wait_for_held(proxy: &Proxy, table: &str, replica: &Replica) {
    wait_until(|| proxy.holds(&copy_of(table)), || format!("the copy of {table} to be asked for: {}", replica.log()));
}

/// Subscribes by way of a proxy.
fn create(db: &Db, primary: &Primary, proxy: &Proxy, rest: &str) {
    let conninfo = primary.conninfo().replace(&format!("port={}", primary.port()), &format!("port={}", proxy.port()));
    db.execute(&format!("CREATE SUBSCRIPTION s CONNECTION '{}' {rest}", quoted(&conninfo)));
}

/// Waits until all that the primary has written is here, whatever is being copied.
fn wait_for_stream(primary: &Primary, source: &Db, slot: &str) {
    let lsn = primary.lsn(source);
    primary.wait_confirmed(source, slot, &lsn);
}

fn state(db: &Db, table: &str) -> String {
    let rows = db.lines(&format!("SELECT srsubstate FROM pg_subscription_rel WHERE srrelid::regclass::text = '{table}'"));
    rows.into_iter().next().unwrap_or_default()
}

fn slots(source: &Db) -> Vec<String> {
    source.lines("SELECT slot_name FROM pg_replication_slots ORDER BY 1")
}

fn assert_same(ours: &Db, theirs: &Db, tables: &[&str]) {
    for table in tables {
        assert_eq!(picture(ours, table), picture(theirs, table), "{table}");
    }
}

#[test]
fn followed_tables_go_on_while_others_are_copied() {
    let primary = Primary::start(&["max_prepared_transactions = 5", "logical_decoding_work_mem = 64kB"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE base (id int PRIMARY KEY, v text);
         CREATE TABLE big (id int PRIMARY KEY, v text, n int); INSERT INTO big SELECT g, 'old ' || g, 0 FROM generate_series(1, 5000) g;
         CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless SELECT g % 10, 'old' FROM generate_series(1, 50) g;
         CREATE TABLE clash (id int PRIMARY KEY); INSERT INTO clash VALUES (1), (2);
         CREATE PUBLICATION p FOR TABLE base",
    );
    let replica = subscriber();
    let db = replica.db();
    let proxy = Proxy::start(primary.port(), 0);
    create(&db, &primary, &proxy, "PUBLICATION p WITH (streaming = on)");
    wait_for_subscription(&replica, &primary, &source, "s");

    // Three tables join; the copy of one waits, that of another cannot be.
    make(&db, "CREATE TABLE clash (id int PRIMARY KEY); INSERT INTO clash VALUES (2)");
    source.execute("ALTER PUBLICATION p ADD TABLE big, keyless, clash");
    proxy.hold(&copy_of("big"));
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    wait_for_held(&proxy, "big", &replica);
    source.execute("INSERT INTO base VALUES (1, 'while big is copied'); INSERT INTO keyless VALUES (100, 'new')");
    wait_for_stream(&primary, &source, "s");
    assert_eq!(db.value("SELECT v FROM base"), "while big is copied");
    assert_eq!(db.value("SELECT count(*) FROM pg_class WHERE relname = 'big' AND relkind = 'r'"), "1", "made, and empty");
    assert_eq!(db.value("SELECT count(*) FROM big"), "0");
    // The others do not wait for it: one joins, the other fails.
    wait_until(|| state(&db, "keyless") == "r", || format!("keyless to join: {}", replica.log()));
    assert_same(&db, &source, &["keyless"]);
    wait_until(
        || db.value("SELECT coalesce(last_error, '') LIKE '%clash%' FROM pg_stat_subscription") == "t",
        || format!("clash to fail: {:?}", db.lines("SELECT * FROM pg_stat_subscription")),
    );
    assert!(db.value("SELECT sync_error_count FROM pg_stat_subscription_stats") != "0");
    assert_eq!(db.value("SELECT apply_error_count FROM pg_stat_subscription_stats"), "0");
    assert!(["d", "i"].contains(&state(&db, "big").as_str()), "{}", state(&db, "big"));
    let moment = primary.lsn(&source);
    wait_for_stream(&primary, &source, "s");

    // All that may happen to a table between the snapshot and the join.
    source.execute(
        "BEGIN; UPDATE big SET v = 'changed', n = n + 1 WHERE id % 10 = 0; DELETE FROM big WHERE id % 10 = 1; INSERT INTO big VALUES (10001, 'new', 1);
         SAVEPOINT a; UPDATE big SET n = 77; ROLLBACK TO a; UPDATE big SET id = -id WHERE id = 10;
         INSERT INTO base VALUES (2, 'with big'); COMMIT",
    );
    source.execute(
        "BEGIN; INSERT INTO big SELECT g, 'streamed', 0 FROM generate_series(20000, 22000) g; DELETE FROM big WHERE id = 20005; COMMIT",
    );
    source.execute("BEGIN; INSERT INTO big VALUES (30000, 'prepared', 0); PREPARE TRANSACTION 'x'");
    source.execute("COMMIT PREPARED 'x'");
    wait_for_stream(&primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM base"), "2");
    assert_eq!(db.value("SELECT count(*) FROM big"), "0");
    // The copy has the columns of when it was planned.
    source.execute(
        "BEGIN; INSERT INTO big VALUES (40000, 'before', 0); ALTER TABLE big ADD COLUMN more text DEFAULT 'm'; UPDATE big SET more = 'q' WHERE id = 20; COMMIT",
    );
    wait_for_stream(&primary, &source, "s");
    proxy.release(&copy_of("big"));
    make(&db, "DELETE FROM clash");
    wait_for_tables(&replica, &db);
    wait_for_stream(&primary, &source, "s");
    assert_same(&db, &source, &["base", "big", "keyless", "clash"]);
    assert_eq!(slots(&source), ["s"]);
    // Each is one commit, at the place where the stream stood; before it there is nothing.
    let copies = db.lines("SELECT split_part(message, ' ', 4) FROM dolt_log WHERE message LIKE 'copy of table public.%' ORDER BY 1");
    assert_eq!(copies, ["public.base", "public.big", "public.clash", "public.keyless"]);
    let joined = db.value("SELECT srsublsn FROM pg_subscription_rel WHERE srrelid = 'big'::regclass");
    let at_join = db.value(&format!("SELECT count(*) FROM big AS OF LSN '{joined}'"));
    assert!(at_join.parse::<u32>().unwrap() >= 4500, "{at_join}");
    assert_eq!(db.value(&format!("SELECT count(*) FROM big AS OF LSN '{moment}'")), "0");
    let once = "SELECT count(*) - count(DISTINCT source_xid) FROM dolt_log WHERE source_xid IS NOT NULL";
    assert_eq!(db.value(once), "0");
}

#[test]
fn what_becomes_of_tables_during_their_copy_does_not_stop_the_others() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE base (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE base;
         CREATE TABLE leaves (id int PRIMARY KEY); INSERT INTO leaves VALUES (1);
         CREATE TABLE goes (id int PRIMARY KEY); INSERT INTO goes VALUES (1);
         CREATE TABLE slow (id int PRIMARY KEY, v text); INSERT INTO slow SELECT g FROM generate_series(1, 1000) g;
         CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1);
         CREATE TABLE uncopied (id int PRIMARY KEY); INSERT INTO uncopied VALUES (1);
         CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1)",
    );
    let config = "subscriptions: {retry_interval_ms: 200, copy_workers: 6}";
    let mut replica = Replica::start(None, &Options { config: config.into(), ..Options::default() });
    let db = replica.db();
    let proxy = Proxy::start(primary.port(), 0);
    create(&db, &primary, &proxy, "PUBLICATION p");
    wait_for_subscription(&replica, &primary, &source, "s");
    for table in ["slow", "leaves", "goes"] {
        proxy.hold(&copy_of(table));
    }
    source.execute("ALTER PUBLICATION p ADD TABLE slow, leaves, goes");
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    wait_for_held(&proxy, "slow", &replica);

    // Another REFRESH meanwhile, one that copies and one that does not.
    source.execute("ALTER PUBLICATION p ADD TABLE later");
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    source.execute("ALTER PUBLICATION p ADD TABLE uncopied");
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION WITH (copy_data = false)");
    wait_for_held(&proxy, "slow", &replica);
    wait_until(|| state(&db, "later") == "r", || format!("later to join: {:?}", db.lines("SELECT * FROM pg_subscription_rel")));
    source.execute("INSERT INTO base VALUES (1); INSERT INTO later VALUES (2); INSERT INTO uncopied VALUES (2)");
    wait_for_stream(&primary, &source, "s");
    assert_same(&db, &source, &["base", "later"]);
    assert_eq!(db.lines("SELECT id FROM uncopied"), ["2"]);
    assert_eq!(state(&db, "uncopied"), "r");

    // Our server dies while copies wait.
    replica.kill();
    replica.start_again();
    let db = replica.db();
    wait_until(|| state(&db, "slow") == "d", || format!("slow to be copied again: {}", replica.log()));
    assert_eq!(db.value("SELECT count(*) FROM slow"), "0");
    source.execute("INSERT INTO base VALUES (2)");
    wait_for_stream(&primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM base"), "2");
    // The primary ends the stream but not the copy.
    source.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 's'");
    source.execute("INSERT INTO base VALUES (3)");
    wait_for_stream(&primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM base"), "3");
    // One leaves the publication, and one is dropped.
    source.execute("INSERT INTO slow VALUES (2000); ALTER PUBLICATION p DROP TABLE leaves");
    source.execute("DROP TABLE goes");
    for table in ["slow", "leaves", "goes"] {
        proxy.release(&copy_of(table));
    }
    source.execute("INSERT INTO slow VALUES (2001); INSERT INTO leaves VALUES (2); INSERT INTO base VALUES (4)");
    wait_until(
        || state(&db, "slow") == "r",
        || format!("slow to join: {:?}\n{}", db.lines("SELECT * FROM pg_subscription_rel"), replica.log()),
    );
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_same(&db, &source, &["base", "slow", "later"]);
    assert_eq!(
        db.value("SELECT string_agg(srrelid::regclass::text, ' ' ORDER BY srrelid::regclass::text) FROM pg_subscription_rel"),
        "base later slow uncopied"
    );

    // One that cannot be copied yet is made again on the primary.
    make(&db, "CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (2)");
    source.execute("INSERT INTO again VALUES (2); ALTER PUBLICATION p ADD TABLE again");
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    let fails = || db.value("SELECT coalesce(last_error, '') LIKE '%again%' FROM pg_stat_subscription") == "t";
    wait_until(fails, || format!("again to fail: {:?}", db.lines("SELECT * FROM pg_stat_subscription")));
    source.execute("DROP TABLE again; CREATE TABLE again (id int PRIMARY KEY, v text); INSERT INTO again VALUES (5, 'e'); ALTER PUBLICATION p ADD TABLE again");
    make(&db, "DELETE FROM again; ALTER TABLE again ADD COLUMN v text");
    source.execute("INSERT INTO again VALUES (6, 'f'); UPDATE again SET v = 'g' WHERE id = 5");
    wait_for_tables(&replica, &db);
    wait_for_stream(&primary, &source, "s");
    assert_same(&db, &source, &["again"]);

    drop(source);
    let source = primary.db();
    source.execute("CREATE TABLE last (id int PRIMARY KEY); INSERT INTO last VALUES (1); ALTER PUBLICATION p ADD TABLE last");
    proxy.hold(&copy_of("last"));
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    wait_for_held(&proxy, "last", &replica);
    drop(source);
    primary.restart("immediate");
    proxy.release(&copy_of("last"));
    let source = primary.db();
    source.execute("INSERT INTO last VALUES (2)");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_same(&db, &source, &["last"]);
    assert_eq!(slots(&source), ["s"]);
    // A subscription that is dropped during a copy takes it along.
    source.execute("CREATE TABLE never (id int PRIMARY KEY); INSERT INTO never VALUES (1); ALTER PUBLICATION p ADD TABLE never");
    proxy.hold(&copy_of("never"));
    db.execute("ALTER SUBSCRIPTION s REFRESH PUBLICATION");
    wait_for_held(&proxy, "never", &replica);
    db.execute("DROP SUBSCRIPTION s");
    proxy.release(&copy_of("never"));
    wait_until(|| slots(&source).is_empty(), || format!("slots: {:?}", slots(&source)));
}

/// A configured source's tables join by themselves.
#[test]
fn a_table_that_joins_a_configured_source_holds_up_no_other() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE more (id int PRIMARY KEY, v text); INSERT INTO more SELECT g, 'old' FROM generate_series(1, 100) g;
         CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1);
         CREATE TABLE next (id int PRIMARY KEY); INSERT INTO next VALUES (1);
         CREATE PUBLICATION strandline FOR TABLE base",
    );
    let proxy = Proxy::start(primary.port(), 0);
    let mut replica = Replica::start(Some(&primary), &Options { primary_port: Some(proxy.port()), ..Options::default() });
    replica.catch_up(&primary, &source);
    let db = replica.db();
    // Its first change is what tells of it.
    proxy.hold(&copy_of("more"));
    source.execute("ALTER PUBLICATION strandline ADD TABLE more; INSERT INTO more VALUES (1000, 'first'); INSERT INTO base VALUES (1)");
    wait_for_held(&proxy, "more", &replica);
    source.execute("INSERT INTO base VALUES (2)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM base"), "2");
    source.execute("UPDATE more SET v = 'updated' WHERE id % 2 = 0");
    // Changed here meanwhile, it is copied again.
    make(&db, "CREATE INDEX more_v ON more (v)");
    proxy.release(&copy_of("more"));
    wait_until(|| state(&db, "more") == "r", || format!("more to join: {}", replica.log()));
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, &["base", "more"]);

    // One that has left the publication again before anything of it was seen here is passed over; published again, it is copied.
    replica.kill();
    source.execute("ALTER PUBLICATION strandline ADD TABLE gone; INSERT INTO gone VALUES (2); ALTER PUBLICATION strandline DROP TABLE gone; INSERT INTO base VALUES (3)");
    replica.start_again();
    let db = replica.db();
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM base"), "3");
    assert_eq!(state(&db, "gone"), "");
    // Even while another one is being copied, which does not wait for it, nor does the stream.
    proxy.hold(&copy_of("next"));
    source.execute("ALTER PUBLICATION strandline ADD TABLE gone, next; INSERT INTO next VALUES (2)");
    wait_for_held(&proxy, "next", &replica);
    source.execute("INSERT INTO gone VALUES (3); INSERT INTO base VALUES (4)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM base"), "4");
    proxy.release(&copy_of("next"));
    wait_until(|| state(&db, "gone") == "r", || format!("gone to join: {}", replica.log()));
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, &["base", "more", "gone", "next"]);
    assert_eq!(slots(&source), ["strandline"]);
}
