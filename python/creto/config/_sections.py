"""The sections of the configuration, each setting with its default and what it means.

`reload` marks what a running process takes up; `path` marks what is relative to the file that names it.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from creto import _core
from creto.config._currencies import PLACES
from creto.config._patterns import APPROVER, EMAIL, SHORTEST_TOKEN

__all__ = [
    "Approver",
    "Audit",
    "Authz",
    "Channel",
    "Common",
    "Customer",
    "Issuer",
    "Messaging",
    "Metering",
    "Oversight",
    "Price",
    "Quota",
    "Runtime",
    "Section",
    "Tier",
    "described",
]


# Those that the native module knows: a new suite is added there and nowhere else.
if TYPE_CHECKING:
    _Suite = str
else:
    _Suite = Literal[_core.SUITES]


def described(schema: dict[str, Any]) -> None:
    """The JSON Schema tells what a section is, and leaves out its example in Python."""
    schema["description"] = str(schema.get("description", "")).partition("\n\n")[0]


class Section(BaseModel):
    """A part of the configuration: closed, so that a misspelt name is found, and never changed in place."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        json_schema_extra=described,
    )


def _setting(default: Any = ..., *, reload: bool = False, path: bool = False, **rules: Any) -> Any:
    return Field(default, json_schema_extra={"reload": reload, "path": path}, **rules)


def _endpoint(value: str) -> str:
    if value != "embedded:":
        raise ValueError("only `embedded:` works in this version; an endpoint needs the server's client")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone; use a name such as `Europe/Paris`") from error
    return value


def _currency(value: str) -> str:
    if len(value) != 3 or not (value.isascii() and value.isalpha() and value.isupper()):
        raise ValueError("write three capital letters, by ISO 4217, such as `USD`")
    if value not in PLACES:
        raise ValueError("no such currency in ISO 4217; write one that it has, such as `USD`")
    return value


def _store_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgresql+psycopg://", "postgres://")):
        raise ValueError("write a `postgresql://` URL; where there is none, the store is a file in the state folder")
    return value


def _token(value: SecretStr) -> SecretStr:
    if (length := len(value.get_secret_value())) < SHORTEST_TOKEN:
        raise ValueError(
            f"it has {length} characters; give at least {SHORTEST_TOKEN}, such as `openssl rand -hex 16` prints"
        )
    return value


def _hosts(value: dict[str, str]) -> dict[str, str]:
    for name, place in value.items():
        address, _, port = place.rpartition(":")
        if not name or not address or not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"`{name}` leads to `{place}`: write an address and a port, such as `127.0.0.1:8080`")
    return value


def _matching(pattern: str, otherwise: str) -> AfterValidator:
    """Text of a pattern; `otherwise` says what to write."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


_trust_domain = _matching(
    r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?", "write small letters, digits, `.`, `-` and `_`, as in `example.org`"
)
_approver = _matching(APPROVER, "write letters, digits, `.`, `_` and `-`, at most 64 of them")
_address = _matching(EMAIL, "write an address, such as `release-desk@example.org`")
Currency = Annotated[str, Field(json_schema_extra={"pattern": "^[A-Z]{3}$"}), AfterValidator(_currency)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Common(Section):
    """What every part shares."""

    trust_domain: Annotated[str, _trust_domain] = _setting("creto.local")
    """The SPIFFE trust domain that agents and approvers are named in."""
    authz_endpoint: Endpoint = _setting("embedded:")
    """Where decisions are made."""
    audit_endpoint: Endpoint = _setting("embedded:")
    """Where the ledger is."""
    store_url: Annotated[SecretStr, AfterValidator(_store_url)] | None = _setting(None)
    """A `postgresql://` URL for the store, in place of SQLite in the state folder."""
    suite: _Suite = _setting("standard")
    """The suite of new keys and messages."""
    keys_sealed_by: Literal["file", "passphrase", "keyring"] = _setting("file")
    """What seals secret keys in the state folder: a key file in it, a passphrase, or a key in the system's keyring."""
    passphrase: SecretStr | None = _setting(None)
    """The passphrase, where keys are sealed by one; better in the environment than in a file."""
    log_level: Literal["debug", "info", "warning", "error"] = _setting("warning", reload=True)
    """What is logged."""


