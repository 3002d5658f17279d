//! The queue under interleavings that a scheduler chooses (shuttle): the very files of the crate, over locks that the scheduler knows.
//!
//! A wait that nothing but its net of milliseconds would end counts as a deadlock here; only lingering, which is meant to end by itself, may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

#[path = "../src/commit.rs"]
#[allow(dead_code, missing_docs, reason = "the crate uses all of it")]
mod commit;
#[path = "../src/queue.rs"]
#[allow(dead_code, missing_docs, reason = "the crate uses all of it")]
mod queue;

/// As in the crate.
mod segment {
    pub const fn frame_length(payload: usize) -> u64 {
        payload as u64 + 20
    }
}

/// The form of our locks over shuttle's.
mod sync {
    pub use shuttle::sync::atomic::AtomicU64;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    #[derive(Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    pub struct Guard<'a, T> {
        mutex: &'a Mutex<T>,
        inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            Guard { mutex: self, inner: Some(self.0.lock().unwrap()) }
        }

        pub fn try_lock(&self) -> Option<Guard<'_, T>> {
            self.0.try_lock().ok().map(|inner| Guard { mutex: self, inner: Some(inner) })
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().unwrap()
        }
    }

    #[derive(Default)]
    pub struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub fn wait<T>(&self, guard: &mut Guard<'_, T>) {
            guard.inner = Some(self.0.wait(guard.inner.take().unwrap()).unwrap());
        }

        pub fn wait_for<T>(&self, guard: &mut Guard<'_, T>, most: Duration) {
            if most > Duration::from_millis(5) {
                return self.wait(guard);
            }
            drop(guard.inner.take());
            shuttle::thread::yield_now();
            *guard = guard.mutex.lock();
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

use commit::{Buffers, wait_durable};
use creto_enablement_common::{Error, ErrorKind};
use queue::{Completions, Done, Meta, Queue, Stop};
use shuttle::thread;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What stands for the disk: the payloads in the order in which they were written, and after how many writes it fails.
#[derive(Default)]
struct Disk {
    written: Vec<Vec<u8>>,
    writes: usize,
    fails_at: Option<usize>,
}

/// A ledger without files.
struct Ledger {
    queue: Queue,
    writer: sync::Mutex<Buffers>,
    disk: sync::Mutex<Disk>,
    told: sync::Mutex<Vec<(u64, Option<u64>, bool)>>,
    closed: sync::Mutex<bool>,
}

impl Completions for Ledger {
    fn complete(&self, ended: &[(u64, Option<u64>)], failed: Option<&Error>) {
        self.told.lock().extend(ended.iter().map(|(token, index)| (*token, *index, failed.is_none())));
    }
}

impl Ledger {
    fn new(room: u64, fails_at: Option<usize>) -> Arc<Self> {
        let ledger = Self {
            queue: Queue::default(),
            writer: sync::Mutex::default(),
            disk: sync::Mutex::new(Disk { fails_at, ..Disk::default() }),
            told: sync::Mutex::default(),
            closed: sync::Mutex::default(),
        };
        ledger.queue.add_room(room);
        Arc::new(ledger)
    }

    fn write(&self, buffers: &mut Buffers) {
        buffers.commit(&self.queue, |bytes, metas, mut indexes| {
            let mut disk = self.disk.lock();
            disk.writes += usize::from(!metas.is_empty());
            if disk.fails_at.is_some_and(|at| disk.writes >= at) {
                return Err(Error::internal("input/output error"));
            }
            let (mut rest, mut room) = (bytes, 0);
            for meta in metas {
                let (payload, more) = rest.split_at(meta.length as usize);
                rest = more;
                room += segment::frame_length(payload.len());
                if let Some(indexes) = indexes.as_mut() {
                    indexes.push(Some(disk.written.len() as u64));
                }
                disk.written.push(payload.to_vec());
            }
            drop(disk);
            // As when the next segment has been made.
            self.queue.add_room(room);
            Ok(())
        });
    }

    fn serve(self: &Arc<Self>) -> thread::JoinHandle<()> {
        let ledger = Arc::clone(self);
        thread::spawn(move || {
            while ledger.queue.wait_for_work() {
                ledger.write(&mut ledger.writer.lock());
            }
        })
    }

    fn push(&self, payload: &[u8], done: Option<Done>) -> Result<u64, Error> {
        let meta = Meta { length: payload.len() as u32, once: false, timestamp: 0, id: [0; 16] };
        Ok(self.queue.push(payload, meta, done, true)?.expect("a push that may wait is taken"))
    }

    /// True once the record is on disk; an error where it will never be.
    fn wait(&self, ticket: u64) -> Result<(), Error> {
        let until = Instant::now() + Duration::from_secs(3_600);
        let closed = || *self.closed.lock();
        assert!(wait_durable(&self.queue, &self.writer, ticket, until, closed, |buffers| self.write(buffers))?);
        Ok(())
    }

    fn close(&self, server: thread::JoinHandle<()>) {
        self.queue.stop(Stop { kind: ErrorKind::NotFound, why: "the ledger is closed; open it again".into() });
        self.write(&mut self.writer.lock());
        server.join().unwrap();
        *self.closed.lock() = true;
    }

    fn has(&self, payload: &[u8]) -> bool {
        self.disk.lock().written.iter().any(|written| written == payload)
    }
}

/// Every kind of caller at once: strict ones that may write by themselves, one that is called back, one that never waits.
fn callers(room: u64, fails_at: Option<usize>) {
    let ledger = Ledger::new(room, fails_at);
    let server = ledger.serve();
    let strict: Vec<_> = (0..2_u8)
        .map(|caller| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                for number in 0..2 {
                    let payload = [caller, number];
                    match ledger.push(&payload, None).and_then(|ticket| ledger.wait(ticket)) {
                        // INVARIANT under test: what is acknowledged is on disk.
                        Ok(()) => assert!(ledger.has(&payload)),
                        Err(error) => assert!(fails_at.is_some(), "{error}"),
                    }
                }
            })
        })
        .collect();
    let relaxed = {
        let ledger = Arc::clone(&ledger);
        thread::spawn(move || {
            let to: Arc<dyn Completions> = ledger.clone();
            let called_back = ledger.push(&[9, 0], Some(Done { to: Arc::clone(&to), token: 90 })).is_ok();
            let last = ledger.push(&[9, 1], None);
            if let Ok(ticket) = last {
                ledger.queue.when_durable(ticket, Done { to, token: 91 });
            }
            u8::from(called_back) + u8::from(last.is_ok())
        })
    };
    strict.into_iter().for_each(|caller| caller.join().unwrap());
    let expected = relaxed.join().unwrap();
    ledger.close(server);
    let mut told = ledger.told.lock().clone();
    told.sort_unstable();
    assert_eq!(told.len(), usize::from(expected), "each is told once: {told:?}");
    let disk = ledger.disk.lock();
    for (token, index, durable) in told {
        if durable && token == 90 {
            assert_eq!(disk.written[index.unwrap() as usize], [9, 0]);
        }
        assert!(durable || fails_at.is_some());
    }
    if fails_at.is_none() {
        assert_eq!(disk.written.len(), 6, "each record is written once");
        for caller in [0, 1, 9] {
            let order: Vec<u8> = disk.written.iter().filter(|payload| payload[0] == caller).map(|payload| payload[1]).collect();
            assert_eq!(order, [0, 1], "in the order in which its caller gave them");
        }
    }
}

const RUNS: usize = 3_000;

#[test]
fn whoever_waits_is_woken_and_what_is_acknowledged_is_on_disk() {
    shuttle::check_random(|| callers(1 << 20, None), RUNS);
    shuttle::check_pct(|| callers(1 << 20, None), RUNS, 3);
}

#[test]
fn callers_wait_for_room_and_are_woken_when_there_is_some() {
    shuttle::check_random(|| callers(2 * segment::frame_length(2), None), RUNS);
    shuttle::check_pct(|| callers(segment::frame_length(2), None), RUNS, 3);
}

#[test]
fn a_failed_write_is_told_to_all_who_wait_and_nobody_waits_for_ever() {
    for fails_at in 1..=3 {
        shuttle::check_random(move || callers(2 * segment::frame_length(2), Some(fails_at)), RUNS / 3);
        shuttle::check_pct(move || callers(1 << 20, Some(fails_at)), RUNS / 3, 3);
    }
}
