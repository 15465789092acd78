//! A CHECK's expression as PostgreSQL prints it back: with the casts that the comparison of a column with a constant implies.
//!
//! PostgreSQL prints the analysed expression, so `total >= 0` on a numeric column comes back as `total >= 0::numeric`, and an
//! IN list as `= ANY (ARRAY[...])`. The stored text is what was written; this adds what analysis would have added between a
//! column and a constant, and leaves everything else as it stands.

use pg_query::protobuf::{AArrayExpr, AExpr, AExprKind, ColumnRef, Node, String as PgString, TypeCast, TypeName, a_const};
use pg_query::{DeparseOptions, NodeEnum};
use strandline_storage::{Kind, TableSchema};

/// The expression's text with implied casts; as it was where it does not parse.
pub fn with_implied_casts(table: &TableSchema, expression: &str) -> String {
    rewritten(table, expression).unwrap_or_else(|| expression.to_string())
}

fn rewritten(table: &TableSchema, expression: &str) -> Option<String> {
    const SELECT: &str = "SELECT ";
    let mut parsed = pg_query::parse(&format!("{SELECT}{expression}"), 0).ok()?.protobuf;
    let [statement] = parsed.stmts.as_mut_slice() else { return None };
    let Some(NodeEnum::SelectStmt(select)) = statement.stmt.as_mut()?.node.as_mut() else { return None };
    let [target] = select.target_list.as_mut_slice() else { return None };
    let Some(NodeEnum::ResTarget(target)) = target.node.as_mut() else { return None };
    rewrite(table, target.val.as_mut()?);
    let text = pg_query::deparse(&parsed, DeparseOptions::default()).ok()?;
    text.strip_prefix(SELECT).map(spaced)
}

