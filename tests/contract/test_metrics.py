"""What the guide promises of `/metrics`: figures from the ledger and the store, by a token that opens nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_fd_to_metric_families as prometheus

import creto
from creto.config import load
from creto.errors import CretoError, InvalidInputError
from creto.server import Metrics, serve_inbox
from desks import wait_until
from servers import Start

TOKEN = "4f0c9d0bba2c4ba6"
POLICY = """
@id("tools") permit (principal, action == Action::"tool:call", resource) unless { resource == Tool::"forbidden" };
@id("payments") @oversight("payments") forbid (principal, action == Action::"tool:call", resource == Tool::"pay");
"""
CONFIG = """
[authz]
policies = ["rules.cedar"]
[[quotas]]
scope = "organisation"
meter = "tool_calls"
limit = 3
window = "day"
[[quotas]]
scope = "agent"
meter = "letters"
limit = 1
window = "day"
"""


class Watched:
    """A layer, an inbox over it with figures, and what a collector sees of them."""

    def __init__(self, layer: creto.EnablementLayer, url: str) -> None:
        self.layer = layer
        self.url = url

    def get(self, token: str | None = TOKEN, **headers: str) -> httpx.Response:
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{self.url}/metrics", headers={**shown, **headers}, timeout=60)

    def figure(self, figure: str, **labels: str) -> float:
        """One figure, as OpenMetrics' own parser reads it."""
        text = self.get(accept="application/openmetrics-text; version=1.0.0").text
        (found,) = [
            sample.value
            for family in openmetrics(text)
            for sample in family.samples
            if sample.name == figure and sample.labels == labels
        ]
        return float(found)

    def act(self, tool: str, **options: Any) -> str:
        try:
            self.layer.perform_blocking(self.layer.agent("a"), "tool:call", tool, lambda: 1 // len(tool[4:]), **options)
        except (CretoError, ZeroDivisionError) as error:
            return type(error).__name__
        return "done"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "rules.cedar").write_text(POLICY)
    (tmp_path / "rules.toml").write_text(CONFIG)
    with ExitStack() as stack:
        layer = stack.enter_context(creto.open_blocking(tmp_path / "state", config=[tmp_path / "rules.toml"]))
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        metrics = Metrics(layer.parts.folder, layer.parts.store, TOKEN)
        urls: list[str] = []
        portal.start_task_soon(lambda: serve_inbox(layer.parts.desk, metrics=metrics, started=urls.append))
        stack.callback(portal.call, portal.stop, True)
        yield Watched(layer, wait_until(lambda: urls[0] if urls else None))


def test_acts_are_counted_by_how_they_ended(watched: Watched) -> None:
    assert [watched.figure("creto_acts_total", outcome=end) for end in ("success", "failure", "denied", "quota")] == [
        0
    ] * 4
    usage = {"tool_calls": 1}
    assert [
        watched.act(tool, usage=usage) for tool in ("search", "forbidden", "fail", "search", "search", "search")
    ] == [
        "done",
        "UnauthorizedError",
        "ZeroDivisionError",
        "done",
        "done",
        "QuotaExceededError",
    ]
    wait_until(lambda: True if watched.figure("creto_acts_total", outcome="quota") == 1 else None)
    found = {end: watched.figure("creto_acts_total", outcome=end) for end in ("success", "failure", "denied", "quota")}
    assert found == {"success": 3, "failure": 1, "denied": 1, "quota": 1}


def test_what_waits_for_a_human_is_a_figure_until_it_is_answered(watched: Watched) -> None:
    desk = watched.layer.parts.desk
    assert watched.act("pay it", timeout=0.5) == "done"  # another tool
    assert watched.layer._portal is not None
    asking = watched.layer._portal.start_task_soon(
        lambda: watched.layer.perform(watched.layer.agent("a"), "tool:call", "pay", lambda: None)
    )
    wait_until(lambda: True if watched.figure("creto_oversight_pending") == 1 else None)
    wait_until(lambda: True if watched.figure("creto_oversight_oldest_pending_seconds") > 0.2 else None)
    (request,) = desk.pending()
    desk.approve(request, desk.approvers.operator())
    asking.result(timeout=60)
    assert watched.figure("creto_oversight_pending") == 0
    assert watched.figure("creto_oversight_oldest_pending_seconds") == 0
    wait_until(lambda: True if watched.figure("creto_oversight_answers_total", answer="approved") == 1 else None)


