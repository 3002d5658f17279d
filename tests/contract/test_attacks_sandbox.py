"""Attacks on what leaves a sandbox: the real folder changed under it, and words after the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import creto
from creto._confined import LayerHooks
from creto.errors import CretoError, UnauthorizedError
from creto.runtime import Connection, Pool, Secrets
from creto.runtime._outside import run_outside
from desks import wait_for_request
from sandboxes import BACKENDS, Bench, sh, skip_unless


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=BACKENDS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pool, Path, str]]:
    skip_unless(request.param)
    state = tmp_path_factory.mktemp("state")
    pool = Pool({"warm_pool_min_size": 1, "warm_pool_max_size": 3}, state, backend=request.param)
    yield pool, state, request.param
    anyio.run(pool.close)


@pytest.fixture
def bench(pool: tuple[Pool, Path, str], tmp_path: Path) -> Bench:
    project = tmp_path / "project"
    (project / "folder").mkdir(parents=True)
    (project / "folder" / "file").write_text("ours\n")
    return Bench(pool[0], pool[1], project, pool[2])


def _parent(folder: Path, outside: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(outside)


def _link(folder: Path, outside: Path) -> None:
    (folder / "file").unlink()
    (folder / "file").symlink_to(outside / "file")


def _hard_link(folder: Path, outside: Path) -> None:
    (folder / "file").unlink()
    os.link(outside / "file", folder / "file")


def _pipe(folder: Path, outside: Path) -> None:
    (folder / "file").unlink()
    os.mkfifo(folder / "file")


@pytest.mark.anyio
@pytest.mark.parametrize("exchange", [_parent, _link, _hard_link, _pipe])
async def test_a_folder_exchanged_after_the_listing_is_not_written_through(
    bench: Bench, tmp_path: Path, exchange: object
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("ours\n")  # the same content: what is there looks unchanged
    async with bench.box() as box:
        await sh(box, "echo theirs > folder/file; echo theirs > folder/new")
        changes = await box.changes()
        assert [change.path for change in changes] == ["folder/file", "folder/new"]
        exchange(bench.project / "folder", outside)  # type: ignore[operator]
        with anyio.fail_after(60):
            try:
                await box.apply(changes)
            except CretoError:
                assert exchange is not _hard_link
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "ours\n"}


@pytest.mark.anyio
async def test_what_is_hidden_from_a_program_is_in_no_diff_of_what_it_wrote_there(bench: Bench) -> None:
    """A diff goes to approvers' browsers and terminals, and is kept with the request."""
    (bench.project / "folder/token").write_text("s3cret\n")
    async with bench.box(hidden=["folder/token"]) as box:
        await sh(box, "echo mine > folder/token; echo more >> folder/file")
        (file, token) = await box.changes()
        assert (token.path, token.kind) == ("folder/token", "modified")
        assert "+mine" in str(token.diff)
        assert "s3cret" not in str(token)
        assert "s3cret" not in str(token.diff)
        assert " ours\n+more" in str(file.diff)


@pytest.mark.anyio
async def test_names_of_any_kind_are_told_apart_and_carried_out_as_they_are(bench: Bench) -> None:
    names = ["a\nb", "a\u202eb", "e\u0301", "\u00e9", "-rf", "~", "$(x)", "a'b\"c", "x" * 255, " ", "..."]
    script = "import sys; [open(name, 'w').write(name) for name in sys.argv[1:]]"
    async with bench.box() as box:
        done = await box.run(["python3", "-c", script, *names])
        assert done.status == 0, done.stderr
        changes = await box.changes()
        assert sorted(change.path for change in changes) == sorted(names)
        assert all(line.isprintable() for change in changes for line in str(change.diff).splitlines()[:2])
        await box.apply(changes)
    written = {path.name: path.read_text() for path in bench.project.iterdir() if path.is_file()}
    assert written == {name: name for name in names}


