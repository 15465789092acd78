//! What a user may choose about a store.

use std::path::Path;

/// The part of the machine's memory that nodes may take.
const CACHE_SHARE: u64 = 4;
/// What a machine is taken to have that does not say.
const MEMORY_SIZE_GUESS: u64 = 4 << 30;

/// What a user may choose about a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long a group of commits may wait for its sync under load.
    pub group_commit_ms_max: u64,
    /// Bytes of nodes (of tables and indexes) in memory: what is above is written, if need be, and read again when it is used.
    /// Tables may be larger.
    pub cache_size_max: u64,
    /// The space of what nothing refers to any more is given back in the background, when there is enough of it.
    pub auto_compaction: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { group_commit_ms_max: 5, cache_size_max: default_cache_size(), auto_compaction: true }
    }
}

/// A quarter of the memory that this process may use: the machine's, or its control group's limit if that is lower.
pub(crate) fn default_cache_size() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let machine = read("/proc/meminfo").and_then(|text| memory_total(&text));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = group.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    group.chain(machine).min().unwrap_or(MEMORY_SIZE_GUESS) / CACHE_SHARE
}

/// Bytes, from what Linux says about its memory.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read_in_kilobytes() {
        let meminfo = "MemTotal:       24594692 kB\nMemFree:        14984412 kB\n";
        assert_eq!(memory_total(meminfo), Some(24_594_692 * 1024));
        assert_eq!(memory_total("MemFree: 3 kB"), None);
        assert_eq!(memory_total("MemTotal: much"), None);
        assert!(default_cache_size() > 0);
    }
}
