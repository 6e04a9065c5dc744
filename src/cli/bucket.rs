//! `entrepot bucket`: the bucket that replicas have in common, as a running one of them sees it.

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::bail;
use clap::Command;
use entrepot_oci::UnixSeconds;
use http::Method;
use serde_json::{Value, json};

use super::api::{Api, JsonLines};
use super::arguments::{self, Given};
use super::output::{Report, ago, lasting, size, stdout, unless_closed};
use super::privileges::Missing;
use super::progress::{ProgressLine, bar_line};
use super::runtime;
use crate::admin::shared::BucketTold;
use crate::bucket::round::{RoundLine, RoundProgress, RoundReport, Step};
use crate::log::one_line;
use crate::words::grouped;

pub(super) fn command() -> Command {
    let with_place = |command: Command| {
        arguments::with_place(command.arg(arguments::json()).arg(arguments::server()))
    };
    let about = "Look after the bucket now: bring what is kept here alone, remove what is unused";
    let sync = with_place(Command::new("sync").about(about));
    let about = "Show how the bucket is that replicas have in common, or look after it";
    with_place(Command::new("bucket").about(about))
        .args_conflicts_with_subcommands(true)
        .subcommand(sync)
}

/// Shows how it is, or runs the round.
pub(super) fn run(given: Given<'_>) -> anyhow::Result<()> {
    match given.subcommand() {
        Some((_, given)) => sync(given),
        None => show(given),
    }
}

fn show(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Left)?;
    let api = Api::new(&settings, given.server())?;
    let document = runtime::block_on(api.ask(Method::GET, "/api/v1/bucket"))?;
    let lines = match given.report() {
        Report::Json => document.to_string(),
        Report::Text => {
            let told: BucketTold = serde_json::from_value(document)?;
            shown(&told, SystemTime::now()).join("\n")
        }
    };
    writeln!(stdout(), "{lines}")?;
    Ok(())
}

fn shown(told: &BucketTold, now: SystemTime) -> Vec<String> {
    let day = |at: UnixSeconds| at.time().map(|at| format!("{} ago", ago(at, now)));
    let since = day(told.since).map(|ago| format!(", since {ago}")).unwrap_or_default();
    let state = match (&told.why, told.reachable) {
        (Some(why), _) => format!("{}{since}", one_line(why)),
        (None, true) => format!("reachable{since}"),
        (None, false) => "not asked yet".to_owned(),
    };
    let pending = &told.pending;
    let oldest = pending.oldest_secs.map(|secs| format!(", the oldest for {}", lasting(secs)));
    let oldest = oldest.unwrap_or_default();
    let mut rows = vec![
        ("bucket", one_line(&told.url).into_owned()),
        ("credential", one_line(&told.credentials).into_owned()),
        ("state", state),
        ("pending", format!("{}, {}{oldest}", grouped(pending.objects), size(pending.bytes))),
    ];
    let bound = told.max_bytes.map(|most| format!(" of {}", size(most))).unwrap_or_default();
    match (told.objects, told.bytes) {
        (Some(objects), Some(bytes)) => {
            rows.push(("objects", format!("{}, {}{bound}", grouped(objects), size(bytes))));
            let idle = told.max_idle_secs.map(|secs| format!(" (max-idle {})", lasting(secs)));
            let oldest = told.oldest_use.and_then(day).unwrap_or_else(|| "none".to_owned());
            rows.push(("oldest use", format!("{oldest}{}", idle.unwrap_or_default())));
        }
        _ => rows.push(("objects", "not looked at yet: entrepot bucket sync".to_owned())),
    }
    let last = told.round.last.as_ref().and_then(|last| day(last.ended));
    let round = if told.round.under_way { Some("under way".to_owned()) } else { last };
    rows.push(("last round", round.unwrap_or_else(|| "none since the start".to_owned())));
    rows.into_iter().map(|(label, value)| format!("{label:<11} {value}")).collect()
}

fn sync(given: Given<'_>) -> anyhow::Result<()> {
    let settings = given.settings(Missing::Left)?;
    let api = Api::new(&settings, given.server())?;
    let report = runtime::block_on(run_round(&api))?;
    unless_closed(tell(&report, given.report()))
}

async fn run_round(api: &Api) -> anyhow::Result<RoundReport> {
    let response = api.send(Method::POST, "/api/v1/bucket/sync").await?;
    let mut bar = ProgressLine::new();
    let heard = hear(api, JsonLines::new(response), &mut bar).await;
    bar.clear();
    heard
}

async fn hear(
    api: &Api,
    mut lines: JsonLines<RoundLine>,
    bar: &mut ProgressLine,
) -> anyhow::Result<RoundReport> {
    loop {
        match lines.next().await?.ok_or_else(|| api.broken())? {
            RoundLine::Summary(report) => return Ok(report),
            RoundLine::Error(reason) => bail!("the proxy could not: {}", one_line(&reason)),
            RoundLine::Progress(progress) => {
                bar.show(|| drawn(&progress), Some(|| counted(&progress)));
            }
        }
    }
}

