//! json and jsonb: construction, operators, taking apart.
//!
//! jsonb goes through storage's [`Json`]; json keeps texts as they were written, so its parts are cut out of the text.

use strandline_storage::value::json::{Json, write_string};
use strandline_storage::{DataType, Kind, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::arrays::{self, Bounds};
use crate::functions::sets::SetRows;
use crate::functions::{Call, Entry, casts, invalid, text_value};

/// A JSON string literal.
pub fn quote(text: &str) -> String {
    let mut out = String::new();
    write_string(text, &mut out);
    out
}

/// The JSON text of a value: `to_json`, or `to_jsonb` where `binary`.
///
/// # Errors
/// When a value's text is damaged.
pub fn to_json(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>, binary: bool) -> Result<String> {
    if datum.is_null() {
        return Ok("null".into());
    }
    Ok(match data_type.kind {
        Kind::Bool => datum.bool().to_string(),
        Kind::Int2 | Kind::Int4 | Kind::Int8 => datum.int().to_string(),
        Kind::Float4 | Kind::Float8 | Kind::Numeric => {
            let text = casts::output(context, data_type, datum)?;
            if text.contains(['N', 'I']) { quote(&text) } else { text }
        }
        Kind::Jsonb => datum.str().to_owned(),
        Kind::Json => {
            if binary {
                strandline_storage::value::json::normalize(datum.str())?
            } else {
                datum.str().to_owned()
            }
        }
        Kind::Array => {
            let array = arrays::parse_typed(context, data_type, datum.str())?;
            let element = arrays::element_type(context, data_type)?;
            let items = array.elements.iter().map(|e| to_json(context, &element, &Datum::from(e), binary)).collect::<Result<Vec<_>>>()?;
            let lengths: Vec<usize> = array.dimensions.iter().map(|d| d.length).collect();
            nested(&lengths, &mut items.iter(), if binary { ", " } else { "," })
        }
        Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
            let settings = strandline_storage::value::TextSettings { time_zone: context.text.time_zone.clone(), ..Default::default() };
            let mut out = Vec::new();
            data_type.format(&datum.borrowed().into_value(), &settings, &mut out);
            // ISO 8601: T between date and time, minutes in the zone.
            let mut text = String::from_utf8_lossy(&out).into_owned();
            if let Some(space) = text.find(' ').filter(|_| !text.ends_with("BC")) {
                text.replace_range(space..=space, "T");
            }
            if data_type.kind == Kind::Timestamptz
                && text.len() > 3
                && text.as_bytes().get(text.len() - 3).is_some_and(|b| matches!(b, b'+' | b'-'))
            {
                text.push_str(":00");
            }
            quote(&text)
        }
        Kind::Other if is_row(data_type, datum) => row_to_json(datum.str(), binary)?,
        _ => quote(&casts::output(context, data_type, datum)?),
    })
}

fn nested<'a>(lengths: &[usize], items: &mut impl Iterator<Item = &'a String>, separator: &str) -> String {
    match lengths {
        [] => "[]".into(),
        [n] => format!("[{}]", items.take(*n).cloned().collect::<Vec<_>>().join(separator)),
        [n, rest @ ..] => {
            let parts: Vec<String> = (0..*n).map(|_| nested(rest, items, separator)).collect();
            format!("[{}]", parts.join(separator))
        }
    }
}

fn is_row(data_type: &DataType, datum: &Datum<'_>) -> bool {
    data_type.oid == crate::types::oid::RECORD && datum.str().starts_with('(')
}

/// A record whose fields' names are not known: f1, f2, ... as PostgreSQL names them.
fn row_to_json(text: &str, binary: bool) -> Result<String> {
    let fields = casts::record_fields(text)?;
    let parts: Vec<String> = fields
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let value = f.as_ref().map_or_else(
                || "null".to_owned(),
                |t| if t.parse::<f64>().is_ok() && !t.contains(['n', 'N', 'i', 'I']) { t.clone() } else { quote(t) },
            );
            format!("\"f{}\":{}{value}", i + 1, if binary { " " } else { "" })
        })
        .collect();
    Ok(format!("{{{}}}", parts.join(if binary { ", " } else { "," })))
}

