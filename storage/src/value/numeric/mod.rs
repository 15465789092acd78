//! PostgreSQL's `numeric`: a decimal number with a display scale, NaN and the infinities.
//!
//! Stored values are bytes that sort like the numbers (see `encoding`). [`Numeric`] is the form to compute with:
//! an integer coefficient divided by a power of ten, in 128 bits while it fits. Results have exactly PostgreSQL's
//! digits: its rules for the scale of a result are part of the type's meaning (its `numeric.c`).

mod arithmetic;
mod encoding;
mod functions;
mod text;

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};

use crate::error::{Error, Result, ValueErrorCode};

pub use encoding::{decode_sort_key, sort_key};

/// The largest precision that a typmod can state, and the largest scale of a computed quotient.
pub const MAX_DISPLAY_SCALE: i32 = 1000;
/// The digits that division, roots and logarithms give at least.
pub const MIN_SIG_DIGITS: i32 = 16;
/// The most digits behind the decimal point that the type can hold.
pub const MAX_SCALE: i32 = 16383;
/// The most digits before the decimal point that the type can hold.
pub const MAX_INTEGER_DIGITS: i64 = 131_072;

/// A numeric value in the form to compute with.
#[derive(Clone, Debug)]
pub enum Numeric {
    NaN,
    PosInf,
    NegInf,
    Finite(Decimal),
}

/// `coefficient / 10^scale`; `scale` is PostgreSQL's display scale, 0 to [`MAX_SCALE`].
#[derive(Clone, Debug)]
pub struct Decimal {
    pub(crate) coefficient: Coefficient,
    pub(crate) scale: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Coefficient {
    Small(i128),
    Big(BigInt),
}

impl Coefficient {
    pub(crate) fn from_big(value: BigInt) -> Self {
        match value.to_i128() {
            Some(v) => Coefficient::Small(v),
            None => Coefficient::Big(value),
        }
    }

    pub(crate) fn to_big(&self) -> BigInt {
        match self {
            Coefficient::Small(v) => BigInt::from(*v),
            Coefficient::Big(v) => v.clone(),
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Coefficient::Small(v) => *v == 0,
            Coefficient::Big(v) => v.is_zero(),
        }
    }

    pub(crate) fn is_negative(&self) -> bool {
        match self {
            Coefficient::Small(v) => *v < 0,
            Coefficient::Big(v) => v.is_negative(),
        }
    }

