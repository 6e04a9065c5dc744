//! Nobody receives a complete wrong body, and none is kept.

use entrepot_testkit::proxy::Signal;
use entrepot_testkit::pull::PullError;
use entrepot_testkit::{Blob, Fault, Hangup, On, Proxy, Registry, Request};

use crate::{ALPINE, one_layer};

const SIZE: usize = 300_000;

fn world() -> (Registry, Proxy, Blob) {
    one_layer(SIZE)
}

/// The blob does not come through, is not kept, and comes through once the registry is well.
#[track_caller]
fn assert_never_completes(registry: &Registry, proxy: &Proxy, blob: &Blob, fault: &Fault) {
    registry.fault_always(On::get(&blob.digest), fault.clone());
    let error = proxy.puller().blob(ALPINE, &blob.digest).unwrap_err();
    assert!(!matches!(error, PullError::WrongBytes { .. }), "{fault:?}: {error}");
    assert!(!proxy.keeps(&blob.digest), "{fault:?} was kept");
    proxy.assert_store_is_sound();
    registry.heal();
}

#[test]
fn a_wrong_bit_never_completes_and_is_never_kept() {
    let (registry, proxy, blob) = world();
    for at in [0, 1, SIZE / 2, SIZE - 1] {
        assert_never_completes(&registry, &proxy, &blob, &Fault::FlipBit(at));
    }
    let good = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(good.response.body, blob.bytes);
    proxy.wait_until_kept(&blob.digest);
}

#[test]
fn something_else_in_place_of_a_blob_never_completes() {
    let (registry, proxy, blob) = world();
    for body in ["<html>Log in</html>", ""] {
        assert_never_completes(&registry, &proxy, &blob, &Fault::Body(body.into()));
    }
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
}

#[test]
fn a_truncated_blob_never_ends_cleanly() {
    let truncated = [
        Fault::Cut(0, Hangup::Fin),
        Fault::Cut(1, Hangup::Rst),
        Fault::Cut(SIZE / 2, Hangup::Fin),
        Fault::Cut(SIZE / 2, Hangup::Rst),
        Fault::Cut(SIZE - 1, Hangup::CloseNotify),
        Fault::ClaimLength(SIZE / 2),
        Fault::ClaimLength(SIZE + 1),
        Fault::BadChunkSize,
    ];
    for fault in truncated {
        let (registry, proxy, blob) = world();
        registry.fault_always(On::get(&blob.digest), fault.clone());
        // What can be continued may well come whole.
        match proxy.puller().blob(ALPINE, &blob.digest) {
            Ok(whole) => assert_eq!(whole.response.body, blob.bytes, "{fault:?}"),
            Err(error) => assert!(!matches!(error, PullError::WrongBytes { .. }), "{error}"),
        }
        registry.heal();
        let good = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        assert_eq!(good.response.body, blob.bytes, "after {fault:?}");
    }
}

#[test]
fn a_wrong_manifest_never_completes_and_is_never_kept() {
    let (registry, proxy, _) = world();
    let digest = registry.tagged(ALPINE, "1").unwrap();
    registry.fault_always(On::get(&digest), Fault::FlipBit(10));
    let error = proxy.puller().pull(ALPINE, &digest).unwrap_err();
    assert!(!matches!(error, PullError::WrongBytes { .. }), "{error}");
    assert!(!proxy.keeps(&digest));
    registry.heal();
    proxy.puller().pull(ALPINE, &digest).unwrap();
}

#[test]
fn content_is_asked_for_as_it_is_stored() {
    let (registry, proxy, blob) = world();
    let path = format!("https://{}/v2/{ALPINE}", registry.host());
    for part in [format!("blobs/{}", blob.digest), "manifests/1".to_owned()] {
        let request =
            Request::get(format!("{path}/{part}")).header("Accept-Encoding", "gzip, zstd");
        assert_eq!(proxy.client().send(&request).unwrap().status, 200);
    }
    let requests = registry.requests();
    let content = requests.method("GET").path(ALPINE);
    assert_eq!(content.len(), 2, "{}", requests.summary());
    for request in content.iter() {
        assert_eq!(request.headers.get("accept-encoding"), Some("identity"));
    }
}

