"""creto: the enablement layer that every act of an AI agent goes through.

The public names, loaded when first used, and nothing else.
"""

TYPE_CHECKING = False  # typing's own import would cost half of ours
if TYPE_CHECKING:
    from creto._core import consensus_timestamp as consensus_timestamp
    from creto.audit import AuditClient as AuditClient
    from creto.audit import AuditRecord as AuditRecord
    from creto.authz import AuthzClient as AuthzClient
    from creto.authz import CheckRequest as CheckRequest
    from creto.authz import Decision as Decision
    from creto.errors import CretoError as CretoError
    from creto.layer import EnablementLayer as EnablementLayer
    from creto.layer import open as open
    from creto.layer import open_blocking as open_blocking
    from creto.metering import QuotaEnforcer as QuotaEnforcer
    from creto.operations import audited_operation as audited_operation
    from creto.operations import authorized_operation as authorized_operation

_HOMES = {
    "AuditClient": "creto.audit",
    "AuditRecord": "creto.audit",
    "AuthzClient": "creto.authz",
    "CheckRequest": "creto.authz",
    "CretoError": "creto.errors",
    "Decision": "creto.authz",
    "EnablementLayer": "creto.layer",
    "QuotaEnforcer": "creto.metering",
    "audited_operation": "creto.operations",
    "authorized_operation": "creto.operations",
    "consensus_timestamp": "creto._core",
    "open": "creto.layer",
    "open_blocking": "creto.layer",
}

__all__ = [
    "AuditClient",
    "AuditRecord",
    "AuthzClient",
    "CheckRequest",
    "CretoError",
    "Decision",
    "EnablementLayer",
    "QuotaEnforcer",
    "audited_operation",
    "authorized_operation",
    "consensus_timestamp",
    "open",
    "open_blocking",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
