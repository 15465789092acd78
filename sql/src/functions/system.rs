//! System information, sequences, and what psql and drivers ask the catalog for.

use strandline_storage::Value;

use crate::catalog_data::catalog;
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::exec::datum::Datum;
use crate::functions::{Call, Entry, arrays, invalid, sets, text_value};
use crate::session::role;
use crate::system::definitions;
use crate::system::identifier::{parse_qualified, quote_identifier};
use crate::system::pretty;
use crate::types::{Oid, oid};

/// The text of an oid of one of the reg types; plain oids and unknown objects are numbers.
pub fn oid_output(context: &StatementContext, data_type: Oid, value: u32) -> String {
    let found = match data_type {
        oid::OID | oid::XID | oid::CID => None,
        _ if value == 0 => Some("-".to_owned()),
        oid::REGCLASS => definitions::relation_text(context, value),
        oid::REGTYPE => Some(definitions::format_type(context, value, None)),
        oid::REGNAMESPACE => definitions::schema_name(context.root.catalog(), value).map(|n| quote_identifier(n).into_owned()),
        oid::REGPROC => catalog().proc_by_oid(value).map(|p| {
            let overloaded = catalog().procs_by_name(p.name).count() > 1;
            if overloaded { format!("pg_catalog.{}", p.name) } else { p.name.to_owned() }
        }),
        oid::REGPROCEDURE => catalog().proc_by_oid(value).map(|p| {
            let args: Vec<String> = p.arg_types.iter().map(|&t| definitions::format_type(context, t, None)).collect();
            format!("{}({})", p.name, args.join(","))
        }),
        oid::REGROLE => role_name(context, value),
        oid::REGOPER => catalog().operator_by_oid(value).map(|o| o.name.to_owned()),
        oid::REGOPERATOR => catalog().operator_by_oid(value).map(|o| {
            let side = |t: Oid| if t == 0 { "NONE".to_owned() } else { definitions::format_type(context, t, None) };
            format!("{}({},{})", o.name, side(o.left), side(o.right))
        }),
        REGCOLLATION if value == 100 => Some("\"default\"".to_owned()),
        REGCOLLATION => catalog().collations.iter().find(|c| c.oid == value).map(|c| quote_identifier(c.name).into_owned()),
        _ => None,
    };
    found.unwrap_or_else(|| value.to_string())
}

const REGCOLLATION: Oid = 4191;

fn role_name(context: &StatementContext, value: u32) -> Option<String> {
    crate::system::pg_catalog::role_name(context, value)
}

fn undefined(code: ErrorCode, what: &str, name: &str) -> SqlError {
    SqlError::new(code, format!("{what} \"{name}\" does not exist"))
}

