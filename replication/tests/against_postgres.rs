//! The replicator against a real primary: what is there must be here, transaction by transaction, whatever happens in between.

mod support;

use std::path::Path;

use strandline_replication::subscription::{PublishedName, SubscriptionRecords};
use strandline_replication::{CommitMode, CreateTables, State};
use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID, TableSchema};
use strandline_storage::store::Store;
use strandline_storage::{DataType, Edit, Lsn};
use strandline_tests::sample::{self, Load, TABLES, picture};
use strandline_tests::{Db, Primary, wait_until};
use support::{Replica, SLOT, local_meta, picture_of, utc};

fn make_slot(db: &Db) {
    db.execute(&format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"));
}

#[test]
fn a_random_load_arrives_commit_by_commit_across_restarts_of_both_sides() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(sample::SCHEMA);
    let mut load = Load::new(7);
    // Rows from before, for the initial copy.
    for _ in 0..60 {
        db.execute(&format!("BEGIN;{};COMMIT", load.transaction().sql));
    }
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
    let mut replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &TABLES);
    assert_eq!(replica.replicated().len(), 1, "one base commit");

    let mut xids = Vec::new();
    let mut db = db;
    for i in 0..400 {
        let sql = load.transaction().sql;
        db.execute(&format!("BEGIN;{sql}"));
        xids.push(db.value("SELECT pg_current_xact_id()::xid"));
        db.execute("COMMIT");
        match i {
            100 | 250 => replica.restart(),
            150 => {
                drop(db);
                primary.restart("immediate");
                db = utc(&primary);
            }
            200 => db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication"),
            300 => {
                drop(db);
                primary.restart("fast");
                db = utc(&primary);
            }
            _ => {}
        }
    }
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &TABLES);
    let commits = replica.replicated();
    let found: Vec<String> = commits.iter().skip(1).map(|c| c.meta.source.as_ref().unwrap().xid.to_string()).collect();
    assert_eq!(found, xids);
    assert!(commits.windows(2).all(|pair| pair[0].meta.source.as_ref().unwrap().end_lsn < pair[1].meta.source.as_ref().unwrap().end_lsn));
    assert_eq!(replica.status().state, State::Streaming);
    // The counts are shown a moment after the rows are there.
    wait_until(|| replica.status().tables.get("public.t_pk").is_some_and(|t| t.inserted > 0), || format!("{:?}", replica.status()));
}

#[test]
fn a_stop_leaves_the_slot_at_our_position_and_the_file_tells_it() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    let mut replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t VALUES (1, 'a')");
    replica.wait_caught_up(&db);
    replica.stop();
    let lsn = replica.location();
    assert!(!lsn.is_empty());
    let confirmed = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
    wait_until(|| db.value(&confirmed) == lsn, || format!("{lsn}, not {}", db.value(&confirmed)));
    // Our own content is not taken for the user's.
    replica.restart();
    db.execute("INSERT INTO t VALUES (2, 'b')");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
    // Three commits in all: the copy and two transactions.
    assert_eq!(replica.replicated().len(), 3);
}

#[test]
fn the_slot_of_an_idle_database_advances_and_the_primary_can_shut_down() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    for _ in 0..20 {
        db.execute("INSERT INTO other SELECT generate_series(1, 1000)");
    }
    let lsn = primary.lsn(&db);
    db.execute("SELECT pg_logical_emit_message(false, 'test', 'mark')");
    primary.wait_confirmed(&db, SLOT, &lsn);
    assert_eq!(replica.replicated().len(), 1, "nothing but the base commit");
    drop(db);
    let begun = std::time::Instant::now();
    primary.stop("fast");
    assert!(begun.elapsed().as_secs() < 20, "the shutdown waited for us");
    primary.start_again();
    let db = utc(&primary);
    db.execute("INSERT INTO t VALUES (1)");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
}

fn int_column(name: &str, attnum: i16, not_null: bool) -> Column {
    column(name, attnum, DataType::by_name("bigint").unwrap(), not_null)
}

fn column(name: &str, attnum: i16, data_type: DataType, not_null: bool) -> Column {
    Column {
        name: name.into(),
        attnum,
        data_type,
        not_null,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    }
}

