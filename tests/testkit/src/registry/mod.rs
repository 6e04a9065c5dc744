//! A registry that plays Docker Hub, or another one, on loopback: the registry itself, its token
//! server and its CDN, each under a host name of its own, all of them watched.
//!
//! - `access`: who may what, challenges
//! - `tokens`: the token server
//! - `content`: repositories and what is in them
//! - `routes`: the distribution API
//! - `cdn`: signed URLs and the redirects that lead there

mod access;
mod cdn;
mod content;
mod routes;
mod tokens;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::ca::{Leaf, TestCa};
use crate::client::Client;
use crate::fault::{Fault, FaultScript, On, Reply};
use crate::http::{Request, Response};
use crate::image::{Blob, Image, Index};
use crate::requests::{RequestLog, Requests, Role};
use crate::server::Server;
use crate::tls;

pub use access::{Access, User};
pub use cdn::Redirects;

use content::Content;
use tokens::Tokens;

/// The host of Docker Hub's registry.
pub const HUB: &str = "registry-1.docker.io";
/// The host of Docker Hub's token server.
pub const HUB_AUTH: &str = "auth.docker.io";
/// The host of Docker Hub's CDN.
pub const HUB_CDN: &str = "production.cloudflare.docker.com";

/// The servers of a registry, in the order of their roles.
const ROLES: [Role; 3] = [Role::Registry, Role::Auth, Role::Cdn];

/// A running registry; it stops when it is dropped.
#[derive(Debug)]
pub struct Registry {
    site: Arc<Site>,
    ca: Arc<TestCa>,
    servers: [Server; 3],
}

/// What the servers of a registry share.
#[derive(Debug)]
struct Site {
    hosts: Hosts,
    access: Access,
    content: Mutex<Content>,
    tokens: Mutex<Tokens>,
    redirects: Mutex<Redirects>,
    signatures: Mutex<Vec<String>>,
    faults: FaultScript,
    log: RequestLog,
}

#[derive(Debug, Clone)]
struct Hosts {
    registry: String,
    auth: String,
    cdn: String,
}

impl Hosts {
    fn of(&self, role: Role) -> &str {
        match role {
            Role::Registry => &self.registry,
            Role::Auth => &self.auth,
            Role::Cdn => &self.cdn,
        }
    }
}

/// How the registry itself is spoken to, right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// TLS, with a certificate that is as it should be.
    #[default]
    Tls,
    /// Plain HTTP.
    PlainHttp,
    /// TLS, with a certificate whose time is over.
    ExpiredCertificate,
    /// TLS, with a certificate for another name.
    WrongName,
    /// TLS, with a certificate of an authority named `unknown authority`, whom nobody trusts.
    UntrustedAuthority,
}

/// A registry that is still being described.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    hosts: Hosts,
    access: Access,
    redirects: Redirects,
    transport: Transport,
    ca: Option<Arc<TestCa>>,
}

impl Builder {
    /// Under these host names in place of Docker Hub's: the registry's, its token server's and
    /// its CDN's.
    pub fn hosts(mut self, registry: &str, auth: &str, cdn: &str) -> Self {
        let [registry, auth, cdn] = [registry, auth, cdn].map(str::to_owned);
        self.hosts = Hosts { registry, auth, cdn };
        self
    }

    /// Who may what; everybody may everything unless told otherwise.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Where `GET`s of blobs are sent; nowhere unless told otherwise.
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = redirects;
        self
    }

    /// How the registry is spoken to.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// With certificates of another registry's authority, for a proxy in front of both.
    pub fn ca_of(mut self, other: &Registry) -> Self {
        self.ca = Some(Arc::clone(&other.ca));
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(self) -> Registry {
        let ca = self.ca.unwrap_or_else(|| Arc::new(TestCa::new("upstream test authority")));
        let site = Arc::new(Site {
            hosts: self.hosts,
            access: self.access,
            content: Mutex::default(),
            tokens: Mutex::default(),
            redirects: Mutex::new(self.redirects),
            signatures: Mutex::default(),
            faults: FaultScript::default(),
            log: RequestLog::default(),
        });
        let start = |role| {
            let leaf = match role {
                Role::Registry => leaf(self.transport, &ca, &site.hosts.registry),
                Role::Auth | Role::Cdn => Some(ca.leaf(&[site.hosts.of(role)])),
            };
            let site = Arc::clone(&site);
            let tls = leaf.map(tls::server_config);
            Server::start(tls, move |request| site.reply(role, request))
        };
        let servers = ROLES.map(start);
        Registry { site, ca, servers }
    }
}

fn leaf(transport: Transport, ca: &TestCa, host: &str) -> Option<Leaf> {
    match transport {
        Transport::Tls => Some(ca.leaf(&[host])),
        Transport::PlainHttp => None,
        Transport::ExpiredCertificate => Some(ca.expired_leaf(&[host])),
        Transport::WrongName => Some(ca.leaf(&["other.example"])),
        Transport::UntrustedAuthority => Some(TestCa::new("unknown authority").leaf(&[host])),
    }
}

impl Site {
    fn reply(&self, role: Role, request: &Request) -> Reply {
        self.log.record(role, request);
        let response = match role {
            Role::Registry => routes::respond(self, request),
            Role::Auth => tokens::respond(self, request),
            Role::Cdn => cdn::respond(self, request),
        };
        self.faults.apply(role, request, response.into())
    }
}

