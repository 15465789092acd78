//! Transactions that end in two steps: PREPARE TRANSACTION, and later COMMIT PREPARED or ROLLBACK PREPARED.
//!
//! With `two_phase` on, the primary sends such a transaction when it is prepared, so that little is left to do when it is committed. It is kept in a file
//! (`prepared`) and applied at Commit Prepared, as one commit with the LSN and the time of that. Nothing of it is seen before.

use std::collections::HashSet;

use strandline_storage::Lsn;

use super::{Applier, Current, SourceRelation, Spool, Stored, decode, out_of_place};
use crate::error::{Error, Result};
use crate::pgoutput::{Begin, CommitPrepared, Message, Prepare, ReplicaIdentity, RollbackPrepared};

impl Applier {
    /// A message about a two-phase transaction, outside of any.
    pub(super) fn take_two_phase(&mut self, lsn: Lsn, payload: &[u8]) -> Result<()> {
        match decode(lsn, payload)? {
            Message::BeginPrepare(prepare) => {
                tracing::debug!(xid = prepare.xid, lsn = %prepare.prepare_lsn, "begin of a prepared transaction");
                if self.spools.contains(prepare.xid) {
                    return Err(out_of_place(lsn, payload));
                }
                self.spools.begin(prepare.xid);
                self.current = Current::Preparing { xid: prepare.xid };
                Ok(())
            }
            Message::CommitPrepared(end) => self.commit_prepared(&end),
            Message::RollbackPrepared(end) => self.rollback_prepared(&end),
            _ => Err(out_of_place(lsn, payload)),
        }
    }

    /// The end of what Begin Prepare began.
    pub(super) fn prepare(&mut self, xid: u32, prepare: &Prepare<'_>) -> Result<()> {
        let spool = self.spools.take(xid).filter(|_| prepare.xid == xid);
        let spool = spool.ok_or_else(|| Error::Protocol(format!("the preparation of transaction {} within that of {xid}", prepare.xid)))?;
        self.keep_prepared(prepare, &spool)?;
        // The primary takes what it said of its tables here as said once and for all.
        self.describe_only(&spool)
    }

    pub(super) fn prepare_streamed(&mut self, lsn: Lsn, prepare: &Prepare<'_>) -> Result<()> {
        let what = || Error::Protocol(format!("the preparation of transaction {} at {lsn}, of which nothing was sent", prepare.xid));
        let spool = self.spools.take(prepare.xid).ok_or_else(what)?;
        self.keep_prepared(prepare, &spool)
    }

    /// Even where the position is behind the Prepare: after a restart the primary may send a transaction when it is committed that it has not sent
    /// when it was prepared.
    fn keep_prepared(&mut self, prepare: &Prepare<'_>, spool: &Spool) -> Result<()> {
        let preamble = self.preamble(spool)?;
        self.prepared.put(prepare, &preamble, spool)?;
        self.context.records.set_prepared(prepare.xid, Some(prepare.gid))?;
        tracing::info!(xid = prepare.xid, lsn = %prepare.prepare_lsn, gid = prepare.gid, "prepared transaction");
        self.idle = self.idle.max(prepare.end_lsn);
        // A user may wait for this, where we are a synchronous standby.
        self.record_idle(true)
    }

    fn commit_prepared(&mut self, end: &CommitPrepared<'_>) -> Result<()> {
        let begin = Begin { commit_lsn: end.commit.commit_lsn, commit_time: end.commit.commit_time, xid: end.xid };
        if begin.commit_lsn < self.position {
            tracing::debug!(xid = end.xid, lsn = %begin.commit_lsn, "skipped a prepared transaction that is here already");
            return self.forget_prepared(end.xid, end.gid);
        }
        let Some(file) = self.prepared.get(end.xid, end.gid).cloned() else {
            if self.was_empty(end.xid)? {
                tracing::info!(xid = end.xid, lsn = %begin.commit_lsn, gid = end.gid, "prepared transaction without changes");
                self.idle = self.idle.max(end.commit.end_lsn);
                return self.record_idle(true);
            }
            return Err(Error::Setup(format!(
                "transaction {} (\"{}\"), committed at {}, was prepared before and is not here: its file was removed from \"{}\", or another \
                 replica has used the slot; restore the file, or make a new replica",
                end.xid,
                end.gid,
                begin.commit_lsn,
                self.context.config.prepared_folder.display()
            )));
        };
        self.apply_kept(&begin, Stored::Prepared(&file), file.size(), &end.commit)?;
        // What it says of its tables was true when it was prepared.
        self.restore_relations();
        // The primary never sends it again, so the file goes last.
        self.record_idle(true)?;
        self.context.store.sync()?;
        self.forget_prepared(end.xid, end.gid)
    }

    /// Whether a transaction that is not here was never sent. A transaction that has written nothing to decode (row locks, say) is not sent when it is prepared, and
    /// before version 18 its end is sent all the same. Of what we had, a record is left if its file is gone; of what was prepared before we followed the slot, we
    /// know nothing.
    fn was_empty(&self, xid: u32) -> Result<bool> {
        let records = &self.context.records;
        let known_from = records.prepared_known_from(&self.context.config.slot_name)?;
        // The circle of ids is compared as PostgreSQL compares it: half of it lies behind.
        let is_known = known_from.is_some_and(|first| xid.wrapping_sub(first) as i32 >= 0);
        Ok(is_known && records.prepared(xid).is_none())
    }