/// `t (extra text DEFAULT 'none', id bigint PRIMARY KEY, v varchar(20))`: other order, other types, one column more and one less.
fn hand_made_table(store: &Store) -> TableSchema {
    let mut extra = column("extra", 1, DataType::by_name("text").unwrap(), false);
    extra.default = Some("'none'::text".into());
    TableSchema {
        oid: store.next_oid().unwrap(),
        schema_oid: PUBLIC_SCHEMA_OID,
        name: "t".into(),
        owner: "postgres".into(),
        columns: vec![extra, int_column("id", 2, true), column("v", 3, DataType::by_name("varchar(20)").unwrap(), false)],
        next_attnum: 4,
        primary_key: Some(Index {
            oid: store.next_oid().unwrap(),
            name: "t_pkey".into(),
            unique: true,
            nulls_not_distinct: false,
            columns: vec![IndexColumn { key: IndexKey::Column(1), descending: false, nulls_first: false }],
            include: Vec::new(),
            predicate: None,
            method: "btree".into(),
            constraint: false,
            comment: None,
        }),
        indexes: Vec::new(),
        constraints: Vec::new(),
        merged_columns: Vec::new(),
        comment: None,
    }
}

#[test]
fn the_guides_procedure_works_with_tables_made_by_hand_and_not_committed() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text, secret int); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    make_slot(&db);
    let mut replica = Replica::new(&primary, |config| config.create_tables = CreateTables::Never);
    let branch = replica.branch();
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    edit.put_table(hand_made_table(replica.store())).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    replica.start();
    db.execute("INSERT INTO t VALUES (1, 'one', 5), (2, NULL, 6); UPDATE t SET v = 'zwei', id = 20 WHERE id = 2; UPDATE t SET secret = 1 WHERE id = 1");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["none|1|one", "none|20|zwei"]);
    assert_eq!(replica.replicated().len(), 1, "one simple query string is one transaction");
    // A value that does not fit stops the table, with a reason; it goes on when the reason is gone and it is copied anew.
    db.execute("INSERT INTO t VALUES (3, repeat('long', 10), 0)");
    replica.wait_caught_up(&db);
    let error = replica.status().last_error.expect("an error").1;
    assert!(error.contains("public.t") && error.contains("\"v\"") && error.contains("character varying(20)"), "{error}");
    assert!(!error.contains("longlong"), "values stay out of the log: {error}");
    assert_eq!(*replica.picture("t"), ["none|1|one", "none|20|zwei"]);
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    let mut wider = TableSchema::clone(base.working.catalog().table_by_name("public", "t").unwrap());
    wider.columns[2].data_type = DataType::by_name("text").unwrap();
    edit.rewrite_table(wider, &mut Ok).unwrap();
    branch.commit_local(&base, edit, Some(local_meta("wider"))).unwrap();
    drop(branch);
    replica.restart();
    db.execute("INSERT INTO t VALUES (4, 'four', 0)");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["none|1|one", "none|20|zwei"], "a restart does not bring it back");
    assert_eq!(replica.replicated().len(), 1);
    replica.stop();
    let published =
        PublishedName { oid: db.value("SELECT 't'::regclass::oid").parse().unwrap(), schema: "public".into(), name: "t".into() };
    let renewed = SubscriptionRecords::configured(replica.store(), "postgres", "main").copy_stopped(&[published]).unwrap();
    assert_eq!(renewed.len(), 1);
    replica.restart();
    let whole = ["none|1|one".to_owned(), "none|20|zwei".into(), format!("none|3|{}", "long".repeat(10)), "none|4|four".into()];
    wait_until(|| *replica.picture("t") == whole, || format!("{:?}", replica.status()));
}

