//! Differences between two root values, and between two versions of a table; costs what changed where the trees share nodes.

use std::sync::Arc;

use crate::error::Result;
use crate::root::{Root, TableData};
use crate::schema::{CatalogObject, Oid};
use crate::value::Row;

/// One row's difference. Rows are in their own side's schema.
#[derive(Clone, Debug, PartialEq)]
pub struct RowDiff {
    pub key: Vec<u8>,
    pub from: Option<Row>,
    pub to: Option<Row>,
}

/// One catalog object (a table mostly) that differs between two root values.
#[derive(Clone, Debug)]
pub struct ObjectDiff {
    pub oid: Oid,
    pub from: Option<Arc<CatalogObject>>,
    pub to: Option<Arc<CatalogObject>>,
    /// Rows differ (tables only). A table created or dropped with rows counts.
    pub data_changed: bool,
}

/// Rows that differ, in key order. Either side may be absent. When the primary keys' definitions differ, every row
/// is removed and added.
pub fn diff_tables(from: Option<&TableData>, to: Option<&TableData>) -> Box<dyn Iterator<Item = Result<RowDiff>> + Send> {
    todo!()
}

/// Objects that differ, in oid order.
pub fn diff_roots(from: &Root, to: &Root) -> Result<Vec<ObjectDiff>> {
    todo!()
}
