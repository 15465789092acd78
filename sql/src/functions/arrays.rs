//! Arrays: their text taken apart and put together, subscripts, and the array functions.

use std::sync::Arc;

use strandline_storage::{DataType, Kind, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::{Call, Entry, casts, compare, invalid, text_value};

/// Where a dimension begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    pub lower: i32,
    pub length: usize,
}

/// An array taken apart: elements in row-major order. No dimensions: empty.
#[derive(Clone, Debug)]
pub struct Array<T> {
    pub dimensions: Vec<Dimension>,
    pub elements: Vec<T>,
}

/// PostgreSQL's `MAXDIM`.
const MAX_DIMENSIONS: usize = 6;

impl<T> Array<T> {
    pub fn flat(elements: Vec<T>) -> Self {
        let dimensions = if elements.is_empty() { Vec::new() } else { vec![Dimension { lower: 1, length: elements.len() }] };
        Array { dimensions, elements }
    }
}

/// The type of an array's elements.
///
/// # Errors
/// `DatatypeMismatch` when it is no array.
pub fn element_type(context: &StatementContext, data_type: &DataType) -> Result<Arc<DataType>> {
    if let Some(element) = &data_type.element {
        return Ok(Arc::clone(element));
    }
    match crate::catalog_data::catalog().type_by_oid(data_type.oid) {
        Some(row) if row.element != 0 => Ok(Arc::new(casts::data_type(context, crate::types::SqlType::new(row.element))?)),
        _ => Err(SqlError::new(ErrorCode::DatatypeMismatch, format!("type {} is not an array type", data_type.name))),
    }
}

fn malformed(text: &str) -> SqlError {
    SqlError::new(ErrorCode::InvalidTextRepresentation, format!("malformed array literal: \"{text}\""))
}

/// Takes an array's text apart; elements stay text, `None` is NULL.
///
/// # Errors
/// `InvalidTextRepresentation`.
pub fn parse(text: &str) -> Result<Array<Option<String>>> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let mut lowers = Vec::new();
    let mut body = trimmed;
    if trimmed.starts_with('[') {
        let (head, rest) = trimmed.split_once('=').ok_or_else(|| malformed(text))?;
        for part in head.split(']').map(str::trim).filter(|p| !p.is_empty()) {
            let range = part.strip_prefix('[').ok_or_else(|| malformed(text))?;
            let lower = range.split_once(':').map_or(Some(1), |(l, _)| l.trim().parse().ok()).ok_or_else(|| malformed(text))?;
            lowers.push(lower);
        }
        body = rest.trim_start();
    }
    let mut parser = Parser { chars: body.chars().peekable(), text, lengths: Vec::new(), elements: Vec::new() };
    parser.level(0)?;
    parser.skip_space();
    if parser.chars.next().is_some() {
        return Err(malformed(text));
    }
    let (lengths, elements) = (parser.lengths, parser.elements);
    if elements.is_empty() {
        return Ok(Array { dimensions: Vec::new(), elements });
    }
    let dimensions = lengths
        .iter()
        .enumerate()
        .map(|(i, length)| Dimension { lower: lowers.get(i).copied().unwrap_or(1), length: length.unwrap_or(0) })
        .collect();
    Ok(Array { dimensions, elements })
}

