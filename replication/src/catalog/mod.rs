//! The primary's catalog, as far as a replica needs it.
//!
//! Logical replication carries rows, not definitions. Where a published table does not exist here, its definition is read from the primary's catalog
//! ([`read_tables`], [`read_published`]) and translated into ours ([`create_table`]). Triggers, rules, policies and exclusion constraints stay with the primary.

mod client;
mod create;
mod describe;
mod foreign_keys;
mod maker;
mod publication;
mod replace;
mod tls;
mod types;
mod visible;

pub(crate) use client::CatalogClient;
pub(crate) use create::{
    change_sequence, check_default, create_table, ensure_schema, ensure_sequence, local_column, local_identity, owner, set_generated,
    table_from_relation, translate_check, translate_index,
};
pub(crate) use describe::{RemoteColumn, RemoteIndex, RemoteTable, definitions_sql, has_older_rows, read_tables};
pub(crate) use foreign_keys::{connect as connect_foreign_keys, warn_missing as warn_missing_foreign_keys};
pub(crate) use maker::Maker;
pub(crate) use publication::{PublishedTable, read_published};
pub(crate) use replace::{Replacement, plan_replacement};
pub(crate) use types::{RemoteType, RemoteTypes, read_types, type_json};
pub(crate) use visible::wait_until_visible;
