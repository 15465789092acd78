//! Statements through sessions of an engine over a store in a temporary folder: what they answer, what they leave behind.

use std::sync::Arc;

use futures::StreamExt;
use strandline_sql::error::{ErrorCode, SqlError};
use strandline_sql::session::{ConnectRequest, Engine, EngineOptions, Outcome, Rows, RowsTag, Session, TransactionStatus};
use strandline_sql::wire::{Format, RowEncoder};
use strandline_storage::{CommitMeta, DataType, Store, StoreOptions};

struct Database {
    engine: Arc<Engine>,
    _folder: tempfile::TempDir,
}

impl Database {
    fn new() -> Self {
        Self::with(EngineOptions::default())
    }

    fn with(options: EngineOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        store.create_database("db", CommitMeta::default()).unwrap();
        let engine = Engine::new(store, options);
        engine.ensure_superuser("me", "SCRAM-SHA-256$unused").unwrap();
        Database { engine, _folder: folder }
    }

    fn session(&self) -> Client {
        self.session_on("db")
    }

    fn session_on(&self, database: &str) -> Client {
        let request = ConnectRequest { user: "me".into(), database: database.into(), ..ConnectRequest::default() };
        Client(self.engine.connect(request).unwrap())
    }
}

struct Client(Session);

impl Client {
    /// Runs a batch as the simple protocol does; rows as text, fields separated by `|`, then the command tag, for every statement.
    fn run(&mut self, sql: &str) -> Result<Vec<String>, SqlError> {
        let result = self.batch(sql);
        if result.is_err() {
            self.0.fail();
        }
        result
    }

    fn batch(&mut self, sql: &str) -> Result<Vec<String>, SqlError> {
        let mut lines = Vec::new();
        for statement in self.0.split(sql)? {
            match self.0.execute(&statement)? {
                Outcome::Empty => {}
                Outcome::Done { tag } => lines.push(tag),
                Outcome::Rows(rows) => read(rows, &mut lines)?,
                Outcome::CopyIn(_) => panic!("COPY FROM needs input"),
                Outcome::CopyOut(mut copy) => {
                    while let Some(chunk) = futures::executor::block_on(copy.chunks.next()) {
                        lines.extend(chunk?.0.iter().map(|b| String::from_utf8_lossy(b).trim_end().to_owned()));
                    }
                }
            }
        }
        self.0.finish()?;
        Ok(lines)
    }

