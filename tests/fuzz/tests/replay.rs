//! Runs every seed and every past finding through its entry point, and small changes of each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use creto_fuzz::TARGETS;
use std::fs;
use std::path::{Path, PathBuf};

fn inputs(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn every_target_has_seeds_and_every_folder_a_target() {
    for target in TARGETS {
        assert!(!inputs("corpus", target.name).is_empty(), "`{}` has no seeds", target.name);
    }
    for kind in ["corpus", "findings"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(creto_fuzz::target(&name).is_some(), "`{kind}/{name}` belongs to no target");
        }
    }
}

#[test]
fn seeds_and_past_findings_hold_to_the_laws() {
    for target in TARGETS {
        for (path, bytes) in inputs("corpus", target.name).into_iter().chain(inputs("findings", target.name)) {
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

/// Cheap where a decoder refuses early, and bounded where it does not: the search itself is `make fuzz`.
#[test]
fn small_changes_of_a_seed_are_read_or_refused() {
    let rounds: u32 = std::env::var("CRETO_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for target in TARGETS {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        for (_, seed) in inputs("corpus", target.name) {
            for _ in 0..rounds {
                let mut bytes = seed.clone();
                for _ in 0..=next(3) {
                    let at = next(bytes.len());
                    match next(4) {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at.min(bytes.len()), next(256) as u8),
                        2 if at < bytes.len() => drop(bytes.remove(at)),
                        _ => {
                            if let Some(byte) = bytes.get_mut(at) {
                                *byte ^= 1 << next(8);
                            }
                        }
                    }
                }
                (target.run)(&bytes);
            }
        }
    }
}
