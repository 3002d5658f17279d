"""What the configuration promises: one order of sources, origins, nothing untrusted, no half reload."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from creto.cli import main
from creto.config import Live, Settings, Trust, load
from creto.errors import IntegrityError, InvalidInputError, NotFoundError, TimeoutError

DEFAULTS = {
    "common.authz_endpoint": "embedded:",
    "common.audit_endpoint": "embedded:",
    "metering.quota_cache_ttl_seconds": 60,
    "metering.aggregation_interval_seconds": 300,
    "oversight.default_timeout_seconds": 3600,
    "oversight.slack_webhook_url": None,
    "oversight.email_smtp_host": None,
    "runtime.default_backend": "gvisor",
    "runtime.warm_pool_min_size": 10,
    "runtime.warm_pool_max_size": 100,
    "messaging.delivery_timeout_seconds": 30,
    "messaging.max_message_size_bytes": 1048576,
}


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    state.mkdir(mode=0o700)
    return folder


@pytest.fixture
def loaded(project: Path, state: Path) -> Callable[..., Settings]:
    def of(text: str = "", *, name: str = "given.toml", environment: dict[str, str] | None = None) -> Settings:
        file = project / name
        file.write_text(text)
        return load([file], state=state, project=project, environment=environment or {})

    return of


def test_the_defaults_are_those_of_the_design() -> None:
    values = {name: value for name, value, _ in load(environment={}, system=False).values()}
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS


# --- sources ---------------------------------------------------------------------------------------------------------


def test_environment_wins_over_the_given_file_over_the_project_over_the_user_over_defaults(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = tmp_path / "config" / "creto"
    user.mkdir(parents=True)
    (user / "10.yaml").write_text("runtime: {warm_pool_min_size: 1, warm_pool_max_size: 11, max_processes: 21}\n")
    (user / "20.toml").write_text("[runtime]\nwarm_pool_min_size = 2\n")
    own = project / "creto.toml"
    own.write_text("[runtime]\nwarm_pool_min_size = 3\nwarm_pool_max_size = 13\n")
    Trust(state).add(own, [])
    given = project / "given.toml"
    given.write_text("[runtime]\nwarm_pool_min_size = 4\n")
    name = "CRETO_RUNTIME__WARM_POOL_MIN_SIZE"

    settings = load([given], state=state, project=project, environment={name: "5"})

    runtime = settings.runtime
    assert (runtime.warm_pool_min_size, runtime.warm_pool_max_size, runtime.max_processes) == (5, 13, 21)
    assert settings.origin("runtime.warm_pool_min_size") == f"environment {name}"
    assert settings.origin("runtime.warm_pool_max_size") == f"file {own}"
    assert settings.origin("runtime.max_processes") == f"file {user / '10.yaml'}"
    assert settings.origin("runtime.default_backend") == "default"
    assert load([given], state=state, project=project, environment={}).runtime.warm_pool_min_size == 4
    assert load(state=state, project=project, environment={}).runtime.warm_pool_min_size == 3
    own.unlink()
    assert load(state=state, project=project, environment={}).runtime.warm_pool_min_size == 2


def test_a_list_of_a_stronger_source_replaces_the_weaker_one_whole(loaded: Callable[..., Settings]) -> None:
    quotas = '[[quotas]]\nscope = "organisation:acme"\nmeter = "tool_calls"\nlimit = 10\nwindow = "60s"\n'
    stronger = json.dumps([{"scope": "team:b", "meter": "cost", "limit": "2.50", "kind": "money", "currency": "EUR"}])
    assert [quota.scope for quota in loaded(quotas).quotas] == ["organisation:acme"]
    [only] = loaded(quotas, environment={"CRETO_QUOTAS": stronger}).quotas
    assert (only.scope, str(only.limit)) == ("team:b", "2.50")


def test_variables_in_files_come_from_the_environment_and_an_unset_one_is_named(
    loaded: Callable[..., Settings],
) -> None:
    text = '[common]\ntrust_domain = "${REGION}.example"\n[oversight]\nemail_from = "$${AS_IS}"\n'
    settings = loaded(text, environment={"REGION": "eu"})
    assert settings.common.trust_domain == "eu.example"
    assert settings.oversight.email_from == "${AS_IS}"
    with pytest.raises(
        InvalidInputError,
        match=r"^`common.trust_domain` \(file .*given.toml\) needs the environment variable `REGION`, which is not set",
    ):
        loaded(text)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runtme]\n", r"`runtme` \(file .*\): no such setting; did you mean `runtime`\?"),
        (
            "[runtime]\nwarm_pol_min_size = 3\n",
            r"`runtime.warm_pol_min_size` \(file .*given.toml\): no such setting; did you mean `warm_pool_min_size`\?",
        ),
        ('[[quotas]]\nscope = "a"\nmetre = "x"\nlimit = 1\n', r"`quotas\[1\].metre` .*did you mean `meter`\?"),
        ('[runtime]\ndefault_backend = "docker"\n', r"'gvisor' or 'process', not `docker`"),
        ("[runtime]\nwarm_pool_min_size = 200\n", r"`warm_pool_min_size` \(200\) is more than `warm_pool_max_size`"),
        ("[oversight]\ndefault_timeout_seconds = -1\n", r"greater than 0, not `-1`"),
        ("[oversight]\ndefault_timeout_seconds = nan\n", "finite"),
        ('[common]\nauthz_endpoint = "grpc://h:1"\n', r"only `embedded:` works .* needs the server's client"),
        ('[metering]\ntime_zone = "Mars/Base"\n', r"no such time zone; use a name such as `Europe/Paris`"),
        ("[runtime\n", r"given.toml` cannot be read as TOML"),
    ],
)
def test_a_mistake_is_an_error_that_names_the_setting_the_file_and_the_way_out(
    loaded: Callable[..., Settings], text: str, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        loaded(text)


def test_what_cannot_work_together_is_refused_by_the_part_that_knows(loaded: Callable[..., Settings]) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"`oversight.email_from` \(default\): `oversight.email_smtp_host` is set, so a sender's address is",
    ):
        loaded('[oversight]\nemail_smtp_host = "mail.example"\n')


def test_every_mistake_is_told_at_once(loaded: Callable[..., Settings]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        loaded('[runtime]\ndefault_backend = "x"\n[metering]\ncurrency = "usd"\n')
    assert [line.split("`")[1] for line in str(caught.value).splitlines()[1:]] == [
        "metering.currency",
        "runtime.default_backend",
    ]


def test_a_misspelt_variable_is_found_where_its_section_is_wrong_and_where_its_name_is() -> None:
    with pytest.raises(InvalidInputError, match="`CRETO_RUNTIM__X` names no section; did you mean `runtime`?"):
        load(environment={"CRETO_RUNTIM__X": "1"}, system=False)
    with pytest.raises(InvalidInputError, match=r"`runtime.warm_pool_mn_size` \(environment CRETO_RUNTIME__WARM"):
        load(environment={"CRETO_RUNTIME__WARM_POOL_MN_SIZE": "1"}, system=False)
    # One stroke short, it would say nothing, and the starter policy would be in force.
    with pytest.raises(InvalidInputError, match="`CRETO_AUTHZ_POLICIES` says nothing; did you mean `CRETO_AUTHZ__POL"):
        load(environment={"CRETO_AUTHZ_POLICIES": '["own.cedar"]'}, system=False)
    load(environment={"CRETO_STATE": "/s", "CRETO_OTHER_PROGRAM": "1"}, system=False)


def test_yaml_that_would_run_code_is_refused(loaded: Callable[..., Settings], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read as YAML"):
        loaded(f"common: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n", name="given.yaml")
    assert not (tmp_path / "owned").exists()


def test_a_file_that_anyone_can_write_is_refused(loaded: Callable[..., Settings], project: Path, state: Path) -> None:
    loaded("[runtime]\n")
    (project / "given.toml").chmod(0o666)
    with pytest.raises(InvalidInputError, match=r"could have been changed by another user .*run `chmod o-w"):
        load([project / "given.toml"], state=state, project=project, environment={})


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_secrets_are_masked_wherever_settings_are_shown(
    loaded: Callable[..., Settings], capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    text = (
        '[oversight]\nslack_webhook_url = "https://hooks/hunter2"\n[common]\nstore_url = "postgresql://u:hunter2@h/d"\n'
        '[[channels]]\nkind = "webhook"\nname = "ops"\nurl = "https://x/hunter2"\nsecret = "whsec_hunter2"\n'
    )
    settings = loaded(text)
    assert settings.oversight.slack_webhook_url
    assert settings.oversight.slack_webhook_url.get_secret_value().endswith("hunter2")
    shown = repr(settings) + str(list(settings.values())) + settings.section_json("oversight")
    assert main(["--config", str(project / "given.toml"), "config", "show", "--json"]) == 0
    shown += capsys.readouterr().out
    assert "hunter2" not in shown
    assert shown.count("****") >= 4


def test_a_secret_in_a_mistaken_place_is_not_repeated(
    loaded: Callable[..., Settings], capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    loaded("")
    for setting, value in (
        ("common.store_url", '["hunter2"]'),
        ("common.store_url", '"mysql://creto:hunter2@db/creto"'),  # checked, and not what it should be
        ("oversight.metrics_token", '"hunter2"'),
    ):
        section, name = setting.split(".")
        (project / "given.toml").write_text(f"[{section}]\n{name} = {value}\n")
        assert main(["--config", str(project / "given.toml"), "config", "show"]) == 2
        said = capsys.readouterr().err
        assert f"`{setting}`" in said
        assert "hunter2" not in said


# --- trust -----------------------------------------------------------------------------------------------------------


def test_a_projects_file_counts_only_as_it_was_when_it_was_trusted(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    own = project / "creto.toml"

    def backend() -> str:
        return load(environment={}, state=state).runtime.default_backend

    def warned() -> str:
        return " ".join(load(environment={}, state=state).warnings)

    assert (backend(), warned()) == ("gvisor", "")
    own.write_text('[runtime]\ndefault_backend = "process"\n')
    assert backend() == "gvisor"
    assert f"`{own}` is left out: nobody has trusted it yet; read it, then run `creto config trust`" in warned()
    assert main(["config", "trust"]) == 0
    assert (backend(), warned()) == ("process", "")
    own.write_text('[runtime]\ndefault_backend = "kata"\n')
    assert backend() == "gvisor"
    assert "is left out: it has changed since" in warned()
    own.write_text('[runtime]\ndefault_backend = "process"\n')
    assert backend() == "process", "the very same content is the one that was trusted"
    assert main(["config", "trust", "--revoke"]) == 0
    assert backend() == "gvisor"
    capsys.readouterr()
    assert main(["config", "show", "runtime", "--json"]) == 0
    assert "is left out" in capsys.readouterr().err


def test_trust_covers_the_policy_files_that_the_project_names(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "policies").mkdir()
    policy = project / "policies" / "a.cedar"
    policy.write_text("permit (principal, action, resource);")
    (project / "creto.toml").write_text('[authz]\npolicies = ["policies/*.cedar"]\n')
    assert main(["config", "trust"]) == 0
    settings = load(environment={}, state=state)
    assert settings.policy_files() == [(policy, b"permit (principal, action, resource);")]
    policy.write_text("permit (principal, action, resource); // and more")
    with pytest.raises(IntegrityError, match=r"a.cedar` has changed since .*creto.toml` was trusted; read it"):
        settings.policy_files()
    policy.write_text("permit (principal, action, resource);")
    (project / "policies" / "b.cedar").write_text("permit (principal, action, resource);")
    with pytest.raises(IntegrityError, match=r"b.cedar` was not there when"):
        settings.policy_files()


def test_policies_are_found_from_the_file_that_names_them(
    loaded: Callable[..., Settings], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "p.cedar").write_text("x")
    settings = loaded('[authz]\npolicies = ["p.cedar"]\n')
    monkeypatch.chdir(project.parent)
    assert settings.policy_files() == [(project / "p.cedar", b"x")]
    with pytest.raises(NotFoundError, match=r"no file fits `.*\*\.nope`"):
        loaded('[authz]\npolicies = ["*.nope"]\n').policy_files()


# --- reload ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(project: Path, state: Path) -> tuple[Live, Path, list[dict[str, Any]]]:
    file = project / "given.toml"
    file.write_text('[common]\nlog_level = "info"\n')
    records: list[dict[str, Any]] = []
    return Live([file], state=state, project=project, environment={}, record=records.append), file, records


def test_a_reload_swaps_what_can_change_says_what_needs_a_restart_and_records_who(
    live: tuple[Live, Path, list[dict[str, Any]]],
) -> None:
    follower, file, records = live
    file.write_text('[common]\nlog_level = "debug"\ntrust_domain = "other.example"\n')
    reload = follower.reload(who="spiffe://creto.local/approver/ann")
    assert {change.setting: change.applied for change in reload.changes} == {
        "common.log_level": True,
        "common.trust_domain": False,
    }
    assert reload.waiting == ["common.trust_domain"]
    assert follower.current.common.log_level == "debug"
    assert follower.current.common.trust_domain == "creto.local"
    [record] = records
    assert (record["who"], record["what"], record["outcome"]) == (
        "spiffe://creto.local/approver/ann",
        "config:reload",
        "success",
    )
    assert record["detail"] == {
        "common.log_level": "info -> debug",
        "common.trust_domain": "creto.local -> other.example (counts after a restart)",
    }


def test_a_bad_file_is_refused_with_the_old_configuration_kept(live: tuple[Live, Path, list[dict[str, Any]]]) -> None:
    follower, file, records = live
    before = follower.current
    file.write_text("[common]\nlog_levl = 'debug'\n")
    assert "did you mean `log_level`?" in str(follower.reload(who="x").refused)
    assert follower.current is before
    assert "did you mean" in records[0]["outcome"]["failure"]


def test_the_log_level_is_taken_up_and_a_refusal_is_logged(
    live: tuple[Live, Path, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    follower, file, _ = live
    file.write_text('[common]\nlog_level = "error"\n')
    follower.reload(who="x")
    assert logging.getLogger("creto").level == logging.ERROR
    file.write_text('[common]\nlog_level = "info"\n')
    follower.reload(who="ann")
    file.write_text("[nonsense]\n")
    follower.reload(who="x")
    assert "reloaded by ann: common.log_level" in caplog.text
    assert "is refused, the old one stays" in caplog.text


def test_what_one_part_refuses_no_part_keeps(live: tuple[Live, Path, list[dict[str, Any]]]) -> None:
    follower, file, _ = live
    first: list[str] = []
    follower.follow(lambda settings: first.append(settings.common.log_level))

    def refuse(settings: Settings) -> None:
        raise InvalidInputError("policy `p1` does not parse")

    follower.follow(refuse)
    file.write_text('[common]\nlog_level = "debug"\n')
    assert follower.reload(who="x").refused == "policy `p1` does not parse"
    assert (first, follower.current.common.log_level) == (["debug", "info"], "info")


def test_a_changed_policy_file_is_a_change(project: Path, state: Path) -> None:
    policy = project / "p.cedar"
    policy.write_text("1")
    (project / "s.cedarschema").write_text("1")
    file = project / "given.toml"
    file.write_text('[authz]\npolicies = ["p.cedar"]\nschema_file = "s.cedarschema"\n')
    follower = Live([file], state=state, project=project, environment={})
    policy.write_text("2")
    (project / "s.cedarschema").write_text("2")
    assert [(change.setting, change.applied) for change in follower.reload(who="x").changes] == [
        (f"authz.policies[{policy}]", True),
        (f"authz.schema_file[{project / 's.cedarschema'}]", True),
    ]
    assert follower.reload(who="x").changes == ()


def test_a_projects_file_never_changes_under_a_running_agent_even_when_trusted_again(
    project: Path, state: Path
) -> None:
    own = project / "creto.toml"
    own.write_text('[common]\nlog_level = "info"\n')
    Trust(state).add(own, [])
    follower = Live(state=state, project=project, environment={})
    own.write_text('[common]\nlog_level = "debug"\n')
    Trust(state).add(own, [])
    assert follower.reload(who="x").changes == ()
    assert follower.current.common.log_level == "info"


def test_a_projects_file_that_appears_later_does_not_count_until_a_restart(project: Path, state: Path) -> None:
    follower = Live(state=state, project=project, environment={})
    own = project / "creto.toml"
    own.write_text('[common]\nlog_level = "debug"\n')
    Trust(state).add(own, [])
    assert follower.reload(who="x").changes == ()
    assert follower.current.common.log_level == "warning"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_watch_takes_up_a_change_by_itself(live: tuple[Live, Path, list[dict[str, Any]]], backend: str) -> None:
    follower, file, _ = live

    async def main() -> str:
        async with anyio.create_task_group() as group:
            heard = anyio.Event()
            with anyio.fail_after(60):
                # Before the watch begins: what changed since the configuration was loaded is taken up too.
                file.write_text('[common]\nlog_level = "error"\n')
                group.start_soon(lambda: follower.watch(interval=0.05, told=lambda _: heard.set()))
                await heard.wait()
                heard = anyio.Event()
                file.write_text('[common]\nlog_level = "debug"\n')
                await heard.wait()
            group.cancel_scope.cancel()
        return follower.current.common.log_level

    assert anyio.run(main, backend=backend) == "debug"


def test_what_a_part_could_not_take_up_just_now_is_taken_up_at_the_next_look(
    live: tuple[Live, Path, list[dict[str, Any]]],
) -> None:
    follower, file, records = live
    tried: list[str] = []

    def take(settings: Settings) -> None:
        tried.append(settings.common.log_level)
        if len(tried) == 1:
            raise TimeoutError("the store stayed busy")

    follower.follow(take)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: follower.watch(interval=0.05))
            with anyio.fail_after(60):
                file.write_text('[common]\nlog_level = "error"\n')
                while follower.current.common.log_level != "error":
                    await anyio.sleep(0.02)
            group.cancel_scope.cancel()

    anyio.run(main)
    assert tried == ["error", "error"]
    assert [type(record["outcome"]) for record in records] == [dict, str]


def test_a_part_that_cannot_go_back_yet_does_at_a_later_look_though_the_file_is_as_it_was(
    live: tuple[Live, Path, list[dict[str, Any]]],
) -> None:
    follower, file, _ = live
    before = file.read_text()
    serves: list[str] = []

    def first(settings: Settings) -> None:
        if serves == ["error"]:
            raise TimeoutError("the store went away in between")
        serves[:] = [settings.common.log_level]

    def second(settings: Settings) -> None:
        if settings.common.log_level == "error":
            raise TimeoutError("the store went away")

    follower.follow(first)
    follower.follow(second)
    file.write_text('[common]\nlog_level = "error"\n')
    assert follower.reload(who="x").refused == "the store went away"
    assert serves == ["error"]
    file.write_text(before)
    serves.clear()  # the store is back
    assert follower.reload(who="x").refused is None
    assert serves == ["info"]


def test_what_breaks_in_the_midst_leaves_no_part_with_the_new_configuration(
    live: tuple[Live, Path, list[dict[str, Any]]],
) -> None:
    follower, file, _ = live
    serves: list[str] = []

    def breaks(settings: Settings) -> None:
        raise OSError("no descriptor is left")

    follower.follow(lambda settings: serves.append(settings.common.log_level))
    follower.follow(breaks)
    file.write_text('[common]\nlog_level = "error"\n')
    with pytest.raises(OSError, match="no descriptor is left"):
        follower.reload(who="x")
    assert serves == ["error", "info"]
    assert follower.current.common.log_level == "info"


def test_a_folder_of_configuration_that_this_user_may_not_read_is_named_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where root's HOME is left to a command that runs as another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    closed = Path(tempfile.mkdtemp())  # of mode 0700, and root's
    monkeypatch.setenv("XDG_CONFIG_HOME", str(closed))
    (closed / "creto").mkdir()
    os.seteuid(65534)
    try:
        with pytest.raises(InvalidInputError, match=f"`{closed}/creto` cannot be read: Permission denied"):
            load(environment={})
    finally:
        os.seteuid(0)


# --- the command -----------------------------------------------------------------------------------------------------


def test_check_says_whether_a_file_can_be_used(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    file = project / "a.toml"
    file.write_text("[runtime]\nwarm_pool_min_size = 1\n")
    assert main(["config", "check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable"] is True
    file.write_text("[runtime]\nwarm_pool_min_size = 1000\n")
    assert main(["config", "check", str(file)]) == 2
    assert "`warm_pool_min_size` (1000) is more than" in capsys.readouterr().err


def test_the_schema_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    undescribed = [
        f"{name}.{setting}"
        for name, section in schema["$defs"].items()
        for setting, value in section["properties"].items()
        if not value.get("description")
    ]
    assert undescribed == []


def test_mail_that_no_server_would_send_is_told_before_anybody_waits_for_it(loaded: Callable[..., Settings]) -> None:
    channel = '[[channels]]\nkind = "email"\nname = "desk"\nto = ["desk@example.org"]\n'
    with pytest.raises(InvalidInputError, match="`desk` sends mail, and `oversight.email_smtp_host` names no server"):
        loaded(channel)
    server = '[oversight]\nemail_smtp_host = "mail.example.org"\nemail_from = "creto@example.org"\n'
    assert loaded(server + channel).channels[0].to == ["desk@example.org"]
    approver = '[[approvers]]\nname = "ann"\nemail = "ann@example.org"\n'
    assert loaded(approver).warnings == ("approvers get no mail: `oversight.email_smtp_host` names no server",)
    assert loaded(server + approver).warnings == ()
