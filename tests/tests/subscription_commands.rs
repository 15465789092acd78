//! CREATE, ALTER and DROP SUBSCRIPTION: what they say, beside what PostgreSQL's own subscriber says, and what they do to slots and workers.

use strandline_tests::psql::Target;
use strandline_tests::replica::Options;
use strandline_tests::subscriptions::{create, quoted, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, wait_until};

/// Statements whose every word is to be PostgreSQL's. PUBLISHER and WRONG stand for connection strings.
const SCRIPT: &str = include_str!("cases/subscription_commands.sql");

/// What psql shows of a script, without the lines that tell where PostgreSQL's source says it.
fn transcript(target: &Target, script: &str) -> String {
    let output = target.script(script, &["-a", "-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"]);
    // Both in the order in which they were written needs one pipe; here each statement is told apart by its echo.
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // Slots of PostgreSQL's tables' own workers have names of their own, and we have none.
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.contains("LOCATION:") && !line.contains("_sync_"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn every_command_says_what_postgresql_says() {
    let primary = Primary::start(&["max_prepared_transactions = 5"]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE TABLE u (id int PRIMARY KEY);
         CREATE TABLE w (a int PRIMARY KEY, b int, c int);
         CREATE PUBLICATION p FOR TABLE t; CREATE PUBLICATION p2 FOR TABLE u;
         CREATE PUBLICATION pw1 FOR TABLE w (a, b); CREATE PUBLICATION pw2 FOR TABLE w (a, c)",
    );
    let conninfo = quoted(&primary.conninfo());
    let script = SCRIPT.replace("PUBLISHER", &conninfo).replace("PORT", &primary.port().to_string());
    let native = Primary::oracle();
    let expected = transcript(&native.target(), &script);
    assert!(expected.contains("created replication slot \"s\" on publisher"), "{expected}");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0", "the script leaves no slot behind");
    let replica = Replica::start(None, &Options::default());
    let ours = transcript(&replica.target(), &script);
    if let Some((at, (ours, theirs))) = ours.lines().zip(expected.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!("line {at}:\nours:         {ours}\nPostgreSQL's: {theirs}\n\nall of ours:\n{}", transcript_near(&expected, at));
    }
    assert_eq!(ours.lines().count(), expected.lines().count());
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
}

/// Some lines around one.
fn transcript_near(text: &str, at: usize) -> String {
    text.lines().skip(at.saturating_sub(6)).take(12).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_subscription_starts_stops_and_changes_at_run_time_and_goes_on_after_kill_9() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'before' FROM generate_series(1, 1000) n;
         CREATE PUBLICATION p FOR TABLE t",
    );
    let mut replica = Replica::start(None, &Options::default());
    let db = replica.db();
    create(&db, &primary, "s", "PUBLICATION p");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM t"), "1000", "the table was created and copied");
    assert_eq!(source.value("SELECT application_name FROM pg_stat_replication"), "s");
    assert_eq!(db.lines("SELECT srrelid::regclass, srsubstate FROM pg_subscription_rel"), ["t|r"]);
    assert_eq!(source.lines("SELECT slot_name, temporary FROM pg_replication_slots"), ["s|f"], "no temporary slot is left");
    source.execute("INSERT INTO t VALUES (1001, 'streamed')");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(db.value("SELECT v FROM t WHERE id = 1001"), "streamed");
    let origin = "SELECT external_id = 'pg_' || (SELECT oid FROM pg_subscription), remote_lsn > '0/1' FROM pg_replication_origin_status";
    assert_eq!(db.lines(origin), ["t|t"]);

    // Disabled: nothing comes, and the state lasts.
    db.execute("ALTER SUBSCRIPTION s DISABLE");
    assert_eq!(db.lines("SELECT subname, pid IS NULL, state FROM pg_stat_subscription"), ["s|t|disabled"]);
    wait_until(|| source.value("SELECT count(*) FROM pg_stat_replication") == "0", || "the walsender to end".into());
    source.execute("UPDATE t SET v = 'later' WHERE id <= 10");
    replica.kill();
    replica.start_again();
    let db = replica.db();
    assert_eq!(db.value("SELECT subenabled FROM pg_subscription"), "f");
    assert_eq!(db.value("SELECT count(*) FROM t WHERE v = 'later'"), "0");
    assert_eq!(db.lines("SELECT external_id LIKE 'pg_%', remote_lsn > '0/1' FROM pg_replication_origin_status"), ["t|t"]);
    db.execute("ALTER SUBSCRIPTION s ENABLE");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM t WHERE v = 'later'"), "10");

    // Another connection, another name.
    let conninfo = format!("{} application_name=changed", primary.conninfo()).replace('\'', "''");
    db.execute(&format!("ALTER SUBSCRIPTION s CONNECTION '{conninfo}'"));
    wait_until(|| source.lines("SELECT application_name FROM pg_stat_replication") == ["changed"], || "the new connection".into());
    db.execute("ALTER SUBSCRIPTION s RENAME TO renamed; ALTER SUBSCRIPTION renamed SET (streaming = on, synchronous_commit = on)");
    source.execute("INSERT INTO t VALUES (1002, 'after the change')");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(db.value("SELECT count(*) FROM t"), "1002");
    // One transaction, one commit; the copy is one as well.
    let count = "SELECT count(*) FROM dolt_log WHERE message LIKE";
    assert_eq!(db.value(&format!("{count} 'replicated transaction%'")), "3");
    assert_eq!(db.value(&format!("{count} 'copy of table public.t at %'")), "1");

    db.execute("DROP SUBSCRIPTION renamed");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
    assert_eq!(db.value("SELECT count(*) FROM pg_subscription"), "0");
    assert_eq!(db.value("SELECT count(*) FROM t"), "1002", "the rows stay");
    replica.stop();
    replica.start_again();
    assert_eq!(replica.db().value("SELECT count(*) FROM pg_subscription"), "0");
    assert!(replica.complaints().iter().all(|line| !line.contains("panicked")), "{:?}", replica.complaints());
}

/// Two primaries and two databases of one; two of the subscriptions write into the same branch.
#[test]
fn several_subscriptions_keep_their_own_positions() {
    let (first, second) = (Primary::start(&[]), Primary::start(&[]));
    let (a, b) = (first.db(), second.db());
    a.execute("CREATE DATABASE other");
    let other = first.db_named("other");
    for (source, table) in [(&a, "one"), (&b, "two"), (&other, "three")] {
        source.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE {table}"));
    }
    let mut replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE DATABASE elsewhere");
    let elsewhere = replica.try_db("elsewhere").unwrap();
    create(&db, &first, "sub", "PUBLICATION p WITH (slot_name = 's1')");
    create(&db, &second, "sub2", "PUBLICATION p WITH (slot_name = 's2')");
    let conninfo = first.conninfo().replace("dbname=postgres", "dbname=other").replace('\'', "''");
    elsewhere.execute(&format!("CREATE SUBSCRIPTION sub CONNECTION '{conninfo}' PUBLICATION p WITH (slot_name = 's3')"));
    let count = |source: &Db, table: &str, from: u32, to: u32| {
        for id in from..=to {
            source.execute(&format!("INSERT INTO {table} VALUES ({id})"));
        }
    };
    let expect = |replica: &Replica, n: u32| {
        for (primary, source, slot) in [(&first, &a, "s1"), (&second, &b, "s2"), (&first, &other, "s3")] {
            let lsn = primary.lsn(source);
            primary.wait_confirmed(source, slot, &lsn);
        }
        let db = replica.db();
        assert_eq!(db.lines("SELECT count(*), max(id) FROM one"), [format!("{n}|{n}")]);
        assert_eq!(db.lines("SELECT count(*), max(id) FROM two"), [format!("{n}|{n}")]);
        assert_eq!(replica.try_db("elsewhere").unwrap().lines("SELECT count(*), max(id) FROM three"), [format!("{n}|{n}")]);
        // A commit per transaction, none twice.
        let commits =
            "SELECT count(*), count(DISTINCT (source_lsn, source_xid)) FROM dolt_log WHERE message LIKE 'replicated transaction%'";
        assert_eq!(db.lines(commits), [format!("{}|{}", 2 * n, 2 * n)]);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| count(&first.db(), "one", 1, 40));
        scope.spawn(|| count(&second.db(), "two", 1, 40));
        count(&other, "three", 1, 40);
    });
    expect(&replica, 40);
    assert_eq!(
        db.lines("SELECT subname, subdbid = (SELECT oid FROM pg_database WHERE datname = 'postgres') FROM pg_subscription ORDER BY oid"),
        ["sub|t", "sub2|t", "sub|f"]
    );
    assert_eq!(elsewhere.lines("SELECT srrelid::regclass FROM pg_subscription_rel"), ["three"]);
    // Killed while both write; then one is idle for long enough that its last commit lies far behind the other's.
    for round in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| count(&first.db(), "one", 41 + round * 20, 60 + round * 20));
            scope.spawn(|| count(&second.db(), "two", 41 + round * 20, 60 + round * 20));
            count(&other, "three", 41 + round * 20, 60 + round * 20);
        });
        replica.kill();
        replica.start_again();
    }
    expect(&replica, 100);
    assert_eq!(replica.try_db("elsewhere").unwrap().value("SELECT count(*) FROM pg_subscription"), "3");
    let db = replica.db();
    assert_eq!(db.sqlstate("DROP DATABASE elsewhere"), "55006");
    assert_eq!(db.sqlstate("SELECT dolt_branch('-m', 'main', 'elsewhere')"), "55006");
    db.execute("DROP SUBSCRIPTION sub; DROP SUBSCRIPTION sub2");
    assert_eq!(db.value("SELECT count(*) FROM pg_subscription"), "1");
    // What is damaged shows after a restart at the latest.
    replica.stop();
    replica.start_again();
    replica.stop();
}

