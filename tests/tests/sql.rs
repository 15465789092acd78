//! The same text to a real PostgreSQL and to us: rows, names, types and SQLSTATEs must be equal.

use futures::StreamExt;
use strandline_tests::{Db, Primary, Replica, replica::Options};

const SETUP: &str = r#"
CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL, boss int, born date, salary numeric(10,2), tags text[], info jsonb);
INSERT INTO person VALUES
 (1, 'Ada', NULL, '1815-12-10', 5000.00, '{math,code}', '{"likes": ["tea"], "n": 1}'),
 (2, 'Grace', 1, '1906-12-09', 4200.50, '{code,navy}', '{"likes": [], "n": 2}'),
 (3, 'Edsger', 1, '1930-05-11', 3900.00, NULL, NULL),
 (4, 'Linus', 2, '1969-12-28', NULL, '{}', '{"n": null}'),
 (5, 'it''s "q"', 2, NULL, 0.10, '{"a,b",NULL}', '[1, 2.50, "x"]');
CREATE TABLE sale (id bigserial PRIMARY KEY, person int, item varchar(20), amount int DEFAULT 1, price float8, at timestamptz);
INSERT INTO sale (person, item, amount, price, at) SELECT i % 6, 'item ' || i % 4, i, i / 8.0, timestamptz '2024-01-01 00:00:00+00' + i * interval '7 hours' FROM generate_series(1, 40) i;
CREATE TABLE "Mixed Case" ("Id" int PRIMARY KEY, "select" text DEFAULT 'd');
INSERT INTO "Mixed Case" VALUES (1, 'one'), (2, NULL);
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
"#;

