//! A client's connection, whatever comes on it: what is served is the same however it comes apart,
//! is beyond doubt for the count of requests, and carries nothing that another server on the way
//! could read in another way.

#![no_main]

use entrepot::Framing;
use entrepot::fuzzing::listener::{Arrived, converse};
use entrepot_fuzz::{Peer, run};
use http::header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = run(converse(Peer::new(bytes, bytes.len())));
    let mut count = Framing::default();
    count.observe(bytes);
    assert!(whole.served.len() as u64 <= count.heads(), "{whole:?}");
    let bodies = whole.served.iter().filter_map(|one| one.body.as_ref());
    assert!(bodies.map(|body| body.len()).sum::<usize>() <= bytes.len());
    for one in &whole.served {
        assert!(one.asked.is_ascii() && !one.asked.contains(['\r', '\n', '#', '\0']), "{one:?}");
        let count = |name| one.fields.get_all(name).iter().count();
        let framing = count(header::CONTENT_LENGTH) + count(header::TRANSFER_ENCODING);
        assert!(count(header::HOST) <= 1 && framing <= 1, "{one:?}");
    }
    let cut = run(converse(Peer::new(bytes, usize::from(piece) + 1)));
    let breaks_off = count.loss().is_some();
    if !breaks_off {
        // One that breaks off may not have been heard before its end was.
        let whole_ones = |one: &&Arrived| one.body.is_some();
        let [one, other] = [&whole, &cut].map(|it| it.served.iter().filter(whole_ones));
        assert!(one.eq(other), "{whole:?} {cut:?}");
        // What is refused may be hyper's to refuse, which says so to the client alone.
        let mut refused = whole.refused.iter().zip(&cut.refused);
        return assert!(refused.all(|(one, other)| one == other));
    }
    // What comes at once with the fault may go with it, and is no request then.
    for (one, other) in whole.served.iter().zip(&cut.served) {
        assert_eq!((&one.asked, &one.fields), (&other.asked, &other.fields));
        if let (Some(one), Some(other)) = (&one.body, &other.body) {
            assert_eq!(one, other);
        }
    }
});
