//! The folder's hybrid logical clock: one mapped word, advanced by fetch-max, shared by all processes.
//!
//! Every timestamp is later than all given or observed before it, in any thread or process of the folder, across restart, fork, power loss
//! and steps of the wall clock. Source: Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014).

use crate::Timestamp;
use crate::page::Page;
use crate::source::{self, Source};
use core::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How far ahead of the latest timestamp the durable bound is put (microseconds).
const AHEAD: u64 = 10_000_000;
/// A step of the wall clock beyond this, either way, is an alarm; a word from elsewhere that is further ahead is refused (microseconds).
const BOUND: u64 = 60_000_000;
/// Behind by more than this, the wall clock no longer drives the clock (microseconds).
const BEHIND: u64 = 1_000;

const fn words(micros: u64) -> u64 {
    micros << Timestamp::LOGICAL_BITS
}

/// Steps of the wall clock beyond the bound, as all processes of the folder saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Jumps {
    /// How many.
    pub count: u64,
    /// The last one in microseconds; forward is positive.
    pub last_micros: i64,
    /// How many timestamps from elsewhere were refused for being too far ahead.
    pub refused: u64,
}

/// A timestamp from elsewhere is too far ahead to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead {
    /// By how much.
    pub by: Duration,
}

impl fmt::Display for TooFarAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the timestamp is {:.1} s ahead of this machine's clock; at most {} s are taken over",
            self.by.as_secs_f64(),
            BOUND / 1_000_000
        )
    }
}

impl std::error::Error for TooFarAhead {}

/// The clock of one state folder.
///
/// ```
/// let path = std::env::temp_dir().join(format!("creto-clock-example-{}", std::process::id()));
/// let clock = creto_consensus::HybridLogicalClock::open(&path)?;
/// let (first, second) = (clock.now(), clock.now());
/// assert!(second > first);
/// # std::fs::remove_file(path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct HybridLogicalClock {
    page: Page,
    source: Source,
    extending: AtomicBool,
}

