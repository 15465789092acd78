//! Repair: a new journal of all that is whole in a damaged one.
//!
//! The records that can be read are replayed in order into a journal of their own, as recovery does, with the commits' bytes and ids as they
//! were. Where records are missing, or do not apply because a chunk is missing, a branch stands still until a checkpoint says
//! where it was later:
//!
//! ```text
//!   before:   a ── b ── ? ── ? ── e ── f ── g      a checkpoint after g has the root value of g
//!   after:    a ── b ── R ── e' ── f' ── g'        R leads from the root value of b to that before e
//! ```
//!
//! The root value before `e` is found by taking `g`, `f` and `e` back. The commits after the gap get other ids, as their ancestors are
//! others; their changes, times, messages and coordinates stay. Commits whose changes cannot be taken back become part of `R`.
//! Without a later checkpoint the branch ends at `b`. What refers to a commit that is gone (a tag, a branch) is left out and told.
//!
//! The damaged journal is kept under another name, whole: nothing is ever removed. The new one takes its place when it is complete
//! and durable; a note in the store's folder says so, so that an interrupted exchange is finished by the next repair.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::exchange::{finish_exchange, kept_name, repaired_name, write_note};
use super::salvage::{self, Salvaged};
use super::{Checked, Finding, FsckReport, check, verify_root};
use crate::change_set::{ChangeSet, RowsChange};
use crate::checkpoint;
use crate::commit::{self, Commit, CommitMeta, Identity};
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::id::CommitId;
use crate::journal::{Access, Journal, JournalOptions, SEGMENT_SIZE};
use crate::record::{self, BranchCheckpoint, Checkpoint, CommitMode, Record, RootSpec, TagRecord};
use crate::recovery::{RecoveredBranch, RecoveredDatabase, Recovery};
use crate::root::Root;
use crate::row_index::RowIndex;
use crate::schema::Catalog;
use crate::store::branch::{Branch, BranchCell, Inner};
use crate::store::registry::{Database, Registry, Tag};
use crate::store::shared::{Shared, new_commit};
use crate::store::{FORMAT_FILE, JOURNAL_FOLDER, STORE_FOLDER, take_lock};

/// What [`repair`] found, did and could not save.
#[derive(Clone, Debug, Default)]
pub struct RepairReport {
    pub before: FsckReport,
    /// What was found after the repair; `None`: there was nothing to repair.
    pub after: Option<FsckReport>,
    /// Where the damaged journal is now.
    pub kept: Option<PathBuf>,
    /// What is not in the repaired store.
    pub losses: Vec<Finding>,
    /// The ids of lost commits, as far as anything names them.
    pub lost_commits: Vec<CommitId>,
    /// Commits that have another id now, in the order of the journal.
    pub renamed_commits: Vec<(CommitId, CommitId)>,
}

/// Checks a data directory and, where it is damaged, makes a new journal of what is whole. The old one is kept.
/// # Errors
/// `Locked`, `Format`, `NotFound` when there is no store, `Io`; then the store is as it was.
pub fn repair(path: &Path) -> Result<RepairReport> {
    if !path.join(STORE_FOLDER).is_dir() {
        return Err(Error::NotFound { what: "store in data directory", name: path.display().to_string() });
    }
    repair_on(Arc::new(RealDisk), path)
}

pub(crate) fn repair_on(disk: Arc<dyn Disk>, path: &Path) -> Result<RepairReport> {
    let folder = path.join(STORE_FOLDER);
    let _lock = take_lock(&*disk, &folder)?;
    finish_exchange(&*disk, &folder)?;
    let Checked { report: before, commits } = check(&disk, path, JOURNAL_FOLDER)?;
    let mut report = RepairReport { before, ..RepairReport::default() };
    if report.before.findings.is_empty() {
        return Ok(report);
    }
    let is_free = |name: &str| disk.list(&folder.join(name)).is_err();
    let number = (1u32..).find(|n| is_free(&kept_name(*n)) && is_free(&repaired_name(*n))).expect("BUG: no number is free");
    write_repaired(&disk, path, number, &commits, &mut report)?;
    let after = check(&disk, path, &repaired_name(number))?.report;
    // A format file that cannot be read is made anew with the exchange.
    report.after = Some(FsckReport { findings: after.findings.into_iter().filter(|f| !f.place.ends_with(FORMAT_FILE)).collect(), ..after });
    write_note(&*disk, &folder, number)?;
    finish_exchange(&*disk, &folder)?;
    report.kept = Some(folder.join(kept_name(number)));
    Ok(report)
}