/// Bytes that order jsonb: objects over arrays over booleans over numbers over strings over null, then by size and content.
pub fn sort_key(text: &str, out: &mut Vec<u8>) -> Result<()> {
    key_of(&Json::parse(text)?, out);
    Ok(())
}

fn key_of(json: &Json, out: &mut Vec<u8>) {
    let terminated = |bytes: &[u8], out: &mut Vec<u8>| {
        for &b in bytes {
            out.push(b);
            if b == 0 {
                out.push(0xff);
            }
        }
        out.extend([0, 0]);
    };
    match json {
        // An empty array sorts below everything, for historical reasons.
        Json::Array(items) if items.is_empty() => out.push(0),
        Json::Null => out.push(1),
        Json::String(s) => {
            out.push(2);
            terminated(s.as_bytes(), out);
        }
        Json::Number(n) => {
            out.push(3);
            let mut key = Vec::new();
            n.encode_sort_key(&mut key);
            terminated(&key, out);
        }
        Json::Bool(b) => out.extend([4, u8::from(*b)]),
        Json::Array(items) => {
            out.push(5);
            out.extend((items.len() as u32).to_be_bytes());
            items.iter().for_each(|i| key_of(i, out));
        }
        Json::Object(members) => {
            out.push(6);
            out.extend((members.len() as u32).to_be_bytes());
            for (k, v) in members {
                terminated(k.as_bytes(), out);
                key_of(v, out);
            }
        }
    }
}

/// `jsonb[...]`.
pub fn subscript(text: &str, bounds: &[Bounds<'_>]) -> Result<Value> {
    let mut json = &Json::parse(text)?;
    for bound in bounds {
        let Bounds::Index(at) = bound else {
            return Err(SqlError::new(ErrorCode::DatatypeMismatch, "jsonb subscript does not support slices"));
        };
        let next = match at {
            Datum::Bytes(_) => json.path([at.str()]),
            number => json.element(number.int()),
        };
        match next {
            Some(next) => json = next,
            None => return Ok(Value::Null),
        }
    }
    Ok(text_value(json.to_string()))
}

/// One level of a JSON text: the parts as they are written.
enum Raw<'a> {
    Object(Vec<(String, &'a str)>),
    Array(Vec<&'a str>),
    Scalar,
}

/// Cuts a valid JSON text into its parts.
fn raw(text: &str) -> Result<Raw<'_>> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let bytes = text.as_bytes();
    let open = match bytes.first() {
        Some(b @ (b'{' | b'[')) => *b,
        _ => return Ok(Raw::Scalar),
    };
    let mut parts = Vec::new();
    let (mut depth, mut start, mut in_string, mut escaped) = (0usize, 1usize, false, false);
    let mut colon = None;
    let mut colons = Vec::new();
    for (i, &b) in bytes.iter().enumerate() {
        if in_string {
            if escaped {
                escaped = false;
            } else if b == b'\\' {
                escaped = true;
            } else if b == b'"' {
                in_string = false;
            }
            continue;
        }
        match b {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    parts.push((start, i));
                    colons.push(colon.take());
                }
            }
            b',' if depth == 1 => {
                parts.push((start, i));
                colons.push(colon.take());
                start = i + 1;
            }
            b':' if depth == 1 && colon.is_none() => colon = Some(i),
            _ => {}
        }
    }
    let trim = |a: usize, b: usize| text.get(a..b).unwrap_or("").trim_matches(|c: char| c.is_ascii_whitespace());
    if parts.len() == 1 && trim(parts[0].0, parts[0].1).is_empty() {
        parts.clear();
    }
    if open == b'[' {
        return Ok(Raw::Array(parts.into_iter().map(|(a, b)| trim(a, b)).collect()));
    }
    let mut members = Vec::with_capacity(parts.len());
    for ((a, b), colon) in parts.into_iter().zip(colons) {
        let Some(colon) = colon else {
            return Err(SqlError::new(ErrorCode::InvalidTextRepresentation, "invalid input syntax for type json"));
        };
        members.push((unquote(trim(a, colon))?, trim(colon + 1, b)));
    }
    Ok(Raw::Object(members))
}

