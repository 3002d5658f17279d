//! Project Wycheproof's vectors, every one that fits our algorithms, against both providers.

use crate::{Algorithm, Hash, KemAlgorithm, PROVIDERS, Provider, Secret};
use wycheproof::TestResult::{Invalid, Valid};

/// Runs a check under each provider and says under which it failed.
fn each(mut check: impl FnMut(&Provider) -> usize) {
    for provider in PROVIDERS {
        let ran = check(provider);
        assert!(ran > 0, "no vector ran under `{}`", provider.name);
    }
}

#[test]
fn ed25519_signatures() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    each(|provider| {
        let mut ran = 0;
        for group in &set.test_groups {
            let verifier = provider.signing.verifier(Algorithm::Ed25519, &group.key.pk).unwrap();
            for test in &group.tests {
                let valid = verifier.verify(&test.msg, &test.sig);
                assert_eq!(valid, test.result == Valid, "{} vector {}: {}", provider.name, test.tc_id, test.comment);
                ran += 1;
            }
        }
        ran
    });
}

#[test]
fn ml_dsa_signatures() {
    use wycheproof::mldsa_verify::{TestName, TestSet};
    for (name, algorithm) in [(TestName::MlDsa65Verify, Algorithm::MlDsa65), (TestName::MlDsa87Verify, Algorithm::MlDsa87)] {
        let set = TestSet::load(name).unwrap();
        each(|provider| {
            let mut ran = 0;
            for group in &set.test_groups {
                let verifier = provider.signing.verifier(algorithm, &group.pubkey);
                for test in &group.tests {
                    // A context that is not empty is another statement than any of ours.
                    if test.ctx.as_ref().is_some_and(|context| !context.is_empty()) {
                        continue;
                    }
                    let valid = verifier.as_ref().is_ok_and(|verifier| verifier.verify(&test.msg, &test.sig));
                    assert_eq!(valid, test.result == Valid, "{} {algorithm} vector {}: {}", provider.name, test.tc_id, test.comment);
                    ran += 1;
                }
            }
            ran
        });
    }
}

#[test]
fn ml_dsa_keys_from_seeds() {
    use wycheproof::mldsa_sign::{TestName, TestSet};
    for (name, algorithm) in [(TestName::MlDsa65SignSeed, Algorithm::MlDsa65), (TestName::MlDsa87SignSeed, Algorithm::MlDsa87)] {
        let set = TestSet::load(name).unwrap();
        each(|provider| {
            let mut ran = 0;
            for group in &set.test_groups {
                let (Some(seed), Some(public)) = (&group.privseed, &group.pubkey) else { continue };
                let Ok(seed) = Secret::copy_from(seed) else { continue };
                let signer = provider.signing.signer(algorithm, &seed).unwrap();
                assert_eq!(signer.public(), &public[..], "{} {algorithm}", provider.name);
                ran += 1;
            }
            ran
        });
    }
}

#[test]
fn ml_kem_decapsulation() {
    use wycheproof::mlkem::{TestName, TestSet};
    for (name, algorithm) in [(TestName::MlKem768, KemAlgorithm::MlKem768), (TestName::MlKem1024, KemAlgorithm::MlKem1024)] {
        let set = TestSet::load(name).unwrap();
        each(|provider| {
            let mut ran = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                let (Some(seed), Some(ciphertext)) = (&test.seed, &test.ct) else { continue };
                let secret = Secret::<64>::copy_from(seed).and_then(|seed| provider.kem.decapsulator(algorithm, &seed)).and_then(|key| {
                    if let Some(public) = &test.encaps_key {
                        assert_eq!(key.public(), &public[..]);
                    }
                    key.decapsulate(ciphertext)
                });
                let expected = (test.result != Invalid).then_some(&test.shared_secret).and_then(Option::as_ref);
                let label = format!("{} {} vector {}: {}", provider.name, algorithm.name(), test.tc_id, test.comment);
                match (secret, expected) {
                    (Ok(secret), Some(expected)) => assert_eq!(secret.expose()[..], expected[..], "{label}"),
                    (found, expected) => assert_eq!(found.is_ok(), expected.is_some(), "{label}"),
                }
                ran += 1;
            }
            ran
        });
    }
}

#[test]
fn ml_kem_public_keys() {
    use wycheproof::mlkem::{TestName, TestSet};
    for (name, algorithm) in [(TestName::MlKem768Encaps, KemAlgorithm::MlKem768), (TestName::MlKem1024Encaps, KemAlgorithm::MlKem1024)] {
        let set = TestSet::load(name).unwrap();
        each(|provider| {
            let mut ran = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                let Some(public) = &test.encaps_key else { continue };
                let accepted = provider.kem.encapsulator(algorithm, public).is_ok();
                assert_eq!(
                    accepted,
                    test.result == Valid,
                    "{} {} vector {}: {}",
                    provider.name,
                    algorithm.name(),
                    test.tc_id,
                    test.comment
                );
                ran += 1;
            }
            ran
        });
    }
}

