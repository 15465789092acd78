//! The tables behind the stream's relations: found, created or made to follow, and what the primary's catalog must be asked for that.

use std::collections::HashMap;
use std::sync::Arc;

use strandline_storage::store::{JournalPosition, Store};
use strandline_storage::{Edit, Lsn};

use super::definition::{self, Definition, KnownRelation};
use super::relation::{Mapping, SourceRelation};
use super::stopped::unfollowed;
use super::{Applier, Context, Interruption, Running, adopt_tables, apply_error, writer_of};
use crate::catalog::{self, CatalogClient, RemoteTable};
use crate::config::{CommitMode, CreateTables};
use crate::error::{Error, Result};
use crate::pgoutput::Relation;
use crate::table_state::{SubscribedTable, SyncState};

impl Applier {
    /// A large transaction's writer edits a clone, so the branch may be asked.
    pub(super) fn is_in_working_set(&self, running: &Running, source: &SourceRelation) -> bool {
        debug_assert!(running.large, "BUG: a small transaction's thread must not ask the branch");
        self.context.branch.state().working.catalog().table_by_name(&source.schema, &source.name).is_some()
    }

    /// The local table of a relation, as it is in the edit; created if its definition was read.
    pub(super) fn table(&mut self, running: &mut Running, relation: u32, lsn: Lsn) -> Result<Arc<Mapping>, Interruption> {
        let writer = writer_of(running, &self.context)?;
        let Some(entry) = self.relations.get_mut(&relation) else {
            return Err(Interruption::Failed(Error::Protocol(format!(
                "a change of relation {relation} at {lsn}, which was not announced"
            ))));
        };
        if let Some(mapping) = &entry.mapping
            && writer.table_schema(mapping.table).is_some_and(|schema| Arc::ptr_eq(schema, &mapping.schema) || *schema == mapping.schema)
        {
            return Ok(Arc::clone(mapping));
        }
        let source = Arc::clone(&entry.source);
        self.follow_definition(running, &source)?;
        let writer = writer_of(running, &self.context)?;
        let catalog = writer.root().catalog();
        let oid = match catalog.relation(&source.schema, &source.name) {
            Some(object) => match catalog.table(object.oid()) {
                Some(schema) => schema.oid,
                None => {
                    let what = "the object of this name here is not a table".to_owned();
                    let error = apply_error(&running.begin, &source.qualified_name(), lsn, what);
                    return Err(Interruption::Unfollowed { source, error });
                }
            },
            None if self.context.config.create_tables == CreateTables::Never => {
                return Err(Interruption::TableMissing { source, is_filled: false });
            }
            None => match self.definitions.get(&relation) {
                Some(definition) if definition.may_create => {
                    let published: Vec<String> = source.columns.iter().map(|c| c.name.clone()).collect();
                    let remote = reconcile(&source, definition.table.clone());
                    let created = catalog::create_table(self.context.maker(), writer, &remote, &definition.types, Some(&published));
                    let oid = created.map_err(|error| unfollowed(&source, error))?;
                    connect_known(&self.context.store, writer, &self.known)?;
                    catalog::warn_missing_foreign_keys(writer, [&remote]);
                    tracing::info!(table = %source.qualified_name(), "created a published table");
                    oid
                }
                _ => return Err(Interruption::TableMissing { source, is_filled: false }),
            },
        };
        let Some(schema) = writer.table_schema(oid) else {
            let what = "the table has a definition and no rows".to_owned();
            return Err(Interruption::Failed(apply_error(&running.begin, &source.qualified_name(), lsn, what)));
        };
        let mapping = Mapping::new(&source, schema, &self.changer.settings);
        let mapping = Arc::new(mapping.with_expressions(self.context.config.expressions.as_deref(), writer.root()));
        let absent = mapping.absent_columns(&source);
        if !absent.is_empty() {
            tracing::info!(table = %mapping.name, columns = %absent.join(", "), "columns that are not here are not replicated");
        }
        if let Some(entry) = self.relations.get_mut(&relation) {
            entry.mapping = Some(Arc::clone(&mapping));
        }
        Ok(mapping)
    }

    /// Compares a relation with what was last replicated of it, and lets the table here follow.
    fn follow_definition(&mut self, running: &mut Running, source: &Arc<SourceRelation>) -> Result<(), Interruption> {
        let known = match self.known_changes.get(&source.oid) {
            Some(changed) => changed.as_ref(),
            None => self.known.get(&source.oid),
        };
        if known.is_some_and(|known| known.is_same(source)) {
            return Ok(());
        }
        let Some(definition) = self.definitions.get(&source.oid).cloned() else {
            return Err(Interruption::DefinitionMissing(Arc::clone(source)));
        };
        self.follow_to(running, source, &definition, None)
    }

