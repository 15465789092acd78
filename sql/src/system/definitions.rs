//! What PostgreSQL's catalog functions print about objects: `format_type`, `pg_get_indexdef`, `pg_get_constraintdef` and
//! the like, as pure functions of a catalog. The executor's functions call these.

use std::fmt::Write as _;
use std::sync::Arc;

use strandline_storage::schema::{
    Column, Constraint, ConstraintKind, Identity, Index, IndexKey, Schema, Sequence, TypeDefinition, UserType, View,
};
use strandline_storage::{Catalog, CatalogObject, DataType, Kind, TableSchema};

use crate::catalog_data;
use crate::context::StatementContext;
use crate::system::identifier::{quote_identifier, quote_qualified};
use crate::system::pg_catalog::relations::{INFORMATION_SCHEMA, PG_CATALOG_SCHEMA, relations};
use crate::types::Oid;

/// The oid of a table's row type, derived from the table's own; pg_type lists it.
const ROW_TYPE_BIT: Oid = 0x4000_0000;
/// The oid of the array of a table's row type.
const ROW_ARRAY_TYPE_BITS: Oid = 0x5000_0000;

pub fn row_type_oid(table: Oid) -> Oid {
    ROW_TYPE_BIT | table
}

pub fn row_array_type_oid(table: Oid) -> Oid {
    ROW_ARRAY_TYPE_BITS | table
}

/// The oid that pg_attrdef gives a column's default.
pub fn default_oid(table: Oid, attnum: i16) -> Oid {
    0x8000_0000 | (table.wrapping_mul(2048).wrapping_add(attnum as u16 as u32) & 0x7fff_ffff)
}

/// An index with the table that it is on.
pub struct IndexOf<'a> {
    pub table: &'a Arc<TableSchema>,
    pub index: &'a Index,
    pub primary: bool,
}

/// A table's indexes, the primary key's first.
pub fn indexes_of(table: &TableSchema) -> impl Iterator<Item = (&Index, bool)> {
    table.primary_key.iter().map(|i| (i, true)).chain(table.indexes.iter().map(|i| (i, false)))
}

pub fn find_index(catalog: &Catalog, oid: Oid) -> Option<IndexOf<'_>> {
    catalog
        .tables()
        .find_map(|table| indexes_of(table).find(|(index, _)| index.oid == oid).map(|(index, primary)| IndexOf { table, index, primary }))
}

/// The oid of a schema by name, the built-in ones included.
pub fn schema_oid(catalog: &Catalog, name: &str) -> Option<Oid> {
    match name {
        "pg_catalog" => Some(PG_CATALOG_SCHEMA),
        "information_schema" => Some(INFORMATION_SCHEMA),
        _ => catalog.schema(name).map(|s| s.oid),
    }
}

/// The name of a schema by oid, the built-in ones included.
pub fn schema_name(catalog: &Catalog, oid: Oid) -> Option<&str> {
    match oid {
        PG_CATALOG_SCHEMA => Some("pg_catalog"),
        INFORMATION_SCHEMA => Some("information_schema"),
        _ => catalog.schema_name(oid),
    }
}

/// The schemas that plain names are looked for in, in order: pg_catalog comes first unless the path names it.
pub fn effective_path(context: &StatementContext) -> Vec<Oid> {
    let mut path: Vec<Oid> = Vec::with_capacity(context.search_path.len() + 1);
    if !context.search_path.iter().any(|s| s == "pg_catalog") {
        path.push(PG_CATALOG_SCHEMA);
    }
    let catalog = context.root.catalog();
    for name in &context.search_path {
        let name = if name == "$user" { &context.user } else { name };
        if let Some(oid) = schema_oid(catalog, name)
            && !path.contains(&oid)
        {
            path.push(oid);
        }
    }
    path
}

/// The oid of a relation in one schema: table, view, sequence or index, of users or of the system.
pub fn relation_in(catalog: &Catalog, schema: Oid, name: &str) -> Option<Oid> {
    if schema == PG_CATALOG_SCHEMA || schema == INFORMATION_SCHEMA {
        return relations().relation(schema, name).map(|r| r.oid);
    }
    let object = catalog.objects.values().find(|o| {
        !matches!(&***o, CatalogObject::Type(_) | CatalogObject::Schema(_)) && o.schema_oid() == Some(schema) && o.name() == name
    });
    if let Some(object) = object {
        return Some(object.oid());
    }
    catalog
        .tables()
        .filter(|t| t.schema_oid == schema)
        .find_map(|t| indexes_of(t).find(|(index, _)| index.name == name).map(|(index, _)| index.oid))
}

