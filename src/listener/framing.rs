//! Where requests begin and end on a connection, read strictly.
//!
//! hyper is lenient in ways that a proxy can't afford: it takes bare line feeds for line ends,
//! drops a length beside a coding or a second equal length before anybody can see it, and cuts a
//! fragment off a request target. [`Framing`] watches the same bytes go by, changes nothing, and
//! counts the heads that have none of this. A request is served only when its head was counted, and
//! its body breaks off where it is malformed; whatever is wrong ends the count for good. Both
//! parsers must agree on where every message ends, or nothing more is served
//! (`docs/decisions/0004-two-parsers-must-agree.md`).
//!
//! What hyper refuses by itself (syntax of names and values, versions, limits) is left to it.

use memchr::{memchr, memchr2};

use crate::trickle::Trickle;

/// The longest line that is followed across reads: a head may not be longer either.
const MAX_LINE: usize = 64 * 1024;
/// Digits of a chunk's size: 2^60 bytes are more than anybody sends.
const MAX_SIZE_DIGITS: usize = 15;

/// How HTTP/2 begins, made so that HTTP/1.1 takes it for a request (RFC 9113 §3.4).
const HTTP_2_LINE: &[u8] = b"PRI * HTTP/2.0";

/// Why a connection's messages are no longer followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingFault {
    /// "A bare CR or LF" where CRLF is due (RFC 9112 §2.2).
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// Nothing that a method begins with: the first byte of TLS, for one.
    #[error("this is no request")]
    NoRequest,
    /// A line that does not end.
    #[error("a line is too long")]
    LongLine,
    /// `Content-Length` that is no number, or given twice, equal or not.
    #[error("a request takes one Content-Length, a decimal number")]
    Length,
    /// Anything but a single `chunked`.
    #[error("the only Transfer-Encoding taken is a single chunked")]
    Coding,
    /// "A sender MUST NOT send a Content-Length header field in any message that contains a
    /// Transfer-Encoding header field" (RFC 9112 §6.2).
    #[error("a Content-Length beside a Transfer-Encoding")]
    LengthAndCoding,
    /// A fragment is never sent (RFC 9110 §7.1).
    #[error("a request target has no fragment")]
    Fragment,
    /// The preface of HTTP/2 (RFC 9113 §3.4), of which hyper hangs up without a word.
    #[error("HTTP/2 is not spoken here")]
    Http2,
    /// A chunk that is not as RFC 9112 §7.1 has it.
    #[error("a chunk of the body is malformed")]
    Chunk,
}

/// Follows the requests on one connection. Holds a line at most, and only while it is incomplete.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    heads: u64,
    shortfall: u64,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Before a request line; empty lines are skipped, as "a server that is expecting to receive
    /// and parse a request-line SHOULD ignore at least one empty line" (RFC 9112 §2.2).
    #[default]
    Start,
    /// Between the request line and the empty line.
    Fields(Declared),
    /// Bytes of a body by length.
    Body(u64),
    /// Before a chunk's size.
    Size,
    /// Bytes of a chunk.
    Chunk(u64),
    /// Before the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    Lost(Loss),
}

/// What ended the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// What is wrong.
    pub fault: FramingFault,
    /// Whether it is wrong with the body of the last head that was counted, rather than with the
    /// head behind it.
    pub is_in_body: bool,
}

/// What a head says of its body so far.
#[derive(Debug, Clone, Copy)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

