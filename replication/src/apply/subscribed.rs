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
    pub(super) fn find(&mut self, source: &SourceRelation, records: &SourceRecords) -> Result<Option<u32>> {
        if let Some(table) = self.tables.get_mut(&source.oid) {
            if table.schema != source.schema || table.name != source.name {
                table.schema.clone_from(&source.schema);
                table.name.clone_from(&source.name);
                records.set_table(source.oid, Some(table))?;
            }
            return Ok(Some(source.oid));
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

    /// A table has come further, or not.
    pub(super) fn set_state(&mut self, oid: u32, state: SyncState, records: &SourceRecords) -> Result<()> {
        if let Some(table) = self.tables.get_mut(&oid) {
            table.state = state;
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
                    table.state = SyncState::Ready { point: Some(point) };
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
