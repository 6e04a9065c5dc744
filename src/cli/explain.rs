//! `entrepot explain`: what a pull of an image would meet now, and why.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Command;
use entrepot_oci::ImageName;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

use super::api::Api;
use super::arguments::{self, Given};
use super::output::{Report, screen_width, stdout, unless_closed, wrapped};
use super::privileges::Missing;
use super::runtime;
use crate::log::one_line;

pub(super) fn command() -> Command {
    let about = "Explain what a pull of an image would meet now, and why";
    let command = Command::new("explain").about(about).arg(arguments::images());
    arguments::with_place(command.arg(arguments::json()).arg(arguments::server()))
}

/// Explains each image that is named. 0: all would be served; 1: one would not.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<ExitCode> {
    let settings = given.settings(Missing::Left)?;
    let api = Api::new(&settings, given.server())?;
    let width = screen_width(given);
    runtime::block_on(async {
        let mut code = ExitCode::SUCCESS;
        for (at, image) in given.images().enumerate() {
            let document = ask(&api, image).await?;
            let explained: Explained = serde_json::from_value(document.clone())?;
            if explained.outcome == "fails" {
                code = ExitCode::FAILURE;
            }
            unless_closed(tell(&document, &explained, at > 0, given.report(), width))?;
        }
        Ok(code)
    })
}

async fn ask(api: &Api, image: &ImageName) -> anyhow::Result<Value> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("image", &image.to_string());
    api.ask(Method::GET, &format!("/api/v1/explain?{}", query.finish())).await
}

/// Of the document, what a person reads.
#[derive(Deserialize)]
struct Explained {
    outcome: String,
    /// The conclusion first.
    words: Vec<String>,
}

fn tell(
    document: &Value,
    explained: &Explained,
    has_more: bool,
    report: Report,
    width: usize,
) -> anyhow::Result<()> {
    let mut output = stdout();
    match report {
        Report::Json => writeln!(output, "{document}")?,
        Report::Text => {
            if has_more {
                writeln!(output)?;
            }
            write!(output, "{}", text(explained, width))?;
        }
    }
    Ok(())
}

/// The conclusion, and a line for each reason.
fn text(Explained { words, .. }: &Explained, width: usize) -> String {
    let mut lines = Vec::new();
    for (at, sentence) in words.iter().enumerate() {
        let (first, rest) = if at == 0 { ("", "") } else { ("- ", "  ") };
        lines.extend(wrapped(&one_line(sentence), width, first, rest));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conclusion_comes_first_and_reasons_hang_below_it() {
        let words = [
            "docker.io/library/alpine:3.20 would come from the store, and docker.io not be asked",
            "of 4 objects that are known to belong to it, 4 are kept",
        ];
        let explained =
            Explained { outcome: "hit".to_owned(), words: words.map(str::to_owned).to_vec() };
        insta::assert_snapshot!(text(&explained, 50), @r"
        docker.io/library/alpine:3.20 would come from the
        store, and docker.io not be asked
        - of 4 objects that are known to belong to it, 4
          are kept
        ");
    }
}
