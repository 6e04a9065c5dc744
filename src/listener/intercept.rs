//! The inside of an intercepted tunnel.

use std::sync::Arc;
use std::time::Instant;

use entrepot_oci::{Authority, ErrorCode, Host, Route};
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::{Answer, LoggedBody, bad_request, refusal, refused};
use super::http::Received;
use super::stream::{ClientStream, Rewound};
use super::tls::HANDSHAKE_TIMEOUT;
use super::{Peer, http as connection, is_same, tunnel};
use crate::gateway::{ResponseBody, Way};
use crate::log::{Outcome, RequestLine, Subject};
use crate::upstream::{OwnConnections, Scheme};
use crate::words::of_io;

/// The client's connection under the intercepted TLS.
type Inner = Rewound<ClientStream>;

/// Ends the client's TLS here once it has its 200, and serves the requests inside.
pub(super) fn spawn(peer: &Peer, upgrade: OnUpgrade, authority: Authority, line: RequestLine) {
    let peer = peer.clone();
    let tasks = peer.shared.services.tasks.clone();
    tasks.spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tunnel::never_opened(&peer, line, &error),
        };
        let Some(stream) = connection::unwrapped(upgraded) else {
            return;
        };
        let place = peer.place.clone();
        tokio::select! {
            () = within(peer, authority, stream, line) => {}
            () = place.given_up() => tracing::debug!("an idle connection has made room"),
        }
    });
}

/// The handshake, and what comes after.
async fn within(peer: Peer, authority: Authority, stream: Inner, line: RequestLine) {
    peer.place.lies_idle();
    match handshake(&peer, &authority, stream).await {
        Ok(tls) => serve(peer, authority, tls).await,
        Err(reason) => {
            peer.finish(line.with(Outcome::Error).because(Some(reason)));
        }
    }
}

async fn handshake(
    peer: &Peer,
    authority: &Authority,
    stream: Inner,
) -> Result<Box<TlsStream<Inner>>, String> {
    let settings = peer.shared.tls.for_host(authority.host()).map_err(|error| error.to_string())?;
    // On the heap, as its outcome: the task keeps the room of its largest part for as long as the
    // connection lasts.
    let accepting = Box::pin(TlsAcceptor::from(settings).accept(stream));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await {
        Ok(Ok(tls)) => Ok(Box::new(tls)),
        Ok(Err(error)) => Err(handshake_failure(&error)),
        Err(_) => Err("the client did not finish the TLS handshake in time".to_owned()),
    }
}

/// A failed handshake in words: by far the most common one is a client without our CA.
fn handshake_failure(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(alert)) if is_distrust(*alert) => format!(
            "the client does not trust this proxy's CA ({alert:?}): install /ca.crt there and restart the engine"
        ),
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "the client sent plain HTTP where TLS was expected".to_owned()
        }
        _ => format!("TLS handshake with the client: {}", of_io(error)),
    }
}

fn is_distrust(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(alert, Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown)
}

async fn serve(peer: Peer, authority: Authority, tls: Box<TlsStream<Inner>>) {
    let named = tls.get_ref().1.server_name().map(str::to_owned);
    let misdirected = named.filter(|name| !is_for(authority.host(), name));
    let shutdown = peer.shared.services.shutdown.clone();
    let own = OwnConnections::default();
    let context = Arc::new(Context { peer, authority, misdirected, own });
    let (client, account) = (context.peer.client.ip(), context.peer.account.clone());
    let place = context.peer.place.clone();
    connection::serve(tls, &place, client, account, connection::SILENCE, &shutdown, |request| {
        let context = context.clone();
        async move { context.answer(request).await }
    })
    .await;
}

fn is_for(host: &Host, server_name: &str) -> bool {
    server_name.parse::<Host>().is_ok_and(|named| named == *host)
}

struct Context {
    peer: Peer,
    authority: Authority,
    misdirected: Option<String>,
    /// Connections to the registry that nobody else uses.
    own: OwnConnections,
}

impl Context {
    async fn answer(&self, received: Received) -> Response<LoggedBody> {
        let began = Instant::now();
        let mut request = match received {
            Ok(request) => request,
            Err(unserved) => {
                let (request, unfit) = *unserved;
                let line = self.denied(request.method()).because(Some(unfit.reason.to_string()));
                return Answer::new(refused(&unfit), line).logged(began, &self.peer);
            }
        };
        if let Some(response) = self.refused(&request) {
            return Answer::new(response, self.denied(request.method())).logged(began, &self.peer);
        }
        request.extensions_mut().insert(self.own.clone());
        let method = request.method().clone();
        let route = Route::parse(request.uri().path(), request.uri().query());
        let (asker, asking) = self.peer.asks(&self.authority, &route, &request);
        let way = Way::new(&self.authority, Scheme::Https);
        let gateway = &self.peer.shared.services.gateway;
        // On the heap: the connection keeps the room of its answer's future while it lies idle.
        let (served, subject) =
            Box::pin(gateway.respond(&self.authority, route, way, request)).await;
        let line = self.peer.line(served.outcome(), method, subject).because(served.reason());
        let line = line.from_program(asker.user_agent).from_replica(asker.is_replica);
        Answer::new(served.response, line).to(asking).logged(began, &self.peer)
    }

    fn denied(&self, method: &Method) -> RequestLine {
        let subject = Subject::Other(self.authority.to_string());
        self.peer.line(Outcome::Denied, method.clone(), subject)
    }

    /// 421: "the request was directed at a server that is unable or unwilling to produce an
    /// authoritative response for the target URI" (RFC 9110 §15.5.20); this tunnel is for one
    /// authority alone.
    fn refused(&self, request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
        if request.method() == Method::CONNECT {
            return Some(bad_request("CONNECT inside an intercepted tunnel"));
        }
        if let Some(named) = &self.misdirected {
            return Some(self.misdirected(&format!("the TLS server name {named:?}")));
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Some(bad_request("a request needs exactly one Host"));
        };
        let Ok(host) = host.to_str() else {
            return Some(bad_request("the Host is not text"));
        };
        if !is_same(&self.authority, host) {
            return Some(self.misdirected(&format!("the Host {host:?}")));
        }
        let uri = request.uri();
        if !uri.path().starts_with('/') {
            return Some(bad_request("the request target is no path"));
        }
        if uri.scheme().is_some_and(|scheme| *scheme != http::uri::Scheme::HTTPS) {
            return Some(bad_request("the scheme inside TLS is https"));
        }
        let foreign = uri.authority().filter(|asked| !is_same(&self.authority, asked.as_str()));
        foreign.map(|asked| self.misdirected(&format!("the request target {:?}", asked.as_str())))
    }

    fn misdirected(&self, what: &str) -> Response<ResponseBody> {
        let reason = format!("{what} is not {}, which this tunnel is for", self.authority);
        let mut response =
            refusal(StatusCode::MISDIRECTED_REQUEST, ErrorCode::Unsupported, &reason);
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        response
    }
}
