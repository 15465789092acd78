//! What the store remembers about the source: whose changes these are, and where to go on.
//!
//! | state key (under `replication/DATABASE/BRANCH/`, or `subscription/OID/` for those made by SQL) | content |
//! |---|---|
//! | `source` | system identifier, timeline, slot's name, phase (with the consistent point) |
//! | `position` | an LSN, the id of a commit (`-`: none), and the working set's position at that time |
//! | `relation/OID` | the primary's table of this oid as it was last replicated |
//! | `definition/OID` | its whole definition as it was last taken over, as JSON |
//! | `next-relation/OID`, `next-definition/OID` | the same as a transaction leaves them that is about to be committed, behind the LSN of its commit record and its id |
//! | `location` | the LSNs that `pg_wal_location` may hold by our own hand: the last written and the one before |
//! | `table/OID` | a subscribed table of the primary and how far it has come, and why it was stopped (`table_state`) |
//! | `skip` | the LSN of the transaction to skip |
//! | `slot` | there while the slot of a subscription made by SQL is yet to be made, or, before PostgreSQL 12, while the configured source's lasts without its copy: the primary's system identifier, and where its log ended |
//! | `prepared/XID` | the user's name of a prepared transaction that is kept in a file (`apply/prepared`) |
//! | `two_phase` | the slot, and the first transaction id of those of which we have seen every PREPARE in it |
//! | `copied` | there if the configured source's tables were copied by us, not filled by hand |
//!
//! A replicated commit carries its end LSN and its subscription, so position and data move in one record. `position` is for progress without a commit: an idle
//! stream, a start given by the user. Changes that only go to the working set carry their end LSN in the working set's record.
//!
//! The commit in `position` is the last replicated one at that time for a configured source; for a subscription made by SQL, whose commits may be few among those
//! of others, it is the branch's head: only what lies behind it is searched. The copy of a table is a commit with transaction id 0 and no end, which tells nothing
//! of the stream's position; the initial copy of a configured source ends where its stream begins.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use strandline_storage::store::{Branch, JournalPosition, Store};
use strandline_storage::{CommitId, Error as StoreError, Lsn, Source as CommitSource, Timestamp};

use crate::apply::KnownRelation;
use crate::error::{Error, Result};
use crate::table_state::{SubscribedTable, SyncState};

/// The transaction id of a commit that is a copy.
pub(crate) const COPY_XID: u32 = 0;

/// What the commit of a table's copy says of its source, for a snapshot at this point.
pub(crate) fn copy_source(point: Lsn, subscription: u32) -> CommitSource {
    let commit_time = Timestamp::now();
    CommitSource { end_lsn: Lsn(0), commit_lsn: point, xid: COPY_XID, commit_time, subscription, ..CommitSource::default() }
}

fn is_table_copy(source: &CommitSource) -> bool {
    source.xid == COPY_XID && source.end_lsn == Lsn(0)
}

/// The source that a branch follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) system_id: String,
    pub(crate) timeline: u32,
    pub(crate) slot_name: String,
    pub(crate) phase: Phase,
}

/// How far the beginning has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The initial copy is under way on a temporary slot's snapshot. If we find this, the copy was lost and starts again.
    Copying,
    /// The base commit is durable; the lasting slot may exist or not. Without it the copy starts again.
    Copied { consistent_point: Lsn },
    /// The slot exists and we follow it.
    Streaming,
}

/// A position without a commit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    lsn: Lsn,
    commit: Option<CommitId>,
    working: Lsn,
}

/// A slot that is to be made: what tells it from another one of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotToMake {
    pub(crate) system_id: String,
    /// It begins here or later.
    pub(crate) after: Lsn,
}

/// From when on all prepared transactions of a slot are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TwoPhaseStart {
    slot_name: String,
    first_xid: u32,
}

