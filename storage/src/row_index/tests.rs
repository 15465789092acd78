//! With the row index and without it the history of a row is the same, whatever happens to the index's files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::commit::CommitMeta;
use crate::disk::RealDisk;
use crate::edit::Edit;
use crate::id::CommitId;
use crate::journal::JournalOptions;
use crate::store::tests::{meta, table};
use crate::store::{OpenWith, ROW_INDEX_FOLDER, STORE_FOLDER};
use crate::value::{Row, Value};
use crate::{RowChange, Store};

const TABLE: Oid = 16400;
const OTHER: Oid = 16500;

fn open(path: &Path, entry_count: usize) -> Arc<Store> {
    let with = OpenWith {
        disk: Arc::new(RealDisk),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: 1 << 16, index_thread: true },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: true,
        row_index: Some(RowIndexOptions { entry_count, thread: true }),
    };
    Store::open_with(path, with).unwrap()
}

fn row(id: i32, text: String) -> Row {
    vec![Value::Int4(id), Value::bytes(text)]
}

fn key(edit: &Edit, table: Oid, id: i32) -> Vec<u8> {
    edit.root().table(table).unwrap().row_key(&row(id, String::new()))
}

/// Inserts, updates or deletes one row.
fn touch(edit: &mut Edit, table: Oid, id: i32, n: u64) {
    let key = key(edit, table, id);
    if edit.root().table(table).unwrap().get(&key).unwrap().is_none() {
        edit.insert(table, row(id, format!("new {n}"))).unwrap();
    } else if n.is_multiple_of(5) {
        edit.delete(table, &key).unwrap();
    } else {
        edit.update_columns(table, &key, &[(1, Value::bytes(format!("changed {n}")))]).unwrap();
    }
}

fn commit(store: &Store, branch: &str, n: u64, change: impl FnOnce(&mut Edit)) -> CommitId {
    let branch = store.branch("postgres", branch).unwrap();
    let mut apply = branch.begin_apply(n.is_multiple_of(4)).unwrap();
    change(&mut apply);
    let meta: CommitMeta = meta(&format!("transaction {n}"), n + 10);
    apply.commit(meta).unwrap().0
}

/// A history on two branches: rows of two tables, now and then all rows of a table at once, and a new column.
fn make_history(store: &Store, from: u64, to: u64) {
    if from == 0 {
        store.create_database("postgres", meta("", 0)).unwrap();
        commit(store, "main", 0, |edit| {
            edit.put_table(table(TABLE, "t", true)).unwrap();
            edit.put_table(table(OTHER, "o", true)).unwrap();
        });
        let head = store.branch("postgres", "main").unwrap().state().head;
        store.create_branch("postgres", "side", head, false).unwrap();
    }
    for n in from..to {
        let branch = if n % 3 == 1 { "side" } else { "main" };
        commit(store, branch, n, |edit| match n % 97 {
            96 => edit.truncate(TABLE).unwrap(),
            95 => {
                let mut schema = edit.root().table(TABLE).unwrap().schema().as_ref().clone();
                schema.comment = Some(format!("at {n}"));
                edit.put_table(schema).unwrap();
            }
            _ => {
                touch(edit, TABLE, (n * 7 % 41) as i32, n);
                touch(edit, OTHER, (n % 1000) as i32, n);
            }
        });
    }
}

type Line = (CommitId, Vec<u8>, Option<Row>, Option<Row>);

fn history(store: &Store, branch: &str, keys: Option<Vec<Vec<u8>>>) -> Vec<Line> {
    let head = store.branch("postgres", branch).unwrap().state().head;
    let versions = store.table_history(head, TABLE, keys).unwrap().map(Result::unwrap);
    versions.map(|v| (v.commit.id, v.key, v.from.map(|f| f.1), v.to.map(|t| t.1))).collect()
}

