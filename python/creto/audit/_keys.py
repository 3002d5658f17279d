"""The keys that sign a folder's checkpoints: made once, sealed, their public half kept where verifiers look for it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto.errors import IntegrityError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["open_ledger", "place", "signing_key", "trusted_keys"]

_LABEL = "ledger"


def place(path: Path, content: bytes) -> bool:
    """Makes a file that is whole and durable from the first moment; False where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            return False
    finally:
        new.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def signing_key(folder: Path, sealer: _core.Sealer) -> _core.SigningKey:
    """The key set that signs the checkpoints of a state folder; two processes that make it at once get the same.

    Args:
        folder: The state folder.
        sealer: Seals the secret half.

    Raises:
        EncryptionFailedError: It was sealed by another sealer.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto import _core
        >>> from creto.audit import signing_key
        >>> folder, sealer = Path(tempfile.mkdtemp()), _core.Sealer.ephemeral()
        >>> signing_key(folder, sealer).verifying_key == signing_key(folder, sealer).verifying_key
        True
    """
    sealed = folder / "keys" / "ledger.sealed"
    if not sealed.exists():
        place(sealed, _core.SigningKey.generate().seal(sealer, _LABEL))
    key = _core.SigningKey.unseal(sealed.read_bytes(), sealer, _LABEL)
    # One file for each key that ever signed: a rotated key still vouches for what it signed.
    public = key.verifying_key
    place(folder / "keys" / f"ledger-{public.fingerprint[:16]}.pub", public.to_text().encode())
    return key


def trusted_keys(folder: Path, files: Iterable[Path] = ()) -> list[_core.VerifyingKey]:
    """The public keys that checkpoints are checked with: those in `files`, or else those that the state folder has.

    Args:
        folder: The state folder.
        files: Public keys from elsewhere, as `creto audit keys` prints them. An auditor brings these: whoever can
            change the folder can change the keys in it.

    Raises:
        InvalidInputError: A file holds no public key.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto import _core
        >>> folder = Path(tempfile.mkdtemp())
        >>> key = signing_key(folder, _core.Sealer.ephemeral())
        >>> [found.fingerprint for found in trusted_keys(folder)] == [key.verifying_key.fingerprint]
        True
    """
    found = list(files) or sorted((folder / "keys").glob("ledger-*.pub"))
    return [key for file in found for key in _read(Path(file))]


def _read(file: Path) -> list[_core.VerifyingKey]:
    try:
        return [_core.VerifyingKey.from_text(line) for line in file.read_text(encoding="utf-8").split()]
    except (InvalidInputError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"`{file}` holds no public key as `creto audit keys` prints it") from error


def open_ledger(
    folder: Path,
    clock: _core.HybridLogicalClock,
    sealer: _core.Sealer,
    *,
    trust_domain: str = "creto.local",
    settings: Any = None,
) -> _core.Ledger:
    """Opens the ledger of a state folder for writing: a free shard is taken over, or a new one made.

    Args:
        folder: The state folder.
        clock: Its clock.
        sealer: Seals the key that signs checkpoints.
        trust_domain: What the origins of its shards begin with.
        settings: The configuration, of which `audit.checkpoint_interval_seconds` and `audit.checkpoint_records` count.

    Raises:
        IntegrityError: What the shard's last holder left is damaged.
        LedgerFullError: There is no space for it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from creto import _core
        >>> from creto.audit import open_ledger
        >>> folder = Path(tempfile.mkdtemp())
        >>> ledger = open_ledger(folder, _core.HybridLogicalClock(folder / "clock"), _core.Sealer.ephemeral())
        >>> ledger.shard
        '0000'
        >>> ledger.close_blocking()
    """
    options: dict[str, Any] = {}
    if settings is not None:
        options["checkpoint_seconds"] = float(settings.audit.checkpoint_interval_seconds)
        options["checkpoint_records"] = int(settings.audit.checkpoint_records)
    key = signing_key(folder, sealer)
    try:
        return _core.Ledger(folder / "ledger", clock, key, origin=f"{trust_domain}/ledger", **options)
    except IntegrityError as error:
        error.add_note("nothing was written; `creto audit verify` says which record is damaged")
        raise
