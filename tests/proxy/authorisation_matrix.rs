//! Who asks, where, for what, how, and whether it is kept: in every combination the answer is the
//! registry's own.
//!
//! What keeps it, and who is asked, is the test binary's [`Stand`]: one proxy's own store, or a
//! bucket that another replica has filled.

use entrepot_testkit::pull::challenge_parameter;
use entrepot_testkit::{
    Access, Blob, Client, Gate, Image, Puller, Registry, Request, Response, User,
};

use crate::{ALPINE, PRIVATE, Stand};

const OTHER: &str = "team/other";
/// Has what [`ALPINE`] has, and is nobody's but the owner's.
const TWIN: &str = "team/twin";
const REPOSITORIES: [&str; 4] = [ALPINE, PRIVATE, OTHER, TWIN];
/// So that a layer is still on its way when a part of it has come.
const LAYER: usize = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Miss,
    Hit,
    InFlight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tag,
    Manifest,
    Configuration,
    Layer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Get,
    Head,
    Range,
}

const KINDS: [Kind; 4] = [Kind::Tag, Kind::Manifest, Kind::Configuration, Kind::Layer];
const HOWS: [How; 3] = [How::Get, How::Head, How::Range];

struct World {
    stand: Stand,
    owner: User,
    users: Vec<Option<User>>,
}

fn world() -> World {
    let owner = REPOSITORIES.iter().fold(User::new("owner"), |owner, name| owner.pulls(name));
    let alice = User::new("alice").pulls(PRIVATE);
    let bob = User::new("bob").pulls(OTHER);
    let access = Access::bearer([owner.clone(), alice.clone(), bob.clone()]);
    let registry = Registry::builder().access(access.anonymous("library/*")).start();
    let stand = Stand::new(registry);
    let users = vec![None, Some(alice), Some(bob), Some(owner.clone())];
    World { stand, owner, users }
}

/// What is asked for in one cell: new, so that no cell knows of another.
struct Asked {
    image: Image,
    tag: String,
}

impl World {
    fn registry(&self) -> &Registry {
        self.stand.registry()
    }

    fn image(&self, repository: &str) -> Asked {
        let image = Image::random(1, LAYER);
        let tag = image.manifest.digest.replace("sha256:", "t-");
        self.registry().push(repository, &tag, &image);
        if repository == TWIN {
            self.registry().push(ALPINE, &tag, &image);
        }
        Asked { image, tag }
    }

