//! Tables that change on the primary while we follow them.
//!
//! The stream announces a table's columns by name and type before its next change, and says nothing about what happened in between: whether a column
//! was renamed or dropped and another added, or what rows that were there before hold in a new one. So each table is remembered as it was
//! last replicated, with the primary's column numbers (which a rename keeps and nothing reuses), and what is announced is compared with that:
//!
//! | on the primary | here |
//! |---|---|
//! | a column was added | it is added; rows that are there get what the primary's catalog says that old rows hold |
//! | a column was renamed, the table was renamed or moved | the same |
//! | a column was dropped | it is dropped; older commits still have it |
//! | a type became wider within itself (`varchar(10)` to `varchar(20)`) | the same |
//! | another type; a default computed row by row; another table of the same name | the table stops, and says how it goes on (`stopped`) |
//!
//! Where DDL capture is installed on the primary (`captured`), the definition comes from within the transaction that changed it, and is followed whole
//! (`details`): keys, indexes, constraints, defaults, generated columns and comments, too.
//!
//! Columns that were absent here when the table was first seen are absent on purpose. What was done by hand already is taken as done, so a change
//! repeated after a crash does nothing.

use std::sync::Arc;

use strandline_storage::schema::TableSchema;
use strandline_storage::value::{Row, TextSettings};
use strandline_storage::{DataType, Edit, Error as StoreError, Oid, Value};

use super::columns::{remove_column, rename_in_expressions};
use super::constant::constant_default;
use super::relation::{SourceColumn, SourceRelation};
use crate::catalog::{self, Maker, RemoteColumn, RemoteTable, RemoteTypes};
use crate::config::CreateTables;
use crate::error::{Error, Result};

/// What a typmod adds to the length of a varchar or to precision and scale of a numeric.
const TYPMOD_HEADER: i32 = 4;

const VARCHAR: u32 = 1043;
const NUMERIC: u32 = 1700;

/// A table of the primary as it was last replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownRelation {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Columns with higher numbers did not exist.
    attnum_max: i16,
    columns: Vec<KnownColumn>,
    /// The whole definition as it was last taken over, if it ever was.
    pub(crate) details: Option<Arc<RemoteTable>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownColumn {
    name: String,
    type_oid: u32,
    typmod: i32,
    /// 0: not known, since the primary's catalog was ahead of the stream.
    attnum: i16,
}

/// What the primary's catalog says of a table now, which may be later than the stream.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    /// `None`: it does not exist any more.
    pub(crate) table: Option<RemoteTable>,
    pub(crate) types: RemoteTypes,
    /// The table is not here either by hand, so it may be created.
    pub(crate) may_create: bool,
}

impl Definition {
    fn columns(&self) -> &[RemoteColumn] {
        self.table.as_ref().map_or(&[], |table| &table.columns)
    }

    fn numbered(&self, attnum: i16) -> Option<&RemoteColumn> {
        self.columns().iter().find(|column| column.attnum == attnum)
    }

    /// The numbers of the source's columns, 0 where not known. By name; and where the catalog is ahead of the stream, by the name that a number
    /// had last, or by order if nothing that was added since is gone.
    fn attnums(&self, source: &SourceRelation, known: Option<&KnownRelation>) -> Vec<i16> {
        let by_name = |name: &str| self.columns().iter().find(|column| column.name == name).map(|column| column.attnum);
        let Some(known) = known else { return source.columns.iter().map(|c| by_name(&c.name).unwrap_or(0)).collect() };
        let added: Vec<&RemoteColumn> = self.columns().iter().filter(|column| column.attnum > known.attnum_max).collect();
        let count = self.table.as_ref().map_or(0, |table| usize::try_from(table.attribute_count - known.attnum_max).unwrap_or(0));
        let in_order = added.len() == count && added.iter().all(|column| !column.generated);
        let mut new_count = 0;
        let number = |column: &SourceColumn| {
            let before = known.columns.iter().find(|k| k.name == column.name).map(|k| k.attnum);
            let found = by_name(&column.name).or(before);
            let is_new = found.is_none_or(|attnum| attnum > known.attnum_max);
            let ordinal = new_count;
            new_count += usize::from(is_new);
            let by_order = || added.get(ordinal).filter(|_| in_order).map(|column| column.attnum);
            found.or_else(by_order).unwrap_or(0)
        };
        source.columns.iter().map(number).collect()
    }
}

