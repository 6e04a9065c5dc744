//! What the proxy itself is at a registry: the operator's credentials for it.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_oci::Host;
use http::HeaderValue;
use moka::sync::Cache;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::secret::Secret;

/// How long a helper may take: some ask a cloud's metadata service first.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer taken from a helper, and the longest password file.
const LONGEST: u64 = 1024 * 1024;
/// How long a helper's answer is used: those of ECR, GAR and ACR are good for an hour at least.
const HELPER_FRESH: Duration = Duration::from_mins(15);
/// How long a password file is not read again.
const FILE_FRESH: Duration = Duration::from_mins(1);
/// And at most so often, whatever registries say of what was read.
const REREAD: Duration = Duration::from_secs(5);
/// How long a failure is not tried again: strangers can ask for that all day.
const FAILED: Duration = Duration::from_secs(5);
/// Servers whose credentials are remembered at a time: names that fit a pattern can be made up.
const MOST_SERVERS: u64 = 1000;
/// Helpers that run at a time, each for another server.
const MOST_HELPERS: usize = 64;
/// A helper says by this name that its secret is a refresh token.
const REFRESH_TOKEN_NAME: &str = "<token>";

/// Where an operator's credentials for a registry come from.
#[derive(Clone)]
pub(crate) enum CredentialSource {
    /// `username` and `password`.
    Password {
        /// `username`.
        username: String,
        /// `password`.
        password: Secret,
    },
    /// `username` and `password-file`.
    File {
        /// `username`.
        username: String,
        /// `password-file`.
        path: PathBuf,
    },
    /// `credential-helper`: the `NAME` of `docker-credential-NAME`.
    Helper(String),
}

impl CredentialSource {
    /// What tells one identity from another: never the secret itself.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Password { username, .. } => format!("password {username}"),
            Self::File { username, path } => format!("file {username} {}", path.display()),
            Self::Helper(name) => format!("helper {name}"),
        }
    }
}

impl CredentialSource {
    /// Whether they differ from server to server, so that one's are nothing to another.
    #[must_use]
    pub(crate) fn is_by_server(&self) -> bool {
        matches!(self, Self::Helper(_))
    }

    /// Whose they are, for people who use the proxy.
    fn whose(&self) -> String {
        match self {
            Self::Password { username, .. } | Self::File { username, .. } => {
                format!("user {username}")
            }
            Self::Helper(name) => format!("docker-credential-{name}"),
        }
    }
}

/// Says which kind it is, never what.
impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::File { .. } => "File",
            Self::Helper(_) => "Helper",
        })
    }
}

/// What to log in with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// Name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An `OAuth2` refresh token, which only a token server takes.
    Refresh(Secret),
}

impl Login {
    /// As an `Authorization` field (RFC 7617 §2); `None` for a refresh token.
    #[must_use]
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The configured credentials can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// `password-file` could not be read.
    #[error("password-file {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The helper could not be run.
    #[error("docker-credential-{0} could not be run: is it installed and in PATH?")]
    Run(String, #[source] std::io::Error),
    /// The helper took too long.
    #[error("docker-credential-{0} did not answer within 30 s")]
    Timeout(String),
    /// Too many are being run, for other servers.
    #[error("docker-credential-{0} is being asked for too many registries at once")]
    Busy(String),
    /// The helper said no.
    #[error("docker-credential-{0} has no credentials for {1}")]
    Refused(String, String),
    /// The helper's answer is not of the protocol.
    #[error("docker-credential-{0} answered with something that is no credential")]
    Answer(String),
}

/// Why there are none now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) error: Arc<CredentialError>,
    /// Whether it went wrong just now, rather than a moment ago.
    pub(crate) is_news: bool,
}

/// One entry's credentials, with what was last read of them; cheap to clone.
///
/// A helper's answer is for the server that it was asked about: an entry's pattern may fit many, of
/// many masters.
#[derive(Clone)]
pub(crate) struct Credentials {
    origin: CredentialSource,
    /// The only host that they go to, if it is not the registry's matter.
    token_server: Option<Host>,
    /// By server, as far as that makes a difference.
    readings: Cache<String, Arc<Reading>>,
    helpers: Arc<Semaphore>,
}

/// Which kind they are, never what.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.origin)
    }
}

