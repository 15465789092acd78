//! Publications and the tables in them: whether their rows can be read, and their changes told.

use super::{Findings, Primary, count};
use crate::catalog::{PublishedTable, RemoteTable, read_published, read_tables, read_types};
use crate::client::quote_identifier;
use crate::config::InitialCopy;
use crate::error::Error;

/// TRUNCATE is replicated from this major version on.
const TRUNCATE_VERSION_MIN: u32 = 11;

/// How many names a finding lists.
const NAMES_SHOWN_MAX: usize = 20;

/// What of a published table decides whether it can be followed.
struct Facts {
    oid: u32,
    /// `d`efault, primary key or nothing; `i`ndex, `f`ull, `n`othing.
    identity: String,
    /// The columns that an UPDATE or DELETE is sent with; none without a usable key.
    key: Vec<String>,
    publishes_updates: bool,
    publishes_deletes: bool,
    may_select: bool,
    may_use_schema: bool,
    /// Rows would be left out of a copy.
    row_security: bool,
    row_estimate: f64,
}

const FACTS: &str = "\
SELECT c.oid, c.relreplident::text, \
ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey::int2[]) \
WHERE i.indrelid = c.oid AND i.indisvalid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END), \
p.updates, p.deletes, pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), \
pg_catalog.row_security_active(c.oid), greatest(c.reltuples, 0)::float8 \
FROM (SELECT t.schemaname, t.tablename, bool_or(p.pubupdate) AS updates, bool_or(p.pubdelete) AS deletes \
FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname WHERE t.pubname = ANY($1) GROUP BY 1, 2) p \
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename ORDER BY n.nspname, c.relname";

pub(super) async fn publications(findings: &mut Findings, primary: &Primary<'_>) {
    let names = &primary.config.publication_names;
    for name in names {
        if !publication(findings, primary, name).await {
            return;
        }
    }
    let published = match read_published(primary.client, primary.major_version, names).await {
        Ok(published) => published,
        Err(Error::Setup(what)) => return findings.error(what, "ALTER PUBLICATION one of them SET TABLE with the other's columns"),
        Err(error) => return findings.add(super::Severity::Warning, error.to_string(), None),
    };
    if published.is_empty() {
        let fix = format!("ALTER PUBLICATION {} ADD TABLE ...;", names.first().map_or_else(String::new, |name| quote_identifier(name)));
        return findings.warning("the publications hold no table: nothing is replicated", fix);
    }
    let facts = match facts(primary).await {
        Ok(facts) => facts,
        Err(error) => return findings.unanswered("the published tables' identities and rights", error),
    };
    let rows: f64 = facts.iter().map(|facts| facts.row_estimate).sum();
    findings.ok(format!("{} published, with about {rows:.0} rows", count(published.len(), "table")));
    for facts in &facts {
        if let Some(table) = published.iter().find(|table| table.oid == facts.oid) {
            rights(findings, primary, table, facts);
            identity(findings, table, facts);
        }
    }
    if primary.major_version < TRUNCATE_VERSION_MIN {
        findings.note(format!(
            "PostgreSQL {} does not replicate TRUNCATE: a table that is truncated there keeps its rows here",
            primary.major_version
        ));
    }
    columns(findings, primary, &published).await;
    unpublished(findings, primary).await;
}

/// Says whether the publication is there, and what it leaves out.
async fn publication(findings: &mut Findings, primary: &Primary<'_>, name: &str) -> bool {
    // Before version 11 TRUNCATE is not told at all, which is no choice of the publication's.
    let truncate = if primary.major_version >= TRUNCATE_VERSION_MIN { "pubtruncate" } else { "true" };
    let sql = format!("SELECT pubinsert, pubupdate, pubdelete, {truncate} FROM pg_catalog.pg_publication WHERE pubname = $1");
    let row = match primary.client.query_opt(&sql, &[&name]).await {
        Ok(Some(row)) => row,
        Ok(None) => {
            findings.error(
                format!("publication \"{name}\" does not exist in database \"{}\"", primary.config.connection.database),
                format!("CREATE PUBLICATION {} FOR ALL TABLES;", quote_identifier(name)),
            );
            return false;
        }
        Err(error) => {
            findings.unanswered("the publications", error);
            return false;
        }
    };
    let kinds = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"];
    let missing: Vec<&str> =
        kinds.into_iter().enumerate().filter(|(column, _)| !row.get::<_, bool>(*column)).map(|(_, kind)| kind).collect();
    if missing.is_empty() {
        findings.ok(format!("publication \"{name}\" is there"));
    } else {
        findings.warning(
            format!("publication \"{name}\" leaves out {}: the replica will differ", missing.join(", ")),
            format!("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');", quote_identifier(name)),
        );
    }
    true
}

async fn facts(primary: &Primary<'_>) -> Result<Vec<Facts>, tokio_postgres::Error> {
    let rows = primary.client.query(FACTS, &[&primary.config.publication_names]).await?;
    rows.iter()
        .map(|row| {
            Ok(Facts {
                oid: row.try_get(0)?,
                identity: row.try_get(1)?,
                key: row.try_get(2)?,
                publishes_updates: row.try_get(3)?,
                publishes_deletes: row.try_get(4)?,
                may_select: row.try_get(5)?,
                may_use_schema: row.try_get(6)?,
                row_security: row.try_get(7)?,
                row_estimate: row.try_get(8)?,
            })
        })
        .collect()
}

