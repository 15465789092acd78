//! Copies the tables of a subscription that are not here yet, on one snapshot.
//!
//! The snapshot is that of a temporary slot; `table_state` tells how the stream joins it. Each table is a commit of its own, so that one that cannot be copied
//! keeps no other from following, and so that what is copied is not copied again after a crash. Rows are gathered beside the branch, which others may go on to
//! write into, and enter it in one stroke.
//!
//! Where no table follows yet, the stream rests until all are copied ([`copy_subscribed`]). Otherwise it goes on, and the copies live as long as the replicator,
//! whatever becomes of its sessions ([`join_tables`]).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use strandline_storage::edit::{LoadedTable, TableLoad};
use strandline_storage::value::TextSettings;
use strandline_storage::{CommitMeta, Edit, Error as StoreError, Identity, Lsn, Oid, Source, Timestamp};
use tokio::sync::watch;

use super::plan::{self, Task};
use super::workers::{self, TableCopy, copy_tables};
use crate::apply::{self, Context, CopiedTable, KnownRelation, Mapping, Writer, adopt_tables};
use crate::backoff::Backoff;
use crate::catalog::{self, RemoteTable, RemoteTypes, Replacement};
use crate::client::Connection;
use crate::config::CreateTables;
use crate::error::{Error, Result};
use crate::source_record::{COPY_XID, copy_source};
use crate::status::TableState;
use crate::table_state::{SubscribedTable, SyncState};

/// How long a configured source waits before it tries again to copy a table.
const FAILURE_WAIT: Duration = Duration::from_secs(5);

/// Copies tables beside the stream until all have joined it. The first attempt waits for `wait`.
/// # Errors
/// What trying again does not mend; with `disable_on_error` also one table's failure.
pub(crate) async fn join_tables(context: Arc<Context>, mut wait: Duration) -> Result<()> {
    let mut backoff = Backoff::default();
    let retry_wait = context.config.subscription.map_or(FAILURE_WAIT, |subscription| subscription.retry_wait);
    let tries_again = context.config.subscription.is_some_and(|subscription| !subscription.disable_on_error);
    let mut logged = None;
    loop {
        tokio::time::sleep(wait).await;
        let before = pending(&context)?;
        let outcome = attempt_to_join(&context).await;
        // It may have been given up while a table was being filled.
        drop(context.joining.begin_copying().await);
        // What is not here by now is to be copied anew.
        for oid in context.joining.abandon().await {
            context.records.set_table_state(oid, SyncState::Init)?;
        }
        wait = match outcome {
            Ok(0) if pending(&context)?.is_empty() => return Ok(()),
            // Others have come, or a table that is published again waits for its turn.
            Ok(0) => {
                if pending(&context)? == before {
                    retry_wait
                } else {
                    Duration::ZERO
                }
            }
            Ok(_) => retry_wait,
            // For a new session, which knows what has changed.
            Err(error @ Error::CopyFirst { .. }) => return Err(error),
            Err(error) if error.is_passing() => {
                let text = error.to_string();
                if logged.as_ref() != Some(&text) {
                    tracing::warn!(slot = %context.config.slot_name, error = %text, "the copy of tables is interrupted and begins anew");
                    logged = Some(text);
                }
                backoff.next_wait()
            }
            Err(error) if tries_again && !matches!(error, Error::Store(_)) => {
                let text = error.to_string();
                context.status.note_copy_error(text.clone());
                if logged.as_ref() != Some(&text) {
                    tracing::error!(slot = %context.config.slot_name, error = %text, "tables could not be copied; it is tried again");
                    logged = Some(text);
                }
                retry_wait
            }
            Err(error) => return Err(error),
        };
    }
}

async fn attempt_to_join(context: &Arc<Context>) -> Result<usize> {
    let tables = pending(context)?;
    if tables.is_empty() {
        return Ok(0);
    }
    // Before the snapshot.
    context.joining.gather(tables.keys().copied(), &context.config.joining_folder());
    let copying = async {
        let mut connection = Connection::connect(&context.config.connection()).await?;
        copy_pending(context, &mut connection, tables.clone(), true).await
    };
    // A table that has failed is told of before the others are copied.
    let joining = async {
        let mut failure_count = 0;
        while let Some((oid, outcome)) = context.joining.next_ended().await {
            let Err(error) = outcome else { continue };
            failure_count += 1;
            let name = tables.get(&oid).map(|table| format!("{}.{}", table.schema, table.name)).unwrap_or_default();
            give_up(context, &name, error)?;
        }
        Ok(failure_count)
    };
    let (not_copied, not_joined) = tokio::try_join!(copying, joining)?;
    Ok(not_copied + not_joined)
}

