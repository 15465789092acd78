//! Aggregates: a state per group that takes rows one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use strandline_storage::value::numeric::Numeric;
use strandline_storage::{DataType, Kind, Value};

use crate::catalog_data::ProcRow;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::{Call, arrays, compare, datetime, invalid, json, out_of_range, text_value};
use crate::types::oid;

/// What an aggregate knows of its rows so far. NULL arguments are given, too.
pub trait State: Send + Sync {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()>;

    /// May be asked again after more rows (running windows do).
    fn finish(&self, call: &Call) -> Result<Value>;

    /// Bytes held beyond the state itself.
    fn size(&self) -> usize {
        0
    }
}

/// Makes an empty state.
pub type New = fn(&Call) -> Box<dyn State>;

/// The aggregate, or `None` when nothing implements it.
pub fn find(proc: &ProcRow) -> Option<New> {
    let new: New = match proc.name {
        "count" => |_| Box::new(Count(0)),
        "sum" => |_| Box::new(Sum::default()),
        "avg" => |_| Box::new(Sum { average: true, ..Sum::default() }),
        "min" => |_| Box::new(Extreme { greatest: false, best: Value::Null }),
        "max" => |_| Box::new(Extreme { greatest: true, best: Value::Null }),
        "bool_and" | "every" => |_| Box::new(BoolFold { and: true, value: None }),
        "bool_or" => |_| Box::new(BoolFold { and: false, value: None }),
        "bit_and" => |_| Box::new(BitFold { op: BitOp::And, value: None }),
        "bit_or" => |_| Box::new(BitFold { op: BitOp::Or, value: None }),
        "bit_xor" => |_| Box::new(BitFold { op: BitOp::Xor, value: None }),
        "string_agg" => |_| Box::new(StringAgg(None)),
        "array_agg" => |_| Box::new(ArrayAgg(None)),
        "json_agg" => |_| Box::new(JsonAgg { items: None, binary: false, lines: false }),
        "jsonb_agg" => |_| Box::new(JsonAgg { items: None, binary: true, lines: false }),
        "json_object_agg" => |_| Box::new(JsonObjectAgg { items: None, binary: false }),
        "jsonb_object_agg" => |_| Box::new(JsonObjectAgg { items: None, binary: true }),
        "stddev" | "stddev_samp" => |c| variance(c, true, true),
        "stddev_pop" => |c| variance(c, false, true),
        "variance" | "var_samp" => |c| variance(c, true, false),
        "var_pop" => |c| variance(c, false, false),
        "percentile_cont" => |_| Box::new(Percentile { kind: PercentileKind::Continuous, fraction: Value::Null, values: Vec::new() }),
        "percentile_disc" => |_| Box::new(Percentile { kind: PercentileKind::Discrete, fraction: Value::Null, values: Vec::new() }),
        "mode" => |_| Box::new(Mode { values: Vec::new() }),
        "corr" | "covar_pop" | "covar_samp" | "regr_avgx" | "regr_avgy" | "regr_count" | "regr_intercept" | "regr_r2" | "regr_slope"
        | "regr_sxx" | "regr_sxy" | "regr_syy" => |_| Box::new(Regression::default()),
        "any_value" => |_| Box::new(First(None)),
        _ => return None,
    };
    Some(new)
}

struct Count(i64);

impl State for Count {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        // count(*) gets a constant.
        self.0 += i64::from(args.first().is_none_or(|a| !a.is_null()));
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(Value::Int8(self.0))
    }
}

/// The first value, NULL or not: for columns that go with a group's key.
pub struct First(pub Option<Value>);

impl State for First {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        if self.0.is_none() {
            self.0 = args.first().map(|a| a.borrowed().into_value());
        }
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(self.0.clone().unwrap_or_default())
    }
}

/// sum and avg of every type.
#[derive(Default)]
struct Sum {
    average: bool,
    count: i64,
    integer: i128,
    float: f64,
    number: Option<Numeric>,
    interval: (i64, i64, i128),
}

