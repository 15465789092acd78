//! What survives: a standard workload on a simulated disk that loses power, fails, is full and rots, compared with a model.
//!
//! `docs/testing-the-store.md` says what is simulated and how to run all of it. Every failure prints a line with which it
//! can be seen again alone.

mod bit_flips;
mod check;
mod failures;
mod model;
mod power_loss;
mod workload;

/// How many cases a campaign tries: `few` in CI, `all` with `STRANDLINE_TEST_SCALE=full`, or the number given there.
fn case_count(few: usize, all: usize) -> usize {
    match std::env::var("STRANDLINE_TEST_SCALE").as_deref() {
        Ok("full") => all,
        Ok(count) => count.parse().expect("STRANDLINE_TEST_SCALE is \"full\" or a number"),
        Err(_) => few,
    }
}

/// The case to see again: the name of the campaign and numbers.
fn replayed(campaign: &str) -> Option<Vec<u64>> {
    let replay = std::env::var("STRANDLINE_TEST_REPLAY").ok()?;
    let (name, numbers) = replay.split_once(':').expect("STRANDLINE_TEST_REPLAY is as it was printed");
    // Other campaigns have nothing to do then.
    Some(if name == campaign { numbers.split(':').map(|n| n.parse().expect("a number")).collect() } else { Vec::new() })
}
