"""`creto run` and its neighbours, as a person at a terminal meets them."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandboxes import http_server, skip_unless

CRETO = [sys.executable, "-m", "creto"]


@pytest.fixture(params=["gvisor", "process"])
def backend(request: pytest.FixtureRequest) -> str:
    skip_unless(request.param)
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def creto(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command in a session of its own, so that there is no terminal to ask at."""
    return subprocess.run(
        [*CRETO, *arguments], input=given, capture_output=True, text=True, timeout=60, start_new_session=True
    )


def test_the_program_keeps_its_streams_and_its_status_and_nothing_changes_unasked(project: Path, backend: str) -> None:
    (project / "target").mkdir()  # as compilers call a folder, and others do
    for hidden in (".env", "target/.env"):
        (project / hidden).write_text("KEY=1\n")
    (project / "old.txt").write_text("old\n")
    script = "cat; cat .env; ls target/.env; ls; echo new > new.txt; rm old.txt; exit 4"
    done = creto("run", "--backend", backend, "--json", "--", "bash", "-c", script, given="typed\n")
    assert (done.returncode, done.stdout) == (4, "typed\nold.txt\ntarget\n"), done.stderr
    *errors, last = done.stderr.splitlines()
    assert errors == [
        "cat: .env: No such file or directory",
        "ls: cannot access 'target/.env': No such file or directory",
    ]
    summary = json.loads(last)
    assert summary["hidden"] == [".env", "target/.env"]
    assert [(c["path"], c["kind"], c["applied"]) for c in summary["changes"]] == [
        ("new.txt", "added", False), ("old.txt", "deleted", False),
    ]  # fmt: skip
    assert [d["action"] for d in summary["denied"]] == ["fs:write", "fs:write"]
    assert summary["attestation"]["payloadType"] == "application/vnd.in-toto+json"
    assert sorted(path.name for path in project.iterdir()) == [".env", "old.txt", "target"]
    # Every act from the sandbox names it on record, and it is the one that was attested.
    rows = json.loads(creto("audit", "query", "--json").stdout)
    attested = [row["resource"] for row in rows if row["what"] == "sandbox:attest"]
    acted = {row["detail"].get("sandbox") for row in rows if row["what"] in ("process:exec", "fs:write")}
    assert acted == {*attested}
    assert len(attested) == 1


def test_what_was_agreed_to_on_the_command_line_is_carried_out(project: Path) -> None:
    backend = "process"
    skip_unless(backend)
    with http_server() as (port, seen):
        done = creto(
            "run", "--backend", backend, "--apply", "all", "--allow", "packages.example", "--json",
            "--host", f"packages.example=127.0.0.1:{port}", "--host", f"other.example=127.0.0.1:{port}", "--",
            "bash", "-c", "curl -s http://packages.example/x > fetched; curl -sm 9 http://other.example/; true",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert seen == ["packages.example/x"]
    assert (project / "fetched").read_text() == "served\n"
    summary = json.loads(done.stderr.splitlines()[-1])
    assert [(c["host"], c["allowed"]) for c in summary["connections"]] == [
        ("packages.example", True), ("other.example", False),
    ]  # fmt: skip


def test_an_agreement_to_all_changes_leaves_out_what_runs_outside_the_sandbox(project: Path) -> None:
    skip_unless("process")
    subprocess.run(["git", "init", "-q", "."], check=True)
    before = (project / ".git/config").read_text()
    for made in (
        "shipped/HEAD",
        "laid/config",
        "laid/hooks/post-checkout",
    ):  # by whoever made the repository, or a run before
        (project / made).parent.mkdir(parents=True, exist_ok=True)
        (project / made).write_text("x\n")
    script = (
        "echo x > shipped/config; echo 'ref: refs/heads/main' > laid/HEAD; mkdir .github .hg; echo x > CLAUDE.local.md;"
        "echo x > .github/copilot-instructions.md; echo '[hooks]' > .hg/hgrc;"
        "echo work > notes.txt; git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m one;"
        "printf '#!/bin/sh\\ntouch /tmp/owned\\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout;"
        "git config core.fsmonitor 'touch /tmp/owned'; mkdir -p .vscode lib; echo '{}' > .vscode/tasks.json;"
        "echo 'gitdir: ../notes' > lib/.git; mkdir bare; echo x > bare/HEAD; echo x > bare/config"
    )
    done = creto("run", "--backend", "process", "--apply", "all", "--json", "--", "bash", "-c", script)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stderr.splitlines()[-1])
    assert sorted(c["path"] for c in summary["changes"] if not c["applied"]) == [
        ".git/config", ".git/hooks/post-checkout", ".github/copilot-instructions.md", ".hg/hgrc", ".vscode/tasks.json",
        "CLAUDE.local.md", "bare/HEAD", "bare/config", "laid/HEAD", "lib/.git", "shipped/config",
    ]  # fmt: skip
    assert (project / ".git/config").read_text() == before
    assert subprocess.run(["git", "log", "--oneline"], capture_output=True, text=True, check=True).stdout.endswith(
        " one\n"
    )


