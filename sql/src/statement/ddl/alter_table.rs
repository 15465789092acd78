//! ALTER TABLE, and the few forms of ALTER INDEX, VIEW, SEQUENCE that share its grammar.
//!
//! Subcommands run one after the other on the edit; each reads the table as the ones before left it.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterTableCmd, AlterTableStmt, AlterTableType as T, ColumnDef, DropBehavior, ObjectType};
use strandline_storage::schema::{ConstraintKind, Identity, IndexKey};
use strandline_storage::{Catalog, CatalogObject, Edit, TableSchema, Value};

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::binding::{self, RowExpressions};
use crate::statement::ddl::columns::{self, Owner, new_column};
use crate::statement::ddl::sequence::{self, SequenceOptions};
use crate::statement::ddl::{self, Ddl, constraints, drop, index, owner, rename, view};
use crate::statement::{dml, tree};

/// Returns the command's tag.
pub fn alter(ddl: &Ddl, alter: &AlterTableStmt) -> Result<&'static str> {
    let kind = alter.objtype();
    let tag = match kind {
        ObjectType::ObjectTable => "ALTER TABLE",
        ObjectType::ObjectIndex => "ALTER INDEX",
        ObjectType::ObjectView => "ALTER VIEW",
        ObjectType::ObjectSequence => "ALTER SEQUENCE",
        other => return Err(SqlError::unsupported(format_args!("ALTER {}", ddl::object_word(other)))),
    };
    let (schema, name) = tree::range_name(tree::range(&alter.relation)?);
    let Some(object) = ddl::relation(&ddl.context, schema.as_deref(), &name).cloned() else {
        if alter.missing_ok {
            ddl.notice(NoticeCode::Success, format!("relation \"{name}\" does not exist, skipping"));
            return Ok(tag);
        }
        return Err(ddl::find_table(&ddl.context, schema.as_deref(), &name).err().unwrap_or_else(tree::malformed));
    };
    let commands: Vec<&AlterTableCmd> = alter
        .cmds
        .iter()
        .filter_map(|c| match &c.node {
            Some(NodeEnum::AlterTableCmd(c)) => Some(&**c),
            _ => None,
        })
        .collect();
    let CatalogObject::Table(table) = &*object else {
        // Of other relations only the owner is changed this way.
        for command in commands {
            match command.subtype() {
                T::AtChangeOwner => {
                    let role = command.newowner.as_ref().ok_or_else(tree::malformed)?;
                    owner::change_owner(ddl, &object, role)?;
                }
                _ => {
                    return Err(SqlError::new(
                        ErrorCode::WrongObjectType,
                        format!("ALTER action cannot be performed on relation \"{name}\""),
                    )
                    .detail(format!("This operation is not supported for {}s.", ddl::kind_word(&object))));
                }
            }
        }
        return Ok(tag);
    };
    let oid = table.oid;
    // Adding columns and types first, as PostgreSQL's passes do, does not matter to what is supported; order is as written.
    for command in commands {
        if command.subtype() == T::AtAddConstraint && command.missing_ok {
            return Err(tree::malformed());
        }
        run(ddl, oid, command)?;
    }
    Ok(tag)
}

/// The table and the context as the edit has them now.
fn current(ddl: &Ddl, oid: u32) -> Result<(Arc<StatementContext>, Arc<TableSchema>)> {
    let context = ddl.core.statement_context(Vec::new())?;
    let table = context
        .root
        .catalog()
        .table(oid)
        .cloned()
        .ok_or_else(|| SqlError::new(ErrorCode::UndefinedTable, "the table does not exist any more"))?;
    Ok((context, table))
}

fn column_at(table: &TableSchema, name: &str) -> Result<usize> {
    table.column_index(name).ok_or_else(|| {
        SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{name}\" of relation \"{}\" does not exist", table.name))
    })
}

