"""Does one of each durable thing and says what is promised: `ACK kind key`, written the moment the promise is made.

usage: durable.py STATE [NAME]     the agent's name, so that a second run on the same folder does something new
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

import creto
from creto import config
from creto.oversight import open_desk
from creto.reach import Reach
from creto.store import Store
from desks import wait_for_request


def promise(kind: str, key: str) -> None:
    os.write(1, f"ACK {kind} {key}\n".encode())


async def main(state: Path, name: str) -> None:
    async with creto.open(state) as layer, anyio.create_task_group() as group:
        agent, reviewer = layer.agent(name), layer.agent("reviewer")
        promise("agent", agent.id)
        promise("agent", reviewer.id)

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
        sent = await layer.send(agent, to="reviewer", body=b"x" * 3_000, receipt=False)
        promise("message", sent.id)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "researcher")
