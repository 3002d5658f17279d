"""What the inbox promises: only a POST by an approver, about the act that was shown, decides; nothing else does."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.from_thread
import httpx
import pytest

from creto import _core
from creto.cli import main
from creto.errors import CretoError, InvalidInputError, OversightRequiredError, UnauthorizedError
from creto.oversight import Request
from creto.server import inbox_app, serve_inbox
from desks import AGENT, Office, act, wait_until
from quickest import quickest
from servers import Start


class Inbox:
    """A served inbox, an approver's browser at it, and an agent that asks."""

    def __init__(self, office: Office, url: str, portal: anyio.from_thread.BlockingPortal) -> None:
        self.office = office
        self.url = url
        self._portal = portal
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {office.token}"}, timeout=60)
        self.browser = httpx.Client(base_url=url, follow_redirects=False, timeout=60)

    def ask(self, *args: Any, **options: Any) -> Request:
        """Has an agent ask, and returns its request; the outcome is in `self.outcome()`."""
        options = {"policies": ["payments"], **options}
        before = {request.id for request in self.office.desk.all()}
        what = options.pop("act", None) or act(*args)
        self._asking = self._portal.start_task_soon(self._ask, what, options.pop("policies"), options)

        def new() -> Request | None:
            # Also where it is over by now, as one that waits for a moment only may be.
            return next((request for request in self.office.desk.all() if request.id not in before), None)

        return wait_until(new)

    async def _ask(self, what: Any, policies: Any, options: Any) -> Any:
        return await self.office.desk.ask(what, policies, **options)

    def outcome(self) -> str:
        """What the agent was told: `cleared`, or the error's text."""
        try:
            self._asking.result(timeout=60)
        except CretoError as error:
            return str(error)
        return "cleared"

    def sign_in(self) -> None:
        signed_in(self.browser, self.url, self.office.token)

    def form(self, request: Request) -> dict[str, str]:
        """The fields of the page's form."""
        page = self.browser.get(f"/r/{request.id}").text
        return {name: _field(page, name) for name in ("csrf", "seen")}

    def state(self, request: Request) -> str:
        return self.office.desk.find(request.id).state


def signed_in(browser: httpx.Client, url: str, token: str) -> None:
    """Signs in; from then on what is asked for lies under the session's own path."""
    answer = browser.post(f"{url}/login", data={"token": token, "next": "/"})
    place = re.fullmatch(r"(/s/[\w-]{22})/", answer.headers["location"])
    assert answer.status_code == 303
    assert place is not None
    browser.base_url = httpx.URL(f"{url}{place[1]}")


def _field(page: str, name: str) -> str:
    return re.findall(rf'name="{name}" value="([^"]*)"', page)[-1]


@pytest.fixture
def inbox(state: Path) -> Iterator[Inbox]:
    with ExitStack() as stack:
        office = Office(state)
        stack.callback(office.close)
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        urls: list[str] = []
        portal.start_task_soon(lambda: serve_inbox(office.desk, started=urls.append))
        # Those who still wait for an answer, and the server, are not waited for.
        stack.callback(portal.call, portal.stop, True)
        opened = Inbox(office, wait_until(lambda: urls[0] if urls else None), portal)
        stack.callback(opened.api.close)
        stack.callback(opened.browser.close)
        yield opened


# --- people ----------------------------------------------------------------------------------------------------------


def test_an_approver_signs_in_reads_the_act_and_answers_it_without_scripts(inbox: Inbox) -> None:
    request = inbox.ask(1250)
    assert inbox.browser.get("/").headers["location"] == "/login?next=/"
    inbox.sign_in()
    listed = inbox.browser.get("/").text
    assert "1 waiting for an answer" in listed
    page = inbox.browser.get(f"/r/{request.id}").text
    for shown in ("assistant", "tool:call", "send_money", "1250", "DE89", "payments", request.digest("payments").hex()):
        assert shown in page
    answer = inbox.browser.post(f"/r/{request.id}/approve", data={**inbox.form(request), "reason": "invoice 118"})
    assert answer.status_code == 303
    assert inbox.outcome() == "cleared"
    assert "invoice 118" in inbox.browser.get(f"/r/{request.id}").text


def test_a_denial_from_the_page_reaches_the_agent_with_its_reason(inbox: Inbox) -> None:
    request = inbox.ask()
    inbox.sign_in()
    inbox.browser.post(f"/r/{request.id}/deny", data={**inbox.form(request), "reason": "too much"})
    assert inbox.outcome().endswith("was denied by `spiffe://creto.local/approver/ann`: too much")