fn check(store: &Store, what: &str) {
    for branch in ["main", "side"] {
        let all = history(store, branch, None);
        assert!(all.len() > 100);
        let mut keys: Vec<Vec<u8>> = all.iter().map(|line| line.1.clone()).collect();
        keys.sort();
        keys.dedup();
        for key in keys.iter().step_by(5) {
            let expected: Vec<Line> = all.iter().filter(|line| line.1 == *key).cloned().collect();
            assert_eq!(history(store, branch, Some(vec![key.clone()])), expected, "{what}, {branch}");
        }
        let two = [keys[0].clone(), keys[7].clone()];
        let expected: Vec<Line> = all.iter().filter(|line| two.contains(&line.1)).cloned().collect();
        assert_eq!(history(store, branch, Some(two.to_vec())), expected, "{what}, {branch}");
        assert_eq!(history(store, branch, Some(vec![b"no such key".to_vec()])), [], "{what}");
    }
}

/// Waits until the thread has read what a restart left, and has nothing to write and to merge.
fn wait_indexed(store: &Store) {
    let begun = Instant::now();
    let index = &store.shared.row_index;
    loop {
        let state = index.state.read();
        let is_written = state.early_end >= state.fresh_start && state.early.len() + state.fresh.len() < index.run_entry_count;
        // A run is there before it is merged.
        if is_written && index.merge_count(&state.runs).is_none() {
            return;
        }
        drop(state);
        assert!(begun.elapsed() < Duration::from_secs(120), "the row index does not get ready");
        std::thread::yield_now();
    }
}

fn runs(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join(STORE_FOLDER).join(ROW_INDEX_FOLDER);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_rows_history_is_the_same_with_the_index_in_memory_in_runs_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    make_history(&store, 0, 700);
    check(&store, "in memory");
    drop(store);
    // Now everything is read from the journal and goes into runs of about 20 commits, which are merged.
    let store = open(folder.path(), 40);
    wait_indexed(&store);
    check(&store, "in runs");
    make_history(&store, 700, 1400);
    wait_indexed(&store);
    check(&store, "grown");
    let count = store.shared.row_index.state.read().runs.len();
    assert!((1..=RUN_COUNT_MAX).contains(&count), "{count} runs");
    drop(store);
    assert_eq!(runs(folder.path()).len(), count, "merged runs are deleted");
    let store = open(folder.path(), 40);
    assert_eq!(store.shared.row_index.state.read().runs.len(), count, "and found again");
    check(&store, "opened again");
}

#[test]
fn after_a_kill_nothing_is_read_again_that_a_checkpoint_saved_or_replay_entered() {
    let folder = tempfile::tempdir().unwrap();
    let mut end = 0;
    for _ in 0..4 {
        let store = open(folder.path(), 2000);
        assert!(store.shared.row_index.find(TABLE, &mut std::iter::empty()).uncovered.is_empty(), "from {end} on");
        make_history(&store, end, end + 200);
        store.checkpoint().unwrap();
        let checkpoint = store.shared.index.read().len();
        let begun = Instant::now();
        while store.shared.row_index.state.read().covered() < checkpoint {
            assert!(begun.elapsed() < Duration::from_secs(120), "the row index is not saved");
            std::thread::yield_now();
        }
        make_history(&store, end + 200, end + 250);
        end += 250;
        check(&store, "before a kill");
        // Without another checkpoint.
        drop(store);
        let store = open(folder.path(), 2000);
        let state = store.shared.row_index.state.read();
        assert!(state.covered() >= checkpoint && state.early_end >= state.fresh_start, "nothing is left to read");
        drop(state);
        check(&store, "after a kill");
        store.close().unwrap();
        drop(store);
        let store = open(folder.path(), 2000);
        let state = store.shared.row_index.state.read();
        assert_eq!((state.covered(), state.fresh.len()), (store.shared.index.read().len(), 0), "after a clean stop");
        drop(state);
        check(&store, "after a clean stop");
    }
}

