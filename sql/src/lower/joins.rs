//! Joins: DataFusion's own, Apply for LATERAL, and semi-joins for EXISTS and IN.

use std::sync::Arc;

use datafusion::logical_expr::{JoinType, LogicalPlan};

use super::{Lower, builder, planned, walk};
use crate::bound::{Expr, JoinKind, Query, Rel};
use crate::error::Result;
use crate::error::SqlError;
use crate::exec::subplan::Subplan;
use crate::exec::{Apply, OwnNode};

impl Lower {
    pub(super) fn join(&mut self, left: &Rel, right: &Rel, kind: JoinKind, on: Option<&Expr>, lateral: bool) -> Result<LogicalPlan> {
        if lateral {
            return self.lateral(left, right, kind, on);
        }
        let (l, r) = (self.rel(left)?, self.rel(right)?);
        let join_type = match kind {
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Right => JoinType::Right,
            JoinKind::Full => JoinType::Full,
            JoinKind::Cross => return planned(planned(builder(l).cross_join(r))?.build()),
        };
        let cross = planned(planned(builder(l.clone()).cross_join(r.clone()))?.build())?;
        let on = match on {
            None => Vec::new(),
            Some(predicate) => {
                let mut parts = Vec::new();
                Self::conjuncts(predicate, &mut parts);
                let all_safe = parts.iter().all(|e| self.is_safe(e));
                if all_safe {
                    parts.iter().map(|e| self.expr(e, &cross)).collect::<Result<Vec<_>>>()?
                } else {
                    vec![self.conjunction(&parts, &cross)?]
                }
            }
        };
        if on.is_empty() {
            if join_type == JoinType::Inner {
                return Ok(cross);
            }
            return planned(planned(builder(l).join_on(r, join_type, vec![datafusion::logical_expr::lit(true)]))?.build());
        }
        planned(planned(builder(l).join_on(r, join_type, on))?.build())
    }

    fn lateral(&mut self, left: &Rel, right: &Rel, kind: JoinKind, on: Option<&Expr>) -> Result<LogicalPlan> {
        let outer_join = match kind {
            JoinKind::Inner | JoinKind::Cross => false,
            JoinKind::Left => true,
            JoinKind::Right | JoinKind::Full => {
                return Err(SqlError::new(crate::error::ErrorCode::InvalidColumnReference, "invalid reference to FROM-clause entry")
                    .detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference."));
            }
        };
        let left = self.rel(left)?;
        // The right side as a query of its own: its columns are whatever its plan gives.
        let probe = self.rel(right)?;
        let mut columns = Vec::new();
        let types = super::column_types(right);
        for field in probe.schema().fields() {
            let Some(id) = field.name().strip_prefix('c').and_then(|n| n.parse().ok()) else { continue };
            let ty = *types.get(&id).ok_or_else(|| super::unknown_column(id))?;
            columns.push(crate::bound::Column { id, name: String::new(), ty, origin: None });
        }
        let right = Arc::new(Subplan::new(Query { rel: right.clone(), columns: columns.clone() }, &self.execution));
        let names: Vec<&String> = left.schema().fields().iter().map(|f| f.name()).collect();
        let params = right.outer().iter().copied().filter(|id| names.contains(&&super::name_of(*id))).collect();
        let mut fields = Self::plan_fields(&left);
        fields.extend(self.fields(&columns)?);
        let operator = Apply { execution: Arc::clone(&self.execution), right, params, on: on.cloned(), outer_join };
        Ok(OwnNode::plan(Arc::new(operator), vec![left], Self::schema(fields)?))
    }

    /// A conjunct that is [NOT] EXISTS over a correlated filter, or `x IN (subquery)` on plain columns, as a semi- or
    /// anti-join. `None`: not of that form.
    pub(super) fn semi_join(&mut self, plan: LogicalPlan, part: &Expr) -> Result<Option<LogicalPlan>> {
        let (subquery, negated) = match part {
            Expr::Subquery(s) => (s, false),
            Expr::Not(e) => match &**e {
                Expr::Subquery(s) => (s, true),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        if !matches!(subquery.kind, crate::bound::SubqueryKind::Exists) || !subquery.correlated || walk::is_volatile(&subquery.query) {
            return Ok(None);
        }
        // Projections, sorts and DISTINCT do not matter to EXISTS.
        let mut rel = &subquery.query.rel;
        while let Rel::Project { input, .. } | Rel::Sort { input, .. } | Rel::Distinct { input, .. } = rel {
            rel = input;
        }
        let Rel::Filter { input, predicate } = rel else { return Ok(None) };
        if !outer_of(input).is_empty() {
            return Ok(None);
        }
        let mut parts = Vec::new();
        Self::conjuncts(predicate, &mut parts);
        if !parts.iter().all(|e| self.is_safe(e)) {
            return Ok(None);
        }
        // Every outer column must be the plan's own: others would be slots of an enclosing subplan, which is fine too.
        let inner = self.rel(input)?;
        let both = planned(planned(builder(plan.clone()).cross_join(inner.clone()))?.build())?;
        let on = parts.iter().map(|e| self.expr(e, &both)).collect::<Result<Vec<_>>>()?;
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        planned(planned(builder(plan).join_on(inner, kind, on))?.build()).map(Some)
    }
}

fn outer_of(rel: &Rel) -> Vec<crate::bound::ColumnId> {
    walk::outer_columns(&Query { rel: rel.clone(), columns: Vec::new() })
}
