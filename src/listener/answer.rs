//! Answers, with the line that each leaves in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_oci::{ErrorCode, ErrorDocument};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use super::Peer;
use super::request::Unfit;
use crate::gateway::ResponseError;
use crate::gateway::{ResponseBody, error_response};
use crate::log::{Outcome, RequestLine};
use crate::metrics::{Answering, Metrics, Tally};
use crate::pulls::Asking;

/// A registry that takes this long to begin an answer is one that people notice.
const SLOW: Duration = Duration::from_secs(10);

/// A response, and the line that it leaves; none where something else will write it.
pub(super) struct Answer {
    response: Response<ResponseBody>,
    line: Option<RequestLine>,
    /// The part of a pull that this answers.
    asking: Option<Asking>,
}

impl Answer {
    pub(super) fn new(response: Response<ResponseBody>, line: RequestLine) -> Self {
        Self { response, line: Some(line), asking: None }
    }

    pub(super) fn silent(response: Response<ResponseBody>) -> Self {
        Self { response, line: None, asking: None }
    }

    /// The answer to this part of a pull.
    pub(super) fn to(self, asking: Option<Asking>) -> Self {
        Self { asking, ..self }
    }

    /// The response for hyper, whose end writes the line.
    pub(super) fn logged(mut self, began: Instant, peer: &Peer) -> Response<LoggedBody> {
        peer.shared.services.speaker.introduce(&mut self.response);
        self.counted(began, peer.count())
    }

    fn counted(mut self, began: Instant, count: Count<'_>) -> Response<LoggedBody> {
        let status = Some(self.response.status());
        let why = self.response.extensions_mut().remove::<Why>().map(|Why(reason)| reason);
        let line = self.line.map(|line| {
            let reason = line.reason.or(why);
            RequestLine { status, reason, ..line }
        });
        let waited = began.elapsed();
        if let Some(line) = line.as_ref().filter(|_| waited >= SLOW) {
            line.warn_of_wait(waited);
        }
        if let Some(line) = &line {
            name_request(line, &mut self.response);
        }
        // These have no body, whatever they describe; nobody will ask for its end.
        let ended = line.as_ref().is_some_and(|line| line.method == Method::HEAD)
            || matches!(status, Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
        let mut asking = self.asking;
        if let Some(asking) = &mut asking {
            asking.serves(self.response.headers().get("docker-content-digest"));
        }
        let network = count.network.cloned();
        let logged = line.map(|line| Logged {
            answering: count.metrics.answering(&line, network),
            line,
            asking,
        });
        self.response.map(|inner| LoggedBody { inner, logged, began, ended })
    }
}

/// Where an answer is counted.
#[derive(Clone, Copy)]
pub(super) struct Count<'a> {
    pub(super) metrics: &'a Metrics,
    /// The network of its client.
    pub(super) network: Option<&'a Arc<Tally>>,
}

/// Tells the client under which id the log has an answer that it will ask about: one of our own, so
/// that no registry's field is in the way.
fn name_request(line: &RequestLine, response: &mut Response<ResponseBody>) {
    if matches!(line.outcome, Outcome::Denied | Outcome::Error)
        && let Ok(id) = HeaderValue::try_from(line.id.to_string())
    {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
}

/// A response body that writes its request's line when it ends, however it ends.
pub(crate) struct LoggedBody {
    inner: ResponseBody,
    logged: Option<Logged>,
    began: Instant,
    ended: bool,
}

/// What is told of an answer, and to whom.
struct Logged {
    line: RequestLine,
    answering: Answering,
    asking: Option<Asking>,
}

impl LoggedBody {
    fn note(&mut self, result: Option<&Result<Frame<Bytes>, ResponseError>>) {
        let Some(Logged { line, answering, .. }) = &mut self.logged else { return };
        match result {
            None => self.ended = true,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                line.body_bytes += bytes;
                answering.sent(line.outcome, bytes);
            }
            Some(Err(error)) => {
                self.ended = true;
                if matches!(error, ResponseError::Digest(_)) {
                    answering.mismatched();
                }
                line.outcome = Outcome::Error;
                line.reason = Some(error.to_string());
            }
        }
    }
}

impl Body for LoggedBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
            // Trailers end here, as they do on the way to the registry: "a recipient MUST NOT
            // merge" what it does not know to be safe (RFC 9110 §6.5.1).
            if let Some(Ok(frame)) = &frame
                && !frame.is_data()
            {
                continue;
            }
            self.note(frame.as_ref());
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        let Some(Logged { mut line, answering, asking }) = self.logged.take() else { return };
        let is_whole = self.ended || self.inner.is_end_stream();
        if !is_whole {
            left(&mut line);
        }
        line.elapsed = self.began.elapsed();
        let line = Arc::new(line);
        answering.answered(&line);
        if let Some(asking) = asking {
            asking.ended(&line, is_whole);
        }
        line.emit();
    }
}

/// Notes that a client has not taken all of its answer. Of a range that is usual: engines with
/// several connections ask for more than they take of each, and begin anew elsewhere.
fn left(line: &mut RequestLine) {
    if line.status == Some(StatusCode::PARTIAL_CONTENT) {
        tracing::debug!(id = %line.id, "the client left within a range");
    } else {
        line.reason.get_or_insert_with(|| "the client left".to_owned());
    }
}

/// Why the proxy itself has refused, for the request's line.
#[derive(Clone)]
struct Why(String);

/// A refusal by the proxy itself.
pub(super) fn refusal(status: StatusCode, code: ErrorCode, reason: &str) -> Response<ResponseBody> {
    let mut response = error_response(&ErrorDocument::new(status, code, reason));
    response.extensions_mut().insert(Why(reason.to_owned()));
    response
}

/// A request that is not one; the connection is of no further use.
pub(super) fn bad_request(reason: &str) -> Response<ResponseBody> {
    last(StatusCode::BAD_REQUEST, reason)
}

/// A request that is not served, whoever it is for.
pub(super) fn refused(unfit: &Unfit) -> Response<ResponseBody> {
    let mut response = last(unfit.status, &unfit.reason);
    if let Some(allowed) = unfit.allowed() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The last answer on its connection.
fn last(status: StatusCode, reason: &str) -> Response<ResponseBody> {
    let mut response = refusal(status, ErrorCode::Unsupported, reason);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Subject;
    use parking_lot::Mutex;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt as _};

    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
            self.0.lock().push(*event.metadata().level());
        }
    }

    #[test]
    fn only_an_answer_that_was_slow_to_begin_is_warned_of() {
        for (waited, levels) in
            [(Duration::ZERO, vec![Level::INFO]), (SLOW, vec![Level::WARN, Level::INFO])]
        {
            let seen = Levels::default();
            let subscriber = tracing_subscriber::registry().with(seen.clone());
            tracing::subscriber::with_default(subscriber, || {
                let (subject, client) = (Subject::Other("/x".to_owned()), [10, 0, 0, 7].into());
                let line = RequestLine::new(Outcome::Relay, Method::GET, subject, client);
                let answer = Answer::new(Response::new(ResponseBody::Empty), line);
                let began = Instant::now().checked_sub(waited).unwrap();
                let metrics = &Metrics::default();
                drop(answer.counted(began, Count { metrics, network: None }));
            });
            assert_eq!(*seen.0.lock(), levels);
        }
    }
}
