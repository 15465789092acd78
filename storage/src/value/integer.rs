//! `smallint`, `integer`, `bigint`, `oid` and `pg_lsn`.

use crate::error::{Error, Result};
use crate::value::is_space;

fn too_great(text: &str, type_name: &str) -> Error {
    Error::out_of_range(format!("value \"{text}\" is out of range for type {type_name}"))
}

/// Reads a signed integer between `min` and `max`.
/// # Errors
/// `InvalidText`, `OutOfRange`.
pub fn parse(text: &str, type_name: &str, min: i64, max: i64) -> Result<i64> {
    let body = text.trim_matches(is_space);
    let (negative, digits) = match body.as_bytes().first() {
        Some(b'-') => (true, &body[1..]),
        Some(b'+') => (false, &body[1..]),
        _ => (false, body),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        // The digits are checked before what follows them, so a number that is too great is that even with an end that is wrong.
        let valid = digits.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let fits = digits[..valid].bytes().try_fold(0i64, |n, b| n.checked_mul(10)?.checked_sub(i64::from(b - b'0')));
        return Err(match fits {
            Some(n) if n >= min => Error::invalid_text(type_name, text),
            _ => too_great(text, type_name),
        });
    }
    // Counting downwards reaches the least number, too.
    let value = digits.bytes().try_fold(0i64, |n, b| n.checked_mul(10)?.checked_sub(i64::from(b - b'0')));
    let value = if negative { value } else { value.and_then(i64::checked_neg) };
    value.filter(|v| (min..=max).contains(v)).ok_or_else(|| too_great(text, type_name))
}

/// Reads an oid: unsigned, but a negative number wraps around as C's `strtoul` does.
/// # Errors
/// `InvalidText`, `OutOfRange`.
pub fn parse_oid(text: &str, type_name: &str) -> Result<i64> {
    let body = text.trim_matches(is_space);
    let digits = body.strip_prefix(['-', '+']).unwrap_or(body);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::invalid_text(type_name, text));
    }
    let value: i64 = body.parse().map_err(|_| too_great(text, type_name))?;
    if value > i64::from(u32::MAX) || value < i64::from(i32::MIN) {
        return Err(too_great(text, type_name));
    }
    Ok(value & i64::from(u32::MAX))
}

/// Reads a WAL position, `16/B374D848`.
/// # Errors
/// `InvalidText`.
pub fn parse_lsn(text: &str) -> Result<u64> {
    let half = |t: &str| {
        if t.is_empty() || t.len() > 8 || !t.bytes().all(|b| b.is_ascii_hexdigit()) { None } else { u64::from_str_radix(t, 16).ok() }
    };
    text.split_once('/').and_then(|(high, low)| Some(half(high)? << 32 | half(low)?)).ok_or_else(|| Error::invalid_text("pg_lsn", text))
}

/// Appends an integer's text.
pub fn format(value: i64, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&buffer[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int4(text: &str) -> Result<i64> {
        parse(text, "integer", i64::from(i32::MIN), i64::from(i32::MAX))
    }

    #[test]
    fn integers_are_read_with_white_space_and_sign() {
        for (text, value) in [("0", 0), (" 42 ", 42), ("-2147483648", -2147483648), ("+7", 7), ("\n1\t", 1), ("007", 7)] {
            assert_eq!(int4(text).unwrap(), value, "{text}");
        }
        assert_eq!(parse("-9223372036854775808", "bigint", i64::MIN, i64::MAX).unwrap(), i64::MIN);
    }

    #[test]
    fn wrong_integers_have_postgresqls_texts() {
        for (text, message) in [
            ("", "invalid input syntax for type integer: \"\""),
            (" ", "invalid input syntax for type integer: \" \""),
            ("1 2", "invalid input syntax for type integer: \"1 2\""),
            ("-", "invalid input syntax for type integer: \"-\""),
            ("1.5", "invalid input syntax for type integer: \"1.5\""),
            ("2147483648", "value \"2147483648\" is out of range for type integer"),
            ("-99999999999999999999", "value \"-99999999999999999999\" is out of range for type integer"),
        ] {
            assert_eq!(int4(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn oids_and_positions_are_unsigned() {
        assert_eq!(parse_oid("4294967295", "oid").unwrap(), 4294967295);
        assert_eq!(parse_oid("-1", "oid").unwrap(), 4294967295);
        assert_eq!(parse_oid("4294967296", "oid").unwrap_err().to_string(), "value \"4294967296\" is out of range for type oid");
        assert_eq!(parse_lsn("16/B374D848").unwrap(), 0x16_B374_D848);
        for text in ["", "/", "1", "1/", "G/0", " 1/1", "123456789/0"] {
            assert!(parse_lsn(text).is_err(), "{text}");
        }
    }

    #[test]
    fn integers_print_as_they_are() {
        for value in [0, 7, -1, i64::MIN, i64::MAX, 1234567890] {
            let mut out = Vec::new();
            format(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
