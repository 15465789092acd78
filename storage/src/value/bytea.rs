//! `bytea`: hex and escape formats.

use crate::error::{Error, Result, ValueErrorCode};

/// Reads either format.
/// # Errors
/// `Value`.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => parse_hex(hex),
        None => parse_escape(text.as_bytes()),
    }
}

/// Reads hexadecimal digits; white space between bytes is skipped.
/// # Errors
/// `Value`.
pub fn parse_hex(hex: &str) -> Result<Vec<u8>> {
    let invalid = |message: String| Error::value(ValueErrorCode::InvalidParameterValue, message);
    let mut out = Vec::with_capacity(hex.len() / 2);
    let mut chars = hex.chars();
    while let Some(c) = chars.next() {
        if matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let digit = |c: char| c.to_digit(16).ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")));
        let high = digit(c)?;
        let low = digit(chars.next().ok_or_else(|| invalid("invalid hexadecimal data: odd number of digits".into()))?)?;
        out.push((high << 4 | low) as u8);
    }
    Ok(out)
}

fn parse_escape(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        if b != b'\\' {
            out.push(b);
            at += 1;
            continue;
        }
        match text.get(at + 1..) {
            Some([b'\\', ..]) => {
                out.push(b'\\');
                at += 2;
            }
            Some([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                at += 4;
            }
            _ => return Err(Error::value(ValueErrorCode::InvalidTextRepresentation, "invalid input syntax for type bytea")),
        }
    }
    Ok(out)
}

/// Appends the text.
pub fn format(bytes: &[u8], escape: bool, out: &mut Vec<u8>) {
    if escape {
        for &b in bytes {
            match b {
                b'\\' => out.extend(b"\\\\"),
                0x20..=0x7E => out.push(b),
                _ => out.extend([b'\\', b'0' + (b >> 6), b'0' + (b >> 3 & 7), b'0' + (b & 7)]),
            }
        }
        return;
    }
    out.extend(b"\\x");
    push_hex(bytes, out);
}

/// Appends two lower-case hexadecimal digits for each byte.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.extend([DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_printed() {
        for (text, bytes) in
            [("\\xDEADbeef", &b"\xde\xad\xbe\xef"[..]), ("\\x de ad", b"\xde\xad"), ("a\\\\b\\000", b"a\\b\0"), ("", b""), ("\\x", b"")]
        {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        let (mut hex, mut escape) = (Vec::new(), Vec::new());
        format(b"a\\\0\xff", false, &mut hex);
        format(b"a\\\0\xff", true, &mut escape);
        assert_eq!(hex, b"\\x615c00ff");
        assert_eq!(escape, b"a\\\\\\000\\377");
    }

    #[test]
    fn wrong_bytes_have_postgresqls_texts() {
        for (text, message) in [
            ("\\xg1", "invalid hexadecimal digit: \"g\""),
            ("\\x123", "invalid hexadecimal data: odd number of digits"),
            ("\\9", "invalid input syntax for type bytea"),
            ("a\\", "invalid input syntax for type bytea"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
