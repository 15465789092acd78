//! A random load over ten tables of every replica identity, and the pictures of them that tests compare.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::db::{Db, explain};

/// The tables, quoted as in SQL.
pub const TABLES: [&str; 10] =
    ["t_pk", "t_comp", "t_full", "t_keyless", "t_index", "t_nothing", "t_toast", "\"Quoted Table\"", "t_types", "t_uniq"];

/// Creates the tables with their replica identities.
pub const SCHEMA: &str = r#"
CREATE TABLE t_pk (id int PRIMARY KEY, a int, b text, c numeric(12,3), d timestamptz);
CREATE TABLE t_comp (k1 int, k2 text, v jsonb, n bigint NOT NULL DEFAULT 7, PRIMARY KEY (k2, k1));
CREATE TABLE t_full (id int PRIMARY KEY, v text, w date);
ALTER TABLE t_full REPLICA IDENTITY FULL;
CREATE TABLE t_keyless (a int, b text, c real);
ALTER TABLE t_keyless REPLICA IDENTITY FULL;
CREATE TABLE t_index (id int PRIMARY KEY, u uuid NOT NULL, v bytea);
CREATE UNIQUE INDEX t_index_u ON t_index (u);
ALTER TABLE t_index REPLICA IDENTITY USING INDEX t_index_u;
CREATE TABLE t_nothing (id int PRIMARY KEY, v text);
ALTER TABLE t_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE t_toast (id int PRIMARY KEY, big text, n int);
ALTER TABLE t_toast ALTER big SET STORAGE EXTERNAL;
CREATE TABLE "Quoted Table" ("Select" int PRIMARY KEY, "a'b""c" text, "order" float8);
CREATE TABLE t_types (id bigint PRIMARY KEY, b bool, s smallint, f real, g float8, n numeric, t time, ts timestamp, iv interval,
    u uuid, bt bytea, j json, jb jsonb, ia int[], ta text[], ip inet, bi bit(5), r int4range, vc varchar(20), ch char(6), m money);
CREATE TABLE t_uniq (id int PRIMARY KEY, email text UNIQUE, n int);
CREATE INDEX t_uniq_n ON t_uniq (n);
"#;

/// A table's rows as sorted text lines.
pub type Picture = Arc<Vec<String>>;

/// Reads a table (or any row source) as a picture.
pub fn picture(db: &Db, source: &str) -> Picture {
    try_picture(db, source).unwrap_or_else(|error| panic!("{}: {source}", explain(&error)))
}

/// As [`picture`].
///
/// # Errors
/// The server's error, or the connection's.
pub fn try_picture(db: &Db, source: &str) -> Result<Picture, tokio_postgres::Error> {
    let rows = db.try_rows(&format!("SELECT * FROM {source}"))?;
    let mut lines: Vec<String> =
        rows.iter().map(|row| row.iter().map(|v| v.as_deref().unwrap_or("\\N")).collect::<Vec<_>>().join("|")).collect();
    lines.sort();
    Ok(Arc::new(lines))
}

/// Writes random transactions. The same seed gives the same statements.
pub struct Load {
    random: StdRng,
    /// Rows that exist, by table and key number; the load must not fail on duplicates.
    alive: BTreeMap<usize, Vec<i64>>,
    next: i64,
}

/// One transaction's statements and the tables that they touch.
pub struct Transaction {
    pub sql: String,
    pub tables: Vec<usize>,
}

impl Load {
    pub fn new(seed: u64) -> Load {
        Load { random: StdRng::seed_from_u64(seed), alive: BTreeMap::new(), next: 1 }
    }

    /// A transaction of one to six statements, with BEGIN and COMMIT left to the caller. It changes at least one row.
    pub fn transaction(&mut self) -> Transaction {
        let count = self.random.random_range(1..=6);
        let mut statements = Vec::new();
        let mut tables = Vec::new();
        for _ in 0..count {
            let table = self.random.random_range(0..TABLES.len());
            statements.push(self.statement(table));
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        // An update of nothing alone would be no transaction at all: the last statement always inserts.
        let table = 0;
        statements.push(self.insert(table));
        if !tables.contains(&table) {
            tables.push(table);
        }
        Transaction { sql: statements.join(";\n"), tables }
    }

    fn statement(&mut self, table: usize) -> String {
        let dice = self.random.random_range(0..100);
        // Without an identity the primary refuses updates and deletes.
        let changeable = TABLES[table] != "t_nothing";
        let alive = self.alive.get(&table).map_or(0, Vec::len);
        match dice {
            0..=1 => {
                self.alive.remove(&table);
                format!("TRUNCATE {}", TABLES[table])
            }
            2..=39 => self.insert(table),
            40..=74 if changeable && alive > 0 => self.update(table),
            75..=84 if changeable && alive > 0 => self.change_key(table),
            85..=99 if changeable && alive > 0 => self.delete(table),
            _ => self.insert(table),
        }
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 12] =
            ["a", "Zürich", "it''s", "back\\slash", "\"quoted\"", "tab\there", "line\nbreak", "", " ", "NULL", "日本語", "{x,y}"];
        let count = self.random.random_range(0..4);
        let text: String = (0..count).map(|_| *PIECES.choose(&mut self.random).expect("pieces")).collect();
        format!("'{text}'")
    }

