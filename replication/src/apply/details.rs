//! What a captured definition says beyond the columns that are sent: followed by comparing it with the definition that was taken over last.
//!
//! What is here and was in neither (an index or a constraint made here by hand) stays. Indexes and constraints are known by their oids on the primary, which a
//! rename keeps, or else by their names.

use std::collections::HashMap;
use std::sync::Arc;

use strandline_storage::schema::{CatalogObject, IndexKey, TableSchema, TypeDefinition, UserType};
use strandline_storage::value::Row;
use strandline_storage::{Catalog, DataType, Edit, Error as StoreError, Oid, Value};

use super::definition::Follower;
use crate::catalog::{self, Maker, RemoteColumn, RemoteIndex, RemoteTable, RemoteType, RemoteTypes};
use crate::error::Result;

/// How many domains lie over each other at most.
const DOMAIN_DEPTH_MAX: usize = 32;

impl Follower<'_> {
    /// Takes over all of the definition; the columns that are sent have been followed already. `base`: what was taken over last.
    /// # Errors
    /// `Unfollowed`: what cannot be done here.
    pub(super) fn follow_details(&mut self, base: Option<&RemoteTable>) -> Result<()> {
        let Some(now) = &self.definition.table else { return Ok(()) };
        let catalog = self.edit.root().catalog();
        let Some(table) = catalog.table_by_name(&now.schema, &now.name).map(|table| table.oid) else { return Ok(()) };
        for changed in &now.types {
            follow_type(self.maker, self.edit, &self.definition.types, changed)?;
        }
        if let Some(base) = base {
            self.follow_generated(table, base, now)?;
        }
        self.add_generated(table, base, now)?;
        self.follow_sequences(table, base, now)?;
        self.follow_columns(table, base, now)?;
        self.follow_keys(table, base, now)?;
        self.follow_checks(table, base, now)?;
        let is_new = |name: &str| base.is_none_or(|base| base.constraints.iter().all(|constraint| constraint.name != name));
        catalog::connect_foreign_keys(self.maker.store, self.edit, [now])?;
        if now.constraints.iter().any(|constraint| constraint.referenced.is_some() && is_new(&constraint.name)) {
            catalog::warn_missing_foreign_keys(self.edit, [now]);
        }
        Ok(())
    }

    /// Generated columns that were renamed, dropped, or are computed no more.
    fn follow_generated(&mut self, table: Oid, base: &RemoteTable, now: &RemoteTable) -> Result<()> {
        for old in base.columns.iter().filter(|column| column.generated) {
            let Some(at) = self.schema(table)?.column_index(&old.name) else { continue };
            if self.schema(table)?.columns[at].generated.is_none() {
                continue;
            }
            let Some(new) = now.columns.iter().find(|column| column.attnum == old.attnum) else {
                self.drop_column(table, &old.name)?;
                continue;
            };
            let mut changed = TableSchema::clone(self.schema(table)?);
            changed.columns[at].name.clone_from(&new.name);
            if !new.generated {
                changed.columns[at].generated = None;
            }
            if changed != **self.schema(table)? {
                self.edit.put_table(changed)?;
            }
            if new.generated && new.expression != old.expression && old.name == new.name {
                // Columns that it names were renamed, or it is another one.
                self.set_expression(table, at, new)?;
            }
        }
        Ok(())
    }

    fn add_generated(&mut self, table: Oid, base: Option<&RemoteTable>, now: &RemoteTable) -> Result<()> {
        let is_sent = |column: &RemoteColumn| self.source.columns.iter().any(|sent| sent.name == column.name);
        let is_known = |column: &RemoteColumn| base.is_some_and(|base| base.columns.iter().any(|old| old.attnum == column.attnum));
        let new: Vec<&RemoteColumn> = now.columns.iter().filter(|c| c.generated && !is_sent(c) && !is_known(c)).collect();
        for column in new {
            if self.schema(table)?.column_index(&column.name).is_some() {
                continue;
            }
            let mut local = catalog::local_column(self.maker, self.edit, column, 0, &self.definition.types)?;
            local.default = None;
            let mut changed = TableSchema::clone(self.schema(table)?);
            local.attnum = changed.next_attnum;
            changed.next_attnum += 1;
            changed.columns.push(local);
            let at = changed.columns.len() - 1;
            if !catalog::set_generated(self.maker, self.edit, &mut changed, at, column, &self.name()) {
                continue;
            }
            self.rewrite_computed(changed, true)?;
            tracing::info!(table = %self.name(), column = %column.name, "added a generated column as on the primary");
        }
        Ok(())
    }

    fn set_expression(&mut self, table: Oid, at: usize, column: &RemoteColumn) -> Result<()> {
        let mut changed = TableSchema::clone(self.schema(table)?);
        let before = changed.columns[at].generated.take();
        if !catalog::set_generated(self.maker, self.edit, &mut changed, at, column, &self.name()) || changed.columns[at].generated == before
        {
            return Ok(());
        }
        // Only such a statement changes values (PostgreSQL 17); otherwise names were changed.
        if self.captured.is_some_and(|statement| statement.to_ascii_lowercase().contains("set expression")) {
            return self.rewrite_computed(changed, false);
        }
        Ok(self.edit.put_table(changed)?)
    }

    /// Computes the generated columns of all rows anew. `is_longer`: by one column, the last.
    fn rewrite_computed(&mut self, changed: TableSchema, is_longer: bool) -> Result<()> {
        let compiled = match self.maker.expressions {
            Some(expressions) => expressions.compile(self.edit.root(), &changed, &[]),
            None => Err("there is nothing here to compute it with".into()),
        };
        let values = compiled.map_err(|why| self.refused(format!("a generated column cannot be computed here: {why}")))?;
        let mut failure = None;
        let rewritten = self.edit.rewrite_table(changed, &mut |mut row: Row| {
            if is_longer {
                row.push(Value::Null);
            }
            match values.compute(&mut row) {
                Ok(()) => Ok(row),
                Err(why) => {
                    failure = Some(why);
                    Err(StoreError::Invalid("a generated column could not be computed".into()))
                }
            }
        });
        match failure {
            Some(why) => Err(self.refused(format!("a generated column could not be computed for a row: {why}"))),
            None => Ok(rewritten?),
        }
    }

    /// Sequences that columns own, and those that defaults use. Their positions are not the primary's.
    fn follow_sequences(&mut self, table: Oid, base: Option<&RemoteTable>, now: &RemoteTable) -> Result<()> {
        let owner = catalog::owner(self.edit);
        let before = base.map_or(&[][..], |base| &base.sequences);
        for sequence in &now.sequences {
            let old = before.iter().find(|old| (old.attnum, old.owned) == (sequence.attnum, sequence.owned));
            if let Some(old) = old.filter(|old| *old != sequence) {
                catalog::change_sequence(self.maker, self.edit, old, sequence, &self.definition.types)?;
            }
            let name = now.columns.iter().find(|column| column.attnum == sequence.attnum).map(|column| column.name.as_str());
            let schema = self.schema(table)?;
            let Some(attnum) = name.and_then(|name| Some(schema.columns[schema.column_index(name)?].attnum)) else { continue };
            catalog::ensure_sequence(self.maker, self.edit, sequence, (table, attnum), &self.definition.types, &owner)?;
        }
        for old in before.iter().filter(|old| old.owned && now.sequences.iter().all(|sequence| sequence.attnum != old.attnum)) {
            let here = self.edit.root().catalog().relation(&old.schema, &old.name).map(|object| (**object).clone());
            if let Some(CatalogObject::Sequence(sequence)) = here
                && sequence.owned_by.is_some_and(|(owner, _)| owner == table)
            {
                self.edit.drop_object(sequence.oid)?;
            }
        }
        Ok(())
    }

    /// Defaults, NOT NULL, identity, comments.
    fn follow_columns(&mut self, table: Oid, base: Option<&RemoteTable>, now: &RemoteTable) -> Result<()> {
        let mut changed = TableSchema::clone(self.schema(table)?);
        let name = self.name();
        let key = changed.key_columns();
        for column in &now.columns {
            let Some(at) = changed.column_index(&column.name) else { continue };
            let old = base.and_then(|base| base.columns.iter().find(|old| old.attnum == column.attnum));
            // Without a base, only what is new is told: a column that has just been added has not been in it either.
            let is_new = old.is_none() && base.is_some();
            let differs = |differs: &dyn Fn(&RemoteColumn) -> bool| is_new || old.is_some_and(differs);
            let here = &mut changed.columns[at];
            if differs(&|old| old.default != column.default) && here.generated.is_none() {
                here.default.clone_from(&column.default);
                catalog::check_default(self.maker, self.edit, here, &name);
            }
            if differs(&|old| old.not_null != column.not_null) {
                here.not_null = column.not_null || key.contains(&at);
            }
            if differs(&|old| old.identity != column.identity) {
                here.identity = catalog::local_identity(column);
            }
            if differs(&|old| old.collation != column.collation) {
                here.collation.clone_from(&column.collation);
            }
            if differs(&|old| old.comment != column.comment) {
                here.comment.clone_from(&column.comment);
            }
        }
        if base.is_some_and(|base| base.comment != now.comment) {
            changed.comment.clone_from(&now.comment);
        }
        self.put(table, changed)
    }

    fn put(&mut self, table: Oid, changed: TableSchema) -> Result<()> {
        if changed != **self.schema(table)? {
            self.edit.put_table(changed)?;
        }
        Ok(())
    }

    /// The primary key, UNIQUE constraints, indexes.
    fn follow_keys(&mut self, table: Oid, base: Option<&RemoteTable>, now: &RemoteTable) -> Result<()> {
        let schema = TableSchema::clone(self.schema(table)?);
        let mut changed = schema.clone();
        let position_of = |attnum: i16| {
            let column = now.columns.iter().find(|column| column.attnum == attnum)?;
            schema.column_index(&column.name)
        };
        let all_columns = now.columns.iter().all(|column| schema.column_index(&column.name).is_some());
        let name = self.name();
        let empty = Vec::new();
        let before = base.map_or(&empty, |base| &base.indexes);
        for old in before {
            let new = paired(old, &now.indexes);
            if new.is_some_and(|new| is_same_index(old, new)) {
                let new = new.unwrap_or(old);
                for index in changed.primary_key.iter_mut().chain(&mut changed.indexes).filter(|index| index.name == old.name) {
                    index.name.clone_from(&new.name);
                    index.comment.clone_from(&new.comment);
                }
                continue;
            }
            changed.indexes.retain(|index| index.name != old.name);
            if changed.primary_key.as_ref().is_some_and(|key| key.name == old.name) {
                changed.primary_key = None;
            }
        }
        for new in &now.indexes {
            let is_here = changed.primary_key.iter().chain(&changed.indexes).any(|index| index.name == new.name);
            let was_known = before.iter().any(|old| paired(old, std::slice::from_ref(new)).is_some() && is_same_index(old, new));
            if is_here || was_known {
                continue;
            }
            let Some(index) = catalog::translate_index(self.maker.store, new, &position_of, all_columns, &name)? else { continue };
            if new.primary && new.immediate {
                for column in &index.columns {
                    if let IndexKey::Column(at) = column.key {
                        changed.columns[at].not_null = true;
                    }
                }
                changed.primary_key = Some(index);
            } else {
                changed.indexes.push(index);
            }
        }
        if changed == schema {
            return Ok(());
        }
        let is_other_key = changed.key_columns() != schema.key_columns();
        let done = if is_other_key { self.edit.rewrite_table(changed, &mut Ok) } else { self.edit.put_table(changed) };
        match done {
            // Rows of ours that the primary does not have.
            Err(StoreError::DuplicateKey { .. }) => {
                Err(self.refused("rows here do not have a key or an index that is unique on the primary".into()))
            }
            other => Ok(other?),
        }
    }

    fn follow_checks(&mut self, table: Oid, base: Option<&RemoteTable>, now: &RemoteTable) -> Result<()> {
        let schema = TableSchema::clone(self.schema(table)?);
        let mut changed = schema.clone();
        let position_of = |attnum: i16| {
            let column = now.columns.iter().find(|column| column.attnum == attnum)?;
            schema.column_index(&column.name)
        };
        let name = self.name();
        for old in base.map_or(&[][..], |base| &base.constraints) {
            let new =
                now.constraints.iter().find(|new| new.oid == old.oid).or_else(|| now.constraints.iter().find(|new| new.name == old.name));
            match new {
                Some(new)
                    if new.expression.is_none() == old.expression.is_none()
                        && (new.definition == old.definition || new.expression.is_none()) =>
                {
                    for here in changed.constraints.iter_mut().filter(|here| here.name == old.name) {
                        here.name.clone_from(&new.name);
                        here.definition.clone_from(&new.definition);
                    }
                }
                _ => changed.constraints.retain(|here| here.name != old.name),
            }
        }
        for new in now.constraints.iter().filter(|new| new.expression.is_some()) {
            let is_known =
                base.is_some_and(|base| base.constraints.iter().any(|old| old.oid == new.oid && old.definition == new.definition));
            if is_known || changed.constraints.iter().any(|here| here.name == new.name) {
                continue;
            }
            let check = catalog::translate_check(self.maker, self.edit, new, &schema, &position_of, &name)?;
            changed.constraints.extend(check);
        }
        self.put(table, changed)
    }
}