/// Queries whose answers must be equal, or whose errors must have equal SQLSTATEs.
const QUERIES: &[&str] = &[
    "SELECT 1",
    "SELECT 1 AS a, 'x', NULL, 1.50, true, 'y'::text, -7",
    "SELECT 7 / 2, 7 % 3, -7 / 2, 7.0 / 2, 2 ^ 10, 5 & 3, 5 | 3, 5 # 3, ~5, 1 << 4",
    "SELECT 2147483647 + 1",
    "SELECT 9223372036854775807 + 1",
    "SELECT 1 / 0",
    "SELECT 1.0 / 0",
    "SELECT 0.1 + 0.2, 1e10::numeric / 3, round(2.5), round(-2.5), round(2.567, 2), trunc(2.9), 10 / 4.0",
    "SELECT 0.1::float8 + 0.2::float8, 1e300 * 10::float8, 'NaN'::float8, '-Infinity'::float4, 1::float4 / 3",
    "SELECT 'abc' || 'def', 'a' || 1, upper('straße'), lower('ÀB'), length('日本'), octet_length('日本'), substr('hello', 2, 3), substring('hello' from 2 for 2)",
    "SELECT trim('  x '), ltrim('xxa', 'x'), rtrim('axx', 'x'), lpad('7', 3, '0'), rpad('7', 3, '-'), repeat('ab', 3), reverse('abc'), replace('aXbX', 'X', '--')",
    "SELECT position('l' in 'hello'), strpos('hello', 'l'), split_part('a,b,c', ',', 2), left('hello', 2), right('hello', 2), initcap('hello world'), ascii('A'), chr(66)",
    "SELECT concat('a', NULL, 1), concat_ws('-', 'a', NULL, 'b'), quote_ident('a b'), quote_literal('it''s'), md5('x'), format('%s-%I-%L', 'a', 'b c', 'd''e')",
    "SELECT 'abc' LIKE 'a%', 'abc' ILIKE 'A_C', 'abc' ~ '^a.c$', 'ABC' ~* 'abc', 'abc' !~ 'x', 'abc' NOT LIKE 'b%', 'a%c' LIKE 'a\\%c'",
    "SELECT regexp_replace('foobar', 'o+', 'X'), regexp_replace('aaa', 'a', 'b', 'g'), regexp_match('foo123', '([a-z]+)([0-9]+)'), starts_with('abc', 'ab')",
    "SELECT CASE WHEN 1 = 1 THEN 'yes' ELSE 'no' END, CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, COALESCE(NULL, 3), NULLIF(1, 1), GREATEST(1, 3, 2), LEAST('b', 'a')",
    "SELECT NULL = NULL, NULL IS NULL, 1 IS DISTINCT FROM NULL, NULL IS NOT DISTINCT FROM NULL, true AND NULL, false AND NULL, true OR NULL, NOT NULL::bool",
    "SELECT 1 IN (1, 2), 3 NOT IN (1, 2), NULL IN (1), 1 IN (2, NULL), 2 BETWEEN 1 AND 3, 2 BETWEEN SYMMETRIC 3 AND 1, 5 = ANY (ARRAY[1, 5]), 5 <> ALL ('{1,2}')",
    "SELECT '42'::int, '3.7'::numeric::int, 3.5::int, 2.5::float8::int, 'yes'::bool, 1::bool, true::int, 65::text, '2020-02-29'::date, 'x'::varchar(3), 'abcdef'::varchar(3)",
    "SELECT 'abc'::int",
    "SELECT '99999999999'::int",
    "SELECT '2020-02-30'::date",
    "SELECT date '2024-03-31' - date '2024-01-01', date '2024-01-31' + 1, date '2024-01-31' + interval '1 month', timestamp '2024-01-01 12:00' - timestamp '2023-12-31 11:30'",
    "SELECT extract(year FROM date '2024-05-06'), extract(epoch FROM timestamptz '2024-01-01 00:00:00+00'), date_part('dow', date '2024-05-06'), date_trunc('month', timestamp '2024-05-06 07:08:09')",
    "SELECT interval '1 day 2 hours' * 2, interval '90 minutes', interval '1 month' + interval '1 day', age(timestamp '2024-05-06', timestamp '2020-02-29'), justify_hours(interval '30 hours')",
    "SELECT to_char(timestamp '2024-05-06 07:08:09', 'YYYY-MM-DD HH24:MI:SS'), to_char(1234.5, 'FM9999.00'), to_date('2024/05/06', 'YYYY/MM/DD'), make_date(2024, 5, 6)",
    "SELECT timestamptz '2024-07-01 12:00:00+02', timestamptz '2024-07-01 12:00:00+02' AT TIME ZONE 'Europe/Zurich', timestamp '2024-07-01 12:00' AT TIME ZONE 'UTC'",
    "SELECT ARRAY[1, 2, 3], ARRAY['a', NULL], (ARRAY[1, 2, 3])[2], array_length(ARRAY[1, 2], 1), cardinality(ARRAY[1, 2]), ARRAY[1] || 2, array_append('{1}'::int[], 2), '{1,2}'::int[] @> '{2}'",
    "SELECT array_to_string(ARRAY['a', 'b'], '-'), string_to_array('a-b', '-'), array_position(ARRAY['x', 'y'], 'y'), unnest(ARRAY[1, 2])",
    "SELECT '{\"a\": {\"b\": [1, 2]}}'::jsonb -> 'a' -> 'b' ->> 1, '{\"a\": 1}'::jsonb ->> 'a', '{\"a\": {\"b\": 2}}'::jsonb #>> '{a,b}', '{\"a\": 1}'::jsonb @> '{\"a\": 1}', '{\"a\": 1}'::jsonb ? 'a'",
    "SELECT jsonb_build_object('k', 1, 'l', ARRAY[1, 2]), to_jsonb('x'::text), jsonb_typeof('[1]'), jsonb_array_length('[1, 2]'), '{\"b\":1, \"a\":2}'::jsonb, '{\"b\":1}'::json",
    "SELECT count(*), sum(id), avg(id), min(name), max(born), sum(salary), avg(salary) FROM person",
    "SELECT sum(price), avg(price), count(price), min(at), max(at), sum(amount), avg(amount), stddev(amount), variance(amount) FROM sale",
    "SELECT count(*) FROM person WHERE false",
    "SELECT sum(id) FROM person WHERE false",
    "SELECT bool_and(id > 0), bool_or(id > 4), every(id > 1), string_agg(name, ',' ORDER BY id), array_agg(id ORDER BY id DESC) FROM person",
    "SELECT count(DISTINCT boss), count(boss), count(*) FILTER (WHERE boss IS NULL) FROM person",
    "SELECT * FROM person ORDER BY id",
    "SELECT p.*, p.id * 2 AS twice FROM person p WHERE p.id > 2 ORDER BY name DESC",
    "SELECT person, count(*), sum(amount) FROM sale GROUP BY person ORDER BY person",
    "SELECT item, avg(price) FROM sale GROUP BY 1 HAVING count(*) > 5 ORDER BY 2 DESC, 1",
    "SELECT person % 2 AS odd, max(amount) FROM sale GROUP BY odd ORDER BY odd",
    "SELECT item, person, count(*) FROM sale GROUP BY ROLLUP (item, person) ORDER BY item NULLS LAST, person NULLS FIRST",
    "SELECT name FROM person GROUP BY id ORDER BY name",
    "SELECT name, count(*) FROM person",
    "SELECT p.name, s.item FROM person p JOIN sale s ON s.person = p.id WHERE s.amount > 35 ORDER BY s.id",
    "SELECT p.name, b.name AS boss FROM person p LEFT JOIN person b ON b.id = p.boss ORDER BY p.id",
    "SELECT p.name, s.id FROM sale s RIGHT JOIN person p ON p.id = s.person AND s.amount < 4 ORDER BY p.id, s.id",
    "SELECT a.id, b.id FROM person a FULL JOIN person b ON a.id = b.id + 3 ORDER BY a.id, b.id",
    "SELECT count(*) FROM person, sale",
    "SELECT count(*) FROM person CROSS JOIN sale",
    "SELECT id, name FROM person JOIN sale USING (id) ORDER BY id",
    "SELECT count(*) FROM person NATURAL JOIN keyless",
    "SELECT name FROM person WHERE id IN (SELECT person FROM sale WHERE amount > 30) ORDER BY id",
    "SELECT name FROM person WHERE id NOT IN (SELECT boss FROM person WHERE boss IS NOT NULL) ORDER BY id",
    "SELECT name FROM person WHERE id NOT IN (SELECT boss FROM person)",
    "SELECT name FROM person p WHERE EXISTS (SELECT 1 FROM person q WHERE q.boss = p.id) ORDER BY id",
    "SELECT name, (SELECT count(*) FROM sale s WHERE s.person = p.id) FROM person p ORDER BY id",
    "SELECT name, (SELECT s.item FROM sale s WHERE s.person = p.id ORDER BY s.amount DESC LIMIT 1) FROM person p ORDER BY id",
    "SELECT (SELECT id FROM person)",
    "SELECT salary > ALL (SELECT salary FROM person WHERE id > 2 AND salary IS NOT NULL) FROM person ORDER BY id",
    "SELECT p.name, l.item FROM person p, LATERAL (SELECT item FROM sale s WHERE s.person = p.id ORDER BY amount DESC LIMIT 2) l ORDER BY 1, 2",
    "SELECT ARRAY(SELECT id FROM person ORDER BY id DESC)",
    "WITH rich AS (SELECT * FROM person WHERE salary > 1000) SELECT r.name, count(s.id) FROM rich r LEFT JOIN sale s ON s.person = r.id GROUP BY r.name ORDER BY 1",
    "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT sum(n), count(*) FROM t",
    "WITH RECURSIVE chain AS (SELECT id, name, 0 AS depth FROM person WHERE boss IS NULL UNION ALL SELECT p.id, p.name, depth + 1 FROM person p JOIN chain c ON p.boss = c.id) SELECT * FROM chain ORDER BY depth, id",
    "SELECT 1 UNION SELECT 2 UNION SELECT 1 ORDER BY 1",
    "SELECT 1 UNION ALL SELECT 2.5 ORDER BY 1",
    "SELECT id FROM person INTERSECT SELECT boss FROM person ORDER BY 1",
    "SELECT id FROM person EXCEPT SELECT boss FROM person ORDER BY 1",
    "SELECT a FROM keyless EXCEPT ALL SELECT 1",
    "SELECT a FROM keyless INTERSECT ALL SELECT a FROM keyless ORDER BY 1",
    "SELECT DISTINCT boss FROM person ORDER BY boss",
    "SELECT DISTINCT ON (person) person, item, amount FROM sale ORDER BY person, amount DESC",
    "SELECT id FROM person ORDER BY id LIMIT 2 OFFSET 1",
    "SELECT id FROM person ORDER BY born NULLS FIRST, id FETCH FIRST 2 ROWS ONLY",
    "SELECT id FROM person ORDER BY salary DESC",
    "SELECT id, row_number() OVER (ORDER BY id DESC), rank() OVER (ORDER BY boss), lag(name) OVER (ORDER BY id), sum(id) OVER (PARTITION BY boss ORDER BY id) FROM person ORDER BY id",
    "SELECT amount, sum(amount) OVER (ORDER BY amount ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING), first_value(item) OVER w, ntile(3) OVER w FROM sale WINDOW w AS (ORDER BY amount) ORDER BY amount LIMIT 5",
    "SELECT * FROM generate_series(1, 3) g, generate_series(g, 3) h ORDER BY 1, 2",
    "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, t) ORDER BY n",
    "VALUES (1, 'x'), (2, NULL)",
    "SELECT * FROM \"Mixed Case\" ORDER BY \"Id\"",
    "SELECT * FROM keyless ORDER BY a, b",
    "SELECT tags[1], info ->> 'n', array_length(tags, 1) FROM person ORDER BY id",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount), mode() WITHIN GROUP (ORDER BY item) FROM sale",
    "SELECT date_trunc('week', at) AS week, count(*) FROM sale GROUP BY week ORDER BY week",
    "SELECT current_database(), current_schema(), current_user = session_user, 'person'::regclass::text",
    "SELECT -2147483648, - 32768, -9223372036854775808, 2147483648",
    "SELECT 7::int2::oid, (-1)::int2::oid, 1259::int2::regclass, '1 2'::int2vector, '3 4'::oidvector, '(0,1)'::tid",
    "SELECT '1 x'::int2vector",
    "SELECT 'x'::tid",
    "SELECT 'a' || true, false || 'b'",
    "SELECT 'abc' LIKE 'abc\\', 'ab' LIKE 'b\\'",
    "SELECT 'abcd' LIKE 'abc\\'",
    "SELECT row(NULL, NULL) IS NULL, row(1, NULL) IS NULL, row(1, NULL) IS NOT NULL, row(1, 2) IS NOT NULL",
    "SELECT p.id, q IS NULL, q IS NOT NULL FROM person p LEFT JOIN person q ON q.id = p.boss ORDER BY p.id",
    "SELECT 1.25::numeric(4,1)::numeric, 'ab'::varchar(2)::varchar, B'1011'::bit(2), B'1'::bit(3), B'1011'::varbit(2)",
    "SELECT string_agg(DISTINCT item, '-' ORDER BY item) FROM sale",
    "SELECT string_agg(DISTINCT item, '-' ORDER BY id) FROM sale",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT * FROM t LIMIT 5",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT (n + 1) % 7 FROM t) SELECT a.n, b.n FROM t a JOIN t b ON b.n = a.n + 1 ORDER BY 1",
    "SELECT statement_timestamp() >= now(), clock_timestamp() >= statement_timestamp()",
    "SELECT chr(-1)",
    "SELECT interval '99999999999 years'",
    "SELECT width_bucket(5, 1, 9, 0)",
    "SELECT row_number()",
    "SELECT count(pg_advisory_unlock_all()) FROM keyless",
    "COPY keyless TO STDOUT (FORMAT csv, FORMAT csv)",
    "COPY keyless TO STDOUT (NONSENSE)",
    "SET client_encoding TO '''utf-8'''",
    "SHOW client_encoding",
    "SET client_encoding TO 'nonsense'",
    "SHOW transaction_read_only",
    "UNLISTEN *",
    "SELECT nope FROM person",
    "SELECT * FROM nope",
    "SELECT p.nope FROM person p",
    "SELECT nofunction(1)",
    "SELECT 'a' + 1",
    "SELECT id FROM person WHERE name",
    "SELECT * FROM person WHERE id = 'x'",
    "SELECT id, id FROM person JOIN sale ON person.id = sale.id WHERE id = 1",
    "SELEC 1",
    "SELECT * FROM person ORDER BY 99",
    "SELECT id FROM person LIMIT -1",
    "INSERT INTO person (id, name) VALUES (1, 'again')",
    "INSERT INTO person (id) VALUES (77)",
    "INSERT INTO person (id, name) VALUES (1)",
    "INSERT INTO person VALUES ('x', 'y')",
    "INSERT INTO sale (item) VALUES ('this text is longer than twenty characters')",
    "UPDATE person SET nope = 1",
    "DELETE FROM nope",
    "CREATE TABLE person (id int)",
    "DROP TABLE nope",
    "DROP TABLE IF EXISTS nope",
    "ALTER TABLE person ADD COLUMN name text",
    "ALTER TABLE person DROP COLUMN nope",
    "INSERT INTO person (id, name) VALUES (6, 'new') RETURNING id, name, salary",
    "UPDATE person SET salary = salary * 2 WHERE id = 6 OR id = 3 RETURNING id, salary",
    "UPDATE person SET salary = s.total FROM (SELECT person, sum(amount) AS total FROM sale GROUP BY person) s WHERE s.person = person.id AND person.id < 3 RETURNING person.id, salary",
    "UPDATE person SET name = 'in' WHERE id IN (SELECT person FROM sale WHERE amount = 3) RETURNING id",
    "INSERT INTO person (id, name) VALUES (6, 'conflict') ON CONFLICT (id) DO UPDATE SET name = excluded.name || '!' RETURNING name",
    "INSERT INTO person (id, name) VALUES (6, 'conflict') ON CONFLICT DO NOTHING RETURNING name",
    "INSERT INTO \"Mixed Case\" (\"Id\") SELECT g FROM generate_series(10, 12) g RETURNING *",
    "DELETE FROM person WHERE id = 6 RETURNING name",
    "DELETE FROM sale USING person WHERE sale.person = person.id AND person.name = 'Ada' RETURNING sale.id",
    "SELECT count(*), sum(salary) FROM person",
    "INSERT INTO sale (person, item) VALUES (1, 'serial') RETURNING id, amount",
    "ALTER TABLE \"Mixed Case\" ADD COLUMN extra int DEFAULT 5",
    "SELECT * FROM \"Mixed Case\" ORDER BY 1",
    "ALTER TABLE \"Mixed Case\" RENAME COLUMN extra TO more",
    "ALTER TABLE \"Mixed Case\" ALTER COLUMN more TYPE text USING more || 'x'",
    "SELECT * FROM \"Mixed Case\" ORDER BY 1",
    "TRUNCATE \"Mixed Case\"",
    "SELECT count(*) FROM \"Mixed Case\"",
    "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_name = 'sale' ORDER BY ordinal_position",
    "SELECT relname, relkind FROM pg_class WHERE relname IN ('person', 'sale', 'person_pkey', 'sale_id_seq') ORDER BY 1",
    "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attrelid = 'sale'::regclass AND attnum > 0 ORDER BY attnum",
    "SHOW server_encoding",
    "SHOW standard_conforming_strings",
    "SHOW nope",
    "COMMIT",
    "SAVEPOINT x",
    "SELECT id FROM person ORDER BY id LIMIT 0",
    "SELECT * FROM (SELECT id FROM person ORDER BY id LIMIT 3) x LIMIT 0",
    "SELECT DISTINCT boss FROM person ORDER BY 1 LIMIT 0 OFFSET 2",
    "SELECT (1 < 2) IS TRUE, array_agg(x.c) FROM (SELECT (2 > 1) IS TRUE AS c FROM keyless) x GROUP BY 1 HAVING count(*) > 1",
    "SELECT 70::bit(3), 70::bit(10), (-1)::bit(40), 700::int8::bit(3), 6::bit",
    "SELECT jsonb_build_object(true, 1, date '2020-01-01', 2), json_build_object(timestamp '2020-01-01 10:00', 1), jsonb_object_agg(true, 1)",
    "SET LOCAL timezone = 'Asia/Tokyo'",
    "SHOW timezone",
    "SELECT set_config('timezone', 'Asia/Tokyo', true), current_setting('timezone')",
    "SHOW timezone",
    "SELECT convert_from('\\xc328', 'UTF8')",
];

