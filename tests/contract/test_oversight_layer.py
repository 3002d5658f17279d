"""Oversight as an agent meets it: through `perform`, with the ledger beside it, over crashes and revocations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import creto
from creto import config
from creto.cli import main
from creto.errors import NotFoundError, OversightRequiredError, UnauthorizedError
from creto.oversight import Desk, Request
from creto.reach import Reach
from creto.store import Commit, Store
from desks import wait_for_request
from servers import Start

URL = "https://example.org/page"

_AGENT = f"""
import anyio, creto, os
async def main():
    async with creto.open() as layer:
        async def fetch():
            print("fetching", flush=True)
            await anyio.sleep(60)
        await layer.perform(layer.agent("researcher"), "http:get", {URL!r}, fetch, usage={{"requests": 1}})
anyio.run(main)
"""


class Approving:
    """The approver's side, in this process, of layers that run in this and in others."""

    def __init__(self, state: Path) -> None:
        from creto.oversight import open_desk

        self.store = Store(state)
        self.reach = Reach(self.store)
        self.desk: Desk = open_desk(self.store, config.load(state=state), self.reach)
        self.ann, _ = self.desk.approvers.add("ann")

    def close(self) -> None:
        self.reach.close()
        self.store.close()


@pytest.fixture
def approving(state: Path) -> Iterator[Approving]:
    opened = Approving(state)
    yield opened
    opened.close()


async def _performed(approving: Approving, answer: Any, ran: list[str]) -> list[Any]:
    """Performs one act that is asked about, has it answered, and returns the records of the ledger."""
    async with creto.open() as layer, anyio.create_task_group() as group:

        async def act() -> None:
            await layer.perform(
                layer.agent("researcher"), "http:get", URL, lambda: ran.append("ran"), usage={"requests": 1}
            )

        async def reply() -> None:
            (request,) = await anyio.to_thread.run_sync(wait_for_request, approving.desk)
            await anyio.to_thread.run_sync(answer, request)

        group.start_soon(reply)
        try:
            await act()
        finally:
            ran.append("over")
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                records = list(await layer.parts.audit.query())
    return records


def test_an_approved_act_runs_once_and_its_records_share_one_act_from_intent_to_outcome(approving: Approving) -> None:
    ran: list[str] = []
    records = anyio.run(_performed, approving, lambda r: approving.desk.approve(r, approving.ann, "fine"), ran)
    assert ran == ["ran", "over"]
    (request,) = approving.desk.all()
    assert (request.state, request.decided_by) == ("executed", approving.ann.id)
    ours = [record.what for record in records if record.act == request.ledger_act]
    assert ours == ["http:get", "oversight:executing", "http:get", "oversight:executed"]
    asked = [record.what for record in records if record.act == request.id]
    assert asked == ["oversight:requested", "oversight:approved"]


