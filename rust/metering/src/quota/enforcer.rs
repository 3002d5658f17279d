//! The enforcer: organisations by name, each behind its own lock.

use super::counter::Installed;
use super::install::{Boost, merge};
use super::lease::{LeaseGrant, LeaseNeed};
use super::organisation::{Organisation, Time, Waker};
use super::organisations::{Guarded, Organisations};
use super::prepared::{Path, Prepared};
use super::refusal::{Notice, Refusal};
use super::replay::{Counter, ReplayRecord};
use super::reservation::split;
use super::rule::QuotaRule;
use super::span::NEVER;
use creto_consensus::consensus_timestamp;
use creto_enablement_common::ports::{self, Clock, ReservationId};
use creto_enablement_common::sync::Mutex;
use creto_enablement_common::{Error, ErrorKind, Result, Timestamp, Usage};
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) type Uses = SmallVec<[(u32, u64); 4]>;

/// The process's own clock: that of the folder it opened, else the wall clock.
struct ProcessClock;

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        consensus_timestamp()
    }

    fn observe(&self, _: Timestamp) {}
}

/// Counts before the act, along the whole path, on all quotas or on none. Cheap to share: put it in an `Arc`.
#[derive(Debug)]
pub struct QuotaEnforcer {
    organisations: Organisations,
    rules: Mutex<Vec<Arc<Installed>>>,
    boosts: Mutex<Vec<Boost>>,
    hold: u64,
    waker: Waker,
    time: Time,
    /// True where some rule needs a clock finer than a few milliseconds.
    fine: AtomicBool,
}

impl Guarded {
    /// Takes `amount` on every counter of a line: from this thread's stripe where several threads meet here, else from the counters.
    #[inline]
    pub(super) fn take(&self, line: u32, amount: u64, now: u64) -> bool {
        if self.stripes.used() {
            return self.take_striped(line, amount, now);
        }
        let mut org = self.lock.try_lock().unwrap_or_else(|| {
            self.stripes.meet();
            self.lock.lock()
        });
        org.take_one(line, amount, now) || org.expired_room(line, amount, now)
    }

    #[inline]
    fn take_striped(&self, line: u32, amount: u64, now: u64) -> bool {
        self.stripes.own().is_some_and(|mut stripe| stripe.take(line, amount, now)) || self.take_lent(line, amount, now)
    }

    #[cold]
    fn take_lent(&self, line: u32, amount: u64, now: u64) -> bool {
        let mut org = self.lock.lock();
        org.lend(&self.stripes, line, amount, now).is_some() || org.take_one(line, amount, now) || org.expired_room(line, amount, now)
    }
}

impl QuotaEnforcer {
    /// An enforcer of these rules; a reservation that nobody settles within `hold` gives back what it holds.
    pub fn new(rules: Vec<QuotaRule>, hold: Duration) -> Self {
        Self::with_clock(rules, hold, Arc::new(ProcessClock))
    }

    /// The same, with the clock that decides where a caller's reading lies far behind what is counted: the reading is old, or the clock
    /// was once far ahead.
    pub fn with_clock(rules: Vec<QuotaRule>, hold: Duration, clock: Arc<dyn Clock>) -> Self {
        let fine = AtomicBool::new(rules.iter().any(|rule| rule.span.fine()));
        Self {
            organisations: Organisations::default(),
            rules: Mutex::new(merge(&[], rules)),
            boosts: Mutex::default(),
            hold: u64::try_from(hold.as_micros()).unwrap_or(NEVER),
            waker: Waker::default(),
            time: Time(clock),
            fine,
        }
    }

    pub(super) fn organisation(&self, name: &str) -> Result<Arc<Guarded>> {
        if let Some(found) = self.organisations.share(name) {
            return Ok(found);
        }
        if name.is_empty() {
            return Err(Error::invalid("a quota path begins with the organisation's name, which is empty"));
        }
        // Whoever changes rules or boosts holds this lock too: none of them passes a new organisation by, and none meets it twice.
        let rules = self.rules.lock();
        if let Some(found) = self.organisations.share(name) {
            return Ok(found);
        }
        let mut inner = Organisation::new(rules.clone(), self.waker.clone(), self.time.clone());
        for boost in self.boosts.lock().iter().filter(|boost| boost.reaches(name)) {
            inner.boost(boost, 0);
        }
        self.organisations.add(name, inner)
    }

