//! Behind somebody else's proxy: what goes through it, what past it, and what is said when it
//! refuses.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use entrepot_testkit::canary::assert_no_canary;
use entrepot_testkit::proxy::{Builder, run};
use entrepot_testkit::registry::{HUB, HUB_CDN};
use entrepot_testkit::{
    Client, ForwardProxy, Image, Proxy, Redirects, Registry, Request, Response, Server, TestCa,
    User,
};

use crate::{ALPINE, BINARY};

fn registry() -> Registry {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 50_000));
    registry
}

/// A proxy that knows the hosts' names only through somebody else's.
fn behind(registry: &Registry, url: &str) -> Builder {
    let key = format!("proxy = \"{url}\"");
    Proxy::builder(BINARY).trusting(registry.ca()).upstream(&key)
}

/// As far as an engine goes: where a registry can't be asked, that is told with a manifest.
fn ping(proxy: &Proxy) -> Response {
    let get = |path: &str| proxy.client().get(&format!("https://{HUB}/v2/{path}")).unwrap();
    let pong = get("");
    if pong.status == 401 { get("library/alpine/manifests/1") } else { pong }
}

#[test]
fn a_pull_goes_through_it_with_the_redirects() {
    let registry = registry();
    registry.set_redirects(Redirects::Cdn);
    let corp = ForwardProxy::builder().knowing(&registry).start();
    let proxy = behind(&registry, &corp.url(None)).start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let asked = corp.requests();
    assert!(asked.contains(&format!("CONNECT {HUB}:443")), "{asked:?}");
    assert!(asked.contains(&format!("CONNECT {HUB_CDN}:443")), "{asked:?}");
    assert!(corp.passed().iter().all(|passed| passed.authorization.is_none()));
}

#[test]
fn its_credentials_reach_it_and_nobody_else() {
    let registry = registry();
    let user = User::new("corp-user");
    let corp = ForwardProxy::builder().knowing(&registry).demanding(&user).start();
    let proxy = behind(&registry, &corp.url(Some(&user))).env("RUST_LOG", "trace").start();
    proxy.puller().pull(ALPINE, "1").unwrap();
    let passed = corp.passed();
    assert!(passed.iter().all(|passed| passed.authorization == Some(user.basic())), "{passed:?}");
    let leaked = registry.requests().filter(|request| {
        request.headers.get("proxy-authorization").is_some() || request.authorization().is_some()
    });
    assert!(leaked.is_empty(), "{}", leaked.summary());
    // What can't be opened is told too, and must not tell the URL.
    proxy.client().connect("unknown.example:443").unwrap();
    assert_no_canary(&proxy);
}

