//! What a shell may complete a command line to.
//!
//! The scripts of `entrepot completions` ask the program itself, by a subcommand that is in no
//! help: so names of images are those that are kept, and a script is never older than the program.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Arg, Command};

use super::arguments::Given;
use super::listing;
use super::privileges::Missing;
use super::runtime;
use super::site::{Site, unbounded};
use crate::config::keys::Key;
use crate::log::one_line;

/// The subcommand that the scripts use.
pub(super) const NAME: &str = "__complete";
/// Told in place of candidates: the shell completes names of files.
const FILES: &str = ":files";
/// How long whoever has pressed Tab waits for names of images.
const PATIENCE: Duration = Duration::from_secs(3);
/// More are no help.
const MOST: usize = 2_000;

pub(super) fn command() -> Command {
    let words = Arg::new("word").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new(NAME).hide(true).disable_help_flag(true).arg(words)
}

/// Something to complete to, and what that is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    text: String,
    about: String,
}

impl Candidate {
    fn new(text: impl Into<String>, about: impl Into<String>) -> Self {
        Self { text: text.into(), about: about.into() }
    }
}

/// What fits at the cursor.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    These(Vec<Candidate>),
    /// Names of files.
    Files,
    /// Names of images that are kept, for this subcommand's words.
    Images,
    Nothing,
}

/// Tells what the last of the words may become, a line each: the text, a tab, what it is. Nobody
/// wants to read errors here.
pub(super) fn run(whole: &Command, given: Given<'_>) -> anyhow::Result<()> {
    let words: Vec<String> = given.matches.get_many("word").unwrap_or_default().cloned().collect();
    let Some((current, before)) = words.split_last() else { return Ok(()) };
    let mut built = whole.clone();
    built.build();
    let (prefix, value) = split(current);
    let told = match offer(&built, before, current) {
        Offer::Nothing => Vec::new(),
        Offer::Files => vec![Candidate::new(FILES, "")],
        Offer::These(candidates) => fitting(candidates, &prefix, value),
        Offer::Images => fitting(images(whole, before, given), &prefix, value),
    };
    let mut output = io::stdout().lock();
    for Candidate { text, about } in told {
        writeln!(output, "{}\t{}", one_line(&text), one_line(&about))?;
    }
    Ok(())
}

/// A flag with a value behind `=` keeps what is before that.
fn split(current: &str) -> (String, &str) {
    match current.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => (format!("{flag}="), value),
        _ => (String::new(), current),
    }
}

fn fitting(candidates: Vec<Candidate>, prefix: &str, value: &str) -> Vec<Candidate> {
    let fit = candidates.into_iter().filter(|one| one.text.starts_with(value));
    let whole = fit.map(|one| Candidate { text: format!("{prefix}{}", one.text), ..one });
    whole.take(MOST).collect()
}

/// What may stand in place of `current`, behind these words.
fn offer(whole: &Command, before: &[String], current: &str) -> Offer {
    let mut command = whole;
    let mut expects: Option<&Arg> = None;
    let mut positionals = 0;
    for word in before {
        if expects.take().is_some() {
            continue;
        }
        if let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) {
            let is_open = !flag.contains('=');
            expects = long(command, flag).filter(|arg| is_open && takes_value(arg));
        } else if word.len() > 1 && word.starts_with('-') {
            let last = word.chars().next_back();
            expects = last.and_then(|last| short(command, last)).filter(|arg| takes_value(arg));
        } else if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        } else {
            positionals += 1;
        }
    }
    if let Some(arg) = expects {
        return values(command, arg);
    }
    if let Some((flag, _)) = current.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
        let arg = long(command, flag.trim_start_matches('-'));
        return arg.map_or(Offer::Nothing, |arg| values(command, arg));
    }
    if current.starts_with('-') {
        return Offer::These(flags(command));
    }
    if command.has_subcommands() {
        return Offer::These(subcommands(command));
    }
    let positional = command.get_positionals().nth(positionals);
    let positional =
        positional.or_else(|| command.get_positionals().last().filter(|last| is_many(last)));
    positional.map_or(Offer::Nothing, |arg| values(command, arg))
}

fn long<'c>(command: &'c Command, flag: &str) -> Option<&'c Arg> {
    let name = flag.split('=').next().unwrap_or_default();
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

fn short(command: &Command, letter: char) -> Option<&Arg> {
    command.get_arguments().find(|arg| arg.get_short() == Some(letter))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn is_many(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|range| range.max_values() > 1)
}

fn flags(command: &Command) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = shown.filter_map(|arg| {
        let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some(Candidate::new(format!("--{}", arg.get_long()?), about))
    });
    named.collect()
}

fn subcommands(command: &Command) -> Vec<Candidate> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let named = shown.map(|sub| {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        Candidate::new(sub.get_name(), about)
    });
    named.collect()
}

