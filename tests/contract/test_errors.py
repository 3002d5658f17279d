"""Every error kind, from Rust to Python and back: class, attributes, category, text, pickling."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

import creto
from creto import _core, errors
from creto.cli._failure import exit_code, render
from creto.errors import KINDS, CretoError

# The specification's fourteen and ours: category, and what the kind carries beyond its text.
EVERY = {
    "NotFound": ("permanent", {}),
    "AlreadyExists": ("permanent", {}),
    "InvalidInput": ("permanent", {"what": "the name is empty"}),
    "Unauthorized": ("authorization", {}),
    "QuotaExceeded": ("authorization", {"limit": 10, "used": 2**63}),
    "OversightRequired": ("oversight", {"policy_id": "payments"}),
    "SandboxSpawnFailed": ("transient", {}),
    "AttestationFailed": ("permanent", {}),
    "EgressDenied": ("authorization", {"destination": "example.org:443"}),
    "EncryptionFailed": ("permanent", {}),
    "SignatureVerificationFailed": ("permanent", {}),
    "DeliveryDenied": ("authorization", {}),
    "Timeout": ("transient", {}),
    "ConnectionFailed": ("transient", {}),
    "Internal": ("permanent", {}),
    "Integrity": ("permanent", {}),
    "Forked": ("permanent", {}),
    "LedgerFull": ("permanent", {}),
}
EXIT = {
    "InvalidInput": 2,
    "Unauthorized": 3,
    "EgressDenied": 3,
    "DeliveryDenied": 3,
    "QuotaExceeded": 4,
    "OversightRequired": 5,
    "Integrity": 6,
    "SignatureVerificationFailed": 6,
    "AttestationFailed": 6,
}
every_kind = pytest.mark.parametrize("kind", EVERY)


def made(kind: str, **more: object) -> CretoError:
    return KINDS[kind]("", **EVERY[kind][1], **more)  # type: ignore[arg-type]


def through_rust(error: CretoError) -> CretoError:
    crossed = _core._round_trip(error)
    assert isinstance(crossed, CretoError)
    return crossed


def test_there_is_one_class_for_each_kind_and_no_other() -> None:
    assert KINDS.keys() == EVERY.keys()
    assert {cls.__name__ for cls in KINDS.values()} == {f"{kind}Error" for kind in EVERY}
    assert {f"{kind}Error" for kind in EVERY} <= set(errors.__all__)
    for kind, cls in KINDS.items():
        assert getattr(creto, f"{kind}Error") is cls


@every_kind
def test_a_kind_keeps_its_class_category_and_fields_through_rust(kind: str) -> None:
    category, fields = EVERY[kind]
    crossed = through_rust(made(kind))
    assert type(crossed) is KINDS[kind]
    assert crossed.kind == kind
    assert crossed.category == category
    assert crossed.should_retry is (category == "transient")
    assert crossed.fields == fields
    assert {name: getattr(crossed, name) for name in fields} == fields


@every_kind
def test_a_kind_says_in_rust_what_it_says_in_python(kind: str) -> None:
    text = str(through_rust(made(kind)))
    assert text, "Rust has a text for every kind"
    assert text[0].islower()
    for value in EVERY[kind][1].values():
        assert str(value) in text


@every_kind
def test_a_kind_survives_pickling_and_copying_whole(kind: str) -> None:
    error = made(kind, context=("asking `authz`", "performing `http:get`"), retry_after=1.5)
    error.__cause__ = CretoError("no answer")
    error.add_note("seen on a Monday")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), pickle.loads(pickle.dumps(through_rust(error)))):
        assert type(again) is KINDS[kind]
        assert again.fields == error.fields
        assert again.retry_after == 1.5
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.context == ("asking `authz`", "performing `http:get`")
    assert str(again.__cause__) == "no answer"
    assert again.__notes__ == ["seen on a Monday"]


def test_the_retry_time_crosses_both_ways() -> None:
    assert through_rust(made("Timeout", retry_after=0.25)).retry_after == 0.25
    assert through_rust(made("Timeout")).retry_after is None


def test_what_raised_is_the_cause_after_the_crossing() -> None:
    original = KINDS["ConnectionFailed"]("the server at `h:1` did not answer")
    causes = []
    cause = through_rust(original).__cause__
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert any("the server at `h:1` did not answer" in text for text in causes)


def test_an_exception_that_is_not_ours_becomes_internal_and_keeps_its_text() -> None:
    crossed = _core._round_trip(ZeroDivisionError("division by zero"))
    assert type(crossed) is errors.InternalError
    assert "division by zero" in str(crossed.__cause__)


def test_pythons_own_families_hold_ours() -> None:
    assert issubclass(errors.TimeoutError, TimeoutError)
    assert issubclass(errors.ConnectionFailedError, ConnectionError)
    assert issubclass(errors.UnauthorizedError, PermissionError)
    assert issubclass(errors.InvalidInputError, ValueError)


@every_kind
def test_the_command_line_gives_each_kind_its_exit_code_and_says_it_once(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = through_rust(made(kind))
    error.__cause__ = None
    assert exit_code(error) == exit_code(ExceptionGroup("tasks", [ValueError(), error])) == EXIT.get(kind, 1)
    render(error, as_json=False, verbose=False)
    assert capsys.readouterr().err == f"creto: {error}\n"
    render(error, as_json=True, verbose=False)
    told = json.loads(capsys.readouterr().err)
    assert told["exit_code"] == EXIT.get(kind, 1)
    assert told["error"].items() >= {"kind": kind, "category": error.category, **error.fields}.items()
