//! dolt_diff_$t, dolt_commit_diff_$t and the function dolt_diff(from, to, 't'): changed rows, both sides in one row.
//!
//! `dolt_diff_t` goes through the whole history of HEAD by the row history's index, after what is not committed yet; the
//! other two take the change sets between two commits that are near each other, or compare two roots. Values are made for the
//! columns that the query reads and for no others.

use std::ops::Bound;
use std::sync::Arc;

use strandline_storage::diff::{RowDiff, diff_tables};
use strandline_storage::store::{NearDiff, RowVersion};
use strandline_storage::{Catalog, Commit, CommitId, Kind, Root, Row, TableData, TableSchema, Value};

use super::mapping::{Mapper, Mapping, find_table_named, undefined_table};
use super::{Arguments, SOURCE_COLUMNS, TEXT, TIMESTAMP, VersionTable, hash, plain_columns, source_values, table_columns, timestamp};
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::scan::key_kind;
use crate::system::builder::{RowIterator, Shape, text};
use crate::system::refs::{Range, Resolver, Target, parse_range};
use crate::system::value_text;
use crate::types::SqlType;
use crate::virtual_table::{BatchIterator, ScanRequest};

/// The ref of what is not committed.
const WORKING: &str = "WORKING";

/// Where a result column's value comes from.
#[derive(Clone, Copy, Debug)]
enum Slot {
    To(usize),
    ToCommit,
    ToDate,
    From(usize),
    FromCommit,
    FromDate,
    Kind,
    Source(usize),
}

/// The columns of a diff and their slots.
fn layout(to: &TableSchema, from: &TableSchema, source: bool) -> (Shape, Vec<Slot>) {
    let mut columns: Vec<(String, SqlType, Kind)> = table_columns(to, "to_");
    let mut slots: Vec<Slot> = (0..columns.len()).map(Slot::To).collect();
    columns.extend(plain_columns(&[("to_commit", TEXT), ("to_commit_date", TIMESTAMP)]));
    slots.extend([Slot::ToCommit, Slot::ToDate]);
    let from_columns = table_columns(from, "from_");
    slots.extend((0..from_columns.len()).map(Slot::From));
    columns.extend(from_columns);
    columns.extend(plain_columns(&[("from_commit", TEXT), ("from_commit_date", TIMESTAMP), ("diff_type", TEXT)]));
    slots.extend([Slot::FromCommit, Slot::FromDate, Slot::Kind]);
    if source {
        slots.extend((0..SOURCE_COLUMNS.len()).map(Slot::Source));
        columns.extend(plain_columns(&SOURCE_COLUMNS));
    }
    (Shape::from_columns(columns), slots)
}

/// What the columns beside the rows hold.
#[derive(Clone, Debug)]
struct Ends {
    to_commit: Value,
    to_date: Value,
    from_commit: Value,
    from_date: Value,
    source: [Value; 5],
}

/// One row of a diff, in the columns that are wanted.
fn diff_row(slots: &[Slot], to: Option<(&Mapping, &[Value])>, from: Option<(&Mapping, &[Value])>, ends: &Ends) -> Row {
    let kind = match (from.is_some(), to.is_some()) {
        (false, _) => "added",
        (true, true) => "modified",
        (true, false) => "removed",
    };
    slots
        .iter()
        .map(|slot| match slot {
            Slot::To(i) => to.map_or(Value::Null, |(mapping, row)| mapping.value(row, *i)),
            Slot::From(i) => from.map_or(Value::Null, |(mapping, row)| mapping.value(row, *i)),
            Slot::ToCommit => ends.to_commit.clone(),
            Slot::ToDate => ends.to_date.clone(),
            Slot::FromCommit => ends.from_commit.clone(),
            Slot::FromDate => ends.from_date.clone(),
            Slot::Kind => text(kind),
            Slot::Source(i) => ends.source[*i].clone(),
        })
        .collect()
}

