//! A new set of rules in place of the old one, and boosts; counts go on where a rule only changed its limit.

use super::counter::{Installed, Kind, NONE};
use super::organisation::Organisation;
use super::rule::{Level, QuotaRule, Scope};
use super::span::NEVER;
use std::sync::Arc;

/// Extra units for one name, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boost {
    /// For whom: a scope that names one.
    pub scope: Scope,
    /// Of what.
    pub meter: String,
    /// How many more.
    pub units: u64,
    /// Until when, in microseconds since the epoch.
    pub until: u64,
}

impl Boost {
    /// True for the organisations that it may be for: one is boosted as itself, not as a name inside another.
    pub(super) fn reaches(&self, organisation: &str) -> bool {
        self.scope.level != Level::Organisation || self.scope.name.as_deref() == Some(organisation)
    }
}

/// The rules that follow from `old` by installing `new`: numbers never change their meaning, so that lines keep theirs.
pub fn merge(old: &[Arc<Installed>], new: Vec<QuotaRule>) -> Vec<Arc<Installed>> {
    let mut new: Vec<Option<QuotaRule>> = new.into_iter().map(Some).collect();
    let mut merged: Vec<Arc<Installed>> = old
        .iter()
        .map(|installed| {
            let replacement = new.iter_mut().find(|rule| rule.as_ref().is_some_and(|rule| rule.same_count(&installed.rule)));
            match replacement.and_then(Option::take) {
                Some(rule) => Arc::new(Installed::new(rule)),
                None => Arc::new(Installed { live: false, ..Installed::new(installed.rule.clone()) }),
            }
        })
        .collect();
    merged.extend(new.into_iter().flatten().map(|rule| Arc::new(Installed::new(rule))));
    merged
}

impl Organisation {
    pub(super) fn install(&mut self, rules: &[Arc<Installed>], now: u64) {
        self.recall_all();
        self.rules = rules.to_vec();
        let dead = |org: &Self, number: u32| org.rule(org.line(number)).is_some_and(|installed| !installed.live);
        for number in 0..self.lines.len() as u32 {
            if dead(self, number) {
                let line = self.line_mut(number);
                (line.rule, line.kind, line.due, line.bound, line.used) = (NONE, Kind::Path, NEVER, NEVER, 0);
            }
        }
        let lines = &self.lines;
        let counts = |number: u32| lines.get(number as usize).is_some_and(|line| line.rule != NONE);
        self.counters.retain(|number| counts(*number));
        self.first.iter_mut().filter(|first| !counts(**first)).for_each(|first| *first = NONE);
        for chain in 0..self.chains.len() as u32 {
            for (meter, line) in self.lines_of(chain) {
                self.wire(line, chain, &meter);
            }
        }
        for number in 0..self.lines.len() as u32 {
            let Some(installed) = self.rule(self.line(number)).cloned() else { continue };
            if self.line(number).due > 0 {
                self.line_mut(number).step = 0;
                self.line_mut(number).kind = installed.kind();
                let side = self.line(number).side;
                if let Some(side) = self.sides.get_mut(side as usize) {
                    side.dry_until = 0;
                }
                self.rebound(number, &installed, now);
            }
        }
    }

    /// Adds units to every counter that a boost is for; how many counters that were.
    pub(super) fn boost(&mut self, boost: &Boost, now: u64) -> usize {
        let Some(name) = boost.scope.name.as_deref() else { return 0 };
        // The name need not have acted yet: its counters are made here, so that the boost is there when it does.
        let Some(node) = self.names.number(boost.scope.level, name) else { return 0 };
        let mut boosted = 0;
        for rule in 0..self.rules.len() as u32 {
            if !self.binds(rule, boost.scope.level, name, &boost.meter) {
                continue;
            }
            let Some(number) = self.counter(node, rule) else { continue };
            self.recall(number);
            let Some(installed) = self.rule(self.line(number)).cloned() else { continue };
            if now >= self.line(number).due {
                self.roll(number, &installed, now);
            }
            let due = self.line(number).due;
            let fresh = self.line(number).side == NONE;
            let Some(side) = self.side_of(number) else { continue };
            if fresh {
                side.end = due;
            }
            side.boosts.push((boost.units, boost.until));
            side.dry_until = 0;
            self.line_mut(number).due = due.min(boost.until);
            self.line_mut(number).step = 0;
            self.rebound(number, &installed, now);
            boosted += 1;
        }
        boosted
    }
}
