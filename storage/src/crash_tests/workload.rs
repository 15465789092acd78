//! The standard workload: all that a store does, in an order that a seed decides, with a model beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::model::{
    BranchModel, CommitModel, DatabaseModel, RowId, Rows, StoreModel, Tables, count_equal, follow, observe, row, source_of, tables_of,
};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::random_of;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::journal::{JournalOptions, JournalPosition};
use crate::row_index::RowIndexOptions;
use crate::schema::Oid;
use crate::store::tests::{meta, table};
use crate::store::{Branch, GcMode, OpenWith, Store, Tag};

pub const DATABASE: &str = "postgres";
const OTHER_DATABASE: &str = "other";
pub const TABLE: Oid = 16400;
const KEYLESS: Oid = 16410;
/// More tables come with these and every tenth oid after.
const FIRST_MORE_TABLE: Oid = 17000;
const BRANCH_NAMES: [&str; 3] = ["a", "b", "c"];
/// Small, so that there are many segments and runs.
const SEGMENT_SIZE: u64 = 12 << 10;
const RUN_ENTRY_COUNT: usize = 60;
const RECOVERY_CHECKPOINT_AT: u64 = 30;

/// The data directory on simulated disks.
pub fn data() -> &'static Path {
    Path::new("/data")
}

/// Opens the store on a disk. Nothing happens there by itself: groups are written where somebody waits, the row index
/// works where it is told to. So the same workload does the same operations in the same order.
pub fn open_on(disk: &SimulatedDisk) -> Result<Arc<Store>> {
    let with = OpenWith {
        disk: Arc::new(disk.clone()),
        journal: JournalOptions { group_commit: Duration::from_secs(86_400), segment_size: SEGMENT_SIZE, index_thread: false },
        checkpoint_row_count: u64::MAX,
        // Some openings replay more, some less.
        recovery_checkpoint_at: RECOVERY_CHECKPOINT_AT,
        compaction: None,
        derived: false,
        row_index: Some(RowIndexOptions { entry_count: RUN_ENTRY_COUNT, thread: false }),
    };
    Store::open_with(data(), with)
}

/// All that is known of a run: what the store held after each step, and from when on that was durable.
pub struct Run {
    pub disk: SimulatedDisk,
    pub states: Vec<Arc<StoreModel>>,
    positions: Vec<JournalPosition>,
    pub commits: BTreeMap<CommitId, CommitModel>,
    /// (changes on the disk, state): once the disk has done so many, nothing before this state may be found.
    pub acknowledged: Vec<(usize, usize)>,
    /// Oids that were given out, and the state at that time.
    pub oids: Vec<(usize, Oid)>,
    /// Errors of steps, in order.
    pub errors: Vec<Error>,
    /// Openings that made a checkpoint of what they replayed.
    pub recovered_count: usize,
}

impl Run {
    /// The oldest state that may be found when the disk has done so many changes.
    pub fn acknowledged_after(&self, change_count: usize) -> usize {
        let done = self.acknowledged.partition_point(|(changes, _)| *changes <= change_count);
        done.checked_sub(1).map_or(0, |last| self.acknowledged[last].1)
    }

    pub fn last(&self) -> &Arc<StoreModel> {
        self.states.last().expect("a state")
    }
}

/// A workload under way.
pub struct Workload {
    pub run: Run,
    store: Option<Arc<Store>>,
    random: StdRng,
    /// Numbers transactions, so that each commit is another one.
    n: u64,
}

/// When a run gives up: an error that does not stop the store may come again and again.
const ERROR_COUNT_MAX: usize = 5;

impl Workload {
    /// Begins on a new disk.
    pub fn new(seed: u64) -> Workload {
        let run = Run {
            disk: SimulatedDisk::default(),
            states: vec![Arc::default()],
            positions: vec![JournalPosition(0)],
            commits: BTreeMap::new(),
            acknowledged: vec![(0, 0)],
            oids: Vec::new(),
            errors: Vec::new(),
            recovered_count: 0,
        };
        Workload { run, store: None, random: random_of(seed, 1), n: 0 }
    }

