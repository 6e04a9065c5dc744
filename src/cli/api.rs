//! The admin API of a running proxy, as the command line uses it.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use entrepot_cache::OpenError;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::admin::setup::ProxyAddress;
use crate::admin::socket;
use crate::config::Settings;
use crate::log::one_line;

/// A proxy takes connections at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may think about an answer.
const THINKING: Duration = Duration::from_secs(90);
/// More than any document of the API has.
const LARGEST: usize = 4 * 1024 * 1024;
/// The proxy takes no more.
const LONGEST_PATH: usize = 8 * 1024;
/// A line of an answer is shorter.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// The way to a running proxy's API.
pub(super) struct Api {
    /// `host:port`.
    at: String,
    /// Where it is asked before that, and whose it may be.
    socket: Option<Socket>,
    token_file: Option<PathBuf>,
    /// Why it is asked at all, for when nobody answers.
    cause: Option<String>,
}

/// The admin socket of a configuration.
struct Socket {
    path: PathBuf,
    /// The user that the store is of.
    owner: Option<u32>,
}

/// A connection, with what is to be said on it.
struct Line {
    stream: Box<dyn Stream>,
    host: String,
    token: Option<String>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why something is not done.
pub(super) struct Refusal {
    /// What the proxy says of it, if it has answered.
    pub(super) status: Option<StatusCode>,
    /// All that is wrong, where it names that.
    pub(super) problems: Vec<String>,
    /// In one sentence.
    pub(super) error: anyhow::Error,
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self { status: None, problems: Vec::new(), error }
    }
}

/// The body of a request: pieces as they come, none for most.
pub(super) type Upload = UnsyncBoxBody<Bytes, io::Error>;

impl Api {
    /// The API of `server`, or of the proxy that this configuration is for.
    pub(super) fn new(settings: &Settings, server: Option<&str>) -> anyhow::Result<Self> {
        let token_file = settings.admin_token_file.clone();
        if let Some(url) = server {
            let at = server_at(url).context("--server")?;
            return Ok(Self { at, socket: None, token_file, cause: None });
        }
        let at = reachable(settings.admin_listen).to_string();
        let owner = std::fs::metadata(&settings.store.dir).ok().map(|dir| dir.uid());
        let socket = Some(Socket { path: settings.admin_socket.path.clone(), owner });
        Ok(Self { at, socket, token_file, cause: None })
    }

    /// The API of the proxy that holds the store of this configuration.
    pub(super) fn of_holder(settings: &Settings, locked: &OpenError) -> anyhow::Result<Self> {
        let cause = Some(format!("cache-dir {locked}"));
        Ok(Self { cause, ..Self::new(settings, None)? })
    }

