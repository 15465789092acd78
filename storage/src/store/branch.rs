//! A branch in memory: its head and its working set, one writer at a time, any number of readers.
//!
//! While the working set equals HEAD there is one root value and nothing is done twice. A small replicated transaction
//! takes the head's root out, edits it in place and puts it back (so that nothing is copied where no reader holds a
//! snapshot); readers that come meanwhile wait for it. A large one edits a clone.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use super::apply::Apply;
use super::shared::{Shared, new_commit};
use super::working_set;
use crate::change_set::ChangeSet;
use crate::chunk::ChunkReader;
use crate::commit::{self, CommitMeta};
use crate::commit_index::CommitNumber;
use crate::edit::{Edit, Scratch};
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn};
use crate::journal::JournalPosition;
use crate::record::{CommitMode, Record, RootSpec, StoredChangeSet, begin_commit};
use crate::root::Root;
use crate::row_index;
use crate::schema::Oid;

/// Conflicts that a branch remembers; older ones are only in the log.
const CONFLICT_COUNT_MAX: usize = 1000;

/// What a branch holds at one moment; taking it never waits for more than one small transaction.
#[derive(Clone, Debug)]
pub struct BranchState {
    /// Changes with every change of any of the below.
    pub version: u64,
    pub head: CommitId,
    pub head_root: Root,
    pub staged: Root,
    pub working: Root,
    /// Replicated changes that met a locally changed row and did not enter the working set: (table, text of the key, commit).
    pub conflicts: Vec<(Oid, String, CommitId)>,
    /// The highest end of a source transaction that went into the working set without a commit; 0 if none did.
    pub applied_to_working: Lsn,
}

impl BranchState {
    /// Staged or working differ from the head. What cannot be compared counts as different.
    pub fn is_dirty(&self) -> bool {
        let same = |a: &Root, b: &Root| a.same(b).unwrap_or(false);
        !same(&self.head_root, &self.staged) || !same(&self.staged, &self.working)
    }
}

/// A branch in memory. One writer at a time, any number of readers.
#[derive(Debug)]
pub struct Branch {
    name: String,
    pub(crate) cell: Arc<BranchCell>,
}

/// What stays when a branch is renamed.
pub(crate) struct BranchCell {
    pub shared: Arc<Shared>,
    pub number: u32,
    pub database: u32,
    state: Mutex<Inner>,
    /// The writer has finished, or the head's root is back.
    freed: Condvar,
}

pub(crate) struct Inner {
    pub version: u64,
    pub head: Option<Head>,
    /// `None` while a small transaction has it.
    pub head_root: Option<Root>,
    /// Where staged or working are not the head's root.
    pub dirty: Option<WorkingSet>,
    pub conflicts: Vec<(Oid, String, CommitId)>,
    pub applied: Lsn,
    pub deleted: bool,
    /// Of the last transaction, for the next.
    pub scratch: Scratch,
    writing: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkingSet {
    pub staged: Root,
    pub working: Root,
}

/// A working set that has followed its head, and where it could not: (table, text of the key).
pub(crate) struct Followed {
    working_set: WorkingSet,
    conflicts: Vec<(Oid, String)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub id: CommitId,
    pub number: CommitNumber,
    pub height: u64,
}

impl Inner {
    pub fn new(head: Option<Head>, root: Root) -> Inner {
        Inner {
            version: 1,
            head,
            head_root: Some(root),
            dirty: None,
            conflicts: Vec::new(),
            applied: Lsn(0),
            deleted: false,
            scratch: Scratch::default(),
            writing: false,
        }
    }

    pub fn root(&self) -> &Root {
        self.head_root.as_ref().expect("BUG: the head's root is taken")
    }

    pub fn staged(&self) -> &Root {
        self.dirty.as_ref().map_or_else(|| self.root(), |d| &d.staged)
    }

    pub fn working(&self) -> &Root {
        self.dirty.as_ref().map_or_else(|| self.root(), |d| &d.working)
    }

