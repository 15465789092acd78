//! `USE database`, which PostgreSQL's grammar does not have: the session goes over to another database or revision.
//!
//! Before parsing, the statement is overwritten with one of no more letters that the grammar knows (so that all locations
//! stay true); after it, its tree becomes a SET of a name that no user can write.

use pg_query::NodeEnum;
use pg_query::protobuf::{Token, VariableSetKind, VariableSetStmt};

use super::raw;

/// The setting that stands for the session's database; the control character keeps it out of users' reach.
const DATABASE: &str = "\u{1}database";

/// What a USE is overwritten with: as long as the word.
const STAND_IN: &str = "END";

/// The places of USE statements with the databases they name, and the text without them; `None` when it has none.
pub(super) fn rewrite(text: &str) -> (Vec<(usize, String)>, Option<String>) {
    let may_have = text.as_bytes().windows(3).any(|w| w.eq_ignore_ascii_case(b"use"));
    let Some(tokens) = may_have.then(|| raw::tokens(text)).flatten() else { return (Vec::new(), None) };
    // The tokens begin with one that stands for the text's beginning or not, and comments are tokens too.
    let tokens: Vec<_> = tokens.iter().filter(|t| !matches!(t.token(), Token::SqlComment | Token::CComment) && t.end > t.start).collect();
    let slice = |i: usize| tokens.get(i).and_then(|t| text.get(t.start as usize..t.end as usize)).unwrap_or("");
    let ends = |i: usize| i >= tokens.len() || tokens[i].token() == Token::Ascii59;
    let mut uses = Vec::new();
    let mut out = text.to_owned();
    for i in 0..tokens.len() {
        let begins = i == 0 || tokens[i - 1].token() == Token::Ascii59;
        if !(begins && slice(i).eq_ignore_ascii_case("use") && tokens[i].token() == Token::Ident && !ends(i + 1) && ends(i + 2)) {
            continue;
        }
        let name = slice(i + 1);
        let database = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None if tokens[i + 1].token() == Token::Ident => name.to_ascii_lowercase(),
            None => match name.strip_prefix('\'').and_then(|n| n.strip_suffix('\'')) {
                Some(inner) => inner.replace("''", "'"),
                None => continue,
            },
        };
        let (start, end) = (tokens[i].start as usize, tokens[i + 1].end as usize);
        uses.push((start, database));
        out.replace_range(start..end, &format!("{STAND_IN:width$}", width = end - start));
    }
    let changed = !uses.is_empty();
    (uses, changed.then_some(out))
}

/// The tree of `USE database`.
pub(super) fn use_database(database: &str) -> NodeEnum {
    let value = pg_query::protobuf::AConst {
        val: Some(pg_query::protobuf::a_const::Val::Sval(pg_query::protobuf::String { sval: database.to_owned() })),
        ..Default::default()
    };
    NodeEnum::VariableSetStmt(VariableSetStmt {
        kind: VariableSetKind::VarSetValue as i32,
        name: DATABASE.into(),
        args: vec![pg_query::protobuf::Node { node: Some(NodeEnum::AConst(value)) }],
        ..Default::default()
    })
}

/// The database that a SET made from `USE database` names.
pub fn used_database(set: &VariableSetStmt) -> Option<&str> {
    if set.name != DATABASE {
        return None;
    }
    match set.args.first()?.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            pg_query::protobuf::a_const::Val::Sval(text) => Some(&text.sval),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn databases(text: &str) -> Vec<Option<String>> {
        let database = |node: &NodeEnum| match node {
            NodeEnum::VariableSetStmt(set) => used_database(set).map(str::to_owned),
            _ => None,
        };
        parse(text).unwrap().iter().map(|s| database(&s.node)).collect()
    }

    #[test]
    fn use_names_a_database() {
        for (text, database) in
            [("USE x", "x"), ("use \"db/main~2\";", "db/main~2"), ("/* c */ Use 'db/b' -- end", "db/b"), ("use \"a\"\"b\"", "a\"b")]
        {
            assert_eq!(databases(text), [Some(database.to_owned())], "{text}");
        }
        assert_eq!(databases("select 1; use y; end"), [None, Some("y".to_owned()), None]);
    }

    #[test]
    fn other_uses_of_the_word_stay() {
        assert_eq!(databases("select 'use x'; select use from t; end"), [None, None, None]);
        assert!(parse("use").is_err());
        assert!(parse("use a b").is_err());
        assert!(parse("use a.b").is_err());
        assert_eq!(parse("use a b").unwrap_err().message, "syntax error at or near \"use\"");
    }
}
