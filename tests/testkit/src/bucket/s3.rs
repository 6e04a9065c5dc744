//! As much of S3 as a test asks for itself, signed as Amazon describes (Signature Version 4).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;

use crate::client::Client;
use crate::http::{Request, Response};

const REGION: &str = "us-east-1";

/// A server, a bucket there, and who asks.
#[derive(Debug, Clone)]
pub(super) struct S3 {
    server: SocketAddr,
    access_key: String,
    secret: String,
    bucket: String,
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// When it was last written, as the server says it.
    pub modified: String,
}

impl S3 {
    pub(super) fn new(server: SocketAddr, access_key: &str, secret: &str, bucket: &str) -> Self {
        Self {
            server,
            access_key: access_key.to_owned(),
            secret: secret.to_owned(),
            bucket: bucket.to_owned(),
        }
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn make_bucket(&self) {
        let response = self.ask("PUT", "", &[], Bytes::new());
        assert_eq!(response.status, 200, "{}", response.text());
    }

    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        let response = self.ask("GET", key, &[], Bytes::new());
        match response.status {
            200 => Some(response.body),
            404 => None,
            status => panic!("{key}: {status} {}", response.text()),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        let response = self.ask("HEAD", key, &[], Bytes::new());
        assert!(matches!(response.status, 200 | 404), "{key}: {}", response.status);
        response.status == 200
    }

    pub(super) fn put(&self, key: &str, bytes: Bytes) {
        let response = self.ask("PUT", key, &[], bytes);
        assert_eq!(response.status, 200, "{key}: {}", response.text());
    }

    pub(super) fn delete(&self, key: &str) {
        let response = self.ask("DELETE", key, &[], Bytes::new());
        assert!(matches!(response.status, 200 | 204 | 404), "{key}: {}", response.text());
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<Object> {
        let mut objects = Vec::new();
        let mut after = String::new();
        loop {
            let query = [("list-type", "2"), ("prefix", prefix), ("start-after", &after)];
            let response = self.ask("GET", "", &query, Bytes::new());
            assert_eq!(response.status, 200, "{}", response.text());
            let document = response.text();
            objects.extend(elements(&document, "Contents").map(|entry| Object {
                name: element(entry, "Key"),
                size: element(entry, "Size").parse().unwrap(),
                modified: element(entry, "LastModified"),
            }));
            match objects.last() {
                Some(last) if element(&document, "IsTruncated") == "true" => {
                    after.clone_from(&last.name);
                }
                _ => return objects,
            }
        }
    }

    pub(super) fn uploads(&self, prefix: &str) -> Vec<String> {
        let response = self.ask("GET", "", &[("prefix", prefix), ("uploads", "")], Bytes::new());
        assert_eq!(response.status, 200, "{}", response.text());
        elements(&response.text(), "Upload").map(|upload| element(upload, "Key")).collect()
    }

    /// To the first byte and to the last; none is kept.
    pub(super) fn timed(&self, key: &str) -> (Duration, Duration) {
        let request = self.request("GET", key, &[], Bytes::new());
        let began = Instant::now();
        let mut connection = Client::new(self.server).plain().expect("a connection");
        let mut download = connection.start(&request).expect("an answer of the S3 server");
        assert_eq!(download.head().status, 200, "{key}");
        download.read_exactly(1).expect("a first byte");
        let first = began.elapsed();
        download.skip().expect("the rest");
        (first, began.elapsed())
    }

    fn ask(&self, method: &str, key: &str, query: &[(&str, &str)], body: Bytes) -> Response {
        let request = self.request(method, key, query, body);
        Client::new(self.server).send(&request).expect("an answer of the S3 server")
    }

    fn request(&self, method: &str, key: &str, query: &[(&str, &str)], body: Bytes) -> Request {
        let mut path = format!("/{}", self.bucket);
        if !key.is_empty() {
            write!(path, "/{}", encoded(key, "/")).unwrap();
        }
        let mut query: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, ""), encoded(value, "")))
            .collect();
        query.sort();
        let query = query.join("&");
        let (host, time, payload) = (self.server.to_string(), Time::now(), sha256_hex(&body));
        let authorization = self.authorization(method, &path, &query, (&host, &time, &payload));
        let request = Request::new(method, format!("{path}?{query}"))
            .header("Host", host)
            .header("x-amz-content-sha256", payload)
            .header("x-amz-date", time.stamp)
            .header("Authorization", authorization)
            .header("Content-Length", body.len().to_string());
        Request { body, ..request }
    }

    fn authorization(
        &self,
        method: &str,
        path: &str,
        query: &str,
        (host, time, payload): (&str, &Time, &str),
    ) -> String {
        let Time { day, stamp } = time;
        let names = "host;x-amz-content-sha256;x-amz-date";
        let fields = format!("host:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n");
        let canonical = format!("{method}\n{path}\n{query}\n{fields}\n{names}\n{payload}");
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let text =
            format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let first = format!("AWS4{}", self.secret).into_bytes();
        let key = [day.as_str(), REGION, "s3", "aws4_request"]
            .iter()
            .fold(first, |key, part| signed(&key, part));
        let (access_key, signature) = (&self.access_key, hex(&signed(&key, &text)));
        format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        )
    }
}

fn signed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Percent-encoded but for what is unreserved, and these.
fn encoded(text: &str, kept: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_plain || kept.as_bytes().contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

/// A moment, as signatures have it.
struct Time {
    day: String,
    stamp: String,
}

impl Time {
    fn now() -> Self {
        Self::of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    /// Days to a date by Hinnant's `civil_from_days`, years that begin in March.
    fn of(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let day = format!("{year:04}{month:02}{day:02}");
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        let stamp = format!("{day}T{hour:02}{minute:02}{second:02}Z");
        Self { day, stamp }
    }
}

/// The contents of every element of this name: of as little XML as S3 answers with.
fn elements<'a>(document: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    document
        .split(&open)
        .skip(1)
        .map(move |rest| rest.split(&close).next().unwrap_or(""))
        .collect::<Vec<_>>()
        .into_iter()
}

fn element(document: &str, name: &str) -> String {
    let text = elements(document, name).next().unwrap_or_default();
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_its_date() {
        for (seconds, stamp) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_225_599, "20251231T235959Z"),
            (1_835_483_696, "20280301T003456Z"),
        ] {
            assert_eq!(Time::of(seconds).stamp, stamp);
        }
    }

    #[test]
    fn what_is_reserved_is_encoded() {
        assert_eq!(encoded("a/b:c d~", "/"), "a/b%3Ac%20d~");
        assert_eq!(encoded("a/b", ""), "a%2Fb");
    }
}
