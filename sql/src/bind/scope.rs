//! What names mean inside a query: the relations in view at each query level, and how a column reference finds its column.

use super::Binder;
use crate::bound::{AggregateCall, Column, ColumnId, Expr, FunctionCall, SortKey, WindowCall};
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::{Oid, SqlType, oid};

/// The clause that an expression stands in; it decides what the expression may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    None,
    Select,
    Where,
    Having,
    JoinOn,
    JoinUsing,
    FromFunction,
    FromSubselect,
    GroupBy,
    OrderBy,
    DistinctOn,
    Limit,
    Offset,
    Filter,
    WindowPartition,
    WindowOrder,
    WindowFrame,
    Values,
    Returning,
    UpdateSource,
    Check,
    Default,
    Generated,
    Index,
    IndexPredicate,
    AsOf,
    TableFunction,
}

impl Clause {
    /// As in "aggregate functions are not allowed in %s".
    pub fn name(self) -> &'static str {
        match self {
            Clause::None => "this context",
            Clause::Select => "SELECT",
            Clause::Where => "WHERE",
            Clause::Having => "HAVING",
            Clause::JoinOn => "JOIN conditions",
            Clause::JoinUsing => "JOIN/USING",
            Clause::FromFunction => "functions in FROM",
            Clause::FromSubselect => "FROM clause of their own query level",
            Clause::GroupBy => "GROUP BY",
            Clause::OrderBy => "ORDER BY",
            Clause::DistinctOn => "DISTINCT ON",
            Clause::Limit => "LIMIT",
            Clause::Offset => "OFFSET",
            Clause::Filter => "FILTER",
            Clause::WindowPartition | Clause::WindowOrder => "window definitions",
            Clause::WindowFrame => "window frame clauses",
            Clause::Values => "VALUES",
            Clause::Returning => "RETURNING",
            Clause::UpdateSource => "UPDATE",
            Clause::Check => "check constraints",
            Clause::Default => "DEFAULT expressions",
            Clause::Generated => "column generation expressions",
            Clause::Index => "index expressions",
            Clause::IndexPredicate => "index predicates",
            Clause::AsOf => "AS OF",
            Clause::TableFunction => "arguments of a version function",
        }
    }

    pub fn allows_aggregates(self) -> bool {
        matches!(
            self,
            Clause::Select
                | Clause::Having
                | Clause::OrderBy
                | Clause::DistinctOn
                | Clause::WindowPartition
                | Clause::WindowOrder
                | Clause::WindowFrame
        )
    }

    pub fn allows_windows(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy | Clause::DistinctOn)
    }

    pub fn allows_sets(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy | Clause::DistinctOn | Clause::GroupBy)
    }
}

/// A column in view: usually a plain column, for JOIN USING of a full join an expression.
#[derive(Clone, Debug)]
pub(super) struct NsColumn {
    pub name: String,
    pub expr: Expr,
    pub origin: Option<(Oid, i16)>,
}

/// A relation in view.
#[derive(Clone, Debug)]
pub(super) struct NsItem {
    /// The alias or the relation's name; `None` for a join without alias.
    pub name: Option<String>,
    /// The schema, when the relation is named without alias: `public.t.c` finds it.
    pub schema: Option<String>,
    pub columns: Vec<NsColumn>,
    /// The stored or computed table.
    pub table: Option<Oid>,
    /// The columns of a stored table's primary key: grouping by them groups by the table's row.
    pub key: Vec<ColumnId>,
    /// `name.column` finds it.
    pub relation_visible: bool,
    /// `column` and `*` find it.
    pub columns_visible: bool,
    /// In view only for LATERAL items behind it in FROM.
    pub lateral_only: bool,
    /// False on the nullable side of a join whose other side looks at it.
    pub lateral_allowed: bool,
    /// A function in FROM that gives plain values: a whole-row reference is the value.
    pub scalar_function: bool,
}

impl NsItem {
    pub fn new(name: Option<String>, columns: Vec<NsColumn>) -> Self {
        NsItem {
            name,
            schema: None,
            columns,
            table: None,
            key: Vec::new(),
            relation_visible: true,
            columns_visible: true,
            lateral_only: false,
            lateral_allowed: true,
            scalar_function: false,
        }
    }

