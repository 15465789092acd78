//! Walks over the graph of commits.

use std::collections::{BinaryHeap, HashMap};

use super::{CommitIndex, CommitNumber};
use crate::error::Result;
use crate::id::Timestamp;

/// A walk over the commits reachable from some heads and not from others: every commit before its parents, higher first.
#[derive(Debug)]
pub(crate) struct LogWalk {
    open: BinaryHeap<(u64, Timestamp, CommitNumber)>,
    /// Whether a commit among `open` is hidden.
    hidden: HashMap<CommitNumber, bool>,
    visible_count: usize,
}

impl LogWalk {
    /// # Errors
    /// `Damaged`.
    pub fn new(index: &CommitIndex, heads: &[CommitNumber], hidden: &[CommitNumber]) -> Result<Self> {
        let mut walk = LogWalk { open: BinaryHeap::new(), hidden: HashMap::new(), visible_count: 0 };
        for head in heads {
            walk.push(index, *head, false)?;
        }
        for head in hidden {
            walk.push(index, *head, true)?;
        }
        Ok(walk)
    }

    fn push(&mut self, index: &CommitIndex, number: CommitNumber, hidden: bool) -> Result<()> {
        match self.hidden.insert(number, hidden) {
            None => {
                self.open.push(index.order(number)?);
                self.visible_count += usize::from(!hidden);
            }
            Some(before) => {
                // Hidden stays hidden.
                self.hidden.insert(number, before || hidden);
                self.visible_count -= usize::from(hidden && !before);
            }
        }
        Ok(())
    }

    /// # Errors
    /// `Damaged`.
    pub fn next(&mut self, index: &CommitIndex) -> Result<Option<CommitNumber>> {
        while self.visible_count > 0 {
            let Some((_, _, number)) = self.open.pop() else { break };
            // A commit's descendants come before it, so nothing changes about it any more.
            let hidden = self.hidden.remove(&number).expect("BUG: an open commit is not known");
            self.visible_count -= usize::from(!hidden);
            for parent in index.parents(number)? {
                self.push(index, parent, hidden)?;
            }
            if !hidden {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}
