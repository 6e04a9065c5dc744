//! What an engine does to pull an image, with every digest checked.

use std::fmt;
use std::io;
use std::thread;

use serde_json::Value;

use crate::client::{Client, Connection};
use crate::http::{Request, Response};
use crate::image::{INDEX, MANIFEST, digest_of};
use crate::registry::{HUB, User};

/// Somebody who pulls images.
#[derive(Debug, Clone)]
pub struct Puller {
    client: Client,
    host: String,
    user: Option<User>,
    architecture: String,
}

/// Why a pull failed.
#[derive(Debug)]
pub enum PullError {
    /// An answer that was not what was needed.
    Refused {
        /// What was asked for.
        what: String,
        /// What came.
        response: Box<Response>,
    },
    /// A connection broke, or a body ended too early.
    Broken {
        /// What was asked for.
        what: String,
        /// How it broke.
        source: io::Error,
    },
    /// A whole body came that was not what was asked for: this must never happen.
    WrongBytes {
        /// What was asked for.
        what: String,
        /// The digest of what came.
        digest: String,
    },
}

impl PullError {
    /// The status of the answer that ended the pull, if one did.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { response, .. } => Some(response.status),
            Self::Broken { .. } | Self::WrongBytes { .. } => None,
        }
    }
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { what, response } => {
                write!(f, "{what}: {} {}", response.status, response.text())
            }
            Self::Broken { what, source } => write!(f, "{what}: {source}"),
            Self::WrongBytes { what, digest } => write!(f, "{what}: got {digest}"),
        }
    }
}

impl std::error::Error for PullError {}

/// An object as it arrived.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its digest, which its bytes have.
    pub digest: String,
    /// The answer that brought it.
    pub response: Response,
}

impl Fetched {
    /// What `Cache-Status` said.
    #[must_use]
    pub fn cache_status(&self) -> &str {
        self.response.headers.get("cache-status").unwrap_or_default()
    }
}

/// An image as it arrived.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The index and the manifest, or the manifest alone.
    pub manifests: Vec<Fetched>,
    /// The configuration and the layers.
    pub blobs: Vec<Fetched>,
}

impl Puller {
    /// Somebody without a name who pulls from Docker Hub, for amd64.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, host: HUB.to_owned(), user: None, architecture: "amd64".to_owned() }
    }

    /// From this registry.
    #[must_use]
    pub fn from(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// For this architecture.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Pulls an image: ping, token, `HEAD` of the reference, manifests and blobs, the latter in
    /// parallel and each on a connection of its own.
    pub fn pull(&self, repository: &str, reference: &str) -> Result<Pulled, PullError> {
        let mut visit = self.visit(repository)?;
        let head = visit.ask(&visit.manifest("HEAD", reference))?;
        let digest = match head.headers.get("docker-content-digest") {
            Some(digest) => digest.to_owned(),
            None => reference.to_owned(),
        };
        let mut manifests = vec![visit.fetch("manifests", &digest)?];
        let mut document = manifests[0].response.json();
        if let Some(listed) = document["manifests"].as_array() {
            let digest = self.choose(listed, &manifests[0])?;
            manifests.push(visit.fetch("manifests", &digest)?);
            document = manifests[1].response.json();
        }
        let blobs = self.fetch_blobs(repository, visit.authorization.as_deref(), &document)?;
        Ok(Pulled { manifests, blobs })
    }

    /// A single object of a repository.
    pub fn blob(&self, repository: &str, digest: &str) -> Result<Fetched, PullError> {
        self.visit(repository)?.fetch("blobs", digest)
    }

    /// A connection that is ready to ask for things of `repository`: the challenge is answered.
    pub fn visit(&self, repository: &str) -> Result<Visit, PullError> {
        let mut visit = self.connect(repository, None)?;
        let ping = Request::get("/v2/");
        let response = visit.exchange(&ping)?;
        visit.authorization = match response.status {
            200 => None,
            401 => self.answer_challenge(repository, &response)?,
            _ => return Err(refused(&visit.url(&ping), response)),
        };
        Ok(visit)
    }

    fn connect(&self, repository: &str, authorization: Option<&str>) -> Result<Visit, PullError> {
        let connection = self
            .client
            .open(&self.host)
            .map_err(|source| PullError::Broken { what: self.host.clone(), source })?;
        Ok(Visit {
            connection,
            host: self.host.clone(),
            repository: repository.to_owned(),
            authorization: authorization.map(str::to_owned),
        })
    }

    fn choose(&self, listed: &[Value], index: &Fetched) -> Result<String, PullError> {
        let fits = |entry: &&Value| entry["platform"]["architecture"] == self.architecture.as_str();
        let digest = listed.iter().find(fits).and_then(|entry| entry["digest"].as_str());
        digest.map(str::to_owned).ok_or_else(|| refused("a platform", index.response.clone()))
    }

    fn fetch_blobs(
        &self,
        repository: &str,
        authorization: Option<&str>,
        manifest: &Value,
    ) -> Result<Vec<Fetched>, PullError> {
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let descriptors = std::iter::once(&manifest["config"]).chain(layers);
        thread::scope(|scope| {
            let fetches: Vec<_> = descriptors
                .filter_map(|descriptor| descriptor["digest"].as_str())
                .map(|digest| {
                    scope.spawn(move || {
                        self.connect(repository, authorization)?.fetch("blobs", digest)
                    })
                })
                .collect();
            fetches.into_iter().map(|fetch| fetch.join().unwrap()).collect()
        })
    }

    /// The `Authorization` that a challenge asks for; none where there is no way to make one.
    fn answer_challenge(
        &self,
        repository: &str,
        response: &Response,
    ) -> Result<Option<String>, PullError> {
        let challenge = response.headers.get("www-authenticate").unwrap_or_default();
        let basic = self.user.as_ref().map(User::basic);
        if !challenge.starts_with("Bearer ") {
            return Ok(basic);
        }
        let parameter = |name| challenge_parameter(challenge, name).unwrap_or_default();
        let url = format!(
            "{}?service={}&scope=repository:{repository}:pull",
            parameter("realm"),
            parameter("service"),
        );
        let mut request = Request::get(&url);
        if let Some(basic) = basic {
            request = request.header("Authorization", basic);
        }
        let answer = self
            .client
            .send(&request)
            .map_err(|source| PullError::Broken { what: url.clone(), source })?;
        if answer.status != 200 {
            return Err(refused(&url, answer));
        }
        let token = answer.json()["token"].as_str().unwrap_or_default().to_owned();
        Ok(Some(format!("Bearer {token}")))
    }
}

