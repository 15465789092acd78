//! Exact arithmetic: sums, products, quotients, rounding, comparison.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{One, Signed, Zero};

use super::{Coefficient, Decimal, MAX_DISPLAY_SCALE, MAX_SCALE, MIN_SIG_DIGITS, Numeric, pow10, pow10_big};
use crate::error::{Error, Result, ValueErrorCode};

pub(super) fn division_by_zero() -> Error {
    Error::value(ValueErrorCode::DivisionByZero, "division by zero")
}

/// The coefficient at another scale that is not smaller.
fn rescaled(d: &Decimal, scale: u32) -> BigInt {
    let c = d.coefficient.to_big();
    if scale > d.scale { c * pow10_big(scale - d.scale) } else { c }
}

fn rescaled_small(d: &Decimal, scale: u32) -> Option<i128> {
    match d.coefficient {
        Coefficient::Small(c) if scale == d.scale => Some(c),
        Coefficient::Small(c) => c.checked_mul(pow10(scale - d.scale)?),
        Coefficient::Big(_) => None,
    }
}

/// Divides and rounds half away from zero.
pub(super) fn divide_rounded(n: &BigInt, d: &BigInt) -> BigInt {
    let (mut q, r) = n.abs().div_rem(&d.abs());
    if (r << 1u8) >= d.abs() {
        q += BigInt::one();
    }
    if n.is_negative() != d.is_negative() { -q } else { q }
}

fn divide_rounded_small(n: i128, d: i128) -> i128 {
    let (a, b) = (n.unsigned_abs(), d.unsigned_abs());
    let (q, r) = (a / b, a % b);
    let q = if r >= b - r { q + 1 } else { q } as i128;
    if (n < 0) != (d < 0) { -q } else { q }
}

pub(super) fn compare(a: &Decimal, b: &Decimal) -> Ordering {
    let scale = a.scale.max(b.scale);
    if let (Some(x), Some(y)) = (rescaled_small(a, scale), rescaled_small(b, scale)) {
        return x.cmp(&y);
    }
    let signs = (sign(a), sign(b));
    if signs.0 != signs.1 || signs.0 == 0 {
        return signs.0.cmp(&signs.1);
    }
    let exponent = |d: &Decimal| d.coefficient.digit_count() - i64::from(d.scale);
    match exponent(a).cmp(&exponent(b)) {
        Ordering::Equal => rescaled(a, scale).cmp(&rescaled(b, scale)),
        o if signs.0 > 0 => o,
        o => o.reverse(),
    }
}

fn sign(d: &Decimal) -> i32 {
    if d.coefficient.is_zero() {
        0
    } else if d.coefficient.is_negative() {
        -1
    } else {
        1
    }
}

/// The scale that PostgreSQL gives a quotient: at least 16 significant digits, and no less than the operands'.
pub(super) fn select_div_scale(a: &Decimal, b: &Decimal) -> u32 {
    let (weight_a, first_a) = Numeric::leading_10000(a);
    let (weight_b, first_b) = Numeric::leading_10000(b);
    let mut weight = weight_a - weight_b;
    if first_a <= first_b {
        weight -= 1;
    }
    (MIN_SIG_DIGITS - weight * 4).max(a.scale as i32).max(b.scale as i32).clamp(0, MAX_DISPLAY_SCALE) as u32
}

/// `a / b` rounded to `scale` digits; `b` is not zero.
pub(super) fn divide_to_scale(a: &Decimal, b: &Decimal, scale: u32) -> Numeric {
    // a.c / 10^a.s / (b.c / 10^b.s) * 10^scale
    let up = i64::from(scale) + i64::from(b.scale) - i64::from(a.scale);
    if let (Coefficient::Small(x), Coefficient::Small(y)) = (&a.coefficient, &b.coefficient) {
        let (n, d) = if up >= 0 {
            (pow10(up as u32).and_then(|p| x.checked_mul(p)), Some(*y))
        } else {
            (Some(*x), pow10((-up) as u32).and_then(|p| y.checked_mul(p)))
        };
        if let (Some(n), Some(d)) = (n, d) {
            return Numeric::new(divide_rounded_small(n, d), scale);
        }
    }
    let (mut n, mut d) = (a.coefficient.to_big(), b.coefficient.to_big());
    if up >= 0 {
        n *= pow10_big(up as u32);
    } else {
        d *= pow10_big((-up) as u32);
    }
    Numeric::from_parts(divide_rounded(&n, &d), scale)
}

impl Numeric {
    /// -1, 0 or 1; 2 for NaN.
    pub fn signum(&self) -> i32 {
        match self {
            Numeric::NaN => 2,
            Numeric::PosInf => 1,
            Numeric::NegInf => -1,
            Numeric::Finite(d) => sign(d),
        }
    }

    /// SQL's `sign`: -1, 0, 1, or NaN.
    pub fn sign(&self) -> Numeric {
        match self.signum() {
            2 => Numeric::NaN,
            s => Numeric::from(s),
        }
    }

