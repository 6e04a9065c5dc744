//! The admin listener, for operators and probes, by default on loopback alone; and the admin
//! socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::body::AdminBody;
use super::guard::{Asked, Denial, Door};
use super::pages::{not_found, only_get, refused, text};
use super::socket;
use super::{AdminServices, api, page, scrape};
use crate::gateway::ResponseBody;
use crate::listener::http::{self as connection, Received};

/// Connections at a time: people, probes and scrapers are few.
const MOST: usize = 256;
/// And on the socket: they are root's and the proxy's own, whom no others keep out.
const MOST_LOCAL: usize = 64;
/// The longest silence on a connection; what takes long tells of its progress.
const SILENCE: Duration = Duration::from_mins(10);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The admin listener's socket.
pub(crate) struct AdminServer {
    socket: TcpListener,
}

impl AdminServer {
    /// Binds `address`.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    /// The address really bound.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves for ever, at `socket` as well: while the proxy drains, probes are told so.
    pub(crate) async fn run(self, socket: Option<UnixListener>, services: Arc<AdminServices>) {
        let local = async {
            if let Some(socket) = socket {
                serve_socket(&socket, &services).await;
            }
        };
        tokio::join!(self.serve_listener(&services), local);
    }

    async fn serve_listener(&self, services: &Arc<AdminServices>) {
        let places = Arc::new(Semaphore::new(MOST));
        while let Ok(place) = places.clone().acquire_owned().await {
            let Ok((stream, client)) = self.socket.accept().await else {
                // Out of files: others end meanwhile.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(own) = stream.local_addr() else { continue };
            Visitor::new(services, Door::Listener { client, own }).enter(stream, place);
        }
    }
}

async fn serve_socket(socket: &UnixListener, services: &Arc<AdminServices>) {
    let places = Arc::new(Semaphore::new(MOST_LOCAL));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = socket.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let user = stream.peer_cred().map(|peer| peer.uid());
        let is_trusted = user.is_ok_and(socket::may_use);
        Visitor::new(services, Door::Socket { is_trusted }).enter(stream, place);
    }
}

/// One connection.
struct Visitor {
    services: Arc<AdminServices>,
    door: Door,
}

impl Visitor {
    fn new(services: &Arc<AdminServices>, door: Door) -> Self {
        Self { services: services.clone(), door }
    }

    /// Serves it in a task of its own.
    fn enter<S>(self, stream: S, place: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let services = self.services.clone();
        if services.shutdown.is_cancelled() {
            #[expect(
                clippy::disallowed_methods,
                reason = "a shutdown that has begun would end it at once, and waits for no probe"
            )]
            tokio::spawn(self.serve(stream, place, CancellationToken::new()));
        } else {
            let shutdown = services.shutdown.clone();
            services.tasks.spawn(self.serve(stream, place, shutdown));
        }
    }

    async fn serve<S>(self, stream: S, _place: OwnedSemaphorePermit, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = self.door.client();
        let service = |received| self.answer(received);
        connection::serve(stream, client, SILENCE, &shutdown, service).await;
    }

    async fn answer(&self, received: Received) -> Response<AdminBody> {
        let request = match received {
            Ok(request) => request,
            Err(unserved) => {
                let (_, unfit) = *unserved;
                return closing(refused(unfit.status, &unfit.reason)).map(Into::into);
            }
        };
        if self.services.shutdown.is_cancelled() {
            closing(self.page(&request)).map(Into::into)
        } else if request.uri().path().starts_with("/api/") {
            self.api(request).await
        } else {
            self.page(&request).map(Into::into)
        }
    }

    async fn api(&self, request: Request<Incoming>) -> Response<AdminBody> {
        let path = request.uri().path();
        let has_body = !request.body().is_end_stream();
        let asked = Asked {
            method: request.method(),
            version: request.version(),
            headers: request.headers(),
            deed: api::deed(request.method(), path),
            body: has_body.then(|| api::media_type(path)),
        };
        if let Err(denial) = self.services.guard.check(self.door, &asked) {
            tracing::warn!(client = %self.door.client(), %denial, "a request to the API is refused");
            return closing(denied(denial)).map(Into::into);
        }
        let response = api::answer(&self.services, request).await;
        // Hardly anybody reads a body: what follows it on the connection could be taken for a
        // request.
        if has_body { closing(response) } else { response }
    }

    fn page(&self, request: &Request<Incoming>) -> Response<ResponseBody> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return only_get();
        }
        match request.uri().path() {
            "/healthz" => text("ok\n".to_owned()),
            "/readyz" => ready(&self.services),
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT);
                scrape::page(&self.services, accept.and_then(|accept| accept.to_str().ok()))
            }
            path => page::file(path).unwrap_or_else(|| not_found(path)),
        }
    }
}

/// The process answers only once its store is open and its listeners are bound. Trouble with the
/// store makes pulls slower and stops none; the shutdown does.
fn ready(services: &AdminServices) -> Response<ResponseBody> {
    let is_ready = !services.shutdown.is_cancelled();
    let reasons = [
        (!is_ready, "draining: no new clients are taken"),
        (
            services.gateway.store_health().is_troubled,
            "the store's disk fails: downloads are passed on unkept",
        ),
        (
            scrape::index_state(services.store.index_state()) == "in_memory",
            "the store's index is given up until the next start",
        ),
    ];
    let reasons: Vec<_> =
        reasons.into_iter().filter(|(applies, _)| *applies).map(|(_, reason)| reason).collect();
    let status = match (is_ready, reasons.is_empty()) {
        (false, _) => "draining",
        (true, true) => "ready",
        (true, false) => "degraded",
    };
    let document = json!({ "status": status, "reasons": reasons });
    let mut response = Response::new(ResponseBody::full(format!("{document}\n")));
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn denied(denial: Denial) -> Response<ResponseBody> {
    let mut response = refused(denial.status(), &denial.to_string());
    if response.status() == StatusCode::UNAUTHORIZED {
        // "MUST send a WWW-Authenticate header field" (RFC 9110 §15.5.2).
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The connection is of no further use.
fn closing<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
