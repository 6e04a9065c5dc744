//! HTTP/1.1 messages, and reading them from a stream without leniency about where they end.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

/// The longest head that is read; nothing in a test is near it.
const MAX_HEAD: u64 = 256 * 1024;

/// Header fields in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first field of this name, whatever its case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every field of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds a field.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Replaces whatever there is of this name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.push(name, value);
    }

    /// Takes every field of this name away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// As on the wire, with the empty line that ends a head.
    pub(crate) fn to_wire(&self) -> String {
        let mut wire = String::new();
        for (name, value) in self.iter() {
            wire.extend([name, ": ", value, "\r\n"]);
        }
        wire + "\r\n"
    }
}

/// A request, sent or received.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target: a path with its query, a URL, or an authority.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// By which of its server's connections it came; a number for each.
    pub connection: u64,
    /// Whether that connection's client has shown a certificate.
    pub is_certified: bool,
}

impl Request {
    /// A request without header fields and body.
    #[must_use]
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        Self { method: method.to_owned(), target: target.into(), ..Self::default() }
    }

    /// A `GET`.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// A `HEAD`.
    #[must_use]
    pub fn head(target: impl Into<String>) -> Self {
        Self::new("HEAD", target)
    }

    /// With one field more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// With a body; its length is declared, unless `Transfer-Encoding` already says otherwise.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The values of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form(query.as_bytes(), name)
    }

    /// The request as bytes.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut headers = self.headers.clone();
        let chunked = headers.get("transfer-encoding").is_some();
        if !chunked && (!self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT")) {
            headers.set("Content-Length", self.body.len().to_string());
        }
        let head = format!("{} {} HTTP/1.1\r\n{}", self.method, self.target, headers.to_wire());
        let mut wire = head.into_bytes();
        if chunked {
            wire.extend_from_slice(&chunk(&self.body));
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            wire.extend_from_slice(&self.body);
        }
        wire
    }
}

/// The values of a parameter of `application/x-www-form-urlencoded`.
pub(crate) fn form(encoded: &[u8], name: &str) -> Vec<String> {
    url::form_urlencoded::parse(encoded)
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// One chunk of the chunked coding; nothing for no bytes, since an empty chunk would be the last.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// A response, sent or received.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The reason phrase; where a server leaves it empty, one is sent that fits the status.
    pub reason: String,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A response without header fields and body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// With one field more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// What OCI's error document says, `code: message`; empty if the body is none.
    #[must_use]
    pub fn oci_error(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let error = &document["errors"][0];
        match (error["code"].as_str(), error["message"].as_str()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => String::new(),
        }
    }
}

/// A start line and header fields.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) headers: Headers,
}

impl Head {
    /// Reads a head; none where the stream ends before its first byte.
    pub(crate) fn read(reader: &mut dyn BufRead) -> io::Result<Option<Self>> {
        let mut reader = reader.take(MAX_HEAD);
        let Some(start_line) = read_line(&mut reader)? else { return Ok(None) };
        let mut headers = Headers::default();
        loop {
            match read_line(&mut reader)?.as_deref() {
                None => return Err(ended("in the head of a message")),
                Some("") => return Ok(Some(Self { start_line, headers })),
                Some(line) => {
                    let (name, value) = line.split_once(':').ok_or_else(|| malformed(line))?;
                    headers.push(name, value.trim());
                }
            }
        }
    }