    pub fn neg(&self) -> Numeric {
        match self {
            Numeric::NaN => Numeric::NaN,
            Numeric::PosInf => Numeric::NegInf,
            Numeric::NegInf => Numeric::PosInf,
            Numeric::Finite(d) => match &d.coefficient {
                Coefficient::Small(c) if *c != i128::MIN => Numeric::new(-c, d.scale),
                c => Numeric::from_parts(-c.to_big(), d.scale),
            },
        }
    }

    pub fn abs(&self) -> Numeric {
        if self.signum() == -1 { self.neg() } else { self.clone() }
    }

    /// # Errors
    /// `OutOfRange` beyond the format's limits.
    pub fn add(&self, other: &Numeric) -> Result<Numeric> {
        use Numeric::*;
        match (self, other) {
            (NaN, _) | (_, NaN) | (PosInf, NegInf) | (NegInf, PosInf) => Ok(NaN),
            (PosInf, _) | (_, PosInf) => Ok(PosInf),
            (NegInf, _) | (_, NegInf) => Ok(NegInf),
            (Finite(a), Finite(b)) => {
                let scale = a.scale.max(b.scale);
                if let (Some(x), Some(y)) = (rescaled_small(a, scale), rescaled_small(b, scale))
                    && let Some(c) = x.checked_add(y)
                {
                    return Ok(Numeric::new(c, scale));
                }
                Numeric::from_parts(rescaled(a, scale) + rescaled(b, scale), scale).checked()
            }
        }
    }

    /// # Errors
    /// `OutOfRange` beyond the format's limits.
    pub fn sub(&self, other: &Numeric) -> Result<Numeric> {
        self.add(&other.neg())
    }

