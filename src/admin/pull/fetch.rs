//! One object of an image, asked for as an engine asks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, ImageBlob, Reference, Route};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};

use super::Pull;
use super::failure::{self, Failure};
use super::told::{BlobOrigin, BlobProgress, Done, PullLine};
use crate::gateway::{ResponseBody, Served, Way};
use crate::log::Outcome;
use crate::memory::Gathered;
use crate::upstream::Scheme;
use crate::upstream::body::RequestBody;

/// What containerd asks for, word by word: a tag that was resolved for it is fresh for it.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";
/// The largest manifest taken, as the gateway has it.
const LARGEST_MANIFEST: usize = 8 * 1024 * 1024;
/// No error document is longer.
const LARGEST_ERROR: usize = 64 * 1024;
/// How often the progress of a blob is told at most.
const TICK: Duration = Duration::from_millis(200);

impl Pull<'_> {
    /// A manifest, and the digest of its bytes.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<(Digest, Bytes), Failure> {
        let image = &self.wanted.image;
        let repository = image.repository.clone();
        let served = self.ask(Route::Manifest { repository, reference: reference.clone() }).await?;
        let is_fetched = !served.outcome().is_from_store();
        let mut body = Limited::new(served.response.into_body(), LARGEST_MANIFEST);
        let mut gathered = Gathered::new(self.account);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::unusable(image, &error))?;
            let Ok(data) = frame.into_data() else { continue };
            gathered.push(&data).await.map_err(|error| Failure::unusable(image, &error))?;
        }
        let bytes = gathered.finish();
        if is_fetched {
            self.cost.fetches.fetch_add(1, Ordering::Relaxed);
            self.cost.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        let algorithm = match reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = Digest::of(algorithm, &bytes);
        self.settled(&digest).await?;
        Ok((digest, bytes))
    }

    /// A blob, into the store.
    pub(super) async fn blob(&self, blob: &ImageBlob) -> Result<Done, Failure> {
        let repository = self.wanted.image.repository.clone();
        let served = self.ask(Route::Blob { repository, digest: blob.digest }).await?;
        let digest = blob.digest.to_string();
        let done = if served.outcome() == Outcome::Hit {
            Done { digest, bytes: blob.size, from: BlobOrigin::Store }
        } else {
            let bytes = self.read(&digest, served.response.into_body()).await?;
            self.settled(&blob.digest).await?;
            Done { digest, bytes, from: BlobOrigin::Registry }
        };
        self.lines.say(&PullLine::Done(done.clone())).await;
        Ok(done)
    }

    /// Reads a blob to its end, as a client that throws it away.
    async fn read(&self, digest: &str, mut body: ResponseBody) -> Result<u64, Failure> {
        let (mut bytes, mut told) = (0, Instant::now());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::broken(&self.wanted.image, &error))?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if told.elapsed() >= TICK {
                told = Instant::now();
                self.lines
                    .hint(&PullLine::Progress(BlobProgress { digest: digest.to_owned(), bytes }));
            }
        }
        Ok(bytes)
    }

    async fn settled(&self, digest: &Digest) -> Result<(), Failure> {
        if self.gateway.has_settled(digest).await {
            Ok(())
        } else {
            Err(Failure::not_kept(&self.wanted.image))
        }
    }

    /// The gateway's answer, if it is what was asked for.
    async fn ask(&self, route: Route) -> Result<Served, Failure> {
        let image = &self.wanted.image;
        let request = Request::get(route.content_path().unwrap_or_default())
            .header(header::ACCEPT, ACCEPT)
            .body(RequestBody::Empty)
            .map_err(|error| Failure::unusable(image, &error))?;
        let way = Way::new(&image.authority, Scheme::Https);
        let (served, _) = self.gateway.respond(&image.authority, route, way, request).await;
        let status = served.response.status();
        if status == StatusCode::OK {
            return Ok(served);
        }
        let reason = served.reason();
        let body = Limited::new(served.response.into_body(), LARGEST_ERROR).collect().await;
        let told = || body.ok().and_then(|body| failure::message(&body.to_bytes()));
        Err(Failure::answered(image, status, reason.or_else(told).as_deref()))
    }
}
