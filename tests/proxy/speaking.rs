//! Every error of the proxy's own says who speaks and whom to ask, once, in a person's words; what
//! a registry says is passed on as it is.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use entrepot_testkit::fault::Reply;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::raw::{RawServer, Word};
use entrepot_testkit::registry::HUB;
use entrepot_testkit::tls::Versions;
use entrepot_testkit::{
    Access, Fault, Gate, Hangup, Image, On, Proxy, Registry, Request, Response, Server, TestCa,
    User, wait_until,
};

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

const SPEAKER: &str = "entrepot at proxy.corp (ask #platform): ";
const CONFIG: &str = "external-url = \"http://proxy.corp:3128\"\ncontact = \"ask #platform\"";

fn manifest(host: &str) -> Request {
    Request::get(format!("https://{host}/v2/{ALPINE}/manifests/1"))
}

/// The message of an error, without its code.
fn message(answer: &Response) -> String {
    answer.oci_error().split_once(": ").map(|(_, words)| words.to_owned()).unwrap_or_default()
}

/// What a client is told of a registry at `address`, which is trusted by `ca`.
#[track_caller]
fn told(address: SocketAddr, ca: &TestCa) -> String {
    let proxy = Proxy::builder(BINARY)
        .config(CONFIG)
        .connect_to(&format!("{HUB}:443:{address}"))
        .trusting(ca)
        .upstream("header-timeout = \"1s\"\nconnect-timeout = \"2s\"")
        .start();
    let answer = proxy.client().send(&manifest(HUB)).unwrap();
    assert!(answer.status >= 500, "{}", answer.text());
    message(&answer)
}

/// Whatever a registry does to a connection, nobody reads a library's words of it.
#[test]
fn each_way_to_break_an_exchange_has_a_persons_words() {
    let ca = TestCa::new("trusted");
    let leaf = || ca.leaf(&[HUB]);
    let replying = |reply: fn() -> Reply| Server::https(leaf(), move |_: &Request| reply());
    let garbage = |head: &'static str| {
        // Below TLS all is well; what is in it is not HTTP.
        Server::https(leaf(), move |_: &Request| Response::new(200).header("X", head))
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Its backlog takes connections, and nobody ever looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let clients = TestCa::new("clients");
    let servers = [
        ("a FIN", replying(|| Reply::none(Hangup::Fin)), "it closed the connection"),
        (
            "an end of TLS",
            replying(|| Reply::none(Hangup::CloseNotify)),
            "it closed the connection",
        ),
        ("a reset", replying(|| Reply::none(Hangup::Rst)), "it reset the connection"),
        ("a broken field", garbage("a\0b"), "its answer is not HTTP"),
        (
            "a client certificate",
            Server::demanding(leaf(), &clients, Versions::Both, |_: &Request| Response::new(200)),
            "wants a client certificate that it accepts (certificate required)",
        ),
    ];
    let alert = |number| Word::Bytes(vec![21, 3, 3, 0, 2, 2, number]);
    let raw = [
        ("no common cipher", RawServer::start(alert(40)), "it broke TLS off (handshake failure)"),
        ("an alert", RawServer::start(alert(80)), "it broke TLS off (internal error)"),
        ("an end", RawServer::start(Word::Bytes(Vec::new())), "the other side hung up"),
        (
            "another protocol",
            RawServer::start(Word::Bytes(b"220 mail.example ESMTP\r\n".to_vec())),
            "speaks something else than TLS",
        ),
    ];
    let places = servers
        .iter()
        .map(|(what, server, words)| (*what, server.address(), *words))
        .chain(raw.iter().map(|(what, server, words)| (*what, server.address(), *words)))
        .chain([
            (
                "a closed port",
                closed,
                "no connection to registry-1.docker.io:443: Connection refused",
            ),
            (
                "silence",
                silent.local_addr().unwrap(),
                "did not finish the TLS handshake within 2 s",
            ),
        ]);
    for (what, address, words) in places {
        let mut message = told(address, &ca);
        if what == "a client certificate" {
            // TLS 1.3 tells of one once the handshake is over: what was sent by then may be found
            // to have failed before that is read.
            wait_until(words, || {
                message = told(address, &ca);
                message.contains(words)
            });
        }
        assert!(message.contains(words), "{what}: {words:?} is not in {message:?}");
        assert!(message.starts_with(SPEAKER), "{what}: {message}");
        assert_eq!(message.matches("entrepot at").count(), 1, "{what}: {message}");
        for unwanted in [
            "os error",
            "rustls",
            "http://",
            "https://",
            "SendRequest",
            "client error",
            "hyper",
            "connection error",
            "for 0 s",
            "close_notify",
        ] {
            assert!(!message.contains(unwanted), "{what}: {unwanted:?} is in {message:?}");
        }
    }
}

