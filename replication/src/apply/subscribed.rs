//! What a subscription made by SQL takes of the stream: the tables that were subscribed, from where their copies end; not the transaction that the user has told it
//! to skip; and, if so asked, nothing that the primary itself has from another server.

use std::collections::BTreeMap;

use strandline_storage::Lsn;

use super::relation::SourceRelation;
use crate::config::Config;
use crate::error::Result;
use crate::source_record::SourceRecords;
use crate::table_state::{SubscribedTable, SyncState};

/// A configured source takes every table, from where its copy ends if it was copied later than the others.
#[derive(Debug)]
pub(super) struct Subscribed {
    tables: BTreeMap<u32, SubscribedTable>,
    /// Other tables are not taken.
    listed_only: bool,
    /// Some tables wait for the stream to reach their copies.
    has_synced: bool,
    skip: Option<Lsn>,
    pub(super) only_local: bool,
}

impl Subscribed {
    pub(super) fn open(config: &Config, records: &SourceRecords) -> Result<Self> {
        let skip = records.skip()?;
        let tables = records.tables()?;
        let has_synced = tables.values().any(|table| matches!(table.state, SyncState::Synced { .. }));
        let only_local = config.subscription.is_some_and(|subscription| subscription.only_local);
        Ok(Subscribed { tables, listed_only: config.is_listed(), has_synced, skip, only_local })
    }

    /// The subscribed table that a relation is: by its oid, whose name may have changed; else by name, as a table that was made again has another oid.
    /// `is_known`: it is followed under its own oid, so in a source that follows all tables it is none of another oid.
    pub(super) fn find(&mut self, source: &SourceRelation, is_known: bool, records: &SourceRecords) -> Result<Option<u32>> {
        if let Some(table) = self.tables.get_mut(&source.oid) {
            // One that is stopped has kept its name here.
            let is_stopped = matches!(table.state, SyncState::Stopped { .. });
            if (table.schema != source.schema || table.name != source.name) && !is_stopped {
                table.schema.clone_from(&source.schema);
                table.name.clone_from(&source.name);
                records.set_table(source.oid, Some(table))?;
            }
            return Ok(Some(source.oid));
        }
        if is_known && !self.listed_only {
            return Ok(None);
        }
        let mut tables = self.tables.iter();
        Ok(tables.find(|(_, table)| table.schema == source.schema && table.name == source.name).map(|(oid, _)| *oid))
    }

    /// Says whether a change of a transaction whose commit record lies at `commit` is taken.
    pub(super) fn takes(&self, listed: Option<u32>, commit: Lsn) -> bool {
        let table = listed.and_then(|oid| self.tables.get(&oid));
        table.map_or(!self.listed_only, |table| table.state.takes(commit))
    }

    /// Where it was found that a table is not published any more.
    pub(super) fn left_at(&self, listed: u32) -> Option<Lsn> {
        match self.tables.get(&listed)?.state {
            SyncState::Left { point } => Some(point),
            _ => None,
        }
    }

    /// The record of a table.
    pub(super) fn get(&self, listed: u32) -> Option<&SubscribedTable> {
        self.tables.get(&listed)
    }

    /// Says whether a table was stopped, at this transaction or before.
    pub(super) fn is_stopped(&self, oid: u32, commit: Lsn) -> bool {
        self.tables.get(&oid).is_some_and(|table| matches!(table.state, SyncState::Stopped { since } if commit >= since))
    }

    /// Takes no more of a table, which is stopped or to be copied anew. Returns the table as it is listed.
    pub(super) fn stop(
        &mut self,
        listed: Option<u32>,
        source: &SourceRelation,
        state: SyncState,
        why: String,
        records: &SourceRecords,
    ) -> Result<u32> {
        let oid = listed.unwrap_or(source.oid);
        let known = self.tables.get(&oid).map(|table| table.with_state(state));
        let table = known.unwrap_or_else(|| SubscribedTable::new(&source.schema, &source.name, state));
        let stopped = SubscribedTable { stopped: Some(why), ..table };
        records.set_table(oid, Some(&stopped))?;
        self.tables.insert(oid, stopped);
        Ok(oid)
    }

    /// A table has come further, or not.
    pub(super) fn set_state(&mut self, oid: u32, state: SyncState, records: &SourceRecords) -> Result<()> {
        if let Some(table) = self.tables.get_mut(&oid) {
            *table = table.with_state(state);
            records.set_table(oid, Some(table))?;
        }
        Ok(())
    }

