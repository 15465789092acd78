//! The cases of `cases/postgresql-15.txt`: each query with what PostgreSQL 15 describes for it (Parse and Describe of the extended
//! protocol): parameter types, output columns with type and modifier, or the error with its position, detail and hint.

use std::collections::BTreeMap;
use std::sync::Arc;

use pg_query::NodeEnum;
use strandline_storage::schema::{
    Column as StoredColumn, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID, TableSchema, TypeDefinition, UserType,
};
use strandline_storage::value::TextSettings;
use strandline_storage::{Catalog, CatalogObject, DataType, Kind, Root, Value};

use super::Binder;
use super::names::{AsOf, Names, Relation, TableFunctionArgument, ViewDefinition};
use crate::bound::{Expr, Rel};
use crate::error::{Result, SqlError};
use crate::parse;
use crate::types::{Oid, SqlType, oid};
use crate::virtual_table::VirtualTable;

const MOOD: Oid = 16389;
const MOOD_ARRAY: Oid = 16388;

/// Surroundings with the tables that the cases were described with.
struct Tables {
    root: Root,
    mood: Arc<UserType>,
    settings: TextSettings,
}

fn mood_type() -> DataType {
    DataType { oid: MOOD, typmod: -1, name: "mood".into(), kind: Kind::Enum, element: None }
}

fn table(oid: Oid, name: &str, columns: &[(&str, &str)], key: bool) -> CatalogObject {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(i, (name, ty))| {
            let data_type = if *ty == "mood" {
                mood_type()
            } else {
                let ty = parse::parse_type_name(ty).unwrap();
                let bound = TYPES.with(|names| Binder::new(names, Arc::default(), &[]).bind_type(&ty).unwrap());
                DataType::builtin(bound.oid, bound.typmod).unwrap()
            };
            StoredColumn {
                name: (*name).into(),
                attnum: i as i16 + 1,
                data_type,
                not_null: false,
                default: None,
                identity: None,
                generated: None,
                collation: None,
                comment: None,
            }
        })
        .collect::<Vec<_>>();
    let primary_key = key.then(|| Index {
        oid: oid + 100,
        name: format!("{name}_pkey"),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false }],
        include: Vec::new(),
        predicate: None,
        method: "btree".into(),
        constraint: true,
        comment: None,
    });
    CatalogObject::Table(Arc::new(TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "postgres".into(),
        next_attnum: columns.len() as i16 + 1,
        columns,
        primary_key,
        indexes: Vec::new(),
        constraints: Vec::new(),
        merged_columns: Vec::new(),
        comment: None,
    }))
}

thread_local! {
    static TYPES: Tables = Tables::of(Vec::new());
}

impl Tables {
    fn of(objects: Vec<CatalogObject>) -> Self {
        let mut all: BTreeMap<Oid, Arc<CatalogObject>> = Catalog::initial("postgres").objects;
        all.extend(objects.into_iter().map(|o| (o.oid(), Arc::new(o))));
        let definition = TypeDefinition::Enum(vec!["sad".into(), "ok".into(), "happy".into()]);
        let mood = Arc::new(UserType {
            oid: MOOD,
            array_oid: MOOD_ARRAY,
            schema_oid: PUBLIC_SCHEMA_OID,
            name: "mood".into(),
            owner: "postgres".into(),
            definition,
        });
        let catalog = Catalog { objects: all };
        Tables { root: Root::new(catalog), mood, settings: TextSettings::default() }
    }

