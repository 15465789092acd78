//! The stored form: bytes whose `memcmp` orders first by value, then by display scale.
//!
//! ```text
//! -Infinity  03
//! negative   the inverted bytes of the positive number, then the scale
//! zero       80, then the scale
//! positive   exponent, digits, then the scale
//! Infinity   FC
//! NaN        FE
//! ```
//! The number is `0.D1 D2 D3... * 100^exponent` with D1 not 0 and the last digit not 0. Exponents from -16 to 64 are one
//! byte (A0 is -16); 90 and a big-endian u16 of exponent + 20000 stands for smaller ones, F8 and a u24 for greater ones.
//! A digit is the byte 2D+1, the last one 2D, so that the digits end themselves and a longer number sorts after its
//! prefix. The scale is a byte below 128, or two bytes with the high bit set in the first.

use num_bigint::{BigInt, BigUint, Sign};

use super::{Coefficient, Decimal, MAX_SCALE, Numeric, pow10_big};
use crate::error::{Error, Result};

const NEG_INF: u8 = 0x03;
const ZERO: u8 = 0x80;
const SMALL_EXPONENT: u8 = 0x90;
const EXPONENT_BASE: u8 = 0xA0;
const EXPONENT_MIN: i32 = -16;
const EXPONENT_MAX: i32 = 64;
const BIG_EXPONENT: u8 = 0xF8;
const POS_INF: u8 = 0xFC;
const NAN: u8 = 0xFE;
const SMALL_EXPONENT_BIAS: i32 = 20_000;
/// More than any number within the type's limits has, so that damaged bytes cannot ask for much memory.
const EXPONENT_LIMIT: i32 = 66_000;

/// The part of a stored value that says which number it is, without the display scale: equal numbers have equal keys.
pub fn sort_key(stored: &[u8]) -> &[u8] {
    match split(stored) {
        Some((key, _)) => key,
        None => stored,
    }
}

/// Reads the number at the start of `bytes`, which is a sort key and what follows it; returns it with the least scale
/// that shows it, and the rest.
/// # Errors
/// `Damaged`.
pub fn decode_sort_key(bytes: &[u8]) -> Result<(Numeric, &[u8])> {
    let (key, rest) = split(bytes).ok_or_else(damaged)?;
    Ok((decode_number(key, None)?, rest))
}

fn damaged() -> Error {
    Error::Damaged { place: "numeric".into(), what: "malformed digits".into() }
}

/// Splits bytes behind the number's last digit.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *bytes.first()?;
    let (inverted, first) = if first < ZERO { (0xFF, !first) } else { (0, first) };
    let mut at = match first {
        ZERO | NAN if inverted != 0 => return None,
        ZERO | POS_INF | NAN => return Some(bytes.split_at(1)),
        SMALL_EXPONENT => 3,
        BIG_EXPONENT => 4,
        EXPONENT_BASE..=0xF0 => 1,
        _ => return None,
    };
    loop {
        let digit = *bytes.get(at)? ^ inverted;
        at += 1;
        if digit & 1 == 0 {
            return Some(bytes.split_at(at));
        }
    }
}