/// Statements one after the other whose answers, or errors with detail and hint, must be equal.
const DEPENDENCIES: &[&str] = &[
    "CREATE TABLE a (id int, x text)",
    "CREATE TABLE b (id int, y text)",
    "INSERT INTO a VALUES (1, 'ax')",
    "INSERT INTO b VALUES (1, 'by')",
    "CREATE VIEW one AS SELECT * FROM a",
    "CREATE VIEW two AS SELECT a.*, b.y FROM a JOIN b USING (id)",
    "CREATE VIEW three AS WITH a AS (SELECT 7 AS id, 'cte' AS x) SELECT * FROM a",
    "CREATE VIEW four AS SELECT p.*, q.* FROM (SELECT id AS i, x FROM a) p, (SELECT * FROM b) q",
    "CREATE VIEW five AS SELECT * FROM a NATURAL JOIN b",
    "CREATE VIEW six AS SELECT * FROM a FULL JOIN b USING (id) LEFT JOIN b c ON c.id = a.id WHERE c.y IN (SELECT y FROM b)",
    "CREATE VIEW six AS SELECT a.*, c.y FROM a FULL JOIN b USING (id) LEFT JOIN b c ON c.id = a.id WHERE c.y IN (SELECT y FROM b)",
    "ALTER TABLE a ADD COLUMN y int DEFAULT 9",
    "ALTER TABLE b ADD COLUMN q int DEFAULT 5",
    "SELECT * FROM one",
    "SELECT * FROM two WHERE y = 'by'",
    "SELECT * FROM three",
    "SELECT * FROM four",
    "SELECT * FROM five",
    "SELECT * FROM six",
    "ALTER TABLE a RENAME TO aa",
    "ALTER VIEW one RENAME TO uno",
    "CREATE VIEW seven AS SELECT * FROM uno",
    "ALTER VIEW uno RENAME TO eins",
    "SELECT * FROM two",
    "SELECT * FROM seven",
    "DROP VIEW eins",
    "DROP TABLE aa",
    "CREATE SCHEMA s",
    "ALTER TABLE b SET SCHEMA s",
    "SELECT * FROM two",
    "CREATE TABLE s.serials (id serial, v int)",
    "ALTER SCHEMA s RENAME TO r",
    "INSERT INTO r.serials (v) VALUES (1) RETURNING id",
    "SELECT * FROM five",
    "CREATE OR REPLACE VIEW three AS SELECT 'a'::text AS id, 'b' AS x",
    "ALTER TABLE aa ALTER x TYPE varchar(9)",
    "ALTER TABLE aa DROP COLUMN y",
    "SELECT * FROM two",
    "CREATE TABLE v (a int, b text)",
    "CREATE VIEW va AS SELECT a FROM v",
    "CREATE VIEW vb AS SELECT b FROM v",
    "CREATE VIEW vc AS SELECT * FROM vb",
    "ALTER TABLE v DROP COLUMN b",
    "ALTER TABLE v DROP COLUMN b CASCADE",
    "SELECT * FROM va",
    "SELECT * FROM vc",
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE TABLE moods (id int PRIMARY KEY, m mood, n int)",
    "INSERT INTO moods VALUES (1, 'ok', 5)",
    "DROP TYPE mood",
    "DROP TYPE mood CASCADE",
    "SELECT * FROM moods",
    "CREATE TABLE p (id int PRIMARY KEY, u int UNIQUE, v int)",
    "CREATE TABLE c (id int, pu int REFERENCES p (u), pid int REFERENCES p)",
    "ALTER TABLE p DROP CONSTRAINT p_u_key",
    "ALTER TABLE p DROP CONSTRAINT p_pkey",
    "ALTER TABLE p DROP COLUMN u",
    "ALTER TABLE p DROP CONSTRAINT p_u_key CASCADE",
    "SELECT conname FROM pg_constraint WHERE conrelid = 'c'::regclass ORDER BY 1",
    "ALTER TABLE p DROP CONSTRAINT p_pkey CASCADE",
    "SELECT conname FROM pg_constraint WHERE conrelid = 'c'::regclass ORDER BY 1",
    "CREATE TABLE g (a int, b int, c int GENERATED ALWAYS AS (a + b) STORED, d int, CHECK (a < b))",
    "CREATE INDEX g_sum ON g ((a + d))",
    "CREATE INDEX g_some ON g (d) WHERE b > 0",
    "ALTER TABLE g ALTER a TYPE bigint",
    "ALTER TABLE g DROP COLUMN b",
    "ALTER TABLE g DROP COLUMN b CASCADE",
    "INSERT INTO g VALUES (1, 2) RETURNING *",
    "ALTER TABLE g DROP COLUMN a",
    "SELECT indexname FROM pg_indexes WHERE tablename = 'g'",
    "INSERT INTO g VALUES (3) RETURNING *",
];

