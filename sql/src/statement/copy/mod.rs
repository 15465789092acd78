//! COPY FROM STDIN and TO STDOUT: text, CSV, binary.
//!
//! Input is loaded on a blocking thread that takes the client's chunks from a channel. Into an empty table rows go in bulk
//! (`Edit::replace_rows`), otherwise one by one; either way NOT NULL, CHECK and keys are checked, and an error undoes it all.

mod decode;
mod options;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use pg_query::NodeEnum;
use pg_query::protobuf::CopyStmt;
use strandline_storage::{DataType, Edit, Row, TableSchema, Value};
use tokio::sync::mpsc::Receiver;

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::{Datum, column_refs};
use crate::functions::casts;
use crate::parse::Statement;
use crate::session::{CopyIn, CopyOut, Outcome, Session, SessionCore};
use crate::statement::copy::decode::{BINARY_SIGNATURE, Decoder, Field};
use crate::statement::copy::options::{CopyOptions, Format};
use crate::statement::dml::{self, Checks, Filler, foreign_keys};
use crate::statement::{ddl, query, tree};
use crate::system::identifier::quote_identifier;

pub fn execute(session: &mut Session, statement: &Statement, copy: &CopyStmt) -> Result<Outcome> {
    if copy.is_program {
        return Err(SqlError::unsupported("COPY with PROGRAM"));
    }
    if !copy.filename.is_empty() {
        return Err(SqlError::unsupported("COPY with a file of the server").hint("Use STDIN, STDOUT or psql's \\copy command."));
    }
    let options = CopyOptions::read(&copy.options, copy.is_from, &statement.source)?;
    if copy.is_from { copy_from(session, statement, copy, options) } else { copy_to(session, statement, copy, options) }
}

/// The columns that COPY names, or all that are not generated.
fn columns(table: &TableSchema, names: &[String]) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..table.columns.len()).filter(|at| table.columns[*at].generated.is_none()).collect());
    }
    let mut found = Vec::new();
    for name in names {
        let at = table.column_index(name).ok_or_else(|| {
            SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{name}\" of relation \"{}\" does not exist", table.name))
        })?;
        if table.columns[at].generated.is_some() {
            return Err(SqlError::new(ErrorCode::InvalidColumnReference, format!("column \"{name}\" is a generated column"))
                .detail("Generated columns cannot be used in COPY."));
        }
        if found.contains(&at) {
            return Err(SqlError::new(ErrorCode::DuplicateColumn, format!("column \"{name}\" specified more than once")));
        }
        found.push(at);
    }
    Ok(found)
}

fn copy_from(session: &mut Session, _statement: &Statement, copy: &CopyStmt, options: CopyOptions) -> Result<Outcome> {
    let core = session.core.clone();
    core.check_writable("COPY FROM")?;
    if copy.where_clause.is_some() {
        return Err(SqlError::unsupported("COPY FROM with WHERE"));
    }
    let context = core.statement_context(Vec::new())?;
    let (schema, name) = tree::range_name(tree::range(&copy.relation)?);
    let table = ddl::find_table(&context, schema.as_deref(), &name)?;
    let positions = columns(&table, &tree::strings(&copy.attlist))?;
    for set in [&options.force_not_null, &options.force_null] {
        if let options::ColumnSet::Named(names) = set
            && let Some(unknown) = names.iter().find(|n| table.column_index(n).is_none())
        {
            return Err(SqlError::new(
                ErrorCode::UndefinedColumn,
                format!("column \"{unknown}\" of relation \"{}\" does not exist", table.name),
            ));
        }
    }
    let binary = options.format == Format::Binary;
    let column_count = positions.len();
    let load = Box::new(move |input: Receiver<Result<Bytes>>| load(&core, &context, &table, positions, options, input));
    Ok(Outcome::CopyIn(CopyIn { binary, column_count, load }))
}

/// Rows from the client's chunks.
struct RowReader<'a> {
    context: &'a Arc<StatementContext>,
    table: &'a TableSchema,
    positions: &'a [usize],
    options: &'a CopyOptions,
    decoder: Decoder,
    input: Receiver<Result<Bytes>>,
    filler: Filler,
    checks: Checks,
    header_due: bool,
    count: u64,
}

