"""Quota before the act, usage after it, and money: `creto.metering`.

The public names, loaded when first used, and nothing else.
"""

from creto._lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from creto.metering._authority import Authority as Authority
    from creto.metering._authority import StoreAuthority as StoreAuthority
    from creto.metering._event import UsageEvent as UsageEvent
    from creto.metering._evidence import EventEvidence as EventEvidence
    from creto.metering._evidence import LedgerEvidence as LedgerEvidence
    from creto.metering._heads import Heads as Heads
    from creto.metering._ingest import Ingest as Ingest
    from creto.metering._invoices import Invoices as Invoices
    from creto.metering._leases import Leases as Leases
    from creto.metering._llm import ModelPrices as ModelPrices
    from creto.metering._open import open_quota as open_quota
    from creto.metering._price import PriceBook as PriceBook
    from creto.metering._quota import QuotaEnforcer as QuotaEnforcer
    from creto.metering._quota import Reservation as Reservation
    from creto.metering._usage import Bucket as Bucket
    from creto.metering._usage import Usage as Usage
    from creto.metering._usage import read_events as read_events
    from creto.metering._usage import read_usage as read_usage
    from creto.metering._verify import verify_invoice as verify_invoice

_HOMES = {
    "ModelPrices": "creto.metering._llm",
    "Heads": "creto.metering._heads",
    "Ingest": "creto.metering._ingest",
    "Authority": "creto.metering._authority",
    "Bucket": "creto.metering._usage",
    "EventEvidence": "creto.metering._evidence",
    "LedgerEvidence": "creto.metering._evidence",
    "Invoices": "creto.metering._invoices",
    "Leases": "creto.metering._leases",
    "PriceBook": "creto.metering._price",
    "QuotaEnforcer": "creto.metering._quota",
    "Reservation": "creto.metering._quota",
    "StoreAuthority": "creto.metering._authority",
    "Usage": "creto.metering._usage",
    "UsageEvent": "creto.metering._event",
    "open_quota": "creto.metering._open",
    "read_events": "creto.metering._usage",
    "read_usage": "creto.metering._usage",
    "verify_invoice": "creto.metering._verify",
}

__all__ = [
    "Authority",
    "Bucket",
    "EventEvidence",
    "Heads",
    "Ingest",
    "Invoices",
    "Leases",
    "LedgerEvidence",
    "ModelPrices",
    "PriceBook",
    "QuotaEnforcer",
    "Reservation",
    "StoreAuthority",
    "Usage",
    "UsageEvent",
    "open_quota",
    "read_events",
    "read_usage",
    "verify_invoice",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
