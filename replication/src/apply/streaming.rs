//! Transactions that the primary sends while they run.
//!
//! Their blocks alternate with each other and with whole transactions, and are kept (`spool`) until the transaction's end says what becomes of them: Stream
//! Commit applies what is left after rolled back subtransactions, at its place in the order of commits, as one commit with the transaction's own
//! id, LSN and time; Stream Abort forgets.
//!
//! *Invariants:* nothing of a streamed transaction is seen, neither its rows nor its Relation messages, before its Stream Commit. It never holds back what
//! is confirmed: the primary sends it again, from its beginning, as long as its commit is not confirmed.

use strandline_storage::Lsn;

use super::{Applier, Current, Spool, Stored, decode, out_of_place};
use crate::error::{Error, Result};
use crate::pgoutput::{Begin, Message, MessageKind, StreamAbort, StreamCommit, StreamStart};

impl Applier {
    /// A message about a streamed transaction, outside of blocks.
    pub(super) fn take_streaming(&mut self, lsn: Lsn, payload: &[u8]) -> Result<()> {
        match decode(lsn, payload)? {
            Message::StreamStart(start) => self.begin_block(lsn, &start),
            Message::StreamCommit(end) => self.commit_streamed(lsn, &end),
            Message::StreamAbort(abort) => {
                self.abort_streamed(&abort);
                Ok(())
            }
            Message::StreamPrepare(prepare) => self.prepare_streamed(lsn, &prepare),
            _ => Err(out_of_place(lsn, payload)),
        }
    }

    fn begin_block(&mut self, lsn: Lsn, start: &StreamStart) -> Result<()> {
        tracing::debug!(xid = start.xid, first = start.first_segment, "block");
        if start.first_segment == self.spools.contains(start.xid) {
            let what = if start.first_segment {
                "the first block of a transaction that has one already"
            } else {
                "a later block of an unknown transaction"
            };
            return Err(Error::Protocol(format!("{what}: {} at {lsn}", start.xid)));
        }
        if start.first_segment {
            self.spools.begin(start.xid);
        }
        self.current = Current::Block { xid: start.xid };
        Ok(())
    }

    fn commit_streamed(&mut self, lsn: Lsn, end: &StreamCommit) -> Result<()> {
        let spool = self.spools.take(end.xid);
        let spool =
            spool.ok_or_else(|| Error::Protocol(format!("the commit of transaction {} at {lsn}, of which nothing was sent", end.xid)))?;
        let begin = Begin { commit_lsn: end.commit.commit_lsn, commit_time: end.commit.commit_time, xid: end.xid };
        if begin.commit_lsn < self.position {
            tracing::debug!(xid = end.xid, lsn = %begin.commit_lsn, "skipped a streamed transaction that is here already");
            return self.describe_only(&spool);
        }
        self.apply_kept(&begin, Stored::Spool(&spool), spool.size(), &end.commit)
    }

    /// Takes from a transaction that is not applied what the primary will not say again.
    pub(super) fn describe_only(&mut self, spool: &Spool) -> Result<()> {
        spool.read(|lsn, payload| match MessageKind::of(payload) {
            MessageKind::Description => self.describe(lsn, payload, false),
            _ => Ok(()),
        })
    }

    fn abort_streamed(&mut self, abort: &StreamAbort) {
        match abort.abort {
            None => tracing::debug!(xid = abort.xid, subxid = abort.subxid, "rolled back"),
            Some((lsn, time)) => tracing::debug!(xid = abort.xid, subxid = abort.subxid, %lsn, time = time.0, "rolled back"),
        }
        if abort.subxid == abort.xid {
            self.spools.take(abort.xid);
        } else {
            self.spools.abort_subtransaction(abort.xid, abort.subxid);
        }
    }
}
