//! Definitions that come from the primary: taken over whole when a table is created, and followed command by command where DDL capture is installed. What psql shows
//! of a table there and here is the same.

use std::process::Command;

use strandline_tests::psql::Target;
use strandline_tests::replica::{Options, binary};
use strandline_tests::{Db, Primary, Replica, wait_until};

/// What psql says of a relation, but for what is not a replica's: its publications, who it is replicated to, and the names of NOT NULL constraints (of version 18).
fn described(target: &Target, names: &[&str]) -> String {
    let script: String = names.iter().map(|name| format!("\\d+ {name}\n")).collect();
    let text = target.run(&script, &[]);
    let mut kept = Vec::new();
    let mut is_foreign = false;
    for line in text.lines() {
        let begins = line.starts_with("Publications:") || line.starts_with("Not-null constraints:");
        is_foreign = begins || (is_foreign && line.starts_with("    "));
        if !is_foreign && !line.starts_with("Access method:") && !line.starts_with("Replica Identity:") {
            kept.push(line.trim_end());
        }
    }
    kept.join("\n")
}

/// The two texts are the same; else only what differs is shown.
fn assert_same(here: &str, there: &str, after: &str) {
    let differing: Vec<(&str, &str)> = here.lines().zip(there.lines()).filter(|(a, b)| a != b).collect();
    assert!(here == there, "after {after}: {differing:#?}\n{here}\n{there}");
}

fn rows(db: &Db, table: &str) -> Vec<String> {
    let mut rows = db.lines(&format!("SELECT * FROM {table}"));
    rows.sort();
    rows
}

const TYPES: &str = "
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE app.place AS (street text, number int);
CREATE DOMAIN app.positive AS int DEFAULT 5 CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE DOMAIN app.small AS app.positive NOT NULL CHECK (VALUE < 1000);
CREATE DOMAIN app.code AS varchar(8);
CREATE SEQUENCE app.shared START 100 INCREMENT 10;
";

const TABLES: &str = "
CREATE TABLE app.line (
    id int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 2) PRIMARY KEY,
    item int NOT NULL,
    price numeric(8,2) DEFAULT 1.50,
    count int DEFAULT 1 CHECK (count > 0),
    total numeric GENERATED ALWAYS AS (price * count) STORED,
    CONSTRAINT cheap CHECK (price < 1000 AND (count < 100 OR price < 10)));
CREATE TABLE app.item (
    id serial PRIMARY KEY,
    code app.code,
    mood app.mood DEFAULT 'ok',
    moods app.mood[],
    size app.small,
    at app.place,
    number int DEFAULT nextval('app.shared'),
    made timestamptz DEFAULT now(),
    parent int CONSTRAINT above REFERENCES app.item (id) ON DELETE CASCADE,
    word text COLLATE \"C\" DEFAULT 'it''s',
    shout text GENERATED ALWAYS AS (upper(word)) STORED,
    UNIQUE (code, mood));
CREATE INDEX by_word ON app.item (word DESC, number) INCLUDE (made);
CREATE INDEX by_lower ON app.item (lower(word));
CREATE UNIQUE INDEX partly ON app.item (number) WHERE number > 0;
ALTER TABLE app.line ADD CONSTRAINT of_item FOREIGN KEY (item) REFERENCES app.item (id) ON UPDATE CASCADE;
COMMENT ON TABLE app.item IS 'things to sell';
COMMENT ON COLUMN app.item.word IS 'its name';
COMMENT ON INDEX app.by_word IS 'for lookups';
INSERT INTO app.item (code, size, at, word) VALUES ('a', 7, '(High,3)', 'word'), ('b', 8, NULL, NULL);
INSERT INTO app.line (item, price, count) VALUES (1, 2.5, 4), (2, NULL, 1);
";

const NAMES: [&str; 8] =
    ["app.item", "app.line", "app.item_pkey", "app.by_word", "app.partly", "app.shared", "app.item_id_seq", "app.line_id_seq"];

