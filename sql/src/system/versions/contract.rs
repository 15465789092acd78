//! The columns of every version table and function against the written contract. Names are the contract's; a type follows
//! where it is not text.

use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey};
use strandline_storage::{DataType, TableSchema};

use super::*;

const SOURCE: &str = "source_lsn pg_lsn, source_xid int8, source_commit_time timestamptz, source_origin, source_context jsonb";

const DATABASE_WIDE_CONTRACT: &[(&str, &str)] = &[
    (
        "log",
        "commit_hash, committer, email, date timestamp, message, commit_order numeric, parents, refs, signature, author, author_email, \
         author_date timestamp, SOURCE",
    ),
    ("commits", "commit_hash, committer, email, date timestamp, message, author, author_email, author_date timestamp, SOURCE"),
    ("commit_ancestors", "commit_hash, parent_hash, parent_index int4"),
    (
        "diff",
        "commit_hash, table_name, committer, email, date timestamp, message, data_change bool, schema_change bool, author, author_email, \
         author_date timestamp, SOURCE",
    ),
    (
        "column_diff",
        "commit_hash, table_name, column_name, committer, email, date timestamp, message, diff_type, author, author_email, \
         author_date timestamp",
    ),
    ("status", "table_name, staged bool, status"),
    ("status_ignored", "table_name, staged bool, status, ignored bool"),
    (
        "branches",
        "name, hash, latest_committer, latest_committer_email, latest_commit_date timestamp, latest_commit_message, remote, branch, \
         dirty bool, latest_author, latest_author_email, latest_author_date timestamp",
    ),
    (
        "remote_branches",
        "name, hash, latest_committer, latest_committer_email, latest_commit_date timestamp, latest_commit_message, latest_author, \
         latest_author_email, latest_author_date timestamp",
    ),
    ("tags", "tag_name, tag_hash, tagger, email, date timestamp, message"),
    ("remotes", "name, url, fetch_specs json, params json"),
    ("backups", "name, url, params json"),
    ("stashes", "name, stash_id, branch, hash, commit_message"),
    ("merge_status", "is_merging bool, source, source_commit, target, unmerged_tables"),
    ("conflicts", "table, num_conflicts numeric"),
    ("constraint_violations", "table, num_violations numeric"),
    ("schema_conflicts", "table_name, base_schema, our_schema, their_schema, description"),
    ("schemas", "type varchar, name varchar, fragment, extra json, sql_mode varchar"),
    ("docs", "doc_name, doc_text"),
    ("ignore", "pattern, ignored bool"),
];

/// Of a table `t (id int4 PRIMARY KEY, v text)`.
const PER_TABLE_CONTRACT: &[(&str, &str)] = &[
    (
        "dolt_diff_",
        "to_id int4, to_v, to_commit, to_commit_date timestamp, from_id int4, from_v, from_commit, from_commit_date timestamp, diff_type, \
         SOURCE",
    ),
    (
        "dolt_commit_diff_",
        "to_id int4, to_v, to_commit, to_commit_date timestamp, from_id int4, from_v, from_commit, from_commit_date timestamp, diff_type",
    ),
    ("dolt_history_", "id int4, v, commit_hash, committer, commit_date timestamp, SOURCE"),
    ("dolt_blame_", "id int4, commit, commit_date timestamp, committer, email, message, SOURCE"),
    ("dolt_workspace_", "id int8, staged bool, diff_type, to_id int4, to_v, from_id int4, from_v"),
    (
        "dolt_conflicts_",
        "from_root_ish, base_id int4, base_v, our_id int4, our_v, our_diff_type, their_id int4, their_v, their_diff_type, dolt_conflict_id",
    ),
    ("dolt_constraint_violations_", "from_root_ish, violation_type varchar, id int4, v, violation_info json"),
];

const FUNCTION_CONTRACT: &[(&str, &[&str], &str)] = &[
    (
        "dolt_log",
        &["main"],
        "commit_hash, committer, email, date timestamp, message, commit_order numeric, parents, refs, signature, author, author_email, \
         author_date timestamp, SOURCE",
    ),
    (
        "dolt_diff_stat",
        &["a", "b"],
        "table_name, rows_unmodified int8, rows_added int8, rows_deleted int8, rows_modified int8, cells_added int8, cells_deleted int8, \
         cells_modified int8, old_row_count int8, new_row_count int8, old_cell_count int8, new_cell_count int8",
    ),
    ("dolt_diff_summary", &["a..b", "t"], "from_table_name, to_table_name, diff_type, data_change bool, schema_change bool"),
    ("dolt_schema_diff", &["a", "b", "t"], "from_table_name, to_table_name, from_create_statement, to_create_statement"),
    ("dolt_branch_status", &["a", "b"], "branch, commits_ahead numeric, commits_behind numeric"),
];

