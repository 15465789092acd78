//! What frames the blocks of transactions that are sent while they still run (protocol version 2).
//!
//! A running transaction that outgrows `logical_decoding_work_mem` on the primary is sent in blocks: Stream Start with its id, changes, Stream Stop. Blocks of
//! several transactions alternate, but one never lies within another. A transaction ends with Stream Commit or with Stream Abort, outside of blocks; a Stream Abort that
//! names a subtransaction takes only that one's changes back.

use strandline_storage::{Lsn, Timestamp};

use super::DecodeError;
use super::fields::Fields;
use super::message::{Commit, decode_commit};

/// A block of a running transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    pub xid: u32,
    /// This is the transaction's first block.
    pub first_segment: bool,
}

/// A streamed transaction is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    pub xid: u32,
    pub commit: Commit,
}

/// A streamed transaction or one of its subtransactions was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    pub xid: u32,
    /// What was rolled back; the same as `xid` for the whole transaction.
    pub subxid: u32,
    /// Where and when; only sent with `streaming 'parallel'` (protocol version 4).
    pub abort: Option<(Lsn, Timestamp)>,
}

impl StreamStart {
    pub(super) fn decode(f: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let xid = f.xid("Stream Start's transaction id")?;
        match f.u8("Stream Start's segment flag")? {
            flag @ (0 | 1) => Ok(StreamStart { xid, first_segment: flag == 1 }),
            other => Err(DecodeError::InvalidField { field: "Stream Start's segment flag", value: i64::from(other) }),
        }
    }
}

impl StreamCommit {
    pub(super) fn decode(f: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(StreamCommit { xid: f.xid("Stream Commit's transaction id")?, commit: decode_commit(f)? })
    }
}

impl StreamAbort {
    pub(super) fn decode(f: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let xid = f.xid("Stream Abort's transaction id")?;
        let subxid = f.xid("Stream Abort's subtransaction id")?;
        let abort =
            if f.rest().is_empty() { None } else { Some((Lsn(f.u64("Stream Abort's LSN")?), Timestamp(f.i64("Stream Abort's time")?))) };
        Ok(StreamAbort { xid, subxid, abort })
    }
}
