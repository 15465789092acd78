//! A replication connection: what libpq's walreceiver does, on `postgres-protocol`.
//!
//! A replication connection is an ordinary connection that was started with `replication=database`. It takes commands
//! (`IDENTIFY_SYSTEM`, `CREATE_REPLICATION_SLOT`, plain SQL) in the simple protocol only, until `START_REPLICATION` turns it into a stream of
//! CopyData messages in both directions: WAL data and keepalives to us, status updates to the primary.
//!
//! [`Connection`] is the first half of that life, [`ReplicationStream`] the second. Bytes are received into one contiguous buffer; whole
//! messages are split off its front without copying and handed on as a [`Batch`], whose messages are slices.
//!
//! Below lies a socket in plain text or in TLS (`socket`, `tls`).

mod authentication;
mod channel_binding;
mod commands;
mod connection;
mod copy_out;
mod low_water;
mod password_file;
mod places;
mod socket;
mod stream;
mod tls;

pub(crate) use channel_binding::server_end_point;
pub use commands::{
    CreatedSlot, SLOT_COPY_VERSION_MIN, SlotInfo, StreamOptions, Streaming, SystemIdentity, quote_identifier, quote_literal,
};
pub use connection::{CONNECT_TIMEOUT_DEFAULT, Connection, ConnectionConfig, PINNED_SETTINGS};
pub(crate) use connection::{major_version, timed_out};
pub(crate) use copy_out::CopyMessages;
pub use password_file::PasswordFile;
pub use places::{Place, Places, SOCKET_FOLDER, SessionAttributes};
pub use stream::{Batch, ReplicationStream, StreamMessage, StreamMessages};
pub(crate) use tls::server_name;
pub use tls::{ChannelBinding, SslMode, TlsOptions};