#[test]
fn tables_made_from_the_catalog_are_what_they_are_on_the_primary() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(TYPES);
    source.execute(TABLES);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    let (here, there) = (replica.target(), primary.target());
    let same = |names: &[&str]| assert_same(&described(&here, names), &described(&there, names), "the last step");
    same(&NAMES);
    for list in ["\\dD app.*", "\\dT app.*"] {
        assert_same(&here.run(&format!("{list}\n"), &[]), &there.run(&format!("{list}\n"), &[]), list);
    }
    let db = replica.db();
    for table in ["app.item", "app.line"] {
        assert_eq!(rows(&db, table), rows(&source, table));
    }
    // What is written here meets what the primary's definitions say, too.
    assert_eq!(db.sqlstate("INSERT INTO app.line (id, item) OVERRIDING SYSTEM VALUE VALUES (100, 77)"), "23503");
    assert_eq!(db.sqlstate("INSERT INTO app.line (id, item, count) OVERRIDING SYSTEM VALUE VALUES (100, 1, 0)"), "23514");
    assert_eq!(db.sqlstate("INSERT INTO app.item (size) VALUES (1000)"), "23514");
    assert_eq!(db.sqlstate("INSERT INTO app.line (item, total) VALUES (1, 1)"), "428C9");
    // A domain's own conditions and those of the domain below it hold for casts, too.
    for sql in ["0::app.small", "1000::app.small", "NULL::app.small", "'x'::app.small", "(-1)::app.positive"] {
        let sql = format!("SELECT {sql}");
        assert_eq!(db.sqlstate(&sql), source.sqlstate(&sql), "{sql}");
    }
    let casts = "SELECT 7::app.small + 1, NULL::app.positive IS NULL, '1234567'::app.code";
    assert_eq!(db.lines(casts), source.lines(casts));
    for db in [&db, &source] {
        db.execute("BEGIN");
        assert_eq!(db.lines("INSERT INTO app.item (id, code) VALUES (1000, 'zz') RETURNING size, word, shout"), ["5|it's|IT'S"]);
        db.execute("ROLLBACK");
    }
    // What the primary sends is computed and not checked: it has been there.
    source.execute(
        "UPDATE app.line SET count = 5 WHERE item = 1; UPDATE app.line SET price = 3 WHERE item = 2; UPDATE app.item SET word = 'other';
         BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO app.line (item, price) VALUES (99, 9); COMMIT",
    );
    // From version 18 on, what identifies a row must be sent, generated or not; and it can be.
    if primary.major_version() >= 18 {
        source.execute("ALTER PUBLICATION strandline SET (publish_generated_columns = stored)");
    }
    source.execute(
        "ALTER TABLE app.line REPLICA IDENTITY FULL; UPDATE app.line SET price = 4 WHERE item = 99; DELETE FROM app.line WHERE item = 2",
    );
    if primary.major_version() >= 18 {
        // A table that is made while they are sent would have plain columns in their place.
        source
            .execute("ALTER TABLE app.line REPLICA IDENTITY DEFAULT; ALTER PUBLICATION strandline SET (publish_generated_columns = none)");
    }
    // A table that comes later by the stream, of types that do.
    source.execute(
        "CREATE TYPE app.kind AS ENUM ('x'); CREATE DOMAIN app.kinds AS app.kind[];
         CREATE TABLE app.note (id bigserial PRIMARY KEY, line int REFERENCES app.line, kinds app.kinds, twice int GENERATED ALWAYS AS (line * 2) STORED);
         INSERT INTO app.note (line, kinds) VALUES (5, '{x,x}')",
    );
    replica.catch_up(&primary, &source);
    for table in ["app.item", "app.line", "app.note"] {
        assert_eq!(rows(&db, table), rows(&source, table));
    }
    same(&["app.note", "app.item"]);
    assert_eq!(replica.complaints(), [""; 0]);
    // Without capture, what names columns follows their renaming, and goes with them.
    source.execute(
        "ALTER TABLE app.line RENAME COLUMN count TO pieces; ALTER TABLE app.item RENAME COLUMN word TO name; ALTER TABLE app.item DROP COLUMN at;
         INSERT INTO app.line (item, price, pieces) VALUES (1, 2, 3); INSERT INTO app.item (name) VALUES ('renamed');
         ALTER TABLE app.line DROP COLUMN price CASCADE; INSERT INTO app.line (item) VALUES (2)",
    );
    replica.catch_up(&primary, &source);
    for table in ["app.item", "app.line"] {
        assert_eq!(rows(&db, table), rows(&source, table));
    }
    same(&["app.item", "app.line"]);
    assert_eq!(replica.complaints(), [""; 0]);
}

