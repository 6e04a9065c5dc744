//! Who speaks in the errors of the proxy's own, and whom to ask about them.
//!
//! An engine prints an error as if it were the registry's: the person who reads it has to learn
//! that a proxy stands between, whose it is and who runs it. What a registry says is passed on as
//! it is.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Response;

use crate::gateway::{ResponseBody, introduce};

/// Whom to ask about an error, as the operator puts it: `contact`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contact(String);

impl Contact {
    /// The longest that is taken, in characters: a status line is not long.
    pub(crate) const LONGEST: usize = 100;

    /// One line of text; `None` where it is none, or too long.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_line = !text.is_empty() && !text.chars().any(char::is_control);
        (is_line && text.chars().count() <= Self::LONGEST).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The words with which errors begin; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    name: Arc<str>,
    introduction: Arc<ArcSwap<String>>,
    contact: Arc<ArcSwapOption<Contact>>,
}

impl Speaker {
    /// The proxy of this `name`.
    #[must_use]
    pub(crate) fn new(name: &str, contact: Option<&Contact>) -> Self {
        let introduction = Arc::new(ArcSwap::from_pointee(introduction(name, contact)));
        let contact = Arc::new(ArcSwapOption::new(contact.cloned().map(Arc::new)));
        Self { name: name.into(), introduction, contact }
    }

    /// Names somebody else to ask from now on.
    pub(crate) fn replace_contact(&self, contact: Option<&Contact>) {
        self.introduction.store(Arc::new(introduction(&self.name, contact)));
        self.contact.store(contact.cloned().map(Arc::new));
    }

    /// Whom to ask, if the operator says.
    #[must_use]
    pub(crate) fn contact(&self) -> Option<String> {
        self.contact.load().as_ref().map(ToString::to_string)
    }

    /// Says who speaks in an answer, if it is an error of the proxy's own.
    pub(super) fn introduce(&self, response: &mut Response<ResponseBody>) {
        introduce(response, &self.introduction.load());
    }
}

fn introduction(name: &str, contact: Option<&Contact>) -> String {
    match contact {
        Some(contact) => format!("entrepot at {name} ({contact})"),
        None => format!("entrepot at {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::error_response;
    use entrepot_oci::{ErrorCode, ErrorDocument};
    use http::StatusCode;
    use hyper::ext::ReasonPhrase;

    fn spoken(speaker: &Speaker, mut response: Response<ResponseBody>) -> (String, String) {
        speaker.introduce(&mut response);
        // Whatever else has it in hand adds nothing.
        speaker.introduce(&mut response);
        let phrase = response.extensions().get::<ReasonPhrase>();
        let phrase = phrase.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
        let body = match response.into_body() {
            ResponseBody::Full(Some(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => String::new(),
        };
        (phrase.unwrap_or_default(), body)
    }

    #[test]
    fn an_error_of_ours_says_once_who_speaks_and_whom_to_ask() {
        let refused = || {
            let (status, code) = (StatusCode::BAD_GATEWAY, ErrorCode::Upstream);
            error_response(&ErrorDocument::new(status, code, "ghcr.io: away"))
        };
        let speaker = Speaker::new("proxy.corp", None);
        let (phrase, body) = spoken(&speaker, refused());
        assert_eq!(phrase, "entrepot at proxy.corp: ghcr.io: away");
        assert!(body.contains(r#""message":"entrepot at proxy.corp: ghcr.io: away""#), "{body}");
        speaker.replace_contact(Contact::parse("ask #plattform-\u{fc}").as_ref());
        let (phrase, body) = spoken(&speaker, refused());
        assert_eq!(phrase, "entrepot at proxy.corp (ask #plattform-): ghcr.io: away");
        assert!(body.contains("(ask #plattform-\u{fc}): ghcr.io: away"), "{body}");
    }

    #[test]
    fn what_is_no_error_of_ours_stays_as_it_is() {
        let speaker = Speaker::new("proxy.corp", None);
        let theirs = Response::new(ResponseBody::full("theirs"));
        assert_eq!(spoken(&speaker, theirs), (String::new(), "theirs".to_owned()));
    }

    #[test]
    fn a_contact_is_one_line() {
        assert_eq!(Contact::parse(" ask #platform ").unwrap().to_string(), "ask #platform");
        for none in ["", " ", "a\nb", "\u{1b}[31m", &"x".repeat(101)] {
            assert_eq!(Contact::parse(none), None, "{none:?}");
        }
    }
}
