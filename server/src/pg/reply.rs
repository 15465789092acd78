//! Messages to clients.

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus as WireStatus};
use pgwire::messages::startup::ParameterStatus;
use strandline_sql::error::SqlError;
use strandline_sql::session::{Notice, OutputColumn, TransactionStatus};

use crate::pg::sqlstate::{notice_state, sqlstate};

/// Appends a message of pgwire's.
pub fn put(out: &mut BytesMut, message: PgWireBackendMessage) {
    let start = out.len();
    if message.encode(out).is_err() {
        // Only a message over the protocol's limits: half of it must not go out.
        out.truncate(start);
        tracing::error!("a message to a client exceeds the protocol's limits");
    }
}

/// How bad an error is, as its `S` and `V` fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
}

pub fn error(out: &mut BytesMut, severity: Severity, error: &SqlError) {
    let word = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    let mut fields =
        vec![(b'S', word.to_owned()), (b'V', word.to_owned()), (b'C', sqlstate(error.code).to_owned()), (b'M', clean(&error.message))];
    let optional = [
        (b'D', &error.detail),
        (b'H', &error.hint),
        (b'W', &error.context),
        (b's', &error.schema),
        (b't', &error.table),
        (b'c', &error.column),
        (b'd', &error.data_type),
        (b'n', &error.constraint),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            fields.push((field, clean(value)));
        }
    }
    if let Some(position) = error.position {
        fields.push((b'P', position.to_string()));
    }
    put(out, PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields)));
}

pub fn notice(out: &mut BytesMut, notice: &Notice) {
    let mut fields = vec![
        (b'S', notice.severity.to_owned()),
        (b'V', notice.severity.to_owned()),
        (b'C', notice_state(notice.code).to_owned()),
        (b'M', clean(&notice.message)),
    ];
    if let Some(detail) = &notice.detail {
        fields.push((b'D', clean(detail)));
    }
    if let Some(hint) = &notice.hint {
        fields.push((b'H', clean(hint)));
    }
    put(out, PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields)));
}

/// Strings end at a zero byte on the wire.
fn clean(text: &str) -> String {
    text.replace('\0', "")
}

pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put(out, PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name.to_owned(), clean(value))));
}

pub fn ready(out: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => WireStatus::Idle,
        TransactionStatus::InTransaction => WireStatus::Transaction,
        TransactionStatus::Failed => WireStatus::Error,
    };
    put(out, PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
}

pub fn complete(out: &mut BytesMut, tag: &str) {
    put(out, PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned())));
}

pub fn empty_query(out: &mut BytesMut) {
    bare(out, b'I');
}

pub fn row_description(out: &mut BytesMut, columns: &[OutputColumn], formats: &[i16]) {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let (table, attnum) = column.origin.unwrap_or((0, 0));
            FieldDescription::new(
                clean(&column.name),
                table as i32,
                attnum,
                column.ty.oid,
                column.type_len,
                column.ty.typmod,
                format_of(formats, i),
            )
        })
        .collect();
    put(out, PgWireBackendMessage::RowDescription(RowDescription::new(fields)));
}

pub fn no_data(out: &mut BytesMut) {
    put(out, PgWireBackendMessage::NoData(NoData::new()));
}

pub fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    put(out, PgWireBackendMessage::ParameterDescription(ParameterDescription::new(types.to_vec())));
}

/// The format of a column: none given means text, one given is for all.
pub fn format_of(formats: &[i16], column: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(column).copied().unwrap_or(0),
    }
}

/// A message that has no body (`ParseComplete` and the like).
pub fn bare(out: &mut BytesMut, kind: u8) {
    out.put_u8(kind);
    out.put_u32(4);
}

/// CopyInResponse (`G`) or CopyOutResponse (`H`).
pub fn copy_response(out: &mut BytesMut, kind: u8, binary: bool, column_count: usize) {
    out.put_u8(kind);
    out.put_u32(4 + 1 + 2 + 2 * column_count as u32);
    out.put_u8(u8::from(binary));
    out.put_u16(column_count as u16);
    for _ in 0..column_count {
        out.put_u16(u16::from(binary));
    }
}

pub fn copy_data(out: &mut BytesMut, data: &[u8]) {
    out.put_u8(b'd');
    out.put_u32(4 + data.len() as u32);
    out.put_slice(data);
}
