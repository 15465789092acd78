//! What PostgreSQL's own tests of its subscriber demand, with Strandline as the subscriber: the same situations and outcomes, in our words.
//! The numbers are those of its test scripts.

use strandline_tests::replica::Options;
use strandline_tests::{Db, Primary, Replica};

/// A replica with tables made by hand, which follows `publications`.
fn subscribed(primary: &Primary, source: &Db, schema: &str, publications: &str) -> Replica {
    let mut replica = Replica::start(None, &Options::default());
    if !schema.is_empty() {
        replica.db().execute(schema);
        replica.db().execute("SELECT dolt_commit('-Am', 'tables made by hand')");
    }
    replica.stop();
    let options = Options { replication: vec![format!("publication_names: [{publications}]")], ..Options::default() };
    replica.configure(Some(primary), &options);
    replica.start_again();
    replica.catch_up(primary, source);
    replica
}

/// Lines of a query, sorted.
fn sorted(db: &Db, sql: &str) -> Vec<String> {
    let mut lines = db.lines(sql);
    lines.sort();
    lines
}

fn assert_same(replica: &Db, source: &Db, sql: &str) {
    assert_eq!(sorted(replica, sql), sorted(source, sql), "{sql}");
}

/// 001: what publications leave out, keys of all kinds, columns in another order and of wider types, unchanged long values.
#[test]
fn changes_of_all_kinds_arrive() {
    let primary = Primary::start(&["max_prepared_transactions = 2"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab_notrep AS SELECT generate_series(1, 10) AS a;
         CREATE TABLE tab_ins AS SELECT generate_series(1, 1002) AS a;
         CREATE TABLE tab_full AS SELECT generate_series(1, 10) AS a;
         CREATE TABLE tab_full2 (x text); INSERT INTO tab_full2 VALUES ('a'), ('b'), ('b');
         CREATE TABLE tab_rep (a int PRIMARY KEY);
         CREATE TABLE tab_mixed (a int PRIMARY KEY, b text, c numeric); INSERT INTO tab_mixed VALUES (1, 'foo', 1.1);
         CREATE TABLE tab_include (a int, b text, CONSTRAINT covering PRIMARY KEY (a) INCLUDE (b));
         CREATE TABLE tab_full_pk (a int PRIMARY KEY, b text); ALTER TABLE tab_full_pk REPLICA IDENTITY FULL;
         CREATE TABLE tab_nothing (a int); ALTER TABLE tab_nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE tab_no_col (); INSERT INTO tab_no_col DEFAULT VALUES;
         CREATE TABLE tab_index (a int NOT NULL, b text); CREATE UNIQUE INDEX by_a ON tab_index (a); ALTER TABLE tab_index REPLICA IDENTITY USING INDEX by_a;
         CREATE UNLOGGED TABLE tab_unlogged (a int);
         CREATE PUBLICATION tap_pub FOR TABLE tab_rep, tab_full, tab_full2, tab_mixed, tab_include, tab_nothing, tab_full_pk, tab_no_col, tab_index;
         CREATE PUBLICATION tap_pub_ins_only FOR TABLE tab_ins WITH (publish = 'insert')",
    );
    let replica = subscribed(
        &primary,
        &source,
        "CREATE TABLE tab_notrep (a int); CREATE TABLE tab_ins (a int); CREATE TABLE tab_full (a int); CREATE TABLE tab_rep (a int PRIMARY KEY);
         CREATE TABLE tab_full2 (x text);
         CREATE TABLE tab_mixed (d text DEFAULT 'local', c numeric, b text, a int PRIMARY KEY);
         CREATE TABLE tab_index (a bigint NOT NULL, b text); CREATE UNIQUE INDEX by_a ON tab_index (a)",
        "tap_pub, tap_pub_ins_only",
    );
    let db = replica.db();
    assert_eq!(db.value("SELECT count(*) FROM tab_notrep"), "0");
    assert_eq!(db.value("SELECT count(*) FROM tab_ins"), "1002");
    assert_eq!(db.lines("SELECT * FROM tab_mixed"), ["local|1.1|foo|1"]);
    assert_eq!(db.value("SELECT count(*) FROM tab_no_col"), "1");

    source.execute(
        "INSERT INTO tab_ins SELECT generate_series(1, 50); DELETE FROM tab_ins WHERE a > 20; UPDATE tab_ins SET a = -a;
         INSERT INTO tab_rep SELECT generate_series(1, 50); DELETE FROM tab_rep WHERE a > 20; UPDATE tab_rep SET a = -a;
         INSERT INTO tab_mixed VALUES (2, 'bar', 2.2);
         INSERT INTO tab_full_pk VALUES (1, 'foo'), (2, 'baz');
         INSERT INTO tab_nothing VALUES (generate_series(1, 20));
         INSERT INTO tab_include SELECT generate_series(1, 50); DELETE FROM tab_include WHERE a > 20; UPDATE tab_include SET a = -a;
         INSERT INTO tab_no_col DEFAULT VALUES;
         INSERT INTO tab_index VALUES (1, 'x'), (2, 'y'); UPDATE tab_index SET a = 3 WHERE a = 1; DELETE FROM tab_index WHERE a = 2;
         INSERT INTO tab_unlogged VALUES (1); CREATE TEMP TABLE passing (a int); INSERT INTO passing VALUES (1)",
    );
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_ins"), ["1052|1|1002"]);
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_rep"), ["20|-20|-1"]);
    assert_eq!(sorted(&db, "SELECT * FROM tab_mixed"), ["local|1.1|foo|1", "local|2.2|bar|2"]);
    assert_eq!(db.value("SELECT count(*) FROM tab_nothing"), "20");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_include"), ["20|-20|-1"]);
    assert_eq!(db.value("SELECT count(*) FROM tab_no_col"), "2");
    assert_eq!(db.lines("SELECT a, b FROM tab_index"), ["3|x"]);

    // Equal rows are changed one by one; NULL equals NULL.
    source.execute("INSERT INTO tab_full SELECT generate_series(1, 10); INSERT INTO tab_full VALUES (NULL)");
    source.execute("ALTER TABLE tab_full REPLICA IDENTITY FULL; ALTER TABLE tab_full2 REPLICA IDENTITY FULL; ALTER TABLE tab_ins REPLICA IDENTITY FULL");
    source.execute(
        "UPDATE tab_full SET a = a * a; DELETE FROM tab_full WHERE a IS NULL; UPDATE tab_full2 SET x = 'bb' WHERE x = 'b';
         UPDATE tab_mixed SET b = 'baz' WHERE a = 1; UPDATE tab_full_pk SET b = 'bar' WHERE a = 1; DELETE FROM tab_full_pk WHERE a = 2",
    );
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_full"), ["20|1|100"]);
    assert_eq!(sorted(&db, "SELECT x FROM tab_full2"), ["a", "bb", "bb"]);
    assert_eq!(sorted(&db, "SELECT * FROM tab_mixed"), ["local|1.1|baz|1", "local|2.2|bar|2"]);
    assert_eq!(db.lines("SELECT * FROM tab_full_pk"), ["1|bar"]);

    // Long values that an update leaves alone are not sent.
    source.execute(
        "UPDATE tab_mixed SET b = repeat('xyzzy', 100000) WHERE a = 2; INSERT INTO tab_full_pk VALUES (3, repeat('abcde', 100000))",
    );
    source.execute("UPDATE tab_mixed SET c = 3.3 WHERE a = 2; UPDATE tab_full_pk SET a = 4 WHERE a = 3");
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, "SELECT a, length(b), c, md5(b) FROM tab_mixed");
    assert_same(&db, &source, "SELECT a, length(b), md5(b) FROM tab_full_pk");

    // What a publication publishes may change.
    source.execute("ALTER PUBLICATION tap_pub_ins_only SET (publish = 'insert, delete'); DELETE FROM tab_ins WHERE a > 0; INSERT INTO tab_full VALUES (0)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_full"), ["21|0|100"]);
    // The rows that were updated to negative numbers before updates were published stay.
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_ins"), ["1052|1|1002"]);
}

