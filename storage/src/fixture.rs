//! A store of every format version, kept in the repository and opened for ever after.
//!
//! `storage/fixtures/format-N/` is a data directory as that version wrote it, `format-N.txt` what is in it. Nothing rewrites
//! them: a version that cannot read them any more has broken the stores of its users. A new format version gets a fixture of its own:
//!
//! ```sh
//! STRANDLINE_WRITE_FIXTURE=1 cargo test -p strandline-storage --lib fixture
//! ```
//!
//! writes the one of this version if there is none.

use std::fmt::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::{CommitMeta, Identity, Source};
use crate::disk::RealDisk;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::id::{CommitId, Lsn, Timestamp};
use crate::journal::{FORMAT_VERSION, JournalOptions};
use crate::root::Root;
use crate::schema::{
    CatalogObject, Column, Constraint, ConstraintKind, Index, IndexColumn, IndexKey, Oid, PUBLIC_SCHEMA_OID, Schema, Sequence, TableSchema,
    TypeDefinition, UserType, View,
};
use crate::store::{GcMode, OpenWith, Store, StoreOptions, Tag, fsck};
use crate::value::{DataType, Kind, Row, TextSettings, Value};

const DATABASE: &str = "postgres";
/// Small, so that there are several.
const SEGMENT_SIZE: u64 = 12 << 10;
const SIZE_MAX: u64 = 100_000;

