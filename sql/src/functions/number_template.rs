//! `to_char` of numbers and `to_number`: PostgreSQL's `NUM_processor` (formatting.c), step by step, because its answers for odd templates
//! follow from its steps and from nothing else. The locale is C.

use strandline_storage::value::numeric::Numeric;

use crate::error::{ErrorCode, Result, SqlError};

/// What is written by template.
#[derive(Clone, Copy)]
pub enum Number<'a> {
    Int(i64),
    /// With the digits that its type holds for sure: 15, or 6 of a real.
    Float(f64, usize),
    Numeric(&'a Numeric),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Nine,
    Zero,
    Point,
    Blank,
    Comma,
    Group,
    Currency,
    Exponent,
    Fill,
    Minus,
    Plus,
    Bracket,
    Roman {
        upper: bool,
    },
    EitherSign,
    Sign,
    Ordinal {
        upper: bool,
    },
    Shift,
    /// Read and ignored: `C`, `SP`.
    Nothing,
}

enum Node {
    Pattern(Key),
    Char(char),
}

/// Longer ones before those they begin with.
const KEYS: &[(&str, Key)] = &[
    ("EEEE", Key::Exponent),
    ("FM", Key::Fill),
    ("MI", Key::Minus),
    ("PL", Key::Plus),
    ("PR", Key::Bracket),
    ("RN", Key::Roman { upper: true }),
    ("SG", Key::EitherSign),
    ("SP", Key::Nothing),
    ("TH", Key::Ordinal { upper: true }),
    (",", Key::Comma),
    (".", Key::Point),
    ("0", Key::Zero),
    ("9", Key::Nine),
    ("B", Key::Blank),
    ("C", Key::Nothing),
    ("D", Key::Point),
    ("G", Key::Group),
    ("L", Key::Currency),
    ("S", Key::Sign),
    ("V", Key::Shift),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locale {
    Before,
    Behind,
}

/// What a template says as a whole.
#[derive(Default)]
struct Template {
    nodes: Vec<Node>,
    /// Digits before and behind the point, and those that `V` shifts by.
    pre: usize,
    post: usize,
    multi: usize,
    fill: bool,
    decimal: bool,
    zero: bool,
    zero_start: usize,
    zero_end: usize,
    blank: bool,
    bracket: bool,
    plus: bool,
    minus: bool,
    roman: bool,
    shift: bool,
    exponent: bool,
    sign: Option<Locale>,
    digits_before_sign: usize,
}

fn bad(message: &str) -> SqlError {
    SqlError::new(ErrorCode::SyntaxError, message)
}

impl Template {
    fn parse(format: &str) -> Result<Template> {
        let mut template = Template::default();
        let mut rest = format;
        while let Some(first) = rest.chars().next() {
            let key = KEYS.iter().find_map(|(text, key)| {
                if rest.starts_with(text) {
                    return Some((text.len(), *key));
                }
                let lower = text.to_lowercase();
                let key = match key {
                    Key::Roman { .. } => Key::Roman { upper: false },
                    Key::Ordinal { .. } => Key::Ordinal { upper: false },
                    key => *key,
                };
                rest.starts_with(&lower).then_some((text.len(), key))
            });
            if let Some((length, key)) = key {
                template.add(key)?;
                template.nodes.push(Node::Pattern(key));
                rest = &rest[length..];
                continue;
            }
            if first == '"' {
                let mut chars = rest[1..].chars();
                while let Some(c) = chars.next() {
                    let c = match c {
                        '"' => break,
                        '\\' => chars.next().unwrap_or(c),
                        c => c,
                    };
                    template.nodes.push(Node::Char(c));
                }
                rest = chars.as_str();
                continue;
            }
            // Outside of quotes a backslash means something before a quote only.
            rest = rest.strip_prefix('\\').filter(|r| r.starts_with('"')).unwrap_or(rest);
            let mut chars = rest.chars();
            template.nodes.extend(chars.next().map(Node::Char));
            rest = chars.as_str();
        }
        // As an offset from here on.
        template.zero_start = template.zero_start.saturating_sub(1);
        Ok(template)
    }

    fn add(&mut self, key: Key) -> Result<()> {
        if self.exponent && key != Key::Exponent {
            return Err(bad("\"EEEE\" must be the last pattern used"));
        }
        let signed = self.sign.is_some();
        match key {
            Key::Nine if self.bracket => return Err(bad("\"9\" must be ahead of \"PR\"")),
            Key::Zero if self.bracket => return Err(bad("\"0\" must be ahead of \"PR\"")),
            Key::Nine if self.shift => self.multi += 1,
            Key::Nine if self.decimal => self.post += 1,
            Key::Nine => self.pre += 1,
            Key::Zero => {
                if !self.zero && !self.decimal {
                    self.zero = true;
                    self.zero_start = self.pre + 1;
                }
                if self.decimal {
                    self.post += 1
                } else {
                    self.pre += 1
                }
                self.zero_end = self.pre + self.post;
            }
            Key::Blank => self.blank |= self.pre == 0 && self.post == 0 && !self.zero,
            Key::Point if self.decimal => return Err(bad("multiple decimal points")),
            Key::Point if self.shift => return Err(bad("cannot use \"V\" and decimal point together")),
            Key::Shift if self.decimal => {
                return Err(bad("cannot use \"V\" and decimal point together"));
            }
            Key::Point => self.decimal = true,
            Key::Shift => self.shift = true,
            Key::Fill => self.fill = true,
            Key::Sign if signed => return Err(bad("cannot use \"S\" twice")),
            Key::Sign if self.plus || self.minus || self.bracket => {
                return Err(bad("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together"));
            }
            Key::Sign if self.decimal => self.sign = Some(Locale::Behind),
            Key::Sign => {
                self.sign = Some(Locale::Before);
                self.digits_before_sign = self.pre;
            }
            Key::Minus if signed => return Err(bad("cannot use \"S\" and \"MI\" together")),
            Key::Plus if signed => return Err(bad("cannot use \"S\" and \"PL\" together")),
            Key::EitherSign if signed => return Err(bad("cannot use \"S\" and \"SG\" together")),
            Key::Minus => self.minus = true,
            Key::Plus => self.plus = true,
            Key::EitherSign => {
                self.minus = true;
                self.plus = true;
            }
            Key::Bracket if signed || self.plus || self.minus => {
                return Err(bad("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together"));
            }
            Key::Bracket => self.bracket = true,
            Key::Roman { .. } => self.roman = true,
            Key::Exponent if self.exponent => return Err(bad("cannot use \"EEEE\" twice")),
            Key::Exponent => {
                if self.blank || self.fill || signed || self.bracket || self.minus || self.plus || self.roman || self.shift {
                    return Err(bad("\"EEEE\" is incompatible with other formats")
                        .detail("\"EEEE\" may only be used together with digit and decimal point patterns."));
                }
                self.exponent = true;
            }
            Key::Comma | Key::Group | Key::Currency | Key::Ordinal { .. } | Key::Nothing => {}
        }
        Ok(())
    }
}

/// A number by template.
///
/// # Errors
/// `SyntaxError` for a template that contradicts itself.
pub fn to_char(value: Number<'_>, format: &str) -> Result<String> {
    let mut template = Template::parse(format)?;
    if template.nodes.is_empty() {
        return Ok(String::new());
    }
    if template.exponent {
        return Ok(scientific(value, &template));
    }
    if template.roman {
        return Ok(Writer::roman(&template, &roman(value)));
    }
    let text = digits(value, &mut template)?;
    let (negative, mut number) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text),
    };
    let whole = number.find('.').unwrap_or(number.len());
    let mut spaces = 0;
    if whole > template.pre {
        number = format!("{}.{}", "#".repeat(template.pre), "#".repeat(template.post));
    } else {
        spaces = template.pre - whole;
    }
    Writer::new(&mut template, number, spaces, negative).write()
}

