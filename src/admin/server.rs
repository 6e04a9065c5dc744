//! The admin listener: for operators and probes, by default on loopback alone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Response, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pages::{not_found, only_get, refused, text};
use super::{Services, scrape};
use crate::gateway::ResponseBody;
use crate::listener::http::{self as connection, Received};

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The admin listener's socket.
pub struct AdminServer {
    socket: TcpListener,
}

impl AdminServer {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await? })
    }

    /// The address really bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until the shutdown begins.
    pub async fn run(
        self,
        services: Arc<Services>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of files: others end meanwhile.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (services, shutdown) = (services.clone(), shutdown.clone());
            tasks.spawn(async move {
                connection::serve(stream, &shutdown, |received| {
                    let response = answer(&services, received);
                    async move { response }
                })
                .await;
            });
        }
    }
}

fn answer(services: &Arc<Services>, received: Received) -> Response<ResponseBody> {
    let request = match received {
        Ok(request) => request,
        Err(unserved) => {
            let (_, unfit) = *unserved;
            let mut response = refused(unfit.status, &unfit.reason);
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            return response;
        }
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return only_get();
    }
    match request.uri().path() {
        "/healthz" => text("ok\n".to_owned()),
        // The process serves only once its store is open and its listeners are bound.
        "/readyz" => text("ready\n".to_owned()),
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT);
            scrape::page(services, accept.and_then(|accept| accept.to_str().ok()))
        }
        path => not_found(path),
    }
}
