//! Choosing one of several functions or operators of a name, by the rules of the manual's chapter 10.

use super::Binder;
use super::coercion::{Context, Located};
use super::type_system::{category, pseudo};
use crate::catalog_data::{OperatorRow, ProcRow, catalog};
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::{Oid, oid};

/// A function that could be called with the given number of arguments.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub proc: &'static ProcRow,
    /// The types of the arguments as called: variadic ones expanded, defaulted ones absent, in call order.
    pub args: Vec<Oid>,
    /// How many trailing arguments go into the variadic array.
    pub variadic_count: usize,
    /// For named notation: the parameter that each call argument fills.
    pub positions: Vec<usize>,
}

/// What a call's name and arguments turned out to be.
pub(super) enum Callee {
    Function(Candidate),
    /// `type(x)`: a cast written as a call.
    Cast(Oid),
}

const FUNCTION_HINT: &str = "No function matches the given name and argument types. You might need to add explicit type casts.";
const AMBIGUOUS_FUNCTION_HINT: &str = "Could not choose a best candidate function. You might need to add explicit type casts.";
const OPERATOR_HINT: &str = "No operator matches the given name and argument types. You might need to add explicit type casts.";
const PREFIX_HINT: &str = "No operator matches the given name and argument type. You might need to add an explicit type cast.";
const AMBIGUOUS_OPERATOR_HINT: &str = "Could not choose a best candidate operator. You might need to add explicit type casts.";

/// What a call looks like to the search.
pub(super) struct CallShape<'c> {
    pub schema: Option<&'c str>,
    pub name: &'c str,
    pub args: &'c [Oid],
    /// Names of the trailing named arguments.
    pub names: &'c [String],
    /// The last argument was written VARIADIC.
    pub variadic: bool,
    pub location: i32,
}

