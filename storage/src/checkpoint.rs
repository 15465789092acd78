//! Checkpoints: the root values of all branches written out, so that opening replays little.
//!
//! A checkpoint costs what changed since the last one: nodes that have an address are not written again, and the nodes
//! in memory learn theirs from the snapshot that shares them. It is made in the background from snapshots; writers are
//! kept waiting only while their branch's snapshot is taken, and while nodes that wait to be written fill the memory that nodes
//! may take ([`crate::tree::NodeCache`]): a checkpoint is also what makes nodes evictable, and is made early when that is needed.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::gc::epochs::StoreChunks;
use crate::gc::kept;
use crate::record::{BranchCheckpoint, Checkpoint, KeptRoots, Record, RootSpec};
use crate::root::Root;
use crate::store::registry::Registry;
use crate::store::shared::{Shared, Wish};

/// Row changes after which a checkpoint is made, whatever it costs: their replay takes a second or two. The root value of an old
/// commit is made from the nearer of the checkpoints around it, so from half of that. See `docs/design/0009-checkpoints.md`.
pub(crate) const CHECKPOINT_ROW_COUNT: u64 = 1_250_000;

/// Opening makes a checkpoint when what it replayed cost so many changes at least: about as long as the checkpoint takes, so it costs a
/// start no more than it saves the next one. See `docs/design/0009-checkpoints.md`.
pub(crate) const RECOVERY_CHECKPOINT_AT: u64 = CHECKPOINT_ROW_COUNT / 8;

