//! Type names in the text: `numeric(10,2)`, `timestamp with time zone`, `mood[]`.

use pg_query::NodeEnum;
use pg_query::protobuf::a_const::Val;
use pg_query::protobuf::{Node, TypeName};

use super::Binder;
use super::object_names::name_parts;
use crate::catalog_data::catalog;
use crate::error::{ErrorCode, Result};
use crate::types::{Oid, SqlType, oid};

const NUMERIC_PRECISION_MAX: i32 = 1000;
const LENGTH_MAX: i32 = 10_485_760;
const BIT_LENGTH_MAX: i32 = 83_886_080;
/// The header that PostgreSQL adds to lengths in modifiers.
const HEADER: i32 = 4;
const INTERVAL_FULL_RANGE: i32 = 0x7FFF;
const INTERVAL_FULL_PRECISION: i32 = 0xFFFF;
const SECONDS_PRECISION_MAX: i32 = 6;

impl Binder<'_> {
    /// # Errors
    /// `UndefinedObject` for unknown names, errors about modifiers.
    pub(super) fn type_of(&self, name: &TypeName) -> Result<SqlType> {
        let at = name.location;
        let parts = name_parts(&name.names);
        if name.setof {
            return Err(self.error(ErrorCode::InvalidTableDefinition, "SETOF is not allowed here", at));
        }
        if name.pct_type {
            return Err(self.unsupported("%TYPE", at));
        }
        let (schema, typname) = match parts.as_slice() {
            [name] => (None, *name),
            [schema, name] => (Some(*schema), *name),
            [_, schema, name] => (Some(*schema), *name),
            _ if name.type_oid != 0 => return Ok(SqlType { oid: name.type_oid, typmod: name.typemod }),
            _ => {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    format!("improper qualified name (too many dotted names): {}", parts.join(".")),
                    at,
                ));
            }
        };
        let Some(found) = self.type_by_name(schema, typname)? else {
            let shown = parts.join(".");
            return Err(self.error(ErrorCode::UndefinedObject, format!("type \"{shown}\" does not exist"), at));
        };
        let typmod = self.modifier(found, &name.typmods, at)?;
        if name.array_bounds.is_empty() {
            return Ok(SqlType { oid: found, typmod });
        }
        if self.types.element(found).is_some() {
            return Ok(SqlType { oid: found, typmod });
        }
        match self.types.array_of(found) {
            Some(array) => Ok(SqlType { oid: array, typmod }),
            None => Err(self.error(
                ErrorCode::UndefinedObject,
                format!("could not find array type for data type {}", self.types.name(found)),
                at,
            )),
        }
    }

    fn type_by_name(&self, schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
        if schema.is_none_or(|s| s == "pg_catalog")
            && let Some(row) = catalog().type_by_name(name)
        {
            return Ok(Some(row.oid));
        }
        if let Some(user) = self.names.user_type(schema, name)? {
            return Ok(Some(user.oid));
        }
        // `_mood` is the array of mood.
        if let Some(element) = name.strip_prefix('_')
            && let Some(user) = self.names.user_type(schema, element)?
        {
            return Ok(Some(user.array_oid));
        }
        // A table's name is the name of its row type.
        match self.names.relation_oid(schema, name)? {
            Some(relation) if self.names.row_type(relation).is_some() => Ok(Some(relation)),
            _ => Ok(None),
        }
    }

    fn modifier(&self, ty: Oid, nodes: &[Node], at: i32) -> Result<i32> {
        if nodes.is_empty() {
            return Ok(-1);
        }
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            match &node.node {
                Some(NodeEnum::AConst(c)) => match &c.val {
                    Some(Val::Ival(i)) => values.push(i.ival),
                    // Zero is kept as no value at all in the serialised tree.
                    None if !c.isnull => values.push(0),
                    _ => return Err(self.error(ErrorCode::SyntaxError, "type modifiers must be simple constants or identifiers", at)),
                },
                _ => return Err(self.error(ErrorCode::SyntaxError, "type modifiers must be simple constants or identifiers", at)),
            }
        }
        let element = self.types.element(ty).unwrap_or(ty);
        let value = |code, text: String| self.error(code, text, at);
        let one = |name: &str| -> Result<i32> {
            match values.as_slice() {
                [n] => Ok(*n),
                _ => Err(value(ErrorCode::InvalidParameterValue, format!("invalid type modifier for type {name}"))),
            }
        };
        let length = |name: &str, max: i32| -> Result<i32> {
            let n = one(name)?;
            if n < 1 {
                return Err(value(ErrorCode::InvalidParameterValue, format!("length for type {name} must be at least 1")));
            }
            if n > max {
                return Err(value(ErrorCode::InvalidParameterValue, format!("length for type {name} cannot exceed {max}")));
            }
            Ok(n)
        };
        let seconds = |name: &str, n: i32| -> Result<i32> {
            if n < 0 {
                return Err(value(ErrorCode::InvalidParameterValue, format!("{name}({n}) precision must not be negative")));
            }
            // PostgreSQL warns and takes the most there is.
            Ok(n.min(SECONDS_PRECISION_MAX))
        };
        Ok(match element {
            oid::VARCHAR => length("varchar", LENGTH_MAX)? + HEADER,
            oid::BPCHAR => length("char", LENGTH_MAX)? + HEADER,
            oid::BIT => length("bit", BIT_LENGTH_MAX)?,
            oid::VARBIT => length("varbit", BIT_LENGTH_MAX)?,
            oid::TIMESTAMP => seconds("TIMESTAMP", one("timestamp")?)?,
            oid::TIMESTAMPTZ => seconds("TIMESTAMP", one("timestamp with time zone")?)?,
            oid::TIME => seconds("TIME", one("time")?)?,
            oid::TIMETZ => seconds("TIME", one("time with time zone")?)?,
            oid::INTERVAL => {
                let (range, precision) = match values.as_slice() {
                    [range] => (*range, INTERVAL_FULL_PRECISION),
                    [range, precision] => (*range, seconds("INTERVAL", *precision)?),
                    _ => return Err(value(ErrorCode::InvalidParameterValue, "invalid INTERVAL type modifier".into())),
                };
                if range == INTERVAL_FULL_RANGE && precision == INTERVAL_FULL_PRECISION {
                    -1
                } else {
                    ((range & 0x7FFF) << 16) | (precision & 0xFFFF)
                }
            }
            oid::NUMERIC => {
                let (precision, scale) = match values.as_slice() {
                    [precision] => (*precision, 0),
                    [precision, scale] => (*precision, *scale),
                    _ => return Err(value(ErrorCode::InvalidParameterValue, "invalid NUMERIC type modifier".into())),
                };
                if !(1..=NUMERIC_PRECISION_MAX).contains(&precision) {
                    return Err(value(
                        ErrorCode::InvalidParameterValue,
                        format!("NUMERIC precision {precision} must be between 1 and {NUMERIC_PRECISION_MAX}"),
                    ));
                }
                if !(-NUMERIC_PRECISION_MAX..=NUMERIC_PRECISION_MAX).contains(&scale) {
                    return Err(value(
                        ErrorCode::InvalidParameterValue,
                        format!("NUMERIC scale {scale} must be between -{NUMERIC_PRECISION_MAX} and {NUMERIC_PRECISION_MAX}"),
                    ));
                }
                ((precision << 16) | (scale & 0x7FF)) + HEADER
            }
            _ => {
                let name = catalog().type_by_oid(element).map_or_else(|| self.types.name(element), |row| row.name.to_owned());
                return Err(value(ErrorCode::SyntaxError, format!("type modifier is not allowed for type \"{name}\"")));
            }
        })
    }
}