class Authz(Section):
    """Policy."""

    policies: list[Path] = _setting([], reload=True, path=True)
    """Cedar policy files, or patterns such as `policies/*.cedar`; the starter policy where there are none."""
    schema_file: Path | None = _setting(None, reload=True, path=True)
    """The Cedar schema of the policies; the built-in one where there is none."""
    entities: list[Path] = _setting([], reload=True, path=True)
    """Entities in Cedar's JSON, or patterns; the agents and their teams are there without it."""
    signature: Path | None = _setting(None, reload=True, path=True)
    """What `creto policy sign` wrote for these policies, schema and entities."""
    trusted_keys: list[Path] = _setting([], path=True)
    """Public keys (`creto policy keys`); where there are any, a set that none of them signed is refused."""
    shadow: list[Path] = _setting([], reload=True, path=True)
    """Policies asked beside those in force: what they would decide otherwise is recorded, never enforced."""
    on_error: Literal["deny"] = _setting("deny")
    """What the gate does where a `forbid` could not be evaluated: it denies. Nothing else is offered."""


class Audit(Section):
    """The ledger."""

    durability: Literal["strict", "relaxed"] = _setting("strict")
    """Whether an act waits for its records to be on disk."""
    checkpoint_interval_seconds: Seconds = _setting(1)
    """The longest time between signed checkpoints while records come."""
    checkpoint_records: int = _setting(10_000, ge=1)
    """The most records between signed checkpoints."""
    retention_days: int = _setting(183, ge=1, reload=True)
    """How long what is recorded about a person is kept before it may be erased without a reason; records stay."""


class Metering(Section):
    """Quota and usage."""

    quota_cache_ttl_seconds: Seconds = _setting(60)
    """The life of a lease of quota units."""
    aggregation_interval_seconds: Seconds = _setting(300)
    """How often usage is aggregated."""
    grace_seconds: Annotated[float, Field(ge=0, le=366 * 86400, allow_inf_nan=False)] = _setting(0)
    """How long after its end a period is invoiced at the earliest, so that late usage is in it; what comes later still
    becomes an adjustment in the next invoice."""
    late_seconds: Seconds = _setting(35 * 86400)
    """How late usage events of others are taken in; older ones are refused."""
    model_prices: Path | None = _setting(None, path=True)
    """A table of language models' prices in LiteLLM's public form, in US dollars: acts `model:call` on one of them, and
    events that say `model`, are priced by it, where `prices` has nothing for that model."""
    currency: Currency = _setting("USD")
    """The currency of prices that name none, by ISO 4217."""
    time_zone: TimeZone = _setting("UTC")
    """Where calendar windows and billing periods begin."""
    on_outage: Literal["deny", "allow"] = _setting("deny")
    """What happens to an act when shared quota cannot be asked for and leased units are spent."""


class Oversight(Section):
    """Humans."""

    default_timeout_seconds: Seconds = _setting(3600)
    """How long a request waits for an answer."""
    inbox_host: Name = _setting("127.0.0.1")
    """Where the inbox page listens."""
    inbox_port: int = _setting(0, ge=0, le=65535)
    """Its port; 0 for any free one."""
    inbox_url: str | None = _setting(None, reload=True)
    """The inbox as approvers reach it, for links in announcements."""
    metrics_token: Annotated[SecretStr, AfterValidator(_token)] | None = _setting(None)
    """With which Prometheus reads the inbox's `/metrics`, at least 16 characters; without it there is no such page."""
    slack_webhook_url: SecretStr | None = _setting(None, reload=True)
    """A Slack incoming webhook that announces requests."""
    email_smtp_host: str | None = _setting(None, reload=True)
    """The SMTP server that sends announcements."""
    email_smtp_port: int = _setting(587, ge=1, le=65535, reload=True)
    """Its port."""
    email_smtp_tls: Literal["starttls", "tls", "none"] = _setting("starttls", reload=True)
    """STARTTLS (refused where the server offers none), TLS from the first byte, or none."""
    email_smtp_user: str | None = _setting(None, reload=True)
    """The user to log in as."""
    email_smtp_password: SecretStr | None = _setting(None, reload=True)
    """That user's password."""
    email_from: str | None = _setting(None, reload=True)
    """The sender of announcements."""


