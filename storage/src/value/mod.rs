//! Values as PostgreSQL means them, without loss.
//!
//! A [`Value`] is physical: the few shapes that a tree leaf can hold. A [`DataType`] says what such a value
//! means and how its text looks. Types that sort in a way of their own (numeric, interval) are held as
//! bytes that sort like them; a type without an encoding of its own is held as its exact text.

pub mod array;
mod binary;
mod bits;
pub mod boolean;
mod builtin;
pub mod bytea;
pub mod character;
mod data_type;
pub mod datetime;
pub mod float;
pub mod integer;
pub mod json;
pub mod key;
pub mod money;
pub mod network;
pub mod numeric;
mod other;
#[cfg(test)]
mod postgres_cases;
pub mod range;
pub mod text;
pub mod uuid;

pub use data_type::{DataType, Kind, Physical};
pub use numeric::Numeric;
pub use text::TextSettings;

/// One column's value in its physical shape; see [`Kind`] for which type uses which.
#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Uuid([u8; 16]),
    Bytes(Box<[u8]>),
}

/// A row: one value per column of its table, in column order.
pub type Row = Vec<Value>;

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// A value of the bytes shape from anything that has bytes.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Value::Bytes(bytes.as_ref().into())
    }
}

/// Equality of stored bytes: NaN equals itself, and -0.0 differs from 0.0, so that a change between them is a change.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (Bool(a), Bool(b)) => a == b,
            (Int2(a), Int2(b)) => a == b,
            (Int4(a), Int4(b)) => a == b,
            (Int8(a), Int8(b)) => a == b,
            (Float4(a), Float4(b)) => a.to_bits() == b.to_bits(),
            (Float8(a), Float8(b)) => a.to_bits() == b.to_bits(),
            (Uuid(a), Uuid(b)) => a == b,
            (Bytes(a), Bytes(b)) => a == b,
            _ => false,
        }
    }
}
impl Eq for Value {}

/// White space as C's `isspace` has it, which is what PostgreSQL skips around a value's text.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}
