"""What seals the secret keys of a state folder: a key file in it, a passphrase, or a key in the system's keyring."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from creto._core import Sealer
from creto.errors import InvalidInputError, NotFoundError

__all__ = ["open_sealer"]

_SERVICE = "creto"
_MARK = "sealing.keyring"
_OTHERS = {"file": "sealing.key", "passphrase": "sealing.passphrase", "keyring": _MARK}


def open_sealer(folder: Path, sealed_by: str = "file", passphrase: str | None = None) -> Sealer:
    """The sealer of a state folder, made on first use; of processes that make it at once, one wins and the others read.

    Args:
        folder: The state folder's `keys`.
        sealed_by: `file`: a key file of mode 0600 in the folder. `passphrase`: a key made from it by Argon2id.
            `keyring`: a key in the operating system's keyring, through the package `keyring`.
        passphrase: Where it is sealed by one.

    Raises:
        InvalidInputError: The folder's keys are sealed otherwise, the passphrase is missing or wrong, or there is no
            keyring here.
        NotFoundError: The keyring does not hold the key any more.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> sealed = open_sealer(folder, "passphrase", "correct horse battery staple").seal(b"token", "mail server")
        >>> open_sealer(folder, "passphrase", "correct horse battery staple").open_sealed(sealed, "mail server")
        b'token'
    """
    for kind, name in _OTHERS.items():
        if kind != sealed_by and (folder / name).exists():
            raise InvalidInputError(
                f"the keys in `{folder}` are sealed by `{kind}`, and `common.keys_sealed_by` says `{sealed_by}`; "
                "set it back, or start with an empty state folder"
            )
    if sealed_by == "keyring":
        return _by_keyring(folder)
    if sealed_by == "passphrase":
        if not passphrase:
            raise InvalidInputError(
                "keys are sealed by a passphrase, and none was given; set `CRETO_COMMON__PASSPHRASE`"
            )
        return Sealer.open(folder, passphrase.encode())
    return Sealer.open(folder)


def _by_keyring(folder: Path) -> Sealer:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ModuleNotFoundError as error:
        raise InvalidInputError("keys in the keyring need an extra: run `pip install 'creto[keyring]'`") from error
    mark = folder / _MARK
    try:
        # A keyring has no compare-and-swap: whoever is first holds the lock while it makes the key.
        with _locked(folder):
            if not mark.exists():
                account, key = f"state folder {secrets.token_hex(8)}", secrets.token_bytes(32)
                keyring.set_password(_SERVICE, account, base64.b64encode(key).decode())
                new = mark.with_suffix(".new")
                new.write_text(f"{account}\n{_check(key)}\n")
                new.replace(mark)
            # By a name of its own, and not by its place: a folder that was restored elsewhere finds its key too.
            account, check = mark.read_text().splitlines()
            text = keyring.get_password(_SERVICE, account)
            if text is None:
                raise NotFoundError(
                    f"the keyring holds no key `{account}` of `{_SERVICE}`, which seals the keys in `{folder}`; unlock "
                    "the keyring that does, or restore it: without that key they cannot be opened"
                )
            key = base64.b64decode(text)
            if _check(key) != check:
                raise InvalidInputError(
                    f"the keyring's key `{account}` is another than the one that seals the keys in `{folder}`"
                )
            return Sealer.from_key(key)
    except KeyringError as error:
        raise InvalidInputError(f"the keyring cannot be used: {error}".strip()) from error


def _check(key: bytes) -> str:
    return hashlib.sha256(b"creto keyring check v1" + key).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / ".keyring-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