/// Gives a type that is here its definition of now, and values their labels of now: a label that was renamed keeps its place among them. Returns whether something
/// changed.
pub(crate) fn follow_type(maker: Maker<'_>, edit: &mut Edit, types: &RemoteTypes, changed: &RemoteType) -> Result<bool> {
    let Some((oid, before)) = types.find_here(edit, changed).map(|here| (here.oid, here.definition.clone())) else { return Ok(false) };
    if !types.update(maker, edit, changed)? {
        return Ok(false);
    }
    let catalog = Arc::clone(edit.root().catalog());
    let after = match catalog.get(oid).map(|object| &**object) {
        Some(CatalogObject::Type(user_type)) => &user_type.definition,
        _ => return Ok(true),
    };
    let (TypeDefinition::Enum(before), TypeDefinition::Enum(after)) = (&before, after) else { return Ok(true) };
    let renamed: HashMap<&str, &str> =
        before.iter().zip(after).filter(|(old, new)| old != new).map(|(old, new)| (&**old, &**new)).collect();
    if before.len() != after.len() || renamed.is_empty() {
        return Ok(true);
    }
    for table in catalog.tables() {
        let uses: Vec<(usize, bool)> =
            table.columns.iter().enumerate().filter_map(|(at, c)| Some((at, holds_labels(&catalog, &c.data_type, oid, 0)?))).collect();
        if !uses.is_empty() {
            edit.rewrite_table(TableSchema::clone(table), &mut |mut row: Row| {
                for (at, is_array) in &uses {
                    rename_labels(&mut row[*at], *is_array, &renamed);
                }
                Ok(row)
            })?;
        }
    }
    Ok(true)
}