fn run(ddl: &Ddl, oid: u32, command: &AlterTableCmd) -> Result<()> {
    let (context, table) = current(ddl, oid)?;
    let ddl = &Ddl { core: ddl.core.clone(), context, source: ddl.source.clone() };
    let put = |changed: TableSchema| ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed));
    match command.subtype() {
        T::AtAddColumn => add_column(ddl, &table, command),
        T::AtDropColumn => drop_column(ddl, &table, command),
        T::AtColumnDefault => {
            let at = column_at(&table, &command.name)?;
            let mut changed = (*table).clone();
            if changed.columns[at].identity.is_some() {
                return Err(SqlError::new(
                    ErrorCode::SyntaxError,
                    format!("column \"{}\" of relation \"{}\" is an identity column", command.name, table.name),
                ));
            }
            if changed.columns[at].generated.is_some() {
                return Err(SqlError::new(
                    ErrorCode::SyntaxError,
                    format!("column \"{}\" of relation \"{}\" is a generated column", command.name, table.name),
                ));
            }
            changed.columns[at].default = match command.def.as_deref() {
                Some(expression) => columns::default_text(ddl, expression, &table.columns[at].data_type, &command.name)?,
                None => None,
            };
            put(changed)
        }
        T::AtSetNotNull => {
            let at = column_at(&table, &command.name)?;
            check_no_nulls(ddl, &table, at)?;
            let mut changed = (*table).clone();
            changed.columns[at].not_null = true;
            put(changed)
        }
        T::AtDropNotNull => {
            let at = column_at(&table, &command.name)?;
            if table.key_columns().contains(&at) {
                return Err(SqlError::new(ErrorCode::InvalidTableDefinition, format!("column \"{}\" is in a primary key", command.name)));
            }
            if table.columns[at].identity.is_some() {
                return Err(SqlError::new(
                    ErrorCode::SyntaxError,
                    format!("column \"{}\" of relation \"{}\" is an identity column", command.name, table.name),
                ));
            }
            let mut changed = (*table).clone();
            changed.columns[at].not_null = false;
            put(changed)
        }
        T::AtAlterColumnType => alter_type(ddl, &table, command),
        T::AtAddConstraint => add_constraint(ddl, &table, command),
        T::AtDropConstraint => drop_constraint(ddl, &table, command),
        T::AtValidateConstraint => match constraints::constraint_exists(&table, &command.name) {
            true => Ok(()),
            false => Err(no_constraint(&table, &command.name)),
        },
        T::AtChangeOwner => {
            let role = command.newowner.as_ref().ok_or_else(tree::malformed)?;
            owner::change_owner(ddl, &Arc::new(CatalogObject::Table(table)), role)
        }
        T::AtAddIdentity => add_identity(ddl, &table, command),
        T::AtSetIdentity => set_identity(ddl, &table, command),
        T::AtDropIdentity => drop_identity(ddl, &table, command),
        T::AtDropExpression => {
            let at = column_at(&table, &command.name)?;
            let mut changed = (*table).clone();
            if changed.columns[at].generated.take().is_none() && !command.missing_ok {
                return Err(SqlError::new(
                    ErrorCode::ObjectNotInPrerequisiteState,
                    format!("column \"{}\" of relation \"{}\" is not a stored generated column", command.name, table.name),
                ));
            }
            put(changed)
        }
        // Statistics targets steer PostgreSQL's planner only; ours has exact counts.
        T::AtSetStatistics => column_at(&table, &command.name).map(|_| ()),
        // Commits here always carry whole old rows, so every setting is honoured.
        T::AtReplicaIdentity => Ok(()),
        // Rows are kept in the primary key's order already; the mark chooses an order for CLUSTER, which does not exist.
        T::AtDropCluster => Ok(()),
        other => Err(SqlError::unsupported(format_args!("ALTER TABLE {}", action_words(other)))),
    }
}

fn action_words(action: T) -> String {
    let debug = format!("{action:?}");
    let mut words = String::new();
    for c in debug.trim_start_matches("At").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_uppercase());
    }
    words
}

fn definition(command: &AlterTableCmd) -> Result<&ColumnDef> {
    match command.def.as_deref().and_then(|d| d.node.as_ref()) {
        Some(NodeEnum::ColumnDef(definition)) => Ok(definition),
        _ => Err(tree::malformed()),
    }
}

fn name_taken(catalog: &Arc<Catalog>, schema_oid: u32) -> impl Fn(&str) -> bool + use<> {
    let catalog = catalog.clone();
    move |name: &str| ddl::relation_name_taken(&catalog, schema_oid, name)
}

fn owner_of(ddl: &Ddl, table: &TableSchema) -> Owner {
    Owner {
        table_oid: table.oid,
        table: table.name.clone(),
        schema_oid: table.schema_oid,
        schema: ddl.catalog().schema_name(table.schema_oid).unwrap_or_default().to_owned(),
    }
}

