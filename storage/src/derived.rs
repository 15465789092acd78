//! The cache of derived facts, in sled: which root values of commits were written when somebody asked for them.
//!
//! Everything here can be found again from the journal. A cache that does not open, or answers wrongly, is deleted or
//! ignored; see `docs/design/0002-sled.md` for why nothing else is kept in sled.

use std::path::Path;

use crate::id::{ChunkAddress, CommitId};

/// sled's own cache in memory; the facts are few.
const CACHE_SIZE: u64 = 1 << 20;

/// The cache; empty and forgetful when it could not be opened.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    roots: Option<sled::Tree>,
    // Kept open as long as its tree.
    _database: Option<sled::Db>,
}

impl Derived {
    pub fn open(folder: &Path) -> Derived {
        let open = || {
            let database = sled::Config::new().path(folder).cache_capacity(CACHE_SIZE).flush_every_ms(Some(1000)).open()?;
            let roots = database.open_tree("commit roots")?;
            Ok::<_, sled::Error>(Derived { roots: Some(roots), _database: Some(database) })
        };
        open().or_else(|error| {
            tracing::warn!(%error, path = %folder.display(), "deleted a cache of derived facts that did not open");
            let _ = std::fs::remove_dir_all(folder);
            open()
        })
        .unwrap_or_else(|error| {
            tracing::warn!(%error, path = %folder.display(), "could not open the cache of derived facts; going on without");
            Derived::default()
        })
    }

    pub fn root(&self, commit: &CommitId) -> Option<ChunkAddress> {
        let found = self.roots.as_ref()?.get(commit.0).ok()??;
        Some(ChunkAddress(found.as_ref().try_into().ok()?))
    }

    pub fn put_root(&self, commit: &CommitId, address: &ChunkAddress) {
        if let Some(roots) = &self.roots {
            // Forgetting a fact costs time only.
            let _ = roots.insert(commit.0, &address.0);
        }
    }
}