    fn nullable(&mut self, value: String) -> String {
        if self.random.random_range(0..6) == 0 { "NULL".into() } else { value }
    }

    fn number(&mut self) -> i64 {
        self.random.random_range(-1_000_000..1_000_000)
    }

    fn pick(&mut self, table: usize) -> i64 {
        let ids = &self.alive[&table];
        ids[self.random.random_range(0..ids.len())]
    }

    fn insert(&mut self, table: usize) -> String {
        let id = self.next;
        self.next += 1;
        self.alive.entry(table).or_default().push(id);
        let values = self.values(table, id);
        format!("INSERT INTO {} VALUES ({})", TABLES[table], values.join(", "))
    }

    /// SQL values of all columns of a row with this id.
    fn values(&mut self, table: usize, id: i64) -> Vec<String> {
        let n = self.number();
        match TABLES[table] {
            "t_pk" => {
                let b = self.text();
                vec![
                    id.to_string(),
                    self.nullable(n.to_string()),
                    self.nullable(b),
                    self.nullable(format!("{}.{:03}", n % 100_000, n.unsigned_abs() % 1000)),
                    self.nullable(format!("timestamptz '2020-01-01 00:00:00+02' + {} * interval '1.000001 second'", n)),
                ]
            }
            "t_comp" => {
                let v = format!(r#"'{{"n": {n}, "z": [1, 2.50, null, "é"], "a": {{"b": true}}}}'"#);
                vec![id.to_string(), format!("'k{}'", id % 7), self.nullable(v), n.to_string()]
            }
            "t_full" => {
                let v = self.text();
                vec![id.to_string(), self.nullable(v), self.nullable(format!("date '1999-12-31' + {}", n % 10_000))]
            }
            // Equal rows on purpose: only three values of b.
            "t_keyless" => vec![(id % 5).to_string(), self.nullable(format!("'{}'", id % 3)), "1.5".into()],
            "t_index" => {
                vec![id.to_string(), format!("md5('{id}')::uuid"), self.nullable(format!("decode('{:08x}00ff', 'hex')", n as u32))]
            }
            "t_nothing" => {
                let v = self.text();
                vec![id.to_string(), v]
            }
            "t_toast" => {
                let length = self.random.random_range(1..9000);
                vec![id.to_string(), self.nullable(format!("repeat('x{id}', {length})")), n.to_string()]
            }
            "\"Quoted Table\"" => {
                let v = self.text();
                let f = ["'NaN'", "'Infinity'", "'-Infinity'", "0.1", "1e300", "-1.5e-7", "-0.0"]
                    .choose(&mut self.random)
                    .expect("some")
                    .to_string();
                vec![id.to_string(), self.nullable(v), self.nullable(f)]
            }
            "t_types" => {
                let text = self.text();
                let mut all = vec![id.to_string()];
                let candidates = [
                    (n % 2 == 0).to_string(),
                    (n % 30_000).to_string(),
                    format!("{}", n as f32 / 7.0),
                    format!("{}", n as f64 / 7.0),
                    ["'NaN'".to_string(), "'Infinity'".into(), format!("{n}.{}", "0123456789".repeat(3)), "1e-20".into(), "0.00".into()]
                        [(n % 5).unsigned_abs() as usize]
                        .clone(),
                    format!("time '00:00' + {} * interval '1 second'", n.unsigned_abs() % 86_399),
                    format!("timestamp '1970-01-01' + {n} * interval '1 minute'"),
                    format!("interval '{} months {} days {} seconds'", n % 30, n % 50, n),
                    format!("md5('{n}')::uuid"),
                    format!("'\\x{:08x}'::bytea", n as u32),
                    format!(r#"'{{"b" : {n},  "a":[1,2 ]}}'"#),
                    format!(r#"'{{"b" : {n},  "a":[1,2 ], "long key": "v"}}'"#),
                    format!("ARRAY[{n}, NULL, 3]"),
                    format!("ARRAY[{text}, 'a,b', NULL]::text[]"),
                    format!("'10.{}.0.1/24'", n.unsigned_abs() % 256),
                    format!("B'{:05b}'", n.unsigned_abs() % 32),
                    format!("int4range({}, {})", n, n + 5),
                    "'varying'".into(),
                    "'ab'".into(),
                    format!("'{}.25'::money", n % 1000),
                ];
                for candidate in candidates {
                    all.push(self.nullable(candidate));
                }
                all
            }
            "t_uniq" => vec![id.to_string(), self.nullable(format!("'user{id}@example.com'")), (n % 10).to_string()],
            other => panic!("no such table: {other}"),
        }
    }

    fn update(&mut self, table: usize) -> String {
        let id = self.pick(table);
        let name = TABLES[table];
        let values = self.values(table, id);
        match name {
            "t_pk" => format!("UPDATE t_pk SET a = {}, b = {} WHERE id = {id}", values[1], values[2]),
            "t_comp" => format!("UPDATE t_comp SET v = {} WHERE k1 = {id}", values[2]),
            "t_full" => format!("UPDATE t_full SET v = {} WHERE id = {id}", values[1]),
            "t_keyless" => format!("UPDATE t_keyless SET c = c + 1 WHERE a = {}", id % 5),
            "t_index" => format!("UPDATE t_index SET v = {} WHERE id = {id}", values[2]),
            // The big value stays as it is: sent as "unchanged".
            "t_toast" => format!("UPDATE t_toast SET n = {} WHERE id = {id}", values[2]),
            "\"Quoted Table\"" => format!("UPDATE \"Quoted Table\" SET \"a'b\"\"c\" = {} WHERE \"Select\" = {id}", values[1]),
            "t_types" => format!("UPDATE t_types SET n = {}, jb = {}, ta = {} WHERE id = {id}", values[5], values[12], values[14]),
            "t_uniq" => format!("UPDATE t_uniq SET n = {} WHERE n = {}", values[2], id % 10),
            other => panic!("no such table: {other}"),
        }
    }

    fn change_key(&mut self, table: usize) -> String {
        let id = self.pick(table);
        let new = self.next;
        self.next += 1;
        let sql = match TABLES[table] {
            "t_comp" => format!("UPDATE t_comp SET k1 = {new}, k2 = 'moved' WHERE k1 = {id}"),
            "t_keyless" => format!("UPDATE t_keyless SET a = {} WHERE a = {}", new % 5, id % 5),
            // The primary key changes, the identity index does not; then the other way round.
            "t_index" if new % 2 == 0 => format!("UPDATE t_index SET id = {new} WHERE id = {id}"),
            "t_index" => return format!("UPDATE t_index SET u = md5('n{new}')::uuid WHERE id = {id}"),
            "\"Quoted Table\"" => format!("UPDATE \"Quoted Table\" SET \"Select\" = {new} WHERE \"Select\" = {id}"),
            "t_uniq" if new % 2 == 0 => return format!("UPDATE t_uniq SET email = 'new{new}@example.com' WHERE id = {id}"),
            name => format!("UPDATE {name} SET id = {new} WHERE id = {id}"),
        };
        if TABLES[table] != "t_keyless" {
            self.forget(table, id);
            self.alive.entry(table).or_default().push(new);
        }
        sql
    }

    fn delete(&mut self, table: usize) -> String {
        let id = self.pick(table);
        self.forget(table, id);
        match TABLES[table] {
            "t_comp" => format!("DELETE FROM t_comp WHERE k1 = {id}"),
            "t_keyless" => format!("DELETE FROM t_keyless WHERE ctid IN (SELECT ctid FROM t_keyless WHERE a = {} LIMIT 2)", id % 5),
            "\"Quoted Table\"" => format!("DELETE FROM \"Quoted Table\" WHERE \"Select\" = {id}"),
            name => format!("DELETE FROM {name} WHERE id = {id}"),
        }
    }

    fn forget(&mut self, table: usize, id: i64) {
        if let Some(ids) = self.alive.get_mut(&table) {
            ids.retain(|i| *i != id);
        }
    }
}
