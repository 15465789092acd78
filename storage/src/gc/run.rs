//! Looking for garbage and giving its space back; `docs/design/0013-space-is-given-back.md` has the reasons.
//!
//! 1. A checkpoint is made that says which root values of old commits are kept. What it does not name does not count any more.
//! 2. Everything that may still be referred to is marked: the kept root values, what other records name, what epochs that are still
//!    alive have pinned.
//! 3. When that record is durable, segments with enough that is not marked are rewritten, one after the other. Those in which an epoch
//!    that is alive may have put something are left alone.
//!
//! A crash leaves either all chunks of a root value or a journal that does not name it, and each segment as it was or rewritten.

use std::sync::Arc;

use parking_lot::Mutex;

use super::live::Live;
use super::named::Named;
use crate::chunk::ChunkReader;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::journal::SegmentShare;
use crate::store::registry::Registry;
use crate::store::shared::Shared;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcMode {
    /// Rewrites only what is at least half garbage, which costs no more writing than it gives back.
    Shallow,
    /// Seals the segment that is being written, and rewrites whatever is at least a tenth garbage.
    Normal,
    /// The same with whatever has any garbage.
    Full,
}

impl GcMode {
    /// Whether a segment is worth rewriting.
    pub(super) fn is_worth(self, share: &SegmentShare) -> bool {
        match self {
            GcMode::Shallow => share.dead > 0 && share.dead * 2 >= share.size,
            GcMode::Normal => share.dead > 0 && share.dead * 10 >= share.size,
            GcMode::Full => share.dead > 0,
        }
    }
}

/// What was given back; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Sealed segments that were looked at.
    pub segment_count: u64,
    pub rewritten_count: u64,
    /// Of the rewritten segments.
    pub size_before: u64,
    pub size_after: u64,
}

/// Gives back what can be given back. One at a time; commits and queries go on. `spacing`: see [`super::kept`].
/// # Errors
/// `Stopped`, `Damaged`, `Io`; then some segments may have been rewritten, and nothing is lost.
pub(crate) fn run(shared: &Arc<Shared>, registry: &Mutex<Registry>, mode: GcMode, spacing: u64) -> Result<GcReport> {
    let mut named = shared.gc_turn.lock();
    if mode != GcMode::Shallow {
        shared.journal.begin_segment()?;
    }
    collect(shared, registry, mode, spacing, &mut named)
}

pub(crate) fn collect(shared: &Arc<Shared>, registry: &Mutex<Registry>, mode: GcMode, spacing: u64, named: &mut Named) -> Result<GcReport> {
    let epochs = {
        // No checkpoint in between: what the last one names is pinned by the epoch that began with it.
        let _turn = shared.checkpoint_turn.lock();
        crate::checkpoint::decide(shared, registry, spacing)?;
        shared.forget_cached_roots();
        shared.epochs.alive()
    };
    let oldest = epochs.first().expect("BUG: no epoch is alive").epoch;
    shared.journal.forget_claims_before(oldest.number);
    // The decision is durable before anything is removed. What is named from now on was put by somebody whose epoch is alive.
    shared.journal.sync()?;
    named.follow(&shared.journal)?;
    let roots: Vec<ChunkAddress> = shared.checkpoints.read().roots.values().map(|root| root.address).collect();
    let pins: Vec<ChunkAddress> = epochs.iter().flat_map(|epoch| epoch.pins()).collect();
    // Their trees may be dropped from now on; what they may refer to is known.
    drop(epochs);
    drop_all(mark(shared, roots.into_iter().chain(pins), named)?, shared, oldest.first_segment, mode)
}

/// Marks what these refer to, and what records name.
pub(super) fn mark(shared: &Shared, heads: impl Iterator<Item = ChunkAddress>, named: &Named) -> Result<Live> {
    let reader: &dyn ChunkReader = &*shared.journal;
    let mut live = Live::default();
    for piece in &named.pieces {
        live.add(piece);
    }
    for head in heads.chain(named.heads.iter().copied()) {
        if shared.compaction.is_stopping() {
            return Err(Error::Stopped { why: "it is being closed".into() });
        }
        live.add_all(&head, reader)?;
    }
    Ok(live)
}

/// Rewrites the segments before this one that are worth it.
fn drop_all(live: Live, shared: &Shared, before: u32, mode: GcMode) -> Result<GcReport> {
    let is_live = |address: &ChunkAddress| live.contains(address) || shared.journal.is_claimed(address);
    let shares = shared.journal.dead_shares(before, &is_live)?;
    let mut report = GcReport { segment_count: shares.len() as u64, ..GcReport::default() };
    for share in shares.iter().filter(|share| mode.is_worth(share)) {
        if shared.compaction.is_stopping() {
            break;
        }
        if let Some(rewritten) = shared.rewrite_segment(share.number, &is_live)? {
            report.rewritten_count += 1;
            report.size_before += rewritten.before;
            report.size_after += rewritten.after;
        }
    }
    tracing::info!(
        segments = report.segment_count,
        rewritten = report.rewritten_count,
        before = report.size_before,
        after = report.size_after,
        "gave back what nothing refers to"
    );
    Ok(report)
}
