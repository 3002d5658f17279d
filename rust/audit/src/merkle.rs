//! The hash tree of RFC 6962 (and RFC 9162), section 2.1: leaves, nodes, the right edge, proofs.

use creto_enablement_common::{Digest, Error, ErrorKind, Result};
use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

/// The hash of a leaf.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    hash.finalize().into()
}

/// What SHA-256 begins with (FIPS 180-4, 5.3.3).
const BEGIN: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The 65 bytes of a node's input, padded to two blocks beforehand.
const PADDED: [u8; 128] = {
    let mut input = [0; 128];
    input[0] = 1;
    input[65] = 0x80;
    [input[126], input[127]] = (65 * 8_u16).to_be_bytes();
    input
};

/// The hash of a node over its two children.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut input = PADDED;
    let (l, r) = input.split_at_mut(33);
    l.split_at_mut(1).1.copy_from_slice(left);
    r.split_at_mut(32).0.copy_from_slice(right);
    let mut state = BEGIN;
    compress256(&mut state, input.as_chunks::<64>().0);
    let mut digest = [0; 32];
    for (place, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    digest
}

/// The root of no leaves.
pub fn empty_root() -> Digest {
    Sha256::digest([]).into()
}

/// The roots of the perfect subtrees that a tree of some size consists of, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    roots: Vec<Digest>,
}

