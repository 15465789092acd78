//! Literals that name objects: `'t'::regclass`, `'int4'::regtype`, `'f(int)'::regprocedure`. They become oids when the statement is bound.

use pg_query::NodeEnum;
use strandline_storage::Value;

use super::Binder;
use crate::bound::Expr;
use crate::catalog_data::catalog;
use crate::error::{ErrorCode, Result};
use crate::parse;
use crate::types::{Oid, SqlType, oid};

const REGCONFIG: Oid = 3734;
const REGDICTIONARY: Oid = 3769;
const REGCOLLATION: Oid = 4191;

impl Binder<'_> {
    /// The oid that a text of a reg* type names; `None` for other types.
    pub(super) fn object_name_literal(&self, text: &str, ty: SqlType, at: i32) -> Result<Option<Expr>> {
        let is_object = matches!(
            ty.oid,
            oid::REGCLASS
                | oid::REGTYPE
                | oid::REGPROC
                | oid::REGPROCEDURE
                | oid::REGOPER
                | oid::REGOPERATOR
                | oid::REGNAMESPACE
                | oid::REGROLE
                | REGCONFIG
                | REGDICTIONARY
                | REGCOLLATION
        );
        if !is_object {
            return Ok(None);
        }
        let trimmed = text.trim();
        let found = if trimmed == "-" {
            0
        } else if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
            trimmed.parse::<u32>().map_err(|_| {
                self.error(ErrorCode::NumericValueOutOfRange, format!("value \"{trimmed}\" is out of range for type oid"), at)
            })?
        } else {
            match ty.oid {
                oid::REGTYPE => {
                    let name = parse::parse_type_name(trimmed)
                        .map_err(|_| self.error(ErrorCode::SyntaxError, format!("invalid type name \"{trimmed}\""), at))?;
                    self.type_of(&name)
                        .map_err(|mut e| {
                            e.position = None;
                            e.at(self.source.position(at))
                        })?
                        .oid
                }
                oid::REGPROCEDURE => self.procedure_oid(trimmed, at)?,
                oid::REGOPER | oid::REGOPERATOR => self.operator_oid(trimmed, ty.oid, at)?,
                _ => {
                    let parts = split_name(trimmed).ok_or_else(|| self.error(ErrorCode::InvalidName, "invalid name syntax", at))?;
                    self.named_object_oid(&parts, trimmed, ty.oid, at)?
                }
            }
        };
        Ok(Some(Expr::Const { value: Value::Int8(i64::from(found)), ty }))
    }

    fn named_object_oid(&self, parts: &[String], text: &str, ty: Oid, at: i32) -> Result<Oid> {
        let (schema, name) = match parts {
            [name] => (None, name.as_str()),
            [schema, name] => (Some(schema.as_str()), name.as_str()),
            [_, schema, name] => (Some(schema.as_str()), name.as_str()),
            _ => {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    format!("improper qualified name (too many dotted names): {}", parts.join(".")),
                    at,
                ));
            }
        };
        let missing = |code, what: &str| self.error(code, format!("{what} \"{text}\" does not exist"), at);
        match ty {
            oid::REGCLASS => match self.names.relation_oid(schema, name)? {
                Some(found) => Ok(found),
                None => Err(self.error(ErrorCode::UndefinedTable, format!("relation \"{}\" does not exist", parts.join(".")), at)),
            },
            oid::REGNAMESPACE => self.names.schema_oid(name).ok_or_else(|| missing(ErrorCode::UndefinedSchema, "schema")),
            oid::REGROLE => self.names.role_oid(name).ok_or_else(|| missing(ErrorCode::UndefinedObject, "role")),
            oid::REGPROC => {
                let mut found = catalog().procs_by_name(name).filter(|_| schema.is_none_or(|s| s == "pg_catalog"));
                match (found.next(), found.next()) {
                    (Some(one), None) => Ok(one.oid),
                    (Some(_), Some(_)) => {
                        Err(self.error(ErrorCode::AmbiguousFunction, format!("more than one function named \"{text}\""), at))
                    }
                    _ => Err(missing(ErrorCode::UndefinedFunction, "function")),
                }
            }
            REGCOLLATION => catalog().collations.iter().find(|c| c.name == name).map(|c| c.oid).ok_or_else(|| {
                self.error(ErrorCode::UndefinedObject, format!("collation \"{text}\" for encoding \"UTF8\" does not exist"), at)
            }),
            _ => Err(self.error(ErrorCode::FeatureNotSupported, format!("type {} is not supported", self.types.name(ty)), at)),
        }
    }

    /// `name(type, type)`.
    fn procedure_oid(&self, text: &str, at: i32) -> Result<Oid> {
        let invalid = || self.error(ErrorCode::InvalidTextRepresentation, "expected a left parenthesis", at);
        let (name, rest) = text.split_once('(').ok_or_else(invalid)?;
        let arguments = rest.trim_end().strip_suffix(')').ok_or_else(invalid)?;
        let parts = split_name(name.trim()).ok_or_else(invalid)?;
        let name = parts.last().map_or("", String::as_str);
        let mut types = Vec::new();
        for argument in arguments.split(',').map(str::trim).filter(|a| !a.is_empty()) {
            types.push(self.type_of(&parse::parse_type_name(argument)?)?.oid);
        }
        catalog()
            .procs_by_name(name)
            .find(|proc| proc.arg_types == types)
            .map(|proc| proc.oid)
            .ok_or_else(|| self.error(ErrorCode::UndefinedFunction, format!("function \"{text}\" does not exist"), at))
    }

    fn operator_oid(&self, text: &str, ty: Oid, at: i32) -> Result<Oid> {
        if ty == oid::REGOPER {
            let name = text.rsplit('.').next().unwrap_or(text);
            let mut found = catalog().operators_by_name(name);
            return match (found.next(), found.next()) {
                (Some(one), None) => Ok(one.oid),
                (Some(_), Some(_)) => Err(self.error(ErrorCode::AmbiguousFunction, format!("more than one operator named {text}"), at)),
                _ => Err(self.error(ErrorCode::UndefinedFunction, format!("operator does not exist: {text}"), at)),
            };
        }
        let invalid = || self.error(ErrorCode::InvalidTextRepresentation, "expected a left parenthesis", at);
        let (name, rest) = text.split_once('(').ok_or_else(invalid)?;
        let arguments = rest.trim_end().strip_suffix(')').ok_or_else(invalid)?;
        let name = name.trim().rsplit('.').next().unwrap_or("");
        let mut types = Vec::new();
        for argument in arguments.split(',').map(str::trim) {
            types.push(if argument.eq_ignore_ascii_case("none") { 0 } else { self.type_of(&parse::parse_type_name(argument)?)?.oid });
        }
        catalog()
            .operators_by_name(name)
            .find(|op| types.as_slice() == [op.left, op.right])
            .map(|op| op.oid)
            .ok_or_else(|| self.error(ErrorCode::UndefinedFunction, format!("operator does not exist: {text}"), at))
    }
}