fn answer(db: &Db, sql: &str) -> String {
    let described = db
        .block_on(db.client().prepare(sql))
        .map(|statement| statement.columns().iter().map(|c| format!("{}:{}", c.name(), c.type_().oid())).collect::<Vec<_>>().join(", "));
    match db.try_rows(sql) {
        Ok(rows) => format!("{}\n{rows:?}", described.unwrap_or_else(|e| format!("not described: {e}"))),
        Err(error) => format!("ERROR {}", error.code().map_or("none", |c| c.code())),
    }
}

#[test]
fn answers_equal_postgresqls() {
    let primary = Primary::start(&["timezone = 'UTC'"]);
    let replica = Replica::start(None, &Options::default());
    let (theirs, ours) = (primary.db(), replica.db());
    for db in [&theirs, &ours] {
        db.execute("SET timezone = 'UTC'");
        db.execute(SETUP);
    }
    let mut differing = Vec::new();
    for sql in QUERIES {
        let (expected, got) = (answer(&theirs, sql), answer(&ours, sql));
        if expected != got {
            let message = ours.try_rows(sql).err().map(|e| strandline_tests::db::explain(&e)).unwrap_or_default();
            differing.push(format!("{sql}\n  PostgreSQL: {expected}\n  Strandline: {got} {message}"));
        }
    }
    assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), QUERIES.len(), differing.join("\n"));
}

