//! SIGHUP: what is configured changes under a running proxy, or stays as it was.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access, Client, Image, Proxy, Registry, Request, User};

use crate::{ALPINE, BINARY, PRIVATE};

/// Replaces a part of the configuration file.
#[track_caller]
fn edit(proxy: &Proxy, before: &str, after: &str) {
    let text = fs::read_to_string(proxy.config_file()).unwrap();
    assert!(text.contains(before), "no {before:?} in {text}");
    fs::write(proxy.config_file(), text.replace(before, after)).unwrap();
}

/// Has the configuration read again, for the so manieth time, and waits until that is done.
#[track_caller]
fn reload(proxy: &Proxy, time: usize) {
    proxy.signal(Signal::HUP);
    proxy.wait_for_logs(&["the configuration was read again"], time);
}

fn write_user(file: &Path, password: &str) {
    fs::write(file, format!("alice:{}\n", bcrypt::hash(password, 4).unwrap())).unwrap();
}

/// The status of a CONNECT as that user.
fn connect(client: Client, password: &str) -> u16 {
    let basic = format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
    let client = client.with_proxy_header("Proxy-Authorization", &basic);
    client.connect("registry-1.docker.io:443").unwrap().0.status
}

#[test]
fn users_and_networks_change_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    write_user(&users, "first");
    let access = format!(
        "[access]\nclients = [\"127.0.0.0/8\"]\nhtpasswd = {:?}",
        users.display().to_string()
    );
    let proxy = Proxy::builder(BINARY).tables(&access).start();
    assert_eq!(connect(proxy.client(), "first"), 200);
    write_user(&users, "second");
    reload(&proxy, 1);
    assert_eq!(connect(proxy.client(), "second"), 200);
    assert_eq!(connect(proxy.client(), "first"), 407, "not remembered either");

    let elsewhere = || proxy.client().from_address([127, 0, 0, 2].into());
    let mut open = elsewhere().plain().unwrap();
    let page = Request::get("/").header("Host", "proxy:3128");
    assert_eq!(open.send(&page).unwrap().status, 200);
    edit(&proxy, "127.0.0.0/8", "127.0.0.1/32");
    reload(&proxy, 2);
    assert_eq!(connect(elsewhere(), "second"), 403);
    assert_eq!(open.send(&page).unwrap().status, 403, "the next request on an open connection");
    assert_eq!(connect(proxy.client(), "second"), 200);
}

#[test]
fn a_registry_gets_the_new_password() {
    for access in [Access::bearer, Access::basic] {
        let robot = User::new("robot").pulls(PRIVATE);
        let registry = Registry::builder().access(access(vec![robot.clone()])).start();
        registry.push(PRIVATE, "1", &Image::random(1, 1000));
        let entry = "[[registry]]\nhost = \"docker.io\"\nusername = \"robot\"\npassword = \"old\"";
        let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(entry).start();
        proxy.puller().pull(PRIVATE, "1").unwrap_err();
        edit(&proxy, "password = \"old\"", &format!("password = {:?}", robot.password));
        reload(&proxy, 1);
        proxy.puller().pull(PRIVATE, "1").unwrap();
        assert!(!proxy.log_contains(&robot.password));
    }
}

#[test]
fn what_other_credentials_opened_is_closed_with_them() {
    for access in [Access::bearer, Access::basic] {
        let robot = User::new("robot").pulls(PRIVATE);
        let registry = Registry::builder().access(access(vec![robot.clone()])).start();
        let image = Image::random(1, 1000);
        registry.push(PRIVATE, "1", &image);
        let entry = format!(
            "[[registry]]\nhost = \"docker.io\"\nusername = \"robot\"\npassword = {:?}",
            robot.password
        );
        let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(&entry).start();
        let pulled = proxy.puller().pull(PRIVATE, "1").unwrap();
        proxy.wait_until_all_kept(&pulled);
        let layer = &image.layers[0].digest;
        let url = format!("https://{}/v2/{PRIVATE}/blobs/{layer}", registry.host());
        assert_eq!(proxy.client().get(&url).unwrap().status, 200);
        edit(&proxy, &entry, "");
        reload(&proxy, 1);
        assert_eq!(proxy.client().get(&url).unwrap().status, 401);
    }
}

#[test]
fn tags_live_as_long_as_the_new_configuration_says() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config("tag-ttl = \"1h\"").start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    let heads = |registry: &Registry| {
        registry.forget_requests();
        proxy.puller().pull(ALPINE, "1").unwrap();
        registry.requests().manifest_heads().len()
    };
    assert_eq!(heads(&registry), 0);
    edit(&proxy, "tag-ttl = \"1h\"", "tag-ttl = \"0s\"");
    reload(&proxy, 1);
    assert_eq!(heads(&registry), 1);
    let config = proxy.operator().get("/api/v1/config").unwrap().json();
    assert_eq!(config["keys"]["tag-ttl"]["value"], "0s");
}

