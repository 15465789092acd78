//! Opening a store that was not closed: time and memory, by the number of commits and by size; then what it takes to find a commit.
//!
//! `STRANDLINE_BENCH_COMMITS` (100000; several with commas between) are the histories of one-row transactions,
//! `STRANDLINE_BENCH_GIB` (0) the size of a store of big rows. Stores are made in the folder for temporary files and deleted.
//! Each is opened by a process of its own, so that its memory is what opening took.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use strandline_storage::commit::{CommitMeta, Identity, Source};
use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID, TableSchema};
use strandline_storage::value::{DataType, Kind};
use strandline_storage::{Lsn, Store, StoreOptions, Timestamp, Value};

const TABLE: u32 = 16400;
const ROW_COUNT: i32 = 1000;
/// Of the store of big rows.
const BIG_ROW_SIZE: usize = 1000;
const BIG_ROW_COUNT: i32 = 500_000;

type Failure = Box<dyn std::error::Error>;

fn column(attnum: i16, name: &str, kind: Kind) -> Column {
    let (oid, type_name) = if kind == Kind::Int4 { (23, "int4") } else { (17, "bytea") };
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

fn table(oid: u32, name: &str) -> TableSchema {
    let primary_key = Index {
        oid: oid + 1,
        name: format!("{name}_pkey"),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false }],
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    };
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "postgres".into(),
        columns: vec![column(1, "id", Kind::Int4), column(2, "v", Kind::Bytea)],
        next_attnum: 3,
        primary_key: Some(primary_key),
        indexes: vec![],
        constraints: vec![],
        comment: None,
        merged_columns: vec![],
    }
}

fn meta(n: u64) -> CommitMeta {
    let author = Identity { name: "replicator".into(), email: "replicator@primary".into() };
    // Neighbours finish in another order than their commit times now and then.
    let time = Timestamp(800_000_000_000_000 + n as i64 * 40 + (n % 13) as i64 * 50);
    let lsn = Lsn(0x16B_3748 + n * 600);
    let source = Source { end_lsn: Lsn(lsn.0 + 48), commit_lsn: lsn, xid: n as u32 + 700, commit_time: time, ..Source::default() };
    CommitMeta {
        committer: author.clone(),
        author,
        author_time: time,
        commit_time: time,
        message: format!("transaction {}", n + 700),
        source: Some(source),
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn make_commits(path: &Path, count: u64) -> Result<(), Failure> {
    let store = Store::open(path, StoreOptions::default())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    let mut load = branch.begin_apply(true)?;
    load.put_table(table(TABLE, "t"))?;
    load.replace_rows(TABLE, &mut (0..ROW_COUNT).map(|id| Ok(vec![Value::Int4(id), Value::bytes([0; 40])])))?;
    load.commit(meta(0))?;
    for n in 1..=count {
        let mut apply = branch.begin_apply(false)?;
        let data = apply.root().table(TABLE).ok_or("no table")?;
        let key = data.key_prefix(None, &[Value::Int4((n * 7919 % ROW_COUNT as u64) as i32)])?;
        apply.update_columns(TABLE, &key, &[(1, Value::bytes(noise(n, 20)))])?;
        apply.commit(meta(n))?;
    }
    store.sync()?;
    Ok(())
}

/// Tables of half a gigabyte, as an initial copy writes them.
fn make_big(path: &Path, gib: u64) -> Result<(), Failure> {
    let store = Store::open(path, StoreOptions::default())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    let mut n = 0;
    while store.written_size() < gib << 30 {
        n += 1;
        let oid = TABLE + n as u32 * 10;
        let mut load = branch.begin_apply(true)?;
        load.put_table(table(oid, &format!("t{n}")))?;
        let row = |id: i32| Ok(vec![Value::Int4(id), Value::bytes(noise(n << 32 | id as u64, BIG_ROW_SIZE))]);
        load.replace_rows(oid, &mut (0..BIG_ROW_COUNT).map(row))?;
        load.commit(meta(n))?;
    }
    store.sync()?;
    Ok(())
}

/// A line of `/proc/self/status`, in KiB.
fn memory_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count())
}

