//! What a store must hold, kept in plain maps beside it, and what it is found to hold.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::commit::Commit;
use crate::error::Result;
use crate::id::{CommitId, Lsn};
use crate::root::Root;
use crate::schema::Oid;
use crate::store::Store;
use crate::table::TableData;
use crate::value::{Row, Value};

/// Which row: its id; of a table without a key the text, too, and the number among equal rows.
pub type RowId = (i32, Option<(String, u32)>);
/// The rows of a table with their texts.
pub type Rows = BTreeMap<RowId, String>;
/// The tables of a root value.
pub type Tables = BTreeMap<Oid, Rows>;

/// A branch at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchModel {
    pub head: CommitId,
    pub head_tables: Arc<Tables>,
    pub staged: Arc<Tables>,
    pub working: Arc<Tables>,
    pub applied: Lsn,
}

/// Everything in a store that is not history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreModel {
    pub databases: BTreeMap<String, DatabaseModel>,
    pub state: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseModel {
    pub branches: BTreeMap<String, BranchModel>,
    pub tags: BTreeMap<String, CommitId>,
}

/// A commit.
#[derive(Clone, Debug)]
pub struct CommitModel {
    /// The first state that has it.
    pub state: usize,
    pub parents: Vec<CommitId>,
    pub message: String,
    /// Where it was on the source: end, commit and transaction.
    pub source: Option<(Lsn, Lsn, u32)>,
    pub tables: Arc<Tables>,
}

pub fn source_of(commit: &Commit) -> Option<(Lsn, Lsn, u32)> {
    commit.meta.source.as_ref().map(|s| (s.end_lsn, s.commit_lsn, s.xid))
}

pub fn row(id: i32, text: &str) -> Row {
    vec![Value::Int4(id), Value::bytes(text)]
}

/// A row's text.
pub fn text_of(row: &Row) -> (i32, String) {
    let [Value::Int4(id), Value::Bytes(text)] = row.as_slice() else { panic!("a row of another shape: {row:?}") };
    (*id, String::from_utf8_lossy(text).into_owned())
}

fn rows_of(table: &TableData) -> Result<Rows> {
    let keyed = table.schema().primary_key.is_some();
    let mut rows = Rows::new();
    let mut cursor = table.scan((Bound::Unbounded, Bound::Unbounded), false);
    while let Some((key, row)) = cursor.next_row()? {
        let (id, text) = text_of(&row);
        let ordinal = key.last_chunk::<4>().map_or(0, |last| u32::from_be_bytes(*last));
        let row_id = (id, (!keyed).then(|| (text.clone(), ordinal)));
        assert!(rows.insert(row_id, text).is_none(), "a row twice");
    }
    assert_eq!(rows.len() as u64, table.len(), "the count of a tree");
    Ok(rows)
}

/// Everything in a root value.
/// # Errors
/// What reading gives.
pub fn tables_of(root: &Root) -> Result<Tables> {
    root.tables.iter().map(|(oid, table)| Ok((*oid, rows_of(table)?))).collect()
}

/// What a store holds.
/// # Errors
/// What reading gives.
pub fn observe(store: &Store) -> Result<StoreModel> {
    let mut found = StoreModel { state: store.list_state("").into_iter().collect(), ..StoreModel::default() };
    for database in store.databases() {
        let mut branches = BTreeMap::new();
        for (name, head) in store.branches(&database)? {
            let state = store.branch(&database, &name)?.state();
            assert_eq!(state.head, head);
            let head_tables = Arc::new(tables_of(&state.head_root)?);
            let staged = Arc::new(tables_of(&state.staged)?);
            let working = Arc::new(tables_of(&state.working)?);
            branches.insert(name, BranchModel { head, head_tables, staged, working, applied: state.applied_to_working });
        }
        let tags = store.tags(&database)?.into_iter().map(|tag| (tag.name, tag.commit)).collect();
        found.databases.insert(database, DatabaseModel { branches, tags });
    }
    Ok(found)
}

/// What a local root value becomes when its head moves: rows that are as the head had them follow, others stay.
pub fn follow(before: &Tables, after: &Tables, local: &Tables) -> Tables {
    let mut local = local.clone();
    for (oid, new_rows) in after {
        let Some(old_rows) = before.get(oid) else {
            local.entry(*oid).or_insert_with(|| new_rows.clone());
            continue;
        };
        let Some(mine) = local.get_mut(oid) else { continue };
        for id in old_rows.keys().chain(new_rows.keys()) {
            let (old, new) = (old_rows.get(id), new_rows.get(id));
            if old != new && mine.get(id) == old {
                // Equal rows without a key are a number of rows: one more has the next number, one less was the last.
                let (id, text, equal) = (id.0, id.1.as_ref().map(|(text, _)| text.clone()), count_equal(mine, id));
                match (new, text) {
                    (Some(new), None) => mine.insert((id, None), new.clone()),
                    (None, None) => mine.remove(&(id, None)),
                    (Some(new), Some(text)) => mine.insert((id, Some((text, equal))), new.clone()),
                    (None, Some(text)) => mine.remove(&(id, Some((text, equal - 1)))),
                };
            }
        }
    }
    local
}

/// How many rows without a key are equal to this one.
pub fn count_equal(rows: &Rows, id: &RowId) -> u32 {
    let text = |id: &RowId| id.1.as_ref().map(|(text, _)| text.clone());
    rows.keys().filter(|other| other.0 == id.0 && text(other) == text(id)).count() as u32
}

/// Where two models differ first, for messages: whole ones fill the screen.
pub fn first_difference(expected: &StoreModel, found: &StoreModel) -> String {
    if expected.state != found.state {
        return format!("state {:?} and {:?}", expected.state, found.state);
    }
    for (name, database) in &expected.databases {
        let Some(other) = found.databases.get(name) else { return format!("database {name} is missing") };
        if database.tags != other.tags {
            return format!("tags {:?} and {:?}", database.tags, other.tags);
        }
        for (name, branch) in &database.branches {
            let Some(other) = other.branches.get(name) else { return format!("branch {name} is missing") };
            if branch.head != other.head {
                return format!("branch {name}: head {:.12} and {:.12}", branch.head, other.head);
            }
            for (what, a, b) in [
                ("head", &branch.head_tables, &other.head_tables),
                ("staged", &branch.staged, &other.staged),
                ("working", &branch.working, &other.working),
            ] {
                if a != b {
                    return format!("branch {name}: rows of {what}: {}", first_row(a, b));
                }
            }
            if branch.applied != other.applied {
                return format!("branch {name}: applied {:?} and {:?}", branch.applied, other.applied);
            }
        }
        if let Some(name) = other.branches.keys().find(|name| !database.branches.contains_key(*name)) {
            return format!("branch {name} is there");
        }
    }
    format!("databases {:?} and {:?}", expected.databases.keys(), found.databases.keys())
}

fn first_row(a: &Tables, b: &Tables) -> String {
    for (oid, rows) in a {
        let Some(other) = b.get(oid) else { return format!("table {oid} is missing") };
        for id in rows.keys().chain(other.keys()) {
            if rows.get(id) != other.get(id) {
                return format!("table {oid}, row {id:?}: {:?} and {:?}", rows.get(id), other.get(id));
            }
        }
    }
    format!("tables {:?} and {:?}", a.keys(), b.keys())
}
