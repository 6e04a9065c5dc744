//! How a pull is told: a bar a layer on a terminal, lines elsewhere, or JSON.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};

use super::super::output::{Report, is_closed_output, short, stdout};
use super::super::progress::Bars;
use crate::admin::pull::{Beginning, BlobOrigin, Done, PullLine, PullSummary, PulledBlob};
use crate::log::{bytes, one_line};

/// Who tells it.
pub(super) enum Show {
    /// Bars on standard error.
    Bars(Bars),
    /// Lines on standard output.
    Lines(HashMap<String, PulledBlob>),
    /// Each line of the API, as it is.
    Json,
    /// Nothing more: nobody reads it, and the images are wanted all the same.
    Nothing,
}

impl Show {
    pub(super) fn new(report: Report) -> Self {
        match report {
            Report::Json => Self::Json,
            Report::Text if io::stderr().is_terminal() => Self::Bars(Bars::default()),
            Report::Text => Self::Lines(HashMap::new()),
        }
    }

    /// Tells the next thing. What fails is for the caller to tell.
    pub(super) fn hear(&mut self, told: &PullLine) -> anyhow::Result<()> {
        match self.tell(told) {
            Err(error) if is_closed_output(&error) => {
                self.clear();
                *self = Self::Nothing;
                Ok(())
            }
            told => told,
        }
    }

    fn tell(&mut self, told: &PullLine) -> anyhow::Result<()> {
        match (&mut *self, told) {
            (Self::Nothing, _) | (Self::Lines(_), PullLine::Progress(_)) => {}
            (Self::Json, told) => writeln!(stdout(), "{}", serde_json::to_string(told)?)?,
            (Self::Bars(bars), PullLine::Image(beginning)) => {
                bars.headline(&headline(beginning))?;
                for object in &beginning.objects {
                    bars.add(&object.digest, prefix(object), object.total_bytes);
                }
            }
            (Self::Bars(bars), PullLine::Progress(progress)) => {
                bars.advance(&progress.digest, progress.bytes);
            }
            (Self::Bars(bars), PullLine::Done(done)) => {
                bars.finish(&done.digest, done.bytes, origin(done.from));
            }
            (Self::Lines(objects), PullLine::Image(beginning)) => {
                writeln!(stdout(), "{}", headline(beginning))?;
                objects
                    .extend(beginning.objects.iter().map(|one| (one.digest.clone(), one.clone())));
            }
            (Self::Lines(objects), PullLine::Done(done)) => {
                writeln!(stdout(), "{}", line(done, objects.get(&done.digest)))?;
            }
            (_, PullLine::Summary(summary)) => {
                self.end();
                writeln!(stdout(), "{}", footline(summary))?;
            }
            (_, PullLine::Error(_)) => self.end(),
        }
        Ok(())
    }

    /// Takes the bars away.
    pub(super) fn clear(&mut self) {
        if let Self::Bars(bars) = self {
            bars.clear();
        }
    }

    /// Bars of what has not come stay as they are.
    pub(super) fn end(&mut self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

fn prefix(object: &PulledBlob) -> String {
    format!("{} {}", short(&object.digest), kind(object.is_config))
}

/// Both are of one width.
fn kind(is_config: bool) -> &'static str {
    if is_config { "config" } else { "layer " }
}

fn origin(from: BlobOrigin) -> &'static str {
    match from {
        BlobOrigin::Store => "kept already",
        BlobOrigin::Registry => "pulled",
    }
}

fn headline(beginning: &Beginning) -> String {
    let Beginning { image, digest, platforms, objects } = beginning;
    let platforms = match platforms.join(", ") {
        none if none.is_empty() => none,
        some => format!(" for {}", one_line(&some)),
    };
    let all: u64 = objects.iter().map(|one| one.total_bytes).sum();
    format!("{image} is {digest}{platforms}: {} blobs, {}", objects.len(), bytes(all))
}

fn line(done: &Done, object: Option<&PulledBlob>) -> String {
    let kind = kind(object.is_some_and(|object| object.is_config));
    let (digest, size, from) = (short(&done.digest), bytes(done.bytes), origin(done.from));
    format!("{digest} {kind} {size:>9} {from}")
}

fn footline(summary: &PullSummary) -> String {
    let PullSummary { image, objects, bytes: all, fetched_bytes, .. } = summary;
    let (all, fetched) = (bytes(*all), bytes(*fetched_bytes));
    format!("{image} is here: {objects} objects, {all}, of which {fetched} came now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_well() {
        let digest = |n: &str| format!("sha256:{}", n.repeat(32));
        let object = |n: &str, total_bytes, is_config| PulledBlob {
            digest: digest(n),
            total_bytes,
            is_config,
        };
        let beginning = Beginning {
            image: "docker.io/library/alpine:latest".to_owned(),
            digest: digest("ab"),
            platforms: vec!["linux/amd64".to_owned()],
            objects: vec![object("cd", 1471, true), object("ef", 3_642_247, false)],
        };
        let done = |n: &str, bytes, from| Done { digest: digest(n), bytes, from };
        let summary = PullSummary {
            image: beginning.image.clone(),
            digest: digest("ab"),
            platforms: beginning.platforms.clone(),
            objects: 4,
            bytes: 3_645_000,
            fetched_blobs: 1,
            fetched_bytes: 3_642_247,
        };
        let text = [
            headline(&beginning),
            line(&done("cd", 1471, BlobOrigin::Store), Some(&beginning.objects[0])),
            line(&done("ef", 3_642_247, BlobOrigin::Registry), Some(&beginning.objects[1])),
            footline(&summary),
        ];
        insta::assert_snapshot!(text.join("\n"), @r"
        docker.io/library/alpine:latest is sha256:abababababababababababababababababababababababababababababababab for linux/amd64: 2 blobs, 3.6 MB
        cdcdcdcdcdcd config    1.4 kB kept already
        efefefefefef layer     3.6 MB pulled
        docker.io/library/alpine:latest is here: 4 objects, 3.6 MB, of which 3.6 MB came now
        ");
    }
}
