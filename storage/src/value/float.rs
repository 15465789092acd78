//! `real` and `double precision`: the shortest text that reads back, in C's `%g` layout.

use crate::error::{Error, Result};
use crate::value::is_space;

/// Common to both: the trimmed text where it has a number's letters, or a special value.
fn prepare<'a>(text: &'a str, type_name: &str) -> Result<Result<&'a str, f64>> {
    let body = text.trim_matches(is_space);
    let (negative, magnitude) = match body.as_bytes().first() {
        Some(b'-') => (true, &body[1..]),
        Some(b'+') => (false, &body[1..]),
        _ => (false, body),
    };
    if magnitude.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) && !magnitude.is_empty() {
        return Ok(Ok(body));
    }
    let special = match magnitude.to_ascii_lowercase().as_str() {
        "nan" => f64::NAN,
        "infinity" | "inf" => f64::INFINITY,
        _ => return Err(Error::invalid_text(type_name, text)),
    };
    Ok(Err(if negative { -special } else { special }))
}

/// Says whether the digits before the exponent are all zero.
fn is_zero_text(body: &str) -> bool {
    body.bytes().take_while(|b| !matches!(b, b'e' | b'E')).all(|b| !matches!(b, b'1'..=b'9'))
}

/// # Errors
/// `InvalidText`, `OutOfRange`.
pub fn parse_f64(text: &str) -> Result<f64> {
    match prepare(text, "double precision")? {
        Err(special) => Ok(if special.is_nan() { f64::NAN } else { special }),
        Ok(body) => {
            let value: f64 = body.parse().map_err(|_| Error::invalid_text("double precision", text))?;
            if value.is_infinite() || value == 0.0 && !is_zero_text(body) {
                return Err(Error::out_of_range(format!("\"{body}\" is out of range for type double precision")));
            }
            Ok(value)
        }
    }
}

/// # Errors
/// `InvalidText`, `OutOfRange`.
pub fn parse_f32(text: &str) -> Result<f32> {
    match prepare(text, "real")? {
        Err(special) => Ok(if special.is_nan() { f32::NAN } else { special as f32 }),
        Ok(body) => {
            let value: f32 = body.parse().map_err(|_| Error::invalid_text("real", text))?;
            if value.is_infinite() || value == 0.0 && !is_zero_text(body) {
                return Err(Error::out_of_range(format!("\"{body}\" is out of range for type real")));
            }
            Ok(value)
        }
    }
}

/// Appends a double's text.
pub fn format_f64(value: f64, extra_float_digits: i32, out: &mut Vec<u8>) {
    if special(value, out) {
        return;
    }
    if extra_float_digits > 0 {
        let shortest = format!("{value:e}");
        if is_midpoint(&shortest, f64::MANTISSA_DIGITS) {
            let inside =
                |n: usize| Some(format!("{value:.n$e}")).filter(|t| t.parse() == Ok(value) && !is_midpoint(t, f64::MANTISSA_DIGITS));
            return layout(&(1..17).find_map(inside).unwrap_or(shortest), 15, true, out);
        }
        layout(&shortest, 15, false, out);
    } else {
        general(value, (15 + extra_float_digits).max(1) as usize, out);
    }
}

/// Appends a single's text.
pub fn format_f32(value: f32, extra_float_digits: i32, out: &mut Vec<u8>) {
    if special(f64::from(value), out) {
        return;
    }
    if extra_float_digits > 0 {
        let shortest = format!("{value:e}");
        if is_midpoint(&shortest, f32::MANTISSA_DIGITS) {
            let inside =
                |n: usize| Some(format!("{value:.n$e}")).filter(|t| t.parse() == Ok(value) && !is_midpoint(t, f32::MANTISSA_DIGITS));
            return layout(&(1..9).find_map(inside).unwrap_or(shortest), 6, true, out);
        }
        layout(&shortest, 6, false, out);
    } else {
        general(f64::from(value), (6 + extra_float_digits).max(1) as usize, out);
    }
}

/// Appends a number as C's `%.{digits}g` does.
pub fn general(value: f64, digits: usize, out: &mut Vec<u8>) {
    layout(&format!("{value:.*e}", digits - 1), digits as i32, true, out);
}

