//! What data-modifying statements bind: sources of INSERT, the rows that UPDATE and DELETE find, assignments, RETURNING.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, RangeVar, SelectStmt, SetOperation, WithClause};
use strandline_storage::TableData;

use super::Binder;
use super::coercion::Context;
use super::expression::location;
use super::names::Relation;
use super::scope::{Clause, Level, NsItem};
use super::with::BoundCte;
use crate::bound::{Column, Expr, JoinKind, Query, Rel};
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::{Oid, SqlType};

/// A column that a statement assigns to.
#[derive(Clone, Debug)]
pub struct InsertTarget {
    pub name: String,
    pub ty: SqlType,
    /// What DEFAULT means for it, of the column's type.
    pub default: Expr,
}

/// The rows of UPDATE or DELETE while their expressions are bound.
pub struct ModifyScope {
    pub table: Arc<TableData>,
    /// The row's key, a Binary column of the target's scan.
    pub key: Column,
    /// The target's columns by position.
    pub columns: Vec<Column>,
    rel: Rel,
    ctes: Vec<BoundCte>,
}

impl ModifyScope {
    /// The ids of all columns that the rows have, those of FROM's tables too.
    pub fn column_ids(&self) -> Vec<crate::bound::ColumnId> {
        self.rel.column_ids()
    }
}

/// Columns in view under a name: a table's row in RETURNING, `excluded` in ON CONFLICT.
pub struct RowScope<'c> {
    pub name: &'c str,
    pub columns: &'c [Column],
    pub table: Option<Oid>,
    /// Found only as `name.column`.
    pub qualified_only: bool,
}

