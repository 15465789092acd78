//! Exactly once, whoever dies: `kill -9` of our server, crashes of the primary and cuts of the connection between them, during a load of every kind of message.
//!
//! Some of each by default; with STRANDLINE_TEST_SCALE=full a thousand kills of ours, a thousand of the primary's and a thousand cuts, or as many as it says.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use strandline_tests::ledger::{self, Comparison, Writer};
use strandline_tests::mixed::{self, Definitions};
use strandline_tests::proxy::Proxy;
use strandline_tests::subscriptions::{quoted, wait_for_subscription};
use strandline_tests::{Db, Primary, Replica, replica::Options, wait_until};

/// After how many transactions the primary's tables are first looked at.
const MOMENT_INTERVAL: u64 = 8;

/// What has happened so far is compared after so many kills or cuts at most, and four times at least.
const COMPARISON_INTERVAL_MAX: usize = 20;

fn comparison_interval(count: usize) -> usize {
    (count / 4).clamp(1, COMPARISON_INTERVAL_MAX)
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
    let (mut comparison, begun) = (Comparison::default(), Instant::now());
    let count = ledger::campaign_count(20, 1000);
    for kill in 0..count {
        if (kill + 1) % comparison_interval(count) == 0 {
            comparison.so_far(&primary, &replica, &writer);
            eprintln!("{kill} of {count} kills (seed {seed}), {} transactions, {} s", writer.written(), begun.elapsed().as_secs());
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
    comparison.finish(&primary, &replica, &written);
    ledger::assert_whole(replica);
    eprintln!("{count} kills and {count} crashes (seed {seed}) in {} s", begun.elapsed().as_secs());
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

    let cuts = ledger::campaign_count(40, 1000);
    let writer = Writer::start(&primary, seed, Definitions::Additions, MOMENT_INTERVAL);
    let (mut comparison, begun) = (Comparison::default(), Instant::now());
    proxy.cut(true);
    while proxy.cut_count() < cuts as u64 {
        let next = proxy.cut_count() + comparison_interval(cuts) as u64;
        while proxy.cut_count() < next {
            let before = proxy.cut_count();
            wait_until(|| proxy.cut_count() > before, || format!("cut {before} of {cuts} (seed {seed})"));
        }
        // It gets on in spite of the cuts, which go on.
        comparison.so_far(&primary, &replica, &writer);
        eprintln!("{} of {cuts} cuts (seed {seed}), {} transactions, {} s", proxy.cut_count(), writer.written(), begun.elapsed().as_secs());
    }
    proxy.cut(false);
    let written = writer.finish();
    // Tables that have joined the publication are subscribed by REFRESH only.
    replica.db().execute("ALTER SUBSCRIPTION strandline REFRESH PUBLICATION");
    wait_for_subscription(&replica, &primary, &primary.db(), "strandline");
    comparison.finish(&primary, &replica, &written);
    ledger::assert_whole(replica);
    eprintln!("{} cuts (seed {seed}) in {} s", proxy.cut_count(), begun.elapsed().as_secs());
}