    pub fn of_columns(name: Option<String>, columns: &[Column]) -> Self {
        let columns = columns
            .iter()
            .map(|c| NsColumn { name: c.name.clone(), expr: Expr::Column { id: c.id, ty: c.ty }, origin: c.origin })
            .collect();
        Self::new(name, columns)
    }
}

/// Name, type and origin of a column of a common table expression.
pub(super) type CteColumn = (String, SqlType, Option<(Oid, i16)>);

/// A common table expression in view.
#[derive(Clone, Debug)]
pub(super) struct Cte {
    pub name: String,
    pub id: u32,
    /// Names and types; `None` while its definition is being bound (a reference from within is recursive).
    pub columns: Option<Vec<CteColumn>>,
    pub references: usize,
}

/// A reference to a column from the select list, HAVING or ORDER BY: kept for the check against GROUP BY.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub id: ColumnId,
    pub location: i32,
    pub name: String,
    pub in_aggregate: bool,
    pub clause: Clause,
}

/// A window by its definition.
#[derive(Clone, Debug)]
pub(super) struct NamedWindow {
    pub name: String,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
    pub has_frame: bool,
    pub frame: crate::bound::Frame,
}

/// One query level.
#[derive(Debug)]
pub(super) struct Level {
    pub namespace: Vec<NsItem>,
    pub clause: Clause,
    /// The items marked `lateral_only` are in view.
    pub lateral_active: bool,
    /// Columns of this level that lateral items used.
    pub lateral_references: Vec<ColumnId>,
    pub ctes: Vec<Cte>,
    pub aggregates: Vec<(Column, AggregateCall)>,
    pub windows: Vec<(Column, WindowCall)>,
    pub named_windows: Vec<NamedWindow>,
    /// Set-returning calls; the number tells how deep they nest.
    pub sets: Vec<(Column, FunctionCall, usize)>,
    pub references: Vec<Reference>,
    /// Inside an aggregate's arguments.
    pub in_aggregate: bool,
    pub in_window: bool,
    /// Inside CASE or COALESCE, where set-returning functions cannot be.
    pub conditional: Option<&'static str>,
    /// GROUPING calls with their arguments; resolved when the groups are known.
    pub groupings: Vec<Vec<(Expr, i32)>>,
    /// The level refers to levels around it.
    pub correlated: bool,
}

impl Level {
    pub fn new(clause: Clause) -> Self {
        Level {
            namespace: Vec::new(),
            clause,
            lateral_active: false,
            lateral_references: Vec::new(),
            ctes: Vec::new(),
            aggregates: Vec::new(),
            windows: Vec::new(),
            named_windows: Vec::new(),
            sets: Vec::new(),
            references: Vec::new(),
            in_aggregate: false,
            in_window: false,
            conditional: None,
            groupings: Vec::new(),
            correlated: false,
        }
    }
}

/// The system columns of PostgreSQL's tables.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"];