/// What is known of the credentials for one server.
#[derive(Default)]
struct Reading {
    known: Mutex<Known>,
    /// Held while the file or the helper is asked.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    last: Option<Fresh>,
    failed: Option<(Arc<CredentialError>, Instant)>,
}

struct Fresh {
    login: Login,
    read: Instant,
    until: Instant,
}

impl Reading {
    /// The login, or why there is none, if that was found out lately.
    fn known(&self) -> Option<Result<Login, Failure>> {
        let known = self.known.lock();
        let now = Instant::now();
        if let Some(fresh) = known.last.as_ref().filter(|fresh| fresh.until > now) {
            return Some(Ok(fresh.login.clone()));
        }
        let failed = known.failed.as_ref().filter(|(_, at)| *at + FAILED > now);
        failed.map(|(error, _)| Err(Failure { error: error.clone(), is_news: false }))
    }

    /// Notes what came of asking.
    fn learn(&self, read: Result<(Login, Duration), CredentialError>) -> Result<Login, Failure> {
        let mut known = self.known.lock();
        let now = Instant::now();
        match read {
            Ok((login, fresh)) => {
                let last = Fresh { login: login.clone(), read: now, until: now + fresh };
                *known = Known { last: Some(last), failed: None };
                Ok(login)
            }
            Err(error) => {
                let error = Arc::new(error);
                known.failed = Some((error.clone(), now));
                Err(Failure { error, is_news: true })
            }
        }
    }
}

impl Credentials {
    /// Credentials from there.
    #[must_use]
    pub(crate) fn new(origin: CredentialSource) -> Self {
        let readings = Cache::new(MOST_SERVERS);
        let helpers = Arc::new(Semaphore::new(MOST_HELPERS));
        Self { origin, token_server: None, readings, helpers }
    }

    /// What tells this identity from another.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        self.origin.label()
    }

    /// Whose they are, for people who use the proxy.
    #[must_use]
    pub(crate) fn whose(&self) -> String {
        self.origin.whose()
    }

    /// As those of a token server: they go to that host alone.
    #[must_use]
    pub(crate) fn for_token_server(self, host: Host) -> Self {
        Self { token_server: Some(host), ..self }
    }

    /// Whether they may be shown to this host, if their registry trusts it.
    #[must_use]
    pub(crate) fn may_go_to(&self, host: &Host) -> bool {
        self.token_server.as_ref().is_none_or(|only| only == host)
    }

    /// Whether they differ from server to server, so that one's are nothing to another.
    #[must_use]
    pub(crate) fn are_by_server(&self) -> bool {
        self.origin.is_by_server()
    }

    /// What to log in to `server` with, as helpers know it. A file or helper is asked anew every
    /// few minutes, and after [`forget`](Self::forget).
    pub(crate) async fn login(&self, server: &str) -> Result<Login, Failure> {
        let reading = self.reading(server);
        if let Some(known) = reading.known() {
            return known;
        }
        let _turn = reading.turn.lock().await;
        if let Some(known) = reading.known() {
            return known;
        }
        reading.learn(self.read(server).await)
    }

    async fn read(&self, server: &str) -> Result<(Login, Duration), CredentialError> {
        match &self.origin {
            CredentialSource::Password { username, password } => {
                let (username, password) = (username.clone(), password.clone());
                Ok((Login::Password { username, password }, FILE_FRESH))
            }
            CredentialSource::File { username, path } => {
                Ok((from_file(username, path).await?, FILE_FRESH))
            }
            CredentialSource::Helper(name) => {
                let place = tokio::time::timeout(HELPER_TIMEOUT, self.helpers.acquire()).await;
                let Ok(Ok(_place)) = place else { return Err(CredentialError::Busy(name.clone())) };
                Ok((from_helper(name, server).await?, HELPER_FRESH))
            }
        }
    }

    fn reading(&self, server: &str) -> Arc<Reading> {
        let server = if self.are_by_server() { server } else { "" };
        self.readings.get_with_by_ref(server, Arc::default)
    }

    /// What to log in with after a registry has refused `refused`: what the file or the helper says
    /// now, where that is something else. Asks at most once in some seconds, since a registry also
    /// refuses what credentials do not open, and strangers can ask for that all day.
    pub(crate) async fn renewed(&self, server: &str, refused: &Login) -> Option<Login> {
        self.forget(server);
        self.login(server).await.ok().filter(|login| login != refused)
    }

    /// What was last read for `server` may not be good any more. What was read a moment ago is
    /// kept.
    pub(crate) fn forget(&self, server: &str) {
        let reading = self.reading(server);
        let mut known = reading.known.lock();
        if known.last.as_ref().is_some_and(|last| last.read.elapsed() >= REREAD) {
            known.last = None;
        }
    }
}