def test_the_page_is_told_of_changes_as_they_happen(inbox: Inbox) -> None:
    inbox.sign_in()
    amounts = itertools.count(1)

    def told() -> float:
        heard: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            with inbox.browser.stream("GET", "/events", timeout=60) as stream:
                for line in stream.iter_lines():
                    ready.set()
                    heard.append(line)
                    if line.startswith("data: "):
                        return

        thread = threading.Thread(target=listen)
        thread.start()
        assert ready.wait(60)
        begun = time.monotonic()
        request = inbox.ask(next(amounts))
        thread.join(60)
        assert f"data: {request.id}" in heard
        return time.monotonic() - begun

    assert quickest(told, 2) < 2


def test_what_agents_write_cannot_become_part_of_the_page(inbox: Inbox) -> None:
    inbox.ask(1, **{"preview": "+<script>alert(1)</script>\n\u202etxt.exe"})
    inbox.sign_in()
    request = inbox.office.desk.pending()[0]
    page = inbox.browser.get(f"/r/{request.id}").text
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\\u202etxt.exe" in page


def test_names_of_what_an_agent_brings_are_spelt_out_like_its_texts(inbox: Inbox) -> None:
    context = {"to": "DE89", "to\u200b": "DE66", "\u202eount": 5, "x" * 900: 1}
    request = inbox.ask(act=_core.Act(AGENT, "tool:call", "send_money", context=context))
    inbox.sign_in()
    page = inbox.browser.get(f"/r/{request.id}").text
    assert "to\\u200b" in page
    assert "\\u202eount" in page
    assert not {"\u200b", "\u202e"} & set(page)
    assert "x" * 400 not in page


def test_a_sign_in_ends_with_the_token_it_was_made_from(inbox: Inbox) -> None:
    inbox.sign_in()
    assert inbox.browser.get("/").status_code == 200
    inbox.office.desk.approvers.renew_token("ann")
    assert inbox.browser.get("/").headers["location"] == "/login?next=/&ended"


def test_signing_out_ends_the_session_on_the_server(inbox: Inbox) -> None:
    inbox.sign_in()
    cookie, own = dict(inbox.browser.cookies), f"{inbox.browser.base_url}"
    csrf = _field(inbox.browser.get("/").text, "csrf")
    assert httpx.get(own, cookies=cookie).status_code == 200
    assert inbox.browser.post("/logout", data={"csrf": csrf}).status_code == 303
    assert httpx.get(own, cookies=cookie).status_code == 303


# --- programs --------------------------------------------------------------------------------------------------------


def test_a_program_answers_over_json_with_its_token(inbox: Inbox) -> None:
    request = inbox.ask()
    (listed,) = inbox.api.get("/api/requests").json()["requests"]
    assert (listed["id"], listed["context"]) == (request.id, {"amount": 5, "to": "DE89"})
    body = {"digests": listed["digests"], "reason": "checked by rule 7"}
    answer = inbox.api.post(f"/api/requests/{request.id[:8]}/approve", json=body)
    assert (answer.status_code, answer.json()["state"]) == (200, "approved")
    assert inbox.outcome() == "cleared"


def test_an_agreement_names_the_act_it_is_for(inbox: Inbox) -> None:
    first, second = inbox.ask(5), inbox.ask(5_000_000)
    digests = {policy: first.digest(policy).hex() for policy in first.policies}
    for body in ({}, {"digests": digests}):
        answer = inbox.api.post(f"/api/requests/{second.id}/approve", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["detail"].startswith("name the act that you mean")
    assert inbox.state(second) == "pending"
    inbox.sign_in()
    form = {**inbox.form(second), "seen": inbox.form(first)["seen"]}
    answer = inbox.browser.post(f"/r/{second.id}/approve", data=form)
    assert (answer.status_code, inbox.state(second)) == (422, "pending")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"reason": 1}', b'{"reason": "\\ud800"}', b"x" * 100_000])
