//! A CONNECT names `host:port`, or it is none.

use entrepot_testkit::Proxy;

use crate::BINARY;

/// Sends a CONNECT with this target as it is.
fn status(proxy: &Proxy, target: &str, fields: &str) -> u16 {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n");
    proxy.client().plain().unwrap().send_raw(request.as_bytes()).unwrap().status
}

#[test]
fn a_target_that_is_no_authority_is_a_bad_request() {
    let long = format!("{}.example:443", "a".repeat(64));
    let targets = [
        "registry-1.docker.io",
        "registry-1.docker.io:",
        "registry-1.docker.io:0",
        "registry-1.docker.io:65536",
        "registry-1.docker.io:-1",
        "registry-1.docker.io:+443",
        "registry-1.docker.io:443:443",
        "registry-1.docker.io:https",
        "registry-1.docker.io:443/",
        "registry-1.docker.io:443?x",
        "/registry-1.docker.io:443",
        "/v2/",
        "*",
        "https://registry-1.docker.io:443",
        "user@registry-1.docker.io:443",
        "user:password@registry-1.docker.io:443",
        ":443",
        "::1:443",
        "[::1]",
        "[::1:443",
        "registry-1..docker.io:443",
        ".docker.io:443",
        "-registry.example:443",
        "$(id):443",
        "registry-1.docker.io%00.example:443",
        long.as_str(),
    ];
    let proxy = Proxy::builder(BINARY).start();
    for target in targets {
        assert_eq!(status(&proxy, target, ""), 400, "{target}");
    }
}

#[test]
fn a_connect_with_a_body_is_a_bad_request() {
    let proxy = Proxy::builder(BINARY).start();
    for fields in ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(status(&proxy, "registry-1.docker.io:443", fields), 400, "{fields}");
    }
}

#[test]
fn the_case_of_a_host_does_not_matter() {
    let proxy = Proxy::builder(BINARY).start();
    assert_eq!(status(&proxy, "Registry-1.Docker.IO:443", ""), 200);
}
