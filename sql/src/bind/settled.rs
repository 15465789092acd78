//! What a query's text leaves to the tables of the day: which relation a plain name is, what `*` and NATURAL stand for.
//!
//! A view is kept as text and must go on to mean what it meant: a column that is added to a table later is none of the view's, and a CTE
//! of a table's name is not that table. [`Binder::settle`] notes these things while it binds; [`Settled::apply`] writes them into the tree.

use std::collections::{BTreeMap, BTreeSet};

use pg_query::protobuf::{ColumnRef, Node, SelectStmt};
use pg_query::{NodeEnum, NodeMut};

use super::Binder;
use crate::bound::Expr;
use crate::types::Oid;

/// What a name in a select list is, once settled: the relation's name where it has one, and the column's.
type Settling = (Option<String>, String);

/// By places in the text, for the relations and stars; by number for NATURAL joins, which have no place.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    schemas: BTreeMap<i32, String>,
    stars: BTreeMap<i32, Vec<Settling>>,
    joins: BTreeMap<i32, Vec<String>>,
    /// The stored columns (table, number) that the query's own text uses.
    pub used: BTreeSet<(Oid, i16)>,
}

impl Settled {
    /// Numbers the NATURAL joins of a query that is going to be bound, in the field that the planner of PostgreSQL uses.
    pub fn number_joins(query: &mut NodeEnum) {
        let mut number = 0;
        // SAFETY: `nodes_mut` hands out pointers into the tree that we own; one is used at a time, and no node is moved.
        for (node, _, _) in unsafe { query.nodes_mut() } {
            if let NodeMut::JoinExpr(join) = node {
                number += 1;
                // SAFETY: as above.
                unsafe { (*join).rtindex = number };
            }
        }
    }

    pub(super) fn note_schema(&mut self, at: i32, schema: String) {
        self.schemas.insert(at, schema);
    }

    pub(super) fn note_join(&mut self, number: i32, columns: &[String]) {
        self.joins.insert(number, columns.to_vec());
    }

    /// Writes what was noted into the tree that was bound.
    pub fn apply(&self, query: &mut NodeEnum) {
        // SAFETY: `nodes_mut` hands out pointers into the tree that we own; one is used at a time, and no node is moved.
        for (node, _, _) in unsafe { query.nodes_mut() } {
            match node {
                NodeMut::RangeVar(range) => {
                    // SAFETY: as above.
                    let range = unsafe { &mut *range };
                    if range.schemaname.is_empty()
                        && let Some(schema) = self.schemas.get(&range.location)
                    {
                        range.schemaname.clone_from(schema);
                    }
                }
                NodeMut::JoinExpr(join) => {
                    // SAFETY: as above.
                    let join = unsafe { &mut *join };
                    if let Some(columns) = self.joins.get(&join.rtindex).filter(|_| join.is_natural) {
                        join.is_natural = false;
                        join.using_clause = columns.iter().map(|c| name(c)).collect();
                        if columns.is_empty() {
                            join.quals = crate::parse::parse_expression("true").ok().map(|(_, node)| Box::new(node));
                        }
                    }
                }
                _ => {}
            }
        }
        // SAFETY: as above; what a star's place in a list is replaced with has no node that the list of pointers knows.
        for (node, _, _) in unsafe { query.nodes_mut() } {
            if let NodeMut::SelectStmt(select) = node {
                // SAFETY: as above.
                self.expand_targets(unsafe { &mut *select });
            }
        }
    }

    fn expand_targets(&self, select: &mut SelectStmt) {
        let mut targets = Vec::with_capacity(select.target_list.len());
        for node in std::mem::take(&mut select.target_list) {
            let columns = match &node.node {
                Some(NodeEnum::ResTarget(target)) => match target.val.as_deref().and_then(|v| v.node.as_ref()) {
                    Some(NodeEnum::ColumnRef(column)) if is_star(column) => self.stars.get(&column.location),
                    _ => None,
                },
                _ => None,
            };
            let (Some(columns), Some(NodeEnum::ResTarget(target))) = (columns, &node.node) else {
                targets.push(node);
                continue;
            };
            for (relation, column) in columns {
                let fields = relation.iter().chain([column]).map(|part| name(part)).collect();
                let mut own = (**target).clone();
                let value = NodeEnum::ColumnRef(ColumnRef { fields, location: -1 });
                own.val = Some(Box::new(Node { node: Some(value) }));
                targets.push(Node { node: Some(NodeEnum::ResTarget(Box::new(own))) });
            }
        }
        select.target_list = targets;
    }
}

fn is_star(column: &ColumnRef) -> bool {
    matches!(column.fields.last().and_then(|n| n.node.as_ref()), Some(NodeEnum::AStar(_)))
}

fn name(text: &str) -> Node {
    Node { node: Some(NodeEnum::String(pg_query::protobuf::String { sval: text.to_owned() })) }
}

impl Binder<'_> {
    /// From here on notes what the query leaves open.
    pub fn settle(&mut self) {
        self.settled = Some(Settled::default());
    }

    pub fn settled(&mut self) -> Option<Settled> {
        self.settled.take()
    }

    /// The notes, while the text that is bound is the query's own and not that of a view in it.
    pub(super) fn settling(&mut self) -> Option<&mut Settled> {
        if self.view_depth == 0 { self.settled.as_mut() } else { None }
    }

    /// Notes the columns of a star, named by a relation that has them where there is one: a join's columns have no name of their own.
    pub(super) fn note_star(&mut self, at: i32, columns: &[(Option<String>, String, Expr)]) {
        if self.settling().is_none() {
            return;
        }
        let items = &self.levels[self.levels.len() - 1].namespace;
        let id_of = |expr: &Expr| match expr {
            Expr::Column { id, .. } => Some(*id),
            _ => None,
        };
        let named = columns
            .iter()
            .map(|(relation, column, expr)| {
                let relation = relation.clone().or_else(|| {
                    let wanted = id_of(expr)?;
                    let owner = items.iter().find(|item| {
                        item.relation_visible
                            && item.name.is_some()
                            && item.columns.iter().any(|c| c.name == *column && id_of(&c.expr) == Some(wanted))
                    })?;
                    owner.name.clone()
                });
                (relation, column.clone())
            })
            .collect();
        if let Some(settled) = self.settling() {
            settled.stars.insert(at, named);
        }
    }
}