    fn request(
        &self,
        (repository, kind, how): (&str, Kind, How),
        Asked { image, tag }: &Asked,
        authorization: Option<&str>,
    ) -> Request {
        let object = |kind: &str, name: &str| format!("/v2/{repository}/{kind}/{name}");
        let path = match kind {
            Kind::Tag => object("manifests", tag),
            Kind::Manifest => object("manifests", &image.manifest.digest),
            Kind::Configuration => object("blobs", &image.config.digest),
            Kind::Layer => object("blobs", &image.layers[0].digest),
        };
        let url = format!("https://{}{path}", self.registry().host());
        let request = match how {
            How::Get => Request::get(url),
            How::Head => Request::head(url),
            How::Range => Request::get(url).header("Range", "bytes=1-9"),
        };
        let request = request.header("Accept", &*image.manifest.media_type);
        match authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    /// Has the images where they are kept, by pulls of those who may.
    fn warm(&self, repository: &str, user: Option<&User>, images: &[Asked]) {
        let engine = || self.stand.keeping().puller();
        for Asked { tag, .. } in images {
            let pulled = engine().user(&self.owner).pull(repository, tag).unwrap();
            if repository == TWIN {
                engine().pull(ALPINE, tag).unwrap();
            }
            if let Some(user) = user {
                let _ = engine().user(user).pull(repository, tag);
            }
            self.stand.keeping().wait_until_all_kept(&pulled);
        }
        for Asked { image, tag } in images {
            self.stand.wait_until_kept(repository, tag, image);
        }
    }
}

/// What a token server gives somebody for a repository.
fn credential(client: Client, user: Option<&User>, repository: &str) -> Option<String> {
    let puller = Puller::new(client);
    let puller = match user {
        Some(user) => puller.user(user),
        None => puller,
    };
    puller.visit(repository).unwrap().authorization().map(str::to_owned)
}

#[test]
fn every_answer_is_the_registrys_own() {
    let world = world();
    let mut cells = 0;
    for user in &world.users {
        for repository in REPOSITORIES {
            let direct = credential(world.registry().direct_client(), user.as_ref(), repository);
            let through = match user {
                Some(_) => direct.clone(),
                None => credential(world.stand.asked().client(), None, repository),
            };
            for state in [State::Miss, State::Hit, State::InFlight] {
                let questions: Vec<_> =
                    KINDS.into_iter().flat_map(|kind| HOWS.map(|how| (kind, how))).collect();
                let images: Vec<_> = questions.iter().map(|_| world.image(repository)).collect();
                if state == State::Hit || (state == State::InFlight && Stand::FLIES_FROM_KEPT) {
                    world.warm(repository, user.as_ref(), &images);
                }
                for ((kind, how), asked) in questions.into_iter().zip(&images) {
                    let question = (repository, kind, how);
                    let name = user.as_ref().map_or("nobody", |user| &user.name);
                    let cell = format!("{name} {question:?} {state:?}");
                    let expected = world.request(question, asked, direct.as_deref());
                    let expected = world.registry().direct_client().send(&expected).unwrap();
                    let request = world.request(question, asked, through.as_deref());
                    let answer = match state {
                        State::InFlight => {
                            world.ask_in_flight(repository, &asked.image, &request, &expected)
                        }
                        State::Miss | State::Hit => {
                            world.stand.asked().client().send(&request).unwrap()
                        }
                    };
                    compare(&cell, kind, &asked.image, &answer, &expected);
                    cells += 1;
                }
            }
        }
    }
    assert!(cells >= 500, "{cells} cells");
}

impl World {
    /// Asks while the owner's download of the layer is half way.
    fn ask_in_flight(
        &self,
        repository: &str,
        image: &Image,
        asked: &Request,
        expected: &Response,
    ) -> Response {
        let digest = &image.layers[0].digest;
        let gate = Gate::new();
        self.stand.stall(digest, LAYER / 2, &gate);
        let proxy = self.stand.asked();
        std::thread::scope(|scope| {
            let owner = proxy.puller().user(&self.owner);
            let download = scope.spawn(move || owner.blob(repository, digest));
            gate.wait_until_reached(1);
            let asking = scope.spawn(|| proxy.client().send(asked).unwrap());
            if expected.status >= 400 {
                // Refused while the bytes are half here.
                let answer = asking.join().unwrap();
                gate.open();
                download.join().unwrap().unwrap();
                return answer;
            }
            gate.open();
            download.join().unwrap().unwrap();
            asking.join().unwrap()
        })
    }
}

#[track_caller]
fn compare(cell: &str, kind: Kind, image: &Image, answer: &Response, expected: &Response) {
    if expected.status >= 400 {
        assert_eq!(answer.status, expected.status, "{cell}");
        assert_eq!(answer.body, expected.body, "{cell}");
        assert_eq!(answer.headers.get("cache-status"), None, "{cell}: nothing tells what is kept");
        compare_challenges(cell, answer, expected);
        return;
    }
    let object: &Blob = match kind {
        Kind::Tag | Kind::Manifest => &image.manifest,
        Kind::Configuration => &image.config,
        Kind::Layer => &image.layers[0],
    };
    assert_eq!(answer.headers.get("docker-content-digest"), Some(&*object.digest), "{cell}");
    match answer.status {
        200 if expected.body.is_empty() => {
            let length = object.bytes.len().to_string();
            assert_eq!(answer.headers.get("content-length"), Some(&*length), "{cell}");
            assert!(answer.body.is_empty(), "{cell}");
        }
        200 => assert_eq!(answer.body, object.bytes, "{cell}"),
        206 => assert_eq!(answer.body, object.bytes.slice(1..10), "{cell}"),
        other => panic!("{cell}: {other}"),
    }
}

/// But for the realm, which is our own.
#[track_caller]
fn compare_challenges(cell: &str, answer: &Response, expected: &Response) {
    let challenge = |response: &Response, name| {
        let value = response.headers.get("www-authenticate").unwrap_or_default();
        challenge_parameter(value, name)
    };
    for name in ["service", "scope", "error"] {
        assert_eq!(challenge(answer, name), challenge(expected, name), "{cell} {name}");
    }
}
