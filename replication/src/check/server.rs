//! The primary as a whole: version, settings, free places, the role's rights, encryption.

use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Client;

use super::{Findings, Primary, count, place_text};
use crate::config::Config;
use crate::replicator::MAJOR_VERSION_MIN;

/// The newest server that this was tried with.
const MAJOR_VERSION_TRIED: u32 = 18;

/// Standbys can be decoded from since this version.
const STANDBY_VERSION_MIN: u32 = 16;

/// Settings by which hosted servers turn logical decoding on, in place of `wal_level`.
const HOSTED_SWITCHES: [(&str, &str); 3] = [
    ("rds.logical_replication", "set rds.logical_replication to 1 in the instance's parameter group, then restart it"),
    ("cloudsql.logical_decoding", "set the flag cloudsql.logical_decoding to on, which restarts the instance"),
    ("azure.replication_support", "set the server parameter wal_level to logical, then restart the server"),
];

/// How many slots and connections one replica uses at once: the lasting slot, and a temporary one while tables are copied.
const SLOTS_NEEDED_FOR_COPY: i64 = 2;

/// The server's major version, or nothing where we cannot follow it.
pub(super) async fn version(findings: &mut Findings, client: &Client, config: &Config, connected: Duration) -> Option<u32> {
    const SQL: &str = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_catalog.pg_is_in_recovery(), \
                       current_setting('server_encoding')";
    let row = match client.query_one(SQL, &[]).await {
        Ok(row) => row,
        Err(error) => {
            findings.unanswered("the server's version", error);
            return None;
        }
    };
    let (text, number, in_recovery, encoding): (String, i32, bool, String) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let major = (number / 10_000).unsigned_abs();
    let place = format!(
        "PostgreSQL {text} at {}, connected in {:.1} ms",
        place_text(config.connection.places.current()),
        connected.as_secs_f64() * 1e3
    );
    if major < MAJOR_VERSION_MIN {
        findings.error(format!("{place}: version {MAJOR_VERSION_MIN} or later is needed"), "upgrade the primary");
        return None;
    }
    if major > MAJOR_VERSION_TRIED {
        findings.note(format!("{place}: newer than what this release was tested with ({MAJOR_VERSION_TRIED})"));
    } else {
        findings.ok(place);
    }
    if in_recovery && major < STANDBY_VERSION_MIN {
        findings.error(
            format!("the server is a standby, and standbys have logical slots since version {STANDBY_VERSION_MIN} only"),
            "set postgres_server_address to the primary",
        );
    } else if in_recovery {
        findings.note("the server is a standby: making the slot waits until its primary writes something");
    }
    if encoding == "SQL_ASCII" {
        findings.warning(
            "the database's encoding is SQL_ASCII: bytes that are no UTF-8 cannot be sent to a replica",
            "move the data into a database with encoding UTF8",
        );
    }
    Some(major)
}

/// `wal_level`, free slots and senders.
pub(super) async fn settings(findings: &mut Findings, primary: &Primary<'_>) {
    const SQL: &str = "SELECT current_setting('wal_level'), current_setting('max_replication_slots')::bigint, \
        (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
        (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1), \
        current_setting('max_wal_senders')::bigint, (SELECT count(*) FROM pg_catalog.pg_stat_replication), \
        (SELECT count(*) FROM pg_catalog.pg_stat_replication r JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = $1)";
    let row = match primary.client.query_one(SQL, &[&primary.config.slot_name]).await {
        Ok(row) => row,
        Err(error) => return findings.unanswered("settings", error),
    };
    let wal_level: String = row.get(0);
    let [slots_max, slots, ours, senders_max, senders, our_senders] = [1, 2, 3, 4, 5, 6].map(|column| row.get::<_, i64>(column));
    if wal_level == "logical" {
        findings.ok("wal_level is logical");
    } else {
        findings.error(format!("wal_level is {wal_level}; it has to be logical"), wal_level_fix(primary.client).await);
    }
    let needed = if ours > 0 { 0 } else { SLOTS_NEEDED_FOR_COPY };
    if slots_max - slots < needed {
        findings.error(
            format!("{slots} of {slots_max} replication slots are taken; {needed} more are needed, one of them during the initial copy only"),
            format!("ALTER SYSTEM SET max_replication_slots = {}; then restart the primary; or drop a slot of pg_replication_slots that nobody uses", slots + needed + 4),
        );
    } else {
        findings.ok(format!("{slots} of {slots_max} replication slots are taken"));
    }
    if senders_max - senders < 1 - our_senders {
        findings.error(
            format!("all {senders_max} walsenders are taken"),
            format!("ALTER SYSTEM SET max_wal_senders = {}; then restart the primary", senders_max + 5),
        );
    } else {
        findings.ok(format!("{senders} of {senders_max} walsenders are taken"));
    }
}

