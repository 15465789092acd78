//! The shape of a tree's rows: one physical column after the other, with what is computed from it once.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tree::boundary::{LEAF_TARGET_MAX, LEAF_TARGET_MIN};
use crate::value::{Physical, Value};

/// The size that leaves are aimed at.
pub const LEAF_SIZE_TARGET: usize = 12 * 1024;

/// What a key is taken to need, and a value of the bytes shape, where nothing is known about them.
const KEY_SIZE_GUESS: usize = 12;
const BYTES_SIZE_GUESS: usize = 24;

/// The columns of a tree, in order. A secondary index has none.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    pub(crate) columns: Vec<Physical>,
    /// Bytes per row before column i, offsets of variable columns (4 each) included; one more entry for the total.
    pub(crate) widths_before: Vec<usize>,
    /// Variable columns before column i; one more entry for the total.
    pub(crate) variable_before: Vec<usize>,
}

/// The bytes that one value takes in a column of fixed width; `None` for the bytes shape.
pub(crate) fn fixed_width(physical: Physical) -> Option<usize> {
    match physical {
        Physical::Bool => Some(1),
        Physical::Int2 => Some(2),
        Physical::Int4 | Physical::Float4 => Some(4),
        Physical::Int8 | Physical::Float8 => Some(8),
        Physical::Uuid => Some(16),
        Physical::Bytes => None,
    }
}

pub(crate) fn physical_from_byte(byte: u8) -> Option<Physical> {
    Some(match byte {
        1 => Physical::Bool,
        2 => Physical::Int2,
        3 => Physical::Int4,
        4 => Physical::Int8,
        5 => Physical::Float4,
        6 => Physical::Float8,
        7 => Physical::Uuid,
        8 => Physical::Bytes,
        _ => return None,
    })
}

impl Layout {
    pub fn new(columns: Vec<Physical>) -> Arc<Self> {
        let mut widths_before = Vec::with_capacity(columns.len() + 1);
        let mut variable_before = Vec::with_capacity(columns.len() + 1);
        let (mut width, mut variable) = (0, 0);
        for &column in &columns {
            widths_before.push(width);
            variable_before.push(variable);
            width += fixed_width(column).unwrap_or(4);
            variable += usize::from(fixed_width(column).is_none());
        }
        widths_before.push(width);
        variable_before.push(variable);
        Arc::new(Layout { columns, widths_before, variable_before })
    }

    pub fn columns(&self) -> &[Physical] {
        &self.columns
    }

    /// How many rows a leaf should have when nothing is known about the sizes of values.
    pub(crate) fn default_target(&self) -> u32 {
        self.target_for(KEY_SIZE_GUESS + BYTES_SIZE_GUESS * self.variable_count() + self.fixed_size())
    }

    /// How many rows of this mean size fill a leaf.
    pub(crate) fn target_for(&self, row_size: usize) -> u32 {
        ((LEAF_SIZE_TARGET / row_size.max(1)) as u32).clamp(LEAF_TARGET_MIN, LEAF_TARGET_MAX)
    }

    /// Bytes of a row without the contents of variable values.
    pub(crate) fn fixed_size(&self) -> usize {
        self.widths_before[self.columns.len()] + self.columns.len().div_ceil(8)
    }

    pub(crate) fn variable_count(&self) -> usize {
        self.variable_before[self.columns.len()]
    }

    /// Checks that every value has its column's shape.
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check_row(&self, row: &[Value]) -> Result<()> {
        if row.len() != self.columns.len() {
            return Err(Error::Invalid(format!("a row has {} values, its table {} columns", row.len(), self.columns.len())));
        }
        for (i, value) in row.iter().enumerate() {
            self.check_value(i, value)?;
        }
        Ok(())
    }

    pub(crate) fn check_value(&self, column: usize, value: &Value) -> Result<()> {
        let fits = match (self.columns.get(column), value) {
            (Some(_), Value::Null) => true,
            (Some(Physical::Bool), Value::Bool(_))
            | (Some(Physical::Int2), Value::Int2(_))
            | (Some(Physical::Int4), Value::Int4(_))
            | (Some(Physical::Int8), Value::Int8(_))
            | (Some(Physical::Float4), Value::Float4(_))
            | (Some(Physical::Float8), Value::Float8(_))
            | (Some(Physical::Uuid), Value::Uuid(_)) => true,
            (Some(Physical::Bytes), Value::Bytes(b)) => {
                if b.len() > super::VALUE_SIZE_MAX {
                    return Err(Error::Limit { what: "size of a value", limit: super::VALUE_SIZE_MAX as u64 });
                }
                true
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(Error::Invalid(format!("value at position {column} does not have the shape of its column"))) }
    }
}