/// The records of one branch.
#[derive(Clone)]
pub(crate) struct SourceRecords {
    store: Arc<Store>,
    prefix: String,
    /// 0: the configured one.
    subscription: u32,
}

/// What a subscription has committed behind a certain commit.
#[derive(Debug, Default)]
struct Own {
    /// The last transaction: its commit and where it ends.
    last: Option<(CommitId, Lsn)>,
    /// Copies of tables: the commits and the points of their snapshots.
    copies: Vec<(CommitId, Lsn)>,
}

impl SourceRecords {
    pub(crate) fn new(store: Arc<Store>, database: &str, branch: &str) -> Self {
        SourceRecords { store, prefix: Store::source_state_prefix(database, branch), subscription: 0 }
    }

    pub(crate) fn of_subscription(store: Arc<Store>, oid: u32) -> Self {
        SourceRecords { store, prefix: Store::subscription_state_prefix(oid), subscription: oid }
    }

    pub(crate) fn source(&self) -> Result<Option<Source>> {
        self.read("source")
    }

    pub(crate) fn set_source(&self, source: &Source) -> Result<JournalPosition> {
        self.write("source", source)
    }

    /// Where the stream goes on: the last replicated commit's end, or the `position` record where that is newer. `None` before the first.
    pub(crate) fn position(&self, branch: &Branch) -> Result<(Option<Lsn>, Option<CommitId>)> {
        let record: Option<Position> = self.read("position")?;
        if self.subscription != 0 {
            let last = self.committed_since(branch, record.and_then(|record| record.commit))?.last;
            let known = [last.map(|(_, end)| end), record.map(|record| record.lsn)];
            return Ok((known.into_iter().flatten().max(), last.map(|(id, _)| id)));
        }
        let commit = self.last_replicated(branch)?;
        let working = branch.state().applied_to_working;
        let id = commit.map(|(id, _)| id);
        if let Some(record) = record
            && record.commit == id
            && record.working == working
        {
            // Nothing came since, so this holds even if it is the lower one, as a user may have wished.
            return Ok((Some(record.lsn), id));
        }
        let known = [commit.map(|(_, end)| end), Some(working).filter(|lsn| *lsn > Lsn(0)), record.map(|record| record.lsn)];
        Ok((known.into_iter().flatten().max(), id))
    }

    /// The last commit on the branch's first-parent line that came from the configured source, with its end LSN.
    fn last_replicated(&self, branch: &Branch) -> Result<Option<(CommitId, Lsn)>> {
        let Some(id) = self.store.commit_at_lsn(branch.state().head, Lsn(u64::MAX))? else { return Ok(None) };
        // The first that is looked at is it, unless a table was copied or a subscription made by SQL has written into the branch since.
        let mut next = Some(id);
        while let Some(id) = next {
            let commit = self.store.commit(id)?;
            if let Some(source) = commit.meta.source.as_ref().filter(|source| source.subscription == 0 && !is_table_copy(source)) {
                return Ok(Some((id, source.end_lsn)));
            }
            next = commit.parents.first().copied();
        }
        Ok(None)
    }

    /// Searches the branch's first-parent line from its head to a commit, itself excluded, until a transaction of ours is met.
    fn committed_since(&self, branch: &Branch, until: Option<CommitId>) -> Result<Own> {
        let mut own = Own::default();
        let height_min = until.map(|until| self.store.commit(until).map(|commit| commit.height)).transpose()?.unwrap_or(0);
        let mut next = Some(branch.state().head);
        while let Some(id) = next.filter(|id| Some(*id) != until) {
            let commit = self.store.commit(id)?;
            // A line that does not lead to it was moved by hand; what is as old as it is not newer.
            if commit.height <= height_min {
                break;
            }
            if let Some(source) = commit.meta.source.as_ref().filter(|source| source.subscription == self.subscription) {
                if !is_table_copy(source) {
                    own.last = Some((id, source.end_lsn));
                    break;
                }
                own.copies.push((id, source.commit_lsn));
            }
            next = commit.parents.first().copied();
        }
        Ok(own)
    }

