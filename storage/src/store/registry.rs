//! What the store knows by name: databases, branches, tags, small state, oids. Every change is one record.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::branch::{Branch, BranchCell, Head, Inner, PreparedCommit};
use super::shared::{Shared, new_commit};
use crate::change_set::{CatalogChange, ChangeSet};
use crate::commit::{CommitMeta, Identity};
use crate::commit_index::NewCommit;
use crate::error::{Error, Result};
use crate::id::{CommitId, Timestamp};
use crate::journal::JournalPosition;
use crate::record::{CommitMode, Record, TagRecord};
use crate::root::Root;
use crate::schema::{Catalog, FIRST_USER_OID, Oid};

/// Oids are made durable in blocks of this size; what a crash leaves of one is skipped.
const OID_BLOCK_SIZE: u32 = 64;
/// The longest value of small state.
const STATE_SIZE_MAX: usize = 1 << 20;
/// The longest name of a database, branch or tag.
const NAME_SIZE_MAX: usize = 1024;

/// Where the small state of subscriptions is.
const SUBSCRIPTIONS: &str = "subscription/";

/// The branch that a new database has.
const FIRST_BRANCH: &str = "main";
/// The owner of a new database's schema `public`, as in PostgreSQL 15.
const PUBLIC_SCHEMA_OWNER: &str = "pg_database_owner";

/// A name of a commit that does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: String,
    pub commit: CommitId,
    pub tagger: Identity,
    pub time: Timestamp,
    pub message: String,
}

pub(crate) struct Registry {
    pub databases: BTreeMap<String, Database>,
    /// The next number of a database or branch.
    pub next_number: u32,
    pub state: BTreeMap<String, Vec<u8>>,
    pub next_oid: Oid,
    /// Oids below this one are durably reserved.
    pub oid_limit: Oid,
}

pub(crate) struct Database {
    pub number: u32,
    pub branches: BTreeMap<String, Arc<Branch>>,
    pub tags: BTreeMap<String, Tag>,
}

impl Registry {
    pub fn new() -> Self {
        Registry { databases: BTreeMap::new(), next_number: 1, state: BTreeMap::new(), next_oid: FIRST_USER_OID, oid_limit: FIRST_USER_OID }
    }

    pub fn database(&self, name: &str) -> Result<&Database> {
        self.databases.get(name).ok_or_else(|| Error::NotFound { what: "database", name: name.into() })
    }

    pub fn database_mut(&mut self, name: &str) -> Result<&mut Database> {
        self.databases.get_mut(name).ok_or_else(|| Error::NotFound { what: "database", name: name.into() })
    }

    fn take_number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number - 1
    }
}

impl Tag {
    pub(crate) fn record(&self, database: u32) -> TagRecord {
        TagRecord {
            database,
            name: self.name.clone(),
            commit: self.commit,
            tagger_name: self.tagger.name.clone(),
            tagger_email: self.tagger.email.clone(),
            time: self.time,
            message: self.message.clone(),
        }
    }

    pub(crate) fn of_record(record: TagRecord) -> Tag {
        Tag {
            name: record.name,
            commit: record.commit,
            tagger: Identity { name: record.tagger_name, email: record.tagger_email },
            time: record.time,
            message: record.message,
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid(format!("the name of a {what} cannot be empty")));
    }
    if name.len() > NAME_SIZE_MAX {
        return Err(Error::Limit { what: "length of a name", limit: NAME_SIZE_MAX as u64 });
    }
    Ok(())
}

impl Shared {
    pub fn head_of(&self, commit: CommitId) -> Result<Head> {
        let index = self.index.read();
        let number = index.find(&commit)?.ok_or_else(|| Error::NotFound { what: "commit", name: commit.to_string() })?;
        Ok(Head { id: commit, number, height: index.entry(number)?.height })
    }
}

impl Store {
    /// The names of all databases, in order.
    pub fn databases(&self) -> Vec<String> {
        self.registry.lock().databases.keys().cloned().collect()
    }

