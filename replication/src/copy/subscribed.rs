//! Copies the tables of a subscription that are not here yet, on one snapshot.
//!
//! The snapshot is that of a temporary slot; `table_state` tells how the stream joins it. Each table is a commit of its own, so that one that cannot be copied
//! keeps no other from following, and so that what is copied is not copied again after a crash. Rows are gathered beside the branch, which others may go on to
//! write into, and enter it in one stroke.

use std::sync::Arc;

use strandline_storage::edit::LoadedTable;
use strandline_storage::value::TextSettings;
use strandline_storage::{CommitMeta, Edit, Error as StoreError, Identity, Lsn, Source, Timestamp};
use tokio::sync::watch;

use super::plan::{self, Task};
use super::workers::{self, TableCopy, copy_tables};
use crate::apply::{self, Context, Mapping, Writer, adopt_tables};
use crate::catalog::{self, RemoteTypes};
use crate::client::Connection;
use crate::error::{Error, Result};
use crate::source_record::copy_source;
use crate::status::TableState;
use crate::table_state::{SubscribedTable, SyncState};

/// Copies what is to be copied. Returns how many tables could not be; why is in the log and the status.
/// # Errors
/// What is not one table's fault: the connection, the store; with `disable_on_error` also what is.
pub(crate) async fn copy_subscribed(context: &Arc<Context>, connection: &mut Connection) -> Result<usize> {
    let config = &context.config;
    let mut pending = context.records.tables()?;
    pending.retain(|_, table| table.state == SyncState::Init);
    let name = super::temporary_slot_name(&config.slot_name);
    let slot = connection.create_temporary_slot(&name).await?;
    let snapshot = slot.snapshot.ok_or_else(|| Error::Protocol("a slot without a snapshot".into()))?;
    let client = super::connect_to_snapshot(context, &snapshot).await?;
    let version = connection.server_major_version();
    let (tasks, types) = plan::plan(&client, version, &config.publication_names).await?;
    let mut wanted: Vec<Task> = tasks.into_iter().filter(|task| pending.contains_key(&task.relation.oid)).collect();
    plan::divide(&client, version, &mut wanted, config.copy_workers).await?;
    let listed = wanted.into_iter().filter_map(|task| pending.remove(&task.relation.oid).map(|table| (task, table))).collect();
    let run = Run { context: Arc::clone(context), types, snapshot, point: slot.consistent_point };
    // Dropped with this future, and then the workers end.
    let (_wanted, stop) = watch::channel(false);
    let copied = tokio::task::spawn_blocking(move || run.copy(listed, stop)).await;
    let mut failure_count = copied.unwrap_or_else(|e| Err(Error::Setup(format!("the copy's writer failed: {e}"))))?;
    for (oid, table) in &pending {
        if !config.is_listed() {
            // Gone from the publication, and with it what was to be copied.
            context.records.set_table(*oid, None)?;
            continue;
        }
        failure_count += 1;
        let shown = format!("{}.{}", table.schema, table.name);
        give_up(context, &shown, Error::Setup(format!("table \"{shown}\" not found on publisher")))?;
    }
    drop(client);
    connection.drop_slot(&name).await?;
    context.store.sync()?;
    Ok(failure_count)
}

/// One table's failure is told, and the others go on.
fn give_up(context: &Context, table: &str, error: Error) -> Result<()> {
    // A configured source stops at errors.
    if error.is_passing() || matches!(error, Error::Store(_)) || context.config.subscription.is_none() {
        return Err(error);
    }
    let text = error.to_string();
    // Tried again every few seconds: the log hears of it when it changes.
    let is_known = context.status.snapshot().last_error.is_some_and(|(_, last)| last == text);
    if !is_known {
        tracing::error!(table, error = %text, "the table could not be copied; it is tried again");
    }
    context.status.note_copy_error(text);
    if context.config.subscription.is_some_and(|subscription| subscription.disable_on_error) {
        return Err(error);
    }
    Ok(())
}

/// One snapshot, and the tables that are copied on it.
struct Run {
    context: Arc<Context>,
    types: RemoteTypes,
    snapshot: String,
    point: Lsn,
}

