//! Changes that do not fit the rows here: what they are called, what is done about them, and what is kept to show them.

use strandline_storage::{Lsn, Timestamp};

/// How many conflicts are kept to be shown; the oldest go first.
pub(crate) const CONFLICTS_KEPT_MAX: usize = 1000;

/// How many conflicts of one transaction are logged one by one.
pub(crate) const CONFLICTS_LOGGED_MAX: usize = 10;

/// The longest text of a value that is kept, in bytes.
const VALUE_SIZE_MAX: usize = 1024;

/// A kind of conflict, by PostgreSQL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// An inserted row's key, or its value in a unique index, is here already.
    InsertExists,
    /// So is that of an updated row.
    UpdateExists,
    /// The row to update is not here.
    UpdateMissing,
    /// The row to delete is not here.
    DeleteMissing,
}

impl ConflictKind {
    pub const ALL: [ConflictKind; 4] =
        [ConflictKind::InsertExists, ConflictKind::UpdateExists, ConflictKind::UpdateMissing, ConflictKind::DeleteMissing];

    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::InsertExists => "insert_exists",
            ConflictKind::UpdateExists => "update_exists",
            ConflictKind::UpdateMissing => "update_missing",
            ConflictKind::DeleteMissing => "delete_missing",
        }
    }
}

/// What is done about a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Replication stops at the transaction.
    Error,
    /// The row becomes what the primary says.
    Apply,
    /// The row stays as it is here.
    Keep,
    /// There is no row, and there will be none.
    Skip,
}

impl Resolution {
    pub fn as_str(self) -> &'static str {
        match self {
            Resolution::Error => "error",
            Resolution::Apply => "apply",
            Resolution::Keep => "keep",
            Resolution::Skip => "skip",
        }
    }
}

/// What is done about each kind. The defaults are what PostgreSQL's subscriber does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictPolicies {
    /// `Error`, `Apply` or `Keep`.
    pub insert_exists: Resolution,
    /// `Error` or `Keep`.
    pub update_exists: Resolution,
    /// `Skip`, `Apply` (the row is inserted) or `Error`.
    pub update_missing: Resolution,
    /// `Skip` or `Error`.
    pub delete_missing: Resolution,
}

impl Default for ConflictPolicies {
    fn default() -> Self {
        ConflictPolicies {
            insert_exists: Resolution::Error,
            update_exists: Resolution::Error,
            update_missing: Resolution::Skip,
            delete_missing: Resolution::Skip,
        }
    }
}

/// A row as text: column names and values, `None` for NULL. Long values are cut.
pub type RowText = Vec<(String, Option<String>)>;

/// A conflict that was resolved, or that stopped replication.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub time: Timestamp,
    pub kind: ConflictKind,
    pub resolution: Resolution,
    /// Schema-qualified.
    pub table: String,
    pub xid: u32,
    /// Of the change.
    pub lsn: Lsn,
    /// The row's key, or the unique value that is here already; empty where neither was sent.
    pub key: String,
    /// The row here.
    pub local: Option<RowText>,
    /// What the primary sent.
    pub remote: Option<RowText>,
}

/// A value's text as it is kept.
pub(crate) fn shorten(mut text: String) -> String {
    if text.len() > VALUE_SIZE_MAX {
        let end = (0..=VALUE_SIZE_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shorten("short".into()), "short");
        let cut = shorten("é".repeat(2000));
        assert!(cut.len() <= VALUE_SIZE_MAX + '…'.len_utf8() && cut.ends_with("é…"), "{}", cut.len());
    }
}
