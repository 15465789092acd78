//! The command line and the configuration file, as a careless user meets them.

use std::process::{Command, Output};

use strandline_tests::Replica;
use strandline_tests::replica::{Options, binary};

fn strandline(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn refused_config(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let output = strandline(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.trim_end().lines().count(), 1, "one line: {error}");
    error
}

#[test]
fn help_and_version_are_answered() {
    let help = strandline(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("--config") && text.contains("--data-dir") && text.contains("fsck"), "{text}");
    let version = strandline(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("strandline 0."));
}

#[test]
fn wrong_flags_exit_with_2() {
    for args in [&["--nonsense"][..], &["fsck"], &["--data-dir", "x"], &["--config"], &["nonsense"], &["fsck", "--data-dir", "x", "y"]] {
        let output = strandline(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.trim_end().lines().count(), 1, "one line: {error}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_one_line_with_file_line_and_key() {
    let error = refused_config("listener:\n  prot: 5432\n");
    assert!(error.contains("config.yaml:2") && error.contains("prot"), "{error}");
    let error = refused_config("listener:\n  port: many\n");
    assert!(error.contains("config.yaml:2") && error.contains("port"), "{error}");
    let error = refused_config("user: [\n");
    assert!(error.contains("config.yaml:"), "{error}");
    let error = refused_config("postgres_replication:\n  postgres_port: 5432\n");
    assert!(error.contains("slot_name"), "{error}");
    let error = refused_config("log_level: info\nuser:\n  name: a\nlog_level: debug\n");
    assert!(error.contains("config.yaml:4") && error.contains("log_level"), "{error}");
    let error = refused_config("postgres_replication:\n  slot_name: Bad-Slot\n");
    assert!(error.contains("config.yaml:2") && error.contains("slot_name"), "{error}");
    let missing = strandline(&["--config", "/nowhere/config.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/nowhere/config.yaml"));
}

#[test]
fn a_configuration_that_is_not_utf_8_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, b"log_level: info\nuser:\n  name: \"\xff\"\n").unwrap();
    let output = strandline(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("config.yaml:3") && error.contains("name") && error.contains("UTF-8"), "{error}");
}

#[test]
fn a_connection_string_that_is_none_is_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data_dir) = (folder.path().join("config.yaml"), folder.path().join("data"));
    let file_name = file.to_str().unwrap();
    for (connection, wanted) in [
        ("host=a prot=1", "invalid connection option \"prot\""),
        ("host=a,b port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("host=a tcp_user_timeout=1", "tcp_user_timeout"),
        ("host=a sslmode=maybe", "sslmode"),
    ] {
        std::fs::write(
            &file,
            format!("data_dir: {}\npostgres_replication:\n  slot_name: s\n  connection: {connection}\n", data_dir.display()),
        )
        .unwrap();
        for args in
            [&["--config", file_name][..], &["check", "--config", file_name], &["check", "--config", file_name, "--print-ddl-capture"]]
        {
            let output = strandline(args);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
            assert!(error.contains(file_name) && error.contains("postgres_replication.connection") && error.contains(wanted), "{error}");
            assert!(!data_dir.exists(), "nothing is made");
        }
    }
}

#[test]
fn fsck_of_what_is_no_store_fails_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = strandline(&["fsck", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let output = strandline(&["fsck", "--data-dir", folder.path().join("absent").to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(!folder.path().join("absent").exists());
}

#[test]
fn a_damaged_store_is_refused_named_and_repaired() {
    let mut replica = Replica::start(None, &Options::default());
    let db = replica.db();
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for i in 1..=60 {
        db.execute(&format!("INSERT INTO t VALUES ({i}, 'row {i}'); SELECT dolt_commit('-Am', 'c{i}')"));
    }
    drop(db);
    replica.kill();
    let data_dir = replica.data_dir();
    let fsck = |repair: bool| {
        let mut args = vec!["fsck", "--data-dir", data_dir.to_str().unwrap()];
        args.extend(repair.then_some("--repair"));
        let output = strandline(&args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = fsck(false);
    assert_eq!(code, Some(0), "{said}");
    // A whole store is left as it is.
    let segment = data_dir.join(".strandline/journal/00000001.seg");
    let whole = std::fs::read(&segment).unwrap();
    let (code, said) = fsck(true);
    assert!(code == Some(0) && said.contains("nothing to repair"), "{code:?}: {said}");
    assert_eq!(std::fs::read(&segment).unwrap(), whole);

    // A bit of the last third, below what was durable.
    let at = whole.windows(3).position(|bytes| bytes == b"c45").expect("a message");
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    std::fs::write(&segment, &damaged).unwrap();
    let (code, said) = fsck(false);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("00000001.seg"), "{said}");
    let server = strandline(&["--config", replica.config_file().to_str().unwrap()]);
    let refusal = String::from_utf8_lossy(&server.stdout) + String::from_utf8_lossy(&server.stderr);
    assert!(!server.status.success() && refusal.contains("fsck"), "{refusal}");
    assert_eq!(std::fs::read(&segment).unwrap(), damaged, "neither changes anything");

    let (code, said) = fsck(true);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.lines().last().unwrap().starts_with("repaired: ") && said.contains("lost: "), "{said}");
    let (code, said) = fsck(false);
    assert_eq!(code, Some(0), "{said}");
    replica.start_again();
    let db = replica.db();
    assert_eq!(db.value("SELECT count(*) FROM t WHERE id <= 40"), "40");
    assert_eq!(db.value("SELECT count(*) FROM t AS OF 'HEAD' WHERE v <> 'row ' || id"), "0");
    db.execute("INSERT INTO t VALUES (1000, 'after'); SELECT dolt_commit('-Am', 'after')");
}