fn add_column(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let definition = definition(command)?;
    if table.column_index(&definition.colname).is_some() {
        if command.missing_ok {
            ddl.notice(
                NoticeCode::DuplicateColumn,
                format!("column \"{}\" of relation \"{}\" already exists, skipping", definition.colname, table.name),
            );
            return Ok(());
        }
        return Err(SqlError::new(
            ErrorCode::DuplicateColumn,
            format!("column \"{}\" of relation \"{}\" already exists", definition.colname, table.name),
        ));
    }
    let made = new_column(ddl, definition, table.next_attnum, &owner_of(ddl, table), &name_taken(ddl.catalog(), table.schema_oid))?;
    let mut changed = table.clone();
    changed.next_attnum += 1;
    changed.columns.push(made.column.clone());
    let catalog = ddl.catalog().clone();
    for constraint in &made.constraints {
        constraints::add(ddl, &catalog, &mut changed, constraint, Some(&definition.colname))?;
    }
    binding::check_generated(&ddl.context, &changed)?;
    let sequence = made.sequence.clone();
    // The sequence has to be there before a default can call it.
    if let Some(sequence) = sequence {
        ddl.core.with_edit("ALTER TABLE", |edit| Ok(edit.put_object(CatalogObject::Sequence(sequence))?))?;
    }
    let context = ddl.core.statement_context(Vec::new())?;
    let at = changed.columns.len() - 1;
    let fill = dml::Filler::new(&context, &changed, &[at])?;
    rewrite(ddl, table, changed, &mut |mut row| {
        row.push(Value::Null);
        fill.fill(&mut row)?;
        Ok(row)
    })
}

/// Rewrites a table's rows; the new rows are checked like inserted ones.
fn rewrite(ddl: &Ddl, old: &TableSchema, new: TableSchema, convert: &mut dyn FnMut(Vec<Value>) -> Result<Vec<Value>>) -> Result<()> {
    let context = ddl.core.statement_context(Vec::new())?;
    let checks = dml::Checks::new(&context, &new)?;
    let mut failure = None;
    let schema = new.clone();
    ddl.core.with_edit("ALTER TABLE", |edit| {
        let result = edit.rewrite_table(new, &mut |row| {
            let converted = context.check_cancel().and_then(|()| convert(row)).and_then(|row| {
                checks.check_existing(&row, &schema)?;
                Ok(row)
            });
            converted.map_err(|error| {
                let stopped = strandline_storage::Error::Invalid(error.message.clone());
                failure = Some(error);
                stopped
            })
        });
        match (result, failure.take()) {
            (Err(_), Some(error)) => Err(error),
            (result, _) => result.map_err(|e| index::could_not_create(e.into())),
        }
    })?;
    let _ = old;
    Ok(())
}

/// Removes a column's position from keys, indexes and constraints; those that lose a column go.
fn without_column(table: &TableSchema, at: usize) -> TableSchema {
    let mut changed = table.clone();
    changed.columns.remove(at);
    let shift = |position: usize| if position > at { position - 1 } else { position };
    let names = |text: &String| rename::names_column(text, &table.columns[at].name);
    let uses = |index: &strandline_storage::schema::Index| {
        let keyed = index.columns.iter().any(|c| match &c.key {
            IndexKey::Column(position) => *position == at,
            IndexKey::Expression(text) => names(text),
        });
        keyed || index.include.contains(&at) || index.predicate.as_ref().is_some_and(names)
    };
    if changed.primary_key.as_ref().is_some_and(&uses) {
        changed.primary_key = None;
    }
    changed.indexes.retain(|i| !uses(i));
    for index in changed.primary_key.iter_mut().chain(&mut changed.indexes) {
        for column in &mut index.columns {
            if let IndexKey::Column(position) = &mut column.key {
                *position = shift(*position);
            }
        }
        index.include = index.include.iter().map(|c| shift(*c)).collect();
    }
    changed.constraints.retain(|c| match &c.kind {
        _ if c.columns.contains(&at) => false,
        ConstraintKind::Check { expression } => !names(expression),
        ConstraintKind::ForeignKey { table: target, columns } => *target != table.oid || !columns.contains(&at),
    });
    for constraint in &mut changed.constraints {
        constraint.columns = constraint.columns.iter().map(|c| shift(*c)).collect();
        if let ConstraintKind::ForeignKey { table: target, columns } = &mut constraint.kind
            && *target == table.oid
        {
            *columns = columns.iter().map(|c| shift(*c)).collect();
        }
    }
    changed
}

