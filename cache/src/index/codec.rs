//! Index keys and values as bytes. Each value carries a checksum over itself and its key.

use super::engine::Hint;
use crate::checksum::checksum;
use crate::{Algorithm, Digest};

const PAYLOAD: usize = 24;

pub(super) fn key(digest: &Digest) -> Vec<u8> {
    let mut key = vec![tag(digest.algorithm())];
    key.extend_from_slice(digest.as_bytes());
    key
}

pub(super) fn digest(key: &[u8]) -> Option<Digest> {
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

pub(super) fn value(key: &[u8], hint: &Hint) -> Vec<u8> {
    let mut value: Vec<u8> =
        [hint.size, hint.last_use, hint.hits].into_iter().flat_map(u64::to_be_bytes).collect();
    let sum = checksum(&[key, &value]);
    value.extend_from_slice(&sum);
    value
}

/// The hint, unless key or value are damaged.
pub(super) fn hint(key: &[u8], value: &[u8]) -> Option<Hint> {
    let (payload, sum) = value.split_at_checked(PAYLOAD)?;
    if checksum(&[key, payload]) != sum {
        return None;
    }
    let mut numbers = payload.chunks_exact(8).filter_map(|part| part.try_into().ok());
    let mut number = || numbers.next().map(u64::from_be_bytes);
    Some(Hint { size: number()?, last_use: number()?, hits: number()? })
}

#[cfg(test)]
mod tests {
    use super::{digest, hint, key, value};
    use crate::index::engine::Hint;
    use crate::{Algorithm, Digest};

    #[test]
    fn every_flipped_bit_is_noticed() {
        let name = Digest::of(Algorithm::Sha512, b"a");
        let (key, kept) = (key(&name), Hint { size: 7, last_use: 8, hits: 9 });
        let value = value(&key, &kept);
        assert_eq!((digest(&key), hint(&key, &value)), (Some(name), Some(kept)));
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(hint(&key, &damaged), None, "bit {bit}");
        }
        assert_eq!(hint(&key, &value[..31]), None);
        assert_eq!(hint(&key, &[]), None);
    }
}
