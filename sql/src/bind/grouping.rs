//! GROUP BY: grouping sets, and the rewriting of what stands above the grouping.

use std::collections::HashSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{GroupingSetKind, Node};

use super::Binder;
use super::expression::location;
use super::same_expr;
use super::scope::Clause;
use super::select::Target;
use super::walk::visit_window;
use crate::bound::{Column, ColumnId, Expr};
use crate::error::{ErrorCode, Result, SqlError};

/// PostgreSQL's limit on expanded grouping sets.
const GROUPING_SETS_MAX: usize = 4096;

/// The groups of one query level.
#[derive(Default)]
pub(super) struct Groups {
    pub columns: Vec<(Column, Expr)>,
    /// `None`: plain GROUP BY of all.
    pub sets: Option<Vec<Vec<usize>>>,
}

impl Binder<'_> {
    /// Binds a GROUP BY clause against the select list.
    pub(super) fn group_clause(&mut self, nodes: &[Node], distinct: bool, targets: &[Target]) -> Result<Groups> {
        let mut groups = Groups::default();
        let has_sets = nodes.iter().any(|n| matches!(&n.node, Some(NodeEnum::GroupingSet(_))));
        let mut factors: Vec<Vec<Vec<usize>>> = Vec::new();
        for node in nodes {
            factors.push(self.grouping_element(node, targets, &mut groups)?);
        }
        if has_sets {
            let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
            for factor in factors {
                if sets.len().saturating_mul(factor.len()) > GROUPING_SETS_MAX {
                    return Err(SqlError::new(
                        ErrorCode::StatementTooComplex,
                        format!("too many grouping sets present (maximum {GROUPING_SETS_MAX})"),
                    ));
                }
                sets = sets.iter().flat_map(|set| factor.iter().map(|more| union(set, more))).collect();
            }
            if distinct {
                let mut seen = HashSet::new();
                sets.retain(|set| {
                    let mut key = set.clone();
                    key.sort_unstable();
                    seen.insert(key)
                });
            }
            groups.sets = Some(sets);
        }
        Ok(groups)
    }

    /// The sets that one element of GROUP BY stands for.
    fn grouping_element(&mut self, node: &Node, targets: &[Target], groups: &mut Groups) -> Result<Vec<Vec<usize>>> {
        match &node.node {
            Some(NodeEnum::GroupingSet(set)) => {
                let elements = &set.content;
                Ok(match set.kind() {
                    GroupingSetKind::GroupingSetEmpty => vec![Vec::new()],
                    GroupingSetKind::GroupingSetSets => {
                        let mut sets = Vec::new();
                        for element in elements {
                            sets.extend(self.grouping_element(element, targets, groups)?);
                        }
                        sets
                    }
                    kind @ (GroupingSetKind::GroupingSetRollup | GroupingSetKind::GroupingSetCube) => {
                        let mut parts = Vec::with_capacity(elements.len());
                        for element in elements {
                            parts.push(self.grouping_part(element, targets, groups)?);
                        }
                        if kind == GroupingSetKind::GroupingSetRollup {
                            (0..=parts.len()).rev().map(|n| parts[..n].iter().fold(Vec::new(), |set, part| union(&set, part))).collect()
                        } else {
                            if parts.len() > 12 {
                                return Err(self.error(ErrorCode::StatementTooComplex, "CUBE is limited to 12 elements", set.location));
                            }
                            let all = 1usize << parts.len();
                            (0..all)
                                .rev()
                                .map(|bits| {
                                    // The first element is the highest bit: the order that PostgreSQL expands in.
                                    (0..parts.len())
                                        .filter(|i| bits & (1 << (parts.len() - 1 - i)) != 0)
                                        .fold(Vec::new(), |set, i| union(&set, &parts[i]))
                                })
                                .collect()
                        }
                    }
                    _ => {
                        let mut set_of = Vec::new();
                        for element in elements {
                            set_of = union(&set_of, &self.grouping_part(element, targets, groups)?);
                        }
                        vec![set_of]
                    }
                })
            }
            _ => Ok(vec![self.grouping_part(node, targets, groups)?]),
        }
    }

    /// An expression, or several in parentheses that go together.
    fn grouping_part(&mut self, node: &Node, targets: &[Target], groups: &mut Groups) -> Result<Vec<usize>> {
        if let Some(NodeEnum::RowExpr(row)) = &node.node
            && row.row_format() == pg_query::protobuf::CoercionForm::CoerceImplicitCast
        {
            let mut positions = Vec::new();
            for arg in &row.args {
                positions = union(&positions, &self.grouping_part(arg, targets, groups)?);
            }
            return Ok(positions);
        }
        let at = location(node);
        let expr = self.group_expression(node, targets)?;
        if let Some(position) = groups.columns.iter().position(|(_, known)| same_expr(known, &expr)) {
            return Ok(vec![position]);
        }
        let level = self.level();
        let has_aggregate = expr.any(&mut |e| matches!(e, Expr::Column { id, .. } if level.aggregates.iter().any(|(c, _)| c.id == *id)));
        if has_aggregate {
            return Err(self.error(ErrorCode::GroupingError, "aggregate functions are not allowed in GROUP BY", at));
        }
        let level = self.level();
        let has_window = expr.any(&mut |e| matches!(e, Expr::Column { id, .. } if level.windows.iter().any(|(c, _)| c.id == *id)));
        if has_window {
            return Err(self.error(ErrorCode::WindowingError, "window functions are not allowed in GROUP BY", at));
        }
        let level = self.level();
        let has_set = expr.any(&mut |e| matches!(e, Expr::Column { id, .. } if level.sets.iter().any(|(c, ..)| c.id == *id)));
        if has_set {
            return Err(self.unsupported("grouping by a set-returning function", at));
        }
        let ty = expr.ty();
        self.default_comparison(ty.oid, 3).ok_or_else(|| self.equality_missing(ty.oid, at))?;
        let name = match &node.node {
            Some(NodeEnum::ColumnRef(_)) => super::target_name::target_name(node),
            _ => "group".to_owned(),
        };
        let column = self.new_column(name, ty);
        groups.columns.push((column, expr));
        Ok(vec![groups.columns.len() - 1])
    }

    fn group_expression(&mut self, node: &Node, targets: &[Target]) -> Result<Expr> {
        if let Some(NodeEnum::ColumnRef(column)) = &node.node
            && let [name] = super::object_names::name_parts(&column.fields).as_slice()
            && column.fields.len() == 1
        {
            // An input column wins over an output name.
            let own_level = self.levels.len() - 1;
            let is_input =
                self.levels[own_level].namespace.iter().any(|item| item.columns_visible && item.columns.iter().any(|c| c.name == *name));
            if !is_input {
                let matching: Vec<&Target> = targets.iter().filter(|t| t.name == *name).collect();
                if let Some((first, rest)) = matching.split_first() {
                    if rest.iter().any(|t| !same_expr(&t.expr, &first.expr)) {
                        return Err(self.error(ErrorCode::AmbiguousColumn, format!("GROUP BY \"{name}\" is ambiguous"), column.location));
                    }
                    return Ok(first.expr.clone());
                }
            }
        }
        if let Some(position) = self.ordinal(node, "GROUP BY", targets.len())? {
            return Ok(targets[position].expr.clone());
        }
        let at = location(node);
        let expr = self.in_clause(Clause::GroupBy, |b| b.expression(node))?;
        self.unknown_to_text(expr, at)
    }

    /// Rewrites everything of the level that stands above the grouping: `exprs`, and the level's windows and set-returning calls.
    ///
    /// # Errors
    /// `GroupingError` for columns that are neither grouped nor aggregated.
    pub(super) fn rewrite_above_groups(&mut self, groups: &mut Groups, input_ids: &[ColumnId], exprs: &mut [&mut Expr]) -> Result<()> {
        let input: HashSet<ColumnId> = input_ids.iter().copied().collect();
        let mut extra = self.dependent_columns(groups);
        let mut first_error: Option<(ColumnId, bool)> = None;
        {
            let groups = &mut *groups;
            let mut rewrite = |e: &mut Expr| rewrite(e, groups, &input, &mut extra, &mut first_error);
            for expr in exprs.iter_mut() {
                rewrite(expr);
            }
        }
        let mut level = self.levels.pop().expect("BUG: grouping outside of a query level");
        for (_, call) in &mut level.windows {
            visit_window(call, &mut |e| rewrite(e, groups, &input, &mut extra, &mut first_error));
        }
        for (_, call, _) in &mut level.sets {
            call.args.iter_mut().for_each(|e| rewrite(e, groups, &input, &mut extra, &mut first_error));
        }
        let groupings = level.groupings.clone();
        self.levels.push(level);
        if let Some((id, in_subquery)) = first_error {
            return Err(self.ungrouped(id, in_subquery));
        }
        // GROUPING's arguments must be groups themselves.
        let mut resolved = Vec::with_capacity(groupings.len());
        for args in &groupings {
            let mut positions = Vec::with_capacity(args.len());
            for (arg, at) in args {
                match groups.columns.iter().position(|(_, group)| same_expr(group, arg)) {
                    Some(position) => positions.push(position),
                    None => {
                        return Err(self.error(
                            ErrorCode::GroupingError,
                            "arguments to GROUPING must be grouping expressions of the associated query level",
                            *at,
                        ));
                    }
                }
            }
            resolved.push(positions);
        }
        for expr in exprs.iter_mut() {
            expr.visit_all_mut(&mut |e| {
                if let Expr::Grouping(slot) = e
                    && let [usize::MAX, index] = slot.as_slice()
                    && let Some(positions) = resolved.get(*index)
                {
                    *slot = positions.clone();
                }
            });
        }
        Ok(())
    }

    /// Columns of tables whose whole primary key is grouped: they may be used as if they were grouped.
    fn dependent_columns(&mut self, groups: &Groups) -> HashSet<ColumnId> {
        let mut dependent = HashSet::new();
        if groups.sets.is_some() {
            return dependent;
        }
        let grouped: HashSet<ColumnId> = groups
            .columns
            .iter()
            .filter_map(|(_, e)| match e {
                Expr::Column { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        for item in &self.level().namespace {
            if !item.key.is_empty() && item.key.iter().all(|id| grouped.contains(id)) {
                dependent.extend(item.columns.iter().filter_map(|c| match c.expr {
                    Expr::Column { id, .. } => Some(id),
                    _ => None,
                }));
            }
        }
        dependent
    }

    fn ungrouped(&mut self, id: ColumnId, in_subquery: bool) -> SqlError {
        let reference = self
            .level()
            .references
            .iter()
            .filter(|r| r.id == id && !r.in_aggregate)
            .find(|r| {
                matches!(
                    r.clause,
                    Clause::Select | Clause::Having | Clause::OrderBy | Clause::DistinctOn | Clause::WindowOrder | Clause::WindowPartition
                )
            })
            .cloned();
        let (name, location) = reference.map_or_else(|| (format!("column {id}"), -1), |r| (r.name, r.location));
        let text = if in_subquery {
            format!("subquery uses ungrouped column \"{name}\" from outer query")
        } else {
            format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function")
        };
        self.error(ErrorCode::GroupingError, text, location)
    }

    /// A constant integer as a position in the select list.
    ///
    /// # Errors
    /// For other constants and positions outside of the list.
    pub(super) fn ordinal(&self, node: &Node, clause: &str, count: usize) -> Result<Option<usize>> {
        let Some(NodeEnum::AConst(constant)) = &node.node else { return Ok(None) };
        let at = constant.location;
        let number = match &constant.val {
            Some(pg_query::protobuf::a_const::Val::Ival(i)) => i64::from(i.ival),
            None if !constant.isnull => 0,
            _ => return Err(self.error(ErrorCode::SyntaxError, format!("non-integer constant in {clause}"), at)),
        };
        match usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < count) {
            Some(position) => Ok(Some(position)),
            None => Err(self.error(ErrorCode::InvalidColumnReference, format!("{clause} position {number} is not in select list"), at)),
        }
    }
}

fn union(a: &[usize], b: &[usize]) -> Vec<usize> {
    let mut out = a.to_vec();
    out.extend(b.iter().filter(|i| !a.contains(i)));
    out
}

/// Replaces grouped expressions by the groups' columns; notes the first column of the input that is left.
fn rewrite(
    expr: &mut Expr,
    groups: &mut Groups,
    input: &HashSet<ColumnId>,
    dependent: &mut HashSet<ColumnId>,
    error: &mut Option<(ColumnId, bool)>,
) {
    if let Some((column, _)) = groups.columns.iter().find(|(_, group)| same_expr(group, expr)) {
        *expr = Expr::Column { id: column.id, ty: column.ty };
        return;
    }
    match expr {
        Expr::Column { id, ty } if input.contains(id) => {
            if dependent.contains(id) {
                // Given by the key: it goes along as one more group, which splits nothing.
                let column = Column { id: next_free(groups, *id), name: "dependent".into(), ty: *ty, origin: None };
                groups.columns.push((column.clone(), expr.clone()));
                *expr = Expr::Column { id: column.id, ty: column.ty };
            } else if error.is_none() {
                *error = Some((*id, false));
            }
        }
        Expr::Subquery(_) => {
            expr.for_each_child_mut(&mut |child| rewrite(child, groups, input, dependent, error));
            if let Expr::Subquery(subquery) = expr {
                subquery.query.visit_exprs_mut(&mut |e| {
                    let Expr::Outer { id, ty } = e else { return };
                    if !input.contains(id) {
                        return;
                    }
                    let mut column = Expr::Column { id: *id, ty: *ty };
                    if let Some((group, _)) = groups.columns.iter().find(|(_, g)| same_expr(g, &column)) {
                        *e = Expr::Outer { id: group.id, ty: group.ty };
                        return;
                    }
                    let before = error.is_some();
                    rewrite(&mut column, groups, input, dependent, error);
                    if let (false, Some((_, in_subquery))) = (before, error.as_mut()) {
                        *in_subquery = true;
                    }
                    if let Expr::Column { id, ty } = column {
                        *e = Expr::Outer { id, ty };
                    }
                });
            }
        }
        _ => expr.for_each_child_mut(&mut |child| rewrite(child, groups, input, dependent, error)),
    }
}

/// Ids of dependent columns: the upper half of the numbers, which no statement reaches by counting.
fn next_free(groups: &Groups, id: ColumnId) -> ColumnId {
    let _ = groups;
    id | (1 << 31)
}
