//! What every row goes through on its way into a table: defaults, generated columns, NOT NULL, CHECK, domains.

use std::sync::Arc;

use strandline_storage::schema::{ConstraintKind, Identity, Sequence, TypeDefinition, UserType};
use strandline_storage::{Catalog, CatalogObject, DataType, Oid, Row, TableSchema, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::exec::{Evaluator, Execution};
use crate::functions::casts;
use crate::statement::DomainConditions;
use crate::statement::binding::{RowExpressions, Wanted, stored_default};

/// How much of a value an error's detail shows, as in PostgreSQL.
const SHOWN_VALUE_BYTES_MAX: usize = 64;

/// The sequence behind an identity column.
pub fn identity_sequence(catalog: &Catalog, table: Oid, attnum: i16) -> Option<Sequence> {
    catalog.objects.values().find_map(|o| match &**o {
        CatalogObject::Sequence(s) if s.owned_by == Some((table, attnum)) => Some(s.clone()),
        _ => None,
    })
}

#[derive(Debug)]
enum Source {
    Null,
    Constant(Value),
    /// Computed anew for each row.
    Volatile(Box<Evaluator>),
    Sequence {
        oid: Oid,
        data_type: DataType,
    },
}

/// Fills columns that a statement does not name.
#[derive(Debug)]
pub struct Filler {
    context: Arc<StatementContext>,
    sources: Vec<(usize, Source)>,
}

impl Filler {
    pub fn new(context: &Arc<StatementContext>, table: &TableSchema, positions: &[usize]) -> Result<Self> {
        let mut sources = Vec::with_capacity(positions.len());
        for &at in positions {
            let column = &table.columns[at];
            let default = match &column.default {
                Some(text) => Some(text.clone()),
                None => domain_default(context, &column.data_type),
            };
            let source = if column.generated.is_some() {
                Source::Null
            } else if column.identity.is_some() {
                match identity_sequence(context.root.catalog(), table.oid, column.attnum) {
                    Some(sequence) => Source::Sequence { oid: sequence.oid, data_type: column.data_type.clone() },
                    None => Source::Null,
                }
            } else if let Some(text) = default {
                let expr = stored_default(context, &text, &column.data_type)?;
                match expr {
                    crate::bound::Expr::Const { value, .. } => Source::Constant(value),
                    expr => Source::Volatile(Box::new(Evaluator::new(&expr, &Execution::new(context.clone()), &|_| None)?)),
                }
            } else {
                Source::Null
            };
            sources.push((at, source));
        }
        Ok(Filler { context: context.clone(), sources })
    }

    /// Puts the defaults into a row that has room for them.
    pub fn fill(&self, row: &mut [Value]) -> Result<()> {
        for (at, source) in &self.sources {
            let value = match source {
                Source::Null => Value::Null,
                Source::Constant(value) => value.clone(),
                Source::Volatile(evaluator) => evaluator.value(&crate::exec::evaluator::NoRow)?,
                Source::Sequence { oid, data_type } => {
                    let value = self.context.session.nextval(*oid, &self.context)?;
                    integer(value, data_type)?
                }
            };
            if let Some(slot) = row.get_mut(*at) {
                *slot = value;
            }
        }
        Ok(())
    }
}

fn integer(value: i64, data_type: &DataType) -> Result<Value> {
    let out_of_range = || SqlError::new(ErrorCode::NumericValueOutOfRange, format!("{} out of range", data_type.sql_name()));
    Ok(match data_type.oid {
        21 => Value::Int2(i16::try_from(value).map_err(|_| out_of_range())?),
        23 => Value::Int4(i32::try_from(value).map_err(|_| out_of_range())?),
        _ => Value::Int8(value),
    })
}

pub fn domain_default(context: &StatementContext, data_type: &DataType) -> Option<String> {
    match context.root.catalog().get(data_type.oid).map(|o| &**o) {
        Some(CatalogObject::Type(UserType { definition: TypeDefinition::Domain { default, .. }, .. })) => default.clone(),
        _ => None,
    }
}

/// Generated columns and all conditions on a row of a table.
pub struct Checks {
    context: Arc<StatementContext>,
    table: TableSchema,
    schema_name: String,
    generated: Vec<usize>,
    generated_values: RowExpressions,
    /// Names of the table's own CHECK constraints.
    checks: Vec<String>,
    conditions: RowExpressions,
    /// By the columns that are of a domain.
    domains: Vec<(usize, DomainConditions)>,
}

impl Checks {
    pub fn new(context: &Arc<StatementContext>, table: &TableSchema) -> Result<Self> {
        let generated: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].generated.is_some()).collect();
        let texts: Vec<(&str, Wanted)> = generated
            .iter()
            .map(|at| {
                let column = &table.columns[*at];
                (column.generated.as_deref().unwrap_or_default(), Wanted::Assigned(column.data_type.clone()))
            })
            .collect();
        let generated_values = RowExpressions::stored(context, table, &texts)?;
        let mut checks = Vec::new();
        let mut texts = Vec::new();
        let mut own: Vec<_> = table.constraints.iter().collect();
        // PostgreSQL checks them in the order of their names.
        own.sort_by(|a, b| a.name.cmp(&b.name));
        for constraint in own {
            if let ConstraintKind::Check { expression } = &constraint.kind {
                checks.push(constraint.name.clone());
                texts.push((expression.as_str(), Wanted::Boolean));
            }
        }
        let conditions = RowExpressions::stored(context, table, &texts)?;
        let mut domains = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            domains.extend(DomainConditions::of(context, column.data_type.oid)?.map(|conditions| (at, conditions)));
        }
        Ok(Checks {
            context: context.clone(),
            schema_name: context.root.catalog().schema_name(table.schema_oid).unwrap_or_default().to_owned(),
            table: table.clone(),
            generated,
            generated_values,
            checks,
            conditions,
            domains,
        })
    }

    /// Computes the generated columns.
    pub fn generate(&self, row: &mut Row) -> Result<()> {
        for (i, at) in self.generated.iter().enumerate() {
            let value = self.generated_values.value(i, row)?;
            if let Some(slot) = row.get_mut(*at) {
                *slot = value;
            }
        }
        Ok(())
    }

    /// Checks a new row.
    /// # Errors
    /// `NotNullViolation`, `CheckViolation`, as PostgreSQL words them.
    pub fn check(&self, row: &[Value]) -> Result<()> {
        for (at, conditions) in &self.domains {
            conditions.check(row.get(*at).unwrap_or(&Value::Null))?;
        }
        for (at, column) in self.table.columns.iter().enumerate() {
            if column.not_null && row.get(at).is_none_or(Value::is_null) {
                let mut error = self.located(
                    SqlError::new(
                        ErrorCode::NotNullViolation,
                        format!(
                            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                            column.name, self.table.name
                        ),
                    )
                    .detail(format!("Failing row contains ({}).", self.shown(row)?)),
                );
                error.column = Some(column.name.clone());
                return Err(error);
            }
        }
        for (i, check) in self.checks.iter().enumerate() {
            if matches!(self.conditions.value(i, row)?, Value::Bool(false)) {
                let mut error = self.located(
                    SqlError::new(
                        ErrorCode::CheckViolation,
                        format!("new row for relation \"{}\" violates check constraint \"{check}\"", self.table.name),
                    )
                    .detail(format!("Failing row contains ({}).", self.shown(row)?)),
                );
                error.constraint = Some(check.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Checks a row that ALTER TABLE rewrites: the words are others.
    pub fn check_existing(&self, row: &[Value], table: &TableSchema) -> Result<()> {
        self.check(row).map_err(|mut error| {
            error.detail = None;
            match error.code {
                ErrorCode::NotNullViolation if error.column.is_some() => {
                    error.message = format!(
                        "column \"{}\" of relation \"{}\" contains null values",
                        error.column.as_deref().unwrap_or_default(),
                        table.name
                    );
                }
                ErrorCode::CheckViolation if error.table.is_some() => {
                    error.message = format!(
                        "check constraint \"{}\" of relation \"{}\" is violated by some row",
                        error.constraint.as_deref().unwrap_or_default(),
                        table.name
                    );
                }
                _ => {}
            }
            error
        })
    }

    /// Adds where the error is.
    pub fn located(&self, mut error: SqlError) -> SqlError {
        error.schema = Some(self.schema_name.clone());
        error.table = Some(self.table.name.clone());
        error
    }

    /// The row as errors show it.
    fn shown(&self, row: &[Value]) -> Result<String> {
        let mut shown = String::new();
        for (i, (column, value)) in self.table.columns.iter().zip(row).enumerate() {
            if i > 0 {
                shown.push_str(", ");
            }
            if value.is_null() {
                shown.push_str("null");
                continue;
            }
            let text = casts::output(&self.context, &column.data_type, &Datum::from(value))?;
            if text.len() <= SHOWN_VALUE_BYTES_MAX {
                shown.push_str(&text);
            } else {
                let mut end = SHOWN_VALUE_BYTES_MAX;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                shown.push_str(&text[..end]);
                shown.push_str("...");
            }
        }
        Ok(shown)
    }
}

/// Refuses a value for a column that gives its own.
pub fn refuse_generated(table: &TableSchema, at: usize, updating: bool) -> Result<()> {
    let column = &table.columns[at];
    if column.generated.is_some() {
        return Err(if updating {
            SqlError::new(ErrorCode::GeneratedAlways, format!("column \"{}\" can only be updated to DEFAULT", column.name))
        } else {
            SqlError::new(ErrorCode::GeneratedAlways, format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name))
        }
        .detail(format!("Column \"{}\" is a generated column.", column.name)));
    }
    if column.identity == Some(Identity::Always) {
        let detail = format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name);
        return Err(if updating {
            SqlError::new(ErrorCode::GeneratedAlways, format!("column \"{}\" can only be updated to DEFAULT", column.name)).detail(detail)
        } else {
            SqlError::new(ErrorCode::GeneratedAlways, format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name))
                .detail(detail)
                .hint("Use OVERRIDING SYSTEM VALUE to override.")
        });
    }
    Ok(())
}
