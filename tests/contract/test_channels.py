"""What announcements promise: approvers hear of a request with a link to it; a channel that fails holds nothing up."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest
from sqlalchemy import select

from creto.errors import (
    ConnectionFailedError,
    CretoError,
    InvalidInputError,
    OversightRequiredError,
    TimeoutError,
    UnauthorizedError,
)
from creto.oversight import Request
from creto.oversight.channels import Alert, Announcements, Email, Message, Slack, Webhook
from creto.store import tables
from desks import AGENT, BOSS, Office, act, wait_until
from servers import Mailbox, free_port

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver:
    """A web server that keeps what is posted to it and answers as told, one status for each post."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posts.append((self.path, headers, body))
                status, extra = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


@pytest.fixture
def office(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    # Between tries there are pauses at random; the tests have no time for them.
    monkeypatch.setattr("creto.oversight.channels._announcements._FIRST", 0.01)
    opened = Office(state)
    yield opened
    opened.close()


def asked(
    office: Office,
    *channels: Any,
    url: str | None = "https://inbox.example",
    after: Mapping[str, float] = MappingProxyType({}),
    **options: Any,
) -> Request:
    """A request that was asked while these channels were configured."""
    office.desk.announcer = Announcements(office.store, channels, url=url, after=after)
    with pytest.raises(OversightRequiredError):
        anyio.run(lambda: office.desk.ask(options.pop("act", act()), ["payments"], hold=0.05, **options))
    return office.desk.pending()[-1]


def told(office: Office, request: Request, count: int = 1) -> list[dict[str, Any]]:
    """How the announcements went, once all are settled."""

    def settled() -> list[dict[str, Any]] | None:
        found = office.desk.announcements(request)
        return found if len(found) == count and all(one["state"] != "sending" for one in found) else None

    return wait_until(settled)


# --- webhook ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_so_that_a_standard_library_of_its_receiver_accepts_it(
    office: Office, receiver: Receiver
) -> None:
    request = asked(office, Webhook("ops", receiver.url + "/hook?team=1", SECRET))
    assert [(one["state"], one["detail"]) for one in told(office, request)] == [("sent", "200 OK")]
    ((path, headers, body),) = receiver.posts
    assert path == "/hook?team=1"
    # The receiver's side, as Standard Webhooks 1.0 words it.
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - dt.datetime.now(dt.UTC).timestamp()) < 60
    event = json.loads(body)
    assert event["type"] == "oversight.request.pending"
    assert event["data"]["id"] == request.id
    assert event["data"]["link"] == f"https://inbox.example/r/{request.id}"


def test_what_fails_for_now_is_tried_again_under_the_same_id_and_what_fails_for_good_is_not(
    office: Office, receiver: Receiver
) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"}), (200, {})]
    request = asked(office, Webhook("ops", receiver.url, SECRET))
    (one,) = told(office, request)
    assert (one["state"], one["attempts"]) == ("sent", 3)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.posts}) == 1
    receiver.answers = [(410, {})]
    second = asked(office, Webhook("ops", receiver.url, SECRET), act=act(6))
    (one,) = told(office, second)
    assert (one["state"], one["attempts"], one["detail"]) == ("failed", 1, "`127.0.0.1` answered 410 Gone: said")


def test_a_channel_that_is_down_is_recorded_and_the_request_waits_all_the_same(office: Office) -> None:
    request = asked(office, Slack("ops", f"http://127.0.0.1:{free_port()}/T0/secret-path"))
    (one,) = told(office, request)
    assert (one["state"], one["attempts"]) == ("failed", 6)
    assert one["detail"].startswith("`127.0.0.1` could not be reached")
    assert "secret-path" not in one["detail"]
    with office.store.read() as tx:
        records = [row.record for row in tx.all(select(tables.outbox))]
    (failed,) = [record for record in records if record["what"] == "oversight:announcement-failed"]
    assert (failed["why"], failed["act"]) == ("slack:ops", request.id)
    assert office.desk.approve(request, office.ann).state == "approved"


