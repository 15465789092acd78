//! Stores for questions about the past: a hundred accounts that changed ten times each, evenly over all commits.

use std::path::Path;
use std::sync::Arc;

use strandline_storage::commit::CommitMeta;
use strandline_storage::{Store, StoreOptions};

use crate::pgbench::{Outcome, Random, load, transact};

pub const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
pub const ROW_COUNT: u64 = 100;
pub const CHANGE_COUNT: u64 = 10;

/// The account that transaction `n` changes: now and then one of those asked about, otherwise any other.
fn account(n: u64, size: u64, accounts: i32, random: u64) -> i32 {
    let step = size / (ROW_COUNT * CHANGE_COUNT);
    if step > 0 && n.is_multiple_of(step) {
        return ((n / step - 1) % ROW_COUNT) as i32;
    }
    ROW_COUNT as i32 + ((random >> 33) % (accounts as u64 - ROW_COUNT)) as i32
}

/// Makes a store with so many transactions.
pub fn make(path: &Path, size: u64, accounts: i32) -> Outcome<Arc<Store>> {
    let store = Store::open(path, StoreOptions::default())?;
    store.create_database("postgres", CommitMeta::default())?;
    let branch = store.branch("postgres", "main")?;
    load(&store, &branch, accounts)?;
    let mut random = Random::new();
    for n in 1..=size {
        let random = random.next();
        transact(&branch, n, account(n, size, accounts, random), random)?;
    }
    store.sync()?;
    Ok(store)
}
