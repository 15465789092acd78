//! The bytes of a store by kind: `STRANDLINE_BENCH_STORE` names its data directory, `STRANDLINE_BENCH_TRANSACTIONS` by how many to divide.
//! Without a directory there is nothing to measure.

#[path = "pgbench/report.rs"]
mod report;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(path) = std::env::var_os("STRANDLINE_BENCH_STORE") {
        let count = std::env::var("STRANDLINE_BENCH_TRANSACTIONS")?.parse()?;
        report::print_sizes(&strandline_storage::sizes(path.as_ref())?, &[], count);
    }
    Ok(())
}