/// The values of an argument.
fn values(command: &Command, arg: &Arg) -> Offer {
    let known = arg.get_possible_values();
    if !known.is_empty() {
        let known = known.iter().filter(|value| !value.is_hide_set());
        return Offer::These(known.map(|value| Candidate::new(value.get_name(), "")).collect());
    }
    let id = arg.get_id().as_str();
    let choices = Key::named(id).map(Key::choices).unwrap_or_default();
    if !choices.is_empty() {
        return Offer::These(choices.iter().map(|value| Candidate::new(*value, "")).collect());
    }
    let is_file = |name: &str| ["-dir", "-file", "-socket"].iter().any(|end| name.ends_with(end));
    match (command.get_name(), id) {
        ("import" | "pull", "file") | ("export", "output") | (_, "config") => Offer::Files,
        // What is not kept can be pulled, and no shell knows what there is.
        ("import", _) => Offer::Nothing,
        (_, "platform") => Offer::These(platforms()),
        (_, "image" | "name") => Offer::Images,
        (_, name) if is_file(name) => Offer::Files,
        _ => Offer::Nothing,
    }
}

fn platforms() -> Vec<Candidate> {
    let usual = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/s390x"];
    usual.iter().map(|platform| Candidate::new(*platform, "")).collect()
}

/// The images that are kept, wherever the words before say that is; none where that is not known in
/// time.
fn images(whole: &Command, before: &[String], given: Given<'_>) -> Vec<Candidate> {
    let words = std::iter::once("entrepot".to_owned()).chain(before.iter().cloned());
    let line: Vec<OsString> = words.map(OsString::from).collect();
    // Of a line that is not complete yet, what there is counts.
    let Ok(matches) = whole.clone().ignore_errors(true).try_get_matches_from(&line) else {
        return Vec::new();
    };
    let Some((_, of_line)) = (Given { matches: &matches, ..given }).subcommand() else {
        return Vec::new();
    };
    let listed = of_line.settings(Missing::Left).and_then(|settings| {
        runtime::block_on(async {
            let listing = async {
                let site = Site::open(&settings, of_line.server(), unbounded(&settings)).await?;
                let listed = listing::all(&site, None).await;
                site.close().await;
                listed
            };
            tokio::time::timeout(PATIENCE, listing).await?
        })
    });
    let about = |image: &crate::images::Image| super::output::size(image.bytes);
    let listed = listed.unwrap_or_default();
    let full = listed.iter().map(|image| Candidate::new(&image.name, about(image)));
    // As people write them.
    let familiar = listed.iter().filter_map(|image| {
        let short = image.name.strip_prefix("docker.io/")?;
        let short = short.strip_prefix("library/").unwrap_or(short);
        Some(Candidate::new(short, about(image)))
    });
    familiar.chain(full).collect()
}

/// The script for a shell that asks this program, if it has one.
pub(super) fn script(shell: clap_complete::Shell) -> Option<&'static str> {
    match shell {
        clap_complete::Shell::Bash => Some(include_str!("completions/entrepot.bash")),
        clap_complete::Shell::Zsh => Some(include_str!("completions/entrepot.zsh")),
        clap_complete::Shell::Fish => Some(include_str!("completions/entrepot.fish")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is offered for the last of these words, without the words on it.
    fn offered(line: &str) -> Result<Vec<String>, Offer> {
        let mut whole = super::super::command();
        whole.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (current, before) = words.split_last().unwrap();
        let (prefix, value) = split(current);
        match offer(&whole, before, current) {
            Offer::These(candidates) => {
                Ok(fitting(candidates, &prefix, value).into_iter().map(|one| one.text).collect())
            }
            other => Err(other),
        }
    }

    #[test]
    fn subcommands_flags_and_values_are_offered() {
        assert_eq!(offered("un").unwrap(), ["unpin"]);
        assert!(!offered("").unwrap().iter().any(|name| name.starts_with('_')));
        assert_eq!(offered("config ").unwrap(), ["show", "check", "example", "help"]);
        assert_eq!(offered("serve --log ").unwrap(), ["text", "json"]);
        assert_eq!(offered("serve --log=j").unwrap(), ["--log=json"]);
        assert_eq!(offered("serve --log-level d").unwrap(), ["debug"]);
        assert_eq!(offered("serve --tunnel ").unwrap(), ["public", "any", "none"]);
        assert_eq!(offered("serve --offline ").unwrap(), ["true", "false"]);
        assert_eq!(offered("ls -o ").unwrap(), ["table", "wide", "json", "name"]);
        assert_eq!(offered("ls --sort=s").unwrap(), ["--sort=size"]);
        assert_eq!(offered("pull --platform linux/arm6").unwrap(), ["linux/arm64"]);
        assert_eq!(offered("completions b").unwrap(), ["bash"]);
        assert_eq!(offered("rm --dr").unwrap(), ["--dry-run"]);
        assert!(!offered("rm --").unwrap().contains(&"--ca-constrain".to_owned()));
    }

    #[test]
    fn images_and_files_are_offered_where_they_belong() {
        for line in
            ["rm ", "rm alpine:3 ", "pin al", "ls ghcr", "explain ", "export -o x ", "pull a"]
        {
            assert_eq!(offered(line), Err(Offer::Images), "{line}");
        }
        for line in [
            "ls --config ",
            "serve --cache-dir ",
            "ls --admin-token-file ",
            "import ",
            "export -o ",
            "pull -f ",
        ] {
            assert_eq!(offered(line), Err(Offer::Files), "{line}");
        }
        for line in ["rm --unused ", "ls --server ", "version x"] {
            assert_eq!(offered(line), Err(Offer::Nothing), "{line}");
        }
    }
}
