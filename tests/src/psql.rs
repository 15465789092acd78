//! psql, the client that people use.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::primary::client_program;

/// Where psql connects.
#[derive(Clone, Debug)]
pub struct Target {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Target {
    pub fn command(&self) -> Command {
        let mut command = Command::new(client_program("psql"));
        command.args(["-X", "-v", "ON_ERROR_STOP=1"]);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", &self.user);
        command.env("PGPASSWORD", &self.password).env("PGDATABASE", &self.database).env("PGCONNECT_TIMEOUT", "20").env("LC_ALL", "C.UTF-8");
        command
    }

    /// Feeds a script to psql on its standard input.
    pub fn script(&self, script: &str, args: &[&str]) -> Output {
        let mut child =
            self.command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql starts");
        let mut input = child.stdin.take().expect("a pipe");
        let script = script.to_owned();
        let writer = std::thread::spawn(move || {
            // psql may end early, at an error.
            let _ = input.write_all(script.as_bytes());
        });
        let output = child.wait_with_output().expect("psql ends");
        writer.join().expect("the writer ends");
        output
    }

    /// What psql prints for a script that must succeed.
    pub fn run(&self, script: &str, args: &[&str]) -> String {
        let output = self.script(script, args);
        assert!(output.status.success(), "psql failed: {}\n{script}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}