/// Reads an oid of one of the reg types: a number, `-`, or a name.
///
/// # Errors
/// `UndefinedTable` and the like for names of nothing.
pub fn oid_input(context: &StatementContext, data_type: Oid, text: &str) -> Result<Value> {
    let trimmed = text.trim();
    let of = |oid: Oid| Ok(Value::Int8(i64::from(oid)));
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return trimmed
            .parse::<u32>()
            .map(|v| Value::Int8(i64::from(v)))
            .map_err(|_| SqlError::new(ErrorCode::NumericValueOutOfRange, format!("value \"{text}\" is out of range for type oid")));
    }
    if matches!(data_type, oid::XID | oid::CID | oid::OID) {
        return Err(SqlError::new(ErrorCode::InvalidTextRepresentation, format!("invalid input syntax for type oid: \"{text}\"")));
    }
    if trimmed == "-" {
        return of(0);
    }
    if data_type == oid::REGTYPE {
        return type_by_name(context, trimmed).map_or_else(|| Err(undefined(ErrorCode::UndefinedObject, "type", trimmed)), of);
    }
    let bare = trimmed.split('(').next().unwrap_or(trimmed);
    let parts = parse_qualified(bare).ok_or_else(|| SqlError::new(ErrorCode::InvalidName, "invalid name syntax"))?;
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        [database, schema, name] if *database == context.database => (Some(schema.as_str()), name.as_str()),
        _ => return Err(SqlError::unsupported("a cross-database reference")),
    };
    match data_type {
        oid::REGCLASS => {
            definitions::relation_oid(context, schema, name).map_or_else(|| Err(undefined(ErrorCode::UndefinedTable, "relation", bare)), of)
        }
        oid::REGNAMESPACE => definitions::schema_oid(context.root.catalog(), name)
            .map_or_else(|| Err(undefined(ErrorCode::InvalidSchemaName, "schema", name)), of),
        oid::REGROLE => role::list(&context.store)?
            .into_iter()
            .find(|r| r.name == name)
            .map_or_else(|| Err(undefined(ErrorCode::UndefinedObject, "role", name)), |r| of(r.oid)),
        oid::REGPROC | oid::REGPROCEDURE => {
            let mut procs: Vec<_> = catalog().procs_by_name(name).collect();
            if let Some(args) = trimmed.strip_prefix(bare).and_then(|a| a.strip_prefix('(')).and_then(|a| a.strip_suffix(')')) {
                let wanted: Option<Vec<Oid>> =
                    args.split(',').map(str::trim).filter(|a| !a.is_empty()).map(|a| type_by_name(context, a)).collect();
                procs.retain(|p| Some(&p.arg_types) == wanted.as_ref());
            }
            match procs.as_slice() {
                [one] => of(one.oid),
                [] => Err(undefined(ErrorCode::UndefinedFunction, "function", trimmed)),
                _ => Err(SqlError::new(ErrorCode::AmbiguousFunction, format!("more than one function named \"{name}\""))),
            }
        }
        REGCOLLATION => catalog()
            .collations
            .iter()
            .find(|c| c.name == name)
            .map_or_else(|| Err(undefined(ErrorCode::UndefinedObject, "collation", name)), |c| of(c.oid)),
        _ => Err(SqlError::new(ErrorCode::InvalidTextRepresentation, format!("invalid input syntax for type oid: \"{text}\""))),
    }
}

fn type_by_name(context: &StatementContext, text: &str) -> Option<Oid> {
    if let Some(found) = strandline_storage::DataType::by_name(text) {
        return Some(found.oid);
    }
    let (base, is_array) = match text.strip_suffix("[]") {
        Some(base) => (base.trim(), true),
        None => (text, false),
    };
    let base = base.split('(').next().unwrap_or(base).trim();
    if is_array && let Some(found) = strandline_storage::DataType::by_name(base) {
        return catalog().type_by_oid(found.oid).map(|t| t.array).filter(|a| *a != 0);
    }
    let parts = parse_qualified(base)?;
    let name = parts.last()?;
    let schema = if parts.len() > 1 { parts.first() } else { None };
    let objects = &context.root.catalog().objects;
    let user = objects.values().find_map(|o| match &**o {
        strandline_storage::CatalogObject::Type(t)
            if t.name == *name && schema.is_none_or(|s| context.root.catalog().schema_name(t.schema_oid) == Some(s)) =>
        {
            Some(if is_array { t.array_oid } else { t.oid })
        }
        _ => None,
    });
    user.or_else(|| catalog().type_by_name(name).map(|t| if is_array { t.array } else { t.oid }))
}

fn optional(text: Option<String>) -> Result<Value> {
    Ok(text.map_or(Value::Null, text_value))
}

fn oid_of(datum: &Datum<'_>) -> Oid {
    datum.int() as Oid
}

fn visible(answer: Option<bool>) -> Result<Value> {
    Ok(answer.map_or(Value::Null, Value::Bool))
}

/// Functions, operators and the like are all in pg_catalog, which is always on the path.
fn built_in(found: bool) -> Result<Value> {
    Ok(if found { Value::Bool(true) } else { Value::Null })
}

const KIB: i128 = 1024;