    /// # Errors
    /// `OutOfRange` beyond the format's limits.
    pub fn mul(&self, other: &Numeric) -> Result<Numeric> {
        let (a, b) = match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => return Ok(Numeric::NaN),
            (Numeric::Finite(a), Numeric::Finite(b)) => (a, b),
            // Infinity times zero has no value.
            _ => return Ok(infinity_of(self.signum() * other.signum())),
        };
        let scale = a.scale + b.scale;
        if let (Coefficient::Small(x), Coefficient::Small(y)) = (&a.coefficient, &b.coefficient)
            && scale <= MAX_SCALE as u32
            && let Some(c) = x.checked_mul(*y)
        {
            return Ok(Numeric::new(c, scale));
        }
        let product = Numeric::from_parts(a.coefficient.to_big() * b.coefficient.to_big(), scale);
        if scale > MAX_SCALE as u32 { product.round(MAX_SCALE) } else { product }.checked()
    }

    /// The quotient with the scale that PostgreSQL selects.
    /// # Errors
    /// `Value` (division by zero), `OutOfRange`.
    pub fn div(&self, other: &Numeric) -> Result<Numeric> {
        let (a, b) = match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => return Ok(Numeric::NaN),
            (_, b) if b.is_zero() => return Err(division_by_zero()),
            (Numeric::Finite(a), Numeric::Finite(b)) => (a, b),
            (Numeric::Finite(_), _) => return Ok(Numeric::ZERO),
            (_, Numeric::Finite(_)) => return Ok(infinity_of(self.signum() * other.signum())),
            _ => return Ok(Numeric::NaN),
        };
        divide_to_scale(a, b, select_div_scale(a, b)).checked()
    }

    /// SQL's `div`: the quotient truncated to an integer.
    /// # Errors
    /// `Value` (division by zero), `OutOfRange`.
    pub fn div_trunc(&self, other: &Numeric) -> Result<Numeric> {
        let (Numeric::Finite(a), Numeric::Finite(b)) = (self, other) else { return self.div(other) };
        if other.is_zero() {
            return Err(division_by_zero());
        }
        let scale = a.scale.max(b.scale);
        if let (Some(x), Some(y)) = (rescaled_small(a, scale), rescaled_small(b, scale))
            && let Some(q) = x.checked_div(y)
        {
            return Ok(Numeric::new(q, 0));
        }
        Numeric::from_parts(rescaled(a, scale) / rescaled(b, scale), 0).checked()
    }

    /// The remainder with the sign of the dividend.
    /// # Errors
    /// `Value` (division by zero).
    pub fn rem(&self, other: &Numeric) -> Result<Numeric> {
        let (a, b) = match (self, other) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => return Ok(Numeric::NaN),
            (_, b) if b.is_zero() => return Err(division_by_zero()),
            (Numeric::Finite(a), Numeric::Finite(b)) => (a, b),
            (Numeric::Finite(_), _) => return Ok(self.clone()),
            _ => return Ok(Numeric::NaN),
        };
        let scale = a.scale.max(b.scale);
        if let (Some(x), Some(y)) = (rescaled_small(a, scale), rescaled_small(b, scale)) {
            return Ok(Numeric::new(x.checked_rem(y).unwrap_or(0), scale));
        }
        Ok(Numeric::from_parts(rescaled(a, scale) % rescaled(b, scale), scale))
    }

    /// Rounds half away from zero to `scale` digits; a negative scale rounds before the point.
    pub fn round(&self, scale: i32) -> Numeric {
        self.with_scale(scale, true)
    }

    /// Cuts off at `scale` digits; a negative scale cuts before the point.
    pub fn trunc(&self, scale: i32) -> Numeric {
        self.with_scale(scale, false)
    }

    fn with_scale(&self, scale: i32, round: bool) -> Numeric {
        let Numeric::Finite(d) = self else { return self.clone() };
        let scale = scale.clamp(-MAX_SCALE * 10, MAX_SCALE);
        let shown = scale.max(0) as u32;
        let drop = d.scale as i64 - i64::from(scale);
        if drop <= 0 {
            let more = shown - d.scale;
            if let Some(c) = rescaled_small(d, shown) {
                return Numeric::new(c, shown);
            }
            return Numeric::from_parts(d.coefficient.to_big() * pow10_big(more), shown);
        }
        // More than one digit too far is zero either way.
        if drop > d.coefficient.digit_count() {
            return Numeric::new(0, shown);
        }
        let drop = drop as u32;
        let back = (-scale).max(0) as u32;
        if let Coefficient::Small(c) = d.coefficient
            && let (Some(p), Some(b)) = (pow10(drop), pow10(back))
        {
            let q = if round { divide_rounded_small(c, p) } else { c / p };
            if let Some(c) = q.checked_mul(b) {
                return Numeric::new(c, shown);
            }
        }
        let (c, p) = (d.coefficient.to_big(), pow10_big(drop));
        let q = if round { divide_rounded(&c, &p) } else { c / p };
        Numeric::from_parts(q * pow10_big(back), shown)
    }

    pub fn ceil(&self) -> Numeric {
        self.towards(1)
    }

    pub fn floor(&self) -> Numeric {
        self.towards(-1)
    }

    fn towards(&self, direction: i32) -> Numeric {
        let cut = self.trunc(0);
        if cut == *self || self.signum() != direction {
            return cut;
        }
        cut.add(&Numeric::from(direction)).unwrap_or(cut)
    }

    /// The greatest common divisor; NaN when an argument is not finite.
    pub fn gcd(&self, other: &Numeric) -> Numeric {
        let (Numeric::Finite(a), Numeric::Finite(b)) = (self, other) else { return Numeric::NaN };
        let scale = a.scale.max(b.scale);
        Numeric::from_parts(rescaled(a, scale).gcd(&rescaled(b, scale)), scale)
    }

    /// The least common multiple; NaN when an argument is not finite.
    /// # Errors
    /// `OutOfRange`.
    pub fn lcm(&self, other: &Numeric) -> Result<Numeric> {
        let (Numeric::Finite(a), Numeric::Finite(b)) = (self, other) else { return Ok(Numeric::NaN) };
        let scale = a.scale.max(b.scale);
        let (x, y) = (rescaled(a, scale), rescaled(b, scale));
        if x.is_zero() || y.is_zero() {
            return Ok(Numeric::new(0, scale));
        }
        Numeric::from_parts(x.lcm(&y), scale).checked()
    }

    /// SQL's `width_bucket(operand, low, high, count)`.
    /// # Errors
    /// `Value`, `OutOfRange`.
    pub fn width_bucket(&self, low: &Numeric, high: &Numeric, count: i32) -> Result<i32> {
        let invalid = |text: &str| Err(Error::value(ValueErrorCode::InvalidArgumentForWidthBucket, text));
        if count <= 0 {
            return invalid("count must be greater than zero");
        }
        if self.is_nan() || low.is_nan() || high.is_nan() {
            return invalid("operand, lower bound, and upper bound cannot be NaN");
        }
        if !low.is_finite() || !high.is_finite() {
            return invalid("lower and upper bounds must be finite");
        }
        let ascending = match low.cmp(high) {
            Ordering::Equal => return invalid("lower bound cannot equal upper bound"),
            o => o == Ordering::Less,
        };
        let (below, above) = if ascending { (self < low, self >= high) } else { (self > low, self <= high) };
        if below {
            return Ok(0);
        }
        if above {
            return count.checked_add(1).ok_or_else(|| Error::out_of_range("integer out of range"));
        }
        let position = self.sub(low)?.mul(&Numeric::from(count))?;
        position.div_trunc(&high.sub(low)?)?.add(&Numeric::ONE)?.to_i32()
    }

    /// `n!`.
    /// # Errors
    /// `Value` for negative arguments, `OutOfRange`.
    pub fn factorial(n: i64) -> Result<Numeric> {
        if n < 0 {
            return Err(Error::out_of_range("factorial of a negative number is undefined"));
        }
        if n > 32177 {
            return Err(super::overflow());
        }
        let mut product = BigInt::one();
        for i in 2..=n {
            product *= i;
        }
        Ok(Numeric::from_parts(product, 0))
    }
}

/// The infinity of this sign; NaN for 0.
fn infinity_of(sign: i32) -> Numeric {
    match sign {
        0 => Numeric::NaN,
        s if s > 0 => Numeric::PosInf,
        _ => Numeric::NegInf,
    }
}