fn pending(context: &Context) -> Result<BTreeMap<u32, SubscribedTable>> {
    let mut tables = context.records.tables()?;
    tables.retain(|_, table| table.state == SyncState::Init);
    Ok(tables)
}

/// Copies what is to be copied. Returns how many tables could not be; why is in the log and the status.
/// # Errors
/// What is not one table's fault: the connection, the store; with `disable_on_error` also what is.
pub(crate) async fn copy_subscribed(context: &Arc<Context>, connection: &mut Connection) -> Result<usize> {
    copy_pending(context, connection, pending(context)?, false).await
}

/// `beside`: while the stream goes on.
async fn copy_pending(
    context: &Arc<Context>,
    connection: &mut Connection,
    mut pending: BTreeMap<u32, SubscribedTable>,
    beside: bool,
) -> Result<usize> {
    let config = &context.config;
    let name = super::temporary_slot_name(&config.slot_name);
    let slot = connection.create_temporary_slot(&name).await?;
    let snapshot = slot.snapshot.ok_or_else(|| Error::Protocol("a slot without a snapshot".into()))?;
    let client = super::connect_to_snapshot(context, &snapshot).await?;
    let version = connection.server_major_version();
    let (tasks, types) = plan::plan(&client, version, &config.publication_names).await?;
    let published = tasks.iter().map(|task| task.relation.oid).collect();
    let (mut wanted, others): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|task| pending.contains_key(&task.relation.oid));
    let moved = move_records(context, &mut pending, &wanted, others)?;
    match moved.first() {
        // What is kept of it, and what the applier knows of it, goes by the former oid.
        Some(task) if beside => return Err(Error::CopyFirst { table: task.relation.qualified_name() }),
        _ => wanted.extend(moved),
    }
    plan::divide(&client, version, &mut wanted, config.copy_workers).await?;
    let listed = wanted.into_iter().filter_map(|task| pending.remove(&task.relation.oid).map(|table| (task, table))).collect();
    let run = Run { context: Arc::clone(context), types, snapshot, published, point: slot.consistent_point, beside };
    // Dropped with this future, and then the workers end.
    let (_wanted, stop) = watch::channel(false);
    let copying = context.joining.begin_copying().await;
    let copied = tokio::task::spawn_blocking(move || {
        let _copying = copying;
        run.copy(listed, stop)
    });
    let copied = copied.await;
    let mut failure_count = copied.unwrap_or_else(|e| Err(Error::Setup(format!("the copy's writer failed: {e}"))))?;
    for (oid, table) in &pending {
        if !config.is_listed() {
            // Gone from the publication, and with it what was to be copied; unless it is back already, and then it is still to be copied.
            let point = slot.consistent_point;
            if context.joining.leave(*oid, point) {
                context.records.set_table_state(*oid, SyncState::Left { point })?;
            }
            continue;
        }
        context.joining.give_up(*oid);
        failure_count += 1;
        let shown = format!("{}.{}", table.schema, table.name);
        give_up(context, &shown, Error::Setup(format!("table \"{shown}\" not found on publisher")))?;
    }
    drop(client);
    connection.drop_slot(&name).await?;
    // The reader's timer runs on this thread, too.
    let synced = Arc::clone(context);
    let synced = tokio::task::spawn_blocking(move || synced.store.sync()).await;
    synced.map_err(|e| Error::Setup(format!("the copy's writer failed: {e}")))??;
    Ok(failure_count)
}

/// Tables that were dropped and made again on the primary since they were listed are listed under their new oids. Returns what copies them.
fn move_records(context: &Context, pending: &mut BTreeMap<u32, SubscribedTable>, wanted: &[Task], others: Vec<Task>) -> Result<Vec<Task>> {
    let mut moved = Vec::new();
    let listed = context.records.tables()?;
    for task in others {
        let relation = &task.relation;
        if listed.contains_key(&relation.oid) {
            continue;
        }
        let is_former = |(oid, table): &(&u32, &SubscribedTable)| {
            table.schema == relation.schema && table.name == relation.name && wanted.iter().all(|task| task.relation.oid != **oid)
        };
        let Some(former) = pending.iter().find(is_former).map(|(oid, _)| *oid) else { continue };
        let Some(table) = pending.remove(&former) else { continue };
        context.records.set_table(relation.oid, Some(&table))?;
        context.records.set_table(former, None)?;
        tracing::info!(table = %relation.qualified_name(), "the table was made again on the primary before it was copied");
        pending.insert(relation.oid, table);
        moved.push(task);
    }
    Ok(moved)
}

