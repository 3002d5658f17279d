"""What the policy engine promises to Python: checks in every form, living entities, explanations, commands."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import numpy as np
import pytest

from creto.authz import AuthzClient, CheckRequest, PolicyEngine, starter, starter_schema, starters
from creto.authz._cases import Table
from creto.cli import main
from creto.errors import InvalidInputError

AGENT = "spiffe://creto.local/agent/researcher"
SCHEMA = """
entity Team; entity Agent in [Team] = { level?: Long }; entity Tool;
@open action "tool:call" appliesTo {
  principal: Agent, resource: Tool,
  context: {
    amount?: decimal, at?: datetime, wait?: duration, from?: ipaddr, tags?: Set<String>, who?: Agent,
    nested?: { n: Long }
  }
};
action "tool:strict" appliesTo { principal: Agent, resource: Tool, context: { n: Long } };
"""


def client(policies: str, entities: Any = (), schema: str = SCHEMA) -> AuthzClient:
    authz = AuthzClient()
    authz.install(policies, schema, entities)
    return authz


def member(team: str, level: int = 1) -> dict[str, Any]:
    return {
        "uid": {"type": "Agent", "id": AGENT},
        "attrs": {"level": level},
        "parents": [{"type": "Team", "id": team}],
    }


def test_with_nothing_installed_everything_is_denied() -> None:
    assert AuthzClient().check_nowait(AGENT, "tool:call", "x").reason == "no policy set is installed"


def test_every_form_of_a_check_gives_the_same_answer() -> None:
    authz = client(
        '@id("only") permit (principal in Team::"a", action == Action::"tool:call", resource);', [member("a")]
    )
    direct = authz.check_nowait(AGENT, "tool:call", "search")
    prepared = authz.prepare(AGENT, "tool:call").check_nowait("search")
    whole = authz.prepare(AGENT, "tool:call", "search").check_nowait()

    async def awaited() -> list[Any]:
        return [
            await authz.check(CheckRequest(AGENT, "tool:call", "search")),
            await authz.prepare(AGENT, "tool:call").check("search"),
        ]

    for decision in [direct, prepared, whole, *anyio.run(awaited)]:
        assert decision
        assert (decision.outcome, decision.permit, decision.audit) == ("allow", "only", "before")
        assert decision.digest == authz.engine.digest
        assert 0 <= decision.age < 60


def test_the_decision_carries_every_policy_that_asks_sorted() -> None:
    authz = client(
        """permit (principal, action, resource);
        @oversight("b") forbid (principal, action, resource);
        @oversight("a") forbid (principal, action, resource);"""
    )
    decision = authz.check_nowait(AGENT, "tool:call", "x")
    assert (decision.outcome, decision.policy_id, decision.policy_ids) == ("oversight", "a", ["a", "b"])
    assert not decision.allowed


@pytest.mark.parametrize(
    ("condition", "context", "wanted"),
    [
        ('context.amount.lessThan(decimal("10.0"))', {"amount": Decimal("9.99")}, True),
        ('context.amount.lessThan(decimal("10.0"))', {"amount": Decimal(10)}, False),
        ('context.at > datetime("2024-01-01")', {"at": datetime(2024, 6, 1, tzinfo=UTC)}, True),
        ('context.wait >= duration("90s")', {"wait": timedelta(minutes=1, seconds=30)}, True),
        ('context.from.isInRange(ip("10.0.0.0/8"))', {"from": ip_address("10.1.2.3")}, True),
        ('context.tags.contains("x")', {"tags": {"x", "y"}}, True),
        ('context.tags.contains("x")', {"tags": ["y"]}, False),
        ("context.who == principal", {"who": {"__entity": {"type": "Agent", "id": AGENT}}}, True),
        ("context.nested.n == 3", {"nested": {"n": 3}}, True),
    ],
)
def test_pythons_own_values_are_cedars(condition: str, context: dict[str, Any], wanted: bool) -> None:
    guards = " && ".join(f"context has {name}" for name in context)
    authz = client(f'permit (principal, action == Action::"tool:call", resource) when {{ {guards} && {condition} }};')
    assert authz.check_nowait(AGENT, "tool:call", "x", context).allowed is wanted


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.5, "a float has no exact encoding"),
        (object(), "has no stated encoding"),
        (1 << 70, "does not fit into 64 bits"),
        (datetime(2024, 1, 1), "has no time zone"),
        (b"x", "has no stated encoding"),
    ],
)
def test_a_value_with_no_stated_encoding_is_an_error(value: Any, why: str) -> None:
    authz = client("permit (principal, action, resource);")
    with pytest.raises(InvalidInputError, match=why):
        authz.check_nowait(AGENT, "tool:call", "x", {"extra": value})


class Word(str):
    """Text, but not exactly `str`."""


class Count(IntEnum):
    """Whole numbers, but not exactly `int`."""

    MANY = 7


@pytest.mark.parametrize("text", ["work", "", "wörk", "\U0001f600", Word("work")])
@pytest.mark.parametrize("number", [0, -1, 7, 2**63 - 1, -(2**63), Count.MANY])
@pytest.mark.parametrize("others", [{}, {"extra": [1]}], ids=["lent", "held"])
def test_text_numbers_and_booleans_arrive_as_they_are_in_any_company(
    text: str, number: int, others: dict[str, Any]
) -> None:
    same = f"context.text == {json.dumps(text, ensure_ascii=False)} && context.number == {int(number)} && context.yes"
    schema = f"""entity Agent, Tool; {SCHEMA[SCHEMA.index("@open") : SCHEMA.index("context:")]}
    context: {{ text: String, number: Long, yes: Bool, extra?: Set<Long> }} }};"""
    authz = client(f"permit (principal, action, resource) when {{ {same} }};", schema=schema)
    context = {Word("text"): text, "number": number, "yes": True, **others}
    for given in (context, {str(name): value for name, value in context.items()}):
        assert authz.check_nowait(AGENT, "tool:call", "x", given).allowed
        for name, other in (("text", f"{text}x"), ("number", 3), ("yes", False)):
            assert not authz.check_nowait(AGENT, "tool:call", "x", {**given, name: other}).allowed


def test_text_that_is_half_a_surrogate_is_an_error_and_no_denial() -> None:
    with pytest.raises(UnicodeEncodeError):
        client("permit (principal, action, resource);").check_nowait(AGENT, "tool:call", "x", {"text": "\ud83d"})


def test_decisions_tell_of_the_version_that_made_them_whatever_comes_after() -> None:
    authz = client('@id("one") permit (principal in Team::"a", action, resource);', [member("a")])
    first = authz.check_nowait(AGENT, "tool:call", "x")
    authz.engine.upsert_entities(json.dumps([member("a", level=2)]))
    second, again = (authz.check_nowait(AGENT, "tool:call", "x") for _ in range(2))
    authz.engine.upsert_entities(json.dumps([member("b")]))
    third = authz.check_nowait(AGENT, "tool:call", "x")
    digest = authz.engine.digest
    authz.install('@id("two") @audit("after") permit (principal, action, resource);', SCHEMA)
    fourth = authz.check_nowait(AGENT, "tool:call", "x")
    del authz
    told = [(d.permit, d.audit, d.reason, d.digest == digest) for d in (first, second, again, third, fourth)]
    assert told == [
        ("one", "before", None, True),
        ("one", "before", None, True),
        ("one", "before", None, True),
        (None, "before", "no policy permits it", True),
        ("two", "after", None, False),
    ]
    ages = [decision.age for decision in (fourth, third, second, first)]
    assert ages == sorted(ages)
    assert len(set(ages)) == 4


def test_a_context_nested_without_end_is_refused_and_the_process_lives() -> None:
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="nested deeper than 64"):
        client("permit (principal, action, resource);").check_nowait(AGENT, "tool:call", "x", {"deep": deep})


def test_dropping_or_retyping_what_the_schema_requires_never_lets_an_act_in() -> None:
    authz = client(
        """permit (principal, action, resource);
        forbid (principal, action == Action::"tool:strict", resource) when { context.n > 3 };"""
    )
    assert authz.check_nowait(AGENT, "tool:strict", "x", {"n": 3}).allowed
    for context in ({"n": 4}, {}, {"n": "4"}, {"n": True}, {"N": 3}, {"n": 3, "more": 1}):
        assert not authz.check_nowait(AGENT, "tool:strict", "x", context).allowed, context


def test_entities_change_without_the_policies_being_compiled_again() -> None:
    authz = client(
        'permit (principal in Team::"a", action, resource) when { principal.level > 3 };'.replace(
            "principal.level > 3", "principal has level && principal.level > 3"
        ),
        [member("a", 1)],
    )
    digest = authz.engine.digest
    assert not authz.check_nowait(AGENT, "tool:call", "x")
    authz.engine.upsert_entities(json.dumps([member("a", 5)]))
    assert authz.check_nowait(AGENT, "tool:call", "x")
    authz.engine.remove_entities([("Agent", AGENT)])
    assert not authz.check_nowait(AGENT, "tool:call", "x")
    assert authz.engine.digest == digest


def test_sources_are_asked_at_refresh_and_never_during_a_check(tmp_path: Path) -> None:
    asked = []
    file = tmp_path / "entities.json"
    file.write_text(json.dumps([{"uid": {"type": "Team", "id": "b"}, "attrs": {}, "parents": []}]))

    async def source() -> list[dict[str, Any]]:
        asked.append(1)
        return [member("a")] if len(asked) == 1 else []

    authz = AuthzClient(sources=[source, file])
    authz.install('permit (principal in Team::"a", action, resource);', SCHEMA)

    async def story() -> None:
        assert await authz.refresh() == 2
        assert authz.check_nowait(AGENT, "tool:call", "x")
        assert len(asked) == 1
        assert await authz.refresh() == 1
        assert not authz.check_nowait(AGENT, "tool:call", "x")
        assert await authz.refresh() == 0

    anyio.run(story, backend="trio")


def test_many_checks_by_names_and_by_places_answer_as_one_by_one() -> None:
    authz = client(
        """permit (principal in Team::"a", action, resource);
        @oversight("o") forbid (principal, action, resource == Tool::"saw");""",
        [member("a")],
    )
    agents = [AGENT, AGENT, "spiffe://creto.local/agent/other"]
    tools = ["hammer", "saw", "hammer"]
    codes = authz.check_many(agents, ["tool:call"] * 3, tools, kind="Tool")
    assert codes.tolist() == [1, 2, 0]
    rosters = (
        authz.roster("principal", agents),
        authz.roster("action", ["tool:call"]),
        authz.roster("resource", tools, "Tool"),
    )
    places = np.arange(3, dtype=np.uint32)
    assert authz.check_many(places, np.zeros(3, np.uint32), places, rosters=rosters).tolist() == [1, 2, 0]
    with pytest.raises(InvalidInputError, match="differ in length"):
        authz.check_many(places, places[:2], places, rosters=rosters)


def test_many_checks_of_resources_without_a_type_are_refused_and_not_denied() -> None:
    authz = client('permit (principal, action, resource == Tool::"saw");', [member("a")])
    assert authz.check_nowait(AGENT, "tool:call", "saw")  # which takes the type from the action
    with pytest.raises(
        InvalidInputError, match='the resource `saw` has no type: name it by `kind`, or write `Type::"saw"`'
    ):
        authz.check_many([AGENT] * 2, ["tool:call"] * 2, ['Tool::"saw"', "saw"])
    with pytest.raises(InvalidInputError, match="the resource `saw` has no type"):
        authz.roster("resource", ["saw"])
    assert authz.check_many([AGENT], ["tool:call"], ['Tool::"saw"']).tolist() == [1]


def test_an_explanation_shows_each_condition_with_its_value() -> None:
    authz = client(
        """@id("a") permit (principal, action, resource == Tool::"x");
        @id("b") forbid (principal, action == Action::"tool:strict", resource)
          when { context.n > 3 && context.n * 9223372036854775807 > 0 };
        @id("c") permit (principal, action, resource == Tool::"y");"""
    )
    told = {policy["policy"]: policy for policy in authz.explain(AGENT, "tool:strict", "x", {"n": 5})}
    assert set(told) == {"a", "b"}
    assert told["a"]["holds"] is True
    assert told["b"]["holds"] is None
    first, second = told["b"]["conditions"]
    assert (first["word"], first["value"], first["reached"]) == ("when", "true", True)
    assert "overflow" in second["value"]
    authz.engine.upsert_entities(json.dumps([member("a")]))
    assert authz.explain(AGENT, "tool:strict", "x", {"n": 1})[1]["holds"] is False


def test_a_set_that_is_not_right_names_the_place_and_the_old_one_serves() -> None:
    authz = client("permit (principal, action, resource);")
    with pytest.raises(InvalidInputError, match="line 2, column"):
        authz.install("permit (principal, action, resource)\nwhen { context.nothing };", SCHEMA)
    with pytest.raises(InvalidInputError, match="stands on a permit"):
        authz.install('@oversight("x") permit (principal, action, resource);', SCHEMA)
    with pytest.raises(InvalidInputError, match="two policies are named `a`"):
        authz.install(
            '@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);', SCHEMA
        )
    assert authz.check_nowait(AGENT, "tool:call", "x")


@pytest.mark.parametrize("name", ["default", "coding", "research", "finance"])
def test_every_starter_set_passes_its_own_tests_reaches_every_policy_and_gives_no_warning(name: str) -> None:
    folder = Path(starter.__code__.co_filename).parent / "starter"
    results, coverage = Table.load(folder / f"{name}.toml").run()
    assert [result.case.name for result in results if not result.passed] == []
    assert coverage.idle == []
    assert PolicyEngine().install(starter(name), starter_schema())[1] == []
    from creto import _core

    assert _core.policy_findings(starter(name), starter_schema()) == []
    assert name in starters()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process and gives what it printed."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        told = capsys.readouterr()
        return told.out or told.err

    return run


def test_check_shows_the_line_with_a_caret_and_a_hint(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.cedar"
    file.write_text('permit (principal, action == Action::"fs:read", resource)\nwhen { context.byte == 1 };\n')
    out = run("policy", "check", file, code=1)
    assert f"{file}:2:8: error [validate]" in out
    assert "  2 | when { context.byte == 1 };" in out
    assert "    |        ^^^^^^^^^^^^" in out
    assert "help: did you mean `bytes`?" in out
    findings = json.loads(run("--json", "policy", "check", file, code=1))
    assert (findings[0]["line"], findings[0]["column"], findings[0]["rule"]) == (2, 8, "validate")


def test_check_warns_of_what_may_not_mean_what_it_says(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "odd.cedar"
    file.write_text("permit (principal, action, resource);")
    assert "[unconditional]" in run("policy", "check", file)
    run("policy", "check", "--strict", file, code=1)


def test_check_finds_names_that_nobody_has_and_shows_the_policy_that_an_annotation_is_wrong_on(
    run: Any, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.cedar", tmp_path / "second.cedar"
    first.write_text(
        """// @oversigt("in a comment"), Agent::"reader"
