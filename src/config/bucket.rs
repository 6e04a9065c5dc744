//! `[bucket]`: the fleet's bucket, with what the environment says of its credential.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use entrepot_oci::Host;
use url::Url;

use super::reader::Reader;
use super::source::Sources;
use super::value::{ByteSize, FromValue};
use crate::bucket::Options;
use crate::bucket::layout::Root;
use crate::bucket::options::{
    Azure, AzureCredentials, Encryption, Gcs, GcsCredentials, Missing, Place, Private, S3,
    S3Credentials,
};
use crate::secret::Secret;

/// Every key but `bucket.url`, without which none has an effect.
const OTHERS: [&str; 13] = [
    "bucket.endpoint",
    "bucket.region",
    "bucket.path-style",
    "bucket.credentials",
    "bucket.access-key-id",
    "bucket.secret-access-key-file",
    "bucket.encryption",
    "bucket.kms-key",
    "bucket.max-idle",
    "bucket.max-size",
    "bucket.timeout",
    "bucket.key-file",
    "bucket.private",
];
/// What only S3 knows.
const OF_S3: [&str; 6] = [
    "bucket.region",
    "bucket.path-style",
    "bucket.access-key-id",
    "bucket.secret-access-key-file",
    "bucket.encryption",
    "bucket.kms-key",
];
/// The name of the fleet's key beside the CA.
const KEY_FILE: &str = "bucket.key";
/// The least that an object and its records take.
const LEAST_SIZE: u64 = 64_000;
/// Longer than this no client would wait for a miss.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The bucket, if there is one. Looks at the files that are named: blocking.
pub(super) fn options(
    reader: &mut Reader,
    sources: &Sources,
    ca_dir: &Path,
    idle_timeout: Duration,
) -> Option<Options> {
    let url: Option<BucketUrl> = reader.get("bucket.url");
    let max_idle: Option<MaxIdle> = reader.get_or_default("bucket.max-idle");
    let timeout: Duration = reader.get_or_default("bucket.timeout").unwrap_or_default();
    let private: Private = reader.get_or_default("bucket.private").unwrap_or_default();
    let max_size = reader.get("bucket.max-size").map(|ByteSize(bytes)| bytes);
    let key_file: Option<PathBuf> = reader.get("bucket.key-file");
    let key_file = key_file
        .map_or_else(|| ca_dir.join(KEY_FILE), |path| reader.beside("bucket.key-file", path));
    let place = url.as_ref().and_then(|url| place(reader, sources, url));
    let Some(url) = url else {
        // Where the URL is wrong that is said already.
        if !reader.is_given("bucket.url")
            && let Some(key) = OTHERS.iter().find(|key| reader.is_given(key))
        {
            reader.note(format!("{key} has no effect: there is no bucket.url"));
        }
        return None;
    };
    bounds(reader, max_idle, max_size, timeout);
    Some(Options {
        url: url.text,
        place: place?,
        root: Root::new(&url.prefix),
        max_idle: max_idle.and_then(|MaxIdle(idle)| idle),
        max_size,
        timeout,
        idle_timeout,
        key_file,
        private,
    })
}

fn bounds(
    reader: &mut Reader,
    max_idle: Option<MaxIdle>,
    max_size: Option<u64>,
    timeout: Duration,
) {
    if max_idle == Some(MaxIdle(Some(Duration::ZERO))) {
        problem(reader, "bucket.max-idle", "found 0: all would go at once; expected more, or off");
    }
    if max_size.is_some_and(|size| size < LEAST_SIZE) {
        problem(reader, "bucket.max-size", "found less than 64kB; expected more");
    }
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        let text = "expected more than 0 and at most 1m: clients wait for it";
        problem(reader, "bucket.timeout", text);
    }
}

fn problem(reader: &mut Reader, key: &str, text: &str) {
    let place = reader.place(key);
    reader.problem(place, format!("{key}: {text}"));
}