    /// Removes what is kept of a transaction, where something is.
    fn forget_prepared(&mut self, xid: u32, gid: &str) -> Result<()> {
        if self.context.records.prepared(xid).is_some() {
            self.context.records.set_prepared(xid, None)?;
        }
        self.prepared.remove(xid, gid)
    }

    fn rollback_prepared(&mut self, end: &RollbackPrepared<'_>) -> Result<()> {
        tracing::info!(xid = end.xid, lsn = %end.end_lsn, gid = end.gid, "prepared transaction rolled back");
        self.forget_prepared(end.xid, end.gid)?;
        self.idle = self.idle.max(end.end_lsn);
        Ok(())
    }

    /// Removes files of transactions whose commits were durable when the process ended before it could remove them.
    pub(super) fn forget_committed(&mut self) -> Result<()> {
        let mut done = Vec::new();
        for (gid, file) in self.prepared.iter() {
            let store = &self.context.store;
            let mut is_done = false;
            for id in store.commits_of_source(&[self.context.branch.state().head], Some(file.xid), None)? {
                // A later transaction may have the same id, one turn of the circle later; so may another subscription's.
                is_done |= store.commit(id)?.meta.source.as_ref().is_some_and(|source| {
                    source.subscription == self.context.config.subscription_oid()
                        && source.commit_lsn > file.prepare_lsn
                        && source.commit_lsn < self.position
                });
            }
            if is_done {
                done.push((file.xid, gid.to_owned()));
            }
        }
        for (xid, gid) in done {
            tracing::debug!(xid, gid, "a prepared transaction was committed already");
            self.forget_prepared(xid, &gid)?;
        }
        // Those of an earlier version of this program.
        for (gid, file) in self.prepared.iter().filter(|(_, file)| self.context.records.prepared(file.xid).is_none()) {
            self.context.records.set_prepared(file.xid, Some(gid))?;
        }
        Ok(())
    }

    /// The messages that announce the tables of a transaction's changes, as they are known before it, where it does not announce them itself.
    fn preamble(&self, spool: &Spool) -> Result<Vec<Vec<u8>>> {
        let mut announced = HashSet::new();
        let mut needed = Vec::new();
        spool.read(|lsn, payload| {
            let mut need = |oid: u32| {
                if announced.insert(oid) {
                    needed.push(oid);
                }
            };
            match decode(lsn, payload)? {
                Message::Relation(relation) => {
                    announced.insert(relation.oid);
                }
                Message::Insert(insert) => need(insert.relation),
                Message::Update(update) => need(update.relation),
                Message::Delete(delete) => need(delete.relation),
                Message::Truncate(truncate) => truncate.relations.into_iter().for_each(need),
                _ => {}
            }
            Ok::<_, Error>(())
        })?;
        let mut preamble = Vec::new();
        // A table that is not known is an error at the commit, as it is without two phases.
        for source in needed.iter().filter_map(|oid| self.relations.get(oid)).map(|entry| &entry.source) {
            preamble.extend(self.announcement(source));
        }
        Ok(preamble)
    }

    /// The messages that announced a relation and its types.
    pub(super) fn announcement(&self, source: &SourceRelation) -> Vec<Vec<u8>> {
        let named = source.columns.iter().filter_map(|column| Some((column.type_oid, self.types.get(&column.type_oid)?)));
        let types = named.map(|(oid, (schema, name))| type_message(oid, schema, name));
        types.chain([relation_message(source)]).collect()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn type_message(oid: u32, schema: &str, name: &str) -> Vec<u8> {
    let mut out = vec![b'Y'];
    out.extend_from_slice(&oid.to_be_bytes());
    put_text(&mut out, schema);
    put_text(&mut out, name);
    out
}

/// The message that announced a relation.
fn relation_message(source: &SourceRelation) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend_from_slice(&source.oid.to_be_bytes());
    put_text(&mut out, &source.schema);
    put_text(&mut out, &source.name);
    out.push(match source.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    // The decoder took no more than fits.
    out.extend_from_slice(&(source.columns.len() as u16).to_be_bytes());
    for column in &source.columns {
        out.push(u8::from(column.key));
        put_text(&mut out, &column.name);
        out.extend_from_slice(&column.type_oid.to_be_bytes());
        out.extend_from_slice(&column.typmod.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::relation::SourceColumn;
    use super::*;

    #[test]
    fn descriptions_are_written_as_they_were_read() {
        let identities = [ReplicaIdentity::Default, ReplicaIdentity::Nothing, ReplicaIdentity::Full, ReplicaIdentity::Index];
        for (i, identity) in identities.into_iter().enumerate() {
            let column = |name: &str, key| SourceColumn { key, name: name.into(), type_oid: 1043, typmod: 24 };
            let columns = (0..i).map(|n| column(&format!("it's {n}"), n % 2 == 0)).collect();
            let source = SourceRelation { oid: 16385, schema: "We ird".into(), name: "Ta\"ble".into(), identity, columns };
            let message = relation_message(&source);
            let Ok(Message::Relation(relation)) = Message::decode(&message) else { panic!() };
            assert_eq!(SourceRelation::new(&relation), source);
        }
        let message = type_message(16400, "public", "mood");
        let Ok(Message::Type(r#type)) = Message::decode(&message) else { panic!() };
        assert_eq!((r#type.oid, r#type.schema, r#type.name), (16400, "public", "mood"));
    }
}