@id("reads") @owner("platform") @advice("none")
permit (principal == Agent::"reader", action == Action::"fs:read", resource)
when { context.path != "@oversigt" && context.path != "Agent::" };
"""
    )
    second.write_text(
        """@id("asks")
@oversigt("desk")
forbid (principal == Agent::"spiffe://creto.local/agent/reader", action == Action::"fs:write", resource);

@id("wrong")
@oversight("desk")
permit (principal is Agent, action == Action::"fs:write", resource == Path::"notes");
"""
    )
    out = run("policy", "check", first, second, code=1)
    assert f"{first}:3:22: warning [agent-name]: no agent has the id `reader`" in out
    assert 'help: write `Agent::"spiffe://creto.local/agent/reader"`' in out
    assert f"{second}:2:1: warning [annotation]: `@oversigt` says nothing to creto" in out
    assert '  2 | @oversigt("desk")\n    | ^^^^^^^^^\n  help: did you mean `@oversight`?' in out
    assert f"{second}:5:1: error [annotation]: policy `wrong`: `@oversight` stands on a permit" in out
    assert '  5 | @id("wrong")\n    | ^^^^^^^^^^^^\n' in out
    assert "2 files: 1 error, 2 warnings" in out


def test_what_a_policy_expects_of_itself_is_not_told_of_names_either(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.cedar"
    file.write_text(
        '@id("a") @expect("agent-name, annotation") @audti("after")\n'
        'permit (principal == Agent::"a", action == Action::"tool:call", resource == Tool::"s");\n'
        '@id("b") permit (principal == Agent::"b;", action == Action::"tool:call", resource == Tool::"s"); // @audti\n'
    )
    out = run("policy", "check", file)
    assert f"{file}:3:31: warning [agent-name]: no agent has the id `b;`" in out
    assert "1 file: 0 errors, 1 warning" in out


def test_a_set_without_a_policy_and_a_file_without_entities_are_told(run: Any, tmp_path: Path) -> None:
    file, nothing = tmp_path / "none.cedar", tmp_path / "nothing.json"
    file.write_text("// to be written\n\n")
    nothing.write_text("\n")
    out = run("policy", "check", file)
    assert f"{file}: warning [empty]: the set holds no policy: every act is denied" in out
    told = run("policy", "check", file, "--entities", nothing, code=2)
    assert f"`{nothing}` holds no entities: write a JSON array of them" in told


def test_of_several_files_the_one_that_is_wrong_is_named(run: Any, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.cedar" for name in ("first", "second", "third"))
    first.write_text('@id("x")\npermit (principal is Agent, action == Action::"tool:call", resource == Tool::"s");\n')
    second.write_text(
        '\n@id("x")\nforbid (principal is Agent, action == Action::"tool:call", resource == Tool::"t");\n'
    )
    third.write_text("// deep\npermit (principal, action, resource) when { " + "(" * 100 + "true" + ")" * 100 + " };")
    assert f"{second}:2:1: error [id]: two policies are named `x`" in run("policy", "check", first, second, code=1)
    assert f"{third}:2: error [parse]: nested deeper than 64" in run("policy", "check", first, third, code=1)
    told = run("policy", "explain", "a", "tool:call", "s", "--policies", first, "--policies", second, code=2)
    assert "two policies are named `x`" in told


def test_the_starters_work_where_they_are_written(run: Any, tmp_path: Path) -> None:
    assert "coding" in run("policy", "new")
    said = run("policy", "new", "coding", tmp_path / "p")
    config = tmp_path / "house.toml"
    config.write_text("\n".join(re.findall("`(authz[.].*?)`", said)))
    assert "change-working-folder" in run("--config", config, "policy", "explain", "a", "fs:write", "x")
    run("policy", "check", "--strict", tmp_path / "p" / "coding.cedar", "--entities", tmp_path / "p" / "entities.json")
    out = run("policy", "test", tmp_path / "p" / "coding.toml")
    assert "15 of 15 cases pass; 13 of 13 policies decided a case" in out
    assert "kept" in run("policy", "new", "coding", tmp_path / "p")


def test_who_takes_a_file_of_assertions_for_a_table_of_cases_is_told_which_command_it_is_for(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("policy", "new", "coding", tmp_path)
    for command, file, meant in (("test", "coding.proofs.toml", "prove"), ("prove", "coding.toml", "test")):
        assert main(["policy", command, str(tmp_path / file)]) == 2
        assert f"with `creto policy {meant} {tmp_path / file}`" in capsys.readouterr().err


def test_of_many_policies_that_no_case_reaches_the_first_are_named_and_the_rest_counted(
    run: Any, tmp_path: Path
) -> None:
    links = [
        {"templateId": "t", "newId": f"of-{at:03}", "values": {"?principal": {"type": "Agent", "id": f"{AGENT}{at}"}}}
        for at in range(100)
    ]
    template = {
        "effect": "permit",
        "principal": {"op": "==", "slot": "?principal"},
        "action": {"op": "==", "entity": {"type": "Action", "id": "tool:call"}},
        "resource": {"op": "All"},
        "conditions": [],
    }
    linked = {"staticPolicies": {}, "templates": {"t": template}, "templateLinks": links}
    (tmp_path / "linked.json").write_text(json.dumps(linked))
    case = {"agent": f"{AGENT}7", "action": "tool:call", "resource": "x", "expect": "allow", "policy": "of-007"}
    table = tmp_path / "cases.yaml"
    table.write_text(json.dumps({"policies": "linked.json", "case": [case]}))
    out = run("policy", "test", table)
    assert "1 of 1 cases pass; 1 of 100 policies decided a case" in out
    assert out.count("no case reaches") == 40
    assert out.endswith("  and 59 more like these; `--json` names them all\n")
    assert len(json.loads(run("policy", "test", "--json", table))[0]["idle_policies"]) == 99


def test_a_case_whose_context_does_not_read_is_named_and_so_is_the_file_that_is_wrong(run: Any, tmp_path: Path) -> None:
    set_, table = tmp_path / "set.cedar", tmp_path / "cases.toml"
    set_.write_text(
        'permit (principal is Agent, action == Action::"tool:call", resource)\nwhen { context.amount > 3 };'
    )
    (tmp_path / "other.cedar").write_text("// nothing\n\n")
    table.write_text(
        'policies = ["other.cedar", "set.cedar"]\n[[case]]\nname = "pays"\nagent = "a"\naction = "tool:call"\n'
        'resource = "pay"\ncontext = { amount = { decimal = "ten" } }\nexpect = "deny"\n'
    )
    assert f"{set_}:2:8: for policy" in run("policy", "test", table, code=2)
    set_.write_text('permit (principal is Agent, action == Action::"tool:call", resource);')
    assert "case `pays`: the context does not read" in run("policy", "test", table, code=2)


def test_a_case_that_fails_says_what_was_expected(run: Any, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text('@id("reads") permit (principal, action == Action::"fs:read", resource);')
    table = tmp_path / "t.yaml"
    table.write_text(
        """
