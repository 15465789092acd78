//! What an application says about its own transaction: `pg_logical_emit_message(true, 'strandline', '{"user": "ann"}')`.

use strandline_storage::DataType;
use strandline_storage::value::TextSettings;

use crate::pgoutput::LogicalMessage;

/// Messages with these prefixes are for us. The second is what Bemi's libraries for web frameworks send.
const PREFIXES: [&str; 2] = ["strandline", "_bemi"];

/// The longest text that becomes a part of a commit, in bytes.
const SIZE_MAX: usize = 64 << 10;

/// The JSON of a message that belongs to its transaction and is meant for us, as `jsonb` writes it. What is not JSON, or too long, is logged and left out:
/// the data matter more.
pub(super) fn of_message(message: &LogicalMessage<'_>, xid: u32) -> Option<String> {
    if !message.transactional || !PREFIXES.contains(&message.prefix) {
        return None;
    }
    let normalized = match message.content.len() {
        0..=SIZE_MAX => normalize(message.content),
        _ => None,
    };
    if normalized.is_none() {
        let (prefix, size) = (message.prefix, message.content.len());
        tracing::warn!(xid, prefix, size, "a message about the transaction is not JSON of at most {SIZE_MAX} bytes and is left out");
    }
    normalized
}

fn normalize(json: &[u8]) -> Option<String> {
    let jsonb = DataType::by_name("jsonb")?;
    let settings = TextSettings::default();
    let value = jsonb.parse(std::str::from_utf8(json).ok()?, &settings).ok()?;
    let mut text = Vec::new();
    jsonb.format(&value, &settings, &mut text);
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use strandline_storage::Lsn;

    use super::*;

    fn context(transactional: bool, prefix: &str, content: &[u8]) -> Option<String> {
        of_message(&LogicalMessage { transactional, lsn: Lsn(1), prefix, content }, 7)
    }

    #[test]
    fn only_json_of_a_transaction_under_our_prefixes_counts() {
        let json = br#"{"user":"ann", "id" : 1.50}"#;
        let expected = Some(r#"{"id": 1.50, "user": "ann"}"#.to_owned());
        assert_eq!(context(true, "strandline", json), expected);
        assert_eq!(context(true, "_bemi", json), expected);
        assert_eq!(context(true, "strandline", b"\"text\""), Some("\"text\"".into()));
        for (transactional, prefix) in [(false, "strandline"), (true, "other"), (true, "Strandline"), (true, "")] {
            assert_eq!(context(transactional, prefix, json), None, "{prefix}");
        }
        for damaged in [&b"{"[..], b"", b"{\"a\": \"\\u0000\"}", b"\"\xff\"", b"user=ann"] {
            assert_eq!(context(true, "strandline", damaged), None, "{damaged:?}");
        }
        let long = format!("\"{}\"", "x".repeat(SIZE_MAX - 2));
        assert!(context(true, "strandline", long.as_bytes()).is_some());
        assert_eq!(context(true, "strandline", format!("{long} ").as_bytes()), None);
    }
}
