//! Name and type resolution: from the parse tree to the bound tree.
//!
//! A [`Binder`] serves one statement. It walks the parse tree with a stack of query levels (`scope`), gives every column an id, and
//! resolves functions, operators and coercions as PostgreSQL's manual says in chapter 10 (`overload`, `coercion`, `polymorphism`),
//! against PostgreSQL's own catalog data. Errors have PostgreSQL's words and positions.
//!
//! ```text
//! SelectStmt --from--> Rel --expression--> Expr with columns, aggregates pulled out --select--> Query
//! ```
//! Aggregates, window functions and set-returning functions are taken out of expressions while those are bound: each becomes a column,
//! computed by a node below. After the select list, HAVING and ORDER BY are bound, what is above the grouping is rewritten to the
//! group's columns (`grouping`), and whatever still refers to the input is the error about GROUP BY.
//!
//! A literal without type and a parameter without type are `Const` and `Param` of type unknown until something asks for a type.

mod call;
mod coercion;
mod expression;
mod from;
mod grouping;
mod modify;
pub mod names;
mod object_names;
mod overload;
mod polymorphism;
mod scope;
mod select;
mod set_operation;
mod settled;
mod target_name;
#[cfg(test)]
mod tests;
mod type_name;
pub mod type_system;
mod walk;
mod window;
mod with;

use std::sync::Arc;

use pg_query::protobuf::{Node, SelectStmt};

use crate::bound::{Column, ColumnId, Expr, Query};
use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Source;
use crate::types::{Oid, SqlType, oid};

pub use coercion::Context;
pub use modify::{InsertTarget, ModifyScope, RowScope};
use names::Names;
pub use object_names::split_name;
use scope::{Clause, Level, NsItem};
pub use settled::Settled;
pub use type_system::{TypeSystem, data_type};
pub use walk::same_expr;

/// How deep expressions and queries may nest; deeper ones are refused, as everything that handles the tree recurses.
const NESTING_MAX: usize = 600;
/// The largest $n.
const PARAMETER_NUMBER_MAX: i32 = 65_535;
/// Stack that must be left for one level of nesting, and how much is added when it is not.
/// (a binder's level, and a walk by recursion over all that may be below it).
const STACK_RED_ZONE_BYTES: usize = 6 << 20;
const STACK_SEGMENT_BYTES: usize = 32 << 20;
/// Parts of expressions that one statement may have copied: the operand of BETWEEN, IN and CASE is written once and bound
/// several times, which doubles with each level of nesting.
const COPIED_PARTS_MAX: usize = 1_000_000;

/// The revision of a view's tables, where it is not the statement's: `"db/branch".public.v`, `v AS OF x`.
#[derive(Clone, Debug, Default)]
struct ViewPlace {
    catalog: Option<String>,
    moment: Option<names::AsOf>,
}

/// Binds one statement.
pub struct Binder<'a> {
    names: &'a dyn Names,
    types: TypeSystem<'a>,
    source: Arc<Source>,
    levels: Vec<Level>,
    /// By number - 1; `UNKNOWN` where nothing has asked for a type yet.
    params: Vec<Oid>,
    next_column: ColumnId,
    next_cte: u32,
    nesting: usize,
    copied_parts: usize,
    view_depth: usize,
    /// Where and when a view that is being bound was read: its tables are of the same revision.
    view_place: ViewPlace,
    params_decide_schema: bool,
    /// What the text leaves open, where that is to be noted.
    settled: Option<settled::Settled>,
}

impl<'a> Binder<'a> {
    /// `params`: the types that the client gave, 0 for those to infer.
    pub fn new(names: &'a dyn Names, source: Arc<Source>, params: &[Oid]) -> Self {
        Binder {
            names,
            types: TypeSystem::new(names),
            source,
            levels: Vec::new(),
            params: params.iter().map(|&ty| if ty == 0 { oid::UNKNOWN } else { ty }).collect(),
            next_column: 1,
            next_cte: 1,
            nesting: 0,
            copied_parts: 0,
            view_depth: 0,
            view_place: ViewPlace::default(),
            params_decide_schema: false,
            settled: None,
        }
    }

