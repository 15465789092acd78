//! WITH: common table expressions, recursive ones too.

use pg_query::NodeEnum;
use pg_query::protobuf::{CommonTableExpr, SelectStmt, SetOperation, WithClause};

use super::Binder;
use super::object_names::name_parts;
use super::scope::{Clause, Cte, CteColumn};
use super::set_operation::target_location;
use crate::bound::{Column, Query, Rel, SetOpKind};
use crate::error::{ErrorCode, Result};
use crate::types::SqlType;

/// A bound common table expression that waits for the query it belongs to.
pub(super) struct BoundCte {
    id: u32,
    definition: Definition,
}

enum Definition {
    Plain(Query),
    Recursive { base: Query, recursive: Query, all: bool },
}

impl Binder<'_> {
    /// Binds the definitions; their names are in view at this level afterwards.
    pub(super) fn with_clause(&mut self, with: &WithClause) -> Result<Vec<BoundCte>> {
        let mut bound = Vec::with_capacity(with.ctes.len());
        for node in &with.ctes {
            let Some(NodeEnum::CommonTableExpr(cte)) = &node.node else { continue };
            let name = &cte.ctename;
            if self.level().ctes.iter().any(|known| known.name == *name) {
                return Err(self.error(
                    ErrorCode::DuplicateAlias,
                    format!("WITH query name \"{name}\" specified more than once"),
                    cte.location,
                ));
            }
            if cte.search_clause.is_some() || cte.cycle_clause.is_some() {
                return Err(self.unsupported("SEARCH or CYCLE in WITH", cte.location));
            }
            let Some(NodeEnum::SelectStmt(select)) = cte.ctequery.as_deref().and_then(|n| n.node.as_ref()) else {
                return Err(self.unsupported("a data-modifying statement in WITH", cte.location));
            };
            let id = self.new_cte();
            let definition = if with.recursive {
                self.recursive_cte(cte, select, id)?
            } else {
                Definition::Plain(self.select(select, Clause::None, true)?)
            };
            let columns = match &definition {
                Definition::Plain(query) => self.cte_columns(cte, &query.columns)?,
                // The rows come from both terms: the columns are no table's.
                Definition::Recursive { base, .. } => {
                    self.cte_columns(cte, &base.columns)?.into_iter().map(|(name, ty, _)| (name, ty, None)).collect()
                }
            };
            let level = self.level();
            // A recursive definition has put its name in view already.
            level.ctes.retain(|known| known.id != id);
            level.ctes.push(Cte { name: name.clone(), id, columns: Some(columns), references: 0 });
            bound.push(BoundCte { id, definition });
        }
        Ok(bound)
    }

    fn cte_columns(&self, cte: &CommonTableExpr, columns: &[Column]) -> Result<Vec<CteColumn>> {
        let aliases = name_parts(&cte.aliascolnames);
        if aliases.len() > columns.len() {
            return Err(self.error(
                ErrorCode::InvalidColumnReference,
                format!("WITH query \"{}\" has {} columns available but {} columns specified", cte.ctename, columns.len(), aliases.len()),
                cte.location,
            ));
        }
        Ok(columns
            .iter()
            .enumerate()
            .map(|(i, column)| (aliases.get(i).map_or_else(|| column.name.clone(), |a| (*a).to_owned()), column.ty, column.origin))
            .collect())
    }

    fn recursive_cte(&mut self, cte: &CommonTableExpr, select: &SelectStmt, id: u32) -> Result<Definition> {
        let name = &cte.ctename;
        let pending = Cte { name: name.clone(), id, columns: None, references: 0 };
        self.level().ctes.push(pending);
        let is_union = select.op() == SetOperation::SetopUnion && select.with_clause.is_none();
        let (Some(left), Some(right), true) = (select.larg.as_deref(), select.rarg.as_deref(), is_union) else {
            // Not of the recursive form; a reference to itself is refused where it stands.
            return match self.select(select, Clause::None, true) {
                Err(error) if error.code == ErrorCode::InvalidRecursion && error.message.contains(&format!("\"{name}\"")) => Err(self
                    .error(
                        ErrorCode::InvalidRecursion,
                        format!("recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] recursive-term"),
                        cte.location,
                    )),
                query => Ok(Definition::Plain(query?)),
            };
        };
        let base = self.select(left, Clause::None, true)?;
        let columns = self.cte_columns(cte, &base.columns)?;
        if let Some(own) = self.level().ctes.iter_mut().find(|c| c.id == id) {
            own.columns = Some(columns);
        }
        let mut recursive = self.select(right, Clause::None, false)?;
        let uses = self.level().ctes.iter().find(|c| c.id == id).map_or(0, |c| c.references);
        if uses == 0 {
            // RECURSIVE was written, but this one is not.
            self.level().ctes.retain(|c| c.id != id);
            let query = self.combine(SetOpKind::Union, select.all, (base, left), (recursive, right))?;
            let query = self.order_and_limit(select, query, Some("UNION"))?;
            return Ok(Definition::Plain(query));
        }
        let at = cte.location;
        if uses > 1 {
            return Err(self.error(
                ErrorCode::InvalidRecursion,
                format!("recursive reference to query \"{name}\" must not appear more than once"),
                at,
            ));
        }
        if !select.sort_clause.is_empty() {
            return Err(self.error(ErrorCode::FeatureNotSupported, "ORDER BY in a recursive query is not implemented", at));
        }
        if select.limit_count.is_some() || select.limit_offset.is_some() {
            return Err(self.error(ErrorCode::FeatureNotSupported, "LIMIT in a recursive query is not implemented", at));
        }
        if base.columns.len() != recursive.columns.len() {
            return Err(self.error(
                ErrorCode::SyntaxError,
                "each UNION query must have the same number of columns",
                target_location(right, 0),
            ));
        }
        for (i, (b, r)) in base.columns.iter().zip(&recursive.columns).enumerate() {
            let pair = [
                (crate::bound::Expr::Column { id: b.id, ty: b.ty }, -1),
                (crate::bound::Expr::Column { id: r.id, ty: r.ty }, target_location(right, i)),
            ];
            let overall = self.common_type(&pair, "UNION")?;
            if overall != b.ty.oid {
                return Err(self
                    .error(
                        ErrorCode::DatatypeMismatch,
                        format!(
                            "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} overall",
                            i + 1,
                            self.types.name(b.ty.oid),
                            self.types.name(overall)
                        ),
                        target_location(left, i),
                    )
                    .hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        let types: Vec<SqlType> = base.columns.iter().map(|c| SqlType::new(c.ty.oid)).collect();
        self.cast_columns(&mut recursive, &types, "UNION")?;
        Ok(Definition::Recursive { base, recursive, all: select.all })
    }

    /// A scan of the common table expression that a name means, if it means one.
    pub(super) fn cte_reference(&mut self, name: &str, at: i32) -> Result<Option<(Rel, Vec<Column>)>> {
        let mut found = None;
        for level in self.levels.iter_mut().rev() {
            if let Some(cte) = level.ctes.iter_mut().rev().find(|cte| cte.name == name) {
                cte.references += 1;
                found = Some((cte.id, cte.columns.clone()));
                break;
            }
        }
        let Some((cte, columns)) = found else { return Ok(None) };
        let Some(columns) = columns else {
            return Err(self.error(
                ErrorCode::InvalidRecursion,
                format!("recursive reference to query \"{name}\" must not appear within its non-recursive term"),
                at,
            ));
        };
        let columns: Vec<Column> = columns.into_iter().map(|(name, ty, origin)| Column { origin, ..self.new_column(name, ty) }).collect();
        Ok(Some((Rel::CteScan { cte, columns: columns.clone() }, columns)))
    }

    /// Puts the definitions that are used around a query of this level.
    pub(super) fn wrap_ctes(&mut self, query: Query, ctes: Vec<BoundCte>) -> Query {
        let mut rel = query.rel;
        for cte in ctes.into_iter().rev() {
            if !self.level().ctes.iter().any(|known| known.id == cte.id && known.references > 0) {
                continue;
            }
            let body = Box::new(rel);
            rel = match cte.definition {
                Definition::Plain(definition) => Rel::With { cte: cte.id, definition: Box::new(definition), body },
                Definition::Recursive { base, recursive, all } => {
                    Rel::Recursive { cte: cte.id, base: Box::new(base), recursive: Box::new(recursive), all, body }
                }
            };
        }
        Query { rel, columns: query.columns }
    }
}
