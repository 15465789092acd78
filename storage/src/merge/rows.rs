//! One table's rows from two versions of it.

use std::collections::HashSet;
use std::sync::Arc;

use super::columns::ColumnMap;
use super::unique;
use super::{BASE, MergeOptions, OURS, RowConflict, THEIRS, Violation};
use crate::diff::{RowDiff, diff_tables};
use crate::edit::Unique;
use crate::error::{Error, Result};
use crate::schema::{Oid, TableSchema};
use crate::table::{ROW_HASH_SIZE, TableData, TableShape};
use crate::value::{DataType, Row, TextSettings, Value};

/// A merged table and what could not be merged.
pub(super) struct MergedTable {
    pub data: Arc<TableData>,
    pub conflicts: Vec<RowConflict>,
    pub violations: Vec<Violation>,
}

impl MergedTable {
    fn clean(data: Arc<TableData>) -> Self {
        MergedTable { data, conflicts: Vec::new(), violations: Vec::new() }
    }
}

/// What a table's merge ends with: a table, or why it must stay ours.
type Outcome = std::result::Result<MergedTable, String>;

/// Merges the rows of a table whose merged definition is `schema`.
pub(super) fn merge_table(
    oid: Oid,
    sides: [Option<&Arc<TableData>>; 3],
    schema: &Arc<TableSchema>,
    columns: &ColumnMap,
    options: &MergeOptions<'_>,
) -> Result<Outcome> {
    let [base, ours, theirs] = sides;
    let (ours, theirs) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (Some(only), None) | (None, Some(only)) => return under(only, schema).map(|data| data.map(MergedTable::clean)),
        (None, None) => return Err(Error::Invalid(format!("table \"{}\" has no rows on either side", schema.name))),
    };
    let shape = TableShape::new(schema.clone())?;
    // One number may be another column's on another side: positions have to be the same, too.
    let fits = |side: usize, table: &TableData| shape.same_rows(&table.shape) && columns.merged_as(side);
    let same = |from: (usize, Option<&TableData>), to: (usize, &TableData)| {
        Ok::<bool, Error>(columns.same_positions(from.0, to.0) && same_rows(from.1, to.1)?)
    };
    let unchanged = |side: usize, table: &TableData| match base {
        Some(base) => same((BASE, Some(&**base)), (side, table)),
        None => Ok(table.is_empty()),
    };
    if fits(OURS, ours) && (unchanged(THEIRS, theirs)? || same((OURS, Some(&**ours)), (THEIRS, &**theirs))?) {
        return under(ours, schema).map(|data| data.map(MergedTable::clean));
    }
    if fits(THEIRS, theirs) && unchanged(OURS, ours)? {
        return under(theirs, schema).map(|data| data.map(MergedTable::clean));
    }
    let alike = [base, Some(ours), Some(theirs)].into_iter().flatten().all(|side| match shape.key {
        Some(_) => shape.same_key(&side.shape),
        None => shape.same_rows(&side.shape),
    });
    let positions = shape.key.is_some() || [BASE, OURS, THEIRS].iter().all(|side| sides[*side].is_none() || columns.merged_as(*side));
    if !alike || !positions {
        return Ok(Err("its primary key, or the columns of a table without one, changed on one side and rows on the other".into()));
    }
    let sides = [base.map(|base| &**base), Some(&**ours), Some(&**theirs)];
    let merger = Merger { oid, sides, shape: &shape, columns, options };
    match if shape.key.is_some() { merger.keyed() } else { merger.keyless(ours, theirs) } {
        Err(error) => refusal(error).map(Err),
        Ok(merged) => Ok(merged),
    }
}

/// Turns what says that values do not fit into a reason; other errors stay errors.
fn refusal(error: Error) -> Result<String> {
    match error {
        Error::Value(_) | Error::InvalidText { .. } | Error::OutOfRange { .. } => {
            Ok(format!("a value does not fit its column's merged type: {error}"))
        }
        other => Err(other),
    }
}

/// Whether a table has the base's rows, in the same columns.
fn same_rows(base: Option<&TableData>, side: &TableData) -> Result<bool> {
    match base {
        None => Ok(side.is_empty()),
        Some(base) => Ok(base.shape.same_rows(&side.shape) && base.rows.diff(&side.rows).next().transpose()?.is_none()),
    }
}

/// A side's rows under the merged definition; a reason when a unique index that is new to them does not hold.
fn under(side: &Arc<TableData>, schema: &Arc<TableSchema>) -> Result<std::result::Result<Arc<TableData>, String>> {
    if side.schema() == schema {
        return Ok(Ok(side.clone()));
    }
    match side.with_shape(TableShape::new(schema.clone())?) {
        Ok(data) => Ok(Ok(Arc::new(data))),
        Err(Error::DuplicateKey { index, key, .. }) => Ok(Err(not_unique(&index, &key))),
        Err(error) => Err(error),
    }
}

