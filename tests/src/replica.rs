//! Our server as a process, started as a user would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::db::Db;
use crate::primary::{PASSWORD, Primary};
use crate::psql::Target;
use crate::{free_port, wait_until};

/// What may vary of a replica's configuration.
#[derive(Clone, Debug)]
pub struct Options {
    pub slot: String,
    /// Another port than the primary's own, for what stands in between.
    pub primary_port: Option<u16>,
    /// The primary's database.
    pub database: String,
    /// Lines of the `postgres_replication` stanza beyond the connection, `key: value`.
    pub replication: Vec<String>,
    /// Whole further stanzas.
    pub config: String,
    pub log_level: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            slot: "strandline".into(),
            primary_port: None,
            database: "postgres".into(),
            replication: Vec::new(),
            config: String::new(),
            log_level: "info".into(),
        }
    }
}

impl Options {
    pub fn slot(name: &str) -> Self {
        Options { slot: name.into(), ..Options::default() }
    }
}

/// A data directory with a configuration file, and the process while it runs. Killed when dropped.
pub struct Replica {
    folder: tempfile::TempDir,
    port: u16,
    slot: String,
    child: Option<Child>,
}

impl Replica {
    /// Writes a configuration that follows `primary` (or nobody) and starts the server.
    pub fn start(primary: Option<&Primary>, options: &Options) -> Replica {
        let mut replica = Replica::prepare(primary, options);
        replica.start_again();
        replica
    }

    /// Writes the configuration only.
    pub fn prepare(primary: Option<&Primary>, options: &Options) -> Replica {
        let folder = tempfile::Builder::new().prefix("strandline-").tempdir().expect("a temporary folder");
        let replica = Replica { folder, port: free_port(), slot: options.slot.clone(), child: None };
        replica.configure(primary, options);
        replica
    }

    /// Writes config.yaml anew; the next start reads it.
    pub fn configure(&self, primary: Option<&Primary>, options: &Options) {
        let mut text = format!(
            "log_level: {}\ndata_dir: {}\nlistener:\n  host: 127.0.0.1\n  port: {}\n{}\n",
            options.log_level,
            self.data_dir().display(),
            self.port,
            options.config
        );
        if let Some(primary) = primary {
            text.push_str(&format!(
                "postgres_replication:\n  postgres_server_address: 127.0.0.1\n  postgres_user: postgres\n  postgres_password: '{}'\n  \
                 postgres_database: {}\n  postgres_port: {}\n  slot_name: {}\n",
                PASSWORD.replace('\'', "''"),
                options.database,
                options.primary_port.unwrap_or_else(|| primary.port()),
                options.slot
            ));
            for line in &options.replication {
                text.push_str(&format!("  {line}\n"));
            }
        }
        std::fs::write(self.config_file(), text).expect("config.yaml");
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts the process and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "already running");
        std::fs::create_dir_all(self.data_dir()).expect("the data directory");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("the log");
        let child = Command::new(binary())
            .arg("--config")
            .arg(self.config_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("strandline starts");
        let child = self.child.insert(child);
        let conninfo = format!("host=127.0.0.1 port={} user=postgres password=password dbname=postgres", self.port);
        let log = self.folder.path().join("log");
        let mut ended = None;
        wait_until(
            || {
                ended = child.try_wait().expect("its state");
                ended.is_some() || Db::connect(&conninfo).is_ok()
            },
            || format!("strandline to answer:\n{}", std::fs::read_to_string(&log).unwrap_or_default()),
        );
        assert!(ended.is_none(), "strandline ended ({ended:?}):\n{}", self.log());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// Asks it to end, as an operator would, and waits.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("running");
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert!(status.success());
        let mut status = None;
        wait_until(
            || {
                status = child.try_wait().expect("its state");
                status.is_some()
            },
            || format!("strandline to end:\n{}", self.log()),
        );
        assert!(status.is_some_and(|s| s.success()), "ended with {status:?}:\n{}", self.log());
    }

    /// The most memory that the process has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("running").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().expect("its state").is_none())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn target(&self) -> Target {
        Target { port: self.port, user: "postgres".into(), password: "password".into(), database: "postgres".into() }
    }

    pub fn conninfo(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres password=password dbname='{database}'", self.port)
    }

    /// # Errors
    /// When the server does not answer.
    pub fn try_db(&self, database: &str) -> Result<Db, tokio_postgres::Error> {
        Db::connect(&self.conninfo(database))
    }

    pub fn db(&self) -> Db {
        self.try_db("postgres").unwrap_or_else(|e| panic!("no connection: {}\n{}", crate::db::explain(&e), self.log()))
    }

    /// Waits until everything that the primary has written by now is durable here.
    pub fn catch_up(&self, primary: &Primary, source: &Db) {
        let lsn = primary.lsn(source);
        primary.wait_confirmed_or(source, &self.slot, &lsn, || tail(&self.log()));
    }

    /// Runs the preflight with this option.
    pub fn check(&self, option: &str) -> Output {
        Command::new(binary()).arg("check").arg("--config").arg(self.config_file()).arg(option).output().expect("strandline check")
    }

    /// Has the primary tell of changed definitions.
    ///
    /// # Panics
    /// With what the command says where it fails.
    pub fn install_ddl_capture(&self) {
        let output = self.check("--install-ddl-capture");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The lines of the log at WARN and ERROR.
    pub fn complaints(&self) -> Vec<String> {
        self.log().lines().filter(|l| l.contains(" WARN ") || l.contains("ERROR ") || l.contains("panicked")).map(str::to_owned).collect()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ends:\n{}", tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The program under test: STRANDLINE_TEST_BIN, or what cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Ok(path) = std::env::var("STRANDLINE_TEST_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("this test's path");
    let folder = test.parent().and_then(Path::parent).expect("the target folder");
    let path = folder.join("strandline");
    assert!(path.exists(), "{} is missing: build the workspace first (make test does)", path.display());
    path
}
