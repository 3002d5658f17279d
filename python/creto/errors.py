"""One exception class per error kind; every one tells its category and whether trying again may help.

No third-party import: `import creto` stays fast, and the native module raises these by name.
"""

from __future__ import annotations

import builtins
from typing import Any, ClassVar, Literal

Category = Literal["transient", "authorization", "oversight", "permanent"]

__all__ = [
    "AlreadyExistsError",
    "AttestationFailedError",
    "Category",
    "ConnectionFailedError",
    "CretoError",
    "DeliveryDeniedError",
    "EgressDeniedError",
    "EncryptionFailedError",
    "ForkedError",
    "IntegrityError",
    "InternalError",
    "InvalidInputError",
    "LedgerFullError",
    "NotFoundError",
    "OversightRequiredError",
    "QuotaExceededError",
    "SandboxSpawnFailedError",
    "SignatureVerificationFailedError",
    "TimeoutError",
    "UnauthorizedError",
]


class CretoError(Exception):
    """The base of every error that creto raises.

    Args:
        message: What was tried, on what, why not, and what to do.
        context: What was being tried, innermost first.
        retry_after: Seconds to wait before another try can succeed, where that is known.

    Example:
        >>> from creto.errors import QuotaExceededError
        >>> error = QuotaExceededError("team `research` has used 10 of 10 tool_calls", limit=10, used=10)
        >>> error.category, error.should_retry, error.limit
        ('authorization', False, 10)
    """

    kind: ClassVar[str] = "Internal"
    category: ClassVar[Category] = "permanent"
    _fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "", *, context: tuple[str, ...] = (), retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.context = tuple(context)
        self.retry_after = retry_after

    @property
    def should_retry(self) -> bool:
        """True where trying again may help."""
        return self.category == "transient"

    @property
    def fields(self) -> dict[str, Any]:
        """What this kind carries beyond its text, by name."""
        return {name: getattr(self, name) for name in self._fields}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        causes: list[str] = []
        cause = self.__cause__
        while cause is not None:
            causes.append(str(cause))
            cause = cause.__cause__
        return (
            from_core,
            (self.kind, self.message, self.fields, list(self.context), causes, self.retry_after),
            _extra(self),
        )


def _extra(error: CretoError) -> dict[str, Any] | None:
    kept = {name: value for name, value in vars(error).items() if name in ("__notes__", "policy_ids", "ticket")}
    return kept or None


class NotFoundError(CretoError):
    """There is no such thing."""

    kind = "NotFound"


class AlreadyExistsError(CretoError):
    """There is one already."""

    kind = "AlreadyExists"


class InvalidInputError(CretoError, ValueError):
    """The input has no valid reading; `what` says what, where and what to do."""

    kind = "InvalidInput"
    _fields = ("what",)

    def __init__(
        self, message: str = "", *, what: str = "", context: tuple[str, ...] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message or what, context=context, retry_after=retry_after)
        self.what = what or message


class UnauthorizedError(CretoError, PermissionError):
    """Policy, or the lack of one, forbids the act."""

    kind = "Unauthorized"
    category = "authorization"


class QuotaExceededError(CretoError):
    """A quota has no room for the act: `limit` and `used` in units of its meter."""

    kind = "QuotaExceeded"
    category = "authorization"
    _fields = ("limit", "used")

    def __init__(
        self,
        message: str = "",
        *,
        limit: int = 0,
        used: int = 0,
        context: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or f"quota exceeded: {used} of {limit} used", context=context, retry_after=retry_after)
        self.limit = limit
        self.used = used


class OversightRequiredError(CretoError):
    """A human has to agree first; `policy_id` names the policy that asks, `policy_ids` all that do, sorted."""

    kind = "OversightRequired"
    category = "oversight"
    _fields = ("policy_id",)

    def __init__(
        self, message: str = "", *, policy_id: str = "", context: tuple[str, ...] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(
            message or f"a human has to agree first (policy `{policy_id}`)", context=context, retry_after=retry_after
        )
        self.policy_id = policy_id
        self.policy_ids: list[str] = [policy_id] if policy_id else []


class SandboxSpawnFailedError(CretoError):
    """A sandbox did not start."""

    kind = "SandboxSpawnFailed"
    category = "transient"


class AttestationFailedError(CretoError):
    """An attestation does not hold."""

    kind = "AttestationFailed"


class EgressDeniedError(CretoError):
    """A connection out of a sandbox was refused; `destination` is `host:port`."""

    kind = "EgressDenied"
    category = "authorization"
    _fields = ("destination",)

    def __init__(
        self,
        message: str = "",
        *,
        destination: str = "",
        context: tuple[str, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or f"connection to `{destination}` denied", context=context, retry_after=retry_after)
        self.destination = destination


class EncryptionFailedError(CretoError):
    """Sealing or opening failed."""

    kind = "EncryptionFailed"


class SignatureVerificationFailedError(CretoError):
    """A signature is missing, added or not valid."""

    kind = "SignatureVerificationFailed"


class DeliveryDeniedError(CretoError):
    """A message may not be sent or received."""

    kind = "DeliveryDenied"
    category = "authorization"


class TimeoutError(CretoError, builtins.TimeoutError):
    """A deadline passed."""

    kind = "Timeout"
    category = "transient"


class ConnectionFailedError(CretoError, ConnectionError):
    """A peer or server could not be reached."""

    kind = "ConnectionFailed"
    category = "transient"


class InternalError(CretoError):
    """A fault of creto, or of the machine."""


class IntegrityError(CretoError):
    """Stored data contradicts its own proof."""

    kind = "Integrity"


class ForkedError(CretoError):
    """The process was forked since this was opened; open it again in the child."""

    kind = "Forked"


class LedgerFullError(CretoError):
    """The ledger cannot take more: the disk or the queue is full."""

    kind = "LedgerFull"


KINDS: dict[str, type[CretoError]] = {
    cls.kind: cls
    for cls in (
        NotFoundError,
        AlreadyExistsError,
        InvalidInputError,
        UnauthorizedError,
        QuotaExceededError,
        OversightRequiredError,
        SandboxSpawnFailedError,
        AttestationFailedError,
        EgressDeniedError,
        EncryptionFailedError,
        SignatureVerificationFailedError,
        DeliveryDeniedError,
        TimeoutError,
        ConnectionFailedError,
        InternalError,
        IntegrityError,
        ForkedError,
        LedgerFullError,
    )
}


def from_core(
    kind: str,
    message: str,
    fields: dict[str, Any],
    context: list[str],
    causes: list[str],
    retry_after: float | None,
) -> CretoError:
    """Makes the exception for an error of the native module; also how exceptions are unpickled."""
    error = KINDS.get(kind, InternalError)(message, context=tuple(context), retry_after=retry_after, **fields)
    inner: BaseException | None = None
    for text in reversed(causes):
        outer = CretoError(text)
        outer.__cause__ = inner
        inner = outer
    error.__cause__ = inner
    return error