/// What `'schema.name'::regclass` gives; without a schema through the search path.
pub fn relation_oid(context: &StatementContext, schema: Option<&str>, name: &str) -> Option<Oid> {
    let catalog = context.root.catalog();
    match schema {
        Some(schema) => relation_in(catalog, schema_oid(catalog, schema)?, name),
        None => effective_path(context).into_iter().find_map(|schema| relation_in(catalog, schema, name)),
    }
}

/// A relation's schema and name.
pub fn relation_name(catalog: &Catalog, oid: Oid) -> Option<(Oid, String)> {
    if let Some(relation) = relations().by_oid(oid) {
        return Some((relation.schema_oid, relation.name.to_string()));
    }
    match catalog.get(oid).map(|o| &**o) {
        Some(CatalogObject::Type(_) | CatalogObject::Schema(_)) => None,
        Some(object) => Some((object.schema_oid()?, object.name().to_string())),
        None => find_index(catalog, oid).map(|i| (i.table.schema_oid, i.index.name.clone())),
    }
}

/// `pg_table_is_visible`: the relation is what its plain name means. `None` for an unknown oid.
pub fn relation_is_visible(context: &StatementContext, oid: Oid) -> Option<bool> {
    let catalog = context.root.catalog();
    let (schema, name) = relation_name(catalog, oid)?;
    let path = effective_path(context);
    let visible = path.contains(&schema) && path.iter().take_while(|s| **s != schema).all(|s| relation_in(catalog, *s, &name).is_none());
    Some(visible)
}

/// A relation's name as `regclass` prints it: qualified where the plain name means something else.
pub fn relation_text(context: &StatementContext, oid: Oid) -> Option<String> {
    let catalog = context.root.catalog();
    let (schema, name) = relation_name(catalog, oid)?;
    if relation_is_visible(context, oid) == Some(true) {
        return Some(quote_identifier(&name).into_owned());
    }
    Some(quote_qualified(schema_name(catalog, schema).unwrap_or("?"), &name))
}

/// A type made by a user, by its own oid or its array's; `true` for the array.
pub fn user_type(catalog: &Catalog, oid: Oid) -> Option<(&UserType, bool)> {
    if let Some(CatalogObject::Type(t)) = catalog.get(oid).map(|o| &**o) {
        return Some((t, false));
    }
    catalog.objects.values().find_map(|o| match &**o {
        CatalogObject::Type(t) if t.array_oid == oid && oid != 0 => Some((t, true)),
        _ => None,
    })
}

/// `pg_type_is_visible`. `None` for an unknown oid.
pub fn type_is_visible(context: &StatementContext, oid: Oid) -> Option<bool> {
    let catalog = context.root.catalog();
    if catalog_data::catalog().type_by_oid(oid).is_some() {
        return Some(true);
    }
    if relations().domains.iter().any(|d| d.oid == oid) {
        return Some(effective_path(context).contains(&INFORMATION_SCHEMA));
    }
    if let Some((ty, _)) = user_type(catalog, oid) {
        return Some(name_is_first(context, ty.schema_oid, |schema| {
            catalog.objects.values().any(|o| matches!(&**o, CatalogObject::Type(t) if t.schema_oid == schema && t.name == ty.name))
                || (schema == PG_CATALOG_SCHEMA && catalog_data::catalog().type_by_name(&ty.name).is_some())
        }));
    }
    let relation = row_type_relation(catalog, oid)?;
    relation_is_visible(context, relation)
}

/// The relation whose row type (or its array) this is.
pub fn row_type_relation(catalog: &Catalog, oid: Oid) -> Option<Oid> {
    let table = match oid & 0xf000_0000 {
        ROW_TYPE_BIT => oid & !ROW_TYPE_BIT,
        ROW_ARRAY_TYPE_BITS => oid & !ROW_ARRAY_TYPE_BITS,
        _ => return relations().all.iter().find(|r| oid != 0 && (r.row_type == oid || r.row_array_type == oid)).map(|r| r.oid),
    };
    matches!(catalog.get(table).map(|o| &**o), Some(CatalogObject::Table(_) | CatalogObject::View(_))).then_some(table)
}

