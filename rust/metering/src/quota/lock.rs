//! A lock for sections of a few dozen nanoseconds, biased to the thread that uses it.
//!
//! An atomic step costs a third of a whole check, and nothing that comes after it begins before it is done: neighbouring checks cannot
//! wait for memory at the same time. So a thread that took the lock many times in a row becomes its owner, and enters with plain stores.
//! Another thread takes the bias away first: it says so, has the kernel make every thread of the process pass a memory barrier
//! (`membarrier`), and waits until the owner is not inside (Dice, Moir and Scherer, Quickly Reacquirable Locks, 2003). That costs
//! microseconds, so each time the next owner has to prove itself for twice as long. Without an owner the lock is one atomic step to take
//! and a plain store to leave: a parking lock pays a second step to see whether anyone sleeps.
//!
//! Who finds it taken spins a little and then yields, so a holder that lost its core gets it back. Nothing that waits may run inside.
#![expect(unsafe_code, reason = "a lock lends out what it guards, which safe code cannot express")]

use std::cell::UnsafeCell;
use std::hint;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use std::thread;

/// No thread.
const NOBODY: usize = 0;
/// A thread becomes the owner when it took the lock this often with nobody between, at first.
const PROOF: u32 = 64;
/// How often that number doubles.
const MOST_DOUBLINGS: u32 = 14;

/// The lock, with what it guards.
#[derive(Debug, Default)]
pub struct Lock<T> {
    /// Who enters with plain stores. INVARIANT: written only by who holds `taken`; while somebody else than the owner is inside, nobody.
    owner: AtomicUsize,
    /// True while the owner is inside.
    inside: AtomicBool,
    /// True while anyone else is.
    taken: AtomicBool,
    /// Guarded by `taken`.
    habit: UnsafeCell<Habit>,
    value: UnsafeCell<T>,
}

/// Who took the lock lately.
#[derive(Debug, Default)]
struct Habit {
    last: usize,
    run: u32,
    revoked: u32,
}

// SAFETY: a guard is the only way to the value, and at most one exists at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        Self {
            owner: AtomicUsize::new(NOBODY),
            inside: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            habit: UnsafeCell::new(Habit { last: NOBODY, run: 0, revoked: 0 }),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until it is free, and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.enter().unwrap_or_else(|| self.lock_shared())
    }

    /// Takes it where nobody else is inside.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.enter().or_else(|| self.try_shared())
    }

    /// The owner's way.
    #[inline]
    fn enter(&self) -> Option<Guard<'_, T>> {
        let own = this_thread();
        // One who is inside already may not enter again: it waits for itself below, as with any lock.
        if own == NOBODY || self.owner.load(Ordering::Relaxed) != own || self.inside.load(Ordering::Relaxed) {
            return None;
        }
        self.inside.store(true, Ordering::Relaxed);
        // The processor may still do the load before the store; whoever takes the bias away undoes that with `membarrier`.
        compiler_fence(Ordering::SeqCst);
        if self.owner.load(Ordering::Acquire) == own {
            return Some(Guard { lock: self, own: true });
        }
        self.inside.store(false, Ordering::Release);
        None
    }

    #[inline]
    fn try_shared(&self) -> Option<Guard<'_, T>> {
        let free = self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| self.admit())
    }

    fn lock_shared(&self) -> Guard<'_, T> {
        self.try_shared().unwrap_or_else(|| {
            self.wait();
            self.admit()
        })
    }

    /// With `taken` held: sees to it that no owner is inside, and makes one of a thread that comes again and again.
    #[inline]
    fn admit(&self) -> Guard<'_, T> {
        if self.owner.load(Ordering::Relaxed) != NOBODY {
            self.revoke();
        }
        let own = this_thread();
        // SAFETY: `taken` is held.
        let habit = unsafe { &mut *self.habit.get() };
        if habit.last != own {
            (habit.last, habit.run) = (own, 0);
        }
        habit.run += 1;
        if habit.run < PROOF << habit.revoked.min(MOST_DOUBLINGS) {
            return Guard { lock: self, own: false };
        }
        habit.run = 0;
        if own == NOBODY || !barrier::possible() {
            return Guard { lock: self, own: false };
        }
        self.inside.store(true, Ordering::Relaxed);
        self.owner.store(own, Ordering::Release);
        self.taken.store(false, Ordering::Release);
        Guard { lock: self, own: true }
    }

    #[cold]
    fn revoke(&self) {
        self.owner.store(NOBODY, Ordering::SeqCst);
        // From here on the owner either sees that it is none, or is seen inside.
        barrier::for_all_threads();
        let mut tries = 0;
        while self.inside.load(Ordering::Acquire) {
            pause(&mut tries);
        }
        // SAFETY: `taken` is held.
        let habit = unsafe { &mut *self.habit.get() };
        habit.revoked = habit.revoked.saturating_add(1);
    }

    #[cold]
    fn wait(&self) {
        let mut tries = 0;
        while self.taken.load(Ordering::Relaxed)
            || self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            pause(&mut tries);
        }
    }
}

