//! One HTTP/1.1 connection, with its limits and its drain.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::access::one_client;
use super::places::Place;
use super::request::{self, Unfit};
use super::stream::{ClientStream, Rewound};
use super::watched::{Admissions, Watched};
use crate::gateway::{Asker, Requester};
use crate::memory::Account;
use crate::words::chain;

/// The largest head taken: tokens in `Authorization` reach 16 KiB at some registries.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most header fields taken.
const MAX_HEAD_FIELDS: usize = 100;

/// How long a client may neither send a byte of what it has begun nor take one.
pub(super) const SILENCE: Duration = Duration::from_mins(5);

/// A request as it came: one to be served, or one that must only be refused, after which its
/// connection is of no further use.
pub(crate) type Received = Result<Request<Incoming>, Box<(Request<Incoming>, Unfit)>>;

/// Serves requests on `stream` until it closes, or until `shutdown` and the request under way
/// have ended. Upgrades (CONNECT) are handed to whoever awaits them.
///
/// A client that neither sends its body nor takes its answer for `silence` is given up; what else
/// it is waited for is in [`patience`](super::patience). Its `place` is kept while a request is
/// under way, and is others' to take when there is none: this future must be dropped then.
pub(crate) async fn serve<T, S, F, B>(
    stream: T,
    place: &Arc<Place>,
    client: IpAddr,
    account: Account,
    silence: Duration,
    shutdown: &CancellationToken,
    service: S,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Received) -> F,
    F: Future<Output = Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut builder = http1::Builder::new();
    // hyper's own clock for a head runs while the connection lies idle, too.
    builder.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEAD_FIELDS);
    let (stream, admissions) = Watched::new(stream, silence, account.clone());
    let faults = admissions.faults();
    let admissions = Arc::new(admissions);
    place.lies_idle();
    let service = service_fn(move |mut request: Request<Incoming>| {
        place.is_at_work();
        request.extensions_mut().insert(Requester(one_client(client)));
        request.extensions_mut().insert(Asker(client));
        let is_connect = request.method() == Method::CONNECT;
        let answering = service(received(&admissions, &account, request));
        let (admissions, place) = (admissions.clone(), place.clone());
        // Not an `async` block, which would have room for the answer's future twice.
        answering.map(move |response| {
            // A tunnel is at work from then on.
            let is_tunnel = is_connect && response.status().is_success();
            let place = Some(place).filter(|_| !is_tunnel);
            Ok::<_, Infallible>(response.map(|body| admissions.answered(body, place)))
        })
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match ended {
        _ if faults.is_http_2() => {
            tracing::info!(%client, "a client that speaks HTTP/2 without asking was told of HTTP/1.1");
        }
        Ok(()) => {}
        // It has been told 400, and was no request that could have a line of its own.
        Err(error) if error.is_parse() => {
            let reason = chain(&error);
            tracing::info!(%client, reason, "something else than an HTTP request was refused");
        }
        Err(error) => {
            tracing::debug!(error = %chain(&error), "a client connection ended early");
        }
    }
}

fn received(
    admissions: &Admissions,
    account: &Account,
    mut request: Request<Incoming>,
) -> Received {
    request.extensions_mut().insert(account.clone());
    match admissions.next().map_err(Unfit::from).and_then(|()| request::check(&request)) {
        Ok(()) => Ok(request),
        Err(unfit) => Err(Box::new((request, unfit))),
    }
}

/// The client's stream behind a CONNECT, which [`serve`] was given, with what had been read of it
/// beyond that request. What comes on it now is watched no more.
pub(super) fn unwrapped(upgraded: Upgraded) -> Option<Rewound<ClientStream>> {
    let parts = upgraded.downcast::<TokioIo<Watched<ClientStream>>>().ok()?;
    Some(Rewound::new(parts.read_buf, parts.io.into_inner().into_inner()))
}

#[cfg(test)]
mod tests {
    use super::super::places::{PlaceCount, Places, Whose};
    use super::*;
    use crate::memory::{Memory, Shares};
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::{Instant, sleep};
    use tokio_util::task::TaskTracker;

    /// A client's end of a connection whose requests are read whole and answered after `commit`.
    fn answering_after(commit: Duration) -> DuplexStream {
        let (far, near) = tokio::io::duplex(64);
        TaskTracker::new().spawn(async move {
            let shutdown = CancellationToken::new();
            let client = [10, 0, 0, 7].into();
            let account = Memory::new(Shares::new(Some(0))).budget.account(None);
            let places = Places::new(PlaceCount::within(None));
            let place = Arc::new(places.take(Whose::at(client)).unwrap());
            serve(near, &place, client, account, SILENCE, &shutdown, async |received| {
                // A body that breaks off has no answer that anybody would wait for.
                if let Ok(request) = received {
                    drop(request.into_body().collect().await);
                }
                sleep(commit).await;
                Response::new(Full::new(Bytes::from_static(b"done")))
            })
            .await;
        });
        far
    }

    async fn answer(far: &mut DuplexStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"done") {
            let read = far.read_buf(&mut text).await.unwrap();
            assert!(read > 0, "the connection ended: {:?}", String::from_utf8_lossy(&text));
        }
        String::from_utf8(text).unwrap()
    }

    /// How long the other end keeps the connection open.
    async fn lasts(far: &mut DuplexStream) -> Duration {
        let began = Instant::now();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_wait_for_its_answer_as_long_as_that_takes() {
        let mut far = answering_after(Duration::from_hours(1));
        for request in [
            "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        ] {
            far.write_all(request.as_bytes()).await.unwrap();
            assert!(answer(&mut far).await.starts_with("HTTP/1.1 200"), "{request:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_request_may_begin_as_late_as_clients_keep_connections() {
        let mut far = answering_after(Duration::from_mins(10));
        for _ in 0..3 {
            far.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            answer(&mut far).await;
            sleep(Duration::from_secs(94)).await;
        }
        // The first byte ends that wait, and begins another.
        far.write_all(b"G").await.unwrap();
        sleep(Duration::from_secs(25)).await;
        far.write_all(b"ET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        answer(&mut far).await;
        assert_eq!(lasts(&mut far).await.as_secs(), 95);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_however_its_bytes_come() {
        let mut far = answering_after(Duration::ZERO);
        far.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        answer(&mut far).await;
        let began = Instant::now();
        for byte in "GET /a HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n".bytes() {
            if far.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(lasts(&mut far).await, Duration::ZERO, "it was closed before");
        assert!((30..33).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_silent() {
        let mut far = answering_after(Duration::ZERO);
        far.write_all(b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        for _ in 0..8 {
            sleep(Duration::from_secs(299)).await;
            far.write_all(b"x").await.unwrap();
        }
        let began = Instant::now();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(began.elapsed(), SILENCE);
    }

    /// 64 bytes of an answer fit into the stream of these tests.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let mut far = answering_after(Duration::from_mins(10));
        far.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(Duration::from_mins(10) + SILENCE + Duration::from_secs(1)).await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.ends_with(b"done"), "{:?}", String::from_utf8_lossy(&rest));
    }
}
