//! Rows that only the server knows (backends, replication): it gives JSON objects by column name.

use serde_json::Value as Json;
use strandline_storage::value::TextSettings;
use strandline_storage::{DataType, Row, Value};

use super::relations::SystemRelation;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};

pub fn rows(relation: &'static SystemRelation, context: &StatementContext) -> Result<Vec<Row>> {
    context.session.server_rows(relation.name).iter().map(|json| row(relation, json)).collect()
}

fn row(relation: &'static SystemRelation, json: &Json) -> Result<Row> {
    let mut row = relation.row().done();
    for (i, column) in relation.columns.iter().enumerate() {
        let text = match &json[column.name] {
            Json::Null => continue,
            Json::String(s) => s.clone(),
            Json::Bool(b) => if *b { "t" } else { "f" }.to_string(),
            other => other.to_string(),
        };
        row[i] = read(relation.shape.columns[i].ty.oid, &text)
            .ok_or_else(|| SqlError::new(ErrorCode::InternalError, format!("value of column \"{}\" does not read", column.name)))?;
    }
    Ok(row)
}

fn read(ty: u32, text: &str) -> Option<Value> {
    DataType::builtin(ty, -1)?.parse(text, &TextSettings::default()).ok()
}
