//! What SQL shows of subscriptions: `pg_subscription` and its like, `strand_replication_conflicts`, `strand_replication_status`.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use strandline_replication::CreateTables;
use strandline_replication::client::{Streaming, quote_identifier};
use strandline_replication::subscription::{PublishedName, SubscriptionRecords, TableRecord};
use strandline_replication::{Conflict, ConflictKind, CopiedTable, SlotView, Snapshot, State, Status};
use strandline_sql::session::RowsFor;
use strandline_sql::system::pg_catalog::database_oid;
use strandline_storage::value::{DataType, TextSettings, Value};
use strandline_storage::{Lsn, Oid, Timestamp};

use super::definition::Definition;
use super::plan::{Desired, Pending, Plan};
use super::{CONFIGURED_OID, Counts, Subscriptions};

/// The role that owns what initdb makes.
const BOOTSTRAP_ROLE: Oid = 10;

/// A subscription as it is shown, wherever it is defined.
pub(super) struct Shown {
    pub(super) oid: Oid,
    definition: Definition,
    enabled: bool,
    skip: Option<Lsn>,
    tables: Vec<TableRecord>,
    /// Of its replicator; `None`: it has none.
    status: Option<Arc<Status>>,
    counts: Counts,
    reset_time: Option<Timestamp>,
    records: SubscriptionRecords,
}

impl Shown {
    fn is_running(&self) -> Option<Snapshot> {
        self.status.as_ref().map(|status| status.snapshot()).filter(|s| !matches!(s.state, State::Failed | State::Stopped))
    }
}

impl Subscriptions {
    /// Rows of a catalog by its name; none for other tables.
    pub fn rows(&self, table: &str, viewer: &RowsFor) -> Vec<Json> {
        let shown = || self.shown(super::planned(viewer.subscriptions.as_ref()));
        let row: fn(&Shown, &RowsFor) -> Json = match table {
            "pg_subscription" => subscription_row,
            "pg_stat_subscription" => stat_row,
            "pg_stat_subscription_stats" => stats_row,
            "pg_replication_origin" => |shown, _| json!({ "roident": shown.oid, "roname": format!("pg_{}", shown.oid) }),
            "pg_replication_origin_status" => origin_row,
            "strand_replication_status" => status_row,
            "pg_description" => return shown().iter().filter_map(|shown| comment_row(shown, viewer)).collect(),
            "pg_subscription_rel" => return shown().iter().flat_map(|shown| self.table_rows(shown, viewer)).collect(),
            "pg_stat_progress_copy" => return shown().iter().flat_map(copy_rows).collect(),
            "strand_replication_conflicts" => return shown().iter().flat_map(conflict_rows).collect(),
            _ => return Vec::new(),
        };
        shown().iter().map(|shown| row(shown, viewer)).collect()
    }