    /// Goes on where another one was at one of these states; which of them it was, opening tells.
    pub fn after(run: &Run, disk: SimulatedDisk, from: usize, to: usize, seed: u64) -> Workload {
        let made = run.commits.iter().filter(|(_, commit)| commit.state <= to);
        let commits = made.map(|(id, commit)| (*id, CommitModel { state: commit.state.saturating_sub(from), ..commit.clone() })).collect();
        let run = Run {
            disk,
            states: run.states[from..=to].to_vec(),
            // None of them is durable before the store is open.
            positions: vec![JournalPosition(u64::MAX); to - from + 1],
            commits,
            acknowledged: vec![(0, 0)],
            oids: run.oids.iter().filter(|(state, _)| *state <= from).map(|(_, oid)| (0, *oid)).collect(),
            errors: Vec::new(),
            recovered_count: 0,
        };
        let mut random = random_of(seed, 2);
        // Names of tables that nothing before had.
        let n = random.random_range(1_000_000..100_000_000);
        Workload { run, store: None, random, n }
    }

    /// Takes over an open store, which has the last state.
    pub fn take(&mut self, store: Arc<Store>) -> Result<()> {
        self.run.acknowledged.push((self.run.disk.change_count(), self.run.states.len() - 1));
        *self.run.positions.last_mut().expect("a state") = JournalPosition(0);
        self.store = Some(store.clone());
        self.put_state(&store, "opened").and_then(|()| store.sync())
    }

    fn note_durable(&mut self) {
        let Some(store) = &self.store else { return };
        let durable = store.durable();
        let state = self.run.positions.iter().rposition(|position| *position <= durable).unwrap_or(0);
        if state > self.run.acknowledged.last().expect("a state").1 {
            self.run.acknowledged.push((self.run.disk.change_count(), state));
        }
    }

    fn model(&self) -> StoreModel {
        (**self.run.last()).clone()
    }

    /// Notes what the store holds from now on.
    fn put(&mut self, store: &Store, model: StoreModel) {
        self.run.states.push(Arc::new(model));
        self.run.positions.push(JournalPosition(store.shared.journal.next_sequence()));
    }

    fn step(&mut self) -> Result<()> {
        let Some(store) = self.store.clone() else {
            let store = open_on(&self.run.disk)?;
            self.store = Some(store.clone());
            // The first group after opening is written at once: it is to be the same one always.
            return self.put_state(&store, "opened").and_then(|()| store.sync());
        };
        if !self.run.last().databases.contains_key(DATABASE) {
            return self.create_database(&store);
        }
        let main = &self.run.last().databases[DATABASE].branches["main"];
        if !main.head_tables.contains_key(&TABLE) {
            return self.create_tables(&store);
        }
        match self.random.random_range(0..100) {
            0..30 => self.ingest(&store),
            30..36 => self.ingest_table(&store),
            36..47 => self.change_working_set(&store),
            47..51 => self.commit_local(&store),
            51..57 => self.stage(&store),
            57..60 => self.reset(&store),
            60..66 => self.change_branches(&store),
            66..69 => self.change_tags(&store),
            69..74 => {
                let key = format!("replication/{}", self.random.random_range(0..3));
                self.put_state(&store, &key)
            }
            74..76 => self.take_oid(&store),
            76..78 => self.change_databases(&store),
            78..82 => store.checkpoint(),
            82..84 => self.collect_garbage(&store),
            84..88 => store.shared.row_index.work(&store.shared, RUN_ENTRY_COUNT),
            88..98 => store.sync(),
            _ => self.reopen(store),
        }
    }

    fn reopen(&mut self, store: Arc<Store>) -> Result<()> {
        self.store = None;
        if self.random.random() {
            store.close()?
        } else {
            store.sync()?
        }
        self.run.acknowledged.push((self.run.disk.change_count(), self.run.states.len() - 1));
        drop(store);
        let store = open_on(&self.run.disk)?;
        self.run.recovered_count += usize::from(store.replayed.cost() >= RECOVERY_CHECKPOINT_AT);
        self.store = Some(store.clone());
        self.put_state(&store, "opened").and_then(|()| store.sync())
    }

