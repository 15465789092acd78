//! Types of values while a query runs, their text, and the casts between them.

use std::borrow::Cow;
use std::sync::Arc;

use strandline_storage::schema::TypeDefinition;
use strandline_storage::value::numeric::Numeric;
use strandline_storage::{CatalogObject, DataType, Kind, Value};

use crate::bound::{CastMethod, Expr};
use crate::catalog_data::catalog;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::exec::evaluator::ELEMENT_COLUMN;
use crate::functions::{Call, Entry, invalid, out_of_range, system, text_value};
use crate::types::{Oid, SqlType, oid};

/// The type behind an oid: built in, made by a user, or a pseudo-type whose values are text.
///
/// # Errors
/// `UndefinedObject`.
pub fn data_type(context: &StatementContext, ty: SqlType) -> Result<DataType> {
    if let Some(found) = DataType::builtin(ty.oid, ty.typmod) {
        return Ok(found);
    }
    if let Some(found) = user_type(context, ty) {
        return Ok(found);
    }
    if let Some(row) = catalog().type_by_oid(ty.oid) {
        let element =
            if row.is_true_array() { Some(Arc::new(data_type(context, SqlType { oid: row.element, typmod: ty.typmod })?)) } else { None };
        let kind = if element.is_some() { Kind::Array } else { Kind::Other };
        return Ok(DataType { oid: ty.oid, typmod: ty.typmod, name: row.name.into(), kind, element });
    }
    // Row types of tables and views.
    if let Some(object) = context.root.catalog().get(ty.oid) {
        return Ok(DataType { oid: ty.oid, typmod: -1, name: object.name().into(), kind: Kind::Other, element: None });
    }
    Err(SqlError::new(ErrorCode::UndefinedObject, format!("type with OID {} does not exist", ty.oid)))
}

fn user_type(context: &StatementContext, ty: SqlType) -> Option<DataType> {
    let objects = &context.root.catalog().objects;
    let (object, is_array) = match objects.get(&ty.oid) {
        Some(object) => match &**object {
            CatalogObject::Type(t) => (t, false),
            _ => return None,
        },
        None => objects.values().find_map(|o| match &**o {
            CatalogObject::Type(t) if t.array_oid == ty.oid && ty.oid != 0 => Some((t, true)),
            _ => None,
        })?,
    };
    let schema = context.root.catalog().schema_name(object.schema_oid).unwrap_or("public").to_owned();
    let name: Arc<str> = format!("{schema}.{}", object.name).into();
    let (kind, base) = match &object.definition {
        TypeDefinition::Enum(_) => (Kind::Enum, None),
        TypeDefinition::Domain { base, .. } => (base.kind, Some(base)),
        TypeDefinition::Composite(_) | TypeDefinition::Opaque => (Kind::Other, None),
    };
    let element = DataType {
        oid: object.oid,
        typmod: base.map_or(ty.typmod, |b| b.typmod),
        name: Arc::clone(&name),
        kind,
        element: base.and_then(|b| b.element.clone()),
    };
    if !is_array {
        return Some(element);
    }
    Some(DataType {
        oid: ty.oid,
        typmod: ty.typmod,
        name: format!("{schema}._{}", object.name).into(),
        kind: Kind::Array,
        element: Some(Arc::new(element)),
    })
}

/// A value's text, as PostgreSQL's output function gives it to this session.
///
/// # Errors
/// When a value's text is damaged.
pub fn output(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>) -> Result<String> {
    Ok(match datum {
        Datum::Null => String::new(),
        Datum::Int2(v) => v.to_string(),
        Datum::Int4(v) if data_type.kind == Kind::Int4 => v.to_string(),
        Datum::Int8(v) if data_type.kind == Kind::Int8 => v.to_string(),
        Datum::Int8(v) if data_type.kind == Kind::Oid => system::oid_output(context, data_type.oid, *v as u32),
        Datum::Bytes(_) if matches!(data_type.kind, Kind::Text | Kind::Bpchar | Kind::Json | Kind::Jsonb | Kind::Enum) => {
            datum.str().to_owned()
        }
        Datum::Bytes(_) if data_type.kind == Kind::Array && !element_depends_on_session(data_type) => datum.str().to_owned(),
        _ => {
            let mut out = Vec::new();
            data_type.format(&datum.borrowed().into_value(), &context.text, &mut out);
            String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
        }
    })
}

fn element_depends_on_session(data_type: &DataType) -> bool {
    data_type.element.as_ref().is_some_and(|e| {
        matches!(
            e.kind,
            Kind::Date
                | Kind::Timestamp
                | Kind::Timestamptz
                | Kind::Timetz
                | Kind::Interval
                | Kind::Bytea
                | Kind::Float4
                | Kind::Float8
                // Ranges of those.
                | Kind::Other
        )
    })
}

