//! What it takes to make the primary's objects here.

use strandline_storage::schema::TableSchema;
use strandline_storage::store::Store;
use strandline_storage::{DataType, Edit};

use crate::expressions::Expressions;

/// Where oids come from, and who knows expressions.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'a> {
    pub(crate) store: &'a Store,
    pub(crate) expressions: Option<&'a dyn Expressions>,
}

impl Maker<'_> {
    /// Whether an expression can be evaluated here; the log tells of one that cannot. `what` of the table or type `name` it is.
    pub(super) fn takes_value(
        &self,
        edit: &Edit,
        table: Option<&TableSchema>,
        text: &str,
        data_type: &DataType,
        name: &str,
        what: &str,
    ) -> bool {
        // A default is kept as text where nobody can check it; a generated column needs who computes it.
        let Some(expressions) = self.expressions else { return table.is_none() };
        let checked = expressions.check_value(edit.root(), table, text, data_type);
        checked.map_err(|why| warn_left_out(name, what, &why)).is_ok()
    }

    /// As `takes_value`, for a condition.
    pub(super) fn takes_condition(&self, edit: &Edit, table: &TableSchema, text: &str, name: &str, constraint: &str) -> bool {
        let checked = match self.expressions {
            Some(expressions) => expressions.check_condition(edit.root(), table, text),
            None => Err("conditions cannot be evaluated here".into()),
        };
        checked.map_err(|why| warn_left_out(name, &format!("CHECK constraint \"{constraint}\""), &why)).is_ok()
    }
}

/// Tells what of the primary's definitions is not here. What it says of rows holds all the same: the primary has seen to it.
pub(super) fn warn_left_out(name: &str, what: &str, why: &str) {
    tracing::warn!(object = name, what, why, "a part of a definition was not taken over from the primary");
}

/// An expression without the parentheses that enclose the whole of it.
pub(super) fn without_parentheses(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else { return text };
    let (mut depth, mut quote) = (0_i32, None);
    for byte in inner.bytes() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return text;
        }
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parentheses_around_all_come_off() {
        assert_eq!(without_parentheses("(a > 0)"), "a > 0");
        assert_eq!(without_parentheses("(a > 0) AND (b > 0)"), "(a > 0) AND (b > 0)");
        assert_eq!(without_parentheses("(a <> ')'::text)"), "a <> ')'::text");
        assert_eq!(without_parentheses("((a) AND (b))"), "(a) AND (b)");
        assert_eq!(without_parentheses("a"), "a");
        assert_eq!(without_parentheses("("), "(");
    }
}
