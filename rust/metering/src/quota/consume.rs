//! Taking units: first every counter is asked, then every counter is charged, under one lock.

use super::counter::{BUCKETS, Installed, Kind, LINKS, Line, NONE};
use super::organisation::Organisation;
use super::rule::{Overage, Share};
use super::span::{NEVER, Span};
use std::sync::Arc;

const RING: u64 = BUCKETS as u64 + 1;

/// The counter that has no room, and what it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    pub(super) line: u32,
    pub(super) asked: u64,
}

impl Organisation {
    /// Takes `amount` on every counter of each line, or nothing at all.
    #[inline]
    pub(super) fn take(&mut self, uses: &[(u32, u64)], now: u64) -> Result<(), Short> {
        self.ask(uses, now)?;
        for (head, amount) in uses {
            self.charge(*head, *amount, now);
        }
        Ok(())
    }

    /// Says whether `amount` would fit on every counter of each line.
    #[inline]
    pub(super) fn ask(&mut self, uses: &[(u32, u64)], now: u64) -> Result<(), Short> {
        for (head, amount) in uses {
            let asked =
                self.each(*head, |org, line| if org.fits(line, *amount, now) { Ok(()) } else { Err(Short { line, asked: *amount }) });
            if let Err(short) = asked {
                self.ask_all(uses, short, now);
                return Err(short);
            }
        }
        Ok(())
    }

    /// Where one counter lacks leased units, the others are asked as well, so that all that is missing is leased at once.
    #[cold]
    fn ask_all(&mut self, uses: &[(u32, u64)], short: Short, now: u64) {
        if !self.lease_short(self.line(short.line), short.asked, now) {
            return;
        }
        for (head, amount) in uses {
            let _: Result<(), ()> = self.each(*head, |org, line| {
                org.fits(line, *amount, now);
                Ok(())
            });
        }
    }

    /// Charges without asking, for what has happened already.
    #[inline]
    pub(super) fn charge(&mut self, head: u32, amount: u64, now: u64) {
        let _: Result<(), ()> = self.each(head, |org, line| {
            org.add(line, amount, now);
            Ok(())
        });
    }

    /// Visits every counter of a line.
    #[inline]
    pub(super) fn each<E>(&mut self, head: u32, mut visit: impl FnMut(&mut Self, u32) -> Result<(), E>) -> Result<(), E> {
        let mut number = head;
        while number != NONE {
            let line = self.line(number);
            let (links, here, next): ([u32; LINKS], usize, u32) = (line.links, line.counters().len(), line.next());
            if line.rule != NONE {
                visit(self, number)?;
            }
            for link in links.iter().take(here) {
                visit(self, *link)?;
            }
            number = next;
        }
        Ok(())
    }

    /// The same for one line whose counters all have room without further thought, as almost always; false where one has not, and nothing
    /// was taken then.
    #[inline]
    pub(super) fn take_quickly(&mut self, head: u32, amount: u64, now: u64) -> bool {
        let quick = |line: &Line| {
            now < line.due && line.kind != Kind::Sliding && line.used.checked_add(amount).is_some_and(|used| used <= line.bound)
        };
        let lines = self.lines.as_mut_slice();
        let Some(line) = lines.get(head as usize).filter(|line| quick(line) && usize::from(line.count) <= LINKS) else { return false };
        let (links, count) = (line.links, usize::from(line.count));
        // Counted to the most there can be, so that each place has code of its own: the processor learns place by place which count the
        // check before this one wrote, and goes on to the next check while it still waits for this one's line.
        for (place, link) in links.iter().enumerate() {
            if place < count && !lines.get(*link as usize).is_some_and(quick) {
                return false;
            }
        }
        // A line that only leads to others has no limit, and its count no reader.
        if let Some(line) = lines.get_mut(head as usize) {
            line.used += amount;
        }
        for (place, link) in links.iter().enumerate() {
            if place < count
                && let Some(line) = lines.get_mut(*link as usize)
            {
                line.used += amount;
            }
        }
        true
    }

    /// Takes `amount` on every counter of a line, or nothing at all.
    #[inline]
    pub(super) fn take_one(&mut self, head: u32, amount: u64, now: u64) -> bool {
        self.take_quickly(head, amount, now) || self.take_slowly(head, amount, now)
    }

    #[cold]
    fn take_slowly(&mut self, head: u32, amount: u64, now: u64) -> bool {
        self.take(&[(head, amount)], now).is_ok()
    }

