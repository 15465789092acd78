//! A load with every kind of message that a primary sends.
//!
//! One thread drives several connections, so what is open at a moment is known, and nothing is committed while the primary's tables are looked at:
//!
//! | kind | what |
//! |---|---|
//! | rows | the tables of [`sample`], with all replica identities, changed keys and values that are kept out of line and unchanged |
//! | truncated | several tables at once, with sequences, and by CASCADE |
//! | definitions | columns added, dropped, renamed and retyped between rows of one transaction, types made, replica identities changed |
//! | messages | transactional ones, which are the commit's context, others, and those that belong to no transaction |
//! | origins | transactions that the primary has from elsewhere |
//! | long | two transactions that run beside the others and beside each other, large enough to be streamed, with savepoints that are rolled back |
//! | two phases | transactions, long ones too, that are prepared and later committed or rolled back |
//! | nothing | transactions that change nothing, or nothing that is published, and those that are rolled back |
//! | publications | tables with rows that join a publication, and tables that leave it |
//!
//! Every transaction leaves its id, its context and its origin in `ledger`. What a crash leaves undecided (was it committed?) is asked afterwards where it matters.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::db::Db;
use crate::sample::{self, Load, Picture, TABLES};

/// The primary's settings that the load needs.
pub const SETTINGS: [&str; 5] = [
    "synchronous_commit = on",
    "wal_sender_timeout = 10s",
    "logical_decoding_work_mem = 64kB",
    "max_prepared_transactions = 10",
    // What would hang must not hang the test.
    "lock_timeout = 60s",
];

const SCHEMA: &str = "
CREATE TABLE ledger (xid bigint PRIMARY KEY, context jsonb, origin text);
CREATE TABLE parent (id serial PRIMARY KEY, v text);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent (id), v text);
CREATE TABLE shifting (id int PRIMARY KEY, v text);
CREATE TABLE long0 (id int PRIMARY KEY, filler text, n int);
CREATE TABLE long1 (id int PRIMARY KEY, filler text, n int);
ALTER TABLE long1 REPLICA IDENTITY FULL;
CREATE TABLE two_phase (id int PRIMARY KEY, gid int, v text);
CREATE TABLE unpublished (id int);
SELECT pg_replication_origin_create('elsewhere');
";

/// Those beside the tables of `sample`.
const OWN_TABLES: [&str; 7] = ["ledger", "parent", "child", "shifting", "long0", "long1", "two_phase"];

/// So many tables join soon; the next one each after more steps than the one before.
const JOINING_SOON: usize = 4;
const JOINING_STEPS: u64 = 400;

/// So many small transactions are prepared at a time.
const PREPARED_MAX: usize = 3;

/// Columns that `shifting` may have beside its first two.
const SHIFTING_MAX: usize = 6;

/// What the subscriber follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definitions {
    /// Everything, by DDL capture.
    All,
    /// Columns that are added, which Relation messages alone tell.
    Additions,
}

/// Makes the tables and the publication `strandline`.
pub fn create_tables(source: &Db) {
    source.execute(sample::SCHEMA);
    source.execute(SCHEMA);
    let all: Vec<&str> = TABLES.into_iter().chain(OWN_TABLES).collect();
    source.execute(&format!("CREATE PUBLICATION strandline FOR TABLE {}", all.join(", ")));
}

/// Says whether a table of the load was not published from the beginning.
pub fn joins_later(table: &str) -> bool {
    table.starts_with("join")
}

/// A picture of a table, from `source`: the table or what it was. That of a table whose columns change begins with their names.
///
/// # Errors
/// The server's error, or the connection's.
pub fn try_picture(db: &Db, table: &str, source: &str) -> Result<Picture, tokio_postgres::Error> {
    let picture = sample::try_picture(db, source)?;
    if table != "shifting" {
        return Ok(picture);
    }
    let mut lines = Vec::clone(&picture);
    let names: Vec<String> = db.try_describe(&format!("SELECT * FROM {source}"))?.into_iter().map(|(name, _)| name).collect();
    lines.insert(0, names.join(" "));
    Ok(lines.into())
}