/// The number's digits with as many decimals as the template has; a float's decimals end where its type's certainty does.
fn digits(value: Number<'_>, template: &mut Template) -> Result<String> {
    let multi = if template.shift { template.multi } else { 0 };
    template.pre += multi;
    let rounded = |number: Numeric, post: usize| -> Result<String> {
        let scaled = if multi > 0 { number.mul(&Numeric::new(10_i128.pow(multi.min(30) as u32), 0))? } else { number };
        let mut out = Vec::new();
        scaled.round(post as i32).format_to(&mut out);
        Ok(String::from_utf8_lossy(&out).into_owned())
    };
    match value {
        Number::Int(value) => rounded(Numeric::new(i128::from(value), 0), template.post),
        Number::Numeric(value) => rounded(value.clone(), template.post),
        Number::Float(value, _) if value.is_nan() => Ok("NaN".into()),
        Number::Float(value, _) if value.is_infinite() => Ok(if value < 0.0 { "-Infinity".into() } else { "Infinity".into() }),
        Number::Float(value, certain) => {
            let value = value * 10_f64.powi(multi as i32);
            let whole = format!("{:.0}", value.abs()).len();
            if whole >= certain {
                template.post = 0;
            } else if whole + template.post > certain {
                template.post = certain - whole;
            }
            Ok(format!("{value:.*}", template.post))
        }
    }
}

