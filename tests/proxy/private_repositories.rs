//! Cached bytes reach only those whom the registry would serve.

use entrepot_testkit::{
    Access, Client, Gate, Image, Proxy, Puller, Registry, Request, Response, User, fault,
};
use fault::{Fault, On};

use crate::{ALPINE, PRIVATE, in_front_of};

struct World {
    registry: Registry,
    proxy: Proxy,
    image: Image,
    alice: User,
    bob: User,
}

/// A registry with a private image that Alice may pull and Bob may not.
fn world() -> World {
    let alice = User::new("alice").pulls(PRIVATE);
    let bob = User::new("bob").pulls("team/other");
    let access = Access::bearer([alice.clone(), bob.clone()]).anonymous("library/*");
    let registry = Registry::builder().access(access).start();
    let image = Image::random(2, 50_000);
    registry.push(PRIVATE, "1", &image);
    registry.push("team/other", "1", &Image::random(1, 1000));
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    World { registry, proxy, image, alice, bob }
}

impl World {
    /// Somebody behind the proxy who trusts the registry's own hosts as well, since the token
    /// server may be reached through a tunnel.
    fn client(&self) -> Client {
        self.proxy.client().trusting(&self.registry.ca().pem())
    }

    fn puller(&self) -> Puller {
        Puller::new(self.client())
    }

    /// Everything of the private image that somebody may ask for.
    fn questions(&self) -> Vec<Request> {
        let blob = format!("/v2/{PRIVATE}/blobs/{}", self.image.layers[0].digest);
        let manifest = format!("/v2/{PRIVATE}/manifests/{}", self.image.manifest.digest);
        let tag = format!("/v2/{PRIVATE}/manifests/1");
        let whole = [blob.clone(), manifest, tag]
            .into_iter()
            .flat_map(|path| [Request::get(path.clone()), Request::head(path)]);
        whole.chain([Request::get(blob).header("Range", "bytes=0-9")]).collect()
    }

    fn url(&self, request: &Request) -> Request {
        let target = format!("https://{}{}", self.registry.host(), request.target);
        Request { target, ..request.clone() }
    }

    /// What is answered through the proxy must be what the registry itself answers.
    #[track_caller]
    fn assert_answers_as_upstream(&self, authorization: Option<&str>) {
        for question in self.questions() {
            let mut question = self.url(&question);
            if let Some(authorization) = authorization {
                question.headers.push("Authorization", authorization);
            }
            let expected = self.registry.direct_client().send(&question).unwrap();
            let answer = self.client().send(&question).unwrap();
            assert_refused_alike(&question, &answer, &expected);
        }
    }
}

#[track_caller]
fn assert_refused_alike(question: &Request, answer: &Response, expected: &Response) {
    let what = format!("{} {}", question.method, question.target);
    assert!(matches!(expected.status, 401 | 403), "{what}: {}", expected.status);
    assert_eq!(answer.status, expected.status, "{what}");
    assert_eq!(answer.body, expected.body, "{what}");
    let status = answer.headers.get("cache-status").unwrap_or_default();
    assert!(!status.contains("hit"), "{what} tells that it is kept: {status}");
}

#[test]
fn a_kept_image_is_refused_to_those_whom_the_registry_refuses() {
    let world = world();
    world.puller().user(&world.alice).pull(PRIVATE, "1").unwrap();
    world.proxy.wait_until_kept(&world.image.layers[0].digest);

    world.assert_answers_as_upstream(None);
    let direct = Puller::new(world.registry.direct_client()).user(&world.bob);
    for repository in [PRIVATE, "team/other", ALPINE] {
        let visit = direct.visit(repository).unwrap();
        world.assert_answers_as_upstream(visit.authorization());
    }
    world.assert_answers_as_upstream(Some("Bearer made-up"));
    world.assert_answers_as_upstream(Some(&world.bob.basic()));
}

#[test]
fn a_whole_pull_without_rights_fails_as_it_would_without_the_proxy() {
    let world = world();
    world.puller().user(&world.alice).pull(PRIVATE, "1").unwrap();
    for puller in [world.puller(), world.puller().user(&world.bob)] {
        assert_eq!(puller.pull(PRIVATE, "1").unwrap_err().status(), Some(401));
    }
    world.puller().user(&world.alice).pull(PRIVATE, "1").unwrap();
}

