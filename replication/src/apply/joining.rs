//! Tables that join a running stream.
//!
//! While a table is copied beside the stream, on a snapshot at S, the applier keeps its changes (`gathered`) and goes on with the other tables. When the copy is
//! complete and the stream has reached S, the table joins between two transactions, at P: its rows, and what was gathered of transactions that the snapshot does
//! not hold, become one commit, which is what the table is at P. From there on the stream's changes of it are applied.
//!
//! ```text
//!   stream   ----T1-----T2----------T3-------T4----+-----T5---->
//!   kept     . . . . . (T2) . . . (T3) . . . (T4)  |
//!   copy           [ rows as of S, after T2 ]------+ P: copy, T3, T4
//! ```
//!
//! *Invariants:* changes are kept from before the snapshot is taken, so none that it lacks is missed; a transaction is kept once, though it may be sent again
//! after a lost connection; what is kept lasts no longer than the process, and neither does the copy. `Copying(P)` is in the journal before the joining commit, which
//! carries P, so that a crash leaves either all of it or nothing (`table_state`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use strandline_storage::edit::LoadedTable;
use strandline_storage::{CommitMeta, Lsn, Oid, Timestamp};
use tokio::sync::{Notify, OwnedMutexGuard};

use super::change::Conflicts;
use super::definition::{Definition, KnownRelation};
use super::gathered::{Gathered, GatheredMessage};
use super::relation::SourceRelation;
use super::stopped::RENEWALS_MAX;
use super::{Applier, Current, Interruption, Running, Writer};
use crate::catalog::{self, RemoteTable, RemoteTypes};
use crate::copy::{self, Replaced};
use crate::error::{Error, Result, is_lost};
use crate::pgoutput::{Begin, MessageKind};
use crate::source_record::{COPY_XID, copy_source};
use crate::status::TableState;
use crate::table_state::SyncState;

/// What passes between the copy of tables and the appliers of one replicator.
#[derive(Default)]
pub(crate) struct Joining {
    /// Moves whenever the tables whose changes are kept change.
    version: AtomicU64,
    shared: Mutex<Shared>,
    ended: Notify,
    /// Held by whoever copies: the next attempt must not meet what is left of the one before.
    copying: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Shared {
    /// By the primary's oid.
    tables: BTreeMap<u32, Joiner>,
    /// Where the last transaction was committed of which something could be kept.
    up_to: Lsn,
    /// Tables of a configured source that were not published any more, and where that was so (`SyncState::Left`).
    left: BTreeMap<u32, Lsn>,
    /// How often copies of stopped tables began by themselves.
    renewals: BTreeMap<u32, u32>,
}

enum Joiner {
    /// It is being copied, or its copy waits for the stream.
    Gathering { changes: Gathered, copied: Option<Box<CopiedTable>> },
    /// The applier has it in its hands.
    Entering,
    /// It has joined, with so many rows copied, or cannot.
    Ended(Result<u64>),
}

/// A table's copy.
pub(crate) struct CopiedTable {
    pub(crate) oid: u32,
    pub(crate) name: String,
    /// Ours.
    pub(crate) table: Oid,
    pub(crate) relation: SourceRelation,
    pub(crate) remote: RemoteTable,
    pub(crate) rows: LoadedTable,
    pub(crate) replaced: Option<Replaced>,
    /// Of the snapshot.
    pub(crate) point: Lsn,
}

impl Joining {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits until nobody copies any more.
    pub(crate) async fn begin_copying(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.copying).lock_owned().await
    }

