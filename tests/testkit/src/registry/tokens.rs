//! The token server: `GET` as Docker's specification has it, `POST` as `OAuth2` does.

use std::collections::HashMap;

use serde_json::json;

use super::access::{Access, Action, User, covers};
use super::{Site, error};
use crate::canary::CANARY;
use crate::http::{Request, Response, form};

/// The tokens that were given out, and what they allow.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: usize,
    grants: HashMap<String, Vec<(String, Action)>>,
    refresh: HashMap<String, String>,
}

impl Tokens {
    /// Whether a token allows this; none if it is unknown.
    pub(super) fn allows(&self, token: &str, wanted: Option<(&str, Action)>) -> Option<bool> {
        let grant = self.grants.get(token)?;
        Some(wanted.is_none_or(|(repository, action)| {
            grant.iter().any(|(name, allowed)| name == repository && *allowed == action)
        }))
    }

    pub(super) fn expire(&mut self) {
        self.grants.clear();
    }

    fn issue(&mut self, grant: Vec<(String, Action)>) -> String {
        self.issued += 1;
        let token = format!("{CANARY}-token-{}", self.issued);
        self.grants.insert(token.clone(), grant);
        token
    }

    fn issue_refresh(&mut self, user: &User) -> String {
        let token = format!("{CANARY}-refresh-{}", user.name);
        self.refresh.insert(token.clone(), user.name.clone());
        token
    }
}

pub(super) fn respond(site: &Site, request: &Request) -> Response {
    match (request.method.as_str(), request.path()) {
        ("GET", "/token") => get(site, request),
        ("POST", "/token") => post(site, &request.body),
        _ => error(404, "NOT_FOUND", "no such page"),
    }
}

fn get(site: &Site, request: &Request) -> Response {
    let scopes = request.query("scope");
    match request.headers.get("authorization") {
        None => answer(site, None, &scopes),
        Some(credential) => match site.access.user_of_basic(credential) {
            Some(user) => answer(site, Some(user), &scopes),
            None => error(401, "UNAUTHORIZED", "incorrect username or password"),
        },
    }
}

fn post(site: &Site, body: &[u8]) -> Response {
    let field = |name| form(body, name).into_iter().next().unwrap_or_default();
    let user = if field("grant_type") == "refresh_token" {
        refreshing_user(site, &field("refresh_token"))
    } else {
        site.access.user(&field("username"), &field("password"))
    };
    match user {
        Some(user) => answer(site, Some(user), &form(body, "scope")),
        None => error(401, "UNAUTHORIZED", "incorrect username or password"),
    }
}

fn refreshing_user<'a>(site: &'a Site, token: &str) -> Option<&'a User> {
    let name = site.tokens.lock().unwrap().refresh.get(token).cloned()?;
    let (Access::Bearer { users, .. } | Access::Basic { users }) = &site.access else {
        return None;
    };
    users.iter().find(|user| user.name == name)
}

fn answer(site: &Site, user: Option<&User>, scopes: &[String]) -> Response {
    let wanted = scopes.iter().flat_map(|scope| scope.split(' ')).flat_map(actions);
    let grant = wanted.filter(|(name, action)| may(&site.access, user, *action, name)).collect();
    let mut tokens = site.tokens.lock().unwrap();
    let token = tokens.issue(grant);
    let mut document = json!({
        "token": token,
        "access_token": token,
        "expires_in": 300,
        "issued_at": "2025-01-01T00:00:00Z",
    });
    if let Some(user) = user {
        document["refresh_token"] = tokens.issue_refresh(user).into();
    }
    Response::new(200).header("Content-Type", "application/json").body(document.to_string())
}

/// What a scope `repository:<name>:<action>,<action>` asks for.
fn actions(scope: &str) -> Vec<(String, Action)> {
    let Some((name, actions)) =
        scope.strip_prefix("repository:").and_then(|rest| rest.rsplit_once(':'))
    else {
        return Vec::new();
    };
    actions.split(',').filter_map(Action::parse).map(|action| (name.to_owned(), action)).collect()
}

fn may(access: &Access, user: Option<&User>, action: Action, repository: &str) -> bool {
    let public = match access {
        Access::Open => true,
        Access::Bearer { anonymous, .. } => action == Action::Pull && covers(anonymous, repository),
        Access::Basic { .. } => false,
    };
    public || user.is_some_and(|user| user.may(action, repository))
}
