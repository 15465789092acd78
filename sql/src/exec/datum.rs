//! One value while an expression is evaluated, and the way between values and Arrow arrays.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Float32Array,
    Float32Builder, Float64Array, Float64Builder, Int16Array, Int16Builder, Int32Array, Int32Builder, Int64Array, Int64Builder,
    StringArray, StringBuilder, new_null_array,
};
use datafusion::arrow::datatypes::DataType as ArrowType;
use strandline_storage::{Kind, Physical, Value};

use crate::error::{ErrorCode, Result, SqlError};

/// A value that may borrow its bytes from the row it came from; otherwise as [`Value`].
#[derive(Clone, Debug, Default)]
pub enum Datum<'a> {
    #[default]
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Uuid([u8; 16]),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Datum::Null,
            Value::Bool(v) => Datum::Bool(*v),
            Value::Int2(v) => Datum::Int2(*v),
            Value::Int4(v) => Datum::Int4(*v),
            Value::Int8(v) => Datum::Int8(*v),
            Value::Float4(v) => Datum::Float4(*v),
            Value::Float8(v) => Datum::Float8(*v),
            Value::Uuid(v) => Datum::Uuid(*v),
            Value::Bytes(v) => Datum::Bytes(Cow::Borrowed(v)),
        }
    }
}

impl From<Value> for Datum<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Datum::Null,
            Value::Bool(v) => Datum::Bool(v),
            Value::Int2(v) => Datum::Int2(v),
            Value::Int4(v) => Datum::Int4(v),
            Value::Int8(v) => Datum::Int8(v),
            Value::Float4(v) => Datum::Float4(v),
            Value::Float8(v) => Datum::Float8(v),
            Value::Uuid(v) => Datum::Uuid(v),
            Value::Bytes(v) => Datum::Bytes(Cow::Owned(v.into_vec())),
        }
    }
}

