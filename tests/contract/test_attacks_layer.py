"""Attacks on the order of an act: an old yes for a revoked agent, a request on a free connection, escapes in tables."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import creto
from creto import _core
from creto._confined import LayerHooks
from creto.audit import AuditRecord
from creto.cli._audit._options import line
from creto.cli._failure import render
from creto.cli._frame import Frame
from creto.errors import CretoError, InvalidInputError, OversightRequiredError, UnauthorizedError
from creto.runtime import Change, Connection
from desks import Office, wait_for_request
from sandboxes import skip_unless

POLICY = """
@id("all") permit (principal, action, resource);
@id("pay") @oversight("payments") forbid (principal, action == Action::"tool:call", resource == Tool::"pay");
@id("posts") @oversight("posts") forbid (principal, action == Action::"http:post", resource);
@id("outside") @oversight("outside") forbid (principal, action == Action::"net:connect", resource)
when { context.host == "asked.example" };
@id("same") @oversight("outside") forbid (principal, action == Action::"http:put", resource);
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.cedar").write_text(POLICY)
    (tmp_path / "rules.toml").write_text('[authz]\npolicies = ["rules.cedar"]\n')
    return tmp_path / "rules.toml"


@pytest.fixture
def office(state: Path) -> Iterator[Office]:
    opened = Office(state)
    yield opened
    opened.reach.close()
    opened.store.close()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_agent_revoked_while_a_human_thinks_is_not_let_in_by_the_yes(
    backend: str, state: Path, rules: Path, office: Office
) -> None:
    async def main() -> None:
        async with creto.open(state, config=[rules]) as layer:
            agent = layer.agent("a")

            async def reply() -> None:
                (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
                await layer.parts.identities.revoke("a", "stolen")
                await anyio.to_thread.run_sync(office.desk.approve, request, office.ann, "fine")

            refused: CretoError | None = None
            async with anyio.create_task_group() as group:
                group.start_soon(reply)
                try:
                    await layer.perform(agent, "tool:call", "pay", lambda: pytest.fail("it ran"), timeout=60)
                except CretoError as error:
                    refused = error
            assert isinstance(refused, UnauthorizedError)
            assert "revoked" in str(refused)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_agent_revoked_while_units_are_leased_does_not_go_in(backend: str, state: Path, tmp_path: Path) -> None:
    (tmp_path / "all.cedar").write_text("permit (principal, action, resource);")
    config = tmp_path / "all.toml"
    config.write_text(
        '[authz]\npolicies = ["all.cedar"]\n'
        '[[quotas]]\nscope = "organisation"\nmeter = "tool_calls"\nlimit = 100\nwindow = "day"\nshare = "store"\n'
    )

    async def main() -> None:
        async with creto.open(state, config=[config]) as layer:
            agent = layer.agent("a")
            leases = layer.parts.quota.leases
            assert leases is not None

            async def act() -> None:
                with pytest.raises(UnauthorizedError, match="revoked"):
                    await layer.perform(agent, "tool:call", "x", lambda: pytest.fail("it ran"), usage={"tool_calls": 1})

            async with anyio.create_task_group() as group:
                with leases.asking:  # nothing is leased while this is held, and the act waits
                    group.start_soon(act)
                    await anyio.sleep(0.2)
                    await layer.parts.identities.revoke("a", "stolen")
            assert all(counter["used"] == 0 for counter in layer.parts.quota.counters())

    anyio.run(main, backend=backend)


def test_a_request_that_must_be_asked_about_does_not_ride_on_a_connection_that_was_not(
    state: Path, rules: Path, office: Office
) -> None:
    async def main() -> None:
        async with creto.open(state, config=[rules]) as layer:
            hooks = LayerHooks(layer, layer.agent("a"), rules.parent, timeout=0.2)
            free = Connection("free.example", 80, "http", None)
            assert await hooks.connection(free)
            assert await hooks.request(free, "GET", "/")
            for method in ("POST", "PUT"):
                with pytest.raises((OversightRequiredError, UnauthorizedError)):
                    await hooks.request(free, method, "/")

    anyio.run(main)


def test_one_yes_serves_connection_and_request_only_where_the_same_policy_asks(
    state: Path, rules: Path, office: Office
) -> None:
    async def main() -> None:
        async with creto.open(state, config=[rules]) as layer:
            patience = 60.0
            hooks = LayerHooks(layer, layer.agent("a"), rules.parent, timeout=lambda _action, _resource: patience)

            async def reply() -> None:
                (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
                await anyio.to_thread.run_sync(office.desk.approve, request, office.ann, "fine")

            async with anyio.create_task_group() as group:
                group.start_soon(reply)
                asked = Connection("asked.example", 80, "http", None)
                assert await hooks.connection(asked)
            patience = 0.2
            assert await hooks.request(asked, "PUT", "/")
            with pytest.raises((OversightRequiredError, UnauthorizedError)):
                await hooks.request(asked, "POST", "/")
            # Another connection to the same place has no part in that yes.
            with pytest.raises((OversightRequiredError, UnauthorizedError)):
                await hooks.request(Connection("asked.example", 80, "http", True), "PUT", "/")
            # What was not asked about again is charged and on record all the same.
            found = await layer.parts.audit.query(action="http:put", outcome="success")
            assert [(r.resource, r.why, dict(r.usage)) for r in found] == [
                ("http://asked.example/", "agreed to with its connection: outside", {"requests": 1})
            ]

    anyio.run(main)


def test_a_file_that_becomes_a_program_is_another_act_than_one_that_does_not(
    state: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []

    async def main() -> None:
        async with creto.open(state, config=[rules]) as layer:
            hooks = LayerHooks(layer, layer.agent("a"), rules.parent)

            async def noted(_action: str, _resource: str, context: dict[str, object], *_rest: object) -> None:
                seen.append(context)

            monkeypatch.setattr(hooks, "perform", noted)
            for mode in (0o600, 0o644, 0o755):
                await hooks.changes([Change("x", "modified", "file", 1, 1, "aa", "aa", 0o600, mode)])
            await hooks.changes([Change("y", "modified", "folder", None, None, "", "", 0o755, 0o777)])

    anyio.run(main)
    assert [context.get("executable", False) for context in seen] == [False, False, True, False]
    # Nor is one that lets other users of the machine in, whose content may be the same as well.
    assert [context.get("mode") for context in seen] == [None, "0644", "0755", "0777"]


def test_a_table_shows_escape_sequences_of_agents_and_does_not_send_them(capsys: pytest.CaptureFixture[str]) -> None:
    frame = Frame()
    frame.table(["resource"], [["a\x1b[2J\x1b]0;owned\x07\u202eb"]])
    frame.show({"resource": "a\x1b[2Jb"})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J" in shown


def test_a_record_that_is_shown_is_not_written_by_who_acted(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"resource": "search\nwho       spiffe://creto.local/agent/other", "usage": {"a\x1b[2J\u202e": 1}}
    Frame().show(shown)
    assert capsys.readouterr().out.splitlines() == [
        "resource  search",
        "          who       spiffe://creto.local/agent/other",
        "usage     a\\x1b[2J\\u202e=1",
    ]


def test_json_at_a_terminal_sends_it_nothing_either(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON must escape the controls below U+0020 alone; a terminal obeys those from U+0080 on as well."""
    frame = Frame()
    frame.json = True
    hostile = {"resource": "a\x9b2J\u202eb\x1b[2J\ud800 \u00fc"}
    frame.show(hostile)
    frame.line(hostile, "")
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x9b\u202e\x1b\ud800")
    assert "\u00fc" in shown
    assert json.loads(shown.splitlines()[-1]) == hostile


def test_names_that_a_program_chose_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Raw, the name would clear the screen and write over the question above it."""
    hostile = "\x1b[2J\x1b[1;1Happroved.md\u202e"
    render(UnauthorizedError(f"`fs:write` on `{hostile}`"), as_json=False, verbose=False)
    print(line(AuditRecord(who="spiffe://creto.local/agent/a", what="fs:write", resource=hostile, why=hostile)))
    told = capsys.readouterr()
    for text in (told.err, told.out):
        assert "approved.md" in text
        assert "[2J" in text
        assert "\x1b[2J" not in text
        assert "\u202e" not in text


@pytest.mark.anyio
async def test_a_name_of_any_bytes_is_decided_about_and_shuts_nobody_out(
    state: Path, tmp_path: Path, anyio_backend: str
) -> None:
    """No policy can hold such a name as it is: one file of it would else end every later run in the folder."""
    skip_unless("process")
    (tmp_path / "open.cedar").write_text('@id("all") permit (principal, action, resource);')
    (tmp_path / "open.toml").write_text('[authz]\npolicies = ["open.cedar"]\n[runtime]\nwarm_pool_min_size = 0\n')
    project = tmp_path / "project"
    project.mkdir()
    names = [b"own\xfe", b"left\xff\n+++ \x1b[2Jharmless"]
    (Path(os.fsdecode(os.fsencode(project) + b"/" + names[0]))).write_text("x")
    async with creto.open(state, config=[tmp_path / "open.toml"]) as layer:
        async with layer.sandbox(layer.agent("a"), project, backend="process") as box:
            await box.run(["python3", "-c", f"open({names[1]!r}, 'w').write('y\\n')"])
            found, carried = await box.settle()
        assert len(found) == len(carried) == 1
        assert (found[0].diff or "").count("\n") == 4, "the name adds no line to what a human is shown"
        (record,) = await layer.parts.audit.query(action="fs:write", kind="outcome")
        assert record.resource.startswith("left\\xff")
    assert sorted(os.fsencode(path.name) for path in project.iterdir()) == sorted(names)


HOSTS = """
@id("good") permit (principal, action == Action::"http:get", resource) when { context.host == "good.example" };
@id("any") permit (principal, action == Action::"http:head", resource);
@id("never") forbid (principal, action in Action::"http", resource)
when { ["evil.example", "169.254.169.254", "fd00:ec2::254"].contains(context.host) };
"""


WAYS: list[tuple[str, str, dict[str, str]]] = [
    ("http:get", "https://evil.example/", {"host": "good.example"}),
    ("http:get", "https://evil.example\\@good.example/", {}),
    ("http:get", "https://good.ex\tample/", {}),
    ("http:head", "https://evil.example./", {}),
    ("http:head", "https://EVIL.example/", {"host": "EVIL.example."}),
    ("http:head", " https://evil.example/", {}),
    ("http:head", "https:evil.example", {}),
    ("http:head", "https:///evil.example", {}),
    ("http:head", "https://evil%2eexample/", {}),
    ("http:head", "https://\uff45vil\u3002example/", {}),
    ("http:head", "https://good.example@evil.example/", {}),
    ("http:head", 'Url::"https://evil.example/"', {}),
    ("http:head", "http://2852039166/latest/meta-data", {}),
    ("http:head", "http://0xa9.254.43518/", {}),
    ("http:head", "http://[::ffff:169.254.169.254]/", {}),
    ("http:head", "http://[fd00:ec2:0::0:254]/", {}),
    ("http:head", "http://[evil", {}),
    # Letters that editions of IDNA read in two ways: `ss` and `ß`, a last sigma, what is left out, small Cherokee.
    ("http:head", "https://fa\u00df.example/", {}),
    ("http:head", "https://xn--4xa\u03c2.example/", {}),
    ("http:head", "https://go\u200dod.example/", {}),
    ("http:head", "https://\uab70.example/", {}),
    ("http:head", "\x01https://evil.example/", {}),
    ('Action::"http:get"', "https://evil.example/", {"host": "good.example"}),
    ('Action::"http\\u{3a}get"', "https://evil.example/", {"host": "good.example"}),
    ("http:get", 'Url::"https\\u{3a}//evil.example/"', {"host": "good.example"}),
    ("http:get", 'Web::Url::"https://evil.example/"', {"host": "good.example"}),
    ("http:head", f"http://{'a.' * 200}example/", {}),
]


def test_a_url_leads_where_policy_thinks_and_no_context_says_otherwise(tmp_path: Path, state: Path) -> None:
    """Whoever chooses a URL chooses how it is written: a forbid by host holds for every way to write that host."""
    (tmp_path / "hosts.cedar").write_text(HOSTS)
    (tmp_path / "hosts.toml").write_text('[authz]\npolicies = ["hosts.cedar"]\n')
    with creto.open_blocking(state, config=tmp_path / "hosts.toml") as layer:
        agent = layer.agent("reader")
        for given in ({}, {"host": "Good.Example."}):
            done = layer.perform_blocking(agent, "http:get", "https://good.example/a%5Cb%?\\", lambda: 1, context=given)
            assert done == 1
        for action, url, context in WAYS:
            with pytest.raises((UnauthorizedError, InvalidInputError)) as refused:
                layer.perform_blocking(agent, action, url, lambda: pytest.fail("it was done"), context=context)
            said = str(refused.value)
            assert any(
                text in said for text in ("`never` forbids it", "is not certain", "leave `host` out", "without escapes")
            ), (
                url,
                said,
            )


PAGES = """
@id("all") permit (principal, action, resource);
@id("admin") forbid (principal, action, resource)
  when { resource == Url::"https://site.example/admin" || resource == Url::"http://site.example/admin" };
@id("closed") forbid (principal, action in Action::"network", resource) when { context.host == "closed.example" };
"""


@pytest.mark.parametrize(
    "path",
    ["a/../admin", "./admin", "%61dmin", "a/%2e%2E/admin", "a/.%2e/admin", "a/..;x/admin", "a\\..\\admin", "admin/."],
)
def test_a_page_that_is_forbidden_is_not_had_by_a_longer_way_to_write_it(
    tmp_path: Path, state: Path, path: str
) -> None:
    (tmp_path / "pages.cedar").write_text(PAGES)
    (tmp_path / "pages.toml").write_text('[authz]\npolicies = ["pages.cedar"]\n')

    async def main() -> None:
        async with creto.open(state, config=tmp_path / "pages.toml") as layer:
            agent = layer.agent("reader")
            ways = (f"https://site.example/{path}", f'Url::"https://site.example/{path}"')
            for url in ways[: 1 if "\\" in path else 2]:
                with pytest.raises(InvalidInputError, match="can be written shorter"):
                    await layer.perform(agent, "http:get", url, lambda: pytest.fail("it was done"))
            hooks = LayerHooks(layer, agent, tmp_path)
            connection = Connection("site.example", 80, "http", True)
            with pytest.raises(InvalidInputError, match="can be written shorter"):
                await hooks.request(connection, "GET", f"/{path}")
            with pytest.raises(UnauthorizedError, match="`admin` forbids it"):
                await hooks.request(connection, "GET", "/admin")
            # The server as a whole (RFC 9112, section 3.2.4) has the server's name.
            closed = Connection("closed.example", 80, "http", True)
            with pytest.raises(UnauthorizedError, match="`closed` forbids it"):
                await hooks.request(closed, "OPTIONS", "*")

    anyio.run(main)


def test_no_agent_goes_by_the_name_of_a_human(state: Path) -> None:
    with creto.open_blocking(state) as layer:
        layer.parts.desk.approvers.add("ann")
        for human in ("approver/ann", "user/root"):
            with pytest.raises(InvalidInputError, match="is the id of a human"):
                layer.agent(f"spiffe://creto.local/{human}")


@pytest.mark.parametrize("written", ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.1.2.3", "127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["address", "extension"])
def test_an_address_in_an_address_is_the_one_that_it_leads_to(written: str, kind: str) -> None:
    engine = _core.PolicyEngine()
    engine.install(
        """@id("any") permit (principal, action, resource);
        @id("inside") forbid (principal, action, resource)
          when { context.to.isLoopback() || context.to.isInRange(ip("10.0.0.0/8")) };""",
        """entity Agent, Tool; action "net:reach" appliesTo {
          principal: [Agent], resource: Tool, context: { to: ipaddr } };""",
    )
    to = ipaddress.ip_address(written) if kind == "address" else {"__extn": {"fn": "ip", "arg": written}}
    decision = engine.check_nowait("spiffe://creto.local/agent/a", "net:reach", "t", {"to": to})
    assert decision.outcome == "deny"
    assert "`inside` forbids it" in decision.reason


PLACES = """
@id("reads") permit (principal, action == Action::"fs:read", resource) when { context.path like "src/*" };
@id("one") permit (principal, action == Action::"net:connect", resource)
  when { context.host like "*.good.example" && context.port == 443 };
@id("never") forbid (principal, action == Action::"net:connect", resource) when { context.host == "no.good.example" };
@id("pages") permit (principal, action == Action::"http:get", resource) when { context.host like "*.good.example" };
"""
ELSEWHERE: list[tuple[str, str, dict[str, str | int]]] = [
    ("fs:read", "src/../../etc/passwd", {"path": "src/../../etc/passwd"}),
    ("fs:read", "/etc/passwd", {"path": "src/main.py"}),
    ("fs:read", 'Path::"/etc/passwd"', {"path": "src/main.py"}),
    ('Action::"fs:read"', "/etc/passwd", {"path": "src/main.py"}),
    ("fs:read", "src//../main.py", {}),
    ("net:connect", "evil.example:443", {"host": "a.good.example", "port": 443}),
    ("net:connect", "a.good.example:22", {"host": "a.good.example", "port": 443}),
    ("net:connect", "NO.good.example.:443", {"host": "NO.good.example.", "port": 443}),
    ("net:connect", 'Host::"no.good.example:443"', {"host": "a.good.example", "port": 443}),
    ("net:connect", "no.good.example", {"host": "a.good.example", "port": 443}),
    ("net:connect", "evil.example:https", {"host": "a.good.example", "port": 443}),
    ("net:connect", "evil.example: 443", {"host": "a.good.example", "port": 443}),
    ("net:connect", "evil.example:000443", {"host": "a.good.example", "port": 443}),
    ("http:get", "evil.example/x", {"host": "a.good.example"}),
    ("http:get", 'Url::"evil.example"', {"host": "a.good.example"}),
    ("http:get", "mailto:evil.example", {"host": "a.good.example"}),
    ("net:connect", "fa\u00df.good.example:443", {}),
]


def test_a_path_and_a_connection_lead_where_policy_thinks_too(tmp_path: Path, state: Path) -> None:
    (tmp_path / "places.cedar").write_text(PLACES)
    (tmp_path / "places.toml").write_text('[authz]\npolicies = ["places.cedar"]\n')
    with creto.open_blocking(state, config=tmp_path / "places.toml") as layer:
        agent = layer.agent("reader")
        for action, where in (("fs:read", "src/main.py"), ("net:connect", "A.good.example.:443")):
            assert layer.perform_blocking(agent, action, where, lambda: 1) == 1  # what it tells need not be said twice
        for action, where, context in ELSEWHERE:
            with pytest.raises((UnauthorizedError, InvalidInputError)) as refused:
                layer.perform_blocking(agent, action, where, lambda: pytest.fail("it was done"), context=context)
            said = str(refused.value)
            expected = ("`never` forbids it", "is not certain", "out", "not the shortest way", "no policy permits it")
            assert any(text in said for text in (*expected, "is no URL")), (where, said)
        for above in ("..", "../src/main.py", "../../etc/passwd"):
            with pytest.raises(InvalidInputError, match="not the shortest way to write this path"):
                layer.perform_blocking(agent, "fs:read", above, lambda: pytest.fail("it was done"))


def test_a_guarded_function_is_called_with_what_was_decided_about(state: Path) -> None:
    async def main() -> None:
        async with creto.open(state) as layer:

            @layer.guard("tool:call", resource="send")
            async def send(to: str, /, **more: str) -> str:
                return to

            with pytest.raises(InvalidInputError, match="`to` is given twice, once by its place and once by name"):
                await send("mallory", to="supplier")
            assert await send("supplier", note="x") == "supplier"

    anyio.run(main)


def test_an_act_is_not_done_first_and_then_found_to_have_used_what_nobody_can_charge(state: Path) -> None:
    with creto.open_blocking(state) as layer:
        agent = layer.agent("writer")
        wrong: list[Any] = [-1, 2**63, 1.5, "1", None]
        for quantity in wrong:
            with pytest.raises(
                InvalidInputError, match=r"usage of `tokens`: .*: write a whole number from 0 to 2\^63-1"
            ):
                layer.perform_blocking(
                    agent, "model:call", "small", lambda act, q=quantity: act.charge(tokens=q), usage={"tokens": 1}
                )
        ended = layer.call_blocking(lambda: layer.parts.audit.query(agent=agent.id, kind="outcome"))
        assert ["write a whole number" in record.outcome["failure"] for record in ended] == [True] * len(wrong)