    #[inline]
    fn fits(&mut self, number: u32, amount: u64, now: u64) -> bool {
        let line = self.line(number);
        if now < line.due && line.used.checked_add(amount).is_some_and(|used| used <= line.bound) {
            return true;
        }
        self.fits_slowly(number, amount, now)
    }

    #[cold]
    fn fits_slowly(&mut self, number: u32, amount: u64, now: u64) -> bool {
        let Some(installed) = self.rule(self.line(number)).cloned() else { return true };
        if now >= self.line(number).due {
            self.roll(number, &installed, now);
        }
        self.recall(number);
        if installed.rule.overage == Overage::Warn || self.has_room(number, &installed, amount, now) {
            return true;
        }
        self.repin(number, &installed, now) && self.has_room(number, &installed, amount, now)
    }

    fn has_room(&mut self, number: u32, installed: &Installed, amount: u64, now: u64) -> bool {
        let line = self.line(number);
        if installed.kind() == Kind::Rate {
            return rate_room(line.used, installed, self.limit(line, now), now).is_some_and(|room| amount <= room);
        }
        let allowed = self.allowance(line, now);
        let fits = line.used.checked_add(amount).is_some_and(|used| used <= allowed);
        if !fits && self.lease_short(self.line(number), amount, now) {
            self.want(number, amount, now);
        }
        fits
    }

    #[inline]
    pub(super) fn add(&mut self, number: u32, amount: u64, now: u64) {
        let line = self.line_mut(number);
        if matches!(line.kind, Kind::Window | Kind::Held) && now < line.due {
            line.used = line.used.saturating_add(amount);
            if line.used > line.bound {
                self.crossed(number, now);
            }
            return;
        }
        self.add_slowly(number, amount, now);
    }

    #[cold]
    fn add_slowly(&mut self, number: u32, amount: u64, now: u64) {
        let Some(installed) = self.rule(self.line(number)).cloned() else { return };
        if now >= self.line(number).due {
            self.roll(number, &installed, now);
        }
        let line = self.line_mut(number);
        match installed.kind() {
            Kind::Rate => {
                let start = line.used.max(now.saturating_mul(1_000));
                line.used = start.saturating_add(amount.saturating_mul(installed.interval));
                return;
            }
            Kind::Sliding => {
                line.used = line.used.saturating_add(amount);
                let (side, bucket) = (line.side, u64::from(line.window));
                if let Some(units) = self.sides.get_mut(side as usize).and_then(|s| s.buckets.get_mut(ring_index(bucket))) {
                    *units = units.saturating_add(amount);
                }
            }
            Kind::Window | Kind::Held | Kind::Path => line.used = line.used.saturating_add(amount),
        }
        if self.line(number).used > self.line(number).bound {
            self.crossed(number, now);
        }
    }

    /// Where in its time a counter stands, for a later `give_back`: its window, for rates the theoretical arrival time.
    #[inline]
    pub(super) fn mark(&self, line: &Line) -> u64 {
        if line.kind == Kind::Rate {
            line.used.saturating_add(self.side(line).map_or(0, |side| side.refunded))
        } else {
            u64::from(line.window)
        }
    }

    /// Gives back what was taken at `mark`; what was taken in a window that is over stays there, and so does what a rate has let drain since.
    pub(super) fn give_back(&mut self, number: u32, mark: u64, amount: u64, now: u64) {
        let Some(installed) = self.rule(self.line(number)).cloned() else { return };
        match installed.kind() {
            Kind::Rate => {
                let Some(side) = self.side_of(number) else { return };
                let undrained = mark.saturating_sub(side.refunded).saturating_sub(now.saturating_mul(1_000));
                let given = amount.saturating_mul(installed.interval).min(undrained);
                side.refunded = side.refunded.saturating_add(given);
                let line = self.line_mut(number);
                line.used = line.used.saturating_sub(given);
            }
            Kind::Sliding => {
                let line = self.line(number);
                let age = line.window.wrapping_sub(mark as u32);
                if u64::from(age) >= RING {
                    return;
                }
                let side = line.side;
                let Some(units) = self.sides.get_mut(side as usize).and_then(|s| s.buckets.get_mut(ring_index(mark))) else {
                    return;
                };
                let given = amount.min(*units);
                *units -= given;
                let line = self.line_mut(number);
                line.used = line.used.saturating_sub(given);
            }
            Kind::Window | Kind::Held => {
                let line = self.line_mut(number);
                if u64::from(line.window) == mark {
                    line.used = line.used.saturating_sub(amount);
                }
            }
            Kind::Path => {}
        }
    }

