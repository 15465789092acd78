//! Tables, views and version tables at past moments and on other branches, by every way of naming them.

use strandline_tests::{Db, Replica, replica::Options};

/// Five commits, the n-th of which inserts row n; a branch and a tag at the third.
fn five_commits() -> (Replica, Db) {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for i in 1..=5 {
        db.execute(&format!("INSERT INTO t VALUES ({i}, 'v{i}'); SELECT dolt_commit('-Am', 'c{i}')"));
    }
    db.execute("SELECT dolt_branch('b3', 'HEAD~2'); SELECT dolt_tag('v3', 'HEAD~2')");
    (replica, db)
}

#[test]
fn a_moment_may_be_a_subquery_or_a_function() {
    let (_replica, db) = five_commits();
    for moment in [
        "(SELECT 'HEAD~2')",
        "(SELECT commit_hash FROM dolt_log WHERE message = 'c3')",
        "(SELECT date FROM dolt_log WHERE message = 'c3')",
        "dolt_hashof('HEAD~2')",
        "concat('HEAD', '~2')",
    ] {
        assert_eq!(db.value(&format!("SELECT count(*) FROM t AS OF {moment}")), "3", "{moment}");
    }
    assert_eq!(db.sqlstate("SELECT * FROM dolt_log l, LATERAL (SELECT * FROM t AS OF (l.commit_hash)) x"), "0A000");
    assert_eq!(db.sqlstate("SELECT * FROM dolt_log l, LATERAL dolt_diff(l.parents, l.commit_hash, 't') d"), "0A000");
    assert_eq!(db.value("SELECT count(*) FROM dolt_diff((SELECT 'HEAD~2'), 'HEAD', 't')"), "2");
}

#[test]
fn views_keep_their_moment_and_can_be_read_at_one() {
    let (_replica, db) = five_commits();
    db.execute("CREATE VIEW past AS SELECT count(*) AS n FROM t AS OF 'HEAD~2'; CREATE VIEW now_and AS SELECT count(*) AS n FROM t a");
    assert_eq!(db.value("SELECT n FROM past"), "3");
    db.execute("SELECT dolt_commit('-Am', 'views'); INSERT INTO t VALUES (6, 'not committed')");
    assert_eq!(db.value("SELECT n FROM past"), "4", "a ref moves on");
    assert_eq!(db.value("SELECT n FROM now_and"), "6");
    assert_eq!(db.value("SELECT n FROM now_and AS OF 'HEAD'"), "5");
    assert_eq!(db.sqlstate("SELECT n FROM now_and AS OF 'HEAD~1'"), "42P01", "there was no view");
    db.execute("SELECT dolt_branch('side'); DELETE FROM t; SELECT dolt_commit('-Am', 'emptied')");
    assert_eq!(db.value("SELECT n FROM \"postgres/side\".public.now_and"), "5");
    assert_eq!(db.value("SELECT v.n FROM now_and AS OF 'HEAD~1' v LEFT JOIN t ON t.id = v.n"), "5");
}

#[test]
fn other_branches_are_read_as_a_session_on_them_would() {
    let (_replica, db) = five_commits();
    let on_b3 = |relation: &str| db.value(&format!("SELECT count(*) FROM \"postgres/b3\".{relation}"));
    assert_eq!(on_b3("public.t"), "3");
    assert_eq!(on_b3("public.t AS OF 'HEAD'"), "3");
    assert_eq!(on_b3("public.t AS OF 'HEAD~1'"), "2");
    assert_eq!(on_b3("dolt.log"), "5");
    assert_eq!(on_b3("public.dolt_diff_t"), "3");
    assert_eq!(on_b3("public.dolt_history_t"), "6");
    assert_eq!(db.value("SELECT count(*) FROM \"postgres/v3\".public.t"), "3");
    assert_eq!(db.value("SELECT count(*) FROM \"postgres/main~1\".public.t"), "4");
    assert_eq!(db.sqlstate("SELECT count(*) FROM \"postgres/none\".public.t"), "42704");
}

