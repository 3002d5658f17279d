//! Memory for long lists, on pages large enough that finding them costs no walk through page tables.
#![expect(unsafe_code, reason = "advice about memory is given by address")]

use rustix::mm::{Advice, madvise};

/// The size of a large page, in bytes.
const LARGE: usize = 2 << 20;

/// Makes room for one entry more. Beyond a large page the room is new memory, advised before it is touched, and not what was there made
/// longer: memory that is moved loses its large pages.
pub fn make_room<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() {
        return;
    }
    let wanted = list.len().saturating_mul(2);
    if wanted.saturating_mul(size_of::<T>()) < 2 * LARGE {
        list.reserve(1);
        return;
    }
    let mut grown: Vec<T> = Vec::with_capacity(wanted);
    let start = grown.as_ptr().addr();
    let first = start.next_multiple_of(LARGE);
    let length = (start + grown.capacity() * size_of::<T>()).saturating_sub(first) / LARGE * LARGE;
    // SAFETY: the range lies inside the memory that `grown` owns, and the advice changes how it is mapped, never what it holds. Where the
    // kernel has no large pages, it says so, and small ones do.
    let _ = unsafe { madvise(grown.as_mut_ptr().with_addr(first).cast(), length, Advice::LinuxHugepage) };
    grown.append(list);
    *list = grown;
}
