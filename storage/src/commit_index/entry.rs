//! What the index knows of one commit.

use super::{CommitNumber, NONE};
use crate::id::{CommitId, Lsn, Timestamp};

/// What is known of a commit without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitEntry {
    pub id: CommitId,
    /// The sequence number of its record.
    pub sequence: u64,
    pub height: u64,
    /// The source's commit LSN; `Lsn(u64::MAX)` without a source.
    pub lsn: Lsn,
    pub xid: u32,
    /// The source's commit time, otherwise its own.
    pub time: Timestamp,
    /// See `change_set::touched_mask`.
    pub touched: u32,
    pub(super) parent: CommitNumber,
    pub(super) jump: CommitNumber,
    /// The number of commits before it on its first-parent line.
    pub(super) depth: u32,
    /// The LSN of the last commit on the line up to this one that has a source; 0 for none.
    pub(super) near_lsn: u64,
    /// What is known of the LSNs from here to the jump, the jump not included...
    pub(super) lsn_slack: Slack,
    /// ... and of the times.
    pub(super) time_slack: Slack,
    pub(super) has_more_parents: bool,
}

/// What a new commit tells the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewCommit {
    pub id: CommitId,
    pub sequence: u64,
    pub height: u64,
    pub lsn: Lsn,
    pub xid: u32,
    pub time: Timestamp,
    pub touched: u32,
}

impl CommitEntry {
    pub fn has_source(&self) -> bool {
        self.lsn.0 != u64::MAX
    }

    /// Whether the first parent of this commit, which has this number, is another one than the commit before it.
    pub(super) fn is_break(&self, number: CommitNumber) -> bool {
        Some(self.parent) != number.checked_sub(1)
    }

    /// The time as a number in the same order.
    pub(super) fn time_key(&self) -> u64 {
        time_key(self.time)
    }

    /// A number that no LSN between this commit and its jump, which is `far`, is below; `None` when no commit there has a source.
    pub(super) fn least_lsn(&self, far: &CommitEntry) -> Option<u64> {
        self.lsn_slack.least(far.near_lsn)
    }

    pub(super) fn least_time(&self, far: &CommitEntry) -> Option<u64> {
        self.time_slack.least(far.time_key())
    }

    /// The entry of a commit after its first parent `above`, with the parent's jump and the jump's.
    pub(super) fn after(commit: &NewCommit, parent: CommitNumber, above: Option<Above>) -> CommitEntry {
        let own_lsn = (commit.lsn.0 != u64::MAX).then_some(commit.lsn.0);
        let mut entry = CommitEntry {
            id: commit.id,
            sequence: commit.sequence,
            height: commit.height,
            lsn: commit.lsn,
            xid: commit.xid,
            time: commit.time,
            touched: commit.touched,
            parent: NONE,
            jump: NONE,
            depth: 0,
            near_lsn: own_lsn.unwrap_or(0),
            lsn_slack: Slack::NOTHING,
            time_slack: Slack::NOTHING,
            has_more_parents: false,
        };
        let Some(above) = above else { return entry };
        let own_time = Some(entry.time_key());
        entry.parent = parent;
        entry.depth = above.entry.depth + 1;
        entry.near_lsn = own_lsn.unwrap_or(above.entry.near_lsn);
        entry.jump = parent;
        entry.lsn_slack = Slack::of(above.entry.near_lsn, own_lsn);
        entry.time_slack = Slack::of(above.entry.time_key(), own_time);
        if let Some((far, farther)) = above.jumps
            && above.entry.depth - far.depth == far.depth - farther.depth
        {
            // Two stretches of the same length become one.
            let least = |own: Option<u64>, near: Option<u64>, far: Option<u64>| own.into_iter().chain(near).chain(far).min();
            entry.jump = far.jump;
            let lsn = least(own_lsn, above.entry.least_lsn(&far), far.least_lsn(&farther));
            entry.lsn_slack = Slack::of(farther.near_lsn, lsn);
            let time = least(own_time, above.entry.least_time(&far), far.least_time(&farther));
            entry.time_slack = Slack::of(farther.time_key(), time);
        }
        entry
    }
}

/// How far back the jump of a commit of this depth lies, in commits, where the commits of its line follow each other: the last of the
/// numbers 2^k - 1 that make up the depth, the largest first.
pub(super) fn line_jump(depth: u32) -> u64 {
    let (mut rest, mut last) = (u64::from(depth), 0);
    while rest > 0 {
        last = (1 << (rest + 1).ilog2()) - 1;
        rest -= last;
    }
    last
}

/// A first parent, its jump, and its jump's jump.
pub(super) struct Above {
    pub entry: CommitEntry,
    pub jumps: Option<(CommitEntry, CommitEntry)>,
}

pub(super) fn time_key(time: Timestamp) -> u64 {
    time.0 as u64 ^ 1 << 63
}

pub(super) fn time_of_key(key: u64) -> Timestamp {
    Timestamp((key ^ 1 << 63) as i64)
}

/// How far the smallest value of a stretch of commits lies below the value at its far end, in one byte, rounded up to a power
/// of two. On a line whose values ascend that is nothing, and where neighbours have changed places it is little; so the
/// bound that it gives is a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slack(pub u8);

impl Slack {
    /// There is no value in the stretch.
    pub const NOTHING: Slack = Slack(u8::MAX);

    fn of(far: u64, least: Option<u64>) -> Slack {
        match least {
            None => Slack::NOTHING,
            Some(least) if least >= far => Slack(0),
            Some(least) => Slack(65 - (far - least - 1).leading_zeros() as u8),
        }
    }

    /// A number that no value of the stretch is below.
    fn least(self, far: u64) -> Option<u64> {
        match self.0 {
            u8::MAX => None,
            0 => Some(far),
            n => Some(far.saturating_sub(1u64.checked_shl(u32::from(n) - 1).unwrap_or(u64::MAX))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slack_never_promises_too_much_and_at_most_doubles_the_distance() {
        let values = [0, 1, 2, 3, 100, 1 << 20, (1 << 40) + 17, u64::MAX - 1, u64::MAX];
        for far in values {
            for least in values {
                let bound = Slack::of(far, Some(least)).least(far).unwrap();
                assert!(bound <= least, "{far} {least} {bound}");
                if least < far {
                    assert!(far - bound < (far - least).saturating_mul(2) || bound == 0, "{far} {least} {bound}");
                }
            }
            assert_eq!(Slack::of(far, None).least(far), None);
        }
    }
}
