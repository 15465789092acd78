//! Replica mode: the replicator that the configuration asks for, and what SQL shows of it.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use strandline_replication::{
    CommitMode, Config as ReplicatorConfig, Conflict, ConflictKind, ConflictPolicies, CreateTables, InitialCopy, Resolution, Snapshot,
    State, Status,
};
use strandline_storage::Timestamp;
use strandline_storage::value::{DataType, TextSettings, Value};

use crate::config::{AutoNever, Config, DeleteMissing, InsertExists, PostgresReplication, UpdateExists, UpdateMissing};
use crate::libpq_environment;

/// The oid that `pg_subscription` gives to the configured subscription: the first of the users' range is never a table's, as a
/// database's own objects begin behind it.
const SUBSCRIPTION_OID: u32 = 16383;

/// What the replicator has to be told.
/// # Errors
/// A variable of the environment that holds what it cannot.
pub fn replicator_config(config: &Config, source: &PostgresReplication) -> anyhow::Result<ReplicatorConfig> {
    Ok(ReplicatorConfig {
        host: source.postgres_server_address.clone(),
        port: source.postgres_port,
        user: source.postgres_user.clone(),
        password: libpq_environment::password(source, &libpq_environment::variable),
        database: source.postgres_database.clone(),
        tls: libpq_environment::tls_options(source, &libpq_environment::variable).map_err(anyhow::Error::msg)?,
        slot_name: source.slot_name.clone(),
        publication_names: source.publications(),
        replica_database: source.replica_database.clone(),
        branch: source.branch.clone(),
        initial_copy: match source.initial_copy {
            AutoNever::Auto => InitialCopy::Auto,
            AutoNever::Never => InitialCopy::Never,
        },
        create_tables: match source.create_tables {
            AutoNever::Auto => CreateTables::Auto,
            AutoNever::Never => CreateTables::Never,
        },
        cfg_dir: config.cfg_dir(),
        commit_mode: match config.behavior.dolt_transaction_commit {
            Some(false) => CommitMode::WorkingSet,
            None | Some(true) => CommitMode::EachTransaction,
        },
        conflicts: ConflictPolicies {
            insert_exists: match source.conflicts.insert_exists {
                InsertExists::Error => Resolution::Error,
                InsertExists::Apply => Resolution::Apply,
                InsertExists::Keep => Resolution::Keep,
            },
            update_exists: match source.conflicts.update_exists {
                UpdateExists::Error => Resolution::Error,
                UpdateExists::Keep => Resolution::Keep,
            },
            update_missing: match source.conflicts.update_missing {
                UpdateMissing::Skip => Resolution::Skip,
                UpdateMissing::Apply => Resolution::Apply,
                UpdateMissing::Error => Resolution::Error,
            },
            delete_missing: match source.conflicts.delete_missing {
                DeleteMissing::Skip => Resolution::Skip,
                DeleteMissing::Error => Resolution::Error,
            },
        },
        streaming: source.streaming.0,
        stream_memory_max: usize::try_from(source.stream_memory.0).unwrap_or(usize::MAX),
        spool_folder: config.data_dir.join("spool").join(&source.slot_name),
        two_phase: source.two_phase.0,
        prepared_folder: config.data_dir.join("prepared").join(&source.slot_name),
    })
}

/// A moment as a timestamptz's text.
fn time(time: Option<Timestamp>) -> Json {
    let (Some(time), Some(data_type)) = (time, DataType::by_name("timestamptz")) else { return Json::Null };
    let mut text = Vec::new();
    data_type.format(&Value::Int8(time.0), &TextSettings::default(), &mut text);
    String::from_utf8(text).map_or(Json::Null, Json::String)
}

/// Rows of the catalogs that show replication, by table name; nothing for other tables.
pub fn rows(table: &str, source: &PostgresReplication, status: &Snapshot) -> Vec<Json> {
    match table {
        "pg_stat_subscription" => vec![json!({
            "subid": SUBSCRIPTION_OID,
            "subname": status.slot_name,
            "pid": if matches!(status.state, State::Failed | State::Stopped) { Json::Null } else { json!(std::process::id()) },
            "received_lsn": status.received.to_string(),
            "last_msg_receipt_time": time(status.last_message_received),
            "latest_end_lsn": status.durable.to_string(),
            "latest_end_time": time(status.last_status_sent),
            "state": status.state.as_str(),
            "durable_lsn": status.durable.to_string(),
            "last_error": status.last_error.as_ref().map(|e| e.1.as_str()),
            "last_error_time": time(status.last_error.as_ref().map(|e| e.0)),
        })],
        "pg_subscription" => vec![json!({
            "oid": SUBSCRIPTION_OID,
            "subdbid": 0,
            "subskiplsn": "0/0",
            "subname": status.slot_name,
            "subowner": 10,
            "subenabled": !matches!(status.state, State::Failed | State::Stopped),
            "subbinary": false,
            "substream": source.streaming.0,
            "subtwophasestate": if source.two_phase.0 { "e" } else { "d" },
            "subdisableonerr": true,
            // Without the password.
            "subconninfo": format!(
                "host={} port={} user={} dbname={}",
                source.postgres_server_address, source.postgres_port, source.postgres_user, source.postgres_database
            ),
            "subslotname": status.slot_name,
            "subsynccommit": "on",
            "subpublications": array_text(&status.publication_names),
        })],
        "pg_stat_subscription_stats" => vec![json!({
            "subid": SUBSCRIPTION_OID,
            "subname": status.slot_name,
            "apply_error_count": status.error_count,
            "sync_error_count": 0,
            "confl_insert_exists": conflicts_of(status, ConflictKind::InsertExists),
            "confl_update_exists": conflicts_of(status, ConflictKind::UpdateExists),
            "confl_update_missing": conflicts_of(status, ConflictKind::UpdateMissing),
            "confl_delete_missing": conflicts_of(status, ConflictKind::DeleteMissing),
        })],
        _ => Vec::new(),
    }
}

/// The text of a text[] value.
fn array_text(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| format!("\"{}\"", i.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    format!("{{{}}}", quoted.join(","))
}

fn conflicts_of(status: &Snapshot, kind: ConflictKind) -> u64 {
    ConflictKind::ALL.iter().zip(status.conflict_counts).filter(|(k, _)| **k == kind).map(|(_, count)| count).sum()
}

/// Rows of `strand_replication_conflicts`.
fn conflict_rows(status: &Status) -> Vec<Json> {
    // A row's columns keep their order in the text of a JSON object only if it is written so.
    let row_text = |row: &[(String, Option<String>)]| {
        let fields: Vec<String> = row.iter().map(|(name, value)| format!("{}: {}", json!(name), json!(value))).collect();
        Json::String(format!("{{{}}}", fields.join(", ")))
    };
    let row = |conflict: &Conflict| {
        json!({
            "subscription": status.slot_name(),
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
    status.conflicts().iter().map(row).collect()
}

/// What the engine asks for, given where the replicator's state can be had.
pub fn server_rows(
    source: PostgresReplication,
    status: impl Fn() -> Option<Arc<Status>> + Send + Sync + 'static,
) -> Arc<dyn Fn(&str) -> Vec<Json> + Send + Sync> {
    Arc::new(move |table| match (table, status()) {
        (_, None) => Vec::new(),
        ("strand_replication_conflicts", Some(status)) => conflict_rows(&status),
        (_, Some(status)) => rows(table, &source, &status.snapshot()),
    })
}