#[test]
fn what_depends_on_something_follows_it_or_keeps_it_or_goes_with_it() {
    let primary = Primary::start(&[]);
    let replica = Replica::start(None, &Options::default());
    let (theirs, ours) = (primary.db(), replica.db());
    for sql in DEPENDENCIES {
        let answer = |db: &Db| {
            db.try_rows(sql).map_err(|e| {
                e.as_db_error().map(|e| {
                    (e.code().code().to_owned(), e.message().to_owned(), e.detail().map(str::to_owned), e.hint().map(str::to_owned))
                })
            })
        };
        assert_eq!(answer(&ours), answer(&theirs), "{sql}");
    }
    // What a view's text cannot follow is refused: the view would be broken.
    ours.execute("CREATE TABLE named (a int); CREATE VIEW naming AS SELECT a FROM named");
    assert_eq!(ours.sqlstate("ALTER TABLE named RENAME a TO b"), "0A000");
    assert_eq!(ours.lines("SELECT * FROM naming"), Vec::<String>::new());
}

#[test]
fn transactions_savepoints_and_failed_blocks_behave_as_postgresqls() {
    let replica = Replica::start(None, &Options::default());
    let (a, b) = (replica.db(), replica.db());
    a.execute("CREATE TABLE t (id int PRIMARY KEY, v int)");
    a.execute("BEGIN; INSERT INTO t VALUES (1, 1)");
    assert_eq!(a.value("SELECT count(*) FROM t"), "1");
    assert_eq!(b.value("SELECT count(*) FROM t"), "0", "not committed yet");
    a.execute("SAVEPOINT s");
    assert_eq!(a.sqlstate("INSERT INTO t VALUES (1, 2)"), "23505");
    assert_eq!(a.sqlstate("SELECT 1"), "25P02");
    a.execute("ROLLBACK TO s; INSERT INTO t VALUES (2, 2); COMMIT");
    assert_eq!(b.lines("SELECT * FROM t ORDER BY id"), ["1|1", "2|2"]);
    a.execute("BEGIN; DELETE FROM t; ROLLBACK");
    assert_eq!(b.value("SELECT count(*) FROM t"), "2");
    // The same row by two at once: the second to commit fails; other rows do not matter.
    a.execute("BEGIN; UPDATE t SET v = 10 WHERE id = 1");
    b.execute("BEGIN; UPDATE t SET v = 20 WHERE id = 1");
    a.execute("COMMIT");
    assert_eq!(b.sqlstate("COMMIT"), "40001");
    a.execute("BEGIN; UPDATE t SET v = 11 WHERE id = 1");
    b.execute("BEGIN; UPDATE t SET v = 21 WHERE id = 2; COMMIT");
    a.execute("COMMIT");
    assert_eq!(a.lines("SELECT * FROM t ORDER BY id"), ["1|11", "2|21"]);
    // A batch of the simple protocol is one transaction.
    assert_eq!(a.sqlstate("INSERT INTO t VALUES (3, 3); INSERT INTO t VALUES (3, 3)"), "23505");
    assert_eq!(a.value("SELECT count(*) FROM t WHERE id = 3"), "0");
    // DDL is transactional.
    a.execute("BEGIN; CREATE TABLE u (x int); ROLLBACK");
    assert_eq!(a.sqlstate("SELECT * FROM u"), "42P01");
}

