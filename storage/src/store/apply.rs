//! A committing transaction: edits of a branch's HEAD that become one commit.

use std::sync::Arc;

use super::branch::BranchCell;
use crate::commit::CommitMeta;
use crate::edit::Edit;
use crate::error::Result;
use crate::id::CommitId;
use crate::journal::JournalPosition;
use crate::record::CommitMode;
use crate::root::Root;

/// A committing transaction under way; dropping it undoes its edits. Derefs to [`Edit`].
///
/// It is the branch's only writer while it lives. The thread that holds one must not ask the branch for its state: a
/// small transaction has the head's root in its hands, and the branch would wait for it to come back.
#[derive(Debug)]
pub struct Apply {
    cell: Arc<BranchCell>,
    /// `None` once committed.
    edit: Option<Edit>,
    /// The head's root as it was, where the working set must follow.
    before: Option<Root>,
    large: bool,
}

impl Apply {
    pub(crate) fn begin(cell: Arc<BranchCell>, large: bool) -> Result<Apply> {
        let (root, before, scratch) = cell.begin_writing(large)?;
        Ok(Apply { cell, edit: Some(Edit::with_scratch(root, scratch)), before, large })
    }

    /// Appends the commit to the journal and moves HEAD; the working set follows. Durable when `Store::durable`
    /// reaches the returned position. An empty change set is committed too.
    /// # Errors
    /// `Stopped`, `Limit`, `Io`; nothing has happened then.
    pub fn commit(mut self, meta: CommitMeta) -> Result<(CommitId, JournalPosition)> {
        let cell = self.cell.clone();
        let edit = self.edit.as_mut().expect("BUG: committed twice");
        edit.seal(&mut &*cell.shared.journal)?;
        let head = cell.head();
        let buffers = edit.take_buffers();
        let prepared = cell.prepare(head.as_slice(), &meta, edit.changes(), CommitMode::Follow, buffers)?;
        let mut guard = cell.lock_as_writer();
        let followed = guard.inner.follow(self.before.as_ref(), edit.root(), edit.changes(), CommitMode::Follow);
        let appended = followed.and_then(|followed| Ok((followed, cell.append(&prepared, &meta)?)));
        let (followed, (position, head)) = match appended {
            Ok(appended) => appended,
            Err(error) => {
                // Dropping the transaction takes the lock again.
                drop(guard);
                return Err(error);
            }
        };
        let edit = self.edit.take().expect("BUG: committed twice");
        let (root, row_count, mut scratch) = edit.root_and_scratch();
        cell.shared.pace.count(row_count + 1);
        guard.inner.advance(head, root, followed);
        let id = prepared.id;
        scratch.keep_buffers(prepared.record, prepared.row_hashes);
        guard.inner.scratch = scratch;
        guard.end_writing();
        Ok((id, position))
    }
}

impl std::ops::Deref for Apply {
    type Target = Edit;
    fn deref(&self) -> &Edit {
        self.edit.as_ref().expect("BUG: used after commit")
    }
}

impl std::ops::DerefMut for Apply {
    fn deref_mut(&mut self) -> &mut Edit {
        self.edit.as_mut().expect("BUG: used after commit")
    }
}

impl Drop for Apply {
    fn drop(&mut self) {
        if let Some(edit) = self.edit.take() {
            // A large one edited a clone, which is simply forgotten.
            let root = if self.large { None } else { Some(edit.undo()) };
            self.cell.end_writing(root);
        }
    }
}
