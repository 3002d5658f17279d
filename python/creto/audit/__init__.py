"""The ledger: what was done, by whom and why; append-only, and provable to whoever has its files and a public key.

Nothing here decides or changes anything else; the store decides, the ledger proves.
"""

from creto._lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from creto.audit._client import AuditClient as AuditClient
    from creto.audit._keys import open_ledger as open_ledger
    from creto.audit._keys import signing_key as signing_key
    from creto.audit._keys import trusted_keys as trusted_keys
    from creto.audit._reading import Proof as Proof
    from creto.audit._reading import Verified as Verified
    from creto.audit._record import AuditRecord as AuditRecord
    from creto.audit._subject import Subjects as Subjects
    from creto.audit._tampering import tampered_copy as tampered_copy

_HOMES = {
    "AuditClient": "creto.audit._client",
    "AuditRecord": "creto.audit._record",
    "Proof": "creto.audit._reading",
    "Subjects": "creto.audit._subject",
    "Verified": "creto.audit._reading",
    "open_ledger": "creto.audit._keys",
    "signing_key": "creto.audit._keys",
    "tampered_copy": "creto.audit._tampering",
    "trusted_keys": "creto.audit._keys",
}

__all__ = [
    "AuditClient",
    "AuditRecord",
    "Proof",
    "Subjects",
    "Verified",
    "open_ledger",
    "signing_key",
    "tampered_copy",
    "trusted_keys",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
