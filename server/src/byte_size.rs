//! A size in the configuration: a number of bytes, or a number with a unit as PostgreSQL and most tools write it.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// Units and the powers of two that they stand for: `MB` is what it is in PostgreSQL's settings, the same as `MiB`.
const UNITS: [(&str, u32); 9] =
    [("B", 0), ("kB", 10), ("KiB", 10), ("MB", 20), ("MiB", 20), ("GB", 30), ("GiB", 30), ("TB", 40), ("TiB", 40)];

impl ByteSize {
    /// `512MiB`, `4 GB`, `1073741824`; `None` for anything else and for what is too large.
    fn parse(text: &str) -> Option<ByteSize> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let shift = match unit.trim_start() {
            "" => 0,
            unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.checked_mul(1 << shift).map(ByteSize)
    }
}

/// By hand, so that a mistake is reported where it is.
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like 512MiB or 4GB")
            }

            fn visit_u64<E: Error>(self, size: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(size))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        for (text, size) in [("0", 0), ("12", 12), ("12B", 12), ("3kB", 3072), ("512MiB", 512 << 20), ("4 GB", 4 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(size)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GB", "1 mb", "1MB 2", "99999999999999999999", "18446744073709551615kB", "1 T"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }
}