impl Framing {
    /// Takes the bytes that came next.
    pub fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Lost(_) => return,
                State::Body(left) => {
                    let (left, rest) = skipped(left, bytes);
                    self.state = if left == 0 { State::Start } else { State::Body(left) };
                    rest
                }
                State::Chunk(left) => {
                    let (left, rest) = skipped(left, bytes);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    rest
                }
                State::Start
                | State::Fields(_)
                | State::Size
                | State::ChunkEnd
                | State::Trailers => self.line(bytes),
            };
        }
    }

    /// How many heads have come whole and without fault.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// What all chunks so far were short of their cost, in bytes.
    pub(super) fn shortfall(&self) -> u64 {
        self.shortfall
    }

    /// Whether a head has begun that has not ended.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, State::Fields(_))
            || (matches!(self.state, State::Start) && !self.partial.is_empty())
    }

    /// What ended the count, if something did.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        match self.state {
            State::Lost(loss) => Some(loss),
            _ => None,
        }
    }

    /// Whether the next byte would be a request's first, or one of an empty line before it.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Start) && self.partial.is_empty()
    }

    /// Whether a head has come whose body has not, all of it.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        match self.state {
            State::Body(_) | State::Size | State::Chunk(_) | State::ChunkEnd | State::Trailers => {
                true
            }
            State::Start | State::Fields(_) | State::Lost(_) => false,
        }
    }

    /// Reads up to the end of a line, and returns what is behind it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.partial.last() == Some(&b'\r') {
            // The two bytes of a line end came apart.
            let Some(rest) = bytes.strip_prefix(b"\n") else {
                return self.lost(FramingFault::LineEnd);
            };
            self.partial.pop();
            self.end_partial();
            return rest;
        }
        let begins_request = matches!(self.state, State::Start) && self.partial.is_empty();
        if begins_request && !bytes.first().is_some_and(|byte| may_begin_request(*byte)) {
            return self.lost(FramingFault::NoRequest);
        }
        let Some((line, end)) =
            memchr2(b'\r', b'\n', bytes).and_then(|at| bytes.split_at_checked(at))
        else {
            return self.keep(bytes);
        };
        match end {
            [b'\r', b'\n', rest @ ..] => {
                if self.partial.is_empty() {
                    self.end_line(line);
                } else if self.partial.len() + line.len() > MAX_LINE {
                    return self.lost(FramingFault::LongLine);
                } else {
                    self.partial.extend_from_slice(line);
                    self.end_partial();
                }
                rest
            }
            [b'\r'] => self.keep(bytes),
            _ => self.lost(FramingFault::LineEnd),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> &'static [u8] {
        if self.partial.len() + bytes.len() > MAX_LINE {
            return self.lost(FramingFault::LongLine);
        }
        self.partial.extend_from_slice(bytes);
        &[]
    }

    fn lost(&mut self, fault: FramingFault) -> &'static [u8] {
        let is_in_body = matches!(self.state, State::Size | State::ChunkEnd | State::Trailers);
        self.state = State::Lost(Loss { fault, is_in_body });
        self.partial = Vec::new();
        &[]
    }

    fn end_partial(&mut self) {
        let line = std::mem::take(&mut self.partial);
        self.end_line(&line);
    }

    fn end_line(&mut self, line: &[u8]) {
        match self.after(line) {
            Ok(state) => self.state = state,
            Err(fault) => {
                self.lost(fault);
            }
        }
    }

    /// The state behind a whole line.
    fn after(&mut self, line: &[u8]) -> Result<State, FramingFault> {
        match self.state {
            State::Start | State::Trailers if line.is_empty() => Ok(State::Start),
            // Only at the start: an answer of ours must not get into the middle of another.
            State::Start if self.heads == 0 && line == HTTP_2_LINE => Err(FramingFault::Http2),
            State::Start => request_line(line),
            State::Fields(declared) if line.is_empty() => {
                self.heads += 1;
                Ok(body(declared))
            }
            State::Fields(declared) => field(line, declared).map(State::Fields),
            State::Size => {
                let state = chunk_size(line)?;
                if let State::Chunk(size) = state {
                    let shortfall = Trickle::shortfall(size);
                    self.shortfall = self.shortfall.saturating_add(shortfall);
                }
                Ok(state)
            }
            State::ChunkEnd if line.is_empty() => Ok(State::Size),
            State::ChunkEnd => Err(FramingFault::Chunk),
            state @ (State::Trailers | State::Body(_) | State::Chunk(_) | State::Lost(_)) => {
                Ok(state)
            }
        }
    }
}

/// What is left of so many bytes behind these, and of these behind so many.
fn skipped(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (left - count as u64, bytes.get(count..).unwrap_or_default())
}

/// A method's first byte, or an empty line's.
fn may_begin_request(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b'\r' | b'\n')
}

fn request_line(line: &[u8]) -> Result<State, FramingFault> {
    match memchr(b'#', line) {
        Some(_) => Err(FramingFault::Fragment),
        None => Ok(State::Fields(Declared::Nothing)),
    }
}

fn body(declared: Declared) -> State {
    match declared {
        Declared::Nothing | Declared::Length(0) => State::Start,
        Declared::Length(length) => State::Body(length),
        Declared::Chunked => State::Size,
    }
}

/// What a field adds to what is known of the body.
fn field(line: &[u8], declared: Declared) -> Result<Declared, FramingFault> {
    if let Some(value) = value_of(line, b"content-length") {
        return match declared {
            Declared::Nothing => length(value).map(Declared::Length),
            Declared::Length(_) => Err(FramingFault::Length),
            Declared::Chunked => Err(FramingFault::LengthAndCoding),
        };
    }
    if let Some(value) = value_of(line, b"transfer-encoding") {
        return match declared {
            Declared::Nothing if value.eq_ignore_ascii_case(b"chunked") => Ok(Declared::Chunked),
            Declared::Nothing | Declared::Chunked => Err(FramingFault::Coding),
            Declared::Length(_) => Err(FramingFault::LengthAndCoding),
        };
    }
    Ok(declared)
}

/// The value of the field on this line, without the white space around it, if it has this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| without_space(value))
}

/// "OWS = *( SP / HTAB )" (RFC 9110 §5.6.3), and no other white space.
fn without_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn length(digits: &[u8]) -> Result<u64, FramingFault> {
    let number = || std::str::from_utf8(digits).ok()?.parse().ok();
    // `u64::from_str` would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(FramingFault::Length);
    }
    number().ok_or(FramingFault::Length)
}

/// "chunk-size [ chunk-ext ] CRLF" (RFC 9112 §7.1); the extension says nothing to us.
fn chunk_size(line: &[u8]) -> Result<State, FramingFault> {
    let digits = memchr(b';', line).and_then(|at| line.get(..at)).unwrap_or(line);
    if digits.len() > MAX_SIZE_DIGITS || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(FramingFault::Chunk);
    }
    let size = std::str::from_utf8(digits).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
    match size {
        Some(0) => Ok(State::Trailers),
        Some(size) => Ok(State::Chunk(size)),
        None => Err(FramingFault::Chunk),
    }
}

#[cfg(test)]
mod tests;
