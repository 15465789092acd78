//! Arrays: the text form with its quoting, dimensions and lower bounds, and the binary form.

use crate::error::{Error, Result, ValueErrorCode};
use crate::value::{DataType, Kind, TextSettings, Value, is_space};

/// PostgreSQL's limit on the number of dimensions.
pub const DIMENSIONS_MAX: usize = 6;
/// PostgreSQL's limit on the number of elements.
pub const ELEMENTS_MAX: usize = 134_217_727;

/// An array taken apart. No dimensions: the empty array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Array<T> {
    pub dimensions: Vec<Dimension>,
    /// In row-major order; `None` is NULL.
    pub elements: Vec<Option<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    pub length: i32,
    pub lower_bound: i32,
}

impl<T> Array<T> {
    /// A one-dimensional array with lower bound 1.
    pub fn from_elements(elements: Vec<Option<T>>) -> Self {
        if elements.is_empty() {
            return Array { dimensions: Vec::new(), elements };
        }
        Array { dimensions: vec![Dimension { length: elements.len() as i32, lower_bound: 1 }], elements }
    }
}

fn malformed(text: &str, detail: &str) -> Error {
    let error = Error::value(ValueErrorCode::InvalidTextRepresentation, format!("malformed array literal: \"{text}\""));
    if detail.is_empty() { error } else { error.with_detail(detail) }
}

fn delimiter(element: &DataType) -> u8 {
    // Boxes contain commas themselves.
    if &*element.name == "box" { b';' } else { b',' }
}

/// Takes an array's text apart; elements are unquoted texts.
/// # Errors
/// `Value` (22P02, 54000, 2202E).
pub fn split(text: &str, delimiter: u8) -> Result<Array<String>> {
    let mut rest = text.trim_start_matches(is_space);
    let mut bounds: Vec<Dimension> = Vec::new();
    while let Some(inner) = rest.strip_prefix('[') {
        let (spec, tail) = inner.split_once(']').ok_or_else(|| malformed(text, "Missing \"]\" after array dimensions."))?;
        if bounds.len() >= DIMENSIONS_MAX {
            return Err(too_many_dimensions(bounds.len() + 1));
        }
        let number = |t: &str| t.parse::<i32>().map_err(|_| malformed(text, "\"[\" must introduce explicitly-specified array dimensions."));
        let (lower_bound, upper) = match spec.split_once(':') {
            Some((l, u)) => (number(l)?, number(u)?),
            None => (1, number(spec)?),
        };
        if upper < lower_bound {
            return Err(Error::value(ValueErrorCode::ArraySubscriptError, "upper bound cannot be less than lower bound"));
        }
        let length = upper.checked_sub(lower_bound).and_then(|n| n.checked_add(1)).ok_or_else(array_too_great)?;
        bounds.push(Dimension { length, lower_bound });
        rest = tail.trim_start_matches(is_space);
    }
    if !bounds.is_empty() {
        rest = rest.strip_prefix('=').ok_or_else(|| malformed(text, "Missing \"=\" after array dimensions."))?.trim_start_matches(is_space);
    }
    if !rest.starts_with('{') {
        let detail = if bounds.is_empty() {
            "Array value must start with \"{\" or dimension information."
        } else {
            "Array contents must start with \"{\"."
        };
        return Err(malformed(text, detail));
    }
    let mut reader = Reader { text, bytes: rest.as_bytes(), at: 0, delimiter, lengths: Vec::new(), leaf_depth: None, elements: Vec::new() };
    reader.level(0)?;
    if !rest[reader.at..].trim_matches(is_space).is_empty() {
        return Err(malformed(text, "Junk after closing right brace."));
    }
    let lengths = if reader.elements.is_empty() { Vec::new() } else { reader.lengths };
    if bounds.is_empty() {
        let dimensions = lengths.iter().map(|l| Dimension { length: *l as i32, lower_bound: 1 }).collect();
        return Ok(Array { dimensions, elements: reader.elements });
    }
    if bounds.len() != lengths.len() || bounds.iter().zip(&lengths).any(|(b, l)| b.length as usize != *l) {
        return Err(malformed(text, "Specified array dimensions do not match array contents."));
    }
    Ok(Array { dimensions: bounds, elements: reader.elements })
}