    fn of_hold<T>(&self, id: ReservationId, work: impl FnOnce(&mut Organisation) -> Result<T>) -> Result<T> {
        let (_, _, organisation) = split(id.0);
        let found = self.organisations.at(organisation);
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound).with_context(format!("reservation {}", id.0)))?;
        work(&mut found.lock.lock())
    }

    fn each(&self, mut visit: impl FnMut(&str, &mut Organisation)) {
        for guarded in self.organisations.list() {
            visit(&guarded.name, &mut guarded.lock.lock());
        }
    }

    fn with<T>(&self, path: &[&str], work: impl FnOnce(&Guarded, &mut Organisation, u32) -> Result<T>) -> Result<T> {
        let name = path.first().copied().unwrap_or_default();
        let made;
        let guarded = match self.organisations.find(name) {
            Some(found) => found,
            None => {
                made = self.organisation(name)?;
                &made
            }
        };
        let mut inner = guarded.lock.lock();
        let chain = inner.chain(path)?;
        work(guarded, &mut inner, chain)
    }

    /// Takes `usage` on every quota along `path`, for good; or says which one has no room.
    ///
    /// # Errors
    /// `QuotaExceeded`, naming the quota, or `InvalidInput`.
    pub fn consume(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<()> {
        let now = now.micros();
        self.with(path, |_, org, chain| {
            let mut uses = Uses::new();
            look_up(org, chain, usage, &mut uses)?;
            take(org, &uses, now).map_err(Error::from)
        })
    }

    /// Why `usage` would not fit, if it would not; what would be refused first, and nothing is taken.
    ///
    /// # Errors
    /// `InvalidInput` for a path or a meter that cannot be.
    pub fn explain(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<Option<Refusal>> {
        let now = now.micros();
        self.with(path, |_, org, chain| {
            let mut uses = Uses::new();
            look_up(org, chain, usage, &mut uses)?;
            Ok(org.ask(&uses, now).err().map(|short| org.refuse(short.line, short.asked, now)))
        })
    }

    /// Looks a path and its meters up once, for many uses.
    ///
    /// # Errors
    /// `InvalidInput` for a path or a meter that cannot be.
    pub fn prepare(&self, path: &[&str], meters: &[&str]) -> Result<Prepared> {
        let organisation = self.organisation(path.first().copied().unwrap_or_default())?;
        let (chain, lines) = {
            let mut inner = organisation.lock.lock();
            let chain = inner.chain(path)?;
            let lines: SmallVec<[u32; 4]> = meters.iter().map(|meter| inner.line_for(chain, meter)).collect::<Result<_>>()?;
            if let Some((_, twice)) = lines.iter().zip(meters).enumerate().find(|(i, (line, _))| lines.iter().take(*i).any(|l| l == *line))
            {
                return Err(Error::invalid(format!("meter `{}` stands twice in what is prepared", twice.1)));
            }
            (chain, lines)
        };
        Ok(Prepared::new(organisation, chain, lines))
    }

    pub(super) fn guarded_line(&self, path: &[&str], meter: &str) -> Result<(Arc<Guarded>, u32)> {
        let organisation = self.organisation(path.first().copied().unwrap_or_default())?;
        let line = {
            let mut inner = organisation.lock.lock();
            let chain = inner.chain(path)?;
            inner.line_for(chain, meter)?
        };
        Ok((organisation, line))
    }

    /// Commits exactly what was reserved.
    ///
    /// # Errors
    /// `NotFound` for a number that was never given out.
    pub fn commit_held(&self, id: ReservationId, now: Timestamp) -> Result<()> {
        self.of_hold(id, |org| org.settle(id.0, None, now.micros()))
    }

    /// Installs another set of rules; counts go on where the scope, meter and window are the same.
    pub fn install(&self, rules: Vec<QuotaRule>, now: Timestamp) {
        let mut current = self.rules.lock();
        self.fine.store(rules.iter().any(|rule| rule.span.fine()), Ordering::Relaxed);
        *current = merge(&current, rules);
        self.each(|_, org| org.install(&current, now.micros()));
    }

    /// True where a clock of a few milliseconds is fine enough: no window is shorter than a second, and no quota is a rate.
    #[inline]
    pub fn coarse(&self) -> bool {
        !self.fine.load(Ordering::Relaxed)
    }

    /// The rules in force.
    pub fn rules(&self) -> Vec<QuotaRule> {
        self.rules.lock().iter().filter(|installed| installed.live).map(|installed| installed.rule.clone()).collect()
    }

    /// Allows one name more, for a time; how many counters were raised.
    ///
    /// # Errors
    /// `InvalidInput` where the scope names nobody, no rule is for it, or the time is over.
    pub fn boost(&self, boost: Boost, now: Timestamp) -> Result<usize> {
        let Some(name) = boost.scope.name.as_deref() else {
            return Err(Error::invalid(format!("boost of `{}`: name one, as in `team:research`", boost.scope)));
        };
        if boost.until <= now.micros() {
            return Err(Error::invalid("boost: its end lies in the past"));
        }
        let rules = self.rules.lock();
        let covers = |rule: &QuotaRule| rule.meter == boost.meter && rule.scope.covers(boost.scope.level, name);
        if !rules.iter().any(|installed| installed.live && covers(&installed.rule)) {
            return Err(Error::invalid(format!("boost of `{}`: no quota of `{}` lies on it", boost.scope, boost.meter)));
        }
        self.boosts.lock().push(boost.clone());
        let mut raised = 0;
        self.each(|name, org| {
            if boost.reaches(name) {
                raised += org.boost(&boost, now.micros());
            }
        });
        drop(rules);
        Ok(raised)
    }

    /// Every counter, as of `now`.
    pub fn counters(&self, now: Timestamp) -> Vec<Counter> {
        let mut found = Vec::new();
        self.each(|name, org| org.counters(name, now.micros(), &mut found));
        found
    }

    /// How long a reservation is held before it gives back what it holds.
    pub fn hold(&self) -> Duration {
        Duration::from_micros(self.hold)
    }

    /// How many reservations are open.
    pub fn open_reservations(&self) -> usize {
        let mut open = 0;
        self.each(|_, org| open += org.open_holds());
        open
    }

    /// Gives back what overdue reservations hold, also where nobody is refused.
    pub fn expire(&self, now: Timestamp) {
        self.each(|_, org| {
            org.expire(now.micros());
        });
    }

    /// Takes the notices given since the last call.
    pub fn notices(&self) -> Vec<Notice> {
        let mut found = Vec::new();
        self.each(|_, org| found.append(&mut org.notices));
        found
    }

    /// Counts what records of the ledger say was used, each act once; how many were counted.
    ///
    /// # Errors
    /// `InvalidInput` for a path that cannot be.
    pub fn replay<'a>(&self, records: impl IntoIterator<Item = ReplayRecord<'a>>) -> Result<usize> {
        let mut seen: HashSet<[u8; 16], RandomState> = HashSet::default();
        let mut counted = 0;
        for record in records {
            if seen.insert(record.act) {
                self.organisation(record.path.first().copied().unwrap_or_default())?.lock.lock().replay(&record)?;
                counted += 1;
            }
        }
        Ok(counted)
    }

    /// What has to be leased, since the last call.
    pub fn lease_needs(&self, now: Timestamp) -> Vec<LeaseNeed> {
        let mut found = Vec::new();
        self.each(|name, org| org.needs(name, now.micros(), &mut found));
        found
    }

    /// Every lease held, with what was used of it.
    pub fn leases(&self, now: Timestamp) -> Vec<LeaseNeed> {
        let mut found = Vec::new();
        self.each(|name, org| org.leases(name, now.micros(), &mut found));
        found
    }

    /// Calls `wake`, which must not wait, whenever units are wanted; the first call counts. False where there was one before.
    pub fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        self.waker.0.set(Box::new(wake)).is_ok()
    }

    /// Takes over units that the authority granted; false where they have to go back.
    ///
    /// # Errors
    /// `InvalidInput` for an organisation that cannot be.
    pub fn grant(&self, grant: &LeaseGrant<'_>, now: Timestamp) -> Result<bool> {
        Ok(self.organisation(grant.organisation)?.lock.lock().grant(grant, now.micros()))
    }

    /// Gives up what is leased and not used, for the authority; how many units.
    ///
    /// # Errors
    /// `InvalidInput` for an organisation that cannot be.
    pub fn surrender(&self, lease: &LeaseNeed, now: Timestamp) -> Result<u64> {
        Ok(self.organisation(&lease.organisation)?.lock.lock().surrender(lease, now.micros()))
    }

    /// To be called in a forked child: leases stay with the parent.
    pub fn forked(&self) {
        self.each(|_, org| org.forget_leases());
    }
}

