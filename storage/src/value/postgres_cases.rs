//! What PostgreSQL 15 answered to the same inputs: texts and binary forms of values, and results of numeric arithmetic.
//!
//! `cases/texts.tsv`: type oid, modifier, settings, input, output text, binary form (or `ERR message | detail`).
//! `cases/numeric.tsv`: operation, operands, result. Both were recorded from a server.

use crate::error::Error;
use crate::value::text::{DateOrder, DateStyle, IntervalStyle};
use crate::value::{DataType, Numeric, TextSettings, Value};

fn error_text(error: &Error) -> String {
    match error {
        Error::Value(v) if v.detail.is_some() => format!("ERR {} | {}", v.message, v.detail.as_deref().unwrap_or("")),
        e => format!("ERR {e}"),
    }
}

fn settings(text: &str) -> TextSettings {
    let mut s = TextSettings::default();
    for (key, value) in text.split(';').filter_map(|kv| kv.split_once('=')) {
        match (key, value) {
            ("ds", "ISO") => s.date_style = DateStyle::Iso,
            ("ds", "SQL") => s.date_style = DateStyle::Sql,
            ("ds", "Postgres") => s.date_style = DateStyle::Postgres,
            ("ds", "German") => s.date_style = DateStyle::German,
            ("do", "MDY") => s.date_order = DateOrder::Mdy,
            ("do", "DMY") => s.date_order = DateOrder::Dmy,
            ("do", "YMD") => s.date_order = DateOrder::Ymd,
            ("is", "postgres") => s.interval_style = IntervalStyle::Postgres,
            ("is", "postgres_verbose") => s.interval_style = IntervalStyle::PostgresVerbose,
            ("is", "sql_standard") => s.interval_style = IntervalStyle::SqlStandard,
            ("is", "iso_8601") => s.interval_style = IntervalStyle::Iso8601,
            ("tz", zone) => s.time_zone = zone.into(),
            ("efd", digits) => s.extra_float_digits = digits.parse().unwrap(),
            other => panic!("unknown setting {other:?}"),
        }
    }
    s
}

#[test]
fn texts_and_binary_forms_are_postgresqls() {
    for line in include_str!("cases/texts.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let data_type = DataType::builtin(fields[0].parse().unwrap(), fields[1].parse().unwrap()).unwrap();
        let settings = settings(fields[2]);
        let value = match data_type.parse(fields[3], &settings) {
            Ok(value) => value,
            Err(e) => {
                assert_eq!(error_text(&e), fields[4], "{line}");
                continue;
            }
        };
        assert_eq!(data_type.to_text(&value, &settings), fields[4], "{line}");
        if fields[5] != "-" {
            let mut binary = Vec::new();
            data_type.to_binary(&value, &mut binary).unwrap();
            let hex: String = binary.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, fields[5], "{line}");
            assert_eq!(data_type.from_binary(&binary).unwrap(), value, "{line}");
        }
    }
}

#[test]
fn numeric_results_have_postgresqls_digits() {
    for line in include_str!("cases/numeric.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let n = |i: usize| Numeric::parse(fields[i]).unwrap();
        let digits = || fields[2].parse().unwrap();
        let result = match fields[0] {
            "+" => n(1).add(&n(2)),
            "-" => n(1).sub(&n(2)),
            "*" => n(1).mul(&n(2)),
            "/" => n(1).div(&n(2)),
            "%" => n(1).rem(&n(2)),
            "^" => n(1).pow(&n(2)),
            "div" => n(1).div_trunc(&n(2)),
            "log" => n(2).log(&n(1)),
            "sqrt" => n(1).sqrt(),
            "exp" => n(1).exp(),
            "ln" => n(1).ln(),
            "ceil" => Ok(n(1).ceil()),
            "floor" => Ok(n(1).floor()),
            "round" => Ok(n(1).round(digits())),
            "trunc" => Ok(n(1).trunc(digits())),
            "f8" => Ok(Numeric::from_f64(fields[1].parse().unwrap())),
            "f4" => Ok(Numeric::from_f32(fields[1].parse().unwrap())),
            "tof8" => {
                let text = match n(1).to_f64() {
                    Ok(v) => DataType::builtin(701, -1).unwrap().to_text(&Value::Float8(v), &TextSettings::default()),
                    Err(e) => error_text(&e),
                };
                assert_eq!(text, fields[3], "{line}");
                continue;
            }
            other => panic!("unknown operation {other}"),
        };
        assert_eq!(result.map_or_else(|e| error_text(&e), |n| n.to_string()), fields[3], "{line}");
    }
}
