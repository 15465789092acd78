//! A disk in memory that records what is done to it and can lose power, fail, be full and rot.

pub(crate) mod content;
mod crash;
pub(crate) mod fault;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Disk, DiskFile};
use content::{Content, FileContent, Node, NodeContent, Operation};
use fault::{Faults, Kind, full};

/// What a write that fails has changed are sectors of this size.
const SECTOR_SIZE: u64 = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    first: Content,
    content: Content,
    operations: Vec<Operation>,
    faults: Faults,
    locked: bool,
}

impl State {
    fn apply(&mut self, operation: Operation) {
        self.content.apply(&operation);
        self.operations.push(operation);
    }

    fn file(&self, path: &Path) -> io::Result<Node> {
        let node = self.content.find(path).ok_or(io::ErrorKind::NotFound)?;
        if matches!(self.content.nodes[node], NodeContent::File(_)) { Ok(node) } else { Err(io::ErrorKind::IsADirectory.into()) }
    }
}

impl SimulatedDisk {
    pub fn new(content: Content) -> SimulatedDisk {
        let state = State { first: content.clone(), content, ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Makes an operation fail, counted from now: 0 is the next one. With `once`, only it, otherwise all after it, too.
    pub fn fail_at(&self, n: u64, once: bool) {
        let mut state = self.state.lock();
        state.faults.fail_at = Some((state.faults.operation_count + n, once));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.fail_at = None;
        state.faults.capacity = None;
    }

    /// Sets how many bytes fit on the disk.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state.lock().faults.capacity = capacity;
    }

    /// All operations so far, those that only read included.
    pub fn operation_count(&self) -> u64 {
        self.state.lock().faults.operation_count
    }

    /// The kind of the last operation that was made to fail.
    pub fn failed(&self) -> Option<Kind> {
        self.state.lock().faults.failed
    }

    /// Something did not fit.
    pub fn was_full(&self) -> bool {
        self.state.lock().faults.was_full
    }

    /// How many operations have changed something, or made it durable.
    pub fn change_count(&self) -> usize {
        self.state.lock().operations.len()
    }

    /// What the disk began with, and all operations that changed something, or made it durable.
    pub fn operations(&self) -> (Content, Vec<Operation>) {
        let state = self.state.lock();
        (state.first.clone(), state.operations.clone())
    }

    /// The most bytes that there ever were on the disk.
    pub fn size_max(&self) -> u64 {
        let (mut content, operations) = self.operations();
        operations
            .iter()
            .map(|operation| {
                content.apply(operation);
                content.size()
            })
            .max()
            .unwrap_or(0)
    }

    pub fn content(&self) -> Content {
        self.state.lock().content.clone()
    }

    /// The same disk for the next process after this one was killed: nothing is lost, and what was not synced still is not.
    pub fn after_kill(&self) -> SimulatedDisk {
        SimulatedDisk::new(self.content())
    }

    /// Another disk with all that processes see on this one.
    pub fn copy(&self) -> SimulatedDisk {
        SimulatedDisk::new(self.content().settled())
    }

    /// Another disk with what was synced on this one.
    pub fn without_unsynced(&self) -> SimulatedDisk {
        SimulatedDisk::new(self.content().without_unsynced())
    }

    /// Another disk as a power loss may leave this one.
    pub fn after_power_loss(&self, random: &mut StdRng) -> SimulatedDisk {
        SimulatedDisk::new(self.content().after_power_loss(random))
    }

    fn find(&self, name: &str) -> Option<(PathBuf, Node)> {
        self.content().files().into_iter().find(|(path, _)| path.ends_with(name))
    }

    /// The bytes of the first file whose path ends so.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let (_, node) = self.find(name)?;
        Some(self.state.lock().content.file(node).now.clone())
    }

    /// Removes the first file whose path ends so, durably.
    pub fn remove_file(&self, name: &str) {
        let (path, _) = self.find(name).expect("a file of this name");
        let mut state = self.state.lock();
        state.apply(Operation::Remove(path.clone()));
        state.apply(Operation::SyncDir(path.parent().expect("a folder").into()));
    }

