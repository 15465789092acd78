//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A version-controlled replica for PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "strandline", version, about, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub serve: Serve,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file; config.yaml.example describes every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The data directory; wins over data_dir of the configuration file
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify a store: every record, commit, ref and tree; exits with 1 on any finding
    Fsck {
        /// The data directory of a server that is not running
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}