class Runtime(Section):
    """Sandboxes."""

    default_backend: Literal["gvisor", "process"] = _setting("gvisor")
    """What isolates."""
    warm_pool_min_size: int = _setting(10, ge=0, le=10_000)
    """How many sandboxes stand ready at least."""
    warm_pool_max_size: int = _setting(100, ge=1, le=10_000)
    """How many there are at most."""
    memory_limit_bytes: int = _setting(4 << 30, ge=64 << 20)
    """Memory of each process in a sandbox; of the whole sandbox where the machine has control groups."""
    disk_limit_bytes: int = _setting(1 << 30, ge=1 << 20)
    """What one sandbox may write to its working folder."""
    scratch_limit_bytes: int = _setting(256 << 20, ge=1 << 20)
    """What it may write to `/tmp`."""
    max_processes: int = _setting(512, ge=8)
    """Processes and threads inside one sandbox."""
    max_open_files: int = _setting(4096, ge=32)
    """Open files of one process."""
    cpu_limit_milli: int = _setting(0, ge=0)
    """Processors of one sandbox, in thousandths, where the machine has control groups; 0 is no limit."""
    run_timeout_seconds: Seconds | None = _setting(None)
    """How long one run may take."""
    hosts: Annotated[dict[str, str], AfterValidator(_hosts)] = _setting({})
    """Names that lead where you say, `{"packages.example": "127.0.0.1:8080"}`; nothing else leads to private ones."""
    trees: list[Path] = _setting([], path=True)
    """Further folders of this machine that sandboxes may read, at the same path."""

    @model_validator(mode="after")
    def _pool(self) -> Runtime:
        if self.warm_pool_min_size > self.warm_pool_max_size:
            raise ValueError(
                f"`warm_pool_min_size` ({self.warm_pool_min_size}) is more than "
                f"`warm_pool_max_size` ({self.warm_pool_max_size})"
            )
        return self


class Messaging(Section):
    """Messages between agents."""

    delivery_timeout_seconds: Seconds = _setting(30)
    """How long `send` waits for the recipient's receipt where it is asked to."""
    max_message_size_bytes: int = _setting(1_048_576, ge=1, le=1 << 30)
    """The largest plaintext."""
    nats_url: SecretStr | None = _setting(None)
    """The NATS server that carries messages between machines."""


class Quota(Section):
    """One limit, on one name of the path from organisation to agent, or on each of a floor.

    Example:
        >>> quota = Quota(scope="agent", meter="tool_calls", limit=100, window="day")
        >>> quota.overage, quota.soft
        ('deny', [50, 80, 100])
    """

    scope: Name
    """`organisation`, `team` or `agent` for each of that floor; `agent:reader` for that one, in place of each."""
    meter: Annotated[str, Field(max_length=128)] = ""
    """What is counted, such as `tool_calls`. Two are money: `spent:USD`, meant where `money` names none, is what acts
    cost: by `prices`, and by what they say under `cost:USD` where nothing prices that. `cost:USD` is only what they say
    in their usage, in billionths."""
    limit: Decimal = Field(ge=0, allow_inf_nan=False)
    """How much, in the meter's smallest unit; money in the currency's unit."""
    kind: Literal["fixed", "sliding", "gcra", "calendar", "concurrent", "cumulative", "money"] | None = None
    """How it is counted; follows from `window` where it is left out."""
    window: str | None = None
    """A length such as `90s`, `1m`, `12h`, `7d`, or `hour`, `day`, `week`, `month`, `year` of the calendar."""
    time_zone: TimeZone | None = None
    """Where calendar windows begin; the section's where there is none."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """How much at once, for gcra."""
    soft: list[Annotated[int, Field(ge=0, le=100)]] = [50, 80, 100]
    """At which percentages of the limit a notice is given."""
    overage: Literal["deny", "warn"] = "deny"
    """What happens beyond the limit."""
    share: Literal["store", "process"] = "store"
    """Whether all processes on the store share the count, or each has its own; sliding and gcra count per process."""
    currency: Currency | None = None
    """For money; the section's where there is none."""

    @model_validator(mode="after")
    def _fits(self) -> Quota:
        from creto._core import check_quota_rules
        from creto.errors import InvalidInputError
        from creto.metering._rules import rules_json

        try:
            check_quota_rules(rules_json([self], "UTC", self.currency or "XXX"))
        except InvalidInputError as error:
            # The rule is told apart by where it stands in the settings already.
            said = str(error).removeprefix("quota rule 1: ").removeprefix("invalid input: ")
            if said.startswith("window ") and "write a length" in said:
                said += ", or `minute`, `hour`, `day`, `week`, `month` or `year` of the calendar"
            raise ValueError(said) from error
        return self


