//! `json` and `jsonb`: a strict reader, PostgreSQL's layout, order and comparison.
//!
//! `json` is kept as its exact text. `jsonb` is kept as the text that PostgreSQL prints: keys ordered by length and then
//! by bytes, the last of equal keys, one space after colons and commas, numbers as `numeric` prints them.

use std::cmp::Ordering;

use crate::error::{Error, Result, ValueErrorCode};
use crate::value::Numeric;

/// The deepest nesting that is read; PostgreSQL's own limit is its stack.
const DEPTH_MAX: usize = 2000;

/// A value of jsonb.
#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Numeric),
    String(String),
    Array(Vec<Json>),
    /// In jsonb's key order, without duplicates.
    Object(Vec<(String, Json)>),
}

/// Checks that a text is valid JSON.
/// # Errors
/// `Value` (22P02).
pub fn validate(text: &str) -> Result<()> {
    let mut reader = Reader::new(text, false)?;
    reader.value(0)?;
    reader.end()
}

/// The text that jsonb prints for a JSON text.
/// # Errors
/// `Value` (22P02, 22P05), `OutOfRange`.
pub fn normalize(text: &str) -> Result<String> {
    Ok(Json::parse(text)?.to_string())
}

impl Json {
    /// Reads a JSON text as jsonb does.
    /// # Errors
    /// `Value` (22P02, 22P05), `OutOfRange`.
    pub fn parse(text: &str) -> Result<Json> {
        let mut reader = Reader::new(text, true)?;
        let value = reader.value(0)?;
        reader.end()?;
        Ok(value)
    }

    /// What `jsonb_typeof` says.
    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// An object from its members: ordered, the last of equal keys kept.
    pub fn object(mut members: Vec<(String, Json)>) -> Json {
        // A stable sort keeps equal keys in their order.
        members.sort_by(|a, b| key_order(&a.0, &b.0));
        let mut kept: Vec<(String, Json)> = Vec::with_capacity(members.len());
        for member in members {
            match kept.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => kept.push(member),
            }
        }
        Json::Object(kept)
    }

    /// `-> 'key'`
    pub fn field(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.binary_search_by(|m| key_order(&m.0, key)).ok().map(|i| &members[i].1),
            _ => None,
        }
    }

    /// `-> n`; a negative index counts from the end.
    pub fn element(&self, index: i64) -> Option<&Json> {
        match self {
            Json::Array(elements) => {
                let index = if index < 0 { index.checked_add(elements.len() as i64)? } else { index };
                elements.get(usize::try_from(index).ok()?)
            }
            _ => None,
        }
    }

    /// `#> path`: in arrays a step is an integer.
    pub fn path<'a>(&'a self, path: impl IntoIterator<Item = &'a str>) -> Option<&'a Json> {
        path.into_iter().try_fold(self, |value, step| match value {
            Json::Array(_) => value.element(step.parse().ok()?),
            _ => value.field(step),
        })
    }

    /// `->>`: a string's own text, NULL for null, else the JSON text.
    pub fn to_sql_text(&self) -> Option<String> {
        match self {
            Json::Null => None,
            Json::String(s) => Some(s.clone()),
            other => Some(other.to_string()),
        }
    }

    /// `@>`
    pub fn contains(&self, other: &Json) -> bool {
        match (self, other) {
            // An array may contain a bare scalar, at the top only.
            (Json::Array(elements), Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) => elements.iter().any(|e| e == other),
            _ => self.contains_deep(other),
        }
    }

    fn contains_deep(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Object(_), Json::Object(wanted)) => wanted.iter().all(|(k, w)| self.field(k).is_some_and(|v| v.contains_deep(w))),
            (Json::Array(have), Json::Array(wanted)) => wanted.iter().all(|w| have.iter().any(|h| h.contains_deep(w))),
            (Json::Object(_) | Json::Array(_), _) | (_, Json::Object(_) | Json::Array(_)) => false,
            (a, b) => a == b,
        }
    }

    /// Appends the text as jsonb prints it.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Json::Number(n) => out.push_str(&n.to_string()),
            Json::String(s) => write_string(s, out),
            Json::Array(elements) => {
                out.push('[');
                for (i, e) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    e.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (i, (k, v)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    write_string(k, out);
                    out.push_str(": ");
                    v.write(out);
                }
                out.push('}');
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Json::Null => 0,
            Json::String(_) => 1,
            Json::Number(_) => 2,
            Json::Bool(_) => 3,
            Json::Array(_) => 4,
            Json::Object(_) => 5,
        }
    }

    fn compare_deep(&self, other: &Json) -> Ordering {
        match (self, other) {
            (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
            (Json::Number(a), Json::Number(b)) => a.cmp(b),
            (Json::String(a), Json::String(b)) => a.cmp(b),
            (Json::Array(a), Json::Array(b)) => a
                .len()
                .cmp(&b.len())
                .then_with(|| a.iter().zip(b).map(|(x, y)| x.compare_deep(y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)),
            (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
                a.iter()
                    .zip(b)
                    .map(|(x, y)| key_order(&x.0, &y.0).then_with(|| x.1.compare_deep(&y.1)))
                    .find(|o| o.is_ne())
                    .unwrap_or(Ordering::Equal)
            }),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// jsonb's btree order. An empty array sorts before every scalar at the top, a quirk that PostgreSQL keeps.
impl Ord for Json {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Json::Array(a), b) if a.is_empty() && b.rank() < 4 => Ordering::Less,
            (a, Json::Array(b)) if b.is_empty() && a.rank() < 4 => Ordering::Greater,
            _ => self.compare_deep(other),
        }
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.compare_deep(other) == Ordering::Equal
    }
}

