//! What the store remembers about the source: whose changes these are, and where to go on.
//!
//! | state key (under `replication/DATABASE/BRANCH/`) | content |
//! |---|---|
//! | `source` | system identifier, timeline, slot's name, phase (with the consistent point) |
//! | `position` | an LSN, the id of the last replicated commit at that time (`-`: none), and the working set's position at that time |
//! | `relation/OID` | the primary's table of this oid as it was last replicated |
//! | `location` | the LSNs that `pg_wal_location` may hold by our own hand: the last written and the one before |
//!
//! A replicated commit carries its end LSN, so position and data move in one record. `position` is for progress without a commit: an idle
//! stream, a start given by the user. Changes that only go to the working set carry their end LSN in the working set's record.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use strandline_storage::store::{Branch, JournalPosition, Store};
use strandline_storage::{CommitId, Error as StoreError, Lsn};

use crate::apply::KnownRelation;
use crate::error::{Error, Result};

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

/// The records of one branch.
#[derive(Clone)]
pub(crate) struct SourceRecords {
    store: Arc<Store>,
    prefix: String,
}

impl SourceRecords {
    pub(crate) fn new(store: Arc<Store>, database: &str, branch: &str) -> Self {
        SourceRecords { store, prefix: Store::source_state_prefix(database, branch) }
    }

    pub(crate) fn source(&self) -> Result<Option<Source>> {
        self.read("source")
    }

    pub(crate) fn set_source(&self, source: &Source) -> Result<JournalPosition> {
        self.write("source", source)
    }

    /// Where the stream goes on: the last replicated commit's end, or the `position` record where that is newer. `None` before the first.
    pub(crate) fn position(&self, branch: &Branch) -> Result<(Option<Lsn>, Option<CommitId>)> {
        let commit = last_replicated(&self.store, branch)?;
        let working = branch.state().applied_to_working;
        let record: Option<Position> = self.read("position")?;
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

    /// Not to be called by a thread that holds the branch's writer.
    pub(crate) fn set_position(&self, lsn: Lsn, commit: Option<CommitId>, branch: &Branch) -> Result<JournalPosition> {
        self.write("position", &Position { lsn, commit, working: branch.state().applied_to_working })
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
        self.store.list_state(&prefix).into_iter().map(read).collect()
    }

    /// Remembers, or (`None`) forgets a table of the primary.
    pub(crate) fn set_relation(&self, oid: u32, relation: Option<&KnownRelation>) -> Result<JournalPosition> {
        let value = relation.map(KnownRelation::encode);
        Ok(self.store.put_state(&format!("{}relation/{oid}", self.prefix), value.as_deref())?)
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

/// The last commit on the branch's first-parent line that came from the source, with its end LSN.
pub(crate) fn last_replicated(store: &Store, branch: &Branch) -> Result<Option<(CommitId, Lsn)>> {
    let Some(id) = store.commit_at_lsn(branch.state().head, Lsn(u64::MAX))? else { return Ok(None) };
    Ok(store.commit(id)?.meta.source.as_ref().map(|source| (id, source.end_lsn)))
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
        assert!("".parse::<Position>().is_err() && "a b".parse::<Source>().is_err());
    }
}