    fn put_state(&mut self, store: &Store, key: &str) -> Result<()> {
        let mut model = self.model();
        let value = (self.random.random_range(0..5) > 0).then(|| format!("{:X}", self.random.random::<u32>()).into_bytes());
        store.put_state(key, value.as_deref())?;
        match value {
            Some(value) => model.state.insert(key.into(), value),
            None => model.state.remove(key),
        };
        self.put(store, model);
        Ok(())
    }

    fn create_database(&mut self, store: &Store) -> Result<()> {
        store.create_database(DATABASE, meta("", 0))?;
        self.note_new_database(store, DATABASE)
    }

    /// What a new database holds is taken from the store; other tests say what that has to be.
    fn note_new_database(&mut self, store: &Store, name: &str) -> Result<()> {
        let mut model = self.model();
        let state = store.branch(name, "main")?.state();
        let tables = Arc::new(tables_of(&state.head_root)?);
        let mut next = Some(state.head);
        while let Some(id) = next {
            let commit = store.commit(id)?;
            let found = CommitModel {
                state: self.run.states.len(),
                parents: commit.parents.clone(),
                message: commit.meta.message.clone(),
                source: source_of(&commit),
                tables: tables.clone(),
            };
            self.run.commits.insert(id, found);
            next = commit.parents.first().copied();
        }
        let branch =
            BranchModel { head: state.head, head_tables: tables.clone(), staged: tables.clone(), working: tables, applied: Lsn(0) };
        let branches = BTreeMap::from([("main".to_owned(), branch)]);
        model.databases.insert(name.into(), DatabaseModel { branches, ..DatabaseModel::default() });
        self.put(store, model);
        Ok(())
    }

    fn change_databases(&mut self, store: &Store) -> Result<()> {
        if !self.run.last().databases.contains_key(OTHER_DATABASE) {
            self.n += 1;
            store.create_database(OTHER_DATABASE, meta("", self.n))?;
            return self.note_new_database(store, OTHER_DATABASE);
        }
        store.drop_database(OTHER_DATABASE)?;
        let mut model = self.model();
        model.databases.remove(OTHER_DATABASE);
        self.put(store, model);
        Ok(())
    }

    fn some_branch(&mut self, store: &Store) -> Result<(String, Arc<Branch>)> {
        let names: Vec<&String> = self.run.last().databases[DATABASE].branches.keys().collect();
        let name =
            if self.random.random_ratio(2, 3) { "main".to_owned() } else { (*names.choose(&mut self.random).expect("main")).clone() };
        Ok((name.clone(), store.branch(DATABASE, &name)?))
    }

    fn branch_model(&self, name: &str) -> BranchModel {
        self.run.last().databases[DATABASE].branches[name].clone()
    }

    fn put_branch(&mut self, store: &Store, name: &str, branch: BranchModel) {
        let mut model = self.model();
        model.databases.get_mut(DATABASE).expect("the database").branches.insert(name.into(), branch);
        self.put(store, model);
    }

    /// The head moves to a new commit with these tables and the working set follows.
    fn advance(&mut self, store: &Store, name: &str, id: CommitId, meta: &crate::commit::CommitMeta, after: Tables) {
        let mut branch = self.branch_model(name);
        let after = Arc::new(after);
        let source = meta.source.as_ref().map(|s| (s.end_lsn, s.commit_lsn, s.xid));
        let commit = CommitModel {
            state: self.run.states.len(),
            parents: vec![branch.head],
            message: meta.message.clone(),
            source,
            tables: after.clone(),
        };
        self.run.commits.insert(id, commit);
        for local in [&mut branch.staged, &mut branch.working] {
            let followed = follow(&branch.head_tables, &after, local);
            *local = if followed == *after { after.clone() } else { Arc::new(followed) };
        }
        branch.head = id;
        branch.head_tables = after;
        self.put_branch(store, name, branch);
    }

    fn next_meta(&mut self, what: &str) -> crate::commit::CommitMeta {
        self.n += 1;
        meta(&format!("{what} {}", self.n), self.n)
    }