#[test]
fn aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    each(|provider| {
        let mut ran = 0;
        for group in set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128)) {
            for test in &group.tests {
                let key = Secret::copy_from(&test.key).unwrap();
                let (nonce, tag) = (test.nonce[..].try_into().unwrap(), test.tag[..].try_into().unwrap());
                let mut text = test.ct.to_vec();
                let opened = provider.symmetric.open(&key, nonce, &test.aad, &mut text, tag);
                assert_eq!(opened.is_ok(), test.result == Valid, "{} vector {}: {}", provider.name, test.tc_id, test.comment);
                if test.result == Valid {
                    assert_eq!(text, test.pt[..]);
                    let sealed = provider.symmetric.seal(&key, nonce, &test.aad, &mut text).unwrap();
                    assert_eq!((&text[..], &sealed), (&test.ct[..], tag));
                }
                ran += 1;
            }
        }
        ran
    });
}

#[test]
fn aes_256_key_wrap() {
    let set = wycheproof::keywrap::TestSet::load(wycheproof::keywrap::TestName::AesKeyWrap).unwrap();
    each(|provider| {
        let mut ran = 0;
        for test in set.test_groups.iter().filter(|g| g.key_size == 256).flat_map(|g| &g.tests) {
            // Of the lengths that the standard knows we wrap 256-bit keys only.
            let (Ok(kek), Ok(wrapped)) = (Secret::copy_from(&test.key), <&[u8; 40]>::try_from(&test.ct[..])) else { continue };
            let key = provider.symmetric.unwrap(&kek, wrapped);
            assert_eq!(key.is_ok(), test.result == Valid, "{} vector {}: {}", provider.name, test.tc_id, test.comment);
            if let Ok(key) = key {
                assert_eq!(key.expose()[..], test.pt[..]);
                assert_eq!(provider.symmetric.wrap(&kek, &key).unwrap(), *wrapped);
            }
            ran += 1;
        }
        ran
    });
}

#[test]
fn hkdf() {
    use wycheproof::hkdf::{TestName, TestSet};
    for (name, hash) in [(TestName::HkdfSha256, Hash::Sha256), (TestName::HkdfSha384, Hash::Sha384), (TestName::HkdfSha512, Hash::Sha512)] {
        let set = TestSet::load(name).unwrap();
        each(|provider| {
            let mut ran = 0;
            for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                // Ours has no salt, and gives 256 bits: the first of any longer output.
                if !test.salt.is_empty() || test.result == Invalid || test.size < 32 {
                    continue;
                }
                let key = provider.derivation.hkdf(hash, &test.ikm, &test.info).unwrap();
                assert_eq!(key.expose()[..], test.okm[..32], "{} {hash:?} vector {}", provider.name, test.tc_id);
                ran += 1;
            }
            ran
        });
    }
}

#[test]
fn what_one_provider_makes_the_other_takes() {
    for (maker, taker) in [(PROVIDERS[0], PROVIDERS[1]), (PROVIDERS[1], PROVIDERS[0])] {
        let seed = Secret::<32>::random(maker).unwrap();
        for &algorithm in Algorithm::ALL {
            let signer = maker.signing.signer(algorithm, &seed).unwrap();
            assert_eq!(signer.public(), taker.signing.signer(algorithm, &seed).unwrap().public());
            let mut signature = Vec::new();
            signer.sign_into(b"message", &mut signature).unwrap();
            assert!(taker.signing.verifier(algorithm, signer.public()).unwrap().verify(b"message", &signature));
        }
        let seed = Secret::<64>::random(maker).unwrap();
        for algorithm in [KemAlgorithm::MlKem768, KemAlgorithm::MlKem1024] {
            let key = taker.kem.decapsulator(algorithm, &seed).unwrap();
            let mut ciphertext = Vec::new();
            let sent = maker.kem.encapsulator(algorithm, key.public()).unwrap().encapsulate_into(&mut ciphertext).unwrap();
            assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), sent.expose());
            let mut changed = ciphertext.clone();
            changed[0] ^= 1;
            let implicit = key.decapsulate(&changed).unwrap();
            assert_ne!(implicit.expose(), sent.expose());
            assert_eq!(implicit.expose(), maker.kem.decapsulator(algorithm, &seed).unwrap().decapsulate(&changed).unwrap().expose());
        }
        let (kek, key) = (Secret::random(maker).unwrap(), Secret::random(maker).unwrap());
        assert_eq!(taker.symmetric.unwrap(&kek, &maker.symmetric.wrap(&kek, &key).unwrap()).unwrap().expose(), key.expose());
        let mut text = *b"text";
        let tag = maker.symmetric.seal(&key, &[1; 12], b"aad", &mut text).unwrap();
        taker.symmetric.open(&key, &[1; 12], b"aad", &mut text, &tag).unwrap();
        assert_eq!(&text, b"text");
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            assert_eq!(maker.derivation.digest(hash, &[b"a", b"b"]), taker.derivation.digest(hash, &[b"ab"]));
            assert_eq!(
                maker.derivation.hkdf(hash, b"s", b"i").unwrap().expose(),
                taker.derivation.hkdf(hash, b"s", b"i").unwrap().expose()
            );
            assert_eq!(maker.derivation.expand(hash, &key, &[b"a", b"b"]).unwrap(), taker.derivation.expand(hash, &key, &[b"ab"]).unwrap());
        }
    }
}
