"""Email by SMTP, over TLS unless the configuration says otherwise."""

from __future__ import annotations

import builtins
import smtplib
import ssl
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Literal

from creto.errors import ConnectionFailedError, InvalidInputError, TimeoutError, UnauthorizedError
from creto.oversight._request import Request
from creto.oversight.channels._alert import Alert
from creto.oversight.channels._message import Message

__all__ = ["Email"]

_TIMEOUT = 15.0


class Email:
    """Sends requests to approvers' addresses.

    Args:
        name: For people, and for the record.
        to: Addresses for a request: none means that it is not announced here.
        sender: The address it comes from.
        host: The SMTP server.
        port: Its port.
        tls: `starttls` (refused where the server offers none), `tls` from the first byte, or `none`.
        login: User and password, if the server wants them.
        alerts: Addresses that are told of quotas that run low.

    Example:
        >>> import tempfile, creto
        >>> from creto import _core
        >>> with creto.open_blocking(tempfile.mkdtemp()) as layer:
        ...     desk = layer.parts.desk
        ...     act = _core.Act(layer.agent("buyer").id, "tool:call", "send_money", context={"amount": 250})
        ...     async def ask():
        ...         try:
        ...             await desk.ask(act, ["payments"], hold=0)
        ...         except creto.OversightRequiredError:
        ...             return desk.pending()[0]
        ...     request = layer.call_blocking(ask)
        >>> mail = Email("desk", lambda request: ["desk@example.org"], "creto@example.org", "smtp.example.org")
        >>> mail.letter(Message(request, None))["To"]
        'desk@example.org'
    """

    def __init__(
        self,
        name: str,
        to: Callable[[Request], Sequence[str]],
        sender: str,
        host: str,
        port: int = 587,
        *,
        tls: Literal["starttls", "tls", "none"] = "starttls",
        login: tuple[str, str] | None = None,
        alerts: Sequence[str] = (),
    ) -> None:
        self.name = f"email:{name}"
        self._to = to
        self._sender = sender
        self._host = host
        self._port = port
        self._tls = tls
        self._login = login
        self._alerts = tuple(alerts)
        self.alerts = bool(alerts)

    def wants(self, request: Request) -> bool:
        """True where this request is to be announced here."""
        return bool(self._to(request))

    def send(self, message: Message) -> str:
        """Sends it once, to every address."""
        return self._send(self.letter(message))

    def send_alert(self, alert: Alert) -> str:
        """Sends once that a quota runs low."""
        letter = self._blank(alert.id, alert.title, self._alerts)
        width = max(len(name) for name, _ in alert.facts)
        lines = [alert.title, "", *(f"{name:<{width}}  {text}" for name, text in alert.facts)]
        letter.set_content("\n".join(lines))
        return self._send(letter)

    def _send(self, letter: EmailMessage) -> str:
        where = f"the mail server `{self._host}:{self._port}`"
        try:
            refused = self._deliver(letter)
        except smtplib.SMTPAuthenticationError as error:
            raise UnauthorizedError(f"{where} refuses our login ({error.smtp_code})") from error
        except smtplib.SMTPNotSupportedError as error:
            raise InvalidInputError(f"{where} offers no STARTTLS; set `oversight.email_smtp_tls`") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise InvalidInputError(f"{where} refuses every recipient") from error
        except smtplib.SMTPResponseException as error:
            text = f"{where} answered {error.smtp_code}"
            # 4xx: not now; 5xx: never.
            raise (ConnectionFailedError if error.smtp_code < 500 else InvalidInputError)(text) from error
        except ssl.SSLCertVerificationError as error:
            raise InvalidInputError(f"{where} cannot be trusted: {error.verify_message}") from error
        except builtins.TimeoutError as error:
            raise TimeoutError(f"{where} did not answer within {_TIMEOUT:.0f} s") from error
        except (OSError, smtplib.SMTPException) as error:
            raise ConnectionFailedError(f"{where} could not be reached: {error}") from error
        return "accepted" if not refused else f"accepted, but not for {', '.join(sorted(refused))}"

    def _deliver(self, letter: EmailMessage) -> dict[str, tuple[int, bytes]]:
        context = ssl.create_default_context()
        if self._tls == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=_TIMEOUT, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=_TIMEOUT)
        with server:
            if self._tls == "starttls":
                server.starttls(context=context)
            if self._login is not None:
                server.login(*self._login)
            return server.send_message(letter)

    def letter(self, message: Message) -> EmailMessage:
        """The letter itself."""
        letter = self._blank(message.request.id, message.title, self._to(message.request))
        width = max(len(name) for name, _ in message.facts)
        lines = [message.title, "", *(f"{name:<{width}}  {text}" for name, text in message.facts), ""]
        lines.append(f"No answer by {message.until} counts as no.")
        if message.link is not None:
            lines += ["", "Look at it, and answer:", message.link]
        lines += ["", "Answers by mail are not read."]
        letter.set_content("\n".join(lines))
        return letter

    def _blank(self, id: str, title: str, to: Sequence[str]) -> EmailMessage:
        letter = EmailMessage()
        letter["From"] = self._sender
        letter["To"] = ", ".join(to)
        letter["Subject"] = f"[creto] {title}"
        letter["Date"] = formatdate(usegmt=True)
        # The same over retries, so that mail programs show it once.
        letter["Message-ID"] = f"<{id}@{self._sender.rpartition('@')[2] or 'creto.local'}>"
        letter["Auto-Submitted"] = "auto-generated"
        return letter
