//! `entrepot unpin`: let images be evicted again.

use clap::Command;

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    change::command("unpin", "Let images be evicted again")
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Unpin.run(given)
}