/// Columns of the first table and the texts of two rows' values.
const SHAPES: [(&str, &str, &str, &str); 20] = [
    ("id", "int8", "1", "-2"),
    ("flag", "bool", "t", "f"),
    ("small", "int2", "-32768", "7"),
    ("medium", "int4", "2147483647", "-1"),
    ("single", "float4", "1.5", "-Infinity"),
    ("double", "float8", "0.1", "NaN"),
    ("amount", "numeric", "12345678901234567890.1200", "-0.001"),
    ("price", "money", "$1,234.50", "-$0.01"),
    ("name", "text", "na\u{ef}ve", ""),
    ("code", "varchar", "abc", "z"),
    ("raw", "bytea", "\\x00ff10", "\\x"),
    ("day", "date", "2026-11-21", "infinity"),
    ("clock", "time", "12:34:56.789", "00:00:00"),
    ("zoned_clock", "timetz", "12:34:56+02", "00:00:00-05:30"),
    ("moment", "timestamp", "2026-11-21 12:34:56.000001", "-infinity"),
    ("zoned", "timestamptz", "2026-11-21 12:34:56+00", "1999-12-31 23:59:59+00"),
    ("span", "interval", "1 year 2 mons -3 days 04:05:06.7", "00:00:00"),
    ("token", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"),
    ("document", "jsonb", "{\"a\": [1, {\"b\": null}]}", "[]"),
    ("place", "pg_lsn", "16/B374D848", "0/0"),
];

fn column(attnum: i16, name: &str, data_type: DataType) -> Column {
    let (name, not_null) = (name.into(), attnum == 1);
    Column { name, attnum, data_type, not_null, default: None, identity: None, generated: None, collation: None, comment: None }
}

fn built_in(name: &str) -> DataType {
    DataType::by_name(name).unwrap_or_else(|| panic!("type {name}"))
}

fn index(oid: Oid, name: &str, columns: &[(usize, bool)], unique: bool) -> Index {
    let column =
        |(at, descending): &(usize, bool)| IndexColumn { key: IndexKey::Column(*at), descending: *descending, nulls_first: *descending };
    Index {
        oid,
        name: name.into(),
        unique,
        nulls_not_distinct: false,
        columns: columns.iter().map(column).collect(),
        include: vec![],
        predicate: None,
        method: "btree".into(),
        constraint: unique,
        comment: None,
    }
}

fn table(oid: Oid, name: &str, columns: Vec<Column>, primary_key: Option<Index>) -> TableSchema {
    TableSchema {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "postgres".into(),
        next_attnum: columns.len() as i16 + 1,
        columns,
        primary_key,
        indexes: vec![],
        constraints: vec![],
        merged_columns: vec![],
        comment: None,
    }
}

fn meta(message: &str, n: u64, replicated: bool) -> CommitMeta {
    let author = Identity { name: "postgres".into(), email: "postgres@localhost".into() };
    let time = Timestamp(848_000_000_000_000 + n as i64 * 1_000_000);
    let source = replicated.then(|| Source {
        end_lsn: Lsn(n * 0x100 + 0x30),
        commit_lsn: Lsn(n * 0x100),
        xid: n as u32 + 700,
        commit_time: time,
        origin: n.is_multiple_of(2).then(|| "upstream".into()),
        context: n.is_multiple_of(3).then(|| "{\"user\": 1}".into()),
        subscription: 0,
    });
    CommitMeta { committer: author.clone(), author, author_time: time, commit_time: time, message: message.into(), source }
}

fn shapes_row(second: bool) -> Row {
    let value = |(_, data_type, one, other): &(&str, &str, &str, &str)| {
        built_in(data_type).parse(if second { other } else { one }, &TextSettings::default()).unwrap()
    };
    SHAPES.iter().map(value).collect()
}

/// Makes the tables and objects of the first commit; returns the oids of the tables.
fn make_objects(edit: &mut Edit, store: &Store) -> Result<[Oid; 3]> {
    let oid = || store.next_oid();
    let app = oid()?;
    edit.put_object(CatalogObject::Schema(Schema {
        oid: app,
        name: "app".into(),
        owner: "postgres".into(),
        comment: Some("ours".into()),
    }))?;
    let mood = DataType { oid: oid()?, typmod: -1, name: "app.mood".into(), kind: Kind::Enum, element: None };
    edit.put_object(CatalogObject::Type(UserType {
        oid: mood.oid,
        array_oid: oid()?,
        schema_oid: app,
        name: "mood".into(),
        owner: "postgres".into(),
        definition: TypeDefinition::Enum(vec!["sad".into(), "ok".into()]),
    }))?;
    let mut columns: Vec<Column> =
        (1..).zip(&SHAPES).map(|(attnum, (name, data_type, ..))| column(attnum, name, built_in(data_type))).collect();
    columns[1].default = Some("true".into());
    let shapes = table(oid()?, "shapes", columns, Some(index(oid()?, "shapes_pkey", &[(0, false)], true)));
    let shapes = TableSchema {
        indexes: vec![index(oid()?, "shapes_medium", &[(3, false)], true), index(oid()?, "shapes_name", &[(8, true), (1, false)], false)],
        comment: Some("every shape".into()),
        ..shapes
    };
    let columns = vec![column(1, "a", built_in("text")), column(2, "b", built_in("int4")), column(3, "mood", mood)];
    let pair = table(oid()?, "pair", columns, Some(index(oid()?, "pair_pkey", &[(0, true), (1, false)], true)));
    let pair = TableSchema {
        constraints: vec![Constraint {
            oid: oid()?,
            name: "pair_fk".into(),
            kind: ConstraintKind::ForeignKey { table: shapes.oid, columns: vec![3] },
            definition: "FOREIGN KEY (b) REFERENCES shapes(medium)".into(),
            columns: vec![1],
        }],
        ..pair
    };
    let log = table(oid()?, "log", vec![column(1, "n", built_in("int4")), column(2, "what", built_in("text"))], None);
    let oids = [shapes.oid, pair.oid, log.oid];
    edit.put_object(CatalogObject::Sequence(Sequence {
        oid: oid()?,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: "numbers".into(),
        owner: "postgres".into(),
        data_type: built_in("int8"),
        start: 1,
        increment: 2,
        min: 1,
        max: i64::MAX,
        cache: 1,
        cycle: false,
        owned_by: Some((shapes.oid, 1)),
    }))?;
    edit.put_object(CatalogObject::View(View {
        oid: oid()?,
        schema_oid: app,
        name: "names".into(),
        owner: "postgres".into(),
        columns: vec![("name".into(), built_in("text"))],
        query: "SELECT name FROM shapes".into(),
    }))?;
    for table in [shapes, pair, log] {
        edit.put_table(table)?;
    }
    Ok(oids)
}

/// Writes a store with something of everything.
fn write(folder: &Path) -> Result<()> {
    let with = OpenWith {
        disk: Arc::new(RealDisk),
        journal: JournalOptions { group_commit: Duration::ZERO, segment_size: SEGMENT_SIZE, index_thread: true },
        checkpoint_row_count: u64::MAX,
        recovery_checkpoint_at: u64::MAX,
        compaction: None,
        derived: false,
        row_index: None,
    };
    let store = Store::open_with(folder, with)?;
    store.create_database(DATABASE, meta("", 0, false))?;
    store.create_database("dropped", meta("", 1, false))?;
    let main = store.branch(DATABASE, "main")?;
    let mut apply = main.begin_apply(false)?;
    let [shapes, pair, log] = make_objects(&mut apply, &store)?;
    apply.insert(shapes, shapes_row(false))?;
    let mut nulls = vec![Value::Null; SHAPES.len()];
    nulls[0] = Value::Int8(3);
    apply.insert(shapes, nulls)?;
    let (made, _) = apply.commit(meta("tables", 2, true))?;
    let tag = |name: &str, commit: CommitId| Tag {
        name: name.into(),
        commit,
        tagger: Identity { name: "tagger".into(), email: "tagger@localhost".into() },
        time: Timestamp(7),
        message: format!("this is {name}"),
    };
    store.create_tag(DATABASE, tag("v1", made))?;
    store.create_tag(DATABASE, tag("gone", made))?;
    // A table loaded as a whole, whose rows are in chunks.
    let mut apply = main.begin_apply(true)?;
    let rows = (0..600)
        .map(|n: i32| Ok(vec![Value::bytes(format!("key {}", n % 20)), Value::Int4(n), Value::bytes(["sad", "ok"][n as usize % 2])]));
    apply.replace_rows(pair, &mut rows.into_iter())?;
    apply.commit(meta("load", 3, true))?;
    store.create_branch(DATABASE, "draft", made, false)?;
    for n in 4..40u64 {
        let mut apply = main.begin_apply(false)?;
        apply.insert(log, vec![Value::Int4(n as i32 % 5), Value::bytes("same")])?;
        match n {
            9 => apply.insert(shapes, shapes_row(true))?,
            20 => {
                let key = apply.root().table(shapes).expect("a table").row_key(&shapes_row(false));
                apply.update_columns(shapes, &key, &[(8, Value::bytes("x".repeat(3000))), (10, Value::Null)])?;
            }
            30 => {
                let gone: Row = vec![Value::bytes("key 7"), Value::Int4(27), Value::Null];
                let key = apply.root().table(pair).expect("a table").row_key(&gone);
                apply.delete(pair, &key)?;
            }
            _ => {}
        }
        let (id, position) = apply.commit(meta(&format!("transaction {n}"), n, true))?;
        store.wait_durable(position)?;
        if n == 12 {
            store.create_branch(DATABASE, "deleted", id, false)?;
        }
        if n == 15 || n == 28 {
            store.checkpoint()?;
            store.sync()?;
        }
    }
    store.rename_branch(DATABASE, "draft", "feature", false)?;
    store.delete_branch(DATABASE, "deleted")?;
    store.drop_database("dropped")?;
    // Staged and working differ from the head and from each other.
    let feature = store.branch(DATABASE, "feature")?;
    let mut edit = Edit::new(feature.state().working);
    edit.insert(log, vec![Value::Int4(1), Value::bytes("staged")])?;
    feature.commit_local(&feature.state(), edit, None)?;
    let state = feature.state();
    feature.set_roots(state.version, Some(state.working.clone()), None)?;
    let mut edit = Edit::new(feature.state().working);
    edit.insert(log, vec![Value::Int4(2), Value::bytes("working")])?;
    feature.commit_local(&feature.state(), edit, None)?;
    let prefix = Store::source_state_prefix(DATABASE, "main");
    store.put_state(&format!("{prefix}source"), Some(b"7300000000000000001 postgres"))?;
    store.put_state(&format!("{prefix}position"), Some(&0x2730u64.to_le_bytes()))?;
    store.put_state("roles/postgres", Some(b"superuser"))?;
    store.put_state("roles/gone", Some(b"x"))?;
    store.put_state("roles/gone", None)?;
    store.sync()
    // Dropped, not closed: the tail is replayed by whoever opens it.
}

/// Everything that a store holds, as text.
fn describe(store: &Store) -> Result<String> {
    let mut out = String::new();
    let line = |out: &mut String, text: String| writeln!(out, "{text}").expect("BUG: a string can be written to");
    for database in store.databases() {
        line(&mut out, format!("database {database}"));
        for tag in store.tags(&database)? {
            line(&mut out, format!("tag {} {} {} {:?} {}", tag.name, tag.commit, tag.time.0, tag.tagger, tag.message));
        }
        for (name, head) in store.branches(&database)? {
            line(&mut out, format!("branch {name} {head}"));
            let state = store.branch(&database, &name)?.state();
            for (what, root) in [("head", &state.head_root), ("staged", &state.staged), ("working", &state.working)] {
                line(&mut out, format!("{what} {}", digest(root)?));
            }
            line(&mut out, contents(&state.working)?);
            for commit in store.log(&[head], &[])? {
                let commit = commit?;
                let (meta, parents) = (&commit.meta, &commit.parents);
                // The descriptions are older than subscriptions, which none of these commits came by.
                let source = format!("{:?}", meta.source).replace(", subscription: 0 }", " }");
                line(&mut out, format!("commit {} {:?} {parents:?} {} {source}", commit.id, meta.message, meta.commit_time.0));
                line(&mut out, format!("  {} changes, root value {}", commit.changes()?.row_count(), digest(&store.root(commit.id)?)?));
            }
        }
    }
    for (key, value) in store.list_state("") {
        line(&mut out, format!("state {key} {value:02x?}"));
    }
    Ok(out)
}

/// A hash of a root value's catalog and rows as text.
fn digest(root: &Root) -> Result<String> {
    Ok(blake3::hash(contents(root)?.as_bytes()).to_hex()[..16].to_owned())
}

fn contents(root: &Root) -> Result<String> {
    let mut out = String::new();
    for object in root.catalog().objects.values() {
        let json = serde_json::to_string(&**object).map_err(|error| Error::Invalid(error.to_string()))?;
        out += &format!("  {json}\n");
        let Some(table) = root.table(object.oid()) else { continue };
        table.verify()?;
        let mut cursor = table.scan((Bound::Unbounded, Bound::Unbounded), false);
        while let Some((_, row)) = cursor.next_row()? {
            let text = |(column, value): (&Column, &Value)| match value {
                Value::Null => "NULL".to_owned(),
                value => column.data_type.to_text(value, &TextSettings::default()),
            };
            let texts: Vec<String> = table.schema().columns.iter().zip(&row).map(text).collect();
            out += &format!("    {}\n", texts.join(" | "));
        }
    }
    Ok(out)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn copy(from: &Path, to: &Path) -> u64 {
    std::fs::create_dir_all(to).unwrap();
    let mut size = 0;
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        size += match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => std::fs::copy(entry.path(), &target).unwrap(),
        };
    }
    size
}