fn pause(tries: &mut u32) {
    *tries += 1;
    if *tries < 128 {
        hint::spin_loop();
    } else {
        thread::yield_now();
        *tries = 64;
    }
}

/// A number that no other living thread has: where its own memory lies.
#[cfg(target_arch = "x86_64")]
#[inline]
fn this_thread() -> usize {
    let pointer: usize;
    // SAFETY: System V's ABI of x86-64 keeps the thread pointer in the word that it points to.
    unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags)) };
    pointer
}

/// Elsewhere no thread is an owner.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
const fn this_thread() -> usize {
    NOBODY
}

/// Memory barriers for all threads of the process, on behalf of one of them.
mod barrier {
    use rustix::io::Errno;
    use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
    use std::sync::OnceLock;
    use std::time::Duration;

    /// True where the kernel has them.
    pub fn possible() -> bool {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        *POSSIBLE.get_or_init(|| {
            membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED)
                && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
                && membarrier(MembarrierCommand::PrivateExpedited).is_ok()
        })
    }

    pub fn for_all_threads() {
        let mut done = membarrier(MembarrierCommand::PrivateExpedited);
        if done == Err(Errno::PERM) {
            // A forked child may have to register again.
            done = membarrier(MembarrierCommand::RegisterPrivateExpedited).and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
        }
        if done.is_err() {
            // A filter of system calls came after the first use. A store is seen by all after nanoseconds, and at the latest when its
            // thread is interrupted, which the kernel does many times in this while.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Leaves the lock when it is dropped, also on a panic.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    own: bool,
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
        let flag = if self.own { &self.lock.inside } else { &self.lock.taken };
        flag.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    fn owned<T>(lock: &Lock<T>) -> bool {
        lock.owner.load(Ordering::Relaxed) != NOBODY
    }

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
    fn a_thread_alone_becomes_the_owner_and_another_takes_that_away() {
        let lock = Arc::new(Lock::new(0_u64));
        (0..PROOF).for_each(|_| *lock.lock() += 1);
        assert_eq!(owned(&lock), barrier::possible());
        (0..PROOF).for_each(|_| *lock.lock() += 1);
        let other = Arc::clone(&lock);
        thread::spawn(move || {
            *other.try_lock().unwrap() += 1;
            assert!(!owned(&other), "one meeting, no owner");
            (0..PROOF).for_each(|_| *other.lock() += 1);
            assert!(!owned(&other), "the next owner proves itself for longer");
            (0..PROOF).for_each(|_| *other.lock() += 1);
            assert_eq!(owned(&other), barrier::possible());
        })
        .join()
        .unwrap();
        assert_eq!(*lock.lock(), u64::from(4 * PROOF + 1));
    }

    /// The owner writes two words apart from each other, so that whoever enters beside it would see them differ.
    #[test]
    fn an_owner_in_full_run_and_one_who_comes_between_never_meet() {
        let lock = Arc::new(Lock::new([0_u64; 2]));
        let rounds = Arc::new(AtomicU64::new(0));
        let (owner, seen) = (Arc::clone(&lock), Arc::clone(&rounds));
        let running = thread::spawn(move || {
            let mut steps = 0_u64;
            while seen.load(Ordering::Relaxed) < 2_000 {
                let mut pair = owner.lock();
                pair[0] += 1;
                hint::black_box(&mut pair);
                pair[1] += 1;
                steps += 1;
            }
            steps
        });
        let mut taken = 0;
        while rounds.load(Ordering::Relaxed) < 2_000 {
            // So that the other becomes the owner anew each time: as often as at first.
            let mut pair = lock.lock();
            assert_eq!(pair[0], pair[1]);
            pair[0] += 1;
            hint::black_box(&mut pair);
            pair[1] += 1;
            taken += 1;
            if !pair.own {
                // SAFETY: the guard of one who is not the owner holds `taken`.
                unsafe { (*lock.habit.get()).revoked = 0 };
            }
            drop(pair);
            rounds.fetch_add(1, Ordering::Relaxed);
            (0..200).for_each(|_| hint::spin_loop());
        }
        let steps = running.join().unwrap();
        assert_eq!(*lock.lock(), [steps + taken; 2]);
    }

    #[test]
    fn a_panic_inside_leaves_the_lock_free_also_for_its_owner() {
        for before in [0, 2 * PROOF] {
            let lock = Arc::new(Lock::new(1));
            let other = Arc::clone(&lock);
            let failed = thread::spawn(move || {
                (0..before).for_each(|_| drop(other.lock()));
                let _guard = other.lock();
                panic!("inside");
            })
            .join();
            assert!(failed.is_err());
            assert_eq!(*lock.lock(), 1);
        }
    }
}
