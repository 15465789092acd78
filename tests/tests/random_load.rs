//! A thousand random transactions: every table equals the primary's, every transaction is one commit with the
//! primary's coordinates, and every commit's moment can be read again.

use strandline_tests::sample::{self, Load, Picture, TABLES};
use strandline_tests::{Db, Primary, Replica, replica::Options};

/// What the primary was after one transaction.
struct Moment {
    lsn: String,
    xid: String,
    commit_time: String,
    pictures: Vec<Picture>,
    touched: Vec<usize>,
}

fn run_load(source: &Db, load: &mut Load, count: usize) -> Vec<Moment> {
    let mut pictures: Vec<Picture> = TABLES.iter().map(|t| sample::picture(source, t)).collect();
    (0..count)
        .map(|_| {
            let transaction = load.transaction();
            source.execute("BEGIN");
            source.execute(&transaction.sql);
            let xid = source.value("SELECT txid_current()");
            source.execute("COMMIT");
            for table in &transaction.tables {
                pictures[*table] = sample::picture(source, TABLES[*table]);
            }
            Moment {
                lsn: source.value("SELECT pg_current_wal_insert_lsn()"),
                commit_time: source.value(&format!("SELECT pg_xact_commit_timestamp('{xid}'::xid)")),
                xid,
                pictures: pictures.clone(),
                touched: transaction.tables,
            }
        })
        .collect()
}

#[test]
fn a_thousand_random_transactions_arrive_whole_and_can_be_read_at_every_moment() {
    let primary = Primary::start(&["track_commit_timestamp = on"]);
    let source = primary.db();
    source.execute("SET timezone = 'UTC'");
    source.execute(sample::SCHEMA);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let replica = Replica::start(Some(&primary), &Options::default());
    // The copy of the (empty) tables is the base; the load begins after it.
    replica.catch_up(&primary, &source);
    let db = replica.db();
    db.execute("SET timezone = 'UTC'");

    let seed = 20_261_121;
    let moments = run_load(&source, &mut Load::new(seed), 1000);
    replica.catch_up(&primary, &source);

    for table in TABLES {
        assert_eq!(sample::picture(&db, table), sample::picture(&source, table), "{table} differs (seed {seed})");
        let count = db.value(&format!("SELECT count(*) FROM {table}"));
        assert_eq!(count, source.value(&format!("SELECT count(*) FROM {table}")), "count of {table}");
    }

    // One commit per transaction, in order, with the primary's coordinates.
    let log = db.lines("SELECT source_xid, source_commit_time FROM dolt_log WHERE source_xid IS NOT NULL ORDER BY commit_order DESC");
    let expected: Vec<String> = moments.iter().rev().map(|m| format!("{}|{}", m.xid, m.commit_time)).collect();
    assert_eq!(log[..moments.len()], expected[..]);
    let bad = db.value("SELECT count(*) FROM dolt_log WHERE source_xid IS NOT NULL AND source_lsn IS NULL");
    assert_eq!(bad, "0");

    // What the primary had then: the touched tables at every commit, all tables at every fiftieth.
    for (number, moment) in moments.iter().enumerate() {
        for (index, table) in TABLES.iter().enumerate() {
            if moment.touched.contains(&index) && number % 5 == 0 || number % 50 == 0 {
                let then = sample::picture(&db, &format!("{table} AS OF LSN '{}'", moment.lsn));
                assert_eq!(then, moment.pictures[index], "{table} at {} (transaction {number}, seed {seed})", moment.lsn);
            }
        }
    }
    // By xid and by commit time as well.
    for moment in moments.iter().step_by(125) {
        for (index, table) in TABLES.iter().enumerate() {
            assert_eq!(sample::picture(&db, &format!("{table} AS OF XID {}", moment.xid)), moment.pictures[index]);
            assert_eq!(
                sample::picture(&db, &format!("{table} AS OF TIMESTAMP '{}'", moment.commit_time.trim_end_matches("+00"))),
                moment.pictures[index]
            );
        }
    }
    // Looking a transaction up finds what reading all commits finds.
    for moment in moments.iter().step_by(97) {
        let commits = |filter: String| db.lines(&format!("SELECT commit_hash FROM dolt_log WHERE {filter}"));
        let found = commits(format!("source_xid = {}", moment.xid));
        assert_eq!(found.len(), 1);
        let lsn = db.value(&format!("SELECT source_lsn FROM dolt_log WHERE source_xid = {}", moment.xid));
        assert_eq!(found, commits(format!("source_xid + 0 = {}", moment.xid)));
        assert_eq!(found, commits(format!("source_lsn = '{}'", lsn)));
        assert_eq!(found, commits(format!("source_lsn = '{}' AND source_xid = {}", lsn, moment.xid)));
        assert_eq!(commits(format!("source_lsn = '{}' AND source_xid = 1", lsn)), Vec::<String>::new());
    }
    assert_eq!(db.value("SELECT count(*) FROM dolt_log"), db.lines("SELECT message FROM dolt_log").len().to_string());
    assert_eq!(replica.complaints(), Vec::<String>::new());
}

