//! CREATE VIEW. A view is kept as the text of its query, settled so that what happens to its tables later changes nothing in it
//! ([`crate::bind::Settled`]).

use std::sync::Arc;

use pg_query::protobuf::{Alias, ViewStmt};
use strandline_storage::schema::View;
use strandline_storage::{Catalog, CatalogObject, Oid};

use crate::context::StatementContext;
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
    let text = binding::settled_query(&ddl.context, &ddl.source, node)?;
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
                    )
                    .hint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead."));
                }
                if (new.1.oid, new.1.typmod) != (old.1.oid, old.1.typmod) {
                    return Err(SqlError::new(
                        ErrorCode::InvalidTableDefinition,
                        format!("cannot change data type of view column \"{}\" from {} to {}", old.0, old.1.sql_name(), new.1.sql_name()),
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

/// A relation's name as views have it: schema and name.
pub type Named<'a> = (&'a str, &'a str);

/// The views whose queries name a relation.
pub fn views_naming(catalog: &Catalog, relation: Named<'_>) -> Vec<View> {
    let names = |view: &View| {
        let own = catalog.schema_name(view.schema_oid).unwrap_or_default();
        relations_of(&view.query).iter().any(|(s, n)| n == relation.1 && s.as_deref().unwrap_or(own) == relation.0)
    };
    catalog
        .objects
        .values()
        .filter_map(|o| match &**o {
            CatalogObject::View(view) if names(view) => Some(view.clone()),
            _ => None,
        })
        .collect()
}

/// The views whose own text uses a column of a table.
pub fn using_column(context: &Arc<StatementContext>, table: Oid, attnum: i16) -> Vec<View> {
    let catalog = context.root.catalog();
    let Some(schema) = catalog.table(table) else { return Vec::new() };
    let own = catalog.schema_name(schema.schema_oid).unwrap_or_default();
    let mut views = views_naming(catalog, (own, &schema.name));
    views.retain(|view| binding::view_columns_used(context, &view.query).contains(&(table, attnum)));
    views
}

/// Says whether the view's query gives its columns with the tables as they are in `context`.
pub fn still_holds(context: &Arc<StatementContext>, view: &View) -> bool {
    crate::parse::parse_stored(&view.query)
        .and_then(|(source, node)| binding::query_columns(context, &source, &node))
        .is_ok_and(|columns| columns.len() == view.columns.len() && columns.iter().zip(&view.columns).all(|(a, b)| a.1.oid == b.1.oid))
}

/// Has the views that name relations follow them to new names; call it when the relations have theirs.
///
/// # Errors
/// `FeatureNotSupported` when a view names one in a way that its text cannot follow.
pub fn follow(ddl: &Ddl, renamed: &[(Named<'_>, Named<'_>)]) -> Result<()> {
    let mut changed = Vec::new();
    for (old, _) in renamed {
        for view in views_naming(ddl.catalog(), *old) {
            if !changed.iter().any(|v: &View| v.oid == view.oid) {
                changed.push(view);
            }
        }
    }
    for mut view in changed {
        let (source, mut node) = crate::parse::parse_stored(&view.query)?;
        // SAFETY: `nodes_mut` hands out pointers into the tree that we own; one is used at a time, and no node is moved.
        for (node, _, _) in unsafe { node.nodes_mut() } {
            let pg_query::NodeMut::RangeVar(range) = node else { continue };
            // SAFETY: as above.
            let range = unsafe { &mut *range };
            let found = renamed.iter().find(|((schema, name), _)| range.schemaname == *schema && range.relname == *name);
            let Some((old, new)) = found else { continue };
            // The query goes on to call it by the name that it knows.
            if range.alias.is_none() && old.1 != new.1 {
                range.alias = Some(Alias { aliasname: old.1.to_owned(), colnames: Vec::new() });
            }
            new.0.clone_into(&mut range.schemaname);
            new.1.clone_into(&mut range.relname);
        }
        view.query = source.text_of(&node)?;
        // The view itself may have moved to another schema by now.
        let context = ddl.core.statement_context(Vec::new())?;
        if let Some(CatalogObject::View(now)) = context.root.catalog().get(view.oid).map(|o| &**o) {
            view.schema_oid = now.schema_oid;
            view.name.clone_from(&now.name);
        }
        let name = view.name.clone();
        ddl.core.with_edit("ALTER VIEW", |edit| Ok(edit.put_object(CatalogObject::View(view.clone()))?))?;
        let context = ddl.core.statement_context(Vec::new())?;
        if !still_holds(&context, &view) {
            return Err(SqlError::unsupported(format_args!("renaming a relation that view \"{name}\" uses by its full name")));
        }
    }
    Ok(())
}