struct Parser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    text: &'a str,
    lengths: Vec<Option<usize>>,
    elements: Vec<Option<String>>,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        while self.chars.next_if(char::is_ascii_whitespace).is_some() {}
    }

    fn level(&mut self, depth: usize) -> Result<()> {
        if self.chars.next() != Some('{') || depth >= MAX_DIMENSIONS {
            return Err(malformed(self.text));
        }
        if self.lengths.len() == depth {
            self.lengths.push(None);
        }
        let mut count = 0;
        self.skip_space();
        if self.chars.next_if_eq(&'}').is_some() {
            return self.close(depth, 0);
        }
        loop {
            self.skip_space();
            if self.chars.peek() == Some(&'{') {
                self.level(depth + 1)?;
            } else {
                if self.lengths.len() > depth + 1 {
                    return Err(malformed(self.text));
                }
                let element = self.element()?;
                self.elements.push(element);
            }
            count += 1;
            self.skip_space();
            match self.chars.next() {
                Some(',') => {}
                Some('}') => return self.close(depth, count),
                _ => return Err(malformed(self.text)),
            }
        }
    }

    fn close(&mut self, depth: usize, count: usize) -> Result<()> {
        match self.lengths[depth] {
            Some(length) if length != count => Err(malformed(self.text)),
            _ => {
                self.lengths[depth] = Some(count);
                Ok(())
            }
        }
    }

    fn element(&mut self) -> Result<Option<String>> {
        let mut out = String::new();
        if self.chars.next_if_eq(&'"').is_some() {
            loop {
                match self.chars.next() {
                    Some('"') => return Ok(Some(out)),
                    Some('\\') => out.push(self.chars.next().ok_or_else(|| malformed(self.text))?),
                    Some(c) => out.push(c),
                    None => return Err(malformed(self.text)),
                }
            }
        }
        let mut escaped = false;
        while let Some(&c) = self.chars.peek() {
            match c {
                ',' | '}' => break,
                '{' | '"' => return Err(malformed(self.text)),
                '\\' => {
                    self.chars.next();
                    escaped = true;
                    out.push(self.chars.next().ok_or_else(|| malformed(self.text))?);
                }
                _ => {
                    out.push(c);
                    self.chars.next();
                }
            }
        }
        let trimmed = out.trim_end_matches(|c: char| c.is_ascii_whitespace());
        if trimmed.is_empty() && !escaped {
            return Err(malformed(self.text));
        }
        if !escaped && trimmed.eq_ignore_ascii_case("null") {
            return Ok(None);
        }
        Ok(Some(trimmed.to_owned()))
    }
}

/// Puts an array's text together from its elements' texts.
pub fn format(array: &Array<Option<String>>) -> String {
    if array.elements.is_empty() {
        return "{}".into();
    }
    let mut out = String::new();
    if array.dimensions.iter().any(|d| d.lower != 1) {
        for d in &array.dimensions {
            out.push_str(&format!("[{}:{}]", d.lower, i64::from(d.lower) + d.length as i64 - 1));
        }
        out.push('=');
    }
    let mut elements = array.elements.iter();
    format_level(&array.dimensions, &mut elements, &mut out);
    out
}

fn format_level<'a>(dimensions: &[Dimension], elements: &mut impl Iterator<Item = &'a Option<String>>, out: &mut String) {
    let Some((first, rest)) = dimensions.split_first() else { return };
    out.push('{');
    for i in 0..first.length {
        if i > 0 {
            out.push(',');
        }
        if rest.is_empty() {
            match elements.next() {
                Some(Some(text)) => push_element(text, out),
                _ => out.push_str("NULL"),
            }
        } else {
            format_level(rest, elements, out);
        }
    }
    out.push('}');
}

