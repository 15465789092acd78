//! The initial copy: all published tables at one moment, in one base commit.
//!
//! A slot's snapshot is gone with the connection that made it, and a slot without its copy is a trap. So the slot that lasts is made last:
//!
//! 1. A *temporary* slot is made; it exports a snapshot that fits its consistent point, and vanishes with the connection.
//! 2. All tables are copied on that snapshot into one commit that carries the consistent point as its position.
//! 3. When the commit is durable, the temporary slot is copied into the lasting one, which therefore starts at the same point.
//!
//! A crash before 3 leaves nothing on the primary, and the copy begins again with a new snapshot.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use rand::Rng;
use strandline_storage::value::{Row, TextSettings};
use strandline_storage::{CommitMeta, Edit, Error as StoreError, Lsn, Source, Timestamp};
use tokio::sync::mpsc;

use crate::apply::{self, Context, Definition, KnownRelation, Mapping, SourceColumn, SourceRelation, Writer, adopt_tables};
use crate::catalog::{self, CatalogClient, PublishedTable, RemoteTable, RemoteTypes};
use crate::client::{Connection, quote_identifier, quote_literal};
use crate::config::{CommitMode, CreateTables};
use crate::error::{Error, Result};
use crate::pgoutput::ReplicaIdentity;
use crate::source_record::{Phase, Source as SourceRecord};
use crate::status::TableState;

/// Rows are handed to the store in pieces of about this size.
const PIECE_SIZE: usize = 256 << 10;

/// How many pieces may wait for the store.
pub(crate) const PIECE_COUNT_MAX: usize = 16;

/// The longest name that a slot can have.
const SLOT_NAME_SIZE_MAX: usize = 63;

/// One table to copy.
pub(crate) struct Task {
    pub(crate) remote: RemoteTable,
    published: PublishedTable,
    pub(crate) relation: SourceRelation,
}

/// What goes to the thread that writes.
pub(crate) enum Piece {
    /// Whole lines of COPY's text format.
    Rows(Bytes),
    /// The table is complete.
    End,
}

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
    let temporary = temporary_slot_name(&config.slot_name);
    tracing::info!(slot = %config.slot_name, "the slot does not exist; copying the published tables (waits for transactions under way on the primary)");
    let slot = connection.create_temporary_slot(&temporary).await?;
    let snapshot = slot.snapshot.ok_or_else(|| Error::Protocol("a slot without a snapshot".into()))?;
    let client = connect_to_snapshot(context, &snapshot).await?;
    let (tasks, types) = plan(&client, connection.server_major_version(), &config.publication_names).await?;
    let count = tasks.len();
    let rows = copy_tables(context, &client, tasks, types, slot.consistent_point).await?;
    drop(client);
    context.store.sync()?;
    source.phase = Phase::Copied { consistent_point: slot.consistent_point };
    context.records.set_source(&source)?;
    context.store.sync()?;
    let start = connection.copy_slot(&temporary, &config.slot_name).await?;
    if start != slot.consistent_point {
        return Err(Error::Setup(format!("the new slot starts at {start} and not at {}; drop it and restart", slot.consistent_point)));
    }
    // It would hold the primary's log back for as long as we stay connected.
    connection.query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(&temporary))).await?;
    source.phase = Phase::Streaming;
    context.records.set_copied()?;
    context.records.set_source(&source)?;
    context.store.sync()?;
    tracing::info!(tables = count, rows, lsn = %start, slot = %config.slot_name, "initial copy complete");
    Ok(start)
}

/// A connection that sees the primary as it was at a slot's start.
pub(crate) async fn connect_to_snapshot(context: &Context, snapshot: &str) -> Result<CatalogClient> {
    let client = CatalogClient::connect(&context.config.connection()).await?;
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", quote_literal(snapshot));
    client.client.batch_execute(&begin).await.map_err(|e| Error::from_sql("copy from the primary", e))?;
    Ok(client)
}

/// A name that no other slot has and that shows whose it is.
pub(crate) fn temporary_slot_name(slot_name: &str) -> String {
    let suffix = format!("_copy_{:08x}", rand::rng().random::<u32>());
    let size = slot_name.len().min(SLOT_NAME_SIZE_MAX - suffix.len());
    // Slot names are ASCII; another one was refused long before.
    format!("{}{suffix}", slot_name.get(..size).unwrap_or_default())
}

