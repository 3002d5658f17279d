"""Providers, signatures, sealing."""

from __future__ import annotations

from creto.cli._checks import Bench, Check
from creto.errors import CretoError, SignatureVerificationFailedError

__all__ = ["CHECKS"]


def _providers(_bench: Bench) -> str:
    from creto import _core

    found = _core.crypto_providers()
    broken = [f"{name}: {why}" for name, _chosen, why in found if why]
    chosen = [name for name, is_chosen, _why in found if is_chosen]
    if broken:
        raise AssertionError("; ".join(broken))
    return f"known answers hold in {' and '.join(name for name, *_ in found)}; {chosen[0]} is used"


def _signatures(_bench: Bench) -> str:
    from creto import _core

    for suite in _core.SUITES:
        key = _core.SigningKey.generate(suite)
        signatures = key.sign(b"doctor")
        key.verifying_key.verify(b"doctor", signatures)
        for wrong in ((b"dactor", signatures), (b"doctor", signatures[:-1]), (b"doctor", [*signatures, signatures[0]])):
            try:
                key.verifying_key.verify(*wrong)
            except SignatureVerificationFailedError:
                continue
            raise AssertionError(f"{suite}: a changed message, or a stripped or added signature, was accepted")
    return "changed, stripped and added signatures refused in every suite"


def _sealing(bench: Bench) -> str:
    from creto import _core

    sealer = _core.Sealer.open(str(bench.scratch / "keys"))
    sealed = sealer.seal(b"secret", "doctor")
    if sealer.open_sealed(sealed, "doctor") != b"secret":
        raise AssertionError("what was sealed does not open")
    for data, label in ((sealed[:-1] + bytes([sealed[-1] ^ 1]), "doctor"), (sealed, "other")):
        try:
            sealer.open_sealed(data, label)
        except CretoError:
            continue
        raise AssertionError("sealed data opened though it, or its label, was changed")
    mode = (bench.scratch / "keys" / "sealing.key").stat().st_mode & 0o777
    if mode != 0o600:
        raise AssertionError(f"the sealing key has mode {mode:04o}")
    return "opens for its label, and not when changed"


CHECKS = [
    Check("crypto", "known-answer tests of both providers", _providers),
    Check("crypto", "forged signatures", _signatures),
    Check("crypto", "sealed keys at rest", _sealing),
]