#[test]
fn a_registry_that_compresses_unasked_poisons_nothing() {
    let (registry, proxy, blob) = world();
    registry.fault_always(On::get(&blob.digest), Fault::Gzip);
    // Passed on as what it is, or refused; but never kept as if it were the blob.
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    if let Ok(response) = proxy.client().get(&url)
        && response.status == 200
    {
        assert_eq!(response.headers.get("content-encoding"), Some("gzip"));
    }
    assert!(!proxy.keeps(&blob.digest));
    registry.heal();
    assert_eq!(proxy.puller().blob(ALPINE, &blob.digest).unwrap().response.body, blob.bytes);
}

#[test]
fn a_chunked_blob_with_interim_answers_before_it_is_a_blob() {
    let (registry, proxy, blob) = world();
    let odd = vec![Fault::Chunked, Fault::Interim(3)];
    registry.faults(On::get(&blob.digest), odd, 1);
    let fetched = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(fetched.response.body, blob.bytes);
    proxy.wait_until_kept(&blob.digest);
}

#[test]
fn a_wrong_body_in_place_of_a_part_never_completes() {
    let (registry, proxy, blob) = world();
    let wrong =
        Fault::answer_with(|_| entrepot_testkit::http::Response::new(200).body(vec![0; SIZE]));
    registry.fault_always(On::get(&blob.digest), wrong);
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    for range in ["bytes=-10", "bytes=0-"] {
        let request = Request::get(&url).header("Range", range);
        let mut connection = proxy.client().open(registry.host()).unwrap();
        let mut download = connection.start(&request).unwrap();
        assert!(download.finish().is_err(), "{range}");
    }
    assert!(!proxy.keeps(&blob.digest));
}

#[test]
fn an_empty_answer_in_place_of_a_part_is_no_part() {
    let (registry, proxy, blob) = world();
    let empty = Fault::answer_with(|_| entrepot_testkit::http::Response::new(200));
    registry.fault_always(On::get(&blob.digest), empty);
    let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
    let request = Request::get(&url).header("Range", "bytes=-10");
    assert_eq!(proxy.client().send(&request).unwrap().status, 502);
}

/// A length beside the chunked coding is not the body's; passed on, it would end the body before
/// its digest could be looked at.
#[test]
fn a_length_beside_an_upstreams_coding_does_not_cut_a_body_short() {
    let (registry, proxy, blob) = world();
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_until_kept(&blob.digest);
    // Kept, but not for this repository: what comes is passed on.
    registry.push_blob("other/repo", &blob);
    registry.fault_always(On::get(&blob.digest), Fault::Chunked);
    registry.fault_always(On::get(&blob.digest), Fault::Header("Content-Length", "5".to_owned()));
    if let Ok(got) = proxy.puller().blob("other/repo", &blob.digest) {
        assert_eq!(got.response.body, blob.bytes);
    }
}