fn name_is_first(context: &StatementContext, schema: Oid, taken: impl Fn(Oid) -> bool) -> bool {
    let path = effective_path(context);
    path.contains(&schema) && !path.iter().take_while(|s| **s != schema).any(|s| taken(*s))
}

/// `format_type(oid, typmod)`; `None` for the modifier where it was NULL.
pub fn format_type(context: &StatementContext, oid: Oid, typmod: Option<i32>) -> String {
    if oid == 0 {
        return "-".into();
    }
    let catalog = context.root.catalog();
    if let Some(ty) = DataType::builtin(oid, typmod.unwrap_or(-1)) {
        // Without a modifier at all, the SQL name stands for any length.
        return match (oid, typmod) {
            (1042, None) => "character".into(),
            (1560, None) => "bit".into(),
            (1014, None) => "character[]".into(),
            (1561, None) => "bit[]".into(),
            (1042, Some(-1)) => "bpchar".into(),
            _ => ty.sql_name(),
        };
    }
    if let Some((ty, is_array)) = user_type(catalog, oid) {
        let name = if type_is_visible(context, ty.oid) == Some(true) {
            quote_identifier(&ty.name).into_owned()
        } else {
            quote_qualified(catalog.schema_name(ty.schema_oid).unwrap_or("?"), &ty.name)
        };
        return if is_array { name + "[]" } else { name };
    }
    if let Some(domain) = relations().domains.iter().find(|d| d.oid == oid) {
        return match (domain.base, domain.name.strip_prefix('_')) {
            (0, Some(element)) => format!("information_schema.{element}[]"),
            _ => format!("information_schema.{}", domain.name),
        };
    }
    if let Some(relation) = row_type_relation(catalog, oid)
        && let Some(name) = relation_text(context, relation)
    {
        let is_array = oid & 0xf000_0000 == ROW_ARRAY_TYPE_BITS || relations().all.iter().any(|r| r.row_array_type == oid);
        return if is_array { name + "[]" } else { name };
    }
    match catalog_data::catalog().type_by_oid(oid) {
        Some(row) => match row.name {
            "char" | "any" => format!("\"{}\"", row.name),
            name if row.is_true_array() => format!("{}[]", name.trim_start_matches('_')),
            name => name.to_string(),
        },
        None => "???".into(),
    }
}

/// The type's name as a column definition shows it.
pub fn type_text(data_type: &DataType) -> String {
    data_type.sql_name()
}

fn index_column_text(table: &TableSchema, key: &IndexKey) -> String {
    match key {
        IndexKey::Column(i) => table.columns.get(*i).map_or_else(|| "?".into(), |c| quote_identifier(&c.name).into_owned()),
        // A bare function call stands as it is, anything else in parentheses.
        IndexKey::Expression(text) => {
            if is_function_call(text) || is_parenthesized(text) {
                text.clone()
            } else {
                format!("({text})")
            }
        }
    }
}

fn is_parenthesized(text: &str) -> bool {
    text.starts_with('(') && closing(text, 0) == Some(text.len() - 1)
}

fn is_function_call(text: &str) -> bool {
    match text.find('(') {
        Some(open) => {
            open > 0
                && text[..open].bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'"'))
                && closing(text, open) == Some(text.len() - 1)
        }
        None => false,
    }
}

