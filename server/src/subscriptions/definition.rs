//! What defines a subscription, as the store keeps it: one value of small state per subscription, replaced as a whole.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strandline_replication::client::{ConnectionConfig, Streaming};
use strandline_replication::subscription::{Conninfo, ConninfoError, SubscriptionRecords};
use strandline_replication::{
    CommitMode, Config as ReplicatorConfig, ConflictPolicies, CreateTables, InitialCopy, STREAM_MEMORY_MAX_DEFAULT, SubscriptionConfig,
};
use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_storage::{Oid, Store};

use super::Settings;
use crate::libpq_environment::variable;

const KEY: &str = "definition";

/// Where the records of all of them are.
const STATE_PREFIX: &str = "subscription/";

/// A subscription made by SQL. Whether it is enabled is a record of its own, which its worker may change.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    pub owner: Oid,
    pub database: String,
    pub branch: String,
    /// May hold a password, so it is shown to superusers only.
    pub conninfo: String,
    /// `None`: it has no slot (any more).
    pub slot_name: Option<String>,
    pub publications: Vec<String>,
    #[serde(with = "stored_streaming")]
    pub streaming: Streaming,
    pub two_phase: bool,
    pub disable_on_error: bool,
    pub synchronous_commit: String,
    /// `any` or `none`.
    pub origin: String,
    pub create_tables: bool,
    /// Values are sent in their binary form where they have one.
    #[serde(default)]
    pub binary: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Definition {
    fn key(oid: Oid, key: &str) -> String {
        format!("{}{key}", Store::subscription_state_prefix(oid))
    }

    /// All of them, by oid.
    /// # Errors
    /// `DataCorrupted`.
    pub fn list(store: &Store) -> Result<Vec<(Oid, Definition)>> {
        let read = |oid| {
            let bytes = store.get_state(&Self::key(oid, KEY)).unwrap_or_default();
            let what = || SqlError::new(ErrorCode::DataCorrupted, format!("the definition of subscription {oid} is damaged"));
            serde_json::from_slice(&bytes).map(|definition| (oid, definition)).map_err(|_| what())
        };
        store.subscriptions().into_iter().map(read).collect()
    }

    /// Writes it, and waits until it is durable. The first time makes the subscription.
    /// # Errors
    /// What the store refuses.
    pub fn save(&self, store: &Store, oid: Oid) -> Result<()> {
        let target = format!("{}/{}", self.database, self.branch);
        store.put_state(&Self::key(oid, "branch"), Some(target.as_bytes()))?;
        let bytes = serde_json::to_vec(self).expect("BUG: a definition encodes");
        let position = store.put_state(&Self::key(oid, KEY), Some(&bytes))?;
        Ok(store.wait_durable(position)?)
    }

    /// Forgets a subscription with all its records.
    /// # Errors
    /// What the store refuses.
    pub fn remove(store: &Store, oid: Oid) -> Result<()> {
        // Without a definition it does not exist, whatever a crash leaves of the rest.
        store.put_state(&Self::key(oid, KEY), None)?;
        for (key, _) in store.list_state(&Store::subscription_state_prefix(oid)) {
            store.put_state(&key, None)?;
        }
        Ok(store.sync()?)
    }

    /// Removes what a crash has left of subscriptions that were not made or are dropped.
    /// # Errors
    /// What the store refuses.
    pub fn remove_unfinished(store: &Store) -> Result<()> {
        let known = store.subscriptions();
        for (key, _) in store.list_state(STATE_PREFIX) {
            let oid = key.split('/').nth(1).and_then(|oid| oid.parse().ok());
            if oid.is_none_or(|oid| !known.contains(&oid)) {
                store.put_state(&key, None)?;
            }
        }
        Ok(())
    }

    /// Whether its worker would not notice if it were the other one.
    pub fn differs_in_comment_only(&self, other: &Definition) -> bool {
        self != other && Definition { comment: other.comment.clone(), ..self.clone() } == *other
    }

    pub fn records(store: &Arc<Store>, oid: Oid) -> SubscriptionRecords {
        SubscriptionRecords::new(store, oid)
    }

    /// Where its primary is.
    /// # Errors
    /// As [`connection`].
    pub fn connection(&self) -> Result<ConnectionConfig> {
        connection(&self.conninfo, &self.name)
    }

    /// What its worker has to be told; it must have a slot.
    /// # Errors
    /// As [`connection`].
    pub fn replicator_config(&self, oid: Oid, settings: &Settings) -> Result<ReplicatorConfig> {
        let connection = self.connection()?;
        let folder = format!("subscription_{oid}");
        Ok(ReplicatorConfig {
            connection,
            slot_name: self.slot_name.clone().unwrap_or_default(),
            publication_names: self.publications.clone(),
            replica_database: self.database.clone(),
            branch: self.branch.clone(),
            initial_copy: InitialCopy::Never,
            create_tables: if self.create_tables { CreateTables::Auto } else { CreateTables::Never },
            copy_workers: settings.copy_workers,
            cfg_dir: settings.cfg_dir.clone(),
            commit_mode: CommitMode::EachTransaction,
            conflicts: ConflictPolicies::default(),
            streaming: self.streaming,
            stream_memory_max: STREAM_MEMORY_MAX_DEFAULT,
            spool_folder: settings.data_dir.join("spool").join(&folder),
            two_phase: self.two_phase,
            prepared_folder: settings.data_dir.join("prepared").join(&folder),
            watch: settings.watch,
            subscription: Some(SubscriptionConfig {
                oid,
                disable_on_error: self.disable_on_error,
                wait_durable: self.synchronous_commit != "off",
                only_local: self.origin == "none",
                binary: self.binary,
                retry_wait: settings.retry_wait,
            }),
            expressions: None,
        })
    }
}

/// `true`, `false` or `"parallel"`.
mod stored_streaming {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use strandline_replication::client::Streaming;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Switch(bool),
        Word(String),
    }

    const PARALLEL: &str = "parallel";

    pub fn serialize<S: Serializer>(streaming: &Streaming, serializer: S) -> Result<S::Ok, S::Error> {
        match streaming {
            Streaming::Off | Streaming::On => Stored::Switch(*streaming == Streaming::On),
            Streaming::Parallel => Stored::Word(PARALLEL.into()),
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Streaming, D::Error> {
        match Stored::deserialize(deserializer)? {
            Stored::Switch(false) => Ok(Streaming::Off),
            Stored::Switch(true) => Ok(Streaming::On),
            Stored::Word(word) if word == PARALLEL => Ok(Streaming::Parallel),
            Stored::Word(word) => Err(D::Error::custom(format_args!("streaming is {word:?}"))),
        }
    }
}

/// What a command says of it.
pub(super) fn streaming(said: strandline_sql::session::subscription::Streaming) -> Streaming {
    use strandline_sql::session::subscription::Streaming as Said;
    match said {
        Said::Off => Streaming::Off,
        Said::On => Streaming::On,
        Said::Parallel => Streaming::Parallel,
    }
}

/// Where a connection string points to; the subscription's name is what the primary sees of us.
/// # Errors
/// `SyntaxError`, `FeatureNotSupported`.
pub fn connection(conninfo: &str, name: &str) -> Result<ConnectionConfig> {
    let parsed = Conninfo::parse(conninfo).and_then(|conninfo| conninfo.resolve(name, &variable));
    parsed.map_err(|error| match error {
        ConninfoError::Syntax(what) => SqlError::new(ErrorCode::SyntaxError, format!("invalid connection string syntax: {what}")),
        ConninfoError::Unsupported(what) => SqlError::unsupported(what),
    })
}
