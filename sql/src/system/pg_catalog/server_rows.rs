//! Rows that only the server knows (backends, replication): it gives JSON objects by column name.

use serde_json::Value as Json;
use strandline_storage::value::TextSettings;
use strandline_storage::{DataType, Row, Value};

use super::relations::SystemRelation;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::Oid;

pub fn rows(relation: &'static SystemRelation, context: &StatementContext) -> Result<Vec<Row>> {
    context.session.server_rows(relation.name).iter().map(|json| row(relation, json)).collect()
}

fn row(relation: &'static SystemRelation, json: &Json) -> Result<Row> {
    let mut row = relation.row().done();
    for (i, column) in relation.columns.iter().enumerate() {
        let value = &json[column.name];
        if !value.is_null() {
            row[i] = value_of(relation.shape.columns[i].ty.oid, column.name, value)?;
        }
    }
    Ok(row)
}

/// A column's value from what the server gives.
pub fn value_of(ty: Oid, column: &str, json: &Json) -> Result<Value> {
    let text = match json {
        Json::Null => return Ok(Value::Null),
        Json::String(s) => s.clone(),
        Json::Bool(b) => if *b { "t" } else { "f" }.to_string(),
        other => other.to_string(),
    };
    DataType::builtin(ty, -1)
        .and_then(|data_type| data_type.parse(&text, &TextSettings::default()).ok())
        .ok_or_else(|| SqlError::new(ErrorCode::InternalError, format!("value of column \"{column}\" does not read")))
}
