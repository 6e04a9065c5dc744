//! An access key whose secret is in a file, which is read again now and then: whoever renews it
//! needs no restart.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::Fault;

/// How long what was read is believed.
const BELIEVED: Duration = Duration::from_mins(1);
/// How soon a file that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest secret there may be.
const MOST: usize = 1024;

/// Such a key.
pub(super) struct SecretFile {
    key_id: String,
    file: PathBuf,
    /// What was read last, and until when that is believed.
    read: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

impl SecretFile {
    pub(super) fn new(key_id: &str, file: &Path) -> Self {
        Self { key_id: key_id.to_owned(), file: file.to_owned(), read: Mutex::default() }
    }

    async fn credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut read = self.read.lock().await;
        let now = Instant::now();
        if let Some((credential, until)) = &*read
            && now < *until
        {
            return Ok(credential.clone());
        }
        let (credential, believed) = match (self.secret().await, read.as_ref()) {
            (Ok(secret), Some((before, _))) if before.secret_key == secret => {
                (before.clone(), BELIEVED)
            }
            (Ok(secret_key), before) => {
                if before.is_some() {
                    tracing::info!(file = %self.file.display(), "the bucket's secret was renewed");
                }
                let key_id = self.key_id.clone();
                (Arc::new(AwsCredential { key_id, secret_key, token: None }), BELIEVED)
            }
            (Err(error), Some((before, _))) => {
                let file = self.file.display();
                tracing::warn!(%file, %error, "the bucket's secret can't be read again");
                (before.clone(), AGAIN)
            }
            (Err(error), None) => {
                let words = format!("{} can't be read: {error}", self.file.display());
                let source = Box::new(Fault::NoCredential(words));
                return Err(object_store::Error::Generic { store: "S3", source });
            }
        };
        *read = Some((credential.clone(), now + believed));
        Ok(credential)
    }

    async fn secret(&self) -> io::Result<String> {
        let text = tokio::fs::read_to_string(&self.file).await?;
        let secret = text.trim();
        let is_one = (1..=MOST).contains(&secret.len()) && !secret.contains(char::is_whitespace);
        if is_one {
            Ok(secret.to_owned())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no secret of one word"))
        }
    }
}

/// Without the secret.
impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretFile({}, {})", self.key_id, self.file.display())
    }
}

impl CredentialProvider for SecretFile {
    type Credential = AwsCredential;

    fn get_credential<'life, 'future>(
        &'life self,
    ) -> Pin<Box<dyn Future<Output = object_store::Result<Arc<AwsCredential>>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.credential())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_renewed_is_read_again_within_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let file = SecretFile::new("AK", &path);
        let secret = async || file.get_credential().await.map(|one| one.secret_key.clone());
        let error = secret().await.unwrap_err();
        assert!(crate::words::chain(&error).contains("can't be read"), "{error}");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(secret().await.unwrap(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secret().await.unwrap(), "one");
        tokio::time::advance(BELIEVED).await;
        assert_eq!(secret().await.unwrap(), "two");
        for wrong in ["", "a b", &"x".repeat(MOST + 1)] {
            tokio::time::advance(BELIEVED).await;
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(secret().await.unwrap(), "two", "what was good is used on");
        }
        assert!(!format!("{file:?}").contains("two"));
    }
}