fn drop_column(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let Some(at) = table.column_index(&command.name) else {
        if command.missing_ok {
            ddl.notice(NoticeCode::Success, format!("column \"{}\" of relation \"{}\" does not exist, skipping", command.name, table.name));
            return Ok(());
        }
        return column_at(table, &command.name).map(|_| ());
    };
    let cascade = command.behavior() == DropBehavior::DropCascade;
    drop::drop_column(ddl, table.oid, table.columns[at].attnum, cascade)
}

/// Takes a column out of its table: its values, its sequence, and what indexes, checks and keys have of it.
pub(super) fn remove_column(edit: &mut Edit, oid: u32, attnum: i16) -> Result<()> {
    let Some(table) = edit.table_schema(oid).map(|t| (**t).clone()) else { return Ok(()) };
    let Some(at) = table.columns.iter().position(|c| c.attnum == attnum) else { return Ok(()) };
    let changed = without_column(&table, at);
    // Positions that other tables' foreign keys hold move down with the columns.
    shift_referring(edit, oid, at)?;
    edit.rewrite_table(changed, &mut |mut row| {
        if at < row.len() {
            row.remove(at);
        }
        Ok(row)
    })?;
    drop_owned_sequences(edit, oid, attnum)
}

fn shift_referring(edit: &mut Edit, target: u32, at: usize) -> Result<()> {
    let catalog = edit.root().catalog().clone();
    for other in catalog.tables().filter(|t| t.oid != target) {
        let mut changed = (**other).clone();
        let mut touched = false;
        for constraint in &mut changed.constraints {
            if let ConstraintKind::ForeignKey { table, columns } = &mut constraint.kind
                && *table == target
            {
                for column in columns.iter_mut().filter(|c| **c > at) {
                    *column -= 1;
                    touched = true;
                }
            }
        }
        if touched {
            edit.put_table(changed)?;
        }
    }
    Ok(())
}

fn drop_owned_sequences(edit: &mut Edit, table: u32, attnum: i16) -> Result<()> {
    let catalog = edit.root().catalog().clone();
    for object in catalog.objects.values() {
        if let CatalogObject::Sequence(sequence) = &**object
            && sequence.owned_by == Some((table, attnum))
        {
            edit.drop_object(sequence.oid)?;
        }
    }
    Ok(())
}

fn alter_type(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let at = column_at(table, &command.name)?;
    let definition = definition(command)?;
    let type_name = definition.type_name.as_ref().ok_or_else(tree::malformed)?;
    let data_type = binding::data_type(&ddl.context, &ddl.source, type_name)?;
    if let Some(generated) = drop::generated_from(table, &command.name).next() {
        let message = "cannot alter type of a column used by a generated column";
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, message)
            .detail(format!("Column \"{}\" is used by generated column \"{}\".", command.name, generated.name)));
    }
    if let Some(view) = view::using_column(&ddl.context, table.oid, table.columns[at].attnum).first() {
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, "cannot alter type of a column used by a view or rule")
            .detail(format!("rule _RETURN on view {} depends on column \"{}\"", view.name, command.name)));
    }
    let mut changed = table.clone();
    changed.columns[at].data_type = data_type.clone();
    let using = match definition.raw_default.as_deref() {
        Some(expression) => binding::conversion(&ddl.context, &ddl.source, Some(expression), table, at, &data_type)?,
        None => binding::conversion(&ddl.context, &ddl.source, None, table, at, &data_type)?,
    };
    if let Some(default) = &changed.columns[at].default {
        // The default has to fit the new type, too.
        binding::check_stored_default(&ddl.context, default, &data_type, &command.name)?;
    }
    rewrite(ddl, table, changed, &mut |mut row| {
        let value = using.value(0, &row)?;
        if let Some(slot) = row.get_mut(at) {
            *slot = value;
        }
        Ok(row)
    })
}

fn add_constraint(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let Some(NodeEnum::Constraint(constraint)) = command.def.as_deref().and_then(|d| d.node.as_ref()) else {
        return Err(tree::malformed());
    };
    let mut changed = table.clone();
    constraints::add(ddl, &ddl.catalog().clone(), &mut changed, constraint, None)?;
    for at in 0..table.columns.len() {
        if changed.columns[at].not_null && !table.columns[at].not_null {
            check_no_nulls(ddl, table, at)?;
        }
    }
    if changed.constraints.len() > table.constraints.len() && !constraint.skip_validation {
        validate_last(ddl, &changed)?;
    }
    if changed.primary_key.is_some() != table.primary_key.is_some() {
        // The key decides where rows are.
        return ddl
            .core
            .with_edit("ALTER TABLE", |edit| edit.rewrite_table(changed, &mut Ok).map_err(|e| index::could_not_create(e.into())));
    }
    ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed).map_err(index::could_not_create))
}

