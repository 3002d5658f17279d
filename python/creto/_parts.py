"""The parts of a layer, opened in the order in which they need each other, and closed in the reverse."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creto import _core
from creto._user import user_id
from creto.errors import InvalidInputError

if TYPE_CHECKING:
    from creto.audit import AuditClient
    from creto.authz._configured import PolicySet
    from creto.config import Live, Settings
    from creto.memory import Memory
    from creto.metering import QuotaEnforcer
    from creto.nhi import Agent, Identities
    from creto.oversight import Desk
    from creto.oversight._desk import Found
    from creto.reach import Reach
    from creto.store import Store

__all__ = ["ClosedParts", "Parts"]


class Parts:
    """One of each part, over one state folder.

    Args:
        state: The state folder; `CRETO_STATE` or the user's own by default.
        config: Configuration files that override the others.
        project: The folder whose `creto.toml` counts if it is trusted; the working folder by default.
    """

    def __init__(self, state: Path | None = None, config: Iterable[Path] = (), project: Path | None = None) -> None:
        from creto.audit import AuditClient, open_ledger
        from creto.audit._clock_alarm import ClockAlarm
        from creto.authz._order import TOPIC
        from creto.config import Live
        from creto.metering import open_quota
        from creto.metering._upkeep import Upkeep
        from creto.nhi import Identities
        from creto.oversight import configure_desk, open_desk
        from creto.reach import Reach
        from creto.store import Store, open_folder

        with ExitStack() as closing:
            self.folder: Path = open_folder(state)
            self.live: Live = Live(tuple(config), state=self.folder, project=project, record=self.record)
            settings = self.live.current
            settings.require_as_trusted()
            for warning in settings.warnings:
                logging.getLogger("creto.config").warning("%s", warning)
            self.clock = _core.HybridLogicalClock(str(self.folder / "clock"))
            self.clock.install()
            self.sealer = settings.sealer(self.folder)
            url = settings.common.store_url
            self.store: Store = Store(url.get_secret_value() if url else self.folder, clock=self.clock.now)
            closing.callback(self.store.close)
            self.ledger: _core.Ledger = open_ledger(
                self.folder,
                self.clock,
                self.sealer,
                trust_domain=settings.common.trust_domain,
                settings=settings,
            )
            closing.callback(self.ledger.close_blocking)
            self.audit: AuditClient = AuditClient(self.ledger, self.folder)
            self.store.attach(self.audit)
            self.reach: Reach = Reach(self.store, self.folder)
            closing.callback(self.reach.close)
            self.identities: Identities = Identities(
                self.store,
                trust_domain=settings.common.trust_domain,
                suite=settings.common.suite,
                sealer=self.sealer,
                reach=self.reach,
            )
            self.policy = _core.PolicyEngine()
            # Agents that come while a set is installed are put beside those that were read for it, not under them.
            self._entities_change = threading.Lock()
            self._before: tuple[Settings, PolicySet, PolicySet | None] | None = None
            self._served: tuple[Settings, PolicySet, PolicySet | None] | None = None
            self._install(settings)
            self.live.follow(self._install)
            self.reach.on("identity", lambda _key: self._refresh_agents())
            self.quota: QuotaEnforcer = open_quota(
                settings,
                self.store,
                reach=self.reach,
                live=self.live,
                shard=self.ledger.shard,
                relaxed=settings.audit.durability != "strict",
                ledger=self.folder / "ledger",  # also where the store is elsewhere
            )
            closing.callback(self.quota.close)
            self.gate = _core.Gate(self.policy, self.quota, self.ledger, self.clock)
            self._put_shadow()
            self.desk: Desk = open_desk(self.store, settings, self.reach, sealer=self.sealer)
            closing.callback(self.desk.close)
            self.live.follow(lambda changed: configure_desk(self.desk, changed))
            # The last to take a change: where one before it refuses, the set before serves on, and is no older.
            self._keep_order(settings)
            self.live.follow(self._keep_order)
            self.reach.on(TOPIC, lambda _key: self.live.look_again())
            upkeep = Upkeep(
                self.quota,
                self.folder / "ledger",
                settings.metering.aggregation_interval_seconds,
                self._alert,
            )
            # Before the desk: its last notices go out over the desk's channels.
            closing.callback(upkeep.close)
            closing.callback(ClockAlarm(self.clock, self.ledger).close)
            self._closing = closing.pop_all()

    def _alert(self, notice: Mapping[str, Any]) -> None:
        """Tells over the channels that a quota has reached a percentage that somebody wants to hear of."""
        from creto.metering._period import window_began
        from creto.oversight.channels import Alert, Announcements

        announcer = self.desk.announcer
        if isinstance(announcer, Announcements):
            announcer.alert(Alert.of(notice, window_began(str(notice["window"]), int(notice["at"]))))

    @property
    def settings(self) -> Settings:
        """The configuration as it stands now."""
        return self.live.current

    @cached_property
    def memory(self) -> Memory:
        """Past acts and decisions by likeness; made at first use. It asks nobody: `EnablementLayer.recall` does."""
        from creto.memory import MOST, Memory, Precedents, acts

        memory = Memory(self.folder / "memory", lambda _who, _namespace: None)
        memory.add("acts", partial(acts, self.folder / "ledger"), most=MOST)
        memory.add("precedents", Precedents(self.store).after)
        return memory

    async def recover(self) -> None:
        """Says how acts ended whose process is gone; none of them is run again."""
        await self.desk.recover(self._found)

    async def _found(self, act: str) -> Found:
        kinds = {record.kind: record for record in await self.audit.query(act=act)}
        if "outcome" in kinds:
            return "success" if kinds["outcome"].outcome == "success" else "failure"
        if "intent" in kinds:
            return "intent"
        return "nothing" if kinds else "elsewhere"

    def close(self) -> None:
        """Closes every part, the last opened first."""
        self._closing.close()

    def quota_path(self, agent: Agent) -> list[str]:
        """Where an agent's quotas are: the organisation, its teams, the agent, then each of its delegators."""
        above = list(agent.path) or [self.settings.common.trust_domain]
        return [*above, agent.id, *(link for link, _ in agent.chain if link != agent.id)]

    def record(self, record: dict[str, Any]) -> None:
        """Puts a record of the layer's own doings in the ledger's queue."""
        self.audit.log_nowait(record)

    # --- policy -------------------------------------------------------------------------------------------------------

    def _install(self, settings: Settings) -> None:
        """Puts the configured policy set in force; one that is not right raises, and the old one serves."""
        from creto.authz._configured import configured, installed_shadow, merged, shadowed
        from creto.authz._order import require_not_older
        from creto.authz._signed import moment

        before = self._before
        if before is not None and before[0] is settings:
            # The change is taken back: what served before it serves again, whatever the files hold by now.
            _, chosen, shadow = before
        else:
            chosen = configured(settings)
            shadow = shadowed(settings, chosen)
            if chosen.signed is not None:
                require_not_older(self.store, chosen.signed)
        with self._entities_change:
            entities = merged(self._agents(), chosen.entities)
            beside = installed_shadow(shadow, entities)
            digest, _warnings = chosen.install(self.policy, entities)
            self._entities = chosen.entities
            self.shadow = beside
        self._before, self._served = self._served, (settings, chosen, shadow)
        self._put_shadow()
        detail = {"files": ", ".join(str(path) for path in chosen.files) or "starter"}
        if chosen.signed is not None:
            detail["signed"] = moment(chosen.signed)
        if beside is not None:
            detail["shadow"] = (beside.digest or b"").hex()
        self.record(
            {
                "who": user_id(settings.common.trust_domain),
                "what": "policy:install",
                "resource": digest.hex(),
                "policy": digest,
                "detail": detail,
            }
        )

    def _keep_order(self, _settings: Settings) -> None:
        """Notes when the set in force was signed: none that was signed before it comes after it."""
        from creto.authz._order import keep

        if self._served is not None and self._served[1].signed is not None:
            keep(self.store, self._served[1].signed)

    def _put_shadow(self) -> None:
        if hasattr(self, "gate"):
            self.gate.shadow(self.shadow)

    def _agents(self) -> list[dict[str, Any]]:
        from creto.authz._configured import agent_entities

        return agent_entities(self.identities.agents())

    def _refresh_agents(self) -> None:
        from creto.authz._configured import merged

        with self._entities_change:
            entities = merged(self._agents(), self._entities)
            self.policy.upsert_entities(entities)
            if self.shadow is not None:
                self.shadow.upsert_entities(entities)


class ClosedParts:
    """What a layer holds once it is closed: whatever is asked of it says so."""

    def __getattr__(self, name: str) -> Any:
        raise InvalidInputError(
            "the layer is closed: act inside of `async with creto.open()` or `with creto.open_blocking()`"
        )
