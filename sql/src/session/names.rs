//! What names mean to a statement: the binder's [`Names`] over the statement's context.
//!
//! A relation is looked for schema by schema along the search path: stored tables, views and sequences first in each, then
//! the computed tables. `pg_catalog` comes before the path unless the path says where.

use std::sync::Arc;

use strandline_storage::schema::UserType;
use strandline_storage::value::TextSettings;
use strandline_storage::{Catalog, CatalogObject, CommitId, Root, Store, Timestamp, Value};

use crate::bind::names::{AsOf, Names, Relation, TableFunctionArgument, ViewDefinition};
use crate::bound::Expr;
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::role;
use crate::session::sequence_table::SequenceTable;
use crate::system;
use crate::system::refs;
use crate::types::{Oid, SqlType};
use crate::virtual_table::VirtualTable;

/// See the module.
pub struct ContextNames<'a> {
    context: &'a Arc<StatementContext>,
    /// Parameters have values; while a statement is only described they have not.
    has_values: bool,
}

impl<'a> ContextNames<'a> {
    pub fn new(context: &'a Arc<StatementContext>, has_values: bool) -> Self {
        ContextNames { context, has_values }
    }

    fn catalog(&self) -> &Arc<Catalog> {
        self.context.root.catalog()
    }

    /// Another revision of this database: `"db/branch".public.t`.
    fn root_of(&self, catalog: Option<&str>) -> Result<Option<Root>> {
        let Some(name) = catalog else { return Ok(None) };
        let here = refs::split_revision(&self.context.database).0;
        if name == self.context.database || name == here {
            return Ok(None);
        }
        let (database, revision) = refs::split_revision(name);
        let (true, Some(revision)) = (database == here, revision) else {
            return Err(SqlError::new(
                ErrorCode::FeatureNotSupported,
                format!("cross-database references are not implemented: \"{name}\""),
            ));
        };
        // A branch is read with its working set, as a session on it would.
        if let Ok(branch) = self.context.store.branch(database, revision) {
            return Ok(Some(branch.state().working));
        }
        refs::root_at_ref(self.context, revision).map(Some)
    }

    fn stored(&self, root: &Root, schema: &str, name: &str) -> Option<Relation> {
        let catalog = root.catalog();
        Some(match &**catalog.relation(schema, name)? {
            CatalogObject::Table(table) => Relation::Table(root.table(table.oid)?.clone()),
            CatalogObject::View(view) => Relation::View(ViewDefinition {
                oid: view.oid,
                columns: view.columns.iter().map(|(name, _)| name.clone()).collect(),
                query: view.query.clone(),
            }),
            CatalogObject::Sequence(sequence) => Relation::Virtual(Arc::new(SequenceTable::new(sequence.clone(), self.context))),
            _ => return None,
        })
    }

    fn find(&self, root: &Root, schema: Option<&str>, name: &str) -> Option<Relation> {
        let computed = |schema: Option<&str>| system::lookup(schema, name, self.context).map(Relation::Virtual);
        if let Some(schema) = schema {
            return self.stored(root, schema, name).or_else(|| computed(Some(schema)));
        }
        let path = &self.context.search_path;
        let first = if path.iter().any(|s| s == "pg_catalog") { None } else { computed(Some("pg_catalog")) };
        first.or_else(|| path.iter().find_map(|schema| self.stored(root, schema, name))).or_else(|| computed(None))
    }
}