/// Reads what to copy, on the snapshot.
pub(crate) async fn plan(client: &CatalogClient, major_version: u32, publications: &[String]) -> Result<(Vec<Task>, RemoteTypes)> {
    let published = catalog::read_published(&client.client, major_version, publications).await?;
    let oids: Vec<u32> = published.iter().map(|table| table.oid).collect();
    let tables = catalog::read_tables(&client.client, &oids).await?;
    let types = catalog::read_types(&client.client, tables.iter().flat_map(|t| t.columns.iter().map(|c| c.type_oid))).await?;
    let mut tasks = Vec::with_capacity(tables.len());
    for remote in tables {
        let Some(published) = published.iter().find(|p| p.oid == remote.oid) else { continue };
        let is_published = |name: &String, generated: bool| match &published.columns {
            // Before version 18 generated columns are never sent, whatever is listed.
            Some(names) => names.contains(name) && (!generated || major_version >= 18),
            None => !generated,
        };
        let columns = remote
            .columns
            .iter()
            .filter(|c| is_published(&c.name, c.generated))
            .map(|c| SourceColumn { key: false, name: c.name.clone(), type_oid: c.type_oid, typmod: c.typmod })
            .collect();
        let relation = SourceRelation {
            oid: remote.oid,
            schema: remote.schema.clone(),
            name: remote.name.clone(),
            identity: ReplicaIdentity::Nothing,
            columns,
        };
        tasks.push(Task { published: published.clone(), remote, relation });
    }
    Ok((tasks, types))
}

/// Sends the tables' rows to a thread that writes them into one commit, and waits for it. Returns the number of rows.
async fn copy_tables(context: &Arc<Context>, client: &CatalogClient, tasks: Vec<Task>, types: RemoteTypes, point: Lsn) -> Result<u64> {
    let queries: Vec<String> = tasks.iter().map(copy_query).collect();
    let (sender, receiver) = mpsc::channel(PIECE_COUNT_MAX);
    let writing = Arc::clone(context);
    let writer = tokio::task::spawn_blocking(move || write_tables(&writing, &tasks, &types, receiver, point));
    let sent = send_tables(client, &queries, sender).await;
    let written = writer.await.unwrap_or_else(|e| Err(Error::Setup(format!("the copy's writer failed: {e}"))));
    // Where the sender failed, the writer only knows that rows stopped coming.
    sent?;
    written
}