def test_what_a_program_leaves_behind_does_not_write_its_own_summary(tmp_path: Path) -> None:
    """It goes on after the program's end, where the reader is slow also after what creto says about it."""
    skip_unless("process")
    fake = '{"sandbox": "FAKE", "exit_code": 0, "denied": []}\\n'
    flood = f"import os\nos.write(2, b'{fake}'); open('begun', 'w').close()\nwhile True: os.write(2, b'{fake}')"
    script = 'for n in 1 2 3; do setsid python3 -c "$FLOOD" < /dev/null > /dev/null & done;'
    script += "until [ -e begun ]; do sleep 0.1; done; sleep 0.5; exit 3"
    folder = tmp_path / "project"
    folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-m", "creto", "run", "--backend", "process", "--env", f"FLOOD={flood}", "--apply", "none",
         "--json", "--workdir", str(folder), "--", "bash", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert run.stderr is not None
    said = bytearray()
    while read := os.read(run.stderr.fileno(), 16384):
        said += read
        time.sleep(0.002)
    run.stderr.close()
    assert run.wait(timeout=120) == 3
    lines = said.decode().splitlines()
    assert any("FAKE" in line for line in lines)
    assert '"exit_code": 3' in lines[-1]
    assert "FAKE" not in lines[-1]


@pytest.mark.anyio
async def test_no_link_is_carried_out_where_a_file_was_agreed_to(bench: Bench) -> None:
    """A link's digest is of its target, and it has no permission bits: a file of that text with none looks the same."""
    async with bench.box() as box:
        await sh(box, "printf folder/file > notes; chmod 0 notes; printf fine > other")
        agreed = [change for change in await box.changes() if change.refused is None]
        assert [change.path for change in agreed] == ["other"]
        with pytest.raises(CretoError, match="`notes` is a file that nobody may read"):
            await box.apply([change for change in await box.changes() if change.path == "notes"])
        await sh(box, "rm -f notes; ln -s folder/file notes")
        await box.apply(agreed)
    assert (bench.project / "other").read_text() == "fine"
    assert not (bench.project / "notes").is_symlink()


@pytest.mark.parametrize(
    "path",
    [
        *(".github/workflows/release.yml", ".github/actions/x/action.yml", ".gitlab-ci.yml", ".circleci/config.yml"),
        *("web/.eslintrc.cjs", "web/eslint.config.mjs", ".prettierrc.js", "stylelint.config.js", "a.sublime-project"),
        *(
            ".bashrc",
            "dotfiles/.zshenv",
            ".gitconfig",
            ".ssh/config",
            ".config/fish/config.fish",
            ".Rprofile",
            "flake.nix",
        ),
        *(".helix/languages.toml", ".vim/coc-settings.json", ".github/hooks/h.json", ".agents/skills/x/SKILL.md"),
        *(".woodpecker/a.yml", "bitbucket-pipelines.yml", "tailwind.config.js", ".flake8", "mix.exs"),
        *("crate/build.rs", ".pylintrc", "mypy.ini", "hie.yaml", ".env", ".yarnrc", ".npmrc", "Jenkinsfile"),
    ],
)
def test_what_editors_shells_and_forges_run_by_themselves_is_in_no_agreement_to_many_changes(path: str) -> None:
    assert run_outside(
        [path, "src/eslint.rs", "docs/github/workflows.md", "src/build.py", "env", ".github/CODEOWNERS"]
    ) == {path}


ASKING = """
@id("all") permit (principal, action, resource);
@id("desk") @oversight("desk") forbid (principal, action in [Action::"net:connect", Action::"http:get"], resource);
"""
PASSED_ON = """
permit (principal, action in [Action::"process:exec", Action::"net:connect"], resource);
permit (principal, action == Action::"fs:read", resource) when { context.path == "." || context.path like "*.md" };
permit (principal, action == Action::"http:get", resource == Url::"http://site.example/a");
"""


