//! What registries have just refused to the shared identity.
//!
//! A pod that can't pull its image tries again and again, and each try costs requests that count;
//! the answer would be the same. It is remembered for a moment, for those who ask the same.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use moka::sync::Cache;

use crate::memory::{Account, NAME, Shares, table};
use crate::upstream::Target;
use crate::upstream::body::IdleBody;
use crate::upstream::client::Followed;
use crate::upstream::fields::for_strangers;

/// How long a refusal is remembered.
const LIFETIME: Duration = Duration::from_secs(5);
/// Longer ones are not remembered: no error document is longer, nor are its fields together.
const LONGEST: usize = 16 * 1024;

/// What was refused: who asks with other fields may be answered otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RefusedQuestion {
    is_head: bool,
    target: Target,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl RefusedQuestion {
    pub(super) fn new(method: &Method, target: &Target, headers: &HeaderMap) -> Self {
        let own = [header::VIA, header::USER_AGENT];
        let fields = for_strangers(headers).into_iter();
        let mut fields: Vec<_> = fields
            .filter_map(|(name, value)| Some((name?, value)))
            .filter(|(name, _)| !own.contains(name))
            .collect();
        fields.sort_unstable_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
        Self { is_head: *method == Method::HEAD, target: target.clone(), fields }
    }
}

#[derive(Clone)]
struct RefusedAnswer {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
}

impl RefusedAnswer {
    fn answer(self) -> Followed {
        let mut response = Response::new(IdleBody::read(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields;
        Followed::at_once(response)
    }
}

/// What fields take in memory.
fn weight_of(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| field_bytes(name, value)).sum()
}

fn field_bytes(name: &HeaderName, value: &HeaderValue) -> usize {
    /// Its place in the map, and its handles.
    const PLACE: usize = 128;
    name.as_str().len() + value.len() + PLACE
}

/// What was refused lately.
pub(super) struct Refusals(Cache<RefusedQuestion, RefusedAnswer>);

impl Refusals {
    /// Nothing was refused yet.
    pub(super) fn new(shares: Shares) -> Self {
        let weight = |question: &RefusedQuestion, answer: &RefusedAnswer| {
            let fields = question.fields.iter().map(|(name, value)| field_bytes(name, value));
            let question = NAME + question.target.path_and_query.len() + fields.sum::<usize>();
            question + answer.body.len() + weight_of(&answer.fields)
        };
        Self(table(shares.refusals(), weight).time_to_live(LIFETIME).build())
    }

    /// The registry's answer to this question a moment ago, if it was a refusal.
    pub(super) fn get(&self, question: &RefusedQuestion) -> Option<Followed> {
        self.0.get(question).map(RefusedAnswer::answer)
    }

    /// Remembers a refusal, and hands it back.
    pub(super) async fn remember(
        &self,
        question: RefusedQuestion,
        answer: Followed,
        account: &Account,
    ) -> Followed {
        let (head, body) = answer.response.into_parts();
        let rest = match body.whole_or_rest(LONGEST, account).await {
            Ok(Ok(body)) => {
                let mut fields = head.headers.clone();
                // The body is whole, whatever its framing was.
                fields.remove(header::TRANSFER_ENCODING);
                let is_usual = weight_of(&fields) <= LONGEST;
                let refused = RefusedAnswer { status: head.status, fields, body };
                if is_usual {
                    self.0.insert(question, refused.clone());
                }
                return refused.answer();
            }
            Ok(Err(longer)) => longer,
            Err(_broken) => IdleBody::read(Bytes::new()),
        };
        Followed::at_once(Response::from_parts(head, rest))
    }
}
