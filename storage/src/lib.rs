//! The content-addressed, version-controlled store under Strandline.
//!
//! A commit is a change set appended to a journal; the head of a branch is a root value whose trees live in
//! memory and get their chunk addresses lazily; a checkpoint writes those trees out. This crate is
//! synchronous and knows neither SQL nor a wire protocol: values, rows, trees, commits, refs.

pub mod change_set;
mod checked_file;
mod checkpoint;
pub mod chunk;
pub mod commit;
mod commit_index;
#[cfg(test)]
mod crash_tests;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod decoders;
mod derived;
pub mod diff;
mod disk;
pub mod edit;
mod encoding;
pub mod error;
#[cfg(test)]
mod fixture;
mod fsck;
mod gc;
mod helpers;
pub mod id;
mod interpolation;
mod journal;
mod key_bytes;
pub mod merge;
mod net_changes;
mod record;
mod recovery;
pub mod root;
mod row_index;
pub mod schema;
mod sizes;
pub mod store;
pub mod table;
pub mod tree;
pub mod value;

pub use change_set::{ChangeSet, RowChange, RowChangeKind};
pub use chunk::{ChunkReader, ChunkWriter};
pub use commit::{Commit, CommitMeta, Identity, Source};
pub use edit::Edit;
pub use error::{Error, Result, ValueError, ValueErrorCode};
pub use id::{ChunkAddress, CommitId, Lsn, Timestamp};
pub use key_bytes::KeyBytes;
pub use root::Root;
pub use schema::{Catalog, CatalogObject, Oid, TableSchema};
pub use sizes::{KindSize, sizes};
pub use store::{Apply, Branch, BranchState, JournalPosition, Store, StoreOptions, TableAt};
pub use table::{KeyRange, TableData};
pub use value::{DataType, Kind, Physical, Row, Value};
