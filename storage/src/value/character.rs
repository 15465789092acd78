//! Character types: what their modifiers and lengths do to a text.

use std::borrow::Cow;

use crate::error::{Error, Result, ValueErrorCode};

/// The bytes of a `name` without its terminator.
const NAME_SIZE: usize = 63;

/// Applies `varchar(n)`: characters beyond `n` may only be spaces, and are dropped.
/// # Errors
/// `Value` (22001).
pub fn apply_varchar(text: &str, typmod: i32) -> Result<&str> {
    match limit(typmod) {
        Some(n) => cut(text, n, "character varying"),
        None => Ok(text),
    }
}

/// Applies `char(n)`: as `varchar(n)`, then filled with spaces up to `n`.
/// # Errors
/// `Value` (22001).
pub fn apply_bpchar(text: &str, typmod: i32) -> Result<Cow<'_, str>> {
    let Some(n) = limit(typmod) else { return Ok(Cow::Borrowed(text)) };
    let text = cut(text, n, "character")?;
    let missing = n - text.chars().count();
    Ok(if missing == 0 { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}{}", " ".repeat(missing))) })
}

/// The text that `n` characters of `text` are, as an explicit cast to `varchar(n)` has it.
pub fn truncate(text: &str, n: usize) -> &str {
    text.char_indices().nth(n).map_or(text, |(at, _)| &text[..at])
}

/// Applies the length of `name`: 63 bytes, cut between characters.
pub fn truncate_name(text: &str) -> &str {
    if text.len() <= NAME_SIZE {
        return text;
    }
    &text[..text.floor_char_boundary(NAME_SIZE)]
}

fn limit(typmod: i32) -> Option<usize> {
    usize::try_from(typmod.checked_sub(4)?).ok()
}

fn cut<'a>(text: &'a str, n: usize, type_name: &str) -> Result<&'a str> {
    // Bytes are never fewer than characters.
    if text.len() <= n {
        return Ok(text);
    }
    let kept = truncate(text, n);
    if text[kept.len()..].bytes().any(|b| b != b' ') {
        return Err(Error::value(ValueErrorCode::StringDataRightTruncation, format!("value too long for type {type_name}({n})")));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters() {
        assert_eq!(apply_varchar("äöü", 7).unwrap(), "äöü");
        assert_eq!(apply_varchar("abc  ", 7).unwrap(), "abc");
        assert_eq!(apply_varchar("abcd", 7).unwrap_err().to_string(), "value too long for type character varying(3)");
        assert_eq!(apply_bpchar("ä", 7).unwrap(), "ä  ");
        assert_eq!(apply_bpchar("abcd", 7).unwrap_err().to_string(), "value too long for type character(3)");
        assert_eq!(truncate_name(&"ä".repeat(40)).len(), 62);
    }
}
