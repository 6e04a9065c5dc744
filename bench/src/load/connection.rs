//! One connection: TCP, CONNECT if the server is a proxy, TLS, and requests one after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Request;
use crate::certificates::HOST;
use crate::image::MANIFEST_TYPE;
use crate::wire::Incoming;

/// How long opening a connection may take; more is a failure, not a slow server.
const OPENING: Duration = Duration::from_secs(10);
/// The same for an answer: the slowest peer takes tens of seconds for a large blob on a miss.
const ANSWERING: Duration = Duration::from_mins(2);

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It speaks TLS itself.
    Direct,
    /// Through CONNECT.
    Proxy,
}

/// A server that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) way: Way,
    pub(crate) tls: Arc<ClientConfig>,
    /// The registry's port, as clients know it.
    pub(crate) port: u16,
}

/// What is known of a good answer besides its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// When the body began.
    pub(crate) first_byte: Instant,
    /// Whether the server takes no further request on this connection.
    pub(crate) closes: bool,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    incoming: Incoming<TlsStream<TcpStream>>,
    port: u16,
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        timeout(OPENING, Self::open_at_leisure(target)).await.context("opening a connection")?
    }

    async fn open_at_leisure(target: &Target) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await.context("TCP")?;
        tcp.set_nodelay(true)?;
        let tcp = match target.way {
            Way::Direct => tcp,
            Way::Proxy => connect(tcp, target.port).await.context("CONNECT")?,
        };
        let connector = TlsConnector::from(target.tls.clone());
        let tls = connector.connect(ServerName::try_from(HOST)?, tcp).await.context("TLS")?;
        Ok(Self { incoming: Incoming::new(tls), port: target.port })
    }

    /// Asks, and reads the whole answer; `piece` sees its body.
    pub(crate) async fn ask(
        &mut self,
        request: &Request,
        piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<Answer> {
        timeout(ANSWERING, self.ask_at_leisure(request, piece)).await.context("an answer")?
    }

    async fn ask_at_leisure(
        &mut self,
        request: &Request,
        piece: impl FnMut(&[u8]),
    ) -> anyhow::Result<Answer> {
        let head = head(request, self.port);
        self.incoming.stream.write_all(head.as_bytes()).await?;
        self.incoming.stream.flush().await?;
        let answer = self.incoming.head().await?.context("closed without an answer")?;
        let expected = if request.range.is_some() { 206 } else { 200 };
        ensure!(answer.status() == expected, "status {}, not {expected}", answer.status());
        let Some(bytes) = answer.body_bytes() else { bail!("a body of unknown length") };
        ensure!(bytes == request.bytes, "{bytes} bytes, not {}", request.bytes);
        let first_byte = self.incoming.body(bytes, piece).await?;
        Ok(Answer { first_byte, closes: answer.closes() })
    }

    /// The body of a page of unknown length.
    pub(crate) async fn page(&mut self, path: &str) -> anyhow::Result<String> {
        let request = Request { path: path.to_owned(), range: None, bytes: 0 };
        let head = head(&request, self.port);
        self.incoming.stream.write_all(head.as_bytes()).await?;
        self.incoming.stream.flush().await?;
        let answer = self.incoming.head().await?.context("closed without an answer")?;
        let mut body = Vec::new();
        let len = answer.body_bytes().unwrap_or_default();
        self.incoming.body(len, |piece| body.extend_from_slice(piece)).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn head(request: &Request, port: u16) -> String {
    let range = match request.range {
        Some((from, last)) => format!("Range: bytes={from}-{last}\r\n"),
        None => String::new(),
    };
    format!(
        "GET {} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUser-Agent: entrepot-bench\r\n\
         Accept: {MANIFEST_TYPE}, */*\r\n{range}\r\n",
        request.path
    )
}

async fn connect(tcp: TcpStream, port: u16) -> anyhow::Result<TcpStream> {
    let mut incoming = Incoming::new(tcp);
    let head = format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n");
    incoming.stream.write_all(head.as_bytes()).await?;
    let answer = incoming.head().await?.context("closed without an answer")?;
    ensure!(answer.status() == 200, "status {}", answer.status());
    Ok(incoming.into_inner()?)
}
