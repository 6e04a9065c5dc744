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
use tokio_util::sync::CancellationToken;

use super::body::AdminBody;
use super::guard::{Asked, Denial, Door};
use super::pages::{not_found, only_get, refused, text};
use super::socket;
use super::verdict;
use super::{AdminServices, api, page, runbook, scrape};
use crate::gateway::ResponseBody;
use crate::listener::files_at_most;
use crate::listener::http::{self as connection, Received};
use crate::listener::places::{Place, PlaceCount, Places, Whose};

/// Connections at a time: people, probes and scrapers are few.
const MOST: usize = 256;
/// And on the socket: they are root's and the proxy's own, whom no others keep out.
const MOST_LOCAL: usize = 64;
/// The longest silence on a connection; what takes long tells of its progress.
const SILENCE: Duration = Duration::from_mins(10);
/// How long a connection without a place may take to ask what it may ask, and to hear the answer.
const GUEST_TIME: Duration = Duration::from_secs(2);
/// What is answered without a place: probes, and whoever watches that there are too many.
const FOR_GUESTS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
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
        let count = PlaceCount::at_most(MOST, files_at_most());
        let (places, guests) = (Places::new(count), Places::new(count.guests()));
        loop {
            let Ok((stream, client)) = self.socket.accept().await else {
                // Out of files: others end meanwhile.
                places.free_one();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(own) = stream.local_addr() else { continue };
            let whose = Whose::at(client.ip());
            let (place, standing) = match places.take(whose) {
                Some(place) => (place, Standing::Visitor),
                None => match guests.take(whose) {
                    Some(place) => (place, Standing::Guest),
                    None => continue,
                },
            };
            Visitor::new(services, Door::Listener { client, own }, standing).enter(stream, place);
        }
    }
}

async fn serve_socket(socket: &UnixListener, services: &Arc<AdminServices>) {
    let places = Places::new(PlaceCount::at_most(MOST_LOCAL, files_at_most()));
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            places.free_one();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let user = stream.peer_cred().map(|peer| peer.uid());
        let door = Door::Socket { is_trusted: user.is_ok_and(socket::may_use) };
        let Some(place) = places.take(Whose::at(door.client())) else { continue };
        Visitor::new(services, door, Standing::Visitor).enter(stream, place);
    }
}

/// What a connection may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything.
    Visitor,
    /// There was no place for it: [`FOR_GUESTS`].
    Guest,
}

/// One connection.
struct Visitor {
    services: Arc<AdminServices>,
    door: Door,
    standing: Standing,
}

impl Visitor {
    fn new(services: &Arc<AdminServices>, door: Door, standing: Standing) -> Self {
        Self { services: services.clone(), door, standing }
    }

    /// Serves it in a task of its own.
    fn enter<S>(self, stream: S, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (services, place) = (self.services.clone(), Arc::new(place));
        if services.shutdown.is_cancelled() {
            #[expect(
                clippy::disallowed_methods,
                reason = "a shutdown that has begun would end it at once, and waits for no probe"
            )]
            tokio::spawn(self.welcome(stream, place, CancellationToken::new()));
        } else {
            let shutdown = services.shutdown.clone();
            services.tasks.spawn(self.welcome(stream, place, shutdown));
        }
    }

    /// Serves the connection, as long as its place is its own.
    async fn welcome<S>(self, stream: S, place: Arc<Place>, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let guest_time = match self.standing {
            Standing::Visitor => Duration::MAX,
            Standing::Guest => GUEST_TIME,
        };
        tokio::select! {
            () = self.serve(stream, &place, shutdown) => {}
            () = place.given_up() => {}
            () = tokio::time::sleep(guest_time) => {}
        }
    }

    async fn serve<S>(&self, stream: S, place: &Arc<Place>, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = self.door.client();
        let account = self.services.memory.budget.account(Some(client));
        let service = |received| self.answer(received);
        connection::serve(stream, place, client, account, SILENCE, &shutdown, service).await;
    }

    async fn answer(&self, received: Received) -> Response<AdminBody> {
        let request = match received {
            Ok(request) => request,
            Err(unserved) => {
                let (_, unfit) = *unserved;
                let mut response = closing(refused(unfit.status, &unfit.reason));
                if let Some(allowed) = unfit.allowed() {
                    response.headers_mut().insert(header::ALLOW, allowed);
                }
                return response.map(Into::into);
            }
        };
        let is_guest = self.standing == Standing::Guest;
        if is_guest && !FOR_GUESTS.contains(&request.uri().path()) {
            return closing(too_many()).map(Into::into);
        }
        if is_guest || self.services.shutdown.is_cancelled() {
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
            "/runbook" => runbook::page(),
            path => page::file(path).unwrap_or_else(|| not_found(path)),
        }
    }
}

/// The process answers only once its store is open and its listeners are bound. Trouble with the
/// store makes pulls slower and stops none; the shutdown does.
fn ready(services: &AdminServices) -> Response<ResponseBody> {
    let is_ready = !services.shutdown.is_cancelled();
    let draining = "draining: no new clients are taken".to_owned();
    let mut reasons: Vec<_> = (!is_ready).then_some(draining).into_iter().collect();
    reasons.extend(verdict::troubles(services).into_iter().map(|trouble| trouble.words));
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

/// The answer to whoever finds no place.
fn too_many() -> Response<ResponseBody> {
    let reason = "too many connections are at work here, all in all or of this client";
    let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, reason);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The connection is of no further use.
fn closing<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
