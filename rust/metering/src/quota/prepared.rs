//! A chain looked up once, with its meters or without.

use super::counter::NONE;
use super::enforcer::{Uses, look_up, reserve, take};
use super::organisations::Guarded;
use super::span::NEVER;
use creto_enablement_common::ports::{QuotaPath, ReservationId};
use creto_enablement_common::{Error, Result, Timestamp, Usage};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// A chain and its meters, looked up once.
#[derive(Clone, Debug)]
pub struct Prepared {
    organisation: Arc<Guarded>,
    chain: u32,
    /// The line of the first meter; kept small and flat, since programs hold one for each of a million agents.
    first: u32,
    rest: Box<[u32]>,
}

impl Prepared {
    pub(super) fn new(organisation: Arc<Guarded>, chain: u32, lines: SmallVec<[u32; 4]>) -> Self {
        let first = lines.first().copied().unwrap_or(NONE);
        Self { organisation, chain, first, rest: lines.get(1..).unwrap_or_default().into() }
    }

    fn lines(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.first).filter(|line| *line != NONE).chain(self.rest.iter().copied())
    }

    /// Takes `amount` of the first meter on every quota of the chain; false where one has no room (`explain` says which).
    #[inline]
    pub fn take(&self, amount: u64, now: Timestamp) -> bool {
        self.first != NONE && self.organisation.take(self.first, amount, now.micros())
    }

    /// Takes one amount for each meter, or says which quota has no room.
    ///
    /// # Errors
    /// `QuotaExceeded`, or `InvalidInput` where the amounts are not as many as the meters.
    pub fn consume(&self, amounts: &[u64], now: Timestamp) -> Result<()> {
        let uses = self.uses(amounts)?;
        take(&mut self.organisation.lock.lock(), &uses, now.micros()).map_err(Error::from)
    }

    /// Holds one amount for each meter until `until`, or says which quota has no room.
    ///
    /// # Errors
    /// `QuotaExceeded`, or `InvalidInput` where the amounts are not as many as the meters.
    pub fn reserve(&self, amounts: &[u64], now: Timestamp, hold: Duration) -> Result<ReservationId> {
        let uses = self.uses(amounts)?;
        let hold = u64::try_from(hold.as_micros()).unwrap_or(NEVER);
        reserve(&self.organisation, &mut self.organisation.lock.lock(), self.chain, &uses, now, hold)
    }

    /// Commits what a reservation of this chain holds.
    ///
    /// # Errors
    /// `NotFound` for a number that was never given out.
    pub fn commit_held(&self, id: ReservationId, now: Timestamp) -> Result<()> {
        self.organisation.lock.lock().settle(id.0, None, now.micros())
    }

    fn uses(&self, amounts: &[u64]) -> Result<Uses> {
        let lines = self.lines().count();
        if amounts.len() != lines {
            return Err(Error::invalid(format!("{} amounts for {lines} meters", amounts.len())));
        }
        Ok(self.lines().zip(amounts.iter().copied()).collect())
    }
}

/// A chain looked up once, whose meters are named with each use.
#[derive(Debug)]
pub(super) struct Path {
    /// The chain; of no meters.
    pub(super) prepared: Prepared,
    /// Microseconds after which a reservation gives back what it holds.
    pub(super) hold: u64,
}

impl QuotaPath for Path {
    fn reserve(&self, usage: Usage<'_>, now: Timestamp) -> Result<ReservationId> {
        let Prepared { organisation, chain, .. } = &self.prepared;
        let mut org = organisation.lock.lock();
        let mut uses = Uses::new();
        look_up(&mut org, *chain, usage, &mut uses)?;
        reserve(organisation, &mut org, *chain, &uses, now, self.hold)
    }

    fn commit_held(&self, id: ReservationId, now: Timestamp) -> Result<()> {
        self.prepared.commit_held(id, now)
    }
}
