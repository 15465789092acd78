//! Copies of tables on a snapshot of the primary.
//!
//! The *initial copy* brings all published tables at one moment, in one base commit. A slot's snapshot is gone with the connection that made it, and a slot without
//! its copy is a trap. So the slot that lasts is made last:
//!
//! 1. A *temporary* slot is made; it exports a snapshot that fits its consistent point, and vanishes with the connection.
//! 2. All tables are copied on that snapshot into one commit that carries the consistent point as its position.
//! 3. When the commit is durable, the temporary slot is copied into the lasting one, which therefore starts at the same point.
//!
//! A crash before 3 leaves nothing on the primary, and the copy begins again with a new snapshot.
//!
//! Before version 12 slots cannot be copied: there, the slot of 1 is the lasting one. That it is ours and has no copy yet is written down, with the place where it
//! starts, and a slot that is found so is dropped, whether after a crash or an error. Tables that a subscription gets later are copied by the
//! same workers (`subscribed`).
//!
//! `plan`: which tables, in which parts; `workers`: connections that copy them in parallel; `rows`: the formats of COPY; `progress`: how far it has come.

mod plan;
mod progress;
mod rows;
mod subscribed;
mod workers;

use std::sync::Arc;

use rand::Rng;
use strandline_storage::edit::LoadedTable;
use strandline_storage::value::TextSettings;
use strandline_storage::{CommitMeta, Edit, Lsn, Source, Timestamp};
use tokio::sync::watch;

use crate::apply::{self, Context, Definition, KnownRelation, Mapping, Writer, adopt_tables};
use crate::catalog::{self, CatalogClient, RemoteTypes};
use crate::client::{Connection, CreatedSlot, SLOT_COPY_VERSION_MIN, SlotInfo, quote_identifier, quote_literal};
use crate::config::{CommitMode, CreateTables};
use crate::error::{Error, Result};
use crate::source_record::{Phase, SlotToMake, Source as SourceRecord};
use crate::status::TableState;
use plan::Task;
pub(crate) use progress::{CopyProgress, TableProgress};
#[cfg(fuzzing)]
pub(crate) use rows::samples::decode_any;
pub(crate) use subscribed::{Replaced, copy_subscribed, join_tables, put_rows, refused};
use workers::{TableCopy, copy_tables};

/// The longest name that a slot can have.
const SLOT_NAME_SIZE_MAX: usize = 63;

/// Copies everything and makes the slot. Returns where the stream begins.
pub(crate) async fn initial_copy(context: &Arc<Context>, connection: &mut Connection, mut source: SourceRecord) -> Result<Lsn> {
    let config = &context.config;
    source.phase = Phase::Copying;
    context.records.set_source(&source)?;
    // What was prepared before is of another slot, and the new one sends it when it is committed.
    match std::fs::remove_dir_all(&config.prepared_folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::File { action: "remove", path: config.prepared_folder.display().to_string(), source });
        }
        _ => {}
    }
    context.records.forget_all_prepared()?;
    tracing::info!(slot = %config.slot_name, "the slot does not exist; copying the published tables (waits for transactions under way on the primary)");
    if connection.server_major_version() < SLOT_COPY_VERSION_MIN {
        return copy_on_lasting_slot(context, connection, source).await;
    }
    let temporary = temporary_slot_name(&config.slot_name);
    let slot = connection.create_temporary_slot(&temporary).await?;
    let copied = copy_on(context, connection.server_major_version(), &slot).await?;
    source.phase = Phase::Copied { consistent_point: slot.consistent_point };
    context.records.set_source(&source)?;
    context.store.sync()?;
    let start = connection.copy_slot(&temporary, &config.slot_name).await.map_err(made_meanwhile)?;
    if start != slot.consistent_point {
        return Err(Error::Setup(format!("the new slot starts at {start} and not at {}; drop it and restart", slot.consistent_point)));
    }
    // It would hold the primary's log back for as long as we stay connected.
    connection.query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(&temporary))).await?;
    complete(context, source, start, copied)
}

