//! Expressions compiled once and evaluated row by row, with PostgreSQL's laziness: CASE, COALESCE, AND and OR evaluate
//! only what they must.
//!
//! The same evaluator serves constants, DML and, wrapped in a DataFusion function (`lower::function`), every expression
//! that DataFusion's own operators do not cover.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType as ArrowType;
use strandline_storage::{DataType, Physical, Value};

use crate::bound::{CastMethod, ColumnId, Expr, FunctionCall, SubqueryKind, Subscript};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::Execution;
use crate::exec::datum::{ColumnBuilder, ColumnRef, Datum, column_refs, shaped};
use crate::exec::evaluate::Env;
use crate::exec::subplan::{Subplan, Test};
use crate::functions::compare::Comparison;
use crate::functions::{self, Call, Run, Scalar, arrays, casts, compare};
use crate::lower::walk;
use crate::statement::DomainConditions;
use crate::types::{Oid, SqlType, arrow_type};

/// How often long loops look at the cancel flag.
pub const CANCEL_INTERVAL: usize = 1024;

/// Where the values of columns come from.
pub trait RowAccess {
    fn get(&self, column: usize) -> Datum<'_>;
}

/// One row of Arrow columns.
pub struct BatchRow<'a> {
    pub columns: &'a [ColumnRef<'a>],
    pub row: usize,
}

impl RowAccess for BatchRow<'_> {
    fn get(&self, column: usize) -> Datum<'_> {
        self.columns.get(column).map_or(Datum::Null, |c| c.get(self.row))
    }
}

impl RowAccess for [Value] {
    fn get(&self, column: usize) -> Datum<'_> {
        <[Value]>::get(self, column).map_or(Datum::Null, Datum::from)
    }
}

impl RowAccess for Vec<Value> {
    fn get(&self, column: usize) -> Datum<'_> {
        <[Value]>::get(self, column).map_or(Datum::Null, Datum::from)
    }
}

/// A function call with its implementation.
#[derive(Debug)]
pub(super) struct CallNode {
    pub(super) call: Call,
    pub(super) run: RunKind,
    pub(super) args: Vec<Node>,
}

#[derive(Clone, Copy)]
pub(super) enum RunKind {
    Run(Run),
    Compare(Comparison),
}

impl std::fmt::Debug for RunKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("run")
    }
}

/// A function of two arguments, as `=` of a type.
#[derive(Debug)]
pub struct Binary {
    call: Call,
    run: RunKind,
}

impl Binary {
    /// # Errors
    /// `FeatureNotSupported` when nothing implements the function.
    pub fn new(context: &Arc<StatementContext>, proc: Oid, left: SqlType, right: SqlType) -> Result<Self> {
        let row = functions::proc(proc)?;
        let args = vec![casts::data_type(context, left)?, casts::data_type(context, right)?];
        let result = casts::data_type(context, SqlType::new(row.return_type))?;
        Ok(Binary { run: run_kind(row)?, call: Call::new(Arc::clone(context), row, args, result, false) })
    }

    /// Says whether this is equality of two values of one type, so that a set of keys answers it.
    pub fn is_hashable_equality(&self) -> bool {
        matches!(self.run, RunKind::Compare(Comparison::Eq)) && self.call.args[0].oid == self.call.args[1].oid
    }

    pub fn left_type(&self) -> &DataType {
        &self.call.args[0]
    }

    pub fn right_type(&self) -> &DataType {
        &self.call.args[1]
    }

    pub fn run(&self, left: &Datum<'_>, right: &Datum<'_>) -> Result<Datum<'static>> {
        run(&self.call, self.run, &[left.borrowed(), right.borrowed()])
    }
}

fn run_kind(proc: &'static crate::catalog_data::ProcRow) -> Result<RunKind> {
    Ok(match functions::scalar(proc)? {
        Scalar::Run(f) => RunKind::Run(f),
        Scalar::Compare(c) => RunKind::Compare(c),
    })
}

