//! A list whose versions share what they have in common: changing one item copies two short blocks, whatever the length.
//!
//! Reading is two steps to the item, three in a list of many. Items are only added and replaced, never taken out.

use smallvec::SmallVec;
use std::sync::Arc;

/// Items in one leaf. Copying one counts a reference for each item's parts, wherever they lie, so leaves are short.
const LEAF: usize = 16;
/// Leaves under one branch.
const BRANCH: usize = 64;

/// Branches that lie in the list itself, so that reading a list of up to 8,192 items is a step shorter.
const NEAR: usize = 8;

type Leaf<T> = [T; LEAF];
type Branch<T> = [Option<Arc<Leaf<T>>>; BRANCH];

/// The list.
#[derive(Debug)]
pub struct Tree<T> {
    branches: SmallVec<[Arc<Branch<T>>; NEAR]>,
    len: usize,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { branches: self.branches.clone(), len: self.len }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { branches: SmallVec::new(), len: 0 }
    }
}

impl<T: Clone> Tree<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        if at >= self.len {
            return None;
        }
        self.branches.get(at / (LEAF * BRANCH))?.get(at / LEAF % BRANCH)?.as_ref()?.get(at % LEAF)
    }

    /// The item, to be changed in this version only.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        if at >= self.len {
            return None;
        }
        let branch = Arc::make_mut(self.branches.get_mut(at / (LEAF * BRANCH))?);
        Arc::make_mut(branch.get_mut(at / LEAF % BRANCH)?.as_mut()?).get_mut(at % LEAF)
    }

    /// Adds an item; `vacant` fills the places that a new leaf holds ready.
    pub fn push(&mut self, item: T, vacant: impl Fn() -> T) {
        let at = self.len;
        self.len += 1;
        if at.is_multiple_of(LEAF * BRANCH) {
            self.branches.push(Arc::new(std::array::from_fn(|_| None)));
        }
        if at.is_multiple_of(LEAF)
            && let Some(leaf) = self.branches.last_mut().and_then(|branch| Arc::make_mut(branch).get_mut(at / LEAF % BRANCH))
        {
            *leaf = Some(Arc::new(std::array::from_fn(|_| vacant())));
        }
        if let Some(place) = self.get_mut(at) {
            *place = item;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_version_stays_as_it_was(items in proptest::collection::vec(any::<u32>(), 0..5_000), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 0..20)) {
            let mut tree = Tree::default();
            for item in &items {
                tree.push(*item, || 0);
            }
            let mut model = items;
            for (at, value) in changes {
                if model.is_empty() {
                    continue;
                }
                let (before, old) = (tree.clone(), model.clone());
                let at = at.index(model.len());
                *tree.get_mut(at).unwrap() = value;
                model[at] = value;
                prop_assert!(old.iter().enumerate().all(|(n, item)| before.get(n) == Some(item)));
            }
            prop_assert!(model.iter().enumerate().all(|(n, item)| tree.get(n) == Some(item)));
            prop_assert!(tree.get(model.len()).is_none());
            prop_assert_eq!(tree.len(), model.len());
        }
    }
}
