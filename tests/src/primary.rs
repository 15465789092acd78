//! A throw-away PostgreSQL cluster with logical decoding on.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::db::Db;
use crate::{free_port, wait_while_moving};

pub const PASSWORD: &str = "primary's \"password\"";

/// A running cluster; stopped and removed when dropped.
pub struct Primary {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    user: Option<(u32, u32)>,
}

impl Primary {
    /// Makes and starts a cluster. `settings` are lines for postgresql.conf.
    pub fn start(settings: &[&str]) -> Primary {
        Primary::start_of(bin_folder(), settings)
    }

    /// A cluster of the version whose SQL ours is, whatever version is under test: to compare with what it says.
    pub fn oracle() -> Primary {
        Primary::start_of(packaged_bin_folder(), &[])
    }

    fn start_of(bin: PathBuf, settings: &[&str]) -> Primary {
        let folder = tempfile::Builder::new().prefix("strandline-pg-").tempdir().expect("a temporary folder");
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("chown");
        }
        let primary = Primary { bin, folder, port: free_port(), user };
        let password_file = primary.folder.path().join("password");
        std::fs::write(&password_file, format!("{PASSWORD}\n")).expect("the password file");
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&password_file, Some(uid), Some(gid)).expect("chown");
        }
        primary.run(
            "initdb",
            &[
                "-D",
                &primary.data(),
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                "--pwfile",
                &password_file.to_string_lossy(),
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-N",
            ],
        );
        let conf = format!("{}/postgresql.conf", primary.data());
        let mut text = std::fs::read_to_string(&conf).expect("postgresql.conf");
        text.push_str(&format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nwal_level = logical\nfsync = off\n\
             max_wal_senders = 20\nmax_replication_slots = 20\nmax_connections = 50\nshared_buffers = 32MB\nlog_min_messages = warning\n",
            primary.port,
            primary.folder.path().display()
        ));
        for line in settings {
            text.push_str(line);
            text.push('\n');
        }
        std::fs::write(&conf, text).expect("postgresql.conf");
        primary.start_again();
        primary
    }

    /// A physical standby of this cluster, which is stopped and started again for it. For versions from 12 on.
    pub fn standby(&self) -> Primary {
        self.stop("fast");
        let folder = tempfile::Builder::new().prefix("strandline-pg-").tempdir().expect("a temporary folder");
        let copied = Command::new("cp").arg("-a").arg(self.data()).arg(folder.path()).status().expect("cp");
        assert!(copied.success(), "the data directory could not be copied");
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("chown");
        }
        let standby = Primary { bin: self.bin.clone(), folder, port: free_port(), user: self.user };
        standby.put_file("standby.signal", b"");
        let conf = format!("{}/postgresql.conf", standby.data());
        let mut text = std::fs::read_to_string(&conf).expect("postgresql.conf");
        text.push_str(&format!(
            "\nport = {}\nunix_socket_directories = '{}'\nhot_standby_feedback = on\nprimary_slot_name = 'standby'\nprimary_conninfo = '{}'\n",
            standby.port,
            standby.folder.path().display(),
            self.conninfo().replace('\\', "\\\\").replace('\'', "''")
        ));
        std::fs::write(&conf, text).expect("postgresql.conf");
        self.start_again();
        self.db().execute("SELECT pg_create_physical_replication_slot('standby', true)");
        standby.start_again();
        standby
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_string_lossy().into_owned()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.args(args).current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        let output = self.command(program, args).output().unwrap_or_else(|e| panic!("could not run {program}: {e}"));
        assert!(
            output.status.success(),
            "{program} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts the cluster after [`Primary::stop`].
    pub fn start_again(&self) {
        let log = self.folder.path().join("log");
        // Not `.output()`: the postmaster would keep the pipe open.
        let status = self
            .command("pg_ctl", &["-D", &self.data(), "-l", &log.to_string_lossy(), "-w", "-t", "60", "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl");
        assert!(status.success(), "the primary did not start:\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }

    /// Stops it: `fast`, or `immediate` as a crash would.
    pub fn stop(&self, mode: &str) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", mode, "-w", "-t", "60", "stop"]);
    }

    pub fn restart(&self, mode: &str) {
        self.stop(mode);
        self.start_again();
    }

    /// Writes a file into the data directory, as the server's user and for it alone.
    pub fn put_file(&self, name: &str, content: &[u8]) {
        let path = Path::new(&self.data()).join(name);
        std::fs::write(&path, content).expect("a file in the data directory");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("chown");
        }
    }

    /// The folder of its Unix-domain socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn major_version(&self) -> u32 {
        self.db().value("SELECT current_setting('server_version_num')::int / 10000").parse().expect("a version")
    }

    /// A tool of this PostgreSQL version with connection settings in its environment.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(client_program(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", "postgres").env("PGPASSWORD", PASSWORD);
        command.env("PGDATABASE", "postgres").stdin(Stdio::null());
        command
    }

    pub fn target(&self) -> crate::psql::Target {
        crate::psql::Target { port: self.port, user: "postgres".into(), password: PASSWORD.into(), database: "postgres".into() }
    }

    pub fn conninfo(&self) -> String {
        let password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres password='{password}'", self.port)
    }

    pub fn db(&self) -> Db {
        Db::connect(&self.conninfo()).expect("a connection to the primary")
    }

    /// A connection to another database than `postgres`.
    pub fn db_named(&self, database: &str) -> Db {
        Db::connect(&self.conninfo().replace("dbname=postgres", &format!("dbname={database}"))).expect("a connection to the primary")
    }

    /// The end of the log as written now.
    pub fn lsn(&self, db: &Db) -> String {
        db.value("SELECT pg_current_wal_insert_lsn()")
    }

    /// Waits until our slot has confirmed everything up to `lsn`.
    pub fn wait_confirmed(&self, db: &Db, slot: &str, lsn: &str) {
        self.wait_confirmed_or(db, slot, lsn, || format!("{:?}", db.lines("SELECT * FROM pg_replication_slots")));
    }

    /// As [`Primary::wait_confirmed`]; `explain` tells more where that does not come.
    pub(crate) fn wait_confirmed_or(&self, db: &Db, slot: &str, lsn: &str, explain: impl Fn() -> String) {
        let confirmed =
            format!("SELECT coalesce(bool_or(confirmed_flush_lsn >= '{lsn}'), false) FROM pg_replication_slots WHERE slot_name = '{slot}'");
        // A walsender that has to begin far back confirms nothing for long, but gets on.
        let moved = format!(
            "SELECT greatest((SELECT max(confirmed_flush_lsn - '0/0') FROM pg_replication_slots WHERE slot_name = '{slot}'),
                             (SELECT max(sent_lsn - '0/0') FROM pg_stat_replication), 0)"
        );
        wait_while_moving(
            || db.value(&confirmed) == "t",
            || db.value(&moved).parse().expect("a number"),
            || format!("slot {slot} to confirm {lsn}: {}", explain()),
        );
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A client program: that of the version under test, or Debian's where there is none. Clients serve older servers, too.
pub(crate) fn client_program(name: &str) -> PathBuf {
    let program = bin_folder().join(name);
    if program.exists() { program } else { packaged_bin_folder().join(name) }
}

