//! Memory for long lists and tables, on pages large enough that finding them costs no walk through page tables.
//!
//! What is shorter than a large page comes from the program's allocator. What is longer is mapped on its own: it begins where a large page
//! does, and goes back to the system whole when the list has outgrown it, where a heap would keep a hole of that size.
#![expect(unsafe_code, reason = "memory is mapped and given back by address")]

use allocator_api2::alloc::{AllocError, Allocator, Global, Layout};
use hashbrown::HashTable;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::{NonNull, null_mut};

/// The size of a large page, in bytes.
const LARGE: usize = 2 << 20;

/// The size of a small page, in bytes: what a mapping ends at. A multiple of the kernel's own where that is larger.
const SMALL: usize = 64 << 10;

/// A list that may become long.
pub type List<T> = allocator_api2::vec::Vec<T, Large>;

/// A table that may become long.
pub type Table<T> = HashTable<T, Large>;

/// The allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Large;

/// How much is mapped for so many bytes; none beyond what can be.
fn length(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(SMALL)
}

fn map(size: usize) -> Option<NonNull<[u8]>> {
    let length = length(size)?;
    let whole = length.checked_add(LARGE)?;
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that is there.
    let start = unsafe { mmap_anonymous(null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }.ok()?;
    let before = start.addr().next_multiple_of(LARGE) - start.addr();
    let after = LARGE - before;
    // SAFETY: all within the mapping just made, of which nobody else knows; what is advised changes how memory is mapped, never what it
    // holds, and where the kernel has no large pages small ones do.
    unsafe {
        let first = start.byte_add(before);
        if before > 0 {
            let _ = munmap(start, before);
        }
        if after > 0 {
            let _ = munmap(first.byte_add(length), after);
        }
        let _ = madvise(first, length, Advice::LinuxHugepage);
        NonNull::new(std::ptr::slice_from_raw_parts_mut(first.cast::<u8>(), size))
    }
}

// SAFETY: a block lives until it is given back, whatever becomes of the allocator, which holds nothing; how a block was made follows from
// its layout alone. No alignment is beyond that of a large page: types here have 64 bytes at most, and others are refused.
unsafe impl Allocator for Large {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() < LARGE {
            return Global.allocate(layout);
        }
        if layout.align() > LARGE {
            return Err(AllocError);
        }
        map(layout.size()).ok_or(AllocError)
    }

    unsafe fn deallocate(&self, place: NonNull<u8>, layout: Layout) {
        if layout.size() < LARGE {
            // SAFETY: so it was allocated.
            unsafe { Global.deallocate(place, layout) };
        } else if let Some(length) = length(layout.size()) {
            // SAFETY: the block is a mapping of this length, and nobody has it any more.
            let _ = unsafe { munmap(place.as_ptr().cast(), length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_is_in_it_while_it_grows_from_the_heap_to_pages_of_its_own() {
        let mut list: List<u64> = List::new_in(Large);
        (0..1_000_000).for_each(|number| list.push(number));
        assert!(list.iter().copied().eq(0..1_000_000));
        assert_eq!(list.as_ptr().addr() % LARGE, 0);
        list.truncate(10);
        list.shrink_to_fit();
        assert!(list.iter().copied().eq(0..10));
    }

    #[test]
    fn a_table_that_was_dropped_gave_its_memory_back() {
        let resident = || std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096;
        let before = resident();
        for _ in 0..8 {
            let mut table: Table<u64> = Table::new_in(Large);
            (0..2_000_000).for_each(|number| {
                table.insert_unique(number, number, |kept| *kept);
            });
            assert_eq!(table.find(1_234_567, |kept| *kept == 1_234_567), Some(&1_234_567));
        }
        // Tests that run beside this one have memory of their own.
        assert!(resident() < before + (192 << 20), "eight tables of 36 MiB came and went");
    }
}