    fn shop() -> Self {
        let t = [
            ("id", "int"),
            ("name", "text"),
            ("qty", "int"),
            ("price", "numeric(10,2)"),
            ("created", "timestamptz"),
            ("tags", "text[]"),
            ("data", "jsonb"),
            ("flag", "bool"),
            ("vc", "varchar(20)"),
            ("ch", "char(5)"),
            ("d", "date"),
            ("big", "bigint"),
            ("f", "float8"),
            ("r", "real"),
            ("sm", "smallint"),
            ("u", "uuid"),
            ("iv", "interval"),
            ("ts", "timestamp"),
            ("m", "mood"),
            ("js", "json"),
            ("Weird Name", "int"),
        ];
        let o = [("id", "int"), ("t_id", "int"), ("amount", "numeric"), ("note", "text"), ("placed", "timestamp")];
        Tables::of(vec![table(16400, "t", &t, true), table(16401, "o", &o, true), table(16402, "k", &[("a", "int"), ("b", "text")], false)])
    }
}

impl Names for Tables {
    fn relation(&self, _catalog: Option<&str>, schema: Option<&str>, name: &str) -> Result<Option<Relation>> {
        if schema.is_some_and(|s| s != "public") {
            return Ok(None);
        }
        if name == "v" {
            return Ok(Some(Relation::View(ViewDefinition {
                oid: 16500,
                columns: vec!["id".into(), "n".into(), "double".into()],
                query: "SELECT id, upper(name) AS n, price * 2 AS double FROM t".into(),
            })));
        }
        Ok(self
            .root
            .catalog()
            .table_by_name("public", name)
            .and_then(|t| self.root.table(t.oid))
            .map(|t| Relation::Table(Arc::new(t.clone().into()))))
    }

    fn relation_schema(&self, _name: &str) -> Option<String> {
        Some("public".into())
    }

    fn relation_as_of(&self, catalog: Option<&str>, schema: Option<&str>, name: &str, as_of: &AsOf) -> Result<Option<Relation>> {
        assert!(matches!(as_of, AsOf::Ref(_) | AsOf::Unknown | AsOf::Lsn(_) | AsOf::Xid(_) | AsOf::Timestamp(_)));
        self.relation(catalog, schema, name)
    }

    fn table_function(
        &self,
        _schema: Option<&str>,
        _name: &str,
        _arguments: &[TableFunctionArgument],
    ) -> Result<Option<Arc<dyn VirtualTable>>> {
        Ok(None)
    }

    fn is_table_function(&self, _schema: Option<&str>, _name: &str) -> bool {
        false
    }

    fn user_type(&self, _schema: Option<&str>, name: &str) -> Result<Option<Arc<UserType>>> {
        Ok((name == "mood").then(|| self.mood.clone()))
    }

    fn user_type_by_oid(&self, oid: Oid) -> Option<Arc<UserType>> {
        (oid == MOOD || oid == MOOD_ARRAY).then(|| self.mood.clone())
    }

    fn row_type(&self, _relation: Oid) -> Option<Vec<(String, SqlType)>> {
        None
    }

    fn relation_oid(&self, _schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
        Ok(self.root.catalog().relation("public", name).map(|o| o.oid()))
    }

    fn schema_oid(&self, name: &str) -> Option<Oid> {
        match name {
            "pg_catalog" => Some(11),
            "public" => Some(PUBLIC_SCHEMA_OID),
            _ => None,
        }
    }

    fn role_oid(&self, _name: &str) -> Option<Oid> {
        None
    }

    fn evaluate(&self, expr: &Expr) -> Result<Option<Value>> {
        match expr {
            Expr::Const { value, .. } => Ok(Some(value.clone())),
            _ => Ok(None),
        }
    }

    fn text_settings(&self) -> &TextSettings {
        &self.settings
    }
}

/// What a query is described as, in the case file's lines.
fn describe(names: &Tables, query: &str) -> String {
    match try_describe(names, query) {
        Ok(text) => text,
        Err(error) => {
            let mut out = format!("  error: {}\n", error.message);
            if let Some(position) = error.position {
                out += &format!("  position {position}\n");
            }
            if let Some(detail) = error.detail {
                out += &format!("  detail {detail}\n");
            }
            if let Some(hint) = error.hint {
                out += &format!("  hint {hint}\n");
            }
            out
        }
    }
}