    /// Not to be called by a thread that holds the branch's writer.
    pub(crate) fn set_position(&self, lsn: Lsn, last: Option<CommitId>, branch: &Branch) -> Result<JournalPosition> {
        let state = branch.state();
        let commit = if self.subscription == 0 { last } else { Some(state.head) };
        self.write("position", &Position { lsn, commit, working: state.applied_to_working })
    }

    /// The subscribed tables, by the primary's oid.
    pub(crate) fn tables(&self) -> Result<BTreeMap<u32, SubscribedTable>> {
        let prefix = format!("{}table/", self.prefix);
        let read = |(key, value): (String, Vec<u8>)| {
            let oid = key.strip_prefix(&prefix).and_then(|oid| oid.parse().ok());
            let table = String::from_utf8(value).ok().and_then(|text| text.parse().ok());
            oid.zip(table).ok_or_else(|| self.damaged(key.strip_prefix(&self.prefix).unwrap_or("table")))
        };
        self.store.list_state(&prefix).into_iter().map(read).collect()
    }

    /// Remembers, or (`None`) forgets a subscribed table.
    pub(crate) fn set_table(&self, oid: u32, table: Option<&SubscribedTable>) -> Result<JournalPosition> {
        let value = table.map(SubscribedTable::to_string);
        Ok(self.store.put_state(&format!("{}table/{oid}", self.prefix), value.as_deref().map(str::as_bytes))?)
    }

    /// Changes the state of a subscribed table, if it is one still.
    pub(crate) fn set_table_state(&self, oid: u32, state: SyncState) -> Result<()> {
        match self.tables()?.remove(&oid) {
            Some(table) => self.set_table(oid, Some(&table.with_state(state))).map(drop),
            None => Ok(()),
        }
    }

    /// Settles what became of copies that were under way when the process ended: a copy and its commit are one, so either it is there, or it is to be made.
    pub(crate) fn settle_copies(&self, branch: &Branch) -> Result<()> {
        let tables = self.tables()?;
        let is_open = |state| matches!(state, SyncState::Copying { .. } | SyncState::Finished { .. });
        let mut open = tables.iter().filter(|(_, table)| is_open(table.state)).peekable();
        if open.peek().is_none() {
            return Ok(());
        }
        let record: Option<Position> = self.read("position")?;
        let copies = self.committed_since(branch, record.and_then(|record| record.commit))?.copies;
        let root = branch.state().head_root;
        for (oid, table) in open {
            let SyncState::Copying { point } = table.state else {
                // What was copied beside the stream is gone with the process.
                self.set_table(*oid, Some(&table.with_state(SyncState::Init)))?;
                continue;
            };
            let local = root.catalog().table_by_name(&table.schema, &table.name).map(|local| local.oid);
            let mut is_there = false;
            for (id, _) in copies.iter().filter(|(_, at)| *at == point) {
                is_there |= self.store.commit(*id)?.changes()?.tables.iter().any(|change| Some(change.table) == local);
            }
            let state = if is_there { SyncState::Synced { point } } else { SyncState::Init };
            self.set_table(*oid, Some(&table.with_state(state)))?;
        }
        Ok(())
    }

    /// The transaction to skip, by the LSN of its commit record.
    pub(crate) fn skip(&self) -> Result<Option<Lsn>> {
        self.read("skip")
    }

    pub(crate) fn set_skip(&self, lsn: Option<Lsn>) -> Result<JournalPosition> {
        let value = lsn.map(|lsn| lsn.to_string());
        Ok(self.store.put_state(&format!("{}skip", self.prefix), value.as_deref().map(str::as_bytes))?)
    }

    pub(crate) fn slot_to_make(&self) -> Result<Option<SlotToMake>> {
        self.read("slot")
    }

