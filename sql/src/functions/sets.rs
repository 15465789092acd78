//! Set-returning functions: one row of arguments to an iterator of rows.

use strandline_storage::Value;
use strandline_storage::value::numeric::Numeric;

use crate::catalog_data::ProcRow;
use crate::error::Result;
use crate::exec::datum::Datum;
use crate::functions::{Call, arrays, datetime, invalid, json, source, system, text, text_value};

pub type SetRows = Box<dyn Iterator<Item = Result<Vec<Value>>> + Send>;
pub type Run = fn(&std::sync::Arc<Call>, &[Datum<'_>]) -> Result<SetRows>;

/// The set-returning function, or `None` when nothing implements it.
pub fn find(proc: &ProcRow) -> Option<Run> {
    Some(match source(proc) {
        "generate_series_int4" | "generate_series_step_int4" => |c, a| series(c, a, |v| Value::Int4(v as i32)),
        "generate_series_int8" | "generate_series_step_int8" => |c, a| series(c, a, Value::Int8),
        "generate_series_numeric" | "generate_series_step_numeric" => |_, a| {
            let start = Numeric::decode(a[0].bytes())?;
            let stop = Numeric::decode(a[1].bytes())?;
            let step = match a.get(2) {
                Some(s) => Numeric::decode(s.bytes())?,
                None => Numeric::ONE,
            };
            if step.is_zero() {
                return Err(invalid("step size cannot equal zero"));
            }
            let up = step.signum() > 0;
            let mut next = Some(start);
            Ok(Box::new(std::iter::from_fn(move || {
                let value = next.take()?;
                let past = match value.sub(&stop) {
                    Ok(d) => {
                        if up {
                            d.signum() > 0
                        } else {
                            d.signum() < 0
                        }
                    }
                    Err(e) => return Some(Err(e.into())),
                };
                if past {
                    return None;
                }
                match value.add(&step) {
                    Ok(v) => next = Some(v),
                    Err(e) => return Some(Err(e.into())),
                }
                Some(Ok(vec![Value::Bytes(value.encode())]))
            })))
        },
        "generate_series_timestamp" | "generate_series_timestamptz" => datetime::series,
        "generate_subscripts" | "generate_subscripts_nodir" => |c, a| {
            let array = arrays::parse_typed(&c.context, &c.args[0], a[0].str())?;
            let reverse = a.get(2).is_some_and(Datum::bool);
            let Some(d) = usize::try_from(a[1].int() - 1).ok().and_then(|i| array.dimensions.get(i).copied()) else {
                return Ok(Box::new(std::iter::empty()));
            };
            let range = d.lower..d.lower + d.length as i32;
            let list: Vec<i32> = if reverse { range.rev().collect() } else { range.collect() };
            Ok(Box::new(list.into_iter().map(|v| Ok(vec![Value::Int4(v)]))))
        },
        "array_unnest" => |c, a| {
            let array = arrays::parse_typed(&c.context, &c.args[0], a[0].str())?;
            Ok(Box::new(array.elements.into_iter().map(|v| Ok(vec![v]))))
        },
        "text_to_table" | "text_to_table_null" => |_, a| {
            let parts = arrays::split(a).unwrap_or_default();
            Ok(Box::new(parts.into_iter().map(|p| Ok(vec![p.map_or(Value::Null, text_value)]))))
        },
        "regexp_split_to_table" | "regexp_split_to_table_no_flags" => |c, a| {
            let parts = text::regexp_split(c, a)?;
            Ok(Box::new(parts.into_iter().map(|p| Ok(vec![text_value(p)]))))
        },
        "regexp_matches" | "regexp_matches_no_flags" => |c, a| {
            let found = text::regexp_matches(c, a)?;
            Ok(Box::new(found.into_iter().map(|v| Ok(vec![v]))))
        },
        "json_array_elements" | "jsonb_array_elements" => |c, a| json::array_elements(c, a, false),
        "json_array_elements_text" | "jsonb_array_elements_text" => |c, a| json::array_elements(c, a, true),
        "json_each" | "jsonb_each" => |c, a| json::each(c, a, false),
        "json_each_text" | "jsonb_each_text" => |c, a| json::each(c, a, true),
        "json_object_keys" | "jsonb_object_keys" => json::object_keys,
        "pg_options_to_table" => |_, a| {
            let parts = arrays::parse(a[0].str())?.elements;
            Ok(Box::new(parts.into_iter().flatten().map(|p| {
                let (name, value) = p.split_once('=').map_or((p.as_str(), None), |(n, v)| (n, Some(v)));
                Ok(vec![text_value(name), value.map_or(Value::Null, text_value)])
            })))
        },
        other => return system::set_function(other),
    })
}

fn series(_: &Call, a: &[Datum<'_>], make: fn(i64) -> Value) -> Result<SetRows> {
    let (start, stop) = (a[0].int(), a[1].int());
    let step = a.get(2).map_or(1, Datum::int);
    if step == 0 {
        return Err(invalid("step size cannot equal zero"));
    }
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let value = next?;
        if if step > 0 { value > stop } else { value < stop } {
            next = None;
            return None;
        }
        next = value.checked_add(step);
        Some(Ok(vec![make(value)]))
    })))
}
