//! CREATE VIEW. A view is kept as the text of its query, with relation names made independent of the search path.

use pg_query::NodeEnum;
use pg_query::protobuf::ViewStmt;
use strandline_storage::CatalogObject;
use strandline_storage::schema::View;

use crate::error::{ErrorCode, Result, SqlError};
use crate::statement::ddl::{self, Ddl};
use crate::statement::{binding, tree};

pub fn create(ddl: &Ddl, create: &ViewStmt) -> Result<()> {
    let range = tree::range(&create.view)?;
    if range.relpersistence == "t" {
        return Err(SqlError::unsupported("a temporary view"));
    }
    if create.with_check_option > 1 {
        return Err(SqlError::unsupported("WITH CHECK OPTION"));
    }
    if let Some(option) = tree::def_elems(&create.options).next() {
        return Err(SqlError::unsupported(format_args!("view option \"{}\"", option.defname)));
    }
    let (schema, name) = tree::range_name(range);
    let (schema_oid, _) = ddl::creation_schema(&ddl.context, schema.as_deref())?;
    let query = create.query.as_deref().ok_or_else(tree::malformed)?;
    let node = query.node.as_ref().ok_or_else(tree::malformed)?;
    let mut columns = binding::query_columns(&ddl.context, &ddl.source, node)?;
    let aliases = tree::strings(&create.aliases);
    if aliases.len() > columns.len() {
        return Err(SqlError::new(ErrorCode::SyntaxError, "CREATE VIEW specifies more column names than columns"));
    }
    for (column, alias) in columns.iter_mut().zip(aliases) {
        column.0 = alias;
    }
    for (i, (name, _)) in columns.iter().enumerate() {
        if columns[..i].iter().any(|(n, _)| n == name) {
            return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column \"{name}\" specified more than once")));
        }
    }
    let mut qualified = node.clone();
    qualify(ddl, &mut qualified);
    let text = ddl.source.text_of(&qualified)?;
    let existing = ddl.catalog().relation(ddl.catalog().schema_name(schema_oid).unwrap_or_default(), &name).cloned();
    let oid = match existing.as_deref() {
        Some(CatalogObject::View(old)) if create.replace => {
            if columns.len() < old.columns.len() {
                return Err(SqlError::new(ErrorCode::InvalidTableDefinition, "cannot drop columns from view"));
            }
            for (new, old) in columns.iter().zip(&old.columns) {
                if new.0 != old.0 {
                    return Err(SqlError::new(
                        ErrorCode::InvalidTableDefinition,
                        format!("cannot change name of view column \"{}\" to \"{}\"", old.0, new.0),
                    ));
                }
            }
            old.oid
        }
        Some(_) if create.replace => {
            return Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{name}\" is not a view")));
        }
        _ => {
            ddl::check_relation_name(ddl.catalog(), schema_oid, &name)?;
            ddl.oid()?
        }
    };
    let view = View { oid, schema_oid, name, owner: ddl.user().into(), columns, query: text };
    ddl.core.with_edit("CREATE VIEW", |edit| Ok(edit.put_object(CatalogObject::View(view))?))
}

/// Gives relations that the search path finds their schema.
fn qualify(ddl: &Ddl, node: &mut NodeEnum) {
    // SAFETY: `nodes_mut` hands out pointers into the tree that we own and change one at a time.
    for (node, _, _) in unsafe { node.nodes_mut() } {
        if let pg_query::NodeMut::RangeVar(range) = node {
            // SAFETY: as above; the tree outlives the loop and no two pointers are used at once.
            let range = unsafe { &mut *range };
            if range.schemaname.is_empty()
                && let Some(object) = ddl::relation(&ddl.context, None, ddl.source.relation_name(&range.relname))
                && let Some(schema) = object.schema_oid().and_then(|s| ddl.catalog().schema_name(s))
            {
                range.schemaname = schema.to_owned();
            }
        }
    }
}

/// The relations that a stored query names: (schema, name). A past moment's tables stay what they were, so they are not among them.
pub fn relations_of(query: &str) -> Vec<(Option<String>, String)> {
    let Ok((source, node)) = crate::parse::parse_stored(query) else { return Vec::new() };
    node.nodes()
        .into_iter()
        .filter_map(|(node, _, _, _)| match node {
            pg_query::NodeRef::RangeVar(range) if source.as_of(&range.relname).is_none() => Some(tree::range_name(range)),
            _ => None,
        })
        .collect()
}
