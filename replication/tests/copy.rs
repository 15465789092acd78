//! The initial copy against a real primary: formats, parts, workers, and what fails.

mod support;

use std::ops::Bound;

use strandline_replication::{Config, State};
use strandline_storage::{Row, Value};
use strandline_tests::{Db, Primary, wait_until};
use support::{Replica, SLOT, utc};

/// Columns of every type whose binary form is decoded, with values that are easily got wrong; each line is one row's value of each column.
const TYPED: [(&str, [&str; 4]); 33] = [
    ("bool", ["true", "false", "NULL", "true"]),
    ("int2", ["-32768", "32767", "NULL", "0"]),
    ("int4", ["-2147483648", "2147483647", "NULL", "0"]),
    ("int8", ["-9223372036854775808", "9223372036854775807", "NULL", "0"]),
    ("oid", ["0", "4294967295", "NULL", "7"]),
    ("float4", ["'NaN'", "'-Infinity'", "'-0'", "1.17549435e-38"]),
    ("float8", ["'Infinity'::float8 - 'Infinity'::float8", "'Infinity'", "'-0'", "4.9e-324"]),
    ("numeric", ["'NaN'", "'-Infinity'", "-0.000000000000000000000012300", "123456789012345678901234567890.1234567890000"]),
    ("numeric(12,3)", ["99999.9995", "-1", "NULL", "0"]),
    ("money", ["'-92233720368547758.08'", "0", "NULL", "'12.34'"]),
    ("text", ["''", "E'tab\\t back\\\\ line\\n \\r ü 日本 \\x01'", "NULL", "'\\N'"]),
    ("varchar(5)", ["'ab   '", "'äöü日本'", "NULL", "''"]),
    ("char(6)", ["'ab'", "'äöü'", "NULL", "''"]),
    ("name", ["'n'", "'with space'", "NULL", "''"]),
    ("bytea", ["'\\x00ff0a5c'", "''", "NULL", "'\\x5c78'"]),
    ("date", ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'"]),
    ("time(3)", ["'00:00'", "'24:00'", "NULL", "'12:34:56.7895'"]),
    ("timetz", ["'00:00+15:59'", "'24:00-15:59:59'", "NULL", "'12:34:56.789012+02'"]),
    ("timestamp(2)", ["'infinity'", "'4713-01-01 00:00:00 BC'", "NULL", "'294276-12-31 23:59:59.99'"]),
    ("timestamptz", ["'-infinity'", "'1999-12-31 23:59:59.999999+05:30'", "NULL", "'2000-01-01 00:00:00+00'"]),
    ("interval", ["'-1 mons +2 days -03:04:05.000006'", "'178000000 years'", "NULL", "'0'"]),
    ("uuid", ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "NULL", "md5('x')::uuid"]),
    ("json", ["'{\"b\" : 1,  \"a\":[1,2 ]}'", "'null'", "NULL", "'\"\\u00fc\"'"]),
    ("jsonb", ["'{\"b\" : 1.50,  \"a\":[1,2 ], \"long key\": null}'", "'null'", "NULL", "'\"\\u00fc\"'"]),
    ("pg_lsn", ["'0/0'", "'FFFFFFFF/FFFFFFFF'", "NULL", "'16/B374D848'"]),
    ("int4[]", ["'{}'", "'[0:1][-1:0]={{1,NULL},{-3,4}}'", "NULL", "'{7}'"]),
    ("text[]", ["'{\"\",NULL,\"NULL\",\"a,b\",\"q\\\"\\\\\"}'", "'{}'", "NULL", "ARRAY[E'\\n']"]),
    ("numeric(6,2)[]", ["'{1,2.345,NaN}'", "'{}'", "NULL", "'{-0.001}'"]),
    ("inet", ["'10.1.2.3/8'", "'::1'", "NULL", "'::ffff:1.2.3.4/96'"]),
    ("macaddr", ["'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'", "NULL", "'00:00:00:00:00:00'"]),
    ("varbit", ["B'10101'", "B''", "NULL", "B'111111111'"]),
    ("numrange", ["'empty'", "'(,)'", "NULL", "'[1.50,2.0)'"]),
    ("tstzrange", ["'[2020-01-01 00:00+00,infinity)'", "'(,2020-01-01 00:00+00]'", "NULL", "'empty'"]),
];

fn rows(replica: &Replica, table: &str) -> Vec<Row> {
    let root = replica.branch().state().head_root;
    let oid = root.catalog().table_by_name("public", table).unwrap_or_else(|| panic!("no table {table}")).oid;
    let mut cursor = root.table(oid).unwrap().scan((Bound::Unbounded, Bound::Unbounded), false);
    std::iter::from_fn(|| cursor.next_row().unwrap().map(|(_, row)| row)).collect()
}