    /// Lets the table here follow to a definition. `captured`: as in the follower.
    pub(super) fn follow_to(
        &mut self,
        running: &mut Running,
        source: &Arc<SourceRelation>,
        definition: &Definition,
        captured: Option<&str>,
    ) -> Result<(), Interruption> {
        let known = match self.known_changes.get(&source.oid) {
            Some(changed) => changed.as_ref(),
            None => self.known.get(&source.oid),
        };
        let mut changed = KnownRelation::new(source, definition, known);
        let writer = writer_of(running, &self.context)?;
        let others = self.known.iter().filter(|(oid, _)| !self.known_changes.contains_key(oid));
        let others = others.chain(self.known_changes.iter().filter_map(|(oid, known)| Some((oid, known.as_ref()?))));
        let mut others = others.filter(|(oid, _)| **oid != source.oid);
        let is_claimed = known.is_some_and(|known| others.clone().any(|(_, other)| other.has_name_of(known)));
        let former = others.find(|(_, other)| other.is_named(source)).map(|(oid, _)| *oid).filter(|_| known.is_none());
        let mut follower = definition::Follower {
            maker: self.context.maker(),
            edit: writer,
            settings: &self.changer.settings,
            create_tables: self.context.config.create_tables,
            source,
            definition,
            is_claimed,
            captured,
        };
        let mut replaced = None;
        match (known, former) {
            (Some(known), _) if known.is_same(source) => {}
            (Some(known), _) => follower.follow(known).map_err(|error| unfollowed(source, error))?,
            (None, None) => {}
            (None, Some(former)) => {
                let catalog = follower.edit.root().catalog();
                let table = catalog.table_by_name(&source.schema, &source.name).and_then(|table| follower.edit.root().table(table.oid));
                if table.is_some_and(|table| !table.is_empty()) {
                    let what = "on the primary this is another table than before (dropped and made again, or another one was renamed to it), and the \
                                rows here are of the former one";
                    let error =
                        Error::Unfollowed { table: source.qualified_name(), what: what.to_owned(), by_hand: "empty or drop it here" };
                    return Err(unfollowed(source, error));
                }
                follower.complete().map_err(|error| unfollowed(source, error))?;
                replaced = Some(former);
            }
        }
        if captured.is_some() {
            let base = known.and_then(|known| known.details.clone());
            follower.follow_details(base.as_deref()).map_err(|error| unfollowed(source, error))?;
            changed.details = definition.table.clone().map(Arc::new);
        }
        if let Some(former) = replaced {
            self.known_changes.insert(former, None);
        }
        self.known_changes.insert(source.oid, Some(changed));
        Ok(())
    }

    /// Notes what the transaction has taught about the primary's tables, which is known from its commit on.
    pub(super) fn note_definitions(&self, commit: Lsn, xid: u32) -> Result<()> {
        self.known_changes
            .iter()
            .try_for_each(|(oid, relation)| self.context.records.set_next_relation(*oid, relation.as_ref(), commit, xid))
    }

