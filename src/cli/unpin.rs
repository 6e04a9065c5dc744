//! `entrepot unpin`: let them be evicted again.

use clap::Command;

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    let about = "Let pinned images be evicted again";
    change::finished(change::command("unpin", about).mut_arg("image", |image| image.required(true)))
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Unpin.run(given)
}