#[test]
fn the_users_word_in_pg_wal_location_decides_where_to_begin() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    make_slot(&db);
    db.execute("INSERT INTO t VALUES (1, 'before the dump')");
    let lsn = db.value("SELECT pg_current_wal_lsn()");
    db.execute("INSERT INTO t VALUES (2, 'after')");
    let mut replica = Replica::new(&primary, |_| {});
    let folder = replica.folder.path().join(".doltcfg");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("pg_wal_location"), "no LSN").unwrap();
    replica.start();
    let error = replica.wait_failed();
    assert!(error.contains("pg_wal_location") && error.contains("no LSN"), "{error}");
    replica.stop();
    std::fs::write(folder.join("pg_wal_location"), format!("{lsn}\n")).unwrap();
    replica.start();
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["2|after"]);
    wait_until(|| replica.location() != lsn, || "the file to move on".into());
    db.execute("INSERT INTO t VALUES (3, 'later')");
    replica.restart();
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("t"), ["2|after", "3|later"]);
}

#[test]
fn a_large_transaction_arrives_whole_or_not_at_all() {
    let primary = Primary::start(&["logical_decoding_work_mem = '64kB'"]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    db.execute("BEGIN; INSERT INTO t SELECT g, repeat('x', 100) || g FROM generate_series(1, 100000) g; UPDATE t SET v = 'u' || id WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0; COMMIT");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
    assert_eq!(replica.replicated().len(), 2);
    db.execute("TRUNCATE t");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
}

#[test]
fn tables_made_later_and_changed_meanwhile_are_followed() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    db.execute(
        "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('sad', 'ok');
         CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
         CREATE TABLE shop.\"Order\" (id serial PRIMARY KEY, mood shop.mood DEFAULT 'ok', moods shop.mood[], n shop.positive, total numeric(8,2) DEFAULT 0, tags text[]);",
    );
    db.execute("INSERT INTO shop.\"Order\" (moods, n, tags) VALUES ('{sad,ok}', 3, '{a,\"b c\",NULL}'), (NULL, NULL, '{}')");
    db.execute("BEGIN; INSERT INTO shop.\"Order\" (n) VALUES (7); ALTER TABLE shop.\"Order\" DROP COLUMN n; INSERT INTO shop.\"Order\" (total) VALUES (1.5); COMMIT");
    replica.wait_caught_up(&db);
    let ours = replica.picture("shop.Order");
    assert_eq!(*ours, ["1|ok|{sad,ok}|0.00|{a,\"b c\",NULL}", "2|ok|\\N|0.00|{}", "3|ok|\\N|0.00|\\N", "4|ok|\\N|1.50|\\N"]);
    let root = replica.branch().state().head_root;
    let schema = root.catalog().table_by_name("shop", "Order").unwrap().clone();
    assert_eq!(schema.key_columns(), [0]);
    assert!(schema.columns[0].default.as_deref().unwrap().starts_with("nextval("), "{:?}", schema.columns[0].default);
    assert!(root.catalog().relation("shop", "Order_id_seq").is_some(), "the sequence behind serial");
}

#[test]
fn a_table_that_changes_within_a_transaction_is_followed_from_there_on() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'copied'); CREATE PUBLICATION {SLOT} FOR TABLE t"
    ));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t VALUES (2, 'told')");
    // What the catalog said of the table by then is of before the change.
    replica.wait_caught_up(&db);
    // The first change comes without a description, as the table was described before. The second one needs the catalog, so the transaction is started over.
    db.execute(
        "BEGIN; INSERT INTO t VALUES (3, 'before'); ALTER TABLE t ADD COLUMN w int DEFAULT 5; INSERT INTO t VALUES (4, 'after', 6); COMMIT",
    );
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
    assert_eq!(*replica.picture("t"), ["1|copied|5", "2|told|5", "3|before|5", "4|after|6"]);
    // By the transaction itself, not by a copy of the table after it had been stopped.
    let messages: Vec<String> = replica.replicated().iter().skip(1).map(|commit| commit.meta.message.clone()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages.iter().all(|message| message.starts_with("replicated transaction ")), "{messages:?}");
    assert_eq!(replica.status().last_error, None);
}

#[test]
fn truncate_empties_every_table_that_it_names_or_reaches() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); CREATE TABLE c (id int PRIMARY KEY);
         CREATE PUBLICATION {SLOT} FOR ALL TABLES"
    ));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    for sql in ["TRUNCATE c, a, b RESTART IDENTITY", "TRUNCATE a CASCADE", "TRUNCATE b; TRUNCATE c"] {
        db.execute(
            "INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1) ON CONFLICT DO NOTHING",
        );
        db.execute(sql);
        replica.wait_caught_up(&db);
        replica.assert_equal(&db, &["a", "b", "c"]);
    }
}

