//! Makes a table of ours from a description of the primary's.
//!
//! What the SQL layer here has is taken over: columns with types, NOT NULL, defaults, identity and generation, keys, indexes, CHECK constraints, foreign keys,
//! sequences, comments. An expression that cannot be evaluated here is left out with a warning, and the rest of the table is made all the same. Nothing of it
//! is enforced while the primary's changes are applied.

use strandline_storage::Edit;
use strandline_storage::schema::{
    CatalogObject, Column, Constraint, ConstraintKind, Identity, Index, IndexColumn, IndexKey, Oid, Schema, Sequence, TableSchema,
};
use strandline_storage::store::Store;

use super::describe::{RemoteColumn, RemoteConstraint, RemoteIndex, RemoteSequence, RemoteTable};
use super::foreign_keys;
use super::maker::{Maker, warn_left_out, without_parentheses};
use super::types::RemoteTypes;
use crate::error::Result;
use crate::pgoutput::{Relation, ReplicaIdentity};

/// Creates the table with those of its columns that `published` names (all but generated ones when `None`), its generated columns, which are computed here
/// where they are not published, and whatever it needs: its schema, types and sequences. Returns its oid.
pub(crate) fn create_table(
    maker: Maker<'_>,
    edit: &mut Edit,
    remote: &RemoteTable,
    types: &RemoteTypes,
    published: Option<&[String]>,
) -> Result<Oid> {
    let oid = maker.store.next_oid()?;
    let table = describe_table(maker, edit, oid, remote, types, published, None)?;
    edit.put_table(table)?;
    foreign_keys::connect(maker.store, edit, [remote])?;
    Ok(oid)
}

/// What a table here is to be, without its foreign keys; whatever else it needs is made. `before`: what it was; columns that it had keep their numbers, as far as they are in their order.
pub(super) fn describe_table(
    maker: Maker<'_>,
    edit: &mut Edit,
    oid: Oid,
    remote: &RemoteTable,
    types: &RemoteTypes,
    published: Option<&[String]>,
    before: Option<&TableSchema>,
) -> Result<TableSchema> {
    let schema_oid = ensure_schema(maker.store, edit, &remote.schema)?;
    let owner = owner(edit);
    let name = remote.qualified_name();
    let is_sent = |c: &RemoteColumn| published.map_or(!c.generated, |names| names.contains(&c.name));
    let mut chosen: Vec<&RemoteColumn> = remote.columns.iter().filter(|c| is_sent(c) || c.expression.is_some()).collect();
    for column in remote.columns.iter().filter(|c| c.generated && !is_sent(c) && c.expression.is_none()) {
        warn_left_out(&name, &format!("column \"{}\"", column.name), "virtual generated columns do not exist here");
    }
    let mut columns = Vec::with_capacity(chosen.len());
    for column in &chosen {
        columns.push(local_column(maker, edit, column, 0, types)?);
    }
    let mut table = TableSchema {
        oid,
        schema_oid,
        name: remote.name.clone(),
        owner: before.map_or_else(|| owner.clone(), |before| before.owner.clone()),
        columns,
        next_attnum: before.map_or(1, |before| before.next_attnum),
        primary_key: None,
        indexes: Vec::new(),
        constraints: Vec::new(),
        merged_columns: before.map_or_else(Vec::new, |before| before.merged_columns.clone()),
        comment: remote.comment.clone(),
    };
    // Generated columns are computed of columns that are here, by expressions that can be evaluated here; sent ones are not computed.
    let mut at = 0;
    while let Some(column) = chosen.get(at).copied() {
        if is_sent(column) {
            at += 1;
            continue;
        }
        if set_generated(maker, edit, &mut table, at, column, &name) {
            at += 1;
        } else {
            table.columns.remove(at);
            chosen.remove(at);
        }
    }
    let mut last = 0;
    for column in &mut table.columns {
        let known = before.and_then(|before| before.columns.iter().find(|known| known.name == column.name));
        column.attnum = match known {
            // Numbers ascend with the columns' places.
            Some(known) if known.attnum > last => known.attnum,
            _ => {
                table.next_attnum += 1;
                table.next_attnum - 1
            }
        };
        last = column.attnum;
    }
    let position_of = |attnum: i16| chosen.iter().position(|c| c.attnum == attnum);
    for sequence in &remote.sequences {
        if let Some(position) = position_of(sequence.attnum) {
            ensure_sequence(maker, edit, sequence, (table.oid, table.columns[position].attnum), types, &owner)?;
        }
    }
    for column in &mut table.columns {
        check_default(maker, edit, column, &name);
    }
    let all_columns = chosen.len() == remote.columns.len();
    for remote_index in &remote.indexes {
        let Some(index) = translate_index(maker.store, remote_index, &position_of, all_columns, &name)? else { continue };
        // A deferrable key may be violated for a moment, which is all that the stream shows of it.
        if remote_index.primary && remote_index.immediate {
            table.primary_key = Some(index);
        } else {
            table.indexes.push(index);
        }
    }
    for constraint in &remote.constraints {
        if let Some(check) = translate_check(maker, edit, constraint, &table, &position_of, &name)? {
            table.constraints.push(check);
        }
    }
    Ok(table)
}

