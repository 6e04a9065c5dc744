//! Why the bucket was of no use. Whoever reads counts every one of these as a miss.
//!
//! No message has a credential in it, nor a signature: they name the operation and the key at most.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use time::OffsetDateTime;

use crate::metrics::BucketAnswer;
use crate::upstream::in_words;
use crate::words;

/// The longest message that is taken over from somebody else.
const LONGEST: usize = 300;

/// The bucket was of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BucketError {
    /// No connection.
    #[error("the bucket can't be reached: {0}")]
    Unreachable(String),
    /// It took the request and did not answer.
    #[error("the bucket has not answered within {}", in_words(*.0))]
    Silent(Duration),
    /// It was of no use a moment ago, and is not asked for now.
    #[error("the bucket is left alone for now: {0}")]
    LeftAlone(Arc<str>),
    /// It does not let us.
    #[error("the bucket refuses: {0}")]
    Refused(String),
    /// It has too much to do.
    #[error("the bucket has too much to do: {0}")]
    Busy(String),
    /// The exchange broke, or what came makes no sense.
    #[error("the exchange with the bucket failed: {0}")]
    Broken(String),
    /// It answers with an error of its own, or finds one in the request.
    #[error("the bucket answers {0}")]
    Failed(String),
    /// It is of a kind or under a key that this replica does not know.
    #[error("{0}")]
    Unusable(Arc<str>),
    /// What is to be put there can't be read.
    #[error("what is to be put into the bucket can't be read: {0}")]
    Source(Arc<io::Error>),
    /// It is no record, or too long for one.
    #[error("a record can't be written: {0}")]
    Record(String),
}

impl BucketError {
    /// Whether nobody was there.
    #[must_use]
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// What `object_store` says of a failure; `None`: there is nothing of that name.
    pub(super) fn of(error: &object_store::Error) -> Option<Self> {
        if let Some(fault) = Fault::within(error) {
            return Some(fault.to_error());
        }
        match error {
            object_store::Error::NotFound { .. } => None,
            // Something was answered, and makes no sense.
            other => Some(Self::Failed(shortened(&words::chain(other)))),
        }
    }
}

/// What went wrong with one request: our transport's word, which `object_store` hands on.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// No connection.
    Unreachable(String),
    /// No answer.
    Silent(Duration),
    /// The exchange broke.
    Broken(String),
    /// An answer that says no.
    Answer(Answer),
    /// There is no credential to ask with.
    NoCredential(String),
}

/// An answer that says no, of which `object_store` would keep the text alone.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What the bucket calls it: `AccessDenied`.
    pub code: Option<String>,
    /// What it says of it.
    pub message: Option<String>,
    /// In which region the bucket is, if that is what is wrong.
    pub region: Option<String>,
    /// The time there.
    pub date: Option<OffsetDateTime>,
    /// Who has given it, where that is no bucket, but who gives credentials.
    pub credentials_of: Option<String>,
}

/// Difference of clocks from which on requests are refused for that alone.
const CLOCK: Duration = Duration::from_mins(5);

