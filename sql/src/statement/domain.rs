//! What a domain demands of a value: its own conditions and those of the domains that it is over.

use std::sync::Arc;

use strandline_storage::schema::{CatalogObject, Column, TypeDefinition, UserType};
use strandline_storage::{DataType, Oid, TableSchema, Value};

use super::binding::{RowExpressions, Wanted};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};

/// How many domains may be over each other; a chain ends, but for a damaged catalog.
const DEPTH_MAX: usize = 32;

/// The conditions of one domain, compiled.
#[derive(Debug)]
pub struct DomainConditions {
    name: String,
    not_null: bool,
    /// In the order in which PostgreSQL checks them: those of the innermost domain first, of each by name.
    names: Vec<String>,
    conditions: Vec<RowExpressions>,
}

fn domain(context: &StatementContext, oid: Oid) -> Option<&UserType> {
    match context.root.catalog().get(oid).map(|object| &**object) {
        Some(CatalogObject::Type(t)) if matches!(t.definition, TypeDefinition::Domain { .. }) => Some(t),
        _ => None,
    }
}

/// The type under a domain and the domains that it is over; any other type itself.
pub fn plain_type(context: &StatementContext, data_type: &DataType) -> DataType {
    let mut plain = data_type.clone();
    for _ in 0..DEPTH_MAX {
        match domain(context, plain.oid).map(|t| &t.definition) {
            Some(TypeDefinition::Domain { base, .. }) => plain = base.clone(),
            _ => break,
        }
    }
    plain
}

impl DomainConditions {
    /// `None` for a type that is no domain, or one that demands nothing.
    /// # Errors
    /// A condition that cannot be evaluated.
    pub fn of(context: &Arc<StatementContext>, oid: Oid) -> Result<Option<DomainConditions>> {
        let Some(outermost) = domain(context, oid) else { return Ok(None) };
        let mut chain = vec![outermost];
        while let Some(TypeDefinition::Domain { base, .. }) = chain.last().map(|t| &t.definition)
            && let Some(inner) = domain(context, base.oid)
            && chain.len() < DEPTH_MAX
        {
            chain.push(inner);
        }
        let mut found = DomainConditions { name: outermost.name.clone(), not_null: false, names: Vec::new(), conditions: Vec::new() };
        for ty in chain.into_iter().rev() {
            let TypeDefinition::Domain { base, not_null, checks, .. } = &ty.definition else { continue };
            found.not_null |= *not_null;
            let row = value_row(plain_type(context, base));
            let mut checks: Vec<&(String, String)> = checks.iter().collect();
            checks.sort();
            for (name, text) in checks {
                found.names.push(name.clone());
                found.conditions.push(RowExpressions::stored(context, &row, &[(text.as_str(), Wanted::Boolean)])?);
            }
        }
        Ok((found.not_null || !found.names.is_empty()).then_some(found))
    }

    /// # Errors
    /// `NotNullViolation`, `CheckViolation`, as PostgreSQL words them.
    pub fn check(&self, value: &Value) -> Result<()> {
        let name = &self.name;
        if self.not_null && value.is_null() {
            let mut error = SqlError::new(ErrorCode::NotNullViolation, format!("domain {name} does not allow null values"));
            error.data_type = Some(name.clone());
            return Err(error);
        }
        for (check, condition) in self.names.iter().zip(&self.conditions) {
            if matches!(condition.value(0, std::slice::from_ref(value))?, Value::Bool(false)) {
                let message = format!("value for domain {name} violates check constraint \"{check}\"");
                let mut error = SqlError::new(ErrorCode::CheckViolation, message);
                error.data_type = Some(name.clone());
                error.constraint = Some(check.clone());
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A condition sees the value as the only column of a row, named `value`.
fn value_row(data_type: DataType) -> TableSchema {
    let value = Column {
        name: "value".into(),
        attnum: 1,
        data_type,
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    };
    TableSchema {
        oid: 0,
        schema_oid: 0,
        name: String::new(),
        owner: String::new(),
        columns: vec![value],
        next_attnum: 2,
        primary_key: None,
        indexes: Vec::new(),
        constraints: Vec::new(),
        comment: None,
        merged_columns: Vec::new(),
    }
}
