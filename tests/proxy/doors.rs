//! Every address in an answer leads back by the door the client came through.

use entrepot_testkit::registry::Transport;
use entrepot_testkit::{Access, Fault, Image, On, Proxy, Registry, Request, Response, User};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

const TAGS: &str = r#"{"name":"a","tags":["1"]}"#;

fn listing(link: &str) -> Fault {
    let listing = Response::new(200).header("Content-Type", "application/json").body(TAGS);
    Fault::Answer(listing.header("Link", link))
}

fn ghcr(transport: Transport) -> Registry {
    Registry::builder()
        .hosts("ghcr.io", "auth.ghcr.example", "cdn.ghcr.example")
        .transport(transport)
        .start()
}

/// What an answer to a GET by interception, by `ns=` and by a prefix links to.
fn links(proxy: &Proxy, host: &str, path: &str) -> [String; 3] {
    let link = |answer: Response| answer.headers.get("link").unwrap_or_default().to_owned();
    let direct = proxy.client().get(&format!("https://{host}/v2/{path}")).unwrap();
    let mirror = |target: String| {
        let request = Request::get(target).header("Host", "127.0.0.1");
        link(proxy.client().plain().unwrap().send(&request).unwrap())
    };
    [link(direct), mirror(format!("/v2/{path}?ns={host}")), mirror(format!("/v2/{host}/{path}"))]
}

#[test]
fn the_next_page_is_found_by_every_door() {
    let next = "/v2/org/app/tags/list?last=1&n=1";
    for told in [next.to_owned(), format!("https://ghcr.io{next}"), "list?last=1&n=1".to_owned()] {
        let registry = ghcr(Transport::Tls);
        let proxy = in_front_of(&registry);
        registry.fault_always(On::path("/tags/list"), listing(&format!("<{told}>; rel=\"next\"")));
        // The second time from memory.
        for _ in 0..2 {
            let [direct, by_namespace, by_prefix] = links(&proxy, "ghcr.io", "org/app/tags/list");
            let absolute = format!("<https://ghcr.io{next}>; rel=\"next\"");
            assert!(direct == absolute || direct == format!("<{next}>; rel=\"next\""), "{direct}");
            assert_eq!(by_namespace, format!("<{next}&ns=ghcr.io>; rel=\"next\""), "{told}");
            let expected = "</v2/ghcr.io/org/app/tags/list?last=1&n=1>; rel=\"next\"";
            assert_eq!(by_prefix, expected, "{told}");
        }
    }
}

#[test]
fn a_page_that_a_redirect_led_to_has_the_next_one_there() {
    let registry = ghcr(Transport::Tls);
    let proxy = in_front_of(&registry);
    registry.fault_always(On::path("/v2/moved/"), listing("<list?last=1>; rel=\"next\""));
    registry.fault_always(On::path("/v2/org/"), Fault::redirect(307, "/v2/moved/app/tags/list"));
    let [direct, by_namespace, by_prefix] = links(&proxy, "ghcr.io", "org/app/tags/list");
    let next = "/v2/moved/app/tags/list?last=1";
    assert_eq!(direct, format!("<https://ghcr.io{next}>; rel=\"next\""));
    assert_eq!(by_namespace, format!("<{next}&ns=ghcr.io>; rel=\"next\""));
    assert_eq!(by_prefix, "</v2/ghcr.io/moved/app/tags/list?last=1>; rel=\"next\"");
}

#[test]
fn an_upload_goes_on_where_it_began() {
    let session = "/v2/org/app/blobs/uploads/1?state=x";
    let places = ["http://ghcr.io", "http://ghcr.io:80", "https://ghcr.io", ""];
    for (transport, scheme) in [(Transport::Tls, "https"), (Transport::PlainHttp, "http")] {
        let registry = ghcr(transport);
        let table = format!("[[registry]]\nhost = \"ghcr.io\"\nscheme = \"{scheme}\"");
        let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(&table).start();
        for place in places {
            if transport == Transport::Tls && place.ends_with(":80") {
                continue;
            }
            let accepted = Response::new(202).header("Location", format!("{place}{session}"));
            registry.heal();
            registry.fault_always(On::path("/blobs/uploads/"), Fault::Answer(accepted));
            let start = Request::new("POST", "https://ghcr.io/v2/org/app/blobs/uploads/");
            let answer = proxy.client().send(&start).unwrap();
            let location = answer.headers.get("location").unwrap_or_default();
            let expected = [session.to_owned(), format!("https://ghcr.io{session}")];
            assert!(expected.contains(&location.to_owned()), "{scheme} {place}: {location}");
        }
    }
}

