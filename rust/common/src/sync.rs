//! Locks that serve in a child of fork too: those of the standard library, without their poisoning.
//!
//! Others, as `parking_lot`, keep who waits in a table of the process. A child inherits it together with the threads of its parent that are
//! in it, which it does not have: what is to wake a thread of the child wakes one of those, and the child waits for ever.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{self, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How often a lock that may not be waited for without end is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// A value that one thread has at a time.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A free one.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits for the value. It is as the last thread left it, also where that one panicked.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The value, where no thread has it.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(guard)) => Some(MutexGuard(Some(guard.into_inner()))),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the value, but not longer than this.
    pub fn try_lock_for(&self, most: Duration) -> Option<MutexGuard<'_, T>> {
        let deadline = Instant::now() + most;
        loop {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }

    /// The value of a lock that nobody else can have.
    #[inline]
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The value, until this is dropped.
pub struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    #[expect(clippy::expect_used, reason = "it is away only while `Condvar` waits, which has the guard for itself then")]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("the lock is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    #[expect(clippy::expect_used, reason = "as above")]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the lock is held")
    }
}

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// True where it did.
    pub const fn timed_out(self) -> bool {
        self.0
    }
}

/// Where threads wait for a change of a value. Waking nobody costs no system call.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: sync::Condvar,
    /// How many wait, counted while they have the value: who has changed it since sees each that it has to wake.
    waiting: AtomicUsize,
}

impl Condvar {
    /// One that nobody waits at.
    pub const fn new() -> Self {
        Self { inner: sync::Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// Wakes one thread.
    #[inline]
    pub fn notify_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.inner.notify_one();
        }
    }

    /// Wakes all threads.
    #[inline]
    pub fn notify_all(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.inner.notify_all();
        }
    }

    /// Gives the value away until this thread is woken, which may be without a reason.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.0.take() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            guard.0 = Some(self.inner.wait(held).unwrap_or_else(PoisonError::into_inner));
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The same, for so long at most.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, most: Duration) -> WaitTimeoutResult {
        let Some(held) = guard.0.take() else { return WaitTimeoutResult(true) };
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (held, result) = self.inner.wait_timeout(held, most).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard.0 = Some(held);
        WaitTimeoutResult(result.timed_out())
    }

    /// The same, until then at most.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        self.wait_for(guard, deadline.saturating_duration_since(Instant::now()))
    }
}

/// A value that many threads read, or one changes.
#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A free one.
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// Waits to read.
    #[inline]
    pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits to change.
    #[inline]
    pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn who_waits_is_woken_or_is_told_that_its_time_is_over() {
        let place = Arc::new((Mutex::new(0), Condvar::new()));
        let mut value = place.0.lock();
        assert!(place.0.try_lock().is_none() && place.0.try_lock_for(Duration::from_millis(3)).is_none());
        assert!(place.1.wait_for(&mut value, Duration::from_millis(1)).timed_out());
        let other = std::thread::spawn({
            let place = Arc::clone(&place);
            move || {
                *place.0.lock() += 1;
                place.1.notify_one();
            }
        });
        while *value == 0 {
            place.1.wait(&mut value);
        }
        assert_eq!(*value, 1);
        drop(value);
        assert!(other.join().is_ok() && place.0.try_lock_for(Duration::ZERO).is_some());
    }

    #[test]
    fn a_panic_leaves_the_value_to_the_others() {
        let (value, shared) = (Mutex::new(1), RwLock::new(1));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = (value.lock(), shared.write());
            std::panic::resume_unwind(Box::new("away"));
        }));
        assert!(panicked.is_err());
        assert_eq!(*value.lock(), 1);
        assert_eq!(value.try_lock().map(|value| *value), Some(1));
        assert_eq!(*shared.read(), 1);
    }
}