/// PostgreSQL writes `ANY (ARRAY[...])` where this printer leaves out the space. Quoted texts stay as they are.
fn spaced(text: &str) -> String {
    let parts = text.split('\'').enumerate();
    let parts = parts.map(|(i, part)| match i % 2 {
        0 => part.replace(" ANY(ARRAY[", " ANY (ARRAY[").replace(" ALL(ARRAY[", " ALL (ARRAY["),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("'")
}

fn rewrite(table: &TableSchema, node: &mut Node) {
    match node.node.as_mut() {
        Some(NodeEnum::BoolExpr(e)) => e.args.iter_mut().for_each(|arg| rewrite(table, arg)),
        Some(NodeEnum::AExpr(e)) => comparison(table, e),
        _ => {}
    }
}

fn comparison(table: &TableSchema, e: &mut AExpr) {
    let (Some(left), Some(right)) = (e.lexpr.as_mut(), e.rexpr.as_mut()) else { return };
    match AExprKind::try_from(e.kind) {
        Ok(AExprKind::AexprOp) => match (column_cast(table, left), column_cast(table, right)) {
            (Some(cast), None) => add_cast(right, cast),
            (None, Some(cast)) => add_cast(left, cast),
            _ => {
                rewrite(table, left);
                rewrite(table, right);
            }
        },
        Ok(AExprKind::AexprIn) => {
            let Some(cast) = column_cast(table, left) else { return };
            let Some(NodeEnum::List(list)) = right.node.as_mut() else { return };
            list.items.iter_mut().for_each(|item| add_cast(item, cast));
            let negated = matches!(e.name.first().and_then(|n| n.node.as_ref()), Some(NodeEnum::String(s)) if s.sval == "<>");
            let elements = std::mem::take(&mut list.items);
            right.node = Some(NodeEnum::AArrayExpr(AArrayExpr { elements, ..Default::default() }));
            e.kind = if negated { AExprKind::AexprOpAll } else { AExprKind::AexprOpAny } as i32;
        }
        _ => {}
    }
}

/// What a constant beside this column is cast to, by its kind: (of numbers, of strings); `None`: not a plain column.
#[derive(Clone, Copy)]
struct Cast {
    number: Option<&'static str>,
    string: &'static str,
}

fn column_cast(table: &TableSchema, node: &Node) -> Option<Cast> {
    let Some(NodeEnum::ColumnRef(ColumnRef { fields, .. })) = node.node.as_ref() else { return None };
    let Some(NodeEnum::String(name)) = fields.last()?.node.as_ref() else { return None };
    let column = table.columns.iter().find(|c| c.name == name.sval)?;
    let cast = |number, string| Some(Cast { number, string });
    match column.data_type.kind {
        Kind::Numeric => cast(Some("numeric"), "numeric"),
        Kind::Float8 => cast(Some("float8"), "float8"),
        Kind::Text if column.data_type.oid == crate::types::oid::TEXT => cast(None, "text"),
        Kind::Bpchar => cast(None, "bpchar"),
        Kind::Date => cast(None, "date"),
        Kind::Timestamp => cast(None, "timestamp"),
        Kind::Timestamptz => cast(None, "timestamptz"),
        Kind::Uuid => cast(None, "uuid"),
        _ => None,
    }
}

fn add_cast(node: &mut Node, cast: Cast) {
    let Some(NodeEnum::AConst(constant)) = node.node.as_ref() else { return };
    let ty = match &constant.val {
        Some(a_const::Val::Ival(_)) => cast.number,
        // A number with a point is numeric already.
        Some(a_const::Val::Fval(_)) => cast.number.filter(|n| *n != "numeric"),
        Some(a_const::Val::Sval(_)) => Some(cast.string),
        _ => None,
    };
    let Some(ty) = ty else { return };
    let name = |sval: &str| Node { node: Some(NodeEnum::String(PgString { sval: sval.into() })) };
    let arg = std::mem::take(node);
    // The printer gives these their SQL names when they come from pg_catalog, and prints every other name as it is.
    let has_sql_name = matches!(ty, "numeric" | "float8" | "timestamp" | "timestamptz");
    let names = if has_sql_name { vec![name("pg_catalog"), name(ty)] } else { vec![name(ty)] };
    let type_name = TypeName { names, typemod: -1, location: -1, ..Default::default() };
    node.node = Some(NodeEnum::TypeCast(Box::new(TypeCast { arg: Some(Box::new(arg)), type_name: Some(type_name), location: -1 })));
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_storage::DataType;
    use strandline_storage::schema::Column;

    fn table() -> TableSchema {
        let column = |(i, (name, ty)): (usize, (&str, &str))| Column {
            name: name.into(),
            attnum: i as i16 + 1,
            data_type: DataType::by_name(ty).expect("a type"),
            not_null: false,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            comment: None,
        };
        let columns =
            [("total", "numeric"), ("n", "integer"), ("city", "text"), ("day", "date"), ("at", "timestamptz"), ("code", "character")];
        TableSchema {
            oid: 16384,
            schema_oid: 2200,
            name: "t".into(),
            owner: "postgres".into(),
            columns: columns.into_iter().enumerate().map(column).collect(),
            next_attnum: 7,
            primary_key: None,
            indexes: Vec::new(),
            constraints: Vec::new(),
            merged_columns: Vec::new(),
            comment: None,
        }
    }

    #[test]
    fn constants_beside_columns_get_the_casts_that_postgresql_prints() {
        for (written, printed) in [
            ("total >= 0", "total >= 0::numeric"),
            ("total >= 0.5", "total >= 0.5"),
            ("n > 0", "n > 0"),
            ("city <> 'x'", "city <> 'x'::text"),
            ("city IN ('a', 'b')", "city = ANY (ARRAY['a'::text, 'b'::text])"),
            ("n > 0 AND day > '2020-01-01'", "n > 0 AND day > '2020-01-01'::date"),
            ("n > 0 OR at = '2020-01-01' OR code = 'x'", "n > 0 OR at = '2020-01-01'::timestamp with time zone OR code = 'x'::bpchar"),
            ("upper(city) = city", "upper(city) = city"),
        ] {
            assert_eq!(with_implied_casts(&table(), written), printed);
        }
    }
}