impl State for Sum {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        self.count += 1;
        match (call.args[0].kind, arg) {
            (_, Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_)) => self.integer += i128::from(arg.int()),
            (_, Datum::Float4(_) | Datum::Float8(_)) => {
                let value = arg.float();
                let sum = if call.result.kind == Kind::Float4 { f64::from(self.float as f32 + value as f32) } else { self.float + value };
                if sum.is_infinite() && !self.float.is_infinite() && !value.is_infinite() {
                    return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "value out of range: overflow"));
                }
                self.float = sum;
            }
            (Kind::Interval, _) => {
                let i = datetime::Interval::decode(arg.bytes())?;
                self.interval.0 += i64::from(i.months);
                self.interval.1 += i64::from(i.days);
                self.interval.2 += i128::from(i.micros);
            }
            _ => {
                let value = Numeric::decode(arg.bytes())?;
                self.number = Some(match self.number.take() {
                    Some(sum) => sum.add(&value)?,
                    None => value,
                });
            }
        }
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        if self.count == 0 {
            return Ok(Value::Null);
        }
        let count = Numeric::new(i128::from(self.count), 0);
        Ok(match call.args[0].kind {
            Kind::Interval => {
                let (months, days, micros) = self.interval;
                let whole = datetime::interval_from_parts(months, days, micros)?;
                if self.average { datetime::interval_value(whole.div(self.count as f64)?) } else { datetime::interval_value(whole) }
            }
            Kind::Float4 | Kind::Float8 if self.average => Value::Float8(self.float / self.count as f64),
            Kind::Float4 => Value::Float4(self.float as f32),
            Kind::Float8 => Value::Float8(self.float),
            Kind::Numeric => {
                let sum = self.number.clone().unwrap_or(Numeric::ZERO);
                Value::Bytes(if self.average { sum.div(&count)? } else { sum }.encode())
            }
            _ if self.average => Value::Bytes(Numeric::new(self.integer, 0).div(&count)?.encode()),
            _ if call.result.kind == Kind::Numeric => Value::Bytes(Numeric::new(self.integer, 0).encode()),
            _ => i64::try_from(self.integer).map(Value::Int8).map_err(|_| out_of_range("bigint"))?,
        })
    }
}

struct Extreme {
    greatest: bool,
    best: Value,
}

impl State for Extreme {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        let better = self.best.is_null() || {
            let ordering = compare::compare(&call.context, &call.args[0], arg, &call.args[0], &Datum::from(&self.best))?;
            if self.greatest { ordering.is_gt() } else { ordering.is_lt() }
        };
        if better {
            self.best = arg.borrowed().into_value();
        }
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(self.best.clone())
    }
}

struct BoolFold {
    and: bool,
    value: Option<bool>,
}

impl State for BoolFold {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        if let Some(Datum::Bool(v)) = args.first() {
            self.value = Some(match self.value {
                None => *v,
                Some(old) if self.and => old && *v,
                Some(old) => old || *v,
            });
        }
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(self.value.map_or(Value::Null, Value::Bool))
    }
}

enum BitOp {
    And,
    Or,
    Xor,
}

struct BitFold {
    op: BitOp,
    value: Option<i64>,
}

impl State for BitFold {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        if matches!(arg, Datum::Bytes(_)) {
            return Err(SqlError::unsupported(format!("aggregate {}(bit)", call.proc.name)));
        }
        let v = arg.int();
        self.value = Some(match (self.value, &self.op) {
            (None, _) => v,
            (Some(old), BitOp::And) => old & v,
            (Some(old), BitOp::Or) => old | v,
            (Some(old), BitOp::Xor) => old ^ v,
        });
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        Ok(match (self.value, call.result.kind) {
            (None, _) => Value::Null,
            (Some(v), Kind::Int2) => Value::Int2(v as i16),
            (Some(v), Kind::Int4) => Value::Int4(v as i32),
            (Some(v), _) => Value::Int8(v),
        })
    }
}