/// The initial copy reads tables with the role's own rights; the stream needs none.
fn rights(findings: &mut Findings, primary: &Primary<'_>, table: &PublishedTable, facts: &Facts) {
    if primary.config.initial_copy == InitialCopy::Never {
        return;
    }
    let name = qualified(&table.schema, &table.name);
    let role = &primary.role;
    if !facts.may_use_schema {
        findings.error(
            format!("role {role} may not use schema {}: table {name} cannot be copied", quote_identifier(&table.schema)),
            format!("GRANT USAGE ON SCHEMA {} TO {role};", quote_identifier(&table.schema)),
        );
    }
    if !facts.may_select {
        findings.error(format!("role {role} may not read table {name}: it cannot be copied"), format!("GRANT SELECT ON {name} TO {role};"));
    }
    if facts.row_security {
        findings.error(
            format!("row security hides rows of table {name} from role {role}: it cannot be copied"),
            format!("ALTER ROLE {role} BYPASSRLS;"),
        );
    }
}

/// A table without a replica identity takes no UPDATE or DELETE on the primary as soon as it is published.
fn identity(findings: &mut Findings, table: &PublishedTable, facts: &Facts) {
    let kinds = match (facts.publishes_updates, facts.publishes_deletes) {
        (true, true) => "UPDATE and DELETE",
        (true, false) => "UPDATE",
        (false, true) => "DELETE",
        (false, false) => return,
    };
    let name = qualified(&table.schema, &table.name);
    if facts.identity == "f" {
        return;
    }
    if facts.key.is_empty() {
        return findings.warning(
            format!("table {name} has no replica identity: {kinds} of it fail on the primary while it is published"),
            format!("ALTER TABLE {name} REPLICA IDENTITY FULL; or give it a primary key"),
        );
    }
    let Some(columns) = &table.columns else { return };
    let left_out: Vec<String> = facts.key.iter().filter(|key| !columns.contains(key)).map(|key| quote_identifier(key)).collect();
    if !left_out.is_empty() {
        findings.warning(
            format!(
                "the publication's column list of table {name} lacks {} of its replica identity: {kinds} of it fail on the primary",
                left_out.join(", ")
            ),
            "ALTER PUBLICATION ... SET TABLE with these columns, too",
        );
    }
}

/// Columns that arrive in another form than they have on the primary, or not at all.
async fn columns(findings: &mut Findings, primary: &Primary<'_>, published: &[PublishedTable]) {
    let oids: Vec<u32> = published.iter().map(|table| table.oid).collect();
    let tables = match read_tables(primary.client, primary.major_version, &oids).await {
        Ok(tables) => tables,
        Err(error) => return findings.add(super::Severity::Warning, error.to_string(), None),
    };
    let types = match read_types(primary.client, tables.iter().flat_map(|table| table.columns.iter().map(|column| column.type_oid))).await {
        Ok(types) => types,
        Err(error) => return findings.add(super::Severity::Warning, error.to_string(), None),
    };
    let is_sent = |table: &RemoteTable, column: &str| {
        let list = published.iter().find(|p| p.oid == table.oid).and_then(|p| p.columns.as_ref());
        list.is_none_or(|list| list.iter().any(|name| name == column))
    };
    let mut generated = Vec::new();
    let mut virtual_ones = Vec::new();
    let mut opaque = Vec::new();
    for table in &tables {
        for column in table.columns.iter().filter(|column| is_sent(table, &column.name)) {
            let name = format!("{}.{}", qualified(&table.schema, &table.name), quote_identifier(&column.name));
            if column.generated && column.expression.is_none() {
                virtual_ones.push(name);
            } else if column.generated {
                generated.push(name);
            } else if let Some(type_name) = types.kept_as_text(column.type_oid) {
                opaque.push(format!("{name} ({type_name})"));
            }
        }
    }
    if !generated.is_empty() {
        findings.note(format!("generated columns are not sent, and are computed here: {}", list(&generated)));
    }
    if !virtual_ones.is_empty() {
        findings.note(format!("virtual generated columns are not sent and not here: {}", list(&virtual_ones)));
    }
    if !opaque.is_empty() {
        findings.note(format!("types that are kept as their exact text, without functions of their own: {}", list(&opaque)));
    }
}

/// Tables that somebody may expect on the replica.
async fn unpublished(findings: &mut Findings, primary: &Primary<'_>) {
    // Partitions of what is published as one, from version 13 on.
    let under_root = if primary.major_version >= 13 {
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a JOIN pg_catalog.pg_class r ON r.oid = a.relid \
         JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace JOIN pg_catalog.pg_publication_tables t ON t.schemaname = m.nspname AND t.tablename = r.relname \
         WHERE t.pubname = ANY($1))"
    } else {
        ""
    };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND NOT n.nspname LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables t WHERE t.pubname = ANY($1) AND t.schemaname = n.nspname AND t.tablename = c.relname) \
         {under_root} ORDER BY 1, 2"
    );
    match primary.client.query(&sql, &[&primary.config.publication_names]).await {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => {
            let names: Vec<String> = rows.iter().map(|row| qualified(row.get(0), row.get(1))).collect();
            findings.note(format!("not published, and so not replicated: {}", list(&names)));
        }
        Err(error) => findings.unanswered("which tables are not published", error),
    }
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..25).map(|n| format!("t{n}")).collect();
        assert!(list(&names).ends_with("t19 and 5 more"), "{}", list(&names));
        assert_eq!(list(&names[..2]), "t0, t1");
    }
}
