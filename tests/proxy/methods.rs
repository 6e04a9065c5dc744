//! Methods that no proxy passes on as they are.

use entrepot_testkit::client::Connection;
use entrepot_testkit::registry::Transport;
use entrepot_testkit::{Client, ForwardProxy, Proxy, Registry, Request, Response, Server, User};

use crate::{ALPINE, BINARY, in_front_of};

/// One of each kind of connection that requests come by, with the target that fits it.
fn doors(proxy: &Proxy, registry: &Registry) -> Vec<(Connection, String)> {
    let client = proxy.client();
    let url = format!("http://{}:443/v2/", registry.host());
    vec![
        (client.open(registry.host()).unwrap(), "/v2/".to_owned()),
        (client.plain().unwrap(), url),
        (client.plain().unwrap(), "http://web.example/".to_owned()),
        (client.plain().unwrap(), format!("/v2/{ALPINE}/tags/list")),
        (client.plain().unwrap(), "/healthz".to_owned()),
        (client.over_tls().plain().unwrap(), "/".to_owned()),
        (Client::new(proxy.admin_address()).plain().unwrap(), "/healthz".to_owned()),
        (Client::new(proxy.admin_address()).plain().unwrap(), "/api/v1/config".to_owned()),
    ]
}

#[test]
fn nothing_is_sent_back_as_it_came_at_any_door() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    for method in ["TRACE", "TRACK", "trace", "Track"] {
        for (mut connection, target) in doors(&proxy, &registry) {
            let request = Request::new(method, &target).header("Max-Forwards", "0");
            let refused = connection.send(&request).unwrap();
            assert_eq!(refused.status, 405, "{method} {target}");
            let allowed = refused.headers.get("allow").unwrap_or_default();
            assert!(allowed.contains("GET") && !allowed.contains("TRACE"), "{allowed}");
        }
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

/// The next proxy would answer with what it has got, its own credential among it.
#[test]
fn the_credential_of_the_proxy_on_the_way_is_asked_back_by_nobody() {
    let registry = Registry::builder().transport(Transport::PlainHttp).start();
    let user = User::new("corp-user");
    let corp = ForwardProxy::builder().knowing(&registry).demanding(&user).start();
    let proxy = Proxy::builder(BINARY)
        .config("tunnel = \"any\"")
        .upstream(&format!("proxy = \"{}\"", corp.url(Some(&user))))
        .start();
    for target in ["http://anything.example/", "http://registry-1.docker.io/v2/"] {
        for method in ["TRACE", "TRACK", "tRACE"] {
            for hops in ["0", "1", "70"] {
                let request = Request::new(method, target).header("Max-Forwards", hops);
                let refused = proxy.client().send(&request).unwrap();
                assert_eq!(refused.status, 405, "{method} {target}");
                assert!(!refused.text().contains(&user.basic()));
            }
        }
        let asked = Request::new("OPTIONS", target).header("Max-Forwards", "0");
        assert_eq!(proxy.client().send(&asked).unwrap().status, 200);
    }
    assert!(corp.requests().is_empty(), "{:?}", corp.requests());
}

#[test]
fn a_body_where_none_is_of_use_is_refused_at_any_door() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    for method in ["GET", "HEAD", "OPTIONS"] {
        for coding in [None, Some("chunked")] {
            for (mut connection, target) in doors(&proxy, &registry) {
                let mut request = Request::new(method, &target).body("GET /hidden HTTP/1.1\r\nX: ");
                if let Some(coding) = coding {
                    request = request.header("Transfer-Encoding", coding);
                }
                let refused = connection.send(&request).unwrap();
                assert_eq!(refused.status, 400, "{method} {target}");
                assert!(connection.is_closed(), "{method} {target}: what follows is no request");
            }
        }
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

/// "If the received value is zero (0), the intermediary MUST NOT forward the request; instead, the
/// intermediary MUST respond as the final recipient" (RFC 9110 §7.6.2).
#[test]
fn options_go_no_further_than_they_say() {
    let echo = Server::http(|request: &Request| {
        let hops = request.headers.get("max-forwards").unwrap_or("none").to_owned();
        Response::new(200).header("X-Method", &request.method).header("X-Hops", hops)
    });
    let registry = Registry::open();
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("tunnel = \"any\"")
        .connect_to(&format!("web.example:80:{}", echo.address()))
        .start();
    let options = |target: &str, hops: &[&str]| {
        let request = hops.iter().fold(Request::new("OPTIONS", target), |request, hops| {
            request.header("Max-Forwards", *hops)
        });
        proxy.client().send(&request).unwrap()
    };
    let web = "http://web.example/";
    for (hops, seen) in [(&["5"][..], "4"), (&["1"], "0"), (&[], "none"), (&["007"], "6")] {
        let answer = options(web, hops);
        assert_eq!(answer.headers.get("x-hops"), Some(seen), "{hops:?}");
    }
    let huge = "9".repeat(30);
    let answer = options(web, &[&huge]);
    assert!(answer.headers.get("x-hops").is_some_and(|hops| hops.len() < 21));
    let registrys = format!("https://{}/v2/", registry.host());
    for target in [web, &registrys] {
        for bad in [&["x"][..], &["-1"], &[""], &["1", "1"]] {
            let refused = options(target, bad);
            assert_eq!((refused.status, refused.headers.get("x-hops")), (400, None), "{bad:?}");
        }
        for none in ["0", "00"] {
            let answer = options(target, &[none]);
            assert_eq!((answer.status, answer.headers.get("x-hops")), (200, None), "{target}");
            assert!(answer.headers.get("allow").is_some_and(|allowed| allowed.contains("GET")));
        }
    }
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
    // It means something for OPTIONS alone.
    let request = Request::get(web).header("Max-Forwards", "0");
    let answer = proxy.client().send(&request).unwrap();
    assert_eq!(answer.headers.get("x-method"), Some("GET"));
}
