//! The program: command line, configuration, logging; everything else is in the library.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use strandline_replication::Severity;
use strandline_server::cli::{Cli, Command};
use strandline_server::config::{Config, PostgresReplication};
use strandline_server::progress_line::LogWriter;
use strandline_server::run;
use strandline_storage::store::{Finding, FsckReport};
use tracing_subscriber::EnvFilter;

// Edits of tree nodes allocate and free whole leaves: the system's allocator costs several times as much there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a wrong flag or an unusable configuration.
const USAGE: u8 = 2;
/// Exit code of a repair that could not save everything.
const LOST: u8 = 3;
/// Exit code of a check that found nothing worse than warnings.
const WARNED: u8 = 3;

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
        Some(Command::Check { config, install_ddl_capture, remove_ddl_capture, print_ddl_capture }) => {
            match (install_ddl_capture, remove_ddl_capture, print_ddl_capture) {
                (true, ..) => capture(&config, run::Capture::Install),
                (_, true, _) => capture(&config, run::Capture::Remove),
                (.., true) => capture(&config, run::Capture::Print),
                _ => check(&config),
            }
        }
        Some(Command::Fsck { data_dir, repair: false }) => fsck(&data_dir),
        Some(Command::Fsck { data_dir, repair: true }) => repair(&data_dir),
        None => serve(&cli),
    }
}

fn serve(cli: &Cli) -> ExitCode {
    let Some(path) = &cli.serve.config else {
        eprintln!("strandline: --config FILE is required (config.yaml.example describes every key)");
        return ExitCode::from(USAGE);
    };
    let mut config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Some(data_dir) = &cli.serve.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(config.log_level.directive()))
        .with_writer(LogWriter::new)
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

fn load(path: &Path) -> Result<Config, ExitCode> {
    let refuse = |what: String| {
        eprintln!("strandline: {what}");
        ExitCode::from(USAGE)
    };
    let config = Config::load(path).map_err(|error| refuse(error.to_string()))?;
    run::verify(&config).map_err(|error| refuse(format!("{}: {error:#}", path.display())))?;
    Ok(config)
}

/// The configuration with the primary that it follows.
fn load_source(path: &Path) -> Result<(Config, PostgresReplication), ExitCode> {
    let config = load(path)?;
    match config.postgres_replication.clone() {
        Some(source) => Ok((config, source)),
        None => {
            eprintln!("strandline: {}: there is no postgres_replication section, so there is no primary to check", path.display());
            Err(ExitCode::from(USAGE))
        }
    }
}

/// Installs or removes DDL capture, or prints what would be installed.
fn capture(path: &Path, what: run::Capture) -> ExitCode {
    let done = match load_source(path) {
        Ok((config, source)) => run::capture(&config, &source, what),
        Err(code) => return code,
    };
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("strandline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was looked at on the primary, and a last line that counts.
fn check(path: &Path) -> ExitCode {
    let (config, source) = match load_source(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let findings = match run::check(&config, &source) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("strandline: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        println!("{:<8} {}", finding.severity, finding.what);
        if let Some(fix) = &finding.fix {
            println!("{:<8} fix: {fix}", "");
        }
    }
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    match (errors, warnings) {
        (0, 0) => println!("ready: {}", count(findings.len() as u64, "point")),
        _ => println!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
    match (errors, warnings) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(WARNED),
        _ => ExitCode::FAILURE,
    }
}

/// Prints every finding and a last line that sums up; 0 only when there is none.
fn fsck(data_dir: &Path) -> ExitCode {
    match run::fsck(data_dir) {
        Ok(report) => {
            print_findings(&report.findings);
            println!("{}", summary(&report));
            if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("strandline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was found, what was lost, what has another name now, and a last line that sums up.
fn repair(data_dir: &Path) -> ExitCode {
    println!("checking {}; if it is damaged, a new journal is made beside the damaged one, which is kept", data_dir.display());
    let report = match run::repair(data_dir) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("strandline: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    print_findings(&report.before.findings);
    let Some(after) = &report.after else {
        println!("{}; nothing to repair", summary(&report.before));
        return ExitCode::SUCCESS;
    };
    for (old, new) in &report.renamed_commits {
        println!("commit {old} is commit {new} now");
    }
    for loss in &report.losses {
        println!("lost: {}: {}", loss.place.display(), loss.what);
    }
    for commit in &report.lost_commits {
        println!("lost: commit {commit}");
    }
    if let Some(kept) = &report.kept {
        println!("the damaged journal is kept in {}", kept.display());
    }
    print_findings(&after.findings);
    let lost = match (report.lost_commits.len(), report.losses.len()) {
        (0, 0) => "nothing lost".to_owned(),
        (commits, losses) => format!("{} lost, {}", count(commits as u64, "commit"), count(losses as u64, "other loss")),
    };
    println!("repaired: {lost}; {}", summary(after));
    match () {
        () if !after.findings.is_empty() => ExitCode::FAILURE,
        () if report.losses.is_empty() && report.lost_commits.is_empty() => ExitCode::SUCCESS,
        () => ExitCode::from(LOST),
    }
}

fn print_findings(findings: &[Finding]) {
    for finding in findings {
        println!("{}: {}", finding.place.display(), finding.what);
    }
}

fn summary(report: &FsckReport) -> String {
    let counts =
        [count(report.segment_count, "segment"), count(report.commit_count, "commit"), count(report.chunk_count, "chunk")].join(", ");
    match report.findings.len() {
        0 => format!("no damage found: {counts}"),
        findings => format!("{}: {counts}", count(findings as u64, "finding")),
    }
}

fn count(number: u64, what: &str) -> String {
    match (number, what.strip_suffix("ss")) {
        (1, _) => format!("1 {what}"),
        (_, Some(_)) => format!("{number} {what}es"),
        (_, None) => format!("{number} {what}s"),
    }
}
