//! The ends of two-phase transactions (protocol version 3).
//!
//! With `two_phase` on, a transaction that is prepared is sent at its PREPARE TRANSACTION, between Begin Prepare and Prepare (or in blocks, followed by
//! Stream Prepare). Commit Prepared or Rollback Prepared follows when the user decides, maybe much later, maybe on another connection.

use strandline_storage::{Lsn, Timestamp};

use super::DecodeError;
use super::fields::Fields;
use super::message::Commit;

/// A transaction was prepared. Begin Prepare says it ahead of the changes, Prepare and Stream Prepare behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// The LSN of the record that prepares it.
    pub prepare_lsn: Lsn,
    /// The end of that record.
    pub end_lsn: Lsn,
    pub prepare_time: Timestamp,
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: &'a str,
}

/// A prepared transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    pub commit: Commit,
    pub xid: u32,
    pub gid: &'a str,
}

/// A prepared transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// The end of the record that prepared it.
    pub prepare_end_lsn: Lsn,
    /// The end of the record that rolls it back.
    pub end_lsn: Lsn,
    pub prepare_time: Timestamp,
    pub rollback_time: Timestamp,
    pub xid: u32,
    pub gid: &'a str,
}

impl<'a> Prepare<'a> {
    pub(super) fn decode(f: &mut Fields<'a>) -> Result<Self, DecodeError> {
        Ok(Prepare {
            prepare_lsn: Lsn(f.u64("Prepare's LSN")?),
            end_lsn: Lsn(f.u64("Prepare's end LSN")?),
            prepare_time: Timestamp(f.i64("Prepare's time")?),
            xid: f.xid("Prepare's transaction id")?,
            gid: f.name("Prepare's gid")?,
        })
    }
}

impl<'a> CommitPrepared<'a> {
    pub(super) fn decode(f: &mut Fields<'a>) -> Result<Self, DecodeError> {
        let commit = super::message::decode_commit(f)?;
        Ok(CommitPrepared { commit, xid: f.xid("Commit Prepared's transaction id")?, gid: f.name("Commit Prepared's gid")? })
    }
}

impl<'a> RollbackPrepared<'a> {
    pub(super) fn decode(f: &mut Fields<'a>) -> Result<Self, DecodeError> {
        f.no_flags("Rollback Prepared's flags")?;
        Ok(RollbackPrepared {
            prepare_end_lsn: Lsn(f.u64("Rollback Prepared's prepare LSN")?),
            end_lsn: Lsn(f.u64("Rollback Prepared's end LSN")?),
            prepare_time: Timestamp(f.i64("Rollback Prepared's prepare time")?),
            rollback_time: Timestamp(f.i64("Rollback Prepared's time")?),
            xid: f.xid("Rollback Prepared's transaction id")?,
            gid: f.name("Rollback Prepared's gid")?,
        })
    }
}
