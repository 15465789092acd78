//! information_schema, in PostgreSQL 15's columns, over the same objects as pg_catalog.
//!
//! Views about things that do not exist here (routines made by users, triggers, foreign tables) are empty.

mod columns;
mod constraints;
mod listings;

use std::sync::Arc;

use strandline_storage::{Row, Value};

use super::builder::text;
use super::pg_catalog::relations::{INFORMATION_SCHEMA, SystemRelation, relations};
use super::pg_catalog::{CatalogRows, batches};
use super::refs::plain_database;
use crate::context::StatementContext;
use crate::error::Result;
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn, VirtualTable};

/// A view of information_schema.
#[derive(Clone, Copy, Debug)]
struct InformationTable {
    relation: &'static SystemRelation,
}

/// The view of this name.
pub fn lookup(name: &str) -> Option<Arc<dyn VirtualTable>> {
    Some(Arc::new(InformationTable { relation: relations().table(INFORMATION_SCHEMA, name)? }))
}

impl VirtualTable for InformationTable {
    fn columns(&self) -> &[VirtualColumn] {
        &self.relation.shape.columns
    }

    fn scan(&self, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
        Ok(batches(self.relation, CatalogRows::from(rows(self.relation, context)), request))
    }

    fn oid(&self) -> u32 {
        self.relation.oid
    }
}

fn rows(relation: &'static SystemRelation, context: &StatementContext) -> Vec<Row> {
    match relation.name {
        "tables" => listings::tables(relation, context),
        "views" => listings::views(relation, context),
        "schemata" => listings::schemata(relation, context),
        "sequences" => listings::sequences(relation, context),
        "domains" => listings::domains(relation, context),
        "information_schema_catalog_name" => vec![relation.row().set("catalog_name", text(plain_database(context))).done()],
        "character_sets" => listings::character_sets(relation, context),
        "enabled_roles" => vec![relation.row().set("role_name", text(&context.user)).done()],
        "table_privileges" | "role_table_grants" => listings::table_privileges(relation, context),
        "columns" => columns::columns(relation, context),
        "table_constraints" => constraints::table_constraints(relation, context),
        "key_column_usage" => constraints::key_column_usage(relation, context),
        "constraint_column_usage" => constraints::constraint_column_usage(relation, context),
        "constraint_table_usage" => constraints::constraint_table_usage(relation, context),
        "referential_constraints" => constraints::referential_constraints(relation, context),
        "check_constraints" => constraints::check_constraints(relation, context),
        "domain_constraints" => constraints::domain_constraints(relation, context),
        _ => Vec::new(),
    }
}

fn yes_or_no(yes: bool) -> Value {
    text(if yes { "YES" } else { "NO" })
}
