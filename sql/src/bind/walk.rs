//! Visiting the parts of bound trees.

use crate::bound::{AggregateCall, ColumnId, Expr, FrameBound, Query, Rel, SubqueryKind, Subscript, WindowCall};

impl Expr {
    /// Calls `f` on every direct part of the expression; of a subquery only on what is compared with it, not on its query.
    pub fn for_each_child_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        match self {
            Expr::Const { .. } | Expr::Param { .. } | Expr::Column { .. } | Expr::Outer { .. } | Expr::Grouping(_) => {}
            Expr::Function(call) => call.args.iter_mut().for_each(f),
            Expr::Cast { input, .. } | Expr::Not(input) | Expr::IsNull(input) | Expr::IsNotNull(input) => f(input),
            Expr::IsBool { input, .. } | Expr::Field { input, .. } => f(input),
            Expr::And(args) | Expr::Or(args) => args.iter_mut().for_each(f),
            Expr::IsDistinctFrom { left, right, .. } | Expr::NullIf { left, right, .. } => {
                f(left);
                f(right);
            }
            Expr::Case { whens, default, .. } => {
                for (when, then) in whens {
                    f(when);
                    f(then);
                }
                if let Some(default) = default {
                    f(default);
                }
            }
            Expr::Coalesce { args, .. } | Expr::MinMax { args, .. } | Expr::Array { elements: args, .. } => args.iter_mut().for_each(f),
            Expr::InList { input, list, .. } => {
                f(input);
                list.iter_mut().for_each(f);
            }
            Expr::AnyArray { input, array, .. } => {
                f(input);
                f(array);
            }
            Expr::Row { fields, .. } => fields.iter_mut().for_each(|(_, e)| f(e)),
            Expr::Subscript { input, subscripts, .. } => {
                f(input);
                for subscript in subscripts {
                    match subscript {
                        Subscript::Index(e) => f(e),
                        Subscript::Slice(from, to) => from.iter_mut().chain(to).for_each(&mut *f),
                    }
                }
            }
            Expr::Subquery(subquery) => match &mut subquery.kind {
                SubqueryKind::Compare { left, .. } => f(left),
                SubqueryKind::CompareRow { left, .. } => left.iter_mut().for_each(f),
                SubqueryKind::Exists | SubqueryKind::Scalar | SubqueryKind::Array => {}
            },
        }
    }

    /// Calls `f` on the expression and all its parts, subqueries' insides too.
    pub fn visit_all_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        f(self);
        self.for_each_child_mut(&mut |child| child.visit_all_mut(f));
        if let Expr::Subquery(subquery) = self {
            subquery.query.rel.visit_exprs_mut(f);
        }
    }

    /// Says whether `f` holds for the expression or a part of it, subqueries' insides too.
    pub fn any(&self, f: &mut dyn FnMut(&Expr) -> bool) -> bool {
        let mut copy = self.clone();
        let mut found = false;
        copy.visit_all_mut(&mut |e| found = found || f(e));
        found
    }
}

fn visit_aggregate(call: &mut AggregateCall, f: &mut dyn FnMut(&mut Expr)) {
    call.args.iter_mut().for_each(&mut *f);
    call.filter.iter_mut().for_each(&mut *f);
    call.order.iter_mut().for_each(|key| f(&mut key.expr));
}

/// Calls `f` on the expressions of a window call.
pub(super) fn visit_window(call: &mut WindowCall, f: &mut dyn FnMut(&mut Expr)) {
    visit_aggregate(&mut call.call, f);
    call.partition.iter_mut().for_each(&mut *f);
    call.order.iter_mut().for_each(|key| f(&mut key.expr));
    for bound in [&mut call.frame.start, &mut call.frame.end] {
        match bound {
            FrameBound::Preceding(e) | FrameBound::Following(e) => f(e),
            FrameBound::UnboundedPreceding | FrameBound::CurrentRow | FrameBound::UnboundedFollowing => {}
        }
    }
}

