//! What fuzz targets feed: a client's connection, the mirror's targets, credentials, the file of
//! users.
//!
//! A target for whatever else reads what a client sends first takes its function here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use bytes::Bytes;
use entrepot_oci::{Authority, Route};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::access::Htpasswd;
use super::access::passwords::Credential;
use super::http::{Received, serve};
use super::places::{PlaceCount, Places, Whose};
use super::policy::Policy;
use super::{mirror, proxy_protocol, request};
use crate::memory::{Memory, Shares};

/// A request that came to its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Its method and its target.
    pub asked: String,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its body; none where it broke off.
    pub body: Option<Bytes>,
}

/// A connection's requests that were fit to be served, in their order, and the statuses of those
/// that were not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Those that were served.
    pub served: Vec<Arrived>,
    /// What the others were answered.
    pub refused: Vec<u16>,
}

/// Serves what comes on `stream` until it ends, with a short answer to each request.
pub async fn converse<T>(stream: T) -> Conversation
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    const SILENCE: Duration = Duration::from_secs(1);
    let told = Arc::new(Mutex::new(Conversation::default()));
    let service = |received: Received| {
        let told = told.clone();
        async move { answer(&told, received).await }
    };
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let account = Memory::new(Shares::new(Some(0))).budget.account(None);
    let Some(place) = Places::new(PlaceCount::within(None)).take(Whose::at(client)) else {
        return Conversation::default();
    };
    let (place, shutdown) = (Arc::new(place), CancellationToken::new());
    serve(stream, &place, client, account, SILENCE, &shutdown, service).await;
    std::mem::take(&mut told.lock())
}

async fn answer(told: &Mutex<Conversation>, received: Received) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    match received {
        Ok(request) => {
            let (head, body) = request.into_parts();
            let (asked, fields) = (format!("{} {}", head.method, head.uri), head.headers);
            // On record before the body, which may never end.
            let number = told.lock().served.len();
            told.lock().served.push(Arrived { asked, fields, body: None });
            let body = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
            if let Some(arrived) = told.lock().served.get_mut(number) {
                arrived.body = body;
            }
        }
        Err(refused) => {
            *response.status_mut() = refused.1.status;
            told.lock().refused.push(refused.1.status.as_u16());
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(::http::header::CONNECTION, close);
        }
    }
    response
}

/// Whether a request is fit to be served as far as that can be told from the request alone.
#[must_use]
pub fn is_fit(request: &Request<()>) -> bool {
    request::check(request).is_ok()
}

/// What a target in origin form comes to at a mirror: the registry, what is asked of it, and the
/// same as the client would be led back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// The registry.
    pub authority: Authority,
    /// What is asked.
    pub route: Route,
    /// Path and query as the registry knows them.
    pub target: String,
    /// The address of that by the client's own door.
    pub back: String,
}

/// Reads such a target, where `intercept` names the registries.
#[must_use]
pub fn mirrored(intercept: &[&str], uri: &Uri) -> Option<Mirrored> {
    let intercept = intercept.iter().filter_map(|host| host.parse().ok()).collect();
    let policy = Policy { intercept, ..Policy::default() };
    let asked = mirror::parse(&policy, &Method::GET, uri).ok()?;
    let back = asked.way().address(&asked.target);
    let mirror::MirrorRequest { authority, route, target, .. } = asked;
    Some(Mirrored { authority, route, target, back })
}

/// The name and the password in a field of Basic authentication.
#[must_use]
pub fn basic(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let credential = Credential::parse(value)?;
    let (name, password) = credential.parts();
    Some((name.to_vec(), password.to_vec()))
}

/// The users of a file with this text by their number; else the wrong lines.
pub fn users(text: &str) -> Result<String, Vec<(usize, String)>> {
    Htpasswd::parse(text)
        .map(|users| format!("{users:?}"))
        .map_err(|wrong| wrong.into_iter().map(|wrong| (wrong.line, wrong.text)).collect())
}

/// Whose connection it is by the header that a load balancer's connection begins with, if that
/// says, and what has been read behind it; `None` where there is no such header.
pub async fn proxy_header<T: AsyncRead + Unpin>(
    mut stream: T,
) -> Option<(Option<SocketAddr>, Bytes)> {
    proxy_protocol::read(&mut stream).await.ok()
}