fn scientific(value: Number<'_>, template: &Template) -> String {
    let finite = match value {
        Number::Int(_) => true,
        Number::Float(value, _) => value.is_finite(),
        Number::Numeric(value) => value.is_finite(),
    };
    if !finite {
        return format!(" {}.{}", "#".repeat(template.pre), "#".repeat(template.post + 4));
    }
    let text = match value {
        Number::Int(value) => format!("{:.*e}", template.post, value as f64),
        Number::Float(value, _) => format!("{value:.*e}", template.post),
        Number::Numeric(value) => numeric_scientific(value, template.post),
    };
    let (significand, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let space = if significand.starts_with('-') { "" } else { " " };
    format!("{space}{significand}e{sign}{:02}", exponent.abs())
}

/// The significand is divided out by the exponent of the first digit and then rounded, so that 9.99 may become 10.0.
fn numeric_scientific(value: &Numeric, post: usize) -> String {
    let mut text = Vec::new();
    value.abs().format_to(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let point = text.find('.').unwrap_or(text.len());
    let all: String = text.chars().filter(|c| *c != '.').collect();
    let first = all.find(|c| c != '0');
    let (exponent, significant) = match first {
        Some(at) => (point as i64 - at as i64 - 1, &all[at..]),
        None => (0, "0"),
    };
    let (head, tail) = significant.split_at(1);
    let decimal = format!("{head}.{}", if tail.is_empty() { "0" } else { tail });
    let mut out = Vec::new();
    if let Ok(number) = Numeric::parse(&decimal) {
        number.round(post as i32).format_to(&mut out);
    }
    let sign = if value.signum() < 0 { "-" } else { "" };
    format!("{sign}{}e{exponent}", String::from_utf8_lossy(&out))
}

/// A number from 1 to 3999 in Roman digits.
fn roman(value: Number<'_>) -> String {
    const DIGITS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let whole = match value {
        Number::Int(value) => Some(value),
        Number::Float(value, _) => value.is_finite().then(|| value.round_ties_even() as i64),
        Number::Numeric(value) => value.to_i32().ok().map(i64::from),
    };
    let Some(mut rest) = whole.filter(|n| (1..=3999).contains(n)) else { return "#".repeat(15) };
    let mut out = String::new();
    for (digit, text) in DIGITS {
        while rest >= digit {
            out.push_str(text);
            rest -= digit;
        }
    }
    out
}

/// One number on its way through one template.
struct Writer<'a> {
    template: &'a Template,
    number: Vec<char>,
    /// The next digit.
    at: usize,
    /// The last digit that FM keeps.
    last_relevant: Option<usize>,
    spaces: usize,
    negative: bool,
    bracket: bool,
    sign: Option<Locale>,
    sign_written: bool,
    /// Places to write, and the place that is next.
    count: isize,
    current: usize,
    in_number: bool,
    out: String,
    /// A digit was asked for that the number does not have (NaN): the text ends there.
    cut: bool,
}

impl<'a> Writer<'a> {
    fn new(template: &'a mut Template, number: String, spaces: usize, negative: bool) -> Self {
        let t = &*template;
        let (sign_written, mut sign, mut bracket) =
            (if t.plus || t.minus { !t.plus || t.minus } else { !negative && t.fill && t.sign.is_none() }, t.sign, t.bracket);
        if !(t.plus || t.minus) {
            if !negative && t.fill {
                bracket = false;
            }
            if sign == Some(Locale::Before) && t.pre == t.digits_before_sign {
                sign = Some(Locale::Behind);
            }
        }
        let number: Vec<char> = number.chars().collect();
        let last_relevant = (t.fill && t.decimal)
            .then(|| last_relevant(&number))
            .flatten()
            .map(|last| if t.zero_end > spaces { last.max((number.len() - 1).min(t.zero_end - spaces)) } else { last });
        let mut count = (t.post + t.pre) as isize - 1;
        if !sign_written && spaces == 0 {
            count += 1;
        }
        Writer {
            template,
            number,
            at: 0,
            last_relevant,
            spaces,
            negative,
            bracket,
            sign,
            sign_written,
            count,
            current: 0,
            in_number: false,
            out: String::new(),
            cut: false,
        }
    }

    fn put(&mut self, c: char) {
        if !self.cut {
            self.out.push(c);
        }
    }

    fn sign_char(&self) -> char {
        if self.negative { '-' } else { '+' }
    }

    fn write(mut self) -> Result<String> {
        let fill = self.template.fill;
        for node in &self.template.nodes {
            let key = match node {
                Node::Char(c) => {
                    self.put(*c);
                    continue;
                }
                Node::Pattern(key) => *key,
            };
            match key {
                Key::Nine | Key::Zero | Key::Point => self.place(key),
                Key::Comma | Key::Group if self.in_number => self.put(','),
                Key::Comma | Key::Group if !fill => self.put(' '),
                Key::Currency => self.put(' '),
                Key::Ordinal { upper } if !(self.number.first() == Some(&'#') || self.negative || self.template.decimal) => {
                    let text: String = self.number.iter().collect();
                    if !text.ends_with(|c: char| c.is_ascii_digit()) {
                        return Err(SqlError::new(ErrorCode::InvalidTextRepresentation, format!("\"{text}\" is not a number")));
                    }
                    super::template::ordinal_of(&text, upper).chars().for_each(|c| self.put(c));
                }
                Key::Minus if self.negative => self.put('-'),
                Key::Plus if !self.negative => self.put('+'),
                Key::Minus | Key::Plus if !fill => self.put(' '),
                Key::EitherSign => self.put(self.sign_char()),
                _ => {}
            }
        }
        Ok(self.out)
    }

    fn roman(template: &Template, text: &str) -> String {
        let mut out = String::new();
        for node in &template.nodes {
            match node {
                Node::Char(c) => out.push(*c),
                Node::Pattern(Key::Roman { upper }) => {
                    let text = if *upper { text.to_owned() } else { text.to_lowercase() };
                    if template.fill { out.push_str(&text) } else { out.push_str(&format!("{text:>15}")) }
                }
                // There is no sign to write, and its absence ends the text.
                Node::Pattern(Key::EitherSign) => return out,
                Node::Pattern(Key::Currency) => out.push(' '),
                Node::Pattern(Key::Comma | Key::Group | Key::Minus | Key::Plus) if !template.fill => out.push(' '),
                Node::Pattern(_) => {}
            }
        }
        out
    }

    /// The zero before the point is not shown: `9.9` of 0.1 is ` .1`.
    fn hides_zero(&self) -> bool {
        !self.template.zero && self.at == 0 && self.number.first() == Some(&'0') && self.template.post != 0
    }

    fn ends_at_point(&self) -> bool {
        self.last_relevant.is_some_and(|at| self.number[at] == '.')
    }

    /// A digit's or the point's place.
    fn place(&mut self, key: Key) {
        let t = self.template;
        self.in_number = false;
        let due = self.current >= self.spaces || (t.zero && t.zero_start == self.current);
        if !self.sign_written && due && (!self.hides_zero() || self.ends_at_point()) {
            if self.sign.is_some() {
                if self.sign == Some(Locale::Before) {
                    self.put(self.sign_char());
                    self.sign_written = true;
                }
            } else if self.bracket {
                self.put(if self.negative { '<' } else { ' ' });
                self.sign_written = true;
            } else {
                if self.negative {
                    self.put('-');
                } else if !t.fill {
                    self.put(' ');
                }
                self.sign_written = true;
            }
        }
        if self.current < self.spaces && (!t.zero || t.zero_start > self.current) {
            if !t.fill {
                self.put(' ');
            }
        } else if t.zero && self.current < self.spaces {
            self.put('0');
            self.in_number = true;
        } else {
            match self.number.get(self.at).copied() {
                Some('.') => {
                    if !self.ends_at_point() || t.fill {
                        self.put('.');
                    }
                }
                _ if self.last_relevant.is_some_and(|last| self.at > last) && key != Key::Zero => {}
                _ if self.hides_zero() => {
                    if !t.fill {
                        self.put(' ');
                    } else if self.ends_at_point() {
                        self.put('0');
                    }
                }
                Some(digit) => {
                    self.put(digit);
                    self.in_number = true;
                }
                None => self.cut = true,
            }
            self.at = (self.at + 1).min(self.number.len());
        }
        let mut end = self.count + isize::from(self.spaces > 0) + isize::from(t.decimal);
        if self.last_relevant == Some(self.at) {
            end = self.current as isize;
        }
        if self.current as isize + 1 == end {
            if self.sign_written && self.bracket {
                self.put(if self.negative { '>' } else { ' ' });
            } else if self.sign == Some(Locale::Behind) {
                self.put(self.sign_char());
            }
        }
        self.current += 1;
    }
}

/// The last digit behind the point that is not 0, or the point; `None` without one.
fn last_relevant(number: &[char]) -> Option<usize> {
    let point = number.iter().position(|c| *c == '.')?;
    Some((point + 1..number.len()).rev().find(|at| number[*at] != '0').unwrap_or(point))
}

/// A number out of a text by template; `None` for an empty template.
///
/// # Errors
/// `SyntaxError` for a template that contradicts itself, `InvalidTextRepresentation` where the text has no number.
pub fn to_number(text: &str, format: &str) -> Result<Option<Numeric>> {
    let template = Template::parse(format)?;
    if template.nodes.is_empty() {
        return Ok(None);
    }
    if template.exponent {
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, "\"EEEE\" not supported for input"));
    }
    if template.roman {
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, "\"RN\" not supported for input"));
    }
    let mut reader =
        Reader { template: &template, input: text.chars().collect(), at: 0, sign: ' ', digits: String::new(), post: 0, point: false };
    reader.read();
    let digits = reader.digits.strip_suffix('.').unwrap_or(&reader.digits);
    let precision = template.pre + template.multi + reader.post;
    let typmod = ((precision as i32) << 16 | reader.post as i32) + 4;
    let number = Numeric::parse(&format!("{}{digits}", reader.sign))?.apply_typmod(typmod)?;
    if !template.shift {
        return Ok(Some(number));
    }
    // A power of ten has 16 decimals.
    let places = template.multi.min(16) as u32;
    Ok(Some(number.mul(&Numeric::new(10_i128.pow(16 - places), 16))?))
}