    /// Sets the working set; clean when both are the head's root itself.
    pub fn set_working_set(&mut self, staged: Root, working: Root) {
        let clean = is_clone(&staged, self.root()) && is_clone(&working, self.root());
        self.dirty = (!clean).then_some(WorkingSet { staged, working });
        if self.dirty.is_none() {
            self.conflicts.clear();
        }
    }

    /// What the working set becomes when the head moves to `root` by these changes; `None` while it is the head's. `before`
    /// is the head's root before it, needed where the working set follows. Changes nothing, so that a failure undoes nothing.
    pub fn follow(&self, before: Option<&Root>, root: &Root, changes: &ChangeSet, mode: CommitMode) -> Result<Option<Followed>> {
        let Some(dirty) = &self.dirty else { return Ok(None) };
        let mut conflicts = Vec::new();
        let working_set = match mode {
            CommitMode::Staged => WorkingSet { staged: root.clone(), working: dirty.working.clone() },
            CommitMode::Follow => {
                let before = before.expect("BUG: a dirty branch advances without its root before");
                working_set::follow_both(before, root, changes, dirty, &mut conflicts)?
            }
        };
        Ok(Some(Followed { working_set, conflicts }))
    }

    /// Moves the head to a commit.
    pub fn advance(&mut self, head: Head, root: Root, followed: Option<Followed>) {
        self.head_root = Some(root);
        self.head = Some(head);
        self.version += 1;
        if let Some(followed) = followed {
            self.note_conflicts(followed.conflicts, head.id);
            self.set_working_set(followed.working_set.staged, followed.working_set.working);
        }
    }

    /// Brings the trees of all root values into their canonical shape.
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn normalise(&mut self) -> Result<()> {
        let dirty = self.dirty.iter_mut().flat_map(|dirty| [&mut dirty.staged, &mut dirty.working]);
        self.head_root.iter_mut().chain(dirty).try_for_each(Root::normalise)
    }

    /// Lets the trees of all root values read through another door, and adds the doors that they had to `former`.
    pub fn set_reader(&mut self, reader: &Arc<dyn ChunkReader>, former: &mut Vec<Arc<dyn ChunkReader>>) {
        let mut done = Vec::new();
        let dirty = self.dirty.iter_mut().flat_map(|dirty| [&mut dirty.staged, &mut dirty.working]);
        self.head_root.iter_mut().chain(dirty).for_each(|root| root.set_reader(reader, &mut done, former));
    }

    /// Lets the cache evict the written nodes of the root values.
    pub fn release(&mut self) {
        let mut done = Vec::new();
        let Some(head) = &mut self.head_root else { return };
        head.release(&mut done);
        if let Some(dirty) = &mut self.dirty {
            dirty.staged.release(&mut done);
            dirty.working.release(&mut done);
        }
    }

    fn note_conflicts(&mut self, conflicts: Vec<(Oid, String)>, commit: CommitId) {
        if conflicts.is_empty() {
            return;
        }
        let name = |oid: &Oid| self.root().catalog().get(*oid).map_or_else(|| oid.to_string(), |object| object.name().to_owned());
        let mut tables: Vec<String> = conflicts.iter().map(|(oid, _)| name(oid)).collect();
        tables.sort_unstable();
        tables.dedup();
        tracing::warn!(tables = %tables.join(", "), count = conflicts.len(), commit = %format_args!("{commit:.12}"), "replicated changes met local changes of the same rows; the local ones stay in the working set");
        self.conflicts.extend(conflicts.into_iter().map(|(table, key)| (table, key, commit)));
        let surplus = self.conflicts.len().saturating_sub(CONFLICT_COUNT_MAX);
        self.conflicts.drain(..surplus);
    }
}

/// Whether two root values have the same catalog and share every table. Costs a look at each table.
fn is_clone(a: &Root, b: &Root) -> bool {
    let same_catalog = Arc::ptr_eq(&a.catalog, &b.catalog) || a.catalog == b.catalog;
    let shared = |(oid, table)| b.tables.get(oid).is_some_and(|other| Arc::ptr_eq(table, other));
    same_catalog && (Arc::ptr_eq(&a.tables, &b.tables) || (a.tables.len() == b.tables.len() && a.tables.iter().all(shared)))
}

impl std::fmt::Debug for BranchCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BranchCell({})", self.number)
    }
}

