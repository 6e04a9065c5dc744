//! Work that is told of as JSON lines while it goes on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde::Serialize;
use tokio::sync::mpsc;

use super::super::AdminServices;
use super::super::body::AdminBody;

/// Lines that wait for a slow listener.
const WAITING: usize = 64;

/// Who listens to the work.
#[derive(Clone)]
pub(crate) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Tells this, and waits for a listener who is slow. One who has left has heard enough.
    pub(crate) async fn say(&self, told: &impl Serialize) {
        if let Some(line) = line(told) {
            let _ = self.0.send(line).await;
        }
    }

    /// Tells this, unless the listener is slow.
    pub(crate) fn hint(&self, told: &impl Serialize) {
        let _ = line(told).map(|line| self.0.try_send(line));
    }
}

fn line(told: &impl Serialize) -> Option<Bytes> {
    let text = serde_json::to_string(told).ok()?;
    Some(Bytes::from(format!("{text}\n")))
}

/// Begins `work`, and answers with what it tells. It ends early when nobody listens any more, and
/// with the shutdown; `deserted` says so in the log.
pub(super) fn tell<W>(
    services: &Arc<AdminServices>,
    deserted: &'static str,
    work: impl FnOnce(Arc<AdminServices>, Lines) -> W,
) -> Response<AdminBody>
where
    W: Future<Output = ()> + Send + 'static,
{
    let (lines, body) = mpsc::channel(WAITING);
    let listener = lines.clone();
    let work = work(services.clone(), Lines(lines));
    let shutdown = services.shutdown.clone();
    services.tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = listener.closed() => tracing::info!("{deserted}"),
            () = shutdown.cancelled() => {}
        }
    });
    let mut response = Response::new(AdminBody::Lines(body));
    let media_type = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
