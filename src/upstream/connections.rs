//! Whose connections a request goes by.
//!
//! Most requests share a pool: what comes on a connection before or after another makes no
//! difference. Where it may make one they are kept apart:
//!
//! - what shows the operator's certificate goes by connections of its own kind, and nothing else
//!   does (a certificate is shown once for all requests of a connection);
//! - a request with a body, which its server may not have read to the end that we see, and one by
//!   which a server may take the whole connection for somebody (NTLM, Negotiate), goes by a
//!   connection that nobody else ever uses. One tunnel's client may use it again: a push sends a
//!   layer in pieces, and such a login takes three messages.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::body::SentBody;
use super::client::{Errand, Target};
use super::connector::Connector;
use super::link::Dialer;
use super::reach::Exemptions;
use super::trust::Certificate;

/// What of a host's answer is read at a time, and the longest head that is taken: a client that
/// does not read holds as much for each answer that is passed on to it.
const BUFFER: usize = 64 * 1024;
/// Idle connections kept to one host: a pull opens a handful at a time.
const MAX_IDLE_PER_HOST: usize = 32;
/// How long one is kept: registries and CDNs close theirs after 60 s or more.
const KEEP_IDLE: Duration = Duration::from_secs(50);
/// Schemes by which a server may take a connection for somebody, rather than a request.
const OF_CONNECTIONS: [&str; 3] = ["ntlm", "negotiate", "kerberos"];
/// Schemes of which it is known that each request has to say it again.
const OF_REQUESTS: [&str; 2] = ["basic", "bearer"];

/// A pool of connections.
pub(super) type Pool = legacy::Client<Connector, SentBody>;

/// The connections that requests share, or don't; cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    shared: Pool,
    identified: Pool,
    single: Pool,
    /// Makes those that show nothing.
    connector: Connector,
}

/// The connections to upstreams that one tunnel's client has for itself; they end with it. Cheap to
/// clone.
#[derive(Clone, Default)]
pub(crate) struct OwnConnections(Arc<Mutex<Option<(Use, Target, Pool)>>>);

/// What makes a connection one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A body has gone by it.
    Body,
    /// A server may know it.
    Login,
}

/// By which connections a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those of all.
    Shared,
    /// Those that show the operator's certificate.
    Identified,
    /// One of its own.
    Own(Use),
}

impl Connections {
    /// Connections that `dialer` makes.
    pub(super) fn new(dialer: &Dialer, exemptions: &Exemptions) -> Self {
        let connector = |shown| Connector::new(dialer.clone(), exemptions.clone(), shown);
        let plain = connector(Certificate::Withheld);
        Self {
            shared: pool(plain.clone(), MAX_IDLE_PER_HOST),
            identified: pool(connector(Certificate::Shown), MAX_IDLE_PER_HOST),
            // Without room for an idle one, none is looked for either.
            single: pool(plain.clone(), 0),
            connector: plain,
        }
    }

    /// Who makes its connections.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// By which connections a request goes with these fields, and a body or not.
    pub(super) fn lane(
        &self,
        errand: Errand,
        target: &Target,
        headers: &HeaderMap,
        has_body: bool,
    ) -> Lane {
        if may_log_a_connection_in(headers) {
            Lane::Own(Use::Login)
        } else if has_body {
            Lane::Own(Use::Body)
        } else if errand == Errand::Pull && self.connector.has_certificate_for(target) {
            Lane::Identified
        } else {
            Lane::Shared
        }
    }

    /// The connections of a lane towards `target`; those of its client's tunnel, if it has `own`.
    pub(super) fn of(&self, lane: Lane, target: &Target, own: Option<&OwnConnections>) -> Pool {
        match (lane, own) {
            (Lane::Shared, _) => self.shared.clone(),
            (Lane::Identified, _) => self.identified.clone(),
            (Lane::Own(_), None) => self.single.clone(),
            (Lane::Own(purpose), Some(own)) => own.towards(purpose, target, &self.connector),
        }
    }
}

impl OwnConnections {
    /// The one connection that is kept is to the place that was asked last, for the same use.
    fn towards(&self, purpose: Use, target: &Target, connector: &Connector) -> Pool {
        let mut kept = self.0.lock();
        if let Some((its_purpose, place, pool)) = &*kept
            && *its_purpose == purpose
            && place.is_beside(target)
        {
            return pool.clone();
        }
        let pool = pool(connector.clone(), 1);
        *kept = Some((purpose, target.at(""), pool.clone()));
        pool
    }
}

fn pool(connector: Connector, most_idle: usize) -> Pool {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP_IDLE)
        .pool_max_idle_per_host(most_idle)
        .http1_max_buf_size(BUFFER)
        .build(connector)
}

/// Whether a server may take the connection of a request with these fields for somebody from then
/// on: `Authorization` has a scheme of which the contrary is not known. NTLM does so, and Negotiate
/// (RFC 4559) where a server likes; what comes by such a connection has to be one client's.
#[must_use]
pub(crate) fn may_log_a_connection_in(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| !has_scheme(value, &OF_REQUESTS))
}

/// Whether an answer offers to log its connection in, or goes on doing so.
pub(super) fn offers_to_log_a_connection_in(headers: &HeaderMap) -> bool {
    let of_connections = |value: &HeaderValue| {
        let mut challenges = value.as_bytes().split(|byte| *byte == b',');
        challenges.any(|challenge| begins_with(challenge.trim_ascii(), &OF_CONNECTIONS))
    };
    let fields = [header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE];
    let mut values = fields.iter().flat_map(|name| headers.get_all(name));
    headers.contains_key("persistent-auth") || values.any(of_connections)
}

fn has_scheme(value: &HeaderValue, schemes: &[&str]) -> bool {
    begins_with(value.as_bytes().trim_ascii(), schemes)
}

/// Whether the first word is one of these.
fn begins_with(text: &[u8], words: &[&str]) -> bool {
    let first = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    words.iter().any(|word| first.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &header::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().fold(HeaderMap::new(), |mut map, value| {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
            map
        })
    }

    #[test]
    fn a_login_of_a_connection_is_whatever_is_not_known_to_be_one_of_a_request() {
        let is_one =
            |values: &[&str]| may_log_a_connection_in(&with(&header::AUTHORIZATION, values));
        for harmless in [&[][..], &["Basic eA=="], &["bearer x"], &["BASIC x", "Bearer y"]] {
            assert!(!is_one(harmless), "{harmless:?}");
        }
        for login in [
            &["NTLM TlRMTVNTUAAB"][..],
            &["Negotiate YII"],
            &["negotiate\tYII"],
            &["Kerberos x"],
            &["Basic x", "NTLM y"],
            &["Something else"],
            &["Basicx"],
            &[""],
        ] {
            assert!(is_one(login), "{login:?}");
        }
    }

    #[test]
    fn an_offer_of_such_a_login_is_known_among_others() {
        let offers = |values: &[&str]| {
            offers_to_log_a_connection_in(&with(&header::WWW_AUTHENTICATE, values))
        };
        assert!(offers(&["NTLM"]));
        assert!(offers(&["Basic realm=\"x\", Negotiate"]));
        assert!(offers(&["Basic realm=\"x\"", "ntlm TlRM"]));
        assert!(!offers(&["Basic realm=\"ntlm\"", "Bearer realm=\"https://x/\""]));
        assert!(!offers(&[]));
    }
}