/// 005: another encoding on the primary.
#[test]
fn text_of_another_encoding_arrives_as_utf_8() {
    let primary = Primary::start(&[]);
    primary.db().execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let source = primary.db_named("latin");
    source.execute(
        "CREATE TABLE test1 (a int, b text); INSERT INTO test1 VALUES (0, U&'caf\\00E9'); CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let options = Options { database: "latin".into(), ..Options::default() };
    let replica = Replica::start(Some(&primary), &options);
    replica.catch_up(&primary, &source);
    source.execute("INSERT INTO test1 VALUES (1, U&'na\\00EFve')");
    replica.catch_up(&primary, &source);
    assert_eq!(replica.db().lines("SELECT a, b, length(b) FROM test1 ORDER BY a"), ["0|café|4", "1|naïve|5"]);
}

/// 006, 009: what rewrites tables and catalogs is not replicated, and hurts nothing.
#[test]
fn rewrites_and_materialized_views_are_passed_over() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE test1 (a int, b text); CREATE PUBLICATION strandline FOR ALL TABLES");
    let replica = subscribed(&primary, &source, "", "strandline");
    source.execute("INSERT INTO test1 (a, b) VALUES (1, 'one'), (2, 'two')");
    // Catalogs rewritten within a transaction that changes rows.
    source.execute("VACUUM FULL pg_catalog.pg_class");
    source.execute("BEGIN; ALTER TABLE test1 ADD c int NOT NULL DEFAULT 0; INSERT INTO test1 (a, b, c) VALUES (3, 'three', 33); COMMIT");
    // A rewrite of the table makes the primary forget what older rows held: it comes after the column has arrived.
    replica.catch_up(&primary, &source);
    source.execute("CREATE MATERIALIZED VIEW testmv1 AS SELECT * FROM test1");
    source.execute("REFRESH MATERIALIZED VIEW testmv1; INSERT INTO test1 VALUES (4, 'four', 44)");
    source.execute("CREATE UNIQUE INDEX ON testmv1 (a); REFRESH MATERIALIZED VIEW CONCURRENTLY testmv1");
    source.execute("CLUSTER testmv1 USING testmv1_a_idx");
    source.execute("ALTER TABLE test1 SET (fillfactor = 50)");
    source.execute("VACUUM FULL test1");
    replica.catch_up(&primary, &source);
    assert_same(&replica.db(), &source, "SELECT a, b, c FROM test1");
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 008, with constant defaults: columns of our own, and our own values in them.
#[test]
fn columns_that_only_the_replica_has_keep_its_defaults_and_values() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE test_tab (a int PRIMARY KEY, b varchar); INSERT INTO test_tab VALUES (1, 'foo'), (2, 'bar');
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let replica = subscribed(
        &primary,
        &source,
        "CREATE TABLE test_tab (a int PRIMARY KEY, b text, c timestamptz DEFAULT '2020-01-01', d bigint DEFAULT 999)",
        "strandline",
    );
    let db = replica.db();
    let counts = "SELECT count(*), count(c), count(CASE WHEN d = 999 THEN 1 END) FROM test_tab";
    assert_eq!(db.lines(counts), ["2|2|2"]);
    source.execute("UPDATE test_tab SET b = md5(b)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines(counts), ["2|2|2"]);
    assert_same(&db, &source, "SELECT a, b FROM test_tab");

    db.execute("UPDATE test_tab SET c = 'epoch'::timestamptz + 987654321 * interval '1s'");
    db.execute("SELECT dolt_commit('-Am', 'ours')");
    source.execute("UPDATE test_tab SET b = md5(a::text)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM test_tab WHERE extract(epoch FROM c) = 987654321 AND d = 999"), "2");
    assert_same(&db, &source, "SELECT a, b FROM test_tab");

    source.execute("INSERT INTO test_tab VALUES (3, 'baz')");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines(counts), ["3|3|3"]);
}