/// The thread that makes checkpoints when there have been enough changes.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Checkpointer {
    pub fn start(shared: Arc<Shared>, registry: Arc<Mutex<Registry>>) -> Result<Checkpointer> {
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    while shared.pace.wait() == Wish::Checkpoint {
                        if let Err(error) = make(&shared, &registry) {
                            // The journal has everything; the next one tries again.
                            tracing::error!(%error, "could not make a checkpoint");
                        }
                    }
                }
            })
            .map_err(|source| Error::Io { action: "start the checkpoint thread for", path: shared.path.clone(), source })?;
        Ok(Checkpointer { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread, after the checkpoint that it is making.
    pub fn stop(&self) {
        self.shared.pace.wish(Wish::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had panicked");
        }
    }
}

/// Makes a checkpoint now. Does nothing when nothing has changed since the last one. Afterwards, where nodes take much memory, those
/// that are written may be evicted.
/// # Errors
/// `Stopped`, `Io`, `Damaged`.
pub(crate) fn make(shared: &Arc<Shared>, registry: &Mutex<Registry>) -> Result<()> {
    make_if(shared, registry, |shared| shared.pace.is_changed())
}

fn make_if(shared: &Arc<Shared>, registry: &Mutex<Registry>, is_wanted: impl FnOnce(&Shared) -> bool) -> Result<()> {
    // One at a time.
    let _turn = shared.checkpoint_turn.lock();
    if shared.cache.held() > shared.cache.held_max() {
        shared.cache.make_room_for(shared.cache.held());
    }
    let made = if is_wanted(shared) { write(shared, registry, None) } else { Ok(()) };
    // While all tables fit, their nodes stay as they are: a stored leaf costs a look-up a little more than one that nobody evicts.
    if shared.cache.held() > shared.cache.held_max() {
        shared.release_roots();
    }
    shared.pace.end();
    shared.compaction.checkpoint_made();
    made
}

/// Makes a checkpoint of what opening has replayed, durable before anything else happens, with the row index up to there. A failure is
/// logged: the store is as it was found, and may be read even where nothing can be written, as on a full disk.
pub(crate) fn make_after_recovery(shared: &Arc<Shared>, registry: &Mutex<Registry>) {
    let started = std::time::Instant::now();
    match make_if(shared, registry, |_| true).and_then(|()| shared.journal.sync()) {
        Ok(()) => tracing::info!(ms = started.elapsed().as_millis() as u64, "made a checkpoint of what was replayed"),
        Err(error) => {
            tracing::error!(%error, "could not make a checkpoint of what was replayed; the next start replays it again");
            return;
        }
    }
    // What is before a checkpoint is not entered by the next replay.
    if let Err(error) = shared.row_index.save(shared) {
        tracing::warn!(%error, "could not save the row index");
    }
}

/// Makes a checkpoint, also when nothing has changed, that says which root values of old commits are kept: as few as `spacing` allows
/// (see [`kept`]). The caller has the turn.
/// # Errors
/// `Stopped`, `Io`, `Damaged`; then all are kept that were.
pub(crate) fn decide(shared: &Arc<Shared>, registry: &Mutex<Registry>, spacing: u64) -> Result<()> {
    write(shared, registry, Some(spacing))
}

fn write(shared: &Arc<Shared>, registry: &Mutex<Registry>, spacing: Option<u64>) -> Result<()> {
    // Before the snapshots: what comes while they are taken counts for the next checkpoint.
    let begun = shared.pace.begin();
    // And so does an epoch: what is in none of the snapshots, and is referred to later, was put since.
    let door = shared.epochs.begin();
    let mut former = Vec::new();
    let written = write_roots(shared, registry, spacing, &door, &mut former);
    if written.is_err() {
        door.keep(former);
    }
    shared.pace.written(begun);
    written
}

/// `former` gets the doors that branches had before this one.
fn write_roots(
    shared: &Arc<Shared>,
    registry: &Mutex<Registry>,
    spacing: Option<u64>,
    door: &Arc<StoreChunks>,
    former: &mut Vec<Arc<dyn ChunkReader>>,
) -> Result<()> {
    let started = std::time::Instant::now();
    let chunks: Arc<dyn ChunkReader> = door.clone();
    let (mut checkpoint, branches) = {
        let registry = registry.lock();
        let mut checkpoint = Checkpoint {
            sequence: shared.journal.next_sequence(),
            next_number: registry.next_number,
            oid_limit: registry.oid_limit,
            cost: shared.pace.cost(),
            state: registry.state.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..Checkpoint::default()
        };
        let mut branches = Vec::new();
        for (name, database) in &registry.databases {
            checkpoint.databases.push((database.number, name.clone()));
            checkpoint.tags.extend(database.tags.values().map(|t| t.record(database.number)));
            branches.extend(database.branches.iter().map(|(name, branch)| (name.clone(), branch.cell.clone())));
        }
        (checkpoint, branches)
    };
    for (name, cell) in branches {
        let snapshot = {
            let mut inner = cell.lock();
            // As they are written, so that what their trees refer to is what is written.
            inner.normalise()?;
            inner.set_reader(&chunks, former);
            // Under the branch's lock: its later records have larger numbers.
            let rest = (inner.conflicts.clone(), inner.applied);
            (inner.head, inner.root().clone(), inner.dirty.clone(), rest, shared.journal.next_sequence())
        };
        let (head, mut root, dirty, (conflicts, applied), sequence) = snapshot;
        let head_root = root.write(&mut &*shared.journal)?;
        door.pin(&head_root);
        let (mut staged, mut working) = (RootSpec::Head, RootSpec::Head);
        if let Some(dirty) = dirty {
            let spec = |local: &Root, others: &[(RootSpec, &Root)]| -> Result<RootSpec> {
                // Also what is the same: its trees may have other nodes.
                let address = local.clone().write(&mut &*shared.journal)?;
                door.pin(&address);
                for (spec, other) in others {
                    if local.same(other)? {
                        return Ok(spec.clone());
                    }
                }
                Ok(RootSpec::Written(address))
            };
            staged = spec(&dirty.staged, &[(RootSpec::Head, &root)])?;
            working = spec(&dirty.working, &[(RootSpec::Head, &root), (RootSpec::Staged, &dirty.staged)])?;
        }
        checkpoint.branches.push(BranchCheckpoint {
            branch: cell.number,
            database: cell.database,
            name,
            head: head.map(|h| h.id),
            head_root,
            staged,
            working,
            conflicts,
            applied,
            sequence,
        });
    }
    checkpoint.kept = match (spacing, shared.checkpoints.read().kept_at) {
        (Some(_), _) | (None, None) => KeptRoots::All,
        (None, Some(sequence)) => KeptRoots::OfRecord(sequence),
    };
    if let Some(spacing) = spacing {
        let refs = checkpoint.branches.iter().filter_map(|branch| branch.head).chain(checkpoint.tags.iter().map(|tag| tag.commit));
        checkpoint.kept = KeptRoots::These(kept::choose(shared, refs, &checkpoint.roots(), checkpoint.cost, spacing)?);
    }
    let (roots, kept) = (checkpoint.roots(), checkpoint.kept.clone());
    let branch_count = checkpoint.branches.len();
    let record = Record::Checkpoint(Box::new(checkpoint)).encode();
    {
        // With the index locked, so that the file of the segment, if it is made meanwhile, does not miss it.
        let index = shared.index.write();
        let sequence = shared.journal.append(&record)?;
        shared.enter_checkpoint(&index, sequence, &roots, &kept)?;
    }
    shared.row_index.save_soon();
    tracing::debug!(branches = branch_count, ms = started.elapsed().as_millis() as u64, "made a checkpoint");
    Ok(())
}
