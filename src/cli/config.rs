//! `entrepot config`: what is configured, and whether it is valid.

use std::io::Write as _;

use clap::Command;
use serde_json::{Value, json};

use super::arguments::{self, Given};
use super::output::{Report, stdout, unless_closed};
use super::privileges::Missing;
use crate::config::{ConfigError, Settings};
use crate::words::chain;

pub(super) fn command() -> Command {
    let show = Command::new("show").about("Show every key, its value and where that comes from");
    let check = Command::new("check").about("Say all that is wrong with it");
    let inner = [show, check].map(|one| arguments::with_settings(one).arg(arguments::json()));
    Command::new("config").about("What is configured").subcommand_required(true).subcommands(inner)
}

pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    match given.subcommand() {
        Some(("show", given)) => show(&given.settings(Missing::Left)?, given.report()),
        Some((_, given)) => check(given.settings(Missing::Left), given.report()),
        None => Ok(()),
    }
}

/// Shows every key with its value and where that comes from; passwords are hidden.
fn show(settings: &Settings, report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", settings.shown)?,
        Report::Text => write!(output, "{}", lines(&settings.shown))?,
    }
    Ok(())
}

/// Says whether the configuration is valid: one that is not has never become settings. What is
/// wrong with it stays the caller's to tell; as JSON it is told here, too.
fn check(loaded: anyhow::Result<Settings>, report: Report) -> anyhow::Result<()> {
    unless_closed(tell(loaded.as_ref().err(), report))?;
    loaded.map(drop)
}

fn tell(error: Option<&anyhow::Error>, report: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{}", verdict(error))?,
        Report::Text if error.is_none() => writeln!(output, "the configuration is valid")?,
        Report::Text => {}
    }
    Ok(())
}

fn verdict(error: Option<&anyhow::Error>) -> Value {
    let Some(error) = error else { return json!({ "is_valid": true }) };
    let problems: Vec<_> = match error.downcast_ref::<ConfigError>() {
        Some(error) => error.problems.iter().map(ToString::to_string).collect(),
        None => vec![chain(error.as_ref())],
    };
    json!({ "is_valid": false, "problems": problems })
}

fn lines(shown: &Value) -> String {
    let keys = shown.get("keys").and_then(Value::as_object).into_iter().flatten();
    let keys = keys.map(|(key, found)| {
        let value = found.get("value").unwrap_or(&Value::Null);
        let from = found.get("from").and_then(Value::as_str).unwrap_or_default();
        let value = if value.is_null() { "-".to_owned() } else { value.to_string() };
        format!("{key} = {value}  # {from}\n")
    });
    let registries = shown.get("registries").and_then(Value::as_array).into_iter().flatten();
    let registries = registries.map(|entry| {
        let values = entry.as_object().into_iter().flatten();
        let values: Vec<_> = values.map(|(key, value)| format!("{key} = {value}\n")).collect();
        format!("[[registry]]\n{}", values.concat())
    });
    keys.chain(registries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_key_value_and_place() {
        let shown = json!({
            "keys": {
                "push": { "value": "deny", "from": "ENTREPOT_PUSH" },
                "external-url": { "value": null, "from": "default" },
                "intercept-also": { "value": ["a.example"], "from": "/e.toml:3" },
            },
            "registries": [{ "host": "b.example", "password": "(hidden)" }],
        });
        insta::assert_snapshot!(lines(&shown), @r#"
        external-url = -  # default
        intercept-also = ["a.example"]  # /e.toml:3
        push = "deny"  # ENTREPOT_PUSH
        [[registry]]
        host = "b.example"
        password = "(hidden)"
        "#);
    }
}