/// 010: TRUNCATE of several tables, with its options, and where a publication leaves it out.
#[test]
fn truncation_arrives_as_published() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab1 (a int PRIMARY KEY); CREATE TABLE tab2 (a int PRIMARY KEY); CREATE SEQUENCE seq OWNED BY tab2.a;
         CREATE TABLE tab3 (a int PRIMARY KEY); CREATE TABLE tab4 (x int PRIMARY KEY, y int REFERENCES tab3);
         CREATE PUBLICATION pub1 FOR TABLE tab1; CREATE PUBLICATION pub2 FOR TABLE tab2 WITH (publish = 'insert');
         CREATE PUBLICATION pub3 FOR TABLE tab3, tab4",
    );
    let replica = subscribed(&primary, &source, "", "pub1, pub2, pub3");
    let db = replica.db();
    let fill = "INSERT INTO tab1 VALUES (1), (2), (3); INSERT INTO tab2 VALUES (1), (2), (3); INSERT INTO tab3 VALUES (1), (2), (3);
                INSERT INTO tab4 VALUES (1, 1), (2, 2)";
    source.execute(fill);
    source.execute("TRUNCATE tab1; TRUNCATE tab2 RESTART IDENTITY");
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT count(*) FROM tab1"), "0");
    // This publication does not publish it.
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab2"), ["3|1|3"]);
    source.execute("TRUNCATE tab3 CASCADE");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT (SELECT count(*) FROM tab3), (SELECT count(*) FROM tab4)"), ["0|0"]);
    // Within a transaction, between other changes, and rolled back.
    source.execute(
        "BEGIN; INSERT INTO tab3 VALUES (7); INSERT INTO tab4 VALUES (7, 7); TRUNCATE tab3, tab4; INSERT INTO tab3 VALUES (8); COMMIT",
    );
    source.execute("BEGIN; TRUNCATE tab3, tab4; ROLLBACK");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT a FROM tab3"), ["8"]);
    assert_eq!(db.value("SELECT count(*) FROM tab4"), "0");
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 013, without what needs partitions on the replica: leaves by their own names, or all as their root.
#[test]
fn partitioned_tables_arrive_as_leaves_or_as_their_root() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab1 (a int PRIMARY KEY, b text) PARTITION BY LIST (a);
         CREATE TABLE tab1_1 (b text, a int NOT NULL); ALTER TABLE tab1 ATTACH PARTITION tab1_1 FOR VALUES IN (1, 2, 3);
         CREATE TABLE tab1_2 PARTITION OF tab1 FOR VALUES IN (4, 5, 6); CREATE TABLE tab1_def PARTITION OF tab1 DEFAULT;
         CREATE TABLE tab2 (a int PRIMARY KEY, b text) PARTITION BY LIST (a);
         CREATE TABLE tab2_1 (b text, a int NOT NULL); ALTER TABLE tab2 ATTACH PARTITION tab2_1 FOR VALUES IN (0, 1, 2, 3);
         CREATE TABLE tab2_2 PARTITION OF tab2 FOR VALUES IN (5, 6);
         INSERT INTO tab2 VALUES (1, 'before'), (5, 'before');
         CREATE PUBLICATION leaves FOR TABLE tab1; CREATE PUBLICATION root FOR TABLE tab2 WITH (publish_via_partition_root)",
    );
    let replica = subscribed(
        &primary,
        &source,
        "CREATE TABLE tab1_1 (a int PRIMARY KEY, c text DEFAULT 'leaf 1', b text); CREATE TABLE tab1_2 (a int PRIMARY KEY, c text DEFAULT 'leaf 2', b text)",
        "leaves, root",
    );
    let db = replica.db();
    assert_eq!(db.lines("SELECT * FROM tab2 ORDER BY a"), ["1|before", "5|before"]);
    source.execute(
        "INSERT INTO tab1 VALUES (1); INSERT INTO tab1_1 (a) VALUES (3); INSERT INTO tab1_2 VALUES (5); INSERT INTO tab1 VALUES (0)",
    );
    source.execute("INSERT INTO tab2 VALUES (0, 'zero'), (3, NULL), (6, 'six')");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT c, a FROM tab1_1 ORDER BY a"), ["leaf 1|1", "leaf 1|3"]);
    assert_eq!(db.lines("SELECT c, a FROM tab1_2"), ["leaf 2|5"]);
    assert_eq!(db.lines("SELECT a FROM tab1_def"), ["0"]);
    assert_same(&db, &source, "SELECT a, b FROM tab2");
    // Within a leaf, and from one to another: then a deletion and an insertion, for the root too.
    source.execute("UPDATE tab1 SET a = 2 WHERE a = 1; UPDATE tab1 SET a = 6 WHERE a = 5; UPDATE tab1 SET a = 4 WHERE a = 0");
    source.execute(
        "UPDATE tab2 SET a = 6, b = 'moved' WHERE a = 0 AND false; UPDATE tab2 SET a = 2 WHERE a = 6; UPDATE tab2 SET b = 'x' WHERE a = 5",
    );
    replica.catch_up(&primary, &source);
    for table in ["tab1_1", "tab1_2", "tab1_def", "tab2"] {
        assert_same(&db, &source, &format!("SELECT a, b FROM {table}"));
    }
    // A leaf that is truncated, or attached later, belongs to the root's table.
    source.execute("TRUNCATE tab1_2; DELETE FROM tab2 WHERE a = 2");
    source.execute("CREATE TABLE tab2_3 (b text, a int PRIMARY KEY, extra int); ALTER TABLE tab2_3 DROP COLUMN extra; ALTER TABLE tab2 ATTACH PARTITION tab2_3 DEFAULT");
    source.execute("INSERT INTO tab2 VALUES (40, 'forty'); UPDATE tab2 SET a = 41 WHERE a = 40");
    replica.catch_up(&primary, &source);
    for table in ["tab1_1", "tab1_2", "tab1_def", "tab2"] {
        assert_same(&db, &source, &format!("SELECT a, b FROM {table}"));
    }
    source.execute("TRUNCATE tab1; TRUNCATE tab2");
    replica.catch_up(&primary, &source);
    for table in ["tab1_1", "tab1_2", "tab1_def", "tab2"] {
        assert_eq!(db.value(&format!("SELECT count(*) FROM {table}")), "0", "{table}");
    }
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 028: rows that a filter lets through, and rows that an update moves in or out.
#[test]
fn row_filters_decide_what_is_here() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab_rowfilter_1 (a int PRIMARY KEY, b text);
         ALTER TABLE tab_rowfilter_1 REPLICA IDENTITY FULL;
         CREATE TABLE tab_rowfilter_2 (c int PRIMARY KEY);
         CREATE TABLE tab_or (a int PRIMARY KEY, b int); ALTER TABLE tab_or REPLICA IDENTITY FULL;
         CREATE TABLE tab_toast (a text NOT NULL, b text NOT NULL); ALTER TABLE tab_toast ALTER COLUMN a SET STORAGE EXTERNAL;
         CREATE UNIQUE INDEX tab_toast_ri ON tab_toast (a, b); ALTER TABLE tab_toast REPLICA IDENTITY USING INDEX tab_toast_ri;
         INSERT INTO tab_rowfilter_1 VALUES (1, 'not replicated'), (1500, 'filtered'), (1980, 'not filtered'), (2000, 'not replicated');
         INSERT INTO tab_rowfilter_2 SELECT generate_series(1, 20);
         INSERT INTO tab_or SELECT g, g FROM generate_series(1, 10) g;
         INSERT INTO tab_toast VALUES (repeat('1234567890', 200), '1234567890');
         CREATE PUBLICATION pub1 FOR TABLE tab_rowfilter_1 WHERE (a > 1000 AND b <> 'filtered'), tab_toast WHERE (a = repeat('1234567890', 200) AND b < '10');
         CREATE PUBLICATION pub2 FOR TABLE tab_rowfilter_2 WHERE (c % 2 = 0), tab_or WHERE (a < 3);
         CREATE PUBLICATION pub3 FOR TABLE tab_or WHERE (b > 8)",
    );
    let replica = subscribed(&primary, &source, "", "pub1, pub2, pub3");
    let db = replica.db();
    assert_eq!(db.lines("SELECT a FROM tab_rowfilter_1 ORDER BY a"), ["1980", "2000"]);
    assert_eq!(db.lines("SELECT count(c), min(c), max(c) FROM tab_rowfilter_2"), ["10|2|20"]);
    assert_eq!(db.lines("SELECT a FROM tab_or ORDER BY a"), ["1", "2", "9", "10"]);
    assert_eq!(db.value("SELECT count(*) FROM tab_toast"), "0");
    source.execute(
        "INSERT INTO tab_rowfilter_1 VALUES (800, 'test 800'), (1600, 'test 1600'), (1601, 'test 1601'), (1602, 'filtered'), (1700, 'test 1700');
         UPDATE tab_rowfilter_1 SET b = NULL WHERE a = 1600;
         UPDATE tab_rowfilter_1 SET b = 'test 1601 updated' WHERE a = 1601;
         UPDATE tab_rowfilter_1 SET b = 'test 1602 updated' WHERE a = 1602;
         UPDATE tab_rowfilter_1 SET a = 1 + 998 WHERE a = 1980;
         DELETE FROM tab_rowfilter_1 WHERE a = 1700;
         INSERT INTO tab_rowfilter_2 VALUES (21), (22); UPDATE tab_rowfilter_2 SET c = 23 WHERE c = 22; UPDATE tab_rowfilter_2 SET c = 24 WHERE c = 21;
         UPDATE tab_or SET b = 1 WHERE a = 9; UPDATE tab_or SET b = 100 WHERE a = 5;
         UPDATE tab_toast SET b = '1'",
    );
    replica.catch_up(&primary, &source);
    // Out of the filter is a deletion here, into it an insertion.
    assert_eq!(
        db.lines("SELECT a, b FROM tab_rowfilter_1 ORDER BY a"),
        ["1601|test 1601 updated", "1602|test 1602 updated", "2000|not replicated"]
    );
    assert_eq!(db.lines("SELECT c FROM tab_rowfilter_2 WHERE c > 20"), ["24"]);
    assert_eq!(db.lines("SELECT a FROM tab_or ORDER BY a"), ["1", "2", "5", "10"]);
    // The long value, which the update left alone, is in the row that came into the filter.
    assert_same(&db, &source, "SELECT a = repeat('1234567890', 200), b FROM tab_toast");
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 031: columns that a publication lists, with keys that change.
#[test]
fn column_lists_decide_which_columns_are_here() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        r#"CREATE TYPE test_typ AS ENUM ('blue', 'red');
         CREATE TABLE tab1 (a int PRIMARY KEY, "B" int, c int); INSERT INTO tab1 VALUES (1, 2, 3), (4, 5, 6);
         CREATE TABLE tab3 ("a'" int PRIMARY KEY, "B" varchar, "c'" int); INSERT INTO tab3 VALUES (1, '2', 3), (4, '5', 6);
         CREATE TABLE tab4 (a int PRIMARY KEY, b test_typ, c int, d text); INSERT INTO tab4 VALUES (1, 'red', 3, 'oh my'), (2, 'blue', 4, 'hello');
         CREATE TABLE test_part (a int PRIMARY KEY, b text, c timestamptz) PARTITION BY LIST (a);
         CREATE TABLE test_part_1_1 PARTITION OF test_part FOR VALUES IN (1, 2, 3, 4, 5, 6);
         CREATE TABLE test_part_2_1 PARTITION OF test_part FOR VALUES IN (7, 8, 9, 10, 11, 12) PARTITION BY LIST (a);
         CREATE TABLE test_part_2_2 PARTITION OF test_part_2_1 FOR VALUES IN (7, 8, 9, 10);
         INSERT INTO test_part VALUES (1, 'abc', '2021-07-04 12:00:00'), (7, 'abc', '2021-07-04 12:00:00');
         CREATE TABLE tab7 (a int PRIMARY KEY, b int, c int, d int); INSERT INTO tab7 VALUES (1, 22, 333, 4444);
         CREATE PUBLICATION pub1 FOR TABLE tab1 (a, "B"), tab3 ("a'", "c'"), test_part (a, b), tab4 (a, b, d) WITH (publish_via_partition_root);
         CREATE PUBLICATION pub2 FOR TABLE tab7 (a, b); CREATE PUBLICATION pub3 FOR TABLE tab7 (a, b)"#,
    );
    let replica = subscribed(
        &primary,
        &source,
        r#"CREATE TABLE tab1 (a int PRIMARY KEY, "B" int, c int); CREATE TABLE tab7 (a int PRIMARY KEY, b int, c int, d int)"#,
        "pub1, pub2, pub3",
    );
    let db = replica.db();
    assert_eq!(db.lines("SELECT * FROM tab1 ORDER BY a"), ["1|2|", "4|5|"]);
    assert_eq!(db.lines(r#"SELECT * FROM tab3 ORDER BY "a'""#), ["1|3", "4|6"]);
    assert_eq!(db.lines("SELECT * FROM tab4 ORDER BY a"), ["1|red|oh my", "2|blue|hello"]);
    assert_eq!(db.lines("SELECT * FROM test_part ORDER BY a"), ["1|abc", "7|abc"]);
    assert_eq!(db.lines("SELECT * FROM tab7"), ["1|22||"]);
    source.execute(
        r#"INSERT INTO tab1 VALUES (2, 3, 4); INSERT INTO tab3 VALUES (2, '3', 4); INSERT INTO tab4 VALUES (3, 'red', 5, 'foo');
         INSERT INTO test_part VALUES (3, 'xxx', '2022-02-01 10:00:00'), (9, 'zzz', '2022-04-03 21:00:00');
         UPDATE tab1 SET "B" = 2 * "B" WHERE a = 1; UPDATE tab1 SET c = 2 * c WHERE a = 4;
         UPDATE tab3 SET "B" = "B" || ' updated' WHERE "a'" = 4; UPDATE tab3 SET "c'" = 2 * "c'" WHERE "a'" = 1;
         UPDATE tab4 SET b = 'blue', c = c * 2, d = d || ' updated' WHERE a = 1;
         INSERT INTO tab7 VALUES (2, 33, 444, 5555); UPDATE tab7 SET b = b * 2, c = c * 3, d = d * 4"#,
    );
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT * FROM tab1 ORDER BY a"), ["1|4|", "2|3|", "4|5|"]);
    assert_eq!(db.lines(r#"SELECT * FROM tab3 ORDER BY "a'""#), ["1|6", "2|4", "4|6"]);
    assert_eq!(db.lines("SELECT * FROM tab4 ORDER BY a"), ["1|blue|oh my updated", "2|blue|hello", "3|red|foo"]);
    assert_eq!(db.lines("SELECT * FROM test_part ORDER BY a"), ["1|abc", "3|xxx", "7|abc", "9|zzz"]);
    assert_eq!(db.lines("SELECT * FROM tab7 ORDER BY a"), ["1|44||", "2|66||"]);
    // The key moves to other columns of the list, and rows come while there is none.
    source.execute("ALTER TABLE tab7 DROP CONSTRAINT tab7_pkey; ALTER TABLE tab7 ADD PRIMARY KEY (a, b)");
    source.execute("INSERT INTO tab7 VALUES (3, 55, 666, 7777); UPDATE tab7 SET b = b * 2, c = c * 3, d = d * 4");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT * FROM tab7 ORDER BY a"), ["1|88||", "2|132||", "3|110||"]);
    source.execute(
        "ALTER TABLE tab7 DROP CONSTRAINT tab7_pkey; INSERT INTO tab7 VALUES (4, 77, 888, 9999); ALTER TABLE tab7 ADD PRIMARY KEY (b, a);
         UPDATE tab7 SET b = b * 2, c = c * 3, d = d * 4; DELETE FROM tab7 WHERE a = 1",
    );
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT * FROM tab7 ORDER BY a"), ["2|264||", "3|220||", "4|154||"]);
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 032: rows found without a key, by whatever index there is or none.
#[test]
fn rows_of_full_identity_are_found_by_any_index_or_none() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE plain (x int, y text); CREATE TABLE two (x int, y int); CREATE TABLE expr (firstname text, lastname text);
         ALTER TABLE plain REPLICA IDENTITY FULL; ALTER TABLE two REPLICA IDENTITY FULL; ALTER TABLE expr REPLICA IDENTITY FULL;
         INSERT INTO plain SELECT i % 10, 'v' || i % 3 FROM generate_series(0, 99) i; INSERT INTO two SELECT i, i % 7 FROM generate_series(0, 199) i;
         INSERT INTO expr SELECT 'first_name_' || i, 'last_name_' || i FROM generate_series(0, 50) i;
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let replica = subscribed(
        &primary,
        &source,
        "CREATE TABLE plain (x int, y text); CREATE INDEX ON plain (x); CREATE TABLE two (y int, x bigint); CREATE INDEX ON two (x, y);
         CREATE TABLE expr (firstname text, lastname text)",
        "strandline",
    );
    let db = replica.db();
    source.execute(
        "UPDATE plain SET x = x + 1 WHERE x = 5; DELETE FROM plain WHERE x = 3 AND y = 'v0'; INSERT INTO plain VALUES (NULL, NULL), (NULL, 'n');
         UPDATE plain SET y = NULL WHERE x IS NULL; DELETE FROM plain WHERE x IS NULL AND y IS NULL;
         UPDATE two SET y = 1000 + y WHERE x BETWEEN 10 AND 30; DELETE FROM two WHERE x % 10 = 0; UPDATE expr SET firstname = 'no-name' WHERE firstname = 'first_name_1';
         DELETE FROM expr WHERE lastname = 'last_name_7'",
    );
    replica.catch_up(&primary, &source);
    assert_same(&db, &source, "SELECT x, y FROM plain");
    assert_same(&db, &source, "SELECT x, y FROM two");
    assert_same(&db, &source, "SELECT firstname, lastname FROM expr");
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

/// 100: situations in which PostgreSQL once failed.
#[test]
fn old_defects_of_subscribers_are_not_repeated() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    // 18 updates no row by an identity of which a column is not published; there generated columns can be, and come with their values.
    let options = if source.value("SHOW server_version_num").parse::<u32>().unwrap() >= 180_000 {
        "WITH (publish_generated_columns = stored)"
    } else {
        ""
    };
    source.execute(&format!(
        "CREATE TABLE tab1 (a int PRIMARY KEY, b int); CREATE FUNCTION double(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'select x * 2';
         CREATE INDEX ON tab1 (b) WHERE a > double(1);
         CREATE TABLE tab_replidentity_index (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX idx_replidentity_index ON tab_replidentity_index (b, a);
         ALTER TABLE tab_replidentity_index REPLICA IDENTITY USING INDEX idx_replidentity_index; INSERT INTO tab_replidentity_index VALUES (1, 10);
         CREATE TABLE dropped_cols (a int, b_drop int, c int); ALTER TABLE dropped_cols REPLICA IDENTITY FULL; INSERT INTO dropped_cols VALUES (1, 1, 1);
         CREATE TABLE generated_cols (a int, b_gen int GENERATED ALWAYS AS (5 * a) STORED, c int); ALTER TABLE generated_cols REPLICA IDENTITY FULL;
         INSERT INTO generated_cols (a, c) VALUES (1, 1);
         CREATE PUBLICATION strandline FOR ALL TABLES {options}",
    ));
    let replica = subscribed(&primary, &source, "", "strandline");
    let db = replica.db();
    source.execute("INSERT INTO tab1 VALUES (1, 2)");
    source.execute("UPDATE tab_replidentity_index SET a = 2 WHERE a = 1 AND b = 10");
    // Columns that are gone, or never sent, are no part of a row's identity.
    source.execute("ALTER TABLE dropped_cols DROP COLUMN b_drop; UPDATE dropped_cols SET a = 100; UPDATE generated_cols SET a = 100");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT a, b FROM tab1"), ["1|2"]);
    assert_eq!(db.lines("SELECT a, b FROM tab_replidentity_index"), ["2|10"]);
    assert_eq!(db.lines("SELECT a, c FROM dropped_cols"), ["100|1"]);
    assert_eq!(db.lines("SELECT a, c FROM generated_cols"), ["100|1"]);
    if !options.is_empty() {
        assert_eq!(db.value("SELECT b_gen FROM generated_cols"), "500");
    }

    // Tables that come and go, and change their owners' publications, while rows arrive.
    source.execute("CREATE TABLE skip_insert (a int); INSERT INTO skip_insert VALUES (22); DROP TABLE skip_insert");
    source.execute("CREATE TABLE back (a int PRIMARY KEY, b text); INSERT INTO back VALUES (1, 'one')");
    source.execute("CREATE SCHEMA sch1; CREATE TABLE sch1.t1 (c1 int); INSERT INTO sch1.t1 VALUES (1); ALTER SCHEMA sch1 RENAME TO sch2");
    source.execute("INSERT INTO sch2.t1 VALUES (2); UPDATE back SET b = 'two'");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT a, b FROM back"), ["1|two"]);
    let places = db.value("SELECT count(*) FROM pg_tables WHERE tablename = 't1' AND schemaname IN ('sch1', 'sch2')");
    assert_eq!(places, "1", "the table moved or stayed, and is not there twice");
}

/// A replica whose table was changed and committed here, against the primary's next changes.
fn conflicting(conflicts: &str) -> (Primary, Db, Replica) {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text); INSERT INTO t SELECT g, g, 'row ' || g FROM generate_series(1, 9) g;
         CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let replication = if conflicts.is_empty() { Vec::new() } else { vec![format!("conflicts: {{{conflicts}}}")] };
    let replica = Replica::start(Some(&primary), &Options { replication, ..Options::default() });
    replica.catch_up(&primary, &source);
    let db = replica.db();
    db.execute("DELETE FROM t WHERE id IN (1, 2); INSERT INTO t VALUES (20, 20, 'ours'), (21, 99, 'ours, by u')");
    db.execute("SELECT dolt_commit('-Am', 'changed here')");
    (primary, source, replica)
}

const CONFLICTS: &str =
    "SELECT conflict, resolution, table_name, row_key, our_row ->> 'v', their_row ->> 'v' FROM strand_replication_conflicts ORDER BY time";

/// 029, 035: what does not fit is skipped where PostgreSQL skips it, counted, logged and shown.
#[test]
fn rows_that_are_missing_here_are_skipped_and_shown() {
    let (primary, source, replica) = conflicting("");
    let db = replica.db();
    source.execute("UPDATE t SET v = 'new' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET v = 'three' WHERE id = 3");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT id, v FROM t WHERE id <= 3"), ["3|three"]);
    assert_eq!(db.lines(CONFLICTS), ["update_missing|skip|public.t|(id)=(1)||new", "delete_missing|skip|public.t|(id)=(2)||"]);
    let counts = "SELECT confl_insert_exists, confl_update_exists, confl_update_missing, confl_delete_missing, apply_error_count FROM pg_stat_subscription_stats";
    assert_eq!(db.lines(counts), ["0|0|1|1|0"]);
    let complaints = replica.complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].contains("update_missing") && complaints[0].contains("(id)=(1)"), "{complaints:?}");
    // The transaction is a commit like the others, with what of it could be done.
    assert_eq!(db.value("SELECT count(*) FROM dolt_diff_t WHERE to_commit = (SELECT commit_hash FROM dolt_log LIMIT 1)"), "1");
}

#[test]
fn a_row_that_is_here_already_stops_replication_unless_told_otherwise() {
    let (_primary, source, replica) = conflicting("");
    source.execute("INSERT INTO t VALUES (20, 120, 'theirs')");
    let db = replica.db();
    strandline_tests::wait_until(|| db.value("SELECT state FROM pg_stat_subscription") == "failed", || "replication to stop".into());
    let error = db.value("SELECT last_error FROM pg_stat_subscription");
    assert!(error.contains("duplicate key value violates unique constraint \"t_pkey\""), "{error}");
    assert_eq!(db.lines(CONFLICTS), ["insert_exists|error|public.t|(id)=(20)|ours|theirs"]);
    assert_eq!(db.value("SELECT confl_insert_exists FROM pg_stat_subscription_stats"), "1");
}

#[test]
fn conflicts_are_resolved_as_configured() {
    let (primary, source, replica) = conflicting("insert_exists: apply, update_missing: apply");
    let db = replica.db();
    source.execute("UPDATE t SET v = 'new' WHERE id = 1; INSERT INTO t VALUES (20, 120, 'theirs')");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT id, u, v FROM t WHERE id IN (1, 20) ORDER BY id"), ["1|1|new", "20|120|theirs"]);
    assert_eq!(db.lines(CONFLICTS), ["update_missing|apply|public.t|(id)=(1)||new", "insert_exists|apply|public.t|(id)=(20)|ours|theirs"]);

    let (primary, source, replica) = conflicting("insert_exists: keep, update_exists: keep");
    let db = replica.db();
    // By its key, by a unique index, and by an update.
    source.execute("INSERT INTO t VALUES (20, 120, 'theirs'), (30, 99, 'theirs'), (31, 31, 'fits'); UPDATE t SET u = 20 WHERE id = 5; UPDATE t SET v = 'six' WHERE id = 6");
    replica.catch_up(&primary, &source);
    assert_eq!(
        db.lines("SELECT id, u, v FROM t WHERE id IN (5, 6) OR id > 9 ORDER BY id"),
        ["5|5|row 5", "6|6|six", "20|20|ours", "21|99|ours, by u", "31|31|fits"]
    );
    assert_eq!(
        db.lines(CONFLICTS),
        [
            "insert_exists|keep|public.t|(id)=(20)|ours|theirs",
            "insert_exists|keep|public.t|(u)=(99)||theirs",
            "update_exists|keep|public.t|(u)=(20)||row 5"
        ]
    );
    // Nothing is left behind in an index by what was kept out.
    assert_eq!(db.lines("SELECT id FROM t WHERE u = 120"), Vec::<String>::new());
}
