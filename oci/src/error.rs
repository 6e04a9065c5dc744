//! The error document of the OCI distribution specification ("Error Codes").

use http::StatusCode;
use serde_json::{Value, json};

/// The codes that this proxy answers with; `Upstream` is ours, the specification leaves room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The client's request can't be served here as it stands.
    Unsupported,
    /// Refused by this proxy's configuration.
    Denied,
    /// The registry wants to know who asks.
    Unauthorized,
    /// There is nothing under this name.
    NameUnknown,
    /// The registry limits how often it may be asked.
    TooManyRequests,
    /// The registry behind the proxy could not be asked, or answered with something unusable.
    Upstream,
    /// Something in the proxy itself failed.
    Internal,
}

impl ErrorCode {
    /// As it stands in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "UNSUPPORTED",
            Self::Denied => "DENIED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Upstream => "UPSTREAM_UNAVAILABLE",
            Self::Internal => "INTERNAL_ERROR",
        }
    }
}

/// An error as engines print it: `{"errors":[{"code","message","detail"}]}`.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorDocument {
    /// The HTTP status that goes with it.
    pub status: StatusCode,
    /// The machine's part.
    pub code: ErrorCode,
    /// What engines print: which registry, what happened, what cures it.
    pub message: String,
    /// Further facts for a person who looks at the body.
    pub detail: Option<Value>,
}

impl ErrorDocument {
    /// An error without detail.
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None }
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut error = json!({ "code": self.code.as_str(), "message": self.message });
        if let (Some(fields), Some(detail)) = (error.as_object_mut(), &self.detail) {
            fields.insert("detail".to_owned(), detail.clone());
        }
        json!({ "errors": [error] }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_specified_shape() {
        let mut error = ErrorDocument::new(
            StatusCode::BAD_GATEWAY,
            ErrorCode::Upstream,
            "ghcr.io: \"refused\"",
        );
        let parsed: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(parsed["errors"][0]["code"], "UPSTREAM_UNAVAILABLE");
        assert_eq!(parsed["errors"][0]["message"], "ghcr.io: \"refused\"");
        assert!(parsed["errors"][0].get("detail").is_none());
        error.detail = Some(json!({ "registry": "ghcr.io" }));
        let parsed: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(parsed["errors"][0]["detail"]["registry"], "ghcr.io");
    }
}
