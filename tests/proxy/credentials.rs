//! Credentials that an operator gives a registry serve clients that bring none, and go nowhere
//! else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use entrepot_testkit::canary::assert_no_canary;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Access, Fault, Image, On, Proxy, Registry, Request, Response, Role, User};

use crate::{BINARY, PRIVATE};

const TAG: &str = "1";

fn robot() -> User {
    User::new("robot").pushes(PRIVATE)
}

fn registry(access: Access) -> Registry {
    let registry = Registry::builder().access(access).start();
    registry.push(PRIVATE, TAG, &Image::random(2, 20_000));
    registry
}

fn proxy(registry: &Registry, keys: &str) -> Proxy {
    let table = format!("[[registry]]\nhost = \"docker.io\"\n{keys}");
    Proxy::builder(BINARY).in_front_of(registry).env("RUST_LOG", "trace").tables(&table).start()
}

fn with_password(registry: &Registry) -> Proxy {
    let robot = robot();
    proxy(registry, &format!("username = {:?}\npassword = {:?}", robot.name, robot.password))
}

#[test]
fn a_private_image_is_pulled_by_clients_without_a_name() {
    for access in [Access::bearer([robot()]), Access::basic([robot()])] {
        let registry = registry(access);
        let proxy = with_password(&registry);
        let pulled = proxy.puller().pull(PRIVATE, TAG).unwrap();
        proxy.wait_until_all_kept(&pulled);
        registry.forget_requests();
        let again = proxy.puller().pull(PRIVATE, TAG).unwrap();
        assert!(again.blobs.iter().all(|blob| blob.cache_status() == "entrepot; hit"));
        let requests = registry.requests();
        assert_eq!(requests.len(), 1, "a HEAD of the tag: {}", requests.summary());
        proxy.wait_for_log(&["warn", "everyone who reaches this proxy may pull", "docker.io"]);
        assert_no_canary_in_log(&proxy);
    }
}

/// The configuration file itself is in the proxy's directories here, and has the password.
fn assert_no_canary_in_log(proxy: &Proxy) {
    fs::remove_file(proxy.config_file()).unwrap();
    assert_no_canary(proxy);
}

#[test]
fn a_session_of_the_proxys_own_is_given_to_nobody() {
    let alice = User::new("alice").pulls(PRIVATE);
    let registry = Registry::builder().access(Access::basic([robot(), alice.clone()])).start();
    let (image, other) = (Image::random(1, 20_000), Image::random(1, 20_000));
    registry.push(PRIVATE, TAG, &image);
    registry.push(PRIVATE, "other", &other);
    registry.fault_always(On::path("/v2/"), Fault::Header("Set-Cookie", "SESSION=1".to_owned()));
    let proxy = with_password(&registry);
    let client = proxy.client();
    let ask = |request: Request| client.send(&request).unwrap();
    let url = |path: &str| format!("https://{}/v2/{path}", registry.host());
    let object = |kind: &str, digest: &str| format!("{PRIVATE}/{kind}/{digest}");
    for path in [
        object("manifests", TAG),
        object("manifests", &other.manifest.digest),
        object("manifests", "missing"),
        object("blobs", &image.layers[0].digest),
        format!("{PRIVATE}/tags/list"),
        format!("{PRIVATE}/referrers/{}", image.manifest.digest),
        "_catalog".to_owned(),
        String::new(),
    ] {
        for request in [Request::head(url(&path)), Request::get(url(&path))] {
            let what = format!("{} {path}", request.method);
            assert_eq!(ask(request).headers.get("set-cookie"), None, "{what}");
        }
    }
    let own = Request::get(url("_catalog")).header("Authorization", alice.basic());
    assert_eq!(ask(own).headers.get("set-cookie"), Some("SESSION=1"), "this one is Alice's");
}

#[test]
fn a_password_is_read_from_a_file() {
    let registry = registry(Access::bearer([robot()]));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, format!("{}\n", robot().password)).unwrap();
    let proxy = proxy(&registry, &format!("username = \"robot\"\npassword-file = {file:?}"));
    proxy.puller().pull(PRIVATE, TAG).unwrap();
    assert_no_canary_in_log(&proxy);
}

