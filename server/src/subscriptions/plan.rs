//! What commands are to change of subscriptions, before anything of it is done: of one command, or of all those of a transaction until it commits.

use std::collections::{BTreeMap, BTreeSet};

use strandline_replication::subscription::PublishedName;
use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_storage::{Lsn, Oid};

use super::create::stored;
use super::definition::Definition;
use super::{Found, Subscriptions, exists};

/// Changes by subscription. A clone is what a savepoint goes back to.
#[derive(Clone, Default)]
pub(super) struct Plan {
    changes: BTreeMap<Oid, Change>,
}

#[derive(Clone)]
struct Change {
    /// What is stored when the plan is begun, and must still be when it is carried out; `None`: the plan creates the subscription.
    base: Option<Definition>,
    /// `None`: dropped.
    desired: Option<Desired>,
}

/// A subscription as it is to be.
#[derive(Clone)]
pub(super) struct Desired {
    pub(super) definition: Definition,
    pub(super) pending: Pending,
}

/// What is to change of the records beside the definition; `None`: nothing. The worker may change those, too.
#[derive(Clone, Default)]
pub(super) struct Pending {
    pub(super) enabled: Option<bool>,
    /// The inner `None`: nothing is to be skipped.
    pub(super) skip: Option<Option<Lsn>>,
    /// The tables of a new subscription, and whether they are copied.
    pub(super) tables: Option<(Vec<PublishedName>, bool)>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.enabled.is_none() && self.skip.is_none() && self.tables.is_none()
    }
}

impl Plan {
    /// Sets what a subscription that was found is to be.
    pub(super) fn put(&mut self, found: &Found, desired: Option<Desired>) {
        let change = self.changes.entry(found.oid);
        change.or_insert_with(|| Change { base: Some(found.definition.clone()), desired: None }).desired = desired;
    }

    pub(super) fn create(&mut self, oid: Oid, desired: Desired) {
        self.changes.insert(oid, Change { base: None, desired: Some(desired) });
    }

    /// The subscriptions as they will be, by oid.
    pub(super) fn applied_to(&self, stored: Vec<(Oid, Definition)>) -> BTreeMap<Oid, Desired> {
        let as_is = |(oid, definition)| (oid, Desired { definition, pending: Pending::default() });
        let mut all: BTreeMap<Oid, Desired> = stored.into_iter().map(as_is).collect();
        for (oid, change) in &self.changes {
            match &change.desired {
                Some(desired) => all.insert(*oid, desired.clone()),
                None => all.remove(oid),
            };
        }
        all
    }
}

impl Subscriptions {
    /// Does what was planned, durably; `commit` makes the rest of the transaction durable once nothing stands against the plan. The caller holds the lock of
    /// commands.
    /// # Errors
    /// `SerializationFailure`, `DuplicateObject` when somebody else changed the same meanwhile, and what `commit` says: nothing is done then.
    pub(super) fn carry_out(&self, plan: &Plan, commit: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let definitions = Definition::list(&self.store)?;
        for (oid, change) in &plan.changes {
            let now = definitions.iter().find(|(other, _)| other == oid).map(|(_, definition)| definition);
            if now != change.base.as_ref() {
                return Err(SqlError::new(ErrorCode::SerializationFailure, "could not serialize access due to concurrent update"));
            }
        }
        let mut names = BTreeSet::new();
        for desired in plan.applied_to(definitions).into_values() {
            let definition = desired.definition;
            if !names.insert((definition.database, definition.name.clone())) {
                return Err(exists(&definition.name));
            }
        }
        commit()?;
        for (oid, change) in &plan.changes {
            match (&change.base, &change.desired) {
                (base, Some(desired)) => self.make_so(*oid, base.as_ref(), desired)?,
                (Some(base), None) => self.forget(*oid, base)?,
                // Created and dropped by the same transaction.
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Writes a subscription as it is to be, and starts it where it is enabled.
    pub(super) fn make_so(&self, oid: Oid, base: Option<&Definition>, desired: &Desired) -> Result<()> {
        let definition = &desired.definition;
        if desired.pending.is_empty() && base.is_some_and(|base| base.differs_in_comment_only(definition)) {
            return self.write(oid, base, desired);
        }
        self.stop_worker(oid);
        let written = self.write(oid, base, desired);
        if base.is_none() {
            written?;
            tracing::info!(subscription = %definition.name, database = %definition.database, branch = %definition.branch, "subscription created");
            return if Definition::records(&self.store, oid).is_enabled() { self.start_worker(oid) } else { Ok(()) };
        }
        if Definition::records(&self.store, oid).is_enabled() {
            self.start_worker(oid)?;
        }
        written
    }

    pub(super) fn write(&self, oid: Oid, base: Option<&Definition>, desired: &Desired) -> Result<()> {
        let Desired { definition, pending } = desired;
        let records = Definition::records(&self.store, oid);
        if let Some((tables, copy_data)) = &pending.tables {
            records.set_tables(tables, *copy_data).map_err(stored)?;
        }
        if let Some(enabled) = pending.enabled {
            records.set_enabled(enabled).map_err(stored)?;
        }
        if let Some(skip) = pending.skip {
            records.set_skip(skip).map_err(stored)?;
        }
        // Last: a new subscription exists from here on.
        if base == Some(definition) { Ok(()) } else { definition.save(&self.store, oid) }
    }

    fn forget(&self, oid: Oid, definition: &Definition) -> Result<()> {
        self.stop_worker(oid);
        Definition::remove(&self.store, oid)?;
        self.workers.lock().remove(&oid);
        let config = definition.replicator_config(oid, &self.settings)?;
        for folder in [config.joining_folder(), config.spool_folder, config.prepared_folder] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error, "the files of a dropped subscription could not be removed");
                }
                _ => {}
            }
        }
        tracing::info!(subscription = %definition.name, database = %definition.database, "subscription dropped");
        Ok(())
    }
}
