//! Polymorphic arguments: what anyelement, anyarray, anycompatible and so on stand for in one call.

use super::Binder;
use super::type_system::pseudo::{
    self, ANYARRAY, ANYCOMPATIBLE, ANYCOMPATIBLEARRAY, ANYCOMPATIBLEMULTIRANGE, ANYCOMPATIBLENONARRAY, ANYCOMPATIBLERANGE, ANYELEMENT,
    ANYENUM, ANYMULTIRANGE, ANYNONARRAY, ANYRANGE,
};
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::{Oid, oid};

/// What the families were found to be.
#[derive(Clone, Copy, Debug, Default)]
struct Families {
    element: Option<Oid>,
    array: Option<Oid>,
    range: Option<Oid>,
    multirange: Option<Oid>,
    compatible: Option<Oid>,
    compatible_range: Option<Oid>,
    compatible_multirange: Option<Oid>,
}

impl Binder<'_> {
    /// Says whether the arguments of polymorphic parameters fit together.
    pub(super) fn generic_is_consistent(&self, inputs: &[Oid], declared: &[Oid]) -> bool {
        self.solve(inputs, declared).is_ok()
    }

    fn mismatch(&self, text: &str, a: Oid, b: Oid) -> SqlError {
        SqlError::new(ErrorCode::DatatypeMismatch, text).detail(format!("{} versus {}", self.types.name(a), self.types.name(b)))
    }

    fn solve(&self, inputs: &[Oid], declared: &[Oid]) -> Result<Families> {
        let mut f = Families::default();
        let mut compatible: Vec<Oid> = Vec::new();
        let mut has_compatible_nonarray = false;
        let set = |slot: &mut Option<Oid>, ty: Oid, what: &str| match *slot {
            Some(known) if known != ty => Err(self.mismatch(&format!("arguments declared \"{what}\" are not all alike"), known, ty)),
            _ => {
                *slot = Some(ty);
                Ok(())
            }
        };
        for (&input, &want) in inputs.iter().zip(declared) {
            if input == oid::UNKNOWN || !pseudo::is_polymorphic(want) {
                continue;
            }
            let base = self.types.base_oid(input);
            let not = |what: &str| {
                SqlError::new(
                    ErrorCode::DatatypeMismatch,
                    format!("argument declared {what} is not {} but type {}", article(what), self.types.name(input)),
                )
            };
            match want {
                ANYELEMENT | ANYNONARRAY | ANYENUM => {
                    if want == ANYENUM && !self.types.is_enum(base) {
                        return Err(not("anyenum"));
                    }
                    if want == ANYNONARRAY && self.types.element(base).is_some() {
                        return Err(not("anynonarray"));
                    }
                    set(&mut f.element, if want == ANYENUM { base } else { input }, "anyelement")?;
                }
                ANYARRAY => {
                    if base != ANYARRAY && self.types.element(base).is_none() {
                        return Err(not("anyarray"));
                    }
                    set(&mut f.array, base, "anyarray")?;
                }
                ANYRANGE => {
                    self.types.range_subtype(base).ok_or_else(|| not("anyrange"))?;
                    set(&mut f.range, base, "anyrange")?;
                }
                ANYMULTIRANGE => {
                    self.types.range_of_multirange(base).ok_or_else(|| not("anymultirange"))?;
                    set(&mut f.multirange, base, "anymultirange")?;
                }
                ANYCOMPATIBLE => compatible.push(input),
                ANYCOMPATIBLENONARRAY => {
                    has_compatible_nonarray = true;
                    compatible.push(input);
                }
                ANYCOMPATIBLEARRAY => compatible.push(self.types.element(base).ok_or_else(|| not("anycompatiblearray"))?),
                ANYCOMPATIBLERANGE => {
                    compatible.push(self.types.range_subtype(base).ok_or_else(|| not("anycompatiblerange"))?);
                    set(&mut f.compatible_range, base, "anycompatiblerange")?;
                }
                ANYCOMPATIBLEMULTIRANGE => {
                    let range = self.types.range_of_multirange(base).ok_or_else(|| not("anycompatiblemultirange"))?;
                    compatible.extend(self.types.range_subtype(range));
                    set(&mut f.compatible_multirange, base, "anycompatiblemultirange")?;
                }
                _ => {}
            }
        }
        if let Some(multirange) = f.multirange {
            let range = self.types.range_of_multirange(multirange);
            match (f.range, range) {
                (Some(known), Some(range)) if known != range => {
                    return Err(self.mismatch(
                        "argument declared anymultirange is not consistent with argument declared anyrange",
                        multirange,
                        known,
                    ));
                }
                _ => f.range = range,
            }
        }
        if let Some(range) = f.range
            && let Some(subtype) = self.types.range_subtype(range)
        {
            match f.element {
                Some(known) if known != subtype => {
                    return Err(self.mismatch(
                        "argument declared anyrange is not consistent with argument declared anyelement",
                        range,
                        known,
                    ));
                }
                _ => f.element = Some(subtype),
            }
        }
        if let Some(array) = f.array
            && array != ANYARRAY
            && let Some(element) = self.types.element(array)
        {
            match f.element {
                Some(known) if known != element => {
                    return Err(self.mismatch(
                        "argument declared anyarray is not consistent with argument declared anyelement",
                        array,
                        known,
                    ));
                }
                _ => f.element = Some(element),
            }
        }
        if declared.contains(&ANYNONARRAY) && f.element.is_some_and(|e| self.types.element(e).is_some()) {
            return Err(SqlError::new(ErrorCode::DatatypeMismatch, "type matched to anynonarray is an array type"));
        }
        if declared.contains(&ANYENUM) && f.element.is_some_and(|e| !self.types.is_enum(e)) {
            return Err(SqlError::new(ErrorCode::DatatypeMismatch, "type matched to anyenum is not an enum type"));
        }
        if !compatible.is_empty() {
            let exprs: Vec<_> =
                compatible.iter().map(|&ty| (crate::bound::Expr::Param { number: 0, ty: crate::types::SqlType::new(ty) }, -1)).collect();
            let common = self
                .common_type_or_conflict(&exprs)
                .map_err(|(a, b, _)| self.mismatch("arguments of anycompatible family cannot be cast to a common type", a, b))?;
            if !compatible.iter().all(|&ty| self.can_coerce_one(ty, common, super::coercion::Context::Implicit)) {
                return Err(self.mismatch("arguments of anycompatible family cannot be cast to a common type", compatible[0], common));
            }
            if has_compatible_nonarray && self.types.element(common).is_some() {
                return Err(SqlError::new(ErrorCode::DatatypeMismatch, "type matched to anycompatiblenonarray is an array type"));
            }
            f.compatible = Some(common);
        } else if declared.iter().any(|&d| pseudo::is_compatible_family(d)) {
            // Only unknown literals: text, as in a UNION.
            f.compatible = Some(oid::TEXT);
        }
        Ok(f)
    }

    /// Replaces the polymorphic ones among the declared argument types by what this call makes of them, and gives the result type.
    pub(super) fn resolve_polymorphic(&self, inputs: &[Oid], declared: &mut [Oid], result: Oid) -> Result<Oid> {
        if !declared.iter().any(|&d| pseudo::is_polymorphic(d)) {
            return Ok(result);
        }
        let mut f = self.solve(inputs, declared)?;
        let undetermined =
            || SqlError::new(ErrorCode::DatatypeMismatch, "could not determine polymorphic type because input has type unknown");
        let simple = declared.iter().any(|&d| pseudo::is_simple_family(d));
        if simple && f.element.is_none() && f.array.is_none() {
            // With no known input, a parameter keeps "unknown" only where the function can do without: not here.
            return Err(undetermined());
        }
        if f.array.is_none() {
            f.array = f.element.and_then(|e| self.types.array_of(e));
        }
        for slot in declared.iter_mut() {
            if let Some(ty) = self.family_type(*slot, &f)? {
                *slot = ty;
            }
        }
        Ok(match self.family_type(result, &f)? {
            Some(ty) => ty,
            None => result,
        })
    }

    fn family_type(&self, declared: Oid, f: &Families) -> Result<Option<Oid>> {
        if !pseudo::is_polymorphic(declared) {
            return Ok(None);
        }
        let range_of = |subtype: Oid| crate::catalog_data::catalog().ranges.iter().find(|r| r.subtype == subtype).map(|r| r.range);
        let found = match declared {
            ANYELEMENT | ANYNONARRAY | ANYENUM => f.element,
            ANYARRAY => f.array,
            ANYRANGE => f.range.or_else(|| f.element.and_then(range_of)),
            ANYMULTIRANGE => f.multirange.or_else(|| f.range.and_then(|r| self.types.multirange_of(r))),
            ANYCOMPATIBLE | ANYCOMPATIBLENONARRAY => f.compatible,
            ANYCOMPATIBLEARRAY => f.compatible.and_then(|c| self.types.array_of(c)),
            ANYCOMPATIBLERANGE => f.compatible_range.or_else(|| f.compatible.and_then(range_of)),
            ANYCOMPATIBLEMULTIRANGE => f.compatible_multirange.or_else(|| f.compatible_range.and_then(|r| self.types.multirange_of(r))),
            _ => None,
        };
        match found {
            Some(ty) => Ok(Some(ty)),
            None if declared == ANYARRAY && f.element.is_some() => Err(SqlError::new(
                ErrorCode::UndefinedObject,
                format!("could not find array type for data type {}", self.types.name(f.element.unwrap_or(0))),
            )),
            None => Err(SqlError::new(ErrorCode::DatatypeMismatch, "could not determine polymorphic type because input has type unknown")),
        }
    }
}

fn article(what: &str) -> &'static str {
    match what {
        "anyenum" => "an enum",
        "anynonarray" => "a non-array",
        "anyarray" | "anycompatiblearray" => "an array",
        "anymultirange" | "anycompatiblemultirange" => "a multirange type",
        _ => "a range type",
    }
}

#[cfg(test)]
mod tests {
    use super::article;

    #[test]
    fn errors_name_the_family_with_its_article() {
        assert_eq!(article("anyarray"), "an array");
    }
}
