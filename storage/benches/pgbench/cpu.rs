//! What a process has computed so far, by thread.

#![allow(dead_code, reason = "not every benchmark asks for all")]

use std::collections::BTreeMap;
use std::fs;

/// CPU time in microseconds by name of the thread, of threads that live; the benchmark's own is "main". Empty where the system does not tell.
pub fn by_thread() -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    let own = std::process::id().to_string();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let name = if *thread.file_name() == *own { "main".into() } else { read("comm").trim().to_owned() };
        let ns: f64 = read("schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
        *times.entry(name).or_default() += ns / 1000.0;
    }
    times
}

/// The CPU time of each thread since `before`, as text, by so many.
pub fn since(before: &BTreeMap<String, f64>, count: f64) -> String {
    let parts = by_thread().into_iter().map(|(name, us)| format!("{name} {:.2}", (us - before.get(&name).unwrap_or(&0.0)) / count));
    parts.collect::<Vec<_>>().join(", ")
}

/// Milliseconds, of all cores, that a virtual machine's host has given to others since it started; 0 where the system does not tell. While there
/// are many of them, elapsed times say little.
pub fn stolen_ms() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: f64 = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0.0);
    ticks * 10.0
}
