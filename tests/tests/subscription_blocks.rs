//! Commands on subscriptions within transaction blocks (007 of PostgreSQL's tests and what its manual says of the others), and the statistics of
//! subscriptions (026): the same situations and outcomes, in our words.

use strandline_tests::subscriptions::{create, make, quoted, subscriber, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, wait_until};

#[test]
fn commands_in_a_transaction_block_take_effect_at_its_commit() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute("CREATE TABLE test1 (a int PRIMARY KEY, b text); CREATE PUBLICATION mypub FOR ALL TABLES");
    let mut replica = subscriber();
    let (db, other) = (replica.db(), replica.db());
    create(&db, &primary, "mysub", "PUBLICATION mypub");
    wait_for_subscription(&replica, &primary, &source, "mysub");

    // 007: what is disabled by the same transaction can be dropped by it; the slot is left.
    db.execute("BEGIN; ALTER SUBSCRIPTION mysub DISABLE");
    db.execute("ALTER SUBSCRIPTION mysub SET (slot_name = NONE)");
    let seen = "SELECT subname, subenabled, subslotname FROM pg_subscription ORDER BY 1";
    assert_eq!(db.lines(seen), ["mysub|f|"], "the transaction sees what it has done");
    assert_eq!(other.lines(seen), ["mysub|t|mysub"], "others do not");
    db.execute("DROP SUBSCRIPTION mysub");
    assert_eq!(db.lines(seen), [""; 0]);
    source.execute("INSERT INTO test1 VALUES (1)");
    wait_for_subscription(&replica, &primary, &source, "mysub");
    assert_eq!(other.value("SELECT count(*) FROM test1"), "1", "it follows until the transaction commits");
    db.execute("COMMIT");
    assert_eq!(other.lines(seen), [""; 0]);
    assert_eq!(source.lines("SELECT slot_name FROM pg_replication_slots"), ["mysub"]);
    wait_until(|| source.value("SELECT active FROM pg_replication_slots") == "f", || "the slot to rest".into());
    for gone in ["pg_subscription_rel", "pg_stat_subscription", "pg_replication_origin"] {
        assert_eq!(other.value(&format!("SELECT count(*) FROM {gone}")), "0", "{gone}");
    }

    // Made and changed by a transaction with other changes, in which savepoints are rolled back; the slot is there already.
    db.execute("CREATE ROLE boss SUPERUSER");
    let conninfo = quoted(&primary.conninfo());
    let block = format!(
        "BEGIN; CREATE TABLE ours (a int PRIMARY KEY); CREATE SUBSCRIPTION again CONNECTION '{conninfo}' PUBLICATION mypub WITH (create_slot = false, slot_name = mysub, copy_data = false);
         SAVEPOINT s1; ALTER SUBSCRIPTION again RENAME TO unsaid; ALTER SUBSCRIPTION unsaid DISABLE; ROLLBACK TO s1;
         ALTER SUBSCRIPTION again SET (synchronous_commit = local); ALTER SUBSCRIPTION again OWNER TO boss; ALTER SUBSCRIPTION again RENAME TO renamed;
         ALTER SUBSCRIPTION renamed SKIP (lsn = '7F/0')"
    );
    db.execute(&block);
    let all = "SELECT subname, subenabled, subsynccommit, subowner::regrole, subskiplsn, (SELECT count(*) FROM pg_subscription_rel) FROM pg_subscription";
    assert_eq!(db.lines(all), ["renamed|t|local|boss|7F/0|1"]);
    assert_eq!(other.lines(all), [""; 0]);
    db.execute("ROLLBACK");
    assert_eq!((db.lines(all), db.sqlstate("SELECT * FROM ours")), (Vec::new(), "42P01".into()));
    db.execute(&block);
    db.execute("COMMIT");
    assert_eq!(other.lines("SELECT subname, subenabled FROM pg_subscription, ours"), [""; 0], "the table is there, and empty");
    source.execute("INSERT INTO test1 VALUES (2)");
    wait_for_subscription(&replica, &primary, &source, "mysub");
    assert_eq!(other.lines("SELECT a FROM test1 ORDER BY a"), ["1", "2"]);
    assert_eq!(other.lines("SELECT subname, subenabled, subsynccommit FROM pg_subscription"), ["renamed|t|local"]);
    // Without asking the primary.
    db.execute(&format!("BEGIN; CREATE SUBSCRIPTION idle CONNECTION '{conninfo}' PUBLICATION mypub WITH (connect = false, slot_name = NONE); ALTER SUBSCRIPTION idle SET PUBLICATION a, b WITH (refresh = false); COMMIT"));
    assert_eq!(other.lines("SELECT subenabled, subpublications FROM pg_subscription WHERE subname = 'idle'"), ["f|{a,b}"]);
    // An error in the block, and a lost connection, undo it.
    db.execute("BEGIN; ALTER SUBSCRIPTION idle RENAME TO lost");
    assert_eq!(db.sqlstate("ALTER SUBSCRIPTION idle DISABLE"), "42704", "it has another name in this transaction");
    db.execute("COMMIT");
    let leaving = replica.db();
    leaving.execute("BEGIN; DROP SUBSCRIPTION idle");
    drop(leaving);
    assert_eq!(other.value("SELECT count(*) FROM pg_subscription WHERE subname = 'idle'"), "1");

    // Two transactions that change the same one: the second to commit fails as a whole.
    db.execute("BEGIN; CREATE TABLE first (a int); ALTER SUBSCRIPTION idle SET (disable_on_error = true)");
    other.execute("ALTER SUBSCRIPTION idle RENAME TO changed");
    assert_eq!(db.sqlstate("COMMIT"), "40001");
    assert_eq!(other.sqlstate("SELECT * FROM first"), "42P01");
    assert_eq!(other.lines("SELECT subdisableonerr FROM pg_subscription WHERE subname = 'changed'"), ["f"]);
    db.execute(&format!(
        "BEGIN; CREATE SUBSCRIPTION twice CONNECTION '{conninfo}' PUBLICATION mypub WITH (connect = false, slot_name = NONE)"
    ));
    other.execute("ALTER SUBSCRIPTION changed RENAME TO twice");
    assert_eq!(db.sqlstate("COMMIT"), "42710");
    other.execute("DROP SUBSCRIPTION twice");

    // What asks or changes the primary does not wait for a COMMIT.
    let refused = [
        (format!("CREATE SUBSCRIPTION no CONNECTION '{conninfo}' PUBLICATION mypub"), "CREATE SUBSCRIPTION ... WITH (create_slot = true)"),
        ("ALTER SUBSCRIPTION renamed REFRESH PUBLICATION".into(), "ALTER SUBSCRIPTION ... REFRESH"),
        ("ALTER SUBSCRIPTION renamed SET PUBLICATION mypub".into(), "ALTER SUBSCRIPTION with refresh"),
        ("DROP SUBSCRIPTION renamed".into(), "DROP SUBSCRIPTION"),
    ];
    for (command, what) in refused {
        db.execute("BEGIN");
        let error = db.try_execute(&command).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("25001", format!("{what} cannot run inside a transaction block").as_str()));
        db.execute("ROLLBACK");
    }
    // All of it lasts.
    replica.kill();
    replica.start_again();
    let db = replica.db();
    assert_eq!(db.lines("SELECT subname, subenabled, subsynccommit, subowner::regrole FROM pg_subscription"), ["renamed|t|local|boss"]);
    source.execute("INSERT INTO test1 VALUES (3)");
    wait_for_subscription(&replica, &primary, &source, "mysub");
    assert_eq!(db.value("SELECT max(a) FROM test1"), "3");
    db.execute("DROP SUBSCRIPTION renamed");
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "0");
}