def test_a_redirect_is_not_followed(office: Office, receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": receiver.url + "/elsewhere"})]
    request = asked(office, Webhook("ops", receiver.url, SECRET))
    (one,) = told(office, request)
    assert (one["state"], len(receiver.posts)) == ("failed", 1)


@pytest.mark.parametrize("secret", ["whsec_short", "whsec_" + base64.b64encode(b"x" * 8).decode(), "no base64!"])
def test_a_webhook_secret_that_receivers_would_refuse_is_refused_here(secret: str) -> None:
    with pytest.raises(InvalidInputError, match="the secret of the webhook `ops`"):
        Webhook("ops", "https://example.org", secret)


def test_only_requests_under_the_named_policies_are_announced(office: Office, receiver: Receiver) -> None:
    request = asked(office, Webhook("a", receiver.url, SECRET, ["deploys"]), Slack("b", receiver.url, ["payments"]))
    assert [one["channel"] for one in told(office, request)] == ["slack:b"]


# --- Slack -----------------------------------------------------------------------------------------------------------


def test_slack_gets_blocks_with_a_button_and_reads_no_mark_up_of_the_agent(office: Office, receiver: Receiver) -> None:
    request = asked(office, Slack("ops", receiver.url), act=act(to="<!channel> *bold* <https://evil.example|click>"))
    told(office, request)
    message = json.loads(receiver.posts[0][2])
    kinds = [block["type"] for block in message["blocks"]]
    assert kinds == ["header", "section", "context", "actions"]
    (button,) = message["blocks"][3]["elements"]
    assert button["url"] == f"https://inbox.example/r/{request.id}"
    fields = message["blocks"][1]["fields"]
    assert {field["type"] for field in fields} == {"plain_text"}
    assert any("<!channel>" in field["text"] for field in fields)
    assert "<" not in message["text"]
    assert len(message["blocks"][0]["text"]["text"]) <= 150


def test_without_an_inbox_there_is_no_link_to_it(office: Office, receiver: Receiver) -> None:
    request = asked(office, Slack("ops", receiver.url), url=None)
    told(office, request)
    assert [block["type"] for block in json.loads(receiver.posts[0][2])["blocks"]] == ["header", "section", "context"]


# --- email -----------------------------------------------------------------------------------------------------------


def _to(*addresses: str) -> Callable[[Request], list[str]]:
    return lambda _: list(addresses)


def test_a_letter_says_who_asks_for_what_and_where_to_answer(office: Office, smtp: Mailbox) -> None:
    chain = (BOSS, AGENT)
    mail = Email("ops", _to("ann@example.org"), "creto@example.org", smtp.host, smtp.port, tls="none")
    request = asked(office, mail, act=act(1250, chain=chain))
    (letter,) = smtp.wait()
    assert letter["to"] == "ann@example.org"
    assert letter["subject"] == "[creto] assistant asks to tool:call: send_money"
    body = letter.get_payload(decode=True).decode()  # type: ignore[union-attr]
    for line in ("Action    tool:call", "For       boss → assistant", "amount    1250", f"/r/{request.id}"):
        assert line in body, body
    assert told(office, request)[0]["state"] == "sent"


def test_an_agent_writes_no_headers_and_turns_no_text_around(office: Office, smtp: Mailbox) -> None:
    mail = Email("ops", _to("ann@example.org"), "creto@example.org", smtp.host, smtp.port, tls="none")
    from creto import _core

    evil = _core.Act(AGENT, "tool:call", "x\r\nBcc: eve@example.org\r\n\r\n\u202egpj", context={"a\nb": "c\nd"})
    asked(office, mail, act=evil)
    (letter,) = smtp.wait()
    assert letter["bcc"] is None
    assert "\\x0d\\x0aBcc" in str(letter["subject"]).replace("\n ", " ")
    assert "\u202e" not in letter.get_payload(decode=True).decode()  # type: ignore[union-attr]


def test_a_server_that_offers_no_tls_gets_no_letter(office: Office, smtp: Mailbox) -> None:
    mail = Email("ops", _to("ann@example.org"), "creto@example.org", smtp.host, smtp.port)
    (one,) = told(office, asked(office, mail))
    assert (one["state"], one["attempts"]) == ("failed", 1)
    assert "offers no STARTTLS" in one["detail"]
    assert smtp.messages == []


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_letters_go_over_tls_to_a_server_that_is_who_it_says(
    office: Office, certificate: tuple[Path, Path], tls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Message as Handler
    from aiosmtpd.smtp import SMTP, AuthResult

    letters: list[Any] = []

    class Keep(Handler):
        def handle_message(self, message: Any) -> None:
            letters.append(message)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"creto", b"right"), handled=False)

    class Server(Controller):
        def factory(self) -> SMTP:
            return SMTP(
                self.handler,
                tls_context=context if tls == "starttls" else None,
                require_starttls=tls == "starttls",
                authenticator=login,
                auth_require_tls=tls == "starttls",
            )

    server = Server(Keep(), hostname="127.0.0.1", port=free_port(), ssl_context=context if tls == "tls" else None)
    server.start()
    try:
        options: dict[str, Any] = {"tls": tls, "login": ("creto", "right")}
        mail = Email("ops", _to("ann@example.org"), "creto@example.org", "127.0.0.1", server.port, **options)
        (one,) = told(office, asked(office, mail))
        assert (one["state"], letters) == ("failed", [])
        assert "cannot be trusted" in one["detail"]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        (one,) = told(office, asked(office, mail, act=act(6)))
        assert (one["state"], len(letters)) == ("sent", 1), one
        options["login"] = ("creto", "wrong")
        mail = Email("ops", _to("ann@example.org"), "creto@example.org", "127.0.0.1", server.port, **options)
        (one,) = told(office, asked(office, mail, act=act(7)))
        assert "refuses our login" in one["detail"]
    finally:
        server.stop()