    /// With what a transaction has planned, for that transaction.
    pub(super) fn shown(&self, plan: Option<&Plan>) -> Vec<Shown> {
        let mut all = Vec::new();
        if let (Some(configured), Some(records)) = (&self.configured, self.configured_records()) {
            let config = &configured.config;
            let places = config.connection.places.all();
            let definition = Definition {
                name: config.slot_name.clone(),
                owner: BOOTSTRAP_ROLE,
                database: config.replica_database.clone(),
                branch: config.branch.clone(),
                // Without the password, which is the file's affair.
                conninfo: format!(
                    "host={} port={} user={} dbname={}",
                    places.iter().map(|place| place.host.as_str()).collect::<Vec<_>>().join(","),
                    places.iter().map(|place| place.port.to_string()).collect::<Vec<_>>().join(","),
                    config.connection.user,
                    config.connection.database
                ),
                slot_name: Some(config.slot_name.clone()),
                publications: config.publication_names.clone(),
                streaming: config.streaming,
                two_phase: config.two_phase,
                disable_on_error: true,
                synchronous_commit: "off".into(),
                origin: "any".into(),
                create_tables: config.create_tables == CreateTables::Auto,
                binary: false,
                comment: None,
            };
            all.push((CONFIGURED_OID, definition, Pending::default(), records));
        }
        let defined = Definition::list(&self.store).unwrap_or_else(|error| {
            tracing::error!(%error, "subscriptions cannot be shown");
            Vec::new()
        });
        let defined = plan.cloned().unwrap_or_default().applied_to(defined);
        let with_records = |(oid, Desired { definition, pending })| (oid, definition, pending, Definition::records(&self.store, oid));
        all.extend(defined.into_iter().map(with_records));
        let workers = self.workers.lock();
        let with_state = |(oid, definition, pending, records): (Oid, Definition, Pending, SubscriptionRecords)| {
            let worker = workers.get(&oid);
            let status = worker.and_then(|worker| worker.handle.as_ref()).map(|handle| Arc::clone(handle.status()));
            let snapshot = status.as_ref().map(|status| status.snapshot());
            let has_failed = snapshot.as_ref().is_some_and(|s| s.state == State::Failed);
            let mut tables = if oid == CONFIGURED_OID { records.replicated_tables() } else { records.tables() };
            if let Some((planned, copy_data)) = pending.tables {
                let state = if copy_data { 'i' } else { 'r' };
                let record = |table: PublishedName| TableRecord { schema: table.schema, name: table.name, state, lsn: None, stopped: None };
                tables = Ok(planned.into_iter().map(record).collect());
            }
            Shown {
                oid,
                enabled: pending.enabled.unwrap_or_else(|| records.is_enabled()) && !(oid == CONFIGURED_OID && has_failed),
                skip: pending.skip.unwrap_or_else(|| records.skip().ok().flatten()),
                tables: tables.unwrap_or_default(),
                records,
                definition,
                status,
                counts: worker.map(|worker| worker.counted().less(&worker.forgotten)).unwrap_or_default(),
                reset_time: worker.and_then(|worker| worker.reset_time),
            }
        };
        all.into_iter().map(with_state).collect()
    }

    /// Those of the viewer's database, as in PostgreSQL.
    fn table_rows(&self, shown: &Shown, viewer: &RowsFor) -> Vec<Json> {
        let definition = &shown.definition;
        if definition.database != viewer.database {
            return Vec::new();
        }
        let Ok(branch) = self.store.branch(&definition.database, &definition.branch) else { return Vec::new() };
        let state = branch.state();
        let row = |table: &TableRecord| {
            let find = |root: &strandline_storage::Root| root.catalog().table_by_name(&table.schema, &table.name).map(|local| local.oid);
            // One that is to be created has no oid here yet.
            let oid = find(&state.working).or_else(|| find(&state.head_root)).unwrap_or(0);
            json!({
                "srsubid": shown.oid,
                "srrelid": oid,
                "srsubstate": table.state.to_string(),
                "srsublsn": table.lsn.map(|lsn| lsn.to_string()),
            })
        };
        shown.tables.iter().map(row).collect()
    }
}

fn subscription_row(shown: &Shown, viewer: &RowsFor) -> Json {
    let definition = &shown.definition;
    // One that is stopped had been synchronized.
    let is_synced = shown.tables.iter().all(|table| matches!(table.state, 'r' | 'x'));
    json!({
        "oid": shown.oid,
        "subdbid": database_oid(&definition.database),
        "subskiplsn": shown.skip.unwrap_or_default().to_string(),
        "subname": definition.name,
        "subowner": definition.owner,
        "subenabled": shown.enabled,
        "subbinary": definition.binary,
        "substream": match definition.streaming {
            Streaming::Off => "f",
            Streaming::On => "t",
            Streaming::Parallel => "p",
        },
        "subtwophasestate": match (definition.two_phase, is_synced) {
            (false, _) => "d",
            (true, false) => "p",
            (true, true) => "e",
        },
        "subdisableonerr": definition.disable_on_error,
        // It may hold a password.
        "subconninfo": if viewer.superuser { json!(definition.conninfo) } else { Json::Null },
        "subslotname": definition.slot_name,
        "subsynccommit": definition.synchronous_commit,
        "subpublications": array_text(&definition.publications),
    })
}

/// As in PostgreSQL, a comment is of the database that the subscription is in.
fn comment_row(shown: &Shown, viewer: &RowsFor) -> Option<Json> {
    let definition = &shown.definition;
    let comment = definition.comment.as_ref().filter(|_| definition.database == viewer.database)?;
    Some(json!({ "objoid": shown.oid, "description": comment }))
}

