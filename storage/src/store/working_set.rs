//! How a working set lives beside a moving HEAD.
//!
//! Two rules, both functions of root values and change sets alone, so that replay at recovery repeats them exactly:
//!
//! - *Follow*: when HEAD advances by a commit, a row of the working set that was as HEAD had it takes HEAD's new
//!   version; a row that was changed locally stays, and that is a conflict to be shown. The same for catalog objects and
//!   for tables that a commit replaced as a whole.
//! - *Rebase*: a local transaction that began on an older working set is repeated on the present one, if everything that
//!   it changed is still as it found it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::branch::WorkingSet;
use super::rebase_checks;
use crate::change_set::{ChangeSet, RowsChange};
use crate::chunk::ChunkReader;
use crate::diff::diff_tables;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::root::{Root, TableData};
use crate::schema::{CatalogObject, Oid, TableSchema};
use crate::value::{Row, TextSettings, Value};

/// Where the working set could not follow: (table or object, text of the key or name).
pub(crate) type Conflicts = Vec<(Oid, String)>;

/// Lets staged and working follow HEAD from `before` to `after`.
pub(crate) fn follow_both(
    before: &Root,
    after: &Root,
    changes: &ChangeSet,
    dirty: &WorkingSet,
    conflicts: &mut Conflicts,
) -> Result<WorkingSet> {
    // Conflicts of what is staged show again in what is working, unless it was changed back there.
    let staged = follow(before, after, changes, &dirty.staged, &mut Vec::new())?;
    let working = follow(before, after, changes, &dirty.working, conflicts)?;
    Ok(WorkingSet { staged, working })
}

fn follow(before: &Root, after: &Root, changes: &ChangeSet, local: &Root, conflicts: &mut Conflicts) -> Result<Root> {
    let mut root = local.clone();
    // Tables that were settled as a whole: taken over, dropped, or in conflict.
    let mut settled = BTreeSet::new();
    for change in &changes.catalog {
        root = follow_object(before, after, root, change.oid, &mut settled, conflicts)?;
    }
    for change in &changes.tables {
        if settled.contains(&change.table) {
            continue;
        }
        root = match &change.rows {
            RowsChange::Rows(rows) => {
                let keys = rows.iter().map(|row| row.key.to_vec()).collect();
                follow_rows(before, after, change.table, &keys, root, conflicts)?
            }
            // A table that is as HEAD had it takes the new one as a whole; one with local changes follows row by row.
            RowsChange::Replaced { .. } if same_table(before.table(change.table), root.table(change.table))? => {
                follow_object(before, after, root, change.table, &mut settled, conflicts)?
            }
            RowsChange::Replaced { .. } => {
                let differences = diff_tables(before.table(change.table).map(|t| &**t), after.table(change.table).map(|t| &**t));
                let keys = differences.map(|difference| Ok(difference?.key)).collect::<Result<_>>()?;
                follow_rows(before, after, change.table, &keys, root, conflicts)?
            }
            RowsChange::Dropped => follow_object(before, after, root, change.table, &mut settled, conflicts)?,
        };
    }
    Ok(root)
}

