//! Who writes through the proxy reads what is written, whatever the registry has lost since.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use entrepot_testkit::image::{INDEX, MANIFEST, digest_of};
use entrepot_testkit::{Client, Request, Response};
use serde_json::{Value, json};
use url::Url;

use crate::images::{self, Image};
use crate::site::{Access, HUB, Proxy, Registry, Site};
use crate::skopeo::Skopeo;
use crate::way::Way;

fn image(directory: &Path, repository: &'static str) -> Result<Image> {
    images::create(directory, repository, &[(images::native_architecture(), &[9_000, 90_000])])
}

fn no_images(layouts: &Path) -> Result<Vec<Image>> {
    Ok(fs::create_dir(layouts).map(|()| Vec::new())?)
}

/// A pusher asks whether the registry has a blob, not whether the cache has.
#[test]
fn what_the_registry_has_lost_is_pushed_again() -> Result<()> {
    let (site, _) = Site::start(no_images)?;
    let skopeo = Skopeo::start(&site)?;
    let image = image(&site.directory("pushed")?, "example/lost")?;
    for _ in 0..2 {
        skopeo.push(&image, &image.name())?;
        ensure!(skopeo.digest(&image.name())? == image.digest);
        skopeo.copy_away(&image)?;
        site.registry.lose(&image)?;
    }
    skopeo.push(&image, &image.name())?;
    ensure!(skopeo.digest(&image.name())? == image.digest);
    Ok(())
}

/// Its addresses are all `http://`, and would lead out of the tunnel.
#[test]
fn a_registry_of_plain_http_is_pushed_to_and_pulled_from() -> Result<()> {
    let home = tempfile::tempdir()?;
    let registry = Registry::plain(home.path().join("registry"))?;
    let address = registry.address;
    let settings = format!(
        "[upstream]\nconnect-to = [\"plain.corp:80:{address}\", \"plain.corp:5000:{address}\"]\n\
         [[registry]]\nhost = \"plain.corp\"\nscheme = \"http\"\n\
         [[registry]]\nhost = \"plain.corp:5000\"\nscheme = \"http\"\n"
    );
    let proxy = Proxy::configured(&home.path().join("proxy"), &settings)?;
    let skopeo = home.path().join("skopeo");
    fs::create_dir(&skopeo)?;
    let skopeo = Skopeo::with(skopeo, Way::Proxy(proxy.access()))?;
    for (host, repository) in
        [("plain.corp", "example/plain"), ("plain.corp:5000", "example/with-port")]
    {
        let image = image(&home.path().join("layouts"), repository)?;
        let name = format!("{host}/{repository}:{}", image.tag);
        skopeo.push(&image, &name)?;
        ensure!(skopeo.digest(&name)? == image.digest, "{name}");
    }
    Ok(())
}

/// A client of the Hub's registry.
struct Pusher {
    client: Client,
    repository: &'static str,
}

impl Pusher {
    fn new(access: &Access) -> Result<Self> {
        let client = Client::new(access.mirror()).trusting(&access.authority()?);
        Ok(Self { client, repository: "example/signed" })
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &str) -> Result<Response> {
        let url = format!("https://{HUB}/v2/{}/{path}", self.repository);
        let request = Request::new(method, url).header("Accept", format!("{INDEX}, {MANIFEST}"));
        let request = match media_type {
            "" => request,
            media_type => request.header("Content-Type", media_type).body(body.to_owned()),
        };
        Ok(self.client.send(&request)?)
    }

    fn put(&self, reference: &str, media_type: &str, document: &Value) -> Result<String> {
        let body = document.to_string();
        let put = self.send("PUT", &format!("manifests/{reference}"), media_type, &body)?;
        ensure!(put.status == 201, "{}: {}", put.status, put.text());
        Ok(digest_of(body.as_bytes()))
    }

