//! What clients that go by the letter refuse in a CA that others take.
//!
//! OpenSSL's `X509_V_FLAG_X509_STRICT` (`check_extensions` in its `x509_vfy.c`), which Python sets
//! by default since 3.13, asks for what RFC 5280 demands of those who issue certificates. A CA that
//! fails it works with the engines, so it is taken, and its deficiencies are told.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};

/// Each deficiency of a CA's certificate, in words that follow its subject. `is_anchor`: nothing
/// needs to lead on from it.
pub(crate) fn deficiencies(x509: &X509Certificate<'_>, is_anchor: bool) -> Vec<&'static str> {
    let all = x509.extensions();
    let find = |is: fn(&ParsedExtension<'_>) -> bool| {
        all.iter().find(|extension| is(extension.parsed_extension()))
    };
    let subject_key = find(|one| matches!(one, ParsedExtension::SubjectKeyIdentifier(_)));
    let authority_key = find(|one| matches!(one, ParsedExtension::AuthorityKeyIdentifier(_)));
    let key_usage = find(|one| matches!(one, ParsedExtension::KeyUsage(_)));
    let basic = find(|one| matches!(one, ParsedExtension::BasicConstraints(_)));
    let is_critical = |one: Option<&X509Extension<'_>>| one.is_some_and(|one| one.critical);
    let checks = [
        (subject_key.is_none(), "it has no subject key identifier"),
        (is_critical(subject_key), "its subject key identifier is critical"),
        (key_usage.is_none(), "it has no key usage"),
        (basic.is_some() && !is_critical(basic), "its basic constraints are not critical"),
        (!is_anchor && !authority_key.is_some_and(names_key), "it has no authority key identifier"),
        (is_critical(authority_key), "its authority key identifier is critical"),
        (has_empty_names(all), "its subject alternative name is empty"),
        (x509.subject().iter().next().is_none(), "its subject is empty"),
        (x509.issuer().iter().next().is_none(), "its issuer is empty"),
        (
            x509.signature_algorithm != x509.tbs_certificate.signature,
            "it names two signature algorithms",
        ),
    ];
    checks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, words)| words).collect()
}

fn names_key(extension: &X509Extension<'_>) -> bool {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => named.key_identifier.is_some(),
        _ => false,
    }
}

fn has_empty_names(extensions: &[X509Extension<'_>]) -> bool {
    extensions.iter().any(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => {
            let names: &[GeneralName<'_>] = &names.general_names;
            names.is_empty()
        }
        _ => false,
    })
}
