//! Trying the operator's credentials, for who checks a configuration.

use std::sync::Arc;

use entrepot_oci::Registry;
use http::{HeaderMap, Method, StatusCode, header};

use super::challenge::Authentication;
use super::credentials::{Failure, Login};
use super::options::RegistryRule;
use super::own_tokens::{helper_name, may_be_shown};
use super::token_server::TokenError;
use crate::memory::Account;
use crate::upstream::body::RequestBody;
use crate::upstream::client::Sending;
use crate::upstream::{Errand, Target, Upstream, UpstreamError};

/// What became of credentials that were tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tried {
    /// There are none, or the registry wants none.
    NotWanted,
    /// The registry takes them; whose they are.
    Taken(String),
}

/// Why credentials are of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// They could not be read.
    #[error("its credentials can't be had: {0}")]
    Unread(Failure),
    /// They were refused.
    #[error("it does not take its credentials ({whose}): {answer}")]
    Refused {
        /// Whose.
        whose: String,
        /// What was answered.
        answer: String,
    },
    /// They may not be shown to the token server that the registry names.
    #[error("its credentials ({0}) are not shown to {1}, which is of another domain")]
    Foreign(String, String),
    /// Nobody could be asked.
    #[error(transparent)]
    Upstream(#[from] Arc<UpstreamError>),
}

/// Whether the registry at `target`, which has answered a ping with these fields, takes the
/// credentials that `rule` has for it.
pub(crate) async fn try_login(
    upstream: &Upstream,
    rule: &RegistryRule,
    target: &Target,
    challenge: &HeaderMap,
    account: &Account,
) -> Result<Tried, LoginError> {
    let (Some(credentials), Some(wanted)) =
        (rule.credentials.as_ref(), Authentication::of_challenge(target, challenge))
    else {
        return Ok(Tried::NotWanted);
    };
    let whose = credentials.whose();
    let host = target.authority.host();
    let realm = wanted.realm(target);
    let place = realm.as_ref().map_or(target, |realm| &realm.target);
    let is_trusted = realm.as_ref().is_none_or(|realm| realm.is_trusted_by(&target.authority));
    if !is_trusted || !may_be_shown(rule, credentials, host, place) {
        return Err(LoginError::Foreign(whose, place.authority.to_string()));
    }
    let server = helper_name(&Registry::at(&target.authority), &target.authority);
    let login = credentials.login(&server).await.map_err(LoginError::Unread)?;
    let refused = |answer: String| LoginError::Refused { whose: whose.clone(), answer };
    if let Some(realm) = realm {
        let none = HeaderMap::new();
        let got = realm.token(upstream, Errand::Other, None, Some(&login), &none, account).await;
        return match got {
            Ok(_) => Ok(Tried::Taken(whose)),
            Err(TokenError::Upstream(error)) => Err(error.into()),
            Err(error) => Err(refused(error.to_string())),
        };
    }
    let status = ping_as(upstream, target, &login).await.map_err(Arc::new)?;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(refused(format!("it answered {status}")));
    }
    Ok(Tried::Taken(whose))
}

async fn ping_as(
    upstream: &Upstream,
    target: &Target,
    login: &Login,
) -> Result<StatusCode, UpstreamError> {
    let mut fields = HeaderMap::new();
    if let Some(basic) = login.basic() {
        fields.insert(header::AUTHORIZATION, basic);
    }
    let body = RequestBody::Empty;
    let behalf = upstream.behalf_of(target);
    let sending = Sending::shared(&behalf, Errand::Pull);
    let answer = upstream.send(sending, Method::GET, target, fields, body).await?;
    Ok(answer.status())
}
