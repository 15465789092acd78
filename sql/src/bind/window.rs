//! Window definitions and calls with OVER.

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, WindowDef};

use super::Binder;
use super::coercion::Context;
use super::expression::location;
use super::scope::{Clause, NamedWindow};
use crate::bound::{AggregateCall, Expr, Frame, FrameBound, FrameUnits, SortKey, WindowCall};
use crate::catalog_data::{BTREE_OID, catalog};
use crate::error::{ErrorCode, Result};
use crate::types::{Oid, SqlType, oid};

/// Bits of `frame_options` in the parse tree (PostgreSQL's `FRAMEOPTION_*`).
mod option {
    pub const NONDEFAULT: i32 = 0x1;
    pub const ROWS: i32 = 0x4;
    pub const GROUPS: i32 = 0x8;
    pub const END_UNBOUNDED_FOLLOWING: i32 = 0x100;
    pub const START_CURRENT_ROW: i32 = 0x200;
    pub const START_OFFSET_PRECEDING: i32 = 0x800;
    pub const END_OFFSET_PRECEDING: i32 = 0x1000;
    pub const START_OFFSET_FOLLOWING: i32 = 0x2000;
    pub const END_OFFSET_FOLLOWING: i32 = 0x4000;
    pub const EXCLUSION: i32 = 0x8000 | 0x10000 | 0x20000;
}

/// The support function of btree that RANGE with an offset needs.
const IN_RANGE_SUPPORT: i16 = 3;

