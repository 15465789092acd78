//! The slot: there and usable, or possible to make; and what it makes the primary keep.

use super::{Findings, Primary, server, size};
use crate::client::{SlotInfo, quote_literal};
use crate::config::InitialCopy;
use crate::replicator::check_slot;

/// How much WAL an idle slot may keep before it is worth a warning, in bytes.
const RETAINED_WARNING_SIZE: i64 = 1 << 30;

pub(super) async fn slot(findings: &mut Findings, primary: &Primary<'_>) {
    const SQL: &str = "SELECT s.plugin::text, s.slot_type = 'logical', s.database::text, s.active, pg_catalog.to_jsonb(s) ->> 'wal_status', s.active_pid, \
        pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
        ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn)::bigint, \
        (SELECT r.application_name FROM pg_catalog.pg_stat_replication r WHERE r.pid = s.active_pid), \
        coalesce(current_setting('max_slot_wal_keep_size', true), '') \
        FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1";
    let name = &primary.config.slot_name;
    let row = match primary.client.query_opt(SQL, &[name]).await {
        Ok(Some(row)) => row,
        Ok(None) => return missing(findings, primary).await,
        Err(error) => return findings.unanswered("the slot's state", error),
    };
    let slot = SlotInfo {
        plugin: row.get(0),
        logical: row.get(1),
        database: row.get(2),
        active: row.get(3),
        confirmed_flush: None,
        wal_status: row.get(4),
    };
    let (pid, retained, application): (Option<i32>, Option<i64>, Option<String>) = (row.get(5), row.get(6), row.get(7));
    let keep_size_max: String = row.get(8);
    let drop = format!("SELECT pg_drop_replication_slot({});", quote_literal(name));
    if let Err(error) = check_slot(&slot, name, &primary.config.connection.database) {
        let fix = match &slot.wal_status {
            Some(status) if status == "lost" => {
                format!("{drop} then make a new replica; ALTER SYSTEM SET max_slot_wal_keep_size lets a slot keep more")
            }
            _ => "choose another slot_name".to_owned(),
        };
        findings.error(error.to_string(), fix);
        return;
    }
    let retained = retained.unwrap_or_default();
    let kept = format!("the primary keeps {} of WAL for it", size(retained));
    match pid {
        Some(pid) => findings.ok(format!(
            "slot \"{name}\" is in use by process {pid} ({}); {kept}",
            application.filter(|a| !a.is_empty()).unwrap_or_else(|| "no application_name".into())
        )),
        None if retained > RETAINED_WARNING_SIZE => {
            findings.warning(
                format!("slot \"{name}\" is not in use, and {kept}"),
                format!("start the replica; or, if nobody needs it any more: {drop}"),
            );
        }
        None => findings.ok(format!("slot \"{name}\" is there and not in use; {kept}")),
    }
    if slot.wal_status.as_deref() == Some("unreserved") {
        findings.warning(
            format!("slot \"{name}\" needs WAL beyond max_slot_wal_keep_size ({keep_size_max}), which the primary may remove at its next checkpoint"),
            "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();",
        );
    }
}

async fn missing(findings: &mut Findings, primary: &Primary<'_>) {
    let name = &primary.config.slot_name;
    match primary.config.initial_copy {
        InitialCopy::Auto => {
            findings.ok(format!("slot \"{name}\" does not exist: it is made at the first start, and the published tables are copied"))
        }
        InitialCopy::Never => findings.error(
            format!("slot \"{name}\" does not exist, and initial_copy is never"),
            format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput');", quote_literal(name)),
        ),
    }
    server::transactions_in_the_way(findings, primary).await;
}