impl Binder<'_> {
    fn candidates(&self, shape: &CallShape<'_>) -> Vec<Candidate> {
        if shape.schema.is_some_and(|s| s != "pg_catalog" && s != "dolt") {
            return Vec::new();
        }
        let mut found: Vec<Candidate> = Vec::new();
        for proc in catalog().procs_by_name(shape.name) {
            let Some(candidate) = self.candidate(proc, shape) else { continue };
            // A function without variadic expansion hides an expanded one with the same arguments, and fewer defaults hide more.
            let twin = found.iter_mut().find(|other| other.args == candidate.args);
            match twin {
                Some(other) if candidate.variadic_count < other.variadic_count => *other = candidate,
                Some(other)
                    if candidate.variadic_count == other.variadic_count && candidate.proc.arg_types.len() < other.proc.arg_types.len() =>
                {
                    *other = candidate;
                }
                Some(_) => {}
                None => found.push(candidate),
            }
        }
        found
    }

    fn candidate(&self, proc: &'static ProcRow, shape: &CallShape<'_>) -> Option<Candidate> {
        let declared = proc.arg_types.len();
        let count = shape.args.len();
        if shape.variadic && proc.variadic == 0 {
            return None;
        }
        if !shape.names.is_empty() {
            if count > declared {
                return None;
            }
            let names = proc.input_names();
            let positional = count - shape.names.len();
            let mut positions: Vec<usize> = (0..positional).collect();
            for name in shape.names {
                let position = names.iter().position(|n| n == name)?;
                if positions.contains(&position) {
                    return None;
                }
                positions.push(position);
            }
            let first_default = declared - usize::from(proc.default_count);
            if (0..declared).any(|i| i < first_default && !positions.contains(&i)) {
                return None;
            }
            let args = positions.iter().map(|&i| proc.arg_types[i]).collect();
            return Some(Candidate { proc, args, variadic_count: 0, positions });
        }
        let positions: Vec<usize> = (0..count).collect();
        if proc.variadic != 0 && !shape.variadic && count >= declared {
            let fixed = declared - 1;
            let mut args = proc.arg_types[..fixed].to_vec();
            // The declared type of a variadic argument is an array; as called it repeats the element.
            let element = proc.variadic;
            args.extend(std::iter::repeat_n(element, count - fixed));
            return Some(Candidate { proc, args, variadic_count: count - fixed, positions });
        }
        if count == declared {
            return Some(Candidate { proc, args: proc.arg_types.clone(), variadic_count: 0, positions });
        }
        if count < declared && count + usize::from(proc.default_count) >= declared {
            return Some(Candidate { proc, args: proc.arg_types[..count].to_vec(), variadic_count: 0, positions });
        }
        None
    }

    /// Finds what a call means.
    ///
    /// # Errors
    /// `UndefinedFunction`, `AmbiguousFunction` in PostgreSQL's words.
    pub(super) fn resolve_function(&self, shape: &CallShape<'_>) -> Result<Callee> {
        let candidates = self.candidates(shape);
        if let Some(exact) = candidates.iter().find(|c| c.args == shape.args) {
            return Ok(Callee::Function(exact.clone()));
        }
        if shape.args.len() == 1
            && shape.names.is_empty()
            && !shape.variadic
            && let Some(target) = self.function_name_as_type(shape.schema, shape.name)
        {
            let source = shape.args[0];
            let is_cast = source == oid::UNKNOWN
                || match self.pathway(source, target, Context::Explicit) {
                    super::coercion::Pathway::Relabel => true,
                    super::coercion::Pathway::InOut => {
                        !(source == oid::RECORD || self.types.is_composite(source)) || self.types.category(target).0 != category::STRING
                    }
                    _ => false,
                };
            if is_cast {
                return Ok(Callee::Cast(target));
            }
        }
        let mut matching: Vec<Candidate> =
            candidates.into_iter().filter(|c| self.can_coerce(shape.args, &c.args, Context::Implicit)).collect();
        match matching.len() {
            0 => Err(self.no_function(shape)),
            1 => Ok(Callee::Function(matching.swap_remove(0))),
            _ => {
                let lists: Vec<&[Oid]> = matching.iter().map(|c| c.args.as_slice()).collect();
                match self.select_candidate(shape.args, &lists) {
                    Some(best) => Ok(Callee::Function(matching.swap_remove(best))),
                    None => Err(self
                        .error(ErrorCode::AmbiguousFunction, format!("function {} is not unique", self.call_text(shape)), shape.location)
                        .hint(AMBIGUOUS_FUNCTION_HINT)),
                }
            }
        }
    }

    fn no_function(&self, shape: &CallShape<'_>) -> SqlError {
        self.error(ErrorCode::UndefinedFunction, format!("function {} does not exist", self.call_text(shape)), shape.location)
            .hint(FUNCTION_HINT)
    }

    fn call_text(&self, shape: &CallShape<'_>) -> String {
        let positional = shape.args.len() - shape.names.len();
        let args: Vec<String> = shape
            .args
            .iter()
            .enumerate()
            .map(|(i, &ty)| match i.checked_sub(positional).and_then(|n| shape.names.get(n)) {
                Some(name) => format!("{name} => {}", self.types.name(ty)),
                None => self.types.name(ty),
            })
            .collect();
        let schema = shape.schema.map(|s| format!("{s}.")).unwrap_or_default();
        format!("{schema}{}({})", shape.name, args.join(", "))
    }

    fn function_name_as_type(&self, schema: Option<&str>, name: &str) -> Option<Oid> {
        if schema.is_none_or(|s| s == "pg_catalog")
            && let Some(row) = catalog().type_by_name(name)
        {
            return (row.kind != b'p').then_some(row.oid);
        }
        self.names.user_type(schema, name).ok().flatten().map(|user| user.oid)
    }

    /// The best of several lists of argument types that all accept the inputs; `None` when none stands out.
    pub(super) fn select_candidate(&self, inputs: &[Oid], candidates: &[&[Oid]]) -> Option<usize> {
        let bases: Vec<Oid> = inputs.iter().map(|&ty| if ty == oid::UNKNOWN { ty } else { self.types.base_oid(ty) }).collect();
        let categories: Vec<u8> = bases.iter().map(|&ty| self.types.category(ty).0).collect();
        let unknown_count = bases.iter().filter(|&&ty| ty == oid::UNKNOWN).count();
        let known = |i: usize| bases[i] != oid::UNKNOWN;

        // Those with the most exact matches.
        let mut left: Vec<usize> = keep_best(&(0..candidates.len()).collect::<Vec<_>>(), |c| {
            (0..bases.len()).filter(|&i| known(i) && candidates[c][i] == bases[i]).count()
        });
        if left.len() == 1 {
            return Some(left[0]);
        }
        // Those that accept preferred types (of the input's category) at the most places where a conversion is needed.
        left = keep_best(&left, |c| {
            (0..bases.len())
                .filter(|&i| {
                    let ty = candidates[c][i];
                    known(i) && (ty == bases[i] || (self.types.category(ty) == (categories[i], true)))
                })
                .count()
        });
        if left.len() == 1 {
            return Some(left[0]);
        }
        if unknown_count == 0 {
            return None;
        }
        // For each unknown: the category that the candidates agree on; string if any accepts it.
        let mut slot_category = vec![0u8; bases.len()];
        let mut slot_has_preferred = vec![false; bases.len()];
        let mut resolved = true;
        for i in (0..bases.len()).filter(|&i| !known(i)) {
            let mut conflict = false;
            for &c in &left {
                let (cat, preferred) = self.types.category(candidates[c][i]);
                if slot_category[i] == 0 {
                    slot_category[i] = cat;
                    slot_has_preferred[i] = preferred;
                } else if cat == slot_category[i] {
                    slot_has_preferred[i] |= preferred;
                } else if cat == category::STRING {
                    slot_category[i] = cat;
                    slot_has_preferred[i] = preferred;
                } else {
                    conflict = true;
                }
            }
            if conflict && slot_category[i] != category::STRING {
                resolved = false;
                break;
            }
        }
        if resolved {
            let filtered: Vec<usize> = left
                .iter()
                .copied()
                .filter(|&c| {
                    (0..bases.len()).filter(|&i| !known(i)).all(|i| {
                        let (cat, preferred) = self.types.category(candidates[c][i]);
                        cat == slot_category[i] && (!slot_has_preferred[i] || preferred)
                    })
                })
                .collect();
            if !filtered.is_empty() {
                left = filtered;
            }
            if left.len() == 1 {
                return Some(left[0]);
            }
        }
        // If all known inputs have one type, take the unknowns to be of it.
        if unknown_count < bases.len() {
            let mut types = bases.iter().filter(|&&ty| ty != oid::UNKNOWN);
            let first = *types.next()?;
            if types.all(|&ty| ty == first) {
                let assumed = vec![first; bases.len()];
                let mut fitting = left.iter().copied().filter(|&c| self.can_coerce(&assumed, candidates[c], Context::Implicit));
                if let (Some(one), None) = (fitting.next(), fitting.next()) {
                    return Some(one);
                }
            }
        }
        None
    }

    /// The operator of this name for these operands; `left` is `None` for a prefix operator.
    ///
    /// # Errors
    /// `UndefinedFunction`, `AmbiguousFunction` in PostgreSQL's words.
    pub(super) fn resolve_operator(&self, name: &str, left: Option<Oid>, right: Oid, location: i32) -> Result<&'static OperatorRow> {
        if let Some(found) = self.find_operator(name, left, right) {
            return found.map_err(|()| {
                self.error(
                    ErrorCode::AmbiguousFunction,
                    format!("operator is not unique: {}", self.operator_text(name, left, right)),
                    location,
                )
                .hint(AMBIGUOUS_OPERATOR_HINT)
            });
        }
        Err(self
            .error(ErrorCode::UndefinedFunction, format!("operator does not exist: {}", self.operator_text(name, left, right)), location)
            .hint(if left.is_some() { OPERATOR_HINT } else { PREFIX_HINT }))
    }

    fn operator_text(&self, name: &str, left: Option<Oid>, right: Oid) -> String {
        match left {
            Some(left) => format!("{} {name} {}", self.types.name(left), self.types.name(right)),
            None => format!("{name} {}", self.types.name(right)),
        }
    }

    /// `None`: there is none; `Some(Err)`: several fit equally.
    fn find_operator(&self, name: &str, left: Option<Oid>, right: Oid) -> Option<Result<&'static OperatorRow, ()>> {
        let kind = if left.is_some() { b'b' } else { b'l' };
        let all: Vec<&'static OperatorRow> = catalog().operators_by_name(name).filter(|op| op.kind == kind).collect();
        let exact = |l: Oid, r: Oid| all.iter().copied().find(|op| op.left == l && op.right == r);
        // An unknown operand is first taken to be of the other's type.
        let (first_left, first_right) = match left {
            Some(l) if l == oid::UNKNOWN && right != oid::UNKNOWN => (right, right),
            Some(l) if right == oid::UNKNOWN && l != oid::UNKNOWN => (l, l),
            Some(l) => (l, right),
            None => (0, right),
        };
        if let Some(op) = exact(first_left, first_right) {
            return Some(Ok(op));
        }
        if left == Some(oid::UNKNOWN) || right == oid::UNKNOWN {
            let base = self.types.base_oid(first_right);
            if base != first_right
                && let Some(op) = exact(if left.is_some() { base } else { 0 }, base)
            {
                return Some(Ok(op));
            }
        }
        let inputs: Vec<Oid> = left.into_iter().chain([right]).collect();
        let args: Vec<Vec<Oid>> = all.iter().map(|op| if kind == b'b' { vec![op.left, op.right] } else { vec![op.right] }).collect();
        let fitting: Vec<usize> = (0..all.len()).filter(|&i| self.can_coerce(&inputs, &args[i], Context::Implicit)).collect();
        match fitting.as_slice() {
            [] => None,
            [one] => Some(Ok(all[*one])),
            many => {
                let lists: Vec<&[Oid]> = many.iter().map(|&i| args[i].as_slice()).collect();
                Some(self.select_candidate(&inputs, &lists).map(|best| all[many[best]]).ok_or(()))
            }
        }
    }

    /// The comparison of a type's default order: strategy 1 `<` to 5 `>` of btree, `=` also from hash.
    pub(super) fn default_comparison(&self, ty: Oid, strategy: i16) -> Option<&'static OperatorRow> {
        use crate::catalog_data::{BTREE_OID, HASH_OID};
        let base = self.types.base_oid(ty);
        let c = catalog();
        let in_method = |method: Oid, strategy: i16| {
            if let Some(class) = c.default_operator_class(method, base) {
                return c.family_operator(class.family, class.input_type, class.input_type, strategy);
            }
            if let Some(element) = self.types.element(base) {
                // An array sorts if its elements do.
                self.default_comparison(element, strategy)?;
                return polymorphic_class(method, pseudo::ANYARRAY, strategy);
            }
            if self.types.is_enum(base) {
                return polymorphic_class(method, pseudo::ANYENUM, strategy);
            }
            if self.types.range_subtype(base).is_some() {
                return polymorphic_class(method, pseudo::ANYRANGE, strategy);
            }
            if self.types.range_of_multirange(base).is_some() {
                return polymorphic_class(method, pseudo::ANYMULTIRANGE, strategy);
            }
            if base == oid::RECORD || self.types.is_composite(base) {
                return polymorphic_class(method, oid::RECORD, strategy);
            }
            // Otherwise a class whose input type this type is coercible to without conversion, the preferred type first.
            let mut classes: Vec<_> = c
                .operator_classes
                .iter()
                .filter(|class| class.method == method && class.is_default && !pseudo::is_polymorphic(class.input_type))
                .filter(|class| class.input_type != base && self.is_binary_coercible(base, class.input_type))
                .collect();
            classes.sort_by_key(|class| !self.types.category(class.input_type).1);
            let class = classes.first()?;
            c.family_operator(class.family, class.input_type, class.input_type, strategy)
        };
        in_method(BTREE_OID, strategy).or_else(|| if strategy == 3 { in_method(HASH_OID, 1) } else { None })
    }

    pub(super) fn ordering_missing(&self, ty: Oid, location: i32) -> SqlError {
        self.error(
            ErrorCode::UndefinedFunction,
            format!("could not identify an ordering operator for type {}", self.types.name(ty)),
            location,
        )
        .hint("Use an explicit ordering operator or modify the query.")
    }

    pub(super) fn equality_missing(&self, ty: Oid, location: i32) -> SqlError {
        self.error(
            ErrorCode::UndefinedFunction,
            format!("could not identify an equality operator for type {}", self.types.name(ty)),
            location,
        )
    }

    /// Types of a call's arguments.
    pub(super) fn types_of(args: &[Located]) -> Vec<Oid> {
        args.iter().map(|(expr, _)| expr.ty().oid).collect()
    }
}

fn polymorphic_class(method: Oid, input: Oid, strategy: i16) -> Option<&'static OperatorRow> {
    let class = catalog().default_operator_class(method, input)?;
    catalog().family_operator(class.family, input, input, strategy)
}

/// Those of `items` with the highest score.
fn keep_best(items: &[usize], score: impl Fn(usize) -> usize) -> Vec<usize> {
    let scores: Vec<usize> = items.iter().map(|&i| score(i)).collect();
    let best = scores.iter().copied().max().unwrap_or(0);
    items.iter().zip(scores).filter(|(_, s)| *s == best).map(|(&i, _)| i).collect()
}
