"""Where secret keys are kept, and where nothing of them is: the keyring, core dumps, logs, texts and memory."""

from __future__ import annotations

import base64
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import creto
from creto import _core
from creto.cli import main
from creto.crypto import open_sealer
from creto.errors import CretoError, InvalidInputError, NotFoundError
from creto.nhi import Identities
from creto.store import Store


@pytest.fixture
def keyring_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real keyring that keeps its secrets in a file, as a machine without a desktop has it."""
    import keyring
    from keyrings.alt.file import PlaintextKeyring

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    before = keyring.get_keyring()
    backend = PlaintextKeyring()
    keyring.set_keyring(backend)
    yield Path(backend.file_path)
    keyring.set_keyring(before)


def account(folder: Path) -> str:
    """The name of a folder's key in the keyring."""
    return (folder / "sealing.keyring").read_text().splitlines()[0]


# --- the keyring -----------------------------------------------------------------------------------------------------


def test_keys_sealed_by_the_keyring_open_again_and_the_folder_alone_opens_nothing(
    tmp_path: Path, keyring_file: Path
) -> None:
    folder = tmp_path / "keys"
    sealed = open_sealer(folder, "keyring").seal(b"secret", "label")
    assert open_sealer(folder, "keyring").open_sealed(sealed, "label") == b"secret"
    import keyring

    key = base64.b64decode(keyring.get_password("creto", account(folder)) or "")
    assert len(key) == 32
    assert keyring_file.is_file()
    for file in folder.iterdir():
        assert key not in file.read_bytes()
        assert key.hex().encode() not in file.read_bytes()
    # Another folder, another key; the same folder at another place, the same key.
    open_sealer(tmp_path / "other", "keyring")
    assert account(tmp_path / "other") != account(folder)
    folder.rename(tmp_path / "restored")
    assert open_sealer(tmp_path / "restored", "keyring").open_sealed(sealed, "label") == b"secret"


def test_a_key_that_left_the_keyring_is_missed_and_never_made_anew(tmp_path: Path, keyring_file: Path) -> None:
    import keyring

    folder = tmp_path / "keys"
    open_sealer(folder, "keyring")
    keyring.delete_password("creto", account(folder))
    with pytest.raises(NotFoundError, match="the keyring holds no key .*without that key they cannot be opened"):
        open_sealer(folder, "keyring")
    keyring.set_password("creto", account(folder), base64.b64encode(bytes(32)).decode())
    with pytest.raises(InvalidInputError, match="is another than the one that seals the keys in"):
        open_sealer(folder, "keyring")


def test_without_a_keyring_the_error_says_so(tmp_path: Path) -> None:
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        with pytest.raises(InvalidInputError, match="the keyring cannot be used"):
            open_sealer(tmp_path, "keyring")
    finally:
        keyring.set_keyring(before)


def test_a_folder_stays_with_what_sealed_its_keys(tmp_path: Path, keyring_file: Path) -> None:
    made = {"file": None, "passphrase": "correct horse", "keyring": None}
    for kind, passphrase in made.items():
        open_sealer(tmp_path / kind, kind, passphrase)
        for other in made.keys() - {kind}:
            with pytest.raises(
                InvalidInputError, match=f"sealed by `{kind}`, and `common.keys_sealed_by` says `{other}`"
            ):
                open_sealer(tmp_path / kind, other, "correct horse")
    with pytest.raises(InvalidInputError, match="none was given; set `CRETO_COMMON__PASSPHRASE`"):
        open_sealer(tmp_path / "passphrase", "passphrase")


def test_the_commands_keep_keys_as_configured(tmp_path: Path) -> None:
    environment = {**os.environ, "CRETO_STATE": str(tmp_path / "state"), "CRETO_COMMON__KEYS_SEALED_BY": "passphrase"}

    def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        everything = [sys.executable, "-m", "creto", *command]
        return subprocess.run(everything, capture_output=True, text=True, env={**environment, **more})

    create = ("agent", "create", "a")
    missing = run(*create)
    assert missing.returncode != 0
    assert "CRETO_COMMON__PASSPHRASE" in missing.stderr
    done = run(*create, CRETO_COMMON__PASSPHRASE="correct horse")
    assert done.returncode == 0, done.stderr
    wrong = run(*create, CRETO_COMMON__PASSPHRASE="battery staple")
    assert "the passphrase does not open" in wrong.stderr
    assert "staple" not in wrong.stderr
    # What needs no key asks for none; what does takes it from there, and makes no file that opens the others too.
    policy = tmp_path / "all.cedar"
    policy.write_text("permit (principal, action, resource);")
    for needs_none in (("policy", "explain", "a", "tool:call", "saw"), ("policy", "replay", str(policy))):
        told = run(*needs_none)
        assert told.returncode == 0, told.stderr
    for command in (("policy", "sign", str(policy)), ("policy", "keys"), ("agent", "list")):
        told = run(*command, CRETO_COMMON__PASSPHRASE="correct horse")
        assert told.returncode == 0, told.stderr
    assert not (tmp_path / "state" / "keys" / "sealing.key").exists()


