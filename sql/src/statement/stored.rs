//! Expressions of tables' definitions for who has rows and no statement: defaults, generated columns, conditions, conversions.
//!
//! Names are looked up in a root value that the caller gives. Nothing here asks the branch for its state, and nothing keeps the root value's rows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use pg_query::NodeEnum;
use pg_query::protobuf::{AlterTableCmd, AlterTableType, Node};
use strandline_storage::{DataType, Kind, Root, Row, TableSchema, Timestamp};

use super::binding::{self, RowExpressions, Wanted};
use super::ddl::rename_in_expression;
use super::dml::Filler;
use super::tree;
use crate::bound::{CastMethod, Expr};
use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::{self, Source};
use crate::session::{ConnectRequest, Engine, SessionCore};

/// Compiles and reads expressions in one database.
#[derive(Debug)]
pub struct StoredExpressions {
    core: Arc<SessionCore>,
}

/// Expressions of one table.
#[derive(Debug)]
pub struct StoredValues {
    expressions: Arc<StoredExpressions>,
    root: Root,
    table: TableSchema,
    computed: Computed,
    defaults: Vec<usize>,
    /// The defaults, compiled for a time: `now()` is the same in all of a transaction.
    filler: Mutex<Option<(Timestamp, Filler)>>,
}

#[derive(Debug)]
enum Computed {
    Generated { positions: Vec<usize>, values: RowExpressions },
    Converted { position: usize, values: RowExpressions },
}

impl StoredExpressions {
    /// # Errors
    /// There is no such database, or no superuser.
    pub fn open(engine: &Arc<Engine>, database: &str) -> Result<Arc<Self>> {
        let role = engine.roles()?.into_iter().find(|role| role.superuser);
        let role = role.ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, "there is no superuser"))?;
        let request = ConnectRequest { user: role.name.clone(), database: database.into(), ..ConnectRequest::default() };
        Ok(Arc::new(StoredExpressions { core: SessionCore::open(engine.clone(), 0, role, request)? }))
    }

    fn context(&self, root: &Root, now: Timestamp) -> Arc<StatementContext> {
        let state = self.core.state.lock();
        Arc::new(StatementContext {
            store: self.core.store().clone(),
            session: self.core.clone(),
            user: state.user.name.clone(),
            database: state.database.clone(),
            revision: Revision::clone(&state.revision),
            root: root.definitions(),
            branch: None,
            search_path: state.settings.search_path(&state.user.name),
            text: state.settings.text().clone(),
            settings: state.settings.values().clone(),
            transaction_time: now,
            statement_time: now,
            backend_pid: 0,
            cancel: Arc::new(AtomicBool::new(false)),
            abandoned: Arc::default(),
            params: Vec::new(),
        })
    }

    /// Compiles a table's generated columns and the defaults of the columns at these positions.
    /// # Errors
    /// One of them cannot be evaluated.
    pub fn compile(self: &Arc<Self>, root: &Root, table: &TableSchema, defaults: &[usize]) -> Result<StoredValues> {
        let context = self.context(root, Timestamp::now());
        let positions: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].generated.is_some()).collect();
        let texts: Vec<(&str, Wanted)> = positions
            .iter()
            .map(|at| (table.columns[*at].generated.as_deref().unwrap_or_default(), Wanted::Assigned(table.columns[*at].data_type.clone())))
            .collect();
        let values = RowExpressions::stored(&context, table, &texts)?;
        let filler = if defaults.is_empty() { None } else { Some((context.transaction_time, Filler::new(&context, table, defaults)?)) };
        Ok(StoredValues {
            expressions: self.clone(),
            root: root.definitions(),
            table: table.clone(),
            computed: Computed::Generated { positions, values },
            defaults: defaults.to_vec(),
            filler: Mutex::new(filler),
        })
    }

    /// Checks a condition over a table's rows.
    /// # Errors
    /// It cannot be evaluated.
    pub fn check_condition(&self, root: &Root, table: &TableSchema, text: &str) -> Result<()> {
        RowExpressions::stored(&self.context(root, Timestamp::now()), table, &[(text, Wanted::Boolean)]).map(drop)
    }

    /// Checks an expression that is to give a type: on a table's rows, or on none.
    /// # Errors
    /// It cannot be evaluated, or gives another type.
    pub fn check_value(&self, root: &Root, table: Option<&TableSchema>, text: &str, data_type: &DataType) -> Result<()> {
        let context = self.context(root, Timestamp::now());
        match table {
            Some(table) => RowExpressions::stored(&context, table, &[(text, Wanted::Assigned(data_type.clone()))]).map(drop),
            None => {
                let (source, node) = parse::parse_expression(text)?;
                binding::check_default(&context, &source, &node, data_type, "")
            }
        }
    }

    /// An expression after one of its table's columns was renamed.
    /// # Errors
    /// It cannot be read.
    pub fn rename_column(&self, text: &str, old: &str, new: &str) -> Result<String> {
        rename_in_expression(text, old, new)
    }

    pub fn names_column(&self, text: &str, column: &str) -> bool {
        super::ddl::names_column(text, column)
    }

    /// What ALTER COLUMN TYPE in a statement makes of a column's values, where that is the same in every session.
    /// # Errors
    /// The statement has no such part, or more than one; it cannot be evaluated; or it depends on settings.
    pub fn conversion(
        self: &Arc<Self>,
        root: &Root,
        table: &TableSchema,
        position: usize,
        target: &DataType,
        statement: &str,
    ) -> Result<StoredValues> {
        let column = table.columns.get(position).ok_or_else(tree::malformed)?;
        let (source, using) = type_change(statement, &table.name, &column.name)?;
        let context = self.context(root, Timestamp::now());
        let expr = binding::bound_conversion(&context, &source, using.as_ref(), table, position, target)?;
        if let Some(what) = unfixed(&expr, &column.data_type) {
            return Err(SqlError::unsupported(format_args!("a conversion that depends on {what}")));
        }
        let values = RowExpressions::of(&context, &[expr])?;
        Ok(StoredValues {
            expressions: self.clone(),
            root: root.definitions(),
            table: table.clone(),
            computed: Computed::Converted { position, values },
            defaults: Vec::new(),
            filler: Mutex::new(None),
        })
    }
}

