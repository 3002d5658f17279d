//! Moves units from counters to stripes, and back.

use super::counter::{Kind, Line, NONE};
use super::organisation::Organisation;
use super::span::NEVER;
use super::stripe::Stripes;
use smallvec::SmallVec;

/// A stripe gets this part of what is left to each, and only where that is worth it.
const PART: u64 = 8;
/// Fewer acts than this are not worth lending for: near a limit, counters decide alone.
const WORTH: u64 = 16;

impl Organisation {
    /// Moves units for several acts like this one to this thread's stripe, and takes the first of them; none where a counter is too near
    /// its limit, or counts in a way that cannot be lent.
    pub(super) fn lend(&mut self, stripes: &Stripes, head: u32, amount: u64, now: u64) -> Option<()> {
        let numbers = self.lines_from(head);
        let mut chunks: SmallVec<[u64; 8]> = SmallVec::new();
        for number in &numbers {
            let line = self.line(*number);
            let chunk = match line.kind {
                Kind::Path => NEVER,
                // A counter whose window is over begins the next one where it is asked alone.
                Kind::Window if now < line.due => line.bound.saturating_sub(line.used) / (PART * stripes.count()),
                _ => return None,
            };
            if chunk / WORTH < amount.max(1) {
                return None;
            }
            chunks.push(chunk);
        }
        let mut stripe = stripes.own()?;
        for (number, chunk) in numbers.iter().zip(chunks) {
            if let Some((window, left)) = stripe.reclaim(*number) {
                self.take_back(*number, window, left);
            }
            let line = self.line_mut(*number);
            if line.kind == Kind::Window {
                line.used = line.used.saturating_add(chunk);
                line.lent = true;
            }
            let lent = Line { used: 0, bound: chunk, ..line.clone() };
            stripe.put(*number, lent);
        }
        stripe.take(head, amount, now).then_some(())
    }

    /// Moves back what stripes have of a counter.
    #[inline]
    pub(super) fn recall(&mut self, number: u32) {
        if self.line(number).lent {
            self.recall_lent(number);
        }
    }

    #[cold]
    fn recall_lent(&mut self, number: u32) {
        self.line_mut(number).lent = false;
        let stripes = std::sync::Arc::clone(&self.stripes);
        stripes.each(|stripe| {
            if let Some((window, left)) = stripe.reclaim(number) {
                self.take_back(number, window, left);
            }
        });
    }

    /// Moves back all that stripes have, and empties them: their lines are made anew from the counters.
    pub(super) fn recall_all(&mut self) {
        let stripes = std::sync::Arc::clone(&self.stripes);
        stripes.each(|stripe| {
            stripe.clear(|number, window, left| {
                self.take_back(number, window, left);
                self.line_mut(number).lent = false;
            });
        });
    }

    fn take_back(&mut self, number: u32, window: u32, left: u64) {
        let line = self.line_mut(number);
        // What was lent of a window that is over ended with it.
        if line.window == window {
            line.used = line.used.saturating_sub(left);
        }
    }

    /// Every line of a chain's use, those that only lead on included.
    fn lines_from(&self, head: u32) -> SmallVec<[u32; 8]> {
        let mut found = SmallVec::new();
        let mut number = head;
        while number != NONE {
            let line = self.line(number);
            found.push(number);
            found.extend_from_slice(line.counters());
            number = line.next();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Prepared, QuotaEnforcer, QuotaRule};
    use creto_enablement_common::Timestamp;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    const AGENTS: [[&str; 4]; 3] = [["acme", "t", "a", "lead"], ["acme", "t", "b", "lead"], ["acme", "u", "c", "lead"]];

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
    }

    /// An enforcer whose organisation has stripes, as after many meetings of two threads.
    fn striped(rules: &str) -> Arc<QuotaEnforcer> {
        let quota = QuotaEnforcer::new(QuotaRule::parse_list(rules).unwrap(), Duration::from_secs(900));
        let guarded = quota.organisation("acme").unwrap();
        (0..100).for_each(|_| guarded.stripes.meet());
        assert!(guarded.stripes.used());
        Arc::new(quota)
    }

    fn prepared(quota: &QuotaEnforcer) -> Vec<Prepared> {
        AGENTS.iter().map(|path| quota.prepare(path, &["m"]).unwrap()).collect()
    }

    fn used(quota: &QuotaEnforcer, name: &str, now: Timestamp) -> u64 {
        quota.counters(now).into_iter().find(|counter| counter.name == name).map_or(0, |counter| counter.used)
    }

    /// Each of `threads` runs `work(thread)` at once; the sum of what they return.
    fn race(threads: u64, work: impl Fn(u64) -> u64 + Send + Sync + 'static) -> u64 {
        let (work, start) = (Arc::new(work), Arc::new(Barrier::new(threads as usize)));
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, start) = (Arc::clone(&work), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum()
    }

    #[test]
    fn threads_on_stripes_get_exactly_the_limit_and_not_one_unit_more_or_less() {
        for limit in [0_u64, 1, 7, 500, 4_999, 40_000] {
            let quota = striped(&format!(
                r#"[{{"scope": "organisation", "meter": "m", "limit": {limit}}}, {{"scope": "agent", "meter": "m", "limit": 1000000}}]"#
            ));
            let racing = Arc::clone(&quota);
            let taken = race(4, move |thread| {
                let chains = prepared(&racing);
                (0..20_000).filter(|_| chains[thread as usize % 3].take(1, at(1))).count() as u64
            });
            assert_eq!(taken, limit.min(80_000));
            assert_eq!(used(&quota, "acme", at(2)), taken);
            assert_eq!(used(&quota, "lead", at(2)), taken);
        }
    }