#[test]
fn a_refusal_names_the_proxy_its_status_and_the_key() {
    let registry = registry();
    let user = User::new("corp-user");
    let demanding = ForwardProxy::builder().knowing(&registry).demanding(&user).start();
    let other = User::new("somebody-else");
    for url in [demanding.url(None), demanding.url(Some(&other))] {
        let proxy = behind(&registry, &url).start();
        let response = ping(&proxy);
        assert_eq!(response.status, 503, "{}", response.text());
        let message = response.oci_error();
        let place = demanding.address().to_string();
        for part in [place.as_str(), "upstream.proxy", "407", "USER:PASSWORD", HUB] {
            assert!(message.contains(part), "no {part:?} in {message:?}");
        }
        assert_no_canary(&proxy);
    }
    for (status, cure) in [(403, "upstream.no-proxy"), (502, "can't reach"), (504, "can't reach")] {
        let refusing = ForwardProxy::builder().answering(status).start();
        let proxy = behind(&registry, &refusing.url(None)).start();
        let message = ping(&proxy).oci_error();
        assert!(message.contains(&status.to_string()) && message.contains(cure), "{message:?}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_told() {
    let registry = registry();
    let nobody = ForwardProxy::builder().start();
    let (url, place) = (nobody.url(None), nobody.address().to_string());
    drop(nobody);
    let proxy = behind(&registry, &url).start();
    let message = ping(&proxy).oci_error();
    assert!(message.contains(&place) && message.contains("can't be reached"), "{message:?}");
}

#[test]
fn the_way_to_it_may_be_tls() {
    let registry = registry();
    let leaf = registry.ca().leaf(&["127.0.0.1"]);
    let user = User::new("corp-user");
    let corp = ForwardProxy::builder().knowing(&registry).over_tls(leaf).demanding(&user).start();
    let proxy = behind(&registry, &corp.url(Some(&user))).start();
    proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(!corp.passed().is_empty());

    let untrusted = TestCa::new("unknown authority").leaf(&["127.0.0.1"]);
    let corp = ForwardProxy::builder().knowing(&registry).over_tls(untrusted).start();
    let message = ping(&behind(&registry, &corp.url(None)).start()).oci_error();
    for part in ["upstream.proxy", "unknown authority", "ca-files"] {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
    assert!(corp.passed().is_empty(), "nothing is said to a proxy that is not believed");
}

#[test]
fn the_environment_names_one_too() {
    let registry = registry();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let corp = ForwardProxy::builder().knowing(&registry).start();
        let url = corp.url(None);
        let proxy = Proxy::builder(BINARY).trusting(registry.ca()).env(name, &url).start();
        assert_eq!(ping(&proxy).status, 200, "{name}");
        proxy.wait_for_log(&["through a proxy", &corp.address().to_string(), name]);
        assert_eq!(corp.requests(), [format!("CONNECT {HUB}:443")]);
    }
    let corp = ForwardProxy::builder().knowing(&registry).start();
    let unused = ForwardProxy::builder().answering(500).start();
    let proxy = behind(&registry, &corp.url(None)).env("HTTPS_PROXY", &unused.url(None)).start();
    assert_eq!(ping(&proxy).status, 200);
    assert!(unused.passed().is_empty(), "the key is stronger than the environment");
}

#[test]
fn exempt_hosts_go_past_it() {
    let ca = TestCa::new("somebody");
    let web = Server::https(ca.leaf(&["127.0.0.1"]), |_: &Request| Response::new(200));
    let corp = ForwardProxy::builder().answering(500).start();
    let authority = web.address().to_string();
    let client = |proxy: &Proxy| Client::new(proxy.address()).trusting(&ca.pem());
    let anywhere = || Proxy::builder(BINARY).config("tunnel = \"any\"");
    let by_key = format!("proxy = \"{}\"\nno-proxy = [\"127.0.0.0/8\"]", corp.url(None));
    let exempt = [
        anywhere().upstream(&by_key),
        anywhere().env("HTTPS_PROXY", &corp.url(None)).env("NO_PROXY", "x.example, 127.0.0.1"),
        anywhere().env("HTTPS_PROXY", &corp.url(None)).env("no_proxy", "*"),
        anywhere().env("HTTPS_PROXY", &corp.url(None)).upstream("proxy = \"direct\""),
        anywhere()
            .env("HTTPS_PROXY", &corp.url(None))
            .upstream(&format!("no-proxy = [\"{authority}\"]")),
    ];
    for builder in exempt {
        let proxy = builder.start();
        assert!(client(&proxy).open(&authority).is_ok(), "{:?}", proxy.log());
    }
    assert!(corp.passed().is_empty());
    let elsewhere = format!("proxy = \"{}\"\nno-proxy = [\"x.example\"]", corp.url(None));
    let proxy = anywhere().upstream(&elsewhere).env("NO_PROXY", "*").start();
    assert!(client(&proxy).open(&authority).is_err(), "loopback is no exception by itself");
    assert_eq!(corp.requests(), [format!("CONNECT {authority}")]);
}

#[test]
fn connect_to_names_the_very_place() {
    let registry = registry();
    let corp = ForwardProxy::builder().answering(500).start();
    let proxy = behind(&registry, &corp.url(None)).in_front_of(&registry).start();
    proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(corp.passed().is_empty());
}

#[test]
fn a_registry_has_its_own_way() {
    let registry = registry();
    let usual = ForwardProxy::builder().answering(500).start();
    let own = ForwardProxy::builder().knowing(&registry).start();
    let table = format!("[[registry]]\nhost = \"docker.io\"\nproxy = \"{}\"", own.url(None));
    let proxy =
        behind(&registry, &usual.url(None)).upstream("no-proxy = [\"*\"]").tables(&table).start();
    proxy.puller().pull(ALPINE, "1").unwrap();
    assert!(usual.passed().is_empty());
    assert!(!own.passed().is_empty());
}

#[test]
fn tunnels_go_through_it_as_well() {
    let ca = TestCa::new("somebody else");
    let web = Server::https(ca.leaf(&["web.example"]), |request: &Request| {
        Response::new(200).body(request.body.clone())
    });
    let user = User::new("corp-user");
    let corp =
        ForwardProxy::builder().leading("web.example:443", web.address()).demanding(&user).start();
    let proxy = Proxy::builder(BINARY).env("HTTPS_PROXY", &corp.url(Some(&user))).start();
    let client = Client::new(proxy.address()).trusting(&ca.pem());
    let mut connection = client.open("web.example:443").unwrap();
    for size in [1, 1_000_000] {
        let body = vec![7; size];
        let echoed = connection.send(&Request::new("POST", "/").body(body.clone())).unwrap();
        assert_eq!(echoed.body, body);
    }
    drop(connection);
    assert_eq!(corp.requests(), ["CONNECT web.example:443"]);
    proxy.wait_for_log(&["TUNNEL CONNECT", "web.example:443"]);
    assert_no_canary(&proxy);

    let refusing = ForwardProxy::builder().answering(407).start();
    let proxy = Proxy::builder(BINARY).env("HTTPS_PROXY", &refusing.url(Some(&user))).start();
    let (response, _) = proxy.client().connect("web.example:443").unwrap();
    assert_eq!(response.status, 502, "a 407 of its own would be asked of the client");
    assert!(response.reason.contains("HTTPS_PROXY"), "{:?}", response.reason);
    assert_no_canary(&proxy);
}

#[test]
fn private_addresses_are_refused_before_it_is_asked() {
    let corp = ForwardProxy::builder().answering(500).start();
    let proxy = Proxy::builder(BINARY).env("ALL_PROXY", &corp.url(None)).start();
    for place in
        ["127.0.0.1:443", "[::1]:443", "169.254.169.254:443", "localhost:443", "a.localhost:443"]
    {
        let (response, _) = proxy.client().connect(place).unwrap();
        assert_eq!(response.status, 403, "{place}: {}", response.reason);
    }
    let plain = proxy.client().get("http://10.0.0.1/").unwrap();
    assert_eq!(plain.status, 403, "{}", plain.text());
    assert!(corp.passed().is_empty(), "{:?}", corp.passed());

    let registry = registry();
    registry.set_redirects(Redirects::To("https://169.254.169.254/latest/".to_owned()));
    let corp = ForwardProxy::builder().knowing(&registry).start();
    let proxy = behind(&registry, &corp.url(None)).start();
    let error = proxy.puller().pull(ALPINE, "1").unwrap_err();
    assert_eq!(error.status(), Some(403), "{error}");
    assert!(corp.requests().iter().all(|request| *request == format!("CONNECT {HUB}:443")));
}

#[test]
fn plain_http_is_asked_for_in_absolute_form() {
    let web = Server::http(|request: &Request| {
        assert!(request.headers.get("proxy-authorization").is_none());
        Response::new(200).body(request.target.clone())
    });
    let user = User::new("corp-user");
    let corp =
        ForwardProxy::builder().leading("web.example", web.address()).demanding(&user).start();
    let proxy = Proxy::builder(BINARY).env("http_proxy", &corp.url(Some(&user))).start();
    let asking = proxy.client().with_proxy_header("Proxy-Authorization", "Basic bm90Om1pbmU=");
    let request = Request::get("http://web.example/page?x=1")
        .header("Proxy-Authorization", "Basic bm90Om1pbmU=");
    let response = asking.send(&request).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "/page?x=1"));
    let passed = corp.passed();
    assert_eq!(passed[0].request, "GET http://web.example/page?x=1");
    assert_eq!(passed[0].authorization, Some(user.basic()));

    let proxy = Proxy::builder(BINARY).env("HTTP_PROXY", &corp.url(None)).start();
    let refused = proxy.client().get("http://web.example/page").unwrap();
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(refused.oci_error().contains("HTTP_PROXY"), "{}", refused.text());
}

