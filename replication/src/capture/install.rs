//! What DDL capture installs on the primary, and how it is removed.
//!
//! Everything is in the schema `strandline`, owned by the superuser who installs it. The functions pin their search path, run no text of users, and turn every
//! error into a warning: a command of the primary never fails because of them. They do nothing but read catalogs and send messages.

use tokio_postgres::Client;

use crate::catalog::{definitions_sql, type_json};
use crate::client::quote_identifier;

/// Logical messages are in the stream from here on.
pub(crate) const MAJOR_VERSION_MIN: u32 = 14;

/// From here on a publication can have all tables of a schema.
const SCHEMAS_PUBLISHED_MIN: u32 = 15;

/// Statements are sent no longer than this, in characters; what is longer helps nobody.
const STATEMENT_SIZE_MAX: usize = 65536;

/// How capture stands on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    /// Not all of it is there, or a trigger is disabled.
    Partial,
    /// We may not read the key.
    Unreadable,
    Installed,
}

/// Looks how capture stands.
pub(crate) async fn read_state(client: &Client) -> Result<State, tokio_postgres::Error> {
    const SQL: &str = "SELECT (SELECT count(*) FROM pg_catalog.pg_event_trigger WHERE evtname IN ('strandline_ddl_command_end', 'strandline_sql_drop'))::int4, \
        (SELECT count(*) FROM pg_catalog.pg_event_trigger WHERE evtname IN ('strandline_ddl_command_end', 'strandline_sql_drop') AND evtenabled = 'A')::int4, \
        coalesce((SELECT pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = 'strandline' AND c.relname = 'ddl_key' AND c.relkind = 'm' AND c.relispopulated), false)";
    let row = client.query_one(SQL, &[]).await?;
    let (count, enabled, readable): (i32, i32, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(match (count, enabled, readable) {
        (0, ..) => State::Absent,
        (2, 2, true) => State::Installed,
        (2, 2, false) => State::Unreadable,
        _ => State::Partial,
    })
}

/// What lets a role read the key.
pub(crate) fn grant_sql(role: &str) -> String {
    let role = quote_identifier(role);
    format!("GRANT USAGE ON SCHEMA strandline TO {role};\nGRANT SELECT ON strandline.ddl_key TO {role};\n")
}

/// What takes it all away.
pub(crate) fn remove_sql() -> &'static str {
    "DROP EVENT TRIGGER IF EXISTS strandline_ddl_command_end;
DROP EVENT TRIGGER IF EXISTS strandline_sql_drop;
DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'strandline') THEN
    DROP FUNCTION IF EXISTS strandline.on_ddl_command_end(), strandline.on_sql_drop(), strandline.emit(jsonb), strandline.published_table(oid);
    DROP MATERIALIZED VIEW IF EXISTS strandline.ddl_key;
    DROP TABLE IF EXISTS strandline.ddl_mark;
    DROP SCHEMA strandline;
  END IF;
END
$do$;
"
}

/// What installs it, or brings an older version up to date (which keeps the key). To be run in one transaction by a superuser.
pub(crate) fn install_sql(major_version: u32) -> String {
    let definition = definitions_sql(major_version, "c.oid = $1");
    let by_schema = if major_version >= SCHEMAS_PUBLISHED_MIN {
        "OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace ps WHERE ps.pnpubid = p.oid AND ps.pnnspid = ac.relnamespace)"
    } else {
        ""
    };
    let random = ["pg_catalog.uuid_send(pg_catalog.gen_random_uuid())"; 4].join(" || ");
    let type_json = type_json();
    format!(
        r#"DO $do$
BEGIN
  IF pg_catalog.current_setting('is_superuser') <> 'on' THEN
    RAISE EXCEPTION 'DDL capture can only be installed by a superuser';
  END IF;
  -- What somebody else put there beforehand could be made to run, or to read the key, as its owner likes.
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'strandline' AND NOT r.rolsuper)
    OR EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
      JOIN pg_catalog.pg_roles r ON r.oid = c.relowner WHERE n.nspname = 'strandline' AND NOT r.rolsuper)
    OR EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_proc f ON f.pronamespace = n.oid
      JOIN pg_catalog.pg_roles r ON r.oid = f.proowner WHERE n.nspname = 'strandline' AND NOT r.rolsuper) THEN
    RAISE EXCEPTION 'schema "strandline" has objects of a role that is no superuser';
  END IF;
