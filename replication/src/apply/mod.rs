//! The applier: source transactions in, commits out.
//!
//! One thread takes batches of whole messages from the reader's queue. A transaction's messages are kept, as slices of the received bytes, until its Commit arrives, and
//! are then applied in one short stroke, so that queries hardly ever wait. A transaction that outgrows
//! [`BUFFER_SIZE_MAX`] is applied as it comes, beside the readers, and becomes visible with its Commit. What the primary sends of transactions that
//! still run is kept (`spool`) until their Stream Commit (`streaming`), and what it has prepared until that is committed (`two_phase`).
//!
//! *Invariants:* nothing of a transaction is visible before its Commit was applied. A transaction is applied if and only if its commit record lies at or
//! after the position that the store holds, so one that is sent again is skipped. Relation messages are read even in transactions that are skipped, since
//! the primary sends each only once per connection. What a subscription made by SQL leaves out (`subscribed`) is passed over as if it were not sent.

mod adopt;
mod captured;
mod change;
mod columns;
mod constant;
mod context;
mod definition;
mod details;
mod gathered;
mod joining;
mod prepared;
mod relation;
mod spool;
mod stopped;
mod streaming;
mod subscribed;
mod tables;
#[cfg(test)]
mod tests;
mod two_phase;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strandline_storage::store::{Branch, Store};
use strandline_storage::value::TextSettings;
use strandline_storage::{CommitId, CommitMeta, Error as StoreError, Identity, Lsn, Source, Timestamp};
use tokio::runtime::Handle;

use crate::capture::{self, Keys};
use crate::catalog::{CatalogClient, Maker};
use crate::client::{Batch, StreamMessage, StreamMessages};
use crate::config::{CommitMode, Config};
use crate::conflict::CONFLICTS_LOGGED_MAX;
use crate::error::{Error, Result, is_lost};
use crate::pgoutput::{Begin, Commit, Message, MessageKind, Truncate};
use crate::progress::Progress;
use crate::source_record::SourceRecords;
use crate::status::Status;
use crate::stream::Queue;

use change::{Conflicts, Place};

pub(crate) use adopt::adopt_tables;
pub(crate) use definition::{Definition, KnownRelation};
pub(crate) use details::follow_type;
pub(crate) use joining::{CopiedTable, Joining};
pub(crate) use relation::{Mapping, SourceColumn, SourceRelation, Target};
pub(crate) use writer::Writer;

use joining::Joins;
use subscribed::Subscribed;

use prepared::{PreparedFile, PreparedTransactions};
use spool::{Spool, Spools};

/// A transaction with more bytes of messages than this is applied as it comes.
const BUFFER_SIZE_MAX: usize = 4 << 20;

/// How often an idle stream's position is made durable at most, unless the primary asks.
const IDLE_RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// How often an idle stream looks for tables that can join.
const JOIN_INTERVAL: Duration = Duration::from_millis(20);

/// How often counters go to the shared status.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// How often a transaction is started over because of tables that had to be made or of local changes at the same moment.
const ATTEMPT_COUNT_MAX: usize = 1000;

/// How often one message of a large transaction is tried again after what it needs was had: more than the tables of any TRUNCATE.
const LARGE_ATTEMPT_COUNT_MAX: usize = 10_000;

/// What the applier works with.
pub(crate) struct Context {
    pub(crate) store: Arc<Store>,
    pub(crate) branch: Arc<Branch>,
    pub(crate) config: Arc<Config>,
    pub(crate) records: SourceRecords,
    pub(crate) progress: Arc<Progress>,
    pub(crate) status: Arc<Status>,
    pub(crate) runtime: Handle,
    /// Tables that are copied while the stream goes on.
    pub(crate) joining: Joining,
}

impl Context {
    pub(crate) fn maker(&self) -> Maker<'_> {
        Maker { store: &self.store, expressions: self.config.expressions.as_deref() }
    }
}

