//! The PROXY header of a load balancer's connection: it is the same in whatever pieces it comes, and
//! not a byte behind it is lost.

#![no_main]

use entrepot::fuzzing::listener::proxy_header;
use entrepot_fuzz::block_on;
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt as _;

fuzz_target!(|input: (u8, &[u8])| {
    let (at, bytes) = input;
    let read = |cut: usize| {
        block_on(async {
            let (first, second) = bytes.split_at(cut);
            let mut stream = first.chain(second);
            let (client, ahead) = proxy_header(&mut stream).await?;
            let mut rest = ahead.to_vec();
            stream.read_to_end(&mut rest).await.ok()?;
            Some((client, rest))
        })
    };
    let whole = read(bytes.len());
    assert_eq!(whole, read(usize::from(at).min(bytes.len())));
    let Some((_, rest)) = whole else { return };
    assert!(bytes.ends_with(&rest));
    let header = &bytes[..bytes.len() - rest.len()];
    assert!(header.starts_with(b"PROXY ") || header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    assert!(header.len() <= 4096);
});
