//! INSERT, UPDATE, DELETE: rows and keys are selected from the statement's snapshot first, then the edit is changed.

pub mod foreign_keys;
mod rows;
pub mod truncate;

use pg_query::NodeEnum;
use strandline_storage::Value;

use crate::error::Result;
use crate::parse::Statement;
use crate::session::{Outcome, OutputColumn, Session};
use crate::types::Oid;

pub use rows::{Checks, Filler, identity_sequence, refuse_generated};

/// Says whether a query has INSERT, UPDATE or DELETE in its WITH clause.
pub fn modifying_ctes(node: &NodeEnum) -> bool {
    let NodeEnum::SelectStmt(select) = node else { return false };
    select.with_clause.as_ref().is_some_and(|with| {
        with.ctes.iter().any(|cte| match &cte.node {
            Some(NodeEnum::CommonTableExpr(cte)) => cte.ctequery.as_deref().is_some_and(|q| {
                matches!(q.node, Some(NodeEnum::InsertStmt(_) | NodeEnum::UpdateStmt(_) | NodeEnum::DeleteStmt(_) | NodeEnum::MergeStmt(_)))
            }),
            _ => false,
        })
    })
}

pub fn execute(_session: &mut Session, _statement: &Statement, _params: Vec<Value>) -> Result<Outcome> {
    Err(crate::error::SqlError::unsupported("DML"))
}

pub fn describe(_session: &mut Session, _statement: &Statement, _types: &[Oid]) -> Result<(Vec<Oid>, Option<Vec<OutputColumn>>)> {
    Err(crate::error::SqlError::unsupported("DML"))
}
