//! Bit strings: kept as the text of their digits.

use std::borrow::Cow;

use crate::error::{Error, Result, ValueErrorCode};

/// Reads `101`, `b101` or `x1F` and applies the length: exact for `bit(n)`, at most for `varbit(n)`.
/// # Errors
/// `Value` (22P02, 22026, 22001).
pub(super) fn parse(text: &str, typmod: i32, varying: bool) -> Result<Cow<'_, str>> {
    let (digits, hex) = match text.as_bytes().first() {
        Some(b'b' | b'B') => (&text[1..], false),
        Some(b'x' | b'X') => (&text[1..], true),
        _ => (text, false),
    };
    let invalid =
        |c: char, base: &str| Error::value(ValueErrorCode::InvalidTextRepresentation, format!("\"{c}\" is not a valid {base} digit"));
    let length = digits.len() * if hex { 4 } else { 1 };
    if let Ok(limit) = usize::try_from(typmod) {
        if varying && length > limit {
            return Err(Error::value(
                ValueErrorCode::StringDataRightTruncation,
                format!("bit string too long for type bit varying({limit})"),
            ));
        }
        if !varying && length != limit {
            return Err(Error::value(
                ValueErrorCode::StringDataLengthMismatch,
                format!("bit string length {length} does not match type bit({limit})"),
            ));
        }
    }
    if !hex {
        return match digits.chars().find(|c| !matches!(c, '0' | '1')) {
            Some(c) => Err(invalid(c, "binary")),
            None => Ok(digits.into()),
        };
    }
    let mut out = String::with_capacity(length);
    for c in digits.chars() {
        out.push_str(&format!("{:04b}", c.to_digit(16).ok_or_else(|| invalid(c, "hexadecimal"))?));
    }
    Ok(out.into())
}
