//! Requests to the proxy itself: CONNECT, absolute-form, origin-form (RFC 9112 §3.2).

use std::sync::Arc;
use std::time::Instant;

use entrepot_oci::host::HTTP_PORT;
use entrepot_oci::{Authority, ErrorCode, Route};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use super::access::Denial;
use super::answer::{Answer, LoggedBody, bad_request, refusal, refused};
use super::http::Received;
use super::policy::{TunnelRefusal, Verdict};
use super::{PageRequest, Peer, intercept, mirror, tunnel};
use crate::gateway::{ResponseBody, Way};
use crate::log::{Outcome, RequestLine, Subject};
use crate::upstream::reach::AddressRule;

/// Answers one request on a connection to the proxy.
pub(super) async fn answer(peer: &Peer, received: Received) -> Response<LoggedBody> {
    let began = Instant::now();
    let answer = match received {
        Err(unserved) => {
            let (request, unfit) = *unserved;
            let line = peer.line(Outcome::Denied, request.method().clone(), shown(request.uri()));
            Answer::new(refused(&unfit), line.because(Some(unfit.reason.into_owned())))
        }
        Ok(request) => match not_from_an_engine(peer, &request) {
            Some(answer) => answer,
            None => admitted(peer, request).await,
        },
    };
    answer.logged(began, peer)
}

/// Answers a request whose form is as it should be, if its user may use the proxy.
async fn admitted(peer: &Peer, request: Request<Incoming>) -> Answer {
    let known;
    let peer = match user(peer, &request).await {
        Ok(None) => peer,
        Ok(user) => {
            known = Peer { user, ..peer.clone() };
            &known
        }
        Err(answer) => return *answer,
    };
    if request.method() == Method::CONNECT {
        connect(peer, request).await
    } else if is_forwarded(&request) {
        Box::pin(absolute(peer, request)).await
    } else if mirror::is_for(request.uri().path()) {
        Box::pin(mirror::answer(peer, request)).await
    } else {
        origin(peer, &request)
    }
}

/// The answer to a request to the mirror that a web page has brought about, or that is meant for
/// somebody else's name. Before a password is asked for: a browser may remember one.
fn not_from_an_engine(peer: &Peer, request: &Request<Incoming>) -> Option<Answer> {
    let is_for_mirror = request.method() != Method::CONNECT
        && !is_forwarded(request)
        && mirror::is_for(request.uri().path());
    if !is_for_mirror {
        return None;
    }
    let foreign = peer.shared.names.load().check(request.headers()).err()?;
    let line = peer.line(Outcome::Denied, request.method().clone(), shown(request.uri()));
    let reason = foreign.to_string();
    let mut response = refusal(StatusCode::FORBIDDEN, ErrorCode::Denied, &reason);
    // There may be a body, which nobody here reads.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Some(Answer::new(response, line.because(Some(reason))))
}

fn is_forwarded(request: &Request<Incoming>) -> bool {
    request.uri().scheme().is_some()
}

/// Answers a client that is in none of the networks of `access.clients`. A probe is no use of the
/// proxy: the one of the container itself comes from loopback, others from wherever.
pub(super) fn turn_away(peer: &Peer, received: Received) -> Response<LoggedBody> {
    let began = Instant::now();
    let request = match received {
        Ok(request) if !is_forwarded(&request) && request.uri().path() == "/healthz" => {
            return origin(peer, &request).logged(began, peer);
        }
        Ok(request) => request,
        Err(unserved) => unserved.0,
    };
    let line = peer.line(Outcome::Denied, request.method().clone(), shown(request.uri()));
    let reason = format!("{} may not use this proxy (access.clients)", peer.client.ip());
    let mut response = refusal(StatusCode::FORBIDDEN, ErrorCode::Denied, &reason);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    Answer::new(response, line.because(Some(reason))).logged(began, peer)
}