def _reckonable(section: BaseModel) -> None:
    """A price is reckoned with exactly: `1e-999999999` would be a number of a billion digits."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Decimal):
            _, digits, exponent = value.as_tuple()
            if len(digits) > 100 or abs(int(exponent)) > 100:
                raise ValueError(f"`{name}` has more than 100 places")


class Tier(Section):
    """A step of a graduated or volume price."""

    up_to: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] | None = None
    """The last unit of the step; none for the last step."""
    unit_price: Decimal = Field(ge=0, allow_inf_nan=False)
    """Per unit of the step."""
    flat: Decimal = Field(default=Decimal(0), ge=0, allow_inf_nan=False)
    """For entering the step."""

    @model_validator(mode="after")
    def _fits(self) -> Tier:
        _reckonable(self)
        return self


class Price(Section):
    """What the use of a meter costs, from a date on.

    Example:
        >>> Price(meter="tool_calls", unit_price="0.05").model
        'per_unit'
    """

    meter: Name
    """What is priced."""
    model: Literal["per_unit", "flat", "graduated", "volume", "package", "percentage", "dynamic", "commitment"] = (
        "per_unit"
    )
    """How: per unit, once a period, by steps, by the step that all of it falls in, by packages, as a share of the
    quantity (an amount of money), the quantity itself (each event brings its price with it), or as a commitment: what
    the invoice of a period costs at least, whatever its other lines are."""
    unit_price: Decimal = Field(default=Decimal(0), ge=0, allow_inf_nan=False)
    """Per unit; for flat the fee of the period; for package that of one package; for percentage the percents; for a
    commitment what was committed to."""
    per: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] = Decimal(1)
    """How many units `unit_price` is for; the size of a package."""
    tiers: list[Tier] = []
    """For graduated and volume."""
    currency: Currency | None = None
    """The section's where there is none."""
    included: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)
    """Units of each billing period that cost nothing."""
    minimum: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] = Decimal(0)
    """What the line of a period costs at least."""
    discount: Annotated[Decimal, Field(ge=0, le=100, allow_inf_nan=False)] = Decimal(0)
    """Percents taken off the line."""
    aggregation: Literal["sum", "count", "min", "max", "avg", "latest", "unique", "weighted"] = "sum"
    """What of a period's events is priced; `weighted` is each quantity times the seconds until the next."""
    customer: Name | None = None
    """Only for this customer (the organisation of a path)."""
    when: dict[str, str] = {}
    """Only for events with these dimensions."""
    start: datetime | None = None
    """From when; always, where there is none."""
    description: str = ""
    """For the invoice."""

    @model_validator(mode="after")
    def _fits(self) -> Price:
        _reckonable(self)
        if self.meter.startswith("spent:"):
            raise ValueError(f"`{self.meter}` follows from the prices of other meters: it has none itself")
        if self.model in {"graduated", "volume"}:
            bounds = [tier.up_to for tier in self.tiers]
            steps = [bound for bound in bounds if bound is not None]
            if not bounds or bounds[-1] is not None or None in bounds[:-1] or steps != sorted(set(steps)):
                raise ValueError(f"a `{self.model}` price needs `tiers` with rising `up_to`, and a last one without")
        elif self.tiers:
            raise ValueError(f"a `{self.model}` price has no `tiers`")
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError("`start` needs a time zone, such as `2026-01-01T00:00:00Z`")
        return self


class _Party(Section):
    name: Annotated[str, Field(max_length=256)] = ""
    """As it stands on invoices."""
    address: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=16)] = []
    """Its lines."""
    tax_id: Annotated[str, Field(max_length=256)] = ""
    """The number for value added or sales tax; taxes themselves are not worked out."""


class Issuer(_Party):
    """Who invoices are from."""


class Customer(_Party):
    """Who invoices are for."""

    id: Name
    """The organisation that usage is counted under, as `creto usage --by customer` shows it."""
    reference: Annotated[str, Field(max_length=256)] = ""
    """What the customer wants to find on invoices, such as the number of an order."""


class Approver(Section):
    """A human who may answer."""

    name: Annotated[str, _approver]
    """As in `spiffe://<trust domain>/approver/<name>`; out of the file it lives on, until `creto approver revoke`."""
    policies: list[Name] = []
    """The oversight policies this one may answer for; all where there are none."""
    email: Annotated[str, _address] | None = None
    """Where announcements go."""


class Channel(Section):
    """A way to announce requests."""

    kind: Literal["webhook", "slack", "email"]
    """How it is announced."""
    name: Name
    """For people."""
    url: SecretStr | None = None
    """For webhook and slack."""
    secret: SecretStr | None = None
    """The key that signs webhooks, `whsec_...`."""
    to: list[Annotated[str, _address]] = []
    """Addresses, for email."""
    policies: list[Name] = []
    """Only requests under these policies; all where there are none."""
    after_seconds: Annotated[float, Field(ge=0, le=366 * 86400, allow_inf_nan=False)] = 0.0
    """Only requests that nobody has answered by then: who is told next."""
    alerts: bool = True
    """Whether quotas that reach a percentage of `soft` are told here too."""

    @model_validator(mode="after")
    def _fits(self) -> Channel:
        if self.kind in {"webhook", "slack"} and self.url is None:
            raise ValueError(f"a `{self.kind}` channel needs `url`")
        if self.kind == "webhook" and self.secret is None:
            raise ValueError("a `webhook` channel needs `secret`, so that the receiver can tell who sent it")
        if self.kind == "email" and not self.to:
            raise ValueError("an `email` channel needs `to`")
        return self
