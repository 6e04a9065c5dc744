//! Whether registries can be reached: from here, or through a proxy as its clients do.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use entrepot_oci::{Authority, HostPattern, Registry};
use futures_util::future::join_all;
use http::{HeaderMap, Method, Response, header};

use super::super::runtime;
use super::Finding;
use crate::config::Settings;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::registry::{RegistryRule, Tried, try_login};
use crate::upstream::body::{IdleBody, RequestBody};
use crate::upstream::client::Sending;
use crate::upstream::proxy::{ForwardProxy, NoProxy, Proxies};
use crate::upstream::{ConnectTo, Errand, Options, Scheme, Target, Upstream, UpstreamError};
use crate::words::http_date;

/// More than this, and certificates and tokens are taken for expired, or not valid yet.
const SKEW: Duration = Duration::from_mins(5);
/// The registry that a client asks for; it needs no credentials to say who it is.
const USUAL: &str = "registry-1.docker.io:443";

/// What is said of a registry where none may be contacted: that is wanted, and nothing is wrong.
const UNASKED: &str = "not asked: offline = true";

/// Asks every registry that the configuration names, at once: DNS, connection, TLS, an answer.
/// Where it names none, Docker Hub is the one.
pub(super) fn registries(settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let named = settings.upstream.exemptions.registries.iter().filter_map(HostPattern::exact);
    let led = settings.upstream.connect_to.iter().filter_map(ConnectTo::asked);
    let is_registry = |authority: &Authority| {
        settings.listener.policy.intercept.iter().any(|pattern| pattern.matches(authority))
    };
    let mut asked: Vec<_> = named
        .chain(led.filter(is_registry))
        .map(|authority| Registry::at(&authority).authority(&authority))
        .collect();
    asked.sort_by_key(ToString::to_string);
    asked.dedup();
    let usual = Authority::parse_with_port(USUAL)?;
    if asked.is_empty() && is_registry(&usual) && !settings.upstream.offline {
        asked.push(usual);
    }
    ask_all(settings, &settings.upstream, &asked)
}

/// Asks a registry through the proxy at `url`, with this machine's trust: what a client would see.
pub(super) fn through(settings: &Settings, url: &str) -> anyhow::Result<Vec<Finding>> {
    let proxy: ForwardProxy =
        url.parse().ok().context("--proxy: expected a URL, such as http://proxy.corp:3128")?;
    let proxy = proxy.named_by("--proxy");
    let proxies = Proxies {
        registries: Vec::new(),
        https: Some(proxy.clone()),
        http: Some(proxy),
        exempt: NoProxy::new(std::iter::empty()),
    };
    let options = Options { proxies, connect_to: Vec::new(), ..settings.upstream.clone() };
    let usual = Authority::parse_with_port(USUAL)?;
    let mut findings = ask_all(settings, &options, &[usual])?;
    for finding in &mut findings {
        let found = std::mem::replace(&mut finding.found, Ok(String::new()));
        finding.found = found.map_err(advised);
    }
    Ok(findings)
}

/// A failure as a client should read it.
fn advised(error: anyhow::Error) -> anyhow::Error {
    let is_distrust = error.downcast_ref().is_some_and(UpstreamError::is_distrust);
    error.context(if is_distrust {
        "through the proxy: if its certificate is not trusted, install its /ca.crt on this machine"
    } else {
        "through the proxy"
    })
}

fn ask_all(
    settings: &Settings,
    options: &Options,
    asked: &[Authority],
) -> anyhow::Result<Vec<Finding>> {
    if options.offline {
        let unasked = |authority| Finding::new(subject(authority), Ok(UNASKED.to_owned()));
        return Ok(asked.iter().map(unasked).collect());
    }
    runtime::block_on(async {
        let upstream = Upstream::new(options, Metrics::default())?;
        let asking = asked.iter().map(|authority| ask(settings, &upstream, authority));
        Ok(join_all(asking).await)
    })
}

async fn ask(settings: &Settings, upstream: &Upstream, authority: &Authority) -> Finding {
    let rule = settings.gateway.registry.rules.iter().find(|rule| rule.host.matches(authority));
    let scheme = rule.map_or(Scheme::Https, |rule| rule.scheme);
    let target = Target::of_registry(scheme, authority.clone(), "/v2/");
    let began = Instant::now();
    let (fields, body) = (HeaderMap::new(), RequestBody::Empty);
    let behalf = upstream.behalf_of(&target);
    let sending = Sending::shared(&behalf, Errand::Pull);
    let answer = upstream.send(sending, Method::GET, &target, fields, body).await;
    let found = match answer {
        Ok(answer) => match (judged(&answer, began.elapsed()), rule) {
            (Ok(words), Some(rule)) => {
                logged_in(settings, upstream, rule, &target, answer.headers(), words).await
            }
            (judged, _) => judged,
        },
        Err(error) => Err(error.into()),
    };
    Finding::new(subject(authority), found)
}

/// What is said of a registry that answers, and of the credentials that `rule` has for it.
async fn logged_in(
    settings: &Settings,
    upstream: &Upstream,
    rule: &RegistryRule,
    target: &Target,
    challenge: &HeaderMap,
    words: String,
) -> anyhow::Result<String> {
    let account = Memory::new(settings.shares).budget.account(None);
    Ok(match try_login(upstream, rule, target, challenge, &account).await? {
        Tried::NotWanted => words,
        Tried::Taken(whose) => format!("{words}, and takes {whose}"),
    })
}

fn subject(authority: &Authority) -> String {
    format!("registry {}", Registry::at(authority))
}

/// A registry that wants credentials is one that works.
fn judged(answer: &Response<IdleBody>, took: Duration) -> anyhow::Result<String> {
    let status = answer.status();
    if status.is_server_error() {
        bail!("it answers {status}");
    }
    if let Some(skew) = skew(answer.headers()).filter(|skew| *skew > SKEW) {
        bail!("its clock and this machine's are {} s apart", skew.as_secs());
    }
    Ok(format!("answers {} within {} ms", status.as_u16(), took.as_millis()))
}

fn skew(headers: &HeaderMap) -> Option<Duration> {
    let theirs = http_date(headers.get(header::DATE)?.to_str().ok()?)?;
    let ours = SystemTime::now();
    Some(ours.duration_since(theirs).unwrap_or_else(|error| error.duration()))
}