/// Reads a value's text, as PostgreSQL's input function does for this session.
///
/// # Errors
/// `InvalidTextRepresentation` and the like.
pub fn input(context: &StatementContext, data_type: &DataType, text: &str) -> Result<Value> {
    match data_type.kind {
        Kind::Oid if data_type.oid != oid::OID => return system::oid_input(context, data_type.oid, text),
        Kind::Enum => {
            if super::compare::enum_position(context, data_type.oid, text).is_none() {
                let name = data_type.name.rsplit('.').next().unwrap_or(&data_type.name);
                return Err(SqlError::new(
                    ErrorCode::InvalidTextRepresentation,
                    format!("invalid input value for enum {name}: \"{text}\""),
                ));
            }
            return Ok(text_value(text));
        }
        // Row types and pseudo-types keep the text they are given.
        Kind::Other if data_type.oid == oid::RECORD || DataType::builtin(data_type.oid, -1).is_none() => return Ok(text_value(text)),
        _ => {}
    }
    Ok(data_type.parse(text, &context.text)?)
}

/// Applies the modifier of `data_type` to a value of the same type.
///
/// # Errors
/// `StringDataRightTruncation` when an implicit conversion would lose characters, `NumericValueOutOfRange`.
pub fn apply_modifier<'a>(data_type: &DataType, value: Datum<'a>, explicit: bool) -> Result<Datum<'a>> {
    let typmod = data_type.typmod;
    if typmod < 0 {
        return Ok(value);
    }
    match data_type.kind {
        Kind::Text if data_type.oid == oid::VARCHAR => cut(value, (typmod - 4).max(0) as usize, explicit, false),
        Kind::Bpchar => cut(value, (typmod - 4).max(0) as usize, explicit, true),
        Kind::Numeric => {
            let number = Numeric::decode(value.bytes())?.apply_typmod(typmod)?;
            Ok(Datum::Bytes(Cow::Owned(number.encode().into_vec())))
        }
        Kind::Timestamp | Kind::Timestamptz | Kind::Time if typmod < 6 => {
            let v = value.int();
            if v == i64::MIN || v == i64::MAX {
                return Ok(value);
            }
            let unit = 10i64.pow(6 - typmod as u32);
            // Half away from zero, as PostgreSQL rounds.
            let rounded = if v >= 0 { v.saturating_add(unit / 2) / unit * unit } else { v.saturating_sub(unit / 2) / unit * unit };
            Ok(Datum::Int8(rounded))
        }
        Kind::Other if explicit && matches!(data_type.oid, oid::BIT | oid::VARBIT) => {
            let (text, length) = (value.str(), typmod as usize);
            let mut bits = text[..text.len().min(length)].to_owned();
            if data_type.oid == oid::BIT {
                bits.extend(std::iter::repeat_n('0', length - bits.len()));
            }
            Ok(Datum::Bytes(Cow::Owned(bits.into_bytes())))
        }
        Kind::Interval | Kind::Timetz | Kind::Other | Kind::Array => {
            // Through text: the input function applies the modifier.
            let settings = strandline_storage::value::TextSettings::default();
            let mut text = Vec::new();
            data_type.format(&value.borrowed().into_value(), &settings, &mut text);
            Ok(Datum::from(data_type.parse(&String::from_utf8_lossy(&text), &settings)?))
        }
        _ => Ok(value),
    }
}