/// Why a step was not done.
pub enum Failure {
    /// The connection is gone, and with it what was open.
    Gone,
    /// The primary said no.
    Refused(tokio_postgres::Error),
}

type Outcome<T = ()> = Result<T, Failure>;

fn failure(error: tokio_postgres::Error) -> Failure {
    // 57P01 to 57P03: the primary ends or begins; 08: the connection is lost.
    let passes = error.code().is_none_or(|code| code.code().starts_with("57P") || code.code().starts_with("08"));
    if passes || error.is_closed() { Failure::Gone } else { Failure::Refused(error) }
}

/// A transaction beside the others.
#[derive(Default)]
struct Long {
    db: Option<Db>,
    is_open: bool,
    is_prepared: bool,
    steps_left: u32,
}

/// The load and the connections that it has.
pub struct Mixed {
    random: StdRng,
    rows: Load,
    definitions: Definitions,
    main: Option<Db>,
    long: [Long; 2],
    /// By the numbers of the small transactions that are prepared.
    prepared: Vec<usize>,
    next: i64,
    /// Tables that have joined the publication.
    joined: Vec<String>,
    /// Tables that have left it, as they were then.
    left: BTreeMap<String, Picture>,
    /// A table that is leaving, if the command came through.
    leaving: Option<(String, Picture)>,
    joined_count: usize,
    step_count: u64,
    /// How often each kind of transaction came through.
    kinds: BTreeMap<&'static str, u64>,
}

impl Mixed {
    pub fn new(seed: u64, definitions: Definitions) -> Mixed {
        Mixed {
            random: StdRng::seed_from_u64(seed),
            rows: Load::new(seed),
            definitions,
            main: None,
            long: Default::default(),
            prepared: Vec::new(),
            next: 1,
            joined: Vec::new(),
            left: BTreeMap::new(),
            leaving: None,
            joined_count: 0,
            step_count: 0,
            kinds: BTreeMap::new(),
        }
    }

    /// The tables to compare, at a moment or at the end.
    fn tables(&self) -> Vec<String> {
        TABLES.into_iter().chain(OWN_TABLES).map(str::to_owned).chain(self.joined.iter().cloned()).collect()
    }

    /// Connects where there is no connection, and asks what is open there.
    ///
    /// # Errors
    /// `Gone` while the primary does not answer.
    pub fn connect(&mut self, conninfo: &str) -> Outcome {
        if self.main.is_some() {
            return Ok(());
        }
        let db = Db::connect(conninfo).map_err(failure)?;
        let gids = db.try_rows("SELECT gid FROM pg_prepared_xacts").map_err(failure)?;
        let gids: Vec<String> = gids.into_iter().flatten().flatten().collect();
        self.prepared = (0..PREPARED_MAX).filter(|n| gids.contains(&format!("small{n}"))).collect();
        for (n, long) in self.long.iter_mut().enumerate() {
            *long = Long { is_prepared: gids.contains(&format!("long{n}")), ..Long::default() };
            long.db = Some(Db::connect(conninfo).map_err(failure)?);
        }
        let published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'strandline' AND tablename LIKE 'join%'";
        let published: Vec<String> = db.try_rows(published).map_err(failure)?.into_iter().flatten().flatten().collect();
        if let Some((table, picture)) = self.leaving.take()
            && !published.contains(&table)
        {
            self.left.insert(table, picture);
        }
        self.joined = published;
        self.main = Some(db);
        Ok(())
    }

    /// Drops all connections, and what was open on them.
    pub fn disconnect(&mut self) {
        self.main = None;
        self.long = Default::default();
    }

    /// One step, on one of the connections. Says whether a transaction was committed that the subscriber is to have.
    ///
    /// # Errors
    /// `Gone`; `Refused` for what is a mistake of the load.
    pub fn step(&mut self) -> Outcome<bool> {
        self.step_count += 1;
        let (kind, done) = match self.random.random_range(0..100) {
            0..=39 => ("rows", self.rows()),
            40..=45 => ("of an origin", self.origin()),
            46..=51 => ("nothing", self.nothing()),
            52..=56 => ("truncated", self.truncate()),
            57..=62 => ("definitions", self.shift()),
            // These tell by themselves what they were.
            63..=84 => return self.long(),
            85..=93 => return self.two_phase(),
            94 => return self.join_or_leave(),
            _ => ("joined rows", self.joined_rows()),
        };
        if done.is_ok() {
            self.note(kind);
        }
        done
    }

