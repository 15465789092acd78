//! A second thread that reads leaves which are about to be needed, every other one of them: the first thread reads the rest.
//!
//! Reading a leaf costs its copying, checking, unpacking and hashing, and the clearing of the memory that it goes to: ten times what it takes to
//! compare it. What the thread read waits in the leaf's slot, in the node cache. What it could not read, the first thread tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::tree::node::{Slot, Source};

/// The thread starts when so many leaves had to be read.
const START_COUNT: usize = 16;
/// Leaves that wait for the thread; it is not given more.
const QUEUE_COUNT_MAX: usize = 64;

#[derive(Default)]
pub(super) struct ReadAhead {
    /// Leaves offered that were not in memory.
    missing_count: usize,
    reader: Option<Reader>,
}

struct Reader {
    sender: Option<SyncSender<(Slot, Source)>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// To be told of each leaf that will be needed, in order.
    pub fn offer(&mut self, slot: &Slot, source: &Source) {
        if slot.is_loaded() {
            return;
        }
        self.missing_count += 1;
        if self.missing_count < START_COUNT || !self.missing_count.is_multiple_of(2) {
            return;
        }
        if self.reader.is_none() && self.missing_count < 2 * START_COUNT {
            self.reader = Reader::start();
        }
        if let Some(sender) = self.reader.as_ref().and_then(|reader| reader.sender.as_ref()) {
            // With its queue full the thread is behind, and the leaf is not for it.
            let _ = sender.try_send((slot.clone(), source.clone()));
        }
    }
}

impl Reader {
    /// `None` where no thread is to be had.
    fn start() -> Option<Reader> {
        let (sender, queue) = sync_channel(QUEUE_COUNT_MAX);
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        let thread = std::thread::Builder::new().name("read ahead".into()).spawn(move || read(&queue, &flag)).ok()?;
        Some(Reader { sender: Some(sender), stopped, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.sender = None;
        // It ends with the leaf that it is reading.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read(queue: &Receiver<(Slot, Source)>, stopped: &AtomicBool) {
    for (slot, source) in queue {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        // An error is found again by who needs the leaf.
        let _ = slot.node(&source);
    }
}
