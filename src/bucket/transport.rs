//! Requests to the bucket over our own client: our dialler, trust, proxies and times.
//!
//! `object_store` makes requests and reads answers; between the two stands this. An answer that
//! says no becomes a [`Fault`] here, since only its text would be left of it later.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use time::OffsetDateTime;
use tokio::time::{Instant, Sleep};

use super::Way;
use super::error::{Answer, Fault, shortened};
use crate::metrics::{BucketAnswer, BucketOperation, Metrics};
use crate::upstream::body::SendProgress;
use crate::upstream::{Connector, Dialer, UpstreamError};
use crate::words::{http_date, of_exchange};

/// What is read of an answer at a time, and the longest head.
const BUFFER: usize = 64 * 1024;
/// What of a body goes out before it is seen that it goes on.
const STEP: usize = 64 * 1024;
/// The longest text of a refusal that is read.
const MOST_WORDS: usize = 64 * 1024;
/// Idle connections that are kept.
const MOST_IDLE: usize = 32;
/// How long one is kept: Amazon closes its own after some 20 s.
const KEEP_IDLE: Duration = Duration::from_secs(15);
/// How the bucket's operators know who asks.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("entrepot/", env!("CARGO_PKG_VERSION")));

/// Makes requests to one bucket; cheap to clone.
#[derive(Clone)]
pub(super) struct Transport {
    pool: legacy::Client<Connector, SentBody>,
    connector: Connector,
    /// Where the bucket is: what goes elsewhere is for its credentials.
    host: Arc<str>,
    way: Way,
    /// For an answer to begin, from the connection or the last piece of the request.
    patience: Duration,
    /// For the longest silence within a body.
    idle: Duration,
    /// By how many seconds the clock of who answered last differs from this machine's.
    skew: Arc<AtomicU64>,
    metrics: Metrics,
}

/// Times of a transport.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// `bucket.timeout`.
    pub timeout: Duration,
    /// `upstream.idle-timeout`.
    pub idle: Duration,
}

impl Transport {
    /// Requests to the bucket at `host`, and to whoever gives credentials for it.
    pub(super) fn new(
        dialer: &Dialer,
        host: &str,
        may_ask_metadata: bool,
        times: Times,
        metrics: Metrics,
    ) -> Self {
        let connector = Connector::to_service(dialer, may_ask_metadata);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .http1_max_buf_size(BUFFER)
            .build(connector.clone());
        let Times { timeout, idle } = times;
        let host = host.into();
        let skew = Arc::new(AtomicU64::new(u64::MAX));
        let way = Way::Front;
        Self { pool, connector, host, way, patience: timeout, idle, skew, metrics }
    }

    /// The same for what nobody waits for, by the same connections.
    pub(super) fn behind(&self) -> Self {
        Self { way: Way::Behind, patience: self.idle.max(self.patience), ..self.clone() }
    }

    /// `bucket.timeout`.
    pub(super) fn timeout(&self) -> Duration {
        self.patience
    }

    /// By how much the clock of who answered last differs from this machine's, if that is known.
    pub(super) fn skew(&self) -> Option<Duration> {
        let skew = self.skew.load(Ordering::Relaxed);
        (skew != u64::MAX).then(|| Duration::from_secs(skew))
    }

