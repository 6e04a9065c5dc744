//! `/v2/`: whether the API is spoken here, and how to authenticate.

use entrepot_oci::{ErrorCode, ErrorDocument};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::answer::body::ResponseBody;
use super::answer::errors::{error_response, say_api_version};
use super::answer::passed::passed_on;
use super::answer::provenance::{Forward, Provenance, Reason};
use super::answer::served::Served;
use super::exchange::{Asked, Common};
use super::tokens::TOKEN_PATH;
use crate::collapse::Turn;
use crate::registry::Authentication;
use crate::registry::answer::trouble;
use crate::registry::fields::append;
use crate::registry::identity::has_own_token;
use crate::upstream::UpstreamError;
use crate::upstream::body::IdleBody;

/// What the registry has said to a ping.
enum Told {
    /// To another's, meanwhile.
    Known(Authentication),
    Now(Authentication),
    /// Nothing on how to authenticate.
    Other(Box<Response<IdleBody>>),
}

/// Answers the ping of a client without a credential from what the registry said last.
pub(super) async fn serve(common: &Common, asked: &Asked) -> Result<Served, UpstreamError> {
    let registries = &common.registries;
    let answer = |known: &Authentication, provenance| answer(common, asked, known, provenance);
    if let Some(known) = registries.fresh_challenge(&asked.registry) {
        return Ok(answer(&known, Provenance::Kept(None)));
    }
    let client = asked.client(registries);
    let last = registries.last_challenge(&asked.registry).await;
    let (registry, target) = (asked.registry.clone(), asked.target());
    let all = registries.clone();
    let mut question = common.ask(asked, async move {
        let turn = client.turn_to_ping().await;
        // It may have been told since.
        if let Some(known) = all.fresh_challenge(&registry) {
            return Ok(Told::Known(known));
        }
        let told = client.ping(&target).await;
        if let Turn::Lead(permit) = turn {
            match &told {
                Ok((Some(_), _)) => permit.tell(()),
                Ok((None, _)) | Err(_) => permit.give_up(),
            }
        }
        told.map(|(known, response)| {
            known.map_or_else(|| Told::Other(Box::new(response)), Told::Now)
        })
    });
    let told = match question.in_time().await {
        Ok(told) => told,
        Err(late) => match &last {
            Some(known) => {
                let reason = Reason::Unreachable(late.to_string());
                return Ok(answer(known, Provenance::Stale(reason)));
            }
            None => question.answer().await,
        },
    };
    let (reason, failed) = match told {
        Ok(Told::Known(known)) => return Ok(answer(&known, Provenance::Kept(None))),
        Ok(Told::Now(known)) => return Ok(answer(&known, Provenance::Relayed(Forward::Bypass))),
        Ok(Told::Other(response)) if trouble(response.status(), response.headers()).is_none() => {
            return Ok(passed_on(*response, Forward::Bypass));
        }
        Ok(Told::Other(response)) => (Reason::RegistryError(response.status()), Ok(*response)),
        Err(error) => (Reason::Unreachable(error.to_string()), Err(error)),
    };
    match (last, failed) {
        (Some(known), _) => Ok(answer(&known, Provenance::Stale(reason))),
        (None, Err(error)) if error.is_refused_here() => Err(error),
        (None, _) => Ok(as_if_there(common, asked, reason)),
    }
}

/// The answer for a registry of which nothing is known and which can't be asked, as if it were
/// there.
///
/// What an engine prints of a ping that fails is a status at most; where that goes well the failure
/// comes with the manifest, whose words are printed. A client without a credential is sent for a
/// token of ours, which opens nothing; one with a credential is told the truth there.
fn as_if_there(common: &Common, asked: &Asked, reason: Reason) -> Served {
    let service = Some(asked.registry.to_string());
    let assumed = Authentication::Bearer { realm: String::new(), service };
    answer(common, asked, &assumed, Provenance::Failed(reason))
}

/// Whether a client is sent to our own token endpoint already.
pub(super) fn leads_to(own_realm: &str, headers: &HeaderMap) -> bool {
    let realm = format!("Bearer realm=\"{own_realm}\"");
    let mut challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
    challenges.any(|value| value.as_bytes().starts_with(realm.as_bytes()))
}

fn answer(
    common: &Common,
    asked: &Asked,
    known: &Authentication,
    provenance: Provenance,
) -> Served {
    let response = match known {
        Authentication::None => welcome(),
        // The proxy adds what it was given.
        Authentication::Basic { .. } if common.registries.has_credentials(&asked.authority) => {
            welcome()
        }
        Authentication::Basic { challenge } => challenged(challenge),
        Authentication::Bearer { .. } if has_own_token(&asked.headers) => welcome(),
        Authentication::Bearer { .. } => {
            challenged(&challenge(known, &asked.way.url(TOKEN_PATH)).unwrap_or_default())
        }
    };
    Served::unsigned(provenance, response)
}

/// What a client is told of how to authenticate, at `own_realm` for tokens.
pub(super) fn challenge(known: &Authentication, own_realm: &str) -> Option<String> {
    match known {
        Authentication::None => None,
        Authentication::Basic { challenge } => Some(challenge.clone()),
        Authentication::Bearer { service, .. } => {
            let service = service.as_ref().map(|service| format!(",service=\"{service}\""));
            Some(format!("Bearer realm=\"{own_realm}\"{}", service.unwrap_or_default()))
        }
    }
}

fn welcome() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full("{}"));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    say_api_version(fields);
    response
}

fn challenged(challenge: &str) -> Response<ResponseBody> {
    let message = "authentication required";
    let code = ErrorCode::Unauthorized;
    let document = ErrorDocument::new(StatusCode::UNAUTHORIZED, code, message);
    let mut response = error_response(&document);
    append(response.headers_mut(), header::WWW_AUTHENTICATE, challenge);
    response
}
