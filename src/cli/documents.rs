//! `entrepot completions`, `man`: what is made from the command line's own description.

use std::io::{self, Write as _};

use clap::{Arg, Command};
use clap_complete::Shell;

use super::arguments::Given;
use super::complete;
use super::help::{self, ENVIRONMENT, FILES};

pub(super) fn commands() -> [Command; 2] {
    let shell = Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell));
    [
        Command::new("completions")
            .about("Print a script by which a shell completes commands and images")
            .arg(shell),
        Command::new("man").about("Print the manual, in roff"),
    ]
}

/// Writes the completions of the shell that is named.
pub(super) fn completions(mut command: Command, given: Given<'_>) -> anyhow::Result<()> {
    // clap requires one.
    let Some(shell) = given.matches.get_one::<Shell>("shell").copied() else { return Ok(()) };
    let mut script = Vec::new();
    match complete::script(shell) {
        Some(own) => script.extend_from_slice(own.as_bytes()),
        None => clap_complete::generate(shell, &mut command, "entrepot", &mut script),
    }
    Ok(io::stdout().lock().write_all(&script)?)
}

/// Writes the manual pages, one after the other, in roff: `entrepot man | man -l -`.
pub(super) fn manual(command: Command) -> anyhow::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    pages_of(&command, "", &mut pages)?;
    Ok(io::stdout().lock().write_all(&pages)?)
}

fn pages_of(command: &Command, before: &str, pages: &mut Vec<u8>) -> io::Result<()> {
    let path = format!("{before}{}", command.get_name());
    let version = format!("entrepot {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command.clone()).source(version).manual("entrepot");
    man.render_title(pages)?;
    man.render_name_section(pages)?;
    man.render_synopsis_section(pages)?;
    man.render_description_section(pages)?;
    man.render_options_section(pages)?;
    let is_inner = |sub: &&Command| !sub.is_hide_set();
    if command.get_subcommands().any(|sub| is_inner(&sub)) {
        man.render_subcommands_section(pages)?;
    }
    examples(&path, pages)?;
    if before.is_empty() {
        pairs("FILES", FILES, pages)?;
        pairs("ENVIRONMENT", ENVIRONMENT, pages)?;
    } else {
        let keys = "Every flag of entrepot\\-serve(1) is taken as well, and every variable: the \
                    configuration is the same.";
        if command.get_arguments().any(|arg| arg.get_id() == "config") && path != "entrepot serve" {
            writeln!(
                pages,
                ".SH CONFIGURATION\n{keys} See entrepot(1) for FILES and ENVIRONMENT."
            )?;
        } else {
            writeln!(pages, ".SH FILES\nSee entrepot(1).\n.SH ENVIRONMENT\nSee entrepot(1).")?;
        }
    }
    exit_codes(&path, pages)?;
    let inner = command.get_subcommands().filter(is_inner);
    for sub in inner {
        pages_of(sub, &format!("{path} "), pages)?;
    }
    Ok(())
}

/// Writes the section of a page on examples.
fn examples(path: &str, pages: &mut Vec<u8>) -> io::Result<()> {
    let examples = help::examples(path);
    if examples.is_empty() {
        return Ok(());
    }
    writeln!(pages, ".SH EXAMPLES")?;
    for (what, line) in examples {
        let colon = if what.ends_with('?') { "" } else { ":" };
        let (what, line) = (escaped(what), escaped(line));
        writeln!(pages, ".PP\n{what}{colon}\n.PP\n.RS 4\n.nf\n{line}\n.fi\n.RE")?;
    }
    Ok(())
}

fn pairs(title: &str, pairs: &[(&str, &str)], pages: &mut Vec<u8>) -> io::Result<()> {
    writeln!(pages, ".SH {title}")?;
    for (name, about) in pairs {
        writeln!(pages, ".TP\n\\fB{}\\fR\n{}", escaped(name), escaped(about))?;
    }
    Ok(())
}

/// Writes the section of a page on exit codes.
fn exit_codes(path: &str, pages: &mut Vec<u8>) -> io::Result<()> {
    writeln!(pages, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in help::exit_codes(path).iter().enumerate() {
        writeln!(pages, ".TP\n{code}\n{meaning}")?;
    }
    if path == "entrepot" {
        writeln!(pages, ".PP\nThose of check, verify, status, explain, reload and pull say more.")?;
    }
    Ok(())
}

/// Text as roff shows it: a hyphen is one that can be copied, and a line is no request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let begins_a_request = text.starts_with(['.', '\'']);
    if begins_a_request { format!("\\&{text}") } else { text }
}
