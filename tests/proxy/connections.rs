//! What one client has brought over a connection to a registry is nothing to the next one there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use entrepot_testkit::client::Connection;
use entrepot_testkit::proxy::Builder;
use entrepot_testkit::{Proxy, Request, Response, Server, TestCa};

use crate::BINARY;

const HOST: &str = "r.example";
const URL: &str = "https://r.example";

type Seen = Arc<Mutex<Vec<Request>>>;

/// A server with this answer, what it was asked, and a proxy in front of it.
fn world(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> (Server, Seen, Proxy) {
    let ca = TestCa::new("upstream");
    let seen = Seen::default();
    let noted = seen.clone();
    let server = Server::https(ca.leaf(&[HOST]), move |request: &Request| {
        noted.lock().unwrap().push(request.clone());
        answer(request)
    });
    let builder = Proxy::builder(BINARY).trusting(&ca);
    let proxy = leading(builder, &server).config(&format!("intercept = [\"{HOST}\"]")).start();
    (server, seen, proxy)
}

fn leading(builder: Builder, server: &Server) -> Builder {
    builder.connect_to(&format!("{HOST}:443:{}", server.address()))
}

/// By which connections came what has this in its target.
fn connections(seen: &Seen, part: &str) -> HashSet<u64> {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|one| one.target.contains(part)).map(|one| one.connection).collect()
}

/// A server that reads no body takes it for the next request, and the one after that gets its
/// answer.
#[test]
fn a_connection_that_has_carried_a_body_is_never_used_for_others() {
    let (_server, seen, proxy) = world(|_| Response::new(404));
    let client = proxy.client();
    let loaded = |target: String, method: &str| Request::new(method, target).body("GET /hidden");
    let form = format!("{URL}/entrepot/token");
    for round in 0..3 {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
            let target = format!("/v2/app/blobs/uploads/body-{round}");
            client.send(&loaded(format!("{URL}{target}"), method)).unwrap();
            client.send(&loaded(format!("http://{HOST}:443{target}"), method)).unwrap();
            let chunked = loaded(format!("{URL}{target}"), method);
            client.send(&chunked.header("Transfer-Encoding", "chunked")).unwrap();
        }
        client.send(&loaded(form.clone(), "POST")).unwrap();
        for target in ["/v2/app/manifests/plain", "/v2/app/tags/list?plain", "/plain"] {
            client.get(&format!("{URL}{target}")).unwrap();
            client.send(&Request::new("POST", format!("{URL}{target}"))).unwrap();
        }
    }
    let (bodies, others) = (connections(&seen, "body-"), connections(&seen, "plain"));
    assert!(!bodies.is_empty() && !others.is_empty());
    assert!(bodies.is_disjoint(&others), "{bodies:?} {others:?}");
    let requests = seen.lock().unwrap().iter().filter(|one| one.target.contains("body-")).count();
    assert_eq!(bodies.len(), requests, "each client had one of its own");
    assert!(others.len() < 18, "what has no body shares: {others:?}");
}

/// A layer is pushed in pieces, and the handshake of each would be felt.
#[test]
fn the_pieces_of_a_push_go_by_one_connection() {
    let (_server, seen, proxy) = world(|_| Response::new(202));
    let mut tunnel = proxy.client().open(HOST).unwrap();
    for piece in 0..5 {
        let target = format!("/v2/app/blobs/uploads/{piece}");
        assert_eq!(tunnel.send(&Request::new("PATCH", target).body("abc")).unwrap().status, 202);
    }
    assert_eq!(connections(&seen, "uploads").len(), 1);
    drop(tunnel);
    let mut other = proxy.client().open(HOST).unwrap();
    other.send(&Request::new("PATCH", "/v2/app/blobs/uploads/5").body("abc")).unwrap();
    assert_eq!(connections(&seen, "uploads").len(), 2);
}

