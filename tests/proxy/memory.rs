//! Whatever strangers do, the proxy takes no more memory than it may, and others are served.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use entrepot_testkit::image::MANIFEST;
use entrepot_testkit::{
    Blob, Fault, Gate, Image, On, Proxy, Registry, Request, Response, wait_until,
};
use socket2::{Domain, Socket, Type};

use crate::{ALPINE, BINARY, in_front_of};

const MIB: u64 = 1 << 20;
/// Another client than the one that everything else here comes from.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A proxy with the smallest budget that there is.
fn small(registry: &Registry) -> Proxy {
    Proxy::builder(BINARY).in_front_of(registry).config("memory-budget = \"128MiB\"").start()
}

/// A number of `/proc/PID/status`, in bytes.
fn status(proxy: &Proxy, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// Anonymous memory that is there now.
fn resident(proxy: &Proxy) -> u64 {
    status(proxy, "RssAnon")
}

/// Processor time that the proxy has used.
fn processor_time(proxy: &Proxy) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// A connection that takes next to nothing until it is read.
fn stingy(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn blob_target(blob: &Blob) -> String {
    format!("/v2/{ALPINE}/blobs/{}", blob.digest)
}

/// The longest send queue of the connections to the proxy.
fn longest_send_queue(proxy: &Proxy) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", proxy.address().port());
    let queues = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let queue = fields.get(4)?.split(':').next()?;
        fields.get(1)?.ends_with(&port).then(|| u64::from_str_radix(queue, 16).unwrap())
    });
    queues.max().unwrap_or_default()
}

#[test]
fn readers_that_do_not_read_take_little_and_others_are_served() {
    const READERS: usize = 400;
    let registry = Registry::open();
    let image = Image::random(1, 4 << 20);
    registry.push(ALPINE, "1", &image);
    let proxy = small(&registry);
    proxy.wait_until_all_kept(&proxy.puller().pull(ALPINE, "1").unwrap());
    let before = resident(&proxy);
    let request = format!("GET {} HTTP/1.1\r\nHost: mirror\r\n\r\n", blob_target(&image.layers[0]));
    let readers: Vec<TcpStream> = (0..READERS)
        .map(|_| {
            let mut reader = stingy(proxy.address());
            reader.write_all(request.as_bytes()).unwrap();
            reader
        })
        .collect();
    // Each has its head: the rest of its memory follows at once.
    for mut reader in &readers {
        reader.read_exact(&mut [0; 200]).unwrap();
    }
    let layer = &image.layers[0];
    for client in [proxy.client(), proxy.client().from_address(OTHER)] {
        let answer = client.get(&blob_target(layer)).unwrap();
        assert!(answer.body == layer.bytes, "{}", answer.status);
    }
    let growth = resident(&proxy).saturating_sub(before);
    // 265 KiB each would be 104 MiB.
    assert!(growth < 48 * MIB, "{} KiB for each", growth / 1024 / READERS as u64);
    let queue = longest_send_queue(&proxy);
    assert!(queue < 512 * 1024, "{queue} bytes wait in the kernel for one reader");
    // Who reads in the end gets all of it.
    let mut reader = readers.into_iter().next_back().unwrap();
    let mut rest = vec![0; layer.bytes.len() - 1_000];
    reader.read_exact(&mut rest).unwrap();
}

/// A manifest of about so many bytes.
fn padded(image: &Image, number: usize, size: usize) -> Blob {
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["annotations"] = serde_json::json!({ "n": number, "pad": "x".repeat(size) });
    Blob::new(MANIFEST, manifest.to_string())
}

#[test]
fn manifests_under_way_have_a_common_bound() {
    const SIZE: usize = 4 << 20;
    let registry = Registry::open();
    let image = Image::random(1, 1_000);
    registry.push(ALPINE, "1", &image);
    let gate = Gate::new();
    let manifests: Vec<Blob> = (0..24).map(|number| padded(&image, number, SIZE)).collect();
    for manifest in &manifests {
        registry.push_manifest(ALPINE, manifest);
        registry.fault_always(On::path(&manifest.digest), Fault::Stall(SIZE - 1, gate.clone()));
    }
    let proxy = small(&registry);
    let before = resident(&proxy);
    let statuses: Vec<(u16, String)> = std::thread::scope(|scope| {
        let asking: Vec<_> = manifests
            .iter()
            .map(|manifest| {
                let path = format!("/v2/{ALPINE}/manifests/{}", manifest.digest);
                let request = Request::get(path).header("Accept", MANIFEST);
                let client = proxy.client();
                scope.spawn(move || client.send(&request).unwrap())
            })
            .collect();
        registry.wait_for(|requests| requests.path("/manifests/sha256:").len() >= manifests.len());
        // Some have all that there is for this client; the others are refused before long.
        wait_until("nobody was refused", || {
            asking.iter().any(std::thread::ScopedJoinHandle::is_finished)
        });
        let growth = resident(&proxy).saturating_sub(before);
        assert!(growth < 60 * MIB, "{} MiB are under way", growth / MIB);
        // Another client is served meanwhile.
        let other = proxy.client().from_address(OTHER);
        let answer = other.send(&manifest_request("1")).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        gate.open();
        let answers = asking.into_iter().map(|one| one.join().unwrap());
        answers.map(|answer| (answer.status, answer.text())).collect()
    });
    let served = statuses.iter().filter(|(status, _)| *status == 200).count();
    assert!(served >= 1);
    let refused: Vec<_> = statuses.iter().filter(|(status, _)| *status != 200).collect();
    assert!(!refused.is_empty());
    for (status, text) in refused {
        assert_eq!(*status, 503);
        assert!(text.contains("memory-budget") && text.contains("TOOMANYREQUESTS"), "{text}");
    }
}