def test_a_bad_body_is_a_clear_problem_and_decides_nothing(inbox: Inbox, body: bytes) -> None:
    request = inbox.ask()
    headers = {"Content-Type": "application/json"}
    answer = inbox.api.post(f"/api/requests/{request.id}/deny", content=body, headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (422, "InvalidInput")
    assert inbox.state(request) == "pending"


# --- attacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_nothing_but_a_post_decides(inbox: Inbox, method: str) -> None:
    request = inbox.ask()
    inbox.sign_in()
    for who in (inbox.browser, inbox.api):
        for path in (f"/r/{request.id}/approve", f"/api/requests/{request.id}/approve", f"/r/{request.id}/deny"):
            answer = who.request(method, path, params={**inbox.form(request), "digests": "x"})
            assert answer.status_code == 405
    for path in ("/", f"/r/{request.id}", f"/api/requests/{request.id}", "/history", "/events"):
        if method in ("GET", "HEAD") and path != "/events":
            inbox.browser.request(method, path)
    assert inbox.state(request) == "pending"


def test_a_form_of_another_site_counts_for_nothing(inbox: Inbox) -> None:
    request = inbox.ask()
    inbox.sign_in()
    form = inbox.form(request)
    path = f"/r/{request.id}/approve"
    forged: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),  # a cookie alone
        ({**form, "csrf": ""}, {}),
        ({**form, "csrf": "A" * len(form["csrf"])}, {}),
        (form, {"Origin": "https://evil.example"}),
        (form, {"Origin": "null"}),
        (form, {"Sec-Fetch-Site": "cross-site"}),
        (form, {"Sec-Fetch-Site": "same-site"}),
    ]
    for fields, headers in forged:
        answer = inbox.browser.post(path, data=fields or {"x": ""}, headers=headers)
        assert answer.status_code == 403, (fields, headers)
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        answer = inbox.browser.post(path, content=b"csrf=1", headers={"Content-Type": kind})
        assert answer.status_code == 422, kind
    assert inbox.state(request) == "pending"
    headers = {"Origin": inbox.url, "Sec-Fetch-Site": "same-origin"}
    assert inbox.browser.post(path, data=form, headers=headers).status_code == 303


def test_the_api_takes_no_cookie_and_the_pages_take_no_bearer(inbox: Inbox) -> None:
    request = inbox.ask()
    inbox.sign_in()
    form = inbox.form(request)
    body = {"digests": {policy: request.digest(policy).hex() for policy in request.policies}}
    assert inbox.browser.post(f"/api/requests/{request.id}/approve", json=body).status_code == 401
    answer = inbox.api.post(f"/r/{request.id}/approve", data=form)
    assert (answer.status_code, answer.headers["location"][:6]) == (303, "/login")
    assert inbox.state(request) == "pending"


def test_another_sessions_form_counts_for_nothing(inbox: Inbox) -> None:
    request = inbox.ask()
    inbox.office.desk.approvers.add("eve")
    inbox.sign_in()
    form = inbox.form(request)
    with httpx.Client(base_url=inbox.url) as other:
        signed_in(other, inbox.url, inbox.office.desk.approvers.renew_token("eve"))
        assert other.post(f"/r/{request.id}/approve", data=form).status_code == 403
    assert inbox.state(request) == "pending"


