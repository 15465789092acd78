//! Record batches from rows of storage values: what every computed table ends with.
//!
//! Rows are pulled one by one and only as far as the reader goes. The first batch is small and the following ones grow,
//! so a `LIMIT 20` over a long history makes few rows and a whole scan makes few batches.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use strandline_storage::{DataType, Kind, Physical, Row, Value};

use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{ColumnBuilder, Datum};
use crate::types::{Oid, SqlType, arrow_type};
use crate::virtual_table::{BatchIterator, ScanRequest, VirtualColumn};

/// Rows of the first batch of a scan.
const FIRST_BATCH_ROWS: usize = 64;
/// Rows of a batch once a scan is under way.
const BATCH_ROWS_MAX: usize = 4096;
/// By how much a batch is larger than the one before it, until the maximum.
const BATCH_GROWTH: usize = 4;

/// The columns of a computed table and how their values are kept.
#[derive(Clone, Debug)]
pub struct Shape {
    pub columns: Arc<[VirtualColumn]>,
    pub kinds: Arc<[Kind]>,
}

/// Rows that a table gives, in its own column order or already projected.
pub type RowIterator = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// The kind of a built-in type; types that storage does not know are kept as text.
pub fn kind_of(oid: Oid) -> Kind {
    DataType::builtin(oid, -1).map_or(Kind::Other, |t| t.kind)
}

impl Shape {
    /// Columns of built-in types: (name, type's oid).
    pub fn of(columns: &[(&str, Oid)]) -> Shape {
        Shape {
            columns: columns.iter().map(|(name, oid)| VirtualColumn { name: (*name).to_string(), ty: SqlType::new(*oid) }).collect(),
            kinds: columns.iter().map(|(_, oid)| kind_of(*oid)).collect(),
        }
    }

    pub fn from_columns(columns: Vec<(String, SqlType, Kind)>) -> Shape {
        let kinds = columns.iter().map(|(_, _, kind)| *kind).collect();
        Shape { columns: columns.into_iter().map(|(name, ty, _)| VirtualColumn { name, ty }).collect(), kinds }
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// Batches from whole rows; the projection is applied here.
    pub fn batches(&self, request: &ScanRequest, rows: RowIterator) -> BatchIterator {
        let projection = request.projection.clone();
        Box::new(Batches::new(self, &request.projection, request.limit, rows, Some(projection)))
    }

    /// Batches from rows that hold the request's projection already.
    pub fn projected_batches(&self, request: &ScanRequest, rows: RowIterator) -> BatchIterator {
        Box::new(Batches::new(self, &request.projection, request.limit, rows, None))
    }

    /// The one value that the query wants in this column, if it says so (in the column's own shape).
    pub fn equal<'a>(&self, request: &'a ScanRequest, name: &str) -> Option<&'a Value> {
        let position = self.position(name)?;
        let wanted = request.equal.iter().find(|(column, _)| *column == position).map(|(_, value)| value)?;
        has_shape(wanted, self.kinds[position]).then_some(wanted)
    }
}

struct Batches {
    schema: SchemaRef,
    kinds: Vec<Kind>,
    rows: RowIterator,
    /// Which column of a row goes where; `None`: as it is.
    projection: Option<Vec<usize>>,
    batch_rows: usize,
    done: bool,
}

impl Batches {
    fn new(shape: &Shape, projection: &[usize], limit: Option<usize>, rows: RowIterator, pick: Option<Vec<usize>>) -> Batches {
        let kinds: Vec<Kind> = projection.iter().map(|&i| shape.kinds[i]).collect();
        let fields: Vec<Field> =
            projection.iter().zip(&kinds).map(|(&i, &kind)| Field::new(&shape.columns[i].name, arrow_type(kind), true)).collect();
        let first = limit.map_or(FIRST_BATCH_ROWS, |l| l.clamp(1, FIRST_BATCH_ROWS));
        Batches { schema: Arc::new(Schema::new(fields)), kinds, rows, projection: pick, batch_rows: first, done: false }
    }

    fn fill(&mut self) -> Result<Option<RecordBatch>> {
        let mut columns: Vec<ColumnBuilder> =
            self.kinds.iter().map(|&kind| ColumnBuilder::new(&arrow_type(kind), self.batch_rows)).collect();
        let mut count = 0;
        while count < self.batch_rows {
            let Some(row) = self.rows.next() else {
                self.done = true;
                break;
            };
            let row = row?;
            for (i, column) in columns.iter_mut().enumerate() {
                let position = self.projection.as_ref().map_or(i, |p| p[i]);
                column.push(&Datum::from(row.get(position).unwrap_or(&Value::Null))).map_err(|_| mismatch(self.schema.field(i).name()))?;
            }
            count += 1;
        }
        self.batch_rows = (self.batch_rows * BATCH_GROWTH).min(BATCH_ROWS_MAX);
        if count == 0 {
            return Ok(None);
        }
        let arrays = columns.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map(Some)
            .map_err(|e| SqlError::new(ErrorCode::InternalError, format!("could not build a batch: {e}")))
    }
}

fn mismatch(column: &str) -> SqlError {
    SqlError::new(ErrorCode::InternalError, format!("value of column \"{column}\" has an unexpected shape"))
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.fill().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.done = true;
        }
        batch
    }
}

/// Says whether a value is in the shape that a kind's values have; NULL is in none.
pub fn has_shape(value: &Value, kind: Kind) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) => kind.physical() == Physical::Bool,
        Value::Int2(_) => kind.physical() == Physical::Int2,
        Value::Int4(_) => kind.physical() == Physical::Int4,
        Value::Int8(_) => kind.physical() == Physical::Int8,
        Value::Float4(_) => kind.physical() == Physical::Float4,
        Value::Float8(_) => kind.physical() == Physical::Float8,
        Value::Uuid(_) => kind.physical() == Physical::Uuid,
        Value::Bytes(_) => kind.physical() == Physical::Bytes,
    }
}

/// Text as a value.
pub fn text(value: impl AsRef<str>) -> Value {
    Value::bytes(value.as_ref().as_bytes())
}

/// Text or NULL.
pub fn optional_text(value: Option<impl AsRef<str>>) -> Value {
    value.map_or(Value::Null, text)
}

/// An oid, or anything of `Kind::Oid`.
pub fn oid(value: Oid) -> Value {
    Value::Int8(i64::from(value))
}

/// A `"char"`.
pub fn letter(value: u8) -> Value {
    Value::bytes([value])
}

/// An array's text from its elements' texts; `None` is a NULL element.
pub fn array<T: AsRef<str>>(elements: impl IntoIterator<Item = Option<T>>) -> Value {
    let mut out = String::from("{");
    for (i, element) in elements.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match element {
            None => out.push_str("NULL"),
            Some(element) => push_array_element(&mut out, element.as_ref()),
        }
    }
    out.push('}');
    text(out)
}

/// An array's text from things that print without need of quotes.
pub fn plain_array<T: std::fmt::Display>(elements: impl IntoIterator<Item = T>) -> Value {
    array(elements.into_iter().map(|e| Some(e.to_string())))
}

/// An int2vector's or oidvector's text.
pub fn vector<T: std::fmt::Display>(elements: impl IntoIterator<Item = T>) -> Value {
    text(elements.into_iter().map(|e| e.to_string()).collect::<Vec<_>>().join(" "))
}

/// Quotes as PostgreSQL's array_out does.
fn push_array_element(out: &mut String, element: &str) {
    let plain = !element.is_empty()
        && !element.eq_ignore_ascii_case("null")
        && !element.bytes().any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
    if plain {
        out.push_str(element);
        return;
    }
    out.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
