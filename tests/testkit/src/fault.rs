//! What a server does wrong, how often, and to which requests.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use crate::PATIENCE;
use crate::http::{Request, Response};
use crate::requests::Role;

/// Something that others wait for until a test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    reached: usize,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.update(|state| state.open = true);
    }

    /// Waits, as a server does, until the gate is open.
    pub fn pass(&self) {
        self.update(|state| state.reached += 1);
        self.wait(|state| state.open);
    }

    /// Waits until that many have come to the gate.
    #[track_caller]
    pub fn wait_until_reached(&self, count: usize) {
        let seen = self.wait(|state| state.reached >= count);
        assert!(seen, "fewer than {count} came to the gate within {PATIENCE:?}");
    }

    fn update(&self, change: impl FnOnce(&mut GateState)) {
        let (state, changed) = &*self.0;
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    fn wait(&self, done: impl Fn(&GateState) -> bool) -> bool {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(state, PATIENCE, |state| !done(state));
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

/// How a server hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// The connection is closed without a word of TLS about it.
    Fin,
    /// TLS says that this is the end: only the framing of HTTP tells that it is not.
    CloseNotify,
    /// The connection is reset.
    Rst,
}

/// What a server does wrong. Offsets count bytes of the body.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this instead.
    Answer(Response),
    /// Answers with what a test makes of the request.
    AnswerWith(Answer),
    /// Sends other bytes of the same length: the lowest bit of this byte is inverted.
    FlipBit(usize),
    /// Sends this in place of the body, as if nothing were the matter.
    Body(Bytes),
    /// Sets a header field.
    Header(&'static str, String),
    /// Hangs up after so many bytes.
    Cut(usize, Hangup),
    /// Waits at the gate after so many bytes.
    Stall(usize, Gate),
    /// Waits at the gate before the head.
    SlowHead(Gate),
    /// Claims this length, whatever is sent, and then hangs up.
    ClaimLength(usize),
    /// Uses the chunked coding, correctly.
    Chunked,
    /// Uses the chunked coding and hangs up where the last chunk should be.
    Unterminated,
    /// Uses the chunked coding with a size that is no number after the first chunk.
    BadChunkSize,
    /// Compresses the body, whatever `Accept-Encoding` says.
    Gzip,
    /// Sends no more than so many bytes a second.
    Rate(usize),
    /// Sends so many interim responses first.
    Interim(usize),
    /// Hangs up instead of an answer.
    NoAnswer(Hangup),
}

/// A test's own way to answer.
#[derive(Clone)]
pub struct Answer(Arc<dyn Fn(&Request) -> Response + Send + Sync>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl Fault {
    /// Answers with what the test makes of the request.
    #[must_use]
    pub fn answer_with(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::AnswerWith(Answer(Arc::new(answer)))
    }

    /// An answer of this status with an error document.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"TEST","message":"status {status}"}}]}}"#);
        let response = Response::new(status).header("Content-Type", "application/json").body(body);
        Self::Answer(response)
    }

    /// A redirect to `location`.
    #[must_use]
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::Answer(Response::new(status).header("Location", location))
    }

    fn gate(&self) -> Option<&Gate> {
        match self {
            Self::Stall(_, gate) | Self::SlowHead(gate) => Some(gate),
            _ => None,
        }
    }

    fn apply(&self, request: &Request, mut reply: Reply) -> Reply {
        let delivery = &mut reply.delivery;
        match self {
            Self::Answer(response) => reply.response = response.clone(),
            Self::AnswerWith(answer) => reply.response = (answer.0)(request),
            Self::FlipBit(at) => reply.response.body = flipped(&reply.response.body, *at),
            Self::Body(body) => reply.response.body = body.clone(),
            Self::Header(name, value) => reply.response.headers.set(name, value.clone()),
            Self::Cut(at, hangup) => delivery.cut = Some((*at, *hangup)),
            Self::Stall(at, gate) => delivery.stall = Some((*at, gate.clone())),
            Self::SlowHead(gate) => delivery.slow_head = Some(gate.clone()),
            Self::ClaimLength(length) => delivery.framing = Framing::Claimed(*length),
            Self::Chunked => delivery.framing = Framing::Chunked,
            Self::Unterminated => delivery.framing = Framing::Unterminated,
            Self::BadChunkSize => delivery.framing = Framing::BadChunkSize,
            Self::Gzip => gzip_response(&mut reply.response),
            Self::Rate(rate) => delivery.bytes_per_sec = Some(*rate),
            Self::Interim(count) => delivery.interim = *count,
            Self::NoAnswer(hangup) => delivery.no_answer = Some(*hangup),
        }
        reply
    }
}

fn flipped(body: &Bytes, at: usize) -> Bytes {
    let mut bytes = body.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes.into()
}

fn gzip_response(response: &mut Response) {
    response.headers.set("Content-Encoding", "gzip");
    response.body = gzip(&response.body).into();
}

/// A gzip stream of stored blocks (RFC 1952, RFC 1951 §3.2.4): its coding is what matters here.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    const MAX_STORED: usize = 0xffff;
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for block in bytes.chunks(MAX_STORED) {
        let length = u16::try_from(block.len()).unwrap();
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    let length = u32::try_from(bytes.len()).expect("a body below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
    })
}

