//! Where two threads meet at an organisation's lock, each gets a stripe: a small copy of the counters, with units that were moved to it.
//!
//! A stripe's line counts from 0 to what was lent, and ends when the counter's window does; the counter itself has what was lent as used.
//! So nothing overshoots, whoever is first: near a limit, at a notice and for every question about a count, what the stripes have left
//! is moved back, and the counter decides alone. Lock order: the organisation, then one stripe.

use super::counter::{Kind, LINKS, Line, NONE};
use super::lock::{Guard, Lock};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

/// Lines of one page of a stripe.
const PAGE: usize = 64;

/// An organisation gets stripes when its lock was found taken this often.
const MEETINGS: u32 = 64;

type Page = Box<[Line; PAGE]>;

/// One thread's share of an organisation.
#[derive(Debug, Default)]
pub struct Stripe {
    pages: Vec<Option<Page>>,
    /// The lines that were put here.
    present: Vec<u32>,
}

/// A stripe, apart from its neighbours by two cache lines: the processor fetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(Lock<Stripe>);

/// The stripes of an organisation, made when two threads first meet there.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Stripes {
    used: AtomicBool,
    list: OnceLock<Box<[Apart]>>,
    met: AtomicU32,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

impl Stripes {
    /// True once two threads met.
    #[inline]
    pub fn used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Notes that a thread found the organisation's lock taken.
    #[cold]
    pub fn meet(&self) {
        if self.met.fetch_add(1, Ordering::Relaxed) >= MEETINGS {
            self.list.get_or_init(|| {
                let count = thread::available_parallelism().map_or(1, |count| count.get().min(64));
                (0..count).map(|_| Apart::default()).collect()
            });
            self.used.store(true, Ordering::Release);
        }
    }

    /// This thread's stripe, locked; none where there are none.
    #[inline]
    pub fn own(&self) -> Option<Guard<'_, Stripe>> {
        let list = self.list.get()?;
        let place = THREAD.with(|thread| *thread) % list.len();
        Some(list.get(place)?.0.lock())
    }

    /// Every stripe, locked one after the other.
    pub fn each(&self, mut visit: impl FnMut(&mut Stripe)) {
        for apart in self.list.get().into_iter().flatten() {
            visit(&mut apart.0.lock());
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.list.get().map_or(0, |list| list.len() as u64)
    }
}

impl Stripe {
    #[inline]
    fn line(&self, number: u32) -> Option<&Line> {
        self.pages.get(number as usize / PAGE)?.as_ref()?.get(number as usize % PAGE)
    }

    #[inline]
    fn line_mut(&mut self, number: u32) -> Option<&mut Line> {
        self.pages.get_mut(number as usize / PAGE)?.as_mut()?.get_mut(number as usize % PAGE)
    }

    /// Takes `amount` of what was lent for every counter of a line; false where that is not enough, or its time is over.
    #[inline]
    pub fn take(&mut self, head: u32, amount: u64, now: u64) -> bool {
        self.each(head, |line| now < line.due && line.bound - line.used >= amount) && self.each_mut(head, |line| line.used += amount)
    }

    #[inline]
    fn each(&self, head: u32, visit: impl Fn(&Line) -> bool) -> bool {
        let mut number = head;
        while number != NONE {
            let Some(line) = self.line(number).filter(|line| visit(line)) else { return false };
            if !line.counters().iter().all(|link| self.line(*link).is_some_and(&visit)) {
                return false;
            }
            number = line.next();
        }
        true
    }

    #[inline]
    fn each_mut(&mut self, head: u32, visit: impl Fn(&mut Line)) -> bool {
        let mut number = head;
        while number != NONE {
            let Some(line) = self.line_mut(number) else { return false };
            visit(line);
            let (links, here, next): ([u32; LINKS], usize, u32) = (line.links, line.counters().len(), line.next());
            for link in links.iter().take(here) {
                if let Some(line) = self.line_mut(*link) {
                    visit(line);
                }
            }
            number = next;
        }
        true
    }

    /// Puts a line here, with what was lent as its bound.
    pub fn put(&mut self, number: u32, line: Line) {
        let page = number as usize / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let Some(place) = self.pages.get_mut(page) else { return };
        let lines = place.get_or_insert_with(|| Box::new(std::array::from_fn(|_| absent())));
        if let Some(place) = lines.get_mut(number as usize % PAGE) {
            if place.rule == NONE && place.due == 0 {
                self.present.push(number);
            }
            *place = line;
        }
    }

    /// What a line has left, and of which window; afterwards it has nothing.
    pub fn reclaim(&mut self, number: u32) -> Option<(u32, u64)> {
        let line = self.line_mut(number).filter(|line| line.kind == Kind::Window)?;
        let left = line.bound.saturating_sub(line.used);
        (line.due, line.bound, line.used) = (0, 0, 0);
        (left > 0).then_some((line.window, left))
    }

    /// The lines that are here; afterwards there are none, once what they have left was reclaimed.
    pub fn clear(&mut self, mut visit: impl FnMut(u32, u32, u64)) {
        for number in std::mem::take(&mut self.present) {
            if let Some((window, left)) = self.reclaim(number) {
                visit(number, window, left);
            }
            if let Some(place) = self.line_mut(number) {
                *place = absent();
            }
        }
    }
}

/// A line that has nothing to give.
fn absent() -> Line {
    Line { due: 0, bound: 0, ..Line::path(NONE) }
}
