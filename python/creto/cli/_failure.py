"""The one place that turns an error into what a person reads, and into an exit code."""

from __future__ import annotations

import json
import sys
import traceback

import click

from creto._plain import is_text, plain
from creto.errors import CretoError, InvalidInputError

__all__ = ["exit_code", "leaf", "render"]

FAILED, USAGE, DENIED, QUOTA, OVERSIGHT, INTEGRITY, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

_CODES = {
    "InvalidInput": USAGE,
    "Unauthorized": DENIED,
    "EgressDenied": DENIED,
    "DeliveryDenied": DENIED,
    "QuotaExceeded": QUOTA,
    "OversightRequired": OVERSIGHT,
    "Integrity": INTEGRITY,
    "SignatureVerificationFailed": INTEGRITY,
    "AttestationFailed": INTEGRITY,
}


def exit_code(error: BaseException) -> int:
    """The exit code for an error: 1 failed, 2 usage, 3 denied, 4 quota, 5 oversight, 6 integrity.

    Example:
        >>> from creto.errors import QuotaExceededError
        >>> exit_code(QuotaExceededError(limit=10, used=10))
        4
    """
    error = leaf(error)
    return _CODES.get(error.kind, FAILED) if isinstance(error, CretoError) else FAILED


def leaf(error: BaseException) -> BaseException:
    """The error itself; where task groups have wrapped several, the one that creto raised first."""
    if isinstance(error, UnicodeEncodeError) and not is_text(str(error.object)):
        # An argument or a name of a file in another encoding: halves of characters stand for its bytes.
        return InvalidInputError(f"`{error.object}` is not text in UTF-8, which policies and records are kept in")
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(inner) for inner in error.exceptions]
    return next((inner for inner in leaves if isinstance(inner, CretoError)), leaves[0])


def render(error: BaseException, *, as_json: bool, verbose: bool, above: int = 0) -> int:
    """Writes an error to standard error and returns its exit code, added to `above`."""
    error = leaf(error)
    code = above + exit_code(error)
    if as_json:
        click.echo(json.dumps({"error": _fields(error), "exit_code": code}), err=True)
    else:
        click.echo(f"{click.style('creto:', fg='red', bold=True)} {plain(_headline(error), lines=True)}", err=True)
        for cause in _causes(error):
            click.echo(f"  because: {plain(cause)}", err=True)
        if not isinstance(error, CretoError) and not _of_a_file(error) and not verbose:
            click.echo("  this is a fault in creto; run again with --verbose for the whole trace", err=True)
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    return code


def _of_a_file(error: BaseException) -> bool:
    """Whether the system said no to a file that someone named: that is told as it is, and is no fault of ours."""
    return isinstance(error, OSError) and error.filename is not None and bool(error.strerror)


def _headline(error: BaseException) -> str:
    if isinstance(error, CretoError):
        return str(error) or error.kind
    if isinstance(error, OSError) and _of_a_file(error):
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
        return f"`{name}`: {str(error.strerror)[:1].lower()}{str(error.strerror)[1:]}"
    return f"{type(error).__name__}: {error}"


def _causes(error: BaseException) -> list[str]:
    causes: list[str] = []
    cause = error.__cause__
    while cause is not None and len(causes) < 8:
        known = isinstance(cause, OSError) and cause.strerror
        text = known if known else " ".join(str(cause).split())
        # A translated error repeats its cause's text, at times under another word for its kind; once is enough.
        if (
            text
            and not any(part in str(error) for part in (text, text.partition(": ")[2] or text))
            and text not in causes
        ):
            causes.append(text if len(text) <= 300 else text[:299] + "…")
        cause = cause.__cause__
    return causes


def _fields(error: BaseException) -> dict[str, object]:
    if not isinstance(error, CretoError):
        return {"kind": "Internal", "category": "permanent", "message": _headline(error), "causes": _causes(error)}
    return {
        "kind": error.kind,
        "category": error.category,
        "message": str(error),
        "should_retry": error.should_retry,
        "retry_after": error.retry_after,
        "context": list(error.context),
        "causes": _causes(error),
        **error.fields,
    }
