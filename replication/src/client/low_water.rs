//! How many bytes must wait in the socket before the reader is woken.
//!
//! The walsender sends each message with a system call of its own. A reader that wakes for every one of them slows it down (they share locks and
//! caches) and burns its own time. While behind, the reader therefore asks to be woken for 64 KiB; once caught up, for the first byte.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::net::TcpStream;

/// The low-water mark while behind.
pub(super) const BEHIND_SIZE: usize = 64 << 10;

/// While behind: how long to wait for the mark before taking what is there. One such wait ends each period of being behind.
pub(super) const BEHIND_WAIT: Duration = Duration::from_millis(10);

/// The mark of one socket.
#[derive(Debug, Default)]
pub(super) struct LowWater {
    behind: bool,
}

impl LowWater {
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether so much waits in the socket already that its reader is behind.
    pub(super) fn has_waiting(&self, socket: &TcpStream) -> bool {
        let mut waiting: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, and FIONREAD writes one int.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        answer == 0 && usize::try_from(waiting).is_ok_and(|waiting| waiting >= BEHIND_SIZE)
    }

    pub(super) fn set_behind(&mut self, socket: &TcpStream, behind: bool) -> io::Result<()> {
        if self.behind == behind {
            return Ok(());
        }
        let mark = if behind { BEHIND_SIZE as libc::c_int } else { 1 };
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the pointer and size describe `mark`.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const mark).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        self.behind = behind;
        Ok(())
    }
}