/// Whether values of a type are labels of an enum (`false`), or arrays of them (`true`).
fn holds_labels(catalog: &Catalog, data_type: &DataType, of: Oid, depth: usize) -> Option<bool> {
    if data_type.oid == of {
        return Some(false);
    }
    if let Some(element) = &data_type.element {
        return holds_labels(catalog, element, of, depth).map(|_| true);
    }
    match catalog.get(data_type.oid).map(|object| &**object) {
        Some(CatalogObject::Type(UserType { definition: TypeDefinition::Domain { base, .. }, .. })) if depth < DOMAIN_DEPTH_MAX => {
            holds_labels(catalog, base, of, depth + 1)
        }
        _ => None,
    }
}

fn rename_labels(value: &mut Value, is_array: bool, renamed: &HashMap<&str, &str>) {
    let Value::Bytes(bytes) = &*value else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let new = if is_array { labels_in_array(text, renamed) } else { renamed.get(text).map(|new| (*new).to_owned()) };
    if let Some(new) = new {
        *value = Value::bytes(&new);
    }
}

/// An array's text with other labels.
fn labels_in_array(text: &str, renamed: &HashMap<&str, &str>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    // Bounds stand in front: `[2:3]={a,b}`.
    for c in chars.by_ref() {
        out.push(c);
        if c == '{' {
            break;
        }
    }
    let mut item = String::new();
    let mut was_quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                was_quoted = true;
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    item.extend(if c == '\\' { chars.next() } else { Some(c) });
                }
            }
            '{' | '}' | ',' => {
                if was_quoted || !item.is_empty() {
                    let label = renamed.get(item.as_str()).filter(|_| was_quoted || item != "NULL").map_or(item.as_str(), |new| new);
                    push_item(&mut out, label, was_quoted || item != "NULL");
                }
                item.clear();
                was_quoted = false;
                out.push(c);
            }
            c => item.push(c),
        }
    }
    (out != text).then_some(out)
}

