//! `entrepot pin`: keep images from being evicted.

use clap::Command;

use super::arguments::Given;
use super::change::{self, Change};

pub(super) fn command() -> Command {
    change::command("pin", "Keep images from being evicted")
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    Change::Pin.run(given)
}
