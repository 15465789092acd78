//! The few things that the journal asks of a file system, so that tests can make them fail.
//!
//! [`RealDisk`] is the operating system. [`FaultyDisk`], for tests, keeps files in memory, fails the operation it is
//! told to fail, and gives the image that a crash would leave.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
pub(crate) use faulty::FaultyDisk;

/// A file system.
pub(crate) trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a folder and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; with `create`, makes it when it is missing.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file, which lasts as long as what is returned; `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + std::fmt::Debug {
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Returns when the file's bytes and size are durable.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(e)) => return Err(e),
        }
        // Who holds the lock, for people who look; the lock itself is the operating system's.
        let owner = format!("{}\n", std::process::id());
        file.set_len(0)?;
        file.write_all_at(owner.as_bytes(), 0)?;
        Ok(Some(Box::new(file)))
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod faulty {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use parking_lot::Mutex;

    use super::*;

    /// Files in memory. What was written since a file's last sync is lost, or kept in part, by [`FaultyDisk::crash`].
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FaultyDisk {
        state: Arc<Mutex<State>>,
    }

    #[derive(Debug, Default)]
    struct State {
        files: BTreeMap<PathBuf, Content>,
        operation_count: u64,
        fail_at: Option<u64>,
        locked: bool,
    }

    #[derive(Clone, Debug, Default)]
    struct Content {
        now: Vec<u8>,
        durable: Vec<u8>,
        /// Writes since the last sync: (offset, bytes).
        pending: Vec<(u64, Vec<u8>)>,
    }

    impl State {
        fn count(&mut self) -> io::Result<()> {
            self.operation_count += 1;
            if self.fail_at.is_some_and(|n| self.operation_count >= n) {
                return Err(io::Error::other("injected"));
            }
            Ok(())
        }
    }

    impl FaultyDisk {
        /// Makes the `n`-th writing operation from now, and all later ones, fail.
        pub fn fail_after(&self, n: u64) {
            let mut state = self.state.lock();
            state.fail_at = Some(state.operation_count + n);
        }

        /// What is on the disk after a power loss: of the writes since the last sync, those for which `keep` says so, cut to the size it says.
        pub fn crash(&self, mut keep: impl FnMut(usize) -> Option<usize>) -> FaultyDisk {
            let state = self.state.lock();
            let mut files = BTreeMap::new();
            for (path, content) in &state.files {
                let mut bytes = content.durable.clone();
                for (offset, written) in &content.pending {
                    if let Some(size) = keep(written.len()) {
                        write(&mut bytes, *offset, &written[..size.min(written.len())]);
                    }
                }
                files.insert(path.clone(), Content { now: bytes.clone(), durable: bytes, pending: Vec::new() });
            }
            FaultyDisk { state: Arc::new(Mutex::new(State { files, ..State::default() })) }
        }

        /// A copy of what processes see now, as after `kill -9`.
        pub fn copy(&self) -> FaultyDisk {
            self.crash(Some)
        }

        pub fn file(&self, name: &str) -> Option<Vec<u8>> {
            let state = self.state.lock();
            state.files.iter().find(|(path, _)| path.ends_with(name)).map(|(_, c)| c.now.clone())
        }

        pub fn remove_file(&self, name: &str) {
            self.state.lock().files.retain(|path, _| !path.ends_with(name));
        }

        pub fn put_file(&self, name: &str, bytes: Vec<u8>) {
            let mut state = self.state.lock();
            let content = state.files.iter_mut().find(|(path, _)| path.ends_with(name)).map(|(_, c)| c).unwrap();
            *content = Content { now: bytes.clone(), durable: bytes, pending: Vec::new() };
        }
    }

    fn write(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
        let end = offset as usize + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(written);
    }

    #[derive(Debug)]
    struct FaultyFile {
        disk: FaultyDisk,
        path: PathBuf,
    }

    #[derive(Debug)]
    struct Unlock(FaultyDisk);

    impl Drop for Unlock {
        fn drop(&mut self) {
            self.0.state.lock().locked = false;
        }
    }

    impl Disk for FaultyDisk {
        fn create_dir(&self, _path: &Path) -> io::Result<()> {
            self.state.lock().count()
        }

        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            let state = self.state.lock();
            let names = state.files.keys().filter(|p| p.parent() == Some(path));
            Ok(names.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
        }

        fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            let mut state = self.state.lock();
            if !state.files.contains_key(path) {
                if !create {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.count()?;
                state.files.insert(path.into(), Content::default());
            }
            Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.into() }))
        }

        fn sync_dir(&self, _path: &Path) -> io::Result<()> {
            self.state.lock().count()
        }

        fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.locked, true) {
                return Ok(None);
            }
            Ok(Some(Box::new(Unlock(self.clone()))))
        }
    }

    impl DiskFile for FaultyFile {
        fn size(&self) -> io::Result<u64> {
            Ok(self.disk.state.lock().files[&self.path].now.len() as u64)
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let state = self.disk.state.lock();
            let bytes = state.files[&self.path].now.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut state = self.disk.state.lock();
            state.count()?;
            let content = state.files.get_mut(&self.path).unwrap();
            write(&mut content.now, offset, bytes);
            content.pending.push((offset, bytes.to_vec()));
            Ok(())
        }

        fn set_size(&self, size: u64) -> io::Result<()> {
            let mut state = self.disk.state.lock();
            state.count()?;
            let content = state.files.get_mut(&self.path).unwrap();
            content.now.resize(size as usize, 0);
            // A truncation is taken as durable at once: the journal never relies on it.
            content.durable = content.now.clone();
            content.pending.clear();
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            let mut state = self.disk.state.lock();
            state.count()?;
            let content = state.files.get_mut(&self.path).unwrap();
            content.durable = content.now.clone();
            content.pending.clear();
            Ok(())
        }
    }
}
