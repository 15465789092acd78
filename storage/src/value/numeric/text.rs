//! Decimal text and the binary form.

use std::fmt;

use num_bigint::BigInt;

use super::{Coefficient, Decimal, MAX_INTEGER_DIGITS, MAX_SCALE, Numeric, overflow, pow10, pow10_big};
use crate::error::{Error, Result, ValueErrorCode};

const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xC000;
const SIGN_POS_INF: u16 = 0xD000;
const SIGN_NEG_INF: u16 = 0xF000;
const DSCALE_MASK: u16 = 0x3FFF;

impl Numeric {
    /// Reads PostgreSQL's text of a numeric; white space around it is skipped.
    /// # Errors
    /// `InvalidText`, `OutOfRange`.
    pub fn parse(text: &str) -> Result<Numeric> {
        let invalid = || Error::invalid_text("numeric", text);
        let t = text.trim_matches(super::super::is_space);
        let (negative, signed, body) = match t.as_bytes().first() {
            Some(b'-') => (true, true, &t[1..]),
            Some(b'+') => (false, true, &t[1..]),
            _ => (false, false, t),
        };
        let bytes = body.as_bytes();
        if !matches!(bytes.first(), Some(b'0'..=b'9' | b'.')) {
            return match body.to_ascii_lowercase().as_str() {
                "nan" if !signed => Ok(Numeric::NaN),
                "infinity" | "inf" => Ok(if negative { Numeric::NegInf } else { Numeric::PosInf }),
                _ => Err(invalid()),
            };
        }
        let mut at = 0;
        let mut small: Option<i128> = Some(0);
        let mut digit_count = 0usize;
        let mut fraction: i64 = 0;
        let mut seen_point = false;
        while let Some(&b) = bytes.get(at) {
            match b {
                b'0'..=b'9' => {
                    small = small.and_then(|c| c.checked_mul(10)?.checked_add(i128::from(b - b'0')));
                    digit_count += 1;
                    fraction += i64::from(seen_point);
                }
                b'.' if !seen_point => seen_point = true,
                _ => break,
            }
            at += 1;
        }
        if digit_count == 0 {
            return Err(invalid());
        }
        let mantissa_end = at;
        let mut exponent: i64 = 0;
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let digits = &body[at + 1..];
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return Err(invalid());
            }
            exponent = digits.parse().ok().filter(|e: &i64| e.abs() < i64::from(i32::MAX / 2)).ok_or_else(overflow)?;
            at = bytes.len();
        }
        if at != bytes.len() {
            return Err(invalid());
        }
        let scale = (fraction - exponent).max(0);
        let zeros = (exponent - fraction).max(0);
        let is_zero = small == Some(0);
        if scale > i64::from(MAX_SCALE) || (!is_zero && zeros > MAX_INTEGER_DIGITS) || digit_count as i64 > 2 * MAX_INTEGER_DIGITS {
            return Err(overflow());
        }
        let zeros = if is_zero { 0 } else { zeros as u32 };
        if let Some(c) = small.and_then(|c| c.checked_mul(pow10(zeros)?)) {
            return Ok(Numeric::new(if negative { -c } else { c }, scale as u32));
        }
        let digits: Vec<u8> = bytes[..mantissa_end].iter().filter(|b| **b != b'.').copied().collect();
        let mut c = BigInt::parse_bytes(&digits, 10).ok_or_else(invalid)? * pow10_big(zeros);
        if negative {
            c = -c;
        }
        Numeric::from_parts(c, scale as u32).checked()
    }

    /// Appends the text as PostgreSQL prints it.
    pub fn format_to(&self, out: &mut Vec<u8>) {
        let d = match self {
            Numeric::NaN => return out.extend(b"NaN"),
            Numeric::PosInf => return out.extend(b"Infinity"),
            Numeric::NegInf => return out.extend(b"-Infinity"),
            Numeric::Finite(d) => d,
        };
        let text = match &d.coefficient {
            Coefficient::Small(c) => c.unsigned_abs().to_string(),
            Coefficient::Big(c) => c.magnitude().to_str_radix(10),
        };
        if d.coefficient.is_negative() {
            out.push(b'-');
        }
        let scale = d.scale as usize;
        if scale == 0 {
            return out.extend(text.as_bytes());
        }
        if text.len() > scale {
            let (integer, fraction) = text.split_at(text.len() - scale);
            out.extend(integer.as_bytes());
            out.push(b'.');
            out.extend(fraction.as_bytes());
        } else {
            out.extend(b"0.");
            out.extend(std::iter::repeat_n(b'0', scale - text.len()));
            out.extend(text.as_bytes());
        }
    }

    /// Reads the binary form.
    /// # Errors
    /// `Value` (invalid binary representation), `OutOfRange`.
    pub fn from_binary(bytes: &[u8]) -> Result<Numeric> {
        let invalid =
            |what: &str| Error::value(ValueErrorCode::InvalidBinaryRepresentation, format!("invalid {what} in external \"numeric\" value"));
        let (header, digits) = bytes.split_at_checked(8).ok_or_else(|| invalid("length"))?;
        let word = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
        let (count, weight, sign, scale) = (word(0), i64::from(word(2) as i16), word(4), word(6));
        if digits.len() != usize::from(count) * 2 {
            return Err(invalid("length"));
        }
        match sign {
            SIGN_NAN => return Ok(Numeric::NaN),
            SIGN_POS_INF => return Ok(Numeric::PosInf),
            SIGN_NEG_INF => return Ok(Numeric::NegInf),
            0 | SIGN_NEGATIVE => {}
            _ => return Err(invalid("sign")),
        }
        if scale & DSCALE_MASK != scale {
            return Err(invalid("scale"));
        }
        let mut text = Vec::with_capacity(digits.len() * 2);
        for pair in digits.chunks_exact(2) {
            let digit = u16::from_be_bytes([pair[0], pair[1]]);
            if digit > 9999 {
                return Err(invalid("digit"));
            }
            text.extend([digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| d as u8));
        }
        let mut c = if text.is_empty() {
            BigInt::from(0)
        } else {
            BigInt::from_radix_be(num_bigint::Sign::Plus, &text, 10).ok_or_else(|| invalid("digit"))?
        };
        // The digits stand for c * 10^exponent; what the scale does not show is cut off, as PostgreSQL does.
        let exponent = 4 * (weight + 1 - i64::from(count));
        let shift = exponent + i64::from(scale);
        if shift >= 0 {
            c *= pow10_big(shift as u32);
        } else {
            c /= pow10_big((-shift) as u32);
        }
        if sign == SIGN_NEGATIVE {
            c = -c;
        }
        Numeric::from_parts(c, u32::from(scale)).checked()
    }

    /// Appends the binary form.
    pub fn to_binary(&self, out: &mut Vec<u8>) {
        let special = |out: &mut Vec<u8>, sign: u16| {
            out.extend([0; 4]);
            out.extend(sign.to_be_bytes());
            // PostgreSQL leaves the bit that tells an infinity from NaN in the field of the scale.
            out.extend([0, if sign == SIGN_NAN { 0 } else { 0x20 }]);
        };
        let d: &Decimal = match self {
            Numeric::NaN => return special(out, SIGN_NAN),
            Numeric::PosInf => return special(out, SIGN_POS_INF),
            Numeric::NegInf => return special(out, SIGN_NEG_INF),
            Numeric::Finite(d) => d,
        };
        let (digits, weight) = Numeric::base_10000(d);
        out.extend((digits.len() as u16).to_be_bytes());
        out.extend((weight as i16).to_be_bytes());
        out.extend(if d.coefficient.is_negative() { SIGN_NEGATIVE } else { 0 }.to_be_bytes());
        out.extend((d.scale as u16).to_be_bytes());
        for digit in digits {
            out.extend(digit.to_be_bytes());
        }
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        self.format_to(&mut out);
        f.write_str(std::str::from_utf8(&out).map_err(|_| fmt::Error)?)
    }
}
