//! Tables as the primary's catalog describes them.
//!
//! One text of SQL makes a table's whole definition as JSON. It is used in two places, so that both say the same: in look-ups from here ([`read_tables`]), and
//! in the function that DDL capture installs on the primary, where it is evaluated inside the transaction that changed the table.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::CatalogClient;
use super::types::{RemoteType, type_json};
use crate::client::quote_identifier;
use crate::error::{Error, Result};

/// A table of the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(crate) constraints: Vec<RemoteConstraint>,
    pub(crate) sequences: Vec<RemoteSequence>,
    /// The types of its columns that are not built in, and what they are made of.
    pub(crate) types: Vec<RemoteType>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What a stored generated column is computed of; nothing for a virtual one (PostgreSQL 18).
    pub(crate) expression: Option<String>,
    /// What rows from before the column was added hold, if that is not NULL and they were not rewritten.
    pub(crate) missing: Option<String>,
    /// Where it is not the type's own.
    pub(crate) collation: Option<String>,
    pub(crate) comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteIndex {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) unique: bool,
    /// Checked at once; a deferrable constraint is not.
    pub(crate) immediate: bool,
    pub(crate) nulls_not_distinct: bool,
    pub(crate) constraint: bool,
    pub(crate) exclusion: bool,
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

/// A CHECK or a foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteConstraint {
    pub(crate) oid: u32,
    pub(crate) name: String,
    /// As PostgreSQL prints it with an empty search path.
    pub(crate) definition: String,
    /// A CHECK's condition.
    pub(crate) expression: Option<String>,
    /// The columns concerned, by number.
    pub(crate) columns: Vec<i16>,
    pub(crate) deferrable: bool,
    /// What a foreign key refers to.
    pub(crate) referenced: Option<ReferencedTable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReferencedTable {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
}

/// A sequence that belongs to a column, or that a column's default uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteSequence {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) attnum: i16,
    pub(crate) owned: bool,
    pub(crate) type_oid: u32,
    pub(crate) start: i64,
    pub(crate) increment: i64,
    pub(crate) max: i64,
    pub(crate) min: i64,
    pub(crate) cache: i64,
    pub(crate) cycle: bool,
}

/// A query for the definitions, as `jsonb`, of the tables `c` (of pg_class) that a condition chooses; numbers of oids are `int8`, which JSON writes as numbers.
pub(crate) fn definitions_sql(major_version: u32, condition: &str) -> String {
    format!(
        "SELECT pg_catalog.jsonb_build_object(\
'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname, 'partitioned', c.relkind = 'p', 'attribute_count', c.relnatts, \
'has_column_list', EXISTS (SELECT FROM pg_catalog.pg_publication_rel p WHERE p.prrelid = c.oid AND pg_catalog.to_jsonb(p) ->> 'prattrs' IS NOT NULL), \
'comment', pg_catalog.obj_description(c.oid, 'pg_class'), \
'columns', coalesce(({columns}), '[]'), 'indexes', coalesce(({indexes}), '[]'), 'constraints', coalesce(({constraints}), '[]'), \
'sequences', coalesce(({SEQUENCES}), '[]'), 'types', coalesce(({types}), '[]')) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND {condition}",
        columns = columns_sql(major_version),
        indexes = indexes_sql(major_version),
        constraints = constraints_sql(major_version),
        types = types_sql()
    )
}