fn place(reader: &mut Reader, sources: &Sources, url: &BucketUrl) -> Option<Place> {
    let endpoint: Option<Endpoint> = reader.get("bucket.endpoint");
    let has_path = |endpoint: &Endpoint| endpoint.has_path;
    let is_azure = matches!(url.kind, Kind::Azure { .. });
    if endpoint.as_ref().is_some_and(has_path) && !is_azure {
        let text = "found a path in it; expected https://HOST[:PORT] alone: the bucket's name and \
                    the prefix stand in bucket.url";
        problem(reader, "bucket.endpoint", text);
    }
    let endpoint = endpoint.map(|endpoint| endpoint.url);
    let choice: Option<Choice> = reader.get("bucket.credentials");
    if !matches!(url.kind, Kind::S3(_)) {
        for key in OF_S3 {
            if reader.is_given(key) {
                problem(reader, key, "it is for s3:// alone; expected none");
            }
        }
    }
    let environment = Environment { sources, choice };
    Some(match &url.kind {
        Kind::S3(bucket) => Place::S3(s3(reader, &environment, bucket, endpoint)?),
        Kind::Gcs(bucket) => {
            let credentials = environment.gcs(reader)?;
            Place::Gcs(Gcs { bucket: bucket.clone(), endpoint, credentials })
        }
        Kind::Azure { account, container } => {
            let credentials = environment.azure(reader)?;
            let (account, container) = (account.clone(), container.clone());
            Place::Azure(Azure { account, container, endpoint, credentials })
        }
    })
}

fn s3(
    reader: &mut Reader,
    environment: &Environment<'_>,
    bucket: &str,
    endpoint: Option<String>,
) -> Option<S3> {
    const REGION: &str = "us-east-1";
    let region: Option<Region> = reader.get("bucket.region");
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let named = || named.into_iter().find_map(|name| environment.sources.variable(name));
    let region = region.map(|Region(name)| name);
    let region = region.or_else(|| named().map(str::to_owned)).unwrap_or(REGION.to_owned());
    let path_style = reader.get("bucket.path-style").unwrap_or(endpoint.is_some());
    let encryption = encryption(reader);
    let credentials = environment.s3(reader, endpoint.is_some())?;
    Some(S3 { bucket: bucket.to_owned(), endpoint, region, path_style, credentials, encryption })
}

fn encryption(reader: &mut Reader) -> Option<Encryption> {
    let kind: Option<EncryptionKind> = reader.get("bucket.encryption");
    let key: Option<Word> = reader.get("bucket.kms-key");
    let key = key.map(|Word(key)| key);
    let is_of_kms = matches!(kind, Some(EncryptionKind::Kms | EncryptionKind::DoubleKms));
    if key.is_some() && !is_of_kms {
        let text = "found without encryption = \"aws:kms\" or \"aws:kms:dsse\"; expected with";
        problem(reader, "bucket.kms-key", text);
    }
    Some(match kind? {
        EncryptionKind::S3 => Encryption::S3,
        EncryptionKind::Kms => Encryption::Kms(key),
        EncryptionKind::DoubleKms => Encryption::DoubleKms(key),
    })
}

/// What the process's environment says of credentials, and which of that is wanted.
struct Environment<'a> {
    sources: &'a Sources,
    choice: Option<Choice>,
}

/// `credentials`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Environment,
    WebIdentity,
    Container,
    Instance,
    None,
}

const CREDENTIALS: &str = "bucket.credentials";
const KEY_ID: &str = "bucket.access-key-id";
const SECRET_FILE: &str = "bucket.secret-access-key-file";

/// Credentials; or what is not in the environment for them. That is wrong for who asks the bucket
/// alone: `entrepot ls` has another environment than the proxy.
type Found<T> = Result<T, Missing>;

/// That variables are not there which `credentials` counts on.
fn lacks(what: &str, names: &str) -> Missing {
    Missing(format!("{CREDENTIALS} is {what}, and the environment has not {names}"))
}