/// One connection's applier.
pub(crate) struct Applier {
    context: Arc<Context>,
    author: Identity,
    changer: change::Changer,
    relations: HashMap<u32, Entry>,
    /// Relations as they were before the transaction under way, to go back to when it is started over.
    replaced_relations: Vec<(u32, Option<Entry>)>,
    /// Names of types that are not built in.
    types: HashMap<u32, (String, String)>,
    /// Definitions read for tables to be created or compared in the next attempt.
    definitions: HashMap<u32, Arc<Definition>>,
    /// The primary's tables as they were last replicated.
    known: HashMap<u32, KnownRelation>,
    /// What of it the transaction under way changes; `None`: it goes.
    known_changes: HashMap<u32, Option<KnownRelation>>,
    catalog: Option<CatalogClient>,
    /// What proves a captured command to be one; read when the first one comes.
    capture_keys: Keys,
    /// Tables (schema, name) that only the working set has, once they were looked for in the transaction under way.
    uncommitted: Option<HashSet<(String, String)>>,
    current: Current,
    /// Transactions that are under way on the primary.
    spools: Spools,
    /// Transactions that are prepared on the primary.
    prepared: PreparedTransactions,
    /// Transactions whose commit record lies before this are here already.
    position: Lsn,
    last_commit: Option<CommitId>,
    /// What is left out of the stream.
    subscribed: Subscribed,
    /// What of it is kept for tables that are being copied.
    joins: Joins,
    /// A table that was stopped and is to be copied anew.
    renewing: Option<String>,
    /// The primary has nothing for us before this.
    idle: Lsn,
    idle_recorded_at: Instant,
    status_at: Instant,
    transaction_count: u64,
}

#[derive(Clone)]
struct Entry {
    source: Arc<SourceRelation>,
    /// The subscribed table that it is.
    listed: Option<u32>,
    mapping: Option<Arc<Mapping>>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    inserted: u64,
    updated: u64,
    deleted: u64,
    truncated: u64,
}

/// Where in a transaction the stream is.
enum Current {
    Outside,
    /// Its messages are kept for its Commit.
    Buffering {
        begin: Begin,
        parts: Vec<Bytes>,
        size: usize,
    },
    /// It is large and applied as it comes.
    Running(Box<Running>),
    /// It is here already.
    Skipping,
    /// A block of a transaction that is under way on the primary.
    Block {
        xid: u32,
    },
    /// Its messages are kept for its Prepare.
    Preparing {
        xid: u32,
    },
}