END
$do$;
DROP EVENT TRIGGER IF EXISTS strandline_ddl_command_end;
DROP EVENT TRIGGER IF EXISTS strandline_sql_drop;
CREATE SCHEMA IF NOT EXISTS strandline;
REVOKE ALL ON SCHEMA strandline FROM PUBLIC;
COMMENT ON SCHEMA strandline IS 'DDL capture for the replica Strandline';

-- A materialized view is never published and never dumped; REFRESH makes a new key.
CREATE MATERIALIZED VIEW IF NOT EXISTS strandline.ddl_key AS SELECT {random} AS inner_key, {random} AS outer_key;
REVOKE ALL ON strandline.ddl_key FROM PUBLIC;

-- Tells the id of the subtransaction under way; unlogged, so never published, and always empty.
CREATE UNLOGGED TABLE IF NOT EXISTS strandline.ddl_mark ();
REVOKE ALL ON strandline.ddl_mark FROM PUBLIC;

CREATE OR REPLACE FUNCTION strandline.published_table(oid) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
SELECT pg_catalog.jsonb_build_object('table', ({definition}), 'publications', pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', p.pubname,
  'columns', (SELECT pg_catalog.to_jsonb(r) -> 'prattrs' FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
  'generated', coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') IN ('s', 'true'))))
FROM pg_catalog.pg_class c CROSS JOIN pg_catalog.pg_publication p CROSS JOIN LATERAL (
  SELECT pg_catalog.bool_or(a.relid = c.oid AND (p.puballtables OR m.listed)) AS own,
    pg_catalog.bool_or(a.relid <> c.oid AND (p.puballtables OR m.listed)) AS above
  FROM (SELECT c.oid AS relid UNION SELECT relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid)) a
  JOIN pg_catalog.pg_class ac ON ac.oid = a.relid CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM pg_catalog.pg_publication_rel pr WHERE pr.prpubid = p.oid AND pr.prrelid = a.relid) {by_schema} AS listed) m) of
WHERE c.oid = $1 AND CASE c.relkind WHEN 'p' THEN p.pubviaroot AND of.own AND NOT of.above
  ELSE (of.own OR of.above) AND NOT (p.pubviaroot AND of.above) END
HAVING count(*) > 0
$fn$;

CREATE OR REPLACE FUNCTION strandline.emit(content jsonb) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
  subtransaction xid;
  place tid;
  body bytea;
  code text;
BEGIN
  INSERT INTO strandline.ddl_mark DEFAULT VALUES RETURNING xmin, ctid INTO subtransaction, place;
  DELETE FROM strandline.ddl_mark WHERE ctid = place;
  body := convert_to(pg_current_xact_id()::text || ' ' || subtransaction::text || ' ' || content::text, 'UTF8');
  SELECT encode(sha256(k.outer_key || sha256(k.inner_key || body)), 'hex') INTO STRICT code FROM strandline.ddl_key k;
  PERFORM pg_logical_emit_message(true, 'strandline_ddl', convert_to(code || ' ', 'UTF8') || body);
  -- A message is decoded as if it lay at the end of its record, which is where the next record begins. A row of the surrounding transaction that came
  -- there would be decoded first, since this block is a subtransaction; so nothing but an empty message comes there.
  PERFORM pg_logical_emit_message(true, 'strandline_ddl_end', '');
END
$fn$;

CREATE OR REPLACE FUNCTION strandline.on_ddl_command_end() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
  item jsonb;
  statement text;
