//! The version surface on local commits: names, column order and types are a contract.

use strandline_tests::{Replica, replica::Options};

const TEXT: u32 = 25;
const TIMESTAMP: u32 = 1114;
const NUMERIC: u32 = 1700;
const BOOL: u32 = 16;
const INT4: u32 = 23;
const INT8: u32 = 20;
const LSN: u32 = 3220;
const TIMESTAMPTZ: u32 = 1184;
const JSONB: u32 = 3802;

fn source() -> Vec<(&'static str, u32)> {
    vec![("source_lsn", LSN), ("source_xid", INT8), ("source_commit_time", TIMESTAMPTZ), ("source_origin", TEXT), ("source_context", JSONB)]
}

#[test]
fn the_columns_are_the_contracts() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); SELECT dolt_commit('-Am', 'first')");
    let texts = |names: &[&'static str]| names.iter().map(|n| (*n, TEXT)).collect::<Vec<_>>();
    let people = [("author", TEXT), ("author_email", TEXT), ("author_date", TIMESTAMP)];
    let mut log = texts(&["commit_hash", "committer", "email"]);
    log.extend([("date", TIMESTAMP), ("message", TEXT), ("commit_order", NUMERIC)]);
    log.extend(texts(&["parents", "refs", "signature"]));
    log.extend(people);
    log.extend(source());
    let mut commits = texts(&["commit_hash", "committer", "email"]);
    commits.extend([("date", TIMESTAMP), ("message", TEXT)]);
    commits.extend(people);
    commits.extend(source());
    let mut diff = texts(&["commit_hash", "table_name", "committer", "email"]);
    diff.extend([("date", TIMESTAMP), ("message", TEXT), ("data_change", BOOL), ("schema_change", BOOL)]);
    diff.extend(people);
    diff.extend(source());
    let row_diff = vec![
        ("to_id", INT4),
        ("to_v", TEXT),
        ("to_commit", TEXT),
        ("to_commit_date", TIMESTAMP),
        ("from_id", INT4),
        ("from_v", TEXT),
        ("from_commit", TEXT),
        ("from_commit_date", TIMESTAMP),
        ("diff_type", TEXT),
    ];
    let mut diff_t = row_diff.clone();
    diff_t.extend(source());
    let mut history = vec![("id", INT4), ("v", TEXT), ("commit_hash", TEXT), ("committer", TEXT), ("commit_date", TIMESTAMP)];
    history.extend(source());
    let expected: Vec<(&str, Vec<(&str, u32)>)> = vec![
        ("dolt_log", log.clone()),
        ("dolt.log", log.clone()),
        ("dolt_log('main')", log),
        ("dolt_commits", commits),
        ("dolt_commit_ancestors", vec![("commit_hash", TEXT), ("parent_hash", TEXT), ("parent_index", INT4)]),
        ("dolt_diff", diff),
        ("dolt_diff('HEAD~1', 'HEAD', 't')", row_diff.clone()),
        ("dolt_diff('HEAD~1..HEAD', 't')", row_diff.clone()),
        ("dolt_diff('HEAD~1...HEAD', 't')", row_diff.clone()),
        ("dolt_diff_t", diff_t.clone()),
        ("public.dolt_diff_t", diff_t),
        ("dolt_history_t", history),
        ("dolt_status", vec![("table_name", TEXT), ("staged", BOOL), ("status", TEXT)]),
        (
            "dolt_tags",
            vec![("tag_name", TEXT), ("tag_hash", TEXT), ("tagger", TEXT), ("email", TEXT), ("date", TIMESTAMP), ("message", TEXT)],
        ),
    ];
    for (relation, columns) in expected {
        let got = db.describe(&format!("SELECT * FROM {relation}"));
        let got: Vec<(&str, u32)> = got.iter().map(|(n, t)| (n.as_str(), *t)).collect();
        assert_eq!(got, columns, "{relation}");
    }
    let branches: Vec<String> = db.describe("SELECT * FROM dolt_branches").into_iter().map(|c| c.0).collect();
    assert_eq!(
        branches,
        [
            "name",
            "hash",
            "latest_committer",
            "latest_committer_email",
            "latest_commit_date",
            "latest_commit_message",
            "remote",
            "branch",
            "dirty",
            "latest_author",
            "latest_author_email",
            "latest_author_date"
        ]
    );
}