impl KnownRelation {
    /// `before`: as it was known last.
    pub(crate) fn new(source: &SourceRelation, definition: &Definition, before: Option<&KnownRelation>) -> Self {
        let numbered = source.columns.iter().zip(definition.attnums(source, before));
        let columns: Vec<KnownColumn> =
            numbered.map(|(c, attnum)| KnownColumn { name: c.name.clone(), type_oid: c.type_oid, typmod: c.typmod, attnum }).collect();
        // Where some columns are not sent, any number given out so far may be one of theirs. Otherwise what is not sent came later.
        let all_sent = definition.table.as_ref().is_none_or(|table| !table.has_column_list);
        // What is known already stays so: columns that come later than the stream is are not old ones.
        let sent_max = columns.iter().map(|c| c.attnum).chain(before.map(|known| known.attnum_max)).max().unwrap_or(0);
        let attnum_max = match &definition.table {
            Some(table) if !all_sent && before.is_none() => table.attribute_count.max(sent_max),
            _ => sent_max,
        };
        let details = match before {
            Some(before) => before.details.clone(),
            None => definition.table.clone().map(Arc::new),
        };
        KnownRelation { schema: source.schema.clone(), name: source.name.clone(), attnum_max, columns, details }
    }

    pub(crate) fn is_same(&self, source: &SourceRelation) -> bool {
        self.is_named(source)
            && self.columns.len() == source.columns.len()
            && self.columns.iter().zip(&source.columns).all(|(known, c)| known.name == c.name && !known.has_other_type(c))
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    pub(crate) fn is_named(&self, source: &SourceRelation) -> bool {
        self.schema == source.schema && self.name == source.name
    }

    pub(crate) fn has_name_of(&self, other: &KnownRelation) -> bool {
        self.schema == other.schema && self.name == other.name
    }

    pub(crate) fn type_oids(&self) -> impl Iterator<Item = u32> + '_ {
        self.columns.iter().map(|c| c.type_oid)
    }

    /// All but the details. NUL, which no name contains, separates the fields.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\0{}\0{}", self.schema, self.name, self.attnum_max);
        for c in &self.columns {
            text.push_str(&format!("\0{}\0{} {} {}", c.name, c.type_oid, c.typmod, c.attnum));
        }
        text.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut fields = text.split('\0');
        let (schema, name) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let attnum_max = fields.next()?.parse().ok()?;
        let mut columns = Vec::new();
        while let Some(name) = fields.next() {
            let mut numbers = fields.next()?.split(' ');
            columns.push(KnownColumn {
                name: name.to_owned(),
                type_oid: numbers.next()?.parse().ok()?,
                typmod: numbers.next()?.parse().ok()?,
                attnum: numbers.next()?.parse().ok()?,
            });
        }
        Some(KnownRelation { schema, name, attnum_max, columns, details: None })
    }
}

impl KnownColumn {
    fn has_other_type(&self, column: &SourceColumn) -> bool {
        (self.type_oid, self.typmod) != (column.type_oid, column.typmod)
    }
}

/// Where the definition of a table here is changed.
pub(crate) struct Follower<'a> {
    pub(crate) maker: Maker<'a>,
    pub(crate) edit: &'a mut Edit,
    pub(crate) settings: &'a TextSettings,
    pub(crate) create_tables: CreateTables,
    pub(crate) source: &'a SourceRelation,
    pub(crate) definition: &'a Definition,
    /// The table here that has the former name is another one of the primary's.
    pub(crate) is_claimed: bool,
    /// The definition is that of this very moment in the stream, and this is the statement that changed it, if it is known.
    pub(crate) captured: Option<&'a str>,
}