/// The parts of a dotted name: quoted parts as they are, others folded. `None` when it is not one.
pub fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut chars = text.trim().chars().peekable();
    loop {
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        let mut part = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next()? {
                    '"' if chars.peek() == Some(&'"') => {
                        chars.next();
                        part.push('"');
                    }
                    '"' => break,
                    c => part.push(c),
                }
            }
        } else {
            while let Some(&c) = chars.peek() {
                if c == '.' || c.is_whitespace() {
                    break;
                }
                if c == '"' || c == '(' || c == ',' {
                    return None;
                }
                part.push(c.to_ascii_lowercase());
                chars.next();
            }
        }
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        match chars.next() {
            None => return Some(parts),
            Some('.') => {}
            Some(_) => return None,
        }
    }
}

/// The strings of a list of String nodes: a qualified name.
pub(super) fn name_parts(nodes: &[pg_query::protobuf::Node]) -> Vec<&str> {
    nodes
        .iter()
        .filter_map(|node| match &node.node {
            Some(NodeEnum::String(s)) => Some(s.sval.as_str()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::split_name;

    #[test]
    fn dotted_names_fold_unless_quoted() {
        assert_eq!(split_name("Public.\"My \"\"t\""), Some(vec!["public".to_owned(), "My \"t".to_owned()]));
        assert_eq!(split_name("a b"), None);
        assert_eq!(split_name(""), None);
    }
}