#[test]
fn a_day_of_commits_branches_tags_and_resets() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    assert_eq!(db.lines("SELECT message FROM dolt_log"), ["CREATE DATABASE", "Initialize data repository"]);
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    assert_eq!(db.lines("SELECT * FROM dolt_status"), ["public.t|f|new table"]);
    db.execute("SELECT dolt_add('t')");
    assert_eq!(db.lines("SELECT * FROM dolt_status"), ["public.t|t|new table"]);
    db.execute("INSERT INTO t VALUES (1, 'one')");
    assert_eq!(db.lines("SELECT * FROM dolt_status ORDER BY staged"), ["public.t|f|modified", "public.t|t|new table"]);
    let hash = db.value("SELECT dolt_commit('-m', 'only the table')");
    assert_eq!(hash.len(), 64);
    assert_eq!(db.value("SELECT count(*) FROM t AS OF 'HEAD'"), "0");
    assert_eq!(db.value("SELECT count(*) FROM t"), "1", "the working set keeps the row");
    db.execute("SELECT dolt_commit('-a', '-m', 'the row')");
    assert_eq!(db.sqlstate("SELECT dolt_commit('-m', 'nothing')").len(), 5);
    assert_eq!(db.sqlstate("CALL dolt_commit('-m', 'x')"), "42809", "procedures are functions");

    db.execute("SELECT dolt_branch('b'); SELECT * FROM dolt_checkout('b')");
    assert_eq!(db.value("SELECT active_branch()"), "b");
    db.execute("UPDATE t SET v = 'on b' WHERE id = 1; INSERT INTO t VALUES (2, 'two'); SELECT dolt_commit('-Am', 'work on b')");
    assert_eq!(db.lines("SELECT v FROM t AS OF 'main' ORDER BY id"), ["one"]);
    assert_eq!(db.lines("SELECT * FROM dolt_diff('main', 'b', 't') ORDER BY to_id").len(), 2);
    assert_eq!(
        db.lines("SELECT to_id, to_v, from_v, diff_type FROM dolt_diff('main', 'b', 't') ORDER BY to_id"),
        ["1|on b|one|modified", "2|two||added"]
    );
    assert_eq!(db.value("SELECT dolt_merge_base('main', 'b')"), db.value("SELECT dolt_hashof('main')"));
    assert_eq!(db.value("SELECT has_ancestor('b', 'main')"), "t");
    db.execute("SELECT dolt_tag('v1', 'main', '-m', 'a tag')");
    assert_eq!(db.lines("SELECT tag_name, message FROM dolt_tags"), ["v1|a tag"]);
    assert_eq!(db.lines("SELECT v FROM t AS OF 'v1'"), ["one"]);

    // Space is given back; there is nothing to see of it.
    assert_eq!(db.lines("SELECT dolt_gc()"), ["0"]);
    assert_eq!(db.lines("SELECT status FROM dolt_gc('--shallow')"), ["0"]);
    assert_eq!(db.lines("SELECT dolt_gc('--full')"), ["0"]);
    for wrong in ["'--shallow', '--full'", "'--deep'", "'main'"] {
        assert_eq!(db.sqlstate(&format!("SELECT dolt_gc({wrong})")), "22023");
    }
    assert_eq!(db.sqlstate("CALL dolt_gc()"), "42809");
    assert_eq!(db.lines("SELECT v FROM t AS OF 'v1'"), ["one"]);

    // Another connection to the branch, to a commit, and to main.
    let on_b = replica.try_db("postgres/b").unwrap();
    assert_eq!(on_b.value("SELECT count(*) FROM t"), "2");
    let at = replica.try_db(&format!("postgres/{hash}")).unwrap();
    assert_eq!(at.value("SELECT count(*) FROM t"), "0");
    assert_eq!(at.sqlstate("INSERT INTO t VALUES (9, 'x')"), "25006");
    assert_eq!(replica.db().value("SELECT count(*) FROM t"), "1");

    // Reset: hard throws local changes away, to a commit moves the branch.
    db.execute("DELETE FROM t");
    db.execute("SELECT dolt_reset('--hard')");
    assert_eq!(db.value("SELECT count(*) FROM t"), "2");
    db.execute("SELECT dolt_reset('--hard', 'HEAD~1')");
    assert_eq!(db.lines("SELECT v FROM t"), ["one"]);
    db.execute("SELECT * FROM dolt_checkout('main'); SELECT dolt_branch('-D', 'b')");
    assert_eq!(db.lines("SELECT name FROM dolt_branches"), ["main"]);

    // Schema changes have their place in history.
    db.execute("ALTER TABLE t ADD COLUMN n int; UPDATE t SET n = 5; SELECT dolt_commit('-Am', 'a column')");
    assert_eq!(db.lines("SELECT id, v, n FROM t"), ["1|one|5"]);
    assert_eq!(db.lines("SELECT * FROM t AS OF 'HEAD~1'"), ["1|one"]);
    assert_eq!(db.lines("SELECT data_change, schema_change FROM dolt_diff WHERE message = 'a column'"), ["t|t"]);
    assert_eq!(db.lines("SELECT id, v, n, commit_hash = dolt_hashof('HEAD') FROM dolt_history_t"), ["1|one|5|t", "1|one||f"]);
}