/// The longest string, PostgreSQL's MaxAllocSize without a terminator.
const STRING_BYTES_MAX: usize = 0x3fff_fffe;

struct StringAgg(Option<Vec<u8>>);

impl State for StringAgg {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        let Some(text) = &mut self.0 else {
            self.0 = Some(arg.bytes().to_vec());
            return Ok(());
        };
        let separator = args.get(1).map_or(&[][..], |s| s.bytes());
        for part in [separator, arg.bytes()] {
            if text.len() + part.len() > STRING_BYTES_MAX {
                let detail = format!("Cannot enlarge string buffer containing {} bytes by {} more bytes.", text.len(), part.len());
                return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "out of memory").detail(detail));
            }
            text.extend_from_slice(part);
        }
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(self.0.as_ref().map_or(Value::Null, Value::bytes))
    }

    fn size(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::capacity)
    }
}

struct ArrayAgg(Option<Vec<Value>>);

impl State for ArrayAgg {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        self.0.get_or_insert_default().extend(args.first().map(|a| a.borrowed().into_value()));
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        let Some(items) = &self.0 else { return Ok(Value::Null) };
        let items: Vec<Datum<'_>> = items.iter().map(Datum::from).collect();
        if call.args[0].kind == Kind::Array {
            return arrays::nest(&items);
        }
        arrays::build(&call.context, &call.args[0], &items)
    }

    fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |v| v.iter().map(value_size).sum())
    }
}

fn value_size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Bytes(b) => b.len(),
            _ => 0,
        }
}

struct JsonAgg {
    items: Option<Vec<String>>,
    binary: bool,
    /// Rows and arrays go on a line each.
    lines: bool,
}

impl State for JsonAgg {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first() else { return Ok(()) };
        let text = json::to_json(&call.context, &call.args[0], arg, self.binary)?;
        self.lines = !self.binary && (call.args[0].kind == Kind::Array || call.args[0].oid == oid::RECORD);
        self.items.get_or_insert_default().push(text);
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        Ok(self
            .items
            .as_ref()
            .map_or(Value::Null, |items| text_value(format!("[{}]", items.join(if self.lines { ", \n " } else { ", " })))))
    }

    fn size(&self) -> usize {
        self.items.as_ref().map_or(0, |v| v.iter().map(|s| s.len() + 24).sum())
    }
}

struct JsonObjectAgg {
    items: Option<Vec<(String, String)>>,
    binary: bool,
}

impl State for JsonObjectAgg {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let [key, value, ..] = args else { return Ok(()) };
        if key.is_null() {
            return Err(invalid("field name must not be null"));
        }
        let pair = (json::object_key(&call.context, &call.args[0], key)?, json::to_json(&call.context, &call.args[1], value, self.binary)?);
        self.items.get_or_insert_default().push(pair);
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        let Some(items) = &self.items else { return Ok(Value::Null) };
        if self.binary {
            let map: BTreeMap<(usize, &str), &str> = items.iter().map(|(k, v)| ((k.len(), k.as_str()), v.as_str())).collect();
            let parts: Vec<String> = map.iter().map(|((_, k), v)| format!("{}: {v}", json::quote(k))).collect();
            return Ok(text_value(format!("{{{}}}", parts.join(", "))));
        }
        let parts: Vec<String> = items.iter().map(|(k, v)| format!("{} : {v}", json::quote(k))).collect();
        Ok(text_value(format!("{{ {} }}", parts.join(", "))))
    }

    fn size(&self) -> usize {
        self.items.as_ref().map_or(0, |v| v.iter().map(|(a, b)| a.len() + b.len() + 48).sum())
    }
}

fn variance(call: &Call, sample: bool, root: bool) -> Box<dyn State> {
    match call.args[0].kind {
        Kind::Float4 | Kind::Float8 => Box::new(FloatVariance { sample, root, n: 0.0, sum: 0.0, sxx: 0.0 }),
        _ => Box::new(NumericVariance { sample, root, n: 0, sum: Numeric::ZERO, squares: Numeric::ZERO }),
    }
}