    /// Two commits: `Initialize data repository`, then `CREATE DATABASE`; branch `main`. Schema `public` belongs to the role that PostgreSQL 15 gives it to.
    /// # Errors
    /// `AlreadyExists`.
    pub fn create_database(&self, name: &str, meta: CommitMeta) -> Result<()> {
        check_name("database", name)?;
        let mut registry = self.registry.lock();
        if registry.databases.contains_key(name) {
            return Err(Error::AlreadyExists { what: "database", name: name.into() });
        }
        let (number, branch) = (registry.take_number(), registry.take_number());
        let shared = &self.shared;
        let created = Record::DatabaseCreated { database: number, name: name.into() }.encode();
        let branch_created = Record::BranchCreated { database: number, branch, name: FIRST_BRANCH.into(), head: None }.encode();
        let cell = BranchCell::new(shared.clone(), branch, number, Inner::new(None, Root::empty_in(&shared.chunks())));
        let catalog = Catalog::initial(PUBLIC_SCHEMA_OWNER);
        let objects = catalog.objects.iter().map(|(oid, object)| CatalogChange { oid: *oid, object: Some(object.clone()) });
        let objects = ChangeSet { catalog: objects.collect(), tables: Vec::new() };
        let mut root = Root::empty_in(&shared.chunks());
        root.apply(&objects, &shared.chunks())?;
        let meta = |message: &str| CommitMeta { message: message.into(), ..meta.clone() };
        let first = cell.prepare(&[], &meta("Initialize data repository"), &objects, CommitMode::Follow, Default::default())?;
        // Numbers of parents are known when they are appended.
        let parent = Head { id: first.id, number: 0, height: first.height };
        let second = cell.prepare(&[parent], &meta("CREATE DATABASE"), &ChangeSet::default(), CommitMode::Follow, Default::default())?;
        let head = {
            let mut index = shared.index.write();
            let entry = |commit: &PreparedCommit| new_commit(commit.id, commit.height, &meta(""), commit.touched);
            // What can fail comes before the records.
            let prepared = index.prepare(&entry(&first), &[])?;
            // All or nothing: a database with half of its commits would be taken for a whole one.
            let sequence = shared.journal.append_together(&[&created, &branch_created, &first.record, &second.record])?;
            let parent = index.enter(prepared, sequence + 2);
            let number = index.insert(&NewCommit { sequence: sequence + 3, ..entry(&second) }, &[parent])?;
            shared.row_index.enter(parent, &first.row_hashes);
            shared.row_index.enter(number, &second.row_hashes);
            Head { id: second.id, number, height: second.height }
        };
        cell.lock().advance(head, root, None);
        let branch = Branch::new(FIRST_BRANCH.into(), cell);
        let branches = BTreeMap::from([(FIRST_BRANCH.into(), branch)]);
        registry.databases.insert(name.into(), Database { number, branches, tags: BTreeMap::new() });
        shared.pace.count(1);
        Ok(())
    }

