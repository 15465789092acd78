//! `money`, in the C locale: dollars and cents.

use crate::error::{Error, Result};

/// Reads an amount: a currency sign, thousands separators, a sign before or behind, parentheses for negative amounts.
/// # Errors
/// `InvalidText`, `OutOfRange`.
pub fn parse(text: &str) -> Result<i64> {
    let out_of_range = || Error::out_of_range(format!("value \"{text}\" is out of range for type money"));
    let mut rest = text.trim_start_matches(super::is_space);
    rest = rest.strip_prefix('$').unwrap_or(rest).trim_start_matches(super::is_space);
    let mut negative = false;
    if let Some(r) = rest.strip_prefix(['-', '(']) {
        negative = true;
        rest = r;
    } else if let Some(r) = rest.strip_prefix('+') {
        rest = r;
    }
    rest = rest.trim_start_matches(super::is_space);
    rest = rest.strip_prefix('$').unwrap_or(rest).trim_start_matches(super::is_space);
    let mut cents: i64 = 0;
    let mut decimals = 0;
    let mut seen_point = false;
    let mut round_up = false;
    let mut at = 0;
    // Counted downwards, so that the least amount can be read.
    for b in rest.bytes() {
        match b {
            b'0'..=b'9' => {
                if seen_point && decimals == 2 {
                    // Only the first digit beyond the cents rounds.
                    let first_beyond = at == rest.find('.').unwrap_or(0) + 3;
                    round_up |= first_beyond && b >= b'5';
                } else {
                    cents = cents.checked_mul(10).and_then(|c| c.checked_sub(i64::from(b - b'0'))).ok_or_else(out_of_range)?;
                    decimals += i32::from(seen_point);
                }
            }
            b'.' if !seen_point => seen_point = true,
            b',' if !seen_point => {}
            _ => break,
        }
        at += 1;
    }
    let mut tail = rest[at..].trim_start_matches(|c| super::is_space(c) || c == ')');
    if let Some(r) = tail.strip_prefix('-') {
        negative = true;
        tail = r;
    } else if let Some(r) = tail.strip_prefix('+') {
        tail = r;
    }
    tail = tail.trim_start_matches(super::is_space);
    tail = tail.strip_prefix('$').unwrap_or(tail).trim_start_matches(|c| super::is_space(c) || c == ')');
    if !tail.is_empty() {
        return Err(Error::invalid_text("money", text));
    }
    while decimals < 2 {
        cents = cents.checked_mul(10).ok_or_else(out_of_range)?;
        decimals += 1;
    }
    if round_up {
        cents = cents.checked_sub(1).ok_or_else(out_of_range)?;
    }
    if negative { Ok(cents) } else { cents.checked_neg().ok_or_else(out_of_range) }
}

/// Appends the text: `$1,234.56`, `-$0.01`.
pub fn format(cents: i64, out: &mut Vec<u8>) {
    if cents < 0 {
        out.push(b'-');
    }
    let magnitude = cents.unsigned_abs();
    let dollars = (magnitude / 100).to_string();
    out.push(b'$');
    for (i, b) in dollars.bytes().enumerate() {
        if i > 0 && (dollars.len() - i).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(b);
    }
    out.extend(format!(".{:02}", magnitude % 100).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_printed_as_dollars() {
        for (text, printed) in [
            ("0", "$0.00"),
            ("$1,234.56", "$1,234.56"),
            ("-1.5", "-$1.50"),
            ("($2)", "-$2.00"),
            ("1.005", "$1.01"),
            ("1.0049", "$1.00"),
            ("-$92,233,720,368,547,758.08", "-$92,233,720,368,547,758.08"),
            (" 123456 ", "$123,456.00"),
        ] {
            let mut out = Vec::new();
            format(parse(text).unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), printed, "{text}");
        }
        assert!(parse("abc").is_err());
        assert!(parse("92233720368547758.08").is_err());
    }
}