    /// Begins to keep the changes of these tables, in files of this folder where they are many. The snapshots of their copies are to be taken afterwards.
    pub(crate) fn gather(&self, tables: impl Iterator<Item = u32>, folder: &std::path::Path) {
        let mut shared = self.shared();
        for oid in tables {
            let changes = Gathered::new(folder.join(oid.to_string()));
            shared.left.remove(&oid);
            shared.tables.insert(oid, Joiner::Gathering { changes, copied: None });
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Says whether a table that has stopped may be copied anew by itself, and counts that.
    pub(super) fn may_renew(&self, oid: u32) -> bool {
        let mut shared = self.shared();
        let count = shared.renewals.entry(oid).or_default();
        *count += 1;
        *count <= RENEWALS_MAX
    }

    /// Hands a copy over. It joins when the stream has reached its snapshot.
    pub(crate) fn hand_over(&self, table: CopiedTable) {
        if let Some(Joiner::Gathering { copied, .. }) = self.shared().tables.get_mut(&table.oid) {
            *copied = Some(Box::new(table));
        }
    }

    /// The table's copy will not be there.
    pub(crate) fn give_up(&self, oid: u32) {
        self.shared().tables.remove(&oid);
        self.version.fetch_add(1, Ordering::Release);
        self.ended.notify_one();
    }

    /// The table was not published any more at this point. False if there are changes of it from then on: it is published again.
    pub(crate) fn leave(&self, oid: u32, point: Lsn) -> bool {
        let mut shared = self.shared();
        let joiner = shared.tables.remove(&oid);
        let is_gone = !matches!(joiner, Some(Joiner::Gathering { changes, .. }) if changes.last_commit() >= point);
        if is_gone {
            shared.left.insert(oid, point);
        }
        drop(shared);
        self.version.fetch_add(1, Ordering::Release);
        self.ended.notify_one();
        is_gone
    }

    /// Waits for the next table that has joined or failed, and says which; `None` when no more are under way.
    pub(crate) async fn next_ended(&self) -> Option<(u32, Result<u64>)> {
        loop {
            let ended = self.ended.notified();
            {
                let mut shared = self.shared();
                let oid = shared.tables.iter().find(|(_, joiner)| matches!(joiner, Joiner::Ended(_))).map(|(oid, _)| *oid);
                match oid.and_then(|oid| Some((oid, shared.tables.remove(&oid)?))) {
                    Some((oid, Joiner::Ended(outcome))) => return Some((oid, outcome)),
                    _ if shared.tables.is_empty() => return None,
                    _ => {}
                }
            }
            ended.await;
        }
    }

    /// Forgets the tables that have not joined. Waits for those that are about to. Returns the forgotten ones.
    pub(crate) async fn abandon(&self) -> Vec<u32> {
        let mut forgotten = Vec::new();
        self.shared().tables.retain(|oid, joiner| {
            let is_gathering = matches!(joiner, Joiner::Gathering { .. });
            if is_gathering {
                forgotten.push(*oid);
            }
            !is_gathering
        });
        self.version.fetch_add(1, Ordering::Release);
        while self.next_ended().await.is_some() {}
        forgotten
    }

    /// A copy is complete.
    pub(super) fn has_copied(&self) -> bool {
        self.shared().tables.values().any(|joiner| matches!(joiner, Joiner::Gathering { copied: Some(_), .. }))
    }

    /// Takes out a table that can join where the stream has reached this place.
    fn take_copied(&self, reached: Lsn) -> Option<(Box<CopiedTable>, Gathered)> {
        let mut shared = self.shared();
        let ready = shared
            .tables
            .values_mut()
            .find(|joiner| matches!(joiner, Joiner::Gathering { copied: Some(copied), .. } if copied.point <= reached))?;
        match std::mem::replace(ready, Joiner::Entering) {
            Joiner::Gathering { changes, copied: Some(copied) } => Some((copied, changes)),
            _ => None,
        }
    }

    fn end(&self, oid: u32, outcome: Result<u64>) {
        self.shared().tables.insert(oid, Joiner::Ended(outcome));
        self.version.fetch_add(1, Ordering::Release);
        self.ended.notify_one();
    }
}

/// What an applier knows of the tables that are to join.
#[derive(Debug, Default)]
pub(super) struct Joins {
    version: Option<u64>,
    /// The changes of some tables are kept.
    is_gathering: bool,
    /// The transaction under way may be kept.
    is_kept: bool,
    /// The table that joins now: nothing else is applied.
    pub(super) entering: Option<u32>,
}

impl Applier {
    /// Begins an attempt at a transaction.
    pub(super) fn begin_gathering(&mut self, begin: &Begin) -> Result<()> {
        let joining = &self.context.joining;
        let version = joining.version.load(Ordering::Acquire);
        if self.joins.version != Some(version) {
            let shared = joining.shared();
            self.joins.is_gathering = shared.tables.values().any(|joiner| matches!(joiner, Joiner::Gathering { .. }));
            self.joins.version = Some(version);
        }
        self.joins.is_kept = false;
        if self.joins.is_gathering {
            let mut shared = joining.shared();
            self.joins.is_kept = begin.commit_lsn > shared.up_to;
            for joiner in shared.tables.values_mut() {
                if let Joiner::Gathering { changes, .. } = joiner {
                    changes.begin_transaction()?;
                }
            }
        }
        Ok(())
    }

    /// The transaction has ended well.
    pub(super) fn end_gathering(&mut self, begin: &Begin) {
        if !std::mem::take(&mut self.joins.is_kept) {
            return;
        }
        let mut shared = self.context.joining.shared();
        shared.up_to = begin.commit_lsn;
        for joiner in shared.tables.values_mut() {
            if let Joiner::Gathering { changes, .. } = joiner {
                changes.end_transaction();
            }
        }
    }

    /// Keeps a message about a relation that is not applied, if its table is being copied.
    pub(super) fn gather(&self, running: &Running, relation: u32, lsn: Lsn, payload: &[u8]) -> Result<(), Interruption> {
        let Some(entry) = self.relations.get(&relation).filter(|_| !running.skipped && self.joins.entering.is_none()) else {
            return Ok(());
        };
        let Some(listed) = entry.listed else { return Ok(()) };
        let source = Arc::clone(&entry.source);
        let mut shared = self.context.joining.shared();
        let left = shared.left.get(&listed).copied().or_else(|| self.subscribed.left_at(listed));
        let Some(Joiner::Gathering { changes, .. }) = shared.tables.get_mut(&listed) else {
            // From there on it is published again. It is told of once: others may be under way, and it has to wait for them.
            let is_back = left.is_some_and(|left| running.begin.commit_lsn >= left);
            if is_back {
                shared.left.remove(&listed);
            }
            drop(shared);
            return if is_back { Ok(self.copy_first(&source)?) } else { Ok(()) };
        };
        if !self.joins.is_kept {
            return Ok(());
        }
        if changes.is_new(&source) {
            for message in self.announcement(&source) {
                changes.put(&running.begin, lsn, &message)?;
            }
            changes.announce(&source);
        }
        changes.put(&running.begin, lsn, payload)?;
        Ok(())
    }

    /// Keeps a message that may be about any table.
    pub(super) fn gather_for_all(&self, running: &Running, lsn: Lsn, payload: &[u8]) -> Result<(), Interruption> {
        if !self.joins.is_kept || running.skipped {
            return Ok(());
        }
        for joiner in self.context.joining.shared().tables.values_mut() {
            if let Joiner::Gathering { changes, .. } = joiner {
                changes.put(&running.begin, lsn, payload)?;
            }
        }
        Ok(())
    }

    /// Lets tables join whose copies are complete, if the stream stands between two transactions.
    /// # Errors
    /// The store's; what keeps one table from joining is told to who copies.
    pub(super) fn join_copied(&mut self) -> Result<()> {
        if !matches!(self.current, Current::Outside) || !self.context.joining.has_copied() {
            return Ok(());
        }
        self.record_idle(true)?;
        while let Some((copied, changes)) = self.context.joining.take_copied(self.position) {
            let oid = copied.oid;
            let outcome = self.join(*copied, &changes);
            let is_lost = matches!(&outcome, Err(Error::Store(error)) if is_lost(error));
            self.context.joining.end(oid, outcome);
            if is_lost {
                let what = "a table could not join: the store refuses to write";
                return Err(Error::Setup(what.to_owned()));
            }
        }
        Ok(())
    }

    fn join(&mut self, copied: CopiedTable, changes: &Gathered) -> Result<u64> {
        let (oid, name, point) = (copied.oid, copied.name.clone(), self.position);
        self.known_changes.clear();
        self.replaced_relations.clear();
        self.definitions.clear();
        self.changer.conflicts = Conflicts::default();
        let definition = Definition { table: Some(copied.remote.clone()), types: RemoteTypes::default(), may_create: false };
        let known = KnownRelation::new(&copied.relation, &definition, None);
        let former = self.known.insert(oid, known.clone());
        self.subscribed.set_state(oid, SyncState::Copying { point }, &self.context.records)?;
        self.joins.entering = Some(oid);
        let outcome = self.enter(copied, changes, point, known);
        self.joins.entering = None;
        // The stream's own announcements hold from here on.
        self.restore_relations();
        match outcome {
            Ok(rows) => {
                self.remember_definitions()?;
                self.show_conflicts();
                self.subscribed.set_state(oid, SyncState::Ready { point: Some(point) }, &self.context.records)?;
                self.context.status.update_table(&name, |table| {
                    table.state = TableState::Ready;
                    table.copied = rows;
                });
                tracing::info!(table = %name, lsn = %point, "the copied table follows the stream");
                Ok(rows)
            }
            Err(error) => {
                self.known_changes.clear();
                self.definitions.clear();
                match former {
                    Some(former) => self.known.insert(oid, former),
                    None => self.known.remove(&oid),
                };
                self.subscribed.set_state(oid, SyncState::Init, &self.context.records)?;
                Err(error)
            }
        }
    }

    /// Commits the copy with what was kept.
    fn enter(&mut self, copied: CopiedTable, changes: &Gathered, point: Lsn, known: KnownRelation) -> Result<u64> {
        let context = Arc::clone(&self.context);
        let CopiedTable { oid, name, table, remote, rows, replaced, point: snapshot, .. } = copied;
        // What is kept may be much, and its definitions are asked for.
        let mut writer = Writer::begin(&context.branch, context.config.commit_mode, true)?;
        let count = copy::put_rows(&mut writer, table, &name, &remote, replaced.as_ref(), rows)?;
        let others = self.known.values().filter_map(|known| known.details.as_deref());
        catalog::connect_foreign_keys(&context.store, &mut writer, others.chain([&remote]))?;
        let begin = Begin { commit_lsn: point, commit_time: Timestamp::now(), xid: 0 };
        let mut running =
            Running { begin, origin: None, skipped: false, application: None, large: true, writer: Some(writer), change_count: 0 };
        changes.read(|lsn, message| match message {
            GatheredMessage::Begin(begin) => {
                running.begin = begin;
                Ok(())
            }
            // The snapshot holds it; but what is said of the table is said once.
            GatheredMessage::Payload(payload)
                if running.begin.commit_lsn < snapshot && MessageKind::of(payload) != MessageKind::Description =>
            {
                Ok(())
            }
            GatheredMessage::Payload(payload) => self.apply_large_message(&mut running, lsn, payload),
        })?;
        let Some(writer) = running.writer else { return Err(Error::Setup(format!("could not copy table \"{name}\": nothing to commit"))) };
        if replaced.is_some() {
            // What had the name before is none of the primary's tables any more, or has another name there.
            let others = self.known.iter().filter(|(other, table)| **other != oid && table.has_name_of(&known));
            let others: Vec<u32> = others.map(|(oid, _)| *oid).collect();
            self.known_changes.extend(others.into_iter().map(|other| (other, None)));
        }
        self.known_changes.entry(oid).or_insert(Some(known));
        self.note_definitions(point, COPY_XID)?;
        let now = Timestamp::now();
        let meta = CommitMeta {
            author: self.author.clone(),
            author_time: now,
            committer: self.author.clone(),
            commit_time: now,
            message: format!("copy of table {name} at {point}"),
            source: Some(copy_source(point, context.config.subscription_oid())),
        };
        writer.commit(meta).map_err(|error| copy::refused(&name, error))?;
        tracing::debug!(table = %name, lsn = %point, %snapshot, changes = running.change_count, "joined");
        Ok(count)
    }
}
