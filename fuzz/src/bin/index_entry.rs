//! Entries of the index on disk: read as they were written, damage is noticed, and nothing else is
//! read as one.

#![no_main]

use entrepot_cache::fuzzing::{IndexEntry, decode_entry, encode_entry};
use entrepot_oci::{Algorithm, Digest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u64; 3], Option<u8>, u16, &[u8])| {
    let (numbers, needed, at, bytes) = input;
    let algorithm = |n: u8| Algorithm::ALL[usize::from(n % 2)];
    let digest = Digest::of(algorithm(bytes.first().copied().unwrap_or(0)), bytes);
    let references =
        needed.map(|count| (0..count).map(|n| Digest::of(algorithm(n), &[n])).collect());
    let entry = IndexEntry { digest, numbers, references };
    let (key, value) = encode_entry(&entry);
    assert_eq!(decode_entry(&key, &value).as_ref(), Some(&entry));
    for whole in [&key, &value] {
        let mut damaged = whole.clone();
        let at = usize::from(at) % damaged.len();
        damaged[at] ^= 1 << (at % 8);
        let read = if whole == &key {
            decode_entry(&damaged, &value)
        } else {
            decode_entry(&key, &damaged)
        };
        assert_eq!(read, None);
        damaged.truncate(at);
        let read = if whole == &key {
            decode_entry(&damaged, &value)
        } else {
            decode_entry(&key, &damaged)
        };
        assert_eq!(read, None);
    }
    // What was never written there.
    if bytes != value {
        assert_eq!(decode_entry(&key, bytes), None);
    }
    if let Some((key, value)) = bytes.split_at_checked(33)
        && let Some(read) = decode_entry(key, value)
    {
        assert_eq!(encode_entry(&read), (key.to_vec(), value.to_vec()));
    }
});
