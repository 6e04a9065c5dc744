//! Clients without a name cost the token server next to nothing; those with one get its own
//! answers.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::pull::challenge_parameter;
use entrepot_testkit::{
    Access, Fault, Hangup, Image, On, Proxy, Puller, Registry, Request, Response, Role, User,
};

use crate::{ALPINE, PRIVATE, in_front_of};

struct World {
    registry: Registry,
    proxy: Proxy,
    image: Image,
    alice: User,
}

/// Everybody may pull one image; Alice may pull another, and push it.
fn world() -> World {
    let alice = User::new("alice").pushes(PRIVATE);
    let access = Access::bearer([alice.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(2, 20_000);
    registry.push(ALPINE, "1", &image);
    registry.push(PRIVATE, "1", &Image::random(1, 20_000));
    let proxy = in_front_of(&registry);
    World { registry, proxy, image, alice }
}

impl World {
    fn get(&self, path: &str) -> Request {
        Request::get(format!("https://{}{path}", self.registry.host()))
    }

    #[track_caller]
    fn send(&self, request: &Request) -> Response {
        self.proxy.client().send(request).unwrap()
    }

    #[track_caller]
    fn own_token(&self) -> String {
        let answer = self.send(&self.get("/entrepot/token?service=x&scope=repository:a:pull"));
        assert_eq!(answer.status, 200);
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn token_requests(&self) -> usize {
        self.registry.requests().to(Role::Auth).len()
    }
}

#[test]
fn a_challenge_leads_to_the_host_that_the_client_knows() {
    let world = world();
    for _ in 0..3 {
        let answer = world.send(&world.get("/v2/"));
        assert_eq!(answer.status, 401);
        let challenge = answer.headers.get("www-authenticate").unwrap();
        let realm = format!("https://{}/entrepot/token", world.registry.host());
        assert_eq!(challenge_parameter(challenge, "realm").unwrap(), realm);
        assert_eq!(challenge_parameter(challenge, "service").unwrap(), world.registry.host());
        let version = answer.headers.get("docker-distribution-api-version");
        assert_eq!(version, Some("registry/2.0"));
    }
    let pings = world.registry.requests();
    assert_eq!(pings.len(), 1, "asked once, then remembered: {}", pings.summary());
}

#[test]
fn a_challenge_for_a_repository_leads_there_as_well() {
    let world = world();
    let path = format!("/v2/{PRIVATE}/manifests/1");
    let answer = world.send(&world.get(&path).header("Authorization", "Bearer made-up"));
    let challenge = answer.headers.get("www-authenticate").unwrap();
    let own = format!("https://{}/entrepot/token", world.registry.host());
    assert_eq!(challenge_parameter(challenge, "realm").unwrap(), own);
    let scope = challenge_parameter(challenge, "scope").unwrap();
    assert_eq!(scope, format!("repository:{PRIVATE}:pull"));
    assert_eq!(challenge_parameter(challenge, "error").unwrap(), "invalid_token");
}

#[test]
fn a_client_without_a_name_costs_no_token_request() {
    let world = world();
    let token = world.own_token();
    assert!(world.registry.requests().is_empty(), "no contact upstream");
    assert_ne!(token, world.own_token());
    let ping = world.get("/v2/").header("Authorization", format!("Bearer {token}"));
    world.send(&world.get("/v2/"));
    assert_eq!(world.send(&ping).status, 200);
}

#[test]
fn many_clients_share_one_token_of_the_registrys() {
    let world = world();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| world.proxy.puller().pull(ALPINE, "1").unwrap());
        }
    });
    assert_eq!(world.token_requests(), 1, "{}", world.registry.requests().summary());
    let ours = |value: &str| value.contains("entrepot-");
    let leaked = world.registry.requests().filter(|r| r.authorization().is_some_and(ours));
    assert!(leaked.is_empty(), "our own token is nobody else's: {}", leaked.summary());
}

#[test]
fn a_request_without_any_token_is_served_as_everybodys() {
    let world = world();
    let path = format!("/v2/{ALPINE}/manifests/1");
    assert_eq!(world.send(&world.get(&path)).status, 200);
    let tags = world.send(&world.get(&format!("/v2/{ALPINE}/tags/list")));
    assert_eq!(tags.json()["tags"][0], "1");
}