#[test]
fn what_does_not_exist_here_is_left_out_and_named_and_partitions_are_tables() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE FUNCTION double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
         CREATE DOMAIN even AS int CHECK (double(VALUE) > 0);
         CREATE TABLE odd (id int PRIMARY KEY, n even DEFAULT double(1), two int GENERATED ALWAYS AS (double(id)) STORED, during int4range,
             EXCLUDE USING gist (during WITH &&), CONSTRAINT small CHECK (double(id) < 100), CHECK (id > 0));
         INSERT INTO odd (id) VALUES (1);
         CREATE TABLE parted (id int, area text NOT NULL, v int DEFAULT 3 CHECK (v > 0), w int GENERATED ALWAYS AS (v + 1) STORED, PRIMARY KEY (area, id))
             PARTITION BY LIST (area);
         CREATE TABLE north PARTITION OF parted FOR VALUES IN ('n'); CREATE TABLE south PARTITION OF parted FOR VALUES IN ('s');
         INSERT INTO parted VALUES (1, 'n'), (2, 's')",
    );
    source.execute("CREATE PUBLICATION leaves FOR ALL TABLES; CREATE PUBLICATION roots FOR TABLE parted WITH (publish_via_partition_root)");
    let leaves = Options { replication: vec!["publication_names: [leaves]".into()], ..Options::default() };
    let roots = Options { replication: vec!["publication_names: [roots]".into()], ..Options::slot("roots") };
    let (leaves, roots) = (Replica::start(Some(&primary), &leaves), Replica::start(Some(&primary), &roots));
    source
        .execute("INSERT INTO parted VALUES (3, 'n', 7); UPDATE parted SET area = 's' WHERE id = 1; INSERT INTO odd (id, n) VALUES (2, 4)");
    leaves.catch_up(&primary, &source);
    roots.catch_up(&primary, &source);
    let (db, of_roots) = (leaves.db(), roots.db());
    assert_eq!(db.lines("SELECT id, n, during FROM odd ORDER BY id"), source.lines("SELECT id, n, during FROM odd ORDER BY id"));
    let said = leaves.complaints().join("\n");
    for part in ["two", "exclusion constraint", "CHECK constraint \\\"small\\\"", "the default of column \\\"n\\\"", "even_check"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(db.sqlstate("INSERT INTO odd (id) VALUES (-1)"), "23514");
    assert_eq!(rows(&db, "north"), rows(&source, "north"));
    assert_eq!(rows(&db, "south"), rows(&source, "south"));
    assert_eq!(db.sqlstate("SELECT * FROM parted"), "42P01");
    assert_eq!(rows(&of_roots, "parted"), rows(&source, "parted"));
    assert_eq!(of_roots.sqlstate("SELECT * FROM north"), "42P01");
    // The root is a table here, with its columns, its key, and what is computed and checked.
    let columns = "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated FROM pg_attribute
                   WHERE attrelid = 'parted'::regclass AND attnum > 0 ORDER BY attnum";
    assert_eq!(of_roots.lines(columns), source.lines(columns));
    assert_eq!(of_roots.sqlstate("INSERT INTO parted VALUES (9, 'x', 0)"), "23514");
    assert_eq!(roots.complaints(), [""; 0]);
}

#[test]
fn columns_that_the_primary_lacks_get_their_defaults() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE PUBLICATION strandline FOR ALL TABLES",
    );
    let mut replica = Replica::start(None, &Options::default());
    replica.db().execute(
        "CREATE SEQUENCE numbers START 10;
         CREATE TABLE t (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT nextval('numbers'), at timestamptz NOT NULL DEFAULT now(),
             i int GENERATED BY DEFAULT AS IDENTITY, length int GENERATED ALWAYS AS (length(v)) STORED, fixed int DEFAULT 1 + 1);
         SELECT dolt_commit('-Am', 'a table with more columns')",
    );
    replica.stop();
    replica.configure(Some(&primary), &Options::default());
    replica.start_again();
    replica.catch_up(&primary, &source);
    source.execute("BEGIN; INSERT INTO t VALUES (2, 'bb'), (3, NULL); COMMIT; UPDATE t SET v = 'longer' WHERE id = 1");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(db.lines("SELECT id, v, n, i, length, fixed FROM t ORDER BY id"), ["1|longer|10|1|6|2", "2|bb|11|2|2|2", "3||12|3||2"]);
    // As for a transaction here, now() is one time: that of its commit on the primary.
    assert_eq!(db.value("SELECT count(DISTINCT at) FROM t WHERE id > 1"), "1");
    assert_eq!(db.value("SELECT count(*) FROM t WHERE id > 1 AND at IN (SELECT source_commit_time FROM dolt_log)"), "2");
    assert_eq!(replica.complaints(), [""; 0]);
}

