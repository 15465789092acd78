//! Text and binary strings: case, parts, padding, patterns, encodings.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use strandline_storage::value::numeric::Numeric;
use strandline_storage::{Kind, Value};

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::number_template::{self, Number};
use crate::functions::{Call, Entry, arrays, casts, digest, invalid, text_value};
use crate::system::identifier::{quote_identifier, quote_literal};

/// Strings longer than this are refused, as PostgreSQL refuses values over 1 GB.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// One character for one character, as PostgreSQL's libc collations do: "ß" has no upper case of its own.
fn upper_char(c: char) -> char {
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn lower_char(c: char) -> char {
    let mut mapped = c.to_lowercase();
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn too_long() -> SqlError {
    SqlError::new(ErrorCode::ProgramLimitExceeded, "requested length too large")
}

fn t(text: impl AsRef<str>) -> Result<Value> {
    Ok(text_value(text))
}

fn int4(value: usize) -> Result<Value> {
    Ok(Value::Int4(i32::try_from(value).unwrap_or(i32::MAX)))
}

/// Characters `start` (1-based, may be outside) to `start + length`.
fn substring(text: &str, start: i64, length: Option<i64>) -> Result<&str> {
    let end = match length {
        Some(n) if n < 0 => return Err(SqlError::new(ErrorCode::SubstringError, "negative substring length not allowed")),
        Some(n) => start.saturating_add(n),
        None => i64::MAX,
    };
    let from = (start.max(1) - 1) as usize;
    let to = (end.max(1) - 1) as usize;
    if from >= to {
        return Ok("");
    }
    if text.is_ascii() {
        return Ok(text.get(from.min(text.len())..to.min(text.len())).unwrap_or(""));
    }
    let mut indices = text.char_indices().map(|(i, _)| i);
    let Some(a) = indices.nth(from) else { return Ok("") };
    let b = indices.nth(to - from - 1).unwrap_or(text.len());
    Ok(&text[a..b])
}

fn byte_slice(bytes: &[u8], start: i64, length: Option<i64>) -> Result<&[u8]> {
    let end = match length {
        Some(n) if n < 0 => return Err(SqlError::new(ErrorCode::SubstringError, "negative substring length not allowed")),
        Some(n) => start.saturating_add(n),
        None => i64::MAX,
    };
    let from = ((start.max(1) - 1) as usize).min(bytes.len());
    let to = ((end.max(1) - 1).min(bytes.len() as i64)) as usize;
    Ok(bytes.get(from..to.max(from)).unwrap_or(&[]))
}

fn pad(a: &[Datum<'_>], left: bool) -> Result<Value> {
    let length = usize::try_from(a[1].int()).unwrap_or(0);
    let fill = a.get(2).map_or(" ", Datum::str);
    if length > TEXT_BYTES_MAX / 4 {
        return Err(too_long());
    }
    let text = a[0].str();
    let count = text.chars().count();
    if count >= length {
        return t(text.chars().take(length).collect::<String>());
    }
    if fill.is_empty() {
        return t(text);
    }
    let padding: String = fill.chars().cycle().take(length - count).collect();
    t(if left { padding + text } else { text.to_owned() + &padding })
}

fn trim(a: &[Datum<'_>], start: bool, end: bool) -> Result<Value> {
    let set: Vec<char> = a.get(1).map_or(vec![' '], |s| s.str().chars().collect());
    let mut text = a[0].str();
    if start {
        text = text.trim_start_matches(&set[..]);
    }
    if end {
        text = text.trim_end_matches(&set[..]);
    }
    t(text)
}

fn initcap(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        out.push(if inside { lower_char(c) } else { upper_char(c) });
        inside = c.is_alphanumeric();
    }
    out
}

/// The value arguments of a function with VARIADIC "any", as texts; an explicit VARIADIC array is spread out.
fn variadic_texts(call: &Call, a: &[Datum<'_>], from: usize) -> Result<Vec<Option<String>>> {
    if call.variadic && a.len() == from + 1 {
        let Some(data_type) = call.args.get(from).filter(|t| t.kind == Kind::Array) else { return Ok(Vec::new()) };
        if a[from].is_null() {
            return Ok(Vec::new());
        }
        let element = arrays::element_type(&call.context, data_type)?;
        return arrays::parse_typed(&call.context, data_type, a[from].str())?
            .elements
            .iter()
            .map(|v| if v.is_null() { Ok(None) } else { casts::output(&call.context, &element, &Datum::from(v)).map(Some) })
            .collect();
    }
    (from..a.len()).map(|i| if a[i].is_null() { Ok(None) } else { call.text_of(i, &a[i]).map(Some) }).collect()
}

fn format(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    if a[0].is_null() {
        return Ok(Value::Null);
    }
    let args = variadic_texts(call, a, 1)?;
    let too_few = || invalid("too few arguments for format()");
    let mut out = String::new();
    let mut next = 0;
    let mut chars = a[0].str().chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut n: Option<usize> = None;
            while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                n = Some(n.unwrap_or(0).saturating_mul(10).saturating_add(d as usize));
            }
            n
        };
        let mut position = None;
        let mut width = None;
        let mut left = false;
        if chars.peek().is_some_and(|c| c.is_ascii_digit()) {
            let n = number(&mut chars);
            if chars.next_if_eq(&'$').is_some() {
                if n == Some(0) {
                    return Err(invalid("format specifies argument 0, but arguments are numbered from 1"));
                }
                position = n;
            } else {
                width = n;
            }
        }
        while chars.next_if_eq(&'-').is_some() {
            left = true;
        }
        if width.is_none() {
            if chars.next_if_eq(&'*').is_some() {
                let value = match number(&mut chars) {
                    Some(n) => {
                        chars.next_if_eq(&'$');
                        args.get(n.wrapping_sub(1))
                    }
                    None => {
                        next += 1;
                        args.get(next - 1)
                    }
                };
                let w: i64 = value.ok_or_else(too_few)?.as_deref().and_then(|t| t.parse().ok()).unwrap_or(0);
                left |= w < 0;
                width = Some(w.unsigned_abs() as usize);
            } else {
                width = number(&mut chars);
            }
        }
        let kind = chars.next().ok_or_else(|| invalid("unterminated format() type specifier").hint("For a single \"%\" use \"%%\"."))?;
        let arg = match position {
            Some(p) => {
                next = p;
                args.get(p - 1)
            }
            None => {
                next += 1;
                args.get(next - 1)
            }
        };
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(invalid(format!("unrecognized format() type specifier \"{kind}\"")).hint("For a single \"%\" use \"%%\"."));
        }
        let arg = arg.ok_or_else(too_few)?;
        let text = match (kind, arg) {
            ('s', arg) => arg.clone().unwrap_or_default(),
            ('I', None) => {
                return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "null values cannot be formatted as an SQL identifier"));
            }
            ('I', Some(arg)) => quote_identifier(arg).into_owned(),
            (_, None) => "NULL".into(),
            (_, Some(arg)) => quote_literal(arg),
        };
        let missing = width.unwrap_or(0).saturating_sub(text.chars().count());
        if missing > TEXT_BYTES_MAX {
            return Err(too_long());
        }
        if !left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
        out.push_str(&text);
        if left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
    }
    t(out)
}