fn unquote(text: &str) -> Result<String> {
    match Json::parse(text)? {
        Json::String(s) => Ok(s),
        other => Ok(other.to_string()),
    }
}

/// The text that `->>` gives for a part.
fn as_text(part: &str) -> Result<Value> {
    if part == "null" {
        return Ok(Value::Null);
    }
    if part.starts_with('"') { Ok(text_value(unquote(part)?)) } else { Ok(text_value(part)) }
}

fn raw_field<'a>(text: &'a str, key: &str) -> Result<Option<&'a str>> {
    Ok(match raw(text)? {
        // The last of equal keys counts.
        Raw::Object(members) => members.into_iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
        _ => None,
    })
}

fn raw_element(text: &str, index: i64) -> Result<Option<&str>> {
    Ok(match raw(text)? {
        Raw::Array(items) => {
            let at = if index < 0 { index + items.len() as i64 } else { index };
            usize::try_from(at).ok().and_then(|i| items.get(i).copied())
        }
        _ => None,
    })
}

/// In jsonb a scalar at the top is an array of one.
fn scalar_or_element(text: &str, index: i64) -> Result<Option<&str>> {
    match raw(text)? {
        Raw::Scalar => Ok(Some(text.trim_ascii()).filter(|_| matches!(index, 0 | -1))),
        _ => raw_element(text, index),
    }
}

fn give(part: Option<&str>, text: bool) -> Result<Value> {
    match part {
        None => Ok(Value::Null),
        Some(part) if text => as_text(part),
        Some(part) => Ok(text_value(part)),
    }
}

fn is_binary(call: &Call) -> bool {
    call.args.first().is_some_and(|t| t.kind == Kind::Jsonb)
}

fn path(call: &Call, a: &[Datum<'_>], text: bool) -> Result<Value> {
    let steps: Vec<&Datum<'_>> = a.iter().skip(1).collect();
    let steps: Vec<Option<String>> = match (steps.as_slice(), call.args.get(1).map(|t| t.kind)) {
        ([one], Some(Kind::Array)) => arrays::parse(one.str())?.elements,
        (many, _) => many.iter().map(|d| if d.is_null() { None } else { Some(d.str().to_owned()) }).collect(),
    };
    let mut part = a[0].str();
    for step in &steps {
        let Some(step) = step else { return Ok(Value::Null) };
        let next = match raw(part)? {
            Raw::Object(_) => raw_field(part, step)?,
            Raw::Array(_) => match step.parse() {
                Ok(index) => raw_element(part, index)?,
                Err(_) => None,
            },
            Raw::Scalar => None,
        };
        match next {
            Some(next) => part = next,
            None => return Ok(Value::Null),
        }
    }
    give(Some(part), text)
}

fn text_array(datum: &Datum<'_>) -> Result<Vec<Option<String>>> {
    Ok(arrays::parse(datum.str())?.elements)
}

fn exists(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(_) => json.field(key).is_some(),
        Json::Array(items) => items.iter().any(|i| matches!(i, Json::String(s) if s == key)),
        Json::String(s) => s == key,
        _ => false,
    }
}

fn parse(datum: &Datum<'_>) -> Result<Json> {
    Ok(Json::parse(datum.str())?)
}

fn jsonb(json: &Json) -> Result<Value> {
    Ok(text_value(json.to_string()))
}

fn concatenate(a: Json, b: Json) -> Json {
    match (a, b) {
        (Json::Object(mut a), Json::Object(b)) => {
            a.extend(b);
            Json::object(a)
        }
        (a, b) => {
            let items = |j: Json| match j {
                Json::Array(items) => items,
                other => vec![other],
            };
            let mut all = items(a);
            all.extend(items(b));
            Json::Array(all)
        }
    }
}

fn remove(json: Json, keys: &[String]) -> Result<Json> {
    Ok(match json {
        Json::Object(members) => Json::Object(members.into_iter().filter(|(k, _)| !keys.contains(k)).collect()),
        Json::Array(items) => Json::Array(items.into_iter().filter(|i| !matches!(i, Json::String(s) if keys.contains(s))).collect()),
        _ => return Err(invalid("cannot delete from scalar")),
    })
}