/// An element as PostgreSQL prints it: in quotes where it must be.
fn push_item(out: &mut String, label: &str, is_label: bool) {
    let is_plain = |c: char| !matches!(c, '"' | '\\' | '{' | '}' | ',') && !c.is_whitespace();
    if !is_label || (!label.is_empty() && !label.eq_ignore_ascii_case("null") && label.chars().all(is_plain)) {
        out.push_str(label);
        return;
    }
    out.push('"');
    for c in label.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Where an index of the primary is now.
fn paired<'a>(old: &RemoteIndex, now: &'a [RemoteIndex]) -> Option<&'a RemoteIndex> {
    now.iter().find(|new| new.oid == old.oid).or_else(|| now.iter().find(|new| new.name == old.name))
}

/// Whether it is the same but for its name.
fn is_same_index(old: &RemoteIndex, new: &RemoteIndex) -> bool {
    let nameless = |index: &RemoteIndex| RemoteIndex { oid: 0, name: String::new(), comment: None, ..index.clone() };
    nameless(old) == nameless(new)
}

/// The table that has an index of this name.
pub(super) fn table_of_index(catalog: &strandline_storage::Catalog, schema: &str, name: &str) -> Option<Oid> {
    let schema_oid = catalog.schema(schema)?.oid;
    catalog.objects.values().find_map(|object| match &**object {
        CatalogObject::Table(table) if table.schema_oid == schema_oid => {
            table.primary_key.iter().chain(&table.indexes).any(|index| index.name == name).then_some(table.oid)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_in_arrays_are_renamed_whatever_stands_around_them() {
        let renamed = HashMap::from([("ok", "fine"), ("a,b", "plain"), ("null", "two words")]);
        let of = |text: &str| labels_in_array(text, &renamed);
        assert_eq!(of("{ok,sad,NULL}").as_deref(), Some("{fine,sad,NULL}"));
        assert_eq!(of("[2:3]={ok,ok}").as_deref(), Some("[2:3]={fine,fine}"));
        assert_eq!(of(r#"{{ok,"a,b"},{"null",NULL}}"#).as_deref(), Some(r#"{{fine,plain},{"two words",NULL}}"#));
        assert_eq!(of(r#"{"q\"ok",""}"#), None);
        assert_eq!(of("{}"), None);
        for damaged in ["", "{", "{\"", "{ok", "}"] {
            of(damaged);
        }
    }
}
