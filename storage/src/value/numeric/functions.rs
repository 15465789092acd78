//! Roots, exponentials and logarithms with the digits that PostgreSQL gives them.
//!
//! The rules for a result's scale are PostgreSQL's; the digits are computed with guard digits on integers scaled by a
//! power of ten and rounded once, which is what its own algorithms approximate.

use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::arithmetic::{divide_rounded, divide_to_scale, division_by_zero};
use super::{Coefficient, Decimal, MAX_DISPLAY_SCALE, MIN_SIG_DIGITS, Numeric, big_digit_count, overflow, pow10_big};
use crate::error::{Error, Result, ValueErrorCode};

/// The decimal weight beyond which an exponential's exact scale no longer matters.
const MAX_RESULT_SCALE: i32 = 2000;
/// Digits carried beyond those that are shown.
const GUARD_DIGITS: u32 = 12;
/// The digits that PostgreSQL computes with; the last bits of the library constant would change results.
#[allow(clippy::approx_constant)]
const LOG10_E: f64 = 0.434294481903252;

fn log_error(text: &str) -> Error {
    Error::value(ValueErrorCode::InvalidArgumentForLog, text)
}

fn power_error(text: &str) -> Error {
    Error::value(ValueErrorCode::InvalidArgumentForPower, text)
}

fn clamp_scale(scale: i32, at_least: &[u32]) -> u32 {
    at_least.iter().fold(scale, |s, a| s.max(*a as i32)).clamp(0, MAX_DISPLAY_SCALE) as u32
}

/// The decimal's value times `10^digits`, rounded.
fn fixed(d: &Decimal, digits: u32) -> BigInt {
    let c = d.coefficient.to_big();
    if digits >= d.scale { c * pow10_big(digits - d.scale) } else { divide_rounded(&c, &pow10_big(d.scale - digits)) }
}

/// Rounds a fixed-point number with `digits` decimals to `scale`.
fn from_fixed(value: &BigInt, digits: u32, scale: u32) -> Numeric {
    if digits >= scale {
        Numeric::from_parts(divide_rounded(value, &pow10_big(digits - scale)), scale)
    } else {
        Numeric::from_parts(value * pow10_big(scale - digits), scale)
    }
}

/// `ln` of a positive fixed-point number with `digits` decimals.
fn ln_fixed(x: &BigInt, digits: u32) -> BigInt {
    // Work at 10^work. Bring x near 1 by powers of ten and by square roots, then sum the series of artanh.
    let exponent = big_digit_count(x) - i64::from(digits);
    let work = digits + GUARD_DIGITS + 6;
    let one = pow10_big(work);
    // m = x / 10^exponent, in [0.1, 1).
    let shift = i64::from(work) - i64::from(digits) - exponent;
    let mut m = if shift >= 0 { x * pow10_big(shift as u32) } else { divide_rounded(x, &pow10_big((-shift) as u32)) };
    let mut doublings = 0u32;
    let mut result = BigInt::zero();
    if exponent != 0 {
        result = ln_ten(work) * exponent;
    }
    let near = &one / 32;
    while (&m - &one).abs() > near {
        m = (m * &one).sqrt();
        doublings += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1))
    let z = ((&m - &one) * &one) / (&m + &one);
    let z2 = (&z * &z) / &one;
    let (mut term, mut sum, mut n) = (z.clone(), z, 3u32);
    loop {
        term = (&term * &z2) / &one;
        if term.is_zero() {
            break;
        }
        sum += &term / n;
        n += 2;
    }
    result += sum << (doublings + 1);
    divide_rounded(&result, &pow10_big(work - digits))
}

/// `ln 10` with `digits` decimals, from ln 10 = 3 ln 2 + ln 1.25.
fn ln_ten(digits: u32) -> BigInt {
    // artanh(1/n) * 2 = ln((n+1)/(n-1)): ln 2 is n = 3, ln 1.25 is n = 9.
    let work = digits + 6;
    let artanh = |n: u32| {
        let mut power = pow10_big(work) / n;
        let (mut sum, mut k) = (power.clone(), 3u32);
        loop {
            power /= n * n;
            if power.is_zero() {
                return sum;
            }
            sum += &power / k;
            k += 2;
        }
    };
    let sum: BigInt = artanh(3) * 6 + artanh(9) * 2;
    divide_rounded(&sum, &pow10_big(6))
}

