//! The layers of docs/design and ARCHITECTURE.md, held by a test.

use std::collections::BTreeSet;
use std::path::Path;

/// The normal dependencies that a crate's manifest names.
fn dependencies(crate_folder: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(crate_folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_else(|| panic!("{} has no dependencies", manifest.display()));
    let section = section.split("\n[").next().unwrap();
    section.lines().filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned())).collect()
}

fn assert_none(crate_folder: &str, forbidden: &[&str]) {
    let found = dependencies(crate_folder);
    for name in forbidden {
        assert!(!found.contains(*name), "{crate_folder} must not depend on {name}");
    }
}

#[test]
fn storage_knows_no_sql_no_wire_protocol_and_no_async() {
    assert_none(
        "storage",
        &[
            "tokio",
            "futures",
            "async-trait",
            "datafusion",
            "pg_query",
            "pgwire",
            "postgres-protocol",
            "tokio-postgres",
            "strandline-sql",
            "strandline-replication",
            "strandline-server",
        ],
    );
}

#[test]
fn replication_and_sql_do_not_know_each_other() {
    assert_none("replication", &["strandline-sql", "strandline-server", "datafusion", "pg_query", "pgwire"]);
    assert_none("sql", &["strandline-replication", "strandline-server", "pgwire", "postgres-protocol", "tokio-postgres"]);
    assert!(dependencies("replication").contains("strandline-storage"));
    assert!(dependencies("sql").contains("strandline-storage"));
}

#[test]
fn only_the_server_knows_pgwire() {
    for folder in ["storage", "replication", "sql"] {
        assert_none(folder, &["pgwire", "clap", "tracing-subscriber"]);
    }
    assert!(dependencies("server").contains("pgwire"));
}

#[test]
fn versions_stand_once_in_the_workspace() {
    for folder in ["storage", "replication", "sql", "server", "tests"] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let mut of_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                of_dependencies = line.ends_with("dependencies]");
            } else if of_dependencies && line.contains('=') {
                assert!(line.contains("workspace = true"), "{}: {line}", manifest.display());
            }
        }
    }
}
