//! A full disk is waited out: what was taken is safe in its segment, and nothing further is taken in the meantime.

use crate::queue::{Queue, Stop};
use creto_enablement_common::{Error, ErrorKind, Result};
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(250);

/// Takes a step again and again while the disk is full, and tells the queue why; any other error is final.
///
/// # Errors
/// That of the step; `LedgerFull` where the ledger is being closed and there is still no space.
pub fn keep_trying<T>(queue: &Queue, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    let (mut closing, mut waited) = (0, false);
    loop {
        let error = match step() {
            Ok(done) => {
                if waited {
                    queue.set_full(None);
                }
                return Ok(done);
            }
            Err(error) if is_full(&error) => error,
            Err(error) => return Err(error),
        };
        queue.set_full(Some(Stop { kind: ErrorKind::LedgerFull, why: Stop::of(&error).why }));
        // Whoever closes the ledger does not wait for space for ever; the next opening derives what is missing.
        closing += usize::from(queue.stopped().is_some());
        if closing > 2 {
            return Err(Error::new(ErrorKind::LedgerFull).with_source(error));
        }
        waited = true;
        std::thread::sleep(RETRY);
    }
}

/// True where an error says that the disk or the owner's quota is full.
fn is_full(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
            );
        }
        source = current.source();
    }
    false
}
