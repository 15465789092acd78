//! What PostgreSQL's own tests of CREATE SUBSCRIPTION demand, with Strandline as the subscriber: the same situations and outcomes, in our words. The numbers are
//! those of its test scripts.

use strandline_tests::subscriptions::{create, make, subscriber, wait_for_subscription, wait_for_tables};
use strandline_tests::{Db, Primary, wait_until};

/// The LSN at which a failed transaction finished, as the last error tells it.
fn finish_lsn(db: &Db) -> String {
    let error = db.value("SELECT last_error FROM pg_stat_subscription");
    let at = error.split("finished at ").nth(1).unwrap_or_else(|| panic!("no LSN in: {error}"));
    at.split(|c: char| !c.is_ascii_hexdigit() && c != '/').next().unwrap_or_default().to_owned()
}

/// 001, what is not in `subscriber.rs`: several subscriptions, publications that come and go, all that happens at ALTER and DROP.
#[test]
fn publications_are_exchanged_and_subscriptions_come_and_go() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    let tables = "CREATE TABLE tab_notrep (a int); CREATE TABLE tab_ins (a int); CREATE TABLE tab_full (a int); CREATE TABLE tab_rep (a int PRIMARY KEY)";
    source.execute(tables);
    source.execute(
        "INSERT INTO tab_notrep SELECT generate_series(1, 10); INSERT INTO tab_ins SELECT generate_series(1, 1002);
         INSERT INTO tab_full SELECT generate_series(1, 10);
         CREATE PUBLICATION tap_pub FOR TABLE tab_rep, tab_full; CREATE PUBLICATION tap_pub_ins_only FOR TABLE tab_ins WITH (publish = insert);
         ALTER TABLE tab_full REPLICA IDENTITY FULL",
    );
    let replica = subscriber();
    let db = replica.db();
    make(&db, tables);
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub, tap_pub_ins_only");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT count(*) FROM tab_notrep"), "0");
    assert_eq!(db.value("SELECT count(*) FROM tab_ins"), "1002");
    source.execute("INSERT INTO tab_ins SELECT generate_series(1, 50); DELETE FROM tab_rep; INSERT INTO tab_rep SELECT generate_series(1, 50); DELETE FROM tab_rep WHERE a > 20");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_rep"), ["20|1|20"]);

    // A subscription of another publication set, whose table's rows are here already and are not copied again.
    db.execute("ALTER SUBSCRIPTION tap_sub SET PUBLICATION tap_pub_ins_only WITH (copy_data = false)");
    assert_eq!(db.lines("SELECT srrelid::regclass FROM pg_subscription_rel"), ["tab_ins"]);
    source.execute("INSERT INTO tab_ins SELECT generate_series(1001, 1100); DELETE FROM tab_rep");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_ins"), ["1152|1|1100"]);
    assert_eq!(db.value("SELECT count(*) FROM tab_rep"), "20", "what was removed is not followed");

    // Now with copying: the rows come anew into the emptied table.
    make(&db, "TRUNCATE tab_rep; TRUNCATE tab_full");
    source.execute("INSERT INTO tab_rep SELECT generate_series(1, 7)");
    db.execute("ALTER SUBSCRIPTION tap_sub ADD PUBLICATION tap_pub");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*) FROM tab_rep"), ["7"]);
    assert_eq!(db.lines("SELECT count(*) FROM tab_full"), ["10"]);
    // A table added to a publication is followed from REFRESH on.
    source.execute("ALTER PUBLICATION tap_pub ADD TABLE tab_notrep; INSERT INTO tab_notrep VALUES (11)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT count(*) FROM tab_notrep"), "0");
    db.execute("ALTER SUBSCRIPTION tap_sub REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT count(*) FROM tab_notrep"), "11");
    source.execute("INSERT INTO tab_notrep VALUES (12)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT count(*) FROM tab_notrep"), "12");

    // Renamed while it runs; dropped, it leaves nothing.
    db.execute("ALTER SUBSCRIPTION tap_sub RENAME TO tap_sub_renamed");
    source.execute("INSERT INTO tab_ins VALUES (2000)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT max(a) FROM tab_ins"), "2000");
    create(&db, &primary, "tap_sub_temp", "PUBLICATION tap_pub WITH (copy_data = false)");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "2");
    db.execute("DROP SUBSCRIPTION tap_sub_renamed; DROP SUBSCRIPTION tap_sub_temp");
    for gone in ["pg_subscription", "pg_subscription_rel", "pg_stat_subscription", "pg_replication_origin", "pg_replication_origin_status"]
    {
        assert_eq!(db.value(&format!("SELECT count(*) FROM {gone}")), "0", "{gone}");
    }
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
    assert_eq!(replica.complaints(), [""; 0]);
}