/// `e^x` rounded to `scale` decimals; `x` has `digits` decimals.
fn exp_fixed(x: &BigInt, digits: u32, scale: u32) -> Numeric {
    let approximate = Numeric::from_parts(x.clone(), digits).to_f64_lossy();
    let weight = (approximate * LOG10_E).ceil() as i64;
    if weight + i64::from(scale) + 2 < 0 {
        return Numeric::new(0, scale);
    }
    // e^x = 10^k e^(x - k ln 10), and the rest's e^ is between 1 and 10.
    let significant = (weight + i64::from(scale)).max(0) as u32 + GUARD_DIGITS;
    let work = significant + 10;
    let k = (approximate * LOG10_E).floor() as i64;
    let mut rest = if work >= digits { x * pow10_big(work - digits) } else { divide_rounded(x, &pow10_big(digits - work)) };
    if k != 0 {
        rest -= ln_ten(work + 6) * k / pow10_big(6);
    }
    let one = pow10_big(work);
    const HALVINGS: u32 = 8;
    let small = rest >> HALVINGS;
    let (mut term, mut sum, mut n) = (one.clone(), one.clone(), 1u32);
    loop {
        term = (&term * &small) / (&one * n);
        if term.is_zero() {
            break;
        }
        sum += &term;
        n += 1;
    }
    for _ in 0..HALVINGS {
        sum = (&sum * &sum) / &one;
    }
    // sum / 10^work * 10^k, shown with `scale` decimals.
    let drop = i64::from(work) - k - i64::from(scale);
    let c = if drop >= 0 { divide_rounded(&sum, &pow10_big(drop as u32)) } else { sum * pow10_big((-drop) as u32) };
    Numeric::from_parts(c, scale)
}

/// The decimal weight of `ln(d)`, estimated as PostgreSQL does.
fn estimate_ln_weight(d: &Decimal) -> i32 {
    if d.coefficient.is_negative() || d.coefficient.is_zero() {
        return 0;
    }
    let value = Numeric::Finite(d.clone());
    if value >= Numeric::new(9, 1) && value <= Numeric::new(11, 1) {
        let Ok(Numeric::Finite(x)) = value.sub(&Numeric::ONE) else { return 0 };
        let (weight, first) = Numeric::leading_10000(&x);
        return if first == 0 { 0 } else { weight * 4 + f64::from(first).log10() as i32 };
    }
    let (digits, weight) = Numeric::base_10000(d);
    let (mut lead, mut dweight) = (f64::from(digits[0]), weight * 4);
    if let Some(second) = digits.get(1) {
        lead = lead * 10000.0 + f64::from(*second);
        dweight -= 4;
    }
    let ln = lead.ln() + f64::from(dweight) * std::f64::consts::LN_10;
    ln.abs().log10() as i32
}

/// `ln(d)` rounded to `digits` decimals, as a fixed-point number.
fn ln_decimal(d: &Decimal, digits: u32) -> BigInt {
    // The argument's own digits all matter: near 1 the logarithm is what is left of them.
    let work = digits.max(d.scale) + GUARD_DIGITS;
    let small = (-(d.coefficient.digit_count() - i64::from(d.scale))).max(0) as u32;
    let work = work + small;
    divide_rounded(&ln_fixed(&fixed(d, work), work), &pow10_big(work - digits))
}

impl Numeric {
    /// # Errors
    /// `Value` for negative arguments.
    pub fn sqrt(&self) -> Result<Numeric> {
        let d = match self {
            Numeric::NaN | Numeric::PosInf => return Ok(self.clone()),
            Numeric::Finite(d) if !d.coefficient.is_negative() => d,
            _ => return Err(power_error("cannot take square root of a negative number")),
        };
        let (weight, _) = Numeric::leading_10000(d);
        let scale = clamp_scale(MIN_SIG_DIGITS - (weight * 2 + 1), &[d.scale]);
        // One digit more than shown: a root is never exactly half way, so truncating first cannot mislead the rounding.
        let digits = 2 * (scale + 1).max(d.scale.div_ceil(2));
        Ok(from_fixed(&fixed(d, digits).sqrt(), digits / 2, scale))
    }

    /// # Errors
    /// `OutOfRange`.
    pub fn exp(&self) -> Result<Numeric> {
        let d = match self {
            Numeric::NaN | Numeric::PosInf => return Ok(self.clone()),
            Numeric::NegInf => return Ok(Numeric::ZERO),
            Numeric::Finite(d) => d,
        };
        let value = self.to_f64_lossy();
        let weight = (value * LOG10_E).clamp(-f64::from(MAX_RESULT_SCALE), f64::from(MAX_RESULT_SCALE)) as i32;
        let scale = clamp_scale(MIN_SIG_DIGITS - weight, &[d.scale]);
        if value.abs() >= f64::from(MAX_RESULT_SCALE) * 3.0 {
            return if value > 0.0 { Err(overflow()) } else { Ok(Numeric::new(0, scale)) };
        }
        exp_fixed(&d.coefficient.to_big(), d.scale, scale).checked()
    }