/// One table's failure is told, and the others go on.
fn give_up(context: &Context, table: &str, error: Error) -> Result<()> {
    if error.is_passing() || matches!(error, Error::Store(_)) {
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

/// A copy that takes the place of what the table here is.
pub(crate) struct Replaced {
    /// What it becomes; `None`: it is that already, and only its rows are replaced.
    definition: Option<Replacement>,
}

/// Puts a table's copy into an edit: the rows are its only ones, or join those that it has. Returns their number.
pub(crate) fn put_rows(
    edit: &mut Edit,
    table: Oid,
    name: &str,
    remote: &RemoteTable,
    replaced: Option<&Replaced>,
    rows: LoadedTable,
) -> Result<u64> {
    if let Some(replaced) = replaced {
        if let Some(definition) = &replaced.definition {
            definition.put(edit, remote)?;
        }
        return edit.replace_with(table, rows).map_err(|error| refused(name, error));
    }
    let is_empty = edit.root().table(table).is_none_or(|data| data.is_empty());
    if is_empty {
        let count = rows.row_count();
        edit.take_rows(table, rows).map_err(|error| refused(name, error))?;
        return Ok(count);
    }
    edit.add_rows(table, &rows).map_err(|error| workers::not_copied(name, &error))
}

/// One snapshot, and the tables that are copied on it.
struct Run {
    context: Arc<Context>,
    types: RemoteTypes,
    snapshot: String,
    /// The oids of all published tables.
    published: HashSet<u32>,
    point: Lsn,
    /// The stream goes on meanwhile.
    beside: bool,
}

impl Run {
    /// Returns how many tables could not be copied.
    fn copy(&self, listed: Vec<(Task, SubscribedTable)>, stop: watch::Receiver<bool>) -> Result<usize> {
        let (context, config) = (&self.context, &self.context.config);
        let author = apply::author(config);
        let settings = apply::pinned_settings();
        let mut failure_count = 0;
        let (mut tables, mut records, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
        for (task, record) in listed {
            let oid = task.relation.oid;
            match self.prepare(task, &record, &author, &settings) {
                Ok((table, replacement)) => {
                    tables.push(table);
                    replacements.push(replacement);
                    records.push(record);
                }
                Err((name, error)) => {
                    failure_count += 1;
                    context.joining.give_up(oid);
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
            let point = self.point;
            let copied = match loaded {
                Ok(loaded) if self.beside => {
                    let rows = loaded.row_count();
                    self.set_state(oid, &records[at], SyncState::Finished { point })?;
                    self.hand_over(table, replacements[at].take(), loaded);
                    Ok(rows)
                }
                loaded => {
                    let copied = loaded.and_then(|loaded| self.commit(table, replacements[at].take(), loaded, &author));
                    let state = if copied.is_ok() { SyncState::Synced { point } } else { SyncState::Init };
                    context.joining.give_up(oid);
                    self.set_state(oid, &records[at], state)?;
                    copied
                }
            };
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
    fn prepare(
        &self,
        task: Task,
        record: &SubscribedTable,
        author: &Identity,
        settings: &TextSettings,
    ) -> Result<(TableCopy, Option<Replaced>), (String, Error)> {
        let name = task.relation.qualified_name();
        let prepared = match record.is_replaced() {
            true => self.prepare_replaced(&task, record, &name, author, settings),
            false => self.prepare_table(&task, &name, author, settings).map(|(mapping, load)| (mapping, load, None)),
        };
        match prepared {
            Ok((mapping, load, replaced)) => Ok((TableCopy::new(task, mapping, &self.types, load), replaced)),
            Err(error) => Err((name, error)),
        }
    }

    /// For a table that becomes another one with its copy: its types are made what they are on the primary now, the rest is its copy's.
    fn prepare_replaced(
        &self,
        task: &Task,
        record: &SubscribedTable,
        name: &str,
        author: &Identity,
        settings: &TextSettings,
    ) -> Result<(Mapping, Arc<TableLoad>, Option<Replaced>)> {
        let (context, relation, remote) = (&self.context, &task.relation, &task.remote);
        let known = context.records.relations()?;
        let catalog = Arc::clone(context.branch.state().head_root.catalog());
        let is_others = |(oid, known): (&u32, &KnownRelation)| {
            *oid != relation.oid && self.published.contains(oid) && known.schema == relation.schema && known.name == relation.name
        };
        if known.iter().any(is_others) {
            let what = "the table of this name here is that of another one of the primary's, of whose new name it has not told yet";
            return Err(Error::Setup(format!("could not copy table \"{name}\": {what}")));
        }
        // It may have been renamed on the primary since; and dropped here.
        let mut names = vec![(&relation.schema, &relation.name), (&record.schema, &record.name)];
        names.extend(known.get(&relation.oid).map(|known| (&known.schema, &known.name)));
        let here = names.into_iter().find_map(|(schema, name)| catalog.table_by_name(schema, name)).map(|table| table.oid);
        let Some(table) = here else {
            let (mapping, load) = self.prepare_table(task, name, author, settings)?;
            return Ok((mapping, load, Some(Replaced { definition: None })));
        };
        if context.config.create_tables == CreateTables::Never {
            let (mapping, load) = self.prepare_table(task, name, author, settings)?;
            return Ok((mapping, load, Some(Replaced { definition: None })));
        }
        let mut writer = Writer::begin(&context.branch, context.config.commit_mode, false)?;
        let before = Arc::clone(writer.root().catalog());
        catalog::ensure_schema(&context.store, &mut writer, &relation.schema)?;
        for changed in &remote.types {
            apply::follow_type(context.maker(), &mut writer, &self.types, changed)?;
        }
        for column in &remote.columns {
            self.types.translate(context.maker(), &mut writer, column.type_oid, column.typmod)?;
        }
        if Arc::ptr_eq(&before, writer.root().catalog()) {
            drop(writer);
        } else {
            writer.commit(meta(author, format!("types of table {name}"), None)).map_err(|error| refused(name, error))?;
        }
        let mut beside = Edit::new(context.branch.state().head_root);
        let published: Vec<String> = relation.columns.iter().map(|column| column.name.clone()).collect();
        let definition = catalog::plan_replacement(context.maker(), &mut beside, table, remote, &self.types, &published)?;
        let mapping = super::local_table(context, &mut beside, task, &self.types, settings)?;
        let load = beside.table_load(table)?;
        Ok((mapping, load, Some(Replaced { definition: Some(definition) })))
    }

    fn prepare_table(&self, task: &Task, name: &str, author: &Identity, settings: &TextSettings) -> Result<(Mapping, Arc<TableLoad>)> {
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

    /// Gives a table's copy to the applier.
    fn hand_over(&self, table: &TableCopy, replaced: Option<Replaced>, rows: LoadedTable) {
        self.context.joining.hand_over(CopiedTable {
            oid: table.task.relation.oid,
            name: table.mapping.name.to_string(),
            table: table.mapping.table,
            relation: table.task.relation.clone(),
            remote: table.task.remote.clone(),
            rows,
            replaced,
            point: self.point,
        });
    }

    /// Commits a table's copy. Returns the number of its rows.
    fn commit(&self, table: &TableCopy, replaced: Option<Replaced>, loaded: LoadedTable, author: &Identity) -> Result<u64> {
        let context = &self.context;
        let (name, local) = (&table.mapping.name, table.mapping.table);
        let is_empty = context.branch.state().head_root.table(local).is_none_or(|data| data.is_empty());
        let mut writer = Writer::begin(&context.branch, context.config.commit_mode, !is_empty)?;
        let copied = put_rows(&mut writer, local, name, &table.task.remote, replaced.as_ref(), loaded)?;
        // The table must not be ahead of what is known of it.
        context.records.set_next_relation(table.task.relation.oid, Some(&super::known(&table.task)), self.point, COPY_XID)?;
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
        self.context.records.set_table(oid, Some(&record.with_state(state))).map(drop)
    }
}

fn meta(author: &Identity, message: String, source: Option<Source>) -> CommitMeta {
    let now = Timestamp::now();
    CommitMeta { author: author.clone(), author_time: now, committer: author.clone(), commit_time: now, message, source }
}

/// Somebody else changed or dropped the table here meanwhile: that passes.
pub(crate) fn refused(table: &str, error: StoreError) -> Error {
    match error {
        StoreError::Conflict { what } => Error::CopyOutrun { table: table.to_owned(), what },
        StoreError::NotFound { what, name } => Error::CopyOutrun { table: table.to_owned(), what: format!("{what} {name}") },
        other => Error::Store(other),
    }
}