    fn ok(&mut self, sql: &str) -> Vec<String> {
        self.run(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    fn error(&mut self, sql: &str) -> SqlError {
        match self.run(sql) {
            Ok(lines) => panic!("{sql}: no error but {lines:?}"),
            Err(error) => error,
        }
    }

    fn copy_in(&mut self, sql: &str, input: &str) -> Result<String, SqlError> {
        let statement = self.0.split(sql)?.remove(0);
        let Outcome::CopyIn(copy) = self.0.execute(&statement)? else { panic!("not a COPY FROM") };
        let (sender, receiver) = tokio::sync::mpsc::channel(1000);
        for piece in input.as_bytes().chunks(7) {
            sender.try_send(Ok(bytes::Bytes::copy_from_slice(piece))).unwrap();
        }
        drop(sender);
        let result = (copy.load)(receiver).and_then(|tag| self.0.finish().map(|()| tag));
        if result.is_err() {
            self.0.fail();
        }
        result
    }

    fn notices(&self) -> Vec<String> {
        self.0.take_notices().into_iter().map(|n| n.message).collect()
    }
}

fn read(mut rows: Rows, lines: &mut Vec<String>) -> Result<(), SqlError> {
    let types: Vec<DataType> = rows.columns.iter().map(|c| c.data_type.clone()).collect();
    let mut count = 0;
    while let Some(batch) = futures::executor::block_on(rows.batches.next()) {
        let batch = batch?;
        let encoder = RowEncoder::new(&rows.context, &batch, &types, &[Format::Text])?;
        for row in 0..batch.num_rows() {
            let mut fields = Vec::new();
            encoder.row(row, &mut Vec::new(), |field| {
                fields.push(field.map_or("NULL".to_owned(), |b| String::from_utf8_lossy(b).into_owned()));
            })?;
            lines.push(fields.join("|"));
            count += 1;
        }
    }
    lines.push(match rows.tag {
        RowsTag::Counted(words) => format!("{words} {count}"),
        RowsTag::Fixed(tag) => tag,
    });
    Ok(())
}

#[test]
fn rows_are_inserted_changed_deleted_and_returned() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (id serial PRIMARY KEY, a int NOT NULL, b text DEFAULT 'x', c int GENERATED ALWAYS AS (a * 2) STORED)");
    assert_eq!(c.ok("INSERT INTO t (a) VALUES (1), (2) RETURNING *"), ["1|1|x|2", "2|2|x|4", "INSERT 0 2"]);
    assert_eq!(c.ok("INSERT INTO t (a, b) SELECT a + 10, NULL FROM t ORDER BY id"), ["INSERT 0 2"]);
    assert_eq!(c.ok("UPDATE t SET a = a + 1, b = DEFAULT WHERE id >= 3 RETURNING id, a, b, c"), ["3|12|x|24", "4|13|x|26", "UPDATE 2"]);
    assert_eq!(
        c.ok("UPDATE t SET b = u.b FROM (VALUES (1, 'one'), (2, 'two')) u(id, b) WHERE t.id = u.id RETURNING t.b, u.id"),
        ["one|1", "two|2", "UPDATE 2"]
    );
    assert_eq!(c.ok("DELETE FROM t USING (VALUES (3)) v(id) WHERE t.id = v.id RETURNING t.id, v.id"), ["3|3", "DELETE 1"]);
    assert_eq!(c.ok("SELECT id, b FROM t ORDER BY id"), ["1|one", "2|two", "4|x", "SELECT 3"]);
    assert_eq!(c.error("INSERT INTO t (a, c) VALUES (1, 2)").code, ErrorCode::GeneratedAlways);
}

#[test]
fn violations_have_postgresql_words() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int PRIMARY KEY, b int CHECK (b > 0), c text NOT NULL DEFAULT 'c', UNIQUE (b, c))");
    c.ok("INSERT INTO t VALUES (1, 1, 'x')");
    let e = c.error("INSERT INTO t VALUES (1, 2)");
    assert_eq!((e.code, e.message.as_str()), (ErrorCode::UniqueViolation, "duplicate key value violates unique constraint \"t_pkey\""));
    assert_eq!(
        (e.detail.as_deref(), e.schema.as_deref(), e.constraint.as_deref()),
        (Some("Key (a)=(1) already exists."), Some("public"), Some("t_pkey"))
    );
    let e = c.error("INSERT INTO t VALUES (2, 1, 'x')");
    assert_eq!(e.detail.as_deref(), Some("Key (b, c)=(1, x) already exists."));
    let e = c.error("INSERT INTO t VALUES (2, -1, 'x')");
    assert_eq!(e.message, "new row for relation \"t\" violates check constraint \"t_b_check\"");
    assert_eq!(e.detail.as_deref(), Some("Failing row contains (2, -1, x)."));
    let e = c.error("INSERT INTO t VALUES (2, 1, NULL)");
    assert_eq!(e.message, "null value in column \"c\" of relation \"t\" violates not-null constraint");
    assert_eq!(e.detail.as_deref(), Some("Failing row contains (2, 1, null)."));
    assert_eq!(c.ok("SELECT count(*) FROM t"), ["1", "SELECT 1"]);
}

#[test]
fn on_conflict_skips_or_updates() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)");
    assert_eq!(c.ok("INSERT INTO t VALUES (1, 5), (2, 5) ON CONFLICT DO NOTHING"), ["INSERT 0 1"]);
    assert_eq!(c.ok("INSERT INTO t VALUES (1, 5) ON CONFLICT (a) DO UPDATE SET n = t.n + excluded.n RETURNING *"), ["1|6", "INSERT 0 1"]);
    assert_eq!(c.ok("INSERT INTO t VALUES (1, 5) ON CONFLICT (a) DO UPDATE SET n = 0 WHERE t.n > 100"), ["INSERT 0 0"]);
    let e = c.error("INSERT INTO t VALUES (9, 1), (9, 2) ON CONFLICT (a) DO UPDATE SET n = 0");
    assert_eq!(e.code, ErrorCode::CardinalityViolation);
}

