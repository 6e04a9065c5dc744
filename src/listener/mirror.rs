//! `/v2/…` in origin form: the same registries, for clients that prefer a mirror to a proxy.
//!
//! Three ways to say which registry is meant: `?ns=<registry>` ("Registry Proxying" of the OCI
//! distribution specification, as containerd asks), the first part of the path
//! (`/v2/ghcr.io/org/app/…`), or neither, which is the Hub (Docker's `registry-mirrors`).
//!
//! A request here acts as the proxy itself: whatever `Authorization` it has was for the proxy and
//! ends here, and so does a registry's wish for one.

use entrepot_oci::host::HTTPS_PORT;
use entrepot_oci::{Authority, ErrorCode, Registry, Route};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use url::form_urlencoded;

use super::Peer;
use super::answer::{Answer, refusal};
use super::policy::Policy;
use crate::gateway::{Provenance, Reason, ResponseBody, Served, Way};
use crate::log::{Outcome, Subject};

/// The registry of a request that names none.
const HUB: &str = "registry-1.docker.io:443";
/// Where the Hub keeps the images whose names have one part.
const HUB_LIBRARY: &str = "library";

/// Whether a path is the mirror's.
pub(super) fn is_for(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// What a request asks for, and of whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MirrorRequest {
    pub(super) authority: Authority,
    /// The value of `ns`, parsed.
    namespace: Option<Authority>,
    /// What stands before the repository in the path, with its slash.
    prefix: String,
    pub(super) route: Route,
    /// Path and query as the registry knows them.
    pub(super) target: String,
}

impl MirrorRequest {
    /// How the client comes back to the same registry.
    pub(super) fn way(&self) -> Way {
        let namespace = self.namespace.as_ref().map(|name| name.to_host_field(HTTPS_PORT));
        Way::mirror(&self.authority, namespace, &self.prefix)
    }
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(StatusCode, ErrorCode, String);

/// Answers a request for the mirror.
pub(super) async fn answer(peer: &Peer, mut request: Request<Incoming>) -> Answer {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    if let Some(response) = welcome(&method, &path) {
        return Answer::silent(response);
    }
    let asked = match parse(&peer.shared.policy, &method, request.uri()) {
        Ok(asked) => asked,
        Err(Refused(status, code, reason)) => {
            let line = peer.line(Outcome::Denied, method, Subject::Other(path));
            let mut response = refusal(status, code, &reason);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                let fields = response.headers_mut();
                fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                // There may be a body, which nobody here reads.
                fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return Answer::new(response, line.because(Some(reason)));
        }
    };
    // What was for the proxy is nothing to a registry.
    for name in [header::AUTHORIZATION, header::COOKIE] {
        request.headers_mut().remove(name);
    }
    let Ok(uri) = asked.target.parse() else {
        let line = peer.line(Outcome::Denied, method, Subject::Other(path));
        return Answer::new(not_found(), line);
    };
    *request.uri_mut() = uri;
    let way = asked.way();
    let (client, asking) = peer.asks(&asked.authority, &asked.route, &request);
    let gateway = &peer.shared.services.gateway;
    let (served, subject) =
        gateway.respond(&asked.authority, asked.route.clone(), way, request).await;
    let served = as_a_mirror(&asked, served);
    let line = peer.line(served.outcome(), method, subject).because(served.reason());
    let line = line.from_program(client.user_agent).from_replica(client.is_replica);
    Answer::new(served.response, line).to(asking)
}

/// The ping, which needs no registry: "200 OK" says that this is one.
fn welcome(method: &Method, path: &str) -> Option<Response<ResponseBody>> {
    if !matches!(path, "/v2" | "/v2/") || !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = Response::new(ResponseBody::full("{}"));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    Some(response)
}

/// Reads a target.
pub(super) fn parse(policy: &Policy, method: &Method, uri: &Uri) -> Result<MirrorRequest, Refused> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let reason = "a mirror is for pulls: push to the registry itself".to_owned();
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, reason));
    }
    let (namespace, query) = split_namespace(uri.query())?;
    let rest = uri.path().strip_prefix("/v2/").unwrap_or_default();
    let (authority, prefix) = registry(policy, namespace.as_ref(), rest);
    let authority = policy.canonical(authority.ok_or_else(unknown)?);
    if !policy.intercepts(&authority) {
        let name = authority.to_host_field(HTTPS_PORT);
        let reason = format!("{name} is not mirrored here: add it to intercept-also");
        return Err(Refused(StatusCode::FORBIDDEN, ErrorCode::Denied, reason));
    }
    let rest = rest.get(prefix.len()..).unwrap_or_default();
    let (route, target) = pull(&authority, rest, query.as_deref())?;
    Ok(MirrorRequest { authority, namespace, prefix: prefix.to_owned(), route, target })
}