#[test]
fn a_body_that_breaks_off_is_told_in_a_persons_words() {
    let registry = Registry::open();
    let image = Image::random(1, 100_000);
    registry.push(ALPINE, "1", &image);
    let proxy = in_front_of(&registry);
    let faults = [
        Fault::Cut(100, Hangup::Fin),
        Fault::Cut(100, Hangup::Rst),
        Fault::BadChunkSize,
        Fault::Unterminated,
    ];
    for fault in faults {
        registry.fault_always(On::path("/manifests/"), fault);
        drop(proxy.client().send(&manifest(HUB)));
        registry.heal();
    }
    for line in proxy.log() {
        for unwanted in ["os error", "rustls", "hyper", "end of file before"] {
            assert!(!line.contains(unwanted), "{line}");
        }
    }
}

#[test]
fn check_and_pull_say_no_cause_twice() {
    let mut registry = Registry::open();
    let proxy = in_front_of(&registry);
    registry.stop();
    for arguments in [&["check"][..], &["pull", "alpine:1"]] {
        let said = proxy.run(arguments);
        assert_ne!(said.code, Some(0), "{}", said.output);
        assert!(!said.output.contains("os error"), "{}", said.output);
        for line in said.output.lines() {
            assert!(line.matches("Connection refused").count() <= 1, "{line}");
        }
    }
}

#[test]
fn whom_to_ask_changes_while_it_runs() {
    let proxy = Proxy::builder(BINARY).config("contact = \"ask alice\"").start();
    let denied = || message(&proxy.client().get("/nothing").unwrap());
    assert!(denied().contains(" (ask alice): "), "{}", denied());
    assert!(denied().starts_with("entrepot at "), "{}", denied());
    let text = fs::read_to_string(proxy.config_file()).unwrap();
    fs::write(proxy.config_file(), text.replace("ask alice", "ask bob")).unwrap();
    proxy.signal(Signal::HUP);
    proxy.wait_for_log(&["the configuration was read again"]);
    assert!(denied().contains(" (ask bob): "), "{}", denied());
    let page = proxy.client().get("/").unwrap().text();
    assert!(page.contains("questions: ask bob"), "{page}");
}

#[test]
fn what_a_registry_says_is_passed_on_as_it_is() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    for status in [401, 403, 404, 429, 500, 503] {
        registry.fault_always(On::path("/manifests/"), Fault::status(status));
        // What was refused is not asked again so soon.
        let path = format!("/v2/{ALPINE}/manifests/{status}");
        let answer = proxy.client().get(&format!("https://{HUB}{path}")).unwrap();
        registry.heal();
        let is_theirs = message(&answer) == format!("status {status}");
        let is_ours = message(&answer).starts_with(SPEAKER);
        assert!(is_theirs || is_ours, "{status}: {}", answer.text());
        if [401, 403, 404].contains(&status) {
            assert!(is_theirs, "{status}: {}", answer.text());
        }
    }
}