/// Youngs and Cramer's update, as PostgreSQL uses.
struct FloatVariance {
    sample: bool,
    root: bool,
    n: f64,
    sum: f64,
    sxx: f64,
}

impl State for FloatVariance {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        let x = arg.float();
        self.n += 1.0;
        self.sum += x;
        if self.n > 1.0 {
            let t = x * self.n - self.sum;
            self.sxx += t * t / (self.n * (self.n - 1.0));
        } else if !x.is_finite() {
            self.sxx = f64::NAN;
        }
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        let divisor = if self.sample { self.n - 1.0 } else { self.n };
        if self.n == 0.0 || divisor <= 0.0 {
            return Ok(Value::Null);
        }
        let v = self.sxx / divisor;
        Ok(Value::Float8(if self.root { v.sqrt() } else { v }))
    }
}

struct NumericVariance {
    sample: bool,
    root: bool,
    n: i64,
    sum: Numeric,
    squares: Numeric,
}

impl State for NumericVariance {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        let Some(arg) = args.first().filter(|a| !a.is_null()) else { return Ok(()) };
        let x = match arg {
            Datum::Bytes(b) => Numeric::decode(b)?,
            other => Numeric::new(i128::from(other.int()), 0),
        };
        self.n += 1;
        self.squares = self.squares.add(&x.mul(&x)?)?;
        self.sum = self.sum.add(&x)?;
        Ok(())
    }

    fn finish(&self, _: &Call) -> Result<Value> {
        let divisor = if self.sample { self.n - 1 } else { self.n };
        if self.n == 0 || divisor <= 0 {
            return Ok(Value::Null);
        }
        let n = Numeric::new(i128::from(self.n), 0);
        let top = n.mul(&self.squares)?.sub(&self.sum.mul(&self.sum)?)?;
        if top.signum() <= 0 {
            return Ok(Value::Bytes(Numeric::ZERO.encode()));
        }
        let v = top.div(&n.mul(&Numeric::new(i128::from(divisor), 0))?)?;
        // The root has as many digits as the quotient.
        Ok(Value::Bytes(if self.root { v.sqrt()?.round(v.scale().unwrap_or(0)) } else { v }.encode()))
    }
}

enum PercentileKind {
    Continuous,
    Discrete,
}

/// The arguments are the fraction, then the value to order by.
struct Percentile {
    kind: PercentileKind,
    fraction: Value,
    values: Vec<Value>,
}

impl State for Percentile {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        let [fraction, value, ..] = args else { return Ok(()) };
        if self.fraction.is_null() {
            self.fraction = fraction.borrowed().into_value();
        }
        if !value.is_null() {
            self.values.push(value.borrowed().into_value());
        }
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        // The engine gives rows in the order of WITHIN GROUP.
        if self.values.is_empty() || self.fraction.is_null() {
            return Ok(Value::Null);
        }
        if let Value::Bytes(array) = &self.fraction {
            let text = String::from_utf8_lossy(array);
            let items = arrays::parse_typed(&call.context, &call.args[0], &text)?
                .elements
                .iter()
                .map(|f| if f.is_null() { Ok(Value::Null) } else { self.at(call, Datum::from(f).float()) })
                .collect::<Result<Vec<_>>>()?;
            let items: Vec<Datum<'_>> = items.iter().map(Datum::from).collect();
            let element = arrays::element_type(&call.context, &call.result)?;
            return arrays::build(&call.context, &element, &items);
        }
        self.at(call, Datum::from(&self.fraction).float())
    }

    fn size(&self) -> usize {
        self.values.iter().map(value_size).sum()
    }
}