/// 004: a table whose rows conflict with those here is tried again until they do not; the others follow meanwhile.
#[test]
fn a_table_that_cannot_be_copied_is_tried_again_and_holds_up_no_other() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    let tables = "CREATE TABLE tab_rep (a int PRIMARY KEY); CREATE TABLE tab_next (a int)";
    source.execute(&format!("{tables}; INSERT INTO tab_rep SELECT generate_series(1, 10); INSERT INTO tab_next VALUES (1); CREATE PUBLICATION tap_pub FOR ALL TABLES"));
    let replica = subscriber();
    let db = replica.db();
    make(&db, tables);
    make(&db, "INSERT INTO tab_rep VALUES (7), (100)");
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub");
    let states = "SELECT string_agg(srrelid::regclass::text || ' ' || srsubstate::text, ',' ORDER BY srrelid::regclass::text) FROM pg_subscription_rel";
    wait_until(
        || db.value("SELECT sync_error_count > 1 FROM pg_stat_subscription_stats") == "t",
        || format!("two attempts to fail: {}", db.value(states)),
    );
    let error = db.value("SELECT last_error FROM pg_stat_subscription");
    assert!(error.contains("public.tab_rep") && error.contains("duplicate key") && error.contains("(a)=(7)"), "{error}");
    source.execute("INSERT INTO tab_next VALUES (2)");
    wait_until(|| db.value("SELECT count(*) FROM tab_next") == "2", || format!("the other table to follow: {}", db.value(states)));
    assert_eq!(db.lines("SELECT a FROM tab_rep ORDER BY a"), ["7", "100"], "nothing of a failed copy is seen");
    make(&db, "DELETE FROM tab_rep WHERE a = 7");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), max(a) FROM tab_rep"), ["11|100"], "rows that are in nobody's way stay");
    assert_eq!(db.value(states), "tab_next r,tab_rep r");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "1", "no temporary slot is left");

    // Dropped while a copy fails: nothing is left on the primary.
    source.execute("CREATE TABLE tab_third (a int PRIMARY KEY); INSERT INTO tab_third VALUES (1)");
    make(&db, "CREATE TABLE tab_third (a int PRIMARY KEY); INSERT INTO tab_third VALUES (1)");
    db.execute("ALTER SUBSCRIPTION tap_sub REFRESH PUBLICATION");
    wait_until(
        || db.value("SELECT coalesce(last_error, '') LIKE '%tab_third%' FROM pg_stat_subscription") == "t",
        || "the third table to fail".into(),
    );
    db.execute("DROP SUBSCRIPTION tap_sub");
    wait_until(|| source.value("SELECT count(*) FROM pg_replication_slots") == "0", || "the slots to go".into());
}