/// For servers that cannot make a lasting slot out of a temporary one.
async fn copy_on_lasting_slot(context: &Arc<Context>, connection: &mut Connection, mut source: SourceRecord) -> Result<Lsn> {
    let name = &context.config.slot_name;
    let after = connection.identify_system().await?.flushed;
    context.records.set_slot_to_make(Some(&SlotToMake { system_id: source.system_id.clone(), after }))?;
    context.store.sync()?;
    let slot = connection.create_exporting_slot(name).await.map_err(made_meanwhile)?;
    // From here on it is known by the place where it starts, and by that it may be dropped.
    let made = SlotToMake { system_id: source.system_id.clone(), after: slot.consistent_point };
    context.records.set_slot_to_make(Some(&made))?;
    context.store.sync()?;
    let copied = match copy_on(context, connection.server_major_version(), &slot).await {
        Ok(copied) => copied,
        Err(error) => {
            // Where this fails, the next session does it.
            if connection.drop_slot(name).await.is_ok() {
                context.records.set_slot_to_make(None)?;
            }
            return Err(error);
        }
    };
    source.phase = Phase::Copied { consistent_point: slot.consistent_point };
    context.records.set_source(&source)?;
    context.records.set_slot_to_make(None)?;
    context.store.sync()?;
    complete(context, source, slot.consistent_point, copied)
}

/// Drops a slot that was made for a copy that came to nothing. Returns the slot if it is another one.
/// # Errors
/// `Setup` where the copy was cut off before the slot was known: it may be somebody else's, made since.
pub(crate) async fn drop_abandoned_slot(
    context: &Context,
    connection: &mut Connection,
    source: &SourceRecord,
    slot: Option<SlotInfo>,
) -> Result<Option<SlotInfo>> {
    let name = &context.config.slot_name;
    let made = context.records.slot_to_make()?;
    let made = made.filter(|made| source.phase == Phase::Copying && source.slot_name == *name && made.system_id == source.system_id);
    match (slot, made) {
        // Who asked for it is gone, but the primary is still at it.
        (Some(slot), Some(_)) if slot.confirmed_flush.is_none() => {
            let source = std::io::Error::other(format!("replication slot \"{name}\" is being made"));
            Err(Error::Connection { action: "use the replication slot", source })
        }
        (Some(slot), Some(made)) if !slot.active && slot.confirmed_flush == Some(made.after) => {
            tracing::info!(slot = %name, "dropping the slot of an initial copy that was cut off");
            connection.drop_slot(name).await?;
            Ok(None)
        }
        (Some(_), Some(_)) => Err(Error::Setup(format!(
            "the initial copy was cut off while replication slot \"{name}\" was made, and whether the slot that is there now is that one is not known; if \
             nobody else uses it, drop it on the primary (SELECT pg_drop_replication_slot({})) and restart",
            quote_literal(name)
        ))),
        (slot, _) => Ok(slot),
    }
}

/// What a copy has brought.
struct Copied {
    tables: usize,
    rows: u64,
}

/// Copies all published tables on a slot's snapshot into one durable commit.
async fn copy_on(context: &Arc<Context>, version: u32, slot: &CreatedSlot) -> Result<Copied> {
    let config = &context.config;
    let snapshot = slot.snapshot.clone().ok_or_else(|| Error::Protocol("a slot without a snapshot".into()))?;
    let client = connect_to_snapshot(context, &snapshot).await?;
    let (mut tasks, types) = plan::plan(&client, version, &config.publication_names).await?;
    plan::divide(&client, version, &mut tasks, config.copy_workers).await?;
    let tables = tasks.len();
    // Dropped with this future, and then the workers end.
    let (_wanted, stop) = watch::channel(false);
    let (writing, point) = (Arc::clone(context), slot.consistent_point);
    let written = tokio::task::spawn_blocking(move || write_tables(&writing, tasks, &types, &snapshot, stop, point)).await;
    let rows = written.unwrap_or_else(|e| Err(Error::Setup(format!("the copy's writer failed: {e}"))))?;
    drop(client);
    context.store.sync()?;
    // With the slot it is complete, whether we live to see that or not.
    context.records.set_copied()?;
    Ok(Copied { tables, rows })
}

