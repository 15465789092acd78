//! What is copied: the published tables, and the parts that large ones are copied in.

use std::collections::HashMap;

use crate::apply::{Mapping, SourceColumn, SourceRelation};
use crate::catalog::{self, CatalogClient, PublishedTable, RemoteTable, RemoteTypes};
use crate::client::quote_identifier;
use crate::copy::rows::Format;
use crate::error::{Error, Result};
use crate::pgoutput::ReplicaIdentity;

/// The first major version that finds rows by a range of their places without reading the whole table.
const RANGES_VERSION_MIN: u32 = 14;

/// A table is copied in parts of at least this size on the primary, in bytes, and of at most that: small enough to end at about the same time, large enough to
/// cost nothing.
const PART_SIZE_MIN: u64 = 8 << 20;
const PART_SIZE_MAX: u64 = 1 << 30;

/// So many parts for each worker, if their size allows.
const PARTS_PER_WORKER: u64 = 4;

/// One table to copy.
pub(crate) struct Task {
    pub(crate) remote: RemoteTable,
    published: PublishedTable,
    pub(crate) relation: SourceRelation,
    /// Bytes on the primary; 0 where it is not known.
    pub(crate) size: u64,
    /// Never empty.
    pub(crate) parts: Vec<Part>,
}

/// A part of a table: rows that lie within these blocks, first and behind the last (`None`: its end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) blocks: Option<(u64, Option<u64>)>,
    /// Bytes on the primary.
    pub(crate) size: u64,
}

/// Reads what to copy, on the snapshot.
pub(crate) async fn plan(client: &CatalogClient, major_version: u32, publications: &[String]) -> Result<(Vec<Task>, RemoteTypes)> {
    let published = catalog::read_published(&client.client, major_version, publications).await?;
    let oids: Vec<u32> = published.iter().map(|table| table.oid).collect();
    let tables = catalog::read_tables(&client.client, major_version, &oids).await?;
    let type_oids: Vec<u32> = tables.iter().flat_map(|t| t.columns.iter().map(|c| c.type_oid)).collect();
    let types = catalog::read_types(&client.client, type_oids).await?;
    let mut tasks = Vec::with_capacity(tables.len());
    for remote in tables {
        let Some(published) = published.iter().find(|p| p.oid == remote.oid) else { continue };
        let is_published = |name: &String, generated: bool| match &published.columns {
            // Before version 18 generated columns are never sent, whatever is listed.
            Some(names) => names.contains(name) && (!generated || major_version >= 18),
            None => !generated,
        };
        let columns = remote
            .columns
            .iter()
            .filter(|c| is_published(&c.name, c.generated))
            .map(|c| SourceColumn { key: false, name: c.name.clone(), type_oid: c.type_oid, typmod: c.typmod })
            .collect();
        let relation = SourceRelation {
            oid: remote.oid,
            schema: remote.schema.clone(),
            name: remote.name.clone(),
            identity: ReplicaIdentity::Nothing,
            columns,
        };
        tasks.push(Task { published: published.clone(), remote, relation, size: 0, parts: vec![Part { blocks: None, size: 0 }] });
    }
    Ok((tasks, types))
}

/// How large a table is, and whether its rows can be found by their place.
struct Extent {
    size: u64,
    block_size: u64,
    is_heap: bool,
}

/// Partitioned tables are published as one from version 13 on only.
fn extents_sql(major_version: u32) -> String {
    let size = if major_version >= 13 {
        "CASE WHEN c.relkind = 'p' \
         THEN (SELECT sum(pg_catalog.pg_relation_size(t.relid)) FROM pg_catalog.pg_partition_tree(c.oid) t)::int8 \
         ELSE pg_catalog.pg_relation_size(c.oid) END"
    } else {
        "pg_catalog.pg_relation_size(c.oid)"
    };
    format!(
        "SELECT c.oid, {size}, pg_catalog.current_setting('block_size')::int8, c.relkind = 'r' AND coalesce(a.amname = 'heap', false) \
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.oid = ANY($1)"
    )
}

/// Divides large tables into parts, for so many workers.
///
/// A table that is rewritten (VACUUM FULL, CLUSTER) has its rows in other places, so the parts would not be its parts any more. The transaction of `client`,
/// which lasts as long as the copy, keeps the tables from it by the lock that every reader takes; their size is read behind that.
pub(crate) async fn divide(client: &CatalogClient, major_version: u32, tasks: &mut [Task], worker_count: usize) -> Result<()> {
    let oids: Vec<u32> = tasks.iter().map(|task| task.relation.oid).collect();
    let before = extents(client, &oids).await?;
    let mut divisible = Vec::new();
    for task in tasks.iter_mut() {
        let Some(extent) = before.get(&task.relation.oid) else { continue };
        task.set_whole(extent.size);
        let is_large = extent.size >= 2 * PART_SIZE_MIN;
        if worker_count > 1 && major_version >= RANGES_VERSION_MIN && extent.is_heap && is_large && lock(client, &task.relation).await? {
            divisible.push(task);
        }
    }
    let oids: Vec<u32> = divisible.iter().map(|task| task.relation.oid).collect();
    let now = if oids.is_empty() { HashMap::new() } else { extents(client, &oids).await? };
    for task in divisible {
        if let Some(extent) = now.get(&task.relation.oid) {
            task.size = extent.size;
            task.parts = parts(extent.size, extent.block_size, worker_count as u64);
        }
    }
    Ok(())
}

