//! The store as a whole: what is committed is there, after a close, a drop, a crash and a failing disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Branch, OpenWith, Store, StoreOptions};
use crate::commit::{CommitMeta, Identity, Source};
use crate::disk::SimulatedDisk;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::journal::{JournalOptions, JournalPosition};
use crate::root::Root;
use crate::schema::{Column, Index, IndexColumn, IndexKey, Oid, PUBLIC_SCHEMA_OID, TableSchema};
use crate::value::{DataType, Kind, Row, Value};

pub(crate) const DATABASE: &str = "postgres";
pub(crate) const TABLE: Oid = 16400;
pub(crate) const KEYLESS: Oid = 16410;

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
        subscription: 0,
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
        merged_columns: Vec::new(),
        comment: None,
    }
}

pub(crate) fn row(id: i32, text: &str) -> Row {
    vec![Value::Int4(id), Value::bytes(text)]
}

pub(crate) fn open_on(disk: &SimulatedDisk, segment_size: u64, checkpoint_row_count: u64) -> Result<Arc<Store>> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size, index_thread: false },
        checkpoint_row_count,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: false,
        row_index: None,
    };
    Store::open_with(Path::new("/data"), with)
}

/// A store with a database and two tables, keyed and keyless.
fn made(disk: &SimulatedDisk) -> Result<Arc<Store>> {
    made_with(disk, 1 << 16)
}