/// The folder with PostgreSQL's programs: STRANDLINE_TEST_PG_BIN; or that of the version STRANDLINE_TEST_PG (Debian's package, or what
/// `make postgres-N` fetched or built); or the newest of Debian's that is not newer than 15, or any.
pub fn bin_folder() -> PathBuf {
    if let Ok(folder) = std::env::var("STRANDLINE_TEST_PG_BIN") {
        return folder.into();
    }
    if let Ok(version) = std::env::var("STRANDLINE_TEST_PG") {
        let built = match unprivileged_user() {
            Some(_) => PathBuf::from("/var/cache"),
            None => std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME")).join(".cache")),
        };
        let folders = [packaged(&version), built.join(format!("strandline/postgresql-{version}/bin"))];
        return folders
            .into_iter()
            .find(|folder| folder.join("postgres").exists())
            .unwrap_or_else(|| panic!("PostgreSQL {version} is not installed (make postgres-{version} fetches or builds it)"));
    }
    packaged_bin_folder()
}

fn packaged(version: &str) -> PathBuf {
    Path::new("/usr/lib/postgresql").join(version).join("bin")
}

/// That of Debian's newest package that is not newer than 15, or of any.
fn packaged_bin_folder() -> PathBuf {
    let mut versions: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is not installed: run make setup")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let version = versions.iter().rfind(|v| **v <= 15).or(versions.first()).expect("PostgreSQL is not installed: run make setup");
    packaged(&version.to_string())
}

/// PostgreSQL refuses to run as root: then the package's own user runs it.
fn unprivileged_user() -> Option<(u32, u32)> {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let root = status.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"));
    if !root {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd.lines().find(|l| l.starts_with("postgres:")).expect("a user postgres");
    let mut fields = line.split(':').skip(2).map(|f| f.parse().expect("an id"));
    Some((fields.next().expect("uid"), fields.next().expect("gid")))
}
