//! Columns as CREATE TABLE and ADD COLUMN define them: types, defaults, serial, identity, generated.

use pg_query::NodeEnum;
use pg_query::protobuf::{ColumnDef, ConstrType, Constraint, Node};
use strandline_storage::schema::{Column, Identity, Sequence};
use strandline_storage::{DataType, Oid};

use crate::error::{ErrorCode, Result, SqlError};
use crate::statement::binding;
use crate::statement::ddl::sequence::{SequenceOptions, sequence_of_type};
use crate::statement::ddl::{Ddl, choose_name};
use crate::statement::tree;
use crate::system::identifier::quote_identifier;

/// A column, with what its definition asks for beside it.
pub struct NewColumn {
    pub column: Column,
    /// A sequence for serial or identity.
    pub sequence: Option<Sequence>,
    /// PRIMARY KEY, UNIQUE, CHECK and REFERENCES written at the column.
    pub constraints: Vec<Constraint>,
}

/// Who a new column belongs to.
pub struct Owner {
    pub table_oid: Oid,
    pub table: String,
    pub schema_oid: Oid,
    pub schema: String,
}

/// Builds a column. `name_taken` says which relation names cannot be chosen for a sequence.
pub fn new_column(ddl: &Ddl, definition: &ColumnDef, attnum: i16, owner: &Owner, name_taken: &dyn Fn(&str) -> bool) -> Result<NewColumn> {
    let name = definition.colname.clone();
    if SYSTEM_COLUMNS.contains(&name.as_str()) {
        return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column name \"{name}\" conflicts with a system column name")));
    }
    let type_name = definition.type_name.as_ref().ok_or_else(tree::malformed)?;
    let serial = match tree::plain_type_name(type_name) {
        Some("serial" | "serial4") => Some("int4"),
        Some("bigserial" | "serial8") => Some("int8"),
        Some("smallserial" | "serial2") => Some("int2"),
        _ => None,
    };
    let data_type = match serial {
        Some(base) => {
            if !type_name.array_bounds.is_empty() {
                return Err(SqlError::new(ErrorCode::FeatureNotSupported, "array of serial is not implemented"));
            }
            DataType::by_name(base).ok_or_else(tree::malformed)?
        }
        None => binding::data_type(&ddl.context, &ddl.source, type_name)?,
    };
    let collation = definition.coll_clause.as_ref().map(|c| tree::strings(&c.collname).pop().unwrap_or_default());
    let mut made = NewColumn {
        column: Column {
            name: name.clone(),
            attnum,
            data_type,
            not_null: definition.is_not_null || serial.is_some(),
            default: None,
            identity: None,
            generated: None,
            collation,
            comment: None,
        },
        sequence: None,
        constraints: Vec::new(),
    };
    if serial.is_some() {
        let sequence = new_sequence(ddl, owner, &name, attnum, &made.column.data_type, &[], None, name_taken)?;
        made.column.default = Some(nextval_text(&owner.schema, &sequence.name));
        made.sequence = Some(sequence);
    }
    let mut nullable = false;
    for node in &definition.constraints {
        let Some(NodeEnum::Constraint(constraint)) = &node.node else { continue };
        match constraint.contype() {
            ConstrType::ConstrNotnull => made.column.not_null = true,
            ConstrType::ConstrNull => nullable = true,
            ConstrType::ConstrDefault => {
                if made.column.default.is_some() {
                    return Err(SqlError::new(
                        ErrorCode::SyntaxError,
                        format!("multiple default values specified for column \"{name}\" of table \"{}\"", owner.table),
                    ));
                }
                let expression = constraint.raw_expr.as_deref().ok_or_else(tree::malformed)?;
                made.column.default = default_text(ddl, expression, &made.column.data_type, &name)?;
            }
            ConstrType::ConstrIdentity => {
                let identity = if constraint.generated_when == "a" { Identity::Always } else { Identity::ByDefault };
                made.sequence = Some(identity_sequence(ddl, owner, &made.column, &constraint.options, name_taken)?);
                made.column.identity = Some(identity);
                made.column.not_null = true;
            }
            ConstrType::ConstrGenerated => {
                if constraint.generated_kind == "v" {
                    return Err(SqlError::unsupported("a virtual generated column"));
                }
                let expression = constraint.raw_expr.as_deref().ok_or_else(tree::malformed)?;
                made.column.generated = Some(tree::expression_text(expression)?);
            }
            ConstrType::ConstrPrimary | ConstrType::ConstrUnique | ConstrType::ConstrCheck | ConstrType::ConstrForeign => {
                made.constraints.push((**constraint).clone());
            }
            ConstrType::ConstrAttrDeferrable | ConstrType::ConstrAttrDeferred => {
                return Err(SqlError::unsupported("a deferrable constraint"));
            }
            ConstrType::ConstrAttrNotDeferrable | ConstrType::ConstrAttrImmediate | ConstrType::ConstrAttrEnforced => {}
            other => return Err(SqlError::unsupported(format_args!("constraint {other:?}"))),
        }
    }
    if nullable && made.column.not_null {
        return Err(SqlError::new(
            ErrorCode::SyntaxError,
            format!("conflicting NULL/NOT NULL declarations for column \"{name}\" of table \"{}\"", owner.table),
        ));
    }
    if made.column.generated.is_some() && made.column.default.is_some() {
        return Err(SqlError::new(
            ErrorCode::SyntaxError,
            format!("both default and generation expression specified for column \"{name}\" of table \"{}\"", owner.table),
        ));
    }
    Ok(made)
}

