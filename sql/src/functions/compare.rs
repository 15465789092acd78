//! Comparison: every type's order, and bytes that sort, group and join like it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use strandline_storage::value::numeric;
use strandline_storage::{CatalogObject, DataType, Kind};

use crate::catalog_data::catalog;
use crate::context::StatementContext;
use crate::error::Result;
use crate::exec::datum::Datum;
use crate::functions::{arrays, datetime, json};
use crate::types::Oid;
use strandline_storage::schema::TypeDefinition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Eq => ordering.is_eq(),
            Comparison::Ne => ordering.is_ne(),
            Comparison::Lt => ordering.is_lt(),
            Comparison::Le => ordering.is_le(),
            Comparison::Gt => ordering.is_gt(),
            Comparison::Ge => ordering.is_ge(),
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "=" => Comparison::Eq,
            "<>" => Comparison::Ne,
            "<" => Comparison::Lt,
            "<=" => Comparison::Le,
            ">" => Comparison::Gt,
            ">=" => Comparison::Ge,
            _ => return None,
        })
    }
}

/// Types whose `=` and `<` are not an order of values: boxes compare areas, and so on.
const GEOMETRIC: [Oid; 7] = [600, 601, 602, 603, 604, 628, 718];

/// The comparison operators' functions.
static PROCS: LazyLock<HashMap<Oid, Comparison>> = LazyLock::new(|| {
    catalog()
        .operators
        .iter()
        .filter(|o| !GEOMETRIC.contains(&o.left) && !GEOMETRIC.contains(&o.right))
        .filter_map(|o| Some((o.proc, Comparison::of_name(o.name)?)))
        .collect()
});

/// The comparison that a function computes, if it is one.
pub fn of_proc(oid: Oid) -> Option<Comparison> {
    PROCS.get(&oid).copied()
}

fn is_int(kind: Kind) -> bool {
    matches!(kind, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Money)
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float4 | Kind::Float8)
}

/// PostgreSQL's order of floats: NaN equals itself and is greater than everything, the zeros are equal.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

/// Compares two values that are not NULL.
///
/// # Errors
/// When a value's text is damaged.
pub fn compare(context: &StatementContext, a_type: &DataType, a: &Datum<'_>, b_type: &DataType, b: &Datum<'_>) -> Result<Ordering> {
    let (ka, kb) = (a_type.kind, b_type.kind);
    if is_int(ka) && is_int(kb) || ka == kb && matches!(ka, Kind::Date | Kind::Time | Kind::Timestamp | Kind::Timestamptz | Kind::Lsn) {
        return Ok(a.int().cmp(&b.int()));
    }
    if is_float(ka) && is_float(kb) {
        return Ok(compare_floats(a.float(), b.float()));
    }
    if let (Datum::Bool(a), Datum::Bool(b)) = (a, b) {
        return Ok(a.cmp(b));
    }
    match (ka, kb) {
        (Kind::Numeric, Kind::Numeric) => Ok(numeric::sort_key(a.bytes()).cmp(numeric::sort_key(b.bytes()))),
        (Kind::Text | Kind::Json | Kind::Bytea | Kind::Uuid, _) if a_type.oid != 1042 && kb != Kind::Bpchar => Ok(a.bytes().cmp(b.bytes())),
        (Kind::Date | Kind::Timestamp | Kind::Timestamptz, Kind::Date | Kind::Timestamp | Kind::Timestamptz) => {
            datetime::compare_mixed(context, ka, a.int(), kb, b.int())
        }
        _ => {
            let (mut ka, mut kb) = (Vec::new(), Vec::new());
            sort_key(context, a_type, a, &mut ka)?;
            sort_key(context, b_type, b, &mut kb)?;
            Ok(ka.cmp(&kb))
        }
    }
}

/// Says whether the physical Arrow values of a type already compare as the type does.
pub fn is_plain(kind: Kind, oid: Oid) -> bool {
    match kind {
        Kind::Bool
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Oid
        | Kind::Money
        | Kind::Text
        | Kind::Bytea
        | Kind::Date
        | Kind::Time
        | Kind::Timetz
        | Kind::Timestamp
        | Kind::Timestamptz
        | Kind::Uuid
        | Kind::Lsn
        | Kind::Json => true,
        // Extensions' and opaque types have no order but their text's; those of PostgreSQL that do are known below.
        Kind::Other => !matches!(oid, INET | CIDR | RECORD | INT2VECTOR | OIDVECTOR),
        Kind::Float4 | Kind::Float8 | Kind::Numeric | Kind::Bpchar | Kind::Interval | Kind::Jsonb | Kind::Array | Kind::Enum => false,
    }
}

const INET: Oid = 869;
const CIDR: Oid = 650;
const RECORD: Oid = 2249;
const INT2VECTOR: Oid = 22;
const OIDVECTOR: Oid = 30;

