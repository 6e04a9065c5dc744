//! Whose certificates are believed, for which host, and what is said of the others.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use entrepot_testkit::proxy::Builder;
use entrepot_testkit::raw::{RawServer, Word};
use entrepot_testkit::registry::HUB;
use entrepot_testkit::tls::Versions;
use entrepot_testkit::{Blob, Image, Leaf, Proxy, Request, Response, Server, TestCa};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, date_time_ymd,
};
use tempfile::TempDir;

use crate::{ALPINE, BINARY};

/// A directory like `/etc/docker/certs.d` with these files.
fn certs_dir(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn with_certs(directory: &Path) -> Builder {
    Proxy::builder(BINARY).upstream(&format!("certs-dir = \"{}\"", directory.display()))
}

fn leading(builder: Builder, host: &str, to: SocketAddr) -> Builder {
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    builder.connect_to(&format!("{host}:{to}"))
}

/// A server that is asked for `/v2/`, and says yes.
fn server(leaf: Leaf) -> Server {
    Server::https(leaf, |_: &Request| Response::new(200))
}

#[track_caller]
/// As far as an engine goes: where a registry can't be asked, that is told with a manifest.
fn ping(proxy: &Proxy, host: &str) -> Response {
    let get = |path: &str| proxy.client().get(&format!("https://{host}/v2/{path}")).unwrap();
    let pong = get("");
    if pong.status == 401 { get("library/alpine/manifests/1") } else { pong }
}

#[test]
fn a_root_is_believed_for_its_host_alone() {
    let ca = TestCa::new("corporate root");
    let (own, other) = (server(ca.leaf(&["own.example"])), server(ca.leaf(&["other.example"])));
    let port = server(ca.leaf(&["own.example"]));
    let directory = certs_dir(&[("own.example/ca.crt", &ca.pem())]);
    let builder = with_certs(directory.path())
        .config("intercept = [\"own.example\", \"own.example:5000\", \"other.example\"]");
    let builder = leading(builder, "own.example", own.address());
    let builder = leading(builder, "own.example:5000", port.address());
    let proxy = leading(builder, "other.example", other.address()).start();
    assert_eq!(ping(&proxy, "own.example").status, 200);
    for host in ["other.example", "own.example:5000"] {
        let refused = ping(&proxy, host);
        assert_eq!(refused.status, 503, "{}", refused.text());
        let message = refused.oci_error();
        assert!(message.contains("certs-dir") && message.contains("corporate root"), "{message}");
    }
}

#[test]
fn a_port_has_a_directory_of_its_own() {
    let (with_port, without) = (TestCa::new("with a port"), TestCa::new("without"));
    let (five, usual) =
        (server(with_port.leaf(&["r.example"])), server(without.leaf(&["r.example"])));
    let directory = certs_dir(&[
        ("r.example:5000/a.crt", &with_port.pem()),
        ("r.example/a.crt", &without.pem()),
    ]);
    let builder =
        with_certs(directory.path()).config("intercept = [\"r.example:5000\", \"r.example\"]");
    let builder = leading(builder, "r.example:5000", five.address());
    let proxy = leading(builder, "r.example", usual.address()).start();
    assert_eq!(ping(&proxy, "r.example:5000").status, 200);
    assert_eq!(ping(&proxy, "r.example").status, 200);
}

/// A registry that wants a client certificate of `clients`, and a proxy with these files for it.
fn demanding(
    clients: &TestCa,
    versions: Versions,
    files: &[(&str, &Leaf)],
) -> (Server, TempDir, Proxy) {
    let ca = TestCa::new("upstream test authority");
    let leaf = ca.leaf(&["r.example"]);
    let server = Server::demanding(leaf, clients, versions, |_: &Request| Response::new(200));
    let mut all = vec![("r.example/ca.crt".to_owned(), ca.pem())];
    for (name, leaf) in files {
        all.push((format!("r.example/{name}.cert"), leaf.certificate_pem().to_owned()));
        all.push((format!("r.example/{name}.key"), leaf.key_pem().to_owned()));
    }
    let all: Vec<_> = all.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let directory = certs_dir(&all);
    let builder = with_certs(directory.path()).config("intercept = [\"r.example\"]");
    let proxy = leading(builder, "r.example", server.address()).start();
    (server, directory, proxy)
}

#[test]
fn a_client_certificate_is_shown_where_it_is_wanted() {
    let clients = TestCa::new("clients");
    let mine = clients.leaf(&["client"]);
    for versions in [Versions::Tls12, Versions::Tls13] {
        let (_server, _directory, proxy) = demanding(&clients, versions, &[("mine", &mine)]);
        let response = ping(&proxy, "r.example");
        assert_eq!(response.status, 200, "{versions:?}: {}", response.text());
        proxy.wait_for_log(&["mine.key", "chmod 600"]);
    }
}

#[test]
fn of_several_the_first_is_shown_that_fits() {
    let (clients, others) = (TestCa::new("clients"), TestCa::new("others"));
    let (mine, wrong) = (clients.leaf(&["client"]), others.leaf(&["client"]));
    let expired = clients.expired_leaf(&["client"]);
    let fits = [("1", &wrong), ("2", &mine), ("3", &expired)];
    let (_server, _directory, proxy) = demanding(&clients, Versions::Both, &fits);
    assert_eq!(ping(&proxy, "r.example").status, 200);
    // Both are of the right issuer: the name decides.
    let (_server, _directory, proxy) =
        demanding(&clients, Versions::Both, &[("2", &mine), ("1", &expired)]);
    let refused = ping(&proxy, "r.example");
    assert_eq!(refused.status, 503);
    assert!(refused.oci_error().contains("certificate expired"), "{}", refused.text());
}

#[test]
fn a_demand_that_can_not_be_met_names_the_place_for_certificates() {
    let (clients, others) = (TestCa::new("clients"), TestCa::new("others"));
    let wrong = others.leaf(&["client"]);
    for versions in [Versions::Tls12, Versions::Tls13] {
        for files in [&[][..], &[("wrong", &wrong)]] {
            let (_server, _directory, proxy) = demanding(&clients, versions, files);
            let refused = ping(&proxy, "r.example");
            assert_eq!(refused.status, 503, "{}", refused.text());
            let message = refused.oci_error();
            for part in ["r.example:443", "client certificate", "certs-dir", "NAME.key"] {
                assert!(message.contains(part), "{versions:?}: no {part:?} in {message:?}");
            }
        }
    }
}

/// What is wrong with a server, and what it shows.
fn bad_leaves(ca: &TestCa) -> Vec<(&'static str, Leaf)> {
    let odd = |change: fn(&mut CertificateParams)| ca.odd_leaf(&[HUB], change);
    vec![
        ("expired", ca.expired_leaf(&[HUB])),
        ("not yet valid", {
            odd(|params| {
                params.not_before = date_time_ymd(2100, 1, 1);
                params.not_after = date_time_ymd(2101, 1, 1);
            })
        }),
        ("another name", ca.leaf(&["other.example", "third.example"])),
        ("self-signed", Leaf::self_signed(&[HUB], |_| {})),
        ("unknown authority", TestCa::new("unknown authority").leaf(&[HUB])),
        (
            "issuer that is no CA",
            ca.chained_leaf(&[HUB], |params| params.is_ca = IsCa::ExplicitNoCa),
        ),
        ("issuer for other names", {
            ca.chained_leaf(&[HUB], |params| {
                params.name_constraints = Some(rcgen::NameConstraints {
                    permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("corp".to_owned())],
                    excluded_subtrees: Vec::new(),
                });
            })
        }),
        ("CA as a server", odd(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("for clients alone", {
            odd(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
        }),
        ("common name alone", {
            odd(|params| {
                params.subject_alt_names.clear();
                params.distinguished_name.push(DnType::CommonName, HUB);
            })
        }),
        ("wildcard of one label too few", ca.leaf(&["*.io"])),
        ("an address", ca.leaf(&["127.0.0.1"])),
    ]
}

#[test]
fn bad_certificates_are_refused_with_cause_and_cure() {
    let ca = TestCa::new("upstream test authority");
    let mut told = String::new();
    for (what, leaf) in bad_leaves(&ca) {
        let blob = Image::random(1, 1000).layers[0].clone();
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Server::https(leaf, {
            let (asked, bytes) = (Arc::clone(&asked), blob.bytes.clone());
            move |_: &Request| {
                asked.fetch_add(1, Ordering::SeqCst);
                Response::new(200).body(bytes.clone())
            }
        });
        let builder = Proxy::builder(BINARY).trusting(&ca);
        let proxy = leading(builder, HUB, server.address()).start();
        let message = refused(&proxy, &blob, what);
        // Which machine speaks is of no interest here.
        let words = message.split_once(": docker.io: ").map_or("", |(_, words)| words);
        let message = format!("docker.io: {words}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{what}: a request was sent");
        writeln!(told, "{what}:\n    {message}").unwrap();
    }
    insta::assert_snapshot!(told);
}

/// The message of a blob that can't be had, of which nothing is kept.
#[track_caller]
fn refused(proxy: &Proxy, blob: &Blob, what: &str) -> String {
    let url = format!("https://{HUB}/v2/{ALPINE}/blobs/{}", blob.digest);
    let response = proxy.client().get(&url).unwrap();
    assert!(matches!(response.status, 502 | 504), "{what}: {}", response.text());
    assert!(!proxy.keeps(&blob.digest), "{what}: something was kept");
    let message = response.oci_error();
    assert!(message.contains(HUB), "{what}: {message}");
    message
}

/// A handshake message of type 2 that chooses TLS 1.1, in a record of that version.
fn tls_1_1_hello() -> Vec<u8> {
    let random = [7; 32];
    // No session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    let body = [&[3, 2][..], &random, &[0, 0, 0x2f, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 2, 0, length + 4, 2, 0, 0, length][..], &body].concat()
}

#[test]
fn servers_that_speak_no_tls_of_today_are_told_apart() {
    let blob = Image::random(1, 1000).layers[0].clone();
    let handshake_failure = vec![21, 3, 3, 0, 2, 2, 40];
    let internal_error = vec![21, 3, 3, 0, 2, 2, 80];
    let plain_http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let cases = [
        ("TLS 1.1", Word::Bytes(tls_1_1_hello()), "TLS 1.2 or newer"),
        ("no cipher suite", Word::Bytes(handshake_failure), "TLS 1.2 or newer"),
        ("an alert", Word::Bytes(internal_error), "internal error"),
        ("an end", Word::Bytes(Vec::new()), "hung up"),
        ("plain HTTP", Word::Bytes(plain_http), "scheme"),
        ("something else", Word::Bytes(b"220 mail.example ESMTP\r\n".to_vec()), "check the port"),
        // It may come before the connection is there, or in the midst of the handshake.
        ("a reset", Word::Reset, "connection to"),
    ];
    for (what, word, cure) in cases {
        let server = RawServer::start(word);
        let proxy = leading(Proxy::builder(BINARY), HUB, server.address()).start();
        let message = refused(&proxy, &blob, what);
        assert!(message.contains(cure), "{what}: {message}");
    }
    // Its backlog takes connections, and nobody ever looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = Proxy::builder(BINARY).upstream("connect-timeout = \"1s\"");
    let proxy = leading(builder, HUB, silent.local_addr().unwrap()).start();
    let message = refused(&proxy, &blob, "silence");
    assert!(message.contains("did not finish the TLS handshake within 1 s"), "{message}");
}

#[test]
fn a_certificate_may_be_its_own_root() {
    let as_ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let own = ["r.example", "other2.example"];
    let expired = |params: &mut CertificateParams| {
        as_ca(params);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let for_clients = |params: &mut CertificateParams| {
        as_ca(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let cases = [
        (Leaf::self_signed(&own, |_| {}), None),
        (Leaf::self_signed(&own, as_ca), None),
        (Leaf::self_signed(&own, expired), Some("expired")),
        (Leaf::self_signed(&own, for_clients), Some("not for servers")),
        (Leaf::self_signed(&["other.example"], as_ca), Some("subject alternative name")),
    ];
    for (leaf, cause) in cases {
        let directory = certs_dir(&[("r.example/server.crt", leaf.certificate_pem())]);
        let server = server(leaf);
        let builder = with_certs(directory.path()).config("intercept = [\"*.example\"]");
        let builder = leading(builder, "other2.example", server.address());
        let proxy = leading(builder, "r.example", server.address()).start();
        let response = ping(&proxy, "r.example");
        match cause {
            None => assert_eq!(response.status, 200, "{}", response.text()),
            Some(cause) => assert!(response.oci_error().contains(cause), "{}", response.text()),
        }
        assert_eq!(ping(&proxy, "other2.example").status, 503, "it is a root for its host alone");
    }
    // Another of the same name is not the one that was given.
    let (given, shown) = (Leaf::self_signed(&own, as_ca), Leaf::self_signed(&own, as_ca));
    let directory = certs_dir(&[("r.example/server.crt", given.certificate_pem())]);
    let server = server(shown);
    let builder = with_certs(directory.path()).config("intercept = [\"r.example\"]");
    let proxy = leading(builder, "r.example", server.address()).start();
    assert_eq!(ping(&proxy, "r.example").status, 503);
}
