//! The PROXY protocol: a load balancer's word on whose connection it passes on.
//!
//! Spoken by those alone whom the configuration lists (`proxy-protocol-from`), and by them always:
//! one that may leave it out could be made to. What it says replaces the connection's own address
//! wherever a client is meant: access rules, places, passwords, the log.
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2.)

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header that is taken: addresses have 232 bytes at most, and what else there may be
/// (a certificate's name, a cloud's identifiers) is short, and of no use here.
const LONGEST: usize = 4096;
/// The longest line of version 1, with its end ("a 107-byte buffer is always enough").
const LONGEST_LINE: usize = 107;
/// How long the header may take to come.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL: the connection is the load balancer's own.
const LOCAL: u8 = 0x20;

/// What came in place of a header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// Something else.
    #[error("it does not begin with a PROXY header: is `send-proxy` (or the like) on there?")]
    Missing,
    /// A header that is not valid.
    #[error("its PROXY header is not valid")]
    Invalid,
    /// More than any has.
    #[error("its PROXY header is longer than {LONGEST} bytes")]
    TooLong,
    /// The connection ended, or broke, before the header was whole.
    #[error("its PROXY header did not come: {0}")]
    Broken(#[from] io::Error),
}

/// Whose connection it is, if its header tells, and what has been read behind the header.
pub(super) type Told = (Option<SocketAddr>, Bytes);

/// Reads the header that `stream` must begin with.
///
/// Not cancel safe: what has been read is lost.
pub(super) async fn read<T: AsyncRead + Unpin>(stream: &mut T) -> Result<Told, HeaderError> {
    let mut buffer = BytesMut::with_capacity(512);
    loop {
        if let Some((client, length)) = parse(&buffer)? {
            buffer.advance(length);
            return Ok((client, buffer.freeze()));
        }
        if buffer.len() >= LONGEST {
            return Err(HeaderError::TooLong);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Whose connection it is, and how long the header is; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, HeaderError> {
    let common = bytes.iter().zip(SIGNATURE).take_while(|(left, right)| left == right).count();
    let version_1 = bytes.iter().zip(b"PROXY ").take_while(|(left, right)| left == right).count();
    if common.max(version_1) < bytes.len().min(6) {
        return Err(HeaderError::Missing);
    }
    if common > 0 && common < SIGNATURE.len() {
        return if common == bytes.len() { Ok(None) } else { Err(HeaderError::Missing) };
    }
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        let [command, _family, high, low, ..] = rest else { return Ok(None) };
        let length = SIGNATURE.len() + 4 + usize::from(u16::from_be_bytes([*high, *low]));
        if length > LONGEST {
            return Err(HeaderError::TooLong);
        }
        if bytes.len() < length {
            return Ok(None);
        }
        // "The receiver must accept this connection as valid and must use the real connection
        // endpoints and discard the protocol block including the family which is ignored."
        if *command == LOCAL {
            return Ok(Some((None, length)));
        }
        // Behind it there may be something that is taken for a part of it.
        let header = bytes.get(..length).unwrap_or_default();
        return by_crate(header, length).map(Some);
    }
    // What it is does not hang on the pieces in which it comes.
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    match line.windows(2).position(|end| end == b"\r\n") {
        Some(end) => {
            let length = end + 2;
            by_crate(line.get(..length).unwrap_or_default(), length).map(Some)
        }
        None if line.len() < LONGEST_LINE => Ok(None),
        None => Err(HeaderError::Invalid),
    }
}

fn by_crate(bytes: &[u8], expected: usize) -> Result<(Option<SocketAddr>, usize), HeaderError> {
    let Ok((header, length)) = ProxyHeader::parse(bytes, config()) else {
        return Err(HeaderError::Invalid);
    };
    let client = match header.proxied_address() {
        Some(told) if told.protocol == Protocol::Stream => Some(told.source),
        Some(_) => return Err(HeaderError::Invalid),
        None => None,
    };
    if length == expected { Ok((client, length)) } else { Err(HeaderError::Invalid) }
}

fn config() -> ParseConfig {
    ParseConfig { include_tlvs: false, ..ParseConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version_2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0x0c, 0x38];

    async fn told(sent: &[u8]) -> Result<(Option<String>, Vec<u8>), HeaderError> {
        let mut sent = sent;
        let (client, mut ahead) = read(&mut sent).await?;
        let mut rest = ahead.split_to(ahead.len()).to_vec();
        rest.extend_from_slice(sent);
        Ok((client.map(|client| client.to_string()), rest))
    }

    #[tokio::test]
    async fn both_versions_tell_the_client() {
        let v6 = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]].concat();
        let v6 = [v6.as_slice(), &[0; 16], &[0x12, 0x34, 0, 80]].concat();
        let with_tlvs = [TCP4.as_slice(), &[4, 0, 2, 0, 0]].concat();
        let client = || Some("192.0.2.1:4660".to_owned());
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 3128\r\n".to_vec(), client()),
            (b"PROXY TCP6 2001:db8::1 :: 4660 80\r\n".to_vec(), Some("[2001:db8::1]:4660".into())),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &TCP4), client()),
            (version_2(0x21, 0x11, &with_tlvs), client()),
            (version_2(0x21, 0x21, &v6), Some("[2001:db8::1]:4660".into())),
            (version_2(0x20, 0x11, &TCP4), None),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x20, 0x11, &[]), None),
            (version_2(0x21, 0x00, &[]), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            let sent = [header.as_slice(), b"GET / HTTP/1.1"].concat();
            let (client, rest) = told(&sent).await.unwrap();
            assert_eq!((client, rest.as_slice()), (expected, b"GET / HTTP/1.1".as_slice()));
            for end in 0..header.len() {
                let broken = told(&header[..end]).await;
                assert!(matches!(broken, Err(HeaderError::Broken(_))), "{end}: {broken:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_none() {
        for sent in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x00", b"PROXX ", b"\r\n\r\nGET"]
        {
            assert!(matches!(told(sent).await, Err(HeaderError::Missing)), "{sent:?}");
        }
        let longest_of_1 = format!("PROXY UNKNOWN {}", "x".repeat(120));
        for sent in [
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 99999\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 :: 4660 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
            longest_of_1.into_bytes(),
            version_2(0x11, 0x11, &TCP4),
            version_2(0x21, 0x12, &TCP4),
            version_2(0x21, 0x11, &TCP4[..11]),
            version_2(0x21, 0x55, &TCP4),
            [b"PROXY UNKNOWN", [b'x'; 100].as_slice(), b"\r\n"].concat(),
        ] {
            let wrong = told(&sent).await;
            assert!(matches!(wrong, Err(HeaderError::Invalid)), "{sent:?}: {wrong:?}");
        }
        let long = version_2(0x21, 0x11, &[0; LONGEST]);
        assert!(matches!(told(&long[..16]).await, Err(HeaderError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(
            version in 0..3_u8,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let begun: &[u8] = match version {
                0 => b"",
                1 => b"PROXY ",
                _ => SIGNATURE,
            };
            let bytes = [begun, &bytes].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
