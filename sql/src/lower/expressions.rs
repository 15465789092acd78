//! Scalar expressions and filters.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr as PlanExpr, LogicalPlan, Operator, Volatility, cast, lit};
use strandline_storage::{Kind, Value};

use super::function::PgFunction;
use super::{Lower, builder, name_of, named, planned, walk};
use crate::bound::{CastMethod, ColumnId, Expr, Rel};
use crate::error::Result;
use crate::exec::Evaluator;
use crate::exec::datum::shaped;
use crate::exec::evaluator::parameter;
use crate::functions::compare::{self, Comparison};
use crate::types::arrow_type;

/// An Arrow literal of a value.
pub fn literal(value: &Value, arrow: &ArrowType) -> Result<PlanExpr> {
    Ok(lit(match value {
        Value::Null => planned(ScalarValue::try_from(arrow))?,
        Value::Bool(v) => ScalarValue::Boolean(Some(*v)),
        Value::Int2(v) => ScalarValue::Int16(Some(*v)),
        Value::Int4(v) => ScalarValue::Int32(Some(*v)),
        Value::Int8(v) => ScalarValue::Int64(Some(*v)),
        Value::Float4(v) => ScalarValue::Float32(Some(*v)),
        Value::Float8(v) => ScalarValue::Float64(Some(*v)),
        Value::Uuid(v) => ScalarValue::FixedSizeBinary(16, Some(v.to_vec())),
        Value::Bytes(v) if *arrow == ArrowType::Utf8 => ScalarValue::Utf8(Some(String::from_utf8_lossy(v).into_owned())),
        Value::Bytes(v) => ScalarValue::Binary(Some(v.to_vec())),
    }))
}

fn has_column(plan: &LogicalPlan, id: ColumnId) -> bool {
    let name = name_of(id);
    plan.schema().fields().iter().any(|f| *f.name() == name)
}

/// The bytes that an integer expression takes in Arrow.
fn int_width(arrow: &ArrowType) -> Option<u8> {
    match arrow {
        ArrowType::Int16 => Some(2),
        ArrowType::Int32 => Some(4),
        ArrowType::Int64 => Some(8),
        _ => None,
    }
}

impl Lower {
    fn kind(&self, expr: &Expr) -> Result<(Kind, crate::types::Oid)> {
        let data_type = self.data_type(expr.ty())?;
        Ok((data_type.kind, data_type.oid))
    }