pub(crate) async fn send_tables(client: &CatalogClient, queries: &[String], sender: mpsc::Sender<Piece>) -> Result<()> {
    let failed = |e| Error::from_sql("copy from the primary", e);
    for query in queries {
        let rows = client.client.copy_out(query.as_str()).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        let mut piece = BytesMut::with_capacity(PIECE_SIZE);
        while let Some(row) = rows.next().await {
            piece.extend_from_slice(&row.map_err(failed)?);
            if piece.len() >= PIECE_SIZE {
                if sender.send(Piece::Rows(piece.split().freeze())).await.is_err() {
                    return Ok(());
                }
                piece.reserve(PIECE_SIZE);
            }
        }
        // The writer's own error tells why it went away.
        if sender.send(Piece::Rows(piece.freeze())).await.is_err() || sender.send(Piece::End).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

pub(crate) fn copy_query(task: &Task) -> String {
    let table = format!("{}.{}", quote_identifier(&task.relation.schema), quote_identifier(&task.relation.name));
    let columns = task.relation.columns.iter().map(|c| quote_identifier(&c.name)).collect::<Vec<_>>().join(", ");
    // A partitioned table is published as a whole or not at all; children of other tables are published on their own.
    let only = if task.remote.partitioned { "" } else { "ONLY " };
    let filter = match &task.published.filters {
        Some(filters) => format!(" WHERE {}", filters.iter().map(|f| format!("({f})")).collect::<Vec<_>>().join(" OR ")),
        None => String::new(),
    };
    format!("COPY (SELECT {columns} FROM {only}{table}{filter}) TO STDOUT")
}

fn write_tables(context: &Context, tasks: &[Task], types: &RemoteTypes, receiver: mpsc::Receiver<Piece>, point: Lsn) -> Result<u64> {
    let author = apply::author(&context.config);
    let settings = apply::pinned_settings();
    if context.config.commit_mode == CommitMode::EachTransaction {
        let names: Vec<(String, String)> = tasks.iter().map(|t| (t.relation.schema.clone(), t.relation.name.clone())).collect();
        adopt_tables(&context.branch, &names, &author)?;
    }
    // Rows that are here already are either a copy of ours whose slot was never made, or somebody's work.
    let has_own_copy = context.records.position(&context.branch)?.0.is_some();
    let mut writer = Writer::begin(&context.branch, context.config.commit_mode, true)?;
    let mut pieces = Pieces::new(receiver);
    let mut row_count = 0;
    for task in tasks {
        let name = task.relation.qualified_name();
        context.status.update_table(&name, |table| table.state = TableState::Copying);
        let mapping = local_table(context, &mut writer, task, types, &settings)?;
        if !has_own_copy && writer.root().table(mapping.table).is_some_and(|data| !data.is_empty()) {
            return Err(Error::Setup(format!(
                "table \"{name}\" has rows here already, and the initial copy would replace them; empty it, or create the slot and set initial_copy to never"
            )));
        }
        tracing::info!(table = %name, "copying");
        let copied = write_rows(&mut writer, &mapping, &mut pieces, &settings)?;
        row_count += copied;
        context.status.update_table(&name, |table| {
            table.state = TableState::Ready;
            table.copied = copied;
        });
        tracing::info!(table = %name, rows = copied, "copied");
    }
    catalog::connect_foreign_keys(&context.store, &mut writer, tasks.iter().map(|task| &task.remote))?;
    catalog::warn_missing_foreign_keys(&writer, tasks.iter().map(|task| &task.remote));
    let now = Timestamp::now();
    let meta = CommitMeta {
        author: author.clone(),
        author_time: now,
        committer: author,
        commit_time: now,
        message: format!("initial copy of {} tables at {point}", tasks.len()),
        source: Some(Source { end_lsn: point, commit_lsn: point, xid: 0, commit_time: now, ..Source::default() }),
    };
    writer.commit(meta)?;
    for task in tasks {
        let definition = Definition { table: Some(task.remote.clone()), types: RemoteTypes::default(), may_create: false };
        context.records.set_relation(task.relation.oid, Some(&KnownRelation::new(&task.relation, &definition, None)))?;
    }
    Ok(row_count)
}

pub(crate) fn local_table(
    context: &Context,
    writer: &mut Edit,
    task: &Task,
    types: &RemoteTypes,
    settings: &TextSettings,
) -> Result<Mapping> {
    let relation = &task.relation;
    let existing = writer.root().catalog().table_by_name(&relation.schema, &relation.name).map(|table| table.oid);
    let oid = match existing {
        Some(oid) => oid,
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

/// Makes the rows that arrive the table's only ones, in bulk.
pub(crate) fn write_rows(edit: &mut Edit, mapping: &Mapping, pieces: &mut Pieces, settings: &TextSettings) -> Result<u64> {
    let mut failure = None;
    let replaced = edit.replace_rows(mapping.table, &mut arriving_rows(mapping, pieces, settings, &mut failure));
    match (failure, replaced) {
        (Some(error), _) => Err(error),
        (None, Ok(count)) => Ok(count),
        (None, Err(error)) => Err(not_copied(mapping, &error)),
    }
}

/// Adds the rows that arrive to those that the table has.
pub(crate) fn add_rows(edit: &mut Edit, mapping: &Mapping, pieces: &mut Pieces, settings: &TextSettings) -> Result<u64> {
    let mut failure = None;
    let mut count = 0;
    let mut added = Ok(());
    for row in arriving_rows(mapping, pieces, settings, &mut failure) {
        added = row.and_then(|row| edit.insert(mapping.table, row));
        if added.is_err() {
            break;
        }
        count += 1;
    }
    match (failure, added) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(count),
        (None, Err(error)) => Err(not_copied(mapping, &error)),
    }
}

fn not_copied(mapping: &Mapping, error: &StoreError) -> Error {
    let detail = match error {
        StoreError::DuplicateKey { key, .. } => format!("; DETAIL: Key {key} already exists."),
        _ => String::new(),
    };
    Error::Setup(format!("could not copy table \"{}\": {error}{detail}", mapping.name))
}

/// The rows of the table under way; ends early with the reason in `failure`.
fn arriving_rows<'a>(
    mapping: &'a Mapping,
    pieces: &'a mut Pieces,
    settings: &'a TextSettings,
    failure: &'a mut Option<Error>,
) -> impl Iterator<Item = std::result::Result<Row, StoreError>> + 'a {
    std::iter::from_fn(move || {
        if failure.is_some() {
            return None;
        }
        let error = match pieces.next_line() {
            Ok(None) => return None,
            Ok(Some(line)) => match parse_line(&line, mapping, settings) {
                Ok(row) => return Some(Ok(row)),
                Err(what) => Error::Setup(format!("could not copy table \"{}\": {what}", mapping.name)),
            },
            Err(error) => error,
        };
        *failure = Some(error);
        Some(Err(StoreError::Invalid("the copy failed".into())))
    })
}

/// Lines of the table under way.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    current: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<Piece>) -> Self {
        Pieces { receiver, current: Bytes::new() }
    }

    /// The next line without its end; `None` at the end of the table.
    fn next_line(&mut self) -> Result<Option<Bytes>> {
        loop {
            if !self.current.is_empty() {
                let Some(end) = self.current.iter().position(|byte| *byte == b'\n') else {
                    return Err(Error::Protocol("a row of COPY without its end".into()));
                };
                let mut line = self.current.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            match self.receiver.blocking_recv() {
                Some(Piece::Rows(piece)) => self.current = piece,
                Some(Piece::End) => return Ok(None),
                None => {
                    let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the rows stopped coming");
                    return Err(Error::Connection { action: "copy from the primary", source });
                }
            }
        }
    }
}

