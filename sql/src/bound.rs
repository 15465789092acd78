//! The bound tree: a query after name and type resolution, independent of the executor.
//!
//! Every column that flows between relations has a [`ColumnId`], unique in its statement; expressions name columns by
//! id. All coercions are explicit. Functions and operators are resolved to a `pg_proc` oid (an operator is the function
//! that implements it). Output names may repeat, ids do not.

use std::sync::Arc;

use strandline_storage::{Root, TableAt, TableData, Value};

use crate::types::{Oid, SqlType};
use crate::virtual_table::VirtualTable;

pub type ColumnId = u32;

/// A column as a relation gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub ty: SqlType,
    /// (table oid, attnum) where the column is a table's own: RowDescription tells it.
    pub origin: Option<(Oid, i16)>,
}

/// A whole SELECT: the relation and its visible columns in order.
#[derive(Clone, Debug)]
pub struct Query {
    pub rel: Rel,
    pub columns: Vec<Column>,
}

/// A relation. `columns` lists what a node adds or renames; nodes without it pass their input's columns through.
#[derive(Clone, Debug)]
pub enum Rel {
    /// One row, no columns.
    Unit,
    /// A stored table at one moment. `key_column`: an extra Binary column with the row key (for UPDATE and DELETE).
    Scan {
        table: Arc<TableAt>,
        columns: Vec<(usize, Column)>,
        key_column: Option<Column>,
    },
    /// A table computed by us: catalogs, version tables, table functions. `columns`: position in the table's columns.
    Virtual {
        table: Arc<dyn VirtualTable>,
        args: Vec<Expr>,
        columns: Vec<(usize, Column)>,
    },
    Values {
        rows: Vec<Vec<Expr>>,
        columns: Vec<Column>,
    },
    /// Set-returning function in FROM: rows of its columns, after `ordinality` if present. Lateral arguments are `Outer`.
    Function {
        function: FunctionCall,
        columns: Vec<Column>,
        ordinality: Option<Column>,
    },
    /// Keeps nothing of the input but what `exprs` name.
    Project {
        input: Box<Rel>,
        exprs: Vec<(Column, Expr)>,
    },
    /// Set-returning functions of a select list: each row once per row of the longest function; shorter ones give NULL.
    ProjectSet {
        input: Box<Rel>,
        calls: Vec<(Column, FunctionCall)>,
    },
    Filter {
        input: Box<Rel>,
        predicate: Expr,
    },
    /// `lateral`: the right side has `Outer` references to the left side's columns.
    Join {
        left: Box<Rel>,
        right: Box<Rel>,
        kind: JoinKind,
        on: Option<Expr>,
        lateral: bool,
    },
    /// `sets`: grouping sets as positions in `group`; `None`: one set of all. Output: group columns, then aggregates.
    Aggregate {
        input: Box<Rel>,
        group: Vec<(Column, Expr)>,
        sets: Option<Vec<Vec<usize>>>,
        aggregates: Vec<(Column, AggregateCall)>,
    },
    Window {
        input: Box<Rel>,
        calls: Vec<(Column, WindowCall)>,
    },
    /// `on`: DISTINCT ON these expressions (first row in the input's order); `None`: over all of `columns`.
    Distinct {
        input: Box<Rel>,
        on: Option<Vec<Expr>>,
        columns: Vec<ColumnId>,
    },
    Sort {
        input: Box<Rel>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<Rel>,
        limit: Option<Expr>,
        offset: Option<Expr>,
        with_ties: bool,
    },
    /// Inputs are matched by position of `left_columns` and `right_columns`, already of the same types.
    SetOp {
        kind: SetOpKind,
        all: bool,
        left: Box<Rel>,
        left_columns: Vec<ColumnId>,
        right: Box<Rel>,
        right_columns: Vec<ColumnId>,
        columns: Vec<Column>,
    },
    /// Evaluated once, referred to by `CteScan`s in `body`.
    With {
        cte: u32,
        definition: Box<Query>,
        body: Box<Rel>,
    },
    /// WITH RECURSIVE: `recursive` reads `CteScan` of `cte` as its working table. `all`: UNION ALL.
    Recursive {
        cte: u32,
        base: Box<Query>,
        recursive: Box<Query>,
        all: bool,
        body: Box<Rel>,
    },
    /// `columns` by position of the definition's columns.
    CteScan {
        cte: u32,
        columns: Vec<Column>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOpKind {
    Union,
    Intersect,
    Except,
}

#[derive(Clone, Debug)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

/// Arguments are in declared order with defaults filled in. Those of a variadic function are packed into one array as its last argument,
/// except for VARIADIC "any" (concat, format, ...), which gets them one by one unless `variadic`.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// `pg_proc` oid; functions that only Strandline has are numbered from [`OWN_FUNCTION_OID`].
    pub proc: Oid,
    pub args: Vec<Expr>,
    pub ty: SqlType,
    /// The last argument was written VARIADIC.
    pub variadic: bool,
}

/// Oids of our own functions (dolt_* and the like) begin here; outside PostgreSQL's assigned range, below user objects.
pub const OWN_FUNCTION_OID: Oid = 15000;

#[derive(Clone, Debug)]
pub struct AggregateCall {
    pub proc: Oid,
    /// For an ordered-set aggregate the direct arguments; what is aggregated is in `order`.
    pub args: Vec<Expr>,
    pub ty: SqlType,
    pub distinct: bool,
    pub filter: Option<Expr>,
    /// ORDER BY inside the call, or WITHIN GROUP.
    pub order: Vec<SortKey>,
    /// `count(*)`.
    pub star: bool,
}

#[derive(Clone, Debug)]
pub struct WindowCall {
    /// A window function or an aggregate.
    pub call: AggregateCall,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
    pub frame: Frame,
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub units: FrameUnits,
    pub start: FrameBound,
    pub end: FrameBound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    Rows,
    Range,
    Groups,
}

#[derive(Clone, Debug)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(Expr),
    CurrentRow,
    Following(Expr),
    UnboundedFollowing,
}