#[test]
fn a_token_that_is_not_taken_any_more_is_renewed() {
    let world = world();
    world.proxy.puller().pull(ALPINE, "1").unwrap();
    world.registry.push(ALPINE, "2", &Image::random(1, 1000));
    world.registry.expire_tokens();
    world.proxy.puller().pull(ALPINE, "2").unwrap();
    assert_eq!(world.token_requests(), 2);
}

#[test]
fn a_token_that_opens_too_little_is_not_asked_for_again_and_again() {
    let world = world();
    for _ in 0..3 {
        let answer = world.send(&world.get(&format!("/v2/{PRIVATE}/manifests/1")));
        assert_eq!(answer.status, 401);
    }
    assert!(world.token_requests() <= 1, "{}", world.registry.requests().summary());
}

#[test]
fn credentials_get_the_token_servers_own_answer() {
    let world = world();
    world.send(&world.get("/v2/"));
    let query = format!("service=x&scope=repository:{PRIVATE}:pull&account=alice");
    let ask = world.get(&format!("/entrepot/token?{query}"));
    let answer = world.send(&ask.clone().header("Authorization", world.alice.basic()));
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert!(!token.starts_with("entrepot-"));
    let seen = world.registry.requests().to(Role::Auth);
    assert_eq!(seen.iter().next().unwrap().target, format!("/token?{query}"));
    let wrong = world.send(&ask.header("Authorization", "Basic d3Jvbmc6d3Jvbmc="));
    assert_eq!(wrong.status, 401);
    assert!(wrong.text().contains("incorrect username or password"));

    let manifest = world.get(&format!("/v2/{PRIVATE}/manifests/1"));
    let authorized = manifest.header("Authorization", format!("Bearer {token}"));
    assert_eq!(world.send(&authorized).status, 200);
}

#[test]
fn a_password_grant_is_passed_to_the_token_server() {
    let world = world();
    world.send(&world.get("/v2/"));
    let form = format!(
        "grant_type=password&username={}&password={}&scope=repository:{PRIVATE}:pull",
        world.alice.name, world.alice.password
    );
    let target = world.get("/entrepot/token").target;
    let post = Request::new("POST", target)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form);
    let answer = world.send(&post).json();
    assert!(answer["access_token"].as_str().is_some() && answer["refresh_token"].is_string());
}

#[test]
fn public_pulls_go_on_while_the_token_server_is_away() {
    let world = world();
    let pulled = world.proxy.puller().pull(ALPINE, "1").unwrap();
    world.proxy.wait_until_all_kept(&pulled);
    world.registry.fault_always(On::path("/token").at(Role::Auth), Fault::NoAnswer(Hangup::Fin));
    let alice = Puller::new(world.proxy.client()).user(&world.alice);
    let pulled = alice.pull(ALPINE, "1").unwrap();
    assert!(pulled.blobs.iter().all(|blob| blob.cache_status() == "entrepot; hit"));
    // That token is nobody's: it opens nothing that is Alice's alone.
    alice.pull(PRIVATE, "1").unwrap_err();
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut world = world();
    let pulled = world.proxy.puller().pull(ALPINE, "1").unwrap();
    world.proxy.wait_until_all_kept(&pulled);
    world.proxy.restart(Signal::TERM);
    world.registry.forget_requests();
    world.proxy.puller().pull(ALPINE, "1").unwrap();
    let requests = world.registry.requests().to(Role::Registry).path("/v2/library");
    assert_eq!(requests.len(), 1, "a HEAD of the tag: {}", requests.summary());
    let blob = &world.image.layers[0].digest;
    world.registry.forget_requests();
    world.proxy.puller().blob(ALPINE, blob).unwrap();
    assert!(world.registry.requests().is_empty(), "{}", world.registry.requests().summary());
}

#[test]
fn a_push_goes_under_the_clients_own_credential_or_none() {
    let world = world();
    let target = world.get(&format!("/v2/{PRIVATE}/blobs/uploads/")).target;
    world.send(&world.get("/v2/"));
    let own = format!("Bearer {}", world.own_token());
    for authorization in [None, Some(own.as_str())] {
        let mut push = Request::new("POST", target.clone()).body("");
        if let Some(authorization) = authorization {
            push = push.header("Authorization", authorization);
        }
        assert_eq!(world.send(&push).status, 401);
    }
    let pushes = world.registry.requests().method("POST");
    assert_eq!(pushes.len(), 2);
    assert!(pushes.with_authorization().is_empty(), "{}", pushes.summary());
}

