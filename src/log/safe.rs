//! Text that reaches a terminal, or a program that takes one line for one event: what others have
//! sent can't end, hide, colour or turn round what stands beside it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// Neither a control character nor one that is only there to change how others are shown: Unicode's
/// line and paragraph separators, marks of direction, and what has no width.
pub(super) fn is_line_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Text with such characters escaped as JSON does, which is JSON still where it was; ends of lines
/// and tabs stay.
fn escaped(text: &str) -> Cow<'_, str> {
    fit(text, |c| matches!(c, '\n' | '\t') || is_line_safe(c))
}

/// As [`escaped`], for what is to be within a line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    fit(text, is_line_safe)
}

fn fit(text: &str, is_fit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_fit) {
        return Cow::Borrowed(text);
    }
    let mut fit = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_fit(c) {
            fit.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to memory does not fail.
            let _ = write!(fit, "\\u{unit:04x}");
        }
    }
    Cow::Owned(fit)
}

/// Writes what it is given as [`escaped`] has it. What is written at a time must be whole
/// characters, as everything is that was formatted.
pub(crate) struct Safe<W>(pub(crate) W);

impl<W: io::Write> io::Write for Safe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_changes_how_others_are_shown_is_escaped_and_still_json() {
        let hostile = "a\u{2028}b\u{2029}c\u{202e}d\u{2066}e\u{85}f\u{9b}g\u{7f}h\u{feff}i\u{61c}\
                       j\u{200b}k\u{e0041}l\u{1b}";
        let document = serde_json::json!({ "reason": hostile }).to_string() + "\n";
        let mut written = Vec::new();
        Safe(&mut written).write_all(document.as_bytes()).unwrap();
        let line = String::from_utf8(written).unwrap();
        assert!(line.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["reason"], hostile, "nothing is lost");
        assert_eq!(escaped("\u{1b}[31m\u{202e}\n"), "\\u001b[31m\\u202e\n");
        assert_eq!(one_line("a\nb"), "a\\u000ab");
    }

    #[test]
    fn words_of_people_stay_as_they_are() {
        for text in ["library/alpine\t3.4 MB\n", "sha256:ab12…", "Zürich, 東京, Ωμέγα, 🚀", "שלום"]
        {
            assert!(matches!(escaped(text), Cow::Borrowed(_)), "{text}");
        }
    }
}