/// Ends a variable part so that a prefix sorts first: zero bytes inside are escaped.
fn terminated(bytes: &[u8], out: &mut Vec<u8>) {
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(0xff);
        }
    }
    out.extend([0, 0]);
}

fn float_key(value: f64, out: &mut Vec<u8>) {
    // NaN in one form above infinity, one zero.
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend(ordered.to_be_bytes());
}

/// Appends bytes that compare (as bytes) like the value. For use alone or, with [`row_key`], with others behind.
///
/// # Errors
/// When a value's text is damaged.
pub fn sort_key(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>, out: &mut Vec<u8>) -> Result<()> {
    match datum {
        Datum::Null => return Ok(()),
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) => out.extend((datum.int() as u64 ^ 1 << 63).to_be_bytes()),
        Datum::Float4(_) | Datum::Float8(_) => float_key(datum.float(), out),
        Datum::Uuid(v) => out.extend(v),
        Datum::Bytes(bytes) => match data_type.kind {
            Kind::Numeric => out.extend(numeric::sort_key(bytes)),
            Kind::Bpchar => out.extend(datum.str().trim_end_matches(' ').as_bytes()),
            Kind::Interval => out.extend(bytes.get(..16).unwrap_or(bytes)),
            Kind::Jsonb => json::sort_key(datum.str(), out)?,
            Kind::Enum => match enum_position(context, data_type.oid, datum.str()) {
                Some(position) => out.extend((position as u32).to_be_bytes()),
                None => out.extend(bytes.iter()),
            },
            Kind::Array => {
                let array = arrays::parse_typed(context, data_type, datum.str())?;
                let element = arrays::element_type(context, data_type)?;
                for item in &array.elements {
                    // NULL elements sort last.
                    out.push(if item.is_null() { 2 } else { 1 });
                    part_key(context, &element, &Datum::from(item), out)?;
                }
                out.push(0);
                out.extend((array.dimensions.len() as u32).to_be_bytes());
                for d in &array.dimensions {
                    out.extend((d.length as u32).to_be_bytes());
                    out.extend((d.lower as u32 ^ 1 << 31).to_be_bytes());
                }
            }
            Kind::Other if matches!(data_type.oid, INET | CIDR) => inet_key(datum.str(), out),
            Kind::Other if matches!(data_type.oid, INT2VECTOR | OIDVECTOR) => {
                for item in datum.str().split_ascii_whitespace() {
                    out.push(1);
                    out.extend((item.parse::<i64>().unwrap_or(0) as u64 ^ 1 << 63).to_be_bytes());
                }
                out.push(0);
            }
            _ => out.extend(bytes.iter()),
        },
    }
    Ok(())
}

/// A key that others may follow.
fn part_key(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>, out: &mut Vec<u8>) -> Result<()> {
    if let Datum::Bytes(_) = datum {
        let mut key = Vec::new();
        sort_key(context, data_type, datum, &mut key)?;
        terminated(&key, out);
        Ok(())
    } else {
        sort_key(context, data_type, datum, out)
    }
}

/// Appends one column of a row's key; NULLs are equal to each other and come last.
///
/// # Errors
/// When a value's text is damaged.
pub fn row_key(context: &StatementContext, data_type: &DataType, datum: &Datum<'_>, out: &mut Vec<u8>) -> Result<()> {
    out.push(if datum.is_null() { 2 } else { 1 });
    part_key(context, data_type, datum, out)
}

/// The place of a label in its enum, 0-based.
pub fn enum_position(context: &StatementContext, oid: Oid, label: &str) -> Option<usize> {
    enum_labels(context, oid)?.iter().position(|l| l == label)
}

pub fn enum_labels(context: &StatementContext, oid: Oid) -> Option<&[String]> {
    match &**context.root.catalog().get(oid)? {
        CatalogObject::Type(t) => match &t.definition {
            TypeDefinition::Enum(labels) => Some(labels),
            _ => None,
        },
        _ => None,
    }
}

/// Family, then network bits, then mask length, then the whole address.
fn inet_key(text: &str, out: &mut Vec<u8>) {
    let (address, bits) = match text.split_once('/') {
        Some((a, b)) => (a, b.parse::<u8>().ok()),
        None => (text, None),
    };
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        out.extend(text.as_bytes());
        return;
    };
    let (family, bytes) = match address {
        std::net::IpAddr::V4(a) => (2u8, a.octets().to_vec()),
        std::net::IpAddr::V6(a) => (3u8, a.octets().to_vec()),
    };
    let bits = bits.unwrap_or((bytes.len() * 8) as u8);
    out.push(family);
    for (i, b) in bytes.iter().enumerate() {
        let keep = (usize::from(bits)).saturating_sub(i * 8).min(8);
        out.push(if keep == 0 { 0 } else { b & (0xffu16 << (8 - keep)) as u8 });
    }
    out.push(bits);
    out.extend(bytes);
}