    /// Begins the window that holds `now`, or takes account of a boost or lease that ended.
    pub(super) fn roll(&mut self, number: u32, installed: &Arc<Installed>, now: u64) {
        let first = self.line(number).due == 0;
        match installed.kind() {
            Kind::Rate | Kind::Path => {
                let boost = self.prune_boosts(number, now);
                self.line_mut(number).due = boost;
            }
            Kind::Sliding => self.turn(number, installed, now, first),
            Kind::Window | Kind::Held => {
                let boost = self.prune_boosts(number, now);
                let stored = self.window_end(self.line(number));
                let ended = first || stored <= now;
                // A window that has not ended stays as it is, also where the caller's time lies before it.
                let end = if ended { installed.rule.span.window(now).1 } else { stored };
                let store = installed.rule.share == Share::Store;
                if store {
                    self.side_of(number);
                }
                let line = self.line_mut(number);
                if ended {
                    line.used = 0;
                    line.window = line.window.wrapping_add(1);
                    line.step = 0;
                }
                let side = line.side;
                let mut due = end.min(boost);
                if let Some(side) = self.sides.get_mut(side as usize) {
                    if ended {
                        (side.leased, side.last_lease, side.lease_until, side.used_elsewhere) = (0, 0, 0, 0);
                        (side.dry_until, side.asked) = (0, false);
                    }
                    side.end = end;
                    if store && side.lease_until > now {
                        due = due.min(side.lease_until);
                    }
                }
                self.line_mut(number).due = due;
            }
        }
        self.rebound(number, installed, now);
    }

    /// Moves a sliding window on to the bucket that holds `now`.
    pub(super) fn turn(&mut self, number: u32, installed: &Installed, now: u64, first: bool) {
        let Some(length) = bucket_length(&installed.rule.span) else { return };
        self.prune_boosts(number, now);
        let bucket = now / length;
        let gone = if first { RING } else { bucket.saturating_sub(self.line(number).due / length - 1) };
        let mut used = self.line(number).used;
        let Some(side) = self.side_of(number) else { return };
        side.buckets.resize(RING as usize, 0);
        if gone >= RING {
            side.buckets.fill(0);
            used = 0;
        } else {
            for step in 0..gone {
                if let Some(units) = side.buckets.get_mut(ring_index((bucket - step) & u64::from(u32::MAX))) {
                    used = used.saturating_sub(*units);
                    *units = 0;
                }
            }
        }
        let line = self.line_mut(number);
        if used < line.used {
            line.step = 0;
        }
        line.used = used;
        line.window = bucket as u32;
        line.due = (bucket + 1).saturating_mul(length);
    }

    /// When the present window ends; `due` may be sooner.
    pub(super) fn window_end(&self, line: &Line) -> u64 {
        self.side(line).filter(|side| side.end > 0).map_or(line.due, |side| side.end)
    }

    fn prune_boosts(&mut self, number: u32, now: u64) -> u64 {
        let side = self.line(number).side;
        let Some(side) = self.sides.get_mut(side as usize) else { return NEVER };
        side.boosts.retain(|(_, until)| *until > now);
        side.boosts.iter().map(|(_, until)| *until).min().unwrap_or(NEVER)
    }

    /// The limit with the boosts that hold now; for rates the burst.
    pub(super) fn limit(&self, line: &Line, now: u64) -> u64 {
        let Some(installed) = self.rule(line) else { return NEVER };
        let base = if installed.kind() == Kind::Rate { installed.rule.burst } else { installed.rule.limit };
        let boosts = self.side(line).map_or(0, |side| side.boosts.iter().filter(|(_, until)| *until > now).map(|(units, _)| *units).sum());
        base.saturating_add(boosts)
    }

    /// What may be used here: the limit, or of a shared one what is leased.
    fn allowance(&self, line: &Line, now: u64) -> u64 {
        match self.rule(line) {
            Some(installed) if installed.rule.overage == Overage::Warn => NEVER,
            Some(installed) if installed.rule.share == Share::Store => {
                self.side(line).map_or(0, |side| if side.lease_until > now { side.leased } else { 0 })
            }
            _ => self.limit(line, now),
        }
    }

