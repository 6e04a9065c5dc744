//! However a stream comes apart, the count of its requests is the same, and it never goes down.

#![no_main]

use entrepot::Framing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut whole = Framing::default();
    whole.observe(bytes);
    let mut cut = Framing::default();
    for piece in bytes.chunks(usize::from(piece) + 1) {
        let before = (cut.heads(), cut.loss());
        cut.observe(piece);
        assert!(cut.heads() >= before.0);
        assert!(before.1.is_none() || cut.loss() == before.1, "what is lost stays lost");
    }
    assert_eq!((whole.heads(), whole.loss()), (cut.heads(), cut.loss()));
});
