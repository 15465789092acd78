//! What names mean in a session.

use strandline_storage::{CommitId, Store};

use crate::error::{ErrorCode, Result, SqlError};

/// The commit that a revision in a database's name means.
pub fn resolve_commit(store: &Store, database: &str, _default_branch: &str, reference: &str) -> Result<CommitId> {
    if let Some(tag) = store.tags(database)?.into_iter().find(|t| t.name == reference) {
        return Ok(tag.commit);
    }
    let unknown = || SqlError::new(ErrorCode::UndefinedObject, format!("\"{reference}\" is not a branch, tag or commit"));
    if reference.len() < 4 || !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(unknown());
    }
    match store.commits_by_prefix(&reference.to_ascii_lowercase())?.as_slice() {
        [] => Err(unknown()),
        [commit] => Ok(*commit),
        _ => Err(strandline_storage::Error::AmbiguousRef(reference.to_owned()).into()),
    }
}