fn stat_row(shown: &Shown, _: &RowsFor) -> Json {
    let running = shown.is_running();
    let snapshot = shown.status.as_ref().map(|status| status.snapshot());
    let of = |value: fn(&Snapshot) -> Json| snapshot.as_ref().map_or(Json::Null, value);
    json!({
        "subid": shown.oid,
        "subname": shown.definition.name,
        "pid": running.map(|_| std::process::id()),
        "received_lsn": of(|s| json!(s.received.to_string())),
        "last_msg_receipt_time": of(|s| time(s.last_message_received)),
        "latest_end_lsn": of(|s| json!(s.durable.to_string())),
        "latest_end_time": of(|s| time(s.last_status_sent)),
        "state": snapshot.as_ref().map_or("disabled", |s| s.state.as_str()),
        "durable_lsn": of(|s| json!(s.durable.to_string())),
        "last_error": of(|s| json!(s.last_error.as_ref().map(|e| e.1.as_str()))),
        "last_error_time": of(|s| time(s.last_error.as_ref().map(|e| e.0))),
    })
}

fn stats_row(shown: &Shown, _: &RowsFor) -> Json {
    let conflicts = |kind: ConflictKind| -> u64 {
        ConflictKind::ALL.iter().zip(shown.counts.conflicts).filter(|(k, _)| **k == kind).map(|(_, count)| count).sum()
    };
    json!({
        "subid": shown.oid,
        "subname": shown.definition.name,
        "apply_error_count": shown.counts.apply_errors,
        "sync_error_count": shown.counts.copy_errors,
        "stats_reset": time(shown.reset_time),
        "confl_insert_exists": conflicts(ConflictKind::InsertExists),
        "confl_update_exists": conflicts(ConflictKind::UpdateExists),
        "confl_update_missing": conflicts(ConflictKind::UpdateMissing),
        "confl_delete_missing": conflicts(ConflictKind::DeleteMissing),
    })
}

/// Where replication is, at a glance: `strand_replication_status`.
fn status_row(shown: &Shown, _: &RowsFor) -> Json {
    let definition = &shown.definition;
    let snapshot = shown.status.as_ref().map(|status| status.snapshot());
    let of = |value: fn(&Snapshot) -> Json| snapshot.as_ref().map_or(Json::Null, value);
    let slot = |value: fn(&SlotView) -> Json| snapshot.as_ref().and_then(|s| s.primary.as_ref()?.slot.as_ref()).map_or(Json::Null, value);
    let states: serde_json::Map<String, Json> =
        shown.tables.iter().map(|table| (format!("{}.{}", table.schema, table.name), json!(table.state.to_string()))).collect();
    let fix = fix(definition);
    let stopped: serde_json::Map<String, Json> = shown
        .tables
        .iter()
        .filter_map(|table| {
            let since = table.lsn.map(|lsn| lsn.to_string());
            let told = json!({ "since": since, "reason": table.stopped.as_ref()?, "fix": fix });
            Some((format!("{}.{}", table.schema, table.name), told))
        })
        .collect();
    json!({
        "subscription": definition.name,
        "database": definition.database,
        "branch": definition.branch,
        "state": snapshot.as_ref().map_or("disabled", |s| s.state.as_str()),
        "slot_name": definition.slot_name,
        "received_lsn": of(|s| json!(s.received.to_string())),
        "applied_lsn": of(|s| json!(s.applied.to_string())),
        "durable_lsn": of(|s| json!(s.durable.to_string())),
        "last_commit_time": of(|s| time(s.last_commit_time)),
        "transactions": of(|s| json!(s.transaction_count)),
        "primary_lsn": of(|s| json!(s.primary.as_ref().map(|view| view.end.to_string()))),
        "primary_time": of(|s| time(s.primary.as_ref().map(|view| view.time))),
        "lag_bytes": of(|s| json!(s.lag().map(|lag| lag.bytes))),
        "lag_seconds": of(|s| json!(s.lag().map(|lag| lag.time.as_secs_f64()))),
        "slot_wal_bytes": slot(|slot| json!(slot.retained)),
        "slot_wal_status": slot(|slot| json!(slot.wal_status)),
        "slot_safe_wal_size": slot(|slot| json!(slot.safe_size)),
        "tables": Json::Object(states).to_string(),
        "stopped_tables": if stopped.is_empty() { Json::Null } else { json!(Json::Object(stopped).to_string()) },
        "errors": shown.counts.apply_errors + shown.counts.copy_errors,
        "last_error": of(|s| json!(s.last_error.as_ref().map(|e| e.1.as_str()))),
        "last_error_time": of(|s| time(s.last_error.as_ref().map(|e| e.0))),
        "next_retry": of(|s| time(s.next_retry)),
    })
}