impl HybridLogicalClock {
    /// Opens the clock file, made if it is missing.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` where the file is something else.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_source(path, Source::MACHINE, source::boot_id())
    }

    fn with_source(path: &Path, source: Source, boot: u64) -> io::Result<Self> {
        let wall = (source.wall)();
        let page = Page::open(path, |words_, new| {
            let relaxed = Ordering::Relaxed;
            let rebooted = new || boot == 0 || words_.boot.load(relaxed) != boot;
            if rebooted {
                // The word may have been lost with the power; the bound was on disk before any timestamp came near it.
                let last = words_.word.load(relaxed).max(words_.mark.load(relaxed)).max(words(wall));
                words_.word.store(last, relaxed);
                words_.slew.store(0, relaxed);
                words_.base.store(wall.wrapping_sub((source.since_boot)()), relaxed);
                words_.boot.store(boot, relaxed);
            }
            let bound = words_.word.load(relaxed).saturating_add(words(AHEAD));
            words_.mark.fetch_max(bound, relaxed);
            if rebooted {
                // `Page::open` syncs before anyone reads a timestamp.
                words_.synced.store(bound, relaxed);
            }
        })?;
        Ok(Self { page, source, extending: AtomicBool::new(false) })
    }

    /// A timestamp later than every one given or observed before.
    pub fn now(&self) -> Timestamp {
        let shared = self.page.words();
        let physical = words((self.source.wall)());
        // Most calls come within the microsecond of the one before: a look first spares them one of two locked instructions.
        let mut previous = shared.word.load(Ordering::Acquire);
        if previous < physical {
            previous = shared.word.fetch_max(physical, Ordering::AcqRel);
        }
        let given = if previous < physical {
            if physical - previous > words(BOUND) {
                self.look_for_jump();
            }
            physical
        } else {
            if previous - physical > words(BEHIND) {
                self.go_on_without_wall(previous, physical);
            }
            shared.word.fetch_add(1, Ordering::AcqRel) + 1
        };
        if given.saturating_add(words(AHEAD / 2)) > shared.synced.load(Ordering::Acquire) {
            self.extend(given);
        }
        Timestamp::from_word(given)
    }

    /// Takes over a later timestamp that came from elsewhere: all that is given from now on is later than it.
    ///
    /// # Errors
    /// `TooFarAhead` where it is more than a minute ahead of both the wall clock and this clock; nothing is taken over then.
    pub fn observe(&self, seen: Timestamp) -> Result<(), TooFarAhead> {
        let shared = self.page.words();
        let word = shared.word.load(Ordering::Acquire);
        if seen.word() <= word {
            return Ok(());
        }
        let known = Timestamp::from_word(word).micros().max((self.source.wall)());
        if seen.micros() > known.saturating_add(BOUND) {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooFarAhead { by: Duration::from_micros(seen.micros() - known) });
        }
        shared.word.fetch_max(seen.word(), Ordering::AcqRel);
        Ok(())
    }

    /// Steps of the wall clock beyond a minute, and timestamps refused; the layer raises the alarm when a count grows.
    pub fn jumps(&self) -> Jumps {
        let shared = self.page.words();
        Jumps {
            count: shared.jumps.load(Ordering::Relaxed),
            last_micros: shared.last_jump.load(Ordering::Relaxed).cast_signed(),
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }

    /// How far the clock is ahead of the wall clock at this moment: the part of its uncertainty that it knows of.
    pub fn ahead(&self) -> Duration {
        let last = Timestamp::from_word(self.page.words().word.load(Ordering::Acquire)).micros();
        Duration::from_micros(last.saturating_sub((self.source.wall)()))
    }

    /// The wall clock leapt forward, or nobody asked for a while: time since boot tells which.
    #[cold]
    fn look_for_jump(&self) {
        self.compare_with_boot();
    }

    #[cold]
    fn compare_with_boot(&self) {
        let shared = self.page.words();
        let base = (self.source.wall)().wrapping_sub((self.source.since_boot)());
        let before = shared.base.swap(base, Ordering::AcqRel);
        let step = base.wrapping_sub(before).cast_signed();
        if step.unsigned_abs() > BOUND {
            shared.last_jump.store(step.cast_unsigned(), Ordering::Relaxed);
            shared.jumps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The wall clock is behind: time goes on at half its pace, so that nothing that waits for a window waits for ever, and the wall clock
    /// catches up.
    #[cold]
    fn go_on_without_wall(&self, previous: u64, physical: u64) {
        let shared = self.page.words();
        if previous - physical > words(BOUND) {
            self.compare_with_boot();
        }
        let half = (self.source.since_boot)() / 2;
        let last = Timestamp::from_word(previous).micros();
        let anchor = shared.slew.load(Ordering::Acquire);
        let reached = anchor + half;
        if anchor == 0 || last > reached + BEHIND {
            shared.slew.fetch_max(last.saturating_sub(half), Ordering::AcqRel);
        } else {
            shared.word.fetch_max(words(reached), Ordering::AcqRel);
        }
    }

    /// Puts the durable bound further ahead; the caller has come near it, or past it.
    #[cold]
    fn extend(&self, given: u64) {
        let shared = self.page.words();
        let beyond = given > shared.synced.load(Ordering::Acquire);
        if self.extending.swap(true, Ordering::AcqRel) && !beyond {
            return;
        }
        let bound = given.saturating_add(words(AHEAD));
        shared.mark.fetch_max(bound, Ordering::AcqRel);
        // A disk that refuses cannot be told to a caller who asks for the time: the bound stays, and the next caller tries again.
        if self.page.sync().is_ok() {
            shared.synced.fetch_max(bound, Ordering::AcqRel);
        }
        self.extending.store(false, Ordering::Release);
    }
}

impl fmt::Debug for HybridLogicalClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HybridLogicalClock").field("ahead", &self.ahead()).field("jumps", &self.jumps()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "hybrid_tests.rs"]
mod tests;
