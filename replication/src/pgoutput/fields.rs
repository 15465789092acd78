//! A cursor over the big-endian fields of a message.

use super::{DecodeError, NAME_SIZE_MAX};

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(DecodeError::Truncated { field }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(DecodeError::Truncated { field }),
        }
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// A name that ends with a zero byte.
    pub(super) fn name(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        self.text(field, NAME_SIZE_MAX)
    }

    /// A text of at most `size_max` bytes that ends with a zero byte.
    pub(super) fn text(&mut self, field: &'static str, size_max: usize) -> Result<&'a str, DecodeError> {
        let size = match self.rest.iter().take(size_max + 1).position(|byte| *byte == 0) {
            Some(size) => size,
            None if self.rest.len() > size_max => return Err(DecodeError::Limit { field, limit: size_max }),
            None => return Err(DecodeError::Truncated { field }),
        };
        let text = self.bytes(size, field)?;
        self.rest = &self.rest[1..];
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// The id of a transaction, which is never 0.
    pub(super) fn xid(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        match self.u32(field)? {
            0 => Err(DecodeError::InvalidField { field, value: 0 }),
            xid => Ok(xid),
        }
    }

    /// A byte of flags of which none is defined yet.
    pub(super) fn no_flags(&mut self, field: &'static str) -> Result<(), DecodeError> {
        match self.u8(field)? {
            0 => Ok(()),
            flags => Err(DecodeError::InvalidField { field, value: i64::from(flags) }),
        }
    }

    /// A length that may not be negative.
    pub(super) fn size(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let size = self.i32(field)?;
        usize::try_from(size).map_err(|_| DecodeError::InvalidField { field, value: i64::from(size) })
    }

    /// Says that the message ends here.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { count }),
        }
    }
}
