//! What a registry's servers were asked.

use std::sync::{Condvar, Mutex};

use crate::PATIENCE;
use crate::http::{Headers, Request};

/// One of the servers that make up a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The registry itself.
    Registry,
    /// Its token server.
    Auth,
    /// Where it sends its clients for the bytes of blobs.
    Cdn,
}

/// A request as a server saw it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Which server.
    pub role: Role,
    /// The method.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// How long the body was.
    pub body_bytes: usize,
}

impl Recorded {
    /// The credential that came along.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization")
    }
}

/// Requests, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Requests(Vec<Recorded>);

impl Requests {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Recorded> {
        self.0.iter()
    }

    /// Those that a test picks.
    #[must_use]
    pub fn filter(&self, pick: impl Fn(&Recorded) -> bool) -> Self {
        Self(self.0.iter().filter(|request| pick(request)).cloned().collect())
    }

    /// Those to one server.
    #[must_use]
    pub fn to(&self, role: Role) -> Self {
        self.filter(|request| request.role == role)
    }

    /// Those of one method.
    #[must_use]
    pub fn method(&self, method: &str) -> Self {
        self.filter(|request| request.method == method)
    }

    /// Those whose path and query contain this.
    #[must_use]
    pub fn path(&self, part: &str) -> Self {
        self.filter(|request| request.target.contains(part))
    }

    /// `GET`s of blobs at the registry, whether it redirects them or not.
    #[must_use]
    pub fn blob_gets(&self) -> Self {
        self.to(Role::Registry).method("GET").path("/blobs/")
    }

    /// `GET`s of manifests.
    #[must_use]
    pub fn manifest_gets(&self) -> Self {
        self.to(Role::Registry).method("GET").path("/manifests/")
    }

    /// `HEAD`s of manifests.
    #[must_use]
    pub fn manifest_heads(&self) -> Self {
        self.to(Role::Registry).method("HEAD").path("/manifests/")
    }

    /// Those that came with a credential.
    #[must_use]
    pub fn with_authorization(&self) -> Self {
        self.filter(|request| request.authorization().is_some())
    }

    /// What was asked, a line each, for the messages of failed assertions.
    #[must_use]
    pub fn summary(&self) -> String {
        let line = |request: &Recorded| {
            format!("{:?} {} {}", request.role, request.method, request.target)
        };
        self.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Where servers write their requests down, and tests wait for them.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    requests: Mutex<Requests>,
    changed: Condvar,
}

impl RequestLog {
    pub(crate) fn record(&self, role: Role, request: &Request) {
        self.requests.lock().unwrap().0.push(Recorded {
            role,
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body_bytes: request.body.len(),
        });
        self.changed.notify_all();
    }

    pub(crate) fn all(&self) -> Requests {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn clear(&self) {
        self.requests.lock().unwrap().0.clear();
    }

    /// Waits until what was asked so far satisfies `done`.
    #[track_caller]
    pub(crate) fn wait_for(&self, done: impl Fn(&Requests) -> bool) -> Requests {
        let requests = self.requests.lock().unwrap();
        let (requests, timeout) = self
            .changed
            .wait_timeout_while(requests, PATIENCE, |requests| !done(requests))
            .unwrap();
        assert!(!timeout.timed_out(), "not asked as expected:\n{}", requests.summary());
        requests.clone()
    }
}
