//! A subscription's records in the store, for who makes, changes and shows it.

use std::sync::Arc;

use strandline_storage::store::{Branch, Store};
use strandline_storage::{Lsn, Oid, Root};

use super::publisher::PublishedName;
use crate::error::Result;
use crate::source_record::{SlotToMake, SourceRecords};
use crate::table_state::{SubscribedTable, SyncState};

/// The records of one subscription. Only its worker changes the states of tables while it runs.
#[derive(Clone)]
pub struct SubscriptionRecords {
    store: Arc<Store>,
    records: SourceRecords,
}

/// A subscribed table as `pg_subscription_rel` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRecord {
    pub schema: String,
    pub name: String,
    /// PostgreSQL's letter.
    pub state: char,
    pub lsn: Option<Lsn>,
    /// Why it is stopped, if it is.
    pub stopped: Option<String>,
}

impl SubscriptionRecords {
    pub fn new(store: &Arc<Store>, oid: Oid) -> Self {
        SubscriptionRecords { store: Arc::clone(store), records: SourceRecords::of_subscription(Arc::clone(store), oid) }
    }

    /// Those of the configured source of a branch.
    pub fn configured(store: &Arc<Store>, database: &str, branch: &str) -> Self {
        SubscriptionRecords { store: Arc::clone(store), records: SourceRecords::new(Arc::clone(store), database, branch) }
    }

    /// # Errors
    /// `Store` for damaged records.
    pub fn tables(&self) -> Result<Vec<TableRecord>> {
        let shown = self.records.tables()?.into_values().filter(|table| !matches!(table.state, SyncState::Left { .. }));
        Ok(shown.map(record_of).collect())
    }

    /// The tables of a configured source: all that it has replicated.
    /// # Errors
    /// `Store` for damaged records.
    pub fn replicated_tables(&self) -> Result<Vec<TableRecord>> {
        let mut tables = self.tables()?;
        for relation in self.records.relations()?.into_values() {
            if !tables.iter().any(|table| table.schema == relation.schema && table.name == relation.name) {
                tables.push(TableRecord { schema: relation.schema, name: relation.name, state: 'r', lsn: None, stopped: None });
            }
        }
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(tables)
    }

    /// Says whether some table is stopped.
    /// # Errors
    /// `Store` for damaged records.
    pub fn has_stopped(&self) -> Result<bool> {
        Ok(self.records.tables()?.values().any(|table| matches!(table.state, SyncState::Stopped { .. })))
    }

    /// Has those of these tables copied anew that are stopped. Returns them.
    /// # Errors
    /// `Store`.
    pub fn copy_stopped(&self, published: &[PublishedName]) -> Result<Vec<PublishedName>> {
        let known = self.records.tables()?;
        let mut renewed = Vec::new();
        for (oid, table) in known.iter().filter(|(_, table)| matches!(table.state, SyncState::Stopped { .. })) {
            let by_oid = published.iter().find(|p| p.oid == *oid);
            // One that was made again on the primary.
            let by_name = || published.iter().find(|p| p.schema == table.schema && p.name == table.name);
            let Some(now) = by_oid.or_else(by_name) else { continue };
            if now.oid == *oid || !known.contains_key(&now.oid) {
                let record = SubscribedTable { schema: now.schema.clone(), name: now.name.clone(), ..table.with_state(SyncState::Init) };
                self.records.set_table(now.oid, Some(&record))?;
                renewed.push(now.clone());
            }
            if now.oid != *oid {
                self.records.set_table(*oid, None)?;
            }
        }
        Ok(renewed)
    }

    /// Makes these the subscribed tables: new ones are copied first or not, stopped ones are then copied anew, and those that are not among them are forgotten. Returns
    /// what was added and removed.
    /// # Errors
    /// `Store`.
    pub fn set_tables(&self, published: &[PublishedName], copy_data: bool) -> Result<(Vec<PublishedName>, Vec<TableRecord>)> {
        if copy_data {
            self.copy_stopped(published)?;
        }
        let known = self.records.tables()?;
        let is_known = |table: &PublishedName| {
            // A table that was made again on the primary is the same one here.
            known.contains_key(&table.oid) || known.values().any(|k| k.schema == table.schema && k.name == table.name)
        };
        let added: Vec<PublishedName> = published.iter().filter(|table| !is_known(table)).cloned().collect();
        let state = if copy_data { SyncState::Init } else { SyncState::Ready { point: None } };
        for table in &added {
            let record = SubscribedTable::new(&table.schema, &table.name, state);
            self.records.set_table(table.oid, Some(&record))?;
        }
        let mut removed = Vec::new();
        for (oid, table) in known {
            if !published.iter().any(|p| p.oid == oid || (p.schema == table.schema && p.name == table.name)) {
                self.records.set_table(oid, None)?;
                removed.push(record_of(table));
            }
        }
        Ok((added, removed))
    }

