//! What PostgreSQL's own tests of types, collations and the binary form demand of a subscriber, with Strandline as the subscriber: the same situations and
//! outcomes, in our words. The numbers are those of its test scripts.

use strandline_tests::subscriptions::{create, make, subscriber, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, wait_until};

const TYPES: &str = "
    CREATE TYPE grade AS ENUM ('a', 'b', 'c', 'd', 'e');
    CREATE TYPE item AS (x float8, y text, z int);
    CREATE TYPE graded AS (x float8, y grade, z int);
    CREATE TYPE regraded AS (x float8, y grade[], z int);
    CREATE TYPE mixture AS (one item, many item[], kind grade, kinds grade[]);";

/// A table for each way in which the types are put together.
const TABLES: &str = "
    CREATE TABLE one_array (a int PRIMARY KEY, b int[]);
    CREATE TABLE arrays (a int[] PRIMARY KEY, b text[], c float8[], d interval[]);
    CREATE TABLE one_enum (a int PRIMARY KEY, b grade);
    CREATE TABLE enums (a grade PRIMARY KEY, b grade[]);
    CREATE TABLE one_composite (a int PRIMARY KEY, b item);
    CREATE TABLE composites (a item PRIMARY KEY, b item[]);
    CREATE TABLE enum_in_composite (a int PRIMARY KEY, b graded);
    CREATE TABLE enum_in_composites (a graded PRIMARY KEY, b graded[]);
    CREATE TABLE enums_in_composite (a int PRIMARY KEY, b regraded);
    CREATE TABLE enums_in_composites (a regraded PRIMARY KEY, b regraded[]);
    CREATE TABLE composites_in_composites (a mixture PRIMARY KEY, b mixture[]);
    CREATE TABLE one_range (a int PRIMARY KEY, b int4range);
    CREATE TABLE ranges (a int PRIMARY KEY, b tstzrange, c int8range[]);";

