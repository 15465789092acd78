//! Arithmetic and mathematical functions, checked as PostgreSQL checks them.

use rand::Rng as _;
use strandline_storage::Value;
use strandline_storage::value::numeric::Numeric;

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::{Call, Entry, invalid, out_of_range, text_value};

fn division_by_zero() -> SqlError {
    SqlError::new(ErrorCode::DivisionByZero, "division by zero")
}

fn int2(value: Option<i64>) -> Result<Value> {
    value.and_then(|v| i16::try_from(v).ok()).map(Value::Int2).ok_or_else(|| out_of_range("smallint"))
}

fn int4(value: Option<i64>) -> Result<Value> {
    value.and_then(|v| i32::try_from(v).ok()).map(Value::Int4).ok_or_else(|| out_of_range("integer"))
}

fn int8(value: Option<i64>) -> Result<Value> {
    value.map(Value::Int8).ok_or_else(|| out_of_range("bigint"))
}

fn divide(a: &Datum<'_>, b: &Datum<'_>) -> Result<Option<i64>> {
    if b.int() == 0 { Err(division_by_zero()) } else { Ok(a.int().checked_div(b.int())) }
}

fn remainder(a: &Datum<'_>, b: &Datum<'_>) -> Result<i64> {
    if b.int() == 0 { Err(division_by_zero()) } else { Ok(a.int().wrapping_rem(b.int())) }
}

/// An infinite result of finite arguments is an overflow, a zero result of others than zero an underflow.
fn checked(result: f64, overflow_is_fine: bool, zero_is_fine: bool) -> Result<f64> {
    if result.is_infinite() && !overflow_is_fine {
        return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "value out of range: overflow"));
    }
    if result == 0.0 && !zero_is_fine {
        return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "value out of range: underflow"));
    }
    Ok(result)
}

#[derive(Clone, Copy)]
enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
}

fn float8(op: Op, a: f64, b: f64) -> Result<f64> {
    let infinite = a.is_infinite() || b.is_infinite();
    match op {
        Op::Add => checked(a + b, infinite, true),
        Op::Subtract => checked(a - b, infinite, true),
        Op::Multiply => checked(a * b, infinite, a == 0.0 || b == 0.0),
        Op::Divide => {
            if b == 0.0 && !a.is_nan() {
                return Err(division_by_zero());
            }
            checked(a / b, a.is_infinite(), a == 0.0 || b.is_infinite())
        }
    }
}

fn float4(op: Op, a: &Datum<'_>, b: &Datum<'_>) -> Result<Value> {
    let (a, b) = (a.float() as f32, b.float() as f32);
    let infinite = a.is_infinite() || b.is_infinite();
    let (result, zero_is_fine) = match op {
        Op::Add => (a + b, true),
        Op::Subtract => (a - b, true),
        Op::Multiply => (a * b, a == 0.0 || b == 0.0),
        Op::Divide => {
            if b == 0.0 && !a.is_nan() {
                return Err(division_by_zero());
            }
            (a / b, a == 0.0 || b.is_infinite())
        }
    };
    checked(f64::from(result), infinite, zero_is_fine)?;
    Ok(Value::Float4(result))
}