/// 007: subscriptions without publications, slots or a primary.
#[test]
fn what_is_missing_on_the_primary_is_warned_of_and_waited_for() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE test1 (a int PRIMARY KEY); CREATE PUBLICATION mypub FOR ALL TABLES");
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "mysub", "PUBLICATION mypub, later");
    source.execute("INSERT INTO test1 VALUES (1)");
    // From version 18 on the primary goes on without it, and says so in its own log.
    if primary.major_version() < 18 {
        wait_until(
            || db.value("SELECT coalesce(last_error, '') LIKE '%publication \"later\" does not exist%' FROM pg_stat_subscription") == "t",
            || format!("the missing publication to be told: {}", db.lines("SELECT * FROM pg_stat_subscription").concat()),
        );
    } else {
        wait_for_subscription(&replica, &primary, &source, "mysub");
        assert_eq!(db.value("SELECT count(*) FROM test1"), "1");
    }
    source.execute("CREATE PUBLICATION later");
    db.execute("ALTER SUBSCRIPTION mysub SET PUBLICATION mypub");
    wait_for_subscription(&replica, &primary, &source, "mysub");
    assert_eq!(db.value("SELECT count(*) FROM test1"), "1");
    // Without a slot nothing is asked of the primary.
    db.execute("ALTER SUBSCRIPTION mysub DISABLE; ALTER SUBSCRIPTION mysub SET (slot_name = NONE); DROP SUBSCRIPTION mysub");
    assert_eq!(source.value("SELECT slot_name FROM pg_replication_slots"), "mysub");
    // The slot that was left serves another subscription, made without asking the primary.
    source.execute("INSERT INTO test1 VALUES (2)");
    create(&db, &primary, "again", "PUBLICATION mypub WITH (connect = false, slot_name = mysub)");
    assert_eq!(db.value("SELECT count(*) FROM pg_subscription_rel"), "0");
    db.execute("ALTER SUBSCRIPTION again ENABLE; ALTER SUBSCRIPTION again REFRESH PUBLICATION WITH (copy_data = false)");
    source.execute("INSERT INTO test1 VALUES (3)");
    wait_for_subscription(&replica, &primary, &source, "mysub");
    assert!(db.lines("SELECT a FROM test1 ORDER BY a").contains(&"3".to_owned()));
    db.execute("DROP SUBSCRIPTION again");
    // A subscription whose primary is not there is tried again.
    create(&db, &primary, "waiting", "PUBLICATION mypub WITH (copy_data = false)");
    primary.stop("immediate");
    wait_until(|| db.value("SELECT state FROM pg_stat_subscription") == "waiting", || "the primary to be missed".into());
    primary.start_again();
    let source = primary.db();
    source.execute("INSERT INTO test1 VALUES (4)");
    wait_for_subscription(&replica, &primary, &source, "waiting");
    assert_eq!(db.value("SELECT max(a) FROM test1"), "4");
}

/// 008, 011: columns of our own with defaults, computed ones among them; columns in another order and of another type.
#[test]
fn tables_that_differ_are_filled_by_column_names() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE test_tab (a int PRIMARY KEY, b varchar); INSERT INTO test_tab VALUES (1, 'foo'), (2, 'bar');
         CREATE TABLE test_tab2 (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO test_tab2 VALUES (1), (2);
         CREATE PUBLICATION tap_pub FOR ALL TABLES",
    );
    let replica = subscriber();
    let db = replica.db();
    make(
        &db,
        "CREATE TABLE test_tab (a int PRIMARY KEY, b text, c text DEFAULT 'ours', d bigint DEFAULT 999, e int);
         CREATE TABLE test_tab2 (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 22) STORED)",
    );
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), count(c), count(d = 999), count(e) FROM test_tab"), ["2|2|2|0"]);
    source.execute("UPDATE test_tab SET b = md5(b); INSERT INTO test_tab VALUES (3, 'three'); INSERT INTO test_tab2 VALUES (3)");
    // Both change this row, so not at the same time.
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    make(&db, "UPDATE test_tab SET c = 'local', e = a WHERE a = 1");
    source.execute("UPDATE test_tab SET b = 'again' WHERE a = 1; UPDATE test_tab2 SET a = 6 WHERE a = 3");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT * FROM test_tab WHERE a <> 2 ORDER BY a"), ["1|again|local|999|1", "3|three|ours|999|"]);
    assert_eq!(db.lines("SELECT a FROM test_tab2 ORDER BY a"), ["1", "2", "6"]);
    assert_eq!(source.value("SELECT b FROM test_tab WHERE a = 2"), db.value("SELECT b FROM test_tab WHERE a = 2"));
}