policies: p.cedar
case:
  - {agent: a, action: "fs:read", resource: x, context: {path: x}, expect: deny}
"""
    )
    out = run("policy", "test", table, code=1)
    assert "FAILED fs:read on x: allow, permitted by `reads`" in out
    assert "expected deny" in out


def test_a_case_knows_of_its_resource_what_the_gate_knows(run: Any, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(
        """@id("docs") permit (principal, action == Action::"http:get", resource)
when { context.host == "example.org" };
@id("tls") permit (principal, action == Action::"net:connect", resource) when { context.port == 443 };
@id("src") permit (principal, action == Action::"fs:read", resource) when { context.path like "src/*" };"""
    )
    table = tmp_path / "t.yaml"
    table.write_text(
        """
policies: p.cedar
case:
  - {agent: a, action: "http:get", resource: "https://EXAMPLE.org./a", expect: allow}
  - {agent: a, action: "net:connect", resource: "example.org:443", expect: allow}
  - {agent: a, action: "net:connect", resource: "example.org:22", expect: deny}
  - {agent: a, action: "fs:read", resource: src/main.py, expect: allow}
  - {agent: a, action: "fs:read", resource: src/../main.py, expect: deny}
  - {agent: a, action: "http:get", resource: "https://example.com/", context: {host: example.org}, expect: deny}
