//! Tables that were made by hand and not committed yet.
//!
//! A replicated commit is made on HEAD and never contains uncommitted changes, so a table that exists in the working set only cannot receive rows. Where
//! the stream (or the initial copy) names such a table, the table as it is there, with its rows and what it depends on, is committed first, on its own.

use std::sync::Arc;

use strandline_storage::schema::{CatalogObject, Oid, TableSchema};
use strandline_storage::store::Branch;
use strandline_storage::{CommitMeta, Error as StoreError, Identity, Result, Timestamp};

/// How often to start over when somebody else changes the branch meanwhile.
const ATTEMPT_COUNT_MAX: usize = 20;

/// Commits those of these tables (schema, name) that the working set has and HEAD has not. Returns how many.
pub(crate) fn adopt_tables(branch: &Arc<Branch>, names: &[(String, String)], author: &Identity) -> Result<usize> {
    for _ in 0..ATTEMPT_COUNT_MAX {
        let state = branch.state();
        let (head, working) = (state.head_root.catalog(), state.working.catalog());
        let tables: Vec<&Arc<TableSchema>> = names
            .iter()
            .filter(|(schema, name)| head.table_by_name(schema, name).is_none())
            .filter_map(|(schema, name)| working.table_by_name(schema, name))
            .collect();
        if tables.is_empty() {
            return Ok(0);
        }
        // Only these tables: what else is staged stays for its own commit.
        let mut root = state.head_root.clone();
        for table in &tables {
            let needed = needed_objects(table, working.objects.values());
            for oid in needed.into_iter().filter(|oid| head.get(*oid).is_none()).chain([table.oid]) {
                root = root.with_object_of(&state.working, oid);
            }
        }
        let listed = tables.iter().map(|table| working.qualified_name(table)).collect::<Vec<_>>().join(", ");
        let count = tables.len();
        let staged_before = state.staged.clone();
        let now = Timestamp::now();
        let meta = CommitMeta {
            author: author.clone(),
            author_time: now,
            committer: author.clone(),
            commit_time: now,
            message: format!("tables to replicate into: {listed}"),
            source: None,
        };
        let was_staged = !staged_before.same(&state.head_root)?;
        let committed =
            branch.set_roots(state.version, Some(root), None).and_then(|_| branch.commit_staged(branch.state().version, meta, false));
        match committed {
            Ok((commit, _)) => {
                tracing::info!(tables = %listed, commit = %format_args!("{commit:.12}"), "committed tables made by hand, to replicate into them");
                if was_staged {
                    tracing::info!("staged changes are unstaged by this; they remain in the working set");
                }
                return Ok(count);
            }
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Conflict { what: "the branch".into() })
}

/// Oids of the schema, the types and the sequences that a table uses.
fn needed_objects<'a>(table: &TableSchema, objects: impl Iterator<Item = &'a Arc<CatalogObject>>) -> Vec<Oid> {
    objects
        .filter(|object| match &***object {
            CatalogObject::Schema(schema) => schema.oid == table.schema_oid,
            CatalogObject::Type(user_type) => table.columns.iter().any(|column| {
                let element = column.data_type.element.as_ref().map(|e| e.oid);
                [Some(column.data_type.oid), element].contains(&Some(user_type.oid)) || column.data_type.oid == user_type.array_oid
            }),
            CatalogObject::Sequence(sequence) => sequence.owned_by.is_some_and(|(owner, _)| owner == table.oid),
            CatalogObject::Table(_) | CatalogObject::View(_) => false,
        })
        .map(|object| object.oid())
        .collect()
}
