//! What the proxy itself says to a browser, to curl and to probes.

use entrepot_testkit::{Access, Client, Image, Proxy, Registry, Request, User, wait_until};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

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

#[test]
fn the_check_is_a_script_of_its_own_and_has_two_addresses() {
    let proxy = Proxy::builder(BINARY).start();
    let script = get(&proxy, "/check", "proxy.example:3128");
    assert_eq!(script.status, 200);
    assert!(script.text().starts_with("#!/bin/sh"), "{}", script.text());
    assert!(script.text().contains("proxy_url='http://proxy.example:3128'"), "{}", script.text());
    assert_eq!(get(&proxy, "/setup/check", "proxy.example:3128").body, script.body);
    assert_eq!(get(&proxy, "/check", "$(id)").status, 400);
}

/// A browser shows what curl pipes into a shell.
#[test]
fn a_browser_shows_the_scripts() {
    let proxy = Proxy::builder(BINARY).start();
    for (path, accept, media_type) in [
        ("/setup/systemd", "text/html,*/*", "text/plain; charset=utf-8"),
        ("/check", "text/html,*/*", "text/plain; charset=utf-8"),
        ("/setup/systemd", "*/*", "text/x-shellscript; charset=utf-8"),
    ] {
        let request = Request::get(path).header("Host", "proxy:3128").header("Accept", accept);
        let script = proxy.client().send(&request).unwrap();
        assert_eq!(script.headers.get("content-type"), Some(media_type), "{path} {accept}");
        assert!(script.text().starts_with("#!/bin/sh"), "{path}");
    }
}

#[test]
fn what_is_tried_is_an_image_that_is_kept_and_everybodys() {
    let alice = User::new("alice").pulls(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    registry.push(ALPINE, "3.20", &Image::random(1, 1000));
    registry.push(PRIVATE, "1", &Image::random(1, 10));
    let proxy = in_front_of(&registry);
    let named = || proxy.client().get("/check/image").unwrap().text();
    assert_eq!(named(), "docker.io/library/hello-world:latest\n", "nothing is kept yet");
    let private = proxy.puller().user(&alice).pull(PRIVATE, "1").unwrap();
    proxy.wait_until_all_kept(&private);
    let pulled = proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.wait_until_all_kept(&pulled);
    wait_until("what is kept is named", || named() == "docker.io/library/alpine:3.20\n");
}

#[test]
fn a_client_is_told_what_it_was_served_and_nothing_of_others() {
    let registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(2, 1000));
    let proxy = in_front_of(&registry);
    let told = |client: &Client| {
        let path = "/check/served?repository=docker.io/library/alpine";
        client.get(path).unwrap().text()
    };
    let page = |client: &Client| {
        client.send(&Request::get("/").header("Host", "proxy:3128")).unwrap().text()
    };
    let nothing = "manifests=0\nblobs=0\nhits=0\nbytes=0\n";
    assert_eq!(told(&proxy.client()), format!("client=127.0.0.1\n{nothing}"));
    assert!(page(&proxy.client()).contains("You are 127.0.0.1: nothing has been pulled"));
    let pulled = proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.wait_until_all_kept(&pulled);
    wait_until("the pull is counted", || told(&proxy.client()).contains("blobs=3\nhits=0\n"));
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    wait_until("the second one is all hits", || {
        let told = told(&proxy.client());
        told.contains("blobs=6\n") && !told.contains("hits=0\n")
    });
    let greeted = page(&proxy.client()).replace('\n', " ");
    assert!(greeted.contains("the last pull from there was docker.io/library/alpine"), "{greeted}");
    let other = proxy.client().from_address([127, 0, 0, 2].into());
    assert_eq!(told(&other), format!("client=127.0.0.2\n{nothing}"));
    assert!(page(&other).contains("You are 127.0.0.2: nothing has been pulled"));
    for bad in ["", "?x=1", "?repository=a&repository=b"] {
        assert_eq!(
            proxy.client().get(&format!("/check/served{bad}")).unwrap().status,
            400,
            "{bad}"
        );
    }
}

#[test]
fn the_pages_need_no_user() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    std::fs::write(&users, format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let access = format!("[access]\nhtpasswd = {:?}", users.display().to_string());
    let proxy = Proxy::builder(BINARY).tables(&access).start();
    for path in ["/", "/check", "/check/image", "/check/served?repository=a/b", "/setup/check"] {
        assert_eq!(get(&proxy, path, "proxy:3128").status, 200, "{path}");
    }
}

#[test]
fn the_log_of_the_start_says_what_runs_and_where() {
    let config = "external-url = \"http://proxy.corp:3128\"";
    let proxy = Proxy::builder(BINARY).config(config).start();
    let version = format!("version={}", env!("CARGO_PKG_VERSION"));
    let file = format!("file={}", proxy.config_file().display());
    proxy.wait_for_log(&["entrepot starts", &version, &file]);
    let page = format!("status_page=http://{}/", proxy.admin_address());
    proxy.wait_for_log(&["admin listener", &page, "socket="]);
    proxy.wait_for_log(&["kept", "objects=0", "directory="]);
    proxy.wait_for_log(&["to set a client up", "http://proxy.corp:3128/setup/systemd?fp="]);
    let hashes = proxy.wait_for_log(&["SHA-256 of the scripts at http://proxy.corp:3128:"]);
    for client in SCRIPTS.into_iter().chain(["check"]) {
        let script = get(&proxy, &format!("/setup/{client}"), "proxy.corp:3128");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &script.body);
        let hex =
            hash.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert!(hashes.contains(&format!("{client}={hex}")), "{client} {hex}: {hashes}");
    }
    let lines = proxy.log().iter().take_while(|line| !line.contains("SHA-256")).count();
    assert!(lines < 10, "{}", proxy.log().join("\n"));
}
