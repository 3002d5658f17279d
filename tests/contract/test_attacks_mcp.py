"""Attacks on `creto mcp`: by a client that wants a call unseen, and by a server that answers what it was not asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest

from creto.adapters.mcp import MOST_CALLS, proxy
from creto.errors import InvalidInputError, UnauthorizedError


class Pipe:
    """One direction of a session, in memory."""

    def __init__(self) -> None:
        self.writer, self.reader = anyio.create_memory_object_stream[bytes](10_000)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.reader.receive()

    async def send(self, item: bytes) -> None:
        await self.writer.send(item)

    async def aclose(self) -> None:
        await self.writer.aclose()

    def close(self) -> None:
        self.writer.close()
        self.reader.close()


class Layer:
    """Decides by the resource's name, and holds back what is to be held back."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.further: list[str | None] = []
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.human = anyio.Event()
        self.trusts_server = False

    async def perform(
        self,
        agent: Any,
        action: str,
        resource: str,
        operation: Callable[[], Awaitable[Any]],
        *,
        context: Mapping[str, Any],
        usage: Mapping[str, int],
    ) -> Any:
        self.asked.append((resource, context["arguments"]))
        self.further.append(context.get("further"))
        if "forbidden" in resource or (context.get("asked_by") == "server" and not self.trusts_server):
            raise UnauthorizedError(f"`tool:call` on `{resource}`: no policy permits it")
        if "slow" in resource:
            await self.human.wait()
        self.begun.append(resource)
        try:
            return await operation()
        finally:
            self.ended.append(resource)


class Session:
    """Both ends of a session whose middle is creto's."""

    def __init__(self) -> None:
        self.layer = Layer()
        self.from_client, self.to_client, self.from_server, self.to_server = Pipe(), Pipe(), Pipe(), Pipe()

    async def run(self, play: Callable[[], Awaitable[None]]) -> None:
        """Plays both ends; the client leaves at the end."""

        async def serve() -> None:
            await proxy(self.layer, "a", "s", (self.from_client, self.to_client), (self.from_server, self.to_server))
            await self.to_server.aclose()

        try:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve)
                    await play()
                    await self.from_client.aclose()
                    await anyio.wait_all_tasks_blocked()
                    await self.from_server.aclose()
        finally:
            for pipe in (self.from_client, self.to_client, self.from_server, self.to_server):
                pipe.close()

    async def client(self, message: Any) -> None:
        await self.from_client.send(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    async def server(self, message: Any) -> None:
        await self.from_server.send(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    async def at_server(self) -> Any:
        return json.loads(await self.to_server.receive())

    async def at_client(self) -> Any:
        return json.loads(await self.to_client.receive())

    def quiet_at_server(self) -> bool:
        return self.to_server.reader.statistics().current_buffer_used == 0


def call(id: Any, name: str = "add", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": {}}, **more}


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "method", ["tools/call/list", "secrets/list", "x/list", "Tools/Call", "initialize2", "tools/list/"]
)
async def test_a_method_that_only_looks_free_is_an_act(method: str) -> None:
    session = Session()

    async def play() -> None:
        await session.client({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
        assert (await session.at_server())["method"] == method
        assert session.layer.asked == [(f"s/{method}", "{}")]
        await session.server({"jsonrpc": "2.0", "id": 1, "result": {}})
        await session.at_client()

    await session.run(play)


async def test_what_a_call_brings_beside_its_arguments_is_decided_about_too() -> None:
    session = Session()

    async def play() -> None:
        parameters = {"name": "pay", "arguments": {"amount": 1}}
        for number, (beside, more) in enumerate(
            [
                ({"_meta": {"progressToken": 7}}, {}),
                ({"_meta": {"progressToken": 7, "to": "mallory"}, "task": {"ttl": 9}}, {}),
                ({"_meta": {"progressToken": {"to": "mallory"}}}, {}),
                ({}, {"overrides": {"amount": 9}}),
            ]
        ):
            await session.client(call(number, **{"params": {**parameters, **beside}}, **more))
            await session.at_server()
            await session.server({"jsonrpc": "2.0", "id": number, "result": {}})
            await session.at_client()
        assert session.layer.further == [
            None,
            '{"_meta": {"progressToken": 7, "to": "mallory"}, "task": {"ttl": 9}}',
            '{"_meta": {"progressToken": {"to": "mallory"}}}',
            '{"overrides": {"amount": 9}}',
        ]

    await session.run(play)


async def test_no_call_hides_in_a_batch_or_behind_a_second_key() -> None:
    session = Session()

    async def play() -> None:
        batch = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "ping"}, call(2, "forbidden")]).encode() + b"\n"
        await session.client(batch)
        assert (await session.at_server())["method"] == "ping"
        assert (await session.at_client())["result"]["isError"]
        await session.client(
            b'{"jsonrpc":"2.0","id":3,"method":"ping","method":"tools/call","params":{"name":"forbidden"}}\n'
        )
        assert (await session.at_client())["id"] == 3
        await session.client(
            b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"add","name":"forbidden"}}\n'
        )
        assert (await session.at_client())["id"] == 4
        assert session.quiet_at_server()
        # What is decided about is what is sent: one reading of the line, written anew.
        await session.client(
            b'{"id":5,"method":"tools/call","params":{"name":"forbidden","name":"add","arguments":{"a":1,"a":2}}}\n'
        )
        assert (await session.at_server())["params"] == {"name": "add", "arguments": {"a": 2}}
        assert session.layer.asked[-1] == ("s/add", '{"a": 2}')

    await session.run(play)


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":{"a":1},"method":"tools/call","params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":true,"method":"tools/call","params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":null,"params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["add"]}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":NaN}}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1e999}}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800","params":{}}\n',
        # Readers that do not tell capitals apart, as encoding/json of Go, find a call of `forbidden` in each of these.
        b'{"jsonrpc":"2.0","id":1,"METHOD":"tools/call","params":{"name":"forbidden"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{"name":"forbidden"}}\n',
        b'{"jsonrpc":"2.0","method":"notifications/x","Method":"tools/call","ID":1,"params":{"name":"forbidden"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","Name":"forbidden"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"},"param\\u017f":{"name":"forbidden"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","argument\xc5\xbf":{"a":1}}}\n',
        # To who looks for `result` first, answers to what the server may have asked.
        b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{"action":"accept"}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"},"error":{"code":1,"message":"x"}}\n',
        b'{"jsonrpc":"2.0","method":"notifications/initialized","id":null,"result":{}}\n',
        # Ids that some readers take for others, whose answers would be taken for each other's.
        b'{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"add"}}\n',
        b'{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"add"}}\n',
        b'"tools/call"\n',
        b"[[]]\n",
        b"[" * 100_000 + b"\n",
        b'{"id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":' + b"[" * 977 + b"]" * 977 + b"}}}\n",
        b"\xff\xfe\n",
    ],
)
async def test_what_is_no_plain_request_ends_the_session_and_reaches_no_server(line: bytes) -> None:
    session = Session()

    async def play() -> None:
        await session.client(line)
        await anyio.wait_all_tasks_blocked()

    ended: BaseException | None = None
    try:
        await session.run(play)
    except BaseExceptionGroup as error:
        ended = error
    assert ended is not None
    assert _inner(ended, InvalidInputError) is not None
    assert session.quiet_at_server()
    assert session.layer.begun == []