    /// Forgets a database with its branches and tags. Its commits stay in the journal.
    /// # Errors
    /// `NotFound`.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        let mut registry = self.registry.lock();
        let number = registry.database(name)?.number;
        self.shared.append(&Record::DatabaseDropped { database: number })?;
        if let Some(database) = registry.databases.remove(name) {
            for branch in database.branches.values() {
                branch.cell.mark_deleted();
            }
        }
        self.shared.pace.count(1);
        Ok(())
    }

    /// Branches with their heads, by name.
    /// # Errors
    /// `NotFound`.
    pub fn branches(&self, database: &str) -> Result<Vec<(String, CommitId)>> {
        let branches: Vec<_> = self.registry.lock().database(database)?.branches.iter().map(|(n, b)| (n.clone(), b.clone())).collect();
        Ok(branches.into_iter().filter_map(|(name, branch)| Some((name, branch.cell.head()?.id))).collect())
    }

    /// # Errors
    /// `NotFound`.
    pub fn branch(&self, database: &str, name: &str) -> Result<Arc<Branch>> {
        let registry = self.registry.lock();
        let branch = registry.database(database)?.branches.get(name);
        branch.cloned().ok_or_else(|| Error::NotFound { what: "branch", name: name.into() })
    }

    /// With `force` an existing branch is moved (its working set goes with it).
    /// # Errors
    /// `AlreadyExists`, `NotFound`.
    pub fn create_branch(&self, database: &str, name: &str, start: CommitId, force: bool) -> Result<()> {
        check_name("branch", name)?;
        let head = self.shared.head_of(start)?;
        let root = self.shared.root(start)?;
        let mut registry = self.registry.lock();
        let number = registry.database(database)?.number;
        match registry.database(database)?.branches.get(name) {
            Some(_) if !force => Err(Error::AlreadyExists { what: "branch", name: name.into() }),
            Some(branch) => {
                let cell = branch.cell.clone();
                drop(registry);
                let mut inner = cell.lock_for_writing()?;
                self.shared.append(&Record::HeadMoved { branch: cell.number, head: start, hard: true })?;
                inner.move_head(head, root, true);
                self.shared.pace.count(1);
                Ok(())
            }
            None => {
                let branch = registry.take_number();
                self.shared.append(&Record::BranchCreated { database: number, branch, name: name.into(), head: Some(start) })?;
                let cell = BranchCell::new(self.shared.clone(), branch, number, Inner::new(Some(head), root));
                registry.database_mut(database)?.branches.insert(name.into(), Branch::new(name.into(), cell));
                self.shared.pace.count(1);
                Ok(())
            }
        }
    }

    /// Deletes a branch with its working set; its commits stay.
    /// # Errors
    /// `NotFound`.
    pub fn delete_branch(&self, database: &str, name: &str) -> Result<()> {
        let mut registry = self.registry.lock();
        let branches = &mut registry.database_mut(database)?.branches;
        let branch = branches.get(name).ok_or_else(|| Error::NotFound { what: "branch", name: name.into() })?;
        self.shared.append(&Record::BranchDeleted { branch: branch.cell.number })?;
        branch.cell.mark_deleted();
        branches.remove(name);
        self.shared.pace.count(1);
        Ok(())
    }

    /// With `force` a branch of the new name is deleted first.
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub fn rename_branch(&self, database: &str, from: &str, to: &str, force: bool) -> Result<()> {
        check_name("branch", to)?;
        let mut registry = self.registry.lock();
        let branches = &mut registry.database_mut(database)?.branches;
        let branch = branches.get(from).ok_or_else(|| Error::NotFound { what: "branch", name: from.into() })?.clone();
        if from == to {
            return Ok(());
        }
        if branches.contains_key(to) && !force {
            return Err(Error::AlreadyExists { what: "branch", name: to.into() });
        }
        // One record, so that a crash does not delete the one and leave the other its name.
        self.shared.append(&Record::BranchRenamed { branch: branch.cell.number, name: to.into() })?;
        if let Some(replaced) = branches.remove(to) {
            replaced.cell.mark_deleted();
        }
        branches.remove(from);
        branches.insert(to.into(), Branch::new(to.into(), branch.cell.clone()));
        self.shared.pace.count(1);
        Ok(())
    }

    /// All tags, by name.
    /// # Errors
    /// `NotFound`.
    pub fn tags(&self, database: &str) -> Result<Vec<Tag>> {
        Ok(self.registry.lock().database(database)?.tags.values().cloned().collect())
    }

    /// # Errors
    /// `AlreadyExists`, `NotFound`.
    pub fn create_tag(&self, database: &str, tag: Tag) -> Result<()> {
        check_name("tag", &tag.name)?;
        self.shared.head_of(tag.commit)?;
        let mut registry = self.registry.lock();
        let found = registry.database_mut(database)?;
        if found.tags.contains_key(&tag.name) {
            return Err(Error::AlreadyExists { what: "tag", name: tag.name });
        }
        self.shared.append(&Record::TagPut(tag.record(found.number)))?;
        found.tags.insert(tag.name.clone(), tag);
        self.shared.pace.count(1);
        Ok(())
    }

    /// # Errors
    /// `NotFound`.
    pub fn delete_tag(&self, database: &str, name: &str) -> Result<()> {
        let mut registry = self.registry.lock();
        let found = registry.database_mut(database)?;
        if !found.tags.contains_key(name) {
            return Err(Error::NotFound { what: "tag", name: name.into() });
        }
        self.shared.append(&Record::TagDeleted { database: found.number, name: name.into() })?;
        found.tags.remove(name);
        self.shared.pace.count(1);
        Ok(())
    }

    /// A value of small state (roles, source identity, sequence positions): not versioned, the last writer wins.
    pub fn get_state(&self, key: &str) -> Option<Vec<u8>> {
        self.registry.lock().state.get(key).cloned()
    }

    /// Where the small state keeps what belongs to the source that a branch follows; there is a value under `source` if it does.
    pub fn source_state_prefix(database: &str, branch: &str) -> String {
        format!("replication/{database}/{branch}/")
    }

    /// Where the small state keeps what belongs to a subscription made by SQL. It exists if there is a value under `definition`; `branch` holds
    /// what it writes into, as `DATABASE/BRANCH`.
    pub fn subscription_state_prefix(oid: Oid) -> String {
        format!("{SUBSCRIPTIONS}{oid}/")
    }

    /// The oids of the subscriptions made by SQL, in order.
    pub fn subscriptions(&self) -> Vec<Oid> {
        let registry = self.registry.lock();
        let keys = registry.state.range(SUBSCRIPTIONS.to_owned()..).map(|(key, _)| key);
        let keys = keys.map_while(|key| key.strip_prefix(SUBSCRIPTIONS));
        let mut oids: Vec<Oid> = keys.filter_map(|key| key.strip_suffix("/definition")?.parse().ok()).collect();
        oids.sort_unstable();
        oids
    }

    /// Those of them that write into a database.
    pub fn subscriptions_into(&self, database: &str, branch: Option<&str>) -> Vec<Oid> {
        let is_into = |oid: &Oid| {
            let target = self.get_state(&format!("{}branch", Self::subscription_state_prefix(*oid))).unwrap_or_default();
            let target = String::from_utf8_lossy(&target);
            target.split_once('/').is_some_and(|(d, b)| d == database && branch.is_none_or(|branch| b == branch))
        };
        self.subscriptions().into_iter().filter(is_into).collect()
    }

    /// The branch follows, or has followed, a source: its replicated commits stand for what was confirmed there.
    pub fn follows_source(&self, database: &str, branch: &str) -> bool {
        self.get_state(&format!("{}source", Self::source_state_prefix(database, branch))).is_some()
            || !self.subscriptions_into(database, Some(branch)).is_empty()
    }

    /// Sets or (`None`) removes a value of small state. Durable when the returned position is.
    /// # Errors
    /// `Limit`, `Stopped`.
    pub fn put_state(&self, key: &str, value: Option<&[u8]>) -> Result<JournalPosition> {
        if key.len() + value.map_or(0, <[u8]>::len) > STATE_SIZE_MAX {
            return Err(Error::Limit { what: "size of a state value", limit: STATE_SIZE_MAX as u64 });
        }
        let mut registry = self.registry.lock();
        let value = value.map(<[u8]>::to_vec);
        let position = self.shared.append(&Record::State { key: key.into(), value: value.clone() })?;
        match value {
            Some(value) => registry.state.insert(key.into(), value),
            None => registry.state.remove(key),
        };
        self.shared.pace.count(1);
        Ok(position)
    }

    /// All keys that begin with `prefix`, with their values.
    pub fn list_state(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let registry = self.registry.lock();
        let found = registry.state.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// An oid never given out before in this store.
    /// # Errors
    /// `Limit` after four billion; `Stopped`.
    pub fn next_oid(&self) -> Result<Oid> {
        let mut registry = self.registry.lock();
        if registry.next_oid >= registry.oid_limit {
            let limit = registry.next_oid.checked_add(OID_BLOCK_SIZE);
            let limit = limit.ok_or(Error::Limit { what: "number of oids", limit: u64::from(u32::MAX) })?;
            // Before anything that uses the oid, so never after it in the journal.
            self.shared.append(&Record::Oids { limit })?;
            registry.oid_limit = limit;
            self.shared.pace.count(1);
        }
        registry.next_oid += 1;
        Ok(registry.next_oid - 1)
    }
}
