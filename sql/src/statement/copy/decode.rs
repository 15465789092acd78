//! COPY's input formats: bytes to the fields of records, whatever pieces the bytes come in.

use bytes::{Buf, BytesMut};

use crate::error::{ErrorCode, Result, SqlError};
use crate::statement::copy::options::{CopyOptions, Format};

/// What begins a binary COPY.
pub const BINARY_SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// The longest record, as PostgreSQL's: a string buffer's limit.
const RECORD_BYTES_MAX: usize = 0x3fff_ffff;

/// One field: `None` is NULL. The flag says that it was quoted (CSV).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub bytes: Option<Vec<u8>>,
    pub quoted: bool,
}

/// Splits input into records. Feed it with [`Self::push`], then take records until it asks for more.
pub struct Decoder {
    options: CopyOptions,
    buffer: BytesMut,
    ended: bool,
    /// `\.` or the binary trailer was seen: the rest is ignored.
    stopped: bool,
    started: bool,
    pub line: u64,
    /// The bytes of the last record, for errors; empty in the binary format and where the record's end was not found.
    pub record: Vec<u8>,
    /// What ends lines, once the first has ended.
    line_end: Option<LineEnd>,
    /// How many fields a binary record must have.
    column_count: usize,
    /// The field that a binary record ends in too early.
    pub failed_field: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Newline,
    CarriageReturn,
    Both,
}

/// What a byte that may end a line does.
enum Ends {
    /// It does, with so many bytes.
    With(usize),
    /// The next byte decides.
    Later,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::BadCopyFileFormat, message)
}

