//! SELECT and VALUES: one query level, from FROM to LIMIT.

use pg_query::NodeEnum;
use pg_query::protobuf::{ColumnRef, LimitOption, Node, SelectStmt, SetOperation, SortBy, SortByDir, SortByNulls};

use super::Binder;
use super::expression::location;
use super::grouping::Groups;
use super::object_names::name_parts;
use super::same_expr;
use super::scope::{Clause, Level};
use super::target_name::target_name;
use crate::bound::{Column, ColumnId, Expr, Query, Rel, SortKey};
use crate::catalog_data::{BTREE_OID, catalog};
use crate::error::{ErrorCode, Result};
use crate::types::{Oid, SqlType, oid};

/// An entry of the select list.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    pub expr: Expr,
    pub origin: Option<(Oid, i16)>,
    pub location: i32,
}

/// ORDER BY's keys before they are columns: by target, or by an expression of their own.
enum OrderItem {
    Target(usize),
    Own(Expr),
}

/// The direction of a sort item and where NULLs go.
pub(super) fn direction(sort: &SortBy) -> (bool, bool) {
    let descending = sort.sortby_dir() == SortByDir::SortbyDesc;
    let nulls_first = match sort.sortby_nulls() {
        SortByNulls::SortbyNullsFirst => true,
        SortByNulls::SortbyNullsLast => false,
        _ => descending,
    };
    (descending, nulls_first)
}