/// A response and how it is sent.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// What is said.
    pub response: Response,
    pub(crate) delivery: Delivery,
}

impl Reply {
    /// No answer: the connection ends so.
    #[must_use]
    pub fn none(hangup: Hangup) -> Self {
        let delivery = Delivery { no_answer: Some(hangup), ..Delivery::default() };
        Self { response: Response::new(200), delivery }
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self { response, delivery: Delivery::default() }
    }
}

impl Reply {
    /// The same, of which the rest waits at the gate after so many bytes of the body.
    #[must_use]
    pub fn stalling(mut self, after: usize, gate: Gate) -> Self {
        self.delivery.stall = Some((after, gate));
        self
    }
}

/// How a response is sent; by default as it should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delivery {
    pub(crate) slow_head: Option<Gate>,
    pub(crate) no_answer: Option<Hangup>,
    pub(crate) interim: usize,
    pub(crate) framing: Framing,
    pub(crate) stall: Option<(usize, Gate)>,
    pub(crate) cut: Option<(usize, Hangup)>,
    pub(crate) bytes_per_sec: Option<usize>,
}

/// How a body's end is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    #[default]
    Length,
    Claimed(usize),
    Chunked,
    Unterminated,
    BadChunkSize,
}

/// Which requests a fault is about: all, unless narrowed.
#[derive(Debug, Clone, Default)]
pub struct On {
    role: Option<Role>,
    method: Option<&'static str>,
    path: String,
}

impl On {
    /// Requests whose path and query contain this.
    #[must_use]
    pub fn path(part: impl Into<String>) -> Self {
        Self { path: part.into(), ..Self::default() }
    }

    /// `GET`s whose path and query contain this.
    #[must_use]
    pub fn get(part: impl Into<String>) -> Self {
        Self { method: Some("GET"), ..Self::path(part) }
    }

    /// `HEAD`s whose path and query contain this.
    #[must_use]
    pub fn head(part: impl Into<String>) -> Self {
        Self { method: Some("HEAD"), ..Self::path(part) }
    }

    /// Those of them that reach this server.
    #[must_use]
    pub fn at(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Requests of this method whose path and query contain this.
    #[must_use]
    pub fn method(method: &'static str, part: impl Into<String>) -> Self {
        Self { method: Some(method), ..Self::path(part) }
    }

    fn matches(&self, role: Role, request: &Request) -> bool {
        self.role.is_none_or(|wanted| wanted == role) && self.is_about(request)
    }

    /// The same, whatever server it reaches.
    pub(crate) fn is_about(&self, request: &Request) -> bool {
        self.method.is_none_or(|method| method == request.method)
            && request.target.contains(&self.path)
    }
}

/// What is to go wrong, in the order in which it was asked for.
#[derive(Debug, Default)]
pub(crate) struct FaultScript {
    entries: Mutex<Vec<Entry>>,
    gates: Mutex<Vec<Gate>>,
}

#[derive(Debug)]
struct Entry {
    on: On,
    faults: Vec<Fault>,
    /// How many requests it is still about; none for all that come.
    times: Option<usize>,
}

impl FaultScript {
    pub(crate) fn add(&self, on: On, faults: Vec<Fault>, times: Option<usize>) {
        self.gates.lock().unwrap().extend(faults.iter().filter_map(Fault::gate).cloned());
        self.entries.lock().unwrap().push(Entry { on, faults, times });
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    /// Lets everybody go who waits at a gate of this script.
    pub(crate) fn open_gates(&self) {
        for gate in self.gates.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            gate.open();
        }
    }

    /// The reply as the first fault that is about this request leaves it.
    pub(crate) fn apply(&self, role: Role, request: &Request, reply: Reply) -> Reply {
        let faults = self.take(role, request);
        faults.iter().fold(reply, |reply, fault| fault.apply(request, reply))
    }

    fn take(&self, role: Role, request: &Request) -> Vec<Fault> {
        let mut entries = self.entries.lock().unwrap();
        let Some(at) = entries.iter().position(|entry| entry.on.matches(role, request)) else {
            return Vec::new();
        };
        let faults = entries[at].faults.clone();
        if let Some(times) = &mut entries[at].times {
            *times -= 1;
            if *times == 0 {
                entries.remove(at);
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crc_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_fault_is_spent_once_and_the_next_one_follows() {
        let script = FaultScript::default();
        script.add(On::get("/blobs/"), vec![Fault::status(500)], Some(1));
        script.add(On::path("/blobs/").at(Role::Registry), vec![Fault::status(503)], None);
        let status = |role, method| {
            let request = Request::new(method, "/v2/x/blobs/y");
            script.apply(role, &request, Response::new(200).into()).response.status
        };
        assert_eq!(status(Role::Registry, "HEAD"), 503);
        assert_eq!(status(Role::Registry, "GET"), 500);
        assert_eq!(status(Role::Registry, "GET"), 503);
        assert_eq!(status(Role::Cdn, "GET"), 200);
    }
}
