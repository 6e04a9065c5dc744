//! A short checksum for records and index values: against damage, not against forgery.

use aws_lc_rs::digest::{Context, SHA256};

/// The first eight bytes of SHA-256 over `parts`, each preceded by its length.
pub(crate) fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut sum = [0; 8];
    for (to, from) in sum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(checksum(&[b"ab", b"c"]), checksum(&[b"a", b"bc"]));
        assert_eq!(checksum(&[b"ab", b"c"]), checksum(&[b"ab", b"c"]));
    }
}