/// Says whether a decimal lies exactly half way between two floats of `mantissa_bits`. PostgreSQL does not print such a
/// text, though it reads back as the even one of the two.
fn is_midpoint(scientific: &str, mantissa_bits: u32) -> bool {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return false };
    let digits = mantissa.trim_start_matches('-');
    let decimals = digits.split_once('.').map_or(0, |(_, f)| f.len() as i32);
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let (Ok(value), Ok(exponent)) = (digits.parse::<u128>(), exponent.parse::<i32>()) else { return false };
    // Powers of two do not matter, so only those of five count; a midpoint has one bit more than a float.
    let exponent = exponent - decimals;
    let fives = 5u128.checked_pow(exponent.unsigned_abs());
    let odd_part = match fives {
        Some(p) if exponent >= 0 => value.checked_mul(p),
        Some(p) if value % p == 0 => Some(value / p),
        _ => None,
    };
    odd_part.is_some_and(|v| v != 0 && u128::BITS - (v >> v.trailing_zeros()).leading_zeros() == mantissa_bits + 1)
}

fn special(value: f64, out: &mut Vec<u8>) -> bool {
    if value.is_nan() {
        out.extend(b"NaN");
    } else if value.is_infinite() {
        out.extend(if value > 0.0 { &b"Infinity"[..] } else { b"-Infinity" });
    } else {
        return false;
    }
    true
}

/// Lays out `d.ddde-x` with an exponent below -4 or from `limit` on, and plainly otherwise.
fn layout(scientific: &str, limit: i32, trim: bool, out: &mut Vec<u8>) {
    let (mantissa, exponent) = scientific.split_once('e').expect("BUG: Rust's e format has an exponent");
    let exponent: i32 = exponent.parse().expect("BUG: Rust's e format has an exponent");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let mut digits: Vec<u8> = mantissa.bytes().filter(|b| *b != b'.').collect();
    if trim {
        while digits.len() > 1 && digits.last() == Some(&b'0') {
            digits.pop();
        }
    }
    out.extend(sign.as_bytes());
    if !(-4..limit).contains(&exponent) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend(&digits[1..]);
        }
        out.extend(format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()).as_bytes());
    } else if exponent < 0 {
        out.extend(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend(&digits);
    } else {
        let point = exponent as usize + 1;
        if digits.len() <= point {
            out.extend(&digits);
            out.extend(std::iter::repeat_n(b'0', point - digits.len()));
        } else {
            out.extend(&digits[..point]);
            out.push(b'.');
            out.extend(&digits[point..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text64(value: f64, extra: i32) -> String {
        let mut out = Vec::new();
        format_f64(value, extra, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text32(value: f32) -> String {
        let mut out = Vec::new();
        format_f32(value, 1, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_print_shortest_in_g_layout() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123456789012345.6, "123456789012345.6"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e300, "1e+300"),
            (-1.2345e-7, "-1.2345e-07"),
            (f64::INFINITY, "Infinity"),
            // The shortest text that reads back, 1e+23, lies half way between two doubles.
            (1e23, "9.999999999999999e+22"),
        ] {
            assert_eq!(text64(value, 1), text);
        }
        assert_eq!(text64(0.1 + 0.2, 0), "0.3");
        assert_eq!(text64(1.0 / 3.0, -5), "0.3333333333");
        assert_eq!(text64(1e15, 0), "1e+15");
        assert_eq!(text32(1e6), "1e+06");
        assert_eq!(text32(123456.7), "123456.7");
        assert_eq!(text32(0.1), "0.1");
    }

    #[test]
    fn wrong_floats_have_postgresqls_texts() {
        for (text, message) in [
            ("", "invalid input syntax for type double precision: \"\""),
            ("1e", "invalid input syntax for type double precision: \"1e\""),
            ("1 2", "invalid input syntax for type double precision: \"1 2\""),
            ("1e400", "\"1e400\" is out of range for type double precision"),
            ("1e-400", "\"1e-400\" is out of range for type double precision"),
        ] {
            assert_eq!(parse_f64(text).unwrap_err().to_string(), message);
        }
        assert_eq!(parse_f64(" -inf ").unwrap(), f64::NEG_INFINITY);
        assert_eq!(parse_f64(".5").unwrap(), 0.5);
        assert_eq!(parse_f32("1e40").unwrap_err().to_string(), "\"1e40\" is out of range for type real");
    }
}
