//! `entrepot rm`: remove images.

use clap::{ArgGroup, Command};

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    let about = "Remove images, by name, pattern or age; pinned ones stay";
    let command = change::command("rm", about).alias("remove").arg(change::unused());
    // Nobody removes everything by forgetting something.
    let group = ArgGroup::new("which").args(["image", "unused"]).multiple(true).required(true);
    change::finished(command.group(group))
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Remove.run(given)
}