    /// The number of decimal digits; 0 has none.
    pub(crate) fn digit_count(&self) -> i64 {
        match self {
            Coefficient::Small(0) => 0,
            Coefficient::Small(v) => i64::from(v.unsigned_abs().ilog10()) + 1,
            Coefficient::Big(v) => big_digit_count(v),
        }
    }
}

pub(crate) fn big_digit_count(value: &BigInt) -> i64 {
    if value.is_zero() {
        return 0;
    }
    // An estimate from the bits is off by one at most.
    let bits = value.bits();
    let estimate = ((bits - 1) as f64 * std::f64::consts::LOG10_2) as u32;
    if value.magnitude() >= pow10_big(estimate + 1).magnitude() {
        i64::from(estimate) + 2
    } else if value.magnitude() >= pow10_big(estimate).magnitude() {
        i64::from(estimate) + 1
    } else {
        i64::from(estimate)
    }
}

pub(crate) fn pow10(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

pub(crate) fn pow10_big(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// Packs precision and scale into a modifier.
pub fn make_typmod(precision: i32, scale: i32) -> i32 {
    ((precision << 16) | (scale & 0x7FF)) + 4
}

/// The precision and scale of a modifier that is not -1.
pub fn split_typmod(typmod: i32) -> (i32, i32) {
    let m = typmod - 4;
    ((m >> 16) & 0xFFFF, ((m & 0x7FF) ^ 1024) - 1024)
}

fn overflow() -> Error {
    Error::out_of_range("value overflows numeric format")
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        Numeric::new(i128::from(value), 0)
    }
}

impl From<i32> for Numeric {
    fn from(value: i32) -> Self {
        Numeric::new(i128::from(value), 0)
    }
}

impl From<i128> for Numeric {
    fn from(value: i128) -> Self {
        Numeric::new(value, 0)
    }
}

impl Numeric {
    pub const ZERO: Numeric = Numeric::new(0, 0);
    pub const ONE: Numeric = Numeric::new(1, 0);

    /// `coefficient / 10^scale`.
    pub const fn new(coefficient: i128, scale: u32) -> Self {
        Numeric::Finite(Decimal { coefficient: Coefficient::Small(coefficient), scale })
    }

    pub(crate) fn from_parts(coefficient: BigInt, scale: u32) -> Self {
        Numeric::Finite(Decimal { coefficient: Coefficient::from_big(coefficient), scale })
    }

    /// Checks the limits of the stored format.
    pub(crate) fn checked(self) -> Result<Self> {
        if let Numeric::Finite(d) = &self
            && (d.scale > MAX_SCALE as u32 || d.coefficient.digit_count() - i64::from(d.scale) > MAX_INTEGER_DIGITS)
        {
            return Err(overflow());
        }
        Ok(self)
    }

    /// The number that PostgreSQL's cast makes of a double: 15 significant digits.
    pub fn from_f64(value: f64) -> Self {
        Self::from_float(value, 14)
    }

    /// The number that PostgreSQL's cast makes of a single: 6 significant digits.
    pub fn from_f32(value: f32) -> Self {
        Self::from_float(f64::from(value), 5)
    }

    fn from_float(value: f64, digits: usize) -> Self {
        if value.is_nan() {
            return Numeric::NaN;
        }
        if value.is_infinite() {
            return if value > 0.0 { Numeric::PosInf } else { Numeric::NegInf };
        }
        let text = format!("{value:.digits$e}");
        let parsed = Numeric::parse(&text).unwrap_or(Numeric::ZERO);
        match parsed {
            // `%g` prints no trailing zeros, so the scale is the least that keeps the digits.
            Numeric::Finite(_) => parsed.trim_scale(),
            other => other,
        }
    }

    /// The nearest double; out of range values are infinite.
    pub fn to_f64_lossy(&self) -> f64 {
        match self {
            Numeric::NaN => f64::NAN,
            Numeric::PosInf => f64::INFINITY,
            Numeric::NegInf => f64::NEG_INFINITY,
            Numeric::Finite(d) => match d.coefficient {
                // Both are exact in a double, so one division rounds correctly.
                Coefficient::Small(c) if c.unsigned_abs() < 1 << 53 && d.scale <= 22 => c as f64 / 10f64.powi(d.scale as i32),
                _ => self.to_string().parse().unwrap_or(f64::NAN),
            },
        }
    }

    /// The cast to double precision.
    /// # Errors
    /// `OutOfRange` when only an infinity would be left.
    pub fn to_f64(&self) -> Result<f64> {
        let value = self.to_f64_lossy();
        if let Numeric::Finite(d) = self
            && (value.is_infinite() || value == 0.0 && !d.coefficient.is_zero())
        {
            return Err(Error::out_of_range(format!("\"{self}\" is out of range for type double precision")));
        }
        Ok(value)
    }

    /// The cast to real.
    /// # Errors
    /// `OutOfRange` when only an infinity would be left.
    pub fn to_f32(&self) -> Result<f32> {
        let value = match self {
            Numeric::Finite(_) => self.to_string().parse::<f32>().unwrap_or(f32::NAN),
            _ => self.to_f64_lossy() as f32,
        };
        if let Numeric::Finite(d) = self
            && (value.is_infinite() || value == 0.0 && !d.coefficient.is_zero())
        {
            return Err(Error::out_of_range(format!("\"{self}\" is out of range for type real")));
        }
        Ok(value)
    }

    /// The number rounded to an integer, where it fits.
    pub fn to_i128(&self) -> Option<i128> {
        match self.round(0) {
            Numeric::Finite(d) => match d.coefficient {
                Coefficient::Small(c) => Some(c),
                Coefficient::Big(_) => None,
            },
            _ => None,
        }
    }

    fn to_integer<T: TryFrom<i128>>(&self, type_name: &str) -> Result<T> {
        match self {
            Numeric::NaN => Err(Error::value(ValueErrorCode::FeatureNotSupported, format!("cannot convert NaN to {type_name}"))),
            Numeric::PosInf | Numeric::NegInf => {
                Err(Error::value(ValueErrorCode::FeatureNotSupported, format!("cannot convert infinity to {type_name}")))
            }
            Numeric::Finite(_) => {
                self.to_i128().and_then(|v| T::try_from(v).ok()).ok_or_else(|| Error::out_of_range(format!("{type_name} out of range")))
            }
        }
    }

    /// The cast to bigint, rounding half away from zero.
    /// # Errors
    /// `OutOfRange`; `Value` for NaN and infinity.
    pub fn to_i64(&self) -> Result<i64> {
        self.to_integer("bigint")
    }

    /// The cast to integer, rounding half away from zero.
    /// # Errors
    /// `OutOfRange`; `Value` for NaN and infinity.
    pub fn to_i32(&self) -> Result<i32> {
        self.to_integer("integer")
    }

    /// The cast to smallint, rounding half away from zero.
    /// # Errors
    /// `OutOfRange`; `Value` for NaN and infinity.
    pub fn to_i16(&self) -> Result<i16> {
        self.to_integer("smallint")
    }

    pub fn is_nan(&self) -> bool {
        matches!(self, Numeric::NaN)
    }

    pub fn is_finite(&self) -> bool {
        matches!(self, Numeric::Finite(_))
    }

    pub fn is_zero(&self) -> bool {
        matches!(self, Numeric::Finite(d) if d.coefficient.is_zero())
    }

    /// The display scale; `None` for NaN and the infinities.
    pub fn scale(&self) -> Option<i32> {
        match self {
            Numeric::Finite(d) => Some(d.scale as i32),
            _ => None,
        }
    }

    /// The least scale that keeps all digits.
    pub fn min_scale(&self) -> Option<i32> {
        self.clone().trim_scale().scale()
    }

    /// The same value without zeros at the end of its fraction.
    pub fn trim_scale(self) -> Self {
        let Numeric::Finite(mut d) = self else { return self };
        match &mut d.coefficient {
            Coefficient::Small(0) => d.scale = 0,
            Coefficient::Small(c) => {
                while d.scale > 0 && *c % 10 == 0 {
                    *c /= 10;
                    d.scale -= 1;
                }
            }
            Coefficient::Big(c) => {
                let digits = c.magnitude().to_str_radix(10);
                let zeros = (digits.len() - digits.trim_end_matches('0').len()).min(d.scale as usize) as u32;
                if zeros > 0 {
                    d.coefficient = Coefficient::from_big(&*c / pow10_big(zeros));
                    d.scale -= zeros;
                }
            }
        }
        Numeric::Finite(d)
    }

    /// Rounds to the scale of a modifier and checks its precision; -1 changes nothing.
    /// # Errors
    /// `Value` with PostgreSQL's "numeric field overflow" and its DETAIL.
    pub fn apply_typmod(self, typmod: i32) -> Result<Self> {
        if typmod < 4 {
            return Ok(self);
        }
        let (precision, scale) = split_typmod(typmod);
        match self {
            Numeric::NaN => return Ok(self),
            Numeric::PosInf | Numeric::NegInf => {
                return Err(Error::value(ValueErrorCode::NumericValueOutOfRange, "numeric field overflow")
                    .with_detail(format!("A field with precision {precision}, scale {scale} cannot hold an infinite value.")));
            }
            Numeric::Finite(_) => {}
        }
        let rounded = self.round(scale);
        let Numeric::Finite(d) = &rounded else { return Ok(rounded) };
        let max_digits = precision - scale;
        if !d.coefficient.is_zero() && d.coefficient.digit_count() - i64::from(d.scale) > i64::from(max_digits) {
            let bound = if max_digits != 0 { format!("10^{max_digits}") } else { "1".into() };
            return Err(Error::value(ValueErrorCode::NumericValueOutOfRange, "numeric field overflow").with_detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
            )));
        }
        Ok(rounded)
    }