impl Environment<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.sources.variable(name).map(str::to_owned)
    }

    fn s3(&self, reader: &mut Reader, has_endpoint: bool) -> Option<Found<S3Credentials>> {
        if reader.is_given(KEY_ID) || reader.is_given(SECRET_FILE) {
            return self.s3_of_file(reader).map(Ok);
        }
        let found = match self.choice {
            Some(Choice::Environment) => self.s3_key().ok_or_else(|| {
                lacks("environment", "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY")
            }),
            Some(Choice::WebIdentity) => self.s3_web_identity().ok_or_else(|| {
                lacks("web-identity", "AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN")
            }),
            Some(Choice::Container) => self.s3_container().ok_or_else(|| {
                let names = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, nor \
                             AWS_CONTAINER_CREDENTIALS_FULL_URI with \
                             AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
                lacks("container", names)
            }),
            Some(Choice::Instance) => Ok(S3Credentials::Instance),
            Some(Choice::None) => Ok(S3Credentials::None),
            None => {
                let named = self.s3_key().or_else(|| self.s3_web_identity());
                let named = named.or_else(|| self.s3_container());
                // Who is at Amazon's without any of these has a machine's role.
                named.or((!has_endpoint).then_some(S3Credentials::Instance)).ok_or_else(|| {
                    let text = "set bucket.access-key-id with bucket.secret-access-key-file, \
                                AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY in the environment, or \
                                bucket.credentials";
                    Missing(text.to_owned())
                })
            }
        };
        let is_safe = found.as_ref().map_or(true, |found| Self::is_safe(reader, found));
        is_safe.then_some(found)
    }

    /// A key of the configuration's own.
    fn s3_of_file(&self, reader: &mut Reader) -> Option<S3Credentials> {
        if self.choice.is_some() {
            problem(reader, KEY_ID, "found beside bucket.credentials; expected one of the two");
        }
        for (one, other) in [(KEY_ID, SECRET_FILE), (SECRET_FILE, KEY_ID)] {
            if !reader.is_given(other) {
                problem(reader, one, &format!("found without {other}; expected both"));
            }
        }
        let key_id: Option<Word> = reader.get(KEY_ID);
        let file: Option<PathBuf> = reader.get(SECRET_FILE);
        // It is its own user's to read, who may not be the one of this command.
        let file = file.map(|path| reader.beside(SECRET_FILE, path))?;
        key_id.map(|Word(key_id)| S3Credentials::File { key_id, file })
    }

    fn s3_key(&self) -> Option<S3Credentials> {
        Some(S3Credentials::Environment {
            key_id: self.text("AWS_ACCESS_KEY_ID")?,
            secret: Secret::new(self.text("AWS_SECRET_ACCESS_KEY")?),
            token: self.text("AWS_SESSION_TOKEN").map(Secret::new),
        })
    }

    fn s3_web_identity(&self) -> Option<S3Credentials> {
        Some(S3Credentials::WebIdentity {
            token_file: self.text("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            role: self.text("AWS_ROLE_ARN")?,
            session: self.text("AWS_ROLE_SESSION_NAME"),
            endpoint: self.text("AWS_ENDPOINT_URL_STS"),
        })
    }

    fn s3_container(&self) -> Option<S3Credentials> {
        if let Some(path) = self.text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return Some(S3Credentials::Task { path });
        }
        Some(S3Credentials::Pod {
            url: self.text("AWS_CONTAINER_CREDENTIALS_FULL_URI")?,
            token_file: self.text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?.into(),
        })
    }

    /// Whether the way to the credentials is one: in plain HTTP they come from this machine alone.
    fn is_safe(reader: &mut Reader, credentials: &S3Credentials) -> bool {
        let (name, url) = match credentials {
            S3Credentials::Pod { url, .. } => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            S3Credentials::WebIdentity { endpoint: Some(url), .. } => ("AWS_ENDPOINT_URL_STS", url),
            _ => return true,
        };
        let is_safe = Url::parse(url).is_ok_and(|url| match url.scheme() {
            "https" => url.host().is_some(),
            "http" => url.host_str().is_some_and(is_at_hand),
            _ => false,
        });
        if !is_safe {
            let text = format!(
                "found {name}, which is no https:// URL, nor one of this machine; expected one"
            );
            problem(reader, CREDENTIALS, &text);
        }
        is_safe
    }

    fn gcs(&self, reader: &mut Reader) -> Option<Found<GcsCredentials>> {
        const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
        let file = self.text(VARIABLE).map(|path| GcsCredentials::File(path.into()));
        match self.choice {
            Some(Choice::Environment) => Some(file.ok_or_else(|| lacks("environment", VARIABLE))),
            Some(Choice::Instance) => Some(Ok(GcsCredentials::Instance)),
            Some(Choice::None) => Some(Ok(GcsCredentials::None)),
            Some(Choice::WebIdentity | Choice::Container) => {
                let text =
                    "of gs:// there are environment, instance and none; expected one of these";
                problem(reader, CREDENTIALS, text);
                None
            }
            None => Some(Ok(file.unwrap_or(GcsCredentials::Instance))),
        }
    }

    fn azure(&self, reader: &mut Reader) -> Option<Found<AzureCredentials>> {
        let client = || self.text("AZURE_CLIENT_ID");
        let of_environment = || {
            let key = self.text("AZURE_STORAGE_ACCOUNT_KEY").map(Secret::new);
            key.map(AzureCredentials::Key).or_else(|| {
                Some(AzureCredentials::Client {
                    client: client()?,
                    tenant: self.text("AZURE_TENANT_ID")?,
                    secret: Secret::new(self.text("AZURE_CLIENT_SECRET")?),
                })
            })
        };
        let of_cluster = || {
            Some(AzureCredentials::WebIdentity {
                client: client()?,
                tenant: self.text("AZURE_TENANT_ID")?,
                token_file: self.text("AZURE_FEDERATED_TOKEN_FILE")?.into(),
            })
        };
        match self.choice {
            Some(Choice::Environment) => Some(of_environment().ok_or_else(|| {
                let names = "AZURE_STORAGE_ACCOUNT_KEY, nor AZURE_CLIENT_ID, AZURE_TENANT_ID and \
                             AZURE_CLIENT_SECRET";
                lacks("environment", names)
            })),
            Some(Choice::WebIdentity) => Some(of_cluster().ok_or_else(|| {
                let names = "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE";
                lacks("web-identity", names)
            })),
            Some(Choice::Instance) => Some(Ok(AzureCredentials::Instance(client()))),
            Some(Choice::None) => Some(Ok(AzureCredentials::None)),
            Some(Choice::Container) => {
                let text = "of az:// there are environment, web-identity, instance and none; \
                            expected one of these";
                problem(reader, CREDENTIALS, text);
                None
            }
            None => {
                let named = of_environment().or_else(of_cluster);
                Some(Ok(named.unwrap_or_else(|| AzureCredentials::Instance(client()))))
            }
        }
    }
}

