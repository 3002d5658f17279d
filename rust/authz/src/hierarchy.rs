//! The edges between entities, kept by whoever writes; readers only see what follows from them.

use smallvec::SmallVec;

/// Numbers of entities that stand above or below another.
pub type Numbers = SmallVec<[u32; 4]>;

/// Parents and children by number.
#[derive(Debug, Default)]
pub struct Hierarchy {
    parents: Vec<SmallVec<[u32; 2]>>,
    children: Vec<SmallVec<[u32; 2]>>,
}

impl Hierarchy {
    fn reach(&mut self, number: u32) {
        let len = number as usize + 1;
        if self.parents.len() < len {
            self.parents.resize_with(len, SmallVec::new);
            self.children.resize_with(len, SmallVec::new);
        }
    }

    pub fn parents(&self, number: u32) -> &[u32] {
        self.parents.get(number as usize).map_or(&[], |list| list)
    }

    fn children(&self, number: u32) -> &[u32] {
        self.children.get(number as usize).map_or(&[], |list| list)
    }

    /// Gives an entity these parents in place of those it had.
    pub fn set_parents(&mut self, number: u32, parents: &[u32]) {
        self.reach(number);
        for parent in parents {
            self.reach(*parent);
        }
        for old in self.parents.get_mut(number as usize).map(std::mem::take).unwrap_or_default() {
            if let Some(list) = self.children.get_mut(old as usize) {
                list.retain(|child| *child != number);
            }
        }
        for parent in parents {
            if let Some(list) = self.children.get_mut(*parent as usize) {
                list.push(number);
            }
        }
        if let Some(list) = self.parents.get_mut(number as usize) {
            list.extend_from_slice(parents);
        }
    }

    /// Cuts every edge to the children of an entity; gives those children.
    pub fn orphan(&mut self, number: u32) -> SmallVec<[u32; 2]> {
        let children = self.children.get_mut(number as usize).map(std::mem::take).unwrap_or_default();
        for child in &children {
            if let Some(list) = self.parents.get_mut(*child as usize) {
                list.retain(|parent| *parent != number);
            }
        }
        children
    }

    /// All ancestors, ascending.
    pub fn ancestors(&self, number: u32) -> Numbers {
        self.closure(number, |n| self.parents(n))
    }

    /// All descendants, ascending.
    pub fn descendants(&self, number: u32) -> Numbers {
        self.closure(number, |n| self.children(n))
    }

    fn closure<'a>(&self, number: u32, next: impl Fn(u32) -> &'a [u32]) -> Numbers {
        let mut found: Numbers = SmallVec::new();
        let mut open: SmallVec<[u32; 16]> = next(number).iter().copied().collect();
        while let Some(n) = open.pop() {
            if let Err(at) = found.binary_search(&n) {
                found.insert(at, n);
                open.extend(next(n).iter().copied());
            }
        }
        found
    }
}
