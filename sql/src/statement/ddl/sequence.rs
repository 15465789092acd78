//! CREATE SEQUENCE, ALTER SEQUENCE and the options they share with identity columns.

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterSeqStmt, CreateSeqStmt, Node};
use strandline_storage::schema::Sequence;
use strandline_storage::{CatalogObject, DataType, Oid};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::{NoticeCode, SequenceState};
use crate::statement::ddl::{self, Ddl};
use crate::statement::{binding, tree};

/// The options of a sequence, as written.
#[derive(Default)]
pub struct SequenceOptions {
    data_type: Option<pg_query::protobuf::TypeName>,
    start: Option<i64>,
    increment: Option<i64>,
    /// `Some(None)`: NO MINVALUE.
    min: Option<Option<i64>>,
    max: Option<Option<i64>>,
    cache: Option<i64>,
    cycle: Option<bool>,
    /// `Some(None)`: OWNED BY NONE.
    owned_by: Option<Option<Vec<String>>>,
    /// `Some(None)`: RESTART without a value.
    pub restart: Option<Option<i64>>,
}

impl SequenceOptions {
    pub fn read(nodes: &[Node]) -> Result<Self> {
        let mut options = SequenceOptions::default();
        for option in tree::def_elems(nodes) {
            match option.defname.as_str() {
                "as" => match option.arg.as_deref().and_then(|a| a.node.as_ref()) {
                    Some(NodeEnum::TypeName(name)) => options.data_type = Some(name.clone()),
                    _ => return Err(tree::malformed()),
                },
                "start" => options.start = Some(tree::def_int(option)?),
                "increment" => options.increment = Some(tree::def_int(option)?),
                "minvalue" => options.min = Some(option.arg.as_ref().map(|_| tree::def_int(option)).transpose()?),
                "maxvalue" => options.max = Some(option.arg.as_ref().map(|_| tree::def_int(option)).transpose()?),
                "cache" => options.cache = Some(tree::def_int(option)?),
                "cycle" => options.cycle = Some(tree::def_bool(option)?),
                "restart" => options.restart = Some(option.arg.as_ref().map(|_| tree::def_int(option)).transpose()?),
                "owned_by" => {
                    let names = match option.arg.as_deref().and_then(|a| a.node.as_ref()) {
                        Some(NodeEnum::List(list)) => tree::strings(&list.items),
                        _ => return Err(tree::malformed()),
                    };
                    options.owned_by = Some(if names == ["none"] { None } else { Some(names) });
                }
                // Where the sequence of an identity column is made; its reader looks for it itself.
                "sequence_name" => {}
                "logged" => {}
                other => return Err(SqlError::unsupported(format_args!("sequence option \"{other}\""))),
            }
        }
        Ok(options)
    }

    /// Puts the options into a sequence and checks it as a whole. `new`: bounds and start that are not given are made.
    pub fn apply(&self, sequence: &mut Sequence, new: bool) -> Result<()> {
        let invalid = |message: String| SqlError::new(ErrorCode::InvalidParameterValue, message);
        if let Some(increment) = self.increment {
            if increment == 0 {
                return Err(invalid("INCREMENT must not be zero".into()));
            }
            sequence.increment = increment;
        }
        let ascending = sequence.increment > 0;
        let (type_min, type_max) = bounds(&sequence.data_type);
        match self.max {
            Some(Some(max)) => sequence.max = max,
            Some(None) => sequence.max = if ascending { type_max } else { -1 },
            None if new => sequence.max = if ascending { type_max } else { -1 },
            None => {}
        }
        match self.min {
            Some(Some(min)) => sequence.min = min,
            Some(None) => sequence.min = if ascending { 1 } else { type_min },
            None if new => sequence.min = if ascending { 1 } else { type_min },
            None => {}
        }
        let type_name = sequence.data_type.sql_name();
        if sequence.max > type_max {
            return Err(invalid(format!("MAXVALUE ({}) is out of range for sequence data type {type_name}", sequence.max)));
        }
        if sequence.min < type_min {
            return Err(invalid(format!("MINVALUE ({}) is out of range for sequence data type {type_name}", sequence.min)));
        }
        if sequence.min >= sequence.max {
            return Err(invalid(format!("MINVALUE ({}) must be less than MAXVALUE ({})", sequence.min, sequence.max)));
        }
        match self.start {
            Some(start) => sequence.start = start,
            None if new => sequence.start = if ascending { sequence.min } else { sequence.max },
            None => {}
        }
        if sequence.start < sequence.min {
            return Err(invalid(format!("START value ({}) cannot be less than MINVALUE ({})", sequence.start, sequence.min)));
        }
        if sequence.start > sequence.max {
            return Err(invalid(format!("START value ({}) cannot be greater than MAXVALUE ({})", sequence.start, sequence.max)));
        }
        if let Some(cache) = self.cache {
            if cache < 1 {
                return Err(invalid(format!("CACHE ({cache}) must be greater than zero")));
            }
            sequence.cache = cache;
        }
        if let Some(cycle) = self.cycle {
            sequence.cycle = cycle;
        }
        Ok(())
    }
}