#[test]
fn version_tables_have_a_past_too() {
    let (_replica, db) = five_commits();
    db.execute("INSERT INTO t VALUES (6, 'not committed')");
    let past = |table: &str| db.value(&format!("SELECT count(*) FROM {table} AS OF 'HEAD~2'"));
    assert_eq!(past("dolt_log"), "5");
    assert_eq!(past("dolt_history_t"), "6");
    assert_eq!(past("dolt_diff_t"), "3");
    assert_eq!(past("dolt_status"), "0");
    assert_eq!(db.sqlstate("SELECT * FROM pg_class AS OF 'HEAD~2'"), "0A000");
}

#[test]
fn as_of_elsewhere_than_in_a_query_is_refused_by_name() {
    let (_replica, db) = five_commits();
    for statement in ["TRUNCATE t AS OF 'HEAD'", "DROP TABLE t AS OF 'HEAD'", "ALTER TABLE t AS OF 'HEAD' ADD COLUMN z int"] {
        assert_eq!(db.sqlstate(statement), "0A000", "{statement}");
    }
    assert_eq!(db.value("SELECT count(*) FROM t"), "5");
}

#[test]
fn commit_diff_takes_its_ends_from_functions_and_subqueries() {
    let (_replica, db) = five_commits();
    for (to, from) in [
        ("'HEAD'", "'HEAD~2'"),
        ("dolt_hashof('HEAD')", "dolt_hashof('HEAD~2')"),
        ("(SELECT commit_hash FROM dolt_log LIMIT 1)", "(SELECT commit_hash FROM dolt_log LIMIT 1 OFFSET 2)"),
    ] {
        let sql = format!("SELECT count(*) FROM dolt_commit_diff_t WHERE to_commit = {to} AND from_commit = {from} AND length(to_v) = 2");
        assert_eq!(db.value(&sql), "2", "{to} {from}");
    }
}

#[test]
fn version_tables_cannot_be_hidden() {
    let (_replica, db) = five_commits();
    for statement in [
        "CREATE TABLE dolt_log (a int)",
        "CREATE TABLE \"DOLT_diff_t\" (a int)",
        "CREATE VIEW dolt_status AS SELECT 1",
        "CREATE TABLE dolt_x AS SELECT 1 AS a",
        "ALTER TABLE t RENAME TO dolt_branches",
    ] {
        assert_eq!(db.sqlstate(statement), "42939", "{statement}");
    }
}

#[test]
fn dropping_a_table_with_rows_changes_data() {
    let (_replica, db) = five_commits();
    db.execute("CREATE TABLE empty (a int); SELECT dolt_commit('-Am', 'another')");
    db.execute("DROP TABLE t; DROP TABLE empty; SELECT dolt_commit('-Am', 'gone')");
    assert_eq!(
        db.lines("SELECT table_name, data_change, schema_change FROM dolt_diff WHERE message = 'gone' ORDER BY 1"),
        ["public.empty|f|t", "public.t|t|t"]
    );
}

#[test]
fn a_row_is_followed_through_changes_of_its_key() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'); SELECT dolt_commit('-Am', 'int')");
    db.execute("ALTER TABLE t ALTER COLUMN id TYPE bigint; UPDATE t SET v = 'c' WHERE id = 1; SELECT dolt_commit('-Am', 'bigint')");
    db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; SELECT dolt_commit('-Am', 'none')");
    db.execute("ALTER TABLE t ADD PRIMARY KEY (id, v); SELECT dolt_commit('-Am', 'two columns')");
    assert_eq!(db.lines("SELECT v FROM dolt_history_t WHERE id = 1"), ["c", "c", "c", "a"]);
    assert_eq!(db.lines("SELECT id FROM dolt_history_t WHERE id = 1 AND v = 'c'"), ["1", "1", "1"]);
    assert_eq!(db.lines("SELECT id FROM dolt_history_t WHERE id = 1 AND v = 'a'"), ["1"]);
    for (key, condition) in [("to", "to_id = 1 AND to_v = 'c'"), ("from", "from_id = 1 AND from_v = 'c'")] {
        let found = db.lines(&format!("SELECT to_commit FROM dolt_diff_t WHERE {condition}"));
        let all = db.lines(&format!("SELECT to_commit FROM dolt_diff_t WHERE coalesce({condition}, false)"));
        assert_eq!(found, all, "{key}");
        assert!(!found.is_empty(), "{key}");
    }
    assert_eq!(
        db.lines(
            "SELECT diff_type FROM dolt_commit_diff_t WHERE to_commit = 'HEAD' AND from_commit = 'HEAD~3' AND to_id = 1 AND to_v = 'c'"
        ),
        ["added"]
    );
    // A key that is not committed yet is no way to the rows of commits.
    db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id)");
    assert_eq!(db.lines("SELECT v FROM dolt_history_t WHERE id = 1"), ["c", "c", "c", "a"]);
}