    /// Sends a request without a body.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<Response<Incoming>> {
        self.send_body(method, path, None, nothing()).await
    }

    /// Sends a request; its body may go on after the answer has begun. An answer that is no success
    /// is an error.
    pub(super) async fn send_body(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Upload,
    ) -> anyhow::Result<Response<Incoming>> {
        let response = self.exchange(method, path, media_type, body).await?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Upload,
    ) -> anyhow::Result<Response<Incoming>> {
        let at = &self.at;
        anyhow::ensure!(path.len() <= LONGEST_PATH, "too much for one request: name fewer images");
        let Line { stream, host, token } = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the answer's body, and what goes wrong shows there"
        )]
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(body)?;
        let answered = tokio::time::timeout(THINKING, sender.send_request(request)).await;
        let slow = || format!("the proxy on {at} did not answer within {} s", THINKING.as_secs());
        let response = answered.with_context(slow)?.with_context(|| self.silence())?;
        Ok(response)
    }

    /// Sends a request without a body, and reads the document that answers it; or those that say
    /// why not.
    pub(super) async fn try_ask(&self, method: Method, path: &str) -> Result<Value, Refusal> {
        let response = self.exchange(method, path, None, nothing()).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(document(response).await?);
        }
        let told = document(response).await.unwrap_or_default();
        let of_errors = told.get("errors").and_then(Value::as_array).into_iter().flatten();
        let messages = of_errors.filter_map(|error| error.get("message")?.as_str());
        let messages: Vec<_> = messages.map(|message| one_line(message).into_owned()).collect();
        let error = in_words(status, messages.first().map(String::as_str));
        let is_invalid = status == StatusCode::UNPROCESSABLE_ENTITY;
        let problems = if is_invalid { messages } else { Vec::new() };
        Err(Refusal { status: Some(status), problems, error })
    }

    /// By the socket, which tells the proxy who is there; where there is none, by the listener with
    /// the token.
    async fn connect(&self) -> anyhow::Result<Line> {
        if let Ok(stream) = self.knock().await {
            return Ok(Line { stream, host: "localhost".to_owned(), token: None });
        }
        let token = self.token_file.as_ref().map(std::fs::read_to_string).transpose();
        let token = token.context("admin-token-file")?.map(|token| token.trim().to_owned());
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(&self.at)).await;
        let stream = stream.map_err(anyhow::Error::from).and_then(|s| Ok(s?));
        let stream = Box::new(stream.with_context(|| self.silence())?);
        Ok(Line { stream, host: self.at.clone(), token })
    }

    async fn knock(&self) -> io::Result<Box<dyn Stream>> {
        let Some(Socket { path, owner }) = &self.socket else {
            return Err(ErrorKind::NotFound.into());
        };
        let stream = tokio::time::timeout(PATIENCE, socket::connect(path, *owner)).await??;
        Ok(Box::new(stream))
    }

    /// What to say where nobody answers.
    fn silence(&self) -> String {
        let at = &self.at;
        match &self.cause {
            Some(cause) => format!("{cause}, and no proxy answers on http://{at} (admin-listen)"),
            None => format!(
                "no proxy answers on http://{at} (admin-listen): start one with `entrepot serve`, \
                 or name another with --server"
            ),
        }
    }

    /// Sends a request without a body, and reads the document that answers it.
    pub(super) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        document(self.send(method, path).await?).await
    }

    /// What to say of an answer that has no end.
    pub(super) fn broken(&self) -> anyhow::Error {
        anyhow::anyhow!("the proxy on {} has ended the connection before it was done", self.at)
    }
}

/// `--server` as it was given, if a proxy can have it.
pub(super) fn server_url(url: &str) -> anyhow::Result<String> {
    server_at(url)?;
    Ok(url.to_owned())
}

fn server_at(url: &str) -> anyhow::Result<String> {
    let address = ProxyAddress::from_url(url);
    match address {
        Ok(address) if !url.to_ascii_lowercase().starts_with("https") => {
            Ok(address.authority().to_string())
        }
        _ => bail!("expected http://HOST:PORT, the address of a proxy's admin-listen"),
    }
}

/// JSON lines as they come.
pub(super) struct JsonLines<T> {
    body: Incoming,
    rest: Vec<u8>,
    line: PhantomData<T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// Those of an answer.
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), rest: Vec::new(), line: PhantomData }
    }

    /// The next; none at the end, be it that of the answer or of the connection. It waits as long
    /// as the work takes: TCP tells when the other side is gone.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).context("an unknown answer")?));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) if is_hangup(&error) => return Ok(None),
                Some(frame) => {
                    self.rest.extend_from_slice(&frame?.into_data().unwrap_or_default());
                }
            }
            if self.rest.len() > LONGEST_LINE {
                bail!("an answer without an end");
            }
        }
    }
}

/// Whether the other side has closed the connection in the middle of an answer.
fn is_hangup(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let kind = cause.map(io::Error::kind);
    error.is_incomplete_message()
        || matches!(kind, Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset))
}

/// A wildcard address is listened on, not connected to.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// A refusal in its own words.
async fn refused(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let reason = document(response)
        .await
        .ok()
        .and_then(|document| Some(document.pointer("/errors/0/message")?.as_str()?.to_owned()));
    in_words(status, reason.as_deref())
}

fn in_words(status: StatusCode, reason: Option<&str>) -> anyhow::Error {
    match reason {
        Some(reason) => {
            anyhow::anyhow!("the proxy answered {}: {}", status.as_u16(), one_line(reason))
        }
        None => anyhow::anyhow!("the proxy answered {status}"),
    }
}

/// The body of a request that has none.
fn nothing() -> Upload {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

/// The document in an answer.
pub(super) async fn document(response: Response<Incoming>) -> anyhow::Result<Value> {
    let body = Limited::new(response.into_body(), LARGEST).collect();
    let body = tokio::time::timeout(THINKING, body).await?.map_err(anyhow::Error::from_boxed)?;
    Ok(serde_json::from_slice(&body.to_bytes())?)
}
