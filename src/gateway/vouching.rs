//! Images that an operator brings.
//!
//! They are open to whoever may use the proxy, while their registry can't say otherwise; nothing
//! else of their repository is.

use entrepot_cache::{ContentRecord, Fact, RecordError};
use entrepot_oci::{Digest, ImageName, MediaType, Reference};

use super::access::Import;
use super::manifests::tags::{self, Resolution};
use crate::records::Archive;
use crate::registry::Authentication;

/// An image whose objects are kept, and that an operator vouches for.
#[derive(Debug)]
pub(crate) struct Vouched<'a> {
    /// The name under which it is to be pulled.
    pub name: &'a ImageName,
    /// What the name stands for.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// All that it consists of, manifests with their media types.
    pub contents: &'a [(Digest, Option<MediaType>)],
}

/// Puts on record that an image belongs where its name says, and that an operator has brought it.
///
/// The tag comes last: before it is written nothing leads to the image by that name. For a proxy
/// that runs there is [`Gateway::vouch`](super::Gateway::vouch).
pub(crate) async fn vouch(archive: &Archive, image: &Vouched<'_>) -> Result<(), RecordError> {
    let ImageName { registry, repository, reference, .. } = image.name;
    let records = archive.repository(registry, repository);
    for (digest, media_type) in image.contents {
        let mut record = ContentRecord::now(media_type.as_ref().map(MediaType::as_str));
        record.imported = Some(record.recorded);
        records.record_content(digest, &record).await?;
        records.share(digest);
    }
    // Without one a client's first request asks the registry, which may be out of reach for good.
    let of_registry = archive.registry(registry);
    if of_registry.fact::<Authentication>(Fact::Challenge).await.is_none() {
        of_registry.record_fact(Fact::Challenge, Authentication::None).await?;
    }
    // What other replicas have heard of refusals is from before.
    records.pardon().await;
    records.record_fact(Fact::Import, Import::now()).await?;
    match reference {
        Reference::Tag(tag) => {
            let media_type = Some(image.media_type);
            let resolution =
                Resolution { digest: image.digest, media_type, size: Some(image.size) };
            tags::set(&records, tag, &resolution).await
        }
        Reference::Digest(_) => Ok(()),
    }
}