async fn from_file(username: &str, path: &PathBuf) -> Result<Login, CredentialError> {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).await?;
        Ok(text)
    };
    let text = read.await.map_err(|error| CredentialError::File(path.clone(), error))?;
    let password = Secret::new(text.trim_end_matches(['\r', '\n']));
    Ok(Login::Password { username: username.to_owned(), password })
}

/// The answer of the credential helper protocol's `get`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-NAME get` with the server on its standard input.
async fn from_helper(name: &str, server: &str) -> Result<Login, CredentialError> {
    let failed = |error| CredentialError::Run(name.to_owned(), error);
    let child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let asked = tokio::time::timeout(HELPER_TIMEOUT, conversation(child, server)).await;
    let (ended_well, answer) =
        asked.map_err(|_| CredentialError::Timeout(name.to_owned()))?.map_err(failed)?;
    if !ended_well {
        return Err(CredentialError::Refused(name.to_owned(), server.to_owned()));
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer)
        .map_err(|_shows_the_secret| CredentialError::Answer(name.to_owned()))?;
    let secret = Secret::new(answer.secret);
    Ok(if answer.username == REFRESH_TOKEN_NAME {
        Login::Refresh(secret)
    } else {
        Login::Password { username: answer.username, password: secret }
    })
}

async fn conversation(mut child: Child, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input may know the answer all the same.
        let _ = input.write_all(format!("{server}\n").as_bytes()).await;
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST).read_to_end(&mut answer).await?;
    }
    Ok((child.wait().await?.success(), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Login {
        Login::Password { username: "me".to_owned(), password: Secret::new(text) }
    }

    #[test]
    fn a_login_is_a_basic_field_that_is_not_shown() {
        let value = password("p:w").basic().unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic bWU6cDp3");
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert!(Login::Refresh(Secret::new("x")).basic().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_file_is_read_again_after_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "one\r\n").unwrap();
        let (username, path) = ("me".to_owned(), file.path().to_owned());
        let credentials = Credentials::new(CredentialSource::File { username, path });
        assert!(credentials.login("ghcr.io").await.unwrap() == password("one"));
        std::fs::write(&file, "two").unwrap();
        assert!(credentials.login("ghcr.io").await.unwrap() == password("one"));
        tokio::time::advance(FILE_FRESH).await;
        assert!(credentials.login("ghcr.io").await.unwrap() == password("two"));
        std::fs::write(&file, "three").unwrap();
        credentials.forget("ghcr.io");
        assert!(credentials.login("ghcr.io").await.unwrap() == password("two"), "just read");
        tokio::time::advance(REREAD).await;
        credentials.forget("ghcr.io");
        assert!(credentials.login("ghcr.io").await.unwrap() == password("three"));
        file.close().unwrap();
        tokio::time::advance(REREAD).await;
        credentials.forget("ghcr.io");
        let failed = credentials.login("ghcr.io").await.err().unwrap();
        assert!(matches!(*failed.error, CredentialError::File(..)) && failed.is_news);
        let again = credentials.login("ghcr.io").await.err().unwrap();
        assert!(!again.is_news, "it was tried a moment ago");
        tokio::time::advance(FAILED).await;
        assert!(credentials.login("ghcr.io").await.err().unwrap().is_news);
    }

    #[tokio::test]
    async fn a_missing_helper_is_named() {
        let credentials = Credentials::new(CredentialSource::Helper("not-there-at-all".to_owned()));
        let error = credentials.login("ghcr.io").await.err().unwrap();
        assert!(error.to_string().contains("docker-credential-not-there-at-all"), "{error}");
    }

    #[test]
    fn nothing_shows_a_password() {
        let (username, password) = ("me".to_owned(), Secret::new("s3cret"));
        let credentials = Credentials::new(CredentialSource::Password { username, password });
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
