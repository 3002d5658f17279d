"""`creto inbox`: the page on which approvers answer, and the same over JSON for programs."""

from __future__ import annotations

from contextlib import closing

import click

from creto.cli._frame import Frame, json_option, pass_frame

__all__ = ["command"]


@click.command()
@click.option("--host", help="Where to listen; this machine only, unless `oversight.inbox_url` is an https address.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 0 for any free one.")
@json_option
@pass_frame
def command(frame: Frame, host: str | None, port: int | None) -> None:
    """Serve the inbox: approvers sign in with their token, see what waits, and answer.

    Where there is no approver yet, one is made for you and its token is printed, this once.

    \b
    Programs do the same over JSON:
      curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/api/requests
      curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
           -d '{"digests": {"payments": "..."}}' http://127.0.0.1:8080/api/requests/ID/approve
    """
    from creto.oversight import open_desk
    from creto.reach import Reach
    from creto.report import price
    from creto.server import Metrics, serve_inbox

    settings = frame.settings.oversight
    with (
        frame.store() as store,
        Reach(store) as reach,
        closing(open_desk(store, frame.settings, reach, frame.sealer())) as desk,
    ):
        if desk.announcer is not None:
            desk.announcer.resume()  # whoever asks announces; what waits too long is told from here too
        token = None
        if not any(approver.active for approver in desk.approvers.all()):
            token = desk.approvers.renew_token(desk.approvers.operator().name)

        secret = settings.metrics_token
        metrics = Metrics(frame.folder, store, secret.get_secret_value()) if secret is not None else None

        def started(url: str) -> None:
            text = f"inbox at {url}"
            if token is not None:
                text += f"\nsign in, shown only now: {url}/login#{token}"
            else:
                text += "\nsign in with your token; `creto approver token NAME` gives an approver a new one"
            frame.line({"url": url, "token": token}, text)

        async def serve() -> None:
            await serve_inbox(
                desk,
                host=host or settings.inbox_host,
                port=settings.inbox_port if port is None else port,
                url=settings.inbox_url,
                metrics=metrics,
                folder=frame.folder,
                price=lambda records: price(records, frame.settings),
                started=started,
            )

        frame.run(serve)