/// Where the parenthesis that opens at `open` closes; strings and quoted names are skipped.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote = None;
    for (i, b) in text.bytes().enumerate().skip(open) {
        match (quote, b) {
            (Some(q), b) if b == q => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(b),
            (None, b'(') => depth += 1,
            (None, b')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

fn index_columns_text(table: &TableSchema, index: &Index) -> String {
    let mut out = String::new();
    for (i, column) in index.columns.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(&index_column_text(table, &column.key));
        match (column.descending, column.nulls_first) {
            (false, true) => out.push_str(" NULLS FIRST"),
            (true, false) => out.push_str(" DESC NULLS LAST"),
            (true, true) => out.push_str(" DESC"),
            (false, false) => {}
        }
    }
    out
}

fn include_text(table: &TableSchema, index: &Index) -> String {
    if index.include.is_empty() {
        return String::new();
    }
    format!(" INCLUDE ({})", column_list(table, &index.include))
}

fn column_list(table: &TableSchema, columns: &[usize]) -> String {
    let names: Vec<_> = columns.iter().filter_map(|&i| table.columns.get(i)).map(|c| quote_identifier(&c.name)).collect();
    names.join(", ")
}

/// A whole CREATE INDEX as `pg_get_indexdef` prints it.
pub fn index_text(catalog: &Catalog, table: &TableSchema, index: &Index) -> String {
    let mut out = format!(
        "CREATE {}INDEX {} ON {} USING {} ({})",
        if index.unique { "UNIQUE " } else { "" },
        quote_identifier(&index.name),
        quote_qualified(catalog.schema_name(table.schema_oid).unwrap_or("?"), &table.name),
        index.method,
        index_columns_text(table, index),
    );
    out.push_str(&include_text(table, index));
    if index.nulls_not_distinct {
        out.push_str(" NULLS NOT DISTINCT");
    }
    if let Some(predicate) = &index.predicate {
        let _ = if is_parenthesized(predicate) { write!(out, " WHERE {predicate}") } else { write!(out, " WHERE ({predicate})") };
    }
    out
}

/// `pg_get_indexdef(oid, column, pretty)`: the whole definition for column 0, else that column's name or expression.
pub fn index_definition(context: &StatementContext, oid: Oid, column: i32) -> Option<String> {
    let catalog = context.root.catalog();
    if let Some(found) = find_index(catalog, oid) {
        if column == 0 {
            return Some(index_text(catalog, found.table, found.index));
        }
        let position = usize::try_from(column - 1).ok()?;
        let key_count = found.index.columns.len();
        return match found.index.columns.get(position) {
            Some(key) => Some(index_column_text(found.table, &key.key)),
            None => {
                let name = found.index.include.get(position - key_count).and_then(|&i| found.table.columns.get(i));
                Some(name.map(|c| quote_identifier(&c.name).into_owned()).unwrap_or_default())
            }
        };
    }
    system_index_definition(oid, column)
}

fn system_index_definition(oid: Oid, column: i32) -> Option<String> {
    let all = relations();
    let index = all.by_oid(oid).filter(|r| r.kind == b'i')?;
    if column > 0 {
        return Some(index.columns.get(usize::try_from(column - 1).ok()?).map(|c| c.name.to_string()).unwrap_or_default());
    }
    let (table, unique) = super::pg_catalog::keys::system_index(oid)?;
    let columns: Vec<&str> = index.columns.iter().map(|c| c.name).collect();
    Some(format!(
        "CREATE {}INDEX {} ON pg_catalog.{} USING btree ({})",
        if unique { "UNIQUE " } else { "" },
        index.name,
        all.by_oid(table)?.name,
        columns.join(", ")
    ))
}

/// A PRIMARY KEY or UNIQUE constraint's definition.
pub fn key_text(table: &TableSchema, index: &Index, primary: bool) -> String {
    let columns: Vec<usize> = index
        .columns
        .iter()
        .filter_map(|c| match c.key {
            IndexKey::Column(i) => Some(i),
            IndexKey::Expression(_) => None,
        })
        .collect();
    let word = match (primary, index.nulls_not_distinct) {
        (true, _) => "PRIMARY KEY",
        (false, true) => "UNIQUE NULLS NOT DISTINCT",
        (false, false) => "UNIQUE",
    };
    format!("{word} ({}){}", column_list(table, &columns), include_text(table, index))
}

/// A constraint of a table: a key, a CHECK or a FOREIGN KEY.
pub enum ConstraintOf<'a> {
    Key { table: &'a Arc<TableSchema>, index: &'a Index, primary: bool },
    Other { table: &'a Arc<TableSchema>, constraint: &'a Constraint },
    Domain { ty: &'a UserType, check: usize },
}

/// The oid that a domain's n-th CHECK has in pg_constraint.
pub fn domain_check_oid(ty: &UserType, check: usize) -> Oid {
    default_oid(ty.oid, i16::try_from(check).unwrap_or(i16::MAX))
}

/// All constraints of a catalog with their oids in pg_constraint. A key's constraint has its index's oid.
pub fn constraints(catalog: &Catalog) -> impl Iterator<Item = (Oid, ConstraintOf<'_>)> {
    let of_tables = catalog.tables().flat_map(|table| {
        let keys = indexes_of(table)
            .filter(|(index, primary)| *primary || index.constraint)
            .map(move |(index, primary)| (index.oid, ConstraintOf::Key { table, index, primary }));
        let others = table.constraints.iter().map(move |constraint| (constraint.oid, ConstraintOf::Other { table, constraint }));
        keys.chain(others)
    });
    let of_domains = catalog.objects.values().flat_map(|o| match &**o {
        CatalogObject::Type(ty) => match &ty.definition {
            TypeDefinition::Domain { checks, .. } => {
                (0..checks.len()).map(|check| (domain_check_oid(ty, check), ConstraintOf::Domain { ty, check })).collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    });
    of_tables.chain(of_domains)
}

/// `pg_get_constraintdef(oid, pretty)`. Pretty leaves out a CHECK's second parentheses, as psql wants it.
pub fn constraint_definition(context: &StatementContext, oid: Oid, pretty: bool) -> Option<String> {
    let definition = stored_constraint(context, oid)?;
    let Some(rest) = definition.strip_prefix("CHECK (").filter(|_| pretty) else { return Some(definition) };
    // `((a > 0))` holds one expression in parentheses; `((a) = (b))` does not.
    let Some(end) = closing(rest, 0).filter(|end| rest.starts_with('(') && rest.as_bytes().get(end + 1) == Some(&b')')) else {
        return Some(definition);
    };
    let table = context.root.catalog().tables().find(|t| t.constraints.iter().any(|c| c.oid == oid));
    let expression = &rest[1..end];
    let shown = table.map_or_else(|| expression.to_string(), |t| super::check_text::with_implied_casts(t, expression));
    Some(format!("CHECK ({}{}", super::pretty::casts(&shown), &rest[end + 1..]))
}

/// What follows the referenced columns in a FOREIGN KEY's definition: MATCH, actions, DEFERRABLE, NOT VALID.
fn foreign_key_options(definition: &str) -> &str {
    let after = |text: &'_ str| -> Option<usize> {
        let reference = text.find(" REFERENCES ")?;
        let open = reference + text[reference..].find('(')?;
        Some(closing(text, open)? + 1)
    };
    after(definition).map_or("", |end| &definition[end..])
}

fn stored_constraint(context: &StatementContext, oid: Oid) -> Option<String> {
    let catalog = context.root.catalog();
    let (_, found) = constraints(catalog).find(|(o, _)| *o == oid)?;
    Some(match found {
        ConstraintOf::Key { table, index, primary } => key_text(table, index, primary),
        ConstraintOf::Other { table, constraint } => match &constraint.kind {
            ConstraintKind::Check { .. } => constraint.definition.clone(),
            ConstraintKind::ForeignKey { table: target, columns } => {
                let target = catalog.table(*target)?;
                format!(
                    "FOREIGN KEY ({}) REFERENCES {}({}){}",
                    column_list(table, &constraint.columns),
                    relation_text(context, target.oid)?,
                    column_list(target, columns),
                    foreign_key_options(&constraint.definition)
                )
            }
        },
        ConstraintOf::Domain { ty, check } => match &ty.definition {
            TypeDefinition::Domain { checks, .. } => {
                let expression = &checks.get(check)?.1;
                if is_parenthesized(expression) { format!("CHECK ({expression})") } else { format!("CHECK (({expression}))") }
            }
            _ => return None,
        },
    })
}

/// `pg_get_viewdef(oid)`.
pub fn view_definition(context: &StatementContext, oid: Oid) -> Option<String> {
    match context.root.catalog().get(oid).map(|o| &**o) {
        Some(CatalogObject::View(view)) => Some(view_text(view)),
        _ => None,
    }
}

/// A view's body with the semicolon that PostgreSQL prints.
pub fn view_text(view: &View) -> String {
    let body = view.query.trim_end().trim_end_matches(';');
    format!(" {};", body.trim_start())
}

/// `pg_get_expr(node, relation)`: expressions are kept as text; relations in them are named as the search path allows.
pub fn expression_text(context: &StatementContext, node: &str) -> String {
    const MARK: &str = "'::regclass";
    let mut out = String::with_capacity(node.len());
    let mut rest = node;
    while let Some(end) = rest.find(MARK) {
        let Some(start) = rest[..end].rfind('\'') else { break };
        let shown = super::identifier::parse_qualified(&rest[start + 1..end]).and_then(|parts| {
            let oid = match parts.as_slice() {
                [name] => relation_oid(context, None, name),
                [schema, name] => relation_oid(context, Some(schema), name),
                _ => None,
            };
            relation_text(context, oid?)
        });
        out.push_str(&rest[..=start]);
        out.push_str(shown.as_deref().unwrap_or(&rest[start + 1..end]));
        out.push_str(MARK);
        rest = &rest[end + MARK.len()..];
    }
    out.push_str(rest);
    out
}

/// A column's default as pg_attrdef keeps it: a bare string literal has become a constant of the column's type.
pub fn default_text(context: &StatementContext, column: &Column) -> Option<String> {
    let default = column.generated.as_ref().or(column.default.as_ref())?;
    let inner = default.strip_prefix('\'').and_then(|d| d.strip_suffix('\''));
    let is_literal = inner.is_some_and(|inner| !inner.replace("''", "").contains('\''));
    if !is_literal || column.generated.is_some() {
        return Some(default.clone());
    }
    let ty = &column.data_type;
    let value = inner.unwrap_or_default();
    Some(match ty.kind {
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric | Kind::Float4 | Kind::Float8 if value.parse::<f64>().is_ok() => {
            value.to_string()
        }
        Kind::Bool => match value {
            "t" | "true" | "on" | "yes" | "1" => "true".into(),
            _ => "false".into(),
        },
        _ => format!("{default}::{}", format_type(context, ty.oid, None)),
    })
}

/// `pg_get_serial_sequence`: the sequence that a column owns.
pub fn owned_sequence(catalog: &Catalog, table: Oid, attnum: i16) -> Option<&Sequence> {
    catalog.objects.values().find_map(|o| match &**o {
        CatalogObject::Sequence(s) if s.owned_by == Some((table, attnum)) => Some(s),
        _ => None,
    })
}

/// `obj_description(oid, catalog)`: the comment on an object.
pub fn object_comment(context: &StatementContext, oid: Oid, class: Option<&str>) -> Option<String> {
    let catalog = context.root.catalog();
    let fits = |name: &str| class.is_none_or(|c| c == name);
    match catalog.get(oid).map(|o| &**o) {
        Some(CatalogObject::Table(table)) if fits("pg_class") => return table.comment.clone(),
        Some(CatalogObject::Schema(schema)) if fits("pg_namespace") => return schema.comment.clone(),
        _ => {}
    }
    if fits("pg_class")
        && let Some(found) = find_index(catalog, oid)
        && found.index.comment.is_some()
    {
        return found.index.comment.clone();
    }
    if fits("pg_subscription")
        && let Some((_, comment)) = subscription_comments(context).into_iter().find(|(subscription, _)| *subscription == oid)
    {
        return Some(comment);
    }
    catalog_data::catalog().descriptions.iter().find(|d| d.object == oid && fits(d.class)).map(|d| d.text.to_string())
}

/// The comments on the database's subscriptions, by oid. They are the server's, and in no catalog of a branch.
pub fn subscription_comments(context: &StatementContext) -> Vec<(Oid, String)> {
    let comment = |row: serde_json::Value| {
        let oid = row["objoid"].as_u64().and_then(|oid| Oid::try_from(oid).ok())?;
        Some((oid, row["description"].as_str()?.to_owned()))
    };
    context.session.server_rows("pg_description").into_iter().filter_map(comment).collect()
}

/// `col_description(table, attnum)`.
pub fn column_comment(catalog: &Catalog, table: Oid, attnum: i32) -> Option<String> {
    catalog.table(table)?.columns.iter().find(|c| i32::from(c.attnum) == attnum)?.comment.clone()
}

/// The role that owns an object, by name.
pub fn owner_of(object: &CatalogObject) -> &str {
    match object {
        CatalogObject::Schema(Schema { owner, .. })
        | CatalogObject::Sequence(Sequence { owner, .. })
        | CatalogObject::Type(UserType { owner, .. })
        | CatalogObject::View(View { owner, .. }) => owner,
        CatalogObject::Table(table) => &table.owner,
    }
}

/// A CREATE TABLE that would make this table: its columns, keys and constraints, then its indexes.
pub fn create_table_text(catalog: &Catalog, table: &TableSchema) -> String {
    let mut lines: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let mut line = format!("  {} {}", quote_identifier(&column.name), type_text(&column.data_type));
            if let Some(collation) = &column.collation {
                let _ = write!(line, " COLLATE {}", quote_identifier(collation));
            }
            if column.not_null {
                line.push_str(" NOT NULL");
            }
            match (&column.generated, column.identity, &column.default) {
                (Some(expression), _, _) => {
                    let _ = write!(line, " GENERATED ALWAYS AS ({expression}) STORED");
                }
                (None, Some(Identity::Always), _) => line.push_str(" GENERATED ALWAYS AS IDENTITY"),
                (None, Some(Identity::ByDefault), _) => line.push_str(" GENERATED BY DEFAULT AS IDENTITY"),
                (None, None, Some(default)) => {
                    let _ = write!(line, " DEFAULT {default}");
                }
                (None, None, None) => {}
            }
            line
        })
        .collect();
    for (index, primary) in indexes_of(table).filter(|(index, primary)| *primary || index.constraint) {
        lines.push(format!("  CONSTRAINT {} {}", quote_identifier(&index.name), key_text(table, index, primary)));
    }
    for constraint in &table.constraints {
        lines.push(format!("  CONSTRAINT {} {}", quote_identifier(&constraint.name), constraint.definition));
    }
    let mut out = format!(
        "CREATE TABLE {} (\n{}\n);",
        quote_qualified(catalog.schema_name(table.schema_oid).unwrap_or("?"), &table.name),
        lines.join(",\n")
    );
    for index in table.indexes.iter().filter(|i| !i.constraint) {
        let _ = write!(out, "\n{};", index_text(catalog, table, index));
    }
    out
}

/// The statement that would make an object, for schema diffs.
pub fn create_text(catalog: &Catalog, object: &CatalogObject) -> String {
    match object {
        CatalogObject::Table(table) => create_table_text(catalog, table),
        CatalogObject::Schema(schema) => format!("CREATE SCHEMA {};", quote_identifier(&schema.name)),
        CatalogObject::View(view) => format!(
            "CREATE VIEW {} AS{}",
            quote_qualified(catalog.schema_name(view.schema_oid).unwrap_or("?"), &view.name),
            view_text(view)
        ),
        CatalogObject::Sequence(s) => format!(
            "CREATE SEQUENCE {} AS {} START WITH {} INCREMENT BY {} MINVALUE {} MAXVALUE {} CACHE {}{};",
            quote_qualified(catalog.schema_name(s.schema_oid).unwrap_or("?"), &s.name),
            type_text(&s.data_type),
            s.start,
            s.increment,
            s.min,
            s.max,
            s.cache,
            if s.cycle { " CYCLE" } else { "" }
        ),
        CatalogObject::Type(ty) => create_type_text(catalog, ty),
    }
}

fn create_type_text(catalog: &Catalog, ty: &UserType) -> String {
    let name = quote_qualified(catalog.schema_name(ty.schema_oid).unwrap_or("?"), &ty.name);
    match &ty.definition {
        TypeDefinition::Enum(labels) => {
            let labels: Vec<String> = labels.iter().map(|l| super::identifier::quote_literal(l)).collect();
            format!("CREATE TYPE {name} AS ENUM ({});", labels.join(", "))
        }
        TypeDefinition::Domain { base, not_null, default, checks } => {
            let mut out = format!("CREATE DOMAIN {name} AS {}", type_text(base));
            if let Some(default) = default {
                let _ = write!(out, " DEFAULT {default}");
            }
            if *not_null {
                out.push_str(" NOT NULL");
            }
            for (check, expression) in checks {
                let _ = write!(out, " CONSTRAINT {} CHECK ({expression})", quote_identifier(check));
            }
            out + ";"
        }
        TypeDefinition::Composite(fields) => {
            let fields: Vec<String> = fields.iter().map(|(n, t)| format!("{} {}", quote_identifier(n), type_text(t))).collect();
            format!("CREATE TYPE {name} AS ({});", fields.join(", "))
        }
        TypeDefinition::Opaque => format!("CREATE TYPE {name};"),
    }
}

/// Says whether a constraint is a CHECK.
pub fn is_check(constraint: &Constraint) -> bool {
    matches!(constraint.kind, ConstraintKind::Check { .. })
}