/// What only the primary can make: a type of an extension, and a domain whose check asks a function that reads the table.
const ONLY_THERE: &str = "
    CREATE EXTENSION hstore; CREATE TABLE pairs (a int PRIMARY KEY, b hstore);
    SET check_function_bodies = off;
    CREATE FUNCTION rises(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 > max(a) FROM public.rising';
    CREATE DOMAIN risen AS int CHECK (rises(VALUE));
    CREATE TABLE rising (a risen);";

const ROWS: [&str; 15] = [
    "INSERT INTO one_array VALUES (1, '{10,20,30}'), (2, '{20,30,10}'), (3, '{30,20,10}'), (4, '{40,30,20}'), (5, '{50,NULL,30}')",
    "INSERT INTO arrays VALUES ('{1,2,3}', '{k,l,m}', '{1.5,2.5,3.5}', '{1 day,2 days,3 days}'), ('{2,3,1}', '{l,m,k}', '{2.5,3.5,1.5}', '{2 minutes,3 minutes,1 minute}'),
        ('{3,1,2}', '{m,k,l}', '{3.5,1.5,2.5}', '{3 years,1 year,2 years}'), ('{4,1,2}', '{n,k,l}', '{4.5,1.5,2.5}', '{4 years,1 year,2 years}'),
        ('{5,NULL,NULL}', '{\"o \\\"q\\\"\",NULL,\"\"}', '{5.5,1.5,NULL}', '{5 years,NULL,NULL}')",
    "INSERT INTO one_enum VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, NULL)",
    "INSERT INTO enums VALUES ('a', '{b,c}'), ('b', '{c,a}'), ('c', '{b,a}'), ('d', '{c,b}'), ('e', '{d,NULL}')",
    "INSERT INTO one_composite SELECT g, ROW(g, 'v' || g, g)::item FROM generate_series(1, 4) g; INSERT INTO one_composite VALUES (5, ROW(NULL, NULL, 5))",
    "INSERT INTO composites SELECT ROW(g, chr(96 + g), g)::item, ARRAY[ROW(g, chr(96 + g), g)::item] FROM generate_series(1, 4) g;
     INSERT INTO composites VALUES (ROW(5, 'e, \"f\"', NULL), ARRAY[NULL, ROW(5, NULL, 5)::item])",
    "INSERT INTO enum_in_composite VALUES (1, ROW(1, 'a', 1)), (2, ROW(2, 'b', 2)), (3, ROW(3, 'c', 3)), (4, ROW(4, 'd', 4)), (5, ROW(NULL, 'e', NULL))",
    "INSERT INTO enum_in_composites SELECT ROW(g, (enum_range(NULL::grade))[g], g)::graded, ARRAY[ROW(3, (enum_range(NULL::grade))[g], 3)::graded, NULL] FROM generate_series(1, 5) g",
    "INSERT INTO enums_in_composite VALUES (1, ROW(1, '{a,b,c}', 1)), (2, ROW(2, '{a,b,c}', 2)), (3, ROW(3, '{a,b,c}', 3)), (4, ROW(4, '{c,b,d}', 4)), (5, ROW(5, '{NULL,e,NULL}', 5))",
    "INSERT INTO enums_in_composites VALUES (ROW(1, '{a,b,c}', 1), ARRAY[ROW(1, '{a,b,c}', 1)::regraded]), (ROW(2, '{b,c,a}', 2), ARRAY[ROW(2, '{b,c,a}', 1)::regraded]),
        (ROW(3, '{c,a,b}', 1), ARRAY[ROW(3, '{c,a,b}', 1)::regraded]), (ROW(5, '{c,NULL,b}', NULL), ARRAY[ROW(5, '{c,e,b}', 1)::regraded])",
    "INSERT INTO composites_in_composites SELECT ROW(ROW(g, 'a', 1), ARRAY[ROW(g, 'a', 1)::item, ROW(2, 'b', 2)::item], 'a', '{a,b,NULL,c}')::mixture,
        ARRAY[ROW(ROW(1, 'a', 1), ARRAY[ROW(1, 'a', 1)::item, NULL], 'a', '{a,b,c}')::mixture] FROM generate_series(1, 2) g",
    "INSERT INTO one_range VALUES (1, '[1,10]'), (2, '[2,20]'), (3, '[3,30]'), (4, '[4,40]'), (5, 'empty')",
    "INSERT INTO ranges VALUES (1, tstzrange('2014-08-04 00:00+02', 'infinity'), '{\"[1,2]\",\"[10,20]\"}'), (2, tstzrange('2014-08-02 00:00+02', '2014-08-04 00:00+02'), '{\"[2,3]\"}'),
        (3, tstzrange('2014-08-01 00:00+02', '2014-08-04 00:00+02'), '{\"[4,5]\",NULL,\"[40,50]\"}'), (4, tstzrange(NULL, '2014-07-31 00:00+02'), '{}'), (5, NULL, NULL)",
    "INSERT INTO pairs VALUES (1, 'one=>1'), (2, 'zzz=>foo'), (3, '\"123\"=>\"321\"'), (4, '\"yellow horse\"=>NULL')",
    "INSERT INTO rising VALUES (10)",
];

/// Every table, by its key, by a value of the type and by a part of one.
const UPDATES: &str = "
    UPDATE one_array SET b = '{4,5,6}' WHERE a = 1; UPDATE one_array SET b = '{4,5,6,1}' WHERE a > 3;
    UPDATE arrays SET b = '{1a,2b,3c}', c = '{1,2,3}', d = '{1 day 1 second,2 days 2 seconds}' WHERE a = '{1,2,3}'; UPDATE arrays SET c = '{3,4,5}' WHERE a[1] > 3;
    UPDATE one_enum SET b = 'c' WHERE a = 1; UPDATE one_enum SET b = NULL WHERE a > 3;
    UPDATE enums SET b = '{e,NULL}' WHERE a = 'a'; UPDATE enums SET b = '{e,d}' WHERE a > 'c';
    UPDATE one_composite SET b = ROW(1, 'A', 1) WHERE a = 1; UPDATE one_composite SET b = ROW(NULL, 'x', -1) WHERE a > 3;
    UPDATE composites SET b = ARRAY[ROW(9, 'x', -1)::item] WHERE (a).x = 1; UPDATE composites SET a = ROW(7, (a).y, 7), b = ARRAY[NULL, ROW(9, 'x', NULL)::item] WHERE (a).x > 4;
    UPDATE enum_in_composite SET b = ROW(1, NULL, NULL) WHERE a = 1; UPDATE enum_in_composite SET b = ROW(4, 'd', 44) WHERE a > 3;
    UPDATE enum_in_composites SET b = ARRAY[NULL, ROW(3, 'd', 3)::graded] WHERE a = ROW(1, 'a', 1)::graded; UPDATE enum_in_composites SET b = '{}' WHERE (a).x > 3;
    UPDATE enums_in_composite SET b = ROW(1, '{a,e,c}', NULL) WHERE a = 1; UPDATE enums_in_composite SET b = ROW(4, '{c,b,d}', 4) WHERE a > 3;
    UPDATE enums_in_composites SET b = ARRAY[NULL, ROW(NULL, '{a,e,c}', 2)::regraded] WHERE (a).x = 1; UPDATE enums_in_composites SET b = b || b WHERE (a).x > 3;
    UPDATE composites_in_composites SET b[2] = NULL WHERE ((a).one).x = 1;
    UPDATE one_range SET b = '[100,1000]' WHERE a = 1; UPDATE one_range SET b = '(1,90)' WHERE a > 3;
    UPDATE ranges SET c = '{\"[100,1000]\"}' WHERE a = 1; UPDATE ranges SET b = tstzrange('2014-08-04 00:00+02', 'infinity'), c = '{NULL,\"[11,9999999]\"}' WHERE a > 3;
    UPDATE pairs SET b = 'updated=>value' WHERE a < 3; UPDATE pairs SET b = '\"also\"=>\"updated\"' WHERE a = 3;";

const DELETIONS: &str = "
    DELETE FROM one_array WHERE a = 1; DELETE FROM one_array WHERE b = '{20,30,10}';
    DELETE FROM arrays WHERE a = '{1,2,3}'; DELETE FROM arrays WHERE a[1] = 2;
    DELETE FROM one_enum WHERE a = 1; DELETE FROM one_enum WHERE b = 'b';
    DELETE FROM enums WHERE a = 'a'; DELETE FROM enums WHERE b[1] = 'b';
    DELETE FROM one_composite WHERE a = 1; DELETE FROM one_composite WHERE (b).x = 2;
    DELETE FROM composites WHERE (a).y = 'a'; DELETE FROM composites WHERE ROW(3, 'c', 3)::item = ANY (b);
    DELETE FROM enum_in_composite WHERE a = 1; DELETE FROM enum_in_composite WHERE (b).x = 2;
    DELETE FROM enum_in_composites WHERE a = ROW(1, 'a', 1)::graded; DELETE FROM enum_in_composites WHERE ROW(3, 'c', 3)::graded = ANY (b);
    DELETE FROM enums_in_composite WHERE a = 1; DELETE FROM enums_in_composite WHERE 'a' = ANY ((b).y);
    DELETE FROM enums_in_composites WHERE (a).x = 1; DELETE FROM enums_in_composites WHERE (b[1]).y = '{c,a,b}';
    DELETE FROM composites_in_composites WHERE ((a).one).x = 1;
    DELETE FROM one_range WHERE a = 1; DELETE FROM one_range WHERE '[60,70]' && b;
    DELETE FROM ranges WHERE a = 1; DELETE FROM ranges WHERE tstzrange('2014-08-04 00:00+02', '2014-08-05 00:00+02') && b;
    DELETE FROM pairs WHERE a = 1;
    INSERT INTO rising VALUES (11);";

/// Names of the tables that such statements make.
fn tables_of(sql: &str) -> impl Iterator<Item = &str> {
    sql.split("CREATE TABLE ").skip(1).filter_map(|rest| rest.split(' ').next())
}

/// All rows of a table as text, sorted.
fn rows(db: &Db, table: &str) -> Vec<String> {
    let mut rows = db.lines(&format!("SELECT * FROM {table}"));
    rows.sort();
    rows
}

/// 002. Tables made by hand on one branch, and tables that were created from the primary's catalog on another.
#[test]
fn values_of_all_kinds_of_types_arrive() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(&format!("{TYPES}{TABLES}{ONLY_THERE}"));
    source.execute("CREATE PUBLICATION everything FOR ALL TABLES");
    let by_hand: Vec<&str> = tables_of(TABLES).collect();
    source.execute(&format!("CREATE PUBLICATION for_hand FOR TABLE {}", by_hand.join(", ")));
    let replica = subscriber();
    let db = replica.db();
    db.execute("SELECT dolt_branch('created')");
    make(&db, &format!("{TYPES}{TABLES}"));
    let created = replica.try_db("postgres/created").unwrap();
    create(&db, &primary, "for_hand", "PUBLICATION for_hand");
    create(&created, &primary, "for_created", "PUBLICATION everything");
    let all: Vec<&str> = by_hand.iter().copied().chain(tables_of(ONLY_THERE)).collect();
    assert_eq!(all.len(), ROWS.len());
    for db in [&source, &db, &created] {
        db.execute("SET timezone = 'Europe/Berlin'");
    }
    let expect = |row_counts: &[usize], what: &str| {
        wait_for_subscription(&replica, &primary, &source, "for_hand");
        wait_for_subscription(&replica, &primary, &source, "for_created");
        for (table, count) in all.iter().zip(row_counts) {
            let theirs = rows(&source, table);
            assert_eq!(theirs.len(), *count, "{what}: {table} on the primary");
            assert_eq!(rows(&created, table), theirs, "{what}: {table}, created");
            if by_hand.contains(table) {
                assert_eq!(rows(&db, table), theirs, "{what}: {table}, made by hand");
            }
        }
    };
    expect(&[0; 15], "nothing");
    for statement in ROWS {
        source.execute(statement);
    }
    expect(&[5, 5, 5, 5, 5, 5, 5, 5, 5, 4, 2, 5, 5, 4, 1], "insertions");
    source.execute(UPDATES);
    expect(&[5, 5, 5, 5, 5, 5, 5, 5, 5, 4, 2, 5, 5, 4, 1], "updates");
    source.execute(DELETIONS);
    expect(&[3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 1, 2, 2, 3, 2], "deletions");
    assert_eq!(created.value("SELECT sum(a) FROM rising"), "21", "the check of the domain is the primary's affair");
    // What the copy reads is the same as what the stream brings.
    db.execute("SELECT dolt_branch('copied', 'created')");
    let copied = replica.try_db("postgres/copied").unwrap();
    make(&copied, &all.iter().map(|table| format!("DROP TABLE {table};")).collect::<String>());
    create(&copied, &primary, "for_copied", "PUBLICATION everything");
    wait_for_subscription(&replica, &primary, &source, "for_copied");
    copied.execute("SET timezone = 'Europe/Berlin'");
    for table in &all {
        assert_eq!(rows(&copied, table), rows(&source, table), "copied: {table}");
    }
    // The domain's check needs a function, which cannot be here, and that is told.
    let complaints = replica.complaints();
    assert!(complaints.iter().all(|line| line.contains("public.risen") && line.contains("public.rises")), "{complaints:?}");
}