fn publish(db: &Db, sql: &str) {
    db.execute(sql);
    db.execute(&format!("CREATE PUBLICATION {SLOT} FOR ALL TABLES"));
}

/// Small batches of the test's data would all be one part: what is larger than 16 MiB is divided.
fn workers(config: &mut Config) {
    config.copy_workers = 3;
}

#[test]
fn values_are_the_same_bytes_from_either_format() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    let columns: Vec<String> = TYPED.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}")).collect();
    let mut sql = format!(
        "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE DOMAIN positive AS numeric(8,2) CHECK (VALUE > 0); CREATE DOMAIN twice AS positive;
         CREATE TABLE t_binary (id int PRIMARY KEY, {}, m mood, p twice);",
        columns.join(", ")
    );
    for row in 0..4 {
        let values: Vec<String> = TYPED.iter().map(|(name, values)| format!("({})::{name}", values[row])).collect();
        let mood = if row % 2 == 0 { "'it''s \"ok\"'" } else { "'sad'" };
        sql.push_str(&format!("INSERT INTO t_binary VALUES ({row}, {}, {mood}, {row} + 0.255);", values.join(", ")));
    }
    // A single column without a binary form here makes the whole table text.
    sql.push_str("CREATE TABLE t_text AS SELECT *, point '(1,2)' AS place FROM t_binary; ALTER TABLE t_text ADD PRIMARY KEY (id);");
    publish(&db, &sql);
    let replica = Replica::started(&primary, workers);
    replica.wait_for(State::Streaming);
    let (binary, text) = (rows(&replica, "t_binary"), rows(&replica, "t_text"));
    assert_eq!((binary.len(), text.len()), (4, 4));
    for (binary, text) in binary.iter().zip(&text) {
        for (at, (a, b)) in binary.iter().zip(text).enumerate() {
            let name = at.checked_sub(1).and_then(|at| TYPED.get(at)).map_or("id, enum or domain", |(name, _)| name);
            assert_eq!(a, b, "{name} of row {:?}", binary[0]);
        }
        assert_eq!(text.last(), Some(&Value::bytes("(1,2)")));
    }
    replica.assert_equal(&db, &["t_binary", "t_text"]);
}

#[test]
fn whatever_the_databases_defaults_are_values_arrive_as_they_are() {
    let primary = Primary::start(&[]);
    // This session began before they were set.
    let db = utc(&primary);
    publish(
        &db,
        "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('sad', 'ok'); CREATE TABLE public.mood (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, d date, ts timestamptz DEFAULT '2001-02-03 04:05:06+00', i interval, f float8, r real, b bytea, v text, m shop.mood DEFAULT 'sad', place point);
         INSERT INTO t VALUES (1, '2001-02-03', '2001-02-03 04:05:06.7+00', '-1 mons +2 days -03:04:05.6', 1 / 3.0, 1 / 3.0, '\\x5c00ff', 'ü日', 'ok', '(1,2)');
         INSERT INTO t (id, v) SELECT g, repeat('v', 100) FROM generate_series(2, 20000) g",
    );
    for setting in [
        "client_encoding = 'LATIN1'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -10",
        "timezone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "search_path = 'shop'",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
    ] {
        db.execute(&format!("ALTER DATABASE postgres SET {setting}"));
    }
    let replica = Replica::started(&primary, workers);
    replica.wait_for(State::Streaming);
    db.execute("INSERT INTO t SELECT -id, d, ts, i, f / 3, r / 3, b, v, m, place FROM t WHERE id = 1; UPDATE t SET d = d + 1 WHERE id = 1");
    // Its definition is read while the stream goes on.
    db.execute("CREATE TABLE later (id int PRIMARY KEY, m shop.mood, at date DEFAULT '2001-02-03'); INSERT INTO later VALUES (1, 'sad')");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t", "later"]);
    // Expressions name what they need with its schema.
    let root = replica.branch().state().head_root;
    let table = root.catalog().table_by_name("public", "t").unwrap();
    let default = table.columns.iter().find(|column| column.name == "m").and_then(|column| column.default.clone());
    assert_eq!(default.as_deref(), Some("'sad'::shop.mood"));
}

