//! `entrepot status`: one screen: is it well, what is not and since when, what it saves, what comes
//! in now.
//!
//! - `facts`: what the API of a running proxy says
//! - `screen`: what of that a person sees
//! - `watch`: the same again and again

mod facts;
mod screen;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgAction, Command};

use self::facts::Facts;
use self::screen::Screen;
use super::api::Api;
use super::arguments::{self, Given};
use super::output::{Paint, Report, screen_width, unless_closed};
use super::privileges::Missing;
use super::runtime;

pub(super) fn command() -> Command {
    let watch = Arg::new("watch")
        .short('w')
        .long("watch")
        .action(ArgAction::SetTrue)
        .help("Show it again each second, until Ctrl-C");
    let about = "Show the state of a running proxy: health, savings, quota, downloads";
    let command =
        Command::new("status").alias("stats").about(about).args([watch, arguments::json()]);
    arguments::with_place(command.arg(arguments::server()))
}

/// Shows it. 0: all is well; 1: it is not. What is watched ends with 0, whatever was seen.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let settings = given.settings(Missing::Left)?;
    let api = Api::new(&settings, given.server())?;
    if given.matches.get_flag("watch") {
        runtime::until_interrupted(watch::watch(&api, given))?;
        return Ok(ExitCode::SUCCESS);
    }
    let facts = runtime::block_on(Facts::ask(&api))?;
    unless_closed(show(&facts, given))?;
    Ok(if facts.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(facts: &Facts, given: Given<'_>) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    for line in told(facts, given) {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

/// The lines of a screen, or the one of JSON.
fn told(facts: &Facts, given: Given<'_>) -> Vec<String> {
    match given.report() {
        Report::Json => vec![facts.document().to_string()],
        Report::Text => {
            let (width, paint) = (screen_width(given), Paint::of(given));
            Screen { width, paint, now: SystemTime::now() }.lines(facts)
        }
    }
}
