//! Copies the tables of a subscription that are not here yet, one by one, on one snapshot.
//!
//! The snapshot is that of a temporary slot; `table_state` tells how the stream joins it. Each table is a commit of its own, so that one that cannot be copied
//! keeps no other from following, and so that what is copied is not copied again after a crash. An empty table is filled beside the branch, which others may go on to
//! write into, and enters it in one stroke.

use std::sync::Arc;

use strandline_storage::{CommitMeta, Edit, Error as StoreError, Identity, Lsn, Source, Timestamp};
use tokio::sync::mpsc;

use crate::apply::{self, Context, Definition, KnownRelation, Writer, adopt_tables};
use crate::catalog::RemoteTypes;
use crate::client::Connection;
use crate::copy::{self, PIECE_COUNT_MAX, Pieces, Task};
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
    let name = copy::temporary_slot_name(&config.slot_name);
    let slot = connection.create_temporary_slot(&name).await?;
    let snapshot = slot.snapshot.ok_or_else(|| Error::Protocol("a slot without a snapshot".into()))?;
    let point = slot.consistent_point;
    let mut client = copy::connect_to_snapshot(context, &snapshot).await?;
    let (tasks, types) = copy::plan(&client, connection.server_major_version(), &config.publication_names).await?;
    let types = Arc::new(types);
    let mut failure_count = 0;
    for task in tasks {
        let oid = task.relation.oid;
        let Some(table) = pending.remove(&oid) else { continue };
        context.records.set_table(oid, Some(&SubscribedTable { state: SyncState::Copying { point }, ..table.clone() }))?;
        let shown = task.relation.qualified_name();
        tracing::info!(table = %shown, lsn = %point, "copying");
        let task = Arc::new(task);
        let copied = copy_table(context, &client, &task, &types, point).await;
        let state = if copied.is_ok() { SyncState::Synced { point } } else { SyncState::Init };
        context.records.set_table(oid, Some(&SubscribedTable { state, ..table }))?;
        match copied {
            Ok(rows) => tracing::info!(table = %shown, rows, lsn = %point, "copied"),
            Err(error) => {
                failure_count += 1;
                give_up(context, &shown, error)?;
                // The rest of this table's rows is still on its way.
                client = copy::connect_to_snapshot(context, &snapshot).await?;
            }
        }
    }
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

async fn copy_table(
    context: &Arc<Context>,
    client: &crate::catalog::CatalogClient,
    task: &Arc<Task>,
    types: &Arc<RemoteTypes>,
    point: Lsn,
) -> Result<u64> {
    let (sender, receiver) = mpsc::channel(PIECE_COUNT_MAX);
    let query = copy::copy_query(task);
    let (writing, task, types) = (Arc::clone(context), Arc::clone(task), Arc::clone(types));
    let writer = tokio::task::spawn_blocking(move || write_table(&writing, &task, &types, receiver, point));
    let sent = copy::send_tables(client, &[query], sender).await;
    let written = writer.await.unwrap_or_else(|e| Err(Error::Setup(format!("the copy's writer failed: {e}"))));
    sent?;
    written
}

fn write_table(context: &Context, task: &Task, types: &RemoteTypes, receiver: mpsc::Receiver<copy::Piece>, point: Lsn) -> Result<u64> {
    let config = &context.config;
    let relation = &task.relation;
    let name = relation.qualified_name();
    let author = apply::author(config);
    let settings = apply::pinned_settings();
    let mut pieces = Pieces::new(receiver);
    adopt_tables(&context.branch, &[(relation.schema.clone(), relation.name.clone())], &author)?;
    context.status.update_table(&name, |table| table.state = TableState::Copying);
    let root = context.branch.state().head_root;
    let (root, mapping) = match root.catalog().table_by_name(&relation.schema, &relation.name).map(|local| local.oid) {
        Some(_) => {
            let mapping = copy::local_table(context, &mut Edit::new(root.clone()), task, types, &settings)?;
            (root, mapping)
        }
        None => {
            let mut writer = Writer::begin(&context.branch, config.commit_mode, false)?;
            let mapping = copy::local_table(context, &mut writer, task, types, &settings)?;
            writer.commit(meta(&author, format!("table {name} to replicate into"), None)).map_err(|error| refused(&name, error))?;
            (context.branch.state().head_root, mapping)
        }
    };
    let mut writer;
    let copied = if root.table(mapping.table).is_none_or(|data| data.is_empty()) {
        let mut beside = Edit::new(root);
        copy::write_rows(&mut beside, &mapping, &mut pieces, &settings)?;
        let filled = beside.root_and_changes().0;
        writer = Writer::begin(&context.branch, config.commit_mode, false)?;
        writer.take_rows(mapping.table, &filled).map_err(|error| refused(&name, error))?
    } else {
        drop(root);
        writer = Writer::begin(&context.branch, config.commit_mode, true)?;
        copy::add_rows(&mut writer, &mapping, &mut pieces, &settings)?
    };
    let known = context.records.relations()?;
    let others = known.values().filter_map(|known| known.details.as_deref());
    crate::catalog::connect_foreign_keys(&context.store, &mut writer, others.chain([&task.remote]))?;
    let source = copy_source(point, config.subscription_oid());
    writer.commit(meta(&author, format!("copy of table {name} at {point}"), Some(source))).map_err(|error| refused(&name, error))?;
    context.status.update_table(&name, |table| {
        table.state = TableState::Ready;
        table.copied = copied;
    });
    let definition = Definition { table: Some(task.remote.clone()), types: RemoteTypes::default(), may_create: false };
    context.records.set_relation(relation.oid, Some(&KnownRelation::new(relation, &definition, None)))?;
    Ok(copied)
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