    /// Has tables of a configured source copied that it does not know yet: those of these that are not here, or have no rows here; and those that are stopped.
    /// Returns them.
    /// # Errors
    /// `Store`.
    pub fn copy_unknown(&self, published: &[PublishedName], branch: &Branch) -> Result<Vec<PublishedName>> {
        let renewed = self.copy_stopped(published)?;
        let known = self.records.relations()?;
        let mut waiting = self.records.tables()?;
        waiting.retain(|_, table| !matches!(table.state, SyncState::Left { .. }));
        let state = branch.state();
        let has_rows = |table: &PublishedName| {
            let has_rows_in = |root: &Root| {
                let local = root.catalog().table_by_name(&table.schema, &table.name);
                local.and_then(|local| root.table(local.oid)).is_some_and(|data| !data.is_empty())
            };
            has_rows_in(&state.working) || has_rows_in(&state.head_root)
        };
        let is_unknown = |table: &&PublishedName| !known.contains_key(&table.oid) && !waiting.contains_key(&table.oid) && !has_rows(table);
        let mut unknown: Vec<PublishedName> = published.iter().filter(is_unknown).cloned().collect();
        for table in &unknown {
            let record = SubscribedTable::new(&table.schema, &table.name, SyncState::Init);
            self.records.set_table(table.oid, Some(&record))?;
        }
        unknown.extend(renewed);
        Ok(unknown)
    }

    pub fn is_enabled(&self) -> bool {
        self.records.is_enabled()
    }

    /// # Errors
    /// `Store`.
    pub fn set_enabled(&self, enabled: bool) -> Result<()> {
        Ok(self.store.wait_durable(self.records.set_enabled(enabled)?)?)
    }

    /// Notes that the slot is about to be made, on this primary, at or behind this place of its log. Durable with what is written next.
    /// # Errors
    /// `Store`.
    pub fn set_slot_to_make(&self, system_id: &str, after: Lsn) -> Result<()> {
        self.records.set_slot_to_make(Some(&SlotToMake { system_id: system_id.to_owned(), after })).map(drop)
    }

    /// The slot is made.
    /// # Errors
    /// `Store`.
    pub fn clear_slot_to_make(&self) -> Result<()> {
        self.records.set_slot_to_make(None).map(drop)
    }

    /// # Errors
    /// `Store` for a damaged record.
    pub fn skip(&self) -> Result<Option<Lsn>> {
        self.records.skip()
    }

    /// # Errors
    /// `Store`.
    pub fn set_skip(&self, lsn: Option<Lsn>) -> Result<()> {
        Ok(self.store.wait_durable(self.records.set_skip(lsn)?)?)
    }

    /// Where the stream goes on, as far as it is known before the subscription runs.
    /// # Errors
    /// `Store`; also when the branch is gone.
    pub fn position(&self, database: &str, branch: &str) -> Result<Option<Lsn>> {
        let branch = self.store.branch(database, branch)?;
        Ok(self.records.position(&branch)?.0)
    }
}

fn record_of(table: SubscribedTable) -> TableRecord {
    let is_stopped = matches!(table.state, SyncState::Stopped { .. });
    TableRecord {
        state: table.state.letter(),
        lsn: table.state.point(),
        schema: table.schema,
        name: table.name,
        stopped: table.stopped.filter(|_| is_stopped),
    }
}

#[cfg(test)]
mod tests {
    use strandline_storage::store::StoreOptions;

    use super::*;

    #[test]
    fn stopped_tables_are_copied_anew_under_the_oid_that_they_have_now() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let records = SubscriptionRecords::new(&store, 7);
        let put = |oid: u32, name: &str, state| {
            let stopped = matches!(state, SyncState::Stopped { .. }).then(|| format!("why {name}"));
            records.records.set_table(oid, Some(&SubscribedTable { stopped, ..SubscribedTable::new("public", name, state) })).unwrap();
        };
        let stopped = SyncState::Stopped { since: Lsn(100) };
        put(1, "follows", SyncState::Ready { point: None });
        put(2, "stopped", stopped);
        put(3, "again", stopped);
        put(4, "gone", stopped);
        let published = |oid: u32, name: &str| PublishedName { oid, schema: "public".into(), name: name.into() };
        let now = [published(1, "follows"), published(2, "renamed"), published(30, "again"), published(5, "new")];
        assert!(records.has_stopped().unwrap());
        let told = |records: &SubscriptionRecords| {
            let tables = records.records.tables().unwrap();
            tables.into_iter().map(|(oid, t)| (oid, t.name, t.state, t.stopped)).collect::<Vec<_>>()
        };
        // Without a copy all stays as it is, but for what is not published.
        let before = told(&records);
        let (added, removed) = records.set_tables(&now[..3], false).unwrap();
        assert_eq!((added.len(), removed.len(), removed[0].stopped.as_deref()), (0, 1, Some("why gone")));
        assert_eq!(told(&records), before[..3]);
        let (added, removed) = records.set_tables(&now, true).unwrap();
        assert_eq!((added, removed), (vec![published(5, "new")], Vec::new()));
        let why = |name: &str| Some(format!("why {name}"));
        let expected = [
            (1, "follows".to_owned(), SyncState::Ready { point: None }, None),
            (2, "renamed".to_owned(), SyncState::Init, why("stopped")),
            (5, "new".to_owned(), SyncState::Init, None),
            (30, "again".to_owned(), SyncState::Init, why("again")),
        ];
        assert_eq!(told(&records), expected);
        assert!(!records.has_stopped().unwrap() && records.tables().unwrap().iter().all(|table| table.stopped.is_none()));
    }
}