#[test]
fn however_many_runs_are_written_few_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    store.row_indexer.stop();
    make_history(&store, 0, 50);
    let index = &store.shared.row_index;
    let runs_folder = folder.path().join(STORE_FOLDER).join(ROW_INDEX_FOLDER);
    for n in 1..60 {
        // Of very different sizes, the later ones smaller and larger than those before.
        make_history(&store, n * 50, n * 50 + [50, 1, 20, 3][n as usize % 4]);
        index.save(&store.shared).unwrap();
        while index.merge_runs(&runs_folder).unwrap() {}
        assert!(index.state.read().runs.len() <= RUN_COUNT_MAX);
    }
    assert_eq!(index.state.read().covered(), store.shared.index.read().len());
    check(&store, "merged");
}

#[test]
fn few_commits_are_candidates_for_a_row_that_changed_seldom() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 40);
    make_history(&store, 0, 900);
    wait_indexed(&store);
    let branch = store.branch("postgres", "main").unwrap();
    let head = branch.state();
    let key = head.head_root.table(OTHER).unwrap().row_key(&row(12, String::new()));
    let candidates = store.shared.row_index.find(OTHER, &mut [key.as_slice()].into_iter());
    assert!(candidates.uncovered.is_empty());
    // The commit that made the table, and one that changed the row.
    assert_eq!(candidates.numbers.len(), 2, "{candidates:?}");
    assert!(store.table_history(head.head, OTHER, Some(vec![key])).unwrap().count() == 1);
}

#[test]
fn what_is_not_read_yet_is_a_candidate() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    make_history(&store, 0, 100);
    let elsewhere = tempfile::tempdir().unwrap();
    // Without its thread, so that nothing is read.
    let index = RowIndex::new(Arc::new(RealDisk), Some(elsewhere.path().into()), 40);
    index.open(&store.shared);
    let count = store.shared.index.read().len();
    let new = hashes_of(store.shared.commit_numbered(count - 1).unwrap().changes().unwrap(), None);
    index.enter(count, &new);
    let candidates = index.find(TABLE, &mut [&b"no such key"[..]].into_iter());
    assert_eq!((candidates.uncovered.clone(), candidates.numbers.as_slice()), (0..count, &[][..]));
    for (number, expected) in
        [(0, Some(0)), (7, Some(7)), (count - 1, Some(count - 1)), (count, Some(count - 1)), (count + 9, Some(count - 1))]
    {
        assert_eq!(candidates.not_after(number), expected);
    }
    assert!(candidates.contains(0) && candidates.contains(count - 1) && !candidates.contains(count));
}

#[test]
fn damaged_missing_and_foreign_runs_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 40);
    let mut end = 0;
    // How many runs the thread makes of a stretch depends on when it comes to it.
    while end < 500 || store.shared.row_index.state.read().runs.len() < 3 {
        make_history(&store, end, end + 75);
        end += 75;
        wait_indexed(&store);
    }
    drop(store);
    let files = runs(folder.path());
    assert!(files.len() >= 3, "{files:?}");
    let originals: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    let damage: [(&str, &dyn Fn(usize)); 5] = [
        ("a flipped bit in a header", &|i| std::fs::write(&files[i], flipped(&originals[i], 9)).unwrap()),
        ("a flipped bit in a block", &|i| std::fs::write(&files[i], flipped(&originals[i], 80)).unwrap()),
        ("a shortened file", &|i| std::fs::write(&files[i], &originals[i][..100]).unwrap()),
        ("a missing file", &|i| std::fs::remove_file(&files[i]).unwrap()),
        ("a file under another name", &|i| std::fs::rename(&files[i], files[i].with_extension("old")).unwrap()),
    ];
    for (what, damage) in damage {
        for at in [0, files.len() / 2, files.len() - 1] {
            for (file, original) in files.iter().zip(&originals) {
                std::fs::write(file, original).unwrap();
            }
            damage(at);
            let store = open(folder.path(), 40);
            check(&store, what);
            wait_indexed(&store);
            check(&store, what);
            assert!(!store.shared.row_index.state.read().runs.is_empty());
        }
    }
    // The runs of another store.
    let other = tempfile::tempdir().unwrap();
    let store = open(other.path(), 40);
    store.create_database("other", meta("", 77)).unwrap();
    make_history(&store, 0, 900);
    drop(store);
    let theirs = other.path().join(STORE_FOLDER).join(ROW_INDEX_FOLDER);
    std::fs::remove_dir_all(&theirs).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    for (file, original) in files.iter().zip(&originals) {
        std::fs::write(theirs.join(file.file_name().unwrap()), original).unwrap();
    }
    let store = open(other.path(), 40);
    check(&store, "another store's runs");
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 4;
    bytes
}

