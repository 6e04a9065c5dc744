//! What is made from the command line's own description: completions for shells, the manual page.

use std::io::{self, Write as _};

use clap::Command;
use clap_complete::Shell;

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

/// Writes the completions of `shell`.
pub(super) fn completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
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