#[test]
fn a_branch_is_written_into_where_the_session_is_on_it() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t");
    let replica = Replica::start(None, &Options::default());
    replica.db().execute("SELECT dolt_branch('side')");
    let side = replica.try_db("postgres/side").unwrap();
    create(&side, &primary, "s", "PUBLICATION p");
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(side.value("SELECT count(*) FROM t"), "1");
    assert_eq!(replica.db().sqlstate("SELECT * FROM t"), "42P01");
    assert_eq!(replica.db().sqlstate("SELECT dolt_branch('-d', 'side')"), "55006");
    assert_eq!(replica.db().value("SELECT subname FROM pg_subscription"), "s");
}

#[test]
fn passwords_are_for_superusers_and_for_no_log() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'hunter2hunter2'; CREATE TABLE t (id int); GRANT SELECT ON t TO replicator; CREATE PUBLICATION p FOR TABLE t");
    let replica = Replica::start(None, &Options { log_level: "debug".into(), ..Options::default() });
    let db = replica.db();
    let conninfo = format!("host=127.0.0.1 port={} user=replicator password=hunter2hunter2 dbname=postgres", primary.port());
    db.execute(&format!("CREATE SUBSCRIPTION s CONNECTION '{conninfo}' PUBLICATION p; CREATE ROLE joe LOGIN PASSWORD 'x'"));
    wait_for_subscription(&replica, &primary, &source, "s");
    assert_eq!(db.value("SELECT subconninfo FROM pg_subscription"), conninfo);
    let joe = Db::connect(&format!("host=127.0.0.1 port={} user=joe password=x dbname=postgres", replica.port())).unwrap();
    assert_eq!(joe.lines("SELECT subname FROM pg_subscription"), ["s"]);
    assert!(!joe.lines("SELECT * FROM pg_subscription").concat().contains("hunter2"));
    assert_eq!(db.sqlstate("ALTER SUBSCRIPTION s CONNECTION 'password=hunter2hunter2 foo'"), "42601");
    assert!(!replica.log().contains("hunter2"), "{}", replica.log());
}

/// The configured source is a subscription named after its slot.
#[test]
fn the_configured_source_can_be_stopped_and_started() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION strandline FOR ALL TABLES");
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(db.lines("SELECT subname, subenabled, subslotname FROM pg_subscription"), ["strandline|t|strandline"]);
    assert_eq!(db.lines("SELECT srrelid::regclass, srsubstate FROM pg_subscription_rel"), ["t|r"]);
    for refused in ["DROP SUBSCRIPTION strandline", "ALTER SUBSCRIPTION strandline RENAME TO x"] {
        assert_eq!(db.sqlstate(refused), "55000", "{refused}");
    }
    create(&db, &primary, "second", "PUBLICATION strandline WITH (copy_data = false)");
    db.execute("DROP SUBSCRIPTION second; ALTER SUBSCRIPTION strandline DISABLE");
    source.execute("INSERT INTO t VALUES (2)");
    replica.stop();
    replica.start_again();
    assert_eq!(replica.db().lines("SELECT subenabled FROM pg_subscription"), ["f"]);
    replica.db().execute("ALTER SUBSCRIPTION strandline ENABLE");
    replica.catch_up(&primary, &source);
    assert_eq!(replica.db().value("SELECT count(*) FROM t"), "2");
}
