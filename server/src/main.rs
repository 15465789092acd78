//! The program: command line, configuration, logging; everything else is in the library.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use strandline_server::cli::{Cli, Command};
use strandline_server::config::Config;
use strandline_server::run;
use tracing_subscriber::EnvFilter;

// Edits of tree nodes allocate and free whole leaves: the system's allocator costs several times as much there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a wrong flag or an unusable configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) if !answer.use_stderr() || answer.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => answer.exit(),
        Err(error) => {
            // clap's first line says what is wrong; the rest repeats the usage.
            let text = error.render().to_string();
            let what: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let what = what.join(" ");
            eprintln!("strandline: {} (see strandline --help)", what.strip_prefix("error: ").unwrap_or(&what));
            return ExitCode::from(USAGE);
        }
    };
    match cli.command {
        Some(Command::Fsck { data_dir }) => fsck(&data_dir),
        None => serve(&cli),
    }
}

fn serve(cli: &Cli) -> ExitCode {
    let Some(path) = &cli.serve.config else {
        eprintln!("strandline: --config FILE is required (config.yaml.example describes every key)");
        return ExitCode::from(USAGE);
    };
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("strandline: {error}");
            return ExitCode::from(USAGE);
        }
    };
    if let Some(data_dir) = &cli.serve.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(config.log_level.directive()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "could not go on");
            eprintln!("strandline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every finding and a last line that sums up; 0 only when there is none.
fn fsck(data_dir: &Path) -> ExitCode {
    match run::fsck(data_dir) {
        Ok(report) => {
            for finding in &report.findings {
                println!("{}: {}", finding.place.display(), finding.what);
            }
            let counts = format!("{} segments, {} commits, {} chunks", report.segment_count, report.commit_count, report.chunk_count);
            match report.findings.len() {
                0 => {
                    println!("no damage found: {counts}");
                    ExitCode::SUCCESS
                }
                1 => {
                    println!("1 finding: {counts}");
                    ExitCode::FAILURE
                }
                count => {
                    println!("{count} findings: {counts}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("strandline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