#[test]
fn rows_are_found_by_what_identifies_them() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE d (k1 int, v text, k2 text, PRIMARY KEY (k2, k1)); CREATE TABLE i (id int PRIMARY KEY, u int NOT NULL, v text); CREATE UNIQUE INDEX i_u ON i (u);
         ALTER TABLE i REPLICA IDENTITY USING INDEX i_u; CREATE TABLE f (a int, v text); ALTER TABLE f REPLICA IDENTITY FULL;
         INSERT INTO d SELECT g, 'd', 'k' FROM generate_series(1, 5) g; INSERT INTO i SELECT g, -g, 'i' FROM generate_series(1, 5) g;
         INSERT INTO f VALUES (1, NULL), (1, NULL), (NULL, 'f'), (2, 'f'), (2, 'f'); CREATE PUBLICATION {SLOT} FOR ALL TABLES"
    ));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    for (table, sql) in [
        // Nothing of the old row is sent, its key, and that of a row that is gone.
        ("d", "UPDATE d SET v = 'changed' WHERE k1 = 1"),
        ("d", "UPDATE d SET k1 = -k1 WHERE k1 = 2; UPDATE d SET k2 = 'moved', v = 'changed' WHERE k1 = 3"),
        ("d", "DELETE FROM d WHERE k1 IN (1, 4)"),
        // The identity is not the primary key here: an update of the latter alone sends no old row, and what of an old row is no part of the identity is sent as null.
        ("i", "UPDATE i SET v = 'changed' WHERE id = 1"),
        ("i", "UPDATE i SET id = 20 WHERE id = 2"),
        ("i", "UPDATE i SET u = -30 WHERE id = 3"),
        ("i", "DELETE FROM i WHERE id = 4"),
        // One of several equal rows, and NULL equals NULL.
        ("f", "DELETE FROM f WHERE ctid = '(0,1)'"),
        ("f", "UPDATE f SET v = 'changed' WHERE ctid = '(0,5)'; UPDATE f SET v = NULL WHERE a IS NULL"),
        ("f", "DELETE FROM f WHERE a IS NULL"),
    ] {
        db.execute(sql);
        replica.wait_caught_up(&db);
        assert_eq!(replica.picture(table), picture(&db, table), "{sql}");
    }
}

#[test]
fn row_filters_column_lists_and_partitions_are_respected_by_copy_and_stream() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE f (id int PRIMARY KEY, keep bool, hidden text, shown text);
         CREATE TABLE p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         CREATE TABLE g (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
         INSERT INTO f VALUES (1, true, 'h', E'tab\\t\\\\ and\\nline'), (2, false, 'h', 's'); INSERT INTO p VALUES (1, 1, 'a'), (2, 11, 'b'); INSERT INTO g VALUES (1, 1);
         CREATE PUBLICATION {SLOT} FOR TABLE f (id, shown) WHERE (id <> 2), p, g WITH (publish_via_partition_root = true)"
    ));
    let replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    assert_eq!(*replica.picture("f"), ["1|tab\t\\ and\nline"]);
    db.execute("INSERT INTO f VALUES (3, true, 'h', 'three'); UPDATE p SET k = 15 WHERE id = 1; UPDATE g SET a = 5");
    replica.wait_caught_up(&db);
    assert_eq!(*replica.picture("f"), ["1|tab\t\\ and\nline", "3|three"]);
    replica.assert_equal(&db, &["p"]);
    assert_eq!(*replica.picture("g"), ["1|5"]);
}

