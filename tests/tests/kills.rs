//! Exactly once, whoever dies: `kill -9` of our server, crashes of the primary and cuts of the connection between them during a load.
//!
//! Some of each by default; with STRANDLINE_TEST_SCALE=full a thousand kills, two hundred crashes and a thousand cuts, or as many as it says.

use std::sync::Arc;

use strandline_tests::ledger::{self, Writer};
use strandline_tests::proxy::Proxy;
use strandline_tests::{Primary, Replica, replica::Options, wait_until};

/// So many kills of ours for one crash of the primary.
const KILLS_PER_CRASH: usize = 5;

#[test]
fn kills_of_the_replica_and_crashes_of_the_primary_lose_and_repeat_nothing() {
    // With fsync off a crash of the postmaster (not of the machine) still loses nothing that was committed.
    let primary = Arc::new(Primary::start(&["synchronous_commit = on", "wal_sender_timeout = 10s"]));
    ledger::create_tables(&primary.db());
    let mut replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &primary.db());

    let writer = Writer::start(&primary, 99);
    for kill in 0..ledger::campaign_count(100, 1000) {
        // Some work between two kills, of different lengths, so that they hit different moments.
        writer.wait_for_more((kill as u64 * 7) % 23);
        if kill % KILLS_PER_CRASH == 2 {
            primary.restart("immediate");
        }
        replica.kill();
        replica.start_again();
    }
    let (moments, written) = writer.finish();
    assert!(moments.len() > 10, "{} moments are too few to say something", moments.len());
    ledger::assert_exactly_once(&primary, &replica, &moments, written);
    ledger::assert_whole(replica);
}

#[test]
fn a_connection_cut_at_any_byte_loses_and_repeats_nothing() {
    let seed = 20_261_121;
    let primary = Arc::new(Primary::start(&["synchronous_commit = on", "wal_sender_timeout = 10s"]));
    ledger::create_tables(&primary.db());
    let proxy = Proxy::start(primary.port(), seed);
    let replica = Replica::start(Some(&primary), &Options { primary_port: Some(proxy.port()), ..Options::default() });
    replica.catch_up(&primary, &primary.db());

    let cuts = ledger::campaign_count(60, 1000) as u64;
    let writer = Writer::start(&primary, seed);
    proxy.cut(true);
    while proxy.cut_count() < cuts {
        let before = proxy.cut_count();
        wait_until(|| proxy.cut_count() > before, || format!("cut {before} of {cuts} (seed {seed})"));
    }
    proxy.cut(false);
    let (moments, written) = writer.finish();
    ledger::assert_exactly_once(&primary, &replica, &moments, written);
    ledger::assert_whole(replica);
}