pub(crate) fn made_with(disk: &SimulatedDisk, segment_size: u64) -> Result<Arc<Store>> {
    let store = open_on(disk, segment_size, u64::MAX)?;
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

pub(crate) fn apply(branch: &Arc<Branch>, n: u64) -> Result<(CommitId, JournalPosition)> {
    let mut apply = branch.begin_apply(n.is_multiple_of(4))?;
    transaction(&mut apply, n);
    apply.commit(meta(&format!("transaction {n}"), n + 10))
}

pub(crate) type Model = (BTreeMap<i32, Vec<String>>, BTreeMap<i32, Vec<String>>);

pub(crate) fn content(root: &Root) -> Model {
    (rows(root, TABLE), rows(root, KEYLESS))
}

#[test]
fn a_new_database_has_two_commits_and_branch_main() {
    let disk = SimulatedDisk::default();
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
    let store = made(&SimulatedDisk::default()).unwrap();
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
    let disk = SimulatedDisk::default();
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
    let disk = SimulatedDisk::default();
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
        assert_eq!(store.tags(DATABASE).unwrap(), std::slice::from_ref(&tag));
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
    let disk = SimulatedDisk::default();
    drop(made(&disk).unwrap());
    disk.put_file("FORMAT", b"strandline store, format 3\n".to_vec());
    assert!(matches!(open_on(&disk, 1 << 16, u64::MAX), Err(Error::Format { found: 3, supported: 2, .. })));
    disk.put_file("FORMAT", b"strandline store, format 0\n".to_vec());
    assert!(matches!(open_on(&disk, 1 << 16, u64::MAX), Err(Error::Damaged { .. })));
}

#[test]
fn a_lost_last_segment_is_noticed() {
    let (disk, _) = history(1 << 12, 30);
    let last = (1..).take_while(|n| disk.file(&format!("{n:08}.seg")).is_some()).last().unwrap();
    assert!(last > 1);
    disk.remove_file(&format!("{last:08}.seg"));
    assert!(!crate::fsck::fsck_on(Arc::new(disk.copy()), Path::new("/data")).unwrap().findings.is_empty());
    assert!(matches!(open_on(&disk, 1 << 12, u64::MAX), Err(Error::Damaged { .. })));
}

#[test]
fn an_empty_segment_never_means_an_empty_database() {
    let (disk, _) = history(1 << 13, 30);
    // The mark as a power loss may leave it.
    let disk = disk.without_unsynced();
    let last = (1..).take_while(|n| disk.file(&format!("{n:08}.seg")).is_some()).last().unwrap();
    let refused = |what: &str, spoil: &dyn Fn(&SimulatedDisk)| {
        let image = disk.copy();
        spoil(&image);
        let findings = crate::fsck::fsck_on(Arc::new(image.copy()), Path::new("/data")).unwrap().findings;
        assert!(!findings.is_empty(), "{what}");
        match open_on(&image, 1 << 13, u64::MAX) {
            Err(Error::Damaged { place, .. }) => assert!(place.contains(".seg"), "{what}: {place}"),
            other => panic!("{what}: {:?}", other.err()),
        }
    };
    refused("an empty last segment", &|disk| disk.put_file(&format!("{last:08}.seg"), Vec::new()));
    refused("zeros in the last segment", &|disk| disk.put_file(&format!("{last:08}.seg"), vec![0; 5000]));
    refused("no segment", &|disk| (1..=last).for_each(|n| disk.remove_file(&format!("{n:08}.seg"))));
    refused("no segment and no mark", &|disk| {
        (1..=last).for_each(|n| disk.remove_file(&format!("{n:08}.seg")));
        disk.remove_file("SYNCED");
    });
    refused("one empty segment and no mark", &|disk| {
        (2..=last).for_each(|n| disk.remove_file(&format!("{n:08}.seg")));
        disk.put_file("00000001.seg", Vec::new());
        disk.remove_file("SYNCED");
    });
}

/// A history of transactions, each durable: (head, content) from the oldest to the newest, and the disk.
pub(crate) fn history(segment_size: u64, count: u64) -> (SimulatedDisk, Vec<(CommitId, Model)>) {
    let disk = SimulatedDisk::default();
    let store = made_with(&disk, segment_size).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut states = Vec::new();
    let mut note = || {
        let state = branch.state();
        states.push((state.head, content(&state.head_root)));
    };
    note();
    for n in 1..=count {
        let (_, position) = apply(&branch, n).unwrap();
        store.wait_durable(position).unwrap();
        note();
        if n == count / 2 {
            store.checkpoint().unwrap();
            store.sync().unwrap();
        }
    }
    drop((store, branch));
    (disk, states)
}

/// How many of these states the store on this disk has reached; checks that it is one of them. 0: not even the first.
pub(crate) fn reached(disk: &SimulatedDisk, states: &[(CommitId, Model)]) -> usize {
    let store = open_on(disk, 1 << 20, u64::MAX).unwrap();
    let Ok(branch) = store.branch(DATABASE, "main") else { return 0 };
    let state = branch.state();
    assert!(!state.is_dirty());
    match states.iter().position(|(head, _)| *head == state.head) {
        Some(at) => {
            assert_eq!(content(&state.head_root), states[at].1);
            at + 1
        }
        None => {
            assert!(state.head_root.table(TABLE).is_none(), "unknown head");
            0
        }
    }
}

#[test]
fn every_prefix_of_the_journal_opens_to_a_prefix_of_history() {
    let (disk, states) = history(1 << 20, 12);
    let segment = disk.file("00000001.seg").unwrap();
    let mut last = 0;
    for size in (0..=segment.len()).step_by(13).chain([segment.len()]) {
        let image = disk.copy();
        image.put_file("00000001.seg", segment[..size].to_vec());
        if size < segment.len() {
            // With the mark of what was durable a shortened journal is damage, not a torn write.
            let refused = open_on(&image.copy(), 1 << 20, u64::MAX);
            assert!(matches!(refused, Err(Error::Damaged { .. })), "{size}");
        }
        image.put_file("SYNCED", Vec::new());
        if size < 32 {
            // The store was made, so its first segment had a header: it is not a new one.
            assert!(matches!(open_on(&image, 1 << 20, u64::MAX), Err(Error::Damaged { .. })), "{size}");
            continue;
        }
        let count = reached(&image, &states);
        assert!(count >= last, "{size}: {count} after {last}");
        last = count;
        // What was cut off stays away, and the store can be written again.
        assert_eq!(reached(&image, &states), count);
    }
    assert_eq!(last, states.len());
}

#[test]
fn a_working_set_follows_head_and_keeps_its_own_rows_also_after_recovery() {
    let disk = SimulatedDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    for id in 1..=4 {
        apply.insert(TABLE, row(id, "old")).unwrap();
    }
    apply.commit(meta("rows", 2)).unwrap();
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    let first = key(edit.root(), 1);
    edit.update_columns(TABLE, &first, &[(1, Value::bytes("mine"))]).unwrap();
    edit.insert(TABLE, row(9, "mine")).unwrap();
    edit.insert(KEYLESS, row(7, "mine")).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    assert!(branch.state().is_dirty());

    let mut apply = branch.begin_apply(false).unwrap();
    for id in [1, 2] {
        let key = key(apply.root(), id);
        apply.update_columns(TABLE, &key, &[(1, Value::bytes("theirs"))]).unwrap();
    }
    let third = key(apply.root(), 3);
    apply.delete(TABLE, &third).unwrap();
    apply.insert(TABLE, row(10, "theirs")).unwrap();
    apply.insert(KEYLESS, row(8, "theirs")).unwrap();
    apply.commit(meta("theirs", 3)).unwrap();

    let check = |store: &Store| {
        let state = store.branch(DATABASE, "main").unwrap().state();
        let text = |pairs: &[(i32, &str)]| pairs.iter().map(|(id, v)| (*id, vec![v.to_string()])).collect::<BTreeMap<_, _>>();
        assert_eq!(rows(&state.head_root, TABLE), text(&[(1, "theirs"), (2, "theirs"), (4, "old"), (10, "theirs")]));
        assert_eq!(rows(&state.working, TABLE), text(&[(1, "mine"), (2, "theirs"), (4, "old"), (9, "mine"), (10, "theirs")]));
        assert_eq!(rows(&state.working, KEYLESS), text(&[(7, "mine"), (8, "theirs")]));
        assert_eq!(rows(&state.head_root, KEYLESS), text(&[(8, "theirs")]));
        let conflicts: Vec<_> = state.conflicts.iter().map(|(table, key, _)| (*table, key.as_str())).collect();
        assert_eq!(conflicts, [(TABLE, "(id)=(1)")]);
    };
    check(&store);
    store.sync().unwrap();
    for checkpoint in [false, true] {
        let image = disk.copy();
        let store = open_on(&image, 1 << 16, u64::MAX).unwrap();
        check(&store);
        if checkpoint {
            store.checkpoint().unwrap();
            drop(store);
            check(&open_on(&image, 1 << 16, u64::MAX).unwrap());
        }
    }
}

#[test]
fn a_working_set_with_local_rows_follows_a_truncation_row_by_row() {
    let disk = SimulatedDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    for id in 1..=4 {
        apply.insert(TABLE, row(id, "old")).unwrap();
    }
    apply.commit(meta("rows", 2)).unwrap();
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    let first = key(edit.root(), 1);
    edit.update_columns(TABLE, &first, &[(1, Value::bytes("mine"))]).unwrap();
    edit.insert(TABLE, row(9, "mine")).unwrap();
    branch.commit_local(&base, edit, None).unwrap();

    let mut apply = branch.begin_apply(false).unwrap();
    apply.truncate(TABLE).unwrap();
    apply.insert(TABLE, row(5, "theirs")).unwrap();
    apply.commit(meta("theirs", 3)).unwrap();

    store.sync().unwrap();
    for store in [store, open_on(&disk.copy(), 1 << 16, u64::MAX).unwrap()] {
        let state = store.branch(DATABASE, "main").unwrap().state();
        let text = |pairs: &[(i32, &str)]| pairs.iter().map(|(id, v)| (*id, vec![v.to_string()])).collect::<BTreeMap<_, _>>();
        assert_eq!(rows(&state.head_root, TABLE), text(&[(5, "theirs")]));
        assert_eq!(rows(&state.working, TABLE), text(&[(1, "mine"), (5, "theirs"), (9, "mine")]));
        let conflicts: Vec<_> = state.conflicts.iter().map(|(table, key, _)| (*table, key.as_str())).collect();
        assert_eq!(conflicts, [(TABLE, "(id)=(1)")]);
    }
}

#[test]
fn a_local_transaction_is_rebased_or_conflicts_on_the_same_row() {
    let store = made(&SimulatedDisk::default()).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let base = branch.state();
    let local = |id: i32, text: &str| {
        let mut edit = Edit::new(base.working.clone());
        edit.insert(TABLE, row(id, text)).unwrap();
        edit.insert(KEYLESS, row(1, "same")).unwrap();
        edit
    };
    branch.commit_local(&base, local(1, "a"), None).unwrap();
    branch.commit_local(&base, local(2, "b"), None).unwrap();
    assert!(matches!(branch.commit_local(&base, local(1, "c"), None), Err(Error::Conflict { .. })));
    let state = branch.state();
    assert_eq!(rows(&state.working, TABLE).keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(rows(&state.working, KEYLESS)[&1].len(), 2);
    assert!(rows(&state.head_root, TABLE).is_empty());
    // A table replaced as a whole, while another one moved on.
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    edit.replace_rows(TABLE, &mut (0..500).map(|id| Ok(row(id, "bulk")))).unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    apply.insert(KEYLESS, row(5, "theirs")).unwrap();
    apply.commit(meta("theirs", 2)).unwrap();
    branch.commit_local(&base, edit, None).unwrap();
    let state = branch.state();
    assert_eq!((rows(&state.working, TABLE).len(), rows(&state.working, KEYLESS).len()), (500, 2));
}

#[test]
fn transactions_that_are_right_alone_and_wrong_together_conflict() {
    let store = made(&SimulatedDisk::default()).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let conflicts = |first: &dyn Fn(&mut Edit), second: &dyn Fn(&mut Edit)| {
        let base = branch.state();
        let edit = |change: &dyn Fn(&mut Edit)| {
            let mut edit = Edit::new(base.working.clone());
            change(&mut edit);
            edit
        };
        branch.commit_local(&base, edit(first), None).unwrap();
        match branch.commit_local(&base, edit(second), None) {
            Ok(_) => false,
            Err(Error::Conflict { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    };
    let new_table = |oid: Oid, name: &'static str| move |edit: &mut Edit| edit.put_table(table(oid, name, true)).unwrap();
    assert!(conflicts(&new_table(20_000, "n"), &new_table(20_001, "n")));
    assert!(!conflicts(&new_table(20_002, "o"), &new_table(20_003, "p")));

    // KEYLESS refers to TABLE.
    let base = branch.state();
    let mut edit = Edit::new(base.working.clone());
    let mut child = (**edit.root().table(KEYLESS).unwrap().schema()).clone();
    child.constraints.push(crate::schema::Constraint {
        oid: 20_010,
        name: "child_fkey".into(),
        kind: crate::schema::ConstraintKind::ForeignKey { table: TABLE, columns: vec![0] },
        definition: "FOREIGN KEY (id) REFERENCES t(id)".into(),
        columns: vec![0],
    });
    edit.put_table(child).unwrap();
    for id in 1..=4 {
        edit.insert(TABLE, row(id, "parent")).unwrap();
    }
    branch.commit_local(&base, edit, None).unwrap();
    let delete = |id: i32| {
        move |edit: &mut Edit| {
            let key = key(edit.root(), id);
            edit.delete(TABLE, &key).unwrap();
        }
    };
    let refer = |id: i32| move |edit: &mut Edit| edit.insert(KEYLESS, row(id, "child")).unwrap();
    assert!(conflicts(&delete(1), &refer(1)));
    assert!(conflicts(&refer(2), &delete(2)));
    let insert = |edit: &mut Edit| edit.insert(TABLE, row(9, "parent")).unwrap();
    assert!(!conflicts(&insert, &refer(3)));
    assert!(!conflicts(&refer(3), &refer(4)));
}

#[test]
fn staging_committing_amending_and_resetting_survive_a_restart() {
    let disk = SimulatedDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let first = branch.state();
    let insert = |id: i32| {
        let base = branch.state();
        let mut edit = Edit::new(base.working.clone());
        edit.insert(TABLE, row(id, "x")).unwrap();
        branch.commit_local(&base, edit, None).unwrap();
    };
    insert(1);
    let state = branch.state();
    branch.set_roots(state.version, Some(state.working.clone()), None).unwrap();
    assert!(matches!(branch.set_roots(state.version, None, None), Err(Error::Conflict { .. })));
    insert(2);
    let (one, _) = branch.commit_staged(branch.state().version, meta("one", 0), false).unwrap();
    let state = branch.state();
    assert_eq!((rows(&state.head_root, TABLE).len(), rows(&state.working, TABLE).len()), (1, 2));
    branch.set_roots(state.version, Some(state.working.clone()), None).unwrap();
    let (amended, _) = branch.commit_staged(branch.state().version, meta("both", 0), true).unwrap();
    let commit = store.commit(amended).unwrap();
    assert_eq!(commit.parents, [first.head]);
    assert_eq!(commit.changes().unwrap().row_count(), 2);
    assert!(!branch.state().is_dirty());
    insert(3);
    branch.reset(branch.state().version, one, false).unwrap();
    let check = |store: &Store, working: usize, dirty: bool| {
        let state = store.branch(DATABASE, "main").unwrap().state();
        assert_eq!((state.head, rows(&state.head_root, TABLE).len(), rows(&state.working, TABLE).len()), (one, 1, working));
        assert_eq!(state.is_dirty(), dirty);
    };
    check(&store, 3, true);
    store.sync().unwrap();
    check(&open_on(&disk.copy(), 1 << 16, u64::MAX).unwrap(), 3, true);
    branch.reset(branch.state().version, one, true).unwrap();
    check(&store, 1, false);
    store.sync().unwrap();
    check(&open_on(&disk.copy(), 1 << 16, u64::MAX).unwrap(), 1, false);
    assert_eq!(store.merge_base(amended, one).unwrap(), Some(first.head));
}

#[test]
fn the_history_of_rows_is_what_the_commits_did() {
    let store = made(&SimulatedDisk::default()).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    for n in 1..80 {
        apply(&branch, n).unwrap();
        if n == 40 {
            let mut truncate = branch.begin_apply(false).unwrap();
            truncate.truncate(TABLE).unwrap();
            truncate.commit(meta("truncate", 1)).unwrap();
        }
    }
    let head = branch.state().head;
    // Expected from neighbouring root values.
    let mut expected = Vec::new();
    for commit in store.log(&[head], &[]).unwrap() {
        let commit = commit.unwrap();
        let after = store.root(commit.id).unwrap();
        let before = commit.parents.first().map(|p| store.root(*p).unwrap());
        let table = |root: &Root| root.table(TABLE).cloned();
        let (before, after) = (before.and_then(|r| table(&r)), table(&after));
        for difference in crate::diff::diff_tables(before.as_deref(), after.as_deref()) {
            let difference = difference.unwrap();
            expected.push((commit.id, difference.key, difference.from, difference.to));
        }
    }
    let found = |keys: Option<Vec<Vec<u8>>>| -> Vec<_> {
        let versions = store.table_history(head, TABLE, keys).unwrap().map(|v| v.unwrap());
        versions.map(|v| (v.commit.id, v.key, v.from.map(|(_, r)| r), v.to.map(|(_, r)| r))).collect()
    };
    assert!(expected.len() > 100);
    assert_eq!(found(None), expected);
    let wanted = key(&branch.state().head_root, 7);
    expected.retain(|(_, key, _, _)| *key == wanted);
    assert!(expected.len() > 2);
    assert_eq!(found(Some(vec![wanted])), expected);
}

#[test]
fn readers_committers_and_the_checkpoint_thread_get_along() {
    let disk = SimulatedDisk::default();
    drop(made(&disk).unwrap());
    let store = open_on(&disk, 1 << 14, 20).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let state = branch.state();
                assert_eq!(content(&state.head_root), content(&store.root(state.head).unwrap()));
            }
        });
        for n in 1..300 {
            apply(&branch, n).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let expected = (branch.state().head, content(&branch.state().head_root));
    store.sync().unwrap();
    drop((store, branch));
    assert_eq!(reached(&disk, &[expected]), 1);
    let report = crate::fsck::fsck_on(Arc::new(disk), Path::new("/data")).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_branch_follows_the_subscriptions_that_write_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let put = |oid: u32, key: &str, value: &str| {
        store.put_state(&format!("{}{key}", Store::subscription_state_prefix(oid)), Some(value.as_bytes())).unwrap();
    };
    put(20000, "branch", "db/main");
    assert!(!store.follows_source("db", "main"), "without a definition it does not exist");
    for (oid, branch) in [(20000, "db/main"), (3, "db/a/b"), (100_000, "other/main")] {
        put(oid, "definition", "{}");
        put(oid, "branch", branch);
    }
    assert_eq!(store.subscriptions(), [3, 20000, 100_000]);
    assert_eq!(store.subscriptions_into("db", None), [3, 20000]);
    assert_eq!(store.subscriptions_into("db", Some("a/b")), [3]);
    assert!(store.follows_source("db", "main") && store.follows_source("other", "main"));
    assert!(!store.follows_source("db", "a") && !store.follows_source("other", "a/b"));
}

#[test]
fn a_table_filled_beside_a_branch_enters_it_in_one_stroke() {
    let disk = SimulatedDisk::default();
    let store = made(&disk).unwrap();
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut beside = Edit::new(branch.state().head_root);
    let mut loaded = || {
        let load = beside.table_load(TABLE).unwrap();
        let mut loader = load.loader();
        (0..5000).for_each(|id| loader.push(&mut row(id, "copied")).unwrap());
        load.finish(loader.finish().unwrap()).unwrap()
    };
    // Others go on to write into the branch meanwhile.
    let mut apply = branch.begin_apply(false).unwrap();
    apply.insert(KEYLESS, row(5, "theirs")).unwrap();
    apply.commit(meta("theirs", 2)).unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    assert_eq!(apply.take_rows(TABLE, loaded()).unwrap(), 5000);
    assert!(matches!(apply.take_rows(TABLE, loaded()), Err(Error::Conflict { .. })), "it has rows now");
    assert!(matches!(apply.take_rows(99, loaded()), Err(Error::NotFound { .. })));
    apply.commit(meta("copy", 3)).unwrap();
    store.close().unwrap();
    drop((branch, store));
    let store = open_on(&disk, 1 << 16, u64::MAX).unwrap();
    let root = store.branch(DATABASE, "main").unwrap().state().head_root;
    assert_eq!((rows(&root, TABLE).len(), rows(&root, KEYLESS).len()), (5000, 1));
    // Another definition is another table.
    let branch = store.branch(DATABASE, "main").unwrap();
    let mut apply = branch.begin_apply(false).unwrap();
    apply.truncate(TABLE).unwrap();
    apply.put_table(table(TABLE, "renamed", true)).unwrap();
    assert!(matches!(apply.take_rows(TABLE, loaded()), Err(Error::Conflict { .. })));
}