#[test]
fn history_survives_a_restart_and_a_kill() {
    let mut replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for i in 1..=20 {
        db.execute(&format!("INSERT INTO t VALUES ({i}, 'v{i}'); SELECT dolt_commit('-Am', 'commit {i}')"));
    }
    db.execute("INSERT INTO t VALUES (100, 'not committed')");
    let log = db.lines("SELECT commit_hash, message FROM dolt_log");
    drop(db);
    for kill in [false, true] {
        if kill {
            replica.kill();
        } else {
            replica.stop();
        }
        replica.start_again();
        let db = replica.db();
        assert_eq!(db.lines("SELECT commit_hash, message FROM dolt_log"), log);
        assert_eq!(db.value("SELECT count(*) FROM t"), "21");
        assert_eq!(db.lines("SELECT * FROM dolt_status"), ["public.t|f|modified"]);
        assert_eq!(db.value("SELECT count(*) FROM t AS OF 'HEAD~10'"), "10");
    }
}

#[test]
fn dolt_transaction_commit_makes_every_local_transaction_a_commit() {
    let replica = Replica::start(None, &Options { config: "behavior:\n  dolt_transaction_commit: true".into(), ..Options::default() });
    let db = replica.db();
    let before: usize = db.value("SELECT count(*) FROM dolt_log").parse().unwrap();
    db.execute("CREATE TABLE t (id int PRIMARY KEY)");
    db.execute("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT");
    assert_eq!(db.value("SELECT count(*) FROM dolt_log").parse::<usize>().unwrap(), before + 2);
    assert_eq!(db.value("SELECT count(*) FROM dolt_status"), "0");
}

