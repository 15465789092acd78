//! pg_catalog, computed from the versioned catalog of the statement's root and PostgreSQL 15's built-in rows.
//!
//! Every relation of PostgreSQL 15's pg_catalog exists with its columns. Rows come from three places: built-in rows, made
//! once and shared; rows made from the catalog's objects when the table is read; and rows that only the server knows
//! (backends, replication). A relation about things that do not exist here (triggers, policies, foreign tables) is empty.

mod attributes;
mod classes;
mod cluster;
mod functions;
pub(crate) mod keys;
mod listings;
pub mod relations;
pub mod server_rows;
mod types;

use std::sync::Arc;

use strandline_storage::{Physical, Row};

use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{RowIterator, has_shape};
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn, VirtualTable};
use relations::{PG_CATALOG_SCHEMA, SharedRows, SystemRelation, relations};

pub use cluster::{database_oid, role_name, role_oid};

/// A relation of pg_catalog.
#[derive(Clone, Copy, Debug)]
struct CatalogTable {
    relation: &'static SystemRelation,
}

/// The rows of a relation: shared ones first.
#[derive(Default)]
pub(crate) struct CatalogRows {
    shared: Option<SharedRows>,
    own: Vec<Row>,
}

impl From<Vec<Row>> for CatalogRows {
    fn from(own: Vec<Row>) -> Self {
        CatalogRows { shared: None, own }
    }
}

/// The table of this name.
pub fn lookup(name: &str) -> Option<Arc<dyn VirtualTable>> {
    Some(Arc::new(CatalogTable { relation: relations().table(PG_CATALOG_SCHEMA, name)? }))
}

impl VirtualTable for CatalogTable {
    fn columns(&self) -> &[VirtualColumn] {
        &self.relation.shape.columns
    }

    fn scan(&self, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
        let rows = rows(self.relation, context)?;
        Ok(batches(self.relation, rows, request))
    }

    fn oid(&self) -> u32 {
        self.relation.oid
    }
}

/// Keeps the rows that the request wants, as far as that is decided by equal bytes, and projects them.
pub(crate) fn batches(relation: &'static SystemRelation, rows: CatalogRows, request: &ScanRequest) -> BatchIterator {
    let kinds = &relation.shape.kinds;
    let equal: Vec<_> = request
        .equal
        .iter()
        .filter(|(column, value)| {
            let kind = kinds[*column];
            has_shape(value, kind) && !matches!(kind.physical(), Physical::Float4 | Physical::Float8)
        })
        .cloned()
        .collect();
    let projection = request.projection.clone();
    let pick = move |row: &Row| {
        let wanted = equal.iter().all(|(column, value)| row[*column] == *value);
        wanted.then(|| Ok(projection.iter().map(|&i| row[i].clone()).collect::<Row>()))
    };
    let shared = rows.shared.unwrap_or_default();
    let shared_pick = pick.clone();
    let count = shared.len();
    let rows: RowIterator =
        Box::new((0..count).filter_map(move |i| shared_pick(&shared[i])).chain(rows.own.into_iter().filter_map(move |row| pick(&row))));
    relation.shape.projected_batches(request, rows)
}

fn rows(relation: &'static SystemRelation, context: &StatementContext) -> Result<CatalogRows> {
    Ok(match relation.name {
        "pg_namespace" => classes::namespaces(context).into(),
        "pg_class" => classes::classes(context),
        "pg_sequence" => classes::sequences(context).into(),
        "pg_depend" => classes::dependencies(context).into(),
        "pg_attribute" => attributes::attributes(context),
        "pg_attrdef" => attributes::defaults(context).into(),
        "pg_index" => keys::indexes(context),
        "pg_constraint" => keys::constraints(context),
        "pg_type" => types::types(context),
        "pg_enum" => types::enum_labels(context).into(),
        "pg_range" => types::ranges(),
        "pg_cast" => types::casts(),
        "pg_collation" => types::collations(),
        "pg_proc" => functions::procs(),
        "pg_operator" => functions::operators(),
        "pg_aggregate" => functions::aggregates(),
        "pg_language" => functions::languages(),
        "pg_am" => functions::access_methods(),
        "pg_amop" => functions::amops(),
        "pg_amproc" => functions::amprocs(),
        "pg_opclass" => functions::operator_classes(),
        "pg_opfamily" => functions::operator_families(),
        "pg_description" => functions::descriptions(context),
        "pg_database" => cluster::databases(context).into(),
        "pg_authid" => cluster::authids(context).into(),
        "pg_roles" => cluster::roles(context).into(),
        "pg_user" => cluster::users(context).into(),
        "pg_shadow" => cluster::shadows(context).into(),
        "pg_group" => cluster::groups(context).into(),
        "pg_tablespace" => cluster::tablespaces(context).into(),
        "pg_settings" => cluster::settings(context).into(),
        "pg_timezone_names" => cluster::time_zones(context).into(),
        "pg_stat_database" => cluster::database_statistics(context).into(),
        "pg_tables" => listings::tables(context).into(),
        "pg_views" => listings::views(context).into(),
        "pg_indexes" => listings::indexes(context).into(),
        "pg_sequences" => listings::sequences(context).into(),
        "pg_stat_user_tables" | "pg_stat_all_tables" => listings::table_statistics(relation, context).into(),
        "pg_stat_activity"
        | "pg_stat_progress_copy"
        | "pg_stat_subscription"
        | "pg_stat_subscription_stats"
        | "pg_subscription"
        | "pg_subscription_rel"
        | "pg_stat_replication"
        | "pg_replication_slots"
        | "pg_stat_wal_receiver"
        | "pg_stat_ssl"
        | "pg_replication_origin"
        | "pg_replication_origin_status"
        | "pg_prepared_statements"
        | "pg_cursors" => server_rows::rows(relation, context)?.into(),
        _ => CatalogRows::default(),
    })
}

/// A list of rows made once.
macro_rules! shared_rows {
    ($make:expr) => {{
        static ROWS: std::sync::LazyLock<$crate::system::pg_catalog::relations::SharedRows> =
            std::sync::LazyLock::new(|| std::sync::Arc::new($make));
        $crate::system::pg_catalog::CatalogRows { shared: Some(std::sync::Arc::clone(&ROWS)), own: Vec::new() }
    }};
}
use shared_rows;