impl Datum<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    pub fn into_value(self) -> Value {
        match self {
            Datum::Null => Value::Null,
            Datum::Bool(v) => Value::Bool(v),
            Datum::Int2(v) => Value::Int2(v),
            Datum::Int4(v) => Value::Int4(v),
            Datum::Int8(v) => Value::Int8(v),
            Datum::Float4(v) => Value::Float4(v),
            Datum::Float8(v) => Value::Float8(v),
            Datum::Uuid(v) => Value::Uuid(v),
            Datum::Bytes(v) => Value::Bytes(v.into_owned().into_boxed_slice()),
        }
    }

    /// A second reference to the same bytes.
    pub fn borrowed(&self) -> Datum<'_> {
        match self {
            Datum::Bytes(v) => Datum::Bytes(Cow::Borrowed(v)),
            Datum::Null => Datum::Null,
            Datum::Bool(v) => Datum::Bool(*v),
            Datum::Int2(v) => Datum::Int2(*v),
            Datum::Int4(v) => Datum::Int4(*v),
            Datum::Int8(v) => Datum::Int8(*v),
            Datum::Float4(v) => Datum::Float4(*v),
            Datum::Float8(v) => Datum::Float8(*v),
            Datum::Uuid(v) => Datum::Uuid(*v),
        }
    }

    // The readers below give a neutral value for a shape that the binder's types rule out, so that a fault elsewhere cannot panic.

    pub fn bool(&self) -> bool {
        matches!(self, Datum::Bool(true))
    }

    /// Any integer shape.
    pub fn int(&self) -> i64 {
        match self {
            Datum::Int2(v) => i64::from(*v),
            Datum::Int4(v) => i64::from(*v),
            Datum::Int8(v) => *v,
            Datum::Bool(v) => i64::from(*v),
            _ => 0,
        }
    }

    /// Any integer shape, cut to 32 bits.
    pub fn int4(&self) -> i32 {
        self.int() as i32
    }

    /// Any float or integer shape.
    pub fn float(&self) -> f64 {
        match self {
            Datum::Float4(v) => f64::from(*v),
            Datum::Float8(v) => *v,
            other => other.int() as f64,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Datum::Bytes(v) => v,
            Datum::Uuid(v) => v,
            _ => &[],
        }
    }

    /// Text; bytes that are not UTF-8 end it.
    pub fn str(&self) -> &str {
        let bytes = self.bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// An integer in the shape of its type: a constant of one integer type may be relabelled to another (int4 to oid).
pub fn shaped(value: &Value, kind: Kind) -> Value {
    let number = match value {
        Value::Int2(v) => i64::from(*v),
        Value::Int4(v) => i64::from(*v),
        Value::Int8(v) => *v,
        other => return other.clone(),
    };
    let converted = match kind.physical() {
        Physical::Int2 => i16::try_from(number).ok().map(Value::Int2),
        Physical::Int4 => i32::try_from(number).ok().map(Value::Int4),
        // An oid is unsigned.
        Physical::Int8 if kind == Kind::Oid && number < 0 => Some(Value::Int8(i64::from(number as u32))),
        Physical::Int8 => Some(Value::Int8(number)),
        _ => None,
    };
    converted.unwrap_or_else(|| value.clone())
}

/// An Arrow array as a column of values.
#[derive(Clone, Copy)]
pub enum ColumnRef<'a> {
    Null,
    Bool(&'a BooleanArray),
    Int2(&'a Int16Array),
    Int4(&'a Int32Array),
    Int8(&'a Int64Array),
    Float4(&'a Float32Array),
    Float8(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
}

impl<'a> ColumnRef<'a> {
    /// # Errors
    /// `InternalError` for a shape that is none of ours.
    pub fn new(array: &'a dyn Array) -> Result<Self> {
        let any = array.as_any();
        macro_rules! shape {
            ($variant:ident, $array:ty) => {
                any.downcast_ref::<$array>().map(ColumnRef::$variant)
            };
        }
        let column = match array.data_type() {
            ArrowType::Null => Some(ColumnRef::Null),
            ArrowType::Boolean => shape!(Bool, BooleanArray),
            ArrowType::Int16 => shape!(Int2, Int16Array),
            ArrowType::Int32 => shape!(Int4, Int32Array),
            ArrowType::Int64 => shape!(Int8, Int64Array),
            ArrowType::Float32 => shape!(Float4, Float32Array),
            ArrowType::Float64 => shape!(Float8, Float64Array),
            ArrowType::Utf8 => shape!(Text, StringArray),
            ArrowType::Binary => shape!(Bytes, BinaryArray),
            ArrowType::FixedSizeBinary(16) => shape!(Fixed, FixedSizeBinaryArray),
            _ => None,
        };
        column.ok_or_else(|| SqlError::new(ErrorCode::InternalError, format!("unexpected column shape {}", array.data_type())))
    }

    pub fn get(self, row: usize) -> Datum<'a> {
        macro_rules! cell {
            ($array:expr, $make:expr) => {
                if $array.is_null(row) { Datum::Null } else { $make($array.value(row)) }
            };
        }
        match self {
            ColumnRef::Null => Datum::Null,
            ColumnRef::Bool(a) => cell!(a, Datum::Bool),
            ColumnRef::Int2(a) => cell!(a, Datum::Int2),
            ColumnRef::Int4(a) => cell!(a, Datum::Int4),
            ColumnRef::Int8(a) => cell!(a, Datum::Int8),
            ColumnRef::Float4(a) => cell!(a, Datum::Float4),
            ColumnRef::Float8(a) => cell!(a, Datum::Float8),
            ColumnRef::Text(a) => cell!(a, |v: &'a str| Datum::Bytes(Cow::Borrowed(v.as_bytes()))),
            ColumnRef::Bytes(a) => cell!(a, |v: &'a [u8]| Datum::Bytes(Cow::Borrowed(v))),
            ColumnRef::Fixed(a) => cell!(a, |v: &[u8]| {
                let mut uuid = [0; 16];
                uuid.copy_from_slice(v);
                Datum::Uuid(uuid)
            }),
        }
    }
}

/// The columns of a batch, ready to be read by row.
///
/// # Errors
/// `InternalError` for a shape that is none of ours.
pub fn column_refs(arrays: &[ArrayRef]) -> Result<Vec<ColumnRef<'_>>> {
    arrays.iter().map(|a| ColumnRef::new(a.as_ref())).collect()
}

/// Collects values into an Arrow array of one of our shapes.
pub enum ColumnBuilder {
    Null(usize),
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Fixed(FixedSizeBinaryBuilder),
}

impl ColumnBuilder {
    /// `arrow` is a type that `types::arrow_type` gives, or Null.
    pub fn new(arrow: &ArrowType, capacity: usize) -> Self {
        match arrow {
            ArrowType::Boolean => ColumnBuilder::Bool(BooleanBuilder::with_capacity(capacity)),
            ArrowType::Int16 => ColumnBuilder::Int2(Int16Builder::with_capacity(capacity)),
            ArrowType::Int32 => ColumnBuilder::Int4(Int32Builder::with_capacity(capacity)),
            ArrowType::Int64 => ColumnBuilder::Int8(Int64Builder::with_capacity(capacity)),
            ArrowType::Float32 => ColumnBuilder::Float4(Float32Builder::with_capacity(capacity)),
            ArrowType::Float64 => ColumnBuilder::Float8(Float64Builder::with_capacity(capacity)),
            ArrowType::Binary => ColumnBuilder::Bytes(BinaryBuilder::with_capacity(capacity, capacity * 8)),
            ArrowType::FixedSizeBinary(_) => ColumnBuilder::Fixed(FixedSizeBinaryBuilder::with_capacity(capacity, 16)),
            ArrowType::Null => ColumnBuilder::Null(0),
            _ => ColumnBuilder::Text(StringBuilder::with_capacity(capacity, capacity * 8)),
        }
    }

    /// # Errors
    /// `InternalError` when the value has another shape than the column.
    pub fn push(&mut self, datum: &Datum<'_>) -> Result<()> {
        let held = match &*self {
            ColumnBuilder::Text(b) => b.values_slice().len(),
            ColumnBuilder::Bytes(b) => b.values_slice().len(),
            _ => 0,
        };
        if held + datum.bytes().len() > i32::MAX as usize {
            return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "a batch of rows exceeds 2 GB"));
        }
        match (self, datum) {
            (ColumnBuilder::Null(n), _) => *n += 1,
            (ColumnBuilder::Bool(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Bool(b), Datum::Bool(v)) => b.append_value(*v),
            (ColumnBuilder::Int2(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Int2(b), Datum::Int2(v)) => b.append_value(*v),
            (ColumnBuilder::Int4(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Int4(b), Datum::Int4(v)) => b.append_value(*v),
            (ColumnBuilder::Int8(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Int8(b), Datum::Int8(v)) => b.append_value(*v),
            (ColumnBuilder::Float4(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Float4(b), Datum::Float4(v)) => b.append_value(*v),
            (ColumnBuilder::Float8(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Float8(b), Datum::Float8(v)) => b.append_value(*v),
            (ColumnBuilder::Text(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Text(b), Datum::Bytes(v)) => match std::str::from_utf8(v) {
                Ok(text) => b.append_value(text),
                Err(_) => return Err(SqlError::new(ErrorCode::DataCorrupted, "invalid byte sequence for encoding \"UTF8\"")),
            },
            (ColumnBuilder::Bytes(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Bytes(b), Datum::Bytes(v)) => b.append_value(v),
            (ColumnBuilder::Fixed(b), Datum::Null) => b.append_null(),
            (ColumnBuilder::Fixed(b), Datum::Uuid(v)) => {
                b.append_value(v).map_err(|e| SqlError::new(ErrorCode::InternalError, e.to_string()))?;
            }
            (builder, datum) => {
                return Err(SqlError::new(
                    ErrorCode::InternalError,
                    format!("value {datum:?} does not have its column's shape {:?}", builder.arrow_type()),
                ));
            }
        }
        Ok(())
    }

    fn arrow_type(&self) -> ArrowType {
        match self {
            ColumnBuilder::Null(_) => ArrowType::Null,
            ColumnBuilder::Bool(_) => ArrowType::Boolean,
            ColumnBuilder::Int2(_) => ArrowType::Int16,
            ColumnBuilder::Int4(_) => ArrowType::Int32,
            ColumnBuilder::Int8(_) => ArrowType::Int64,
            ColumnBuilder::Float4(_) => ArrowType::Float32,
            ColumnBuilder::Float8(_) => ArrowType::Float64,
            ColumnBuilder::Text(_) => ArrowType::Utf8,
            ColumnBuilder::Bytes(_) => ArrowType::Binary,
            ColumnBuilder::Fixed(_) => ArrowType::FixedSizeBinary(16),
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Null(n) => new_null_array(&ArrowType::Null, std::mem::take(n)),
            ColumnBuilder::Bool(b) => Arc::new(b.finish()),
            ColumnBuilder::Int2(b) => Arc::new(b.finish()),
            ColumnBuilder::Int4(b) => Arc::new(b.finish()),
            ColumnBuilder::Int8(b) => Arc::new(b.finish()),
            ColumnBuilder::Float4(b) => Arc::new(b.finish()),
            ColumnBuilder::Float8(b) => Arc::new(b.finish()),
            ColumnBuilder::Text(b) => Arc::new(b.finish()),
            ColumnBuilder::Bytes(b) => Arc::new(b.finish()),
            ColumnBuilder::Fixed(b) => Arc::new(b.finish()),
        }
    }
}