/// The one row that a query asks for, by a key as one version of the table has it.
#[derive(Clone, Debug)]
pub struct WantedKey {
    pub key: Vec<u8>,
    of: Arc<TableSchema>,
}

impl WantedKey {
    /// The row has this key in the table too.
    pub fn fits(&self, table: &TableSchema) -> bool {
        self.of.same_key(table)
    }
}

/// The key that the query asks for, when it names every key column of the table with this prefix.
pub fn wanted_key(shape: &Shape, request: &ScanRequest, table: &TableData, prefix: &str) -> Result<Option<WantedKey>> {
    let schema = table.schema();
    let key = schema.key_columns();
    // Where equal values may have different bytes, a key is no way to the row.
    if key.is_empty() || !key.iter().all(|&c| key_kind(schema.columns[c].data_type.kind).0) {
        return Ok(None);
    }
    let mut values = Vec::with_capacity(key.len());
    for column in key {
        match shape.equal(request, &format!("{prefix}{}", schema.columns[column].name)) {
            Some(value) if !value.is_null() => values.push(value.clone()),
            _ => return Ok(None),
        }
    }
    Ok(Some(WantedKey { key: table.key_prefix(None, &values)?, of: Arc::clone(schema) }))
}

/// The changes of the table's rows over a commit's history, of the wanted row alone where its key can tell it.
pub fn versions_of(
    context: &StatementContext,
    head: CommitId,
    table: u32,
    wanted: Option<&WantedKey>,
) -> Result<Box<dyn Iterator<Item = strandline_storage::Result<RowVersion>> + Send>> {
    let keys = match wanted {
        Some(wanted) => {
            let root = Resolver::new(context).root(Target::Commit(head))?;
            // A table that HEAD has no more gives its history from its end.
            root.table(table).filter(|t| wanted.fits(t.schema())).map(|_| vec![wanted.key.clone()])
        }
        None => None,
    };
    Ok(context.store.table_history(head, table, keys)?)
}

/// Differences between two versions of a table; of one row only where its key is known in both.
fn differences(from: Option<Arc<TableData>>, to: Option<Arc<TableData>>, wanted: Option<&WantedKey>) -> Result<DiffRows> {
    let Some(wanted) = wanted.filter(|w| [&from, &to].into_iter().flatten().all(|t| w.fits(t.schema()))) else {
        return Ok(diff_tables(from.as_deref(), to.as_deref()));
    };
    let key = &wanted.key[..];
    let get = |table: &Option<Arc<TableData>>| table.as_ref().map_or(Ok(None), |t| t.get(key));
    let (before, after) = (get(&from)?, get(&to)?);
    let same_schema = matches!((&from, &to), (Some(a), Some(b)) if a.schema().columns == b.schema().columns);
    if before.is_none() && after.is_none() || (same_schema && before == after) {
        return Ok(Box::new(std::iter::empty()));
    }
    Ok(Box::new(std::iter::once(Ok(RowDiff { key: key.to_vec(), from: before, to: after }))))
}

type DiffRows = Box<dyn Iterator<Item = strandline_storage::Result<RowDiff>> + Send>;

/// A table at the two ends of a diff.
enum Compared {
    Tables {
        from: Option<Arc<TableData>>,
        to: Option<Arc<TableData>>,
    },
    /// What is known to differ, where the table has one definition.
    Near(NearDiff),
}

impl Compared {
    /// A table at two moments: by the change sets between two commits where these are near each other, otherwise by both root values.
    fn at(context: &StatementContext, from: (Target, u32), to: (Target, u32)) -> Result<Compared> {
        if let ((Target::Commit(from), table), (Target::Commit(to), other)) = (from, to)
            && table == other
            && let Some(near) = context.store.near_diff(from, to, table)?
        {
            return Ok(Compared::Near(near));
        }
        let resolver = Resolver::new(context);
        let table = |(target, table): (Target, u32)| Ok::<_, SqlError>(root_of(context, &resolver, target)?.table(table).cloned());
        Ok(Compared::Tables { from: table(from)?, to: table(to)? })
    }

