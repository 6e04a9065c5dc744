//! `[bucket]`: where the bucket is, and how it is spoken to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::Root;
use crate::secret::Secret;

/// How the fleet's bucket is used.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `url`, as it was given.
    pub url: String,
    /// Which bucket that is.
    pub place: Place,
    /// Below which prefix.
    pub root: Root,
    /// `max-idle`: what no replica has used for so long goes. `None`: the bucket's own rules
    /// decide.
    pub max_idle: Option<Duration>,
    /// `max-size`, in bytes; `None`: no bound.
    pub max_size: Option<u64>,
    /// `timeout`: for an answer to begin that a client waits for.
    pub timeout: Duration,
    /// `upstream.idle-timeout`: for what nobody waits for, and the longest silence within a body.
    pub idle_timeout: Duration,
    /// `key-file`.
    pub key_file: PathBuf,
    /// `private`.
    pub private: Private,
}

/// What becomes of bytes that were fetched under a client's own credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Private {
    /// They go into the bucket like all others.
    #[default]
    Share,
    /// They stay on the disk of the replica that has fetched them.
    KeepLocal,
}

/// Which bucket, and with which credential.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Amazon's S3, or a server that speaks like it.
    S3(S3),
    /// Google's.
    Gcs(Gcs),
    /// Microsoft's.
    Azure(Azure),
}

/// A bucket of S3.
#[derive(Debug, Clone)]
pub(crate) struct S3 {
    /// Its name.
    pub bucket: String,
    /// `endpoint`: the server, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// `region`.
    pub region: String,
    /// Whether its name stands in the path rather than in the host.
    pub path_style: bool,
    /// `credentials`; or why there are none, which only who asks the bucket needs to know.
    pub credentials: Result<S3Credentials, Missing>,
    /// `encryption`, if it is not the bucket's own affair.
    pub encryption: Option<Encryption>,
}

/// `encryption`: how the bucket is asked to encrypt what is put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// `AES256`: under the bucket's own key.
    S3,
    /// `aws:kms`, under `kms-key` if that is given.
    Kms(Option<String>),
    /// `aws:kms:dsse`, likewise.
    DoubleKms(Option<String>),
}

/// That the environment has not what the configuration counts on. Most commands can do without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Missing(pub(crate) String);

/// With which credential a bucket of S3 is asked.
#[derive(Debug, Clone)]
pub(crate) enum S3Credentials {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    Environment {
        /// The key's name.
        key_id: String,
        /// Its secret.
        secret: Secret,
        /// `AWS_SESSION_TOKEN`.
        token: Option<Secret>,
    },
    /// `access-key-id`, whose secret is in a file that is read again now and then.
    File {
        /// The key's name.
        key_id: String,
        /// `secret-access-key-file`.
        file: PathBuf,
    },
    /// A role that a signed token of the cluster stands for (IRSA).
    WebIdentity {
        /// `AWS_WEB_IDENTITY_TOKEN_FILE`, read at each renewal.
        token_file: PathBuf,
        /// `AWS_ROLE_ARN`.
        role: String,
        /// `AWS_ROLE_SESSION_NAME`.
        session: Option<String>,
        /// `AWS_ENDPOINT_URL_STS`.
        endpoint: Option<String>,
    },
    /// A task's role (ECS), at `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`.
    Task {
        /// The path there.
        path: String,
    },
    /// A pod's role (EKS pod identity), at `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    Pod {
        /// The URL.
        url: String,
        /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
        token_file: PathBuf,
    },
    /// The machine's role, from its metadata service.
    Instance,
    /// None: the bucket is open to whoever can reach it.
    None,
}

impl S3Credentials {
    /// Whether they come from an address of metadata.
    #[must_use]
    pub(super) fn need_metadata(&self) -> bool {
        matches!(self, Self::Task { .. } | Self::Pod { .. } | Self::Instance)
    }
}