    pub(crate) fn set_slot_to_make(&self, slot: Option<&SlotToMake>) -> Result<JournalPosition> {
        let value = slot.map(SlotToMake::to_string);
        Ok(self.store.put_state(&format!("{}slot", self.prefix), value.as_deref().map(str::as_bytes))?)
    }

    /// The name of a prepared transaction that is kept in a file.
    pub(crate) fn prepared(&self, xid: u32) -> Option<Vec<u8>> {
        self.store.get_state(&format!("{}prepared/{xid}", self.prefix))
    }

    /// Remembers, or (`None`) forgets that it is kept.
    pub(crate) fn set_prepared(&self, xid: u32, gid: Option<&str>) -> Result<JournalPosition> {
        Ok(self.store.put_state(&format!("{}prepared/{xid}", self.prefix), gid.map(str::as_bytes))?)
    }

    /// From when on we know of every prepared transaction of a slot; `None`: of none, or of another slot.
    pub(crate) fn prepared_known_from(&self, slot: &str) -> Result<Option<u32>> {
        let record: Option<TwoPhaseStart> = self.read("two_phase")?;
        Ok(record.filter(|record| record.slot_name == slot).map(|record| record.first_xid))
    }

    pub(crate) fn set_prepared_known_from(&self, slot: &str, first_xid: u32) -> Result<JournalPosition> {
        self.write("two_phase", &TwoPhaseStart { slot_name: slot.to_owned(), first_xid })
    }

    /// Where something is left out of the stream, or another one begins.
    pub(crate) fn forget_prepared_known(&self) -> Result<JournalPosition> {
        Ok(self.store.put_state(&format!("{}two_phase", self.prefix), None)?)
    }

    /// All transactions that are kept are those of a slot that is no more.
    pub(crate) fn forget_all_prepared(&self) -> Result<()> {
        for (key, _) in self.store.list_state(&format!("{}prepared/", self.prefix)) {
            self.store.put_state(&key, None)?;
        }
        self.forget_prepared_known().map(drop)
    }

    /// The beginning was an initial copy of ours. Where it was made by hand, what is missing here is missing on purpose.
    pub(crate) fn was_copied(&self) -> bool {
        self.store.get_state(&format!("{}copied", self.prefix)).is_some()
    }

    pub(crate) fn set_copied(&self) -> Result<JournalPosition> {
        Ok(self.store.put_state(&format!("{}copied", self.prefix), Some(b"t"))?)
    }

    /// Whether the subscription is enabled. A configured one is unless somebody disabled it.
    pub(crate) fn is_enabled(&self) -> bool {
        self.store.get_state(&format!("{}enabled", self.prefix)).is_none_or(|value| value == b"t")
    }

    pub(crate) fn set_enabled(&self, enabled: bool) -> Result<JournalPosition> {
        Ok(self.store.put_state(&format!("{}enabled", self.prefix), Some(if enabled { b"t" } else { b"f" }))?)
    }

