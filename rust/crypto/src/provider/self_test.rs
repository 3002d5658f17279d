//! What a provider must show before it is used: known answers where an answer is fixed, consistency where it is random.

use super::Provider;
use crate::{Algorithm, Error, Hash, KemAlgorithm, Secret};

/// First eight bytes of SHA-256 of each public key made from the seed 00 01 02 ...; the same in every conforming library.
const PUBLIC_KEYS: [(Algorithm, [u8; 8]); 3] = [
    (Algorithm::Ed25519, [0x56, 0x47, 0x5a, 0xa7, 0x54, 0x63, 0x47, 0x4c]),
    (Algorithm::MlDsa65, [0xd6, 0x66, 0x80, 0x6e, 0x11, 0xce, 0xe1, 0x9a]),
    (Algorithm::MlDsa87, [0x91, 0xdc, 0x38, 0x9c, 0xfa, 0xa0, 0x14, 0x70]),
];
const KEM_KEYS: [(KemAlgorithm, [u8; 8]); 2] = [
    (KemAlgorithm::MlKem768, [0x0b, 0x79, 0x34, 0xc8, 0x31, 0x25, 0xc7, 0x88]),
    (KemAlgorithm::MlKem1024, [0xc7, 0xb8, 0xfa, 0x0a, 0xa4, 0x71, 0xd5, 0xae]),
];

fn fails(provider: &Provider, what: &str) -> Error {
    Error::Unavailable(format!("provider `{}` failed its self-test: {what}", provider.name))
}

fn counting<const N: usize>() -> Secret<N> {
    let mut secret = Secret::zero();
    secret.expose_mut().iter_mut().zip(0u8..).for_each(|(byte, i)| *byte = i);
    secret
}

pub fn run(provider: &Provider) -> Result<(), Error> {
    let abc = provider.sha256(&[b"a", b"bc"]);
    if abc.get(..4) != Some(&[0xba, 0x78, 0x16, 0xbf]) {
        return Err(fails(provider, "SHA-256"));
    }
    for (algorithm, expected) in PUBLIC_KEYS {
        let signer = provider.signing.signer(algorithm, &counting())?;
        if provider.sha256(&[signer.public()]).get(..8) != Some(&expected) {
            return Err(fails(provider, algorithm.name()));
        }
        let verifier = provider.signing.verifier(algorithm, signer.public())?;
        let mut signature = Vec::new();
        signer.sign_into(b"creto", &mut signature)?;
        let consistent = verifier.verify(b"creto", &signature) && !verifier.verify(b"cretO", &signature);
        if signature.len() != algorithm.signature_len() || !consistent {
            return Err(fails(provider, algorithm.name()));
        }
    }
    for (algorithm, expected) in KEM_KEYS {
        let key = provider.kem.decapsulator(algorithm, &counting())?;
        if provider.sha256(&[key.public()]).get(..8) != Some(&expected) {
            return Err(fails(provider, algorithm.name()));
        }
        let mut ciphertext = Vec::new();
        let sent = provider.kem.encapsulator(algorithm, key.public())?.encapsulate_into(&mut ciphertext)?;
        if ciphertext.len() != algorithm.ciphertext_len() || key.decapsulate(&ciphertext)?.expose() != sent.expose() {
            return Err(fails(provider, algorithm.name()));
        }
    }
    symmetric(provider)
}

/// RFC 3394 4.6 for the wrap, RFC 5869 case 3 for HKDF, NIST's GCM test case 14 for the cipher.
fn symmetric(provider: &Provider) -> Result<(), Error> {
    let kek: Secret<32> = counting();
    let mut key = Secret::<32>::zero();
    key.expose_mut().iter_mut().zip((0..=0xff).step_by(0x11).chain(0..16)).for_each(|(byte, i): (&mut u8, u8)| *byte = i);
    let wrapped = provider.symmetric.wrap(&kek, &key)?;
    if wrapped.get(..8) != Some(&[0x28, 0xc9, 0xf4, 0x04, 0xc4, 0xb8, 0x10, 0xf4])
        || provider.symmetric.unwrap(&kek, &wrapped)?.expose() != key.expose()
    {
        return Err(fails(provider, "AES key wrap"));
    }
    let mut block = [0; 16];
    let tag = provider.symmetric.seal(&Secret::zero(), &[0; 12], b"", &mut block)?;
    if block.get(..4) != Some(&[0xce, 0xa7, 0x40, 0x3d]) || tag.get(..4) != Some(&[0xd0, 0xd1, 0xc8, 0xa7]) {
        return Err(fails(provider, "AES-256-GCM"));
    }
    let derived = provider.derivation.hkdf(Hash::Sha256, &[0x0b; 22], b"")?;
    if derived.expose().get(..4) != Some(&[0x8d, 0xa4, 0xe7, 0x75]) {
        return Err(fails(provider, "HKDF"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::PROVIDERS;

    #[test]
    fn both_providers_pass() {
        for provider in PROVIDERS {
            provider.self_test().unwrap();
        }
    }
}
