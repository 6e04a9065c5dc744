//! `entrepot rm`: remove images.

use clap::Command;

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    change::command("rm", "Remove images, with what no other image needs of them")
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Remove.run(given)
}
