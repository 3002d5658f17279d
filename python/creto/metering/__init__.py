"""Quota before the act, usage after it, and money: `creto.metering`.

The public names, loaded when first used, and nothing else.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from creto.metering._authority import Authority as Authority
    from creto.metering._authority import StoreAuthority as StoreAuthority
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
    from creto.metering._usage import UsageEvent as UsageEvent
    from creto.metering._usage import read_usage as read_usage
    from creto.metering._verify import verify_invoice as verify_invoice

_HOMES = {
    "ModelPrices": "_llm",
    "Ingest": "_ingest",
    "Authority": "_authority",
    "Bucket": "_usage",
    "Invoices": "_invoices",
    "Leases": "_leases",
    "PriceBook": "_price",
    "QuotaEnforcer": "_quota",
    "Reservation": "_quota",
    "StoreAuthority": "_authority",
    "Usage": "_usage",
    "UsageEvent": "_usage",
    "open_quota": "_open",
    "read_usage": "_usage",
    "verify_invoice": "_verify",
}

__all__ = [
    "Authority",
    "Bucket",
    "Ingest",
    "Invoices",
    "Leases",
    "ModelPrices",
    "PriceBook",
    "QuotaEnforcer",
    "Reservation",
    "StoreAuthority",
    "Usage",
    "UsageEvent",
    "open_quota",
    "read_usage",
    "verify_invoice",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `creto.metering` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(f"creto.metering.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
