//! CREATE TABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::{Constraint, CreateStmt, OnCommitAction, TableLikeClause};
use strandline_storage::schema::{Column, ConstraintKind, Sequence};
use strandline_storage::{CatalogObject, Oid, TableSchema};

use crate::error::{ErrorCode, Result, SqlError};
use crate::session::NoticeCode;
use crate::statement::binding;
use crate::statement::ddl::columns::{Owner, identity_sequence, new_column};
use crate::statement::ddl::{self, Ddl, constraints};
use crate::statement::tree;

/// Bits of LIKE's INCLUDING options (parsenodes.h, TableLikeOption).
const LIKE_COMMENTS: u32 = 1 << 0;
const LIKE_CONSTRAINTS: u32 = 1 << 2;
const LIKE_DEFAULTS: u32 = 1 << 3;
const LIKE_GENERATED: u32 = 1 << 4;
const LIKE_IDENTITY: u32 = 1 << 5;
const LIKE_INDEXES: u32 = 1 << 6;

/// Columns of a table; PostgreSQL's MaxHeapAttributeNumber.
pub const COLUMNS_MAX: usize = 1600;

pub fn create(ddl: &Ddl, create: &CreateStmt) -> Result<()> {
    let range = tree::range(&create.relation)?;
    match range.relpersistence.as_str() {
        "t" => return Err(SqlError::unsupported("a temporary table")),
        "u" => return Err(SqlError::unsupported("an unlogged table")),
        _ => {}
    }
    if !create.inh_relations.is_empty() {
        return Err(SqlError::unsupported("table inheritance"));
    }
    if create.partspec.is_some() || create.partbound.is_some() {
        return Err(SqlError::unsupported("a partitioned table"));
    }
    if create.of_typename.is_some() {
        return Err(SqlError::unsupported("a typed table"));
    }
    if !matches!(create.oncommit(), OnCommitAction::OncommitNoop | OnCommitAction::Undefined) {
        return Err(SqlError::new(ErrorCode::InvalidTableDefinition, "ON COMMIT can only be used on temporary tables"));
    }
    if !create.tablespacename.is_empty() && create.tablespacename != "pg_default" {
        return Err(SqlError::unsupported("a tablespace"));
    }
    if !create.access_method.is_empty() && create.access_method != "heap" {
        return Err(SqlError::unsupported(format_args!("table access method \"{}\"", create.access_method)));
    }
    check_storage_hints(&create.options)?;
    let (schema, name) = tree::range_name(range);
    let (schema_oid, schema_name) = ddl::creation_schema(&ddl.context, schema.as_deref())?;
    ddl::check_not_reserved(&name)?;
    if ddl::relation_name_taken(ddl.catalog(), schema_oid, &name) {
        if create.if_not_exists {
            ddl.notice(NoticeCode::DuplicateTable, format!("relation \"{name}\" already exists, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(ErrorCode::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    let mut builder = Builder::new(ddl, schema_oid, &schema_name, &name)?;
    for element in &create.table_elts {
        match &element.node {
            Some(NodeEnum::ColumnDef(definition)) => {
                let owner = builder.owner();
                let taken = builder.name_taken();
                let made = new_column(ddl, definition, builder.table.next_attnum, &owner, &taken)?;
                builder.push_column(made.column)?;
                builder.sequences.extend(made.sequence);
                let column = definition.colname.clone();
                builder.constraints.extend(made.constraints.into_iter().map(|c| (c, Some(column.clone()))));
            }
            Some(NodeEnum::Constraint(constraint)) => builder.constraints.push(((**constraint).clone(), None)),
            Some(NodeEnum::TableLikeClause(like)) => builder.like(like)?,
            _ => return Err(tree::malformed()),
        }
    }
    builder.constraints.extend(create.constraints.iter().filter_map(|c| match &c.node {
        Some(NodeEnum::Constraint(c)) => Some(((**c).clone(), None)),
        _ => None,
    }));
    builder.finish()
}

/// Storage parameters steer how PostgreSQL's heap and indexes use their pages; no answer depends on them, so they are taken and
/// have nothing to steer here. Others are refused.
pub fn check_storage_hints(options: &[pg_query::protobuf::Node]) -> Result<()> {
    const HINTS: &[&str] = &["fillfactor", "parallel_workers", "toast_tuple_target", "deduplicate_items", "fastupdate", "buffering"];
    for option in tree::def_elems(options) {
        let name = option.defname.as_str();
        let is_hint = HINTS.contains(&name) || name.starts_with("autovacuum_") || option.defnamespace == "toast";
        if !is_hint {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("unrecognized parameter \"{name}\"")));
        }
    }
    Ok(())
}

/// A table under construction.
pub struct Builder<'a> {
    ddl: &'a Ddl,
    schema_name: String,
    pub table: TableSchema,
    pub sequences: Vec<Sequence>,
    pub constraints: Vec<(Constraint, Option<String>)>,
}

impl<'a> Builder<'a> {
    pub fn new(ddl: &'a Ddl, schema_oid: Oid, schema_name: &str, name: &str) -> Result<Self> {
        Ok(Builder {
            ddl,
            schema_name: schema_name.into(),
            table: TableSchema {
                oid: ddl.oid()?,
                schema_oid,
                name: name.into(),
                owner: ddl.user().into(),
                columns: Vec::new(),
                next_attnum: 1,
                primary_key: None,
                indexes: Vec::new(),
                constraints: Vec::new(),
                merged_columns: Vec::new(),
                comment: None,
            },
            sequences: Vec::new(),
            constraints: Vec::new(),
        })
    }

    fn owner(&self) -> Owner {
        Owner {
            table_oid: self.table.oid,
            table: self.table.name.clone(),
            schema_oid: self.table.schema_oid,
            schema: self.schema_name.clone(),
        }
    }

    fn name_taken(&self) -> impl Fn(&str) -> bool + use<> {
        let catalog = self.ddl.catalog().clone();
        let schema_oid = self.table.schema_oid;
        let mine: Vec<String> = self.sequences.iter().map(|s| s.name.clone()).chain([self.table.name.clone()]).collect();
        move |name| mine.iter().any(|m| m == name) || ddl::relation_name_taken(&catalog, schema_oid, name)
    }

    pub fn push_column(&mut self, column: Column) -> Result<()> {
        if self.table.column_index(&column.name).is_some() {
            return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column \"{}\" specified more than once", column.name)));
        }
        if self.table.columns.len() >= COLUMNS_MAX {
            return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, format!("tables can have at most {COLUMNS_MAX} columns")));
        }
        self.table.next_attnum += 1;
        self.table.columns.push(column);
        Ok(())
    }

    /// LIKE source INCLUDING ...
    fn like(&mut self, like: &TableLikeClause) -> Result<()> {
        let (schema, name) = tree::range_name(tree::range(&like.relation)?);
        let source = ddl::find_table(&self.ddl.context, schema.as_deref(), &name)?;
        let has = |bit: u32| like.options & bit != 0;
        let mut map = Vec::new();
        for column in &source.columns {
            let mut copy = Column {
                attnum: self.table.next_attnum,
                default: if has(LIKE_DEFAULTS) { column.default.clone() } else { None },
                generated: if has(LIKE_GENERATED) { column.generated.clone() } else { None },
                identity: None,
                comment: if has(LIKE_COMMENTS) { column.comment.clone() } else { None },
                ..column.clone()
            };
            if has(LIKE_IDENTITY) && column.identity.is_some() {
                let sequence = identity_sequence(self.ddl, &self.owner(), &copy, &[], &self.name_taken())?;
                copy.identity = column.identity;
                self.sequences.push(sequence);
            }
            map.push(self.table.columns.len());
            self.push_column(copy)?;
        }
        if has(LIKE_CONSTRAINTS) {
            for constraint in &source.constraints {
                if let ConstraintKind::Check { .. } = constraint.kind {
                    let mut copy = constraint.clone();
                    copy.oid = self.ddl.oid()?;
                    copy.columns = copy.columns.iter().map(|c| map[*c]).collect();
                    self.table.constraints.push(copy);
                }
            }
        }
        if has(LIKE_INDEXES) {
            let catalog = self.ddl.catalog().clone();
            for (index, primary) in source.primary_key.iter().map(|k| (k, true)).chain(source.indexes.iter().map(|i| (i, false))) {
                let mut copy = index.clone();
                copy.oid = self.ddl.oid()?;
                let mut names = Vec::new();
                for column in &mut copy.columns {
                    if let strandline_storage::schema::IndexKey::Column(at) = &mut column.key {
                        names.push(source.columns[*at].name.as_str());
                        *at = map[*at];
                    } else {
                        names.push("expr");
                    }
                }
                copy.include = copy.include.iter().map(|c| map[*c]).collect();
                let joined = if primary { String::new() } else { ddl::joined_columns(&names) };
                let label = if primary {
                    "pkey"
                } else if copy.constraint {
                    "key"
                } else {
                    "idx"
                };
                let taken = |n: &str| {
                    ddl::relation_name_taken(&catalog, self.table.schema_oid, n)
                        || self.table.primary_key.iter().chain(&self.table.indexes).any(|i| i.name == n)
                };
                copy.name = ddl::choose_name(&self.table.name, &joined, label, taken);
                if primary { self.table.primary_key = Some(copy) } else { self.table.indexes.push(copy) }
            }
        }
        Ok(())
    }

    /// Adds the constraints, checks the whole and puts it into the transaction's edit.
    pub fn finish(mut self) -> Result<()> {
        let ddl = self.ddl;
        let catalog = ddl.catalog().clone();
        // The primary key first: a foreign key to the table itself may refer to it.
        let order = |c: &Constraint| match c.contype() {
            pg_query::protobuf::ConstrType::ConstrPrimary => 0,
            pg_query::protobuf::ConstrType::ConstrUnique => 1,
            pg_query::protobuf::ConstrType::ConstrForeign => 3,
            _ => 2,
        };
        self.constraints.sort_by_key(|(c, _)| order(c));
        for (constraint, column) in std::mem::take(&mut self.constraints) {
            constraints::add(ddl, &catalog, &mut self.table, &constraint, column.as_deref())?;
        }
        binding::check_generated(&ddl.context, &self.table)?;
        let Builder { table, sequences, .. } = self;
        ddl.core.with_edit("CREATE TABLE", |edit| {
            for sequence in sequences {
                edit.put_object(CatalogObject::Sequence(sequence))?;
            }
            Ok(edit.put_table(table)?)
        })
    }
}