    fn note_date(&self, headers: &HeaderMap) {
        if let Some(date) = date(headers) {
            let differs = (date - OffsetDateTime::now_utc()).unsigned_abs();
            self.skew.store(differs.as_secs(), Ordering::Relaxed);
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let operation = self.operation(&request);
        let began = Instant::now();
        let result = self.answered(operation, request).await;
        let answer = match &result {
            Ok(response) if response.status() == StatusCode::NOT_FOUND => BucketAnswer::Absent,
            Ok(_) => BucketAnswer::Ok,
            Err(fault) => fault.answer(),
        };
        self.metrics.bucket().asked(operation, answer, began.elapsed());
        result.map_err(|fault| HttpError::new(self.kind(&fault), fault))
    }

    fn operation(&self, request: &HttpRequest) -> BucketOperation {
        let uri = request.uri();
        if uri.host() != Some(&self.host) {
            return BucketOperation::Credentials;
        }
        let query = uri.query().unwrap_or_default();
        let lists = ["list-type=", "comp=list"].iter().any(|word| query.contains(word));
        match *request.method() {
            Method::GET if lists => BucketOperation::List,
            Method::GET => BucketOperation::Get,
            Method::HEAD => BucketOperation::Head,
            Method::DELETE => BucketOperation::Delete,
            Method::POST if query.contains("comp=batch") => BucketOperation::Delete,
            _ => BucketOperation::Put,
        }
    }

    /// What `object_store` makes of it: whether it is tried again. A client waits for no second
    /// silence, and for none that is said to be busy.
    fn kind(&self, fault: &Fault) -> HttpErrorKind {
        match (fault, self.way) {
            (Fault::Unreachable(_), _) => HttpErrorKind::Connect,
            (Fault::Broken(_), _) => HttpErrorKind::Interrupted,
            (Fault::Silent(_), Way::Behind) => HttpErrorKind::Timeout,
            (Fault::Answer(answer), Way::Behind)
                if answer.status.is_server_error()
                    || matches!(
                        answer.status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    ) =>
            {
                // It was not done: it may be done again, whatever it is.
                HttpErrorKind::Request
            }
            _ => HttpErrorKind::Unknown,
        }
    }

    async fn answered(
        &self,
        operation: BucketOperation,
        request: HttpRequest,
    ) -> Result<HttpResponse, Fault> {
        let authority = authority(request.uri())?;
        let response = self.sent(&authority, request).await?;
        let status = response.status();
        self.note_date(response.headers());
        if status.is_success() {
            let received = ReceivedBody::new(response, self.idle, self.metrics.clone());
            return Ok(received.map(HttpResponseBody::new));
        }
        let (parts, body) = response.into_parts();
        let body = ReceivedBody::of(body, self.idle, self.metrics.clone());
        let words = Limited::new(body, MOST_WORDS).collect().await;
        let words = words.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let answer = answer(status, &parts.headers, &words, operation, &authority);
        // These say something about the object that object_store knows to tell.
        let is_known = matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED
        );
        if is_known && answer.kind() != BucketAnswer::Refused {
            let body = Full::new(words).map_err(|never| match never {});
            return Ok(Response::from_parts(parts, HttpResponseBody::new(body)));
        }
        Err(Fault::Answer(answer))
    }

    async fn sent(
        &self,
        authority: &Authority,
        request: HttpRequest,
    ) -> Result<Response<Incoming>, Fault> {
        let progress = SendProgress::new();
        let sent = self.metrics.clone();
        let mut request: Request<SentBody> = request.map(|body| SentBody {
            body,
            left: Bytes::new(),
            progress: progress.clone(),
            sent,
        });
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        // It is not among what was signed: the proxy reads it, and takes it off.
        if request.uri().scheme() == Some(&http::uri::Scheme::HTTP)
            && let Some(value) = self.connector.plain_authorization(authority)
        {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        let mut connection = capture_connection(&mut request);
        let told = connection.clone();
        let failed = |error: legacy::Error| {
            self.connector.set_back(&told);
            fault(&UpstreamError::from_client(authority, &error))
        };
        let mut exchange = std::pin::pin!(self.pool.request(request));
        // Making a connection has times of its own.
        tokio::select! {
            biased;
            done = &mut exchange => return done.map_err(failed),
            _ = connection.wait_for_connection_metadata() => progress.mark(),
        }
        loop {
            let deadline = progress.last() + self.patience;
            match tokio::time::timeout_at(deadline, &mut exchange).await {
                Ok(done) => return done.map_err(failed),
                Err(_) if progress.last() + self.patience > Instant::now() => {}
                Err(_) => {
                    self.connector.set_back(&told);
                    return Err(Fault::Silent(self.patience));
                }
            }
        }
    }
}

fn fault(error: &UpstreamError) -> Fault {
    match error {
        UpstreamError::Dial(_) | UpstreamError::Tls(_) => Fault::Unreachable(error.to_string()),
        UpstreamError::Exchange { reason, .. } => Fault::Broken(reason.clone()),
        other => Fault::Broken(other.to_string()),
    }
}

fn authority(uri: &Uri) -> Result<Authority, Fault> {
    let text = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let default_port = if uri.scheme() == Some(&http::uri::Scheme::HTTP) { 80 } else { 443 };
    Authority::parse(text, default_port)
        .map_err(|error| Fault::Unreachable(format!("{} is no place: {error}", shortened(text))))
}

fn date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    http_date(headers.get(header::DATE)?.to_str().ok()?).map(Into::into)
}