/// 024: publications added and dropped, with what they publish.
#[test]
fn publications_are_added_and_dropped() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab_1 (a int); INSERT INTO tab_1 SELECT generate_series(1, 10); CREATE TABLE tab_2 (a int); INSERT INTO tab_2 SELECT generate_series(1, 10);
         CREATE PUBLICATION tap_pub_1 FOR TABLE tab_1; CREATE PUBLICATION tap_pub_2",
    );
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "tap_sub", "PUBLICATION tap_pub_1, tap_pub_2");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_1"), ["10|1|10"]);
    db.execute("ALTER SUBSCRIPTION tap_sub DROP PUBLICATION tap_pub_1");
    source.execute("INSERT INTO tab_1 SELECT generate_series(11, 20)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT count(*) FROM tab_1"), "10");
    // Coming back, the table is copied whole, beside the rows that are here.
    db.execute("ALTER SUBSCRIPTION tap_sub ADD PUBLICATION tap_pub_1");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_1"), ["30|1|20"]);
    source.execute("ALTER PUBLICATION tap_pub_2 ADD TABLE tab_2");
    db.execute("ALTER SUBSCRIPTION tap_sub REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.lines("SELECT count(*), min(a), max(a) FROM tab_2"), ["10|1|10"]);
    // A publication that is gone, and a table that is.
    source.execute("DROP PUBLICATION tap_pub_2; DROP TABLE tab_2");
    db.execute("ALTER SUBSCRIPTION tap_sub DROP PUBLICATION tap_pub_2");
    source.execute("INSERT INTO tab_1 VALUES (21)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub");
    assert_eq!(db.value("SELECT max(a) FROM tab_1"), "21");
    assert_eq!(db.value("SELECT count(*) FROM tab_2"), "10", "what is not followed any more stays");
    assert_eq!(db.lines("SELECT srrelid::regclass FROM pg_subscription_rel"), ["tab_1"]);
}