#[test]
fn a_transactions_own_settings_end_with_it() {
    let primary = Primary::start(&[]);
    let replica = Replica::start(None, &Options::default());
    let statements = [
        "BEGIN READ ONLY",
        "SHOW transaction_read_only",
        "COMMIT",
        "SHOW transaction_read_only",
        "BEGIN",
        "SET TRANSACTION READ ONLY",
        "SHOW transaction_read_only",
        "ROLLBACK",
        "BEGIN",
        "SELECT 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "ROLLBACK",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SHOW transaction_isolation",
        "BEGIN",
        "SHOW transaction_isolation",
        "COMMIT",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SHOW transaction_isolation",
        "COMMIT",
        "SHOW transaction_isolation",
        "COMMIT AND CHAIN",
    ];
    let (theirs, ours) = (primary.db(), replica.db());
    for sql in statements {
        let answer = |db: &Db| db.try_rows(sql).map_err(|e| e.code().map(|c| c.code().to_owned()));
        assert_eq!(answer(&ours), answer(&theirs), "{sql}");
    }
}

#[test]
fn a_portal_is_read_in_pages_to_its_end_and_beyond() {
    let replica = Replica::start(None, &Options::default());
    let mut db = replica.db();
    for (rows, pages) in [(4, vec![2, 2, 0]), (5, vec![2, 2, 1, 0]), (0, vec![0]), (20_000, vec![10_000, 10_000, 0])] {
        let sql = format!("SELECT g FROM generate_series(1, {rows}) g");
        assert_eq!(db.pages(&sql, if rows > 100 { 10_000 } else { 2 }).unwrap(), pages, "{rows} rows");
    }
}

