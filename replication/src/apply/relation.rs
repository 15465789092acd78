//! Which local table and columns a relation of the stream is.

use std::collections::HashMap;
use std::sync::Arc;

use strandline_storage::schema::TableSchema;
use strandline_storage::value::{Row, TextSettings};
use strandline_storage::{DataType, Kind, Oid, Root, Timestamp, Value};

use super::constant::constant_default;
use crate::expressions::{Expressions, RowValues};
use crate::pgoutput::{Relation, ReplicaIdentity, Tuple, TupleValue};

/// A relation as last announced, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceRelation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) identity: ReplicaIdentity,
    pub(crate) columns: Vec<SourceColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceColumn {
    pub(crate) key: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) typmod: i32,
}

impl SourceRelation {
    pub(crate) fn new(relation: &Relation<'_>) -> Self {
        let columns = relation
            .columns
            .iter()
            .map(|c| SourceColumn { key: c.key, name: c.name.into(), type_oid: c.type_oid, typmod: c.typmod })
            .collect();
        SourceRelation {
            oid: relation.oid,
            schema: relation.schema.into(),
            name: relation.name.into(),
            identity: relation.identity,
            columns,
        }
    }

    /// `schema.table`, as messages name it.
    pub(crate) fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// How rows of a source relation become rows of a local table. Valid for one definition of each.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) table: Oid,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) name: Arc<str>,
    /// Per source column: where it goes, if it is here.
    pub(crate) targets: Vec<Option<Target>>,
    /// A new row before its values: constant defaults of columns that the source does not send.
    template: Row,
    /// The source column behind each key column in key order, if there is a key and all have one.
    key_sources: Option<Vec<usize>>,
    /// All key columns belong to the replica identity: an update that sends no old tuple did not change the key.
    pub(crate) key_is_identity: bool,
    /// Local columns of the replica identity, ascending.
    pub(crate) identity_columns: Vec<usize>,
    /// Local columns that the source sends, ascending.
    pub(crate) sent_columns: Vec<usize>,
    /// Why no row can be inserted: a local column that must have a value and gets none.
    uninsertable: Option<String>,
    /// Columns that the source does not send and whose defaults are no constants.
    defaults: Vec<usize>,
    /// Generated columns.
    generated: Vec<usize>,
    /// What computes those two.
    values: Option<Arc<dyn RowValues>>,
    /// When this was made: the time that `now()` gives to copied rows.
    made_at: Timestamp,
}

/// The local column of a source column.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) position: usize,
    pub(crate) data_type: DataType,
    pub(crate) not_null: bool,
    pub(crate) key: bool,
    /// The primary's type has another binary form, or none that could be told from ours.
    pub(crate) other_form: bool,
}

/// Why a row's values cannot be had.
pub(crate) type Refusal = String;

impl Mapping {
    /// Maps by column names.
    pub(crate) fn new(source: &SourceRelation, schema: &Arc<TableSchema>, settings: &TextSettings) -> Self {
        let local: HashMap<&str, usize> = schema.columns.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
        let key_columns = schema.key_columns();
        let targets: Vec<Option<Target>> = source
            .columns
            .iter()
            .map(|column| {
                let position = *local.get(column.name.as_str())?;
                let target = schema.columns.get(position)?;
                // A generated column computes its own value here.
                target.generated.is_none().then(|| Target {
                    position,
                    data_type: target.data_type.clone(),
                    not_null: target.not_null,
                    key: key_columns.contains(&position),
                    other_form: has_other_form(column, &target.data_type),
                })
            })
            .collect();
        let mut source_of: Vec<Option<usize>> = vec![None; schema.columns.len()];
        for (i, target) in targets.iter().enumerate() {
            if let Some(target) = target {
                source_of[target.position] = Some(i);
            }
        }
        let mut template = vec![Value::Null; schema.columns.len()];
        let mut uninsertable = None;
        let mut defaults = Vec::new();
        for (position, column) in schema.columns.iter().enumerate().filter(|(position, _)| source_of[*position].is_none()) {
            if column.generated.is_some() {
                continue;
            }
            match column.default.as_deref().map(|text| constant_default(text, &column.data_type, settings)) {
                Some(Some(value)) => template[position] = value,
                Some(None) => defaults.push(position),
                None if column.identity.is_some() => defaults.push(position),
                None if column.not_null => {
                    uninsertable = Some(format!("column \"{}\" is not sent by the primary, is NOT NULL and has no default", column.name));
                }
                None => {}
            }
        }
        let key_sources: Option<Vec<usize>> =
            if key_columns.is_empty() { None } else { key_columns.iter().map(|position| source_of[*position]).collect() };
        let key_is_identity = key_sources.as_ref().is_some_and(|sources| sources.iter().all(|i| source.columns[*i].key));
        let mut identity_columns = Vec::new();
        let mut sent_columns = Vec::new();
        for (column, target) in source.columns.iter().zip(&targets) {
            if let Some(target) = target {
                sent_columns.push(target.position);
                if column.key {
                    identity_columns.push(target.position);
                }
            }
        }
        sent_columns.sort_unstable();
        identity_columns.sort_unstable();
        // A part of an identity finds the wrong rows; better none.
        if source.columns.iter().zip(&targets).any(|(c, t)| c.key && t.is_none()) && source.identity != ReplicaIdentity::Full {
            identity_columns.clear();
        }
        Mapping {
            table: schema.oid,
            schema: Arc::clone(schema),
            name: source.qualified_name().into(),
            targets,
            template,
            key_sources,
            key_is_identity,
            identity_columns,
            sent_columns,
            uninsertable,
            defaults,
            generated: (0..schema.columns.len()).filter(|at| schema.columns[*at].generated.is_some()).collect(),
            values: None,
            made_at: Timestamp::now(),
        }
    }