    /// The contents of `pg_wal_location` that are ours.
    pub(crate) fn locations(&self) -> Result<Vec<Lsn>> {
        match self.store.get_state(&format!("{}location", self.prefix)) {
            None => Ok(Vec::new()),
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                text.split_whitespace().map(|lsn| lsn.parse().map_err(|_| self.damaged("location"))).collect()
            }
        }
    }

    pub(crate) fn set_locations(&self, locations: &[Lsn]) -> Result<JournalPosition> {
        let text = locations.iter().map(Lsn::to_string).collect::<Vec<_>>().join(" ");
        Ok(self.store.put_state(&format!("{}location", self.prefix), Some(text.as_bytes()))?)
    }

    /// The primary's tables as they were last replicated, by oid.
    pub(crate) fn relations(&self) -> Result<HashMap<u32, KnownRelation>> {
        let prefix = format!("{}relation/", self.prefix);
        let read = |(key, value): (String, Vec<u8>)| {
            let oid = key.strip_prefix(&prefix).and_then(|oid| oid.parse().ok());
            let relation = KnownRelation::decode(&value);
            oid.zip(relation).ok_or_else(|| self.damaged(key.strip_prefix(&self.prefix).unwrap_or("relation")))
        };
        let mut relations: HashMap<u32, KnownRelation> = self.store.list_state(&prefix).into_iter().map(read).collect::<Result<_>>()?;
        let prefix = format!("{}definition/", self.prefix);
        for (key, value) in self.store.list_state(&prefix) {
            let relation = key.strip_prefix(&prefix).and_then(|oid| relations.get_mut(&oid.parse().ok()?));
            // A later version may describe a table otherwise; what was taken over is then not known, which costs little.
            if let (Some(relation), Ok(details)) = (relation, serde_json::from_slice(&value)) {
                relation.details = Some(Arc::new(details));
            }
        }
        Ok(relations)
    }

    /// Remembers, or (`None`) forgets a table of the primary.
    pub(crate) fn set_relation(&self, oid: u32, relation: Option<&KnownRelation>) -> Result<JournalPosition> {
        let details = relation.and_then(|relation| serde_json::to_vec(relation.details.as_deref()?).ok());
        self.store.put_state(&format!("{}definition/{oid}", self.prefix), details.as_deref())?;
        let value = relation.map(KnownRelation::encode);
        let position = self.store.put_state(&format!("{}relation/{oid}", self.prefix), value.as_deref())?;
        match self.store.get_state(&format!("{}next-relation/{oid}", self.prefix)) {
            Some(_) => self.clear_next_relation(oid),
            None => Ok(position),
        }
    }

    /// Notes what a transaction makes of a table, before its commit: a crash between the commit and [`SourceRecords::set_relation`] must not leave the table
    /// one step ahead of what is known of it, as two renames cannot be told from a dropped and a new column.
    pub(crate) fn set_next_relation(&self, oid: u32, relation: Option<&KnownRelation>, commit: Lsn, xid: u32) -> Result<()> {
        let details = relation.and_then(|relation| serde_json::to_vec(relation.details.as_deref()?).ok());
        self.store.put_state(&format!("{}next-definition/{oid}", self.prefix), details.as_deref())?;
        let mut value = format!("{commit} {xid}\0").into_bytes();
        value.extend(relation.map(KnownRelation::encode).unwrap_or_default());
        self.store.put_state(&format!("{}next-relation/{oid}", self.prefix), Some(&value))?;
        Ok(())
    }

    fn clear_next_relation(&self, oid: u32) -> Result<JournalPosition> {
        self.store.put_state(&format!("{}next-definition/{oid}", self.prefix), None)?;
        Ok(self.store.put_state(&format!("{}next-relation/{oid}", self.prefix), None)?)
    }

    /// Takes what was noted before a commit as known if the commit is there.
    pub(crate) fn settle_relations(&self, is_committed: impl Fn(Lsn, u32) -> Result<bool>) -> Result<()> {
        let prefix = format!("{}next-relation/", self.prefix);
        for (key, value) in self.store.list_state(&prefix) {
            let damaged = || self.damaged(key.strip_prefix(&self.prefix).unwrap_or("next-relation"));
            let oid: u32 = key.strip_prefix(&prefix).and_then(|oid| oid.parse().ok()).ok_or_else(damaged)?;
            let end = value.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
            let (place, relation) = (std::str::from_utf8(&value[..end]).map_err(|_| damaged())?, &value[end + 1..]);
            let (commit, xid) =
                place.split_once(' ').and_then(|(lsn, xid)| Some((lsn.parse().ok()?, xid.parse().ok()?))).ok_or_else(damaged)?;
            if is_committed(commit, xid)? {
                let details = self.store.get_state(&format!("{}next-definition/{oid}", self.prefix));
                self.store.put_state(&format!("{}definition/{oid}", self.prefix), details.as_deref())?;
                let relation = Some(relation).filter(|relation| !relation.is_empty());
                self.store.put_state(&format!("{}relation/{oid}", self.prefix), relation)?;
            }
            self.clear_next_relation(oid)?;
        }
        Ok(())
    }

    fn read<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.store.get_state(&format!("{}{key}", self.prefix)) else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        text.parse().map(Some).map_err(|_| self.damaged(key))
    }

    fn write(&self, key: &str, value: &impl fmt::Display) -> Result<JournalPosition> {
        Ok(self.store.put_state(&format!("{}{key}", self.prefix), Some(value.to_string().as_bytes()))?)
    }

    fn damaged(&self, key: &str) -> Error {
        Error::Store(StoreError::Damaged { place: format!("state \"{}{key}\"", self.prefix), what: "not a record of this kind".into() })
    }
}

