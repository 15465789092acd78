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
use crate::system::refs::{self, Resolver, Target};
use crate::types::{Oid, SqlType};
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn, VirtualTable};

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

    /// The context of another revision of this database, `"db/branch".public.t`; the statement's own for a plain name.
    fn context_of(&self, catalog: Option<&str>) -> Result<Arc<StatementContext>> {
        let here = || Ok(Arc::clone(self.context));
        let Some(name) = catalog else { return here() };
        let database = refs::split_revision(&self.context.database).0;
        if name == self.context.database || name == database {
            return here();
        }
        let (other, Some(revision)) = refs::split_revision(name) else { return Err(foreign_database(name)) };
        if other != database {
            return Err(foreign_database(name));
        }
        let revision = Resolver::new(self.context).revision(revision)?;
        if revision == self.context.revision {
            return here();
        }
        match &revision {
            // A branch is read with its working set, as a session on it would.
            Revision::Branch(branch) => {
                let state = self.context.store.branch(database, branch)?.state();
                let root = state.working.clone();
                Ok(Arc::new(self.context.at(revision, root, Some(state))))
            }
            Revision::Commit(id) => {
                let root = self.context.store.root(*id)?;
                Ok(Arc::new(self.context.at(revision, root, None)))
            }
        }
    }

    /// The context of a moment, as `base` names it.
    fn context_at(base: &Arc<StatementContext>, as_of: &AsOf) -> Result<Arc<StatementContext>> {
        let Some(target) = target_of(base, as_of)? else { return Ok(Arc::clone(base)) };
        let root = Resolver::new(base).root(target)?;
        Ok(Arc::new(match target {
            Target::Commit(id) => base.at(Revision::Commit(id), root, None),
            // The stage and the working set are the branch's, whose history is the same.
            Target::Working | Target::Staged | Target::Empty => base.at(base.revision.clone(), root, base.branch.clone()),
        }))
    }

    /// A stored table at a moment, where it is found without the commit's root value.
    fn table_at(base: &Arc<StatementContext>, as_of: &AsOf, schema: Option<&str>, name: &str) -> Result<Option<Relation>> {
        let Some(Target::Commit(id)) = target_of(base, as_of)? else { return Ok(None) };
        if base.branch.as_ref().is_some_and(|branch| branch.head == id) {
            return Ok(None);
        }
        let find = |catalog: &Catalog| {
            let relation = |schema: &str| catalog.relation(schema, name).cloned();
            let found = match schema {
                Some(schema) => relation(schema),
                None => base.search_path.iter().find_map(|schema| relation(schema)),
            };
            match &*found? {
                CatalogObject::Table(table) => Some(table.oid),
                _ => None,
            }
        };
        Ok(base.store.table_at(id, &find)?.map(|table| Relation::Table(Arc::new(table))))
    }

    fn stored(&self, root: &Root, schema: &str, name: &str) -> Option<Relation> {
        let catalog = root.catalog();
        Some(match &**catalog.relation(schema, name)? {
            CatalogObject::Table(table) => Relation::Table(Arc::new(root.table(table.oid)?.clone().into())),
            CatalogObject::View(view) => Relation::View(ViewDefinition {
                oid: view.oid,
                columns: view.columns.iter().map(|(name, _)| name.clone()).collect(),
                query: view.query.clone(),
            }),
            CatalogObject::Sequence(sequence) => Relation::Virtual(Arc::new(SequenceTable::new(sequence.clone(), self.context))),
            _ => return None,
        })
    }

    /// A computed table; of another revision than the statement's it is computed there.
    fn computed(&self, context: &Arc<StatementContext>, schema: Option<&str>, name: &str) -> Option<Relation> {
        let table = system::lookup(schema, name, context)?;
        Some(Relation::Virtual(if Arc::ptr_eq(context, self.context) {
            table
        } else {
            Arc::new(Elsewhere { table, context: Arc::clone(context) })
        }))
    }

    fn find(&self, context: &Arc<StatementContext>, schema: Option<&str>, name: &str) -> Option<Relation> {
        if let Some(schema) = schema {
            return self.stored(&context.root, schema, name).or_else(|| self.computed(context, Some(schema), name));
        }
        let path = &context.search_path;
        let first = if path.iter().any(|s| s == "pg_catalog") { None } else { self.computed(context, Some("pg_catalog"), name) };
        first
            .or_else(|| path.iter().find_map(|schema| self.stored(&context.root, schema, name)))
            .or_else(|| self.computed(context, None, name))
    }
}

/// What a moment stands for; `None` where that is not known yet.
fn target_of(base: &StatementContext, as_of: &AsOf) -> Result<Option<Target>> {
    let resolver = Resolver::new(base);
    Ok(Some(match as_of {
        AsOf::Unknown => return Ok(None),
        AsOf::Ref(text) => resolver.resolve(text)?,
        AsOf::Timestamp(micros) => Target::Commit(resolver.at_time(Timestamp(*micros))?),
        AsOf::Lsn(lsn) => Target::Commit(resolver.at_lsn(strandline_storage::Lsn(*lsn))?),
        AsOf::Xid(xid) => Target::Commit(resolver.at_xid(*xid)?),
    }))
}

fn foreign_database(name: &str) -> SqlError {
    SqlError::new(ErrorCode::FeatureNotSupported, format!("cross-database references are not implemented: \"{name}\""))
}

/// A computed table as another revision has it.
#[derive(Debug)]
struct Elsewhere {
    table: Arc<dyn VirtualTable>,
    context: Arc<StatementContext>,
}

impl VirtualTable for Elsewhere {
    fn columns(&self) -> &[VirtualColumn] {
        self.table.columns()
    }

    fn scan(&self, _: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
        self.table.scan(&self.context, request)
    }

    fn oid(&self) -> u32 {
        self.table.oid()
    }
}

impl Names for ContextNames<'_> {
    fn relation(&self, catalog: Option<&str>, schema: Option<&str>, name: &str) -> Result<Option<Relation>> {
        Ok(self.find(&self.context_of(catalog)?, schema, name))
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
        let base = self.context_of(catalog)?;
        if let Some(table) = Self::table_at(&base, as_of, schema, name)? {
            return Ok(Some(table));
        }
        let context = Self::context_at(&base, as_of)?;
        let stored = match schema {
            Some(schema) => self.stored(&context.root, schema, name),
            None => context.search_path.iter().find_map(|schema| self.stored(&context.root, schema, name)),
        };
        if stored.is_some() {
            return Ok(stored);
        }
        // The version tables have a past like any table; catalogs of the server's own state have none.
        let is_version_table = schema.is_some_and(|s| s.eq_ignore_ascii_case("dolt"))
            || name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("dolt_"));
        if *as_of == AsOf::Unknown || is_version_table {
            return Ok(self.computed(&context, schema, name));
        }
        if system::lookup(schema, name, &context).is_some() {
            return Err(SqlError::unsupported(format_args!("AS OF on the computed table \"{name}\"")));
        }
        Ok(None)
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

/// Says whether an expression has parameters, in its subqueries too.
fn has_parameter(expr: &Expr) -> bool {
    crate::lower::walk::has_parameter(expr)
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