impl Rel {
    /// The relations directly below.
    pub fn inputs(&self) -> Vec<&Rel> {
        match self {
            Rel::Unit | Rel::Scan { .. } | Rel::Virtual { .. } | Rel::Values { .. } | Rel::Function { .. } | Rel::CteScan { .. } => {
                Vec::new()
            }
            Rel::Project { input, .. }
            | Rel::ProjectSet { input, .. }
            | Rel::Filter { input, .. }
            | Rel::Aggregate { input, .. }
            | Rel::Window { input, .. }
            | Rel::Distinct { input, .. }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. } => vec![input],
            Rel::Join { left, right, .. } | Rel::SetOp { left, right, .. } => vec![left, right],
            Rel::With { definition, body, .. } => vec![&definition.rel, body],
            Rel::Recursive { base, recursive, body, .. } => vec![&base.rel, &recursive.rel, body],
        }
    }

    fn inputs_mut(&mut self) -> Vec<&mut Rel> {
        match self {
            Rel::Unit | Rel::Scan { .. } | Rel::Virtual { .. } | Rel::Values { .. } | Rel::Function { .. } | Rel::CteScan { .. } => {
                Vec::new()
            }
            Rel::Project { input, .. }
            | Rel::ProjectSet { input, .. }
            | Rel::Filter { input, .. }
            | Rel::Aggregate { input, .. }
            | Rel::Window { input, .. }
            | Rel::Distinct { input, .. }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. } => vec![input],
            Rel::Join { left, right, .. } | Rel::SetOp { left, right, .. } => vec![left, right],
            Rel::With { definition, body, .. } => vec![&mut definition.rel, body],
            Rel::Recursive { base, recursive, body, .. } => vec![&mut base.rel, &mut recursive.rel, body],
        }
    }

    /// Calls `f` on the node's own expressions, not on those of its inputs.
    pub fn for_each_expr_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        match self {
            Rel::Unit | Rel::Scan { .. } | Rel::SetOp { .. } | Rel::With { .. } | Rel::Recursive { .. } | Rel::CteScan { .. } => {}
            Rel::Virtual { args, .. } => args.iter_mut().for_each(f),
            Rel::Values { rows, .. } => rows.iter_mut().flatten().for_each(f),
            Rel::Function { function, .. } => function.args.iter_mut().for_each(f),
            Rel::Project { exprs, .. } => exprs.iter_mut().for_each(|(_, e)| f(e)),
            Rel::ProjectSet { calls, .. } => calls.iter_mut().flat_map(|(_, c)| &mut c.args).for_each(f),
            Rel::Filter { predicate, .. } => f(predicate),
            Rel::Join { on, .. } => on.iter_mut().for_each(f),
            Rel::Aggregate { group, aggregates, .. } => {
                group.iter_mut().for_each(|(_, e)| f(e));
                aggregates.iter_mut().for_each(|(_, call)| visit_aggregate(call, f));
            }
            Rel::Window { calls, .. } => calls.iter_mut().for_each(|(_, call)| visit_window(call, f)),
            Rel::Distinct { on, .. } => on.iter_mut().flatten().for_each(f),
            Rel::Sort { keys, .. } => keys.iter_mut().for_each(|key| f(&mut key.expr)),
            Rel::Limit { limit, offset, .. } => limit.iter_mut().chain(offset).for_each(f),
        }
    }

    /// Calls `f` on every expression of the tree, subqueries' insides too.
    pub fn visit_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        self.for_each_expr_mut(&mut |e| e.visit_all_mut(f));
        for input in self.inputs_mut() {
            input.visit_exprs_mut(f);
        }
    }

    /// The ids of the columns that the node gives.
    pub fn column_ids(&self) -> Vec<ColumnId> {
        match self {
            Rel::Unit => Vec::new(),
            Rel::Scan { columns, key_column, .. } => columns.iter().map(|(_, c)| c.id).chain(key_column.iter().map(|c| c.id)).collect(),
            Rel::Virtual { columns, .. } => columns.iter().map(|(_, c)| c.id).collect(),
            Rel::Values { columns, .. } | Rel::CteScan { columns, .. } | Rel::SetOp { columns, .. } => {
                columns.iter().map(|c| c.id).collect()
            }
            Rel::Function { columns, ordinality, .. } => columns.iter().chain(ordinality).map(|c| c.id).collect(),
            Rel::Project { exprs, .. } => exprs.iter().map(|(c, _)| c.id).collect(),
            Rel::ProjectSet { input, calls } => input.column_ids().into_iter().chain(calls.iter().map(|(c, _)| c.id)).collect(),
            Rel::Window { input, calls } => input.column_ids().into_iter().chain(calls.iter().map(|(c, _)| c.id)).collect(),
            Rel::Aggregate { group, aggregates, .. } => {
                group.iter().map(|(c, _)| c.id).chain(aggregates.iter().map(|(c, _)| c.id)).collect()
            }
            Rel::Distinct { columns, on, input } => {
                if on.is_some() {
                    input.column_ids()
                } else {
                    columns.clone()
                }
            }
            Rel::Filter { input, .. } | Rel::Sort { input, .. } | Rel::Limit { input, .. } => input.column_ids(),
            Rel::Join { left, right, .. } => left.column_ids().into_iter().chain(right.column_ids()).collect(),
            Rel::With { body, .. } | Rel::Recursive { body, .. } => body.column_ids(),
        }
    }
}