#[test]
fn a_table_made_again_is_staged_taken_back_and_reset_as_one() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    let count = || db.value("SELECT count(*) FROM pg_class WHERE relname = 't'");
    db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); SELECT dolt_commit('-Am', 'first')");
    db.execute("DROP TABLE t; CREATE TABLE t (a text); INSERT INTO t VALUES ('new'); SELECT dolt_add('t')");
    db.execute("SELECT dolt_reset('t')");
    assert_eq!(db.lines("SELECT * FROM dolt_status ORDER BY 3"), ["public.t|f|deleted", "public.t|f|new table"]);
    db.execute("SELECT * FROM dolt_checkout('t')");
    assert_eq!((count(), db.lines("SELECT * FROM t")), ("1".into(), vec!["1".into()]));
    db.execute(
        "DROP TABLE t; CREATE TABLE t (a text); INSERT INTO t VALUES ('new'); SELECT dolt_add('t'); SELECT dolt_commit('-m', 'second')",
    );
    db.execute("SELECT dolt_reset('--hard')");
    assert_eq!((count(), db.lines("SELECT * FROM t AS OF 'HEAD'")), ("1".into(), vec!["new".into()]));
    // Names that were swapped go together.
    db.execute("CREATE TABLE p (a int); CREATE TABLE q (b int); SELECT dolt_commit('-Am', 'two')");
    db.execute("ALTER TABLE p RENAME TO x; ALTER TABLE q RENAME TO p; ALTER TABLE x RENAME TO q; SELECT dolt_add('p')");
    assert_eq!(db.lines("SELECT * FROM dolt_status ORDER BY 1"), ["public.p -> public.q|t|renamed", "public.q -> public.p|t|renamed"]);
}

#[test]
fn checkout_of_a_dot_takes_every_table_back() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); SELECT dolt_commit('-Am', 'empty')");
    db.execute("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); SELECT dolt_commit('-am', 'rows')");
    db.execute("INSERT INTO t VALUES (2); DROP TABLE u; CREATE TABLE mine (a int); SELECT dolt_checkout('.')");
    assert_eq!(db.lines("SELECT * FROM dolt_status"), ["public.mine|f|new table"]);
    assert_eq!(db.lines("SELECT * FROM t UNION ALL SELECT * FROM u"), ["1", "1"]);
    db.execute("SELECT dolt_checkout('HEAD~1', '.')");
    assert_eq!(db.lines("SELECT * FROM t UNION ALL SELECT * FROM u"), Vec::<String>::new());
    assert_eq!(db.lines("SELECT * FROM dolt_status ORDER BY 1"), ["public.mine|f|new table", "public.t|t|modified", "public.u|t|modified"]);
}

#[test]
fn branches_with_something_to_lose_are_deleted_by_force_only() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY); SELECT dolt_commit('-Am', 'first'); SELECT dolt_branch('b')");
    let other = replica.db();
    other.execute("SELECT dolt_checkout('b'); INSERT INTO t VALUES (1)");
    assert_eq!(db.sqlstate("SELECT dolt_branch('-d', 'b')"), "55006");
    assert_eq!(db.sqlstate("SELECT dolt_branch('-m', 'b', 'c')"), "55006");
    other.execute("SELECT dolt_checkout('main')");
    assert_eq!(db.sqlstate("SELECT dolt_branch('-d', 'b')"), "2BP01", "uncommitted rows");
    other.execute("SELECT dolt_checkout('b')");
    db.execute("SELECT dolt_branch('-D', 'b')");
    assert_eq!(other.sqlstate("INSERT INTO t VALUES (2)"), "42704");
    other.execute("SELECT dolt_checkout('main'); INSERT INTO t VALUES (2)");
}

#[test]
fn use_goes_over_to_a_revision() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY); SELECT dolt_commit('-Am', 'first'); SELECT dolt_branch('b'); SELECT dolt_tag('v1')");
    db.execute("INSERT INTO t VALUES (1); USE \"postgres/b\"; INSERT INTO t VALUES (2), (3); SELECT dolt_commit('-am', 'on b')");
    assert_eq!(db.value("SELECT active_branch()"), "b");
    assert_eq!(db.value("SELECT count(*) FROM t"), "2");
    db.execute("use postgres");
    assert_eq!(db.lines("SELECT * FROM t"), ["1"], "the batch's change stayed where it was made");
    db.execute("USE \"postgres/v1\"");
    assert_eq!(db.value("SELECT count(*) FROM t"), "0");
    assert_eq!(db.sqlstate("INSERT INTO t VALUES (4)"), "25006");
    assert_eq!(db.sqlstate("USE \"postgres/none\""), "3D000");
    assert_eq!(db.sqlstate("BEGIN; USE postgres"), "25001");
}
