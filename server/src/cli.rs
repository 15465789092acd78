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
    /// Look a primary over before (or while) it is followed: what replication needs of it, and what puts right what is missing
    ///
    /// Reads only, on the primary too, unless told to install something. Exits with 0 when all is well, with 1 when replication cannot start or go on, and with 3 when there are
    /// warnings only. The last line counts.
    Check {
        /// The configuration file of the replica; its postgres_replication section says what to follow
        #[arg(long, value_name = "FILE")]
        config: PathBuf,

        /// Install event triggers on the primary that tell of every change of a table's definition, which is then followed exactly; needs a superuser
        #[arg(long, group = "capture")]
        install_ddl_capture: bool,

        /// Remove these event triggers and all that belongs to them
        #[arg(long, group = "capture")]
        remove_ddl_capture: bool,

        /// Print the SQL that installs them, for a superuser of the primary to read and run
        #[arg(long, group = "capture")]
        print_ddl_capture: bool,
    },

    /// Verify a store: every record, commit, ref and tree, and that change sets lead from checkpoint to checkpoint
    ///
    /// Changes nothing, unless told to repair. Exits with 0 when the store is whole, with 1 when it is damaged or cannot be checked, and
    /// with 3 when it was repaired and something was lost. The last line says what was found.
    Fsck {
        /// The data directory of a server that is not running
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,

        /// Make a new journal of all that is whole, and put it in the place of the damaged one, which is kept under another name
        #[arg(long)]
        repair: bool,
    },
}