#[test]
fn a_transaction_is_seen_by_itself_until_it_commits() {
    let db = Database::new();
    let (mut a, mut b) = (db.session(), db.session());
    a.ok("CREATE TABLE t (a int PRIMARY KEY)");
    a.ok("BEGIN");
    a.ok("INSERT INTO t VALUES (1)");
    a.ok("CREATE TABLE u (x int)");
    assert_eq!(a.ok("SELECT count(*) FROM t"), ["1", "SELECT 1"]);
    assert_eq!(b.ok("SELECT count(*) FROM t"), ["0", "SELECT 1"]);
    assert_eq!(b.error("SELECT * FROM u").code, ErrorCode::UndefinedTable);
    a.ok("SAVEPOINT s");
    a.ok("INSERT INTO t VALUES (2)");
    assert_eq!(a.error("INSERT INTO t VALUES (2)").code, ErrorCode::UniqueViolation);
    assert_eq!(a.0.status(), TransactionStatus::Failed);
    assert_eq!(a.error("SELECT 1").code, ErrorCode::InFailedTransaction);
    a.ok("ROLLBACK TO s");
    assert_eq!(a.ok("COMMIT"), ["COMMIT"]);
    assert_eq!(b.ok("SELECT count(*) FROM t"), ["1", "SELECT 1"]);
    a.ok("BEGIN; DROP TABLE t; ROLLBACK");
    assert_eq!(a.ok("SELECT count(*) FROM t"), ["1", "SELECT 1"]);
}

#[test]
fn of_two_who_change_the_same_row_the_second_is_refused() {
    let db = Database::new();
    let (mut a, mut b) = (db.session(), db.session());
    a.ok("CREATE TABLE t (a int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0)");
    a.ok("BEGIN");
    b.ok("BEGIN");
    a.ok("UPDATE t SET n = 1 WHERE a = 1");
    b.ok("UPDATE t SET n = 2 WHERE a = 2");
    a.ok("COMMIT");
    b.ok("COMMIT");
    assert_eq!(a.ok("SELECT n FROM t ORDER BY a"), ["1", "2", "SELECT 2"]);
    a.ok("BEGIN");
    b.ok("BEGIN");
    a.ok("UPDATE t SET n = 3 WHERE a = 1");
    b.ok("UPDATE t SET n = 4 WHERE a = 1");
    a.ok("COMMIT");
    assert_eq!(b.error("COMMIT").code, ErrorCode::SerializationFailure);
    assert_eq!(b.0.status(), TransactionStatus::Idle);
    assert_eq!(b.ok("SELECT n FROM t WHERE a = 1"), ["3", "SELECT 1"]);
}

#[test]
fn tables_change_shape_with_their_rows() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, '7'), (2, '8')");
    c.ok("ALTER TABLE t ADD COLUMN c int DEFAULT 5 NOT NULL, ADD d serial");
    assert_eq!(c.ok("SELECT * FROM t ORDER BY a"), ["1|7|5|1", "2|8|5|2", "SELECT 2"]);
    assert_eq!(c.error("ALTER TABLE t ALTER b TYPE int").code, ErrorCode::DatatypeMismatch);
    c.ok("ALTER TABLE t ALTER b TYPE int USING b::int + 1");
    c.ok("ALTER TABLE t DROP COLUMN c");
    c.ok("ALTER TABLE t RENAME COLUMN d TO e");
    assert_eq!(c.ok("SELECT b, e FROM t ORDER BY a"), ["8|1", "9|2", "SELECT 2"]);
    c.ok("ALTER TABLE t ADD CONSTRAINT big CHECK (b > 5), ALTER b SET NOT NULL");
    assert_eq!(c.error("INSERT INTO t (a, b) VALUES (3, 1)").constraint.as_deref(), Some("big"));
    assert_eq!(c.error("ALTER TABLE t ADD CHECK (b > 8)").code, ErrorCode::CheckViolation);
    c.ok("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (b)");
    c.ok("ALTER TABLE t RENAME TO u; CREATE SCHEMA s; ALTER TABLE u SET SCHEMA s");
    assert_eq!(c.ok("SELECT count(*) FROM s.u"), ["2", "SELECT 1"]);
    let e = c.error("DROP SCHEMA s");
    assert_eq!(e.code, ErrorCode::DependentObjectsStillExist);
    c.ok("DROP SCHEMA s CASCADE");
    c.ok("DROP TABLE IF EXISTS nothing");
    assert!(c.notices().contains(&"table \"nothing\" does not exist, skipping".to_owned()));
}