impl Eq for Json {}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

/// Appends a JSON string literal as PostgreSQL escapes it.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    String,
    Number,
    Word,
    Punctuation(u8),
    End,
}

/// A recursive-descent reader that looks one token ahead, so that errors name the token that PostgreSQL names.
struct Reader<'a> {
    text: &'a str,
    /// The present token.
    token: Token,
    start: usize,
    end: usize,
    /// The present string token's text, where strings are wanted.
    string: String,
    build: bool,
}

fn syntax_error(detail: impl Into<String>) -> Error {
    Error::value(ValueErrorCode::InvalidTextRepresentation, "invalid input syntax for type json").with_detail(detail)
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, build: bool) -> Result<Self> {
        let mut reader = Reader { text, token: Token::End, start: 0, end: 0, string: String::new(), build };
        reader.advance()?;
        Ok(reader)
    }

    fn advance(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        let mut at = self.end;
        while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        self.start = at;
        self.token = match bytes.get(at) {
            None => Token::End,
            Some(&b @ (b'{' | b'}' | b'[' | b']' | b',' | b':')) => {
                at += 1;
                Token::Punctuation(b)
            }
            Some(b'"') => {
                self.end = at + 1;
                return self.lex_string();
            }
            Some(b'-' | b'0'..=b'9') => {
                self.end = at;
                return self.lex_number();
            }
            Some(_) => {
                while matches!(bytes.get(at), Some(b) if b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80) {
                    at += 1;
                }
                if at == self.start {
                    at += 1;
                    return Err(self.invalid_token(at));
                }
                if !matches!(&self.text[self.start..at], "true" | "false" | "null") {
                    return Err(self.invalid_token(at));
                }
                Token::Word
            }
        };
        self.end = at;
        Ok(())
    }

    fn invalid_token(&self, end: usize) -> Error {
        syntax_error(format!("Token \"{}\" is invalid.", &self.text[self.start..end]))
    }

    fn lex_number(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        let mut at = self.end;
        let digits = |at: &mut usize| {
            let from = *at;
            while matches!(bytes.get(*at), Some(b'0'..=b'9')) {
                *at += 1;
            }
            *at > from
        };
        let mut good = true;
        if bytes[at] == b'-' {
            at += 1;
        }
        match bytes.get(at) {
            Some(b'0') => at += 1,
            Some(b'1'..=b'9') => _ = digits(&mut at),
            _ => good = false,
        }
        if good && bytes.get(at) == Some(&b'.') {
            at += 1;
            good = digits(&mut at);
        }
        if good && matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            good = digits(&mut at);
        }
        let number_end = at;
        while matches!(bytes.get(at), Some(b) if b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80) {
            at += 1;
        }
        if !good || at > number_end {
            return Err(self.invalid_token(at));
        }
        self.end = at;
        self.token = Token::Number;
        Ok(())
    }

    fn lex_string(&mut self) -> Result<()> {
        let bytes = self.text.as_bytes();
        self.string.clear();
        let mut at = self.end;
        let mut plain_from = at;
        let mut high: Option<u32> = None;
        loop {
            let Some(&b) = bytes.get(at) else { return Err(self.invalid_token(at)) };
            if b != b'\\' && high.is_some() {
                return Err(syntax_error("Unicode low surrogate must follow a high surrogate."));
            }
            match b {
                b'"' => break,
                0..0x20 => return Err(syntax_error(format!("Character with value 0x{b:02x} must be escaped."))),
                b'\\' => {
                    if self.build {
                        self.string.push_str(&self.text[plain_from..at]);
                    }
                    at += 1;
                    let Some(&escape) = bytes.get(at) else { return Err(self.invalid_token(at)) };
                    if escape != b'u' && high.is_some() {
                        return Err(syntax_error("Unicode low surrogate must follow a high surrogate."));
                    }
                    match escape {
                        b'u' => {
                            let code = self.hex_code(at + 1)?;
                            at += 4;
                            if self.build {
                                self.push_code(code, &mut high)?;
                            }
                        }
                        b'"' | b'\\' | b'/' => self.string.push(char::from(escape)),
                        b'b' => self.string.push('\u{8}'),
                        b'f' => self.string.push('\u{c}'),
                        b'n' => self.string.push('\n'),
                        b'r' => self.string.push('\r'),
                        b't' => self.string.push('\t'),
                        _ => {
                            let c = self.text[at..].chars().next().unwrap_or('?');
                            return Err(syntax_error(format!("Escape sequence \"\\{c}\" is invalid.")));
                        }
                    }
                    at += 1;
                    plain_from = at;
                }
                _ => at += 1,
            }
        }
        if self.build {
            self.string.push_str(&self.text[plain_from..at]);
        }
        self.end = at + 1;
        self.token = Token::String;
        Ok(())
    }

    fn hex_code(&self, at: usize) -> Result<u32> {
        let digits = self.text.as_bytes().get(at..at + 4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        digits
            .and_then(|d| u32::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok())
            .ok_or_else(|| syntax_error("\"\\u\" must be followed by four hexadecimal digits."))
    }

    fn push_code(&mut self, code: u32, high: &mut Option<u32>) -> Result<()> {
        match (code, high.take()) {
            (0xD800..=0xDBFF, Some(_)) => return Err(syntax_error("Unicode high surrogate must not follow a high surrogate.")),
            (0xD800..=0xDBFF, None) => *high = Some(code),
            (0xDC00..=0xDFFF, Some(h)) => {
                self.string.extend(char::from_u32(0x10000 + ((h - 0xD800) << 10) + (code - 0xDC00)));
            }
            (0xDC00..=0xDFFF, None) | (_, Some(_)) => return Err(syntax_error("Unicode low surrogate must follow a high surrogate.")),
            (0, None) => {
                return Err(Error::value(ValueErrorCode::UntranslatableCharacter, "unsupported Unicode escape sequence")
                    .with_detail("\\u0000 cannot be converted to text."));
            }
            (_, None) => self.string.extend(char::from_u32(code)),
        }
        Ok(())
    }

    fn expected(&self, what: &str) -> Error {
        if self.token == Token::End {
            return syntax_error("The input string ended unexpectedly.");
        }
        syntax_error(format!("Expected {what}, but found \"{}\".", &self.text[self.start..self.end]))
    }

    fn end(&self) -> Result<()> {
        if self.token == Token::End { Ok(()) } else { Err(self.expected("end of input")) }
    }

    fn value(&mut self, depth: usize) -> Result<Json> {
        if depth > DEPTH_MAX {
            return Err(Error::value(ValueErrorCode::ProgramLimitExceeded, "stack depth limit exceeded"));
        }
        let value = match self.token {
            Token::String => Json::String(std::mem::take(&mut self.string)),
            Token::Number if self.build => Json::Number(Numeric::parse(&self.text[self.start..self.end])?),
            Token::Number => Json::Null,
            Token::Word => match &self.text[self.start..self.end] {
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                _ => Json::Null,
            },
            Token::Punctuation(b'[') => return self.array(depth),
            Token::Punctuation(b'{') => return self.object(depth),
            _ => return Err(self.expected("JSON value")),
        };
        self.advance()?;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Json> {
        let mut elements = Vec::new();
        self.advance()?;
        if self.token != Token::Punctuation(b']') {
            loop {
                let element = self.value(depth + 1)?;
                if self.build {
                    elements.push(element);
                }
                match self.token {
                    Token::Punctuation(b',') => self.advance()?,
                    Token::Punctuation(b']') => break,
                    _ => return Err(self.expected("\",\" or \"]\"")),
                }
            }
        }
        self.advance()?;
        Ok(Json::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Result<Json> {
        let mut members = Vec::new();
        self.advance()?;
        if self.token != Token::Punctuation(b'}') {
            if self.token != Token::String {
                return Err(self.expected("string or \"}\""));
            }
            loop {
                if self.token != Token::String {
                    return Err(self.expected("string"));
                }
                let key = std::mem::take(&mut self.string);
                self.advance()?;
                if self.token != Token::Punctuation(b':') {
                    return Err(self.expected("\":\""));
                }
                self.advance()?;
                let value = self.value(depth + 1)?;
                if self.build {
                    members.push((key, value));
                }
                match self.token {
                    Token::Punctuation(b',') => self.advance()?,
                    Token::Punctuation(b'}') => break,
                    _ => return Err(self.expected("\",\" or \"}\"")),
                }
            }
        }
        self.advance()?;
        Ok(Json::object(members))
    }
}