/// Reads a number; `scale` is its display scale, by default the least that shows it.
fn decode_number(key: &[u8], scale: Option<u32>) -> Result<Numeric> {
    let inverted = if key[0] < ZERO { 0xFF } else { 0 };
    let at = |i: usize| key.get(i).map(|b| b ^ inverted).ok_or_else(damaged);
    let first = at(0)?;
    let (exponent, start) = match first {
        ZERO => return Ok(Numeric::new(0, scale.unwrap_or(0))),
        NAN => return Ok(Numeric::NaN),
        POS_INF if inverted == 0 => return Ok(Numeric::PosInf),
        POS_INF => return Ok(Numeric::NegInf),
        SMALL_EXPONENT => ((i32::from(at(1)?) << 8 | i32::from(at(2)?)) - SMALL_EXPONENT_BIAS, 3),
        BIG_EXPONENT => (i32::from(at(1)?) << 16 | i32::from(at(2)?) << 8 | i32::from(at(3)?), 4),
        b => (i32::from(b) - i32::from(EXPONENT_BASE) + EXPONENT_MIN, 1),
    };
    if !(-SMALL_EXPONENT_BIAS..=EXPONENT_LIMIT).contains(&exponent) {
        return Err(damaged());
    }
    let digits = &key[start..];
    let value = |b: u8| (b ^ inverted) >> 1;
    if digits.is_empty() || digits.iter().any(|b| value(*b) > 99) {
        return Err(damaged());
    }
    // coefficient * 100^(exponent - digits.len()) is the number.
    let shift = 2 * (exponent - digits.len() as i32);
    let last_is_round = value(digits[digits.len() - 1]).is_multiple_of(10);
    let least = if shift < 0 { (-shift) as u32 - u32::from(last_is_round) } else { 0 };
    let scale = scale.unwrap_or(least);
    if scale > MAX_SCALE as u32 || scale < least {
        return Err(damaged());
    }
    let to_multiply = (scale as i32 + shift).max(0) as u32;
    let to_divide = (-(scale as i32) - shift).max(0) as u32;
    if digits.len() * 2 + to_multiply as usize <= 36 {
        let mut c = digits.iter().fold(0i128, |c, b| c * 100 + i128::from(value(*b)));
        c = c * 10i128.pow(to_multiply) / 10i128.pow(to_divide);
        return Ok(Numeric::new(if inverted != 0 { -c } else { c }, scale));
    }
    let radix: Vec<u8> = digits.iter().map(|b| value(*b)).collect();
    let magnitude = BigUint::from_radix_be(&radix, 100).ok_or_else(damaged)?;
    let mut c = BigInt::from_biguint(if inverted != 0 { Sign::Minus } else { Sign::Plus }, magnitude);
    c *= pow10_big(to_multiply);
    if to_divide > 0 {
        c /= pow10_big(to_divide);
    }
    Ok(Numeric::from_parts(c, scale))
}

fn read_scale(bytes: &[u8]) -> Result<u32> {
    match bytes {
        [a] if *a < 0x80 => Ok(u32::from(*a)),
        [a, b] if *a >= 0x80 => Ok(u32::from(*a & 0x7F) << 8 | u32::from(*b)),
        _ => Err(damaged()),
    }
}

impl Numeric {
    /// Reads a stored value.
    /// # Errors
    /// `Damaged`.
    pub fn decode(stored: &[u8]) -> Result<Numeric> {
        let (key, rest) = split(stored).ok_or_else(damaged)?;
        if matches!(key[0], NEG_INF | POS_INF | NAN) {
            return if rest.is_empty() { decode_number(key, None) } else { Err(damaged()) };
        }
        decode_number(key, Some(read_scale(rest)?))
    }

    /// The stored form.
    pub fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(12);
        self.encode_to(&mut out);
        out.into_boxed_slice()
    }

    /// Appends the stored form.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        self.encode_sort_key(out);
        if let Numeric::Finite(d) = self {
            if d.scale < 0x80 {
                out.push(d.scale as u8);
            } else {
                out.extend([0x80 | (d.scale >> 8) as u8, d.scale as u8]);
            }
        }
    }

    /// Appends the stored form without the display scale.
    pub fn encode_sort_key(&self, out: &mut Vec<u8>) {
        match self {
            Numeric::NaN => out.push(NAN),
            Numeric::PosInf => out.push(POS_INF),
            Numeric::NegInf => out.push(NEG_INF),
            Numeric::Finite(d) if d.coefficient.is_zero() => out.push(ZERO),
            Numeric::Finite(d) => encode_finite(d, out),
        }
    }
}

