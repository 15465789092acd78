//! Waiting for subscriptions made by SQL.

use crate::{Db, Primary, Replica, wait_until};

/// Waits until everything that the primary has written by now is confirmed by the slot, and every subscribed table follows.
pub fn wait_for_subscription(replica: &Replica, primary: &Primary, source: &Db, slot: &str) {
    wait_for_tables(replica, &replica.db());
    let lsn = primary.lsn(source);
    primary.wait_confirmed(source, slot, &lsn);
}

/// Waits until no subscribed table of the database is still to be copied, or has yet to meet the stream.
pub fn wait_for_tables(replica: &Replica, db: &Db) {
    wait_until(
        || db.value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") == "0",
        || {
            let states = db.lines("SELECT srrelid::regclass, srsubstate, srsublsn FROM pg_subscription_rel");
            format!("the tables to follow: {states:?}\n{}", replica.log())
        },
    );
}
