//! Units leased from an authority that several processes share.
//!
//! Units are moved, never copied: the authority hands out at most the limit of a window, a process uses at most what it was handed. This
//! module asks nobody: it says what is needed (`needs`) and takes what was granted (`grant`); whoever holds the enforcer does the talking.

use super::counter::{Kind, Line, NONE};
use super::organisation::Organisation;
use super::rule::{Level, Share};
use super::span::NEVER;

/// A lease is this part of the limit, so that a holder that dies strands less than a twentieth.
const PART: u64 = 32;

/// How long, in microseconds, an authority's word that it has no more is taken for the truth: it is not asked for each act that is
/// refused, and what others give back is found this much later at most.
const WORD: u64 = 100_000;

/// Units that a process wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNeed {
    /// The organisation.
    pub organisation: String,
    /// The floor.
    pub level: Level,
    /// Whose quota.
    pub name: String,
    /// Of what.
    pub meter: String,
    /// Over what time, as it was written.
    pub window: String,
    /// End of the window, in microseconds since the epoch; `u64::MAX` where it never ends.
    pub end: u64,
    /// The limit, with boosts.
    pub limit: u64,
    /// How many are wanted.
    pub want: u64,
    /// How many this process has of this window.
    pub leased: u64,
    /// How many of them it has used.
    pub used: u64,
}

/// Units that were granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseGrant<'a> {
    /// The organisation.
    pub organisation: &'a str,
    /// The floor.
    pub level: Level,
    /// Whose quota.
    pub name: &'a str,
    /// Of what.
    pub meter: &'a str,
    /// Over what time.
    pub window: &'a str,
    /// End of the window that they are for.
    pub end: u64,
    /// How many this process has of that window now, by the authority's books: these count, whatever was thought here.
    pub held: u64,
    /// Until when they may be used, in microseconds since the epoch.
    pub until: u64,
    /// How many all holders have together, these included; none where that is not news.
    pub total: Option<u64>,
}

impl Organisation {
    /// Notes that a counter needs units now; not where the authority said just now that it has no more.
    pub(super) fn want(&mut self, number: u32, amount: u64, now: u64) {
        self.recall(number);
        let used = self.line(number).used;
        let Some(side) = self.side_of(number).filter(|side| now >= side.dry_until) else { return };
        side.wanted = side.wanted.max(used.saturating_add(amount).saturating_sub(side.leased));
        if !side.asked {
            side.asked = true;
            self.short.push(number);
            if let Some(wake) = self.waker.0.get() {
                wake();
            }
        }
    }

    /// Notes that a counter will soon need units.
    pub(super) fn want_early(&mut self, number: u32, now: u64) {
        let line = self.line(number);
        if self.side(line).is_some_and(|side| side.leased < NEVER && line.used >= side.leased.saturating_sub(side.last_lease / 2)) {
            self.want(number, 0, now);
        }
    }

    /// True where the authority may have units for the act: it is more than what it handed out that decides.
    pub(super) fn lease_short(&self, line: &Line, asked: u64, now: u64) -> bool {
        let shared = self.rule(line).is_some_and(|installed| installed.rule.share == Share::Store);
        let dry = self.side(line).is_some_and(|side| now < side.dry_until);
        shared && !dry && line.used.checked_add(asked).is_some_and(|sum| sum <= self.limit(line, now))
    }

    /// What is needed, since the last call.
    pub(super) fn needs(&mut self, organisation: &str, now: u64, into: &mut Vec<LeaseNeed>) {
        for number in std::mem::take(&mut self.short) {
            self.recall(number);
            into.extend(self.need(organisation, number, now));
            if let Some(side) = self.side_of(number) {
                (side.asked, side.wanted) = (false, 0);
            }
        }
    }

    /// Every lease of a window that has not ended.
    pub(super) fn leases(&mut self, organisation: &str, now: u64, into: &mut Vec<LeaseNeed>) {
        for number in 0..self.lines.len() as u32 {
            self.recall(number);
            let line = self.line(number);
            if self.side(line).is_some_and(|side| side.leased > 0 && side.end > now) {
                into.extend(self.need(organisation, number, now));
            }
        }
    }

