//! Compaction in the background: when enough is garbage, it is given back without being asked.
//!
//! Looking for garbage costs a walk over the inner nodes of all root values that are kept. So it is not looked for before so many bytes
//! of chunks have been written that there may be enough; and nothing is decided before it is known that there is. What is
//! enough: a quarter of all, and [`GAIN_MIN`] at least, in segments of which it is at least half. So rewriting writes no more than it gives
//! back, and what was written once is written twice at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::kept::{self, SPACING};
use super::named::Named;
use super::run::{GcMode, GcReport, collect, mark};
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::store::registry::{Database, Registry};
use crate::store::shared::Shared;

/// Less is not worth a look.
pub(crate) const GAIN_MIN: u64 = 256 << 20;

/// The wish for a look, and the wish to stop.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Wanted {
    look: bool,
    stop: bool,
}

impl Compaction {
    /// To be called when a checkpoint was made.
    pub fn checkpoint_made(&self) {
        self.wanted.lock().look = true;
        self.changed.notify_all();
    }

    /// Says whether whoever looks for garbage is to come to an end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.wanted.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits for a checkpoint; false when it is time to stop.
    fn wait(&self) -> bool {
        let mut wanted = self.wanted.lock();
        while !wanted.look && !wanted.stop {
            self.changed.wait(&mut wanted);
        }
        wanted.look = false;
        !wanted.stop
    }
}

/// The thread that looks for garbage after checkpoints.
pub(crate) struct Compactor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Compactor {
    /// `gain_min`: see [`GAIN_MIN`]; `None`: nothing is done in the background.
    pub fn start(shared: Arc<Shared>, registry: Arc<Mutex<Registry>>, gain_min: Option<u64>) -> Result<Compactor> {
        let compactor = Compactor { shared: shared.clone(), thread: Mutex::default() };
        let Some(gain_min) = gain_min else { return Ok(compactor) };
        let path = shared.path.clone();
        let work = move || {
            // All that there is may be garbage.
            let mut look_at = gain_min.saturating_sub(shared.journal.sealed_size().unwrap_or(0));
            while shared.compaction.wait() {
                if shared.journal.chunk_size() < look_at {
                    continue;
                }
                match look(&shared, &registry, gain_min) {
                    Ok(missing) => look_at = shared.journal.chunk_size() + missing.max(gain_min / 4),
                    Err(Error::Stopped { .. }) => return,
                    Err(error) => {
                        tracing::error!(%error, "could not give space back");
                        look_at = shared.journal.chunk_size() + gain_min;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("compaction".into()).spawn(work);
        let thread = thread.map_err(|source| Error::Io { action: "start the compaction thread for", path, source })?;
        *compactor.thread.lock() = Some(thread);
        Ok(compactor)
    }

    /// Ends the thread, and what anybody else does to give space back, after the segment that is being rewritten.
    pub fn stop(&self) {
        self.shared.compaction.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the compaction thread had panicked");
        }
    }
}

/// Compacts if it is worth it. Returns how many bytes of chunks must be written at least before it may be again.
fn look(shared: &Arc<Shared>, registry: &Mutex<Registry>, gain_min: u64) -> Result<u64> {
    let mut named = shared.gc_turn.lock();
    let (gain, total) = estimate(shared, registry, &mut named)?;
    tracing::debug!(gain, total, "looked for garbage");
    if gain < gain_min || gain < total / 4 {
        return Ok(gain_min.max(total / 4).saturating_sub(gain));
    }
    let GcReport { size_before, size_after, .. } = collect(shared, registry, GcMode::Shallow, SPACING, &mut named)?;
    // What snapshots hold back is not looked for again at once.
    Ok(if size_before - size_after < gain / 2 { gain_min } else { 0 })
}

/// What rewriting the segments that are worth it would give back now, and the size of all; in bytes. Decides nothing.
fn estimate(shared: &Shared, registry: &Mutex<Registry>, named: &mut Named) -> Result<(u64, u64)> {
    let refs = refs(&registry.lock());
    let kept = kept::choose(shared, refs.into_iter(), &[], 0, SPACING)?;
    named.follow(&shared.journal)?;
    let live = mark(shared, kept.iter().map(|root| root.address), named)?;
    let shares = shared.journal.dead_shares(u32::MAX, &|address| live.contains(address))?;
    let gain = shares.iter().filter(|share| GcMode::Shallow.is_worth(share)).map(|share| share.dead).sum();
    Ok((gain, shares.iter().map(|share| share.size).sum()))
}

/// The branches' heads and the tags.
fn refs(registry: &Registry) -> Vec<CommitId> {
    let of = |database: &Database| {
        let heads = database.branches.values().filter_map(|branch| Some(branch.cell.head()?.id));
        heads.chain(database.tags.values().map(|tag| tag.commit)).collect::<Vec<_>>()
    };
    registry.databases.values().flat_map(of).collect()
}
