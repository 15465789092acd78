//! The call of libpg_query. The crate `pg_query` drops an error's position, so a text that does not parse is given to
//! the C library once more, here, to learn it.

use std::ffi::{CString, c_char, c_int};

use pg_query::protobuf::RawStmt;

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

unsafe extern "C" {
    fn pg_query_parse_protobuf(input: *const c_char) -> CParseResult;
    fn pg_query_free_protobuf_parse_result(result: CParseResult);
}

/// Texts up to this size are parsed on the caller's stack; longer ones may nest deeper and get a stack of their own.
const CALLERS_STACK_TEXT_BYTES: usize = 2048;
/// Stack per byte of text that the tree's decoder may need: a level takes at least two bytes of text and under 2 KiB of stack.
const STACK_BYTES_PER_TEXT_BYTE: usize = 1024;
const STACK_BYTES_MAX: usize = 512 << 20;

pub(super) fn parse(text: &str) -> Result<Vec<RawStmt>> {
    if text.len() <= CALLERS_STACK_TEXT_BYTES {
        return parse_here(text);
    }
    let size = (1 << 20) + text.len().saturating_mul(STACK_BYTES_PER_TEXT_BYTE).min(STACK_BYTES_MAX);
    stacker::grow(size, || parse_here(text))
}

fn parse_here(text: &str) -> Result<Vec<RawStmt>> {
    match pg_query::parse(text, 0) {
        Ok(result) => Ok(result.protobuf.stmts),
        Err(pg_query::Error::Parse(message)) => {
            if message.contains("nested too deeply") {
                return Err(SqlError::new(ErrorCode::StatementTooComplex, "stack depth limit exceeded")
                    .hint("The statement nests its expressions too deeply."));
            }
            let position = error_position(text);
            Err(SqlError::new(code_of(&message), message).at(position))
        }
        Err(pg_query::Error::Conversion(_)) => Err(SqlError::new(ErrorCode::SyntaxError, "invalid byte 0x00 in statement")),
        Err(pg_query::Error::Decode(_)) => Err(SqlError::new(ErrorCode::StatementTooComplex, "stack depth limit exceeded")
            .hint("The statement nests its expressions too deeply.")),
        Err(other) => Err(SqlError::new(ErrorCode::InternalError, other.to_string())),
    }
}

fn error_position(text: &str) -> i32 {
    let Ok(input) = CString::new(text) else { return 0 };
    // SAFETY: the input is a NUL-terminated string that outlives the call; the result is freed by the library's own
    // function after its fields were read, and the structs above are pg_query.h's.
    unsafe {
        let result = pg_query_parse_protobuf(input.as_ptr());
        let position = if result.error.is_null() { 0 } else { (*result.error).position };
        pg_query_free_protobuf_parse_result(result);
        position
    }
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