def test_quotas_of_an_organisation_are_shown_and_those_of_agents_counted(watched: Watched) -> None:
    for _ in range(3):
        assert watched.act("search", usage={"tool_calls": 1, "letters": 0}) == "done"
    assert watched.act("search", usage={"tool_calls": 1}) == "QuotaExceededError"
    named = {"level": "organisation", "name": "creto.local", "meter": "tool_calls", "window": "day"}
    assert watched.figure("creto_quota_limit", **named) == 3
    watched.layer.parts.quota.close()  # what is leased goes back, and what is spent is reported
    assert watched.figure("creto_quota_used", **named) == 3
    assert watched.figure("creto_quotas_exhausted", level="organisation", meter="tool_calls") == 1


def test_the_ledger_is_counted_and_so_is_what_no_checkpoint_covers(watched: Watched) -> None:
    watched.layer.agent("a")
    before = watched.figure("creto_ledger_records")
    watched.act("search")
    assert watched.figure("creto_ledger_records") == before + 2
    wait_until(lambda: True if watched.figure("creto_ledger_unsealed_records") == 0 else None)


def test_no_label_holds_what_an_agent_chose(watched: Watched) -> None:
    for number in range(20):
        watched.act(f"tool-of-{number}", context={"purpose": f"purpose-{number}"})
    watched.layer.perform_blocking(watched.layer.agent("b-chosen"), "tool:call", "x-chosen", lambda: None)
    page = watched.get().text
    assert "chosen" not in page
    assert "tool-of" not in page
    assert len(page.splitlines()) < 80


def test_both_forms_are_read_by_prometheus_own_parsers(watched: Watched) -> None:
    watched.act("search", usage={"tool_calls": 1})
    plain, open_form = watched.get(), watched.get(accept="application/openmetrics-text; version=1.0.0")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert open_form.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in prometheus(iter(plain.text.splitlines(keepends=True)))}
    assert {family.name for family in openmetrics(open_form.text)} <= {name.removesuffix("_total") for name in names}


def test_figures_need_their_own_token_and_it_opens_nothing_else(watched: Watched) -> None:
    _, approver = watched.layer.parts.desk.approvers.add("ann")
    assert watched.get(None).status_code == 401
    assert "`Authorization: Bearer <oversight.metrics_token>`" in watched.get(None).json()["detail"]
    assert "the figures have one of their own, `oversight.metrics_token`" in watched.get(approver).json()["detail"]
    for token in ("x", approver, TOKEN + "0"):
        assert watched.get(token).status_code in (401, 403), token
    foreign = httpx.get(f"{watched.url}/metrics", headers=[(b"authorization", b"Bearer \xe9\xff")])
    assert foreign.status_code == 403
    assert watched.get().status_code == 200
    own = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{watched.url}/api/requests", headers=own).status_code == 403
    assert httpx.post(f"{watched.url}/metrics", headers=own).status_code == 405
    assert any(watched.get("guess").status_code == 429 for _ in range(60))
    assert watched.get().status_code == 200


def test_a_token_that_could_be_guessed_is_refused(watched: Watched) -> None:
    with pytest.raises(InvalidInputError, match="`oversight.metrics_token` has 5 characters; give at least 16"):
        Metrics(watched.layer.parts.folder, watched.layer.parts.store, "short")
    with pytest.raises(
        InvalidInputError, match="`oversight.metrics_token` .*: it has 5 characters; give at least 16"
    ) as told:
        load(environment={"CRETO_OVERSIGHT__METRICS_TOKEN": "hunte"}, system=False)
    assert "hunte" not in str(told.value)


def test_it_says_when_it_is_ready(watched: Watched) -> None:
    assert httpx.get(f"{watched.url}/readyz").text == "ready\n"
    watched.layer.parts.store.close()
    (watched.layer.parts.folder / "creto.db").rename(watched.layer.parts.folder / "elsewhere.db")
    (watched.layer.parts.folder / "creto.db").write_bytes(b"no database" * 1000)
    answer = httpx.get(f"{watched.url}/readyz")
    (watched.layer.parts.folder / "elsewhere.db").rename(watched.layer.parts.folder / "creto.db")
    assert (answer.status_code, answer.text) == (503, "the store cannot be read\n")
    assert httpx.get(f"{watched.url}/healthz").text == "ok\n"


def test_creto_inbox_has_figures_where_a_token_is_set_and_none_elsewhere(
    state: Path, python: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, status in (("", 404), (TOKEN, 200)):
        if token:
            monkeypatch.setenv("CRETO_OVERSIGHT__METRICS_TOKEN", token)
        server = python("from creto.cli import main; main(['inbox', '--json'])")
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        answer = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == status
        server.terminate()
        server.wait(60)