/// Whether a host is this machine, or where it is told who it is.
fn is_at_hand(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(ip) => ip.is_loopback() || crate::upstream::is_metadata(ip),
        Err(_) => host == "localhost",
    }
}

/// Which bucket, and the prefix in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BucketUrl {
    text: String,
    kind: Kind,
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    S3(String),
    Gcs(String),
    Azure { account: String, container: String },
}

impl FromValue for BucketUrl {
    const EXPECTED: &'static str =
        "s3://BUCKET[/PREFIX], gs://BUCKET[/PREFIX] or az://ACCOUNT/CONTAINER[/PREFIX]";

    fn from_text(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let mut parts = rest.trim_end_matches('/').split('/');
        let name = |part: Option<&str>| part.filter(|part| is_name(part)).map(str::to_owned);
        let first = name(parts.next())?;
        let kind = match scheme {
            "s3" => Kind::S3(first),
            "gs" => Kind::Gcs(first),
            "az" => Kind::Azure { account: first, container: name(parts.next())? },
            _ => return None,
        };
        let prefix: Vec<_> = parts.collect();
        let is_right = prefix.iter().all(|part| is_name(part) && !matches!(*part, "." | ".."));
        let prefix = prefix.join("/");
        is_right.then(|| Self { text: text.to_owned(), kind, prefix })
    }
}