    fn schemas(&self) -> (Option<&Arc<TableSchema>>, Option<&Arc<TableSchema>>) {
        match self {
            Compared::Tables { from, to } => (from.as_ref().map(|table| table.schema()), to.as_ref().map(|table| table.schema())),
            Compared::Near(near) => (Some(&near.schema), Some(&near.schema)),
        }
    }

    fn rows(self, wanted: Option<&WantedKey>) -> Result<DiffRows> {
        match self {
            Compared::Tables { from, to } => differences(from, to, wanted),
            Compared::Near(near) => Ok(Box::new(near.rows.into_iter().map(Ok))),
        }
    }
}

/// Rows of a diff of two tables. `to` and `from` are the schemas that the result's columns have.
struct TwoEnds {
    compared: Compared,
    ends: Ends,
    key: Option<WantedKey>,
}

impl TwoEnds {
    fn rows(
        self,
        to: &Arc<TableSchema>,
        from: &Arc<TableSchema>,
        slots: Vec<Slot>,
        context: &Arc<StatementContext>,
    ) -> Result<RowIterator> {
        let (from_schema, to_schema) = self.compared.schemas();
        let to_mapping = to_schema.map(|schema| Mapping::new(schema, to));
        let from_mapping = from_schema.map(|schema| Mapping::new(schema, from));
        let ends = self.ends;
        let context = Arc::clone(context);
        // A column that was added or dropped changes no row by itself: rows that differ in nothing that both have are not shown.
        let diffs = self.compared.rows(self.key.as_ref())?;
        Ok(Box::new(diffs.enumerate().map(move |(i, diff)| {
            if i % 1024 == 0 {
                context.check_cancel()?;
            }
            let diff = diff?;
            let to = to_mapping.as_ref().zip(diff.to.as_deref());
            let from = from_mapping.as_ref().zip(diff.from.as_deref());
            Ok(diff_row(&slots, to, from, &ends))
        })))
    }
}

fn slots_of(all: &[Slot], request: &ScanRequest) -> Vec<Slot> {
    request.projection.iter().map(|&i| all[i]).collect()
}

/// The date of a commit's first parent, and that parent.
struct Parents {
    context: Arc<StatementContext>,
    last: Option<(CommitId, Value)>,
}

impl Parents {
    fn ends(&mut self, commit: &Commit) -> Result<Ends> {
        let (from_commit, from_date) = match commit.parents.first() {
            None => (Value::Null, Value::Null),
            Some(parent) => {
                let date = match &self.last {
                    Some((id, date)) if id == parent => date.clone(),
                    _ => {
                        let date = timestamp(self.context.store.commit(*parent)?.meta.commit_time);
                        self.last = Some((*parent, date.clone()));
                        date
                    }
                };
                (hash(*parent), date)
            }
        };
        Ok(Ends {
            to_commit: hash(commit.id),
            to_date: timestamp(commit.meta.commit_time),
            from_commit,
            from_date,
            source: source_values(Some(commit)),
        })
    }
}

/// A table's data at the statement's moment, or in HEAD where it was just dropped: to encode keys with.
pub fn data_for_keys(context: &StatementContext, table: u32) -> Option<Arc<TableData>> {
    context.root.table(table).or_else(|| context.branch.as_ref()?.head_root.table(table)).cloned()
}

