//! pgbench's tables and transactions (three updates, one insert) against the store.

use std::sync::Arc;

use strandline_storage::commit::{CommitMeta, Identity, Source};
use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID, TableSchema};
use strandline_storage::value::{DataType, Kind};
use strandline_storage::{Branch, JournalPosition, Lsn, Oid, Store, Timestamp, Value};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub const ACCOUNTS: Oid = 16400;
const TELLERS: Oid = 16410;
const BRANCHES: Oid = 16420;
const HISTORY: Oid = 16430;

fn column(attnum: i16, name: &str, kind: Kind) -> Column {
    let (oid, type_name) = match kind {
        Kind::Int4 => (23, "int4"),
        Kind::Timestamp => (1114, "timestamp"),
        _ => (1042, "bpchar"),
    };
    Column {
        name: name.into(),
        attnum,
        data_type: DataType { oid, typmod: -1, name: type_name.into(), kind, element: None },
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    }
}

fn table(oid: Oid, name: &str, keyed: bool, columns: &[(&str, Kind)]) -> TableSchema {
    let key = IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false };
    let primary_key = keyed.then(|| Index {
        oid: oid + 1,
        name: format!("{name}_pkey"),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![key],
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    });
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "postgres".into(),
        columns: columns.iter().zip(1..).map(|((name, kind), attnum)| column(attnum, name, *kind)).collect(),
        next_attnum: columns.len() as i16 + 1,
        primary_key,
        indexes: vec![],
        constraints: vec![],
        merged_columns: vec![],
        comment: None,
    }
}

/// A table like the accounts.
#[allow(dead_code, reason = "not each benchmark has another one")]
pub fn accounts_table(oid: Oid, name: &str) -> TableSchema {
    table(oid, name, true, &BALANCE)
}

const BALANCE: [(&str, Kind); 4] = [("id", Kind::Int4), ("bid", Kind::Int4), ("balance", Kind::Int4), ("filler", Kind::Bpchar)];