impl fmt::Display for TwoPhaseStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.slot_name, self.first_xid)
    }
}

impl FromStr for TwoPhaseStart {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (slot_name, first_xid) = text.split_once(' ').ok_or(())?;
        Ok(TwoPhaseStart { slot_name: slot_name.into(), first_xid: first_xid.parse().map_err(drop)? })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { system_id, timeline, slot_name, phase } = self;
        match phase {
            Phase::Copying => write!(f, "{system_id} {timeline} {slot_name} copying"),
            Phase::Copied { consistent_point } => write!(f, "{system_id} {timeline} {slot_name} copied {consistent_point}"),
            Phase::Streaming => write!(f, "{system_id} {timeline} {slot_name} streaming"),
        }
    }
}

impl FromStr for Source {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // A slot's name has lower-case letters, digits and underscores only.
        let words: Vec<&str> = text.split(' ').collect();
        let (system_id, timeline, slot_name, phase) = match words.as_slice() {
            [id, timeline, slot, "copying"] => (id, timeline, slot, Phase::Copying),
            [id, timeline, slot, "copied", lsn] => (id, timeline, slot, Phase::Copied { consistent_point: lsn.parse().map_err(drop)? }),
            [id, timeline, slot, "streaming"] => (id, timeline, slot, Phase::Streaming),
            _ => return Err(()),
        };
        Ok(Source { system_id: system_id.to_string(), timeline: timeline.parse().map_err(drop)?, slot_name: slot_name.to_string(), phase })
    }
}

impl fmt::Display for SlotToMake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.system_id, self.after)
    }
}

impl FromStr for SlotToMake {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (system_id, after) = text.split_once(' ').ok_or(())?;
        Ok(SlotToMake { system_id: system_id.to_owned(), after: after.parse().map_err(drop)? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.commit {
            Some(commit) => write!(f, "{} {commit} {}", self.lsn, self.working),
            None => write!(f, "{} - {}", self.lsn, self.working),
        }
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let &[lsn, commit, working] = words.as_slice() else { return Err(()) };
        let commit = if commit == "-" { None } else { Some(commit.parse().map_err(drop)?) };
        Ok(Position { lsn: lsn.parse().map_err(drop)?, commit, working: working.parse().map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        for phase in [Phase::Copying, Phase::Copied { consistent_point: Lsn(0x1_0000_0002) }, Phase::Streaming] {
            let source = Source { system_id: "7300000000000000001".into(), timeline: 3, slot_name: "my_slot".into(), phase };
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        for commit in [None, Some(CommitId::of(b"x"))] {
            let position = Position { lsn: Lsn(77), commit, working: Lsn(0) };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        let slot = SlotToMake { system_id: "7300000000000000001".into(), after: Lsn(77) };
        assert_eq!(slot.to_string().parse(), Ok(slot));
        assert!("7 x".parse::<SlotToMake>().is_err());
        assert!("".parse::<Position>().is_err() && "a b".parse::<Source>().is_err());
    }
}