/// What a refusal says. S3, Google and Microsoft all write `<Code>` and `<Message>`.
fn answer(
    status: StatusCode,
    headers: &HeaderMap,
    words: &[u8],
    operation: BucketOperation,
    authority: &Authority,
) -> Answer {
    let text = String::from_utf8_lossy(words);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = rest.split_once(&format!("</{name}>"))?;
        Some(shortened(inner.trim())).filter(|inner| !inner.is_empty())
    };
    let field = |name: &str| headers.get(name)?.to_str().ok().map(shortened);
    let region = field("x-amz-bucket-region").or_else(|| element("Region"));
    let is_elsewhere = status.is_redirection() || status == StatusCode::BAD_REQUEST;
    let is_of_credentials = operation == BucketOperation::Credentials;
    Answer {
        status,
        code: element("Code").or_else(|| field("x-ms-error-code")),
        message: element("Message"),
        region: region.filter(|_| is_elsewhere),
        date: date(headers),
        credentials_of: is_of_credentials.then(|| authority.to_string()),
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({}, {:?})", self.host, self.way)
    }
}

impl HttpConnector for Transport {
    /// Its options are those of another client.
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Transport {
    fn call<'life, 'future>(
        &'life self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.exchange(request))
    }
}

/// What is put, in steps that show how far it has come.
struct SentBody {
    body: HttpRequestBody,
    left: Bytes,
    progress: SendProgress,
    sent: Metrics,
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => self.left = frame.into_data().unwrap_or_default(),
            }
        }
        let length = self.left.len().min(STEP);
        let step = self.left.split_to(length);
        self.progress.mark();
        self.sent.bucket().sent.add(step.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(step))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let left = self.left.len() as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest.saturating_add(left)),
            None => SizeHint::default(),
        }
    }
}

/// What comes; the bucket breaks it by falling silent for too long.
struct ReceivedBody {
    inner: Incoming,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    received: Metrics,
}

impl ReceivedBody {
    fn new(response: Response<Incoming>, limit: Duration, metrics: Metrics) -> Response<Self> {
        response.map(|body| Self::of(body, limit, metrics))
    }

    fn of(inner: Incoming, limit: Duration, received: Metrics) -> Self {
        Self { inner, limit, deadline: Box::pin(tokio::time::sleep(limit)), received }
    }
}