@pytest.mark.anyio
@pytest.mark.parametrize("backend", BACKENDS)
async def test_who_acts_for_another_has_no_more_in_a_sandbox_than_was_passed_on(
    state: Path, tmp_path: Path, backend: str
) -> None:
    """The agent itself may do everything; what it acts under covers notes, no secret, and one page of a site."""
    skip_unless(backend)
    (tmp_path / "asking.cedar").write_text(ASKING)
    (tmp_path / "asking.toml").write_text('[authz]\npolicies = ["asking.cedar"]\n[runtime]\nwarm_pool_min_size = 0\n')
    project = tmp_path / "project"
    project.mkdir()
    (project / "notes.md").write_text("notes\n")
    (project / "private.txt").write_text("private\n")
    async with creto.open(state, config=[tmp_path / "asking.toml"]) as layer:
        identities = layer.parts.identities
        layer.agent("alice")
        helper = layer.agent("helper")
        Secrets(layer.parts.store, layer.parts.sealer).set("TOKEN", "s3cret", agent=helper.id)
        narrow = helper.acting_for(
            identities.verify(await identities.delegate("alice", "helper", attenuation=PASSED_ON))
        )
        for agent, seen in ((helper, "s3cret notes.md private.txt"), (narrow, "notes.md")):
            async with layer.sandbox(agent, project, backend=backend) as box:
                assert (await sh(box, "echo $TOKEN; ls")).split() == seen.split()
        hooks = LayerHooks(layer, narrow, project, timeout=10)
        ann, _ = layer.parts.desk.approvers.add("ann")
        connection = Connection("site.example", 80, "http", True, agreed=frozenset({"desk"}), approvers=(ann.id,))
        assert await hooks.request(connection, "GET", "/a")
        with pytest.raises(UnauthorizedError, match="the delegation to `.*alice` does not cover it"):
            await hooks.request(connection, "GET", "/b")


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["agent", "policy", "approver"])
async def test_what_was_agreed_to_is_not_carried_out_once_it_would_not_be_agreed_to(
    state: Path, tmp_path: Path, change: str
) -> None:
    """Two files; while a human looks at the second, the first, which was let through, is let through no more."""
    skip_unless("process")
    rules, project = tmp_path / "rules.cedar", tmp_path / "project"
    asks = 'context.path == "b"' if change != "approver" else "true"
    rules.write_text(
        '@id("all") permit (principal, action, resource);\n'
        f'@id("desk") @oversight("desk") forbid (principal, action == Action::"fs:write", resource) when {{ {asks} }};'
    )
    (tmp_path / "rules.toml").write_text('[authz]\npolicies = ["rules.cedar"]\n[runtime]\nwarm_pool_min_size = 0\n')
    project.mkdir()
    async with creto.open(state, config=[tmp_path / "rules.toml"]) as layer:
        desk = layer.parts.desk
        ann, bob = (desk.approvers.add(name)[0] for name in ("ann", "bob"))

        async def human() -> None:
            if change == "approver":
                desk.approve((await anyio.to_thread.run_sync(wait_for_request, desk))[0], ann)
                while desk.pending()[:1] == [] or desk.pending()[0].resource != "b":
                    await anyio.sleep(0.05)
                desk.approvers.revoke("ann")
            request = (await anyio.to_thread.run_sync(wait_for_request, desk))[0]
            if change == "agent":
                await layer.parts.identities.revoke("writer", "left")
            elif change == "policy":
                rules.write_text(rules.read_text() + '@id("a") forbid (principal, action, resource == Path::"a");')
                layer.parts.live.reload("test")
            desk.approve(request, bob)

        async with layer.sandbox(layer.agent("writer"), project, backend="process", timeout=60) as box:
            await sh(box, "echo theirs > a; echo theirs > b")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(human)
                found, carried = await box.settle()
        assert [one.path for one in found] == ["a", "b"]
        assert [one.path for one in carried] == ([] if change == "agent" else ["b"])
        assert not (project / "a").exists()
        refusals = await layer.parts.audit.query(action="fs:write", kind="refusal")
        assert "a" in {record.resource for record in refusals}
