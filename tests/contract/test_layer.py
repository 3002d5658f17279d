"""What the README promises of `creto.open()`: one order for every act, nothing held or lost when one is cut short."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import creto
from creto.errors import (
    InvalidInputError,
    OversightRequiredError,
    QuotaExceededError,
    UnauthorizedError,
)
from desks import wait_until
from sandboxes import skip_unless
from servers import Start

POLICY = """
@id("read") @audit("after") permit (principal, action == Action::"fs:read", resource);
@id("tools") permit (principal, action == Action::"tool:call", resource) unless { resource == Tool::"forbidden" };
@id("fetch") permit (principal, action == Action::"http:get", resource) when { context.host == "example.org" };
@id("big-payments") @oversight("payments")
forbid (principal, action == Action::"tool:call", resource == Tool::"pay") when { context has to };
@id("mail") permit (principal, action in [Action::"message:send", Action::"message:receive"], resource);
"""
CONFIG = """
[authz]
policies = ["rules.cedar"]
[[quotas]]
scope = "agent"
meter = "tool_calls"
limit = 3
window = "day"
[[approvers]]
name = "desk"
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.cedar").write_text(POLICY)
    (tmp_path / "rules.toml").write_text(CONFIG)
    return tmp_path / "rules.toml"


def on_both_loops(test: Callable[..., Any]) -> Callable[..., None]:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def run(backend: str, tmp_path: Path, rules: Path) -> None:
        async def main() -> None:
            async with creto.open(tmp_path / "state", config=[rules]) as layer:
                await test(layer)

        anyio.run(main, backend=backend)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def records(layer: creto.EnablementLayer, **filters: Any) -> list[tuple[str, Any]]:
    found = await layer.parts.audit.query(agent=layer.agent("a").id, **filters)
    return [(record.kind, record.outcome) for record in found if record.kind != "event"]


@on_both_loops
async def test_an_allowed_act_is_recorded_before_and_after_and_charged(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    seen: list[list[tuple[str, Any]]] = []

    async def operation() -> str:
        seen.append(await records(layer, action="tool:call"))
        return "made"

    assert await layer.perform(agent, "tool:call", "hammer", operation, usage={"tool_calls": 2}) == "made"
    assert seen == [[("intent", None)]]
    found = await layer.parts.audit.query(action="tool:call")
    assert [(record.kind, record.outcome) for record in found] == [("intent", None), ("outcome", "success")]
    assert dict(found[-1].usage) == {"tool_calls": 2}
    assert found[0].act == found[1].act
    assert found[1].why == "tools"


@on_both_loops
async def test_a_denied_act_is_not_started_and_the_refusal_is_recorded(layer: creto.EnablementLayer) -> None:
    started: list[int] = []
    with pytest.raises(UnauthorizedError, match="`tool:call` on `forbidden`"):
        await layer.perform(layer.agent("a"), "tool:call", "forbidden", lambda: started.append(1))
    assert started == []
    assert await records(layer) == [("refusal", None)]


@on_both_loops
async def test_an_act_that_waited_for_units_of_a_quota_is_not_shown_as_one_that_a_human_agreed_to(
    layer: creto.EnablementLayer,
) -> None:
    for _ in range(2):  # the first leases units, and so goes in twice
        await layer.perform(layer.agent("a"), "tool:call", "search", lambda: None, usage={"tool_calls": 1})
    found = await layer.parts.audit.query(action="tool:call")
    assert [(record.kind, record.digest) for record in found] == [("intent", None), ("outcome", None)] * 2


@on_both_loops
async def test_an_act_over_quota_is_not_started_and_takes_nothing(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 2})
    with pytest.raises(QuotaExceededError) as refused:
        await layer.perform(agent, "tool:call", "hammer", lambda: pytest.fail("started"), usage={"tool_calls": 2})
    assert (refused.value.limit, refused.value.used) == (3, 2)
    await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 1})


@on_both_loops
async def test_a_failed_act_gives_its_reservation_back_and_says_why(layer: creto.EnablementLayer) -> None:
    def fails() -> None:
        raise RuntimeError("the hammer broke")

    agent = layer.agent("a")
    for _ in range(5):
        with pytest.raises(RuntimeError, match="the hammer broke"):
            await layer.perform(agent, "tool:call", "hammer", fails, usage={"tool_calls": 3})
    found = await layer.parts.audit.query(action="tool:call", kind="outcome")
    assert [record.outcome for record in found] == [{"failure": "RuntimeError: the hammer broke"}] * 5
    await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 3})


