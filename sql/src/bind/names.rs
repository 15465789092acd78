//! What the binder asks of its surroundings: which relation a name means, which types users made, what a constant
//! expression is worth now. The binder itself touches neither the store nor the session.

use std::fmt::Debug;
use std::sync::Arc;

use strandline_storage::schema::UserType;
use strandline_storage::value::TextSettings;
use strandline_storage::{TableAt, Value};

use crate::bound::Expr;
use crate::error::Result;
use crate::types::{Oid, SqlType};
use crate::virtual_table::VirtualTable;

/// What a relation name stands for.
#[derive(Clone, Debug)]
pub enum Relation {
    /// A stored table at one moment. Its column types are in its schema.
    Table(Arc<TableAt>),
    /// A computed table; the name is what a reference without alias is called.
    Virtual(Arc<dyn VirtualTable>),
    /// A view: the query's text is parsed and bound in the place of the name, with the columns renamed.
    View(ViewDefinition),
    /// A sequence read as a table (`SELECT last_value, is_called FROM s`).
    Sequence(Oid),
}

#[derive(Clone, Debug)]
pub struct ViewDefinition {
    pub oid: Oid,
    pub columns: Vec<String>,
    pub query: String,
}

/// The moment that AS OF asks for, its expression already evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum AsOf {
    /// A branch, tag, commit, `HEAD~2`, or a timestamp as text: whatever a ref may be.
    Ref(String),
    /// Microseconds since 2000-01-01 UTC; a timestamp without zone was taken in the session's zone.
    Timestamp(i64),
    /// `AS OF LSN '0/16B3748'`.
    Lsn(u64),
    /// `AS OF XID 735`.
    Xid(i64),
    /// The expression has parameters whose values are not known yet (Parse, Describe): the current schema serves.
    Unknown,
}

/// An argument of a table function, evaluated where that is possible before execution.
#[derive(Clone, Debug)]
pub struct TableFunctionArgument {
    pub ty: SqlType,
    /// `None`: it depends on parameters without values yet (Parse, Describe).
    pub value: Option<Value>,
}

/// The binder's surroundings. Names come folded and unquoted. `None` means "no such thing": the binder words the error.
pub trait Names {
    /// The relation; without a schema through the search path (pg_catalog first unless the path names it).
    /// # Errors
    /// Whatever makes a name unusable rather than absent: a cross-database reference, a database without such a revision.
    fn relation(&self, catalog: Option<&str>, schema: Option<&str>, name: &str) -> Result<Option<Relation>>;

    /// The schema in which [`Names::relation`] finds a plain name, so that `schema.table.column` may name it too.
    fn relation_schema(&self, _name: &str) -> Option<String> {
        None
    }

    /// The relation as a commit had it.
    fn relation_as_of(&self, catalog: Option<&str>, schema: Option<&str>, name: &str, as_of: &AsOf) -> Result<Option<Relation>>;

    /// The table that a version function gives (`dolt_diff('a', 'b', 't')`, `dolt_log('main')`). Its columns may depend on the arguments' values.
    fn table_function(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: &[TableFunctionArgument],
    ) -> Result<Option<Arc<dyn VirtualTable>>>;

    /// Says whether `name` is such a function, whatever the arguments.
    fn is_table_function(&self, schema: Option<&str>, name: &str) -> bool;

    /// A type made by a user, by name.
    fn user_type(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<UserType>>>;

    /// A type made by a user, by its own oid or its array's.
    fn user_type_by_oid(&self, oid: Oid) -> Option<Arc<UserType>>;

    /// The columns' names and types of a table's or view's row type, for casts to it and fields of it; by the relation's oid.
    fn row_type(&self, relation: Oid) -> Option<Vec<(String, SqlType)>>;

    /// What `'name'::regclass` gives: any relation, index or sequence, system ones included.
    fn relation_oid(&self, schema: Option<&str>, name: &str) -> Result<Option<Oid>>;

    /// What `'name'::regnamespace` gives; also tells whether a schema exists.
    fn schema_oid(&self, name: &str) -> Option<Oid>;

    /// What `'name'::regrole` gives.
    fn role_oid(&self, name: &str) -> Option<Oid>;

    /// The value of an expression without columns, now; `None` when it has parameters whose values are not known yet.
    fn evaluate(&self, expr: &Expr) -> Result<Option<Value>>;

    /// How texts of values are read.
    fn text_settings(&self) -> &TextSettings;
}
