//! `GET /api/v1/events`: what changes, as it changes (server-sent events, HTML Standard §9.2).
//!
//! Every watcher has a task that looks once a second and sends what is other than it was. It holds
//! a message or two for one that is slow; such a one misses steps, never the state itself, and is
//! sent away when it has taken nothing for a minute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};

use super::AdminServices;
use super::api::{pulls, reports, savings, watching};
use super::body::AdminBody;
use super::pages::refused;
use super::verdict;

/// Watchers at a time: each costs a few documents a second.
const MOST: usize = 32;
/// Pulls that are told of in one message.
const MOST_PULLS: usize = 100;
/// How often each is told.
const TICK: Duration = Duration::from_secs(1);
/// Messages that wait for a slow one.
const WAITING: usize = 2;
/// Ticks in a row for which one may take nothing.
const PATIENCE: u32 = 60;

/// Room for watchers.
#[derive(Debug, Clone)]
pub(crate) struct Audience(Arc<Semaphore>);

impl Default for Audience {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

/// The stream. It ends with the shutdown.
pub(super) fn stream(services: &Arc<AdminServices>) -> Response<AdminBody> {
    let Ok(place) = services.queues.audience.0.clone().try_acquire_owned() else {
        let reason = "too many are watching already";
        return refused(StatusCode::SERVICE_UNAVAILABLE, reason).map(Into::into);
    };
    let (messages, body) = mpsc::channel(WAITING);
    let services = services.clone();
    services.tasks.clone().spawn(async move {
        tokio::select! {
            () = tell(&services, &messages) => {}
            () = messages.closed() => {}
            () = services.shutdown.cancelled() => {}
        }
        drop(place);
    });
    let mut response = Response::new(AdminBody::Lines(body));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn tell(services: &AdminServices, messages: &mpsc::Sender<Bytes>) {
    let mut told = Told::default();
    let mut refused = 0;
    let mut ticks = tokio::time::interval(TICK);
    while refused < PATIENCE {
        ticks.tick().await;
        let news = told.news(services);
        match messages.try_send(news.message) {
            Ok(()) => (told, refused) = (news.told, 0),
            Err(TrySendError::Full(_)) => refused += 1,
            Err(TrySendError::Closed(_)) => return,
        }
    }
    tracing::debug!("somebody who watches takes nothing any more and is sent away");
}

/// What a watcher knows.
#[derive(Debug, Default, Clone)]
struct Told {
    /// The number of the next request that it has not seen.
    next: u64,
    /// And that of the next pull.
    next_pull: u64,
    /// Each document as it was sent last.
    documents: BTreeMap<&'static str, String>,
}

/// What it does not know, and what it knows after that.
struct News {
    message: Bytes,
    told: Told,
}

impl Told {
    fn news(&self, services: &AdminServices) -> News {
        let (mut told, mut message) = (self.clone(), String::new());
        let documents = [
            ("status", verdict::document(services)),
            ("stats", reports::stats(services)),
            ("point", watching::point(&services.history.now())),
            ("fetches", reports::fetches(services)),
            ("registries", watching::registries(services)),
            ("repositories", watching::repositories(services)),
            ("errors", watching::failures(services)),
            ("savings", savings::savings(services)),
            ("peers", reports::peers(services)),
        ];
        for (name, document) in documents {
            let text = document.to_string();
            let last = told.documents.entry(name).or_default();
            if *last != text {
                event(&mut message, name, &text);
                *last = text;
            }
        }
        let requests = services.metrics.requests_since(self.next);
        if let Some(last) = requests.last() {
            told.next = last.number + 1;
            let requests: Vec<Value> = requests.iter().map(watching::request).collect();
            event(&mut message, "requests", &json!({ "requests": requests }).to_string());
        }
        let pulls = services.pulls.since(self.next_pull);
        if let Some(last) = pulls.last() {
            told.next_pull = last.number + 1;
            let new = pulls.iter().skip(pulls.len().saturating_sub(MOST_PULLS));
            let pulls: Vec<Value> = new.map(|event| pulls::pull(event)).collect();
            event(&mut message, "pulls", &json!({ "pulls": pulls }).to_string());
        }
        if message.is_empty() {
            // "Lines that begin with a colon are comments": they keep what is between open.
            message.push_str(":\n\n");
        }
        News { message: Bytes::from(message), told }
    }
}

/// JSON has no line ends, so that it is one line of data.
fn event(message: &mut String, name: &str, document: &str) {
    // Writing to memory does not fail.
    let _ = write!(message, "event: {name}\ndata: {document}\n\n");
}