@on_both_loops
async def test_a_cancelled_act_gives_its_reservation_back_and_records_the_outcome(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    with anyio.CancelScope() as scope:

        async def begun() -> None:
            scope.cancel()
            await anyio.sleep_forever()

        await layer.perform(agent, "tool:call", "hammer", begun, usage={"tool_calls": 3})
    found = await layer.parts.audit.query(action="tool:call", kind="outcome")
    assert [record.outcome for record in found] == [{"failure": "cancelled"}]
    await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 3})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancellation_at_any_moment_leaves_no_quota_held_and_no_act_open(
    backend: str, tmp_path: Path, rules: Path
) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[rules]) as layer:
            agent = layer.agent("a")
            for step in range(40):
                with anyio.move_on_after(step * 0.00005):
                    await layer.perform(agent, "tool:call", "hammer", anyio.sleep_forever, usage={"tool_calls": 3})
                if backend == "asyncio":  # its own way to cancel knows no shields
                    with suppress(builtins.TimeoutError):
                        async with asyncio.timeout(step * 0.00005):
                            await layer.perform(agent, "tool:call", "hammer", anyio.sleep_forever)
            # Had one of them kept its reservation, there would be no room for this one.
            await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 3})
            found = await layer.parts.audit.query(action="tool:call")
            ends = {record.act for record in found if record.kind == "outcome"}
            assert {record.act for record in found if record.kind == "intent"} <= ends

    anyio.run(main, backend=backend)


@on_both_loops
async def test_an_operation_says_what_it_really_used(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    await layer.perform(agent, "tool:call", "hammer", lambda act: act.charge(tool_calls=1), usage={"tool_calls": 3})
    await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 2})
    with pytest.raises(QuotaExceededError):
        await layer.perform(agent, "tool:call", "hammer", lambda: None, usage={"tool_calls": 1})


@on_both_loops
async def test_an_audit_after_policy_drops_the_intent(layer: creto.EnablementLayer) -> None:
    await layer.perform(layer.agent("a"), "fs:read", "notes.md", lambda: None, context={"path": "notes.md"})
    assert await records(layer) == [("outcome", "success")]


