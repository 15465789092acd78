//! `boolean`: the spellings that PostgreSQL reads.

use crate::error::{Error, Result};
use crate::value::is_space;

/// Reads any spelling of a truth value, also its unique prefixes, in any case.
/// # Errors
/// `InvalidText`.
pub fn parse(text: &str) -> Result<bool> {
    let t = text.trim_matches(is_space).to_ascii_lowercase();
    let prefix_of = |word: &str, at_least: usize| t.len() >= at_least && word.starts_with(&t);
    if t == "1" || prefix_of("true", 1) || prefix_of("yes", 1) || prefix_of("on", 2) {
        return Ok(true);
    }
    if t == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) {
        return Ok(false);
    }
    Err(Error::invalid_text("boolean", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_read() {
        for t in ["t", "TRUE", " tr ", "y", "yes", "on", "1", "\ttrue\n"] {
            assert!(parse(t).unwrap(), "{t}");
        }
        for t in ["f", "False", "n", "no", "of", "off", "0"] {
            assert!(!parse(t).unwrap(), "{t}");
        }
        for t in ["", " ", "o", "truee", "2", "11", "yess", "test", "nope"] {
            assert_eq!(parse(t).unwrap_err().to_string(), format!("invalid input syntax for type boolean: \"{t}\""));
        }
    }
}