/// Writes the new journal beside the old one.
fn write_repaired(disk: &Arc<dyn Disk>, path: &Path, number: u32, commits: &[CommitId], report: &mut RepairReport) -> Result<()> {
    let folder = path.join(STORE_FOLDER);
    let options = JournalOptions { group_commit: Duration::from_millis(5), segment_size: SEGMENT_SIZE, index_thread: false };
    let journal = Journal::open(disk.clone(), &folder.join(repaired_name(number)), options, Access::Create)?;
    let row_index = RowIndex::new(disk.clone(), None, 0);
    let shared = Arc::new(Shared::new(path.into(), Arc::new(journal), None, row_index, u64::MAX, Box::new(())));
    shared.follow_seals();
    let mut repair = Repair {
        shared: &shared,
        recovery: Recovery::new(&shared),
        next_sequence: 0,
        gap_end: None,
        standing: HashMap::new(),
        waiting: Vec::new(),
        orphans: HashMap::new(),
        renamed: HashMap::new(),
        missing: BTreeSet::new(),
        failed: RefCell::default(),
        report,
    };
    let mut damaged = Vec::new();
    salvage::read(&**disk, &folder.join(JOURNAL_FOLDER), &mut |found| damaged.push(found), &mut |salvaged| match salvaged {
        Salvaged::Chunk(address, bytes) => shared.journal.put_chunk(address, &bytes),
        Salvaged::Record(sequence, record) => repair.record(sequence, record),
    })?;
    repair.finish(commits)?;
    for found in damaged {
        report.losses.push(Finding { place: found.place.into(), what: found.what });
    }
    shared.journal.close()
}

/// Records on their way into the new journal.
struct Repair<'a> {
    shared: &'a Arc<Shared>,
    recovery: Recovery<'a>,
    next_sequence: u64,
    /// Records before this one are missing, and no checkpoint has said since what they did.
    gap_end: Option<u64>,
    /// Branches that stand still since a record, and why.
    standing: HashMap<u32, (u64, String)>,
    /// Records since the first of these, for when a checkpoint tells the state before some of them.
    waiting: Vec<(u64, Record)>,
    /// Commits that could not be applied.
    orphans: HashMap<CommitId, Bytes>,
    /// New ids of commits.
    renamed: HashMap<CommitId, CommitId>,
    /// Ids that something names, of commits that were not there.
    missing: BTreeSet<CommitId>,
    /// Why the new journal cannot be asked. What was said to be lost since then may not be.
    failed: RefCell<Option<Error>>,
    report: &'a mut RepairReport,
}

/// Why a record cannot be taken over.
type Refused = std::result::Result<(), String>;

