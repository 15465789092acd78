//! DDL capture: event triggers on the primary tell of every change of a definition, in a logical message inside the transaction that makes it.
//!
//! ```text
//! primary: ALTER TABLE ... --> event trigger reads the catalog within the transaction --> pg_logical_emit_message(true, 'strandline_ddl', ...)
//! here:    the message, at its place in the transaction --> authentic? --> apply/captured
//! ```
//!
//! Any user of the primary may send a message with any prefix, and what a message says would be done here. So a message carries a code that only who reads the
//! key can make: SHA-256 over the outer half of the key and SHA-256 over the inner half and the message. The key is in a materialized view of the primary, which is
//! never published and never dumped, and which only its owner and the role that we connect as may read; the trigger's function reads it as its
//! owner. The code covers the ids of the transaction and of the subtransaction, so a message that was overheard is of no use in another transaction.
//! A message that is not authentic is left out with a warning, and the table is followed as without capture.
//!
//! | field of a message | |
//! |---|---|
//! | 64 hexadecimal digits, a space | the code, over all that follows |
//! | a number, a space | id of the transaction |
//! | a number, a space | id of the subtransaction: for a large transaction, the stream does not say which one a message belongs to |
//! | JSON | [`Command`] |

mod install;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::catalog::{RemoteTable, RemoteType};
use crate::pgoutput::Message;

pub(crate) use install::{MAJOR_VERSION_MIN, State, grant_sql, install_sql, read_state, remove_sql};

/// Messages with this prefix are captured commands.
pub(crate) const PREFIX: &str = "strandline_ddl";

const CODE_DIGITS: usize = 64;

/// How long a key that did not fit, or could not be read, is not asked for again: whoever sends forged messages shall not make us ask for each.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long the log is not told of another message that was left out.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What a command has done to one object.
#[derive(Debug, Deserialize)]
pub(crate) struct Command {
    /// `ALTER TABLE`
    pub(crate) tag: String,
    /// The whole query string of which it was a part, where that may matter.
    #[serde(default)]
    pub(crate) statement: Option<String>,
    /// A table after the command.
    #[serde(default)]
    pub(crate) table: Option<RemoteTable>,
    /// The publications that have it under its own name.
    #[serde(default)]
    pub(crate) publications: Vec<Publication>,
    /// A type after the command.
    #[serde(default)]
    pub(crate) r#type: Option<RemoteType>,
    #[serde(default)]
    pub(crate) dropped: Option<Dropped>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Publication {
    pub(crate) name: String,
    /// The numbers of the columns that are sent, where not all are.
    #[serde(default)]
    pub(crate) columns: Option<Vec<i16>>,
    /// Stored generated columns are sent, too (PostgreSQL 18).
    #[serde(default)]
    pub(crate) generated: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dropped {
    /// `table` or `index`
    pub(crate) kind: String,
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
}

/// The key, as far as it is known.
#[derive(Default)]
pub(crate) struct Keys {
    key: Option<Key>,
    read_at: Option<Instant>,
    warned_at: Option<Instant>,
}

struct Key {
    inner: Vec<u8>,
    outer: Vec<u8>,
}

impl Keys {
    /// Whether it is worth to read the key (again).
    pub(crate) fn is_due(&self) -> bool {
        self.read_at.is_none_or(|at| at.elapsed() >= READ_AGAIN_AFTER)
    }

    /// Tells the log of a message that was left out, unless it has just been told of another.
    pub(crate) fn warn(&mut self, xid: u32, why: &str) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_AGAIN_AFTER) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(xid, why, "a captured command is left out; its table is followed as without DDL capture");
        }
    }

    /// Reads the key from the primary.
    /// # Errors
    /// Why it could not be read.
    pub(crate) async fn read(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        self.read_at = Some(Instant::now());
        self.key = None;
        let row = client.query_one("SELECT inner_key, outer_key FROM strandline.ddl_key", &[]).await?;
        let key = Key { inner: row.try_get(0)?, outer: row.try_get(1)? };
        // An empty key would let everybody in.
        self.key = (key.inner.len() >= 32 && key.outer.len() >= 32).then_some(key);
        Ok(())
    }

    /// The command that a message carries, if the message is authentic and of this transaction.
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(&self, content: &[u8], xid: u32) -> Result<Command, &'static str> {
        let key = self.key.as_ref().ok_or("its key could not be read on the primary")?;
        let (code, body) = content.split_at_checked(CODE_DIGITS).ok_or("it is too short")?;
        let body = body.strip_prefix(b" ").ok_or("it is malformed")?;
        let inner = Sha256::new().chain_update(&key.inner).chain_update(body).finalize();
        let outer = Sha256::new().chain_update(&key.outer).chain_update(inner).finalize();
        let mut difference = 0;
        for (digits, byte) in code.chunks(2).zip(outer.iter()) {
            let digits = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            difference |= digits.ok_or("it is malformed")? ^ byte;
        }
        if difference != 0 {
            return Err("it does not come from the trigger");
        }
        let (of, _, json) = fields(body).ok_or("it is malformed")?;
        if of as u32 != xid {
            return Err("it is of another transaction");
        }
        serde_json::from_slice(json).map_err(|_| "it is of a version of the trigger that is not known here")
    }
}

