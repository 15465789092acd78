//! Coercions: PostgreSQL's rules for when a value of one type serves as another, and the expression that makes it so
//! (manual chapter 10; `parse_coerce.c` is the reference for the order of the rules).

use strandline_storage::schema::TypeDefinition;
use strandline_storage::{DataType, Kind, Value};

use super::Binder;
use super::type_system::{category, pseudo};
use crate::bound::{CastMethod, Expr};
use crate::catalog_data::catalog;
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::{Oid, SqlType, oid};

/// How willing a place is to convert; a cast applies where its own context is not above the place's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    Implicit,
    Assignment,
    Explicit,
}

/// How one type becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pathway {
    None,
    Relabel,
    Function(Oid),
    InOut,
    Array,
}

/// An expression and where it stands in the text.
pub(super) type Located = (Expr, i32);

impl Binder<'_> {
    /// The way from `source` to `target` in this context.
    pub(super) fn pathway(&self, source: Oid, target: Oid, context: Context) -> Pathway {
        let (source, target) = (self.types.base_oid(source), self.types.base_oid(target));
        if source == target {
            return Pathway::Relabel;
        }
        if let Some(cast) = catalog().cast(source, target) {
            let needed = match cast.context {
                b'i' => Context::Implicit,
                b'a' => Context::Assignment,
                _ => Context::Explicit,
            };
            if context < needed {
                return Pathway::None;
            }
            return match cast.method {
                b'f' => Pathway::Function(cast.function),
                b'i' => Pathway::InOut,
                _ => Pathway::Relabel,
            };
        }
        if !matches!(target, oid::OIDVECTOR | oid::INT2VECTOR)
            && let (Some(from), Some(to)) = (self.types.element(source), self.types.element(target))
            && self.pathway(from, to, context) != Pathway::None
        {
            return Pathway::Array;
        }
        if context >= Context::Assignment && self.types.category(target).0 == category::STRING {
            return Pathway::InOut;
        }
        if context >= Context::Explicit && self.types.category(source).0 == category::STRING {
            return Pathway::InOut;
        }
        Pathway::None
    }

    /// Says whether values of `inputs` may go where `targets` are declared.
    pub(super) fn can_coerce(&self, inputs: &[Oid], targets: &[Oid], context: Context) -> bool {
        let mut generic = false;
        for (&input, &target) in inputs.iter().zip(targets) {
            if input == target || target == pseudo::ANY {
                continue;
            }
            if pseudo::is_polymorphic(target) {
                generic = true;
                continue;
            }
            if input == oid::UNKNOWN || self.pathway(input, target, context) != Pathway::None {
                continue;
            }
            if input == oid::RECORD && self.types.is_composite(target) || target == oid::RECORD && self.types.is_composite(input) {
                continue;
            }
            if target == pseudo::RECORD_ARRAY && self.types.element(input).is_some_and(|e| self.types.is_composite(e)) {
                continue;
            }
            return false;
        }
        !generic || self.generic_is_consistent(inputs, targets)
    }

    pub(super) fn can_coerce_one(&self, input: Oid, target: Oid, context: Context) -> bool {
        self.can_coerce(&[input], &[target], context)
    }

    /// Says whether a value of one type can be used as another without any conversion.
    pub(super) fn is_binary_coercible(&self, source: Oid, target: Oid) -> bool {
        if source == target || matches!(target, pseudo::ANY | pseudo::ANYELEMENT | pseudo::ANYCOMPATIBLE) {
            return true;
        }
        let source = self.types.base_oid(source);
        if source == target {
            return true;
        }
        match target {
            pseudo::ANYARRAY | pseudo::ANYCOMPATIBLEARRAY if self.types.element(source).is_some() => return true,
            pseudo::ANYNONARRAY | pseudo::ANYCOMPATIBLENONARRAY if self.types.element(source).is_none() => return true,
            pseudo::ANYENUM if self.types.is_enum(source) => return true,
            pseudo::ANYRANGE | pseudo::ANYCOMPATIBLERANGE if self.types.range_subtype(source).is_some() => return true,
            pseudo::ANYMULTIRANGE | pseudo::ANYCOMPATIBLEMULTIRANGE if self.types.range_of_multirange(source).is_some() => return true,
            oid::RECORD if self.types.is_composite(source) => return true,
            _ => {}
        }
        catalog().cast(source, target).is_some_and(|cast| cast.method == b'b' && cast.context == b'i')
    }

    /// Converts to a declared type; `None` when that is not allowed here. Applies the target's modifier.
    pub(super) fn coerce_to_target(&mut self, expr: Expr, at: i32, target: SqlType, context: Context) -> Result<Option<Expr>> {
        let input = expr.ty().oid;
        if !self.can_coerce_one(input, target.oid, context) {
            return Ok(None);
        }
        let coerced = self.coerce(expr, at, target, context)?;
        Ok(Some(self.apply_modifier(coerced, target, context)?))
    }

    /// Converts to exactly this type or says that it cannot be: the words are those of a cast.
    pub(super) fn cast(&mut self, expr: Expr, at: i32, target: SqlType, location: i32) -> Result<Expr> {
        let input = expr.ty().oid;
        match self.coerce_to_target(expr, at, target, Context::Explicit)? {
            Some(expr) => Ok(expr),
            None => Err(self.error(
                ErrorCode::CannotCoerce,
                format!("cannot cast type {} to {}", self.types.name(input), self.types.name(target.oid)),
                location,
            )),
        }
    }

    /// Applies a type modifier (varchar(n), numeric(p,s)) where the expression does not have it already.
    fn apply_modifier(&mut self, expr: Expr, target: SqlType, context: Context) -> Result<Expr> {
        let domain_base = self.types.base(target);
        // A cast to the bare type takes the modifier away, but changes no value.
        if context == Context::Explicit && target.typmod < 0 && expr.ty().oid == target.oid && expr.ty().typmod >= 0 {
            return Ok(relabel(expr, target));
        }
        let (wanted, ty) =
            if self.types.is_domain(target.oid) { (domain_base.typmod, domain_base.oid) } else { (target.typmod, target.oid) };
        if wanted < 0 || expr.ty() == (SqlType { oid: ty, typmod: wanted }) {
            return Ok(expr);
        }
        let element = self.types.element(ty).unwrap_or(ty);
        let has_function = catalog().cast(element, element).is_some_and(|cast| cast.function != 0);
        if !has_function {
            return Ok(retyped(expr, SqlType { oid: target.oid, typmod: wanted }));
        }
        Ok(Expr::Cast {
            input: Box::new(expr),
            ty: SqlType { oid: target.oid, typmod: if target.oid == ty { wanted } else { -1 } },
            method: CastMethod::Modifier { explicit: context == Context::Explicit },
        })
    }

    /// Converts where [`Binder::can_coerce`] has said yes; modifiers are not applied (but interval literals read theirs).
    pub(super) fn coerce(&mut self, expr: Expr, at: i32, target: SqlType, context: Context) -> Result<Expr> {
        let input = expr.ty();
        if input.oid == target.oid {
            return Ok(expr);
        }
        if matches!(
            target.oid,
            pseudo::ANY | pseudo::ANYELEMENT | pseudo::ANYNONARRAY | pseudo::ANYCOMPATIBLE | pseudo::ANYCOMPATIBLENONARRAY
        ) {
            return Ok(expr);
        }
        if pseudo::is_polymorphic(target.oid) && input.oid != oid::UNKNOWN {
            let base = self.types.base_oid(input.oid);
            return Ok(if base == input.oid { expr } else { relabel(expr, SqlType::new(base)) });
        }
        if input.oid == oid::UNKNOWN {
            match expr {
                Expr::Const { value: Value::Null, .. } => {
                    return self.into_domain(
                        Expr::Const { value: Value::Null, ty: SqlType::new(self.types.base_oid(target.oid)) },
                        target,
                        at,
                    );
                }
                Expr::Const { value: Value::Bytes(text), .. } => {
                    let base = self.types.base(target);
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let constant = self.literal(&text, base, at)?;
                    return self.into_domain(constant, target, at);
                }
                Expr::Param { number, .. } => {
                    let ty = self.parameter_as(number, target.oid, at)?;
                    let param = Expr::Param { number, ty };
                    return if ty.oid == target.oid { Ok(param) } else { self.coerce(param, at, target, context) };
                }
                other => {
                    let base = self.types.base(target);
                    let cast = Expr::Cast { input: Box::new(other), ty: SqlType::new(base.oid), method: CastMethod::InOut };
                    return self.into_domain(cast, target, at);
                }
            }
        }
        match self.pathway(input.oid, target.oid, context) {
            Pathway::None => {}
            pathway => {
                let base = self.types.base_oid(target.oid);
                let converted = match pathway {
                    Pathway::Relabel | Pathway::None => {
                        if self.types.base_oid(input.oid) == base && input.oid == base {
                            expr
                        } else {
                            relabel(expr, SqlType::new(base))
                        }
                    }
                    Pathway::Function(function) => Expr::Cast {
                        input: Box::new(self.from_domain(expr)),
                        // The conversion from an integer keeps the low bits of its length, which a cut afterwards cannot find.
                        ty: SqlType { oid: base, typmod: if base == oid::BIT { target.typmod } else { -1 } },
                        method: CastMethod::Function(function),
                    },
                    Pathway::InOut => {
                        Expr::Cast { input: Box::new(self.from_domain(expr)), ty: SqlType::new(base), method: CastMethod::InOut }
                    }
                    Pathway::Array => {
                        if let Expr::Array { elements, .. } = expr {
                            let element = self.types.element(base).unwrap_or(oid::TEXT);
                            let elements = elements
                                .into_iter()
                                .map(|e| {
                                    let nested = self.types.element(e.ty().oid).is_some();
                                    self.coerce(e, at, SqlType::new(if nested { base } else { element }), context)
                                })
                                .collect::<Result<Vec<_>>>()?;
                            Expr::Array { elements, ty: SqlType::new(base) }
                        } else {
                            Expr::Cast { input: Box::new(self.from_domain(expr)), ty: SqlType::new(base), method: CastMethod::Array }
                        }
                    }
                };
                return self.into_domain(converted, target, at);
            }
        }
        if target.oid == oid::RECORD && self.types.is_composite(input.oid) {
            return Ok(relabel(expr, target));
        }
        if input.oid == oid::RECORD
            && let Some(fields) = self.types.fields(target.oid)
        {
            return self.record_to_composite(expr, at, target, &fields, context);
        }
        Err(self.error(
            ErrorCode::CannotCoerce,
            format!("cannot cast type {} to {}", self.types.name(input.oid), self.types.name(target.oid)),
            at,
        ))
    }

    fn record_to_composite(
        &mut self,
        expr: Expr,
        at: i32,
        target: SqlType,
        columns: &[(String, SqlType)],
        context: Context,
    ) -> Result<Expr> {
        let Expr::Row { fields, .. } = expr else {
            return Err(self.error(ErrorCode::CannotCoerce, format!("cannot cast type record to {}", self.types.name(target.oid)), at));
        };
        if fields.len() != columns.len() {
            let detail = if fields.len() < columns.len() { "Input has too few columns." } else { "Input has too many columns." };
            let error = self.error(ErrorCode::CannotCoerce, format!("cannot cast type record to {}", self.types.name(target.oid)), at);
            return Err(error.detail(detail));
        }
        let mut out = Vec::with_capacity(fields.len());
        for (i, ((_, field), (name, ty))) in fields.into_iter().zip(columns).enumerate() {
            let from = field.ty().oid;
            let Some(field) = self.coerce_to_target(field, at, *ty, context)? else {
                let error = self.error(ErrorCode::CannotCoerce, format!("cannot cast type record to {}", self.types.name(target.oid)), at);
                return Err(error.detail(format!(
                    "Cannot cast type {} to {} in column {}.",
                    self.types.name(from),
                    self.types.name(ty.oid),
                    i + 1
                )));
            };
            out.push((name.clone(), field));
        }
        Ok(Expr::Row { fields: out, ty: target })
    }

    fn from_domain(&self, expr: Expr) -> Expr {
        let ty = expr.ty();
        let base = self.types.base(ty);
        if base.oid == ty.oid { expr } else { relabel(expr, base) }
    }

    /// Wraps a value of a domain's base type as the domain's; other targets get it as it is.
    fn into_domain(&self, expr: Expr, target: SqlType, at: i32) -> Result<Expr> {
        if !self.types.is_domain(target.oid) {
            return Ok(expr);
        }
        if let Some(user) = self.types.user_type(target.oid)
            && let TypeDefinition::Domain { not_null, checks, .. } = &user.definition
            && (*not_null || !checks.is_empty())
        {
            // Stored columns of a domain type are checked where rows are written.
            return Ok(Expr::Cast { input: Box::new(expr), ty: target, method: CastMethod::Domain });
        }
        let _ = at;
        Ok(relabel(expr, target))
    }

    /// A constant of a type from its text.
    pub(super) fn literal(&self, text: &str, ty: SqlType, at: i32) -> Result<Expr> {
        let parsed = SqlType { oid: ty.oid, typmod: if ty.oid == oid::INTERVAL { ty.typmod } else { -1 } };
        if let Some(expr) = self.object_name_literal(text, parsed, at)? {
            return Ok(expr);
        }
        if ty.oid == oid::RECORD || pseudo::is_polymorphic(ty.oid) || ty.oid == pseudo::ANY {
            let text = match ty.oid {
                oid::RECORD => "input of anonymous composite types is not implemented".to_owned(),
                other => format!("cannot accept a value of type {}", self.types.name(other)),
            };
            return Err(self.error(ErrorCode::FeatureNotSupported, text, at));
        }
        if let Some(user) = self.types.enum_labels(ty.oid) {
            if let TypeDefinition::Enum(labels) = &user.definition
                && !labels.iter().any(|label| label == text)
            {
                return Err(self.error(
                    ErrorCode::InvalidTextRepresentation,
                    format!("invalid input value for enum {}: \"{text}\"", self.types.name(ty.oid)),
                    at,
                ));
            }
            return Ok(Expr::Const { value: Value::bytes(text), ty: parsed });
        }
        let Some(data_type) = self.types.data_type(parsed) else {
            return Err(self.error(ErrorCode::UndefinedObject, format!("type {} does not exist", ty.oid), at));
        };
        match data_type.parse(text, self.names.text_settings()) {
            Ok(value) => Ok(Expr::Const { value, ty: parsed }),
            Err(error) => Err(SqlError::from(error).at(self.source.position(at))),
        }
    }

    /// The type that several expressions share (UNION, CASE, VALUES, IN, COALESCE). Unknown literals everywhere: text.
    pub(super) fn common_type(&self, exprs: &[Located], what: &str) -> Result<Oid> {
        match self.common_type_or_conflict(exprs) {
            Ok(ty) => Ok(ty),
            Err((left, right, at)) => Err(self.error(
                ErrorCode::DatatypeMismatch,
                format!("{what} types {} and {} cannot be matched", self.types.name(left), self.types.name(right)),
                at,
            )),
        }
    }

    pub(super) fn common_type_or_conflict(&self, exprs: &[Located]) -> Result<Oid, (Oid, Oid, i32)> {
        let first = exprs.first().map_or(oid::TEXT, |(e, _)| e.ty().oid);
        if first != oid::UNKNOWN && exprs.iter().all(|(e, _)| e.ty().oid == first) {
            return Ok(first);
        }
        let mut chosen = self.types.base_oid(first);
        let (mut chosen_category, mut preferred) = self.types.category(chosen);
        for (expr, at) in exprs.iter().skip(1) {
            let next = self.types.base_oid(expr.ty().oid);
            if next == oid::UNKNOWN || next == chosen {
                continue;
            }
            let (next_category, next_preferred) = self.types.category(next);
            if chosen == oid::UNKNOWN {
                (chosen, chosen_category, preferred) = (next, next_category, next_preferred);
            } else if next_category != chosen_category {
                return Err((chosen, next, *at));
            } else if !preferred
                && self.can_coerce_one(chosen, next, Context::Implicit)
                && !self.can_coerce_one(next, chosen, Context::Implicit)
            {
                (chosen, chosen_category, preferred) = (next, next_category, next_preferred);
            }
        }
        Ok(if chosen == oid::UNKNOWN { oid::TEXT } else { chosen })
    }

    pub(super) fn coerce_to_common(&mut self, expr: Expr, at: i32, target: Oid, what: &str) -> Result<Expr> {
        let input = expr.ty().oid;
        if input == target {
            return Ok(expr);
        }
        if !self.can_coerce_one(input, target, Context::Implicit) {
            return Err(self.error(
                ErrorCode::CannotCoerce,
                format!("{what} could not convert type {} to {}", self.types.name(input), self.types.name(target)),
                at,
            ));
        }
        self.coerce(expr, at, SqlType::new(target), Context::Implicit)
    }

    /// Coerces all to their common type; the result has their common modifier too.
    pub(super) fn unify(&mut self, exprs: Vec<Located>, what: &str) -> Result<(Vec<Expr>, SqlType)> {
        let target = self.common_type(&exprs, what)?;
        let mut out = Vec::with_capacity(exprs.len());
        for (expr, at) in exprs {
            out.push(self.coerce_to_common(expr, at, target, what)?);
        }
        let ty = SqlType { oid: target, typmod: common_typmod(&out, target) };
        Ok((out, ty))
    }

    /// A boolean in a place that needs one. `what` begins the error: `argument of WHERE`.
    pub(super) fn coerce_to_boolean(&mut self, expr: Expr, at: i32, what: &str) -> Result<Expr> {
        self.coerce_to_specific(expr, at, oid::BOOL, what)
    }

    /// The assignment coercion without a column: LIMIT, row counts and the like.
    pub(super) fn coerce_to_specific(&mut self, expr: Expr, at: i32, target: Oid, what: &str) -> Result<Expr> {
        let input = expr.ty().oid;
        if input == target {
            return Ok(expr);
        }
        match self.coerce_to_target(expr, at, SqlType::new(target), Context::Assignment)? {
            Some(expr) => Ok(expr),
            None => Err(self.error(
                ErrorCode::DatatypeMismatch,
                format!("{what} must be type {}, not type {}", self.types.name(target), self.types.name(input)),
                at,
            )),
        }
    }

    /// What is left unknown where no rule asks for a type is text.
    pub(super) fn unknown_to_text(&mut self, expr: Expr, at: i32) -> Result<Expr> {
        if expr.ty().oid == oid::UNKNOWN { self.coerce(expr, at, SqlType::new(oid::TEXT), Context::Implicit) } else { Ok(expr) }
    }
}

