"""What the command line says to mistakes: what was wrong, where, and what to write, whoever made it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import creto.cli
from creto.cli import main


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, by its whole name."""
    pending: list[tuple[str, click.Command]] = [("creto", creto.cli._root)]
    while pending:
        name, command = pending.pop()
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            inner = [(one, command.get_command(context, one)) for one in command.list_commands(context)]
            pending += [(f"{name} {one}", found) for one, found in inner if found is not None]


def said_by(*arguments: str, state: Path) -> tuple[int, str]:
    """Runs a command; its exit code, and all that it said, on one line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["--state", str(state), *arguments])
    return code, " ".join(click.unstyle(said.getvalue()).split())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["agent", "creat", "x"], 2, "there is no command `creat`; did you mean `create`?"),
        (["invoice", "zzz"], 2, "there is no command `zzz`; `creto invoice --help` lists them"),
        (["run", "--allow", "", "--", "true"], 2, "`--allow` without a host: write HOST or HOST:PORT"),
        (["run", "--allow", "*.org", "--", "true"], 2, "`--allow *.org`: one host each, no pattern"),
        (["run", "--env", "=x", "--", "true"], 2, "`--env =x`: write NAME=VALUE, or NAME to pass one on"),
        (["approver", "add", "ann", "--email", "nowhere"], 2, "--email `nowhere`: write an address"),
        (["audit", "query", "--agent", "\udcff"], 2, "cannot name an agent: use 1 to 120 letters, digits"),
        (["audit", "query", "--action", "\udcff"], 2, "is not text in UTF-8, which policies and records are kept in"),
        (["secret", "remove", "TOKEN", "--agent", "Bob Smith"], 2, "`Bob Smith` cannot name an agent: use 1 to 120"),
        (["invoice", "show", "\udcff"], 2, "`\\udcff` is not text in UTF-8"),
        (["agent", "show", "nobody"], 1, "`spiffe://creto.local/agent/nobody` is known here; `creto agent list` shows"),
        (["agent", "export", "nobody"], 1, "no agent `spiffe://creto.local/agent/nobody` is known here"),
        (["agent", "delegate", "nobody", "noone"], 1, "no agent `spiffe://creto.local/agent/nobody` is known here"),
        (["agent", "delegate", "a", "b", "--seconds", "0"], 2, "'--seconds': 0 is not in the range x>=1"),
        (["message", "inbox", "nobody"], 1, "no agent `spiffe://creto.local/agent/nobody` is known here"),
        (["message", "send", "nobody", "x", "--text", "t"], 1, "no agent `spiffe://creto.local/agent/nobody` is known"),
        (["secret", "set", "BAD NAME"], 2, "`BAD NAME` is no name of a variable"),
        (["secret", "set", "PATH"], 2, "`PATH` decides how programs are found or loaded"),
        (
            ["policy", "explain", "a", "tool:call", "t", "--context", "[1]"],
            2,
            "--context is not a JSON object: write it",
        ),
        (
            ["policy", "explain", "a", "tool:call", "t", "--context", "{x"],
            2,
            "--context is not a JSON object: Expecting",
        ),
        (["quota", "set", "agent", "m", "1", "--window", "fortnight"], 2, "`7d`, or `minute`, `hour`, `day`, `week`"),
        (["quota", "set", "agent", "m", "1", "--kind", "rolling"], 2, "'rolling' is not one of 'fixed', 'sliding'"),
        (["quota", "set", "agent", "m", "1", "--currency", "usd"], 2, "--currency `usd`: write three capital letters"),
        (["quota", "set", "agent", "m", "1", "--time-zone", "Mars"], 2, "--time-zone `Mars`: no such time zone"),
        (["quota", "set", "agnt", "m", "1"], 2, "creto: quota scope `agnt`: write `organisation`, `team` or `agent`"),
        (["quota", "set", "agent", "m", "1", "--lift"], 1, "there is no quota of m for each agent: none is set"),
        (["quota", "explain", "[1,2", "m=1"], 2, "path `[1,2` is no JSON list of names"),
        (["quota", "explain", "[1]", "m=1"], 2, 'path `[1]`: write names, as ["acme", "research", "reader"]'),
        (["quota", "explain", "acme/x/y", "m=1"], 0, "no quota counts m here it fits"),
        (["invoice", "run", "--customer", "nobody"], 1, "`nobody` used nothing in this period, and no price has a fee"),
        (
            ["invoice", "pay", "INV-9"],
            1,
            "there is no invoice `INV-9`; `creto invoice list` shows those that there are",
        ),
        (
            ["audit", "show", "deadbeef"],
            1,
            "no oversight request begins with `deadbeef`; an act or a record is named",
        ),
        (
            ["audit", "show", "dead-beef"],
            2,
            "`dead-beef` is no id: give the 32 hexadecimal digits of an act or a record",
        ),
        (["audit", "prove", "nosuch"], 2, "or a record's place as `creto audit tail` shows it, such as `0000/17`"),
        (["audit", "check-proof", "gone.tlog-proof"], 2, "File 'gone.tlog-proof' does not exist"),
        (
            ["audit", "check-proof", "a.txt"],
            1,
            "the record's bytes are not at `a.cbor`; `creto audit prove --out` writes",
        ),
        (["audit", "verify", "--key", "gone"], 2, "File 'gone' does not exist"),
        (["audit", "verify", "--key", "a.txt"], 2, "`a.txt` holds no public key as `creto audit keys` prints it"),
        (["audit", "export", "gone/out.csv"], 1, "no such file or directory"),
        (["audit", "erase", "ann"], 2, "there is no terminal to ask at; give --yes to erase without being asked"),
        (["audit", "publish", "gone/checkpoints"], 1, "/gone` to publish into"),
        (["message", "show", "a.txt"], 2, "`a.txt` is no sealed message, or not a whole one"),
        (["policy", "analyze", "a.txt", "a.txt", "--seconds", "inf"], 2, "'inf' is not a valid integer range"),
        (["policy", "prove", "a.txt", "--seconds", "-1"], 2, "-1 is not in the range 1<=x<=86400"),
        (["demo", "--html", "gone/demo.html"], 1, "there is no folder `gone` to write the page to"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("neither this nor that")
    returned, said = said_by(*arguments, state=tmp_path / "state")
    assert text in said
    assert returned == code
    assert "a fault in creto" not in said


def test_a_file_that_is_no_text_is_told_as_that(tmp_path: Path) -> None:
    state, binary = tmp_path / "state", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for name in ("a", "b"):
        said_by("agent", "create", name, state=state)
    for arguments in (
        ["agent", "delegate", "a", "b", "--policy", "binary"],
        ["agent", "delegate", "a", "b", "--chain", "binary"],
        ["agent", "import", "binary"],
        ["audit", "check-proof", "binary", "--entry", "binary"],
        ["audit", "verify", "--seen", "binary"],
    ):
        assert said_by(*arguments, state=state) == (2, "creto: binary: it is not text in UTF-8"), arguments


def test_a_misspelt_name_makes_no_agent(tmp_path: Path) -> None:
    for arguments in (["agent", "export", "rsearcher"], ["message", "inbox", "rsearcher"]):
        said_by(*arguments, state=tmp_path / "state")
    assert said_by("agent", "list", state=tmp_path / "state") == (
        0,
        "no agents yet; `creto agent create NAME` makes one",
    )


def test_an_agent_that_exists_under_another_path_is_not_shown_as_if_it_were_moved(tmp_path: Path) -> None:
    said_by("agent", "create", "reader", "--path", "acme/lab", state=tmp_path / "state")
    assert said_by("agent", "create", "reader", "--path", "acme/lab", state=tmp_path / "state")[0] == 0
    code, said = said_by("agent", "create", "reader", "--path", "acme/sales", state=tmp_path / "state")
    assert code == 1
    assert "exists already, under `acme/lab`; an agent's path does not change" in said


def test_a_cause_that_says_the_same_is_not_said_twice(tmp_path: Path) -> None:
    code, said = said_by("run", "--agent", "spiffe://other/agent/x", "--", "true", state=tmp_path / "state")
    assert code == 102
    assert said.endswith("`spiffe://other/agent/x` does not belong to trust domain `creto.local`")
    assert "because" not in said


def test_nobody_is_told_to_close_a_folder_that_is_not_a_state_folder(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "notes.txt").write_text("others read this")
    code, said = said_by("agent", "list", state=shared)
    assert code == 3
    assert f"it is no state folder: give one of its own, such as `{shared / 'creto'}`" in said
    assert "chmod" not in said


def test_money_is_meant_in_the_currency_whether_its_kind_is_said_or_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    said_by("quota", "set", "agent", "cost:USD", "25.50", "--window", "month", state=state)
    assert "25.50 of cost:USD for each agent (by month)" in said_by("quota", "show", state=state)[1]
    code, said = said_by("quota", "explain", "acme/lab/reader", f"cost:USD={25_500_000_000}", state=state)
    assert (code, said.endswith("it fits")) == (0, True)
    assert said_by("quota", "explain", "acme/lab/reader", f"cost:USD={25_500_000_001}", state=state)[0] == 4


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ('[common]\ntrust_domain = "Bad Domain"', "write small letters, digits, `.`, `-` and `_`"),
        ('[common]\nstore_url = "mysql://x"', "write a `postgresql://` URL"),
        ('[metering]\ncurrency = "usd"', "write three capital letters, by ISO 4217, such as `USD`"),
        ('[metering]\ncurrency = "EUX"', "no such currency in ISO 4217; write one that it has, such as `USD`"),
        ('[metering]\ncurrency = "XAU"', "no such currency in ISO 4217; write one that it has, such as `USD`"),
        ('[runtime]\nhosts = {"a" = "b"}', "`a` leads to `b`: write an address and a port, such as `127.0.0.1:8080`"),
        (
            '[[approvers]]\nname="Bad Name"',
            "`approvers[1].name` (file c.toml): write letters, digits, `.`",
        ),
        ('[[approvers]]\nname="a"\nemail="here"', "write an address, such as `release-desk@example.org`"),
        (
            '[[approvers]]\nname="a"\n[[approvers]]\nname="a"',
            "`a` is there twice: give each approver a name",
        ),
        ('[[quotas]]\nscope="agent"\nmeter="m"\nlimit=1\nwindow="x"', "`quotas[1]` (file c.toml): window `x`: write"),
    ],
)
def test_a_setting_that_cannot_be_used_says_what_to_write(toml: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(toml)
    code, said = said_by("config", "check", "c.toml", state=tmp_path / "state")
    assert (code, text in said) == (2, True), said


def test_every_group_lists_its_commands_in_whole_sentences_and_every_command_has_an_example() -> None:
    cut, bare = [], []
    for name, command in commands():
        context = click.Context(command, info_name=name, terminal_width=80)
        text = command.get_help(context)
        if isinstance(command, click.Group):
            cut += [name for line in text.splitlines() if re.search(r"\w\.\.\.$", line)]
        elif "Example:" not in text and "over JSON:" not in text:
            bare.append(name)
    assert cut == []
    assert bare == []


def test_shells_complete_commands_by_the_script_that_completion_prints(tmp_path: Path) -> None:
    for shell in ("zsh", "fish"):
        assert "_CRETO_COMPLETE" in said_by("completion", shell, state=tmp_path)[1]
    script = tmp_path / "creto.bash"
    ran = [sys.executable, "-m", "creto"]
    script.write_text(subprocess.run([*ran, "completion", "bash"], capture_output=True, text=True, check=True).stdout)
    # The word before what is completed is the program; here a function stands for the installed one.
    asked = f"""creto() {{ {shlex.join(ran)}; }}; env() {{ local -x "${{@:1:3}}"; "${{@:4}}"; }}; source {script}
    COMP_WORDS=(creto audit ver); COMP_CWORD=2; _creto_completion creto; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "verify", done.stderr


def test_completion_for_a_shell_that_is_not_known_says_which_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, said = said_by("completion", state=tmp_path)
    assert (code, "`tcsh` cannot be served: say which of bash, zsh, fish" in said) == (2, True)


def test_what_the_parser_refuses_is_json_too_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "prove", "nope.toml", "--json"]) == 2
    told = json.loads(capsys.readouterr().err)
    assert (told["exit_code"], "'nope.toml' does not exist" in told["error"]["message"]) == (2, True)


def test_what_stopped_a_run_says_the_exit_status_that_the_run_has(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.toml").write_text("[runtime]\ndefault_backend = 1\n")
    code = main(["--state", str(state), "--config", str(tmp_path / "wrong.toml"), "run", "--json", "--", "true"])
    assert (code, json.loads(capsys.readouterr().err.splitlines()[-1])["exit_code"]) == (102, 102)