impl RowReader<'_> {
    /// The next record's fields.
    fn record(&mut self) -> Result<Option<Vec<Field>>> {
        let mut ended = false;
        loop {
            if let Some(fields) = self.decoder.next().map_err(|e| self.in_record(e))? {
                return Ok(Some(fields));
            }
            if ended {
                return Ok(None);
            }
            self.context.check_cancel()?;
            match self.input.blocking_recv() {
                Some(chunk) => self.decoder.push(&chunk?),
                None => {
                    ended = true;
                    self.decoder.end();
                }
            }
        }
    }

    /// The error with the place of the record that was read last.
    fn in_record(&self, mut error: SqlError) -> SqlError {
        let (table, line) = (&self.table.name, self.decoder.line);
        let failed = self.decoder.failed_field.and_then(|at| self.positions.get(at));
        let column = match failed {
            Some(at) => Some(self.table.columns[*at].name.clone()),
            None => error.column.clone().filter(|_| error.code != ErrorCode::NotNullViolation),
        };
        let record = String::from_utf8_lossy(&self.decoder.record);
        error.context = Some(match column {
            Some(column) => format!("COPY {table}, line {line}, column {column}"),
            None if !record.is_empty() && error.code != ErrorCode::CharacterNotInRepertoire => {
                format!("COPY {table}, line {line}: \"{}\"", shortened(&record))
            }
            None => format!("COPY {table}, line {line}"),
        });
        error
    }

    fn row(&mut self) -> Result<Option<Row>> {
        if std::mem::take(&mut self.header_due)
            && let Some(header) = self.record()?
        {
            self.check_header(&header).map_err(|e| self.in_record(e))?;
        }
        let Some(fields) = self.record()? else { return Ok(None) };
        let row = self.convert(fields).map_err(|e| self.in_record(e))?;
        self.count += 1;
        Ok(Some(row))
    }

    fn check_header(&self, header: &[Field]) -> Result<()> {
        if !self.options.header_match {
            return Ok(());
        }
        let mismatch = |message: String| Err(SqlError::new(ErrorCode::BadCopyFileFormat, message));
        if header.len() != self.positions.len() {
            return mismatch(format!("wrong number of fields in header line: got {}, expected {}", header.len(), self.positions.len()));
        }
        for (i, (field, at)) in header.iter().zip(self.positions).enumerate() {
            let expected = &self.table.columns[*at].name;
            let got = match &field.bytes {
                Some(bytes) if bytes == expected.as_bytes() => continue,
                Some(bytes) => format!("\"{}\"", String::from_utf8_lossy(bytes)),
                None => format!("null value (\"{}\")", self.options.null),
            };
            return mismatch(format!("column name mismatch in header line field {}: got {got}, expected \"{expected}\"", i + 1));
        }
        Ok(())
    }

    fn convert(&self, fields: Vec<Field>) -> Result<Row> {
        if fields.len() > self.positions.len() {
            return Err(SqlError::new(ErrorCode::BadCopyFileFormat, "extra data after last expected column"));
        }
        let mut row = vec![Value::Null; self.table.columns.len()];
        let mut fields = fields.into_iter();
        for at in self.positions {
            let column = &self.table.columns[*at];
            let Some(field) = fields.next() else {
                return Err(SqlError::new(ErrorCode::BadCopyFileFormat, format!("missing data for column \"{}\"", column.name)));
            };
            let bytes = match field.bytes {
                None if self.options.force_not_null.has(&column.name) => Some(self.options.null.clone().into_bytes()),
                Some(bytes) if field.quoted && self.options.force_null.has(&column.name) && bytes == self.options.null.as_bytes() => None,
                bytes => bytes,
            };
            let Some(bytes) = bytes else { continue };
            row[*at] = self.value(&column.data_type, &bytes).map_err(|mut error| {
                error.column = Some(match std::str::from_utf8(&bytes) {
                    // The bytes of the whole line are not text.
                    _ if error.code == ErrorCode::CharacterNotInRepertoire && self.options.format != Format::Binary => return error,
                    Ok(text) if self.options.format != Format::Binary => format!("{}: \"{}\"", column.name, shortened(text)),
                    _ => column.name.clone(),
                });
                error
            })?;
        }
        self.filler.fill(&mut row)?;
        self.checks.generate(&mut row)?;
        self.checks.check(&row)?;
        Ok(row)
    }

    fn value(&self, data_type: &DataType, bytes: &[u8]) -> Result<Value> {
        if self.options.format == Format::Binary {
            return Ok(data_type.from_binary(bytes)?);
        }
        let text = std::str::from_utf8(bytes).map_err(|e| crate::functions::text::invalid_utf8(&bytes[e.valid_up_to()..]))?;
        if text.contains('\0') {
            return Err(SqlError::new(ErrorCode::CharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\": 0x00"));
        }
        casts::input(self.context, data_type, text)
    }
}