/// Takes `ns` out of a query, since the registry it names has no use for it.
fn split_namespace(query: Option<&str>) -> Result<(Option<Authority>, Option<String>), Refused> {
    let bad =
        |reason: &str| Refused(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, reason.to_owned());
    let is_namespace = |part: &&str| *part == "ns" || part.starts_with("ns=");
    let parts = || query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let mut named = parts().filter(is_namespace);
    let namespace = match (named.next(), named.next()) {
        (None, _) => None,
        (Some(part), None) => {
            let name = form_urlencoded::parse(part.as_bytes()).next();
            let name = name.map(|(_, value)| value.into_owned()).unwrap_or_default();
            let authority = Authority::parse(&name, HTTPS_PORT);
            Some(authority.map_err(|_| bad("ns must be a registry: host[:port]"))?)
        }
        (Some(_), Some(_)) => return Err(bad("ns may be given once")),
    };
    let rest: Vec<_> = parts().filter(|part| !is_namespace(part)).collect();
    Ok((namespace, (!rest.is_empty()).then(|| rest.join("&"))))
}

/// The registry that is meant, and the part of the path that names it.
fn registry<'p>(
    policy: &Policy,
    namespace: Option<&Authority>,
    rest: &'p str,
) -> (Option<Authority>, &'p str) {
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    let named = Authority::parse(first, HTTPS_PORT).ok();
    let prefix = rest.get(..first.len() + 1).filter(|_| !after.is_empty()).unwrap_or_default();
    match namespace {
        // containerd adds `ns` to a path that names the registry as well.
        Some(namespace) if named.as_ref() == Some(namespace) => (named, prefix),
        Some(namespace) => (Some(namespace.clone()), ""),
        None if first.contains(['.', ':']) => (named, prefix),
        None => match named.filter(|named| policy.names(named)) {
            Some(named) if !prefix.is_empty() => (Some(named), prefix),
            _ => (HUB.parse().ok(), ""),
        },
    }
}

/// What is asked of the registry, with path and query as it knows them; only for what is a pull.
fn pull(
    authority: &Authority,
    rest: &str,
    query: Option<&str>,
) -> Result<(Route, String), Refused> {
    let mut path = format!("/v2/{rest}");
    let mut route = Route::parse(&path, query);
    let is_pull = !matches!(route, Route::Upload { .. });
    let repository = route.repository().filter(|_| is_pull).ok_or_else(unknown)?;
    if Registry::at(authority).is_hub() && !repository.as_str().contains('/') {
        path = format!("/v2/{HUB_LIBRARY}/{rest}");
        route = Route::parse(&path, query);
    }
    let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    Ok((route, target))
}

fn unknown() -> Refused {
    let reason =
        "there is no such thing in a mirror: /v2/[REGISTRY/]NAME/manifests/TAG and the like";
    Refused(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, reason.to_owned())
}

fn not_found() -> Response<ResponseBody> {
    let Refused(status, code, reason) = unknown();
    refusal(status, code, &reason)
}

/// A registry's answer as one of the mirror's.
fn as_a_mirror(asked: &MirrorRequest, served: Served) -> Served {
    let mut served = match served.response.status() {
        StatusCode::UNAUTHORIZED => not_for_everybody(asked, &served),
        _ => served,
    };
    let fields = served.response.headers_mut();
    fields.remove(header::WWW_AUTHENTICATE);
    if let Some(namespace) = &asked.namespace
        && let Ok(value) = HeaderValue::try_from(namespace.to_host_field(HTTPS_PORT))
    {
        fields.insert("oci-namespace", value);
    }
    served
}