def test_a_denied_act_does_not_run_and_is_shown_by_the_digits_that_the_message_has(
    approving: Approving, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(_performed, approving, lambda r: approving.desk.deny(r, approving.ann, "no surveys today"), ran)
    refused = caught.value
    while isinstance(refused, ExceptionGroup):
        (refused,) = refused.exceptions
    assert isinstance(refused, UnauthorizedError)
    assert str(refused).endswith("was denied by `spiffe://creto.local/approver/ann`: no surveys today")
    assert ran == ["over"]
    (request,) = approving.desk.all()
    assert main(["audit", "show", request.id[:8]]) == 0
    said = capsys.readouterr().out
    assert "oversight:requested" in said
    assert "a human said no: no surveys today" in said
    assert main(["audit", "show", "00000000"]) == 1
    assert (
        "no oversight request begins with `00000000`; an act or a record is named by all of its 32"
        in capsys.readouterr().err
    )


def test_who_asks_what_an_agent_was_refused_is_told_of_humans_too(approving: Approving) -> None:
    async def refused() -> list[tuple[str, str, str, bool]]:
        async with creto.open() as layer:
            agent = layer.agent("researcher")
            with pytest.raises(OversightRequiredError):
                await layer.perform(agent, "http:get", URL, lambda: 1, timeout=0)
            async with anyio.create_task_group() as group:

                async def deny() -> None:
                    (request,) = await anyio.to_thread.run_sync(wait_for_request, approving.desk)
                    await anyio.to_thread.run_sync(approving.desk.deny, request, approving.ann, "no surveys today")

                group.start_soon(deny)
                with pytest.raises(UnauthorizedError):
                    await layer.perform(agent, "http:get", URL, lambda: 1)
            records = await layer.parts.audit.query(outcome="refused", action="http:*", agent=agent.id)
            requests = {request.id for request in approving.desk.all()}
            return [(r.resource, r.why, r.detail["refused"], r.act in requests) for r in records]

    assert anyio.run(refused) == [
        (URL, "nobody answered in time", "oversight", True),
        (URL, "a human said no: no surveys today", "oversight", True),
    ]


def test_an_act_killed_half_way_is_unknown_afterwards_and_is_asked_about_again(
    approving: Approving, python: Start
) -> None:
    def start(count: int) -> tuple[Any, Request]:
        process = python(_AGENT)
        (request,) = wait_for_request(approving.desk, seconds=30)
        approving.desk.approve(request, approving.ann)
        assert process.stdout is not None
        assert process.stdout.readline() == "fetching\n", process.stderr and process.stderr.read()
        assert len(approving.desk.all()) == count
        return process, request

    process, first = start(1)
    assert approving.desk.find(first.id).state == "executing"
    process.kill()
    process.wait()
    # The next layer on the folder says how it ended, and the same act needs a new agreement: the old one is used up.
    process, second = start(2)
    assert approving.desk.find(first.id).state == "unknown"
    assert approving.desk.find(second.id).state == "executing"
    process.kill()


def test_an_act_that_nobody_answers_does_not_run(state: Path) -> None:
    async def main() -> None:
        async with creto.open() as layer:
            with pytest.raises(OversightRequiredError, match="nobody answered in time"):
                await layer.perform(layer.agent("a"), "http:get", URL, lambda: pytest.fail("it ran"), timeout=0.3)

    anyio.run(main)


async def _agreed(layer: creto.EnablementLayer, approving: Approving, operation: Callable[[], Any], **how: Any) -> Any:
    """Performs one act that a human agrees to."""
    agent = layer.agent("researcher")
    acting = asyncio.create_task(layer.perform(agent, "http:get", URL, operation, **how))
    (request,) = await asyncio.to_thread(wait_for_request, approving.desk)
    await asyncio.to_thread(approving.desk.approve, request, approving.ann)
    return await acting


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_an_act_that_asyncio_itself_cancels_at_its_end_is_no_longer_executing(
    approving: Approving, durability: creto.Durability
) -> None:
    def done() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # it is raised at the next wait: that for the record, or that for the store

    async def main() -> None:
        async with creto.open() as layer:
            with pytest.raises(asyncio.CancelledError):
                await _agreed(layer, approving, done, durability=durability)

    asyncio.run(main())
    assert [request.state for request in approving.desk.all()] == ["executed"]


def test_an_act_that_asyncio_itself_cancels_as_it_is_marked_executing_has_failed(approving: Approving) -> None:
    async def main() -> None:
        async with creto.open() as layer:
            loop, marked = asyncio.get_running_loop(), []

            def commits(commit: Commit) -> None:
                states = [request.state for request in layer.parts.desk.all()]
                if states == ["executing"] and not marked:
                    marked.append(commit)
                    loop.call_soon_threadsafe(acting.cancel)

            layer.parts.store.listeners.append(commits)
            acting = asyncio.create_task(_agreed(layer, approving, lambda: pytest.fail("it ran")))
            with pytest.raises(asyncio.CancelledError):
                await acting
            assert marked

    asyncio.run(main())
    assert [request.state for request in approving.desk.all()] == ["failed"]


def test_an_act_whose_outcome_the_ledger_does_not_take_is_no_longer_executing(approving: Approving) -> None:
    async def main() -> None:
        async with creto.open() as layer:
            with pytest.raises(NotFoundError, match="the ledger is closed"):
                await _agreed(layer, approving, layer.parts.ledger.close_blocking)

    asyncio.run(main())
    assert [request.state for request in approving.desk.all()] == ["executed"]
