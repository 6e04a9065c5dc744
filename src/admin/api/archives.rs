//! Images out of the store, and into it, as archives.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use entrepot_oci::ImageName;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use url::form_urlencoded;

use super::super::AdminServices;
use super::super::body::AdminBody;
use super::ApiRefusal;
use super::images::{bad, full_name, refusal};
use super::lines::{self, Lines};
use super::verify::TICK;
use crate::images::Selection;
use crate::images::export::{self, ExportError};
use crate::images::import::{Adoption, ArchiveContents, ImportError, ImportLine, Records};
use crate::words::chain;

/// What an archive is sent as.
pub(super) const MEDIA_TYPE: &str = "application/x-tar";
/// Images in an archive at most.
const MOST_IMAGES: usize = 1000;
/// Pieces of an archive that wait for who takes them: a quarter of a megabyte each.
const PIECES: usize = 8;
/// How long a client may take for the next piece of an archive.
const IDLE: Duration = Duration::from_mins(1);
/// How long what comes is still taken after an import has failed, so that its end is read.
const LINGER: Duration = Duration::from_secs(10);

/// An archive of the images that the query names.
pub(super) async fn export(
    services: &AdminServices,
    query: &str,
) -> Result<Response<AdminBody>, ApiRefusal> {
    let mut names = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "image" if names.len() < MOST_IMAGES => names.push(full_name(&value)?),
            _ => return Err(bad("the query may hold image=NAME alone, 1000 times at most")),
        }
    }
    if names.is_empty() {
        return Err(bad("the query must name an image: image=NAME"));
    }
    let archive = services.images.export(&names).await.map_err(|error| match error {
        ExportError::Image(error) => refusal(error),
        error => ApiRefusal { status: StatusCode::CONFLICT, reason: error.to_string() },
    })?;
    let (pieces, body) = export::channel();
    // It ends with its client; a shutdown waits for it as for a download.
    services.tasks.spawn(archive.send(pieces));
    let mut response = Response::new(AdminBody::Archive(body));
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

/// Takes an archive in, and tells of it as JSON lines while it comes. What has come when the client
/// leaves is of use for the next try, and nothing leads to it.
pub(super) fn import(
    services: &Arc<AdminServices>,
    query: &str,
    body: Incoming,
) -> Result<Response<AdminBody>, ApiRefusal> {
    let (mut name, mut meant) = (None, Vec::new());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "name" if name.is_none() && meant.is_empty() => name = Some(full_name(&value)?),
            "image" if name.is_none() && meant.len() < MOST_IMAGES => {
                let selection = value.parse::<Selection>();
                meant.push(selection.map_err(|error| bad(format!("image: {error}")))?);
            }
            _ => return Err(bad("the query may hold name=IMAGE once, or image=NAME 1000 times")),
        }
    }
    let Some(turn) = services.queues.imports.take() else {
        let reason = "an import is under way already".to_owned();
        return Err(ApiRefusal { status: StatusCode::CONFLICT, reason });
    };
    let deserted = "nobody listens: the import ends early";
    Ok(lines::tell(services, deserted, |services, lines| async move {
        take_in(&services, (name.as_ref(), &meant), body, &lines).await;
        drop(turn);
    }))
}

async fn take_in(
    services: &AdminServices,
    (name, meant): (Option<&ImageName>, &[Selection]),
    mut body: Incoming,
    lines: &Lines,
) {
    let mut told = Vec::new();
    let imported = match read(services, &mut body, lines).await {
        Ok(contents) => {
            let records = Records::Running(&services.gateway);
            let adoption = Adoption { name, meant, policy: &services.facts.policy, records };
            services.images.adopt(&contents, &adoption, |one| told.push(one)).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &imported {
        let reason = chain(error);
        tracing::warn!(reason, "an import failed");
        told.push(ImportLine::Error(reason));
    }
    for one in &told {
        if let ImportLine::Image(image) = one {
            tracing::info!(image = image.name, "an image was imported");
        }
        lines.say(one).await;
    }
    // An answer is lost when its connection is closed over what nobody has read, be it padding.
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Reads the archive on a thread of its own, while its bytes are handed over.
async fn read(
    services: &AdminServices,
    body: &mut Incoming,
    lines: &Lines,
) -> Result<ArchiveContents, ImportError> {
    let (pieces, coming) = mpsc::channel(PIECES);
    let (images, runtime, lines) = (services.images.clone(), Handle::current(), lines.clone());
    let mut last_told = Instant::now();
    let progress = move |bytes| {
        if last_told.elapsed() >= TICK {
            last_told = Instant::now();
            lines.hint(&ImportLine::Read(bytes));
        }
    };
    let source = BodyReader { coming, rest: Bytes::new() };
    let reading =
        tokio::task::spawn_blocking(move || images.read_archive(&runtime, source, progress));
    hand_over(body, &pieces).await;
    drop(pieces);
    let read = reading.await;
    read.unwrap_or_else(|error| Err(ImportError::Tar(io::Error::other(error).into())))
}

/// Hands the body over until its end, or until nobody wants more of it.
async fn hand_over(body: &mut Incoming, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let piece = match tokio::time::timeout(IDLE, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// The bytes of a body, for who reads them on a thread that may wait.
struct BodyReader {
    coming: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.coming.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let count = self.rest.len().min(buffer.len());
        if let Some(to) = buffer.get_mut(..count) {
            self.rest.copy_to_slice(to);
        }
        Ok(count)
    }
}
