"""creto: the enablement layer that every act of an AI agent goes through.

The public names, loaded when first used, and nothing else.
"""

from creto._lazy import lazily

TYPE_CHECKING = False  # typing's own import would cost half of ours
if TYPE_CHECKING:
    from creto._core import consensus_timestamp as consensus_timestamp
    from creto.audit import AuditClient as AuditClient
    from creto.audit import AuditRecord as AuditRecord
    from creto.authz import AuthzClient as AuthzClient
    from creto.authz import CheckRequest as CheckRequest
    from creto.authz import Decision as Decision
    from creto.errors import AlreadyExistsError as AlreadyExistsError
    from creto.errors import AttestationFailedError as AttestationFailedError
    from creto.errors import ConnectionFailedError as ConnectionFailedError
    from creto.errors import CretoError as CretoError
    from creto.errors import DeliveryDeniedError as DeliveryDeniedError
    from creto.errors import EgressDeniedError as EgressDeniedError
    from creto.errors import EncryptionFailedError as EncryptionFailedError
    from creto.errors import ForkedError as ForkedError
    from creto.errors import IntegrityError as IntegrityError
    from creto.errors import InternalError as InternalError
    from creto.errors import InvalidInputError as InvalidInputError
    from creto.errors import LedgerFullError as LedgerFullError
    from creto.errors import NotFoundError as NotFoundError
    from creto.errors import OversightRequiredError as OversightRequiredError
    from creto.errors import QuotaExceededError as QuotaExceededError
    from creto.errors import SandboxSpawnFailedError as SandboxSpawnFailedError
    from creto.errors import SignatureVerificationFailedError as SignatureVerificationFailedError
    from creto.errors import TimeoutError as TimeoutError
    from creto.errors import UnauthorizedError as UnauthorizedError
    from creto.layer import EnablementLayer as EnablementLayer
    from creto.layer import open as open
    from creto.layer import open_blocking as open_blocking
    from creto.metering import QuotaEnforcer as QuotaEnforcer
    from creto.operations import audited_operation as audited_operation
    from creto.operations import authorized_operation as authorized_operation

_HOMES = {
    "AlreadyExistsError": "creto.errors",
    "AttestationFailedError": "creto.errors",
    "AuditClient": "creto.audit",
    "AuditRecord": "creto.audit",
    "AuthzClient": "creto.authz",
    "CheckRequest": "creto.authz",
    "ConnectionFailedError": "creto.errors",
    "CretoError": "creto.errors",
    "Decision": "creto.authz",
    "DeliveryDeniedError": "creto.errors",
    "EgressDeniedError": "creto.errors",
    "EnablementLayer": "creto.layer",
    "EncryptionFailedError": "creto.errors",
    "ForkedError": "creto.errors",
    "IntegrityError": "creto.errors",
    "InternalError": "creto.errors",
    "InvalidInputError": "creto.errors",
    "LedgerFullError": "creto.errors",
    "NotFoundError": "creto.errors",
    "OversightRequiredError": "creto.errors",
    "QuotaEnforcer": "creto.metering",
    "QuotaExceededError": "creto.errors",
    "SandboxSpawnFailedError": "creto.errors",
    "SignatureVerificationFailedError": "creto.errors",
    "TimeoutError": "creto.errors",
    "UnauthorizedError": "creto.errors",
    "audited_operation": "creto.operations",
    "authorized_operation": "creto.operations",
    "consensus_timestamp": "creto._core",
    "open": "creto.layer",
    "open_blocking": "creto.layer",
}

__all__ = [
    "AlreadyExistsError",
    "AttestationFailedError",
    "AuditClient",
    "AuditRecord",
    "AuthzClient",
    "CheckRequest",
    "ConnectionFailedError",
    "CretoError",
    "Decision",
    "DeliveryDeniedError",
    "EgressDeniedError",
    "EnablementLayer",
    "EncryptionFailedError",
    "ForkedError",
    "IntegrityError",
    "InternalError",
    "InvalidInputError",
    "LedgerFullError",
    "NotFoundError",
    "OversightRequiredError",
    "QuotaEnforcer",
    "QuotaExceededError",
    "SandboxSpawnFailedError",
    "SignatureVerificationFailedError",
    "TimeoutError",
    "UnauthorizedError",
    "audited_operation",
    "authorized_operation",
    "consensus_timestamp",
    "open",
    "open_blocking",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