/// The rows that are there must meet a constraint that is added.
fn validate_last(ddl: &Ddl, table: &TableSchema) -> Result<()> {
    let Some(constraint) = table.constraints.last() else { return Ok(()) };
    let Some(data) = ddl.context.root.table(table.oid) else { return Ok(()) };
    match &constraint.kind {
        ConstraintKind::Check { expression } => {
            let check = RowExpressions::stored(&ddl.context, table, &[(expression.as_str(), binding::Wanted::Boolean)])?;
            let mut cursor = data.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
            while let Some((_, row)) = cursor.next_row()? {
                if matches!(check.value(0, &row)?, Value::Bool(false)) {
                    let mut error = SqlError::new(
                        ErrorCode::CheckViolation,
                        format!("check constraint \"{}\" of relation \"{}\" is violated by some row", constraint.name, table.name),
                    );
                    error.table = Some(table.name.clone());
                    error.constraint = Some(constraint.name.clone());
                    return Err(error);
                }
            }
            Ok(())
        }
        ConstraintKind::ForeignKey { .. } => dml::foreign_keys::validate(&ddl.context, table, constraint),
    }
}

fn check_no_nulls(ddl: &Ddl, table: &TableSchema, at: usize) -> Result<()> {
    let Some(data) = ddl.context.root.table(table.oid) else { return Ok(()) };
    let mut cursor = data.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    while let Some((_, row)) = cursor.next_row()? {
        if row.get(at).is_none_or(Value::is_null) {
            let name = &table.columns[at].name;
            let mut error = SqlError::new(
                ErrorCode::NotNullViolation,
                format!("column \"{name}\" of relation \"{}\" contains null values", table.name),
            );
            error.table = Some(table.name.clone());
            error.column = Some(name.clone());
            return Err(error);
        }
    }
    Ok(())
}

fn no_constraint(table: &TableSchema, name: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name))
}

