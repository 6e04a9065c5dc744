//! What breaks, in a person's words.
//!
//! The errors of the system, of TLS and of HTTP each come with words for programmers: a number of
//! the operating system, the name of a variant, a link to a manual, the same cause at every level.
//! Whatever is shown to a person goes through here.

use std::error::Error;
use std::io;
use std::time::SystemTime;

use rustls::AlertDescription;
use time::OffsetDateTime;

/// An error with its causes, each once: `the disk is full: No space left on device`.
#[must_use]
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = of_one(error);
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = of_one(next);
        // Many errors say their cause themselves, and name it as their source as well.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

/// `41,203`.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `02:14 UTC`, or with the date before it: for whoever reads it in a terminal, an alert or an
/// engine's output, and that may be anywhere.
#[must_use]
pub(crate) fn utc(at: OffsetDateTime, with_date: bool) -> String {
    let date = if with_date { format!("{} ", at.date()) } else { String::new() };
    format!("{date}{:02}:{:02} UTC", at.hour(), at.minute())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is sent (RFC 9110 §5.6.7).
#[must_use]
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    let date = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second] = parts.try_into().ok()?;
    let months =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = u8::try_from(months.iter().position(|name| *name == month)? + 1).ok()?;
    let month = time::Month::try_from(month).ok()?;
    let date = time::Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let (hour, minute) = (hour.parse().ok()?, minute.parse().ok()?);
    let at = date.with_hms(hour, minute, second.parse().ok()?).ok()?;
    Some(at.assume_utc().into())
}

fn of_one(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return of_tls(error);
    }
    without_number(&error.to_string())
}

/// An error of the system, without its number.
#[must_use]
pub(crate) fn of_io(error: &io::Error) -> String {
    const LOOKUP: &str = "failed to lookup address information: ";
    let within = error.get_ref();
    if let Some(tls) = within.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(tls);
    }
    let words = without_number(&error.to_string());
    // What TLS says of it is for whoever writes such a server, with a link to a manual.
    if words.contains("close_notify") || words == "tls handshake eof" {
        return "the other side hung up".to_owned();
    }
    let looked_up = words.strip_prefix(LOOKUP).map(str::to_owned);
    looked_up.unwrap_or(words)
}

/// Without `(os error 111)`, wherever that stands.
fn without_number(words: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut parts = words.split(NUMBER);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                text.push_str(rest);
            }
            _ => {
                text.push_str(NUMBER);
                text.push_str(part);
            }
        }
    }
    text
}

/// What is wrong with somebody's TLS.
#[must_use]
pub(crate) fn of_tls(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::AlertReceived(alert) => format!("it broke TLS off ({})", of_alert(*alert)),
        Tls::InvalidMessage(_)
        | Tls::InappropriateMessage { .. }
        | Tls::InappropriateHandshakeMessage { .. } => "what it says is not TLS".to_owned(),
        Tls::DecryptError => {
            "what came had been altered on the way, or is not TLS (decryption failed)".to_owned()
        }
        Tls::PeerMisbehaved(how) => format!("it does not keep to TLS ({})", spaced(how)),
        Tls::PeerIncompatible(how) => {
            format!("it can't speak TLS as this side has to ({})", spaced(how))
        }
        other => other.to_string(),
    }
}

/// What somebody has broken TLS off for: `handshake failure`.
#[must_use]
pub(crate) fn of_alert(alert: AlertDescription) -> String {
    spaced(&alert)
}