#[test]
fn a_prepared_statement_whose_columns_have_changed_says_so() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let statement = db.block_on(db.client().prepare("SELECT * FROM t")).unwrap();
    assert_eq!(db.block_on(db.client().query(&statement, &[])).unwrap().len(), 1);
    db.execute("ALTER TABLE t ADD COLUMN b int");
    let error = db.block_on(db.client().query(&statement, &[])).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.message()), ("0A000", "cached plan must not change result type"));
}

#[test]
fn copys_binary_header_comes_with_the_first_row() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    let messages = |sql: &'static str| {
        db.block_on(async {
            let stream = db.client().copy_out(sql).await.unwrap();
            stream.map(|chunk| chunk.unwrap().len()).collect::<Vec<_>>().await
        })
    };
    // Header 19 bytes, a row of one int4 10, the end 2.
    assert_eq!(messages("COPY (SELECT g FROM generate_series(1, 2) g) TO STDOUT (FORMAT binary)"), [29, 10, 2]);
    assert_eq!(messages("COPY (SELECT 1 WHERE false) TO STDOUT (FORMAT binary)"), [21]);
}

#[test]
fn parameters_of_many_types_travel_in_binary() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (i int PRIMARY KEY, l bigint, s smallint, f float8, r real, b bool, x text, y bytea)");
    db.block_on(async {
        let client = db.client();
        let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8)").await.unwrap();
        let count = client.execute(&insert, &[&1i32, &2i64, &3i16, &4.5f64, &5.5f32, &true, &"it's", &vec![0u8, 255]]).await.unwrap();
        assert_eq!(count, 1);
        let row = client.query_one("SELECT i, l, s, f, r, b, x, y FROM t WHERE i = $1 AND x = $2", &[&1i32, &"it's"]).await.unwrap();
        assert_eq!(
            (
                row.get::<_, i32>(0),
                row.get::<_, i64>(1),
                row.get::<_, i16>(2),
                row.get::<_, f64>(3),
                row.get::<_, f32>(4),
                row.get::<_, bool>(5)
            ),
            (1, 2, 3, 4.5, 5.5, true)
        );
        assert_eq!((row.get::<_, &str>(6), row.get::<_, &[u8]>(7)), ("it's", &[0u8, 255][..]));
        let none = client.query_opt("SELECT 1 FROM t WHERE l = $1::bigint", &[&99i64]).await.unwrap();
        assert!(none.is_none());
    });
}