/// A value as its cast to text has it, which for a boolean is a word and not its output's letter.
fn cast_to_text(call: &Call, index: usize, datum: &Datum<'_>) -> Result<String> {
    match datum {
        Datum::Bool(v) => Ok(v.to_string()),
        datum => call.text_of(index, datum),
    }
}

// LIKE.

/// Matches a LIKE pattern; `fold`: ILIKE.
fn like(text: &str, pattern: &str, fold: bool) -> Result<bool> {
    let (text, pattern) = if fold { (text.to_lowercase(), pattern.to_lowercase()) } else { (text.to_owned(), pattern.to_owned()) };
    like_bytes(text.as_bytes(), pattern.as_bytes())
}

/// Backtracks to the last `%` only, which is enough for LIKE. As in PostgreSQL, a text that does not come as far as an escape
/// character at the pattern's end just does not match.
fn like_bytes(text: &[u8], pattern: &[u8]) -> Result<bool> {
    let char_len = |b: u8| match b {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    let (mut i, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'%') => {
                back = Some((i, p + 1));
                p += 1;
                continue;
            }
            Some(b'_') if i < text.len() => {
                i += char_len(text[i]);
                p += 1;
                continue;
            }
            Some(b'\\') => {
                let at = text.get(i).copied();
                let escaped = pattern.get(p + 1).copied();
                if at.is_some() && escaped.is_none() {
                    return Err(SqlError::new(ErrorCode::InvalidEscapeSequence, "LIKE pattern must not end with escape character"));
                }
                if at.is_some() && at == escaped {
                    i += 1;
                    p += 2;
                    continue;
                }
                false
            }
            Some(b) if *b != b'_' && text.get(i) == Some(b) => {
                i += 1;
                p += 1;
                continue;
            }
            Some(_) => false,
            None => i == text.len(),
        };
        if step {
            return Ok(true);
        }
        match back {
            Some((from, after)) if from < text.len() => {
                let from = from + char_len(text[from]);
                back = Some((from, after));
                i = from;
                p = after;
            }
            _ => return Ok(false),
        }
    }
}