    fn note(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// How many transactions of each kind came through, and how many tables joined and left.
    pub fn kinds(&self) -> &BTreeMap<&'static str, u64> {
        &self.kinds
    }

    /// How many bytes of the primary's log the slowest slot has not confirmed.
    ///
    /// # Errors
    /// As of [`Mixed::step`].
    pub fn lag(&self) -> Outcome<u64> {
        const SQL: &str =
            "SELECT coalesce(max(pg_current_wal_lsn() - confirmed_flush_lsn), 0) FROM pg_replication_slots WHERE NOT temporary";
        let rows = self.main()?.try_rows(SQL).map_err(failure)?;
        Ok(rows.into_iter().flatten().flatten().next().and_then(|lag| lag.parse().ok()).unwrap_or(0))
    }

    /// Ends what is open, so that all can be compared.
    ///
    /// # Errors
    /// As of [`Mixed::step`].
    pub fn end(&mut self) -> Outcome {
        while self.long.iter().any(|long| long.is_open || long.is_prepared) {
            self.long()?;
        }
        while !self.prepared.is_empty() {
            self.resolve()?;
        }
        // A table joins by its first change.
        for table in self.joined.clone() {
            self.joined_row(&table)?;
        }
        Ok(())
    }

    /// What the tables are now: nobody else writes. Also an LSN behind which nothing of that was committed, and where what comes later is not: the last byte that was
    /// flushed. (The next commit record may begin right behind it; and what was not flushed, a crash may write anew.)
    ///
    /// # Errors
    /// As of [`Mixed::step`].
    pub fn look(&self) -> Outcome<(String, Vec<(String, Picture)>)> {
        let db = self.main()?;
        let rows = db.try_rows("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_wal_flush_lsn() - 1").map_err(failure)?;
        let lsn = rows.into_iter().flatten().flatten().next().ok_or(Failure::Gone)?;
        let mut pictures = Vec::new();
        for table in self.tables() {
            let picture = try_picture(db, &table, &table).map_err(failure)?;
            pictures.push((table, picture));
        }
        db.try_execute("COMMIT").map_err(failure)?;
        Ok((lsn, pictures))
    }

    /// Tables that left the publication, as they were then.
    pub fn left(&self) -> &BTreeMap<String, Picture> {
        &self.left
    }

    fn main(&self) -> Outcome<&Db> {
        self.main.as_ref().ok_or(Failure::Gone)
    }

    fn run(&self, sql: &str) -> Outcome {
        self.main()?.try_execute(sql).map_err(failure)
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_ratio(1, count)
    }