@pytest.mark.parametrize(
    "script",
    [
        "echo 'permit (principal, action, resource);' > policies/own.cedar",
        "echo 'permit (principal, action, resource);' > policies/more.cedar",
        "rm policies/own.cedar",
        "mkdir other; echo 'permit (principal, action, resource);' > other/own.cedar; "
        "rm -r policies; ln -s other policies",
        "mv policies before; mkdir policies",
        "echo '[authz]' > settings.toml",
        "echo '{}' > prices.json",
    ],
)
def test_no_agent_rewrites_what_decides_about_it(project: Path, script: str) -> None:
    """The policy lets every change through, and nobody is asked: one write would be the agent's own policy."""
    skip_unless("process")
    (project / "policies").mkdir()
    policy = '@id("all") permit (principal, action, resource);\n'
    (project / "policies/own.cedar").write_text(policy)
    (project / "prices.json").write_text("{}")
    settings = project / "settings.toml"
    settings.write_text('[authz]\npolicies = ["policies/*.cedar"]\n[metering]\nmodel_prices = "prices.json"\n')
    before = {path: path.read_text() for path in project.rglob("*") if path.is_file()}
    done = creto(
        "--config", str(settings), "run", "--backend", "process", "--apply", "all", "--json", "--",
        "bash", "-c", f"echo work > notes.txt; {script}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path: path.read_text() for path in before} == before
    assert not (project / "policies").is_symlink()
    assert sorted(path.name for path in (project / "policies").iterdir()) == ["own.cedar"]
    assert (project / "notes.txt").read_text() == "work\n", "what decides about nobody is carried out"
    denied = json.loads(done.stderr.splitlines()[-1])["denied"]
    assert denied
    assert {each["action"] for each in denied} == {"fs:write"}
    assert all("part of creto's configuration" in each["reason"] for each in denied), denied
    refused = json.loads(creto("audit", "query", "--action", "fs:write", "--outcome", "refused", "--json").stdout)
    assert {row["resource"] for row in refused} == {each["resource"] for each in denied}


def test_no_agent_reaches_what_decides_about_it_by_links_and_patterns(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless("process")
    everything = "permit (principal, action, resource);\n"
    (project / "conf").mkdir()
    for number, place in enumerate(("policies/own", "v1/own", "teams/a/own", "kept")):
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / f"{place}.cedar").write_text(f'@id("{number}") {everything}')
    (project / "current").symlink_to("v1")
    (project / "policies/linked.cedar").symlink_to("../kept.cedar")
    patterns = ["../policies/*.cedar", "../current/*.cedar", "../teams/*/own.cedar"]
    (project / "conf/settings.toml").write_text(f"[authz]\npolicies = {json.dumps(patterns)}\n")
    # The configuration is named by a link elsewhere, as one in a home folder may be that leads to a repository.
    (tmp_path / "settings.toml").symlink_to(project / "conf/settings.toml")
    (tmp_path / "way").symlink_to(project)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project / ".config"))
    attacks = {
        "policies/more.cedar": "echo evil > policies/more.cedar",
        "kept.cedar": "echo evil > kept.cedar",
        "v1/more.cedar": "echo evil > v1/more.cedar",
        "current": "mkdir v2; echo evil > v2/own.cedar; ln -sfn v2 current",
        "teams/b": "mkdir away; echo evil > away/own.cedar; ln -s ../away teams/b",
        "conf/settings.toml": "echo >> conf/settings.toml",
        ".config/creto": "mkdir -p .config/creto",
        ".config/creto/a.toml": "echo > .config/creto/a.toml",
    }
    config = tmp_path / "way/conf/settings.toml"
    for given in (config, tmp_path / "settings.toml"):
        if given != config:  # what is relative is so to the link
            (project / "conf/settings.toml").write_text(
                f"[authz]\npolicies = {json.dumps([str(project / 'conf' / one) for one in patterns])}\n"
            )
        done = creto(
            "--config", str(given), "run", "--backend", "process", "--apply", "all", "--json", "--",
            "bash", "-c", "; ".join(attacks.values()),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        changes = json.loads(done.stderr.splitlines()[-1])["changes"]
        assert {change["path"] for change in changes if not change["applied"]} == {*attacks}


def test_no_agent_rewrites_the_program_that_decides_about_it(project: Path) -> None:
    """creto is installed in the project's own environment, where one file would run outside at its next start."""
    skip_unless("process")
    site = project / ".venv/lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (project / ".venv/bin").mkdir()
    python = project / ".venv/bin/python"
    python.symlink_to(Path(sys.executable).resolve())
    (project / ".venv/pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (site / "creto.pth").write_text("\n".join(path for path in sys.path if path))
    script = (
        "echo work > notes.txt; cd .venv; (cd lib/*/site-packages && echo 'import os' > own.pth); echo > pyvenv.cfg;"
        "ln -sf /bin/true bin/python; echo > bin/creto"
    )
    done = subprocess.run(
        [python, "-m", "creto", "run", "--backend", "process", "--apply", "all", "--json", "--", "bash", "-c", script],
        capture_output=True, text=True, timeout=60, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stderr.splitlines()[-1])
    assert [change["path"] for change in summary["changes"] if change["applied"]] == ["notes.txt"]
    assert len(summary["changes"]) == 5
    assert all("Python environment that creto itself runs from" in each["reason"] for each in summary["denied"])


def test_a_token_that_git_was_given_for_a_checkout_is_not_in_view(project: Path) -> None:
    skip_unless("process")
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(
        ["git", "config", "http.https://example.org/.extraheader", "AUTHORIZATION: basic c2VjcmV0"], check=True
    )
    (project / ".git/credentials").write_text("https://user:secret@example.org\n")
    done = creto(
        "run", "--backend", "process", "--json", "--", "bash", "-c", "cat .git/config .git/credentials; git status -s"
    )
    assert "c2VjcmV0" not in done.stdout
    assert "secret" not in done.stdout
    assert json.loads(done.stderr.splitlines()[-1])["hidden"] == [".git/config", ".git/credentials"]


@pytest.mark.parametrize("mark", ["target/CACHEDIR.TAG", "venv/pyvenv.cfg", "venv/conda-meta/history"])
def test_no_agent_marks_a_folder_as_installed_to_have_what_is_hidden_in_it_in_view(project: Path, mark: str) -> None:
    """Two runs: the first one's only change says that the folder was built, and the second one looks into it."""
    skip_unless("process")
    folder = project / mark.split("/")[0]
    folder.mkdir()
    (folder / ".env").write_text("KEY=s3cret\n")
    script = f"mkdir -p {Path(mark).parent} target2 && echo x > {mark}; echo x > target2/CACHEDIR.TAG"
    done = creto("run", "--backend", "process", "--apply", "all", "--json", "--", "bash", "-c", script)
    summary = json.loads(done.stderr.splitlines()[-1])
    assert [each["path"] for each in summary["changes"] if each["applied"]] == ["target2", "target2/CACHEDIR.TAG"]
    assert "would have files in view that policy hides" in summary["denied"][0]["reason"]
    again = creto("run", "--backend", "process", "--json", "--", "bash", "-c", f"cat {folder.name}/.env")
    assert "s3cret" not in again.stdout
    # What a build makes is marked as ever.
    script = "mkdir -p new/target && echo x > new/target/CACHEDIR.TAG"
    done = creto("run", "--backend", "process", "--apply", "all", "--json", "--", "bash", "-c", script)
    assert all(each["applied"] for each in json.loads(done.stderr.splitlines()[-1])["changes"])


def test_somebody_at_another_terminal_may_agree(project: Path) -> None:
    skip_unless("process")
    run = subprocess.Popen(
        [*CRETO, "run", "--backend", "process", "--wait", "120", "--", "bash", "-c", "echo new > new.txt"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        waiting = json.loads(creto("approve", "--json").stdout or "[]")
        if waiting:
            answered = creto("approve", waiting[0]["id"], "--yes", "--reason", "seen")
            assert answered.returncode == 0, answered.stderr
            break
        time.sleep(0.2)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert "1 carried out" in errors
    assert (project / "new.txt").read_text() == "new\n"


_TAKES_A_LINE = "read line; echo got $line; echo $line > new.txt"


def test_the_person_at_the_terminal_is_asked_and_enter_is_no_yes(project: Path) -> None:
    skip_unless("process")
    pid, master = pty.fork()
    if pid == 0:
        os.execv(
            CRETO[0],
            [
                *CRETO,
                "run",
                "--backend",
                "process",
                "--",
                "bash",
                "-c",
                _TAKES_A_LINE,
            ],
        )
    screen = _Screen(master)
    screen.wait_for("in a sandbox on")
    screen.type("typed\n")
    screen.wait_for("got typed")
    screen.wait_for("type yes, no or skip")
    screen.type("\n")
    screen.wait_for("ENTER alone never is one")
    screen.type("yes looks right\n")
    screen.wait_for("1 carried out")
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (project / "new.txt").read_text() == "typed\n"


def test_ctrl_c_where_all_changes_are_asked_about_together_ends_the_run(project: Path) -> None:
    skip_unless("process")
    pid, master = pty.fork()
    if pid == 0:
        os.execv(CRETO[0], [*CRETO, "run", "--backend", "process", "--", "touch", "a.txt", "b.txt"])
    try:
        screen = _Screen(master)
        screen.wait_for("type all to agree to all")
        screen.type("\x03")
        screen.wait_for("creto: interrupted")
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, "it waits for a line that nobody will type"
            time.sleep(0.05)
    finally:
        os.close(master)
    assert os.waitstatus_to_exitcode(ended[1]) == 130
    assert list(project.iterdir()) == []


class _Screen:
    """What a terminal shows so far."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._text = ""

    def type(self, text: str) -> None:
        time.sleep(0.2)
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self._text:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0, left))
            assert ready, f"`{text}` did not come; the screen shows:\n{self._text}"
            try:
                self._text += os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"the program ended before `{text}` came; the screen shows:\n{self._text}")
        self._text = self._text.split(text, 1)[1]


_WAITS_FOR_TERM = "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.05; done"


def test_signals_are_the_program_s(project: Path) -> None:
    skip_unless("process")
    run = _begun("--", "bash", "-c", _WAITS_FOR_TERM)
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGTERM)
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, output) == (9, "told\n"), errors


_SLOW_TO_NOTICE = """
import os, sys, time
from creto.cli import main
from creto.runtime import Program, _box

class Slow(Program):
    @property
    def _number(self): return self._is

    @_number.setter
    def _number(self, number):
        self._is = number
        while number and not os.path.exists(os.environ["NOTICE"]): time.sleep(0.01)

_box.Program = Slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_that_follows_a_program_s_first_word_is_its_own_however_slow_we_are(
    project: Path, tmp_path: Path
) -> None:
    skip_unless("process")
    notice = tmp_path / "notice"
    run = _begun("--", "bash", "-c", _WAITS_FOR_TERM, creto=[sys.executable, "-c", _SLOW_TO_NOTICE], NOTICE=str(notice))
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGTERM)
    notice.touch()
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, output) == (9, "told\n"), errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_while_a_human_is_asked_for_the_program_ends_the_run(
    project: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    skip_unless("process")
    policies, config = tmp_path / "policies.cedar", tmp_path / "creto.toml"
    policies.write_text(
        '@id("all") permit (principal, action, resource);'
        '@id("ask") @oversight("operators") forbid (principal, action == Action::"process:exec", resource);'
    )
    config.write_text(f"[authz]\npolicies = ['{policies}']\n")
    run = _begun("--wait", "60", "--", "true", creto=[*CRETO, "--config", str(config)])
    while not json.loads(creto("approve", "--json").stdout or "[]"):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == status, errors
    assert "Traceback" not in errors


def test_what_is_ignored_stays_so_as_under_nohup(project: Path) -> None:
    skip_unless("process")
    script = "echo up; read line; exit 7"
    run = _begun("--", "bash", "-c", script, creto=["nohup", *CRETO], stdin=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdin is not None
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    run.stdin.write("on\n")
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 7, errors


def _begun(
    *arguments: str, creto: Sequence[str] = CRETO, stdin: int = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*creto, "run", "--backend", "process", *arguments],
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_creto_s_own_refusals_are_told_from_the_program_s_statuses(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless("process")
    missing = creto("run")
    assert missing.returncode == 2
    assert "creto run -- python agent.py" in missing.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    none = creto("run", "--", "true")
    assert none.returncode == 101
    assert "creto sandbox install" in none.stderr
    monkeypatch.setenv("CRETO_STATE", str(project / ".state"))
    holding = creto("run", "--backend", "process", "--", "true")
    assert holding.returncode == 102
    assert "which is creto's own; change to another folder" in holding.stderr
    unknown = creto("run", "--backend", "docker", "--", "true")
    assert unknown.returncode == 102
    assert "`docker` is no backend; known are gvisor, process" in unknown.stderr


def test_secrets_go_to_their_agent_and_are_never_shown(project: Path) -> None:
    backend = "process"
    skip_unless(backend)
    for agent, value in (("*", "for-all"), ("alice", "for-alice")):
        kept = creto("secret", "set", "API_TOKEN", "--agent", agent, given=f"{value}\n")
        assert kept.returncode == 0, kept.stderr
        assert value not in kept.stdout
    listed = creto("secret", "list", "--json")
    assert [(one["name"], one["agent"]) for one in json.loads(listed.stdout)] == [
        ("API_TOKEN", "*"), ("API_TOKEN", "spiffe://creto.local/agent/alice"),
    ]  # fmt: skip
    for agent, value in (("alice", "for-alice"), ("bob", "for-all")):
        done = creto("run", "--backend", backend, "--agent", agent, "--json", "--", "bash", "-c", "echo $API_TOKEN")
        assert done.stdout == f"{value}\n", done.stderr
        assert value not in done.stderr
    state = Path(os.environ["CRETO_STATE"])
    assert not any(b"for-alice" in path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert creto("secret", "remove", "API_TOKEN", "--agent", "alice").returncode == 0
    assert creto("secret", "remove", "API_TOKEN", "--agent", "alice").returncode == 1
    for name in ("PATH", "LD_PRELOAD", "1X"):
        assert creto("secret", "set", name, given="x").returncode == 2


def test_two_runs_side_by_side_share_one_state_folder(project: Path) -> None:
    backend = "process"
    skip_unless(backend)
    (project / "ready").mkdir()
    runs = [
        subprocess.Popen(
            [*CRETO, "run", "--backend", backend, "--agent", name, "--", "bash", "-c", "echo up; read l; echo $l"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
    listed = json.loads(creto("sandbox", "list", "--json").stdout)
    assert sorted(one["agent"].rsplit("/", 1)[1] for one in listed) == ["one", "two"]
    for run, word in zip(runs, ("a", "b"), strict=True):
        output, errors = run.communicate(f"{word}\n", timeout=60)
        assert (run.returncode, output) == (0, f"{word}\n"), errors
    assert json.loads(creto("sandbox", "list", "--json").stdout) == []


def test_the_doctor_tries_to_get_out(project: Path, backend: str) -> None:
    done = creto("sandbox", "doctor", "--backend", backend, "--json")
    assert done.returncode == 0, done.stdout
    checks = {row["check"]: row["what_was_seen"] for row in json.loads(done.stdout)}
    assert checks["the machine's users stay hidden"] == "shut"
    assert len(checks) == 6


def test_a_thousand_files_of_one_new_folder_are_one_line_but_for_what_tools_outside_run(project: Path) -> None:
    skip_unless("process")
    script = (
        "mkdir -p deps/a deps/.vscode; for n in $(seq 30); do echo x > deps/a/$n; done; echo x > mine;"
        "echo '{}' > deps/.vscode/tasks.json; for n in 1 2 3; do curl -sm 9 http://packages.example/; done; true"
    )
    agreed = ("--allow", "packages.example", "--host", "packages.example=127.0.0.1:1")  # where nothing listens
    done = creto("run", "--backend", "process", *agreed, "--", "bash", "-c", script)
    told = [line.removeprefix("creto:   ") for line in done.stderr.splitlines()]
    changed = [line for line in told if line.startswith("+ ")]
    assert changed == [
        "+ deps  (31 files in it, 63 bytes)",
        "+ deps/.vscode/tasks.json  (3 bytes)  (tools outside the sandbox run it by themselves)",
        "+ mine  (2 bytes)",
    ]
    (connections,) = (line for line in told if line.startswith("failed packages.example:80: "))
    assert connections.endswith("(3 times)"), connections