/// A body broke off.
#[derive(Debug)]
struct BrokenOff(Fault);

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for BrokenOff {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn broken_off(reason: String) -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, BrokenOff(Fault::Broken(reason)))
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Self { inner, limit, deadline, received } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            deadline.as_mut().reset(Instant::now() + *limit);
            if let Some(Ok(frame)) = &frame {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                received.bucket().received.add(length);
            }
            let broken =
                |error| broken_off(format!("the transfer broke off: {}", of_exchange(&error)));
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(broken_off(format!("nothing came for {} s", limit.as_secs())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;

    use entrepot_oci::{Algorithm, Digest};
    use entrepot_testkit::{Request, Response, Server};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::bucket::for_tests::options;
    use crate::bucket::options::{Place, S3, S3Credentials};
    use crate::bucket::{Bucket, BucketError, Options, RecordKey};
    use crate::secret::Secret;
    use crate::upstream::dial::TcpDialer;
    use crate::upstream::trust::Trust;

    const TIMEOUT: Duration = Duration::from_millis(500);

    /// A bucket at this address, with its key beside it.
    struct Fixture {
        bucket: Bucket,
        _directory: tempfile::TempDir,
    }

    fn at(endpoint: &str, credentials: S3Credentials) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let Place::S3(usual) = options().place else { panic!("no S3") };
        let endpoint = Some(endpoint.to_owned());
        let credentials = Ok(credentials);
        let place = Place::S3(S3 { endpoint, credentials, path_style: true, ..usual });
        let key_file = directory.path().join("key");
        let options = Options { place, key_file, timeout: TIMEOUT, ..options() };
        // As it is where nobody may be contacted.
        let tcp = TcpDialer { offline: true, ..TcpDialer::for_tests() };
        let trust = Trust::new(crate::upstream::certs::Certificates::default()).unwrap();
        let dialer = Dialer::new(tcp, crate::upstream::proxy::Proxies::default(), trust);
        let (metrics, tasks) = (Metrics::default(), TaskTracker::new());
        let bucket = Bucket::new(&options, &dialer, "01:02", metrics, tasks).unwrap();
        Fixture { bucket, _directory: directory }
    }

    fn open_to_all(address: SocketAddr) -> Fixture {
        at(&format!("http://{address}"), S3Credentials::None)
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    async fn failure(fixture: &Fixture) -> BucketError {
        fixture.bucket.open(&digest(), 0).await.err().unwrap()
    }

    fn says(status: u16, code: &str) -> Response {
        let body = format!("<Error><Code>{code}</Code><Message>in words</Message></Error>");
        Response::new(status).body(body)
    }

    #[tokio::test]
    async fn an_object_is_asked_for_once_and_signed() {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = asked.clone();
        let server = Server::http(move |request: &Request| {
            assert!(request.headers.get("via").is_none());
            assert!(request.headers.get("user-agent").unwrap().starts_with("entrepot/"));
            let authorization = request.headers.get("authorization").unwrap_or_default();
            assert!(authorization.contains("Credential=AK/"), "{authorization}");
            if request.path().ends_with("/VERSION") {
                return says(404, "NoSuchKey");
            }
            seen.fetch_add(1, Ordering::Relaxed);
            Response::new(200).header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT").body("x")
        });
        let secret = Secret::new("s3cr3t");
        let key = S3Credentials::Environment { key_id: "AK".to_owned(), secret, token: None };
        let fixture = at(&format!("http://{}", server.address()), key);
        let whole = fixture.bucket.whole(&digest(), 10).await.unwrap().unwrap();
        assert_eq!(whole, "x");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(fixture.bucket.metrics().bucket().received.value() >= 1);
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_words_and_left_alone() {
        for (status, code, words) in [
            (403, "AccessDenied", "s3:ListBucket"),
            (404, "NoSuchBucket", "bucket.url"),
            (400, "ExpiredToken", "expired"),
        ] {
            let server = Server::http(move |_: &Request| says(status, code));
            let fixture = open_to_all(server.address());
            let error = failure(&fixture).await;
            assert!(matches!(error, BucketError::Refused(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(words) && text.contains("in words"), "{text}");
            let before = server.connections();
            assert!(matches!(failure(&fixture).await, BucketError::LeftAlone(_)));
            assert_eq!(server.connections(), before);
            assert!(!fixture.bucket.health().is_up);
        }
    }

    #[tokio::test]
    async fn a_bucket_with_too_much_to_do_is_not_asked_twice_by_who_waits() {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = asked.clone();
        let server = Server::http(move |request: &Request| {
            if request.path().ends_with("/VERSION") {
                return says(404, "NoSuchKey");
            }
            seen.fetch_add(1, Ordering::Relaxed);
            says(503, "SlowDown")
        });
        // Nothing may be put either: that is no reason not to read.
        let fixture = open_to_all(server.address());
        let _ = fixture.bucket.record::<u64>(&RecordKey::Pin(digest())).await;
        let before = asked.load(Ordering::Relaxed);
        let error = failure(&fixture).await;
        assert!(matches!(error, BucketError::Busy(_)), "{error}");
        assert_eq!(asked.load(Ordering::Relaxed), before + 1);
        assert!(fixture.bucket.health().is_up);
    }

    #[tokio::test]
    async fn a_silent_bucket_costs_one_timeout_once() {
        let server = Server::silent();
        let fixture = open_to_all(server.address());
        let began = std::time::Instant::now();
        let asking = (0..10).map(|_| failure(&fixture));
        let errors = futures_util::future::join_all(asking).await;
        let took = began.elapsed();
        assert!(took >= TIMEOUT && took < TIMEOUT * 3, "{took:?}");
        assert!(errors.iter().any(|error| matches!(error, BucketError::Silent(_))), "{errors:?}");
        let began = std::time::Instant::now();
        assert!(matches!(failure(&fixture).await, BucketError::LeftAlone(_)));
        assert!(began.elapsed() < TIMEOUT);
    }

    #[tokio::test]
    async fn a_bucket_that_is_not_there_is_told_and_left_alone() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let fixture = open_to_all(address);
        let error = failure(&fixture).await;
        assert!(matches!(error, BucketError::Unreachable(_)), "{error}");
        let health = fixture.bucket.health();
        assert!(!health.is_up && health.why.unwrap().contains("no connection"));
    }

    #[tokio::test]
    async fn metadata_is_closed_to_who_has_no_business_there() {
        for endpoint in ["http://169.254.169.254", "http://[::ffff:169.254.170.2]:80"] {
            let fixture = at(endpoint, S3Credentials::None);
            let error = failure(&fixture).await.to_string();
            assert!(error.contains("metadata service"), "{error}");
        }
    }
}
