"""What a sandbox promises: the program runs in it as it would here, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto.errors import (
    AlreadyExistsError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    SandboxSpawnFailedError,
    TimeoutError,
    UnauthorizedError,
)
from creto.runtime import Pool, clean, find_runsc, running, statement
from sandboxes import AGENT, BACKENDS, Answers, Bench, http_server, sh, skip_unless

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pool, Path, str]]:
    skip_unless(request.param)
    state = tmp_path_factory.mktemp("state")
    with http_server() as (port, _):
        settings = {"warm_pool_min_size": 1, "warm_pool_max_size": 4}
        pool = Pool(settings, state, backend=request.param, hosts={"packages.example": f"127.0.0.1:{port}"})
        yield pool, state, request.param
        anyio.run(pool.close)


@pytest.fixture
def bench(pool: tuple[Pool, Path, str], tmp_path: Path) -> Bench:
    project = tmp_path / "project"
    project.mkdir()
    return Bench(pool[0], pool[1], project, pool[2])


# --- a program runs as it would here ----------------------------------------------------------------------------------


async def test_a_program_has_its_streams_its_status_and_its_folder_at_the_same_path(bench: Bench) -> None:
    (bench.project / "known.txt").write_text("known\n")
    async with bench.box() as box:
        result = await box.run(["bash", "-c", "cat; cat known.txt; pwd; echo oops >&2; exit 7"], stdin=b"given\n")
    assert result.stdout.decode() == f"given\nknown\n{bench.project}\n"
    assert (result.stderr, result.status, result.exit_code) == (b"oops\n", 7, 7)


async def test_python_starts_in_the_warm_interpreter_and_cannot_tell(bench: Bench) -> None:
    (bench.project / "helper.py").write_text("value = 41\n")
    (bench.project / "program.py").write_text(
        textwrap.dedent("""
        import atexit, sys, helper
        atexit.register(lambda: print("at exit"))
        print(__name__, sys.argv, helper.value + 1, sys.stdin.read())
        raise SystemExit(5)
        """)
    )
    (bench.project / "broken.py").write_text("def deep():\n    raise ValueError('broken')\ndeep()\n")
    python = str(Path(sys.base_prefix) / "bin" / "python3")
    async with bench.box() as box:
        result = await box.run([python, "program.py", "a b"], stdin=b"in")
        assert result.stdout.decode() == "__main__ ['program.py', 'a b'] 42 in\nat exit\n", result.stderr
        assert result.status == 5
        broken = await box.run([python, "broken.py"])
        assert broken.status == 1
        assert broken.stderr.decode() == textwrap.dedent("""\
            Traceback (most recent call last):
              File "broken.py", line 3, in <module>
                deep()
              File "broken.py", line 2, in deep
                raise ValueError('broken')
            ValueError: broken
            """)
        module = await box.run([python, "-m", "json.tool"], stdin=b'{"a":1}')
        assert json.loads(module.stdout) == {"a": 1}
        draws = [(await box.run([python, "-c", "import random; print(random.random())"])).stdout for _ in range(3)]
        assert len(set(draws)) == 3, "forks of one interpreter must not draw the same numbers"


async def test_a_virtual_environment_is_the_program_s_own(bench: Bench) -> None:
    """The environment that the tests run in: its packages are there, and the interpreter says that it is in it."""
    script = "import sys, click; print(sys.prefix, sys.executable, sys.prefix != sys.base_prefix, click.__file__)"
    async with bench.box() as box:
        inside = await box.run([sys.executable, "-c", script])
    outside = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert inside.stdout == outside.stdout, inside.stderr


async def test_signals_reach_the_program_and_its_children(bench: Bench) -> None:
    async with bench.box() as box:
        told = await box.start(["bash", "-c", "trap 'echo told; exit 9' TERM; echo up >ready; sleep 60 & wait"])
        await _until(lambda: box.run(["test", "-e", "ready"]))
        told.signal(signal.SIGTERM)
        assert (await told.wait()).status == 9
        killed = await box.start(["sleep", "60"])
        killed.signal(signal.SIGKILL)
        result = await killed.wait()
        assert (result.status, result.exit_code) == (-9, 137)


async def test_a_cancelled_run_is_killed(bench: Bench) -> None:
    async with bench.box() as box:
        with anyio.move_on_after(0.3):
            await box.run(["sleep", "60"])
        async with anyio.create_task_group():
            with anyio.fail_after(60):
                while "sleep 60" in await sh(box, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"):
                    await anyio.sleep(0.05)


async def test_a_program_may_have_a_terminal_of_its_own(bench: Bench) -> None:
    script = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size()); print('got', input())"
    async with bench.box() as box:
        result = await box.run(["python3", "-c", script], stdin=b"typed\n", terminal=(33, 101))
    text = result.stdout.decode().replace("\r\n", "\n")
    assert "True os.terminal_size(columns=101, lines=33)" in text
    assert "got typed" in text
    assert result.status == 0


async def test_a_terminal_s_last_output_arrives_however_slowly_it_is_carried(bench: Bench) -> None:
    """The process that carries it is stopped over the program's end, as a busy machine may stop it."""
    if bench.backend != "process":
        pytest.skip("processes inside gVisor are not to be seen from here")
    read, write = os.pipe()
    async with bench.box() as box:
        argv = ["bash", "-c", "echo up; sleep 1; echo last"]
        with os.fdopen(read, "rb", buffering=0) as ours, os.fdopen(write, "wb") as theirs:
            program = await box.start(argv, stdout=theirs, terminal=(24, 80))
            theirs.close()
            shown = await anyio.to_thread.run_sync(ours.read, 64)
            process = next(
                each
                for each in Path("/proc").glob("[0-9]*")
                if (each / "cmdline").read_bytes().split(b"\0")[:-1] == [part.encode() for part in argv]
            )
            agent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
            (carrier,) = (int(each) for each in children if each != process.name)
            os.kill(carrier, signal.SIGSTOP)
            while process.exists():
                await anyio.sleep(0.01)
            await anyio.sleep(1)
            os.kill(carrier, signal.SIGCONT)
            with anyio.fail_after(60):
                assert (await program.wait()).status == 0
            shown += await anyio.to_thread.run_sync(ours.read, 64)
    assert shown == b"up\r\nlast\r\n"