#[test]
fn a_running_query_is_cancelled_at_once() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    let token = db.client().cancel_token();
    let begun = std::time::Instant::now();
    let error = db.block_on(async {
        let query = db
            .client()
            .simple_query("SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000) b WHERE a % 7 = b % 5");
        let cancel = async {
            // The cancel must meet the query under way; one that comes too early would do nothing, so it is repeated.
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                token.cancel_query(tokio_postgres::NoTls).await.unwrap();
            }
        };
        tokio::select! {
            result = query => result.expect_err("cancelled"),
            () = cancel => unreachable!(),
        }
    });
    assert_eq!(error.code().map(|c| c.code()), Some("57014"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(db.value("SELECT 1"), "1", "the session goes on");
}

#[test]
fn a_wrong_password_and_an_unknown_database_are_refused_as_postgresql_does() {
    let replica = Replica::start(None, &Options::default());
    let refused = |conninfo: String| Db::connect(&conninfo).err().and_then(|e| e.code().map(|c| c.code().to_owned()));
    let base = format!("host=127.0.0.1 port={}", replica.port());
    assert_eq!(refused(format!("{base} user=postgres password=wrong dbname=postgres")).as_deref(), Some("28P01"));
    assert_eq!(refused(format!("{base} user=nobody password=password dbname=postgres")).as_deref(), Some("28P01"));
    assert_eq!(refused(format!("{base} user=postgres password=password dbname=nowhere")).as_deref(), Some("3D000"));
}

#[test]
fn a_statement_nested_to_the_limits_is_answered_or_refused_and_the_server_lives() {
    let replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)");
    // (before, repeated before, inside, repeated after)
    let shapes = [
        ("SELECT a", "", "", " + a", " FROM t"),
        ("SELECT ", "@ ", "a", "", " FROM t"),
        ("SELECT ", "abs(", "a", ")", " FROM t"),
        ("SELECT ", "coalesce(NULL, ", "a", ")", " FROM t"),
        ("SELECT ", "CASE WHEN a = 1 THEN ", "a", " ELSE 0 END", " FROM t"),
        ("SELECT ", "CASE ", "a", " WHEN 1 THEN 1 WHEN 2 THEN 2 END", " FROM t"),
        ("SELECT ", "(", "a", " BETWEEN 0 AND 2)::int", " FROM t"),
        ("SELECT ", "(SELECT ", "a", ")", " FROM t"),
        ("SELECT * FROM ", "(SELECT * FROM ", "t", ") x", ""),
        ("SELECT 1", "", "", " UNION ALL SELECT 1", ""),
        ("SELECT 1", "", "", " UNION SELECT 1", ""),
        ("", "WITH x AS (", "SELECT 1", ") SELECT * FROM x", ""),
        ("SELECT a FROM t WHERE ", "NOT (", "a = 2", ")", ""),
        ("SELECT a FROM t WHERE ", "EXISTS (SELECT 1 FROM t WHERE ", "true", ")", ""),
        ("EXPLAIN SELECT a", "", "", " || 'x'", " FROM t"),
        ("INSERT INTO t SELECT 2", "", "", " + 1", ""),
    ];
    let code = |error: &tokio_postgres::Error| error.code().map_or(String::new(), |c| c.code().to_owned());
    for depth in [10, 590, 750, 5_000, 100_000] {
        for (before, open, inside, close, after) in shapes {
            // Planning a join or a query in a query is more than an operator: hundreds of them take long, not much stack.
            if (30..600).contains(&depth) && (close.contains("JOIN") || open.contains("SELECT") || open.contains("WITH")) {
                continue;
            }
            let text = format!("{before}{}{inside}{}{after}", open.repeat(depth), close.repeat(depth));
            let answer = db.try_rows(&text);
            let what = format!("{depth} of {open}{close}: {answer:?}");
            match (depth, answer) {
                (..600, Ok(_)) => {}
                // An operand that is used twice doubles with every level.
                (..600, Err(error)) if close.contains("BETWEEN") || open == "CASE " => assert_eq!(code(&error), "54001", "{what}"),
                (600.., Err(error)) => assert_eq!(code(&error), "54001", "{what}"),
                _ => panic!("{what}"),
            }
        }
    }
    assert_eq!(db.lines("SELECT count(*) FROM t"), ["3"]);
}
