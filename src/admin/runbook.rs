//! `/runbook`: what to do when an alert fires, of this very version and where no internet is.
//!
//! It is `docs/runbook.md`, whose sections are called like the alerts, shown as it is written:
//! every section has its name as an anchor.

use std::fmt::Write as _;

use http::{HeaderValue, Response, header};

use super::front::escaped;
use crate::gateway::ResponseBody;

const TEXT: &str = include_str!("../../docs/runbook.md");

/// The page. It needs nothing but itself.
pub(super) fn page() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(html()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Nothing on it is of anybody else's making.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                  base-uri 'none'";
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn html() -> String {
    let mut sections = TEXT.split("\n## ");
    let first = sections.next().unwrap_or_default().trim_start_matches("# ");
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Runbook - entrepot</title>\n\
         <style>body{{max-width:60rem;margin:1rem auto;padding:0 1rem;font:1rem/1.5 sans-serif}}\
         pre{{white-space:pre-wrap;font:inherit}}:target{{text-decoration:underline}}</style>\n{}",
        section("h1", first)
    );
    for text in sections {
        html.push_str(&section("h2", text));
    }
    html
}

/// A heading, which is its own anchor, and the text below it as it is written.
fn section(heading: &str, text: &str) -> String {
    let (title, body) = text.split_once('\n').unwrap_or((text, ""));
    let (title, body) = (escaped(title), escaped(body.trim()));
    let mut html = String::new();
    // Writing to memory does not fail.
    let _ = write!(html, "<{heading} id=\"{title}\">{title}</{heading}>\n<pre>{body}</pre>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_has_its_section() {
        let rules = include_str!("../../docs/deploy/prometheus-rules.yaml");
        let html = html();
        let alerts: Vec<_> =
            rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(alerts.len() > 15, "{alerts:?}");
        for alert in &alerts {
            assert!(html.contains(&format!("<h2 id=\"{alert}\">")), "{alert} has no section");
            let link =
                format!("runbook_url: \"http://{{{{ $labels.instance }}}}/runbook#{alert}\"");
            assert!(rules.contains(&link), "{alert} has no link");
        }
        assert_eq!(TEXT.matches("\n## ").count(), alerts.len(), "a section without an alert");
    }
}