#[test]
fn the_fixture_of_every_format_opens_and_holds_what_it_held() {
    if std::env::var_os("STRANDLINE_WRITE_FIXTURE").is_some() {
        let folder = fixtures().join(format!("format-{FORMAT_VERSION}"));
        assert!(!folder.exists(), "{} is there, and fixtures are not rewritten", folder.display());
        write(&folder).unwrap();
        std::fs::remove_file(folder.join(".strandline/LOCK")).unwrap();
        let copied = tempfile::tempdir().unwrap();
        copy(&folder, copied.path());
        let store = Store::open(copied.path(), StoreOptions::default()).unwrap();
        std::fs::write(folder.with_extension("txt"), describe(&store).unwrap()).unwrap();
    }
    for format in 1..=FORMAT_VERSION {
        let folder = fixtures().join(format!("format-{format}"));
        let copied = tempfile::tempdir().unwrap();
        let size = copy(&folder, copied.path());
        assert!(size < SIZE_MAX, "{size} bytes");
        assert!(std::fs::read_dir(copied.path().join(".strandline/journal")).unwrap().count() > 3);
        let report = fsck(copied.path()).unwrap();
        assert!(report.findings.is_empty(), "format {format}: {:?}", report.findings);
        let expected = std::fs::read_to_string(folder.with_extension("txt")).unwrap();
        // Once as it is, once more after a checkpoint of this version, and after what nothing refers to is gone.
        for turn in 0..4 {
            let store = Store::open(copied.path(), StoreOptions::default()).unwrap();
            let found = describe(&store).unwrap();
            for (found, expected) in found.lines().zip(expected.lines()) {
                assert_eq!(found, expected, "format {format}");
            }
            assert_eq!(found.len(), expected.len(), "format {format}");
            store.put_state("fixture", Some(b"opened")).unwrap();
            store.put_state("fixture", None).unwrap();
            if turn > 0 {
                let report = store.gc(GcMode::Full).unwrap();
                assert!(report.segment_count > 0, "format {format}");
            }
            store.close().unwrap();
        }
    }
}