/// A subscription whose copy fails at a row that is here, and later a transaction.
fn with_errors(replica: &Replica, primary: &Primary, source: &Db, db: &Db, table: &str) -> String {
    source.execute(&format!(
        "CREATE TABLE {table} (a int); INSERT INTO {table} VALUES (1); CREATE PUBLICATION {table}_pub FOR TABLE {table}"
    ));
    make(db, &format!("CREATE TABLE {table} (a int PRIMARY KEY); INSERT INTO {table} VALUES (1)"));
    let name = format!("{table}_sub");
    create(db, primary, &name, &format!("PUBLICATION {table}_pub"));
    let wait_count = |column: &str| {
        let sql = format!("SELECT {column} > 0 FROM pg_stat_subscription_stats WHERE subname = '{name}'");
        wait_until(|| db.value(&sql) == "t", || format!("{column} of {name}\n{}", replica.log()));
    };
    wait_count("sync_error_count");
    make(db, &format!("TRUNCATE {table}"));
    wait_for_subscription(replica, primary, source, &name);
    assert_eq!(db.lines(&format!("SELECT a FROM {table}")), ["1"]);
    source.execute(&format!("INSERT INTO {table} VALUES (1)"));
    wait_count("apply_error_count");
    make(db, &format!("TRUNCATE {table}"));
    wait_for_subscription(replica, primary, source, &name);
    name
}

