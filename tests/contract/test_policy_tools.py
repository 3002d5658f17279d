"""What `creto policy` promises: proofs with requests that show them, honest replay, shadows, signatures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import creto
from creto import _core
from creto.authz import starter, starter_schema, starters
from creto.authz._assertions import Assertions
from creto.authz._replay import Act, replayed
from creto.authz._signed import sign_files, signed_at, verify_files
from creto.authz._solver import solver_command
from creto.cli import main
from creto.errors import InvalidInputError, SignatureVerificationFailedError, UnauthorizedError

STARTER = Path(str(resources.files("creto.authz"))) / "starter"
READ = 'permit (principal, action == Action::"fs:read", resource)'


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command in this process, over a state folder of its own, and gives what it printed."""
    monkeypatch.setenv("CRETO_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        told = capsys.readouterr()
        return told.out or told.err

    return run


def compare(old: str, new: str, schema: str | None = None) -> dict[str, Any]:
    return _core.policy_compare(old, new, schema or starter_schema(), solver_command())


def decision(policies: str, example: dict[str, Any], schema: str | None = None) -> _core.Decision:
    """What the engine says to a request that a proof showed."""
    engine = _core.PolicyEngine()
    entities, context = (
        each if isinstance(each, str) else json.dumps(each) for each in (example["entities"], example["context"])
    )
    engine.install(policies, schema or starter_schema(), entities)
    context = json.loads(context)
    return engine.check_nowait(example["principal"], example["action"], example["resource"], context)


def outcome(policies: str, example: dict[str, Any], schema: str | None = None) -> str:
    """The same in a word."""
    said = decision(policies, example, schema).outcome
    return {"oversight": "ask"}.get(said, said)


# --- analyze ----------------------------------------------------------------------------------------------------------

FORBID = 'forbid (principal, action == Action::"fs:read", resource)'


def reads(condition: str) -> str:
    return f"{READ} when {{ {condition} }};"


def forbids(condition: str, word: str = "when", asked: bool = False, by: str = "o") -> str:
    mark = f'@oversight("{by}")' if asked else ""
    return f"{mark}{FORBID} {word} {{ {condition} }};"


IS_A = 'context.path == "a"'
SOURCE = 'context.path like "src/*"'
IS_SECRET = 'context.path like "*.env"'
CHANGES = {
    ("deny", "allow"): (reads('context.path like "src/*"'), reads('context.path like "s*"')),
    ("allow", "deny"): (reads("true"), reads("true") + forbids(IS_SECRET)),
    ("allow", "ask"): (reads("true"), reads("true") + forbids(IS_SECRET, asked=True)),
    ("ask", "allow"): (
        reads("true") + forbids("true", asked=True),
        reads("true") + forbids(IS_A, "unless", asked=True),
    ),
    ("ask", "deny"): (
        reads("true") + forbids("true", asked=True),
        reads("true") + forbids("true", asked=True) + forbids(IS_A),
    ),
    ("deny", "ask"): (reads("true") + forbids(IS_A), reads("true") + forbids(IS_A, asked=True)),
}


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_each_way_in_which_an_answer_changes_is_found_and_no_other(before: str, after: str) -> None:
    old, new = CHANGES[before, after]
    report = compare(old, new)
    assert not report["undecided"]
    assert {(change["before"], change["after"]) for change in report["changes"]} == {(before, after)}
    for change in report["changes"]:
        assert (outcome(old, change["example"]), outcome(new, change["example"])) == (before, after)


@pytest.mark.parametrize(
    ("old", "new", "newly", "gone"),
    [
        # Another takes the place of the one who was asked.
        (forbids("true", asked=True), forbids("true", asked=True, by="p"), {"p"}, {"o"}),
        # One more is asked, of some acts.
        (
            forbids("true", asked=True),
            forbids("true", asked=True) + forbids(IS_SECRET, asked=True, by="p"),
            {"p"},
            set(),
        ),
        # One of two is no longer asked, of some acts.
        (
            forbids("true", asked=True) + forbids("true", asked=True, by="p"),
            forbids("true", asked=True) + forbids(IS_A, "unless", asked=True, by="p"),
            set(),
            {"p"},
        ),
        # The two share the acts between them otherwise than before.
        (
            forbids(IS_A, asked=True) + forbids(IS_A, "unless", asked=True, by="p"),
            forbids(IS_A, asked=True, by="p") + forbids(IS_A, "unless", asked=True),
            {"o", "p"},
            {"o", "p"},
        ),
    ],
)
def test_a_change_of_who_is_asked_is_found_with_a_request_that_shows_it(
    run: Any, tmp_path: Path, old: str, new: str, newly: set[str], gone: set[str]
) -> None:
    old, new = reads("true") + old, reads("true") + new
    report = compare(old, new)
    assert not report["equivalent"]
    assert not report["undecided"]
    assert {name for change in report["changes"] for name in change["newly_asked_of"]} == newly
    assert {name for change in report["changes"] for name in change["no_longer_asked_of"]} == gone
    for change in report["changes"]:
        assert (change["before"], change["after"]) == ("ask", "ask")
        before, after = (set(decision(each, change["example"]).policy_ids) for each in (old, new))
        assert (after - before, before - after) == (set(change["newly_asked_of"]), set(change["no_longer_asked_of"]))
    files = tmp_path / "old.cedar", tmp_path / "new.cedar"
    for file, text in zip(files, (old, new), strict=True):
        file.write_text(text)
    out = run("policy", "analyze", *files, code=1 if gone else 0)
    for name in newly:
        assert re.search(rf"^newly asked of .*`{name}`", out, re.M)
    for name in gone:
        assert re.search(rf"no longer asked of .*`{name}`", out)
    run("policy", "analyze", "--equivalent", *files, code=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            reads('context.path like "a*" && context.path like "*b"'),
            reads('context.path like "*b" && context.path like "a*"'),
        ),
        (
            f"{READ} unless {{ context has bytes && context.bytes > 5 }};",
            reads("if context has bytes then context.bytes <= 5 else true"),
        ),
        (reads("true") + forbids(IS_A, asked=True), forbids(IS_A, asked=True) + reads("true")),
    ],
)
def test_sets_that_say_the_same_in_other_words_are_proved_to_be_equivalent(old: str, new: str) -> None:
    assert old != new
    report = compare(old, new)
    assert report["equivalent"]
    assert report["environments"] > 20


