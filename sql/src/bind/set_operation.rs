//! UNION, INTERSECT, EXCEPT.

use pg_query::NodeEnum;
use pg_query::protobuf::{SelectStmt, SetOperation};

use super::Binder;
use super::coercion::{Context, Located};
use super::expression::location;
use super::scope::Clause;
use crate::bound::{Column, ColumnId, Expr, Query, Rel, SetOpKind};
use crate::error::{ErrorCode, Result};
use crate::types::{SqlType, oid};

impl Binder<'_> {
    /// Binds the tree of set operations of a statement, with its ORDER BY and LIMIT.
    pub(super) fn set_operation(&mut self, stmt: &SelectStmt) -> Result<Query> {
        let query = self.set_tree(stmt)?;
        self.order_and_limit(stmt, query, Some(word_of(stmt)))
    }

    fn set_operand(&mut self, stmt: &SelectStmt) -> Result<Query> {
        let plain_set = stmt.op() != SetOperation::SetopNone
            && stmt.sort_clause.is_empty()
            && stmt.limit_count.is_none()
            && stmt.limit_offset.is_none()
            && stmt.with_clause.is_none();
        if plain_set {
            return self.nested(|b| b.set_tree(stmt));
        }
        self.select(stmt, Clause::None, false)
    }

    fn set_tree(&mut self, stmt: &SelectStmt) -> Result<Query> {
        let (Some(left), Some(right)) = (stmt.larg.as_deref(), stmt.rarg.as_deref()) else {
            return Err(self.error(ErrorCode::SyntaxError, "set operation without operands", -1));
        };
        let left_query = self.set_operand(left)?;
        let right_query = self.set_operand(right)?;
        let kind = match stmt.op() {
            SetOperation::SetopIntersect => SetOpKind::Intersect,
            SetOperation::SetopExcept => SetOpKind::Except,
            _ => SetOpKind::Union,
        };
        self.combine(kind, stmt.all, (left_query, left), (right_query, right))
    }

    /// Brings both sides to common types.
    pub(super) fn combine(
        &mut self,
        kind: SetOpKind,
        all: bool,
        (mut left, left_stmt): (Query, &SelectStmt),
        (mut right, right_stmt): (Query, &SelectStmt),
    ) -> Result<Query> {
        let word = match kind {
            SetOpKind::Union => "UNION",
            SetOpKind::Intersect => "INTERSECT",
            SetOpKind::Except => "EXCEPT",
        };
        if left.columns.len() != right.columns.len() {
            return Err(self.error(
                ErrorCode::SyntaxError,
                format!("each {word} query must have the same number of columns"),
                target_location(right_stmt, 0),
            ));
        }
        let mut types = Vec::with_capacity(left.columns.len());
        for (i, (l, r)) in left.columns.iter().zip(&right.columns).enumerate() {
            let pair: [Located; 2] = [
                (Expr::Column { id: l.id, ty: l.ty }, target_location(left_stmt, i)),
                (Expr::Column { id: r.id, ty: r.ty }, target_location(right_stmt, i)),
            ];
            let common = self.common_type(&pair, word)?;
            let typmod = if l.ty == r.ty { l.ty.typmod } else { -1 };
            if !(all && kind == SetOpKind::Union) {
                self.default_comparison(common, 3).ok_or_else(|| self.equality_missing(common, target_location(left_stmt, i)))?;
            }
            types.push(SqlType { oid: common, typmod });
        }
        for (query, stmt) in [(&mut left, left_stmt), (&mut right, right_stmt)] {
            for (i, (column, ty)) in query.columns.iter_mut().zip(&types).enumerate() {
                if column.ty.oid == oid::UNKNOWN && self.settle_unknown(&mut query.rel, column.id, *ty, target_location(stmt, i))? {
                    column.ty = SqlType::new(ty.oid);
                }
            }
        }
        self.cast_columns(&mut left, &types, word)?;
        self.cast_columns(&mut right, &types, word)?;
        let mut columns = Vec::with_capacity(types.len());
        for (column, ty) in left.columns.iter().zip(&types) {
            columns.push(self.new_column(column.name.clone(), *ty));
        }
        let ids = |columns: &[Column]| columns.iter().map(|c| c.id).collect::<Vec<ColumnId>>();
        let rel = Rel::SetOp {
            kind,
            all,
            left_columns: ids(&left.columns),
            left: Box::new(left.rel),
            right_columns: ids(&right.columns),
            right: Box::new(right.rel),
            columns: columns.clone(),
        };
        Ok(Query { rel, columns })
    }

    /// Gives a query's columns these types: unknown literals where they stand, others by a projection on top.
    pub(super) fn cast_columns(&mut self, query: &mut Query, targets: &[SqlType], what: &str) -> Result<()> {
        self.cast_columns_in(query, targets, Context::Implicit, &mut |b, from, to| {
            b.error(ErrorCode::CannotCoerce, format!("{what} could not convert type {} to {}", b.types.name(from), b.types.name(to)), -1)
        })
    }

    pub(super) fn cast_columns_in(
        &mut self,
        query: &mut Query,
        targets: &[SqlType],
        context: Context,
        mismatch: &mut dyn FnMut(&Self, u32, u32) -> crate::error::SqlError,
    ) -> Result<()> {
        for (column, target) in query.columns.iter_mut().zip(targets) {
            if column.ty.oid == oid::UNKNOWN && self.settle_unknown(&mut query.rel, column.id, *target, -1)? {
                column.ty = SqlType::new(target.oid);
            }
        }
        let differs = query.columns.iter().zip(targets).any(|(column, target)| {
            column.ty.oid != target.oid || (context != Context::Implicit && target.typmod >= 0 && column.ty.typmod != target.typmod)
        });
        if !differs {
            return Ok(());
        }
        let mut exprs = Vec::with_capacity(targets.len());
        let mut columns = Vec::with_capacity(targets.len());
        for (column, target) in query.columns.iter().zip(targets) {
            let input = Expr::Column { id: column.id, ty: column.ty };
            let expr = match context {
                Context::Implicit if column.ty.oid == target.oid => Some(input),
                Context::Implicit if self.can_coerce_one(column.ty.oid, target.oid, context) => {
                    Some(self.coerce(input, -1, SqlType::new(target.oid), context)?)
                }
                Context::Implicit => None,
                _ => self.coerce_to_target(input, -1, *target, context)?,
            };
            let Some(expr) = expr else { return Err(mismatch(self, column.ty.oid, target.oid)) };
            let mut fresh = self.new_column(column.name.clone(), expr.ty());
            fresh.origin = column.origin.filter(|_| column.ty == fresh.ty);
            columns.push(fresh.clone());
            exprs.push((fresh, expr));
        }
        let rel = std::mem::replace(&mut query.rel, Rel::Unit);
        query.rel = Rel::Project { input: Box::new(rel), exprs };
        query.columns = columns;
        Ok(())
    }

    /// Gives a column that a projection below makes of an unknown literal or parameter its type. False when it is not there.
    fn settle_unknown(&mut self, rel: &mut Rel, id: ColumnId, target: SqlType, at: i32) -> Result<bool> {
        match rel {
            Rel::Project { exprs, .. } => {
                for (column, expr) in exprs {
                    if column.id == id && expr.ty().oid == oid::UNKNOWN {
                        let taken = std::mem::replace(expr, Expr::And(Vec::new()));
                        *expr = self.coerce(taken, at, SqlType::new(target.oid), Context::Implicit)?;
                        column.ty = expr.ty();
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Rel::Sort { input, .. } | Rel::Limit { input, .. } | Rel::Distinct { input, .. } | Rel::Filter { input, .. } => {
                self.settle_unknown(input, id, target, at)
            }
            Rel::With { body, .. } | Rel::Recursive { body, .. } => self.settle_unknown(body, id, target, at),
            _ => Ok(false),
        }
    }
}

/// Where an output column stands in the text.
pub(super) fn target_location(stmt: &SelectStmt, index: usize) -> i32 {
    let mut stmt = stmt;
    while let Some(left) = stmt.larg.as_deref() {
        stmt = left;
    }
    if let Some(NodeEnum::List(list)) = stmt.values_lists.first().and_then(|n| n.node.as_ref()) {
        return list.items.get(index).map_or(-1, location);
    }
    stmt.target_list.get(index).or_else(|| stmt.target_list.first()).map_or(-1, location)
}

fn word_of(stmt: &SelectStmt) -> &'static str {
    match stmt.op() {
        SetOperation::SetopIntersect => "INTERSECT",
        SetOperation::SetopExcept => "EXCEPT",
        _ => "UNION",
    }
}
