//! The server and the way to it: what the other tests here stand on.

use std::time::{Duration, Instant};

use entrepot_testkit::image::random_bytes;
use entrepot_testkit::{Bucket, Client, Forwarder, Gate, On, Request, Trouble, wait_until};

#[test]
fn what_is_put_is_there_until_it_is_taken_away() {
    let (bucket, other) = (Bucket::new(), Bucket::new());
    let bytes = random_bytes(100_000);
    for name in ["blobs/a", "a b/c:d", "repositories/r.example:5000/x/_tags/1.0_x"] {
        bucket.write(name, bytes.clone());
        assert_eq!(bucket.read(name), Some(bytes.clone()), "{name}");
    }
    let names = ["a b/c:d", "blobs/a", "repositories/r.example:5000/x/_tags/1.0_x"];
    assert_eq!(bucket.names(""), names);
    assert_eq!(bucket.names("_tags"), names[2..]);
    assert_eq!(bucket.objects()[0].size, 100_000);
    assert!(other.objects().is_empty(), "every test has a place of its own");
    bucket.remove("blobs/a");
    assert!(!bucket.has("blobs/a"));
    assert!(bucket.unfinished_uploads().is_empty());
    bucket.empty();
    assert!(bucket.objects().is_empty());
}

#[test]
fn a_listing_goes_on_to_its_end() {
    let bucket = Bucket::new();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let bucket = &bucket;
            scope.spawn(move || {
                for count in 0..140 {
                    bucket.write(&format!("{part}/{count}"), "");
                }
            });
        }
    });
    assert_eq!(bucket.objects().len(), 8 * 140);
}

/// An answer by way of the forwarder; anonymously, which is refused and answered all the same.
fn ask(forwarder: &Forwarder, path: &str) -> std::io::Result<(u16, usize)> {
    let answer = Client::new(forwarder.address()).send(&Request::get(path))?;
    Ok((answer.status, answer.body.len()))
}

#[test]
fn what_goes_wrong_on_the_way_goes_wrong_and_ends() {
    let bucket = Bucket::new();
    let forwarder = Forwarder::to(bucket.server());
    let (status, usual) = ask(&forwarder, "/").unwrap();
    assert!(usual > 100);

    forwarder.always(On::get("/lost"), Trouble::Status(503));
    assert_eq!(ask(&forwarder, "/lost").unwrap().0, 503);
    assert_eq!(ask(&forwarder, "/").unwrap().1, usual, "others are not concerned");
    forwarder.heal();

    forwarder.times(1, On::path("/"), Trouble::Cut(50));
    assert!(ask(&forwarder, "/").is_err());
    assert!(ask(&forwarder, "/").is_ok(), "it is spent");

    forwarder.times(1, On::path("/"), Trouble::LoseAnswer);
    assert!(ask(&forwarder, "/").is_err());

    forwarder.refuse();
    let refused = ask(&forwarder, "/").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    forwarder.heal();
    assert!(ask(&forwarder, "/").is_ok());

    let gate = Gate::new();
    forwarder.times(1, On::path("/"), Trouble::Stall(20, gate.clone()));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&forwarder, "/"));
        gate.wait_until_reached(1);
        assert!(!asking.is_finished());
        gate.open();
        assert_eq!(asking.join().unwrap().unwrap(), (status, usual));
    });

    let began = Instant::now();
    forwarder.times(1, On::path("/"), Trouble::Delay(Duration::from_millis(200)));
    ask(&forwarder, "/").unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(forwarder.seen("GET", "/").len() >= 8, "{:?}", forwarder.summary());
    forwarder.forget();
    assert!(forwarder.summary().is_empty());
}

#[test]
fn whoever_meets_silence_waits_until_he_goes() {
    let bucket = Bucket::new();
    let forwarder = Forwarder::to(bucket.server());
    forwarder.always(On::path("/"), Trouble::Silence);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&forwarder, "/"));
        forwarder.wait_until_seen("GET", "/", 1);
        assert!(!asking.is_finished());
        forwarder.refuse();
        wait_until("it goes on", || asking.is_finished());
        assert!(asking.join().unwrap().is_err());
    });
}
