//! The primary's catalog, as far as a replica needs it.
//!
//! Logical replication carries rows, not definitions. Where a published table does not exist here, its definition is read from the
//! primary's catalog ([`read_tables`], [`read_published`]) and translated into ours ([`create_table`]): columns with types, NOT NULL and defaults, the
//! primary key, indexes, and the sequences behind serial and identity columns. Checks, foreign keys and triggers stay with the primary, which enforces them.
//! So do generated columns: the stream does not carry them.

mod client;
mod create;
mod describe;
mod publication;
mod tls;
mod types;
mod visible;

pub(crate) use client::CatalogClient;
pub(crate) use create::{create_table, ensure_schema, local_column, table_from_relation};
pub(crate) use describe::{RemoteColumn, RemoteTable, has_older_rows, read_tables};
pub(crate) use publication::{PublishedTable, read_published};
pub(crate) use types::{RemoteTypes, read_types};
pub(crate) use visible::wait_until_visible;
