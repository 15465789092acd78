//! Small questions to parse trees.

use pg_query::protobuf::{AConst, DefElem, Node, RangeVar, RoleSpec, RoleSpecType, TypeName, a_const::Val};
use pg_query::{DeparseOptions, NodeEnum};

use crate::error::{ErrorCode, Result, SqlError};

/// The node that must be there by the grammar.
pub fn inner(node: &Option<Box<Node>>) -> Result<&NodeEnum> {
    node.as_ref().and_then(|n| n.node.as_ref()).ok_or_else(malformed)
}

pub fn malformed() -> SqlError {
    SqlError::new(ErrorCode::InternalError, "unexpected parse tree")
}

/// A `String` node's text.
pub fn string(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(s)) => Some(&s.sval),
        _ => None,
    }
}

/// The strings of a list, as names are written: `a.b.c`.
pub fn strings(nodes: &[Node]) -> Vec<String> {
    nodes.iter().filter_map(string).map(str::to_owned).collect()
}

/// A qualified name as (schema, name); more parts are refused.
pub fn qualified(nodes: &[Node]) -> Result<(Option<String>, String)> {
    split_name(strings(nodes))
}

pub fn split_name(mut parts: Vec<String>) -> Result<(Option<String>, String)> {
    let name = parts.pop().ok_or_else(malformed)?;
    let schema = parts.pop();
    if let Some(catalog) = parts.pop() {
        return Err(SqlError::unsupported(format_args!("cross-database reference \"{catalog}.{}.{name}\"", schema.unwrap_or_default())));
    }
    Ok((schema, name))
}

/// A name that may be a list or a type name (DROP, COMMENT, ALTER).
pub fn object_name(node: &Node) -> Result<(Option<String>, String)> {
    match &node.node {
        Some(NodeEnum::List(list)) => qualified(&list.items),
        Some(NodeEnum::String(s)) => Ok((None, s.sval.clone())),
        Some(NodeEnum::TypeName(t)) => qualified(&t.names),
        Some(NodeEnum::RangeVar(r)) => Ok(range_name(r)),
        _ => Err(malformed()),
    }
}

/// Schema and name of a relation's reference.
pub fn range_name(range: &RangeVar) -> (Option<String>, String) {
    ((!range.schemaname.is_empty()).then(|| range.schemaname.clone()), range.relname.clone())
}

pub fn range(range: &Option<RangeVar>) -> Result<&RangeVar> {
    range.as_ref().ok_or_else(malformed)
}

pub fn def_elems(nodes: &[Node]) -> impl Iterator<Item = &DefElem> {
    nodes.iter().filter_map(|n| match &n.node {
        Some(NodeEnum::DefElem(d)) => Some(&**d),
        _ => None,
    })
}

/// The argument of an option as text: names, strings, numbers and booleans alike.
pub fn def_text(def: &DefElem) -> Option<String> {
    node_text(def.arg.as_deref()?)
}

pub fn node_text(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::String(s) => Some(s.sval.clone()),
        NodeEnum::Integer(i) => Some(i.ival.to_string()),
        NodeEnum::Float(f) => Some(f.fval.clone()),
        NodeEnum::Boolean(b) => Some(if b.boolval { "true" } else { "false" }.into()),
        NodeEnum::AConst(c) => const_text(c),
        NodeEnum::TypeName(t) => t.names.last().and_then(string).map(str::to_owned),
        NodeEnum::List(l) => Some(strings(&l.items).join(".")),
        NodeEnum::TypeCast(cast) => node_text(cast.arg.as_deref()?),
        _ => None,
    }
}

pub fn const_text(constant: &AConst) -> Option<String> {
    Some(match constant.val.as_ref()? {
        Val::Ival(i) => i.ival.to_string(),
        Val::Fval(f) => f.fval.clone(),
        Val::Boolval(b) => if b.boolval { "true" } else { "false" }.into(),
        Val::Sval(s) => s.sval.clone(),
        Val::Bsval(b) => b.bsval.clone(),
    })
}

/// A boolean option: present without argument means yes.
pub fn def_bool(def: &DefElem) -> Result<bool> {
    match def_text(def).map(|t| t.to_ascii_lowercase()).as_deref() {
        None | Some("true" | "on" | "1" | "yes") => Ok(true),
        Some("false" | "off" | "0" | "no") => Ok(false),
        Some(_) => Err(SqlError::new(ErrorCode::SyntaxError, format!("{} requires a Boolean value", def.defname))),
    }
}

pub fn def_int(def: &DefElem) -> Result<i64> {
    def_text(def)
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| SqlError::new(ErrorCode::SyntaxError, format!("{} requires an integer value", def.defname)))
}

/// A role's name; the special ones are resolved by `current` and `session`.
pub fn role_name(role: &RoleSpec, current: &str, session: &str) -> Result<String> {
    Ok(match role.roletype() {
        RoleSpecType::RolespecCurrentRole | RoleSpecType::RolespecCurrentUser => current.to_owned(),
        RoleSpecType::RolespecSessionUser => session.to_owned(),
        RoleSpecType::RolespecPublic => "public".to_owned(),
        _ => role.rolename.clone(),
    })
}

/// The SQL text of an expression.
pub fn expression_text(expression: &Node) -> Result<String> {
    // A parsed statement is the frame: one made by hand would have enums that libpg_query aborts on.
    let (_, mut frame) = crate::parse::parse_stored("SELECT NULL")?;
    let NodeEnum::SelectStmt(select) = &mut frame else { return Err(malformed()) };
    let Some(NodeEnum::ResTarget(target)) = select.target_list.first_mut().and_then(|t| t.node.as_mut()) else {
        return Err(malformed());
    };
    target.val = Some(Box::new(expression.clone()));
    let text = statement_text(&frame)?;
    Ok(text.strip_prefix("SELECT ").unwrap_or(&text).to_owned())
}

/// The SQL text of a statement.
pub fn statement_text(node: &NodeEnum) -> Result<String> {
    node.deparse(DeparseOptions::default())
        .map_err(|e| SqlError::new(ErrorCode::InternalError, format!("could not write the statement's text: {e}")))
}

/// The last part of a type's name, for the names that only the grammar knows (`serial`).
pub fn plain_type_name(name: &TypeName) -> Option<&str> {
    match name.names.as_slice() {
        [only] => string(only),
        _ => None,
    }
}
