"""What the library says to calls that cannot be meant: before anything is decided, reserved or recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import creto
from creto import EnablementLayer, InvalidInputError
from sandboxes import skip_unless

POLICY = '@id("tools") permit (principal, action == Action::"tool:call", resource);'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tools.cedar").write_text(POLICY)
    file = tmp_path / "creto.toml"
    file.write_text('[authz]\npolicies = ["tools.cedar"]\n')
    return file


@pytest.fixture
def layer(tmp_path: Path, config: Path) -> Iterator[EnablementLayer]:
    with creto.open_blocking(tmp_path / "state", config=config) as layer:  # one file, not a list of one
        yield layer


async def later() -> int:
    return 1


def each() -> Iterator[int]:
    yield 1


async def each_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda layer, a: layer.agent(3), "`3` cannot name an agent: a name is text"),
        (lambda layer, a: layer.agent(""), "`` cannot name an agent"),
        (lambda layer, a: call(layer, "reader"), "`'reader'` is no agent: give what `layer.agent(NAME)` returns"),
        (lambda layer, a: call(layer, None), "`None` is no agent"),
        (lambda layer, a: call(layer, a, action=None), "action `None`: write text, as `http:get`"),
        (lambda layer, a: call(layer, a, resource=3), "resource `3`: write text"),
        (lambda layer, a: call(layer, a, operation=None), "`None` cannot be called: give the function that does it"),
        (lambda layer, a: call(layer, a, operation=later), "`later` is async, and nothing here would await it"),
        (lambda layer, a: call(layer, a, operation=partial(later)), "is async, and nothing here would await it"),
        (lambda layer, a: call(layer, a, context=[1]), "context: give values by name, as a dict, not `[1]`"),
        (lambda layer, a: call(layer, a, context={"a": "\ud800"}), "half of a character stands alone in '\\ud800'"),
        (lambda layer, a: call(layer, a, resource="\ud800"), "half of a character stands alone in '\\ud800'"),
        (lambda layer, a: call(layer, a, usage={"tool_calls": 2**63}), "from 0 to 2^63"),
        (lambda layer, a: call(layer, a, usage=["tool_calls"]), "usage: give values by name, as a dict"),
        (lambda layer, a: call(layer, a, durability="fast"), "durability `fast`: write `strict` or `relaxed`"),
        (
            lambda layer, a: layer.guard("tool:call")(staticmethod(later)),
            "`later`: write `@staticmethod` above `@layer.guard(...)`, not below it",
        ),
        (lambda layer, a: layer.guard("tool:call")(each), "`each` yields: a call of it does nothing yet"),
        (lambda layer, a: layer.guard("tool:call")(each_later), "`each_later` yields: a call of it does nothing yet"),
        (lambda layer, a: layer.guard("tool:call")(partial(later)), "has no name to go by: say on what it acts"),
        (lambda layer, a: layer.guard(later), 'write `@layer.guard("tool:call")` above the function'),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused_and_leaves_nothing(
    layer: EnablementLayer, wrong: Callable[[EnablementLayer, Any], object], text: str
) -> None:
    agent = layer.agent("reader")
    with pytest.raises(InvalidInputError) as refused:
        wrong(layer, agent)
    assert text in str(refused.value)
    recorded = layer.call_blocking(lambda: layer.parts.audit.query(agent=agent.id, action="tool:call"))
    assert recorded == []


def call(layer: EnablementLayer, agent: Any, **wrong: Any) -> object:
    """A call in order but for what is wrong with it."""
    given = {"action": "tool:call", "resource": "search", "operation": lambda: 1, **wrong}
    return layer.perform_blocking(agent, given.pop("action"), given.pop("resource"), given.pop("operation"), **given)


def test_a_layer_that_is_closed_says_so(tmp_path: Path, config: Path) -> None:
    with creto.open_blocking(tmp_path / "state", config=[config]) as layer:
        agent = layer.agent("reader")
    with pytest.raises(InvalidInputError, match="the layer is closed: act inside of `with creto.open_blocking"):
        call(layer, agent)


def test_an_async_call_is_refused_in_the_same_words(tmp_path: Path, config: Path) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[config]) as layer:
            with pytest.raises(InvalidInputError, match="durability `fast`: write `strict` or `relaxed`"):
                await layer.perform(layer.agent("reader"), "tool:call", "x", later, durability="fast")  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="cannot be called"):
                await layer.perform(layer.agent("reader"), "tool:call", "x", "later")  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize("timeout", ["3", float("nan")])
def test_who_waits_for_a_human_waits_for_seconds(tmp_path: Path, timeout: Any) -> None:
    with creto.open_blocking(tmp_path / "state") as layer:  # the starter set asks about the network
        with pytest.raises(InvalidInputError, match="give the seconds to wait for a human, as a number"):
            call(layer, layer.agent("reader"), action="http:get", resource="https://example.org", timeout=timeout)
        assert layer.parts.desk.pending() == []


def test_every_part_of_a_closed_layer_says_that_it_is_closed(tmp_path: Path, config: Path) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[config]) as layer:
            agent = layer.agent("reader")
        for late in (
            lambda: layer.perform(agent, "tool:call", "search", lambda: 1),
            lambda: layer.send(agent, "reader", b"late"),
            lambda: layer.sandbox(agent).__aenter__(),
            lambda: layer.recall(agent, "acts", "late"),
        ):
            with pytest.raises(InvalidInputError, match="the layer is closed: act inside of `async with creto.open"):
                await late()
        for at_once in (lambda: layer.agent("other"), lambda: layer.inbox(agent), layer.pool):
            with pytest.raises(InvalidInputError, match="the layer is closed"):
                at_once()

    asyncio.run(main())


def test_what_gives_something_to_await_is_no_success(layer: EnablementLayer) -> None:
    agent = layer.agent("reader")
    with pytest.raises(InvalidInputError, match="the operation is async, and nothing here would await it"):
        call(layer, agent, operation=lambda: asyncio.sleep(0))
    recorded = layer.call_blocking(lambda: layer.parts.audit.query(agent=agent.id, action="tool:call"))
    assert [list(each.outcome) for each in recorded if each.kind == "outcome"] == [["failure"]]


@pytest.mark.parametrize("body", [{"done": True}, 5, None])
def test_a_body_that_is_neither_bytes_nor_text_is_refused(layer: EnablementLayer, body: Any) -> None:
    with pytest.raises(InvalidInputError, match="a body is bytes or text, not "):
        layer.send_blocking(layer.agent("writer"), layer.agent("reader").id, body)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda layer, a: layer.send_blocking("writer", a.id, b"x"), "`'writer'` is no agent"),
        (lambda layer, a: layer.send_blocking(a, a, b"x"), "give the recipient's name or SPIFFE id"),
        (
            lambda layer, a: layer.send_blocking(a, a.id, b"x", attach=["report.pdf"]),
            "give the content of files by their",
        ),
        (lambda layer, a: layer.send_blocking(a, a.id, b"x", expires_in="1h"), "expires_in `'1h'`: give seconds"),
        (lambda layer, a: next(layer.inbox_blocking("reader")), "`'reader'` is no agent"),
        (lambda layer, a: layer.ingest().take_blocking([{"id": "1"}]), "`{'id': '1'}` is no `UsageEvent`"),
        (lambda layer, a: layer.ingest().take_blocking(3), "`3` is one: give events in a list"),
        (
            lambda layer, a: layer.call_blocking(lambda: layer.parts.audit.query(since="1d")),
            "`'1d'` is no time: give a `datetime`",
        ),
    ],
)
def test_messages_usage_and_queries_say_what_they_cannot_take(
    layer: EnablementLayer, wrong: Callable[[EnablementLayer, Any], object], text: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        wrong(layer, layer.agent("reader"))
    assert text in str(refused.value)


def test_a_sandbox_wants_a_folder_and_a_command_in_parts_and_says_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless("process")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        agent = layer.agent("reader")
        with pytest.raises(InvalidInputError, match="is no folder on this machine"):
            async with layer.sandbox(agent, tmp_path / "missing", backend="process"):
                pass
        async with layer.sandbox(agent, tmp_path / "project", backend="process") as box:
            for wrong in ("echo hi", [], ["sleep", 1]):
                with pytest.raises(
                    InvalidInputError, match="there is no program to run in it; give a program and its arguments"
                ):
                    await box.run(wrong)
        with pytest.raises(InvalidInputError, match="the sandbox is gone"):
            await box.run(["echo", "hi"])

    (tmp_path / "project").mkdir()
    with creto.open_blocking(tmp_path / "state") as layer:  # the starter set lets it read its folder
        layer.call_blocking(main)
