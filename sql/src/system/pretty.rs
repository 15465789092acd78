//! What PostgreSQL's "pretty" forms of definitions leave out: parentheses that are not needed.

/// Names and plain constants need no parentheses under a cast: `(count)::numeric` is `count::numeric`.
pub fn casts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['(', '\'']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = from.strip_prefix('\'') {
            let end = quoted.find('\'').map_or(from.len(), |end| end + 2);
            out.push_str(&from[..end]);
            rest = &from[end..];
            continue;
        }
        let is_call = out.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"'));
        let inner = from[1..].find(')').map(|end| &from[1..=end]).filter(|inner| from[inner.len() + 2..].starts_with("::"));
        let is_simple = |inner: &&str| !inner.is_empty() && inner.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        match inner.filter(is_simple).filter(|_| !is_call) {
            Some(inner) => {
                out.push_str(inner);
                rest = &from[inner.len() + 2..];
            }
            None => {
                out.push('(');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// An index's condition stands without the parentheses around it.
pub fn condition(index: &str) -> String {
    const WHERE: &str = " WHERE (";
    let Some(at) = index.rfind(WHERE) else { return index.to_owned() };
    let inner = &index[at + WHERE.len()..];
    // Only where they belong together: `(a) AND (b)` has another first and last.
    let mut depth = 1;
    let closes_at_end = inner.bytes().enumerate().all(|(i, byte)| {
        depth += match byte {
            b'(' => 1,
            b')' => -1,
            _ => 0,
        };
        depth > 0 || i + 1 == inner.len()
    });
    match inner.strip_suffix(')').filter(|_| closes_at_end && depth == 0) {
        Some(condition) => format!("{} WHERE {condition}", &index[..at]),
        None => index.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_needed_goes() {
        assert_eq!(casts("(price * (count)::numeric)"), "(price * count::numeric)");
        assert_eq!(casts("length((v)::text) + f(x)::int"), "length(v::text) + f(x)::int");
        assert_eq!(casts("'(a)::b' || (c)::text"), "'(a)::b' || c::text");
        assert_eq!(casts("(a + b)::text"), "(a + b)::text");
        assert_eq!(condition("CREATE INDEX i ON t USING btree (a) WHERE (a > 0)"), "CREATE INDEX i ON t USING btree (a) WHERE a > 0");
        let two = "CREATE INDEX i ON t USING btree (a) WHERE (a > 0) AND (b > 0)";
        assert_eq!(condition(two), two);
        assert_eq!(condition("CREATE INDEX i ON t USING btree (a)"), "CREATE INDEX i ON t USING btree (a)");
    }
}
