//! Questions about the past, in SQL, against the number of commits: their times are to stay flat.
//!
//! Stores of 10^3, 10^4, 10^5 and 10^6 of pgbench's transactions (`STRANDLINE_BENCH_COMMITS` sets the largest), each with a server of its own,
//! are asked in turn by prepared statements over the wire, on one connection each. A hundred rows changed ten times each, evenly over the
//! commits; every question is about a random one of them, or about a random commit (`STRANDLINE_BENCH_SAMPLES` of each, 300). Prints medians
//! in microseconds, and the largest of a line divided by the first. What costs its output (a row's history, a version for each
//! commit) is asked once. `STRANDLINE_TEST_BIN` names the server's binary; the default is the one that was last built for tests.

#[path = "../../storage/benches/pgbench/asked.rs"]
mod asked;
#[path = "../../storage/benches/pgbench/mod.rs"]
mod pgbench;

use std::time::Instant;

use strandline_tests::replica::{Options, Replica};
use tokio_postgres::{Client, NoTls, Statement, types::ToSql, types::Type};

use asked::{CHANGE_COUNT, ROW_COUNT, SIZES, make};
use pgbench::{Outcome, Random, meta, setting};

/// What a parameter of a question is, of a random commit or row.
#[derive(Clone, Copy)]
enum Parameter {
    Commit,
    Parent,
    Row,
    Lsn,
    /// As a ref: `xid:735`.
    Xid,
    Time,
}

struct Question {
    name: &'static str,
    sql: &'static str,
    parameters: &'static [Parameter],
    rows: std::ops::RangeInclusive<usize>,
}

const QUESTIONS: [Question; 12] = [
    Question { name: "SELECT 1", sql: "SELECT 1", parameters: &[], rows: 1..=1 },
    Question { name: "dolt_log LIMIT 20", sql: "SELECT * FROM dolt_log LIMIT 20", parameters: &[], rows: 20..=20 },
    Question {
        name: "dolt_log(commit) LIMIT 20",
        sql: "SELECT * FROM dolt_log($1) LIMIT 20",
        parameters: &[Parameter::Commit],
        rows: 3..=20,
    },
    Question {
        name: "dolt_diff_t, a row's changes",
        sql: "SELECT * FROM dolt_diff_accounts WHERE to_id = $1",
        parameters: &[Parameter::Row],
        // And the load, which gave the row its first version.
        rows: CHANGE_COUNT as usize + 1..=CHANGE_COUNT as usize + 1,
    },
    Question {
        name: "dolt_blame_t of a row",
        sql: "SELECT * FROM dolt_blame_accounts WHERE id = $1",
        parameters: &[Parameter::Row],
        rows: 1..=1,
    },
    Question {
        name: "a row AS OF a commit",
        sql: "SELECT * FROM accounts AS OF $1 WHERE id = $2",
        parameters: &[Parameter::Commit, Parameter::Row],
        rows: 1..=1,
    },
    Question {
        name: "dolt_diff() of neighbours",
        sql: "SELECT * FROM dolt_diff($1, $2, 'accounts')",
        parameters: &[Parameter::Parent, Parameter::Commit],
        // An update by nothing changes no row.
        rows: 0..=1,
    },
    Question {
        name: "dolt_diff_t of one commit",
        sql: "SELECT * FROM dolt_diff_accounts WHERE to_commit = $1",
        parameters: &[Parameter::Commit],
        rows: 0..=1,
    },
    Question { name: "LSN to commit", sql: "SELECT dolt_hashof($1)", parameters: &[Parameter::Lsn], rows: 1..=1 },
    Question { name: "xid to commit", sql: "SELECT dolt_hashof($1)", parameters: &[Parameter::Xid], rows: 1..=1 },
    Question { name: "time to commit", sql: "SELECT dolt_hashof($1)", parameters: &[Parameter::Time], rows: 1..=1 },
    Question {
        name: "dolt_history_t of a row LIMIT 20",
        sql: "SELECT * FROM dolt_history_accounts WHERE id = $1 LIMIT 20",
        parameters: &[Parameter::Row],
        rows: 20..=20,
    },
];

struct Server {
    // Ends with this.
    _replica: Replica,
    client: Client,
    size: u64,
    statements: Vec<Statement>,
    /// Hashes and times of the transactions' commits, the first one's first, with the load's before them.
    commits: Vec<(String, String)>,
}

