//! The bytes of numbers, strings, values and rows inside journal records.
//!
//! Writing appends to a `Vec<u8>`. Reading goes through [`ByteReader`], which checks every length against what is
//! there: whatever the bytes, it returns [`Malformed`] and never panics or allocates more than the input justifies.

use crate::error::Error;
use crate::value::{Row, Value};

/// Bytes that do not decode; the caller knows from where they came and turns this into [`Error::Damaged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

impl Malformed {
    /// The error with the place where the bytes lie.
    pub fn at(self, place: impl Into<String>) -> Error {
        Error::Damaged { place: place.into(), what: self.0.into() }
    }
}

pub(crate) type Decoded<T> = Result<T, Malformed>;

pub(crate) const NULL: u8 = 0;
pub(crate) const FALSE: u8 = 1;
pub(crate) const TRUE: u8 = 2;
pub(crate) const INT2: u8 = 3;
pub(crate) const INT4: u8 = 4;
pub(crate) const INT8: u8 = 5;
pub(crate) const FLOAT4: u8 = 6;
pub(crate) const FLOAT8: u8 = 7;
pub(crate) const UUID: u8 = 8;
pub(crate) const BYTES: u8 = 9;
/// Tags from here on are byte strings of up to [`SHORT_BYTES_MAX`] bytes: tag - BYTES_SHORT is the length.
pub(crate) const BYTES_SHORT: u8 = 128;
const SHORT_BYTES_MAX: usize = (u8::MAX - BYTES_SHORT) as usize;

/// Appends a number in groups of seven bits, lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number so that small magnitudes are short.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int2(v) => {
            out.push(INT2);
            put_zigzag(out, i64::from(*v));
        }
        Value::Int4(v) => {
            out.push(INT4);
            put_zigzag(out, i64::from(*v));
        }
        Value::Int8(v) => {
            out.push(INT8);
            put_zigzag(out, *v);
        }
        Value::Float4(v) => {
            out.push(FLOAT4);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Value::Float8(v) => {
            out.push(FLOAT8);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Value::Uuid(v) => {
            out.push(UUID);
            out.extend_from_slice(v);
        }
        Value::Bytes(v) if v.len() <= SHORT_BYTES_MAX => {
            out.push(BYTES_SHORT + v.len() as u8);
            out.extend_from_slice(v);
        }
        Value::Bytes(v) => {
            out.push(BYTES);
            put_bytes(out, v);
        }
    }
}

pub(crate) fn put_row(out: &mut Vec<u8>, row: &[Value]) {
    put_varint(out, row.len() as u64);
    for value in row {
        put_value(out, value);
    }
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        ByteReader { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Succeeds when everything was read.
    pub fn finish(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("surplus bytes")) }
    }

    pub fn take(&mut self, size: usize) -> Decoded<&'a [u8]> {
        if size > self.rest.len() {
            return Err(Malformed("ends early"));
        }
        let (taken, rest) = self.rest.split_at(size);
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("BUG: take gave another length"))
    }

    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn bool(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }

    pub fn varint(&mut self) -> Decoded<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed("number too large"));
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("number too long"))
    }

    pub fn varint_u32(&mut self) -> Decoded<u32> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("number too large"))
    }

    pub fn zigzag(&mut self) -> Decoded<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of things that follow, each at least one byte long.
    pub fn count(&mut self) -> Decoded<usize> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 {
            return Err(Malformed("count exceeds what follows"));
        }
        Ok(count as usize)
    }

    pub fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let size = self.count()?;
        self.take(size)
    }

    pub fn string(&mut self) -> Decoded<String> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text is not UTF-8"))
    }

    pub fn value(&mut self) -> Decoded<Value> {
        let tag = self.u8()?;
        Ok(match tag {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT2 => Value::Int2(i16::try_from(self.zigzag()?).map_err(|_| Malformed("int2 out of range"))?),
            INT4 => Value::Int4(i32::try_from(self.zigzag()?).map_err(|_| Malformed("int4 out of range"))?),
            INT8 => Value::Int8(self.zigzag()?),
            FLOAT4 => Value::Float4(f32::from_bits(u32::from_le_bytes(self.array()?))),
            FLOAT8 => Value::Float8(f64::from_bits(u64::from_le_bytes(self.array()?))),
            UUID => Value::Uuid(self.array()?),
            BYTES => Value::Bytes(self.bytes()?.into()),
            BYTES_SHORT.. => Value::Bytes(self.take(usize::from(tag - BYTES_SHORT))?.into()),
            _ => return Err(Malformed("unknown kind of value")),
        })
    }

    /// Passes over a value without building it.
    pub fn skip_value(&mut self) -> Decoded<()> {
        let tag = self.u8()?;
        match tag {
            NULL | FALSE | TRUE => {}
            INT2 | INT4 | INT8 => {
                self.varint()?;
            }
            FLOAT4 => {
                self.take(4)?;
            }
            FLOAT8 => {
                self.take(8)?;
            }
            UUID => {
                self.take(16)?;
            }
            BYTES => {
                self.bytes()?;
            }
            BYTES_SHORT.. => {
                self.take(usize::from(tag - BYTES_SHORT))?;
            }
            _ => return Err(Malformed("unknown kind of value")),
        }
        Ok(())
    }

    pub fn row(&mut self) -> Decoded<Row> {
        let count = self.count()?;
        let mut row = Vec::with_capacity(count.min(2048));
        for _ in 0..count {
            row.push(self.value()?);
        }
        Ok(row)
    }

    pub fn skip_row(&mut self) -> Decoded<()> {
        for _ in 0..self.count()? {
            self.skip_value()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_was() {
        let row = vec![
            Value::Null,
            Value::Bool(true),
            Value::Bool(false),
            Value::Int2(i16::MIN),
            Value::Int4(-1),
            Value::Int8(i64::MIN),
            Value::Int8(i64::MAX),
            Value::Float4(f32::NAN),
            Value::Float8(-0.0),
            Value::Uuid([7; 16]),
            Value::bytes(b""),
            Value::bytes([1; 127]),
            Value::bytes([1; 128]),
            Value::bytes(vec![1; 5000]),
        ];
        let mut out = Vec::new();
        put_row(&mut out, &row);
        let mut reader = ByteReader::new(&out);
        assert_eq!(reader.row(), Ok(row));
        assert_eq!(reader.finish(), Ok(()));
        let mut reader = ByteReader::new(&out);
        reader.skip_row().unwrap();
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn bytes_cut_short_are_malformed_at_every_length() {
        let mut out = Vec::new();
        put_row(&mut out, &[Value::Int8(300), Value::bytes([1; 200]), Value::Uuid([1; 16]), Value::Float8(1.0)]);
        for size in 0..out.len() {
            assert!(ByteReader::new(&out[..size]).row().is_err(), "{size}");
            assert!(ByteReader::new(&out[..size]).skip_row().is_err(), "{size}");
        }
    }

    #[test]
    fn a_count_larger_than_the_input_allocates_nothing() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(ByteReader::new(&out).row(), Err(Malformed("count exceeds what follows")));
    }
}