/// A scalar expression. `ty()` tells its type.
#[derive(Clone, Debug)]
pub enum Expr {
    Const {
        value: Value,
        ty: SqlType,
    },
    /// $n, 1-based.
    Param {
        number: u32,
        ty: SqlType,
    },
    Column {
        id: ColumnId,
        ty: SqlType,
    },
    /// A column of an enclosing query (correlation) or of a lateral left side.
    Outer {
        id: ColumnId,
        ty: SqlType,
    },
    Function(FunctionCall),
    Cast {
        input: Box<Expr>,
        ty: SqlType,
        method: CastMethod,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    IsNotNull(Box<Expr>),
    /// `IS [NOT] TRUE`, `FALSE`, `UNKNOWN`: `value` is `Some(true)`, `Some(false)`, `None`.
    IsBool {
        input: Box<Expr>,
        value: Option<bool>,
        negated: bool,
    },
    /// `equal` is the `=` function of the types.
    IsDistinctFrom {
        left: Box<Expr>,
        right: Box<Expr>,
        equal: Oid,
        negated: bool,
    },
    /// Searched CASE (the simple form is bound to comparisons).
    Case {
        whens: Vec<(Expr, Expr)>,
        default: Option<Box<Expr>>,
        ty: SqlType,
    },
    Coalesce {
        args: Vec<Expr>,
        ty: SqlType,
    },
    NullIf {
        left: Box<Expr>,
        right: Box<Expr>,
        equal: Oid,
        ty: SqlType,
    },
    /// GREATEST and LEAST: `less` is the `<` function of the type.
    MinMax {
        greatest: bool,
        args: Vec<Expr>,
        less: Oid,
        ty: SqlType,
    },
    /// `x op ANY (list)` over expressions: IN lists. `all`: ALL.
    InList {
        input: Box<Expr>,
        list: Vec<Expr>,
        operator: Oid,
        all: bool,
    },
    /// `x op ANY (array)`.
    AnyArray {
        input: Box<Expr>,
        array: Box<Expr>,
        operator: Oid,
        all: bool,
    },
    /// ARRAY[...] of elements already of one type.
    Array {
        elements: Vec<Expr>,
        ty: SqlType,
    },
    Row {
        fields: Vec<(String, Expr)>,
        ty: SqlType,
    },
    /// Field of a composite value by name.
    Field {
        input: Box<Expr>,
        name: String,
        index: usize,
        ty: SqlType,
    },
    /// `a[i]`, `a[i:j]`.
    Subscript {
        input: Box<Expr>,
        subscripts: Vec<Subscript>,
        ty: SqlType,
    },
    Subquery(Box<Subquery>),
    /// GROUPING(...): positions in the aggregate's group list.
    Grouping(Vec<usize>),
}

#[derive(Clone, Debug)]
pub enum Subscript {
    Index(Expr),
    Slice(Option<Expr>, Option<Expr>),
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub kind: SubqueryKind,
    pub query: Query,
    pub ty: SqlType,
    /// The subquery has `Outer` references.
    pub correlated: bool,
}

#[derive(Clone, Debug)]
pub enum SubqueryKind {
    Exists,
    /// At most one row, else 21000.
    Scalar,
    /// `left op ANY/ALL (SELECT one column)`. IN is ANY with `=`.
    Compare {
        left: Box<Expr>,
        operator: Oid,
        all: bool,
    },
    /// Row-wise `(a, b) IN (SELECT x, y)`: one operator per column.
    CompareRow {
        left: Vec<Expr>,
        operators: Vec<Oid>,
        all: bool,
    },
    /// ARRAY(SELECT ...).
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastMethod {
    /// Same representation.
    Relabel,
    /// A cast function of `pg_cast`.
    Function(Oid),
    /// Through text: output function of one, input function of the other.
    InOut,
    /// Applies the target's type modifier to a value of the same type (varchar(n), numeric(p,s)); `explicit` truncates as casts do.
    Modifier { explicit: bool },
    /// Element-wise between array types.
    Array,
    /// A value of the domain's base type as the domain `ty`: its checks and NOT NULL apply.
    Domain,
}

/// A table's rows as of some commit, with the root it came from.
#[derive(Clone, Debug)]
pub struct TableVersion {
    pub table: Arc<TableData>,
    pub root: Root,
}

impl Expr {
    pub fn ty(&self) -> SqlType {
        use crate::types::oid::{BOOL, INT4};
        match self {
            Expr::Const { ty, .. }
            | Expr::Param { ty, .. }
            | Expr::Column { ty, .. }
            | Expr::Outer { ty, .. }
            | Expr::Cast { ty, .. }
            | Expr::Case { ty, .. }
            | Expr::Coalesce { ty, .. }
            | Expr::NullIf { ty, .. }
            | Expr::MinMax { ty, .. }
            | Expr::Array { ty, .. }
            | Expr::Row { ty, .. }
            | Expr::Field { ty, .. }
            | Expr::Subscript { ty, .. } => *ty,
            Expr::Function(call) => call.ty,
            Expr::Subquery(subquery) => subquery.ty,
            Expr::Grouping(_) => SqlType::new(INT4),
            Expr::And(_)
            | Expr::Or(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsBool { .. }
            | Expr::IsDistinctFrom { .. }
            | Expr::InList { .. }
            | Expr::AnyArray { .. } => SqlType::new(BOOL),
        }
    }
}
