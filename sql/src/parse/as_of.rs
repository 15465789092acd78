//! `AS OF` is not in PostgreSQL's grammar: it is cut out of the token stream before parsing.
//!
//! `FROM public.t AS OF 'HEAD~1' x` becomes `FROM public."\x01" 0"` padded to the same length, so that all locations in the parse
//! tree stay byte offsets into the original text. The marker (an identifier of a control character and a number) says which
//! [`AsOfClause`] belongs to the relation. Spellings, each with an optional alias behind:
//!
//! ```text
//! t AS OF x        t AS OF SYSTEM TIME x     t FOR SYSTEM_TIME AS OF x
//! t VERSION AS OF x        t TIMESTAMP AS OF x       t AS OF LSN x        t AS OF XID n
//! ```
//!
//! `x` is a string, a parameter, a typed literal (`timestamp '...'`), a function call, `current_timestamp` and the like, or any expression
//! in parentheses; binary operators and `::` may join these (`now() - interval '1 hour'`).
//!
//! `SELECT 1 AS of`, `FROM t AS of WHERE ...` and `FROM t AS of (a, b)` are aliases: what follows decides.

use std::ops::Range;

use pg_query::protobuf::{KeywordKind, Node, ScanToken, Token};

use super::raw;
use crate::error::{Result, SqlError};

/// What a marker stands for.
#[derive(Clone, Debug)]
pub struct AsOfClause {
    /// The relation's own name (the last part), unquoted and folded.
    pub relation: String,
    pub form: AsOfForm,
    /// Where the relation's name begins in the original text.
    pub(super) start: usize,
    /// Locations in it are offsets into the original text.
    pub expression: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOfForm {
    /// A ref or a timestamp, as the value's type tells.
    Any,
    Lsn,
    Xid,
}

/// Begins a marker; no sensible identifier has it.
const MARK: char = '\u{1}';

/// The text with markers, and what they stand for.
pub(super) struct Rewritten {
    pub text: String,
    pub clauses: Vec<AsOfClause>,
}

impl Rewritten {
    /// Puts the user's names in the place of markers in an error's text.
    pub fn restore_names(&self, mut error: SqlError) -> SqlError {
        for (i, clause) in self.clauses.iter().enumerate().rev() {
            error.message = error.message.replace(&format!("\"{MARK}{i}\""), &clause.relation);
        }
        error
    }
}

/// A deparsed text with AS OF in the place of its markers.
/// # Errors
/// `InternalError` for an expression that cannot be written as text.
pub(super) fn restore(mut text: String, clauses: &[AsOfClause]) -> Result<String> {
    for (i, clause) in clauses.iter().enumerate().rev() {
        let marker = format!("\"{MARK}{i}\"");
        if !text.contains(&marker) {
            continue;
        }
        let form = match clause.form {
            AsOfForm::Any => "",
            AsOfForm::Lsn => "LSN ",
            AsOfForm::Xid => "XID ",
        };
        let expression = super::expression_text(&clause.expression)?;
        let name = crate::system::identifier::quote_identifier(&clause.relation);
        text = text.replace(&marker, &format!("{name} AS OF {form}({expression})"));
    }
    Ok(text)
}

/// The index that a marker carries.
pub(super) fn marker_index(name: &str) -> Option<usize> {
    name.strip_prefix(MARK)?.parse().ok()
}

/// `None` when the text has no AS OF.
/// # Errors
/// The syntax errors of the AS OF expressions.
pub(super) fn rewrite(text: &str) -> Result<Option<Rewritten>> {
    if !may_have_as_of(text) {
        return Ok(None);
    }
    let Some(tokens) = raw::tokens(text) else { return Ok(None) };
    let scanner = Scanner { text, tokens: &tokens };
    let mut out = Rewritten { text: text.to_owned(), clauses: Vec::new() };
    let mut at = 1;
    while at + 1 < tokens.len() {
        let Some(found) = scanner.clause(at) else {
            at += 1;
            continue;
        };
        let expression = super::parse_expression_at(&text[found.expression.clone()], found.expression.start)?;
        let marker = format!("\"{MARK}{}\"", out.clauses.len());
        let width = found.replaced.len();
        // The shortest clause, `t AS OF $1`, has ten bytes: room for a million of them.
        if marker.len() > width {
            return Err(SqlError::new(crate::error::ErrorCode::StatementTooComplex, "too many AS OF clauses"));
        }
        out.text.replace_range(found.replaced.clone(), &format!("{marker:width$}"));
        out.clauses.push(AsOfClause { relation: found.relation, form: found.form, start: found.replaced.start, expression });
        at = found.next;
    }
    Ok((!out.clauses.is_empty()).then_some(out))
}

/// A cheap look for the word "of".
fn may_have_as_of(text: &str) -> bool {
    let is_word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80);
    let bytes = text.as_bytes();
    bytes
        .windows(2)
        .enumerate()
        .any(|(i, w)| w.eq_ignore_ascii_case(b"of") && i > 0 && !is_word(bytes.get(i - 1)) && !is_word(bytes.get(i + 2)))
}

