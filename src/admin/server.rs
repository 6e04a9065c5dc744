//! The admin listener: for operators and probes, by default on loopback alone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pages::{not_found, only_get, text};
use crate::gateway::ResponseBody;
use crate::listener::http as connection;

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
    pub async fn run(self, tasks: TaskTracker, shutdown: CancellationToken) {
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
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                connection::serve(stream, &shutdown, |request| async move { answer(&request) })
                    .await;
            });
        }
    }
}

fn answer(request: &Request<Incoming>) -> Response<ResponseBody> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return only_get();
    }
    match request.uri().path() {
        "/healthz" => text("ok\n".to_owned()),
        // The process serves only once its store is open and its listeners are bound.
        "/readyz" => text("ready\n".to_owned()),
        path => not_found(path),
    }
}
