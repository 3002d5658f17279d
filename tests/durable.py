"""Does one of each durable thing and says what is promised: `ACK kind key`, written the moment the promise is made.

usage: durable.py STATE [NAME]     the agent's name, so that a second run on the same folder does something new
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import anyio
from sqlalchemy import select

import creto
from creto import config
from creto.audit import AuditRecord, Subjects
from creto.config import Price
from creto.messaging import Mailbox
from creto.messaging._arriving import Answer, Arriving
from creto.metering import EventEvidence, Invoices, PriceBook, UsageEvent
from creto.nhi import Agent, Identities
from creto.oversight import open_desk
from creto.reach import Reach
from creto.runtime import Secrets
from creto.store import Store
from creto.store.tables import outgoing as leaving
from desks import wait_for_request


def promise(kind: str, key: str) -> None:
    os.write(1, f"ACK {kind} {key}\n".encode())


# Shared by processes: units of it are leased in the store, and what was spent of them is in the ledger.
QUOTA = '[[quotas]]\nscope = "organisation"\nmeter = "requests"\nlimit = 100\nwindow = "day"\n'


DAY = 86_400_000_000
TOLD_OF_HER = {"born": "1970"}


def invoice(store: Store, customer: str) -> str:
    """Invoices a customer for a day, and returns the invoice's number."""
    used = EventEvidence([UsageEvent("app", customer, customer, "pages", 10, 5)])
    book = PriceBook([Price(meter="pages", unit_price="0.25")], "EUR")
    [made] = Invoices(store).run(book, 0, DAY, "UTC", used, customers=[customer])
    return made.number


async def tell_of_people(layer: creto.EnablementLayer, name: str) -> None:
    """Records what is personal of two people, and erases one of them."""
    audit, subjects = layer.parts.audit, Subjects(layer.parts.folder, layer.parts.sealer)
    for person in (f"ann of {name}", f"bob of {name}"):
        await audit.log(subjects.sealed(AuditRecord(who="w", what="crm:read"), person, TOLD_OF_HER))
    promise("person", f"ann_of_{name}")
    subjects.erase(f"bob of {name}")
    promise("erased", f"bob_of_{name}")


async def write_to_another_machine(layer: creto.EnablementLayer, agent: Agent) -> None:
    """Sends to an agent of another store, takes its receipt, and answers what comes from there; as a carrier does."""
    parts = layer.parts
    with Store(parts.folder.parent / "there") as store:
        there = Identities(store, trust_domain="there.test")
        far = there.agent("far")
        for one, other in ((parts.identities, there), (there, parts.identities)):
            one.import_blocking(other.export(), fingerprint=other.domain().verifying_key.fingerprint)
        here, elsewhere = Mailbox(parts.store, parts.identities, remote=True), Mailbox(store, there, remote=True)
        for text in ("on its way", "that arrives"):
            sent = await here.send(agent, far.id, text)
            promise("leaving", sent.id)
        [answer] = Arriving(elsewhere).take_in([(far.id, outgoing(parts.store, sent.id))])
        assert isinstance(answer, Answer)
        assert Arriving(here).take_receipts([(far.id, answer.statement.encode())])[0] == [None]
        promise("received", sent.id)
        back = await elsewhere.send(far, agent.id, "from there")
        [answer] = Arriving(here).take_in([(agent.id, outgoing(store, back.id))])
        assert isinstance(answer, Answer)
        promise("answered", back.id)


def outgoing(store: Store, message_id: str) -> bytes:
    with store.read() as tx:
        return bytes(tx.scalar(select(leaving.c.envelope).where(leaving.c.message_id == message_id)))


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
                former = desk.approvers.add(f"former-{name}")[0]
                promise("approver", former.id)
                desk.approvers.revoke(former.name)
                promise("dismissed", former.id)
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
        await write_to_another_machine(layer, agent)
        await tell_of_people(layer, name)
        for customer in (name, f"{name}-two"):
            promise("invoice", invoice(parts.store, customer))
        with layer.ingest() as ingest:
            now = time.time_ns() // 1_000
            await ingest.take([UsageEvent(name, str(n), "creto.local", "pages", 2, now) for n in range(20)])
            promise("usage", name)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "researcher")