async fn extents(client: &CatalogClient, oids: &[u32]) -> Result<HashMap<u32, Extent>> {
    let failed = |e| Error::from_sql("ask the primary for the sizes of tables", e);
    let mut extents = HashMap::new();
    for row in client.client.query(&extents_sql(client.major_version), &[&oids]).await.map_err(failed)? {
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let extent = Extent {
            size: positive(row.try_get(1).map_err(failed)?),
            block_size: positive(row.try_get(2).map_err(failed)?).max(1),
            is_heap: row.try_get(3).map_err(failed)?,
        };
        extents.insert(row.try_get(0).map_err(failed)?, extent);
    }
    Ok(extents)
}

/// `false` where the lock is not to be had: then the table's own copy says why.
async fn lock(client: &CatalogClient, relation: &SourceRelation) -> Result<bool> {
    let failed = |e| Error::from_sql("lock a table of the primary", e);
    let table = relation_name(relation);
    client.client.batch_execute("SAVEPOINT part").await.map_err(failed)?;
    let locked = client.client.batch_execute(&format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE")).await;
    if locked.is_err() {
        client.client.batch_execute("ROLLBACK TO SAVEPOINT part").await.map_err(failed)?;
    }
    client.client.batch_execute("RELEASE SAVEPOINT part").await.map_err(failed)?;
    Ok(locked.is_ok())
}

fn parts(size: u64, block_size: u64, worker_count: u64) -> Vec<Part> {
    let part_size = (size / (worker_count * PARTS_PER_WORKER)).clamp(PART_SIZE_MIN, PART_SIZE_MAX);
    let (blocks, step) = (size / block_size, part_size.div_ceil(block_size));
    let count = (blocks / step).max(1);
    let part = |at: u64| {
        // The last one takes what is left, and what has come since.
        let end = (at + 1 < count).then_some((at + 1) * step);
        Part { blocks: Some((at * step, end)), size: (end.unwrap_or(blocks) - at * step) * block_size }
    };
    (0..count).map(part).collect()
}

fn relation_name(relation: &SourceRelation) -> String {
    format!("{}.{}", quote_identifier(&relation.schema), quote_identifier(&relation.name))
}

impl Task {
    fn set_whole(&mut self, size: u64) {
        self.size = size;
        self.parts = vec![Part { blocks: None, size }];
    }

    /// The `COPY` of a part: the columns that have a place here.
    pub(crate) fn query(&self, part: Part, mapping: &Mapping, format: Format) -> String {
        let table = relation_name(&self.relation);
        let columns = self.relation.columns.iter().zip(&mapping.targets).filter(|(_, target)| target.is_some());
        let columns = columns.map(|(column, _)| quote_identifier(&column.name)).collect::<Vec<_>>().join(", ");
        // A partitioned table is published as a whole or not at all; children of other tables are published on their own.
        let only = if self.remote.partitioned { "" } else { "ONLY " };
        let mut conditions = Vec::new();
        if let Some(filters) = &self.published.filters {
            conditions.push(format!("({})", filters.iter().map(|f| format!("({f})")).collect::<Vec<_>>().join(" OR ")));
        }
        if let Some((first, end)) = part.blocks {
            conditions.push(format!("ctid >= '({first},0)'::pg_catalog.tid"));
            conditions.extend(end.map(|end| format!("ctid < '({end},0)'::pg_catalog.tid")));
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("COPY (SELECT {columns} FROM {only}{table}{filter}) TO STDOUT{}", format.option())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_block_once_and_the_last_one_what_comes_behind() {
        for (size, workers) in [(16 << 20, 2), (134_004_736, 2), (1 << 40, 4), ((16 << 20) + 8192, 8), (1 << 30, 1)] {
            let parts = parts(size, 8192, workers);
            assert_eq!(parts.iter().map(|part| part.size).sum::<u64>(), size);
            let mut next = 0;
            for (at, part) in parts.iter().enumerate() {
                let (first, end) = part.blocks.unwrap();
                assert_eq!(first, next);
                assert_eq!(end.is_none(), at + 1 == parts.len());
                assert!(part.size >= PART_SIZE_MIN && part.size <= 2 * PART_SIZE_MAX, "{part:?}");
                next = end.unwrap_or(0);
            }
        }
        assert!(parts(1 << 40, 8192, 4).len() > 900);
        assert_eq!(parts(1 << 30, 8192, 2).len(), 8);
    }
}
