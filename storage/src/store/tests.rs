//! The store as a whole: what is committed is there, after a close, a drop, a crash and a failing disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Branch, OpenWith, Store};
use crate::commit::{CommitMeta, Identity, Source};
use crate::disk::{Disk, FaultyDisk};
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::journal::{JournalOptions, JournalPosition};
use crate::root::Root;
use crate::schema::{Column, Index, IndexColumn, IndexKey, Oid, PUBLIC_SCHEMA_OID, TableSchema};
use crate::value::{DataType, Kind, Row, Value};

const DATABASE: &str = "postgres";
const TABLE: Oid = 16400;
const KEYLESS: Oid = 16410;

pub(crate) fn meta(message: &str, n: u64) -> CommitMeta {
    let author = Identity { name: "postgres".into(), email: "postgres@localhost".into() };
    let time = Timestamp(n as i64 * 1000);
    let source = (n > 0).then(|| Source {
        end_lsn: Lsn(n * 100 + 50),
        commit_lsn: Lsn(n * 100),
        xid: n as u32 + 700,
        commit_time: time,
        origin: None,
        context: None,
    });
    CommitMeta { committer: author.clone(), author, author_time: time, commit_time: time, message: message.into(), source }
}

fn column(attnum: i16, name: &str, kind: Kind) -> Column {
    let (oid, type_name) = if kind == Kind::Int4 { (23, "int4") } else { (25, "text") };
    Column {
        name: name.into(),
        attnum,
        data_type: DataType { oid, typmod: -1, name: type_name.into(), kind, element: None },
        not_null: attnum == 1,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    }
}

pub(crate) fn table(oid: Oid, name: &str, keyed: bool) -> TableSchema {
    let key = Index {
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
        columns: vec![column(1, "id", Kind::Int4), column(2, "v", Kind::Text)],
        next_attnum: 3,
        primary_key: keyed.then_some(key),
        indexes: vec![],
        constraints: vec![],
        comment: None,
    }
}

fn row(id: i32, text: &str) -> Row {
    vec![Value::Int4(id), Value::bytes(text)]
}

fn open_on(disk: &FaultyDisk, segment_size: u64, checkpoint_row_count: u64) -> Result<Arc<Store>> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size },
        checkpoint_row_count,
        derived: false,
    };
    Store::open_with(Path::new("/data"), with)
}

/// A store with a database and two tables, keyed and keyless.
fn made(disk: &FaultyDisk) -> Result<Arc<Store>> {
    let store = open_on(disk, 1 << 16, u64::MAX)?;
    if store.databases().is_empty() {
        store.create_database(DATABASE, meta("", 0))?;
    }
    let branch = store.branch(DATABASE, "main")?;
    let mut apply = branch.begin_apply(false)?;
    apply.put_table(table(TABLE, "t", true))?;
    apply.put_table(table(KEYLESS, "k", false))?;
    apply.commit(meta("tables", 1))?;
    store.sync()?;
    Ok(store)
}

fn key(root: &Root, id: i32) -> Vec<u8> {
    root.table(TABLE).unwrap().row_key(&row(id, ""))
}

/// A table's rows as a map from id to text.
fn rows(root: &Root, table: Oid) -> BTreeMap<i32, Vec<String>> {
    let mut found: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let Some(table) = root.table(table) else { return found };
    let mut cursor = table.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    while let Some((_, row)) = cursor.next_row().unwrap() {
        let [Value::Int4(id), Value::Bytes(text)] = row.as_slice() else { panic!("{row:?}") };
        found.entry(*id).or_default().push(String::from_utf8(text.to_vec()).unwrap());
    }
    found
}

/// Transaction number `n` of a fixed history over both tables.
fn transaction(edit: &mut Edit, n: u64) {
    let id = (n * 7 % 40) as i32;
    let key = key(edit.root(), id);
    if edit.root().table(TABLE).unwrap().get(&key).unwrap().is_none() {
        edit.insert(TABLE, row(id, &format!("new {n}"))).unwrap();
    } else if n.is_multiple_of(5) {
        edit.delete(TABLE, &key).unwrap();
    } else {
        edit.update_columns(TABLE, &key, &[(1, Value::bytes(format!("changed {n}")))]).unwrap();
    }
    edit.insert(KEYLESS, row((n % 3) as i32, "same")).unwrap();
}

fn apply(branch: &Arc<Branch>, n: u64) -> Result<(CommitId, JournalPosition)> {
    let mut apply = branch.begin_apply(n.is_multiple_of(4))?;
    transaction(&mut apply, n);
    apply.commit(meta(&format!("transaction {n}"), n + 10))
}

type Model = (BTreeMap<i32, Vec<String>>, BTreeMap<i32, Vec<String>>);

fn content(root: &Root) -> Model {
    (rows(root, TABLE), rows(root, KEYLESS))
}

