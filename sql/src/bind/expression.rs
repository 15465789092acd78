//! Scalar expressions.

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, AIndirection, BoolExprType, BoolTestType, CaseExpr, ColumnRef, MinMaxOp, Node, NullTestType, RowExpr,
    SqlValueFunction, SqlValueFunctionOp, SubLink, SubLinkType,
};
use strandline_storage::Value;

use super::Binder;
use super::coercion::{Context, Located};
use super::object_names::name_parts;
use super::scope::Clause;
use super::type_system::{category, pseudo};
use crate::bound::{CastMethod, Expr, FunctionCall, Query, Subquery, SubqueryKind, Subscript};
use crate::catalog_data::{OperatorRow, catalog};
use crate::error::{ErrorCode, Result};
use crate::types::{Oid, SqlType, oid};

/// pg_proc oids of the functions that the grammar's own words stand for.
mod proc {
    pub const NOW: u32 = 1299;
    pub const CURRENT_USER: u32 = 745;
    pub const SESSION_USER: u32 = 746;
    pub const CURRENT_DATABASE: u32 = 861;
    pub const CURRENT_SCHEMA: u32 = 1402;
    pub const JSONB_EXTRACT_PATH: u32 = 3217;
}

/// The leftmost place of an expression in the text, as errors point at it; -1 for none.
pub(super) fn location(node: &Node) -> i32 {
    let mut leftmost = -1;
    let mut next = Some(node);
    // Down the first operands, with a loop: the binder's nesting leaves little stack for a recursion of this depth.
    while let Some(node) = next.and_then(|node| node.node.as_ref()) {
        let own;
        (own, next) = match node {
            NodeEnum::ColumnRef(n) => (n.location, None),
            NodeEnum::ParamRef(n) => (n.location, None),
            NodeEnum::AConst(n) => (n.location, None),
            NodeEnum::AExpr(n) => (n.location, n.lexpr.as_deref()),
            NodeEnum::BoolExpr(n) => (n.location, n.args.first()),
            NodeEnum::FuncCall(n) => (n.location, n.args.first()),
            NodeEnum::TypeCast(n) => {
                let ty = n.type_name.as_ref().map_or(-1, |t| t.location);
                ([ty, n.location].into_iter().filter(|l| *l >= 0).min().unwrap_or(-1), n.arg.as_deref())
            }
            NodeEnum::CollateClause(n) => (n.location, n.arg.as_deref()),
            NodeEnum::AIndirection(n) => (-1, n.arg.as_deref()),
            NodeEnum::AArrayExpr(n) => (n.location, None),
            NodeEnum::SubLink(n) => (n.location, n.testexpr.as_deref()),
            NodeEnum::RowExpr(n) => (n.location, None),
            NodeEnum::CaseExpr(n) => (n.location, None),
            NodeEnum::CoalesceExpr(n) => (n.location, None),
            NodeEnum::MinMaxExpr(n) => (n.location, None),
            NodeEnum::SqlvalueFunction(n) => (n.location, None),
            NodeEnum::NullTest(n) => (n.location, n.arg.as_deref()),
            NodeEnum::BooleanTest(n) => (n.location, n.arg.as_deref()),
            NodeEnum::GroupingFunc(n) => (n.location, None),
            NodeEnum::NamedArgExpr(n) => (n.location, n.arg.as_deref()),
            NodeEnum::SetToDefault(n) => (n.location, None),
            NodeEnum::XmlExpr(n) => (n.location, None),
            NodeEnum::ResTarget(n) => match n.val.as_deref() {
                Some(value) => (-1, Some(value)),
                None => (n.location, None),
            },
            NodeEnum::List(n) => (-1, n.items.first()),
            _ => (-1, None),
        };
        if own >= 0 && (leftmost < 0 || own < leftmost) {
            leftmost = own;
        }
    }
    leftmost
}