impl Binder<'_> {
    /// A window function's or aggregate's call with OVER becomes a column.
    pub(super) fn window_call(&mut self, call: AggregateCall, over: &WindowDef, at: i32) -> Result<Expr> {
        let clause = self.clause();
        if !clause.allows_windows() {
            return Err(self.error(ErrorCode::WindowingError, format!("window functions are not allowed in {}", clause.name()), at));
        }
        if self.level().in_window {
            return Err(self.error(ErrorCode::WindowingError, "window function calls cannot be nested", at));
        }
        let nested = call.args.iter().any(|arg| {
            arg.any(&mut |e| matches!(e, Expr::Column { id, .. } if self.levels.last().is_some_and(|l| l.windows.iter().any(|(c, _)| c.id == *id))))
        });
        if nested {
            return Err(self.error(ErrorCode::WindowingError, "window function calls cannot be nested", at));
        }
        let window = self.window_of_call(over)?;
        let ty = call.ty;
        let name = catalog().proc_by_oid(call.proc).map_or("window", |p| p.name);
        let column = self.new_column(name, ty);
        let id = column.id;
        let call = WindowCall { call, partition: window.partition, order: window.order, frame: window.frame };
        self.level().windows.push((column, call));
        Ok(Expr::Column { id, ty })
    }

    /// `OVER name` or `OVER (...)`.
    fn window_of_call(&mut self, def: &WindowDef) -> Result<NamedWindow> {
        if def.name.is_empty() { self.define_window(def) } else { self.find_window(&def.name, def.location) }
    }

    fn find_window(&self, name: &str, at: i32) -> Result<NamedWindow> {
        let found = self.levels.last().and_then(|l| l.named_windows.iter().find(|w| w.name == name)).cloned();
        found.ok_or_else(|| self.error(ErrorCode::UndefinedObject, format!("window \"{name}\" does not exist"), at))
    }

    /// A definition in parentheses: that of OVER or of the WINDOW clause.
    pub(super) fn define_window(&mut self, def: &WindowDef) -> Result<NamedWindow> {
        let copied = if def.refname.is_empty() { None } else { Some(self.find_window(&def.refname, def.location)?) };
        let nested = std::mem::replace(&mut self.level().in_window, true);
        let result = self.window_parts(def, copied);
        self.level().in_window = nested;
        result
    }

    fn window_parts(&mut self, def: &WindowDef, copied: Option<NamedWindow>) -> Result<NamedWindow> {
        let mut partition = Vec::with_capacity(def.partition_clause.len());
        for node in &def.partition_clause {
            let at = location(node);
            let expr = self.in_clause(Clause::WindowPartition, |b| b.expression(node))?;
            let expr = self.unknown_to_text(expr, at)?;
            self.default_comparison(expr.ty().oid, 3).ok_or_else(|| self.equality_missing(expr.ty().oid, at))?;
            partition.push(expr);
        }
        let mut order = Vec::with_capacity(def.order_clause.len());
        for node in &def.order_clause {
            let Some(NodeEnum::SortBy(sort)) = &node.node else { continue };
            let Some(value) = sort.node.as_deref() else { continue };
            let at = location(value);
            let expr = self.in_clause(Clause::WindowOrder, |b| b.expression(value))?;
            let expr = self.unknown_to_text(expr, at)?;
            order.push(self.sort_key(expr, sort, at)?);
        }
        let at = def.location;
        if let Some(copied) = copied {
            let name = &copied.name;
            if !partition.is_empty() {
                return Err(self.error(ErrorCode::WindowingError, format!("cannot override PARTITION BY clause of window \"{name}\""), at));
            }
            if !order.is_empty() && !copied.order.is_empty() {
                return Err(self.error(ErrorCode::WindowingError, format!("cannot override ORDER BY clause of window \"{name}\""), at));
            }
            if copied.has_frame {
                return Err(self.error(
                    ErrorCode::WindowingError,
                    format!("cannot copy window \"{name}\" because it has a frame clause"),
                    at,
                ));
            }
            partition = copied.partition;
            if order.is_empty() {
                order = copied.order;
            }
        }
        let frame = self.frame(def, &order)?;
        Ok(NamedWindow { name: def.name.clone(), partition, order, has_frame: def.frame_options & option::NONDEFAULT != 0, frame })
    }

    fn frame(&mut self, def: &WindowDef, order: &[SortKey]) -> Result<Frame> {
        let options = def.frame_options;
        let at = def.location;
        let has = |bit: i32| options & bit != 0;
        if has(option::EXCLUSION) {
            return Err(self.unsupported("EXCLUDE in a window frame", at));
        }
        let units = if has(option::ROWS) {
            FrameUnits::Rows
        } else if has(option::GROUPS) {
            FrameUnits::Groups
        } else {
            FrameUnits::Range
        };
        if units == FrameUnits::Groups && order.is_empty() {
            return Err(self.error(ErrorCode::WindowingError, "GROUPS mode requires an ORDER BY clause", at));
        }
        let start = if has(option::START_OFFSET_PRECEDING) {
            FrameBound::Preceding(self.frame_offset(def.start_offset.as_deref(), units, order, at)?)
        } else if has(option::START_OFFSET_FOLLOWING) {
            FrameBound::Following(self.frame_offset(def.start_offset.as_deref(), units, order, at)?)
        } else if has(option::START_CURRENT_ROW) {
            FrameBound::CurrentRow
        } else {
            FrameBound::UnboundedPreceding
        };
        let end = if has(option::END_OFFSET_PRECEDING) {
            FrameBound::Preceding(self.frame_offset(def.end_offset.as_deref(), units, order, at)?)
        } else if has(option::END_OFFSET_FOLLOWING) {
            FrameBound::Following(self.frame_offset(def.end_offset.as_deref(), units, order, at)?)
        } else if has(option::END_UNBOUNDED_FOLLOWING) {
            FrameBound::UnboundedFollowing
        } else {
            FrameBound::CurrentRow
        };
        Ok(Frame { units, start, end })
    }

    fn frame_offset(&mut self, node: Option<&Node>, units: FrameUnits, order: &[SortKey], at: i32) -> Result<Expr> {
        let Some(node) = node else { return Err(self.error(ErrorCode::WindowingError, "frame bound without an offset", at)) };
        let expr_at = location(node);
        let expr = self.in_clause(Clause::WindowFrame, |b| b.expression(node))?;
        if expr.any(&mut |e| matches!(e, Expr::Column { .. })) {
            let word = frame_word(units);
            return Err(self.error(ErrorCode::InvalidColumnReference, format!("argument of {word} must not contain variables"), expr_at));
        }
        if units != FrameUnits::Range {
            return self.coerce_to_specific(expr, expr_at, oid::INT8, &format!("argument of {}", frame_word(units)));
        }
        let [key] = order else {
            return Err(self.error(
                ErrorCode::WindowingError,
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
                at,
            ));
        };
        let sorted = self.types.base_oid(key.expr.ty().oid);
        let offset = self.range_offset_type(sorted, expr.ty().oid).ok_or_else(|| {
            self.error(
                ErrorCode::FeatureNotSupported,
                format!("RANGE with offset PRECEDING/FOLLOWING is not supported for column type {}", self.types.name(sorted)),
                expr_at,
            )
        })?;
        match self.coerce_to_target(expr.clone(), expr_at, SqlType::new(offset), Context::Implicit)? {
            Some(expr) => Ok(expr),
            None => Err(self.error(
                ErrorCode::FeatureNotSupported,
                format!(
                    "RANGE with offset PRECEDING/FOLLOWING is not supported for column type {} and offset type {}",
                    self.types.name(sorted),
                    self.types.name(expr.ty().oid)
                ),
                expr_at,
            )),
        }
    }

    /// The type of offset that btree's in_range support takes for a sort column of this type.
    fn range_offset_type(&self, sorted: Oid, offset: Oid) -> Option<Oid> {
        let class = catalog().default_operator_class(BTREE_OID, sorted)?;
        let choices: Vec<Oid> = catalog()
            .amprocs
            .iter()
            .filter(|p| p.family == class.family && p.left == sorted && p.number == IN_RANGE_SUPPORT)
            .map(|p| p.right)
            .collect();
        if choices.contains(&offset) {
            return Some(offset);
        }
        if offset == oid::UNKNOWN && choices.contains(&sorted) {
            return Some(sorted);
        }
        choices.iter().copied().find(|&c| self.can_coerce_one(offset, c, Context::Implicit)).or_else(|| choices.first().copied())
    }
}

fn frame_word(units: FrameUnits) -> &'static str {
    match units {
        FrameUnits::Rows => "ROWS",
        FrameUnits::Range => "RANGE",
        FrameUnits::Groups => "GROUPS",
    }
}
