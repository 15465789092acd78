//! Commands that DDL capture tells of, followed at their place in the transaction.
//!
//! What a command has done to a table is not told step by step: the message holds the whole definition after it, and the table here is brought from the one
//! that was taken over last to this one. A message that is not authentic changes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use strandline_storage::Lsn;
use strandline_storage::schema::TableSchema;

use super::columns::{drop_table, rename_schema};
use super::definition::Definition;
use super::details::{follow_type, table_of_index};
use super::relation::{SourceColumn, SourceRelation};
use super::stopped::unfollowed;
use super::tables::connect_known;
use super::{Applier, Interruption, KnownRelation, Running, adopt_tables, busy, writer_of};
use crate::capture::{Command, Dropped, Publication};
use crate::catalog::{self, CatalogClient, RemoteTable, RemoteType, RemoteTypes};
use crate::config::{CommitMode, CreateTables};
use crate::error::{Error, Result};
use crate::pgoutput::{LogicalMessage, ReplicaIdentity};

/// Commands after which a table is new.
const CREATING: [&str; 3] = ["CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"];

impl Applier {
    pub(super) fn apply_captured(&mut self, running: &mut Running, lsn: Lsn, message: &LogicalMessage<'_>) -> Result<(), Interruption> {
        if running.skipped || !message.transactional || self.context.config.create_tables == CreateTables::Never {
            return Ok(());
        }
        let Some(command) = self.open_captured(running.begin.xid, message)? else { return Ok(()) };
        tracing::debug!(tag = %command.tag, %lsn, "captured");
        let before = Arc::clone(writer_of(running, &self.context)?.root().catalog());
        if let Some(table) = &command.table {
            self.follow_captured(running, &command, table)?;
        }
        // What was kept for a table that joins now is followed for that alone: the rest was in its time.
        let entering = self.joins.entering;
        if let Some(changed) = command.r#type.as_ref().filter(|_| entering.is_none()) {
            self.follow_type(running, changed)?;
        }
        if let Some(dropped) =
            command.dropped.as_ref().filter(|dropped| entering.is_none_or(|oid| dropped.kind == "index" || dropped.oid == oid))
        {
            self.follow_drop(running, dropped)?;
        }
        // A transaction that changes definitions alone is a commit, too.
        if !Arc::ptr_eq(&before, writer_of(running, &self.context)?.root().catalog()) {
            running.change_count += 1;
        }
        Ok(())
    }

    /// The command of an authentic message.
    fn open_captured(&mut self, xid: u32, message: &LogicalMessage<'_>) -> Result<Option<Command>> {
        let mut opened = self.capture_keys.open(message.content, xid);
        if opened.is_err() && self.capture_keys.is_due() {
            let context = Arc::clone(&self.context);
            let read = context.runtime.block_on(async {
                if self.catalog.as_ref().is_none_or(CatalogClient::is_closed) {
                    self.catalog = Some(CatalogClient::connect(&context.config.connection()).await?);
                }
                let client = &self.catalog.as_ref().expect("BUG: just connected").client;
                self.capture_keys.read(client).await.map_err(|e| Error::from_sql("read the key of DDL capture", e))
            });
            match read {
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => tracing::debug!(%error, "the key of DDL capture could not be read"),
                Ok(()) => {}
            }
            opened = self.capture_keys.open(message.content, xid);
        }
        Ok(opened.map_err(|why| self.capture_keys.warn(xid, why)).ok())
    }

    fn follow_captured(&mut self, running: &mut Running, command: &Command, table: &RemoteTable) -> Result<(), Interruption> {
        let Some(source) = sent_columns(table, &command.publications, &self.context.config.publication_names) else { return Ok(()) };
        let source = Arc::new(source);
        let listed = self.subscribed.find(&source, self.known.contains_key(&source.oid), &self.context.records)?;
        if !self.takes(listed, running.begin.commit_lsn) {
            return Ok(());
        }
        let known = match self.known_changes.get(&source.oid) {
            Some(changed) => changed.as_ref(),
            None => self.known.get(&source.oid),
        };
        let mut types = RemoteTypes::of_table(table);
        if let Some(base) = known.and_then(|known| known.details.as_deref()) {
            types.add_missing(&base.types);
        }
        let is_known = known.is_some();
        if command.tag == "ALTER SCHEMA"
            && let Some(old) = known.map(|known| known.schema.clone()).filter(|old| *old != table.schema)
        {
            rename_schema(writer_of(running, &self.context)?, &old, &table.schema)?;
        }
        let is_new = CREATING.contains(&command.tag.as_str());
        let is_here = writer_of(running, &self.context)?.root().catalog().relation(&source.schema, &source.name).is_some();
        if !is_known && !is_here {
            if !is_new {
                // Not followed yet: at its first change its rows are looked at, too.
                return Ok(());
            }
            self.check_working_set(running, &source)?;
        }
        let definition = Definition { table: Some(table.clone()), types, may_create: is_new };
        let statement = command.statement.as_deref().unwrap_or_default();
        self.follow_to(running, &source, &definition, Some(statement))?;
        let writer = writer_of(running, &self.context)?;
        if is_new && writer.root().catalog().relation(&source.schema, &source.name).is_none() {
            let sent: Vec<String> = source.columns.iter().map(|column| column.name.clone()).collect();
            let created = catalog::create_table(self.context.maker(), writer, table, &definition.types, Some(&sent));
            created.map_err(|error| unfollowed(&source, error))?;
            connect_known(&self.context.store, writer, &self.known)?;
            catalog::warn_missing_foreign_keys(writer, [table]);
            tracing::info!(table = %source.qualified_name(), "created a table as on the primary");
        }
        Ok(())
    }

    /// A table that was made by hand and not committed takes the place of a new one; it has to be committed first.
    fn check_working_set(&mut self, running: &mut Running, source: &Arc<SourceRelation>) -> Result<(), Interruption> {
        if self.context.config.commit_mode != CommitMode::EachTransaction {
            return Ok(());
        }
        let name = (source.schema.clone(), source.name.clone());
        if self.uncommitted.as_ref().is_some_and(|names| !names.contains(&name)) {
            return Ok(());
        }
        if !running.large {
            return Err(Interruption::TableNew(Arc::clone(source)));
        }
        if self.is_in_working_set(running, source) {
            running.writer = None;
            self.look_for(source)?;
            return Err(Interruption::Failed(busy(&running.begin, "a table that was made by hand had to be committed first")));
        }
        Ok(())
    }

    /// Commits a table of this name that the working set has, and looks which others there are, so that a transaction is not started over for each that it makes.
    pub(super) fn look_for(&mut self, source: &SourceRelation) -> Result<()> {
        adopt_tables(&self.context.branch, &[(source.schema.clone(), source.name.clone())], &self.author)?;
        let state = self.context.branch.state();
        let (head, working) = (state.head_root.catalog(), state.working.catalog());
        let uncommitted = working.tables().filter(|table| head.table(table.oid).is_none());
        let names = uncommitted.filter_map(|table| Some((working.schema_name(table.schema_oid)?.to_owned(), table.name.clone())));
        self.uncommitted = Some(names.collect());
        Ok(())
    }

    fn follow_type(&mut self, running: &mut Running, changed: &RemoteType) -> Result<(), Interruption> {
        let mut types = RemoteTypes::default();
        types.add(changed.clone());
        let writer = writer_of(running, &self.context)?;
        if follow_type(self.context.maker(), writer, &types, changed)? {
            tracing::info!(r#type = %format_args!("{}.{}", changed.schema, changed.name), "changed a type as on the primary");
        }
        Ok(())
    }

    fn follow_drop(&mut self, running: &mut Running, dropped: &Dropped) -> Result<(), Interruption> {
        let known = |oid: &u32| match self.known_changes.get(oid) {
            Some(changed) => changed.as_ref(),
            None => self.known.get(oid),
        };
        let commit = running.begin.commit_lsn;
        match dropped.kind.as_str() {
            // It keeps what it has.
            "table" if self.subscribed.is_stopped(dropped.oid, commit) => {}
            "table" => {
                // Under the name that it had last: it may have been renamed without a change since, by who installed capture later.
                let Some(relation) = known(&dropped.oid) else { return Ok(()) };
                let (schema, name) = (relation.schema.clone(), relation.name.clone());
                let writer = writer_of(running, &self.context)?;
                if let Some(table) = writer.root().catalog().table_by_name(&schema, &name).map(|table| table.oid) {
                    drop_table(writer, table)?;
                    tracing::info!(table = %format_args!("{schema}.{name}"), "dropped a table as on the primary");
                }
                self.known_changes.insert(dropped.oid, None);
            }
            "index" => {
                let has =
                    |relation: &KnownRelation| relation.details.as_ref().is_some_and(|d| d.indexes.iter().any(|i| i.oid == dropped.oid));
                let oids: HashSet<u32> = self.known.keys().chain(self.known_changes.keys()).copied().collect();
                let Some((oid, mut relation)) = oids.into_iter().find_map(|oid| Some((oid, known(&oid).filter(|r| has(r))?.clone())))
                else {
                    return Ok(());
                };
                if self.subscribed.is_stopped(oid, commit) {
                    return Ok(());
                }
                let writer = writer_of(running, &self.context)?;
                if let Some(table) = table_of_index(writer.root().catalog(), &dropped.schema, &dropped.name)
                    && let Some(schema) = writer.table_schema(table)
                {
                    let mut changed = TableSchema::clone(schema);
                    changed.indexes.retain(|index| index.name != dropped.name);
                    if changed.primary_key.as_ref().is_some_and(|key| key.name == dropped.name) {
                        changed.primary_key = None;
                        writer.rewrite_table(changed, &mut Ok).map_err(Error::Store)?;
                    } else {
                        writer.put_table(changed).map_err(Error::Store)?;
                    }
                }
                if let Some(details) = &mut relation.details {
                    Arc::make_mut(details).indexes.retain(|index| index.oid != dropped.oid);
                }
                self.known_changes.insert(oid, Some(relation));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The table as the stream would announce it; nothing where none of our publications has it.
fn sent_columns(table: &RemoteTable, publications: &[Publication], ours: &[String]) -> Option<SourceRelation> {
    let mut sending = publications.iter().filter(|publication| ours.contains(&publication.name)).peekable();
    sending.peek()?;
    let sending: Vec<&Publication> = sending.collect();
    let is_sent = |column: &catalog::RemoteColumn| {
        sending.iter().any(|publication| match &publication.columns {
            // Before version 18 a list cannot name a generated column.
            Some(numbers) => numbers.contains(&column.attnum),
            None => !column.generated || (publication.generated && column.expression.is_some()),
        })
    };
    let columns = table
        .columns
        .iter()
        .filter(|column| is_sent(column))
        .map(|column| SourceColumn { key: false, name: column.name.clone(), type_oid: column.type_oid, typmod: column.typmod })
        .collect();
    Some(SourceRelation {
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        identity: ReplicaIdentity::Nothing,
        columns,
    })
}
