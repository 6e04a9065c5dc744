//! Reading the configuration again, on an operator's word.
//!
//! Who runs the proxy does it, and says what has come of it: here is only the way there.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait: operators are few.
const WAITING: usize = 8;

/// What has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// The keys whose values are others than before, and are in force.
    pub changed: Vec<String>,
    /// The keys that are in force at the next start.
    pub waiting_for_restart: Vec<String>,
    /// What an operator should know although nothing is wrong, a sentence each.
    pub notes: Vec<String>,
}

/// Why everything has stayed as it was: all that is wrong, a line each, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReloadRefusal(pub(crate) Vec<String>);

/// Where whoever has asked is told.
pub(crate) type Answer = oneshot::Sender<Result<Reloaded, ReloadRefusal>>;

/// The way to who runs the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Reloads(mpsc::Sender<Answer>);

impl Reloads {
    /// A way, and its end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Answer>) {
        let (to, requests) = mpsc::channel(WAITING);
        (Self(to), requests)
    }

    /// Has the configuration read again; nothing where nobody does that any more.
    pub(super) async fn ask(&self) -> Option<Result<Reloaded, ReloadRefusal>> {
        let (answer, told) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        told.await.ok()
    }
}