#[test]
fn captured_commands_are_followed_to_the_letter() {
    let primary = Primary::start(&["logical_decoding_work_mem = 64kB"]);
    let source = primary.db();
    source.execute(TYPES);
    source.execute(TABLES);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.install_ddl_capture();
    replica.catch_up(&primary, &source);
    // Once more keeps the key, so what was captured before is still believed.
    replica.install_ddl_capture();
    let (here, there) = (replica.target(), primary.target());
    let steps: &[(&str, &[&str])] = &[
        (
            "CREATE TABLE fresh (id int PRIMARY KEY, v text DEFAULT 'v', n int GENERATED ALWAYS AS (id + 1) STORED CHECK (n > 0)); COMMENT ON TABLE fresh IS 'new'",
            &["fresh"],
        ),
        ("ALTER TABLE fresh ADD COLUMN w int NOT NULL DEFAULT 7, ADD COLUMN g text GENERATED ALWAYS AS (v || '!') STORED", &["fresh"]),
        ("INSERT INTO fresh (id) SELECT generate_series(1, 5); ALTER TABLE fresh ADD COLUMN x int NOT NULL DEFAULT 9; VACUUM FULL fresh", &["fresh"]),
        ("ALTER TABLE fresh ALTER w SET DEFAULT 8, ALTER x DROP NOT NULL, ALTER v SET NOT NULL; ALTER TABLE fresh ALTER x DROP DEFAULT", &["fresh"]),
        ("ALTER TABLE fresh RENAME COLUMN v TO name; ALTER TABLE fresh RENAME COLUMN g TO loud; ALTER TABLE fresh RENAME TO kept", &["kept"]),
        ("CREATE UNIQUE INDEX names ON kept (name, id); ALTER INDEX names RENAME TO by_name; COMMENT ON INDEX by_name IS 'unique'", &["kept", "by_name"]),
        ("DROP INDEX by_name; CREATE INDEX CONCURRENTLY again ON kept (w DESC) WHERE w > 0", &["kept"]),
        ("ALTER TABLE kept ADD CONSTRAINT low CHECK (x < 100), ADD UNIQUE (x, id); ALTER TABLE kept RENAME CONSTRAINT low TO lower", &["kept"]),
        ("ALTER TABLE kept DROP CONSTRAINT fresh_pkey; ALTER TABLE kept ADD PRIMARY KEY (id, w)", &["kept"]),
        ("ALTER TABLE kept ALTER loud DROP EXPRESSION; UPDATE kept SET loud = 'set' WHERE id = 2", &["kept"]),
        ("ALTER TABLE kept ALTER x TYPE bigint USING x * 2 + id, ALTER name TYPE varchar(20); ALTER TABLE kept ALTER w TYPE bigint", &["kept"]),
        ("ALTER TABLE kept ADD COLUMN n2 numeric(6,2) DEFAULT 1.5; ALTER TABLE kept ALTER n2 TYPE text, ALTER n2 SET DEFAULT 'none'", &["kept"]),
        ("ALTER TABLE app.item ADD COLUMN size2 app.positive, ADD COLUMN size3 app.positive NOT NULL DEFAULT 7; ALTER TABLE app.item ALTER mood DROP DEFAULT; ALTER TYPE app.mood ADD VALUE 'glad' BEFORE 'happy'", &["app.item"]),
        ("UPDATE app.item SET mood = 'glad'; ALTER DOMAIN app.positive ADD CONSTRAINT below CHECK (VALUE < 5000)", &["app.item"]),
        ("ALTER TABLE app.item DROP COLUMN parent, DROP COLUMN word CASCADE; COMMENT ON COLUMN app.item.code IS 'short'", &["app.item", "app.line"]),
        ("CREATE TABLE child (id int PRIMARY KEY, kept int, w bigint, CONSTRAINT up FOREIGN KEY (kept, w) REFERENCES kept ON DELETE SET NULL)", &["child", "kept"]),
        ("ALTER TABLE child RENAME kept TO mother; ALTER TABLE child ALTER CONSTRAINT up DEFERRABLE; ALTER SCHEMA app RENAME TO shop", &["child", "shop.item"]),
        ("CREATE TABLE filled AS SELECT id, name FROM kept; ALTER TABLE filled ADD PRIMARY KEY (id); INSERT INTO filled VALUES (50, 'x')", &["filled"]),
        ("ALTER TABLE filled ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (START 60); ALTER TABLE filled SET SCHEMA shop", &["shop.filled", "shop.filled_id_seq"]),
        (
            "UPDATE shop.item SET moods = '{ok,glad,NULL}', mood = 'ok' WHERE id = 1; ALTER TABLE shop.item ALTER mood SET DEFAULT 'ok'; \
             ALTER TYPE shop.mood RENAME VALUE 'ok' TO 'all right'; INSERT INTO shop.item (code, mood) VALUES ('c', 'all right')",
            &["shop.item"],
        ),
        (
            "ALTER SEQUENCE shop.filled_id_seq INCREMENT 7 CACHE 3; ALTER SEQUENCE shop.filled_id_seq RENAME TO filled_ids",
            &["shop.filled", "shop.filled_ids"],
        ),
        ("ALTER TABLE shop.filled ALTER id DROP IDENTITY; ALTER TABLE shop.filled ALTER name SET NOT NULL", &["shop.filled"]),
        ("BEGIN; ALTER TABLE kept ADD COLUMN gone int DEFAULT 1; SAVEPOINT s; ALTER TABLE kept DROP COLUMN x; DROP TABLE child; ROLLBACK TO s;
          INSERT INTO kept (id, w, name) SELECT g, 3, 'n' FROM generate_series(100, 3000) g; SAVEPOINT t; ALTER TABLE kept RENAME x TO y; DROP TABLE child; INSERT INTO kept (id, w, name) SELECT g, 3, 'n' FROM generate_series(4000, 9000) g; ROLLBACK TO t;
          ALTER TABLE kept DROP COLUMN gone; UPDATE kept SET name = 'late' WHERE id = 100; COMMIT", &["kept", "child"]),
    ];
    let db = replica.db();
    for (step, names) in steps {
        for statement in split(step) {
            source.execute(&statement);
        }
        replica.catch_up(&primary, &source);
        assert_same(&described(&here, names), &described(&there, names), step);
        for name in names.iter().filter(|name| !name.contains("by_name") && !name.contains("_seq") && !name.contains("_ids")) {
            assert_eq!(rows(&db, name), rows(&source, name), "{name} after {step}");
        }
    }
    assert_eq!(db.value("SELECT count(*) FROM kept"), source.value("SELECT count(*) FROM kept"));
    // The change of a definition is part of the commit that carries it.
    let before = db.value("SELECT commit_hash FROM dolt_log LIMIT 1");
    source.execute("BEGIN; ALTER TABLE shop.filled RENAME COLUMN name TO title; UPDATE shop.filled SET title = 'T' WHERE id = 50; COMMIT");
    replica.catch_up(&primary, &source);
    assert_eq!(db.value("SELECT title FROM shop.filled WHERE id = 50"), "T");
    assert_eq!(db.value("SELECT title FROM shop.filled AS OF 'HEAD' WHERE id = 50"), "T");
    assert_eq!(db.value(&format!("SELECT name FROM shop.filled AS OF '{before}' WHERE id = 50")), "x");
    assert_eq!(db.value("SELECT commit_hash FROM dolt_log LIMIT 1 OFFSET 1"), before);
    source.execute("DROP TABLE child, kept; DROP SCHEMA shop CASCADE");
    replica.catch_up(&primary, &source);
    assert_eq!(db.lines("SELECT tablename FROM pg_tables WHERE schemaname IN ('public', 'shop')"), [""; 0]);
    // All of that while we were away, too.
    replica.stop();
    source.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1); ALTER TABLE a ADD COLUMN b int DEFAULT 5; ALTER TABLE a RENAME TO c");
    source.execute("VACUUM FULL c");
    source.execute("ALTER TABLE c DROP COLUMN b; ALTER TABLE c ADD COLUMN b text; UPDATE c SET b = 'text'");
    replica.start_again();
    replica.catch_up(&primary, &source);
    assert_eq!((described(&here, &["c"]), rows(&replica.db(), "c")), (described(&there, &["c"]), rows(&source, "c")));
    assert_eq!(replica.complaints(), [""; 0]);
    // Removed, nothing is left of it, and tables are followed as before.
    assert!(replica.check("--remove-ddl-capture").status.success());
    assert_eq!(source.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'strandline'"), "0");
    assert_eq!(source.value("SELECT count(*) FROM pg_event_trigger"), "0");
    source.execute("ALTER TABLE c ADD COLUMN d int; INSERT INTO c (id, d) VALUES (2, 2)");
    replica.catch_up(&primary, &source);
    assert_eq!(rows(&replica.db(), "c"), rows(&source, "c"));
    assert_eq!(replica.complaints(), [""; 0]);
    // What no catalog and no statement tells stops the table, until it is copied anew: by itself if there is nothing of ours in it.
    replica.install_ddl_capture();
    replica.db().execute("CREATE INDEX ours ON c (d); SELECT dolt_commit('-Am', 'an index of ours')");
    source.execute(
        "BEGIN; ALTER TABLE c ADD COLUMN s serial; CREATE TABLE beside (id int PRIMARY KEY); INSERT INTO beside VALUES (1); COMMIT",
    );
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!(db.value("SELECT srsubstate FROM pg_subscription_rel WHERE srrelid = 'c'::regclass"), "x");
    assert_eq!(rows(&db, "beside"), rows(&source, "beside"));
    source.execute("ALTER TABLE c ADD COLUMN t text DEFAULT 't'; CREATE INDEX by_t ON c (t); DROP INDEX by_t; CREATE INDEX by_s ON c (s); ALTER TABLE beside ADD COLUMN v text");
    replica.catch_up(&primary, &source);
    assert_same(&described(&here, &["beside"]), &described(&there, &["beside"]), "c was stopped");
    db.execute("ALTER SUBSCRIPTION strandline REFRESH PUBLICATION");
    wait_until(|| db.value("SELECT srsubstate FROM pg_subscription_rel WHERE srrelid = 'c'::regclass") == "r", || replica.log());
    source.execute("ALTER TABLE c RENAME COLUMN t TO text; INSERT INTO c (id, text) VALUES (3, 'three')");
    replica.catch_up(&primary, &source);
    assert_same(&described(&here, &["c"]), &described(&there, &["c"]), "it was copied anew");
    assert_eq!(rows(&db, "c"), rows(&source, "c"));
    let stops: Vec<String> = replica.complaints().into_iter().filter(|line| line.contains("the table is stopped")).collect();
    assert!(stops.len() == 1 && stops[0].contains("public.c") && stops[0].contains("column \"s\""), "{stops:?}");
}

/// The statements of a step, each sent alone as VACUUM must be; a transaction's together.
fn split(step: &str) -> Vec<String> {
    if step.starts_with("BEGIN") { vec![step.into()] } else { step.split("; ").map(str::to_owned).collect() }
}

#[test]
fn only_the_trigger_is_believed_and_it_never_fails_a_command() {
    let primary = Primary::start(&[]);
    let source = primary.db();
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); CREATE PUBLICATION strandline FOR ALL TABLES;
         CREATE ROLE other LOGIN PASSWORD 'secret'; GRANT ALL ON SCHEMA public TO other; CREATE TABLE log (line text)",
    );
    let replica = Replica::start(Some(&primary), &Options::default());
    replica.install_ddl_capture();
    let oid = source.value("SELECT 't'::regclass::oid");
    let other = Db::connect(&format!("host=127.0.0.1 port={} user=other password=secret dbname=postgres", primary.port())).unwrap();
    // Who may not read the key, and what is not published.
    for sql in ["SELECT * FROM strandline.ddl_key", "SELECT strandline.emit('{}')", "SELECT strandline.published_table('t'::regclass)"] {
        assert_eq!(other.sqlstate(sql), "42501", "{sql}");
    }
    assert_eq!(source.value("SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'strandline'"), "0");
    let json = format!(r#"{{"tag": "DROP TABLE", "dropped": {{"kind": "table", "oid": {oid}, "schema": "public", "name": "t"}}}}"#);
    let send = |body: &str| format!("SELECT pg_logical_emit_message(true, 'strandline_ddl', {body})");
    let forged = [
        send(&format!("repeat('0', 64) || ' ' || pg_current_xact_id()::text || ' 0 {json}'")),
        // By what everybody knows: an empty key.
        send(&format!(
            "encode(sha256(sha256(convert_to(b, 'UTF8'))), 'hex') || ' ' || b) FROM (SELECT pg_current_xact_id()::text || ' 0 {json}' AS b) x WHERE (true"
        )),
        send("''"),
        send(&format!("'{json}'")),
        send("repeat('x', 1000000)"),
    ];
    for sql in &forged {
        other.execute(&format!("BEGIN; {sql}; COMMIT"));
    }
    // Overheard: what the trigger said in one transaction, in another.
    source.execute("SELECT pg_create_logical_replication_slot('spy', 'pgoutput')");
    source.execute("CREATE TABLE victim (id int PRIMARY KEY); DROP TABLE victim; INSERT INTO t VALUES (2, 'b')");
    let overheard = "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('spy', NULL, NULL, 'proto_version', '1',
                     'publication_names', 'strandline', 'messages', 'true') WHERE get_byte(data, 0) = 77";
    let messages = source.lines(overheard);
    assert!(messages.len() >= 2, "{messages:?}");
    source.execute("SELECT pg_drop_replication_slot('spy'); CREATE TABLE victim (id int PRIMARY KEY); INSERT INTO victim VALUES (1)");
    for message in &messages {
        // Behind its tag, flags, LSN, prefix and size.
        let at = 2 * (1 + 1 + 8 + "strandline_ddl".len() + 1 + 4);
        other.execute(&send(&format!("decode('{}', 'hex')", &message[at..])));
    }
    source.execute("INSERT INTO t VALUES (3, 'c')");
    replica.catch_up(&primary, &source);
    let db = replica.db();
    assert_eq!((rows(&db, "t"), rows(&db, "victim")), (rows(&source, "t"), rows(&source, "victim")));
    let complaints = replica.complaints();
    assert!(!complaints.is_empty() && complaints.iter().all(|line| line.contains("a captured command is left out")), "{complaints:?}");
    assert!(complaints.len() < 5, "one warning for many: {complaints:?}");

    // Names of others' making do not get into the trigger's way, whatever their search path is; nor does a broken trigger into theirs.
    other.execute(
        "CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
         CREATE FUNCTION public.convert_to(text, text) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
         SET search_path = public, pg_catalog; CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine ADD COLUMN v int DEFAULT 3; INSERT INTO mine VALUES (1)",
    );
    source.execute("ALTER TABLE strandline.ddl_mark ADD CHECK (false)");
    source.execute("ALTER TABLE t ADD COLUMN w int DEFAULT 4; INSERT INTO t VALUES (4, 'd')");
    source.execute("DROP TABLE victim");
    replica.catch_up(&primary, &source);
    assert_eq!((rows(&db, "mine"), rows(&db, "t")), (rows(&source, "mine"), rows(&source, "t")));
    assert_eq!(replica.complaints(), complaints);
    // A role that may not read the key follows as without capture, and the check tells.
    source.execute(
        "ALTER TABLE strandline.ddl_mark DROP CONSTRAINT ddl_mark_check; CREATE ROLE follower LOGIN REPLICATION PASSWORD 'secret'",
    );
    source.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO follower");
    let follower = Options {
        replication: vec!["postgres_user: follower".into(), "postgres_password: secret".into(), "publication_names: [strandline]".into()],
        ..Options::slot("follower")
    };
    let follower = Replica::prepare(Some(&primary), &follower);
    let text = std::fs::read_to_string(follower.config_file()).unwrap();
    let twice = |line: &str| {
        line.trim_start().starts_with("postgres_user: postgres") || line.trim_start().starts_with("postgres_password: 'primary")
    };
    std::fs::write(follower.config_file(), text.lines().filter(|line| !twice(line)).collect::<Vec<_>>().join("\n")).unwrap();
    let told = Command::new(binary()).args(["check", "--config", follower.config_file().to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("its key cannot be read") && told.contains("GRANT SELECT ON strandline.ddl_key TO \"follower\""), "{told}");
    let refused = follower.check("--install-ddl-capture");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("superuser"), "{refused:?}");
    let script = String::from_utf8(follower.check("--print-ddl-capture").stdout).unwrap();
    assert!(script.starts_with("BEGIN;"), "{script}");
    primary.target().run(&script, &[]);
    assert_eq!(source.value("SELECT has_table_privilege('follower', 'strandline.ddl_key', 'SELECT')"), "t");
    wait_until(|| replica.complaints() == complaints, || replica.log());
}