def _inner(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    if isinstance(error, kind):
        return error
    return next((found for one in getattr(error, "exceptions", ()) if (found := _inner(one, kind))), None)


async def test_a_call_that_was_cancelled_is_not_made_once_a_human_agrees() -> None:
    session = Session()

    async def play() -> None:
        await session.client(call(1, "slow"))
        await anyio.wait_all_tasks_blocked()
        await session.client({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        await anyio.wait_all_tasks_blocked()
        session.layer.human.set()
        await anyio.wait_all_tasks_blocked()
        assert session.layer.begun == []
        while not session.quiet_at_server():
            assert (await session.at_server())["method"] == "notifications/cancelled"
        # The id is free again.
        await session.client(call(1))
        assert (await session.at_server())["id"] == 1

    await session.run(play)


async def test_a_name_that_is_no_text_is_answered_and_ends_nothing() -> None:
    session = Session()

    async def play() -> None:
        await session.client(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\\ud800"}}\n')
        assert "wants a `name`" in (await session.at_client())["error"]["message"]
        await session.client(call(2))
        assert (await session.at_server())["id"] == 2

    await session.run(play)


async def test_two_calls_cannot_share_an_id_while_the_first_waits_for_a_human() -> None:
    session = Session()

    async def play() -> None:
        await session.client(call(1, "slow"))
        await anyio.wait_all_tasks_blocked()
        await session.client(call(1, "add"))
        answer = await session.at_client()
        assert answer["id"] == 1
        assert "not in use" in answer["error"]["message"]
        session.layer.human.set()
        assert (await session.at_server())["params"]["name"] == "slow"

    await session.run(play)
    assert session.layer.begun == ["s/slow"]


async def test_answers_of_a_server_reach_the_client_once_each_also_in_a_batch() -> None:
    """A batch would be handed on whole: the client has its answer, and the act never ends."""
    session = Session()

    async def play() -> None:
        await session.client(call(1))
        await session.client(call(2))
        assert {(await session.at_server())["id"] for _ in range(2)} == {1, 2}
        await session.server(
            [{"jsonrpc": "2.0", "id": 1, "result": {"n": 1}}, {"jsonrpc": "2.0", "id": 2, "result": {}}]
        )
        assert {(await session.at_client())["id"] for _ in range(2)} == {1, 2}
        await anyio.wait_all_tasks_blocked()
        assert session.layer.ended == ["s/add", "s/add"]

    await session.run(play)


@pytest.mark.parametrize("id", [2, "1", 1.0, None])
async def test_an_answer_that_nobody_waits_for_is_dropped(id: Any) -> None:
    """A server that answers a call which still waits for a human would make the human's answer meaningless."""
    session = Session()

    async def play() -> None:
        await session.client(call(1, "slow"))
        await anyio.wait_all_tasks_blocked()
        await session.server({"jsonrpc": "2.0", "id": 1, "result": {"early": True}})
        await session.server({"jsonrpc": "2.0", "id": id, "result": {"forged": True}})
        await session.server({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
        assert (await session.at_client())["method"] == "notifications/message"

    await session.run(play)


@pytest.mark.parametrize(
    "forged",
    [
        {"id": 1, "method": "notifications/message", "result": {"forged": True}},
        {"Id": 1, "method": "notifications/message", "Result": {"forged": True}},
        {"id": 1, "method": "ping", "error": {"code": 1, "message": "forged"}},
    ],
)
async def test_no_message_of_a_server_is_a_question_to_one_reader_and_an_answer_to_another(
    forged: dict[str, Any],
) -> None:
    """The call still waits for a human; who looks for a `result` first, or in any letters, has its answer already."""
    session = Session()

    async def play() -> None:
        await session.client(call(1, "slow"))
        await anyio.wait_all_tasks_blocked()
        await session.server({"jsonrpc": "2.0", **forged})
        await session.server({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
        assert await session.at_client() == {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}

    await session.run(play)


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "x/roots/list", "ping2"])
async def test_what_a_server_has_the_client_do_is_decided_about(method: str) -> None:
    """Else a server asks a user for a password, or a model for what it knows, and the answer leaves unseen."""
    session = Session()

    async def play() -> None:
        for identifier in (7, "7", None, [7]):
            question = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": {"message": "your password?"}}
            await session.server(question)
        for identifier in (7, "7"):
            refused = await session.at_server()
            assert (refused["id"], refused["error"]) == (identifier, {"code": -32000, "message": "refused"})
        await session.server({"jsonrpc": "2.0", "id": 8, "method": "roots/list"})
        assert (await session.at_client())["method"] == "roots/list"
        assert session.layer.asked == [(f"s/{method}", '{"message": "your password?"}')] * 2

    await session.run(play)


async def test_a_question_of_a_server_that_is_agreed_to_is_answered_once_and_its_act_ends() -> None:
    session = Session()
    session.layer.trusts_server = True

    async def play() -> None:
        await session.server({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}})
        assert (await session.at_client())["id"] == 1
        for _ in range(2):
            await session.client({"jsonrpc": "2.0", "id": 1, "result": {"n": 1}})
        assert (await session.at_server())["result"] == {"n": 1}
        await anyio.wait_all_tasks_blocked()
        assert session.layer.ended == ["s/sampling/createMessage"]
        assert session.quiet_at_server()

    await session.run(play)


async def test_a_client_answers_nothing_that_its_server_did_not_ask() -> None:
    """What it makes up would go out undecided."""
    session = Session()

    async def play() -> None:
        await session.client({"jsonrpc": "2.0", "id": "x", "result": {"secret": "carried out"}})
        await session.client({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert (await session.at_server())["method"] == "ping"

    await session.run(play)


async def test_a_notification_that_the_protocol_does_not_know_is_decided_about() -> None:
    """Nobody answers it, so a server could be told by it to do anything, or be handed anything, unseen."""
    session = Session()

    async def play() -> None:
        for name in ("forbidden", "fine", "progress"):
            told = {"jsonrpc": "2.0", "method": f"notifications/{name}", "params": {"secret": 1}}
            await session.client(told)
            await anyio.wait_all_tasks_blocked()
        assert [(await session.at_server())["method"] for _ in range(2)] == [
            "notifications/fine",
            "notifications/progress",
        ]
        assert session.quiet_at_server()
        assert [resource for resource, _ in session.layer.asked] == [
            "s/notifications/forbidden",
            "s/notifications/fine",
        ]

    await session.run(play)


async def test_a_flood_of_questions_of_a_server_is_answered_and_not_queued() -> None:
    session = Session()

    async def play() -> None:
        for number in range(MOST_CALLS + 5):
            await session.server({"jsonrpc": "2.0", "id": number, "method": "ping"})
        for _ in range(5):
            assert "at once" in (await session.at_server())["error"]["message"]

    await session.run(play)


async def test_a_flood_of_calls_is_answered_and_not_queued() -> None:
    session = Session()

    async def play() -> None:
        for number in range(MOST_CALLS + 5):
            await session.client(call(number, "slow"))
        refused = [await session.at_client() for _ in range(5)]
        assert all("at once" in one["error"]["message"] for one in refused)
        assert len(session.layer.asked) == MOST_CALLS

    await session.run(play)


async def test_a_deep_answer_of_a_server_is_no_end_of_the_session() -> None:
    session = Session()

    async def play() -> None:
        await session.client(call(1))
        await session.at_server()
        await session.server(b"[" * 100_000 + b"\n")
        for depth in range(940, 1000):  # some of these Python reads, and cannot write
            deep = b"[" * depth + b"]" * depth
            await session.server(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"a":' + deep + b"}}\n")
        await session.server({"jsonrpc": "2.0", "id": 1, "result": {}})
        assert (await session.at_client())["id"] == 1

    await session.run(play)
