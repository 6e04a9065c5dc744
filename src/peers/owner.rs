//! Who fetches what: rendezvous hashing.
//!
//! Everybody who knows of the same replicas chooses the same one for a digest. Where one comes or
//! goes, only what it owns changes hands.

use aws_lc_rs::digest::{Context, SHA256};
use entrepot_oci::Digest;

/// The one of these replicas, by their ids, that fetches `digest` for all; `None` of none.
pub(super) fn owner<'a, M>(
    members: impl Iterator<Item = (&'a str, M)>,
    digest: &Digest,
) -> Option<M> {
    let digest = digest.to_string();
    let weighed = members.map(|(id, member)| (weight(id, &digest), member));
    weighed.max_by_key(|(weight, _)| *weight).map(|(_, member)| member)
}

fn weight(id: &str, digest: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(id.as_bytes());
    context.update(digest.as_bytes());
    let mut weight = [0; 32];
    weight.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;
    use proptest::prelude::*;

    fn owned<'a>(members: &[&'a str], digest: &Digest) -> Option<&'a str> {
        owner(members.iter().map(|id| (*id, *id)), digest)
    }

    fn digests(count: usize) -> impl Iterator<Item = Digest> {
        (0..count).map(|n| Digest::of(Algorithm::Sha256, n.to_string().as_bytes()))
    }

    #[test]
    fn nobody_owns_what_there_is_nobody_for() {
        assert_eq!(owned(&[], &digests(1).next().unwrap()), None);
    }

    #[test]
    fn everybody_has_about_as_much() {
        let members = ["entrepot-a", "entrepot-b", "entrepot-c", "entrepot-d", "entrepot-e"];
        let mut counts = std::collections::BTreeMap::<_, usize>::new();
        for digest in digests(5_000) {
            *counts.entry(owned(&members, &digest).unwrap()).or_default() += 1;
        }
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_restart_moves_what_one_had_and_what_it_gets() {
        let before = ["entrepot-a", "entrepot-b", "entrepot-c", "entrepot-d", "entrepot-e"];
        let after = ["entrepot-a", "entrepot-b", "entrepot-f", "entrepot-d", "entrepot-e"];
        let mut moved = 0;
        for digest in digests(5_000) {
            let (was, is) = (owned(&before, &digest).unwrap(), owned(&after, &digest).unwrap());
            if was != is {
                assert!(was == "entrepot-c" || is == "entrepot-f", "{was} to {is}");
                moved += 1;
            }
        }
        // A fifth from the one that is gone, a fifth to the one that has come, and some of both.
        assert!((1_500..2_200).contains(&moved), "{moved}");
    }

    proptest! {
        #[test]
        fn the_order_of_the_members_says_nothing(
            mut members in proptest::collection::vec("[a-z]{1,8}", 1..9),
            bytes in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            let ids = |members: &[String]| {
                let ids: Vec<_> = members.iter().map(String::as_str).collect();
                owned(&ids, &digest).unwrap().to_owned()
            };
            let one = ids(&members);
            members.reverse();
            prop_assert_eq!(&one, &ids(&members));
            // Whoever else leaves, it stays the same.
            members.retain(|member| *member == one || member.len() % 2 == 0);
            prop_assert_eq!(&one, &ids(&members));
        }
    }
}