impl Binder<'_> {
    /// Binds an expression; its type may still be unknown.
    pub(super) fn expression(&mut self, node: &Node) -> Result<Expr> {
        self.nested(|b| b.expression_here(node))
    }

    pub(super) fn located(&mut self, node: &Node) -> Result<Located> {
        Ok((self.expression(node)?, location(node)))
    }

    fn required(&mut self, node: Option<&Node>) -> Result<Located> {
        match node {
            Some(node) => self.located(node),
            None => Err(crate::error::SqlError::new(ErrorCode::InternalError, "parse tree lacks an operand")),
        }
    }

    fn expression_here(&mut self, node: &Node) -> Result<Expr> {
        let at = location(node);
        match node.node.as_ref() {
            Some(NodeEnum::AConst(constant)) => self.constant(constant),
            Some(NodeEnum::ColumnRef(column)) => self.column_reference(column),
            Some(NodeEnum::ParamRef(param)) => self.parameter(param.number, param.location),
            Some(NodeEnum::AExpr(expr)) => self.operator_expression(expr),
            Some(NodeEnum::BoolExpr(expr)) => {
                let word = match expr.boolop() {
                    BoolExprType::AndExpr => "AND",
                    BoolExprType::OrExpr => "OR",
                    _ => "NOT",
                };
                let mut args = Vec::with_capacity(expr.args.len());
                for arg in &expr.args {
                    let (bound, at) = self.located(arg)?;
                    args.push(self.coerce_to_boolean(bound, at, &format!("argument of {word}"))?);
                }
                Ok(match (word, args.len()) {
                    ("AND", _) => Expr::And(args),
                    ("OR", _) => Expr::Or(args),
                    _ => Expr::Not(Box::new(args.swap_remove(0))),
                })
            }
            Some(NodeEnum::FuncCall(call)) => self.function_call(call),
            Some(NodeEnum::TypeCast(cast)) => {
                let Some(type_name) = &cast.type_name else { return Err(self.error(ErrorCode::SyntaxError, "cast without type", at)) };
                let target = self.type_of(type_name)?;
                if let Some(NodeEnum::AArrayExpr(array)) = cast.arg.as_deref().and_then(|a| a.node.as_ref())
                    && let Some(element) = self.types.element(self.types.base_oid(target.oid))
                {
                    let expr =
                        self.array(&array.elements, array.location, Some((self.types.base_oid(target.oid), element, target.typmod)))?;
                    return self.cast(expr, array.location, target, cast.location);
                }
                let (expr, arg_at) = self.required(cast.arg.as_deref())?;
                let location = if cast.location >= 0 { cast.location } else { type_name.location };
                self.cast(expr, arg_at, target, location)
            }
            Some(NodeEnum::CollateClause(collate)) => {
                let (expr, arg_at) = self.required(collate.arg.as_deref())?;
                let expr = if expr.ty().oid == oid::UNKNOWN { self.unknown_to_text(expr, arg_at)? } else { expr };
                let collatable = [category::STRING].contains(&self.types.category(expr.ty().oid).0)
                    || self.types.element(expr.ty().oid).is_some_and(|e| self.types.category(e).0 == category::STRING);
                if !collatable {
                    return Err(self.error(
                        ErrorCode::DatatypeMismatch,
                        format!("collations are not supported by type {}", self.types.name(expr.ty().oid)),
                        collate.location,
                    ));
                }
                self.check_collation(&collate.collname, collate.location)?;
                Ok(expr)
            }
            Some(NodeEnum::AIndirection(indirection)) => self.indirection(indirection),
            Some(NodeEnum::AArrayExpr(array)) => self.array(&array.elements, array.location, None),
            Some(NodeEnum::SubLink(link)) => self.sublink(link),
            Some(NodeEnum::RowExpr(row)) => self.row(row),
            Some(NodeEnum::CaseExpr(case)) => self.case(case),
            Some(NodeEnum::CoalesceExpr(coalesce)) => {
                let args =
                    self.conditionally("COALESCE", |b| coalesce.args.iter().map(|arg| b.located(arg)).collect::<Result<Vec<_>>>())?;
                let (args, ty) = self.unify(args, "COALESCE")?;
                Ok(Expr::Coalesce { args, ty })
            }
            Some(NodeEnum::MinMaxExpr(minmax)) => {
                let greatest = minmax.op() == MinMaxOp::IsGreatest;
                let args = minmax.args.iter().map(|arg| self.located(arg)).collect::<Result<Vec<_>>>()?;
                let (args, ty) = self.unify(args, if greatest { "GREATEST" } else { "LEAST" })?;
                let less = self.default_comparison(ty.oid, 1).ok_or_else(|| {
                    self.error(
                        ErrorCode::UndefinedFunction,
                        format!("could not identify a comparison function for type {}", self.types.name(ty.oid)),
                        minmax.location,
                    )
                })?;
                Ok(Expr::MinMax { greatest, args, less: less.proc, ty })
            }
            Some(NodeEnum::NullTest(test)) => {
                let (arg, arg_at) = self.required(test.arg.as_deref())?;
                let arg = self.unknown_to_text(arg, arg_at)?;
                let is_null = test.nulltesttype() == NullTestType::IsNull;
                Ok(if is_null { Expr::IsNull(Box::new(arg)) } else { Expr::IsNotNull(Box::new(arg)) })
            }
            Some(NodeEnum::BooleanTest(test)) => {
                let (value, negated, word) = match test.booltesttype() {
                    BoolTestType::IsTrue => (Some(true), false, "IS TRUE"),
                    BoolTestType::IsNotTrue => (Some(true), true, "IS NOT TRUE"),
                    BoolTestType::IsFalse => (Some(false), false, "IS FALSE"),
                    BoolTestType::IsNotFalse => (Some(false), true, "IS NOT FALSE"),
                    BoolTestType::IsNotUnknown => (None, true, "IS NOT UNKNOWN"),
                    _ => (None, false, "IS UNKNOWN"),
                };
                let (arg, arg_at) = self.required(test.arg.as_deref())?;
                let input = self.coerce_to_boolean(arg, arg_at, &format!("argument of {word}"))?;
                Ok(Expr::IsBool { input: Box::new(input), value, negated })
            }
            Some(NodeEnum::SqlvalueFunction(function)) => self.value_function(function),
            Some(NodeEnum::GroupingFunc(grouping)) => self.grouping_call(&grouping.args, grouping.location),
            Some(NodeEnum::SetToDefault(default)) => {
                Err(self.error(ErrorCode::SyntaxError, "DEFAULT is not allowed in this context", default.location))
            }
            Some(NodeEnum::NamedArgExpr(_)) => Err(self.error(ErrorCode::SyntaxError, "named argument outside of a call", at)),
            Some(NodeEnum::XmlExpr(_) | NodeEnum::XmlSerialize(_)) => Err(self.unsupported("XML", at)),
            Some(NodeEnum::CurrentOfExpr(_)) => Err(self.unsupported("WHERE CURRENT OF", at)),
            Some(NodeEnum::MergeSupportFunc(_)) => Err(self.unsupported("MERGE_ACTION()", at)),
            Some(
                NodeEnum::JsonObjectConstructor(_)
                | NodeEnum::JsonArrayConstructor(_)
                | NodeEnum::JsonArrayQueryConstructor(_)
                | NodeEnum::JsonObjectAgg(_)
                | NodeEnum::JsonArrayAgg(_)
                | NodeEnum::JsonIsPredicate(_)
                | NodeEnum::JsonFuncExpr(_)
                | NodeEnum::JsonParseExpr(_)
                | NodeEnum::JsonScalarExpr(_)
                | NodeEnum::JsonSerializeExpr(_),
            ) => Err(self.unsupported("SQL/JSON syntax", at)),
            _ => Err(self.unsupported("this kind of expression", at)),
        }
    }

    fn constant(&self, constant: &AConst) -> Result<Expr> {
        let at = constant.location;
        if constant.isnull {
            return Ok(Expr::Const { value: Value::Null, ty: SqlType::new(oid::UNKNOWN) });
        }
        let of = |value, ty| Ok(Expr::Const { value, ty: SqlType::new(ty) });
        match &constant.val {
            // Zero is kept as no value at all in the serialised tree.
            None => of(Value::Int4(0), oid::INT4),
            Some(Val::Ival(i)) => of(Value::Int4(i.ival), oid::INT4),
            Some(Val::Boolval(b)) => of(Value::Bool(b.boolval), oid::BOOL),
            Some(Val::Sval(s)) => of(Value::bytes(&s.sval), oid::UNKNOWN),
            Some(Val::Fval(f)) => match parse_integer(&f.fval) {
                // The grammar folds a minus sign into the literal: the smallest integer comes as such a text.
                Some(i) => match i32::try_from(i) {
                    Ok(i) => of(Value::Int4(i), oid::INT4),
                    Err(_) => of(Value::Int8(i), oid::INT8),
                },
                None => self.literal(&f.fval, SqlType::new(oid::NUMERIC), at),
            },
            Some(Val::Bsval(b)) => self.literal(&b.bsval, SqlType::new(oid::BIT), at),
        }
    }

    /// The only collations are those that order by bytes.
    pub(super) fn check_collation(&self, name: &[Node], at: i32) -> Result<()> {
        let parts = name_parts(name);
        let known = match parts.as_slice() {
            [name] | ["pg_catalog", name] => matches!(*name, "C" | "POSIX" | "default" | "ucs_basic"),
            _ => false,
        };
        if known { Ok(()) } else { Err(self.unsupported(format!("collation \"{}\"", parts.join(".")), at)) }
    }

    fn conditionally<T>(&mut self, word: &'static str, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.level().conditional.replace(word);
        let result = f(self);
        self.level().conditional = before;
        result
    }

    fn column_reference(&mut self, column: &ColumnRef) -> Result<Expr> {
        let at = column.location;
        if matches!(self.clause(), Clause::Default | Clause::AsOf | Clause::TableFunction) && self.levels.len() == 1 {
            let text = match self.clause() {
                Clause::Default => "cannot use column reference in DEFAULT expression",
                Clause::AsOf => "cannot use column reference in AS OF",
                _ => "cannot use column reference in the arguments of a version function",
            };
            return Err(self.error(ErrorCode::InvalidColumnReference, text, at));
        }
        let star = matches!(column.fields.last().and_then(|n| n.node.as_ref()), Some(NodeEnum::AStar(_)));
        let source = self.source.clone();
        let parts: Vec<&str> = name_parts(&column.fields).into_iter().map(|p| source.relation_name(p)).collect();
        if star {
            return match parts.as_slice() {
                [] => Err(self.error(ErrorCode::SyntaxError, "row expansion via \"*\" is not supported here", at)),
                parts => self.whole_row(parts, at),
            };
        }
        match parts.as_slice() {
            [name] => {
                if let Some(expr) = self.unqualified_column(name, at)? {
                    return Ok(expr);
                }
                if self.relation_in_view(None, name, at)?.is_some() {
                    return self.whole_row(&[name], at);
                }
                Err(self.missing_column(None, name, at))
            }
            [qualifier @ .., name] => {
                let (schema, table) = match qualifier {
                    [table] => (None, *table),
                    [schema, table] => (Some(*schema), *table),
                    [_, schema, table] => (Some(*schema), *table),
                    _ => {
                        return Err(self.error(
                            ErrorCode::SyntaxError,
                            format!("improper qualified name (too many dotted names): {}", parts.join(".")),
                            at,
                        ));
                    }
                };
                let Some(found) = self.relation_in_view(schema, table, at)? else {
                    return Err(self.missing_relation(table, at));
                };
                match self.column_of(found, name, at)? {
                    Some(expr) => Ok(expr),
                    None => Err(self.missing_column(Some(table), name, at)),
                }
            }
            [] => Err(self.error(ErrorCode::SyntaxError, "empty column reference", at)),
        }
    }

    /// `t` or `t.*` as a value: the row.
    fn whole_row(&mut self, parts: &[&str], at: i32) -> Result<Expr> {
        let (schema, table) = match parts {
            [table] => (None, *table),
            [.., schema, table] => (Some(*schema), *table),
            [] => (None, ""),
        };
        let Some((depth, item)) = self.relation_in_view(schema, table, at)? else {
            return Err(self.missing_relation(table, at));
        };
        let (count, scalar) = {
            let item = &self.levels[depth].namespace[item];
            (item.columns.len(), item.scalar_function)
        };
        if scalar && count == 1 {
            return self.use_column(depth, item, 0, at);
        }
        let mut fields = Vec::with_capacity(count);
        for column in 0..count {
            let name = self.levels[depth].namespace[item].columns[column].name.clone();
            fields.push((name, self.use_column(depth, item, column, at)?));
        }
        Ok(Expr::Row { fields, ty: SqlType::new(oid::RECORD) })
    }

    fn operator_expression(&mut self, expr: &AExpr) -> Result<Expr> {
        let at = expr.location;
        let name = name_parts(&expr.name);
        if let [schema, _] = name.as_slice()
            && *schema != "pg_catalog"
        {
            if self.names.schema_oid(schema).is_none() {
                return Err(self.error(ErrorCode::UndefinedSchema, format!("schema \"{schema}\" does not exist"), at));
            }
            return Err(self.error(ErrorCode::UndefinedFunction, format!("operator does not exist: {}", name.join(".")), at));
        }
        let name = name.last().copied().unwrap_or("=");
        let (left, right) = (expr.lexpr.as_deref(), expr.rexpr.as_deref());
        match expr.kind() {
            AExprKind::AexprOp => {
                if let (Some(l), Some(r)) = (left.and_then(|l| l.node.as_ref()), right.and_then(|r| r.node.as_ref())) {
                    match (l, r) {
                        (NodeEnum::RowExpr(l), NodeEnum::RowExpr(r)) => {
                            let left = self.row_fields(&l.args)?;
                            let right = self.row_fields(&r.args)?;
                            return self.row_comparison(name, left, right, at);
                        }
                        // (a, b) = (SELECT x, y)
                        (NodeEnum::RowExpr(l), NodeEnum::SubLink(link)) if link.sub_link_type() == SubLinkType::ExprSublink => {
                            let left = self.row_fields(&l.args)?;
                            return self.row_equals_subquery(name, left, link, at);
                        }
                        _ => {}
                    }
                }
                let left = left.map(|left| self.located(left)).transpose()?;
                let right = self.required(right)?;
                match left {
                    Some(left) => self.binary(name, left, right, at),
                    None => self.prefix(name, right, at),
                }
            }
            AExprKind::AexprLike | AExprKind::AexprIlike | AExprKind::AexprSimilar => {
                let left = self.required(left)?;
                let right = self.required(right)?;
                self.binary(name, left, right, at)
            }
            AExprKind::AexprOpAny | AExprKind::AexprOpAll => {
                let left = self.required(left)?;
                let right = self.required(right)?;
                self.any_array(name, left, right, expr.kind() == AExprKind::AexprOpAll, at)
            }
            AExprKind::AexprDistinct | AExprKind::AexprNotDistinct => {
                let negated = expr.kind() == AExprKind::AexprNotDistinct;
                if let (Some(NodeEnum::RowExpr(l)), Some(NodeEnum::RowExpr(r))) =
                    (left.and_then(|l| l.node.as_ref()), right.and_then(|r| r.node.as_ref()))
                {
                    let left = self.row_fields(&l.args)?;
                    let right = self.row_fields(&r.args)?;
                    if left.len() != right.len() {
                        return Err(self.error(ErrorCode::SyntaxError, "unequal number of entries in row expressions", at));
                    }
                    let mut parts = Vec::with_capacity(left.len());
                    for (l, r) in left.into_iter().zip(right) {
                        parts.push(self.distinct(name, l, r, negated, at)?);
                    }
                    return Ok(if negated { Expr::And(parts) } else { Expr::Or(parts) });
                }
                let left = self.required(left)?;
                let right = self.required(right)?;
                self.distinct(name, left, right, negated, at)
            }
            AExprKind::AexprNullif => {
                let left = self.required(left)?;
                let right = self.required(right)?;
                let (op, mut args) = self.comparison("=", left, right, at)?;
                if op.result != oid::BOOL {
                    return Err(self.error(ErrorCode::DatatypeMismatch, "NULLIF requires = operator to yield boolean", at));
                }
                let right = args.pop().expect("BUG: two operands");
                let left = args.pop().expect("BUG: two operands");
                let ty = left.ty();
                Ok(Expr::NullIf { left: Box::new(left), right: Box::new(right), equal: op.proc, ty })
            }
            AExprKind::AexprIn => self.in_list(name, left, right, at),
            AExprKind::AexprBetween | AExprKind::AexprNotBetween | AExprKind::AexprBetweenSym | AExprKind::AexprNotBetweenSym => {
                let Some(NodeEnum::List(bounds)) = right.and_then(|r| r.node.as_ref()) else {
                    return Err(self.error(ErrorCode::SyntaxError, "BETWEEN without bounds", at));
                };
                let (low, high) = (bounds.items.first(), bounds.items.get(1));
                let compare = |b: &mut Self, op: &str, bound: Option<&Node>| -> Result<Expr> {
                    let l = b.required(left)?;
                    b.charge_copy(&l.0)?;
                    let r = b.required(bound)?;
                    b.binary(op, l, r, at)
                };
                Ok(match expr.kind() {
                    AExprKind::AexprBetween => Expr::And(vec![compare(self, ">=", low)?, compare(self, "<=", high)?]),
                    AExprKind::AexprNotBetween => Expr::Or(vec![compare(self, "<", low)?, compare(self, ">", high)?]),
                    AExprKind::AexprBetweenSym => Expr::Or(vec![
                        Expr::And(vec![compare(self, ">=", low)?, compare(self, "<=", high)?]),
                        Expr::And(vec![compare(self, ">=", high)?, compare(self, "<=", low)?]),
                    ]),
                    _ => Expr::And(vec![
                        Expr::Or(vec![compare(self, "<", low)?, compare(self, ">", high)?]),
                        Expr::Or(vec![compare(self, "<", high)?, compare(self, ">", low)?]),
                    ]),
                })
            }
            AExprKind::Undefined => Err(self.unsupported("this kind of expression", at)),
        }
    }

    /// `left op right`.
    pub(super) fn binary(&mut self, name: &str, left: Located, right: Located, at: i32) -> Result<Expr> {
        let (op, args) = self.comparison(name, left, right, at)?;
        self.operator_call(op, args)
    }

    fn operator_call(&mut self, op: &OperatorRow, args: Vec<Expr>) -> Result<Expr> {
        let declared: Vec<Oid> = if op.kind == b'b' { vec![op.left, op.right] } else { vec![op.right] };
        let types: Vec<Oid> = args.iter().map(|a| a.ty().oid).collect();
        let mut resolved = declared;
        let result = self.resolve_polymorphic(&types, &mut resolved, op.result)?;
        Ok(Expr::Function(FunctionCall { proc: op.proc, args, ty: SqlType::new(result), variadic: false }))
    }

    /// The operator and its operands, coerced.
    fn comparison(&mut self, name: &str, left: Located, right: Located, at: i32) -> Result<(&'static OperatorRow, Vec<Expr>)> {
        let types = [left.0.ty().oid, right.0.ty().oid];
        let op = self.resolve_operator(name, Some(types[0]), types[1], at)?;
        if op.proc == 0 {
            return Err(self.error(ErrorCode::UndefinedFunction, format!("operator is only a shell: {name}"), at));
        }
        let args = self.coerce_arguments(vec![left, right], &[op.left, op.right], at)?;
        Ok((op, args))
    }

    /// Coerces arguments to the declared types, polymorphic ones resolved.
    pub(super) fn coerce_arguments(&mut self, args: Vec<Located>, declared: &[Oid], at: i32) -> Result<Vec<Expr>> {
        let types = Self::types_of(&args);
        let mut declared = declared.to_vec();
        let original = declared.clone();
        self.resolve_polymorphic(&types, &mut declared, oid::VOID).map_err(|e| e.at(self.source.position(at)))?;
        let mut out = Vec::with_capacity(args.len());
        for (i, (expr, at)) in args.into_iter().enumerate() {
            let target = declared[i];
            let keeps_domain = matches!(original[i], pseudo::ANYELEMENT | pseudo::ANYNONARRAY) && expr.ty().oid == target;
            out.push(if keeps_domain { expr } else { self.coerce(expr, at, SqlType::new(target), Context::Implicit)? });
        }
        Ok(out)
    }

    fn prefix(&mut self, name: &str, right: Located, at: i32) -> Result<Expr> {
        let op = self.resolve_operator(name, None, right.0.ty().oid, at)?;
        let args = self.coerce_arguments(vec![right], &[op.right], at)?;
        self.operator_call(op, args)
    }

    fn distinct(&mut self, name: &str, left: Located, right: Located, negated: bool, at: i32) -> Result<Expr> {
        let (op, mut args) = self.comparison(name, left, right, at)?;
        if op.result != oid::BOOL {
            return Err(self.error(ErrorCode::DatatypeMismatch, "IS DISTINCT FROM requires = operator to yield boolean", at));
        }
        let right = args.pop().expect("BUG: two operands");
        let left = args.pop().expect("BUG: two operands");
        Ok(Expr::IsDistinctFrom { left: Box::new(left), right: Box::new(right), equal: op.proc, negated })
    }

    /// `left op ANY (array)`.
    fn any_array(&mut self, name: &str, left: Located, right: Located, all: bool, at: i32) -> Result<Expr> {
        let array = right.0.ty().oid;
        let element = if array == oid::UNKNOWN {
            oid::UNKNOWN
        } else {
            self.types
                .subscript_element(array)
                .ok_or_else(|| self.error(ErrorCode::WrongObjectType, "op ANY/ALL (array) requires array on right side", at))?
        };
        let op = self.resolve_operator(name, Some(left.0.ty().oid), element, at)?;
        if op.result != oid::BOOL {
            return Err(self.error(ErrorCode::WrongObjectType, "op ANY/ALL (array) requires operator to yield boolean", at));
        }
        let mut declared = vec![op.left, op.right];
        let inputs = [left.0.ty().oid, element];
        self.resolve_polymorphic(&inputs, &mut declared, oid::BOOL)?;
        let wanted = match self.types.array_of(declared[1]) {
            Some(array) => array,
            None if array != oid::UNKNOWN => array,
            None => {
                return Err(self.error(
                    ErrorCode::UndefinedObject,
                    format!("could not find array type for data type {}", self.types.name(declared[1])),
                    at,
                ));
            }
        };
        let input = self.coerce(left.0, left.1, SqlType::new(declared[0]), Context::Implicit)?;
        let array = self.coerce(right.0, right.1, SqlType::new(wanted), Context::Implicit)?;
        Ok(Expr::AnyArray { input: Box::new(input), array: Box::new(array), operator: op.proc, all })
    }

    /// `left IN (a, b, c)`, `NOT IN`.
    fn in_list(&mut self, name: &str, left: Option<&Node>, right: Option<&Node>, at: i32) -> Result<Expr> {
        let negated = name == "<>";
        let Some(NodeEnum::List(list)) = right.and_then(|r| r.node.as_ref()) else {
            return Err(self.error(ErrorCode::SyntaxError, "IN without a list", at));
        };
        let join = |parts: Vec<Expr>| match parts.len() {
            1 => parts.into_iter().next().expect("BUG: one part"),
            _ if negated => Expr::And(parts),
            _ => Expr::Or(parts),
        };
        if let Some(NodeEnum::RowExpr(row)) = left.and_then(|l| l.node.as_ref()) {
            let mut parts = Vec::with_capacity(list.items.len());
            for item in &list.items {
                let Some(NodeEnum::RowExpr(other)) = item.node.as_ref() else {
                    let l = self.required(left)?;
                    let r = self.located(item)?;
                    parts.push(self.binary(name, l, r, at)?);
                    continue;
                };
                let l = self.row_fields(&row.args)?;
                let r = self.row_fields(&other.args)?;
                parts.push(self.row_comparison(name, l, r, at)?);
            }
            return Ok(join(parts));
        }
        let left = self.required(left)?;
        let items = list.items.iter().map(|item| self.located(item)).collect::<Result<Vec<_>>>()?;
        let is_plain = |e: &Expr| !e.clone().any(&mut |e| matches!(e, Expr::Column { .. } | Expr::Outer { .. }));
        let (plain, others): (Vec<Located>, Vec<Located>) = items.into_iter().partition(|(e, _)| is_plain(e));
        let mut parts = Vec::new();
        let mut rest = others;
        if plain.len() > 1 {
            let mut all = vec![left.clone()];
            all.extend(plain.iter().cloned());
            match self.common_type_or_conflict(&all) {
                Ok(common) if self.types.array_of(common).is_some() && common != oid::RECORD => {
                    let mut list = Vec::with_capacity(plain.len());
                    for (expr, at) in plain {
                        list.push((self.coerce_to_common(expr, at, common, "IN")?, at));
                    }
                    let op = self.resolve_operator(name, Some(left.0.ty().oid), common, at)?;
                    let mut declared = vec![op.left, op.right];
                    self.resolve_polymorphic(&[left.0.ty().oid, common], &mut declared, oid::BOOL)?;
                    let input = self.coerce(left.0.clone(), left.1, SqlType::new(declared[0]), Context::Implicit)?;
                    let mut coerced = Vec::with_capacity(list.len());
                    for (expr, at) in list {
                        coerced.push(self.coerce(expr, at, SqlType::new(declared[1]), Context::Implicit)?);
                    }
                    parts.push(Expr::InList { input: Box::new(input), list: coerced, operator: op.proc, all: negated });
                }
                _ => rest.extend(plain),
            }
        } else {
            rest.extend(plain);
        }
        for item in rest {
            self.charge_copy(&left.0)?;
            parts.push(self.binary(name, left.clone(), item, at)?);
        }
        for part in &mut parts {
            if part.ty().oid != oid::BOOL {
                return Err(self.error(
                    ErrorCode::DatatypeMismatch,
                    format!("argument of IN must be type boolean, not type {}", self.types.name(part.ty().oid)),
                    at,
                ));
            }
        }
        Ok(join(parts))
    }

    /// The fields of ROW(...) or (a, b), `t.*` expanded.
    pub(super) fn row_fields(&mut self, args: &[Node]) -> Result<Vec<Located>> {
        let mut fields = Vec::with_capacity(args.len());
        for arg in args {
            if let Some(NodeEnum::ColumnRef(column)) = &arg.node
                && matches!(column.fields.last().and_then(|n| n.node.as_ref()), Some(NodeEnum::AStar(_)))
            {
                for (_, expr, _) in self.expand_star(column)? {
                    fields.push((expr, column.location));
                }
                continue;
            }
            fields.push(self.located(arg)?);
        }
        Ok(fields)
    }

    fn row(&mut self, row: &RowExpr) -> Result<Expr> {
        let mut fields = Vec::new();
        for (i, (expr, at)) in self.row_fields(&row.args)?.into_iter().enumerate() {
            fields.push((format!("f{}", i + 1), self.unknown_to_text(expr, at)?));
        }
        Ok(Expr::Row { fields, ty: SqlType::new(oid::RECORD) })
    }

    /// `(a, b) op (c, d)`.
    pub(super) fn row_comparison(&mut self, name: &str, left: Vec<Located>, right: Vec<Located>, at: i32) -> Result<Expr> {
        if left.len() != right.len() {
            return Err(self.error(ErrorCode::SyntaxError, "unequal number of entries in row expressions", at));
        }
        if left.is_empty() {
            return Err(self.error(ErrorCode::FeatureNotSupported, "cannot compare rows of zero length", at));
        }
        let pairs: Vec<(Located, Located)> = left.into_iter().zip(right).collect();
        let each = |b: &mut Self, name: &str| -> Result<Vec<Expr>> {
            pairs
                .iter()
                .map(|(l, r)| {
                    let expr = b.binary(name, l.clone(), r.clone(), at)?;
                    if expr.ty().oid == oid::BOOL {
                        Ok(expr)
                    } else {
                        Err(b.error(
                            ErrorCode::DatatypeMismatch,
                            format!("row comparison operator must yield type boolean, not type {}", b.types.name(expr.ty().oid)),
                            at,
                        ))
                    }
                })
                .collect()
        };
        match name {
            "=" => Ok(Expr::And(each(self, "=")?)),
            "<>" | "!=" => Ok(Expr::Or(each(self, "<>")?)),
            "<" | "<=" | ">" | ">=" => {
                // a < c OR (a = c AND (b < d OR ...)): the last pair decides with the operator itself.
                let strict = if name.starts_with('<') { "<" } else { ">" };
                let ordered = each(self, strict)?;
                let equal = each(self, "=")?;
                let last = each(self, name)?.pop().expect("BUG: rows have fields");
                let mut result = last;
                for (order, equal) in ordered.into_iter().zip(equal).rev().skip(1) {
                    result = Expr::Or(vec![order, Expr::And(vec![equal, result])]);
                }
                Ok(result)
            }
            _ if pairs.len() == 1 => Ok(each(self, name)?.remove(0)),
            _ => Err(self
                .error(ErrorCode::FeatureNotSupported, format!("could not determine interpretation of row comparison operator {name}"), at)
                .hint("Row comparison operators must be associated with btree operator families.")),
        }
    }

    fn row_equals_subquery(&mut self, name: &str, left: Vec<Located>, link: &SubLink, at: i32) -> Result<Expr> {
        if !matches!(name, "=" | "<>") {
            return Err(self.unsupported(format!("row comparison with operator {name} and a subquery"), at));
        }
        let (mut query, correlated) = self.subquery(link)?;
        let (left, operators) = self.compare_columns(name, left, &mut query, at)?;
        // Of no row, ANY gives false where PostgreSQL gives NULL; in a condition they are the same.
        let ty = SqlType::new(oid::BOOL);
        Ok(Expr::Subquery(Box::new(Subquery { kind: SubqueryKind::CompareRow { left, operators, all: false }, query, ty, correlated })))
    }

    /// ARRAY[...]; `target`: the array type, its element and modifier asked for by a cast around it.
    fn array(&mut self, elements: &[Node], at: i32, target: Option<(Oid, Oid, i32)>) -> Result<Expr> {
        let mut located = Vec::with_capacity(elements.len());
        for element in elements {
            if let Some(NodeEnum::AArrayExpr(inner)) = &element.node {
                let array = self.nested(|b| b.array(&inner.elements, inner.location, target))?;
                located.push((array, inner.location));
            } else {
                located.push(self.located(element)?);
            }
        }
        if let Some((array, element, typmod)) = target {
            let mut out = Vec::with_capacity(located.len());
            for (expr, at) in located {
                let nested = self.types.element(expr.ty().oid).is_some();
                let wanted = SqlType { oid: if nested { array } else { element }, typmod };
                out.push(self.cast(expr, at, wanted, at)?);
            }
            return Ok(Expr::Array { elements: out, ty: SqlType::new(array) });
        }
        if located.is_empty() {
            return Err(self
                .error(ErrorCode::IndeterminateDatatype, "cannot determine type of empty array", at)
                .hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let (elements, ty) = self.unify(located, "ARRAY")?;
        let array = if self.types.element(ty.oid).is_some() {
            ty.oid
        } else {
            self.types.array_of(ty.oid).ok_or_else(|| {
                self.error(ErrorCode::UndefinedObject, format!("could not find array type for data type {}", self.types.name(ty.oid)), at)
            })?
        };
        Ok(Expr::Array { elements, ty: SqlType { oid: array, typmod: ty.typmod } })
    }

    fn case(&mut self, case: &CaseExpr) -> Result<Expr> {
        let argument = match case.arg.as_deref() {
            Some(arg) => {
                let (expr, at) = self.located(arg)?;
                Some((self.unknown_to_text(expr, at)?, at))
            }
            None => None,
        };
        self.conditionally("CASE", |b| {
            let mut conditions = Vec::with_capacity(case.args.len());
            let mut results = Vec::with_capacity(case.args.len() + 1);
            for arm in &case.args {
                let Some(NodeEnum::CaseWhen(when)) = &arm.node else { continue };
                let condition = b.required(when.expr.as_deref())?;
                let condition = match &argument {
                    Some(argument) => {
                        b.charge_copy(&argument.0)?;
                        (b.binary("=", argument.clone(), condition, when.location)?, when.location)
                    }
                    None => condition,
                };
                conditions.push(b.coerce_to_boolean(condition.0, condition.1, "argument of CASE/WHEN")?);
                results.push(b.required(when.result.as_deref())?);
            }
            // The default comes first when types are chosen, as in PostgreSQL.
            let default = match case.defresult.as_deref() {
                Some(node) => b.located(node)?,
                None => (Expr::Const { value: Value::Null, ty: SqlType::new(oid::UNKNOWN) }, -1),
            };
            let mut all = vec![default];
            all.extend(results);
            let (mut all, ty) = b.unify(all, "CASE")?;
            let results = all.split_off(1);
            let default = all.pop().map(Box::new);
            Ok(Expr::Case { whens: conditions.into_iter().zip(results).collect(), default, ty })
        })
    }

    fn value_function(&mut self, function: &SqlValueFunction) -> Result<Expr> {
        use SqlValueFunctionOp as Op;
        let call = |proc: u32, ty: Oid| Expr::Function(FunctionCall { proc, args: Vec::new(), ty: SqlType::new(ty), variadic: false });
        let now = call(proc::NOW, oid::TIMESTAMPTZ);
        let at = function.location;
        let target = match function.op() {
            Op::SvfopCurrentDate => SqlType::new(oid::DATE),
            Op::SvfopCurrentTime => SqlType::new(oid::TIMETZ),
            Op::SvfopCurrentTimeN => SqlType { oid: oid::TIMETZ, typmod: function.typmod },
            Op::SvfopCurrentTimestamp => SqlType::new(oid::TIMESTAMPTZ),
            Op::SvfopCurrentTimestampN => SqlType { oid: oid::TIMESTAMPTZ, typmod: function.typmod },
            Op::SvfopLocaltime => SqlType::new(oid::TIME),
            Op::SvfopLocaltimeN => SqlType { oid: oid::TIME, typmod: function.typmod },
            Op::SvfopLocaltimestamp => SqlType::new(oid::TIMESTAMP),
            Op::SvfopLocaltimestampN => SqlType { oid: oid::TIMESTAMP, typmod: function.typmod },
            Op::SvfopCurrentRole | Op::SvfopCurrentUser | Op::SvfopUser => return Ok(call(proc::CURRENT_USER, oid::NAME)),
            Op::SvfopSessionUser => return Ok(call(proc::SESSION_USER, oid::NAME)),
            Op::SvfopCurrentCatalog => return Ok(call(proc::CURRENT_DATABASE, oid::NAME)),
            Op::SvfopCurrentSchema => return Ok(call(proc::CURRENT_SCHEMA, oid::NAME)),
            Op::SqlvalueFunctionOpUndefined => return Err(self.unsupported("this value function", at)),
        };
        self.cast(now, at, target, at)
    }

    fn indirection(&mut self, indirection: &AIndirection) -> Result<Expr> {
        let Some(arg) = indirection.arg.as_deref() else { return Err(self.unsupported("this kind of expression", -1)) };
        let at = location(arg);
        let mut expr = self.expression(arg)?;
        let mut rest = indirection.indirection.as_slice();
        while let Some(first) = rest.first() {
            match &first.node {
                Some(NodeEnum::AIndices(_)) => {
                    let count = rest.iter().take_while(|n| matches!(n.node, Some(NodeEnum::AIndices(_)))).count();
                    expr = self.subscripts(expr, &rest[..count], at)?;
                    rest = &rest[count..];
                }
                Some(NodeEnum::String(name)) => {
                    expr = self.field(expr, &name.sval, at)?;
                    rest = &rest[1..];
                }
                _ => return Err(self.error(ErrorCode::SyntaxError, "row expansion via \"*\" is not supported here", at)),
            }
        }
        Ok(expr)
    }

    /// `(composite).name`.
    pub(super) fn field(&mut self, input: Expr, name: &str, at: i32) -> Result<Expr> {
        if let Expr::Row { fields, .. } = &input
            && let Some((_, field)) = fields.iter().find(|(n, _)| n == name)
        {
            return Ok(field.clone());
        }
        let ty = input.ty();
        let fields = match (&input, self.types.fields(self.types.base_oid(ty.oid))) {
            (_, Some(fields)) => fields,
            // A function with OUT arguments gives a record whose columns the catalog knows.
            (Expr::Function(call), None) if ty.oid == oid::RECORD => match catalog().proc_by_oid(call.proc) {
                Some(proc) => proc.out_columns().into_iter().map(|(n, ty)| (n.to_owned(), SqlType::new(ty))).collect(),
                None => Vec::new(),
            },
            (Expr::Row { .. }, None) => Vec::new(),
            (_, None) if ty.oid == oid::RECORD => Vec::new(),
            _ => {
                return Err(self.error(
                    ErrorCode::WrongObjectType,
                    format!("column notation .{name} applied to type {}, which is not a composite type", self.types.name(ty.oid)),
                    at,
                ));
            }
        };
        match fields.iter().position(|(n, _)| n == name) {
            Some(index) => Ok(Expr::Field { input: Box::new(input), name: name.to_owned(), index, ty: fields[index].1 }),
            None if ty.oid == oid::RECORD => {
                Err(self.error(ErrorCode::UndefinedColumn, format!("could not identify column \"{name}\" in record data type"), at))
            }
            None => Err(self.error(
                ErrorCode::UndefinedColumn,
                format!("column \"{name}\" not found in data type {}", self.types.name(ty.oid)),
                at,
            )),
        }
    }

    fn subscripts(&mut self, input: Expr, nodes: &[Node], at: i32) -> Result<Expr> {
        let base = self.types.base_oid(input.ty().oid);
        if base == oid::JSONB {
            return self.json_subscripts(input, nodes, at);
        }
        let Some(element) = self.types.subscript_element(base) else {
            return Err(self.error(
                ErrorCode::DatatypeMismatch,
                format!("cannot subscript type {} because it does not support subscripting", self.types.name(input.ty().oid)),
                at,
            ));
        };
        let mut subscripts = Vec::with_capacity(nodes.len());
        let any_slice = nodes.iter().any(|n| matches!(&n.node, Some(NodeEnum::AIndices(i)) if i.is_slice));
        for node in nodes {
            let Some(NodeEnum::AIndices(indices)) = &node.node else { continue };
            let bound = |b: &mut Self, node: Option<&Node>| -> Result<Option<Expr>> {
                let Some(node) = node else { return Ok(None) };
                let (expr, at) = b.located(node)?;
                match b.coerce_to_target(expr, at, SqlType::new(oid::INT4), Context::Assignment)? {
                    Some(expr) => Ok(Some(expr)),
                    None => Err(b.error(ErrorCode::DatatypeMismatch, "array subscript must have type integer", at)),
                }
            };
            if any_slice {
                let (lower, upper) = (bound(self, indices.lidx.as_deref())?, bound(self, indices.uidx.as_deref())?);
                // A plain index among slices means 1:n.
                let lower = if indices.is_slice { lower } else { Some(Expr::Const { value: Value::Int4(1), ty: SqlType::new(oid::INT4) }) };
                subscripts.push(Subscript::Slice(lower, upper));
            } else if let Some(index) = bound(self, indices.uidx.as_deref())? {
                subscripts.push(Subscript::Index(index));
            }
        }
        let typmod = input.ty().typmod;
        let ty = SqlType { oid: if any_slice { base } else { element }, typmod };
        Ok(Expr::Subscript { input: Box::new(input), subscripts, ty })
    }

    fn json_subscripts(&mut self, input: Expr, nodes: &[Node], at: i32) -> Result<Expr> {
        let mut path = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::AIndices(indices)) = &node.node else { continue };
            let (false, Some(index)) = (indices.is_slice, indices.uidx.as_deref()) else {
                return Err(self.error(ErrorCode::DatatypeMismatch, "jsonb subscript does not support slices", at));
            };
            let (expr, at) = self.located(index)?;
            let ty = expr.ty().oid;
            let expr = if ty == oid::UNKNOWN || self.types.category(ty).0 == category::STRING {
                self.coerce(expr, at, SqlType::new(oid::TEXT), Context::Implicit)?
            } else if self.can_coerce_one(ty, oid::INT4, Context::Implicit) {
                let expr = self.coerce(expr, at, SqlType::new(oid::INT4), Context::Implicit)?;
                Expr::Cast { input: Box::new(expr), ty: SqlType::new(oid::TEXT), method: CastMethod::InOut }
            } else {
                return Err(self
                    .error(ErrorCode::DatatypeMismatch, format!("subscript type {} is not supported", self.types.name(ty)), at)
                    .hint("jsonb subscript must be coercible to either integer or text."));
            };
            path.push(expr);
        }
        let path = Expr::Array { elements: path, ty: SqlType::new(oid::TEXT_ARRAY) };
        let ty = SqlType::new(oid::JSONB);
        Ok(Expr::Function(FunctionCall { proc: proc::JSONB_EXTRACT_PATH, args: vec![input, path], ty, variadic: false }))
    }

    /// Binds the query of a sublink one level deeper.
    fn subquery(&mut self, link: &SubLink) -> Result<(Query, bool)> {
        let clause = self.clause();
        let refused = match clause {
            Clause::Check => Some("cannot use subquery in check constraint"),
            Clause::Default => Some("cannot use subquery in DEFAULT expression"),
            Clause::Generated => Some("cannot use subquery in column generation expression"),
            Clause::Index => Some("cannot use subquery in index expression"),
            Clause::IndexPredicate => Some("cannot use subquery in index predicate"),
            _ => None,
        };
        if let Some(text) = refused {
            return Err(self.error(ErrorCode::FeatureNotSupported, text, link.location));
        }
        let Some(NodeEnum::SelectStmt(select)) = link.subselect.as_deref().and_then(|n| n.node.as_ref()) else {
            return Err(self.error(ErrorCode::SyntaxError, "subquery is not a SELECT", link.location));
        };
        self.select_correlated(select)
    }

    fn sublink(&mut self, link: &SubLink) -> Result<Expr> {
        let at = link.location;
        let bool_type = SqlType::new(oid::BOOL);
        match link.sub_link_type() {
            SubLinkType::ExistsSublink => {
                let (query, correlated) = self.subquery(link)?;
                Ok(Expr::Subquery(Box::new(Subquery { kind: SubqueryKind::Exists, query, ty: bool_type, correlated })))
            }
            SubLinkType::ExprSublink => {
                let (query, correlated) = self.subquery(link)?;
                let [column] = query.columns.as_slice() else {
                    return Err(self.error(ErrorCode::SyntaxError, "subquery must return only one column", at));
                };
                let ty = column.ty;
                Ok(Expr::Subquery(Box::new(Subquery { kind: SubqueryKind::Scalar, query, ty, correlated })))
            }
            SubLinkType::ArraySublink => {
                let (query, correlated) = self.subquery(link)?;
                let [column] = query.columns.as_slice() else {
                    return Err(self.error(ErrorCode::SyntaxError, "subquery must return only one column", at));
                };
                let element = column.ty;
                let array = if self.types.element(element.oid).is_some() { Some(element.oid) } else { self.types.array_of(element.oid) };
                let Some(array) = array else {
                    return Err(self.error(
                        ErrorCode::UndefinedObject,
                        format!("could not find array type for data type {}", self.types.name(element.oid)),
                        at,
                    ));
                };
                let ty = SqlType { oid: array, typmod: element.typmod };
                Ok(Expr::Subquery(Box::new(Subquery { kind: SubqueryKind::Array, query, ty, correlated })))
            }
            SubLinkType::AnySublink | SubLinkType::AllSublink => {
                let all = link.sub_link_type() == SubLinkType::AllSublink;
                let name = name_parts(&link.oper_name).last().copied().unwrap_or("=").to_owned();
                let left = match link.testexpr.as_deref() {
                    Some(Node { node: Some(NodeEnum::RowExpr(row)) }) => self.row_fields(&row.args)?,
                    Some(test) => vec![self.located(test)?],
                    None => Vec::new(),
                };
                let (mut query, correlated) = self.subquery(link)?;
                let (mut left, mut operators) = self.compare_columns(&name, left, &mut query, at)?;
                let kind = if left.len() == 1 {
                    let operator = operators.remove(0);
                    SubqueryKind::Compare { left: Box::new(left.remove(0)), operator, all }
                } else {
                    if !matches!(name.as_str(), "=" | "<>") {
                        return Err(self.unsupported(format!("row comparison with operator {name} and a subquery"), at));
                    }
                    SubqueryKind::CompareRow { left, operators, all }
                };
                // NOT (row) IN (...) arrives as NOT around it; `<> ALL` over rows means "differs somewhere" for each.
                Ok(Expr::Subquery(Box::new(Subquery { kind, query, ty: bool_type, correlated })))
            }
            _ => Err(self.unsupported("this kind of subquery", at)),
        }
    }

    /// Coerces the left side and the query's columns for a comparison column by column; gives the left sides and operator functions.
    fn compare_columns(&mut self, name: &str, left: Vec<Located>, query: &mut Query, at: i32) -> Result<(Vec<Expr>, Vec<Oid>)> {
        if left.len() < query.columns.len() {
            return Err(self.error(ErrorCode::SyntaxError, "subquery has too many columns", at));
        }
        if left.len() > query.columns.len() {
            return Err(self.error(ErrorCode::SyntaxError, "subquery has too few columns", at));
        }
        let mut lefts = Vec::with_capacity(left.len());
        let mut operators = Vec::with_capacity(left.len());
        for ((expr, expr_at), column) in left.into_iter().zip(&query.columns) {
            let op = self.resolve_operator(name, Some(expr.ty().oid), column.ty.oid, at)?;
            if op.result != oid::BOOL {
                return Err(self.error(
                    ErrorCode::DatatypeMismatch,
                    format!("row comparison operator must yield type boolean, not type {}", self.types.name(op.result)),
                    at,
                ));
            }
            let mut declared = vec![op.left, op.right];
            self.resolve_polymorphic(&[expr.ty().oid, column.ty.oid], &mut declared, oid::BOOL)?;
            lefts.push(self.coerce(expr, expr_at, SqlType::new(declared[0]), Context::Implicit)?);
            operators.push((op.proc, declared[1]));
        }
        let targets: Vec<SqlType> = operators.iter().map(|&(_, ty)| SqlType::new(ty)).collect();
        self.cast_columns(query, &targets, "IN")?;
        Ok((lefts, operators.into_iter().map(|(proc, _)| proc).collect()))
    }
}

/// An integer that fits int8 (decimal only; grouped digits and other bases go through numeric's input).
fn parse_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}
