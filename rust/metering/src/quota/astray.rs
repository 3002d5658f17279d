//! What is counted lies far ahead of a caller's time: which of the two is wrong, and what follows.

use super::consume::{bucket_length, ring_index};
use super::counter::{Installed, Kind};
use super::organisation::Organisation;
use super::span::NEVER;
use std::sync::Arc;

/// How far, in microseconds, two readings of clocks that are right can differ.
const ASTRAY: u64 = 60_000_000;

impl Organisation {
    /// A caller's time lies far behind what is counted: either it was read long ago, or the clock was once far ahead. The clock itself,
    /// read here under the lock, tells which. An old reading changes nothing but what the clock would change, since a window that is moved
    /// back would be opened anew by the next caller whose reading is right; a counter left in the future is brought back to the clock's
    /// time, and what is counted stays counted. True where a new window began.
    pub(super) fn repin(&mut self, number: u32, installed: &Arc<Installed>, now: u64) -> bool {
        if !self.astray(number, installed, now) {
            return false;
        }
        let clock = self.time.0.now().micros().max(now);
        if !self.astray(number, installed, clock) {
            let rolls = installed.kind() == Kind::Window && clock >= self.line(number).due;
            if rolls {
                self.roll(number, installed, clock);
            }
            return rolls;
        }
        match installed.kind() {
            Kind::Rate => {
                let most = self.latest_arrival(number, installed, clock);
                self.line_mut(number).used = most;
            }
            Kind::Sliding => {
                let used = self.line(number).used;
                self.turn(number, installed, clock, true);
                let line = self.line_mut(number);
                line.used = used;
                let (side, bucket) = (line.side, u64::from(line.window));
                if let Some(units) = self.sides.get_mut(side as usize).and_then(|s| s.buckets.get_mut(ring_index(bucket))) {
                    *units = used;
                }
                self.rebound(number, installed, clock);
            }
            Kind::Window => {
                let (_, end) = installed.rule.span.window(clock);
                let line = self.line_mut(number);
                line.due = end;
                let side = line.side;
                if let Some(side) = self.sides.get_mut(side as usize) {
                    side.end = end;
                }
            }
            Kind::Held | Kind::Path => {}
        }
        false
    }

    /// True where what a counter has lies further ahead of a time than clocks differ.
    fn astray(&self, number: u32, installed: &Installed, time: u64) -> bool {
        let line = self.line(number);
        match installed.kind() {
            Kind::Rate => line.used > self.latest_arrival(number, installed, time).saturating_add(ASTRAY * 1_000),
            Kind::Sliding => {
                bucket_length(&installed.rule.span).is_some_and(|length| line.due > time.saturating_add(length).saturating_add(ASTRAY))
            }
            Kind::Window => {
                let stored = self.window_end(line);
                let (_, end) = installed.rule.span.window(time);
                stored != NEVER && installed.rule.span.window(stored - 1).0 > end.saturating_add(ASTRAY)
            }
            Kind::Held | Kind::Path => false,
        }
    }

    /// The theoretical arrival time, in nanoseconds, of a rate whose whole burst is taken at `time`.
    fn latest_arrival(&self, number: u32, installed: &Installed, time: u64) -> u64 {
        time.saturating_mul(1_000).saturating_add(self.limit(self.line(number), time).saturating_mul(installed.interval))
    }
}