def test_a_forbid_that_errs_is_not_taken_for_an_equivalence() -> None:
    """Cedar passes over a forbid that errs; the gate denies. The proof says that it does not know, rather than yes."""
    errs = f"{FORBID} when {{ context has bytes && context.bytes + 9223372036854775807 == 0 }};"
    report = compare(f"{READ};", f"{READ};{errs}")
    assert not report["equivalent"]


PATHS = st.sampled_from(["a", "b", "a/b"])
CONDITIONS = st.one_of(
    st.builds('context.path == "{}"'.format, PATHS),
    st.builds('context.path like "{}*"'.format, PATHS),
    st.builds("context has bytes && context.bytes > {}".format, st.integers(0, 2)),
    st.builds('principal in Team::"{}"'.format, st.sampled_from("xy")),
)
POLICIES = st.builds(
    "{} (principal, action == Action::\"fs:read\", resource) {} {{ {} }};".format,
    st.sampled_from(["permit", "permit", "forbid", '@oversight("o") forbid', '@oversight("p") forbid']),
    st.sampled_from(["when", "unless"]),
    CONDITIONS,
)  # fmt: skip
SETS = st.lists(POLICIES, min_size=1, max_size=4).map("\n".join)


@settings(max_examples=25)
@given(SETS, SETS)
def test_what_is_proved_agrees_with_the_engine_on_every_small_request(old: str, new: str) -> None:
    """An oracle by enumeration: the paths, sizes and teams that these policies can tell apart."""
    report = compare(old, new)
    assert not report["undecided"]
    proved = {(change["before"], change["after"]) for change in report["changes"]} - {("ask", "ask")}
    proved |= {("newly", name) for change in report["changes"] for name in change["newly_asked_of"]}
    proved |= {("no longer", name) for change in report["changes"] for name in change["no_longer_asked_of"]}
    for change in report["changes"]:
        assert (outcome(old, change["example"]), outcome(new, change["example"])) == (change["before"], change["after"])
    seen = set()
    for teams in ((), ("x",), ("y",), ("x", "y")):
        parents = [{"type": "Team", "id": team} for team in teams]
        entities = json.dumps([{"uid": {"type": "Agent", "id": "spiffe://t/agent/a"}, "attrs": {}, "parents": parents}])
        for path in ("a", "b", "a/b", "a/bc", "ac", "bc", "c"):
            for size in ({}, {"bytes": 0}, {"bytes": 1}, {"bytes": 2}, {"bytes": 3}):
                example = {
                    "principal": "spiffe://t/agent/a", "action": "fs:read", "resource": "r",
                    "context": json.dumps({"path": path, **size}), "entities": entities,
                }  # fmt: skip
                was, now = decision(old, example), decision(new, example)
                if was.outcome == now.outcome == "oversight":
                    before, after = set(was.policy_ids), set(now.policy_ids)
                    seen |= {("newly", name) for name in after - before}
                    seen |= {("no longer", name) for name in before - after}
                elif was.outcome != now.outcome:
                    seen.add(tuple({"oversight": "ask"}.get(each.outcome, each.outcome) for each in (was, now)))
    assert seen == proved