fn not_unique(index: &str, key: &str) -> String {
    format!("unique index \"{index}\" of one side does not hold for the other's rows: key {key}")
}

/// The merge of one table.
pub(super) struct Merger<'a> {
    pub oid: Oid,
    pub sides: [Option<&'a TableData>; 3],
    /// The merged table's.
    pub shape: &'a Arc<TableShape>,
    pub columns: &'a ColumnMap,
    pub options: &'a MergeOptions<'a>,
}

/// What a row becomes.
enum Decision {
    Row(Option<Row>),
    Conflict,
}

impl Merger<'_> {
    fn keyed(&self) -> Result<Outcome> {
        let fits = |side: usize| self.fits(side);
        let cheap = |side: usize| self.sides[BASE].zip(self.sides[side]).is_none_or(|(base, side)| base.shape.same_rows(&side.shape));
        // The changes of one side are made on the table of the other, if possible on one whose rows need not be rewritten,
        // and so that the changes are known without reading all rows.
        let (onto, from): (usize, &[usize]) = match () {
            () if fits(OURS) && (cheap(THEIRS) || !fits(THEIRS) || !cheap(OURS)) => (OURS, &[THEIRS]),
            () if fits(THEIRS) => (THEIRS, &[OURS]),
            () => (OURS, &[THEIRS, OURS]),
        };
        let started = self.start(onto)?;
        let mut data = match started {
            Ok(data) => data,
            Err(reason) => return Ok(Err(reason)),
        };
        let (mut conflicts, mut touched, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for &side in from {
            for difference in self.differences(side) {
                let difference = difference?;
                let key = difference.key;
                if from.len() > 1 && !seen.insert(key.clone()) {
                    continue;
                }
                let get = |side: usize| self.sides[side].map(|table| table.get(&key)).transpose().map(Option::flatten);
                let other = get(OURS + THEIRS - side)?;
                let (ours, theirs) = if side == OURS { (difference.to, other) } else { (other, difference.to) };
                let base = difference.from;
                let row = match self.decide(base.as_ref(), ours.as_ref(), theirs.as_ref())? {
                    Decision::Row(row) => row,
                    Decision::Conflict => {
                        let row = ours.as_ref().map(|row| self.project(OURS, row)).transpose()?;
                        conflicts.push(RowConflict { table: self.oid, key: key.clone(), base, ours, theirs, copies: None });
                        row
                    }
                };
                if set_row(&mut data, &key, row)? {
                    touched.push(key);
                }
            }
        }
        conflicts.sort_by(|a, b| a.key.cmp(&b.key));
        let violations = match unique::settle(self, &mut data, touched)? {
            Ok(violations) => violations,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(Ok(MergedTable { data: Arc::new(data), conflicts, violations }))
    }

    /// Whether a side's rows are rows of the merged table as they are.
    fn fits(&self, side: usize) -> bool {
        self.sides[side].is_some_and(|table| self.shape.same_rows(&table.shape)) && self.columns.merged_as(side)
    }

    /// The rows that a side has changed.
    fn differences(&self, side: usize) -> Box<dyn Iterator<Item = Result<RowDiff>> + '_> {
        let (base, table) = (self.sides[BASE], self.sides[side]);
        let number = |side: usize, at: usize| self.table(side).schema().columns[at].attnum;
        let same_numbers = |positions: &[Option<usize>; 3]| match (positions[BASE], positions[side]) {
            (Some(from), Some(to)) => number(BASE, from) == number(side, to),
            (Some(from), None) => !self.table(side).schema().columns.iter().any(|c| c.attnum == number(BASE, from)),
            _ => true,
        };
        if base.is_none() || self.columns.ids.iter().all(same_numbers) {
            return diff_tables(base, table);
        }
        // A diff pairs columns by their numbers, which are other columns' here since an earlier merge.
        let changed = move |difference: Result<RowDiff>| {
            let compared = difference.and_then(|difference| {
                let from = self.table(BASE).get(&difference.key)?;
                let same = match (&from, &difference.to) {
                    (Some(from), Some(to)) => self.columns.ids.iter().all(|positions| {
                        let value = |row: &Row, side: usize| positions[side].map_or(Value::Null, |at| row[at].clone());
                        value(from, BASE) == value(to, side)
                    }),
                    _ => false,
                };
                Ok((!same).then_some(RowDiff { from, ..difference }))
            });
            compared.transpose()
        };
        let gone = move |difference: Result<RowDiff>| {
            let missing = difference.and_then(|difference| Ok((!self.table(side).rows.contains(&difference.key)?).then_some(difference)));
            missing.transpose()
        };
        Box::new(diff_tables(None, table).filter_map(changed).chain(diff_tables(base, None).filter_map(gone)))
    }

    /// A side's rows in the merged columns.
    fn start(&self, side: usize) -> Result<std::result::Result<TableData, String>> {
        let table = self.sides[side].expect("BUG: a merge onto a side without the table");
        let made = if self.fits(side) {
            table.with_shape(self.shape.clone())
        } else {
            let mut cursor = table.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
            let mut rows = std::iter::from_fn(|| cursor.next_row().transpose().map(|row| row.and_then(|(_, row)| self.known(side, &row))));
            TableData::build(self.shape.clone(), table.rows.reader(), &mut rows)
        };
        match made {
            Err(Error::DuplicateKey { index, key, .. }) => Ok(Err(not_unique(&index, &key))),
            other => other.map(Ok),
        }
    }

    /// A cell of a side's row in the merged column's type; `None`: the side does not have the column.
    fn cell(&self, side: usize, row: &[Value], id: usize) -> Result<Option<Value>> {
        let Some(at) = self.columns.ids[id][side] else { return Ok(None) };
        let from = &self.table(side).schema().columns[at].data_type;
        let to = self.columns.merged[id].map_or(from, |at| &self.shape.schema.columns[at].data_type);
        convert(&row[at], from, to).map(Some)
    }

    fn table(&self, side: usize) -> &TableData {
        self.sides[side].expect("BUG: a row of a side without the table")
    }

    /// The merged columns' values as far as a side knows them, NULL elsewhere.
    fn known(&self, side: usize, row: &[Value]) -> Result<Row> {
        let mut merged = vec![Value::Null; self.shape.schema.columns.len()];
        for (id, at) in self.columns.merged.iter().enumerate() {
            if let (Some(at), Some(value)) = (at, self.cell(side, row, id)?) {
                merged[*at] = value;
            }
        }
        Ok(merged)
    }

    /// A side's row in the merged columns; those that it does not have are filled.
    pub fn project(&self, side: usize, row: &[Value]) -> Result<Row> {
        let mut merged = self.known(side, row)?;
        for (id, at) in self.columns.merged.iter().enumerate() {
            if let (Some(at), None) = (at, self.columns.ids[id][side]) {
                merged[*at] = self.fill(*at, &merged)?;
            }
        }
        Ok(merged)
    }

    fn fill(&self, column: usize, row: &[Value]) -> Result<Value> {
        self.options.fill.map_or(Ok(Value::Null), |fill| fill(&self.shape.schema, column, row))
    }

    fn decide(&self, base: Option<&Row>, ours: Option<&Row>, theirs: Option<&Row>) -> Result<Decision> {
        let row = |side: usize, row: &Row| self.project(side, row).map(|row| Decision::Row(Some(row)));
        match (base, ours, theirs) {
            (_, None, None) => Ok(Decision::Row(None)),
            (None, Some(ours), None) => row(OURS, ours),
            (None, None, Some(theirs)) => row(THEIRS, theirs),
            (Some(base), Some(ours), None) => self.deleted(base, OURS, ours),
            (Some(base), None, Some(theirs)) => self.deleted(base, THEIRS, theirs),
            (base, Some(ours), Some(theirs)) => self.merge_cells(base, ours, theirs),
        }
    }

    /// A row that one side deleted: gone unless the other side changed it.
    fn deleted(&self, base: &Row, side: usize, row: &Row) -> Result<Decision> {
        for id in 0..self.columns.ids.len() {
            let (old, new) = (self.cell(BASE, base, id)?, self.cell(side, row, id)?);
            let changed = match (old, new) {
                (Some(old), Some(new)) => old != new,
                // A column that the side added has been set if it is not what it was filled with.
                (None, Some(new)) => match self.columns.merged[id] {
                    Some(at) => new != self.fill(at, &self.known(side, row)?)?,
                    None => !new.is_null(),
                },
                (_, None) => false,
            };
            if changed {
                return Ok(Decision::Conflict);
            }
        }
        Ok(Decision::Row(None))
    }

    fn merge_cells(&self, base: Option<&Row>, ours: &Row, theirs: &Row) -> Result<Decision> {
        let mut merged = vec![Value::Null; self.shape.schema.columns.len()];
        let mut generated = Vec::new();
        for (id, at) in self.columns.merged.iter().enumerate() {
            let old = base.map(|base| self.cell(BASE, base, id)).transpose()?.flatten();
            let (our, their) = (self.cell(OURS, ours, id)?, self.cell(THEIRS, theirs, id)?);
            let Some(at) = *at else {
                // Dropped by one side: the other must not have changed it.
                if old.is_some_and(|old| [our, their].into_iter().flatten().any(|new| new != old)) {
                    return Ok(Decision::Conflict);
                }
                continue;
            };
            merged[at] = match (our, their) {
                (Some(our), Some(their)) if our == their || old.as_ref() == Some(&their) => our,
                (Some(our), Some(their)) if old.as_ref() == Some(&our) => their,
                (Some(_), Some(_)) if self.is_generated(at) => Value::Null,
                (Some(_), Some(_)) => return Ok(Decision::Conflict),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => Value::Null,
            };
            if self.is_generated(at) {
                generated.push(at);
            }
        }
        // What is generated follows from the merged row, which may be neither side's.
        for at in generated {
            merged[at] = self.fill(at, &merged)?;
        }
        Ok(Decision::Row(Some(merged)))
    }

    fn is_generated(&self, column: usize) -> bool {
        self.options.fill.is_some() && self.shape.schema.columns[column].generated.is_some()
    }

    /// How often each row occurs is merged like one cell.
    fn keyless(&self, ours: &TableData, theirs: &TableData) -> Result<Outcome> {
        let mut data = match self.start(OURS)? {
            Ok(data) => data,
            Err(reason) => return Ok(Err(reason)),
        };
        let (mut conflicts, mut touched) = (Vec::new(), Vec::new());
        let mut last: Option<[u8; ROW_HASH_SIZE]> = None;
        for difference in diff_tables(self.sides[BASE], Some(theirs)) {
            let difference = difference?;
            let damaged = || Error::Damaged { place: format!("table \"{}\"", self.shape.schema.name), what: "row key too short".into() };
            let hash: [u8; ROW_HASH_SIZE] = *difference.key.first_chunk().ok_or_else(damaged)?;
            if last.replace(hash) == Some(hash) {
                continue;
            }
            let count = |table: Option<&TableData>| table.map_or(Ok(0), |table| copies(table, &hash));
            let copies = [count(self.sides[BASE])?, count(Some(ours))?, count(Some(theirs))?];
            let row = difference.to.or(difference.from).unwrap_or_default();
            let Some(wanted) = super::catalog::merge_value(Some(&copies[BASE]), &copies[OURS], &copies[THEIRS]) else {
                let of = |side: usize| (copies[side] > 0).then(|| row.clone());
                let (base, ours, theirs) = (of(BASE), of(OURS), of(THEIRS));
                conflicts.push(RowConflict { table: self.oid, key: key_of(&hash, 0), base, ours, theirs, copies: Some(copies) });
                continue;
            };
            for ordinal in copies[OURS].min(wanted)..copies[OURS].max(wanted) {
                // Ordinals have no gaps: the last copies come and go.
                let ordinal = if wanted > copies[OURS] { ordinal } else { copies[OURS] - 1 - (ordinal - wanted) };
                let key = key_of(&hash, ordinal as u32);
                set_row(&mut data, &key, (wanted > copies[OURS]).then(|| row.clone()))?;
                touched.push(key);
            }
        }
        let violations = match unique::settle(self, &mut data, touched)? {
            Ok(violations) => violations,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(Ok(MergedTable { data: Arc::new(data), conflicts, violations }))
    }
}

fn key_of(hash: &[u8; ROW_HASH_SIZE], ordinal: u32) -> Vec<u8> {
    [&hash[..], &ordinal.to_be_bytes()].concat()
}

/// How often a keyless table has the rows with this hash.
fn copies(table: &TableData, hash: &[u8; ROW_HASH_SIZE]) -> Result<u64> {
    let last = table.last_of_hash(hash)?;
    Ok(last.and_then(|key| key.get(ROW_HASH_SIZE..)?.try_into().ok().map(u32::from_be_bytes)).map_or(0, |last| u64::from(last) + 1))
}

/// Makes a row what it is to be, or takes it out; unique indexes are not checked. Returns whether anything changed.
pub(super) fn set_row(data: &mut TableData, key: &[u8], row: Option<Row>) -> Result<bool> {
    match (data.get(key)?, row) {
        (None, None) => Ok(false),
        (None, Some(new)) => data.insert_row(key, &new, Unique::Later).map(|()| true),
        (Some(_), None) => data.delete_row(key).map(|_| true),
        (Some(old), Some(new)) => {
            let changed: Vec<(u16, Value)> =
                new.into_iter().enumerate().filter(|(at, value)| old[*at] != *value).map(|(at, value)| (at as u16, value)).collect();
            if changed.is_empty() {
                return Ok(false);
            }
            data.update_row(key, &changed, &mut Vec::new(), Unique::Later).map(|_| true)
        }
    }
}

/// A value in another type: by way of its text, as an assignment in PostgreSQL does where there is no cast.
fn convert(value: &Value, from: &DataType, to: &DataType) -> Result<Value> {
    if from.kind == to.kind && from.oid == to.oid && from.typmod == to.typmod || value.is_null() {
        return Ok(value.clone());
    }
    to.parse(&from.to_text(value, &TextSettings::default()), &TextSettings::default())
}