/// 012, as far as it can apply: strings are equal here when their bytes are, so a row is found where PostgreSQL's deterministic collations find it.
#[test]
fn keys_of_any_collation_are_found_by_their_bytes() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    // One word in two normal forms: equal to the primary in `loose`.
    source.execute(
        "CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false);
         CREATE TABLE by_key (a text COLLATE loose PRIMARY KEY, b text); INSERT INTO by_key VALUES (U&'\\00E4bc', 'foo');
         CREATE TABLE by_row (a text COLLATE loose, b text); ALTER TABLE by_row REPLICA IDENTITY FULL; INSERT INTO by_row VALUES (U&'\\00E4bc', 'foo');
         CREATE TABLE strict (a text COLLATE \"de-x-icu\" PRIMARY KEY, b text); INSERT INTO strict VALUES (U&'\\00E4bc', 'composed'), (U&'a\\0308bc', 'decomposed');
         CREATE PUBLICATION pub1 FOR ALL TABLES",
    );
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "sub1", "PUBLICATION pub1");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    // Found by the other form there; the stream tells the row as it is.
    source.execute("UPDATE by_key SET b = 'bar' WHERE a = U&'a\\0308bc'; UPDATE by_row SET b = 'bar' WHERE a = U&'a\\0308bc'");
    source.execute("UPDATE strict SET b = 'changed' WHERE a = U&'a\\0308bc'");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    let bytes = |db: &Db, table: &str| rows(db, &format!("(SELECT encode(convert_to(a, 'UTF8'), 'hex'), b FROM {table}) t"));
    assert_eq!(bytes(&db, "by_key"), ["c3a46263|bar"]);
    assert_eq!(bytes(&db, "by_row"), ["c3a46263|bar"]);
    assert_eq!(bytes(&db, "strict"), ["61cc886263|changed", "c3a46263|composed"]);
    // A key that the primary takes for the same one, in other bytes.
    source.execute("UPDATE by_key SET a = U&'a\\0308bc'; UPDATE by_row SET a = U&'a\\0308bc'");
    wait_for_subscription(&replica, &primary, &source, "sub1");
    for table in ["by_key", "by_row", "strict"] {
        assert_eq!(bytes(&db, table), bytes(&source, table), "{table}");
    }
    source.execute(
        "DELETE FROM by_key WHERE a = U&'\\00E4bc'; DELETE FROM by_row WHERE a = U&'\\00E4bc'; DELETE FROM strict WHERE a = U&'\\00E4bc'",
    );
    wait_for_subscription(&replica, &primary, &source, "sub1");
    assert_eq!(db.lines("SELECT (SELECT count(*) FROM by_key), (SELECT count(*) FROM by_row), (SELECT b FROM strict)"), ["0|0|changed"]);
    assert_eq!(db.sqlstate("CREATE COLLATION ours (provider = icu, locale = 'und', deterministic = false)"), "0A000");
    assert_eq!(replica.complaints(), [""; 0]);
}