/// At most 100 bytes of a value or line, as PostgreSQL shows it in an error's context.
fn shortened(text: &str) -> Cow<'_, str> {
    const LENGTH_MAX: usize = 100;
    if text.len() <= LENGTH_MAX {
        return text.into();
    }
    let end = (0..=LENGTH_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &text[..end]).into()
}

/// The column that a conversion failed at is for the context line only.
fn without_column(mut error: SqlError) -> SqlError {
    if error.context.is_some() && error.code != ErrorCode::NotNullViolation {
        error.column = None;
    }
    error
}

fn load(
    core: &Arc<SessionCore>,
    context: &Arc<StatementContext>,
    table: &Arc<TableSchema>,
    positions: Vec<usize>,
    options: CopyOptions,
    input: Receiver<Result<Bytes>>,
) -> Result<String> {
    let missing: Vec<usize> = (0..table.columns.len()).filter(|at| !positions.contains(at)).collect();
    let mut reader = RowReader {
        context,
        table,
        positions: &positions,
        options: &options,
        decoder: Decoder::new(options.clone(), positions.len()),
        input,
        filler: Filler::new(context, table, &missing)?,
        checks: Checks::new(context, table)?,
        header_due: options.header,
        count: 0,
    };
    core.with_edit("COPY FROM", |edit| {
        let is_empty = edit.root().table(table.oid).is_some_and(|data| data.is_empty());
        if is_empty {
            load_all(edit, &mut reader)?
        } else {
            load_each(edit, &mut reader)?
        }
        Ok(())
    })
    .map_err(without_column)?;
    Ok(format!("COPY {}", reader.count))
}

fn load_all(edit: &mut Edit, reader: &mut RowReader<'_>) -> Result<()> {
    let table = reader.table.clone();
    let context = reader.context.clone();
    let mut failure = None;
    let mut rows = std::iter::from_fn(|| match reader.row() {
        Ok(row) => row.map(Ok),
        Err(error) => {
            let stop = strandline_storage::Error::Invalid(error.message.clone());
            failure = Some(error);
            Some(Err(stop))
        }
    });
    let result = edit.replace_rows(table.oid, &mut rows);
    if let Some(error) = failure {
        return Err(error);
    }
    result.map_err(|e| reader.checks.located(e.into()))?;
    let references = table.constraints.iter().any(|c| matches!(c.kind, strandline_storage::schema::ConstraintKind::ForeignKey { .. }));
    if references {
        let root = edit.root().clone();
        foreign_keys::validate_all(&context, &root, &table)?;
    }
    Ok(())
}

fn load_each(edit: &mut Edit, reader: &mut RowReader<'_>) -> Result<()> {
    let references =
        reader.table.constraints.iter().any(|c| matches!(c.kind, strandline_storage::schema::ConstraintKind::ForeignKey { .. }));
    let mut changes = Vec::new();
    while let Some(row) = reader.row()? {
        if references {
            changes.push(foreign_keys::Change { old: None, new: Some(row.clone()) });
        }
        edit.insert(reader.table.oid, row).map_err(|e| {
            let mut error = reader.checks.located(e.into());
            error.context = Some(format!("COPY {}, line {}", reader.table.name, reader.decoder.line));
            error
        })?;
    }
    foreign_keys::enforce(reader.context, edit, reader.table.oid, &changes)
}