impl StoredValues {
    /// Puts the defaults in.
    /// # Errors
    /// What evaluating one raises.
    pub fn fill_defaults(&self, row: &mut Row, now: Timestamp) -> Result<()> {
        let mut filler = self.filler.lock();
        match &*filler {
            Some((at, filler)) if *at == now => filler.fill(row),
            _ => {
                let context = self.expressions.context(&self.root, now);
                let (_, filler) = filler.insert((now, Filler::new(&context, &self.table, &self.defaults)?));
                filler.fill(row)
            }
        }
    }

    /// Computes the generated columns, or the converted one.
    /// # Errors
    /// What evaluating one raises.
    pub fn compute(&self, row: &mut Row) -> Result<()> {
        match &self.computed {
            Computed::Generated { positions, values } => {
                for (i, at) in positions.iter().enumerate() {
                    let value = values.value(i, row)?;
                    put(row, *at, value);
                }
            }
            Computed::Converted { position, values } => {
                let value = values.value(0, row)?;
                put(row, *position, value);
            }
        }
        Ok(())
    }
}

fn put(row: &mut Row, at: usize, value: strandline_storage::Value) {
    if let Some(slot) = row.get_mut(at) {
        *slot = value;
    }
}

/// The USING clause that a query string has for the type of a column, if it has one for it.
fn type_change(statement: &str, table: &str, column: &str) -> Result<(Arc<Source>, Option<Node>)> {
    let mut found = None;
    for statement in parse::parse(statement)? {
        let NodeEnum::AlterTableStmt(alter) = &statement.node else { continue };
        if alter.relation.as_ref().is_none_or(|relation| relation.relname != table) {
            continue;
        }
        let commands = alter.cmds.iter().filter_map(|node| match &node.node {
            Some(NodeEnum::AlterTableCmd(command)) => Some(&**command),
            _ => None,
        });
        for command in
            commands.filter(|command: &&AlterTableCmd| command.subtype() == AlterTableType::AtAlterColumnType && command.name == column)
        {
            let Some(NodeEnum::ColumnDef(definition)) = command.def.as_deref().and_then(|node| node.node.as_ref()) else {
                return Err(tree::malformed());
            };
            if found.is_some() {
                return Err(SqlError::unsupported("a query string that changes the type of a column more than once"));
            }
            found = Some((statement.source.clone(), definition.raw_default.as_deref().cloned()));
        }
    }
    found.ok_or_else(|| SqlError::unsupported("a change of type that the query string does not tell"))
}

/// What an expression's value depends on besides the row.
fn unfixed(expr: &Expr, column: &DataType) -> Option<String> {
    let catalog = crate::catalog_data::catalog();
    let mut found = None;
    expr.any(&mut |e| {
        found = match e {
            Expr::Subquery(_) => Some("other rows".into()),
            Expr::Function(call) => proc_unfixed(catalog, call.proc),
            Expr::Cast { method: CastMethod::Function(proc), .. } => proc_unfixed(catalog, *proc),
            // Texts of dates, floating-point numbers, bytea and money depend on settings of the session.
            Expr::Cast { method: CastMethod::InOut | CastMethod::Array, input, ty } => {
                let is_plain = |oid: u32| DataType::builtin(oid, -1).is_some_and(|t| has_one_text(t.kind));
                let is_enum = column.kind == Kind::Enum;
                let plain = (is_plain(input.ty().oid) || is_enum) && (is_plain(ty.oid) || DataType::builtin(ty.oid, -1).is_none());
                (!plain).then(|| "the settings of the session".into())
            }
            _ => None,
        };
        found.is_some()
    });
    found
}

fn has_one_text(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Bool
            | Kind::Int2
            | Kind::Int4
            | Kind::Int8
            | Kind::Numeric
            | Kind::Text
            | Kind::Bpchar
            | Kind::Uuid
            | Kind::Json
            | Kind::Jsonb
    )
}

fn proc_unfixed(catalog: &crate::catalog_data::CatalogData, proc: u32) -> Option<String> {
    match catalog.proc_by_oid(proc) {
        Some(proc) if proc.volatility == b'i' => None,
        Some(proc) => Some(format!("function {}", proc.name)),
        None => Some("a function that is not known".into()),
    }
}
