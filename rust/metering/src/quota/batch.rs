//! Many checks in one call, for those who have them in arrays.

use super::enforcer::QuotaEnforcer;
use super::organisation::Organisation;
use super::organisations::Guarded;
use super::pages::{Large, List};
use creto_enablement_common::{Error, Result, Timestamp, prefetch};
use std::sync::Arc;

/// The lock is left after this many checks, so that single checks get their turn.
const TURN: usize = 1_024;
/// Of organisations with fewer lines than this, a mebibyte of them, nothing is asked for ahead: the processor's cache holds them all.
const NEAR: usize = 16_384;
/// How far ahead of the check the counters are asked for that its line leads to; the line twice as far, the entry that says which line
/// that is, four times.
const AHEAD: usize = 12;

/// Chains of one meter, looked up once, by number: 8 bytes each, on large pages. A program with very many agents finds them sooner here
/// than among as many objects of its own (`Prepared`).
#[derive(Debug)]
pub struct Batch {
    organisations: Vec<Arc<Guarded>>,
    entries: List<(u32, u32)>,
}

/// How much each check takes.
#[derive(Clone, Copy, Debug)]
pub enum Amounts<'a> {
    /// The same for all.
    Each(u64),
    /// One for each.
    List(&'a [u64]),
}

impl Default for Batch {
    fn default() -> Self {
        Self { organisations: Vec::new(), entries: List::new_in(Large) }
    }
}

impl Batch {
    /// Adds a chain; its number counts from 0.
    ///
    /// # Errors
    /// `InvalidInput` for a path or a meter that cannot be.
    pub fn add(&mut self, enforcer: &QuotaEnforcer, path: &[&str], meter: &str) -> Result<u32> {
        let number = u32::try_from(self.entries.len()).map_err(|_| Error::invalid("a batch holds at most 2^32 chains"))?;
        let (guarded, line) = enforcer.guarded_line(path, meter)?;
        let known = self.organisations.iter().rposition(|known| Arc::ptr_eq(known, &guarded));
        let organisation = known.unwrap_or_else(|| {
            self.organisations.push(guarded);
            self.organisations.len() - 1
        });
        self.entries.push((organisation as u32, line));
        Ok(number)
    }

    /// How many chains there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes units for each chain of `which` in turn, and writes 1 where they fit and 0 where not.
    ///
    /// # Errors
    /// `InvalidInput` where the lengths differ or a number is not one of this batch; nothing is taken then.
    pub fn take(&self, which: &[u32], amounts: Amounts<'_>, now: Timestamp, fitted: &mut [u8]) -> Result<()> {
        let amounts_len = if let Amounts::List(list) = amounts { list.len() } else { which.len() };
        if which.len() != fitted.len() || which.len() != amounts_len {
            return Err(Error::invalid(format!("{} chains, {amounts_len} amounts, {} answers", which.len(), fitted.len())));
        }
        let known = self.entries.len();
        if let Some(bad) = which.iter().find(|number| **number as usize >= known) {
            return Err(Error::invalid(format!("chain {bad}: this batch has {known}")));
        }
        let now = now.micros();
        let mut start = 0;
        while let Some((organisation, _)) = which.get(start).and_then(|n| self.entries.get(*n as usize)).copied() {
            let Some(guarded) = self.organisations.get(organisation as usize) else { break };
            let mut org = guarded.lock.lock();
            start = self.run(&mut org, organisation, start, which, amounts, now, fitted);
        }
        Ok(())
    }

    /// Takes units for one chain; false where a quota has no room, or the number is not one of this batch.
    #[inline]
    pub fn take_one(&self, number: u32, amount: u64, now: Timestamp) -> bool {
        let Some((organisation, line)) = self.entries.get(number as usize).copied() else { return false };
        self.organisations.get(organisation as usize).is_some_and(|guarded| guarded.take(line, amount, now.micros()))
    }

    #[inline]
    fn entry(&self, which: &[u32], position: usize) -> Option<&(u32, u32)> {
        which.get(position).and_then(|number| self.entries.get(*number as usize))
    }

    #[inline]
    fn prefetch(&self, org: &Organisation, which: &[u32], position: usize) {
        if let Some(entry) = self.entry(which, position + 4 * AHEAD) {
            prefetch(entry);
        }
        if let Some((_, ahead)) = self.entry(which, position + 2 * AHEAD)
            && let Some(line) = org.lines.get(*ahead as usize)
        {
            prefetch(line);
        }
        if let Some((_, ahead)) = self.entry(which, position + AHEAD) {
            for link in org.line(*ahead).counters() {
                prefetch(org.line(*link));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the inside of one loop, kept apart so that the lock's scope is plain")]
    fn run(
        &self,
        org: &mut Organisation,
        organisation: u32,
        start: usize,
        which: &[u32],
        amounts: Amounts<'_>,
        now: u64,
        fitted: &mut [u8],
    ) -> usize {
        let end = which.len().min(start + TURN);
        let far = org.lines.len() >= NEAR;
        for position in start..end {
            let Some((own, line)) = which.get(position).and_then(|n| self.entries.get(*n as usize)).copied() else { return end };
            if own != organisation {
                return position;
            }
            if far {
                self.prefetch(org, which, position);
            }
            let amount = match amounts {
                Amounts::Each(amount) => amount,
                Amounts::List(list) => list.get(position).copied().unwrap_or(u64::MAX),
            };
            if let Some(answer) = fitted.get_mut(position) {
                *answer = u8::from(org.take_one(line, amount, now));
            }
        }
        end
    }
}
