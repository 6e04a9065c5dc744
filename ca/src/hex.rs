//! Hexadecimal digits to bytes.

/// The bytes that `digits` spell, in either case; `None` for an odd count or anything that is no
/// digit.
pub(crate) fn decode(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

fn digit(character: u8) -> Option<u8> {
    let value = char::from(character).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_become_bytes() {
        let table: [(&str, Option<&[u8]>); 6] = [
            ("", Some(&[])),
            ("00fF", Some(&[0, 255])),
            ("a", None),
            ("0g", None),
            ("+1", None),
            ("é1", None),
        ];
        for (digits, bytes) in table {
            assert_eq!(decode(digits).as_deref(), bytes, "{digits:?}");
        }
    }
}
