//! One counter in one cache line, with the way to the counters above it.

use super::rule::QuotaRule;
use super::span::{NEVER, Span};

/// Stands where there is no rule, no side table entry, no line.
pub const NONE: u32 = u32::MAX;

/// How many other counters a line names itself; beyond that the last one names a line that goes on.
pub const LINKS: usize = 5;

/// How many buckets a sliding window has.
pub const BUCKETS: usize = 60;

/// How a line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Counts what was used in the window.
    Window,
    /// The same, in buckets that leave one by one.
    Sliding,
    /// Holds the theoretical arrival time.
    Rate,
    /// Counts what is held.
    Held,
    /// Counts nothing: it only leads to others.
    Path,
}

/// One counter of one node, and the other counters that a use of this chain and meter goes to.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Line {
    /// Units in the window; for rates the theoretical arrival time in nanoseconds.
    pub used: u64,
    /// When the window, a boost or a lease ends, in microseconds: the slow path runs then.
    pub due: u64,
    /// What fits without further thought: the next notice, the limit, or what is leased. INVARIANT: never above the limit.
    pub bound: u64,
    /// Counts windows, so that what is given back goes to the window that it was taken from.
    pub window: u32,
    /// Number of the rule; 2^32-1 where it has none.
    pub rule: u32,
    /// Number in the side table: buckets, boosts, lease.
    pub side: u32,
    /// Number of the name that it counts for.
    pub node: u32,
    /// The other counters.
    pub links: [u32; LINKS],
    /// How many of them; one more than there can be where the last one is no counter, but a line that goes on.
    pub count: u8,
    /// How it counts.
    pub kind: Kind,
    /// How many notices of this window were given.
    pub step: u8,
    /// True where stripes may have units of it.
    pub lent: bool,
}

const _: () = assert!(size_of::<Line>() == 64, "a line is one cache line");

impl Line {
    /// The counters that this line names.
    #[inline]
    pub fn counters(&self) -> &[u32] {
        let here = if usize::from(self.count) > LINKS { LINKS - 1 } else { usize::from(self.count) };
        self.links.get(..here).unwrap_or_default()
    }

    /// The line that goes on, or none.
    #[inline]
    pub fn next(&self) -> u32 {
        if usize::from(self.count) > LINKS { self.links.last().copied().unwrap_or(NONE) } else { NONE }
    }

    /// A line that leads to others and counts without a limit.
    pub fn path(node: u32) -> Self {
        Self {
            used: 0,
            due: NEVER,
            bound: NEVER,
            window: 0,
            rule: NONE,
            side: NONE,
            node,
            links: [NONE; LINKS],
            count: 0,
            kind: Kind::Path,
            step: 0,
            lent: false,
        }
    }
}

/// What only some counters have.
#[derive(Debug, Default)]
pub struct Side {
    /// Units by bucket, for sliding windows; the newest at `window % (BUCKETS + 1)`.
    pub buckets: Vec<u64>,
    /// Extra units, each until a time.
    pub boosts: Vec<(u64, u64)>,
    /// Units leased for the present window.
    pub leased: u64,
    /// How many of them came last.
    pub last_lease: u64,
    /// When the lease ends.
    pub lease_until: u64,
    /// Until when the authority's word holds that it has no more.
    pub dry_until: u64,
    /// End of the present window, where `due` may be sooner.
    pub end: u64,
    /// What the authority said is used by all together, for texts.
    pub used_elsewhere: u64,
    /// How many units the largest act needs that did not fit.
    pub wanted: u64,
    /// Nanoseconds given back to a rate, ever: what was taken before a return stands that much nearer than it did.
    pub refunded: u64,
    /// True while a request for more is on its way.
    pub asked: bool,
}

/// A rule, with what the hot path needs worked out.
#[derive(Debug)]
pub struct Installed {
    /// The rule.
    pub rule: QuotaRule,
    /// False once a later set left it out.
    pub live: bool,
    /// Nanoseconds of one unit, for rates, rounded up: a rate is never exceeded.
    pub interval: u64,
}

impl Installed {
    /// Works out the interval.
    pub fn new(rule: QuotaRule) -> Self {
        let interval = match rule.span {
            Span::Rate(length) => length.saturating_mul(1_000).div_ceil(rule.limit.max(1)),
            _ => 0,
        };
        Self { rule, live: true, interval }
    }

    /// How its lines count.
    pub const fn kind(&self) -> Kind {
        match self.rule.span {
            Span::Sliding(_) => Kind::Sliding,
            Span::Rate(_) => Kind::Rate,
            Span::Held => Kind::Held,
            _ => Kind::Window,
        }
    }
}
