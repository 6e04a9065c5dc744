//! One readable line a request.

use entrepot_testkit::{Fault, Image, On, Proxy, Registry, Request};

use crate::{ALPINE, BINARY, in_front_of};

/// Whether a line is `OUTCOME METHOD registry repository object size unit time unit client`.
#[track_caller]
fn assert_blob_line(line: &str, outcome: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let [
        found,
        method,
        registry,
        repository,
        kind,
        digest,
        size,
        size_unit,
        time,
        time_unit,
        client,
    ] = words.as_slice()
    else {
        panic!("not eleven words: {line}");
    };
    assert_eq!(
        [*found, *method, *registry, *repository, *kind, *client],
        [outcome, "GET", "docker.io", ALPINE, "blob", "127.0.0.1"],
        "{line}"
    );
    let hex = digest.strip_prefix("sha256:").and_then(|rest| rest.strip_suffix('\u{2026}'));
    let short = hex.is_some_and(|hex| hex.len() >= 4 && hex.chars().all(|c| c.is_ascii_hexdigit()));
    assert!(short, "{line}");
    assert_eq!((*size, *size_unit), ("3.4", "MB"), "{line}");
    assert!(time.parse::<f64>().is_ok() && matches!(*time_unit, "ms" | "s"), "{line}");
}

#[test]
fn a_blob_is_one_line_that_a_person_can_read() {
    let registry = Registry::open();
    let image = Image::random(1, 3_412_000);
    registry.push(ALPINE, "3.20", &image);
    let proxy = in_front_of(&registry);
    let short = &image.layers[0].digest[..15];
    let first = proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.wait_until_all_kept(&first);
    assert_blob_line(&proxy.wait_for_log(&["MISS", "blob", short]), "MISS");
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    let line = proxy.wait_for_log(&["HIT", "blob", short]);
    assert_blob_line(&line, "HIT");
    assert!(line.starts_with("HIT  GET docker.io library/alpine blob sha256:"), "{line}");
}

#[test]
fn a_refusal_is_a_line_with_its_reason() {
    let proxy = Proxy::builder(BINARY).start();
    proxy.client().connect("mail.example:25").unwrap();
    proxy.wait_for_log(&[
        "DENIED CONNECT mail.example:25 403",
        "127.0.0.1",
        "port 25 of a host that is",
    ]);
}

#[test]
fn what_is_no_request_is_a_line_too() {
    let proxy = Proxy::builder(BINARY).start();
    for garbage in [&b"GET /\x1b[2J HTTP/1.1\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n"]
    {
        let mut connection = proxy.client().plain().unwrap();
        connection.write(garbage).unwrap();
        assert_eq!(connection.read_line().unwrap().trim_end(), "HTTP/1.1 400 Bad Request");
    }
    let line = proxy.wait_for_logs(&["something else than an HTTP request was refused"], 2);
    assert!(line.contains("client=127.0.0.1"), "{line}");
    assert!(proxy.log().iter().all(|line| !line.contains('\x1b')));
}

#[test]
fn json_lines_are_json() {
    let registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("log = \"json\"").start();
    proxy.puller().pull(ALPINE, "3.20").unwrap();
    let line = proxy.wait_for_log(&["\"MISS\"", "blob"]);
    assert!(line.contains("library/alpine"), "{line}");
    for line in proxy.log() {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }
}

#[test]
fn a_request_is_told_from_others_by_its_id() {
    let registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(1, 1000));
    for (log, level) in [("json", "info"), ("text", "debug"), ("text", "info")] {
        let format = format!("log = {log:?}");
        let builder = Proxy::builder(BINARY).in_front_of(&registry).config(&format);
        let proxy = builder.env("RUST_LOG", level).start();
        proxy.puller().pull(ALPINE, "3.20").unwrap();
        proxy.wait_for_log(&["MISS", "blob"]);
        let lines = proxy.log();
        let requests = lines.iter().filter(|line| line.contains("docker.io"));
        let requests: Vec<_> = requests.filter(|line| line.contains("MISS")).collect();
        let ids: std::collections::BTreeSet<_> =
            requests.iter().filter_map(|line| id(line)).collect();
        let expected = if (log, level) == ("text", "info") { 0 } else { requests.len() };
        assert_eq!(ids.len(), expected, "{log} {level}: {requests:?}");
    }
}

#[test]
fn a_refusal_names_its_line() {
    let proxy = Proxy::builder(BINARY).config("log = \"json\"").start();
    let (refused, _) = proxy.client().connect("mail.example:25").unwrap();
    let line = proxy.wait_for_log(&["DENIED", "mail.example:25"]);
    let told = refused.headers.get("x-request-id");
    assert!(told.is_some() && told == id(&line), "{told:?}: {line}");
}

fn id(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"id\":\"").or_else(|| line.split_once(" id="))?;
    rest.get(..16).filter(|id| id.chars().all(|c| c.is_ascii_hexdigit()))
}

#[test]
fn at_debug_the_client_is_told_why_as_well() {
    let mut registry = Registry::open();
    registry.push(ALPINE, "3.20", &Image::random(1, 1000));
    let debug = "log-level = \"debug\"";
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(debug).start();
    let pulled = proxy.puller().pull(ALPINE, "3.20").unwrap();
    proxy.wait_until_all_kept(&pulled);
    registry.stop();
    let url = format!("https://{}/v2/{ALPINE}/manifests/3.20", registry.host());
    let stale = proxy.client().get(&url).unwrap();
    let told = stale.headers.get("cache-status").unwrap();
    assert!(told.starts_with("entrepot; hit; detail=\"stale: "), "{told}");
    assert!(told.contains("registry-1.docker.io"), "{told}");
}