    #[test]
    fn what_two_threads_take_while_a_third_looks_reserves_and_boosts_adds_up() {
        let quota =
            striped(r#"[{"scope": "organisation", "meter": "m", "limit": 60000}, {"scope": "team", "meter": "m", "limit": 50000}]"#);
        let racing = Arc::clone(&quota);
        let taken = race(3, move |thread| {
            let chains = prepared(&racing);
            if thread < 2 {
                return (0..30_000).map(|i| if chains[thread as usize].take(1 + i % 3, at(1)) { 1 + i % 3 } else { 0 }).sum();
            }
            let mut kept = 0;
            for round in 0..300 {
                assert!(used(&racing, "acme", at(1)) <= 60_000);
                if let Ok(held) = chains[2].reserve(&[5], at(1), Duration::from_secs(60)) {
                    if round % 2 == 0 {
                        chains[2].commit_held(held, at(1)).unwrap();
                        kept += 5;
                    } else {
                        creto_enablement_common::ports::QuotaEnforcer::release(&*racing, held, at(1)).unwrap();
                    }
                }
            }
            kept
        });
        assert_eq!(used(&quota, "acme", at(1)), taken);
        assert!(used(&quota, "t", at(1)) <= 50_000);
    }

    #[test]
    fn windows_that_roll_while_threads_run_each_give_at_most_their_limit() {
        let quota = striped(r#"[{"scope": "organisation", "meter": "m", "limit": 1000, "window": "1s"}]"#);
        let clock = Arc::new(AtomicU64::new(0));
        let taken = race(4, move |thread| {
            let chains = prepared(&quota);
            (0..40_000)
                .filter(|i| {
                    // One thread moves the clock on; the others read it, sometimes late.
                    let now = if thread == 0 {
                        clock.fetch_add(u64::from(i % 800 == 0), Ordering::Relaxed)
                    } else {
                        clock.load(Ordering::Relaxed)
                    };
                    chains[thread as usize % 3].take(1, at(now))
                })
                .count() as u64
        });
        // 50 seconds, 51 windows. One thread alone fills four fifths of each.
        assert!(taken <= 51 * 1_000, "{taken}");
        assert!(taken >= 50 * 800, "{taken}");
    }

    #[test]
    fn a_lower_limit_binds_units_that_stripes_had_already() {
        let rule = |limit: u64| format!(r#"[{{"scope": "organisation", "meter": "m", "limit": {limit}}}]"#);
        let quota = striped(&rule(1_000_000));
        let chains = prepared(&quota);
        assert!(chains[0].take(1, at(1)));
        quota.install(QuotaRule::parse_list(&rule(10)).unwrap(), at(1));
        let taken = (0..100).filter(|_| chains[0].take(1, at(1))).count();
        assert_eq!(taken, 9);
    }

    #[test]
    fn notices_come_once_each_from_stripes_too() {
        let quota = striped(r#"[{"scope": "organisation", "meter": "m", "limit": 10000}]"#);
        let racing = Arc::clone(&quota);
        race(4, move |thread| {
            let chains = prepared(&racing);
            (0..10_000).filter(|_| chains[thread as usize % 3].take(1, at(1))).count() as u64
        });
        let notices: Vec<_> = quota.notices().into_iter().map(|notice| (notice.percent, notice.used)).collect();
        assert_eq!(notices, [(50, 5_000), (80, 8_000), (100, 10_000)]);
    }

    proptest! {
        /// One thread on stripes is told what a thread without them is told, whatever it does.
        #[test]
        fn stripes_change_no_answer(steps in prop::collection::vec((0_usize..3, 0_u64..400, 0_u64..40, 0_u8..10), 1..120), limit in 1_u64..30_000) {
            let rules = format!(
                r#"[{{"scope": "organisation", "meter": "m", "limit": {limit}, "window": "1m"}},
                    {{"scope": "team", "meter": "m", "limit": {limit}}}, {{"scope": "agent", "meter": "m", "limit": 9000, "window": "day"}}]"#
            );
            let (with, without) = (striped(&rules), QuotaEnforcer::new(QuotaRule::parse_list(&rules).unwrap(), Duration::from_secs(900)));
            let (ours, plain) = (prepared(&with), prepared(&without));
            let mut now = 0;
            for (who, amount, seconds, what) in steps {
                now += seconds;
                match what {
                    0 => prop_assert_eq!(with.counters(at(now)), without.counters(at(now))),
                    1 => {
                        let refusal = |quota: &QuotaEnforcer| quota.explain(&AGENTS[who], &[("m", amount)], at(now)).unwrap();
                        prop_assert_eq!(refusal(&with), refusal(&without));
                    }
                    _ => prop_assert_eq!(ours[who].take(amount, at(now)), plain[who].take(amount, at(now))),
                }
            }
            prop_assert_eq!(with.counters(at(now)), without.counters(at(now)));
            prop_assert_eq!(with.notices(), without.notices());
        }
    }
}