fn too_many_dimensions(count: usize) -> Error {
    Error::value(
        ValueErrorCode::ProgramLimitExceeded,
        format!("number of array dimensions ({count}) exceeds the maximum allowed ({DIMENSIONS_MAX})"),
    )
}

fn array_too_great() -> Error {
    Error::value(ValueErrorCode::ProgramLimitExceeded, format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})"))
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    delimiter: u8,
    /// The length of each dimension as its first list has it.
    lengths: Vec<usize>,
    /// The depth at which elements stand.
    leaf_depth: Option<usize>,
    elements: Vec<Option<String>>,
}

const UNEXPECTED_END: &str = "Unexpected end of input.";

impl Reader<'_> {
    fn skip_space(&mut self) {
        while self.bytes.get(self.at).is_some_and(|b| is_space(char::from(*b))) {
            self.at += 1;
        }
    }

    /// Reads `{...}`; the present byte is the opening brace.
    fn level(&mut self, depth: usize) -> Result<()> {
        if depth >= DIMENSIONS_MAX {
            return Err(too_many_dimensions(depth + 1));
        }
        self.at += 1;
        let mut count = 0;
        loop {
            self.skip_space();
            match self.bytes.get(self.at) {
                None => return Err(malformed(self.text, UNEXPECTED_END)),
                Some(b'}') if count == 0 && depth == 0 => {
                    self.at += 1;
                    break;
                }
                Some(b'}') => return Err(malformed(self.text, "Unexpected \"}\" character.")),
                Some(b'{') => {
                    if self.leaf_depth.is_some_and(|d| d <= depth) {
                        return Err(malformed(self.text, "Unexpected \"{\" character."));
                    }
                    self.level(depth + 1)?;
                }
                Some(b) if *b == self.delimiter => {
                    return Err(malformed(self.text, &format!("Unexpected \"{}\" character.", char::from(self.delimiter))));
                }
                Some(_) => {
                    if self.leaf_depth.is_some_and(|d| d != depth) {
                        return Err(malformed(self.text, "Unexpected array element."));
                    }
                    self.leaf_depth = Some(depth);
                    self.element()?;
                }
            }
            count += 1;
            self.skip_space();
            match self.bytes.get(self.at) {
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                Some(b) if *b == self.delimiter => self.at += 1,
                Some(b'{') => return Err(malformed(self.text, "Unexpected \"{\" character.")),
                Some(_) => return Err(malformed(self.text, "Unexpected array element.")),
                None => return Err(malformed(self.text, UNEXPECTED_END)),
            }
        }
        while self.lengths.len() <= depth {
            self.lengths.push(usize::MAX);
        }
        if self.lengths[depth] == usize::MAX {
            self.lengths[depth] = count;
        } else if self.lengths[depth] != count {
            return Err(malformed(self.text, "Multidimensional arrays must have sub-arrays with matching dimensions."));
        }
        Ok(())
    }

    fn element(&mut self) -> Result<()> {
        let mut out = Vec::new();
        let mut quoted = false;
        let mut escaped = false;
        // White space inside counts, at the end it does not.
        let mut kept = 0;
        if self.bytes[self.at] == b'"' {
            quoted = true;
            self.at += 1;
            loop {
                match self.bytes.get(self.at) {
                    None => return Err(malformed(self.text, UNEXPECTED_END)),
                    Some(b'"') => {
                        self.at += 1;
                        break;
                    }
                    Some(b'\\') => {
                        out.push(*self.bytes.get(self.at + 1).ok_or_else(|| malformed(self.text, UNEXPECTED_END))?);
                        self.at += 2;
                    }
                    Some(b) => {
                        out.push(*b);
                        self.at += 1;
                    }
                }
            }
        } else {
            loop {
                match self.bytes.get(self.at) {
                    None => return Err(malformed(self.text, UNEXPECTED_END)),
                    Some(b'"') => return Err(malformed(self.text, "Unexpected array element.")),
                    Some(b'{') => return Err(malformed(self.text, "Unexpected \"{\" character.")),
                    Some(b'}') => break,
                    Some(b) if *b == self.delimiter => break,
                    Some(b'\\') => {
                        out.push(*self.bytes.get(self.at + 1).ok_or_else(|| malformed(self.text, UNEXPECTED_END))?);
                        escaped = true;
                        self.at += 2;
                        kept = out.len();
                    }
                    Some(b) => {
                        out.push(*b);
                        if !is_space(char::from(*b)) {
                            kept = out.len();
                        }
                        self.at += 1;
                    }
                }
            }
            out.truncate(kept);
        }
        if self.elements.len() >= ELEMENTS_MAX {
            return Err(array_too_great());
        }
        if !quoted && !escaped && out.eq_ignore_ascii_case(b"null") {
            self.elements.push(None);
        } else {
            self.elements.push(Some(String::from_utf8(out).map_err(|_| malformed(self.text, ""))?));
        }
        Ok(())
    }
}

