//! Sessions: what a client's connection is to SQL. The public face of the crate.
//!
//! ```text
//! Engine ---connect---> Session --parse/bind/execute--> Outcome { Done, Rows, CopyIn, CopyOut, Empty }
//!   |                      |
//!   store, roles,          SessionCore: settings, database and revision, the transaction under way; shared with the
//!   sequences, executor    query threads, because functions (nextval, set_config, dolt_commit) act on their session
//! ```
//! A [`Session`] is plain state, owned by its connection. Its methods block (they read the store and wait for durable
//! commits): an asynchronous caller runs them on a blocking thread. Only rows stream asynchronously. A client's cancel
//! request goes through [`CancelHandle`], which acts on the flag that all loops check and wakes whoever waits for rows.
//!
//! A transaction is explicit (BEGIN) or implicit: the statements of one simple query, or of one stretch between two
//! Syncs. The caller says where an implicit one ends: [`Session::finish`], or [`Session::fail`] after an error.

mod access;
mod core;
mod engine;
mod names;
mod portal;
pub mod role;