fn manifest_request(tag: &str) -> Request {
    Request::get(format!("/v2/{ALPINE}/manifests/{tag}")).header("Accept", MANIFEST)
}

#[test]
fn a_listing_with_long_fields_is_passed_on_and_not_kept() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1_000));
    let proxy = in_front_of(&registry);
    proxy.puller().pull(ALPINE, "1").unwrap();
    registry.forget_requests();
    let listing = |link: usize| {
        let link = format!("</v2/{ALPINE}/tags/list?last={}>; rel=\"next\"", "x".repeat(link));
        let page = Response::new(200).header("Content-Type", "application/json");
        Fault::Answer(page.header("Link", link).body(r#"{"tags":["1"]}"#))
    };
    for (number, (length, times)) in [(40_000, 2), (4_000, 1)].into_iter().enumerate() {
        registry.heal();
        registry.fault_always(On::path("/tags/list"), listing(length));
        let path = format!("/v2/{ALPINE}/tags/list?n={number}");
        for _ in 0..2 {
            let answer = proxy.client().get(&path).unwrap();
            assert_eq!((answer.status, answer.text()), (200, r#"{"tags":["1"]}"#.to_owned()));
            assert!(answer.headers.get("link").unwrap().len() > length);
        }
        assert_eq!(registry.requests().path(&format!("n={number}")).len(), times, "{length}");
    }
}

/// Chunks of one byte each.
fn tiny_chunks(count: usize) -> Vec<u8> {
    b"1\r\nx\r\n".repeat(count)
}

#[test]
fn chunks_of_a_byte_cost_little_processor_time() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1_000));
    let proxy = in_front_of(&registry);
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let head = format!(
        "PATCH /v2/{ALPINE}/blobs/uploads/x HTTP/1.1\r\nHost: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        registry.host()
    );
    connection.write(head.as_bytes()).unwrap();
    let before = processor_time(&proxy);
    let writing = std::thread::spawn(move || {
        let _ = connection.write(&tiny_chunks(400_000));
    });
    // What is measured is what it costs in a time.
    std::thread::sleep(Duration::from_secs(3));
    let used = processor_time(&proxy).saturating_sub(before);
    assert!(used < Duration::from_millis(1500), "{used:?} of three seconds");
    drop(proxy);
    writing.join().unwrap();
}

#[test]
fn a_long_head_finds_room_or_is_refused() {
    let registry = Registry::open();
    let proxy = small(&registry);
    let long = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(40_000));
    let before = resident(&proxy);
    let mut refused = 0;
    let mut heads = Vec::new();
    for _ in 0..400 {
        let mut connection = TcpStream::connect(proxy.address()).unwrap();
        connection.write_all(long.as_bytes()).unwrap();
        heads.push(connection);
    }
    // The last ones are over what one client may take.
    let mut last = heads.pop().unwrap();
    let mut answer = String::new();
    let _ = last.read_to_string(&mut answer);
    refused += usize::from(answer.starts_with("HTTP/1.1 503 ") && answer.contains("memory-budget"));
    assert_eq!(refused, 1, "{answer}");
    let length = answer.split("\r\n\r\n").nth(1).unwrap().len();
    assert!(answer.contains(&format!("Content-Length: {length}\r\n")), "{length}: {answer}");
    let growth = resident(&proxy).saturating_sub(before);
    assert!(growth < 48 * MIB, "{} MiB", growth / MIB);
    let other = proxy.client().from_address(OTHER);
    let request = Request::get("/healthz").header("X-Long", "x".repeat(40_000));
    assert_eq!(other.send(&request).unwrap().status, 200);
}
