//! Where the primary is, as libpq's connection strings say it: several servers, sockets, settings of the session.

use strandline_tests::primary::PASSWORD;
use strandline_tests::replica::Options;
use strandline_tests::{Primary, Replica, free_port, wait_until};

fn options(connection: &str) -> Options {
    let config = format!(
        "subscriptions:\n  retry_interval_ms: 50\npostgres_replication:\n  slot_name: strandline\n  connection: \"{}\"\n",
        connection.replace('\\', "\\\\").replace('"', "\\\"")
    );
    Options { config, ..Options::default() }
}

/// A value of a connection string in keywords.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[test]
fn the_first_server_that_will_do_is_followed() {
    let primary = Primary::start(&[]);
    // It answers, and is not what is asked for.
    let read_only = Primary::start(&["default_transaction_read_only = on"]);
    let nobody = free_port();
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION strandline FOR ALL TABLES");
    let keywords = format!(
        "host=127.0.0.1,localhost,127.0.0.1 port={nobody},{},{} user=postgres password={} dbname=postgres target_session_attrs=read-write \
         connect_timeout=20 options='-c work_mem=5MB -c datestyle=German'",
        read_only.port(),
        primary.port(),
        quoted(PASSWORD)
    );
    let mut replica = Replica::start(None, &options(&keywords));
    replica.catch_up(&primary, &source);
    assert_eq!(replica.db().lines("SELECT id FROM t"), ["1"]);
    let conninfo = replica.db().value("SELECT subconninfo FROM pg_subscription");
    assert_eq!(
        conninfo,
        format!("host=127.0.0.1,localhost,127.0.0.1 port={nobody},{},{} user=postgres dbname=postgres", read_only.port(), primary.port())
    );
    replica.stop();

    // The same in a URI. Nobody takes writes: it is tried again until somebody does.
    source.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    source.execute("SELECT pg_reload_conf()");
    let encoded: String = PASSWORD.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let uri = format!(
        "postgresql://postgres:{encoded}@127.0.0.1:{nobody},127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        read_only.port(),
        primary.port()
    );
    replica.configure(None, &options(&uri));
    replica.start_again();
    let db = replica.db();
    let waits = "SELECT state = 'waiting' AND last_error LIKE '%session is read-only%' FROM strand_replication_status";
    wait_until(|| db.value(waits) == "t", || format!("{:?}", db.lines("SELECT * FROM strand_replication_status")));
    source.execute("SET default_transaction_read_only = off");
    source.execute("ALTER SYSTEM RESET default_transaction_read_only");
    source.execute("SELECT pg_reload_conf()");
    source.execute("INSERT INTO t VALUES (2)");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT id FROM t ORDER BY id"), ["1", "2"]);
    replica.stop();

    // Over the socket, in CREATE SUBSCRIPTION too.
    let socket = primary.socket_folder().display();
    let connection = format!("host={socket} port={} user=postgres password={} dbname=postgres", primary.port(), quoted(PASSWORD));
    replica.configure(None, &options(&connection));
    replica.start_again();
    source.execute("CREATE TABLE u (id int PRIMARY KEY, t text); INSERT INTO u SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g; INSERT INTO t VALUES (3)");
    replica.catch_up(&primary, &source);
    assert_eq!(replica.db().lines("SELECT count(*), sum(length(t)) FROM u"), ["20000|2000000"]);
    replica.db().execute("CREATE DATABASE second");
    let second = replica.try_db("second").expect("the new database");
    // A socket that is not there, and then the one that is.
    let several =
        format!("host={socket}/none,{socket} port={} user=postgres password={} dbname=postgres", primary.port(), quoted(PASSWORD));
    second.execute(&format!("CREATE SUBSCRIPTION second CONNECTION '{}' PUBLICATION strandline", several.replace('\'', "''")));
    wait_until(
        || second.lines("SELECT bool_and(srsubstate = 'r'), count(*) FROM pg_subscription_rel") == ["t|2"],
        || format!("{:?}\n{}", second.lines("SELECT * FROM pg_subscription_rel"), replica.log()),
    );
    assert_eq!(second.lines("SELECT id FROM t ORDER BY id"), ["1", "2", "3"]);
    assert_eq!(source.value("SELECT count(*) FROM pg_stat_replication WHERE client_addr IS NULL"), "2");
    let missing =
        second.try_execute(&format!("CREATE SUBSCRIPTION third CONNECTION 'host={socket}/none user=postgres' PUBLICATION strandline"));
    let text = strandline_tests::db::explain(&missing.expect_err("no socket"));
    assert!(
        text.contains(&format!("connection to server on socket \"{socket}/none/.s.PGSQL.5432\" failed: No such file or directory\n\tIs the server running locally")),
        "{text}"
    );
    second.execute("DROP SUBSCRIPTION second");
}

/// Standbys can be followed from version 16 on; before, there is none among the servers.
#[test]
fn a_standby_is_followed_where_one_is_preferred_and_there_is_one() {
    let primary = Primary::start(&[]);
    let standby = (primary.major_version() >= 16).then(|| primary.standby());
    let source = primary.db();
    source.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION strandline FOR ALL TABLES");
    let last = standby.as_ref().map_or_else(free_port, Primary::port);
    let keywords = format!(
        "host=127.0.0.1 port={},{},{last} user=postgres password={} dbname=postgres target_session_attrs=prefer-standby",
        free_port(),
        primary.port(),
        quoted(PASSWORD)
    )
    .replace("host=127.0.0.1", "host=127.0.0.1,127.0.0.1,127.0.0.1");
    if let Some(standby) = &standby {
        let lsn = primary.lsn(&source);
        let there = standby.db();
        wait_until(|| there.value(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")) == "t", || "the standby to be there".into());
    }
    let mut replica = Replica::start(None, &options(&keywords));
    let db = replica.db();
    let followed = standby.as_ref().unwrap_or(&primary).db();
    // A standby's slot begins where the primary tells of the transactions that run there.
    let running = if standby.is_some() { "SELECT pg_log_standby_snapshot()" } else { "SELECT 1" };
    for id in 2..=3 {
        wait_until(
            || {
                source.execute(running);
                followed.value("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'strandline' AND state = 'streaming'")
                    == "1"
            },
            || format!("the stream:\n{}", replica.log()),
        );
        source.execute(&format!("INSERT INTO t VALUES ({id})"));
        wait_until(|| db.try_rows("SELECT id FROM t").is_ok_and(|rows| rows.len() == id), || format!("row {id}:\n{}", replica.log()));
    }
    assert_eq!(followed.lines("SELECT slot_name FROM pg_replication_slots"), ["strandline"]);
    source.execute("ALTER TABLE t ADD COLUMN v text DEFAULT 'x'; INSERT INTO t VALUES (4, 'y')");
    wait_until(|| db.value("SELECT count(*) FROM t") == "4", || format!("the column:\n{}", replica.log()));
    assert_eq!(db.lines("SELECT * FROM t ORDER BY id"), ["1|x", "2|x", "3|x", "4|y"]);
    replica.stop();
}