/// Foreign keys need the key that they refer to: without CASCADE it stays, with it they go.
fn release_references(ddl: &Ddl, table: &TableSchema, key: &strandline_storage::schema::Index, cascade: bool) -> Result<()> {
    let columns: std::collections::BTreeSet<usize> = key
        .columns
        .iter()
        .filter_map(|c| match c.key {
            IndexKey::Column(at) => Some(at),
            IndexKey::Expression(_) => None,
        })
        .collect();
    let refers = |c: &strandline_storage::schema::Constraint| {
        matches!(&c.kind, ConstraintKind::ForeignKey { table: target, columns: theirs }
            if *target == table.oid && theirs.iter().copied().collect::<std::collections::BTreeSet<_>>() == columns)
    };
    let referring: Vec<Arc<TableSchema>> = ddl.catalog().tables().filter(|t| t.constraints.iter().any(refers)).cloned().collect();
    let described: Vec<String> = referring
        .iter()
        .flat_map(|t| t.constraints.iter().filter(|c| refers(c)).map(|c| format!("constraint {} on table {}", c.name, t.name)))
        .collect();
    if described.is_empty() {
        return Ok(());
    }
    if !cascade {
        let lines: Vec<String> = described.iter().map(|d| format!("{d} depends on index {}", key.name)).collect();
        return Err(SqlError::new(
            ErrorCode::DependentObjectsStillExist,
            format!("cannot drop constraint {} on table {} because other objects depend on it", key.name, table.name),
        )
        .detail(lines.join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    drop::notice_cascade(ddl, &described);
    ddl.core.with_edit("ALTER TABLE", |edit| {
        for other in referring {
            let mut other = (*other).clone();
            other.constraints.retain(|c| !refers(c));
            edit.put_table(other)?;
        }
        Ok(())
    })
}

fn drop_constraint(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let name = &command.name;
    if !constraints::constraint_exists(table, name) {
        if command.missing_ok {
            ddl.notice(NoticeCode::Success, format!("constraint \"{name}\" of relation \"{}\" does not exist, skipping", table.name));
            return Ok(());
        }
        return Err(no_constraint(table, name));
    }
    let key = table.primary_key.iter().chain(table.indexes.iter().filter(|i| i.constraint)).find(|i| i.name == *name);
    if let Some(key) = key {
        release_references(ddl, table, key, command.behavior() == DropBehavior::DropCascade)?;
    }
    if table.primary_key.as_ref().is_some_and(|k| k.name == *name) {
        // A self-reference may have gone just now.
        let mut changed = current(ddl, table.oid)?.1.as_ref().clone();
        changed.primary_key = None;
        return ddl.core.with_edit("ALTER TABLE", |edit| Ok(edit.rewrite_table(changed, &mut Ok)?));
    }
    let mut changed = current(ddl, table.oid)?.1.as_ref().clone();
    changed.constraints.retain(|c| c.name != *name);
    changed.indexes.retain(|i| !(i.constraint && i.name == *name));
    ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed))
}

fn add_identity(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let at = column_at(table, &command.name)?;
    let Some(NodeEnum::Constraint(constraint)) = command.def.as_deref().and_then(|d| d.node.as_ref()) else {
        return Err(tree::malformed());
    };
    let column = &table.columns[at];
    if !column.not_null {
        return Err(SqlError::new(
            ErrorCode::ObjectNotInPrerequisiteState,
            format!("column \"{}\" of relation \"{}\" must be declared NOT NULL before identity can be added", column.name, table.name),
        ));
    }
    if column.identity.is_some() {
        return Err(SqlError::new(
            ErrorCode::ObjectNotInPrerequisiteState,
            format!("column \"{}\" of relation \"{}\" is already an identity column", column.name, table.name),
        ));
    }
    if column.default.is_some() {
        return Err(SqlError::new(
            ErrorCode::ObjectNotInPrerequisiteState,
            format!("column \"{}\" of relation \"{}\" already has a default value", column.name, table.name),
        ));
    }
    let sequence =
        columns::identity_sequence(ddl, &owner_of(ddl, table), column, &constraint.options, &name_taken(ddl.catalog(), table.schema_oid))?;
    let mut changed = table.clone();
    changed.columns[at].identity = Some(if constraint.generated_when == "a" { Identity::Always } else { Identity::ByDefault });
    ddl.core.with_edit("ALTER TABLE", |edit| {
        edit.put_object(CatalogObject::Sequence(sequence))?;
        ddl::put_table(edit, changed)
    })
}

fn identity_of(ddl: &Ddl, table: &TableSchema, at: usize) -> Option<strandline_storage::schema::Sequence> {
    dml::identity_sequence(ddl.catalog(), table.oid, table.columns[at].attnum)
}

fn not_identity(table: &TableSchema, column: &str) -> SqlError {
    SqlError::new(
        ErrorCode::ObjectNotInPrerequisiteState,
        format!("column \"{column}\" of relation \"{}\" is not an identity column", table.name),
    )
}

fn set_identity(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let at = column_at(table, &command.name)?;
    if table.columns[at].identity.is_none() {
        return Err(not_identity(table, &command.name));
    }
    let Some(NodeEnum::List(options)) = command.def.as_deref().and_then(|d| d.node.as_ref()) else {
        return Err(tree::malformed());
    };
    let mut changed = table.clone();
    let mut rest = Vec::new();
    for node in &options.items {
        match &node.node {
            Some(NodeEnum::DefElem(option)) if option.defname == "generated" => {
                // The argument is the character 'a' or 'd' as an integer.
                let always = tree::def_int(option).ok() == Some(i64::from(b'a'));
                changed.columns[at].identity = Some(if always { Identity::Always } else { Identity::ByDefault });
            }
            _ => rest.push(node.clone()),
        }
    }
    if !rest.is_empty() {
        let sequence = identity_of(ddl, table, at).ok_or_else(|| not_identity(table, &command.name))?;
        sequence::change(ddl, sequence, &SequenceOptions::read(&rest)?)?;
    }
    ddl.core.with_edit("ALTER TABLE", |edit| ddl::put_table(edit, changed))
}

fn drop_identity(ddl: &Ddl, table: &TableSchema, command: &AlterTableCmd) -> Result<()> {
    let at = column_at(table, &command.name)?;
    let mut changed = table.clone();
    if changed.columns[at].identity.take().is_none() {
        if command.missing_ok {
            ddl.notice(
                NoticeCode::Success,
                format!("column \"{}\" of relation \"{}\" is not an identity column, skipping", command.name, table.name),
            );
            return Ok(());
        }
        return Err(not_identity(table, &command.name));
    }
    let attnum = table.columns[at].attnum;
    ddl.core.with_edit("ALTER TABLE", |edit| {
        ddl::put_table(edit, changed)?;
        drop_owned_sequences(edit, table.oid, attnum)
    })
}
