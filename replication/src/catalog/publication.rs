//! What a set of publications publishes.

use tokio_postgres::Client;

use crate::error::{Error, Result};

/// A published table with the publication's restrictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedTable {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The published columns; `None`: all of them.
    pub(crate) columns: Option<Vec<String>>,
    /// Row filters, of which one has to hold; `None`: all rows.
    pub(crate) filters: Option<Vec<String>>,
}

/// All tables of the publications.
/// # Errors
/// `Setup` when two publications disagree about a table's columns, as PostgreSQL refuses it.
pub(crate) async fn read_published(client: &Client, major_version: u32, names: &[String]) -> Result<Vec<PublishedTable>> {
    let failed = |e| Error::from_sql("read the primary's publications", e);
    let restrictions = if major_version >= 15 { "p.attnames::text[], p.rowfilter" } else { "NULL::text[], NULL::text" };
    // What is under a table that one of them publishes for all its partitions is sent as that table only.
    let uncovered = if major_version >= 13 {
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables r \
         JOIN pg_catalog.pg_publication v ON v.pubname = r.pubname AND v.pubviaroot \
         JOIN pg_catalog.pg_namespace rn ON rn.nspname = r.schemaname \
         JOIN pg_catalog.pg_class rc ON rc.relnamespace = rn.oid AND rc.relname = r.tablename \
         WHERE r.pubname = ANY($1) AND rc.oid <> c.oid AND rc.oid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))"
    } else {
        ""
    };
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, {restrictions} \
         FROM pg_catalog.pg_publication_tables p \
         JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
         WHERE p.pubname = ANY($1) {uncovered} ORDER BY 2, 3, p.pubname"
    );
    let mut tables: Vec<PublishedTable> = Vec::new();
    for row in client.query(&sql, &[&names]).await.map_err(failed)? {
        let table = PublishedTable {
            oid: row.try_get(0).map_err(failed)?,
            schema: row.try_get(1).map_err(failed)?,
            name: row.try_get(2).map_err(failed)?,
            columns: row.try_get(3).map_err(failed)?,
            filters: row.try_get::<_, Option<String>>(4).map_err(failed)?.map(|filter| vec![filter]),
        };
        match tables.last_mut() {
            Some(last) if last.oid == table.oid => {
                if last.columns != table.columns {
                    return Err(Error::Setup(format!(
                        "cannot use different column lists for table \"{}.{}\" in different publications",
                        table.schema, table.name
                    )));
                }
                last.filters = match (last.filters.take(), table.filters) {
                    (Some(mut all), Some(more)) => {
                        all.extend(more);
                        Some(all)
                    }
                    _ => None,
                };
            }
            _ => tables.push(table),
        }
    }
    Ok(tables)
}
