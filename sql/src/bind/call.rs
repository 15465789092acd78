//! Calls: functions, aggregates, window functions, set-returning functions, casts written as calls.

use pg_query::NodeEnum;
use pg_query::protobuf::{FuncCall, Node, SortBy};

use super::Binder;
use super::coercion::{Context, Located};
use super::expression::location;
use super::object_names::name_parts;
use super::overload::{CallShape, Callee, Candidate};
use super::scope::Clause;
use super::type_system::pseudo;
use crate::bound::{AggregateCall, Expr, FunctionCall, SortKey};
use crate::catalog_data::{ProcRow, catalog};
use crate::error::{ErrorCode, Result};
use crate::parse;
use crate::types::{Oid, SqlType, oid};

/// `pg_typeof("any")`: the one function to which a literal stays of unknown type.
const PG_TYPEOF: Oid = 1619;

/// A call whose function and arguments are resolved.
pub(super) struct ResolvedCall {
    pub proc: &'static ProcRow,
    pub args: Vec<Expr>,
    pub result: SqlType,
}

/// A call's arguments as written.
pub(super) struct Arguments {
    pub args: Vec<Located>,
    pub names: Vec<String>,
}

impl Binder<'_> {
    pub(super) fn arguments(&mut self, nodes: &[Node]) -> Result<Arguments> {
        let mut arguments = Arguments { args: Vec::with_capacity(nodes.len()), names: Vec::new() };
        for node in nodes {
            let value = match &node.node {
                Some(NodeEnum::NamedArgExpr(named)) => {
                    if arguments.names.contains(&named.name) {
                        return Err(self.error(
                            ErrorCode::SyntaxError,
                            format!("argument name \"{}\" used more than once", named.name),
                            named.location,
                        ));
                    }
                    arguments.names.push(named.name.clone());
                    match named.arg.as_deref() {
                        Some(arg) => arg,
                        None => continue,
                    }
                }
                _ if !arguments.names.is_empty() => {
                    return Err(self.error(ErrorCode::SyntaxError, "positional argument cannot follow named argument", location(node)));
                }
                _ => node,
            };
            let bound = self.located(value)?;
            arguments.args.push(bound);
        }
        Ok(arguments)
    }

    pub(super) fn function_call(&mut self, call: &FuncCall) -> Result<Expr> {
        let at = call.location;
        let parts = name_parts(&call.funcname);
        let (schema, name) = match parts.as_slice() {
            [name] => (None, *name),
            [schema, name] => (Some(*schema), *name),
            [_, schema, name] => (Some(*schema), *name),
            _ => {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    format!("improper qualified name (too many dotted names): {}", parts.join(".")),
                    at,
                ));
            }
        };
        // An aggregate's arguments may not have aggregates; which it is, is known only by its name so far.
        let may_aggregate = catalog().procs_by_name(name).any(|p| p.kind == b'a') && call.over.is_none();
        let before = self.level().in_aggregate;
        let aggregates_before = self.level().aggregates.len();
        let windows_before = self.level().windows.len();
        let sets_before = self.level().sets.len();
        if may_aggregate {
            self.level().in_aggregate = true;
        }
        let arguments = self.arguments(&call.args);
        let order = if call.agg_within_group { self.within_group(&call.agg_order) } else { Ok(Vec::new()) };
        self.level().in_aggregate = before;
        let mut arguments = arguments?;
        let within_group = order?;
        let direct = arguments.args.len();
        arguments.args.extend(within_group.iter().map(|(key, at)| (key.expr.clone(), *at)));

        let shape = CallShape {
            schema,
            name,
            args: &Self::types_of(&arguments.args),
            names: &arguments.names,
            variadic: call.func_variadic,
            location: at,
        };
        let candidate = match self.resolve_function(&shape) {
            Ok(Callee::Function(candidate)) => candidate,
            Ok(Callee::Cast(target)) => {
                self.refuse_aggregate_syntax(call, name, at)?;
                let (expr, arg_at) = arguments.args.remove(0);
                return self.cast(expr, arg_at, SqlType::new(target), at);
            }
            Err(error) => {
                // `name(row)` may be a field of a row.
                if let ([(row @ Expr::Row { .. }, _)], true) = (arguments.args.as_slice(), arguments.names.is_empty())
                    && let Ok(field) = self.field(row.clone(), name, at)
                {
                    return Ok(field);
                }
                return Err(error);
            }
        };
        let kind = candidate.proc.kind;
        if kind == b'a' {
            return self.aggregate_call(call, candidate, arguments, within_group, direct, (aggregates_before, windows_before, sets_before));
        }
        if may_aggregate && self.level().aggregates.len() > aggregates_before {
            // A name that is both; its arguments were read as an aggregate's.
            let level = self.level();
            level.references.iter_mut().for_each(|r| r.in_aggregate &= before);
        }
        if kind == b'w' && call.over.is_none() {
            return Err(self.error(ErrorCode::WrongObjectType, format!("window function {name} requires an OVER clause"), at));
        }
        if kind == b'p' {
            return Err(self
                .error(ErrorCode::WrongObjectType, format!("{name} is a procedure"), at)
                .hint("To call a procedure, use CALL."));
        }
        if kind != b'w' {
            self.refuse_aggregate_syntax(call, name, at)?;
        }
        let variadic = call.func_variadic;
        let resolved = self.finish_call(candidate, arguments, at)?;
        if let Some(over) = call.over.as_deref() {
            let aggregate = AggregateCall {
                proc: resolved.proc.oid,
                args: resolved.args,
                ty: resolved.result,
                distinct: false,
                filter: None,
                order: Vec::new(),
                star: false,
            };
            if call.agg_filter.is_some() {
                return Err(self.error(ErrorCode::FeatureNotSupported, "FILTER is not implemented for non-aggregate window functions", at));
            }
            return self.window_call(aggregate, over, at);
        }
        let function = FunctionCall { proc: resolved.proc.oid, args: resolved.args, ty: resolved.result, variadic };
        if resolved.proc.returns_set {
            return self.set_returning_call(function, name, sets_before, at);
        }
        Ok(Expr::Function(function))
    }

    fn refuse_aggregate_syntax(&self, call: &FuncCall, name: &str, at: i32) -> Result<()> {
        let wrong = |text: String| Err(self.error(ErrorCode::WrongObjectType, text, at));
        if call.agg_star {
            return wrong(format!("{name}(*) specified, but {name} is not an aggregate function"));
        }
        if call.agg_distinct {
            return wrong(format!("DISTINCT specified, but {name} is not an aggregate function"));
        }
        if call.agg_within_group {
            return wrong(format!("WITHIN GROUP specified, but {name} is not an aggregate function"));
        }
        if !call.agg_order.is_empty() {
            return wrong(format!("ORDER BY specified, but {name} is not an aggregate function"));
        }
        if call.agg_filter.is_some() {
            return wrong(format!("FILTER specified, but {name} is not an aggregate function"));
        }
        if call.over.is_some() {
            return wrong(format!("OVER specified, but {name} is not a window function nor an aggregate function"));
        }
        Ok(())
    }

    /// Puts arguments into the function's order, adds defaults, coerces, packs variadic ones.
    pub(super) fn finish_call(&mut self, candidate: Candidate, arguments: Arguments, at: i32) -> Result<ResolvedCall> {
        let proc = candidate.proc;
        let mut args: Vec<Option<Located>> =
            vec![
                None;
                candidate.positions.iter().map(|p| p + 1).max().unwrap_or(0).max(if candidate.variadic_count > 0 {
                    0
                } else {
                    proc.arg_types.len()
                })
            ];
        let mut declared: Vec<Oid> = vec![0; args.len()];
        for ((position, arg), ty) in candidate.positions.iter().zip(arguments.args).zip(&candidate.args) {
            args[*position] = Some(arg);
            declared[*position] = *ty;
        }
        if candidate.variadic_count == 0 && args.iter().any(Option::is_none) {
            let (source, defaults) = parse::parse_expressions(proc.defaults.unwrap_or(""))?;
            let first = proc.arg_types.len() - usize::from(proc.default_count);
            for (i, arg) in args.iter_mut().enumerate() {
                if arg.is_none() {
                    let node = i
                        .checked_sub(first)
                        .and_then(|d| defaults.get(d))
                        .ok_or_else(|| self.error(ErrorCode::InternalError, format!("function {} lacks a default", proc.name), at))?;
                    let own = std::mem::replace(&mut self.source, source.clone());
                    let bound = self.located(node);
                    self.source = own;
                    *arg = Some(bound?);
                    declared[i] = proc.arg_types[i];
                }
            }
        }
        let args: Vec<Located> = args.into_iter().flatten().collect();
        let types = Self::types_of(&args);
        let mut resolved = declared.clone();
        let mut result = self.resolve_polymorphic(&types, &mut resolved, proc.return_type).map_err(|e| e.at(self.source.position(at)))?;
        if pseudo::is_polymorphic(result) {
            result = oid::TEXT;
        }
        let locations: Vec<i32> = args.iter().map(|(_, at)| *at).collect();
        let mut args = self.coerce_arguments(args, &declared, at)?;
        if proc.oid != PG_TYPEOF {
            for (arg, at) in args.iter_mut().zip(&locations) {
                if arg.ty().oid == oid::UNKNOWN {
                    let taken = std::mem::replace(arg, Expr::And(Vec::new()));
                    *arg = self.unknown_to_text(taken, *at)?;
                }
            }
        }
        if candidate.variadic_count > 0 && proc.variadic != pseudo::ANY {
            let elements = args.split_off(args.len() - candidate.variadic_count);
            let element = resolved[resolved.len() - 1];
            let array = self.types.array_of(element).ok_or_else(|| {
                self.error(ErrorCode::UndefinedObject, format!("could not find array type for data type {}", self.types.name(element)), at)
            })?;
            args.push(Expr::Array { elements, ty: SqlType::new(array) });
        }
        Ok(ResolvedCall { proc, args, result: SqlType::new(result) })
    }

    /// The sort keys of WITHIN GROUP or ORDER BY inside a call, with their places.
    fn within_group(&mut self, nodes: &[Node]) -> Result<Vec<(SortKey, i32)>> {
        let mut keys = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::SortBy(sort)) = &node.node else { continue };
            let Some(value) = sort.node.as_deref() else { continue };
            let (expr, at) = self.located(value)?;
            keys.push((self.sort_key_unchecked(expr, sort), at));
        }
        Ok(keys)
    }

    fn sort_key_unchecked(&self, expr: Expr, sort: &SortBy) -> SortKey {
        let (descending, nulls_first) = super::select::direction(sort);
        SortKey { expr, descending, nulls_first }
    }

    fn aggregate_call(
        &mut self,
        call: &FuncCall,
        candidate: Candidate,
        arguments: Arguments,
        within_group: Vec<(SortKey, i32)>,
        direct: usize,
        before: (usize, usize, usize),
    ) -> Result<Expr> {
        let at = call.location;
        let name = candidate.proc.name;
        let row = catalog().aggregate(candidate.proc.oid);
        let kind = row.map_or(b'n', |r| r.kind);
        if kind == b'n' && call.agg_within_group {
            return Err(self.error(
                ErrorCode::WrongObjectType,
                format!("{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP"),
                at,
            ));
        }
        if kind != b'n' && !call.agg_within_group {
            return Err(self.error(ErrorCode::WrongObjectType, format!("WITHIN GROUP is required for ordered-set aggregate {name}"), at));
        }
        if kind != b'n' && call.over.is_some() {
            return Err(self.error(ErrorCode::FeatureNotSupported, format!("OVER is not supported for ordered-set aggregate {name}"), at));
        }
        if arguments.args.is_empty() && !call.agg_star && kind == b'n' {
            return Err(self.error(
                ErrorCode::WrongObjectType,
                format!("{name}(*) must be used to call a parameterless aggregate function"),
                at,
            ));
        }
        if call.func_variadic {
            return Err(self.unsupported("VARIADIC in an aggregate", at));
        }
        let mut arguments = arguments;
        if kind == b'h' {
            // Hypothetical direct arguments take the types of what they are compared with.
            let (directs, sorted) = arguments.args.split_at(direct);
            if directs.len() != sorted.len() {
                return Err(self.error(
                    ErrorCode::UndefinedFunction,
                    format!("function {name} does not exist"),
                    at,
                )
                .hint(format!("To use the hypothetical-set aggregate {name}, the number of hypothetical direct arguments (here {}) must match the number of ordering columns (here {}).", directs.len(), sorted.len())));
            }
            let pairs: Vec<(Located, Located)> = directs.iter().cloned().zip(sorted.iter().cloned()).collect();
            let (mut lefts, mut rights) = (Vec::new(), Vec::new());
            for (l, r) in pairs {
                let (l_at, r_at) = (l.1, r.1);
                let (mut both, _) = self.unify(vec![r, l], "WITHIN GROUP")?;
                lefts.push((both.pop().expect("BUG: two expressions"), l_at));
                rights.push((both.pop().expect("BUG: two expressions"), r_at));
            }
            lefts.extend(rights);
            arguments.args = lefts;
        }
        let resolved = self.finish_call(candidate, arguments, at)?;
        let mut args = resolved.args;
        let mut order = Vec::new();
        if call.agg_within_group {
            let sorted = args.split_off(direct.min(args.len()));
            for (expr, (key, key_at)) in sorted.into_iter().zip(within_group) {
                self.default_comparison(expr.ty().oid, 1).ok_or_else(|| self.ordering_missing(expr.ty().oid, key_at))?;
                order.push(SortKey { expr, ..key });
            }
        } else if !call.agg_order.is_empty() {
            if call.over.is_some() {
                return Err(self.error(ErrorCode::FeatureNotSupported, "aggregate ORDER BY is not implemented for window functions", at));
            }
            let nested = std::mem::replace(&mut self.level().in_aggregate, true);
            let keys = self.aggregate_order(&call.agg_order);
            self.level().in_aggregate = nested;
            order = keys?;
            if call.agg_distinct {
                for (i, key) in order.iter_mut().enumerate() {
                    // The argument may have been made text from varchar, which is the same value.
                    let arg = args.iter().find(|arg| super::same_expr(arg, &key.expr) || super::same_expr(without_relabel(arg), &key.expr));
                    let Some(arg) = arg else {
                        let at = call.agg_order.get(i).map_or(at, |sort| match &sort.node {
                            Some(NodeEnum::SortBy(sort)) => sort.node.as_deref().map_or(at, location),
                            _ => at,
                        });
                        return Err(self.error(
                            ErrorCode::InvalidColumnReference,
                            "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
                            at,
                        ));
                    };
                    key.expr = arg.clone();
                }
            }
        }
        if call.agg_distinct {
            if call.over.is_some() {
                return Err(self.error(ErrorCode::FeatureNotSupported, "DISTINCT is not implemented for window functions", at));
            }
            if let Some(arg) = args.iter().find(|arg| self.default_comparison(arg.ty().oid, 3).is_none()) {
                return Err(self.equality_missing(arg.ty().oid, at));
            }
        }
        let filter = match call.agg_filter.as_deref() {
            Some(node) => {
                let nested = std::mem::replace(&mut self.level().in_aggregate, true);
                let clause = std::mem::replace(&mut self.level().clause, Clause::Filter);
                let bound = self.located(node).and_then(|(expr, at)| self.coerce_to_boolean(expr, at, "argument of FILTER"));
                let level = self.level();
                level.in_aggregate = nested;
                level.clause = clause;
                Some(bound?)
            }
            None => None,
        };
        let aggregate = AggregateCall {
            proc: resolved.proc.oid,
            args,
            ty: resolved.result,
            distinct: call.agg_distinct,
            filter,
            order,
            star: call.agg_star,
        };
        if let Some(over) = call.over.as_deref() {
            return self.window_call(aggregate, over, at);
        }
        let clause = self.clause();
        let level = self.level();
        if level.aggregates.len() > before.0 {
            return Err(self.error(ErrorCode::GroupingError, "aggregate function calls cannot be nested", at));
        }
        if level.windows.len() > before.1 {
            return Err(self.error(ErrorCode::GroupingError, "aggregate function calls cannot contain window function calls", at));
        }
        if level.sets.len() > before.2 {
            return Err(self
                .error(ErrorCode::FeatureNotSupported, "aggregate function calls cannot contain set-returning function calls", at)
                .hint("You might be able to move the set-returning function into a LATERAL FROM item."));
        }
        if level.in_aggregate {
            return Err(self.error(ErrorCode::GroupingError, "aggregate function calls cannot be nested", at));
        }
        // An aggregate over columns of an enclosing query only belongs to that query.
        let only_outer = {
            let mut own = false;
            let mut outer = false;
            let mut look = |e: &mut Expr| match e {
                Expr::Column { .. } => own = true,
                Expr::Outer { .. } => outer = true,
                _ => {}
            };
            aggregate.args.clone().iter_mut().for_each(|arg| arg.visit_all_mut(&mut look));
            outer && !own
        };
        if only_outer {
            return Err(self.unsupported("an aggregate of an outer query's columns", at));
        }
        if !clause.allows_aggregates() {
            return Err(self.error(ErrorCode::GroupingError, format!("aggregate functions are not allowed in {}", clause.name()), at));
        }
        let ty = aggregate.ty;
        let column = self.new_column(name, ty);
        let id = column.id;
        self.level().aggregates.push((column, aggregate));
        Ok(Expr::Column { id, ty })
    }

    fn aggregate_order(&mut self, nodes: &[Node]) -> Result<Vec<SortKey>> {
        let mut keys = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::SortBy(sort)) = &node.node else { continue };
            let Some(value) = sort.node.as_deref() else { continue };
            let (expr, at) = self.located(value)?;
            let expr = self.unknown_to_text(expr, at)?;
            keys.push(self.sort_key(expr, sort, at)?);
        }
        Ok(keys)
    }

    fn set_returning_call(&mut self, function: FunctionCall, name: &str, sets_before: usize, at: i32) -> Result<Expr> {
        let clause = self.clause();
        if !clause.allows_sets() {
            return Err(self.error(
                ErrorCode::FeatureNotSupported,
                format!("set-returning functions are not allowed in {}", clause.name()),
                at,
            ));
        }
        if let Some(word) = self.level().conditional {
            return Err(self
                .error(ErrorCode::FeatureNotSupported, format!("set-returning functions are not allowed in {word}"), at)
                .hint("You might be able to move the set-returning function into a LATERAL FROM item."));
        }
        let depth = self.level().sets[sets_before..].iter().map(|(_, _, depth)| depth + 1).max().unwrap_or(0);
        let ty = function.ty;
        let column = self.new_column(name, ty);
        let id = column.id;
        self.level().sets.push((column, function, depth));
        Ok(Expr::Column { id, ty })
    }

    /// GROUPING(...): its arguments are matched to the groups once those are known.
    pub(super) fn grouping_call(&mut self, args: &[Node], at: i32) -> Result<Expr> {
        if !self.clause().allows_aggregates() {
            let name = self.clause().name();
            return Err(self.error(ErrorCode::GroupingError, format!("grouping operations are not allowed in {name}"), at));
        }
        if args.len() > 31 {
            return Err(self.error(ErrorCode::ProgramLimitExceeded, "GROUPING must have fewer than 32 arguments", at));
        }
        let references = self.level().references.len();
        let bound = args.iter().map(|arg| self.located(arg)).collect::<Result<Vec<_>>>()?;
        let level = self.level();
        level.references.truncate(references);
        level.groupings.push(bound);
        Ok(Expr::Grouping(vec![usize::MAX, level.groupings.len() - 1]))
    }

    /// A value as an argument of our own table functions and AS OF: what a declared type asks, unknown as text.
    pub(super) fn plain_argument(&mut self, expr: Expr, at: i32) -> Result<Expr> {
        let ty = expr.ty().oid;
        if ty == oid::UNKNOWN {
            return self.coerce(expr, at, SqlType::new(oid::TEXT), Context::Implicit);
        }
        Ok(expr)
    }
}

fn without_relabel(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast { input, method: crate::bound::CastMethod::Relabel, .. } => input,
        other => other,
    }
}
