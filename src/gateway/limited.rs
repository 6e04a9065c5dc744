//! What a client is told where a registry has had enough of this proxy: whose quota is used up, how
//! much it is, when it is whole again, and what can be done.
//!
//! A registry's own words are about an address or an account that the person who reads them knows
//! nothing of: the proxy's. What a client's own account has used up is told in the registry's words
//! where there are any.

use std::time::{Duration, SystemTime};

use entrepot_oci::{Authority, ErrorCode, ErrorDocument, Registry};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::answer::errors::{error_response, is_own};
use super::answer::passed::tell_quota;
use super::answer::served::Served;
use crate::registry::identity::Identity;
use crate::registry::{Quota, Registries};
use crate::words::utc;

/// How the programs call themselves that are made of containers/image (Podman, Buildah, Skopeo,
/// CRI-O). Told to wait, or not told how long, they wait for minutes without a word and then fail.
const PATIENT: [&str; 6] = ["containers/", "skopeo/", "buildah/", "libpod/", "podman/", "cri-o/"];

/// Who asks, as far as that decides what it is told. Hardly anybody is told anything: it costs no
/// more than to keep what is looked at then.
pub(super) struct Refused {
    identity: Identity,
    program: Option<HeaderValue>,
}

impl Refused {
    /// Who sends these fields.
    pub(super) fn of(registries: &Registries, fields: &HeaderMap) -> Self {
        let program = fields.get(header::USER_AGENT).cloned();
        Self { identity: registries.identify(fields), program }
    }

    fn is_patient(&self) -> bool {
        let program = self.program.as_ref().and_then(|program| program.to_str().ok());
        let program = program.unwrap_or_default().to_ascii_lowercase();
        PATIENT.iter().any(|name| program.starts_with(name))
    }
}

/// Says in a 429 that is about this proxy's own requests what it is about.
pub(super) fn explain(
    registries: &Registries,
    authority: &Authority,
    asker: &Refused,
    served: &mut Served,
) {
    if served.response.status() != StatusCode::TOO_MANY_REQUESTS {
        return;
    }
    let registry = Registry::at(authority);
    let quota = registries.quota(&registry, &asker.identity);
    let quota = quota.filter(|quota| quota.remaining == 0);
    let whose = match asker.identity {
        Identity::Client(_) if !is_own(&served.response) => return,
        Identity::Client(_) => Whose::Client,
        Identity::Shared => Whose::Proxy(registries.account(authority)),
    };
    if let Some(quota) = &quota {
        say(served, used_up(&registry, quota, &whose, SystemTime::now()));
    }
    let fields = served.response.headers_mut();
    // A few seconds are worth the wait.
    let is_long = match fields.get(header::RETRY_AFTER).map(HeaderValue::as_bytes) {
        Some(b"0" | b"1" | b"2" | b"3" | b"4" | b"5") => false,
        Some(_) => true,
        None => quota.is_some(),
    };
    if is_long && asker.is_patient() {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
    }
}

/// Who has used up a quota.
enum Whose {
    /// This proxy, by its account there if it has any.
    Proxy(Option<String>),
    /// The client, by an account of its own.
    Client,
}

/// Puts words of ours in the place of the registry's, whose numbers stay.
fn say(served: &mut Served, message: String) {
    let (status, code) = (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests);
    let own = error_response(&ErrorDocument::new(status, code, message));
    let theirs = std::mem::replace(&mut served.response, own);
    tell_quota(theirs.headers(), served);
    let kept = [header::RETRY_AFTER, header::HeaderName::from_static("cache-status")];
    for name in kept {
        if let Some(value) = theirs.headers().get(&name) {
            served.response.headers_mut().insert(name, value.clone());
        }
    }
}

fn used_up(registry: &Registry, quota: &Quota, whose: &Whose, now: SystemTime) -> String {
    let (owner, cure) = match whose {
        Whose::Proxy(Some(account)) => (
            format!("this proxy's account there ({account})"),
            "; an account with a higher limit in its [[registry]] entry has more",
        ),
        Whose::Proxy(None) => (
            "this proxy, which has no account there,".to_owned(),
            "; an account in a [[registry]] entry (username, password) has more",
        ),
        Whose::Client => ("your account there".to_owned(), ""),
    };
    let window = quota.window_secs.map(|secs| format!(" within {}", span(secs)));
    let amount = quota.limit.map(|limit| {
        let pulls = if limit == 1 { "pull" } else { "pulls" };
        format!(" ({limit} {pulls}{}{})", window.unwrap_or_default(), counted_for(quota, whose))
    });
    let again = quota.whole_again().map(|at| format!("; it is whole again {}", by(at, now)));
    format!(
        "{registry}: the pull quota of {owner} is used up{}{}{cure}",
        amount.unwrap_or_default(),
        again.unwrap_or_default()
    )
}

/// What the registry counts by, where it says so and that is not said already.
fn counted_for(quota: &Quota, whose: &Whose) -> String {
    let source = quota.source.as_deref().filter(|source| {
        let is_plain = source.bytes().all(|byte| byte.is_ascii_graphic());
        !source.is_empty() && is_plain && matches!(whose, Whose::Proxy(None))
    });
    source.map(|source| format!(", counted for {source}")).unwrap_or_default()
}

/// A time in words: `6 h`.
fn span(secs: u64) -> String {
    match secs {
        secs if secs >= 3600 && secs % 3600 == 0 => format!("{} h", secs / 3600),
        secs if secs >= 60 && secs % 60 == 0 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}

fn by(at: SystemTime, now: SystemTime) -> String {
    let left = at.duration_since(now).unwrap_or_default();
    format!("by {}", utc(at.into(), left >= Duration::from_hours(24)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_is_used_up_is_told_with_whose_it_is_and_what_can_be_done() {
        let registry = Registry::at(&"registry-1.docker.io:443".parse().unwrap());
        let told = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let quota = Quota {
            remaining: 0,
            limit: Some(100),
            window_secs: Some(21600),
            source: Some("192.0.2.1".to_owned()),
            told,
        };
        insta::assert_snapshot!(used_up(&registry, &quota, &Whose::Proxy(None), told), @"docker.io: the pull quota of this proxy, which has no account there, is used up (100 pulls within 6 h, counted for 192.0.2.1); it is whole again by 04:13 UTC; an account in a [[registry]] entry (username, password) has more");
        insta::assert_snapshot!(used_up(&registry, &quota, &Whose::Proxy(Some("user proxy".to_owned())), told), @"docker.io: the pull quota of this proxy's account there (user proxy) is used up (100 pulls within 6 h); it is whole again by 04:13 UTC; an account with a higher limit in its [[registry]] entry has more");
        let untold = Quota { limit: None, window_secs: None, source: Some("\r\n".into()), ..quota };
        insta::assert_snapshot!(used_up(&registry, &untold, &Whose::Proxy(None), told), @"docker.io: the pull quota of this proxy, which has no account there, is used up; an account in a [[registry]] entry (username, password) has more");
    }

    #[test]
    fn spans_are_told_in_the_largest_unit_that_fits() {
        assert_eq!([21600, 600, 90].map(span), ["6 h", "10 min", "90 s"]);
    }
}