impl Follower<'_> {
    /// Makes the table here follow the primary's. Does nothing where there is no table here.
    /// # Errors
    /// `Unfollowed`: what cannot be done here.
    pub(crate) fn follow(&mut self, known: &KnownRelation) -> Result<()> {
        if !known.is_named(self.source) && !self.is_claimed {
            self.rename_table(known)?;
        }
        let Some(table) = self.edit.root().catalog().table_by_name(&self.source.schema, &self.source.name).map(|t| t.oid) else {
            return Ok(());
        };
        let attnums = self.definition.attnums(self.source, Some(known));
        let pairs = self.pair(known, &attnums)?;
        self.rename_columns(table, known, &pairs)?;
        self.change_types(table, known, &pairs)?;
        for (i, column) in known.columns.iter().enumerate() {
            if pairs.iter().any(|(k, _)| *k == i) {
                continue;
            }
            if column.attnum != 0 && self.definition.numbered(column.attnum).is_some() {
                tracing::warn!(table = %self.name(), column = %column.name, "a column is not published any more and keeps its values here");
            } else {
                self.drop_column(table, &column.name)?;
            }
        }
        let source = self.source;
        for (i, column) in source.columns.iter().enumerate() {
            if !pairs.iter().any(|(_, s)| *s == i) {
                self.add_column(table, attnums[i], known.attnum_max, column)?;
            }
        }
        Ok(())
    }

    /// Adds what an empty table here lacks: for a table that was made again on the primary.
    /// # Errors
    /// As [`Follower::follow`].
    pub(crate) fn complete(&mut self) -> Result<()> {
        let Some(table) = self.edit.root().catalog().table_by_name(&self.source.schema, &self.source.name).map(|t| t.oid) else {
            return Ok(());
        };
        let attnums = self.definition.attnums(self.source, None);
        let source = self.source;
        for (column, attnum) in source.columns.iter().zip(attnums) {
            self.add_column(table, attnum, 0, column)?;
        }
        Ok(())
    }

    /// The columns that both have: (position in `known`, position in the source).
    fn pair(&self, known: &KnownRelation, attnums: &[i16]) -> Result<Vec<(usize, usize)>> {
        let mut pairs = Vec::new();
        for (k, old) in known.columns.iter().enumerate() {
            let by_number = attnums.iter().position(|attnum| *attnum != 0 && *attnum == old.attnum);
            // A name is only a hint where a number is missing.
            let by_name = || self.source.columns.iter().position(|c| c.name == old.name).filter(|s| attnums[*s] == 0 || old.attnum == 0);
            pairs.extend(by_number.or_else(by_name).map(|s| (k, s)));
        }
        let lost = known.columns.iter().enumerate().filter(|(k, _)| !pairs.iter().any(|(paired, _)| paired == k));
        let new = self.source.columns.iter().enumerate().filter(|(s, _)| !pairs.iter().any(|(_, paired)| paired == s));
        let unsure_lost = lost.clone().any(|(_, c)| c.attnum == 0);
        let unsure_new = new.clone().any(|(s, _)| attnums[s] == 0);
        if (unsure_lost || unsure_new)
            && let (Some((_, lost)), Some((_, new))) = (lost.clone().next(), new.clone().next())
            && self.local_column(&new.name).is_none()
        {
            return Err(self.refused(format!(
                "column \"{}\" is gone and column \"{}\" is new on the primary, and whether it was renamed is not known",
                lost.name, new.name
            )));
        }
        Ok(pairs)
    }

    fn rename_table(&mut self, known: &KnownRelation) -> Result<()> {
        let catalog = self.edit.root().catalog();
        let here = catalog.relation(&self.source.schema, &self.source.name).is_some();
        let Some(old) = catalog.table_by_name(&known.schema, &known.name) else { return Ok(()) };
        let before = format!("{}.{}", known.schema, known.name);
        if here {
            return Err(Error::Unfollowed {
                table: self.name(),
                what: format!("the primary's table \"{before}\" has this name now, and both names exist here"),
                by_hand: "drop the one that is not it",
            });
        }
        let mut changed = TableSchema::clone(old);
        self.check_may_change(&format!("it was \"{before}\" before"))?;
        changed.schema_oid = catalog::ensure_schema(self.maker.store, self.edit, &self.source.schema)?;
        changed.name = self.source.name.clone();
        self.edit.put_table(changed)?;
        tracing::info!(table = %self.name(), before = %before, "renamed a table as on the primary");
        Ok(())
    }

    fn rename_columns(&mut self, table: Oid, known: &KnownRelation, pairs: &[(usize, usize)]) -> Result<()> {
        let mut changed = TableSchema::clone(self.schema(table)?);
        let before = changed.columns.clone();
        let mut renamed = Vec::new();
        for (k, s) in pairs {
            let (old, new) = (&known.columns[*k].name, &self.source.columns[*s].name);
            let Some(at) = before.iter().position(|c| c.name == *old).filter(|_| old != new) else { continue };
            changed.columns[at].name.clone_from(new);
            renamed.push(format!("{old} to {new}"));
        }
        if renamed.is_empty() {
            return Ok(());
        }
        let renamed = renamed.join(", ");
        // A second table column of the same name is one that was made by hand, or the rename is done already.
        let is_double = |name: &str| changed.columns.iter().filter(|c| c.name == name).count() > 1;
        if changed.columns.iter().any(|c| is_double(&c.name)) {
            let both = "both names exist here; drop the one that is not it";
            return Err(self.refused(format!("columns were renamed on the primary ({renamed}), and {both}")));
        }
        self.check_may_change(&format!("columns were renamed on the primary ({renamed})"))?;
        let names: Vec<(String, String)> =
            before.iter().zip(&changed.columns).map(|(old, new)| (old.name.clone(), new.name.clone())).collect();
        if let Err(why) = rename_in_expressions(&mut changed, &names, self.maker.expressions) {
            return Err(
                self.refused(format!("columns were renamed on the primary ({renamed}), and an expression here may name them ({why})"))
            );
        }
        self.edit.put_table(changed)?;
        tracing::info!(table = %self.name(), columns = %renamed, "renamed columns as on the primary");
        Ok(())
    }

    /// All columns at once: an expression of one sees the others as they were.
    fn change_types(&mut self, table: Oid, known: &KnownRelation, pairs: &[(usize, usize)]) -> Result<()> {
        let schema = Arc::clone(self.schema(table)?);
        let is_empty = self.is_empty(table);
        let mut changed = TableSchema::clone(&schema);
        let mut conversions = Vec::new();
        for (k, s) in pairs {
            let (old, new) = (&known.columns[*k], &self.source.columns[*s]);
            if !old.has_other_type(new) {
                continue;
            }
            let Some(at) = schema.column_index(&new.name) else { continue };
            let types = &self.definition.types;
            let was = types.translate(self.maker, self.edit, old.type_oid, old.typmod)?;
            let is = types.translate(self.maker, self.edit, new.type_oid, new.typmod)?;
            let here = &schema.columns[at].data_type;
            if *here == is {
                continue;
            }
            if *here != was {
                // Another type than the primary's was chosen here.
                tracing::warn!(table = %self.name(), column = %new.name, r#type = %is.sql_name(), here = %here.sql_name(), "a column has another type on the primary now");
                continue;
            }
            let what = format!("column \"{}\" has type {} on the primary now ({} before)", new.name, is.sql_name(), was.sql_name());
            self.check_may_change(&what)?;
            if !is_empty && !is_wider(&was, &is) {
                conversions.push((at, self.conversion(&schema, at, &is, &what)?));
            }
            changed.columns[at].data_type = is;
        }
        if changed == *schema {
            return Ok(());
        }
        let mut failure = None;
        let rewritten = self.edit.rewrite_table(changed, &mut |row: Row| {
            let mut new = row.clone();
            for (at, values) in &conversions {
                let mut converted = row.clone();
                if let Err(why) = values.compute(&mut converted) {
                    failure = Some(why);
                    return Err(StoreError::Invalid("the conversion failed".into()));
                }
                new[*at] = std::mem::take(&mut converted[*at]);
            }
            Ok(new)
        });
        if let Some(why) = failure {
            return Err(self.refused(format!("types were changed on the primary, and a value here could not be converted: {why}")));
        }
        rewritten?;
        tracing::info!(table = %self.name(), "changed types of columns as on the primary");
        Ok(())
    }

    /// What the primary's ALTER COLUMN TYPE has made of each value: known where the statement is, and where it gives the same in every session.
    fn conversion(&self, table: &TableSchema, at: usize, target: &DataType, what: &str) -> Result<Arc<dyn crate::expressions::RowValues>> {
        let (Some(statement), Some(expressions)) = (self.captured, self.maker.expressions) else {
            return Err(self.refused(format!("{what}, which may have changed its values in all rows")));
        };
        let made = expressions.conversion(self.edit.root(), table, at, target, statement);
        made.map_err(|why| self.refused(format!("{what}, and what it made of the values cannot be had from the statement: {why}")))
    }

    fn add_column(&mut self, table: Oid, attnum: i16, known_max: i16, column: &SourceColumn) -> Result<()> {
        if self.local_column(&column.name).is_some() {
            return Ok(());
        }
        let what = format!("column \"{}\" was added on the primary", column.name);
        self.check_may_change(&what)?;
        let is_empty = self.is_empty(table);
        let remote = self.definition.numbered(attnum).filter(|remote| !remote.generated);
        let mut local = match remote {
            Some(remote) => {
                if !is_empty && remote.attnum <= known_max {
                    return Err(self.refused(format!(
                        "column \"{}\" is published now and was not before; its values in the rows that are here are not known",
                        column.name
                    )));
                }
                let remote = RemoteColumn { name: column.name.clone(), type_oid: column.type_oid, typmod: column.typmod, ..remote.clone() };
                catalog::local_column(self.maker, self.edit, &remote, 0, &self.definition.types)?
            }
            None if is_empty => {
                let relation = SourceRelation { columns: vec![column.clone()], ..self.source.clone() };
                let remote = catalog::table_from_relation(&relation.as_relation()).columns.remove(0);
                catalog::local_column(self.maker, self.edit, &remote, 0, &self.definition.types)?
            }
            None => {
                return Err(
                    self.refused(format!("{what} and has been changed since, so what the rows that are here hold in it is not known"))
                );
            }
        };
        // The catalog is of now: rows of the stream may be older than the constraint.
        local.not_null = false;
        let fill = match remote {
            Some(remote) if !is_empty => self.value_in_old_rows(remote, &local.data_type, &what)?,
            _ => Value::Null,
        };
        let mut changed = TableSchema::clone(self.schema(table)?);
        local.attnum = changed.next_attnum;
        changed.next_attnum += 1;
        changed.columns.push(local);
        self.edit.rewrite_table(changed, &mut |mut row: Row| {
            row.push(fill.clone());
            Ok(row)
        })?;
        tracing::info!(table = %self.name(), column = %column.name, "added a column as on the primary");
        Ok(())
    }

    /// What the rows that are there hold in a column that was added.
    fn value_in_old_rows(&self, remote: &RemoteColumn, data_type: &DataType, what: &str) -> Result<Value> {
        if let Some(text) = &remote.missing {
            let parsed = data_type.parse(text, self.settings);
            return parsed.map_err(|_| self.refused(format!("{what} with a default that is not valid here")));
        }
        // Without a value on record, either the column has no default, or the rows were rewritten with it.
        let default = remote.default.as_deref().or_else(|| self.definition.types.default_of(remote.type_oid));
        let statement = self.captured.map(str::to_ascii_lowercase);
        let says = |part: &str| statement.as_ref().is_some_and(|statement| statement.contains(part));
        // The statement may set and drop defaults beside adding the column, which the rows do not show.
        let is_as_added = says("alter table") && !says("set default") && !says("drop default");
        match default {
            None if remote.identity.is_empty() && !says("drop default") => Ok(Value::Null),
            Some(text) if is_as_added && let Some(value) = constant_default(text, data_type, self.settings) => Ok(value),
            _ => {
                Err(self
                    .refused(format!("{what} with a default, and what the rows that are here hold in it cannot be had from the stream")))
            }
        }
    }

    pub(super) fn drop_column(&mut self, table: Oid, name: &str) -> Result<()> {
        let schema = Arc::clone(self.schema(table)?);
        let Some(at) = schema.column_index(name) else { return Ok(()) };
        let what = format!("column \"{name}\" was dropped on the primary");
        self.check_may_change(&what)?;
        if let Err(why) = remove_column(self.edit, table, at, self.maker.expressions)? {
            return Err(self.refused(format!("{what}, and {why}")));
        }
        tracing::info!(table = %self.name(), column = %name, "dropped a column as on the primary");
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        self.source.qualified_name()
    }

    pub(super) fn schema(&self, table: Oid) -> Result<&Arc<TableSchema>> {
        let schema = self.edit.table_schema(table);
        schema.ok_or_else(|| Error::Setup(format!("table \"{}\" has no rows object", self.name())))
    }

    fn local_column(&self, name: &str) -> Option<usize> {
        self.edit.root().catalog().table_by_name(&self.source.schema, &self.source.name)?.column_index(name)
    }

    fn is_empty(&self, table: Oid) -> bool {
        self.edit.root().table(table).is_none_or(|data| data.is_empty())
    }

    fn check_may_change(&self, what: &str) -> Result<()> {
        match self.create_tables {
            CreateTables::Auto => Ok(()),
            CreateTables::Never => Err(self.refused(format!("{what}, and create_tables is never"))),
        }
    }

    pub(super) fn refused(&self, what: String) -> Error {
        Error::Unfollowed { table: self.name(), what, by_hand: "do the same here by ALTER TABLE" }
    }
}

