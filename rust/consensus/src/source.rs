//! Where physical time comes from: the wall clock, which may be stepped, and time since boot, which may not.

use std::time::{SystemTime, UNIX_EPOCH};

/// The two readings that the hybrid clock rests on; tests put their own in.
#[derive(Clone, Copy)]
pub struct Source {
    /// Microseconds since the Unix epoch.
    pub wall: fn() -> u64,
    /// Microseconds since boot, sleep included.
    pub since_boot: fn() -> u64,
}

impl Source {
    /// This machine's clocks.
    pub const MACHINE: Self = Self { wall: wall_micros, since_boot: boot_micros };
}

/// Microseconds since the Unix epoch; 0 before it.
pub fn wall_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() * 1_000_000 + u64::from(d.subsec_micros()))
}

fn boot_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// A number that changes with every boot; 0 where the kernel does not tell.
pub fn boot_id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}