@on_both_loops
async def test_the_host_of_a_url_is_decided_on_and_cannot_be_left_out(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    assert await layer.perform(agent, "http:get", "https://example.org/x", lambda: 1) == 1
    for url in ("https://example.org.evil.example/", "https://evil.example/?example.org", "not a url", ""):
        with pytest.raises((UnauthorizedError, InvalidInputError)):
            await layer.perform(agent, "http:get", url, lambda: pytest.fail("started"))


async def answer(layer: creto.EnablementLayer, agree: bool) -> None:
    desk = layer.parts.desk
    approver = await anyio.to_thread.run_sync(desk.approvers.named, "desk")
    while not (waiting := await anyio.to_thread.run_sync(desk.pending)):
        await anyio.sleep(0.01)
    await anyio.to_thread.run_sync(desk.approve if agree else desk.deny, waiting[0], approver, "so decided")


@on_both_loops
async def test_an_act_that_policy_asks_about_waits_for_a_human_and_counts_once(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    done: list[tuple[str, ...]] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer, layer, True)
        await layer.perform(
            agent, "tool:call", "pay", lambda act: done.append(act.approvers), context={"to": "supplier"}, timeout=60
        )
    assert done == [("spiffe://creto.local/approver/desk",)]
    (request,) = await anyio.to_thread.run_sync(layer.parts.desk.all)
    assert request.state == "executed"
    with pytest.raises(OversightRequiredError):
        await layer.perform(agent, "tool:call", "pay", lambda: done.append(()), context={"to": "supplier"}, timeout=0.2)
    assert len(done) == 1


@on_both_loops
async def test_a_human_no_ends_the_act_and_names_who_said_it(layer: creto.EnablementLayer) -> None:
    with pytest.raises(UnauthorizedError, match=r"approver/desk.*so decided"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, layer, False)
            try:
                await layer.perform(
                    layer.agent("a"),
                    "tool:call",
                    "pay",
                    lambda: pytest.fail("started"),
                    context={"to": "x"},
                    timeout=60,
                )
            except UnauthorizedError as refused:
                caught = refused
        raise caught


def test_a_plain_function_is_guarded_by_a_blocking_layer_and_refused_by_the_other(state: Path) -> None:
    with creto.open_blocking(state) as layer:

        @layer.guard("tool:call", usage={"tool_calls": 1}, agent=layer.agent("a"))
        def add(first: int, second: int = 2) -> int:
            """Adds."""
            return first + second

        assert (add(1), add.__name__, add.__doc__) == (3, "add", "Adds.")
        acts = layer.call_blocking(lambda: layer.parts.audit.query(action="tool:call"))
        assert [(act.kind, act.resource) for act in acts] == [("intent", "add"), ("outcome", "add")]

    async def elsewhere() -> None:
        async with creto.open(state) as other:
            other.guard("tool:call")(lambda: 1)

    with pytest.raises(InvalidInputError, match="is not an async function, .* by `creto.open_blocking"):
        anyio.run(elsewhere)


@on_both_loops
async def test_a_guarded_function_is_an_act_whose_arguments_are_the_context(layer: creto.EnablementLayer) -> None:
    @layer.guard("tool:call", usage={"tool_calls": 1}, agent=layer.agent("a"))
    async def send_money(to: str, amount: Decimal, note: str | None = None) -> str:
        return f"{amount} to {to}"

    assert await send_money("supplier", amount=Decimal("2.50")) == "2.50 to supplier"
    (outcome,) = await layer.parts.audit.query(action="tool:call", kind="outcome")
    assert (outcome.resource, dict(outcome.usage)) == ("send_money", {"tool_calls": 1})
    with pytest.raises(InvalidInputError, match="no exact encoding"):
        await send_money("supplier", 2.5)


@on_both_loops
async def test_a_revoked_agent_does_nothing_more(layer: creto.EnablementLayer) -> None:
    agent = layer.agent("a")
    await layer.perform(agent, "tool:call", "hammer", lambda: None)
    await layer.parts.identities.revoke("a", "left the team")
    with pytest.raises(UnauthorizedError, match="revoked"):
        await layer.perform(agent, "tool:call", "hammer", lambda: pytest.fail("started"))


def test_a_revocation_in_another_process_binds_within_a_second(tmp_path: Path, rules: Path) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[rules]) as layer:
            agent = layer.agent("a")
            await layer.perform(agent, "tool:call", "hammer", lambda: None)
            command = [sys.executable, "-m", "creto", "--state", str(tmp_path / "state"), "agent", "revoke", "a"]
            await anyio.run_process(command)
            with pytest.raises(UnauthorizedError), anyio.fail_after(60):
                while True:
                    await layer.perform(agent, "fs:read", "x", lambda: None, context={"path": "x"})
                    await anyio.sleep(0.01)

    anyio.run(main)


def test_a_fork_of_a_blocking_layer_is_told_and_ends_by_itself_and_both_go_on(python: Start) -> None:
    child = python("""if True:
        import os, sys, creto
        try:
            with creto.open_blocking() as layer:
                agent = layer.agent("a")
                if not os.fork():
                    try:
                        layer.perform_blocking(agent, "tool:call", "hammer", lambda: "made")
                    except creto.ForkedError as told:
                        print(told, flush=True)
                    with creto.open_blocking() as own:
                        made = own.perform_blocking(own.agent("a"), "tool:call", "hammer", lambda: "by the child")
                        print(made, flush=True)
                    sys.exit(7)
                print("child ended with", os.waitstatus_to_exitcode(os.wait()[1]))
                print(layer.perform_blocking(agent, "tool:call", "hammer", lambda: "by the parent"))
        except SystemExit as ended:  # as multiprocessing ends a child: its interpreter is not taken down
            os._exit(ended.code)
        """)
    said, complained = child.communicate(timeout=60)
    assert said.splitlines() == [
        "the layer was opened by the parent process; open one in the child",
        "by the child",
        "child ended with 7",
        "by the parent",
    ], complained


def test_no_child_of_fork_waits_for_a_thread_of_its_parent(python: Start) -> None:
    """As workers that are forked ahead: locks that remember who waits would wake a thread that only the parent has."""
    child = python("""if True:
        import os, sys, creto
        with creto.open_blocking() as layer:
            layer.perform_blocking(layer.agent("a"), "tool:call", "hammer", lambda: None)
            for _ in range(16):
                if not os.fork():
                    with creto.open_blocking() as own:
                        own.perform_blocking(own.agent("a"), "tool:call", "hammer", lambda: None)
                    sys.exit(7)
                print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        """)
    said, complained = child.communicate(timeout=180)
    assert said.split() == ["7"] * 16, complained