#[test]
fn a_proxy_that_is_this_one_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().display().to_string();
    let refused = |arguments: &[&str], environment: &[(&str, &str)]| {
        let base = ["serve", "--data-dir", &data, "--listen", "127.0.0.1:3999"];
        let finished = run(BINARY.as_ref(), &[&base, arguments].concat(), environment);
        assert_eq!(finished.code, Some(1), "{}", finished.output);
        finished.output
    };
    let own = "http://user:secret@localhost:3999";
    for name in ["ENTREPOT_UPSTREAM_PROXY", "HTTPS_PROXY", "http_proxy"] {
        let output = refused(&[], &[(name, own)]);
        assert!(output.contains(name) && output.contains("this proxy itself"), "{output}");
        assert!(!output.contains("secret"), "{output}");
    }
    let external = ["--external-url", "http://proxy.corp:3128"];
    let output = refused(&external, &[("HTTPS_PROXY", "http://proxy.corp:3128")]);
    assert!(output.contains("HTTPS_PROXY"), "{output}");
    for wrong in ["socks5://user:secret@corp:1080", "http://user:secret@corp:8080/path"] {
        for name in ["ENTREPOT_UPSTREAM_PROXY", "ALL_PROXY"] {
            let output = refused(&[], &[(name, wrong)]);
            assert_eq!(output.matches(name).count(), 1, "{output}");
            assert!(!output.contains("secret"), "{output}");
        }
    }
}