#[test]
fn foreign_keys_hold_and_cascade() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p bigint REFERENCES p, q int REFERENCES p ON DELETE CASCADE)");
    c.ok("INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1, NULL), (2, NULL, 2)");
    let e = c.error("INSERT INTO c VALUES (3, 9, NULL)");
    assert_eq!((e.code, e.detail.as_deref()), (ErrorCode::ForeignKeyViolation, Some("Key (p)=(9) is not present in table \"p\".")));
    let e = c.error("DELETE FROM p WHERE id = 1");
    assert_eq!(e.message, "update or delete on table \"p\" violates foreign key constraint \"c_p_fkey\" on table \"c\"");
    c.ok("DELETE FROM p WHERE id = 2");
    assert_eq!(c.ok("SELECT id FROM c"), ["1", "SELECT 1"]);
    assert_eq!(c.error("TRUNCATE p").code, ErrorCode::FeatureNotSupported);
    assert_eq!(c.error("DROP TABLE p").code, ErrorCode::DependentObjectsStillExist);
}

#[test]
fn sequences_count_outside_of_transactions() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE SEQUENCE s INCREMENT 5 START 10 MAXVALUE 20");
    assert_eq!(c.ok("SELECT nextval('s'), currval('s')"), ["10|10", "SELECT 1"]);
    c.ok("BEGIN; SELECT nextval('s'); ROLLBACK");
    assert_eq!(c.ok("SELECT nextval('s')"), ["20", "SELECT 1"]);
    assert_eq!(c.error("SELECT nextval('s')").code, ErrorCode::SequenceLimitExceeded);
    assert_eq!(c.ok("SELECT setval('s', 11, false)"), ["11", "SELECT 1"]);
    assert_eq!(c.ok("SELECT last_value, is_called FROM s"), ["11|f", "SELECT 1"]);
    c.ok("CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY (START 3), x int)");
    assert_eq!(c.ok("INSERT INTO t (x) VALUES (0) RETURNING id"), ["3", "INSERT 0 1"]);
    c.ok("TRUNCATE t RESTART IDENTITY");
    assert_eq!(c.ok("INSERT INTO t (x) VALUES (0) RETURNING id"), ["3", "INSERT 0 1"]);
}

#[test]
fn copy_loads_and_unloads() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (id int PRIMARY KEY, a text, b numeric DEFAULT 1.50)");
    assert_eq!(c.copy_in("COPY t (id, a) FROM STDIN", "1\tx\\ty\n2\t\\N\n\\.\n").unwrap(), "COPY 2");
    assert_eq!(c.copy_in("COPY t FROM STDIN CSV HEADER", "id,a,b\n3,\"q,\"\"r\"\"\",\n").unwrap(), "COPY 1");
    assert_eq!(c.ok("COPY t TO STDOUT"), ["1\tx\\ty\t1.50", "2\t\\N\t1.50", "3\tq,\"r\"\t\\N"]);
    assert_eq!(c.ok("COPY (SELECT id, a FROM t WHERE id > 1 ORDER BY id) TO STDOUT CSV HEADER"), ["id,a", "2,", "3,\"q,\"\"r\"\"\""]);
    let e = c.copy_in("COPY t FROM STDIN", "4\tx\ty\n").unwrap_err();
    assert_eq!(e.context.as_deref(), Some("COPY t, line 1, column b: \"y\""));
    assert_eq!(c.copy_in("COPY t FROM STDIN", "4\tx\n").unwrap_err().message, "missing data for column \"b\"");
    assert_eq!(c.copy_in("COPY t FROM STDIN", "1\tx\t1\n").unwrap_err().code, ErrorCode::UniqueViolation);
    assert_eq!(c.ok("SELECT count(*) FROM t"), ["3", "SELECT 1"]);
}

