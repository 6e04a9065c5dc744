//! Who may pull from where, and how a registry says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Hosts, Site, error};
use crate::canary::CANARY;
use crate::http::{Request, Response};

/// How a registry decides who may what. Repositories are named exactly, or as `prefix/*`.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody may everything.
    Open,
    /// Tokens, as Docker Hub has them.
    Bearer {
        /// Who has a password.
        users: Vec<User>,
        /// What everybody may pull.
        anonymous: Vec<String>,
    },
    /// A name and a password with every request.
    Basic {
        /// Who has a password.
        users: Vec<User>,
    },
}

/// Somebody with a password.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password, with a canary in it.
    pub password: String,
    pull: Vec<String>,
    push: Vec<String>,
}

impl User {
    /// Somebody who may nothing yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let password = format!("{CANARY}-password-of-{name}");
        Self { name: name.to_owned(), password, pull: Vec::new(), push: Vec::new() }
    }

    /// Who may pull from there.
    #[must_use]
    pub fn pulls(mut self, repository: &str) -> Self {
        self.pull.push(repository.to_owned());
        self
    }

    /// Who may push there, and pull.
    #[must_use]
    pub fn pushes(mut self, repository: &str) -> Self {
        self.push.push(repository.to_owned());
        self.pulls(repository)
    }

    /// The value of an `Authorization` field.
    #[must_use]
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.name, self.password)))
    }

    pub(super) fn may(&self, action: Action, repository: &str) -> bool {
        let allowed = match action {
            Action::Pull => &self.pull,
            Action::Push => &self.push,
        };
        covers(allowed, repository)
    }
}

/// Whether one of these names means `repository`.
pub(super) fn covers(allowed: &[String], repository: &str) -> bool {
    allowed.iter().any(|name| match name.strip_suffix('*') {
        Some(prefix) => repository.starts_with(prefix),
        None => name == repository,
    })
}

/// What somebody wants to do to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Pull,
    Push,
}

impl Action {
    pub(super) fn of(method: &str) -> Self {
        if matches!(method, "GET" | "HEAD") { Self::Pull } else { Self::Push }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "pull" => Some(Self::Pull),
            "push" => Some(Self::Push),
            _ => None,
        }
    }

    fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

impl Access {
    /// Tokens, for these users alone; see [`Access::anonymous`].
    #[must_use]
    pub fn bearer(users: impl IntoIterator<Item = User>) -> Self {
        Self::Bearer { users: users.into_iter().collect(), anonymous: Vec::new() }
    }

    /// Passwords, for these users.
    #[must_use]
    pub fn basic(users: impl IntoIterator<Item = User>) -> Self {
        Self::Basic { users: users.into_iter().collect() }
    }

    /// With everybody allowed to get a token for pulling from there.
    #[must_use]
    pub fn anonymous(mut self, repository: &str) -> Self {
        if let Self::Bearer { anonymous, .. } = &mut self {
            anonymous.push(repository.to_owned());
        }
        self
    }

    pub(super) fn user(&self, name: &str, password: &str) -> Option<&User> {
        let (Self::Bearer { users, .. } | Self::Basic { users }) = self else { return None };
        users.iter().find(|user| user.name == name && user.password == password)
    }

    pub(super) fn user_of_basic(&self, authorization: &str) -> Option<&User> {
        let decoded = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (name, password) = text.split_once(':')?;
        self.user(name, password)
    }
}

/// Nothing if the request may do what it wants to `repository` (none: to the API as such), else
/// the answer that says so.
pub(super) fn refusal(
    site: &Site,
    request: &Request,
    repository: Option<&str>,
) -> Option<Response> {
    let authorization = request.headers.get("authorization");
    let wanted = repository.map(|repository| (repository, Action::of(&request.method)));
    match &site.access {
        Access::Open => None,
        Access::Bearer { .. } => {
            let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
            bearer_refusal(site, token, wanted)
        }
        Access::Basic { .. } => {
            let user = authorization.and_then(|value| site.access.user_of_basic(value));
            basic_refusal(user, wanted)
        }
    }
}

type Wanted<'a> = Option<(&'a str, Action)>;

fn bearer_refusal(site: &Site, token: Option<&str>, wanted: Wanted) -> Option<Response> {
    let Some(token) = token else { return Some(challenge(site, wanted, None)) };
    match site.tokens.lock().unwrap().allows(token, wanted) {
        None => Some(challenge(site, wanted, Some("invalid_token"))),
        Some(false) => Some(challenge(site, wanted, Some("insufficient_scope"))),
        Some(true) => None,
    }
}

fn challenge(site: &Site, wanted: Wanted, reason: Option<&str>) -> Response {
    let Hosts { registry, auth, .. } = &site.hosts;
    let mut parameters =
        vec![format!("realm=\"https://{auth}/token\""), format!("service=\"{registry}\"")];
    parameters.extend(wanted.map(|(repository, action)| {
        format!("scope=\"repository:{repository}:{}\"", action.scope())
    }));
    parameters.extend(reason.map(|reason| format!("error=\"{reason}\"")));
    let value = format!("Bearer {}", parameters.join(","));
    unauthorized(&value)
}

fn basic_refusal(user: Option<&User>, wanted: Wanted) -> Option<Response> {
    let Some(user) = user else { return Some(unauthorized("Basic realm=\"test registry\"")) };
    match wanted {
        Some((repository, action)) if !user.may(action, repository) => {
            Some(error(403, "DENIED", "requested access to the resource is denied"))
        }
        _ => None,
    }
}

fn unauthorized(challenge: &str) -> Response {
    error(401, "UNAUTHORIZED", "authentication required").header("WWW-Authenticate", challenge)
}