fn f8(op: Op, a: &[Datum<'_>]) -> Result<Value> {
    float8(op, a[0].float(), a[1].float()).map(Value::Float8)
}

fn number(datum: &Datum<'_>) -> Result<Numeric> {
    Ok(Numeric::decode(datum.bytes())?)
}

fn numeric(value: Numeric) -> Result<Value> {
    Ok(Value::Bytes(value.encode()))
}

fn two(a: &[Datum<'_>]) -> Result<(Numeric, Numeric)> {
    Ok((number(&a[0])?, number(&a[1])?))
}

/// One-argument float functions whose result may overflow.
fn math(f: fn(f64) -> f64) -> impl Fn(&[Datum<'_>]) -> Result<Value> {
    move |a| {
        let x = a[0].float();
        checked(f(x), x.is_infinite(), true).map(Value::Float8)
    }
}

fn domain(x: f64, low: f64, high: f64) -> Result<()> {
    if x < low || x > high { Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "input is out of range")) } else { Ok(()) }
}

fn log_argument(x: f64) -> Result<f64> {
    if x == 0.0 {
        return Err(SqlError::new(ErrorCode::InvalidArgumentForLog, "cannot take logarithm of zero"));
    }
    if x < 0.0 {
        return Err(SqlError::new(ErrorCode::InvalidArgumentForLog, "cannot take logarithm of a negative number"));
    }
    Ok(x)
}

fn power(a: f64, b: f64) -> Result<f64> {
    if a.is_nan() {
        return Ok(if b == 0.0 { 1.0 } else { f64::NAN });
    }
    if b.is_nan() {
        return Ok(if a == 1.0 { 1.0 } else { f64::NAN });
    }
    let power_error = |m: &str| SqlError::new(ErrorCode::InvalidArgumentForPower, m.to_owned());
    if a == 0.0 && b < 0.0 {
        return Err(power_error("zero raised to a negative power is undefined"));
    }
    if a < 0.0 && b.fract() != 0.0 && !b.is_infinite() {
        return Err(power_error("a negative number raised to a non-integer power yields a complex result"));
    }
    checked(a.powf(b), a.is_infinite() || b.is_infinite(), a == 0.0 || a.is_infinite() || b.is_infinite())
}

fn gcd(a: i64, b: i64) -> u64 {
    num_integer::gcd(a.unsigned_abs(), b.unsigned_abs())
}

fn width_bucket(value: f64, low: f64, high: f64, count: i64) -> Result<Value> {
    let argument = |m: &str| SqlError::new(ErrorCode::InvalidArgumentForWidthBucket, m.to_owned());
    if count <= 0 {
        return Err(argument("count must be greater than zero"));
    }
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return Err(argument("operand, lower bound, and upper bound cannot be NaN"));
    }
    if low.is_infinite() || high.is_infinite() {
        return Err(argument("lower and upper bounds must be finite"));
    }
    let bucket = if low < high {
        if value < low {
            0
        } else if value >= high {
            count + 1
        } else {
            ((value - low) / (high - low) * count as f64) as i64 + 1
        }
    } else if low > high {
        if value > low {
            0
        } else if value <= high {
            count + 1
        } else {
            ((low - value) / (low - high) * count as f64) as i64 + 1
        }
    } else {
        return Err(argument("lower bound cannot equal upper bound"));
    };
    int4(Some(bucket))
}

fn cash(value: f64) -> Result<Value> {
    if value.is_nan() || value.abs() >= 9.3e18 {
        return Err(out_of_range("money"));
    }
    Ok(Value::Int8(value.round_ties_even() as i64))
}

fn degrees(x: f64) -> f64 {
    x / (std::f64::consts::PI / 180.0)
}

/// sin, cos and tan of degrees, exact at multiples of 30 and 45.
fn exact_sine(x: f64) -> f64 {
    let x = x % 360.0;
    let (x, sign) = if x < 0.0 { (-x, -1.0) } else { (x, 1.0) };
    let (x, sign) = if x > 180.0 { (360.0 - x, -sign) } else { (x, sign) };
    let x = if x > 90.0 { 180.0 - x } else { x };
    sign * match x {
        0.0 => 0.0,
        30.0 => 0.5,
        90.0 => 1.0,
        _ => x.to_radians().sin(),
    }
}