fn copy_to(session: &mut Session, statement: &Statement, copy: &CopyStmt, options: CopyOptions) -> Result<Outcome> {
    let context = session.core.statement_context(Vec::new())?;
    let (source, node) = match &copy.query {
        Some(inner) => {
            let node = inner.node.clone().ok_or_else(tree::malformed)?;
            if !matches!(node, NodeEnum::SelectStmt(_)) || dml::modifying_ctes(&node) {
                return Err(SqlError::unsupported("COPY of a data-modifying statement"));
            }
            (statement.source.clone(), node)
        }
        None => {
            let (schema, name) = tree::range_name(tree::range(&copy.relation)?);
            let names = tree::strings(&copy.attlist);
            let plain = statement.source.relation_name(&name).to_owned();
            let list = match ddl::relation(&context, schema.as_deref(), &plain).map(|o| (**o).clone()) {
                Some(strandline_storage::CatalogObject::Table(table)) => {
                    let positions = columns(&table, &names)?;
                    positions.iter().map(|at| quote_identifier(&table.columns[*at].name)).collect::<Vec<_>>().join(", ")
                }
                Some(strandline_storage::CatalogObject::View(_)) => {
                    return Err(SqlError::new(ErrorCode::WrongObjectType, format!("cannot copy from view \"{plain}\""))
                        .hint("Try the COPY (SELECT ...) TO variant."));
                }
                Some(_) => {
                    return Err(SqlError::new(ErrorCode::WrongObjectType, format!("cannot copy from sequence \"{plain}\"")));
                }
                None if names.is_empty() => "*".to_owned(),
                None => names.iter().map(|n| quote_identifier(n)).collect::<Vec<_>>().join(", "),
            };
            let list = if list.is_empty() { String::new() } else { list };
            let target = match &schema {
                Some(schema) => format!("{}.{}", quote_identifier(schema), quote_identifier(&plain)),
                None => quote_identifier(&plain).into_owned(),
            };
            crate::parse::parse_stored(&format!("SELECT {list} FROM {target}"))?
        }
    };
    let (bound, params) = query::bind(&context, &source, &node, &[])?;
    if !params.is_empty() {
        return Err(SqlError::new(ErrorCode::UndefinedParameter, "there is no parameter $1"));
    }
    let batches = crate::exec::run(&bound, context.clone())?;
    let names: Vec<String> = batches.columns.iter().map(|c| c.name.clone()).collect();
    if let options::ColumnSet::Named(forced) = &options.force_quote
        && let Some(unknown) = forced.iter().find(|n| !names.contains(n))
    {
        let of = copy.relation.as_ref().map_or_else(String::new, |r| format!(" of relation \"{}\"", r.relname));
        return Err(SqlError::new(ErrorCode::UndefinedColumn, format!("column \"{unknown}\"{of} does not exist")));
    }
    let writer = RowWriter { context, options, types: batches.types.clone(), names };
    let column_count = writer.types.len();
    let binary = writer.options.format == Format::Binary;
    // As PostgreSQL sends it: the binary header is in one message with the first row, which clients rely on.
    let (head, first) = if binary { (Vec::new(), Some(writer.binary_head())) } else { (writer.head(), None) };
    let rows = futures::stream::unfold(Some((batches, writer, first)), |state| async move {
        let (mut batches, writer, mut first) = state?;
        let Some(batch) = batches.next().await else {
            if writer.options.format != Format::Binary {
                return None;
            }
            let mut tail = first.unwrap_or_default();
            tail.put_i16(-1);
            return Some((Ok((vec![tail.freeze()], 0)), None));
        };
        let encoded = batch.and_then(|batch| writer.batch(&batch)).map(|(mut chunks, count)| {
            if let Some(chunk) = chunks.first_mut()
                && let Some(mut head) = first.take()
            {
                head.put_slice(chunk);
                *chunk = head.freeze();
            }
            (chunks, count)
        });
        Some((encoded, Some((batches, writer, first))))
    });
    let chunks = futures::stream::iter([Ok((head, 0))]).chain(rows).boxed();
    Ok(Outcome::CopyOut(CopyOut { binary, column_count, chunks }))
}