    fn create_tables(&mut self, store: &Store) -> Result<()> {
        let branch = store.branch(DATABASE, "main")?;
        let mut apply = branch.begin_apply(false)?;
        apply.put_table(table(TABLE, "t", true))?;
        apply.put_table(table(KEYLESS, "k", false))?;
        let meta = self.next_meta("tables");
        let (id, _) = apply.commit(meta.clone())?;
        self.advance(store, "main", id, &meta, Tables::from([(TABLE, Rows::new()), (KEYLESS, Rows::new())]));
        Ok(())
    }

    /// A replicated transaction of some rows; after some of them the source's position is durable before the next step.
    fn ingest(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let mut tables = (*self.branch_model(&name).head_tables).clone();
        let mut apply = branch.begin_apply(self.random.random_ratio(1, 4))?;
        for _ in 0..self.random.random_range(1..5) {
            let keyed: Vec<Oid> = tables.keys().copied().filter(|oid| *oid != KEYLESS).collect();
            let oid = *keyed.choose(&mut self.random).expect("a table");
            let id = self.random.random_range(0..40);
            self.change_row(&mut apply, &mut tables, oid, id)?;
        }
        if tables.contains_key(&KEYLESS) && self.random.random() {
            insert_keyless(&mut apply, &mut tables, self.random.random_range(0..3))?;
        }
        let meta = self.next_meta("transaction");
        let (id, position) = apply.commit(meta.clone())?;
        self.advance(store, &name, id, &meta, tables);
        if self.random.random_ratio(1, 4) { store.wait_durable(position) } else { Ok(()) }
    }

    /// A replicated transaction that changes a whole table: makes, empties or replaces it.
    fn ingest_table(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let mut tables = (*self.branch_model(&name).head_tables).clone();
        let mut apply = branch.begin_apply(self.random.random())?;
        match self.random.random_range(0..3) {
            0 if tables.len() < 5 => {
                self.n += 1;
                let oid = FIRST_MORE_TABLE + 10 * self.n as Oid;
                apply.put_table(table(oid, &format!("t{oid}"), true))?;
                tables.insert(oid, Rows::new());
                self.change_row(&mut apply, &mut tables, oid, 7)?;
            }
            1 => {
                apply.truncate(TABLE)?;
                tables.insert(TABLE, Rows::new());
                self.change_row(&mut apply, &mut tables, TABLE, 3)?;
            }
            _ => {
                let count = self.random.random_range(20..200);
                let texts: Vec<String> = (0..count).map(|_| self.text()).collect();
                apply.replace_rows(TABLE, &mut texts.iter().zip(0..).map(|(text, id)| Ok(row(id, text))))?;
                tables.insert(TABLE, texts.into_iter().zip(0..).map(|(text, id)| ((id, None), text)).collect());
            }
        }
        let meta = self.next_meta("table");
        let (id, _) = apply.commit(meta.clone())?;
        self.advance(store, &name, id, &meta, tables);
        Ok(())
    }

    /// A local transaction, or one of the source, that is not committed.
    fn change_working_set(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let base = branch.state();
        let mut model = self.branch_model(&name);
        let mut tables = (*model.working).clone();
        let mut edit = Edit::new(base.working.clone());
        for _ in 0..self.random.random_range(1..3) {
            let id = self.random.random_range(30..50);
            self.change_row(&mut edit, &mut tables, TABLE, id)?;
        }
        if edit.changes().is_empty() {
            return Ok(());
        }
        if self.random.random_ratio(1, 3) {
            self.n += 1;
            let end = Lsn(self.n * 100);
            branch.apply_to_working(&base, edit, end)?;
            model.applied = model.applied.max(end);
        } else {
            branch.commit_local(&base, edit, None)?;
        }
        model.working = Arc::new(tables);
        self.put_branch(store, &name, model);
        Ok(())
    }

