//! Organisations by name and by number, each behind its own lock.
#![expect(unsafe_code, reason = "a reference outlives the lock under which it was found")]

use super::lock::Lock;
use super::organisation::Organisation;
use super::stripe::Stripes;
use creto_enablement_common::{Error, Result};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::{Arc, OnceLock};

/// The most there can be: a reservation's number holds that of its organisation.
const MOST: u32 = 1 << 20;

/// One organisation and its lock.
#[derive(Debug)]
pub struct Guarded {
    pub(super) number: u32,
    pub(super) name: Box<str>,
    pub(super) lock: Lock<Organisation>,
    pub(super) stripes: Arc<Stripes>,
}

/// All of them. INVARIANT: one that was added stays until all of them are dropped.
#[derive(Debug, Default)]
pub struct Organisations {
    /// The first, in most processes the only one, which is found without the lock.
    first: OnceLock<Arc<Guarded>>,
    known: Lock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Box<str>, Arc<Guarded>, RandomState>,
    list: Vec<Arc<Guarded>>,
}

impl Organisations {
    /// The one of a name.
    #[inline]
    pub fn find(&self, name: &str) -> Option<&Guarded> {
        if let Some(first) = self.first.get().filter(|first| *first.name == *name) {
            return Some(first);
        }
        let place = self.known.lock().by_name.get(name).map(Arc::as_ptr)?;
        // SAFETY: an organisation lies in an `Arc` that is never taken out, so it lives as long as `self` does.
        Some(unsafe { &*place })
    }

    /// The one of a number.
    #[inline]
    pub fn at(&self, number: u32) -> Option<&Guarded> {
        if let Some(first) = self.first.get().filter(|first| first.number == number) {
            return Some(first);
        }
        let place = self.known.lock().list.get(number as usize).map(Arc::as_ptr)?;
        // SAFETY: as above.
        Some(unsafe { &*place })
    }

    /// The one of a name, for whoever keeps it.
    pub fn share(&self, name: &str) -> Option<Arc<Guarded>> {
        self.known.lock().by_name.get(name).map(Arc::clone)
    }

    /// All of them, in the order of their numbers.
    pub fn list(&self) -> Vec<Arc<Guarded>> {
        self.known.lock().list.clone()
    }

    /// Adds one that is not there yet.
    pub fn add(&self, name: &str, inner: Organisation) -> Result<Arc<Guarded>> {
        let mut known = self.known.lock();
        let number = u32::try_from(known.list.len()).ok().filter(|number| *number < MOST);
        let number = number.ok_or_else(|| Error::invalid("no room for another organisation"))?;
        let stripes = Arc::clone(&inner.stripes);
        let made = Arc::new(Guarded { number, name: name.into(), lock: Lock::new(inner), stripes });
        known.by_name.insert(name.into(), Arc::clone(&made));
        known.list.push(Arc::clone(&made));
        self.first.get_or_init(|| Arc::clone(&made));
        Ok(made)
    }
}