def test_the_blocking_twin_needs_no_event_loop(tmp_path: Path, rules: Path) -> None:
    with creto.open_blocking(tmp_path / "state", config=[rules]) as layer:
        agent = layer.agent("a")
        assert layer.perform_blocking(agent, "tool:call", "hammer", lambda: "made", usage={"tool_calls": 1}) == "made"
        with pytest.raises(UnauthorizedError):
            layer.perform_blocking(agent, "tool:call", "forbidden", lambda: pytest.fail("started"))
        layer.agent("b")
        layer.send_blocking(agent, "b", b"a line")
        message = next(layer.inbox_blocking(layer.agent("b")))
        assert (message.sender, message.body) == (agent.id, b"a line")
        layer.call_blocking(message.ack)


def test_a_policy_that_does_not_parse_stops_the_layer_from_opening(tmp_path: Path, rules: Path) -> None:
    (tmp_path / "rules.cedar").write_text("permit (principal, action")

    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[rules]):
            pytest.fail("opened")

    with pytest.raises(InvalidInputError):
        anyio.run(main)


def test_an_agent_made_with_teams_is_in_them_for_policies_that_serve_here_and_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "team.cedar").write_text('permit (principal in Team::"lab", action, resource);')
    (tmp_path / "team.toml").write_text('[authz]\npolicies = ["team.cedar"]\n')
    state, config = tmp_path / "state", [tmp_path / "team.toml"]
    with creto.open_blocking(state, config=config) as layer, creto.open_blocking(state, config=config) as other:
        made = layer.parts.identities.agent("new", path=("acme", "lab"))
        assert layer.perform_blocking(made, "tool:call", "hammer", lambda: "at once") == "at once"

        def elsewhere() -> str | None:
            with suppress(UnauthorizedError):
                return other.perform_blocking(other.agent("new"), "tool:call", "hammer", lambda: "soon")
            return None

        assert wait_until(elsewhere) == "soon"