#[test]
fn a_column_of_another_type_here_takes_the_text() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    publish(&db, "CREATE TABLE t (id int PRIMARY KEY, d date, n int8); INSERT INTO t VALUES (1, '2000-01-02', 7), (2, NULL, -8)");
    let mut replica = Replica::new(&primary, workers);
    // Four bytes here and there, and another meaning: a date as a text, a bigint as a numeric.
    support::make_table(&replica, "t", &[("id", 23), ("d", 25), ("n", 1700)]);
    replica.start();
    replica.wait_for(State::Streaming);
    assert_eq!(*replica.picture("t"), ["1|2000-01-02|7", "2|\\N|-8"]);
}

#[test]
fn large_tables_are_copied_in_parts_whatever_order_their_rows_lie_in() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    publish(
        &db,
        "CREATE TABLE sorted (id int PRIMARY KEY, filler char(84) DEFAULT ''); INSERT INTO sorted SELECT g FROM generate_series(1, 170000) g;
         CREATE TABLE mixed (id uuid PRIMARY KEY, filler char(84) DEFAULT ''); INSERT INTO mixed SELECT md5(g::text)::uuid FROM generate_series(1, 150000) g;
         UPDATE sorted SET filler = 'late' WHERE id % 1000 = 0;
         CREATE TABLE keyless (n int, filler char(200) DEFAULT ''); INSERT INTO keyless SELECT g % 20000 FROM generate_series(1, 80000) g;
         DELETE FROM mixed WHERE id::text < '1';
         CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE none ();",
    );
    let replica = Replica::started(&primary, workers);
    replica.wait_for(State::Streaming);
    for table in ["sorted", "mixed", "keyless"] {
        assert!(db.value(&format!("SELECT pg_relation_size('{table}') > 16 * 1024 * 1024")) == "t", "{table} is one part");
    }
    replica.assert_equal(&db, &["sorted", "mixed", "keyless", "empty"]);
    let root = replica.branch().state().head_root;
    for table in root.catalog().tables() {
        root.table(table.oid).unwrap().verify().unwrap();
    }
    assert_eq!(replica.replicated().len(), 1, "one base commit");
    assert_eq!(replica.status().tables["public.keyless"].copied, 80_000);
}

#[test]
fn filters_and_column_lists_hold_in_every_part() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    db.execute(&format!(
        "CREATE TABLE f (id int PRIMARY KEY, hidden text, shown int, filler char(100) DEFAULT '', g int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO f SELECT g, 'h', g % 10 FROM generate_series(1, 150000) g;
         CREATE TABLE p (id int, k int, v char(120) DEFAULT '', PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5) TO (10);
         INSERT INTO p SELECT g, g % 10 FROM generate_series(1, 150000) g;
         CREATE TABLE parent (id int PRIMARY KEY, filler char(150)); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent SELECT g, '' FROM generate_series(1, 120000) g; INSERT INTO child VALUES (-1, 'child');
         CREATE PUBLICATION {SLOT} FOR TABLE f (id, shown) WHERE (id % 3 = 0), p WHERE (k <> 7), ONLY parent WITH (publish_via_partition_root = true)"
    ));
    let replica = Replica::started(&primary, workers);
    replica.wait_for(State::Streaming);
    let expected = |sql: &str| strandline_tests::sample::picture(&db, &format!("({sql}) x"));
    assert_eq!(replica.picture("f"), expected("SELECT id, shown FROM f WHERE id % 3 = 0"));
    assert_eq!(replica.picture("p"), expected("SELECT * FROM p WHERE k <> 7"));
    assert_eq!(replica.picture("parent"), expected("SELECT * FROM ONLY parent"));
}

#[test]
fn a_row_that_cannot_be_taken_fails_the_copy_and_leaves_nothing() {
    let primary = Primary::start(&[]);
    let db = utc(&primary);
    publish(
        &db,
        "CREATE TABLE a (id int PRIMARY KEY, filler char(200) DEFAULT ''); INSERT INTO a SELECT g FROM generate_series(1, 100000) g;
         CREATE TABLE b (id int, v text); INSERT INTO b VALUES (1, 'x'), (1, 'y');",
    );
    let mut replica = Replica::new(&primary, workers);
    support::make_table(&replica, "b", &[("id", 23), ("v", 25)]);
    replica.start();
    let error = replica.wait_failed();
    assert!(error.contains("could not copy table \"public.b\"") && error.contains("Key (id)=(1) already exists"), "{error}");
    assert!(replica.replicated().is_empty());
    // The primary may see a moment later that we have gone.
    wait_until(|| db.lines("SELECT slot_name FROM pg_replication_slots").is_empty(), || "no slot to be left".into());
    replica.stop();
    db.execute("TRUNCATE b; INSERT INTO b VALUES (1, 'x'), (2, 'y')");
    replica.restart();
    replica.wait_for(State::Streaming);
    replica.assert_equal(&db, &["a", "b"]);
}
