//! The arguments of version procedures: flags, their values, and the rest in order.

use strandline_storage::value::TextSettings;
use strandline_storage::{DataType, Identity, Timestamp, Value};

use super::bad_argument;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::oid;

/// A flag that a procedure takes: `('m', "message", true)` is `-m x`, `-mx`, `--message x`, `--message=x`.
pub type Flag = (Option<char>, &'static str, bool);

/// Arguments as a procedure was given them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// (long name, value), in order.
    set: Vec<(&'static str, Option<String>)>,
    pub rest: Vec<String>,
}

impl Flags {
    /// # Errors
    /// `InvalidParameterValue` for a flag that is not among `known`, or a missing value.
    pub fn parse(procedure: &str, arguments: &[&str], known: &[Flag]) -> Result<Flags> {
        let unknown = |flag: &str| bad_argument(format!("unknown option {flag} for {procedure}()"));
        let no_value = |flag: &str| bad_argument(format!("no value for option {flag} of {procedure}()"));
        let mut flags = Flags::default();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                flags.rest.extend(arguments.by_ref().map(str::to_string));
            } else if let Some(long) = argument.strip_prefix("--") {
                let (name, inline) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (long, None),
                };
                let (_, name, takes_value) = known.iter().find(|f| f.1 == name).ok_or_else(|| unknown(argument))?;
                let value = match (takes_value, inline) {
                    (true, inline) => Some(inline.or_else(|| arguments.next()).ok_or_else(|| no_value(argument))?.to_string()),
                    (false, None) => None,
                    (false, Some(_)) => return Err(bad_argument(format!("option --{name} of {procedure}() takes no value"))),
                };
                flags.set.push((name, value));
            } else if argument.len() > 1 && argument.starts_with('-') {
                let mut letters = argument[1..].chars();
                while let Some(letter) = letters.next() {
                    let (_, name, takes_value) =
                        known.iter().find(|f| f.0 == Some(letter)).ok_or_else(|| unknown(&format!("-{letter}")))?;
                    if !takes_value {
                        flags.set.push((name, None));
                        continue;
                    }
                    let inline = letters.as_str();
                    let value = if inline.is_empty() { arguments.next().ok_or_else(|| no_value(&format!("-{letter}")))? } else { inline };
                    flags.set.push((name, Some(value.to_string())));
                    break;
                }
            } else {
                flags.rest.push(argument.to_string());
            }
        }
        Ok(flags)
    }

    pub fn has(&self, name: &str) -> bool {
        self.set.iter().any(|(n, _)| *n == name)
    }

    /// The last value given for a flag.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.set.iter().rev().find(|(n, _)| *n == name).and_then(|(_, value)| value.as_deref())
    }
}

/// `Name <address>`.
pub fn parse_author(text: &str) -> Result<Identity> {
    let malformed = || bad_argument(format!("author \"{text}\" is not of the form \"Name <email>\""));
    let (name, rest) = text.split_once('<').ok_or_else(malformed)?;
    let email = rest.trim_end().strip_suffix('>').ok_or_else(malformed)?;
    if name.trim().is_empty() || email.contains(['<', '>']) {
        return Err(malformed());
    }
    Ok(Identity { name: name.trim().into(), email: email.trim().into() })
}

/// A date as timestamptz reads it.
pub fn parse_date(text: &str, context: &StatementContext) -> Result<Timestamp> {
    parse_date_with(text, &context.text)
}

fn parse_date_with(text: &str, settings: &TextSettings) -> Result<Timestamp> {
    let ty = DataType::builtin(oid::TIMESTAMPTZ, -1).expect("BUG: timestamptz is built in");
    match ty.parse(text, settings)? {
        Value::Int8(micros) if micros != i64::MIN && micros != i64::MAX => Ok(Timestamp(micros)),
        _ => Err(SqlError::new(ErrorCode::InvalidDatetimeFormat, format!("date \"{text}\" is not a moment"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] =
        &[(Some('m'), "message", true), (Some('A'), "ALL", false), (Some('a'), "all", false), (None, "allow-empty", false)];

    #[test]
    fn short_flags_combine_and_take_the_next_argument() {
        let flags = Flags::parse("dolt_commit", &["-Am", "a message", "--allow-empty"], KNOWN).expect("parses");
        assert!(flags.has("ALL") && flags.has("allow-empty"));
        assert_eq!(flags.value("message"), Some("a message"));
    }

    #[test]
    fn values_may_be_inline() {
        assert_eq!(Flags::parse("f", &["--message=x=y"], KNOWN).expect("parses").value("message"), Some("x=y"));
        assert_eq!(Flags::parse("f", &["-mtext"], KNOWN).expect("parses").value("message"), Some("text"));
    }

    #[test]
    fn the_rest_keeps_its_order_and_a_double_dash_ends_flags() {
        let flags = Flags::parse("f", &["a", "-", "--", "-x"], KNOWN).expect("parses");
        assert_eq!(flags.rest, ["a", "-", "-x"]);
    }

    #[test]
    fn unknown_flags_and_missing_values_are_refused() {
        assert!(Flags::parse("f", &["-x"], KNOWN).is_err());
        assert!(Flags::parse("f", &["--nonsense"], KNOWN).is_err());
        assert!(Flags::parse("f", &["-m"], KNOWN).is_err());
        assert!(Flags::parse("f", &["--allow-empty=1"], KNOWN).is_err());
    }

    #[test]
    fn authors_have_a_name_and_an_address() {
        assert_eq!(parse_author("Ann B <ann@x.org>").expect("parses"), Identity { name: "Ann B".into(), email: "ann@x.org".into() });
        for text in ["Ann", "<a@b>", "Ann <a", "Ann <a<b>>"] {
            assert!(parse_author(text).is_err(), "{text}");
        }
    }
}
