//! Chains: paths from an organisation to an agent and its delegators, and the lines that a use by them goes to.

use super::counter::{Installed, LINKS, Line, NONE};
use super::organisation::Organisation;
use super::rule::Level;
use creto_enablement_common::{Error, Result};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};

/// A longer chain of delegators than this is refused.
pub const MOST_NAMES: usize = 64;

/// How many lines that are shared lie together: a page of memory.
const MOST_TOGETHER: usize = 64;

/// One name more than its parent.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    parent: u32,
    node: u32,
    /// The line of the first meter used; those of others stand in `spread`.
    line: u32,
    meter: u16,
    length: u8,
}

const _: () = assert!(size_of::<Chain>() == 16, "a million agents are a million chains");

impl Organisation {
    /// By the names below the organisation's own, which all paths here begin with.
    fn hash_path(&self, path: &[&str]) -> u64 {
        let mut state = self.hasher.build_hasher();
        for name in path.iter().skip(1) {
            state.write(name.as_bytes());
            state.write_u8(0xff);
        }
        state.finish()
    }

    fn is_path(&self, mut number: u32, path: &[&str]) -> bool {
        if self.chains.get(number as usize).is_none_or(|chain| usize::from(chain.length) != path.len()) {
            return false;
        }
        for name in path.iter().skip(1).rev() {
            match self.chains.get(number as usize) {
                Some(chain) if self.names.text(chain.node) == *name => number = chain.parent,
                _ => return false,
            }
        }
        true
    }

    /// The number of a chain, if there is one.
    #[inline]
    pub(super) fn find_chain(&self, path: &[&str]) -> Option<u32> {
        self.chain_index.find(self.hash_path(path), |n| self.is_path(*n, path)).copied()
    }

    /// The number of a chain, made where there is none.
    pub(super) fn chain(&mut self, path: &[&str]) -> Result<u32> {
        if let Some(found) = self.find_chain(path) {
            return Ok(found);
        }
        let Some((name, above)) = path.split_last() else {
            return Err(Error::invalid("a quota path needs at least the organisation's name"));
        };
        if path.len() > MOST_NAMES || name.is_empty() {
            return Err(Error::invalid(format!("quota path of {} names: write 1 to {MOST_NAMES} names, none of them empty", path.len())));
        }
        let parent = if above.is_empty() { NONE } else { self.chain(above)? };
        let full = || Error::invalid("no room for more names in this organisation");
        let node = self.names.number(Level::of(above.len(), name), name).ok_or_else(full)?;
        let number = u32::try_from(self.chains.len()).map_err(|_| full())?;
        let length = u8::try_from(path.len()).map_err(|_| full())?;
        self.chains.push(Chain { parent, node, line: NONE, meter: u16::MAX, length });
        let hash = self.hash_path(path);
        // The table may move every entry, and asks for their hashes: by their paths.
        let mut index = std::mem::take(&mut self.chain_index);
        index.insert_unique(hash, number, |n| self.hash_path(&self.path_of(*n)));
        self.chain_index = index;
        Ok(number)
    }

    /// The names of a chain, organisation first.
    pub(super) fn path_of(&self, mut number: u32) -> SmallVec<[&str; 8]> {
        let mut path = SmallVec::new();
        while let Some(chain) = self.chains.get(number as usize) {
            path.push(self.names.text(chain.node));
            number = chain.parent;
        }
        path.reverse();
        path
    }

    fn nodes_of(&self, mut number: u32) -> SmallVec<[u32; 8]> {
        let mut nodes = SmallVec::new();
        while let Some(chain) = self.chains.get(number as usize) {
            // An agent that acts for itself by way of others is counted once.
            if !nodes.contains(&chain.node) {
                nodes.push(chain.node);
            }
            number = chain.parent;
        }
        nodes
    }

    /// The line of (chain, meter), if there is one.
    #[inline]
    pub(super) fn find_line(&self, chain: u32, meter: &str) -> Option<u32> {
        let entry = self.chains.get(chain as usize)?;
        if self.meters.get(usize::from(entry.meter)).is_some_and(|own| **own == *meter) {
            return Some(entry.line);
        }
        let number = self.meters.iter().position(|known| **known == *meter)?;
        self.spread.get(&(chain, u16::try_from(number).ok()?)).copied()
    }

    /// The line of (chain, meter), made where there is none.
    pub(super) fn line_for(&mut self, chain: u32, meter: &str) -> Result<u32> {
        if let Some(found) = self.find_line(chain, meter) {
            return Ok(found);
        }
        let full = || Error::invalid("no room for more meters in this organisation");
        let number = self.meter(meter).and_then(|m| u16::try_from(m).ok()).filter(|m| *m < u16::MAX).ok_or_else(full)?;
        let node = self.chains.get(chain as usize).map_or(NONE, |c| c.node);
        let line = self.push_line(Line::path(node)).ok_or_else(full)?;
        self.wire(line, chain, meter);
        let Some(entry) = self.chains.get_mut(chain as usize) else { return Err(full()) };
        if entry.meter == u16::MAX {
            (entry.meter, entry.line) = (number, line);
        } else {
            self.spread.insert((chain, number), line);
        }
        Ok(line)
    }

    fn push_line(&mut self, line: Line) -> Option<u32> {
        let number = u32::try_from(self.lines.len()).ok().filter(|n| *n < NONE)?;
        self.lines.push(line);
        Some(number)
    }