#[test]
fn nothing_a_client_sends_makes_a_second_line() {
    let registry = Registry::open();
    for log in ["text", "json"] {
        let builder = Proxy::builder(BINARY).in_front_of(&registry);
        let proxy = builder.config(&format!("log = {log:?}")).env("RUST_LOG", "trace").start();
        send_what_breaks_lines(&registry, &proxy);
        for line in proxy.log() {
            assert!(!line.starts_with(FORGED), "{line}");
            assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
            assert!(log == "json" || !line.contains('\u{2028}'), "{line:?}");
            let is_json = || serde_json::from_str::<serde_json::Value>(&line).is_ok();
            assert!(log == "text" || is_json(), "{line}");
        }
    }
}

const FORGED: &str = "HIT  GET docker.io forged";

/// Line ends, escapes, marks of Unicode and bytes that are no text, wherever a client may put some.
fn send_what_breaks_lines(registry: &Registry, proxy: &Proxy) {
    let paths = [
        format!("/v2/x%0a{}", FORGED.replace(' ', "%20")),
        "/v2/\u{1b}[31m".to_owned(),
        "/v2/\u{2028}x".to_owned(),
    ];
    for path in paths {
        let request = Request::get(path).header("User-Agent", "a\tb\u{85}c");
        // Whether it is answered at all is another test's matter.
        let _ = proxy.client().open(registry.host()).unwrap().send(&request);
    }
    let raw: [&[u8]; 5] = [
        b"GET /v2/\xff\xfe\x1b[31m HTTP/1.1\r\nHost: registry-1.docker.io\r\n\r\n",
        b"GET /v2/x HTTP/1.1\r\nHost: a\x1b[31mb\r\nUser-Agent: \xff\x85\r\n\r\n",
        b"GET /v2/\nHIT  GET docker.io forged HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a\x1b[31m:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x1b[31m\rHIT  GET docker.io forged\n\n",
    ];
    for bytes in raw {
        let _ = proxy.client().plain().unwrap().send_raw(bytes);
    }
    proxy.client().get(&format!("https://{}/v2/marker", registry.host())).unwrap();
    proxy.wait_for_log(&["marker"]);
}

/// Others' text may hold what a reader of lines takes for an end of one, or a terminal for a change
/// of direction.
#[test]
fn a_line_of_json_is_one_line_to_every_reader() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("ca\u{2028}\u{2029}\u{202e}\u{2066}\u{9b}31m\u{7f}");
    let directory = directory.display().to_string();
    // TOML takes no control characters as they are.
    let escape = |c: char| match c {
        ' '..='~' => c.to_string(),
        _ => format!("\\u{:04x}", u32::from(c)),
    };
    let escaped: String = directory.chars().map(escape).collect();
    let toml = format!("log = \"json\"\nca-dir = \"{escaped}\"");
    let proxy = Proxy::builder(BINARY).config(&toml).start();
    let line = proxy.wait_for_log(&["CA certificate"]);
    assert!(line.chars().all(|c| matches!(c, ' '..='~')), "{line:?}");
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["directory"], directory);
    for arguments in [&["config", "show"][..], &["config", "show", "--json"]] {
        let told = proxy.run(arguments);
        assert!(told.output.contains("\\u2028\\u2029\\u202e"), "{}", told.output);
        assert!(told.output.chars().all(|c| matches!(c, ' '..='~' | '\n')), "{}", told.output);
    }
}

/// A registry that says what was kept here, in whatever kind of answer, is believed by nobody.
#[test]
fn our_name_in_cache_status_is_ours() {
    let registry = Registry::open();
    let image = Image::random(1, 10_000);
    registry.push(ALPINE, "1", &image);
    let fault =
        Fault::Header("cache-status", "cdn; hit, entrepot; hit, \"entrepot\";hit".to_owned());
    registry.faults(On::path("/"), vec![fault], usize::MAX);
    let proxy = in_front_of(&registry);
    let host = registry.host();
    let layer = &image.layers[0].digest;
    let no_such = format!("sha256:{}", "0".repeat(64));
    let targets = [
        ("GET", format!("/v2/{ALPINE}/manifests/1")),
        ("GET", format!("/v2/{ALPINE}/manifests/nothing")),
        ("GET", format!("/v2/{ALPINE}/manifests/{no_such}")),
        ("GET", format!("/v2/{ALPINE}/blobs/{no_such}")),
        ("HEAD", format!("/v2/{ALPINE}/blobs/{layer}")),
        ("GET", format!("/v2/{ALPINE}/blobs/{layer}")),
        ("GET", format!("/v2/{ALPINE}/tags/list")),
        ("GET", "/v2/_catalog".to_owned()),
        ("POST", format!("/v2/{ALPINE}/blobs/uploads/")),
        ("GET", "/anything/else".to_owned()),
    ];
    for round in ["first", "second"] {
        for (method, path) in &targets {
            let request = Request::new(method, format!("https://{host}{path}"));
            let answer = proxy.client().send(&request.header("Host", host)).unwrap();
            let told = answer.headers.all("cache-status").collect::<Vec<_>>().join(", ");
            let ours = told.split(',').filter(|one| one.contains("entrepot")).count();
            let expected = usize::from(answer.status < 400);
            assert_eq!(ours, expected, "{round} {method} {path} {}: {told}", answer.status);
            assert!(!told.contains("\"entrepot\""), "{told}");
        }
        proxy.wait_until_kept(layer);
    }
}