/// Answers a client for whom there is no place: a probe is told how the proxy is, everybody else to
/// come again.
pub(super) fn put_off(peer: &Peer, received: Received) -> Response<LoggedBody> {
    let began = Instant::now();
    let answer = match received {
        Ok(request) if !is_forwarded(&request) && request.uri().path() == "/healthz" => {
            origin(peer, &request)
        }
        Ok(request) => put_off_line(peer, &request),
        Err(unserved) => put_off_line(peer, &unserved.0),
    };
    let mut response = answer.logged(began, peer);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn put_off_line(peer: &Peer, request: &Request<Incoming>) -> Answer {
    const REASON: &str = "too many connections are at work here, all in all or of this client";
    let line = peer.line(Outcome::Denied, request.method().clone(), shown(request.uri()));
    let code = ErrorCode::TooManyRequests;
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, code, REASON);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Answer::new(response, line.because(Some(REASON.to_owned())))
}

/// Which user of the proxy a request is from, where users are asked for, or the answer to somebody
/// who is none.
///
/// The pages by which clients are set up are everybody's. Whatever else there is in origin form
/// takes the proxy for an origin, which asks by 401 (RFC 9110 §11.6).
async fn user(peer: &Peer, request: &Request<Incoming>) -> Result<Option<Arc<str>>, Box<Answer>> {
    let access = peer.shared.access.load_full();
    let client = peer.client.ip();
    let is_direct = request.method() != Method::CONNECT && !is_forwarded(request);
    let checked = if !is_direct {
        access.check(client, request.headers()).await
    } else if is_page(request.uri().path()) {
        Ok(None)
    } else {
        access.check_direct(client, request.headers()).await
    };
    let denial = match checked {
        Ok(user) => return Ok(user),
        Err(denial) => denial,
    };
    let line = peer.line(Outcome::Denied, request.method().clone(), shown(request.uri()));
    let response = denied_user(denial, is_direct);
    Err(Box::new(Answer::new(response, line.because(Some(denial.to_string())))))
}

/// The pages that ask for no user.
fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/ca.crt" | "/healthz" | "/check")
        || path.starts_with("/setup/")
        || path.starts_with("/check/")
}

fn denied_user(denial: Denial, is_direct: bool) -> Response<ResponseBody> {
    const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"entrepot\"");
    let reason = denial.to_string();
    let (status, challenge) = match denial {
        Denial::Busy => {
            let code = ErrorCode::TooManyRequests;
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, code, &reason);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        Denial::Missing | Denial::Wrong if is_direct => {
            (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE)
        }
        Denial::Missing | Denial::Wrong => {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, header::PROXY_AUTHENTICATE)
        }
    };
    let mut response = refusal(status, ErrorCode::Denied, &reason);
    response.headers_mut().insert(challenge, BASIC);
    response
}

async fn connect(peer: &Peer, request: Request<Incoming>) -> Answer {
    let authority = match connect_authority(&request) {
        Ok(authority) => authority,
        Err(reason) => {
            let line = peer.line(Outcome::Denied, Method::CONNECT, shown(request.uri()));
            return Answer::new(bad_request(&reason), line);
        }
    };
    let subject = Subject::Other(authority.to_string());
    let line = peer.line(Outcome::Tunnel, Method::CONNECT, subject);
    match peer.shared.policy.verdict(&authority, entrepot_oci::host::HTTPS_PORT) {
        Verdict::Deny(reason) => {
            Answer::new(denied(&authority, reason), line.with(Outcome::Denied))
        }
        Verdict::Intercept => {
            intercept::spawn(peer, hyper::upgrade::on(request), authority, line);
            Answer::silent(established())
        }
        Verdict::Tunnel(rule) => through(peer, request, &authority, rule, line).await,
    }
}

/// "A server MUST reject a CONNECT request that targets an empty or invalid port number" (RFC 9110
/// §9.3.6); and its target is `host:port`, nothing more, with no body behind it. One that says so
/// itself, by a length of nothing, is taken at its word. `Host` ends here, and says nothing that
/// the target does not: some clients name this proxy in it.
fn connect_authority(request: &Request<Incoming>) -> Result<Authority, String> {
    let uri = request.uri();
    let target =
        uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    let Some(target) = target else {
        return Err("CONNECT needs a target of the form host:port".to_owned());
    };
    let fields = request.headers();
    let of_a_body = [header::TRANSFER_ENCODING, header::EXPECT];
    let lengths = fields.get_all(header::CONTENT_LENGTH);
    if of_a_body.iter().any(|name| fields.contains_key(name))
        || lengths.iter().any(|length| length != "0")
    {
        return Err("CONNECT has no body".to_owned());
    }
    Authority::parse_with_port(target.as_str()).map_err(|error| format!("CONNECT: {error}"))
}