fn like_of(a: &[Datum<'_>], fold: bool, negated: bool) -> Result<Value> {
    Ok(Value::Bool(like(a[0].str(), a[1].str(), fold)? != negated))
}

/// `LIKE ... ESCAPE`: the pattern with backslash as its escape character.
fn like_escape(a: &[Datum<'_>]) -> Result<Value> {
    let escape = a[1].str();
    let mut chars = escape.chars();
    let (first, more) = (chars.next(), chars.next());
    if more.is_some() {
        return Err(
            SqlError::new(ErrorCode::InvalidEscapeSequence, "invalid escape string").hint("Escape string must be empty or one character.")
        );
    }
    let mut out = String::new();
    let mut after = false;
    for c in a[0].str().chars() {
        if Some(c) == first && !after {
            out.push('\\');
            after = true;
            continue;
        }
        if c == '\\' && first != Some('\\') {
            out.push('\\');
        }
        out.push(c);
        after = false;
    }
    t(out)
}

// Regular expressions: PostgreSQL's advanced syntax in the regex crate's.

#[derive(Clone, Copy, Default)]
struct Flags {
    global: bool,
    fold: bool,
    newline: bool,
    extended: bool,
    literal: bool,
}

fn flags(text: &str) -> Result<Flags> {
    let mut flags = Flags::default();
    for c in text.chars() {
        match c {
            'g' => flags.global = true,
            'i' => flags.fold = true,
            'c' => flags.fold = false,
            'n' | 'm' => flags.newline = true,
            's' => flags.newline = false,
            'x' => flags.extended = true,
            'q' => flags.literal = true,
            'e' | 't' => {}
            other => return Err(invalid(format!("invalid regular expression option: \"{other}\""))),
        }
    }
    Ok(flags)
}

/// Rewrites what PostgreSQL writes differently: word boundaries, class shorthands, embedded options.
fn translate(pattern: &str, flags: &mut Flags) -> String {
    let mut pattern = pattern;
    if let Some(rest) = pattern.strip_prefix("***=") {
        flags.literal = true;
        pattern = rest;
    } else if let Some(rest) = pattern.strip_prefix("***:") {
        pattern = rest;
    }
    if flags.literal {
        return regex::escape(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        if !in_class {
            if let Some(after) = rest.strip_prefix("[[:<:]]").or_else(|| rest.strip_prefix("\\m")) {
                out.push_str(r"\b{start}");
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix("[[:>:]]").or_else(|| rest.strip_prefix("\\M")) {
                out.push_str(r"\b{end}");
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix("\\y") {
                out.push_str(r"\b");
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix("\\Y") {
                out.push_str(r"\B");
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix("\\Z") {
                out.push_str(r"\z");
                rest = after;
                continue;
            }
        }
        match c {
            '\\' => {
                let mut chars = rest.chars();
                chars.next();
                out.push('\\');
                if let Some(next) = chars.next() {
                    // An escaped character that is special to neither side stands for itself.
                    if !next.is_alphanumeric() && !next.is_ascii_punctuation() {
                        out.pop();
                    }
                    out.push(next);
                }
                rest = chars.as_str();
                continue;
            }
            '[' if in_class && rest.starts_with("[:") => {
                if let Some(end) = rest.find(":]") {
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                    continue;
                }
                out.push_str("\\[");
            }
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                rest = &rest[1..];
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A bracket right at the beginning is a character.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
                continue;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Set operations of the regex crate that PostgreSQL does not know.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn compile(pattern: &str, mut flags: Flags) -> Result<Regex> {
    let translated = translate(pattern, &mut flags);
    RegexBuilder::new(&translated)
        .case_insensitive(flags.fold)
        .multi_line(flags.newline)
        .dot_matches_new_line(!flags.newline)
        .ignore_whitespace(flags.extended)
        .size_limit(16 << 20)
        .build()
        .map_err(|e| {
            let text = e.to_string();
            if text.contains("look-around") || text.contains("backreference") {
                SqlError::unsupported("look-around or a back reference in a regular expression")
            } else {
                SqlError::new(
                    ErrorCode::InvalidRegularExpression,
                    format!("invalid regular expression: {}", text.lines().last().unwrap_or("").trim_start_matches("error: ")),
                )
            }
        })
}

fn cached(call: &Call, pattern: &str, flags: Flags) -> Result<Arc<Regex>> {
    let mut key = pattern.as_bytes().to_vec();
    key.extend([u8::from(flags.fold), u8::from(flags.newline), u8::from(flags.extended), u8::from(flags.literal)]);
    call.cached(&key, || compile(pattern, flags))
}

fn matches(call: &Call, a: &[Datum<'_>], fold: bool, negated: bool) -> Result<Value> {
    let regex = cached(call, a[1].str(), Flags { fold, ..Flags::default() })?;
    Ok(Value::Bool(regex.is_match(a[0].str()) != negated))
}

/// The groups of a match as an array, or the whole match when there are no groups.
fn captures(found: &regex::Captures<'_>) -> Value {
    let groups: Vec<Option<String>> = if found.len() > 1 {
        found.iter().skip(1).map(|g| g.map(|m| m.as_str().to_owned())).collect()
    } else {
        vec![found.get(0).map(|m| m.as_str().to_owned())]
    };
    text_value(arrays::format(&arrays::Array::flat(groups)))
}

/// `regexp_matches`: one array per match, the first only without `g`.
pub fn regexp_matches(call: &Call, a: &[Datum<'_>]) -> Result<Vec<Value>> {
    let flags = flags(a.get(2).map_or("", Datum::str))?;
    let regex = cached(call, a[1].str(), flags)?;
    let limit = if flags.global { usize::MAX } else { 1 };
    Ok(regex.captures_iter(a[0].str()).take(limit).map(|c| captures(&c)).collect())
}

pub fn regexp_split(call: &Call, a: &[Datum<'_>]) -> Result<Vec<String>> {
    let regex = cached(call, a[1].str(), flags(a.get(2).map_or("", Datum::str))?)?;
    let text = a[0].str();
    let mut parts = Vec::new();
    let mut from = 0;
    for m in regex.find_iter(text) {
        // An empty match at the very beginning or end, or right after another match, splits nothing off.
        if m.is_empty() && (m.start() == 0 || m.start() >= text.len() || m.start() == from && from != 0 && parts.is_empty()) {
            continue;
        }
        parts.push(text[from..m.start()].to_owned());
        from = m.end();
    }
    parts.push(text[from..].to_owned());
    Ok(parts)
}

/// A replacement with `\1` and `\&`.
fn expand(replacement: &str, found: &regex::Captures<'_>, out: &mut String) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(found.get(0).map_or("", |m| m.as_str())),
            Some(d) if d.is_ascii_digit() => {
                out.push_str(found.get(d as usize - '0' as usize).map_or("", |m| m.as_str()));
            }
            Some('\\') => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
}

/// Replaces the `nth` match, or all from there on with `nth` 0; `start` is a 1-based character.
fn replace_matches(regex: &Regex, text: &str, replacement: &str, start: usize, nth: usize) -> String {
    let from = text.char_indices().nth(start.saturating_sub(1)).map_or(text.len(), |(i, _)| i);
    let mut out = text[..from].to_owned();
    let mut at = from;
    for (i, found) in regex.captures_iter(&text[from..]).enumerate() {
        let Some(whole) = found.get(0) else { continue };
        if nth == 0 || i + 1 == nth {
            out.push_str(&text[at..from + whole.start()]);
            expand(replacement, &found, &mut out);
            at = from + whole.end();
            if nth != 0 {
                break;
            }
        }
    }
    out.push_str(&text[at..]);
    out
}

fn positive(value: &Datum<'_>, name: &str) -> Result<usize> {
    match usize::try_from(value.int()) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(invalid(format!("invalid value for parameter \"{name}\": {}", value.int()))),
    }
}

fn regexp_replace(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let (mut start, mut nth, mut option) = (1, None, "");
    match a.get(3) {
        Some(f @ Datum::Bytes(_)) => {
            option = f.str();
            if option.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(invalid(format!("invalid regular expression option: \"{}\"", &option[..1]))
                    .hint("If you meant to use regexp_replace() with a start parameter, cast the fourth argument to integer explicitly."));
            }
        }
        Some(s) => {
            start = positive(s, "start")?;
            nth = a.get(4).map(|n| n.int().max(0) as usize);
            option = a.get(5).map_or("", Datum::str);
        }
        None => {}
    }
    let flags = flags(option)?;
    let regex = cached(call, a[1].str(), flags)?;
    let nth = nth.unwrap_or(if flags.global { 0 } else { 1 });
    t(replace_matches(&regex, a[0].str(), a[2].str(), start, nth))
}

/// The matches from a 1-based character on, with their offsets in the whole text.
fn from_start(text: &str, start: usize) -> usize {
    text.char_indices().nth(start - 1).map_or(text.len(), |(i, _)| i)
}

fn regexp_count(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let start = a.get(2).map_or(Ok(1), |s| positive(s, "start"))?;
    let regex = cached(call, a[1].str(), flags(a.get(3).map_or("", Datum::str))?)?;
    let text = a[0].str();
    int4(regex.find_iter(&text[from_start(text, start)..]).count())
}

fn regexp_instr(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let start = a.get(2).map_or(Ok(1), |s| positive(s, "start"))?;
    let nth = a.get(3).map_or(Ok(1), |s| positive(s, "n"))?;
    let end = a.get(4).is_some_and(|e| e.int() == 1);
    let group = a.get(6).map_or(0, |s| s.int().max(0) as usize);
    let regex = cached(call, a[1].str(), flags(a.get(5).map_or("", Datum::str))?)?;
    let text = a[0].str();
    let from = from_start(text, start);
    let found = regex.captures_iter(&text[from..]).nth(nth - 1).and_then(|c| c.get(group).map(|m| (m.start(), m.end())));
    int4(found.map_or(0, |(s, e)| text[..from + if end { e } else { s }].chars().count() + 1))
}

fn regexp_substr(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let start = a.get(2).map_or(Ok(1), |s| positive(s, "start"))?;
    let nth = a.get(3).map_or(Ok(1), |s| positive(s, "n"))?;
    let group = a.get(5).map_or(0, |s| s.int().max(0) as usize);
    let regex = cached(call, a[1].str(), flags(a.get(4).map_or("", Datum::str))?)?;
    let text = a[0].str();
    let found =
        regex.captures_iter(&text[from_start(text, start)..]).nth(nth - 1).and_then(|c| c.get(group).map(|m| m.as_str().to_owned()));
    Ok(found.map_or(Value::Null, text_value))
}

/// SQL's `SIMILAR TO` pattern as a regular expression.
fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            if let Some(next) = chars.next() {
                out.push('\\');
                out.push(next);
            }
            continue;
        }
        match c {
            '[' => {
                in_class = true;
                out.push(c);
            }
            ']' => {
                in_class = false;
                out.push(c);
            }
            _ if in_class => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    out
}

fn similar(a: &[Datum<'_>]) -> Result<Value> {
    if a[0].is_null() {
        return Ok(Value::Null);
    }
    let escape = match a.get(1) {
        Some(Datum::Null) => return Ok(Value::Null),
        Some(e) => e.str().chars().next(),
        None => Some('\\'),
    };
    t(similar_pattern(a[0].str(), escape))
}

fn textregexsubstr(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let regex = cached(call, a[1].str(), Flags::default())?;
    let Some(found) = regex.captures(a[0].str()) else { return Ok(Value::Null) };
    let part = if found.len() > 1 { found.get(1) } else { found.get(0) };
    Ok(part.map_or(Value::Null, |m| text_value(m.as_str())))
}

// Encodings.

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut column = 0;
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() { out.push(char::from(BASE64[(word >> (18 - 6 * i) & 63) as usize])) } else { out.push('=') }
        }
        column += 4;
        if column == 76 {
            out.push('\n');
            column = 0;
        }
    }
    if column == 0 && out.ends_with('\n') {
        out.pop();
    }
    out
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let bad = |c: char| invalid(format!("invalid symbol \"{c}\" found while decoding base64 sequence"));
    let mut out = Vec::new();
    let (mut word, mut count, mut end) = (0u32, 0, 0);
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        let value = match c {
            '=' => {
                end += 1;
                0
            }
            c if end > 0 => return Err(bad(c)),
            c => BASE64.iter().position(|b| char::from(*b) == c).ok_or_else(|| bad(c))? as u32,
        };
        word = word << 6 | value;
        count += 1;
        if count == 4 {
            let bytes = word.to_be_bytes();
            out.extend_from_slice(&bytes[1..4 - end.min(2)]);
            (word, count) = (0, 0);
        }
    }
    if count != 0 {
        return Err(invalid("invalid base64 end sequence").hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let mut digits = Vec::new();
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        digits.push(c.to_digit(16).ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))? as u8);
    }
    if digits.len() % 2 != 0 {
        return Err(invalid("invalid hexadecimal data: odd number of digits"));
    }
    Ok(digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for &b in bytes {
        match b {
            b'\\' => out.push_str("\\\\"),
            0 | 0x80.. => out.push_str(&format!("\\{b:03o}")),
            b => out.push(char::from(b)),
        }
    }
    out
}

fn from_escape(text: &str) -> Result<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] != b'\\' {
            out.push(bytes[i]);
            i += 1;
            continue;
        }
        if bytes.get(i + 1) == Some(&b'\\') {
            out.push(b'\\');
            i += 2;
            continue;
        }
        let octal = bytes.get(i + 1..i + 4).filter(|d| matches!(d[0], b'0'..=b'3') && d.iter().all(|b| matches!(b, b'0'..=b'7')));
        let Some(d) = octal else {
            return Err(SqlError::new(ErrorCode::InvalidTextRepresentation, "invalid input syntax for type bytea"));
        };
        out.push((d[0] - b'0') << 6 | (d[1] - b'0') << 3 | (d[2] - b'0'));
        i += 4;
    }
    Ok(out)
}

fn encoding_name(text: &str) -> Result<()> {
    match text.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
        "utf8" | "unicode" => Ok(()),
        _ => Err(SqlError::unsupported(format!("encoding \"{text}\""))),
    }
}

fn translate_chars(a: &[Datum<'_>]) -> String {
    let from: Vec<char> = a[1].str().chars().collect();
    let to: Vec<char> = a[2].str().chars().collect();
    a[0].str()
        .chars()
        .filter_map(|c| match from.iter().position(|f| *f == c) {
            Some(i) => to.get(i).copied(),
            None => Some(c),
        })
        .collect()
}

fn split_part(a: &[Datum<'_>]) -> Result<Value> {
    let (text, separator, n) = (a[0].str(), a[1].str(), a[2].int());
    if n == 0 {
        return Err(invalid("field position must not be zero"));
    }
    let parts: Vec<&str> = if text.is_empty() {
        Vec::new()
    } else if separator.is_empty() {
        vec![text]
    } else {
        text.split(separator).collect()
    };
    let at = if n < 0 { n + parts.len() as i64 } else { n - 1 };
    t(usize::try_from(at).ok().and_then(|i| parts.get(i)).copied().unwrap_or(""))
}

fn position(text: &str, part: &str) -> Result<Value> {
    int4(text.find(part).map_or(0, |i| text[..i].chars().count() + 1))
}

fn edge(a: &[Datum<'_>], left: bool) -> Result<Value> {
    let text = a[0].str();
    let count = text.chars().count() as i64;
    let n = a[1].int();
    // A negative number leaves out so many characters of the other end.
    let keep = if n < 0 { (count + n).max(0) } else { n.min(count) };
    t(if left { substring(text, 1, Some(keep))? } else { substring(text, count - keep + 1, None)? })
}

fn overlay(a: &[Datum<'_>]) -> Result<Value> {
    let (text, new, start) = (a[0].str(), a[1].str(), a[2].int());
    if start <= 0 {
        return Err(SqlError::new(ErrorCode::SubstringError, "negative substring length not allowed"));
    }
    let length = a.get(3).map_or(new.chars().count() as i64, Datum::int);
    let head = substring(text, 1, Some(start - 1))?;
    let tail = substring(text, start.saturating_add(length), None)?;
    t(format!("{head}{new}{tail}"))
}

fn concat_bytes(a: &[Datum<'_>]) -> Result<Value> {
    let mut out = a[0].bytes().to_vec();
    out.extend_from_slice(a[1].bytes());
    Ok(Value::bytes(out))
}

/// Text with `\\XXXX`, `\\+XXXXXX`, `\\uXXXX` and `\\UXXXXXXXX` as the characters that they number.
fn unistr(text: &str) -> Result<String> {
    let invalid = |message: &str| SqlError::new(ErrorCode::SyntaxError, message);
    let mut out = String::new();
    let mut high = None;
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        if high.is_some() && at > 0 {
            return Err(invalid("invalid Unicode surrogate pair"));
        }
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        if let Some(after) = escape.strip_prefix('\\') {
            out.push('\\');
            rest = after;
            continue;
        }
        let (skip, digits) = match escape.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let code = escape
            .get(skip..skip + digits)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .ok_or_else(|| invalid("invalid Unicode escape").hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX."))?;
        rest = &escape[skip + digits..];
        let code = match (high.take(), code) {
            (None, 0xd800..=0xdbff) => {
                high = Some(code);
                continue;
            }
            (Some(high), 0xdc00..=0xdfff) => 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00),
            (Some(_), _) | (None, 0xdc00..=0xdfff) => return Err(invalid("invalid Unicode surrogate pair")),
            (None, code) => code,
        };
        out.push(
            char::from_u32(code)
                .filter(|c| *c != '\0')
                .ok_or_else(|| SqlError::new(ErrorCode::InvalidParameterValue, format!("invalid Unicode code point: {code:04X}")))?,
        );
    }
    if high.is_some() {
        return Err(invalid("invalid Unicode surrogate pair"));
    }
    out.push_str(rest);
    Ok(out)
}

/// Decimal digits that a float surely holds (FLT_DIG, DBL_DIG).
const FLOAT4_DIGITS: usize = 6;
const FLOAT8_DIGITS: usize = 15;

/// The error of bytes that begin with no character; it shows as many of them as the first one announces.
pub fn invalid_utf8(bytes: &[u8]) -> SqlError {
    let announced = match bytes.first().copied().unwrap_or(0) {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    let shown: Vec<String> = bytes.iter().take(announced).map(|b| format!("0x{b:02x}")).collect();
    SqlError::new(ErrorCode::CharacterNotInRepertoire, format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")))
}

pub const FUNCTIONS: &[Entry] = &[
    ("lower", |_, a| t(a[0].str().chars().map(lower_char).collect::<String>())),
    ("upper", |_, a| t(a[0].str().chars().map(upper_char).collect::<String>())),
    ("initcap", |_, a| t(initcap(a[0].str()))),
    ("textlen", |_, a| int4(a[0].str().chars().count())),
    ("bpcharlen", |_, a| int4(a[0].str().trim_end_matches(' ').chars().count())),
    ("textoctetlen", |_, a| int4(a[0].bytes().len())),
    ("bpcharoctetlen", |_, a| int4(a[0].bytes().len())),
    ("byteaoctetlen", |_, a| int4(a[0].bytes().len())),
    ("bit_length", |_, a| int4(a[0].bytes().len() * 8)),
    ("text_substr", |_, a| t(substring(a[0].str(), a[1].int(), Some(a[2].int()))?)),
    ("text_substr_no_len", |_, a| t(substring(a[0].str(), a[1].int(), None)?)),
    ("bytea_substr", |_, a| Ok(Value::bytes(byte_slice(a[0].bytes(), a[1].int(), Some(a[2].int()))?))),
    ("bytea_substr_no_len", |_, a| Ok(Value::bytes(byte_slice(a[0].bytes(), a[1].int(), None)?))),
    ("textoverlay", |_, a| overlay(a)),
    ("textoverlay_no_len", |_, a| overlay(a)),
    ("text_left", |_, a| edge(a, true)),
    ("text_right", |_, a| edge(a, false)),
    ("textpos", |_, a| position(a[0].str(), a[1].str())),
    ("byteapos", |_, a| {
        let (text, part) = (a[0].bytes(), a[1].bytes());
        int4(if part.is_empty() { 1 } else { text.windows(part.len()).position(|w| w == part).map_or(0, |i| i + 1) })
    }),
    ("lpad", |_, a| pad(a, true)),
    ("rpad", |_, a| pad(a, false)),
    ("btrim", |_, a| trim(a, true, true)),
    ("btrim1", |_, a| trim(a, true, true)),
    ("ltrim", |_, a| trim(a, true, false)),
    ("ltrim1", |_, a| trim(a, true, false)),
    ("rtrim", |_, a| trim(a, false, true)),
    ("replace_text", |_, a| {
        if a[1].str().is_empty() {
            return t(a[0].str());
        }
        t(a[0].str().replace(a[1].str(), a[2].str()))
    }),
    ("split_part", |_, a| split_part(a)),
    ("repeat", |_, a| {
        let n = usize::try_from(a[1].int()).unwrap_or(0);
        if a[0].bytes().len().saturating_mul(n) > TEXT_BYTES_MAX {
            return Err(too_long());
        }
        t(a[0].str().repeat(n))
    }),
    ("text_reverse", |_, a| t(a[0].str().chars().rev().collect::<String>())),
    ("text_starts_with", |_, a| Ok(Value::Bool(a[0].str().starts_with(a[1].str())))),
    ("translate", |_, a| t(translate_chars(a))),
    ("ascii", |_, a| Ok(Value::Int4(a[0].str().chars().next().map_or(0, |c| c as i32)))),
    ("chr", |_, a| match u32::try_from(a[0].int()) {
        Ok(0) => Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "null character not permitted")),
        Ok(code) => match char::from_u32(code) {
            Some(c) => t(c.to_string()),
            None => {
                let fault = if code > u32::from(char::MAX) { "too large" } else { "not valid" };
                Err(SqlError::new(ErrorCode::ProgramLimitExceeded, format!("requested character {fault} for encoding: {code}")))
            }
        },
        Err(_) => Err(SqlError::new(ErrorCode::InvalidParameterValue, "character number must be positive")),
    }),
    ("textcat", |_, a| concat_bytes(a)),
    ("byteacat", |_, a| concat_bytes(a)),
    // text || anynonarray and the other way round: SQL functions, which cast.
    ("textanycat", |c, a| t(a[0].str().to_owned() + &cast_to_text(c, 1, &a[1])?)),
    ("anytextcat", |c, a| t(cast_to_text(c, 0, &a[0])? + a[1].str())),
    ("text_concat", |c, a| t(variadic_texts(c, a, 0)?.into_iter().flatten().collect::<String>())),
    ("text_concat_ws", |c, a| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let parts: Vec<String> = variadic_texts(c, a, 1)?.into_iter().flatten().collect();
        t(parts.join(a[0].str()))
    }),
    ("text_format", format),
    ("text_format_nv", format),
    ("quote_ident", |_, a| t(quote_identifier(a[0].str()))),
    (
        "quote_literal",
        |c, a| {
            if c.args[0].kind == Kind::Text { t(quote_literal(a[0].str())) } else { t(quote_literal(&c.text_of(0, &a[0])?)) }
        },
    ),
    ("quote_nullable", |c, a| if a[0].is_null() { t("NULL") } else { t(quote_literal(&c.text_of(0, &a[0])?)) }),
    ("parse_ident", |_, a| {
        let parts = crate::system::identifier::parse_qualified(a[0].str())
            .ok_or_else(|| invalid(format!("string is not a valid identifier: \"{}\"", a[0].str())))?;
        t(arrays::format(&arrays::Array::flat(parts.into_iter().map(Some).collect())))
    }),
    // Patterns.
    ("textlike", |_, a| like_of(a, false, false)),
    ("textnlike", |_, a| like_of(a, false, true)),
    ("namelike", |_, a| like_of(a, false, false)),
    ("namenlike", |_, a| like_of(a, false, true)),
    ("bytealike", |_, a| Ok(Value::Bool(like_bytes(a[0].bytes(), a[1].bytes())?))),
    ("byteanlike", |_, a| Ok(Value::Bool(!like_bytes(a[0].bytes(), a[1].bytes())?))),
    ("texticlike", |_, a| like_of(a, true, false)),
    ("texticnlike", |_, a| like_of(a, true, true)),
    ("nameiclike", |_, a| like_of(a, true, false)),
    ("nameicnlike", |_, a| like_of(a, true, true)),
    ("like_escape", |_, a| like_escape(a)),
    ("textregexeq", |c, a| matches(c, a, false, false)),
    ("textregexne", |c, a| matches(c, a, false, true)),
    ("texticregexeq", |c, a| matches(c, a, true, false)),
    ("texticregexne", |c, a| matches(c, a, true, true)),
    ("nameregexeq", |c, a| matches(c, a, false, false)),
    ("nameregexne", |c, a| matches(c, a, false, true)),
    ("nameicregexeq", |c, a| matches(c, a, true, false)),
    ("nameicregexne", |c, a| matches(c, a, true, true)),
    ("similar_escape", |_, a| similar(a)),
    ("similar_to_escape_1", |_, a| similar(a)),
    ("similar_to_escape_2", |_, a| similar(a)),
    ("textregexsubstr", textregexsubstr),
    // substring(text similar pattern escape e): the part between the escape's double quotes.
    ("substring", |c, a| {
        let escape = a[2].str().chars().next();
        let separator = format!("{}\"", escape.unwrap_or('\\'));
        let parts: Vec<&str> = a[1].str().split(separator.as_str()).collect();
        let body = |p: &str| similar_pattern(p, escape).trim_start_matches('^').trim_end_matches('$').to_owned();
        let pattern = match parts.as_slice() {
            [all] => format!("^({})$", body(all)),
            [before, wanted, after] => format!("^{}({}){}$", body(before), body(wanted), body(after)),
            _ => {
                return Err(SqlError::new(
                    ErrorCode::InvalidRegularExpression,
                    "SQL regular expression may not contain more than two escape-double-quote separators",
                ));
            }
        };
        let regex = cached(c, &pattern, Flags::default())?;
        Ok(regex.captures(a[0].str()).and_then(|f| f.get(1)).map_or(Value::Null, |m| text_value(m.as_str())))
    }),
    ("textregexreplace_noopt", regexp_replace),
    ("textregexreplace", regexp_replace),
    ("textregexreplace_extended", regexp_replace),
    ("textregexreplace_extended_no_n", regexp_replace),
    ("textregexreplace_extended_no_flags", regexp_replace),
    ("regexp_match", |c, a| Ok(regexp_matches(c, a)?.into_iter().next().unwrap_or_default())),
    ("regexp_match_no_flags", |c, a| Ok(regexp_matches(c, a)?.into_iter().next().unwrap_or_default())),
    ("regexp_split_to_array", |c, a| t(arrays::format(&arrays::Array::flat(regexp_split(c, a)?.into_iter().map(Some).collect())))),
    ("regexp_split_to_array_no_flags", |c, a| t(arrays::format(&arrays::Array::flat(regexp_split(c, a)?.into_iter().map(Some).collect())))),
    ("regexp_like", |c, a| Ok(Value::Bool(cached(c, a[1].str(), flags(a.get(2).map_or("", Datum::str))?)?.is_match(a[0].str())))),
    ("regexp_like_no_flags", |c, a| Ok(Value::Bool(cached(c, a[1].str(), Flags::default())?.is_match(a[0].str())))),
    ("regexp_count", regexp_count),
    ("regexp_count_no_start", regexp_count),
    ("regexp_count_no_flags", regexp_count),
    ("regexp_instr", regexp_instr),
    ("regexp_instr_no_start", regexp_instr),
    ("regexp_instr_no_n", regexp_instr),
    ("regexp_instr_no_endoption", regexp_instr),
    ("regexp_instr_no_flags", regexp_instr),
    ("regexp_instr_no_subexpr", regexp_instr),
    ("regexp_substr", regexp_substr),
    ("regexp_substr_no_start", regexp_substr),
    ("regexp_substr_no_n", regexp_substr),
    ("regexp_substr_no_flags", regexp_substr),
    ("regexp_substr_no_subexpr", regexp_substr),
    // Digests and encodings.
    ("md5_text", |_, a| t(hex(&digest::md5(a[0].bytes())))),
    ("md5_bytea", |_, a| t(hex(&digest::md5(a[0].bytes())))),
    ("sha224_bytea", |_, a| Ok(Value::bytes(digest::sha224(a[0].bytes())))),
    ("sha256_bytea", |_, a| Ok(Value::bytes(digest::sha256(a[0].bytes())))),
    ("sha384_bytea", |_, a| Ok(Value::bytes(digest::sha384(a[0].bytes())))),
    ("sha512_bytea", |_, a| Ok(Value::bytes(digest::sha512(a[0].bytes())))),
    ("binary_encode", |_, a| match a[1].str().to_ascii_lowercase().as_str() {
        "hex" => t(hex(a[0].bytes())),
        "base64" => t(base64(a[0].bytes())),
        "escape" => t(escape(a[0].bytes())),
        _ => Err(invalid(format!("unrecognized encoding: \"{}\"", a[1].str()))),
    }),
    ("binary_decode", |_, a| match a[1].str().to_ascii_lowercase().as_str() {
        "hex" => Ok(Value::bytes(from_hex(a[0].str())?)),
        "base64" => Ok(Value::bytes(from_base64(a[0].str())?)),
        "escape" => Ok(Value::bytes(from_escape(a[0].str())?)),
        _ => Err(invalid(format!("unrecognized encoding: \"{}\"", a[1].str()))),
    }),
    ("pg_convert_to", |_, a| {
        encoding_name(a[1].str())?;
        Ok(Value::bytes(a[0].bytes()))
    }),
    ("pg_convert_from", |_, a| {
        encoding_name(a[1].str())?;
        match std::str::from_utf8(a[0].bytes()) {
            Ok(text) => t(text),
            Err(e) => Err(invalid_utf8(&a[0].bytes()[e.valid_up_to()..])),
        }
    }),
    ("byteaGetByte", |_, a| match usize::try_from(a[1].int()).ok().and_then(|i| a[0].bytes().get(i)) {
        Some(b) => Ok(Value::Int4(i32::from(*b))),
        None => Err(SqlError::new(
            ErrorCode::ArraySubscriptError,
            format!("index {} out of valid range, 0..{}", a[1].int(), a[0].bytes().len() as i64 - 1),
        )),
    }),
    // Templates.
    ("int4_to_char", |_, a| t(number_template::to_char(Number::Int(a[0].int()), a[1].str())?)),
    ("int8_to_char", |_, a| t(number_template::to_char(Number::Int(a[0].int()), a[1].str())?)),
    ("numeric_to_char", |_, a| t(number_template::to_char(Number::Numeric(&Numeric::decode(a[0].bytes())?), a[1].str())?)),
    ("float4_to_char", |_, a| t(number_template::to_char(Number::Float(a[0].float(), FLOAT4_DIGITS), a[1].str())?)),
    ("float8_to_char", |_, a| t(number_template::to_char(Number::Float(a[0].float(), FLOAT8_DIGITS), a[1].str())?)),
    ("numeric_to_number", |_, a| {
        Ok(number_template::to_number(a[0].str(), a[1].str())?.map_or(Value::Null, |number| Value::Bytes(number.encode())))
    }),
    // Enums.
    ("enum_first", |c, _| enum_edge(c, true)),
    ("enum_last", |c, _| enum_edge(c, false)),
    ("enum_range_all", |c, _| {
        let labels = super::compare::enum_labels(&c.context, c.args[0].oid).unwrap_or(&[]);
        t(arrays::format(&arrays::Array::flat(labels.iter().cloned().map(Some).collect())))
    }),
    // unaccented helpers of text: name and "char" lengths.
    ("namelen", |_, a| int4(a[0].str().chars().count())),
    ("unistr", |_, a| t(unistr(a[0].str())?)),
];

fn enum_edge(call: &Call, first: bool) -> Result<Value> {
    let labels = super::compare::enum_labels(&call.context, call.args[0].oid).unwrap_or(&[]);
    Ok(if first { labels.first() } else { labels.last() }.map_or(Value::Null, text_value))
}
