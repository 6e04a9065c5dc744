//! What fuzz targets feed: a registry's answer as it comes over the wire, redirects, addresses, the
//! operator's words for proxies and destinations.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Authority, Route};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::body::IdleBody;
use super::client::check_coding;
use super::proxy::ForwardProxy;
use super::redirect::{self, Hop};
use super::{ConnectTo, Scheme, Target, reach};
use crate::memory::{Memory, Shares};
use crate::metrics::Metrics;

/// The target that a URL is, as a registry that the operator has named.
#[must_use]
pub(crate) fn target_of(url: &str) -> Option<Target> {
    let url = Url::parse(url).ok()?;
    let scheme = if url.scheme() == "http" { Scheme::Http } else { Scheme::Https };
    let from = Target::as_named(scheme, "any.invalid:443".parse().ok()?, "");
    let named = redirect::target(&from, &url).ok()?;
    Some(Target::of_registry(named.scheme, named.authority, named.path_and_query))
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Led {
    /// It is none.
    Nowhere,
    /// Not followed.
    Refused,
    /// To the same host, with credentials.
    SameHost(String),
    /// To storage elsewhere, without.
    Storage(String),
    /// To another registry.
    OtherRegistry(String, Route),
}

/// Where a redirect leads that came from the URL `from`; `None` where that is none.
#[must_use]
pub fn redirect(from: &str, status: StatusCode, fields: &HeaderMap) -> Option<Led> {
    let hop = redirect::hop(&target_of(from)?, status, fields);
    Some(match hop {
        Err(_) => Led::Refused,
        Ok(None) => Led::Nowhere,
        Ok(Some(Hop::SameHost(to))) => Led::SameHost(to.to_string()),
        Ok(Some(Hop::Storage(to))) => Led::Storage(to.to_string()),
        Ok(Some(Hop::OtherRegistry(to, route))) => Led::OtherRegistry(to.to_string(), route),
    })
}

/// Asks on `stream` as a registry is asked, and reads the answer to its end: no more than `most`
/// bytes of the body, which is an error where there are more.
pub async fn ask<T>(
    stream: T,
    request: Request<Empty<Bytes>>,
    most: usize,
) -> Option<Response<Result<Bytes, String>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    const SILENCE: Duration = Duration::from_secs(1);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let authority: Authority = "registry.example:443".parse().ok()?;
        check_coding(&authority, response.headers()).ok()?;
        let (head, body) = response.into_parts();
        let account = Memory::new(Shares::new(Some(0))).budget.account(None);
        let counters = Metrics::default().asking_others("registry.example");
        let body = IdleBody::new(body, SILENCE, counters).whole(most, &account).await;
        Some(Response::from_parts(head, body.map_err(|error| error.to_string())))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// Whether an address is one of the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    reach::is_public(address)
}

/// A proxy's URL as it is shown, with its authority; `None` where it is none.
#[must_use]
pub fn proxy(url: &str) -> Option<(String, Authority)> {
    let proxy: ForwardProxy = url.parse().ok()?;
    Some((format!("{proxy} {proxy:?} {}", proxy.url()), proxy.authority().clone()))
}

/// Where `connect-to` of this text leads a connection to `authority`.
#[must_use]
pub fn connected_to(text: &str, authority: &Authority) -> Option<Authority> {
    text.parse::<ConnectTo>().ok()?.apply(authority)
}