/// Where a clause was found.
struct Found {
    relation: String,
    form: AsOfForm,
    expression: Range<usize>,
    /// From the relation's last name part to the expression's end.
    replaced: Range<usize>,
    /// The token behind the clause.
    next: usize,
}

struct Scanner<'a> {
    text: &'a str,
    tokens: &'a [ScanToken],
}

impl Scanner<'_> {
    fn token(&self, i: usize) -> Option<Token> {
        self.tokens.get(i).map(|t| t.token())
    }

    fn slice(&self, i: usize) -> &str {
        self.tokens.get(i).and_then(|t| self.text.get(t.start as usize..t.end as usize)).unwrap_or("")
    }

    fn is_word(&self, i: usize, word: &str) -> bool {
        self.slice(i).eq_ignore_ascii_case(word)
    }

    /// An identifier, quoted or not, or a keyword that may be a table's name.
    fn is_name(&self, i: usize) -> bool {
        self.tokens.get(i).is_some_and(|t| {
            t.token() == Token::Ident || matches!(t.keyword_kind(), KeywordKind::UnreservedKeyword | KeywordKind::ColNameKeyword)
        })
    }

    /// The clause whose AS is token `at`.
    fn clause(&self, at: usize) -> Option<Found> {
        if self.token(at) != Some(Token::As) || !self.is_word(at + 1, "of") || self.token(at + 1) == Some(Token::Sconst) {
            return None;
        }
        let name = self.relation_before(at)?;
        let mut i = at + 2;
        let mut form = AsOfForm::Any;
        if self.is_word(i, "system") && self.is_word(i + 1, "time") {
            i += 2;
        } else if self.is_word(i, "lsn") && self.starts_value(i + 1) {
            form = AsOfForm::Lsn;
            i += 1;
        } else if self.is_word(i, "xid") && self.starts_value(i + 1) {
            form = AsOfForm::Xid;
            i += 1;
        } else if self.is_column_aliases(i) {
            return None;
        }
        let end = self.expression(i, form)?;
        let start_byte = self.tokens[i].start as usize;
        let end_byte = self.tokens[end - 1].end as usize;
        Some(Found {
            relation: self.unquoted(name),
            form,
            expression: start_byte..end_byte,
            replaced: self.tokens[name].start as usize..end_byte,
            next: end,
        })
    }

    /// The token of the relation name before AS, or before `FOR SYSTEM_TIME`, `VERSION`, `TIMESTAMP` before AS.
    fn relation_before(&self, at: usize) -> Option<usize> {
        let last = at.checked_sub(1)?;
        if last >= 2 && self.is_word(last, "system_time") && self.is_word(last - 1, "for") && self.is_name(last - 2) {
            return Some(last - 2);
        }
        if last >= 1 && (self.is_word(last, "version") || self.is_word(last, "timestamp")) && self.is_name(last - 1) {
            return Some(last - 1);
        }
        self.is_name(last).then_some(last)
    }

    fn starts_value(&self, i: usize) -> bool {
        matches!(self.token(i), Some(Token::Sconst | Token::Usconst | Token::Param | Token::Iconst | Token::Fconst | Token::Ascii40))
    }

    /// `(a, b)`: the column list of an alias named "of".
    fn is_column_aliases(&self, i: usize) -> bool {
        if self.token(i) != Some(Token::Ascii40) {
            return false;
        }
        let mut j = i + 1;
        while self.is_name(j) {
            match self.token(j + 1) {
                Some(Token::Ascii44) => j += 2,
                Some(Token::Ascii41) => return true,
                _ => return false,
            }
        }
        false
    }

    /// The end (exclusive) of the expression that begins at token `i`.
    fn expression(&self, i: usize, form: AsOfForm) -> Option<usize> {
        let mut end = self.primary(i, form != AsOfForm::Any)?;
        loop {
            match self.token(end) {
                Some(Token::Typecast) => end = self.type_name(end + 1)?,
                Some(Token::Op | Token::Ascii43 | Token::Ascii45 | Token::Ascii42 | Token::Ascii47) => end = self.primary(end + 1, true)?,
                _ => return Some(end),
            }
        }
    }

    fn primary(&self, i: usize, number_allowed: bool) -> Option<usize> {
        match self.token(i)? {
            Token::Sconst | Token::Usconst | Token::Param => Some(i + 1),
            Token::Iconst | Token::Fconst if number_allowed => Some(i + 1),
            Token::Ascii40 => self.closing(i),
            Token::CurrentTimestamp | Token::Localtimestamp | Token::CurrentDate => {
                if self.token(i + 1) == Some(Token::Ascii40) {
                    self.closing(i + 1)
                } else {
                    Some(i + 1)
                }
            }
            Token::Cast if self.token(i + 1) == Some(Token::Ascii40) => self.closing(i + 1),
            _ => self.typed_literal(i).or_else(|| self.call(i)),
        }
    }

    /// `timestamp '...'`, `timestamp(3) with time zone '...'`, `interval '1' hour`.
    fn typed_literal(&self, i: usize) -> Option<usize> {
        if !["timestamp", "timestamptz", "date", "interval", "text"].iter().any(|word| self.is_word(i, word)) {
            return None;
        }
        let mut j = i + 1;
        if self.token(j) == Some(Token::Ascii40) {
            j = self.closing(j)?;
        }
        if (self.is_word(j, "with") || self.is_word(j, "without")) && self.is_word(j + 1, "time") && self.is_word(j + 2, "zone") {
            j += 3;
        }
        if !matches!(self.token(j), Some(Token::Sconst | Token::Usconst)) {
            return None;
        }
        j += 1;
        if self.is_word(i, "interval") && ["year", "month", "day", "hour", "minute", "second"].iter().any(|unit| self.is_word(j, unit)) {
            j += 1;
        }
        Some(j)
    }

    /// `name(...)`, `schema.name(...)`.
    fn call(&self, i: usize) -> Option<usize> {
        let is_function = |i: usize| {
            self.is_name(i)
                || self.tokens.get(i).is_some_and(|t| t.keyword_kind() == KeywordKind::TypeFuncNameKeyword)
                || self.token(i) == Some(Token::Coalesce)
        };
        let mut j = i;
        if !is_function(j) {
            return None;
        }
        while self.token(j + 1) == Some(Token::Ascii46) && is_function(j + 2) {
            j += 2;
        }
        (self.token(j + 1) == Some(Token::Ascii40)).then(|| self.closing(j + 1)).flatten()
    }

    fn type_name(&self, i: usize) -> Option<usize> {
        if !self.is_name(i) {
            return None;
        }
        let mut j = i + 1;
        while self.token(j) == Some(Token::Ascii46) && self.is_name(j + 1) {
            j += 2;
        }
        if self.token(j) == Some(Token::Ascii40) {
            j = self.closing(j)?;
        }
        if (self.is_word(j, "with") || self.is_word(j, "without")) && self.is_word(j + 1, "time") && self.is_word(j + 2, "zone") {
            j += 3;
        }
        Some(j)
    }

    /// Behind the parenthesis that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        for i in open..self.tokens.len() {
            match self.token(i)? {
                Token::Ascii40 => depth += 1,
                Token::Ascii41 => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn unquoted(&self, i: usize) -> String {
        let text = self.slice(i);
        match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None => text.to_ascii_lowercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, AsOfForm, String)> {
        let Some(rewritten) = rewrite(text).unwrap() else { return Vec::new() };
        assert_eq!(rewritten.text.len(), text.len());
        super::super::parse(text).unwrap();
        rewritten
            .clauses
            .iter()
            .map(|c| {
                let text = super::super::expression_text(&c.expression).unwrap();
                (c.relation.clone(), c.form, text)
            })
            .collect()
    }

    #[test]
    fn every_spelling_is_found() {
        use AsOfForm::*;
        for (text, relation, form, expression) in [
            ("select * from t as of 'HEAD~1'", "t", Any, "'HEAD~1'"),
            ("select * from public.\"T x\" AS OF $1 AS a where a.id = 1", "T x", Any, "$1"),
            ("select * from t as of system time 'x' a", "t", Any, "'x'"),
            ("select * from t for system_time as of timestamp '2020-01-01' a", "t", Any, "'2020-01-01'::timestamp"),
            ("select * from t version as of 'x'", "t", Any, "'x'"),
            ("select * from t timestamp as of ('x' || 'y')", "t", Any, "'x' || 'y'"),
            ("select * from t as of lsn '0/16B3748'", "t", Lsn, "'0/16B3748'"),
            ("select * from t as of xid 735", "t", Xid, "735"),
            ("select * from t as of now() - interval '1 hour' a join u on true", "t", Any, "now() - '1 hour'::interval"),
            ("select * from t as of '2020-01-01'::timestamptz", "t", Any, "'2020-01-01'::timestamptz"),
            ("select * from version as of 'x'", "version", Any, "'x'"),
            ("select * from t as of dolt_merge_base('a', 'b')", "t", Any, "dolt_merge_base('a', 'b')"),
            ("TABLE t AS OF'x'", "t", Any, "'x'"),
        ] {
            assert_eq!(found(text), vec![(relation.to_owned(), form, expression.to_owned())], "{text}");
        }
    }

    #[test]
    fn two_tables_have_two_moments() {
        let all = found("select * from t as of 'a' x join t as of 'b' y using (id)");
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].2, "'b'");
    }

    #[test]
    fn an_alias_named_of_stays_an_alias() {
        for text in [
            "select 1 as of",
            "select 1 as of, 2",
            "select 1 as of from t",
            "select 'x as of ''y''' from t",
            "select 1 -- t as of 'x'\n",
            "select * from t as of where true",
            "select * from t as of (a, b)",
            "select * from t as of join u on true",
        ] {
            assert_eq!(found(text), vec![], "{text}");
        }
    }

    #[test]
    fn positions_of_errors_behind_a_clause_are_those_of_the_original_text() {
        let error = super::super::parse("select * from t as of 'HEAD' where where").unwrap_err();
        assert_eq!(error.position, Some(36));
        let error = super::super::parse("select * from t as of ('a' 'b')").unwrap_err();
        assert_eq!(error.position, Some(28));
        let error = super::super::parse("select t as of 'x'").map(|_| ());
        assert!(error.is_ok(), "a column alias cannot be told from a table here: the binder reports the unknown column");
    }
}
