//! Index keys and values as bytes. Each value carries a checksum over itself and its key.

use entrepot_oci::{Algorithm, Digest, UnixSeconds};

use super::engine::Hint;
use super::references::References;
use crate::disk::checksum::checksum;

/// Size, last use and hits.
const NUMBERS: usize = 24;
const SUM: usize = 8;
/// What comes between the numbers and the keys of what the object needs, if that is known.
const REFERENCES_FOLLOW: u8 = 1;

pub(crate) fn key(digest: &Digest) -> Vec<u8> {
    let mut key = vec![tag(digest.algorithm())];
    key.extend_from_slice(digest.as_bytes());
    key
}

pub(crate) fn digest(key: &[u8]) -> Option<Digest> {
    let (first, hash) = key.split_first()?;
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| tag(*algorithm) == *first)?;
    Digest::from_bytes(algorithm, hash)
}

const fn tag(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

pub(crate) fn value(own: &[u8], hint: &Hint) -> Vec<u8> {
    let mut value: Vec<u8> =
        [hint.size, hint.last_use.0, hint.hits].into_iter().flat_map(u64::to_be_bytes).collect();
    if let References::Known(needed) = &hint.references {
        value.push(REFERENCES_FOLLOW);
        value.extend(needed.iter().flat_map(key));
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
    let Some((first, mut rest)) = bytes.split_first() else { return Some(References::Unknown) };
    if *first != REFERENCES_FOLLOW {
        return None;
    }
    let mut needed = Vec::new();
    while let Some(first) = rest.first() {
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| tag(*algorithm) == *first)?;
        let (one, others) = rest.split_at_checked(1 + algorithm.hex_len() / 2)?;
        needed.push(digest(one)?);
        rest = others;
    }
    Some(References::Known(needed.into()))
}

#[cfg(test)]
mod tests {
    use entrepot_oci::{Algorithm, Digest, UnixSeconds};

    use super::{digest, hint, key, value};
    use crate::disk::checksum::checksum;
    use crate::index::engine::Hint;
    use crate::index::references::References;

    fn hints() -> [Hint; 3] {
        let two =
            [Digest::of(Algorithm::Sha256, b"x"), Digest::of(Algorithm::Sha512, b"y")].to_vec();
        let known = |needed: Vec<Digest>| References::Known(needed.into());
        [References::Unknown, known(Vec::new()), known(two)].map(|references| Hint {
            size: 7,
            last_use: UnixSeconds(8),
            hits: 9,
            references,
        })
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