/// A registry whose quota is used up.
fn used_up() -> Registry {
    let registry =
        Registry::builder().access(Access::bearer([User::new("alice")]).anonymous("library/*"));
    let registry = registry.start();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let refusal = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let answer = Response::new(429)
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", "0;w=21600")
        .header("docker-ratelimit-source", "192.0.2.1")
        .header("Retry-After", "60")
        .header("Content-Type", "application/json")
        .body(refusal);
    registry.fault_always(On::path("/manifests/"), Fault::Answer(answer));
    registry
}

#[test]
fn a_quota_that_is_used_up_says_whose_it_is_and_what_can_be_done() {
    let registry = used_up();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    // The second is answered without the registry.
    for _ in 0..2 {
        let answer = proxy.client().send(&manifest(HUB)).unwrap();
        assert_eq!(answer.status, 429);
        let message = message(&answer);
        assert!(message.starts_with(SPEAKER), "{message}");
        for part in [
            "docker.io: the pull quota of this proxy, which has no account there",
            "100 pulls within 6 h",
            "192.0.2.1",
            "whole again by ",
            " UTC",
            "[[registry]]",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        assert_eq!(answer.headers.get("ratelimit-remaining").unwrap_or("0;w=21600"), "0;w=21600");
        assert_ne!(answer.headers.get("retry-after"), Some("0"));
    }
}

/// They wait for minutes without a word where they are told to wait.
#[test]
fn programs_that_would_wait_in_silence_are_told_at_once() {
    let registry = used_up();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    for program in
        ["skopeo/1.9.3", "containers/5.23.1 (github.com/containers/image)", "Buildah/1.28"]
    {
        let request = manifest(HUB).header("User-Agent", program);
        let answer = proxy.client().send(&request).unwrap();
        assert_eq!(
            (answer.status, answer.headers.get("retry-after")),
            (429, Some("0")),
            "{program}"
        );
        assert!(message(&answer).starts_with(SPEAKER), "{}", answer.text());
    }
}

/// An account of the client's own is told of as such: nobody else can do anything about it.
#[test]
fn the_quota_of_a_clients_own_account_is_not_the_proxys() {
    let registry = used_up();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    let request = manifest(HUB).header("Authorization", "Bearer of-alice");
    for _ in 0..2 {
        let answer = proxy.client().send(&request).unwrap();
        assert_eq!(answer.status, 429);
        let words = message(&answer);
        assert!(words.contains("docker.io: the pull quota of your account there"), "{words}");
        assert!(!words.contains("[[registry]]"), "{words}");
    }
}

/// The failure is told with the manifest, whose words engines print.
#[test]
fn a_registry_that_is_away_is_pinged_as_if_it_were_there() {
    let alice = User::new("alice").pushes(PRIVATE);
    let mut registry = Registry::builder().access(Access::bearer([alice.clone()])).start();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    registry.stop();
    let get = |path: &str| Request::get(format!("https://{HUB}{path}"));
    let send = |request: &Request| proxy.client().send(request).unwrap();
    let ping = send(&get("/v2/"));
    assert_eq!(ping.status, 401, "{}", ping.text());
    let challenge = ping.headers.get("www-authenticate").unwrap();
    assert!(
        challenge.starts_with(&format!("Bearer realm=\"https://{HUB}/entrepot/token\"")),
        "{challenge}"
    );
    proxy.wait_for_log(&["ERROR", "/v2/", "Connection refused"]);

    let pull = format!("/entrepot/token?service=docker.io&scope=repository:{ALPINE}:pull");
    let anonymous = send(&get(&pull));
    assert_eq!(anonymous.status, 200);
    let with_login = send(&get(&pull).header("Authorization", alice.basic()));
    assert_eq!(with_login.status, 200, "{}", with_login.text());
    for answer in [anonymous, with_login] {
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        let bearer = format!("Bearer {token}");
        let welcome = send(&get("/v2/").header("Authorization", &bearer));
        assert_eq!(welcome.status, 200, "{}", welcome.text());
        let failed = send(&manifest(HUB).header("Authorization", &bearer));
        assert!([502, 503].contains(&failed.status), "{}", failed.text());
        assert!(message(&failed).starts_with(SPEAKER), "{}", failed.text());
        assert!(message(&failed).contains("Connection refused"), "{}", failed.text());
    }
    // Nobody is logged in, and nobody pushes.
    for query in [
        "service=docker.io&account=alice",
        "service=docker.io&account=alice&offline_token=true",
        "service=docker.io&scope=repository:team/private:pull,push",
    ] {
        let request =
            get(&format!("/entrepot/token?{query}")).header("Authorization", alice.basic());
        let answer = send(&request);
        assert!([502, 503].contains(&answer.status), "{query}: {}", answer.text());
        assert!(message(&answer).contains("Connection refused"), "{query}: {}", answer.text());
    }
    let begin = Request::new("POST", format!("https://{HUB}/v2/{PRIVATE}/blobs/uploads/"));
    let push = send(&begin.header("Content-Length", "0"));
    assert!(
        [502, 503].contains(&push.status) && message(&push).starts_with(SPEAKER),
        "{}",
        push.text()
    );
}

/// A registry that answers, and says nothing of how to authenticate, has let nobody in either.
#[test]
fn nobody_is_logged_in_at_a_registry_that_is_unwell() {
    let alice = User::new("alice").pushes(PRIVATE);
    let registry = Registry::builder().access(Access::bearer([alice.clone()])).start();
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(CONFIG).start();
    let send = |path: &str, login: bool| {
        let request = Request::get(format!("https://{HUB}{path}"));
        let request = if login { request.header("Authorization", alice.basic()) } else { request };
        proxy.client().send(&request).unwrap()
    };
    let login = "/entrepot/token?service=docker.io&account=alice";
    registry.fault_always(On::path("/v2/"), Fault::status(503));
    assert_eq!(send("/v2/", false).status, 401);
    let refused = send(login, true);
    assert!(refused.status >= 500, "{}", refused.text());
    assert!(message(&refused).starts_with(SPEAKER), "{}", refused.text());
    let pull = format!("{login}&scope=repository:{ALPINE}:pull");
    assert_eq!(send(&pull, true).status, 200);
    registry.heal();
    wait_until("it is asked again", || send(login, true).status == 200);
}

/// Who asks for the manifest right after a ping that was waited for in vain waits no more.
#[test]
fn a_silent_registry_is_waited_for_once() {
    let registry = Registry::open();
    let proxy =
        Proxy::builder(BINARY).in_front_of(&registry).upstream("header-timeout = \"2s\"").start();
    let gate = Gate::new();
    registry.fault_always(On::path("/v2/"), Fault::SlowHead(gate.clone()));
    let began = Instant::now();
    let ping = proxy.client().get(&format!("https://{HUB}/v2/")).unwrap();
    assert_eq!(ping.status, 401, "{}", ping.text());
    let pinged = began.elapsed();
    for _ in 0..2 {
        let failed = proxy.client().send(&manifest(HUB)).unwrap();
        assert_eq!(failed.status, 504, "{}", failed.text());
        assert!(message(&failed).contains("no answer within 2 s"), "{}", failed.text());
    }
    let took = began.elapsed();
    assert!(took < pinged + Duration::from_secs(2), "{pinged:?}, {took:?}");
    gate.open();
}

#[test]
fn a_registry_that_was_open_is_pinged_as_open_while_it_is_away() {
    let mut registry = Registry::open();
    let proxy = in_front_of(&registry);
    let ping = || proxy.client().get(&format!("https://{HUB}/v2/")).unwrap();
    assert_eq!(ping().status, 200);
    registry.stop();
    assert_eq!(ping().status, 200);
}
