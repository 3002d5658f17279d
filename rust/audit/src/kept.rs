//! Tiles that one proof after another needs: the upper levels and the right edge, with the nodes over their hashes.

use crate::merkle::node_hash;
use crate::tile::WIDTH;
use creto_enablement_common::Digest;
use creto_enablement_common::sync::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// With what lies over their hashes they take 16 MiB.
const MOST: usize = 1_024;

/// A hash tile, and the roots of the perfect subtrees in it, which are computed once.
pub struct Tile {
    hashes: Vec<Digest>,
    above: OnceLock<Vec<Digest>>,
}

impl Tile {
    pub const fn new(hashes: Vec<Digest>) -> Self {
        Self { hashes, above: OnceLock::new() }
    }

    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// The root over 2^height hashes: the one so many such subtrees from the left; none where the tile does not hold all of them.
    pub fn node(&self, height: u32, index: usize) -> Option<&Digest> {
        if height == 0 {
            return self.hashes.get(index);
        }
        let width = |height: u32| self.hashes.len().checked_shr(height).unwrap_or(0);
        let before: usize = (1..height).map(width).sum();
        (index < width(height)).then(|| self.above.get_or_init(|| above(&self.hashes)).get(before + index)).flatten()
    }
}

/// The nodes over hashes, level by level.
fn above(hashes: &[Digest]) -> Vec<Digest> {
    let pairs = |below: &[Digest]| -> Vec<Digest> { below.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect() };
    let mut all = Vec::with_capacity(hashes.len());
    let mut level = pairs(hashes);
    while !level.is_empty() {
        all.extend_from_slice(&level);
        level = pairs(&level);
    }
    all
}

/// Level, index and width of a tile.
type Place = (u32, u64, u64);

/// Tiles that were read before. What is kept may be of files that others have taken the place of: whoever uses it checks where it leads.
#[derive(Default)]
pub struct Kept(Mutex<HashMap<Place, Arc<Tile>>>);

impl Kept {
    pub fn tile(&self, place: Place) -> Option<Arc<Tile>> {
        self.0.lock().get(&place).cloned()
    }

    /// Keeps a tile of an upper level or of the right edge; the lowest full ones are too many to be asked for twice.
    pub fn keep(&self, place: Place, tile: &Arc<Tile>) {
        if place.0 == 0 && place.2 == WIDTH {
            return;
        }
        let mut tiles = self.0.lock();
        if tiles.len() >= MOST {
            // Edges that the log has outgrown, and the level of which there are most.
            tiles.retain(|(level, _, width), _| *level > 1 && *width == WIDTH);
        }
        if tiles.len() >= MOST {
            tiles.clear();
        }
        tiles.insert(place, Arc::clone(tile));
    }

    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{leaf_hash, root_of};

    #[test]
    fn a_node_is_the_root_over_its_hashes_and_nothing_is_a_node_that_is_not_whole() {
        for width in [1_usize, 2, 3, 7, 8, 100, 150, 255, 256] {
            let hashes: Vec<Digest> = (0..width).map(|number| leaf_hash(&number.to_be_bytes())).collect();
            let tile = Tile::new(hashes.clone());
            for height in 0..9_u32 {
                for index in 0..width >> height {
                    let (first, last) = (index << height, (index + 1) << height);
                    assert_eq!(tile.node(height, index), Some(&root_of(&hashes[first..last])), "{width} {height} {index}");
                }
                assert_eq!(tile.node(height, width >> height), None);
            }
        }
    }

    #[test]
    fn what_is_kept_stays_bounded_and_full_tiles_of_the_lowest_level_are_not_kept() {
        let (kept, tile) = (Kept::default(), Arc::new(Tile::new(vec![[0; 32]])));
        for index in 0..5_000 {
            kept.keep((0, index, WIDTH), &tile);
            kept.keep((1, index, WIDTH), &tile);
            kept.keep((0, 0, index % WIDTH), &tile);
            kept.keep((2, index / 256, WIDTH), &tile);
            assert!(kept.0.lock().len() <= MOST);
        }
        assert!(kept.tile((0, 4_999, WIDTH)).is_none() && kept.tile((1, 4_999, WIDTH)).is_some() && kept.tile((2, 0, WIDTH)).is_some());
    }
}
