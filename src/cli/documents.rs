//! What is made from the command line's own description: completions for shells, the manual page.

use std::io::{self, Write as _};

use clap::Command;
use clap_complete::Shell;

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
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .try_for_each(|sub| pages_of(sub, pages))
}
