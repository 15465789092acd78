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

    /// `kept_at`: the record that said last which root values are kept (see `Checkpoints::kept_at`). What was written before that
    /// does not count any more.
    pub fn root(&self, commit: &CommitId, kept_at: Option<u64>) -> Option<ChunkAddress> {
        let found = self.roots()?.tree.get(commit.0).ok()??;
        let (address, noted) = found.split_first_chunk::<32>()?;
        (*noted == kept_bytes(kept_at)[..]).then_some(ChunkAddress(*address))
    }

    pub fn put_root(&self, commit: &CommitId, address: &ChunkAddress, kept_at: Option<u64>) {
        if let Some(roots) = self.roots() {
            let value = [&address.0[..], &kept_bytes(kept_at)].concat();
            // Forgetting a fact costs time only. It took longer to find than it takes to sync.
            let _ = roots.tree.insert(commit.0, value).and_then(|_| roots.tree.flush());
        }
    }
}

/// Nothing as long as nothing was removed.
fn kept_bytes(kept_at: Option<u64>) -> Vec<u8> {
    kept_at.map_or_else(Vec::new, |sequence| sequence.to_le_bytes().to_vec())
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
        derived.put_root(&commit, &address, None);
        assert_eq!(derived.root(&commit, None), Some(address));
        drop(derived);
        assert_eq!(Derived::new(Some(path.clone())).root(&commit, None), Some(address));
        for name in ["conf", "db"] {
            std::fs::write(path.join(name), vec![0xAA; 3000]).unwrap();
        }
        let derived = Derived::new(Some(path));
        assert_eq!(derived.root(&commit, None), None);
        derived.put_root(&commit, &address, None);
        assert_eq!(derived.root(&commit, None), Some(address));
    }

    #[test]
    fn what_was_written_before_others_were_removed_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let derived = Derived::new(Some(folder.path().join("derived")));
        let (commit, address) = (CommitId([1; 32]), ChunkAddress([2; 32]));
        for kept_at in [None, Some(7), Some(300)] {
            assert_eq!(derived.root(&commit, kept_at), None);
            derived.put_root(&commit, &address, kept_at);
            assert_eq!(derived.root(&commit, kept_at), Some(address));
        }
        assert_eq!(derived.root(&commit, Some(7)), None);
    }
}
