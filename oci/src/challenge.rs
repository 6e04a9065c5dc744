//! `WWW-Authenticate` challenges (RFC 9110 §11.6.1) and the registries' Bearer parameters.

use std::fmt;

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case; "uses a case-insensitive token to identify the scheme" (RFC 9110 §11.1).
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

/// What a registry's Bearer challenge asks for (distribution's token specification).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer<'a> {
    /// The URL of the token server.
    pub realm: &'a str,
    /// Who the token is for.
    pub service: Option<&'a str>,
    /// What the token is for, as `repository:library/alpine:pull`.
    pub scope: Option<&'a str>,
}

impl Challenge {
    /// Every challenge of one field value; what does not parse ends the list.
    ///
    /// Commas part both challenges and parameters: a token that is followed by `=` is a parameter
    /// of the challenge before it, any other begins a new one.
    #[must_use]
    pub fn parse_all(value: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = value.trim_start_matches([' ', '\t', ',']);
        while let Some((word, after)) = token(rest) {
            if after.trim_start_matches([' ', '\t']).starts_with('=') {
                let Some(current) = challenges.last_mut() else {
                    break;
                };
                let Some((value, next)) = parameter_value(after) else {
                    break;
                };
                current.parameters.push((word.to_ascii_lowercase(), value));
                rest = next;
            } else {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Self { scheme, parameters: Vec::new() });
                rest = after;
            }
            rest = rest.trim_start_matches([' ', '\t', ',']);
        }
        challenges
    }

    /// The challenge as a field value, with another realm.
    #[must_use]
    pub fn with_realm(&self, realm: &str) -> String {
        let others = self.parameters.iter().filter(|(name, _)| name != "realm");
        let parameters = std::iter::once(("realm", realm))
            .chain(others.map(|(name, value)| (name.as_str(), value.as_str())))
            .map(|(name, value)| format!("{name}=\"{}\"", Quoted(value)));
        let scheme = if self.scheme == "bearer" { "Bearer" } else { &self.scheme };
        format!("{scheme} {}", parameters.collect::<Vec<_>>().join(","))
    }

    /// A parameter by its lower-case name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The challenge as a registry's Bearer challenge; `None` for other schemes or without realm.
    #[must_use]
    pub fn bearer(&self) -> Option<Bearer<'_>> {
        if self.scheme != "bearer" {
            return None;
        }
        Some(Bearer {
            realm: self.parameter("realm")?,
            service: self.parameter("service"),
            scope: self.parameter("scope"),
        })
    }
}

/// The inside of a quoted-string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(f, "\\{c}"),
            c => write!(f, "{c}"),
        })
    }
}

/// A token (RFC 9110 §5.6.2) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_tchar(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// `=value` after a parameter's name, quoted or not, and what follows it.
fn parameter_value(after: &str) -> Option<(String, &str)> {
    let value = after.trim_start_matches([' ', '\t']).strip_prefix('=')?;
    let value = value.trim_start_matches([' ', '\t']);
    match value.strip_prefix('"') {
        Some(quoted) => quoted_string(quoted),
        None => token(value).map(|(word, rest)| (word.to_owned(), rest)),
    }
}

/// The inside of a quoted-string (RFC 9110 §5.6.4), after its opening quote.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hubs_challenge_is_read() {
        let value = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push""#;
        let challenges = Challenge::parse_all(value);
        let bearer = challenges.first().and_then(Challenge::bearer).unwrap();
        assert_eq!(bearer.realm, "https://auth.docker.io/token");
        assert_eq!(bearer.service, Some("registry.docker.io"));
        assert_eq!(bearer.scope, Some("repository:library/alpine:pull,push"));
    }

    #[test]
    fn several_challenges_share_a_field() {
        let challenges = Challenge::parse_all(
            r#"Negotiate, Basic realm="a \"b\", c", BEARER Realm = x , error=y"#,
        );
        let schemes: Vec<_> = challenges.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(challenges[1].parameter("realm"), Some(r#"a "b", c"#));
        assert_eq!(challenges[2].parameter("error"), Some("y"));
        assert_eq!(challenges[1].bearer(), None);
    }

    #[test]
    fn a_realm_is_replaced_and_nothing_else() {
        let value = r#"Bearer scope="a \"b\"",Realm="https://auth.docker.io/token",error=x"#;
        let challenge = Challenge::parse_all(value).remove(0);
        let written = challenge.with_realm("https://ghcr.io/entrepot/token");
        assert_eq!(
            written,
            r#"Bearer realm="https://ghcr.io/entrepot/token",scope="a \"b\"",error="x""#
        );
        assert_eq!(Challenge::parse_all(&written).len(), 1);
    }

    #[test]
    fn broken_challenges_end_the_list() {
        assert!(Challenge::parse_all("").is_empty());
        assert!(Challenge::parse_all("=x").is_empty());
        assert!(Challenge::parse_all("realm=x").is_empty());
        let open = Challenge::parse_all(r#"Bearer realm="open"#);
        assert_eq!(open.first().and_then(Challenge::bearer), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value in ".{0,200}") {
            let _ = Challenge::parse_all(&value);
        }
    }
}