/// Makes a column a generated one, if its expression can be evaluated here.
pub(crate) fn set_generated(maker: Maker<'_>, edit: &Edit, table: &mut TableSchema, at: usize, remote: &RemoteColumn, name: &str) -> bool {
    let what = format!("generated column \"{}\"", remote.name);
    let Some(text) = remote.expression.as_deref().map(without_parentheses) else {
        warn_left_out(name, &what, "virtual generated columns do not exist here");
        return false;
    };
    let Some(data_type) = table.columns.get(at).map(|column| column.data_type.clone()) else { return false };
    if !maker.takes_value(edit, Some(table), text, &data_type, name, &what) {
        return false;
    }
    table.columns[at].generated = Some(text.to_owned());
    true
}

/// Leaves a default out that cannot be evaluated here.
pub(crate) fn check_default(maker: Maker<'_>, edit: &Edit, column: &mut Column, table: &str) {
    if let Some(text) = &column.default
        && !maker.takes_value(edit, None, text, &column.data_type, table, &format!("the default of column \"{}\"", column.name))
    {
        column.default = None;
    }
}

/// Our column for one of the primary's, not computed.
pub(crate) fn local_column(maker: Maker<'_>, edit: &mut Edit, remote: &RemoteColumn, attnum: i16, types: &RemoteTypes) -> Result<Column> {
    Ok(Column {
        name: remote.name.clone(),
        attnum,
        data_type: types.translate(maker, edit, remote.type_oid, remote.typmod)?,
        not_null: remote.not_null,
        default: remote.default.clone(),
        identity: local_identity(remote),
        generated: None,
        collation: remote.collation.clone(),
        comment: remote.comment.clone(),
    })
}

pub(crate) fn local_identity(remote: &RemoteColumn) -> Option<Identity> {
    match remote.identity.as_str() {
        "a" => Some(Identity::Always),
        "d" => Some(Identity::ByDefault),
        _ => None,
    }
}