fn push_element(text: &str, out: &mut String) {
    let quote = text.is_empty()
        || text.eq_ignore_ascii_case("null")
        || text.chars().any(|c| matches!(c, '"' | '\\' | '{' | '}' | ',') || c.is_ascii_whitespace() || c == '\x0b');
    if !quote {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Takes an array apart into values.
///
/// # Errors
/// `InvalidTextRepresentation`.
pub fn parse_typed(context: &StatementContext, data_type: &DataType, text: &str) -> Result<Array<Value>> {
    let element = element_type(context, data_type)?;
    if data_type.kind != Kind::Array {
        // int2vector and oidvector: numbers with spaces between them, from 0.
        let elements = text.split_ascii_whitespace().map(|t| casts::input(context, &element, t)).collect::<Result<Vec<_>>>()?;
        let dimensions = if elements.is_empty() { Vec::new() } else { vec![Dimension { lower: 0, length: elements.len() }] };
        return Ok(Array { dimensions, elements });
    }
    let array = parse(text)?;
    let mut plain = context.text.clone();
    // Stored text is in the pinned style, whatever the session's.
    let settings = stored_settings(&mut plain);
    let elements = array
        .elements
        .into_iter()
        .map(|e| match e {
            None => Ok(Value::Null),
            Some(text) if matches!(element.kind, Kind::Oid | Kind::Enum | Kind::Other) => casts::input(context, &element, &text),
            Some(text) => Ok(element.parse(&text, settings)?),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Array { dimensions: array.dimensions, elements })
}

fn stored_settings(settings: &mut strandline_storage::value::TextSettings) -> &strandline_storage::value::TextSettings {
    *settings = strandline_storage::value::TextSettings::default();
    settings
}

/// Puts an array together from values.
///
/// # Errors
/// When an element's text is damaged.
pub fn format_typed(context: &StatementContext, data_type: &DataType, array: &Array<Value>) -> Result<Value> {
    let element = element_type(context, data_type)?;
    format_elements(context, &element, array)
}

fn format_elements(context: &StatementContext, element: &DataType, array: &Array<Value>) -> Result<Value> {
    let elements = array.elements.iter().map(|e| stored_text(context, element, &Datum::from(e))).collect::<Result<Vec<_>>>()?;
    Ok(text_value(format(&Array { dimensions: array.dimensions.clone(), elements })))
}

/// An element's text in the style in which arrays are kept.
fn stored_text(context: &StatementContext, element: &DataType, datum: &Datum<'_>) -> Result<Option<String>> {
    if datum.is_null() {
        return Ok(None);
    }
    Ok(Some(match element.kind {
        Kind::Date | Kind::Timestamp | Kind::Timestamptz | Kind::Timetz | Kind::Interval | Kind::Bytea | Kind::Float4 | Kind::Float8 => {
            let mut out = Vec::new();
            element.format(&datum.borrowed().into_value(), &strandline_storage::value::TextSettings::default(), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
        _ => casts::output(context, element, datum)?,
    }))
}

/// A one-dimensional array of these values.
///
/// # Errors
/// When an element's text is damaged.
pub fn build(context: &StatementContext, element: &DataType, values: &[Datum<'_>]) -> Result<Value> {
    let elements = values.iter().map(|v| stored_text(context, element, v)).collect::<Result<Vec<_>>>()?;
    Ok(text_value(format(&Array::flat(elements))))
}

/// Arrays as the elements of one of a dimension more.
///
/// # Errors
/// `ArraySubscriptError` when their dimensions differ.
pub fn nest(values: &[Datum<'_>]) -> Result<Value> {
    let mut inner: Option<Vec<Dimension>> = None;
    let mut elements = Vec::new();
    let differ =
        || SqlError::new(ErrorCode::ArraySubscriptError, "multidimensional arrays must have array expressions with matching dimensions");
    for value in values {
        let array = if value.is_null() { Array::flat(Vec::new()) } else { parse(value.str())? };
        match &inner {
            Some(d) if *d != array.dimensions => return Err(differ()),
            _ => inner = Some(array.dimensions),
        }
        elements.extend(array.elements);
    }
    let inner = inner.unwrap_or_default();
    if inner.is_empty() {
        return Ok(text_value("{}"));
    }
    let mut dimensions = vec![Dimension { lower: 1, length: values.len() }];
    dimensions.extend(inner.iter().map(|d| Dimension { lower: 1, length: d.length }));
    if dimensions.len() > MAX_DIMENSIONS {
        return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "number of array dimensions exceeds the maximum allowed (6)"));
    }
    Ok(text_value(format(&Array { dimensions, elements })))
}

/// One evaluated subscript.
pub enum Bounds<'a> {
    Index(Datum<'a>),
    Slice(Option<i32>, Option<i32>),
}

/// `value[...]`.
///
/// # Errors
/// When the array's text is damaged.
pub fn subscript(context: &StatementContext, data_type: &DataType, text: &str, bounds: &[Bounds<'_>], result: &DataType) -> Result<Value> {
    if matches!(data_type.kind, Kind::Jsonb) {
        return super::json::subscript(text, bounds);
    }
    let array = parse_typed(context, data_type, text)?;
    if bounds.iter().all(|b| matches!(b, Bounds::Index(_))) {
        if bounds.len() != array.dimensions.len() {
            return Ok(Value::Null);
        }
        let mut position = 0usize;
        for (bound, d) in bounds.iter().zip(&array.dimensions) {
            let Bounds::Index(index) = bound else { return Ok(Value::Null) };
            let offset = index.int() - i64::from(d.lower);
            if offset < 0 || offset >= d.length as i64 {
                return Ok(Value::Null);
            }
            position = position * d.length + offset as usize;
        }
        return Ok(array.elements.get(position).cloned().unwrap_or_default());
    }
    // A slice: indexes mean 1..index. Fewer subscripts than dimensions take the rest whole.
    if bounds.len() > array.dimensions.len() {
        return Ok(text_value("{}"));
    }
    let mut ranges = Vec::with_capacity(array.dimensions.len());
    for (i, d) in array.dimensions.iter().enumerate() {
        let upper = i64::from(d.lower) + d.length as i64 - 1;
        let (from, to) = match bounds.get(i) {
            Some(Bounds::Index(v)) => (1, v.int()),
            Some(Bounds::Slice(a, b)) => (a.map_or(i64::from(d.lower), i64::from), b.map_or(upper, i64::from)),
            None => (i64::from(d.lower), upper),
        };
        let (from, to) = (from.max(i64::from(d.lower)), to.min(upper));
        if from > to {
            return Ok(text_value("{}"));
        }
        ranges.push(((from - i64::from(d.lower)) as usize, (to - i64::from(d.lower)) as usize));
    }
    let mut elements = Vec::new();
    pick(&array.dimensions, &ranges, 0, &array.elements, &mut elements);
    let dimensions = ranges.iter().map(|(a, b)| Dimension { lower: 1, length: b - a + 1 }).collect();
    format_typed(context, result, &Array { dimensions, elements })
}

fn pick(dimensions: &[Dimension], ranges: &[(usize, usize)], base: usize, from: &[Value], out: &mut Vec<Value>) {
    let (Some((d, rest)), Some((range, ranges))) = (dimensions.split_first(), ranges.split_first()) else {
        out.extend(from.get(base).cloned());
        return;
    };
    let _ = d;
    let stride: usize = rest.iter().map(|d| d.length).product();
    for i in range.0..=range.1 {
        pick(rest, ranges, base + i * stride, from, out);
    }
}

fn array(call: &Call, args: &[Datum<'_>], index: usize) -> Result<Array<Value>> {
    parse_typed(&call.context, &call.args[index], args[index].str())
}

fn dimension<'a>(array: &'a Array<Value>, number: &Datum<'_>) -> Option<&'a Dimension> {
    usize::try_from(number.int() - 1).ok().and_then(|i| array.dimensions.get(i))
}

fn equal(call: &Call, element: &DataType, a: &Value, b: &Datum<'_>) -> Result<bool> {
    if a.is_null() || b.is_null() {
        return Ok(a.is_null() && b.is_null());
    }
    Ok(compare::compare(&call.context, element, &Datum::from(a), element, b)?.is_eq())
}

fn element_of(call: &Call, index: usize) -> Result<Arc<DataType>> {
    element_type(&call.context, &call.args[index])
}

/// Equality of elements by key, for containment and overlap.
fn keys(call: &Call, index: usize, args: &[Datum<'_>]) -> Result<Vec<Option<Vec<u8>>>> {
    let element = element_of(call, index)?;
    array(call, args, index)?
        .elements
        .iter()
        .map(|e| {
            if e.is_null() {
                return Ok(None);
            }
            let mut key = Vec::new();
            compare::sort_key(&call.context, &element, &Datum::from(e), &mut key)?;
            Ok(Some(key))
        })
        .collect()
}

fn contains(outer: &[Option<Vec<u8>>], inner: &[Option<Vec<u8>>]) -> bool {
    inner.iter().all(|k| k.is_some() && outer.contains(k))
}

fn positions(call: &Call, args: &[Datum<'_>]) -> Result<Vec<i32>> {
    let array = array(call, args, 0)?;
    if array.dimensions.len() > 1 {
        return Err(SqlError::unsupported("searching for elements in multidimensional arrays"));
    }
    let element = element_of(call, 0)?;
    let lower = array.dimensions.first().map_or(1, |d| d.lower);
    let mut found = Vec::new();
    for (i, item) in array.elements.iter().enumerate() {
        if equal(call, &element, item, &args[1])? {
            found.push(lower + i as i32);
        }
    }
    Ok(found)
}

fn to_text(call: &Call, args: &[Datum<'_>]) -> Result<Value> {
    if args[0].is_null() || args[1].is_null() {
        return Ok(Value::Null);
    }
    let element = element_of(call, 0)?;
    let null = args.get(2).filter(|n| !n.is_null());
    let mut parts = Vec::new();
    for item in &array(call, args, 0)?.elements {
        if item.is_null() {
            if let Some(null) = null {
                parts.push(null.str().to_owned());
            }
        } else {
            parts.push(casts::output(&call.context, &element, &Datum::from(item))?);
        }
    }
    Ok(text_value(parts.join(args[1].str())))
}

/// The parts of `string_to_array`, also for its set-returning cousin.
pub(super) fn split(args: &[Datum<'_>]) -> Option<Vec<Option<String>>> {
    let text = args.first().filter(|a| !a.is_null())?.str();
    let null = args.get(2).filter(|n| !n.is_null()).map(Datum::str);
    let parts: Vec<String> = match args.get(1) {
        _ if text.is_empty() => Vec::new(),
        Some(Datum::Null) | None => text.chars().map(String::from).collect(),
        Some(separator) if separator.str().is_empty() => vec![text.to_owned()],
        Some(separator) => text.split(separator.str()).map(str::to_owned).collect(),
    };
    Some(parts.into_iter().map(|p| if Some(p.as_str()) == null { None } else { Some(p) }).collect())
}

fn append(call: &Call, args: &[Datum<'_>], array_at: usize, front: bool) -> Result<Value> {
    let element_at = 1 - array_at;
    let mut array = if args[array_at].is_null() { Array::flat(Vec::new()) } else { array(call, args, array_at)? };
    if array.dimensions.len() > 1 {
        return Err(SqlError::new(ErrorCode::ArraySubscriptError, "argument must be empty or one-dimensional array"));
    }
    let value = args[element_at].borrowed().into_value();
    if front {
        array.elements.insert(0, value);
    } else {
        array.elements.push(value);
    }
    let lower = array.dimensions.first().map_or(1, |d| d.lower);
    array.dimensions = vec![Dimension { lower, length: array.elements.len() }];
    format_typed(&call.context, &call.result, &array)
}

fn concatenate(call: &Call, args: &[Datum<'_>]) -> Result<Value> {
    if args[0].is_null() || args[1].is_null() {
        let other = if args[0].is_null() { &args[1] } else { &args[0] };
        return Ok(other.borrowed().into_value());
    }
    let (mut a, b) = (array(call, args, 0)?, array(call, args, 1)?);
    if a.dimensions.is_empty() {
        return Ok(args[1].borrowed().into_value());
    }
    if b.dimensions.is_empty() {
        return Ok(args[0].borrowed().into_value());
    }
    let incompatible = || {
        SqlError::new(ErrorCode::ArraySubscriptError, "cannot concatenate incompatible arrays")
            .detail("Arrays with differing dimensions are not compatible for concatenation.")
    };
    let lengths = |d: &[Dimension]| d.iter().map(|d| d.length).collect::<Vec<_>>();
    let (da, db) = (a.dimensions.len(), b.dimensions.len());
    if da == db {
        if lengths(&a.dimensions[1..]) != lengths(&b.dimensions[1..]) {
            return Err(incompatible());
        }
        a.dimensions[0].length += b.dimensions[0].length;
        a.elements.extend(b.elements);
    } else if da == db + 1 {
        if lengths(&a.dimensions[1..]) != lengths(&b.dimensions) {
            return Err(incompatible());
        }
        a.dimensions[0].length += 1;
        a.elements.extend(b.elements);
    } else if db == da + 1 {
        if lengths(&b.dimensions[1..]) != lengths(&a.dimensions) {
            return Err(incompatible());
        }
        let mut dimensions = b.dimensions;
        dimensions[0].length += 1;
        a.dimensions = dimensions;
        a.elements.extend(b.elements);
    } else {
        return Err(incompatible());
    }
    format_typed(&call.context, &call.result, &a)
}

fn replace(call: &Call, args: &[Datum<'_>], remove: bool) -> Result<Value> {
    if args[0].is_null() {
        return Ok(Value::Null);
    }
    let mut array = array(call, args, 0)?;
    let element = element_of(call, 0)?;
    if remove && array.dimensions.len() > 1 {
        return Err(SqlError::unsupported("removing elements from multidimensional arrays"));
    }
    let mut kept = Vec::with_capacity(array.elements.len());
    for item in array.elements {
        if !equal(call, &element, &item, &args[1])? {
            kept.push(item);
        } else if !remove {
            kept.push(args[2].borrowed().into_value());
        }
    }
    array.elements = kept;
    if remove {
        match array.dimensions.first_mut() {
            Some(d) if !array.elements.is_empty() => d.length = array.elements.len(),
            _ => array.dimensions.clear(),
        }
    }
    format_typed(&call.context, &call.result, &array)
}

fn fill(call: &Call, args: &[Datum<'_>]) -> Result<Value> {
    if args[1].is_null() {
        return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "dimension array or low bound array cannot be null"));
    }
    let numbers = |i: usize| -> Result<Vec<i32>> {
        parse(args[i].str())?
            .elements
            .iter()
            .map(|e| {
                e.as_deref()
                    .and_then(|t| t.parse().ok())
                    .ok_or_else(|| SqlError::new(ErrorCode::NullValueNotAllowed, "dimension values cannot be null"))
            })
            .collect()
    };
    let lengths = numbers(1)?;
    let lowers = if args.len() > 2 && !args[2].is_null() { numbers(2)? } else { vec![1; lengths.len()] };
    let total: i64 = lengths.iter().map(|&l| i64::from(l.max(0))).product();
    if total > 1 << 27 {
        return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "array size exceeds the maximum allowed (134217727)"));
    }
    let dimensions: Vec<_> = lengths.iter().zip(&lowers).map(|(&l, &lower)| Dimension { lower, length: l.max(0) as usize }).collect();
    let elements = if dimensions.is_empty() { Vec::new() } else { vec![args[0].borrowed().into_value(); total as usize] };
    format_typed(&call.context, &call.result, &Array { dimensions, elements })
}

pub const FUNCTIONS: &[Entry] = &[
    ("array_length", |c, a| Ok(dimension(&array(c, a, 0)?, &a[1]).map_or(Value::Null, |d| Value::Int4(d.length as i32)))),
    ("array_lower", |c, a| Ok(dimension(&array(c, a, 0)?, &a[1]).map_or(Value::Null, |d| Value::Int4(d.lower)))),
    ("array_upper", |c, a| Ok(dimension(&array(c, a, 0)?, &a[1]).map_or(Value::Null, |d| Value::Int4(d.lower + d.length as i32 - 1)))),
    ("array_ndims", |c, a| match array(c, a, 0)?.dimensions.len() {
        0 => Ok(Value::Null),
        n => Ok(Value::Int4(n as i32)),
    }),
    ("array_dims", |c, a| {
        let dims = array(c, a, 0)?.dimensions;
        if dims.is_empty() {
            return Ok(Value::Null);
        }
        Ok(text_value(dims.iter().map(|d| format!("[{}:{}]", d.lower, d.lower + d.length as i32 - 1)).collect::<String>()))
    }),
    ("array_cardinality", |c, a| Ok(Value::Int4(array(c, a, 0)?.elements.len() as i32))),
    ("array_append", |c, a| append(c, a, 0, false)),
    ("array_prepend", |c, a| append(c, a, 1, true)),
    ("array_cat", concatenate),
    ("array_position", |c, a| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        Ok(positions(c, a)?.first().map_or(Value::Null, |&p| Value::Int4(p)))
    }),
    ("array_position_start", |c, a| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let start = a[2].int4();
        Ok(positions(c, a)?.into_iter().find(|&p| p >= start).map_or(Value::Null, Value::Int4))
    }),
    ("array_positions", |c, a| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let found: Vec<Value> = positions(c, a)?.into_iter().map(Value::Int4).collect();
        format_typed(&c.context, &c.result, &Array::flat(found))
    }),
    ("array_remove", |c, a| replace(c, a, true)),
    ("array_replace", |c, a| replace(c, a, false)),
    ("array_to_text", to_text),
    ("array_to_text_null", to_text),
    ("text_to_array", |_, a| Ok(split(a).map_or(Value::Null, |p| text_value(format(&Array::flat(p)))))),
    ("text_to_array_null", |_, a| Ok(split(a).map_or(Value::Null, |p| text_value(format(&Array::flat(p)))))),
    ("arraycontains", |c, a| Ok(Value::Bool(contains(&keys(c, 0, a)?, &keys(c, 1, a)?)))),
    ("arraycontained", |c, a| Ok(Value::Bool(contains(&keys(c, 1, a)?, &keys(c, 0, a)?)))),
    ("arrayoverlap", |c, a| {
        let outer = keys(c, 0, a)?;
        Ok(Value::Bool(keys(c, 1, a)?.iter().any(|k| k.is_some() && outer.contains(k))))
    }),
    ("array_fill", fill),
    ("array_fill_with_lower_bounds", fill),
    ("trim_array", |c, a| {
        let mut array = array(c, a, 0)?;
        let length = array.dimensions.first().map_or(0, |d| d.length);
        let count = a[1].int();
        if count < 0 || count > length as i64 {
            return Err(SqlError::new(
                ErrorCode::ArraySubscriptError,
                format!("number of elements to trim must be between 0 and {length}"),
            ));
        }
        let stride: usize = array.dimensions.iter().skip(1).map(|d| d.length).product();
        let keep = length - count as usize;
        array.elements.truncate(keep * stride);
        if keep == 0 {
            array.dimensions.clear();
        } else {
            array.dimensions[0] = Dimension { lower: 1, length: keep };
        }
        format_typed(&c.context, &c.result, &array)
    }),
    ("array_larger", |c, a| larger(c, a, true)),
    ("array_smaller", |c, a| larger(c, a, false)),
    ("width_bucket_array", |c, a| {
        let element = element_of(c, 1)?;
        let mut bucket = 0;
        for bound in &array(c, a, 1)?.elements {
            if bound.is_null() {
                return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "thresholds array must not contain NULLs"));
            }
            if compare::compare(&c.context, &c.args[0], &a[0], &element, &Datum::from(bound))?.is_lt() {
                break;
            }
            bucket += 1;
        }
        Ok(Value::Int4(bucket))
    }),
    ("array_unnest_support", |_, _| Err(invalid("array_unnest_support cannot be called"))),
];

fn larger(call: &Call, a: &[Datum<'_>], larger: bool) -> Result<Value> {
    let ordering = compare::compare(&call.context, &call.args[0], &a[0], &call.args[1], &a[1])?;
    Ok(if ordering.is_gt() == larger { &a[0] } else { &a[1] }.borrowed().into_value())
}