/// Coordinates of transaction `n` in the source.
pub fn meta(n: u64) -> CommitMeta {
    let author = Identity { name: "postgres".into(), email: "postgres@127.0.0.1".into() };
    let time = Timestamp(800_000_000_000_000 + n as i64 * 40);
    // Applied some time later, at a pace of its own.
    let here = Timestamp(time.0 + 5_000_000 + (n as i64 * 7919) % 97);
    let lsn = Lsn(0x16B_3748 + n * 536);
    let source = Source { end_lsn: Lsn(lsn.0 + 48), commit_lsn: lsn, xid: n as u32 + 700, commit_time: time, ..Source::default() };
    CommitMeta {
        committer: author.clone(),
        author,
        author_time: time,
        commit_time: here,
        message: format!("replicated transaction {} at {lsn}", n + 700),
        source: Some(source),
    }
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Makes the tables, in the commit of number 0.
pub fn load(store: &Store, branch: &Arc<Branch>, accounts: i32) -> Outcome<()> {
    let mut load = branch.begin_apply(true)?;
    for (oid, name, count) in
        [(ACCOUNTS, "accounts", accounts), (TELLERS, "tellers", 10 * scale(accounts)), (BRANCHES, "branches", scale(accounts))]
    {
        load.put_table(table(oid, name, true, &BALANCE))?;
        let row = |id| Ok(vec![Value::Int4(id), Value::Int4(1), Value::Int4(0), Value::bytes([b' '; 84])]);
        load.replace_rows(oid, &mut (0..count).map(row))?;
    }
    let columns = [
        ("tid", Kind::Int4),
        ("bid", Kind::Int4),
        ("aid", Kind::Int4),
        ("delta", Kind::Int4),
        ("mtime", Kind::Timestamp),
        ("filler", Kind::Bpchar),
    ];
    load.put_table(table(HISTORY, "history", false, &columns))?;
    load.commit(meta(0))?;
    store.checkpoint()?;
    store.sync()?;
    Ok(())
}

/// The numbers that transactions are made of.
#[allow(dead_code, reason = "not every benchmark makes them")]
pub struct Random(u64);

#[allow(dead_code, reason = "not every benchmark makes them")]
impl Random {
    pub fn new() -> Self {
        Random(1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

/// Makes and commits transaction `n`, on this account.
#[allow(dead_code, reason = "not every benchmark makes them")]
pub fn transact(branch: &Arc<Branch>, n: u64, aid: i32, random: u64) -> Outcome<()> {
    let (tid, delta) = ((random >> 40) as i32 % 10, (random >> 50) as i32 % 10_000 - 5000);
    let mut apply = branch.begin_apply(false)?;
    for (oid, id) in [(ACCOUNTS, aid), (TELLERS, tid), (BRANCHES, 0)] {
        let data = apply.root().table(oid).ok_or("no table")?;
        let key = data.key_prefix(None, &[Value::Int4(id)])?;
        // What a replicated update brings: the whole new row, most of it as it was.
        apply.update_columns(oid, &key, &[(1, Value::Int4(1)), (2, Value::Int4(delta)), (3, Value::bytes([b' '; 84]))])?;
    }
    let time = Value::Int8(800_000_000_000_000 + n as i64 * 40);
    apply.insert(HISTORY, vec![Value::Int4(tid), Value::Int4(1), Value::Int4(aid), Value::Int4(delta), time, Value::Null])?;
    apply.commit(meta(n))?;
    Ok(())
}

/// How many branches there are.
fn scale(accounts: i32) -> i32 {
    (accounts / 100_000).max(1)
}

/// What the primary has: the balances, and the numbers that transactions are made of.
#[allow(dead_code, reason = "not every benchmark makes them")]
pub struct Primary {
    random: u64,
    /// Of accounts, tellers and branches.
    balances: [Vec<i32>; 3],
}

#[allow(dead_code, reason = "not every benchmark makes them")]
impl Primary {
    pub fn new(accounts: i32) -> Self {
        let scale = scale(accounts);
        Primary { random: 1, balances: [accounts, 10 * scale, scale].map(|count| vec![0; count as usize]) }
    }

    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random
    }

    /// What the source says of transaction `n`, on this account or on any.
    pub fn input(&mut self, n: u64, aid: Option<i32>) -> Input {
        let any = (self.random() >> 33) as i32 % self.balances[0].len() as i32;
        let aid = aid.unwrap_or(any);
        let random = self.random();
        let tid = (random >> 40) as i32 % self.balances[1].len() as i32;
        let (bid, delta) = (tid / 10, ((random >> 20) % 10_000) as i32 - 5000);
        let mut update = |at: usize, oid, id: i32| {
            let balance = &mut self.balances[at][id as usize];
            *balance = balance.wrapping_add(delta);
            // What a replicated update brings: the whole new row, most of it as it was.
            (oid, Value::Int4(id), [(1, Value::Int4(1)), (2, Value::Int4(*balance)), (3, Value::bytes([b' '; 84]))])
        };
        let updates = [update(0, ACCOUNTS, aid), update(1, TELLERS, tid), update(2, BRANCHES, bid)];
        let time = Value::Int8(800_000_000_000_000 + n as i64 * 40 - ((random >> 30) % 1000) as i64);
        let inserted = vec![Value::Int4(tid), Value::Int4(bid), Value::Int4(aid), Value::Int4(delta), time, Value::Null];
        Input { updates, inserted, meta: meta(n) }
    }

    /// Makes and commits transaction `n`, on this account or on any; returns when it is durable.
    pub fn transact(&mut self, branch: &Arc<Branch>, n: u64, aid: Option<i32>) -> Outcome<JournalPosition> {
        let Input { updates, inserted, meta } = self.input(n, aid);
        let mut apply = branch.begin_apply(false)?;
        for (oid, id, columns) in updates {
            let data = apply.root().table(oid).ok_or("no table")?;
            let key = data.key_prefix(None, &[id])?;
            apply.update_columns(oid, &key, &columns)?;
        }
        apply.insert(HISTORY, inserted)?;
        Ok(apply.commit(meta)?.1)
    }
}

/// What a source says of a transaction: for each update its table, its row's number and the columns; and the inserted row.
#[allow(dead_code, reason = "not every benchmark makes them")]
pub struct Input {
    updates: [(Oid, Value, [(u16, Value); 3]); 3],
    inserted: Vec<Value>,
    meta: CommitMeta,
}
