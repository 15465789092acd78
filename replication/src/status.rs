//! What a replicator shows of itself: the source of `pg_stat_subscription` and `pg_stat_subscription_stats`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use strandline_storage::{Lsn, Oid, Timestamp};

use crate::conflict::{CONFLICTS_KEPT_MAX, Conflict, ConflictKind};
use crate::copy::{CopyProgress, TableProgress};
use crate::progress::Progress;
use crate::watch::PrimaryView;

/// Ends of the primary's log that are remembered to tell how old what we have is: with a look each ten seconds, those of an hour.
const VIEWS_KEPT_MAX: usize = 360;

/// Where a replicator is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opening a connection and comparing identities.
    Connecting,
    /// Copying the published tables.
    Copying,
    /// Receiving changes.
    Streaming,
    /// Waiting to connect again after a failure that passes.
    Waiting,
    /// Stopped by an error that does not pass.
    Failed,
    /// Stopped because it was asked to.
    Stopped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Copying => "copying",
            State::Streaming => "streaming",
            State::Waiting => "waiting",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }
}

/// What replication did to one table since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStatus {
    pub state: TableState,
    pub copied: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    pub truncated: u64,
}

/// A table's state by PostgreSQL's letters (`pg_subscription_rel.srsubstate`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// `d`: its rows are being copied.
    Copying,
    /// `x`, which PostgreSQL does not have: it could not follow, and is as it was before that.
    Stopped,
    /// `r`: it follows the stream.
    #[default]
    Ready,
}

/// A moment's view of a replicator.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub slot_name: String,
    pub publication_names: Vec<String>,
    pub state: State,
    pub received: Lsn,
    pub applied: Lsn,
    pub durable: Lsn,
    pub last_message_received: Option<Timestamp>,
    /// When a status update was last sent.
    pub last_status_sent: Option<Timestamp>,
    pub last_error: Option<(Timestamp, String)>,
    /// Failures since the server started, those that passed included.
    pub error_count: u64,
    /// Tables that could not be copied, since then.
    pub copy_error_count: u64,
    pub transaction_count: u64,
    /// When it tries again; `None` unless it waits for that.
    pub next_retry: Option<Timestamp>,
    /// When the last transaction that is applied was committed on the primary.
    pub last_commit_time: Option<Timestamp>,
    /// What was last seen of the primary.
    pub primary: Option<PrimaryView>,
    /// When the log of the primary ended where we are now, or a little before; `None`: before we looked.
    reached_at: Option<Timestamp>,
    /// By schema-qualified name.
    pub tables: BTreeMap<String, TableStatus>,
    /// Since the server started, in the order of [`ConflictKind::ALL`].
    pub conflict_counts: [u64; ConflictKind::ALL.len()],
}

/// How far a replica is behind its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Of the primary's log that are not durable here.
    pub bytes: u64,
    /// How old the state here is: at most the time since the last look at the primary found its log to end where we are, or since the commit that was applied last.
    pub time: Duration,
}

impl Snapshot {
    /// How far we are behind what was last seen of the primary; `None` where nothing was.
    pub fn lag(&self) -> Option<Lag> {
        let end = self.primary.as_ref()?.end;
        let bytes = end.0.saturating_sub(self.durable.0);
        if bytes == 0 {
            return Some(Lag { bytes, time: Duration::ZERO });
        }
        let since = [self.reached_at, self.last_commit_time].into_iter().flatten().max()?;
        let micros = Timestamp::now().0.saturating_sub(since.0).max(0).unsigned_abs();
        Some(Lag { bytes, time: Duration::from_micros(micros) })
    }
}

/// A replicator's state, shared with whoever shows it.
#[derive(Debug)]
pub struct Status {
    slot_name: String,
    publication_names: Vec<String>,
    progress: Arc<Progress>,
    fields: Mutex<Fields>,
}

#[derive(Debug)]
struct Fields {
    state: State,
    last_message_received: Option<Timestamp>,
    last_status_sent: Option<Timestamp>,
    last_error: Option<(Timestamp, String)>,
    error_count: u64,
    copy_error_count: u64,
    transaction_count: u64,
    next_retry: Option<Timestamp>,
    /// The latest, oldest first.
    views: VecDeque<PrimaryView>,
    tables: BTreeMap<String, TableStatus>,
    conflict_counts: [u64; ConflictKind::ALL.len()],
    /// The latest, oldest first.
    conflicts: VecDeque<Conflict>,
    /// The copy under way.
    copy: Option<CopyProgress>,
}

/// A copy is shown while this lives.
pub(crate) struct ShownCopy<'a>(&'a Status);

impl Drop for ShownCopy<'_> {
    fn drop(&mut self) {
        self.0.fields().copy = None;
    }
}

/// A table that is being copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// Ours.
    pub table: Oid,
    pub rows: u64,
    /// As the primary sent them.
    pub bytes: u64,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTotals {
    pub rows: u64,
    pub bytes: u64,
    /// Of the tables on the primary: the bytes that are through, and all.
    pub through: u64,
    pub size: u64,
    pub seconds_left: Option<u64>,
}

