"""Messages: that only the recipient opens one, and only unchanged."""

from __future__ import annotations

import anyio

from creto.cli._checks import Bench, Check

__all__ = ["CHECKS"]


def _round_trip(bench: Bench) -> str:
    from creto.messaging import Mailbox
    from creto.nhi import Identities
    from creto.reach import Reach

    async def main() -> bytes:
        with Reach(bench.store) as reach:
            identities = Identities(bench.store, trust_domain=bench.settings.common.trust_domain, reach=reach)
            writer, reader = identities.agent("doctor-writer"), identities.agent("doctor-reader")
            mailbox = Mailbox(bench.store, identities, reach)
            with anyio.fail_after(20):
                await mailbox.send(writer, "doctor-reader", b"hello from the doctor")
                async with mailbox.inbox(reader) as inbox:
                    async for message in inbox:
                        await message.ack()
                        return message.body
        raise AssertionError("the mailbox ended before the message came")

    if anyio.run(main) != b"hello from the doctor":
        raise AssertionError("the message that came is not the one that was sent")
    return "sealed by one agent, opened and receipted by another"


CHECKS = [Check("messages", "a sealed message from agent to agent", _round_trip)]