/// `dolt_diff_$t`.
pub fn diff_table(table: &Arc<TableSchema>) -> VersionTable {
    let (shape, all) = layout(table, table, true);
    let table = Arc::clone(table);
    VersionTable::new(format!("dolt_diff_{}", table.name), shape, move |shape, context, request| {
        let slots = slots_of(&all, request);
        let key = match data_for_keys(context, table.oid) {
            Some(data) => match wanted_key(shape, request, &data, "to_")? {
                Some(key) => Some(key),
                None => wanted_key(shape, request, &data, "from_")?,
            },
            None => None,
        };
        let only = shape.equal(request, "to_commit").and_then(value_text);
        let working: RowIterator = match (&context.revision, &context.branch) {
            (Revision::Branch(_), Some(branch)) if only.is_none_or(|o| o == WORKING) => {
                let head = context.store.commit(branch.head)?;
                let ends = Ends {
                    to_commit: text(WORKING),
                    to_date: Value::Null,
                    from_commit: hash(branch.head),
                    from_date: timestamp(head.meta.commit_time),
                    source: source_values(None),
                };
                let (from, to) = (branch.head_root.table(table.oid).cloned(), context.root.table(table.oid).cloned());
                let rows = TwoEnds { compared: Compared::Tables { from, to }, ends, key: key.clone() };
                rows.rows(&table, &table, slots.clone(), context)?
            }
            _ => Box::new(std::iter::empty()),
        };
        let committed: RowIterator = match only {
            None => history(&table, context, slots, key)?,
            Some(WORKING) => Box::new(std::iter::empty()),
            Some(id) => one_commit(&table, context, slots, key, id)?,
        };
        Ok(shape.projected_batches(request, Box::new(working.chain(committed))))
    })
}

/// Every change of the table's rows over HEAD's history.
fn history(table: &Arc<TableSchema>, context: &Arc<StatementContext>, slots: Vec<Slot>, key: Option<WantedKey>) -> Result<RowIterator> {
    let head = Resolver::new(context).head_commit()?;
    let versions = versions_of(context, head, table.oid, key.as_ref())?;
    let (mut to_mapper, mut from_mapper) = (Mapper::new(table), Mapper::new(table));
    let mut parents = Parents { context: Arc::clone(context), last: None };
    let mut current: Option<(CommitId, Ends)> = None;
    Ok(Box::new(versions.enumerate().map(move |(i, version)| {
        if i % 1024 == 0 {
            parents.context.check_cancel()?;
        }
        let version = version?;
        if current.as_ref().is_none_or(|(id, _)| *id != version.commit.id) {
            current = Some((version.commit.id, parents.ends(&version.commit)?));
        }
        let (_, ends) = current.as_ref().expect("BUG: just set");
        let to = version.to.as_ref().map(|(schema, row)| (to_mapper.from(schema), row.as_slice()));
        let from = version.from.as_ref().map(|(schema, row)| (from_mapper.from(schema), row.as_slice()));
        Ok(diff_row(&slots, to, from, ends))
    })))
}

/// What one commit changed, for `WHERE to_commit = '<hash>'`.
fn one_commit(
    table: &Arc<TableSchema>,
    context: &Arc<StatementContext>,
    slots: Vec<Slot>,
    key: Option<WantedKey>,
    id: &str,
) -> Result<RowIterator> {
    let nothing: RowIterator = Box::new(std::iter::empty());
    let Ok(id) = id.parse::<CommitId>() else { return Ok(nothing) };
    let commit = match context.store.commit(id) {
        Ok(commit) => commit,
        Err(strandline_storage::Error::NotFound { .. }) => return Ok(nothing),
        Err(other) => return Err(other.into()),
    };
    let head = Resolver::new(context).head_commit()?;
    let set = commit.changes()?;
    let changes = set.tables.iter().any(|t| t.table == table.oid) || set.catalog.iter().any(|c| c.oid == table.oid);
    if !changes || (id != head && !context.store.is_ancestor(id, head)?) {
        return Ok(nothing);
    }
    let ends = Parents { context: Arc::clone(context), last: None }.ends(&commit)?;
    let from = commit.parents.first().map_or(Target::Empty, |parent| Target::Commit(*parent));
    let compared = Compared::at(context, (from, table.oid), (Target::Commit(id), table.oid))?;
    TwoEnds { compared, ends, key }.rows(table, table, slots, context)
}

/// The two ends of a diff, as the query named them.
struct EndPoints {
    from: Target,
    to: Target,
    from_text: String,
    to_text: String,
}

