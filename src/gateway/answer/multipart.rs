//! Several parts of an object in one body (RFC 9110 §14.6, `multipart/byteranges`).

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use entrepot_cache::Reader;
use http_body::Frame;

use super::broken::FrameResult;
use super::ranges::ByteSpan;
use super::stored::StoredBody;
use crate::gateway::exchange::Source;

/// The parts that are still to be sent, each with its own fields before it.
pub struct Multipart {
    boundary: String,
    segments: VecDeque<Segment>,
    left: u64,
}

enum Segment {
    Text(Bytes),
    Stored(Box<StoredBody>),
}

impl Multipart {
    /// `spans` of `reader`'s object of `length` bytes, in their order.
    #[must_use]
    pub(super) fn new(
        reader: &Reader,
        spans: &[ByteSpan],
        length: u64,
        media_type: &str,
        source: &Source,
    ) -> Self {
        let boundary = boundary();
        let mut multipart = Self { boundary, segments: VecDeque::new(), left: 0 };
        for (number, span) in spans.iter().enumerate() {
            let before = if number == 0 { "" } else { "\r\n" };
            let range = span.content_range(length);
            multipart.push_text(format!(
                "{before}--{}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n",
                multipart.boundary
            ));
            multipart.left += span.count();
            let (reader, source) = (reader.clone(), source.clone());
            let body = StoredBody::part(reader, span.first, span.count(), source);
            multipart.segments.push_back(Segment::Stored(Box::new(body)));
        }
        multipart.push_text(format!("\r\n--{}--\r\n", multipart.boundary));
        multipart
    }

    fn push_text(&mut self, text: String) {
        self.left += text.len() as u64;
        self.segments.push_back(Segment::Text(text.into()));
    }

    /// What parts the parts; stands in `Content-Type`.
    #[must_use]
    pub fn boundary(&self) -> &str {
        &self.boundary
    }

    /// Bytes still to be sent; before the first, that is `Content-Length`.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.left
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        loop {
            let frame = match self.segments.front_mut() {
                None => return Poll::Ready(None),
                Some(Segment::Stored(stored)) => ready!(stored.poll_next(cx)),
                Some(Segment::Text(text)) => {
                    let text = std::mem::take(text);
                    self.segments.pop_front();
                    Some(Ok(Frame::data(text)))
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    let count = frame.data_ref().map_or(0, |data| data.len() as u64);
                    self.left = self.left.saturating_sub(count);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => {
                    self.segments.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.segments.pop_front(),
            };
        }
    }
}

/// Random, so that no object can hold it on purpose.
fn boundary() -> String {
    let random = || RandomState::new().hash_one(0u8);
    format!("{:016x}{:016x}", random(), random())
}
