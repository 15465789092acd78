//! Identifiers: one type per kind, so that a chunk's address cannot be taken for a commit's.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Names these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }
        }

        /// 64 hex digits; a precision shortens: `{id:.12}`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; 64];
                for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[byte >> 4, byte & 15].map(|nibble| b"0123456789abcdef"[usize::from(nibble)]));
                }
                let shown = &digits[..f.precision().unwrap_or(64).min(64)];
                f.write_str(std::str::from_utf8(shown).expect("BUG: digits are not ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:.12}")
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let malformed = || Error::Invalid(format!("\"{text}\" is not 64 hexadecimal digits"));
                if text.len() != 64 || !text.is_ascii() {
                    return Err(malformed());
                }
                let mut bytes = [0; 32];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| malformed())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

hash_id! {
    /// A chunk's address: the BLAKE3 hash of its uncompressed bytes.
    ChunkAddress
}
hash_id! {
    /// A commit's id: the BLAKE3 hash of its encoded record, so the ids form a hash chain.
    CommitId
}

/// A place in a PostgreSQL write-ahead log, `0/16B3748` in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidText { type_name: "pg_lsn".into(), input: text.into() };
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let part = |s: &str| match s.len() {
            1..=8 if s.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(s, 16).map_err(|_| invalid()),
            _ => Err(invalid()),
        };
        Ok(Lsn(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// Microseconds since 2000-01-01 UTC, PostgreSQL's `timestamptz`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Seconds from the Unix epoch to PostgreSQL's.
    pub const EPOCH_UNIX_SECONDS: i64 = 946_684_800;

    pub fn now() -> Self {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(unix.as_micros() as i64 - Self::EPOCH_UNIX_SECONDS * 1_000_000)
    }
}