/// 026.
#[test]
fn statistics_count_errors_and_are_reset_one_by_one_or_all() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    let replica = subscriber();
    let db = replica.db();
    assert_eq!(db.value("SELECT count(*) FROM pg_stat_subscription_stats"), "0");
    let counts = |name: &str| {
        let columns = "apply_error_count > 0, sync_error_count > 0, confl_insert_exists > 0, stats_reset IS NULL";
        db.lines(&format!("SELECT {columns} FROM pg_stat_subscription_stats WHERE subname = '{name}'")).concat()
    };
    let reset_time = |name: &str| db.value(&format!("SELECT stats_reset FROM pg_stat_subscription_stats WHERE subname = '{name}'"));
    let is_later = |name: &str, time: &str| {
        let sql = format!("SELECT stats_reset > '{time}'::timestamptz FROM pg_stat_subscription_stats WHERE subname = '{name}'");
        assert_eq!(db.value(&sql), "t", "{name}");
    };
    let one = with_errors(&replica, &primary, &source, &db, "test_tab1");
    assert_eq!(counts(&one), "t|t|t|t");
    let reset_one =
        format!("SELECT pg_stat_reset_subscription_stats((SELECT subid FROM pg_stat_subscription_stats WHERE subname = '{one}'))");
    assert_eq!(db.value(&reset_one), "");
    assert_eq!(counts(&one), "f|f|f|f");
    let first = reset_time(&one);
    db.execute(&reset_one);
    is_later(&one, &first);

    let two = with_errors(&replica, &primary, &source, &db, "test_tab2");
    assert_eq!((counts(&one), counts(&two)), ("f|f|f|f".into(), "t|t|t|t".into()));
    db.execute("SELECT pg_stat_reset_subscription_stats(NULL)");
    assert_eq!((counts(&one), counts(&two)), ("f|f|f|f".into(), "f|f|f|f".into()));
    let times = [reset_time(&one), reset_time(&two)];
    db.execute("SELECT pg_stat_reset_subscription_stats(NULL)");
    is_later(&one, &times[0]);
    is_later(&two, &times[1]);
    // A reset outlives the replicator that it found, and what is counted afterwards counts.
    db.execute(&format!("ALTER SUBSCRIPTION {two} DISABLE; ALTER SUBSCRIPTION {two} ENABLE"));
    assert_eq!(counts(&two), "f|f|f|f");
    source.execute("INSERT INTO test_tab2 VALUES (5); INSERT INTO test_tab2 VALUES (5)");
    wait_until(|| counts(&two) == "t|f|t|f", || format!("another error to be counted: {}", counts(&two)));

    assert_eq!(db.sqlstate("SELECT pg_stat_reset_subscription_stats(0)"), "22023");
    db.execute("SELECT pg_stat_reset_subscription_stats(4000000000)");
    db.execute("CREATE ROLE joe LOGIN PASSWORD 'x'");
    let joe = Db::connect(&format!("host=127.0.0.1 port={} user=joe password=x dbname=postgres", replica.port())).unwrap();
    assert_eq!(joe.sqlstate("SELECT pg_stat_reset_subscription_stats(NULL)"), "42501");
    db.execute(&format!("DROP SUBSCRIPTION {one}"));
    assert_eq!(db.lines("SELECT subname FROM pg_stat_subscription_stats"), [two.as_str()]);
}
