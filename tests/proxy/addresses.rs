//! Every address in an answer leads back by the door the client came through.

use entrepot_testkit::registry::Transport;
use entrepot_testkit::{Fault, On, Proxy, Registry, Request, Response};

use crate::{BINARY, in_front_of};

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