fn remove_path(json: Json, path: &[Option<String>]) -> Result<Json> {
    let Some((Some(step), rest)) = path.split_first() else { return Ok(json) };
    Ok(match json {
        Json::Object(members) => {
            let mut out = Vec::with_capacity(members.len());
            for (k, v) in members {
                if k != *step {
                    out.push((k, v));
                } else if !rest.is_empty() {
                    out.push((k, remove_path(v, rest)?));
                }
            }
            Json::Object(out)
        }
        Json::Array(mut items) => {
            let index: i64 = step.parse().map_err(|_| {
                SqlError::new(ErrorCode::InvalidTextRepresentation, format!("path element at position 1 is not an integer: \"{step}\""))
            })?;
            let at = if index < 0 { index + items.len() as i64 } else { index };
            if let Ok(at) = usize::try_from(at)
                && at < items.len()
            {
                if rest.is_empty() {
                    items.remove(at);
                } else {
                    let inner = std::mem::replace(&mut items[at], Json::Null);
                    items[at] = remove_path(inner, rest)?;
                }
            }
            Json::Array(items)
        }
        other => other,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Put {
    Set { create: bool },
    Insert { after: bool },
}

fn put(json: Json, path: &[Option<String>], new: &Json, how: Put) -> Result<Json> {
    let Some((step, rest)) = path.split_first() else { return Ok(json) };
    let Some(step) = step else { return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "path element at position 1 is null")) };
    let last = rest.is_empty();
    Ok(match json {
        Json::Object(mut members) => {
            match members.iter().position(|(k, _)| k == step) {
                Some(_) if last && matches!(how, Put::Insert { .. }) => {
                    return Err(invalid("cannot replace existing key").hint("Try using the function jsonb_set to replace key value."));
                }
                Some(at) if last => members[at].1 = new.clone(),
                Some(at) => {
                    let inner = std::mem::replace(&mut members[at].1, Json::Null);
                    members[at].1 = put(inner, rest, new, how)?;
                }
                None if last && how != (Put::Set { create: false }) => members.push((step.clone(), new.clone())),
                None => {}
            }
            Json::object(members)
        }
        Json::Array(mut items) => {
            let index: i64 = step.parse().map_err(|_| {
                SqlError::new(ErrorCode::InvalidTextRepresentation, format!("path element at position 1 is not an integer: \"{step}\""))
            })?;
            let at = if index < 0 { index + items.len() as i64 } else { index };
            let inside = usize::try_from(at).ok().filter(|i| *i < items.len());
            match (inside, how) {
                (Some(i), _) if !last => {
                    let inner = std::mem::replace(&mut items[i], Json::Null);
                    items[i] = put(inner, rest, new, how)?;
                }
                (Some(i), Put::Set { .. }) => items[i] = new.clone(),
                (Some(i), Put::Insert { after }) => items.insert(i + usize::from(after), new.clone()),
                (None, Put::Set { create: false }) => {}
                (None, _) if last => {
                    if at < 0 {
                        items.insert(0, new.clone());
                    } else {
                        items.push(new.clone());
                    }
                }
                (None, _) => {}
            }
            Json::Array(items)
        }
        _ => return Err(invalid("cannot set path in scalar")),
    })
}

/// An object's key: the text of what the value is in JSON, so that a date and time have their T.
pub fn object_key(context: &StatementContext, data_type: &DataType, key: &Datum<'_>) -> Result<String> {
    match data_type.kind {
        Kind::Bool | Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
            Ok(to_json(context, data_type, key, true)?.trim_matches('"').to_owned())
        }
        _ => casts::output(context, data_type, key),
    }
}

