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
//! The table keeps the rows that it had before that transaction. It comes back by a new copy, which takes the place of its rows and its definition (`joining`), when
//! ALTER SUBSCRIPTION ... REFRESH PUBLICATION asks for it; a restart does not bring it back.
//!
//! Nothing is stopped alone where nothing could bring it back (in the working set, which has no copies beside the stream), where the user wants errors to disable the
//! subscription, and while the table enters the stream, when its copy fails instead.
//!
//! *Invariant:* that a table is stopped is in the journal before the commit of the transaction that it is left out of.

use std::sync::Arc;

use strandline_storage::Error as StoreError;

use super::relation::SourceRelation;
use super::{Applier, Interruption};
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::pgoutput::Begin;
use crate::status::TableState;

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
        let listed = self.subscribed.stop(listed, source, begin.commit_lsn, why.clone(), &self.context.records)?;
        if let Some(entry) = self.relations.get_mut(&source.oid) {
            entry.listed = Some(listed);
            entry.mapping = None;
        }
        if self.takes(Some(listed), begin.commit_lsn) {
            return Err(error);
        }
        let since = begin.commit_lsn;
        tracing::warn!(table = %name, %since, xid = begin.xid, reason = %why, fix = "ALTER SUBSCRIPTION ... REFRESH PUBLICATION", "the table is stopped, and the others go on");
        self.context.status.note_error(format!(
            "table \"{name}\" is stopped since transaction {} at {since}: {why}; ALTER SUBSCRIPTION ... REFRESH PUBLICATION copies it anew",
            begin.xid
        ));
        self.context.status.update_table(&name, |table| table.state = TableState::Stopped);
        Ok(())
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
