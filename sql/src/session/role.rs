//! Roles: kept in the store's state, beside the versions, so that a branch or a reset never changes who may log in.

use serde::{Deserialize, Serialize};
use strandline_storage::{JournalPosition, Oid, Store};

use crate::error::{ErrorCode, Result, SqlError};

const PREFIX: &str = "role/";

/// A role as `pg_authid` has it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    pub oid: Oid,
    pub superuser: bool,
    pub inherit: bool,
    pub create_role: bool,
    pub create_database: bool,
    pub login: bool,
    pub replication: bool,
    pub bypass_rls: bool,
    pub connection_limit: i32,
    /// The SCRAM-SHA-256 verifier, never the password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Role").field("name", &self.name).field("oid", &self.oid).finish_non_exhaustive()
    }
}

impl Role {
    /// A role that may do nothing.
    pub fn new(name: &str, oid: Oid) -> Self {
        Role {
            name: name.into(),
            oid,
            superuser: false,
            inherit: true,
            create_role: false,
            create_database: false,
            login: false,
            replication: false,
            bypass_rls: false,
            connection_limit: -1,
            password: None,
        }
    }
}

/// # Errors
/// `DataCorrupted` when the stored role does not decode.
pub fn get(store: &Store, name: &str) -> Result<Option<Role>> {
    store.get_state(&format!("{PREFIX}{name}")).map(|bytes| decode(&bytes)).transpose()
}

/// All roles in the order of their names.
pub fn list(store: &Store) -> Result<Vec<Role>> {
    store.list_state(PREFIX).iter().map(|(_, bytes)| decode(bytes)).collect()
}

pub fn put(store: &Store, role: &Role) -> Result<JournalPosition> {
    let bytes = serde_json::to_vec(role).expect("BUG: a role encodes");
    Ok(store.put_state(&format!("{PREFIX}{}", role.name), Some(&bytes))?)
}

pub fn remove(store: &Store, name: &str) -> Result<JournalPosition> {
    Ok(store.put_state(&format!("{PREFIX}{name}"), None)?)
}

fn decode(bytes: &[u8]) -> Result<Role> {
    serde_json::from_slice(bytes).map_err(|_| SqlError::new(ErrorCode::DataCorrupted, "a stored role is damaged"))
}
