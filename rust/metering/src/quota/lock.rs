//! A lock for sections of a few dozen nanoseconds: one atomic step to take it, a plain store to leave it.
//!
//! A parking lock pays a second atomic step when it is left, to see whether anyone sleeps; that is a third of a whole check. Who finds
//! this one taken spins a little and then yields, so a holder that lost its core gets it back. Nothing that waits may run inside.
#![expect(unsafe_code, reason = "a lock lends out what it guards, which safe code cannot express")]

use std::cell::UnsafeCell;
use std::hint;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The lock, with what it guards.
#[derive(Debug, Default)]
pub struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the guard is the only way to the value, and at most one exists at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits until it is free, and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
        Guard { lock: self }
    }

    /// Takes it where it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let free = self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then_some(Guard { lock: self })
    }

    #[cold]
    fn wait(&self) {
        let mut tries = 0_u32;
        loop {
            if !self.taken.load(Ordering::Relaxed)
                && self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            tries += 1;
            if tries < 128 {
                hint::spin_loop();
            } else {
                thread::yield_now();
                tries = 64;
            }
        }
    }
}

/// Leaves the lock when it is dropped, also on a panic.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard exists, so no other does; the reference cannot outlive it.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard exists, so no other does, and it is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn four_threads_lose_no_step() {
        let lock = Arc::new(Lock::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || (0..50_000).for_each(|_| *lock.lock() += 1))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*lock.lock(), 200_000);
    }

    #[test]
    fn a_panic_inside_leaves_the_lock_free() {
        let lock = Arc::new(Lock::new(1));
        let other = Arc::clone(&lock);
        let failed = thread::spawn(move || {
            let _guard = other.lock();
            panic!("inside");
        })
        .join();
        assert!(failed.is_err());
        assert_eq!(*lock.lock(), 1);
    }
}
