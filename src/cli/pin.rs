//! `entrepot pin`: keep images from being evicted.

use clap::Command;

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    let about = "Keep images from being evicted";
    change::finished(change::command("pin", about).mut_arg("image", |image| image.required(true)))
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Pin.run(given)
}
