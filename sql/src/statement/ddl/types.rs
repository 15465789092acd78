//! CREATE TYPE ... AS ENUM and composite, CREATE DOMAIN, ALTER TYPE ... ADD VALUE.

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterEnumStmt, CompositeTypeStmt, ConstrType, CreateDomainStmt, CreateEnumStmt};
use strandline_storage::schema::{TypeDefinition, UserType};
use strandline_storage::{Catalog, CatalogObject, Oid};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::ddl::{self, Ddl};
use crate::statement::{binding, tree};

/// Labels of one enum.
const LABELS_MAX: usize = 100_000;

pub fn type_name_taken(catalog: &Catalog, schema_oid: Oid, name: &str) -> bool {
    catalog.objects.values().any(|o| match &**o {
        CatalogObject::Type(t) => t.schema_oid == schema_oid && t.name == name,
        // A table's row type has the table's name.
        CatalogObject::Table(t) => t.schema_oid == schema_oid && t.name == name,
        CatalogObject::View(v) => v.schema_oid == schema_oid && v.name == name,
        _ => false,
    })
}

fn put_type(ddl: &Ddl, tag: &str, name: (Option<String>, String), definition: TypeDefinition) -> Result<()> {
    let (schema_oid, _) = ddl::creation_schema(&ddl.context, name.0.as_deref())?;
    if type_name_taken(ddl.catalog(), schema_oid, &name.1) {
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("type \"{}\" already exists", name.1)));
    }
    let made = UserType { oid: ddl.oid()?, array_oid: ddl.oid()?, schema_oid, name: name.1, owner: ddl.user().into(), definition };
    ddl.core.with_edit(tag, |edit| Ok(edit.put_object(CatalogObject::Type(made))?))
}

pub fn create_enum(ddl: &Ddl, create: &CreateEnumStmt) -> Result<()> {
    let labels = tree::strings(&create.vals);
    if labels.len() > LABELS_MAX {
        return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, format!("enums can have at most {LABELS_MAX} labels")));
    }
    for (i, label) in labels.iter().enumerate() {
        check_label(label)?;
        if labels[..i].contains(label) {
            return Err(SqlError::new(ErrorCode::DuplicateObject, format!("enum label \"{label}\" used more than once")));
        }
    }
    put_type(ddl, "CREATE TYPE", tree::qualified(&create.type_name)?, TypeDefinition::Enum(labels))
}

fn check_label(label: &str) -> Result<()> {
    if label.is_empty() || label.len() > 63 {
        return Err(
            SqlError::new(ErrorCode::InvalidName, format!("invalid enum label \"{label}\"")).detail("Labels must be 63 bytes or less.")
        );
    }
    Ok(())
}

pub fn alter_enum(ddl: &Ddl, alter: &AlterEnumStmt) -> Result<()> {
    let (schema, name) = tree::qualified(&alter.type_name)?;
    let found = ddl::user_type(&ddl.context, schema.as_deref(), &name)
        .ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, format!("type \"{name}\" does not exist")))?;
    let mut changed = found.clone();
    let TypeDefinition::Enum(labels) = &mut changed.definition else {
        return Err(SqlError::new(ErrorCode::WrongObjectType, format!("\"{name}\" is not an enum")));
    };
    let position = |labels: &[String], label: &str| {
        labels
            .iter()
            .position(|l| l == label)
            .ok_or_else(|| SqlError::new(ErrorCode::InvalidParameterValue, format!("\"{label}\" is not an existing enum label")))
    };
    if !alter.old_val.is_empty() {
        return Err(SqlError::unsupported("ALTER TYPE ... RENAME VALUE"));
    }
    check_label(&alter.new_val)?;
    if labels.contains(&alter.new_val) {
        if alter.skip_if_new_val_exists {
            ddl.notice(NoticeCode::DuplicateObject, format!("enum label \"{}\" already exists, skipping", alter.new_val));
            return Ok(());
        }
        return Err(SqlError::new(ErrorCode::DuplicateObject, format!("enum label \"{}\" already exists", alter.new_val)));
    }
    let at = match alter.new_val_neighbor.as_str() {
        "" => labels.len(),
        neighbor => position(labels, neighbor)? + usize::from(alter.new_val_is_after),
    };
    labels.insert(at, alter.new_val.clone());
    ddl.core.with_edit("ALTER TYPE", |edit| Ok(edit.put_object(CatalogObject::Type(changed))?))
}

pub fn create_domain(ddl: &Ddl, create: &CreateDomainStmt) -> Result<()> {
    let base = binding::data_type(&ddl.context, &ddl.source, create.type_name.as_ref().ok_or_else(tree::malformed)?)?;
    let (schema, name) = tree::qualified(&create.domainname)?;
    let (mut not_null, mut default, mut checks) = (false, None, Vec::new());
    for node in &create.constraints {
        let Some(NodeEnum::Constraint(constraint)) = &node.node else { continue };
        match constraint.contype() {
            ConstrType::ConstrNotnull => not_null = true,
            ConstrType::ConstrNull => {}
            ConstrType::ConstrDefault => {
                let expression = constraint.raw_expr.as_deref().ok_or_else(tree::malformed)?;
                binding::check_default(&ddl.context, &ddl.source, expression, &base, &name)?;
                default = Some(tree::expression_text(expression)?);
            }
            ConstrType::ConstrCheck => {
                let expression = constraint.raw_expr.as_deref().ok_or_else(tree::malformed)?;
                let given = if constraint.conname.is_empty() {
                    ddl::choose_name(&name, "", "check", |n| checks.iter().any(|(c, _): &(String, String)| c == n))
                } else {
                    constraint.conname.clone()
                };
                checks.push((given, tree::expression_text(expression)?));
            }
            other => return Err(SqlError::unsupported(format_args!("domain constraint {other:?}"))),
        }
    }
    put_type(ddl, "CREATE DOMAIN", (schema, name), TypeDefinition::Domain { base, not_null, default, checks })
}

pub fn create_composite(ddl: &Ddl, create: &CompositeTypeStmt) -> Result<()> {
    let name = tree::range_name(tree::range(&create.typevar)?);
    let fields = create
        .coldeflist
        .iter()
        .map(|node| match &node.node {
            Some(NodeEnum::ColumnDef(column)) => {
                let type_name = column.type_name.as_ref().ok_or_else(tree::malformed)?;
                Ok((column.colname.clone(), binding::data_type(&ddl.context, &ddl.source, type_name)?))
            }
            _ => Err(tree::malformed()),
        })
        .collect::<Result<Vec<_>>>()?;
    put_type(ddl, "CREATE TYPE", name, TypeDefinition::Composite(fields))
}