# --- from the configuration ------------------------------------------------------------------------------------------


def test_the_configuration_names_channels_and_approvers_with_an_address(
    state: Path, tmp_path: Path, smtp: Mailbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from creto import config
    from creto.oversight import configure_desk, open_desk

    file = tmp_path / "creto.toml"
    file.write_text(
        f"""
        [oversight]
        inbox_url = "https://inbox.example/creto"
        slack_webhook_url = "{receiver.url}/slack"
        email_smtp_host = "{smtp.host}"
        email_smtp_port = {smtp.port}
        email_smtp_tls = "none"
        email_from = "creto@example.org"
        [[approvers]]
        name = "bob"
        policies = ["payments"]
        email = "bob@example.org"
        [[approvers]]
        name = "eve"
        policies = ["deploys"]
        email = "eve@example.org"
        [[channels]]
        kind = "webhook"
        name = "ops"
        url = "{receiver.url}/hook"
        secret = "{SECRET}"
        """
    )
    office = Office(state)
    desk = open_desk(office.store, config.load(files=[file], state=state), office.reach)
    with pytest.raises(OversightRequiredError):
        anyio.run(lambda: desk.ask(act(), ["payments"], hold=0.05))
    (request,) = desk.pending()
    assert sorted(one["channel"] for one in told(office, request, 3)) == [
        "email:approvers",
        "slack:default",
        "webhook:ops",
    ]
    assert [str(letter["to"]) for letter in smtp.wait()] == ["bob@example.org"]
    assert sorted(path for path, _, _ in receiver.posts) == ["/hook", "/slack"]
    assert desk.approve(request, desk.approvers.named("bob")).state == "approved"
    assert f"https://inbox.example/creto/r/{request.id}" in receiver.posts[0][2].decode()
    # The configuration changes while it runs: the webhook goes, another approver comes.
    text = file.read_text()
    file.write_text(text.replace('"eve"', '"zoe"').partition("[[channels]]")[0])
    configure_desk(desk, config.load(files=[file], state=state))
    with pytest.raises(OversightRequiredError):
        anyio.run(lambda: desk.ask(act(6), ["payments"], hold=0.05))
    later = desk.pending()[-1]
    assert sorted(one["channel"] for one in told(office, later, 2)) == ["email:approvers", "slack:default"]
    assert desk.approvers.named("zoe").policies == {"deploys"}
    desk.close()
    office.close()


def test_what_a_killed_process_left_unsent_is_sent_by_the_next(office: Office, receiver: Receiver) -> None:
    request = asked(office)
    with office.store.begin() as tx:
        long_ago = ((tx.now >> 12) - 3_600_000_000) << 12
        values = {"state": "sending", "attempts": 0, "updated": long_ago}
        tx.insert(tables.announcements, request=request.id, channel="webhook:ops", **values)
    announcements = Announcements(office.store, [Webhook("ops", receiver.url, SECRET)])
    assert announcements.resume() == 1
    assert [one["state"] for one in told(office, request)] == ["sent"]
    assert announcements.resume() == 0
    announcements.close()
    announcements.announce(request)  # by a desk that was given others in this moment: nothing is told, nor goes wrong
    assert len(receiver.posts) == 1


def test_what_an_act_would_cost_is_told_as_text_that_moves_no_cursor(office: Office) -> None:
    request = asked(office, cost="\x1b[2J12 EUR")
    assert Message(request, None).facts[-1] == ("Cost", "1 tool_calls, \\x1b[2J12 EUR")


# --- who is told next ------------------------------------------------------------------------------------------------


def test_what_nobody_answers_is_told_to_the_next_by_one_process_and_what_is_answered_is_not(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("creto.oversight.channels._announcements._LOOKS", 0.05)

    def channels() -> list[Any]:
        return [Slack("team", f"{receiver.url}/team"), Slack("lead", f"{receiver.url}/lead")]

    after = {"slack:lead": 1.0}
    beside = [Announcements(office.store, channels(), after=after) for _ in range(2)]
    assert [one.resume() for one in beside] == [0, 0]
    first = asked(office, *channels(), after=after)
    second = asked(office, *channels(), after=after, act=act(8))
    assert {one["channel"]: one["state"] for one in office.desk.announcements(first)}["slack:lead"] == "waiting"
    office.desk.approve(second, office.desk.approvers.named("ann"))

    def settled(request: Request) -> dict[str, str] | None:
        states = {one["channel"]: one["state"] for one in office.desk.announcements(request)}
        return states if not {"waiting", "sending"} & set(states.values()) else None

    assert wait_until(lambda: settled(first)) == {"slack:lead": "sent", "slack:team": "sent"}
    assert wait_until(lambda: settled(second)) == {"slack:lead": "answered", "slack:team": "sent"}
    late = [json.loads(body) for path, _, body in receiver.posts if path == "/lead"]
    assert [one["text"] for one in late] == ["No answer yet: assistant asks to tool:call: send_money"]
    assert len([path for path, _, _ in receiver.posts if path == "/team"]) == 2
    for one in beside:
        one.close()


def test_who_was_to_be_told_next_is_told_though_the_process_that_asked_is_gone(
    office: Office, receiver: Receiver
) -> None:
    lead = Slack("lead", receiver.url)
    request = asked(office, lead, after={"slack:lead": 0.3})
    office.desk.close()  # its process ends before the time has come
    later = Announcements(office.store, [lead], after={"slack:lead": 0.3})
    wait_until(lambda: later.resume() or None)
    assert [one["state"] for one in told(office, request)] == ["sent"]
    assert later.resume() == 0
    later.close()


def test_the_configuration_says_who_is_told_next(office: Office, state: Path, tmp_path: Path) -> None:
    from creto import config

    file = tmp_path / "creto.toml"
    lead = '[[channels]]\nkind = "slack"\nname = "lead"\nurl = "https://hooks.example/lead"\nafter_seconds = 900\n'
    file.write_text(lead + lead.replace("lead", "team").replace("after_seconds = 900\n", ""))
    announcements = Announcements.configured(office.store, config.load(files=[file], state=state))
    assert announcements.wanted(asked(office)) == {"slack:lead": 900.0, "slack:team": 0.0}
    announcements.close()


def test_every_failure_of_a_channel_says_whether_to_try_again(receiver: Receiver, office: Office) -> None:
    request = asked(office)
    hook = Webhook("ops", receiver.url, SECRET)
    kinds: dict[int, type[CretoError]] = {
        400: InvalidInputError,
        403: UnauthorizedError,
        429: TimeoutError,
        500: ConnectionFailedError,
    }
    for status, kind in kinds.items():
        receiver.answers = [(status, {})]
        with pytest.raises(kind) as caught:
            hook.send(Message(request, None))
        assert caught.value.should_retry is (status in (429, 500))


# --- quotas that run low ---------------------------------------------------------------------------------------------

LOW = Alert("team", "research <!channel>", "tool_calls", "day", 100, 80, 80, 1_795_521_600_000_000)


def test_a_quota_that_runs_low_is_told_once_over_every_channel_that_wants_it_by_whichever_process(
    office: Office, receiver: Receiver, smtp: Mailbox
) -> None:
    def channels() -> list[Any]:
        return [
            Webhook("ops", receiver.url + "/hook", SECRET, alerts=True),
            Slack("ops", receiver.url + "/slack", alerts=True),
            Slack("quiet", receiver.url + "/quiet"),
            Email(
                "finance",
                lambda _: (),
                "creto@acme.test",
                "127.0.0.1",
                smtp.port,
                tls="none",
                alerts=["f@acme.test"],
            ),
        ]

    processes = [Announcements(office.store, channels()) for _ in range(3)]
    assert [process.alert(LOW) for process in processes] == [True, False, False]
    wait_until(lambda: (len(receiver.posts) == 2 and len(smtp.messages) == 1) or None)
    posts = {path: json.loads(body) for path, _, body in receiver.posts}
    assert posts["/hook"]["type"] == "quota.alert"
    assert posts["/hook"]["data"]["used"] == 80
    title = "team research <!channel> has used 80 % of its tool_calls (day)"
    assert posts["/slack"]["text"] == title.replace("<", "&lt;").replace(">", "&gt;")
    (letter,) = smtp.messages
    assert (letter["To"], " ".join(letter["Subject"].split())) == ("f@acme.test", f"[creto] {title}")
    # The next window is another alert; a channel without `alerts` hears of neither.
    assert processes[1].alert(Alert(*(getattr(LOW, name) for name in LOW.__slots__[:-1]), window_start=1))
    for process in processes:
        process.close()