    /// A local transaction that is committed at once.
    fn commit_local(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let base = branch.state();
        let model = self.branch_model(&name);
        let same = |id: &i32| {
            let text = |tables: &Tables| tables.get(&TABLE).map(|rows| rows.get(&(*id, None)).cloned());
            text(&model.head_tables) == text(&model.working)
        };
        let Some(id) = (0..50).filter(same).collect::<Vec<i32>>().choose(&mut self.random).copied() else { return Ok(()) };
        let mut edit = Edit::new(base.working.clone());
        let mut working = (*model.working).clone();
        self.change_row(&mut edit, &mut working, TABLE, id)?;
        let mut tables = (*model.head_tables).clone();
        let (rows, changed) = (tables.entry(TABLE).or_default(), &working[&TABLE]);
        match changed.get(&(id, None)) {
            Some(text) => rows.insert((id, None), text.clone()),
            None => rows.remove(&(id, None)),
        };
        self.n += 1;
        let meta = meta(&format!("local {}", self.n), 0);
        let (id, _) = branch.commit_local(&base, edit, Some(meta.clone()))?;
        self.advance(store, &name, id.expect("a commit"), &meta, tables);
        Ok(())
    }

    /// Stages what is working, or commits what is staged.
    fn stage(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let state = branch.state();
        let mut model = self.branch_model(&name);
        if self.random.random() {
            branch.set_roots(state.version, Some(state.working.clone()), None)?;
            model.staged = model.working.clone();
            self.put_branch(store, &name, model);
            return Ok(());
        }
        let amend = self.random.random_ratio(1, 3);
        self.n += 1;
        let meta = meta(&format!("staged {}", self.n), 0);
        let (id, _) = branch.commit_staged(state.version, meta.clone(), amend)?;
        let parents = if amend { self.run.commits[&model.head].parents.clone() } else { vec![model.head] };
        let commit =
            CommitModel { state: self.run.states.len(), parents, message: meta.message, source: None, tables: model.staged.clone() };
        self.run.commits.insert(id, commit);
        model.head = id;
        model.head_tables = model.staged.clone();
        self.put_branch(store, &name, model);
        Ok(())
    }

    /// A commit of the database that has its tables.
    fn some_commit(&mut self) -> (CommitId, Arc<Tables>) {
        let commits: Vec<(CommitId, Arc<Tables>)> = self
            .run
            .commits
            .iter()
            .filter(|(_, commit)| commit.tables.contains_key(&TABLE))
            .map(|(id, commit)| (*id, commit.tables.clone()))
            .collect();
        commits.choose(&mut self.random).cloned().expect("a commit")
    }

    fn reset(&mut self, store: &Store) -> Result<()> {
        let (name, branch) = self.some_branch(store)?;
        let (target, tables) = self.some_commit();
        let hard = self.random.random();
        branch.reset(branch.state().version, target, hard)?;
        let mut model = self.branch_model(&name);
        model.head = target;
        model.head_tables = tables.clone();
        if hard {
            model.staged = tables.clone();
            model.working = tables;
        }
        self.put_branch(store, &name, model);
        Ok(())
    }

    fn change_branches(&mut self, store: &Store) -> Result<()> {
        let name = *BRANCH_NAMES.choose(&mut self.random).expect("a name");
        let other = *BRANCH_NAMES.choose(&mut self.random).expect("a name");
        let mut model = self.model();
        let branches = &mut model.databases.get_mut(DATABASE).expect("the database").branches;
        match (branches.contains_key(name), self.random.random_range(0..3)) {
            (true, 0) => {
                store.delete_branch(DATABASE, name)?;
                branches.remove(name);
            }
            (true, 1) if name != other => {
                store.rename_branch(DATABASE, name, other, true)?;
                let branch = branches.remove(name).expect("a branch");
                branches.insert(other.into(), branch);
            }
            (exists, _) => {
                let (head, tables) = self.some_commit();
                store.create_branch(DATABASE, name, head, true)?;
                let applied = if exists { branches[name].applied } else { Lsn(0) };
                let (staged, working) = (tables.clone(), tables.clone());
                branches.insert(name.into(), BranchModel { head, head_tables: tables, staged, working, applied });
            }
        }
        self.put(store, model);
        Ok(())
    }

