//! Text to parse trees: PostgreSQL's own grammar (libpg_query), with `AS OF` and `USE` rewritten before it.
//!
//! All locations in a tree are byte offsets into the batch's original text (the rewriting keeps lengths), so
//! [`Source::position`] turns any of them into the character position that an error reports.

mod as_of;
mod raw;
mod use_statement;

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, TypeName};

pub use as_of::{AsOfClause, AsOfForm};
use use_statement::use_database;
pub use use_statement::used_database;

use crate::error::{ErrorCode, Result, SqlError};

/// A text that was parsed, with what the parse tree cannot hold.
#[derive(Debug, Default)]
pub struct Source {
    pub text: String,
    as_of: Vec<AsOfClause>,
    /// `USE database`: where it stands and the database.
    uses: Vec<(usize, String)>,
    /// The text is not the client's (a stored default, a view's body): errors have no position in it.
    internal: bool,
}

impl Source {
    /// The 1-based character position of a node's location; 0 when there is none.
    pub fn position(&self, location: i32) -> i32 {
        if self.internal {
            return 0;
        }
        match usize::try_from(location).ok().and_then(|end| self.text.as_bytes().get(..end)) {
            Some(before) => before.iter().filter(|b| (**b as i8) >= -0x40).count() as i32 + 1,
            None => 0,
        }
    }

    /// The AS OF clause that a relation name of the tree stands for; see [`AsOfClause`].
    pub fn as_of(&self, relation_name: &str) -> Option<&AsOfClause> {
        self.as_of.get(as_of::marker_index(relation_name)?)
    }

    /// The name as the user wrote it.
    pub fn relation_name<'a>(&'a self, relation_name: &'a str) -> &'a str {
        self.as_of(relation_name).map_or(relation_name, |clause| &clause.relation)
    }

    /// A statement's text made from its tree, with its AS OF clauses.
    /// # Errors
    /// `InternalError` for a tree that cannot be written as text.
    pub fn text_of(&self, node: &NodeEnum) -> Result<String> {
        as_of::restore(deparse(node)?, &self.as_of)
    }
}

/// One statement of a batch.
#[derive(Clone, Debug)]
pub struct Statement {
    pub source: Arc<Source>,
    pub node: NodeEnum,
    start: usize,
    end: usize,
}

impl Statement {
    /// It has an AS OF clause.
    pub fn has_as_of(&self) -> bool {
        self.source.as_of.iter().any(|clause| (self.start..self.end).contains(&clause.start))
    }

    /// The statement as written, without its semicolon and the white space around it.
    pub fn text(&self) -> &str {
        self.source.text.get(self.start..self.end).unwrap_or(&self.source.text).trim()
    }
}

/// Parses a batch of statements; empty ones vanish.
/// # Errors
/// `SyntaxError` (and the few others of PostgreSQL's grammar) with PostgreSQL's text and position.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    let (source, statements) = parse_source(text, false)?;
    let source = Arc::new(source);
    let len = text.len();
    Ok(statements
        .into_iter()
        .filter_map(|raw| {
            let start = usize::try_from(raw.stmt_location).unwrap_or(0);
            let end = if raw.stmt_len > 0 { start + raw.stmt_len as usize } else { len };
            let mut node = raw.stmt?.node?;
            if let Some((_, database)) = source.uses.iter().find(|(at, _)| (start..end).contains(at)) {
                node = use_database(database);
            }
            Some(Statement { source: source.clone(), node, start, end })
        })
        .collect())
}

/// Parses one statement of our own keeping (a view's body): its errors have no position.
/// # Errors
/// As [`parse`]; also when there is not exactly one statement.
pub fn parse_stored(text: &str) -> Result<(Arc<Source>, NodeEnum)> {
    let (source, statements) = parse_source(text, true)?;
    let mut nodes = statements.into_iter().filter_map(|raw| raw.stmt?.node);
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok((Arc::new(source), node)),
        _ => Err(SqlError::new(ErrorCode::SyntaxError, "expected one statement")),
    }
}

/// Parses a scalar expression of our own keeping: a default, a check, an argument's default.
/// # Errors
/// As [`parse`], without position.
pub fn parse_expression(text: &str) -> Result<(Arc<Source>, Node)> {
    let mut expressions = parse_expressions(text)?;
    match (expressions.1.pop(), expressions.1.is_empty()) {
        (Some(node), true) => Ok((expressions.0, node)),
        _ => Err(SqlError::new(ErrorCode::SyntaxError, "expected one expression")),
    }
}

/// Parses expressions separated by commas.
/// # Errors
/// As [`parse`], without position.
pub fn parse_expressions(text: &str) -> Result<(Arc<Source>, Vec<Node>)> {
    let (source, node) = parse_stored(&format!("SELECT {text}"))?;
    let NodeEnum::SelectStmt(select) = node else {
        return Err(SqlError::new(ErrorCode::SyntaxError, "expected an expression"));
    };
    let nodes = select
        .target_list
        .into_iter()
        .filter_map(|target| match target.node {
            Some(NodeEnum::ResTarget(target)) => target.val.map(|val| *val),
            _ => None,
        })
        .collect();
    Ok((source, nodes))
}