    /// What is used, in units, as of `now`; of a shared count what all have leased, less what this process has left.
    pub(super) fn used(&self, line: &Line, now: u64) -> u64 {
        match self.rule(line) {
            Some(installed) if installed.kind() == Kind::Rate => {
                line.used.saturating_sub(now.saturating_mul(1_000)).div_ceil(installed.interval.max(1))
            }
            Some(installed) if installed.rule.share == Share::Store => {
                self.side(line).map_or(line.used, |side| side.used_elsewhere.saturating_add(line.used))
            }
            _ => line.used,
        }
    }

    /// Sets the bound to the next notice, or to what is allowed.
    pub(super) fn rebound(&mut self, number: u32, installed: &Installed, now: u64) {
        let line = self.line(number);
        if line.kind == Kind::Rate {
            return;
        }
        let (allowed, limit, used) = (self.allowance(line, now), self.limit(line, now), line.used);
        let rest = installed.rule.soft.iter().skip(usize::from(line.step));
        let next = rest.map(|percent| threshold(limit, *percent)).find(|units| *units > used);
        let mut bound = next.map_or(allowed, |units| allowed.min(units - 1));
        if installed.rule.share == Share::Store {
            // More is asked for when half of the last lease is used, so that nobody has to wait for it.
            let half = self.side(line).map_or(0, |side| side.leased.saturating_sub(side.last_lease / 2));
            if used < half {
                bound = bound.min(half);
            }
        }
        self.line_mut(number).bound = bound;
    }

    #[cold]
    fn crossed(&mut self, number: u32, now: u64) {
        let Some(installed) = self.rule(self.line(number)).cloned() else { return };
        self.recall(number);
        let limit = self.limit(self.line(number), now);
        let step = usize::from(self.line(number).step);
        for percent in installed.rule.soft.iter().skip(step) {
            if threshold(limit, *percent) > self.line(number).used {
                break;
            }
            self.line_mut(number).step += 1;
            self.notify(number, *percent, now);
        }
        if installed.rule.share == Share::Store {
            self.want_early(number, now);
        }
        self.rebound(number, &installed, now);
    }

    /// How long, in microseconds, until `asked` units can fit; none where waiting alone does not help.
    pub(super) fn wait(&self, line: &Line, asked: u64, now: u64) -> Option<u64> {
        let installed = self.rule(line)?;
        let limit = self.limit(line, now);
        if asked > limit {
            return None;
        }
        match installed.kind() {
            Kind::Held | Kind::Path => None,
            Kind::Window => {
                let end = self.window_end(line);
                (end != NEVER).then(|| end.saturating_sub(now))
            }
            Kind::Rate => {
                let full = now.saturating_mul(1_000).saturating_add(limit.saturating_mul(installed.interval));
                let after = line.used.saturating_add(asked.saturating_mul(installed.interval));
                Some(after.saturating_sub(full).div_ceil(1_000))
            }
            Kind::Sliding => {
                let length = bucket_length(&installed.rule.span)?;
                let mut excess = line.used.saturating_add(asked).saturating_sub(limit);
                let side = self.side(line)?;
                for age in (0..RING).rev() {
                    let units = side.buckets.get(ring_index(u64::from(line.window.wrapping_sub(age as u32)))).copied().unwrap_or(0);
                    excess = excess.saturating_sub(units);
                    if excess == 0 {
                        // This bucket leaves when the ring has turned past it.
                        return Some(line.due.saturating_add((RING - 1 - age).saturating_mul(length)).saturating_sub(now));
                    }
                }
                None
            }
        }
    }
}

fn threshold(limit: u64, percent: u8) -> u64 {
    let units = (u128::from(limit) * u128::from(percent)).div_ceil(100);
    u64::try_from(units).unwrap_or(NEVER).max(1)
}

fn rate_room(arrival: u64, installed: &Installed, burst: u64, now: u64) -> Option<u64> {
    let now = now.saturating_mul(1_000);
    let full = now.saturating_add(burst.saturating_mul(installed.interval));
    full.checked_sub(arrival.max(now))?.checked_div(installed.interval)
}

pub(super) const fn bucket_length(span: &Span) -> Option<u64> {
    match span {
        Span::Sliding(length) => Some(length.div_ceil(BUCKETS as u64)),
        _ => None,
    }
}

pub(super) const fn ring_index(bucket: u64) -> usize {
    ((bucket & 0xffff_ffff) % RING) as usize
}