impl Edge {
    /// From what `roots` gave; refused where the number of roots does not fit the size.
    pub fn from_parts(size: u64, roots: Vec<Digest>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// How many leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The subtree roots, the largest first.
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        let mut merge = self.size.trailing_ones();
        while merge > 0 {
            if let Some(left) = self.roots.pop() {
                hash = node_hash(&left, &hash);
            }
            merge -= 1;
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Digest {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return empty_root() };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root of a perfect tree over a power of two of hashes (or of fewer: the tree of RFC 6962 over them).
pub fn root_of(hashes: &[Digest]) -> Digest {
    let mut edge = Edge::default();
    for hash in hashes {
        edge.push(*hash);
    }
    edge.root()
}

/// Reads the hash of any perfect subtree: `level` 0 is a leaf, `index` counts subtrees of that level.
pub trait Nodes {
    /// The hash of the node.
    fn node(&self, level: u32, index: u64) -> Result<Digest>;
}

/// The hash of the subtree over leaves `start..end`, where `start` is a multiple of the subtree's width.
fn range_hash(nodes: &dyn Nodes, start: u64, end: u64) -> Result<Digest> {
    let width = end - start;
    if width.is_power_of_two() {
        let level = width.trailing_zeros();
        return nodes.node(level, start >> level);
    }
    let split = start + split_of(width);
    Ok(node_hash(&range_hash(nodes, start, split)?, &range_hash(nodes, split, end)?))
}

/// The largest power of two smaller than `width` (`width` > 1).
const fn split_of(width: u64) -> u64 {
    1 << (63 - (width - 1).leading_zeros())
}

/// The root of the first `size` leaves.
pub fn root(nodes: &dyn Nodes, size: u64) -> Result<Digest> {
    if size == 0 { Ok(empty_root()) } else { range_hash(nodes, 0, size) }
}

/// The inclusion proof of a leaf in the tree of `size` leaves, the leaf's sibling first (RFC 6962, 2.1.1).
pub fn inclusion(nodes: &dyn Nodes, index: u64, size: u64) -> Result<Vec<Digest>> {
    if index >= size {
        return Err(Error::new(ErrorKind::NotFound).with_context(format!("record {index} of a tree of {size}")));
    }
    let mut proof = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let split = start + split_of(end - start);
        if index < split {
            proof.push(range_hash(nodes, split, end)?);
            end = split;
        } else {
            proof.push(range_hash(nodes, start, split)?);
            start = split;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The consistency proof from a tree of `old` leaves to one of `new` (RFC 6962, 2.1.2); empty where `old` is 0 or `new`.
pub fn consistency(nodes: &dyn Nodes, old: u64, new: u64) -> Result<Vec<Digest>> {
    if old > new {
        return Err(Error::invalid(format!("a tree of {old} records cannot come before one of {new}")));
    }
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut start, mut end, mut whole) = (0, new, true);
    while end != old {
        let split = start + split_of(end - start);
        if old <= split {
            proof.push(range_hash(nodes, split, end)?);
            end = split;
        } else {
            proof.push(range_hash(nodes, start, split)?);
            start = split;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_hash(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root that an inclusion proof leads to (RFC 9162, 2.1.3.2).
///
/// # Errors
/// `Integrity` where the proof has another length than the place of the leaf asks for.
pub fn root_from_inclusion(leaf: Digest, index: u64, size: u64, proof: &[Digest]) -> Result<Digest> {
    let wrong = || Error::new(ErrorKind::Integrity).with_context(format!("the proof is not one for record {index} of {size}"));
    if index >= size {
        return Err(wrong());
    }
    let (mut place, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(wrong());
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(hash) } else { Err(wrong()) }
}

/// Checks that the tree of `new` leaves extends the one of `old` (RFC 9162, 2.1.4.2).
///
/// # Errors
/// `Integrity` where it does not, or the proof does not show it.
pub fn verify_consistency(old: u64, old_root: &Digest, new: u64, new_root: &Digest, proof: &[Digest]) -> Result<()> {
    let wrong = || Error::new(ErrorKind::Integrity).with_context(format!("the tree of {new} records does not extend the one of {old}"));
    if old > new || (old == 0 || old == new) && !proof.is_empty() {
        return Err(wrong());
    }
    if old == 0 {
        return if *old_root == empty_root() { Ok(()) } else { Err(wrong()) };
    }
    if old == new {
        return if old_root == new_root { Ok(()) } else { Err(wrong()) };
    }
    let (mut place, mut last) = (old - 1, new - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let mut proof = proof.iter();
    let first = if old.is_power_of_two() { old_root } else { proof.next().ok_or_else(wrong)? };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return Err(wrong());
        }
        if place & 1 == 1 || place == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 && old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Leaves(Vec<Digest>);

    impl Nodes for Leaves {
        fn node(&self, level: u32, index: u64) -> Result<Digest> {
            let (start, end) = ((index << level) as usize, ((index + 1) << level) as usize);
            Ok(reference(&self.0[start..end]))
        }
    }

    /// MTH as RFC 6962 writes it down.
    fn reference(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(split_of(leaves.len() as u64) as usize);
                node_hash(&reference(left), &reference(right))
            }
        }
    }

    fn leaves(count: u64) -> Leaves {
        Leaves((0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect())
    }

    fn hex(digest: Digest) -> String {
        base16ct::lower::encode_string(&digest)
    }

    #[test]
    fn the_roots_are_those_that_certificate_transparency_publishes() {
        // The eight leaves and the roots of the reference implementation of RFC 6962.
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut edge = Edge::default();
        assert_eq!(hex(edge.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for input in inputs {
            edge.push(leaf_hash(input));
        }
        assert_eq!(hex(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(hex(edge.root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn every_inclusion_and_consistency_proof_up_to_70_leaves_holds_and_no_other_place_does() {
        for size in 1..70 {
            let tree = leaves(size);
            let whole = root(&tree, size).unwrap();
            assert_eq!(whole, reference(&tree.0));
            for index in 0..size {
                let proof = inclusion(&tree, index, size).unwrap();
                assert_eq!(root_from_inclusion(tree.0[index as usize], index, size, &proof).unwrap(), whole);
                let elsewhere = (index + 1) % size;
                if elsewhere != index {
                    assert!(root_from_inclusion(tree.0[index as usize], elsewhere, size, &proof).map_or(true, |r| r != whole));
                }
            }
            for old in 0..=size {
                let before = root(&tree, old).unwrap();
                let mut proof = consistency(&tree, old, size).unwrap();
                verify_consistency(old, &before, size, &whole, &proof).unwrap();
                if let Some(first) = proof.first_mut() {
                    first[0] ^= 1;
                    assert!(verify_consistency(old, &before, size, &whole, &proof).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_edge_is_the_tree(size in 0_u64..600) {
            let tree = leaves(size);
            let mut edge = Edge::default();
            for leaf in &tree.0 {
                edge.push(*leaf);
            }
            prop_assert_eq!(edge.root(), reference(&tree.0));
            prop_assert_eq!(Edge::from_parts(size, edge.roots().to_vec()).unwrap(), edge);
        }
    }
}