impl BranchCell {
    pub fn new(shared: Arc<Shared>, number: u32, database: u32, inner: Inner) -> Arc<BranchCell> {
        let cell = Arc::new(BranchCell { shared, number, database, state: Mutex::new(inner), freed: Condvar::new() });
        let mut branches = cell.shared.branches.lock();
        branches.retain(|b| b.strong_count() > 0);
        branches.push(Arc::downgrade(&cell));
        drop(branches);
        cell
    }

    /// Waits until the head's root is there.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.state.lock();
        while inner.head_root.is_none() {
            self.freed.wait(&mut inner);
        }
        inner
    }

    /// Waits until there is no writer, then keeps readers and writers out.
    pub fn lock_for_writing(&self) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.state.lock();
        while inner.writing {
            self.freed.wait(&mut inner);
        }
        if inner.deleted {
            return Err(Error::NotFound { what: "branch", name: format!("#{}", self.number) });
        }
        Ok(inner)
    }

    /// The head and its root, if nobody is editing it.
    pub fn head_if_free(&self) -> Option<(CommitNumber, Root)> {
        let inner = self.state.lock();
        Some((inner.head?.number, inner.head_root.clone()?))
    }

    /// Becomes the branch's writer; see [`Apply`]. Returns the root to edit and, where the branch is dirty, the head's root as it was.
    pub fn begin_writing(&self, large: bool) -> Result<(Root, Option<Root>, Scratch)> {
        self.shared.journal.wait_for_room();
        self.shared.pace.wait_for_memory();
        let mut inner = self.lock_for_writing()?;
        inner.writing = true;
        let before = inner.dirty.is_some().then(|| inner.root().clone());
        let root = if large { inner.root().clone() } else { inner.head_root.take().expect("BUG: two writers") };
        Ok((root, before, std::mem::take(&mut inner.scratch)))
    }

    /// Ends the writer's turn. `root`: the head's root, when the writer had taken it.
    pub fn end_writing(&self, root: Option<Root>) {
        let mut inner = self.state.lock();
        if root.is_some() {
            inner.head_root = root;
        }
        inner.writing = false;
        self.freed.notify_all();
    }

    /// The state in the hands of the writer.
    pub fn lock_as_writer(&self) -> WriterGuard<'_> {
        WriterGuard { inner: self.state.lock(), freed: &self.freed }
    }

    pub fn head(&self) -> Option<Head> {
        self.state.lock().head
    }

    /// Refuses writers from now on.
    pub fn mark_deleted(&self) {
        self.state.lock().deleted = true;
    }
}

/// The branch's state held by its writer, whose turn ends when it says so.
pub(crate) struct WriterGuard<'a> {
    pub inner: MutexGuard<'a, Inner>,
    freed: &'a Condvar,
}

impl WriterGuard<'_> {
    pub fn end_writing(mut self) {
        self.inner.writing = false;
        self.freed.notify_all();
    }
}

/// An encoded commit that is not yet appended.
pub(crate) struct PreparedCommit {
    pub record: Vec<u8>,
    pub id: CommitId,
    pub height: u64,
    pub touched: u32,
    /// What the row index finds the commit by.
    pub row_hashes: Vec<u32>,
    pub parents: SmallVec<[CommitNumber; 2]>,
}

