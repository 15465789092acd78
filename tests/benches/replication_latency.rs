//! How long after a commit on the primary its rows can be read from the replica, and how long until they are durable there.
//!
//! One client commits `STRANDLINE_BENCH_RATE` (1,000) transactions a second, each an INSERT and an UPDATE of one row that counts them, for
//! `STRANDLINE_BENCH_SECONDS` (20); another reads that row from the subscriber without a pause. A transaction's latency is from the moment at which the
//! primary has answered its commit to the moment at which a query that sees it has been answered, so a query's own time (about half a millisecond) is in
//! it. PostgreSQL's own subscriber (`synchronous_commit = off`) and ours (every commit durable) follow in turn, never both. The primary's `flush_lag`,
//! sampled every tenth of a second, says how long the subscriber took to report a commit durable. `STRANDLINE_TEST_BIN` names the server's binary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strandline_tests::primary::PASSWORD;
use strandline_tests::replica::Options;
use strandline_tests::{Db, Primary, Replica, wait_until};
use tokio_postgres::types::ToSql;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

const TABLES: &str =
    "CREATE TABLE event (id bigint PRIMARY KEY, at timestamptz, what text); CREATE TABLE counter (id int PRIMARY KEY, n bigint)";

/// Milliseconds that each of `count` transactions took, and the samples of flush_lag.
fn measure(source: &Primary, subscriber: &Db, first: u64, count: u64, rate: u64) -> (Vec<f64>, Vec<f64>) {
    let begun = Instant::now();
    let committed: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(u64::MAX)).collect());
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let db = source.db();
            let client = db.client();
            db.block_on(async {
                let insert = client.prepare("INSERT INTO event VALUES ($1, now(), 'something that happened')").await.expect("INSERT");
                let update = client.prepare("UPDATE counter SET n = $1 WHERE id = 1").await.expect("UPDATE");
                for i in 0..count {
                    let due = Duration::from_nanos(i * 1_000_000_000 / rate);
                    while begun.elapsed() < due {
                        std::thread::sleep((due - begun.elapsed().min(due)).min(Duration::from_micros(200)));
                    }
                    let n = (first + i) as i64;
                    let parameters: [&(dyn ToSql + Sync); 1] = [&n];
                    // Sent together: four statements are one round trip.
                    let sent = futures::future::try_join4(
                        client.batch_execute("BEGIN"),
                        client.execute(&insert, &parameters),
                        client.execute(&update, &parameters),
                        client.batch_execute("COMMIT"),
                    );
                    sent.await.expect("a transaction");
                    committed[i as usize].store(begun.elapsed().as_nanos() as u64, Ordering::Release);
                }
            });
        });
        let sampling = scope.spawn(|| {
            let db = source.db();
            let mut samples = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                let sql = "SELECT extract(epoch FROM flush_lag) * 1000 FROM pg_stat_replication WHERE flush_lag IS NOT NULL";
                samples.extend(db.lines(sql).iter().filter_map(|line| line.parse::<f64>().ok()));
                std::thread::sleep(Duration::from_millis(100));
            }
            samples
        });
        let client = subscriber.client();
        let latencies = subscriber.block_on(async {
            let read = client.prepare("SELECT n FROM counter WHERE id = 1").await.expect("SELECT");
            let (mut seen, mut latencies) = (0, Vec::new());
            while seen < count {
                let n: i64 = client.query_one(&read, &[]).await.expect("the counter").get(0);
                let now = begun.elapsed().as_nanos() as u64;
                let visible = (n as u64 + 1).saturating_sub(first);
                while seen < visible {
                    // One that is seen here before its commit was answered there has no latency.
                    let at = committed[seen as usize].load(Ordering::Acquire);
                    latencies.push(now.saturating_sub(at.min(now)) as f64 / 1e6);
                    seen += 1;
                }
            }
            latencies
        });
        is_done.store(true, Ordering::Relaxed);
        writing.join().expect("the writer");
        (latencies, sampling.join().expect("the sampler"))
    })
}

fn print(side: &str, what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    println!("{side:<8} {what:<34} {:>9.2} {:>9.2} {:>9.2} {:>8}", at(0.5), at(0.99), at(1.0), times.len());
}

fn main() {
    let rate = setting("STRANDLINE_BENCH_RATE", 1000).max(1);
    let count = rate * setting("STRANDLINE_BENCH_SECONDS", 20).max(1);
    // The harness turns fsync off, which here would flatter the primary and native.
    let primary = Primary::start(&["fsync = on", "autovacuum = off"]);
    let native = Primary::start(&["fsync = on", "autovacuum = off", "synchronous_commit = off"]);
    let source = primary.db();
    source.execute(TABLES);
    source.execute("INSERT INTO counter VALUES (1, 0); CREATE PUBLICATION strandline FOR ALL TABLES");
    let there = native.db();
    there.execute(TABLES);
    let connection =
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres password=''{}''", primary.port(), PASSWORD.replace('\'', "\\''"));
    there.execute(&format!("CREATE SUBSCRIPTION native CONNECTION '{connection}' PUBLICATION strandline"));
    wait_until(|| there.value("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel") == "t", || "native's copy".into());
    let mut replica = Replica::start(Some(&primary), &Options { log_level: "warning".into(), ..Options::default() });
    replica.catch_up(&primary, &source);

    println!("{rate} transactions a second, ms{:>26} {:>9} {:>9} {:>9} {:>8}", "", "p50", "p99", "max", "count");
    let mut first = 1;
    for _ in 0..2 {
        replica.stop();
        there.execute("ALTER SUBSCRIPTION native ENABLE");
        primary.wait_confirmed(&source, "native", &primary.lsn(&source));
        let (visible, durable) = measure(&primary, &there, first, count, rate);
        first += count;
        print("native", "committed there to visible here", visible);
        print("native", "flush_lag (not durable at once)", durable);
        there.execute("ALTER SUBSCRIPTION native DISABLE");
        wait_until(|| source.value("SELECT count(*) FROM pg_stat_replication") == "0", || "native to leave".into());
        replica.start_again();
        replica.catch_up(&primary, &source);
        let (visible, durable) = measure(&primary, &replica.db(), first, count, rate);
        first += count;
        print("ours", "committed there to visible here", visible);
        print("ours", "flush_lag (durable)", durable);
    }
}