impl Names for ContextNames<'_> {
    fn relation(&self, catalog: Option<&str>, schema: Option<&str>, name: &str) -> Result<Option<Relation>> {
        match self.root_of(catalog)? {
            Some(root) => Ok(self.find(&root, schema, name)),
            None => Ok(self.find(&self.context.root, schema, name)),
        }
    }

    fn relation_schema(&self, name: &str) -> Option<String> {
        let path = &self.context.search_path;
        let is_catalog = || system::lookup(Some("pg_catalog"), name, self.context).is_some();
        if !path.iter().any(|s| s == "pg_catalog") && is_catalog() {
            return Some("pg_catalog".into());
        }
        path.iter()
            .find(|schema| self.catalog().relation(schema, name).is_some() || system::lookup(Some(schema), name, self.context).is_some())
            .cloned()
    }

    fn relation_as_of(&self, catalog: Option<&str>, schema: Option<&str>, name: &str, as_of: &AsOf) -> Result<Option<Relation>> {
        let context = self.context;
        let root = match as_of {
            AsOf::Unknown => return self.relation(catalog, schema, name),
            AsOf::Ref(text) => refs::root_at_ref(context, text)?,
            AsOf::Timestamp(micros) => refs::root_at(context, |r| r.at_time(Timestamp(*micros)))?,
            AsOf::Lsn(lsn) => refs::root_at(context, |r| r.at_lsn(strandline_storage::Lsn(*lsn)))?,
            AsOf::Xid(xid) => refs::root_at(context, |r| r.at_xid(*xid))?,
        };
        let found = match schema {
            Some(schema) => self.stored(&root, schema, name),
            None => context.search_path.iter().find_map(|schema| self.stored(&root, schema, name)),
        };
        Ok(match found {
            // A table that was made later, or dropped: the name is known, the moment has no such table.
            None => {
                if system::lookup(schema, name, context).is_some() {
                    return Err(SqlError::unsupported(format_args!("AS OF on the computed table \"{name}\"")));
                }
                None
            }
            found => found,
        })
    }

    fn table_function(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: &[TableFunctionArgument],
    ) -> Result<Option<Arc<dyn VirtualTable>>> {
        system::table_function(schema, name, arguments, self.context)
    }

    fn is_table_function(&self, schema: Option<&str>, name: &str) -> bool {
        system::is_table_function(schema, name)
    }

    fn user_type(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<UserType>>> {
        let catalog = self.catalog();
        let in_schema = |schema: &str| {
            let oid = catalog.schema(schema)?.oid;
            catalog.objects.values().find_map(|o| match &**o {
                CatalogObject::Type(t) if t.schema_oid == oid && t.name == name => Some(Arc::new(t.clone())),
                _ => None,
            })
        };
        Ok(match schema {
            Some(schema) => in_schema(schema),
            None => self.context.search_path.iter().find_map(|s| in_schema(s)),
        })
    }

    fn user_type_by_oid(&self, oid: Oid) -> Option<Arc<UserType>> {
        self.catalog().objects.values().find_map(|o| match &**o {
            CatalogObject::Type(t) if t.oid == oid || t.array_oid == oid => Some(Arc::new(t.clone())),
            _ => None,
        })
    }

    fn row_type(&self, relation: Oid) -> Option<Vec<(String, SqlType)>> {
        let fields = |list: &mut dyn Iterator<Item = (&String, &strandline_storage::DataType)>| {
            list.map(|(name, ty)| (name.clone(), SqlType { oid: ty.oid, typmod: ty.typmod })).collect()
        };
        match &**self.catalog().get(relation)? {
            CatalogObject::Table(table) => Some(fields(&mut table.columns.iter().map(|c| (&c.name, &c.data_type)))),
            CatalogObject::View(view) => Some(fields(&mut view.columns.iter().map(|(n, t)| (n, t)))),
            _ => None,
        }
    }

    fn relation_oid(&self, schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
        Ok(system::definitions::relation_oid(self.context, schema, name))
    }

    fn schema_oid(&self, name: &str) -> Option<Oid> {
        system::definitions::schema_oid(self.catalog(), name)
    }

    fn role_oid(&self, name: &str) -> Option<Oid> {
        role::get(&self.context.store, name).ok().flatten().map(|r| r.oid)
    }

    fn evaluate(&self, expr: &Expr) -> Result<Option<Value>> {
        if !self.has_values && has_parameter(expr) {
            return Ok(None);
        }
        crate::exec::eval_const(expr, self.context).map(Some)
    }

    fn text_settings(&self) -> &TextSettings {
        &self.context.text
    }
}

/// Says whether an expression without columns has parameters. Only the shapes that constants take are looked into.
fn has_parameter(expr: &Expr) -> bool {
    match expr {
        Expr::Param { .. } => true,
        Expr::Const { .. } => false,
        Expr::Function(call) => call.args.iter().any(has_parameter),
        Expr::Cast { input, .. } => has_parameter(input),
        Expr::And(args) | Expr::Or(args) => args.iter().any(has_parameter),
        Expr::Not(input) | Expr::IsNull(input) | Expr::IsNotNull(input) => has_parameter(input),
        Expr::Case { whens, default, .. } => {
            whens.iter().any(|(a, b)| has_parameter(a) || has_parameter(b)) || default.as_deref().is_some_and(has_parameter)
        }
        Expr::Coalesce { args, .. } | Expr::MinMax { args, .. } | Expr::Array { elements: args, .. } => args.iter().any(has_parameter),
        // Anything else may have some: the value is asked for when it is known for sure.
        _ => true,
    }
}

/// The commit that a revision in a database's name means.
pub fn resolve_commit(store: &Store, database: &str, default_branch: &str, reference: &str) -> Result<CommitId> {
    match refs::resolve_database(store, &format!("{database}/{reference}"), default_branch)? {
        Revision::Commit(id) => Ok(id),
        Revision::Branch(name) => store
            .branches(database)?
            .into_iter()
            .find(|(b, _)| *b == name)
            .map(|(_, head)| head)
            .ok_or_else(|| refs::unknown_ref(reference)),
    }
}