fn encode_finite(d: &Decimal, out: &mut Vec<u8>) {
    let start = out.len();
    // Base-100 digits, the most significant first, of the coefficient with an even scale.
    let odd = d.scale % 2;
    let fraction_digits = ((d.scale + odd) / 2) as i32;
    let mut buffer = [0u8; 24];
    let big;
    let digits: &[u8] = match &d.coefficient {
        Coefficient::Small(c) if c.unsigned_abs() < u128::MAX / 10 => {
            let mut c = c.unsigned_abs() * if odd == 1 { 10 } else { 1 };
            let mut at = buffer.len();
            while c > u128::from(u64::MAX) {
                at -= 1;
                buffer[at] = (c % 100) as u8;
                c /= 100;
            }
            let mut c = c as u64;
            while c > 0 {
                at -= 1;
                buffer[at] = (c % 100) as u8;
                c /= 100;
            }
            &buffer[at..]
        }
        c => {
            big = (c.to_big().magnitude() * if odd == 1 { 10u8 } else { 1 }).to_radix_be(100);
            &big
        }
    };
    let exponent = digits.len() as i32 - fraction_digits;
    let used = digits.iter().rposition(|d| *d != 0).map_or(0, |i| i + 1);
    if exponent < EXPONENT_MIN {
        out.push(SMALL_EXPONENT);
        out.extend(((exponent + SMALL_EXPONENT_BIAS) as u16).to_be_bytes());
    } else if exponent > EXPONENT_MAX {
        out.push(BIG_EXPONENT);
        out.extend(&(exponent as u32).to_be_bytes()[1..]);
    } else {
        out.push((i32::from(EXPONENT_BASE) + exponent - EXPONENT_MIN) as u8);
    }
    for (i, digit) in digits[..used].iter().enumerate() {
        out.push(digit * 2 + u8::from(i + 1 < used));
    }
    if d.coefficient.is_negative() {
        for b in &mut out[start..] {
            *b = !*b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCENDING: &[&str] = &[
        "-Infinity",
        "-1e200",
        "-1000000",
        "-100.01",
        "-100",
        "-99.5",
        "-10",
        "-9.99",
        "-1.01",
        "-1.00",
        "-1",
        "-0.5",
        "-0.05",
        "-1e-40",
        "-1e-9000",
        "0",
        "0.00",
        "1e-9000",
        "1e-40",
        "0.001",
        "0.0010",
        "0.01",
        "0.011",
        "0.1",
        "0.5",
        "1",
        "1.0",
        "1.01",
        "2",
        "9",
        "10",
        "10.1",
        "99",
        "99.99",
        "100",
        "101",
        "12345678901234567890",
        "12345678901234567890123456789012345678901234567890",
        "1e130",
        "1e1000",
        "1e131071",
        "Infinity",
        "NaN",
    ];

    #[test]
    fn stored_bytes_sort_by_value_then_by_scale() {
        // Among equal negative numbers, too, the smaller scale comes first.
        let mut encoded: Vec<(Box<[u8]>, &str)> = ASCENDING.iter().map(|t| (Numeric::parse(t).unwrap().encode(), *t)).collect();
        encoded.sort_by(|a, b| a.0.cmp(&b.0));
        let sorted: Vec<&str> = encoded.iter().map(|e| e.1).collect();
        let mut expected = ASCENDING.to_vec();
        let at = expected.iter().position(|t| *t == "-1.00").unwrap();
        expected.swap(at, at + 1);
        assert_eq!(sorted, expected);
    }

    #[test]
    fn stored_bytes_round_trip_with_their_scale() {
        for t in ASCENDING.iter().filter(|t| !t.contains('e')) {
            assert_eq!(Numeric::decode(&Numeric::parse(t).unwrap().encode()).unwrap().to_string(), *t);
        }
        for t in ASCENDING {
            let n = Numeric::parse(t).unwrap();
            assert_eq!(Numeric::decode(&n.encode()).unwrap(), n);
            let mut key = Vec::new();
            n.encode_sort_key(&mut key);
            assert_eq!(sort_key(&n.encode()), key);
            key.push(7);
            assert_eq!(decode_sort_key(&key).unwrap(), (n, &[7u8][..]));
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for bytes in
            [&[][..], &[0x80], &[0x00], &[0xA9], &[0xA9, 3], &[0xA9, 0xFE, 0], &[0xF8, 255, 255, 255, 2, 0], &[0xA9, 2, 0x80], &[0xFE, 1]]
        {
            assert!(Numeric::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
