//! `entrepot version`: which this is.

use std::io::Write as _;

use clap::Command;
use serde_json::json;

use super::arguments::{self, Given};
use super::output::{Report, stdout};

pub(super) fn command() -> Command {
    Command::new("version").about("Print the version").arg(arguments::json())
}

/// Prints it as `--version` does.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match given.report() {
        Report::Json => writeln!(stdout(), "{}", json!({ "version": version }))?,
        Report::Text => writeln!(stdout(), "entrepot {version}")?,
    }
    Ok(())
}