/// As `pg_size_pretty`: halves are rounded away from zero at each step.
fn pretty_size(mut size: i128) -> String {
    if size.abs() < 10 * KIB {
        return format!("{size} bytes");
    }
    // One bit more is kept for rounding.
    size /= KIB / 2;
    let limit = 20 * KIB - 1;
    let units = ["kB", "MB", "GB", "TB", "PB"];
    for (i, unit) in units.iter().enumerate() {
        if size.abs() < limit || i == units.len() - 1 {
            let rounded = if size >= 0 { (size + 1) / 2 } else { (size - 1) / 2 };
            return format!("{rounded} {unit}");
        }
        size /= KIB;
    }
    String::new()
}

/// A table's size: rows are counted, bytes per row estimated from the columns, since trees share their chunks.
fn table_bytes(call: &Call, oid: Oid) -> Option<i64> {
    let table = call.context.root.table(oid)?;
    let width: u64 = table
        .schema()
        .columns
        .iter()
        .map(|c| match c.data_type.kind.physical() {
            strandline_storage::Physical::Bool => 1,
            strandline_storage::Physical::Int2 => 2,
            strandline_storage::Physical::Int4 | strandline_storage::Physical::Float4 => 4,
            strandline_storage::Physical::Int8 | strandline_storage::Physical::Float8 => 8,
            strandline_storage::Physical::Uuid => 16,
            strandline_storage::Physical::Bytes => 24,
        })
        .sum();
    Some((table.len().saturating_mul(width)) as i64)
}

fn size(call: &Call, oid: Oid) -> Result<Value> {
    if let Some(bytes) = table_bytes(call, oid) {
        return Ok(Value::Int8(bytes));
    }
    Ok(if definitions::relation_name(call.context.root.catalog(), oid).is_some() { Value::Int8(0) } else { Value::Null })
}