fn denied(authority: &Authority, reason: TunnelRefusal) -> Response<ResponseBody> {
    let reason = format!("{authority} is refused: {reason}");
    refusal(StatusCode::FORBIDDEN, ErrorCode::Denied, &reason)
}

fn established() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    if let Ok(phrase) = hyper::ext::ReasonPhrase::try_from("Connection established".to_owned()) {
        response.extensions_mut().insert(phrase);
    }
    response
}

async fn through(
    peer: &Peer,
    request: Request<Incoming>,
    authority: &Authority,
    rule: AddressRule,
    line: RequestLine,
) -> Answer {
    match peer.shared.services.dialer.connect(authority, rule, request.headers()).await {
        Ok(far) => {
            tunnel::spawn(peer, hyper::upgrade::on(request), far, line);
            Answer::silent(established())
        }
        Err(error) => {
            let (outcome, response) = tunnel::failed(&error);
            Answer::new(response, line.with(outcome))
        }
    }
}

/// The plain-HTTP forward proxy: "the proxy MUST ignore the received Host header field (if any) and
/// instead replace it with the host information of the request-target" (RFC 9112 §3.2.2).
async fn absolute(peer: &Peer, request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let authority = match absolute_authority(request.uri()) {
        Ok(authority) => authority,
        Err(reason) => {
            let line = peer.line(Outcome::Denied, method, shown(request.uri()));
            return Answer::new(bad_request(reason), line);
        }
    };
    let gateway = &peer.shared.services.gateway;
    let authority = peer.shared.policy.canonical(authority);
    let asker = peer.asker(&request);
    let mut asking = None;
    let (served, subject) = match peer.shared.policy.verdict(&authority, HTTP_PORT) {
        Verdict::Intercept => {
            let route = Route::parse(request.uri().path(), request.uri().query());
            let way = Way::of(&authority, request.uri());
            asking = peer.asks(&authority, &route, &request).1;
            gateway.respond(&authority, route, way, request).await
        }
        Verdict::Tunnel(_) => {
            let subject = Subject::Other(format!("{authority}{}", request.uri().path()));
            (gateway.forward(authority, request).await, subject)
        }
        Verdict::Deny(reason) => {
            let line = peer.line(Outcome::Denied, method, Subject::Other(authority.to_string()));
            return Answer::new(denied(&authority, reason), line);
        }
    };
    let line = peer.line(served.outcome(), method, subject).because(served.reason());
    let line = line.from_program(asker.user_agent).from_replica(asker.is_replica);
    Answer::new(served.response, line).to(asking)
}

fn absolute_authority(uri: &Uri) -> Result<Authority, &'static str> {
    if uri.scheme() != Some(&http::uri::Scheme::HTTP) {
        return Err("only http:// URLs are forwarded; https goes through CONNECT");
    }
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    Authority::parse(authority, HTTP_PORT).map_err(|_| "the URL names no valid host")
}

/// The proxy's own pages.
fn origin(peer: &Peer, request: &Request<Incoming>) -> Answer {
    let uri = request.uri();
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let response = peer.shared.services.pages.page(&PageRequest {
        method: request.method(),
        path: uri.path(),
        query: uri.query(),
        host: field(header::HOST),
        accept: field(header::ACCEPT),
        client: peer.client.ip(),
    });
    if !response.status().is_client_error() {
        // Probes ask every few seconds; they would bury the requests that matter.
        return Answer::silent(response);
    }
    Answer::new(response, peer.line(Outcome::Denied, request.method().clone(), shown(uri)))
}

/// A target for the log: without its query, which may be a secret.
fn shown(uri: &Uri) -> Subject {
    let authority = uri.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit('@').next().unwrap_or(text)
    });
    Subject::Other(format!("{}{}", authority.unwrap_or_default(), uri.path()))
}