    /// The stream has been applied up to here.
    pub(super) fn pass(&mut self, reached: Lsn, records: &SourceRecords) -> Result<()> {
        if !self.has_synced {
            return Ok(());
        }
        self.has_synced = false;
        for (oid, table) in &mut self.tables {
            match table.state {
                SyncState::Synced { point } if point <= reached => {
                    *table = table.with_state(SyncState::Ready { point: Some(point) });
                    records.set_table(*oid, Some(table))?;
                    tracing::info!(table = %format_args!("{}.{}", table.schema, table.name), lsn = %point, "the copied table follows the stream");
                }
                SyncState::Synced { .. } => self.has_synced = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Some copied tables wait for the stream.
    pub(super) fn waits(&self) -> bool {
        self.has_synced
    }

    pub(super) fn skip(&self) -> Option<Lsn> {
        self.skip
    }

    /// Says whether this is the transaction to skip.
    pub(super) fn skips(&self, commit: Lsn) -> bool {
        self.skip == Some(commit)
    }

    pub(super) fn end_skip(&mut self, records: &SourceRecords) -> Result<()> {
        self.skip = None;
        records.set_skip(None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use strandline_storage::store::{Store, StoreOptions};

    use super::*;
    use crate::pgoutput::ReplicaIdentity;

    fn opened(folder: &std::path::Path, listed_only: bool) -> (Arc<Store>, SourceRecords, Subscribed) {
        let store = Store::open(folder, StoreOptions::default()).unwrap();
        let records = SourceRecords::of_subscription(Arc::clone(&store), 7);
        let tables = records.tables().unwrap();
        (store, records, Subscribed { tables, listed_only, has_synced: false, skip: None, only_local: false })
    }

    fn source(oid: u32, name: &str) -> SourceRelation {
        SourceRelation { oid, schema: "public".into(), name: name.into(), identity: ReplicaIdentity::Default, columns: Vec::new() }
    }

    #[test]
    fn a_table_stays_stopped_from_its_transaction_on_whatever_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (store, records, mut subscribed) = opened(folder.path(), false);
            // Not listed before, as all tables of a configured source.
            assert!(subscribed.takes(None, Lsn(99)));
            assert_eq!(subscribed.stop(None, &source(5, "t"), SyncState::Stopped { since: Lsn(100) }, "why".into(), &records).unwrap(), 5);
            store.sync().unwrap();
        }
        for _ in 0..2 {
            let (_store, records, mut subscribed) = opened(folder.path(), false);
            assert_eq!(subscribed.find(&source(5, "t"), true, &records).unwrap(), Some(5));
            assert!(subscribed.takes(Some(5), Lsn(99)) && !subscribed.takes(Some(5), Lsn(100)) && !subscribed.takes(Some(5), Lsn(101)));
            assert!(!subscribed.is_stopped(5, Lsn(99)) && subscribed.is_stopped(5, Lsn(100)));
            // Renamed there, it keeps its name here; one that is made again there is the same; another one that gets its name is not.
            assert_eq!(subscribed.find(&source(5, "renamed"), true, &records).unwrap(), Some(5));
            assert_eq!(subscribed.get(5).map(|table| table.name.as_str()), Some("t"));
            assert_eq!(subscribed.find(&source(6, "t"), false, &records).unwrap(), Some(5));
            assert_eq!(subscribed.find(&source(6, "t"), true, &records).unwrap(), None);
        }
    }

    #[test]
    fn why_a_table_was_stopped_is_forgotten_with_its_copy_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, records, mut subscribed) = opened(folder.path(), true);
        let ready = SubscribedTable::new("public", "t", SyncState::Ready { point: None });
        records.set_table(5, Some(&ready)).unwrap();
        subscribed.tables.insert(5, ready);
        subscribed.stop(Some(5), &source(5, "t"), SyncState::Stopped { since: Lsn(100) }, "why".into(), &records).unwrap();
        let point = Lsn(200);
        for state in [SyncState::Init, SyncState::Copying { point }, SyncState::Finished { point }, SyncState::Init] {
            records.set_table_state(5, state).unwrap();
            assert!(records.tables().unwrap()[&5].is_replaced(), "{state:?}");
        }
        records.set_table_state(5, SyncState::Copying { point }).unwrap();
        let mut subscribed = Subscribed { tables: records.tables().unwrap(), ..subscribed };
        subscribed.set_state(5, SyncState::Ready { point: Some(point) }, &records).unwrap();
        assert!(!records.tables().unwrap()[&5].is_replaced() && subscribed.takes(Some(5), Lsn(1)));
    }
}
