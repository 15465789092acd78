//! What a commit changed, slim: key, old and new values of the changed columns.

use std::sync::Arc;

use crate::id::ChunkAddress;
use crate::schema::{CatalogObject, Oid};
use crate::value::{Row, Value};

/// All changes of one commit: first the catalog, then the tables in the order of their first change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSet {
    pub catalog: Vec<CatalogChange>,
    pub tables: Vec<TableChange>,
}

impl ChangeSet {
    pub fn is_empty(&self) -> bool {
        self.catalog.is_empty() && self.tables.is_empty()
    }
}

/// An object that is new or different (`Some`) or gone (`None`).
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogChange {
    pub oid: Oid,
    pub object: Option<Arc<CatalogObject>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableChange {
    pub table: Oid,
    pub rows: RowsChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowsChange {
    /// Row by row, in the order they happened.
    Rows(Vec<RowChange>),
    /// The whole table is now the tree at this address (`None`: empty): bulk load, rewrite, TRUNCATE.
    Replaced { rows: Option<ChunkAddress> },
    /// The table is gone.
    Dropped,
}

/// One row's change. `key` is the encoded row key (see `TableData::row_key`).
#[derive(Clone, Debug, PartialEq)]
pub struct RowChange {
    pub key: Box<[u8]>,
    pub kind: RowChangeKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RowChangeKind {
    Inserted {
        new: Row,
    },
    /// Changed columns only, by position, ascending: (column, old, new). A change of the key is a deletion and an insertion.
    Updated {
        columns: Vec<(u16, Value, Value)>,
    },
    Deleted {
        old: Row,
    },
}