    /// A line that many chains lead to. Such lines lie together, since every check of them meets some: among those of a million agents,
    /// each would have a page of memory to itself.
    fn push_shared(&mut self, line: Line) -> Option<u32> {
        if self.shared.is_empty() {
            let size = (self.lines.len() / 4).clamp(4, MOST_TOGETHER);
            let start = u32::try_from(self.lines.len()).ok()?;
            for _ in 0..size {
                self.push_line(Line::path(NONE))?;
            }
            self.shared = start..u32::try_from(self.lines.len()).ok()?;
        }
        let number = self.shared.next()?;
        *self.line_mut(number) = line;
        Some(number)
    }

    fn counter_hash(hasher: &foldhash::fast::RandomState, node: u32, rule: u32) -> u64 {
        hasher.hash_one((node, rule))
    }

    /// The counter of (node, rule), if there is one.
    pub(super) fn find_counter(&self, node: u32, rule: u32) -> Option<u32> {
        let is = |number: u32| self.line(number).node == node && self.line(number).rule == rule;
        if let Some(first) = self.first.get(node as usize).copied().filter(|first| is(*first)) {
            return Some(first);
        }
        self.counters.find(Self::counter_hash(&self.hasher, node, rule), |n| is(*n)).copied()
    }

    fn index_counter(&mut self, number: u32) {
        let (node, rule) = (self.line(number).node, self.line(number).rule);
        while self.first.len() <= node as usize {
            self.first.push(NONE);
        }
        if let Some(first) = self.first.get_mut(node as usize).filter(|first| **first == NONE) {
            *first = number;
            return;
        }
        let Self { counters, lines, hasher, .. } = self;
        counters.insert_unique(Self::counter_hash(hasher, node, rule), number, |n| {
            lines.get(*n as usize).map_or(0, |line| Self::counter_hash(hasher, line.node, line.rule))
        });
    }

    /// The counter of (node, rule), made where there is none.
    pub(super) fn counter(&mut self, node: u32, rule: u32) -> Option<u32> {
        if let Some(found) = self.find_counter(node, rule) {
            return Some(found);
        }
        let number = self.push_shared(Line::path(node))?;
        self.make_counter(number, node, rule);
        Some(number)
    }

    /// Turns a line that only led to others into the counter of (node, rule).
    fn make_counter(&mut self, number: u32, node: u32, rule: u32) {
        let Some(installed) = self.rules.get(rule as usize).cloned() else { return };
        let line = self.line_mut(number);
        line.node = node;
        line.rule = rule;
        line.kind = installed.kind();
        // Due at once, so that the first use works out the window, the bound and the rest.
        line.due = 0;
        line.bound = 0;
        line.used = 0;
        self.index_counter(number);
    }

    /// True where the rule lies on this name: it covers it, and no other that names it has the same meter and window. That one stands in
    /// its place, be its limit larger or smaller.
    pub(super) fn binds(&self, rule: u32, level: Level, name: &str, meter: &str) -> bool {
        let covers = |installed: &Installed| installed.live && installed.rule.meter == meter && installed.rule.scope.covers(level, name);
        let Some(rule) = self.rules.get(rule as usize).filter(|installed| covers(installed)).map(|installed| &installed.rule) else {
            return false;
        };
        let in_its_place = |other: &Installed| other.rule.scope.name.is_some() && other.rule.span == rule.span && covers(other);
        rule.scope.name.is_some() || !self.rules.iter().any(|other| in_its_place(other))
    }

    /// Sets the counters that a use by `chain` of `meter` goes to. The first of them that there is not yet, from the end of the path on,
    /// is the line itself: of many agents behind one delegator each has its count in the line that its checks begin with.
    pub(super) fn wire(&mut self, number: u32, chain: u32, meter: &str) {
        let nodes = self.nodes_of(chain);
        let mut others: SmallVec<[u32; 8]> = SmallVec::new();
        for node in &nodes {
            for rule in 0..self.rules.len() as u32 {
                if !self.binds(rule, self.names.level(*node), self.names.text(*node), meter) {
                    continue;
                }
                if self.line(number).rule == NONE && self.find_counter(*node, rule).is_none() {
                    self.make_counter(number, *node, rule);
                } else if let Some(other) = self.counter(*node, rule)
                    && other != number
                {
                    others.push(other);
                }
            }
        }
        self.link(number, &others);
    }

    fn link(&mut self, number: u32, others: &[u32]) {
        let (here, rest) = if others.len() > LINKS { others.split_at(LINKS - 1) } else { (others, [].as_slice()) };
        let mut links = [NONE; LINKS];
        for (slot, other) in links.iter_mut().zip(here) {
            *slot = *other;
        }
        let mut count = here.len();
        if !rest.is_empty() {
            let node = self.line(number).node;
            if let Some(next) = self.push_line(Line::path(node)) {
                self.link(next, rest);
                if let Some(last) = links.last_mut() {
                    *last = next;
                }
                count = LINKS + 1;
            }
        }
        let line = self.line_mut(number);
        line.links = links;
        line.count = count as u8;
    }

    /// Every counter that a use of the line goes to, its own first.
    #[inline]
    pub(super) fn counters_of(&self, head: u32) -> SmallVec<[u32; 8]> {
        let mut found = SmallVec::new();
        let mut number = head;
        while number != NONE {
            let line = self.line(number);
            if line.rule != NONE {
                found.push(number);
            }
            found.extend_from_slice(line.counters());
            number = line.next();
        }
        found
    }
}
