//! A look at the primary now and then, from beside the stream: how far its log is, and how much of it our slot makes it keep.
//!
//! The stream cannot tell: what a walsender reports is how far it has sent, and while replication stands still there is none. Each look is a short connection of
//! its own. One that stayed would keep a primary from a smart shutdown.

use std::sync::Arc;
use std::time::Duration;

use strandline_storage::{Lsn, Timestamp};
use tokio::sync::watch;

use crate::apply::Context;
use crate::catalog::CatalogClient;
use crate::error::{Error, Result};

/// When to look, and what to warn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// Between two looks; `None`: never.
    pub interval: Option<Duration>,
    /// Bytes of the primary's log that our slot may keep before a warning is logged.
    pub retained_max: u64,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryView {
    /// By our clock.
    pub time: Timestamp,
    /// Where the primary's log ends; on a standby, what it has replayed.
    pub end: Lsn,
    /// Our slot there; `None`: there is none.
    pub slot: Option<SlotView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Bytes of log from where the slot may still need it to the end; `None` for a slot that has none yet or has lost it.
    pub retained: Option<u64>,
    /// `pg_replication_slots.wal_status`, from version 13 on.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before the slot is in danger; `None`: `max_slot_wal_keep_size` is off or does not exist, or it is lost.
    pub safe_size: Option<i64>,
}

/// While lag lasts, it is logged this often.
const LAG_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Less than this is not worth a line.
const LAG_LOGGED_MIN: u64 = 16 << 20;

/// Looks until a stop is asked for. A failure says nothing: the replicator itself reports that the primary cannot be reached.
pub(crate) async fn watch_primary(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let Some(interval) = context.config.watch.interval else { return };
    let mut warnings = Warnings::default();
    let mut lag_logged: Option<tokio::time::Instant> = None;
    while !*stop.borrow() {
        match tokio::time::timeout(interval.max(Duration::from_secs(5)), look(&context)).await {
            Ok(Ok(view)) => {
                let slot = &context.config.slot_name;
                if let Some(found) = &view.slot {
                    warnings.consider(slot, found, context.config.watch.retained_max);
                }
                context.status.note_primary(view);
                let now = context.status.snapshot();
                let due = lag_logged.is_none_or(|at| at.elapsed() >= LAG_LOG_INTERVAL);
                if let Some(lag) = now.lag().filter(|lag| due && lag.bytes >= LAG_LOGGED_MIN) {
                    let retained = now.primary.and_then(|view| view.slot).and_then(|slot| slot.retained);
                    tracing::info!(%slot, state = now.state.as_str(), lag_bytes = lag.bytes, lag_seconds = lag.time.as_secs_f64(), retained_bytes = retained, "replication lags behind");
                    lag_logged = Some(tokio::time::Instant::now());
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "a look at the primary failed"),
            Err(_) => tracing::debug!("a look at the primary took too long"),
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

async fn look(context: &Context) -> Result<PrimaryView> {
    // Text, and calculated there, so that no type needs more than to be text.
    const SQL: &str = "SELECT w.lsn::text, s.slot_name IS NOT NULL, pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn)::bigint, \
        pg_catalog.to_jsonb(s) ->> 'wal_status', (pg_catalog.to_jsonb(s) ->> 'safe_wal_size')::bigint \
        FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) w \
        LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1::text::name";
    let failed = |e| Error::from_sql("look at the replication slot", e);
    let catalog = CatalogClient::connect(&context.config.connection()).await?;
    let row = catalog.client.query_one(SQL, &[&context.config.slot_name]).await.map_err(failed)?;
    let end: Option<String> = row.try_get(0).map_err(failed)?;
    let end = end.and_then(|text| text.parse().ok()).ok_or_else(|| Error::Protocol("the end of the primary's log is no LSN".into()))?;
    let slot = match row.try_get(1).map_err(failed)? {
        false => None,
        true => {
            let retained: Option<i64> = row.try_get(2).map_err(failed)?;
            Some(SlotView {
                retained: retained.map(|bytes| bytes.max(0).unsigned_abs()),
                wal_status: row.try_get(3).map_err(failed)?,
                safe_size: row.try_get(4).map_err(failed)?,
            })
        }
    };
    Ok(PrimaryView { time: Timestamp::now(), end, slot })
}

/// What was warned of, so that it is not said at every look.
#[derive(Debug, Default)]
struct Warnings {
    /// The bytes of the last warning; 0: none stands.
    retained: u64,
    wal_status: Option<String>,
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    TooMuch,
    EnoughAgain,
}

impl Warnings {
    fn consider(&mut self, name: &str, slot: &SlotView, max: u64) {
        let retained = slot.retained.unwrap_or(0);
        match self.of_size(retained, max) {
            Said::Nothing => {}
            Said::TooMuch => tracing::warn!(
                slot = name,
                retained_bytes = retained,
                limit = max,
                "the replication slot makes the primary keep more of its log than subscriptions.slot_wal_warning; it grows until we follow again, or the slot is dropped"
            ),
            Said::EnoughAgain => {
                tracing::info!(slot = name, retained_bytes = retained, "the replication slot keeps less of the primary's log again")
            }
        }
        if slot.wal_status != self.wal_status {
            match slot.wal_status.as_deref() {
                Some("unreserved") => tracing::warn!(
                    slot = name,
                    "the replication slot keeps more than the primary's max_slot_wal_keep_size: the primary may remove what we still need at its next checkpoint"
                ),
                Some("lost") => tracing::error!(slot = name, "the primary has removed what the replication slot needs: changes are lost"),
                _ => {}
            }
            self.wal_status.clone_from(&slot.wal_status);
        }
    }

    /// A warning is repeated when the bytes have doubled, and withdrawn at half of the limit, so that nothing flutters around it.
    fn of_size(&mut self, retained: u64, max: u64) -> Said {
        if retained > max && retained / 2 >= self.retained {
            self.retained = retained;
            return Said::TooMuch;
        }
        if self.retained > 0 && retained <= max / 2 {
            self.retained = 0;
            return Said::EnoughAgain;
        }
        Said::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_repeated_when_it_doubles_and_withdrawn_at_half() {
        let mut warnings = Warnings::default();
        let said: Vec<Said> = [10, 100, 101, 150, 201, 202, 404, 150, 51, 50, 49, 101].map(|size| warnings.of_size(size, 100)).into();
        use Said::{EnoughAgain, Nothing, TooMuch};
        let expected = [Nothing, Nothing, TooMuch, Nothing, Nothing, TooMuch, TooMuch, Nothing, Nothing, EnoughAgain, Nothing, TooMuch];
        assert_eq!(said, expected);
    }
}