impl Binder<'_> {
    /// Binds a query as a level of its own. `resolve_unknown`: literals without type in the select list become text.
    pub(super) fn select(&mut self, stmt: &SelectStmt, clause: Clause, resolve_unknown: bool) -> Result<Query> {
        let _ = clause;
        self.select_with_level(stmt, resolve_unknown).map(|(query, _)| query)
    }

    /// As [`Binder::select`]; also says whether the query refers to the levels around it.
    pub(super) fn select_correlated(&mut self, stmt: &SelectStmt) -> Result<(Query, bool)> {
        self.select_with_level(stmt, true)
    }

    fn select_with_level(&mut self, stmt: &SelectStmt, resolve_unknown: bool) -> Result<(Query, bool)> {
        self.nested(|b| {
            b.levels.push(Level::new(Clause::None));
            let query = b.select_here(stmt, resolve_unknown);
            let level = b.levels.pop().expect("BUG: the level was pushed");
            Ok((query?, level.correlated))
        })
    }

    fn select_here(&mut self, stmt: &SelectStmt, resolve_unknown: bool) -> Result<Query> {
        if stmt.into_clause.is_some() {
            return Err(self.error(ErrorCode::SyntaxError, "SELECT ... INTO is not allowed here", -1));
        }
        if let Some(Node { node: Some(NodeEnum::LockingClause(_)) }) = stmt.locking_clause.first() {
            return Err(self.unsupported("SELECT ... FOR UPDATE or SHARE", -1));
        }
        let ctes = match &stmt.with_clause {
            Some(with) => self.with_clause(with)?,
            None => Vec::new(),
        };
        let query = if stmt.op() != SetOperation::SetopNone && stmt.larg.is_some() {
            self.set_operation(stmt)?
        } else if !stmt.values_lists.is_empty() {
            self.values(stmt)?
        } else {
            self.plain_select(stmt, resolve_unknown)?
        };
        Ok(self.wrap_ctes(query, ctes))
    }

    fn plain_select(&mut self, stmt: &SelectStmt, resolve_unknown: bool) -> Result<Query> {
        let mut rel = self.from_clause(&stmt.from_clause)?;
        if let Some(node) = stmt.where_clause.as_deref() {
            let predicate = self.condition(node, Clause::Where, "argument of WHERE")?;
            rel = Rel::Filter { input: Box::new(rel), predicate };
        }
        let input_ids = rel.column_ids();

        for node in &stmt.window_clause {
            let Some(NodeEnum::WindowDef(def)) = &node.node else { continue };
            if self.level().named_windows.iter().any(|w| w.name == def.name) {
                return Err(self.error(ErrorCode::WindowingError, format!("window \"{}\" is already defined", def.name), def.location));
            }
            let window = self.define_window(def)?;
            self.level().named_windows.push(window);
        }
        let mut targets = self.in_clause(Clause::Select, |b| b.target_list(&stmt.target_list))?;
        if resolve_unknown {
            for target in &mut targets {
                let expr = std::mem::replace(&mut target.expr, Expr::And(Vec::new()));
                target.expr = self.unknown_to_text(expr, target.location)?;
            }
        }
        let mut having = match stmt.having_clause.as_deref() {
            Some(node) => Some(self.condition(node, Clause::Having, "argument of HAVING")?),
            None => None,
        };
        let (mut order, mut order_keys) = self.order_clause(&stmt.sort_clause, &targets)?;
        let mut groups = self.group_clause(&stmt.group_clause, stmt.group_distinct, &targets)?;
        let distinct = !stmt.distinct_clause.is_empty();
        let distinct_on: Vec<&Node> = stmt.distinct_clause.iter().filter(|n| n.node.is_some()).collect();
        let mut on = self.distinct_on(&distinct_on, &targets)?;
        let limit = self.limit_value(stmt.limit_count.as_deref(), Clause::Limit, "LIMIT")?;
        let offset = self.limit_value(stmt.limit_offset.as_deref(), Clause::Offset, "OFFSET")?;
        let with_ties = stmt.limit_option() == LimitOption::WithTies;
        if with_ties && stmt.sort_clause.is_empty() {
            return Err(self.error(ErrorCode::SyntaxError, "WITH TIES cannot be specified without ORDER BY clause", -1));
        }
        if distinct && on.is_empty() {
            self.check_distinct(&targets, &order, &stmt.sort_clause)?;
        }

        let grouped =
            !stmt.group_clause.is_empty() || !self.level().aggregates.is_empty() || having.is_some() || !self.level().groupings.is_empty();
        if grouped {
            let mut exprs: Vec<&mut Expr> = targets.iter_mut().map(|t| &mut t.expr).collect();
            exprs.extend(having.as_mut());
            exprs.extend(order.iter_mut().filter_map(|item| match item {
                OrderItem::Own(expr) => Some(expr),
                OrderItem::Target(_) => None,
            }));
            exprs.extend(on.iter_mut().filter_map(|item| match item {
                OrderItem::Own(expr) => Some(expr),
                OrderItem::Target(_) => None,
            }));
            self.rewrite_above_groups(&mut groups, &input_ids, &mut exprs)?;
            let Groups { columns, sets } = groups;
            let aggregates = std::mem::take(&mut self.level().aggregates);
            rel = Rel::Aggregate { input: Box::new(rel), group: columns, sets, aggregates };
            if let Some(predicate) = having.take() {
                rel = Rel::Filter { input: Box::new(rel), predicate };
            }
        }
        let windows = std::mem::take(&mut self.level().windows);
        if !windows.is_empty() {
            rel = Rel::Window { input: Box::new(rel), calls: windows };
        }
        let sets = std::mem::take(&mut self.level().sets);
        let deepest = sets.iter().map(|(_, _, depth)| *depth).max();
        for depth in 0..=deepest.unwrap_or(0) {
            let calls: Vec<_> = sets.iter().filter(|(_, _, d)| *d == depth).map(|(c, f, _)| (c.clone(), f.clone())).collect();
            if !calls.is_empty() {
                rel = Rel::ProjectSet { input: Box::new(rel), calls };
            }
        }

        let mut exprs: Vec<(Column, Expr)> = Vec::with_capacity(targets.len() + order.len());
        let mut columns = Vec::with_capacity(targets.len());
        for target in targets {
            let mut column = self.new_column(target.name, target.expr.ty());
            column.origin = target.origin;
            columns.push(column.clone());
            exprs.push((column, target.expr));
        }
        let mut as_column = |b: &mut Self, item: OrderItem| -> Expr {
            match item {
                OrderItem::Target(i) => Expr::Column { id: columns[i].id, ty: columns[i].ty },
                OrderItem::Own(expr) => {
                    if let Some((column, _)) = exprs.iter().find(|(_, known)| same_expr(known, &expr)) {
                        return Expr::Column { id: column.id, ty: column.ty };
                    }
                    let column = b.new_column("?sort?", expr.ty());
                    let reference = Expr::Column { id: column.id, ty: column.ty };
                    exprs.push((column, expr));
                    reference
                }
            }
        };
        for (key, item) in order_keys.iter_mut().zip(order) {
            key.expr = as_column(self, item);
        }
        let on: Vec<Expr> = on.into_iter().map(|item| as_column(self, item)).collect();
        rel = Rel::Project { input: Box::new(rel), exprs };
        if distinct {
            let ids: Vec<ColumnId> = columns.iter().map(|c| c.id).collect();
            if on.is_empty() {
                rel = Rel::Distinct { input: Box::new(rel), on: None, columns: ids };
            } else {
                rel = {
                    let at = distinct_on.first().map_or(-1, |n| location(n));
                    self.distinct_on_rel(rel, on, ids, &order_keys, at)?
                };
            }
        }
        if !order_keys.is_empty() {
            rel = Rel::Sort { input: Box::new(rel), keys: order_keys };
        }
        if limit.is_some() || offset.is_some() {
            rel = Rel::Limit { input: Box::new(rel), limit, offset, with_ties };
        }
        Ok(Query { rel, columns })
    }

    /// The first row of each group in the order asked for.
    fn distinct_on_rel(&mut self, rel: Rel, on: Vec<Expr>, ids: Vec<ColumnId>, keys: &[SortKey], at: i32) -> Result<Rel> {
        // The leading ORDER BY keys must be the DISTINCT ON expressions in some order.
        let leading = keys.len().min(on.len());
        let fits = keys[..leading].iter().all(|key| on.iter().any(|e| same_expr(e, &key.expr)));
        if !fits {
            return Err(self.error(
                ErrorCode::InvalidColumnReference,
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                at,
            ));
        }
        let input = if keys.is_empty() { rel } else { Rel::Sort { input: Box::new(rel), keys: keys.to_vec() } };
        Ok(Rel::Distinct { input: Box::new(input), on: Some(on), columns: ids })
    }

    pub(super) fn condition(&mut self, node: &Node, clause: Clause, what: &str) -> Result<Expr> {
        self.in_clause(clause, |b| {
            let (expr, at) = b.located(node)?;
            b.coerce_to_boolean(expr, at, what)
        })
    }

    /// Binds a select or RETURNING list, stars expanded.
    pub(super) fn target_list(&mut self, nodes: &[Node]) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::ResTarget(target)) = &node.node else { continue };
            let Some(value) = target.val.as_deref() else { continue };
            let at = location(value);
            match &value.node {
                Some(NodeEnum::ColumnRef(column)) if is_star(column.fields.last()) => {
                    for (name, expr, origin) in self.expand_star(column)? {
                        targets.push(Target { name, expr, origin, location: at });
                    }
                    continue;
                }
                Some(NodeEnum::AIndirection(indirection)) if is_star(indirection.indirection.last()) => {
                    targets.extend(self.expand_composite(indirection, at)?);
                    continue;
                }
                _ => {}
            }
            let expr = self.expression(value)?;
            let is_plain = matches!(value.node, Some(NodeEnum::ColumnRef(_) | NodeEnum::AIndirection(_)));
            let origin = if is_plain { self.origin_of(&expr) } else { None };
            let name = if target.name.is_empty() { target_name(value) } else { target.name.clone() };
            targets.push(Target { name, expr, origin, location: at });
        }
        Ok(targets)
    }

    /// `(row).*`.
    fn expand_composite(&mut self, indirection: &pg_query::protobuf::AIndirection, at: i32) -> Result<Vec<Target>> {
        let mut inner = indirection.clone();
        inner.indirection.pop();
        let node = if inner.indirection.is_empty() {
            inner.arg.map(|arg| *arg).unwrap_or_default()
        } else {
            Node { node: Some(NodeEnum::AIndirection(Box::new(inner))) }
        };
        let expr = self.expression(&node)?;
        if let Expr::Row { fields, .. } = expr {
            return Ok(fields.into_iter().map(|(name, expr)| Target { name, expr, origin: None, location: at }).collect());
        }
        let ty = expr.ty();
        let fields: Vec<(String, SqlType)> = match (self.types.fields(ty.oid), &expr) {
            (Some(fields), _) => fields,
            (None, Expr::Function(call)) => catalog()
                .proc_by_oid(call.proc)
                .map(|p| p.out_columns().into_iter().map(|(n, ty)| (n.to_owned(), SqlType::new(ty))).collect())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        if fields.is_empty() {
            return Err(self.error(ErrorCode::WrongObjectType, format!("type {} is not composite", self.types.name(ty.oid)), at));
        }
        Ok(fields
            .into_iter()
            .enumerate()
            .map(|(index, (name, ty))| Target {
                expr: Expr::Field { input: Box::new(expr.clone()), name: name.clone(), index, ty },
                name,
                origin: None,
                location: at,
            })
            .collect())
    }

    /// The columns that `*`, `t.*` or `s.t.*` stand for.
    pub(super) fn expand_star(&mut self, column: &ColumnRef) -> Result<Vec<(String, Expr, Option<(Oid, i16)>)>> {
        let at = column.location;
        let source = self.source.clone();
        let parts: Vec<&str> = name_parts(&column.fields).into_iter().map(|p| source.relation_name(p)).collect();
        let items: Vec<(usize, usize)> = match parts.as_slice() {
            [] => {
                let depth = self.levels.len() - 1;
                let visible = (0..self.levels[depth].namespace.len())
                    .filter(|&i| {
                        let item = &self.levels[depth].namespace[i];
                        item.columns_visible && !item.lateral_only
                    })
                    .map(|i| (depth, i))
                    .collect::<Vec<_>>();
                if visible.is_empty() {
                    return Err(self.error(ErrorCode::SyntaxError, "SELECT * with no tables specified is not valid", at));
                }
                visible
            }
            [qualifier @ .., table] => {
                let schema = qualifier.last().copied();
                match self.relation_in_view(schema, table, at)? {
                    Some(found) => vec![found],
                    None => return Err(self.missing_relation(table, at)),
                }
            }
        };
        let mut out = Vec::new();
        let mut named = Vec::new();
        for (depth, item) in items {
            for i in 0..self.levels[depth].namespace[item].columns.len() {
                let (name, origin) = {
                    let item = &self.levels[depth].namespace[item];
                    named.push((item.name.clone(), item.columns[i].name.clone(), item.columns[i].expr.clone()));
                    (item.columns[i].name.clone(), item.columns[i].origin)
                };
                out.push((name, self.use_column(depth, item, i, at)?, origin));
            }
        }
        self.note_star(at, &named);
        Ok(out)
    }

    /// The table column that an expression is, plainly.
    fn origin_of(&self, expr: &Expr) -> Option<(Oid, i16)> {
        let Expr::Column { id, .. } = expr else { return None };
        self.levels.last()?.namespace.iter().flat_map(|item| &item.columns).find_map(|c| match c.expr {
            Expr::Column { id: other, .. } if other == *id => c.origin,
            _ => None,
        })
    }

    /// ORDER BY: by output name, position or expression.
    fn order_clause(&mut self, nodes: &[Node], targets: &[Target]) -> Result<(Vec<OrderItem>, Vec<SortKey>)> {
        let mut items: Vec<OrderItem> = Vec::with_capacity(nodes.len());
        let mut keys = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::SortBy(sort)) = &node.node else { continue };
            let Some(value) = sort.node.as_deref() else { continue };
            let at = location(value);
            let item = self.order_item(value, targets, "ORDER BY", Clause::OrderBy)?;
            let expr = match &item {
                OrderItem::Target(i) => targets[*i].expr.clone(),
                OrderItem::Own(expr) => expr.clone(),
            };
            let ty = expr.ty();
            let key = self.sort_key(Expr::Param { number: 0, ty }, sort, at)?;
            items.push(item);
            keys.push(key);
        }
        Ok((items, keys))
    }

    fn order_item(&mut self, value: &Node, targets: &[Target], word: &str, clause: Clause) -> Result<OrderItem> {
        let at = location(value);
        if let Some(NodeEnum::ColumnRef(column)) = &value.node
            && column.fields.len() == 1
            && let [name] = name_parts(&column.fields).as_slice()
        {
            let mut matching = (0..targets.len()).filter(|&i| targets[i].name == *name);
            if let Some(first) = matching.next() {
                if matching.any(|i| !same_expr(&targets[i].expr, &targets[first].expr)) {
                    return Err(self.error(ErrorCode::AmbiguousColumn, format!("{word} \"{name}\" is ambiguous"), at));
                }
                return Ok(OrderItem::Target(first));
            }
        }
        if let Some(position) = self.ordinal(value, word, targets.len())? {
            return Ok(OrderItem::Target(position));
        }
        let expr = self.in_clause(clause, |b| b.expression(value))?;
        let expr = self.unknown_to_text(expr, at)?;
        Ok(match targets.iter().position(|t| same_expr(&t.expr, &expr)) {
            Some(position) => OrderItem::Target(position),
            None => OrderItem::Own(expr),
        })
    }

    fn distinct_on(&mut self, nodes: &[&Node], targets: &[Target]) -> Result<Vec<OrderItem>> {
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            let at = location(node);
            let item = self.order_item(node, targets, "DISTINCT ON", Clause::DistinctOn)?;
            let ty = match &item {
                OrderItem::Target(i) => targets[*i].expr.ty().oid,
                OrderItem::Own(expr) => expr.ty().oid,
            };
            self.default_comparison(ty, 3).ok_or_else(|| self.equality_missing(ty, at))?;
            items.push(item);
        }
        Ok(items)
    }

    fn check_distinct(&mut self, targets: &[Target], order: &[OrderItem], nodes: &[Node]) -> Result<()> {
        for (item, node) in order.iter().zip(nodes) {
            if let OrderItem::Own(_) = item {
                let at = match &node.node {
                    Some(NodeEnum::SortBy(sort)) => sort.node.as_deref().map_or(-1, location),
                    _ => -1,
                };
                return Err(self.error(
                    ErrorCode::InvalidColumnReference,
                    "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                    at,
                ));
            }
        }
        for target in targets {
            let ty = target.expr.ty().oid;
            if ty != oid::UNKNOWN {
                self.default_comparison(ty, 3).ok_or_else(|| self.equality_missing(ty, target.location))?;
            }
        }
        Ok(())
    }

    /// A sort key of a type that has an order; USING an operator means that operator's direction.
    pub(super) fn sort_key(&mut self, expr: Expr, sort: &SortBy, at: i32) -> Result<SortKey> {
        let ty = expr.ty().oid;
        let (mut descending, mut nulls_first) = direction(sort);
        if sort.sortby_dir() == SortByDir::SortbyUsing {
            let name = name_parts(&sort.use_op).last().copied().unwrap_or("<").to_owned();
            let op = self.resolve_operator(&name, Some(ty), ty, at)?;
            let strategy =
                catalog().amops.iter().find(|a| a.method == BTREE_OID && a.operator == op.oid && a.left == a.right).map(|a| a.strategy);
            descending = match strategy {
                Some(1) => false,
                Some(5) => true,
                _ => {
                    return Err(self
                        .error(ErrorCode::WrongObjectType, format!("operator {name} is not a valid ordering operator"), at)
                        .hint("Ordering operators must be \"<\" or \">\" members of btree operator families."));
                }
            };
            nulls_first = match sort.sortby_nulls() {
                SortByNulls::SortbyNullsFirst => true,
                SortByNulls::SortbyNullsLast => false,
                _ => descending,
            };
        } else if ty != oid::UNKNOWN {
            self.default_comparison(ty, 1).ok_or_else(|| self.ordering_missing(ty, at))?;
        }
        Ok(SortKey { expr, descending, nulls_first })
    }

    pub(super) fn limit_value(&mut self, node: Option<&Node>, clause: Clause, word: &str) -> Result<Option<Expr>> {
        let Some(node) = node else { return Ok(None) };
        let at = location(node);
        let expr = self.in_clause(clause, |b| b.expression(node))?;
        if matches!(&expr, Expr::Const { value, .. } if value.is_null()) {
            return Ok(None);
        }
        if expr.any(&mut |e| matches!(e, Expr::Column { .. })) && !matches!(expr, Expr::Subquery(_)) {
            return Err(self.error(ErrorCode::InvalidColumnReference, format!("argument of {word} must not contain variables"), at));
        }
        self.coerce_to_specific(expr, at, oid::INT8, &format!("argument of {word}")).map(Some)
    }

    /// VALUES (...), (...).
    fn values(&mut self, stmt: &SelectStmt) -> Result<Query> {
        let mut rows = Vec::with_capacity(stmt.values_lists.len());
        for list in &stmt.values_lists {
            let Some(NodeEnum::List(list)) = &list.node else { continue };
            let row = self.in_clause(Clause::Values, |b| b.row_fields(&list.items))?;
            rows.push(row);
        }
        let width = rows.first().map_or(0, Vec::len);
        if let Some(row) = rows.iter().find(|row| row.len() != width) {
            let at = row.first().map_or(-1, |(_, at)| *at);
            return Err(self.error(ErrorCode::SyntaxError, "VALUES lists must all be the same length", at));
        }
        let mut columns = Vec::with_capacity(width);
        let mut bound: Vec<Vec<Expr>> = rows.iter().map(|_| Vec::with_capacity(width)).collect();
        for i in 0..width {
            let column = rows.iter().map(|row| row[i].clone()).collect();
            let (exprs, ty) = self.unify(column, "VALUES")?;
            for (row, expr) in bound.iter_mut().zip(exprs) {
                row.push(expr);
            }
            columns.push(self.new_column(format!("column{}", i + 1), ty));
        }
        let rel = Rel::Values { rows: bound, columns: columns.clone() };
        self.order_and_limit(stmt, Query { rel, columns }, None)
    }

    /// ORDER BY and LIMIT of a query whose columns are all there is to sort by: VALUES and set operations (`set`: its word).
    pub(super) fn order_and_limit(&mut self, stmt: &SelectStmt, query: Query, set: Option<&str>) -> Result<Query> {
        let Query { mut rel, columns } = query;
        let targets: Vec<Target> = columns
            .iter()
            .map(|c| Target { name: c.name.clone(), expr: Expr::Column { id: c.id, ty: c.ty }, origin: c.origin, location: -1 })
            .collect();
        if !stmt.sort_clause.is_empty() {
            if set.is_none() {
                // VALUES' columns can be used in expressions.
                let item = super::scope::NsItem::of_columns(Some("*VALUES*".into()), &columns);
                self.level().namespace.push(item);
            }
            let result = self.order_clause(&stmt.sort_clause, &targets);
            let (items, mut keys) = match (result, set) {
                (Ok(result), _) => result,
                (Err(error), Some(word)) if error.code == ErrorCode::UndefinedColumn => {
                    let at = error.position;
                    let mut error = self.set_order_error(word);
                    error.position = at;
                    return Err(error);
                }
                (Err(error), _) => return Err(error),
            };
            let mut own = Vec::new();
            for (key, item) in keys.iter_mut().zip(items) {
                key.expr = match (item, set) {
                    (OrderItem::Target(i), _) => targets[i].expr.clone(),
                    (OrderItem::Own(_), Some(word)) => return Err(self.set_order_error(word)),
                    (OrderItem::Own(expr), None) => {
                        let column = self.new_column("?sort?", expr.ty());
                        let reference = Expr::Column { id: column.id, ty: column.ty };
                        own.push((column, expr));
                        reference
                    }
                };
            }
            if !own.is_empty() {
                let mut exprs: Vec<(Column, Expr)> = Vec::with_capacity(columns.len() + own.len());
                let mut renamed = Vec::with_capacity(columns.len());
                for column in &columns {
                    let fresh = self.new_column(column.name.clone(), column.ty);
                    exprs.push((fresh.clone(), Expr::Column { id: column.id, ty: column.ty }));
                    renamed.push((column.id, fresh));
                }
                exprs.extend(own);
                for key in &mut keys {
                    if let Expr::Column { id, .. } = &mut key.expr
                        && let Some((_, fresh)) = renamed.iter().find(|(old, _)| old == id)
                    {
                        *id = fresh.id;
                    }
                }
                rel = Rel::Project { input: Box::new(rel), exprs };
                rel = Rel::Sort { input: Box::new(rel), keys };
                let columns = renamed.into_iter().map(|(_, c)| c).collect();
                return self.limited(stmt, Query { rel, columns });
            }
            rel = Rel::Sort { input: Box::new(rel), keys };
        }
        self.limited(stmt, Query { rel, columns })
    }

    fn set_order_error(&self, word: &str) -> crate::error::SqlError {
        let _ = word;
        self.error(ErrorCode::FeatureNotSupported, "invalid UNION/INTERSECT/EXCEPT ORDER BY clause", -1)
            .detail("Only result column names can be used, not expressions or functions.")
            .hint("Add the expression/function to every SELECT, or move the UNION into a FROM clause.")
    }

    fn limited(&mut self, stmt: &SelectStmt, query: Query) -> Result<Query> {
        let limit = self.limit_value(stmt.limit_count.as_deref(), Clause::Limit, "LIMIT")?;
        let offset = self.limit_value(stmt.limit_offset.as_deref(), Clause::Offset, "OFFSET")?;
        if limit.is_none() && offset.is_none() {
            return Ok(query);
        }
        let with_ties = stmt.limit_option() == LimitOption::WithTies;
        if with_ties && stmt.sort_clause.is_empty() {
            return Err(self.error(ErrorCode::SyntaxError, "WITH TIES cannot be specified without ORDER BY clause", -1));
        }
        Ok(Query { rel: Rel::Limit { input: Box::new(query.rel), limit, offset, with_ties }, columns: query.columns })
    }
}

fn is_star(node: Option<&Node>) -> bool {
    matches!(node.and_then(|n| n.node.as_ref()), Some(NodeEnum::AStar(_)))
}