fn open(path: &Path) -> Result<(), Failure> {
    let (anonymous, files) = (memory_kib("RssAnon"), open_files());
    let started = Instant::now();
    let store = Store::open(path, StoreOptions::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "  opened in {seconds:.3} s; {:.1} MiB of memory and {:.1} MiB mapped; {} files open",
        mib(memory_kib("RssAnon").saturating_sub(anonymous)),
        mib(memory_kib("RssFile")),
        open_files() - files
    );
    let head = store.branch("postgres", "main")?.state().head;
    let count = store.commit(head)?.height;
    let time = |what: &str, find: &dyn Fn(u64) -> Result<bool, Failure>| -> Result<(), Failure> {
        const PROBE_COUNT: u64 = 200;
        let started = Instant::now();
        for probe in 0..PROBE_COUNT {
            // The first three commits have no source.
            let n = 1 + probe * 7919 * 104_729 % (count - 4).max(1);
            if !find(n)? {
                return Err(format!("{what}: commit {n} was not found").into());
            }
        }
        println!("  {what}: {:.1} us", started.elapsed().as_secs_f64() * 1e6 / PROBE_COUNT as f64);
        Ok(())
    };
    time("commit at LSN", &|n| Ok(store.commit_at_lsn(head, meta(n).source.ok_or("no source")?.commit_lsn)?.is_some()))?;
    time("commit at time", &|n| Ok(store.commit_at_time(head, meta(n).commit_time)?.is_some()))?;
    time("commit of xid", &|n| Ok(store.commit_of_xid(head, n as u32 + 700)?.is_some()))?;
    time("ancestor n back", &|n| Ok(store.ancestor(head, n)?.is_some()))?;
    time("ancestor n back, and again by 12 digits of its id", &|n| {
        let id = store.ancestor(head, n)?.ok_or("no ancestor")?;
        Ok(store.commits_by_prefix(&format!("{id:.12}"))? == [id])
    })?;
    time("log LIMIT 20 from n back", &|n| {
        let id = store.ancestor(head, n)?.ok_or("no ancestor")?;
        Ok(store.log(&[id], &[])?.take(20).all(|commit| commit.is_ok()))
    })?;
    Ok(())
}

fn report(path: &Path, title: &str) -> Result<(), Failure> {
    let journal = path.join(".strandline/journal");
    let mib = |ending: &str| -> std::io::Result<f64> {
        let sizes = std::fs::read_dir(&journal)?.map(|entry| {
            let entry = entry?;
            Ok(if entry.file_name().to_string_lossy().ends_with(ending) { entry.metadata()?.len() } else { 0 })
        });
        Ok(sizes.sum::<std::io::Result<u64>>()? as f64 / (1 << 20) as f64)
    };
    println!("{title}, {:.2} GiB, of that .idx {:.1} MiB and .commits {:.1} MiB:", mib("")? / 1024.0, mib(".idx")?, mib(".commits")?);
    for _ in 0..2 {
        let status = Command::new(std::env::current_exe()?).arg("--open").arg(path).status()?;
        if !status.success() {
            return Err("could not open".into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--open") {
        return open(Path::new(&arguments[at + 1]));
    }
    let counts = std::env::var("STRANDLINE_BENCH_COMMITS").unwrap_or_else(|_| "100000".into());
    for count in counts.split(',').filter_map(|text| text.parse().ok()).filter(|count| *count > 0) {
        let folder = tempfile::tempdir()?;
        make_commits(folder.path(), count)?;
        report(folder.path(), &format!("{count} commits"))?;
    }
    let gib = std::env::var("STRANDLINE_BENCH_GIB").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if gib > 0 {
        let folder = tempfile::tempdir()?;
        make_big(folder.path(), gib)?;
        report(folder.path(), "big rows")?;
    }
    Ok(())
}
