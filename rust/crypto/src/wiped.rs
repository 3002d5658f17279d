//! What keys leave in memory once their last handle is gone: neither their seeds nor what those expand to, with either provider.
//!
//! The stack of the thread that used them is not looked at: what calls leave there is overwritten by the next ones, and nobody's to wipe.

use crate::provider::expand_kem;
use crate::{Algorithm, KemAlgorithm, KemKey, PROVIDERS, Provider, Secret};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// What is looked for, kept inverted so that it does not find itself.
struct Needle(&'static str, Vec<u8>);

impl Needle {
    fn new(name: &'static str, mut bytes: Vec<u8>) -> Self {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        Self(name, bytes)
    }

    /// How often it lies in this process's writable memory.
    fn copies(&self) -> usize {
        const CHUNK: usize = 1 << 16;
        let memory = File::open("/proc/self/mem").unwrap();
        let mut room = vec![0; CHUNK];
        // Where the search itself puts what it reads.
        let own = room.as_ptr() as usize..room.as_ptr() as usize + CHUNK;
        let stack = &raw const own as usize;
        let mut found = 0;
        for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let mut words = line.split_whitespace();
            let (place, rights) = (words.next().unwrap(), words.next().unwrap());
            if !rights.starts_with("rw") || line.contains("[vv") {
                continue;
            }
            let (start, end) = place.split_once('-').unwrap();
            let (mut at, end) = (usize::from_str_radix(start, 16).unwrap(), usize::from_str_radix(end, 16).unwrap());
            if (at..end).contains(&stack) {
                continue;
            }
            while at < end {
                let Ok(read @ 1..) = memory.read_at(&mut room[..CHUNK.min(end - at)], at as u64) else { break };
                for (offset, window) in room[..read].windows(self.1.len()).enumerate() {
                    let same = window.iter().zip(&self.1).all(|(found, wanted)| *found == !*wanted);
                    if same && !own.contains(&(at + offset)) {
                        found += 1;
                    }
                }
                at += if read == CHUNK { CHUNK - self.1.len() } else { read };
            }
        }
        room.fill(0);
        found
    }
}

/// Coefficients of 12 bits each, as a library keeps them that computes with them in 16.
fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed.len() / 3 * 4); // never moved, so that it leaves no copy behind
    for three in packed.chunks_exact(3) {
        let [a, b, c] = [three[0], three[1], three[2]].map(u16::from);
        out.extend_from_slice(&(a | (b & 15) << 8).to_le_bytes());
        out.extend_from_slice(&(b >> 4 | c << 4).to_le_bytes());
    }
    out
}

fn needles_are_gone<K>(provider: &Provider, what: &str, needles: &[Needle], make: impl FnOnce() -> K) {
    let key = make();
    // Of the expanded key too, where there is one, in whichever form the library keeps it.
    for some in [&needles[..1], &needles[1..]] {
        // Memory of the other tests' threads comes and goes while it is searched, and one look may end early at what has gone.
        let held = (0..5).any(|_| some.iter().any(|needle| needle.copies() > 0));
        assert!(held || some.is_empty(), "the search finds nothing of a living {what} of {}", provider.name);
    }
    drop(key);
    for needle in needles {
        assert_eq!(needle.copies(), 0, "{} of a {what} of {} outlives it", needle.0, provider.name);
    }
}

#[test]
fn neither_seeds_nor_expanded_keys_outlive_their_last_handle() {
    for provider in PROVIDERS {
        for algorithm in [KemAlgorithm::MlKem768, KemAlgorithm::MlKem1024] {
            let seed = Secret::<64>::random(provider).unwrap();
            let expanded = expand_kem(algorithm, &seed);
            let needles = [
                Needle::new("the seed", seed.expose().to_vec()),
                Needle::new("the secret vector", expanded.secret[..48].to_vec()),
                Needle::new("the secret vector, unpacked", unpacked(&expanded.secret[..48])),
            ];
            drop(expanded);
            needles_are_gone(provider, algorithm.name(), &needles, || {
                let key = KemKey::from_seed(provider, algorithm, seed).unwrap();
                let mut ciphertext = vec![];
                let sent = key.public_key().encapsulate_into(&mut ciphertext).unwrap();
                assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), sent.expose());
                key
            });
        }
        for algorithm in [Algorithm::Ed25519, Algorithm::MlDsa65, Algorithm::MlDsa87] {
            let seed = Secret::<32>::random(provider).unwrap();
            let needles = signing_needles(algorithm, &seed);
            needles_are_gone(provider, &algorithm.to_string(), &needles, || {
                let seed = seed;
                let key = provider.signing.signer(algorithm, &seed).unwrap();
                key.sign_into(b"a message", &mut vec![]).unwrap();
                (seed, key)
            });
        }
    }
}

/// The seed, and the secret parts of the standard's expanded key.
fn signing_needles(algorithm: Algorithm, seed: &Secret<32>) -> Vec<Needle> {
    use aws_lc_rs::encoding::AsRawBytes as _;
    use aws_lc_rs::signature::{ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair};

    let mut needles = vec![Needle::new("the seed", seed.expose().to_vec())];
    let parameters = match algorithm {
        Algorithm::Ed25519 => return needles,
        Algorithm::MlDsa65 => &ML_DSA_65_SIGNING,
        Algorithm::MlDsa87 => &ML_DSA_87_SIGNING,
    };
    let pair = PqdsaKeyPair::from_seed(parameters, seed.expose()).unwrap();
    let raw = pair.private_key().as_raw_bytes().unwrap();
    // rho, K, tr, s1, s2, t0 (FIPS 204, algorithm 24); s1 with 4 bits a coefficient where eta is 4, else 3.
    needles.push(Needle::new("K", raw.as_ref()[32..64].to_vec()));
    needles.push(Needle::new("s1", raw.as_ref()[128..176].to_vec()));
    needles
}
