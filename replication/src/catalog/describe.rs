//! Tables as the primary's catalog describes them.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use crate::client::quote_identifier;
use crate::error::{Error, Result};

/// A table of the primary.
#[derive(Clone, Debug)]
pub(crate) struct RemoteTable {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) partitioned: bool,
    /// How many columns it has ever had.
    pub(crate) attribute_count: i16,
    /// A publication sends some of its columns only.
    pub(crate) has_column_list: bool,
    pub(crate) comment: Option<String>,
    pub(crate) columns: Vec<RemoteColumn>,
    pub(crate) indexes: Vec<RemoteIndex>,
    pub(crate) sequences: Vec<RemoteSequence>,
}

#[derive(Clone, Debug)]
pub(crate) struct RemoteColumn {
    pub(crate) attnum: i16,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) typmod: i32,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    /// `a`, `d` or empty.
    pub(crate) identity: String,
    pub(crate) generated: bool,
    /// What rows from before the column was added hold, if that is not NULL and they were not rewritten.
    pub(crate) missing: Option<String>,
    /// Where it is not the type's own.
    pub(crate) collation: Option<String>,
    pub(crate) comment: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct RemoteIndex {
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) unique: bool,
    /// Checked at once; a deferrable constraint is not.
    pub(crate) immediate: bool,
    pub(crate) nulls_not_distinct: bool,
    pub(crate) constraint: bool,
    pub(crate) method: String,
    pub(crate) predicate: Option<String>,
    /// Key columns, then included ones: an attnum, or 0 for an expression.
    pub(crate) attnums: Vec<i16>,
    pub(crate) key_count: usize,
    /// One per key column: bit 0 descending, bit 1 nulls first.
    pub(crate) options: Vec<i16>,
    /// The text of each key column that is an expression.
    pub(crate) expressions: Vec<Option<String>>,
    pub(crate) comment: Option<String>,
}

/// A sequence that belongs to a column.
#[derive(Clone, Debug)]
pub(crate) struct RemoteSequence {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) attnum: i16,
    pub(crate) type_oid: u32,
    pub(crate) start: i64,
    pub(crate) increment: i64,
    pub(crate) max: i64,
    pub(crate) min: i64,
    pub(crate) cache: i64,
    pub(crate) cycle: bool,
}

const TABLES: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', pg_catalog.obj_description(c.oid, 'pg_class'), c.relnatts, \
EXISTS (SELECT FROM pg_catalog.pg_publication_rel p WHERE p.prrelid = c.oid AND pg_catalog.to_jsonb(p) ->> 'prattrs' IS NOT NULL) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.oid = ANY($1) AND c.relkind IN ('r', 'p')";

const COLUMNS: &str = "\
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, a.attnotnull, \
CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, a.attidentity::text, a.attgenerated <> '', \
CASE WHEN a.attcollation <> t.typcollation THEN co.collname::text END, pg_catalog.col_description(a.attrelid, a.attnum), \
CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END \
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation \
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2";

const INDEXES: &str = "\
SELECT i.indrelid, c.relname::text, i.indisprimary, i.indisunique, i.indimmediate, \
coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false), \
EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype = 'u'), am.amname::text, \
pg_catalog.pg_get_expr(i.indpred, i.indrelid), i.indkey::int2[], i.indnkeyatts::int4, i.indoption::int2[], \
ARRAY(SELECT CASE WHEN i.indkey[g - 1] = 0 THEN pg_catalog.pg_get_indexdef(i.indexrelid, g, false) END \
FROM pg_catalog.generate_series(1, i.indnkeyatts::int4) g ORDER BY g), pg_catalog.obj_description(i.indexrelid, 'pg_class') \
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am am ON am.oid = c.relam \
WHERE i.indrelid = ANY($1) AND i.indisvalid ORDER BY i.indrelid, i.indexrelid";

const SEQUENCES: &str = "\
SELECT d.refobjid, n.nspname::text, c.relname::text, d.refobjsubid::int2, s.seqtypid, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, \
s.seqcache, s.seqcycle \
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S' \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid \
WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass \
AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND d.refobjid = ANY($1) ORDER BY 1, 4";

