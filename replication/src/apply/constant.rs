//! Defaults that are constants: the only ones that need no SQL to be known.

use strandline_storage::value::TextSettings;
use strandline_storage::{DataType, Value};

/// The value of a default expression if it is a plain constant (a number, a string, a truth value, NULL, each perhaps with a cast), in the column's type.
pub(super) fn constant_default(expression: &str, data_type: &DataType, settings: &TextSettings) -> Option<Value> {
    let literal = without_casts(expression.trim())?;
    if literal.eq_ignore_ascii_case("null") {
        return Some(Value::Null);
    }
    let text = if let Some(quoted) = literal.strip_prefix('\'') {
        let body = quoted.strip_suffix('\'')?;
        // A single quote within the literal must be doubled; otherwise this is an expression.
        let plain = body.replace("''", "");
        if plain.contains('\'') {
            return None;
        }
        body.replace("''", "'")
    } else {
        let number = literal.trim_start_matches('(').trim_end_matches(')');
        let is_number = number.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'E' | b'+'))
            && number.parse::<f64>().is_ok();
        let is_truth = number.eq_ignore_ascii_case("true") || number.eq_ignore_ascii_case("false");
        if !is_number && !is_truth {
            return None;
        }
        number.to_owned()
    };
    data_type.parse(&text, settings).ok()
}

/// Takes `::type` off the end, any number of times. `None` when what follows `::` is not a plain type name.
fn without_casts(expression: &str) -> Option<&str> {
    let end = if expression.starts_with('\'') {
        // The literal ends at its first single quote that is not doubled.
        let bytes = expression.as_bytes();
        let mut at = 1;
        loop {
            match (bytes.get(at)?, bytes.get(at + 1)) {
                (b'\'', Some(b'\'')) => at += 2,
                (b'\'', _) => break at + 1,
                _ => at += 1,
            }
        }
    } else {
        expression.find("::").unwrap_or(expression.len())
    };
    let (literal, casts) = expression.split_at(end);
    let is_type_text =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'"' | b'.' | b' ' | b'(' | b')' | b',' | b'[' | b']' | b':');
    let are_casts = casts.is_empty() || (casts.starts_with("::") && casts.bytes().all(is_type_text));
    are_casts.then_some(literal.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_come_off_literals_only() {
        assert_eq!(without_casts("'a''b::c'::character varying(20)"), Some("'a''b::c'"));
        assert_eq!(without_casts("'{}'::text[]"), Some("'{}'"));
        assert_eq!(without_casts("'-1'::integer"), Some("'-1'"));
        assert_eq!(without_casts("'a'::text || 'b'::text"), None);
        assert_eq!(without_casts("7"), Some("7"));
        assert_eq!(without_casts("'open"), None);
    }

    #[test]
    fn constants_are_known_and_expressions_are_not() {
        let int4 = DataType::builtin(23, -1).unwrap();
        let text = DataType::builtin(25, -1).unwrap();
        let settings = TextSettings::default();
        assert_eq!(constant_default("7", &int4, &settings), Some(Value::Int4(7)));
        assert_eq!(constant_default("'-1'::integer", &int4, &settings), Some(Value::Int4(-1)));
        assert_eq!(constant_default("(-1)", &int4, &settings), Some(Value::Int4(-1)));
        assert_eq!(constant_default("'it''s'::text", &text, &settings), Some(Value::bytes("it's")));
        assert_eq!(constant_default("NULL::text", &text, &settings), Some(Value::Null));
        for expression in ["now()", "nextval('s'::regclass)", "1 + 1", "CURRENT_DATE", "'a'::text || 'b'::text", "'a' || 'b'"] {
            assert_eq!(constant_default(expression, &int4, &settings), None, "{expression}");
        }
    }
}