impl Decoder {
    pub fn new(options: CopyOptions, column_count: usize) -> Self {
        Decoder {
            options,
            column_count,
            failed_field: None,
            buffer: BytesMut::new(),
            ended: false,
            stopped: false,
            started: false,
            line: 0,
            record: Vec::new(),
            line_end: None,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if !self.stopped {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// No more input comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next record; `None`: more input is needed, or (after [`Self::end`]) there is none.
    pub fn next(&mut self) -> Result<Option<Vec<Field>>> {
        if self.stopped {
            return Ok(None);
        }
        if self.buffer.len() > RECORD_BYTES_MAX {
            return Err(SqlError::new(ErrorCode::ProgramLimitExceeded, "a record of COPY's input is too long"));
        }
        self.record.clear();
        match self.options.format {
            Format::Text => self.next_text(),
            Format::Csv => self.next_csv(),
            Format::Binary => self.next_binary(),
        }
    }

    /// What the carriage return or newline at `at` is, which is neither escaped nor quoted. The first one decides for the whole input;
    /// another kind is taken for a mistake rather than for data, as PostgreSQL does.
    fn ends_line(&mut self, at: usize) -> Result<Ends> {
        let is_newline = self.buffer[at] == b'\n';
        let (kind, length) = match (is_newline, self.line_end) {
            (true, None | Some(LineEnd::Newline)) => (LineEnd::Newline, 1),
            (false, Some(LineEnd::CarriageReturn)) => (LineEnd::CarriageReturn, 1),
            (false, None | Some(LineEnd::Both)) => match self.buffer.get(at + 1) {
                None if !self.ended => return Ok(Ends::Later),
                Some(b'\n') => (LineEnd::Both, 2),
                _ if self.line_end.is_none() => (LineEnd::CarriageReturn, 1),
                _ => return Err(self.stray_line_end(is_newline)),
            },
            _ => return Err(self.stray_line_end(is_newline)),
        };
        self.line_end = Some(kind);
        Ok(Ends::With(length))
    }

    fn stray_line_end(&mut self, is_newline: bool) -> SqlError {
        self.line += 1;
        let (what, escape) = if is_newline { ("newline", "\\n") } else { ("carriage return", "\\r") };
        if self.options.format == Format::Csv {
            return bad(format!("unquoted {what} found in data")).hint(format!("Use quoted CSV field to represent {what}."));
        }
        bad(format!("literal {what} found in data")).hint(format!("Use \"{escape}\" to represent {what}."))
    }

    /// Takes the record that ends at `at`, and what ends it; `false` where it is the end of the input's data.
    fn take_record(&mut self, at: usize, ending: usize) -> bool {
        self.record = self.buffer[..at].to_vec();
        self.buffer.advance(at + ending);
        self.line += 1;
        if self.record == b"\\." {
            self.stopped = true;
            self.buffer.clear();
            return false;
        }
        true
    }

    fn next_text(&mut self) -> Result<Option<Vec<Field>>> {
        let mut from = 0;
        let end = loop {
            match self.buffer[from..].iter().position(|b| matches!(b, b'\n' | b'\r')).map(|at| at + from) {
                // What is behind an odd number of backslashes is data.
                Some(at) if self.buffer[..at].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1 => from = at + 1,
                Some(at) => match self.ends_line(at)? {
                    Ends::With(length) => break Some((at, length)),
                    Ends::Later => break None,
                },
                None => break None,
            }
        };
        let (at, ending) = match end {
            Some(found) => found,
            None if self.ended && !self.buffer.is_empty() => (self.buffer.len(), 0),
            None => return Ok(None),
        };
        if !self.take_record(at, ending) {
            return Ok(None);
        }
        let line = &self.record;
        let mut fields = Vec::new();
        let mut at = 0;
        loop {
            let start = at;
            let mut value = Vec::new();
            while at < line.len() && line[at] != self.options.delimiter {
                if line[at] == b'\\' && at + 1 < line.len() {
                    at += unescape(&line[at + 1..], &mut value) + 1;
                } else {
                    value.push(line[at]);
                    at += 1;
                }
            }
            let raw = &line[start..at];
            fields.push(Field { bytes: (raw != self.options.null.as_bytes()).then_some(value), quoted: false });
            if at >= line.len() {
                return Ok(Some(fields));
            }
            at += 1;
        }
    }

    fn next_csv(&mut self) -> Result<Option<Vec<Field>>> {
        // The record ends at a newline outside of quotes.
        let (quote, escape) = (self.options.quote, self.options.escape);
        let mut in_quotes = false;
        let mut end = None;
        let mut at = 0;
        while at < self.buffer.len() {
            let byte = self.buffer[at];
            if in_quotes && byte == escape && escape != quote && at + 1 < self.buffer.len() {
                at += 1;
            } else if byte == quote {
                in_quotes = !in_quotes;
            } else if !in_quotes && matches!(byte, b'\n' | b'\r') {
                match self.ends_line(at)? {
                    Ends::With(length) => end = Some((at, length)),
                    Ends::Later => return Ok(None),
                }
                break;
            }
            at += 1;
        }
        let (at, ending) = match end {
            Some(found) => found,
            None if self.ended && !self.buffer.is_empty() => {
                let at = self.buffer.len();
                if in_quotes {
                    self.take_record(at, 0);
                    return Err(bad("unterminated CSV quoted field"));
                }
                (at, 0)
            }
            None => return Ok(None),
        };
        if !self.take_record(at, ending) {
            return Ok(None);
        }
        // A record that has newlines in quotes is as many lines, and errors name its last.
        let newline = if self.line_end == Some(LineEnd::CarriageReturn) { b'\r' } else { b'\n' };
        self.line += self.record.iter().filter(|b| **b == newline).count() as u64;
        let line = &self.record;
        let mut fields = Vec::new();
        let mut at = 0;
        loop {
            let mut value = Vec::new();
            let mut quoted = false;
            let mut inside = false;
            while at < line.len() {
                let byte = line[at];
                if inside {
                    if byte == escape && line.get(at + 1).is_some_and(|next| *next == quote || *next == escape) {
                        value.push(line[at + 1]);
                        at += 2;
                        continue;
                    }
                    if byte == quote {
                        inside = false;
                    } else {
                        value.push(byte);
                    }
                } else if byte == self.options.delimiter {
                    break;
                } else if byte == quote {
                    quoted = true;
                    inside = true;
                } else {
                    value.push(byte);
                }
                at += 1;
            }
            let is_null = !quoted && value == self.options.null.as_bytes();
            fields.push(Field { bytes: (!is_null).then_some(value), quoted });
            if at >= line.len() {
                return Ok(Some(fields));
            }
            at += 1;
        }
    }

    fn next_binary(&mut self) -> Result<Option<Vec<Field>>> {
        if !self.started {
            if self.buffer.len() < 19 {
                return if self.ended { Err(bad("COPY file signature not recognized")) } else { Ok(None) };
            }
            if &self.buffer[..11] != BINARY_SIGNATURE {
                return Err(bad("COPY file signature not recognized"));
            }
            let flags = u32::from_be_bytes([self.buffer[11], self.buffer[12], self.buffer[13], self.buffer[14]]);
            if flags >> 16 != 0 {
                return Err(bad("unrecognized critical flags in COPY file header"));
            }
            let extension = u32::from_be_bytes([self.buffer[15], self.buffer[16], self.buffer[17], self.buffer[18]]) as usize;
            if extension > RECORD_BYTES_MAX {
                return Err(bad("invalid COPY file header (wrong length)"));
            }
            if self.buffer.len() < 19 + extension {
                return if self.ended { Err(bad("invalid COPY file header (missing length)")) } else { Ok(None) };
            }
            self.buffer.advance(19 + extension);
            self.started = true;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let short = |decoder: &mut Decoder, field: usize| {
            if !decoder.ended {
                return Ok(None);
            }
            decoder.line += 1;
            decoder.failed_field = Some(field);
            Err(bad("unexpected EOF in COPY data"))
        };
        if self.buffer.len() < 2 {
            return short(self, usize::MAX);
        }
        let count = i16::from_be_bytes([self.buffer[0], self.buffer[1]]);
        if count == -1 {
            self.stopped = true;
            self.buffer.clear();
            return Ok(None);
        }
        if usize::try_from(count) != Ok(self.column_count) {
            self.line += 1;
            return Err(bad(format!("row field count is {count}, expected {}", self.column_count)));
        }
        let mut at = 2;
        let mut fields = Vec::new();
        for index in 0..self.column_count {
            let Some(length) = self.buffer.get(at..at + 4) else { return short(self, index) };
            let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            at += 4;
            if length == -1 {
                fields.push(Field { bytes: None, quoted: false });
                continue;
            }
            let length = usize::try_from(length).map_err(|_| bad("invalid field size"))?;
            let Some(bytes) = self.buffer.get(at..at.saturating_add(length)) else { return short(self, index) };
            fields.push(Field { bytes: Some(bytes.to_vec()), quoted: false });
            at += length;
        }
        self.buffer.advance(at);
        self.line += 1;
        Ok(Some(fields))
    }
}

/// Reads what follows a backslash; returns how many bytes that was.
fn unescape(rest: &[u8], out: &mut Vec<u8>) -> usize {
    let octal = |b: &u8| (b'0'..=b'7').contains(b);
    match rest[0] {
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'v' => out.push(11),
        b'0'..=b'7' => {
            let digits = rest.iter().take(3).take_while(|b| octal(b)).count();
            out.push(rest[..digits].iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
            return digits;
        }
        b'x' if rest.get(1).is_some_and(u8::is_ascii_hexdigit) => {
            let digits = rest[1..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
            let value =
                rest[1..=digits].iter().fold(0u8, |n, d| n.wrapping_mul(16).wrapping_add((*d as char).to_digit(16).unwrap_or(0) as u8));
            out.push(value);
            return digits + 1;
        }
        other => out.push(other),
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(options: &str, input: &[u8], piece: usize) -> Result<Vec<Vec<Option<String>>>> {
        let (source, node) = crate::parse::parse_stored(&format!("COPY t FROM STDIN {options}"))?;
        let pg_query::NodeEnum::CopyStmt(copy) = node else { panic!("not a COPY") };
        let mut decoder = Decoder::new(CopyOptions::read(&copy.options, true, &source)?, 1);
        let mut rows = Vec::new();
        for chunk in input.chunks(piece) {
            decoder.push(chunk);
            while let Some(row) = decoder.next()? {
                rows.push(row);
            }
        }
        decoder.end();
        while let Some(row) = decoder.next()? {
            rows.push(row);
        }
        Ok(rows
            .into_iter()
            .map(|row| row.into_iter().map(|f| f.bytes.map(|b| String::from_utf8_lossy(&b).into_owned())).collect())
            .collect())
    }

    #[test]
    fn text_is_the_same_in_whatever_pieces_it_comes() {
        let input = b"1\ta\\tb\\\\\t\\N\n2\tx\\\ny\t\\x41\\101\n\\.\nrest\n";
        for piece in [1, 2, 3, 7, 100] {
            let rows = decode("", input, piece).unwrap();
            assert_eq!(rows.len(), 2, "{rows:?}");
            assert_eq!(rows[0], vec![Some("1".into()), Some("a\tb\\".into()), None]);
            assert_eq!(rows[1], vec![Some("2".into()), Some("x\ny".into()), Some("AA".into())]);
        }
    }

    #[test]
    fn csv_knows_quotes_newlines_and_what_is_null() {
        let input = b"1,\"a,\"\"b\"\"\nc\",\n2,\"\",x\n";
        for piece in [1, 4, 100] {
            let rows = decode("CSV", input, piece).unwrap();
            assert_eq!(rows[0], vec![Some("1".into()), Some("a,\"b\"\nc".into()), None]);
            assert_eq!(rows[1], vec![Some("2".into()), Some(String::new()), Some("x".into())]);
        }
        assert!(decode("CSV", b"1,\"a", 100).is_err());
    }

    #[test]
    fn lines_end_as_the_first_one_does() {
        for piece in [1, 2, 100] {
            for options in ["", "CSV"] {
                for input in [&b"a\nb\nc"[..], b"a\r\nb\r\nc\r\n", b"a\rb\rc\r", b"a\rb\rc"] {
                    let rows = decode(options, input, piece).unwrap();
                    assert_eq!(rows, ["a", "b", "c"].map(|v| vec![Some(v.to_owned())]), "{input:?}");
                }
                for input in [&b"a\nb\r\n"[..], b"a\r\nb\n", b"a\r\nb\rc\r\n", b"a\rb\n"] {
                    assert!(decode(options, input, piece).is_err(), "{input:?}");
                }
            }
        }
    }

    #[test]
    fn binary_garbage_is_refused() {
        assert!(decode("BINARY", b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0", 100).is_err());
        assert!(decode("BINARY", b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x09a", 100).is_err());
        let good = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x01a\xff\xff";
        assert_eq!(decode("BINARY", good, 3).unwrap(), vec![vec![Some("a".to_owned())]]);
    }
}