/// Whether every value of the old type is the same value of the new one, so that the primary had no reason to change any.
fn is_wider(old: &DataType, new: &DataType) -> bool {
    if (old.oid, old.kind, &old.name) != (new.oid, new.kind, &new.name) {
        return false;
    }
    if new.typmod < 0 {
        return matches!(new.oid, VARCHAR | NUMERIC);
    }
    let parts = |typmod: i32| ((typmod - TYPMOD_HEADER) >> 16, (typmod - TYPMOD_HEADER) & 0xFFFF);
    match new.oid {
        VARCHAR => old.typmod >= 0 && new.typmod >= old.typmod,
        NUMERIC => {
            let ((old_precision, old_scale), (precision, scale)) = (parts(old.typmod), parts(new.typmod));
            old.typmod >= 0 && scale == old_scale && precision >= old_precision
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_relation_round_trips_with_odd_names() {
        let column = |name: &str, attnum| KnownColumn { name: name.into(), type_oid: 23, typmod: -1, attnum };
        let known = KnownRelation {
            schema: "my \"schema\"".into(),
            name: "tab\tand\nline".into(),
            attnum_max: 9,
            columns: vec![column("a b", 1), column("", 0), column("ü", 9)],
            details: None,
        };
        assert_eq!(KnownRelation::decode(&known.encode()), Some(known.clone()));
        let empty = KnownRelation { columns: Vec::new(), ..known };
        assert_eq!(KnownRelation::decode(&empty.encode()), Some(empty));
        assert_eq!(KnownRelation::decode(b"a\0b"), None);
        assert_eq!(KnownRelation::decode(b"a\0b\x001\0c"), None);
    }

    #[test]
    fn only_types_that_keep_every_value_are_wider() {
        let varchar = |n: i32| DataType::builtin(VARCHAR, if n < 0 { -1 } else { n + TYPMOD_HEADER }).unwrap();
        let numeric = |p: i32, s: i32| DataType::builtin(NUMERIC, (p << 16 | s) + TYPMOD_HEADER).unwrap();
        let any = DataType::builtin(NUMERIC, -1).unwrap();
        assert!(is_wider(&varchar(10), &varchar(20)) && is_wider(&varchar(10), &varchar(-1)));
        assert!(!is_wider(&varchar(10), &varchar(9)) && !is_wider(&varchar(-1), &varchar(9)));
        assert!(is_wider(&numeric(5, 2), &numeric(9, 2)) && is_wider(&numeric(5, 2), &any));
        assert!(!is_wider(&numeric(5, 2), &numeric(9, 3)) && !is_wider(&any, &numeric(5, 2)));
        let int4 = DataType::builtin(23, -1).unwrap();
        assert!(!is_wider(&int4, &DataType::builtin(20, -1).unwrap()));
    }
}