/// A row from a line of COPY's text format.
fn parse_line(line: &[u8], mapping: &Mapping, settings: &TextSettings) -> std::result::Result<Row, String> {
    let mut row = mapping.new_row()?;
    let mut fields = line.split(|byte| *byte == b'\t');
    let mut plain = Vec::new();
    for target in &mapping.targets {
        let field = fields.next().ok_or("a row with too few columns")?;
        let Some(target) = target else { continue };
        if field == b"\\N" {
            continue;
        }
        let bytes = if field.contains(&b'\\') {
            unescape(field, &mut plain)?;
            &plain
        } else {
            field
        };
        let in_column = |what: String| {
            let name = mapping.schema.columns.get(target.position).map_or("?", |c| c.name.as_str());
            format!("column \"{name}\": {what}")
        };
        let text = std::str::from_utf8(bytes).map_err(|_| in_column("the value is not valid UTF-8".into()))?;
        row[target.position] = target
            .data_type
            .parse(text, settings)
            .map_err(|_| in_column(format!("the primary's value is not valid for type {} here", target.data_type.sql_name())))?;
    }
    // A table without columns has one empty field.
    if fields.next().is_some() && !mapping.targets.is_empty() {
        return Err("a row with too many columns".into());
    }
    mapping.complete_copied(&mut row)?;
    mapping.check_not_null(&row)?;
    Ok(row)
}

/// Takes COPY's backslash sequences out.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), String> {
    out.clear();
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(other) => out.push(other),
            None => return Err("a value that ends with a backslash".into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_copy_are_taken_out() {
        let mut out = Vec::new();
        unescape(br"a\tb\\n\n\v", &mut out).unwrap();
        assert_eq!(out, b"a\tb\\n\n\x0b");
        assert!(unescape(br"a\", &mut out).is_err());
    }

    #[test]
    fn temporary_names_fit_and_differ() {
        let long = "s".repeat(63);
        let name = temporary_slot_name(&long);
        assert_eq!(name.len(), 63);
        assert_ne!(name, temporary_slot_name(&long));
        assert!(temporary_slot_name("slot").starts_with("slot_copy_"));
    }
}