async fn wal_level_fix(client: &Client) -> String {
    let names: Vec<&str> = HOSTED_SWITCHES.iter().map(|(name, _)| *name).collect();
    let hosted = client.query_opt("SELECT name FROM pg_catalog.pg_settings WHERE name = ANY($1) LIMIT 1", &[&names]).await;
    let hosted: Option<String> = hosted.ok().flatten().map(|row| row.get(0));
    match HOSTED_SWITCHES.iter().find(|(name, _)| hosted.as_deref() == Some(name)) {
        Some((_, fix)) => (*fix).to_owned(),
        None => "ALTER SYSTEM SET wal_level = 'logical'; then restart the primary".to_owned(),
    }
}

/// Whether what we send and receive can be read on its way.
pub(super) async fn encryption(findings: &mut Findings, primary: &Primary<'_>) {
    const SQL: &str = "SELECT coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false), \
                       pg_catalog.host(pg_catalog.inet_server_addr())";
    let row = match primary.client.query_one(SQL, &[]).await {
        Ok(row) => row,
        Err(error) => return findings.unanswered("whether the connection is encrypted", error),
    };
    let (encrypted, address): (bool, Option<String>) = (row.get(0), row.get(1));
    let is_local = address.and_then(|a| a.parse::<IpAddr>().ok()).is_none_or(|a| a.is_loopback());
    match (encrypted, is_local) {
        (true, _) => findings.ok("the connection is encrypted"),
        (false, true) => findings.ok("the connection is not encrypted and does not leave the machine"),
        (false, false) => findings.warning(
            "the connection is not encrypted: rows can be read, and changed, by whoever sits between the two servers",
            "turn ssl on for the primary, and set sslmode to verify-full with sslrootcert here",
        ),
    }
}

/// The role's right to replicate. Rights on tables are told with the tables.
pub(super) async fn role(findings: &mut Findings, primary: &Primary<'_>) -> bool {
    // Hosted servers grant replication by membership of a role of theirs.
    const SQL: &str = "SELECT r.rolsuper, r.rolreplication, \
        coalesce((SELECT bool_or(pg_catalog.pg_has_role(current_user, h.oid, 'MEMBER')) FROM pg_catalog.pg_roles h WHERE h.rolname = 'rds_replication'), false), \
        EXISTS (SELECT FROM pg_catalog.pg_roles h WHERE h.rolname = 'rds_replication') \
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let row = match primary.client.query_one(SQL, &[]).await {
        Ok(row) => row,
        Err(error) => {
            findings.unanswered("the role's rights", error);
            return true;
        }
    };
    let [superuser, replication, hosted_member, is_hosted] = [0, 1, 2, 3].map(|column| row.get::<_, bool>(column));
    let role = &primary.role;
    if superuser || replication || hosted_member {
        findings.ok(format!("role {role} may replicate"));
        return true;
    }
    let fix = if is_hosted { format!("GRANT rds_replication TO {role};") } else { format!("ALTER ROLE {role} REPLICATION;") };
    findings.error(format!("role {role} may not replicate"), fix);
    false
}

/// Transactions that keep a new slot from starting: it begins once all that ran when it was asked for have ended.
pub(super) async fn transactions_in_the_way(findings: &mut Findings, primary: &Primary<'_>) {
    const SQL: &str = "SELECT a.pid, a.usename::text, extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
        FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
        AND a.xact_start < pg_catalog.clock_timestamp() - interval '10 seconds' ORDER BY a.xact_start";
    match primary.client.query(SQL, &[]).await {
        Ok(rows) => {
            for row in rows {
                let (pid, user, seconds): (i32, Option<String>, i64) = (row.get(0), row.get(1), row.get(2));
                findings.warning(
                    format!(
                        "the slot can start when the transaction of process {pid} (role \"{}\") has ended, which runs since {seconds} seconds",
                        user.unwrap_or_default()
                    ),
                    format!("SELECT pg_terminate_backend({pid});"),
                );
            }
        }
        Err(error) => findings.unanswered("which transactions run", error),
    }
    match primary.client.query("SELECT gid FROM pg_catalog.pg_prepared_xacts ORDER BY prepared", &[]).await {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => {
            let names: Vec<String> =
                rows.iter().map(|row| format!("ROLLBACK PREPARED {};", crate::client::quote_literal(row.get(0)))).collect();
            findings.warning(
                format!(
                    "the slot can start when {} ended",
                    if rows.len() == 1 {
                        "a prepared transaction has".to_owned()
                    } else {
                        format!("{} have", count(rows.len(), "prepared transaction"))
                    }
                ),
                format!("COMMIT PREPARED or {}", names.join(" ")),
            );
        }
        Err(error) => findings.unanswered("which transactions are prepared", error),
    }
}