/// Transaction, subtransaction, JSON.
fn fields(body: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut parts = body.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let (transaction, subtransaction) = (number()?, number()?);
    Some((transaction, subtransaction, parts.next()?))
}

/// Whether a message of the stream is a command of one of these subtransactions.
pub(crate) fn is_of_subtransaction(payload: &[u8], subtransactions: &HashSet<u32>) -> bool {
    if payload.first() != Some(&b'M') || subtransactions.is_empty() {
        return false;
    }
    let Ok(Message::Logical(message)) = Message::decode(payload) else { return false };
    let body = || message.content.get(CODE_DIGITS + 1..);
    message.prefix == PREFIX && body().and_then(fields).is_some_and(|(_, of, _)| subtransactions.contains(&(of as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { key: Some(Key { inner: vec![1; 64], outer: vec![2; 64] }), ..Keys::default() }
    }

    fn sealed(body: &str) -> Vec<u8> {
        let Key { inner, outer } = keys().key.unwrap();
        let inner = Sha256::new().chain_update(inner).chain_update(body).finalize();
        let outer = Sha256::new().chain_update(outer).chain_update(inner).finalize();
        let code: String = outer.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{code} {body}").into_bytes()
    }

    #[test]
    fn only_what_the_trigger_made_in_this_transaction_is_opened() {
        let body = r#"4294967303 9 {"tag": "DROP TABLE", "dropped": {"kind": "table", "oid": 5, "schema": "s", "name": "t"}}"#;
        let message = sealed(body);
        // The upper half of the id is not in the stream.
        assert_eq!(keys().open(&message, 7).unwrap().dropped.unwrap().name, "t");
        assert_eq!(keys().open(&message, 8).unwrap_err(), "it is of another transaction");
        assert!(Keys::default().open(&message, 7).is_err());
        for at in [0, 63, 64, 65, 70, message.len() - 1] {
            let mut forged = message.clone();
            forged[at] = if forged[at] == b'1' { b'2' } else { b'1' };
            assert!(keys().open(&forged, 7).is_err(), "byte {at}");
        }
        for cut in 0..message.len() {
            assert!(keys().open(&message[..cut], 7).is_err());
        }
        for body in ["", "7", "7 9", "x 9 {}", "7 9 {", "7 9 {}", "7 9 {\"tag\": 1}"] {
            assert!(keys().open(&sealed(body), 7).is_err(), "{body}");
        }
    }

    #[test]
    fn a_message_is_known_by_its_subtransaction() {
        let content = sealed("7 9 {}");
        let mut payload = b"M\x01\0\0\0\0\0\0\0\x01strandline_ddl\0".to_vec();
        payload.extend_from_slice(&(content.len() as u32).to_be_bytes());
        payload.extend_from_slice(&content);
        assert!(is_of_subtransaction(&payload, &HashSet::from([9])));
        assert!(!is_of_subtransaction(&payload, &HashSet::from([7])) && !is_of_subtransaction(&payload, &HashSet::new()));
        assert!(!is_of_subtransaction(b"M", &HashSet::from([9])));
    }
}