    /// Digits in base 10000, the weight of the first and the display scale, as the binary form has them.
    pub(crate) fn base_10000(d: &Decimal) -> (Vec<u16>, i32) {
        if d.coefficient.is_zero() {
            return (Vec::new(), 0);
        }
        let mut digits = match &d.coefficient {
            Coefficient::Small(c) => c.unsigned_abs().to_string(),
            Coefficient::Big(c) => c.magnitude().to_str_radix(10),
        };
        let pad = (4 - d.scale % 4) % 4;
        digits.extend(std::iter::repeat_n('0', pad as usize));
        let fraction_groups = ((d.scale + pad) / 4) as i32;
        let lead = (4 - digits.len() % 4) % 4;
        digits.insert_str(0, &"000"[..lead]);
        let mut groups: Vec<u16> = digits.as_bytes().chunks(4).map(|c| c.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0'))).collect();
        let weight = groups.len() as i32 - fraction_groups - 1;
        while groups.last() == Some(&0) {
            groups.pop();
        }
        (groups, weight)
    }

    /// The weight in base 10000 and the first digit in that base; (0, 0) for zero.
    pub(crate) fn leading_10000(d: &Decimal) -> (i32, i32) {
        let count = d.coefficient.digit_count();
        if count == 0 {
            return (0, 0);
        }
        let exponent = count - i64::from(d.scale);
        let weight = (exponent - 1).div_euclid(4);
        let lead = (exponent - weight * 4) as u32;
        let first = match &d.coefficient {
            Coefficient::Small(c) => {
                let c = c.unsigned_abs();
                if count >= i64::from(lead) {
                    c / 10u128.pow((count - i64::from(lead)) as u32)
                } else {
                    c * 10u128.pow((i64::from(lead) - count) as u32)
                }
            }
            Coefficient::Big(c) => (c.magnitude() / pow10_big((count - i64::from(lead)) as u32).magnitude()).to_u128().unwrap_or(0),
        };
        (weight as i32, first as i32)
    }
}

/// Order by value: NaN is equal to itself and greater than everything else; the display scale does not matter.
impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        fn rank(n: &Numeric) -> i8 {
            match n {
                Numeric::NegInf => -1,
                Numeric::Finite(_) => 0,
                Numeric::PosInf => 1,
                Numeric::NaN => 2,
            }
        }
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => arithmetic::compare(a, b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}