#[test]
fn hashes_tell_rows_tables_and_definitions() {
    let rows = |keys: &[&[u8]]| {
        let rows = keys.iter().map(|k| RowChange { key: (*k).into(), kind: crate::RowChangeKind::Inserted { new: vec![] } });
        RowsChange::Rows(rows.collect())
    };
    let mut changes = ChangeSet::default();
    changes.tables.push(crate::change_set::TableChange { table: 1, rows: rows(&[b"a", b"b", b"a"]) });
    changes.tables.push(crate::change_set::TableChange { table: 2, rows: RowsChange::Dropped });
    let mut expected = vec![row_hash(1, b"a"), row_hash(1, b"b"), table_hash(2)];
    expected.sort_unstable();
    assert_eq!(hashes_of(&changes, None), expected);
    assert_ne!(row_hash(1, b"a"), row_hash(2, b"a"));
}

#[test]
fn a_row_at_a_commit_is_that_of_its_root_value() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 200);
    make_history(&store, 0, 150);
    store.checkpoint().unwrap();
    make_history(&store, 150, 300);
    let renamed = commit(&store, "main", 300, |edit| {
        let mut schema = edit.root().table(OTHER).unwrap().schema().as_ref().clone();
        schema.name = "other".into();
        edit.put_table(schema).unwrap();
    });
    make_history(&store, 301, 600);
    wait_indexed(&store);
    let heads = ["main", "side"].map(|branch| store.branch("postgres", branch).unwrap().state().head);
    let commits: Vec<CommitId> = store.log(&heads, &[]).unwrap().map(|c| c.unwrap().id).collect();
    for id in &commits {
        let commit = store.commit(*id).unwrap();
        let Some(source) = &commit.meta.source else { continue };
        // Two transactions have the number of the first.
        let found = store.commits_of_source(&heads, Some(source.xid), None).unwrap();
        let expected = commits.iter().filter(|id| store.commit(**id).unwrap().meta.source.as_ref().is_some_and(|s| s.xid == source.xid));
        assert_eq!(found, expected.copied().collect::<Vec<_>>());
        let on_main = found.iter().find(|id| store.is_ancestor(**id, heads[0]).unwrap());
        assert_eq!(store.commit_of_xid(heads[0], source.xid).unwrap().as_ref(), on_main);
    }
    assert_eq!(store.commits_of_source(&heads, Some(1), None).unwrap(), []);
    let mut found_count = 0;
    for id in commits.iter().step_by(7).chain([&renamed]) {
        // Roots that are known already leave nothing to do.
        store.shared.cached_roots.lock().clear();
        let tables = [(TABLE, "t"), (OTHER, "o"), (OTHER, "other")].map(|(oid, name)| {
            let find = |catalog: &crate::schema::Catalog| catalog.relation("public", name).map(|o| o.oid());
            (oid, name, store.table_at(*id, &find).unwrap())
        });
        let root = store.shared.root(*id).unwrap();
        for (oid, name, table) in tables {
            let Some(table) = table else { continue };
            found_count += 1;
            let rows = root.table(oid).unwrap();
            assert_eq!((table.schema(), table.schema().name.as_str()), (rows.schema(), name));
            assert!(table.known_rows().is_none());
            for n in 0..60 {
                let key = rows.row_key(&row(n * 3, String::new()));
                assert_eq!(table.get(&key).unwrap(), rows.get(&key).unwrap(), "{name} {n} at {id:.12}");
            }
            assert_eq!(table.rows().unwrap().len(), rows.len());
            assert!(table.known_rows().is_some());
        }
    }
    assert!(found_count > 60, "{found_count}");
}