    /// Cannot raise an error, whatever the row.
    pub(super) fn is_safe(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Const { .. } | Expr::Param { .. } | Expr::Column { .. } | Expr::Outer { .. } => true,
            Expr::And(list) | Expr::Or(list) => list.iter().all(|e| self.is_safe(e)),
            Expr::IsNull(e) | Expr::IsNotNull(e) if e.ty().is_row() => false,
            Expr::Not(e) | Expr::IsNull(e) | Expr::IsNotNull(e) | Expr::IsBool { input: e, .. } => self.is_safe(e),
            Expr::Cast { input, method: CastMethod::Relabel, .. } => self.is_safe(input),
            Expr::Function(call) => compare::of_proc(call.proc).is_some() && call.args.iter().all(|e| self.is_safe(e)),
            Expr::InList { input, list, operator, .. } => {
                compare::of_proc(*operator).is_some() && self.is_safe(input) && list.iter().all(|e| self.is_safe(e))
            }
            _ => false,
        }
    }

    /// An expression over the columns of `input`.
    pub(super) fn expr(&mut self, expr: &Expr, input: &LogicalPlan) -> Result<PlanExpr> {
        if let Some(native) = self.native(expr, input)? {
            return Ok(native);
        }
        self.function(expr, input, false)
    }

    /// What compares, sorts, groups and joins like the expression's value.
    pub(super) fn key_expr(&mut self, expr: &Expr, input: &LogicalPlan) -> Result<PlanExpr> {
        let (kind, oid) = self.kind(expr)?;
        if compare::is_plain(kind, oid) { self.expr(expr, input) } else { self.function(expr, input, true) }
    }

    fn function(&mut self, expr: &Expr, input: &LogicalPlan, key: bool) -> Result<PlanExpr> {
        let columns: Vec<ColumnId> = walk::columns_of(expr).into_iter().filter(|id| has_column(input, *id)).collect();
        let has_grouping = self.has_grouping(expr);
        if has_grouping && !input.schema().fields().iter().any(|f| f.name() == super::aggregate::GROUPING) {
            // Without grouping sets every column is grouped.
            return self.function(&super::aggregate::no_grouping(expr), input, key);
        }
        let positions = |id: ColumnId| columns.iter().position(|c| *c == id);
        let volatility = if walk::is_volatile_expr(expr) { Volatility::Volatile } else { Volatility::Immutable };
        let mut args: Vec<PlanExpr> = columns.iter().map(|id| named(name_of(*id))).collect();
        let expr = if has_grouping {
            args.push(named(super::aggregate::GROUPING));
            std::borrow::Cow::Owned(super::aggregate::replace_grouping(expr, super::aggregate::GROUPING_COLUMN))
        } else {
            std::borrow::Cow::Borrowed(expr)
        };
        let grouping_at = args.len().wrapping_sub(1);
        let positions =
            |id: ColumnId| if has_grouping && id == super::aggregate::GROUPING_COLUMN { Some(grouping_at) } else { positions(id) };
        let udf = if key {
            let raw = Evaluator::new(&expr, &self.execution, &positions)?;
            let is_column = matches!(&*expr, Expr::Column { .. });
            let evaluator = Evaluator::sort_key(&expr, &self.execution, &positions)?;
            PgFunction::udf(evaluator, Some((Arc::new(raw), is_column)), volatility)
        } else {
            PgFunction::udf(Evaluator::new(&expr, &self.execution, &positions)?, None, volatility)
        };
        Ok(udf.call(args))
    }

    /// DataFusion's own expression of the same meaning, where there is one.
    fn native(&mut self, expr: &Expr, input: &LogicalPlan) -> Result<Option<PlanExpr>> {
        Ok(match expr {
            Expr::Const { value, ty } => {
                let kind = self.data_type(*ty)?.kind;
                Some(literal(&shaped(value, kind), &arrow_type(kind))?)
            }
            Expr::Param { number, ty } => {
                let kind = self.data_type(*ty)?.kind;
                Some(literal(&shaped(&parameter(&self.execution.context, *number)?, kind), &arrow_type(kind))?)
            }
            Expr::Column { id, .. } | Expr::Outer { id, .. } if has_column(input, *id) => Some(named(name_of(*id))),
            Expr::And(list) | Expr::Or(list) if list.iter().all(|e| self.is_safe(e)) => {
                let op = if matches!(expr, Expr::And(_)) { Operator::And } else { Operator::Or };
                let mut all: Option<PlanExpr> = None;
                for e in list {
                    let e = self.expr(e, input)?;
                    all = Some(match all {
                        None => e,
                        Some(left) => PlanExpr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(e))),
                    });
                }
                Some(all.unwrap_or_else(|| lit(op == Operator::And)))
            }
            Expr::Not(e) => Some(PlanExpr::Not(Box::new(self.expr(e, input)?))),
            Expr::IsNull(e) | Expr::IsNotNull(e) if e.ty().is_row() => None,
            Expr::IsNull(e) => Some(PlanExpr::IsNull(Box::new(self.expr(e, input)?))),
            Expr::IsNotNull(e) => Some(PlanExpr::IsNotNull(Box::new(self.expr(e, input)?))),
            Expr::IsBool { input: e, value, negated } => {
                let e = Box::new(self.expr(e, input)?);
                Some(match (value, negated) {
                    (Some(true), false) => PlanExpr::IsTrue(e),
                    (Some(true), true) => PlanExpr::IsNotTrue(e),
                    (Some(false), false) => PlanExpr::IsFalse(e),
                    (Some(false), true) => PlanExpr::IsNotFalse(e),
                    (None, false) => PlanExpr::IsUnknown(e),
                    (None, true) => PlanExpr::IsNotUnknown(e),
                })
            }
            Expr::Cast { input: inner, ty, method: CastMethod::Relabel } => {
                let (from, to) = (self.kind(inner)?.0, self.data_type(*ty)?.kind);
                if arrow_type(from) == arrow_type(to) { Some(self.expr(inner, input)?) } else { None }
            }
            Expr::Function(call) => match (compare::of_proc(call.proc), call.args.as_slice()) {
                (Some(comparison), [left, right]) => self.comparison(comparison, left, right, input)?,
                _ => None,
            },
            Expr::InList { input: left, list, operator, all }
                if compare::of_proc(*operator) == Some(if *all { Comparison::Ne } else { Comparison::Eq }) && !list.is_empty() =>
            {
                self.in_list(left, list, *all, input)?
            }
            _ => None,
        })
    }

    fn in_list(&mut self, left: &Expr, list: &[Expr], negated: bool, input: &LogicalPlan) -> Result<Option<PlanExpr>> {
        let (kind, oid) = self.kind(left)?;
        let plain = compare::is_plain(kind, oid);
        if !plain || kind == Kind::Bpchar || !list.iter().all(|e| matches!(e, Expr::Const { .. } | Expr::Param { .. })) {
            return Ok(None);
        }
        for item in list {
            if self.kind(item)?.0 != kind {
                return Ok(None);
            }
        }
        let list = list.iter().map(|e| self.expr(e, input)).collect::<Result<Vec<_>>>()?;
        Ok(Some(PlanExpr::InList(InList::new(Box::new(self.expr(left, input)?), list, negated))))
    }

    /// A comparison on keys, when both sides' keys have one shape.
    fn comparison(&mut self, comparison: Comparison, left: &Expr, right: &Expr, input: &LogicalPlan) -> Result<Option<PlanExpr>> {
        let ((lk, lo), (rk, ro)) = (self.kind(left)?, self.kind(right)?);
        let (la, ra) = (arrow_type(lk), arrow_type(rk));
        let op = match comparison {
            Comparison::Eq => Operator::Eq,
            Comparison::Ne => Operator::NotEq,
            Comparison::Lt => Operator::Lt,
            Comparison::Le => Operator::LtEq,
            Comparison::Gt => Operator::Gt,
            Comparison::Ge => Operator::GtEq,
        };
        let is_int = |k: Kind| matches!(k, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid);
        let (l, r) = if is_int(lk) && is_int(rk) && la != ra {
            match (self.as_int(right, &la)?, self.as_int(left, &ra)?) {
                // A constant takes the column's shape, so that key ranges see the column bare.
                (Some(r), _) => (self.expr(left, input)?, r),
                (None, Some(l)) => (l, self.expr(right, input)?),
                (None, None) => {
                    let wide = if int_width(&la) > int_width(&ra) { la } else { ra };
                    (cast(self.expr(left, input)?, wide.clone()), cast(self.expr(right, input)?, wide))
                }
            }
        } else if is_int(lk) && is_int(rk) {
            (self.expr(left, input)?, self.expr(right, input)?)
        } else if lk == rk || (lk == Kind::Text && rk == Kind::Text) {
            // Comparisons of unlike things of one kind (records, opaque types) stay with the evaluator.
            if lk == Kind::Other && lo != ro {
                return Ok(None);
            }
            (self.key_expr(left, input)?, self.key_expr(right, input)?)
        } else {
            let float = |k: Kind| matches!(k, Kind::Float4 | Kind::Float8);
            if !(float(lk) && float(rk)) {
                return Ok(None);
            }
            (self.key_expr(left, input)?, self.key_expr(right, input)?)
        };
        Ok(Some(PlanExpr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r)))))
    }

    /// A constant integer in another integer shape, if it fits.
    fn as_int(&self, expr: &Expr, arrow: &ArrowType) -> Result<Option<PlanExpr>> {
        let value = match expr {
            Expr::Const { value, .. } => value.clone(),
            Expr::Param { number, .. } => parameter(&self.execution.context, *number)?,
            _ => return Ok(None),
        };
        let number = match value {
            Value::Int2(v) => i64::from(v),
            Value::Int4(v) => i64::from(v),
            Value::Int8(v) => v,
            _ => return Ok(None),
        };
        Ok(match arrow {
            ArrowType::Int16 => i16::try_from(number).ok().map(lit),
            ArrowType::Int32 => i32::try_from(number).ok().map(lit),
            ArrowType::Int64 => Some(lit(number)),
            _ => None,
        })
    }

    /// The parts of a predicate that must all hold.
    pub(super) fn conjuncts<'a>(predicate: &'a Expr, out: &mut Vec<&'a Expr>) {
        match predicate {
            Expr::And(list) => list.iter().for_each(|e| Self::conjuncts(e, out)),
            other => out.push(other),
        }
    }

    pub(super) fn filter(&mut self, input: &Rel, predicate: &Expr) -> Result<LogicalPlan> {
        let mut plan = self.rel(input)?;
        let mut parts = Vec::new();
        Self::conjuncts(predicate, &mut parts);
        let mut rest = Vec::new();
        for part in parts {
            match self.semi_join(plan.clone(), part)? {
                Some(joined) => plan = joined,
                None => rest.push(part),
            }
        }
        if rest.is_empty() {
            return Ok(plan);
        }
        let mut predicate = self.conjunction(&rest, &plan)?;
        if matches!(input, Rel::Virtual { .. }) && rest.len() > 1 {
            // What a computed table is asked for must reach it even where it stands guarded: `to_commit = dolt_hashof('HEAD')`.
            for part in &rest {
                if !self.is_safe(part) && self.is_lookup(part) {
                    predicate = self.expr(part, &plan)?.and(predicate);
                }
            }
        }
        planned(planned(builder(plan).filter(predicate))?.build())
    }

    /// `column = value`, the value the same for all rows.
    fn is_lookup(&self, expr: &Expr) -> bool {
        let is_fixed = |e: &Expr| walk::columns_of(e).is_empty() && !walk::is_volatile_expr(e);
        let is_column = |e: &Expr| match e {
            Expr::Cast { input, method: CastMethod::Relabel, .. } => matches!(**input, Expr::Column { .. }),
            e => matches!(e, Expr::Column { .. }),
        };
        match expr {
            Expr::Function(call) if compare::of_proc(call.proc) == Some(Comparison::Eq) => match call.args.as_slice() {
                [left, right] => is_column(left) && is_fixed(right) || is_column(right) && is_fixed(left),
                _ => false,
            },
            _ => false,
        }
    }

    /// All of `parts`. Those that may raise an error are evaluated only on rows that pass the others, in their order.
    pub(super) fn conjunction(&mut self, parts: &[&Expr], input: &LogicalPlan) -> Result<PlanExpr> {
        let (safe, risky): (Vec<&Expr>, Vec<&Expr>) = parts.iter().partition(|e| self.is_safe(e));
        let mut all: Option<PlanExpr> = None;
        for part in &safe {
            let e = self.expr(part, input)?;
            all = Some(match all {
                None => e,
                Some(left) => left.and(e),
            });
        }
        if !risky.is_empty() {
            let e = if risky.len() == 1 && safe.is_empty() {
                self.expr(risky[0], input)?
            } else {
                // One expression, evaluated lazily: the safe parts guard the others.
                let guarded: Vec<Expr> = safe.iter().chain(&risky).map(|e| (*e).clone()).collect();
                self.function(&Expr::And(guarded), input, false)?
            };
            all = Some(match all {
                None => e,
                Some(left) => left.and(e),
            });
        }
        Ok(all.unwrap_or_else(|| lit(true)))
    }
}