#[test]
fn a_plain_dump_loads() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("SET statement_timeout = 0; SET lock_timeout = 0; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on;
          SELECT pg_catalog.set_config('search_path', '', false); SET check_function_bodies = false; SET xmloption = content;
          SET client_min_messages = warning; SET row_security = off; SET default_tablespace = ''; SET default_table_access_method = heap;
          CREATE TYPE public.mood AS ENUM ('sad', 'ok'); ALTER TYPE public.mood OWNER TO me;
          CREATE TABLE public.item (id integer NOT NULL, name character varying(20) NOT NULL, m public.mood DEFAULT 'ok'::public.mood,
              at timestamp with time zone DEFAULT now());
          ALTER TABLE public.item OWNER TO me;
          CREATE SEQUENCE public.item_id_seq AS integer START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1;
          ALTER TABLE public.item_id_seq OWNER TO me;
          ALTER SEQUENCE public.item_id_seq OWNED BY public.item.id;
          CREATE TABLE public.line (id bigint NOT NULL, item integer);
          ALTER TABLE public.line ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
              SEQUENCE NAME public.line_id_seq START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1);
          ALTER TABLE ONLY public.item ALTER COLUMN id SET DEFAULT nextval('public.item_id_seq'::regclass);");
    assert_eq!(c.copy_in("COPY public.item (id, name, m, at) FROM stdin;", "1\ta\tsad\t2024-01-01 00:00:00+00\n").unwrap(), "COPY 1");
    assert_eq!(c.copy_in("COPY public.line (id, item) FROM stdin;", "7\t1\n").unwrap(), "COPY 1");
    c.ok("SELECT pg_catalog.setval('public.item_id_seq', 5, true); SELECT pg_catalog.setval('public.line_id_seq', 7, true);
          ALTER TABLE ONLY public.item ADD CONSTRAINT item_pkey PRIMARY KEY (id);
          ALTER TABLE ONLY public.line ADD CONSTRAINT line_pkey PRIMARY KEY (id);
          CREATE UNIQUE INDEX item_name ON public.item USING btree (name);
          CREATE INDEX line_item ON public.line USING btree (item DESC);
          ALTER TABLE ONLY public.line ADD CONSTRAINT line_item_fkey FOREIGN KEY (item) REFERENCES public.item(id);");
    let mut c = db.session();
    assert_eq!(c.ok("INSERT INTO item (name) VALUES ('b') RETURNING id, m"), ["6|ok", "INSERT 0 1"]);
    assert_eq!(c.ok("INSERT INTO line (item) VALUES (6) RETURNING id"), ["8", "INSERT 0 1"]);
    assert_eq!(c.error("INSERT INTO item (name) VALUES ('a')").constraint.as_deref(), Some("item_name"));
}

#[test]
fn settings_take_part_in_transactions() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("BEGIN; SET timezone = 'Asia/Tokyo'; ROLLBACK");
    assert_eq!(c.ok("SHOW timezone"), ["UTC", "SHOW"]);
    c.ok("BEGIN; SET LOCAL timezone = 'Asia/Tokyo'; COMMIT");
    assert_eq!(c.ok("SHOW timezone"), ["UTC", "SHOW"]);
    c.ok("SET timezone = 'Asia/Tokyo'");
    assert_eq!(c.ok("SELECT '2024-01-01 00:00:00+00'::timestamptz"), ["2024-01-01 09:00:00+09", "SELECT 1"]);
    assert_eq!(c.error("SET nosuch = 1").code, ErrorCode::UndefinedObject);
}