fn call_random(_: &Call, _: &[Datum<'_>]) -> Result<Value> {
    Ok(Value::Float8(rand::rng().random::<f64>()))
}

macro_rules! ints {
    ($name:literal, $make:ident, |$a:ident, $b:ident| $body:expr) => {
        ($name, |_, args| {
            let ($a, $b) = (args[0].int(), args[1].int());
            $make($body)
        })
    };
}

pub const FUNCTIONS: &[Entry] = &[
    // Integers. Each result is checked against the wider operand's type.
    ints!("int2pl", int2, |a, b| a.checked_add(b)),
    ints!("int2mi", int2, |a, b| a.checked_sub(b)),
    ints!("int2mul", int2, |a, b| a.checked_mul(b)),
    ("int2div", |_, a| int2(divide(&a[0], &a[1])?)),
    ("int2mod", |_, a| int2(Some(remainder(&a[0], &a[1])?))),
    ints!("int4pl", int4, |a, b| a.checked_add(b)),
    ints!("int4mi", int4, |a, b| a.checked_sub(b)),
    ints!("int4mul", int4, |a, b| a.checked_mul(b)),
    ("int4div", |_, a| int4(divide(&a[0], &a[1])?)),
    ("int4mod", |_, a| int4(Some(remainder(&a[0], &a[1])?))),
    ints!("int24pl", int4, |a, b| a.checked_add(b)),
    ints!("int24mi", int4, |a, b| a.checked_sub(b)),
    ints!("int24mul", int4, |a, b| a.checked_mul(b)),
    ("int24div", |_, a| int4(divide(&a[0], &a[1])?)),
    ints!("int42pl", int4, |a, b| a.checked_add(b)),
    ints!("int42mi", int4, |a, b| a.checked_sub(b)),
    ints!("int42mul", int4, |a, b| a.checked_mul(b)),
    ("int42div", |_, a| int4(divide(&a[0], &a[1])?)),
    ints!("int8pl", int8, |a, b| a.checked_add(b)),
    ints!("int8mi", int8, |a, b| a.checked_sub(b)),
    ints!("int8mul", int8, |a, b| a.checked_mul(b)),
    ("int8div", |_, a| int8(divide(&a[0], &a[1])?)),
    ("int8mod", |_, a| int8(Some(remainder(&a[0], &a[1])?))),
    ints!("int84pl", int8, |a, b| a.checked_add(b)),
    ints!("int84mi", int8, |a, b| a.checked_sub(b)),
    ints!("int84mul", int8, |a, b| a.checked_mul(b)),
    ("int84div", |_, a| int8(divide(&a[0], &a[1])?)),
    ints!("int48pl", int8, |a, b| a.checked_add(b)),
    ints!("int48mi", int8, |a, b| a.checked_sub(b)),
    ints!("int48mul", int8, |a, b| a.checked_mul(b)),
    ("int48div", |_, a| int8(divide(&a[0], &a[1])?)),
    ints!("int82pl", int8, |a, b| a.checked_add(b)),
    ints!("int82mi", int8, |a, b| a.checked_sub(b)),
    ints!("int82mul", int8, |a, b| a.checked_mul(b)),
    ("int82div", |_, a| int8(divide(&a[0], &a[1])?)),
    ints!("int28pl", int8, |a, b| a.checked_add(b)),
    ints!("int28mi", int8, |a, b| a.checked_sub(b)),
    ints!("int28mul", int8, |a, b| a.checked_mul(b)),
    ("int28div", |_, a| int8(divide(&a[0], &a[1])?)),
    ("int2um", |_, a| int2(a[0].int().checked_neg())),
    ("int4um", |_, a| int4(a[0].int().checked_neg())),
    ("int8um", |_, a| int8(a[0].int().checked_neg())),
    ("int2up", |_, a| Ok(a[0].borrowed().into_value())),
    ("int4up", |_, a| Ok(a[0].borrowed().into_value())),
    ("int8up", |_, a| Ok(a[0].borrowed().into_value())),
    ("int2abs", |_, a| int2(a[0].int().checked_abs())),
    ("int4abs", |_, a| int4(a[0].int().checked_abs())),
    ("int8abs", |_, a| int8(a[0].int().checked_abs())),
    ints!("int2and", int2, |a, b| Some(a & b)),
    ints!("int2or", int2, |a, b| Some(a | b)),
    ints!("int2xor", int2, |a, b| Some(a ^ b)),
    ("int2not", |_, a| int2(Some(!a[0].int()))),
    ("int2shl", |_, a| Ok(Value::Int2(((a[0].int() as i32).wrapping_shl(a[1].int() as u32)) as i16))),
    ("int2shr", |_, a| Ok(Value::Int2(((a[0].int() as i32).wrapping_shr(a[1].int() as u32)) as i16))),
    ints!("int4and", int4, |a, b| Some(a & b)),
    ints!("int4or", int4, |a, b| Some(a | b)),
    ints!("int4xor", int4, |a, b| Some(a ^ b)),
    ("int4not", |_, a| int4(Some(!a[0].int()))),
    ("int4shl", |_, a| Ok(Value::Int4(a[0].int4().wrapping_shl(a[1].int() as u32)))),
    ("int4shr", |_, a| Ok(Value::Int4(a[0].int4().wrapping_shr(a[1].int() as u32)))),
    ints!("int8and", int8, |a, b| Some(a & b)),
    ints!("int8or", int8, |a, b| Some(a | b)),
    ints!("int8xor", int8, |a, b| Some(a ^ b)),
    ("int8not", |_, a| int8(Some(!a[0].int()))),
    ("int8shl", |_, a| Ok(Value::Int8(a[0].int().wrapping_shl(a[1].int() as u32)))),
    ("int8shr", |_, a| Ok(Value::Int8(a[0].int().wrapping_shr(a[1].int() as u32)))),
    ("int4gcd", |_, a| int4(i64::try_from(gcd(a[0].int(), a[1].int())).ok())),
    ("int8gcd", |_, a| int8(i64::try_from(gcd(a[0].int(), a[1].int())).ok())),
    ("int4lcm", |_, a| lcm(a, int4)),
    ("int8lcm", |_, a| lcm(a, int8)),
    ("int4larger", |_, a| int4(Some(a[0].int().max(a[1].int())))),
    ("int4smaller", |_, a| int4(Some(a[0].int().min(a[1].int())))),
    ("int8larger", |_, a| int8(Some(a[0].int().max(a[1].int())))),
    ("int8smaller", |_, a| int8(Some(a[0].int().min(a[1].int())))),
    ("to_hex32", |_, a| Ok(text_value(format!("{:x}", a[0].int4())))),
    ("to_hex64", |_, a| Ok(text_value(format!("{:x}", a[0].int())))),
    // Floats.
    ("float8pl", |_, a| f8(Op::Add, a)),
    ("float8mi", |_, a| f8(Op::Subtract, a)),
    ("float8mul", |_, a| f8(Op::Multiply, a)),
    ("float8div", |_, a| f8(Op::Divide, a)),
    ("float48pl", |_, a| f8(Op::Add, a)),
    ("float48mi", |_, a| f8(Op::Subtract, a)),
    ("float48mul", |_, a| f8(Op::Multiply, a)),
    ("float48div", |_, a| f8(Op::Divide, a)),
    ("float84pl", |_, a| f8(Op::Add, a)),
    ("float84mi", |_, a| f8(Op::Subtract, a)),
    ("float84mul", |_, a| f8(Op::Multiply, a)),
    ("float84div", |_, a| f8(Op::Divide, a)),
    ("float4pl", |_, a| float4(Op::Add, &a[0], &a[1])),
    ("float4mi", |_, a| float4(Op::Subtract, &a[0], &a[1])),
    ("float4mul", |_, a| float4(Op::Multiply, &a[0], &a[1])),
    ("float4div", |_, a| float4(Op::Divide, &a[0], &a[1])),
    ("float4um", |_, a| Ok(Value::Float4(-(a[0].float() as f32)))),
    ("float8um", |_, a| Ok(Value::Float8(-a[0].float()))),
    ("float4up", |_, a| Ok(a[0].borrowed().into_value())),
    ("float8up", |_, a| Ok(a[0].borrowed().into_value())),
    ("float4abs", |_, a| Ok(Value::Float4((a[0].float() as f32).abs()))),
    ("float8abs", |_, a| Ok(Value::Float8(a[0].float().abs()))),
    ("dround", |_, a| Ok(Value::Float8(a[0].float().round_ties_even()))),
    ("dtrunc", |_, a| Ok(Value::Float8(a[0].float().trunc()))),
    ("dceil", |_, a| Ok(Value::Float8(a[0].float().ceil()))),
    ("dfloor", |_, a| Ok(Value::Float8(a[0].float().floor()))),
    ("dsign", |_, a| {
        let x = a[0].float();
        Ok(Value::Float8(if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x.abs()
        }))
    }),
    ("dsqrt", |_, a| {
        let x = a[0].float();
        if x < 0.0 {
            return Err(SqlError::new(ErrorCode::InvalidArgumentForPower, "cannot take square root of a negative number"));
        }
        Ok(Value::Float8(x.sqrt()))
    }),
    ("dcbrt", |_, a| Ok(Value::Float8(a[0].float().cbrt()))),
    ("dpow", |_, a| power(a[0].float(), a[1].float()).map(Value::Float8)),
    ("dexp", |_, a| {
        let x = a[0].float();
        checked(x.exp(), x.is_infinite(), x.is_infinite()).map(Value::Float8)
    }),
    ("dlog1", |_, a| Ok(Value::Float8(log_argument(a[0].float())?.ln()))),
    ("dlog10", |_, a| Ok(Value::Float8(log_argument(a[0].float())?.log10()))),
    ("dsin", |_, a| {
        infinite_input(a)?;
        math(f64::sin)(a)
    }),
    ("dcos", |_, a| {
        infinite_input(a)?;
        math(f64::cos)(a)
    }),
    ("dtan", |_, a| {
        infinite_input(a)?;
        math(f64::tan)(a)
    }),
    ("dcot", |_, a| {
        infinite_input(a)?;
        Ok(Value::Float8(1.0 / a[0].float().tan()))
    }),
    ("dasin", |_, a| {
        domain(a[0].float(), -1.0, 1.0)?;
        math(f64::asin)(a)
    }),
    ("dacos", |_, a| {
        domain(a[0].float(), -1.0, 1.0)?;
        math(f64::acos)(a)
    }),
    ("datan", |_, a| math(f64::atan)(a)),
    ("datan2", |_, a| Ok(Value::Float8(a[0].float().atan2(a[1].float())))),
    ("dsinh", |_, a| Ok(Value::Float8(a[0].float().sinh()))),
    ("dcosh", |_, a| Ok(Value::Float8(a[0].float().cosh()))),
    ("dtanh", |_, a| Ok(Value::Float8(a[0].float().tanh()))),
    ("dasinh", |_, a| Ok(Value::Float8(a[0].float().asinh()))),
    ("dacosh", |_, a| {
        domain(a[0].float(), 1.0, f64::INFINITY)?;
        math(f64::acosh)(a)
    }),
    ("datanh", |_, a| {
        domain(a[0].float(), -1.0, 1.0)?;
        Ok(Value::Float8(a[0].float().atanh()))
    }),
    ("dsind", |_, a| {
        infinite_input(a)?;
        Ok(Value::Float8(exact_sine(a[0].float())))
    }),
    ("dcosd", |_, a| {
        infinite_input(a)?;
        Ok(Value::Float8(exact_sine(a[0].float() % 360.0 + 90.0)))
    }),
    ("degrees", |_, a| {
        let x = a[0].float();
        checked(degrees(x), x.is_infinite(), true).map(Value::Float8)
    }),
    ("radians", |_, a| Ok(Value::Float8(a[0].float() * (std::f64::consts::PI / 180.0)))),
    ("dpi", |_, _| Ok(Value::Float8(std::f64::consts::PI))),
    ("drandom", call_random),
    ("setseed", |_, _| Err(SqlError::unsupported("function setseed(double precision)"))),
    ("width_bucket_float8", |_, a| width_bucket(a[0].float(), a[1].float(), a[2].float(), a[3].int())),
    // Numeric.
    ("numeric_add", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.add(&y)?)
    }),
    ("numeric_sub", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.sub(&y)?)
    }),
    ("numeric_mul", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.mul(&y)?)
    }),
    ("numeric_div", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.div(&y)?)
    }),
    ("numeric_div_trunc", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.div_trunc(&y)?)
    }),
    ("numeric_mod", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.rem(&y)?)
    }),
    ("numeric_power", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.pow(&y)?)
    }),
    ("numeric_log", |_, a| {
        let (base, x) = two(a)?;
        numeric(x.log(&base)?)
    }),
    ("numeric_gcd", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.gcd(&y))
    }),
    ("numeric_lcm", |_, a| {
        let (x, y) = two(a)?;
        numeric(x.lcm(&y)?)
    }),
    ("numeric_uminus", |_, a| numeric(number(&a[0])?.neg())),
    ("numeric_uplus", |_, a| Ok(a[0].borrowed().into_value())),
    ("numeric_abs", |_, a| numeric(number(&a[0])?.abs())),
    ("numeric_sign", |_, a| numeric(number(&a[0])?.sign())),
    ("numeric_round", |_, a| numeric(number(&a[0])?.round(a.get(1).map_or(0, Datum::int4)))),
    ("numeric_trunc", |_, a| numeric(number(&a[0])?.trunc(a.get(1).map_or(0, Datum::int4)))),
    ("numeric_ceil", |_, a| numeric(number(&a[0])?.ceil())),
    ("numeric_floor", |_, a| numeric(number(&a[0])?.floor())),
    ("numeric_sqrt", |_, a| numeric(number(&a[0])?.sqrt()?)),
    ("numeric_exp", |_, a| numeric(number(&a[0])?.exp()?)),
    ("numeric_ln", |_, a| numeric(number(&a[0])?.ln()?)),
    ("numeric_inc", |_, a| numeric(number(&a[0])?.add(&Numeric::ONE)?)),
    ("numeric_scale", |_, a| Ok(number(&a[0])?.scale().map_or(Value::Null, Value::Int4))),
    ("numeric_min_scale", |_, a| Ok(number(&a[0])?.min_scale().map_or(Value::Null, Value::Int4))),
    ("numeric_trim_scale", |_, a| numeric(number(&a[0])?.trim_scale())),
    ("numeric_fac", |_, a| numeric(Numeric::factorial(a[0].int())?)),
    ("width_bucket_numeric", |_, a| {
        let low = number(&a[1])?;
        Ok(Value::Int4(number(&a[0])?.width_bucket(&low, &number(&a[2])?, a[3].int4())?))
    }),
    // SQL functions of the catalog, known by name.
    ("log", |_, a| numeric(number(&a[0])?.log10()?)),
    ("log10", |_, a| numeric(number(&a[0])?.log10()?)),
    ("round", |_, a| numeric(number(&a[0])?.round(0))),
    ("trunc", |_, a| numeric(number(&a[0])?.trunc(0))),
    // Money.
    ("cash_pl", |_, a| a[0].int().checked_add(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("cash_mi", |_, a| a[0].int().checked_sub(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("cash_mul_int4", |_, a| a[0].int().checked_mul(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("cash_mul_int8", |_, a| a[0].int().checked_mul(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("cash_mul_int2", |_, a| a[0].int().checked_mul(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("int4_mul_cash", |_, a| a[0].int().checked_mul(a[1].int()).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("cash_mul_flt8", |_, a| cash(a[0].int() as f64 * a[1].float())),
    ("flt8_mul_cash", |_, a| cash(a[0].float() * a[1].int() as f64)),
    ("cash_div_int4", |_, a| Ok(Value::Int8(divide(&a[0], &a[1])?.ok_or_else(|| out_of_range("money"))?))),
    ("cash_div_int8", |_, a| Ok(Value::Int8(divide(&a[0], &a[1])?.ok_or_else(|| out_of_range("money"))?))),
    ("cash_div_flt8", |_, a| {
        if a[1].float() == 0.0 {
            return Err(division_by_zero());
        }
        cash(a[0].int() as f64 / a[1].float())
    }),
    ("cash_div_cash", |_, a| {
        if a[1].int() == 0 {
            return Err(division_by_zero());
        }
        Ok(Value::Float8(a[0].int() as f64 / a[1].int() as f64))
    }),
    // pg_lsn.
    ("pg_lsn_mi", |_, a| numeric(Numeric::new(i128::from(a[0].int() as u64) - i128::from(a[1].int() as u64), 0))),
    ("pg_lsn_pli", |_, a| lsn(&a[0], &number(&a[1])?)),
    ("pg_lsn_mii", |_, a| lsn(&a[0], &number(&a[1])?.neg())),
];

fn lsn(a: &Datum<'_>, b: &Numeric) -> Result<Value> {
    let bytes = b.to_i128().ok_or_else(|| invalid("cannot add NaN to pg_lsn"))?;
    u64::try_from(i128::from(a.int() as u64) + bytes).map(|v| Value::Int8(v as i64)).map_err(|_| out_of_range("pg_lsn"))
}

fn infinite_input(a: &[Datum<'_>]) -> Result<()> {
    if a[0].float().is_infinite() {
        return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "input is out of range"));
    }
    Ok(())
}

fn lcm(a: &[Datum<'_>], make: fn(Option<i64>) -> Result<Value>) -> Result<Value> {
    let (x, y) = (a[0].int(), a[1].int());
    if x == 0 || y == 0 {
        return make(Some(0));
    }
    let result = u128::from(x.unsigned_abs()) / u128::from(gcd(x, y)) * u128::from(y.unsigned_abs());
    make(i64::try_from(result).ok())
}