impl BranchCell {
    /// Encodes a commit of these changes on top of `parents`, in these buffers, which are empty.
    pub fn prepare(
        &self,
        parents: &[Head],
        meta: &CommitMeta,
        changes: &ChangeSet,
        mode: CommitMode,
        (mut record, mut row_hashes): (Vec<u8>, Vec<u32>),
    ) -> Result<PreparedCommit> {
        let height = parents.iter().map(|p| p.height).max().unwrap_or(0) + 1;
        let ids: SmallVec<[CommitId; 2]> = parents.iter().map(|p| p.id).collect();
        record.reserve(512);
        begin_commit(&mut record, self.number, mode);
        let commit_at = record.len();
        commit::encode(&mut record, &ids, height, meta, changes, &mut &*self.shared.journal)?;
        let id = CommitId::of(&record[commit_at..]);
        let parents = parents.iter().map(|p| p.number).collect();
        row_index::put_hashes(changes, meta.source.as_ref(), &mut row_hashes);
        Ok(PreparedCommit { record, id, height, touched: changes.touched_mask(), row_hashes, parents })
    }

    /// Appends a prepared commit and returns the head that it makes.
    pub fn append(&self, prepared: &PreparedCommit, meta: &CommitMeta) -> Result<(JournalPosition, Head)> {
        let commit = new_commit(prepared.id, prepared.height, meta, prepared.touched);
        let (position, number) = self.shared.append_commit(&prepared.record, commit, &prepared.parents, &prepared.row_hashes)?;
        Ok((position, Head { id: prepared.id, number, height: prepared.height }))
    }
}

impl Branch {
    pub(crate) fn new(name: String, cell: Arc<BranchCell>) -> Arc<Branch> {
        Arc::new(Branch { name, cell })
    }

    /// The name under which the branch was looked up; a later rename does not show here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A snapshot. Waits for a small transaction under way: not to be called by the thread that holds its [`Apply`].
    pub fn state(&self) -> BranchState {
        let inner = self.cell.lock();
        BranchState {
            version: inner.version,
            head: inner.head.expect("BUG: a branch without a commit was given out").id,
            head_root: inner.root().clone(),
            staged: inner.staged().clone(),
            working: inner.working().clone(),
            conflicts: inner.conflicts.clone(),
            applied_to_working: inner.applied,
        }
    }

    /// Begins a replicated (or otherwise committing) transaction on HEAD. Waits for other writers. `large`: readers are
    /// to go on while it runs (costs copies of shared nodes); otherwise they wait until it is committed or dropped.
    /// # Errors
    /// `NotFound` when the branch was deleted.
    pub fn begin_apply(self: &Arc<Self>, large: bool) -> Result<Apply> {
        Apply::begin(self.cell.clone(), large)
    }

    /// Puts a local transaction's changes into the working set, or commits them where `commit` is given. `base` is what
    /// `state()` gave when the transaction began; `edit` began on `base.working` (for a commit with `commit`, too: the
    /// rows changed are committed on HEAD and also put into the working set). When the branch has moved on, the changes are rebased.
    /// # Errors
    /// `Conflict` when one of the same rows or objects changed meanwhile.
    pub fn commit_local(&self, base: &BranchState, edit: Edit, commit: Option<CommitMeta>) -> Result<(Option<CommitId>, JournalPosition)> {
        self.put_local(base, edit, commit, Lsn(0))
    }

    /// Puts a source transaction's changes into the working set without a commit, in one record with where it ends;
    /// see [`Branch::commit_local`] and [`BranchState::applied_to_working`].
    /// # Errors
    /// `Conflict` when one of the same rows or objects changed meanwhile.
    pub fn apply_to_working(&self, base: &BranchState, edit: Edit, end: Lsn) -> Result<JournalPosition> {
        self.put_local(base, edit, None, end).map(|(_, position)| position)
    }

