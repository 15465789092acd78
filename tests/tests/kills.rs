//! Exactly once, whoever dies: `kill -9` of our server, crashes of the primary and cuts of the connection between them, during a load of every kind of message.
//!
//! Some of each by default; with STRANDLINE_TEST_SCALE=full a thousand kills of ours, a thousand of the primary's and a thousand cuts, or as many as it says.

use std::process::Command;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use strandline_tests::ledger::{self, Writer};
use strandline_tests::mixed::{self, Definitions};
use strandline_tests::proxy::Proxy;
use strandline_tests::subscriptions::{quoted, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, replica::Options, wait_until};

/// After how many transactions the primary's tables are first looked at.
const MOMENT_INTERVAL: u64 = 8;

/// After how many kills the replica may come up with the writer, who is killed less: behind a thousand of them it would be gigabytes behind.
const CATCH_UP_INTERVAL: usize = 20;

/// Lets the replica confirm what is written by now.
fn catch_up(primary: &Primary) {
    wait_until(|| Db::connect(&primary.conninfo()).is_ok(), || "the primary to be up".into());
    let db = primary.db();
    let lsn = primary.lsn(&db);
    primary.wait_confirmed(&db, "strandline", &lsn);
}

/// Kills our walsender with no chance to say goodbye, which the postmaster answers by ending every backend and recovering. False where there is no walsender.
fn crash_by_walsender(primary: &Primary) -> bool {
    let Ok(db) = Db::connect(&primary.conninfo()) else { return false };
    let senders = db.try_rows("SELECT pid FROM pg_stat_replication LIMIT 1").unwrap_or_default();
    let Some(pid) = senders.into_iter().flatten().flatten().next() else { return false };
    if !Command::new("kill").args(["-KILL", &pid]).status().is_ok_and(|status| status.success()) {
        return false;
    }
    wait_until(|| db.try_rows("SELECT 1").is_err(), || "the postmaster to notice".into());
    true
}

/// A crash of the primary, of one kind or the other.
fn crash(primary: &Primary, random: &mut StdRng) {
    // It has recovered from the crash before: PostgreSQL 15 does not start again when it is stopped while it removes a temporary slot that a crash has left.
    wait_until(|| Db::connect(&primary.conninfo()).is_ok(), || "the primary to be up".into());
    if random.random_ratio(1, 2) || !crash_by_walsender(primary) {
        primary.restart("immediate");
    }
}

/// Lets some time pass that is none of the clock's: transactions that are written, or one of them that is durable here, or nothing.
fn let_work(random: &mut StdRng, primary: &Primary, writer: &Writer) {
    match random.random_range(0..4) {
        0 => {}
        1 => {
            writer.wait_for_more(1);
            let Ok(db) = Db::connect(&primary.conninfo()) else { return };
            let confirmed = || db.try_rows("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'strandline'").ok();
            let before = confirmed();
            wait_until(|| confirmed() != before, || "something to be confirmed".into());
        }
        _ => writer.wait_for_more(random.random_range(1..8)),
    }
}

#[test]
fn kills_of_either_side_lose_and_repeat_nothing() {
    let seed = 99;
    // With fsync off a crash of the postmaster (not of the machine) still loses nothing that was committed.
    let primary = Arc::new(Primary::start(&mixed::SETTINGS));
    mixed::create_tables(&primary.db());
    let options = Options { replication: vec!["two_phase: on".into()], ..Options::default() };
    let mut replica = Replica::start(Some(&primary), &options);
    replica.catch_up(&primary, &primary.db());
    replica.install_ddl_capture();

    let writer = Writer::start(&primary, seed, Definitions::All, MOMENT_INTERVAL);
    let mut random = StdRng::seed_from_u64(seed);
    for kill in 0..ledger::campaign_count(20, 1000) {
        if kill % CATCH_UP_INTERVAL == CATCH_UP_INTERVAL - 1 {
            catch_up(&primary);
        }
        let_work(&mut random, &primary, &writer);
        // Either may die first, and the other while it comes back.
        let ours_first = random.random_ratio(1, 2);
        if ours_first {
            replica.kill();
        } else {
            crash(&primary, &mut random);
            let_work(&mut random, &primary, &writer);
            replica.kill();
        }
        replica.start_again();
        if ours_first {
            let_work(&mut random, &primary, &writer);
            crash(&primary, &mut random);
        }
    }
    let written = writer.finish();
    assert!(written.moments.len() > 10, "{} moments are too few to say something (seed {seed})", written.moments.len());
    ledger::assert_exactly_once(&primary, &replica, &written);
    ledger::assert_whole(replica);
}

#[test]
fn a_connection_cut_at_any_byte_loses_and_repeats_nothing() {
    let seed = 20_261_121;
    let primary = Arc::new(Primary::start(&mixed::SETTINGS));
    mixed::create_tables(&primary.db());
    let proxy = Proxy::start(primary.port(), seed);
    // A subscription, whose values come in their binary form.
    let replica = Replica::start(None, &Options { config: "subscriptions: {retry_interval_ms: 200}".into(), ..Options::default() });
    let conninfo = primary.conninfo().replace(&format!("port={}", primary.port()), &format!("port={}", proxy.port()));
    replica.db().execute(&format!(
        "CREATE SUBSCRIPTION strandline CONNECTION '{}' PUBLICATION strandline WITH (binary = true, streaming = on)",
        quoted(&conninfo)
    ));
    wait_for_subscription(&replica, &primary, &primary.db(), "strandline");

    let cuts = ledger::campaign_count(60, 1000) as u64;
    let writer = Writer::start(&primary, seed, Definitions::Additions, MOMENT_INTERVAL);
    proxy.cut(true);
    while proxy.cut_count() < cuts {
        let before = proxy.cut_count();
        wait_until(|| proxy.cut_count() > before, || format!("cut {before} of {cuts} (seed {seed})"));
    }
    proxy.cut(false);
    let written = writer.finish();
    // Tables that have joined the publication are subscribed by REFRESH only.
    replica.db().execute("ALTER SUBSCRIPTION strandline REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &primary.db(), "strandline");
    ledger::assert_exactly_once(&primary, &replica, &written);
    ledger::assert_whole(replica);
}