    /// Gives the first file whose path ends so other bytes, durably.
    pub fn put_file(&self, name: &str, bytes: Vec<u8>) {
        let (_, node) = self.find(name).expect("a file of this name");
        self.state.lock().content.nodes[node] = NodeContent::File(FileContent::settled(bytes));
    }

    /// Flips a bit of the first file whose path ends so.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut bytes = self.file(name).expect("a file of this name");
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.put_file(name, bytes);
    }

    fn counted(&self, kind: Kind) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.faults.count(kind)?;
        Ok(state)
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    node: Node,
    read_only: bool,
}

#[derive(Debug)]
struct Unlock(SimulatedDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.state.lock().locked = false;
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.counted(Kind::CreateDir)?;
        if state.content.find(path).is_some() {
            return Ok(false);
        }
        if state.content.folder(path.parent().unwrap_or(Path::new("/"))).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.apply(Operation::CreateDir(path.into()));
        Ok(true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.counted(Kind::List)?;
        let folder = state.content.folder(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.now.keys().cloned().collect())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.counted(Kind::Open)?;
        let node = match state.file(path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let used = state.content.size();
                // A file's name takes some room, too.
                if state.faults.room(used, 1) == 0 {
                    return Err(full());
                }
                if state.content.folder(path.parent().unwrap_or(Path::new("/"))).is_none() {
                    return Err(error);
                }
                state.apply(Operation::CreateFile(path.into()));
                state.file(path)?
            }
            other => other?,
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), node, read_only: false }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.counted(Kind::Open)?.file(path)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), node, read_only: true }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.counted(Kind::Rename)?;
        state.content.find(from).ok_or(io::ErrorKind::NotFound)?;
        state.apply(Operation::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.counted(Kind::Remove)?;
        state.file(path)?;
        state.apply(Operation::Remove(path.into()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.counted(Kind::SyncDir)?;
        state.content.folder(path).ok_or(io::ErrorKind::NotFound)?;
        state.apply(Operation::SyncDir(path.into()));
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut state = self.counted(Kind::Lock)?;
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Unlock(self.clone()))))
    }

    fn lock_read(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.lock(path)
    }
}

impl DiskFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.counted(Kind::Size)?.content.file(self.node).now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.counted(Kind::Read)?;
        let bytes = state.content.file(self.node).now.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(!self.read_only, "a file opened for reading is written to");
        let mut state = self.disk.state.lock();
        let state = &mut *state;
        if let Err(error) = state.faults.count(Kind::Write) {
            // Some of its sectors are there all the same.
            let end = (offset + bytes.len() as u64 / 2) / SECTOR_SIZE * SECTOR_SIZE;
            let bytes = bytes[..end.saturating_sub(offset) as usize].to_vec();
            state.apply(Operation::Write { file: self.node, offset, bytes });
            return Err(error);
        }
        let size = state.content.file(self.node).now.len() as u64;
        let used = state.content.size();
        let growth = (offset + bytes.len() as u64).saturating_sub(size);
        let fitting = state.faults.room(used, growth);
        // A write beyond the end fills what is between, too.
        let written = bytes.len().saturating_sub((growth - fitting) as usize);
        if written > 0 {
            state.apply(Operation::Write { file: self.node, offset, bytes: bytes[..written].to_vec() });
        }
        if written < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        assert!(!self.read_only, "a file opened for reading is written to");
        self.disk.counted(Kind::SetSize)?.apply(Operation::SetSize { file: self.node, size });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        match state.faults.count(Kind::Sync) {
            Ok(()) => state.apply(Operation::Sync { file: self.node }),
            Err(error) => {
                state.apply(Operation::FailedSync { file: self.node });
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A random number generator that gives the same for the same seed and place.
pub(crate) fn random_of(seed: u64, place: u64) -> StdRng {
    let mut random: StdRng = rand::SeedableRng::seed_from_u64(seed);
    let mixed: u64 = random.random::<u64>() ^ place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    rand::SeedableRng::seed_from_u64(mixed)
}