/// What brings a stopped table back.
fn fix(definition: &Definition) -> String {
    let refresh = format!("ALTER SUBSCRIPTION {} REFRESH PUBLICATION", quote_identifier(&definition.name));
    if definition.create_tables { refresh } else { format!("-- change the table here as on the primary and commit that, then\n{refresh}") }
}

/// There is no log of ours with places that one could name, so `local_lsn` stays empty.
fn origin_row(shown: &Shown, _: &RowsFor) -> Json {
    let applied = shown.status.as_ref().map(|status| status.snapshot().applied);
    let stored = || shown.records.position(&shown.definition.database, &shown.definition.branch).ok().flatten();
    let applied = applied.or_else(stored);
    json!({
        "local_id": shown.oid,
        "external_id": format!("pg_{}", shown.oid),
        "remote_lsn": applied.unwrap_or_default().to_string(),
    })
}

/// One for each table that is being copied. As for PostgreSQL's own table synchronisation, the type is that of rows from a connection, whose size is not known.
fn copy_rows(shown: &Shown) -> Vec<Json> {
    let database = &shown.definition.database;
    let row = |copied: CopiedTable| {
        json!({
            "pid": std::process::id(),
            "datid": database_oid(database),
            "datname": database,
            "relid": copied.table,
            "command": "COPY FROM",
            "type": "CALLBACK",
            "bytes_processed": copied.bytes,
            "bytes_total": 0,
            "tuples_processed": copied.rows,
            "tuples_excluded": 0,
        })
    };
    shown.status.iter().flat_map(|status| status.copied_tables()).map(row).collect()
}

fn conflict_rows(shown: &Shown) -> Vec<Json> {
    // A row's columns keep their order in the text of a JSON object only if it is written so.
    let row_text = |row: &[(String, Option<String>)]| {
        let fields: Vec<String> = row.iter().map(|(name, value)| format!("{}: {}", json!(name), json!(value))).collect();
        Json::String(format!("{{{}}}", fields.join(", ")))
    };
    let row = |conflict: &Conflict| {
        json!({
            "subscription": shown.definition.name,
            "time": time(Some(conflict.time)),
            "conflict": conflict.kind.as_str(),
            "resolution": conflict.resolution.as_str(),
            "table_name": conflict.table,
            "row_key": conflict.key,
            "source_lsn": conflict.lsn.to_string(),
            "source_xid": conflict.xid,
            "our_row": conflict.local.as_deref().map(row_text),
            "their_row": conflict.remote.as_deref().map(row_text),
        })
    };
    shown.status.iter().flat_map(|status| status.conflicts()).map(|conflict| row(&conflict)).collect()
}

/// A moment as a timestamptz's text.
fn time(time: Option<Timestamp>) -> Json {
    let (Some(time), Some(data_type)) = (time, DataType::by_name("timestamptz")) else { return Json::Null };
    let mut text = Vec::new();
    data_type.format(&Value::Int8(time.0), &TextSettings::default(), &mut text);
    String::from_utf8(text).map_or(Json::Null, Json::String)
}

/// The text of a text[] value, quoted only where it must be.
fn array_text(items: &[String]) -> String {
    let is_plain = |item: &str| {
        !item.is_empty()
            && !item.eq_ignore_ascii_case("null")
            && !item.contains(|c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\\' | '{' | '}' | ','))
    };
    let quote = |item: &String| {
        if is_plain(item) { item.clone() } else { format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")) }
    };
    format!("{{{}}}", items.iter().map(quote).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_written_as_postgresql_writes_them() {
        let text = |items: &[&str]| array_text(&items.iter().map(|i| i.to_string()).collect::<Vec<_>>());
        assert_eq!(text(&["p", "nopub"]), "{p,nopub}");
        assert_eq!(text(&["a b", "", "NULL", "x\"y\\", "{,}"]), r#"{"a b","","NULL","x\"y\\","{,}"}"#);
    }
}