    /// Binds a SELECT, VALUES or TABLE statement.
    pub fn bind_query(&mut self, select: &SelectStmt) -> Result<Query> {
        self.select(select, Clause::None, true)
    }

    /// Binds an expression over a table's columns (or none): a default, a check, a generated column, an index expression or predicate.
    /// With a target type the value is coerced as an assignment is.
    pub fn bind_scalar(
        &mut self,
        node: &Node,
        columns: &[Column],
        table_name: &str,
        use_: ScalarUse,
        target: Option<SqlType>,
    ) -> Result<Expr> {
        let clause = match use_ {
            ScalarUse::Default => Clause::Default,
            ScalarUse::Check => Clause::Check,
            ScalarUse::Generated => Clause::Generated,
            ScalarUse::Index => Clause::Index,
            ScalarUse::IndexPredicate => Clause::IndexPredicate,
        };
        let mut level = Level::new(clause);
        level.namespace.push(NsItem::of_columns(Some(table_name.to_owned()), columns));
        self.levels.push(level);
        let bound = self.bind_scalar_here(node, use_, target);
        self.levels.pop();
        bound
    }

    fn bind_scalar_here(&mut self, node: &Node, use_: ScalarUse, target: Option<SqlType>) -> Result<Expr> {
        let at = expression::location(node);
        let expr = self.expression(node)?;
        match (use_, target) {
            (ScalarUse::Check | ScalarUse::IndexPredicate, _) => self.coerce_to_boolean(expr, at, "argument of CHECK"),
            (_, Some(target)) => {
                let from = expr.ty().oid;
                match self.coerce_to_target(expr, at, target, Context::Assignment)? {
                    Some(expr) => Ok(expr),
                    None => Err(self
                        .error(
                            ErrorCode::DatatypeMismatch,
                            format!(
                                "column is of type {} but default expression is of type {}",
                                self.types.name(target.oid),
                                self.types.name(from)
                            ),
                            at,
                        )
                        .hint("You will need to rewrite or cast the expression.")),
                }
            }
            (_, None) => self.unknown_to_text(expr, at),
        }
    }

    /// Binds an expression that has no columns at all: SET values, EXECUTE's arguments, COPY's options.
    pub fn bind_constant(&mut self, node: &Node, target: Option<SqlType>) -> Result<Expr> {
        self.bind_scalar(node, &[], "", ScalarUse::Default, target)
    }

    /// The types of all parameters, in order.
    /// # Errors
    /// `IndeterminateDatatype` when nothing told the type of one.
    pub fn param_types(&self) -> Result<Vec<Oid>> {
        for (i, &ty) in self.params.iter().enumerate() {
            if ty == oid::UNKNOWN {
                return Err(SqlError::new(
                    ErrorCode::IndeterminateDatatype,
                    format!("could not determine data type of parameter ${}", i + 1),
                ));
            }
        }
        Ok(self.params.clone())
    }

    /// Which relation or columns the statement has depended on parameters' values (AS OF $1, dolt_diff($1, ...)): it must be
    /// bound again when those are known.
    pub fn params_decide_schema(&self) -> bool {
        self.params_decide_schema
    }

    /// Resolves a type name.
    /// # Errors
    /// `UndefinedObject` and errors about modifiers.
    pub fn bind_type(&self, name: &pg_query::protobuf::TypeName) -> Result<SqlType> {
        self.type_of(name)
    }

