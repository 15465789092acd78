//! What a user may choose about a store.

/// What a user may choose about a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long a group of commits may wait for its sync under load.
    pub group_commit_ms_max: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions { group_commit_ms_max: 5 }
    }
}