# --- core dumps ------------------------------------------------------------------------------------------------------

DIES = """
import os, sys
from creto.crypto import SigningKey
from creto._core import KemKey
if sys.argv[1] == "with keys":
    kept = SigningKey.generate(), KemKey.generate()
os.abort()
"""


def dumps_of(folder: Path, *arguments: str, **more: str) -> list[Path]:
    """The core files that a process leaves which may dump as much as it wants."""
    folder.mkdir()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    process = subprocess.run(
        [sys.executable, "-c", DIES, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
        capture_output=True,
    )
    assert process.returncode < 0, process.stderr
    return list(folder.iterdir())


def test_a_folder_whose_keys_were_lost_gets_no_new_ones_and_goes_on_when_they_are_back(tmp_path: Path) -> None:
    state, away = tmp_path / "state", tmp_path / "away"

    def act() -> None:
        with creto.open_blocking(state) as layer:
            layer.perform_blocking(layer.agent("reader"), "tool:call", "search", lambda: 1)

    act()
    before = {path: path.read_bytes() for path in state.glob("ledger/*/checkpoint*")}
    (state / "keys").rename(away)
    with pytest.raises(NotFoundError, match=r"has a ledger, and .* does not have the key .* restore `keys` from the"):
        act()
    assert not list(state.glob("keys/*"))
    assert before == {path: path.read_bytes() for path in state.glob("ledger/*/checkpoint*")}
    away.rename(state / "keys")
    assert main(["--state", str(state), "audit", "verify"]) == 0
    act()


def test_a_process_that_holds_keys_leaves_no_core_dump(tmp_path: Path) -> None:
    if not dumps_of(tmp_path / "without", "without keys"):
        pytest.skip("this machine writes no core files into the working folder, so there is nothing to compare with")
    assert dumps_of(tmp_path / "with", "with keys") == []
    assert len(dumps_of(tmp_path / "allowed", "with keys", CRETO_ALLOW_CORE_DUMPS="1")) == 1


# --- canary ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_text_a_log_an_exception_or_a_pickle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = b"\xc0canary\xfe" + os.urandom(24)
    (tmp_path / "state" / "keys").mkdir(parents=True, mode=0o700)
    for folder in (tmp_path / "state", tmp_path / "state" / "keys"):
        folder.chmod(0o700)
    file = tmp_path / "state" / "keys" / "sealing.key"
    file.write_bytes(canary[:32])
    file.chmod(0o600)
    forms = [canary[:32].hex(), base64.b64encode(canary[:32]).decode(), repr(canary[:32])[2:-1], str(list(canary[:32]))]
    texts: list[str] = []
    with caplog.at_level(logging.DEBUG), Store(tmp_path / "state") as store:
        identities = Identities(store)
        agent = identities.agent("researcher")
        things = [
            identities._sealer,
            agent,
            agent.signing_key,
            agent.kem_keys,
            identities._authority,
            identities.domain(),
        ]
        texts += [repr(thing) + str(thing) + str(dir(thing)) for thing in things]
        for thing in things[:1] + things[2:3]:
            with pytest.raises(TypeError, match="pickle"):
                __import__("pickle").dumps(thing)
        for attempt in (
            lambda: _core.SigningKey.unseal(b"creto-sealed-1\n" + bytes(100), identities._sealer, "x"),
            lambda: identities._sealer.open_sealed(b"short", "x"),
            lambda: _core.Sealer.from_key(canary + b"!"),
        ):
            with pytest.raises(CretoError) as caught:
                attempt()
            texts.append(repr(caught.value) + str(caught.value) + repr(caught.value.__cause__))
        with store.read() as tx:
            from creto.store import tables

            texts += [
                repr(row)
                for table in (tables.outbox, tables.agents, tables.agent_keys)
                for row in tx.all(table.select())
            ]
    texts.append(caplog.text)
    for text in texts:
        for form in forms:
            assert form not in text