/// Parses the name of a type as it stands in a cast: `numeric(10,2)[]`, `timestamp with time zone`.
/// # Errors
/// `SyntaxError`.
pub fn parse_type_name(text: &str) -> Result<TypeName> {
    let (_, node) = parse_expression(&format!("NULL::{text}"))?;
    match node.node {
        Some(NodeEnum::TypeCast(cast)) if cast.type_name.is_some() => Ok(cast.type_name.unwrap_or_default()),
        _ => Err(SqlError::new(ErrorCode::SyntaxError, format!("invalid type name \"{text}\""))),
    }
}

fn parse_source(original: &str, internal: bool) -> Result<(Source, Vec<pg_query::protobuf::RawStmt>)> {
    let (uses, without_use) = if internal { (Vec::new(), None) } else { use_statement::rewrite(original) };
    let text = without_use.as_deref().unwrap_or(original);
    let rewritten = as_of::rewrite(text)?;
    let mut source = Source { text: original.to_owned(), as_of: Vec::new(), uses, internal };
    let parsed = match &rewritten {
        None => raw::parse(text),
        Some(rewritten) => raw::parse(&rewritten.text).map_err(|e| rewritten.restore_names(e)),
    };
    let statements = parsed.map_err(|mut e| {
        if internal {
            e.position = None;
        }
        e
    })?;
    source.as_of = rewritten.map(|r| r.clauses).unwrap_or_default();
    Ok((source, statements))
}

fn deparse(node: &NodeEnum) -> Result<String> {
    node.deparse(pg_query::DeparseOptions::default())
        .map_err(|e| SqlError::new(ErrorCode::InternalError, format!("could not write the statement's text: {e}")))
}

/// An expression's text made from its tree.
fn expression_text(expression: &Node) -> Result<String> {
    let target = pg_query::protobuf::ResTarget { val: Some(Box::new(expression.clone())), ..Default::default() };
    let select = pg_query::protobuf::SelectStmt {
        target_list: vec![Node { node: Some(NodeEnum::ResTarget(Box::new(target))) }],
        limit_option: pg_query::protobuf::LimitOption::Default as i32,
        op: pg_query::protobuf::SetOperation::SetopNone as i32,
        ..Default::default()
    };
    let text = deparse(&NodeEnum::SelectStmt(Box::new(select)))?;
    Ok(text.strip_prefix("SELECT ").unwrap_or(&text).to_owned())
}

/// Parses the text as a client's single expression placed at `offset` of a batch, so that locations stay true.
fn parse_expression_at(text: &str, offset: usize) -> Result<Node> {
    const PREFIX: &str = "SELECT ";
    let padded = format!("{}{PREFIX}{text}", " ".repeat(offset.saturating_sub(PREFIX.len())));
    let raw = raw::parse(&padded)?;
    let expression = raw.into_iter().next().and_then(|raw| match raw.stmt?.node? {
        NodeEnum::SelectStmt(mut select) if select.target_list.len() == 1 => match select.target_list.pop()?.node? {
            NodeEnum::ResTarget(target) => target.val.map(|val| *val),
            _ => None,
        },
        _ => None,
    });
    expression.ok_or_else(|| SqlError::new(ErrorCode::SyntaxError, "invalid AS OF expression"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_with_the_text_of_each_statement() {
        let statements = parse("select 1; ; /* x;y */ select ';' ; ").unwrap();
        assert_eq!(statements.iter().map(Statement::text).collect::<Vec<_>>(), vec!["select 1", "select ';'"]);
    }

    #[test]
    fn a_syntax_error_has_postgresql_text_and_a_position_in_characters() {
        let error = parse("select 'äöü' frm t x").unwrap_err();
        assert_eq!(error.message, "syntax error at or near \"t\"");
        assert_eq!(error.code, ErrorCode::SyntaxError);
        assert_eq!(error.position, Some(18));
        let error = parse("select 1 from").unwrap_err();
        assert_eq!(error.message, "syntax error at end of input");
        assert_eq!(error.position, Some(14));
        let error = parse("select 'abc").unwrap_err();
        assert_eq!(error.message, "unterminated quoted string at or near \"'abc\"");
        assert_eq!(error.position, Some(8));
    }

    #[test]
    fn type_names_parse_with_modifiers_and_dimensions() {
        assert_eq!(parse_type_name("numeric(10,2)").unwrap().typmods.len(), 2);
        assert_eq!(parse_type_name("timestamp with time zone[]").unwrap().array_bounds.len(), 1);
        assert!(parse_type_name("int; drop table t").is_err());
    }

    #[test]
    fn deep_and_long_expressions_parse() {
        let chain = format!("select {}", vec!["'a'"; 200].join(" || "));
        assert_eq!(parse(&chain).unwrap().len(), 1);
    }
}
