//! The cache of derived facts, in sled: which root values of commits were written when somebody asked for them.
//!
//! Everything here can be found again from the journal. A cache that does not open, or answers wrongly, is deleted or
//! ignored; see `docs/design/0002-sled.md` for why nothing else is kept in sled.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::id::{ChunkAddress, CommitId};

/// sled's own cache in memory; the facts are few.
const CACHE_SIZE: u64 = 1 << 20;

/// The cache, opened when it is first asked; without a folder, or where it does not open, it knows nothing.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    folder: Option<PathBuf>,
    roots: OnceLock<Option<Roots>>,
}

#[derive(Debug)]
struct Roots {
    tree: sled::Tree,
    /// Kept open as long as its tree.
    _database: sled::Db,
}

impl Derived {
    pub fn new(folder: Option<PathBuf>) -> Derived {
        Derived { folder, roots: OnceLock::new() }
    }

    fn roots(&self) -> Option<&Roots> {
        let folder = self.folder.as_ref()?;
        let opened = self.roots.get_or_init(|| {
            let first = open(folder);
            let opened = first.or_else(|error| {
                tracing::warn!(%error, path = %folder.display(), "a cache of derived facts did not open and is made anew");
                // What could not be deleted does not open again, which the next line says.
                let _ = std::fs::remove_dir_all(folder);
                open(folder)
            });
            opened.inspect_err(|error| tracing::warn!(%error, "could not make the cache of derived facts; going on without")).ok()
        });
        opened.as_ref()
    }

    pub fn root(&self, commit: &CommitId) -> Option<ChunkAddress> {
        let found = self.roots()?.tree.get(commit.0).ok()??;
        Some(ChunkAddress(found.as_ref().try_into().ok()?))
    }

    pub fn put_root(&self, commit: &CommitId, address: &ChunkAddress) {
        if let Some(roots) = self.roots() {
            // Forgetting a fact costs time only. It took longer to find than it takes to sync.
            let _ = roots.tree.insert(commit.0, &address.0).and_then(|_| roots.tree.flush());
        }
    }
}

/// Opens the cache. Without a thread that flushes it, which would hold its lock for a while after it is closed. sled panics on some damaged files; that is no more than an error here.
fn open(folder: &Path) -> Result<Roots, String> {
    let open = || -> Result<Roots, sled::Error> {
        let database = sled::Config::new().path(folder).cache_capacity(CACHE_SIZE).flush_every_ms(None).open()?;
        Ok(Roots { tree: database.open_tree("commit roots")?, _database: database })
    };
    match std::panic::catch_unwind(open) {
        Ok(opened) => opened.map_err(|e| e.to_string()),
        Err(_) => Err("it is damaged".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_does_not_open_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("derived");
        let (commit, address) = (CommitId([1; 32]), ChunkAddress([2; 32]));
        let derived = Derived::new(Some(path.clone()));
        derived.put_root(&commit, &address);
        assert_eq!(derived.root(&commit), Some(address));
        drop(derived);
        assert_eq!(Derived::new(Some(path.clone())).root(&commit), Some(address));
        for name in ["conf", "db"] {
            std::fs::write(path.join(name), vec![0xAA; 3000]).unwrap();
        }
        let derived = Derived::new(Some(path));
        assert_eq!(derived.root(&commit), None);
        derived.put_root(&commit, &address);
        assert_eq!(derived.root(&commit), Some(address));
    }
}
