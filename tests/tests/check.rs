//! `strandline check`: a primary looked over, with what puts right what is missing; each fix is tried.

use std::process::{Command, Output};

use strandline_tests::primary::PASSWORD;
use strandline_tests::replica::binary;
use strandline_tests::{Db, Primary};

struct Checked {
    code: i32,
    text: String,
}

impl Checked {
    /// The lines of one severity.
    fn lines(&self, severity: &str) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix(severity)).map(str::trim_start).collect()
    }

    fn fixes(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.trim_start().strip_prefix("fix: ")).collect()
    }

    fn last(&self) -> &str {
        self.text.lines().last().unwrap_or_default()
    }
}

fn check(port: u16, user: &str, more: &str) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let password = if user == "postgres" { PASSWORD } else { "secret" };
    let text = format!(
        "postgres_replication:\n  postgres_server_address: 127.0.0.1\n  postgres_port: {port}\n  postgres_user: {user}\n  postgres_password: '{}'\n  \
         postgres_database: postgres\n  slot_name: ours\n  publication_names: [pub]\n{more}",
        password.replace('\'', "''")
    );
    std::fs::write(&file, text).unwrap();
    let output: Output = Command::new(binary()).args(["check", "--config", file.to_str().unwrap()]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Checked { code: output.status.code().unwrap(), text: String::from_utf8(output.stdout).unwrap() }
}

fn run_sql_fixes(source: &Db, checked: &Checked) {
    for fix in checked.fixes().iter().filter(|fix| fix.ends_with(';')) {
        source.execute(fix);
    }
}

#[test]
fn a_primary_without_logical_decoding_publication_slot_and_rights_becomes_ready_by_the_fixes() {
    let primary = Primary::start(&["wal_level = replica", "max_replication_slots = 1"]);
    let source = primary.db();
    source.execute(
        "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v text); CREATE TABLE app.nokey (v text);
         CREATE TABLE app.hidden (id int PRIMARY KEY); ALTER TABLE app.hidden ENABLE ROW LEVEL SECURITY;
         CREATE ROLE follower LOGIN PASSWORD 'secret'",
    );
    let checked = check(primary.port(), "follower", "");
    assert_eq!(checked.code, 1, "{}", checked.text);
    let errors = checked.lines("error");
    for part in ["wal_level is replica", "0 of 1 replication slots", "\"follower\" may not replicate", "publication \"pub\" does not exist"]
    {
        assert!(errors.iter().any(|line| line.contains(part)), "{part}: {}", checked.text);
    }
    assert_eq!(checked.last(), "4 errors, 0 warnings");
    run_sql_fixes(&source, &checked);
    source.execute("ALTER SYSTEM SET wal_level = 'logical'");
    source.execute("ALTER SYSTEM SET max_replication_slots = 6");
    drop(source);
    primary.restart("fast");
    let source = primary.db();

    let checked = check(primary.port(), "follower", "");
    assert_eq!(checked.code, 1, "{}", checked.text);
    let errors = checked.lines("error");
    assert!(errors.iter().any(|line| line.contains("may not use schema \"app\"")), "{}", checked.text);
    assert!(errors.iter().any(|line| line.contains("may not read table \"app\".\"t\"")), "{}", checked.text);
    assert!(errors.iter().any(|line| line.contains("row security hides rows of table \"app\".\"hidden\"")), "{}", checked.text);
    assert!(checked.lines("warning").iter().any(|line| line.contains("\"app\".\"nokey\" has no replica identity")), "{}", checked.text);
    run_sql_fixes(&source, &checked);

    assert_eq!(check(primary.port(), "follower", "").lines("error"), Vec::<&str>::new());
    source.execute("ALTER TABLE app.nokey REPLICA IDENTITY FULL");

    let checked = check(primary.port(), "follower", "");
    assert_eq!((checked.code, checked.last().starts_with("ready: ")), (0, true), "{}", checked.text);
    // It has changed nothing.
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn warnings_alone_have_a_code_of_their_own() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a + 1) STORED, p point, x xml);
         CREATE TABLE other (id int PRIMARY KEY);
         CREATE PUBLICATION pub FOR TABLE t (a, p) WITH (publish = 'insert, update')",
    );
    let never = "  initial_copy: never\n";
    let checked = check(primary.port(), "postgres", never);
    assert_eq!(checked.code, 1, "{}", checked.text);
    assert!(checked.fixes().contains(&"SELECT pg_create_logical_replication_slot('ours', 'pgoutput');"), "{}", checked.text);
    source.execute("SELECT pg_create_logical_replication_slot('ours', 'pgoutput')");
    let checked = check(primary.port(), "postgres", never);
    assert_eq!(checked.code, 3, "{}", checked.text);
    let warnings = checked.lines("warning");
    assert!(warnings.iter().any(|line| line.contains("leaves out DELETE, TRUNCATE")), "{}", checked.text);
    assert!(warnings.iter().any(|line| line.contains("lacks \"id\" of its replica identity: UPDATE of it fail")), "{}", checked.text);
    assert!(checked.lines("ok").iter().any(|line| line.contains("slot \"ours\" is there and not in use")), "{}", checked.text);
    assert!(
        checked.lines("note").iter().any(|line| line.contains("not published") && line.contains("\"public\".\"other\"")),
        "{}",
        checked.text
    );
    assert_eq!(checked.last(), "0 errors, 2 warnings");

    // A slot of another kind, of another database.
    source.execute("SELECT pg_drop_replication_slot('ours')");
    source.execute("SELECT pg_create_physical_replication_slot('ours')");
    let checked = check(primary.port(), "postgres", never);
    assert!(checked.lines("error").iter().any(|line| line.contains("not a logical slot of plugin pgoutput")), "{}", checked.text);
}

#[test]
fn what_keeps_a_new_slot_from_starting_is_told() {
    let primary = Primary::start(&["max_prepared_transactions = 5"]);
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION pub FOR ALL TABLES");
    source.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s left'");
    let checked = check(primary.port(), "postgres", "");
    assert_eq!(checked.code, 3, "{}", checked.text);
    assert!(checked.lines("warning").iter().any(|line| line.contains("a prepared transaction has ended")), "{}", checked.text);
    assert!(checked.fixes().iter().any(|fix| fix.contains("ROLLBACK PREPARED 'it''s left'")), "{}", checked.text);
    source.execute("ROLLBACK PREPARED 'it''s left'");
    assert_eq!(check(primary.port(), "postgres", "").code, 0);
}

#[test]
fn a_primary_that_cannot_be_reached_or_refuses_us_is_one_finding() {
    let nobody = check(strandline_tests::free_port(), "postgres", "");
    assert_eq!((nobody.code, nobody.last()), (1, "1 error, 0 warnings"), "{}", nobody.text);
    assert!(nobody.fixes()[0].contains("listen_addresses"), "{}", nobody.text);
    let primary = Primary::start(&[]);
    primary.db().execute("CREATE ROLE follower LOGIN PASSWORD 'another'");
    let refused = check(primary.port(), "follower", "");
    assert_eq!(refused.code, 1);
    assert!(refused.lines("error")[0].contains("28P01") && refused.fixes()[0].contains("postgres_password"), "{}", refused.text);
}