#[test]
fn the_log_becomes_as_loud_as_is_wanted() {
    let proxy = Proxy::builder(BINARY).config("log-level = \"info\"").start();
    let line = |port: u16| {
        let authority = format!("mail.example:{port}");
        proxy.client().connect(&authority).unwrap();
        proxy.wait_for_log(&["DENIED CONNECT", &authority])
    };
    // Ids are of interest to who looks closely.
    assert!(!line(25).contains(" id="));
    edit(&proxy, "log-level = \"info\"", "log-level = \"debug\"");
    reload(&proxy, 1);
    assert!(line(26).contains(" id="));
    edit(&proxy, "log-level = \"debug\"", "log-level = \"info\"");
    reload(&proxy, 2);
    assert!(!line(27).contains(" id="));
}

#[test]
fn what_wants_a_restart_is_named_and_not_done() {
    let proxy = Proxy::builder(BINARY).config("tunnel = \"none\"\npush = \"client\"").start();
    edit(&proxy, "tunnel = \"none\"", "tunnel = \"any\"\nmax-size = \"1GiB\"");
    edit(&proxy, "push = \"client\"", "push = \"deny\"");
    reload(&proxy, 1);
    for key in ["tunnel", "max-size"] {
        proxy.wait_for_log(&["takes effect at the next start", &format!("key={key}")]);
    }
    let (answer, _) = proxy.client().connect("mail.example:25").unwrap();
    assert_eq!(answer.status, 403, "as before");
    let config = proxy.operator().get("/api/v1/config").unwrap().json();
    assert_eq!(config["keys"]["tunnel"]["value"], "none", "{config}");
    assert_eq!(config["keys"]["push"]["value"], "deny");
    assert_eq!(config["waiting_for_restart"], serde_json::json!(["max-size", "tunnel"]));
}

#[test]
fn a_configuration_that_is_not_valid_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    write_user(&users, "first");
    let access = format!("[access]\nhtpasswd = {:?}", users.display().to_string());
    let proxy = Proxy::builder(BINARY).config("push = \"client\"").tables(&access).start();
    let before = proxy.operator().get("/api/v1/config").unwrap().json();
    write_user(&users, "second");
    edit(&proxy, "push = \"client\"", "push = \"maybe\"\ntag-ttl = \"soon\"");
    proxy.signal(Signal::HUP);
    proxy.wait_for_log(&["the configuration stays as it was"]);
    for wrong in ["push: found", "tag-ttl: found"] {
        let line = proxy.wait_for_log(&["error", "is not valid", wrong]);
        assert!(line.contains("entrepot.toml:"), "{line}");
    }
    assert_eq!(connect(proxy.client(), "first"), 200);
    assert_eq!(connect(proxy.client(), "second"), 407);
    assert_eq!(proxy.operator().get("/api/v1/config").unwrap().json(), before);
    // And mended, it is taken.
    edit(&proxy, "push = \"maybe\"\ntag-ttl = \"soon\"", "push = \"deny\"");
    reload(&proxy, 1);
    assert_eq!(connect(proxy.client(), "second"), 200);
}

#[test]
fn what_waits_for_a_restart_is_remembered() {
    let entry = "[[registry]]\nhost = \"one.example\"";
    let proxy = Proxy::builder(BINARY).config("push = \"client\"").tables(entry).start();
    let waiting =
        || proxy.operator().get("/api/v1/config").unwrap().json()["waiting_for_restart"].clone();
    edit(&proxy, entry, &format!("{entry}\n[[registry]]\nhost = \"two.example\""));
    reload(&proxy, 1);
    assert_eq!(waiting(), serde_json::json!(["registry.host"]));
    edit(&proxy, "push = \"client\"", "push = \"deny\"");
    reload(&proxy, 2);
    assert_eq!(waiting(), serde_json::json!(["registry.host"]));
    edit(&proxy, "\n[[registry]]\nhost = \"two.example\"", "");
    reload(&proxy, 3);
    assert_eq!(waiting(), serde_json::json!([]));
}

#[test]
fn the_admin_token_changes_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "the-first-token-for-tests").unwrap();
    let key = format!("admin-token-file = {:?}", file.display().to_string());
    let proxy = Proxy::builder(BINARY).config(&key).start();
    let status = |token: &str| {
        let bearer = format!("Bearer {token}");
        let request = Request::get("/api/v1/stats").header("Authorization", bearer);
        Client::new(proxy.admin_address()).send(&request).unwrap().status
    };
    assert_eq!(status("the-first-token-for-tests"), 200);
    fs::write(&file, "the-second-token-for-tests").unwrap();
    reload(&proxy, 1);
    assert_eq!(status("the-first-token-for-tests"), 401);
    assert_eq!(status("the-second-token-for-tests"), 200);
}