/// 025: publications of whole schemas.
#[test]
fn schemas_are_followed_with_what_is_made_in_them() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE SCHEMA sch1; CREATE TABLE sch1.tab1 AS SELECT generate_series(1, 10) AS a; CREATE TABLE sch1.tab2 AS SELECT generate_series(1, 10) AS a;
         CREATE TABLE public.tab3 (a int); CREATE PUBLICATION tap_pub_schema FOR TABLES IN SCHEMA sch1",
    );
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "tap_sub_schema", "PUBLICATION tap_pub_schema");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    assert_eq!(db.lines("SELECT count(*), max(a) FROM sch1.tab1"), ["10|10"]);
    source
        .execute("INSERT INTO sch1.tab1 SELECT generate_series(11, 20); CREATE TABLE sch1.tab3 (a int); INSERT INTO sch1.tab3 VALUES (1)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    assert_eq!(db.value("SELECT count(*) FROM sch1.tab1"), "20");
    assert_eq!(db.sqlstate("SELECT * FROM sch1.tab3"), "42P01", "a new table waits for REFRESH");
    db.execute("ALTER SUBSCRIPTION tap_sub_schema REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    source.execute("INSERT INTO sch1.tab3 VALUES (11)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    assert_eq!(db.lines("SELECT a FROM sch1.tab3 ORDER BY a"), ["1", "11"]);
    // A table that leaves the schema is not published any more; REFRESH forgets it.
    source.execute("CREATE SCHEMA sch2; ALTER TABLE sch1.tab3 SET SCHEMA sch2; INSERT INTO sch2.tab3 VALUES (12)");
    db.execute("ALTER SUBSCRIPTION tap_sub_schema REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    assert_eq!(db.lines("SELECT srrelid::regclass FROM pg_subscription_rel ORDER BY 1"), ["sch1.tab1", "sch1.tab2"]);
    assert_eq!(db.value("SELECT count(*) FROM sch1.tab3"), "2", "its rows stay");
    // A schema that is dropped on the primary.
    source.execute("ALTER PUBLICATION tap_pub_schema DROP TABLES IN SCHEMA sch1; ALTER PUBLICATION tap_pub_schema ADD TABLES IN SCHEMA sch2; DROP SCHEMA sch1 CASCADE");
    db.execute("ALTER SUBSCRIPTION tap_sub_schema REFRESH PUBLICATION");
    source.execute("INSERT INTO sch2.tab3 VALUES (13)");
    wait_for_subscription(&replica, &primary, &source, "tap_sub_schema");
    assert_eq!(db.lines("SELECT count(*), max(a) FROM sch2.tab3"), ["4|13"]);
}

/// 029: an error disables where that is asked for; a transaction can be skipped, however it was sent.
#[test]
fn a_failing_transaction_disables_the_subscription_and_can_be_skipped() {
    let primary = Primary::start(&["max_prepared_transactions = 10", "logical_decoding_work_mem = 64kB"]);
    let source = primary.db();
    source.execute("CREATE TABLE tbl (i int, t bytea); ALTER TABLE tbl REPLICA IDENTITY FULL; CREATE PUBLICATION pub FOR TABLE tbl; INSERT INTO tbl VALUES (1, NULL)");
    let replica = subscriber();
    let db = replica.db();
    make(&db, "CREATE TABLE tbl (i int PRIMARY KEY, t bytea); INSERT INTO tbl VALUES (1, NULL)");
    create(&db, &primary, "sub", "PUBLICATION pub WITH (disable_on_error = true, streaming = on, two_phase = on)");
    let wait_disabled = || {
        wait_until(
            || db.value("SELECT subenabled FROM pg_subscription") == "f",
            || format!("the subscription to be disabled\n{}", replica.log()),
        );
    };
    // The copy meets a row that is here.
    wait_disabled();
    assert_eq!(db.lines("SELECT apply_error_count, sync_error_count FROM pg_stat_subscription_stats").len(), 1);
    make(&db, "TRUNCATE tbl");
    db.execute("ALTER SUBSCRIPTION sub ENABLE");
    wait_for_subscription(&replica, &primary, &source, "sub");
    assert_eq!(db.lines("SELECT i FROM tbl"), ["1"]);

    let skip = |what: &str, next: i32| {
        wait_disabled();
        let lsn = finish_lsn(&db);
        assert_eq!(db.sqlstate("ALTER SUBSCRIPTION sub SKIP (lsn = '0/1')"), "22023");
        db.execute(&format!("ALTER SUBSCRIPTION sub SKIP (lsn = '{lsn}')"));
        assert_eq!(db.value("SELECT subskiplsn FROM pg_subscription"), lsn);
        db.execute("ALTER SUBSCRIPTION sub ENABLE");
        wait_until(|| db.value("SELECT subskiplsn FROM pg_subscription") == "0/0", || format!("{what} to be skipped\n{}", replica.log()));
        source.execute(&format!("INSERT INTO tbl VALUES ({next}, NULL)"));
        wait_for_subscription(&replica, &primary, &source, "sub");
        assert_eq!(db.value(&format!("SELECT count(*) FROM tbl WHERE i = {next}")), "1", "{what}");
    };
    source.execute("BEGIN; INSERT INTO tbl VALUES (100, NULL); INSERT INTO tbl VALUES (1, NULL); COMMIT");
    skip("a transaction", 2);
    source.execute("BEGIN; INSERT INTO tbl VALUES (101, NULL); INSERT INTO tbl VALUES (1, NULL); PREPARE TRANSACTION 'gtx'");
    source.execute("COMMIT PREPARED 'gtx'");
    skip("a prepared transaction", 3);
    source.execute("INSERT INTO tbl SELECT i, decode(md5(i::text), 'hex') FROM generate_series(1, 3000) i");
    skip("a streamed transaction", 4000);
    assert_eq!(db.value("SELECT string_agg(i::text, ',' ORDER BY i) FROM tbl"), "1,2,3,4000", "nothing of what was skipped is here");
    // An LSN that no transaction has is forgotten when one is applied.
    db.execute("ALTER SUBSCRIPTION sub SKIP (lsn = '7F/0')");
    source.execute("INSERT INTO tbl VALUES (5, NULL)");
    wait_for_subscription(&replica, &primary, &source, "sub");
    assert_eq!(db.lines("SELECT subskiplsn, (SELECT count(*) FROM tbl WHERE i = 5) FROM pg_subscription"), ["0/0|1"]);
}

/// 030: what the primary has from elsewhere comes, or does not.
#[test]
fn changes_of_other_origins_are_left_out_where_that_is_asked_for() {
    let primary = Primary::start(&["logical_decoding_work_mem = 64kB"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab (a int PRIMARY KEY); CREATE PUBLICATION tap_pub FOR TABLE tab; SELECT pg_replication_origin_create('elsewhere')",
    );
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "all_of_it", "PUBLICATION tap_pub WITH (origin = any)");
    db.execute("SELECT dolt_branch('side')");
    wait_for_subscription(&replica, &primary, &source, "all_of_it");
    let side = replica.try_db("postgres/side").unwrap();
    create(&side, &primary, "own", "PUBLICATION tap_pub WITH (origin = none, streaming = on)");
    wait_for_subscription(&replica, &primary, &source, "own");
    let foreign = primary.db();
    foreign.execute("SELECT pg_replication_origin_session_setup('elsewhere')");
    foreign.execute("INSERT INTO tab VALUES (1); INSERT INTO tab SELECT generate_series(1000, 5000)");
    source.execute("INSERT INTO tab VALUES (2)");
    wait_for_subscription(&replica, &primary, &source, "all_of_it");
    wait_for_subscription(&replica, &primary, &source, "own");
    assert_eq!(db.value("SELECT count(*) FROM tab"), "4003");
    assert_eq!(side.lines("SELECT a FROM tab"), ["2"]);
    assert_eq!(db.sqlstate("ALTER SUBSCRIPTION all_of_it SET (origin = mine)"), "22023");
}

/// 031: lists of columns, of several publications and changed ones.
#[test]
fn column_lists_hold_for_copies_and_changes() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE tab1 (a int PRIMARY KEY, \"B\" int, c int); INSERT INTO tab1 VALUES (1, 2, 3);
         CREATE TABLE tab2 (a int PRIMARY KEY, b varchar, c int); INSERT INTO tab2 VALUES (2, 'foo', 2);
         CREATE PUBLICATION pub1 FOR TABLE tab1 (a, \"B\"); CREATE PUBLICATION pub2 FOR TABLE tab2 (a, b); CREATE PUBLICATION pub3 FOR TABLE tab2 (a, c)",
    );
    let replica = subscriber();
    let db = replica.db();
    make(&db, "CREATE TABLE tab1 (a int PRIMARY KEY, \"B\" int, c int); CREATE TABLE tab2 (a int PRIMARY KEY, b varchar, c int)");
    create(&db, &primary, "sub1", "PUBLICATION pub1");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    assert_eq!(db.lines("SELECT * FROM tab1"), ["1|2|"]);
    db.execute("ALTER SUBSCRIPTION sub1 ADD PUBLICATION pub2");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    source.execute("UPDATE tab1 SET c = 9, \"B\" = 8; UPDATE tab2 SET b = 'bar', c = 5; INSERT INTO tab2 VALUES (3, 'x', 3)");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    assert_eq!(db.lines("SELECT * FROM tab1"), ["1|8|"]);
    assert_eq!(db.lines("SELECT * FROM tab2 ORDER BY a"), ["2|bar|", "3|x|"]);
    // Lists of two publications that differ are refused.
    assert_eq!(db.sqlstate("ALTER SUBSCRIPTION sub1 ADD PUBLICATION pub3"), "0A000");
    assert_eq!(db.value("SELECT subpublications FROM pg_subscription"), "{pub1,pub2}");
    // Another list, and the table as it is now.
    db.execute("ALTER SUBSCRIPTION sub1 SET PUBLICATION pub1, pub3 WITH (copy_data = false)");
    source.execute("UPDATE tab2 SET b = 'unseen', c = 77 WHERE a = 2");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    assert_eq!(db.lines("SELECT * FROM tab2 ORDER BY a"), ["2|bar|77", "3|x|"]);
    wait_for_tables(&replica, &db);
}