const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// The default's text after checking that it is an expression of the column's type; a plain NULL is no default.
pub fn default_text(ddl: &Ddl, expression: &Node, data_type: &DataType, column: &str) -> Result<Option<String>> {
    if let Some(NodeEnum::AConst(constant)) = &expression.node
        && constant.isnull
    {
        return Ok(None);
    }
    binding::check_default(&ddl.context, &ddl.source, expression, data_type, column)?;
    Ok(Some(tree::expression_text(expression)?))
}

pub fn nextval_text(schema: &str, sequence: &str) -> String {
    format!("nextval('{}'::regclass)", format!("{}.{}", quote_identifier(schema), quote_identifier(sequence)).replace('\'', "''"))
}

/// The sequence of an identity column.
pub fn identity_sequence(
    ddl: &Ddl,
    owner: &Owner,
    column: &Column,
    options: &[Node],
    name_taken: &dyn Fn(&str) -> bool,
) -> Result<Sequence> {
    if !matches!(column.data_type.oid, 20 | 21 | 23) {
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, "identity column type must be smallint, integer, or bigint"));
    }
    let name = tree::def_elems(options).find(|o| o.defname == "sequence_name").and_then(|option| match &option.arg.as_deref()?.node {
        Some(NodeEnum::List(list)) => tree::strings(&list.items).pop(),
        _ => None,
    });
    new_sequence(ddl, owner, &column.name, column.attnum, &column.data_type, options, name, name_taken)
}

#[allow(clippy::too_many_arguments)]
fn new_sequence(
    ddl: &Ddl,
    owner: &Owner,
    column: &str,
    attnum: i16,
    data_type: &DataType,
    options: &[Node],
    name: Option<String>,
    name_taken: &dyn Fn(&str) -> bool,
) -> Result<Sequence> {
    let name = match name {
        Some(name) if name_taken(&name) => {
            return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{name}\" already exists")));
        }
        Some(name) => name,
        None => choose_name(&owner.table, column, "seq", name_taken),
    };
    let mut sequence = sequence_of_type(ddl.oid()?, owner.schema_oid, &name, ddl.user(), data_type.clone());
    let options = SequenceOptions::read(options)?;
    options.apply(&mut sequence, true)?;
    sequence.owned_by = Some((owner.table_oid, attnum));
    Ok(sequence)
}
