//! Tables that cannot follow the primary's any more: each stops alone, and all others go on.
//!
//! What a table here cannot follow is a change of its definition of which the stream does not tell enough (`definition`), or a row that does not fit into what the
//! table is here. The table is marked as stopped, and the transaction is applied again from its beginning, without it:
//!
//! | the transaction | is there again |
//! |---|---|
//! | small, or kept until its end (streamed, prepared) | in memory or in its file |
//! | large and applied as it comes | when the primary sends it again, to a new session, which begins at once |
//!
//! The table keeps the rows that it had before that transaction. It comes back by a new copy, which takes the place of its rows and its definition (`joining`). That begins by
//! itself where nothing that was made here would be lost with them, and not too often; otherwise when ALTER SUBSCRIPTION ... REFRESH PUBLICATION asks for it, and
//! not at a restart.
//!
//! Nothing is stopped alone where nothing could bring it back (in the working set, which has no copies beside the stream), where the user wants errors to disable the
//! subscription, and while the table enters the stream, when its copy fails instead.
//!
//! *Invariant:* that a table is stopped is in the journal before the commit of the transaction that it is left out of.

use std::sync::Arc;

use strandline_storage::{CommitId, Error as StoreError, Oid};

use super::relation::SourceRelation;
use super::{Applier, Current, Interruption};
use crate::config::{CommitMode, CreateTables};
use crate::error::{Error, Result};
use crate::pgoutput::Begin;
use crate::source_record::COPY_XID;
use crate::status::TableState;
use crate::table_state::SyncState;

/// So often in a replicator's life a table's new copy begins by itself: what stops it again and again is no change of its definition.
pub(super) const RENEWALS_MAX: u32 = 3;

/// So many commits are looked through for changes that were made here, while the stream waits. Behind more, there may be some.
const LOOKED_THROUGH_MAX: usize = 100_000;

impl Applier {
    /// Says whether a table may be stopped, rather than replication.
    pub(super) fn may_stop_tables(&self) -> bool {
        let config = &self.context.config;
        let ends_at_errors = config.subscription.is_some_and(|subscription| subscription.disable_on_error);
        config.commit_mode == CommitMode::EachTransaction && !ends_at_errors && self.joins.entering.is_none()
    }

    /// Stops a table at this transaction, of which nothing may be left here: it is to be applied anew.
    /// # Errors
    /// The store's.
    pub(super) fn stop_table(&mut self, begin: &Begin, source: &Arc<SourceRelation>, error: Error) -> Result<()> {
        self.known_changes.clear();
        self.restore_relations();
        let name = source.qualified_name();
        let why = reason(&error);
        let listed = self.subscribed.find(source, self.known.contains_key(&source.oid), &self.context.records)?;
        let is_renewed = self.is_as_made(source, &error)? && self.context.joining.may_renew(source.oid);
        let since = begin.commit_lsn;
        let state = if is_renewed { SyncState::Init } else { SyncState::Stopped { since } };
        let listed = self.subscribed.stop(listed, source, state, why.clone(), &self.context.records)?;
        if let Some(entry) = self.relations.get_mut(&source.oid) {
            entry.listed = Some(listed);
            entry.mapping = None;
        }
        if self.takes(Some(listed), begin.commit_lsn) {
            return Err(error);
        }
        if is_renewed {
            tracing::warn!(table = %name, %since, xid = begin.xid, reason = %why, "the table cannot follow and is copied anew, and the others go on");
            self.context
                .status
                .note_error(format!("table \"{name}\" cannot follow transaction {} at {since} and is copied anew: {why}", begin.xid));
            self.renewing = Some(name);
            return Ok(());
        }
        tracing::warn!(table = %name, %since, xid = begin.xid, reason = %why, fix = "ALTER SUBSCRIPTION ... REFRESH PUBLICATION", "the table is stopped, and the others go on");
        self.context.status.note_error(format!(
            "table \"{name}\" is stopped since transaction {} at {since}: {why}; ALTER SUBSCRIPTION ... REFRESH PUBLICATION copies it anew",
            begin.xid
        ));
        self.context.status.update_table(&name, |table| table.state = TableState::Stopped);
        Ok(())
    }

