//! The call of libpg_query. It is called here and not through the crate `pg_query`, which drops an error's position and
//! decodes a tree of any depth on the caller's stack.

use std::ffi::{CStr, CString, c_char, c_int};

use pg_query::protobuf::{ParseResult, RawStmt};
use prost::Message as _;

use crate::error::{ErrorCode, Result, SqlError};

/// pg_query.h's `PgQueryError`.
#[repr(C)]
struct CError {
    message: *mut c_char,
    function: *mut c_char,
    file: *mut c_char,
    line: c_int,
    position: c_int,
    context: *mut c_char,
}

/// pg_query.h's `PgQueryProtobufParseResult`.
#[repr(C)]
struct CParseResult {
    length: usize,
    data: *mut c_char,
    stderr: *mut c_char,
    error: *mut CError,
}

impl Drop for CParseResult {
    fn drop(&mut self) {
        let CParseResult { length, data, stderr, error } = *self;
        // SAFETY: the library gave these pointers, they are freed once, and nothing borrows from them any more.
        unsafe { pg_query_free_protobuf_parse_result(std::mem::ManuallyDrop::new(CParseResult { length, data, stderr, error })) }
    }
}

unsafe extern "C" {
    fn pg_query_parse_protobuf(input: *const c_char) -> CParseResult;
    fn pg_query_free_protobuf_parse_result(result: std::mem::ManuallyDrop<CParseResult>);
}

/// Levels of messages that a tree may have: what walks a tree by recursion needs no limit of its own. An expression takes
/// two to five of them, so this is somewhat more than the binder lets pass.
const LEVELS_MAX: usize = 3_000;
/// Stack that the tree's decoder takes for a level: a build with little optimisation was seen to take 7 KiB.
const STACK_BYTES_PER_LEVEL: usize = 16 << 10;
const STACK_BYTES_AROUND: usize = 64 << 10;

/// The statements of a text.
/// # Errors
/// What the grammar raises, with its position; `StatementTooComplex` past [`LEVELS_MAX`].
pub(super) fn parse(text: &str) -> Result<Vec<RawStmt>> {
    let input = CString::new(text).map_err(|_| SqlError::new(ErrorCode::SyntaxError, "invalid byte 0x00 in statement"))?;
    // SAFETY: the input is a NUL-terminated string that outlives the call, and the structs above are pg_query.h's.
    let parsed = unsafe { pg_query_parse_protobuf(input.as_ptr()) };
    // SAFETY: the library sets either an error, with a message and a position, or data of the given length.
    if let Some(error) = unsafe { parsed.error.as_ref() } {
        let message = unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned();
        if message.contains("nested too deeply") {
            return Err(too_deep());
        }
        return Err(SqlError::new(code_of(&message), message).at(error.position));
    }
    let tree: &[u8] = match parsed.data.is_null() {
        true => &[],
        // SAFETY: as above.
        false => unsafe { std::slice::from_raw_parts(parsed.data.cast(), parsed.length) },
    };
    let levels = levels(tree);
    if levels > LEVELS_MAX {
        return Err(too_deep());
    }
    let size = STACK_BYTES_AROUND + levels * STACK_BYTES_PER_LEVEL;
    let decoded = stacker::maybe_grow(size, size, || ParseResult::decode(tree));
    match decoded {
        Ok(result) => Ok(result.stmts),
        Err(error) => Err(SqlError::new(ErrorCode::InternalError, format!("the parse tree cannot be read: {error}"))),
    }
}

fn too_deep() -> SqlError {
    SqlError::new(ErrorCode::StatementTooComplex, "stack depth limit exceeded").hint("The statement nests its expressions too deeply.")
}

/// How deep the messages of an encoded tree nest, at most: a string is taken for a message as far as it reads like one.
fn levels(tree: &[u8]) -> usize {
    let mut ends = vec![tree.len()];
    let (mut at, mut deepest) = (0, 1);
    while let Some(&end) = ends.last() {
        if at >= end {
            ends.pop();
            continue;
        }
        match field(tree, at, end) {
            Some(Field::Nested(start, end)) => {
                ends.push(end);
                deepest = deepest.max(ends.len());
                at = start;
            }
            Some(Field::Scalar(next)) => at = next,
            // No message after all: go on behind it.
            None => {
                at = end;
                ends.pop();
            }
        }
    }
    deepest
}

enum Field {
    /// Where the field's content starts and ends.
    Nested(usize, usize),
    /// Where the next field starts.
    Scalar(usize),
}

/// The field of a message that starts at `at`, if there can be one; the message ends at `end`.
fn field(tree: &[u8], at: usize, end: usize) -> Option<Field> {
    let (tag, at) = varint(tree, at, end)?;
    if tag >> 3 == 0 {
        return None;
    }
    let inside = |next: usize| (next <= end).then_some(next);
    match tag & 7 {
        0 => Some(Field::Scalar(varint(tree, at, end)?.1)),
        1 => Some(Field::Scalar(inside(at + 8)?)),
        2 => {
            let (length, start) = varint(tree, at, end)?;
            Some(Field::Nested(start, inside(start.checked_add(usize::try_from(length).ok()?)?)?))
        }
        5 => Some(Field::Scalar(inside(at + 4)?)),
        _ => None,
    }
}

/// A number in base 128 and where it ends.
fn varint(tree: &[u8], at: usize, end: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, byte) in tree.get(at..end)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, at + i + 1));
        }
    }
    None
}

/// libpg_query gives no SQLSTATE; nearly all that the grammar raises are syntax errors.
fn code_of(message: &str) -> ErrorCode {
    if message.contains("not yet implemented") || message.contains("not implemented") || message.contains("not supported") {
        ErrorCode::FeatureNotSupported
    } else if message.starts_with("stack depth limit") || message.contains("memory exhausted") {
        ErrorCode::StatementTooComplex
    } else if message.starts_with("frame ") {
        ErrorCode::WindowingError
    } else {
        ErrorCode::SyntaxError
    }
}

/// Tokens of the text without comments, or `None` when it does not scan (the parser then words the error).
pub(super) fn tokens(text: &str) -> Option<Vec<pg_query::protobuf::ScanToken>> {
    use pg_query::protobuf::Token;
    let tokens = pg_query::scan_tokens(text).ok()?;
    Some(tokens.into_iter().filter(|t| !matches!(t.token(), Token::SqlComment | Token::CComment)).collect())
}