    fn push_blob(&self, bytes: &str) -> Result<Value> {
        let digest = digest_of(bytes.as_bytes());
        let started = self.send("POST", "blobs/uploads/", "", "")?;
        let location = started.headers.get("location").context("no Location")?;
        let mut url = Url::parse(&format!("https://{HUB}/"))?.join(location)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let put = self.client.send(&Request::new("PUT", url).body(bytes.to_owned()))?;
        ensure!(put.status == 201, "{}: {}", put.status, put.text());
        Ok(json!({"mediaType": "application/x", "digest": digest, "size": bytes.len()}))
    }
}

/// What `cosign sign` and `verify` do with a registry that has no referrers API: a tag that is
/// named after the image leads to an index of what refers to it.
#[test]
fn a_signature_is_found_as_soon_as_it_is_there() -> Result<()> {
    let home = tempfile::tempdir()?;
    let registry = Registry::start(home.path().join("registry"))?;
    let settings = format!(
        "tag-ttl = \"10m\"\n[upstream]\nconnect-to = [\"{}\"]\nca-files = [\"{}\"]\n",
        crate::site::connect_to(&registry),
        registry.authority.display()
    );
    let proxy = Proxy::configured(&home.path().join("proxy"), &settings)?;
    let pusher = Pusher::new(&proxy.access())?;
    let config = pusher.push_blob("{}")?;
    let subject =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let digest = pusher.put("1", MANIFEST, &subject)?;
    let tag = digest.replace(':', "-");
    let (fallback, referrers) = (format!("manifests/{tag}"), format!("referrers/{digest}"));
    ensure!(pusher.send("GET", &fallback, "", "")?.status == 404);
    let mut index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    for number in 0..3 {
        ensure!(pusher.send("GET", &referrers, "", "")?.status == 404);
        let signature = pusher.push_blob(&format!("signature {number}"))?;
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x",
            "config": config, "layers": [signature],
            "subject": {"mediaType": MANIFEST, "digest": digest, "size": subject.to_string().len()},
        });
        let signed =
            pusher.put(&digest_of(document.to_string().as_bytes()), MANIFEST, &document)?;
        let descriptor =
            json!({"mediaType": MANIFEST, "digest": signed, "size": document.to_string().len()});
        if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
            manifests.push(descriptor);
        }
        pusher.put(&tag, INDEX, &index)?;
        for method in ["HEAD", "GET"] {
            let answer = pusher.send(method, &fallback, "", "")?;
            let named = answer.headers.get("docker-content-digest");
            ensure!(
                named == Some(&*digest_of(index.to_string().as_bytes())),
                "{method} of signature {number}: {named:?}"
            );
        }
        let tags = pusher.send("GET", "tags/list", "", "")?;
        ensure!(tags.text().contains(&tag), "{}", tags.text());
        let body = pusher.send("GET", &format!("manifests/{signed}"), "", "")?;
        ensure!(body.text() == document.to_string());
    }
    drop(proxy);
    Ok(())
}

/// The same with the referrers API.
#[test]
fn a_referrer_is_listed_as_soon_as_it_is_there() -> Result<()> {
    let hub = entrepot_testkit::Registry::open();
    let proxy =
        entrepot_testkit::Proxy::builder(env!("CARGO_BIN_EXE_entrepot")).in_front_of(&hub).start();
    let pusher = Pusher { client: proxy.client(), repository: "example/signed" };
    let config = pusher.push_blob("{}")?;
    let subject =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let digest = pusher.put("1", MANIFEST, &subject)?;
    let listed = || -> Result<usize> {
        let answer = pusher.send("GET", &format!("referrers/{digest}"), "", "")?;
        Ok(answer.json().pointer("/manifests").and_then(Value::as_array).map_or(0, Vec::len))
    };
    for number in 0..3 {
        ensure!(listed()? == number, "before referrer {number}");
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": format!("application/{number}"),
            "config": config, "layers": [],
            "subject": {"mediaType": MANIFEST, "digest": digest, "size": subject.to_string().len()},
        });
        pusher.put(&digest_of(document.to_string().as_bytes()), MANIFEST, &document)?;
        ensure!(listed()? == number + 1, "after referrer {number}");
    }
    Ok(())
}