impl Run {
    /// Returns how many tables could not be copied.
    fn copy(&self, listed: Vec<(Task, SubscribedTable)>, stop: watch::Receiver<bool>) -> Result<usize> {
        let (context, config) = (&self.context, &self.context.config);
        let author = apply::author(config);
        let settings = apply::pinned_settings();
        let mut failure_count = 0;
        let (mut tables, mut records) = (Vec::new(), Vec::new());
        for (task, record) in listed {
            let oid = task.relation.oid;
            match self.prepare(task, &author, &settings) {
                Ok(table) => {
                    tables.push(table);
                    records.push(record);
                }
                Err((name, error)) => {
                    failure_count += 1;
                    self.set_state(oid, &record, SyncState::Init)?;
                    give_up(context, &name, error)?;
                }
            }
        }
        let begin = |table: &TableCopy| {
            let at = tables.iter().position(|other| std::ptr::eq(other, table)).expect("BUG: a table that is not copied");
            self.set_state(table.task.relation.oid, &records[at], SyncState::Copying { point: self.point })?;
            context.status.update_table(&table.mapping.name, |table| table.state = TableState::Copying);
            tracing::info!(table = %table.mapping.name, lsn = %self.point, parts = table.task.parts.len(), "copying");
            Ok(())
        };
        let source = workers::Source { connection: config.connection(), snapshot: &self.snapshot, worker_count: config.copy_workers, stop };
        let _shown = context.status.show_copy(tables.iter().map(|table| Arc::clone(&table.progress)));
        let mut ended_count = 0;
        copy_tables(&source, &tables, &begin, |at, loaded| {
            ended_count += 1;
            let (table, oid) = (&tables[at], tables[at].task.relation.oid);
            let copied = loaded.and_then(|loaded| self.commit(table, loaded, &author));
            let state = if copied.is_ok() { SyncState::Synced { point: self.point } } else { SyncState::Init };
            self.set_state(oid, &records[at], state)?;
            match copied {
                Ok(rows) => {
                    let bytes = table.progress.bytes();
                    tracing::info!(table = %table.mapping.name, rows, bytes, lsn = %self.point, "copied");
                    Ok(())
                }
                Err(error) => {
                    failure_count += 1;
                    give_up(context, &table.mapping.name, error)
                }
            }
        })?;
        // Fewer only where nobody wants the copy any more.
        if ended_count < tables.len() { Err(super::stopped()) } else { Ok(failure_count) }
    }

    /// Finds or makes the table here. An error comes with the table's name.
    fn prepare(&self, task: Task, author: &Identity, settings: &TextSettings) -> Result<TableCopy, (String, Error)> {
        let name = task.relation.qualified_name();
        match self.prepare_table(&task, &name, author, settings) {
            Ok((mapping, load)) => Ok(TableCopy::new(task, mapping, &self.types, load)),
            Err(error) => Err((name, error)),
        }
    }

    fn prepare_table(
        &self,
        task: &Task,
        name: &str,
        author: &Identity,
        settings: &TextSettings,
    ) -> Result<(Mapping, Arc<strandline_storage::edit::TableLoad>)> {
        let (context, relation) = (&self.context, &task.relation);
        adopt_tables(&context.branch, &[(relation.schema.clone(), relation.name.clone())], author)?;
        let root = context.branch.state().head_root;
        if root.catalog().table_by_name(&relation.schema, &relation.name).is_none() {
            let mut writer = Writer::begin(&context.branch, context.config.commit_mode, false)?;
            super::local_table(context, &mut writer, task, &self.types, settings)?;
            writer.commit(meta(author, format!("table {name} to replicate into"), None)).map_err(|error| refused(name, error))?;
        }
        let mut beside = Edit::new(context.branch.state().head_root);
        let mapping = super::local_table(context, &mut beside, task, &self.types, settings)?;
        let load = beside.table_load(mapping.table)?;
        Ok((mapping, load))
    }

    /// Commits a table's copy: the rows are its only ones, or join those that it has. Returns their number.
    fn commit(&self, table: &TableCopy, loaded: LoadedTable, author: &Identity) -> Result<u64> {
        let context = &self.context;
        let (name, local) = (&table.mapping.name, table.mapping.table);
        let is_empty = context.branch.state().head_root.table(local).is_none_or(|data| data.is_empty());
        let mut writer = Writer::begin(&context.branch, context.config.commit_mode, !is_empty)?;
        let copied = if is_empty {
            writer.take_rows(local, loaded).map_err(|error| refused(name, error))?
        } else {
            writer.add_rows(local, &loaded).map_err(|error| table.not_copied(&error))?
        };
        let known = context.records.relations()?;
        let others = known.values().filter_map(|known| known.details.as_deref());
        catalog::connect_foreign_keys(&context.store, &mut writer, others.chain([&table.task.remote]))?;
        let source = copy_source(self.point, context.config.subscription_oid());
        let committed = writer.commit(meta(author, format!("copy of table {name} at {}", self.point), Some(source)));
        committed.map_err(|error| refused(name, error))?;
        context.status.update_table(name, |table| {
            table.state = TableState::Ready;
            table.copied = copied;
        });
        super::remember(context, &table.task)?;
        Ok(copied)
    }

    fn set_state(&self, oid: u32, record: &SubscribedTable, state: SyncState) -> Result<()> {
        self.context.records.set_table(oid, Some(&SubscribedTable { state, ..record.clone() })).map(drop)
    }
}

fn meta(author: &Identity, message: String, source: Option<Source>) -> CommitMeta {
    let now = Timestamp::now();
    CommitMeta { author: author.clone(), author_time: now, committer: author.clone(), commit_time: now, message, source }
}

/// Somebody else changed the table meanwhile: that passes.
fn refused(table: &str, error: StoreError) -> Error {
    match error {
        StoreError::Conflict { what } => Error::Setup(format!("could not copy table \"{table}\": {what} was changed meanwhile")),
        other => Error::Store(other),
    }
}
