//! Index keys and values as bytes. Each value carries a checksum over itself and its key.

use entrepot_oci::{Digest, UnixSeconds};

use super::engine::Hint;
use super::references::{Packed, References, algorithm, tag};
use crate::disk::checksum::checksum;

/// Size, last use and hits.
const NUMBERS: usize = 24;
const SUM: usize = 8;
/// What comes between the numbers and the keys of what the object needs, if that is known.
const REFERENCES_FOLLOW: u8 = 1;
/// That they are more than the index remembers.
const REFERENCES_IN_FILE: u8 = 2;

pub(crate) fn key(digest: &Digest) -> Vec<u8> {
    let mut key = vec![tag(digest.algorithm())];
    key.extend_from_slice(digest.as_bytes());
    key
}

pub(crate) fn digest(key: &[u8]) -> Option<Digest> {
    let (first, hash) = key.split_first()?;
    Digest::from_bytes(algorithm(*first)?, hash)
}

pub(crate) fn value(own: &[u8], hint: &Hint) -> Vec<u8> {
    let mut value: Vec<u8> =
        [hint.size, hint.last_use.0, hint.hits].into_iter().flat_map(u64::to_be_bytes).collect();
    match &hint.references {
        References::Known(needed) => {
            value.push(REFERENCES_FOLLOW);
            value.extend_from_slice(needed.as_bytes());
        }
        References::InFile => value.push(REFERENCES_IN_FILE),
        // Where there was no room, there may be at the next start.
        References::Unknown | References::NoRoom => {}
    }
    let sum = checksum(&[own, &value]);
    value.extend_from_slice(&sum);
    value
}

/// The hint, unless key or value are damaged.
pub(crate) fn hint(own: &[u8], value: &[u8]) -> Option<Hint> {
    let (payload, sum) = value.split_at_checked(value.len().checked_sub(SUM)?)?;
    if checksum(&[own, payload]) != sum {
        return None;
    }
    let (numbers, references) = payload.split_at_checked(NUMBERS)?;
    let mut numbers = numbers.chunks_exact(8).filter_map(|part| part.try_into().ok());
    let mut number = || numbers.next().map(u64::from_be_bytes);
    let (size, last_use, hits) = (number()?, UnixSeconds(number()?), number()?);
    Some(Hint { size, last_use, hits, references: needed(references)? })
}

fn needed(bytes: &[u8]) -> Option<References> {
    match bytes.split_first() {
        None => Some(References::Unknown),
        Some((&REFERENCES_FOLLOW, packed)) => Some(References::Known(Packed::from_bytes(packed)?)),
        Some((&REFERENCES_IN_FILE, [])) => Some(References::InFile),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use entrepot_oci::{Algorithm, Digest, UnixSeconds};

    use super::{digest, hint, key, value};
    use crate::disk::checksum::checksum;
    use crate::index::engine::Hint;
    use crate::index::references::References;

    fn hints() -> [Hint; 4] {
        let two =
            [Digest::of(Algorithm::Sha256, b"x"), Digest::of(Algorithm::Sha512, b"y")].to_vec();
        let known = |needed: Vec<Digest>| References::Known(needed.into_iter().collect());
        [References::Unknown, References::InFile, known(Vec::new()), known(two)]
            .map(|references| Hint { size: 7, last_use: UnixSeconds(8), hits: 9, references })
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for kept in hints() {
            let name = Digest::of(Algorithm::Sha512, b"a");
            let key = key(&name);
            let value = value(&key, &kept);
            assert_eq!((digest(&key), hint(&key, &value)), (Some(name), Some(kept)));
            for bit in 0..value.len() * 8 {
                let mut damaged = value.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(hint(&key, &damaged), None, "bit {bit}");
            }
            for len in 0..value.len() {
                assert_eq!(hint(&key, &value[..len]), None);
            }
        }
    }

    #[test]
    fn a_sound_checksum_over_nonsense_is_nonsense() {
        let key = key(&Digest::of(Algorithm::Sha256, b"a"));
        for payload in [&[0; 23][..], &[0; 25], &[1; 26], &[1; 56]] {
            let value = [payload, &checksum(&[&key, payload])].concat();
            assert_eq!(hint(&key, &value), None, "{}", payload.len());
        }
    }
}