impl Percentile {
    fn at(&self, call: &Call, fraction: f64) -> Result<Value> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, format!("percentile value {fraction} is not between 0 and 1")));
        }
        let n = self.values.len();
        match self.kind {
            PercentileKind::Discrete => {
                let at = ((fraction * n as f64).ceil() as usize).clamp(1, n) - 1;
                Ok(self.values[at].clone())
            }
            PercentileKind::Continuous => {
                let position = fraction * (n - 1) as f64;
                let (low, high) = (position.floor() as usize, position.ceil() as usize);
                let part = position - low as f64;
                if call.args.last().is_some_and(|t| t.kind == Kind::Interval) {
                    let a = datetime::Interval::decode(Datum::from(&self.values[low]).bytes())?;
                    let b = datetime::Interval::decode(Datum::from(&self.values[high]).bytes())?;
                    return Ok(datetime::interval_value(a.add(&b.sub(&a)?.mul(part)?)?));
                }
                let (a, b) = (Datum::from(&self.values[low]).float(), Datum::from(&self.values[high]).float());
                Ok(Value::Float8(if low == high { a } else { a + part * (b - a) }))
            }
        }
    }
}

struct Mode {
    values: Vec<Value>,
}

impl State for Mode {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        if let Some(v) = args.first().filter(|v| !v.is_null()) {
            self.values.push(v.borrowed().into_value());
        }
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        // Of values equally frequent, the first in order.
        let mut counts: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
        for (i, v) in self.values.iter().enumerate() {
            let mut key = Vec::new();
            compare::sort_key(&call.context, &call.result, &Datum::from(v), &mut key)?;
            counts.entry(key).or_insert((0, i)).0 += 1;
        }
        let best = counts.values().max_by_key(|(count, first)| (*count, std::cmp::Reverse(*first)));
        Ok(best.map_or(Value::Null, |(_, first)| self.values[*first].clone()))
    }

    fn size(&self) -> usize {
        self.values.iter().map(value_size).sum()
    }
}

/// The two-argument statistics: (Y, X).
#[derive(Default)]
struct Regression {
    n: f64,
    sx: f64,
    sxx: f64,
    sy: f64,
    syy: f64,
    sxy: f64,
}

impl State for Regression {
    fn add(&mut self, _: &Call, args: &[Datum<'_>]) -> Result<()> {
        let [y, x, ..] = args else { return Ok(()) };
        if y.is_null() || x.is_null() {
            return Ok(());
        }
        let (y, x) = (y.float(), x.float());
        self.n += 1.0;
        self.sx += x;
        self.sy += y;
        if self.n > 1.0 {
            let (tx, ty) = (x * self.n - self.sx, y * self.n - self.sy);
            let scale = 1.0 / (self.n * (self.n - 1.0));
            self.sxx += tx * tx * scale;
            self.syy += ty * ty * scale;
            self.sxy += tx * ty * scale;
        }
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        let Regression { n, sx, sxx, sy, syy, sxy } = *self;
        if call.proc.name == "regr_count" {
            return Ok(Value::Int8(n as i64));
        }
        if n < 1.0 {
            return Ok(Value::Null);
        }
        let result = match call.proc.name {
            "regr_sxx" => Some(sxx),
            "regr_syy" => Some(syy),
            "regr_sxy" => Some(sxy),
            "regr_avgx" => Some(sx / n),
            "regr_avgy" => Some(sy / n),
            "covar_pop" => Some(sxy / n),
            "covar_samp" => (n >= 2.0).then(|| sxy / (n - 1.0)),
            "corr" => (sxx != 0.0 && syy != 0.0).then(|| sxy / (sxx * syy).sqrt()),
            "regr_r2" => (sxx != 0.0).then(|| if syy == 0.0 { 1.0 } else { sxy * sxy / (sxx * syy) }),
            "regr_slope" => (sxx != 0.0).then(|| sxy / sxx),
            "regr_intercept" => (sxx != 0.0).then(|| (sy - sx * sxy / sxx) / n),
            _ => None,
        };
        Ok(result.map_or(Value::Null, Value::Float8))
    }
}

/// How a call wants its rows before they reach the state: distinct, or in an order.
#[derive(Clone, Debug, Default)]
pub struct Arrangement {
    pub distinct: bool,
    /// (descending, nulls first) of the sort keys that follow the arguments; keys compare as plain values.
    pub order: Vec<(bool, bool)>,
}

impl Arrangement {
    pub fn is_plain(&self) -> bool {
        !self.distinct && self.order.is_empty()
    }
}

/// A state that collects its rows first and gives them to the aggregate arranged.
pub struct Arranged {
    pub arrangement: Arrangement,
    pub new: New,
    rows: Vec<Vec<Value>>,
    seen: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Arranged {
    pub fn new(arrangement: Arrangement, new: New) -> Self {
        Arranged { arrangement, new, rows: Vec::new(), seen: HashSet::new(), bytes: 0 }
    }
}

/// Compares values of one plain shape.
pub fn compare_plain(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Float8(_) | Value::Float4(_), _) => compare::compare_floats(Datum::from(a).float(), Datum::from(b).float()),
        _ => Datum::from(a).int().cmp(&Datum::from(b).int()),
    }
}