impl Query {
    /// Calls `f` on every expression of the query.
    pub fn visit_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        self.rel.visit_exprs_mut(f);
    }
}

/// Says whether two expressions are the same; those with subqueries never are.
pub fn same_expr(a: &Expr, b: &Expr) -> bool {
    use Expr as E;
    let same_all = |a: &[Expr], b: &[Expr]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_expr(a, b));
    match (a, b) {
        (E::Const { value: v, ty: t }, E::Const { value: w, ty: u }) => v == w && t == u,
        (E::Param { number: m, ty: t }, E::Param { number: n, ty: u }) => m == n && t == u,
        (E::Column { id: m, .. }, E::Column { id: n, .. }) | (E::Outer { id: m, .. }, E::Outer { id: n, .. }) => m == n,
        (E::Function(f), E::Function(g)) => f.proc == g.proc && f.ty == g.ty && f.variadic == g.variadic && same_all(&f.args, &g.args),
        (E::Cast { input: a, ty: t, method: m }, E::Cast { input: b, ty: u, method: n }) => t == u && m == n && same_expr(a, b),
        (E::And(a), E::And(b)) | (E::Or(a), E::Or(b)) => same_all(a, b),
        (E::Not(a), E::Not(b)) | (E::IsNull(a), E::IsNull(b)) | (E::IsNotNull(a), E::IsNotNull(b)) => same_expr(a, b),
        (E::IsBool { input: a, value: v, negated: m }, E::IsBool { input: b, value: w, negated: n }) => v == w && m == n && same_expr(a, b),
        (E::IsDistinctFrom { left: a, right: c, equal: e, negated: m }, E::IsDistinctFrom { left: b, right: d, equal: g, negated: n }) => {
            e == g && m == n && same_expr(a, b) && same_expr(c, d)
        }
        (E::NullIf { left: a, right: c, equal: e, .. }, E::NullIf { left: b, right: d, equal: g, .. }) => {
            e == g && same_expr(a, b) && same_expr(c, d)
        }
        (E::Case { whens: a, default: c, ty: t }, E::Case { whens: b, default: d, ty: u }) => {
            t == u
                && a.len() == b.len()
                && a.iter().zip(b).all(|((a, x), (b, y))| same_expr(a, b) && same_expr(x, y))
                && match (c, d) {
                    (Some(c), Some(d)) => same_expr(c, d),
                    (None, None) => true,
                    _ => false,
                }
        }
        (E::Coalesce { args: a, ty: t }, E::Coalesce { args: b, ty: u }) => t == u && same_all(a, b),
        (E::MinMax { args: a, greatest: g, ty: t, .. }, E::MinMax { args: b, greatest: h, ty: u, .. }) => {
            t == u && g == h && same_all(a, b)
        }
        (E::InList { input: a, list: l, operator: o, all: x }, E::InList { input: b, list: m, operator: p, all: y }) => {
            o == p && x == y && same_expr(a, b) && same_all(l, m)
        }
        (E::AnyArray { input: a, array: l, operator: o, all: x }, E::AnyArray { input: b, array: m, operator: p, all: y }) => {
            o == p && x == y && same_expr(a, b) && same_expr(l, m)
        }
        (E::Array { elements: a, ty: t }, E::Array { elements: b, ty: u }) => t == u && same_all(a, b),
        (E::Row { fields: a, ty: t }, E::Row { fields: b, ty: u }) => {
            t == u && a.len() == b.len() && a.iter().zip(b).all(|((_, a), (_, b))| same_expr(a, b))
        }
        (E::Field { input: a, index: i, .. }, E::Field { input: b, index: j, .. }) => i == j && same_expr(a, b),
        (E::Subscript { input: a, subscripts: s, .. }, E::Subscript { input: b, subscripts: t, .. }) => {
            let same_option = |a: &Option<Expr>, b: &Option<Expr>| match (a, b) {
                (Some(a), Some(b)) => same_expr(a, b),
                (None, None) => true,
                _ => false,
            };
            same_expr(a, b)
                && s.len() == t.len()
                && s.iter().zip(t).all(|(s, t)| match (s, t) {
                    (Subscript::Index(a), Subscript::Index(b)) => same_expr(a, b),
                    (Subscript::Slice(a, b), Subscript::Slice(c, d)) => same_option(a, c) && same_option(b, d),
                    _ => false,
                })
        }
        (E::Grouping(a), E::Grouping(b)) => a == b,
        _ => false,
    }
}