/// A gateway that knows connections, as those of NTLM do: a login takes two requests.
fn gateway() -> impl Fn(&Request) -> Response {
    let states = Mutex::<HashMap<u64, u8>>::default();
    move |request| {
        let mut states = states.lock().unwrap();
        let state = states.entry(request.connection).or_default();
        let challenge = |with: &str| Response::new(401).header("WWW-Authenticate", with);
        match (request.headers.get("authorization"), *state) {
            (Some("NTLM TYPE1"), _) => {
                *state = 1;
                return challenge("NTLM TYPE2");
            }
            (Some("NTLM TYPE3"), 1) => *state = 2,
            _ => {}
        }
        if *state == 2 { Response::new(200).body("for domain users") } else { challenge("NTLM") }
    }
}

fn ntlm(connection: &mut Connection, method: &str, target: &str, message: &str) -> Response {
    let request = Request::new(method, target).header("Authorization", message);
    connection.send(&request).unwrap()
}

#[test]
fn a_login_of_a_connection_is_its_clients_alone() {
    let (_server, seen, proxy) = world(gateway());
    let mut alice = proxy.client().open(HOST).unwrap();
    let path = "/v2/app/manifests/v1";
    assert_eq!(ntlm(&mut alice, "GET", path, "NTLM TYPE1").status, 401);
    let served = ntlm(&mut alice, "GET", path, "NTLM TYPE3");
    assert_eq!((served.status, served.text().as_str()), (200, "for domain users"));
    assert_eq!(served.headers.get("cache-status"), Some("entrepot; fwd=bypass"));
    // Her own tunnel may be somebody's who shares it out.
    assert_eq!(alice.send(&Request::get(path)).unwrap().status, 401);
    let body = Request::new("PUT", path).body("{}");
    assert_eq!(alice.send(&body).unwrap().status, 401);
    for request in [
        Request::get(format!("{URL}{path}")),
        Request::head(format!("{URL}{path}")),
        Request::get(format!("{URL}/v2/")),
        Request::new("PUT", format!("{URL}{path}")).body("{}"),
        Request::new("POST", format!("{URL}/v2/app/blobs/uploads/")),
        Request::get(format!("{URL}{path}")).header("Authorization", "NTLM TYPE3"),
        Request::get(format!("{URL}{path}")).header("Authorization", "Basic YTpi"),
        Request::get(format!("http://{HOST}:443{path}")),
        Request::get(format!("/v2/{HOST}/app/manifests/v1")),
    ] {
        let refused = proxy.client().send(&request).unwrap();
        assert!(!refused.text().contains("domain"), "{} {}", request.method, request.target);
        assert_ne!(refused.status, 200, "{} {}", request.method, request.target);
    }
    let by_login = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|one| {
            one.headers.get("authorization").is_some_and(|value| value.starts_with("NTLM"))
        })
        .map(|one| one.connection)
        .collect::<HashSet<_>>();
    let others = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|one| {
            one.headers.get("authorization").is_none_or(|value| !value.starts_with("NTLM"))
        })
        .map(|one| one.connection)
        .collect::<HashSet<_>>();
    assert!(by_login.is_disjoint(&others), "{by_login:?} {others:?}");
}

/// In absolute form a connection to the proxy may be that of many: nothing goes on being a login.
#[test]
fn a_login_in_absolute_form_ends_with_its_request() {
    for scheme in ["NTLM", "Negotiate", "Kerberos", "Unheard-Of"] {
        let (_server, seen, proxy) = world(|_| Response::new(200));
        let mut connection = proxy.client().plain().unwrap();
        let url = format!("http://{HOST}:443/v2/app/tags/list");
        for _ in 0..3 {
            let login = Request::get(&url).header("Authorization", format!("{scheme} x"));
            connection.send(&login.header("Host", HOST)).unwrap();
            connection.send(&Request::get(&url).header("Host", HOST)).unwrap();
        }
        let with_login = seen
            .lock()
            .unwrap()
            .iter()
            .filter(|one| one.headers.get("authorization").is_some())
            .map(|one| one.connection)
            .collect::<Vec<_>>();
        let distinct: HashSet<_> = with_login.iter().collect();
        assert_eq!((with_login.len(), distinct.len()), (3, 3), "{scheme}");
    }
}