    /// Adds what computes generated columns and defaults that are no constants. Where they cannot be computed, a row that needs them is refused.
    pub(crate) fn with_expressions(mut self, expressions: Option<&dyn Expressions>, root: &Root) -> Self {
        if self.generated.is_empty() && self.defaults.is_empty() {
            return self;
        }
        let compiled = match expressions {
            Some(expressions) => expressions.compile(root, &self.schema, &self.defaults),
            None => Err("there is nothing here to compute it with".into()),
        };
        let why = match compiled {
            Ok(values) => {
                self.values = Some(values);
                return self;
            }
            Err(why) => why,
        };
        let must_have = |column: &&strandline_storage::schema::Column| column.generated.is_some() || column.not_null;
        let mut positions = self.defaults.iter().chain(&self.generated);
        if let Some(column) = positions.find_map(|at| self.schema.columns.get(*at).filter(must_have)) {
            self.uninsertable = Some(format!("column \"{}\" is not sent by the primary and cannot be computed here: {why}", column.name));
        }
        self
    }

    /// Says whether rows get values that are computed here.
    pub(crate) fn completes(&self) -> bool {
        self.values.is_some()
    }

    /// A row of the copy, filled already, gets what is not sent.
    pub(crate) fn complete_copied(&self, row: &mut Row) -> Result<(), Refusal> {
        self.complete(row, self.made_at)
    }

    /// A new row, filled already, gets the defaults and generated columns that are not sent.
    pub(crate) fn complete(&self, row: &mut Row, now: Timestamp) -> Result<(), Refusal> {
        if let Some(values) = &self.values {
            if !self.defaults.is_empty() {
                values.fill_defaults(row, now)?;
            }
            values.compute(row)?;
        }
        Ok(())
    }

    /// Says whether a change of a row must compute others of its columns.
    pub(crate) fn is_computed(&self) -> bool {
        !self.generated.is_empty()
    }

