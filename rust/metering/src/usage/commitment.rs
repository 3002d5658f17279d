//! A Merkle commitment to a list of events: RFC 9162, section 2.1, SHA-256.

use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1_u8; 65];
    for (to, from) in bytes.iter_mut().skip(1).zip(left.iter().chain(right)) {
        *to = *from;
    }
    Sha256::digest(bytes).into()
}

/// The root over leaf hashes; that of no leaves is the hash of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

/// The hashes that lead from one leaf to the root, the nearest first; none where there is no such leaf.
pub fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, other) =
        if index < left.len() { (inclusion(left, index)?, root(right)) } else { (inclusion(right, index - left.len())?, root(left)) };
    path.push(other);
    Some(path)
}

/// The root that a path leads to; none where the path has another length than the place needs.
pub fn inclusion_root(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last, mut hash) = (index, size - 1, leaf);
    for step in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            hash = node_hash(step, &hash);
            while place.is_multiple_of(2) && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(hash: Hash) -> String {
        base16ct::lower::encode_string(&hash)
    }

    /// The roots that the reference implementations of RFC 6962 test with.
    #[test]
    fn the_roots_of_the_rfc() {
        let leaves: Vec<Hash> = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|text| {
                let bytes: Vec<u8> = (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect();
                leaf_hash(&bytes)
            })
            .collect();
        assert_eq!(hex(root(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(root(&leaves[..1])), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(hex(root(&leaves)), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    proptest! {
        #[test]
        fn every_leaf_leads_to_the_root_and_no_other_does(size in 1..70_usize, index in 0..70_usize, other in 0..70_usize) {
            let leaves: Vec<Hash> = (0..size).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            let index = index % size;
            let path = inclusion(&leaves, index).unwrap();
            prop_assert_eq!(inclusion_root(leaves[index], index as u64, size as u64, &path), Some(root(&leaves)));
            if other % size != index {
                prop_assert_ne!(inclusion_root(leaves[other % size], index as u64, size as u64, &path), Some(root(&leaves)));
            }
            prop_assert_eq!(inclusion(&leaves, size), None);
        }
    }
}