pub(super) fn run(call: &Call, kind: RunKind, args: &[Datum<'_>]) -> Result<Datum<'static>> {
    match kind {
        RunKind::Run(f) => {
            // `row_to_json` of names and values takes NULLs as values.
            let strict = call.proc.strict && !(call.proc.oid == walk::ROW_TO_JSON && args.len() > 1);
            if strict && args.iter().any(Datum::is_null) {
                return Ok(Datum::Null);
            }
            Ok(Datum::from(f(call, args)?))
        }
        RunKind::Compare(comparison) => {
            let [a, b] = args else { return Ok(Datum::Null) };
            if a.is_null() || b.is_null() {
                return Ok(Datum::Null);
            }
            Ok(Datum::Bool(comparison.holds(compare::compare(&call.context, &call.args[0], a, &call.args[1], b)?)))
        }
    }
}

#[derive(Debug)]
pub(super) enum Node {
    Const(Value),
    Column(usize),
    /// A parameter of the subplan that this expression is in.
    Slot(ColumnId),
    Call(Box<CallNode>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>, bool),
    /// A row is null when all its fields are, and not null when none is: both may be false.
    RowIsNull(Box<Node>, bool),
    IsBool {
        input: Box<Node>,
        value: Option<bool>,
        negated: bool,
    },
    Distinct {
        left: Box<Node>,
        right: Box<Node>,
        equal: Box<Binary>,
        negated: bool,
    },
    Case {
        whens: Vec<(Node, Node)>,
        default: Option<Box<Node>>,
    },
    Coalesce(Vec<Node>),
    NullIf {
        left: Box<Node>,
        right: Box<Node>,
        equal: Box<Binary>,
    },
    MinMax {
        greatest: bool,
        args: Vec<Node>,
        data_type: DataType,
    },
    InList {
        input: Box<Node>,
        list: Vec<Node>,
        operator: Box<Binary>,
        all: bool,
    },
    AnyArray {
        input: Box<Node>,
        array: Box<Node>,
        array_type: DataType,
        operator: Box<Binary>,
        all: bool,
    },
    Array {
        elements: Vec<Node>,
        element: DataType,
        nested: bool,
    },
    Row {
        fields: Vec<(Node, DataType)>,
    },
    Field {
        input: Box<Node>,
        index: usize,
        data_type: DataType,
    },
    Subscript {
        input: Box<Node>,
        input_type: DataType,
        subscripts: Vec<NodeSubscript>,
        result: DataType,
    },
    InOut {
        input: Box<Node>,
        from: DataType,
        to: DataType,
    },
    Modifier {
        input: Box<Node>,
        data_type: DataType,
        explicit: bool,
    },
    Domain {
        input: Box<Node>,
        conditions: Arc<DomainConditions>,
    },
    ArrayCast {
        input: Box<Node>,
        from: DataType,
        to: DataType,
        element: Box<Node>,
    },
    Subplan {
        plan: Arc<Subplan>,
        params: Vec<(ColumnId, usize)>,
        test: SubplanTest,
    },
    SortKey {
        input: Box<Node>,
        data_type: DataType,
    },
}

#[derive(Debug)]
pub(super) enum SubplanTest {
    Exists,
    Scalar,
    Array(DataType),
    Compare { left: Vec<Node>, test: Test },
}

#[derive(Debug)]
pub(super) enum NodeSubscript {
    Index(Node),
    Slice(Option<Node>, Option<Node>),
}

/// A compiled expression.
#[derive(Debug)]
pub struct Evaluator {
    node: Node,
    execution: Arc<Execution>,
    data_type: DataType,
}

/// Turns column ids into positions of the row that the evaluator will be given.
pub type Positions<'a> = &'a dyn Fn(ColumnId) -> Option<usize>;

struct Compiler<'a> {
    execution: &'a Arc<Execution>,
    context: &'a Arc<StatementContext>,
    positions: Positions<'a>,
}

impl Evaluator {
    /// # Errors
    /// `FeatureNotSupported` for functions without an implementation; what constant subexpressions raise is raised when evaluated.
    pub fn new(expr: &Expr, execution: &Arc<Execution>, positions: Positions<'_>) -> Result<Self> {
        let compiler = Compiler { execution, context: &execution.context, positions };
        let node = compiler.node(expr)?;
        let data_type = casts::data_type(&execution.context, expr.ty())?;
        Ok(Evaluator { node, execution: Arc::clone(execution), data_type })
    }

    /// The expression's value as bytes that compare like it (see [`compare::sort_key`]).
    ///
    /// # Errors
    /// As [`Evaluator::new`].
    pub fn sort_key(expr: &Expr, execution: &Arc<Execution>, positions: Positions<'_>) -> Result<Self> {
        let inner = Self::new(expr, execution, positions)?;
        let mut data_type = inner.data_type.clone();
        data_type.kind = strandline_storage::Kind::Bytea;
        Ok(Evaluator {
            node: Node::SortKey { input: Box::new(inner.node), data_type: inner.data_type },
            execution: inner.execution,
            data_type,
        })
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub fn arrow_type(&self) -> ArrowType {
        arrow_type(self.data_type.kind)
    }

    /// # Errors
    /// Whatever the expression raises.
    pub fn eval<'a>(&'a self, row: &'a (impl RowAccess + ?Sized)) -> Result<Datum<'a>> {
        self.node.eval(&Env { execution: &self.execution, row })
    }

    /// # Errors
    /// Whatever the expression raises.
    pub fn value(&self, row: &(impl RowAccess + ?Sized)) -> Result<Value> {
        Ok(self.eval(row)?.into_value())
    }

    /// Evaluates for every row of `columns`.
    ///
    /// # Errors
    /// Whatever the expression raises.
    pub fn batch(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let columns = column_refs(columns)?;
        let mut out = ColumnBuilder::new(&self.arrow_type(), rows);
        for row in 0..rows {
            if row % CANCEL_INTERVAL == 0 {
                self.execution.context.check_cancel()?;
            }
            out.push(&self.eval(&BatchRow { columns: &columns, row })?)?;
        }
        Ok(out.finish())
    }
}

impl Compiler<'_> {
    fn data_type(&self, ty: SqlType) -> Result<DataType> {
        casts::data_type(self.context, ty)
    }

    fn nodes(&self, exprs: &[Expr]) -> Result<Vec<Node>> {
        exprs.iter().map(|e| self.node(e)).collect()
    }

    fn boxed(&self, expr: &Expr) -> Result<Box<Node>> {
        Ok(Box::new(self.node(expr)?))
    }

    fn call(&self, call: &FunctionCall) -> Result<CallNode> {
        let proc = functions::proc(call.proc)?;
        let named: Vec<Expr>;
        let args = if walk::makes_json(call.proc) && call.args.iter().any(|a| matches!(a, Expr::Row { .. })) {
            named = call.args.iter().map(|a| walk::json_row(a).unwrap_or_else(|| a.clone())).collect();
            &named
        } else {
            &call.args
        };
        let types = args.iter().map(|a| self.data_type(a.ty())).collect::<Result<Vec<_>>>()?;
        Ok(CallNode {
            run: run_kind(proc)?,
            args: self.nodes(args)?,
            call: Call::new(Arc::clone(self.context), proc, types, self.data_type(call.ty)?, call.variadic),
        })
    }

    fn binary(&self, proc: Oid, left: SqlType, right: SqlType) -> Result<Box<Binary>> {
        Ok(Box::new(Binary::new(self.context, proc, left, right)?))
    }

    fn node(&self, expr: &Expr) -> Result<Node> {
        Ok(match expr {
            Expr::Const { value, ty } => Node::Const(shaped(value, self.data_type(*ty)?.kind)),
            Expr::Param { number, ty } => Node::Const(shaped(&parameter(self.context, *number)?, self.data_type(*ty)?.kind)),
            Expr::Column { id, .. } => match (self.positions)(*id) {
                Some(position) => Node::Column(position),
                None => return Err(SqlError::new(ErrorCode::InternalError, format!("column {id} is not part of the row"))),
            },
            Expr::Outer { id, .. } => match (self.positions)(*id) {
                Some(position) => Node::Column(position),
                None => Node::Slot(*id),
            },
            Expr::Function(call) => {
                let node = self.call(call)?;
                // Immutable functions of constants are computed once; an error stays where evaluation would meet it.
                if node.call.proc.volatility == b'i' && !node.args.is_empty() && node.args.iter().all(|a| matches!(a, Node::Const(_))) {
                    let node = Node::Call(Box::new(node));
                    let value = node.eval(&Env { execution: self.execution, row: &NoRow }).map(Datum::into_value);
                    match value {
                        Ok(value) => Node::Const(value),
                        Err(_) => node,
                    }
                } else {
                    Node::Call(Box::new(node))
                }
            }
            Expr::Cast { input, ty, method } => self.cast(input, *ty, *method)?,
            Expr::And(list) => Node::And(self.nodes(list)?),
            Expr::Or(list) => Node::Or(self.nodes(list)?),
            Expr::Not(input) => Node::Not(self.boxed(input)?),
            Expr::IsNull(input) if input.ty().is_row() => Node::RowIsNull(self.boxed(input)?, true),
            Expr::IsNotNull(input) if input.ty().is_row() => Node::RowIsNull(self.boxed(input)?, false),
            Expr::IsNull(input) => Node::IsNull(self.boxed(input)?, true),
            Expr::IsNotNull(input) => Node::IsNull(self.boxed(input)?, false),
            Expr::IsBool { input, value, negated } => Node::IsBool { input: self.boxed(input)?, value: *value, negated: *negated },
            Expr::IsDistinctFrom { left, right, equal, negated } => Node::Distinct {
                left: self.boxed(left)?,
                right: self.boxed(right)?,
                equal: self.binary(*equal, left.ty(), right.ty())?,
                negated: *negated,
            },
            Expr::Case { whens, default, .. } => Node::Case {
                whens: whens.iter().map(|(w, t)| Ok((self.node(w)?, self.node(t)?))).collect::<Result<_>>()?,
                default: default.as_deref().map(|d| self.boxed(d)).transpose()?,
            },
            Expr::Coalesce { args, .. } => Node::Coalesce(self.nodes(args)?),
            Expr::NullIf { left, right, equal, .. } => {
                Node::NullIf { left: self.boxed(left)?, right: self.boxed(right)?, equal: self.binary(*equal, left.ty(), right.ty())? }
            }
            Expr::MinMax { greatest, args, ty, .. } => {
                Node::MinMax { greatest: *greatest, args: self.nodes(args)?, data_type: self.data_type(*ty)? }
            }
            Expr::InList { input, list, operator, all } => {
                let right = list.first().map_or(input.ty(), Expr::ty);
                Node::InList {
                    input: self.boxed(input)?,
                    list: self.nodes(list)?,
                    operator: self.binary(*operator, input.ty(), right)?,
                    all: *all,
                }
            }
            Expr::AnyArray { input, array, operator, all } => {
                let array_type = self.data_type(array.ty())?;
                let element = arrays::element_type(self.context, &array_type)?;
                Node::AnyArray {
                    input: self.boxed(input)?,
                    array: self.boxed(array)?,
                    operator: self.binary(*operator, input.ty(), SqlType { oid: element.oid, typmod: -1 })?,
                    array_type,
                    all: *all,
                }
            }
            Expr::Array { elements, ty } => {
                let data_type = self.data_type(*ty)?;
                let nested = elements.first().is_some_and(|e| e.ty().oid == ty.oid);
                Node::Array { elements: self.nodes(elements)?, element: (*arrays::element_type(self.context, &data_type)?).clone(), nested }
            }
            Expr::Row { fields, .. } => {
                Node::Row { fields: fields.iter().map(|(_, e)| Ok((self.node(e)?, self.data_type(e.ty())?))).collect::<Result<_>>()? }
            }
            Expr::Field { input, index, ty, .. } => {
                Node::Field { input: self.boxed(input)?, index: *index, data_type: self.data_type(*ty)? }
            }
            Expr::Subscript { input, subscripts, ty } => Node::Subscript {
                input_type: self.data_type(input.ty())?,
                input: self.boxed(input)?,
                subscripts: subscripts
                    .iter()
                    .map(|s| {
                        Ok(match s {
                            Subscript::Index(e) => NodeSubscript::Index(self.node(e)?),
                            Subscript::Slice(a, b) => NodeSubscript::Slice(
                                a.as_ref().map(|e| self.node(e)).transpose()?,
                                b.as_ref().map(|e| self.node(e)).transpose()?,
                            ),
                        })
                    })
                    .collect::<Result<_>>()?,
                result: self.data_type(*ty)?,
            },
            Expr::Subquery(subquery) => self.subquery(subquery)?,
            Expr::Grouping(_) => return Err(SqlError::unsupported("GROUPING in this place")),
        })
    }

    fn subquery(&self, subquery: &crate::bound::Subquery) -> Result<Node> {
        let plan = Arc::new(Subplan::new(subquery.query.clone(), self.execution));
        let params = plan.outer().iter().filter_map(|&id| Some((id, (self.positions)(id)?))).collect();
        let column = |i: usize| -> Result<SqlType> {
            subquery.query.columns.get(i).map(|c| c.ty).ok_or_else(|| SqlError::new(ErrorCode::SyntaxError, "subquery has too few columns"))
        };
        let test = match &subquery.kind {
            SubqueryKind::Exists => SubplanTest::Exists,
            SubqueryKind::Scalar => SubplanTest::Scalar,
            SubqueryKind::Array => SubplanTest::Array(self.data_type(column(0)?)?),
            SubqueryKind::Compare { left, operator, all } => SubplanTest::Compare {
                test: Test::new(vec![*self.binary(*operator, left.ty(), column(0)?)?], *all),
                left: vec![self.node(left)?],
            },
            SubqueryKind::CompareRow { left, operators, all } => SubplanTest::Compare {
                test: Test::new(
                    left.iter()
                        .zip(operators)
                        .enumerate()
                        .map(|(i, (l, &op))| Ok(*self.binary(op, l.ty(), column(i)?)?))
                        .collect::<Result<_>>()?,
                    *all,
                ),
                left: self.nodes(left)?,
            },
        };
        Ok(Node::Subplan { plan, params, test })
    }

    fn cast(&self, input: &Expr, ty: SqlType, method: CastMethod) -> Result<Node> {
        let node = self.node(input)?;
        Ok(match method {
            CastMethod::Relabel => {
                let (from, to) = (self.data_type(input.ty())?, self.data_type(ty)?);
                // The catalog's "same representation" is PostgreSQL's; ours may differ (int4 and oid, cidr and inet do not).
                if arrow_type(from.kind) == arrow_type(to.kind) {
                    node
                } else {
                    match node {
                        Node::Const(value)
                            if !value.is_null() && matches!(to.kind.physical(), Physical::Int2 | Physical::Int4 | Physical::Int8) =>
                        {
                            Node::Const(shaped(&value, to.kind))
                        }
                        node => Node::InOut { input: Box::new(node), from, to },
                    }
                }
            }
            CastMethod::Function(proc) => {
                let proc = functions::proc(proc)?;
                let mut args = vec![node];
                let mut types = vec![self.data_type(input.ty())?];
                if proc.arg_types.len() > 1 {
                    args.push(Node::Const(Value::Int4(ty.typmod)));
                    types.push(self.data_type(SqlType::new(crate::types::oid::INT4))?);
                }
                if proc.arg_types.len() > 2 {
                    args.push(Node::Const(Value::Bool(true)));
                    types.push(self.data_type(SqlType::new(crate::types::oid::BOOL))?);
                }
                let to = self.data_type(ty)?;
                let returned = self.data_type(SqlType::new(proc.return_type))?;
                // PostgreSQL makes an oid of an int2 by int4(int2): the same bits there, another shape here.
                if arrow_type(returned.kind) != arrow_type(to.kind) {
                    let call = Call::new(Arc::clone(self.context), proc, types, returned.clone(), false);
                    let node = Node::Call(Box::new(CallNode { run: run_kind(proc)?, args, call }));
                    return Ok(Node::InOut { input: Box::new(node), from: returned, to });
                }
                let call = Call::new(Arc::clone(self.context), proc, types, to, false);
                Node::Call(Box::new(CallNode { run: run_kind(proc)?, args, call }))
            }
            CastMethod::InOut => Node::InOut { input: Box::new(node), from: self.data_type(input.ty())?, to: self.data_type(ty)? },
            CastMethod::Modifier { explicit } => Node::Modifier { input: Box::new(node), data_type: self.data_type(ty)?, explicit },
            CastMethod::Domain => match DomainConditions::of(self.context, ty.oid)? {
                Some(conditions) => Node::Domain { input: Box::new(node), conditions: Arc::new(conditions) },
                None => node,
            },
            CastMethod::Array => {
                let (from, to) = (self.data_type(input.ty())?, self.data_type(ty)?);
                let (a, b) = (arrays::element_type(self.context, &from)?, arrays::element_type(self.context, &to)?);
                let source = SqlType { oid: a.oid, typmod: a.typmod };
                let target = SqlType { oid: b.oid, typmod: ty.typmod };
                let element = casts::element_cast(source, target);
                // The element cast reads its input as column 0.
                let compiler = Compiler { positions: &|id| (id == ELEMENT_COLUMN).then_some(0), ..*self };
                let element = Box::new(compiler.node(&element)?);
                Node::ArrayCast { input: Box::new(node), from, to, element }
            }
        })
    }
}

/// The column id under which an array's element is cast.
pub const ELEMENT_COLUMN: ColumnId = ColumnId::MAX;

/// $n's value.
///
/// # Errors
/// `UndefinedParameter`.
pub fn parameter(context: &StatementContext, number: u32) -> Result<Value> {
    context
        .params
        .iter()
        .nth((number as usize).wrapping_sub(1))
        .cloned()
        .ok_or_else(|| SqlError::new(ErrorCode::UndefinedParameter, format!("there is no parameter ${number}")))
}

/// A row without columns.
pub struct NoRow;

impl RowAccess for NoRow {
    fn get(&self, _: usize) -> Datum<'_> {
        Datum::Null
    }
}