fn written(contract: &str) -> Vec<(String, Oid)> {
    let contract = contract.replace("SOURCE", SOURCE);
    let column = |column: &str| {
        let (name, ty) = column.trim().split_once(' ').unwrap_or((column.trim(), "text"));
        (name.to_string(), DataType::by_name(ty).unwrap_or_else(|| panic!("type {ty}")).oid)
    };
    contract.split(',').map(column).collect()
}

fn given(columns: &[VirtualColumn]) -> Vec<(String, Oid)> {
    columns.iter().map(|c| (c.name.clone(), c.ty.oid)).collect()
}

fn column(name: &str, attnum: i16, ty: Oid) -> Column {
    Column {
        name: name.into(),
        attnum,
        data_type: DataType::builtin(ty, -1).expect("built in"),
        not_null: attnum == 1,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    }
}

fn table() -> Arc<TableSchema> {
    let key = IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false };
    Arc::new(TableSchema {
        oid: 16384,
        schema_oid: 2200,
        name: "t".into(),
        owner: "postgres".into(),
        columns: vec![column("id", 1, oid::INT4), column("v", 2, oid::TEXT)],
        next_attnum: 3,
        primary_key: Some(Index {
            oid: 16385,
            name: "t_pkey".into(),
            unique: true,
            nulls_not_distinct: false,
            columns: vec![key],
            include: Vec::new(),
            predicate: None,
            method: "btree".into(),
            constraint: true,
            comment: None,
        }),
        indexes: Vec::new(),
        constraints: Vec::new(),
        merged_columns: Vec::new(),
        comment: None,
    })
}

#[test]
fn database_wide_tables_have_the_contracts_columns() {
    assert_eq!(DATABASE_WIDE_CONTRACT.len(), DATABASE_WIDE.len());
    for (name, contract) in DATABASE_WIDE_CONTRACT {
        for spelling in [name.to_string(), format!("dolt_{name}"), name.to_uppercase()] {
            let table = lookup_database_wide(&spelling).unwrap_or_else(|| panic!("{spelling} is not found"));
            assert_eq!(given(table.columns()), written(contract), "{spelling}");
        }
    }
}

#[test]
fn per_table_tables_have_the_contracts_columns() {
    assert_eq!(PER_TABLE_CONTRACT.len(), PER_TABLE.len());
    for (prefix, contract) in PER_TABLE_CONTRACT {
        let table = of_table(prefix, &table()).unwrap_or_else(|| panic!("{prefix}t is not found"));
        assert_eq!(given(table.columns()), written(contract), "{prefix}t");
    }
}

#[test]
fn functions_have_the_contracts_columns() {
    for (name, arguments, contract) in FUNCTION_CONTRACT {
        let argument = |text: &&str| TableFunctionArgument { ty: SqlType::new(oid::TEXT), value: Some(Value::bytes(text)) };
        let arguments: Vec<_> = arguments.iter().map(argument).collect();
        let arguments = Arguments::read(TABLE_FUNCTIONS.iter().find(|f| *f == name).expect("a function"), &arguments).expect("texts");
        let table = match *name {
            "dolt_log" => commits::log_function(arguments),
            "dolt_diff_stat" => summary::stat_function(arguments),
            "dolt_diff_summary" => summary::summary_function(arguments),
            "dolt_schema_diff" => summary::schema_diff_function(arguments),
            _ => branches::branch_status_function(arguments),
        };
        let table = table.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(given(table.columns()), written(contract), "{name}");
    }
}

#[test]
fn a_keyless_tables_conflicts_count_rows() {
    let mut keyless = (*table()).clone();
    keyless.primary_key = None;
    let keyless = Arc::new(keyless);
    assert!(of_table("dolt_blame_", &keyless).is_none());
    let conflicts = of_table("dolt_conflicts_", &keyless).expect("a table");
    let names: Vec<_> = conflicts.columns().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names[names.len() - 3..], ["base_cardinality", "our_cardinality", "their_cardinality"]);
    let violations = of_table("dolt_constraint_violations_", &keyless).expect("a table");
    assert_eq!(violations.columns()[2].name, "dolt_row_hash");
}
