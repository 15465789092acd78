//! dolt_blame_$t: for each row of HEAD, the commit that last changed it.

use std::collections::HashSet;
use std::sync::Arc;

use strandline_storage::{CommitId, TableSchema, Value};

use super::diff::{data_for_keys, everything, versions_of, wanted_key};
use super::mapping::Mapper;
use super::{SOURCE_COLUMNS, TEXT, TIMESTAMP, VersionTable, hash, plain_columns, source_values, table_columns, timestamp};
use crate::system::builder::{RowIterator, Shape, text};
use crate::system::refs::{Resolver, Target};

/// `dolt_blame_$t`; `None` for a table without a key, whose rows have no identity.
pub fn blame_table(table: &Arc<TableSchema>) -> Option<VersionTable> {
    let key = table.key_columns();
    if key.is_empty() {
        return None;
    }
    let all = table_columns(table, "");
    let mut columns: Vec<_> = key.iter().map(|&i| all[i].clone()).collect();
    columns.extend(plain_columns(&[("commit", TEXT), ("commit_date", TIMESTAMP), ("committer", TEXT), ("email", TEXT), ("message", TEXT)]));
    columns.extend(plain_columns(&SOURCE_COLUMNS));
    let table = Arc::clone(table);
    Some(VersionTable::new(format!("dolt_blame_{}", table.name), Shape::from_columns(columns), move |shape, context, request| {
        let wanted = match data_for_keys(context, table.oid) {
            Some(data) => wanted_key(shape, request, &data, "")?,
            None => None,
        };
        let resolver = Resolver::new(context);
        let head = resolver.head_commit()?;
        let root = resolver.root(Target::Commit(head))?;
        // Rows of HEAD that no commit was found for yet. Each row's newest change is the first that the history gives.
        let mut open: HashSet<Vec<u8>> = HashSet::new();
        if let Some(data) = root.table(table.oid) {
            match wanted.as_ref().filter(|w| w.fits(data.schema())) {
                Some(wanted) => {
                    if data.get(&wanted.key)?.is_some() {
                        open.insert(wanted.key.clone());
                    }
                }
                None => {
                    let mut cursor = data.scan(everything(), false);
                    while let Some((row_key, _)) = cursor.next_row()? {
                        open.insert(row_key);
                    }
                }
            }
        }
        let versions = versions_of(context, head, table.oid, wanted.as_ref())?;
        let mut mapper = Mapper::new(&table);
        let key = key.clone();
        let context = Arc::clone(context);
        let mut versions = versions;
        let mut last: Option<(CommitId, [Value; 10])> = None;
        let rows: RowIterator = Box::new(std::iter::from_fn(move || {
            while !open.is_empty() {
                let version = match versions.next()? {
                    Ok(version) => version,
                    Err(error) => return Some(Err(error.into())),
                };
                if let Err(error) = context.check_cancel() {
                    return Some(Err(error));
                }
                let Some((schema, row)) = version.to else { continue };
                if !open.remove(&version.key) {
                    continue;
                }
                let commit = &version.commit;
                if last.as_ref().is_none_or(|(id, _)| *id != commit.id) {
                    let [a, b, c, d, e] = source_values(Some(commit));
                    let meta = &commit.meta;
                    let columns = [
                        hash(commit.id),
                        timestamp(meta.commit_time),
                        text(&meta.committer.name),
                        text(&meta.committer.email),
                        text(&meta.message),
                        a,
                        b,
                        c,
                        d,
                        e,
                    ];
                    last = Some((commit.id, columns));
                }
                let mapping = mapper.from(&schema);
                let mut out: Vec<Value> = key.iter().map(|&i| mapping.value(&row, i)).collect();
                out.extend(last.iter().flat_map(|(_, columns)| columns.iter().cloned()));
                return Some(Ok(out));
            }
            None
        }));
        Ok(shape.batches(request, rows))
    }))
}