impl ports::QuotaEnforcer for QuotaEnforcer {
    fn check_quota(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<()> {
        self.explain(path, usage, now)?.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    fn reserve(&self, path: &[&str], usage: Usage<'_>, now: Timestamp) -> Result<ReservationId> {
        self.with(path, |guarded, org, chain| {
            let mut uses = Uses::new();
            look_up(org, chain, usage, &mut uses)?;
            reserve(guarded, org, chain, &uses, now, self.hold)
        })
    }

    fn commit(&self, id: ReservationId, actual: Usage<'_>, now: Timestamp) -> Result<()> {
        self.of_hold(id, |org| org.settle(id.0, Some(actual), now.micros()))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Result<()> {
        self.of_hold(id, |org| org.release(id.0, now.micros()))
    }

    fn path(&self, path: &[&str]) -> Result<Arc<dyn ports::QuotaPath>> {
        Ok(Arc::new(Path { prepared: self.prepare(path, &[])?, hold: self.hold }))
    }
}

/// Puts the line of each meter that is used into `uses`, with how much.
pub(super) fn look_up(org: &mut Organisation, chain: u32, usage: Usage<'_>, uses: &mut Uses) -> Result<()> {
    for (meter, amount) in usage {
        let line = org.line_for(chain, meter)?;
        // A meter that is named twice is asked for once, with the sum: each alone would fit where both together do not.
        match uses.iter_mut().find(|(known, _)| *known == line) {
            Some((_, sum)) => *sum = sum.saturating_add(*amount),
            None => uses.push((line, *amount)),
        }
    }
    Ok(())
}

/// Takes units and holds them for `hold` microseconds, so that they can be settled.
pub(super) fn reserve(
    guarded: &Guarded,
    org: &mut Organisation,
    chain: u32,
    uses: &[(u32, u64)],
    now: Timestamp,
    hold: u64,
) -> Result<ReservationId> {
    let now = now.micros();
    room(org, uses, now)?;
    org.hold(guarded.number, chain, uses, now, now.saturating_add(hold)).map(ReservationId)
}

#[inline]
#[expect(clippy::result_large_err, reason = "a refusal is rare, and a box would cost the caller that keeps it")]
pub(super) fn take(org: &mut Organisation, uses: &[(u32, u64)], now: u64) -> Result<(), Refusal> {
    if let [(head, amount)] = uses
        && org.take_quickly(*head, *amount, now)
    {
        return Ok(());
    }
    room(org, uses, now)?;
    for (head, amount) in uses {
        org.charge(*head, *amount, now);
    }
    Ok(())
}

/// Asks every counter whether it has room.
#[inline]
#[expect(clippy::result_large_err, reason = "as above")]
fn room(org: &mut Organisation, uses: &[(u32, u64)], now: u64) -> Result<(), Refusal> {
    match org.ask(uses, now) {
        Ok(()) => Ok(()),
        Err(short) => {
            // Only what is refused pays for looking whether overdue reservations have room.
            if org.expire(now) && org.ask(uses, now).is_ok() {
                return Ok(());
            }
            Err(org.refuse(short.line, short.asked, now))
        }
    }
}