#[test]
fn another_hosts_address_is_left_alone() {
    let registry = ghcr(Transport::Tls);
    let proxy = in_front_of(&registry);
    let elsewhere = "https://storage.example/upload/1?sig=x";
    let accepted = Response::new(202).header("Location", elsewhere);
    registry.fault_always(On::path("/blobs/uploads/"), Fault::Answer(accepted));
    let start = Request::new("POST", "https://ghcr.io/v2/org/app/blobs/uploads/");
    let answer = proxy.client().send(&start).unwrap();
    assert_eq!(answer.headers.get("location"), Some(elsewhere));
}

#[test]
fn a_realm_may_be_a_path_alone() {
    let access = Access::bearer([]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let challenge = Response::new(401)
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .header("WWW-Authenticate", "Bearer realm=\"/zot/auth/token\",service=\"zot\"");
    let token = Response::new(200)
        .header("Content-Type", "application/json")
        .body(r#"{"token":"", "access_token":"T"}"#);
    let wanted = challenge.clone();
    let manifest = Fault::answer_with(move |request| {
        if request.headers.get("authorization") == Some("Bearer T") {
            return Response::new(200)
                .header("Content-Type", entrepot_testkit::image::MANIFEST)
                .body("{}");
        }
        wanted.clone()
    });
    let is_token = |request: &Request| request.target.starts_with("/zot/auth/token");
    registry.fault_always(On::path("/zot/auth/token"), Fault::Answer(token));
    registry.fault_always(On::path("/manifests/"), manifest);
    registry.fault_always(
        On::path("/v2/"),
        Fault::answer_with(move |request| {
            assert!(!is_token(request));
            challenge.clone()
        }),
    );
    let proxy = in_front_of(&registry);
    let url = format!("https://{}/v2/{ALPINE}/manifests/1", registry.host());
    assert_eq!(proxy.client().get(&url).unwrap().status, 200);
}

#[test]
fn a_plain_registry_without_a_port_is_spoken_to_on_port_80() {
    let registry = ghcr(Transport::PlainHttp);
    let image = Image::random(1, 1000);
    registry.push("org/app", "1", &image);
    let address = registry.server(entrepot_testkit::Role::Registry).address();
    let proxy = Proxy::builder(BINARY)
        .connect_to(&format!("ghcr.io:80:{address}"))
        .tables("[[registry]]\nhost = \"ghcr.io\"\nscheme = \"http\"")
        .start();
    let intercepted = proxy.client().get("https://ghcr.io/v2/org/app/manifests/1").unwrap();
    assert_eq!(intercepted.body, image.manifest.bytes);
    proxy.wait_until_kept(&image.manifest.digest);
    let absolute = Request::get("http://ghcr.io/v2/org/app/manifests/1").header("Host", "ghcr.io");
    let answer = proxy.client().plain().unwrap().send(&absolute).unwrap();
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
    assert_eq!(answer.headers.get("cache-status"), Some("entrepot; hit"), "the same registry");
    proxy.wait_for_logs(&["GET ghcr.io org/app manifest 1"], 2);
    assert!(!proxy.log_contains("ghcr.io:80"), "{:?}", proxy.log());
}

#[test]
fn only_the_api_of_the_hubs_names_is_the_hubs_registry() {
    let hub = Registry::open();
    let index =
        Registry::builder().hosts("index.docker.io", "a.example", "b.example").ca_of(&hub).start();
    hub.push(ALPINE, "1", &Image::random(1, 1000));
    let found = Response::new(200).header("Content-Type", "application/json").body("[]");
    index.fault_always(On::path("/v1/"), Fault::Answer(found));
    let proxy = Proxy::builder(BINARY).in_front_of(&hub).in_front_of(&index).start();
    for path in ["/v1/search?q=alpine&n=25", "/v1/_ping"] {
        let answer = proxy.client().get(&format!("https://index.docker.io{path}")).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "[]"), "{path}");
    }
    let pulled = proxy.puller().from("index.docker.io").pull(ALPINE, "1");
    pulled.unwrap();
    assert!(index.requests().path("/v2/").is_empty(), "{}", index.requests().summary());
}

#[test]
fn a_challenge_that_is_known_from_the_disk_leads_through_us() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let mut proxy = in_front_of(&registry);
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.restart(entrepot_testkit::proxy::Signal::TERM);
    for (method, path) in
        [("HEAD", "manifests/1"), ("GET", "tags/list"), ("POST", "blobs/uploads/")]
    {
        let url = format!("https://{}/v2/{PRIVATE}/{path}", registry.host());
        let request = Request::new(method, url).header("Authorization", "Bearer wrong");
        let answer = proxy.client().send(&request).unwrap();
        let challenge = answer.headers.get("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("/entrepot/token"), "{method} {path}: {challenge}");
    }
}