#[test]
fn a_download_under_way_is_no_way_in() {
    let world = world();
    let layer = &world.image.layers[0];
    let gate = Gate::new();
    world.registry.fault(On::get(&layer.digest), Fault::Stall(10_000, gate.clone()));
    std::thread::scope(|scope| {
        let alice = scope.spawn(|| world.puller().user(&world.alice).pull(PRIVATE, "1"));
        gate.wait_until_reached(1);
        world.assert_answers_as_upstream(None);
        gate.open();
        alice.join().unwrap().unwrap();
    });
}

#[test]
fn a_kept_private_blob_is_not_served_by_way_of_a_public_repository() {
    let world = world();
    world.puller().user(&world.alice).pull(PRIVATE, "1").unwrap();
    let stolen = world.puller().blob(ALPINE, &world.image.layers[0].digest);
    assert_eq!(stolen.unwrap_err().status(), Some(404));
}

#[test]
fn what_a_client_may_pull_is_a_hit_for_it() {
    let world = world();
    let alice = world.puller().user(&world.alice);
    let first = alice.pull(PRIVATE, "1").unwrap();
    world.proxy.wait_until_all_kept(&first);
    let again = alice.pull(PRIVATE, "1").unwrap();
    assert!(again.blobs.iter().all(|blob| blob.cache_status() == "entrepot; hit"));
}

#[test]
fn public_images_are_pulled_without_a_name() {
    let world = world();
    let first = world.puller().pull(ALPINE, "1").unwrap();
    world.proxy.wait_until_all_kept(&first);
    let again = world.puller().pull(ALPINE, "1").unwrap();
    assert!(again.blobs.iter().all(|blob| blob.cache_status() == "entrepot; hit"));
}

#[test]
fn passwords_of_a_basic_registry_open_only_what_they_open_there() {
    let alice = User::new("alice").pulls(PRIVATE);
    let bob = User::new("bob");
    let access = Access::basic([alice.clone(), bob.clone()]);
    let registry = Registry::builder().access(access).start();
    registry.push(PRIVATE, "1", &Image::random(1, 1000));
    let proxy = in_front_of(&registry);
    proxy.puller().user(&alice).pull(PRIVATE, "1").unwrap();
    let refused = proxy.puller().user(&bob).pull(PRIVATE, "1").unwrap_err();
    assert_eq!(refused.status(), Some(403));
    assert_eq!(proxy.puller().pull(PRIVATE, "1").unwrap_err().status(), Some(401));
}

#[test]
fn a_session_of_another_kind_opens_nothing_to_everybody() {
    let world = world();
    let alice = world.puller().user(&world.alice).visit(PRIVATE).unwrap();
    let token = alice.authorization().unwrap().to_owned();
    // A registry that takes a cookie, or a field of its own, for a credential.
    for field in ["Cookie", "X-Registry-Auth"] {
        let token = token.clone();
        let image = world.image.clone();
        let takes_it = Fault::answer_with(move |request| {
            if request.headers.get(field) == Some(&token) {
                return Response::new(200)
                    .header("Content-Type", &*image.manifest.media_type)
                    .header("Docker-Content-Digest", &*image.manifest.digest)
                    .body(image.manifest.bytes.clone());
            }
            Response::new(401).header("WWW-Authenticate", "Bearer realm=\"https://x.example/\"")
        });
        world.registry.fault_always(On::path("/manifests/1"), takes_it);
        let url = format!("https://{}/v2/{PRIVATE}/manifests/1", world.registry.host());
        let with_session = Request::get(&url).header(field, alice.authorization().unwrap());
        assert_eq!(world.client().send(&with_session).unwrap().status, 401, "{field}");
        assert_eq!(world.client().send(&Request::get(&url)).unwrap().status, 401, "{field}");
        world.registry.heal();
    }
}

#[test]
fn a_login_page_is_no_registrys_yes() {
    let world = world();
    let alice = world.puller().user(&world.alice);
    let pulled = alice.pull(PRIVATE, "1").unwrap();
    world.proxy.wait_until_all_kept(&pulled);
    let layer = &world.image.layers[0];
    let url = format!("https://{}/v2/{PRIVATE}/blobs/{}", world.registry.host(), layer.digest);
    let page = Response::new(200).header("Content-Type", "text/html").body("<html>Log in</html>");
    let login = format!("https://login.example/?next={}", layer.digest);
    let gates = [Fault::Answer(page), Fault::redirect(302, &login), Fault::redirect(302, "/login")];
    for gate in gates {
        world.registry.fault_always(On::path(&layer.digest), gate.clone());
        let answered = world.client().send(&Request::get(&url));
        assert!(answered.is_err() || answered.unwrap().body != layer.bytes, "{gate:?}");
        world.registry.heal();
    }
}