    /// Says whether the table here is what the primary's was, so that nothing is lost when it becomes that again.
    fn is_as_made(&self, source: &SourceRelation, error: &Error) -> Result<bool> {
        if !matches!(error, Error::Unfollowed { .. }) || self.context.config.create_tables == CreateTables::Never {
            return Ok(false);
        }
        let Some(known) = self.known.get(&source.oid) else { return Ok(false) };
        let Some(details) = &known.details else { return Ok(false) };
        let state = self.context.branch.state();
        let Some(table) = state.head_root.catalog().table_by_name(&known.schema, &known.name) else { return Ok(false) };
        let mut indexes = table.primary_key.iter().chain(&table.indexes);
        let is_defined_so =
            table.columns.iter().all(|here| known.has_column(&here.name) || details.columns.iter().any(|c| c.name == here.name))
                && indexes.all(|here| details.indexes.iter().any(|index| index.name == here.name))
                && table.constraints.iter().all(|here| details.constraints.iter().any(|constraint| constraint.name == here.name));
        Ok(is_defined_so && !self.has_rows_of_others(state.head, table.oid)?)
    }

    /// Says whether somebody else than we has changed rows of a table since its copy, as far as the commits behind `head` that are looked through tell.
    fn has_rows_of_others(&self, head: CommitId, table: Oid) -> Result<bool> {
        let own = self.context.config.subscription_oid();
        let mut next = Some(head);
        for _ in 0..LOOKED_THROUGH_MAX {
            let Some(id) = next else { return Ok(false) };
            let commit = self.context.store.commit(id)?;
            let changes_it = || Ok::<_, Error>(commit.changes()?.tables.iter().any(|change| change.table == table));
            match &commit.meta.source {
                Some(source) if source.subscription == own && source.xid != COPY_XID => {}
                // Its copy, or another subscription's change.
                Some(source) if changes_it()? => return Ok(source.subscription != own),
                None if changes_it()? => return Ok(true),
                _ => {}
            }
            next = commit.parents.first().copied();
        }
        Ok(true)
    }

    /// Has a new session begin, which sees to the copy of a table that was stopped, when the transaction is through.
    /// # Errors
    /// `TableStopped`.
    pub(super) fn begin_renewal(&mut self) -> Result<()> {
        match self.renewing.take_if(|_| matches!(self.current, Current::Outside)) {
            Some(table) => Err(Error::TableStopped { table }),
            None => Ok(()),
        }
    }
}

/// An error that a table has met in following its table on the primary: its own, or one that no table is to blame for.
pub(super) fn unfollowed(source: &Arc<SourceRelation>, error: Error) -> Interruption {
    let error = match error {
        error @ Error::Unfollowed { .. } => error,
        // The rows here do not hold what the primary's table demands.
        Error::Store(
            error @ (StoreError::DuplicateKey { .. }
            | StoreError::Invalid(_)
            | StoreError::Limit { .. }
            | StoreError::AlreadyExists { .. }
            | StoreError::NotFound { .. }),
        ) => Error::Unfollowed {
            table: source.qualified_name(),
            what: format!("its definition on the primary does not fit here: {error}"),
            by_hand: "do the same here by ALTER TABLE",
        },
        other => return Interruption::Failed(other),
    };
    Interruption::Unfollowed { source: Arc::clone(source), error }
}

/// What the table could not follow, without what to do about it.
fn reason(error: &Error) -> String {
    match error {
        Error::Unfollowed { what, .. } => what.clone(),
        Error::Apply { lsn, what, .. } => format!("the change at {lsn} does not fit: {what}"),
        other => other.to_string(),
    }
}
