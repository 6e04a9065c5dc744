//! What is printed: a row for each measure, a column for each program.

use std::fmt::Write as _;

use serde_json::json;

/// One run of one program.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) block: &'static str,
    pub(crate) variant: String,
    pub(crate) target: &'static str,
    pub(crate) rep: u32,
    pub(crate) outcome: Outcome,
    /// Whether other programs were at work meanwhile.
    pub(crate) disturbed: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Figures, by what they are.
    Measured(Vec<(&'static str, f64)>),
    /// Something was wrong: what it was. There are no figures then.
    Failed(String),
}

impl Run {
    /// As one line of JSON.
    pub(crate) fn json(&self) -> String {
        let mut line = json!({
            "block": self.block, "variant": self.variant, "target": self.target, "rep": self.rep,
            "disturbed": self.disturbed,
        });
        let (key, value) = match &self.outcome {
            Outcome::Measured(figures) => {
                let figures =
                    figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
                ("figures", figures.collect::<serde_json::Map<_, _>>().into())
            }
            Outcome::Failed(reason) => ("failed", json!(reason)),
        };
        if let Some(fields) = line.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
        line.to_string()
    }

    fn figure(&self, measure: &str) -> Option<f64> {
        match &self.outcome {
            Outcome::Measured(figures) => {
                figures.iter().find(|(name, _)| *name == measure).map(|(_, value)| *value)
            }
            Outcome::Failed(_) => None,
        }
    }
}

/// The table of these runs, the programs in this order, and below it why some have failed.
pub(crate) fn table(runs: &[Run], targets: &[&'static str]) -> String {
    let mut text = format!("| | | {} |\n|---|---|", targets.join(" | "));
    text.push_str(&"---|".repeat(targets.len()));
    text.push('\n');
    for (block, variant) in distinct(runs.iter().map(|run| (run.block, run.variant.as_str()))) {
        let here: Vec<_> =
            runs.iter().filter(|run| run.block == block && run.variant == variant).collect();
        for (number, measure) in measures(&here).into_iter().enumerate() {
            let what = if number == 0 { format!("{block} {variant}") } else { String::new() };
            let cells: Vec<_> = targets.iter().map(|target| cell(&here, target, measure)).collect();
            let _ = writeln!(text, "| {} | {measure} | {} |", what.trim(), cells.join(" | "));
        }
    }
    text + &failures(runs)
}

/// What was measured, in the order of its first appearance; where all has failed, that.
fn measures(runs: &[&Run]) -> Vec<&'static str> {
    let figures = runs.iter().flat_map(|run| match &run.outcome {
        Outcome::Measured(figures) => figures.as_slice(),
        Outcome::Failed(_) => &[],
    });
    let found = distinct(figures.map(|(name, _)| *name));
    if found.is_empty() { vec![""] } else { found }
}

/// The median with its range; a program of which one run has failed has no figure at all.
fn cell(runs: &[&Run], target: &str, measure: &str) -> String {
    let of_target = || runs.iter().filter(|run| run.target == target);
    if of_target().any(|run| matches!(run.outcome, Outcome::Failed(_))) {
        return "**failed**".to_owned();
    }
    let calm: Vec<_> = of_target().filter(|run| !run.disturbed).collect();
    let (mark, used) = if calm.is_empty() { (" ~", of_target().collect()) } else { ("", calm) };
    let mut figures: Vec<_> = used.iter().filter_map(|run| run.figure(measure)).collect();
    figures.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
        return "–".to_owned();
    };
    let (least, most) = (rounded(*least), rounded(*most));
    let range = if least == most { String::new() } else { format!(" ({least}..{most})") };
    format!("{}{range}{mark}", rounded(median(&figures)))
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2..=sorted.len() / 2);
    let middle = middle.unwrap_or_default();
    middle.iter().sum::<f64>() / crate::size::float(middle.len() as u64)
}

/// Three digits that count.
fn rounded(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

fn failures(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        if let Outcome::Failed(reason) = &run.outcome {
            let Run { block, variant, target, rep, .. } = run;
            let _ = writeln!(text, "\nfailed: {block} {variant}, {target}, run {rep}: {reason}");
        }
    }
    text
}

/// Each of them once, in the order of the first.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Run, table};

    fn run(target: &'static str, rep: u32, outcome: Outcome, disturbed: bool) -> Run {
        Run { block: "hit", variant: "c=1".to_owned(), target, rep, outcome, disturbed }
    }

    fn measured(target: &'static str, rep: u32, figure: f64) -> Run {
        run(target, rep, Outcome::Measured(vec![("GB/s", figure)]), false)
    }

    #[test]
    fn ours_stands_beside_theirs() {
        let mut runs = vec![measured("ours", 1, 3.0), measured("theirs", 1, 0.25)];
        runs.extend([measured("ours", 2, 1.0), measured("ours", 3, 2.0)]);
        runs.push(run("ours", 4, Outcome::Measured(vec![("GB/s", 0.001)]), true));
        assert_eq!(
            table(&runs, &["ours", "theirs", "absent"]),
            "| | | ours | theirs | absent |\n|---|---|---|---|---|\n\
             | hit c=1 | GB/s | 2.00 (1.00..3.00) | 0.250 | – |\n"
        );
    }

    #[test]
    fn a_failed_run_has_no_figure() {
        let failed = Outcome::Failed("status 500, not 200".to_owned());
        let runs = [measured("ours", 1, 1e9), run("ours", 2, failed, false)];
        let text = table(&runs, &["ours"]);
        assert!(text.contains("| hit c=1 | GB/s | **failed** |"), "{text}");
        assert!(text.contains("run 2: status 500, not 200"), "{text}");
    }

    #[test]
    fn a_line_of_json_has_the_figures() {
        let line: serde_json::Value =
            serde_json::from_str(&measured("ours", 1, 2.5).json()).unwrap();
        assert_eq!(line["figures"]["GB/s"], 2.5);
        assert_eq!(line["block"], "hit");
    }
}