fn bounds(data_type: &DataType) -> (i64, i64) {
    match data_type.oid {
        21 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        23 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

/// A sequence with the defaults of its type.
pub fn sequence_of_type(oid: Oid, schema_oid: Oid, name: &str, owner: &str, data_type: DataType) -> Sequence {
    let (_, max) = bounds(&data_type);
    Sequence {
        oid,
        schema_oid,
        name: name.into(),
        owner: owner.into(),
        data_type,
        start: 1,
        increment: 1,
        min: 1,
        max,
        cache: 1,
        cycle: false,
        owned_by: None,
    }
}

fn int8() -> Result<DataType> {
    DataType::builtin(crate::types::oid::INT8, -1).ok_or_else(tree::malformed)
}

fn sequence_type(ddl: &Ddl, options: &SequenceOptions) -> Result<Option<DataType>> {
    let Some(name) = &options.data_type else { return Ok(None) };
    let data_type = binding::data_type(&ddl.context, &ddl.source, name)?;
    if !matches!(data_type.oid, 20 | 21 | 23) {
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, "sequence type must be smallint, integer, or bigint"));
    }
    Ok(Some(data_type))
}

/// Resolves OWNED BY.
fn owned_by(ddl: &Ddl, names: &[String]) -> Result<(Oid, i16)> {
    let Some((column, table)) = names.split_last() else { return Err(tree::malformed()) };
    if table.is_empty() {
        return Err(
            SqlError::new(ErrorCode::SyntaxError, "invalid OWNED BY option").hint("Specify OWNED BY table.column or OWNED BY NONE.")
        );
    }
    let (schema, name) = tree::split_name(table.to_vec())?;
    let table = ddl::find_table(&ddl.context, schema.as_deref(), &name)?;
    let column = table.columns.iter().find(|c| c.name == *column).ok_or_else(|| {
        SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{column}\" of relation \"{}\" does not exist", table.name))
    })?;
    Ok((table.oid, column.attnum))
}

pub fn create(ddl: &Ddl, create: &CreateSeqStmt) -> Result<()> {
    let range = tree::range(&create.sequence)?;
    let (schema, name) = tree::range_name(range);
    let (schema_oid, _) = ddl::creation_schema(&ddl.context, schema.as_deref())?;
    if ddl::relation_name_taken(ddl.catalog(), schema_oid, &name) && create.if_not_exists {
        ddl.notice(NoticeCode::DuplicateTable, format!("relation \"{name}\" already exists, skipping"));
        return Ok(());
    }
    ddl::check_relation_name(ddl.catalog(), schema_oid, &name)?;
    let options = SequenceOptions::read(&create.options)?;
    let data_type = match sequence_type(ddl, &options)? {
        Some(data_type) => data_type,
        None => int8()?,
    };
    let mut sequence = sequence_of_type(ddl.oid()?, schema_oid, &name, ddl.user(), data_type);
    options.apply(&mut sequence, true)?;
    if let Some(Some(names)) = &options.owned_by {
        sequence.owned_by = Some(owned_by(ddl, names)?);
    }
    ddl.core.with_edit("CREATE SEQUENCE", |edit| Ok(edit.put_object(CatalogObject::Sequence(sequence))?))
}

pub fn alter(ddl: &Ddl, alter: &AlterSeqStmt) -> Result<()> {
    let (schema, name) = tree::range_name(tree::range(&alter.sequence)?);
    if alter.missing_ok && ddl::relation(&ddl.context, schema.as_deref(), &name).is_none() {
        ddl.notice(NoticeCode::Success, format!("relation \"{name}\" does not exist, skipping"));
        return Ok(());
    }
    let sequence = ddl::find_sequence(&ddl.context, schema.as_deref(), &name)?;
    change(ddl, sequence, &SequenceOptions::read(&alter.options)?)
}

/// Changes a sequence by options; RESTART takes effect at once and for all branches.
pub fn change(ddl: &Ddl, mut sequence: Sequence, options: &SequenceOptions) -> Result<()> {
    if let Some(data_type) = sequence_type(ddl, options)? {
        // Bounds at the old type's limits follow the new type.
        let (old_min, old_max) = bounds(&sequence.data_type);
        let (new_min, new_max) = bounds(&data_type);
        if sequence.max == old_max {
            sequence.max = new_max;
        }
        if sequence.min == old_min {
            sequence.min = new_min;
        }
        sequence.data_type = data_type;
    }
    options.apply(&mut sequence, false)?;
    match &options.owned_by {
        Some(Some(names)) => sequence.owned_by = Some(owned_by(ddl, names)?),
        Some(None) => sequence.owned_by = None,
        None => {}
    }
    if let Some(restart) = options.restart {
        let value = restart.unwrap_or(sequence.start);
        ddl.core.engine.sequences.set(&sequence, SequenceState { last_value: value, is_called: false }).map_err(|_| {
            SqlError::new(
                ErrorCode::InvalidParameterValue,
                if value < sequence.min {
                    format!("RESTART value ({value}) cannot be less than MINVALUE ({})", sequence.min)
                } else {
                    format!("RESTART value ({value}) cannot be greater than MAXVALUE ({})", sequence.max)
                },
            )
        })?;
    }
    ddl.core.with_edit("ALTER SEQUENCE", |edit| Ok(edit.put_object(CatalogObject::Sequence(sequence))?))
}
