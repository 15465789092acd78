//! The few things that the store asks of a file system, so that tests can make them fail.
//!
//! [`RealDisk`] is the operating system. `SimulatedDisk`, for tests, keeps files in memory, records what was done, fails
//! the operation it is told to fail, and gives the images that a power loss could leave; `docs/testing-the-store.md` has
//! what it simulates.
//!
//! What a caller may rely on after a power loss: the bytes and the size of a file that was synced since they changed,
//! and the names in a folder that was synced since they changed. Nothing else, and in no order.

mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use real::RealDisk;
#[cfg(test)]
pub(crate) use simulated::SimulatedDisk;

/// A file system.
pub(crate) trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a folder in one that exists; `false` when it is there already.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// The names of the files in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; with `create`, makes it when it is missing.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name in the same folder, in the place of one that has it; or a folder a name that nothing has.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. What has it open or mapped keeps it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file, made when it is missing, which lasts as long as what is returned; `None` when
    /// another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// The same lock without writing anything; there is nothing to lock where the file is missing.
    fn lock_read(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
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
    /// The whole file, mapped where the disk can do that. It must not be written again while the bytes are in use; it may be removed.
    fn map(&self) -> io::Result<FileBytes> {
        let mut bytes = vec![0; self.size()? as usize];
        self.read_at(&mut bytes, 0)?;
        Ok(FileBytes::Loaded(bytes))
    }
}

/// A whole file's bytes, read by the operating system where they are touched, or in memory.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(memmap2::Mmap),
    Loaded(Vec<u8>),
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Loaded(bytes) => bytes,
        }
    }
}

/// Makes a folder and those above it that are missing, and makes their names durable. The name of the folder itself
/// becomes durable even if it was there: a process may have made it and been killed before it synced.
pub(crate) fn create_dirs(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match disk.create_dir(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dirs(disk, parent.ok_or(error)?)?;
            disk.create_dir(path)?;
        }
        Err(error) => return Err(error),
    }
    disk.sync_dir(parent.unwrap_or(Path::new(".")))
}