#[test]
fn diffs_and_history_show_exactly_what_the_transactions_changed() {
    let primary = Primary::start(&["track_commit_timestamp = on"]);
    let source = primary.db();
    source.execute("SET timezone = 'UTC'");
    source.execute(sample::SCHEMA);
    source.execute("CREATE PUBLICATION strandline FOR ALL TABLES");
    let replica = Replica::start(Some(&primary), &Options::default());
    replica.catch_up(&primary, &source);
    let base = replica.db().value("SELECT dolt_hashof('HEAD')");

    let seed = 7;
    let moments = run_load(&source, &mut Load::new(seed), 60);
    replica.catch_up(&primary, &source);
    let db = replica.db();
    db.execute("SET timezone = 'UTC'");

    // t_pk gains a row in every transaction; its pictures' differences are the truth.
    let commits = db.rows("SELECT commit_hash, source_xid FROM dolt_log WHERE source_xid IS NOT NULL ORDER BY commit_order");
    let offset = commits.len() - moments.len();
    for (number, moment) in moments.iter().enumerate().skip(1) {
        let before: Vec<&String> = moments[number - 1].pictures[0].iter().filter(|l| !moment.pictures[0].contains(l)).collect();
        let after: Vec<&String> = moment.pictures[0].iter().filter(|l| !moments[number - 1].pictures[0].contains(l)).collect();
        let commit = commits[offset + number][0].clone().unwrap();
        let columns = |side: &str| ["id", "a", "b", "c", "d"].map(|c| format!("{side}_{c}")).join(", ");
        for relation in [format!("dolt_diff('{commit}~1', '{commit}', 't_pk')"), format!("dolt_diff_t_pk WHERE to_commit = '{commit}'")] {
            let keyword = if relation.contains("WHERE") { "AND" } else { "WHERE" };
            let picture = |side: &str, types: &str| {
                let mut lines: Vec<String> = db
                    .rows(&format!("SELECT {} FROM {relation} {keyword} diff_type IN ({types})", columns(side)))
                    .iter()
                    .map(|row| row.iter().map(|v| v.as_deref().unwrap_or("\\N")).collect::<Vec<_>>().join("|"))
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(picture("from", "'modified', 'removed'"), before.iter().map(|l| (*l).clone()).collect::<Vec<_>>(), "{relation}");
            assert_eq!(picture("to", "'modified', 'added'"), after.iter().map(|l| (*l).clone()).collect::<Vec<_>>(), "{relation}");
        }
    }

    // Each row at every commit in which it existed.
    let total: usize = moments.iter().map(|m| m.pictures[0].len()).sum();
    let at_base = db.value(&format!("SELECT count(*) FROM t_pk AS OF '{base}'")).parse::<usize>().unwrap();
    assert_eq!(at_base, 0);
    assert_eq!(db.value("SELECT count(*) FROM dolt_history_t_pk"), total.to_string());
    let last = &moments[moments.len() - 1].pictures[0];
    let id = last.last().unwrap().split('|').next().unwrap();
    let lived = moments.iter().filter(|m| m.pictures[0].iter().any(|l| l.split('|').next() == Some(id))).count();
    assert_eq!(db.value(&format!("SELECT count(*) FROM dolt_history_t_pk WHERE id = {id}")), lived.to_string());
}
