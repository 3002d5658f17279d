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
    """There is no such agent, record, invoice or file; the text says which, and often what lists those there are.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     try:
        ...         layer.send_blocking(layer.agent("writer"), "nobody", b"hello")
        ...     except creto.NotFoundError as error:
        ...         print(error.category, error.should_retry)
        permanent False
    """

    kind = "NotFound"


class AlreadyExistsError(CretoError):
    """There is one already: an invoice of the same period, keys of another agent, a source of usage in use.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     _ = layer.parts.desk.approvers.add("release-desk")
        ...     try:
        ...         layer.parts.desk.approvers.add("release-desk")
        ...     except creto.AlreadyExistsError as error:
        ...         print(error.category)
        permanent
    """

    kind = "AlreadyExists"


class InvalidInputError(CretoError, ValueError):
    """The input has no valid reading; `what` says what, where and what to do.

    Example:
        >>> import creto
        >>> try:
        ...     creto.AuthzClient().install("permit (principal")
        ... except ValueError as error:  # it is one of these, too
        ...     print(error.kind, error.category)
        InvalidInput permanent
    """

    kind = "InvalidInput"
    _fields = ("what",)

    def __init__(
        self, message: str = "", *, what: str = "", context: tuple[str, ...] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message or what, context=context, retry_after=retry_after)
        self.what = what or message


class UnauthorizedError(CretoError, PermissionError):
    """Policy, or the lack of one, forbids the act.

    Example:
        >>> import tempfile, creto
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     try:
        ...         layer.perform_blocking(layer.agent("reader"), "memory:read", "acts", lambda: None)
        ...     except PermissionError as error:  # it is one of these, too
        ...         print(error.category, error.should_retry)
        authorization False
    """

    kind = "Unauthorized"
    category = "authorization"


class QuotaExceededError(CretoError):
    """A quota has no room for the act.

    Args:
        message: Which quota, of whom, and when it resets.
        limit: In the smallest unit of its meter.
        used: In the same unit.
        context: As for every error.
        retry_after: Seconds until the quota resets, where it does.

    Example:
        >>> from creto.errors import QuotaExceededError
        >>> error = QuotaExceededError(limit=10, used=9)
        >>> str(error), error.limit - error.used
        ('quota exceeded: 9 of 10 used', 1)
    """

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
    """A human has to agree first, and nobody has in time; `policy_ids` names all policies that ask, sorted.

    Args:
        message: On what a human has to agree.
        policy_id: The first of the policies that ask.
        context: As for every error.
        retry_after: As for every error.

    Example:
        >>> from creto.errors import OversightRequiredError
        >>> error = OversightRequiredError(policy_id="payments")
        >>> str(error), error.category
        ('a human has to agree first (policy `payments`)', 'oversight')
    """

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
    """A sandbox did not start; another try may help. `creto doctor sandbox` says what is missing.

    Example:
        >>> import creto
        >>> error = creto.SandboxSpawnFailedError("the sandbox did not answer within 10 s", retry_after=1.0)
        >>> error.should_retry, error.retry_after
        (True, 1.0)
    """

    kind = "SandboxSpawnFailed"
    category = "transient"


class AttestationFailedError(CretoError):
    """An attestation does not hold: it is not signed by the key it names, or says other than what was asked for.

    Example:
        >>> import creto
        >>> creto.AttestationFailedError("the statement names another image").should_retry
        False
    """

    kind = "AttestationFailed"


class EgressDeniedError(CretoError):
    """A connection out of a sandbox was refused.

    Args:
        message: Why.
        destination: `host:port`.
        context: As for every error.
        retry_after: As for every error.

    Example:
        >>> from creto.errors import EgressDeniedError
        >>> str(EgressDeniedError(destination="example.org:443"))
        'connection to `example.org:443` denied'
    """

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
    """Sealing or opening failed: the key is another one, or what was sealed has been changed.

    Example:
        >>> import creto
        >>> from creto.crypto import Sealer
        >>> sealed = Sealer.ephemeral().seal(b"secret", "label")
        >>> try:
        ...     Sealer.ephemeral().open_sealed(sealed, "label")  # another key
        ... except creto.EncryptionFailedError as error:
        ...     print(error.category)
        permanent
    """

    kind = "EncryptionFailed"


class SignatureVerificationFailedError(CretoError):
    """A signature is missing, added or not valid, or by a key that is not trusted.

    Example:
        >>> import creto
        >>> from creto.crypto import SigningKey
        >>> key = SigningKey.generate("standard")
        >>> try:
        ...     key.verifying_key.verify(b"another text", key.sign(b"a text"))
        ... except creto.SignatureVerificationFailedError as error:
        ...     print(error.category)
        permanent
    """

    kind = "SignatureVerificationFailed"


class DeliveryDeniedError(CretoError):
    """A message may not be sent or received: policy says so, or its recipient does not know the sender.

    Example:
        >>> import tempfile, creto
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "policies.cedar").write_text('permit (principal, action == Action::"tool:call", resource);')
        >>> _ = (folder / "settings.toml").write_text(f'authz.policies = ["{folder}/policies.cedar"]')
        >>> with creto.open_blocking(folder / "state", config=folder / "settings.toml") as layer:
        ...     writer, reader = layer.agent("writer"), layer.agent("reader")
        ...     try:
        ...         layer.send_blocking(writer, "reader", b"hello")
        ...     except creto.DeliveryDeniedError as error:
        ...         print(error.category)
        authorization
    """

    kind = "DeliveryDenied"
    category = "authorization"


class TimeoutError(CretoError, builtins.TimeoutError):
    """A deadline passed; also a builtin `TimeoutError`, so code that catches that catches this.

    Example:
        >>> import builtins, creto
        >>> issubclass(creto.TimeoutError, builtins.TimeoutError), creto.TimeoutError().should_retry
        (True, True)
    """

    kind = "Timeout"
    category = "transient"


class ConnectionFailedError(CretoError, ConnectionError):
    """A peer or server could not be reached; also a builtin `ConnectionError`.

    Example:
        >>> import creto
        >>> issubclass(creto.ConnectionFailedError, ConnectionError), creto.ConnectionFailedError().should_retry
        (True, True)
    """

    kind = "ConnectionFailed"
    category = "transient"


class InternalError(CretoError):
    """A fault of creto, or of the machine: report it with what `--verbose` prints.

    Example:
        >>> import creto
        >>> creto.InternalError("the loop ended early").kind
        'Internal'
    """


class IntegrityError(CretoError):
    """Stored data contradicts its own proof: it was changed, removed or put in another's place.

    Example:
        >>> import creto
        >>> creto.IntegrityError("record 7 of shard `0000` is not the one that was signed").category
        'permanent'
    """

    kind = "Integrity"


class ForkedError(CretoError):
    """The process was forked since this was opened; open it again in the child.

    Example:
        >>> import creto
        >>> issubclass(creto.ForkedError, creto.CretoError), creto.ForkedError("opened by the parent").category
        (True, 'permanent')
    """

    kind = "Forked"


class LedgerFullError(CretoError):
    """The ledger cannot take more: the disk or the queue is full; the act was not done.

    Example:
        >>> import creto
        >>> error = creto.LedgerFullError("the ledger cannot take more: no space left on the device")
        >>> error.kind, error.should_retry
        ('LedgerFull', False)
    """

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