async def test_who_holds_a_terminal_open_does_not_hold_its_program_s_end_up(bench: Bench) -> None:
    async with bench.box() as box:
        with anyio.fail_after(60):
            for left in ("sleep 1000", "while :; do echo on; done"):
                result = await box.run(["bash", "-c", f"trap '' HUP; ({left}) & echo last"], terminal=(24, 80))
                assert (result.status, b"last" in result.stdout) == (0, True)


async def test_the_environment_is_the_sandboxs_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-outside")
    async with bench.box(env={"GIVEN": "yes"}, secrets={"TOKEN": "s3cret"}) as box:
        env = dict(line.split("=", 1) for line in (await sh(box, "env")).splitlines() if "=" in line)
    assert (env["GIVEN"], env["TOKEN"], env["CRETO_SANDBOX"]) == ("yes", "s3cret", "1")
    assert "AWS_SECRET_ACCESS_KEY" not in env


async def test_what_is_not_there_is_explained(bench: Bench) -> None:
    async with bench.box() as box:
        result = await box.run(["no-such-program"])
        assert result.status == 127
        assert result.stderr.decode() == "creto: `no-such-program` is not in the sandbox's view, or is no program\n"
        with pytest.raises(InvalidInputError, match="no program to run"):
            await box.run([])


async def test_a_hook_that_says_no_starts_nothing(bench: Bench) -> None:
    class Never(Answers):
        async def command(self, argv: Any) -> bool:
            return False

    async with bench.box(Never()) as box:
        with pytest.raises(UnauthorizedError, match="running `touch x` is not allowed"):
            await box.run(["touch", "x"])
        assert await box.changes() == []