fn build_object(call: &Call, a: &[Datum<'_>], binary: bool) -> Result<Value> {
    let items = variadic(call, a)?;
    if items.len() % 2 != 0 {
        return Err(invalid("argument list must have even number of elements")
            .hint(format!("The arguments of {}() must consist of alternating keys and values.", call.proc.name)));
    }
    let mut members = Vec::new();
    for (i, pair) in items.chunks(2).enumerate() {
        let [(key_type, key), (value_type, value)] = pair else { break };
        if key.is_null() {
            return Err(if binary {
                invalid(format!("argument {}: key must not be null", 2 * i + 1))
            } else {
                invalid(format!("argument {} cannot be null", 2 * i + 1)).hint("Object keys should be text.")
            });
        }
        members.push((object_key(&call.context, key_type, key)?, to_json(&call.context, value_type, value, binary)?));
    }
    if binary {
        let members = members.into_iter().map(|(k, v)| Ok((k, Json::parse(&v)?))).collect::<Result<Vec<_>>>()?;
        return jsonb(&Json::object(members));
    }
    let parts: Vec<String> = members.iter().map(|(k, v)| format!("{} : {v}", quote(k))).collect();
    Ok(text_value(format!("{{{}}}", parts.join(", "))))
}

fn build_array(call: &Call, a: &[Datum<'_>], binary: bool) -> Result<Value> {
    let parts = variadic(call, a)?.iter().map(|(t, v)| to_json(&call.context, t, v, binary)).collect::<Result<Vec<_>>>()?;
    Ok(text_value(format!("[{}]", parts.join(", "))))
}

/// The arguments with their types; those of an explicit VARIADIC array spread out.
fn variadic<'a>(call: &Call, a: &'a [Datum<'a>]) -> Result<Vec<(DataType, Datum<'a>)>> {
    if call.variadic
        && let Some(last) = a.last()
        && let Some(data_type) = call.args.last()
        && data_type.kind == Kind::Array
    {
        let element = arrays::element_type(&call.context, data_type)?;
        let items = arrays::parse_typed(&call.context, data_type, last.str())?.elements;
        return Ok(items.into_iter().map(|v| ((*element).clone(), Datum::from(v))).collect());
    }
    Ok(call.args.iter().cloned().zip(a.iter().map(Datum::borrowed)).collect())
}

fn strip_nulls(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            Json::Object(members.into_iter().filter(|(_, v)| !matches!(v, Json::Null)).map(|(k, v)| (k, strip_nulls(v))).collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(strip_nulls).collect()),
        other => other,
    }
}

fn pretty(json: &Json, indent: usize, out: &mut String) {
    let pad = |n: usize| " ".repeat(n * 4);
    match json {
        Json::Object(members) => {
            out.push('{');
            for (i, (k, v)) in members.iter().enumerate() {
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&pad(indent + 1));
                write_string(k, out);
                out.push_str(": ");
                pretty(v, indent + 1, out);
            }
            out.push('\n');
            out.push_str(&pad(indent));
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (i, v) in items.iter().enumerate() {
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&pad(indent + 1));
                pretty(v, indent + 1, out);
            }
            out.push('\n');
            out.push_str(&pad(indent));
            out.push(']');
        }
        other => other.write(out),
    }
}

