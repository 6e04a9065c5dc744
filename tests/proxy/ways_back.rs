//! Every address in an answer leads back by the door that the client came through: the inside of a
//! tunnel, a plain-HTTP URL, or the mirror by namespace, by path, and as the Hub.

use std::sync::{Arc, Mutex};

use entrepot_testkit::http::Headers;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::registry::{HUB, HUB_AUTH};
use entrepot_testkit::{
    Access, Fault, Image, On, Proxy, Registry, Request, Response, Role, Server, TestCa, User,
};
use url::Url;

use crate::{ALPINE, BINARY, PRIVATE};

const CORP: &str = "registry.corp";
const OTHER: &str = "other.corp";

/// A way to a registry, which is what a client knows.
#[derive(Debug, Clone)]
enum Door {
    /// Through a tunnel.
    Tunnel(&'static str),
    /// By a plain-HTTP URL.
    Plain(&'static str),
    /// To the proxy itself, with this before the repository and after the path.
    Mirror(&'static str, &'static str),
}

impl Door {
    /// Where a repository's `path` is by this door.
    fn url(&self, path: &str) -> Url {
        let url = match self {
            Self::Tunnel(host) => format!("https://{host}/v2/{path}"),
            Self::Plain(host) => format!("http://{host}/v2/{path}"),
            Self::Mirror(prefix, query) => format!("mirror://proxy/v2/{prefix}{path}{query}"),
        };
        url.parse().unwrap()
    }
}

/// Sends a request to a URL as the door's client does, who is not led elsewhere.
#[track_caller]
fn send(proxy: &Proxy, url: &Url, request: Request) -> Response {
    let target = match url.scheme() {
        "mirror" => {
            assert_eq!(url.host_str(), Some("proxy"), "{url}");
            url[url::Position::BeforePath..].to_owned()
        }
        _ => url.to_string(),
    };
    proxy.client().send(&Request { target, ..request }).unwrap()
}

/// Where the link of an answer leads, as a client reads it.
#[track_caller]
fn next(url: &Url, headers: &Headers) -> Url {
    let link = headers.get("link").unwrap();
    let target = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
    url.join(target).unwrap()
}

/// A registry of two pages whose first one links to the second as `link` says.
fn listing(request: &Request, link: &str) -> Response {
    let json = |body: &str| {
        Response::new(200)
            .header("Content-Type", "application/json")
            .header("Docker-Distribution-Api-Version", "registry/2.0")
            .body(body.to_owned())
    };
    match request.path() {
        "/v2/" => json("{}"),
        "/v2/old/app/tags/list" => Response::new(307).header("Location", "/v2/team/app/tags/list"),
        "/v2/gone/app/tags/list" => {
            Response::new(307).header("Location", format!("https://{OTHER}/v2/team/app/tags/list"))
        }
        "/v2/team/app/tags/list" if request.query("last").is_empty() => {
            json("one").header("Link", link)
        }
        "/v2/team/app/tags/list" if request.query("ns").is_empty() => json("two"),
        _ => Response::new(404),
    }
}

#[test]
fn the_next_page_is_found_by_every_door() {
    let ca = TestCa::new("corp");
    let link = Arc::new(Mutex::new(String::new()));
    let server = Server::https(ca.leaf(&[CORP, OTHER]), {
        let link = Arc::clone(&link);
        move |request: &Request| listing(request, &link.lock().unwrap())
    });
    let proxy = Proxy::builder(BINARY)
        .trusting(&ca)
        .connect_to(&format!("{CORP}:443:{}", server.address()))
        .connect_to(&format!("{OTHER}:443:{}", server.address()))
        .config(&format!("intercept-also = [\"{CORP}\", \"{OTHER}\"]"))
        .start();
    let doors = [
        Door::Tunnel(CORP),
        Door::Mirror("", "?ns=registry.corp"),
        Door::Mirror("registry.corp/", ""),
        Door::Mirror("registry.corp/", "?ns=registry.corp"),
    ];
    let links = [
        "</v2/team/app/tags/list?last=1&n=1>; rel=\"next\"",
        "</v2/team/app/tags/list?last=%2F%2b+1>; rel=next, </v2/>; title=\"<x>\"",
        "<https://registry.corp/v2/team/app/tags/list?last=1>; rel=\"next\"",
        "<http://registry.corp/v2/team/app/tags/list?last=1>; rel=\"next\"",
        "<//registry.corp:443/v2/team/app/tags/list?last=1>; rel=\"next\"",
        "<?last=1>; rel=\"next\"",
        "<list?n=1&last=1>; rel=\"next\"",
        "<https://other.corp/v2/team/app/tags/list?last=1>; rel=\"next\"",
    ];
    let mut n = 0;
    for text in links {
        *link.lock().unwrap() = text.to_owned();
        for door in &doors {
            for repository in ["team", "old", "gone"] {
                // A listing of its own, for nobody else's to be kept in its place.
                n += 1;
                let url = door.url(&format!("{repository}/app/tags/list"));
                let mut first = url.clone();
                first.query_pairs_mut().append_pair("x", &n.to_string());
                let what = format!("{door:?} {repository} {text}");
                let answer = send(&proxy, &first, Request::get(""));
                assert_eq!(answer.text(), "one", "{what}");
                let second = next(&url, &answer.headers);
                let answer = send(&proxy, &second, Request::get(""));
                assert_eq!(answer.text(), "two", "{what}: {second}");
            }
        }
    }
    drop(server);
}

#[test]
fn the_next_page_of_the_hub_is_found_by_every_door() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let two = On::path("tags/list?last=1");
    registry.fault_always(two, Fault::Answer(Response::new(200).body("two")));
    let proxy = crate::in_front_of(&registry);
    let doors = [
        (Door::Tunnel(HUB), ALPINE),
        (Door::Tunnel("docker.io"), ALPINE),
        (Door::Tunnel("index.docker.io"), ALPINE),
        (Door::Mirror("", ""), ALPINE),
        (Door::Mirror("", ""), "alpine"),
        (Door::Mirror("docker.io/", ""), "alpine"),
        (Door::Mirror("", "?ns=docker.io"), ALPINE),
        (Door::Mirror("index.docker.io/", ""), ALPINE),
    ];
    for (n, link) in [
        format!("</v2/{ALPINE}/tags/list?last=1>; rel=\"next\""),
        format!("<https://{HUB}/v2/{ALPINE}/tags/list?last=1>; rel=\"next\""),
        format!("<https://index.docker.io/v2/{ALPINE}/tags/list?last=1>; rel=\"next\""),
    ]
    .into_iter()
    .enumerate()
    {
        let one = Response::new(200).header("Link", &link).body("one");
        registry.fault_always(On::path(format!("tags/list?n={n}")), Fault::Answer(one));
        for (door, repository) in &doors {
            let url = door.url(&format!("{repository}/tags/list"));
            let mut first = url.clone();
            let query = first.query().map_or(format!("n={n}"), |ns| format!("n={n}&{ns}"));
            first.set_query(Some(&query));
            let answer = send(&proxy, &first, Request::get(""));
            assert_eq!(answer.text(), "one", "{door:?} {link}");
            let second = next(&url, &answer.headers);
            if let Door::Tunnel(host) = door {
                assert_eq!(second.host_str(), Some(*host), "{link}");
            }
            let answer = send(&proxy, &second, Request::get(""));
            assert_eq!(answer.text(), "two", "{door:?} {link}: {second}");
        }
    }
}

/// A registry of plain HTTP that names itself in every address, as docker-registry does.
fn plain_registry() -> Server {
    Server::http(|request: &Request| {
        let host = request.headers.get("host").unwrap_or_default().to_owned();
        let upload = format!("http://{host}/v2/team/app/blobs/uploads/1?_state=a%2Fb%3D%3d&x=");
        match (request.method.as_str(), request.path()) {
            (_, "/v2/") => Response::new(200).header("Content-Type", "application/json").body("{}"),
            ("POST", "/v2/team/app/blobs/uploads/") => {
                Response::new(202).header("Location", upload).header("Range", "0-0")
            }
            ("PATCH", "/v2/team/app/blobs/uploads/1") => {
                Response::new(202).header("Location", upload)
            }
            ("PUT", "/v2/team/app/blobs/uploads/1") => Response::new(201)
                .header("Location", format!("http://{host}/v2/team/app/blobs/sha256:1")),
            ("PUT", "/v2/team/app/manifests/1") => Response::new(201)
                .header("Location", format!("http://{host}/v2/team/app/manifests/sha256:1")),
            ("GET", "/v2/moved") => {
                Response::new(307).header("Location", format!("http://{host}/v2/new"))
            }
            ("GET", "/login") => Response::new(302).header("Location", "https://sso.corp/x"),
            _ => Response::new(404),
        }
    })
}

#[test]
fn a_push_to_a_registry_of_plain_http_stays_on_its_way() {
    let server = plain_registry();
    let address = server.address();
    let proxy = Proxy::builder(BINARY)
        .connect_to(&format!("{CORP}:5000:{address}"))
        .connect_to(&format!("{CORP}:80:{address}"))
        .tables(&format!("[[registry]]\nhost = \"{CORP}:5000\"\nscheme = \"http\""))
        .tables(&format!("[[registry]]\nhost = \"{CORP}\"\nscheme = \"http\""))
        .start();
    let doors = [
        (Door::Tunnel("registry.corp:5000"), "https://registry.corp:5000"),
        (Door::Plain("registry.corp:5000"), "http://registry.corp:5000"),
        (Door::Tunnel("registry.corp"), "https://registry.corp"),
        (Door::Plain("registry.corp"), "http://registry.corp"),
    ];
    for (door, origin) in doors {
        let location = |method: &str, path: &str, status: u16| {
            let answer = send(&proxy, &door.url(path), Request::new(method, "").body("x"));
            assert_eq!(answer.status, status, "{door:?} {method} {path}: {}", answer.text());
            answer.headers.get("location").unwrap().to_owned()
        };
        let upload = format!("{origin}/v2/team/app/blobs/uploads/1?_state=a%2Fb%3D%3d&x=");
        assert_eq!(location("POST", "team/app/blobs/uploads/", 202), upload);
        assert_eq!(location("PATCH", "team/app/blobs/uploads/1?_state=a", 202), upload);
        let blob = format!("{origin}/v2/team/app/blobs/sha256:1");
        assert_eq!(location("PUT", "team/app/blobs/uploads/1?digest=x", 201), blob);
        let manifest = format!("{origin}/v2/team/app/manifests/sha256:1");
        assert_eq!(location("PUT", "team/app/manifests/1", 201), manifest);
        let moved = send(&proxy, &door.url("moved"), Request::get(""));
        assert_eq!(moved.headers.get("location"), Some(&*format!("{origin}/v2/new")), "{door:?}");
        let login = send(&proxy, &door.url("../login"), Request::get(""));
        assert_eq!(login.headers.get("location"), Some("https://sso.corp/x"), "{door:?}");
    }
}

#[test]
fn a_registry_behind_somebody_elses_tls_does_not_lead_out_of_the_tunnel() {
    let ca = TestCa::new("corp");
    let server = Server::https(ca.leaf(&[CORP]), |request: &Request| {
        let status = if request.method == "GET" { 302 } else { 202 };
        Response::new(status).header("Location", format!("http://{CORP}/v2/x"))
    });
    let proxy = Proxy::builder(BINARY)
        .trusting(&ca)
        .connect_to(&format!("{CORP}:443:{}", server.address()))
        .config(&format!("intercept-also = [\"{CORP}\"]"))
        .start();
    let url = Door::Tunnel(CORP).url("team/app/blobs/uploads/");
    let started = send(&proxy, &url, Request::new("POST", ""));
    assert_eq!(started.headers.get("location"), Some("https://registry.corp/v2/x"));
    // A redirect says what it means: back to https it would come round for ever.
    let moved = send(&proxy, &url, Request::get(""));
    assert_eq!(moved.headers.get("location"), Some("http://registry.corp/v2/x"));
}

/// A redirect to another registry's listing is a question to that registry, under what the proxy
/// is there.
#[test]
fn a_listing_that_is_another_registrys_is_asked_for_with_a_token_of_that_one() {
    let other = Registry::builder()
        .hosts(OTHER, "auth.other.corp", "cdn.other.corp")
        .access(Access::bearer([]).anonymous("team/*"))
        .start();
    let image = Image::random(1, 1000);
    other.push("team/app", "1", &image);
    let registry = Registry::builder().hosts(CORP, "auth.corp", "cdn.corp").ca_of(&other).start();
    let referrers = format!("referrers/{}", image.manifest.digest);
    for listing in ["tags/list", &referrers] {
        let moved = Fault::redirect(307, &format!("https://{OTHER}/v2/team/app/{listing}"));
        registry.fault_always(On::path(listing), moved);
    }
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .in_front_of(&other)
        .config(&format!("intercept-also = [\"{CORP}\", \"{OTHER}\"]"))
        .start();
    for door in [Door::Mirror("", "?ns=registry.corp"), Door::Tunnel(CORP)] {
        for listing in ["tags/list", &referrers] {
            let url = door.url(&format!("old/app/{listing}"));
            let answer = send(&proxy, &url, Request::get(""));
            assert_eq!(answer.status, 200, "{door:?} {listing}: {}", answer.text());
        }
    }
}

#[test]
fn a_registry_of_plain_http_without_a_port_is_one_at_port_80() {
    let registry = Registry::builder()
        .hosts(CORP, "auth.corp", "cdn.corp")
        .transport(entrepot_testkit::registry::Transport::PlainHttp)
        .start();
    let image = Image::random(1, 10_000);
    registry.push("team/app", "1", &image);
    let address = registry.server(Role::Registry).address();
    let wrong = Server::http(|_: &Request| Response::new(500));
    let mut proxy = Proxy::builder(BINARY)
        .connect_to(&format!("{CORP}:80:{address}"))
        .connect_to(&format!("{CORP}:443:{}", wrong.address()))
        .tables(&format!("[[registry]]\nhost = \"{CORP}\"\nscheme = \"http\""))
        .start();
    let digest = &image.layers[0].digest;
    let doors = [
        Door::Plain("registry.corp"),
        Door::Plain("registry.corp:80"),
        Door::Tunnel("registry.corp"),
        Door::Mirror("registry.corp/", ""),
        Door::Mirror("registry.corp:80/", ""),
        Door::Mirror("", "?ns=registry.corp"),
        Door::Mirror("", "?ns=registry.corp:80"),
    ];
    for restarts in 0..2 {
        for (n, door) in doors.iter().enumerate() {
            let manifest = send(&proxy, &door.url("team/app/manifests/1"), Request::get(""));
            assert_eq!(manifest.status, 200, "{door:?}: {}", manifest.text());
            let blob =
                send(&proxy, &door.url(&format!("team/app/blobs/{digest}")), Request::get(""));
            assert_eq!(blob.body, image.layers[0].bytes, "{door:?}");
            let is_first = (restarts, n) == (0, 0);
            assert_eq!(blob.headers.get("cache-status").unwrap().ends_with("hit"), !is_first);
            proxy.wait_until_kept(digest);
        }
        proxy.restart(Signal::TERM);
    }
    assert_eq!(registry.requests().blob_gets().len(), 1);
    for request in registry.requests().iter() {
        assert_eq!(request.headers.get("host"), Some(CORP), "{}", request.target);
    }
    assert_eq!(wrong.connections(), 0);
    let listed = proxy.run(&["check"]);
    assert!(listed.output.contains("registry registry.corp"), "{}", listed.output);
    assert!(!listed.output.contains("registry.corp:80"), "{}", listed.output);
    assert_eq!(wrong.connections(), 0);
}

/// Puts another realm into every challenge of the registry's.
fn with_realm(registry: &Registry, realm: &'static str) {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
    let refuse = move |request: &Request| match request.headers.get("authorization") {
        None => Response::new(401).header("WWW-Authenticate", &challenge).body("{}"),
        Some(_) => Response::new(200).header("Content-Type", "application/json").body("{}"),
    };
    registry.fault_always(On::path("/v2/"), Fault::answer_with(refuse));
    let token = Response::new(200).body("{\"token\":\"t\"}");
    registry.fault_always(On::path("/zot/auth/token"), Fault::Answer(token));
}

#[test]
fn a_realm_may_be_a_path_of_the_registrys() {
    for (realm, doors) in [
        ("/zot/auth/token", ["", "?ns=registry.corp"]),
        ("//registry.corp/zot/auth/token", ["", "?ns=registry.corp"]),
    ] {
        let registry = Registry::builder().hosts(CORP, "auth.corp", "cdn.corp").start();
        with_realm(&registry, realm);
        let mut proxy = Proxy::builder(BINARY)
            .in_front_of(&registry)
            .config(&format!("intercept-also = [\"{CORP}\"]"))
            .start();
        for _ in 0..2 {
            for query in doors {
                let prefix = if query.is_empty() { "registry.corp/" } else { "" };
                let url = Door::Mirror(prefix, query).url("team/app/tags/list");
                let answer = send(&proxy, &url, Request::get(""));
                assert_eq!(answer.status, 200, "{realm} {query}: {}", answer.text());
            }
            let ping = send(&proxy, &Door::Tunnel(CORP).url(""), Request::get(""));
            let challenge = ping.headers.get("www-authenticate").unwrap();
            assert!(challenge.contains("https://registry.corp/entrepot/token"), "{challenge}");
            let push = Request::new("POST", "");
            let url = Door::Tunnel(CORP).url("team/app/blobs/uploads/");
            let refused = send(&proxy, &url, push);
            let challenge = refused.headers.get("www-authenticate").unwrap();
            assert!(challenge.contains("https://registry.corp/entrepot/token"), "{challenge}");
            // With a login the registry's own token server is asked.
            let url = "https://registry.corp/entrepot/token?service=s&scope=repository:a:pull";
            let login = Request::get(url).header("Authorization", "Basic eDp5");
            let token = proxy.client().send(&login).unwrap();
            assert_eq!(token.json()["token"], "t");
            proxy.restart(Signal::TERM);
        }
    }
}

#[test]
fn a_refusal_leads_to_our_token_endpoint_after_a_restart_too() {
    let alice = User::new("alice").pulls(PRIVATE).pulls(ALPINE);
    let access = Access::bearer([alice.clone()]).anonymous(ALPINE);
    let registry = Registry::builder().access(access).start();
    let image = Image::random(1, 1000);
    registry.push(ALPINE, "1", &image);
    registry.push(PRIVATE, "1", &image);
    let mut proxy = crate::in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let digest = &image.layers[0].digest;
    let requests = [
        Request::get(format!("/v2/{PRIVATE}/manifests/1")),
        Request::head(format!("/v2/{PRIVATE}/manifests/1")),
        Request::get(format!("/v2/{PRIVATE}/manifests/1")).header("Authorization", "Bearer QQ=="),
        Request::get(format!("/v2/{ALPINE}/manifests/1")).header("Authorization", "Bearer bad"),
        Request::get(format!("/v2/{PRIVATE}/blobs/{digest}")),
        Request::head(format!("/v2/{PRIVATE}/blobs/{digest}")),
        Request::get(format!("/v2/{PRIVATE}/tags/list")),
        Request::get("/v2/_catalog").header("Authorization", "Bearer bad"),
        Request::get("/v2/").header("Authorization", "Bearer bad"),
        Request::new("POST", format!("/v2/{PRIVATE}/blobs/uploads/")),
        Request::new("PUT", format!("/v2/{PRIVATE}/manifests/1")).body("{}"),
        Request::new("DELETE", format!("/v2/{PRIVATE}/manifests/{digest}")),
    ];
    for request in requests {
        proxy.restart(Signal::TERM);
        for host in [HUB, "index.docker.io"] {
            let target = format!("https://{host}{}", request.target);
            let answer = proxy.client().send(&Request { target, ..request.clone() }).unwrap();
            let what = format!("{} {}", request.method, request.target);
            // The test registry has no catalogue.
            if answer.status == 404 {
                continue;
            }
            assert_eq!(answer.status, 401, "{what}: {}", answer.text());
            let challenge = answer.headers.get("www-authenticate").unwrap();
            let own = format!("realm=\"https://{host}/entrepot/token\"");
            assert!(challenge.contains(&own), "{what}: {challenge}");
        }
    }
    // Some tell of it with another status, and the mirror never.
    proxy.restart(Signal::TERM);
    let challenge = format!("Bearer realm=\"https://{HUB_AUTH}/token\",error=\"x\"");
    let refusal = Response::new(403).header("WWW-Authenticate", challenge).body("{}");
    registry.fault_always(On::path(PRIVATE), Fault::Answer(refusal));
    let url = Door::Tunnel(HUB).url(&format!("{PRIVATE}/tags/list"));
    let answer = send(&proxy, &url, Request::get(""));
    assert_eq!(answer.status, 403);
    let challenge = answer.headers.get("www-authenticate").unwrap();
    assert!(challenge.contains("/entrepot/token\",error=\"x\""), "{challenge}");
    let url = Door::Mirror("", "").url(&format!("{PRIVATE}/tags/list"));
    let answer = send(&proxy, &url, Request::get(""));
    assert_eq!((answer.status, answer.headers.get("www-authenticate")), (403, None));
}

#[test]
fn of_the_hubs_other_names_only_the_api_is_the_registry() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let index = Server::https(registry.ca().leaf(&["index.docker.io", "docker.io"]), {
        let asked = Arc::clone(&asked);
        move |request: &Request| {
            let host = request.headers.get("host").unwrap_or_default();
            asked.lock().unwrap().push(format!("{} {host}{}", request.method, request.target));
            match request.path() {
                "/v1/moved" => Response::new(301).header("Location", "https://docker.io/v1/new"),
                _ => Response::new(200).header("X-Docker-Registry-Version", "0.9").body("found"),
            }
        }
    });
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .connect_to(&format!("index.docker.io:443:{}", index.address()))
        .connect_to(&format!("docker.io:443:{}", index.address()))
        .start();
    let requests = [
        Request::get("https://index.docker.io/v1/_ping"),
        Request::get("https://index.docker.io/v1/search?q=alpine&n=25"),
        Request::new("PUT", "https://index.docker.io/v1/users/").body("{}"),
        Request::get("https://docker.io/v1/search?q=x"),
        Request::head("https://docker.io/"),
    ];
    for request in &requests {
        let answer = proxy.client().send(request).unwrap();
        assert_eq!(answer.status, 200, "{}", request.target);
        assert_eq!(answer.headers.get("x-docker-registry-version"), Some("0.9"));
    }
    let seen = asked.lock().unwrap().clone();
    let sent =
        requests.iter().map(|r| format!("{} {}", r.method, r.target.replace("https://", "")));
    assert_eq!(seen, sent.collect::<Vec<_>>());
    let moved = proxy.client().get("https://index.docker.io/v1/moved").unwrap();
    assert_eq!(moved.headers.get("location"), Some("https://docker.io/v1/new"));
    for host in ["index.docker.io", "docker.io"] {
        let manifest = format!("https://{host}/v2/{ALPINE}/manifests/1");
        assert_eq!(proxy.client().get(&manifest).unwrap().status, 200);
        assert_eq!(proxy.client().get(&format!("https://{host}/v2/")).unwrap().status, 200);
        assert_eq!(proxy.client().get(&format!("https://{host}/v2")).unwrap().status, 200);
    }
    assert_eq!(asked.lock().unwrap().len(), seen.len() + 1);
    // What asks the registry's own name is the registry's.
    assert_eq!(proxy.client().get(&format!("https://{HUB}/v1/_ping")).unwrap().status, 404);
}
