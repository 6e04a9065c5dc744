//! The PROXY header of a load balancer's connection: it is the same in whatever pieces it comes,
//! and not a byte behind it is lost.

#![no_main]

use entrepot::fuzzing::listener::proxy_header;
use entrepot_fuzz::{Peer, run};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt as _;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let read = |piece: usize| {
        run(async {
            let mut stream = Peer::new(bytes, piece);
            let (client, ahead) = proxy_header(&mut stream).await?;
            let mut rest = ahead.to_vec();
            stream.read_to_end(&mut rest).await.ok()?;
            Some((client, rest))
        })
    };
    let whole = read(bytes.len());
    assert_eq!(whole, read(usize::from(piece)));
    let Some((_, rest)) = whole else { return };
    assert!(bytes.ends_with(&rest));
    let header = &bytes[..bytes.len() - rest.len()];
    assert!(header.starts_with(b"PROXY ") || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    assert!(header.len() <= 4096);
});