/// Takes over one object as HEAD has it now, if it was as HEAD had it before.
fn follow_object(
    before: &Root,
    after: &Root,
    local: Root,
    oid: Oid,
    settled: &mut BTreeSet<Oid>,
    conflicts: &mut Conflicts,
) -> Result<Root> {
    let (old, new, mine) = (before.catalog().get(oid), after.catalog().get(oid), local.catalog().get(oid));
    let same_rows = same_table(before.table(oid), local.table(oid))?;
    // A name that is taken here: HEAD's object stays out.
    let namesake = new.filter(|_| mine == old).and_then(|new| rebase_checks::namesake(local.catalog(), new));
    if mine == old && same_rows && namesake.is_none() {
        settled.insert(oid);
        return Ok(local.with_object_of(after, oid));
    }
    if mine == new {
        // The same was done here: from now on one table where the rows are the same, too; otherwise they follow one by one.
        let same = same_table(after.table(oid), local.table(oid))?;
        return Ok(if same { local.with_object_of(after, oid) } else { local });
    }
    // Rows were changed here and the definition there: the definition is taken over if the rows keep their shape.
    if mine == old
        && namesake.is_none()
        && let (Some(CatalogObject::Table(from)), Some(CatalogObject::Table(to))) = (old.map(|o| &**o), new.map(|o| &**o))
        && same_shape(from, to)
    {
        let mut edit = Edit::new(local.clone());
        match edit.put_table((**to).clone()) {
            Ok(()) => return Ok(edit.root_and_changes().0),
            Err(Error::DuplicateKey { .. } | Error::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    settled.insert(oid);
    let name = [mine, old, new].into_iter().flatten().next().map_or("", |o| o.name());
    conflicts.push((oid, name.to_owned()));
    Ok(local)
}

fn same_table(a: Option<&Arc<TableData>>, b: Option<&Arc<TableData>>) -> Result<bool> {
    match (a, b) {
        (None, None) => Ok(true),
        (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ok(true),
        (Some(a), Some(b)) => Ok(diff_tables(Some(a), Some(b)).next().transpose()?.is_none()),
        _ => Ok(false),
    }
}

/// Whether rows of one are rows of the other, under the same keys.
fn same_shape(a: &TableSchema, b: &TableSchema) -> bool {
    let column = |c: &crate::schema::Column| (c.attnum, c.data_type.kind);
    a.columns.len() == b.columns.len()
        && a.columns.iter().zip(&b.columns).all(|(x, y)| column(x) == column(y))
        && a.key_columns() == b.key_columns()
        && a.primary_key.is_some() == b.primary_key.is_some()
}

/// How rows of HEAD's table become rows of the local one, which may have columns more or fewer.
struct Shape {
    /// For each local column its position in HEAD's table.
    from_head: Vec<Option<usize>>,
    identical: bool,
}

impl Shape {
    /// `None` when a row does not keep its key.
    fn between(head: &TableSchema, local: &TableSchema) -> Option<Shape> {
        if same_shape(head, local) {
            return Some(Shape { from_head: (0..head.columns.len()).map(Some).collect(), identical: true });
        }
        let position = |attnum: i16| head.columns.iter().position(|c| c.attnum == attnum);
        let from_head: Vec<Option<usize>> = local.columns.iter().map(|c| position(c.attnum)).collect();
        let same_kind = |(local_at, head_at): (usize, &Option<usize>)| {
            head_at.is_none_or(|h| head.columns[h].data_type.kind == local.columns[local_at].data_type.kind)
        };
        let key_in_head: Option<Vec<usize>> = local.key_columns().iter().map(|k| from_head[*k]).collect();
        let keyed = head.primary_key.is_some() && local.primary_key.is_some() && key_in_head == Some(head.key_columns());
        (keyed && from_head.iter().enumerate().all(same_kind)).then_some(Shape { from_head, identical: false })
    }

    /// The local row for a row of HEAD; columns that HEAD lacks keep their local value.
    fn row(&self, head: &Row, mine: Option<&Row>) -> Row {
        let keep = |at: usize| mine.and_then(|m| m.get(at)).cloned().unwrap_or(Value::Null);
        self.from_head.iter().enumerate().map(|(at, from)| from.map_or_else(|| keep(at), |from| head[from].clone())).collect()
    }
}

/// Lets the rows with these keys follow.
fn follow_rows(before: &Root, after: &Root, oid: Oid, keys: &BTreeSet<Vec<u8>>, local: Root, conflicts: &mut Conflicts) -> Result<Root> {
    let (Some(new_table), Some(my_table)) = (after.table(oid).cloned(), local.table(oid).cloned()) else {
        // Dropped here: nothing to follow, and the drop stays; that HEAD's table went on is a conflict.
        if after.table(oid).is_some() {
            conflicts.push((oid, String::new()));
        }
        return Ok(local);
    };
    let Some(shape) = Shape::between(new_table.schema(), my_table.schema()) else {
        conflicts.push((oid, String::new()));
        return Ok(local);
    };
    let old_table = before.table(oid);
    if shape.identical && old_table.is_some_and(|old| Arc::ptr_eq(old, &my_table)) {
        return Ok(local.with_object_of(after, oid));
    }
    // Deletions first and insertions last, so that a unique value may move from one row to another.
    let mut steps: [Vec<(&[u8], Row)>; 3] = Default::default();
    for key in keys {
        let old = old_table.map(|t| t.get(key)).transpose()?.flatten();
        let new = new_table.get(key)?;
        let mine = my_table.get(key)?;
        let as_mine = |row: &Option<Row>| row.as_ref().map(|r| shape.row(r, mine.as_ref()));
        let (old, new) = (as_mine(&old), as_mine(&new));
        if mine == new {
            continue;
        }
        if mine != old {
            conflicts.push((oid, key_text(&my_table, mine.as_ref().or(new.as_ref()).or(old.as_ref()))));
            continue;
        }
        match (mine, new) {
            (Some(_), None) => steps[0].push((key, Vec::new())),
            (Some(_), Some(new)) => steps[1].push((key, new)),
            (None, Some(new)) => steps[2].push((key, new)),
            (None, None) => {}
        }
    }
    let mut edit = Edit::new(local);
    for (key, _) in &steps[0] {
        edit.delete(oid, key)?;
    }
    // Updates that collide are tried again once the others have made room.
    let mut again = Vec::new();
    for (key, new) in std::mem::take(&mut steps[1]) {
        match edit.update(oid, key, new.clone()) {
            Ok(_) => {}
            Err(Error::DuplicateKey { .. }) => again.push((key, new)),
            Err(error) => return Err(error),
        }
    }
    for (key, new) in again {
        match edit.update(oid, key, new.clone()) {
            Ok(_) => {}
            Err(Error::DuplicateKey { .. }) => conflicts.push((oid, key_text(&my_table, Some(&new)))),
            Err(error) => return Err(error),
        }
    }
    for (_, new) in std::mem::take(&mut steps[2]) {
        match edit.insert(oid, new.clone()) {
            Ok(()) => {}
            Err(Error::DuplicateKey { .. }) => conflicts.push((oid, key_text(&my_table, Some(&new)))),
            Err(error) => return Err(error),
        }
    }
    Ok(edit.root_and_changes().0)
}

/// `(id)=(1)`, as PostgreSQL names a key.
fn key_text(table: &TableData, row: Option<&Row>) -> String {
    let schema = table.schema();
    let columns = if schema.primary_key.is_some() { schema.key_columns() } else { (0..schema.columns.len()).collect() };
    let names: Vec<&str> = columns.iter().map(|c| schema.columns[*c].name.as_str()).collect();
    let settings = TextSettings::default();
    let values: Vec<String> = columns
        .iter()
        .map(|c| {
            let value = row.and_then(|r| r.get(*c)).unwrap_or(&Value::Null);
            if value.is_null() {
                return "null".into();
            }
            let mut out = Vec::new();
            schema.columns[*c].data_type.format(value, &settings, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        })
        .collect();
    format!("({})=({})", names.join(", "), values.join(", "))
}

/// Repeats changes that were made on `base` on `current`, if what they touch is the same in both.
/// # Errors
/// `Conflict`; `DuplicateKey` when a unique key was taken meanwhile.
pub(crate) fn rebase(base: &Root, current: &Root, changes: &ChangeSet, reader: &Arc<dyn ChunkReader>) -> Result<Edit> {
    let conflict = |what: String| Error::Conflict { what };
    for change in &changes.catalog {
        if base.catalog().get(change.oid) != current.catalog().get(change.oid) {
            let name = base.catalog().get(change.oid).or(current.catalog().get(change.oid)).map_or("", |o| o.name());
            return Err(conflict(format!("\"{name}\"")));
        }
    }
    for change in &changes.tables {
        let (old, now) = (base.table(change.table), current.table(change.table));
        let name = || format!("table \"{}\"", old.or(now).map_or("", |t| t.schema().name.as_str()));
        match &change.rows {
            RowsChange::Replaced { .. } | RowsChange::Dropped => {
                if !same_table(old, now)? {
                    return Err(conflict(name()));
                }
            }
            RowsChange::Rows(rows) => {
                let (Some(old), Some(now)) = (old, now) else {
                    // Made by these changes themselves, or dropped by somebody.
                    if old.is_some() != now.is_some() {
                        return Err(conflict(name()));
                    }
                    continue;
                };
                if !same_shape(old.schema(), now.schema()) {
                    return Err(conflict(name()));
                }
                if Arc::ptr_eq(old, now) {
                    continue;
                }
                let keyless = now.schema().primary_key.is_none();
                let keys: BTreeSet<&[u8]> = rows.iter().map(|r| &*r.key).collect();
                for key in keys {
                    let (was, is) = (old.get(key)?, now.get(key)?);
                    if was == is {
                        continue;
                    }
                    // Equal rows of a keyless table may have been inserted by both: applying gives them another ordinal.
                    if keyless && was.is_none() {
                        continue;
                    }
                    return Err(conflict(format!("{} {}", name(), key_text(now, was.as_ref().or(is.as_ref())))));
                }
            }
        }
    }
    let mut edit = Edit::new(current.clone());
    edit.apply_changes(changes, reader)?;
    rebase_checks::check(base, current, changes, edit.root())?;
    Ok(edit)
}