/// Puts an array's text together from its elements' texts.
pub fn join(array: &Array<String>, delimiter: u8) -> String {
    if array.elements.is_empty() || array.dimensions.is_empty() {
        return "{}".into();
    }
    let mut out = String::new();
    if array.dimensions.iter().any(|d| d.lower_bound != 1) {
        for d in &array.dimensions {
            out.push_str(&format!("[{}:{}]", d.lower_bound, i64::from(d.lower_bound) + i64::from(d.length) - 1));
        }
        out.push('=');
    }
    let last = array.dimensions.len() - 1;
    let mut position = vec![0; array.dimensions.len()];
    let mut elements = array.elements.iter();
    let mut open = 0;
    loop {
        while open <= last {
            out.push('{');
            open += 1;
        }
        match elements.next() {
            Some(Some(e)) => push_element(e, delimiter, &mut out),
            Some(None) => out.push_str("NULL"),
            None => return out,
        }
        // Counts up the position like an odometer; every wheel that turns over closes a brace.
        let mut wheel = last;
        loop {
            position[wheel] += 1;
            if position[wheel] < array.dimensions[wheel].length {
                out.push(char::from(delimiter));
                break;
            }
            position[wheel] = 0;
            out.push('}');
            open -= 1;
            if wheel == 0 {
                return out;
            }
            wheel -= 1;
        }
    }
}

fn push_element(text: &str, delimiter: u8, out: &mut String) {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.bytes().any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}') || b == delimiter || is_space(char::from(b)));
    if plain {
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

/// Reads an array's text into values of its element type.
/// # Errors
/// As the element's `parse`; `Value`.
pub fn parse(text: &str, data_type: &DataType, settings: &TextSettings) -> Result<Array<Value>> {
    let element = element_type(data_type)?;
    let parts = split(text, delimiter(element))?;
    let elements = parts.elements.iter().map(|e| e.as_deref().map(|t| element.parse(t, settings)).transpose()).collect::<Result<_>>()?;
    Ok(Array { dimensions: parts.dimensions, elements })
}

/// The text of an array of values.
pub fn to_text(array: &Array<Value>, data_type: &DataType, settings: &TextSettings) -> String {
    let Ok(element) = element_type(data_type) else { return "{}".into() };
    let elements = array.elements.iter().map(|e| e.as_ref().map(|v| element.to_text(v, settings))).collect();
    join(&Array { dimensions: array.dimensions.clone(), elements }, delimiter(element))
}

fn element_type(data_type: &DataType) -> Result<&DataType> {
    data_type.element.as_deref().ok_or_else(|| Error::Invalid(format!("array type {} has no element type", data_type.name)))
}

/// The stored text of an array: every element as its type prints it with the default settings.
pub(super) fn normalize(text: &str, data_type: &DataType, settings: &TextSettings) -> Result<String> {
    if data_type.element.is_none() {
        return Ok(join(&split(text, b',')?, b','));
    }
    Ok(to_text(&parse(text, data_type, settings)?, data_type, &TextSettings::default()))
}

/// Says whether a session with these settings prints the array as it is stored.
pub(super) fn is_text_stable(data_type: &DataType, settings: &TextSettings) -> bool {
    let Some(element) = &data_type.element else { return true };
    match element.kind {
        Kind::Date
        | Kind::Timetz
        | Kind::Timestamp
        | Kind::Timestamptz
        | Kind::Interval
        | Kind::Bytea
        | Kind::Float4
        | Kind::Float8
        | Kind::Other => *settings == TextSettings::default(),
        _ => true,
    }
}

/// Appends a stored array as a session with these settings prints it.
pub(super) fn format(stored: &[u8], data_type: &DataType, settings: &TextSettings, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(stored);
    match parse(&text, data_type, &TextSettings::default()) {
        Ok(array) => out.extend(to_text(&array, data_type, settings).as_bytes()),
        Err(_) => out.extend_from_slice(stored),
    }
}
