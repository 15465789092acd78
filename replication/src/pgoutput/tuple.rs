//! A row as the stream carries it: a value, a null or "unchanged" for each published column.

use super::fields::Fields;
use super::{COLUMN_COUNT_MAX, DecodeError};

/// One column of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TupleValue<'a> {
    /// NULL; in a key-only old tuple it also stands for every column outside of the key.
    Null,
    /// A value kept out of line that the update did not touch, and that is therefore not sent.
    Unchanged,
    /// The value as text.
    Text(&'a [u8]),
    /// The value in its type's binary form.
    Binary(&'a [u8]),
}

/// A tuple, checked from end to end; its values are read when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    column_count: usize,
    values: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Takes a tuple off the front of the fields and checks all of it.
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, DecodeError> {
        let column_count = usize::from(fields.u16("the tuple's column count")?);
        if column_count > COLUMN_COUNT_MAX {
            return Err(DecodeError::Limit { field: "the tuple's column count", limit: COLUMN_COUNT_MAX });
        }
        let before = fields.rest();
        for _ in 0..column_count {
            decode_value(fields)?;
        }
        let size = before.len() - fields.rest().len();
        Ok(Tuple { column_count, values: &before[..size] })
    }

    pub fn column_count(&self) -> usize {
        self.column_count
    }

    /// The values in column order.
    pub fn values(&self) -> TupleValues<'a> {
        TupleValues { fields: Fields::new(self.values), left: self.column_count }
    }
}

/// The values of a tuple, one by one.
#[derive(Clone, Debug)]
pub struct TupleValues<'a> {
    fields: Fields<'a>,
    left: usize,
}

impl<'a> Iterator for TupleValues<'a> {
    type Item = TupleValue<'a>;

    #[inline]
    fn next(&mut self) -> Option<TupleValue<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `Tuple::decode` walked the same bytes, so this cannot fail.
        decode_value(&mut self.fields).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for TupleValues<'_> {}

#[inline]
fn decode_value<'a>(fields: &mut Fields<'a>) -> Result<TupleValue<'a>, DecodeError> {
    match fields.u8("a column's kind")? {
        b'n' => Ok(TupleValue::Null),
        b'u' => Ok(TupleValue::Unchanged),
        b't' => {
            let size = fields.size("a column's size")?;
            fields.bytes(size, "a column's text").map(TupleValue::Text)
        }
        b'b' => {
            let size = fields.size("a column's size")?;
            fields.bytes(size, "a column's binary value").map(TupleValue::Binary)
        }
        other => Err(DecodeError::InvalidField { field: "a column's kind", value: i64::from(other) }),
    }
}