def test_a_name_that_is_not_the_inboxs_own_gets_no_answer(inbox: Inbox) -> None:
    """A page elsewhere may point its own name at this machine (DNS rebinding); it must not see a thing."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        answer = inbox.api.get("/api/requests", headers={"Host": host})
        assert answer.status_code in (400, 421), host


def test_guessing_tokens_is_slowed_down_and_those_signed_in_notice_nothing(inbox: Inbox) -> None:
    inbox.sign_in()
    statuses = [
        httpx.get(inbox.url + "/api/requests", headers={"Authorization": f"Bearer creto_{n}"}).status_code
        for n in range(15)
    ]
    assert statuses[:10] == [403] * 10
    assert set(statuses[10:]) == {429}
    answer = httpx.post(inbox.url + "/login", data={"token": "creto_wrong"})
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
    assert inbox.browser.get("/").status_code == 200
    assert inbox.api.get("/api/requests").status_code == 200


def test_an_approver_cannot_answer_for_what_is_not_theirs_or_is_their_own(inbox: Inbox) -> None:
    people = inbox.office.desk.approvers
    _, token = people.add("dev", policies=["deploys"])
    theirs = inbox.ask(5)
    own = inbox.office.desk
    body = {"digests": {policy: theirs.digest(policy).hex() for policy in theirs.policies}}
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{inbox.url}/api/requests/{theirs.id}/approve", json=body, headers=headers)
    assert (answer.status_code, answer.json()["detail"][:38]) == (403, "`dev` may not answer for the policy `p")
    with httpx.Client(base_url=inbox.url) as browser:
        signed_in(browser, inbox.url, token)
        page = browser.get(f"/r/{theirs.id}").text
        assert "not yours to answer for" in page
        assert "Approve, once" not in page
    with pytest.raises(UnauthorizedError):
        own.approve(theirs, people.named("dev"))
    assert inbox.state(theirs) == "pending"


def test_a_sign_in_of_many_fields_is_a_clear_problem(inbox: Inbox) -> None:
    answer = inbox.browser.post("/login", data={f"field{number}": "x" for number in range(30)})
    assert (answer.status_code, "more than 20 fields" in answer.text) == (422, True)


def test_a_sign_in_sends_nobody_elsewhere(inbox: Inbox) -> None:
    for onward in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"):
        answer = httpx.post(inbox.url + "/login", data={"token": inbox.office.token, "next": onward})
        assert answer.status_code == 303
        assert re.fullmatch(r"/s/[\w-]{22}/", answer.headers["location"]), onward


def test_every_answer_forbids_frames_foreign_scripts_and_keeping(inbox: Inbox) -> None:
    inbox.sign_in()
    for path in ("/", "/login", "/nowhere", "/static/inbox.js", "/api/requests", "/r/0000/approve"):
        headers = inbox.browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in ("no-store", "no-cache")
    cookie = inbox.browser.post("/login", data={"token": inbox.office.token}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_a_neighbour_on_another_port_collects_no_session(inbox: Inbox) -> None:
    """Cookies know no ports: what is set for `/` on one port of a host, browsers send to every other."""
    seen: list[str] = []

    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("cookie", ""))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    inbox.sign_in()
    with ThreadingHTTPServer(("127.0.0.1", 0), Neighbour) as neighbour:
        thread = threading.Thread(target=neighbour.serve_forever, args=(0.02,))
        thread.start()
        inbox.browser.cookies.set("naive", "collected", domain="127.0.0.1", path="/")
        for path in ("/", "/s/", "/r/1", f"/s/{'A' * 22}/", "/login"):
            inbox.browser.get(f"http://127.0.0.1:{neighbour.server_port}{path}")
        neighbour.shutdown()
        thread.join()
    assert seen == ["naive=collected"] * 5


def test_a_cookie_counts_under_the_path_of_its_session_alone(inbox: Inbox) -> None:
    inbox.sign_in()
    ((name, value),) = inbox.browser.cookies.items()
    place = urlsplit(f"{inbox.browser.base_url}").path.rstrip("/")
    elsewhere = f"/s/{'A' * 22}"
    signed = {"cookie": f"{name}={value}; creto_inbox={value}; creto_inbox_{'A' * 22}={value}"}
    for path, status in ((f"{place}/", 200), ("/", 303), (f"{elsewhere}/", 303), (f"{place}", 404)):
        assert httpx.get(inbox.url + path, headers=signed).status_code == status, path
    assert httpx.get(f"{inbox.url}{place}/").status_code == 303, "the path alone opens nothing"


def test_behind_https_the_cookie_is_bound_to_the_host_and_pages_have_no_path_of_their_own(inbox: Inbox) -> None:
    app = inbox_app(inbox.office.desk, hosts=["inbox.example"], secure=True)

    async def visit() -> None:
        inside = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=inside, base_url="https://inbox.example") as browser:
            answer = await browser.post("/login", data={"token": inbox.office.token, "next": "/history"})
            assert answer.headers["location"] == "/history"
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-creto_inbox=")
            assert "Path=/;" in cookie
            assert "Secure" in cookie
            assert (await browser.get("/history")).status_code == 200

    anyio.run(visit)


def test_the_inbox_listens_elsewhere_only_behind_tls(inbox: Inbox) -> None:
    with pytest.raises(InvalidInputError, match="only behind TLS, or tokens could be read on the way"):
        anyio.run(lambda: serve_inbox(inbox.office.desk, host="0.0.0.0"))


# --- as a command ----------------------------------------------------------------------------------------------------


def test_creto_inbox_serves_a_desk_of_another_process_and_stops_cleanly(state: Path, python: Start) -> None:
    server = python("from creto.cli import main; main(['inbox', '--json'])")
    assert server.stdout is not None
    told = json.loads(server.stdout.readline())
    asker = python(
        "import sys; from creto.cli import main\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import anyio, os\nfrom pathlib import Path\nfrom desks import Office, act\n"
        "office = Office(Path(os.environ['CRETO_STATE']))\n"
        "print(anyio.run(office.desk.ask, act(), ['payments']).approvers)\n"
    )
    with httpx.Client(base_url=told["url"], headers={"Authorization": f"Bearer {told['token']}"}, timeout=60) as api:
        (request,) = wait_until(lambda: api.get("/api/requests").json()["requests"] or None)
        assert request["agent"] == AGENT
        answer = api.post(f"/api/requests/{request['id']}/approve", json={"digests": request["digests"]})
        assert answer.status_code == 200
    out, err = asker.communicate(timeout=60)
    assert "/approver/" in out, err
    server.terminate()
    assert server.wait(60) in (0, -15, 143)


def test_creto_approve_lists_and_answers_from_another_terminal(
    state: Path, python: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    def creto(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    assert creto("approve") == (0, "nothing waits for a human\n", "")
    assert creto("approver", "add", "ann", "--policy", "payments")[0] == 0
    asker = python(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "import anyio, os\nfrom pathlib import Path\nfrom desks import Office, act\n"
        "desk = Office(Path(os.environ['CRETO_STATE'])).desk\n"
        "async def main():\n"
        "    clearance = await desk.ask(act(), ['payments'])\n"
        "    print('cleared', flush=True)\n"
        "    await desk.ask(act(6), ['payments'])\n"
        "anyio.run(main)\n"
    )
    (waiting,) = wait_until(lambda: json.loads(creto("approve", "--json")[1]) or None)
    assert "send_money" in creto("approve")[1]
    done = creto("approve", waiting["id"][:6], "--as", "ann", "--reason", "fine")
    assert done == (0, f"approved {waiting['id'][:8]}: tool:call on send_money, by ann\n", "")
    code, _, error = creto("approve", waiting["id"][:6], "--as", "ann")
    assert code != 0
    assert "takes no answer any more" in error
    (second,) = wait_until(lambda: json.loads(creto("approve", "--json")[1]) or None)
    assert creto("deny", second["id"], "--as", "ann", "--reason", "no")[0] == 0
    out, error = asker.communicate(timeout=60)
    assert out == "cleared\n"
    assert "was denied by `spiffe://creto.local/approver/ann`: no" in error


def test_oversight_required_is_what_an_agent_gets_when_nobody_serves(inbox: Inbox) -> None:
    inbox.ask(7, timeout=0.3)
    assert "nobody answered in time" in inbox.outcome()
    assert OversightRequiredError.category == "oversight"


def test_connections_that_ask_for_nothing_do_not_shut_the_inbox(inbox: Inbox) -> None:
    """Whoever can connect may open hundreds and say nothing, or their request a letter at a time: approvers get in."""
    address = urlsplit(inbox.url)
    with ExitStack() as stack:
        for number in range(260):
            held = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            if number % 2:
                held.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nx: ")
        inbox.sign_in()
        assert inbox.browser.get("/").status_code == 200


def test_connections_that_read_no_answer_do_not_shut_the_inbox(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not read stops at its sender, with the next request under way, which counts among those that may be."""
    monkeypatch.setattr("creto.server._app._MOST_REQUESTS", 2)
    monkeypatch.setattr("creto.server._serve._PATIENCE_SECONDS", 1.0)
    address = urlsplit(inbox.url)
    # Each quotation mark comes back as five characters, twice.
    asks = b"GET /login?next=/" + b'"' * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((address.hostname, address.port))) for _ in range(2)]

        def is_shut() -> bool | None:
            for one in held:
                one.settimeout(0.2)
                with suppress(OSError):
                    one.sendall(asks)
            return inbox.browser.get("/login").status_code == 503 or None

        wait_until(is_shut)
        wait_until(lambda: inbox.browser.get("/login").status_code == 200 or None)


@pytest.mark.parametrize("name", ["[", "localhost:1@evil", "127.0.0.1.evil.example"])
def test_a_host_that_is_none_is_an_answer_and_no_fault(inbox: Inbox, name: str) -> None:
    assert inbox.browser.get("/login", headers={"host": name}).status_code == 421
    assert inbox.browser.post("/login", headers={"origin": "http://["}, data={"token": "x"}).status_code == 403
