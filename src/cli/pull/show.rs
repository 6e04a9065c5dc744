//! How pulls are told: bars on a terminal, lines elsewhere, or JSON.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use serde_json::{Value, json};

use super::super::arguments::Given;
use super::super::output::{Report, complain, is_closed_output, short, stdout};
use super::super::progress::Bars;
use super::total::Total;
use crate::admin::pull::{Beginning, BlobOrigin, Done, PullLine, PullSummary, PulledBlob, Wanted};
use crate::log::{bytes, one_line};

/// Who tells of all pulls.
pub(super) struct Show {
    mode: Mode,
    total: Total,
}

enum Mode {
    /// Bars on standard error.
    Bars(Bars),
    /// Lines on standard output.
    Lines,
    /// Each line of the API, with the image that it is about.
    Json,
    /// Nothing more: nobody reads it, and the images are wanted all the same.
    Nothing,
}

/// What is known of one image.
pub(super) struct Tale {
    image: String,
    objects: HashMap<String, PulledBlob>,
}

impl Show {
    /// Tells of so many images.
    pub(super) fn new(given: Given<'_>, images: usize) -> Self {
        let mode = match given.report() {
            Report::Json => Mode::Json,
            Report::Text if io::stderr().is_terminal() => Mode::Bars(Bars::default()),
            Report::Text => Mode::Lines,
        };
        Self { mode, total: Total::new(images, Instant::now()) }
    }

    /// The beginning of an image's pull.
    #[expect(clippy::unused_self, reason = "a tale is told by somebody")]
    pub(super) fn begin(&self, wanted: &Wanted) -> Tale {
        Tale { image: wanted.image.to_string(), objects: HashMap::new() }
    }

    /// Tells the next thing. What fails is for the caller to tell.
    pub(super) fn hear(&mut self, tale: &mut Tale, told: &PullLine) -> anyhow::Result<()> {
        self.count(tale, told);
        self.unless_deserted(|show| show.tell(tale, told))
    }

    fn unless_deserted(
        &mut self,
        tell: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match tell(self) {
            Err(error) if is_closed_output(&error) => {
                self.clear();
                self.mode = Mode::Nothing;
                Ok(())
            }
            told => told,
        }
    }

    fn count(&mut self, tale: &mut Tale, told: &PullLine) {
        let now = Instant::now();
        match told {
            PullLine::Image(beginning) => {
                for object in &beginning.objects {
                    self.total.expect(&object.digest, object.total_bytes);
                    tale.objects.insert(object.digest.clone(), object.clone());
                }
            }
            PullLine::Progress(progress) => {
                self.total.advance(&progress.digest, progress.bytes, now);
            }
            PullLine::Done(done) => match done.from {
                BlobOrigin::Store => self.total.was_kept(&done.digest),
                BlobOrigin::Registry => self.total.advance(&done.digest, done.bytes, now),
            },
            PullLine::Summary(summary) => {
                self.total.image_is_here(summary.bytes, summary.fetched_bytes);
            }
            PullLine::Error(_) => {}
        }
    }

