//! The version that this thread's last check saw. A check takes it from here, without counting in memory that other threads write to, as long
//! as there is no newer one; so what a thread keeps of an old version goes with its next check.

use crate::snapshot::Snapshot;
use crate::view::View;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

thread_local! {
    static SEEN: RefCell<Option<(u64, Rc<View>)>> = const { RefCell::new(None) };
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A number for a version, unlike that of any other version of any engine. 0 is that nothing is installed, whatever the engine.
pub fn fresh_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The version of a number; `load` has it, or one that is newer still, where this thread has not seen it.
#[inline]
pub fn seen(number: u64, load: impl FnOnce() -> View) -> Rc<View> {
    let known = |seen: &RefCell<Option<(u64, Rc<View>)>>| match &*seen.borrow() {
        Some((known, view)) if *known == number => Some(Rc::clone(view)),
        _ => None,
    };
    // A thread that ends may have no place left to remember in.
    SEEN.try_with(known).ok().flatten().unwrap_or_else(|| remember(number, load()))
}

#[cold]
fn remember(number: u64, view: View) -> Rc<View> {
    let view = Rc::new(view);
    let before = SEEN.try_with(|seen| seen.borrow_mut().replace((number, Rc::clone(&view))));
    if let Ok(Some((_, before))) = before
        && let Some(View(Some(last))) = Rc::into_inner(before)
        && let Some(last) = Arc::into_inner(last)
    {
        free(last);
    }
    view
}

/// Frees a version that nobody has any more: its policies, where no other version has them, on a thread of their own, since that takes
/// milliseconds and a check does not wait.
fn free(version: Snapshot) {
    if Arc::strong_count(&version.set) == 1 {
        // Where no thread can be started, it is freed here.
        let _ = thread::Builder::new().name("creto-policy-free".to_owned()).spawn(move || drop(version));
    }
}