#[test]
fn a_credential_helper_is_asked_as_engines_ask_it() {
    let registry = registry(Access::basic([robot()]));
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r server\necho \"$server\" >>{}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"robot\",\"Secret\":{:?}}}'\n",
        dir.path().join("asked").display(),
        robot().password
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let table = "[[registry]]\nhost = \"docker.io\"\ncredential-helper = \"test\"";
    let proxy =
        Proxy::builder(BINARY).in_front_of(&registry).env("PATH", &path).tables(table).start();
    proxy.puller().pull(PRIVATE, TAG).unwrap();
    let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
    assert_eq!(asked, "https://index.docker.io/v1/\n", "once for the whole pull");
    assert_no_canary_in_log(&proxy);
}

#[test]
fn credentials_that_are_not_taken_are_told_of() {
    let registry = registry(Access::bearer([robot()]));
    let proxy = proxy(&registry, "username = \"robot\"\npassword = \"wrong\"");
    assert_eq!(proxy.puller().pull(PRIVATE, TAG).unwrap_err().status(), Some(401));
    proxy.wait_for_log(&["warn", "the configured credentials can't be used", "401"]);
}

#[test]
fn a_client_with_a_credential_keeps_its_own() {
    let alice = User::new("alice");
    let registry = registry(Access::bearer([robot(), alice.clone()]));
    let proxy = with_password(&registry);
    proxy.puller().pull(PRIVATE, TAG).unwrap();
    let refused = proxy.puller().user(&alice).pull(PRIVATE, TAG).unwrap_err();
    assert_eq!(refused.status(), Some(401), "Alice may not, whatever the proxy may");
}

#[test]
fn pushes_never_use_them() {
    for access in [Access::bearer([robot()]), Access::basic([robot()])] {
        let registry = registry(access);
        let proxy = with_password(&registry);
        proxy.puller().pull(PRIVATE, TAG).unwrap();
        registry.forget_requests();
        let target = format!("https://{}/v2/{PRIVATE}/blobs/uploads/", registry.host());
        let push = Request::new("POST", target).body("");
        assert_eq!(proxy.client().send(&push).unwrap().status, 401);
        let requests = registry.requests();
        assert!(requests.with_authorization().is_empty(), "{}", requests.summary());
    }
}

#[test]
fn a_foreign_realm_is_shown_no_credential() {
    let hub = registry(Access::bearer([robot()]));
    let thief = Registry::builder()
        .hosts("ghcr.io", "auth.evil.example", "cdn.evil.example")
        .ca_of(&hub)
        .start();
    let robot = robot();
    let table = format!(
        "[[registry]]\nhost = \"docker.io\"\nusername = {:?}\npassword = {:?}",
        robot.name, robot.password
    );
    let builder = Proxy::builder(BINARY).in_front_of(&hub).in_front_of(&thief);
    let proxy = builder.tables(&table).start();
    let challenge = Response::new(401).header(
        "WWW-Authenticate",
        "Bearer realm=\"https://auth.evil.example/token\",service=\"x\"",
    );
    hub.fault_always(On::path("/v2/").at(Role::Registry), Fault::Answer(challenge));
    proxy.puller().pull(PRIVATE, TAG).unwrap_err();
    let asked = thief.requests().to(Role::Auth);
    assert!(!asked.is_empty(), "it was asked, as nobody");
    assert!(asked.with_authorization().is_empty(), "{}", asked.summary());
}

#[test]
fn another_registry_on_the_way_gets_its_own_identity() {
    let front = registry(Access::Open);
    let back_robot = User::new("back").pulls("mirror/app");
    let back = Registry::builder()
        .hosts("ghcr.io", "auth.ghcr.io", "cdn.ghcr.io")
        .ca_of(&front)
        .access(Access::bearer([back_robot.clone()]))
        .start();
    let image = Image::random(1, 30_000);
    back.push("mirror/app", TAG, &image);
    let table = format!(
        "[[registry]]\nhost = \"ghcr.io\"\nusername = {:?}\npassword = {:?}\n\
         [[registry]]\nhost = \"docker.io\"\nusername = \"front\"\npassword = \"front-secret\"",
        back_robot.name, back_robot.password
    );
    let builder = Proxy::builder(BINARY).in_front_of(&front).in_front_of(&back);
    let proxy = builder.tables(&table).start();
    let onward = Fault::answer_with(|request| {
        let path = request.path().replace("/v2/app/", "/v2/mirror/app/");
        Response::new(307).header("Location", format!("https://ghcr.io{path}"))
    });
    front.fault_always(On::path("/v2/app/"), onward);
    let pulled = proxy.puller().pull("app", TAG).unwrap();
    assert_eq!(pulled.blobs[1].response.body, image.layers[0].bytes);
    proxy.wait_until_all_kept(&pulled);
    let again = proxy.puller().pull("app", TAG).unwrap();
    assert!(again.blobs.iter().all(|blob| blob.cache_status() == "entrepot; hit"));
    let front_secret = "ZnJvbnQ6ZnJvbnQtc2VjcmV0";
    let leaked = back.requests().filter(|request| {
        request.authorization().is_some_and(|value| value.contains(front_secret))
    });
    assert!(leaked.is_empty(), "{}", leaked.summary());
}

