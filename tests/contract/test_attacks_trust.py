"""Attacks on the trust of a project's configuration: a policy taken away, links, a change between look and use."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

import creto
from creto.config import Live, Trust, load
from creto.config._load import named_files as named
from creto.errors import IntegrityError, InvalidInputError, NotFoundError
from creto.metering import PriceBook

PERMIT = '@id("all") permit (principal, action, resource);'
FORBID = '@id("never") forbid (principal, action == Action::"fs:write", resource);'


@pytest.fixture
def project(tmp_path: Path, state: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "allow.cedar").write_text(PERMIT)
    (folder / "policies" / "forbid.cedar").write_text(FORBID)
    (folder / "creto.toml").write_text('[authz]\npolicies = ["policies/*.cedar"]\n')
    state.mkdir(mode=0o700)
    return folder


def trust(project: Path, state: Path) -> None:
    file = project / "creto.toml"
    Trust(state).add(file, named(file, {}))


def texts(project: Path, state: Path) -> list[str]:
    settings = load(state=state, project=project, environment={})
    return [content.decode() for _, content in settings.policy_files()]


def test_a_policy_file_that_was_trusted_cannot_be_taken_away(project: Path, state: Path) -> None:
    """Fewer files fit the pattern, and each is as it was trusted: without the forbid everything is permitted."""
    trust(project, state)
    assert texts(project, state) == [PERMIT, FORBID]
    (project / "policies" / "forbid.cedar").unlink()
    with pytest.raises(
        IntegrityError, match=r"`.*forbid\.cedar` was trusted with `.*creto\.toml` and is no longer read"
    ):
        texts(project, state)


def test_a_policy_file_that_was_trusted_cannot_be_moved_out_of_the_pattern(project: Path, state: Path) -> None:
    trust(project, state)
    (project / "policies" / "forbid.cedar").rename(project / "policies" / "forbid.off")
    with pytest.raises(IntegrityError, match="is no longer read"):
        texts(project, state)


def test_a_table_of_prices_counts_as_it_was_trusted_too(project: Path, state: Path) -> None:
    """A repository that lowers its prices later would pay less from then on."""
    prices = project / "prices.json"
    prices.write_text('{"small": {"input_cost_per_token": 1e-06}}')
    with (project / "creto.toml").open("a") as file:
        file.write('[metering]\nmodel_prices = "prices.json"\n')
    trust(project, state)
    settings = load(state=state, project=project, environment={})
    assert [price.unit_price for price in PriceBook.from_settings(settings).prices] == [Decimal("0.000001")]
    assert settings.policy_files()
    prices.write_text('{"small": {"input_cost_per_token": 1e-12}}')
    with pytest.raises(IntegrityError, match=r"prices\.json` has changed since `.*` was trusted; read it, then run"):
        PriceBook.from_settings(settings)
    prices.unlink()
    with pytest.raises(NotFoundError, match=r"prices\.json` that the configuration names cannot be read"):
        PriceBook.from_settings(settings)


def test_a_policy_file_that_comes_later_is_not_read(project: Path, state: Path) -> None:
    trust(project, state)
    (project / "policies" / "zz.cedar").write_text('@id("more") permit (principal, action, resource);')
    with pytest.raises(IntegrityError, match="was not there when"):
        texts(project, state)


def test_a_policy_file_exchanged_for_a_link_is_not_read(project: Path, state: Path, tmp_path: Path) -> None:
    trust(project, state)
    other = tmp_path / "other.cedar"
    other.write_text(PERMIT)
    (project / "policies" / "forbid.cedar").unlink()
    (project / "policies" / "forbid.cedar").symlink_to(other)
    with pytest.raises(IntegrityError):
        texts(project, state)


def test_two_trusted_files_cannot_stand_for_each_other(project: Path, state: Path) -> None:
    """The forbid's name leads to the permit: every file that is read was trusted, and the forbid is gone."""
    trust(project, state)
    (project / "policies" / "forbid.cedar").unlink()
    (project / "policies" / "forbid.cedar").symlink_to("allow.cedar")
    with pytest.raises(IntegrityError):
        texts(project, state)


def test_a_link_to_somebody_s_trusted_file_does_not_lend_its_trust(project: Path, state: Path, tmp_path: Path) -> None:
    """The content is trusted; what it names by relative paths would be the attacker's own files."""
    trust(project, state)
    evil = tmp_path / "evil"
    (evil / "policies").mkdir(parents=True)
    (evil / "policies" / "allow.cedar").write_text('@id("mine") permit (principal, action, resource);')
    (evil / "creto.toml").symlink_to(project / "creto.toml")
    try:
        read = texts(evil, state)
    except (IntegrityError, InvalidInputError, NotFoundError):
        return
    assert all("mine" not in text for text in read)


def test_a_trusted_file_that_is_gone_is_told(project: Path, state: Path) -> None:
    """Else whoever removes it has its policies replaced by the starter's, and nobody hears of it."""
    trust(project, state)
    (project / "creto.toml").unlink()
    settings = load(state=state, project=project, environment={})
    assert any("was trusted" in warning and "is gone" in warning for warning in settings.warnings), settings.warnings