def test_an_agent_that_comes_while_a_policy_set_is_installed_is_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is put beside the agents that were read for it: who came meanwhile would be in no team until the next."""
    (tmp_path / "team.cedar").write_text('permit (principal in Team::"lab", action, resource);')
    (tmp_path / "team.toml").write_text('[authz]\npolicies = ["team.cedar"]\n')
    with creto.open_blocking(tmp_path / "state", config=[tmp_path / "team.toml"]) as layer:
        parts = layer.parts
        read = parts._agents
        told: list[threading.Thread] = []

        def come() -> None:
            parts.identities.agent("late", path=("acme", "lab"))
            parts._refresh_agents()

        def read_and_overtaken() -> list[dict[str, Any]]:
            found = read()
            if not told:
                told.append(threading.Thread(target=come))
                told[0].start()
                told[0].join(1)
            return found

        monkeypatch.setattr(parts, "_agents", read_and_overtaken)
        parts._install(parts.settings)
        told[0].join()
        assert layer.perform_blocking(layer.agent("late"), "tool:call", "hammer", lambda: "made") == "made"


def test_a_changed_policy_file_is_taken_up_and_a_bad_one_is_not(tmp_path: Path, rules: Path) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[rules]) as layer:
            agent = layer.agent("a")
            (tmp_path / "rules.cedar").write_text("permit (principal, action")
            await anyio.sleep(1.5)
            await layer.perform(agent, "tool:call", "hammer", lambda: None)
            (tmp_path / "rules.cedar").write_text('permit (principal, action == Action::"secret:use", resource);')
            with pytest.raises(UnauthorizedError), anyio.fail_after(60):
                while True:
                    await layer.perform(agent, "fs:read", "x", lambda: None, context={"path": "x"})
                    await anyio.sleep(0.1)

    anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("mine", [KeyError("mine"), SystemExit("mine")])
def test_what_the_body_raises_comes_out_as_it_is(
    backend: str, mine: BaseException, tmp_path: Path, rules: Path
) -> None:
    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[rules]):
            raise mine

    with pytest.raises(type(mine), match="mine"):
        anyio.run(main, backend=backend)


def test_what_goes_wrong_beside_the_body_ends_it_and_comes_out_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('[messaging]\nnats_url = "nats://127.0.0.1:4222"\n')

    async def main() -> None:
        async with creto.open(tmp_path / "state", config=[tmp_path / "rules.toml"]):
            await anyio.sleep(60)

    with pytest.raises(InvalidInputError, match="messages between machines need asyncio"):
        anyio.run(main, backend="trio")


def test_a_layer_that_nobody_waits_for_any_more_is_closed_again(tmp_path: Path, rules: Path) -> None:
    async def main() -> None:
        for step in range(8):
            with suppress(builtins.TimeoutError):
                async with asyncio.timeout(step * 0.01), creto.open(tmp_path / "state", config=[rules]):
                    await asyncio.sleep(60)
        # Each has let go of its shard of the ledger, and so all had the same.
        assert len(list((tmp_path / "state" / "ledger").iterdir())) == 1

    asyncio.run(main())


def test_layers_of_two_machines_write_to_each_other_by_the_configured_server(tmp_path: Path, nats_url: str) -> None:
    policy = '@id("mail") permit (principal, action in [Action::"message:send", Action::"message:receive"], resource);'
    (tmp_path / "mail.cedar").write_text(policy)
    for name in ("here", "there"):
        (tmp_path / f"{name}.toml").write_text(
            f'[common]\ntrust_domain = "{name}.test"\n[authz]\npolicies = ["mail.cedar"]\n'
            f'[messaging]\nnats_url = "{nats_url}"\n'
        )

    async def main() -> None:
        async with (
            creto.open(tmp_path / "one", config=[tmp_path / "here.toml"]) as here,
            creto.open(tmp_path / "two", config=[tmp_path / "there.toml"]) as there,
        ):
            sender, receiver = here.agent("a"), there.agent("b")
            for one, other in ((here, there), (there, here)):
                known = other.parts.identities
                await one.parts.identities.import_(known.export(), fingerprint=known.domain().verifying_key.fingerprint)
            await here.send(sender, receiver.id, b"over the wire")
            with anyio.fail_after(60):
                async for message in there.inbox(receiver):
                    assert (message.sender, message.body) == (sender.id, b"over the wire")
                    await message.ack()
                    break

    anyio.run(main)


# --- sandboxes --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("backend", ["gvisor", "process"])
async def test_a_layer_s_sandboxes_stand_ready_and_end_with_it(state: Path, tmp_path: Path, backend: str) -> None:
    skip_unless(backend)
    (tmp_path / "open.cedar").write_text('@id("all") permit (principal, action, resource);')
    (tmp_path / "open.toml").write_text(
        '[authz]\npolicies = ["open.cedar"]\n[runtime]\nwarm_pool_min_size = 2\nwarm_pool_max_size = 3\n'
    )
    project = tmp_path / "project"
    project.mkdir()
    async with creto.open(state, config=tmp_path / "open.toml") as layer:
        pool = layer.pool(backend)
        assert pool.fill == {"idle": 0, "starting": 0, "claimed": 0}, "nothing is started that nobody asked for"
        await pool.start(warm=2)
        assert pool.fill["idle"] == 2
        names = set()
        for name in ("a", "b"):
            async with layer.sandbox(layer.agent(name), project, backend=backend) as box:
                assert (await box.run(["pwd"])).stdout.decode().strip() == str(project.resolve())
                assert pool.fill["claimed"] == 1
                names.add(box.id)
        assert len(names) == 2, "a sandbox serves once"
    assert pool.fill == {"idle": 0, "starting": 0, "claimed": 0}


@pytest.mark.parametrize("backend", ["gvisor", "process"])
def test_a_program_is_run_and_its_changes_carried_out_without_an_event_loop(
    state: Path, tmp_path: Path, backend: str
) -> None:
    skip_unless(backend)
    (tmp_path / "open.cedar").write_text('@id("all") permit (principal, action, resource);')
    (tmp_path / "open.toml").write_text('[authz]\npolicies = ["open.cedar"]\n[runtime]\nwarm_pool_min_size = 0\n')
    project = tmp_path / "project"
    project.mkdir()
    with creto.open_blocking(state, config=tmp_path / "open.toml") as layer:
        result = layer.run_blocking(
            layer.agent("a"), ["sh", "-c", "echo new > new; echo said; exit 3"], project, backend=backend
        )
    assert (result.exit_code, result.stdout) == (3, b"said\n")
    assert (project / "new").read_text() == "new\n"
