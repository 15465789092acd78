//! What can go wrong in replication, one variant per consequence.

use std::io;

use strandline_storage::Lsn;

use crate::pgoutput::DecodeError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of replication. [`Error::is_passing`] says whether trying again can help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network, or the other side's end of it: try again.
    #[error("could not {action}: {source}")]
    Connection { action: &'static str, source: io::Error },
    /// The primary answered with an error; its SQLSTATE says what to do.
    #[error("the primary reports: {message} (SQLSTATE {code}){}", detail_and_hint(detail, hint))]
    Primary { code: String, message: String, detail: Option<String>, hint: Option<String> },
    /// The primary sent what the protocol does not allow or what we do not speak.
    #[error("the primary sent an unexpected message: {0}")]
    Protocol(String),
    /// A message of the stream that is damaged or of a version that we do not speak.
    #[error("could not decode the message at {lsn}: {source}")]
    Decode { lsn: Lsn, source: DecodeError },
    /// The set-up does not allow to go on; the text says what to change.
    #[error("{0}")]
    Setup(String),
    /// A change that the replica cannot take.
    #[error("could not apply a change to table \"{table}\" (transaction {xid} finished at {finished}, change at {lsn}): {what}")]
    Apply {
        table: String,
        xid: u32,
        /// Of the change.
        lsn: Lsn,
        /// Of the transaction's commit record, by which it can be skipped.
        finished: Lsn,
        what: String,
    },
    /// A table here cannot follow what its table on the primary has become. It alone is stopped, where that is possible.
    #[error("table \"{table}\": {what}; {by_hand}, commit it with dolt_commit, and restart")]
    Unfollowed {
        table: String,
        what: String,
        /// What makes it fit again where nothing else goes on meanwhile.
        by_hand: &'static str,
    },
    /// A table was stopped, and a new session is to begin: for a transaction that is to be sent again, to be applied without it, or for the table's new copy.
    #[error("table \"{table}\" was stopped, and the stream begins anew")]
    TableStopped { table: String },
    /// A table that was filled before it was published is copied in a new session.
    #[error("table \"{table}\" has rows from before it was published, which are copied first")]
    CopyFirst { table: String },
    /// A table was changed here while it was copied; it is copied again.
    #[error("could not copy table \"{table}\": {what} was changed meanwhile")]
    CopyOutrun { table: String, what: String },
    /// Something local changed at the same time; the stream's transaction is tried again.
    #[error("could not apply transaction {xid} at {lsn}: {what}")]
    Busy { xid: u32, lsn: Lsn, what: String },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] strandline_storage::Error),
    /// The operating system refused something on our side.
    #[error("could not {action} \"{path}\": {source}")]
    File { action: &'static str, path: String, source: io::Error },
}

fn detail_and_hint(detail: &Option<String>, hint: &Option<String>) -> String {
    let mut text = String::new();
    if let Some(detail) = detail {
        text.push_str(&format!("; DETAIL: {detail}"));
    }
    if let Some(hint) = hint {
        text.push_str(&format!("; HINT: {hint}"));
    }
    text
}

impl Error {
    pub(crate) fn connection(action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Connection { action, source }
    }

    /// Says whether the failure passes by itself, so that trying again is right.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Connection { .. }
            | Error::Busy { .. }
            | Error::CopyFirst { .. }
            | Error::CopyOutrun { .. }
            | Error::TableStopped { .. } => true,
            Error::Primary { code, .. } => is_passing_code(code),
            Error::Protocol(_)
            | Error::Decode { .. }
            | Error::Setup(_)
            | Error::Unfollowed { .. }
            | Error::Apply { .. }
            | Error::Store(_)
            | Error::File { .. } => false,
        }
    }

    /// An error that a catalog or copy connection met.
    pub(crate) fn from_sql(action: &'static str, error: tokio_postgres::Error) -> Error {
        match error.as_db_error() {
            Some(db) => Error::Primary {
                code: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().map(str::to_owned),
                hint: db.hint().map(str::to_owned),
            },
            None => {
                let text = match std::error::Error::source(&error) {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                };
                Error::Connection { action, source: io::Error::other(text) }
            }
        }
    }
}

/// Says whether the store itself is at fault, rather than what it was to take: it does not write any more, or cannot be read.
pub(crate) fn is_lost(error: &strandline_storage::Error) -> bool {
    use strandline_storage::Error;
    matches!(error, Error::Stopped { .. } | Error::Io { .. } | Error::Damaged { .. })
}

/// SQLSTATEs of conditions that pass: connection (08), resources (53), rollback (40), operator intervention (57),
/// system (58, but not a missing file, which is how a lost WAL segment shows), internal (XX), and a slot that is in use (55006) or locked (55P03).
fn is_passing_code(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "53" | "40" | "57" | "XX")) || matches!(code, "55006" | "55P03" | "25P03" | "58000" | "58030")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(code: &str) -> Error {
        Error::Primary { code: code.into(), message: "m".into(), detail: None, hint: None }
    }

    #[test]
    fn a_primary_that_starts_up_or_a_busy_slot_passes() {
        for code in ["57P03", "57P01", "55006", "53300", "08006", "40001"] {
            assert!(primary(code).is_passing(), "{code}");
        }
    }

    #[test]
    fn a_refused_password_or_a_missing_slot_does_not_pass() {
        for code in ["28P01", "28000", "42704", "55000", "3D000", "58P01", "42501", ""] {
            assert!(!primary(code).is_passing(), "{code}");
        }
    }
}
