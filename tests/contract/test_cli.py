"""What the command line promises: fast help, one way to say an error, exit codes by category, JSON for data."""

from __future__ import annotations

import io
import json
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import creto.cli
from creto import _core
from creto.cli import main
from creto.cli._group import Entry

HEAVY = ("sqlalchemy", "pydantic", "rich", "numpy", "alembic", "asyncio")


def child(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **more)


def commands() -> Iterator[tuple[str, click.Command]]:
    group = creto.cli._root
    context = click.Context(group)
    pending = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    while pending:
        name, command = pending.pop()
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            pending += [(f"{name} {inner}", command.commands[inner]) for inner in command.commands]


def test_help_lists_every_command_and_imports_none_of_what_they_need() -> None:
    code = (
        "import sys; from creto.cli import main; main(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = child("-c", code)
    *listed, imported = ran.stdout.splitlines()
    assert imported == "[]", imported
    text = "\n".join(listed)
    for name in ("config", "doctor", "approve", "deny"):
        assert f"\n  {name} " in text
    assert "3 denied, 4 quota, 5 oversight" in " ".join(text.split())


def test_every_command_says_in_one_line_what_it_does_and_every_option_what_it_is_for() -> None:
    silent = [name for name, command in commands() if not command.get_short_help_str(200).endswith((".", ")"))]
    unexplained = [
        f"{name} {parameter.opts[0]}"
        for name, command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden)
    ]
    assert (silent, unexplained) == ([], [])


def test_no_listed_command_is_missing_and_no_module_is_unlisted() -> None:
    folder = Path(creto.cli.__file__).parent
    there = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    listed = {entry.module.rpartition(".")[2] for entry in creto.cli._ENTRIES.values()}
    assert there - listed == set()


def test_python_m_creto_is_the_command() -> None:
    ran = child("-m", "creto", "--version")
    assert ran.stdout == f"creto {_core.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["confg"], "there is no command `confg`; did you mean `config`?"),
        (["zzz"], "there is no command `zzz`; `creto --help` lists them"),
        (["config", "show", "--jsn"], "Did you mean '--json'?"),
        (["doctor", "nothing"], "there is no part `nothing`; there are configuration, "),
    ],
)
def test_a_misspelt_command_or_option_is_usage_and_names_the_nearest(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A command `fail` that raises what it is given."""

    def install(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        module = type(sys)("creto.cli.doctor")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "creto.cli.doctor", module)
        monkeypatch.setitem(creto.cli._ENTRIES, "fail", Entry("creto.cli.doctor", "Fail."))

    return install


def test_an_error_is_one_clear_line_and_the_trace_is_shown_on_request_only(
    failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(creto.CretoError("the ledger in `/x` is locked"))
    assert main(["fail"]) == 1
    assert capsys.readouterr().err == "creto: the ledger in `/x` is locked\n"
    assert main(["-v", "fail"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main(["--json", "fail"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["message"] == "the ledger in `/x` is locked"


def test_the_causes_are_told_each_once(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    error = creto.CretoError("opening the store failed: disk on fire")
    error.__cause__ = OSError("disk on fire")
    error.__cause__.__cause__ = ValueError("spark")
    failing(error)
    assert main(["fail"]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == ["  because: spark"]


def test_a_fault_of_ours_is_called_one(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(RuntimeError("boom"))
    assert main(["fail"]) == 1
    said = capsys.readouterr().err
    assert "creto: RuntimeError: boom" in said
    assert "--verbose" in said


def test_ctrl_c_ends_with_130_and_no_trace(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert main(["fail"]) == 130
    assert capsys.readouterr().err.strip() == "creto: interrupted"


def test_a_reader_that_goes_away_is_no_error() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m creto config schema | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert ran.stderr == ""


def test_the_state_option_reaches_every_part_and_every_child(tmp_path: Path) -> None:
    ran = child("-m", "creto", "--state", str(tmp_path / "s"), "config", "path", "--json")
    assert {"kind": "state", "path": str(tmp_path / "s")} in json.loads(ran.stdout)


def test_importing_creto_costs_no_third_party_import_and_at_most_15_ms() -> None:
    foreign = child(
        "-c", "import sys, creto; print([m for m in sys.modules if m.split('.')[0] in " + repr(HEAVY) + "])"
    )
    assert foreign.stdout == "[]\n"

    def spent(code: str) -> float:
        """The processor time of a child: a busy machine stretches the clock on the wall, not this."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, with_it = [], []
    for _ in range(12):
        bare.append(spent("pass"))
        with_it.append(spent("import creto"))
    assert min(with_it) - min(bare) <= 0.015


def test_what_an_operator_does_is_on_record_under_the_name_of_the_user_and_not_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("CRETO_STATE", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\n"))
    done = (
        ("secret", "set", "API_TOKEN", "--agent", "reader"),
        ("agent", "create", "reader"),
        ("agent", "revoke", "reader", "--reason", "lost"),
        ("approver", "add", "desk"),
        ("quota", "set", "agent", "pages", "5"),
    )
    for words in done:
        assert main(list(words)) == 0, capsys.readouterr().err
    with creto.open_blocking():
        pass  # whoever opens the ledger next records what the store has decided
    capsys.readouterr()
    assert main(["audit", "query", "--json"]) == 0
    who = {record["what"]: record["who"] for record in json.loads(capsys.readouterr().out)}
    me = f"spiffe://creto.local/user/{pwd.getpwuid(os.getuid()).pw_name}"
    wanted = ("secret:set", "identity:create", "identity:revoke", "oversight:approver-added", "quota:set")
    assert {what: who[what] for what in wanted} == dict.fromkeys(wanted, me)