/// Where the messages of a whole transaction are.
#[derive(Clone, Copy)]
enum Stored<'a> {
    Parts(&'a [Bytes]),
    Spool(&'a Spool),
    Prepared(&'a PreparedFile),
}

impl Stored<'_> {
    /// Calls `take` with every message in order until it fails.
    fn read<E: From<Error>>(&self, mut take: impl FnMut(Lsn, &[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Stored::Spool(spool) => spool.read(take),
            Stored::Prepared(file) => file.read(take),
            Stored::Parts(parts) => {
                for message in parts.iter().flat_map(|part| StreamMessages::new(part)) {
                    if let StreamMessage::Data { lsn, payload } = message {
                        take(lsn, payload)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// A transaction being applied.
struct Running {
    begin: Begin,
    origin: Option<String>,
    /// Nothing of it is applied.
    skipped: bool,
    /// What the application said about the transaction, as JSON.
    application: Option<String>,
    large: bool,
    /// Absent until the first change.
    writer: Option<Writer>,
    change_count: u64,
}

/// Why a transaction did not go through at once.
enum Interruption {
    /// The table is not here, and its definition must be had first.
    TableMissing {
        source: Arc<SourceRelation>,
        /// The change is of a row that it had before.
        is_filled: bool,
    },
    /// The table is new or changed on the primary, and what its catalog says must be had first.
    DefinitionMissing(Arc<SourceRelation>),
    /// A table is to be made that may be in the working set.
    TableNew(Arc<SourceRelation>),
    /// Somebody else changed the same rows.
    Conflict(String),
    /// The table cannot follow; with this error if it is not stopped alone.
    Unfollowed {
        source: Arc<SourceRelation>,
        error: Error,
    },
    Failed(Error),
}

impl Interruption {
    /// An update or deletion of what is not here: the row, and maybe others, are from before the table was published.
    fn of_row_that_was_there(self) -> Self {
        match self {
            Interruption::TableMissing { source, .. } => Interruption::TableMissing { source, is_filled: true },
            other => other,
        }
    }
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Self {
        Interruption::Failed(error)
    }
}

impl Applier {
    /// # Errors
    /// `Store` for records that are damaged.
    pub(crate) fn new(context: Arc<Context>, position: Lsn, last_commit: Option<CommitId>) -> Result<Self> {
        let changer = change::Changer::new(context.config.conflicts);
        let author = author(&context.config);
        Applier::settle_definitions(&context, position)?;
        let known = context.records.relations()?;
        let subscribed = Subscribed::open(&context.config, &context.records)?;
        let spools = Spools::new(context.config.spool_folder.clone(), context.config.stream_memory_max)?;
        let prepared = PreparedTransactions::open(context.config.prepared_folder.clone())?;
        let mut applier = Applier {
            context,
            author,
            changer,
            relations: HashMap::new(),
            replaced_relations: Vec::new(),
            types: HashMap::new(),
            definitions: HashMap::new(),
            known,
            known_changes: HashMap::new(),
            catalog: None,
            capture_keys: Keys::default(),
            uncommitted: None,
            current: Current::Outside,
            spools,
            prepared,
            position,
            last_commit,
            subscribed,
            joins: Joins::default(),
            renewing: None,
            idle: position,
            idle_recorded_at: Instant::now(),
            status_at: Instant::now(),
            transaction_count: 0,
        };
        applier.forget_committed()?;
        Ok(applier)
    }

    /// Applies what comes until the reader ends or a change cannot be applied. An incomplete transaction is dropped.
    pub(crate) fn run(mut self, input: &Receiver<Batch>, queue: &Queue) -> Result<()> {
        loop {
            let wait = if self.context.joining.has_copied() { JOIN_INTERVAL } else { IDLE_RECORD_INTERVAL };
            match input.recv_timeout(wait) {
                Ok(batch) => {
                    let size = batch.bytes.len();
                    let applied = self.apply_batch(&batch).and_then(|()| self.join_copied()).and_then(|()| self.begin_renewal());
                    drop(batch);
                    queue.release(size);
                    if applied.is_err() {
                        self.show_status(true);
                    }
                    applied?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.record_idle(false)?;
                    self.join_copied()?;
                    self.show_status(true);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.record_idle(true)?;
                    self.show_status(true);
                    return Ok(());
                }
            }
        }
    }

    fn apply_batch(&mut self, batch: &Batch) -> Result<()> {
        let mut messages = batch.messages();
        // Where the part of the batch begins that belongs to the buffered transaction.
        let mut part_start = 0;
        loop {
            let at = messages.offset();
            match messages.next() {
                None => break,
                Some(StreamMessage::Keepalive { sent }) => {
                    // Within a transaction the LSN may lie beyond its commit, which is not applied yet.
                    if matches!(self.current, Current::Outside) {
                        self.idle = self.idle.max(sent);
                    }
                }
                Some(StreamMessage::Data { lsn, payload }) => {
                    let was_outside = matches!(self.current, Current::Outside);
                    self.take_message(lsn, payload, batch, part_start..at)?;
                    if was_outside {
                        // If this message began something, that goes on behind it.
                        part_start = messages.offset();
                    }
                }
            }
        }
        match &mut self.current {
            Current::Buffering { parts, size, .. } => {
                parts.push(batch.bytes.slice(part_start..));
                *size += batch.bytes.len() - part_start;
                if *size > BUFFER_SIZE_MAX {
                    self.start_large()?;
                }
            }
            Current::Block { xid } => self.spools.append_streamed(*xid, &batch.bytes[part_start..])?,
            Current::Preparing { xid } => self.spools.append_whole(*xid, &batch.bytes[part_start..])?,
            Current::Outside | Current::Running(_) | Current::Skipping => {}
        }
        self.record_idle(batch.reply_requested || self.subscribed.waits())?;
        self.show_status(false);
        Ok(())
    }

    /// One message of the stream; `part` is what of the batch lies before it and belongs to the transaction or block under way.
    fn take_message(&mut self, lsn: Lsn, payload: &[u8], batch: &Batch, part: std::ops::Range<usize>) -> Result<()> {
        let kind = MessageKind::of(payload);
        match (&mut self.current, kind) {
            (Current::Outside, MessageKind::Begin) => {
                let Message::Begin(begin) = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                tracing::debug!(xid = begin.xid, lsn = %begin.commit_lsn, "begin");
                self.current = if begin.commit_lsn < self.position {
                    Current::Skipping
                } else {
                    Current::Buffering { begin, parts: Vec::new(), size: 0 }
                };
                Ok(())
            }
            (Current::Outside, MessageKind::Other) => match decode(lsn, payload)? {
                Message::Logical(message) if !message.transactional => Ok(()),
                _ => Err(out_of_place(lsn, payload)),
            },
            (Current::Outside | Current::Skipping, MessageKind::Description) => self.describe(lsn, payload, false),
            (Current::Skipping, MessageKind::Commit) => {
                let Message::Commit(commit) = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                tracing::debug!(lsn = %commit.commit_lsn, "skipped a transaction that is here already");
                self.current = Current::Outside;
                Ok(())
            }
            (Current::Skipping, MessageKind::Row | MessageKind::Other) => Ok(()),
            (Current::Buffering { .. }, MessageKind::Commit) => {
                let Message::Commit(commit) = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                let Current::Buffering { begin, mut parts, .. } = std::mem::replace(&mut self.current, Current::Outside) else {
                    return Err(out_of_place(lsn, payload));
                };
                parts.push(batch.bytes.slice(part));
                self.apply_buffered(&begin, Stored::Parts(&parts), &commit)
            }
            (Current::Running(_), MessageKind::Commit) => {
                let Message::Commit(commit) = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                let Current::Running(running) = std::mem::replace(&mut self.current, Current::Outside) else {
                    return Err(out_of_place(lsn, payload));
                };
                self.replaced_relations.clear();
                let begin = running.begin;
                self.finish(*running, &commit).map_err(|interruption| self.give_up(&begin, interruption))
            }
            (Current::Outside, MessageKind::Streaming) => self.take_streaming(lsn, payload),
            (Current::Block { xid }, MessageKind::Streaming) => {
                let xid = *xid;
                let Message::StreamStop = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                self.current = Current::Outside;
                self.spools.append_streamed(xid, &batch.bytes[part])
            }
            (Current::Outside, MessageKind::TwoPhase) => self.take_two_phase(lsn, payload),
            (Current::Preparing { xid }, MessageKind::TwoPhase) => {
                let xid = *xid;
                let Message::Prepare(prepare) = decode(lsn, payload)? else { return Err(out_of_place(lsn, payload)) };
                self.current = Current::Outside;
                self.spools.append_whole(xid, &batch.bytes[part])?;
                self.prepare(xid, &prepare)
            }
            (Current::Outside, MessageKind::Commit | MessageKind::Row) => Err(out_of_place(lsn, payload)),
            (_, MessageKind::Begin | MessageKind::Streaming | MessageKind::TwoPhase) => Err(out_of_place(lsn, payload)),
            (Current::Block { .. } | Current::Preparing { .. }, MessageKind::Commit) => Err(out_of_place(lsn, payload)),
            (Current::Buffering { .. } | Current::Block { .. } | Current::Preparing { .. }, _) => Ok(()),
            (Current::Running(_), _) => {
                let Current::Running(mut running) = std::mem::replace(&mut self.current, Current::Outside) else {
                    return Err(out_of_place(lsn, payload));
                };
                self.apply_large_message(&mut running, lsn, payload)?;
                self.current = Current::Running(running);
                Ok(())
            }
        }
    }

    /// Applies a transaction whose messages are all here.
    fn apply_buffered(&mut self, begin: &Begin, stored: Stored<'_>, commit: &Commit) -> Result<()> {
        let mut attempt_count = 0;
        self.known_changes.clear();
        loop {
            attempt_count += 1;
            self.replaced_relations.clear();
            let interruption = match self.try_buffered(begin, stored, commit) {
                Ok(()) => return Ok(()),
                Err(interruption) => interruption,
            };
            match interruption {
                Interruption::TableMissing { source, is_filled } if attempt_count < ATTEMPT_COUNT_MAX => {
                    self.provide_table(&source, begin.xid, is_filled)?;
                }
                Interruption::DefinitionMissing(source) if attempt_count < ATTEMPT_COUNT_MAX => self.read_definition(&source, begin.xid)?,
                Interruption::TableNew(source) if attempt_count < ATTEMPT_COUNT_MAX => self.look_for(&source)?,
                Interruption::Conflict(_) if attempt_count < ATTEMPT_COUNT_MAX => {
                    tracing::debug!(xid = begin.xid, "a local change came first; trying again");
                }
                Interruption::Unfollowed { source, error } if self.may_stop_tables() => {
                    self.stop_table(begin, &source, error)?;
                    // It is another transaction from here on, with fewer tables.
                    attempt_count = 0;
                }
                other => return Err(self.give_up(begin, other)),
            }
            // The messages are about to be read again from the first one.
            self.known_changes.clear();
            self.restore_relations();
        }
    }

    /// Goes back to the relations as they were before the transaction.
    fn restore_relations(&mut self) {
        for (oid, entry) in std::mem::take(&mut self.replaced_relations).into_iter().rev() {
            match entry {
                Some(entry) => self.relations.insert(oid, entry),
                None => self.relations.remove(&oid),
            };
        }
    }

    /// Applies a transaction that is kept, at its end.
    fn apply_kept(&mut self, begin: &Begin, stored: Stored<'_>, size: u64, commit: &Commit) -> Result<()> {
        tracing::debug!(xid = begin.xid, lsn = %begin.commit_lsn, bytes = size, "a transaction that was kept");
        if size <= BUFFER_SIZE_MAX as u64 {
            return self.apply_buffered(begin, stored, commit);
        }
        let running = loop {
            match self.apply_stored_large(*begin, stored) {
                // All of it is there still.
                Err(Error::TableStopped { .. }) => {}
                applied => break applied?,
            }
        };
        self.finish(running, commit).map_err(|interruption| self.give_up(begin, interruption))
    }

    fn try_buffered(&mut self, begin: &Begin, stored: Stored<'_>, commit: &Commit) -> Result<(), Interruption> {
        let mut running = self.begin(*begin, false)?;
        stored.read(|lsn, payload| self.apply_message(&mut running, lsn, payload))?;
        self.finish(running, commit)
    }

    /// Turns the buffered transaction into one that is applied as it comes.
    fn start_large(&mut self) -> Result<()> {
        let Current::Buffering { begin, parts, .. } = std::mem::replace(&mut self.current, Current::Outside) else { return Ok(()) };
        tracing::debug!(xid = begin.xid, "a large transaction is applied as it comes");
        self.current = Current::Running(Box::new(self.apply_stored_large(begin, Stored::Parts(&parts))?));
        Ok(())
    }

    /// Applies all that is there of a large transaction, which does not start over, and leaves it open.
    fn apply_stored_large(&mut self, begin: Begin, stored: Stored<'_>) -> Result<Running> {
        self.replaced_relations.clear();
        self.known_changes.clear();
        let mut running = self.begin(begin, true)?;
        stored.read(|lsn, payload| self.apply_large_message(&mut running, lsn, payload))?;
        Ok(running)
    }

    fn apply_large_message(&mut self, running: &mut Running, lsn: Lsn, payload: &[u8]) -> Result<()> {
        for _ in 0..LARGE_ATTEMPT_COUNT_MAX {
            match self.apply_message(running, lsn, payload) {
                Ok(()) => return Ok(()),
                Err(Interruption::DefinitionMissing(source)) => self.read_definition(&source, running.begin.xid)?,
                Err(Interruption::TableMissing { source, is_filled }) => {
                    if self.context.config.commit_mode == CommitMode::EachTransaction && self.is_in_working_set(running, &source) {
                        // HEAD must change under this transaction, so it has to be sent again.
                        running.writer = None;
                        self.provide_table(&source, running.begin.xid, is_filled)?;
                        return Err(busy(&running.begin, "a table that was made by hand had to be committed first"));
                    }
                    self.read_definition_to_create(&source, running.begin.xid, is_filled)?;
                }
                Err(Interruption::Unfollowed { source, error }) if self.may_stop_tables() => {
                    running.writer = None;
                    self.stop_table(&running.begin, &source, error)?;
                    return Err(Error::TableStopped { table: source.qualified_name() });
                }
                Err(interruption) => return Err(self.give_up(&running.begin, interruption)),
            }
        }
        self.apply_message(running, lsn, payload).map_err(|i| self.give_up(&running.begin, i))
    }

    fn begin(&mut self, begin: Begin, large: bool) -> Result<Running> {
        self.begin_gathering(&begin)?;
        let skipped = self.subscribed.skips(begin.commit_lsn);
        if skipped {
            tracing::info!(xid = begin.xid, lsn = %begin.commit_lsn, "skipping a transaction");
        }
        Ok(Running { begin, origin: None, skipped, application: None, large, writer: None, change_count: 0 })
    }

    /// Says whether a change of this table in this transaction is for us.
    fn is_wanted(&self, running: &Running, relation: u32) -> bool {
        let listed = self.relations.get(&relation).and_then(|entry| entry.listed);
        !running.skipped && self.takes(listed, running.begin.commit_lsn)
    }

    /// Says whether a change of this subscribed table is applied.
    fn takes(&self, listed: Option<u32>, commit: Lsn) -> bool {
        match self.joins.entering {
            Some(entering) => listed == Some(entering),
            None => self.subscribed.takes(listed, commit),
        }
    }

    /// One message within a transaction, other than Begin and Commit.
    fn apply_message(&mut self, running: &mut Running, lsn: Lsn, payload: &[u8]) -> Result<(), Interruption> {
        if running.change_count == 0 {
            // What an attempt met that was given up is met again.
            self.changer.conflicts = Conflicts::default();
        }
        let place = Place { xid: running.begin.xid, lsn, time: running.begin.commit_time };
        match decode(lsn, payload)? {
            Message::Insert(insert) => {
                if !self.is_wanted(running, insert.relation) {
                    return self.gather(running, insert.relation, lsn, payload);
                }
                let mapping = self.table(running, insert.relation, lsn)?;
                tracing::debug!(table = %mapping.name, %lsn, "insert");
                let writer = writer_of(running, &self.context)?;
                self.changer.insert(writer, &mapping, place, &insert).map_err(|e| self.refused(&running.begin, insert.relation, lsn, e))?;
                self.count(insert.relation, |counts| counts.inserted += 1);
            }
            Message::Update(update) => {
                if !self.is_wanted(running, update.relation) {
                    return self.gather(running, update.relation, lsn, payload);
                }
                let mapping = self.table(running, update.relation, lsn).map_err(Interruption::of_row_that_was_there)?;
                tracing::debug!(table = %mapping.name, %lsn, "update");
                let writer = writer_of(running, &self.context)?;
                self.changer.update(writer, &mapping, place, &update).map_err(|e| self.refused(&running.begin, update.relation, lsn, e))?;
                self.count(update.relation, |counts| counts.updated += 1);
            }
            Message::Delete(delete) => {
                if !self.is_wanted(running, delete.relation) {
                    return self.gather(running, delete.relation, lsn, payload);
                }
                let mapping = self.table(running, delete.relation, lsn).map_err(Interruption::of_row_that_was_there)?;
                tracing::debug!(table = %mapping.name, %lsn, "delete");
                let writer = writer_of(running, &self.context)?;
                self.changer.delete(writer, &mapping, place, &delete).map_err(|e| self.refused(&running.begin, delete.relation, lsn, e))?;
                self.count(delete.relation, |counts| counts.deleted += 1);
            }
            Message::Truncate(mut truncate) => {
                for relation in &truncate.relations {
                    if !self.is_wanted(running, *relation) {
                        self.gather(running, *relation, lsn, payload)?;
                    }
                }
                truncate.relations.retain(|relation| self.is_wanted(running, *relation));
                if truncate.relations.is_empty() {
                    return Ok(());
                }
                self.truncate(running, lsn, &truncate)?;
            }
            Message::Relation(_) | Message::Type(_) => return Ok(self.describe(lsn, payload, true)?),
            Message::Origin(origin) => {
                tracing::debug!(origin = origin.name, "origin");
                running.skipped |= self.subscribed.only_local;
                running.origin = Some(origin.name.to_owned());
                return Ok(());
            }
            Message::Logical(message) if message.prefix == capture::PREFIX => {
                self.apply_captured(running, lsn, &message)?;
                return self.gather_for_all(running, lsn, payload);
            }
            Message::Logical(message) => {
                if let Some(application) = context::of_message(&message, running.begin.xid) {
                    running.application = Some(application);
                }
                return Ok(());
            }
            _ => return Err(Interruption::Failed(out_of_place(lsn, payload))),
        }
        running.change_count += 1;
        Ok(())
    }

    /// All tables are looked up before the first is emptied. The primary names every published table that CASCADE reached, so nothing
    /// cascades further here.
    fn truncate(&mut self, running: &mut Running, lsn: Lsn, truncate: &Truncate) -> Result<(), Interruption> {
        let mut mappings = Vec::with_capacity(truncate.relations.len());
        for relation in &truncate.relations {
            mappings.push((*relation, self.table(running, *relation, lsn)?));
        }
        for (relation, mapping) in mappings {
            tracing::debug!(table = %mapping.name, %lsn, cascade = truncate.cascade, restart_identity = truncate.restart_identity, "truncate");
            let writer = writer_of(running, &self.context)?;
            writer.truncate(mapping.table).map_err(|e| self.refused(&running.begin, relation, lsn, e.into()))?;
            self.count(relation, |counts| counts.truncated += 1);
        }
        Ok(())
    }

    /// A Relation or Type message.
    fn describe(&mut self, lsn: Lsn, payload: &[u8], within_transaction: bool) -> Result<()> {
        match decode(lsn, payload)? {
            Message::Relation(relation) => {
                let source = SourceRelation::new(&relation);
                tracing::debug!(table = %source.qualified_name(), oid = source.oid, "relation");
                let old = self.relations.get(&source.oid);
                if old.is_some_and(|entry| *entry.source == source) {
                    return Ok(());
                }
                let counts = old.map(|entry| entry.counts).unwrap_or_default();
                let oid = source.oid;
                let listed = self.subscribed.find(&source, self.known.contains_key(&oid), &self.context.records)?;
                let replaced = self.relations.insert(oid, Entry { source: Arc::new(source), listed, mapping: None, counts });
                if within_transaction {
                    self.replaced_relations.push((oid, replaced));
                }
            }
            Message::Type(r#type) => {
                tracing::debug!(schema = r#type.schema, name = r#type.name, oid = r#type.oid, "type");
                self.types.insert(r#type.oid, (r#type.schema.to_owned(), r#type.name.to_owned()));
            }
            _ => return Err(out_of_place(lsn, payload)),
        }
        Ok(())
    }

    /// Commits what was applied, and moves the position.
    fn finish(&mut self, running: Running, commit: &Commit) -> Result<(), Interruption> {
        let Running { begin, origin, application, writer, change_count, .. } = running;
        let end = commit.end_lsn;
        let Some(writer) = writer.filter(|_| change_count > 0) else {
            // Nothing of it is for us; the position may pass it.
            self.end_gathering(&begin);
            tracing::debug!(xid = begin.xid, lsn = %commit.commit_lsn, "empty transaction");
            self.idle = self.idle.max(end);
            if self.subscribed.skips(begin.commit_lsn) {
                self.record_idle(true)?;
                tracing::info!(xid = begin.xid, lsn = %begin.commit_lsn, "skipped a transaction");
                self.subscribed.end_skip(&self.context.records)?;
            }
            return Ok(());
        };
        let source = Source {
            end_lsn: end,
            commit_lsn: commit.commit_lsn,
            xid: begin.xid,
            commit_time: commit.commit_time,
            origin,
            context: application,
            subscription: self.context.config.subscription_oid(),
        };
        let meta = CommitMeta {
            author: self.author.clone(),
            author_time: commit.commit_time,
            committer: self.author.clone(),
            commit_time: Timestamp::now(),
            message: format!("replicated transaction {} at {}", begin.xid, commit.commit_lsn),
            source: Some(source),
        };
        self.note_definitions(begin.commit_lsn, begin.xid)?;
        let (id, position) = writer.commit(meta).map_err(|error| match error {
            StoreError::Conflict { what } => Interruption::Conflict(what),
            other => Interruption::Failed(Error::Store(other)),
        })?;
        match id {
            Some(id) => {
                self.last_commit = Some(id);
                tracing::info!(xid = begin.xid, lsn = %commit.commit_lsn, changes = change_count, commit = %format_args!("{id:.12}"), "commit");
            }
            None => {
                tracing::info!(xid = begin.xid, lsn = %commit.commit_lsn, changes = change_count, "transaction put into the working set");
            }
        }
        self.end_gathering(&begin);
        self.show_conflicts();
        let position = self.remember_definitions()?.unwrap_or(position);
        self.position = end;
        self.idle = self.idle.max(end);
        self.transaction_count += 1;
        if self.context.config.subscription.is_some_and(|subscription| subscription.wait_durable) {
            self.context.store.wait_durable(position).map_err(Error::Store)?;
        }
        self.context.progress.note_commit_time(commit.commit_time);
        self.context.progress.note_applied(end, position, self.context.store.durable());
        self.subscribed.pass(end, &self.context.records)?;
        if let Some(lsn) = self.subscribed.skip() {
            tracing::warn!(%lsn, finished = %begin.commit_lsn, "the LSN to skip was of no transaction up to here and is forgotten");
            self.subscribed.end_skip(&self.context.records)?;
        }
        Ok(())
    }

    /// Makes progress durable that came without a commit.
    fn record_idle(&mut self, urgent: bool) -> Result<()> {
        let is_due = urgent || self.idle_recorded_at.elapsed() >= IDLE_RECORD_INTERVAL;
        if self.idle <= self.position || !is_due || !matches!(self.current, Current::Outside) {
            return Ok(());
        }
        let position = self.context.records.set_position(self.idle, self.last_commit, &self.context.branch)?;
        self.position = self.idle;
        self.idle_recorded_at = Instant::now();
        self.context.progress.note_applied(self.idle, position, self.context.store.durable());
        self.subscribed.pass(self.position, &self.context.records)
    }

    /// Logs and shows the conflicts of a transaction that is committed or given up.
    fn show_conflicts(&mut self) {
        let Conflicts { counts, kept } = std::mem::take(&mut self.changer.conflicts);
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return;
        }
        for conflict in kept.iter().take(CONFLICTS_LOGGED_MAX) {
            let kind = conflict.kind.as_str();
            tracing::warn!(conflict = kind, table = %conflict.table, key = %conflict.key, xid = conflict.xid, lsn = %conflict.lsn, resolution = conflict.resolution.as_str(), "conflict");
        }
        if let Some(more) = count.checked_sub(CONFLICTS_LOGGED_MAX as u64).filter(|more| *more > 0) {
            tracing::warn!(more, "more conflicts in the same transaction");
        }
        self.context.status.note_conflicts(&counts, kept);
    }

    fn count(&mut self, relation: u32, count: impl FnOnce(&mut Counts)) {
        if let Some(entry) = self.relations.get_mut(&relation) {
            count(&mut entry.counts);
        }
    }

    fn show_status(&mut self, now: bool) {
        if !now && self.status_at.elapsed() < STATUS_INTERVAL {
            return;
        }
        self.status_at = Instant::now();
        let status = &self.context.status;
        status.add_transactions(std::mem::take(&mut self.transaction_count));
        for entry in self.relations.values_mut() {
            let counts = std::mem::take(&mut entry.counts);
            if counts != Counts::default() {
                status.update_table(&entry.source.qualified_name(), |table| {
                    table.inserted += counts.inserted;
                    table.updated += counts.updated;
                    table.deleted += counts.deleted;
                    table.truncated += counts.truncated;
                });
            }
        }
    }

    /// Why a change of this relation was not applied.
    #[cold]
    fn refused(&self, begin: &Begin, relation: u32, lsn: Lsn, error: change::ChangeError) -> Interruption {
        let source = self.relations.get(&relation).map(|entry| Arc::clone(&entry.source));
        let name = source.as_ref().map(|source| source.qualified_name()).unwrap_or_default();
        match error {
            change::ChangeError::Store(StoreError::Conflict { what }) => Interruption::Conflict(what),
            change::ChangeError::Store(error) if is_lost(&error) => Interruption::Failed(Error::Store(error)),
            change::ChangeError::Store(error) => Interruption::Failed(apply_error(begin, &name, lsn, error.to_string())),
            change::ChangeError::Refused(what) => Interruption::Failed(apply_error(begin, &name, lsn, what)),
            change::ChangeError::Unfit(what) => {
                let error = apply_error(begin, &name, lsn, what);
                // In its binary form it may not fit where its text does, which is for the user to choose.
                let is_binary = self.context.config.subscription.is_some_and(|subscription| subscription.binary);
                match source.filter(|_| !is_binary) {
                    Some(source) => Interruption::Unfollowed { source, error },
                    None => Interruption::Failed(error),
                }
            }
        }
    }

    fn give_up(&mut self, begin: &Begin, interruption: Interruption) -> Error {
        if matches!(interruption, Interruption::Failed(_) | Interruption::Unfollowed { .. }) {
            self.show_conflicts();
        }
        match interruption {
            Interruption::Failed(error) | Interruption::Unfollowed { error, .. } => error,
            Interruption::Conflict(what) => busy(begin, &format!("local changes of {what} came first")),
            Interruption::TableMissing { source, .. } | Interruption::DefinitionMissing(source) | Interruption::TableNew(source) => {
                apply_error(begin, &source.qualified_name(), begin.commit_lsn, "the table does not exist".into())
            }
        }
    }
}

/// Who makes replicated commits.
pub(crate) fn author(config: &Config) -> Identity {
    let name = if config.connection.user.is_empty() { "strandline-replication" } else { &config.connection.user };
    // The first server's, whichever is followed: who writes does not change with it.
    let first = &config.connection.places.all()[0];
    let host = if first.socket_folder().is_some() { "localhost" } else { &first.host };
    Identity { name: name.to_owned(), email: format!("{name}@{host}") }
}

fn writer_of<'a>(running: &'a mut Running, context: &Context) -> Result<&'a mut Writer, Interruption> {
    if running.writer.is_none() {
        let writer = Writer::begin(&context.branch, context.config.commit_mode, running.large).map_err(Error::Store)?;
        running.writer = Some(writer);
    }
    Ok(running.writer.as_mut().expect("BUG: just begun"))
}

fn decode(lsn: Lsn, payload: &[u8]) -> Result<Message<'_>> {
    Message::decode(payload).map_err(|source| Error::Decode { lsn, source })
}

fn out_of_place(lsn: Lsn, payload: &[u8]) -> Error {
    let tag = payload.first().map_or('?', |tag| char::from(*tag));
    Error::Protocol(format!("a message of type {tag:?} at {lsn} out of its place in a transaction"))
}

fn busy(begin: &Begin, what: &str) -> Error {
    Error::Busy { xid: begin.xid, lsn: begin.commit_lsn, what: what.to_owned() }
}

fn apply_error(begin: &Begin, table: &str, lsn: Lsn, what: String) -> Error {
    Error::Apply { table: table.to_owned(), xid: begin.xid, lsn, finished: begin.commit_lsn, what }
}

/// The settings in which the primary sends values.
pub(crate) fn pinned_settings() -> TextSettings {
    TextSettings::default()
}