/// The name of a variant as words: `UnknownCA` is `unknown CA`.
fn spaced(variant: &impl std::fmt::Debug) -> String {
    let name = format!("{variant:?}");
    let mut words = String::new();
    let mut letters = name.chars().peekable();
    let mut was_lower = false;
    while let Some(letter) = letters.next() {
        let is_end = letters.peek().is_none_or(|next| !next.is_lowercase());
        if letter.is_uppercase() {
            if was_lower {
                words.push(' ');
            }
            // Of an abbreviation nothing is made smaller.
            let is_alone = is_end && letters.peek().is_some();
            if is_alone || (is_end && !was_lower) {
                words.push(letter);
            } else {
                words.extend(letter.to_lowercase());
            }
        } else {
            words.push(letter);
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
    }
    words
}

/// How an exchange of HTTP has ended, from `error` or what is behind it, about the other side: `it
/// closed the connection before its answer was complete`.
#[must_use]
pub(crate) fn of_exchange(error: &(dyn Error + 'static)) -> String {
    let mut causes = Vec::new();
    let mut current = Some(error);
    while let Some(cause) = current {
        causes.push(cause);
        current = cause.source();
        // An I/O error's source is that of the error within it.
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if current.is_none() {
            current = within.map(|inner| inner as &(dyn Error + 'static));
        }
    }
    // The deepest knows best.
    let told = causes.iter().rev().find_map(|cause| of_break(*cause));
    told.unwrap_or_else(|| chain(error))
}

/// What one cause says of how an exchange has ended, if it does.
fn of_break(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(tls));
    }
    if let Some(system) = cause.downcast_ref::<io::Error>() {
        return of_broken_stream(system);
    }
    let http = cause.downcast_ref::<hyper::Error>()?;
    let words = if http.is_incomplete_message() {
        "it closed the connection before its answer was complete"
    } else if http.is_canceled() || http.is_closed() {
        "the connection was closed before the request could be sent"
    } else if http.is_parse_too_large() {
        "the head of its answer is too long"
    } else if http.is_parse_status() {
        "its answer is not HTTP (no valid status)"
    } else if http.is_parse() {
        return Some(format!("its answer is not HTTP ({http})"));
    } else if http.is_timeout() {
        "it took too long"
    } else if http.is_body_write_aborted() {
        "the body of the request broke off"
    } else {
        return None;
    };
    Some(words.to_owned())
}

fn of_broken_stream(error: &io::Error) -> Option<String> {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::UnexpectedEof => "it closed the connection before its answer was complete",
        Kind::ConnectionReset => "it reset the connection",
        Kind::ConnectionAborted => "the connection was aborted",
        Kind::BrokenPipe => "it closed the connection while the request was sent",
        Kind::TimedOut => "nothing came back any more (timed out)",
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::ConnectionRefused => {
            return Some(of_io(error));
        }
        // How a body is cut in pieces.
        Kind::InvalidInput | Kind::InvalidData if error.get_ref().is_some() => {
            let within = error.get_ref().map(ToString::to_string).unwrap_or_default();
            return Some(format!("what it sent is not HTTP ({within})"));
        }
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection to x: {source}")]
    struct Doubled {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once_and_without_a_number() {
        let refused = || io::Error::from_raw_os_error(111);
        assert_eq!(of_io(&refused()), "Connection refused");
        let doubled = Doubled { source: refused() };
        assert_eq!(chain(&doubled), "no connection to x: Connection refused");
        let within = anyhow::Error::new(Doubled { source: refused() }).context("through the proxy");
        let words = chain(within.as_ref());
        assert_eq!(words, "through the proxy: no connection to x: Connection refused");
        let lookup = "failed to lookup address information: Name or service not known";
        assert_eq!(of_io(&io::Error::other(lookup)), "Name or service not known");
        let plain = Err::<(), _>(anyhow::anyhow!("a (os error x) b")).context("c").unwrap_err();
        assert_eq!(chain(plain.as_ref()), "c: a (os error x) b");
    }

    #[test]
    fn variants_are_words() {
        let spoken = [
            (AlertDescription::HandshakeFailure, "handshake failure"),
            (AlertDescription::UnknownCA, "unknown CA"),
            (AlertDescription::UserCanceled, "user canceled"),
            (AlertDescription::Unknown(77), "alert description(0x4d)"),
        ];
        for (alert, words) in spoken {
            assert_eq!(of_alert(alert), words);
        }
    }

    #[test]
    fn dates_of_http_are_read() {
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_111_777);
        for wrong in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT"] {
            assert!(http_date(wrong).is_none(), "{wrong}");
        }
    }
}