/// A parameter of a challenge, without its quotation marks.
#[must_use]
pub fn challenge_parameter(challenge: &str, name: &str) -> Option<String> {
    let start = challenge.find(&format!("{name}=\""))? + name.len() + 2;
    let rest = &challenge[start..];
    rest.split('"').next().map(str::to_owned)
}

fn refused(what: &str, response: Response) -> PullError {
    PullError::Refused { what: what.to_owned(), response: Box::new(response) }
}

/// A connection to a registry for one repository, with the credential that it needs.
pub struct Visit {
    connection: Connection,
    host: String,
    repository: String,
    authorization: Option<String>,
}

impl Visit {
    /// The value of `Authorization` that this visit's requests carry.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Sends a request with the visit's credential; the answer may be anything.
    pub fn exchange(&mut self, request: &Request) -> Result<Response, PullError> {
        let mut request = request.clone();
        if let Some(authorization) = &self.authorization {
            request.headers.set("Authorization", authorization.clone());
        }
        let what = self.url(&request);
        self.connection.send(&request).map_err(|source| PullError::Broken { what, source })
    }

    fn url(&self, request: &Request) -> String {
        format!("{} https://{}{}", request.method, self.host, request.target)
    }

    /// A request for a manifest that accepts what engines accept.
    #[must_use]
    pub fn manifest(&self, method: &str, reference: &str) -> Request {
        Request::new(method, format!("/v2/{}/manifests/{reference}", self.repository))
            .header("Accept", format!("{MANIFEST}, {INDEX}"))
    }

    fn ask(&mut self, request: &Request) -> Result<Response, PullError> {
        let response = self.exchange(request)?;
        match response.status {
            200 => Ok(response),
            _ => Err(refused(&self.url(request), response)),
        }
    }

    /// Fetches an object by its digest and checks it.
    pub fn fetch(&mut self, kind: &str, digest: &str) -> Result<Fetched, PullError> {
        let request = match kind {
            "manifests" => self.manifest("GET", digest),
            _ => Request::get(format!("/v2/{}/{kind}/{digest}", self.repository)),
        };
        let what = self.url(&request);
        let response = self.ask(&request)?;
        let found = digest_of(&response.body);
        if digest.starts_with("sha256:") && found != digest {
            return Err(PullError::WrongBytes { what, digest: found });
        }
        Ok(Fetched { digest: found, response })
    }
}