/// Generated columns came with version 12, values that are not in the rows of before with 11.
fn columns_sql(major_version: u32) -> String {
    let (generated, stored) = if major_version >= 12 { ("a.attgenerated <> ''", "a.attgenerated = 's'") } else { ("false", "false") };
    let missing = if major_version >= 11 { "CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END" } else { "NULL::text" };
    format!(
        "\
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('attnum', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8, 'typmod', a.atttypmod, \
'not_null', a.attnotnull, 'default', CASE WHEN NOT ({generated}) THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, \
'identity', a.attidentity::text, 'generated', {generated}, \
'expression', CASE WHEN {stored} THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, \
'missing', {missing}, \
'collation', CASE WHEN a.attcollation <> t.typcollation THEN co.collname::text END, \
'comment', pg_catalog.col_description(a.attrelid, a.attnum)) ORDER BY a.attnum) \
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation \
WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    )
}

/// Before version 11, every column of an index is a key.
fn indexes_sql(major_version: u32) -> String {
    let key_count = if major_version >= 11 { "i.indnkeyatts" } else { "i.indnatts" };
    format!(
        "\
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', i.indexrelid::int8, 'name', ic.relname, 'primary', i.indisprimary, 'unique', i.indisunique, \
'immediate', i.indimmediate, 'nulls_not_distinct', coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false), \
'constraint', EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype = 'u'), \
'exclusion', i.indisexclusion, 'method', am.amname, 'predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid), \
'attnums', pg_catalog.to_jsonb(i.indkey::int2[]), 'key_count', {key_count}, 'options', pg_catalog.to_jsonb(i.indoption::int2[]), \
'expressions', pg_catalog.to_jsonb(ARRAY(SELECT CASE WHEN i.indkey[g - 1] = 0 THEN pg_catalog.pg_get_indexdef(i.indexrelid, g, false) END \
FROM pg_catalog.generate_series(1, {key_count}::int4) g ORDER BY g)), \
'comment', pg_catalog.obj_description(i.indexrelid, 'pg_class')) ORDER BY i.indexrelid) \
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid JOIN pg_catalog.pg_am am ON am.oid = ic.relam \
WHERE i.indrelid = c.oid AND i.indisvalid"
    )
}

/// A foreign key to a partitioned table (from version 12 on) has rows of its own for the partitions there, which are no constraints of their own.
fn constraints_sql(major_version: u32) -> String {
    let own = if major_version >= 11 {
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint up WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid)"
    } else {
        ""
    };
    format!(
        "\
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', k.oid::int8, 'name', k.conname, 'definition', pg_catalog.pg_get_constraintdef(k.oid), \
'expression', CASE WHEN k.contype = 'c' THEN pg_catalog.pg_get_expr(k.conbin, k.conrelid) END, \
'columns', coalesce(pg_catalog.to_jsonb(k.conkey), '[]'), 'deferrable', k.condeferrable, \
'referenced', CASE WHEN k.contype = 'f' THEN (SELECT pg_catalog.jsonb_build_object('schema', rn.nspname, 'name', r.relname, \
'columns', (SELECT pg_catalog.jsonb_agg(ra.attname ORDER BY x.at) FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY x(attnum, at) \
JOIN pg_catalog.pg_attribute ra ON ra.attrelid = r.oid AND ra.attnum = x.attnum)) \
FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace WHERE r.oid = k.confrelid) END) ORDER BY k.oid) \
FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f') {own}"
    )
}

const SEQUENCES: &str = "\
SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', sn.nspname, 'name', sc.relname, 'attnum', u.attnum, 'owned', u.owned, \
'type_oid', s.seqtypid::int8, 'start', s.seqstart, 'increment', s.seqincrement, 'max', s.seqmax, 'min', s.seqmin, 'cache', s.seqcache, \
'cycle', s.seqcycle) ORDER BY u.attnum, s.seqrelid) \
FROM (SELECT oid, attnum, pg_catalog.bool_or(owned) AS owned FROM (\
SELECT d.objid AS oid, d.refobjsubid AS attnum, true AS owned FROM pg_catalog.pg_depend d \
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND d.refobjid = c.oid \
UNION ALL SELECT d.refobjid, ad.adnum, false FROM pg_catalog.pg_attrdef ad JOIN pg_catalog.pg_depend d \
ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
WHERE ad.adrelid = c.oid) v GROUP BY 1, 2) u \
JOIN pg_catalog.pg_class sc ON sc.oid = u.oid AND sc.relkind = 'S' \
JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace JOIN pg_catalog.pg_sequence s ON s.seqrelid = sc.oid";

