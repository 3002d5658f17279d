"""Quota before the act, usage after it, and money: `creto.metering`.

The public names, loaded when first used, and nothing else.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from creto.metering._authority import Authority as Authority
    from creto.metering._authority import StoreAuthority as StoreAuthority
    from creto.metering._leases import Leases as Leases
    from creto.metering._open import open_quota as open_quota
    from creto.metering._quota import QuotaEnforcer as QuotaEnforcer
    from creto.metering._quota import Reservation as Reservation

_HOMES = {
    "Authority": "_authority",
    "Leases": "_leases",
    "QuotaEnforcer": "_quota",
    "Reservation": "_quota",
    "StoreAuthority": "_authority",
    "open_quota": "_open",
}

__all__ = sorted(_HOMES)


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