fn cut(value: Datum<'_>, limit: usize, explicit: bool, pad: bool) -> Result<Datum<'_>> {
    let text = value.str();
    let count = text.chars().count();
    if count <= limit {
        if pad && count < limit {
            let mut padded = text.to_owned();
            padded.extend(std::iter::repeat_n(' ', limit - count));
            return Ok(Datum::Bytes(Cow::Owned(padded.into_bytes())));
        }
        return Ok(value);
    }
    let end = text.char_indices().nth(limit).map_or(text.len(), |(i, _)| i);
    if !explicit && !text[end..].bytes().all(|b| b == b' ') {
        let name = if pad { "character" } else { "character varying" };
        return Err(SqlError::new(ErrorCode::StringDataRightTruncation, format!("value too long for type {name}({limit})")));
    }
    Ok(Datum::Bytes(Cow::Owned(text.as_bytes()[..end].to_vec())))
}

/// The cast of one array element, as an expression of column [`ELEMENT_COLUMN`].
pub fn element_cast(source: SqlType, target: SqlType) -> Expr {
    let element = Expr::Column { id: ELEMENT_COLUMN, ty: SqlType::new(source.oid) };
    let base = SqlType::new(target.oid);
    let mut expr = if source.oid == target.oid {
        element
    } else {
        let method = match catalog().cast(source.oid, target.oid) {
            Some(row) if row.method == b'f' => CastMethod::Function(row.function),
            Some(row) if row.method == b'b' => CastMethod::Relabel,
            _ => CastMethod::InOut,
        };
        let ty = if matches!(method, CastMethod::Function(_)) { target } else { base };
        Expr::Cast { input: Box::new(element), ty, method }
    };
    if target.typmod >= 0 {
        expr = Expr::Cast { input: Box::new(expr), ty: target, method: CastMethod::Modifier { explicit: true } };
    }
    expr
}

/// Appends a field of a composite value's text, quoted where it must be.
pub fn push_record_field(text: &str, out: &mut String) {
    let quote = text.is_empty() || text.chars().any(|c| matches!(c, '"' | '\\' | '(' | ')' | ',') || c.is_ascii_whitespace());
    if !quote {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('"');
}

/// The fields of a composite value's text.
///
/// # Errors
/// `InvalidTextRepresentation`.
pub fn record_fields(text: &str) -> Result<Vec<Option<String>>> {
    let malformed = || SqlError::new(ErrorCode::InvalidTextRepresentation, format!("malformed record literal: \"{text}\""));
    let inner = text.trim().strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(malformed)?;
    let mut fields = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        let mut field = String::new();
        let mut any = false;
        let mut quoted = false;
        loop {
            match chars.peek() {
                None => break,
                Some(',') if !quoted => break,
                _ => {}
            }
            let Some(c) = chars.next() else { break };
            any = true;
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    field.push('"');
                }
                '"' => quoted = !quoted,
                '\\' => field.push(chars.next().ok_or_else(malformed)?),
                c => field.push(c),
            }
        }
        if quoted {
            return Err(malformed());
        }
        fields.push(any.then_some(field));
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

fn float_to_int(value: f64, min: f64, max: f64, name: &str) -> Result<i64> {
    // Ties to even, as rint does.
    let rounded = value.round_ties_even();
    if rounded.is_nan() || rounded < min || rounded >= max {
        return Err(out_of_range(name));
    }
    Ok(rounded as i64)
}

fn to_int2(value: i64) -> Result<Value> {
    i16::try_from(value).map(Value::Int2).map_err(|_| out_of_range("smallint"))
}

fn to_int4(value: i64) -> Result<Value> {
    i32::try_from(value).map(Value::Int4).map_err(|_| out_of_range("integer"))
}

fn number(datum: &Datum<'_>) -> Result<Numeric> {
    Ok(Numeric::decode(datum.bytes())?)
}

fn from_int(value: i64) -> Value {
    Value::Bytes(Numeric::new(i128::from(value), 0).encode())
}

fn modified(call: &Call, args: &[Datum<'_>], value: Value) -> Result<Value> {
    let mut data_type = call.result.clone();
    data_type.typmod = args.get(1).map_or(-1, Datum::int4);
    let explicit = args.get(2).is_none_or(Datum::bool);
    Ok(apply_modifier(&data_type, Datum::from(value), explicit)?.into_value())
}

fn same(_: &Call, a: &[Datum<'_>]) -> Result<Value> {
    Ok(a[0].borrowed().into_value())
}

fn through_text(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let text = call.text_of(0, &a[0])?;
    input(&call.context, &call.result, &text)
}

fn name(_: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let text = a[0].str().trim_end_matches(' ');
    let mut end = text.len().min(63);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(text_value(&text[..end]))
}

pub const FUNCTIONS: &[Entry] = &[
    ("i2toi4", |_, a| Ok(Value::Int4(a[0].int4()))),
    ("i4toi2", |_, a| to_int2(a[0].int())),
    ("int28", |_, a| Ok(Value::Int8(a[0].int()))),
    ("int48", |_, a| Ok(Value::Int8(a[0].int()))),
    ("int82", |_, a| to_int2(a[0].int())),
    ("int84", |_, a| to_int4(a[0].int())),
    ("i2tof", |_, a| Ok(Value::Float4(a[0].int() as f32))),
    ("i4tof", |_, a| Ok(Value::Float4(a[0].int() as f32))),
    ("i8tof", |_, a| Ok(Value::Float4(a[0].int() as f32))),
    ("i2tod", |_, a| Ok(Value::Float8(a[0].int() as f64))),
    ("i4tod", |_, a| Ok(Value::Float8(a[0].int() as f64))),
    ("i8tod", |_, a| Ok(Value::Float8(a[0].int() as f64))),
    ("ftod", |_, a| Ok(Value::Float8(a[0].float()))),
    ("dtof", |_, a| {
        let (from, to) = (a[0].float(), a[0].float() as f32);
        if to.is_infinite() && !from.is_infinite() {
            return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "value out of range: overflow"));
        }
        if to == 0.0 && from != 0.0 {
            return Err(SqlError::new(ErrorCode::NumericValueOutOfRange, "value out of range: underflow"));
        }
        Ok(Value::Float4(to))
    }),
    ("ftoi2", |_, a| to_int2(float_to_int(a[0].float(), -32768.0, 32768.0, "smallint")?)),
    ("dtoi2", |_, a| to_int2(float_to_int(a[0].float(), -32768.0, 32768.0, "smallint")?)),
    ("ftoi4", |_, a| to_int4(float_to_int(a[0].float(), -2147483648.0, 2147483648.0, "integer")?)),
    ("dtoi4", |_, a| to_int4(float_to_int(a[0].float(), -2147483648.0, 2147483648.0, "integer")?)),
    ("ftoi8", |_, a| Ok(Value::Int8(float_to_int(a[0].float(), -9223372036854775808.0, 9223372036854775808.0, "bigint")?))),
    ("dtoi8", |_, a| Ok(Value::Int8(float_to_int(a[0].float(), -9223372036854775808.0, 9223372036854775808.0, "bigint")?))),
    ("int2_numeric", |_, a| Ok(from_int(a[0].int()))),
    ("int4_numeric", |_, a| Ok(from_int(a[0].int()))),
    ("int8_numeric", |_, a| Ok(from_int(a[0].int()))),
    ("float4_numeric", |_, a| match &a[0] {
        Datum::Float4(v) => Ok(Value::Bytes(Numeric::from_f32(*v).encode())),
        other => Ok(Value::Bytes(Numeric::from_f64(other.float()).encode())),
    }),
    ("float8_numeric", |_, a| Ok(Value::Bytes(Numeric::from_f64(a[0].float()).encode()))),
    ("numeric_int2", |_, a| Ok(Value::Int2(number(&a[0])?.to_i16()?))),
    ("numeric_int4", |_, a| Ok(Value::Int4(number(&a[0])?.to_i32()?))),
    ("numeric_int8", |_, a| Ok(Value::Int8(number(&a[0])?.to_i64()?))),
    ("numeric_float4", |_, a| Ok(Value::Float4(number(&a[0])?.to_f32()?))),
    ("numeric_float8", |_, a| Ok(Value::Float8(number(&a[0])?.to_f64()?))),
    ("numeric", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("varchar", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("bpchar", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("timestamp_scale", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("timestamptz_scale", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("time_scale", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("timetz_scale", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("interval_scale", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("bit", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("varbit", |c, a| modified(c, a, a[0].borrowed().into_value())),
    ("int4_bool", |_, a| Ok(Value::Bool(a[0].int() != 0))),
    ("bool_int4", |_, a| Ok(Value::Int4(i32::from(a[0].bool())))),
    ("booltext", |_, a| Ok(text_value(if a[0].bool() { "true" } else { "false" }))),
    ("rtrim1", |_, a| Ok(text_value(a[0].str().trim_end_matches(' ')))),
    ("name_text", same),
    ("text_name", name),
    ("bpchar_name", name),
    ("name_bpchar", same),
    ("char_text", same),
    ("char_bpchar", same),
    ("text_char", |_, a| Ok(text_value(a[0].str().chars().next().map(String::from).unwrap_or_default()))),
    ("chartoi4", |_, a| Ok(Value::Int4(i32::from(a[0].bytes().first().copied().unwrap_or(0) as i8)))),
    ("i4tochar", |_, a| {
        let code = i8::try_from(a[0].int()).map_err(|_| out_of_range("\"char\""))? as u8;
        Ok(text_value(if code == 0 { String::new() } else { char::from(code).to_string() }))
    }),
    ("i8tooid", |_, a| match u32::try_from(a[0].int()) {
        Ok(v) => Ok(Value::Int8(i64::from(v))),
        Err(_) => Err(out_of_range("OID")),
    }),
    ("oidtoi8", |_, a| Ok(Value::Int8(a[0].int()))),
    ("text_regclass", |c, a| system::oid_input(&c.context, oid::REGCLASS, a[0].str())),
    ("to_regclass", |c, a| to_reg(c, a, oid::REGCLASS)),
    ("to_regtype", |c, a| to_reg(c, a, oid::REGTYPE)),
    ("to_regnamespace", |c, a| to_reg(c, a, oid::REGNAMESPACE)),
    ("to_regrole", |c, a| to_reg(c, a, oid::REGROLE)),
    ("to_regproc", |c, a| to_reg(c, a, oid::REGPROC)),
    ("to_regprocedure", |c, a| to_reg(c, a, oid::REGPROCEDURE)),
    ("numeric_cash", |_, a| {
        let cents = number(&a[0])?.mul(&Numeric::new(100, 0))?.round(0);
        cents.to_i64().map(Value::Int8).map_err(|_| out_of_range("money"))
    }),
    ("cash_numeric", |_, a| Ok(Value::Bytes(Numeric::new(i128::from(a[0].int()), 2).encode()))),
    ("int4_cash", |_, a| a[0].int().checked_mul(100).map(Value::Int8).ok_or_else(|| out_of_range("money"))),
    ("int8_cash", |_, a| a[0].int().checked_mul(100).map(Value::Int8).ok_or_else(|| out_of_range("bigint"))),
    ("network_show", |_, a| {
        let text = a[0].str();
        if text.contains('/') {
            return Ok(text_value(text));
        }
        Ok(text_value(format!("{text}/{}", if text.contains(':') { 128 } else { 32 })))
    }),
    ("inet_to_cidr", through_text),
    ("bittoint4", |_, a| i64::from_str_radix(a[0].str(), 2).map(|v| Value::Int4(v as i32)).map_err(|_| out_of_range("integer"))),
    ("bittoint8", |_, a| u64::from_str_radix(a[0].str(), 2).map(|v| Value::Int8(v as i64)).map_err(|_| out_of_range("bigint"))),
    ("bitfromint4", |c, a| bits(c, a, u64::from(a[0].int4() as u32), 32)),
    ("bitfromint8", |c, a| bits(c, a, a[0].int() as u64, 64)),
    ("jsonb_bool", |_, a| match a[0].str() {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        other => Err(json_cast(other, "boolean")),
    }),
    ("jsonb_numeric", |_, a| Ok(Value::Bytes(json_number(&a[0], "numeric")?.encode()))),
    ("jsonb_int2", |_, a| Ok(Value::Int2(json_number(&a[0], "smallint")?.to_i16()?))),
    ("jsonb_int4", |_, a| Ok(Value::Int4(json_number(&a[0], "integer")?.to_i32()?))),
    ("jsonb_int8", |_, a| Ok(Value::Int8(json_number(&a[0], "bigint")?.to_i64()?))),
    ("jsonb_float4", |_, a| Ok(Value::Float4(json_number(&a[0], "real")?.to_f32()?))),
    ("jsonb_float8", |_, a| Ok(Value::Float8(json_number(&a[0], "double precision")?.to_f64()?))),
];

fn to_reg(call: &Call, args: &[Datum<'_>], target: Oid) -> Result<Value> {
    match system::oid_input(&call.context, target, args[0].str()) {
        Ok(value) => Ok(value),
        Err(e)
            if matches!(
                e.code,
                ErrorCode::UndefinedTable
                    | ErrorCode::UndefinedObject
                    | ErrorCode::UndefinedFunction
                    | ErrorCode::UndefinedSchema
                    | ErrorCode::InvalidSchemaName
            ) =>
        {
            Ok(Value::Null)
        }
        Err(e) => Err(e),
    }
}

fn bits(call: &Call, args: &[Datum<'_>], value: u64, width: u32) -> Result<Value> {
    let length = match args.get(1).map_or(-1, Datum::int4) {
        n if n > 0 => n as u32,
        _ => call.result.typmod.max(1) as u32,
    };
    if length > 83_886_080 {
        return Err(invalid("length for type bit cannot exceed 83886080"));
    }
    let text = (0..length)
        .rev()
        .map(|i| {
            let bit =
                if i < width { value >> i & 1 } else { u64::from(width == 32 && value >> 31 & 1 == 1 || width == 64 && value >> 63 == 1) };
            if bit == 1 { '1' } else { '0' }
        })
        .collect::<String>();
    Ok(text_value(text))
}

fn json_cast(text: &str, target: &str) -> SqlError {
    let kind = match text.trim_start().chars().next() {
        Some('{') => "object",
        Some('[') => "array",
        Some('"') => "string",
        Some('t' | 'f') => "boolean",
        Some('n') => "null",
        _ => "numeric",
    };
    invalid(format!("cannot cast jsonb {kind} to type {target}"))
}

fn json_number(datum: &Datum<'_>, target: &str) -> Result<Numeric> {
    let text = datum.str();
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err(json_cast(text, target));
    }
    Ok(Numeric::parse(text)?)
}