/// Compares two sort keys, NULLs as asked.
pub fn compare_keys(a: &Value, b: &Value, descending: bool, nulls_first: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => {
            let ordering = compare_plain(a, b);
            if descending { ordering.reverse() } else { ordering }
        }
    }
}

impl State for Arranged {
    fn add(&mut self, call: &Call, args: &[Datum<'_>]) -> Result<()> {
        let own = call.args.len().min(args.len());
        if self.arrangement.distinct {
            let mut key = Vec::new();
            for (arg, data_type) in args[..own].iter().zip(&call.args) {
                compare::row_key(&call.context, data_type, arg, &mut key)?;
            }
            self.bytes += key.len() + 32;
            if !self.seen.insert(key) {
                return Ok(());
            }
        }
        let row: Vec<Value> = args.iter().map(|a| a.borrowed().into_value()).collect();
        self.bytes += row.iter().map(value_size).sum::<usize>();
        self.rows.push(row);
        Ok(())
    }

    fn finish(&self, call: &Call) -> Result<Value> {
        let own = call.args.len();
        let mut rows: Vec<&Vec<Value>> = self.rows.iter().collect();
        if self.arrangement.order.is_empty() {
            // DISTINCT alone gives its values in order, as PostgreSQL's sort does.
            let mut keyed = rows
                .into_iter()
                .map(|row| {
                    let mut key = Vec::new();
                    for (value, data_type) in row.iter().zip(&call.args) {
                        compare::row_key(&call.context, data_type, &Datum::from(value), &mut key)?;
                    }
                    Ok((key, row))
                })
                .collect::<Result<Vec<_>>>()?;
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            rows = keyed.into_iter().map(|(_, row)| row).collect();
        } else {
            rows.sort_by(|a, b| {
                for (i, (descending, nulls_first)) in self.arrangement.order.iter().enumerate() {
                    let (Some(x), Some(y)) = (a.get(own + i), b.get(own + i)) else { break };
                    let ordering = compare_keys(x, y, *descending, *nulls_first);
                    if ordering.is_ne() {
                        return ordering;
                    }
                }
                std::cmp::Ordering::Equal
            });
        }
        let mut state = (self.new)(call);
        for row in rows {
            let args: Vec<Datum<'_>> = row.iter().take(own).map(Datum::from).collect();
            state.add(call, &args)?;
        }
        state.finish(call)
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

/// A fresh state for a call.
pub fn start(call: &Arc<Call>, new: New, arrangement: &Arrangement) -> Box<dyn State> {
    if arrangement.is_plain() { new(call) } else { Box::new(Arranged::new(arrangement.clone(), new)) }
}

/// The type used for a helper that keeps a value as it is.
pub fn text_type() -> DataType {
    DataType { oid: oid::TEXT, typmod: -1, name: "text".into(), kind: Kind::Text, element: None }
}
