//! Placeholder: becomes the folder `tree/`.

use std::sync::Arc;

use crate::error::Result;
use crate::value::{Row, Value};

/// An ordered map from key bytes to rows.
#[derive(Clone, Debug)]
pub struct Tree {}

/// A forward or backward walk over a range of a tree.
pub struct Cursor {}

impl Cursor {
    /// The next run of rows within one leaf, in leaf order (a reverse scan gives leaves backwards and
    /// says so with `LeafRows::reverse`, rows to be read from `end - 1` down to `start`).
    pub fn next_leaf(&mut self) -> Result<Option<LeafRows>> {
        todo!()
    }

    /// Row by row: (key, row).
    pub fn next_row(&mut self) -> Result<Option<(Vec<u8>, Row)>> {
        todo!()
    }
}

/// Rows `start..end` of one leaf, shared, not copied.
#[derive(Clone, Debug)]
pub struct LeafRows {
    pub leaf: Arc<Leaf>,
    pub start: usize,
    pub end: usize,
    pub reverse: bool,
}

/// A leaf: columns kept together.
#[derive(Debug)]
pub struct Leaf {}

/// One column of a leaf, for copying straight into an Arrow array.
pub enum ColumnView<'a> {
    /// Little-endian values of fixed width (Bool: one byte each), null slots zero.
    Fixed { width: usize, data: &'a [u8], nulls: Nulls<'a> },
    /// `offsets` has rows + 1 entries, little-endian u32 each, into `data`.
    Variable { offsets: &'a [u8], data: &'a [u8], nulls: Nulls<'a> },
}

/// Which rows are null: `None` when none is; bit i of the little-endian bitmap set means row i is NOT null (Arrow's validity).
pub struct Nulls<'a>(pub Option<&'a [u8]>);

impl Leaf {
    pub fn row_count(&self) -> usize {
        todo!()
    }

    pub fn key(&self, row: usize) -> &[u8] {
        todo!()
    }

    pub fn column(&self, column: usize) -> ColumnView<'_> {
        todo!()
    }

    pub fn value(&self, row: usize, column: usize) -> Value {
        todo!()
    }
}