#[test]
fn where_writing_is_not_allowed_it_is_refused() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int); SELECT dolt_commit('-Am', 'made t')");
    c.ok("BEGIN READ ONLY");
    assert_eq!(c.error("INSERT INTO t VALUES (1)").code, ErrorCode::ReadOnlyTransaction);
    c.ok("ROLLBACK");
    let hash = c.ok("SELECT commit_hash FROM dolt_log ORDER BY date DESC LIMIT 1").remove(0);
    let mut old = db.session_on(&format!("db/{hash}"));
    assert_eq!(old.ok("SELECT count(*) FROM t"), ["0", "SELECT 1"]);
    assert_eq!(old.error("INSERT INTO t VALUES (1)").code, ErrorCode::ReadOnlyTransaction);
    let readers = Database::with(EngineOptions { read_only: true, ..EngineOptions::default() });
    assert_eq!(readers.session().error("CREATE TABLE t (a int)").code, ErrorCode::ReadOnlyTransaction);
}

#[test]
fn procedures_act_on_the_session_that_calls_them() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1); SELECT dolt_commit('-Am', 'one')");
    c.ok("SELECT dolt_checkout('-b', 'side')");
    c.ok("INSERT INTO t VALUES (2)");
    assert_eq!(c.ok("SELECT active_branch(), count(*) FROM t"), ["side|2", "SELECT 1"]);
    c.ok("SELECT dolt_checkout('main')");
    assert_eq!(c.ok("SELECT active_branch(), count(*) FROM t"), ["main|1", "SELECT 1"]);
    assert_eq!(db.session_on("db/side").ok("SELECT count(*) FROM t"), ["2", "SELECT 1"]);
}

#[test]
fn what_is_not_supported_is_named() {
    let db = Database::new();
    let mut c = db.session();
    for (sql, what) in [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", "CREATE FUNCTION"),
        ("CREATE TEMP TABLE t (a int)", "temporary"),
        ("LISTEN x", "LISTEN"),
        ("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "CREATE TRIGGER"),
        ("COPY t FROM '/etc/passwd'", "COPY"),
    ] {
        let error = c.error(sql);
        assert_eq!(error.code, ErrorCode::FeatureNotSupported, "{sql}");
        assert!(error.message.contains(what), "{sql}: {}", error.message);
    }
}

#[test]
fn a_portal_of_the_protocol_is_a_cursor() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("BEGIN");
    c.0.prepare("s", "SELECT i FROM generate_series(1, 9) i", &[]).unwrap();
    c.0.bind("p", "s", Vec::new(), Vec::new()).unwrap();
    assert_eq!(c.ok("FETCH 2 FROM p"), ["1", "2", "FETCH 2"]);
    assert_eq!(c.ok("MOVE 3 FROM p"), ["MOVE 3"]);
    assert_eq!(c.ok("FETCH p"), ["6", "FETCH 1"]);
    assert_eq!(c.ok("FETCH ALL FROM p"), ["7", "8", "9", "FETCH 3"]);
    c.ok("CLOSE p; COMMIT");
    assert_eq!(c.error("FETCH 1 FROM p").code, ErrorCode::InvalidCursorName);
}

#[test]
fn an_error_of_copy_shows_the_line() {
    let db = Database::new();
    let mut c = db.session();
    c.ok("CREATE TABLE t (a int CHECK (a > 0), b text)");
    let context = |c: &mut Client, input: &str| c.copy_in("COPY t FROM stdin", input).unwrap_err().context.unwrap();
    assert_eq!(context(&mut c, "1\tx\n2\n"), "COPY t, line 2: \"2\"");
    assert_eq!(context(&mut c, "1\tx\ty\n"), "COPY t, line 1: \"1\tx\ty\"");
    assert_eq!(context(&mut c, "-1\tx\n"), "COPY t, line 1: \"-1\tx\"");
    assert_eq!(context(&mut c, "z\tx\n"), "COPY t, line 1, column a: \"z\"");
    let long = "y".repeat(150);
    assert_eq!(context(&mut c, &format!("{long}\tx\n")), format!("COPY t, line 1, column a: \"{}...\"", &long[..100]));
}