    /// The columns of a whole old row: those that are sent, and those computed from them.
    pub(crate) fn whole_columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> = self.sent_columns.iter().chain(&self.generated).copied().collect();
        columns.sort_unstable();
        columns
    }

    /// Computes the generated columns of a row that was changed.
    pub(crate) fn compute(&self, row: &mut Row) -> Result<(), Refusal> {
        match &self.values {
            Some(values) => values.compute(row),
            None if self.is_computed() => Err(self.uninsertable.clone().unwrap_or_default()),
            None => Ok(()),
        }
    }

    /// Names of source columns that have no place here.
    pub(crate) fn absent_columns<'a>(&self, source: &'a SourceRelation) -> Vec<&'a str> {
        source.columns.iter().zip(&self.targets).filter(|(_, target)| target.is_none()).map(|(c, _)| c.name.as_str()).collect()
    }

    /// A row to fill: defaults of unsent columns, the rest NULL.
    pub(crate) fn new_row(&self) -> Result<Row, Refusal> {
        match &self.uninsertable {
            None => Ok(self.template.clone()),
            Some(why) => Err(why.clone()),
        }
    }

    /// Says whether the key can be computed from what the source sends.
    pub(crate) fn has_sent_key(&self) -> bool {
        self.key_sources.is_some()
    }

    /// The target of a source column that has one.
    fn target(&self, source_index: usize) -> Option<&Target> {
        self.targets.get(source_index).and_then(Option::as_ref)
    }

    /// The key columns' values in key order. `None` when one of them was not sent because it is out of line and unchanged.
    pub(crate) fn key_values(&self, tuple: Tuple<'_>, settings: &TextSettings) -> Result<Option<Vec<Value>>, Refusal> {
        let sources = self.key_sources.as_deref().unwrap_or_default();
        let mut values = vec![Value::Null; sources.len()];
        for (i, sent) in tuple.values().enumerate() {
            // One key column is the rule, so the search is short.
            let Some(at) = sources.iter().position(|source| *source == i) else { continue };
            let Some(target) = self.target(i) else { continue };
            match parse(sent, target, settings).map_err(|e| self.in_column(target, e))? {
                Some(Value::Null) => return Err(format!("key column \"{}\" is null", self.column_name(target))),
                Some(value) => values[at] = value,
                None => return Ok(None),
            }
        }
        Ok(Some(values))
    }

    /// Puts the tuple's values into their places in `row`, keeping what is there for unchanged ones. `only_key`: replica identity columns alone.
    /// Returns whether there were unchanged ones.
    pub(crate) fn fill(&self, row: &mut Row, tuple: Tuple<'_>, settings: &TextSettings, only: Option<&[usize]>) -> Result<bool, Refusal> {
        let mut has_unchanged = false;
        for (target, sent) in self.targets.iter().zip(tuple.values()) {
            let Some(target) = target else { continue };
            if only.is_some_and(|only| !only.contains(&target.position)) {
                continue;
            }
            match parse(sent, target, settings).map_err(|e| self.in_column(target, e))? {
                Some(value) => row[target.position] = value,
                None => has_unchanged = true,
            }
        }
        Ok(has_unchanged)
    }

    /// The sent values as (column, value), ascending, without unchanged ones and, if asked, without the key.
    pub(crate) fn assignments(
        &self,
        out: &mut Vec<(u16, Value)>,
        tuple: Tuple<'_>,
        settings: &TextSettings,
        with_key: bool,
    ) -> Result<(), Refusal> {
        out.clear();
        for (target, sent) in self.targets.iter().zip(tuple.values()) {
            let Some(target) = target else { continue };
            if target.key && !with_key {
                continue;
            }
            if let Some(value) = parse(sent, target, settings).map_err(|e| self.in_column(target, e))? {
                if value.is_null() && target.not_null {
                    return Err(self.null_in(target));
                }
                out.push((target.position as u16, value));
            }
        }
        if !out.is_sorted_by_key(|(position, _)| *position) {
            out.sort_by_key(|(position, _)| *position);
        }
        Ok(())
    }

    /// Refuses a row that has NULL where the local table forbids it.
    pub(crate) fn check_not_null(&self, row: &Row) -> Result<(), Refusal> {
        for target in self.targets.iter().flatten() {
            if target.not_null && row[target.position].is_null() {
                return Err(self.null_in(target));
            }
        }
        Ok(())
    }

    fn null_in(&self, target: &Target) -> Refusal {
        format!("null value in column \"{}\" violates not-null constraint", self.column_name(target))
    }

    pub(crate) fn in_column(&self, target: &Target, error: String) -> Refusal {
        format!("column \"{}\": {error}", self.column_name(target))
    }

    fn column_name(&self, target: &Target) -> &str {
        self.schema.columns.get(target.position).map_or("?", |c| c.name.as_str())
    }
}

/// Says whether a value of the primary's column, in its binary form, is something else in the binary form of our type. Types that users have made there are
/// known by their names only; ours of these names check what they read.
fn has_other_form(column: &SourceColumn, local: &DataType) -> bool {
    let Some(sent) = DataType::builtin(column.type_oid, -1) else { return false };
    let of_one_kind = |a: &DataType, b: &DataType| a.kind == b.kind && (a.kind != Kind::Other || a.oid == b.oid);
    let elements_differ = match (&sent.element, &local.element) {
        (Some(a), Some(b)) => !of_one_kind(a, b),
        (a, b) => a.is_some() != b.is_some(),
    };
    !of_one_kind(&sent, local) || elements_differ
}

/// A sent value in the local column's type; `None` for an unchanged one.
#[inline]
fn parse(sent: TupleValue<'_>, target: &Target, settings: &TextSettings) -> Result<Option<Value>, String> {
    match sent {
        TupleValue::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "the value is not valid UTF-8".to_owned())?;
            // The store's texts quote the input; a log must not hold values.
            target
                .data_type
                .parse(text, settings)
                .map(Some)
                .map_err(|_| format!("the primary's value is not valid for type {} here", target.data_type.sql_name()))
        }
        TupleValue::Null => Ok(Some(Value::Null)),
        TupleValue::Unchanged => Ok(None),
        // Many types take any eight bytes for a value of theirs.
        TupleValue::Binary(_) if target.other_form => Err(format!(
            "the primary's type has another binary form than {}, so the value can be sent only as text",
            target.data_type.sql_name()
        )),
        TupleValue::Binary(bytes) => target
            .data_type
            .from_binary(bytes)
            .map(Some)
            .map_err(|_| format!("the primary's binary value is not valid for type {} here", target.data_type.sql_name())),
    }
}