    /// The natural logarithm.
    /// # Errors
    /// `Value` for arguments that are not positive.
    pub fn ln(&self) -> Result<Numeric> {
        let d = match self {
            Numeric::NaN | Numeric::PosInf => return Ok(self.clone()),
            _ if self.signum() < 0 => return Err(log_error("cannot take logarithm of a negative number")),
            _ if self.is_zero() => return Err(log_error("cannot take logarithm of zero")),
            Numeric::Finite(d) => d,
            Numeric::NegInf => return Err(log_error("cannot take logarithm of a negative number")),
        };
        let scale = clamp_scale(MIN_SIG_DIGITS - estimate_ln_weight(d), &[d.scale]);
        Ok(Numeric::from_parts(ln_decimal(d, scale), scale))
    }

    /// The logarithm to base ten.
    /// # Errors
    /// `Value` for arguments that are not positive.
    pub fn log10(&self) -> Result<Numeric> {
        self.log(&Numeric::from(10))
    }

    /// The logarithm of this number to `base`.
    /// # Errors
    /// `Value` for arguments that are not positive, and base 1.
    pub fn log(&self, base: &Numeric) -> Result<Numeric> {
        for n in [base, self] {
            match n.signum() {
                -1 => return Err(log_error("cannot take logarithm of a negative number")),
                0 => return Err(log_error("cannot take logarithm of zero")),
                _ => {}
            }
        }
        let (b, n) = match (base, self) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => return Ok(Numeric::NaN),
            (Numeric::Finite(b), Numeric::Finite(n)) => (b, n),
            (Numeric::Finite(_), _) => return Ok(Numeric::PosInf),
            (_, Numeric::Finite(_)) => return Ok(Numeric::ZERO),
            _ => return Ok(Numeric::NaN),
        };
        let (weight_b, weight_n) = (estimate_ln_weight(b), estimate_ln_weight(n));
        let result_weight = weight_n - weight_b;
        let scale = clamp_scale(MIN_SIG_DIGITS - result_weight, &[b.scale, n.scale]);
        let digits = |weight: i32| (scale as i32 + result_weight - weight + 8).max(0) as u32 + GUARD_DIGITS;
        let (ln_b, ln_n) = (ln_decimal(b, digits(weight_b)), ln_decimal(n, digits(weight_n)));
        if ln_b.is_zero() {
            return Err(division_by_zero());
        }
        let part = |c: BigInt, scale: u32| Decimal { coefficient: Coefficient::from_big(c), scale };
        Ok(divide_to_scale(&part(ln_n, digits(weight_n)), &part(ln_b, digits(weight_b)), scale))
    }

    /// This number to the power of `exponent`.
    /// # Errors
    /// `Value` for 0 to a negative power and negative numbers to a fraction; `OutOfRange`.
    pub fn pow(&self, exponent: &Numeric) -> Result<Numeric> {
        let (b, e) = match (self, exponent) {
            (Numeric::Finite(b), Numeric::Finite(e)) => (b, e),
            _ => return self.pow_special(exponent),
        };
        if self.is_zero() && exponent.signum() < 0 {
            return Err(power_error("zero raised to a negative power is undefined"));
        }
        let is_integer = exponent.trunc(0) == *exponent;
        if self.signum() < 0 && !is_integer {
            return Err(power_error("a negative number raised to a non-integer power yields a complex result"));
        }
        if is_integer && let Some(n) = exponent.to_i128().and_then(|n| i32::try_from(n).ok()) {
            return pow_integer(self, b, n, e.scale);
        }
        if self.is_zero() {
            return Ok(Numeric::new(0, MIN_SIG_DIGITS as u32));
        }
        let negative = self.signum() < 0 && !exponent.rem(&Numeric::from(2))?.is_zero();
        let positive = Decimal { coefficient: Coefficient::from_big(b.coefficient.to_big().abs()), scale: b.scale };
        let ln_weight = estimate_ln_weight(&positive);
        let low = (8 - ln_weight).max(0) as u32;
        let value = Numeric::from_parts(ln_decimal(&positive, low), low).mul(exponent)?.round(low as i32).to_f64_lossy();
        if value.abs() > f64::from(MAX_RESULT_SCALE) * 3.01 {
            return if value > 0.0 { Err(overflow()) } else { Ok(Numeric::new(0, MAX_DISPLAY_SCALE as u32)) };
        }
        let weight = (value * LOG10_E) as i32;
        let scale = clamp_scale(MIN_SIG_DIGITS - weight, &[b.scale, e.scale]);
        let significant = (scale as i32 + weight).max(0) as u32;
        let digits = significant + GUARD_DIGITS + (-ln_weight).max(0) as u32 + e.coefficient.digit_count().max(0) as u32 + 8;
        let product = ln_decimal(&positive, digits) * e.coefficient.to_big();
        let value = Numeric::from_parts(product.clone(), digits + e.scale).to_f64_lossy();
        if value.abs() >= f64::from(MAX_RESULT_SCALE) * 3.0 {
            return if value > 0.0 { Err(overflow()) } else { Ok(Numeric::new(0, scale)) };
        }
        let result = exp_fixed(&product, digits + e.scale, scale).checked()?;
        Ok(if negative { result.neg() } else { result })
    }

    /// The power where an operand is NaN or infinite, as in POSIX `pow`.
    fn pow_special(&self, exponent: &Numeric) -> Result<Numeric> {
        if exponent.is_zero() || *self == Numeric::ONE {
            return Ok(Numeric::ONE);
        }
        if self.is_nan() || exponent.is_nan() {
            return Ok(Numeric::NaN);
        }
        if self.is_zero() && exponent.signum() < 0 {
            return Err(power_error("zero raised to a negative power is undefined"));
        }
        if !exponent.is_finite() {
            let magnitude = self.abs();
            if magnitude == Numeric::ONE {
                return Ok(Numeric::ONE);
            }
            let grows = (magnitude > Numeric::ONE) == (exponent.signum() > 0);
            return Ok(if grows { Numeric::PosInf } else { Numeric::ZERO });
        }
        // The base is infinite.
        if exponent.signum() < 0 {
            return Ok(Numeric::ZERO);
        }
        if self.signum() > 0 {
            return Ok(Numeric::PosInf);
        }
        if exponent.trunc(0) != *exponent {
            return Err(power_error("a negative number raised to a non-integer power yields a complex result"));
        }
        Ok(if exponent.rem(&Numeric::from(2))?.is_zero() { Numeric::PosInf } else { Numeric::NegInf })
    }
}