/// What may stand between slashes: nothing that a server or a URL means something by.
fn is_name(part: &str) -> bool {
    const LONGEST: usize = 255;
    (1..=LONGEST).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A server's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    url: String,
    has_path: bool,
}

impl FromValue for Endpoint {
    const EXPECTED: &'static str = "a URL such as https://minio.corp:9000";

    // Somebody may have put a password there.
    const IS_SECRET: bool = true;

    fn from_text(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_host = url.host_str()?.parse::<Host>().is_ok();
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let has_path = url.path() != "/";
        (is_host && is_plain)
            .then(|| Self { url: url.as_str().trim_end_matches('/').to_owned(), has_path })
    }
}

/// A region's name: it becomes part of a host's.
struct Region(String);

impl FromValue for Region {
    const EXPECTED: &'static str = "a region such as eu-central-1";

    fn from_text(text: &str) -> Option<Self> {
        let is_name = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_name.then(|| Self(text.to_owned()))
    }
}

/// One word, such as a key's name.
struct Word(String);

impl FromValue for Word {
    const EXPECTED: &'static str = "one word";

    fn from_text(text: &str) -> Option<Self> {
        const LONGEST: usize = 2048;
        let is_one =
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_one.then(|| Self(text.to_owned()))
    }
}

impl FromValue for Choice {
    const EXPECTED: &'static str = "environment, web-identity, container, instance or none";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "environment" => Self::Environment,
            "web-identity" => Self::WebIdentity,
            "container" => Self::Container,
            "instance" => Self::Instance,
            "none" => Self::None,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EncryptionKind {
    S3,
    Kms,
    DoubleKms,
}

impl FromValue for EncryptionKind {
    const EXPECTED: &'static str = "AES256, aws:kms or aws:kms:dsse";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "AES256" => Self::S3,
            "aws:kms" => Self::Kms,
            "aws:kms:dsse" => Self::DoubleKms,
            _ => return None,
        })
    }
}

impl FromValue for Private {
    const EXPECTED: &'static str = "share or keep-local";

    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "share" => Self::Share,
            "keep-local" => Self::KeepLocal,
            _ => return None,
        })
    }
}

/// After how long what nobody uses goes; `None`: that is the bucket's own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MaxIdle(Option<Duration>);