    fn put_local(
        &self,
        base: &BranchState,
        mut edit: Edit,
        commit: Option<CommitMeta>,
        applied: Lsn,
    ) -> Result<(Option<CommitId>, JournalPosition)> {
        let cell = &self.cell;
        let shared = &cell.shared;
        shared.journal.wait_for_room();
        shared.pace.wait_for_memory();
        if edit.changes().is_empty() && commit.is_none() && applied == Lsn(0) {
            return Ok((None, JournalPosition::default()));
        }
        // Before the lock, so that nobody waits for a bulk load to be written; and before rebasing, which finds replaced
        // tables by their addresses.
        edit.seal(&mut &*shared.journal)?;
        let mut inner = cell.lock_for_writing().map_err(|e| self.named(e))?;
        let moved = inner.version != base.version;
        let Some(meta) = commit else {
            let mut edit =
                if moved { working_set::rebase(&base.working, inner.working(), edit.changes(), &shared.chunks())? } else { edit };
            edit.seal(&mut &*shared.journal)?;
            let changes = StoredChangeSet::store(edit.changes(), &mut &*shared.journal)?;
            let position = shared.append(&Record::Working { branch: cell.number, applied, changes })?;
            shared.pace.count(edit.changes().row_count());
            let (working, _) = edit.root_and_changes();
            let staged = inner.staged().clone();
            inner.set_working_set(staged, working);
            inner.applied = inner.applied.max(applied);
            inner.version += 1;
            return Ok((None, position));
        };
        // On a clean branch the edit is the next head; otherwise its changes go onto HEAD and the working set follows.
        let as_is = !moved && inner.dirty.is_none();
        let mut edit = if as_is { edit } else { working_set::rebase(&base.working, inner.root(), edit.changes(), &shared.chunks())? };
        if !as_is && inner.dirty.is_some() {
            // The working set must still have the rows as the transaction found them.
            working_set::rebase(&base.working, inner.working(), edit.changes(), &shared.chunks())?;
        }
        edit.seal(&mut &*shared.journal)?;
        let head = inner.head.expect("BUG: a branch without a commit");
        let prepared = cell.prepare(&[head], &meta, edit.changes(), CommitMode::Follow, Default::default())?;
        let before = inner.dirty.is_some().then(|| inner.root().clone());
        let (root, changes) = edit.root_and_changes();
        let followed = inner.follow(before.as_ref(), &root, &changes, CommitMode::Follow)?;
        let (position, head) = cell.append(&prepared, &meta)?;
        shared.pace.count(changes.row_count() + 1);
        inner.advance(head, root, followed);
        Ok((Some(head.id), position))
    }

    /// Sets staged and working (as `dolt_add`, `dolt_reset` and `dolt_checkout` of tables need), if the branch is still at `version`.
    /// # Errors
    /// `Conflict`.
    pub fn set_roots(&self, version: u64, staged: Option<Root>, working: Option<Root>) -> Result<JournalPosition> {
        let cell = &self.cell;
        let mut inner = self.lock_at(version)?;
        let staged_spec = match &staged {
            None => RootSpec::Unchanged,
            Some(staged) => self.spec(&inner, staged, None)?,
        };
        let new_staged = staged.unwrap_or_else(|| inner.staged().clone());
        let working_spec = match &working {
            None => RootSpec::Unchanged,
            Some(working) => self.spec(&inner, working, Some(&new_staged))?,
        };
        // Clones are recognised by identity alone; what is the same in content becomes one again here.
        let settle = |spec: &RootSpec, root: Root, inner: &Inner| if *spec == RootSpec::Head { inner.root().clone() } else { root };
        let new_working = working.unwrap_or_else(|| inner.working().clone());
        let new_staged = settle(&staged_spec, new_staged, &inner);
        let new_working = match working_spec {
            RootSpec::Staged => new_staged.clone(),
            _ => settle(&working_spec, new_working, &inner),
        };
        let position = cell.shared.append(&Record::Roots { branch: cell.number, staged: staged_spec, working: working_spec })?;
        cell.shared.pace.count(1);
        inner.set_working_set(new_staged, new_working);
        inner.version += 1;
        Ok(position)
    }

