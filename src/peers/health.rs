//! Whether a replica answers, and which it is.
//!
//! Each time by a connection of its own: one that is about to end takes no new ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::{Authority, Host};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::ID;
use crate::upstream::reach::AddressRule;
use crate::upstream::{DialError, Dialer};
use crate::words::of_exchange;

/// How long an answer is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest id that is taken.
const LONGEST_ID: usize = 64;

/// What is heard of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is there, and this is its id.
    Here(String),
    /// This very process listens there.
    Own,
    /// Nothing.
    Silence,
    /// Nobody takes a connection there, or what answers is no replica; in words.
    Nobody(String),
}

/// Asks after the replica at `place`.
pub(super) async fn ask(dialer: &Dialer, place: SocketAddr) -> Heard {
    match tokio::time::timeout(PATIENCE, asked(dialer, place)).await {
        Ok(Ok(id)) => Heard::Here(id),
        Ok(Err(heard)) => heard,
        Err(_) => Heard::Silence,
    }
}

async fn asked(dialer: &Dialer, place: SocketAddr) -> Result<String, Heard> {
    let authority = Authority::new(Host::Ip(place.ip()), place.port());
    let nobody = |error: hyper::Error| Heard::Nobody(of_exchange(&error));
    let stream = dialer.connect_plain(&authority, AddressRule::Any).await.map_err(undialled)?;
    let request = Request::get("/healthz")
        .header(header::HOST, authority.to_string())
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| Heard::Nobody(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(nobody)?;
    let connection = async {
        // Its failures reach the question.
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(nobody)?,
        never = connection => match never {},
    };
    let is_well = answer.status() == StatusCode::OK;
    let unwell = || Heard::Nobody(format!("it answers {}", answer.status()));
    let id = is_well.then(|| id(answer.headers())).ok_or_else(unwell)?;
    id.ok_or_else(|| Heard::Nobody("what answers is no replica of this program".to_owned()))
}

fn undialled(error: DialError) -> Heard {
    match error {
        DialError::Own { .. } => Heard::Own,
        error if error.is_timeout() => Heard::Silence,
        error => Heard::Nobody(error.to_string()),
    }
}

/// The id in an answer, if it can be one.
fn id(fields: &HeaderMap) -> Option<String> {
    let id = fields.get(ID)?.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(is_plain)).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fields::map;

    #[test]
    fn an_id_is_a_plain_word() {
        let of = |value: &'static str| id(&map(&[("entrepot-id", value)]));
        assert_eq!(of("entrepot-0123").as_deref(), Some("entrepot-0123"));
        for wrong in ["", "a b", "a,b", "\"a\""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let long: &'static str = "x".repeat(LONGEST_ID + 1).leak();
        assert_eq!((of(long), id(&HeaderMap::new())), (None, None));
    }
}
