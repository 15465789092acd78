//! Rows of an older schema in the columns of a newer one, and tables by the names that arguments give.
//!
//! A column is followed by its `attnum`, which it keeps for life, whatever it is called; a column that was dropped and
//! made again is found by its name. A value of another type goes through its text; where that does not read, it is NULL.

use std::sync::Arc;

use strandline_storage::value::TextSettings;
use strandline_storage::{Catalog, TableSchema, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::identifier::parse_qualified;

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The older schema has no such column.
    Missing,
    /// Position in the older schema, same type.
    Same(usize),
    /// Position in the older schema, another type.
    Converted(usize),
}

/// How rows of one schema become rows of another. Cheap to make; kept per schema by [`Mapper`].
#[derive(Clone, Debug)]
pub struct Mapping {
    from: Arc<TableSchema>,
    to: Arc<TableSchema>,
    origins: Vec<Origin>,
}

impl Mapping {
    pub fn new(from: &Arc<TableSchema>, to: &Arc<TableSchema>) -> Mapping {
        let origins: Vec<Origin> = to
            .columns
            .iter()
            .map(|column| {
                let by_number = from.columns.iter().position(|c| c.attnum == column.attnum);
                let position = if from.oid == to.oid { by_number } else { None };
                match position.or_else(|| from.columns.iter().position(|c| c.name == column.name)) {
                    None => Origin::Missing,
                    Some(i) if from.columns[i].data_type == column.data_type => Origin::Same(i),
                    Some(i) => Origin::Converted(i),
                }
            })
            .collect();
        Mapping { from: Arc::clone(from), to: Arc::clone(to), origins }
    }

    /// One column of a row, in the newer schema's type.
    pub fn value(&self, row: &[Value], column: usize) -> Value {
        match self.origins.get(column) {
            Some(Origin::Same(i)) => row.get(*i).cloned().unwrap_or(Value::Null),
            Some(Origin::Converted(i)) => self.convert(row.get(*i).unwrap_or(&Value::Null), *i, column),
            Some(Origin::Missing) | None => Value::Null,
        }
    }

    /// The older schema has the newer one's column.
    pub fn has(&self, column: usize) -> bool {
        !matches!(self.origins.get(column), Some(Origin::Missing) | None)
    }

    fn convert(&self, value: &Value, from: usize, to: usize) -> Value {
        let (from, to) = (&self.from.columns[from].data_type, &self.to.columns[to].data_type);
        if value.is_null() {
            return Value::Null;
        }
        if from.kind == to.kind && from.oid == to.oid {
            // Only the modifier differs: the value is what it was.
            return value.clone();
        }
        let settings = TextSettings::default();
        let mut text = Vec::new();
        from.format(value, &settings, &mut text);
        std::str::from_utf8(&text).ok().and_then(|text| to.parse(text, &settings).ok()).unwrap_or(Value::Null)
    }
}

/// Mappings into one schema, made as older schemas turn up.
#[derive(Clone, Debug)]
pub struct Mapper {
    to: Arc<TableSchema>,
    last: Option<Mapping>,
}

impl Mapper {
    pub fn new(to: &Arc<TableSchema>) -> Mapper {
        Mapper { to: Arc::clone(to), last: None }
    }

    pub fn from(&mut self, schema: &Arc<TableSchema>) -> &Mapping {
        let fits = self.last.as_ref().is_some_and(|m| Arc::ptr_eq(&m.from, schema));
        if !fits {
            self.last = None;
        }
        let to = &self.to;
        self.last.get_or_insert_with(|| Mapping::new(schema, to))
    }
}

/// The table that an argument names (`t`, `public.t`), unqualified through the search path.
/// # Errors
/// `UndefinedTable`.
pub fn table_named(context: &StatementContext, catalog: &Catalog, name: &str) -> Result<Arc<TableSchema>> {
    find_table_named(context, catalog, name)?.ok_or_else(|| undefined_table(name))
}

pub fn undefined_table(name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{name}\" does not exist"))
}

/// As [`table_named`], `None` when there is no such table.
pub fn find_table_named(context: &StatementContext, catalog: &Catalog, name: &str) -> Result<Option<Arc<TableSchema>>> {
    // Names in results are not quoted, so the text as it stands is tried before it is folded.
    let invalid = || SqlError::new(ErrorCode::InvalidName, format!("invalid name syntax: \"{name}\""));
    let verbatim: Vec<String> = name.split('.').map(str::to_string).collect();
    let folded = parse_qualified(name);
    if folded.is_none() && verbatim.iter().any(String::is_empty) {
        return Err(invalid());
    }
    for parts in [Some(verbatim), folded].into_iter().flatten() {
        let found = match parts.as_slice() {
            [table] => context.search_path.iter().find_map(|schema| {
                let schema = if schema == "$user" { &context.user } else { schema };
                catalog.table_by_name(schema, table)
            }),
            [schema, table] => catalog.table_by_name(schema, table),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(Some(Arc::clone(found)));
        }
    }
    Ok(None)
}
