//! The operating system's file system.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, FileBytes};

/// The operating system's file system.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match std::fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let Some(file) = try_lock(file)? else { return Ok(None) };
        // Who holds the lock, for people who look; the lock itself is the operating system's.
        let owner = format!("{}\n", std::process::id());
        file.set_len(0)?;
        file.write_all_at(owner.as_bytes(), 0)?;
        Ok(Some(Box::new(file)))
    }

    fn lock_read(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        match File::open(path) {
            Ok(file) => Ok(try_lock(file)?.map(|file| Box::new(file) as Box<dyn Any + Send + Sync>)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Box::new(()))),
            Err(error) => Err(error),
        }
    }
}

fn try_lock(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
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

    fn map(&self) -> io::Result<FileBytes> {
        // SAFETY: the bytes must not change while they are borrowed. The data directory is locked by this process, which
        // writes no file that it has mapped; and who uses the bytes checks them first.
        Ok(FileBytes::Mapped(unsafe { memmap2::Mmap::map(self)? }))
    }
}