fn try_describe(names: &Tables, query: &str) -> Result<String, SqlError> {
    let statement = parse::parse(query)?.remove(0);
    let mut binder = Binder::new(names, statement.source.clone(), &[]);
    let NodeEnum::SelectStmt(select) = &statement.node else { return Ok("  not a query\n".into()) };
    let bound = binder.bind_query(select)?;
    let params = binder.param_types()?;
    let mut out = String::new();
    if !params.is_empty() {
        out += &format!("  params {}\n", params.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    }
    let ids = bound.rel.column_ids();
    for column in &bound.columns {
        assert!(ids.contains(&column.id), "{query}: column {} is not given by the relation", column.name);
        let stored = if column.origin.is_some() { " | stored" } else { "" };
        // PostgreSQL describes a row by its table's type, which has no oid of its own here.
        out += &format!("  column {} | {} | {}{stored}\n", column.name, column.ty.oid, column.ty.typmod);
    }
    Ok(out)
}

#[test]
fn queries_are_described_as_postgresql_describes_them() {
    let names = Tables::shop();
    let mut wrong = Vec::new();
    let cases = include_str!("cases/postgresql-15.txt");
    let mut count = 0;
    for case in cases.split("\n\n").map(str::trim_end).filter(|c| !c.is_empty()) {
        let (query, expected) = case.split_once('\n').unwrap_or((case, ""));
        let expected: String = expected
            .lines()
            .map(|line| match line.strip_prefix("  error ") {
                Some(error) => format!("  error:{}\n", error.split_once(':').map_or(error, |(_, message)| message)),
                None => format!("{line}\n"),
            })
            .collect();
        count += 1;
        let got = describe(&names, query);
        if got != expected {
            wrong.push(format!("{query}\nexpected\n{expected}got\n{got}"));
        }
    }
    assert!(count > 200);
    assert!(wrong.is_empty(), "{} of {count} cases differ:\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn as_of_reaches_the_surroundings_and_keeps_positions() {
    let names = Tables::shop();
    assert_eq!(describe(&names, "select id from t as of 'HEAD~1' x where x.id = $1"), "  params 23\n  column id | 23 | -1 | stored\n");
    assert_eq!(describe(&names, "select id from t as of $1"), "  params 25\n  column id | 23 | -1 | stored\n");
    assert_eq!(
        describe(&names, "select id from t as of now() - interval '1 hour' join o as of lsn '0/1' using (id)"),
        "  column id | 23 | -1 | stored\n"
    );
    let error = describe(&names, "select t.id from t as of 'HEAD' where nosuch = 1");
    assert!(error.contains("position 39"), "{error}");
    let error = describe(&names, "select id from nosuch as of 'HEAD'");
    assert!(error.starts_with("  error: relation \"nosuch\" does not exist\n  position 16"), "{error}");
}

#[test]
fn a_deep_expression_is_refused_not_a_crash() {
    let names = Tables::shop();
    let chain = format!("select {}1", "1 + ".repeat(20_000));
    let refused = |text: &str| {
        let got = describe(&names, text);
        got.contains("stack depth limit exceeded") || got.contains("memory exhausted")
    };
    assert!(refused(&chain));
    // (before, repeated before, inside, repeated after)
    let shapes = [
        ("select ", "1+", "1", ""),
        ("select ", "@ ", "1", ""),
        ("select array", "[", "1", "]"),
        ("select ", "array[", "1", "]"),
        ("select ", "row(", "1", ")"),
        ("select ", "(1,", "1", ")"),
        ("select 1", "", "", "::int"),
        ("select 'a'", "", "", " collate \"C\""),
        ("select ", "abs(", "1", ")"),
        ("select ", "coalesce(1,", "1", ")"),
        ("select ", "greatest(1,", "1", ")"),
        ("select ", "case when true then ", "1", " end"),
        ("select ", "case ", "1", " when 1 then 1 end"),
        ("select ", "(select ", "1", ")"),
        ("select true", "", "", " is true"),
        ("select ", "(", "1", " in (1, 2))::int"),
        ("select ", "(", "1", " between 1 and 2)::int"),
        ("select ", "case ", "1", " when 1 then 1 when 2 then 3 end"),
        ("select * from ", "(select * from ", "customer", ") x"),
        ("select * from ", "(", "customer", " cross join customer)"),
        ("select * from customer", "", "", " cross join customer"),
        ("select 1", "", "", " union select 1"),
        ("", "(", "select 1", ")"),
        ("", "(select 1 union ", "select 1", ")"),
        ("", "with x as (", "select 1", ") select 1"),
        ("select ", "exists(select 1 where ", "true", ")"),
        ("select 1 group by ", "grouping sets (", "()", ")"),
        ("select ('{1}'::int[])", "", "", "[1]"),
    ];
    // Around every limit there is: the binder's, the parse tree's, the grammar's.
    for depth in [10, 290, 590, 620, 740, 760, 1_510, 3_010, 4_990, 5_010, 50_000] {
        for (before, open, inside, close) in shapes {
            let text = format!("{before}{}{inside}{}", open.repeat(depth), close.repeat(depth));
            let got = describe(&names, &text);
            assert!(depth < 1_500 || !got.starts_with("  column") || close == "[1]" || open == "(", "{depth} of {open}{close}: {got}");
        }
    }
    let nots = format!("select {} true", "not ".repeat(5_000));
    assert!(refused(&nots));
    let fine = format!("select {}'x'", "'x' || ".repeat(150));
    assert_eq!(describe(&names, &fine), "  column ?column? | 25 | -1\n");
}

#[test]
fn an_insert_takes_assignment_coercions_and_defaults() {
    use super::InsertTarget;
    let names = Tables::shop();
    let target = |name: &str, ty: u32, typmod: i32| InsertTarget {
        name: name.into(),
        ty: SqlType { oid: ty, typmod },
        default: Expr::Const { value: Value::Null, ty: SqlType { oid: ty, typmod } },
    };
    let targets = [target("a", oid::INT4, -1), target("b", oid::VARCHAR, 7)];
    let bind = |text: &str| -> Result<String, SqlError> {
        let statement = parse::parse(text)?.remove(0);
        let mut binder = Binder::new(&names, statement.source.clone(), &[]);
        let NodeEnum::InsertStmt(insert) = &statement.node else { panic!() };
        let Some(NodeEnum::SelectStmt(select)) = insert.select_stmt.as_deref().and_then(|n| n.node.as_ref()) else { panic!() };
        let query = binder.bind_insert_source(None, Some(select), &targets, true)?;
        Ok(query.columns.iter().map(|c| format!("{}:{}:{}", c.name, c.ty.oid, c.ty.typmod)).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(bind("insert into k values (1.5, default), ('2', 'abc')").unwrap(), "a:23:-1 b:1043:7");
    assert_eq!(bind("insert into k select '1', 'x'").unwrap(), "?column?:23:-1 ?column?:1043:7");
    let error = bind("insert into k values (true, 'x')").unwrap_err();
    assert_eq!(error.message, "column \"a\" is of type integer but expression is of type boolean");
    assert_eq!(error.position, Some(23));
    assert_eq!(bind("insert into k values (1, 'a', 2)").unwrap_err().message, "INSERT has more expressions than target columns");
    assert_eq!(bind("insert into k values (1)").unwrap_err().message, "INSERT has more target columns than expressions");
}

#[test]
fn a_lateral_item_marks_its_join() {
    let names = Tables::shop();
    let statement = parse::parse("select * from t, lateral (select t.id) s").unwrap().remove(0);
    let mut binder = Binder::new(&names, statement.source.clone(), &[]);
    let NodeEnum::SelectStmt(select) = &statement.node else { panic!() };
    let query = binder.bind_query(select).unwrap();
    let Rel::Project { input, .. } = &query.rel else { panic!() };
    assert!(matches!(&**input, Rel::Join { lateral: true, .. }));
}