#[test]
fn other_methods_have_no_business_at_the_token_endpoint() {
    let world = world();
    let target = world.get("/entrepot/token").target;
    let answer = world.send(&Request::new("DELETE", target));
    assert_eq!(answer.status, 405);
    assert_eq!(answer.headers.get("allow"), Some("GET, POST"));
}

#[test]
fn no_login_succeeds_unseen_while_the_token_server_is_away() {
    for fault in [Fault::status(503), Fault::NoAnswer(Hangup::Rst)] {
        let world = world();
        world.proxy.puller().pull(ALPINE, "1").unwrap();
        world.registry.fault_always(On::path("/").at(Role::Auth), fault);
        let wrong = "Basic YWxpY2U6d3Jvbmc=";
        let pull = format!("scope=repository:{ALPINE}:pull");
        let logins = [
            "service=s&account=alice".to_owned(),
            format!("service=s&{pull}&offline_token=true"),
            format!("service=s&scope=repository:{PRIVATE}:pull,push"),
            format!("service=s&{pull}&scope=repository:{PRIVATE}:push"),
        ];
        for query in &logins {
            let ask = world.get(&format!("/entrepot/token?{query}")).header("Authorization", wrong);
            assert!(world.send(&ask).status >= 500, "{query}");
        }
        let url = format!("https://{}/entrepot/token", world.registry.host());
        let post = |form: &str| {
            let kind = "application/x-www-form-urlencoded";
            world.send(
                &Request::new("POST", &url).header("Content-Type", kind).body(form.to_owned()),
            )
        };
        let form = "grant_type=password&username=alice&password=wrong&service=s";
        assert!(post(form).status >= 500);
        assert!(post(&format!("{form}&{pull}&access_type=offline")).status >= 500);
        // Pulls go on, with what everybody has.
        let ask = world.get(&format!("/entrepot/token?service=s&{pull}"));
        for answer in
            [world.send(&ask.header("Authorization", wrong)), post(&format!("{form}&{pull}"))]
        {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.json()["token"].as_str().unwrap().starts_with("entrepot-"));
        }
    }
}

#[test]
fn a_realm_that_has_moved_is_asked_for_anew() {
    let world = world();
    world.proxy.puller().pull(ALPINE, "1").unwrap();
    let host = world.registry.host().to_owned();
    // The old token server is gone, and the registry has its own now.
    world.registry.fault_always(On::path("/").at(Role::Auth), Fault::status(404));
    let challenge = format!("Bearer realm=\"https://{host}/new/token\",service=\"s\"");
    let token = Response::new(200)
        .header("Content-Type", "application/json")
        .body(r#"{"access_token":"new","token":"","expires_in":300}"#);
    world.registry.fault_always(On::path("/new/token"), Fault::Answer(token));
    let manifest = Fault::answer_with(move |request| {
        if request.headers.get("authorization") == Some("Bearer new") {
            return Response::new(200)
                .header("Content-Type", entrepot_testkit::image::MANIFEST)
                .body("{}");
        }
        Response::new(401).header("WWW-Authenticate", &challenge)
    });
    world.registry.fault_always(On::path("/v2/"), manifest);
    let path = format!("/v2/{ALPINE}/manifests/never-seen");
    let answer = world.send(&world.get(&path));
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    // And for clients with a login.
    let query = format!("service=s&scope=repository:{ALPINE}:pull");
    let ask = world.get(&format!("/entrepot/token?{query}"));
    let answer = world.send(&ask.header("Authorization", world.alice.basic()));
    assert_eq!(answer.json()["access_token"], "new", "{}", answer.text());
}

#[test]
fn a_registry_that_wants_no_token_any_more_is_asked_without_one() {
    let mut world = world();
    world.proxy.puller().pull(ALPINE, "1").unwrap();
    world.proxy.restart(Signal::TERM);
    world.registry.fault_always(On::path("/").at(Role::Auth), Fault::NoAnswer(Hangup::Rst));
    let open = Response::new(200).header("Content-Type", "application/json").body("{}");
    world.registry.fault_always(On::path("/v2/"), Fault::Answer(open));
    let path = format!("/v2/{ALPINE}/manifests/never-seen");
    assert_eq!(world.send(&world.get(&path)).status, 200);
}