/// For people; no secret is in it.
impl fmt::Display for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment { key_id, .. } => {
                write!(f, "access key {key_id} (AWS_ACCESS_KEY_ID)")
            }
            Self::File { key_id, file } => {
                write!(f, "access key {key_id} (bucket.access-key-id, {})", file.display())
            }
            Self::WebIdentity { role, token_file, .. } => {
                write!(f, "web identity: role {role} by the token in {}", token_file.display())
            }
            Self::Task { .. } => f.write_str("container: the role of this task (ECS)"),
            Self::Pod { .. } => f.write_str("container: the role of this pod (EKS pod identity)"),
            Self::Instance => f.write_str("instance: the role of this machine"),
            Self::None => f.write_str("none"),
        }
    }
}

/// A bucket of Google's.
#[derive(Debug, Clone)]
pub(crate) struct Gcs {
    /// Its name.
    pub bucket: String,
    /// `endpoint`: the server, if it is not Google's.
    pub endpoint: Option<String>,
    /// `credentials`, likewise.
    pub credentials: Result<GcsCredentials, Missing>,
}

/// With which credential one of Google's is asked.
#[derive(Debug, Clone)]
pub(crate) enum GcsCredentials {
    /// A file of a service account or of another kind that Google's programs know:
    /// `GOOGLE_APPLICATION_CREDENTIALS`.
    File(PathBuf),
    /// The machine's service account, from its metadata service.
    Instance,
    /// None.
    None,
}

impl fmt::Display for GcsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{} (GOOGLE_APPLICATION_CREDENTIALS)", file.display()),
            Self::Instance => f.write_str("instance: the service account of this machine"),
            Self::None => f.write_str("none"),
        }
    }
}

/// A container of Microsoft's.
#[derive(Debug, Clone)]
pub(crate) struct Azure {
    /// The account.
    pub account: String,
    /// The container.
    pub container: String,
    /// `endpoint`: the server, if it is not Microsoft's.
    pub endpoint: Option<String>,
    /// `credentials`, likewise.
    pub credentials: Result<AzureCredentials, Missing>,
}

/// With which credential one of Microsoft's is asked.
#[derive(Debug, Clone)]
pub(crate) enum AzureCredentials {
    /// `AZURE_STORAGE_ACCOUNT_KEY`.
    Key(Secret),
    /// `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_CLIENT_SECRET`.
    Client {
        /// Who.
        client: String,
        /// Where.
        tenant: String,
        /// Its secret.
        secret: Secret,
    },
    /// The same two, and a signed token of the cluster: `AZURE_FEDERATED_TOKEN_FILE`.
    WebIdentity {
        /// Who.
        client: String,
        /// Where.
        tenant: String,
        /// Read at each renewal.
        token_file: PathBuf,
    },
    /// The machine's identity, from its metadata service; which one, if it has several.
    Instance(Option<String>),
    /// None.
    None,
}

impl fmt::Display for AzureCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("the account's key (AZURE_STORAGE_ACCOUNT_KEY)"),
            Self::Client { client, .. } => write!(f, "client {client} (AZURE_CLIENT_SECRET)"),
            Self::WebIdentity { client, token_file, .. } => {
                write!(f, "web identity: client {client} by the token in {}", token_file.display())
            }
            Self::Instance(_) => f.write_str("instance: the identity of this machine"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Place {
    /// The credential, for people; no secret is in it. Or why there is none.
    pub(crate) fn credentials(&self) -> Result<String, Missing> {
        match self {
            Self::S3(s3) => s3.credentials.as_ref().map(ToString::to_string),
            Self::Gcs(gcs) => gcs.credentials.as_ref().map(ToString::to_string),
            Self::Azure(azure) => azure.credentials.as_ref().map(ToString::to_string),
        }
        .map_err(Clone::clone)
    }

    /// The file that has to be readable for that, if there is one.
    pub(super) fn secret_file(&self) -> Option<&Path> {
        match self {
            Self::S3(S3 { credentials: Ok(S3Credentials::File { file, .. }), .. }) => Some(file),
            _ => None,
        }
    }

    /// Whether an address of metadata is where the credential comes from.
    #[must_use]
    pub(super) fn needs_metadata(&self) -> bool {
        match self {
            Self::S3(s3) => s3.credentials.as_ref().is_ok_and(S3Credentials::need_metadata),
            Self::Gcs(gcs) => matches!(gcs.credentials, Ok(GcsCredentials::Instance)),
            Self::Azure(azure) => matches!(azure.credentials, Ok(AzureCredentials::Instance(_))),
        }
    }
}
