//! One HTTP/1.1 connection, with its limits and its drain.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::request::{self, Unfit};
use super::stream::{ClientStream, Rewound};
use super::watched::{Admissions, Watched};
use crate::log::chain;

/// From the first wait for a request's head to its end, and so also how long a connection may lie
/// idle between requests. Engines open their connections when they need them.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head taken: tokens in `Authorization` reach 16 KiB at some registries.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most header fields taken.
const MAX_HEAD_FIELDS: usize = 100;

/// A request as it came: one to be served, or one that must only be refused, after which its
/// connection is of no further use.
pub(crate) type Received = Result<Request<Incoming>, Box<(Request<Incoming>, Unfit)>>;

/// Serves requests on `stream` until it closes, or until `shutdown` and the request under way
/// have ended. Upgrades (CONNECT) are handed to whoever awaits them.
pub(crate) async fn serve<T, S, F, B>(
    stream: T,
    client: IpAddr,
    shutdown: &CancellationToken,
    service: S,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Received) -> F,
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEAD_FIELDS);
    let (stream, admissions) = Watched::new(stream);
    let service = service_fn(move |request| {
        // Not an `async` block, which would have room for the answer's future twice.
        service(received(&admissions, request)).map(Ok::<_, Infallible>)
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

fn received(admissions: &Admissions, request: Request<Incoming>) -> Received {
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