BEGIN
  IF tg_tag = 'ALTER TABLE' AND current_query() !~* 'password' THEN
    statement := left(current_query(), {STATEMENT_SIZE_MAX});
  END IF;
  FOR item IN
    SELECT {type_json} FROM (SELECT DISTINCT classid, objid FROM pg_event_trigger_ddl_commands()) command
    JOIN pg_type t ON (command.classid = 'pg_catalog.pg_type'::regclass AND t.oid = command.objid)
      OR (command.classid = 'pg_catalog.pg_class'::regclass AND t.typrelid = command.objid AND t.typtype = 'c'
        AND EXISTS (SELECT FROM pg_class k WHERE k.oid = t.typrelid AND k.relkind = 'c'))
    JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('c', 'd', 'e')
  LOOP
    PERFORM strandline.emit(jsonb_build_object('tag', tg_tag, 'type', item));
  END LOOP;
  FOR item IN
    WITH RECURSIVE command AS (SELECT classid, objid FROM pg_event_trigger_ddl_commands()),
    concerned AS (
      SELECT objid AS oid FROM command WHERE classid = 'pg_catalog.pg_class'::regclass
      UNION SELECT i.indrelid FROM command c JOIN pg_index i ON i.indexrelid = c.objid WHERE c.classid = 'pg_catalog.pg_class'::regclass
      UNION SELECT k.conrelid FROM command c JOIN pg_constraint k ON k.oid = c.objid WHERE c.classid = 'pg_catalog.pg_constraint'::regclass
      UNION SELECT d.refobjid FROM command c JOIN pg_depend d ON d.objid = c.objid AND d.classid = c.classid
        WHERE c.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = c.classid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
      UNION SELECT a.attrelid FROM command c JOIN pg_type t ON t.oid = c.objid JOIN pg_attribute a ON a.atttypid IN (t.oid, t.typarray)
        WHERE c.classid = 'pg_catalog.pg_type'::regclass
      UNION SELECT s.oid FROM command c JOIN pg_class s ON s.relnamespace = c.objid WHERE c.classid = 'pg_catalog.pg_namespace'::regclass
    ),
    family AS (SELECT oid FROM concerned UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
    SELECT strandline.published_table(c.oid) FROM pg_class c
    WHERE c.oid IN (SELECT oid FROM family) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
      AND c.relnamespace <> 'strandline'::regnamespace ORDER BY c.oid
  LOOP
    CONTINUE WHEN item IS NULL;
    PERFORM strandline.emit(jsonb_build_object('tag', tg_tag, 'statement', statement) || item);
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'strandline could not capture %: %', tg_tag, sqlerrm;
END
$fn$;

CREATE OR REPLACE FUNCTION strandline.on_sql_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
  item jsonb;
BEGIN
  FOR item IN
    SELECT jsonb_build_object('kind', object_type, 'oid', objid::int8, 'schema', schema_name, 'name', object_name)
    FROM pg_event_trigger_dropped_objects() WHERE object_type IN ('table', 'index') AND NOT is_temporary AND schema_name <> 'strandline'
  LOOP
    PERFORM strandline.emit(jsonb_build_object('tag', tg_tag, 'dropped', item));
  END LOOP;
  -- What a cascade took from tables that stay.
  FOR item IN
    SELECT strandline.published_table(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN (SELECT address_names[1], address_names[2] FROM pg_event_trigger_dropped_objects()
      WHERE object_type IN ('table column', 'table constraint', 'default value') AND NOT is_temporary)
      AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relnamespace <> 'strandline'::regnamespace ORDER BY c.oid
  LOOP
    CONTINUE WHEN item IS NULL;
    PERFORM strandline.emit(jsonb_build_object('tag', tg_tag) || item);
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'strandline could not capture %: %', tg_tag, sqlerrm;
END
$fn$;

REVOKE ALL ON FUNCTION strandline.published_table(oid), strandline.emit(jsonb), strandline.on_ddl_command_end(), strandline.on_sql_drop() FROM PUBLIC;
CREATE EVENT TRIGGER strandline_ddl_command_end ON ddl_command_end EXECUTE FUNCTION strandline.on_ddl_command_end();
CREATE EVENT TRIGGER strandline_sql_drop ON sql_drop EXECUTE FUNCTION strandline.on_sql_drop();
-- Also where session_replication_role is replica.
ALTER EVENT TRIGGER strandline_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER strandline_sql_drop ENABLE ALWAYS;
"#
    )
}