    fn need(&self, organisation: &str, number: u32, now: u64) -> Option<LeaseNeed> {
        let line = self.line(number);
        let installed = self.rule(line).filter(|i| i.rule.share == Share::Store)?;
        let side = self.side(line)?;
        let limit = self.limit(line, now);
        Some(LeaseNeed {
            organisation: organisation.to_owned(),
            level: self.names.level(line.node),
            name: self.names.text(line.node).to_owned(),
            meter: installed.rule.meter.clone(),
            window: installed.rule.window.clone(),
            end: side.end,
            limit,
            want: (limit / PART).max(1).max(side.wanted),
            leased: side.leased,
            used: line.used,
        })
    }

    fn shared_line(&self, level: Level, name: &str, meter: &str, window: &str) -> Option<u32> {
        let node = self.names.find(level, name)?;
        (0..self.rules.len() as u32).find_map(|rule| {
            let installed = self.rules.get(rule as usize)?;
            let same = installed.rule.share == Share::Store && installed.rule.window == window;
            (same && self.binds(rule, level, name, meter)).then(|| self.find_counter(node, rule)).flatten()
        })
    }

    /// Takes over what was granted; false where the window is another by now, and the units have to go back.
    pub(super) fn grant(&mut self, grant: &LeaseGrant<'_>, now: u64) -> bool {
        let Some(number) = self.shared_line(grant.level, grant.name, grant.meter, grant.window) else { return false };
        let Some(installed) = self.rule(self.line(number)).cloned() else { return false };
        if now >= self.line(number).due {
            self.roll(number, &installed, now);
        }
        self.recall(number);
        let limit = self.limit(self.line(number), now);
        let Some(side) = self.side_of(number) else { return false };
        if side.end != grant.end {
            return false;
        }
        let fresh = grant.held.saturating_sub(side.leased);
        if fresh > 0 {
            side.last_lease = fresh;
        }
        side.leased = grant.held;
        side.wanted = side.wanted.saturating_sub(fresh);
        side.lease_until = grant.until;
        if let Some(total) = grant.total {
            side.used_elsewhere = total.saturating_sub(side.leased);
            side.dry_until = if total >= limit { now.saturating_add(WORD) } else { 0 };
        }
        self.line_mut(number).due = side_due(self, number, now);
        self.rebound(number, &installed, now);
        if fresh > 0 {
            self.unwant(number);
        }
        true
    }

    /// Takes back a wish that was noted while the units that fulfil it were on their way: asked for twice, they would strand twice.
    fn unwant(&mut self, number: u32) {
        let used = self.line(number).used;
        let Some(side) = self.side_of(number) else { return };
        if side.asked && side.wanted == 0 && used < side.leased.saturating_sub(side.last_lease / 2) {
            side.asked = false;
            self.short.retain(|wanted| *wanted != number);
        }
    }

    /// Gives up what is leased and not used; how many units that is, and of which window.
    pub(super) fn surrender(&mut self, need: &LeaseNeed, now: u64) -> u64 {
        let Some(number) = self.shared_line(need.level, &need.name, &need.meter, &need.window) else { return 0 };
        let Some(installed) = self.rule(self.line(number)).cloned() else { return 0 };
        let used = self.line(number).used;
        let Some(side) = self.side_of(number).filter(|side| side.end == need.end) else { return 0 };
        let unused = side.leased.saturating_sub(used);
        side.leased -= unused;
        self.rebound(number, &installed, now);
        unused
    }

    /// Forgets every lease: in a forked child they belong to the parent.
    pub(super) fn forget_leases(&mut self) {
        self.recall_all();
        for number in 0..self.lines.len() as u32 {
            let line = self.line(number);
            if line.side == NONE || line.kind == Kind::Path || self.rule(line).is_none_or(|i| i.rule.share != Share::Store) {
                continue;
            }
            if let Some(side) = self.side_of(number) {
                (side.leased, side.last_lease, side.lease_until, side.dry_until, side.asked) = (0, 0, 0, 0, false);
            }
            let line = self.line_mut(number);
            line.used = 0;
            line.due = 0;
        }
        self.short.clear();
    }
}

fn side_due(org: &Organisation, number: u32, now: u64) -> u64 {
    let Some(side) = org.side(org.line(number)) else { return NEVER };
    let boosts = side.boosts.iter().map(|(_, until)| *until).min().unwrap_or(NEVER);
    let lease = if side.lease_until > now { side.lease_until } else { NEVER };
    side.end.min(boosts).min(lease)
}