/// A target's root; the working set is the transaction's own.
pub fn root_of(context: &StatementContext, resolver: &Resolver<'_>, target: Target) -> Result<Root> {
    match target {
        Target::Working => Ok(context.root.clone()),
        other => resolver.root(other),
    }
}

/// A target's catalog.
fn catalog_of(context: &StatementContext, target: Target) -> Result<Arc<Catalog>> {
    match target {
        Target::Commit(id) => Ok(context.store.catalog_at(id)?),
        other => Ok(Arc::clone(root_of(context, &Resolver::new(context), other)?.catalog())),
    }
}

/// When a target was committed.
fn date_of(context: &StatementContext, target: Target) -> Result<Value> {
    match target {
        Target::Commit(id) => Ok(timestamp(context.store.commit(id)?.meta.commit_time)),
        Target::Working | Target::Staged | Target::Empty => Ok(Value::Null),
    }
}

impl EndPoints {
    fn ends(&self, context: &StatementContext) -> Result<Ends> {
        Ok(Ends {
            to_commit: text(&self.to_text),
            to_date: date_of(context, self.to)?,
            from_commit: text(&self.from_text),
            from_date: date_of(context, self.from)?,
            source: source_values(None),
        })
    }
}

/// `dolt_commit_diff_$t`: wants `to_commit = ... AND from_commit = ...`.
pub fn commit_diff_table(table: &Arc<TableSchema>) -> VersionTable {
    let (shape, all) = layout(table, table, false);
    let table = Arc::clone(table);
    VersionTable::new(format!("dolt_commit_diff_{}", table.name), shape, move |shape, context, request| {
        let end = |column: &str| {
            shape.equal(request, column).and_then(value_text).map(str::to_string).ok_or_else(|| {
                SqlError::new(
                    ErrorCode::InvalidParameterValue,
                    format!("table \"dolt_commit_diff_{}\" must be filtered to one \"{column}\"", table.name),
                )
                .hint("Add WHERE to_commit = '...' AND from_commit = '...'.")
            })
        };
        let (to_text, from_text) = (end("to_commit")?, end("from_commit")?);
        let resolver = Resolver::new(context);
        let points = EndPoints { from: resolver.resolve(&from_text)?, to: resolver.resolve(&to_text)?, from_text, to_text };
        let key = match data_for_keys(context, table.oid) {
            Some(data) => wanted_key(shape, request, &data, "to_")?,
            None => None,
        };
        let compared = Compared::at(context, (points.from, table.oid), (points.to, table.oid))?;
        let rows = TwoEnds { compared, ends: points.ends(context)?, key };
        let rows = rows.rows(&table, &table, slots_of(&all, request), context)?;
        Ok(shape.projected_batches(request, rows))
    })
}

/// The ends that the arguments of a diff function name: `(from, to, ...)`, `('a..b', ...)`, `('a...b', ...)`; and the rest.
/// `None` while they are not known.
pub(super) fn range_arguments<'a>(arguments: &'a Arguments) -> Result<Option<(Option<Range<'a>>, usize)>> {
    let Some(first) = arguments.text(0)? else { return Ok(None) };
    Ok(Some(match parse_range(first) {
        Some(range) => (Some(range), 1),
        None => (None, 2),
    }))
}

/// Resolves the two ends of a diff. With three dots it begins at the merge base.
fn end_points(context: &StatementContext, arguments: &Arguments) -> Result<EndPoints> {
    let resolver = Resolver::new(context);
    let (range, _) = range_arguments(arguments)?.ok_or_else(|| arguments.unknown())?;
    let (from_text, to_text, symmetric) = match range {
        Some(range) => (range.from, range.to, range.symmetric),
        None => {
            let text = |i| arguments.text(i)?.ok_or_else(|| arguments.unknown());
            (text(0)?, text(1)?, false)
        }
    };
    let to = resolver.resolve(to_text)?;
    if symmetric {
        let (a, b) = (resolver.commit(from_text)?, resolver.commit(to_text)?);
        let base = context.store.merge_base(a, b)?.ok_or_else(|| {
            SqlError::new(ErrorCode::UndefinedObject, format!("\"{from_text}\" and \"{to_text}\" have no common ancestor"))
        })?;
        return Ok(EndPoints { from: Target::Commit(base), to, from_text: base.to_string(), to_text: to_text.into() });
    }
    Ok(EndPoints { from: resolver.resolve(from_text)?, to, from_text: from_text.into(), to_text: to_text.into() })
}

