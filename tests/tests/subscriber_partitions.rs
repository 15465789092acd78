//! What PostgreSQL's own test of partitioned tables (013) demands of a subscriber whose tables are not partitioned, with Strandline as the subscriber: the
//! same situations and outcomes, in our words. `subscriber.rs` has the simple ones.

use strandline_tests::subscriptions::{create, make, subscriber, wait_for_tables};
use strandline_tests::{Db, Primary};

fn keys(db: &Db, table: &str) -> String {
    db.value(&format!("SELECT coalesce(string_agg(a::text, ',' ORDER BY a), '') FROM {table}"))
}

fn missing_rows(db: &Db) -> String {
    db.value("SELECT sum(confl_update_missing) || ' ' || sum(confl_delete_missing) FROM pg_stat_subscription_stats")
}

/// First every change under its leaf's name, then under the name of the root or of what is published of the tree; two subscriptions, on two branches.
#[test]
fn changes_of_partitions_go_to_the_tables_that_publications_name() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab1 (a int PRIMARY KEY, b text) PARTITION BY LIST (a);
         CREATE TABLE tab1_1 (b text, a int NOT NULL); ALTER TABLE tab1 ATTACH PARTITION tab1_1 FOR VALUES IN (1, 2, 3);
         CREATE TABLE tab1_2 PARTITION OF tab1 FOR VALUES IN (4, 5, 6); CREATE TABLE tab1_def PARTITION OF tab1 DEFAULT;
         CREATE TABLE marks (a int); CREATE PUBLICATION pub1 FOR TABLE tab1, tab1_1, marks; CREATE PUBLICATION pub_all FOR ALL TABLES",
    );
    let replica = subscriber();
    let db = replica.db();
    db.execute("SELECT dolt_branch('side')");
    let side = replica.try_db("postgres/side").unwrap();
    let leaves = "CREATE TABLE tab1 (a int PRIMARY KEY, c text DEFAULT 'root', b text); CREATE TABLE tab1_1 (a int PRIMARY KEY, c text DEFAULT 'leaf 1', b text);
        CREATE TABLE tab1_2 (a int PRIMARY KEY, c text DEFAULT 'leaf 2', b text); CREATE TABLE tab1_def (a int PRIMARY KEY, b text, c text DEFAULT 'rest')";
    make(&db, leaves);
    make(&side, leaves);
    create(&db, &primary, "sub1", "PUBLICATION pub1");
    create(&side, &primary, "sub2", "PUBLICATION pub_all");
    let caught_up = |slots: &[&str]| {
        wait_for_tables(&replica, &db);
        // A commit that every subscription gets is confirmed at once, the place of an idle one only every second.
        source.execute("INSERT INTO marks VALUES (1)");
        let lsn = primary.lsn(&source);
        slots.iter().for_each(|slot| primary.wait_confirmed(&source, slot, &lsn));
    };
    let both = ["sub1", "sub2"];
    caught_up(&both);

    // A leaf that is published by its own name as well comes once.
    source.execute(
        "INSERT INTO tab1 VALUES (1); INSERT INTO tab1_1 (a) VALUES (3); INSERT INTO tab1_2 VALUES (5); INSERT INTO tab1 VALUES (0)",
    );
    caught_up(&both);
    for db in [&db, &side] {
        assert_eq!(db.lines("SELECT c, a FROM tab1_1 ORDER BY a"), ["leaf 1|1", "leaf 1|3"]);
        assert_eq!(db.lines("SELECT c, a FROM tab1_2"), ["leaf 2|5"]);
        assert_eq!(db.lines("SELECT c, a FROM tab1_def"), ["rest|0"]);
        assert_eq!(keys(db, "tab1"), "", "nothing goes by the root's name");
    }
    // Within leaves, and from one to another.
    source.execute("UPDATE tab1 SET a = 2 WHERE a = 1; UPDATE tab1 SET a = 6 WHERE a = 5; UPDATE tab1 SET a = 4 WHERE a = 6; UPDATE tab1 SET a = 6 WHERE a = 4");
    source.execute("UPDATE tab1 SET a = 1 WHERE a = 0; UPDATE tab1 SET a = 4 WHERE a = 1");
    caught_up(&both);
    for db in [&db, &side] {
        assert_eq!((keys(db, "tab1_1"), keys(db, "tab1_2"), keys(db, "tab1_def")), ("2,3".into(), "4,6".into(), "".into()));
    }
    source.execute("DELETE FROM tab1 WHERE a IN (2, 3, 5); DELETE FROM tab1_2");
    caught_up(&both);
    // TRUNCATE of a leaf takes rows of ours with it; that of the root takes all leaves.
    let ours = "INSERT INTO tab1_1 (a) VALUES (1); INSERT INTO tab1_2 (a) VALUES (2)";
    make(&db, ours);
    make(&side, ours);
    source.execute("TRUNCATE tab1_2");
    caught_up(&both);
    for db in [&db, &side] {
        assert_eq!((keys(db, "tab1_1"), keys(db, "tab1_2")), ("1".into(), "".into()));
    }
    source.execute("TRUNCATE tab1");
    caught_up(&both);
    assert_eq!((keys(&db, "tab1_1"), keys(&side, "tab1_1")), ("".into(), "".into()));
    // Rows that are not here.
    source.execute("INSERT INTO tab1 VALUES (1, 'foo'), (4, 'bar'), (10, 'baz')");
    caught_up(&both);
    make(&db, "DELETE FROM tab1_1; DELETE FROM tab1_2; DELETE FROM tab1_def");
    source.execute("UPDATE tab1 SET b = 'quux' WHERE a = 4; DELETE FROM tab1");
    caught_up(&both);
    assert_eq!(missing_rows(&db), "1 3");
    let conflicts = "SELECT table_name, conflict FROM strand_replication_conflicts ORDER BY table_name, conflict";
    assert_eq!(
        db.lines(conflicts),
        ["public.tab1_1|delete_missing", "public.tab1_2|delete_missing", "public.tab1_2|update_missing", "public.tab1_def|delete_missing"]
    );
    assert_eq!(keys(&side, "tab1_2"), "");
    db.execute("DROP SUBSCRIPTION sub1");

    // By the root's name from here on.
    source.execute(
        "DROP PUBLICATION pub1; CREATE TABLE tab2 (a int PRIMARY KEY, b text) PARTITION BY LIST (a);
         CREATE TABLE tab2_1 (b text, a int NOT NULL); ALTER TABLE tab2 ATTACH PARTITION tab2_1 FOR VALUES IN (0, 1, 2, 3); CREATE TABLE tab2_2 PARTITION OF tab2 FOR VALUES IN (5, 6);
         CREATE TABLE tab3 (a int PRIMARY KEY, b text) PARTITION BY LIST (a); CREATE TABLE tab3_1 PARTITION OF tab3 FOR VALUES IN (0, 1, 2, 3, 5, 6);
         CREATE TABLE tab4 (a int PRIMARY KEY) PARTITION BY LIST (a); CREATE TABLE tab4_1 PARTITION OF tab4 FOR VALUES IN (-1, 0, 1) PARTITION BY LIST (a);
         CREATE TABLE tab4_1_1 PARTITION OF tab4_1 FOR VALUES IN (-1, 0, 1);
         ALTER PUBLICATION pub_all SET (publish_via_partition_root = true);
         CREATE PUBLICATION pub_viaroot FOR TABLE tab2, tab2_1, tab3_1, marks WITH (publish_via_partition_root = true);
         CREATE PUBLICATION pub_lower_level FOR TABLE tab4_1 WITH (publish_via_partition_root = true);
         INSERT INTO tab2 VALUES (1); INSERT INTO tab4 VALUES (-1)",
    );
    make(
        &db,
        "CREATE TABLE tab2 (a int PRIMARY KEY, c text DEFAULT 'sub1', b text); CREATE TABLE tab3_1 (c text DEFAULT 'sub1 leaf', b text, a int PRIMARY KEY)",
    );
    make(
        &side,
        "CREATE TABLE tab2 (a int PRIMARY KEY, c text DEFAULT 'sub2', b text); CREATE TABLE tab3 (a int PRIMARY KEY, c text DEFAULT 'sub2', b text);
         CREATE TABLE tab3_1 (a int PRIMARY KEY, c text DEFAULT 'sub2 leaf', b text); CREATE TABLE tab4 (a int PRIMARY KEY); CREATE TABLE tab4_1 (a int PRIMARY KEY)",
    );
    create(&db, &primary, "sub_viaroot", "PUBLICATION pub_viaroot");
    side.execute("ALTER SUBSCRIPTION sub2 SET PUBLICATION pub_lower_level, pub_all");
    let both = ["sub_viaroot", "sub2"];
    caught_up(&both);
    assert_eq!(db.lines("SELECT c, a FROM tab2"), ["sub1|1"]);
    assert_eq!((keys(&side, "tab4"), keys(&side, "tab4_1")), ("-1".into(), "".into()));
    source.execute(
        "INSERT INTO tab1 VALUES (1), (0); INSERT INTO tab1_1 (a) VALUES (3); INSERT INTO tab1_2 VALUES (5); INSERT INTO tab2 VALUES (0), (3), (5);
         INSERT INTO tab3 VALUES (1), (0), (3), (5); INSERT INTO tab4 VALUES (0)",
    );
    caught_up(&both);
    let by_root = |expected: &str, what: &str| {
        assert_eq!(keys(&db, "tab2"), expected, "{what}");
        assert_eq!(keys(&db, "tab3_1"), expected, "{what}: a leaf of a root that is not published goes by its own name");
        for table in ["tab1", "tab2", "tab3"] {
            assert_eq!(keys(&side, table), expected, "{what}: {table}");
        }
        assert_eq!((keys(&side, "tab3_1"), keys(&side, "tab4_1"), keys(&side, "tab1_1")), ("".into(), "".into(), "".into()), "{what}");
    };
    by_root("0,1,3,5", "insertions");
    assert_eq!(side.lines("SELECT DISTINCT c FROM tab1"), ["root"]);
    assert_eq!(db.lines("SELECT DISTINCT c FROM tab3_1"), ["sub1 leaf"]);
    assert_eq!(keys(&side, "tab4"), "-1,0", "the highest published part of the tree");
    // Whichever publication is named first.
    side.execute("ALTER SUBSCRIPTION sub2 SET PUBLICATION pub_all, pub_lower_level");
    source.execute("INSERT INTO tab4 VALUES (1)");
    caught_up(&both);
    assert_eq!((keys(&side, "tab4"), keys(&side, "tab4_1")), ("-1,0,1".into(), "".into()));
    for (from, to, expected) in [(5, 6, "0,1,3,6"), (6, 2, "0,1,2,3")] {
        source.execute(&["tab1", "tab2", "tab3"].map(|table| format!("UPDATE {table} SET a = {to} WHERE a = {from};")).concat());
        caught_up(&both);
        by_root(expected, "updates");
    }
    source.execute("DELETE FROM tab1; DELETE FROM tab2; DELETE FROM tab3");
    caught_up(&both);
    by_root("", "deletions");
    // A truncated leaf is nothing that a root could tell.
    source.execute("INSERT INTO tab1 VALUES (1), (2), (5); INSERT INTO tab2 VALUES (1), (2), (5); TRUNCATE tab1_2, tab2_1, tab3_1");
    caught_up(&both);
    assert_eq!((keys(&db, "tab2"), keys(&side, "tab1"), keys(&side, "tab2")), ("1,2,5".into(), "1,2,5".into(), "1,2,5".into()));
    source.execute("TRUNCATE tab1, tab2, tab3");
    caught_up(&both);
    by_root("", "truncation");

    // Columns of the root that its leaves have in another order, and of which one was ours alone until now.
    source.execute("ALTER TABLE tab2 DROP b, ADD COLUMN c text DEFAULT 'pub_tab2', ADD b text");
    source.execute(
        "INSERT INTO tab2 (a, b) VALUES (1, 'xxx'), (3, 'yyy'), (5, 'zzz'); INSERT INTO tab2 (a, b, c) VALUES (6, 'aaa', 'xxx_c')",
    );
    caught_up(&both);
    for db in [&db, &side] {
        assert_eq!(db.lines("SELECT c, a, b FROM tab2 ORDER BY a"), ["pub_tab2|1|xxx", "pub_tab2|3|yyy", "pub_tab2|5|zzz", "xxx_c|6|aaa"]);
    }
    make(&db, "DELETE FROM tab2");
    source.execute("UPDATE tab2 SET b = 'quux' WHERE a = 5; DELETE FROM tab2 WHERE a = 1");
    caught_up(&both);
    assert_eq!(
        db.lines("SELECT confl_update_missing, confl_delete_missing FROM pg_stat_subscription_stats WHERE subname = 'sub_viaroot'"),
        ["1|1"]
    );
    assert_eq!(side.lines("SELECT a, b FROM tab2 ORDER BY a"), ["3|yyy", "5|quux", "6|aaa"]);

    // A table found by an index, whose columns go and come on either side.
    let indexed = "CREATE UNIQUE INDEX tab5_a_idx ON tab5 (a)";
    source.execute(&format!(
        "CREATE TABLE tab5 (a int NOT NULL, b int); {indexed}; ALTER TABLE tab5 REPLICA IDENTITY USING INDEX tab5_a_idx"
    ));
    make(&side, &format!("CREATE TABLE tab5 (a int NOT NULL, b int, c int); {indexed}"));
    side.execute("ALTER SUBSCRIPTION sub2 REFRESH PUBLICATION");
    caught_up(&both);
    source.execute("INSERT INTO tab5 VALUES (1, 1); UPDATE tab5 SET a = 2 WHERE a = 1");
    caught_up(&both);
    assert_eq!(side.lines("SELECT a, b FROM tab5"), ["2|1"]);
    make(&side, "ALTER TABLE tab5 DROP COLUMN b; ALTER TABLE tab5 ADD COLUMN b int");
    source.execute("UPDATE tab5 SET a = 3 WHERE a = 2");
    caught_up(&both);
    assert_eq!(side.lines("SELECT a, b, c FROM tab5"), ["3|1|"]);
    source.execute("ALTER TABLE tab5 DROP COLUMN b, ADD COLUMN c int; ALTER TABLE tab5 ADD COLUMN b int");
    source.execute("UPDATE tab5 SET c = 1 WHERE a = 3; UPDATE tab5 SET a = 4 WHERE a = 3");
    caught_up(&both);
    assert_eq!(side.lines("SELECT a, b, c FROM tab5"), ["4||1"]);
    for ours in [
        "CREATE TABLE parts (a int PRIMARY KEY) PARTITION BY LIST (a)",
        "CREATE TABLE part PARTITION OF tab1 FOR VALUES IN (1)",
        "ALTER TABLE tab1 ATTACH PARTITION tab1_1 FOR VALUES IN (1)",
    ] {
        assert_eq!(db.sqlstate(ours), "0A000", "partitions of our own: {ours}");
    }
}