/// A power with an integer exponent.
fn pow_integer(base: &Numeric, b: &Decimal, exponent: i32, exponent_scale: u32) -> Result<Numeric> {
    // The result's decimal weight, from the first sixteen digits.
    let mut f = 0.0;
    if !b.coefficient.is_zero() {
        let (digits, weight) = Numeric::base_10000(b);
        let mut p = weight * 4;
        f = f64::from(digits[0]);
        for digit in digits.iter().skip(1).take(3) {
            f = f * 10000.0 + f64::from(*digit);
            p -= 4;
        }
        f = f64::from(exponent) * (f.log10() + f64::from(p));
    }
    if f > f64::from(32768 * 4) {
        return Err(overflow());
    }
    let scale = clamp_scale(MIN_SIG_DIGITS, &[b.scale, exponent_scale]);
    if f + 1.0 < -f64::from(scale) {
        return Ok(Numeric::new(0, scale));
    }
    match exponent {
        0 => return Ok(Numeric::ONE.round(scale as i32)),
        1 => return Ok(base.round(scale as i32)),
        -1 => {
            let one = Decimal { coefficient: Coefficient::Small(1), scale: 0 };
            return divide_to_scale(&one, b, scale).checked();
        }
        2 => return base.mul(base)?.round(scale as i32).checked(),
        _ if b.coefficient.is_zero() => return Ok(Numeric::new(0, scale)),
        _ => {}
    }
    // Floating point with a fixed number of digits: mantissa * 10^exponent10.
    let wanted =
        (scale as i64 + f.abs().ceil() as i64).max(0) + 1 + i64::from(GUARD_DIGITS) + i64::from(exponent.unsigned_abs().ilog10()) + 8;
    let shorten = |m: BigInt, e: i64| {
        let extra = big_digit_count(&m) - wanted;
        if extra > 0 { (divide_rounded(&m, &pow10_big(extra as u32)), e + extra) } else { (m, e) }
    };
    let mut n = exponent.unsigned_abs();
    let (mut square, mut square_e) = shorten(b.coefficient.to_big(), -i64::from(b.scale));
    let (mut result, mut result_e) = (BigInt::one(), 0i64);
    loop {
        if n & 1 == 1 {
            (result, result_e) = shorten(&result * &square, result_e + square_e);
        }
        n >>= 1;
        if n == 0 {
            break;
        }
        (square, square_e) = shorten(&square * &square, square_e * 2);
    }
    if exponent < 0 {
        // 1 / (result * 10^e), with `wanted` digits.
        let up = wanted + big_digit_count(&result);
        result = divide_rounded(&pow10_big(up.to_u32().ok_or_else(overflow)?), &result);
        result_e = -result_e - up;
    }
    let drop = -result_e - i64::from(scale);
    let c = if drop > 0 {
        if drop > big_digit_count(&result) + 1 { BigInt::zero() } else { divide_rounded(&result, &pow10_big(drop as u32)) }
    } else {
        result * pow10_big((-drop) as u32)
    };
    Numeric::from_parts(c, scale).checked()
}
