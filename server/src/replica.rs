//! Replica mode: the replicator that the configuration asks for.

use strandline_replication::client::{CONNECT_TIMEOUT_DEFAULT, ConnectionConfig, Place, Places};
use strandline_replication::subscription::{Conninfo, ConninfoError};
use strandline_replication::{CommitMode, Config as ReplicatorConfig, ConflictPolicies, CreateTables, InitialCopy, Resolution};

use crate::config::{AutoNever, Config, DeleteMissing, InsertExists, PostgresReplication, UpdateExists, UpdateMissing};
use crate::libpq_environment;

/// The name under which the primary's `pg_stat_replication` shows us.
const APPLICATION_NAME: &str = "strandline";

/// Where the primary is: a connection string, or the keys for its parts.
fn connection(source: &PostgresReplication) -> anyhow::Result<ConnectionConfig> {
    let variable = &libpq_environment::variable;
    let password = libpq_environment::password(source, variable);
    if let Some(text) = &source.connection {
        let wrong = |error| match error {
            ConninfoError::Syntax(what) => anyhow::anyhow!("postgres_replication.connection: {what}"),
            ConninfoError::Unsupported(what) => anyhow::anyhow!("postgres_replication.connection: {what} is not supported"),
        };
        let mut connection = Conninfo::parse(&text.0).and_then(|conninfo| conninfo.resolve(APPLICATION_NAME, variable)).map_err(wrong)?;
        // The variable of ours wins over the string, as over the key.
        if !source.postgres_password.0.is_empty() {
            connection.places = connection.places.with_password(&source.postgres_password.0);
        }
        return Ok(connection);
    }
    Ok(ConnectionConfig {
        places: Places::one(Place::new(&source.postgres_server_address, source.postgres_port, password)),
        user: source.postgres_user.clone(),
        database: source.postgres_database.clone(),
        application_name: APPLICATION_NAME.into(),
        tls: libpq_environment::tls_options(source, variable).map_err(anyhow::Error::msg)?,
        options: None,
        connect_timeout: CONNECT_TIMEOUT_DEFAULT,
    })
}

/// What the replicator has to be told.
/// # Errors
/// A variable of the environment that holds what it cannot.
pub fn replicator_config(config: &Config, source: &PostgresReplication) -> anyhow::Result<ReplicatorConfig> {
    Ok(ReplicatorConfig {
        connection: connection(source)?,
        slot_name: source.slot_name.clone(),
        publication_names: source.publications(),
        replica_database: source.replica_database.clone(),
        branch: source.branch.clone(),
        initial_copy: match source.initial_copy {
            AutoNever::Auto => InitialCopy::Auto,
            AutoNever::Never => InitialCopy::Never,
        },
        create_tables: match source.create_tables {
            AutoNever::Auto => CreateTables::Auto,
            AutoNever::Never => CreateTables::Never,
        },
        copy_workers: source.copy_workers,
        cfg_dir: config.cfg_dir(),
        commit_mode: match config.behavior.dolt_transaction_commit {
            Some(false) => CommitMode::WorkingSet,
            None | Some(true) => CommitMode::EachTransaction,
        },
        conflicts: ConflictPolicies {
            insert_exists: match source.conflicts.insert_exists {
                InsertExists::Error => Resolution::Error,
                InsertExists::Apply => Resolution::Apply,
                InsertExists::Keep => Resolution::Keep,
            },
            update_exists: match source.conflicts.update_exists {
                UpdateExists::Error => Resolution::Error,
                UpdateExists::Keep => Resolution::Keep,
            },
            update_missing: match source.conflicts.update_missing {
                UpdateMissing::Skip => Resolution::Skip,
                UpdateMissing::Apply => Resolution::Apply,
                UpdateMissing::Error => Resolution::Error,
            },
            delete_missing: match source.conflicts.delete_missing {
                DeleteMissing::Skip => Resolution::Skip,
                DeleteMissing::Error => Resolution::Error,
            },
        },
        streaming: source.streaming.0,
        stream_memory_max: usize::try_from(source.stream_memory.0).unwrap_or(usize::MAX),
        spool_folder: config.data_dir.join("spool").join(&source.slot_name),
        two_phase: source.two_phase.0,
        prepared_folder: config.data_dir.join("prepared").join(&source.slot_name),
        watch: config.subscriptions.watch(),
        subscription: None,
        expressions: None,
    })
}