/// The two roots that the arguments of a diff function name.
pub(super) fn end_roots(context: &StatementContext, arguments: &Arguments) -> Result<(Root, Root)> {
    let points = end_points(context, arguments)?;
    let resolver = Resolver::new(context);
    Ok((root_of(context, &resolver, points.from)?, root_of(context, &resolver, points.to)?))
}

/// `dolt_diff(from, to, 't')` and its forms with a range. The columns are those that the table has at either end, so the
/// arguments must be known when the query is bound; before that the present table serves.
pub fn diff_function(arguments: Arguments, context: &Arc<StatementContext>) -> Result<VersionTable> {
    let table_position = match range_arguments(&arguments)? {
        Some((_, position)) => position,
        None => arguments.len().saturating_sub(1),
    };
    if arguments.len() != table_position + 1 {
        return Err(arguments.wrong_count());
    }
    let name = arguments.text(table_position)?.ok_or_else(|| arguments.unknown())?.to_string();
    let (from, to) = if arguments.known() {
        let points = end_points(context, &arguments)?;
        let (from_catalog, to_catalog) = (catalog_of(context, points.from)?, catalog_of(context, points.to)?);
        let from = find_table_named(context, &from_catalog, &name)?;
        // A renamed table is the same table: found by its oid at the other end.
        let to = match find_table_named(context, &to_catalog, &name)? {
            Some(table) => Some(table),
            None => from.as_ref().and_then(|f| to_catalog.table(f.oid)).cloned(),
        };
        let from = match (from, &to) {
            (Some(from), _) => Some(from),
            (None, Some(to)) => from_catalog.table(to.oid).cloned(),
            (None, None) => None,
        };
        (from, to)
    } else {
        let table = find_table_named(context, context.root.catalog(), &name)?;
        (table.clone(), table)
    };
    let (from, to) = match (from, to) {
        (Some(from), Some(to)) => (from, to),
        (Some(table), None) | (None, Some(table)) => (Arc::clone(&table), table),
        (None, None) => return Err(undefined_table(&name)),
    };
    let (shape, all) = layout(&to, &from, false);
    Ok(VersionTable::new("dolt_diff", shape, move |shape, context, request| {
        scan_function(shape, context, request, &arguments, &from, &to, &all)
    }))
}

fn scan_function(
    shape: &Shape,
    context: &Arc<StatementContext>,
    request: &ScanRequest,
    arguments: &Arguments,
    from: &Arc<TableSchema>,
    to: &Arc<TableSchema>,
    all: &[Slot],
) -> Result<BatchIterator> {
    let points = end_points(context, arguments)?;
    let compared = Compared::at(context, (points.from, from.oid), (points.to, to.oid))?;
    // What is known to differ is not looked for by key.
    let key = match &compared {
        Compared::Tables { from, to } => match to.as_ref().or(from.as_ref()) {
            Some(data) => wanted_key(shape, request, data, "to_")?,
            None => None,
        },
        Compared::Near(_) => None,
    };
    let rows = TwoEnds { compared, ends: points.ends(context)?, key };
    let rows = rows.rows(to, from, slots_of(all, request), context)?;
    Ok(shape.projected_batches(request, rows))
}

/// All of a table's keys.
pub fn everything() -> strandline_storage::KeyRange {
    (Bound::Unbounded, Bound::Unbounded)
}
