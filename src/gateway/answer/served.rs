//! An answer, with where it came from.

use http::Response;

use super::body::ResponseBody;
use super::provenance::Provenance;
use crate::log::Outcome;

/// An answer with what the log says of it.
pub(crate) struct Served {
    /// The answer.
    pub response: Response<ResponseBody>,
    provenance: Provenance,
}

impl Served {
    /// An answer that says in `Cache-Status` where it came from.
    #[must_use]
    pub(crate) fn new(provenance: Provenance, mut response: Response<ResponseBody>) -> Self {
        provenance.sign(response.headers_mut());
        Self { response, provenance }
    }

    /// An answer that does not say so: it is no content (a ping, a token), or a refusal, which must
    /// look the same whether the object is here or not.
    #[must_use]
    pub(crate) fn unsigned(provenance: Provenance, response: Response<ResponseBody>) -> Self {
        Self { response, provenance }
    }

    /// What the log calls it.
    #[must_use]
    pub(crate) fn outcome(&self) -> Outcome {
        self.provenance.outcome()
    }

    /// Why it is what it is, where that is not obvious.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<String> {
        self.provenance.reason().map(ToString::to_string)
    }
}