impl Fault {
    /// Ours within an error of somebody else.
    fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause: Option<&'a (dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return Some(fault);
            }
            cause = error.source();
        }
        None
    }

    fn to_error(&self) -> BucketError {
        match self {
            Self::Unreachable(reason) => BucketError::Unreachable(reason.clone()),
            Self::Silent(after) => BucketError::Silent(*after),
            Self::Broken(reason) => BucketError::Broken(reason.clone()),
            Self::NoCredential(reason) => BucketError::Refused(format!("no credential: {reason}")),
            Self::Answer(answer) => match answer.kind() {
                BucketAnswer::Refused => BucketError::Refused(answer.to_string()),
                BucketAnswer::Busy => BucketError::Busy(answer.to_string()),
                _ => BucketError::Failed(answer.to_string()),
            },
        }
    }

    /// As it is counted.
    pub(super) fn answer(&self) -> BucketAnswer {
        match self {
            Self::Unreachable(_) => BucketAnswer::Unreachable,
            Self::Silent(_) => BucketAnswer::Silent,
            Self::Broken(_) => BucketAnswer::Broken,
            Self::NoCredential(_) => BucketAnswer::Refused,
            Self::Answer(answer) => answer.kind(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_error().fmt(f)
    }
}

impl Error for Fault {}

impl Answer {
    /// What it means for who asks next.
    pub(super) fn kind(&self) -> BucketAnswer {
        let code = self.code.as_deref().unwrap_or_default();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => BucketAnswer::Busy,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => BucketAnswer::Refused,
            // Who gives no credential gives none to the next either.
            status if self.credentials_of.is_some() && status.is_client_error() => {
                BucketAnswer::Refused
            }
            // The bucket itself is not there, or is elsewhere: no request will do better.
            _ if matches!(code, "NoSuchBucket" | "ContainerNotFound") => BucketAnswer::Refused,
            status if status.is_redirection() => BucketAnswer::Refused,
            // What an expired or unknown credential is called in some places.
            StatusCode::BAD_REQUEST
                if matches!(
                    code,
                    "AuthorizationHeaderMalformed"
                        | "ExpiredToken"
                        | "InvalidToken"
                        | "InvalidAccessKeyId"
                        | "TokenRefreshRequired"
                ) =>
            {
                BucketAnswer::Refused
            }
            _ => BucketAnswer::Error,
        }
    }

    fn cure(&self) -> Option<String> {
        if self.credentials_of.is_some() {
            return None;
        }
        if let Some(region) = &self.region {
            return Some(format!("the bucket is in region {region}: set bucket.region"));
        }
        let cure = match self.code.as_deref()? {
            "NoSuchBucket" | "ContainerNotFound" => "check bucket.url; entrepot makes no bucket",
            "InvalidAccessKeyId" => "nobody there knows this access key",
            "SignatureDoesNotMatch" => "the secret is another one than the bucket's side has",
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "the credential has expired: it has to be renewed"
            }
            "RequestTimeTooSkewed" => "set this machine's clock",
            "AccessDenied" if self.status == StatusCode::FORBIDDEN => {
                "the policy has to allow s3:GetObject, s3:PutObject, s3:DeleteObject, \
                 s3:AbortMultipartUpload, and s3:ListBucket (without which absent objects are refused)"
            }
            _ => return None,
        };
        Some(cure.to_owned())
    }

    /// By how much the clocks differ, where that matters.
    fn skew(&self) -> Option<Duration> {
        let differs = (self.date? - OffsetDateTime::now_utc()).unsigned_abs();
        (differs > CLOCK).then_some(differs)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.credentials_of {
            write!(f, "no credential from {place}: ")?;
        }
        write!(f, "{}", self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, " ({message})")?;
        }
        if let Some(cure) = self.cure() {
            write!(f, ": {cure}")?;
        }
        if let Some(skew) = self.skew() {
            write!(f, "; this machine's clock differs by {} s from the bucket's", skew.as_secs())?;
        }
        Ok(())
    }
}

/// No more of somebody's words than fits a line, and no line breaks.
pub(super) fn shortened(text: &str) -> String {
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST).map(one_line).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            code: Some(code.to_owned()),
            message: None,
            region: None,
            date: None,
            credentials_of: None,
        }
    }

    #[test]
    fn a_refusal_says_what_is_to_be_done() {
        for (status, code, words) in [
            (403, "AccessDenied", "s3:ListBucket"),
            (403, "SignatureDoesNotMatch", "secret"),
            (403, "RequestTimeTooSkewed", "clock"),
            (404, "NoSuchBucket", "bucket.url"),
            (400, "ExpiredToken", "expired"),
        ] {
            let fault = Fault::Answer(answer(status, code));
            assert_eq!(fault.answer(), BucketAnswer::Refused, "{code}");
            assert!(fault.to_string().contains(words), "{fault}");
        }
        let elsewhere = Answer { region: Some("eu-west-1".to_owned()), ..answer(301, "x") };
        assert_eq!(elsewhere.kind(), BucketAnswer::Refused);
        assert!(elsewhere.to_string().contains("region eu-west-1"), "{elsewhere}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_named_where_it_matters() {
        let at = |minutes| {
            let date = OffsetDateTime::now_utc() - time::Duration::minutes(minutes);
            Answer { date: Some(date), ..answer(403, "AccessDenied") }.to_string()
        };
        assert!(at(20).contains("clock differs by 1200 s"), "{}", at(20));
        assert!(at(-20).contains("clock differs by"), "{}", at(-20));
        assert!(!at(1).contains("clock"), "{}", at(1));
    }

    #[test]
    fn what_is_only_busy_or_wrong_is_no_refusal() {
        assert_eq!(answer(503, "SlowDown").kind(), BucketAnswer::Busy);
        assert_eq!(answer(429, "").kind(), BucketAnswer::Busy);
        assert_eq!(answer(500, "InternalError").kind(), BucketAnswer::Error);
        assert_eq!(answer(400, "InvalidArgument").kind(), BucketAnswer::Error);
    }

    #[test]
    fn our_word_is_found_under_the_others() {
        let inner = Fault::Silent(Duration::from_secs(3));
        let outer = object_store::client::HttpError::new(
            object_store::client::HttpErrorKind::Timeout,
            inner,
        );
        let outer = object_store::Error::Generic { store: "S3", source: Box::new(outer) };
        assert!(matches!(BucketError::of(&outer), Some(BucketError::Silent(_))));
        let absent = object_store::Error::NotFound { path: "x".into(), source: "x".into() };
        assert!(BucketError::of(&absent).is_none());
    }

    #[test]
    fn what_others_say_is_one_line() {
        assert_eq!(shortened("a\nb"), "a b");
        assert_eq!(shortened(&"é".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