/// Reads these tables, in the order of `oids`. Those that do not exist (any more) are left out.
pub(crate) async fn read_tables(client: &Client, oids: &[u32]) -> Result<Vec<RemoteTable>> {
    let failed = |e| Error::from_sql("read the primary's catalog", e);
    let mut tables: HashMap<u32, RemoteTable> = HashMap::new();
    for row in client.query(TABLES, &[&oids]).await.map_err(failed)? {
        let table = decode_table(&row).map_err(failed)?;
        tables.insert(table.oid, table);
    }
    for row in client.query(COLUMNS, &[&oids]).await.map_err(failed)? {
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0).map_err(failed)?) {
            table.columns.push(decode_column(&row).map_err(failed)?);
        }
    }
    for row in client.query(INDEXES, &[&oids]).await.map_err(failed)? {
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0).map_err(failed)?) {
            table.indexes.push(decode_index(&row).map_err(failed)?);
        }
    }
    for row in client.query(SEQUENCES, &[&oids]).await.map_err(failed)? {
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0).map_err(failed)?) {
            table.sequences.push(decode_sequence(&row).map_err(failed)?);
        }
    }
    Ok(oids.iter().filter_map(|oid| tables.remove(oid)).collect())
}

/// How many rows are looked at for their age: those from before lie in front as a rule.
const OLDER_ROWS_SEEN_MAX: u32 = 10_000;

/// Whether the table holds rows that are older than a transaction. A hint: `false` also where it cannot be read.
pub(crate) async fn has_older_rows(client: &Client, table: &RemoteTable, xid: u32) -> bool {
    // Rows of a partitioned table are its partitions'.
    let only = if table.partitioned { "" } else { "ONLY " };
    let sql = format!(
        "SELECT EXISTS (SELECT FROM (SELECT xmin FROM {only}{}.{} LIMIT {OLDER_ROWS_SEEN_MAX}) t \
         WHERE pg_catalog.age(xmin) > pg_catalog.age('{xid}'::xid))",
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    );
    client.query_one(&sql, &[]).await.is_ok_and(|row| row.try_get(0).unwrap_or(false))
}

type Decoded<T> = std::result::Result<T, tokio_postgres::Error>;

fn decode_table(row: &Row) -> Decoded<RemoteTable> {
    Ok(RemoteTable {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        partitioned: row.try_get(3)?,
        comment: row.try_get(4)?,
        attribute_count: row.try_get(5)?,
        has_column_list: row.try_get(6)?,
        columns: Vec::new(),
        indexes: Vec::new(),
        sequences: Vec::new(),
    })
}

fn decode_column(row: &Row) -> Decoded<RemoteColumn> {
    Ok(RemoteColumn {
        attnum: row.try_get(1)?,
        name: row.try_get(2)?,
        type_oid: row.try_get(3)?,
        typmod: row.try_get(4)?,
        not_null: row.try_get(5)?,
        default: row.try_get(6)?,
        identity: row.try_get(7)?,
        generated: row.try_get(8)?,
        collation: row.try_get(9)?,
        comment: row.try_get(10)?,
        missing: row.try_get(11)?,
    })
}

fn decode_index(row: &Row) -> Decoded<RemoteIndex> {
    Ok(RemoteIndex {
        name: row.try_get(1)?,
        primary: row.try_get(2)?,
        unique: row.try_get(3)?,
        immediate: row.try_get(4)?,
        nulls_not_distinct: row.try_get(5)?,
        constraint: row.try_get(6)?,
        method: row.try_get(7)?,
        predicate: row.try_get(8)?,
        attnums: row.try_get(9)?,
        key_count: row.try_get::<_, i32>(10)?.try_into().unwrap_or(0),
        options: row.try_get(11)?,
        expressions: row.try_get(12)?,
        comment: row.try_get(13)?,
    })
}

fn decode_sequence(row: &Row) -> Decoded<RemoteSequence> {
    Ok(RemoteSequence {
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        attnum: row.try_get(3)?,
        type_oid: row.try_get(4)?,
        start: row.try_get(5)?,
        increment: row.try_get(6)?,
        max: row.try_get(7)?,
        min: row.try_get(8)?,
        cache: row.try_get(9)?,
        cycle: row.try_get(10)?,
    })
}
