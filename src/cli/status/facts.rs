//! What the API of a running proxy says of its state.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::api::Api;

/// Pulls that are shown.
const PULLS: &str = "/api/v1/pulls?limit=5";

/// All of it. What a proxy does not tell is empty.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The documents as they came, by the names of their paths.
    documents: Map<String, Value>,
    pub(super) status: Status,
    pub(super) registries: Vec<Registry>,
    pub(super) savings: Option<Savings>,
    pub(super) stats: Option<Stats>,
    pub(super) fetches: Vec<Fetch>,
    pub(super) pulls: Vec<Pull>,
    pub(super) peers: Option<Peers>,
}

/// `/api/v1/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) contact: Option<String>,
    pub(super) proxy_url: Option<String>,
    pub(super) started: Option<u64>,
    pub(super) verdict: String,
    pub(super) sentence: String,
    pub(super) troubles: Vec<Trouble>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    pub(super) registry: Option<String>,
    pub(super) state: String,
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
    pub(super) why: Option<String>,
    pub(super) words: Option<String>,
}

/// An entry of `/api/v1/registries`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Registry {
    pub(super) registry: String,
    pub(super) quota: Option<Quota>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Quota {
    pub(super) remaining: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) whole_again: Option<u64>,
}

/// `/api/v1/savings`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Savings {
    pub(super) since: Option<u64>,
    pub(super) currency: Option<String>,
    pub(super) this_month: Option<Sum>,
    pub(super) total: Option<Sum>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sum {
    pub(super) served_bytes: u64,
    /// What was served less what was fetched.
    pub(super) saved_bytes: i64,
    pub(super) pulls: u64,
    pub(super) quota_pulls_saved: u64,
    pub(super) money: Option<f64>,
}

/// `/api/v1/stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) manifests: Option<Hits>,
    pub(super) blobs: Option<Hits>,
    pub(super) store: Store,
    pub(super) bucket: Option<Bucket>,
}

/// What replicas have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bucket {
    /// In one line.
    pub(super) words: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hits {
    pub(super) requests: u64,
    pub(super) hits: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) max_bytes: Option<u64>,
    pub(super) free_bytes: Option<u64>,
    pub(super) min_free_bytes: Option<u64>,
}

/// An entry of `/api/v1/fetches`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fetch {
    pub(super) digest: String,
    pub(super) registry: String,
    pub(super) image: Option<String>,
    pub(super) bytes: u64,
    pub(super) total_bytes: Option<u64>,
    pub(super) bytes_per_sec: Option<f64>,
    pub(super) remaining_secs: Option<u64>,
    pub(super) waiting: Option<u64>,
}

/// An entry of `/api/v1/pulls`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pull {
    pub(super) at_ms: u64,
    pub(super) client: String,
    pub(super) user: Option<String>,
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) reference: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) bytes: u64,
    pub(super) share_from_cache: Option<f64>,
    pub(super) duration_ms: u64,
    pub(super) outcome: Option<String>,
}

/// `/api/v1/peers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peers {
    pub(super) is_configured: bool,
    pub(super) present: u64,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) address: String,
    pub(super) state: String,
    pub(super) why: Option<String>,
}

impl Facts {
    /// Asks for all of it. Only the state itself must be told.
    pub(super) async fn ask(api: &Api) -> anyhow::Result<Self> {
        let mut documents = Map::new();
        let status = api.ask(Method::GET, "/api/v1/status").await?;
        documents.insert("status".to_owned(), status);
        for (name, path) in [
            ("registries", "/api/v1/registries"),
            ("savings", "/api/v1/savings"),
            ("stats", "/api/v1/stats"),
            ("fetches", "/api/v1/fetches"),
            ("peers", "/api/v1/peers"),
            ("pulls", PULLS),
        ] {
            match api.try_ask(Method::GET, path).await {
                Ok(document) => drop(documents.insert(name.to_owned(), document)),
                // Another version, which does not tell that.
                Err(refusal) if refusal.status == Some(StatusCode::NOT_FOUND) => {}
                Err(refusal) => return Err(refusal.error),
            }
        }
        Ok(Self::of(documents))
    }

    /// What these documents say.
    pub(super) fn of(documents: Map<String, Value>) -> Self {
        let whole = |name: &str| documents.get(name).cloned();
        Self {
            status: whole("status").and_then(read).unwrap_or_default(),
            registries: entries(&documents, "registries"),
            savings: whole("savings").and_then(read),
            stats: whole("stats").and_then(read),
            fetches: entries(&documents, "fetches"),
            pulls: entries(&documents, "pulls"),
            peers: whole("peers").and_then(read),
            documents,
        }
    }

    /// All documents, as they came, by the names of their paths.
    pub(super) fn document(&self) -> Value {
        Value::Object(self.documents.clone())
    }

    /// Whether nothing is to be done.
    pub(super) fn is_well(&self) -> bool {
        self.status.verdict == "well"
    }
}

fn read<T: DeserializeOwned>(document: Value) -> Option<T> {
    serde_json::from_value(document).ok()
}

/// The entries of a document whose one list has its name.
fn entries<T: DeserializeOwned>(documents: &Map<String, Value>, name: &str) -> Vec<T> {
    let listed = documents.get(name).and_then(|document| document.get(name)?.as_array());
    listed.into_iter().flatten().cloned().filter_map(read).collect()
}
