"""Keys, signed statements and secrets at rest: handles to what lives in Rust, never the secret bytes.

Example:
    >>> from creto.crypto import SigningKey
    >>> key = SigningKey.generate()
    >>> signatures = key.sign(b"report")
    >>> [algorithm for algorithm, _ in signatures]
    ['Ed25519', 'ML-DSA-65']
    >>> key.verifying_key.verify(b"report", signatures)
"""

from creto._core import (
    IN_TOTO,
    Sealer,
    SigningKey,
    VerifyingKey,
    crypto_providers,
    dsse_sign,
    dsse_verify,
)
from creto.crypto._sealing import open_sealer

__all__ = [
    "IN_TOTO",
    "Sealer",
    "SigningKey",
    "VerifyingKey",
    "crypto_providers",
    "dsse_sign",
    "dsse_verify",
    "open_sealer",
]
