//! Group commit: who writes, for whom, and who is told. What writing is comes from outside, so that every interleaving can be tested.

use crate::queue::{Done, Meta, Queue, Stop};
use crate::sync::Mutex;
use creto_enablement_common::{ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A net below the wake-ups, none of which is ever missing.
const NET: Duration = Duration::from_millis(20);

/// Room for one write, kept from one to the next.
#[derive(Default)]
pub struct Buffers {
    bytes: Vec<u8>,
    metas: Vec<Meta>,
    waiting: Vec<(u64, Done)>,
    indexes: Vec<Option<u64>>,
    ended: Vec<(u64, Option<u64>)>,
}

impl Buffers {
    /// Takes all that waits, has `write` put it on disk, and tells those who wait. `write` gets where to note which index each record
    /// got, if anyone wants to know.
    pub fn commit(&mut self, queue: &Queue, write: impl FnOnce(&[u8], &[Meta], Option<&mut Vec<Option<u64>>>) -> Result<()>) {
        let last = queue.take(&mut self.bytes, &mut self.metas, &mut self.waiting);
        let first = last - self.metas.len() as u64;
        let result = match queue.stopped().filter(|stop| stop.kind != ErrorKind::NotFound) {
            Some(stop) => Err(stop.error()),
            None => write(&self.bytes, &self.metas, (!self.waiting.is_empty()).then_some(&mut self.indexes)),
        };
        match &result {
            Ok(()) => queue.acknowledge(last),
            Err(error) => queue.stop(Stop::of(error)),
        }
        let mut waiting = self.waiting.drain(..).peekable();
        while let Some((ticket, done)) = waiting.next() {
            self.ended.push((done.token, ticket.checked_sub(first + 1).and_then(|at| self.indexes.get(at as usize).copied().flatten())));
            if waiting.peek().is_none_or(|(_, next)| !Arc::ptr_eq(&next.to, &done.to)) {
                done.to.complete(&self.ended, result.as_ref().err());
                self.ended.clear();
            }
        }
        drop(waiting);
        self.bytes.clear();
        self.metas.clear();
        self.indexes.clear();
    }
}

/// Waits until the record with this ticket is on disk, at most until `until`; false where it is not yet. `closed` says that nobody writes
/// any more, `commit` writes all that waits.
///
/// # Errors
/// What ended the queue, where the record can no longer get there.
pub fn wait_durable<W>(
    queue: &Queue,
    writer: &Mutex<W>,
    ticket: u64,
    until: Instant,
    closed: impl Fn() -> bool,
    commit: impl Fn(&mut W),
) -> Result<bool> {
    loop {
        if queue.durable() >= ticket {
            return Ok(true);
        }
        if let Some(stop) = queue.stopped() {
            // Closing writes what was taken; any other end does not.
            if stop.kind != ErrorKind::NotFound || closed() {
                return if queue.durable() >= ticket { Ok(true) } else { Err(stop.error()) };
            }
        }
        // Nothing to write for a ticket that no record has yet: to try would spin past the deadline.
        if ticket <= queue.last() {
            // The caller writes by itself where nobody else does: two changes of thread cost as much as the sync.
            if let Some(mut writer) = writer.try_lock() {
                commit(&mut writer);
                continue;
            }
            // Whoever writes now may have taken what there was before this record came.
            queue.hurry();
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        queue.wait_acknowledged(ticket, left.min(NET));
    }
}