    fn change_tags(&mut self, store: &Store) -> Result<()> {
        let name = format!("v{}", self.random.random_range(0..3));
        let mut model = self.model();
        if model.databases[DATABASE].tags.contains_key(&name) {
            store.delete_tag(DATABASE, &name)?;
            model.databases.get_mut(DATABASE).expect("the database").tags.remove(&name);
        } else {
            let (commit, _) = self.some_commit();
            let tag =
                Tag { name: name.clone(), commit, tagger: Default::default(), time: Timestamp(self.n as i64), message: "a tag".into() };
            store.create_tag(DATABASE, tag)?;
            model.databases.get_mut(DATABASE).expect("the database").tags.insert(name, commit);
        }
        self.put(store, model);
        Ok(())
    }

    fn take_oid(&mut self, store: &Store) -> Result<()> {
        let oid = store.next_oid()?;
        assert!(self.run.oids.iter().all(|(_, given)| *given != oid), "oid {oid} is given out twice");
        // It counts as given out when something that uses it can be found again.
        let model = self.model();
        self.put(store, model);
        self.run.oids.push((self.run.states.len() - 1, oid));
        Ok(())
    }

    /// Gives space back, with few or many old root values kept.
    fn collect_garbage(&mut self, store: &Store) -> Result<()> {
        let mode = *[GcMode::Shallow, GcMode::Normal, GcMode::Full].choose(&mut self.random).expect("a mode");
        let spacing = *[0, 20, 1 << 20].choose(&mut self.random).expect("a spacing");
        crate::gc::run::run(&store.shared, &store.registry, mode, spacing).map(drop)
    }

    fn change_row(&mut self, edit: &mut Edit, tables: &mut Tables, oid: Oid, id: i32) -> Result<()> {
        let rows = tables.get_mut(&oid).expect("a table");
        let row_id: RowId = (id, None);
        let key = edit.root().table(oid).expect("a table").row_key(&row(id, ""));
        let exists = rows.contains_key(&row_id);
        if !exists {
            let text = self.text();
            edit.insert(oid, row(id, &text))?;
            rows.insert(row_id, text);
        } else if self.random.random_ratio(1, 4) {
            edit.delete(oid, &key)?;
            rows.remove(&row_id);
        } else {
            let text = self.text();
            edit.update_columns(oid, &key, &[(1, crate::value::Value::bytes(text.as_str()))])?;
            rows.insert(row_id, text);
        }
        Ok(())
    }

    /// Most texts are short; some fill several sectors and do not compress.
    fn text(&mut self) -> String {
        let size = match self.random.random_range(0..40) {
            0 => 4000,
            1..4 => 400,
            _ => 12,
        };
        (0..size).map(|_| self.random.random_range('!'..='~')).collect()
    }

    /// The store as it is now has the last state, whatever went wrong.
    pub fn check(&self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let found = observe(store)?;
        assert!(found == **self.run.last(), "in memory: {}", super::model::first_difference(self.run.last(), &found));
        Ok(())
    }

    /// Gives the store away and keeps what is known.
    pub fn finish(self) -> Run {
        self.run
    }

    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// Does so many steps; errors are noted. Returns whether the store goes on.
    pub fn go(&mut self, step_count: usize) -> bool {
        for _ in 0..step_count {
            let result = self.step();
            self.note_durable();
            if let Err(error) = result {
                let stopped = matches!(error, Error::Stopped { .. }) || self.store.is_none();
                self.run.errors.push(error);
                if stopped || self.run.errors.len() >= ERROR_COUNT_MAX {
                    return false;
                }
            }
        }
        true
    }
}

fn insert_keyless(edit: &mut Edit, tables: &mut Tables, id: i32) -> Result<()> {
    let text = "same".to_owned();
    edit.insert(KEYLESS, row(id, &text))?;
    let rows = tables.get_mut(&KEYLESS).expect("a table");
    let next = count_equal(rows, &(id, Some((text.clone(), 0))));
    rows.insert((id, Some((text.clone(), next))), text);
    Ok(())
}
