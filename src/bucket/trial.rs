//! Whether the bucket of a configuration can be used: everything that replicas do there is done
//! once, and what was put is removed.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use entrepot_oci::hex::encode;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions};

use super::error::BucketError;
use super::key::{KeyError, SharedKey};
use super::layout::TRIAL;
use super::options::Options;
use super::transport::{Times, Transport};
use super::version::Version;
use super::{OpenError, Stores};
use crate::metrics::Metrics;
use crate::upstream::Dialer;

/// What is put and read back.
const BYTES: &[u8] = b"entrepot check\n";
/// More than this, and requests are refused for their time alone.
const SKEW: Duration = Duration::from_mins(5);
/// For all of it: nobody waits longer for a check.
const LONGEST: Duration = Duration::from_mins(1);

/// What was found.
#[derive(Debug)]
pub(crate) struct Trial {
    /// What replicas do there, or why they can't.
    pub use_of_it: Result<String, String>,
    /// Whether it is this fleet's.
    pub whose: Result<String, String>,
    /// What is well, and may yet be in somebody's way.
    pub notes: Vec<String>,
}

/// Tries the bucket of these options. `ca`: the fingerprint of the CA, if there is one already.
/// Makes no key.
pub(crate) async fn try_out(
    options: &Options,
    dialer: &Dialer,
    ca: Option<&str>,
) -> Result<Trial, OpenError> {
    let credential = options.credentials()?;
    let times = Times { timeout: options.timeout, idle: options.idle_timeout };
    let (host, may_ask_metadata) = (options.place.host(), options.place.needs_metadata());
    let transport = Transport::new(dialer, &host, may_ask_metadata, times, Metrics::default());
    let stores = options.place.stores(&transport);
    let Stores { front: store, .. } = stores.map_err(|error| OpenError::Options {
        url: options.url.clone(),
        reason: crate::words::chain(&error),
    })?;
    let trying = Box::pin(tokio::time::timeout(LONGEST, used(options, &*store)));
    let late = || vec![format!("not done within {} s", LONGEST.as_secs())];
    let (found, began) = trying.await.unwrap_or_else(|_| (Err(late()), Instant::now()));
    let mut found = found;
    if let (Some(skew), Err(failures)) = (transport.skew().filter(|by| *by > SKEW), &mut found) {
        failures.push(format!(
            "its clock and this machine's are {} s apart, and S3 takes no more than {}",
            skew.as_secs(),
            SKEW.as_secs()
        ));
    }
    let use_of_it = match found {
        Ok(()) => Ok(format!(
            "puts, reads, lists and deletes within {} ms, with {credential}",
            began.elapsed().as_millis()
        )),
        Err(failures) => Err(format!("{} (asked with {credential})", failures.join("; "))),
    };
    let mut notes = Vec::new();
    if let Some(skew) = transport.skew().filter(|by| *by > SKEW / 2)
        && use_of_it.is_ok()
    {
        notes.push(format!("its clock and this machine's are {} s apart", skew.as_secs()));
    }
    let whose = if use_of_it.is_ok() {
        Box::pin(whose(options, &*store, ca, &mut notes)).await
    } else {
        // What is in the way is said already.
        Ok("not compared with the bucket's".to_owned())
    };
    Ok(Trial { use_of_it, whose, notes })
}

/// Does each thing once; every failure is one of its own, since each may want another right.
async fn used(options: &Options, store: &dyn ObjectStore) -> (Result<(), Vec<String>>, Instant) {
    let began = Instant::now();
    let mut random = [0; 8];
    let name = match SystemRandom::new().fill(&mut random) {
        Ok(()) => format!("{TRIAL}{}", encode(&random)),
        Err(_) => format!("{TRIAL}{}", std::process::id()),
    };
    let path = options.root.path(&name);
    let mut failures = Vec::new();
    let mut note = |what: &str, result: object_store::Result<()>| {
        let result = result.map_err(|error| {
            let absent = || BucketError::Failed("404: it is not there".to_owned());
            BucketError::of(&error).unwrap_or_else(absent)
        });
        if let Err(error) = &result {
            failures.push(format!("can't {what}: {error}"));
        }
        result
    };
    let put = store.put_opts(&path, BYTES.into(), PutOptions::default()).await;
    if let Err(error) = note("put", put.map(drop)) {
        // Who is not there, or knows nobody, is not asked for more.
        let is_hopeless = matches!(error, BucketError::Unreachable(_) | BucketError::Silent(_));
        if is_hopeless {
            return (Err(failures), began);
        }
        let listed = store.list_with_delimiter(root(options).as_ref()).await;
        let _ = note("list", listed.map(drop));
        return (Err(failures), began);
    }
    let _ = note("read", read_back(store, &path).await);
    let _ = note("list", listed(options, store, &path).await);
    let _ = note("put in parts, and take that back", in_parts(store, &path).await);
    let _ = note("delete", store.delete(&path).await);
    let _ = note(
        "tell that something is not there (without s3:ListBucket it is refused in place of that)",
        absent(store, &path).await,
    );
    (if failures.is_empty() { Ok(()) } else { Err(failures) }, began)
}

