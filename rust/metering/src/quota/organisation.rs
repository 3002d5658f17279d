//! Everything that one organisation's lock guards: its names, chains, counters and reservations.

use super::chain::Chain;
use super::counter::{Installed, Line, NONE, Side};
use super::names::Names;
use super::pages::{Large, List, Table};
use super::refusal::{Notice, Refusal};
use super::reservation::Holds;
use super::stripe::Stripes;
use creto_enablement_common::ports::Clock;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// At most this many notices wait to be fetched; later ones are dropped, since every crossing repeats in the next window.
const MOST_NOTICES: usize = 4_096;

/// Called when units are wanted; set at most once.
#[derive(Clone, Default)]
pub struct Waker(pub(super) Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waker({})", if self.0.get().is_some() { "set" } else { "none" })
    }
}

/// What is asked for the time where a caller's own reading is in doubt.
#[derive(Clone)]
pub struct Time(pub(super) Arc<dyn Clock>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

/// What the lock guards.
#[derive(Debug)]
pub struct Organisation {
    pub(super) names: Names,
    pub(super) meters: Vec<Box<str>>,
    pub(super) rules: Vec<Arc<Installed>>,
    pub(super) lines: List<Line>,
    /// Lines that were put beside each other for counters that many chains share, and have none yet.
    pub(super) shared: Range<u32>,
    pub(super) sides: Vec<Side>,
    pub(super) chains: List<Chain>,
    /// Chains by the hash of their whole path.
    pub(super) chain_index: Table<u32>,
    /// Lines of the second and later meters of chains, by chain and meter.
    pub(super) spread: HashMap<(u32, u16), u32, RandomState>,
    /// The first counter of each node: most have no other.
    pub(super) first: List<u32>,
    /// Further counters of nodes, by (node, rule).
    pub(super) counters: Table<u32>,
    pub(super) holds: Holds,
    pub(super) notices: Vec<Notice>,
    /// Lines that want units leased.
    pub(super) short: Vec<u32>,
    pub(super) waker: Waker,
    pub(super) time: Time,
    pub(super) stripes: Arc<Stripes>,
    pub(super) hasher: RandomState,
    void: Line,
}

impl Organisation {
    pub(super) fn new(rules: Vec<Arc<Installed>>, waker: Waker, time: Time) -> Self {
        Self {
            names: Names::default(),
            meters: Vec::new(),
            rules,
            lines: List::new_in(Large),
            shared: 0..0,
            sides: Vec::new(),
            chains: List::new_in(Large),
            chain_index: Table::new_in(Large),
            spread: HashMap::default(),
            first: List::new_in(Large),
            counters: Table::new_in(Large),
            holds: Holds::default(),
            notices: Vec::new(),
            short: Vec::new(),
            waker,
            time,
            stripes: Arc::default(),
            hasher: RandomState::default(),
            void: Line::path(NONE),
        }
    }

    // INVARIANT: numbers of lines are given out by this organisation only and lines are never removed, so the void line is never met.
    #[inline]
    pub(super) fn line(&self, number: u32) -> &Line {
        match self.lines.get(number as usize) {
            Some(line) => line,
            None => &self.void,
        }
    }

    #[inline]
    pub(super) fn line_mut(&mut self, number: u32) -> &mut Line {
        match self.lines.get_mut(number as usize) {
            Some(line) => line,
            None => &mut self.void,
        }
    }

    pub(super) fn rule(&self, line: &Line) -> Option<&Arc<Installed>> {
        self.rules.get(line.rule as usize)
    }

    pub(super) fn side(&self, line: &Line) -> Option<&Side> {
        self.sides.get(line.side as usize)
    }

    /// The side table entry of a line, made where it has none.
    pub(super) fn side_of(&mut self, number: u32) -> Option<&mut Side> {
        if self.line(number).side == NONE {
            let side = u32::try_from(self.sides.len()).ok()?;
            self.sides.push(Side::default());
            self.line_mut(number).side = side;
        }
        let side = self.line(number).side;
        self.sides.get_mut(side as usize)
    }

    /// The number of a meter in this organisation; a handful, so a linear search beats a hash.
    pub(super) fn meter(&mut self, name: &str) -> Option<u32> {
        if let Some(found) = self.meters.iter().position(|m| **m == *name) {
            return u32::try_from(found).ok();
        }
        let number = u32::try_from(self.meters.len()).ok()?;
        self.meters.push(name.into());
        Some(number)
    }

    pub(super) fn notify(&mut self, number: u32, percent: u8, at: u64) {
        if self.notices.len() >= MOST_NOTICES {
            return;
        }
        let line = self.line(number);
        let Some(installed) = self.rule(line) else { return };
        self.notices.push(Notice {
            level: self.names.level(line.node),
            name: self.names.text(line.node).to_owned(),
            meter: installed.rule.meter.clone(),
            window: installed.rule.window.clone(),
            limit: self.limit(line, at),
            used: self.used(line, at),
            percent,
            at,
        });
    }

    pub(super) fn refuse(&self, number: u32, asked: u64, now: u64) -> Refusal {
        let line = self.line(number);
        let (meter, window) = self.rule(line).map(|i| (i.rule.meter.clone(), i.rule.window.clone())).unwrap_or_default();
        let (limit, used) = (self.limit(line, now), self.used(line, now));
        let wait = self.wait(line, asked, now);
        Refusal {
            level: self.names.level(line.node),
            name: self.names.text(line.node).to_owned(),
            meter,
            window,
            limit,
            used,
            asked,
            resets_at: wait.map(|wait| now.saturating_add(wait)),
            wait,
            lease_short: self.lease_short(line, asked, now),
        }
    }
}