impl Registry {
    /// A registry under Docker Hub's names, to be described further.
    pub fn builder() -> Builder {
        Builder {
            hosts: Hosts {
                registry: HUB.to_owned(),
                auth: HUB_AUTH.to_owned(),
                cdn: HUB_CDN.to_owned(),
            },
            access: Access::Open,
            redirects: Redirects::None,
            transport: Transport::Tls,
            ca: None,
        }
    }

    /// A registry under Docker Hub's names that asks nobody for anything.
    #[must_use]
    pub fn open() -> Self {
        Self::builder().start()
    }

    /// The host name of the registry itself.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.site.hosts.registry
    }

    /// The authority that signed its servers' certificates.
    #[must_use]
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// The server that plays this role.
    #[must_use]
    pub fn server(&self, role: Role) -> &Server {
        let [registry, auth, cdn] = &self.servers;
        match role {
            Role::Registry => registry,
            Role::Auth => auth,
            Role::Cdn => cdn,
        }
    }

    /// Entries for the proxy's `connect-to` that lead to the three servers.
    #[must_use]
    pub fn connect_to(&self) -> Vec<String> {
        let entry =
            |role| format!("{}:443:{}", self.site.hosts.of(role), self.server(role).address());
        ROLES.map(entry).into()
    }

    /// The authorities of the three servers, each with the place where it really is.
    pub(crate) fn addresses(&self) -> [(String, SocketAddr); 3] {
        ROLES.map(|role| (format!("{}:443", self.site.hosts.of(role)), self.server(role).address()))
    }

    /// A client that goes straight to the three servers.
    #[must_use]
    pub fn direct_client(&self) -> Client {
        let hosts =
            ROLES.map(|role| (self.site.hosts.of(role).to_owned(), self.server(role).address()));
        Client::direct(hosts.into()).trusting(&self.ca.pem())
    }

    /// Puts an image there, under a tag.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        let mut content = self.site.content.lock().unwrap();
        content.add_image(repository, image);
        content.tag(repository, tag, &image.manifest.digest);
    }

    /// Puts an index and its images there, under a tag.
    pub fn push_index(&self, repository: &str, tag: &str, index: &Index) {
        let mut content = self.site.content.lock().unwrap();
        for image in &index.images {
            content.add_image(repository, image);
        }
        content.add_manifest(repository, &index.manifest);
        content.tag(repository, tag, &index.manifest.digest);
    }

    /// Puts a single manifest there, without a tag.
    pub fn push_manifest(&self, repository: &str, manifest: &Blob) {
        self.site.content.lock().unwrap().add_manifest(repository, manifest);
    }

    /// Puts a single blob there.
    pub fn push_blob(&self, repository: &str, blob: &Blob) {
        self.site.content.lock().unwrap().add_blob(repository, blob);
    }

    /// Takes a tag away.
    pub fn untag(&self, repository: &str, tag: &str) {
        self.site.content.lock().unwrap().untag(repository, tag);
    }

    /// Loses a blob, as if it had been collected as garbage.
    pub fn remove_blob(&self, repository: &str, digest: &str) {
        self.site.content.lock().unwrap().remove_blob(repository, digest);
    }

    /// The bytes of a blob, if this repository has it.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Option<bytes::Bytes> {
        self.site.content.lock().unwrap().blob(repository, digest)
    }

    /// The digest that a tag stands for.
    #[must_use]
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        self.site.content.lock().unwrap().digest_of_tag(repository, tag)
    }

    /// Sends `GET`s of blobs elsewhere from now on.
    pub fn set_redirects(&self, redirects: Redirects) {
        *self.site.redirects.lock().unwrap() = redirects;
    }

    /// Makes every token invalid that was given out so far.
    pub fn expire_tokens(&self) {
        self.site.tokens.lock().unwrap().expire();
    }

    /// Makes every signed URL invalid that was given out so far.
    pub fn expire_signatures(&self) {
        self.site.signatures.lock().unwrap().clear();
    }

    /// Does the next such request wrong.
    pub fn fault(&self, on: On, fault: Fault) {
        self.faults(on, vec![fault], 1);
    }

    /// Does the next so many such requests wrong, in all these ways at once.
    pub fn faults(&self, on: On, faults: Vec<Fault>, times: usize) {
        self.site.faults.add(on, faults, Some(times));
    }

    /// Does every such request wrong from now on.
    pub fn fault_always(&self, on: On, fault: Fault) {
        self.site.faults.add(on, vec![fault], None);
    }

    /// Does everything right again.
    pub fn heal(&self) {
        self.site.faults.clear();
    }

    /// Everything it was asked so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.site.log.all()
    }

    /// Forgets what it was asked.
    pub fn forget_requests(&self) {
        self.site.log.clear();
    }

    /// Waits until what it was asked satisfies `done`.
    #[track_caller]
    pub fn wait_for(&self, done: impl Fn(&Requests) -> bool) -> Requests {
        self.site.log.wait_for(done)
    }

    /// Stops listening and ends every connection.
    pub fn stop(&mut self) {
        self.site.faults.open_gates();
        for server in &mut self.servers {
            server.stop();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The error document of the distribution specification.
fn error(status: u16, code: &str, message: &str) -> Response {
    let document = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    Response::new(status).header("Content-Type", "application/json").body(document.to_string())
}