"""
    )
    out = run("policy", "test", table)
    assert "6 of 6 cases pass; 3 of 3 policies decided a case" in out
    assert "src/../main.py: deny, `src/../main.py` is not the shortest way to write this path" in out
    assert "the context says the host is `example.org`, and `https://example.com/` leads to `example.com`" in out


def test_what_no_agent_reads_or_changes_is_the_same_in_every_starter_set() -> None:
    secrets = {starter(name).split('@id("secrets-never")')[1].split("};")[0] for name in starters()}
    assert len(secrets) == 1


def test_explain_says_why(run: Any) -> None:
    out = run("policy", "explain", "researcher", "fs:read", ".env", "--context", '{"path": ".env"}')
    assert run("policy", "explain", "researcher", "fs:read", ".env") == out  # as the layer works it out
    assert out.startswith("denied: policy `secrets-never` forbids it\n")
    assert "permit `read-working-folder`: applies" in out
    assert "when " in out
    assert ': true (context.path is ".env")' in out
    paid = ("policy", "explain", "a", "tool:call", "send_money", "--policies")
    file = Path(str(resources.files("creto.authz").joinpath("starter", "finance.cedar")))
    for amount in ("25.5", '{"decimal": "25.5"}', '{"__extn": {"fn": "decimal", "arg": "25.5"}}'):
        context = f'{{"amount": {amount}, "currency": "EUR", "to": "b"}}'
        assert run(*paid, file, "--context", context).startswith("allowed by `pay`")


def test_a_name_that_looks_like_another_is_another_in_every_form_of_a_check() -> None:
    authz = client(f'permit (principal == Agent::"{AGENT}", action == Action::"tool:call", resource == Tool::"x");')
    others = [AGENT + "\0", AGENT + " ", AGENT.replace("e", "\u0435"), AGENT + "\u200b", AGENT.upper(), f"{AGENT}\n"]
    names = [AGENT, *others]
    assert [authz.check_nowait(name, "tool:call", "x").allowed for name in names] == [True] + [False] * len(others)
    many = len(names)
    assert authz.check_many(names, ["tool:call"] * many, ["x"] * many, kind="Tool").tolist() == [1] + [0] * len(others)
    array = np.array(names, dtype=object)
    assert authz.check_many(array, ["tool:call"] * many, ["x"] * many, kind="Tool").tolist() == [1] + [0] * len(others)
    assert authz.check_many([AGENT], ["tool:call"], ["x\0"], kind="Tool").tolist() == [0]


@pytest.mark.parametrize("places", [[2**32], [-1], [0.5], [np.nan], ["0"], [True]])
def test_a_place_that_would_become_another_one_is_refused(places: Any) -> None:
    authz = client("permit (principal, action, resource);")
    rosters = (
        authz.roster("principal", [AGENT]),
        authz.roster("action", ["tool:call"]),
        authz.roster("resource", ["x"], "Tool"),
    )
    none = np.zeros(1, np.uint32)
    with pytest.raises(InvalidInputError, match="a place in a roster is an unsigned 32-bit integer"):
        authz.check_many(np.array(places), none, none, rosters=rosters)
    assert authz.check_many(np.array([7]), none, none, rosters=rosters).tolist() == [0]
    assert authz.check_many(np.array([0], dtype=np.int8), none, none, rosters=rosters).tolist() == [1]


def test_a_new_set_of_policies_does_not_forget_what_the_sources_said() -> None:
    revoked = [False]

    def source() -> list[dict[str, Any]]:
        return [member("b", level=0 if revoked[0] else 1)]

    text = (
        "permit (principal, action, resource);"
        "forbid (principal, action, resource) when {{ principal has level && {} }};"
    )
    authz = AuthzClient(sources=[source])
    authz.install(text.format("principal.level == 0"), SCHEMA)
    revoked[0] = True
    anyio.run(authz.refresh)
    assert not authz.check_nowait(AGENT, "tool:call", "x")
    # The files know nothing of it, or say otherwise: the sources have the last word.
    for entities in ([], [member("a", level=1)], json.dumps([member("a", level=1)])):
        authz.install(text.format("principal.level < 1"), SCHEMA, entities)
        assert not authz.check_nowait(AGENT, "tool:call", "x")
    with pytest.raises(InvalidInputError, match="holds no entities: it is nested too deeply"):
        authz.install(text.format("principal.level < 1"), SCHEMA, "[" * 100_000)
    revoked[0] = False
    assert anyio.run(authz.refresh) == 1
    assert authz.check_nowait(AGENT, "tool:call", "x")


def test_what_a_source_gives_that_is_no_entity_is_told_as_that_and_changes_nothing() -> None:
    given: list[Any] = []
    authz = AuthzClient(sources=[lambda: given[0]])
    authz.install("permit (principal, action, resource) when { principal has role };")
    uid = {"type": "Agent", "id": "a"}
    given.append([MappingProxyType({"uid": uid, "attrs": MappingProxyType({"role": "buyer"}), "parents": []})])
    assert anyio.run(authz.refresh) == 1
    for wrong, text in (
        (
            [{"uid": uid, "attrs": {"role": {"buyer"}}, "parents": []}],
            "an attribute is {'buyer'}, which has no form in JSON",
        ),
        (None, "gave `None`: give entities, one after the other"),
        (["x" * 100_000], "not an entity: 'xxx"),
    ):
        given[0] = wrong
        with pytest.raises(InvalidInputError) as caught:
            anyio.run(authz.refresh)
        assert text in str(caught.value)
        assert len(str(caught.value)) < 10_000
        assert authz.check_nowait('Agent::"a"', "secret:use", "key").outcome == "allow"


def test_what_a_source_no_longer_names_is_again_what_was_installed() -> None:
    named = [member("a", level=1), member("a", level=1) | {"uid": {"type": "Agent", "id": "other"}}]
    authz = AuthzClient(sources=[lambda: named])
    revoked = member("a", level=0)
    forbid = "forbid (principal, action, resource) unless { principal has level && principal.level > 0 };"
    authz.install("permit (principal, action, resource);" + forbid, SCHEMA, [revoked])
    assert not authz.check_nowait(AGENT, "tool:call", "x")
    assert anyio.run(authz.refresh) == 2
    assert authz.check_nowait(AGENT, "tool:call", "x")
    named.clear()
    assert anyio.run(authz.refresh) == 2
    told = authz.explain(AGENT, "tool:call", "x")[1]["conditions"][0]["given"]
    assert ("principal.level", "0") in told
    assert not authz.check_nowait('Agent::"other"', "tool:call", "x")
    assert anyio.run(authz.refresh) == 0


def test_a_name_of_a_file_is_no_source_of_entities() -> None:
    with pytest.raises(InvalidInputError, match=re.escape("`'entities.json'` is no source of entities: give a Path")):
        AuthzClient(sources=["entities.json"])


def test_of_two_refreshes_at_once_the_later_one_has_the_last_word() -> None:
    async def story() -> None:
        first_asked, go_on = anyio.Event(), anyio.Event()
        asked = 0

        async def source() -> list[dict[str, Any]]:
            nonlocal asked
            asked += 1
            if asked == 1:
                first_asked.set()
                await go_on.wait()
                return [member("a")]
            return []

        authz = AuthzClient(sources=[source])
        authz.install('permit (principal in Team::"a", action, resource);', SCHEMA)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(authz.refresh)
            await first_asked.wait()
            tasks.start_soon(authz.refresh)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        assert asked == 2
        assert not authz.check_nowait(AGENT, "tool:call", "x")

    anyio.run(story)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[1]", '[{"uid": 1}]', "\udcff"])
def test_a_file_of_entities_that_is_none_changes_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "entities.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    authz = AuthzClient(sources=[file])
    authz.install("permit (principal, action, resource);", SCHEMA)
    with pytest.raises(InvalidInputError, match="entit"):
        anyio.run(authz.refresh)
    assert authz.check_nowait(AGENT, "tool:call", "x")


OTHERS: list[Any] = [
    "text",
    1,
    True,
    ["x"],
    {"a": 1},
    Decimal("1.5"),
    ip_address("10.0.0.1"),
    {"__entity": {"type": "Tool", "id": "x"}},
]
REQUIRED: dict[str, tuple[str, dict[str, Any]]] = {
    "fs:read": ('Path::"x"', {"path": "x"}),
    "fs:write": ('Path::"x"', {"path": "x"}),
    "http:get": ('Url::"https://a.example/"', {"host": "a.example"}),
    "http:delete": ('Url::"https://a.example/"', {"host": "a.example"}),
    "net:connect": ('Host::"a.example:443"', {"host": "a.example", "port": 443}),
}


@pytest.mark.parametrize("name", starters())
def test_no_starter_set_lets_an_act_in_that_leaves_out_or_retypes_what_is_required(name: str) -> None:
    authz = AuthzClient()
    # Whatever the set forbids, its permits alone would let in: so a denial below is the schema's.
    authz.install(starter(name) + "permit (principal, action, resource);")
    for action, (resource, whole) in REQUIRED.items():
        assert "does not fit" not in (authz.check_nowait(AGENT, action, resource, whole).reason or "")
        for key, right in whole.items():
            changed = [{k: v for k, v in whole.items() if k != key}]
            changed += [{**whole, key: other} for other in OTHERS if type(other) is not type(right)]
            changed += [{**{k: v for k, v in whole.items() if k != key}, key.upper(): right}]
            for context in changed:
                assert authz.check_nowait(AGENT, action, resource, context).outcome == "deny", (action, context)


def test_what_the_validator_finds_for_many_actions_is_told_once(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.cedar"
    file.write_text("permit (principal, action, resource) when { context.nothing };")
    found = json.loads(run("--json", "policy", "check", file, code=1))
    assert len(found) == 1
    assert "and the same for" in found[0]["message"]
    assert found == json.loads(run("--json", "policy", "check", file, code=1))


def test_a_character_that_is_not_seen_is_found_and_the_caret_stands_under_it(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "hidden.cedar"
    file.write_text(
        "// a\x0b\u2028b\r\npermit (principal == Agent::\"x\", action, resource); // \u202e } ; forbid\n"
        "permit (principal,\taction == Action::\"fs:read\", resource) when { \u2028 context.pat == \"\u4f60\u597d\" };",
        encoding="utf-8",
    )  # fmt: skip
    out = run("policy", "check", file, code=1)
    lines = out.splitlines()
    at = next(n for n, line in enumerate(lines) if "error [validate]" in line)
    assert lines[at].startswith(f"{file}:3:")
    shown, carets = lines[at + 1], lines[at + 2]
    assert shown[carets.index("^") : carets.rindex("^") + 1] == "context.pat"
    assert "\\u2028" in shown
    file.write_text(file.read_text().replace("pat ==", "path =="), encoding="utf-8")
    out = run("policy", "check", file)
    second = file.read_text(encoding="utf-8").split("\n")[1]
    at = second.index("\u202e") + 1
    assert f"{file}:2:{at}: warning [hidden-character]: the character U+202E is not seen here" in out
    assert "\\u202e } ; forbid" in out
    assert f"{file}:1:5: warning [hidden-character]: the character U+000B" in out
    assert "\u202e" not in out
    run("policy", "check", "--strict", file, code=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('case = "x"', "`case` is an array of tables"),
        ("case = [1]", "`case` is an array of tables"),
        ('[[case]]\nagent="a"\naction="b:c"\nresource="x"\nexpect="allow"\ncontext=[1]', "`context` is a table"),
        ('schema = 7\n[[case]]\nagent="a"', "`schema` is the name of a file"),
        ('entities = 7\n[[case]]\nagent="a"', "`entities` is the name of a file"),
        ('schema = "nowhere"\n[[case]]\nagent="a"', "nowhere`, which is not there"),
        ('schema = "binary"\n[[case]]\nagent="a"', "binary`, which is not text in UTF-8"),
    ],
)
def test_a_table_of_cases_says_what_is_wrong_with_it(
    text: str, message: str, run: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "p.cedar").write_text("permit (principal, action, resource);")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    table = tmp_path / "t.toml"
    table.write_text(f'policies = "p.cedar"\n{text}\n')
    with pytest.raises(InvalidInputError, match=message):
        Table.load(table)
    assert main(["policy", "test", str(table)]) == 2
    assert message in capsys.readouterr().err
    for policies in ("5", "[1]", '""', '"nowhere.cedar"'):
        table.write_text(f"policies = {policies}\n")
        with pytest.raises(InvalidInputError, match=r"name the policy files|not there"):
            Table.load(table)
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="not text in UTF-8"):
        Table.load(table)


def test_files_that_are_no_text_and_requests_that_are_none_are_told_apart_from_faults(
    tmp_path: Path, capsys: Any
) -> None:
    binary, policy = tmp_path / "b.cedar", tmp_path / "p.cedar"
    binary.write_bytes(b"\xff\xfe")
    policy.write_text("permit (principal, action, resource);")
    for arguments in (
        ["check", binary],
        ["check", policy, "--schema", binary],
        ["check", policy, "--entities", binary],
        ["sign", binary],
        ["sign", policy, "--schema", binary],
    ):
        assert main(["policy", *map(str, arguments)]) == 2
        assert "b.cedar: it is not text in UTF-8" in capsys.readouterr().err
    config = tmp_path / "given.toml"
    for settings in (
        'policies = ["b.cedar"]',
        'policies = ["p.cedar"]\nschema_file = "b.cedar"',
        'policies = ["p.cedar"]\ntrusted_keys = ["b.cedar"]\nsignature = "p.cedar"',
        'policies = ["p.cedar"]\ntrusted_keys = ["p.cedar"]\nsignature = "b.cedar"',
        'shadow = ["b.cedar"]',
    ):
        config.write_text(f"[authz]\n{settings}\n")
        assert main(["--config", str(config), "config", "check"]) == 2
        assert "b.cedar: it is not text in UTF-8" in capsys.readouterr().err
    for context, message in (
        ('{"a":' * 3000 + "1" + "}" * 3000, "nested too deeply"),
        ('{"purpose": "\\ud800"}', "not text in UTF-8"),
        ("[]", "not a JSON object"),
    ):
        assert main(["policy", "explain", "a", "tool:call", "x", "--policies", str(policy), "--context", context]) == 2
        assert message in capsys.readouterr().err
    assert main(["policy", "explain", "a\udcff", "tool:call", "x", "--policies", str(policy)]) == 2
    assert "not text in UTF-8" in capsys.readouterr().err