impl Status {
    pub(crate) fn new(slot_name: String, publication_names: Vec<String>, progress: Arc<Progress>) -> Self {
        let fields = Fields {
            state: State::Connecting,
            last_message_received: None,
            last_status_sent: None,
            last_error: None,
            error_count: 0,
            copy_error_count: 0,
            transaction_count: 0,
            next_retry: None,
            views: VecDeque::new(),
            tables: BTreeMap::new(),
            conflict_counts: Default::default(),
            conflicts: VecDeque::new(),
            copy: None,
        };
        Status { slot_name, publication_names, progress, fields: Mutex::new(fields) }
    }

    pub fn slot_name(&self) -> &str {
        &self.slot_name
    }

    /// Takes a consistent copy.
    pub fn snapshot(&self) -> Snapshot {
        let fields = self.fields();
        let durable = self.progress.durable();
        Snapshot {
            slot_name: self.slot_name.clone(),
            publication_names: self.publication_names.clone(),
            state: fields.state,
            received: self.progress.received(),
            applied: self.progress.applied(),
            durable,
            last_message_received: fields.last_message_received,
            last_status_sent: fields.last_status_sent,
            last_error: fields.last_error.clone(),
            error_count: fields.error_count,
            copy_error_count: fields.copy_error_count,
            transaction_count: fields.transaction_count,
            next_retry: fields.next_retry,
            last_commit_time: self.progress.commit_time(),
            primary: fields.views.back().cloned(),
            reached_at: fields.views.iter().rev().find(|view| view.end <= durable).map(|view| view.time),
            tables: fields.tables.clone(),
            conflict_counts: fields.conflict_counts,
        }
    }

    /// The latest conflicts, oldest first.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.fields().conflicts.iter().cloned().collect()
    }

    pub(crate) fn note_conflicts(&self, counts: &[u64; ConflictKind::ALL.len()], conflicts: Vec<Conflict>) {
        let mut fields = self.fields();
        for (total, count) in fields.conflict_counts.iter_mut().zip(counts) {
            *total += count;
        }
        fields.conflicts.extend(conflicts);
        while fields.conflicts.len() > CONFLICTS_KEPT_MAX {
            fields.conflicts.pop_front();
        }
    }

    pub(crate) fn show_copy(&self, tables: impl Iterator<Item = Arc<TableProgress>>) -> ShownCopy<'_> {
        self.fields().copy = Some(CopyProgress::new(tables.collect()));
        ShownCopy(self)
    }

    /// The tables that are being copied now.
    pub fn copied_tables(&self) -> Vec<CopiedTable> {
        let Some(copy) = self.fields().copy.clone() else { return Vec::new() };
        let tables = copy.tables().iter().filter(|table| table.is_under_way());
        tables.map(|table| CopiedTable { table: table.table, rows: table.rows(), bytes: table.bytes() }).collect()
    }

    /// How far the copy under way has come, if one is.
    pub fn copy_totals(&self) -> Option<CopyTotals> {
        let copy = self.fields().copy.clone()?;
        let now = copy.now();
        Some(CopyTotals { rows: now.rows, bytes: now.bytes, through: now.through, size: now.size, seconds_left: now.seconds_left() })
    }

    pub(crate) fn set_state(&self, state: State) {
        let mut fields = self.fields();
        fields.state = state;
        fields.next_retry = None;
    }

    pub(crate) fn set_waiting(&self, wait: Duration) {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let mut fields = self.fields();
        fields.state = State::Waiting;
        fields.next_retry = Some(Timestamp(Timestamp::now().0.saturating_add(micros)));
    }

    pub(crate) fn note_primary(&self, view: PrimaryView) {
        let mut fields = self.fields();
        while fields.views.len() >= VIEWS_KEPT_MAX {
            fields.views.pop_front();
        }
        fields.views.push_back(view);
    }

    pub(crate) fn note_error(&self, error: String) {
        let mut fields = self.fields();
        fields.last_error = Some((Timestamp::now(), error));
        fields.error_count += 1;
    }

    pub(crate) fn note_copy_error(&self, error: String) {
        let mut fields = self.fields();
        fields.last_error = Some((Timestamp::now(), error));
        fields.copy_error_count += 1;
    }

    pub(crate) fn note_message(&self) {
        self.fields().last_message_received = Some(Timestamp::now());
    }

    pub(crate) fn note_status_sent(&self) {
        self.fields().last_status_sent = Some(Timestamp::now());
    }

    pub(crate) fn add_transactions(&self, count: u64) {
        self.fields().transaction_count += count;
    }

    pub(crate) fn update_table(&self, name: &str, update: impl FnOnce(&mut TableStatus)) {
        let mut fields = self.fields();
        if let Some(table) = fields.tables.get_mut(name) {
            return update(table);
        }
        update(fields.tables.entry(name.to_owned()).or_default());
    }

    fn fields(&self) -> MutexGuard<'_, Fields> {
        self.fields.lock().unwrap_or_else(|e| e.into_inner())
    }
}