    /// Takes what was noted before a crash as known where its commit came through.
    pub(super) fn settle_definitions(context: &Context, position: Lsn) -> Result<()> {
        context.records.settle_relations(|commit, xid| {
            if context.config.commit_mode == CommitMode::WorkingSet {
                return Ok(position > commit);
            }
            for id in context.store.commits_of_source(&[context.branch.state().head], Some(xid), Some(commit))? {
                let found = context.store.commit(id)?;
                if found.meta.source.as_ref().is_some_and(|source| source.subscription == context.config.subscription_oid()) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Keeps what the committed transaction taught about the primary's tables. Returns where in the journal that lies, if it was anything.
    pub(super) fn remember_definitions(&mut self) -> Result<Option<JournalPosition>> {
        self.definitions.clear();
        self.uncommitted = None;
        let mut position = None;
        for (oid, relation) in self.known_changes.drain() {
            position = Some(self.context.records.set_relation(oid, relation.as_ref())?);
            match relation {
                Some(relation) => self.known.insert(oid, relation),
                None => self.known.remove(&oid),
            };
        }
        Ok(position)
    }

    /// Gets a table that HEAD lacks: from the working set, or its definition from the primary. `is_filled`: it is known to have had rows before the transaction.
    pub(super) fn provide_table(&mut self, source: &SourceRelation, xid: u32, is_filled: bool) -> Result<()> {
        if self.context.config.commit_mode == CommitMode::EachTransaction {
            let name = (source.schema.clone(), source.name.clone());
            if adopt_tables(&self.context.branch, &[name], &self.author)? > 0 {
                return Ok(());
            }
        }
        self.read_definition_to_create(source, xid, is_filled)
    }

    pub(super) fn read_definition_to_create(&mut self, source: &SourceRelation, xid: u32, is_filled: bool) -> Result<()> {
        if self.context.config.create_tables == CreateTables::Never {
            return Err(Error::Setup(format!(
                "table \"{}\" is published and does not exist here; create it, or set create_tables to auto",
                source.qualified_name()
            )));
        }
        self.read_definition(source, xid)?;
        if let Some(definition) = self.definitions.get_mut(&source.oid) {
            Arc::make_mut(definition).may_create = true;
            let table = definition.table.clone();
            let is_filled = match (table, &self.catalog) {
                (Some(table), Some(primary)) if !is_filled => {
                    let publications = &self.context.config.publication_names;
                    self.context.runtime.block_on(catalog::has_older_rows(primary, &table, xid, publications))?
                }
                (Some(_), _) => is_filled,
                // It is gone, and what it had with it.
                (None, _) => false,
            };
            if is_filled {
                if self.context.config.commit_mode == CommitMode::EachTransaction && self.context.records.was_copied() {
                    return self.copy_first(source);
                }
                let what = format!(
                    "table \"{}\" has rows on the primary from before it was published, and they are not here: changes are replicated from now on",
                    source.qualified_name()
                );
                tracing::warn!("{what}");
                self.context.status.note_error(what);
            }
        }
        Ok(())
    }

    /// The rows that the primary has of a table already come first: in the next session, before the stream goes on.
    pub(super) fn copy_first(&self, source: &SourceRelation) -> Result<()> {
        let known = self.subscribed.get(source.oid).map(|table| table.with_state(SyncState::Init));
        let table = known.unwrap_or_else(|| SubscribedTable::new(&source.schema, &source.name, SyncState::Init));
        self.context.records.set_table(source.oid, Some(&table))?;
        Err(Error::CopyFirst { table: source.qualified_name() })
    }

    /// Reads what the primary's catalog says of a table after the transaction.
    pub(super) fn read_definition(&mut self, source: &SourceRelation, xid: u32) -> Result<()> {
        let context = Arc::clone(&self.context);
        let (table, mut types) = context.runtime.block_on(async {
            if self.catalog.as_ref().is_none_or(CatalogClient::is_closed) {
                self.catalog = Some(CatalogClient::connect(&context.config.connection()).await?);
            }
            let primary = self.catalog.as_ref().expect("BUG: just connected");
            if !catalog::wait_until_visible(primary, xid, &context.config.slot_name).await? {
                tracing::warn!(xid, table = %source.qualified_name(), "the primary does not show this transaction yet; its catalog is read as it is");
            }
            let table: Option<RemoteTable> = catalog::read_tables(&primary.client, primary.major_version, &[source.oid]).await?.pop();
            // Types of now, of the stream, and of the last time, to tell what a column's type was.
            let known = self.known.get(&source.oid).into_iter().flat_map(KnownRelation::type_oids);
            let now = table.iter().flat_map(|table| &table.columns).map(|c| c.type_oid);
            let types = catalog::read_types(&primary.client, source.columns.iter().map(|c| c.type_oid).chain(known).chain(now)).await?;
            Ok::<_, Error>((table, types))
        })?;
        for (oid, (schema, name)) in &self.types {
            types.add_named(*oid, schema, name);
        }
        self.definitions.insert(source.oid, Arc::new(Definition { table, types, may_create: false }));
        Ok(())
    }
}

/// Adds foreign keys of tables that are known to tables that have just been made.
pub(super) fn connect_known(store: &Store, edit: &mut Edit, known: &HashMap<u32, KnownRelation>) -> Result<()> {
    catalog::connect_foreign_keys(store, edit, known.values().filter_map(|known| known.details.as_deref()))
}

/// The catalog tells of now, the stream of then. Columns, their types and the table's names are as the stream says; what the catalog adds (keys, defaults, NOT
/// NULL) holds for columns that both know. A table that is gone or has become another is described by the stream alone.
fn reconcile(source: &SourceRelation, remote: Option<RemoteTable>) -> RemoteTable {
    let streamed = catalog::table_from_relation(&source.as_relation());
    let Some(mut remote) = remote else { return streamed };
    let known: HashMap<String, catalog::RemoteColumn> = remote.columns.drain(..).map(|c| (c.name.clone(), c)).collect();
    let mut next_attnum = known.values().map(|c| c.attnum).max().unwrap_or(0);
    for column in streamed.columns {
        let mut merged = match known.get(&column.name) {
            Some(column) => column.clone(),
            None => {
                next_attnum = next_attnum.saturating_add(1);
                catalog::RemoteColumn { attnum: next_attnum, ..column.clone() }
            }
        };
        merged.type_oid = column.type_oid;
        merged.typmod = column.typmod;
        merged.generated = false;
        remote.columns.push(merged);
    }
    // What is computed is not in the stream.
    let sent: Vec<String> = remote.columns.iter().map(|column| column.name.clone()).collect();
    remote.columns.extend(known.into_values().filter(|column| column.generated && !sent.contains(&column.name)));
    remote.columns.sort_by_key(|column| column.attnum);
    remote.schema = streamed.schema;
    remote.name = streamed.name;
    remote
}

impl SourceRelation {
    pub(super) fn as_relation(&self) -> Relation<'_> {
        let columns = self
            .columns
            .iter()
            .map(|c| crate::pgoutput::RelationColumn { key: c.key, name: &c.name, type_oid: c.type_oid, typmod: c.typmod })
            .collect();
        Relation { oid: self.oid, schema: &self.schema, name: &self.name, identity: self.identity, columns }
    }
}