def test_analyze_shows_a_request_and_exits_with_one_where_something_is_newly_allowed(run: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old.cedar", tmp_path / "new.cedar"
    before, after = CHANGES["deny", "allow"]
    old.write_text(before)
    new.write_text(after)
    out = run("policy", "analyze", old, new, code=1)
    assert "newly allowed, denied before:" in out
    assert "newly denied" not in out
    assert "before: no policy permits it; after: policy `policy0` permits it" in out
    assert re.search(r"^2 of \d+ kinds of request change; the others are proved to stay as they are$", out, re.M)
    assert "newly denied, allowed before:" in run("policy", "analyze", new, old)
    run("policy", "analyze", "--equivalent", new, old, code=1)
    assert "both sets answer every request alike: proved for all " in run("policy", "analyze", old, old)
    assert json.loads(run("--json", "policy", "analyze", old, new, code=1))["changes"][0]["after"] == "allow"


def test_a_set_of_several_files_is_given_as_its_folder_and_what_is_shown_can_be_asked_again(
    run: Any, tmp_path: Path
) -> None:
    before, after, table = tmp_path / "before", tmp_path / "after", tmp_path / "cases.yaml"
    for folder, most in ((before, "10.0"), (after, "20.0")):
        folder.mkdir()
        (folder / "a.cedar").write_text(
            '@id("pay") permit (principal, action == Action::"tool:call", resource == Tool::"pay")\n'
            f'when {{ context has amount && context.amount.lessThan(decimal("{most}")) }};'
        )
        (folder / "b.cedar").write_text(f'@id("read") {READ};')
        (folder / "notes.md").write_text("no policies")
    [change, *_] = json.loads(run("policy", "analyze", before, after, "--json", code=1))["changes"]
    shown = change["example"]
    case = {
        "agent": 'Agent::""',
        "action": "tool:call",
        "resource": "pay",
        "context": shown["context"],
        "expect": change["after"],
        "policy": "pay",
    }
    for folder, code in ((after, 0), (before, 1)):
        files = [f"{folder.name}/{name}.cedar" for name in "ab"]
        table.write_text(json.dumps({"policies": files, "entities": shown["entities"], "case": [case]}))
        run("policy", "test", table, code=code)
    assert "no file in it ends in `.cedar`" in run("policy", "analyze", tmp_path, after, code=2)


def test_without_a_solver_the_command_says_what_to_install(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.cedar"
    file.write_text(f"{READ};")
    monkeypatch.setattr("creto.authz._solver.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["policy", "analyze", str(file), str(file)]) == 2
    assert "pip install 'creto[analyze]'" in capsys.readouterr().err
    monkeypatch.setenv("CVC5", "/bin/false")
    file.with_name("b.cedar").write_text(CHANGES["deny", "allow"][0])
    assert main(["policy", "analyze", str(file), str(file.with_name("b.cedar"))]) == 1


def test_a_question_that_takes_too_long_is_not_decided_and_not_taken_for_a_proof() -> None:
    old = f"{READ} when {{ context has bytes && context.bytes * context.bytes == 4611686014132420609 }};"
    unsure = "import sys; [print('unknown', flush=True) for line in sys.stdin if 'check-sat' in line]"
    command = [sys.executable, "-c", unsure]
    report = _core.policy_compare(old, f"{READ};", starter_schema(), command)
    assert not report["equivalent"]
    assert "could not decide" in report["undecided"][0][1]


# --- prove and check --prove ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", starters())
def test_what_a_starter_set_can_never_do_is_proved(name: str) -> None:
    read = Assertions.load(STARTER / f"{name}.proofs.toml")
    wanted = [(each.name, each.requests, list(each.never)) for each in read.assertions]
    verdicts = _core.policy_prove(read.policies, read.schema, wanted, solver_command())
    assert {verdict["name"]: verdict["claim"] for verdict in verdicts} == {name: "holds" for name, _, _ in wanted}


def test_an_assertion_that_does_not_hold_is_shown_with_a_request_that_breaks_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(f'@id("reads") {READ};')
    table = tmp_path / "never.toml"
    table.write_text(
        """
policies = "p.cedar"
[[assert]]
name = "nobody but the librarian ever reads"
requests = '''(principal, action == Action::"fs:read", resource)
unless { principal == Agent::"spiffe://creto.local/agent/librarian" }'''
never = "allow"
[[assert]]
name = "nothing is written"
requests = '(principal, action == Action::"fs:write", resource)'
never = ["allow", "ask"]
[[assert]]
name = "says nothing"
requests = '(principal, action == Action::"fs:read", resource) when { context.path == "a" && context.path == "b" }'
never = "deny"
"""
    )
    out = run("policy", "prove", table, code=1)
    assert "BROKEN  nobody but the librarian ever reads" in out
    assert "allow: policy `reads` permits it" in out
    assert "proved  nothing is written" in out
    assert "VOID    says nothing" in out
    assert f"{table}: 1 of 3 assertions are proved" in out
    broken = json.loads(run("--json", "policy", "prove", table, code=1))[0]
    assert outcome((tmp_path / "p.cedar").read_text(), broken["example"]) == "allow"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('policies = "p.cedar"', "there is no assertion; write [[assert]]"),
        ('policies = "p.cedar"\n[[assert]]\nnever = "allow"', "assertion 1: `requests` is missing"),
        ('policies = "p.cedar"\n[[assert]]\nrequests = "(principal)"\nnever = "no"', "`never` is one or more of"),
        ('policies = "gone.cedar"\n[[assert]]', "gone.cedar`, which is not there"),
        ('policy = "p.cedar"', "`policy` is not known"),
    ],
)  # fmt: skip
def test_a_file_of_assertions_says_what_is_wrong_with_it(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(f"{READ};")
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        Assertions.load(tmp_path / "a.toml")
    assert message in str(caught.value)


def test_an_assertion_over_what_the_schema_does_not_know_names_it() -> None:
    wanted = [("odd", '(principal, action == Action::"fs:read", resource) when { context.colour == "red" }', ["allow"])]
    with pytest.raises(InvalidInputError, match="assertion `odd`: .*colour"):
        _core.policy_prove(f"{READ};", starter_schema(), wanted, solver_command())


def test_check_with_the_solver_finds_what_can_never_apply_never_matter_or_err(run: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "a.cedar", tmp_path / "b.cedar"
    first.write_text(f'@id("wide") {reads(SOURCE)}\n@id("narrow") {READ} when {{ context.path == "src/a" }};\n')
    second.write_text(
        f'@id("twice") {READ} when {{ "src/a" == context.path }};\n'
        f'@id("never") {FORBID} when {{ context.path == "a" && context.path == "b" }};\n'
        f'@id("overflows") {FORBID} when {{ context has bytes && context.bytes + 1 > 5 }};\n'
    )  # fmt: skip
    out = run("policy", "check", first, second, "--prove")
    assert f"{first}:2:1: warning [shadowed]: policy `narrow` never matters beside `wide`" in out
    assert f"{second}:2:1: warning [impossible]: policy `never` never applies" in out
    assert "warning [erring-forbid]: policy `overflows`" in out
    assert (
        "[duplicate]: policy `twice` says the same as `narrow`" in out or "`twice` never matters beside `wide`" in out
    )
    assert "impossible" not in run("policy", "check", first, second)


@pytest.mark.parametrize("name", starters())
def test_nothing_in_a_starter_set_is_idle(name: str) -> None:
    assert _core.policy_examine(starter(name), starter_schema(), solver_command()) == []


def test_the_files_of_a_set_are_checked_as_one(run: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "a.cedar", tmp_path / "b.cedar"
    first.write_text(f'// one\n@id("x") {READ} when {{ context.path == "a" }};\n')
    second.write_text(f'@id("x") {READ} when {{ context.path == "b" }};\n')
    assert "two policies are named `x`" in run("policy", "check", first, second, code=1)
    second.write_text(f'@id("y") {READ} when {{ context.path == "a" }};\n')
    assert f"{second}:1:1: warning [duplicate]: policy `y` says the same as `x`" in run(
        "policy", "check", first, second
    )


def test_a_fault_of_the_schema_is_shown_in_the_schema(run: Any, tmp_path: Path) -> None:
    policy, schema = tmp_path / "a.cedar", tmp_path / "s.cedarschema"
    policy.write_text(f"{READ};")
    schema.write_text("entity Agent;\nentity Tool in [Nowhere];\n")
    out = run("policy", "check", policy, "--schema", schema, code=1)
    assert f"{schema}:2:17: error [schema]" in out
    assert "  2 | entity Tool in [Nowhere];" in out


# --- replay -----------------------------------------------------------------------------------------------------------


RECORD: dict[str, Any] = {
    "kind": "intent",
    "act": "01",
    "who": "spiffe://creto.local/agent/a",
    "what": "tool:call",
    "resource": "pay",
    "delegation_chain": [],
    "digest": None,
    "detail": {},
}


def acts(state: Path, *performed: tuple[str, str, dict[str, Any]]) -> None:
    async def story() -> None:
        async with creto.open(state=state) as layer:
            for action, resource, context in performed:
                with contextlib.suppress(UnauthorizedError):
                    await layer.perform(layer.agent("researcher"), action, resource, lambda: None, context=context)

    anyio.run(story)


def test_an_act_is_explained_by_what_is_known_of_the_agent_here(run: Any, tmp_path: Path) -> None:
    (tmp_path / "team.cedar").write_text('permit (principal in Team::"research", action, resource);')
    (tmp_path / "team.toml").write_text('[authz]\npolicies = ["team.cedar"]\n')
    explain = ("--config", "team.toml", "policy", "explain", "reader", "tool:call", "search")
    assert "denied: no policy permits it" in run(*explain)
    with creto.open_blocking(tmp_path / "state", config=[tmp_path / "team.toml"]) as layer:
        reader = layer.parts.identities.agent("reader", path=["acme", "research"])
        layer.perform_blocking(reader, "tool:call", "search", lambda: None)
    assert "allowed by `policy0`" in run(*explain)


def test_an_act_is_replayed_exactly_where_no_policy_that_fits_it_looks_at_what_is_not_known() -> None:
    engine = _core.PolicyEngine()
    schema = """entity Agent; entity Tool; @open action "tool:call" appliesTo
      { principal: [Agent], resource: [Tool], context: { to?: String, "no t"?: String } };"""
    engine.install(
        """permit (principal is Agent, action, resource == Tool::"search");
        permit (principal is Agent, action, resource == Tool::"pay") when { context has to };
        permit (principal is Agent, action, resource == Tool::"odd") when { context has "no t" };
        permit (principal is Agent, action, resource == Tool::"never")
        when { principal == Agent::"b" } when { context has to };
        """,
        schema,
        "[]",
    )

    def told(resource: str) -> tuple[str, tuple[str, ...]]:
        [act] = Act.read([RECORD | {"resource": resource}])
        result = replayed(engine, act)
        return result.now, result.unknown

    assert told("search") == ("allow", ())
    assert told("pay") == ("deny", ("`context.no t`", "`context.to`"))  # of a name in quotes any look may be one
    assert told("odd") == ("deny", ("`context.no t`",))
    assert told("never") == ("deny", ())


def test_what_the_schema_requires_and_the_ledger_does_not_hold_is_not_taken_for_a_denial() -> None:
    engine = _core.PolicyEngine()
    schema = """entity Agent; entity Tool; action "tool:call" appliesTo
      { principal: [Agent], resource: [Tool], context: { n: Long } };"""
    engine.install("permit (principal is Agent, action, resource);", schema, "[]")
    [act] = Act.read([RECORD])
    assert replayed(engine, act).unknown == ("`context.n`",)
    [act] = Act.read([RECORD | {"detail": {"context": '{"n":3}'}}])
    assert (replayed(engine, act).now, replayed(engine, act).unknown) == ("allow", ())


def test_what_a_human_refused_was_asked_about_whatever_suite_its_digest_is_of() -> None:
    # The digest of suite `cnsa2` is longer than a record holds.
    refusal = RECORD | {"kind": "refusal", "detail": {"refused": "oversight"}}
    assert [act.was for act in Act.read([refusal])] == ["ask"]


def test_replay_says_which_acts_it_knows_whole_and_what_it_lacks_of_the_others(run: Any, tmp_path: Path) -> None:
    acts(
        tmp_path / "state",
        ("tool:call", "pay", {"amount": "x", "to": "DE02"}),  # not a decimal: denied
        ("tool:call", "pay", {"purpose": "survey", "to": "DE02"}),
        ("process:exec", "pytest", {"argv": "pytest -q"}),
        ("fs:read", ".env", {"path": ".env"}),
    )
    new = tmp_path / "new.cedar"
    new.write_text(
        'permit (principal, action == Action::"tool:call", resource)\n'
        'when { context has purpose && context.purpose == "survey" };\n'
        'permit (principal, action == Action::"process:exec", resource)\n'
        'when { context has argv && context.argv == "pytest -q" };\n'
        'permit (principal, action == Action::"fs:read", resource) when { context.path like "*.env" };'
    )
    report = json.loads(run("--json", "policy", "replay", new))
    assert (report["acts"], report["exact"], report["partly"]) == (4, 3, 1)
    assert report["unknown"] == {"`context.argv`": 1}
    told = [(row["action"], row["was"], row["would_be"], row["unknown"]) for row in report["otherwise"]]
    assert sorted(told) == [("fs:read", "deny", "allow", "no"), ("process:exec", "allow", "deny", "`context.argv`")]
    out = run("policy", "replay", new)
    assert "4 acts, 2 of them decided otherwise, 1 for certain; 3 replayed exactly" in out
    assert "1 only partly: `context.argv` is not on record" in out


def test_acts_alike_are_one_row_of_a_replay_and_one_line_where_the_terminal_is_narrow(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts(tmp_path / "state", *[("process:exec", "pytest", {})] * 3, ("process:exec", "evil\x1b[2J\nallow", {}))
    new = tmp_path / "new.cedar"
    new.write_text('@id("no") forbid (principal, action == Action::"process:exec", resource);')
    wide = run("policy", "replay", new)
    assert re.search(r"pytest +allow +deny +policy `no` forbids it +no +3\n", wide)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run("policy", "replay", new)
    agent = "spiffe://creto.local/agent/researcher"
    assert f"allow -> deny, 3 acts: process:exec on pytest by {agent}: policy `no` forbids it\n" in narrow
    assert "\x1b[2J" not in narrow
    assert narrow.count("\n") == 3
    assert len(json.loads(run("policy", "replay", new, "--json"))["otherwise"]) == 4


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("http:get", "http://[x"),
        ("net:connect", "host:\u00b2"),
        ("net:connect", "host:" + "9" * 5_000),
        ("net:connect", "host:99999999999999999999"),
        ("fs:read", "\x1b[2J\u202e"),
        ("tool:call", 'Tool::"x"y"'),
        ("tool:call", 'Tool::"\\q"'),
        ("in::x", ""),
    ],
)
def test_nothing_on_record_can_end_a_replay(action: str, resource: str) -> None:
    engine = _core.PolicyEngine()
    engine.install("permit (principal, action, resource);", starter_schema())
    record = {"kind": "intent", "act": 1, "what": action, "resource": resource, "who": "spiffe://t/agent/a"}
    for kept in (
        '{"a": 1.5}',
        "[" * 100_000,
        "[1]",
        "5",
        '{"purpose": 99999999999999999999999}',
        '{"purpose": {"x": null}}',
    ):
        detail = {"context": kept}
        (act,) = Act.read([{**record, "delegation_chain": [], "digest": None, "detail": detail}])
        assert replayed(engine, act).now in ("allow", "deny")


def test_a_hostile_act_on_record_is_shown_and_the_rest_is_replayed(run: Any, tmp_path: Path) -> None:
    acts(
        tmp_path / "state",
        ("net:connect", "h\x1b[2Jost", {}),  # no port: denied, and on record
        ("tool:call", "\x1b[2Jpay", {}),
    )
    new = tmp_path / "new.cedar"
    new.write_text(f"{FORBID};".replace("fs:write", "tool:call"))
    out = run("policy", "replay", new)
    assert "2 acts" in out
    assert "\x1b" not in out


def test_only_what_the_schema_wants_of_the_circumstances_is_on_record(run: Any, tmp_path: Path) -> None:
    acts(tmp_path / "state", ("tool:call", "pay", {"purpose": "p" * 300, "currency": "EUR", "to": "DE02"}))
    shown = json.loads(run("--json", "audit", "query", "--action", "tool:call"))
    details = [record["detail"] for record in shown]
    kept = [detail for detail in details if "context" in detail]
    assert len(kept) == 1
    assert json.loads(kept[0]["context"]) == {"amount": None, "currency": "EUR"}
    assert kept[0]["context_left_out"] == "purpose"
    assert "DE02" not in json.dumps(details)


# --- shadow -----------------------------------------------------------------------------------------------------------


def test_a_shadow_is_recorded_and_never_enforced_and_follows_its_file(run: Any, tmp_path: Path) -> None:
    shadow = tmp_path / "stricter.cedar"
    shadow.write_text(f'@id("reads") {READ};')
    config = tmp_path / "shadow.toml"
    config.write_text(f'[authz]\nshadow = ["{shadow}"]\n')

    async def story() -> None:
        async with creto.open(config=[config]) as layer:
            agent = layer.agent("researcher")
            await layer.perform(agent, "tool:call", "search", lambda: None)  # allowed, and the shadow would deny
            await layer.perform(agent, "fs:read", "a", lambda: None, context={"path": "a"})  # both allow
            assert layer.parts.gate.shadow_counts == (2, 1)
            shadow.write_text("permit (principal, action, resource);")
            layer.parts.live.reload("test")
            await layer.perform(agent, "tool:call", "search", lambda: None)
            assert layer.parts.gate.shadow_counts == (1, 0)
            shadow.write_text("permit (principal, action, resource")
            assert "authz.shadow" in str(layer.parts.live.reload("test").refused)
            await layer.perform(agent, "tool:call", "search", lambda: None)
            assert layer.parts.gate.shadow_counts == (2, 0)
            config.write_text("")
            layer.parts.live.reload("test")
            await layer.perform(agent, "tool:call", "search", lambda: None)
            assert layer.parts.gate.shadow_counts == (0, 0)

    anyio.run(story)
    rows = json.loads(run("--json", "policy", "shadow"))
    assert [(row["was"], row["would_be"], row["action"], row["why"], row["acts"]) for row in rows] == [
        ("allow", "deny", "tool:call", "no policy permits it", 1)
    ]


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_set_whose_signature_is_not_right_never_comes_into_force(run: Any, tmp_path: Path) -> None:
    policy, config = tmp_path / "pay.cedar", tmp_path / "signed.toml"
    policy.write_text(f'@id("first") {READ};')
    public = tmp_path / "policy.pub"
    public.write_text(run("--state", tmp_path / "signer", "policy", "keys"))
    signature = tmp_path / "pay.sig"
    config.write_text(f'[authz]\npolicies = ["{policy}"]\nsignature = "{signature}"\ntrusted_keys = ["{public}"]\n')
    run("--state", tmp_path / "signer", "policy", "sign", policy, "--out", signature)

    async def story() -> None:
        async with creto.open(config=[config]) as layer:
            first = layer.parts.policy.digest
            policy.write_text("permit (principal, action, resource);")
            refused = layer.parts.live.reload("test").refused
            assert "not as it was signed (changed: `pay.cedar`)" in str(refused)
            assert layer.parts.policy.digest == first
            stranger = _core.SigningKey.generate()
            signature.write_text(sign_files([(policy, policy.read_bytes())], stranger))
            assert "no key of `authz.trusted_keys` signed" in str(layer.parts.live.reload("test").refused)
            run("--state", tmp_path / "signer", "policy", "sign", policy, "--out", signature)
            assert layer.parts.live.reload("test").refused is None
            assert layer.parts.policy.digest != first
            # A later change of the configuration cannot switch the signature off while it runs.
            policy.write_text(f"{READ};")
            config.write_text(f'[authz]\npolicies = ["{policy}"]\n')
            assert layer.parts.live.reload("test").refused is not None

    anyio.run(story)
    config.write_text(f'[authz]\ntrusted_keys = ["{public}"]\n')
    with pytest.raises(SignatureVerificationFailedError, match="starter set is signed by nobody"):
        creto.open_blocking(config=[config]).__enter__()


def test_a_set_that_was_signed_once_and_replaced_does_not_come_back_unless_an_operator_says_so(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attack: whoever can put files in place brings back the wide set of last year, signature and all."""
    policy, config, signature = tmp_path / "pay.cedar", tmp_path / "signed.toml", tmp_path / "pay.sig"
    public = tmp_path / "policy.pub"
    public.write_text(run("--state", tmp_path / "signer", "policy", "keys"))
    config.write_text(f'[authz]\npolicies = ["{policy}"]\nsignature = "{signature}"\ntrusted_keys = ["{public}"]\n')
    sets = {}
    for name, text in (("wide", "permit (principal, action, resource);"), ("narrow", f"{READ};")):
        policy.write_text(text)
        run("--state", tmp_path / "signer", "policy", "sign", policy, "--out", signature)
        sets[name] = (policy.read_bytes(), signature.read_bytes())

    def place(name: str) -> None:
        policy.write_bytes(sets[name][0])
        signature.write_bytes(sets[name][1])

    agent = "spiffe://creto.local/agent/a"
    older = r"was signed at [\d: .+-]+, and the set that was last in force here at [\d: .+-]+: an older set does not"

    async def story() -> None:
        place("wide")
        async with creto.open(config=[config]) as layer:
            engine = layer.parts.policy
            assert engine.check_nowait(agent, "secret:use", "KEY")
            place("narrow")
            assert layer.parts.live.reload("test").refused is None
            assert not engine.check_nowait(agent, "secret:use", "KEY")
            # A process that runs keeps the set that it has,
            place("wide")
            assert re.search(older, str(layer.parts.live.reload("test").refused))
            assert not engine.check_nowait(agent, "secret:use", "KEY")
        # and one that starts does not start with the older one.
        with pytest.raises(SignatureVerificationFailedError, match=older):
            async with creto.open(config=[config]):
                raise AssertionError("opened")
        capsys.readouterr()
        assert main(["--config", str(config), "policy", "accept"]) == 6
        assert re.search(older, " ".join(capsys.readouterr().err.split()))
        assert main(["--config", str(config), "doctor", "policy"]) == 1
        assert "allow-older" in capsys.readouterr().out
        # The one that was refused as too old is let back on purpose, in a process that runs with the newer one.
        place("narrow")
        async with creto.open(config=[config]) as layer:
            place("wide")
            assert layer.parts.live.reload("test").refused is not None
            command = ["--config", str(config), "policy", "accept", "--allow-older", "--reason", "locked out"]
            assert await anyio.to_thread.run_sync(lambda: main(command)) == 0
            with anyio.fail_after(60):
                while not layer.parts.policy.check_nowait(agent, "secret:use", "KEY"):
                    await anyio.sleep(0.05)
            # The newer one is the newer one still.
            place("narrow")
            assert layer.parts.live.reload("test").refused is None
            assert not layer.parts.policy.check_nowait(agent, "secret:use", "KEY")
        # What a command decided reaches the ledger with the next process that opens it.
        async with creto.open(config=[config]) as layer:
            (record,) = await layer.parts.audit.query(action="policy:allow-older")
            assert (record.why, record.resource) == ("locked out", str(policy))
            assert record.detail["signed"] < record.detail["before"]

    anyio.run(story)


def test_a_change_that_is_refused_as_a_whole_does_not_make_the_set_in_force_the_older_one(
    run: Any, tmp_path: Path
) -> None:
    """A newer set comes with quotas that cannot be: nothing of it counts, and the set before it goes on serving."""
    config, public = tmp_path / "signed.toml", tmp_path / "policy.pub"
    public.write_text(run("--state", tmp_path / "signer", "policy", "keys"))
    for name, text in (("one", f"{READ};"), ("two", "permit (principal, action, resource);")):
        (tmp_path / f"{name}.cedar").write_text(text)
        run("--state", tmp_path / "signer", "policy", "sign", f"{name}.cedar", "--out", f"{name}.sig")

    def configure(name: str, more: str = "") -> None:
        config.write_text(
            f'[authz]\npolicies = ["{tmp_path}/{name}.cedar"]\nsignature = "{tmp_path}/{name}.sig"\n'
            f'trusted_keys = ["{public}"]\n{more}'
        )

    configure("one")
    with creto.open_blocking(config=[config]) as layer:
        first = layer.parts.policy.digest

        def refuse(_settings: object) -> None:
            raise InvalidInputError("not this one")

        layer.parts.live._takers.insert(1, refuse)
        configure("two")
        assert "not this one" in str(layer.parts.live.reload("test").refused)
        assert layer.parts.policy.digest == first
        # The same where it is the files themselves that changed.
        configure("one")
        kept = [(tmp_path / f"one.{end}", (tmp_path / f"one.{end}").read_bytes()) for end in ("cedar", "sig")]
        (tmp_path / "one.cedar").write_text(f"{READ}; {READ};")
        run("--state", tmp_path / "signer", "policy", "sign", "one.cedar", "--out", "one.sig")
        assert "not this one" in str(layer.parts.live.reload("test").refused)
        assert layer.parts.policy.digest == first
        for file, content in kept:
            file.write_bytes(content)
        configure("two")
        layer.parts.live._takers.remove(refuse)
        assert layer.parts.live.reload("test").refused is None
        assert layer.parts.policy.digest != first


def test_the_configured_set_is_signed_with_its_entities(run: Any, tmp_path: Path) -> None:
    (tmp_path / "p.cedar").write_text(f"{READ};\n")
    entities = tmp_path / "e.json"
    entities.write_text('[{"uid": {"type": "Tool", "id": "x"}, "attrs": {}, "parents": []}]')
    (tmp_path / "policy.pub").write_text(run("--state", tmp_path / "signer", "policy", "keys"))
    unsigned, signed = tmp_path / "unsigned.toml", tmp_path / "signed.toml"
    names = f'[authz]\npolicies = ["{tmp_path}/p.cedar"]\nentities = ["{entities}"]\n'
    unsigned.write_text(names)
    signed.write_text(f'{names}signature = "{tmp_path}/p.sig"\ntrusted_keys = ["{tmp_path}/policy.pub"]\n')
    sign = ("--config", unsigned, "--state", tmp_path / "signer", "policy", "sign", "--out", tmp_path / "p.sig")
    assert f"signed {tmp_path}/p.cedar, {entities}" in run(*sign)
    assert "signed by a trusted key" in run("--config", signed, "doctor", "policy")
    entities.write_text('[{"uid": {"type": "Nothing", "id": "x"}, "attrs": {}, "parents": []}]')
    run(*sign, code=2)


def test_a_signature_without_its_time_is_refused(tmp_path: Path) -> None:
    for predicate in ({}, {"signed": "yesterday"}, {"signed": 5}, {"signed": "2026-01-01T00:00:00"}):
        with pytest.raises(SignatureVerificationFailedError, match="does not say when it was made"):
            signed_at({"predicate": predicate})


def test_files_added_left_out_or_moved_are_told_apart() -> None:
    a, b, c = ((Path(f"{name}.cedar"), name.encode()) for name in "abc")
    key = _core.SigningKey.generate()
    signature = sign_files([a, b], key)
    assert verify_files([a, b], signature, [key.verifying_key])["predicateType"] == "urn:creto:policy-set:1"
    for files, message in (
        ([b, a], "in another order"),
        ([a], "missing: `b.cedar`"),
        ([a, b, c], "not signed: `c.cedar`"),
        ([a, (b[0], b"x")], "changed: `b.cedar`"),
    ):
        with pytest.raises(SignatureVerificationFailedError, match=message):
            verify_files(files, signature, [key.verifying_key])
    twins = [(Path("pay/rules.cedar"), b"1"), (Path("mail/rules.cedar"), b"2")]
    signature = sign_files(twins, key)
    with pytest.raises(SignatureVerificationFailedError, match=r"\(changed: `rules.cedar`\)"):
        verify_files([(twins[0][0], b"x"), twins[1]], signature, [key.verifying_key])
    other = _core.dsse_sign(key, "application/vnd.in-toto+json", b'{"_type": "x", "predicateType": "y"}')
    with pytest.raises(SignatureVerificationFailedError, match="of something else"):
        verify_files([a, b], other, [key.verifying_key])


# --- entities ---------------------------------------------------------------------------------------------------------


def test_entities_from_a_file_add_to_an_agent_and_cannot_take_back_its_revocation(run: Any, tmp_path: Path) -> None:
    agent = "spiffe://creto.local/agent/researcher"
    entities = tmp_path / "entities.json"
    entity = {
        "uid": {"type": "Agent", "id": agent},
        "attrs": {"role": "buyer", "revoked": False},
        "parents": [{"type": "Team", "id": "buyers"}],
    }
    entities.write_text(json.dumps([entity]))
    policy = tmp_path / "p.cedar"
    policy.write_text(
        'permit (principal in Team::"buyers", action == Action::"tool:call", resource)\n'
        'when { principal has role && principal.role == "buyer" };\n'
        'forbid (principal, action, resource) when { principal has revoked && principal.revoked };'
    )  # fmt: skip
    config = tmp_path / "c.toml"
    config.write_text(f'[authz]\npolicies = ["{policy}"]\nentities = ["{entities}"]\n')

    async def story() -> None:
        async with creto.open(config=[config]) as layer:
            researcher = layer.agent("researcher")
            assert await layer.perform(researcher, "tool:call", "order", lambda: 1) == 1
            entities.write_text(json.dumps([{**entity, "parents": []}]))
            assert layer.parts.live.reload("test").refused is None
            with pytest.raises(UnauthorizedError):
                await layer.perform(researcher, "tool:call", "order", lambda: 1)
            entities.write_text("{}")
            entities.write_text('[{"id": 1}]')
            assert "holds no entities" in str(layer.parts.live.reload("test").refused)

    anyio.run(story)


def test_the_json_schema_of_entities_fits_what_new_writes_and_refuses_what_cedar_would(
    run: Any, tmp_path: Path
) -> None:
    """The schema is data for editors: its rules are held against a file that is right, and some that are not."""
    jsonschema = pytest.importorskip("jsonschema")
    run("policy", "new", "coding", tmp_path / "p")
    schema = json.loads((tmp_path / "p" / "entities.schema.json").read_text())
    right = json.loads((tmp_path / "p" / "entities.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    assert list(check.iter_errors(right)) == []
    for wrong in (
        {**right[0], "attrs": {"colour": "red"}},
        {**right[0], "uid": {"type": "Agent", "id": "ann"}},
        {**right[0], "parents": [{"type": "Tool", "id": "x"}]},
        {"uid": {"type": "Tool", "id": "x"}, "attrs": {"a": 1}, "parents": []},
    ):
        assert list(check.iter_errors([wrong])) != []


def test_the_solver_answers_as_a_program(tmp_path: Path) -> None:
    script = "(reset)\n(set-logic ALL)\n(declare-const x Int)\n(assert (and (> x 3) (< x 3)))\n(check-sat)\n"
    done = subprocess.run(
        [*solver_command(), "--lang=smt2", "--tlimit-per=1000"], input=script, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "unsat"


def test_what_is_wrong_with_one_of_several_files_is_told_with_its_file_and_line_wherever_it_is_met(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, config = tmp_path / "first.cedar", tmp_path / "second.cedar", tmp_path / "house.toml"
    first.write_text(f'@id("reads")\n{READ};\n')
    second.write_text(f"// a line\n{READ}\nwhen {{ context.nothing }};\n")
    commands = (["config", "check"], ["doctor", "policy"], ["policy", "explain", "a", "fs:read", "x"])
    for named, before in (
        (f'policies = ["{first}", "{second}"]', ""),
        (f'policies = ["{first}"]\nshadow = ["{first}", "{second}"]', "the set of `authz.shadow`: "),
    ):
        config.write_text(f"[authz]\n{named}\n")
        for command in commands:
            capsys.readouterr()
            assert main(["--config", str(config), *command]) != 0
            told = capsys.readouterr()
            assert f"{second}:3:8: for policy" in told.out + told.err, command
            assert before in told.out + told.err
        with pytest.raises(InvalidInputError, match=re.escape(f"{second}:3:8: for policy")):
            creto.open_blocking(config=config).__enter__()