/// A helper that gives what stands in a file beside it; what is returned writes that.
fn helper(dir: &Path, secret: &str) -> impl Fn(&str) + use<> {
    let (helper, file) = (dir.join("docker-credential-test"), dir.join("secret"));
    let secret_now = format!("$(cat {})", file.display());
    let answer = format!("printf '{{\"Username\":\"robot\",\"Secret\":\"%s\"}}' \"{secret_now}\"");
    fs::write(&helper, format!("#!/bin/sh\n{answer}\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let write = move |secret: &str| fs::write(&file, secret).unwrap();
    write(secret);
    write
}

fn with_helper(registry: &Registry, dir: &Path) -> Proxy {
    let table = "[[registry]]\nhost = \"docker.io\"\ncredential-helper = \"test\"";
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    Proxy::builder(BINARY).in_front_of(registry).env("PATH", &path).tables(table).start()
}

#[test]
fn credentials_that_are_not_taken_any_more_are_read_anew() {
    for access in [Access::bearer([robot()]), Access::basic([robot()])] {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(access);
        let write = helper(dir.path(), "stale");
        let proxy = with_helper(&registry, dir.path());
        assert!(proxy.puller().pull(PRIVATE, TAG).is_err());
        write(&robot().password);
        within_some_seconds(|| proxy.puller().pull(PRIVATE, TAG).is_ok());
    }
}

/// Waits for what comes true within some seconds, and not after a quarter of an hour.
#[track_caller]
fn within_some_seconds(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn credentials_that_have_expired_by_a_403_are_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(Access::basic([robot()]));
    let write = helper(dir.path(), "stale");
    let proxy = with_helper(&registry, dir.path());
    let right = robot().basic();
    // As ECR answers once a login is twelve hours old.
    let expired = Fault::answer_with(move |request| {
        if request.headers.get("authorization") == Some(right.as_str()) {
            return Response::new(200).header("Content-Type", "application/json").body("{}");
        }
        Response::new(403)
            .header("Docker-Distribution-Api-Version", "registry/2.0")
            .header("Content-Type", "application/json")
            .body(r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired."}]}"#)
    });
    registry.fault_always(On::path("/manifests/"), expired);
    let url = format!("https://{}/v2/{PRIVATE}/manifests/{TAG}", registry.host());
    let refused = proxy.client().get(&url).unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.oci_error().contains("docker-credential-test"), "{}", refused.text());
    write(&robot().password);
    within_some_seconds(|| proxy.client().get(&url).unwrap().status == 200);
}

#[test]
fn dead_credentials_close_nothing_that_was_open() {
    for (access, has_public) in [
        (Access::bearer([robot()]).anonymous("library/*"), true),
        (Access::basic([robot()]), false),
    ] {
        let registry = registry(access);
        let public = Image::random(1, 1000);
        registry.push("library/alpine", "1", &public);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, robot().password).unwrap();
        let keys = format!("username = \"robot\"\npassword-file = {file:?}");
        let mut proxy = self::proxy(&registry, &keys);
        let pulled = proxy.puller().pull(PRIVATE, TAG).unwrap();
        proxy.wait_until_all_kept(&pulled);
        fs::write(&file, "dead").unwrap();
        proxy.restart(Signal::TERM);
        // What is public is asked for without them, and what was open is served as it was.
        if has_public {
            proxy.puller().pull("library/alpine", "1").unwrap();
        }
        proxy.puller().pull(PRIVATE, TAG).unwrap();
        proxy.wait_for_log(&["STALE", "credentials (user robot)"]);
        let url = format!("https://{}/v2/{PRIVATE}/manifests/other", registry.host());
        let refused = proxy.client().get(&url).unwrap();
        assert_eq!(refused.status, 401);
        assert!(refused.oci_error().contains("user robot"), "{}", refused.text());
        assert!(refused.headers.get("www-authenticate").is_some());
    }
}