impl Server {
    async fn connect(replica: Replica, size: u64) -> Outcome<Server> {
        let (client, connection) = tokio_postgres::connect(&replica.conninfo("postgres"), NoTls).await?;
        tokio::spawn(connection);
        let mut commits = Vec::new();
        let sql = "SELECT commit_hash, source_commit_time::text FROM dolt_log WHERE source_lsn IS NOT NULL";
        for row in client.query(sql, &[]).await? {
            commits.push((row.get(0), row.get(1)));
        }
        commits.reverse();
        let mut statements = Vec::new();
        for question in &QUESTIONS {
            let types: Vec<Type> =
                question.parameters.iter().map(|parameter| if let Parameter::Row = parameter { Type::INT4 } else { Type::TEXT }).collect();
            statements.push(client.prepare_typed(question.sql, &types).await?);
        }
        Ok(Server { _replica: replica, client, size, statements, commits })
    }

    /// Microseconds that the answer took.
    async fn ask(&self, question: usize, random: u64) -> Outcome<f64> {
        let Question { name, parameters, rows, .. } = &QUESTIONS[question];
        // The third commit has twenty or fewer before it, as any later one.
        let n = 3 + (random >> 33) % (self.size - 2);
        let row = (random.rotate_left(20) >> 33) as i32 % ROW_COUNT as i32;
        let source = meta(n).source.ok_or("no source")?;
        let values: Vec<Box<dyn ToSql + Sync>> = parameters
            .iter()
            .map(|parameter| -> Box<dyn ToSql + Sync> {
                match parameter {
                    Parameter::Commit => Box::new(self.commits[n as usize].0.clone()),
                    Parameter::Parent => Box::new(self.commits[n as usize - 1].0.clone()),
                    Parameter::Row => Box::new(row),
                    Parameter::Lsn => Box::new(format!("lsn:{}", source.commit_lsn)),
                    Parameter::Xid => Box::new(format!("xid:{}", source.xid)),
                    Parameter::Time => Box::new(self.commits[n as usize].1.clone()),
                }
            })
            .collect();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value).collect();
        let started = Instant::now();
        let answer = self.client.query(&self.statements[question], &values).await?;
        let time = started.elapsed().as_secs_f64() * 1e6;
        let is_commit = matches!(parameters, [Parameter::Lsn | Parameter::Xid | Parameter::Time]);
        if !rows.contains(&answer.len()) || is_commit && answer[0].get::<_, &str>(0) != self.commits[n as usize].0 {
            return Err(format!("{name}: a wrong answer at {} commits, about number {n}: {} rows", self.size, answer.len()).into());
        }
        Ok(time)
    }
}

fn print_line(what: &str, times: &[f64]) {
    print!("{what:<34}");
    times.iter().for_each(|time| print!(" {time:>10.0}"));
    let largest = times.iter().copied().fold(0.0, f64::max);
    println!(" {:>10.2}", largest / times.first().copied().unwrap_or_default());
}

fn main() -> Outcome<()> {
    let accounts = setting("STRANDLINE_BENCH_ACCOUNTS", 100_000).max(1000) as i32;
    let commits = setting("STRANDLINE_BENCH_COMMITS", 1_000_000);
    let samples = setting("STRANDLINE_BENCH_SAMPLES", 300);
    let sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= commits).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut servers = Vec::new();
    for size in &sizes {
        let mut replica = Replica::prepare(None, &Options::default());
        make(&replica.data_dir(), *size, accounts)?.close()?;
        replica.start_again();
        servers.push(runtime.block_on(Server::connect(replica, *size))?);
    }
    print!("{:<34}", "SQL, median us, by commits");
    sizes.iter().for_each(|size| print!(" {size:>10}"));
    println!(" {:>10}", "max/first");
    let mut times = vec![vec![Vec::new(); servers.len()]; QUESTIONS.len()];
    runtime.block_on(async {
        let mut random = Random::new();
        for _ in 0..samples {
            for (question, times) in times.iter_mut().enumerate() {
                for (server, times) in servers.iter().zip(times) {
                    times.push(server.ask(question, random.next()).await?);
                }
            }
        }
        Outcome::Ok(())
    })?;
    for (question, times) in QUESTIONS.iter().zip(&mut times) {
        let medians = times.iter_mut().map(|times| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or_default()
        });
        print_line(question.name, &medians.collect::<Vec<_>>());
    }
    for (name, sql) in [
        ("one row in dolt_history_t, count", "SELECT count(*) FROM dolt_history_accounts WHERE id = 1"),
        ("one row in dolt_history_t, all rows", "SELECT * FROM dolt_history_accounts WHERE id = 1"),
    ] {
        let mut times = Vec::new();
        for server in &servers {
            let started = Instant::now();
            // A simple query: its rows come as text, as psql has them.
            let messages = runtime.block_on(server.client.simple_query(sql))?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
            assert!(!messages.is_empty());
        }
        print_line(name, &times);
    }
    Ok(())
}