/// A description made of what the stream itself says, for a table that the primary's catalog no longer has.
pub(crate) fn table_from_relation(relation: &Relation<'_>) -> RemoteTable {
    let columns: Vec<RemoteColumn> = relation
        .columns
        .iter()
        .enumerate()
        .map(|(position, column)| RemoteColumn {
            attnum: position as i16 + 1,
            name: column.name.into(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            not_null: column.key && relation.identity != ReplicaIdentity::Full,
            default: None,
            identity: String::new(),
            generated: false,
            expression: None,
            missing: None,
            collation: None,
            comment: None,
        })
        .collect();
    let key: Vec<i16> = relation.columns.iter().zip(&columns).filter(|(remote, _)| remote.key).map(|(_, column)| column.attnum).collect();
    let has_key = !key.is_empty() && relation.identity != ReplicaIdentity::Full;
    let index = RemoteIndex {
        oid: 0,
        name: format!("{}_pkey", relation.name),
        primary: true,
        unique: true,
        immediate: true,
        nulls_not_distinct: false,
        constraint: false,
        exclusion: false,
        method: "btree".into(),
        predicate: None,
        key_count: key.len(),
        options: vec![0; key.len()],
        expressions: vec![None; key.len()],
        attnums: key,
        comment: None,
    };
    RemoteTable {
        oid: relation.oid,
        schema: relation.schema.into(),
        name: relation.name.into(),
        partitioned: false,
        attribute_count: 0,
        has_column_list: false,
        comment: None,
        columns,
        indexes: has_key.then_some(index).into_iter().collect(),
        constraints: Vec::new(),
        sequences: Vec::new(),
        types: Vec::new(),
    }
}

/// Our index for one of the primary's; `None` for one that needs a column that is not here, or that the SQL layer does not have.
pub(crate) fn translate_index(
    store: &Store,
    remote: &RemoteIndex,
    position_of: &dyn Fn(i16) -> Option<usize>,
    all_columns: bool,
    table: &str,
) -> Result<Option<Index>> {
    if remote.exclusion {
        warn_left_out(table, &format!("exclusion constraint \"{}\"", remote.name), "exclusion constraints do not exist here");
        return Ok(None);
    }
    // Expressions and predicates are text; which columns they use is not known here.
    if !all_columns && (remote.predicate.is_some() || remote.attnums.contains(&0)) {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(remote.key_count);
    for (i, attnum) in remote.attnums.iter().take(remote.key_count).enumerate() {
        let key = match (*attnum, remote.expressions.get(i)) {
            (0, Some(Some(expression))) => IndexKey::Expression(expression.clone()),
            (attnum, _) => match position_of(attnum) {
                Some(position) => IndexKey::Column(position),
                None => return Ok(None),
            },
        };
        let option = if remote.primary { 0 } else { remote.options.get(i).copied().unwrap_or(0) };
        columns.push(IndexColumn { key, descending: option & 1 != 0, nulls_first: option & 2 != 0 });
    }
    let mut include = Vec::new();
    for attnum in remote.attnums.iter().skip(remote.key_count) {
        match position_of(*attnum) {
            Some(position) => include.push(position),
            None => return Ok(None),
        }
    }
    Ok(Some(Index {
        oid: store.next_oid()?,
        name: remote.name.clone(),
        unique: remote.unique && remote.immediate,
        nulls_not_distinct: remote.nulls_not_distinct,
        columns,
        include,
        predicate: remote.predicate.as_deref().map(|text| without_parentheses(text).to_owned()),
        method: remote.method.clone(),
        constraint: remote.constraint && remote.immediate,
        comment: remote.comment.clone(),
    }))
}

/// Our CHECK for one of the primary's; `None` for a foreign key, and for one that cannot be evaluated here.
pub(crate) fn translate_check(
    maker: Maker<'_>,
    edit: &Edit,
    remote: &RemoteConstraint,
    table: &TableSchema,
    position_of: &dyn Fn(i16) -> Option<usize>,
    name: &str,
) -> Result<Option<Constraint>> {
    let Some(text) = &remote.expression else { return Ok(None) };
    let Some(columns) = remote.columns.iter().map(|attnum| position_of(*attnum)).collect::<Option<Vec<_>>>() else {
        warn_left_out(name, &format!("CHECK constraint \"{}\"", remote.name), "it uses columns that are not here");
        return Ok(None);
    };
    let expression = without_parentheses(text).to_owned();
    if !maker.takes_condition(edit, table, &expression, name, &remote.name) {
        return Ok(None);
    }
    Ok(Some(Constraint {
        oid: maker.store.next_oid()?,
        name: remote.name.clone(),
        definition: remote.definition.clone(),
        kind: ConstraintKind::Check { expression },
        columns,
    }))
}

/// Makes a sequence that is not here: owned by the column, where it is so on the primary.
pub(crate) fn ensure_sequence(
    maker: Maker<'_>,
    edit: &mut Edit,
    remote: &RemoteSequence,
    column: (Oid, i16),
    types: &RemoteTypes,
    owner: &str,
) -> Result<()> {
    if edit.root().catalog().relation(&remote.schema, &remote.name).is_some() {
        return Ok(());
    }
    let schema_oid = ensure_schema(maker.store, edit, &remote.schema)?;
    let sequence = Sequence {
        oid: maker.store.next_oid()?,
        schema_oid,
        name: remote.name.clone(),
        owner: owner.into(),
        data_type: types.translate(maker, edit, remote.type_oid, -1)?,
        start: remote.start,
        increment: remote.increment,
        min: remote.min,
        max: remote.max,
        cache: remote.cache,
        cycle: remote.cycle,
        owned_by: remote.owned.then_some(column),
    };
    Ok(edit.put_object(CatalogObject::Sequence(sequence))?)
}

/// Makes a sequence that is here what it is on the primary now; where it stands is its own affair.
pub(crate) fn change_sequence(
    maker: Maker<'_>,
    edit: &mut Edit,
    old: &RemoteSequence,
    new: &RemoteSequence,
    types: &RemoteTypes,
) -> Result<()> {
    let here = edit.root().catalog().relation(&old.schema, &old.name).map(|object| (**object).clone());
    let Some(CatalogObject::Sequence(here)) = here else { return Ok(()) };
    let is_same_name = (&old.schema, &old.name) == (&new.schema, &new.name);
    if !is_same_name && edit.root().catalog().relation(&new.schema, &new.name).is_some() {
        return Ok(());
    }
    let changed = Sequence {
        schema_oid: ensure_schema(maker.store, edit, &new.schema)?,
        name: new.name.clone(),
        data_type: types.translate(maker, edit, new.type_oid, -1)?,
        start: new.start,
        increment: new.increment,
        min: new.min,
        max: new.max,
        cache: new.cache,
        cycle: new.cycle,
        ..here
    };
    Ok(edit.put_object(CatalogObject::Sequence(changed))?)
}

/// The oid of the schema with this name, which is made if it is missing.
pub(crate) fn ensure_schema(store: &Store, edit: &mut Edit, name: &str) -> Result<Oid> {
    if let Some(schema) = edit.root().catalog().schema(name) {
        return Ok(schema.oid);
    }
    let schema = Schema { oid: store.next_oid()?, name: name.into(), owner: owner(edit), comment: None };
    let oid = schema.oid;
    edit.put_object(CatalogObject::Schema(schema))?;
    Ok(oid)
}

/// Who owns what replication makes: the owner of schema `public`, the superuser of the first start.
pub(crate) fn owner(edit: &Edit) -> String {
    edit.root().catalog().schema("public").map_or_else(|| "postgres".into(), |schema| schema.owner.clone())
}

impl RemoteTable {
    /// `schema.table`, as messages name it.
    pub(crate) fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}
