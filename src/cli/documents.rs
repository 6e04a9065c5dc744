//! `entrepot completions`, `man`: what is made from the command line's own description.

use std::io::{self, Write as _};

use clap::{Arg, Command};
use clap_complete::Shell;

use super::arguments::Given;

/// What the exit codes of a subcommand mean, from 0 on.
const CODES: [(&str, &[&str]); 3] = [
    (
        "entrepot-check",
        &["all is well", "something is wrong", "could not find out, or wrong usage"],
    ),
    ("entrepot-verify", &["all is well", "damage was found", "could not find out, or wrong usage"]),
    (
        "entrepot-pull",
        &[
            "everything is here",
            "failed in another way",
            "wrong usage",
            "the registry has no such image, or not for the platform",
            "the registry refuses it (401, 403)",
            "the registry is away, unwell or silent",
            "the registry's quota is used up (429)",
        ],
    ),
];
/// Those of all others.
const USUAL: &[&str] = &["done", "failed; standard error says why", "wrong usage"];

pub(super) fn commands() -> [Command; 2] {
    let shell = Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell));
    [
        Command::new("completions")
            .about("Print what a shell needs to complete commands")
            .arg(shell),
        Command::new("man").about("Print the manual, in roff"),
    ]
}

/// Writes the completions of the shell that is named.
pub(super) fn completions(mut command: Command, given: Given<'_>) -> anyhow::Result<()> {
    // clap requires one.
    let Some(shell) = given.matches.get_one::<Shell>("shell").copied() else { return Ok(()) };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "entrepot", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

/// Writes the manual pages, one after the other, in roff: `entrepot man | man -l -`.
pub(super) fn manual(mut command: Command) -> anyhow::Result<()> {
    command.build();
    let mut pages = Vec::new();
    pages_of(&command, &mut pages)?;
    Ok(io::stdout().lock().write_all(&pages)?)
}

fn pages_of(command: &Command, pages: &mut Vec<u8>) -> io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(pages)?;
    exit_codes(command, pages)?;
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .try_for_each(|sub| pages_of(sub, pages))
}

/// Writes the section of a page on exit codes.
fn exit_codes(command: &Command, pages: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let own = CODES.iter().find(|(of, _)| *of == name).map(|(_, codes)| *codes);
    writeln!(pages, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in own.unwrap_or(USUAL).iter().enumerate() {
        writeln!(pages, ".TP\n{code}\n{meaning}")?;
    }
    if command.get_name() == "entrepot" {
        writeln!(pages, ".PP\nThose of check, verify and pull say more.")?;
    }
    Ok(())
}