async def test_trio_works_as_asyncio_does(bench: Bench, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import trio, sys
        sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
        from sandboxes import AGENT, Answers
        from creto.runtime import Pool

        async def main():
            state = {str(tmp_path / "state")!r}
            async with Pool({{"warm_pool_min_size": 0}}, state, backend={bench.backend!r}) as pool:
                async with pool.claim(AGENT, {str(bench.project)!r}, Answers()) as box:
                    print((await box.run(["echo", "hello"])).stdout)

        trio.run(main)
        """)
    done = await anyio.run_process([sys.executable, "-c", script], check=False)
    assert done.stdout == b"b'hello\\n'\n", done.stderr


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_nothing_reaches_the_folder_until_it_is_carried_out(bench: Bench) -> None:
    for name, text in {"kept": "kept\n", "edited": "one\n", "removed": "gone\n"}.items():
        (bench.project / name).write_text(text)
    (bench.project / "old").mkdir()
    (bench.project / "old/inner").write_text("inner\n")
    async with bench.box() as box:
        await sh(
            box,
            "echo two >> edited; rm removed; rm -r old; mkdir -p new/deep; echo x > new/deep/file; touch kept;"
            "ln -s edited link",
        )
        assert (bench.project / "edited").read_text() == "one\n"
        changes = await box.changes()
        found = {change.path: change.kind for change in changes}
        assert found == {
            "edited": "modified", "link": "added", "new": "added", "new/deep": "added", "new/deep/file": "added",
            "old": "deleted", "old/inner": "deleted", "removed": "deleted",
        }  # fmt: skip
        diff = next(change.diff for change in changes if change.path == "edited")
        assert diff == "--- a/edited\n+++ b/edited\n@@ -1 +1,2 @@\n one\n+two\n"
        chosen = [change for change in changes if change.path != "removed"]
        await box.apply(chosen)
    assert (bench.project / "edited").read_text() == "one\ntwo\n"
    assert (bench.project / "new/deep/file").read_text() == "x\n"
    assert (bench.project / "link").readlink() == Path("edited")
    assert not (bench.project / "old").exists()
    assert (bench.project / "removed").read_text() == "gone\n", "what was not agreed to stays"
    owner = bench.project.stat()
    made = (bench.project / "new/deep/file").stat()
    assert (made.st_uid, made.st_gid) == (owner.st_uid, owner.st_gid)


async def test_what_was_agreed_to_is_what_is_written_or_nothing(bench: Bench) -> None:
    async with bench.box() as box:
        await sh(box, "echo harmless > script.sh")
        listed = await box.changes()
        await sh(box, "echo harmful > script.sh")
        with pytest.raises(IntegrityError, match=r"`script\.sh` is no longer what was agreed to"):
            await box.apply(listed)
    assert not (bench.project / "script.sh").exists()


async def test_a_file_that_somebody_else_changed_meanwhile_is_not_overwritten(bench: Bench) -> None:
    (bench.project / "shared").write_text("first\n")
    async with bench.box() as box:
        await sh(box, "echo theirs > shared; echo new > other")
        listed = await box.changes()
        (bench.project / "shared").write_text("mine\n")
        with pytest.raises((AlreadyExistsError, IntegrityError), match="`shared`"):
            await box.apply(listed)
    assert (bench.project / "shared").read_text() == "mine\n"
    assert not (bench.project / "other").exists(), "one conflict stops all of them"


async def test_hidden_files_are_not_in_view_and_not_deleted(bench: Bench) -> None:
    (bench.project / "src").mkdir()
    (bench.project / "src/.env").write_text("KEY=1\n")
    (bench.project / "src/code.py").write_text("pass\n")
    async with bench.box(hidden=["src/.env"]) as box:
        assert await sh(box, "ls -A src; cat src/.env") == "code.py\ncat: src/.env: No such file or directory"
        assert await box.changes() == []
    assert (bench.project / "src/.env").read_text() == "KEY=1\n"


@pytest.mark.parametrize("instead", ["", "; echo x > src"])
async def test_a_folder_that_holds_what_is_hidden_stays(bench: Bench, instead: str) -> None:
    """Its removal would fail on disk when half of all that was agreed to is carried out."""
    (bench.project / "src").mkdir()
    (bench.project / "src/.env").write_text("KEY=1\n")
    (bench.project / "src/code.py").write_text("pass\n")
    async with bench.box(hidden=["src/.env"]) as box:
        await sh(box, f"rm -r src; echo new > new{instead}")
        found, carried = await box.settle()
        refused = ["in the place of a folder that holds files which are not in view"] if instead else []
        assert [change.refused for change in found if change.path == "src"] == refused
        assert [(change.path, change.kind) for change in carried] == [("new", "added"), ("src/code.py", "deleted")]
    assert sorted(path.name for path in bench.project.rglob("*")) == [".env", "new", "src"]


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_connection_is_asked_about_by_name_and_counted(bench: Bench) -> None:
    hooks = Answers(allow=["packages.example"])
    async with bench.box(hooks) as box:
        text = await sh(box, "curl -sS http://packages.example/a http://packages.example/b")
        assert text == "served\nserved"
        refused = await box.run(["curl", "-sS", "-m", "10", "http://other.example/"])
        assert refused.status != 0
        await _until_closed(box)
        allowed, denied = box.connections
    assert hooks.asked == [("packages.example", 80, "http"), ("other.example", 80, "http")]
    assert (allowed.allowed, allowed.requests) == (True, ["GET /a", "GET /b"])
    assert allowed.sent > 100
    assert allowed.received > 100
    assert denied.allowed is False


async def test_each_plain_request_may_be_decided_about(bench: Bench) -> None:
    class Reader(Answers):
        async def request(self, connection: object, method: str, target: str) -> bool:
            if target == "/secret":
                raise UnauthorizedError(f"policy `reader` forbids {method} {target}")
            return True

    async with bench.box(Reader(allow=["packages.example"])) as box:
        assert await sh(box, "curl -sS -m 10 http://packages.example/a") == "served"
        assert "served" not in await sh(box, "curl -sS -m 10 http://packages.example/secret")
        await _until_closed(box)
        first, second = box.connections
    assert (first.requests, second.requests) == (["GET /a"], None)
    assert second.reason == "policy `reader` forbids GET /secret"


async def test_a_hook_that_fails_is_a_no_with_its_reason(bench: Bench) -> None:
    class Broken(Answers):
        async def egress(self, host: str, port: int, scheme: str | None) -> bool:
            raise UnauthorizedError("policy `no-net` forbids it")

    async with bench.box(Broken()) as box:
        assert (await box.run(["curl", "-sS", "-m", "10", "http://packages.example/"])).status != 0
        assert [(c.allowed, c.reason) for c in box.connections] == [(False, "policy `no-net` forbids it")]


async def test_the_next_attempt_attaches_to_a_question_that_is_still_open(bench: Bench) -> None:
    """The program gives up after a second; the human answers later; the second attempt needs no second question."""
    asked = []
    answered = anyio.Event()

    class Slow(Answers):
        async def egress(self, host: str, port: int, scheme: str | None) -> bool:
            asked.append(host)
            await answered.wait()
            return True

    async with bench.box(Slow()) as box:
        first = await box.run(["curl", "-sS", "-m", "1", "http://packages.example/"])
        assert first.status == 28
        async with anyio.create_task_group() as group:

            async def answer() -> None:
                await anyio.sleep(1)
                answered.set()

            group.start_soon(answer)
            second = await box.run(["curl", "-sS", "-m", "60", "http://packages.example/"])
        assert second.stdout == b"served\n", second.stderr
    assert len(asked) in (1, 2)


async def test_servers_inside_work_among_themselves(bench: Bench) -> None:
    async with bench.box() as box:
        text = await sh(
            box,
            "python3 -m http.server 8765 --bind 127.0.0.1 >/dev/null & for i in $(seq 100); do "
            "curl -sf http://localhost:8765/ >/dev/null && echo reached && break; sleep 0.1; done; kill %1",
        )
        assert "reached" in text.splitlines()
        assert box.connections == []


# --- the pool ---------------------------------------------------------------------------------------------------------


async def test_a_sandbox_serves_one_claim_and_is_gone(bench: Bench) -> None:
    async with bench.box() as one:
        await sh(one, "echo left > /tmp/left; (sleep 300 &)")
        assert [entry["agent"] for entry in running(bench.state)] == [AGENT]
        name = one.id
    async with bench.box() as two:
        assert two.id != name
        assert "left" not in (await sh(two, "ls /tmp")).splitlines()
    assert running(bench.state) == []
    assert _processes_of(name) == []


def test_an_entry_that_goes_as_the_list_is_made_is_left_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "sandbox.claimed").mkdir()
    (tmp_path / "sandbox.claimed" / "creto-1-1-1.json").symlink_to("gone")
    assert running(tmp_path) == []
    assert clean(tmp_path) == []


async def test_a_pool_has_no_more_than_it_may(bench: Bench, tmp_path: Path) -> None:
    small = Pool({"warm_pool_min_size": 1, "warm_pool_max_size": 1}, tmp_path / "state", backend=bench.backend)
    async with small, small.claim(AGENT, bench.project, Answers()):
        with pytest.raises(
            TimeoutError, match=r"all 1 sandboxes of the pool are in use \(`runtime.warm_pool_max_size`\)"
        ):
            async with small.claim(AGENT, bench.project, Answers(), seconds=0.3):
                pass
        assert small.fill == {"idle": 0, "starting": 0, "claimed": 1}


async def test_a_killed_process_leaves_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = textwrap.dedent(f"""
        import anyio, sys
        sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
        from sandboxes import AGENT, Answers
        from creto.runtime import Pool

        async def main():
            async with Pool({{"warm_pool_min_size": 1}}, {str(state)!r}, backend={bench.backend!r}) as pool:
                async with pool.claim(AGENT, {str(bench.project)!r}, Answers()) as box:
                    print(box.id, flush=True)
                    await box.run(["sleep", "600"])

        anyio.run(main)
        """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    owner = name.rsplit("-", 1)[0]
    assert name, "the sandbox did not start"
    assert _processes_of(owner) != []
    child.kill()
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 60
    while _processes_of(owner) and time.monotonic() < deadline:
        await anyio.sleep(0.05)
    assert _processes_of(owner) == []
    assert str(state) not in Path("/proc/self/mountinfo").read_text()
    assert list((state / "sandbox").iterdir()) == []
    assert (state / "sandbox.claimed" / f"{name}.json").exists()
    assert running(state) == []
    assert clean(state) == []
    assert list((state / "sandbox.claimed").iterdir()) == []


async def test_several_processes_share_a_state_folder(bench: Bench, tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = textwrap.dedent(f"""
        import anyio, sys
        sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
        from sandboxes import AGENT, Answers
        from creto.runtime import Pool

        async def main():
            async with Pool({{"warm_pool_min_size": 0}}, {str(state)!r}, backend={bench.backend!r}) as pool:
                async with pool.claim(AGENT, {str(bench.project)!r}, Answers()) as box:
                    print((await box.run(["cat", "known"])).stdout.decode(), end="", flush=True)
                    sys.stdin.readline()

        anyio.run(main)
        """)
    (bench.project / "known").write_text("known\n")
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "known\n"
    assert len(running(state)) == 3
    for child in children:
        child.communicate("\n")
        assert child.returncode == 0
    assert running(state) == []


# --- what a working folder may be -------------------------------------------------------------------------------------


async def test_creto_s_own_state_keys_and_configuration_are_never_in_view(bench: Bench, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "creto.toml").write_text("")
    pool = Pool({"warm_pool_min_size": 0}, tmp_path / "state", backend=bench.backend, protected=[config])
    async with pool:
        (tmp_path / "link").symlink_to(tmp_path)
        for folder in (tmp_path, tmp_path / "link", tmp_path / "state", config, Path("/etc"), Path("/")):
            with pytest.raises(InvalidInputError, match="cannot be a working folder"):
                async with pool.claim(AGENT, folder, Answers()):
                    pass
        for tree in (tmp_path, tmp_path / "link", tmp_path / "state/keys", config, Path("/")):
            with pytest.raises(InvalidInputError, match="cannot be in view of sandboxes"):
                await Pool({}, tmp_path / "state", backend=bench.backend, protected=[config], trees=[tree]).start()
        (bench.project / "notes.txt").hardlink_to(config / "creto.toml")
        with pytest.raises(InvalidInputError, match="has a second name"):
            async with pool.claim(AGENT, bench.project, Answers()):
                pass


# --- attestation ------------------------------------------------------------------------------------------------------


async def test_an_attestation_says_what_a_sandbox_is_made_of_and_claims_no_hardware(bench: Bench) -> None:
    (bench.state / "sandbox.image.json").unlink(missing_ok=True)
    found: list[dict[str, Any]] = []

    async def measure() -> None:
        found.append(await bench.pool.facts())

    async with bench.box(secrets={"TOKEN": "s3cret-in-claim"}) as box, anyio.create_task_group() as tasks:
        for _ in range(2):  # two at once, as two sandboxes that are the first of the day
            tasks.start_soon(measure)
    assert found[0]["imageDigest"] == found[1]["imageDigest"]
    made = statement(found[0], agent=AGENT, agent_key="cd" * 32, sandbox=box.id, policy_digest="ab" * 32)
    predicate = made["predicate"]
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert predicate["level"] == "software"
    assert (predicate["backend"], predicate["sandbox"]) == (bench.backend, box.id)
    assert predicate["policy"]["digest"]["sha256"] == "ab" * 32
    assert "s3cret-in-claim" not in json.dumps(made)
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in made["subject"]}
    assert len(subjects["image"]) == 64
    if bench.backend == "gvisor":
        import hashlib

        assert subjects["gvisor"] == hashlib.sha256(find_runsc().read_bytes()).hexdigest()


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_missing_gvisor_is_said_and_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFoundError, match="`creto sandbox install`.*`--backend process`"):
        await Pool({}, tmp_path / "state").start()


async def test_a_runsc_that_does_not_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "runsc"
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo runsc fake && exit 0\necho 'no such platform' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("CRETO_RUNSC", str(fake))
    skip_unless("gvisor")
    async with Pool({"warm_pool_min_size": 0}, tmp_path / "state") as pool:
        with pytest.raises(SandboxSpawnFailedError, match="starting a sandbox with `gvisor`: no such platform"):
            async with pool.claim(AGENT, tmp_path, Answers()):
                pass


async def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        script = textwrap.dedent(f"""
            import anyio, anyio._backends._asyncio, os
            from creto import _core
            from creto.runtime import Pool, _pool, _runsc
            os.setgid(65534), os.setuid(65534)
            anyio.run(Pool({{}}, {str(tmp_path)!r}, backend="gvisor").start)
            """)
        done = await anyio.run_process([sys.executable, "-c", script], check=False)
        text = done.stderr.decode().splitlines()[-1]
    else:
        with pytest.raises(SandboxSpawnFailedError) as refused:
            await Pool({}, tmp_path, backend="gvisor").start()
        text = str(refused.value)
    assert 'which only root may here; run this as root (`sudo "$(command -v creto)" ...`)' in text


async def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`docker` is no backend; known are gvisor, process"):
        await Pool({}, tmp_path, backend="docker").start()
    skip_unless("process")
    with pytest.raises(InvalidInputError, match=r"`runtime.memory_limit_bytes`: 1 is too little"):
        await Pool({"memory_limit_bytes": 1}, tmp_path, backend="process").start()
    with pytest.raises(InvalidInputError, match="`nonsense` in `hosts` is no address and port"):
        await Pool({}, tmp_path, backend="process", hosts={"a.example": "nonsense"}).start()


def _processes_of(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in line:
                status = dict(part.split(":", 1) for part in _of(entry, "status").splitlines())
                told = {key: status.get(key, "").strip() for key in ("State", "PPid", "NSpid", "SigPnd", "ShdPnd")}
                found.append(f"{line} {told} {_of(entry, 'wchan')} {_of(entry, 'stack')}")
    return found


def _of(process: Path, name: str) -> str:
    """What the kernel tells of a process; nothing, where it is gone."""
    try:
        return (process / name).read_text()
    except OSError:
        return ""


async def _until(tried: Any) -> None:
    with anyio.fail_after(60):
        while (await tried()).status != 0:
            await anyio.sleep(0.02)


async def _until_closed(box: Any) -> None:
    with anyio.fail_after(60):
        while any(c.allowed and not c.received and not c.reason for c in box.connections):
            await anyio.sleep(0.02)