fn complete(context: &Context, mut source: SourceRecord, start: Lsn, copied: Copied) -> Result<Lsn> {
    source.phase = Phase::Streaming;
    context.records.set_source(&source)?;
    context.store.sync()?;
    let Copied { tables, rows } = copied;
    tracing::info!(tables, rows, lsn = %start, slot = %context.config.slot_name, "initial copy complete");
    Ok(start)
}

/// A connection that sees the primary as it was at a slot's start.
async fn connect_to_snapshot(context: &Context, snapshot: &str) -> Result<CatalogClient> {
    let client = CatalogClient::connect(&context.config.connection()).await?;
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", quote_literal(snapshot));
    let begun = client.client.batch_execute(&begin).await;
    begun.map_err(|e| workers::snapshot_gone(Error::from_sql("copy from the primary", e)))?;
    Ok(client)
}

/// A name that no other slot has and that shows whose it is.
fn temporary_slot_name(slot_name: &str) -> String {
    let suffix = format!("_copy_{:08x}", rand::rng().random::<u32>());
    let size = slot_name.len().min(SLOT_NAME_SIZE_MAX - suffix.len());
    // Slot names are ASCII; another one was refused long before.
    format!("{}{suffix}", slot_name.get(..size).unwrap_or_default())
}

fn write_tables(
    context: &Context,
    tasks: Vec<Task>,
    types: &RemoteTypes,
    snapshot: &str,
    stop: watch::Receiver<bool>,
    point: Lsn,
) -> Result<u64> {
    let config = &context.config;
    let author = apply::author(config);
    let settings = apply::pinned_settings();
    if config.commit_mode == CommitMode::EachTransaction {
        let names: Vec<(String, String)> = tasks.iter().map(|t| (t.relation.schema.clone(), t.relation.name.clone())).collect();
        adopt_tables(&context.branch, &names, &author)?;
    }
    // Rows that are here already are either a copy of ours whose slot was never made, or somebody's work.
    let has_own_copy = context.records.position(&context.branch)?.0.is_some();
    let mut writer = Writer::begin(&context.branch, config.commit_mode, true)?;
    let mut tables = Vec::with_capacity(tasks.len());
    for task in tasks {
        let mapping = local_table(context, &mut writer, &task, types, &settings)?;
        if !has_own_copy && writer.root().table(mapping.table).is_some_and(|data| !data.is_empty()) {
            return Err(Error::Setup(format!(
                "table \"{}\" has rows here already, and the initial copy would replace them; empty it, or create the slot and set initial_copy to never",
                mapping.name
            )));
        }
        let load = writer.table_load(mapping.table)?;
        tables.push(TableCopy::new(task, mapping, types, load));
    }
    let begin = |table: &TableCopy| {
        context.status.update_table(&table.mapping.name, |table| table.state = TableState::Copying);
        tracing::info!(table = %table.mapping.name, parts = table.task.parts.len(), "copying");
        Ok(())
    };
    let source = workers::Source { connection: config.connection(), snapshot, worker_count: config.copy_workers, stop: stop.clone() };
    let _shown = context.status.show_copy(tables.iter().map(|table| Arc::clone(&table.progress)));
    let mut loaded: Vec<Option<LoadedTable>> = tables.iter().map(|_| None).collect();
    copy_tables(&source, &tables, &begin, |at, copied| {
        let copied = copied?;
        tracing::info!(table = %tables[at].mapping.name, rows = copied.row_count(), bytes = tables[at].progress.bytes(), "copied");
        loaded[at] = Some(copied);
        Ok(())
    })?;
    let mut row_count = 0;
    for (table, loaded) in tables.iter().zip(loaded) {
        // A table is missing only where nobody wants the copy any more.
        let loaded = loaded.ok_or_else(stopped)?;
        let copied = writer.replace_with(table.mapping.table, loaded).map_err(|error| table.not_copied(&error))?;
        row_count += copied;
        context.status.update_table(&table.mapping.name, |table| {
            table.state = TableState::Ready;
            table.copied = copied;
        });
    }
    catalog::connect_foreign_keys(&context.store, &mut writer, tables.iter().map(|table| &table.task.remote))?;
    catalog::warn_missing_foreign_keys(&writer, tables.iter().map(|table| &table.task.remote));
    let now = Timestamp::now();
    let meta = CommitMeta {
        author: author.clone(),
        author_time: now,
        committer: author,
        commit_time: now,
        message: format!("initial copy of {} tables at {point}", tables.len()),
        source: Some(Source { end_lsn: point, commit_lsn: point, xid: 0, commit_time: now, ..Source::default() }),
    };
    writer.commit(meta)?;
    for table in &tables {
        remember(context, &table.task)?;
    }
    Ok(row_count)
}

