//! What goes wrong on a simulated disk: operations that fail, and a disk that is full.

use std::io;

/// The kinds of operations that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    CreateDir,
    List,
    Open,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Size,
    Read,
    Write,
    SetSize,
    Sync,
}

/// Counts operations and says which fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// All operations so far, those that only read included.
    pub operation_count: u64,
    /// The number of the operation that fails, and whether all later ones do, too.
    pub fail_at: Option<(u64, bool)>,
    /// The last operation that was made to fail.
    pub failed: Option<Kind>,
    /// How many bytes fit on the disk.
    pub capacity: Option<u64>,
    /// A write, or the making of a file, found the disk full.
    pub was_full: bool,
}

impl Faults {
    /// Counts an operation.
    /// # Errors
    /// EIO, if it is the one to fail.
    pub fn count(&mut self, kind: Kind) -> io::Result<()> {
        let number = self.operation_count;
        self.operation_count += 1;
        match self.fail_at {
            Some((at, once)) if number == at || (!once && number > at) => {
                self.failed = Some(kind);
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }
    }

    /// How many of `wanted` bytes more fit on a disk that holds `used`.
    pub fn room(&mut self, used: u64, wanted: u64) -> u64 {
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        self.was_full |= room < wanted;
        room.min(wanted)
    }
}

pub(super) fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
