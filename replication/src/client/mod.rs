//! A replication connection: what libpq's walreceiver does, on `postgres-protocol`.
//!
//! A replication connection is an ordinary connection that was started with `replication=database`. It takes commands
//! (`IDENTIFY_SYSTEM`, `CREATE_REPLICATION_SLOT`, plain SQL) in the simple protocol only, until `START_REPLICATION` turns it into a stream of
//! CopyData messages in both directions: WAL data and keepalives to us, status updates to the primary.
//!
//! [`Connection`] is the first half of that life, [`ReplicationStream`] the second. Bytes are received into one contiguous buffer; whole
//! messages are split off its front without copying and handed on as a [`Batch`], whose messages are slices.
//!
//! No TLS yet: the connection is in plain text.

mod authentication;
mod commands;
mod connection;
mod low_water;
mod stream;

pub use commands::{CreatedSlot, SlotInfo, StreamOptions, SystemIdentity, quote_identifier, quote_literal};
pub use connection::{Connection, ConnectionConfig, PINNED_SETTINGS};
pub use stream::{Batch, ReplicationStream, StreamMessage, StreamMessages};