fn counted(progress: &RoundProgress) -> String {
    let RoundProgress { step, done, total, bytes } = progress;
    let step = match step {
        Step::Looking => "looking at objects",
        Step::Removing => "making room",
        Step::Records => "looking at records",
        Step::Uploading => "uploading",
    };
    let of = total.map(|total| format!("/{total}")).unwrap_or_default();
    let sent = if *bytes > 0 { format!(", {} sent", size(*bytes)) } else { String::new() };
    format!("{step}: {done}{of}{sent}")
}

fn drawn(progress: &RoundProgress) -> String {
    match progress.total {
        Some(total) => format!("{}\u{1b}[K", bar_line(progress.done, total, &counted(progress))),
        None => format!("\r{}\u{1b}[K", counted(progress)),
    }
}

fn tell(report: &RoundReport, form: Report) -> anyhow::Result<()> {
    let mut output = stdout();
    match form {
        Report::Json => writeln!(output, "{}", told(report))?,
        Report::Text => writeln!(output, "{}", sentences(report).join("\n"))?,
    }
    Ok(())
}

fn told(report: &RoundReport) -> Value {
    json!(report)
}

fn sentences(report: &RoundReport) -> Vec<String> {
    let RoundReport { objects, bytes, .. } = report;
    let mut lines = vec![format!(
        "uploaded {} objects, {}, and {} records",
        grouped(report.uploaded_objects),
        size(report.uploaded_bytes),
        grouped(report.uploaded_records)
    )];
    if report.failed > 0 {
        lines.push(format!("{} could not be uploaded yet: tried again", grouped(report.failed)));
    }
    lines.push(format!(
        "removed {} objects, {}, and {} records",
        grouped(report.removed_objects),
        size(report.removed_bytes),
        grouped(report.removed_records)
    ));
    lines.push(format!("the bucket has {} objects, {}", grouped(*objects), size(*bytes)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::shared::{PendingTold, RoundTold};
    use std::time::Duration;

    const NOW: u64 = 1_800_000_000;

    fn report() -> RoundReport {
        RoundReport {
            ended: UnixSeconds(NOW - 7_200),
            objects: 41_203,
            bytes: 1_300_000_000_000,
            oldest_use: Some(UnixSeconds(NOW - 80 * 86_400)),
            uploaded_objects: 12,
            uploaded_bytes: 340_000_000,
            uploaded_records: 25,
            removed_objects: 3,
            removed_bytes: 1_000,
            removed_records: 6,
            ..RoundReport::default()
        }
    }

    fn bucket(last: Option<RoundReport>) -> BucketTold {
        BucketTold {
            url: "s3://entrepot-cache/eu".to_owned(),
            credentials: "web identity: role x".to_owned(),
            reachable: true,
            usable: true,
            since: UnixSeconds(NOW - 86_400),
            why: None,
            objects: last.as_ref().map(|last| last.objects),
            bytes: last.as_ref().map(|last| last.bytes),
            oldest_use: last.as_ref().and_then(|last| last.oldest_use),
            max_idle_secs: Some(90 * 86_400),
            max_bytes: Some(2_000_000_000_000),
            pending: PendingTold { objects: 4, bytes: 5_000_000, oldest_secs: Some(3), dropped: 0 },
            round: RoundTold { under_way: false, last },
            words: String::new(),
        }
    }

    #[test]
    fn a_bucket_is_told_in_a_few_lines() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        insta::assert_snapshot!(shown(&bucket(Some(report())), now).join("\n"), @r"
        bucket      s3://entrepot-cache/eu
        credential  web identity: role x
        state       reachable, since 1d ago
        pending     4, 5.0MB, the oldest for 3s
        objects     41,203, 1.3TB of 2.0TB
        oldest use  80d ago (max-idle 90d)
        last round  2h ago
        ");
        let mut away = bucket(None);
        (away.reachable, away.why) = (false, Some("no\nroute".to_owned()));
        let lines = shown(&away, now);
        assert!(lines[2].starts_with("state       no") && lines[2].ends_with("since 1d ago"));
        assert!(lines[4].ends_with("entrepot bucket sync"), "{}", lines[4]);
    }

    #[test]
    fn what_a_round_has_done_is_told() {
        insta::assert_snapshot!(sentences(&report()).join("\n"), @r"
        uploaded 12 objects, 340.0MB, and 25 records
        removed 3 objects, 1.0kB, and 6 records
        the bucket has 41,203 objects, 1.3TB
        ");
        let failed = RoundReport { failed: 2, ..report() };
        assert!(sentences(&failed)[1].starts_with("2 could not be uploaded yet"));
    }

    #[test]
    fn progress_says_which_step_and_how_far() {
        let at = |total| RoundProgress { step: Step::Uploading, done: 5, total, bytes: 1_000_000 };
        assert_eq!(
            drawn(&at(Some(10))),
            "\r[###############...............] uploading: 5/10, 1.0MB sent\u{1b}[K"
        );
        assert_eq!(drawn(&at(None)), "\ruploading: 5, 1.0MB sent\u{1b}[K");
    }
}