#[test]
fn what_cannot_go_on_stops_with_a_reason() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut replica = Replica::started(&primary, |_| {});
    let error = replica.wait_failed();
    assert!(error.contains("publication \"strandline\" does not exist"), "{error}");
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR TABLE t"));
    replica.stop();
    replica.start();
    replica.wait_for(State::Streaming);
    replica.stop();
    // A wrong password is refused, not tried for ever.
    replica.adjust = |config| config.connection.places = config.connection.places.with_password("wrong");
    replica.start();
    let error = replica.wait_failed();
    assert!(error.contains("28P01"), "{error}");
    replica.stop();
    replica.adjust = |_| {};
    // A change that somebody else consumed is lost to us.
    db.execute("INSERT INTO t VALUES (1, 'lost')");
    db.execute(&format!("SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())"));
    replica.start();
    let error = replica.wait_failed();
    assert!(error.contains("has confirmed") && error.contains("is lost"), "{error}");
    replica.stop();
    db.execute(&format!("SELECT pg_drop_replication_slot('{SLOT}')"));
    replica.start();
    let error = replica.wait_failed();
    assert!(error.contains("does not exist on the primary any more"), "{error}");
}

#[test]
fn a_row_that_is_here_already_stops_replication_and_nothing_is_skipped() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    let mut replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t VALUES (1, 'theirs')");
    replica.wait_caught_up(&db);
    let branch = replica.branch();
    let mut apply = branch.begin_apply(false).unwrap();
    let table = apply.root().catalog().table_by_name("public", "t").unwrap().oid;
    apply.insert(table, vec![strandline_storage::Value::Int4(2), strandline_storage::Value::bytes("ours")]).unwrap();
    apply.commit(local_meta("a local row")).unwrap();
    db.execute("BEGIN; INSERT INTO t VALUES (3, 'same transaction'); INSERT INTO t VALUES (2, 'theirs'); COMMIT");
    let error = replica.wait_failed();
    assert!(error.contains("t_pkey") && error.contains("public.t"), "{error}");
    assert_eq!(*replica.picture("t"), ["1|theirs", "2|ours"], "nothing of the failed transaction");
    let mut apply = branch.begin_apply(false).unwrap();
    let key = apply.root().table(table).unwrap().key_prefix(None, &[strandline_storage::Value::Int4(2)]).unwrap();
    apply.delete(table, &key).unwrap();
    apply.commit(local_meta("out of the way")).unwrap();
    drop(branch);
    replica.restart();
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
}

#[test]
fn without_commits_changes_go_to_the_working_set_exactly_once() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'copied'); CREATE PUBLICATION {SLOT} FOR TABLE t"
    ));
    let mut replica = Replica::started(&primary, |config| config.commit_mode = CommitMode::WorkingSet);
    replica.wait_for(State::Streaming);
    for i in 2..30 {
        db.execute(&format!("INSERT INTO t VALUES ({i}, 'v'); UPDATE t SET v = 'u{i}' WHERE id = {i} - 1"));
        if i % 10 == 0 {
            replica.restart();
        }
    }
    replica.wait_caught_up(&db);
    let state = replica.branch().state();
    assert_eq!(picture_of(&state.working, "t"), picture(&db, "t"));
    assert_eq!(*picture_of(&state.head_root, "t"), ["no table"]);
    assert!(replica.replicated().is_empty());
    assert!(state.applied_to_working > Lsn(0), "data and position are one record");
}

#[test]
fn a_copy_whose_slot_was_never_made_is_made_again() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE PUBLICATION {SLOT} FOR TABLE t"
    ));
    let mut replica = Replica::started(&primary, |_| {});
    replica.wait_for(State::Streaming);
    replica.stop();
    assert_eq!(db.lines("SELECT slot_name FROM pg_replication_slots"), [SLOT], "no other slot is left");
    // As a crash between the base commit and the slot would leave it.
    db.execute(&format!("SELECT pg_drop_replication_slot('{SLOT}'); INSERT INTO t VALUES (2, 'b')"));
    let record = String::from_utf8(replica.store().get_state("replication/postgres/main/source").unwrap()).unwrap();
    replica.store().put_state("replication/postgres/main/source", Some(record.replace("streaming", "copied 0/1").as_bytes())).unwrap();
    std::fs::remove_file(Path::new(&replica.folder.path().join(".doltcfg/pg_wal_location"))).unwrap();
    replica.restart();
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t VALUES (3, 'c')");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
}
