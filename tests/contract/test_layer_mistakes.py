"""What the library says to calls that cannot be meant: before anything is decided, reserved or recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import creto
from creto import EnablementLayer, InvalidInputError

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
        (lambda layer, a: call(layer, a, context=[1]), "context: give values by name, as a dict, not `[1]`"),
        (lambda layer, a: call(layer, a, context={"a": "\ud800"}), "half of a character stands alone in '\\ud800'"),
        (lambda layer, a: call(layer, a, resource="\ud800"), "half of a character stands alone in '\\ud800'"),
        (lambda layer, a: call(layer, a, usage={"tool_calls": 2**63}), "from 0 to 2^63 - 1"),
        (lambda layer, a: call(layer, a, usage=["tool_calls"]), "usage: give values by name, as a dict"),
        (lambda layer, a: call(layer, a, durability="fast"), "durability `fast`: write `strict` or `relaxed`"),
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