#[test]
fn verify_of_a_stopped_store_sets_damage_aside_and_the_next_pull_heals_it() {
    let (registry, mut proxy, blob) = world();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    proxy.signal(Signal::TERM);
    proxy.wait_exit();

    let sound = proxy.run(&["verify", "--json"]);
    assert_eq!(sound.code, Some(0), "{}", sound.output);
    assert!(sound.output.contains(r#""damaged":[]"#), "{}", sound.output);
    proxy.damage(&blob.digest);
    let damaged = proxy.run(&["verify", "--json"]);
    assert_eq!(damaged.code, Some(1));
    assert!(damaged.output.contains(&blob.digest), "{}", damaged.output);
    assert!(!proxy.keeps(&blob.digest));

    let unusable = proxy.run(&["verify", "--cache-dir", "/proc/self"]);
    assert_eq!(unusable.code, Some(2), "{}", unusable.output);

    proxy.start_again();
    let healed = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    assert_eq!(healed.response.body, blob.bytes);
    assert_eq!(registry.requests().blob_gets().path(&blob.digest).len(), 2);
}

#[test]
fn damage_that_a_start_finds_is_healed_within_the_request() {
    for size in [SIZE, 9_000_000] {
        for range in [None, Some("bytes=100-199")] {
            let (registry, mut proxy, blob) = one_layer(size);
            let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
            proxy.wait_until_all_kept(&pulled);
            proxy.signal(Signal::TERM);
            proxy.wait_exit();
            proxy.damage(&blob.digest);
            proxy.start_again();
            let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
            let mut request = Request::get(&url);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let answer = proxy.client().send(&request).unwrap();
            match answer.status {
                206 => assert_eq!(answer.body, blob.bytes.slice(100..200)),
                status => assert!(status == 200 && answer.body == blob.bytes, "{status}"),
            }
            proxy.wait_for_log(&["object quarantined"]);
            proxy.wait_until_kept(&blob.digest);
            proxy.assert_store_is_sound();
            let gets = registry.requests().blob_gets().path(&blob.digest);
            assert_eq!(gets.len(), 2, "{}", gets.summary());
        }
    }
}

#[test]
fn what_is_kept_stays_within_its_bounds() {
    let registry = Registry::open();
    let proxy = Proxy::builder(crate::BINARY)
        .in_front_of(&registry)
        .config("max-size = \"1000kB\"")
        .start();
    let blobs: Vec<_> = (0..6).map(|_| Blob::random(300_000)).collect();
    for blob in &blobs {
        registry.push_blob(ALPINE, blob);
        let got = proxy.puller().blob(ALPINE, &blob.digest).unwrap();
        assert_eq!(got.response.body, blob.bytes);
        proxy.wait_until_kept(&blob.digest);
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while blobs.iter().filter(|blob| proxy.keeps(&blob.digest)).count() > 3 {
        assert!(std::time::Instant::now() < deadline, "more than max-size is kept");
        std::thread::yield_now();
    }
    assert!(proxy.keeps(&blobs[5].digest), "the newest goes last");
}

#[test]
fn a_part_completes_only_once_the_whole_is_proved() {
    const SIZE: usize = 20_000_000;
    for range in ["bytes=15000000-15999999", "bytes=100-199", "bytes=9999990-10000010", "bytes=-1"]
    {
        let (registry, proxy, blob) = one_layer(SIZE);
        registry.fault_always(On::get("/blobs/"), Fault::FlipBit(10_000_000));
        let url = format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest);
        let part = Request::get(&url).header("Range", range);
        let answer = proxy.client().send(&part);
        assert!(answer.as_ref().map_or(true, |answer| answer.status >= 500), "{range}");
        registry.heal();
        let answer = proxy.client().send(&part).unwrap();
        assert_eq!(answer.status, 206, "{range}");
        let field = answer.headers.get("content-range").unwrap();
        let (first, last) =
            field["bytes ".len()..].split_once('/').unwrap().0.split_once('-').unwrap();
        let truth = first.parse::<usize>().unwrap()..=last.parse::<usize>().unwrap();
        assert_eq!(answer.body, blob.bytes.slice(truth), "{range}");
    }
}

#[test]
fn a_part_that_is_passed_on_comes_out_of_the_whole() {
    let (hub, proxy, blob) = one_layer(3_000_000);
    proxy.puller().blob(ALPINE, &blob.digest).unwrap();
    proxy.wait_until_kept(&blob.digest);
    // Kept, and never delivered for this repository.
    hub.push_blob("library/other", &blob);
    hub.fault_always(On::head("/blobs/"), Fault::status(404));
    let url = format!("https://{}/v2/library/other/blobs/{}", hub.host(), blob.digest);
    let part = Request::get(&url).header("Range", "bytes=1000000-1000099");
    hub.fault(On::get("/blobs/"), Fault::FlipBit(5));
    assert!(proxy.client().send(&part).is_err(), "it is wrong elsewhere");
    let answer = proxy.client().send(&part).unwrap();
    assert_eq!(answer.status, 206);
    assert_eq!(answer.headers.get("content-range"), Some("bytes 1000000-1000099/3000000"));
    assert_eq!(answer.body, blob.bytes.slice(1_000_000..1_000_100));
}