/// Rows to COPY's output.
struct RowWriter {
    context: Arc<StatementContext>,
    options: CopyOptions,
    types: Vec<DataType>,
    names: Vec<String>,
}

impl RowWriter {
    fn binary_head(&self) -> BytesMut {
        let mut head = BytesMut::from(&BINARY_SIGNATURE[..]);
        head.put_u64(0);
        head
    }

    fn head(&self) -> Vec<Bytes> {
        if !self.options.header {
            return Vec::new();
        }
        let mut line = BytesMut::new();
        for (i, name) in self.names.iter().enumerate() {
            self.separate(i, &mut line);
            self.field(name, false, &mut line);
        }
        line.put_u8(b'\n');
        vec![line.freeze()]
    }

    fn separate(&self, column: usize, out: &mut BytesMut) {
        if column > 0 {
            out.put_u8(self.options.delimiter);
        }
    }

    fn batch(&self, batch: &datafusion::arrow::record_batch::RecordBatch) -> Result<(Vec<Bytes>, u64)> {
        let columns = column_refs(batch.columns())?;
        let mut chunks = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let mut out = BytesMut::new();
            if self.options.format == Format::Binary {
                out.put_i16(columns.len() as i16);
            }
            for (i, column) in columns.iter().enumerate() {
                let datum = column.get(row);
                match self.options.format {
                    Format::Binary if datum.is_null() => out.put_i32(-1),
                    Format::Binary => {
                        let mut bytes = Vec::new();
                        self.types[i].to_binary(&datum.into_value(), &mut bytes)?;
                        out.put_i32(bytes.len() as i32);
                        out.put_slice(&bytes);
                    }
                    _ => {
                        self.separate(i, &mut out);
                        if datum.is_null() {
                            out.put_slice(self.options.null.as_bytes());
                        } else {
                            let text = self.text(i, &datum)?;
                            self.field(&text, self.options.force_quote.has(&self.names[i]), &mut out);
                        }
                    }
                }
            }
            if self.options.format != Format::Binary {
                out.put_u8(b'\n');
            }
            chunks.push(out.freeze());
        }
        Ok((chunks, batch.num_rows() as u64))
    }

    fn text(&self, column: usize, datum: &Datum<'_>) -> Result<String> {
        casts::output(&self.context, &self.types[column], datum)
    }

    fn field(&self, text: &str, force: bool, out: &mut BytesMut) {
        let options = &self.options;
        if options.format == Format::Csv {
            let quote = force
                || text == options.null
                || (text == "\\." && self.names.len() == 1)
                || text.bytes().any(|b| b == options.delimiter || b == options.quote || b == b'\n' || b == b'\r');
            if !quote {
                out.put_slice(text.as_bytes());
                return;
            }
            out.put_u8(options.quote);
            for byte in text.bytes() {
                if byte == options.quote || byte == options.escape {
                    out.put_u8(options.escape);
                }
                out.put_u8(byte);
            }
            out.put_u8(options.quote);
            return;
        }
        for byte in text.bytes() {
            match byte {
                8 => out.put_slice(b"\\b"),
                12 => out.put_slice(b"\\f"),
                b'\n' => out.put_slice(b"\\n"),
                b'\r' => out.put_slice(b"\\r"),
                b'\t' => out.put_slice(b"\\t"),
                11 => out.put_slice(b"\\v"),
                b'\\' => out.put_slice(b"\\\\"),
                b if b == options.delimiter => {
                    out.put_u8(b'\\');
                    out.put_u8(b);
                }
                b => out.put_u8(b),
            }
        }
    }
}