/// The user-made types behind the columns of `c`.
fn types_sql() -> String {
    format!(
        "WITH RECURSIVE used(oid) AS (SELECT a.atttypid FROM pg_catalog.pg_attribute a \
WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384 \
UNION SELECT x.oid FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid CROSS JOIN LATERAL (\
SELECT t.typbasetype UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' \
UNION ALL SELECT f.atttypid FROM pg_catalog.pg_attribute f WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped\
) x(oid) WHERE x.oid >= 16384) \
SELECT pg_catalog.jsonb_agg({} ORDER BY t.oid) FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid \
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace",
        type_json()
    )
}

/// Reads these tables, in the order of `oids`. Those that do not exist (any more) are left out.
pub(crate) async fn read_tables(client: &Client, major_version: u32, oids: &[u32]) -> Result<Vec<RemoteTable>> {
    let failed = |e| Error::from_sql("read the primary's catalog", e);
    let sql = format!("SELECT d::text FROM ({}) t(d)", definitions_sql(major_version, "c.oid = ANY($1)"));
    let mut tables = std::collections::HashMap::new();
    for row in client.query(&sql, &[&oids]).await.map_err(failed)? {
        let text: String = row.try_get(0).map_err(failed)?;
        let table: RemoteTable =
            serde_json::from_str(&text).map_err(|e| Error::Protocol(format!("a table's definition that is none: {e}")))?;
        tables.insert(table.oid, table);
    }
    Ok(oids.iter().filter_map(|oid| tables.remove(oid)).collect())
}

/// How many rows are looked at for their age: those from before lie in front as a rule.
const OLDER_ROWS_SEEN_MAX: u32 = 10_000;

/// Whether the table may hold rows that are older than a transaction, which is the first that the stream has of it. A hint: `false` also where we may not read it.
///
/// A row that another transaction has written since may have been there before. Not so where a publication of ours is for all tables: then the stream had the table from the
/// beginning. A row that the transaction itself has written may have been there before, too: who sees it updated knows more.
/// # Errors
/// What passes: without an answer the table would be taken for a new one, and its rows be missing.
pub(crate) async fn has_older_rows(primary: &CatalogClient, table: &RemoteTable, xid: u32, publications: &[String]) -> Result<bool> {
    let ours = "p.pubname = ANY($2)";
    // A schema may be published, too.
    let of_schema = if primary.major_version >= 15 {
        format!(
            " OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n JOIN pg_catalog.pg_publication p ON p.oid = n.pnpubid \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid WHERE c.oid = $1 AND {ours})"
        )
    } else {
        String::new()
    };
    // Rows of a partitioned table are its partitions'.
    let only = if table.partitioned { "" } else { "ONLY " };
    let sql = format!(
        "SELECT EXISTS (SELECT FROM (SELECT xmin FROM {only}{}.{} LIMIT {OLDER_ROWS_SEEN_MAX}) t \
         WHERE pg_catalog.age(xmin) > pg_catalog.age('{xid}'::xid) OR xmin <> '{xid}'::xid AND (EXISTS \
         (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1 AND {ours}){of_schema}) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE {ours} AND p.puballtables))",
        quote_identifier(&table.schema),
        quote_identifier(&table.name)
    );
    let found = primary.client.query_one(&sql, &[&table.oid, &publications]).await.and_then(|row| row.try_get(0));
    match found.map_err(|e| Error::from_sql("look for rows on the primary", e)) {
        Err(error) if !error.is_passing() => {
            let name = format!("{}.{}", table.schema, table.name);
            tracing::warn!(table = %name, %error, "whether the table has rows from before it was published is not known; they would be missing here");
            Ok(false)
        }
        found => found,
    }
}