fn setting(call: &Call, a: &[Datum<'_>], missing_ok: bool) -> Result<Value> {
    match call.context.session.current_setting(a[0].str())? {
        Some(value) => Ok(text_value(value)),
        None if missing_ok => Ok(Value::Null),
        None => Err(SqlError::new(ErrorCode::UndefinedObject, format!("unrecognized configuration parameter \"{}\"", a[0].str()))),
    }
}

fn schemas(call: &Call, implicit: bool) -> Vec<String> {
    let context = &call.context;
    let mut names: Vec<String> = Vec::new();
    for oid in definitions::effective_path(context) {
        let Some(name) = definitions::schema_name(context.root.catalog(), oid) else { continue };
        if implicit || name != "pg_catalog" || context.search_path.iter().any(|s| s == "pg_catalog") {
            names.push(name.to_owned());
        }
    }
    names
}

/// The text arguments of a version procedure: one variadic array.
fn procedure_args(a: &[Datum<'_>]) -> Result<Vec<Option<String>>> {
    match a.first() {
        None | Some(Datum::Null) => Ok(Vec::new()),
        Some(array) => Ok(arrays::parse(array.str())?.elements),
    }
}

fn call_procedure(call: &Call, a: &[Datum<'_>]) -> Result<Vec<Value>> {
    call.context.session.call_procedure(call.proc.name, &procedure_args(a)?, &call.context)
}

fn procedure(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let mut row = call_procedure(call, a)?;
    if row.len() == 1 {
        return Ok(row.remove(0));
    }
    // Several columns are one composite value where a value is wanted.
    let columns = call.proc.out_columns();
    let mut out = String::from("(");
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if let Some((_, ty)) = columns.get(i)
            && !value.is_null()
        {
            let data_type = super::casts::data_type(&call.context, crate::types::SqlType::new(*ty))?;
            super::casts::push_record_field(&super::casts::output(&call.context, &data_type, &Datum::from(value))?, &mut out);
        }
    }
    out.push(')');
    Ok(text_value(out))
}

/// Set-returning functions of this family.
pub fn set_function(source: &str) -> Option<sets::Run> {
    Some(match source {
        "dolt_add" | "dolt_commit" | "dolt_branch" | "dolt_checkout" | "dolt_tag" | "dolt_reset" | "dolt_gc" => {
            |c, a| Ok(Box::new(std::iter::once(Ok(call_procedure(c, a)?))))
        }
        // No relation is a partition or partitioned; psql's \d asks for every table with a foreign key.
        "pg_partition_ancestors" | "pg_partition_tree" => |_, _| Ok(Box::new(std::iter::empty())),
        "pg_get_keywords" => |_, _| Err(SqlError::unsupported("function pg_get_keywords()")),
        _ => return None,
    })
}

fn version_function(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let args: Vec<Option<String>> = a.iter().map(|v| if v.is_null() { None } else { Some(v.str().to_owned()) }).collect();
    crate::system::call_scalar(call.proc.name, &args, &call.context).unwrap_or_else(|| Err(super::unsupported(call.proc)))
}

/// `has_*_privilege`: there is one kind of role, the superuser, so the question is whether the object is there.
pub fn has_privilege(call: &Call, a: &[Datum<'_>]) -> Result<Value> {
    let name = call.proc.name;
    // The object is the argument before the last, which names the privilege; columns add one between.
    let at = if name == "has_column_privilege" { a.len().saturating_sub(3) } else { a.len().saturating_sub(2) };
    let Some(object) = a.get(at) else { return Ok(Value::Null) };
    let is_name = matches!(object, Datum::Bytes(_));
    let kind = match name {
        "has_table_privilege" | "has_any_column_privilege" | "has_column_privilege" | "has_sequence_privilege" => oid::REGCLASS,
        "has_schema_privilege" => oid::REGNAMESPACE,
        "has_type_privilege" => oid::REGTYPE,
        "has_function_privilege" => oid::REGPROCEDURE,
        _ => return Ok(Value::Bool(true)),
    };
    if is_name {
        oid_input(&call.context, kind, object.str())?;
        return Ok(Value::Bool(true));
    }
    let value = oid_of(object);
    let exists = match kind {
        oid::REGCLASS => definitions::relation_name(call.context.root.catalog(), value).is_some(),
        oid::REGNAMESPACE => definitions::schema_name(call.context.root.catalog(), value).is_some(),
        oid::REGPROCEDURE => catalog().proc_by_oid(value).is_some(),
        _ => true,
    };
    Ok(if exists { Value::Bool(true) } else { Value::Null })
}

fn sleep(call: &Call, seconds: f64) -> Result<Value> {
    let end = std::time::Instant::now() + std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(std::time::Duration::MAX / 4);
    loop {
        call.context.check_cancel()?;
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(text_value(""));
        }
        std::thread::sleep(left.min(std::time::Duration::from_millis(20)));
    }
}

pub const FUNCTIONS: &[Entry] = &[
    ("pgsql_version", |c, _| {
        let version = c.context.session.current_setting("server_version")?.unwrap_or_else(|| "15.0".into());
        Ok(text_value(format!("PostgreSQL {version} (Strandline {})", env!("CARGO_PKG_VERSION"))))
    }),
    ("current_database", |c, _| Ok(text_value(&c.context.database))),
    ("current_user", |c, _| Ok(text_value(&c.context.user))),
    ("session_user", |c, _| Ok(text_value(&c.context.user))),
    ("current_schema", |c, _| optional(schemas(c, false).into_iter().next())),
    ("current_schemas", |c, a| {
        let names = schemas(c, a[0].bool()).into_iter().map(Some).collect();
        Ok(text_value(arrays::format(&arrays::Array::flat(names))))
    }),
    ("pg_backend_pid", |c, _| Ok(Value::Int4(c.context.backend_pid))),
    ("pg_get_userbyid", |c, a| {
        Ok(text_value(role_name(&c.context, oid_of(&a[0])).unwrap_or_else(|| format!("unknown (OID={})", oid_of(&a[0])))))
    }),
    ("format_type", |c, a| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        let typmod = if a[1].is_null() { None } else { Some(a[1].int4()) };
        Ok(text_value(definitions::format_type(&c.context, oid_of(&a[0]), typmod)))
    }),
    ("pg_table_is_visible", |c, a| visible(definitions::relation_is_visible(&c.context, oid_of(&a[0])))),
    ("pg_type_is_visible", |c, a| visible(definitions::type_is_visible(&c.context, oid_of(&a[0])))),
    ("pg_function_is_visible", |_, a| built_in(catalog().proc_by_oid(oid_of(&a[0])).is_some())),
    ("pg_operator_is_visible", |_, a| built_in(catalog().operator_by_oid(oid_of(&a[0])).is_some())),
    ("pg_opclass_is_visible", |_, a| built_in(catalog().operator_classes.iter().any(|o| o.oid == oid_of(&a[0])))),
    ("pg_opfamily_is_visible", |_, a| built_in(catalog().operator_families.iter().any(|o| o.oid == oid_of(&a[0])))),
    ("pg_collation_is_visible", |_, a| built_in(catalog().collations.iter().any(|o| o.oid == oid_of(&a[0])))),
    ("pg_conversion_is_visible", |_, _| Ok(Value::Null)),
    ("pg_statistics_obj_is_visible", |_, _| Ok(Value::Null)),
    ("pg_ts_config_is_visible", |_, _| Ok(Value::Null)),
    ("pg_ts_dict_is_visible", |_, _| Ok(Value::Null)),
    ("pg_ts_parser_is_visible", |_, _| Ok(Value::Null)),
    ("pg_ts_template_is_visible", |_, _| Ok(Value::Null)),
    ("pg_get_expr", |c, a| Ok(text_value(definitions::expression_text(&c.context, a[0].str())))),
    ("pg_get_expr_ext", |c, a| {
        let text = definitions::expression_text(&c.context, a[0].str());
        Ok(text_value(if a[2].bool() { pretty::casts(&text) } else { text }))
    }),
    ("pg_get_indexdef", |c, a| optional(definitions::index_definition(&c.context, oid_of(&a[0]), 0))),
    ("pg_get_indexdef_ext", |c, a| {
        let definition = definitions::index_definition(&c.context, oid_of(&a[0]), a[1].int4());
        optional(if a[2].bool() { definition.map(|text| pretty::casts(&pretty::condition(&text))) } else { definition })
    }),
    ("pg_get_constraintdef", |c, a| optional(definitions::constraint_definition(&c.context, oid_of(&a[0]), false))),
    ("pg_get_constraintdef_ext", |c, a| {
        let pretty = a[1].bool();
        optional(definitions::constraint_definition(&c.context, oid_of(&a[0]), pretty))
    }),
    ("pg_get_viewdef", |c, a| optional(definitions::view_definition(&c.context, oid_of(&a[0])))),
    ("pg_get_viewdef_ext", |c, a| optional(definitions::view_definition(&c.context, oid_of(&a[0])))),
    ("pg_get_viewdef_wrap", |c, a| optional(definitions::view_definition(&c.context, oid_of(&a[0])))),
    ("pg_get_viewdef_name", |c, a| {
        let Value::Int8(found) = oid_input(&c.context, oid::REGCLASS, a[0].str())? else { return Ok(Value::Null) };
        optional(definitions::view_definition(&c.context, found as Oid))
    }),
    // Rules, triggers, partitions and extended statistics do not exist here: there is nothing that an oid could name.
    ("pg_get_ruledef", |_, _| Ok(Value::Null)),
    ("pg_get_ruledef_ext", |_, _| Ok(Value::Null)),
    ("pg_get_triggerdef", |_, _| Ok(Value::Null)),
    ("pg_get_triggerdef_ext", |_, _| Ok(Value::Null)),
    ("pg_get_partkeydef", |_, _| Ok(Value::Null)),
    ("pg_get_partition_constraintdef", |_, _| Ok(Value::Null)),
    ("pg_get_statisticsobjdef", |_, _| Ok(Value::Null)),
    ("pg_get_statisticsobjdef_columns", |_, _| Ok(Value::Null)),
    ("pg_get_function_identity_arguments", |c, a| optional(arguments(c, oid_of(&a[0])))),
    ("pg_get_function_arguments", |c, a| optional(arguments(c, oid_of(&a[0])))),
    ("pg_get_function_result", |c, a| {
        optional(catalog().proc_by_oid(oid_of(&a[0])).map(|p| {
            let ty = definitions::format_type(&c.context, p.return_type, None);
            if p.returns_set { format!("SETOF {ty}") } else { ty }
        }))
    }),
    ("pg_get_serial_sequence", |c, a| {
        let Value::Int8(table) = oid_input(&c.context, oid::REGCLASS, a[0].str())? else { return Ok(Value::Null) };
        let root = c.context.root.catalog();
        let column = root.table(table as Oid).and_then(|t| t.columns.iter().find(|c| c.name == a[1].str()));
        let Some(column) = column else {
            return Err(SqlError::new(
                ErrorCode::UndefinedColumn,
                format!("column \"{}\" of relation \"{}\" does not exist", a[1].str(), a[0].str()),
            ));
        };
        optional(
            definitions::owned_sequence(root, table as Oid, column.attnum)
                .map(|s| crate::system::identifier::quote_qualified(root.schema_name(s.schema_oid).unwrap_or("public"), &s.name)),
        )
    }),
    ("obj_description", |c, a| {
        let class = a.get(1).map(|n| n.str().to_owned());
        optional(definitions::object_comment(&c.context, oid_of(&a[0]), class.as_deref()))
    }),
    ("shobj_description", |_, _| Ok(Value::Null)),
    ("col_description", |c, a| optional(definitions::column_comment(c.context.root.catalog(), oid_of(&a[0]), a[1].int4()))),
    ("PG_encoding_to_char", |_, a| {
        Ok(text_value(if a[0].int() == 6 {
            "UTF8"
        } else if a[0].int() == 0 {
            "SQL_ASCII"
        } else {
            ""
        }))
    }),
    ("PG_char_to_encoding", |_, a| {
        let name = a[0].str().to_ascii_lowercase().replace(['-', '_'], "");
        Ok(Value::Int4(match name.as_str() {
            "utf8" | "unicode" => 6,
            "sqlascii" => 0,
            _ => -1,
        }))
    }),
    ("getdatabaseencoding", |_, _| Ok(text_value("UTF8"))),
    ("pg_client_encoding", |_, _| Ok(text_value("UTF8"))),
    ("pg_typeof", |c, _| Ok(Value::Int8(i64::from(c.args.first().map_or(0, |t| t.oid))))),
    ("pg_column_size", |_, a| {
        Ok(match &a[0] {
            Datum::Null => Value::Null,
            Datum::Bool(_) => Value::Int4(1),
            Datum::Int2(_) => Value::Int4(2),
            Datum::Int4(_) | Datum::Float4(_) => Value::Int4(4),
            Datum::Int8(_) | Datum::Float8(_) => Value::Int4(8),
            Datum::Uuid(_) => Value::Int4(16),
            Datum::Bytes(b) => Value::Int4(b.len() as i32 + if b.len() < 127 { 1 } else { 4 }),
        })
    }),
    ("pg_size_pretty", |_, a| Ok(text_value(pretty_size(i128::from(a[0].int()))))),
    ("pg_size_pretty_numeric", |_, a| {
        let size = strandline_storage::value::Numeric::decode(a[0].bytes())?;
        size.to_i128().map(|s| text_value(pretty_size(s))).ok_or_else(|| invalid("size is out of range"))
    }),
    ("pg_relation_size", |c, a| size(c, oid_of(&a[0]))),
    ("pg_table_size", |c, a| size(c, oid_of(&a[0]))),
    ("pg_total_relation_size", |c, a| size(c, oid_of(&a[0]))),
    ("pg_indexes_size", |c, a| Ok(table_bytes(c, oid_of(&a[0])).map_or(Value::Null, |_| Value::Int8(0)))),
    ("pg_database_size_oid", |c, _| database_size(c)),
    ("pg_database_size_name", |c, _| database_size(c)),
    ("pg_tablespace_location", |_, _| Ok(text_value(""))),
    ("pg_is_in_recovery", |_, _| Ok(Value::Bool(false))),
    ("pg_my_temp_schema", |_, _| Ok(Value::Int8(0))),
    ("pg_is_other_temp_schema", |_, _| Ok(Value::Bool(false))),
    ("pg_relation_is_publishable", |c, a| Ok(Value::Bool(c.context.root.table(oid_of(&a[0])).is_some()))),
    ("row_security_active", |_, _| Ok(Value::Bool(false))),
    ("row_security_active_name", |_, _| Ok(Value::Bool(false))),
    ("show_config_by_name", |c, a| setting(c, a, false)),
    ("show_config_by_name_missing_ok", |c, a| setting(c, a, a[1].bool())),
    ("set_config_by_name", |c, a| {
        if a[0].is_null() {
            return Err(SqlError::new(ErrorCode::NullValueNotAllowed, "SET requires parameter name"));
        }
        let value = if a[1].is_null() { "" } else { a[1].str() };
        Ok(text_value(c.context.session.set_config(a[0].str(), value, a[2].bool())?))
    }),
    ("pg_stat_reset_subscription_stats", |c, a| {
        c.context.session.reset_subscription_statistics(if a[0].is_null() { None } else { Some(oid_of(&a[0])) })?;
        Ok(text_value(""))
    }),
    ("nextval_oid", |c, a| Ok(Value::Int8(c.context.session.nextval(oid_of(&a[0]), &c.context)?))),
    ("currval_oid", |c, a| Ok(Value::Int8(c.context.session.currval(oid_of(&a[0]), &c.context)?))),
    ("setval_oid", |c, a| Ok(Value::Int8(c.context.session.setval(oid_of(&a[0]), a[1].int(), true, &c.context)?))),
    ("setval3_oid", |c, a| Ok(Value::Int8(c.context.session.setval(oid_of(&a[0]), a[1].int(), a[2].bool(), &c.context)?))),
    ("lastval", |c, _| Ok(Value::Int8(c.context.session.lastval(&c.context)?))),
    ("gen_random_uuid", |_, _| {
        let mut bytes: [u8; 16] = rand::random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Value::Uuid(bytes))
    }),
    // Nothing here takes advisory locks, so a session that gives back all of its locks gives back none.
    ("pg_advisory_unlock_all", |_, _| Ok(text_value(""))),
    ("pg_sleep", |c, a| sleep(c, a[0].float())),
    ("dolt_add", procedure),
    ("dolt_commit", procedure),
    ("dolt_branch", procedure),
    ("dolt_checkout", procedure),
    ("dolt_tag", procedure),
    ("dolt_reset", procedure),
    ("dolt_gc", procedure),
    ("active_branch", version_function),
    ("dolt_version", version_function),
    ("dolt_storage_format", version_function),
    ("dolt_hashof", version_function),
    ("dolt_hashof_table", version_function),
    ("dolt_hashof_db", version_function),
    ("dolt_merge_base", version_function),
    ("has_ancestor", version_function),
];

fn arguments(call: &Call, oid: Oid) -> Option<String> {
    let proc = catalog().proc_by_oid(oid)?;
    let types: Vec<String> = proc
        .arg_types
        .iter()
        .enumerate()
        .map(|(i, &t)| {
            let ty = definitions::format_type(&call.context, t, None);
            match proc.arg_names.get(i) {
                Some(name) if !name.is_empty() => format!("{name} {ty}"),
                _ => ty,
            }
        })
        .collect();
    Some(types.join(", "))
}

fn database_size(call: &Call) -> Result<Value> {
    let total = call.context.root.catalog().tables().filter_map(|t| table_bytes(call, t.oid)).sum();
    Ok(Value::Int8(total))
}
