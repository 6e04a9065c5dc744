//! From options to `object_store`'s own stores, all over our transport.
//!
//! What they need of the environment is in the options: none of them looks there itself (but for
//! Google's file of application credentials in `$HOME`, where `credentials` is `instance`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::azure::{
    AzureConfigKey, AzureCredentialProvider, MicrosoftAzure, MicrosoftAzureBuilder,
};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::Url;

use super::Way;
use super::options::{
    Azure, AzureCredentials, Encryption, Gcs, GcsCredentials, Missing, Place, S3, S3Credentials,
};
use super::secret_file::SecretFile;
use super::transport::Transport;

/// How often a request that nobody waits for is tried again.
const RETRIES: usize = 3;
/// For how long.
const RETRYING: Duration = Duration::from_mins(2);

/// The same bucket for both ways.
pub(super) struct Stores {
    /// For what a client waits for.
    pub front: Arc<dyn ObjectStore>,
    /// For what is done behind answers.
    pub behind: Arc<dyn ObjectStore>,
}

impl Place {
    /// The host that requests for objects go to.
    pub(super) fn host(&self) -> String {
        let of = |url: &str| {
            let url = Url::parse(url).ok();
            url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
        };
        match self {
            Self::S3(s3) => of(&s3.base()),
            Self::Gcs(gcs) => {
                gcs.endpoint.as_deref().map_or_else(|| "storage.googleapis.com".to_owned(), of)
            }
            Self::Azure(azure) => of(&azure.base()),
        }
    }

    /// Both stores; the credential is one.
    pub(super) fn stores(&self, transport: &Transport) -> object_store::Result<Stores> {
        let timeout = transport.timeout();
        let (front, behind) = (transport.clone(), transport.behind());
        let (now, later) = (retries(Way::Front, timeout), retries(Way::Behind, timeout));
        Ok(match self {
            Self::S3(s3) => {
                let behind = s3.store(behind, later, None)?;
                let credentials = behind.credentials().clone();
                let front = s3.store(front, now, Some(credentials))?;
                Stores { front: Arc::new(front), behind: Arc::new(behind) }
            }
            Self::Gcs(gcs) => {
                let behind = gcs.store(behind, later, None)?;
                let credentials = behind.credentials().clone();
                let front = gcs.store(front, now, Some(credentials))?;
                Stores { front: Arc::new(front), behind: Arc::new(behind) }
            }
            Self::Azure(azure) => {
                let behind = azure.store(behind, later, None)?;
                let credentials = behind.credentials().clone();
                let front = azure.store(front, now, Some(credentials))?;
                Stores { front: Arc::new(front), behind: Arc::new(behind) }
            }
        })
    }
}

/// Where a client waits, one try more, and none that could make it wait twice.
fn retries(way: Way, timeout: Duration) -> RetryConfig {
    let backoff = |init_millis: u64, max: Duration| BackoffConfig {
        init_backoff: Duration::from_millis(init_millis),
        max_backoff: max,
        base: 2.0,
    };
    match way {
        Way::Front => RetryConfig {
            backoff: backoff(50, Duration::from_millis(200)),
            max_retries: 1,
            retry_timeout: timeout / 2,
        },
        Way::Behind => RetryConfig {
            backoff: backoff(100, Duration::from_secs(5)),
            max_retries: RETRIES,
            retry_timeout: RETRYING,
        },
    }
}

impl S3 {
    /// The URL that keys are put behind.
    fn base(&self) -> String {
        let Self { bucket, region, .. } = self;
        match (&self.endpoint, self.path_style) {
            (Some(endpoint), true) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            (Some(endpoint), false) => {
                let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
                format!("{scheme}://{bucket}.{}", rest.trim_end_matches('/'))
            }
            (None, true) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            (None, false) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        }
    }

    fn store(
        &self,
        transport: Transport,
        retries: RetryConfig,
        credentials: Option<AwsCredentialProvider>,
    ) -> object_store::Result<AmazonS3> {
        let builder = AmazonS3Builder::new()
            .with_http_connector(transport)
            .with_retry(retries)
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_virtual_hosted_style_request(!self.path_style)
            // Not every server has it, and one object is removed at a time.
            .with_disable_bulk_delete(true)
            .with_disable_tagging(true);
        let builder = match (&self.endpoint, self.path_style) {
            (Some(endpoint), true) => builder.with_endpoint(endpoint.trim_end_matches('/')),
            (Some(_), false) => builder.with_endpoint(self.base()),
            (None, _) => builder,
        };
        let builder = self.encrypted(builder)?;
        match credentials {
            Some(_) if matches!(self.credentials, Ok(S3Credentials::None)) => {
                builder.with_skip_signature(true).build()
            }
            Some(credentials) => builder.with_credentials(credentials).build(),
            None => self.signed(builder)?.build(),
        }
    }

    fn encrypted(&self, builder: AmazonS3Builder) -> object_store::Result<AmazonS3Builder> {
        // The type of these keys has no public name.
        let with = |builder: AmazonS3Builder, key: &str, value: &str| {
            object_store::Result::Ok(builder.with_config(key.parse()?, value))
        };
        let kind = |builder, kind| with(builder, "aws_server_side_encryption", kind);
        let (builder, key) = match &self.encryption {
            None => return Ok(builder),
            Some(Encryption::S3) => (kind(builder, "AES256")?, None),
            Some(Encryption::Kms(key)) => (kind(builder, "aws:kms")?, key.as_deref()),
            Some(Encryption::DoubleKms(key)) => (kind(builder, "aws:kms:dsse")?, key.as_deref()),
        };
        match key {
            Some(key) => with(builder, "aws_sse_kms_key_id", key),
            None => Ok(builder),
        }
    }