/// A port of this machine that leads to where it is told later.
fn detour(target: Arc<OnceLock<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Some(target)) = (near, target.get()) else { return };
            let Ok(far) = TcpStream::connect(target) else { return };
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
            {
                std::thread::spawn(move || {
                    std::io::copy(&mut from, &mut to).ok();
                    to.shutdown(std::net::Shutdown::Write).ok();
                });
            }
        }
    });
    address
}

/// Two proxies of one authority, each of which goes through the other.
fn a_loop(ca: &Path) -> [Proxy; 2] {
    let (ca_dir, certificate) = (ca.display(), ca.join("ca.crt"));
    let through = |address: SocketAddr| {
        Proxy::builder(BINARY)
            .config(&format!("ca-dir = \"{ca_dir}\""))
            .env("SSL_CERT_FILE", &certificate.display().to_string())
            .upstream(&format!("proxy = \"http://{address}\""))
    };
    // It makes the CA that both of the others have.
    drop(through(([127, 0, 0, 1], 9).into()).start());
    let behind = Arc::new(OnceLock::new());
    let first = through(detour(behind.clone())).start();
    let second = through(first.address()).start();
    behind.set(second.address()).unwrap();
    [first, second]
}

/// Neither knows how the registry is asked, and both ask the other at the same moment.
#[test]
fn proxies_that_lead_to_each_other_do_not_wait_for_each_other() {
    let ca = tempfile::tempdir().unwrap();
    let both = a_loop(ca.path());
    let paths = ["/v2/", "/v2/library/alpine/manifests/1", "/v2/library/alpine/tags/list"];
    for path in paths {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for proxy in both.iter().cycle().take(8) {
                scope.spawn(move || {
                    let answer = proxy.client().get(&format!("https://{HUB}{path}")).unwrap();
                    assert!(answer.status > 400, "{path}: {}", answer.text());
                });
            }
        });
        assert!(began.elapsed() < Duration::from_secs(9), "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn proxies_that_lead_to_each_other_say_so_at_once() {
    let ca = tempfile::tempdir().unwrap();
    let [first, _second] = a_loop(ca.path());

    let began = Instant::now();
    for path in ["/v2/", "/v2/library/alpine/manifests/1", "/v2/_catalog"] {
        let answer = first.client().get(&format!("https://{HUB}{path}")).unwrap();
        // A ping is answered as if the registry were there; and after some such answers that is
        // asked once a second.
        let expected: &[u16] = if path == "/v2/" { &[401] } else { &[508, 503] };
        assert!(expected.contains(&answer.status), "{path}: {}", answer.text());
    }
    // The same through tunnels, which are not looked into.
    let (refused, _) = first.client().connect("unknown.example:443").unwrap();
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let tunnels = first.log().iter().filter(|line| line.contains("unknown.example")).count();
    assert!(tunnels <= 2, "{}", first.log().join("\n"));
}

/// What is said of a registry of plain HTTP holds for port 80, where it is.
#[test]
fn a_registry_of_plain_http_has_its_own_way() {
    let server = Server::http(|_: &Request| {
        Response::new(200).header("Content-Type", "application/json").body("{}")
    });
    let user = User::new("corp-user");
    let corp = ForwardProxy::builder().leading("plain.corp", server.address()).start();
    let url = corp.url(Some(&user));
    let entry =
        |more: &str| format!("[[registry]]\nhost = \"plain.corp\"\nscheme = \"http\"\n{more}");
    let ping = |proxy: &Proxy| proxy.client().get("https://plain.corp/v2/").unwrap();

    let through = entry(&format!("proxy = \"{url}\""));
    let proxy = Proxy::builder(BINARY).tables(&through).start();
    assert_eq!(ping(&proxy).status, 200);
    assert_eq!(corp.requests(), ["GET http://plain.corp/v2/"]);

    // `connect-to` says where it is, by either port: then nothing is for the proxy.
    for port in [80, 443] {
        let server = Server::http(|request: &Request| {
            let is_told = request.headers.get("proxy-authorization").is_some();
            let answer = Response::new(if is_told { 500 } else { 200 });
            answer.header("Content-Type", "application/json").body("{}")
        });
        let proxy = Proxy::builder(BINARY)
            .upstream(&format!("proxy = \"{url}\""))
            .connect_to(&format!("plain.corp:{port}:{}", server.address()))
            .tables(&entry(""))
            .start();
        assert_eq!(ping(&proxy).status, 200, "{port}");
        assert_eq!(corp.requests().len(), 1, "{port}");
    }
}