impl Binder<'_> {
    /// Column `name` of any relation in view.
    pub(super) fn unqualified_column(&mut self, name: &str, location: i32) -> Result<Option<Expr>> {
        for depth in (0..self.levels.len()).rev() {
            let level = &self.levels[depth];
            let mut found: Option<(usize, usize)> = None;
            for (i, item) in level.namespace.iter().enumerate() {
                if !item.columns_visible || (item.lateral_only && !level.lateral_active) {
                    continue;
                }
                for (j, column) in item.columns.iter().enumerate() {
                    if column.name == name {
                        if found.is_some() {
                            return Err(self.error(
                                ErrorCode::AmbiguousColumn,
                                format!("column reference \"{name}\" is ambiguous"),
                                location,
                            ));
                        }
                        found = Some((i, j));
                    }
                }
            }
            if let Some((item, column)) = found {
                return self.use_column(depth, item, column, location).map(Some);
            }
            if SYSTEM_COLUMNS.contains(&name) {
                let tables: Vec<usize> = (0..level.namespace.len())
                    .filter(|&i| {
                        let item = &level.namespace[i];
                        item.relation_visible && item.table.is_some() && (!item.lateral_only || level.lateral_active)
                    })
                    .collect();
                match tables.as_slice() {
                    [] => {}
                    [one] => return self.system_column(depth, *one, name, location).map(Some),
                    _ => {
                        return Err(self.error(ErrorCode::AmbiguousColumn, format!("column reference \"{name}\" is ambiguous"), location));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The relation that `name.` or `schema.name.` means: (level, item).
    pub(super) fn relation_in_view(&self, schema: Option<&str>, name: &str, location: i32) -> Result<Option<(usize, usize)>> {
        for depth in (0..self.levels.len()).rev() {
            let level = &self.levels[depth];
            let mut found = None;
            for (i, item) in level.namespace.iter().enumerate() {
                if !item.relation_visible || (item.lateral_only && !level.lateral_active) || item.name.as_deref() != Some(name) {
                    continue;
                }
                if schema.is_some() && item.schema.as_deref() != schema {
                    continue;
                }
                if found.is_some() {
                    return Err(self.error(ErrorCode::AmbiguousAlias, format!("table reference \"{name}\" is ambiguous"), location));
                }
                found = Some((depth, i));
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A column of a relation in view, `None` when it has no such column.
    pub(super) fn column_of(&mut self, (depth, item): (usize, usize), name: &str, location: i32) -> Result<Option<Expr>> {
        let columns = &self.levels[depth].namespace[item].columns;
        let mut matches = (0..columns.len()).filter(|&j| columns[j].name == name);
        match (matches.next(), matches.next()) {
            (Some(column), None) => self.use_column(depth, item, column, location).map(Some),
            (Some(_), Some(_)) => {
                Err(self.error(ErrorCode::AmbiguousColumn, format!("column reference \"{name}\" is ambiguous"), location))
            }
            _ if SYSTEM_COLUMNS.contains(&name) && self.levels[depth].namespace[item].table.is_some() => {
                self.system_column(depth, item, name, location).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn system_column(&mut self, depth: usize, item: usize, name: &str, location: i32) -> Result<Expr> {
        match (name, self.levels[depth].namespace[item].table) {
            ("tableoid", Some(table)) => {
                Ok(Expr::Const { value: strandline_storage::Value::Int8(i64::from(table)), ty: SqlType::new(oid::OID) })
            }
            _ => Err(self.error(ErrorCode::FeatureNotSupported, format!("system column \"{name}\" is not supported"), location)),
        }
    }

    /// The expression for a column found in view, with the bookkeeping of outer and lateral references.
    pub(super) fn use_column(&mut self, depth: usize, item: usize, column: usize, location: i32) -> Result<Expr> {
        let innermost = self.levels.len() - 1;
        let (expr, lateral, name) = {
            let item = &self.levels[depth].namespace[item];
            if item.lateral_only && !item.lateral_allowed {
                let name = item.name.clone().unwrap_or_default();
                return Err(self
                    .error(
                        ErrorCode::InvalidColumnReference,
                        format!("invalid reference to FROM-clause entry for table \"{name}\""),
                        location,
                    )
                    .detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference."));
            }
            let column = &item.columns[column];
            let name = match &item.name {
                Some(table) => format!("{table}.{}", column.name),
                None => self.qualified_display(depth, column),
            };
            (column.expr.clone(), item.lateral_only, name)
        };
        let origin = self.levels[depth].namespace[item].columns[column].origin;
        if let Some(settled) = self.settling() {
            settled.used.extend(origin);
        }
        let ids = column_ids(&expr);
        if lateral {
            self.levels[depth].lateral_references.extend(&ids);
        } else {
            let level = &mut self.levels[depth];
            let (clause, in_aggregate) = (level.clause, level.in_aggregate);
            level.references.extend(ids.iter().map(|&id| Reference { id, location, name: name.clone(), in_aggregate, clause }));
        }
        if depth < innermost {
            for level in &mut self.levels[depth + 1..] {
                level.correlated = true;
            }
        }
        Ok(if lateral || depth < innermost { to_outer(expr) } else { expr })
    }

    /// The table that a join's column came from, as errors name it.
    fn qualified_display(&self, depth: usize, column: &NsColumn) -> String {
        let id = match &column.expr {
            Expr::Column { id, .. } => Some(*id),
            _ => None,
        };
        self.levels[depth]
            .namespace
            .iter()
            .filter(|item| item.name.is_some())
            .find(|item| item.columns.iter().any(|c| matches!(c.expr, Expr::Column { id: other, .. } if Some(other) == id)))
            .and_then(|item| item.name.as_ref())
            .map_or_else(|| column.name.clone(), |table| format!("{table}.{}", column.name))
    }

    pub(super) fn missing_column(&self, qualifier: Option<&str>, name: &str, location: i32) -> SqlError {
        let name = self.source.relation_name(name);
        let text = match qualifier {
            Some(table) => format!("column {table}.{name} does not exist"),
            None => format!("column \"{name}\" does not exist"),
        };
        let error = self.error(ErrorCode::UndefinedColumn, text, location);
        if let Some(table) = self.hidden_column(qualifier, name) {
            return error.hint(format!(
                "There is a column named \"{name}\" in table \"{table}\", but it cannot be referenced from this part of the query."
            ));
        }
        match self.similar_columns(qualifier, name).as_slice() {
            [one] => error.hint(format!("Perhaps you meant to reference the column \"{one}\".")),
            [one, two] => error.hint(format!("Perhaps you meant to reference the column \"{one}\" or the column \"{two}\".")),
            _ => error,
        }
    }

    /// A table that has the column but is not in view here.
    fn hidden_column(&self, qualifier: Option<&str>, name: &str) -> Option<String> {
        if qualifier.is_some() {
            return None;
        }
        self.levels
            .iter()
            .rev()
            .flat_map(|level| &level.namespace)
            .find(|item| item.name.is_some() && item.columns.iter().any(|c| c.name == name))
            .and_then(|item| item.name.clone())
    }

    /// Columns whose names are near: at most two, as PostgreSQL hints.
    fn similar_columns(&self, qualifier: Option<&str>, name: &str) -> Vec<String> {
        let mut best = 4;
        let mut found: Vec<String> = Vec::new();
        for item in self.levels.iter().flat_map(|level| &level.namespace) {
            let Some(table) = &item.name else { continue };
            let table_distance = qualifier.map_or(0, |q| edit_distance(q, table));
            for column in &item.columns {
                let distance = table_distance + edit_distance(name, &column.name);
                if distance > name.chars().count() / 2 || distance > best {
                    continue;
                }
                if distance < best {
                    best = distance;
                    found.clear();
                }
                let text = format!("{table}.{}", column.name);
                if !found.contains(&text) {
                    found.push(text);
                }
            }
        }
        if best > 3 || found.len() > 2 { Vec::new() } else { found }
    }

    pub(super) fn missing_relation(&self, name: &str, location: i32) -> SqlError {
        let everywhere = self.levels.iter().rev().flat_map(|level| &level.namespace);
        if everywhere.clone().any(|item| item.name.as_deref() == Some(name)) {
            return self
                .error(ErrorCode::UndefinedTable, format!("invalid reference to FROM-clause entry for table \"{name}\""), location)
                .hint(format!("There is an entry for table \"{name}\", but it cannot be referenced from this part of the query."));
        }
        let error = self.error(ErrorCode::UndefinedTable, format!("missing FROM-clause entry for table \"{name}\""), location);
        let aliased = self.levels.last().and_then(|level| {
            level.namespace.iter().find(|item| item.table.is_some_and(|table| self.is_relation_named(table, name)) && item.name.is_some())
        });
        match aliased.and_then(|item| item.name.as_ref()) {
            Some(alias) => self
                .error(ErrorCode::UndefinedTable, format!("invalid reference to FROM-clause entry for table \"{name}\""), location)
                .hint(format!("Perhaps you meant to reference the table alias \"{alias}\".")),
            None => error,
        }
    }

    fn is_relation_named(&self, table: Oid, name: &str) -> bool {
        matches!(self.names.relation_oid(None, name), Ok(Some(found)) if found == table)
    }
}

/// The columns that an expression of the namespace is made of.
pub(super) fn column_ids(expr: &Expr) -> Vec<ColumnId> {
    let mut ids = Vec::new();
    let mut copy = expr.clone();
    copy.visit_all_mut(&mut |e| {
        if let Expr::Column { id, .. } | Expr::Outer { id, .. } = e {
            ids.push(*id);
        }
    });
    ids
}

/// The same expression seen from an inner level.
pub(super) fn to_outer(mut expr: Expr) -> Expr {
    expr.visit_all_mut(&mut |e| {
        if let Expr::Column { id, ty } = e {
            *e = Expr::Outer { id: *id, ty: *ty };
        }
    });
    expr
}

/// Levenshtein's distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn edit_distance_counts_changes() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