    fn signed(&self, builder: AmazonS3Builder) -> object_store::Result<AmazonS3Builder> {
        use AmazonS3ConfigKey as Key;
        Ok(match found(&self.credentials)? {
            S3Credentials::Environment { key_id, secret, token } => {
                let builder =
                    builder.with_access_key_id(key_id).with_secret_access_key(secret.expose());
                match token {
                    Some(token) => builder.with_token(token.expose()),
                    None => builder,
                }
            }
            S3Credentials::File { key_id, file } => {
                builder.with_credentials(Arc::new(SecretFile::new(key_id, file)))
            }
            S3Credentials::WebIdentity { token_file, role, session, endpoint } => {
                let builder = builder
                    .with_config(Key::WebIdentityTokenFile, text(token_file))
                    .with_config(Key::RoleArn, role);
                let builder = match session {
                    Some(session) => builder.with_config(Key::RoleSessionName, session),
                    None => builder,
                };
                match endpoint {
                    Some(endpoint) => builder.with_config(Key::StsEndpoint, endpoint),
                    None => builder,
                }
            }
            S3Credentials::Task { path } => {
                builder.with_config(Key::ContainerCredentialsRelativeUri, path)
            }
            S3Credentials::Pod { url, token_file } => builder
                .with_config(Key::ContainerCredentialsFullUri, url)
                .with_config(Key::ContainerAuthorizationTokenFile, text(token_file)),
            S3Credentials::Instance => builder,
            S3Credentials::None => builder.with_skip_signature(true),
        })
    }
}

impl Gcs {
    fn store(
        &self,
        transport: Transport,
        retries: RetryConfig,
        credentials: Option<GcpCredentialProvider>,
    ) -> object_store::Result<GoogleCloudStorage> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_http_connector(transport)
            .with_retry(retries)
            .with_bucket_name(&self.bucket);
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_base_url(endpoint.trim_end_matches('/')),
            None => builder,
        };
        let builder = match (credentials, found(&self.credentials)?) {
            (_, GcsCredentials::None) => builder.with_skip_signature(true),
            (Some(credentials), _) => builder.with_credentials(credentials),
            (None, GcsCredentials::File(file)) => builder.with_application_credentials(text(file)),
            (None, GcsCredentials::Instance) => builder,
        };
        builder.build()
    }
}

impl Azure {
    /// The URL of the account.
    fn base(&self) -> String {
        let usual = || format!("https://{}.blob.core.windows.net", self.account);
        self.endpoint.clone().unwrap_or_else(usual)
    }

    fn store(
        &self,
        transport: Transport,
        retries: RetryConfig,
        credentials: Option<AzureCredentialProvider>,
    ) -> object_store::Result<MicrosoftAzure> {
        let builder = MicrosoftAzureBuilder::new()
            .with_http_connector(transport)
            .with_retry(retries)
            .with_account(&self.account)
            .with_container_name(&self.container)
            .with_endpoint(self.base());
        let builder = match (credentials, found(&self.credentials)?) {
            (_, AzureCredentials::None) => builder.with_skip_signature(true),
            (Some(credentials), _) => builder.with_credentials(credentials),
            (None, AzureCredentials::Key(key)) => builder.with_access_key(key.expose()),
            (None, AzureCredentials::Client { client, tenant, secret }) => {
                builder.with_client_secret_authorization(client, secret.expose(), tenant)
            }
            (None, AzureCredentials::WebIdentity { client, tenant, token_file }) => builder
                .with_client_id(client)
                .with_tenant_id(tenant)
                .with_config(AzureConfigKey::FederatedTokenFile, text(token_file)),
            (None, AzureCredentials::Instance(client)) => {
                let builder = builder.with_credential_type("managed_identity");
                match client {
                    Some(client) => builder.with_client_id(client),
                    None => builder,
                }
            }
        };
        builder.build()
    }
}

/// The credentials, if there are some.
fn found<T>(credentials: &Result<T, Missing>) -> object_store::Result<&T> {
    credentials.as_ref().map_err(|missing| object_store::Error::Generic {
        store: "bucket",
        source: Box::new(missing.clone()),
    })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::for_tests::options;

    #[test]
    fn requests_go_where_the_bucket_is() {
        let Place::S3(usual) = options().place else { panic!() };
        let at = |endpoint: Option<&str>, path_style| {
            let endpoint = endpoint.map(str::to_owned);
            let s3 = S3 { endpoint, path_style, bucket: "b".to_owned(), ..usual.clone() };
            (s3.base(), Place::S3(s3).host())
        };
        let both = |base: &str, host: &str| (base.to_owned(), host.to_owned());
        assert_eq!(
            at(None, true),
            both("https://s3.here.amazonaws.com/b", "s3.here.amazonaws.com")
        );
        assert_eq!(
            at(None, false),
            both("https://b.s3.here.amazonaws.com", "b.s3.here.amazonaws.com")
        );
        assert_eq!(at(Some("http://h:9000/"), true), both("http://h:9000/b", "h"));
        assert_eq!(at(Some("https://h"), false), both("https://b.h", "b.h"));
    }
}
