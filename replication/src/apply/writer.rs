//! The edit that a replicated transaction writes into, for either commit mode.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use strandline_storage::store::{Apply, Branch, BranchState, JournalPosition};
use strandline_storage::{CommitId, CommitMeta, Edit, Result};

use crate::config::CommitMode;

/// A transaction under way; dropping it undoes its edits. While one lives, its thread must not ask the branch for its state.
pub(crate) enum Writer {
    /// Becomes a commit on HEAD.
    Commit(Apply),
    /// Becomes uncommitted changes.
    WorkingSet { branch: Arc<Branch>, base: Box<BranchState>, edit: Box<Edit> },
}

impl Writer {
    /// `large`: readers go on meanwhile, at the price of copies.
    pub(crate) fn begin(branch: &Arc<Branch>, mode: CommitMode, large: bool) -> Result<Writer> {
        match mode {
            CommitMode::EachTransaction => Ok(Writer::Commit(branch.begin_apply(large)?)),
            CommitMode::WorkingSet => {
                let base = branch.state();
                let edit = Edit::new(base.working.clone());
                Ok(Writer::WorkingSet { branch: Arc::clone(branch), base: Box::new(base), edit: Box::new(edit) })
            }
        }
    }

    /// Finishes; where there is no commit, the source's end LSN goes into the working set's record.
    pub(crate) fn commit(self, meta: CommitMeta) -> Result<(Option<CommitId>, JournalPosition)> {
        match self {
            Writer::Commit(apply) => apply.commit(meta).map(|(id, position)| (Some(id), position)),
            Writer::WorkingSet { branch, base, edit } => {
                let end = meta.source.map(|source| source.end_lsn).unwrap_or_default();
                branch.apply_to_working(&base, *edit, end).map(|position| (None, position))
            }
        }
    }
}

impl Deref for Writer {
    type Target = Edit;

    fn deref(&self) -> &Edit {
        match self {
            Writer::Commit(apply) => apply,
            Writer::WorkingSet { edit, .. } => edit,
        }
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut Edit {
        match self {
            Writer::Commit(apply) => apply,
            Writer::WorkingSet { edit, .. } => edit,
        }
    }
}
