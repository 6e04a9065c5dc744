//! What a pull would meet is told before it is tried, and without asking a registry.

use entrepot_testkit::{Access, Fault, Image, On, Proxy, Registry, Request, Response, User};
use serde_json::Value;

use crate::{ALPINE, BINARY, PRIVATE, in_front_of};

#[track_caller]
fn explain(proxy: &Proxy, image: &str) -> Value {
    let answer = proxy.admin(&format!("/api/v1/explain?image={image}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn says(told: &Value, part: &str) {
    let words = told["words"].as_array().unwrap();
    assert!(words.iter().any(|word| word.as_str().unwrap().contains(part)), "{part}: {told:#}");
}

fn world(config: &str) -> (Registry, Proxy, Image) {
    let registry = Registry::open();
    let image = Image::random(2, 10_000);
    registry.push(ALPINE, "1", &image);
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(config).start();
    (registry, proxy, image)
}

#[track_caller]
fn pull(proxy: &Proxy) {
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
}

#[test]
fn what_is_not_here_would_be_fetched() {
    let (registry, proxy, _image) = world("");
    let told = explain(&proxy, "alpine:1");
    assert_eq!(told["outcome"], "fetched", "{told:#}");
    assert_eq!(told["image"], "docker.io/library/alpine:1");
    assert_eq!((&told["tag"], &told["served_secs_ago"]), (&Value::Null, &Value::Null));
    says(&told, "would be fetched from docker.io");
    says(&told, "no credentials are configured");
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn what_is_here_is_counted_and_its_tag_asked_about() {
    let (registry, proxy, image) = world("");
    pull(&proxy);
    registry.forget_requests();
    let told = explain(&proxy, "alpine:1");
    assert_eq!(told["outcome"], "revalidated", "{told:#}");
    assert_eq!(told["tag"]["digest"], image.manifest.digest);
    assert_eq!(told["tag"]["is_fresh"], false);
    assert!(told["granted_secs"].as_u64().unwrap() > 3000, "{told:#}");
    assert_eq!(told["objects"].as_array().unwrap().len(), 4);
    says(&told, "of 4 objects that are known to belong to it, 4 are kept");
    proxy.lose(&image.layers[0].digest);
    let by_digest = explain(&proxy, &format!("alpine@{}", image.manifest.digest));
    assert_eq!(by_digest["outcome"], "hit", "{by_digest:#}");
    assert!(registry.requests().is_empty(), "{}", registry.requests().summary());
}

#[test]
fn a_fresh_tag_is_a_hit() {
    let (_registry, proxy, _image) = world("tag-ttl = \"1h\"");
    pull(&proxy);
    let told = explain(&proxy, "alpine:1");
    assert_eq!(told["outcome"], "hit", "{told:#}");
    assert_eq!(told["tag"]["ttl_secs"], 3600);
    says(&told, "would come from the store, and docker.io not be asked");
}

#[test]
fn a_registry_that_is_away_or_refuses_is_told() {
    let (mut registry, proxy, _image) = world("");
    pull(&proxy);
    let answer = Response::new(429).header("Retry-After", "120");
    registry.fault_always(On::path("/v2/"), Fault::Answer(answer));
    proxy.puller().pull(ALPINE, "1").unwrap();
    let limited = explain(&proxy, "alpine:1");
    assert_eq!(limited["outcome"], "stale", "{limited:#}");
    assert!(limited["trouble"].as_str().unwrap().contains("429"), "{limited:#}");
    let other = in_front_of(&registry);
    registry.stop();
    other.puller().pull(ALPINE, "1").unwrap_err();
    let away = explain(&other, "alpine:1");
    assert_eq!(away["outcome"], "fails", "{away:#}");
    says(&away, "a pull of docker.io/library/alpine:1 would fail");
}

#[test]
fn offline_is_told() {
    let (_registry, proxy, _image) = world("offline = true");
    let told = explain(&proxy, "alpine:1");
    assert_eq!(told["outcome"], "fails");
    says(&told, "offline = true");
}

#[test]
fn who_the_proxy_is_is_told_without_the_password() {
    let alice = User::new("alice").pulls(PRIVATE);
    let registry = Registry::builder().access(Access::bearer([alice.clone()])).start();
    registry.push(PRIVATE, "1", &Image::random(1, 1000));
    let password = &alice.password;
    let table = format!(
        "[[registry]]\nhost = \"docker.io\"\nusername = \"alice\"\npassword = \"{password}\""
    );
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).tables(&table).start();
    let answer = proxy.admin("/api/v1/explain?image=team/private:1");
    assert!(!answer.text().contains(password.as_str()), "{}", answer.text());
    says(&answer.json(), "alice");
}

#[test]
fn a_registry_that_is_not_intercepted_is_passed_by() {
    let proxy = Proxy::builder(BINARY).start();
    let told = explain(&proxy, "registry.example/app");
    assert_eq!(told["outcome"], "passed_by");
    says(&told, "intercept-also");
    for query in ["", "?image=", "?image=A", "?image=a&x=y", "?name=a"] {
        let request = Request::get(format!("/api/v1/explain{query}"));
        let client = entrepot_testkit::Client::new(proxy.admin_address());
        assert_eq!(client.send(&request).unwrap().status, 400, "{query}");
    }
}
