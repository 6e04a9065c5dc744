//! What the proxy itself says to a browser, to curl and to probes.

use entrepot_testkit::{Client, Proxy, Registry, Request};

use crate::{BINARY, in_front_of};

fn get(proxy: &Proxy, path: &str, host: &str) -> entrepot_testkit::Response {
    proxy.client().send(&Request::get(path).header("Host", host)).unwrap()
}

#[test]
fn the_ca_certificate_verifies_what_is_intercepted() {
    let registry = Registry::open();
    let proxy = in_front_of(&registry);
    let page = proxy.client().get("/ca.crt").unwrap();
    assert_eq!(page.status, 200);
    assert_eq!(page.headers.get("content-type"), Some("application/x-x509-ca-cert"));
    assert!(page.text().starts_with("-----BEGIN CERTIFICATE-----"), "{}", page.text());
    let client = Client::new(proxy.address()).trusting(&page.text());
    let response = client.get(&format!("https://{}/v2/", registry.host())).unwrap();
    assert_eq!(response.status, 200);
}

#[test]
fn probes_are_answered_on_both_listeners() {
    let proxy = Proxy::builder(BINARY).start();
    assert_eq!(proxy.client().get("/healthz").unwrap().status, 200);
    assert_eq!(proxy.admin("/healthz").status, 200);
    assert_eq!(proxy.admin("/readyz").status, 200);
}

#[test]
fn a_person_is_told_what_this_is() {
    let proxy = Proxy::builder(BINARY).start();
    let page = get(&proxy, "/", "proxy.example:3128");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("proxy.example:3128/setup/systemd"), "{}", page.text());
}

#[test]
fn there_are_no_other_pages() {
    let proxy = Proxy::builder(BINARY).start();
    let paths =
        ["/nothing", "/ca.crt/", "/../etc/passwd", "/metrics", "/api/v1/images", "/setup/x"];
    for path in paths {
        assert_eq!(proxy.client().get(path).unwrap().status, 404, "{path}");
    }
}

#[test]
fn nothing_can_be_changed_on_the_listener() {
    let proxy = Proxy::builder(BINARY).start();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/", "/ca.crt", "/healthz", "/setup/systemd"] {
            let response = proxy.client().send(&Request::new(method, path)).unwrap();
            assert_eq!(response.status, 405, "{method} {path}");
        }
    }
}

#[test]
fn the_setup_script_names_the_address_that_the_client_used() {
    let proxy = Proxy::builder(BINARY).start();
    let script = get(&proxy, "/setup/systemd", "proxy.example:3128");
    assert_eq!(script.status, 200);
    assert!(script.text().starts_with("#!/bin/sh"), "{}", script.text());
    assert!(script.text().contains("http://proxy.example:3128"), "{}", script.text());
}

const SCRIPTS: [&str; 8] =
    ["systemd", "containerd", "podman", "k3s", "kind", "buildkit", "docker-mirror", "ca"];

#[test]
fn every_client_has_its_script() {
    let proxy = Proxy::builder(BINARY).start();
    for client in SCRIPTS {
        let script = get(&proxy, &format!("/setup/{client}"), "proxy.example:3128");
        assert_eq!(script.status, 200, "{client}");
        assert!(script.text().contains("proxy_url='http://proxy.example:3128'"), "{client}");
        assert!(script.text().contains(&format!("/setup/{client}?undo")), "{client}");
        let answer = get(&proxy, &format!("/setup/{client}"), "$(id)");
        assert_eq!(answer.status, 400, "{client}");
    }
}

#[test]
fn nothing_of_a_bad_host_reaches_the_setup_script() {
    let proxy = Proxy::builder(BINARY).start();
    let hosts = ["$(id)", "a b", "a'b", "a;id", "`id`", "evil@proxy", "a\\b", "proxy:0", "proxy:x"];
    for host in hosts {
        let answer = get(&proxy, "/setup/systemd", host);
        assert_eq!(answer.status, 400, "{host}");
        assert!(!answer.text().contains("id)"), "{}", answer.text());
    }
}

#[test]
fn the_command_line_shows_the_certificate_that_the_page_serves() {
    let proxy = Proxy::builder(BINARY).start();
    let shown = proxy.run(&["ca", "show"]);
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    assert!(shown.output.contains(proxy.ca_pem().trim()), "{}", shown.output);
    let told = proxy.run(&["ca", "show", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told.output).unwrap();
    assert_eq!(told["certificate"], proxy.ca_pem());
    assert!(proxy.log_contains(told["sha256"].as_str().unwrap()));
}
