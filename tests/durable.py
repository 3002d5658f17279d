"""Does one of each durable thing and says what is promised: `ACK kind key`, written the moment the promise is made.

usage: durable.py STATE [NAME]     the agent's name, so that a second run on the same folder does something new
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio

import creto
from creto import config
from creto.metering import UsageEvent
from creto.oversight import open_desk
from creto.reach import Reach
from creto.runtime import Secrets
from creto.store import Store
from desks import wait_for_request


def promise(kind: str, key: str) -> None:
    os.write(1, f"ACK {kind} {key}\n".encode())


# Shared by processes: units of it are leased in the store, and what was spent of them is in the ledger.
QUOTA = '[[quotas]]\nscope = "organisation"\nmeter = "requests"\nlimit = 100\nwindow = "day"\n'


async def main(state: Path, name: str) -> None:
    rules = state.parent / "house.toml"
    rules.write_text(QUOTA)
    async with creto.open(state, config=[rules]) as layer, anyio.create_task_group() as group:
        parts = layer.parts
        agent, reviewer, former = layer.agent(name), layer.agent("reviewer"), layer.agent(f"former-{name}")
        for one in (agent, reviewer, former):
            promise("agent", one.id)
        await parts.identities.rotate("reviewer")
        promise("rotated", reviewer.id)
        await parts.identities.revoke(former.name, "left")
        promise("revoked", former.id)
        Secrets(parts.store, parts.sealer).set("TOKEN", f"secret of {name}", agent=agent.id)
        promise("secret", agent.id)

        def answer() -> None:
            store = Store(state)
            reach = Reach(store)
            try:
                desk = open_desk(store, config.load(state=state), reach)
                approver = next(iter(desk.approvers.all()), None) or desk.approvers.add("ann")[0]
                promise("approver", approver.id)
                (request,) = wait_for_request(desk)
                desk.approve(request, approver, "fine")
                promise("approved", request.id)
            finally:
                reach.close()
                store.close()

        group.start_soon(anyio.to_thread.run_sync, answer)
        url = f"https://example.org/{name}"
        await layer.perform(agent, "http:get", url, lambda: promise("running", url), usage={"requests": 1})
        promise("performed", url)
        promise("spent", url)
        sent = await layer.send(agent, to="reviewer", body=b"x" * 3_000, receipt=False, attach={"plan": b"y" * 5_000})
        promise("message", sent.id)
        with layer.ingest() as ingest:
            now = time.time_ns() // 1_000
            await ingest.take([UsageEvent(name, str(n), "creto.local", "pages", 2, now) for n in range(20)])
            promise("usage", name)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "researcher")