    /// How a record names a root value: as one that the branch has, or written out.
    fn spec(&self, inner: &Inner, root: &Root, staged: Option<&Root>) -> Result<RootSpec> {
        if root.same(inner.root())? {
            return Ok(RootSpec::Head);
        }
        if let Some(staged) = staged
            && root.same(staged)?
        {
            return Ok(RootSpec::Staged);
        }
        Ok(RootSpec::Written(root.clone().write(&mut &*self.cell.shared.journal)?))
    }

    /// The cell knows its branch by number only, users by name.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::NotFound { what: "branch", .. } => Error::NotFound { what: "branch", name: self.name.clone() },
            error => error,
        }
    }

    fn lock_at(&self, version: u64) -> Result<MutexGuard<'_, Inner>> {
        self.cell.shared.journal.wait_for_room();
        let inner = self.cell.lock_for_writing().map_err(|e| self.named(e))?;
        if inner.version != version {
            return Err(Error::Conflict { what: format!("branch \"{}\"", self.name) });
        }
        Ok(inner)
    }

    /// Commits `staged` on top of HEAD, if the branch is still at `version`. The change set is computed by diff. With
    /// `amend` the new commit takes HEAD's parents.
    /// # Errors
    /// `Conflict`; `Invalid` for amending the first commit.
    pub fn commit_staged(&self, version: u64, meta: CommitMeta, amend: bool) -> Result<(CommitId, JournalPosition)> {
        let cell = &self.cell;
        let shared = &cell.shared;
        let mut inner = self.lock_at(version)?;
        let head = inner.head.expect("BUG: a branch without a commit");
        let staged = inner.staged().clone();
        let (parents, from) = if amend {
            let parents: Vec<Head> = {
                let index = shared.index.read();
                let head_of = |number| index.entry(number).map(|entry| Head { id: entry.id, number, height: entry.height });
                index.parents(head.number)?.into_iter().map(head_of).collect::<Result<_>>()?
            };
            let first = *parents.first().ok_or_else(|| Error::Invalid("cannot amend the first commit".into()))?;
            // The root of the parent may have to be found among the branches, this one included.
            let from = MutexGuard::unlocked(&mut inner, || shared.root(first.id))?;
            if inner.version != version || inner.writing {
                return Err(Error::Conflict { what: format!("branch \"{}\"", self.name) });
            }
            (parents, from)
        } else {
            (vec![head], inner.root().clone())
        };
        let changes = Root::diff_to_changes(&from, &staged, &mut &*shared.journal)?;
        let prepared = cell.prepare(&parents, &meta, &changes, CommitMode::Staged, Default::default())?;
        let followed = inner.follow(None, &staged, &changes, CommitMode::Staged)?;
        let (position, head) = cell.append(&prepared, &meta)?;
        shared.pace.count(changes.row_count() + 1);
        inner.advance(head, staged, followed);
        Ok((head.id, position))
    }

    /// Moves HEAD (`dolt_reset` to a commit): `hard` sets staged and working too, otherwise they stay as they are.
    /// # Errors
    /// `Conflict`; `NotFound` for an unknown commit.
    pub fn reset(&self, version: u64, target: CommitId, hard: bool) -> Result<JournalPosition> {
        let cell = &self.cell;
        let root = cell.shared.root(target)?;
        let head = cell.shared.head_of(target)?;
        let mut inner = self.lock_at(version)?;
        let position = cell.shared.append(&Record::HeadMoved { branch: cell.number, head: target, hard })?;
        cell.shared.pace.count(1);
        inner.move_head(head, root, hard);
        Ok(position)
    }
}

impl Inner {
    pub fn move_head(&mut self, head: Head, root: Root, hard: bool) {
        let (staged, working) = (self.staged().clone(), self.working().clone());
        self.head = Some(head);
        self.head_root = Some(root);
        if hard {
            self.dirty = None;
            self.conflicts.clear();
        } else {
            self.set_working_set(staged, working);
        }
        self.version += 1;
    }
}
