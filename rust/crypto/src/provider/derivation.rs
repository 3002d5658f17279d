//! Digests and key derivation, written once: aws-lc-rs took over ring's interface for them, to the name.

/// Implements `Derivation` for a provider in a module that has `digest`, `hkdf`, `hmac` and `broken` of its library in scope.
macro_rules! derivation {
    ($provider:ty) => {
        struct Length(usize);

        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }

        fn hkdf_algorithm(hash: Hash) -> hkdf::Algorithm {
            match hash {
                Hash::Sha256 => hkdf::HKDF_SHA256,
                Hash::Sha384 => hkdf::HKDF_SHA384,
                Hash::Sha512 => hkdf::HKDF_SHA512,
            }
        }

        impl Derivation for $provider {
            fn digest(&self, hash: Hash, parts: &[&[u8]]) -> [u8; 64] {
                let algorithm = match hash {
                    Hash::Sha256 => &digest::SHA256,
                    Hash::Sha384 => &digest::SHA384,
                    Hash::Sha512 => &digest::SHA512,
                };
                let mut out = [0; 64];
                let mut copy = |digest: digest::Digest| out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
                if let [one] = parts {
                    copy(digest::digest(algorithm, one));
                } else {
                    let mut context = digest::Context::new(algorithm);
                    parts.iter().for_each(|part| context.update(part));
                    copy(context.finish());
                }
                out
            }

            fn hkdf(&self, hash: Hash, secret: &[u8], info: &[u8]) -> Result<Secret<32>, Error> {
                let mut out = Secret::zero();
                hkdf::Salt::new(hkdf_algorithm(hash), &[])
                    .extract(secret)
                    .expand(&[info], Length(32))
                    .and_then(|okm| okm.fill(out.expose_mut()))
                    .map_err(broken("deriving a key"))?;
                Ok(out)
            }

            fn expand(&self, hash: Hash, key: &Secret<32>, info: &[&[u8]]) -> Result<[u8; 32], Error> {
                // One block of HKDF-Expand is HMAC(key, info || 0x01), and 32 bytes are within the first block of every hash here.
                let algorithm = match hash {
                    Hash::Sha256 => hmac::HMAC_SHA256,
                    Hash::Sha384 => hmac::HMAC_SHA384,
                    Hash::Sha512 => hmac::HMAC_SHA512,
                };
                let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key.expose()));
                info.iter().for_each(|part| context.update(part));
                context.update(&[1]);
                let mut out = [0; 32];
                out.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
                Ok(out)
            }
        }
    };
}

pub(super) use derivation;