struct Reader<'a> {
    template: &'a Template,
    input: Vec<char>,
    at: usize,
    sign: char,
    digits: String,
    post: usize,
    point: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.input.get(self.at).copied()
    }

    fn read(&mut self) {
        let template = self.template;
        for node in &template.nodes {
            let Some(next) = self.peek() else { break };
            let key = match node {
                Node::Char(_) => {
                    self.at += 1;
                    continue;
                }
                Node::Pattern(key) => *key,
            };
            match key {
                Key::Nine | Key::Zero | Key::Point => {
                    self.part(key);
                    self.at += 1;
                }
                Key::Comma | Key::Group if !template.fill && next == ',' => self.at += 1,
                Key::Currency => self.skip(1),
                Key::Ordinal { .. } => self.skip(2),
                Key::Minus if next == '-' => self.take_sign(next),
                Key::Plus if next == '+' => self.take_sign(next),
                Key::EitherSign if matches!(next, '-' | '+') => self.take_sign(next),
                Key::Minus | Key::Plus | Key::EitherSign => self.skip(1),
                _ => {}
            }
        }
    }

    fn take_sign(&mut self, sign: char) {
        self.sign = sign;
        self.at += 1;
    }

    /// Skips what is no data.
    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            match self.peek() {
                Some(c) if !"0123456789.,+-".contains(c) => self.at += 1,
                _ => break,
            }
        }
    }

    /// A digit's or the point's place; the caller steps over what was read.
    fn part(&mut self, key: Key) {
        let template = self.template;
        if self.peek() == Some(' ') {
            self.at += 1;
        }
        let Some(mut next) = self.peek() else { return };
        if self.sign == ' ' && key != Key::Point && self.digits.bytes().all(|b| b == b'.') {
            let before = template.sign == Some(Locale::Before);
            let signed = match next {
                '-' => Some('-'),
                '<' if template.bracket && !before => Some('-'),
                '+' => Some('+'),
                _ => None,
            };
            if let Some(sign) = signed {
                self.take_sign(sign);
            }
            match self.peek() {
                Some(c) => next = c,
                None => return,
            }
        }
        let mut was_read = false;
        if next.is_ascii_digit() {
            if self.point && self.post == template.post {
                return;
            }
            self.digits.push(next);
            self.post += usize::from(self.point);
            was_read = true;
        } else if template.decimal && !self.point && next == '.' {
            self.digits.push('.');
            self.point = true;
            was_read = true;
        }
        if self.sign != ' ' || !self.digits.bytes().any(|b| b.is_ascii_digit()) {
            return;
        }
        // A sign behind the last digit.
        if template.sign.is_some() {
            if was_read && let Some(sign @ ('-' | '+')) = self.input.get(self.at + 1).copied() {
                self.at += 1;
                self.sign = sign;
            }
        } else if !was_read && (template.plus || template.minus) && matches!(next, '-' | '+') {
            self.sign = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_postgresql_writes_them() {
        let value = |text: &str| Numeric::parse(text).unwrap();
        for (number, format, expected) in [
            ("-5", "S99", " -5"),
            ("123", "SG999", "+123"),
            ("-123", "999SG", "123-"),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("485.8", "\"Pre:\"999\" Post:\" .999", "Pre: 485 Post: .800"),
            ("0.0", "FM9.99", "0."),
            ("12.45", "99V9", " 125"),
            ("482", "999th", " 482nd"),
            ("11", "99TH", " 11TH"),
            ("NaN", "999.99", " NaN"),
            ("0.00012345", "9.99EEEE", " 1.23e-04"),
            ("100", "B999", " 100"),
            ("-12", "99PR", "<12>"),
            ("1234567.891", "FM9,999,999.00", "1,234,567.89"),
            ("12", "FM9990999.9", "0012."),
            ("5", "", ""),
        ] {
            assert_eq!(to_char(Number::Numeric(&value(number)), format).unwrap(), expected, "{number} {format}");
        }
        assert!(to_char(Number::Int(1), "9.9.9").is_err());
    }

    #[test]
    fn numbers_are_read_by_template() {
        for (text, format, expected) in [
            ("12,454.8-", "99G999D9S", "-12454.8"),
            ("<12>", "99PR", "-12"),
            ("$1,234.50", "L9,999.99", "1234.50"),
            ("12345", "999", "123"),
        ] {
            let mut out = Vec::new();
            to_number(text, format).unwrap().unwrap().format_to(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text} {format}");
        }
    }
}
