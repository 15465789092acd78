//! TRUNCATE.

use std::collections::BTreeMap;
use std::sync::Arc;

use pg_query::protobuf::{DropBehavior, TruncateStmt};
use strandline_storage::schema::ConstraintKind;
use strandline_storage::{CatalogObject, TableSchema};

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Statement;
use crate::session::{Notice, NoticeCode, Outcome, SequenceState, Session};
use crate::statement::{ddl, tree};

pub fn execute(session: &mut Session, _statement: &Statement, truncate: &TruncateStmt) -> Result<Outcome> {
    let core = session.core.clone();
    core.check_writable("TRUNCATE TABLE")?;
    let context = core.statement_context(Vec::new())?;
    let mut tables: BTreeMap<u32, Arc<TableSchema>> = BTreeMap::new();
    for relation in &truncate.relations {
        let (schema, name) = tree::object_name(relation)?;
        let table = ddl::find_table(&context, schema.as_deref(), &name)?;
        tables.insert(table.oid, table);
    }
    let catalog = context.root.catalog().clone();
    // Tables that refer to truncated ones must be truncated, too.
    loop {
        let missing = catalog.tables().find_map(|t| {
            if tables.contains_key(&t.oid) {
                return None;
            }
            t.constraints.iter().find_map(|c| match &c.kind {
                ConstraintKind::ForeignKey { table, .. } if tables.contains_key(table) => Some((t.clone(), *table)),
                _ => None,
            })
        });
        let Some((table, target)) = missing else { break };
        if truncate.behavior() != DropBehavior::DropCascade {
            let target = tables.get(&target).map_or("", |t| t.name.as_str());
            return Err(SqlError::new(ErrorCode::FeatureNotSupported, "cannot truncate a table referenced in a foreign key constraint")
                .detail(format!("Table \"{}\" references \"{target}\".", table.name))
                .hint(format!("Truncate table \"{}\" at the same time, or use TRUNCATE ... CASCADE.", table.name)));
        }
        core.notice(Notice::new(NoticeCode::Success, format!("truncate cascades to table \"{}\"", table.name)));
        tables.insert(table.oid, table);
    }
    core.with_edit("TRUNCATE TABLE", |edit| {
        for oid in tables.keys() {
            edit.truncate(*oid)?;
        }
        Ok(())
    })?;
    if truncate.restart_seqs {
        for object in catalog.objects.values() {
            if let CatalogObject::Sequence(sequence) = &**object
                && sequence.owned_by.is_some_and(|(table, _)| tables.contains_key(&table))
            {
                core.engine.sequences.set(sequence, SequenceState { last_value: sequence.start, is_called: false })?;
            }
        }
    }
    Ok(Outcome::done("TRUNCATE TABLE"))
}