def test_no_act_is_done_under_another_policy_because_a_trusted_file_was_changed_or_taken_away(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write one byte of it would have the starter's policies in force, and the library says nothing."""
    monkeypatch.chdir(project)
    trust(project, state)
    with creto.open_blocking(state):
        pass
    file = project / "creto.toml"
    for spoil, text in ((lambda: file.write_bytes(b"#"), "has changed since"), (file.unlink, "and is gone")):
        spoil()
        with pytest.raises(IntegrityError, match=text), creto.open_blocking(state):
            pytest.fail("opened")
    Trust(state).remove(file)
    file.write_bytes(b"#")
    with creto.open_blocking(state):
        assert "is left out: nobody has trusted it yet" in caplog.text


def test_a_change_between_the_look_and_the_trust_is_not_trusted(project: Path, state: Path) -> None:
    file = project / "creto.toml"
    shown = file.read_bytes()
    file.write_bytes(b"[authz]\npolicies = []\n")
    Trust(state).add(file, [], shown)
    settings = load(state=state, project=project, environment={})
    assert settings.authz.policies == load(environment={}, system=False).authz.policies
    assert any("has changed since" in warning for warning in settings.warnings)


def test_a_variable_cannot_bring_a_setting_along(project: Path, state: Path) -> None:
    """What `${VAR}` holds is a value, never syntax."""
    (project / "given.toml").write_text('[common]\nlog_level = "${LEVEL}"\n')
    hostile = 'info"\n[authz]\npolicies = ["/tmp/evil.cedar"]\n#'
    with pytest.raises(InvalidInputError) as refused:
        load([project / "given.toml"], state=state, project=project, environment={"LEVEL": hostile})
    assert "authz" not in str(refused.value).split("not `")[0]


def test_a_file_that_others_may_write_is_not_configuration(project: Path, state: Path) -> None:
    (project / "given.toml").write_text("[common]\n")
    (project / "given.toml").chmod(0o666)
    with pytest.raises(InvalidInputError, match="could have been changed by another user"):
        load([project / "given.toml"], state=state, project=project, environment={})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_another_user_s_file_is_not_configuration(project: Path, state: Path) -> None:
    (project / "given.toml").write_text("[common]\n")
    os.chown(project / "given.toml", 4321, 4321)
    with pytest.raises(InvalidInputError, match="could have been changed by another user"):
        load([project / "given.toml"], state=state, project=project, environment={})


@pytest.mark.parametrize("setting", ["policies", "entities", "trusted_keys"])
def test_a_file_that_others_may_write_is_no_policy_either(project: Path, state: Path, setting: str) -> None:
    """The configuration is nobody else's; what it names would be, and another user writes a policy there."""
    (project / "named").write_text(PERMIT)
    (project / "given.toml").write_text(f'[authz]\n{setting} = ["named"]\n')
    settings = load([project / "given.toml"], state=state, environment={}, system=False)
    assert settings.files(f"authz.{setting}", getattr(settings.authz, setting))
    (project / "named").chmod(0o666)
    with pytest.raises(InvalidInputError, match=r"named` could have been changed by another user .*chmod o-w"):
        settings.files(f"authz.{setting}", getattr(settings.authz, setting))


def test_what_is_trusted_or_signed_may_lie_where_others_write(project: Path, state: Path) -> None:
    trust(project, state)
    (project / "policies/allow.cedar").chmod(0o666)
    assert texts(project, state) == [PERMIT, FORBID]
    (project / "given.toml").write_text(
        '[authz]\npolicies = ["policies/allow.cedar"]\ntrusted_keys = ["ops.pub"]\nsignature = "signature.json"\n'
    )
    settings = load([project / "given.toml"], state=state, environment={}, system=False)
    assert settings.policy_files(), "its signature is looked at by who installs it"


def test_an_entry_of_trust_that_was_tampered_with_trusts_nothing(project: Path, state: Path) -> None:
    trust(project, state)
    (entry,) = (state / "trust").glob("*.json")
    entry.write_text('{"path": "x"}')
    settings = load(state=state, project=project, environment={})
    assert any("nobody has trusted it" in warning for warning in settings.warnings)


def test_a_process_that_goes_into_a_folder_does_not_take_its_files_for_its_configuration(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are relative to where the process was started: a tool that changes into a repository changes no policy."""
    for folder, policy in (("service", FORBID), ("repository", PERMIT)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.cedar").write_text(policy)
        (tmp_path / folder / "settings.toml").write_text('[authz]\npolicies = ["own.cedar"]\n')
        (tmp_path / folder / "more.toml").write_text(f"[oversight]\ndefault_timeout_seconds = {len(folder)}\n")
    monkeypatch.chdir(tmp_path / "service")
    by_variable = {"CRETO_CONFIG": "more.toml", "CRETO_AUTHZ__POLICIES": '["own.cedar"]'}
    lives = [
        Live(["settings.toml"], state=state, environment={"CRETO_CONFIG": "more.toml"}, system=False),
        Live([], state=state, environment=by_variable, system=False),
    ]
    monkeypatch.chdir(tmp_path / "repository")
    for live in lives:
        outcome = live.reload("test")
        assert (outcome.changes, outcome.refused) == ((), None)
        assert [content.decode() for _, content in live.current.policy_files()] == [FORBID]
        assert live.current.oversight.default_timeout_seconds == len("service")