    /// A message that becomes the commit's context, or none, and the ledger's row that says so.
    fn signed(&mut self, origin: Option<&str>) -> String {
        let origin = origin.map_or_else(|| "NULL".to_owned(), |origin| format!("'{origin}'"));
        let n = self.number();
        let context = format!(r#"{{"user": "it''s me", "n": {n}}}"#);
        match self.random.random_range(0..3) {
            0 => format!(
                r#"SELECT pg_logical_emit_message(true, 'strandline', '{{"n": "replaced"}}');
                   SELECT pg_logical_emit_message(true, 'strandline', '{context}'); INSERT INTO ledger VALUES (txid_current(), '{context}', {origin})"#
            ),
            1 => {
                format!("SELECT pg_logical_emit_message(true, 'another', 'x'); INSERT INTO ledger VALUES (txid_current(), NULL, {origin})")
            }
            _ => format!("INSERT INTO ledger VALUES (txid_current(), NULL, {origin})"),
        }
    }

    fn rows(&mut self) -> Outcome<bool> {
        let mut sql = format!("BEGIN; {};", self.rows.transaction().sql);
        if self.one_in(4) {
            // The load's model believes in no row of it.
            let id = -self.number();
            sql.push_str(&format!(
                "SAVEPOINT a; INSERT INTO t_full VALUES ({id}, 'undone'); SAVEPOINT b; UPDATE t_pk SET a = 0; ROLLBACK TO a; RELEASE a;"
            ));
        }
        if self.one_in(5) {
            sql.push_str("SELECT pg_logical_emit_message(false, 'strandline', 'of no transaction');");
        }
        sql.push_str(&self.signed(None));
        self.run(&format!("{sql}; COMMIT"))?;
        Ok(true)
    }

    fn origin(&mut self) -> Outcome<bool> {
        let (id, signed) = (self.number(), self.signed(Some("elsewhere")));
        self.run("SELECT pg_replication_origin_session_setup('elsewhere')")?;
        self.run(&format!(
            "BEGIN; SELECT pg_replication_origin_xact_setup('0/{id:X}', now()); INSERT INTO parent (v) VALUES ('from elsewhere {id}'); {signed}; COMMIT"
        ))?;
        self.run("SELECT pg_replication_origin_session_reset()")?;
        Ok(true)
    }

    fn nothing(&mut self) -> Outcome<bool> {
        let sql = match self.random.random_range(0..6) {
            0 => "BEGIN; SELECT txid_current(); COMMIT",
            1 => "INSERT INTO unpublished VALUES (1)",
            2 => "BEGIN; INSERT INTO parent (v) SELECT repeat('undone', 100) FROM generate_series(1, 200); ROLLBACK",
            3 => "BEGIN; SELECT id FROM parent LIMIT 3 FOR UPDATE; SELECT txid_current(); COMMIT",
            // Without the list of running transactions that this writes, and that a primary which crashes every second never writes by itself, decoding begins
            // ever further back.
            4 => "CHECKPOINT",
            _ => "SELECT pg_logical_emit_message(false, 'strandline', repeat('x', 5000))",
        };
        self.run(sql)?;
        Ok(false)
    }

    fn truncate(&mut self) -> Outcome<bool> {
        let signed = self.signed(None);
        let insert = "INSERT INTO parent (v) VALUES ('p'), ('q'); INSERT INTO child (parent, v) SELECT id, 'c' || id FROM parent ORDER BY id DESC LIMIT 3";
        let sql = match self.random.random_range(0..6) {
            0 => format!("{insert}; TRUNCATE parent CASCADE; {insert}"),
            1 => format!("TRUNCATE parent, child RESTART IDENTITY; {insert}"),
            2 => format!("SAVEPOINT a; TRUNCATE parent CASCADE; ROLLBACK TO a; {insert}"),
            _ => insert.to_owned(),
        };
        self.run(&format!("BEGIN; {sql}; {signed}; COMMIT"))?;
        Ok(true)
    }

    /// Changes the definition of a table in the midst of its rows.
    fn shift(&mut self) -> Outcome<bool> {
        let sql = "SELECT a.attname, t.typtype, a.atttypid::regtype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                   WHERE attrelid = 'shifting'::regclass AND attnum > 2 AND NOT attisdropped ORDER BY attnum";
        let columns = self.main()?.try_rows(sql).map_err(failure)?;
        let columns: Vec<[String; 3]> =
            columns.into_iter().filter_map(|row| row.into_iter().collect::<Option<Vec<_>>>()?.try_into().ok()).collect();
        let (n, signed) = (self.number(), self.signed(None));
        let (all, has_room) = (self.definitions == Definitions::All, columns.len() < SHIFTING_MAX);
        let column = columns.choose(&mut self.random).cloned();
        let identity = ["DEFAULT", "FULL"].choose(&mut self.random).expect("one of them");
        let ddl = match (self.random.random_range(0..8), column) {
            (0, Some([name, ..])) if all => format!("ALTER TABLE shifting DROP COLUMN {name}"),
            (1, Some([name, ..])) if all => format!("ALTER TABLE shifting RENAME COLUMN {name} TO c{n}"),
            (2, Some([name, _, of])) if all && of == "integer" => format!("ALTER TABLE shifting ALTER COLUMN {name} TYPE bigint"),
            (3, _) if all && has_room => {
                format!("CREATE TYPE mood{n} AS ENUM ('sad', 'it''s ok'); ALTER TABLE shifting ADD COLUMN c{n} mood{n} DEFAULT 'sad'")
            }
            (4, _) if all && has_room => format!("ALTER TABLE shifting ADD COLUMN c{n} text DEFAULT 'default {n}'"),
            (5 | 6, _) if has_room => format!("ALTER TABLE shifting ADD COLUMN c{n} int"),
            // Messages about columns that a savepoint takes back.
            (7, _) if all => format!(
                "SAVEPOINT a; ALTER TABLE shifting ADD COLUMN lost int DEFAULT 7; INSERT INTO shifting (id, lost) VALUES (-{n}, 1); ROLLBACK TO a"
            ),
            _ => format!("ALTER TABLE shifting REPLICA IDENTITY {identity}"),
        };
        let (a, b) = (self.number(), self.number());
        // Columns that come later have no value here but their default.
        self.run(&format!(
            "BEGIN; INSERT INTO shifting (id, v) VALUES ({a}, 'before'); UPDATE shifting SET v = v || '.' WHERE id % 7 = {n} % 7; {ddl};
             INSERT INTO shifting (id, v) VALUES ({b}, 'after'); UPDATE shifting SET v = left(v, 20) || ',' WHERE id % 5 = {n} % 5;
             DELETE FROM shifting WHERE id < {n} - 1000; {signed}; COMMIT"
        ))?;
        Ok(true)
    }

    /// Goes on with one of the long transactions.
    fn long(&mut self) -> Outcome<bool> {
        let which = self.random.random_range(0..2);
        let (base, signed) = (self.number() * 1000, self.signed(None));
        let (dice, end, rest) = (self.random.random_range(0..8), self.random.random_range(0..10), self.random.random_range(2..9));
        let name = format!("long{which}");
        let long = &mut self.long[which];
        let db = long.db.as_ref().ok_or(Failure::Gone)?;
        let run = |sql: &str| db.try_execute(sql).map_err(failure);
        if long.is_prepared {
            let word = if end < 7 { "COMMIT" } else { "ROLLBACK" };
            run(&format!("{word} PREPARED '{name}'"))?;
            long.is_prepared = false;
            self.note(if word == "COMMIT" { "long, prepared and committed" } else { "long, prepared and rolled back" });
            return Ok(word == "COMMIT");
        }
        if !long.is_open {
            run("BEGIN")?;
            (long.is_open, long.steps_left) = (true, rest);
        }
        // Row by row about 200 bytes: three of these are more than logical_decoding_work_mem.
        let insert =
            |at: i64| format!("INSERT INTO {name} SELECT {at} + g, repeat(md5(({at} + g)::text), 5), g FROM generate_series(1, 120) g");
        if long.steps_left > 0 {
            long.steps_left -= 1;
            run(&match dice {
                0 | 1 => insert(base),
                2 => format!("UPDATE {name} SET n = n + 1 WHERE id % 9 = {base} / 1000 % 9"),
                3 => format!("DELETE FROM {name} WHERE id % 11 = {base} / 1000 % 11"),
                4 => format!("SAVEPOINT a; {}; ROLLBACK TO a; {}", insert(base), insert(base + 500)),
                5 => format!("SAVEPOINT a; {}; SAVEPOINT b; {}; ROLLBACK TO b; RELEASE a", insert(base), insert(base + 500)),
                6 => format!("SAVEPOINT a; {}; SAVEPOINT b; {}; RELEASE b; ROLLBACK TO a", insert(base), insert(base + 500)),
                _ => {
                    format!("SAVEPOINT a; UPDATE {name} SET id = -id WHERE id % 13 = 1; RELEASE a; UPDATE {name} SET id = -id WHERE id < 0")
                }
            })?;
            return Ok(false);
        }
        long.is_open = false;
        let (kind, is_committed) = match end {
            0 | 1 => {
                run("ROLLBACK")?;
                ("long, rolled back", false)
            }
            2..=4 => {
                run(&format!("{signed}; PREPARE TRANSACTION '{name}'"))?;
                long.is_prepared = true;
                return Ok(false);
            }
            // What others could not read past comes together with the end.
            5 => {
                run(&format!("TRUNCATE {name}; {}; {signed}; COMMIT", insert(base)))?;
                ("long, truncated", true)
            }
            6 if self.definitions == Definitions::All => {
                run(&format!(
                    "ALTER TABLE {name} ADD COLUMN extra int DEFAULT 5; {}; UPDATE {name} SET extra = 6 WHERE id % 3 = 0;
                     ALTER TABLE {name} DROP COLUMN extra; {signed}; COMMIT",
                    insert(base)
                ))?;
                ("long, with definitions", true)
            }
            _ => {
                run(&format!("{signed}; COMMIT"))?;
                ("long, committed", true)
            }
        };
        self.note(kind);
        Ok(is_committed)
    }

    fn two_phase(&mut self) -> Outcome<bool> {
        let free = (0..PREPARED_MAX).find(|n| !self.prepared.contains(n));
        let Some(gid) = free.filter(|_| self.prepared.is_empty() || self.random.random_ratio(1, 2)) else { return self.resolve() };
        let (a, b, signed) = (self.number(), self.number(), self.signed(None));
        self.run(&format!(
            "BEGIN; INSERT INTO two_phase VALUES ({a}, {gid}, 'a'), ({b}, {gid}, 'b'); SAVEPOINT a; DELETE FROM two_phase WHERE gid = {gid}; ROLLBACK TO a;
             UPDATE two_phase SET v = v || 'u' WHERE gid = {gid} AND id % 3 = 0; UPDATE two_phase SET id = -id WHERE gid = {gid} AND id % 4 = 0;
             DELETE FROM two_phase WHERE gid = {gid} AND id % 5 = 0; {signed}; PREPARE TRANSACTION 'small{gid}'"
        ))?;
        self.prepared.push(gid);
        Ok(false)
    }

    fn resolve(&mut self) -> Outcome<bool> {
        let Some(gid) = self.prepared.choose(&mut self.random).copied() else { return Ok(false) };
        let word = if self.one_in(3) { "ROLLBACK" } else { "COMMIT" };
        self.run(&format!("{word} PREPARED 'small{gid}'"))?;
        self.prepared.retain(|n| *n != gid);
        self.note(if word == "COMMIT" { "prepared and committed" } else { "prepared and rolled back" });
        Ok(word == "COMMIT")
    }

    /// A table that has rows joins the publication, or one leaves it.
    fn join_or_leave(&mut self) -> Outcome<bool> {
        if self.joined.len() >= 2 {
            let table = self.joined.remove(0);
            let picture = try_picture(self.main()?, &table, &table).map_err(failure)?;
            self.leaving = Some((table.clone(), picture));
            self.run(&format!("ALTER PUBLICATION strandline DROP TABLE {table}"))?;
            self.left.extend(self.leaving.take());
            self.note("tables that left");
        } else if self.joined_count < JOINING_SOON + (self.step_count / JOINING_STEPS).isqrt() as usize {
            let table = format!("join{}", self.joined_count);
            self.joined_count += 1;
            self.run(&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, v text); INSERT INTO {table} SELECT g, 'old ' || g FROM generate_series(1, 300) g"
            ))?;
            self.run(&format!("ALTER PUBLICATION strandline ADD TABLE {table}"))?;
            self.joined.push(table);
            self.note("tables that joined");
            return self.joined_rows();
        }
        Ok(false)
    }

    fn joined_rows(&mut self) -> Outcome<bool> {
        let Some(table) = self.joined.choose(&mut self.random).cloned() else { return self.rows() };
        self.joined_row(&table)?;
        Ok(true)
    }

    fn joined_row(&mut self, table: &str) -> Outcome {
        let (n, signed) = (self.number(), self.signed(None));
        self.run(&format!(
            "BEGIN; INSERT INTO {table} VALUES (1000 + {n}, 'new'); UPDATE {table} SET v = 'updated {n}' WHERE id % 10 = {n} % 10;
             DELETE FROM {table} WHERE id % 50 = {n} % 50; INSERT INTO parent (v) VALUES ('beside {table}'); {signed}; COMMIT"
        ))
    }
}