    pub fn types(&self) -> TypeSystem<'a> {
        self.types
    }

    /// A new column of this statement.
    pub fn new_column(&mut self, name: impl Into<String>, ty: SqlType) -> Column {
        let id = self.next_column;
        self.next_column += 1;
        Column { id, name: name.into(), ty, origin: None }
    }

    fn new_cte(&mut self) -> u32 {
        let id = self.next_cte;
        self.next_cte += 1;
        id
    }

    fn error(&self, code: ErrorCode, message: impl Into<String>, location: i32) -> SqlError {
        SqlError::new(code, message).at(self.source.position(location))
    }

    fn unsupported(&self, feature: impl std::fmt::Display, location: i32) -> SqlError {
        SqlError::unsupported(feature).at(self.source.position(location))
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("BUG: an expression is bound outside of any query level")
    }

    fn clause(&self) -> Clause {
        self.levels.last().map_or(Clause::None, |level| level.clause)
    }

    /// Runs `f` with the innermost level in this clause.
    fn in_clause<T>(&mut self, clause: Clause, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = std::mem::replace(&mut self.level().clause, clause);
        let result = f(self);
        self.level().clause = before;
        result
    }

    /// Runs `f` one level of nesting deeper.
    /// # Errors
    /// `StatementTooComplex` past [`NESTING_MAX`].
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= NESTING_MAX {
            return Err(SqlError::new(ErrorCode::StatementTooComplex, "stack depth limit exceeded")
                .hint("The statement nests expressions or queries too deeply."));
        }
        self.nesting += 1;
        let result = stacker::maybe_grow(STACK_RED_ZONE_BYTES, STACK_SEGMENT_BYTES, || f(self));
        self.nesting -= 1;
        result
    }

    /// Notes that an expression is about to be written more than once.
    /// # Errors
    /// `StatementTooComplex` past [`COPIED_PARTS_MAX`].
    fn charge_copy(&mut self, expr: &Expr) -> Result<()> {
        if matches!(expr, Expr::Column { .. } | Expr::Outer { .. } | Expr::Const { .. } | Expr::Param { .. }) {
            return Ok(());
        }
        let mut parts = 0;
        expr.any(&mut |_| {
            parts += 1;
            false
        });
        self.copied_parts += parts;
        if self.copied_parts > COPIED_PARTS_MAX {
            return Err(SqlError::new(ErrorCode::StatementTooComplex, "stack depth limit exceeded")
                .hint("The statement nests expressions whose operands are used several times too deeply."));
        }
        Ok(())
    }

    /// The type of $n now; unknown when nothing has asked for one.
    fn parameter(&mut self, number: i32, location: i32) -> Result<Expr> {
        if !(1..=PARAMETER_NUMBER_MAX).contains(&number) {
            return Err(self.error(ErrorCode::UndefinedParameter, format!("there is no parameter ${number}"), location));
        }
        let index = number as usize - 1;
        if self.params.len() <= index {
            self.params.resize(index + 1, oid::UNKNOWN);
        }
        Ok(Expr::Param { number: number as u32, ty: SqlType::new(self.params[index]) })
    }

    /// A parameter of unknown type is wanted as this type.
    fn parameter_as(&mut self, number: u32, ty: Oid, at: i32) -> Result<SqlType> {
        let index = number as usize - 1;
        let ty = self.types.base_oid(ty);
        match self.params.get_mut(index) {
            Some(known) if *known == oid::UNKNOWN => {
                *known = ty;
                Ok(SqlType::new(ty))
            }
            Some(known) if *known == ty => Ok(SqlType::new(ty)),
            Some(known) => {
                let known = *known;
                Err(self
                    .error(ErrorCode::AmbiguousColumn, format!("inconsistent types deduced for parameter ${number}"), at)
                    .detail(format!("{} versus {}", self.types.name(known), self.types.name(ty))))
            }
            None => Err(self.error(ErrorCode::UndefinedParameter, format!("there is no parameter ${number}"), at)),
        }
    }
}

/// What a scalar expression over a table's columns is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarUse {
    Default,
    Check,
    Generated,
    Index,
    IndexPredicate,
}