fn last_error(db: &Db) -> String {
    db.lines("SELECT last_error FROM pg_stat_subscription").concat()
}

fn wait_for_error(replica: &Replica, db: &Db, part: &str) {
    wait_until(|| last_error(db).contains(part), || format!("\"{part}\" in: {}\n{}", last_error(db), replica.log()));
}

/// 014: values in their binary form, back to text and forth, and types that do not fit in it.
#[test]
fn values_arrive_in_their_binary_form() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE test_numerical (a int PRIMARY KEY, b numeric, c float8, d bigint); CREATE TABLE test_arrays (a int[] PRIMARY KEY, b numeric[], c text[]);
         INSERT INTO test_numerical VALUES (1, 1.2, 1.3, 10), (2, 2.2, 2.3, 20);
         INSERT INTO test_arrays VALUES ('{1,2,3}', '{1.1,1.2,1.3}', '{one,two,three}'), ('{3,1,2}', '{1.3,1.1,1.2}', '{three,one,two}');
         CREATE PUBLICATION tpub FOR ALL TABLES",
    );
    let replica = subscriber();
    let db = replica.db();
    create(&db, &primary, "tsub", "PUBLICATION tpub WITH (slot_name = tpub_slot, binary = true)");
    let same = |tables: &[&str], what: &str| {
        wait_for_subscription(&replica, &primary, &source, "tpub_slot");
        for table in tables {
            assert_eq!(rows(&db, table), rows(&source, table), "{what}: {table}");
        }
    };
    let tables = ["test_numerical", "test_arrays"];
    same(&tables, "copied");
    assert_eq!(db.value("SELECT subbinary FROM pg_subscription"), "t");
    source.execute(
        "INSERT INTO test_arrays VALUES ('{2,1,3}', '{1.2,1.1,1.3}', '{two,one,three}'), ('{1,3,2}', '{NaN,-1e-30,12345678901234567890}', '{NULL,\"\"}');
         INSERT INTO test_numerical VALUES (3, 3.2, 3.3, 30), (4, -0.00001, 'Infinity', -9223372036854775808)",
    );
    same(&tables, "inserted");
    source.execute("UPDATE test_arrays SET b[1] = 42, c = NULL; UPDATE test_numerical SET b = 42, c = NULL; UPDATE test_numerical SET a = 40 WHERE a = 4");
    same(&tables, "updated");
    // To text and back.
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = false)");
    source.execute("INSERT INTO test_numerical VALUES (5, 5.2, 5.3, 50)");
    same(&tables, "in text");
    assert_eq!(db.value("SELECT subbinary FROM pg_subscription"), "f");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = true)");
    source
        .execute("INSERT INTO test_arrays VALUES ('{2,3,1}', '{1.2,1.3,1.1}', '{two,three,one}'); DELETE FROM test_numerical WHERE a = 2");
    same(&tables, "in binary again");
    assert_eq!(replica.complaints(), [""; 0]);

    // All other types, too: those that have a binary form here, and those that the primary sends as text.
    source.execute(&format!(
        "{TYPES} CREATE TABLE several (a int PRIMARY KEY, b boolean, c \"char\", d name, e bytea, f date, g time, h timetz, i timestamp, j timestamptz, k interval, l uuid, m json, n jsonb,
         o inet, p cidr, q macaddr, r bit varying, s oid, t pg_lsn, u real, v smallint, w char(5), x grade, y int4range, z int[]);
         INSERT INTO several VALUES (0)"
    ));
    db.execute("ALTER SUBSCRIPTION tsub REFRESH PUBLICATION");
    same(&["several"], "copied");
    source.execute(
        r#"INSERT INTO several VALUES (1, true, 'x', 'a name', '\x0001ff', '2026-11-21', '12:34:56.789', '12:34:56+02', '2026-11-21 12:34:56.789', 'infinity', '1 mon -2 days 03:04:05.6',
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', '{"b": [1, null], "a": 1.50}', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', B'10110', 4294967295, '16/B374D848',
         1.5e-30, -32768, 'ab', 'c', '[1,9]', '{1,NULL,-3}')"#,
    );
    same(&["several"], "all types");
    source.execute("UPDATE several SET a = 2, e = '', n = NULL, y = 'empty' WHERE a = 1; DELETE FROM several WHERE a = 0");
    same(&["several"], "all types, updated");

    // Another type here: nothing is taken for what it is not, and as text it fits.
    source.execute("CREATE TABLE mismatching (a bigint PRIMARY KEY, b timestamptz); CREATE TABLE confusable (a int PRIMARY KEY, b bigint)");
    make(
        &db,
        "CREATE TABLE mismatching (a int PRIMARY KEY, b timestamptz); CREATE TABLE confusable (a int PRIMARY KEY, b double precision)",
    );
    db.execute("ALTER SUBSCRIPTION tsub REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &source, "tpub_slot");
    source.execute("INSERT INTO mismatching VALUES (1), (2)");
    wait_for_error(&replica, &db, "public.mismatching");
    assert!(last_error(&db).contains("column \"a\"") && last_error(&db).contains("binary"), "{}", last_error(&db));
    assert_eq!(db.value("SELECT count(*) FROM mismatching"), "0");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = false)");
    same(&["mismatching"], "in text");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = true)");
    source.execute("INSERT INTO confusable VALUES (1, 4607182418800017408)");
    wait_for_error(&replica, &db, "public.confusable");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = false)");
    wait_for_subscription(&replica, &primary, &source, "tpub_slot");
    assert_eq!(db.lines("SELECT a, b FROM confusable"), ["1|4.6071824188000174e+18"]);
    // What is kept as its text here cannot be read in binary, and says so.
    source.execute(
        "CREATE TABLE composite (a int PRIMARY KEY, b item, c grade[]); INSERT INTO composite VALUES (1, ROW(1, 'x', 2), '{a,NULL}')",
    );
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = true); ALTER SUBSCRIPTION tsub REFRESH PUBLICATION");
    same(&["composite"], "copied");
    source.execute("INSERT INTO composite (a, c) VALUES (2, '{b}')");
    wait_for_error(&replica, &db, "\"public.composite\" (transaction");
    assert!(last_error(&db).contains("column \"c\""), "an array of a type that has another oid here: {}", last_error(&db));
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = false)");
    same(&["composite"], "in text");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = true)");
    source.execute("INSERT INTO composite VALUES (3, ROW(2, 'y', 3))");
    wait_for_error(&replica, &db, "column \"b\"");
    db.execute("ALTER SUBSCRIPTION tsub SET (binary = false)");
    same(&["composite"], "in text");
}