impl Repair<'_> {
    fn record(&mut self, sequence: u64, record: Option<Record>) -> Result<()> {
        let end = if record.is_none() { sequence + 1 } else { sequence };
        if end > self.next_sequence {
            let (first, last) = (self.next_sequence, end - 1);
            let what = if first == last { format!("record {first}") } else { format!("records {first} to {last}") };
            self.lose("journal", format!("{what} cannot be read"));
            self.gap_end = Some(end);
        }
        self.next_sequence = sequence + 1;
        let Some(record) = record else { return Ok(()) };
        if let Record::Checkpoint(checkpoint) = record {
            return self.checkpoint(&checkpoint);
        }
        if self.gap_end.is_some() || !self.standing.is_empty() {
            self.waiting.push((sequence, record.clone()));
        }
        self.take(sequence, record)
    }

    fn lose(&mut self, place: impl Into<PathBuf>, what: impl Into<String>) {
        self.report.losses.push(Finding { place: place.into(), what: what.into() });
    }

    /// The id that a commit has in the new journal; `None`: it is not there.
    fn known(&self, id: CommitId) -> Option<CommitId> {
        let id = *self.renamed.get(&id).unwrap_or(&id);
        match self.shared.index.read().find(&id) {
            Ok(found) => found.map(|_| id),
            Err(error) => {
                self.failed.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    /// Takes a record over and replays it, or lets its branch stand still.
    fn take(&mut self, sequence: u64, record: Record) -> Result<()> {
        let branch = match &record {
            Record::Commit { branch, .. }
            | Record::BranchCreated { branch, .. }
            | Record::BranchRenamed { branch, .. }
            | Record::HeadMoved { branch, .. }
            | Record::Working { branch, .. }
            | Record::Roots { branch, .. } => Some(*branch),
            _ => None,
        };
        if let Record::Commit { commit, .. } = &record
            && branch.is_some_and(|branch| self.standing.contains_key(&branch))
        {
            self.orphans.insert(CommitId::of(commit), commit.clone());
            return Ok(());
        }
        if let Record::BranchDeleted { branch } = &record {
            self.standing.remove(branch);
        }
        if branch.is_some_and(|branch| self.standing.contains_key(&branch)) && !matches!(record, Record::BranchRenamed { .. }) {
            return Ok(());
        }
        let taken = match record {
            Record::Commit { branch, mode, commit } => self.take_commit(sequence, branch, mode, commit)?,
            Record::BranchCreated { database, branch, name, head: Some(id) } => match self.known(id) {
                Some(id) => self.replay(sequence, Record::BranchCreated { database, branch, name, head: Some(id) })?,
                None => {
                    self.missing.insert(id);
                    Err(format!("branch \"{name}\" began at commit {id}, which is lost"))
                }
            },
            Record::HeadMoved { branch, head, hard } => match self.known(head) {
                Some(head) => self.replay(sequence, Record::HeadMoved { branch, head, hard })?,
                None => {
                    self.missing.insert(head);
                    Err(format!("its head was moved to commit {head}, which is lost"))
                }
            },
            Record::TagPut(tag) => match self.known(tag.commit) {
                Some(commit) => self.replay(sequence, Record::TagPut(TagRecord { commit, ..tag }))?,
                None => {
                    self.missing.insert(tag.commit);
                    self.lose(format!("tag \"{}\"", tag.name), format!("names commit {}, which is lost", tag.commit));
                    Ok(())
                }
            },
            other => self.replay(sequence, other)?,
        };
        if let (Err(reason), Some(branch)) = (taken, branch) {
            if self.standing.is_empty() && self.gap_end.is_none() {
                self.waiting.clear();
            }
            self.standing.insert(branch, (sequence, reason));
        }
        Ok(())
    }

    /// Says whether the chunks of tables that changes replace as a whole are there. They are read late, and might be missed later.
    fn check_replaced(&self, mut root: Root, changes: &ChangeSet) -> Refused {
        let replaced: Vec<_> = changes.tables.iter().filter(|t| matches!(t.rows, RowsChange::Replaced { rows: Some(_) })).collect();
        if replaced.is_empty() {
            return Ok(());
        }
        root.apply(changes, &self.shared.chunks()).map_err(|error| error.to_string())?;
        let whole = replaced.iter().filter_map(|change| root.table(change.table)).try_for_each(|table| table.verify());
        whole.map_err(|error| error.to_string())
    }

    /// The same of a record that changes a working set.
    fn check_working_set(&self, record: &Record) -> Refused {
        let text = |error: Error| error.to_string();
        match record {
            Record::Working { branch, changes, .. } => match self.recovery.branches.get(branch) {
                Some(branch) => {
                    let root = branch.cell.lock().working().clone();
                    self.check_replaced(root, &changes.load(&*self.shared.journal).map_err(text)?)
                }
                None => Ok(()),
            },
            Record::Roots { staged, working, .. } => [staged, working].into_iter().try_for_each(|spec| match spec {
                RootSpec::Written(address) => {
                    Root::open(address, self.shared.chunks()).and_then(|root| verify_root(&root, "")).map_err(text)
                }
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }

    /// Appends a record and replays it; a branch is as before if that fails.
    fn replay(&mut self, sequence: u64, record: Record) -> Result<Refused> {
        if let Err(reason) = self.check_working_set(&record) {
            return Ok(Err(reason));
        }
        let is_commit = matches!(record, Record::Commit { .. });
        let branch = match &record {
            Record::Commit { branch, .. }
            | Record::HeadMoved { branch, .. }
            | Record::Working { branch, .. }
            | Record::Roots { branch, .. } => self.recovery.branches.get(branch),
            _ => None,
        };
        let before = branch.map(|branch| branch.cell.clone()).map(|cell| {
            let root = cell.lock().root().clone();
            (cell, root)
        });
        let encoded = if is_commit { None } else { Some(record.encode()) };
        match self.recovery.replay(sequence, record) {
            Ok(()) => {
                if let Some(encoded) = encoded {
                    self.shared.journal.append(&encoded)?;
                }
                Ok(Ok(()))
            }
            Err(error @ Error::Io { .. }) => Err(error),
            Err(error) => {
                if let Some((cell, root)) = before {
                    let mut inner = cell.lock();
                    if inner.head_root.is_none() {
                        inner.head_root = Some(root);
                    }
                }
                Ok(Err(error.to_string()))
            }
        }
    }

    fn take_commit(&mut self, sequence: u64, branch: u32, mode: CommitMode, bytes: Bytes) -> Result<Refused> {
        let old = CommitId::of(&bytes);
        let commit = match Commit::decode(&bytes, &self.shared.chunks()) {
            Ok(commit) => commit,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let unknown: Vec<CommitId> = commit.parents.iter().copied().filter(|id| self.known(*id).is_none()).collect();
        let head = self.recovery.branches.get(&branch).map(|branch| branch.cell.lock().head.map(|head| head.id));
        let follows = head.is_none_or(|head| mode == CommitMode::Staged || head == commit.parents.first().and_then(|id| self.known(*id)));
        if !unknown.is_empty() || !follows {
            self.missing.extend(unknown);
            self.orphans.insert(old, bytes);
            return Ok(Err(format!("commit {old} does not follow the head, which is another")));
        }
        // Before it is appended: a commit that does not apply would be in the journal for nothing.
        let root = self.recovery.branches.get(&branch).map(|branch| branch.cell.lock().root().clone());
        let whole = match (commit.changes(), root) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(changes), Some(root)) if mode == CommitMode::Follow => self.check_replaced(root, changes),
            (Ok(_), _) => Ok(()),
        };
        if whole.is_err() {
            self.orphans.insert(old, bytes);
            return Ok(whole);
        }
        let bytes = if commit.parents.iter().any(|id| self.known(*id) != Some(*id)) {
            let parents: Vec<CommitId> = commit.parents.iter().filter_map(|id| self.known(*id)).collect();
            self.encode(&parents, &commit.meta, commit.changes()?)?
        } else {
            bytes
        };
        self.append(branch, mode, &bytes)?;
        let taken = self.replay(sequence, Record::Commit { branch, mode, commit: bytes.clone() })?;
        let id = CommitId::of(&bytes);
        if taken.is_err() {
            self.orphans.insert(old, bytes);
        } else if id != old {
            self.rename(old, id);
        }
        Ok(taken)
    }

    fn rename(&mut self, old: CommitId, new: CommitId) {
        self.renamed.insert(old, new);
        self.report.renamed_commits.push((old, new));
    }

    fn height(&self, parents: &[CommitId]) -> Result<u64> {
        let index = self.shared.index.read();
        let mut height = 0;
        for id in parents {
            if let Some(number) = index.find(id)? {
                height = height.max(index.entry(number)?.height);
            }
        }
        Ok(height + 1)
    }

    fn encode(&self, parents: &[CommitId], meta: &CommitMeta, changes: &ChangeSet) -> Result<Bytes> {
        let mut out = Vec::new();
        commit::encode(&mut out, parents, self.height(parents)?, meta, changes, &mut &*self.shared.journal)?;
        Ok(out.into())
    }

    /// Appends a commit, whose parents are there, and enters it.
    fn append(&self, branch: u32, mode: CommitMode, bytes: &Bytes) -> Result<CommitId> {
        let header = commit::Header::decode(bytes).map_err(|e| e.at("commit"))?;
        let touched = header.touched_mask(bytes).map_err(|e| e.at("commit"))?;
        let id = CommitId::of(bytes);
        let parents: Vec<_> = header.parents.iter().map(|id| self.shared.number_of(*id)).collect::<Result<_>>()?;
        let mut encoded = Vec::with_capacity(bytes.len() + 8);
        record::begin_commit(&mut encoded, branch, mode);
        encoded.extend_from_slice(bytes);
        self.shared.journal.wait_for_room();
        self.shared.append_commit(&encoded, new_commit(id, header.height, &header.meta, touched), &parents, &[])?;
        self.shared.pace.count(1);
        Ok(id)
    }

    /// Lets what stood still go on from the state that a checkpoint tells, and makes a checkpoint here, too.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let gap_end = self.gap_end;
        let after_gap = |sequence: u64| gap_end.is_none_or(|end| sequence >= end);
        let mut healed = Vec::new();
        for branch in &checkpoint.branches {
            let stands = self.standing.get(&branch.branch).map(|(since, _)| *since);
            let concerned = stands.is_some() || gap_end.is_some();
            if concerned && after_gap(branch.sequence) && stands.is_none_or(|since| branch.sequence > since) && self.heal(branch)? {
                healed.push((branch.branch, branch.sequence));
            }
        }
        if gap_end.is_some() && after_gap(checkpoint.sequence) {
            self.restore_names(checkpoint);
            self.gap_end = None;
        }
        // What came between the checkpoint's looks and its record.
        for (sequence, record) in std::mem::take(&mut self.waiting) {
            let of_branch = match &record {
                Record::Commit { branch, .. }
                | Record::HeadMoved { branch, .. }
                | Record::Working { branch, .. }
                | Record::Roots { branch, .. } => healed.iter().any(|(healed, from)| healed == branch && sequence >= *from),
                _ => gap_end.is_some() && sequence >= checkpoint.sequence,
            };
            if of_branch {
                self.take(sequence, record)?;
            }
        }
        self.make_checkpoint()
    }

    /// Gives a branch the state that a checkpoint tells; `false` when that cannot be read.
    fn heal(&mut self, branch: &BranchCheckpoint) -> Result<bool> {
        let open = |spec: &RootSpec, head: &Root, staged: &Root| match spec {
            RootSpec::Written(address) => Root::open(address, self.shared.chunks()),
            RootSpec::Staged => Ok(staged.clone()),
            RootSpec::Head | RootSpec::Unchanged => Ok(head.clone()),
        };
        let opened = Root::open(&branch.head_root, self.shared.chunks()).and_then(|root| {
            let staged = open(&branch.staged, &root, &root)?;
            let working = open(&branch.working, &root, &staged)?;
            Ok((root, staged, working))
        });
        let (Ok((root, staged, working)), Some(head)) = (opened, branch.head) else { return Ok(false) };
        let own = self.recovery.branches.get(&branch.branch).map(|own| own.cell.clone());
        let stood = own.as_ref().map(|cell| {
            let inner = cell.lock();
            (inner.head.map(|head| head.id), inner.root().clone())
        });
        // With a hole in it, it is no place to go on from.
        if [&root, &staged, &working].iter().any(|root| verify_root(root, "").is_err()) {
            return Ok(!self.standing.contains_key(&branch.branch));
        }
        let id = match self.known(head) {
            Some(id) => id,
            None => match self.bridge(branch, head, &root, stood) {
                Err(Error::Damaged { .. }) => return Ok(false),
                other => other?,
            },
        };
        let mut inner = Inner::new(Some(self.shared.head_of(id)?), root);
        inner.set_working_set(staged, working);
        inner.conflicts.clone_from(&branch.conflicts);
        inner.applied = branch.applied;
        let cell = BranchCell::new(self.shared.clone(), branch.branch, branch.database, inner);
        let recovered = RecoveredBranch { name: branch.name.clone(), database: branch.database, cell };
        self.recovery.branches.insert(branch.branch, recovered);
        self.standing.remove(&branch.branch);
        Ok(true)
    }

    /// Makes the commits that lead from where a branch stood to a commit whose root value is known; returns the last one's id.
    fn bridge(
        &mut self,
        branch: &BranchCheckpoint,
        head: CommitId,
        root: &Root,
        stood: Option<(Option<CommitId>, Root)>,
    ) -> Result<CommitId> {
        // The commits up to the gap, newest first, and the root value before each as far as it is found.
        let mut kept = Vec::new();
        let mut before = root.clone();
        let mut at = head;
        while let Some(commit) = self.orphans.get(&at).and_then(|bytes| Commit::decode(bytes, &self.shared.chunks()).ok()) {
            let mut undone = before.clone();
            let Some(inverted) = commit.changes().ok().and_then(|changes| changes.clone().inverted()) else { break };
            if commit.parents.is_empty() || undone.apply(&inverted, &self.shared.chunks()).is_err() {
                break;
            }
            before = undone;
            at = commit.parents[0];
            kept.push((commit.id, commit));
            if self.known(at).is_some() {
                break;
            }
        }
        let (parent, from) = stood.unwrap_or((None, Root::new(Catalog::default())));
        let changes = Root::diff_to_changes(&from, &before, &mut &*self.shared.journal)?;
        let author = Identity { name: "strandline fsck".into(), email: String::new() };
        let time = kept.last().map_or_else(
            || parent.and_then(|id| Some(self.shared.commit_numbered(self.shared.number_of(id).ok()?).ok()?.time())).unwrap_or_default(),
            |(_, commit)| commit.meta.commit_time,
        );
        let text = format!("Repair: what commits up to {at} of branch {} did, which are lost", branch.name);
        let meta = CommitMeta { committer: author.clone(), author, author_time: time, commit_time: time, message: text, source: None };
        let gone = self.known(at).is_none();
        self.missing.insert(at);
        let bytes = self.encode(&parent.into_iter().collect::<Vec<_>>(), &meta, &changes)?;
        let mut last = self.append(branch.branch, CommitMode::Staged, &bytes)?;
        let what = if gone { format!("commits up to {at} are lost") } else { format!("commits after {at} cannot be replayed") };
        self.lose(format!("branch \"{}\"", branch.name), format!("{what}; commit {last} does what they did together"));
        for (old, commit) in kept.into_iter().rev() {
            let merged = commit.parents[1..].iter().filter_map(|id| self.known(*id));
            let parents: Vec<CommitId> = [last].into_iter().chain(merged).collect();
            let bytes = self.encode(&parents, &commit.meta, commit.changes()?)?;
            last = self.append(branch.branch, CommitMode::Staged, &bytes)?;
            self.rename(old, last);
        }
        Ok(last)
    }

    /// Takes databases, tags and small state from a checkpoint.
    fn restore_names(&mut self, checkpoint: &Checkpoint) {
        let registry = &mut self.recovery.registry;
        registry.next_number = registry.next_number.max(checkpoint.next_number);
        registry.oid_limit = registry.oid_limit.max(checkpoint.oid_limit);
        registry.state = checkpoint.state.iter().cloned().collect();
        self.recovery.databases = checkpoint
            .databases
            .iter()
            .map(|(number, name)| (*number, RecoveredDatabase { name: name.clone(), tags: Vec::new() }))
            .collect();
        let databases = &self.recovery.databases;
        let names: HashMap<u32, &String> = checkpoint.branches.iter().map(|branch| (branch.branch, &branch.name)).collect();
        self.recovery.branches.retain(|number, branch| names.contains_key(number) && databases.contains_key(&branch.database));
        for (number, branch) in &mut self.recovery.branches {
            branch.name.clone_from(names[number]);
        }
        for tag in &checkpoint.tags {
            match self.known(tag.commit) {
                Some(commit) => {
                    if let Some(database) = self.recovery.databases.get_mut(&tag.database) {
                        database.tags.push(Tag::of_record(TagRecord { commit, ..tag.clone() }));
                    }
                }
                None => {
                    self.missing.insert(tag.commit);
                    self.lose(format!("tag \"{}\"", tag.name), format!("names commit {}, which is lost", tag.commit));
                }
            }
        }
    }

    /// Everything by name, as it stands.
    fn registry(&self) -> Registry {
        let own = &self.recovery.registry;
        let mut registry = Registry { next_number: own.next_number, oid_limit: own.oid_limit, ..Registry::new() };
        registry.state.clone_from(&own.state);
        for branch in self.recovery.branches.values().filter(|branch| branch.cell.lock().head.is_some()) {
            let Some(database) = self.recovery.databases.get(&branch.database) else { continue };
            let entry = registry.databases.entry(database.name.clone()).or_insert_with(|| Database {
                number: branch.database,
                branches: Default::default(),
                tags: database.tags.iter().map(|tag| (tag.name.clone(), tag.clone())).collect(),
            });
            entry.branches.insert(branch.name.clone(), Branch::new(branch.name.clone(), branch.cell.clone()));
        }
        registry
    }

    fn make_checkpoint(&self) -> Result<()> {
        self.shared.pace.count(1);
        checkpoint::make(self.shared, &Mutex::new(self.registry()))
    }

    /// Notes where branches ended and which commits are lost, and makes the last checkpoint, from which the store is opened.
    fn finish(mut self, commits: &[CommitId]) -> Result<()> {
        for (number, (_, reason)) in std::mem::take(&mut self.standing) {
            let (place, stands) = match self.recovery.branches.get(&number) {
                Some(branch) => {
                    let head = branch.cell.lock().head.map_or_else(|| "no commit".into(), |head| format!("commit {}", head.id));
                    (format!("branch \"{}\"", branch.name), format!("stands at {head}"))
                }
                None => (format!("branch {number}"), "is lost".into()),
            };
            self.lose(place, format!("{stands}: {reason}"));
        }
        self.make_checkpoint()?;
        let named = self.missing.iter().chain(self.orphans.keys()).chain(commits).copied().collect::<BTreeSet<_>>();
        self.report.lost_commits = named.into_iter().filter(|id| self.known(*id).is_none()).collect();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        Ok(())
    }
}