fn array_length(_: &Call, a: &[Datum<'_>]) -> Result<Value> {
    match raw(a[0].str())? {
        Raw::Array(items) => Ok(Value::Int4(items.len() as i32)),
        Raw::Object(_) => Err(invalid("cannot get array length of a non-array")),
        Raw::Scalar => Err(invalid("cannot get array length of a scalar")),
    }
}

/// `json_array_elements` and its relatives.
pub fn array_elements(call: &Call, a: &[Datum<'_>], text: bool) -> Result<SetRows> {
    let items: Vec<Value> = match raw(a[0].str())? {
        Raw::Array(items) => items.into_iter().map(|i| give(Some(i), text)).collect::<Result<_>>()?,
        Raw::Object(_) if is_binary(call) => return Err(invalid("cannot extract elements from an object")),
        Raw::Object(_) => return Err(invalid(format!("cannot call {} on a non-array", call.proc.name))),
        Raw::Scalar if is_binary(call) => return Err(invalid("cannot extract elements from a scalar")),
        Raw::Scalar => return Err(invalid(format!("cannot call {} on a scalar", call.proc.name))),
    };
    Ok(Box::new(items.into_iter().map(|v| Ok(vec![v]))))
}

pub fn each(call: &Call, a: &[Datum<'_>], text: bool) -> Result<SetRows> {
    let Raw::Object(members) = raw(a[0].str())? else {
        return Err(invalid(format!("cannot call {} on a non-object", call.proc.name)));
    };
    let rows: Vec<Vec<Value>> = members.into_iter().map(|(k, v)| Ok(vec![text_value(k), give(Some(v), text)?])).collect::<Result<_>>()?;
    Ok(Box::new(rows.into_iter().map(Ok)))
}

pub fn object_keys(call: &std::sync::Arc<Call>, a: &[Datum<'_>]) -> Result<SetRows> {
    match raw(a[0].str())? {
        Raw::Object(members) => {
            let keys: Vec<Value> = members.into_iter().map(|(k, _)| text_value(k)).collect();
            Ok(Box::new(keys.into_iter().map(|k| Ok(vec![k]))))
        }
        Raw::Array(_) => Err(invalid(format!("cannot call {} on an array", call.proc.name))),
        Raw::Scalar => Err(invalid(format!("cannot call {} on a scalar", call.proc.name))),
    }
}

fn type_of(part: &str) -> &'static str {
    match part.trim_start().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

pub const FUNCTIONS: &[Entry] = &[
    ("to_json", |c, a| Ok(text_value(to_json(&c.context, &c.args[0], &a[0], false)?))),
    ("to_jsonb", |c, a| Ok(text_value(to_json(&c.context, &c.args[0], &a[0], true)?))),
    ("array_to_json", |c, a| Ok(text_value(to_json(&c.context, &c.args[0], &a[0], false)?))),
    ("row_to_json", |c, a| {
        if a.len() < 2 {
            return Ok(text_value(to_json(&c.context, &c.args[0], &a[0], false)?));
        }
        // Names and values in turn, as lowering writes a row whose fields' names are known.
        let mut parts = Vec::with_capacity(a.len() / 2);
        for (pair, types) in a.chunks(2).zip(c.args.chunks(2)) {
            if let ([name, value], [_, data_type]) = (pair, types) {
                parts.push(format!("{}:{}", quote(name.str()), to_json(&c.context, data_type, value, false)?));
            }
        }
        Ok(text_value(format!("{{{}}}", parts.join(","))))
    }),
    ("json_object_field", |_, a| give(raw_field(a[0].str(), a[1].str())?, false)),
    ("json_object_field_text", |_, a| give(raw_field(a[0].str(), a[1].str())?, true)),
    ("jsonb_object_field", |_, a| give(raw_field(a[0].str(), a[1].str())?, false)),
    ("jsonb_object_field_text", |_, a| give(raw_field(a[0].str(), a[1].str())?, true)),
    ("json_array_element", |_, a| give(raw_element(a[0].str(), a[1].int())?, false)),
    ("json_array_element_text", |_, a| give(raw_element(a[0].str(), a[1].int())?, true)),
    ("jsonb_array_element", |_, a| give(scalar_or_element(a[0].str(), a[1].int())?, false)),
    ("jsonb_array_element_text", |_, a| give(scalar_or_element(a[0].str(), a[1].int())?, true)),
    ("json_extract_path", |c, a| path(c, a, false)),
    ("json_extract_path_text", |c, a| path(c, a, true)),
    ("jsonb_extract_path", |c, a| path(c, a, false)),
    ("jsonb_extract_path_text", |c, a| path(c, a, true)),
    ("jsonb_contains", |_, a| Ok(Value::Bool(parse(&a[0])?.contains(&parse(&a[1])?)))),
    ("jsonb_contained", |_, a| Ok(Value::Bool(parse(&a[1])?.contains(&parse(&a[0])?)))),
    ("jsonb_exists", |_, a| Ok(Value::Bool(exists(&parse(&a[0])?, a[1].str())))),
    ("jsonb_exists_any", |_, a| {
        let json = parse(&a[0])?;
        Ok(Value::Bool(text_array(&a[1])?.iter().flatten().any(|k| exists(&json, k))))
    }),
    ("jsonb_exists_all", |_, a| {
        let json = parse(&a[0])?;
        Ok(Value::Bool(text_array(&a[1])?.iter().flatten().all(|k| exists(&json, k))))
    }),
    ("jsonb_concat", |_, a| jsonb(&concatenate(parse(&a[0])?, parse(&a[1])?))),
    ("jsonb_delete", |_, a| jsonb(&remove(parse(&a[0])?, &[a[1].str().to_owned()])?)),
    ("jsonb_delete_array", |_, a| {
        let keys: Vec<String> = text_array(&a[1])?.into_iter().flatten().collect();
        jsonb(&remove(parse(&a[0])?, &keys)?)
    }),
    ("jsonb_delete_idx", |_, a| match parse(&a[0])? {
        Json::Array(mut items) => {
            let at = if a[1].int() < 0 { a[1].int() + items.len() as i64 } else { a[1].int() };
            if let Ok(at) = usize::try_from(at)
                && at < items.len()
            {
                items.remove(at);
            }
            jsonb(&Json::Array(items))
        }
        Json::Object(_) => Err(invalid("cannot delete from object using integer index")),
        _ => Err(invalid("cannot delete from scalar")),
    }),
    ("jsonb_delete_path", |_, a| jsonb(&remove_path(parse(&a[0])?, &text_array(&a[1])?)?)),
    ("jsonb_set", |_, a| {
        jsonb(&put(parse(&a[0])?, &text_array(&a[1])?, &parse(&a[2])?, Put::Set { create: a.get(3).is_none_or(Datum::bool) })?)
    }),
    ("jsonb_insert", |_, a| {
        jsonb(&put(parse(&a[0])?, &text_array(&a[1])?, &parse(&a[2])?, Put::Insert { after: a.get(3).is_some_and(Datum::bool) })?)
    }),
    ("json_build_object", |c, a| build_object(c, a, false)),
    ("jsonb_build_object", |c, a| build_object(c, a, true)),
    ("json_build_object_noargs", |_, _| Ok(text_value("{}"))),
    ("jsonb_build_object_noargs", |_, _| Ok(text_value("{}"))),
    ("json_build_array", |c, a| build_array(c, a, false)),
    ("jsonb_build_array", |c, a| build_array(c, a, true)),
    ("json_build_array_noargs", |_, _| Ok(text_value("[]"))),
    ("jsonb_build_array_noargs", |_, _| Ok(text_value("[]"))),
    ("json_typeof", |_, a| Ok(text_value(type_of(a[0].str())))),
    ("jsonb_typeof", |_, a| Ok(text_value(type_of(a[0].str())))),
    ("json_array_length", array_length),
    ("jsonb_array_length", array_length),
    ("jsonb_strip_nulls", |_, a| jsonb(&strip_nulls(parse(&a[0])?))),
    ("jsonb_pretty", |_, a| {
        let mut out = String::new();
        pretty(&parse(&a[0])?, 0, &mut out);
        Ok(text_value(out))
    }),
    ("json_object", |_, a| object_of(a, false)),
    ("jsonb_object", |_, a| object_of(a, true)),
    ("json_object_two_arg", |_, a| object_of(a, false)),
    ("jsonb_object_two_arg", |_, a| object_of(a, true)),
];

fn object_of(a: &[Datum<'_>], binary: bool) -> Result<Value> {
    let first = arrays::parse(a[0].str())?;
    let pairs: Vec<(Option<String>, Option<String>)> = match a.get(1) {
        Some(values) => {
            let values = arrays::parse(values.str())?.elements;
            if values.len() != first.elements.len() {
                return Err(SqlError::new(ErrorCode::ArraySubscriptError, "mismatched array dimensions"));
            }
            first.elements.into_iter().zip(values).collect()
        }
        None => {
            if first.elements.len() % 2 != 0 {
                return Err(SqlError::new(ErrorCode::ArraySubscriptError, "array must have even number of elements"));
            }
            first.elements.chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect()
        }
    };
    let mut members = Vec::new();
    for (key, value) in pairs {
        let key = key.ok_or_else(|| SqlError::new(ErrorCode::NullValueNotAllowed, "null value not allowed for object key"))?;
        members.push((key, value));
    }
    if binary {
        let members = members.into_iter().map(|(k, v)| (k, v.map_or(Json::Null, Json::String))).collect();
        return jsonb(&Json::object(members));
    }
    let parts: Vec<String> =
        members.iter().map(|(k, v)| format!("{} : {}", quote(k), v.as_ref().map_or("null".into(), |v| quote(v)))).collect();
    Ok(text_value(format!("{{{}}}", parts.join(", "))))
}
