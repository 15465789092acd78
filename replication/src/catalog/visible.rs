//! When the primary's catalog is as new as the stream.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::CatalogClient;
use crate::error::{Error, Result};

/// How long a committed transaction may take to become visible: it does so right after its commit record was flushed.
const WAIT_MAX: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(2);

/// Waits until a transaction that the stream has brought is visible to the next query. A walsender sends a commit as soon as its record is flushed, and
/// others see it a moment later; a catalog read in between would be that of before.
///
/// `false` when the wait is in vain: if the primary knows us (by our slot) as a synchronous standby, the transaction becomes visible after we have confirmed it.
pub(crate) async fn wait_until_visible(catalog: &CatalogClient, xid: u32, slot: &str) -> Result<bool> {
    let snapshot = if catalog.major_version >= 13 { "pg_current_snapshot" } else { "txid_current_snapshot" };
    let sql = format!(
        "SELECT pg_catalog.{snapshot}()::text, \
         EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid = $1::text::xid AND a.wait_event = 'SyncRep') \
         AND EXISTS (SELECT FROM pg_catalog.pg_stat_replication r JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid \
         WHERE s.slot_name = $2 AND r.sync_state <> 'async')"
    );
    let deadline = Instant::now() + WAIT_MAX;
    let text = xid.to_string();
    loop {
        let failed = |e| Error::from_sql("ask the primary for its snapshot", e);
        let row = catalog.client.query_one(&sql, &[&text, &slot]).await.map_err(failed)?;
        let (snapshot, waits_for_us): (String, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        match is_visible(&snapshot, xid) {
            Some(true) => return Ok(true),
            Some(false) => {}
            None => return Err(Error::Protocol(format!("a snapshot that is none: {:.100}", snapshot))),
        }
        if waits_for_us || Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
}

/// Whether a snapshot, written as `xmin:xmax:xip,...` with 64-bit ids, sees a committed transaction given by the lower half of its id.
fn is_visible(snapshot: &str, xid: u32) -> Option<bool> {
    let mut parts = snapshot.split(':');
    let (_, xmax, running) = (parts.next()?, parts.next()?.parse::<u64>().ok()?, parts.next()?);
    // The circle of 32-bit ids is compared as PostgreSQL compares it: half of it lies before.
    let is_later = (xid.wrapping_sub(xmax as u32) as i32) >= 0;
    let mut is_running = false;
    for id in running.split(',').filter(|id| !id.is_empty()) {
        is_running |= id.parse::<u64>().ok()? as u32 == xid;
    }
    Some(!is_later && !is_running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        assert_eq!(is_visible("10:20:12,15", 11), Some(true));
        assert_eq!(is_visible("10:20:12,15", 9), Some(true));
        assert_eq!(is_visible("10:20:12,15", 15), Some(false));
        assert_eq!(is_visible("10:20:12,15", 20), Some(false));
        assert_eq!(is_visible("10:10:", 9), Some(true));
        // Beyond the first turn of the circle.
        assert_eq!(is_visible("4294967300:4294967310:4294967305", 3), Some(true));
        assert_eq!(is_visible("4294967300:4294967310:4294967305", 9), Some(false));
        assert_eq!(is_visible("4294967300:4294967310:4294967305", 4_294_967_295), Some(true));
        for malformed in ["", "1", "1:2", "a:b:", "1:2:x"] {
            assert_eq!(is_visible(malformed, 1), None, "{malformed}");
        }
    }
}
