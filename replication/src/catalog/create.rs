//! Makes a table of ours from a description of the primary's.

use strandline_storage::Edit;
use strandline_storage::schema::{CatalogObject, Column, Identity, Index, IndexColumn, IndexKey, Oid, Schema, Sequence, TableSchema};
use strandline_storage::store::Store;

use super::describe::{RemoteColumn, RemoteIndex, RemoteSequence, RemoteTable};
use super::types::RemoteTypes;
use crate::error::Result;
use crate::pgoutput::{Relation, ReplicaIdentity};

/// Creates the table with those of its columns that `published` names (all but generated ones when `None`), and whatever it needs: its schema,
/// types and sequences. Returns its oid.
pub(crate) fn create_table(
    store: &Store,
    edit: &mut Edit,
    remote: &RemoteTable,
    types: &RemoteTypes,
    published: Option<&[String]>,
) -> Result<Oid> {
    let schema_oid = ensure_schema(store, edit, &remote.schema)?;
    let owner = owner(edit);
    let wanted = |c: &&RemoteColumn| published.map_or(!c.generated, |names| names.contains(&c.name));
    let chosen: Vec<&RemoteColumn> = remote.columns.iter().filter(wanted).collect();
    let mut columns = Vec::with_capacity(chosen.len());
    for (position, column) in chosen.iter().enumerate() {
        columns.push(local_column(store, edit, column, position as i16 + 1, types)?);
    }
    let position_of = |attnum: i16| chosen.iter().position(|c| c.attnum == attnum);
    let oid = store.next_oid()?;
    let mut primary_key = None;
    let mut indexes = Vec::new();
    let all_columns = published.is_none() || chosen.len() == remote.columns.len();
    for remote_index in &remote.indexes {
        let Some(index) = translate_index(store, remote_index, &position_of, all_columns)? else { continue };
        // A deferrable key may be violated for a moment, which is all that the stream shows of it.
        if remote_index.primary && remote_index.immediate {
            primary_key = Some(index);
        } else {
            indexes.push(index);
        }
    }
    let next_attnum = columns.len() as i16 + 1;
    let schema = TableSchema {
        oid,
        schema_oid,
        name: remote.name.clone(),
        owner: owner.clone(),
        columns,
        next_attnum,
        primary_key,
        indexes,
        constraints: Vec::new(),
        merged_columns: Vec::new(),
        comment: remote.comment.clone(),
    };
    edit.put_table(schema)?;
    for sequence in &remote.sequences {
        if let Some(position) = position_of(sequence.attnum) {
            ensure_sequence(store, edit, sequence, (oid, position as i16 + 1), types, &owner)?;
        }
    }
    Ok(oid)
}

/// Our column for one of the primary's.
pub(crate) fn local_column(store: &Store, edit: &mut Edit, remote: &RemoteColumn, attnum: i16, types: &RemoteTypes) -> Result<Column> {
    Ok(Column {
        name: remote.name.clone(),
        attnum,
        data_type: types.translate(store, edit, remote.type_oid, remote.typmod)?,
        not_null: remote.not_null,
        default: remote.default.clone(),
        identity: match remote.identity.as_str() {
            "a" => Some(Identity::Always),
            "d" => Some(Identity::ByDefault),
            _ => None,
        },
        generated: None,
        collation: remote.collation.clone(),
        comment: remote.comment.clone(),
    })
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
            missing: None,
            collation: None,
            comment: None,
        })
        .collect();
    let key: Vec<i16> = relation.columns.iter().zip(&columns).filter(|(remote, _)| remote.key).map(|(_, column)| column.attnum).collect();
    let has_key = !key.is_empty() && relation.identity != ReplicaIdentity::Full;
    let index = RemoteIndex {
        name: format!("{}_pkey", relation.name),
        primary: true,
        unique: true,
        immediate: true,
        nulls_not_distinct: false,
        constraint: false,
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
        sequences: Vec::new(),
    }
}

/// `None` for an index that needs a column that is not here.
fn translate_index(
    store: &Store,
    remote: &RemoteIndex,
    position_of: &dyn Fn(i16) -> Option<usize>,
    all_columns: bool,
) -> Result<Option<Index>> {
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
        predicate: remote.predicate.clone(),
        method: remote.method.clone(),
        constraint: remote.constraint && remote.immediate,
        comment: remote.comment.clone(),
    }))
}

fn ensure_sequence(
    store: &Store,
    edit: &mut Edit,
    remote: &RemoteSequence,
    owned_by: (Oid, i16),
    types: &RemoteTypes,
    owner: &str,
) -> Result<()> {
    if edit.root().catalog().relation(&remote.schema, &remote.name).is_some() {
        return Ok(());
    }
    let schema_oid = ensure_schema(store, edit, &remote.schema)?;
    let sequence = Sequence {
        oid: store.next_oid()?,
        schema_oid,
        name: remote.name.clone(),
        owner: owner.into(),
        data_type: types.translate(store, edit, remote.type_oid, -1)?,
        start: remote.start,
        increment: remote.increment,
        min: remote.min,
        max: remote.max,
        cache: remote.cache,
        cycle: remote.cycle,
        owned_by: Some(owned_by),
    };
    Ok(edit.put_object(CatalogObject::Sequence(sequence))?)
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
pub(super) fn owner(edit: &Edit) -> String {
    edit.root().catalog().schema("public").map_or_else(|| "postgres".into(), |schema| schema.owner.clone())
}
