//! Hands libFuzzer's inputs to the entry point that `CRETO_FUZZ_TARGET` names; started by `make fuzz`.
#![no_main]

use creto_fuzz::{Target, target};
use std::sync::LazyLock;

static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("CRETO_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("no target `{name}`"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (CHOSEN.run)(data);
});
