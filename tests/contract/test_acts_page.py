"""What the inbox promises of acts on record: approvers of every policy find each, with its life."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
from sqlalchemy import select

import creto
from creto import config
from creto.audit import _index
from creto.errors import CretoError
from creto.report import price
from creto.server import _acts, serve_inbox
from creto.store.tables import grants
from desks import wait_until

POLICY = """
@id("tools") permit (principal, action in [Action::"tool:call", Action::"http:get"], resource)
unless { resource == Tool::"forbidden" };
@id("payments") @oversight("payments") forbid (principal, action == Action::"tool:call", resource == Tool::"pay");
"""
RULES = """
authz.policies = ["rules.cedar"]
[[prices]]
meter = "pages"
unit_price = "0.25"
currency = "EUR"
"""
ACT = re.compile(r'class="cover" href="(/s/[\w-]{22}/acts/([0-9a-f]{32}))" aria-label="([^"]*)"')


class Records:
    """A layer whose acts are on record, and a browser at the inbox over it."""

    def __init__(self, layer: creto.EnablementLayer, url: str) -> None:
        self.layer = layer
        self.url = url
        self.browser = httpx.Client(base_url=url, timeout=60)

    def sign_in(self, *policies: str) -> None:
        _, token = self.layer.parts.desk.approvers.add(f"ann-{len(policies)}", policies=policies or ("*",))
        place = self.browser.post(f"{self.url}/login", data={"token": token, "next": "/"}).headers["location"]
        self.browser.base_url = httpx.URL(f"{self.url}{place.rstrip('/')}")

    def act(self, resource: str, action: str = "tool:call", agent: str = "a", **options: Any) -> None:
        with suppress(CretoError, ZeroDivisionError):
            self.layer.perform_blocking(
                self.layer.agent(agent), action, resource, lambda: 1 // len(resource[4:]), **options
            )

    def listed(self, path: str = "/acts") -> list[str]:
        """What the page shows, the newest first."""
        return [html.unescape(shown) for _, _, shown in ACT.findall(self.browser.get(path).text)]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    (tmp_path / "rules.cedar").write_text(POLICY)
    (tmp_path / "rules.toml").write_text(RULES)
    with ExitStack() as stack:
        layer = stack.enter_context(creto.open_blocking(tmp_path / "state", config=[tmp_path / "rules.toml"]))
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        urls: list[str] = []
        folder = layer.parts.folder
        priced = partial(price, settings=config.load([tmp_path / "rules.toml"], state=folder))
        portal.start_task_soon(lambda: serve_inbox(layer.parts.desk, folder=folder, price=priced, started=urls.append))
        stack.callback(portal.call, portal.stop, True)
        opened = Records(layer, wait_until(lambda: urls[0] if urls else None))
        stack.callback(opened.browser.close)
        yield opened


def test_acts_are_found_by_who_what_on_what_and_how_they_ended(records: Records) -> None:
    records.act("search")
    records.act("forbidden")
    records.act("fail")
    records.act("https://example.org/page", "http:get", agent="b")
    records.sign_in()
    every = [
        "http:get on https://example.org/page",
        "tool:call on fail",
        "tool:call on forbidden",
        "tool:call on search",
    ]
    assert records.listed() == every
    assert records.listed("/acts?agent=b") == every[:1]
    assert records.listed("/acts?agent=spiffe://creto.local/agent/a") == every[1:]
    assert records.listed("/acts?action=http:*") == every[:1]
    assert records.listed("/acts?resource=sear*") == every[3:]
    assert records.listed("/acts?outcome=failure") == every[1:2]
    assert records.listed("/acts?outcome=refused&agent=a") == every[2:3]
    assert records.listed("/acts?outcome=success") == [every[0], every[3]]
    assert records.listed("/acts?agent=nobody") == []


def test_an_acts_page_tells_its_life_with_proofs_and_leads_back(records: Records) -> None:
    desk = records.layer.parts.desk
    portal = records.layer._portal
    assert portal is not None
    paying = portal.start_task_soon(
        lambda: records.layer.perform(records.layer.agent("a"), "tool:call", "pay", lambda: None)
    )
    request = wait_until(lambda: waiting[0] if (waiting := desk.pending()) else None)
    desk.approve(request, desk.approvers.operator(), "invoice checked")
    paying.result(timeout=60)
    records.layer.call_blocking(records.layer.parts.audit.checkpoint)
    records.sign_in()
    asked = records.browser.get(f"/r/{request.id}").text
    (link,) = re.findall(r'href="(/s/[\w-]+/acts/[0-9a-f]{32})"', asked)
    assert link == ACT.findall(records.browser.get("/acts").text)[0][0]
    page = records.browser.get(f"{records.url}{link}")
    with desk.store.read() as tx:
        statement = tx.scalar(select(grants.c.statement).where(grants.c.request == request.id))
    signed = f"<dt>Signed answer</dt><dd><code>{hashlib.sha256(statement).hexdigest()}</code></dd>"
    for shown in (signed, "invoice checked", "Ended as a success", "In the ledger: under a checkpoint", "/acts"):
        assert shown in page.text
    # The style is let through by its digest, and nothing else is.
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert "script" not in policy


def test_an_acts_page_says_what_the_act_cost(records: Records) -> None:
    records.act("search", usage={"pages": 3})
    records.act("forbidden")
    records.sign_in()
    denied, paid = (link for link, _, _ in ACT.findall(records.browser.get("/acts").text))
    told = "<dt>Used</dt><dd>3 pages</dd><dt>Price</dt><dd>0.75 EUR, at the prices of now</dd>"
    assert told in records.browser.get(f"{records.url}{paid}").text
    assert "Price" not in records.browser.get(f"{records.url}{denied}").text


def test_older_pages_hold_every_act_and_none_twice(records: Records) -> None:
    for number in range(70):
        records.act(f"tool-{number}", durability="relaxed")
    records.sign_in()
    seen: list[str] = []
    path: str | None = "/acts"
    while path is not None:
        page = records.browser.get(path).text
        seen += [id for _, id, _ in ACT.findall(page)]
        assert "no outcome" not in page
        more = re.search(r'href="/s/[\w-]{22}(/acts\?[^"]*before=\d+[^"]*)"', page)
        path = html.unescape(more[1]) if more else None
    assert len(seen) == len(set(seen)) == 70


def test_a_ledger_that_is_not_indexed_yet_says_how_far_it_is_and_then_shows_its_acts(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(120):
        records.act(f"tool-{number}", durability="relaxed")
    records.layer.call_blocking(records.layer.parts.audit.checkpoint)
    records.sign_in()
    monkeypatch.setattr(_index, "_BATCH", 1)
    monkeypatch.setattr(_acts, "_PATIENCE_SECONDS", 0.005)
    reached = [0]
    path = "/acts"
    while (page := records.browser.get(path)).status_code == 202:
        assert (page.headers["refresh"], page.headers["cache-control"]) == ("1", "no-store")
        if said := re.search(r"is being built: (\d+) of (\d+)\.", page.text):
            assert int(said[1]) < int(said[2]) <= 400
            reached.append(int(said[1]))
        else:
            assert "is being put in order" in page.text
        path = "/acts" if path != "/acts" else f"/acts/{'0' * 32}"
    assert len(reached) > 2
    assert reached == sorted(reached)
    monkeypatch.setattr(_acts, "_PATIENCE_SECONDS", 20)
    assert records.listed()[0] == "tool:call on tool-119"


def test_who_may_not_answer_for_every_policy_sees_no_acts(records: Records) -> None:
    records.act("search")
    records.sign_in("payments")
    assert "/acts" not in records.browser.get("/").text
    act = records.layer.call_blocking(records.layer.parts.audit.query)[-1].act
    for path in ("/acts", f"/acts/{act}"):
        answer = records.browser.get(path)
        assert (answer.status_code, "acts are shown to approvers of every policy" in answer.text) == (403, True)


def test_acts_are_for_those_signed_in_who_come_back_to_what_they_asked_for(records: Records) -> None:
    answer = httpx.get(f"{records.url}/acts?agent=a&outcome=refused")
    assert answer.status_code == 303
    assert httpx.URL(answer.headers["location"]).params["next"] == "/acts?agent=a&outcome=refused"
    records.sign_in()
    for method in ("POST", "PUT", "DELETE"):
        assert records.browser.request(method, "/acts").status_code == 405


def test_what_agents_write_is_no_part_of_the_pages_of_acts(records: Records) -> None:
    records.act("<script>alert(1)</script>\u202etxt.exe")
    records.sign_in()
    page = records.browser.get("/acts").text
    ((link, _, _),) = ACT.findall(page)
    for text in (page, records.browser.get(f"{records.url}{link}").text):
        assert "<script>alert" not in text
        assert "\u202e" not in text
        assert "\\u202etxt.exe" in text


@pytest.mark.parametrize("query", ["outcome=perhaps", "before=x", "before=-1", "before=99999999999999999999"])
def test_a_question_without_a_reading_is_a_clear_problem(records: Records, query: str) -> None:
    records.sign_in()
    answer = records.browser.get(f"/acts?{query}")
    assert (answer.status_code, 'role="alert"' in answer.text) == (422, True)


def test_an_act_that_is_not_there_is_no_fault(records: Records) -> None:
    records.sign_in()
    assert records.browser.get(f"/acts/{'0' * 32}").status_code == 404
    assert records.browser.get("/acts/nonsense").status_code in (404, 422)
