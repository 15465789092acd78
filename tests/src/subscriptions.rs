//! Subscriptions made by SQL: making them, and waiting for them.

use crate::replica::Options;
use crate::{Db, Primary, Replica, wait_until};

/// A server without a configured source, that does not wait long after errors.
pub fn subscriber() -> Replica {
    Replica::start(None, &Options { config: "subscriptions: {retry_interval_ms: 200}".into(), ..Options::default() })
}

/// CREATE SUBSCRIPTION of something of `primary`; `rest` begins with PUBLICATION.
pub fn create(db: &Db, primary: &Primary, name: &str, rest: &str) {
    db.execute(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{}' {rest}", quoted(&primary.conninfo())));
}

/// A connection string within a string constant of SQL.
pub fn quoted(conninfo: &str) -> String {
    conninfo.replace('\'', "''")
}

/// Tables (or rows) made by hand, and committed.
pub fn make(db: &Db, sql: &str) {
    db.execute(sql);
    db.execute("SELECT dolt_commit('-Am', 'made by hand')");
}

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