/// Keeps what the copied table was like on the primary.
fn remember(context: &Context, task: &Task) -> Result<()> {
    context.records.set_relation(task.relation.oid, Some(&known(task))).map(drop)
}

fn known(task: &Task) -> KnownRelation {
    let definition = Definition { table: Some(task.remote.clone()), types: RemoteTypes::default(), may_create: false };
    KnownRelation::new(&task.relation, &definition, None)
}

/// The slot was missing when the copy began. If it is there now, we made it before a crash, and the primary was slow to do so: the next session finds it, at an
/// earlier place than the copy.
fn made_meanwhile(error: Error) -> Error {
    match error {
        Error::Primary { code, message, .. } if code == "42710" => {
            Error::Connection { action: "make the replication slot", source: std::io::Error::other(message) }
        }
        other => other,
    }
}

/// The copy ended before it was complete because nobody waits for it.
fn stopped() -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "the copy was stopped");
    Error::Connection { action: "copy from the primary", source }
}

fn local_table(context: &Context, writer: &mut Edit, task: &Task, types: &RemoteTypes, settings: &TextSettings) -> Result<Mapping> {
    let relation = &task.relation;
    let catalog = writer.root().catalog();
    let existing = catalog.table_by_name(&relation.schema, &relation.name).map(|table| table.oid);
    let oid = match existing {
        Some(oid) => oid,
        None if catalog.relation(&relation.schema, &relation.name).is_some() => {
            return Err(Error::Setup(format!(
                "could not copy table \"{}\": the object of this name here is not a table",
                relation.qualified_name()
            )));
        }
        None if context.config.create_tables == CreateTables::Never => {
            return Err(Error::Setup(format!(
                "table \"{}\" is published and does not exist here; create it, or set create_tables to auto",
                relation.qualified_name()
            )));
        }
        None => {
            let published: Vec<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
            let oid = catalog::create_table(context.maker(), writer, &task.remote, types, Some(&published))?;
            tracing::info!(table = %relation.qualified_name(), "created a published table");
            oid
        }
    };
    let schema =
        writer.table_schema(oid).ok_or_else(|| Error::Setup(format!("table \"{}\" has no rows object", relation.qualified_name())))?;
    let mapping = Mapping::new(relation, schema, settings).with_expressions(context.config.expressions.as_deref(), writer.root());
    let absent = mapping.absent_columns(relation);
    if !absent.is_empty() {
        tracing::info!(table = %mapping.name, columns = %absent.join(", "), "columns that are not here are not replicated");
    }
    Ok(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_fit_and_differ() {
        let long = "s".repeat(63);
        let name = temporary_slot_name(&long);
        assert_eq!(name.len(), 63);
        assert_ne!(name, temporary_slot_name(&long));
        assert!(temporary_slot_name("slot").starts_with("slot_copy_"));
    }
}