#[test]
fn a_new_database_has_two_commits_and_branch_main() {
    let disk = FaultyDisk::default();
    let store = open_on(&disk, 1 << 16, u64::MAX).unwrap();
    store.create_database(DATABASE, meta("", 0)).unwrap();
    assert!(matches!(store.create_database(DATABASE, meta("", 0)), Err(Error::AlreadyExists { .. })));
    let state = store.branch(DATABASE, "main").unwrap().state();
    let log: Vec<_> = store.log(&[state.head], &[]).unwrap().map(|c| c.unwrap().meta.message.clone()).collect();
    assert_eq!(log, ["CREATE DATABASE", "Initialize data repository"]);
    assert!(state.working.catalog().schema("public").is_some());
    assert!(!state.is_dirty());
}

#[test]
fn a_dropped_transaction_leaves_no_trace_and_blocks_nobody() {
    let store = made(&FaultyDisk::default()).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    apply(&branch, 1).unwrap();
    let before = branch.state();
    for large in [false, true] {
        let mut apply = branch.begin_apply(large).unwrap();
        transaction(&mut apply, 2);
        drop(apply);
        let after = branch.state();
        assert_eq!((after.head, content(&after.head_root)), (before.head, content(&before.head_root)));
    }
}

#[test]
fn every_commit_keeps_its_root_value_and_is_found_by_its_coordinates() {
    let disk = FaultyDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut history = Vec::new();
    for n in 1..60 {
        let (id, _) = apply(&branch, n).unwrap();
        history.push((n, id, content(&branch.state().head_root)));
        if n % 20 == 0 {
            store.checkpoint().unwrap();
        }
    }
    let check = |store: &Store, head: CommitId| {
        for (n, id, expected) in history.iter().rev().chain(history.iter().step_by(7)) {
            assert_eq!(content(&store.root(*id).unwrap()), *expected, "{n}");
            assert_eq!(store.commit_at_lsn(head, Lsn((n + 10) * 100 + 99)).unwrap(), Some(*id));
            assert_eq!(store.commit_of_xid(head, *n as u32 + 710).unwrap(), Some(*id));
            assert_eq!(store.commit_at_time(head, Timestamp((*n as i64 + 10) * 1000)).unwrap(), Some(*id));
            assert_eq!(store.commits_by_prefix(&format!("{id:.20}")).unwrap(), [*id]);
            assert!(store.is_ancestor(*id, head).unwrap());
        }
    };
    check(&store, branch.state().head);
    drop((store, branch));
    let store = open_on(&disk, 1 << 16, u64::MAX).unwrap();
    check(&store, store.branch(DATABASE, "main").unwrap().state().head);
}

#[test]
fn a_store_dropped_without_closing_opens_as_it_was() {
    let disk = FaultyDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    store.put_state("roles/x", Some(b"1")).unwrap();
    store.put_state("gone", Some(b"1")).unwrap();
    store.put_state("gone", None).unwrap();
    let mut oids = vec![store.next_oid().unwrap(), store.next_oid().unwrap()];
    for n in 1..200 {
        apply(&branch, n).unwrap();
        if n == 90 {
            store.create_branch(DATABASE, "side", branch.state().head, false).unwrap();
            store.checkpoint().unwrap();
            store.rename_branch(DATABASE, "side", "aside", false).unwrap();
        }
    }
    let tag = super::Tag {
        name: "v1".into(),
        commit: branch.state().head,
        tagger: Identity::default(),
        time: Timestamp(5),
        message: "first".into(),
    };
    store.create_tag(DATABASE, tag.clone()).unwrap();
    let expected = (branch.state().head, content(&branch.state().head_root));
    let aside = store.branch(DATABASE, "aside").unwrap().state().head;
    store.sync().unwrap();
    drop((store, branch));
    for _ in 0..2 {
        let store = open_on(&disk, 1 << 16, u64::MAX).unwrap();
        let state = store.branch(DATABASE, "main").unwrap().state();
        assert_eq!((state.head, content(&state.head_root)), expected);
        assert_eq!(store.branches(DATABASE).unwrap(), [("aside".to_string(), aside), ("main".to_string(), state.head)]);
        assert_eq!(store.tags(DATABASE).unwrap(), [tag.clone()]);
        assert_eq!(store.list_state(""), [("roles/x".to_string(), b"1".to_vec())]);
        let oid = store.next_oid().unwrap();
        assert!(!oids.contains(&oid));
        oids.push(oid);
        store.close().unwrap();
    }
    let report = crate::fsck::fsck_on(Arc::new(disk), Path::new("/data")).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.commit_count == 202 && report.segment_count >= 1 && report.chunk_count > 0, "{report:?}");
}

#[test]
fn a_second_process_is_refused_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let options = super::StoreOptions::default();
    let store = Store::open(folder.path(), options.clone()).unwrap();
    assert!(matches!(Store::open(folder.path(), options.clone()), Err(Error::Locked { .. })));
    drop(store);
    Store::open(folder.path(), options).unwrap();
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let disk = FaultyDisk::default();
    drop(made(&disk).unwrap());
    disk.put_file("FORMAT", b"strandline store, format 2\n".to_vec());
    assert!(matches!(open_on(&disk, 1 << 16, u64::MAX), Err(Error::Format { found: 2, supported: 1, .. })));
}
