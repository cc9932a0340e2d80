//! Arguments of `reparam data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::at_least;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Show what a model will see of its training data
    #[command(
        long_about = "Show what a model will see of its training data\n\n\
            Reads a run file and everything that it names, and prints lengths, what is cut, the share of tokens that are \
            learned, duplicates, and the first rows decoded. What is learned stands in [[ ]], or is bright on a terminal; \
            everything else is only read. Nothing is trained, and no run directory is made.",
        after_long_help = "Examples:\n  \
            reparam data inspect run.toml\n  \
            reparam data inspect run.toml --rows 20 --html data.html\n  \
            reparam data inspect run.toml --set train.sequence_length=1024 --json"
    )]
    Inspect(InspectDataArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InspectDataArgs {
    /// The run file
    #[arg(value_name = "RUN_FILE")]
    pub(crate) run_file: PathBuf,
    /// Override one value of the run file (can be repeated)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// How many of the first rows are shown
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "3", value_parser = at_least(0))]
    pub(crate) rows: usize,
    /// Write a page with the same, the rows coloured, here
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
}