fn wrong(words: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "bucket", source: Box::new(io::Error::other(words)) }
}

async fn read_back(store: &dyn ObjectStore, path: &Path) -> object_store::Result<()> {
    let found = store.get_opts(path, GetOptions::default()).await?.bytes().await?;
    if found == BYTES { Ok(()) } else { Err(wrong("other bytes came back than were put")) }
}

fn root(options: &Options) -> Option<Path> {
    let root = options.root.to_string();
    (!root.is_empty()).then(|| Path::from(root))
}

async fn listed(
    options: &Options,
    store: &dyn ObjectStore,
    path: &Path,
) -> object_store::Result<()> {
    let found = store.list_with_delimiter(root(options).as_ref()).await?;
    let is_there = found.objects.iter().any(|object| object.location == *path);
    if is_there { Ok(()) } else { Err(wrong("what was put is not in the list")) }
}

async fn in_parts(store: &dyn ObjectStore, path: &Path) -> object_store::Result<()> {
    store.put_multipart_opts(path, PutMultipartOptions::default()).await?.abort().await
}

async fn absent(store: &dyn ObjectStore, path: &Path) -> object_store::Result<()> {
    match store.get_opts(path, GetOptions::default()).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(wrong("what was deleted is still there")),
    }
}

/// Whether the bucket is of this kind, and under this replica's key.
async fn whose(
    options: &Options,
    store: &dyn ObjectStore,
    ca: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<String, String> {
    let key = match SharedKey::read(&options.key_file) {
        Ok(key) => Some(key),
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.to_string()),
    };
    let found = Version::read(store, &options.root).await;
    let found = found.map_err(|error| error.to_string())?;
    let mut words = match &key {
        Some(key) => format!("key {}", key.fingerprint()),
        None => format!("{} will be made at the first start", options.key_file.display()),
    };
    let Some(found) = found else {
        words.push_str("; nobody has used the bucket yet");
        return Ok(words);
    };
    let own = Version::of(
        key.as_ref().map(SharedKey::fingerprint).unwrap_or_default(),
        ca.unwrap_or_default(),
    );
    if let Some(hindrance) = found.hindrance(&own) {
        let made = "there is no bucket.key-file yet, and the bucket has one's records already: copy \
                    the file from another replica";
        return Err(if key.is_none() { made.to_owned() } else { hindrance });
    }
    if let Some(other) = found.other_ca(&own).filter(|_| ca.is_some()) {
        notes.push(other);
    }
    let _ = write!(words, "; the bucket is this fleet's");
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::for_tests::options;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn nothing_of_a_trial_stays_in_the_bucket() {
        let store = InMemory::new();
        let (found, _) = used(&options(), &store).await;
        found.unwrap();
        let left = store.list_with_delimiter(root(&options()).as_ref()).await.unwrap();
        assert!(left.objects.is_empty(), "{:?}", left.objects);
    }

    #[tokio::test]
    async fn whose_a_bucket_is_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { key_file: directory.path().join("key"), ..options() };
        let store = InMemory::new();
        let path = options.root.path(super::super::layout::VERSION);
        let mut notes = Vec::new();
        let mut ask = async |ca| whose(&options, &store, ca, &mut notes).await;
        assert!(ask(None).await.unwrap().contains("will be made"));
        let text = |key: &str| format!("entrepot bucket 1\nkey {key}\nca 01:02\n");
        store.put(&path, text("abc").into()).await.unwrap();
        assert!(ask(None).await.unwrap_err().contains("copy the file"));
        let key = SharedKey::read_or_make(&options.key_file).unwrap();
        assert!(ask(Some("01:02")).await.unwrap_err().contains("another key"));
        store.put(&path, text(key.fingerprint()).into()).await.unwrap();
        assert!(ask(Some("01:02")).await.unwrap().contains("this fleet's"));
        assert!(ask(Some("03:04")).await.is_ok());
        store.put(&path, "entrepot bucket 9\n".into()).await.unwrap();
        assert!(ask(None).await.unwrap_err().contains("entrepot bucket 9"));
        assert!(notes.len() == 1 && notes[0].contains("03:04"), "{notes:?}");
    }
}