impl Binder<'_> {
    /// Binds what INSERT inserts: one column per target, of the target's type. Fewer columns than targets only where the statement
    /// named no columns (`explicit` false): the caller fills the rest. No source: DEFAULT VALUES.
    ///
    /// # Errors
    /// PostgreSQL's about the number and types of expressions.
    pub fn bind_insert_source(
        &mut self,
        with: Option<&WithClause>,
        source: Option<&SelectStmt>,
        targets: &[InsertTarget],
        explicit: bool,
    ) -> Result<Query> {
        self.levels.push(Level::new(Clause::None));
        let bound = self.insert_source(with, source, targets, explicit);
        self.levels.pop();
        bound
    }

    fn insert_source(
        &mut self,
        with: Option<&WithClause>,
        source: Option<&SelectStmt>,
        targets: &[InsertTarget],
        explicit: bool,
    ) -> Result<Query> {
        let ctes = match with {
            Some(with) => self.with_clause(with)?,
            None => Vec::new(),
        };
        let Some(select) = source else {
            let row = targets.iter().map(|t| t.default.clone()).collect();
            let columns: Vec<Column> = targets.iter().map(|t| self.new_column(t.name.clone(), t.ty)).collect();
            return Ok(Query { rel: Rel::Values { rows: vec![row], columns: columns.clone() }, columns });
        };
        let plain_values = !select.values_lists.is_empty()
            && select.sort_clause.is_empty()
            && select.limit_count.is_none()
            && select.limit_offset.is_none()
            && select.with_clause.is_none()
            && select.op() == SetOperation::SetopNone;
        let query =
            if plain_values { self.insert_values(select, targets, explicit)? } else { self.insert_query(select, targets, explicit)? };
        Ok(self.wrap_ctes(query, ctes))
    }

    fn check_width(&self, width: usize, targets: &[InsertTarget], explicit: bool, at: i32) -> Result<()> {
        if width > targets.len() {
            return Err(self.error(ErrorCode::SyntaxError, "INSERT has more expressions than target columns", at));
        }
        if explicit && width < targets.len() {
            return Err(self.error(ErrorCode::SyntaxError, "INSERT has more target columns than expressions", at));
        }
        Ok(())
    }

    fn insert_values(&mut self, select: &SelectStmt, targets: &[InsertTarget], explicit: bool) -> Result<Query> {
        let mut rows = Vec::with_capacity(select.values_lists.len());
        let mut width = None;
        for list in &select.values_lists {
            let Some(NodeEnum::List(list)) = &list.node else { continue };
            let count = list.items.len();
            let known = *width.get_or_insert(count);
            if known != count {
                let at = list.items.first().map_or(-1, location);
                return Err(self.error(ErrorCode::SyntaxError, "VALUES lists must all be the same length", at));
            }
            let at = list.items.get(targets.len()).or_else(|| list.items.last()).map_or(-1, location);
            self.check_width(count, targets, explicit, at)?;
            let row = list
                .items
                .iter()
                .zip(targets)
                .map(|(node, target)| self.assigned(node, target, Clause::Values))
                .collect::<Result<Vec<Expr>>>()?;
            rows.push(row);
        }
        let columns: Vec<Column> = targets.iter().take(width.unwrap_or(0)).map(|t| self.new_column(t.name.clone(), t.ty)).collect();
        Ok(Query { rel: Rel::Values { rows, columns: columns.clone() }, columns })
    }

    fn insert_query(&mut self, select: &SelectStmt, targets: &[InsertTarget], explicit: bool) -> Result<Query> {
        let mut query = self.select(select, Clause::None, false)?;
        let at = super::set_operation::target_location(select, query.columns.len().min(targets.len()));
        self.check_width(query.columns.len(), targets, explicit, at)?;
        let types: Vec<SqlType> = targets.iter().take(query.columns.len()).map(|t| t.ty).collect();
        // A literal that settles as its column's type is checked against the modifier with the rest.
        let mut index = 0;
        let names: Vec<&str> = targets.iter().map(|t| t.name.as_str()).collect();
        let wrong: Vec<bool> =
            query.columns.iter().zip(&types).map(|(c, ty)| !self.can_coerce_one(c.ty.oid, ty.oid, Context::Assignment)).collect();
        if let Some(position) = wrong.iter().position(|w| *w) {
            index = position;
        }
        self.cast_columns_in(&mut query, &types, Context::Assignment, &mut |b, from, to| {
            b.assignment_error(names.get(index).copied().unwrap_or("?"), to, from, super::set_operation::target_location(select, index))
        })?;
        Ok(query)
    }

    /// An expression assigned to a column; DEFAULT is the column's.
    fn assigned(&mut self, node: &Node, target: &InsertTarget, clause: Clause) -> Result<Expr> {
        if let Some(NodeEnum::SetToDefault(_)) = &node.node {
            return Ok(target.default.clone());
        }
        let (expr, at) = self.in_clause(clause, |b| b.located(node))?;
        self.assign(expr, at, target)
    }

    fn assign(&mut self, expr: Expr, at: i32, target: &InsertTarget) -> Result<Expr> {
        let from = expr.ty().oid;
        match self.coerce_to_target(expr, at, target.ty, Context::Assignment)? {
            Some(expr) => Ok(expr),
            None => Err(self.assignment_error(&target.name, target.ty.oid, from, at)),
        }
    }

    fn assignment_error(&self, column: &str, target: Oid, from: Oid, at: i32) -> SqlError {
        self.error(
            ErrorCode::DatatypeMismatch,
            format!("column \"{column}\" is of type {} but expression is of type {}", self.types.name(target), self.types.name(from)),
            at,
        )
        .hint("You will need to rewrite or cast the expression.")
    }

    /// Opens the scope of an UPDATE or DELETE: the target's rows with their keys, joined with FROM or USING. Conditions, assignments
    /// and RETURNING are bound in it until [`Binder::end_modify`].
    ///
    /// # Errors
    /// As FROM's; `WrongObjectType` for a target that is no stored table.
    pub fn begin_modify(&mut self, with: Option<&WithClause>, target: &RangeVar, from: &[Node]) -> Result<ModifyScope> {
        self.levels.push(Level::new(Clause::None));
        let scope = self.modify_scope(with, target, from);
        if scope.is_err() {
            self.levels.pop();
        }
        scope
    }

    fn modify_scope(&mut self, with: Option<&WithClause>, target: &RangeVar, from: &[Node]) -> Result<ModifyScope> {
        let ctes = match with {
            Some(with) => self.with_clause(with)?,
            None => Vec::new(),
        };
        let at = target.location;
        let catalog = Some(target.catalogname.as_str()).filter(|c| !c.is_empty());
        let schema = Some(target.schemaname.as_str()).filter(|s| !s.is_empty());
        if self.source.as_of(&target.relname).is_some() {
            return Err(self.unsupported("changing a table AS OF a moment", at));
        }
        let found = self.names.relation(catalog, schema, &target.relname).map_err(|e| e.at(self.source.position(at)))?;
        let qualified = [catalog, schema, Some(target.relname.as_str())].into_iter().flatten().collect::<Vec<_>>().join(".");
        let table = match found {
            Some(Relation::Table(table)) => table,
            Some(Relation::View(_)) => {
                return Err(SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, format!("cannot change view \"{}\"", target.relname)));
            }
            Some(Relation::Virtual(_)) => {
                return Err(SqlError::new(
                    ErrorCode::WrongObjectType,
                    format!("cannot change table \"{}\": it is computed", target.relname),
                ));
            }
            Some(Relation::Sequence(_)) => {
                return Err(SqlError::new(ErrorCode::WrongObjectType, format!("cannot change sequence \"{}\"", target.relname)));
            }
            None => return Err(self.error(ErrorCode::UndefinedTable, format!("relation \"{qualified}\" does not exist"), at)),
        };
        let (mut rel, columns) = self.scan(&table, true);
        let table = Arc::clone(table.rows()?);
        let key = match &rel {
            Rel::Scan { key_column: Some(key), .. } => key.clone(),
            _ => unreachable!("BUG: a scan for changing rows has the key"),
        };
        let alias = target.alias.as_ref().map(|a| a.aliasname.clone());
        let mut item = NsItem::of_columns(Some(alias.clone().unwrap_or_else(|| target.relname.clone())), &columns);
        item.table = Some(table.schema().oid);
        if alias.is_none() {
            item.schema = schema.map(str::to_owned).or_else(|| self.names.relation_schema(&target.relname));
        }
        self.level().namespace.push(item);
        if !from.is_empty() {
            // FROM does not see the target, but stands beside it.
            let own = std::mem::take(&mut self.level().namespace);
            let others = self.from_clause(from)?;
            let mut namespace = own;
            for item in std::mem::take(&mut self.level().namespace) {
                if item.relation_visible && item.name.is_some() && namespace.iter().any(|o| o.name == item.name) {
                    return Err(SqlError::new(
                        ErrorCode::DuplicateAlias,
                        format!("table name \"{}\" specified more than once", item.name.unwrap_or_default()),
                    ));
                }
                namespace.push(item);
            }
            self.level().namespace = namespace;
            rel = Rel::Join { left: Box::new(rel), right: Box::new(others), kind: JoinKind::Cross, on: None, lateral: false };
        }
        Ok(ModifyScope { table, key, columns, rel, ctes })
    }

    /// Narrows the rows by WHERE.
    pub fn modify_where(&mut self, scope: &mut ModifyScope, node: &Node) -> Result<()> {
        let predicate = self.condition(node, Clause::Where, "argument of WHERE")?;
        let input = Box::new(std::mem::replace(&mut scope.rel, Rel::Unit));
        scope.rel = Rel::Filter { input, predicate };
        Ok(())
    }

    /// Binds SET's list in the scope open now. `columns`: the table's, by position. Gives (position, value).
    ///
    /// # Errors
    /// For unknown columns, columns set twice, values of other types.
    pub fn bind_assignments(&mut self, table: &str, list: &[Node], columns: &[InsertTarget]) -> Result<Vec<(usize, Expr)>> {
        let mut out: Vec<(usize, Expr)> = Vec::with_capacity(list.len());
        for node in list {
            let Some(NodeEnum::ResTarget(target)) = &node.node else { continue };
            let at = target.location;
            if !target.indirection.is_empty() {
                return Err(self.unsupported("assigning to a part of a column", at));
            }
            let Some(position) = columns.iter().position(|c| c.name == target.name) else {
                return Err(self.error(
                    ErrorCode::UndefinedColumn,
                    format!("column \"{}\" of relation \"{table}\" does not exist", target.name),
                    at,
                ));
            };
            if out.iter().any(|(p, _)| *p == position) {
                return Err(SqlError::new(ErrorCode::SyntaxError, format!("multiple assignments to same column \"{}\"", target.name)));
            }
            let Some(value) = target.val.as_deref() else { continue };
            let expr = match &value.node {
                Some(NodeEnum::MultiAssignRef(multi)) => self.multi_assigned(multi, &columns[position])?,
                _ => self.assigned(value, &columns[position], Clause::UpdateSource)?,
            };
            out.push((position, expr));
        }
        Ok(out)
    }

    /// One column of `(a, b) = (...)`.
    fn multi_assigned(&mut self, multi: &pg_query::protobuf::MultiAssignRef, target: &InsertTarget) -> Result<Expr> {
        let column = usize::try_from(multi.colno - 1).unwrap_or(0);
        let width = usize::try_from(multi.ncolumns).unwrap_or(0);
        let Some(source) = multi.source.as_deref() else { return Err(self.unsupported("this kind of assignment", -1)) };
        match &source.node {
            Some(NodeEnum::RowExpr(row)) => {
                if row.args.len() != width {
                    return Err(self.error(ErrorCode::SyntaxError, "number of columns does not match number of values", row.location));
                }
                match row.args.get(column) {
                    Some(node) => self.assigned(node, target, Clause::UpdateSource),
                    None => Err(self.error(ErrorCode::SyntaxError, "number of columns does not match number of values", row.location)),
                }
            }
            Some(NodeEnum::SubLink(link)) => {
                // Each column takes its own copy of the subquery, cut down to that column.
                let Some(NodeEnum::SelectStmt(select)) = link.subselect.as_deref().and_then(|n| n.node.as_ref()) else {
                    return Err(self.unsupported("this kind of assignment", link.location));
                };
                let (mut query, correlated) = self.in_clause(Clause::UpdateSource, |b| b.select_correlated(select))?;
                if query.columns.len() != width {
                    return Err(self.error(ErrorCode::SyntaxError, "number of columns does not match number of values", link.location));
                }
                query.columns = query.columns.into_iter().skip(column).take(1).collect();
                let ty = query.columns[0].ty;
                let subquery = crate::bound::Subquery { kind: crate::bound::SubqueryKind::Scalar, query, ty, correlated };
                self.assign(Expr::Subquery(Box::new(subquery)), link.location, target)
            }
            _ => Err(self.error(
                ErrorCode::FeatureNotSupported,
                "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
                location(source),
            )),
        }
    }

    /// Binds RETURNING's list in the scope open now.
    pub fn bind_returning(&mut self, list: &[Node]) -> Result<Vec<(Column, Expr)>> {
        let targets = self.in_clause(Clause::Returning, |b| b.target_list(list))?;
        let mut out = Vec::with_capacity(targets.len());
        for target in targets {
            let expr = self.unknown_to_text(target.expr, target.location)?;
            let mut column = self.new_column(target.name, expr.ty());
            column.origin = target.origin;
            out.push((column, expr));
        }
        Ok(out)
    }

    /// Binds a condition in the scope open now: ON CONFLICT's WHERE, MERGE's AND.
    pub fn bind_condition(&mut self, node: &Node, what: &str) -> Result<Expr> {
        self.condition(node, Clause::Where, what)
    }

    /// Closes the scope: a query of these expressions over its rows.
    pub fn end_modify(&mut self, scope: ModifyScope, exprs: Vec<(Column, Expr)>) -> Query {
        let columns = exprs.iter().map(|(c, _)| c.clone()).collect();
        let query = Query { rel: Rel::Project { input: Box::new(scope.rel), exprs }, columns };
        let query = self.wrap_ctes(query, scope.ctes);
        self.levels.pop();
        query
    }

    /// Opens a scope of given columns: RETURNING and ON CONFLICT of INSERT.
    pub fn push_rows(&mut self, scopes: &[RowScope<'_>]) {
        let mut level = Level::new(Clause::None);
        for scope in scopes {
            let mut item = NsItem::of_columns(Some(scope.name.to_owned()), scope.columns);
            item.table = scope.table;
            item.columns_visible = !scope.qualified_only;
            level.namespace.push(item);
        }
        self.levels.push(level);
    }

    /// Closes what [`Binder::push_rows`] opened.
    pub fn pop_rows(&mut self) {
        self.levels.pop();
    }
}