impl FromValue for MaxIdle {
    const EXPECTED: &'static str = "a duration such as 90d or 12w, or off";

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" { Some(Self(None)) } else { Duration::from_text(text).map(Some).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    const KEY: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t")];

    fn load(lines: &str, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("entrepot.toml");
        std::fs::write(&file, format!("data-dir = \"/d\"\n[bucket]\n{lines}")).unwrap();
        std::fs::write(directory.path().join("secret"), "s3cr3t").unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        let sources = Sources { file: Some(file), environment, ..Sources::default() };
        Settings::load(&sources).map_err(|error| error.to_string())
    }

    fn bucket(lines: &str, environment: &[(&str, &str)]) -> Options {
        load(lines, environment).unwrap_or_else(|error| panic!("{error}")).bucket.unwrap()
    }

    fn credentials(lines: &str, environment: &[(&str, &str)]) -> String {
        bucket(lines, environment).place.credentials().unwrap()
    }

    #[test]
    fn without_a_url_there_is_no_bucket() {
        assert!(load("", &KEY).unwrap().bucket.is_none());
        let settings = load("timeout = \"1s\"", &[]).unwrap();
        assert!(settings.bucket.is_none());
        assert!(
            settings.notes[0].starts_with("bucket.timeout has no effect"),
            "{:?}",
            settings.notes
        );
    }

    #[test]
    fn a_url_is_all_that_is_needed_where_the_environment_has_a_credential() {
        let options = bucket("url = \"s3://cache/eu/one\"", &KEY);
        assert_eq!((options.timeout.as_secs(), options.max_size), (3, None));
        assert_eq!(options.max_idle, Some(Duration::from_hours(90 * 24)));
        assert_eq!(options.key_file, Path::new("/d/ca/bucket.key"));
        assert_eq!((options.private, options.root), (Private::Share, Root::new("eu/one")));
        let Place::S3(s3) = options.place else { panic!("no S3") };
        assert_eq!((s3.bucket.as_str(), s3.region.as_str()), ("cache", "us-east-1"));
        assert!(!s3.path_style && s3.endpoint.is_none() && s3.encryption.is_none());
    }

    #[test]
    fn a_server_of_ones_own_is_asked_by_path() {
        let lines = "url = \"s3://b\"\nendpoint = \"http://10.0.0.1:9000/\"\nmax-idle = \"off\"";
        let region = [KEY.as_slice(), &[("AWS_REGION", "here")]].concat();
        let options = bucket(lines, &region);
        assert_eq!(options.max_idle, None);
        let Place::S3(s3) = options.place else { panic!("no S3") };
        assert_eq!(s3.endpoint.as_deref(), Some("http://10.0.0.1:9000"));
        assert!(s3.path_style);
        assert_eq!(s3.region, "here");
        let Place::S3(s3) = bucket(&format!("{lines}\npath-style = false"), &KEY).place else {
            panic!("no S3")
        };
        assert!(!s3.path_style);
    }

    #[test]
    fn the_first_credential_that_the_environment_names_is_taken_unless_one_is_chosen() {
        let url = "url = \"s3://b\"\n";
        let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")];
        let pod = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
        ];
        let task = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
        let all = [KEY.as_slice(), &role, &pod].concat();
        assert_eq!(credentials(url, &all), "access key AKIA1 (AWS_ACCESS_KEY_ID)");
        let without_key = [role.as_slice(), &pod].concat();
        assert_eq!(credentials(url, &without_key), "web identity: role arn:x by the token in /t");
        assert!(credentials(url, &pod).contains("this pod"));
        assert!(credentials(url, &task).contains("this task"));
        assert!(credentials(url, &[]).contains("this machine"));
        for (choice, words) in [
            ("web-identity", "web identity"),
            ("container", "this pod"),
            ("instance", "this machine"),
            ("none", "none"),
        ] {
            let chosen = format!("{url}credentials = \"{choice}\"");
            assert!(credentials(&chosen, &all).contains(words), "{choice}");
        }
        let of_file =
            "url = \"s3://b\"\naccess-key-id = \"AK\"\nsecret-access-key-file = \"secret\"";
        assert!(credentials(of_file, &all).starts_with("access key AK (bucket.access-key-id"));
        let azure = [("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t")];
        let of_cluster = [azure.as_slice(), &[("AZURE_FEDERATED_TOKEN_FILE", "/f")]].concat();
        let az = "url = \"az://account/container/p\"";
        assert!(credentials(az, &of_cluster).starts_with("web identity: client c"));
        assert!(credentials(az, &azure).contains("this machine"));
        let file = [("GOOGLE_APPLICATION_CREDENTIALS", "/g.json")];
        assert!(credentials("url = \"gs://b\"", &file).starts_with("/g.json"));
    }

    #[test]
    fn what_can_not_be_meant_is_wrong_in_words() {
        for (lines, environment, words) in [
            ("url = \"http://b\"", &KEY[..], "expected s3://BUCKET"),
            ("url = \"s3://\"", &KEY, "expected s3://BUCKET"),
            ("url = \"s3://b/../c\"", &KEY, "expected s3://BUCKET"),
            ("url = \"s3://a:b@c\"", &KEY, "expected s3://BUCKET"),
            ("url = \"az://account\"", &KEY, "expected s3://BUCKET"),
            ("url = \"s3://b\"\nendpoint = \"ftp://x\"", &KEY, "bucket.endpoint"),
            ("url = \"s3://b\"\nendpoint = \"https://x/b\"", &KEY, "found a path in it"),
            ("url = \"s3://b\"\nendpoint = \"https://u:s3cr3t@x\"", &KEY, "bucket.endpoint"),
            ("url = \"s3://b\"\nregion = \"a.b\"", &KEY, "bucket.region"),
            ("url = \"s3://b\"\ncredentials = \"mine\"", &KEY, "web-identity"),
            (
                "url = \"s3://b\"\naccess-key-id = \"a\"",
                &KEY,
                "without bucket.secret-access-key-file",
            ),
            (
                "url = \"s3://b\"\nsecret-access-key-file = \"secret\"",
                &KEY,
                "without bucket.access-key-id",
            ),
            (
                "url = \"s3://b\"\naccess-key-id = \"a\"\nsecret-access-key-file = \"secret\"\n\
                 credentials = \"none\"",
                &KEY,
                "beside bucket.credentials",
            ),
            ("url = \"s3://b\"\nkms-key = \"k\"", &KEY, "bucket.kms-key"),
            ("url = \"s3://b\"\nkms-key = \"k\"\nencryption = \"AES256\"", &KEY, "bucket.kms-key"),
            ("url = \"s3://b\"\nencryption = \"aes\"", &KEY, "bucket.encryption"),
            ("url = \"s3://b\"\nmax-idle = \"0s\"", &KEY, "bucket.max-idle"),
            ("url = \"s3://b\"\nmax-size = \"1kB\"", &KEY, "bucket.max-size"),
            ("url = \"s3://b\"\ntimeout = \"0s\"", &KEY, "bucket.timeout"),
            ("url = \"s3://b\"\ntimeout = \"2m\"", &KEY, "bucket.timeout"),
            ("url = \"s3://b\"\nprivate = \"yes\"", &KEY, "keep-local"),
            ("url = \"gs://b\"\nregion = \"a\"", &KEY, "for s3:// alone"),
            ("url = \"gs://b\"\ncredentials = \"container\"", &KEY, "of gs://"),
            (
                "url = \"s3://b\"",
                &[
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/x"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
                ],
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            ),
        ] {
            let error =
                load(lines, environment).err().unwrap_or_else(|| panic!("{lines} is taken"));
            assert!(error.contains(words), "{lines}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn what_the_environment_has_not_is_wrong_for_who_asks_the_bucket_alone() {
        for (lines, environment, words) in [
            ("url = \"s3://b\"\nendpoint = \"https://minio.corp\"", &[][..], "AWS_ACCESS_KEY_ID"),
            ("url = \"s3://b\"\ncredentials = \"environment\"", &KEY[..1], "AWS_SECRET_ACCESS_KEY"),
            ("url = \"s3://b\"\ncredentials = \"web-identity\"", &KEY, "AWS_ROLE_ARN"),
            ("url = \"s3://b\"\ncredentials = \"container\"", &KEY, "AWS_CONTAINER_"),
            ("url = \"gs://b\"\ncredentials = \"environment\"", &KEY, "GOOGLE_APPLICATION"),
            (
                "url = \"az://a/b\"\ncredentials = \"environment\"",
                &KEY,
                "AZURE_STORAGE_ACCOUNT_KEY",
            ),
            ("url = \"az://a/b\"\ncredentials = \"web-identity\"", &KEY, "AZURE_FEDERATED"),
        ] {
            let missing = bucket(lines, environment).place.credentials().unwrap_err();
            assert!(missing.to_string().contains(words), "{lines}: {missing}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = load("url = \"s3://b\"", &KEY).unwrap();
        let shown = format!("{:?} {} {}", settings.bucket, settings.shown, settings.text);
        assert!(!shown.contains("s3cr3t"), "{shown}");
        assert!(shown.contains("AKIA1"));
    }
}