    fn tell(&mut self, tale: &Tale, told: &PullLine) -> anyhow::Result<()> {
        let is_of_several = self.total.is_of_several();
        let line_of_all = self.total.line(Instant::now());
        match (&mut self.mode, told) {
            (Mode::Nothing, _)
            | (Mode::Lines, PullLine::Progress(_))
            | (Mode::Bars(_) | Mode::Lines, PullLine::Error(_)) => {}
            (Mode::Json, told) => writeln!(stdout(), "{}", with_image(told, &tale.image)?)?,
            (Mode::Bars(bars), PullLine::Image(beginning)) => {
                bars.headline(&headline(beginning))?;
                for object in &beginning.objects {
                    bars.add(&tale.image, &object.digest, prefix(object), object.total_bytes);
                }
                bars.tell_total(line_of_all);
            }
            (Mode::Bars(bars), PullLine::Progress(progress)) => {
                bars.advance(&tale.image, &progress.digest, progress.bytes);
                bars.tell_total(line_of_all);
            }
            (Mode::Bars(bars), PullLine::Done(done)) => {
                bars.finish(&tale.image, &done.digest, done.bytes, origin(done.from));
                bars.tell_total(line_of_all);
            }
            (Mode::Bars(bars), PullLine::Summary(summary)) => {
                if is_of_several {
                    bars.take_away(&tale.image);
                    bars.tell_total(line_of_all);
                } else {
                    bars.end();
                }
                bars.beside(|| writeln!(stdout(), "{}", footline(summary)))?;
            }
            (Mode::Lines, PullLine::Image(beginning)) => {
                writeln!(stdout(), "{}", headline(beginning))?;
            }
            (Mode::Lines, PullLine::Done(done)) => {
                let line = line(done, tale.objects.get(&done.digest));
                let whose = if is_of_several { format!("  {}", tale.image) } else { String::new() };
                writeln!(stdout(), "{line}{whose}")?;
            }
            (Mode::Lines, PullLine::Summary(summary)) => {
                writeln!(stdout(), "{}", footline(summary))?;
            }
        }
        Ok(())
    }

    /// Says why an image is not here; the bars of what has not come of the only one stay.
    pub(super) fn failed(&mut self, tale: &Tale, why: &str) {
        self.total.image_failed(tale.image.clone());
        let is_of_several = self.total.is_of_several();
        let Mode::Bars(bars) = &mut self.mode else { return complain(why) };
        if is_of_several {
            bars.take_away(&tale.image);
        } else {
            bars.end();
        }
        bars.beside(|| complain(why));
    }

    /// Says what has come of all of them.
    pub(super) fn conclude(&mut self) -> anyhow::Result<()> {
        self.unless_deserted(|show| {
            if let Mode::Bars(bars) = &mut show.mode {
                bars.end();
            }
            match show.mode {
                Mode::Nothing => {}
                Mode::Json => {
                    if let Some(document) = show.total.document() {
                        writeln!(stdout(), "{document}")?;
                    }
                }
                Mode::Bars(_) | Mode::Lines => {
                    if let Some(words) = show.total.conclusion(Instant::now()) {
                        writeln!(stdout(), "{words}")?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Takes the bars away.
    pub(super) fn clear(&mut self) {
        if let Mode::Bars(bars) = &mut self.mode {
            bars.clear();
        }
    }
}

/// A line of the API with the image that it is about: several may come side by side.
fn with_image(told: &PullLine, image: &str) -> serde_json::Result<Value> {
    let mut line = serde_json::to_value(told)?;
    let inner = line.as_object_mut().and_then(|line| line.values_mut().next());
    if let Some(fields) = inner.and_then(Value::as_object_mut) {
        fields.entry("image").or_insert_with(|| json!(image));
    }
    Ok(line)
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
    // Enough to tell it from others: a line should fit.
    let algorithm = digest.split(':').next().unwrap_or_default();
    let digest = format!("{algorithm}:{}", short(digest));
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
        docker.io/library/alpine:latest is sha256:abababababab for linux/amd64: 2 blobs, 3.6 MB
        cdcdcdcdcdcd config    1.4 kB kept already
        efefefefefef layer     3.6 MB pulled
        docker.io/library/alpine:latest is here: 4 objects, 3.6 MB, of which 3.6 MB came now
        ");
    }

    #[test]
    fn lines_for_tools_name_their_image() {
        let done = Done { digest: "sha256:ab".to_owned(), bytes: 1, from: BlobOrigin::Store };
        let line = with_image(&PullLine::Done(done), "docker.io/library/alpine:1").unwrap();
        assert_eq!(line["done"]["image"], "docker.io/library/alpine:1");
        assert_eq!(line["done"]["bytes"], 1);
    }
}