    /// The start line of a response as status and reason phrase.
    pub(crate) fn status(&self) -> io::Result<(u16, String)> {
        let line = &self.start_line;
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        let status = parts.next().and_then(|status| status.parse().ok());
        match status {
            Some(status) if version.starts_with("HTTP/1.") => {
                Ok((status, parts.next().unwrap_or_default().to_owned()))
            }
            _ => Err(malformed(line)),
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(ended("in a line"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn ended(whereabouts: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the stream ended {whereabouts}"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what:?}"))
}

/// A body that is being read, which knows where it must end.
#[derive(Debug)]
pub(crate) enum BodyReader {
    Done,
    Length(u64),
    /// What is left of the current chunk.
    Chunked(u64),
    UntilClose,
}

impl BodyReader {
    pub(crate) fn of_request(headers: &Headers) -> io::Result<Self> {
        match Self::declared(headers)? {
            Self::UntilClose => Ok(Self::Done),
            declared => Ok(declared),
        }
    }

    pub(crate) fn of_response(method: &str, status: u16, headers: &Headers) -> io::Result<Self> {
        let tunnel = method == "CONNECT" && status == 200;
        if method == "HEAD" || tunnel || matches!(status, 100..200 | 204 | 304) {
            return Ok(Self::Done);
        }
        Self::declared(headers)
    }

    fn declared(headers: &Headers) -> io::Result<Self> {
        if headers.get("transfer-encoding").is_some() {
            return Ok(Self::Chunked(0));
        }
        match headers.get("content-length") {
            None => Ok(Self::UntilClose),
            Some(length) => length.parse().map(Self::Length).map_err(|_| malformed(length)),
        }
    }

    /// Reads some bytes; none when the body has ended as it should. A stream that ends before is
    /// an error.
    pub(crate) fn read(&mut self, from: &mut dyn BufRead, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Done => Ok(0),
            Self::UntilClose => from.read(into),
            Self::Length(left) => read_up_to(left, from, into),
            Self::Chunked(left) => {
                if *left == 0 {
                    *left = next_chunk(from)?;
                    if *left == 0 {
                        *self = Self::Done;
                        return Ok(0);
                    }
                }
                let count = read_up_to(left, from, into)?;
                if *left == 0 {
                    expect_empty_line(from)?;
                }
                Ok(count)
            }
        }
    }

    /// Reads what is left.
    pub(crate) fn read_to_end(&mut self, from: &mut dyn BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.read(from, &mut buffer)? {
                0 => return Ok(body),
                count => body.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn read_up_to(left: &mut u64, from: &mut dyn BufRead, into: &mut [u8]) -> io::Result<usize> {
    if *left == 0 {
        return Ok(0);
    }
    match from.take(*left).read(into)? {
        0 => Err(ended(&format!("{left} bytes before the body does"))),
        count => {
            *left -= count as u64;
            Ok(count)
        }
    }
}

/// The size of the next chunk; after the last one its trailers are read too.
fn next_chunk(from: &mut dyn BufRead) -> io::Result<u64> {
    let mut limited = from.take(MAX_HEAD);
    let line = read_line(&mut limited)?.ok_or_else(|| ended("before the last chunk"))?;
    let digits = line.split(';').next().unwrap_or_default();
    let size = u64::from_str_radix(digits, 16).map_err(|_| malformed(&line))?;
    if size == 0 {
        while let Some(line) = read_line(&mut limited)? {
            if line.is_empty() {
                return Ok(0);
            }
        }
        return Err(ended("in the trailers"));
    }
    Ok(size)
}

fn expect_empty_line(from: &mut dyn BufRead) -> io::Result<()> {
    match read_line(&mut from.take(2))?.as_deref() {
        Some("") => Ok(()),
        other => Err(malformed(&format!("{other:?} after a chunk"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(mut framing: BodyReader, bytes: &[u8]) -> io::Result<Vec<u8>> {
        framing.read_to_end(&mut io::BufReader::new(bytes))
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        assert_eq!(body(BodyReader::Length(3), b"abcd").unwrap(), b"abc");
        assert_eq!(body(BodyReader::Length(0), b"").unwrap(), b"");
        let chunks = b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nTrailer: 1\r\n\r\nrest";
        assert_eq!(body(BodyReader::Chunked(0), chunks).unwrap(), b"abc");
        assert_eq!(body(BodyReader::UntilClose, b"abc").unwrap(), b"abc");
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        let cases: [(BodyReader, &[u8]); 5] = [
            (BodyReader::Length(3), b"ab"),
            (BodyReader::Chunked(0), b"2\r\nab\r\n"),
            (BodyReader::Chunked(0), b"2\r\nab"),
            (BodyReader::Chunked(0), b"0\r\n"),
            (BodyReader::Chunked(0), b"zz\r\n"),
        ];
        for (framing, bytes) in cases {
            assert!(body(framing, bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let request = Request::new("PATCH", "/v2/x?a=1&a=b%20c").header("Host", "h").body("abc");
        let wire = request.to_wire();
        let mut reader = io::BufReader::new(wire.as_slice());
        let head = Head::read(&mut reader).unwrap().unwrap();
        assert_eq!(head.start_line, "PATCH /v2/x?a=1&a=b%20c HTTP/1.1");
        assert_eq!(head.headers.get("content-length"), Some("3"));
        assert_eq!(request.query("a"), ["1", "b c"]);
        assert_eq!(request.path(), "/v2/x");
    }
}