/// The modifier that all expressions of one type share, else -1.
pub(super) fn common_typmod(exprs: &[Expr], ty: Oid) -> i32 {
    let mut modifiers = exprs.iter().map(|e| if e.ty().oid == ty { e.ty().typmod } else { -1 });
    let first = modifiers.next().unwrap_or(-1);
    if modifiers.all(|m| m == first) { first } else { -1 }
}

pub(super) fn relabel(expr: Expr, ty: SqlType) -> Expr {
    match expr {
        // int4 and oid are the same to PostgreSQL; here an oid is kept in eight bytes.
        Expr::Const { value: Value::Int4(v), .. } if is_oid(ty) => Expr::Const { value: Value::Int8(i64::from(v as u32)), ty },
        Expr::Const { value: Value::Int8(v), ty: from } if is_oid(from) && ty.oid == oid::INT4 => {
            Expr::Const { value: Value::Int4(v as u32 as i32), ty }
        }
        Expr::Const { value, .. } => Expr::Const { value, ty },
        other => Expr::Cast { input: Box::new(other), ty, method: CastMethod::Relabel },
    }
}

fn is_oid(ty: SqlType) -> bool {
    DataType::builtin(ty.oid, -1).is_some_and(|t| t.kind == Kind::Oid)
}

fn retyped(expr: Expr, ty: SqlType) -> Expr {
    if expr.ty() == ty { expr } else { relabel(expr, ty) }
}
