//! Types that are kept as their text: brings the text into the form that PostgreSQL prints, where that is simple.

use std::borrow::Cow;

use crate::error::Result;
use crate::value::{DataType, TextSettings, Value};

/// The text as PostgreSQL prints it; types without rules here keep theirs.
pub(super) fn normalize<'a>(text: &'a str, data_type: &DataType, settings: &TextSettings) -> Result<Cow<'a, str>> {
    let _ = (data_type, settings);
    Ok(Cow::Borrowed(text))
}

/// Says whether the type has a binary form here.
pub(super) fn has_binary(_data_type: &DataType) -> bool {
    false
}

/// # Errors
/// `Value` when the type has no binary form here or the bytes are malformed.
pub(super) fn from_binary(data_type: &DataType, _bytes: &[u8]) -> Result<Value> {
    Err(super::binary::no_binary(data_type))
}

/// # Errors
/// `Value` when the type has no binary form here.
pub(super) fn to_binary(data_type: &DataType, _stored: &[u8], _out: &mut Vec<u8>) -> Result<()> {
    Err(super::binary::no_binary(data_type))
}