#[test]
fn history_shows_rows_of_a_column_that_was_renamed_away_as_null() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 5); SELECT dolt_commit('-Am', 'a')");
    db.execute("ALTER TABLE t RENAME COLUMN a TO b; INSERT INTO t VALUES (2, 6); SELECT dolt_commit('-Am', 'b')");
    db.execute("ALTER TABLE t DROP COLUMN b; SELECT dolt_commit('-Am', 'none'); ALTER TABLE t ADD COLUMN b int; SELECT dolt_commit('-Am', 'another b')");
    let expected = ["another b|1|", "another b|2|", "none|1|", "none|2|", "b|1|5", "b|2|6", "a|1|"];
    assert_eq!(
        db.lines("SELECT message, id, b FROM dolt_history_t JOIN dolt_log USING (commit_hash) ORDER BY commit_order DESC, id"),
        expected
    );
    for commit in ["a", "b", "none", "another b"] {
        let one = db.lines(&format!(
            "SELECT '{commit}', id, b FROM dolt_history_t WHERE commit_hash = (SELECT commit_hash FROM dolt_log WHERE message = '{commit}')"
        ));
        let of_commit: Vec<&str> = expected.iter().copied().filter(|line| line.starts_with(&format!("{commit}|"))).collect();
        assert_eq!(one, of_commit, "{commit}");
    }
    assert_eq!(db.lines("SELECT data_change FROM dolt_diff WHERE message = 'another b'"), ["f"], "no row is different");
}

#[test]
fn a_row_at_a_moment_is_the_same_by_its_key_and_by_a_scan() {
    let mut replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (a int, b text, v int, PRIMARY KEY (a, b)); INSERT INTO t SELECT i, 'k', 0 FROM generate_series(1, 20) i");
    db.execute("SELECT dolt_commit('-Am', 'base')");
    let change = |db: &Db, i: u32| {
        let statement = match i % 4 {
            0 => format!("DELETE FROM t WHERE a = {}", i % 20 + 1),
            1 => format!("INSERT INTO t VALUES ({}, 'k', {i}) ON CONFLICT DO NOTHING", i % 20 + 1),
            2 if i == 22 => "ALTER TABLE t ADD COLUMN w int DEFAULT 5".into(),
            _ => format!("UPDATE t SET v = v + {i} WHERE a % 3 = {}", i % 3),
        };
        db.execute(&format!("{statement}; SELECT dolt_commit('-A', '--allow-empty', '-m', 'c{i}')"));
    };
    (0..30).for_each(|i| change(&db, i));
    drop(db);
    replica.kill();
    replica.start_again();
    let db = replica.db();
    (30..50).for_each(|i| change(&db, i));
    for back in (1..50).step_by(3) {
        for (by_key, by_scan) in [
            ("t.a = 7 AND t.b = 'k'", "t.a + 0 = 7"),
            ("t.a = 13 AND t.b = 'k' AND t.v >= 0", "t.a + 0 = 13"),
            ("t.a IN (1, 2, 9) AND t.b = 'k'", "t.a + 0 IN (1, 2, 9)"),
            ("t.a = 99 AND t.b = 'k'", "false"),
        ] {
            let rows = |filter: &str| db.lines(&format!("SELECT * FROM t AS OF 'HEAD~{back}' WHERE {filter} ORDER BY a"));
            // By the key first: afterwards the whole table is at hand.
            assert_eq!(rows(by_key), rows(by_scan), "{by_key} at HEAD~{back}");
        }
    }
}
