//! FROM: tables, views, subqueries, functions, joins; AS OF.

use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, ColumnDef, FuncCall, JoinExpr, JoinType, Node, RangeFunction, RangeSubselect, RangeVar};
use strandline_storage::{TableAt, Value};

use super::call::Arguments;
use super::expression::location;
use super::names::{AsOf, Relation, TableFunctionArgument, ViewDefinition};
use super::object_names::name_parts;
use super::overload::{CallShape, Callee};
use super::scope::{Clause, Level, NsColumn, NsItem};
use super::{Binder, ViewPlace};
use crate::bound::{AggregateCall, Column, Expr, Frame, FrameBound, FrameUnits, FunctionCall, JoinKind, Rel, WindowCall};
use crate::error::{ErrorCode, Result};
use crate::parse::{self, AsOfClause, AsOfForm};
use crate::types::{SqlType, oid};

/// How deep views may stand on views.
const VIEW_DEPTH_MAX: usize = 64;
/// `row_number()`, which numbers WITH ORDINALITY where several functions run side by side.
const ROW_NUMBER: u32 = 3100;

impl Binder<'_> {
    /// Binds a FROM list into one relation; its items are in view afterwards.
    pub(super) fn from_clause(&mut self, nodes: &[Node]) -> Result<Rel> {
        let mut rel: Option<Rel> = None;
        for node in nodes {
            let mark = self.level().lateral_references.len();
            let (right, items) = self.from_item(node)?;
            self.check_names(&items, location(node))?;
            rel = Some(match rel {
                None => right,
                Some(left) => {
                    let lateral = self.looks_at(&left, mark);
                    Rel::Join { left: Box::new(left), right: Box::new(right), kind: JoinKind::Cross, on: None, lateral }
                }
            });
            let level = self.level();
            level.namespace.extend(items);
            level.namespace.iter_mut().for_each(|item| {
                item.lateral_only = true;
                item.lateral_allowed = true;
            });
        }
        self.level().namespace.iter_mut().for_each(|item| item.lateral_only = false);
        Ok(rel.unwrap_or(Rel::Unit))
    }

    /// Says whether lateral references made since `mark` are to columns of `left`.
    fn looks_at(&mut self, left: &Rel, mark: usize) -> bool {
        let level = self.level();
        if level.lateral_references.len() == mark {
            return false;
        }
        let ids = left.column_ids();
        level.lateral_references[mark..].iter().any(|id| ids.contains(id))
    }

    /// A name may stand once in a FROM list.
    fn check_names(&mut self, items: &[NsItem], at: i32) -> Result<()> {
        let _ = at;
        for (i, item) in items.iter().enumerate() {
            let Some(name) = item.name.as_ref().filter(|_| item.relation_visible) else { continue };
            let clash = |other: &NsItem| {
                other.relation_visible
                    && other.name.as_ref() == Some(name)
                    // Two tables of one name in different schemas can be told apart.
                    && (other.schema.is_none() || item.schema.is_none() || other.schema == item.schema)
            };
            if items[..i].iter().any(clash) || self.level().namespace.iter().any(clash) {
                return Err(crate::error::SqlError::new(
                    ErrorCode::DuplicateAlias,
                    format!("table name \"{name}\" specified more than once"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn from_item(&mut self, node: &Node) -> Result<(Rel, Vec<NsItem>)> {
        self.nested(|b| match node.node.as_ref() {
            Some(NodeEnum::RangeVar(range)) => b.range_var(range).map(|(rel, item)| (rel, vec![item])),
            Some(NodeEnum::RangeSubselect(sub)) => b.range_subselect(sub).map(|(rel, item)| (rel, vec![item])),
            Some(NodeEnum::RangeFunction(function)) => b.range_function(function).map(|(rel, item)| (rel, vec![item])),
            Some(NodeEnum::JoinExpr(join)) => b.join(join),
            Some(NodeEnum::RangeTableSample(_)) => Err(b.unsupported("TABLESAMPLE", location(node))),
            Some(NodeEnum::RangeTableFunc(_)) => Err(b.unsupported("XMLTABLE", location(node))),
            Some(NodeEnum::JsonTable(_)) => Err(b.unsupported("JSON_TABLE", location(node))),
            _ => Err(b.unsupported("this kind of FROM item", location(node))),
        })
    }

    /// Gives a relation's columns their aliases.
    fn aliased(&self, alias: Option<&Alias>, name: Option<String>, mut columns: Vec<NsColumn>) -> Result<NsItem> {
        let name = match alias {
            Some(alias) => Some(alias.aliasname.clone()),
            None => name,
        };
        if let Some(alias) = alias {
            let names = name_parts(&alias.colnames);
            if names.len() > columns.len() {
                return Err(crate::error::SqlError::new(
                    ErrorCode::InvalidColumnReference,
                    format!("table \"{}\" has {} columns available but {} columns specified", alias.aliasname, columns.len(), names.len()),
                ));
            }
            for (column, name) in columns.iter_mut().zip(names) {
                column.name = name.to_owned();
            }
        }
        Ok(NsItem::new(name, columns))
    }

    fn range_var(&mut self, range: &RangeVar) -> Result<(Rel, NsItem)> {
        let at = range.location;
        let alias = range.alias.as_ref();
        let source = self.source.clone();
        let clause = source.as_of(&range.relname);
        let name = clause.map_or(range.relname.as_str(), |c| c.relation.as_str());
        if clause.is_none()
            && range.schemaname.is_empty()
            && range.catalogname.is_empty()
            && let Some((rel, columns)) = self.cte_reference(name, at)?
        {
            let columns = NsItem::of_columns(None, &columns).columns;
            return Ok((rel, self.aliased(alias, Some(name.to_owned()), columns)?));
        }
        let schema = Some(range.schemaname.as_str()).filter(|s| !s.is_empty());
        let mut place = match range.catalogname.as_str() {
            "" => self.view_place.clone(),
            named => ViewPlace { catalog: Some(named.to_owned()), moment: None },
        };
        if let Some(clause) = clause {
            place.moment = Some(self.moment(clause)?);
        }
        let catalog = place.catalog.as_deref();
        let found = match &place.moment {
            None => self.names.relation(catalog, schema, name),
            Some(moment) => self.names.relation_as_of(catalog, schema, name, moment),
        };
        let found = found.map_err(|e| e.at(self.source.position(at)))?;
        let Some(relation) = found else {
            let qualified = [catalog, schema, Some(name)].into_iter().flatten().collect::<Vec<_>>().join(".");
            return Err(self.error(ErrorCode::UndefinedTable, format!("relation \"{qualified}\" does not exist"), at));
        };
        let (rel, columns, table, key) = match relation {
            Relation::Table(data) => {
                let (rel, columns) = self.scan(&data, false);
                let key = data.schema().key_columns().iter().map(|&i| columns[i].id).collect();
                (rel, columns, Some(data.schema().oid), key)
            }
            Relation::Virtual(table) => {
                let oid = Some(table.oid()).filter(|oid| *oid != 0);
                let (rel, columns) = self.virtual_table(table, Vec::new());
                (rel, columns, oid, Vec::new())
            }
            Relation::View(view) => {
                let outside = std::mem::replace(&mut self.view_place, place);
                let bound = self.view(&view, at);
                self.view_place = outside;
                let (rel, columns) = bound?;
                (rel, columns, None, Vec::new())
            }
            Relation::Sequence(_) => return Err(self.unsupported("reading a sequence as a table", at)),
        };
        if schema.is_none()
            && let Some(schema) = self.names.relation_schema(name)
            && let Some(settled) = self.settling()
        {
            settled.note_schema(at, schema);
        }
        let columns = NsItem::of_columns(None, &columns).columns;
        let mut item = self.aliased(alias, Some(name.to_owned()), columns)?;
        item.table = table;
        item.key = key;
        if alias.is_none() {
            item.schema = match schema {
                Some(schema) => Some(schema.to_owned()),
                // A plain name found through the path: `public.t.c` may still name it.
                None => self.names.relation_schema(name),
            };
        }
        Ok((rel, item))
    }

    /// All columns of a stored table; with `keyed` a Binary column with the row's key too.
    pub(super) fn scan(&mut self, data: &std::sync::Arc<TableAt>, keyed: bool) -> (Rel, Vec<Column>) {
        let schema = data.schema().clone();
        let mut columns = Vec::with_capacity(schema.columns.len());
        for stored in &schema.columns {
            let ty =
                SqlType { oid: if stored.data_type.oid == 0 { oid::TEXT } else { stored.data_type.oid }, typmod: stored.data_type.typmod };
            let mut column = self.new_column(stored.name.clone(), ty);
            column.origin = Some((schema.oid, stored.attnum));
            columns.push(column);
        }
        let key_column = keyed.then(|| self.new_column("?row key?", SqlType::new(oid::BYTEA)));
        (Rel::Scan { table: data.clone(), columns: columns.iter().cloned().enumerate().collect(), key_column }, columns)
    }

    fn virtual_table(&mut self, table: std::sync::Arc<dyn crate::virtual_table::VirtualTable>, args: Vec<Expr>) -> (Rel, Vec<Column>) {
        let mut columns = Vec::with_capacity(table.columns().len());
        for (i, given) in table.columns().iter().enumerate() {
            let mut column = self.new_column(given.name.clone(), given.ty);
            if table.oid() != 0 {
                column.origin = Some((table.oid(), i as i16 + 1));
            }
            columns.push(column);
        }
        (Rel::Virtual { table, args, columns: columns.iter().cloned().enumerate().collect() }, columns)
    }

    /// A view's query stands in the place of its name; it sees nothing of the query around it.
    fn view(&mut self, view: &ViewDefinition, at: i32) -> Result<(Rel, Vec<Column>)> {
        if self.view_depth >= VIEW_DEPTH_MAX {
            return Err(self.error(ErrorCode::InvalidObjectDefinition, "infinite recursion detected in rules for relation", at));
        }
        let (source, node) = parse::parse_stored(&view.query)?;
        let NodeEnum::SelectStmt(select) = node else {
            return Err(self.error(ErrorCode::InvalidObjectDefinition, "a view's definition is not a query", at));
        };
        let own_source = std::mem::replace(&mut self.source, source);
        let own_levels = std::mem::take(&mut self.levels);
        self.view_depth += 1;
        let bound = self.select(&select, Clause::None, true);
        self.view_depth -= 1;
        self.levels = own_levels;
        self.source = own_source;
        let query = bound?;
        let mut columns = query.columns;
        for (i, (column, name)) in columns.iter_mut().zip(&view.columns).enumerate() {
            column.name.clone_from(name);
            column.origin = Some((view.oid, i as i16 + 1));
        }
        // Columns that the tables below got after the view was made are not the view's.
        columns.truncate(view.columns.len());
        Ok((query.rel, columns))
    }

    /// The moment of an AS OF clause.
    fn moment(&mut self, clause: &AsOfClause) -> Result<AsOf> {
        let at = location(&clause.expression);
        self.levels.push(Level::new(Clause::AsOf));
        let bound = self.moment_expression(clause, at);
        self.levels.pop();
        let (expr, at) = bound?;
        if !crate::lower::walk::columns_of(&expr).is_empty() {
            return Err(self.unsupported("a column reference in AS OF", at));
        }
        let ty = expr.ty().oid;
        let value = self.names.evaluate(&expr).map_err(|e| e.at(self.source.position(at)))?;
        let Some(value) = value else {
            self.params_decide_schema = true;
            return Ok(AsOf::Unknown);
        };
        let text = |value: &Value| match value {
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        Ok(match (clause.form, ty, &value) {
            (_, _, Value::Null) => return Err(self.error(ErrorCode::NullValueNotAllowed, "AS OF must not be null", at)),
            (AsOfForm::Xid, _, Value::Int8(xid)) => AsOf::Xid(*xid),
            (AsOfForm::Lsn, _, Value::Int8(lsn)) => AsOf::Lsn(*lsn as u64),
            (AsOfForm::Any, oid::PG_LSN, Value::Int8(lsn)) => AsOf::Lsn(*lsn as u64),
            (AsOfForm::Any, oid::TIMESTAMPTZ, Value::Int8(time)) => AsOf::Timestamp(*time),
            (AsOfForm::Any, _, value) => AsOf::Ref(text(value)),
            _ => return Err(self.error(ErrorCode::DatatypeMismatch, "AS OF has a value of the wrong type", at)),
        })
    }

    /// The clause's expression as one of the few types that a moment can have.
    fn moment_expression(&mut self, clause: &AsOfClause, at: i32) -> Result<(Expr, i32)> {
        let expr = self.expression(&clause.expression)?;
        let ty = expr.ty().oid;
        let target = match (clause.form, ty) {
            (AsOfForm::Lsn, _) => oid::PG_LSN,
            (AsOfForm::Xid, _) => oid::INT8,
            (AsOfForm::Any, oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::DATE) => oid::TIMESTAMPTZ,
            (AsOfForm::Any, oid::PG_LSN) => oid::PG_LSN,
            (AsOfForm::Any, _) => oid::TEXT,
        };
        let what = match clause.form {
            AsOfForm::Lsn => "argument of AS OF LSN",
            AsOfForm::Xid => "argument of AS OF XID",
            AsOfForm::Any => "argument of AS OF",
        };
        if target == oid::TEXT && ty != oid::UNKNOWN && self.types.category(ty).0 != b'S' {
            return Err(self.error(
                ErrorCode::DatatypeMismatch,
                format!("{what} must be a ref or a timestamp, not type {}", self.types.name(ty)),
                at,
            ));
        }
        Ok((self.coerce_to_specific(expr, at, target, what)?, at))
    }

    fn range_subselect(&mut self, sub: &RangeSubselect) -> Result<(Rel, NsItem)> {
        let Some(NodeEnum::SelectStmt(select)) = sub.subquery.as_deref().and_then(|n| n.node.as_ref()) else {
            return Err(self.unsupported("this kind of subquery in FROM", -1));
        };
        let before = std::mem::replace(&mut self.level().lateral_active, sub.lateral);
        let clause = std::mem::replace(&mut self.level().clause, Clause::FromSubselect);
        // Without LATERAL the siblings are out of sight, the outer queries are not.
        let bound = self.select(select, Clause::FromSubselect, true);
        let level = self.level();
        level.lateral_active = before;
        level.clause = clause;
        let query = bound?;
        let columns = NsItem::of_columns(None, &query.columns).columns;
        let item = self.aliased(sub.alias.as_ref(), None, columns)?;
        Ok((query.rel, item))
    }

    fn range_function(&mut self, range: &RangeFunction) -> Result<(Rel, NsItem)> {
        let mut calls: Vec<(&FuncCall, Vec<ColumnDef>)> = Vec::new();
        let mut others: Vec<&Node> = Vec::new();
        for node in &range.functions {
            let Some(NodeEnum::List(pair)) = &node.node else { continue };
            let definitions = match pair.items.get(1).and_then(|n| n.node.as_ref()) {
                Some(NodeEnum::List(list)) => column_definitions(&list.items),
                _ => Vec::new(),
            };
            match pair.items.first() {
                Some(Node { node: Some(NodeEnum::FuncCall(call)) }) => calls.push((call, definitions)),
                Some(other) => others.push(other),
                None => {}
            }
        }
        let definitions = column_definitions(&range.coldeflist);
        let before = std::mem::replace(&mut self.level().lateral_active, true);
        let clause = std::mem::replace(&mut self.level().clause, Clause::FromFunction);
        let bound = self.function_items(range, &calls, &others, definitions);
        let level = self.level();
        level.lateral_active = before;
        level.clause = clause;
        bound
    }

    fn function_items(
        &mut self,
        range: &RangeFunction,
        calls: &[(&FuncCall, Vec<ColumnDef>)],
        others: &[&Node],
        definitions: Vec<ColumnDef>,
    ) -> Result<(Rel, NsItem)> {
        let alias = range.alias.as_ref();
        // CURRENT_DATE and the like, casts: one row, one column.
        if let ([], [node]) = (calls, others) {
            let at = location(node);
            let expr = self.expression(node)?;
            let expr = self.unknown_to_text(expr, at)?;
            let name = super::target_name::target_name(node);
            let column = self.new_column(alias.map_or(name.clone(), |a| a.aliasname.clone()), expr.ty());
            let columns = NsItem::of_columns(None, std::slice::from_ref(&column)).columns;
            let mut item = self.aliased(alias, Some(name), columns)?;
            item.scalar_function = true;
            return Ok((Rel::Project { input: Box::new(Rel::Unit), exprs: vec![(column, expr)] }, item));
        }
        let [(call, own_definitions)] = calls else {
            return self.side_by_side(range, calls);
        };
        let parts = name_parts(&call.funcname);
        let (schema, name) = match parts.as_slice() {
            [.., schema, name] => (Some(*schema), *name),
            [name] => (None, *name),
            [] => (None, ""),
        };
        if name == "unnest" && call.args.len() > 1 && !call.func_variadic {
            return self.side_by_side(range, calls);
        }
        if self.names.is_table_function(schema, name) {
            return self.version_function(range, call, schema, name);
        }
        let definitions = if definitions.is_empty() { own_definitions.clone() } else { definitions };
        let (function, columns, scalar) = self.function_in_from(call, name, schema, &definitions, alias)?;
        let ordinality = range.ordinality.then(|| self.new_column("ordinality", SqlType::new(oid::INT8)));
        let returns_set = crate::catalog_data::catalog().proc_by_oid(function.proc).is_some_and(|p| p.returns_set);
        let mut all = columns.clone();
        all.extend(ordinality.clone());
        let ns = NsItem::of_columns(None, &all).columns;
        let mut item = self.aliased(alias, Some(name.to_owned()), ns)?;
        item.scalar_function = scalar && ordinality.is_none();
        let rel = if scalar && !returns_set && ordinality.is_none() {
            let column = columns.into_iter().next().expect("BUG: a scalar function has one column");
            Rel::Project { input: Box::new(Rel::Unit), exprs: vec![(column, Expr::Function(function))] }
        } else {
            Rel::Function { function, columns, ordinality }
        };
        Ok((rel, item))
    }

    /// The call of one function in FROM and its columns; the flag says that it gives plain values.
    fn function_in_from(
        &mut self,
        call: &FuncCall,
        name: &str,
        schema: Option<&str>,
        definitions: &[ColumnDef],
        alias: Option<&Alias>,
    ) -> Result<(FunctionCall, Vec<Column>, bool)> {
        let at = call.location;
        if call.over.is_some() {
            return Err(self.error(ErrorCode::WindowingError, "window functions are not allowed in functions in FROM", at));
        }
        let arguments: Arguments = self.arguments(&call.args)?;
        let shape = CallShape {
            schema,
            name,
            args: &Self::types_of(&arguments.args),
            names: &arguments.names,
            variadic: call.func_variadic,
            location: at,
        };
        let candidate = match self.resolve_function(&shape)? {
            Callee::Function(candidate) => candidate,
            Callee::Cast(_) => return Err(self.unsupported("a cast as a function in FROM", at)),
        };
        match candidate.proc.kind {
            b'a' => return Err(self.error(ErrorCode::GroupingError, "aggregate functions are not allowed in functions in FROM", at)),
            b'w' => return Err(self.error(ErrorCode::WindowingError, "window functions are not allowed in functions in FROM", at)),
            _ => {}
        }
        let types = Self::types_of(&arguments.args);
        let proc = candidate.proc;
        let declared = candidate.args.clone();
        let resolved = self.finish_call(candidate, arguments, at)?;
        let function = FunctionCall { proc: proc.oid, args: resolved.args, ty: resolved.result, variadic: call.func_variadic };
        let out = proc.out_columns();
        let mut columns = Vec::new();
        if !definitions.is_empty() {
            if resolved.result.oid != oid::RECORD {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    "a column definition list is only allowed for functions returning \"record\"",
                    definitions[0].location,
                ));
            }
            if !out.is_empty() {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    "a column definition list is redundant for a function with OUT parameters",
                    at,
                ));
            }
            for definition in definitions {
                let Some(type_name) = &definition.type_name else { continue };
                let ty = self.type_of(type_name)?;
                columns.push(self.new_column(definition.colname.clone(), ty));
            }
            return Ok((function, columns, false));
        }
        if resolved.result.oid == oid::RECORD {
            if out.is_empty() {
                return Err(self.error(
                    ErrorCode::SyntaxError,
                    "a column definition list is required for functions returning \"record\"",
                    at,
                ));
            }
            for (name, ty) in out {
                let mut slots = declared.clone();
                let ty = self.resolve_polymorphic(&types, &mut slots, ty)?;
                columns.push(self.new_column(name, SqlType::new(ty)));
            }
            return Ok((function, columns, false));
        }
        if let Some(fields) = self.types.fields(resolved.result.oid) {
            for (name, ty) in fields {
                columns.push(self.new_column(name, ty));
            }
            return Ok((function, columns, false));
        }
        // One column: named by its OUT parameter, else by the alias, else by the function.
        let column_name = match (out.as_slice(), alias) {
            ([(own, _)], _) if !own.is_empty() => (*own).to_owned(),
            (_, Some(alias)) => alias.aliasname.clone(),
            _ => name.to_owned(),
        };
        columns.push(self.new_column(column_name, resolved.result));
        Ok((function, columns, true))
    }

    /// ROWS FROM (f(), g()) and unnest(a, b): functions that give single columns, row by row beside one another.
    fn side_by_side(&mut self, range: &RangeFunction, calls: &[(&FuncCall, Vec<ColumnDef>)]) -> Result<(Rel, NsItem)> {
        let mut set_calls = Vec::new();
        for (call, definitions) in calls {
            let name = name_parts(&call.funcname).last().copied().unwrap_or("").to_owned();
            let split: Vec<FuncCall> = if name == "unnest" && call.args.len() > 1 {
                call.args.iter().map(|arg| FuncCall { args: vec![arg.clone()], ..(*call).clone() }).collect()
            } else {
                vec![(*call).clone()]
            };
            for call in &split {
                let (function, mut columns, _) = self.function_in_from(call, &name, None, definitions, None)?;
                let column = columns.pop().filter(|_| columns.is_empty());
                let Some(column) = column else {
                    return Err(self.unsupported("ROWS FROM with a function of several columns", call.location));
                };
                set_calls.push((column, function));
            }
        }
        let mut columns: Vec<Column> = set_calls.iter().map(|(c, _)| c.clone()).collect();
        let mut rel = Rel::ProjectSet { input: Box::new(Rel::Unit), calls: set_calls };
        if range.ordinality {
            let column = self.new_column("ordinality", SqlType::new(oid::INT8));
            columns.push(column.clone());
            let call = AggregateCall {
                proc: ROW_NUMBER,
                args: Vec::new(),
                ty: SqlType::new(oid::INT8),
                distinct: false,
                filter: None,
                order: Vec::new(),
                star: false,
            };
            let frame = Frame { units: FrameUnits::Rows, start: FrameBound::UnboundedPreceding, end: FrameBound::UnboundedFollowing };
            let call = WindowCall { call, partition: Vec::new(), order: Vec::new(), frame };
            rel = Rel::Window { input: Box::new(rel), calls: vec![(column, call)] };
        }
        let ns = NsItem::of_columns(None, &columns).columns;
        let item = self.aliased(range.alias.as_ref(), columns.first().map(|c| c.name.clone()), ns)?;
        Ok((rel, item))
    }

    /// dolt_diff('a', 'b', 't') and its kin: the columns depend on the arguments, which are evaluated first.
    fn version_function(&mut self, range: &RangeFunction, call: &FuncCall, schema: Option<&str>, name: &str) -> Result<(Rel, NsItem)> {
        let at = call.location;
        self.levels.push(Level::new(Clause::TableFunction));
        let bound = self.version_arguments(call);
        self.levels.pop();
        let args = bound?;
        let mut values = Vec::with_capacity(args.len());
        for arg in &args {
            if !crate::lower::walk::columns_of(arg).is_empty() {
                return Err(self.unsupported(format_args!("a column reference in the arguments of {name}()"), at));
            }
            let value = self.names.evaluate(arg).map_err(|e| e.at(self.source.position(at)))?;
            if value.is_none() || arg.any(&mut |e| matches!(e, Expr::Param { .. })) {
                self.params_decide_schema = true;
            }
            values.push(TableFunctionArgument { ty: arg.ty(), value });
        }
        let table = self.names.table_function(schema, name, &values).map_err(|e| e.at(self.source.position(at)))?;
        let Some(table) = table else {
            let types: Vec<String> = args.iter().map(|a| self.types.name(a.ty().oid)).collect();
            return Err(self.error(ErrorCode::UndefinedFunction, format!("function {name}({}) does not exist", types.join(", ")), at));
        };
        let (rel, mut columns) = self.virtual_table(table, args);
        let mut rel = rel;
        if range.ordinality {
            return Err(self.unsupported("WITH ORDINALITY of a version function", at));
        }
        if let Rel::Virtual { columns: inner, .. } = &mut rel {
            inner.iter_mut().for_each(|(_, c)| c.origin = None);
        }
        columns.iter_mut().for_each(|c| c.origin = None);
        let ns = NsItem::of_columns(None, &columns).columns;
        let item = self.aliased(range.alias.as_ref(), Some(name.to_owned()), ns)?;
        Ok((rel, item))
    }

    fn version_arguments(&mut self, call: &FuncCall) -> Result<Vec<Expr>> {
        let mut args = Vec::with_capacity(call.args.len());
        for node in &call.args {
            let (expr, at) = self.located(node)?;
            args.push(self.plain_argument(expr, at)?);
        }
        Ok(args)
    }

    fn join(&mut self, join: &JoinExpr) -> Result<(Rel, Vec<NsItem>)> {
        let (Some(left_node), Some(right_node)) = (join.larg.as_deref(), join.rarg.as_deref()) else {
            return Err(self.unsupported("this kind of join", -1));
        };
        let kind = match join.jointype() {
            JoinType::JoinLeft => JoinKind::Left,
            JoinType::JoinRight => JoinKind::Right,
            JoinType::JoinFull => JoinKind::Full,
            JoinType::JoinInner => JoinKind::Inner,
            _ => return Err(self.unsupported("this kind of join", -1)),
        };
        let (left, mut left_items) = self.from_item(left_node)?;
        // The left side is in view for LATERAL on the right; a right or full join forbids its use.
        let outside = self.level().namespace.len();
        let lateral_allowed = matches!(kind, JoinKind::Inner | JoinKind::Left);
        for item in &left_items {
            let mut item = item.clone();
            item.lateral_only = true;
            item.lateral_allowed = lateral_allowed;
            self.level().namespace.push(item);
        }
        let mark = self.level().lateral_references.len();
        let right = self.from_item(right_node);
        self.level().namespace.truncate(outside);
        let (right, mut right_items) = right?;
        let lateral = self.looks_at(&left, mark);
        self.check_pair(&left_items, &right_items)?;

        let columns_of = |items: &[NsItem]| -> Vec<NsColumn> {
            items.iter().filter(|item| item.columns_visible).flat_map(|item| item.columns.iter().cloned()).collect()
        };
        let left_columns = columns_of(&left_items);
        let right_columns = columns_of(&right_items);
        let using: Vec<String> = if join.is_natural {
            left_columns.iter().filter(|l| right_columns.iter().any(|r| r.name == l.name)).map(|l| l.name.clone()).collect()
        } else {
            name_parts(&join.using_clause).into_iter().map(str::to_owned).collect()
        };
        if join.is_natural
            && let Some(settled) = self.settling()
        {
            settled.note_join(join.rtindex, &using);
        }

        let mut on = None;
        let mut merged = Vec::new();
        if !using.is_empty() {
            let mut conditions = Vec::with_capacity(using.len());
            for (i, name) in using.iter().enumerate() {
                if using[..i].contains(name) {
                    return Err(crate::error::SqlError::new(
                        ErrorCode::DuplicateColumn,
                        format!("column name \"{name}\" appears more than once in USING clause"),
                    ));
                }
                let l = self.using_column(&left_columns, name, "left")?;
                let r = self.using_column(&right_columns, name, "right")?;
                if let Some(settled) = self.settling() {
                    settled.used.extend(l.origin.into_iter().chain(r.origin));
                }
                let pair = vec![(l.expr.clone(), -1), (r.expr.clone(), -1)];
                let equal = self.in_clause(Clause::JoinUsing, |b| b.binary("=", (l.expr.clone(), -1), (r.expr.clone(), -1), -1))?;
                conditions.push(equal);
                let plain = kind;
                let (both, ty) = self.unify(pair, "JOIN/USING")?;
                let mut both = both.into_iter();
                let (left_expr, right_expr) = (both.next().expect("BUG: two columns"), both.next().expect("BUG: two columns"));
                let (expr, origin) = match plain {
                    JoinKind::Right => (right_expr, r.origin),
                    JoinKind::Full => (Expr::Coalesce { args: vec![left_expr, right_expr], ty }, None),
                    _ => (left_expr, l.origin),
                };
                merged.push(NsColumn { name: name.clone(), expr, origin });
            }
            on = Some(if conditions.len() == 1 { conditions.remove(0) } else { Expr::And(conditions) });
        } else if let Some(quals) = join.quals.as_deref() {
            let level = self.level();
            level.namespace.extend(left_items.iter().chain(&right_items).cloned());
            // Items of the FROM list before this join are not in view inside ON.
            let bound = self.in_clause(Clause::JoinOn, |b| {
                let (expr, at) = b.located(quals)?;
                b.coerce_to_boolean(expr, at, "argument of JOIN/ON")
            });
            self.level().namespace.truncate(outside);
            on = Some(bound?);
        }
        let kind = if on.is_none() && kind == JoinKind::Inner { JoinKind::Cross } else { kind };

        let is_merged = |column: &NsColumn| using.contains(&column.name);
        let mut columns = merged.clone();
        columns.extend(left_columns.into_iter().filter(|c| !is_merged(c)));
        columns.extend(right_columns.into_iter().filter(|c| !is_merged(c)));
        let rel = Rel::Join { left: Box::new(left), right: Box::new(right), kind, on, lateral };
        let mut items = Vec::with_capacity(left_items.len() + right_items.len() + 1);
        for item in left_items.iter_mut().chain(&mut right_items) {
            item.columns_visible = false;
            if join.alias.is_some() {
                item.relation_visible = false;
            }
            items.push(item.clone());
        }
        if let Some(alias) = &join.join_using_alias {
            let mut item = NsItem::new(Some(alias.aliasname.clone()), merged);
            item.columns_visible = false;
            items.push(item);
        }
        items.push(self.aliased(join.alias.as_ref(), None, columns)?);
        Ok((rel, items))
    }

    fn check_pair(&self, left: &[NsItem], right: &[NsItem]) -> Result<()> {
        for name in right.iter().filter(|i| i.relation_visible).filter_map(|i| i.name.as_ref().map(|n| (n, &i.schema))) {
            let clash = left.iter().filter(|i| i.relation_visible).any(|other| {
                other.name.as_ref() == Some(name.0) && (other.schema.is_none() || name.1.is_none() || other.schema == *name.1)
            });
            if clash {
                return Err(crate::error::SqlError::new(
                    ErrorCode::DuplicateAlias,
                    format!("table name \"{}\" specified more than once", name.0),
                ));
            }
        }
        Ok(())
    }

    fn using_column(&self, columns: &[NsColumn], name: &str, side: &str) -> Result<NsColumn> {
        let mut found = columns.iter().filter(|c| c.name == name);
        match (found.next(), found.next()) {
            (Some(column), None) => Ok(column.clone()),
            (Some(_), Some(_)) => Err(crate::error::SqlError::new(
                ErrorCode::AmbiguousColumn,
                format!("common column name \"{name}\" appears more than once in {side} table"),
            )),
            _ => Err(crate::error::SqlError::new(
                ErrorCode::UndefinedColumn,
                format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
            )),
        }
    }
}

fn column_definitions(nodes: &[Node]) -> Vec<ColumnDef> {
    nodes
        .iter()
        .filter_map(|node| match &node.node {
            Some(NodeEnum::ColumnDef(definition)) => Some((**definition).clone()),
            _ => None,
        })
        .collect()
}