/// A client that is asked for a credential would look for the registry's token server, which it
/// can't reach by way of a mirror, and bring what would not be passed on.
fn not_for_everybody(asked: &MirrorRequest, served: &Served) -> Served {
    let registry = Registry::at(&asked.authority);
    let reason = format!(
        "{registry} wants a credential for this, which a mirror does not pass on: give this proxy \
         one in [[registry]], or set HTTPS_PROXY to it"
    );
    let mut response = refusal(StatusCode::FORBIDDEN, ErrorCode::Denied, &reason);
    if let Some(retry) = served.response.headers().get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, retry.clone());
    }
    Served::unsigned(Provenance::Denied(Reason::Because(reason)), response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let hosts = ["docker.io", "ghcr.io", "registry.corp:5000", "plain"];
        let intercept = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Policy { intercept, ..Policy::default() }
    }

    fn asked(target: &str) -> Result<(String, String), u16> {
        let asked = parse(&policy(), &Method::GET, &target.parse().unwrap());
        asked
            .map(|asked| (asked.authority.to_string(), asked.target))
            .map_err(|Refused(status, ..)| status.as_u16())
    }

    #[test]
    fn the_registry_is_named_in_three_ways() {
        let hub = "registry-1.docker.io:443";
        let cases = [
            ("/v2/library/alpine/manifests/3", hub, "/v2/library/alpine/manifests/3"),
            ("/v2/alpine/manifests/3", hub, "/v2/library/alpine/manifests/3"),
            ("/v2/a/b/manifests/3?ns=ghcr.io", "ghcr.io:443", "/v2/a/b/manifests/3"),
            ("/v2/a/b/manifests/3?ns=docker.io", "docker.io:443", "/v2/a/b/manifests/3"),
            (
                "/v2/a/manifests/3?ns=registry.corp%3A5000",
                "registry.corp:5000",
                "/v2/a/manifests/3",
            ),
            ("/v2/ghcr.io/a/b/manifests/3", "ghcr.io:443", "/v2/a/b/manifests/3"),
            ("/v2/GHCR.io/a/b/manifests/3", "ghcr.io:443", "/v2/a/b/manifests/3"),
            ("/v2/docker.io/alpine/manifests/3", "docker.io:443", "/v2/library/alpine/manifests/3"),
            ("/v2/registry.corp:5000/a/manifests/3", "registry.corp:5000", "/v2/a/manifests/3"),
            ("/v2/ghcr.io/a/b/manifests/3?ns=ghcr.io", "ghcr.io:443", "/v2/a/b/manifests/3"),
            ("/v2/plain/a/manifests/3", "plain:443", "/v2/a/manifests/3"),
            ("/v2/other/a/manifests/3", hub, "/v2/other/a/manifests/3"),
            (
                "/v2/a/b/tags/list?n=1&ns=ghcr.io&last=x",
                "ghcr.io:443",
                "/v2/a/b/tags/list?n=1&last=x",
            ),
        ];
        for (target, authority, path) in cases {
            let expected = (authority.to_owned(), path.to_owned());
            assert_eq!(asked(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_is_no_pull_from_a_known_registry_is_refused() {
        let cases = [
            ("/v2/a/manifests/3?ns=quay.io", 403),
            ("/v2/a/manifests/3?ns=ghcr.io:5000", 403),
            ("/v2/quay.io/a/manifests/3", 403),
            ("/v2/127.0.0.1:80/a/manifests/3", 403),
            ("/v2/a/manifests/3?ns=", 400),
            ("/v2/a/manifests/3?ns=a%20b", 400),
            ("/v2/a/manifests/3?ns=user@ghcr.io", 400),
            ("/v2/a/manifests/3?ns=ghcr.io&ns=quay.io", 400),
            ("/v2/a/manifests/3?x=1", 404),
            ("/v2/_catalog", 404),
            ("/v2/ghcr.io", 404),
            ("/v2/ghcr.io/", 404),
            ("/v2/ghcr.io/_catalog", 404),
            ("/v2/ghcr.io/../quay.io/a/manifests/3", 404),
            ("/v2/a/blobs/uploads/", 404),
            ("/v2//a/manifests/3", 404),
            ("/v2/.../a/manifests/3", 404),
        ];
        for (target, status) in cases {
            assert_eq!(asked(target), Err(status), "{target}");
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let uri = "/v2/a/b/blobs/uploads/".parse().unwrap();
            let Err(Refused(status, ..)) = parse(&policy(), &method, &uri) else {
                panic!("{method} is not refused");
            };
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}
